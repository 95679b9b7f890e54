# ---
# jupyter:
#   book:
#     number: 10
#     reading: 80 min
#     cpu: 40 s, 1.1 GB
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
# > **You will be able to**
# > - read a floating-point number bit by bit, and round to eight bits by hand exactly as PyTorch's cast does;
# > - say how large an outlier must be before a single scale fails, and whether your model has one;
# > - follow the three products of a layer in FP8, and name what must *not* be in FP8;
# > - split the error of a gradient into what each page draws anew and what stays;
# > - write three tests for FP8 bugs that a falling loss hides;
# > - take the press's "75 percent less memory" apart, in bytes that you have measured.
#
# ## What you need, in two paragraphs
#
# [Chapter 5](05_train.ipynb) trained the yardstick, a model of 1.28 million weights, in 32-bit numbers and in **bf16**, which
# has 16 bits, and found no difference in the score. A floating-point number spends its bits on a sign, on an *exponent*, which
# says how large it is, and on a [mantissa](../book/glossary.md#mantissa), which says how exactly. Training keeps several numbers
# for each weight: itself, its gradient, and what the optimizer remembers.
#
# Nearly all of a model's work is matrix multiplication, $y = x W^\top$, a **GEMM** in the jargon ([general matrix
# multiplication](../book/glossary.md#gemm)). Each number of $y$ is a sum of many products: the factors will have eight bits, the sum
# must not. ("The three products" of a layer, further down, are matrix products.)

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
# Why would anyone train a model on that? Because a Hopper GPU multiplies eight-bit numbers twice as fast as sixteen-bit ones, up
# to 1,979 trillion operations a second and not 989 ([data sheets](../book/references.md#gpu-data-sheets)), and each is half as
# much to store and to load. V3's training is $3.7 \cdot 10^{24}$ operations, 85 percent of them such products ([chapter
# 1](01_cost.ipynb) did the sum).
#
# ## What the press said

# %% tags=["remove-input"]
ledger.show("C38", "C39", "C40", "C41", "C42", "C43", "C44", "C45", form="told")

# %% [markdown]
# > **Before you read on.** "Eight decimal places are enough." How many significant *bits* would a number of eight decimal digits
# > need? And how many decimal digits has one of V3's eight-bit numbers?
# >
# > <details><summary>What we found</summary>
# >
# > **27 bits, and 1.2 digits.** A digit is $\log_2 10 = 3.3$ bits; even a 32-bit number has only 24 significant ones. V3's have
# > four, one of them implied. "8" counted bits.
# >
# > </details>
#
# So how can a model of 671 billion weights learn from numbers with one digit?
#
# ## One number, bit by bit
#
# E4M3 has one bit of sign $s$, four of exponent $e$, three of mantissa $m$, each read as a whole number. The exponent is stored
# with 7 added, its *bias*, and in front of the mantissa stands a 1 that is not stored:
#
# $$ (-1)^s \cdot 2^{\,e - 7} \cdot \left(1 + \tfrac{m}{8}\right) \tag{10.1}$$

# %% tags=["remove-input"]
show.drawing("eight",
             alt="The byte 0 0011 101 taken apart: sign 0 means plus, exponent 3 less the bias 7 means 2 to the power minus 4, mantissa 101 means 1 and 5/8; the product is 0.1015625. Below, E5M2 with five bits of exponent and two of mantissa.",
             caption="Eight bits, read as E4M3; below, how E5M2 shares them out.")

# %% [markdown]
# With $e = 0$ the hidden 1 is missing, and the power stays at $-6$, as for $e = 1$. These are the [subnormal
# numbers](../book/glossary.md#subnormal-number); they fill the gap down to zero in even steps of $2^{-9}$. And all seven bits
# after the sign set means NaN, no number. Click on the bits: what is the largest number?
# Then type 0.1 and change the format: how far off is each?

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
# this number.
#
# In decimal digits, $p$ significant bits are $p \log_{10} 2$:

# %%
rows = []
for name, f in FORMATS.items():
    p, form = f.mantissa_bits + 1, ",.0f" if f.max < 1e6 else ".1e"
    rows.append({"format": name, "bits": f.bits, "significant": p,
                 "decimal digits": round(p * math.log10(2), 1),
                 "largest": format(f.max, form)})
show.table(rows)

# %% [markdown]
# Not even FP32 has eight.
#
# ### Round to it
#
# A number that falls between two is rounded to the nearer one. Exactly in the middle, the one with the *even* mantissa wins, so
# that ties do not all go one way. Take 0.3. The power of two below it is $2^{-2}$, so neighbours lie $2^{-2}/8 = 0.03125$
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
# neighbours, the exact middle, the last 32-bit number before it and the first one after; all with both signs. Rounding keeps
# order, so what is right there is right in between. (Beyond 448 older versions of torch give NaN. So we clamp first.)

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
# A gradient of a millionth is below E4M3's smallest number, and becomes 0. So before rounding, numbers are brought into the
# range: divided by a [scale](../book/glossary.md#scale), rounded, and the scale is multiplied back after the product. It is
# chosen so that the largest number just fits:
#
# $$ \text{scale} = \frac{\max |x|}{448} \tag{10.2}$$
#
# One scale for a whole tensor is the obvious thing. What is wrong with it? Usually you will read: outliers. One huge number
# makes the scale huge, and all others are crushed.
#
# > **Before you read on.** 131,072 normal numbers with mean 0 and a standard deviation, here called their spread, of 1; and a
# > single outlier. One E4M3 scale for all. How large must the outlier be before the others suffer: 10, 100, 1,000, or more?
# >
# > <details><summary>What we found</summary>
# >
# > **More than 10,000.** At 10,000 the error of the others has grown from 2.65 to 2.72 percent. At 100,000 it is 13, at a
# > million 95. INT8 is 23 percent off at 100, and at 1,000 it has lost everything.
# >
# > </details>
#
# `quantise` is the package's. It takes the area, rows by columns, that shares a scale: the whole tensor, or the smaller blocks and
# tiles of the next section. The error of a tensor is the length (the root of the summed squares) of what is wrong, over the
# length of what is right.

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
fig = show.lines({name: (sizes, errors) for name, errors in sweep.items()},
                 concept={name: "dense" if name == "INT8" else "fp8" for name in ways},
                 x="size of the outlier, in spreads of the others", y="error of the others, %", log_x=True, log_y=True,
                 title="One scale for all E4M3 numbers survives an outlier of 10,000")
