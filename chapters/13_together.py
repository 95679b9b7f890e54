# ---
# jupyter:
#   book:
#     number: 13
#     reading: 75 min
#     cpu: 60 s, 0.8 GB
#     needs: "chapters [6](06_mla.ipynb), [7](07_moe.ipynb), [9](09_mtp.ipynb) and [10](10_fp8.ipynb); two paragraphs recall them"
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: book
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # All of it together
#
# [Open in Colab](https://colab.research.google.com/github/minimodels/small-models-big-claims/blob/main/chapters/13_together.ipynb)
#
# > *Add up what you gained. Then say in which coin.*
#
# > **You will be able to**
# > - build a ladder of models, each with one technique more, and prove that nothing else changes;
# > - say how much of a difference between three runs and three others may be luck;
# > - turn a score into "as good as another model, trained so much longer", and hold that against its price;
# > - draw a trend on to the place where a technique begins to pay, with the width of your ignorance;
# > - catch four comparisons that look fair and are not;
# > - say what part of "95 percent cheaper" is design.
#
# ## What you need, in two paragraphs
#
# The [yardstick](04_model.ipynb) is the dense model of chapters 3 to 5: four layers, 128 wide, eight heads, 1.28 million
# parameters, trained on 1.23 million tokens of Python's standard library. Four techniques were tried on it, one at a time.
# **Latent attention** caches a short vector instead of keys and values. **Experts** let a token meet a small part of a large
# network. **Multi-token prediction** adds a module that guesses one token further. **FP8** multiplies numbers of eight bits.
#
# Scores are [bits per byte](../book/glossary.md#bits-per-byte) of unseen text, and less is better. Two runs with one
# [seed](../book/glossary.md#seed) read the same batches in the same order. "Here" means one thread of an AMD EPYC.

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
import re
import statistics
from dataclasses import fields, replace

import torch
from minimodels import cost, exercises, lab, ledger, show
from minimodels.config import ModelConfig, TrainConfig
from minimodels.explorables import WhichRung
from minimodels.studies import recorded

torch.set_num_threads(1)
check = exercises.load("together")
print(lab.tier())

# %% [markdown]
# ## Ninety-five percent
#
# **42.5 percent**
#
# > **Margin.** 172.8 thousand GPU-hours for a trillion tokens instead of 300.6
# > ([DeepSeek-V2](../book/references.md#deepseek-v2), section 3.2.3).
#
# That much of its training bill DeepSeek saved when it went from a dense model of 67 billion parameters to V2. It is the
# cleanest figure that exists about this: one house, one cluster, one kind of chip. The press had another figure. It said 95.
#
# Between those two models nearly everything had changed: attention, experts, width, layers, text, software. What saved the 42.5
# percent? No paper takes it apart, for nobody trains such a model five times. You can. Yours takes minutes.
#
# ## What the press said

# %% tags=["remove-input"]
ledger.show("C08", "C11", form="told")

# %% [markdown]
# > **Before you read on.** Take a sheet, write MLA, experts, MTP and FP8 in a row, and mark who saves and who costs, on *our*
# > machine: in bits per byte at equal text, after 600 steps, in bytes of cache, in seconds of a training step, in seconds of writing. In which of
# > these four will nobody win?
# >
# > <details><summary>What we found</summary>
# >
# > **In both kinds of seconds.** Every rung adds to those of a training step, and none makes writing faster with every repetition.
# > In bytes of cache one technique wins, by a factor of 3.6, and the others do not touch it. In bits per byte two save, each less than
# > one percent, and one gives one percent back.
# >
# > </details>

# %% tags=["remove-input"]
show.drawing("whole", wide=True,
             alt="The whole model: a token is embedded and passes four layers of norm, MLA with a cached latent, norm, and experts with a gate, three of thirty-one and a shared one (in the first layer one network instead); the head predicts the next token. Beside it the module joins the last state with the next token's embedding, passes one more layer, and the same head predicts the token after. Projections, experts and join are marked as FP8.",
             caption="Everything at once. Each colour is a chapter.")

# %% [markdown]
# ## One field a rung
#
# How do you compare five models so that each difference has one cause? Let each differ from the one before in one thing, and you
# have an [efficiency ladder](../book/glossary.md#efficiency-ladder). In this package a model is a configuration, and one thing
# is one field:

# %%
recipe = TrainConfig.preset("yardstick")
dense = ModelConfig.preset("yardstick")
latent = replace(dense, attention="mla")
experts = replace(latent, n_experts=31, top_k=3, d_expert=80)
module = replace(experts, mtp_depth=1)
by_hand = {"dense": (dense, recipe), "+ MLA": (latent, recipe),
           "+ experts": (experts, recipe), "+ MTP": (module, recipe),
           "+ FP8": (module, replace(recipe, fp8=True))}

# %% [markdown]
# The experts needed three fields. How many there are is the technique; the other two make $(3 + 1) \cdot 80 = 320$ hidden numbers
# work on a token, as many as in the dense network.
#
# The package has the ladder ready. Is it the same one? From one seed, every weight must agree.

# %%
from minimodels.ladder import rungs
from minimodels.model import Transformer


def weights(config):
    torch.manual_seed(0)
    return Transformer(config).state_dict()


for rung in rungs("cpu"):
    ours, theirs = weights(by_hand[rung.name][0]), weights(rung.model)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert rung.training == by_hand[rung.name][1]
    print(f"{rung.name}: {len(ours)} tensors equal")


# %% [markdown]
# So the lowest rung *is* the yardstick. And between neighbours the package changes this and nothing else:

# %%
def changed(a, b):
    return [f"{f.name}={getattr(b, f.name)!r}" for f in fields(a)
            if getattr(a, f.name) != getattr(b, f.name)]


climb = rungs("cpu")
for below, rung in zip(climb, climb[1:]):
    print(f"{rung.name:10}", *changed(below.model, rung.model),
          *changed(below.training, rung.training))

# %% tags=["remove-input"]
show.drawing("rungs", wide=True,
             alt="Five rungs, each resting on those below: dense; MLA, attention='mla'; experts, n_experts=31; MTP, mtp_depth=1; FP8, fp8=True. Below: the same on every rung are tokens and their order, width and layers, vocabulary, and 320 hidden numbers that work on a token.",
             caption="The ladder. Each rung keeps what the rungs below have.")

# %% [markdown]
# One more thing may differ, and must. Each rung has the better of two rates, 0.01 and 0.02: **MLA** at 0.02, all others at 0.01.
# (One other seed chose, **MLA**'s on a near twin. FP8 took over the module's.) What one rate for all can do, you will see
# [below](#Comparisons-that-still-look-right).
#
# What stays *unequal*? Parameters, operations, memory, seconds. You cannot hold all of them equal at once. The ladder
# holds the text, and writes the others down.
#
# > **Exercise 13.1** (is it one step?; medium, 15 minutes). Write `is_one_step(below, above)`: whether two rungs differ in exactly one
# > field of `.model` and `.training` together, the rate `muon_lr` left aside, *and* as many hidden numbers work on a token. A model
# > with `n_experts` has `(top_k + n_shared) * d_expert` of them, a dense one `d_ff`. `dataclasses.asdict` makes a dictionary.

# %%
def is_one_step(below, above):
    ...


# %%
check.is_one_step(is_one_step)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# from dataclasses import asdict
#
# def is_one_step(below, above):
#     a, b = ({**asdict(r.training), **asdict(r.model)}
#             for r in (below, above))
#     differ = [name for name in a if a[name] != b[name]]
#     width = [(m.top_k + m.n_shared) * m.d_expert if m.n_experts else m.d_ff
#              for m in (below.model, above.model)]
#     return len(set(differ) - {"muon_lr"}) == 1 and width[0] == width[1]
# ```
#
# One field alone is not enough: `top_k=4` is one field, and another amount of work.
#
# </details>
#
# ## Count before you measure
#
# Some of the bill needs no run. Take the second step, to experts. In three of four layers a network of 320 hidden numbers, with
# three matrices, makes room for 31 experts of 80, a shared one, and a gate with a row of 128 for each of the 31:

