"""Distillation: a small model learns from what a larger one writes, or from how likely the larger one finds every next token.

A teacher can be asked for texts, of which the right ones are kept and learnt like any others (Kim & Rush, 2016; DeepSeek-R1,
section 2.4), or for its whole distribution at each token (Hinton et al., 2015), on its own texts or on the student's (Agarwal et
al., 2024). A bill says what each way cost, so that they can be compared with reinforcement learning.
Left out: mixtures of hard and soft targets, the divergences between forward and reverse, and teachers with another tokenizer.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from minimodels.model import Transformer
from minimodels.solve import Episodes, write
from minimodels.tasks import Problem, reward

DIRECTIONS = ("forward", "reverse")


# ---- texts of a teacher


@dataclass(frozen=True)
class Samples:
    """What rejection sampling kept, and what it took.

    problems, episodes: one of each for every text that was kept, in the same order. n_written: texts that the teacher wrote, kept
    or not. n_tokens: tokens that it read and wrote for all of them.
    """

    problems: list[Problem]
    episodes: Episodes
    n_written: int
    n_tokens: int


def rejection_sample(teacher: Transformer, problems: list[Problem], *, n_samples: int, temperature: float = 1.0, per_problem: int = 1,
                     max_new_tokens: int = 64, generator: torch.Generator | None) -> Samples:
    """Let the teacher answer each problem n_samples times, and keep at most per_problem of the right answers to each.

    What is kept is padded to its own longest text, and is empty if nothing was right. A hard problem has fewer texts than an easy
    one, or none. The student learns from them by cross-entropy, as from worked solutions: it sees what the teacher wrote, and not
    how likely that was. generator: None takes torch's own. Raises ValueError for a per_problem below 1.
    Source: Kim & Rush (2016), section 3.2, whose one text is a beam search's; DeepSeek-R1, sections 2.3.3 and 2.4.
    """
    if per_problem < 1:
        raise ValueError(f"per_problem must be at least 1, got {per_problem}")
    written = write(teacher, problems, n_samples=n_samples, temperature=temperature, max_new_tokens=max_new_tokens, generator=generator)
    rows = kept(problems, written, per_problem=per_problem)
    right = written[torch.tensor(rows, dtype=torch.int64)]
    L = max(text_lengths(right).tolist(), default=1)  # a wrong answer that never ended would pad them all
    return Samples([problems[row // n_samples] for row in rows], Episodes(right.tokens[:, :L], right.is_completion[:, :L]),
                   len(written), count_tokens(written))


def kept(problems: list[Problem], episodes: Episodes, *, per_problem: int = 1) -> list[int]:
    """The rows of the first per_problem right answers to each problem; a right one is in the format, too.

    episodes: as many for each problem, problem by problem, as `write` returns them.
    """
    n, found, rows = len(episodes) // len(problems), Counter(), []
    for row, text in enumerate(episodes.texts):
        if found[row // n] < per_problem and reward(problems[row // n], text).accuracy:
            found[row // n] += 1
            rows.append(row)
    return rows


# ---- distributions of a teacher


def divergence(student_logits: Tensor, teacher_logits: Tensor, *, direction: str = "forward", temperature: float = 1.0) -> Tensor:
    """How far the student's distribution of the next token is from the teacher's: temperature^2 times a KL divergence in nats.

    student_logits, teacher_logits: (..., V). Returns (...), float32 or wider: one number a position. direction: forward is
    KL(teacher || student), dear where the student misses what the teacher may say; reverse is KL(student || teacher), dear where
    it says what the teacher would not. Both distributions are taken at the temperature. A high one shrinks the gradients by its
    square: logits are divided by it, and the flatter distributions differ less. The factor gives that back, so that one rate suits
    every temperature; towards infinity the result is half the variance of the logits' differences.
    A teacher's logit may be -inf if the direction is forward: 0 log 0 is 0.
    Raises ValueError for other shapes than the teacher's, an unknown direction, or a temperature that is not above 0.
    Source: forward and the square, Hinton et al. (2015), section 2; reverse, Gu et al. (2024), MiniLLM.
    """
    _check(direction, temperature)
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(f"student_logits must have the shape of teacher_logits, {tuple(teacher_logits.shape)}, got {tuple(student_logits.shape)}; "
                         "do both models have one tokenizer?")
    student, teacher = (_log_softmax(logits, temperature) for logits in (student_logits, teacher_logits))
    log_p, log_q = (teacher, student) if direction == "forward" else (student, teacher)
    gap = (log_p - log_q).masked_fill(log_p == -torch.inf, 0)  # else 0 times infinity, which is nan
    return temperature**2 * (log_p.exp() * gap).sum(-1)


def _check(direction, temperature):
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, got {direction!r}")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature must be above 0 and finite, got {temperature!r}")


def _log_softmax(logits, temperature):
    return (logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature).log_softmax(-1)


def imitation(teacher: Transformer, *, direction: str = "forward", temperature: float = 1.0) -> Callable[[Transformer, Episodes], Tensor]:
    """A loss for `solve.learn`: the mean divergence from the teacher over the predictions of the completions' tokens.

    The prompts' tokens and the padding are read and not learnt. The teacher gets no gradient and keeps its mode. Whose texts the
    episodes are is the batch's choice: with `own_texts` this is on-policy distillation (Agarwal et al., 2024).
    """
    _check(direction, temperature)

    def loss(model: Transformer, episodes: Episodes) -> Tensor:
        wanted = _logits_of(teacher, episodes.tokens)[:, :-1][episodes.targets]
        found = model(episodes.tokens).logits[:, :-1][episodes.targets]
        return divergence(found, wanted, direction=direction, temperature=temperature).mean()
    return loss


@torch.no_grad()
def _logits_of(teacher, tokens):
    was_training = teacher.training
    teacher.eval()
    try:
        return teacher(tokens).logits
    finally:
        teacher.train(was_training)


def own_texts(student: Transformer, problems: list[Problem], batch_size: int, *, temperature: float = 1.0, max_new_tokens: int = 64,
              seed: int = 0) -> Callable[[int], Episodes]:
    """A batch for `solve.learn`: at each step the student, as it then is, writes answers to batch_size problems drawn at random.

    So it is corrected where its own mistakes lead, which no text of the teacher's shows it. Right or wrong, all are learnt from. The
    same seed, step and weights give the same texts. The texts count as given: no gradient runs through the draw of a token, which
    MiniLLM (Gu et al., 2024) has beside the term that is left here.
    Source: Agarwal et al. (2024), GKD, algorithm 1 with no text but the student's (lambda = 1).
    """
    def batch(step: int) -> Episodes:
        rng = random.Random(f"{seed}/{step}")
        chosen = rng.choices(problems, k=batch_size)
        return write(student, chosen, temperature=temperature, max_new_tokens=max_new_tokens,
                     generator=torch.Generator().manual_seed(rng.getrandbits(63)))
    return batch


# ---- what it cost


def text_lengths(episodes: Episodes) -> Tensor:
    """Tokens of each text, prompt and completion, without the padding: (N,)."""
    L = episodes.tokens.shape[1]
    return (episodes.is_completion * torch.arange(1, L + 1)).amax(1)


def count_tokens(episodes: Episodes) -> int:
    """Tokens of all texts, prompts included and padding left out."""
    return int(text_lengths(episodes).sum())


@dataclass(kw_only=True)
class Bill:
    """What a way of learning took, in tokens that pass through a model.

    forward: tokens that the student read or wrote and did not learn from. trained: tokens of the texts that it learnt from, prompts
    included, because the gradient passes through them too. teacher: tokens that the teacher read or wrote. A text that is used in
    several passes counts in each; padding counts nowhere.
    """

    forward: int = 0
    trained: int = 0
    teacher: int = 0

    @property
    def student(self) -> int:
        """The student's cost, in tokens forward: a token that is learnt costs 3, because backward is twice the work of forward."""
        return self.forward + 3 * self.trained

    def charge(self, episodes: Episodes, *, forward: int = 0, trained: int = 0, teacher: int = 0):
        """Add so many passes of each kind over all texts of episodes."""
        n = count_tokens(episodes)
        self.forward, self.trained, self.teacher = self.forward + forward * n, self.trained + trained * n, self.teacher + teacher * n

    def metered(self, batch: Callable[[int], Episodes], **passes: int) -> Callable[[int], Episodes]:
        """The same batches, each charged as it is drawn: `bill.metered(own_texts(...), forward=1, trained=1, teacher=1)`."""
        def charged(step: int) -> Episodes:
            episodes = batch(step)
            self.charge(episodes, **passes)
            return episodes
        return charged

    def flops(self, *, student: float, teacher: float = 0.0) -> float:
        """FLOPs of it all. student, teacher: those of a token forward, `cost.flops_per_token(config, seq_len=..., training=False)`.

        With teacher=0 its work is left out, as if somebody else had paid for it.
        """
        return self.student * student + self.teacher * teacher