fig.update_layout(xaxis={"tickvals": [1, 1e2, 1e4, 1e6], "ticktext": ["1", "100", "10,000", "1 million"]}, yaxis_dtick=1)
show.show(fig,
          alt="INT8 starts lowest at 1 percent, crosses E4M3 near 12 and reaches 100 percent at a thousand. E4M3 with a scale for the tensor stays at 2.7 percent until 10,000, then rises to 95 percent at a million; with a scale for a block it ends at 36 percent, for a tile at 4.",
          caption="Computed here: 131,072 normal numbers, one of them replaced by the outlier. A name says who shares a scale; INT8 has one for the tensor.")

# %% [markdown]
# Look at the left end first. With well-behaved numbers INT8 is *better*, 1.0 against 2.7 percent: it spends all bits on
# exactness. E4M3 spends four on range, its 28,672 to one, and this is what they buy: three more powers of ten. The crossing
# lies near 12.
#
# > **Exercise 10.3** (where numbers vanish; medium, 5 minutes). Write `lost_below(amax)`: the largest size that is still rounded to
# > zero, if one scale brings `amax`, the largest number, to 448.

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
# 128 ([DeepSeek-V3](../book/references.md#deepseek-v3), section 3.3.2). An outlier still ruins what stands beside it. But it
# stands beside less. A scale takes 4 bytes, for a tile's 128: 3 percent.

# %% tags=["remove-input"]
show.drawing("tiles",
             alt="Four copies of one matrix with the same outlier. With one scale for the tensor all of it suffers; with a scale a row, that row; with blocks of 128 by 128, one block; with tiles of 1 by 128, a short piece of one row.",
             caption="What one outlier (dark) takes down with it (tinted), by who shares a scale: 256 × 256 numbers.")

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
# The sweep is a toy. So let the yardstick that chapter 5 trained for 6,000 steps read a page of Python, forward and backward,
# and look at what its linear layers multiply: weights, inputs, and the gradients of their outputs. How large is each tensor's
# largest number beside its median? And what does one scale lose that V3's tiles and blocks keep?

# %% tags=["nbval-ignore-output"]
import argparse
import inspect
from minimodels.checkpoint import Run
from minimodels.studies.fp8 import operands

run = Run.open(lab.data_file("checkpoints/yardstick"))
page = run.tokenizer.encode(inspect.getsource(argparse)).ids
tokens = torch.tensor(page[:2048]).view(8, 256)
seen = operands(run.model(), tokens)


def error_of(x, block, floor=fp8.GRADIENT_FLOOR):  # to avoid 0/0
    q = quantise(x, block=block, amax_floor=floor)
    return 100 * ((q.dequantise() - x).norm() / x.norm()).item()


# %% tags=["nbval-ignore-output"]
rows = []
areas = {"weight": BLOCK, "input": TILE, "gradient": TILE}
for kind, area in areas.items():
    tensors = [layer[kind] for layer in seen.values()]
    ratio = [(t.abs().max() / t.abs().median()).item() for t in tensors]
    mean = {block: statistics.mean(error_of(t, block) for t in tensors)
            for block in (WHOLE, area)}
    rows.append({"tensor": kind,
                 "largest / median": f"{statistics.median(ratio):,.0f}",
                 "in the worst layer": f"{max(ratio):,.0f}",
                 "error, one scale": f"{mean[WHOLE]:.2f} %",
                 "error, V3's scales": f"{mean[area]:.2f} %"})
show.table(rows, caption="24 linear layers of the trained yardstick.")

# %% [markdown]
# No ratio comes near the bend of the sweep, at 10,000 spreads, which are 15,000 medians. The worst are gradients, with 3,000 in one
# layer. And in error there is hardly a difference: 2.7 percent under one scale, 2.3 to 2.7 under V3's. It is the error of a
# mantissa of three bits. Tiles save only what lands exactly on 448, each one's largest number. V3's authors name outliers among
# activations as a reason for fine scales (section 3.3.2); our model has none of that size. **So at our size we expect one scale
# for a tensor to show no price beside V3's recipe**; [runs](#Train-with-it) will tell.
#
# ## The sums
#
# Each operand is off by 2.6 percent. Independent errors add as squares, so a product is off by $\sqrt 2 \cdot 2.6 = 3.7$
# percent, up or down. In a sum of many products of both signs these errors cancel in part; so do the products. Both grow like
# the root of the length, and the result stays 3.7 percent off, whether it is a sum of a hundred or of a million. It gets no
# better, but it gets no worse: *if the sum itself is kept exactly*. Is it?
#
# On a Hopper GPU it is not. Its tensor cores keep only about 14 bits of an FP8 product's running sum, V3's authors found, and
# sums of 4,096 products were wrong by up to 2 percent ([DeepSeek-V3](../book/references.md#deepseek-v3), section 3.3.2). A small
# number that is added to a large one loses its low bits; and the longer the sum, the larger it has grown.
#
# Their cure is called [promotion](../book/glossary.md#promotion). After every 128 products the partial sum leaves the tensor
# core, is multiplied with its tile's scale, which it needs anyway, and is added to a 32-bit number.