# %%
expert = 3 * 128 * 80                          # three matrices
more = 3 * ((31 + 1) * expert + 31 * 128 - 3 * 128 * 320)
at_work = 3 * ((3 + 1) * expert + 31 * 128 - 3 * 128 * 320)
print(f"{more:,} parameters more; {at_work:,} more at work on a token")
print("counted by the package:", experts.n_params - latent.n_params,
      experts.n_active_params - latent.n_active_params)

# %% [markdown]
# Two and a half million more to keep; twelve thousand more to compute with. That is the bargain that experts offer.
#
# Now all five, counted as the papers do, without the optimizer.

# %%
def counted(name, config, training, seq_len):
    memory = sum(cost.training_bytes(config, training).values())
    return {"rung": name, "parameters, M": config.n_params / 1e6,
            "at work, M": config.n_active_params / 1e6,
            "MFLOPs a token": cost.flops_per_token(
                config, seq_len=seq_len, mtp=True) / 1e6,
            "cache a token, B": cost.cache_bytes(config, 1),
            "to train, MB": round(memory / 1e6)}


show.table([counted(name, *both, 256) for name, both in by_hand.items()],
           caption="Parameters without the module's 1.09 million, which nobody "
                   "needs to write. To train, with it: weights, gradients "
                   "and the optimizer's numbers.")

# %% [markdown]
# Read down the columns. **MLA** cuts the cache to 28 percent and *adds* a little arithmetic. The module adds half of the
# arithmetic again, most of it for a second pass through the head. **FP8** changes no count at all, for it does the same work in
# smaller numbers.
#
# Is this a verdict on the techniques? Put the same ladder up at DeepSeek-V3's sizes. It fits: its dense layers have 18,432
# hidden numbers, which is $(8 + 1) \cdot 2{,}048$, so V3 obeys our rule.

# %%
v3 = ModelConfig.preset("deepseek_v3")
large = {"+ MTP": v3, "+ experts": replace(v3, mtp_depth=0)}
large["+ MLA"] = replace(large["+ experts"], n_experts=0)
large["dense"] = replace(large["+ MLA"], attention="mha")
show.table([{"rung": name, "parameters, billion": config.n_params / 1e9,
             "at work, billion": config.n_active_params / 1e9,
             "GFLOPs a token": cost.flops_per_token(
                 config, seq_len=4096, mtp=True) / 1e9,
             "cache a token, KB": cost.cache_bytes(config, 1) / 1e3}
            for name, config in reversed(large.items())])

# %% [markdown]
# Three of the same fields, another ladder. There **MLA** *saves* 28 percent of the operations, because 128 ordinary heads need
# huge matrices, and its cache is smaller by a factor of 57, not 3.6. Experts multiply the parameters by 18, not by 3, at the same
# price. The module costs 4 percent, not 54. (Nobody has trained the first three of these models, as far as we know.)
#
# Keep it in mind. What you measure on a small ladder is not the technique. It is the technique *at a size*.
#
# ## Climb to the top
#
# Now watch the top rung learn, all four techniques at once, beside the lowest. Thirty steps of each, on a third of the text.
# Predict: which of the two is ahead after thirty?

# %%
from minimodels.data import Batches, prepare
from minimodels.evaluate import evaluate
from minimodels.studies.together import LIVE_BYTES, live
from minimodels.train import train

text = prepare("stdlib", vocab_size=4096, max_bytes=LIVE_BYTES)
batches = Batches(text.train, batch_size=recipe.batch_size,
                  seq_len=recipe.seq_len, seed=0)

# %% tags=["nbval-ignore-output"]
drawn = show.Live(
    alt="Three falling curves: the dense model's, dashed, and the top "
        "rung's lie on each other; that of its module lies below.",
    caption="This run: thirty steps each, on this machine.")
models, losses = {}, {}
for name, rung in live().items():
    torch.manual_seed(0)
    models[name] = Transformer(rung.model)
    for record in train(models[name], batches, rung.training):
        losses.setdefault(name, []).append(record.loss)
        if record.mtp_loss:
            losses.setdefault("its module", []).append(record.mtp_loss[0])
    drawn.draw(show.lines({n: (range(1, len(y) + 1), y) for n, y in
                           losses.items()}, concept={"its module": "mtp"},
                          x="step", y="loss, nats per token",
                          title="Everything at once learns as it should")
               .update_traces(line_dash="dash", selector={"name": "dense"}))

# %% tags=["nbval-ignore-output"]
for name, model in models.items():
    score = evaluate(model, text.valid, n_bytes=text.valid_bytes,
                     seq_len=recipe.seq_len).bits_per_byte
    print(lab.band("together", f"{name} after 30 steps", score))

# %% [markdown]
# It works, and that is worth a sentence: four techniques, each with bugs that would still train, and both models start near $\ln
# 4096 = 8.3$, as they must. And after thirty steps you cannot tell them apart. Over six recorded seeds the whole is 0.1 percent
# worse, ± 0.3. Only the time is different: the second curve took several times as long. (The module's loss lies below the main
# model's, as in [chapter 9](09_mtp.ipynb).)
#
# ## The ladder
#
# The recorded ladder has 600 steps a rung, the whole standard library, three seeds, and a score on text that no rung has seen.
# Times are taken in turns, in three repetitions of seven rounds each. Look for the bold figures. How many does the dense model
# keep?

# %% tags=["remove-input"]
show.drawing("ladder", wide=True,
             alt="Five rungs of a ladder, from a dense model at the bottom through latent attention, experts and a second prediction to 8-bit products at the top; for each its bits per byte, arithmetic, cache, memory to train, speed of learning and speed of writing. The dense model is best in arithmetic, memory and both speeds, the four others in cache, the top in bits.",
             caption="Bold: the best of its column. The speeds of + FP8 are those of an emulation.")

# %%
from minimodels.studies.together import measured, rows

table = measured("cpu")
printed = rows(table)
in_drawing = ("rung", "MFLOPs a token", "cache a token",
              "memory to train", "trains", "writes, 1 text")
show.table([{"": line} | {each["rung"]: each[line] for each in printed}
            for line in printed[0] if line not in in_drawing],
           caption="What the drawing has no room for. `minimodels "
                   "ladder` prints all of it on any machine.")

# %% [markdown]
# Four of six, and yet no winner, for nobody counts columns. Take eight currencies, less is better in each, and for each technique
# the factor by which it changes the bill of the rung *below*. (A rung with a module writes with its drafts, one text or 32 side
# by side.)

# %%
mean = statistics.mean


def bill(row):
    """What a rung costs in eight currencies: a list, by seed or round."""
    writes = row.drafting_tokens_per_s or row.decode_tokens_per_s
    return {"bits per byte": row.bits_per_byte,
            "parameters": [row.n_params],
            "FLOPs of the passes": [row.flops],
            "cache": [row.cache_bytes],
            "memory to train": row.training_bytes,
            "seconds to train": [1 / x for x in row.train_tokens_per_s],
            "seconds to write 1": [1 / x for x in writes[1]],
            "seconds to write 32": [1 / x for x in writes[32]]}


# %%
bills = {row.name: bill(row) for row in table}
names, coins = list(bills), list(bills["dense"])


def factors(name, below):
    """{currency: by how much it changes, a factor for each seed}."""
    return {coin: [a / b for a, b in zip(bills[name][coin],
                                         bills[below][coin])]
            for coin in coins}


columns = {name: factors(name, below)
           for below, name in zip(names, names[1:])}
columns["all four"] = factors("+ FP8", "dense")

# %% tags=["hide-input"]
import plotly.graph_objects as go

CONCEPT = {"+ MLA": "mla", "+ experts": "moe", "+ MTP": "mtp", "+ FP8": "fp8", "all four": "ink"}
saves = {name: [max(found) < 0.9995 for found in column.values()] for name, column in columns.items()}
costs = {name: [min(found) > 1.0005 for found in column.values()] for name, column in columns.items()}
fig = go.Figure()
for name, column in columns.items():
    color = show.COLORS[CONCEPT[name]][0]
    means = [mean(found) for found in column.values()]
    changes_it = [is_less or is_more for is_less, is_more in zip(saves[name], costs[name])]
    symbols = ["circle" if is_less else "circle-open" if is_more else "line-ew-open" for is_less, is_more in zip(saves[name], costs[name])]
    fig.add_scatter(x=[name.removeprefix("+ ")] * len(coins), y=[re.sub(" (to|per|of) ", r"<br>\1 ", coin) for coin in coins],
                    mode="markers+text", text=[f"{f:.2f}" if f < 9.95 else f"{f:.0f}" for f in means], textposition="bottom center", showlegend=False, hoverinfo="skip",
                    marker={"size": [10 + 20 * min(1, abs(math.log(f)) / math.log(6)) * is_change for f, is_change in zip(means, changes_it)],
                            "symbol": symbols, "color": color, "opacity": 1, "line": {"color": color, "width": 2}})
