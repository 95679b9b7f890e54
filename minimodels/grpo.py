"""Group relative policy optimization: sample a group of answers to each question, and make those likelier that beat their group.

DeepSeek-R1's algorithm, with the switches that its critics have argued about: whether the advantage is divided by the group's
standard deviation, over what the loss is averaged, and whether a ratio belongs to a token or to a sequence.
Left out: a value network, a learnt judge, several processes that write while one learns.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from minimodels.config import Fields
from minimodels.model import Transformer
from minimodels.solve import Episodes, log_probs, write
from minimodels.tasks import Problem, Reward, reward

LENGTHS = ("sequence", "token", "constant")
RATIOS = ("token", "sequence")


@dataclass(frozen=True, kw_only=True)
class GRPOConfig(Fields):
    """How a policy is improved. Raises ValueError, naming field, rule and value."""

    rollouts: int = 100                # times that a batch of groups is written, judged and learnt from
    n_prompts: int = 16                # questions a rollout
    group_size: int = 8                # G: answers to each question
    max_new_tokens: int = 64
    temperature: float = 1.0           # of the samples; the ratio is right at 1 alone
    minibatches: int = 2               # updates a rollout, each from its share of the questions
    lr: float = 1e-4                   # AdamW's, after warm-up
    warmup: int = 5                    # updates in which the rate rises from 0
    clip: float = 0.2                  # epsilon
    kl_weight: float = 0.0             # beta, of the estimate k3 against the start; 0: no reference is kept
    divides_by_std: bool = True        # the advantage, by its group's standard deviation
    averages: str = "sequence"         # sequence: each answer counts alike (GRPO) | token: each token | constant: by max_new_tokens
    ratio: str = "token"               # token (DeepSeekMath) | sequence (R1, V3)
    format_weight: float = 0.2         # of the format's reward beside accuracy's 1
    grad_clip: float = 1.0             # largest norm of the gradient
    seed: int = 0

    def _check(self):
        require = self._require
        for name in ("rollouts", "n_prompts", "max_new_tokens", "minibatches"):
            require(getattr(self, name) >= 1, name, "at least 1")
        require(self.group_size >= 2, "group_size", "at least 2, because an answer is compared with its group")
        require(self.minibatches <= self.n_prompts, "minibatches", f"at most n_prompts={self.n_prompts}")
        for name in ("temperature", "lr", "clip", "grad_clip"):
            require(getattr(self, name) > 0, name, "above 0")
        for name in ("warmup", "kl_weight", "format_weight"):
            require(getattr(self, name) >= 0, name, "at least 0")
        require(self.averages in LENGTHS, "averages", f"one of {', '.join(LENGTHS)}")
        require(self.ratio in RATIOS, "ratio", f"one of {', '.join(RATIOS)}")


@dataclass
class Step:
    """What one rollout did.

    rollout: counted from 1. reward, accuracy, format: means over its samples. length: mean tokens of a completion. entropy: of the
    policy's next token, nats, over completions. kl: k3 against the start, nats a token (nan without a reference). clipped: share of
    tokens whose ratio the clip holds back. idle: share of groups whose samples all earned the same, so that they teach nothing.
    grad_norm: mean over updates, before clipping. seconds: writing and learning.
    """

    rollout: int
    reward: float
    accuracy: float
    format: float
    length: float
    entropy: float
    kl: float
    clipped: float
    idle: float
    grad_norm: float
    seconds: float


def advantages(rewards: Tensor, *, divides_by_std: bool = True, eps: float = 1e-4) -> Tensor:
    """How much better each answer is than its group. rewards: (P, G). Returns (P, G); rows sum to 0.

    A group whose rewards are all alike gets zeros. Source: DeepSeekMath, section 4.1.2; without the division: Liu et al. (2025).
    """
    above = rewards - rewards.mean(1, keepdim=True)
    above = above.masked_fill(is_idle(rewards)[:, None], 0.0)  # the mean of equal numbers may be off by a rounding
    return above / (rewards.std(1, keepdim=True) + eps) if divides_by_std else above


def is_idle(rewards: Tensor) -> Tensor:
    """Which groups teach nothing, because all their answers earned the same. rewards: (P, G). Returns (P,)."""
    return (rewards == rewards[:, :1]).all(1)


def k3(log_p: Tensor, log_ref: Tensor) -> Tensor:
    """An estimate of KL(p || ref) from tokens drawn from p: u - log u - 1 with u = ref / p. Never negative; without bias.

    log_p, log_ref: log-probabilities of the same tokens, any shape. Source: Schulman (2020); DeepSeekMath, equation 4.
    """
    log_u = log_ref - log_p
    return log_u.expm1() - log_u  # near 0 exp would round away what matters


def grpo_loss(log_p: Tensor, log_old: Tensor, advantage: Tensor, episodes: Episodes, config: GRPOConfig, log_ref: Tensor | None = None) -> Tensor:
    """The loss whose gradient makes better answers likelier. Only a completion's tokens count.

    log_p, log_old, log_ref: (N, L-1), of the policy as it is, as it wrote, and as it began. advantage: (N,), one an answer.
    Source: DeepSeekMath, equation 3; R1, equations 1 and 2.
    """
    targets = episodes.targets
    ratio = ratios(log_p, log_old, targets, per=config.ratio)
    gain = torch.min(ratio * advantage[:, None], ratio.clamp(1 - config.clip, 1 + config.clip) * advantage[:, None])
    if log_ref is not None:
        gain = gain - config.kl_weight * k3(log_p * targets, log_ref * targets)  # elsewhere the two may be worlds apart, and inf * 0 is nan
    summed = (gain * targets).sum(1)  # (N,)
    if config.averages == "sequence":
        return -(summed / targets.sum(1).clamp(min=1)).mean()
    return -summed.sum() / (targets.sum() if config.averages == "token" else config.max_new_tokens * len(episodes))


def ratios(log_p: Tensor, log_old: Tensor, targets: Tensor, *, per: str = "token") -> Tensor:
    """How much likelier the policy has made what it wrote: (N, L-1), of each token, or of the whole answer at each of its tokens.

    The ratio of an answer is the product of its tokens', so that a long one leaves the clip's range far sooner.
    """
    log_ratio = (log_p - log_old) * targets
    return (log_ratio if per == "token" else log_ratio.sum(1, keepdim=True).expand_as(log_ratio)).exp()


def total(earned: Reward, config: GRPOConfig) -> float:
    """One number for a reward: accuracy, and format by its weight."""
    return earned.accuracy + config.format_weight * earned.format


def grpo(model: Transformer, problems: list[Problem], config: GRPOConfig, *, score: Callable[[Problem, str], Reward] = reward) -> Iterator[Step]:
    """Improve model in place and yield a Step after each rollout; the caller logs, evaluates and plots.

    problems: questions to draw from, n_prompts a rollout, in a shuffled order. score: what judges a completion; a careless one will
    be exploited. Raises FloatingPointError if the loss is no longer finite, and ValueError for too few problems.
    """
    if len(problems) < config.n_prompts:
        raise ValueError(f"problems must be at least n_prompts={config.n_prompts}, got {len(problems)}; draw more or ask for fewer prompts")
    learner = Learner(model, config)
    for rollout in range(1, config.rollouts + 1):
        began = time.perf_counter()
        chosen = _questions(problems, config, rollout)
        episodes, rewards = learner.play(chosen, score)
        record = learner.improve(episodes, torch.tensor([total(r, config) for r in rewards]).view(-1, config.group_size))
        yield Step(rollout=rollout, accuracy=_mean(r.accuracy for r in rewards), format=_mean(r.format for r in rewards),
                   length=episodes.lengths.float().mean().item(), seconds=time.perf_counter() - began, **record)


def _mean(values):
    values = list(values)
    return sum(values) / len(values)


def _questions(problems, config, rollout):
    """The rollout's questions: all problems are asked before any is asked again."""
    first = (rollout - 1) * config.n_prompts
    places = range(first, first + config.n_prompts)
    orders = {n: torch.randperm(len(problems), generator=torch.Generator().manual_seed(config.seed * 1_000_003 + n)) for n in {i // len(problems) for i in places}}
    return [problems[orders[i // len(problems)][i % len(problems)]] for i in places]


class Learner:
    """The policy with its optimizer and, if the loss asks for one, the reference that it must not leave."""

    def __init__(self, model: Transformer, config: GRPOConfig):
        self.model, self.config, self.updates = model, config, 0
        self.reference = copy.deepcopy(model).eval().requires_grad_(False) if config.kl_weight else None
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, betas=(0.9, 0.95), weight_decay=0.0)
        self.generator = torch.Generator().manual_seed(config.seed)

    def play(self, problems: list[Problem], score: Callable[[Problem, str], Reward]) -> tuple[Episodes, list[Reward]]:
        """Write a group of answers to each problem, and judge them: episodes problem by problem, and their rewards."""
        G = self.config.group_size
        episodes = write(self.model, problems, n_samples=G, temperature=self.config.temperature,
                         max_new_tokens=self.config.max_new_tokens, generator=self.generator)
        return episodes, [score(problems[i // G], text) for i, text in enumerate(episodes.texts)]

    def improve(self, episodes: Episodes, rewards: Tensor) -> dict:
        """Learn from episodes (N) with rewards (P, G): one update for each minibatch. Returns what Step records of it."""
        config, log_old = self.config, self._log_probs(self.model, episodes)
        log_ref = self._log_probs(self.reference, episodes) if self.reference else None
        advantage = advantages(rewards, divides_by_std=config.divides_by_std).flatten()  # (N,)
        groups = torch.arange(len(episodes)).view(rewards.shape)  # a minibatch has whole ones
        updates = [self._update(episodes[rows], log_old[rows], advantage[rows], None if log_ref is None else log_ref[rows])
                   for rows in map(Tensor.flatten, groups.tensor_split(config.minibatches))]
        drift = k3(log_old, log_ref)[episodes.targets].mean().item() if log_ref is not None else math.nan
        means = {name: _mean(u[name] for u in updates) for name in updates[0]}
        return {"reward": rewards.mean().item(), "kl": drift, "idle": is_idle(rewards).float().mean().item()} | means

    @torch.no_grad()
    def _log_probs(self, model, episodes):
        return log_probs(model(episodes.tokens).logits, episodes.tokens)

    def _update(self, episodes, log_old, advantage, log_ref):
        config, targets = self.config, episodes.targets
        self.model.train()
        logits = self.model(episodes.tokens).logits
        log_p = log_probs(logits, episodes.tokens)
        loss = grpo_loss(log_p, log_old, advantage, episodes, config, log_ref)
        if not loss.isfinite():
            raise FloatingPointError(f"loss must stay finite, got {loss.item()}; take a lower lr than {config.lr:g}, or a smaller clip")
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_clip)
        self.updates += 1
        self.optimizer.param_groups[0]["lr"] = config.lr * min(1.0, self.updates / max(1, config.warmup))
        self.optimizer.step()
        with torch.no_grad():
            held = is_held_back(ratios(log_p, log_old, targets, per=config.ratio), advantage[:, None], config.clip)
            return {"entropy": entropy(logits[:, :-1])[targets].mean().item(), "clipped": held[targets].float().mean().item(), "grad_norm": norm.item()}


def is_held_back(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Where the clip takes the gradient away: the ratio has gone far enough in the direction that its advantage asks for."""
    return (ratio > 1 + clip) & (advantage > 0) | (ratio < 1 - clip) & (advantage < 0)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the distribution over the next token, nats. logits: (..., V). Returns (...)."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)
