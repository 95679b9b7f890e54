"""Verifiable problems: each is written with a seed, can be thought through on paper, and its answer is checked by a rule.

A completion is `<think>...</think><answer>...</answer>` and the end of the text, as DeepSeek-R1 asks for it. A checker accepts every
right answer and no wrong one. Which set a problem belongs to (train, rl or eval) is a hash of what the problem is, so no two sets
can ever share one, however many are drawn.
"""

import ast
import hashlib
import random
import re
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from minimodels.corpus import END

THINK, END_THINK, ANSWER, END_ANSWER = "<think>", "</think>", "<answer>", "</answer>"
CHARACTERS = string.digits + string.ascii_lowercase + "+-*=:;() "
SETS = {"train": (0, 6), "rl": (6, 9), "eval": (9, 10)}  # of ten equal parts of all problems, by hash
FORMAT = re.compile(f"{THINK}([^<>]*){END_THINK}{ANSWER}([^<>]*){END_ANSWER}")


def _tokenizer() -> Tokenizer:
    marks = [END, THINK, END_THINK, ANSWER, END_ANSWER]
    made = Tokenizer(WordLevel({token: i for i, token in enumerate([*marks, *CHARACTERS])}, unk_token=END))
    made.pre_tokenizer = Split(Regex("|".join(map(re.escape, marks)) + "|."), behavior="isolated")
    made.decoder = Fuse()
    return made


TOKENIZER = _tokenizer()  # one token a character, and one each for the end of a text and the four tags: 50
STOP = TOKENIZER.token_to_id(END)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One question with a known way to its answer.

    prompt: what the model reads. thinking: the way that a patient writer would take. answer: a right answer; the checker may accept
    others. task, given: its task's name, and the values in it. key: what the problem is, whatever order its numbers are written in.
    """

    task: str
    given: tuple
    prompt: str
    thinking: str
    answer: str
    key: str

    @cached_property
    def belongs_to(self) -> str:
        """The set that the problem is in: "train", "rl" or "eval"; a hash of its key decides."""
        part = int.from_bytes(hashlib.sha256(self.key.encode()).digest()[:8]) % 10
        return next(name for name, (first, end) in SETS.items() if first <= part < end)

    @property
    def completion(self) -> str:
        """The worked solution, in the format that the reward asks for, with the end of the text."""
        return f"{THINK}{self.thinking}{END_THINK}{ANSWER}{self.answer}{END_ANSWER}{END}"

    @property
    def direct(self) -> str:
        """The answer without a thought, in the same format."""
        return f"{THINK}{END_THINK}{ANSWER}{self.answer}{END_ANSWER}{END}"

    def is_right(self, answer: str) -> bool:
        """Whether this answer (the text between the answer tags) is a right one."""
        return TASKS[self.task].check(self, answer)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A kind of problem. make(random, level) writes one; check(problem, answer) judges; levels: from the easiest to the hardest."""

    name: str
    make: Callable[[random.Random, int], Problem]
    check: Callable[[Problem, str], bool]
    levels: range

    def problems(self, n: int, *, level: int, of: str, seed: int = 0) -> list[Problem]:
        """n problems of one level from one set, drawn with a seed; no two of them are the same problem.

        of: "train" (worked solutions may be read), "rl" (only the reward is seen) or "eval" (never learnt from).
        Raises ValueError for a level or a set that there is not, or if the level has not n problems to give.
        """
        if level not in self.levels:
            raise ValueError(f"level must be in {self.levels.start} to {self.levels.stop - 1} for {self.name}, got {level}")
        if of not in SETS:
            raise ValueError(f"of must be one of {', '.join(SETS)}, got {of!r}")
        rng, found, misses = random.Random(f"{self.name}/{level}/{of}/{seed}"), {}, 0
        while len(found) < n:
            problem = self.make(rng, level)
            is_new = problem.belongs_to == of and problem.key not in found
            found |= {problem.key: problem} if is_new else {}
            misses = 0 if is_new else misses + 1
            if misses > 5_000:
                raise ValueError(f"n must be at most what level {level} of {self.name} has in {of}, about {len(found)}, got {n}; "
                                 "ask for fewer, or for a higher level")
        return list(found.values())


# ---- sums and differences, column by column


def addition(a: int, b: int) -> Problem:
    """a + b, from the last column to the first: the digits, the carry, and what they make."""
    columns, carry, rest = [], 0, (a, b)
    while any(rest) or not columns:
        x, y = rest[0] % 10, rest[1] % 10
        columns.append(f"{x}+{y}+{carry}={x + y + carry}")
        carry, rest = (x + y + carry) // 10, (rest[0] // 10, rest[1] // 10)
    return Problem(task="addition", given=(a, b), prompt=f"{a}+{b}=", thinking=";".join(columns), answer=str(a + b),
                   key="{}+{}".format(*sorted((a, b))))