n_cheaper, n_dearer = (sum(sum(column[name]) for name in names[1:]) for column in (saves, costs))
fig.update_layout(title=f"Of {4 * len(coins)} steps in eight currencies {n_cheaper} make something cheaper, and {n_dearer} dearer", height=630,
                  xaxis={"side": "top", "range": [-0.5, 4.5]}, yaxis={"range": [len(coins) - 0.4, -0.6]}, margin={"t": 92, "l": 88, "b": 16})
show.show(fig, alt="A grid of circles, a column for each technique and one for all four, a row for each of eight currencies. Filled circles save, hollow ones cost, a dash is neither; most are hollow. The largest filled one is the cache with MLA.",
          caption="Recorded: minimodels studies ladder and ladder-pace. The factor beside the rung below; in the last column beside the dense model. Filled: less with every seed or repetition; "
                  "hollow: more with every one (three of one sign are no proof: a coin does that in one case of four); a dash: equal, or they disagree. "
                  f"Parameters are the main model's; the module has 1.09 million more. {recorded('ladder')['trials'][0]['hardware']}.")

# %% [markdown]
# Go down the columns. **Latent attention** saves in one row, and there more than anything else saves anywhere. It
# pays in bits and in time.
#
# **Experts** buy 0.7 percent of the bits with three times the parameters. They add hardly any operations to the passes, and with
# the optimizer's a quarter to the step; and yet a step takes more than half as long again. The reasons are chapter 7's: small
# products, and an optimizer that moves every parameter, at work or not. That does not make up for what latents took: the third
# rung is worse than the first with two seeds, and better with one.
#
# **The module** buys 0.8 percent with half of the arithmetic again. It does not make writing faster: of drafts on given text half
# stand after 600 steps, and that does not pay for their making. (On text that it writes itself more may stand, as in [chapter
# 9](09_mtp.ipynb).)
#
# **FP8** is an imitation here. Its seconds say what it costs to imitate eight bits on a processor that has none, and nothing
# else. But its memory is real: 205 MB instead of 235, because codes are what is kept.
#
# Is the last column a defeat? Two questions first. Are its gains what the chapters promised? And is equal text fair?
#
# ## Do the gains add up?
#
# You know what each technique did alone, on the yardstick. Does it bring as much on top of others?
#
# First you need a ruler for small differences. Two models, three seeds each, and a difference of half a percent: is it real? If
# batches that are good for one are good for everybody, two runs with one seed share part of their luck, and it cancels when you
# [subtract by seed](../book/glossary.md#paired-difference). Do they? Take ten models of the earlier chapters, five seeds each,
# and all 45 pairs:

# %%
from itertools import combinations


def bits_of(study, arm):
    """{seed: bits per byte} of an arm of a recorded study."""
    return {t["seed"]: t["bits_per_byte"]
            for t in recorded(study)["trials"] if t["arm"] == arm}


ten = [list(bits_of(f"{chapter}-quality", arm).values())
       for chapter, arms in {
           "mla": ("mha", "gqa", "mqa", "mla"),
           "moe": ("top-1", "top-2", "fine", "fine + shared"),
           "mtp": ("one module, weight 0.3",), "fp8": ("V3's",)}.items()
       for arm in arms]

# %%
alike, narrower = [], []
for a, b in combinations(ten, 2):
    alike.append(statistics.correlation(a, b))
    by_seed = statistics.variance([x - y for x, y in zip(a, b)])
    apart = statistics.variance(a) + statistics.variance(b)
    narrower.append((by_seed / apart) ** 0.5)
print(f"{sum(c > 0 for c in alike)} of {len(alike)} pairs are alike; "
      f"correlation {statistics.median(alike):.2f} in the middle")
print(f"spread by seed: {statistics.median(narrower):.2f} of what it is "
      "without pairing")

# %% [markdown]
# Every pair. That is not 45 witnesses: ten models met the same five seeds, and most of it is one good seed, the fourth, and one
# bad one, the third. Still, in the middle pairing halves the spread, which would otherwise take four times as many seeds. (For
# **MHA** and **MLA** it leaves 0.85.)
#
# What is left scatters around the true difference. The mean of $n$ differences is off by about its [standard
# error](../book/glossary.md#standard-error), $s / \sqrt n$, and a few of them do not know their own spread $s$ well. So an
# [interval](../book/glossary.md#confidence-interval) that is right 95 times of 100 reaches 4.30 standard errors to each side for
# three of them, and 2.78 for five (Student's $t$). Without pairing it would be 2.78 and 2.31: with three seeds, pairing pays
# where it takes away more than a third of the spread.
#
# > **Exercise 13.2** (differences by seed; medium, 15 minutes). Write `paired(a, b)`. `a` and `b` are lists of scores of two models,
# > with the same seeds in the same order. Return the mean of the differences, `a` less `b`, and half the width of its 95 percent
# > interval. `T95[n]` is Student's $t$ for `n` differences more than one.

# %%
from minimodels.exercises.together import T95

print({n: T95[n] for n in range(1, 6)})


# %%
def paired(a, b):
    ...


# %%
check.paired(paired)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def paired(a, b):
#     more = [x - y for x, y in zip(a, b)]
#     error = statistics.stdev(more) / math.sqrt(len(more))
#     return statistics.mean(more), T95[len(more) - 1] * error
# ```
#
# </details>

# %%
from minimodels.exercises.together import paired as of_pairs


def changes(before, after):
    """By how much after is above before, in percent, by seed."""
    return [100 * (after[s] / before[s] - 1)
            for s in sorted(before.keys() & after.keys())]


# %%
mha = bits_of("mla-quality", "mha")
bf16 = bits_of("train-formats", "bf16") | bits_of("fp8-quality", "bf16")
alone = {
    "+ MLA": changes(mha, bits_of("mla-quality", "mla")),
    "+ experts": changes(mha, bits_of("moe-quality", "fine + shared")),
    "+ MTP": changes(mha, bits_of("mtp-quality",
                                  "one module, weight 0.3")),
    "+ FP8": changes(bf16, bits_of("fp8-quality", "V3's"))}
climbed = {name: changes(bits_of("ladder", below),
                         bits_of("ladder", name))
           for below, name in zip(names, names[1:])}

# %% tags=["hide-input"]
both = {f"{name[2:]}, {where}": found[name] for name in alone for where, found in (("alone", alone), ("on the ladder", climbed))}
fig = show.dots(both, unit="bits per byte more than without it, %", concept={label: CONCEPT["+ " + label.split(",")[0]] for label in both},
                title="On the ladder no technique brings measurably more or less than alone")
fig.for_each_trace(lambda stroke: stroke.update(text=[f"{stroke.x[0]:+.2f}".replace("-", "−")]), selector={"mode": "markers+text"})
show.show(fig,
          alt="Eight rows of dots, two for each technique, alone on the yardstick and on the ladder. MLA's lie to the right of zero, those of experts and MTP to the left, FP8's around zero; the two rows of a technique overlap.",
          caption="Recorded: studies mla-quality, moe-quality, mtp-quality, fp8-quality, train-formats and ladder. A dot is a seed, a stroke the mean; left of zero is better.")

# %%
def interval(changes):
    middle, half = of_pairs(changes, [0] * len(changes))
    return f"{middle:+.2f} ± {half:.2f}".replace("-", "−")


show.table([{"technique": name, "alone, %": interval(alone[name]),
             "on the ladder, %": interval(climbed[name]),
             "less alone, by seed": interval([there - here for there, here
                                              in zip(climbed[name],
                                                     alone[name])])}
            for name in alone],
           caption="Change of bits per byte, mean and 95 % interval: five "
                   "seeds alone, three on the ladder, the three of both.")

