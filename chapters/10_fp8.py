# ---
# jupyter:
#   book:
#     number: 10
#     reading: 80 min
#     cpu: 50 s, 1.1 GB
#     needs: "the training loop and bf16 of [chapter 5](05_train.ipynb)"
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: book
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Eight bits
#
# [Open in Colab](https://colab.research.google.com/github/minimodels/small-models-big-claims/blob/main/chapters/10_fp8.ipynb)
#
# > *Multiply with one digit. Add with seven.*
#
# *This chapter is still being measured: runs over several seeds are being recorded, and where a finding rests on one seed the text
# says so.*
#
# > **You will be able to**
# > - read any floating-point number bit by bit, and say how many decimal digits it has;
# > - round to eight bits by hand, exactly as the hardware's cast does, and prove it;
# > - say how large an outlier must be before a single scale fails, and find out whether your model has one;
# > - follow the three products of a layer in FP8, and name what must *not* be in FP8;
# > - write three tests for FP8 bugs that a falling loss hides;
# > - take the press's "75 percent less memory" apart, in bytes that you have measured.
#
# ## What you need, in two paragraphs
#
# [Chapter 5](05_train.ipynb) trained the yardstick, a model of 1.28 million weights, in 32-bit numbers and in **bf16**, which
# has 16 bits, and found no difference in the score. A floating-point number spends its bits on a sign, on an *exponent*, which
# says how large it is, and on a [mantissa](../book/glossary.md#mantissa), which says how exactly. Training keeps several copies
# of every weight's worth of numbers: the weight itself, its gradient, and what the optimizer remembers.
#
# Nearly all of a model's work is matrix multiplication, $y = x W^\top$, a **GEMM** in the jargon ([general matrix
# multiplication](../book/glossary.md#gemm)). Each number of $y$ is a sum of many products. Keep the two words apart, *product*
# and *sum*: this chapter is about doing the first carelessly and the second carefully.

# %%
BOOK = "git+https://github.com/minimodels/small-models-big-claims"
try:
    import minimodels
except ModuleNotFoundError:  # in Colab, where the book is not installed yet
    import subprocess, sys
    pip = [sys.executable, "-m", "pip", "install", "-q", BOOK]
    subprocess.run(pip, check=True)

# %% tags=["nbval-ignore-output"]
import math
import statistics
from dataclasses import replace

import torch
from minimodels import exercises, fp8, lab, ledger, show
from minimodels.explorables import FloatBits

check = exercises.load("fp8")
print(lab.tier())

# %% [markdown]
# ## The pain
#
# **253**
#
# > **Margin.** 256 patterns of eight bits, less two that mean "not a number", less one because zero has two.
#
# So many different numbers there are in **FP8**, in the form that DeepSeek-V3 was trained with. Not 253 between zero and one:
# 253 in all. After 16 comes 18. After 256 comes 288, and after 448 comes nothing.
#
# Why would anyone train a model on that? Because of what the other side of the ledger says. A Hopper GPU multiplies eight-bit
# numbers twice as fast as sixteen-bit ones, up to 1,979 trillion operations a second and not 989, and each of them is half as
# much to store, to load and to send. V3's training is $3.7 \cdot 10^{24}$ operations, most of them in such products ([chapter
# 1](01_cost.ipynb) did the sum). A good part of the bill is at stake.
#
# ## What the press said

# %% tags=["remove-input"]
ledger.show("C38", "C39", "C40", "C41", "C42", "C43", "C44", "C45", form="told")

# %% [markdown]
# > **Before you read on.** "Eight decimal places are enough." How many decimal digits does one of V3's eight-bit numbers really
# > have: eight, four, two, or about one?
# >
# > <details><summary>What we found</summary>
# >
# > **1.2 digits.** Four significant bits, one of them implied, times $\log_{10} 2$. Eight decimal digits would need 27 bits,
# > more than a 32-bit number has. "8" counted bits.
# >
# > </details>
#
# The truth is stranger than the error, then. How can a model of 671 billion weights learn from numbers with one digit? The rest
# of this chapter is the answer: what one number can say, which scale it stands under, how the sums are kept, what is left out
# of all this; and how large the error is beside the luck of a batch.
#
# ## One number, bit by bit
#
# E4M3 has one bit of sign $s$, four of exponent $e$, three of mantissa $m$. The exponent is stored with 7 added, its *bias*,
# and in front of the mantissa stands a 1 that is not stored:
#
# $$ (-1)^s \cdot 2^{\,e - 7} \cdot \left(1 + \tfrac{m}{8}\right) \tag{10.1}$$

# %% tags=["remove-input"]
show.drawing("eight",
             alt="The byte 0 0011 101 taken apart: sign 0 means plus, exponent 3 less the bias 7 means 2 to the power minus 4, mantissa 101 means 1 and 5/8; the product is 0.1015625. Below, E5M2 with five bits of exponent and two of mantissa.",
             caption="Eight bits, read as E4M3; below, how E5M2 shares them out.")

# %% [markdown]
# With exponent 0 the hidden 1 is missing, and the power stays at $-6$. These are the [subnormal numbers](../book/glossary.md#subnormal-number); they fill the gap
# down to zero in even steps of $2^{-9}$. And all seven bits set means NaN, no number. Click on the bits. What is the largest
# number, and how far is it to the one before? Then type 0.1 and change the format: where does its error go?

# %%
FloatBits(format="E4M3", number=0.1)

# %% [markdown]
# > **Exercise 10.1** (read a byte; easy, 10 minutes). Write `value_of_code(code)`: what the byte `code`, 0 to 255, stands for
# > in E4M3. `code >> 3 & 15` is the exponent; `math.nan` is NaN.

# %%
def value_of_code(code):
    ...


# %%
check.value_of_code(value_of_code)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def value_of_code(code):
#     sign, exponent, mantissa = code >> 7, code >> 3 & 15, code & 7
#     if exponent == 15 and mantissa == 7:
#         return math.nan
#     if exponent == 0:
#         size = mantissa / 8 * 2.0**-6
#     else:
#         size = (1 + mantissa / 8) * 2.0**(exponent - 7)
#     return -size if sign else size
# ```
#
# </details>
#
# Here are all of them that are positive, beside whole numbers of eight bits, INT8, scaled to the same largest:

# %% tags=["hide-input"]
import plotly.graph_objects as go
from minimodels.explorables.float_bits import FORMATS, value_of

