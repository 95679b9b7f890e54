"""Exercises that answer at once: check = exercises.load("start"), then check.loss_to_bits_per_byte(your_function).

A chapter's exercises stand in `minimodels/exercises/<word>.py`, in a list EXERCISES. To add one, write its solution, a function that draws
its inputs, and its mutants: the typical mistakes, as code, each with the hint for it. An answer that agrees with a mutant gets its hint.
Where the solution gives lists, an array or a tensor with the same numbers is right, too. Of the inputs that fail the shortest is shown.
The tests prove of every exercise that its solution passes, that a stub is not attempted, and that each mutant fails with its own hint.
"""

import importlib
import math
import pkgutil
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass

WIDTH = 80    # characters of a value that a message shows


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A typical mistake: a function that makes it, and the hint for those who made it too."""

    function: Callable
    hint: str


def wrong_tests(test: Callable, *, of: str, accepts_all: str, refuses_all: str) -> tuple[Mutant, Mutant, Mutant]:
    """The mutants of an exercise that asks for a test of a layer or model: it finds nothing, finds fault with everything, or says the opposite.

    of: what is tested, "layer" or "model". accepts_all, refuses_all: what may have gone wrong then, a sentence or two.
    """
    return (Mutant(function=lambda *_: True, hint=f"This test accepts every {of}, also the broken one. {accepts_all}"),
            Mutant(function=lambda *_: False, hint=f"This test refuses every {of}, also the right one. {refuses_all}"),
            Mutant(function=lambda *arguments: not test(*arguments), hint=f"The answers are upside down: True means that the {of} is right."))


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One question: what is right, on which inputs, and what is typically wrong.

    inputs(rng) draws one set of arguments from a random.Random; a check draws n_trials of them.
    """

    solution: Callable
    inputs: Callable[[random.Random], tuple]
    mutants: tuple[Mutant, ...]
    hint: str                   # for a wrong answer that no mutant explains
    n_trials: int = 20
    tolerance: float = 1e-5     # relative, and absolute below 1

    @property
    def name(self) -> str:
        return self.solution.__name__

    def check(self, answer: Callable, *, seed: int = 0) -> "Result":
        """What answer does on random inputs, compared with the solution. Never raises for what answer does."""
        if not callable(answer):
            return Result(self.name, is_attempted=True, message=f"give the function itself, {self.name}, not what it returned")
        for i in range(self.n_trials):
            outcome = self._run(answer, seed, i)
            if isinstance(outcome, NotImplementedError) or i == 0 and (outcome is None or outcome is ...):
                return Result(self.name, message="not attempted yet: the function returns nothing so far")
            if isinstance(outcome, Exception):
                return self._fail(f"{_call(self.name, self._draw(seed, i))} raised {type(outcome).__name__}: {outcome}\n{self.hint}")
            wanted = self._run(self.solution, seed, i)
            if not self._agree(outcome, wanted):
                return self._fail(self._told(answer, seed))
        return Result(self.name, is_attempted=True, is_passed=True, message=f"passed {self.n_trials} random inputs")

    def _told(self, answer, seed):
        """The shortest input that answer gets wrong, what it gave and what was wanted, and a hint."""
        outcomes = [self._run(answer, seed, i) for i in range(self.n_trials)]
        wanted = [self._run(self.solution, seed, i) for i in range(self.n_trials)]
        wrong = [i for i in range(self.n_trials) if not isinstance(outcomes[i], Exception) and not self._agree(outcomes[i], wanted[i])]
        i = min(wrong, key=lambda i: len(repr(self._draw(seed, i))))
        at, gave, instead = _difference(_like(outcomes[i], wanted[i]), wanted[i], tolerance=self.tolerance)
        call = _call(self.name, self._draw(seed, i))
        return f"{call}{at} gave {_short(gave)} instead of {_short(instead)}.\n{self._hint(outcomes, seed)}"

    def _hint(self, outcomes, seed):
        """The hint of the mutant that agrees with the answer everywhere, or the general one."""
        for mutant in self.mutants:
            if all(self._agree(outcome, self._run(mutant.function, seed, i)) for i, outcome in enumerate(outcomes)):
                return mutant.hint
        return self.hint

    def _draw(self, seed, i):
        return self.inputs(random.Random(f"{seed} {i}"))

    def _run(self, function, seed, i):
        """What function returns for inputs of its own (so that it may spoil them), or the exception that it raised."""
        try:
            return function(*self._draw(seed, i))
        except Exception as error:    # a learner's code may raise anything
            return error

    def _agree(self, answer, wanted):
        return not isinstance(answer, Exception) and agree(_like(answer, wanted), wanted, tolerance=self.tolerance)

    def _fail(self, message):
        return Result(self.name, is_attempted=True, message=message)


