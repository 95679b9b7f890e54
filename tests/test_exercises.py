"""Of every exercise: the solution passes, a stub is not attempted, each mutant fails with its own hint."""

import random

import pytest

from minimodels import exercises
from minimodels.exercises import Exercise, Mutant, agree

EVERY = [(word, exercise) for word in exercises.words() for exercise in exercises.load(word).exercises.values()]
MUTANTS = [(word, exercise, mutant) for word, exercise in EVERY for mutant in exercise.mutants]


def name(value):
    return value if isinstance(value, str) else value.name if isinstance(value, Exercise) else value.function.__name__.strip("<>")


@pytest.mark.parametrize("word, exercise", EVERY, ids=name)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_solution_passes(word, exercise, seed):
    result = getattr(exercises.load(word), exercise.name)(exercise.solution, seed=seed)
    assert result and result.is_attempted and "passed" in repr(result)


def returns_nothing(*inputs):
    pass


def returns_dots(*inputs):
    return ...


def raises_not_implemented(*inputs):
    raise NotImplementedError


@pytest.mark.parametrize("word, exercise", EVERY, ids=name)
@pytest.mark.parametrize("stub", [returns_nothing, returns_dots, raises_not_implemented])
def test_a_stub_is_not_attempted_and_raises_nothing(word, exercise, stub):
    result = exercise.check(stub)
    assert not result and not result.is_attempted
    assert "not attempted yet" in repr(result)


@pytest.mark.parametrize("word, exercise, mutant", MUTANTS, ids=name)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_mutant_fails_with_its_own_hint(word, exercise, mutant, seed):
    result = exercise.check(mutant.function, seed=seed)
    assert result.is_attempted and not result
    assert mutant.hint in repr(result)


@pytest.mark.parametrize("word, exercise", EVERY, ids=name)
def test_an_exercise_has_three_mutants_or_more_and_hints_of_their_own(word, exercise):
    hints = [exercise.hint, *(mutant.hint for mutant in exercise.mutants)]
    assert len(exercise.mutants) >= 3 and len(set(hints)) == len(hints)


@pytest.mark.parametrize("word, exercise", EVERY, ids=name)
def test_inputs_are_random(word, exercise):
    assert not agree(exercise.inputs(random.Random(0)), exercise.inputs(random.Random(1)), tolerance=1e-9)


# ---- the mechanism itself, on an exercise made for it

def double(values):
    return [2 * v for v in values]


def square(values):
    return [v * v for v in values]


EXERCISE = Exercise(solution=double, inputs=lambda rng: ([rng.randint(3, 9) for _ in range(4)],), hint="look again",
                    mutants=(Mutant(function=square, hint="this squares"),))


def test_an_answer_that_raises_is_told_what_it_raised():
    result = EXERCISE.check(lambda values: 1 / 0)
    assert result.is_attempted and not result and "raised ZeroDivisionError" in repr(result) and "look again" in repr(result)


def test_a_wrong_answer_that_no_mutant_explains_gets_the_general_hint():
    message = repr(EXERCISE.check(lambda values: values))
    assert "instead of" in message and "look again" in message


def test_an_array_or_rows_of_arrays_are_right_where_a_table_is_wanted():
    import numpy as np
    import torch

    def table(n):
        return [[i * j / 7 for j in range(n)] for i in range(n)]

    def transposed(n):
        return [row[::-1] for row in table(n)]

    exercise = Exercise(solution=table, inputs=lambda rng: (rng.randint(8, 12),), hint="look again", mutants=(Mutant(function=transposed, hint="turned"),))
    for made in (np.array, torch.tensor, lambda rows: [np.array(row) for row in rows], lambda rows: tuple(map(tuple, rows))):
        assert exercise.check(lambda n: made(table(n)))
        assert "turned" in repr(exercise.check(lambda n: made(transposed(n))))
    assert not exercise.check(lambda n: np.array(table(n + 1))) and not exercise.check(lambda n: "rows")


def test_a_long_wrong_answer_is_shown_where_it_differs_and_for_the_shortest_input():
    def squares(n):
        return [[i, i * i + 1 / 3] for i in range(n)]

    def wrong_at_the_end(n):
        return squares(n)[:-1] + [[n - 1, 0.1]]

    exercise = Exercise(solution=squares, inputs=lambda rng: (10 ** rng.randint(1, 3),), hint="look again", mutants=())
    message = repr(exercise.check(wrong_at_the_end))
    assert "squares(10)[9] gave [9, 0.1] instead of [9, 81.3333].\nlook again" in message


def test_arrays_in_a_pair_are_shown_with_their_numbers():
    import torch

    exercise = Exercise(solution=lambda n: (torch.arange(n), [n]), inputs=lambda rng: (3,), hint="look again", mutants=())
    assert "gave ([2, 1, 0], [3]) instead of ([0, 1, 2], [3])" in repr(exercise.check(lambda n: (torch.arange(n).flip(0), [n])))


def test_an_answer_may_spoil_its_inputs():
    def doubled_in_place(values):
        values[:] = [2 * v for v in values]
        return values

    assert EXERCISE.check(doubled_in_place)


def test_an_answer_must_be_a_function():
    assert "give the function itself" in repr(EXERCISE.check(7))


def test_an_answer_that_works_only_sometimes_fails():
    def sometimes(values):
        return double(values) if sum(values) % 3 else None

    assert not EXERCISE.check(sometimes)


def test_a_chapter_or_an_exercise_that_does_not_exist_is_refused_by_name():
    with pytest.raises(ValueError, match="exercises exist for .*start.*, got 'finish'"):
        exercises.load("finish")
    with pytest.raises(AttributeError, match="has no exercise 'nothing'; it has loss_to_bits_per_byte"):
        exercises.load("start").nothing


def test_bits_per_byte_of_a_uniform_guess_over_256_bytes_is_eight():
    import math

    assert exercises.load("start").exercises["loss_to_bits_per_byte"].solution(math.log(256), 17, 17) == pytest.approx(8)


@pytest.mark.parametrize("a, b, is_same", [
    (1, 1.0, True), (1.0, 1.0 + 1e-7, True), (1.0, 1.1, False), (True, 1, False), ("a", "a", True),
    ([1, 2], (1, 2), True), ([1], [1, 2], False), (None, 0, False), (float("inf"), 1.0, False),
    ({"a": 1}, {"a": 1.0}, True), ({"a": 1}, {"b": 1}, False), (float("nan"), float("nan"), True),
])
def test_agreement(a, b, is_same):
    assert agree(a, b, tolerance=1e-5) == is_same


def test_tensors_agree_in_shape_and_value():
    import torch

    a = torch.arange(6.0).reshape(2, 3)
    assert agree(a, a + 1e-7, tolerance=1e-5)
    assert not agree(a, a.T, tolerance=1e-5) and not agree(a, a + 1, tolerance=1e-5) and not agree(a, a.tolist(), tolerance=1e-5)