e4m3 = [value_of(code, fp8.E4M3) for code in range(1, 127)]
int8 = [448 * i / 127 for i in range(1, 128)]
fig = go.Figure()
for name, values, concept in (("INT8", int8, "muted"), ("E4M3", e4m3, "fp8")):
    fig.add_scatter(x=values, y=[name] * len(values), mode="markers", showlegend=False, hoverinfo="x",
                    marker={"symbol": "line-ns-open", "size": 26, "color": show.COLORS[concept][0], "line": {"width": 1}})
fig.update_layout(title=f"E4M3's numbers crowd around zero: {sum(v < 1 for v in e4m3)} of its {len(e4m3)} positive ones are below 1", height=230,
                  xaxis={"title": "value", "range": [-4, 460]}, yaxis={"showgrid": False})
show.show(fig, alt="Two rows of ticks from 0 to 448. INT8's are evenly spaced. E4M3's are so dense near zero that they merge, and spread out to gaps of 32 at the right end.",
          caption="All positive numbers of the two formats. The gaps of E4M3 double with each power of two.")

# %% [markdown]
# Evenly spaced numbers are exact about large things and blind to small ones. A float's gaps grow with its size, so that its
# *relative* error stays the same: at most 1 part in 16 from $2^{-6} = 0.0156$ up to 448, a range of 28,672 to one. Remember
# this number; it will decide the question of scales.
#
# How many decimal digits is that? A number with $p$ significant bits distinguishes as many cases as one with $p \log_{10} 2$
# decimal digits.

# %%
rows = []
for name, f in FORMATS.items():
    p, form = f.mantissa_bits + 1, ",.0f" if f.max < 1e6 else ".1e"
    rows.append({"format": name, "bits": f.bits, "significant": p,
                 "decimal digits": round(p * math.log10(2), 1),
                 "largest": format(f.max, form)})
show.table(rows)

# %% [markdown]
# Nobody trains with "32 decimal places". Not even FP32 has eight.
#
# ### Round to it
#
# A number that falls between two is rounded to the nearer one. Exactly in the middle, the one with the *even* mantissa wins, so
# that errors do not all go one way. Take 0.3. The power of two below it is $2^{-2}$, so neighbours lie $2^{-2}/8 = 0.03125$
# apart; $0.3 / 0.03125 = 9.6$, which rounds to 10, and $10 \cdot 0.03125 = 0.3125$. For 17 the step is 2, $17/2 = 8.5$ is a
# tie, and 8 is even: 16.
#
# > **Exercise 10.2** (round; medium, 15 minutes). Write `round_e4m3(x)`: the E4M3 number nearest to `x`, ties to even. Beyond
# > 448 give 448. `math.frexp(x)[1] - 1` is the exponent of `x`; below $2^{-6}$ the step no longer shrinks. Python's `round`
# > already takes ties to even.

# %%
def round_e4m3(x):
    ...


# %%
check.round_e4m3(round_e4m3)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Exponent, step, count of steps: `step = 2.0**(exponent - 3)`, with an exponent of at least $-6$.
#
# </details>
#
# <details><summary>Solution</summary>
#
# It stands in the next cell, under the name `to_e4m3`.
#
# </details>
#
# Is this what torch does? There are few enough numbers to leave no doubt. We take the 127 that are not negative and, between
# neighbours, the exact middle, the last 32-bit number before it and the first one after; all of it with both signs.

# %%
def to_e4m3(x):
    """The nearest E4M3 number, ties to even, at most 448."""
    exponent = max(math.frexp(x)[1] - 1, -6)
    step = 2.0**(exponent - 3)
    size = min(round(abs(x) / step) * step, 448.0)
    return math.copysign(size, x)


codes = torch.arange(256, dtype=torch.uint8)
torchs = codes.view(torch.float8_e4m3fn).float()
ours = torch.tensor([value_of(int(c), fp8.E4M3) for c in codes])
same = torch.equal(ours.nan_to_num(), torchs.nan_to_num())
print("256 codes equal:", same)

# %%
low, high = torchs[:126], torchs[1:127]
middle = (low + high) / 2
cases = torch.cat([torchs[:127], middle,
                   torch.nextafter(middle, low),
                   torch.nextafter(middle, high)])
cases = torch.cat([cases, -cases])
by_hand = torch.tensor([to_e4m3(x) for x in cases.tolist()])
by_torch = cases.to(torch.float8_e4m3fn).float()
print(f"{len(cases)} cases, of them {2 * len(middle)} ties;",
      "equal:", torch.equal(by_hand, by_torch))

# %% [markdown]
# ## One scale, and where it fails
#
# A gradient of a millionth is below E4M3's smallest number, and becomes 0. So before rounding, numbers are multiplied into the
# range: divide by a [scale](../book/glossary.md#scale), round, and multiply the scale back after the product. The scale is
# chosen so that the largest number just fits:
#
# $$ \text{scale} = \frac{\max |x|}{448} \tag{10.2}$$
#
# One scale for a whole tensor is the obvious thing. What is wrong with it? Usually you will read: outliers. One huge number
# makes the scale huge, and all others are crushed. For whole numbers that is true, and quickly. But E4M3 has an exponent.
#
# > **Before you read on.** 131,072 numbers of ordinary size (a normal distribution, mean 0, spread 1), and a single outlier.
# > One E4M3 scale for all. How large must the outlier be before the others suffer: 10, 100, 1,000, or more?
# >
# > <details><summary>What we found</summary>
# >
# > **More than 10,000.** At 10,000 the error of the others has grown from 2.65 to 2.72 percent. At 100,000 it is 13, at a
# > million 95. INT8 is 23 percent off at 100, and at 1,000 it has lost everything.
# >
# > </details>
#
# Let us see it. `quantise` is the package's; it takes the rows and columns that share a scale.

# %%
from minimodels.fp8 import BLOCK, TILE, WHOLE, quantise

torch.manual_seed(0)
x = torch.randn(256, 512)
usual = torch.ones_like(x, dtype=torch.bool)
usual[97, 211] = False                       # here the outlier will be


# %%
def error_beside(outlier, round_trip):
    """Relative error of all numbers but the outlier, in percent."""
    spoilt = x.masked_fill(~usual, outlier)
    wrong = (round_trip(spoilt) - spoilt)[usual]
    return 100 * (wrong.norm() / spoilt[usual].norm()).item()


def int8_round_trip(x):
    scale = x.abs().max() / 127
    return (x / scale).round() * scale


# %% tags=["hide-input"]
ways = {"INT8": int8_round_trip} | {
    f"E4M3, {name}": lambda x, block=block: quantise(x, block=block).dequantise()
    for name, block in {"tensor": WHOLE, "block": BLOCK, "tile": TILE}.items()}