# %% tags=["remove-input"]
show.drawing("promote",
             alt="Above, one long sum: 4,096 products run into one register of about 14 bits, which cuts low bits at each addition. Below, 32 short sums of 128 products each, every one multiplied by its scales and added to a 32-bit register.",
             caption="One long sum, and many short ones.")

# %% [markdown]
# `limited_gemm` is a model of such an accumulator. 32 products and the running sum are written with the exponent of the largest
# of them, and what then lies more than 14 binary places behind its leading 1 is cut. ([ISCA
# 2025](../book/references.md#isca-2025), section 3.1, describes so the alignment of the 32 products, with 13 places. That the
# running sum is cut along with them is our guess; if it were kept exactly, the error would nearly vanish.) Positive numbers, whose
# sums only grow, are the worst case, both signs the usual one.

# %%
lengths = [2**i for i in range(7, 15)]


def worst(K, draw, promote_every=None, places=14):
    torch.manual_seed(K)
    a, b = (quantise(draw(12, K)).data.float() for _ in range(2))
    exact = a.double() @ b.double().T
    y = fp8.limited_gemm(a, b, accumulate_bits=places,
                         promote_every=promote_every)
    typical = exact.pow(2).mean().sqrt()         # a sum may be near 0
    return 100 * ((y - exact).abs().max() / typical).item()


# %%
sums = {"all positive": [worst(K, torch.rand) for K in lengths],
        "both signs": [worst(K, torch.randn) for K in lengths],
        "promoted": [worst(K, torch.rand, 128) for K in lengths]}

# %% tags=["hide-input"]
other_places = {places: worst(4096, torch.rand, places=places) for places in (13, 14, 15)}
fig = show.lines({name: (lengths, errors) for name, errors in sums.items()}, concept=dict.fromkeys(sums, "fp8"),
                 x="products in a sum, K", y="largest error, % of a typical result", log_x=True, log_y=True,
                 title="A sum that is cut goes wrong as it grows; promoted every 128, it does not")
fig.update_layout(xaxis={"tickvals": lengths[1::2], "ticktext": [f"{K:,}" for K in lengths[1::2]]}, yaxis_dtick=1)
show.show(fig,
          alt="The error of sums of positive numbers rises from 0.03 percent at 128 products to about 15 percent at 16,384. With both signs it begins the same, rises more slowly and ends at 0.6. Promoted every 128, the sums of positive numbers fall from 0.03 to 0.02 percent.",
          caption="A model of the accumulator (14 places, cut towards zero), not the hardware; 144 sums a point. Promoted are the positive ones. At 4,096 "
                  "products these are wrong by " + ", ".join(f"{wrong:.1f} % with {places} places" for places, wrong in other_places.items()) + ".")

# %% [markdown]
# V3 measured nearly 2 percent on the chip at 4,096; the caption has our model's. So the model is not the chip. Its shape is what
# matters: the error grows with $K$, and promotion stops that.
#
# And *our* sums? In a forward pass $K$ is 128 or 320, the width of what goes in. In the gradient of a weight it is the number of
# tokens, 2,048. Take a real one, 256 numbers of one layer's weight gradient:

# %% tags=["nbval-ignore-output"]
layer = seen["layers.3.ffn.w_gate_up"]
along_tokens = {"block": TILE, "amax_floor": fp8.GRADIENT_FLOOR}
dy = quantise(layer["gradient"].T[:16], **along_tokens).dequantise()
kept = quantise(layer["input"]).dequantise()         # in forward
h = quantise(kept.T[:16], **along_tokens).dequantise()
exact = layer["gradient"].T[:16].double() @ layer["input"][:, :16].double()
in_fp32 = dy.double() @ h.double().T
for name, y, right in (
        ("eight bits, exact sum", in_fp32, exact),
        ("14-bit sum", fp8.limited_gemm(dy, h), in_fp32),
        ("promoted", fp8.limited_gemm(dy, h, promote_every=128), in_fp32)):
    print(f"{name}: {(y - right).norm() / right.norm():.3%}")

# %% [markdown]
# A short accumulator costs a tenth of a percent here, beside the four that eight bits have cost already. V3's forward sums run over
# 7,168 products. There our model is wrong by 0.4 percent at worst with both signs, and by 7 with one; the chip's 2 percent at
# 4,096 show that it does not have the mild case. **A second thing that we expect not to see at our size.**
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
# A linear layer multiplies three times: once forward for $y$, and twice backward, from the loss's gradient by $y$, called $dy$, for
# the gradients of input and weight:
#
# $$\begin{aligned} y &= x\, W^\top \\ dx &= dy\, W \\ dW &= dy^\top x \end{aligned} \tag{10.3}$$
#
# All three run in FP8. A tile must lie along the axis that is *summed*, or its scale could not be taken out of the sum. In $y$
# that is the channels; in $dW$ it is the tokens. So $x$ is tiled twice, once for each, and $dy$ too. $W$'s square blocks serve
# both ways as they are (appendix B.2 has the argument). Here it is by hand:

# %%
def under_scales(x, rows, columns, floor=1e-4):
    """x through E4M3, one scale for each rows x columns.

    floor: keeps the scale of zeros from being zero.
    """
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
    x8_t = under_scales(x8, 128, 1)        # x is kept only as codes
    dy8_t = under_scales(dy, 128, 1, floor=2.0**-100)
    return x8 @ w8.T, dy8 @ w8, dy8_t.T @ x8_t


