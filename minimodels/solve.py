"""Problems as a model sees them: written and judged episodes, log-probabilities, learning from worked solutions, and scores.

What a supervised start, GRPO and distillation share.
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from minimodels.config import TrainConfig
from minimodels.generate import decode
from minimodels.model import Transformer
from minimodels.optim import make_optimizers, schedule
from minimodels.tasks import STOP, TOKENIZER, Problem, Reward, reward

ROWS = 512  # texts that are written side by side


@dataclass(frozen=True)
class Episodes:
    """N texts, each a prompt and what came after it, padded on the right with the end of the text.

    tokens: (N, L), int64. is_completion: (N, L), True from the first token after the prompt to the end of the text, which counts.
    """

    tokens: Tensor
    is_completion: Tensor

    @classmethod
    def of(cls, prompts: list[list[int]], completions: list[list[int]]) -> "Episodes":
        """Episodes from the tokens of N prompts and of what follows each."""
        lengths = torch.tensor([[len(p), len(c)] for p, c in zip(prompts, completions, strict=True)])
        N, L = len(prompts), int(lengths.sum(1).max())
        tokens = torch.full((N, L), STOP)
        for row, p, c in zip(tokens, prompts, completions):
            row[:len(p) + len(c)] = torch.tensor(p + c)
        place = torch.arange(L)
        is_completion = (place >= lengths[:, :1]) & (place < lengths.sum(1, keepdim=True))  # (N, L)
        return cls(tokens, is_completion)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows) -> "Episodes":
        return Episodes(self.tokens[rows], self.is_completion[rows])

    @property
    def lengths(self) -> Tensor:
        """Tokens of each completion: (N,)."""
        return self.is_completion.sum(1)

    @property
    def targets(self) -> Tensor:
        """Which of the L - 1 predictions are of a completion's token: (N, L-1). Prediction t is of token t + 1."""
        return self.is_completion[:, 1:]

    @property
    def texts(self) -> list[str]:
        """Each completion as text, its tags and its end included."""
        return [TOKENIZER.decode(row[keep].tolist(), skip_special_tokens=False) for row, keep in zip(self.tokens, self.is_completion)]


def token_ids(text: str) -> list[int]:
    """The numbers of a text's tokens."""
    return TOKENIZER.encode(text).ids


def worked(problems: list[Problem], *, is_direct: bool = False) -> Episodes:
    """The problems with their worked solutions, or with the bare answer."""
    return as_episodes(problems, [p.direct if is_direct else p.completion for p in problems])


def as_episodes(problems: list[Problem], completions: list[str]) -> Episodes:
    """Episodes of each problem's prompt and the completion that stands beside it."""
    return Episodes.of([token_ids(p.prompt) for p in problems], [token_ids(text) for text in completions])


def log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    """The log-probability, in nats, of each token but the first: entry t is that of token t + 1, which logits t predict.

    logits: (N, L, V). tokens: (N, L). Returns (N, L-1).
    """
    return logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]


# ---- writing


def write(model: Transformer, problems: list[Problem], *, n_samples: int = 1, temperature: float = 0.0, max_new_tokens: int = 64,
          generator: torch.Generator | None = None) -> Episodes:
    """n_samples completions of each problem, problem by problem: len(problems) * n_samples episodes.

    temperature 0 is greedy. A completion that has not ended after max_new_tokens is cut there.
    """
    prompts = [token_ids(p.prompt) for p in problems for _ in range(n_samples)]
    completions = []
    for i in range(0, len(prompts), ROWS):
        completions += decode(model, prompts[i:i + ROWS], max_new_tokens=max_new_tokens, temperature=temperature, stop_token=STOP,
                              generator=generator).tokens
    return Episodes.of(prompts, completions)


def judge(problems: list[Problem], texts: list[str]) -> list[Reward]:
    """The reward of each text. texts: as many for each problem, problem by problem, as `write` returns them."""
    n = len(texts) // len(problems)
    return [reward(problems[i // n], text) for i, text in enumerate(texts)]


def accuracy(model: Transformer, problems: list[Problem], *, n_samples: int = 1, temperature: float = 0.0, max_new_tokens: int = 64,
             generator: torch.Generator | None = None) -> float:
    """Share of right answers, over all samples of all problems."""
    episodes = write(model, problems, n_samples=n_samples, temperature=temperature, max_new_tokens=max_new_tokens, generator=generator)
    return sum(r.accuracy for r in judge(problems, episodes.texts)) / len(episodes)


# ---- learning from given texts


def cross_entropy(model: Transformer, episodes: Episodes) -> Tensor:
    """Mean loss of the completions' tokens, in nats. The prompts' tokens are read and not learnt."""
    chosen = log_probs(model(episodes.tokens).logits, episodes.tokens)
    return -chosen[episodes.targets].mean()


def drawn(episodes: Episodes, batch_size: int, seed: int = 0) -> Callable[[int], Episodes]:
    """A function that gives step's random batch of these episodes, the same one whenever it is asked."""
    def batch(step: int) -> Episodes:
        rng = random.Random(f"{seed}/{step}")
        return episodes[torch.tensor([rng.randrange(len(episodes)) for _ in range(batch_size)])]
    return batch


def learn(model: Transformer, batch: Callable[[int], Episodes], config: TrainConfig,
          loss: Callable[[Transformer, Episodes], Tensor] = cross_entropy) -> Iterator[float]:
    """Train in place on batch(step), step = 1, 2, ..., and yield each step's loss before the step.

    config: of it are read steps, optimizer, rates, schedule, weight decay, betas and clip. Stop early by leaving the loop.
    Raises FloatingPointError if the loss is no longer finite.
    """
    optimizers = make_optimizers(model, config)
    peaks = [[group["lr"] for group in o.param_groups] for o in optimizers]
    for step in range(1, config.steps + 1):
        model.train()
        value = loss(model, batch(step))
        if not value.isfinite():
            raise FloatingPointError(f"loss must stay finite, got {value.item()} at step {step}; take a lower rate")
        model.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        for optimizer, rates in zip(optimizers, peaks):
            for group, peak in zip(optimizer.param_groups, rates):
                group["lr"] = peak * schedule(step, config)
            optimizer.step()
        yield value.item()


# ---- scores


def pass_at_k(n: int, n_right: int, k: int) -> float:
    """The chance that at least one of k samples is right, if n_right of n were: without bias, unlike 1 - (1 - n_right/n)^k.

    Raises ValueError unless k is in [1, n]. Source: Chen et al. (2021), equation 1.
    """
    if not 1 <= k <= n:
        raise ValueError(f"k must be in [1, n={n}], got {k}; draw more samples for a larger k")
    return 1 - math.comb(n - n_right, k) / math.comb(n, k)


def wilson(n_right: int, n: int, *, z: float = 1.96) -> tuple[float, float]:
    """The 95 % confidence interval of a share, from n_right successes in n independent trials. Source: Wilson (1927)."""
    p, middle = n_right / n, n_right / n + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = ((middle + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)  # at 0 and n the ends are 0 and 1, but for rounding