sizes = [10 ** (i / 2) for i in range(15)]
sweep = {name: [error_beside(size, way) for size in sizes] for name, way in ways.items()}
show.show(show.lines({name: (sizes, errors) for name, errors in sweep.items()},
                     concept={name: "dense" if name == "INT8" else "fp8" for name in ways},
                     x="size of the outlier, in spreads of the others", y="error of the others, %", log_x=True, log_y=True,
                     title="One scale for all E4M3 numbers survives an outlier of 10,000"),
          alt="INT8 starts lowest at 1 percent, crosses E4M3 near 12 and reaches 100 percent at a thousand. E4M3 with a scale for the tensor stays at 2.7 percent until 10,000, then rises to 100 percent at ten million; with a scale for a block it ends at 36 percent, for a tile at 4.",
          caption="Computed here: 131,072 normal numbers, one of them replaced by the outlier. A name says who shares a scale; INT8 has one for the tensor. "
                  "Blocks and tiles come next.")

# %%
show.table([{"outlier": f"{size:,.0f}"}
            | {name: f"{error_beside(size, way):.1f} %"
               for name, way in ways.items()}
            for size in (1, 10, 100, 1e4, 1e5, 1e6)])

# %% [markdown]
# Look at the left end first. With well-behaved numbers INT8 is *better*, 1.0 against 2.7 percent: it spends all bits on
# exactness. E4M3 spends four on range, and this is what it buys: three more powers of ten. The crossing lies near 12.
#
# > **Exercise 10.3** (where numbers vanish; medium, 5 minutes). Write `lost_below(amax)`: the size up to which a number is
# > rounded to zero, if one scale fits the largest, `amax`, to 448.

# %%
def lost_below(amax):
    ...


# %%
check.lost_below(lost_below)

# %% [markdown]
# <details><summary>Solution</summary>
#
# E4M3's smallest number is $2^{-9}$; half of it is a tie, and goes to zero, which is even.
#
# ```python
# def lost_below(amax):
#     scale = amax / 448
#     return scale * 2.0**-10
# ```
#
# Beside an outlier of a million, whatever is below 2.2 is gone: nearly everything.
#
# </details>
#
# ### Smaller areas
#
# DeepSeek-V3 gives each scale a small area: for activations (what flows between layers) and their gradients a
# [tile](../book/glossary.md#tile), 128 neighbours in a row, that is 128 channels of one token; for weights a *block* of 128 ×
# 128 ([DeepSeek-V3](../book/references.md#deepseek-v3), section 3.3.2). An outlier still ruins what stands beside it. But it stands
# beside less. Such scales cost 4 bytes for 128: 3 percent.

# %% tags=["remove-input"]
show.drawing("tiles",
             alt="Four copies of one matrix with the same outlier. With one scale for the tensor all of it suffers; with a scale a row, that row; with blocks of 128 by 128, one block; with tiles of 1 by 128, a short piece of one row.",
             caption="What one outlier (dark) takes down with it (tinted), by who shares a scale.")

# %% [markdown]
# > **Exercise 10.4** (tiles; medium, 15 minutes). Write `quantise_tiles(x, width)`: each `width` neighbours in a row share a
# > scale by (10.2). Return the numbers that come back, scales multiplied in again. The width divides the columns.
# > `.to(torch.float8_e4m3fn)` rounds, `.float()` comes back.

# %%
def quantise_tiles(x, width):
    ...


# %%
check.quantise_tiles(quantise_tiles)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def quantise_tiles(x, width):
#     tiles = x.unflatten(-1, (-1, width))
#     scale = tiles.abs().amax(-1, keepdim=True) / 448
#     codes = (tiles / scale).to(torch.float8_e4m3fn)
#     return (codes.float() * scale).flatten(-2)
# ```
#
# </details>
#
# ### Does our model have such outliers?
#
# The sweep is a toy. So we take the yardstick that chapter 5 trained for 6,000 steps, let it read a page of Python, forward and
# backward, and look at what its linear layers multiply: weights, inputs, and the gradients of their outputs. Two questions to
# each tensor: how large is its largest number beside its median? And what does one scale lose that tiles keep?

# %% tags=["nbval-ignore-output"]
import argparse
import inspect
from minimodels.checkpoint import Run
from minimodels.studies.fp8 import operands

run = Run.open(lab.data_file("checkpoints/yardstick"))
page = run.tokenizer.encode(inspect.getsource(argparse)).ids
tokens = torch.tensor(page[:2048]).view(8, 256)
seen = operands(run.model(), tokens)


def error_of(x, block):
    q = quantise(x, block=block, amax_floor=fp8.GRADIENT_FLOOR)
    return 100 * ((q.dequantise() - x).norm() / x.norm()).item()


# %% tags=["nbval-ignore-output"]
rows = []
for kind in ("weight", "input", "gradient"):
    tensors = [layer[kind] for layer in seen.values()]
    ratio = [(t.abs().max() / t.abs().median()).item() for t in tensors]
    mean = {block: statistics.mean(error_of(t, block) for t in tensors)
            for block in (WHOLE, TILE)}
    rows.append({"tensor": kind,
                 "largest / median": f"{statistics.median(ratio):,.0f}",
                 "in the worst layer": f"{max(ratio):,.0f}",
                 "error, one scale": f"{mean[WHOLE]:.2f} %",
                 "error, tiles": f"{mean[TILE]:.2f} %"})
show.table(rows, caption="24 layers of the trained yardstick.")

# %% [markdown]
# Nothing here comes near 28,672, the width of E4M3's full precision. The worst are gradients, with 3,000 between largest and
# median in one layer; it is in gradients, too, that V3 found a recipe to fail. But in error there is hardly a difference: 2.7
# percent under one scale, 2.3 to 2.6 under tiles. It is the error of a mantissa of three bits, and no scale mends that. V3's
# paper gives outliers among activations as a reason for its fine scales (section 3.3.2). Our model has none of that size, and
# we cannot show you what it does not have. **So at our size we expect one scale for a tensor to do as well as V3's recipe.**
#
# <!-- figure pending: study fp8-scales -->
#
# ## The sums
#
# Each operand is off by 2.6 percent, so a product is off by some 3.7 percent, up or down. In a sum of many, errors of both
# signs cancel in part; the products themselves do the same. Sum and error both grow like the root of the length, and the result
# stays 3.7 percent off, whether it is a sum of a hundred or of a million. It gets no better, but it gets no worse: *if the sum
# itself is kept exactly*. Is it?
#
# The GPU adds in its tensor cores, and on Hopper these keep only about 14 bits of an FP8 product's running sum, V3's authors
# found. With sums of 4,096 products the result was wrong by up to 2 percent ([DeepSeek-V3](../book/references.md#deepseek-v3),
# section 3.3.2). A small number that is added to a large one loses its low bits; and the longer the sum, the larger it has
# grown. (Why 14, and how it cuts, is not documented. A later paper of theirs says 13 bits of mantissa: [ISCA
# 2025](../book/references.md#isca-2025), section 3.1. The two do not quite agree, and we do not settle it.)
#
# Their cure is called [promotion](../book/glossary.md#promotion). After every 128 products the partial sum leaves the tensor core, is multiplied with its
# tile's scale there, which it needs anyway, and is added to a 32-bit number.

