"""Verifiable problems: the checkers accept every right answer and no wrong one, and the sets never share a problem."""

import itertools
import random
from fractions import Fraction

import pytest

from minimodels.corpus import END
from minimodels.tasks import SETS, TASKS, TOKENIZER, Reward, addition, countdown, parts, reward, sorting, subtraction

LEVELS = [(task, level) for task in TASKS.values() for level in task.levels]


def shape(pair):
    return f"{pair[0].name}-{pair[1]}"


@pytest.mark.parametrize("task_level", LEVELS, ids=shape)
def test_no_two_sets_share_a_problem_whatever_the_seed(task_level):
    task, level = task_level
    rng = random.Random(5)
    drawn = [task.make(rng, level) for _ in range(400)]
    sets = {name: {p.key for p in drawn if p.belongs_to == name} for name in SETS}
    assert not any(a & b for a, b in itertools.combinations(sets.values(), 2))
    assert set().union(*sets.values()) == {p.key for p in drawn}, "every problem has a set"


@pytest.mark.parametrize("of", SETS)
@pytest.mark.parametrize("task", TASKS.values(), ids=lambda t: t.name)
def test_a_set_gives_its_own_problems_each_once_and_again_with_its_seed(task, of):
    level = task.levels[2]
    found = task.problems(40, level=level, of=of, seed=3)
    assert {p.belongs_to for p in found} == {of}
    assert len({p.key for p in found}) == 40
    assert found == task.problems(40, level=level, of=of, seed=3) != task.problems(40, level=level, of=of, seed=4)


def test_the_order_of_summands_and_numbers_does_not_make_another_problem():
    assert addition(17, 5).key == addition(5, 17).key and addition(17, 5).prompt != addition(5, 17).prompt
    assert countdown((3, 5), 8, (), "").key == countdown((5, 3), 8, (), "").key
    assert sorting("ba").key == sorting("ab").key
    assert subtraction(9, 4).key != subtraction(9, 5).key


def test_the_sets_get_about_the_shares_that_they_are_promised():
    drawn = TASKS["addition"]
    rng = random.Random(2)
    of = [drawn.make(rng, 4).belongs_to for _ in range(4000)]
    for name, (first, end) in SETS.items():
        assert of.count(name) / 4000 == pytest.approx((end - first) / 10, abs=0.03)


# ---- the columns

@pytest.mark.parametrize("a, b, thinking", [(347, 85, "7+5+0=12;4+8+1=13;3+0+1=4"), (5, 6, "5+6+0=11"), (0, 0, "0+0+0=0"), (99, 1, "9+1+0=10;9+0+1=10")])
def test_a_sum_is_written_out_column_by_column(a, b, thinking):
    assert addition(a, b).thinking == thinking


@pytest.mark.parametrize("a, b, thinking", [(432, 85, "12-5-0=7;13-8-1=4;4-0-1=3"), (7, 7, "7-7-0=0"), (100, 1, "10-1-0=9;10-0-1=9;1-0-1=0")])
def test_a_difference_borrows_column_by_column(a, b, thinking):
    assert subtraction(a, b).thinking == thinking


@pytest.mark.parametrize("name, join", [("addition", int.__add__), ("subtraction", int.__sub__)])
def test_every_column_is_true_and_their_last_digits_are_the_answer(name, join):
    for level in TASKS[name].levels:
        for problem in TASKS[name].problems(5, level=level, of="rl"):
            results = []
            for column in problem.thinking.split(";"):
                left, right = column.split("=")
                assert eval(left) == int(right), column
                results.append(right)
            digits = "".join(r[-1] for r in reversed(results[:-1]))
            assert int(results[-1] + digits) == join(*problem.given) == int(problem.answer)


# ---- the checkers

@pytest.mark.parametrize("name", ["addition", "subtraction"])
def test_a_number_is_right_if_it_is_the_number_and_in_no_other_writing(name):
    problem = TASKS[name].problems(1, level=3, of="eval")[0]
    assert problem.is_right(problem.answer)
    wrong = [str(n) for n in range(2200) if n != int(problem.answer)]
    wrong += [f"0{problem.answer}", f"+{problem.answer}", f" {problem.answer}", f"{problem.answer} ", f"{problem.answer}\n", "", "-", f"{problem.answer}=", f"{problem.answer}.0"]
    assert not [text for text in wrong if problem.is_right(text)]


def solutions(numbers):
    """Every expression over all orders and bracketings of the numbers, with its value, by brute force."""
    if len(numbers) == 1:
        yield str(numbers[0]), Fraction(numbers[0])
        return
    for i in range(1, len(numbers)):
        for (left, x), (right, y) in itertools.product(solutions(numbers[:i]), solutions(numbers[i:])):
            for sign, value in (("+", x + y), ("-", x - y), ("*", x * y)):
                yield f"({left}{sign}{right})", value