def subtraction(a: int, b: int) -> Problem:
    """a - b for a >= b, from the last column to the first. A column that is too small has borrowed ten, and the next pays for it."""
    columns, borrowed, rest = [], 0, (a, b)
    while any(rest) or not columns:
        x, y = rest[0] % 10, rest[1] % 10
        pays, borrowed = borrowed, int(x - y - borrowed < 0)
        x += 10 * borrowed
        columns.append(f"{x}-{y}-{pays}={x - y - pays}")
        rest = (rest[0] // 10, rest[1] // 10)
    return Problem(task="subtraction", given=(a, b), prompt=f"{a}-{b}=", thinking=";".join(columns), answer=str(a - b), key=f"{a}-{b}")


def _number(rng: random.Random, n_digits: int) -> int:
    return rng.randrange(10 ** (n_digits - 1) if n_digits > 1 else 0, 10**n_digits)


def _make_addition(rng, level):
    return addition(_number(rng, level), _number(rng, level))


def _make_subtraction(rng, level):
    return subtraction(*sorted((_number(rng, level), _number(rng, level)), reverse=True))


def _is_the_number(problem: Problem, answer: str) -> bool:
    """Whether the answer is the number, as it is written: without spaces, signs or leading zeros."""
    return answer == problem.answer


# ---- countdown: reach a number from given ones

OPERATORS = {ast.Add: ("+", int.__add__), ast.Sub: ("-", int.__sub__), ast.Mult: ("*", int.__mul__)}


def countdown(numbers: tuple[int, ...], target: int, steps: tuple[str, ...], answer: str) -> Problem:
    """Reach target with each of the numbers once, by +, - and *. steps: equations that lead there, from two numbers left to one."""
    return Problem(task="countdown", given=(target, *numbers), prompt=f"{target} from {' '.join(map(str, numbers))}:",
                   thinking=";".join(steps), answer=answer, key=f"{target} from {sorted(numbers)}")


def _make_countdown(rng, level):
    """Join two of the numbers by an operation until one is left: that is the target, and the joins are the way to it."""
    numbers = tuple(rng.randint(1, 9) for _ in range(level))
    left, steps = [(n, str(n)) for n in numbers], []
    while len(left) > 1:
        (x, x_text), (y, y_text) = (left.pop(rng.randrange(len(left))) for _ in "xy")
        if x < y:
            (x, x_text), (y, y_text) = (y, y_text), (x, x_text)
        sign, join = rng.choice(list(OPERATORS.values()))
        steps.append(f"{x}{sign}{y}={join(x, y)}")
        left.append((join(x, y), f"({x_text}{sign}{y_text})"))
    value, text = left[0]
    return countdown(numbers, value, tuple(steps), text[1:-1])


def _reaches_the_target(problem: Problem, answer: str) -> bool:
    """Whether the answer is an expression of +, -, * and brackets that uses each given number once and equals the target."""
    target, *numbers = problem.given
    if not re.fullmatch(r"[0-9+\-*()]{1,200}", answer) or "**" in answer:
        return False
    try:
        value, used = _value(ast.parse(answer, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return value == target and used == Counter(numbers)


def _value(node) -> tuple[int, Counter]:
    """The value of an expression and the numbers in it. Raises ValueError for anything but numbers, +, - and *."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value, Counter([node.value])
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        (x, used), (y, too) = _value(node.left), _value(node.right)
        return OPERATORS[type(node.op)][1](x, y), used + too
    raise ValueError(f"an expression must be numbers with +, - and *, got {type(node).__name__}")


# ---- sorting, a task of another kind


def sorting(letters: str) -> Problem:
    """Put letters in alphabetical order, one insertion after another."""
    steps = ["".join(sorted(letters[:i])) for i in range(1, len(letters) + 1)]
    return Problem(task="sorting", given=(letters,), prompt=f"sort {letters}:", thinking=";".join(steps), answer=steps[-1], key=f"sort {steps[-1]}")


def _make_sorting(rng, level):
    return sorting("".join(rng.choices(string.ascii_lowercase, k=level)))


TASKS = {task.name: task for task in (
    Task(name="addition", make=_make_addition, check=_is_the_number, levels=range(1, 7)),
    Task(name="subtraction", make=_make_subtraction, check=_is_the_number, levels=range(1, 7)),
    Task(name="countdown", make=_make_countdown, check=_reaches_the_target, levels=range(2, 6)),
    Task(name="sorting", make=_make_sorting, check=lambda problem, answer: answer == problem.answer, levels=range(2, 9)),
)}


# ---- the reward


@dataclass(frozen=True)
class Reward:
    """What the rules give a completion. accuracy: 1 if the answer is right, else 0. format: 1 if the tags stand as asked, else 0.

    Without its format a completion has no answer, so accuracy is 1 only if format is.
    Source: DeepSeek-R1, section 2.2.2: rules and no learnt judge, because a judge can be talked round.
    """

    accuracy: float
    format: float


def parts(text: str) -> tuple[str, str] | None:
    """The thinking and the answer of a completion in the right format; None in any other. The end of the text may be missing."""
    match = FORMAT.fullmatch(text.removesuffix(END))
    return match and match.groups()


def reward(problem: Problem, text: str) -> Reward:
    """Judge a completion (the text after the prompt)."""
    found = parts(text)
    return Reward(0.0, 0.0) if found is None else Reward(float(problem.is_right(found[1])), 1.0)