# %% tags=["remove-input"]
show.drawing("promote",
             alt="Above, one long sum: 4,096 products run into one register of about 14 bits, which cuts low bits at each addition. Below, 32 short sums of 128 products each, every one multiplied by its scales and added to a 32-bit register.",
             caption="One long sum, and many short ones.")

# %% [markdown]
# `limited_gemm` is a model of such an accumulator: 32 products at a time are aligned to the largest number and cut to 14 bits.
# Random numbers between 0 and 1, where every sum grows, are the worst case; numbers of both signs are the usual one.

# %%
lengths = [2**i for i in range(7, 15)]


def worst(K, draw, promote_every):
    torch.manual_seed(K)
    a, b = (quantise(draw(12, K)).data.float() for _ in range(2))
    exact = a.double() @ b.double().T
    y = fp8.limited_gemm(a, b, promote_every=promote_every)
    typical = exact.pow(2).mean().sqrt()         # a sum may be near 0
    return 100 * ((y - exact).abs().max() / typical).item()


sums = {"all positive": [worst(K, torch.rand, None) for K in lengths],
        "both signs": [worst(K, torch.randn, None) for K in lengths],
        "promoted": [worst(K, torch.rand, 128) for K in lengths]}

# %% tags=["hide-input"]
show.show(show.lines({name: (lengths, errors) for name, errors in sums.items()}, concept=dict.fromkeys(sums, "fp8"),
                     x="products in a sum, K", y="largest error, % of a typical result", log_x=True, log_y=True,
                     title="A 14-bit sum goes wrong as it grows; promoted every 128, it does not"),
          alt="The error of sums of positive numbers rises steadily from 0.04 percent at 128 products to about 15 percent at 16,384; with both signs it stays some ten times smaller; promoted every 128 it stays near 0.02 percent.",
          caption="A model of the accumulator (14 bits, cut towards zero), not the hardware. 144 sums a point.")

# %% [markdown]
# At 4,096 products our model is wrong by 3.7 percent; with one bit more it would be 1.6. V3 measured nearly 2 on the chip,
# between the two. The shape is what matters: the error grows with $K$, and promotion stops that.
#
# What are the sums in *our* training? In a forward pass $K$ is 128 or 320, the width of what goes in. In the gradient of a
# weight it is the number of tokens, 2,048. Take a real one:

# %% tags=["nbval-ignore-output"]
layer = seen["layers.3.ffn.w_gate_up"]
along_tokens = {"block": TILE, "amax_floor": fp8.GRADIENT_FLOOR}
dy = quantise(layer["gradient"].T[:16], **along_tokens).dequantise()
h = quantise(layer["input"].T[:16], **along_tokens).dequantise()
exact = layer["gradient"].T[:16].double() @ layer["input"][:, :16].double()
in_fp32 = dy.double() @ h.double().T
for name, y, right in (
        ("eight bits, exact sum", in_fp32, exact),
        ("14-bit sum", fp8.limited_gemm(dy, h), in_fp32),
        ("promoted", fp8.limited_gemm(dy, h, promote_every=128), in_fp32)):
    print(f"{name}: {(y - right).norm() / right.norm():.3%}")

# %% [markdown]
# A short accumulator costs a tenth of a percent here, beside the few percent that eight bits have cost already. For V3, whose
# weight gradients are sums over far more tokens, that is another matter. **A second thing that we expect not to see at our
# size.**
#
# <!-- figure pending: study fp8-sums -->
#
# > **Exercise 10.5** (multiply under scales; medium, 15 minutes). Write `scaled_product(a, a_scale, b, b_scale, width)`. `a` is
# > `(m, k)` and `b` is `(n, k)`, codes as floats; `a_scale` is `(m, k / width)`, `b_scale` `(n, k / width)`. Multiply the codes
# > tile by tile, apply both scales to each tile's sum, and add: this is the loop in which promotion is free.

# %%
def scaled_product(a, a_scale, b, b_scale, width):
    ...


# %%
check.scaled_product(scaled_product)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The scale of tile `i` is one factor for each row of the result, `a_scale[:, i, None]`, and one for each column, `b_scale[:,
# i]`.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def scaled_product(a, a_scale, b, b_scale, width):
#     y = torch.zeros(len(a), len(b))
#     tiles = zip(a.split(width, 1), b.split(width, 1))
#     for i, (a_k, b_k) in enumerate(tiles):
#         y += (a_k @ b_k.T) * a_scale[:, i, None] * b_scale[:, i]
#     return y
# ```
#
# </details>
#
# ## The layer
#
# A linear layer multiplies three times: $y$ forward, and backward the gradients of its input and of its weight,
#
# $$\begin{aligned} y &= x\, W^\top \\ dx &= dy\, W \\ dW &= dy^\top x \end{aligned} \tag{10.3}$$
#
# All three run in FP8. A tile must lie along the axis that is *summed*, or its scale could not be taken out of the sum. In $y$
# that is the channels; in $dW$ it is the tokens. So $x$ is tiled twice, once for each, and $dy$ too. $W$'s square blocks serve
# both ways, which is why they are square. Here it is by hand:

# %%
def under_scales(x, rows, columns, floor=1e-4):
    """x through E4M3, one scale for each rows x columns."""
    grid = x.unflatten(0, (-1, rows)).unflatten(2, (-1, columns))
    amax = grid.abs().amax((1, 3), keepdim=True).clamp(min=floor)
    scale = amax / 448
    codes = (grid / scale).to(torch.float8_e4m3fn)
    return (codes.float() * scale).flatten(2).flatten(0, 1)