# %% [markdown]
# $dy$ is still there in full when it is needed along the tokens. $x$ was kept only as codes, so for $dW$ it is rounded a *second*
# time. (With scales that are powers of two it would stay at 2.7 percent. V3 takes them for the layer after attention, whose input
# it keeps in 12 bits: section 3.3.3.)
#
# Now against the package, and against a product that is not ours: `torch._scaled_mm`, the call with which PyTorch multiplies
# eight-bit numbers on a GPU, and which runs, slowly, on a CPU too.

# %%
from minimodels.fp8 import ROUTES, convert
from minimodels.linear import Linear

torch.manual_seed(0)
layer = convert(Linear(384, 256))
x, dy = torch.randn(512, 384, requires_grad=True), torch.randn(512, 256)
layer(x).backward(dy)
hand = layer_by_hand(x.detach(), layer.weight.detach(), dy)
twice = under_scales(under_scales(x.detach(), 1, 128), 128, 1)
torchs = ROUTES["promoted"](quantise(x.detach()),
                            quantise(layer.weight.detach(), block=BLOCK))

# %%
for name, got, want in (("y", layer(x), hand[0]), ("dx", x.grad, hand[1]),
                        ("dW", layer.weight.grad, hand[2]),
                        ("y, torch._scaled_mm", torchs, hand[0])):
    torch.testing.assert_close(got, want, atol=5e-4, rtol=0)
    print(f"{name}: equal to 3 decimals, up to {want.abs().max():.1f}")
print(f"x is {error_of(x.detach(), TILE):.1f} % off in y, and in dW",
      f"{100 * (twice - x).norm() / x.norm():.1f} %")

# %% [markdown]
# ### What stays out
#
# Everything else V3 computes in 16 or 32 bits: the embedding, which is a lookup; the output head; the gates of the experts, where
# a near tie decides who works ([we tried](#Train-with-it)); norms; and softmax with the two products of attention itself. And what
# training remembers keeps its bits: the [master weights](../book/glossary.md#master-weight), the copy that the optimizer moves, and the gradients that are
# added up are FP32, Adam's two moments BF16 (sections 3.3.1 and 3.3.3).

# %% tags=["remove-input"]
show.drawing("eightmap", wide=True,
             alt="From left to right: the embedding; then, in each of 61 layers, norm, projections in 8 bits, attention, its output projection in 8 bits, norm, gate, experts in 8 bits (in the first three layers a dense feed-forward in 8 bits in place of gate and experts); then norm and the head. All others have 16 or 32 bits.",
             caption="What runs in eight bits in DeepSeek-V3 (ochre), and what does not. After section 3.3.1, which says \"BF16 or FP32\" for the rest. "
                     "The first three layers have a dense feed-forward in 8 bits in place of gate and experts.")

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
    kinds = sorted({n.split(".")[-1] for n in inside})
    print(f"{name}: {len(inside)} modules, {share:.0%} of all weights")
    print("   ", *kinds)

# %% [markdown]
# ## Will it learn?
#
# The result of one layer is 3.7 percent off; behind four blocks, forward and backward, it will be more. How far off is a
# gradient, and is that much? Ask the trained yardstick for the gradients of its linear weights, on one page of text: in 32
# bits, in 16, in 8. And then, in 32 bits, on the *next* page.
#
# > **Before you read on.** A gradient in FP8 differs from the exact one by 15 percent of its length, in bf16 by one percent. By
# > how much does the exact gradient of the next page differ?
# >
# > <details><summary>What we found</summary>
# >
# > **142 percent**, more than its own length. (By choice of two of three pages, 114 to 142.) Every step of training is an estimate
# > from one batch, and beside the luck of that batch the error of eight bits is small.
# >
# > </details>

# %% tags=["nbval-ignore-output"]
from minimodels.fp8 import Recipe
from minimodels.mtp import losses as losses_by_depth


def gradient_of(model, tokens, dtype=torch.float32):
    """The gradients of all linear weights, end to end, and the loss."""
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        loss = losses_by_depth(model(tokens), tokens)[0]
    loss.backward()
    return torch.cat([model.get_submodule(name).weight.grad.flatten()
                      for name in seen]), loss.item()


# %%
def rounded(model):
    """The model, its linear weights rounded, and computed in FP32."""
    with torch.no_grad():
        for name in seen:
            weight = model.get_submodule(name).weight
            weight.copy_(quantise(weight, block=BLOCK).dequantise())
    return model


# %% tags=["nbval-ignore-output"]
pages = torch.tensor(page[:3 * 2048]).view(3, 8, 256)
models = {"exact": run.model, "FP8": lambda: convert(run.model()),
          "rounded weights": lambda: rounded(run.model())}
gradient, nats = {}, {}
for name, model in models.items():
    gradient[name], nats[name] = zip(*(gradient_of(model(), each)
                                       for each in pages))
coarse = Recipe(activation=WHOLE, weight=WHOLE, gradient=WHOLE)
other = {"bf16": gradient_of(run.model(), pages[0], torch.bfloat16)[0],
         "FP8, V3's recipe": gradient["FP8"][0],
         "FP8, one scale": gradient_of(convert(run.model(), coarse),
                                       pages[0])[0],
         "the next page": gradient["exact"][1]}

# %% tags=["hide-input", "nbval-ignore-output"]
exact = gradient["exact"][0]
away = {name: (100 * (g - exact).norm() / exact.norm()).item() for name, g in other.items()}
show.show(show.bars({name: round(percent, 0 if percent > 10 else 1) for name, percent in away.items()},
                    unit="distance from the exact gradient, % of its length", concept={name: "fp8" if "FP8" in name else "dense" for name in other},
                    title="Eight bits move a gradient by a tenth of what another page does"),
          alt="Four bars: bf16 1.2 percent, FP8 by V3's recipe 15, FP8 with one scale 15, the next page 142.",
          caption="The trained yardstick, 2,048 tokens of a module of the standard library, and the 2,048 after them: one model, at the end of its training.")

