"""Exercises of chapter 10."""

import math

import torch

from minimodels.bugs import plant
from minimodels.bugs.fp8 import FlooredGradients, LastStepsScale, NoMaster, NoMasterBF16, UnscaledGradients
from minimodels.exercises import Exercise, Mutant, wrong_tests
from minimodels.fp8 import convert
from minimodels.linear import Linear


def _generator(rng):
    return torch.Generator().manual_seed(rng.randrange(2**31))


# ---- 10.1

def value_of_code(code):
    """What an E4M3 code, 0 to 255, stands for; NaN for 127 and 255. Source: Micikevicius et al. (2022), Table 1."""
    sign, exponent, mantissa = code >> 7, code >> 3 & 15, code & 7
    if exponent == 15 and mantissa == 7:
        return math.nan
    size = mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return -size if sign else size


def _code_inputs(rng):
    top = rng.choice([120, 248]) + rng.randrange(7)
    return (rng.choice([rng.randrange(8), 128 + rng.randrange(8), 8 + rng.randrange(119), 136 + rng.randrange(119), top, 127, 255]),)


def _always_a_one(code):
    exponent, mantissa = code >> 3 & 15, code & 7
    return math.nan if code & 127 == 127 else (-1) ** (code >> 7) * (1 + mantissa / 8) * 2.0 ** (exponent - 7)


def _unsigned(code):
    return abs(value_of_code(code))


def _no_nan(code):
    return value_of_code(code) if code & 127 != 127 else (-1) ** (code >> 7) * 480.0


def _top_exponent_kept(code):
    return math.nan if code >> 3 & 15 == 15 else value_of_code(code)


# ---- 10.2

def round_e4m3(x):
    """The E4M3 number nearest to x, of two equally near ones that with the even mantissa; beyond 448 it is 448."""
    exponent = max(math.frexp(x)[1] - 1, -6)
    step = 2.0 ** (exponent - 3)
    return math.copysign(min(round(abs(x) / step) * step, 448.0), x)


def _round_inputs(rng):
    step = 2.0 ** rng.randint(-9, 5)
    tie = (8 + rng.randrange(8) + 0.5) * step
    small = (rng.randrange(7) + rng.choice([0.2, 0.5, 0.8])) * 2.0**-9
    return (rng.choice([-1, 1]) * rng.choice([tie, 2.0 ** rng.uniform(-6, 8.7), small, rng.uniform(449, 2000)]),)


def _to_the_grid(x, rounded):
    step = 2.0 ** (max(math.frexp(x)[1] - 1, -6) - 3)
    return math.copysign(min(rounded(abs(x) / step) * step, 448.0), x)


def _halves_up(x):
    return _to_the_grid(x, lambda n: math.floor(n + 0.5))


def _cut_off(x):
    return _to_the_grid(x, math.floor)


def _halves_up_with_sign(x):
    step = 2.0 ** (max(math.frexp(x)[1] - 1, -6) - 3)
    return max(-448.0, min(math.floor(x / step + 0.5) * step, 448.0))


def _clamped_above(x):
    return round_e4m3(x) if x > -448 else _no_ceiling(x)


def _no_floor(x):
    step = 2.0 ** (math.frexp(x)[1] - 4)
    return math.copysign(min(round(abs(x) / step) * step, 448.0), x)


def _no_ceiling(x):
    step = 2.0 ** (max(math.frexp(x)[1] - 1, -6) - 3)
    return math.copysign(round(abs(x) / step) * step, x)


# ---- 10.3

def lost_below(amax):
    """The size up to which a number becomes zero where one scale fits amax to 448: half of E4M3's smallest number, 2^-9, times the scale."""
    return amax / 448 * 2.0**-10


def _amax_inputs(rng):
    return (10.0 ** rng.randint(4, 9),)


def _smallest_itself(amax):
    return amax / 448 * 2.0**-9


def _smallest_normal(amax):
    return amax / 448 * 2.0**-6


def _without_448(amax):
    return amax * 2.0**-10


# ---- 10.4

def quantise_tiles(x, width):
    """x (rows, columns) as E4M3 gives it back, with a scale for each `width` neighbours of a row. columns: a multiple of width."""
    tiles = x.unflatten(-1, (-1, width))
    scale = tiles.abs().amax(-1, keepdim=True) / 448
    return ((tiles / scale).to(torch.float8_e4m3fn).float() * scale).flatten(-2)


def _tile_inputs(rng):
    g, width = _generator(rng), rng.choice([4, 8])
    sizes = 10.0 ** torch.randint(1, 6, (6, 3), generator=g).repeat_interleave(width, 1)
    return torch.randn(6, 3 * width, generator=g) * sizes, width


def _one_scale_a_row(x, width):
    return quantise_tiles(x, x.shape[-1])