# %%
def layer_by_hand(x, w, dy):
    """y, dx and dW, each from operands of eight bits."""
    x8, w8 = under_scales(x, 1, 128), under_scales(w, 128, 128)
    dy8 = under_scales(dy, 1, 128, floor=2.0**-100)
    x8_t = under_scales(x8, 128, 1)        # from the tiles that were kept
    dy8_t = under_scales(dy, 128, 1, floor=2.0**-100)
    return x8 @ w8.T, dy8 @ w8, dy8_t.T @ x8_t


# %% [markdown]
# Now against the package, and against a product that is not ours: `torch._scaled_mm`, the call with which PyTorch multiplies
# eight-bit numbers on a GPU. It has a slow form for the CPU as well, so its *result* can be compared anywhere.

# %%
from minimodels.fp8 import ROUTES, convert
from minimodels.linear import Linear

torch.manual_seed(0)
layer = convert(Linear(384, 256))
x, dy = torch.randn(512, 384, requires_grad=True), torch.randn(512, 256)
layer(x).backward(dy)
hand = layer_by_hand(x.detach(), layer.weight.detach(), dy)
torchs = ROUTES["promoted"](quantise(x.detach()),
                            quantise(layer.weight.detach(), block=BLOCK))
for name, got, want in (("y", layer(x), hand[0]), ("dx", x.grad, hand[1]),
                        ("dW", layer.weight.grad, hand[2]),
                        ("y, torch._scaled_mm", torchs, hand[0])):
    torch.testing.assert_close(got, want, atol=1e-3, rtol=1e-4)
    print(f"{name}: equal to 3 decimals, up to {want.abs().max():.1f}")

# %% [markdown]
# ### What stays out
#
# These three products are most of the work, and V3 leaves everything else alone: the embedding, which is a lookup; the
# output head; the gates of the experts, where a near tie decides who works; norms; and softmax with the two products of
# attention itself. And the memory of training stays long: the [master weights](../book/glossary.md#master-weight), the copy that the optimizer moves, and the
# gradients that are added up are FP32, Adam's two moments BF16 (sections 3.3.1 and 3.3.3).

# %% tags=["remove-input"]
show.drawing("eightmap", wide=True,
             alt="From left to right: the embedding; then, in each of 61 layers, norm, projections in 8 bits, attention, its output projection in 8 bits, norm, gate, experts in 8 bits; then norm and the head. All others have 16 or 32 bits.",
             caption="What runs in eight bits in DeepSeek-V3 (ochre), and what does not. After section 3.3.1, which says \"BF16 or FP32\" for the rest.")

# %% [markdown]
# In our model, with experts and without:

# %%
from minimodels.config import ModelConfig
from minimodels.fp8 import converted
from minimodels.model import Transformer

for name in ("yardstick", "cpu"):
    model = convert(Transformer(ModelConfig.preset(name)))
    inside = converted(model)
    weights = sum(model.get_submodule(n).weight.numel() for n in inside)
    share = weights / sum(p.numel() for p in model.parameters())
    kinds = sorted({".".join(n.split(".")[-2:]) for n in inside})
    print(f"{name}: {len(inside)} modules, {share:.0%} of all weights")
    print("   ", ", ".join(kinds).replace(", ffn", ",\n    ffn"))

# %% [markdown]
# In the yardstick three fifths of the weights take part: 4,096 rows of embedding are a large share of so small a model.
#
# ## Will it learn?
#
# The results of our layers are 3.7 percent off; behind four layers, forward and backward, it will be more. How far off is a
# gradient, and is that much? Ask the trained yardstick for the gradients of its linear weights, on one page of text: in 32
# bits, in 16, in 8. And then, in 32 bits, on the *next* page.
#
# > **Before you read on.** A gradient in FP8 differs from the exact one by 15 percent of its length, in bf16 by one percent. By
# > how much does the exact gradient of the next page differ?
# >
# > <details><summary>What we found</summary>
# >
# > **142 percent.** Two pages agree on little more than the direction downhill. Every step of training is an estimate from one
# > batch, and beside the luck of that batch the error of eight bits is small.
# >
# > </details>

# %% tags=["nbval-ignore-output"]
from minimodels.fp8 import Recipe
from minimodels.mtp import losses as losses_by_depth


def gradient_of(model, tokens, dtype=torch.float32):
    """The gradients of all linear weights, one behind the other."""
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        loss = losses_by_depth(model(tokens), tokens)[0]
    loss.backward()
    return torch.cat([model.get_submodule(name).weight.grad.flatten()
                      for name in seen])


# %% tags=["nbval-ignore-output"]
next_page = torch.tensor(page[2048:4096]).view(8, 256)
coarse = Recipe(activation=WHOLE, weight=WHOLE, gradient=WHOLE)
exact = gradient_of(run.model(), tokens)
other = {"bf16": gradient_of(run.model(), tokens, torch.bfloat16),
         "FP8, V3's recipe": gradient_of(convert(run.model()), tokens),
         "FP8, one scale": gradient_of(convert(run.model(), coarse),
                                       tokens),
         "the next page": gradient_of(run.model(), next_page)}

# %% tags=["hide-input", "nbval-ignore-output"]
show.show(show.bars({name: (100 * (g - exact).norm() / exact.norm()).item() for name, g in other.items()},
                    unit="distance from the exact gradient, % of its length", concept={name: "fp8" if "FP8" in name else "dense" for name in other},
                    title="Eight bits move a gradient by a tenth of what another page does"),
          alt="Four bars: bf16 1.2 percent, FP8 by V3's recipe 14.6, FP8 with one scale 14.8, the next page 142.",
          caption="The trained yardstick, 2,048 tokens of a module of the standard library, and the 2,048 after them.")

# %% [markdown]
# This is why one digit can be enough. The error has both signs, and most of it is drawn anew at each step, so that it pushes
# nowhere; and training already lives with a noise ten times as large. It also says when eight bits would *not* be enough: where
# the noise of the batch is small (V3's batches grow to 63 million tokens, section 4.2), or where an error always goes one way.
# Keep the second case for the bugs.
#
# ## Train with it
#
# `TrainConfig(fp8=True)` converts the model; the master weights stay. On a CPU the eight-bit products are *emulated*: codes are
# really made and really kept, and then turned back into 32-bit numbers and multiplied. Rounding, scales and memory are real;
# speed is not. First a taste, 30 steps each.

# %% tags=["nbval-ignore-output"]
from minimodels.data import Batches, prepare
from minimodels.evaluate import evaluate
from minimodels.studies.fp8 import LIVE, LIVE_BYTES, YARDSTICK
from minimodels.train import train