# %% [markdown]
# This is why one digit can be enough: training already lives with a noise several times as large. (The distance of two pages
# holds the luck of both; a single page's is smaller by $\sqrt 2$, 80 to 100 percent.)
#
# But luck cancels from step to step. Does the error? You may expect it to be drawn anew each time. Take
# three pages, and compare their errors: 1 means the same direction, 0 nothing in common. And how much of the error is there if
# *only the weights* are rounded?

# %% tags=["nbval-ignore-output"]
def apart(one, two):
    return [a - b for a, b in zip(gradient[one], gradient[two])]


parts = {"the exact gradient": gradient["exact"],
         "error of FP8": apart("FP8", "exact"),
         "of the weights alone": apart("rounded weights", "exact"),
         "the rest": apart("FP8", "rounded weights")}

# %% tags=["hide-input", "nbval-ignore-output"]
rows = []
for name, v in parts.items():
    long = [100 * (a.norm() / g.norm()).item() for a, g in zip(v, gradient["exact"])]
    alike = [torch.cosine_similarity(v[i], v[j], 0).item() for i, j in ((0, 1), (0, 2), (1, 2))]
    rows.append({"gradient or error": name, "length": "100 %" if name == "the exact gradient" else f"{min(long):.0f} to {max(long):.0f} %",
                 "cosine": f"{min(alike):.2f} to {max(alike):.2f}".replace("-", "−")})
show.table(rows, caption="Three pages. Length: beside the exact gradient's. Cosine: between any two pages.")
more = [a - b for a, b in zip(nats["rounded weights"], nats["exact"])]
print(f"rounded weights cost {min(more):.3f} to {max(more):.3f} nats of {statistics.mean(nats['exact']):.2f}")

# %% [markdown]
# Only the smaller part, from rounding activations and gradients, is drawn anew: it has nothing in common from page to page. The
# larger part comes from the weights, whose rounding stays until they have moved by a gap. **Pages agree more on FP8's error than
# on the gradient itself.** Nearly half of its square is common to them, and that part does not cancel.
#
# Must it do harm, then? This larger part is no noise. It leads to the exact gradient of *another* model, the one whose weights
# are rounded, and that one stands close by: its loss is higher by a few thousandths of a nat. Downhill for the one is nearly
# downhill for the other. That is our reading, from one trained model and three pages of one file; what becomes of it in
# thousands of steps only runs can show. Beware where the luck of a batch is small (V3's batches grow to 63 million
# tokens, section 4.2), and where an error is large *and* stays.
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

# %% tags=["hide-input", "nbval-ignore-output"]
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
# Thirty steps decide nothing. The recorded runs have 600 each, on the whole standard library: five seeds for V3's recipe, each
# beside the same seed in bf16.

# %%
from minimodels.studies import recorded


def bits_of(study, arm):
    """{seed: bits per byte} of an arm of a recorded study."""
    return {trial["seed"]: trial["bits_per_byte"]
            for trial in recorded(study)["trials"] if trial["arm"] == arm}


def beside(baseline, arms):
    """{arm: how many more bits it needs than baseline, by seed, in %}."""
    found = {}
    for name, bits in arms.items():
        more = [100 * (bits[s] / baseline[s] - 1) for s in sorted(bits)]
        found[name] = more
        error = statistics.stdev(more) / len(more)**0.5
        reach = {3: 4.303, 5: 2.776}[len(more)]  # Student's t, 95 %
        print(f"{name}: {statistics.mean(more):+.2f} ± "
              f"{reach * error:.2f} % bits;",
              ", ".join(f"{each:+.2f}" for each in more))
    return found


# %%
sixteen = (bits_of("train-formats", "bf16")
           | bits_of("fp8-quality", "bf16"))
eight = bits_of("fp8-quality", "V3's")
gap = beside(sixteen, {"V3's recipe": eight})

# %% tags=["hide-input"]
show.show(show.dots({"bf16": [sixteen[seed] for seed in eight], "FP8, V3's recipe": list(eight.values())}, unit="bits per byte of unseen text",
                    concept={"bf16": "dense", "FP8, V3's recipe": "fp8"},
                    title="After 600 steps five seeds show no price of V3's recipe"),
          alt="Two rows of five dots in bits per byte: bf16 from 1.637 to 1.646, FP8 from 1.632 to 1.648. Their means are 1.641 and 1.639.",
          caption=f"Recorded: studies fp8-quality and, for three seeds of bf16, train-formats; 600 steps each; {recorded('fp8-quality')['trials'][0]['hardware']}. "
                  "The strokes are means.")

# %% [markdown]
# Two seeds need more bits in FP8, three need fewer. The mean is −0.09 percent, ± 0.32 (the 95 percent [confidence
# interval](../book/glossary.md#confidence-interval)): a price above a quarter of a percent does not fit these seeds; a smaller one
# may be there, and we could not see it.
#
# We expected two things *not* to show: one scale for a tensor, and a short accumulator. (Its sums are cut to 13 bits behind the
# leading one, or to 7, after every 32 products, and never promoted, in all three products of a layer. Thirteen is about the chip; seven
# is far worse than any.) And V3's authors avoid two: gradients with scales for blocks, and gradients in E5M2, the older recipe, with
# one bit less of mantissa. Three seeds each, so that for the same scatter an interval is twice as wide:

# %%
arms = {"one scale for a tensor": ("fp8-scales", "a scale for a tensor"),
        "sums of 13 bits": ("fp8-sums", "13 bits"),
        "sums of 7 bits": ("fp8-sums", "7 bits"),
        "gradients in blocks": ("fp8-scales", "gradients in blocks"),
        "gradients in E5M2": ("fp8-gradients", "E5M2 gradients")}
