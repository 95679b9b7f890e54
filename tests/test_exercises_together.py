"""The solutions of chapter 13's exercises, against figures that come by another way."""

import math
import statistics
from itertools import pairwise

import numpy as np
import pytest

from minimodels.exercises.together import T95, bill, cheapest, crossing, is_one_step, paired, sum_of_parts, utilisation_left, worth, wrong_winner
from minimodels.ladder import rungs
from minimodels.studies.together import climbed


@pytest.mark.parametrize("tier", ["cpu", "t4", "gaming"])
def test_every_ladder_is_climbed_a_step_at_a_time(tier):
    for ladder in (rungs(tier), climbed(tier)):
        assert all(is_one_step(below, above) for below, above in pairwise(ladder))
        assert not any(is_one_step(below, above) for below, above in zip(ladder, ladder[2:]))


def test_students_t_leaves_five_percent_outside():
    """The density of t with n degrees of freedom, added up numerically between -T95 and T95."""
    for n, t in T95.items():
        x = np.linspace(-t, t, 200_001)
        density = math.gamma((n + 1) / 2) / math.gamma(n / 2) / math.sqrt(n * math.pi) * (1 + x**2 / n) ** (-(n + 1) / 2)
        assert np.trapezoid(density, x) == pytest.approx(0.95, abs=1e-4)


def test_an_interval_of_three_seeds_holds_the_truth_in_95_cases_of_100_and_with_1_96_in_81():
    rng = np.random.default_rng(0)
    held, too_narrow = [], []
    for _ in range(4000):
        by_seed = rng.normal(1.64, 0.02, 3)
        mean, half = paired(list(by_seed + 0.01 + rng.normal(0, 0.004, 3)), list(by_seed))
        held.append(float(abs(mean - 0.01) < half))
        too_narrow.append(float(abs(mean - 0.01) < half * 1.96 / T95[2]))
    assert [statistics.mean(held), statistics.mean(too_narrow)] == pytest.approx([0.95, 0.81], abs=0.015)


def test_pairs_that_name_the_wrong_winner_counted_by_hand():
    # 1.61 beats 1.62 and 1.63; 1.63 loses to 1.62 and ties with 1.63; 1.60 beats both: a loses once and a half
    assert wrong_winner([1.61, 1.63, 1.60], [1.62, 1.63]) == wrong_winner([1.62, 1.63], [1.61, 1.63, 1.60]) == 1.5 / 6


def test_a_curve_that_loses_a_tenth_of_a_bit_with_each_doubling_goes_on_so():
    curve = [(600, 1.7), (1200, 1.6), (4800, 1.4)]
    assert [worth(bits, curve) for bits in (1.8, 1.7, 1.5, 1.4, 1.3)] == pytest.approx([300, 600, 2400, 4800, 9600])


def test_parts_that_leave_nine_tenths_each_leave_81_of_100_together():
    assert sum_of_parts(2.0, {"a": (1.0, 0.9), "b": (3.0, 2.7)}) == pytest.approx(2 * 0.81)


@pytest.mark.parametrize("power", [-2, -0.5, 0.25, 1])
def test_a_power_crosses_one_where_it_is_one(power):
    x = crossing(64.0, 3 * 64.0**power, 200.0, 3 * 200.0**power)
    assert 3 * x**power == pytest.approx(1)


def test_v2_s_figures_leave_54_percent_of_the_utilisation():
    """DeepSeek-V2's paper: 300.6 thousand GPU hours a trillion tokens for 67 billion parameters, 172.8 for 21 active ones; the rule of six."""
    left = utilisation_left((6 * 67e9, 300.6), (6 * 21e9, 172.8))
    assert left == pytest.approx(21 / 67 * 300.6 / 172.8) == pytest.approx(0.545, abs=1e-3)


def test_the_bill_changes_hands_where_both_are_as_dear():
    # a: 1 hour to train and 2 s a token; b: 3 hours and 1 s; at 3,600 s each: 7,200 tokens cost a 4 more hours and b 2 more
    models = {"a": (3600, 1, 0.5), "b": (3 * 3600, 1, 1)}
    assert [cheapest(models, (2.0, 2.0), n) for n in (0, 7199, 7201)] == [("a", 2.0), ("a", pytest.approx(9.999, abs=1e-3)), ("b", pytest.approx(10.0, abs=1e-3))]
    assert bill(3600, 1, 0.5, 2.0, 2.0, 7200) == bill(3 * 3600, 1, 1, 2.0, 2.0, 7200) == 10
