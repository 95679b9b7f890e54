"""Exercises of chapter 13."""

import math
import statistics
from dataclasses import replace

import numpy as np

from minimodels.exercises import Exercise, Mutant, wrong_tests
from minimodels.ladder import rungs

# ---- 13.1: a test that finds a comparison of two things at once

CPU = rungs("cpu")


def changed(below, above):
    """The fields in which two rungs differ, in model and training, but for the learning rate."""
    a, b = ({**vars(rung.training), **vars(rung.model)} for rung in (below, above))
    return [name for name in a if a[name] != b[name] and name != "muon_lr"]


def width(model):
    """Hidden numbers of a feed-forward network that one token meets."""
    return (model.top_k + model.n_shared) * model.d_expert if model.n_experts else model.d_ff


def is_one_step(below, above):
    """Whether two rungs differ in one field of model or training, and a token meets as many hidden numbers on both. muon_lr does not count."""
    return len(changed(below, above)) == 1 and width(below.model) == width(above.model)


def _step_inputs(rng):
    """A step of the ladder, each rung with a rate of its own, and mostly with something wrong."""
    i, thin = rng.choice([0, 1, 1, 2, 3]), rng.choice([40, 64, 96])
    below, above = rng.choice([
        lambda: (CPU[i], CPU[i + 1]), lambda: (CPU[i], CPU[i + 1]), lambda: (CPU[i], CPU[i + 1]), lambda: (CPU[1], CPU[2]),
        lambda: (CPU[i % 3], CPU[i % 3 + 2]),                                                # two techniques at once
        lambda: (CPU[i], CPU[i]), lambda: (CPU[i], CPU[i]),
        lambda: (CPU[i], _with(CPU[i + 1], steps=rng.choice([500, 900]))),
        lambda: (CPU[i], _with(CPU[i + 1], seed=rng.randint(1, 9))),
        lambda: (CPU[i], _with(CPU[i + 1], n_layers=rng.choice([3, 5]))),
        lambda: (_with(CPU[1], d_expert=thin), _with(CPU[2], d_expert=thin)),                # experts of another width than the network that they replace
        lambda: (CPU[2], _with(CPU[2], top_k=rng.choice([1, 2, 5]))),
        lambda: (CPU[i % 2], _with(CPU[i % 2], d_ff=rng.choice([256, 512]))),
    ])()
    return below, _with(above, muon_lr=rng.choice([0.01, 0.02]))


def _with(rung, **fields):
    """The rung with other values of some fields of its model or training, which its name tells."""
    ours = {name: value for name, value in fields.items() if hasattr(rung.model, name)}
    return replace(rung, name=", ".join([rung.name, *(f"{name} {value}" for name, value in fields.items())]), model=replace(rung.model, **ours),
                   training=replace(rung.training, **{name: value for name, value in fields.items() if name not in ours}))


def _widths_forgotten(below, above):
    return len(changed(below, above)) == 1


def _fields_forgotten(below, above):
    return width(below.model) == width(above.model)


def _model_alone(below, above):
    a, b = vars(below.model), vars(above.model)
    return sum(a[name] != b[name] for name in a) == 1 and width(below.model) == width(above.model)


def _rate_counted(below, above):
    a, b = ({**vars(rung.training), **vars(rung.model)} for rung in (below, above))
    return sum(a[name] != b[name] for name in a) == 1 and width(below.model) == width(above.model)


def _fields_of_the_model(below, above):
    a, b = vars(below.model), vars(above.model)
    return sum(a[name] != b[name] for name in a) == 1


def _every_field(below, above):
    a, b = ({**vars(rung.training), **vars(rung.model)} for rung in (below, above))
    return sum(a[name] != b[name] for name in a) == 1


def _other_model(below, above):
    return below.model != above.model


def _nothing_changed_is_fine(below, above):
    return len(changed(below, above)) <= 1 and width(below.model) == width(above.model)


def _width_of_the_field(below, above):
    return len(changed(below, above)) == 1 and below.model.d_ff == above.model.d_ff


def _width_of_experts(below, above):
    a, b = ((rung.model.top_k + rung.model.n_shared) * rung.model.d_expert for rung in (below, above))
    return len(changed(below, above)) == 1 and a == b