others = {arm: bits_of(*at) for arm, at in arms.items()}
gap |= beside(sixteen, others)
print("\nbeside V3's recipe:")
from_v3 = beside(eight, others)

# %% tags=["hide-input"]
fig = show.dots(gap, unit="more bits than the same seed in bf16, %", concept=dict.fromkeys(gap, "fp8"),
                title="Beside bf16 no departure from the recipe shows with three seeds")
show.show(fig.update_traces(texttemplate="%{x:+.2f}", selector={"mode": "markers+text"}),
          alt="Six rows of dots in percent: V3's recipe from -0.40 to 0.18, one scale for a tensor from 0.11 to 0.45, sums of 13 bits 0.04 to 0.23, of 7 bits -0.13 to 0.28, gradients in blocks -0.33 to 0.03, in E5M2 -0.13 to 0.60.",
          caption="Recorded: studies fp8-quality, fp8-scales, fp8-sums and fp8-gradients, each run beside the same seed in bf16 (train-formats, fp8-quality); V3's recipe "
                  "five seeds, the others three; 600 steps; strokes are means.")

# %% [markdown]
# Beside bf16 each interval holds zero. What we expected not to see, three seeds do not see: one scale costs no more than 0.7 percent,
# sums of 13 bits no more than 0.4. Both needed more bits with every seed, which a coin does in one case of four. For sums it most
# likely is a coin: cut 64 times as coarsely, at 7 bits, they cost less in the mean. Behind one scale a price of a quarter of a
# percent may hide.
#
# Beside V3's own recipe, seed by seed, the answer is the same but for one: gradients in blocks, which V3 avoids, need *fewer* bits, by
# 0.18 ± 0.12 percent. Of a dozen such intervals one may well miss zero by luck, so we would not build on it; but harm it is not.
#
# DeepSeek compared twice, with 16 billion parameters on 1.33 trillion tokens and with about 230 billion on 0.9 trillion: FP8's loss
# stayed within 0.25 percent of BF16's (section 3.3 and appendix B.1). One thing failed: with both operands of $dx = dy\,W$ in
# blocks of 128 × 128, the smaller model *diverged*, in a run of about 300 billion tokens (appendix B.2). Their guess: tokens
# differ too much in the size of their gradients to share a scale. Our 600 steps say nothing about that.
#
# What if the gate that [chooses experts](07_moe.ipynb) is in FP8 too? A model with experts, three seeds:

# %%
gate = {arm: bits_of("fp8-gate", f"gate in {arm}")
        for arm in ("fp32", "FP8")}
plain = bits_of("moe-quality", "fine + shared")
more = beside(plain, {"all but the gate, beside fp32": gate["fp32"],
                      "the gate too, beside fp32": gate["FP8"]})
more = beside(gate["fp32"], {"the gate alone": gate["FP8"]})

# %% [markdown]
# Neither step shows a price by itself. Both together do: 0.22 ± 0.15 percent, more bits with every seed. It is small, and one interval
# of many on this page, and three seeds cannot say which step pays it. V3 spares the gate; whether our size needs that, we could
# not tell.
#
# And does a price that is too small to be seen grow with the text? Three times the steps, three seeds:

# %%
more = beside(bits_of("fp8-longer", "bf16"),
              {"V3's recipe, 1,800 steps": bits_of("fp8-longer", "V3's")})

# %% [markdown]
# With three times the steps we know less: the differences of our three pairs scatter by half a percent, those of the five before by a
# quarter. The seed that we recorded first says +1.06. Had we stopped there, you would be reading of a price that grows.
#
# ## The memory ledger
#
# "75 percent less memory." Of what? Training holds five numbers for each weight, and what the forward pass keeps for the
# backward pass. In bytes a parameter, counted from V3's formats (sections 3.3.1 and 3.3.3), mixed precision with BF16 and
# gradients in FP32 takes 18, and V3 13: 28 percent less.
#
# > **Before you read on.** How many of these five saved bytes does FP8 save?
# >
# > <details><summary>What we found</summary>
# >
# > **One.** Four come from keeping Adam's two moments in BF16, which has nothing to do with eight bits.
# >
# > </details>

# %% tags=["remove-input"]
show.drawing("thirteen",
             alt="Two bars to scale. BF16, mixed: weight 2 bytes, master weight 4, gradient 4, first moment 4, second moment 4, together 18. DeepSeek-V3: 1, 4, 4, 2 and 2, together 13.",
             caption="Bytes that training keeps for one weight, to scale. What FP8 itself saves is the first byte.")

# %% [markdown]
# That is arithmetic. And our own model? Weights, gradients and moments do not change: `convert` leaves them FP32, and makes the
# codes anew in each product. What changes is what is kept for the backward pass, and PyTorch can be asked for each such tensor:

# %%
from minimodels.studies.fp8 import kept_for_backward

MiB = 2**20
kept = {}
for name, dtype, is_fp8 in (("fp32", torch.float32, False),
                            ("fp32 + FP8", torch.float32, True),
                            ("bf16", torch.bfloat16, False),
                            ("bf16 + FP8", torch.bfloat16, True)):
    torch.manual_seed(0)
    model = Transformer(YARDSTICK)
    model = convert(model) if is_fp8 else model
    kept[name] = kept_for_backward(model, torch.zeros(8, 256).long(), dtype)
show.table([{"MiB kept by": kind}
            | {name: f"{kept[name][kind] / MiB:.1f}" for name in kept}
            for kind in kept["fp32"]])

# %% [markdown]
# (In bf16 attention keeps *more* than in fp32: on our CPU it takes another path, which keeps the scores.)

