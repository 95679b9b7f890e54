"""Seven ways to spoil GRPO in which the reward still rises, and one to spoil its measure.

`grpo` is functions, so a bug is no subclass here: `with BUGS[name].planted():` puts a wrong part in the right one's place. `grpo`
yields while it learns: run the whole loop inside. A name that was imported from `minimodels.grpo` before stays what it was.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from torch import Tensor

from minimodels import grpo
from minimodels.grpo import GRPOConfig, Learner, grpo_loss
from minimodels.solve import Episodes, write
from minimodels.tasks import STOP, Problem, Task

UPDATE = Learner._update  # the right one, whatever is planted


@dataclass(frozen=True)
class Bug:
    """A wrong part, and where the right one stands: the attribute `name` of `owner`. The part's docstring says how it hides."""

    wrong: Callable
    owner: object
    name: str

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The wrong part stands in the right one's place inside the context, and the right one again after it, whatever happened."""
        right = getattr(self.owner, self.name)
        setattr(self.owner, self.name, self.wrong)
        try:
            yield
        finally:
            setattr(self.owner, self.name, right)


# ---- the loss over other tokens: log_p, log_old, log_ref (N, L-1), advantage (N,), as in `grpo_loss`


def prompts_too(log_p: Tensor, log_old: Tensor, advantage: Tensor, episodes: Episodes, config: GRPOConfig, log_ref: Tensor | None = None) -> Tensor:
    """The prompt is learnt, too. A group shares its prompt and its advantages sum to 0, so that a rollout's first update hardly shows it."""
    to_the_end = episodes.is_completion.flip(1).cumsum(1).flip(1) > 0  # (N, L)
    return grpo_loss(log_p, log_old, advantage, Episodes(episodes.tokens, to_the_end), config, log_ref)


def one_late(log_p: Tensor, log_old: Tensor, advantage: Tensor, episodes: Episodes, config: GRPOConfig, log_ref: Tensor | None = None) -> Tensor:
    """The mask is a token late: it misses a completion's first token, which is always the same tag, and takes one of padding for it."""
    late = episodes.is_completion.roll(1, dims=1)  # (N, L): what comes round stands first, where nothing is predicted
    return grpo_loss(log_p, log_old, advantage, Episodes(episodes.tokens, late), config, log_ref)


def end_not_learnt(log_p: Tensor, log_old: Tensor, advantage: Tensor, episodes: Episodes, config: GRPOConfig, log_ref: Tensor | None = None) -> Tensor:
    """The mask stops before the end of the text. A start that has learnt to stop hides it: no reward asks for more."""
    before_end = episodes.is_completion & (episodes.tokens != STOP)  # (N, L)
    return grpo_loss(log_p, log_old, advantage, Episodes(episodes.tokens, before_end), config, log_ref)


def unclipped(log_p: Tensor, log_old: Tensor, advantage: Tensor, episodes: Episodes, config: GRPOConfig, log_ref: Tensor | None = None) -> Tensor:
    """Nothing is clipped. With small steps few ratios leave the range, and the log goes on to say how many a clip would hold back."""
    return grpo_loss(log_p, log_old, advantage, episodes, replace(config, clip=1e9), log_ref)


# ---- other parts


def over_the_batch(rewards: Tensor, *, divides_by_std: bool = True, eps: float = 1e-4) -> Tensor:
    """Compared with all answers, (P, G), in place of the group: answers to easy questions are praised for that. The mean is 0 all the same."""
    above = rewards - rewards.mean()
    return above / (rewards.std() + eps) if divides_by_std else above


def old_anew(self: Learner, episodes: Episodes, log_old: Tensor, advantage: Tensor, log_ref: Tensor | None) -> dict:
    """The old policy is asked anew at each update, when it is the new one: every ratio is 1. `clipped` is 0 for ever, which looks like health."""
    return UPDATE(self, episodes, self._log_probs(self.model, episodes), advantage, log_ref)


def colder(*arguments, temperature: float, **rest) -> Episodes:
    """Answers are drawn at half the temperature at which they are learnt from. They are better from the first rollout on, and more alike."""
    return write(*arguments, temperature=temperature / 2, **rest)


BUGS = {
    "prompts learnt too": Bug(prompts_too, grpo, "grpo_loss"),
    "over the batch": Bug(over_the_batch, grpo, "advantages"),
    "one token late": Bug(one_late, grpo, "grpo_loss"),
    "no clip": Bug(unclipped, grpo, "grpo_loss"),
    "old policy anew": Bug(old_anew, Learner, "_update"),
    "end not learnt": Bug(end_not_learnt, grpo, "grpo_loss"),
    "colder than learnt": Bug(colder, grpo, "write"),
}

# ---- a bug of the measure


def learnt_from(task: Task, n: int, *, level: int, seed: int = 0) -> list[Problem]:
    """n problems to evaluate on, of the set that the reward has seen. Accuracy is too high, the more so the fewer there were to learn from."""
    return task.problems(n, level=level, of="rl", seed=seed)


PROBLEMS = {"learnt from": learnt_from}