def _shared_forgotten(below, above):
    a, b = (rung.model.top_k * rung.model.d_expert if rung.model.n_experts else rung.model.d_ff for rung in (below, above))
    return len(changed(below, above)) == 1 and a == b


# ---- 13.2

T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228, 11: 2.201, 12: 2.179}


def paired(a, b):
    """The mean of a - b, seed by seed, and half the width of its 95 % interval.

    a, b: scores of two models with the same seeds, in the same order. T95: Student's t, by the number of differences less one.
    """
    more = [x - y for x, y in zip(a, b)]
    return statistics.mean(more), T95[len(more) - 1] * statistics.stdev(more) / math.sqrt(len(more))


def _scores_inputs(rng):
    n, gap = rng.randint(3, 6), rng.uniform(-0.02, 0.02)
    by_seed = [rng.gauss(1.64, 0.02) for _ in range(n)]
    return [round(s + gap + rng.gauss(0, 0.006), 4) for s in by_seed], [round(s + rng.gauss(0, 0.006), 4) for s in by_seed]


def _gap(a, b):
    return statistics.mean(a) - statistics.mean(b)


def _unpaired(a, b):
    n = len(a)
    return _gap(a, b), T95[n - 1] * math.sqrt((statistics.variance(a) + statistics.variance(b)) / n)


def _two_samples(a, b):
    n = len(a)
    return _gap(a, b), T95[2 * n - 2] * math.sqrt((statistics.variance(a) + statistics.variance(b)) / n)


def _of_one_run(a, b):
    mean, half = paired(a, b)
    return mean, half * math.sqrt(len(a))


def _spread_alone(a, b):
    more = [x - y for x, y in zip(a, b)]
    return statistics.mean(more), statistics.stdev(more)


def _signs_lost(a, b):
    return paired([abs(x - y) for x, y in zip(a, b)], [0] * len(a))


def _normal(a, b):
    mean, half = paired(a, b)
    return mean, half * 1.96 / T95[len(a) - 1]


def _standard_error(a, b):
    mean, half = paired(a, b)
    return mean, half / T95[len(a) - 1]


def _population(a, b):
    mean, half = paired(a, b)
    return mean, half * math.sqrt((len(a) - 1) / len(a))


def _t_of_n(a, b):
    mean, half = paired(a, b)
    return mean, half * T95[len(a)] / T95[len(a) - 1]


def _both_halves(a, b):
    mean, half = paired(a, b)
    return mean, 2 * half


def _ends(a, b):
    mean, half = paired(a, b)
    return mean - half, mean + half


def _b_minus_a(a, b):
    return paired(b, a)


# ---- 13.3

def sum_of_parts(start, gains):
    """The score that a model of start bits has once every technique changes it by as large a part as it changed another model alone.

    gains: {name: (score without, score with)}, in bits per byte.
    """
    return start * math.prod(after / before for before, after in gains.values())


def _gains_inputs(rng):
    names = rng.sample(["MLA", "experts", "MTP", "FP8"], rng.randint(2, 4))
    before = {name: round(rng.uniform(1.4, 2.2), 3) for name in names}
    return round(rng.uniform(1.4, 2.2), 3), {name: (before[name], round(before[name] * rng.uniform(0.75, 1.1), 3)) for name in names}


def _percents_added(start, gains):
    return start * (1 + sum(after / before - 1 for before, after in gains.values()))


def _bits_added(start, gains):
    return start + sum(after - before for before, after in gains.values())


def _upside_down(start, gains):
    return start * math.prod(before / after for before, after in gains.values())


def _factor_alone(start, gains):
    return math.prod(after / before for before, after in gains.values())


def _best_alone(start, gains):
    return start * min(after / before for before, after in gains.values())


def _saved(start, gains):
    return start - sum_of_parts(start, gains)


def _parts_of_after(start, gains):
    return start * math.prod(2 - before / after for before, after in gains.values())


# ---- 13.4

def worth(bits, curve):
    """Steps that it takes to reach a score. curve: (steps, bits), ascending in steps, falling in bits.

    Between two points the score falls in a straight line over the logarithm of steps; beyond the ends the nearest piece goes on.
    """
    i = next((i for i in range(1, len(curve)) if curve[i][1] <= bits), len(curve) - 1)
    (left, high), (right, low) = curve[i - 1], curve[i]
    return left * (right / left) ** ((high - bits) / (high - low))


