"""Five ways to spoil distillation in which the loss still falls.

Distillation is functions, so a bug is no subclass here: `with BUGS[name].planted():` puts a wrong part in the right one's place. A
loss asks for its parts at each step: run the whole loop inside. A name that was imported from `minimodels.distill` before stays what
it was, but `imitation` and `rejection_sample` find the wrong parts wherever they were imported.
"""

from torch import Tensor

from minimodels import distill
from minimodels.bugs.grpo import Bug
from minimodels.distill import _logits_of, divergence
from minimodels.model import Transformer
from minimodels.solve import Episodes
from minimodels.tasks import Problem


# ---- the divergence: student_logits, teacher_logits (..., V), as in `divergence`


def swapped(student_logits: Tensor, teacher_logits: Tensor, *, direction: str = "forward", temperature: float = 1.0) -> Tensor:
    """Teacher and student have changed places: forward is reverse. Both fall to the same 0; only a fresh student's first loss is no longer near log V."""
    return divergence(teacher_logits, student_logits, direction=direction, temperature=temperature)


def one_side(student_logits: Tensor, teacher_logits: Tensor, *, direction: str = "forward", temperature: float = 1.0) -> Tensor:
    """The temperature is the teacher's alone: the student learns to be as unsure at 1. Its likeliest token is the same, so greedy answers hide it."""
    return divergence(student_logits * temperature, teacher_logits, direction=direction, temperature=temperature)


# ---- other parts


def unrejected(problems: list[Problem], episodes: Episodes, *, per_problem: int = 1) -> list[int]:
    """The rows of each problem's first answers, right or wrong. A good teacher is mostly right, and loss does not know what is right."""
    n = len(episodes) // len(problems)
    return [row for row in range(len(episodes)) if row % n < per_problem]


def one_late(teacher: Transformer, tokens: Tensor) -> Tensor:
    """The teacher's logits (N, L, V) are a token late: they are for the token just read. To repeat it is easy, and the loss falls all the lower."""
    return _logits_of(teacher, tokens).roll(1, dims=1)  # what comes round stands first, in the prompt


def prompts_too(episodes: Episodes) -> Tensor:
    """Predictions (N, L-1) of the prompts' tokens count, too. Texts' loss stays high, as nobody foresees a question's digits; a distribution's shows nothing."""
    to_the_end = episodes.is_completion.flip(1).cumsum(1).flip(1) > 0  # (N, L)
    return to_the_end[:, 1:]


BUGS = {
    "roles swapped": Bug(swapped, distill, "divergence"),
    "temperature on one side": Bug(one_side, distill, "divergence"),
    "wrong texts kept": Bug(unrejected, distill, "kept"),
    "teacher one token late": Bug(one_late, distill, "_logits_of"),
    "prompts learnt too": Bug(property(prompts_too), Episodes, "targets"),
}