# %% [markdown]
# In the means latents cost as much as alone, and experts and the module bring some six tenths. Do not believe it yet. Alone has
# two seeds more; on the three that both have, latents cost 1.3 percent alone and 1.0 here, and experts and the module bring two
# thirds and three quarters. Subtract by seed once more: in the last column every interval holds zero, with room to spare.
#
# (It is not quite the same experiment. Alone, the module had the rate 0.02, FP8 stood on bf16 instead of 32 bits, and **MLA** had
# a network of 317 hidden numbers instead of 320, to keep the parameters equal. That last should not matter, and so it shows what
# luck is:)

# %%
near_twins = {"317 hidden numbers": bits_of("mla-quality", "mla"),
              "320 hidden numbers": bits_of("ladder", "+ MLA")}
show.table([{"MLA with": name} | {f"seed {s}": f"{found[s]:.4f}"
                                  for s in (1, 2, 3)}
            for name, found in near_twins.items()])

# %% [markdown]
# Same rate, same batches, and three hidden numbers apart, so that other initial weights are drawn. With seed 2 the twins differ
# by 0.8 percent, as much as a technique. A seed shares the luck of the batches. First weights are luck of their own, and most
# likely that is what you see.
#
# How do you add gains? A technique that takes one percent off takes it off what is left. So relative gains multiply.
#
# > **Exercise 13.3** (add them up; easy, 5 minutes). Write `sum_of_parts(start, gains)`: the score of a model that starts at `start`
# > bits and gets all techniques, if each changes it by as large a part as it changed another model alone. `gains` is `{name: (score
# > without, score with)}`.

# %%
def sum_of_parts(start, gains):
    ...


# %%
check.sum_of_parts(sum_of_parts)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def sum_of_parts(start, gains):
#     return start * math.prod(after / before
#                              for before, after in gains.values())
# ```
#
# </details>

# %%
from minimodels.exercises.together import sum_of_parts as all_parts

promised = [all_parts(100, {name: (100, 100 + change) for name, change
                            in zip(alone, of_seed)}) - 100
            for of_seed in zip(*alone.values())]
gain = changes(bits_of("ladder", "dense"), bits_of("ladder", "+ FP8"))
missing = [g - p for g, p in zip(gain, promised)]
print("promised, by seed:", *(f"{p:+.2f}" for p in promised))
print("measured, by seed:", *(f"{g:+.2f}" for g in gain))
print(f"five seeds promise {interval(promised)} percent; three promise "
      f"{interval(promised[:3])}, and bring {interval(gain)}")
print(f"brought less promised, by seed: {interval(missing)}")

# %% [markdown]
# Over five seeds the parts promise 1.6 percent fewer bits, and over three the whole brings 0.6. Did they get in each other's way?
# Look by seed. The ladder has no seed 4 and no seed 5, and just there the parts promise most. On the seeds that both have, the
# parts promise 0.8 percent, the whole brings 0.6, and the difference could be anything from one percent to minus one. Three seeds
# can just see that the whole is better than the dense model. They cannot see whether it is worse than its parts.
#
# ## Three yardsticks
#
# At equal text the whole model is a little better. But it computes more, and takes longer. What would the dense model do with as
# much of either?

# %% tags=["remove-input"]
show.drawing("fair",
             alt="Two models as bars of blocks, a block for 100 steps. At equal tokens six blocks each: experts 1.62, dense 1.64, experts win. At equal FLOPs nearly the same, experts win. At equal seconds a block of the experts is 1.67 times as wide, the dense model has ten blocks, reaches 1.52, and wins.",
             caption="Chapter 7's experts beside the dense model, on three scales. FLOPs are those of the passes, as papers count them. With the optimizer's the dense model has 757 steps for the same price, reaches about 1.59, and wins there, too.")

# %% [markdown]
# You could train a dense model anew for each rung and each price. Or do it once: measure how its score falls as it trains longer,
# and read from that curve what a score is *worth*. Then hold that against the price, this time with the optimizer's operations.
# (At our 2,048 tokens a step they are a seventh of what the dense model's passes take, and four tenths of the experts'. At
# millions of tokens a step they all but vanish.)
#
# We have five lengths of five studies: 600 steps with five seeds, 894, 1,000 and 1,800 with three (the last in bf16, which [chapter
# 5](05_train.ipynb) could not tell from fp32), and the yardstick's 6,000, a single run. Between them go straight lines
# over the logarithm of the steps. Where points lie far apart, the true curve most likely sags below the line, which makes the
# dense model a little better than we say.
#
# > **Exercise 13.4** (what is a score worth?; medium, 15 minutes). Write `worth(bits, curve)`: how many steps the dense model needs for
# > this score. `curve` is a list of `(steps, bits)`, steps rising, bits falling. Between two points go straight over the logarithm of
# > the steps; beyond the ends go on along the nearest piece.

# %%
def worth(bits, curve):
    ...


# %%
check.worth(worth)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def worth(bits, curve):
#     i = 1
#     while i < len(curve) - 1 and curve[i][1] > bits:
#         i += 1
#     (left, high), (right, low) = curve[i - 1], curve[i]
#     return left * (right / left) ** ((high - bits) / (high - low))
# ```
#
# </details>

# %%
from minimodels.exercises.together import worth as steps_for

curve = [(600, mean(mha.values())),
         (894, mean(bits_of("mtp-quality", "none, same FLOPs").values())),
         (1000, mean(bits_of("moe-seconds", "dense").values())),
         (1800, mean(bits_of("fp8-longer", "bf16").values())),
         (6000, recorded("yardstick")["bits_per_byte"])]
for n_steps, bits in curve:
    print(f"{n_steps:>5} steps: {bits:.4f}")


# %%
def work(row, config):
    """Operations of a training step, the optimizer's too."""
    n_tokens = recipe.batch_size * recipe.seq_len
    return row.flops * n_tokens + cost.muon_flops(config)


def beside(row, config):
    """(worth, price in FLOPs, price in seconds), dense = 1."""
    scores = [steps_for(bits, curve) / 600 for bits in row.bits_per_byte]
    flops = work(row, config) / work(table[0], dense)
    seconds = [a / b for a, b in zip(table[0].train_tokens_per_s,
                                     row.train_tokens_per_s)]
    return scores, flops, mean(seconds)


# %%
against = {row.name: beside(row, rung.model)
           for row, rung in zip(table, climb)}
show.table([{"rung": name,
             "as good as dense, trained": f"{mean(scores):.2f} times "
             f"({min(scores):.2f} to {max(scores):.2f})",
             "price in FLOPs": f"{flops:.2f}",
             "price in seconds": f"{seconds:.2f}"}
            for name, (scores, flops, seconds) in against.items()],
           caption="How long the dense model must train for the score, and "
                   "what a step of the rung costs beside its step, the "
                   "optimizer's FLOPs included.")

# %% tags=["hide-input"]
lengths = [500 * 2 ** (i / 8) for i in range(30)]


def dense_at(steps):
    """The dense model's score, between the measured lengths."""
    low, high = next((a, b) for a, b in zip(curve, curve[1:]) if steps <= b[0] or b is curve[-1])
    share = (math.log(steps) - math.log(low[0])) / (math.log(high[0]) - math.log(low[0]))
    return low[1] + share * (high[1] - low[1])


fig = show.lines({"dense": (lengths, [dense_at(s) for s in lengths])}, x="price, in steps of the dense model", y="bits per byte of unseen text", log_x=True,
                 title="At its own price every rung lies above the dense model's line")
for name, (_, flops, seconds) in list(against.items())[1:]:
    color, bits = show.COLORS[CONCEPT[name]][0], mean(bills[name]["bits per byte"])
    fig.add_scatter(x=[600 * flops, 600 * seconds], y=[bits, bits], mode="lines+markers", line={"color": color, "width": 1, "dash": "dot"}, showlegend=False,
                    marker={"color": color, "size": 10, "symbol": ["circle-open", "circle"], "line": {"width": 2, "color": color}})
    fig.add_annotation(x=math.log10(600 * seconds), y=bits, text=name, showarrow=False, yshift=-16 if name == "+ MTP" else 16, font={"color": color})