def _curve_inputs(rng):
    steps = sorted(rng.sample(range(3, 60), rng.randint(3, 4)))
    falls = [rng.uniform(0.05, 0.12) for _ in steps]
    curve = [(100 * n, round(1.9 - sum(falls[:i]), 3)) for i, n in enumerate(steps)]
    first, last = curve[0][1], curve[-1][1]
    inside = rng.choice(curve[:-1])[1] - rng.uniform(0.005, 0.045)
    return round(rng.choice([inside, inside, first + 0.03, last - 0.03]), 3), curve


def _between(bits, curve, x_of, back):
    """The piece at bits, with the steps on the axis that x_of makes and back undoes."""
    i = next((i for i in range(1, len(curve)) if curve[i][1] <= bits), len(curve) - 1)
    (left, high), (right, low) = curve[i - 1], curve[i]
    return back(x_of(left) + (high - bits) / (high - low) * (x_of(right) - x_of(left)))


def _straight_in_steps(bits, curve):
    return _between(bits, curve, float, float)


def _still_a_logarithm(bits, curve):
    return math.log2(worth(bits, curve))


def _nearest_point(bits, curve):
    return min(curve, key=lambda point: abs(point[1] - bits))[0]


def _first_at_least_as_good(bits, curve):
    return next((steps for steps, score in curve if score <= bits), curve[-1][0])


def _stops_at_the_ends(bits, curve):
    return worth(min(max(bits, curve[-1][1]), curve[0][1]), curve)


def _ends_alone(bits, curve):
    return worth(bits, [curve[0], curve[-1]])


def _fitted(bits, curve):
    slope, start = np.polyfit([score for _, score in curve], [math.log2(steps) for steps, _ in curve], 1)
    return 2 ** (start + slope * bits)


def _unsorted_for_numpy(bits, curve):
    return 2 ** float(np.interp(bits, [score for _, score in curve], [math.log2(steps) for steps, _ in curve]))


def _numpy_in_steps(bits, curve):
    return float(np.interp(bits, [score for _, score in curve][::-1], [steps for steps, _ in curve][::-1]))


def _wrong_end(bits, curve):
    i = next((i for i in range(1, len(curve)) if curve[i][1] <= bits), len(curve) - 1)
    return curve[i - 1][0] * curve[i][0] / worth(bits, curve)


def _last_piece(bits, curve):
    return worth(bits, curve[-2:])


# ---- 13.5

def crossing(x1, r1, x2, r2):
    """Where a ratio that is a power of x is 1, if it is r1 at x1 and r2 at x2."""
    power = math.log(r2 / r1) / math.log(x2 / x1)
    return x1 * r1 ** (-1 / power)


def _ratio_inputs(rng):
    power, at = rng.choice([-1, 1]) * rng.uniform(0.3, 1.0), 10 ** rng.uniform(2, 4)
    x1 = float(rng.choice([32, 64, 128, 256]))
    x2 = x1 * rng.choice([2, 4, 8])
    return x1, (x1 / at) ** power, x2, (x2 / at) ** power


def _straight(x1, r1, x2, r2):
    return x1 + (1 - r1) * (x2 - x1) / (r2 - r1)


def _straight_in_log_x(x1, r1, x2, r2):
    return math.exp(_straight(math.log(x1), r1, math.log(x2), r2))


def _straight_in_log_r(x1, r1, x2, r2):
    return x1 - math.log(r1) * (x2 - x1) / math.log(r2 / r1)


def _where_it_is_zero(x1, r1, x2, r2):
    return x1 - r1 * (x2 - x1) / (r2 - r1)


def _wrong_way(x1, r1, x2, r2):
    return x1 ** 2 / crossing(x1, r1, x2, r2)


def _still_log(x1, r1, x2, r2):
    return math.log(crossing(x1, r1, x2, r2))


def _slope_upside_down(x1, r1, x2, r2):
    power = math.log(r2 / r1) / math.log(x2 / x1)
    return x1 * r1 ** -power


def _proportional(x1, r1, x2, r2):
    return x2 / r2


# ---- 13.6

def cheapest(models, price, n_written):
    """The model with the least bill, training and writing together, and the bill in dollars.

    models: {name: (tokens to train on, tokens a second in training, tokens a second in writing)}. price: (an hour of a training
    machine, an hour of a writing machine), in dollars. n_written: tokens that it will write in its life.
    """
    bills = {name: bill(*figures, *price, n_written) for name, figures in models.items()}
    name = min(bills, key=bills.get)
    return name, bills[name]