@pytest.mark.parametrize("problem", TASKS["countdown"].problems(6, level=3, of="eval"), ids=lambda p: p.prompt)
def test_countdown_takes_every_way_to_the_target_and_no_other(problem):
    target, *numbers = problem.given
    assert problem.is_right(problem.answer)
    n_right = 0
    for order in set(itertools.permutations(numbers)):
        for text, value in solutions(order):
            assert problem.is_right(text) == (value == target), text
            assert problem.is_right(text[1:-1]) == (value == target), text
            n_right += value == target
    assert n_right


@pytest.mark.parametrize("answer", ["24", "3*8+0", "3*8*1", "8*3+", "(3*8", "3*8)", "3**8", "3* 8", "3×8", "48/2", "__import__('os')", "-3*-8", "3*8#", "",
                                    "03*8", "3*(8", "24.0", "3*8=24", "9" * 300, "(" * 150 + "3*8" + ")" * 150, "3*8\n", "3_*8"])
def test_countdown_refuses_what_is_no_expression_of_its_numbers(answer):
    assert not countdown((3, 8), 24, ("3*8=24",), "3*8").is_right(answer)


def test_each_number_is_used_exactly_once():
    problem = countdown((2, 2, 3), 7, (), "2+2+3")
    assert problem.is_right("2+3+2") and problem.is_right("2*2+3")
    assert not problem.is_right("2+2+3+0") and not problem.is_right("3+3+1") and not problem.is_right("7") and not problem.is_right("2+3+3-1")


def test_sorting_takes_the_sorted_letters_alone():
    problem = sorting("bca")
    right = [text for text in map("".join, itertools.product("abc", repeat=3)) if problem.is_right(text)]
    assert right == ["abc"] and not problem.is_right("ab") and not problem.is_right("abcc")
    assert problem.thinking == "b;bc;abc"


# ---- format and reward

@pytest.mark.parametrize("task_level", LEVELS, ids=shape)
def test_worked_and_direct_solutions_earn_everything(task_level):
    task, level = task_level
    for problem in task.problems(8, level=level, of="train"):
        assert reward(problem, problem.completion) == reward(problem, problem.direct) == Reward(1.0, 1.0)
        assert len(TOKENIZER.encode(problem.prompt + problem.completion).ids) < 200


GOOD = "<think>7+5+0=12</think><answer>12</answer>"


@pytest.mark.parametrize("text, expected", [
    (GOOD, (1, 1)), (GOOD + END, (1, 1)), (GOOD.replace(">12", ">13"), (0, 1)), ("<think></think><answer></answer>", (0, 1)),
    ("<answer>12</answer>", (0, 0)), ("12", (0, 0)), ("", (0, 0)), (END, (0, 0)), (GOOD + "12", (0, 0)), (" " + GOOD, (0, 0)), (GOOD + END + END, (0, 0)),
    (GOOD + GOOD, (0, 0)), (GOOD.replace("</think>", ""), (0, 0)), (GOOD.replace("7+5", "7<think>+5"), (0, 0)), ("<answer>12</answer><think></think>", (0, 0)),
    ("<think></think><answer>12</answer><answer>12</answer>", (0, 0)), ("<think><answer>12</answer></think>", (0, 0)),
])
def test_the_rules_see_format_first_and_then_the_answer(text, expected):
    assert reward(addition(7, 5), text) == Reward(*map(float, expected))


def test_parts_are_what_stands_between_the_tags():
    assert parts(GOOD) == ("7+5+0=12", "12") and parts("<think>") is None


# ---- the tokenizer

def test_a_character_is_a_token_and_so_is_a_tag():
    text = f"sort zq:<think>(1+2)*3-4=5;</think><answer>6</answer>{END}"
    tokens = TOKENIZER.encode(text).tokens
    assert [t for t in tokens if len(t) > 1] == ["<think>", "</think>", "<answer>", "</answer>", END]
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids, skip_special_tokens=False) == text
    assert TOKENIZER.get_vocab_size() == 50


# ---- what is refused

@pytest.mark.parametrize("asked, message", [
    (dict(level=9, of="rl"), "level must be in 1 to 6 for addition, got 9"), (dict(level=2, of="test"), "of must be one of train, rl, eval, got 'test'"),
    (dict(level=1, of="eval"), "n must be at most what level 1 of addition has in eval, about"),
])
def test_what_is_not_there_is_said(asked, message):
    with pytest.raises(ValueError, match=message):
        TASKS["addition"].problems(100, **asked)