fig.add_annotation(x=math.log10(lengths[16]), y=dense_at(lengths[16]), text="dense", showarrow=False, xshift=26, yshift=10)
fig.update_layout(xaxis={"tickvals": [500, 1000, 2000, 4000], "ticktext": ["500", "1,000", "2,000", "4,000"]}, margin={"r": 80})
show.show(fig, alt="The dense model's score falls steadily as its price in steps grows from 500 to over 6,000. The four rungs lie near the left end's height and further right: each above the line, with its price in operations a hollow dot and in seconds a filled one.",
          caption="Recorded: ladder, ladder-pace; the line: mla-quality, mtp-quality, moe-seconds, fp8-longer and yardstick (one seed). Hollow: price in operations, with the optimizer's. Filled: in seconds, for FP8 those of an imitation. "
                  "Above the line the dense model, trained as long, is better.")

# %% [markdown]
# Here is our machine's verdict, after 600 steps. At equal text the two upper rungs are better than the dense model, with each of three seeds. But
# their lead is worth four percent more training (the top's, by seed: nothing to nine), and they cost 88 percent more operations,
# and two and a half times the seconds or more. Spend that on the dense model, and it wins by more than all four techniques bring.
#
# Why so clearly? After 600 steps what our model lacks is text: a tenth more of it still takes off more than one percent. Sooner or
# later a tenth is worth less, as from 1,800 steps on, and a gain at equal text is worth more, if the gain itself stays. V3 has read
# 14.8 trillion tokens.
#
# ## Where the lines cross
#
# A loss here is not a loss everywhere, for some of these prices fall with size. Can small measurements say where a technique
# begins to pay? This is [extrapolation](../book/glossary.md#extrapolation): it leaves what we measured, on purpose, and says how
# far.

# %% tags=["remove-input"]
show.drawing("crossing",
             alt="Two logarithmic axes: size of the model, and seconds with a technique by seconds without. Three measured dots fall from the upper left, above one; the dashed line drawn on through them crosses one further right, inside a wedge that widens with the distance.",
             caption="Dots are knowledge, dashes are a guess, and the wedge is how much of one.")

# %% [markdown]
# A ratio that is a power of the size is a straight line where both axes are logarithmic, and two points fix it.
#
# > **Exercise 13.5** (where they cross; easy, 10 minutes). Write `crossing(x1, r1, x2, r2)`: a ratio is a power of $x$; it is `r1` at
# > `x1` and `r2` at `x2`. Where is it 1?

# %%
def crossing(x1, r1, x2, r2):
    ...


# %%
check.crossing(crossing)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def crossing(x1, r1, x2, r2):
#     power = math.log(r2 / r1) / math.log(x2 / x1)
#     return x1 * r1 ** (-1 / power)
# ```
#
# </details>

# %%
from itertools import product

from minimodels.exercises.together import crossing as crosses

overhead = {}
for t in recorded("cost-sparsity")["trials"]:
    ms, flops = t["ms"], t["done_flops"]
    time_left = statistics.median(
        s / d for s, d in zip(ms["sparse"], ms["dense"]))
    overhead.setdefault(t["arm"], []).append(
        time_left * flops["dense"] / flops["sparse"])
narrow, wide = overhead["D=128"], overhead["D=256"]
for arm, found in overhead.items():
    print(arm, [f"{x:.2f}" for x in sorted(found)])

# %% [markdown]
# **Experts.** How much longer does an operation take in a sparse model than in a dense one with as many parameters? At one, all
# saved arithmetic would arrive as saved time. In chapter 1's records it is 7 to 37 percent longer at width 128 (and still the
# step was shorter by 11 to 31), at 256 6 to 11. Draw it on, with every pair of repetitions:

# %%
pairs = list(product(narrow, wide))
found = sorted(crosses(128, a, 256, b) if a > b else math.inf
               for a, b in pairs)
at_v2 = sorted(a * (b / a) ** math.log2(5120 / 128) for a, b in pairs)
print("they cross at width", *(f"{x:,.0f}" for x in found))
print(f"at V2's width they say {at_v2[0]:.2f} to {at_v2[-1]:.2f}, in the "
      f"middle {statistics.median(at_v2):.2f}")

# %% [markdown]
# Two widths give a number, and three repetitions take much of it back: of nine lines six cross between 304 and 416, one at
# 25,764, and two never. Worse, the form was our choice. A power goes through one and on: at V2's width of 5,120 the middle line
# has an operation take half the dense time. Why should it? An overhead may shrink towards one and never reach it. Then the world
# takes the rest. V2 lost a third of its dense predecessor's use of the chip (25 percent beside at least 38, found [chapter
# 1](01_cost.ipynb)). On one core an expert is a small matrix, and at DeepSeek's size it is another machine. **A trend ends where
# its cause changes.**
#
# **Latents.** In chapter 6's recorded layers, how long must the context be before reading latents is as fast as reading the keys
# and values of **MHA**?

# %%
decoding = recorded("mla-decoding")["trials"]


def context_for(times, rival="MHA"):
    """Tokens of context from which on absorbed MLA is as fast."""
    at = {int(S): statistics.median(
        r / m for r, m in zip(ms[rival], ms["MLA absorbed"]))
        for S, ms in times.items()}
    (x1, r1), (x2, r2) = list(at.items())[-2:]
    if r2 < 1:                          # draw on from the two longest
        return crosses(x1, r1, x2, r2) if r2 > r1 else math.inf
    return next(S for S in at if all(at[T] >= 1 for T in at if T >= S))


at_par = {}
for t in decoding:
    at_par.setdefault(t["arm"], []).append(context_for(t["ms"]))

# %%
def tokens(x):
    return "never" if x > 1e6 else "≤ 256" if x == 256 else f"{x:,.0f}"


show.table([{"model width": int(arm[2:]),
             "repetition 1": tokens(a), "2": tokens(b), "3": tokens(c)}
            for arm, (a, b, c) in at_par.items()],
           caption="Tokens of context from which on MLA's layer decodes as "
                   "fast as MHA's: measured from 256 to 8,192, then drawn "
                   "on.")

# %% [markdown]
# At width 96 two of three repetitions find no crossing, at 192 each finds another, and from 384 on the layers cross within what
# was measured. Our ladder is 128 wide. Where its latents would save time we do not know, and the table says how much we do not
# know it. The trend is plain, if not each step: a wider layer, with more or wider heads, crosses earlier. (**MHA** is an easy
# rival. Beside grouped heads none crosses up to width 192, and at 1,536 it takes 4,096 tokens.)
#
# **The module.** Drafts make writing $(1 + a) / (c + d)$ times as fast: a share $a$ of them stands, a pass over two tokens costs
# $c$ passes, a draft $d$. A draft is one layer and a head: dear beside four layers, cheap beside sixty-one. Take from chapter 9's
# recorded times what a layer costs, and add layers on paper:

# %%
def speed_up(ms, n_layers, share):
    """With drafts, if the model had so many layers; batch 1."""
    one, two, draft = (statistics.median(ms[part]) for part in
                       ("1 tokens", "2 tokens", "draft"))
    layer = (one - draft) / 3           # four layers and a head, less one
    whole = draft + (n_layers - 1) * layer
    return (1 + share) * whole / (whole * two / one + draft)


passes = [t["ms"] for t in recorded("mtp-pass")["trials"]
          if t["arm"] == "B=1"]
many = [4, 6, 9, 14, 20, 30, 45, 61]
spans = {n: [speed_up(ms, n, a) for ms in passes for a in (0.85, 0.9)]
         for n in many}

# %% tags=["hide-input"]
fig = show.lines({"drafts": (many, [statistics.median(spans[n]) for n in many]), "no drafts": (many, [1.0] * len(many))},
                 spread={"drafts": ([min(spans[n]) for n in many], [max(spans[n]) for n in many])}, concept={"drafts": "mtp"},
                 x="layers of the model", y="times as fast", log_x=True, title="The more layers, the cheaper a draft: from 1.25 times as fast to 1.7")
fig.update_traces(mode="lines")
fig.update_traces(line_dash="dash", selector={"name": "drafts"})
fig.add_scatter(x=many[:1], y=[statistics.median(spans[4])], mode="markers", showlegend=False, marker={"size": 10, "color": show.COLORS["mtp"][0]})
fig.add_scatter(x=[61], y=[1.8], mode="markers+text", text=["V3, reported"], textposition="bottom left", showlegend=False,
                marker={"symbol": "diamond", "size": 11, "color": show.COLORS["ink"][0]})