def bill(n_trained, trains, writes, train_price, write_price, n_written):
    """Dollars for training once and writing n_written tokens."""
    return (n_trained / trains * train_price + n_written / writes * write_price) / 3600


def _bill_inputs(rng):
    names = rng.sample(["dense", "middle", "top"], rng.choice([2, 3]))
    models = {name: (rng.randint(5, 40) * 10**6, rng.randint(10, 60) * 100, rng.randint(20, 90) * 10) for name in names}
    once = statistics.mean(n / speed for n, speed, _ in models.values())
    each = statistics.mean(1 / speed for *_, speed in models.values())
    return models, (rng.randint(1, 9), rng.randint(1, 9)), round(once / each * 10 ** rng.uniform(-0.7, 0.7))


def _least(models, of):
    bills = {name: of(*figures) for name, figures in models.items()}
    name = min(bills, key=bills.get)
    return name, bills[name]


def _training_forgotten(models, price, n_written):
    return _least(models, lambda n, trains, writes: n_written / writes * price[1] / 3600)


def _writing_forgotten(models, price, n_written):
    return _least(models, lambda n, trains, writes: n / trains * price[0] / 3600)


def _speeds_for_times(models, price, n_written):
    return _least(models, lambda n, trains, writes: (n * trains * price[0] + n_written * writes * price[1]) / 3600)


def _hours_for_seconds(models, price, n_written):
    return _least(models, lambda n, trains, writes: n / trains * price[0] + n_written / writes * price[1])


def _training_alone_in_hours(models, price, n_written):
    return _least(models, lambda n, trains, writes: n / trains * price[0] / 3600 + n_written / writes * price[1])


def _writing_alone_in_hours(models, price, n_written):
    return _least(models, lambda n, trains, writes: n / trains * price[0] + n_written / writes * price[1] / 3600)


def _speeds_swapped(models, price, n_written):
    return cheapest({name: (n, writes, trains) for name, (n, trains, writes) in models.items()}, price, n_written)


def _every_bill(models, price, n_written):
    return {name: bill(*figures, *price, n_written) for name, figures in models.items()}


def _prices_swapped(models, price, n_written):
    return cheapest(models, price[::-1], n_written)


def _one_price(models, price, n_written):
    return cheapest(models, (price[0], price[0]), n_written)


def _name_alone(models, price, n_written):
    return cheapest(models, price, n_written)[0]


def _bill_first(models, price, n_written):
    return cheapest(models, price, n_written)[::-1]


# ---- 13.7

def wrong_winner(a, b):
    """Of all pairs of a run of a and a run of b, the share in which the model that is worse in the mean scores lower. A tie counts half."""
    if statistics.mean(a) > statistics.mean(b):
        a, b = b, a
    return statistics.mean((x > y) + (x == y) / 2 for x in a for y in b)


def _runs_inputs(rng):
    gap = rng.choice([-1, 1]) * rng.uniform(0.002, 0.02)
    while True:
        a, b = ([round(rng.gauss(mean, 0.012), 2) for _ in range(rng.randint(3, 5))] for mean in (1.64, 1.64 + gap))
        if abs(_gap(a, b)) > 1e-3:
            return a, b


def _same_seeds(a, b):
    if statistics.mean(a) > statistics.mean(b):
        a, b = b, a
    return statistics.mean((x > y) + (x == y) / 2 for x, y in zip(a, b))


def _right_winner(a, b):
    return 1 - wrong_winner(a, b)


def _a_is_better(a, b):
    return statistics.mean((x > y) + (x == y) / 2 for x in a for y in b)


def _ties_forgotten(a, b):
    if statistics.mean(a) > statistics.mean(b):
        a, b = b, a
    return statistics.mean(x > y for x in a for y in b)


def _ties_are_wrong(a, b):
    if statistics.mean(a) > statistics.mean(b):
        a, b = b, a
    return statistics.mean(x >= y for x in a for y in b)


def _a_is_better_without_ties(a, b):
    return statistics.mean(x > y for x in a for y in b)


def _same_seeds_without_ties(a, b):
    if statistics.mean(a) > statistics.mean(b):
        a, b = b, a
    return statistics.mean(x > y for x, y in zip(a, b))