# %% tags=["hide-input"]
state = YARDSTICK.n_params * 4
moments = sum(2 * p.nbytes if p.dim() < 2 or p is model.embed.weight else p.nbytes for p in model.parameters())
totals = {name: (2 * state + moments + sum(by_kind.values())) / MiB for name, by_kind in kept.items()}
saved = {name: 1 - totals[f"{name} + FP8"] / totals[name] for name in ("bf16", "fp32")}
show.show(show.bars({name: round(total) for name, total in totals.items()}, unit="MiB: weights, gradients, moments and what is kept",
                    concept={name: "fp8" if "FP8" in name else "dense" for name in totals},
                    title=f"FP8 saves {saved['bf16']:.0%} to {saved['fp32']:.0%} of our training memory, not 75%"),
          alt="Four bars: fp32 102 MiB, fp32 with FP8 92, bf16 107, bf16 with FP8 99.",
          caption=f"Measured here, 8 windows of 256 tokens; weights, gradients and moments are {(2 * state + moments) / MiB:.1f} MiB in each. "
                  "Muon keeps one moment for a matrix where Adam has two.")

# %% [markdown]
# What the linear layers keep shrinks from 18.0 to 7.8 MiB. Not to a quarter: in FP32 `w_q`, `w_k` and `w_v` share one tensor, and
# `w_o` reads one that attention keeps anyway; in FP8 each of the four keeps tiles of its own. And most of what is kept was never
# theirs: SwiGLU, norms and attention hold what they held. In the sum we save 8 percent in bf16, in which we train, and 10
# beside fp32.
#
# ## On a GPU
#
# PyTorch multiplies eight-bit numbers from compute capability 8.9 on (GeForce 40, L4), and takes V3's scales into the product
# itself on Hopper alone. Our package asks the GPU, and compares its product with the emulation before it believes the answer.

# %% tags=["nbval-ignore-output"]
chips = {"T4": (7, 5), "A100": (8, 0), "RTX 4090": (8, 9),
         "H100, H800": (9, 0), "B200": (10, 0)}
said = {"blockwise": "one call with V3's scales",
        "promoted": "a call for each 128 products"}
show.table([{"chip": name, "PyTorch offers": "; or ".join(
    said[route] for route in fp8.candidates(c)) or "nothing: emulated"}
            for name, c in chips.items()])
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
print(f"{device}: products are {fp8.backend(device)}, for this machine:",
      lab.gpu() or "torch finds no GPU")

# %% [markdown]
# **We have run no FP8 product on a GPU.** A machine without such units shows rounding, scales, memory and the loss, but not the
# speed, nor how the real accumulator cuts.
#
# ## Bugs that still train
#
# An eight-bit layer has many places for a mistake, and a small loss of score is taken for the price of eight bits. Six are in
# `minimodels.bugs.fp8`. Here are two of them, on the gradients of our page:

# %% tags=["nbval-ignore-output"]
from minimodels.bugs import plant
from minimodels.bugs.fp8 import UnscaledGradients

gradients = [layer["gradient"] for layer in seen.values()]
layer = plant(convert(Linear(128, 128)), UnscaledGradients)
layer(seen["layers.0.attention.w_q"]["input"]).backward(
    seen["layers.0.attention.w_q"]["gradient"])
zero = [(g.abs() <= 2**-10).float().mean().item() for g in gradients]
print(f"without a scale {statistics.mean(zero):.2%} become 0, and "
      f"{layer.weight.grad.eq(0).float().mean():.0%} of one dW")

# %% tags=["nbval-ignore-output"]
for size in (1, 1e-4, 1e-6):
    wrong = [statistics.mean(error_of(size * g, TILE, floor)
                             for g in gradients)
             for floor in (fp8.GRADIENT_FLOOR, 1e-4)]
    print(f"gradients {size:g} times the size: {wrong[0]:.2f} % off, "
          f"with a floor of 1e-4 {wrong[1]:.2f}")

# %% tags=["hide-input"]
planted = recorded("fp8-bugs")
rows = []
for arm in planted["arms"]:
    bits = [t["bits_per_byte"] for t in planted["trials"] if t["arm"] == arm]
    rows.append({"layer": arm, "bits per byte": f"{statistics.mean(bits):.3f}", "three seeds": f"{min(bits):.3f} to {max(bits):.3f}"})
show.table(rows, caption=f"Recorded: study fp8-bugs; the yardstick, 120 steps, three seeds; {planted['trials'][0]['hardware']}.")