@dataclass(frozen=True)
class Result:
    """What a check found; a notebook shows its message."""

    name: str
    message: str
    is_attempted: bool = False
    is_passed: bool = False

    def __bool__(self):
        return self.is_passed

    def __repr__(self):
        return f"{self.name}: {self.message}"


class Checks:
    """The checks of one chapter, a method each."""

    def __init__(self, word: str, exercises: Sequence[Exercise]):
        self.word = word
        self.exercises = {exercise.name: exercise for exercise in exercises}

    def __getattr__(self, name):
        if name.startswith("_") or name == "exercises":
            raise AttributeError(name)
        if name not in self.exercises:
            raise AttributeError(f"chapter {self.word!r} has no exercise {name!r}; it has {', '.join(self.exercises)}")
        return self.exercises[name].check

    def __dir__(self):
        return [*super().__dir__(), *self.exercises]


def words() -> list[str]:
    """The chapters that have exercises, by their word."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(word: str) -> Checks:
    """The checks of the chapter called word. Raises ValueError with the chapters that have some."""
    if word not in words():
        raise ValueError(f"exercises exist for {', '.join(words())}, got {word!r}")
    return Checks(word, importlib.import_module(f"{__name__}.{word}").EXERCISES)


def agree(a, b, *, tolerance: float) -> bool:
    """Whether a is b: numbers and tensors within tolerance, sequences and mappings item by item, anything else by equality.

    A tensor without axes is the number that it holds.
    """
    a, b = (value.item() if getattr(value, "shape", None) == () else value for value in (a, b))
    if hasattr(a, "shape") or hasattr(b, "shape"):
        return _same_shape(a, b) and agree(a.tolist(), b.tolist(), tolerance=tolerance)
    if isinstance(a, bool) or isinstance(b, bool) or isinstance(a, str) or isinstance(b, str):
        return type(a) is type(b) and a == b
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance) or math.isnan(a) and math.isnan(b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(agree(a[k], b[k], tolerance=tolerance) for k in a)
    if isinstance(a, Sequence) and isinstance(b, Sequence):
        return len(a) == len(b) and all(agree(x, y, tolerance=tolerance) for x, y in zip(a, b))
    return type(a) is type(b) and a == b


def _like(answer, wanted):
    """answer with lists for arrays wherever wanted has lists: a table may be an array."""
    if isinstance(wanted, str) or not isinstance(wanted, Sequence):
        return answer
    answer = answer.tolist() if hasattr(answer, "tolist") else answer
    if isinstance(answer, str) or not isinstance(answer, Sequence) or len(answer) != len(wanted):
        return answer
    rows = [_like(a, b) for a, b in zip(answer, wanted)]
    return tuple(rows) if isinstance(answer, tuple) else rows


def _difference(a, b, *, tolerance):
    """Where a and b differ, as an index in brackets, and what stands there: of two long lists or arrays the first row that is not the same."""
    at = ""
    a, b = _listed(a, b)
    while all(isinstance(value, (list, tuple)) and len(_said(value)) > WIDTH for value in (a, b)) and len(a) == len(b):
        i = next(i for i in range(len(a)) if not agree(a[i], b[i], tolerance=tolerance))
        at, (a, b) = f"{at}[{i}]", _listed(a[i], b[i])
    return at, a, b


def _listed(a, b):
    """Two arrays of one shape as lists, also within two tuples, and an array without axes as the number that it holds; anything else as it is."""
    if _same_shape(a, b):
        return a.tolist(), b.tolist()
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b) > 0:
        return tuple(zip(*map(_listed, a, b)))
    return tuple(value.item() if getattr(value, "shape", None) == () else value for value in (a, b))


def _same_shape(a, b):
    return hasattr(a, "shape") and hasattr(b, "shape") and tuple(a.shape) == tuple(b.shape)


def _call(name, arguments):
    return f"{name}({', '.join(map(_short, arguments))})"


def _said(value):
    """value as Python writes it, numbers at six significant digits."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if type(value) is list:
        return f"[{', '.join(map(_said, value))}]"
    if type(value) is tuple and len(value) > 1:
        return f"({', '.join(map(_said, value))})"
    return repr(value)


def _short(value):
    if hasattr(value, "shape"):
        return f"<{type(value).__name__} of shape {tuple(value.shape)}>"
    if hasattr(value, "state_dict"):
        return "<layer>"    # its name may be the answer
    if callable(value) or is_dataclass(value):
        return f"<{getattr(value, '__name__', getattr(value, 'name', type(value).__name__))}>"
    if isinstance(value, tuple) and any(hasattr(item, "shape") for item in value):
        return f"({', '.join(map(_short, value))})"
    text = _said(value)
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