def _one_scale_in_all(x, width):
    return quantise_tiles(x.reshape(1, -1), x.numel()).view_as(x)


def _down_the_columns(x, width):
    return quantise_tiles(x.T.contiguous(), x.shape[0]).T.contiguous()


def _still_codes(x, width):
    tiles = x.unflatten(-1, (-1, width))
    return (tiles / (tiles.abs().amax(-1, keepdim=True) / 448)).to(torch.float8_e4m3fn).float().flatten(-2)


def _no_abs(x, width):
    tiles = x.unflatten(-1, (-1, width))
    scale = tiles.amax(-1, keepdim=True) / 448
    return ((tiles / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale).flatten(-2)


def _no_scale(x, width):
    return x.clamp(-448, 448).to(torch.float8_e4m3fn).float()


# ---- 10.5

def scaled_product(a, a_scale, b, b_scale, width):
    """(a times its scales) (b times its scales)^T, with the scales applied to each tile's sum and not to the numbers.

    a: (m, k), b: (n, k), codes as floats; a_scale: (m, k / width), b_scale: (n, k / width). Returns (m, n).
    """
    y = torch.zeros(len(a), len(b))
    for i, (a_k, b_k) in enumerate(zip(a.split(width, 1), b.split(width, 1))):
        y += (a_k @ b_k.T) * a_scale[:, i, None] * b_scale[:, i]
    return y


def _product_inputs(rng):
    g, n, width = _generator(rng), rng.choice([3, 5]), rng.choice([4, 8])
    codes = [torch.randint(-15, 16, (n, 3 * width), generator=g).float() for _ in range(2)]
    scales = [torch.rand(n, 3, generator=g) + 0.1 for _ in range(2)]
    return codes[0], scales[0], codes[1], scales[1], width


def _first_scale(a, a_scale, b, b_scale, width):
    return (a @ b.T) * a_scale[:, :1] * b_scale[:, 0]


def _scales_swapped(a, a_scale, b, b_scale, width):
    return scaled_product(a, b_scale, b, a_scale, width)


def _one_operand(a, a_scale, b, b_scale, width):
    return scaled_product(a, a_scale, b, torch.ones_like(b_scale), width)


def _scales_divide(a, a_scale, b, b_scale, width):
    return scaled_product(a, 1 / a_scale, b, 1 / b_scale, width)


# ---- 10.6 to 10.8: tests that the reader writes

def size_does_not_matter(layer, x):
    """Whether an input 1,024 times as large, right after x, gives an output 1,024 times as large."""
    small, large = layer(x), layer(1024 * x)
    return torch.equal(large / 1024, small)


def gradients_keep_their_digits(layer, x, dy):
    """Whether a gradient that is 2^30 times smaller gives a weight gradient that is 2^30 times smaller, with all its digits."""
    found = []
    for size in (1.0, 2.0**-30):
        layer.weight.grad = None
        layer(x).backward(size * dy)
        found.append(layer.weight.grad / size)
    return torch.equal(*found)


def small_steps_add_up(layer, x):
    """Whether a hundred steps of 0.00001, each with a pass through the layer, move the weights by 0.001 in the mean."""
    before = layer.weight.detach().clone()
    for _ in range(100):
        with torch.no_grad():
            layer.weight += 1e-5
        layer(x)
    return abs((layer.weight - before).mean().item() - 1e-3) < 1e-4


def _layer(rng, *bugs):
    torch.manual_seed(rng.randrange(2**31))
    layer, bug = convert(Linear(256, 24)), rng.choice([None] * len(bugs) + list(bugs))
    return plant(layer, bug) if bug else layer


def _size_inputs(rng):
    return _layer(rng, LastStepsScale), torch.randn(3, 256)


def _gradient_inputs(rng):
    return _layer(rng, UnscaledGradients, FlooredGradients), torch.randn(40, 256), torch.randn(40, 24)


def _step_inputs(rng):
    return _layer(rng, NoMaster, NoMasterBF16), torch.randn(3, 256)


EXERCISES = [
    Exercise(
        solution=value_of_code, inputs=_code_inputs, n_trials=40, tolerance=1e-6,
        hint="One bit of sign, four of exponent, three of mantissa: code >> 7, code >> 3 & 15 and code & 7. The bias is 7.",
        mutants=(
            Mutant(function=_always_a_one, hint="With exponent 0 there is no 1 before the point: such numbers are mantissa / 8 times 2 to the power -6."),
            Mutant(function=_unsigned, hint="The first bit is the sign."),
            Mutant(function=_no_nan, hint="Exponent 15 with mantissa 7 is no number: return math.nan."),
            Mutant(function=_top_exponent_kept, hint="In E4M3 exponent 15 counts on: only with mantissa 7 is it NaN. Otherwise 240 would be the largest."),
        )),
    Exercise(
        solution=round_e4m3, inputs=_round_inputs, n_trials=60, tolerance=1e-6,
        hint="Find the exponent e of x (math.frexp(x)[1] - 1), at least -6. Numbers there lie 2 to the power e - 3 apart: round to "
             "a multiple of that. Halfway the even multiple wins, which is what round does. Clamp both signs to 448.",
        mutants=(
            Mutant(function=_halves_up, hint="Halfway between two numbers the even one wins, as Python's round does, and not always the larger."),
            Mutant(function=_halves_up_with_sign, hint="Adding a half and cutting takes a tie upward; the even one wins, as Python's round does."),
            Mutant(function=_clamped_above, hint="Clamp both signs: below -448 there is nothing either."),
            Mutant(function=_cut_off, hint="This cuts off. Round to the nearest."),
            Mutant(function=_no_floor, hint="Below 2 to the power -6 the gaps no longer shrink: they stay at 2 to the power -9."),
            Mutant(function=_no_ceiling, hint="There is nothing beyond 448: clamp to it."),
        )),
    Exercise(
        solution=lost_below, inputs=_amax_inputs,
        hint="The scale is amax / 448. E4M3's smallest number is 2 to the power -9, and half of it rounds to zero.",
        mutants=(
            Mutant(function=_smallest_itself, hint="This number still has a code. What is more than half as large is rounded up to it."),
            Mutant(function=_smallest_normal, hint="Below 2 to the power -6 seven subnormal numbers follow, down to 2 to the power -9."),
            Mutant(function=_without_448, hint="The largest number is not scaled to 1 but to 448."),
        )),
    Exercise(
        solution=quantise_tiles, inputs=_tile_inputs, tolerance=1e-4,
        hint="x.unflatten(-1, (-1, width)) makes tiles. Scale: amax of a tile over 448. Divide, cast to torch.float8_e4m3fn and back, multiply.",
        mutants=(
            Mutant(function=_one_scale_a_row, hint="This is one scale for a whole row: cut it into tiles first."),
            Mutant(function=_one_scale_in_all, hint="This is one scale for the whole tensor: cut the rows into tiles first."),
            Mutant(function=_down_the_columns, hint="This runs down the columns. A tile is `width` neighbours in a row."),
            Mutant(function=_still_codes, hint="These are the codes. Multiply by the scales, so that the numbers come back."),
            Mutant(function=_no_abs, hint="The largest number by its size: take abs() first, or a large negative one does not fit."),
            Mutant(function=_no_scale, hint="There is no scale in this: whatever lies beyond 448 is lost."),
        )),
    Exercise(
        solution=scaled_product, inputs=_product_inputs, tolerance=1e-4,
        hint="Tile by tile: multiply the codes, (m, n); times a_scale[:, i, None], a factor a row, times b_scale[:, i], a factor a column; add.",
        mutants=(
            Mutant(function=_first_scale, hint="Each tile has a scale of its own. This takes the first tile's for all, which is right only for width = k."),
            Mutant(function=_scales_swapped, hint="The scales of a belong to the rows of the result, those of b to its columns."),
            Mutant(function=_one_operand, hint="b has scales, too."),
            Mutant(function=_scales_divide, hint="Codes were made by dividing; to come back, multiply."),
        )),
    Exercise(
        solution=size_does_not_matter, inputs=_size_inputs, n_trials=16,
        hint="Call layer(x), then layer(1024 * x), and compare the second over 1024 with the first: a right layer gives the same digits.",
        mutants=wrong_tests(size_does_not_matter, of="layer",
                            accepts_all="Call it with the small input first, then with the large one: a scale from the call before is too small only then.",
                            refuses_all="Divide the large output by 1024 before you compare.")),
    Exercise(
        solution=gradients_keep_their_digits, inputs=_gradient_inputs, n_trials=16,
        hint="layer(x).backward(dy) fills layer.weight.grad. Do it with dy and with dy * 2**-30, from an empty gradient each time. Undo the factor "
             "before you compare: beside allclose's atol all tiny numbers are equal.",
        mutants=wrong_tests(gradients_keep_their_digits, of="layer",
                            accepts_all="Multiply the small gradient's result by 2**30 before you compare: beside allclose's atol all tiny numbers are equal.",
                            refuses_all="Set layer.weight.grad = None before each backward, or gradients add up; and undo the factor before you compare.")),
    Exercise(
        solution=small_steps_add_up, inputs=_step_inputs, n_trials=16,
        hint="Keep a clone of the weights. A hundred times: add 1e-5 under torch.no_grad(), and call layer(x). The mean must have moved by 1e-3.",
        mutants=wrong_tests(small_steps_add_up, of="layer",
                            accepts_all="Call the layer after each step: there it rounds.",
                            refuses_all="Clone the weights before the first step, or you compare them with themselves. A hundred steps of 1e-5 are 1e-3; allow 1e-4 of difference.")),
]