def _pairs_counted(a, b):
    return wrong_winner(a, b) * len(a) * len(b)


# ---- 13.8

def utilisation_left(old, new):
    """What part of the old model's utilisation the new one reaches on the same hardware. old, new: FLOPs of a token, and its time."""
    (old_flops, old_time), (new_flops, new_time) = old, new
    return (new_flops / new_time) / (old_flops / old_time)


def _work_inputs(rng):
    flops, time = rng.randint(200, 600), rng.randint(200, 600)
    return (flops, time), (round(flops * rng.uniform(0.2, 1.3), 1), round(time * rng.uniform(0.3, 1.8), 1))


def _lost(old, new):
    return 1 - utilisation_left(old, new)


def _old_over_new(old, new):
    return utilisation_left(new, old)


def _speed_up(old, new):
    return old[1] / new[1]


def _times_alone(old, new):
    return new[1] / old[1]


def _flops_alone(old, new):
    return new[0] / old[0]


def _both_ratios(old, new):
    return new[0] / old[0] * new[1] / old[1]


def _ratios_apart(old, new):
    return new[1] / old[1] - new[0] / old[0]


EXERCISES = [
    Exercise(
        solution=is_one_step, inputs=_step_inputs, n_trials=60,
        hint="dataclasses.asdict(rung.model) and asdict(rung.training) are dictionaries: count the keys whose values differ, but for muon_lr, and ask "
             "for exactly one. Then compare the hidden numbers: (top_k + n_shared) * d_expert with experts, d_ff without.",
        mutants=(
            *wrong_tests(is_one_step, of="pair of rungs", accepts_all="Look at the values of the fields, not at their names, which never differ.",
                         refuses_all="Leave the names of the rungs out, and muon_lr: compare model and training, and ask for exactly one field."),
            Mutant(function=_widths_forgotten, hint="One field may bring a second change with it: with n_experts or top_k alone a token can meet other "
                                                    "hidden numbers, and so more or less arithmetic. Compare those, too."),
            Mutant(function=_fields_forgotten, hint="As many hidden numbers are not all: count the fields that differ."),
            Mutant(function=_model_alone, hint="Training can differ, too: FP8 stands there, and so do steps and the seed."),
            Mutant(function=_rate_counted, hint="Each rung may have the learning rate that suits it: leave muon_lr out."),
            Mutant(function=_fields_of_the_model, hint="Two things are missing. Training can differ, too: FP8 stands there. And one field may bring a "
                                                       "second change with it: compare the hidden numbers that a token meets."),
            Mutant(function=_every_field, hint="Leave muon_lr out. Then compare the hidden numbers that a token meets: they can change though only one "
                                               "field did."),
            Mutant(function=_other_model, hint="This asks whether the models differ. Ask in how many fields, in model and training: exactly one is wanted."),
            Mutant(function=_nothing_changed_is_fine, hint="Two rungs that are the same are no step: ask for exactly one field."),
            Mutant(function=_width_of_the_field, hint="A layer with experts does not use d_ff: its tokens meet (top_k + n_shared) * d_expert hidden "
                                                      "numbers."),
            Mutant(function=_width_of_experts, hint="A dense model has top_k and d_expert among its fields, but does not use them: its hidden numbers "
                                                    "are d_ff."),
            Mutant(function=_shared_forgotten, hint="The shared experts work on every token as well: add n_shared to top_k."),
        )),
    Exercise(
        solution=paired, inputs=_scores_inputs,
        hint="Return two numbers. First the n differences a - b, seed by seed. Then their mean, and T95[n - 1] times their standard deviation over sqrt(n).",
        mutants=(
            Mutant(function=_unpaired, hint="This takes the two models' spreads. What the same seed does to both is no doubt about their difference: "
                                            "subtract first, seed by seed."),
            Mutant(function=_two_samples, hint="This is the test for two groups that have nothing in common. Here seeds are shared: subtract first, "
                                               "then one spread, with n - 1."),
            Mutant(function=_of_one_run, hint="This is how far one difference may lie from the mean. The mean of n is surer: divide by sqrt(n)."),
            Mutant(function=_spread_alone, hint="This is the standard deviation of the differences. Divide by sqrt(n), for the mean of n is surer than "
                                                "one; then T95[n - 1] times as much."),
            Mutant(function=_signs_lost, hint="Keep the signs: a model that wins once and loses once by as much is no better."),
            Mutant(function=_normal, hint="1.96 is right when the spread is known. It was guessed from a few differences: take T95[n - 1]."),
            Mutant(function=_standard_error, hint="This is the standard error. 95 % of cases need T95[n - 1] times as much."),
            Mutant(function=_population, hint="The differences are a sample: divide their squares by n - 1, as statistics.stdev does. NumPy wants ddof=1."),
            Mutant(function=_t_of_n, hint="One of n differences went into the mean: n - 1 are left, T95[n - 1]."),
            Mutant(function=_both_halves, hint="This is the whole width, from end to end. The half was asked."),
            Mutant(function=_ends, hint="These are the two ends. The middle and the half width were asked."),
            Mutant(function=_b_minus_a, hint="The sign is the other way round: a - b, so that a positive mean says that a has more bits."),
        )),
    Exercise(
        solution=sum_of_parts, inputs=_gains_inputs,
        hint="Each technique leaves the part `with / without` of a score. The model has all of them: multiply these parts, and start by all.",
        mutants=(
            Mutant(function=_percents_added, hint="Percents do not add: the second technique takes its part from what the first has left. Multiply."),
            Mutant(function=_bits_added, hint="These are bits, added up. Each was measured on a model of its own: take parts of it, and multiply."),
            Mutant(function=_upside_down, hint="Upside down: `with / without` is what a technique leaves of a score."),
            Mutant(function=_factor_alone, hint="This is what is left of 1 bit. The model has `start` bits."),
            Mutant(function=_best_alone, hint="This is the best technique alone. The model has all of them."),
            Mutant(function=_saved, hint="These are the bits that are saved. The score that remains was asked."),
            Mutant(function=_parts_of_after, hint="A gain is a part of the score without the technique: divide by `without`."),
        )),
    Exercise(
        solution=worth, inputs=_curve_inputs, n_trials=30,
        hint="Find two neighbours of the curve, one with more bits and one with fewer; at the ends take the two that are nearest. How far along is the score, "
             "(high - bits) / (high - low)? Go as far along between the logarithms of their steps, and undo the logarithm.",
        mutants=(
            Mutant(function=_straight_in_steps, hint="A straight line over steps. But each doubling brings about as much as the one before: go "
                                                     "straight over the logarithm of steps."),
            Mutant(function=_still_a_logarithm, hint="This is the logarithm of the steps: undo it."),
            Mutant(function=_nearest_point, hint="This is the nearest point of the curve. Go between the points."),
            Mutant(function=_first_at_least_as_good, hint="This is the first point that is good enough. The score was reached before it: go between "
                                                          "the points."),
            Mutant(function=_stops_at_the_ends, hint="Beyond its ends the curve goes on, with the slope of its last piece; numpy.interp stops there."),
            Mutant(function=_ends_alone, hint="This is one line from the first point to the last. Take the two neighbours of the score."),
            Mutant(function=_fitted, hint="This is one line fitted to all points. The curve bends: take the two neighbours of the score."),
            Mutant(function=_unsorted_for_numpy, hint="numpy.interp wants its second argument to rise, and scores fall: turn both lists round. And "
                                                      "beyond the ends it stops, but the curve goes on."),
            Mutant(function=_numpy_in_steps, hint="Go straight over the logarithm of steps, not over steps; and beyond its ends the curve goes on, "
                                                  "where numpy.interp stops."),
            Mutant(function=_wrong_end, hint="The way is measured from the wrong end: where the score is `high`, the steps are those of the left point."),
            Mutant(function=_last_piece, hint="This is the last piece, wherever the score lies. Take its two neighbours."),
        )),
    Exercise(
        solution=crossing, inputs=_ratio_inputs, tolerance=1e-4,
        hint="A power is a straight line where both axes are logarithms: slope = log(r2 / r1) / log(x2 / x1). From log x1, go on until the logarithm of the "
             "ratio is that of 1. Then undo the logarithm.",
        mutants=(
            Mutant(function=_straight, hint="This is a straight line over x. A power is straight only where both axes are logarithms."),
            Mutant(function=_straight_in_log_x, hint="Here x is on a logarithmic axis, but the ratio is not. Both must be."),
            Mutant(function=_straight_in_log_r, hint="Here the ratio is on a logarithmic axis, but x is not. Both must be."),
            Mutant(function=_where_it_is_zero, hint="This is where a straight line reaches zero. Lines cross where the ratio of the two is 1."),
            Mutant(function=_wrong_way, hint="This goes the wrong way from x1: the logarithm must change by 0 - log(r1)."),
            Mutant(function=_still_log, hint="This is the logarithm of x: undo it."),
            Mutant(function=_slope_upside_down, hint="How far to go is the height over the slope: r1 to the power -1 / slope, not -slope."),
            Mutant(function=_proportional, hint="This takes the ratio to be proportional to x. Its power follows from the two points."),
        )),
    Exercise(
        solution=cheapest, inputs=_bill_inputs, n_trials=30,
        hint="Return name and bill. Seconds of training: tokens over tokens a second; seconds of writing likewise. Each in hours times its price, and add.",
        mutants=(
            Mutant(function=_training_forgotten, hint="This is the bill for writing alone: somebody has to train the model first."),
            Mutant(function=_writing_forgotten, hint="This is the bill for training alone: count the tokens that it will write."),
            Mutant(function=_speeds_for_times, hint="Tokens over tokens a second are seconds; tokens times them are nothing. This rewards the slowest."),
            Mutant(function=_hours_for_seconds, hint="Prices are for an hour, and the times are seconds: over 3,600."),
            Mutant(function=_training_alone_in_hours, hint="The time of training is in hours, that of writing still in seconds."),
            Mutant(function=_writing_alone_in_hours, hint="The time of writing is in hours, that of training still in seconds."),
            Mutant(function=_speeds_swapped, hint="The speeds are swapped: first that of training, then that of writing."),
            Mutant(function=_every_bill, hint="These are the bills of all. Return the name of the least and its bill."),
            Mutant(function=_prices_swapped, hint="The first price is that of a training machine, the second that of a writing one."),
            Mutant(function=_one_price, hint="Training and writing have prices of their own."),
            Mutant(function=_name_alone, hint="The name is right. Return the bill behind it: name, dollars."),
            Mutant(function=_bill_first, hint="The other way round: first the name, then the bill."),
        )),
    Exercise(
        solution=wrong_winner, inputs=_runs_inputs,
        hint="Find out which has the lower mean; that one is better. Two loops over all runs of both: count 1 where the worse one's score is lower, a half "
             "where both are equal. Divide by the number of pairs.",
        mutants=(
            Mutant(function=_same_seeds, hint="Those who run one seed each do not take the same one, or it means nothing: every run of a meets every "
                                              "run of b."),
            Mutant(function=_right_winner, hint="This is the share of pairs that find the better one. The others were asked: fewer bits are better."),
            Mutant(function=_a_is_better, hint="a is not always the better one: compare the means first."),
            Mutant(function=_ties_forgotten, hint="A tie counts half: whoever sees it tosses a coin."),
            Mutant(function=_ties_are_wrong, hint="A tie is half wrong, not wholly: whoever sees it tosses a coin."),
            Mutant(function=_a_is_better_without_ties, hint="a is not always the better one: compare the means first. And a tie counts half."),
            Mutant(function=_same_seeds_without_ties, hint="Every run of a meets every run of b, not only that with the same number. And a tie counts half."),
            Mutant(function=_pairs_counted, hint="These are the pairs. Divide by how many there are."),
        )),
    Exercise(
        solution=utilisation_left, inputs=_work_inputs,
        hint="Utilisation is FLOPs done in the time, over those that the hardware could do. The hardware is the same, so its peak falls out: FLOPs over time, "
             "new beside old.",
        mutants=(
            Mutant(function=_lost, hint="This is the part that is lost. What is left was asked."),
            Mutant(function=_old_over_new, hint="This is upside down: new over old, so that less than 1 means a loss. More time means less utilisation."),
            Mutant(function=_speed_up, hint="This is how much faster it is. It also does other work: count the FLOPs."),
            Mutant(function=_times_alone, hint="These are the times. Utilisation is FLOPs in a time."),
            Mutant(function=_flops_alone, hint="These are the FLOPs. Utilisation is FLOPs in a time."),
            Mutant(function=_both_ratios, hint="Time stands below: as much work in less time is more utilisation."),
            Mutant(function=_ratios_apart, hint="This is a difference of two ratios. Utilisation is FLOPs over time: divide."),
        )),
]