data = prepare("stdlib", vocab_size=4096, max_bytes=LIVE_BYTES)
batches = Batches(data.train, batch_size=8, seq_len=256, seed=0)
models, losses = {}, {}
for name in ("bf16", "FP8"):
    torch.manual_seed(0)
    models[name] = Transformer(YARDSTICK)
    recipe = replace(LIVE, fp8=name == "FP8")
    losses[name] = [r.loss for r in train(models[name], batches, recipe)]

# %% tags=["hide-input", "nbval-ignore-output"]
show.show(show.lines({name: (list(range(1, 31)), each) for name, each in losses.items()}, concept={"bf16": "dense", "FP8": "fp8"},
                     x="step", y="loss, nats per token", title="For thirty steps FP8 and bf16 are hard to tell apart"),
          alt="Two falling curves that lie on top of each other.", caption="This run, on this machine.")
for name, model in models.items():
    score = evaluate(model, data.valid, n_bytes=data.valid_bytes, seq_len=256).bits_per_byte
    print(lab.band("fp8", "FP8 after 30 steps", score) if name == "FP8" else f"{name}: {score:.4f} bits per byte")

# %% [markdown]
# And what does the emulation cost?

# %% tags=["nbval-ignore-output"]
from minimodels.timing import interleaved


def step_of(model):
    def step():
        with torch.autocast("cpu", torch.bfloat16):
            loss = losses_by_depth(model(batches.at(0)), batches.at(0))[0]
        loss.backward()
    return step


ms = interleaved({n: step_of(m) for n, m in models.items()}, rounds=3)
ratios = [b / a for a, b in zip(ms["bf16"], ms["FP8"])]
print(f"forward and backward in FP8 take {statistics.median(ratios):.1f} "
      f"times as long as in bf16 ({min(ratios):.1f} to {max(ratios):.1f})")

# %% [markdown]
# Thirty steps decide nothing. The recorded runs have 600 each, on the whole standard library: five seeds for V3's recipe, with
# bf16 beside it.
#
# <!-- figure pending: study fp8-quality -->
#
# DeepSeek's own two comparisons have models of 16 billion parameters and 1.33 trillion tokens, and of about 230 billion and 0.9
# trillion. FP8's loss stayed within 0.25 percent of BF16's in both (section 3.3 and appendix B.1). And one thing failed: with
# the gradients in blocks of 128 × 128, like the weights, the small one *diverged* after about 300 billion tokens (appendix
# B.2). Tokens differ too much in the size of their gradients to share a scale.
#
# <!-- figure pending: study fp8-longer -->
# <!-- figure pending: study fp8-gate -->
# <!-- figure pending: study fp8-gradients -->
#
# ## The memory ledger
#
# "75 percent less memory." Of what? Training holds five numbers for each weight, and what the forward pass keeps for the
# backward pass. In bytes a parameter, by V3's account (sections 3.3.1 and 3.3.3), beside the usual mixed precision with BF16:

# %% tags=["remove-input"]
show.drawing("thirteen",
             alt="Two bars to scale. BF16, mixed: weight 2 bytes, master weight 4, gradient 4, first moment 4, second moment 4, together 18. DeepSeek-V3: 1, 4, 4, 2 and 2, together 13.",
             caption="Bytes that training keeps for one weight, to scale. What FP8 itself saves is the first byte.")

# %% [markdown]
# > **Exercise 10.6** (what is saved; easy, 5 minutes). Write `share_saved(before, after)`: by how much all parts together
# > shrink. Both are five bytes a parameter. Then call it with the numbers of the drawing.

# %%
def share_saved(before, after):
    ...


# %%
check.share_saved(share_saved)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def share_saved(before, after):
#     return 1 - sum(after) / sum(before)
#
# share_saved((2, 4, 4, 4, 4), (1, 4, 4, 2, 2))
# ```
#
# 28 percent; and of the five bytes that are saved, FP8 saves *one*. Four come from keeping the moments in BF16, which has
# nothing to do with eight bits.
#
# </details>
#
# That is arithmetic. What does our own model hold? Weights, gradients and moments do not change at all: `convert` leaves them
# FP32, and makes the codes anew in each product. What changes is what is kept for the backward pass. PyTorch can be asked for
# each tensor that it keeps:

# %%
from minimodels.studies.fp8 import kept_for_backward

MB = 2**20
kept = {}
for name, dtype, is_fp8 in (("fp32", torch.float32, False),
                            ("fp32 + FP8", torch.float32, True),
                            ("bf16", torch.bfloat16, False),
                            ("bf16 + FP8", torch.bfloat16, True)):
    torch.manual_seed(0)
    model = Transformer(YARDSTICK)
    model = convert(model) if is_fp8 else model
    kept[name] = kept_for_backward(model, torch.zeros(8, 256).long(), dtype)
show.table([{"MB kept by": kind}
            | {name: f"{kept[name][kind] / MB:.1f}" for name in kept}
            for kind in kept["fp32"]])

# %% tags=["hide-input"]
state = YARDSTICK.n_params * 4
moments = sum(2 * p.nbytes if p.dim() < 2 or p is model.embed.weight else p.nbytes for p in model.parameters())
totals = {name: (2 * state + moments + sum(by_kind.values())) / MB for name, by_kind in kept.items()}
show.show(show.bars(totals, unit="MB: weights, gradients, moments and what is kept",
                    concept={name: "fp8" if "FP8" in name else "dense" for name in totals},
                    title=f"FP8 saves {1 - totals['fp32 + FP8'] / totals['fp32']:.0%} of our training memory, not 75"),
          alt="Four bars: fp32 102 MB, fp32 with FP8 92, bf16 107, bf16 with FP8 99.",
          caption=f"Measured here, 8 windows of 256 tokens; weights, gradients and moments are {(2 * state + moments) / MB:.1f} MB in each.")

# %% [markdown]
# What the linear layers keep shrinks from 18.0 to 7.8 MB. Not to a quarter, and that is instructive: `w_q`, `w_k` and `w_v`
# read the *same* input. In FP32 they share one tensor; in FP8 each of ours keeps tiles of its own. And most of what is kept was
# never theirs: SwiGLU, norms and attention hold what they held. V3 goes after those as well. It stores SwiGLU's input in FP8
# and recomputes its output, and recomputes all norms (sections 3.2.3 and 3.3.3). In the sum we save a tenth.
#
# (And bf16 keeps *more* here than fp32. Its attention takes another path on our CPU, which keeps the scores. A format's name is
# no measurement.)
#
# ## On a GPU
#
# Which hardware can do more than emulate? PyTorch offers an eight-bit product from compute capability 8.9 on (GeForce 40, L4),
# and one that takes V3's scales by itself on Hopper alone. Our package asks, and before it believes the answer it compares the
# GPU's product with the emulation.