fig.update_layout(xaxis={"tickvals": many, "ticktext": [str(n) for n in many], "range": [math.log10(3.7), math.log10(68)]})
show.show(fig, alt="A dashed curve with a band rises from about 1.25 at four layers to 1.7 at sixty-one. A diamond at sixty-one layers and 1.8 marks what DeepSeek reports, a little above the band.",
          caption="Extrapolated from minimodels study mtp-pass, batch 1, three repetitions, with 85 to 90 percent of the drafts standing. At the dot pass and draft are measured, along the dashes they are a guess.")

# %%
print(f"61 layers: {min(spans[61]):.2f} to {max(spans[61]):.2f} times as "
      f"fast, if 85 to 90 percent of the drafts stand")
print("V3 reports 1.8 times, with 85 to 90 percent")
for n in (4, 61):
    half = [speed_up(ms, n, 0.51) for ms in passes]
    print(f"{n} layers, and half of the drafts stand: {min(half):.2f} to "
          f"{max(half):.2f} times")

# %% [markdown]
# With half of the drafts, as on our ladder, four layers win nothing: layers make a draft cheap, training makes it right. Our core
# and DeepSeek's GPUs have little in common, and yet counting layers leads close to V3's figure. Do not be too pleased. With 85 to
# 90 percent it had to lie below 1.9. And with 32 texts at a time a second token costs 24 to 28 percent of a pass here, not 2 to
# 11, and in a mixture of experts it may wake others (see [chapter 9](09_mtp.ipynb)).
#
# **Eight bits.** There is nothing to draw on: no width makes our processor multiply eight-bit floats. Where a GPU does, products
# take half the time at best. Of V3's work 85 percent are such products, so all of it gets at most $1 / (0.15 + 0.85 / 2) = 1.74$
# times as fast.

# %% [markdown]
# ## The whole model, trained for longer
#
# Six hundred steps are a beginning, and "if the gain itself stays" was an *if*. So the top rung was trained for 6,000 too, in
# eight-bit products from the first to the last, on the same tokens on which chapter 5 trained the dense yardstick.
#
# > **Before you read on.** After 600 steps the whole model needs 0.6 percent fewer bits than the dense one. And after 6,000: less
# > than that, as much, or more?
# >
# > <details><summary>What we found</summary>
# >
# > **Ten times as much: 6.1 percent.**
# >
# > </details>

# %%
ends = {"600 steps, mean of three seeds": (table[-1].bits_per_byte,
                                           table[0].bits_per_byte),
        "6,000 steps, one seed": ([recorded("together")["bits_per_byte"]],
                                  [recorded("yardstick")["bits_per_byte"]])}
show.table([{"trained for": name, "dense": f"{mean(plain):.4f}",
             "everything": f"{mean(every):.4f}",
             "less, %": f"{100 * (1 - mean(every) / mean(plain)):.1f}",
             "worth, times as long":
             f"{steps_for(mean(every), curve) / n_steps:.2f}"}
            for n_steps, (name, (every, plain)) in
            zip((600, 6000), ends.items())])

# %% [markdown]
# One seed each; but three seeds of a rung lay within 1.3 percent after 600 steps, three of the dense model within 1.4 after 1,800, and
# this is six. The gain at equal text did not stay. It grew. When? Both runs read the same batches, so their losses can be laid side by side:

# %% tags=["hide-input"]
logs = [{r["step"]: r["loss"] for r in recorded(name)["records"]} for name in ("together", "yardstick")]
ends_at = list(range(100, 6001, 100))
lead = [100 * (mean(logs[0][s] for s in range(end - 90, end + 1, 10)) / mean(logs[1][s] for s in range(end - 90, end + 1, 10)) - 1) for end in ends_at]
fig = show.lines({"everything": (ends_at, lead)}, concept={"everything": "fp8"}, x="step", y="training loss beside the dense model's, %",
                 title="The lead is made in the first reading, and jumps in the fifth and sixth")
for at, words in ((600, "the ladder ends"), (1123, "read once"), (3600, "the rate falls"), (4492, "fifth reading"), (5615, "sixth")):
    fig.add_vline(x=at, line={"width": 1, "dash": "dot", "color": show.COLORS["muted"][0]})
    fig.add_annotation(x=at, y=-11 if at < 3600 else 2, text=words, showarrow=False, textangle=-90, xshift=-10, yanchor="bottom" if at < 3600 else "top")
show.show(fig, alt="A line over 6,000 steps: near zero until step 600, minus five percent by step 1,100, between minus four and minus seven until step 4,500, then two steps down, where the fifth and the sixth reading begin, to minus ten.",
          caption="Recorded: runs together and yardstick, one seed each, the same batches; means of 100 steps.")

# %% [markdown]
# Until step 600 there is nothing to see. By step 1,100 the whole model is five percent ahead, on text that neither has read before:
# this is no learning by heart. There it stays, through two more readings and most of a fourth. Then, with the rate already falling,
# the lead jumps twice, to seven percent and to ten, each time where the text begins anew. That part is text that it remembers
# better; on unseen text six are left. Our ladder had stopped just before its ends parted.
#
# Is that worth the price? After 600 steps the lead was worth four percent more training, now about twice as much. (That is read off
# beyond the end of the dense line, as if its last piece, from 1,800 steps on, went on. A hundredth of a bit of luck in the dense run
# alone makes it 1.7 times or 2.3.) A step costs 1.9 times the operations, and 2.65 times the seconds without eight bits; imitated,
# as in this run, four times. So per operation, where the dense model led by ten percent, the two are level as far as we can see.
# Per second it would still lead, by three percent (in imitated eight bits by seven), if its line went on as straight to step 15,900
# and beyond. It has been flattening, so that is the most to expect.
#
# Two cautions. Both runs kept the rate that was best after 600 steps; whether it is the best for 6,000, and for both alike, nobody
# has searched. And which technique did it, two runs cannot say. Experts are the first suspect, for they triple the parameters that
# can keep what a text teaches. But from 600 steps to 1,000 [chapter 7](07_moe.ipynb) could not show that their lead grows.
#
# Is the checkpoint sound? Three questions. Does it need eight bits to read what it learnt in eight bits? How many drafts stand on
# unseen text? Who is busy among the experts?

# %% tags=["nbval-ignore-output"]
from minimodels.checkpoint import Run
from minimodels.evaluate import acceptance, windows
from minimodels.fp8 import convert
from minimodels.studies.moe_routing import choices

run = Run.open(lab.data_file("checkpoints/together"))
whole = run.model()
unseen = prepare("stdlib", 4096, max_bytes=LIVE_BYTES,
                 tokenizer=run.tokenizer)
pages = next(windows(unseen.valid, 256, 32))
for name, model in {"32": whole, "8": convert(run.model())}.items():
    scored = evaluate(model, unseen.valid[:32 * 255], seq_len=256,
                      n_bytes=unseen.valid_bytes)
    print(f"read in {name} bits: {scored.loss:.4f} nats a token")
print(f"drafts that stand: {acceptance(whole, pages)[0].mean():.1%}")
for layer, chosen in choices(whole, pages).items():
    load = chosen.flatten().bincount(minlength=31) / chosen.numel() * 31
    print(f"layer {layer}: the busiest expert has {load.max():.1f} times "
          f"its share, the idlest {load.min():.2f}")

# %% [markdown]
# None of it is strange. Computed in 32 bits it is no worse than in eight: FP8 is a way to multiply, and no dialect. (These pages
# are harder than the rest: all unseen text takes 2.97 nats a token.) Three of five drafts stand, where after 600 steps it was half.
# No expert starves, and the busiest has about twice its share. And this is what it writes, drawn at temperature 0.8; then greedily,
# with drafts and without:

# %% tags=["nbval-ignore-output"]
from minimodels.generate import decode

start = run.tokenizer.encode("class Queue:\n    ").ids
told = decode(whole, [start], max_new_tokens=72, temperature=0.8,
              generator=torch.Generator().manual_seed(0))
print(run.tokenizer.decode(start + told.tokens[0]))
plain, drafted = (decode(whole, [start], max_new_tokens=72, draft=draft)
                  for draft in (None, "mtp"))
assert plain.tokens == drafted.tokens
print(f"\ngreedy: {drafted.tokens_per_pass:.2f} tokens a pass with drafts, "
      f"and the same text")