# %% [markdown]
# One alarm rings, if you have a right run beside it: without a scale for gradients the loss still falls, but to 2.493 in place of
# 2.125. Two bugs cost half a percent to one and a third with every seed (weights kept in E4M3 0.5 to 0.7, the first tile's scale
# 0.7 to 1.3), just what one would have believed of eight bits. Three do no harm that shows in 120 steps.
#
# > **Bugs that still train.**
# > - **Gradients without a scale.** In the mean of the layers 99.97 percent of them become zero. The embedding still learns.
# > - **An activation's floor.** Code against division by zero, `max(amax, 1e-4)`, is copied to gradients. More than half of our
# >   tiles lie below it. That costs them range, and hardly a digit: E4M3 has 28,672 to one to give away. With gradients ten thousand
# >   times smaller, as a mean over V3's batches would have them, the error more than doubles; a million times smaller, they are gone.
# > - **The last step's scale.** It saves a pass over the numbers. After a jump, what does not fit is cut.
# > - **The first tile's scale.** Used for a whole row, it is exact where a row has one tile, as in most of our layers.
# > - **Weights kept in E4M3, or in bf16.** Without a master copy a step smaller than half a gap is rounded away, every time.
#
# Three tests find five of them, and you write these (the first tile's scale is what [exercise 10.5](#The-sums) is about). Every
# check hands your test layers, some right and some spoilt; `True` means that the layer is right.
#
# > **Exercise 10.6** (symmetry; medium, 10 minutes). With scales, 1,024 times the input must give 1,024 times the output, digit
# > for digit. Write `size_does_not_matter(layer, x)`. In which order must you call it, so that a scale from the call before is
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
#     return torch.equal(large / 1024, small)
# ```
#
# The factor is a power of two, so a right layer gives *exactly* the same digits.
#
# </details>
#
# > **Exercise 10.7** (the same, backward; medium, 10 minutes). Write `gradients_keep_their_digits(layer, x, dy)`: a gradient
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
#     return torch.equal(*found)
# ```
#
# </details>
#
# > **Exercise 10.8** (small steps; easy, 10 minutes). A hundred steps of 0.00001 must move the weights by 0.001 in the mean.
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
# > **Does it pay here?** **No: nothing on our machine multiplies eight-bit floats.** What FP8 is for, we cannot have. What it
# > costs and saves besides, we can measure.
# >
# > - **Per step:** emulated, forward and backward took about twice as long as in bf16.
# > - **In bits:** of the dense model none that five seeds show after 600 steps, −0.09 ± 0.32 percent, or three after 1,800, +0.49 ±
# >   1.34.
# > - **In memory:** 8 to 10 percent of what training holds, because little of it belongs to the linear layers' inputs.
# > - **At DeepSeek's scale:** the products run up to twice as fast, what linear layers keep takes half the room, and sending a
# >   token to an expert takes half the bytes; its answer takes as many as before (exercise 10.9).
#
# ## The claims again
#
# Of two we have not spoken. C43: for America we have no source. V3's own baseline is BF16, and it cites FP8 training by American
# firms (section 3.3.2): sixteen bits are right, "FP16" is loose. C44 is about one number, and of that it is true.

# %% tags=["remove-input"]
ledger.show("C38", "C39", "C40", "C41", "C42", "C43", "C44", "C45", form="rows")

# %% [markdown]
# ## What production does
#
# - **Kernels with scales inside.** [DeepGEMM](../book/references.md#deepgemm), DeepSeek's published library, multiplies under
#   V3's tiles and blocks, with the promotion described here.
# - **Powers of two.** V3 rounds some scales to powers of two, [V3.1](../book/references.md#deepseek-v31-card) those of weights
#   and activations: numbers that are tiled a second time then lose next to nothing more.
# - **Two formats.** Earlier FP8 training gave gradients E5M2, with more range and one bit less of mantissa ([FP8
#   formats](../book/references.md#fp8-formats), [FP8-LM](../book/references.md#fp8-lm)). V3's fine scales need no such range;
#   whether the bit matters, our three seeds could not tell.
#
# > **Takeaways**
# > 1. An E4M3 number has 1.2 decimal digits, and there are 253 of them. The press's "8 decimal places" counted bits.
# > 2. A float's error is relative. One scale for a tensor fails only when its largest number is some ten thousand times its usual
# >    ones. INT8 fails a thousand times sooner, and is better before.
# > 3. A sum kept in 32 bits makes errors no worse, and in one step of our trained model they are small beside the luck of the
# >    batch. But they do not all cancel: nearly half of the error's square is the same on each page, from the weights' rounding.
# >    Even so, after 600 steps five seeds show no price.
# > 4. Master weights, gradients, moments, gates, norms and attention's scores stay at 16 or 32 bits: mixed precision.
# > 5. Of the 18 bytes a parameter of BF16 training V3 saves five, and one of the five is FP8's.
#
# ## Longer problems
#
# > **Exercise 10.9** (on the wire; easy, 20 minutes). To send a token to an expert on another node, V3 sends its 7,168 numbers
# > in FP8, with a scale for each 128, here of four bytes; the expert's answer comes back in BF16. How many bytes is that, and how much less
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
# > **Exercise 10.10** (round by chance; medium, 60 minutes). Weights kept in E4M3 stop moving, because small steps are rounded
# > away. *Stochastic rounding* goes up or down by chance, more probably to the nearer neighbour, so that the mean is exact. Write
# > `by_chance(x)` for E4M3, show that its mean is right, and fit a linear model of 20 weights by gradient descent, with weights
# > in FP32, in E4M3 rounded to nearest, and in E4M3 rounded by chance.
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
# The mean of 0.3 is 0.300. The fit ends 0.000, 0.558 and 0.035 away from the true weights: rounded to nearest it stops half
# way, rounded by chance it comes within the gap of the format.
#
# </details>
#
# > **Exercise 10.11** (spread the outlier; hard, 90 minutes). Tiles confine an outlier. Or turn all rows by an orthogonal matrix
# > $Q$, which changes no product, $(xQ)(WQ)^\top = x W^\top$, and makes of an outlier a small addition in all places of its row.
# > Build $Q$ from a Hadamard matrix of 512 with random signs. With one scale for a tensor and the outlier of this chapter, at
# > which size do the other rows now suffer? And the outlier's own row?
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
#         for rows in (others, ~others):
#             wrong = ((y - exact)[rows].norm() / exact[rows].norm()).item()
#             print(f"{wrong:.2%}", end="   ")
#     print(f"at {size:g}")
# ```
#
# The others' error at a million falls from 95 to 6 percent, and at ten million it is 55: the turn wins about a factor of
# $\sqrt{512}$ in size. The outlier's own row shows little: 2.4 percent without and 3.0 with the turn at 1,000, but 3.4 and 4.1
# at size 1, where there is no outlier. One row of 128 numbers scatters as much.
#
# </details>
#
# > **Next: [All of it together](13_together.ipynb).** Latents, experts, a second guess and eight bits: each has been tried alone.
# > The next chapter stacks them.