# %%
chips = {"no GPU": None, "T4": (7, 5), "A100": (8, 0), "RTX 4090": (8, 9),
         "H100, H800": (9, 0), "B200": (10, 0)}
show.table([{"chip": name,
             "routes offered": ", ".join(fp8.candidates(c)) or "emulation"}
            for name, c in chips.items()])

# %% tags=["nbval-ignore-output"]
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
route = fp8.backend(device)
why = lab.gpu() or "torch finds no GPU"
print(f"{device}: products are {route}, for this machine: {why}")
x = torch.randn(2048, 512, device=device)
a, b = quantise(x), quantise(x.flip(0))
routes = {"emulated": "emulated", "torch._scaled_mm": "promoted"}
ms = interleaved({name: lambda r=r: ROUTES[r](a, b)
                  for name, r in routes.items()}, rounds=3)
ratio = [s / e for e, s in zip(ms["emulated"], ms["torch._scaled_mm"])]
print(f"torch._scaled_mm takes {statistics.median(ratio):.1f} times "
      "as long as the emulation here")

# %% [markdown]
# On a CPU the real call is no faster, and nothing says that it should be: there are no eight-bit multipliers behind it. **We
# have run no FP8 product on a GPU.** A machine without such units shows you rounding, scales, memory and the loss. It cannot
# show the speed, which is what all this is for, nor how the real accumulator cuts.
#
# ## Bugs that still train
#
# An eight-bit layer has more places for a mistake than any other in this book, and noise is expected of it. So a small loss of
# score is taken for the price of eight bits. Here are faults that you can plant in all 24 layers (`minimodels.bugs.fp8`); think
# about each for a moment: would a loss curve show it?
#
# <!-- figure pending: study fp8-bugs -->
#
# > **Bugs that still train.**
# > - **Gradients without a scale.** On our page, 99.97 percent of them lie so far below E4M3's smallest number that they become
# >   zero. The embedding still learns, and so the loss falls.
# > - **An activation's floor.** Code against division by zero, `max(amax, 1e-4)`, is copied to gradients. On our page more than
# >   half of all tiles have a smaller largest number. They lose digits, then everything.
# > - **The last step's scale.** It saves a pass over the numbers, and is right as long as nothing grows. After a jump, what
# >   does not fit is cut.
# > - **The first tile's scale.** Used for a whole row, it is exact where a row has one tile. Most of our layers have 128
# >   inputs.
# > - **Weights kept in E4M3, or in bf16.** Without a master copy a step smaller than half a gap is rounded away, every time.
#
# Three tests find most of these, and you write them. Every check hands your test layers, some right and some spoilt; `True`
# means that the layer is right.
#
# > **Exercise 10.7** (symmetry; medium, 10 minutes). Scales make size irrelevant: 1,024 times the input must give 1,024 times
# > the output. Write `size_does_not_matter(layer, x)`. In which order must you call it, so that a scale from the call before is
# > too small?

# %%
def size_does_not_matter(layer, x):
    ...


# %%
check.size_does_not_matter(size_does_not_matter)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def size_does_not_matter(layer, x):
#     small, large = layer(x), layer(1024 * x)
#     return torch.allclose(large / 1024, small, atol=1e-4)
# ```
#
# The factor is a power of two, so that a right layer gives exactly the same digits.
#
# </details>
#
# > **Exercise 10.8** (the same, backward; medium, 10 minutes). Write `gradients_keep_their_digits(layer, x, dy)`: a gradient
# > $2^{30}$ times smaller must give a weight gradient $2^{30}$ times smaller. `layer(x).backward(dy)` adds to
# > `layer.weight.grad`; set that to `None` first.

# %%
def gradients_keep_their_digits(layer, x, dy):
    ...


# %%
check.gradients_keep_their_digits(gradients_keep_their_digits)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def gradients_keep_their_digits(layer, x, dy):
#     found = []
#     for size in (1.0, 2.0**-30):
#         layer.weight.grad = None
#         layer(x).backward(size * dy)
#         found.append(layer.weight.grad / size)
#     return torch.allclose(*found, atol=1e-4)
# ```
#
# </details>
#
# > **Exercise 10.9** (small steps; easy, 10 minutes). A hundred steps of 0.00001 must move the weights by 0.001 in the mean.
# > Write `small_steps_add_up(layer, x)`: add to `layer.weight` under `torch.no_grad()`, and call the layer after each step, as
# > training would.

# %%
def small_steps_add_up(layer, x):
    ...


# %%
check.small_steps_add_up(small_steps_add_up)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def small_steps_add_up(layer, x):
#     before = layer.weight.detach().clone()
#     for _ in range(100):
#         with torch.no_grad():
#             layer.weight += 1e-5
#         layer(x)
#     moved = (layer.weight - before).mean().item()
#     return abs(moved - 1e-3) < 1e-4
# ```
#
# </details>
#
# ## Does it pay here?
#
# > **Does it pay here?** **No: nothing on our machine multiplies eight bits faster.** What FP8 is for, we cannot have. What it
# > costs and saves besides, we can measure.
# >
# > - **Per step:** emulated, forward and backward take longer than in bf16, by the factor printed above.
# > - **In memory:** a tenth of what training holds, because little of it belongs to the linear layers' inputs.
# > - **In scales:** with the tensors of our trained model, one scale for a tensor loses 2.7 percent and tiles 2.3 to 2.6.
# >   Nothing in them needs tiles.
# > - **At DeepSeek's scale:** the products run up to twice as fast, activations take half the room, and the
# >   way to the experts and back carries a quarter less (exercise 10.10). That the loss stays within 0.25 percent is DeepSeek's measurement, on models more than 10,000 times as
# >   large.
#
# ## The claims again

# %% tags=["remove-input"]
ledger.show("C38", "C39", "C40", "C41", "C42", "C43", "C44", "C45", form="rows")