# %% [markdown]
# Python by its looks, and no program. That is what 1.13 bits per byte look like. (Of the greedy drafts four of five stand: what the
# model writes without luck it also guesses more easily.)
#
# ## Which rung for what?
#
# Nobody pays in all currencies. A telephone has little memory and one reader, a server has many readers, a laboratory has a sum
# of money. Write down a winner for each of the five purposes. Then click, and move the price that would make you right.

# %%
WhichRung.of(table)

# %% [markdown]
# (All of this is the ladder after 600 steps; of 6,000 we have its ends only.) The dense model takes the telephone and the fixed bill. Latents take the server, if barely, and the long context for its memory.
# (The seconds there are still those behind 64 tokens.) The module, on top of experts, takes the case in which there is no more
# text to read, if a hundredth of a bit is worth 0.4 cents or more. So the ladder is no staircase on which higher is better. It is
# a row of answers, each to another question.
#
# > **Exercise 13.6** (the whole bill; medium, 15 minutes). Train once, write for years. Write `cheapest(models, price, n_written)`.
# > `models` is `{name: (tokens to train on, tokens a second in training, tokens a second in writing)}`, `price` the price of an hour
# > of a training machine and of a writing one, in dollars, and `n_written` all tokens that the model will write. Return the name of
# > the model with the lowest bill, and the bill.

# %%
def cheapest(models, price, n_written):
    ...


# %%
check.cheapest(cheapest)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def cheapest(models, price, n_written):
#     bills = {}
#     for name, (n_trained, trains, writes) in models.items():
#         seconds = n_trained / trains * price[0]
#         seconds += n_written / writes * price[1]
#         bills[name] = seconds / 3600
#     name = min(bills, key=bills.get)
#     return name, bills[name]
# ```
#
# Who writes little should look at training, who writes much at writing. Somewhere between, the answer changes.
#
# </details>
#
#
# ## Comparisons that still look right
#
# A wrong layer still trains. A wrong comparison still prints a table. Here are four, made on purpose from the book's own records.
#
# ### One rate for all
#
# "All models were trained with identical settings." It sounds fair. Take four peak rates of Muon:

# %%
searched = {"dense": ("mla-rates", "mha "),
            "experts": ("moe-rates", "fine + shared "),
            "MTP": ("mtp-rates", "")}
by_rate = []
for rate in ("0.005", "0.01", "0.02", "0.04"):
    found = {name: bits_of(study, arm + rate)[0]
             for name, (study, arm) in searched.items()}
    by_rate.append({"rate": rate}
                   | {name: f"{bits:.4f}" for name, bits in found.items()}
                   | {"best": min(found, key=found.get), "MTP's gain":
                      f"{found['dense'] - found['MTP']:.4f}"})
show.table(by_rate, caption="Bits per byte, one seed; each alone.")

# %% [markdown]
# At the yardstick's own rate, 0.01, and with this seed experts win, and the module brings 0.0015 bits: you would have dropped it.
# At 0.02 it brings ten times as much, and wins. (Some of that may be luck: on the ladder it brought 0.013 at 0.01.) Identical
# settings are settings that somebody searched for one of the models.
#
# ### One seed each
#
# > **Exercise 13.7** (the wrong winner; easy, 10 minutes). Write `wrong_winner(a, b)`: `a` and `b` are scores of two models, a run each.
# > Of all pairs of a run of `a` and a run of `b`, in which share is the model that is worse in the mean ahead? A tie counts half.

# %%
def wrong_winner(a, b):
    ...


# %%
check.wrong_winner(wrong_winner)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def wrong_winner(a, b):
#     if statistics.mean(a) > statistics.mean(b):
#         a, b = b, a                       # now a is the better one
#     return statistics.mean((x > y) + (x == y) / 2 for x in a for y in b)
# ```
#
# </details>

# %%
from minimodels.exercises.together import wrong_winner as unlucky

arms = {"MHA": mha, "GQA": bits_of("mla-quality", "gqa"),
        "MLA": bits_of("mla-quality", "mla"),
        "experts": bits_of("moe-quality", "fine + shared"),
        "a module": bits_of("mtp-quality", "one module, weight 0.3"),
        "bf16": bf16, "FP8": bits_of("fp8-quality", "V3's")}
show.table([{"better in the mean": a, "worse in the mean": b,
             "the other one ahead, % of pairs": round(100 * unlucky(
                 list(arms[a].values()), list(arms[b].values())))}
    for a, b in (("MHA", "MLA"), ("GQA", "MLA"), ("a module", "MHA"),
                 ("a module", "experts"), ("FP8", "bf16"))])

# %% [markdown]
# With one seed each, a third of all authors would have found that latents beat grouped heads. Would they have been wrong? We
# cannot say: over five seeds grouped heads are ahead by 0.3 percent, ± 0.5. Between experts and the module, or between eight bits
# and sixteen, a coin would have done nearly as well. Nobody would have lied.
#
# ### One after the other
#
# Time one model, then the other, and divide. In chapter 9's record a pass over one token and a pass over two, for eight texts,
# took turns for fifteen rounds. In the first repetition the machine became faster after the ninth, by a third and more. Suppose
# we had not taken turns:

# %%
ms = next(t["ms"] for t in recorded("mtp-pass")["trials"]
          if t["arm"] == "B=8")
one, two = ms["1 tokens"], ms["2 tokens"]
in_turns = statistics.median(b / a for a, b in zip(one, two))
one_first = statistics.median(two[8:]) / statistics.median(one[:7])
two_first = statistics.median(two[:7]) / statistics.median(one[8:])
print(f"two tokens by one: in turns {in_turns:.2f}, "
      f"one first {one_first:.2f}, two first {two_first:.2f}")

# %% [markdown]
# Take your pick: two tokens are cheaper than one, or cost more than twice as much. Both are medians of seven honest rounds. In
# turns a slow moment meets both: 1.5 here, and 1.3 in the two quieter repetitions.
#
# ### Total parameters called size
#
# "A model of 3.9 million parameters." Which dense one do you set beside it?

# %%
sized = {"dense": ("mla-quality", "mha"),
         "dense, wider": ("train-larger", "D=192"),
         "31 experts and 1": ("moe-quality", "fine + shared")}
for name, (study, arm) in sized.items():
    of = [t for t in recorded(study)["trials"] if t["arm"] == arm]
    print(f"{name:16} {of[0]['n_params'] / 1e6:.2f} million parameters, "
          f"{mean(t['bits_per_byte'] for t in of):.3f} bits per byte")

# %% [markdown]
# By what works on a token, 1.29 million, experts stand beside the first row, and win. By what fills the memory they stand beyond
# the second, and lose. (The wider one has two seeds, and twice the work for a token.) Both are true, and each is somebody's
# advertisement.
#
# > **Bugs that still train.**
# > - **One rate for all.** Whoever's rate it is wins. Search for each arm.
# > - **One seed each.** Print the spread, and by seed. Three seeds, paired, saw 0.3 to 1.1 percent here: a percent with luck, a
# >   tenth never.
# > - **One after the other.** A machine has moods. Take turns.
# > - **Total parameters called size.** Say both, and say which one you hold equal.
#
# ## Does it pay here?
#
# > **Does it pay here?** **In bytes of cache, and for each token of text: a little after 600 steps, six percent after 6,000. Per
# > operation not after 600 steps; after 6,000 it is about even. Per second not.**
# >
# > - **At equal text:** 0.6 percent fewer bits after 600 steps (three seeds: 0.3 to 0.8), 6.1 after 6,000 (one seed).
# > - **At equal FLOPs:** after 600 steps it loses. Its score is worth four percent more training (nothing to nine), its step takes 1.9
# >   times the operations, the optimizer's included (1.6 without). After 6,000 the score is worth about twice the training (one seed,
# >   drawn on beyond the dense line: 1.7 to 2.3).
# > - **At equal seconds:** it loses: 2.65 times the seconds with the module, four times with eight bits imitated.
# > - **In memory:** a cached token takes 28 percent of the bytes. To train takes 1.9 times as many, FP8's saving included.
# > - **At DeepSeek's scale:** 42.5 percent fewer hours for as much text, in a model (V2) that has latents and experts, and differs
# >   in much else. The module costs V3 four percent of its operations; what eight bits saved is not published.
#
# ## The claims again
#
# > **Exercise 13.8** (what is left of it; easy, 10 minutes). Write `utilisation_left(old, new)`. Each is `(FLOPs of a token, time of a
# > token)`, on the same hardware. What part of the old model's share of the peak does the new one reach?