# %% [markdown]
# ## What production does
#
# - **Kernels with scales inside.** [DeepGEMM](../book/references.md#deepgemm), DeepSeek's published library, multiplies under
#   V3's tiles and blocks with the promotion described here. The released inference code has the same in a page of Triton,
#   `kernel.py` ([DeepSeek-V3 code](../book/references.md#deepseek-v3-code)).
# - **Powers of two.** V3 rounds some scales to powers of two, and its successors, from V3.1 on, all of them: such a scale
#   shifts the exponent and adds no error of its own. `Recipe(power_of_two=True)` does it in our package.
# - **Two formats.** Earlier FP8 training gave gradients E5M2, with more range and one bit less of mantissa ([FP8
#   formats](../book/references.md#fp8-formats), [FP8-LM](../book/references.md#fp8-lm)). V3's fine scales make the range
#   superfluous, so it takes E4M3 for all.
# - **One exception more.** The input of the layer after attention is kept in a format of twelve bits, E5M6, made for the
#   purpose (section 3.3.3).
#
# > **Takeaways**
# > 1. An E4M3 number has 1.2 decimal digits, and there are 253 of them. The press's "8 decimal places" counted bits.
# > 2. A float's error is relative. One scale for a tensor fails only when its numbers differ by more than 28,672 to one; INT8
# >    fails a thousand times sooner, and is better before.
# > 3. Errors of one-digit numbers have both signs. A sum that is kept in 32 bits makes them no worse, and beside the luck of
# >    the batch they are small.
# > 4. Master weights, gradients, moments, gates, norms and attention's scores stay at 16 or 32 bits. FP8 training is mixed
# >    precision.
# > 5. Of the 18 bytes a parameter of BF16 training V3 keeps 13, and one byte of the five saved is FP8's. In our training FP8 saves a tenth of the
# >    memory.
#
# ## Longer problems
#
# > **Exercise 10.10** (on the wire; easy, 20 minutes). To send a token to an expert on another node, V3 sends its 7,168 numbers
# > in FP8, with an FP32 scale for each 128; the expert's answer comes back in BF16. How many bytes is that, and how much less
# > than with BF16 both ways? How much less would it be if scales were one byte?
#
# <details><summary>Solution</summary>
#
# ```python
# there = 7168 + 7168 // 128 * 4
# back = 7168 * 2
# print(there, back, 1 - (there + back) / (2 * back))
# print(1 - (7168 + 7168 // 128 + back) / (2 * back))
# ```
#
# 7,392 bytes there and 14,336 back: 24.2 percent less. With scales of one byte 24.8. "Half the bandwidth" holds for one of the
# two directions.
#
# </details>
#
# > **Exercise 10.11** (round by chance; medium, 60 minutes). Weights kept in E4M3 stop moving, because small steps are rounded
# > away. *Stochastic rounding* goes up or down by chance, to the nearer neighbour with the larger probability, so that the mean
# > is exact. Write `by_chance(x)` for E4M3 numbers, show that it is right in the mean, and fit a linear model of 20 weights by
# > gradient descent, with the weights kept in FP32, in E4M3 rounded to nearest, and in E4M3 rounded by chance.
#
# <details><summary>Hint</summary>
#
# The bytes of E4M3 numbers of one sign are in order, so the other neighbour of a number is the next byte, above or below.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def by_chance(x):
#     codes = x.to(torch.float8_e4m3fn)
#     near, byte = codes.float(), codes.view(torch.uint8).int()
#     away = torch.where((x - near) * near >= 0, 1, -1)   # outward or inward
#     far = (byte + away).to(torch.uint8).view(torch.float8_e4m3fn).float()
#     share = ((x - near) / (far - near)).nan_to_num()
#     return torch.where(torch.rand_like(x) < share, far, near)
#
# print(by_chance(torch.full((100_000,), 0.3)).mean())
#
# def fit(keep):
#     torch.manual_seed(0)
#     a, w = torch.randn(4000, 20), torch.randn(20)
#     y, guess = a @ w, torch.zeros(20)
#     for step in range(3000):
#         rows = torch.randint(0, 4000, (32,))
#         gradient = a[rows].T @ (a[rows] @ guess - y[rows]) / 32
#         guess = keep(guess - 0.01 * gradient)
#     return ((guess - w).norm() / w.norm()).item()
#
# print(fit(lambda w: w), fit(lambda w: w.to(torch.float8_e4m3fn).float()),
#       fit(by_chance))
# ```
#
# The mean of 0.3 is 0.3000. The fit ends 0.000, 0.558 and 0.035 away from the true weights: rounded to nearest it stops half
# way, rounded by chance it comes within the gap of the format.
#
# </details>
#
# > **Exercise 10.12** (spread the outlier; hard, 90 minutes). Tiles confine an outlier. There is another way: turn all rows by
# > an orthogonal matrix $Q$, which changes no product, $(xQ)(WQ)^\top = x W^\top$. An outlier in one place becomes a small
# > addition in all places. Build $Q$ from a Hadamard matrix of 512 with random signs. With one scale for a tensor and the
# > outlier of this chapter, at which size do the other rows now suffer? What happens to the outlier's own row?
#
# <details><summary>Hint</summary>
#
# A Hadamard matrix of twice the size is `torch.kron(torch.tensor([[1., 1.], [1., -1.]]), smaller)`. Divided by the root of its
# size it is orthogonal.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def hadamard(n):
#     two = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
#     return torch.ones(1, 1) if n == 1 else torch.kron(two, hadamard(n // 2))
#
# def one_scale(x):
#     return quantise(x, block=WHOLE).dequantise()
#
# torch.manual_seed(0)
# x, w = torch.randn(256, 512), torch.randn(128, 512) / 512**0.5
# signs = torch.randint(0, 2, (512,)) * 2.0 - 1
# Q = signs[:, None] * hadamard(512) / 512**0.5
# others = torch.arange(256) != 97
# for size in (1, 1e3, 1e5, 1e6, 1e7):
#     x[97, 211] = size
#     exact = x @ w.T
#     for y in (one_scale(x) @ one_scale(w).T, one_scale(x @ Q) @ one_scale(w @ Q).T):
#         wrong = ((y - exact)[others].norm() / exact[others].norm()).item()
#         print(f"{size:g}: {wrong:.2%}", end="   ")
# ```
#
# The others' error at a million falls from 95 to 6 percent, and at ten million it is 55: the turn wins about a factor of
# $\sqrt{512}$ in size. The outlier's own row loses a little at small sizes (3.0 for 2.4 percent at 1,000), because its one
# large number had an exact code before.
#
# </details>
#
# Onward: our emulation takes longer than what it replaces, because it goes over memory again and again, once for the largest
# number, once to divide, once to round. Where such passes go when a product is done properly is a matter of kernels.