# %%
def utilisation_left(old, new):
    ...


# %%
check.utilisation_left(utilisation_left)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def utilisation_left(old, new):
#     (old_flops, old_time), (new_flops, new_time) = old, new
#     return (new_flops / new_time) / (old_flops / old_time)
# ```
#
# </details>

# %%
from minimodels.exercises.together import utilisation_left as left

v2 = left((67, 300.6), (21, 172.8))
ours = [left((table[1].flops, 1 / a), (table[2].flops, 1 / b))
        for a, b in zip(table[1].train_tokens_per_s,
                        table[2].train_tokens_per_s)]
print(f"V2 beside the dense 67B: work {21 / 67:.0%}, hours "
      f"{172.8 / 300.6:.1%}, so {v2:.0%} of its use of the chips is left")
print(f"our experts beside their dense twin: {mean(ours):.0%} "
      f"({min(ours):.0%} to {max(ours):.0%})")

# %% [markdown]
# By active parameters V2 does 31 percent of the work, and it took 57.5 percent of the hours. So its GPUs did half as much in an
# hour, or a little more. ([Chapter 1](01_cost.ipynb) counted V2's attention scores too, and found two thirds left.) Our experts,
# the optimizer left out as it is there, keep 63 percent on a single core. (Count the optimizer's products as work, and they keep
# 79.) The causes differ: here the optimizer, which turns every expert's matrices, then small products and sorting; there, most
# likely, the network between machines. The lesson is one: **work that is left out is not time that is saved.**
#
# Back to the question from the top: what saved the 42.5 percent? V2 has neither the module nor eight-bit training. Latents save
# cache, which training does not keep; at V3's sizes, beside grouped heads such as the predecessor had, they save 6 percent of the
# work, and that is the squeezed queries' doing (exercise 13.9). By counting, then, the bulk is that most parameters rest:
# sparsity, less what sparsity costs. Nobody has measured it apart.
#
# And the press's 95? Beside a dense model of V3's class, Llama 3.1 405B, work on a token is a tenth, and hours are 9 percent, for
# nearly as much text. The work that is left out is nearly all the experts' doing. If the hours follow so closely, something else
# must have paid for what sparsity loses: eight bits, perhaps. What lies between this and "5 million instead of 100" is no
# technique: one run set beside a rumoured total, two years of progress, and another chip ([chapter 1](01_cost.ipynb) shares it
# out).

# %% tags=["remove-input"]
ledger.show("C08", "C11")

# %% [markdown]
# ## What production does
#
# DeepSeek climbs from above. Its [ablations](../book/glossary.md#ablation) switch one technique off in a model that has others:
# latents in two models ([DeepSeek-V2](../book/references.md#deepseek-v2), Table 9), the module and the bias in two sizes each
# ([DeepSeek-V3](../book/references.md#deepseek-v3), Tables 4 and 5), FP8 in two (appendix B.1). Two sizes are the smallest ladder
# on which one can see whether a gain grows or shrinks.
#
# > **Takeaways**
# > 1. Let neighbours differ in one field, and prove it. What you cannot hold equal, write down.
# > 2. Every gain has a currency. Here latents save cache and nothing else, experts and the module save bits at equal text, and no
# >    rung saves a second of training.
# > 3. Relative gains multiply, unless techniques get in each other's way. On the ladder's three seeds the parts promised 0.8 percent
# >    and the whole brought 0.6, give or take one. Compare on the same seeds, or you compare seeds.
# > 4. Ask what a score is worth: as good as the plain model, trained how much longer? Then ask for the price. And ask again later:
# >    0.6 percent after 600 steps were six after 6,000 (one seed), and what had lost per operation was about even.
# > 5. A trend may be drawn on to a crossing, until its cause changes. From 67B to V2 the work fell by six tenths or more, and about
# >    a third of that was lost on the way to hours.
#
# ## Longer problems
#
# > **Exercise 13.9** (a fairer rival; easy, 20 minutes). In V3's ladder the dense model has **MHA**, with which nobody would build
# > it. Give the lowest rung **GQA** with eight groups instead. What do latents still save there, in parameters, operations and cache?
# > How many groups have V3's cache?
#
# <details><summary>Solution</summary>
#
# ```python
# rival = replace(large["dense"], attention="gqa", n_kv_heads=8)
# for name, count in {
#         "parameters": lambda c: c.n_params,
#         "FLOPs": lambda c: cost.flops_per_token(c, seq_len=4096),
#         "cache": lambda c: cost.cache_bytes(c, 1)}.items():
#     print(name, count(large["+ MLA"]) / count(rival))
# print(576 / (2 * 128), "groups")
# ```
#
# 0.91, 0.94 and 0.28, and 2.25 groups. Beside a sensible rival latents save 6 percent of the work and not 28. The cache is why
# one would want them. (And the 6 percent are not the latent's own. V3 squeezes its queries, too. With `d_query_latent=None` the
# ratio of operations is 1.11: without that, latents would cost work.)
#
# </details>
#
# > **Exercise 13.10** (how many seeds?; medium, 30 minutes). FP8 and bf16 differ by less than their seeds do. From the five
# > differences by seed, estimate how many seeds you would need for an interval of ± 0.1 percent, and of ± 0.05. What would it be
# > without pairing?
#
# <details><summary>Hint</summary>
#
# Half the width is $t \, s / \sqrt n$. For more than thirteen seeds take $t = 2$. Without pairing $s$ is the root of both variances,
# added.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# eight = bits_of("fp8-quality", "V3's")
# a, b = ([100 * bits[s] / mean(bf16.values()) for s in range(1, 6)]
#         for bits in (eight, bf16))
# by_seed = statistics.stdev(x - y for x, y in zip(a, b))
# apart = (statistics.variance(a) + statistics.variance(b)) ** 0.5
# for s in (by_seed, apart):
#     for wanted in (0.1, 0.05):
#         n = 2
#         while T95.get(n - 1, 2) * s / n**0.5 > wanted:
#             n += 1
#         print(f"spread {s:.2f} %, ± {wanted} %: {n} seeds")
# ```
#
# 26 and 104 with pairs, 89 and 356 without. The spread itself was estimated from five differences, so do not quote the last
# digit. Whoever claims a tenth of a percent at this size owes you 26 pairs, some fifty runs, and even then would find a true
# tenth only half of the time.
#
# </details>
#
# > **Exercise 13.11** (all orders; hard, 1 hour). A ladder has an order, and with it somebody's verdict. Four techniques, on or
# > off, are sixteen models. Which of them does this book have recorded, at 600 steps, with the seeds 1 to 3? Suppose that gains
# > multiply. Predict the other ones from each technique alone, and say which missing model would be the sharpest test of "they multiply".
#
# <details><summary>Hint</summary>
#
# A model is a set of techniques. Where two techniques work on the same thing, their gains should overlap. Which two might?
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# known = [set(), {"MLA"}, {"MLA", "experts"}, {"MLA", "experts", "MTP"},
#          {"MLA", "experts", "MTP", "FP8"}, {"experts"}, {"MTP"}, {"FP8"}]
# single = {name[2:]: 1 + mean(found) / 100 for name, found in alone.items()}
# for n in range(5):
#     for chosen in combinations(single, n):
#         bits = mean(mha.values()) * math.prod(single[t] for t in chosen)
#         print(f"{bits:.4f}", "recorded" if set(chosen) in known else "-",
#               *chosen)
# ```
#
# Eight are recorded, of which FP8 alone stands on bf16. A sharp test is a pair in which both gain, and perhaps the same thing:
# experts and the module, without latents. The ladder has them only on top of latents, where together they bring 1.5 percent and
# alone, with the same seeds, promise 2.1: a reason to train the missing model, and no finding, for we looked first. You can train
# it in half an hour: three seeds of `replace(experts, attention="mha", mtp_depth=1)`. We have not.
#
# </details>
#
# You have built all of it, and paid for all of it. What is left is to use it: to serve it to many, and to teach it to think
# before it answers.
#
# > **Next: [Better than its own group](15_grpo.ipynb).** A model learns to reason from nothing but right and wrong.
