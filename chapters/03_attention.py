# ---
# jupyter:
#   book:
#     number: 3
#     reading: 80 min
#     cpu: 40 s, 1.4 GB
#     needs: "[Data](02_data.ipynb): tokens, and bits per byte"
#     terms:
#       attn: [k, v]
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: book
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Attention
#
# [Open in Colab](https://colab.research.google.com/github/minimodels/small-models-big-claims/blob/main/chapters/03_attention.ipynb)
#
# > *To say what comes next, look at what came before.*
#
# > **You will be able to**
# > - compute causal attention by hand, with whole numbers, and then for a whole layer;
# > - say what a rotation has to do with word order, and test that only distances count;
# > - find heads with a job that has a name in a trained model, and prove it with a cut;
# > - build a KV cache, prove that it changes nothing, and count what it keeps;
# > - explain why the same model reads many times as fast as it writes;
# > - catch a mask that leaks before it makes you famous.

# %%
BOOK = "git+https://github.com/minimodels/small-models-big-claims"
try:
    import minimodels
except ModuleNotFoundError:  # in Colab, where the book is not installed yet
    import subprocess, sys
    pip = [sys.executable, "-m", "pip", "install", "-q", BOOK]
    subprocess.run(pip, check=True)

# %% tags=["nbval-ignore-output"]
import copy
import math
import statistics
import time

import torch
from torch import einsum
from minimodels import exercises, lab, show
from minimodels.config import ModelConfig
from minimodels.explorables import AttentionPattern
from minimodels.studies import recorded

check = exercises.load("attention")
print(lab.tier())

# %% [markdown]
# ## The pain
#
# **23 times**
#
# > **Margin.** One thread of an AMD EPYC, 51 million weights, a batch of one, 128 tokens written before; a prompt of 512. The
# > median of 21 rounds, which went from 21 to 33. [Below](#Why-writing-is-slow) you measure your own machine.
#
# So much longer does our test model take for a token that it *writes* than for one that it *reads*: the same model, the same
# weights, about the same multiplications. Nothing is wrong with the code. Where does the time go?
#
# The answer needs attention, what attention keeps, and what it costs to fetch it. At the end you can say where the larger
# part of that factor comes from, with two numbers of your machine: how fast it fetches, and how fast it multiplies.
#
# ## What the press said
#
# An opinion piece from the weeks after R1: traditional systems handle text strictly one word after another, DeepSeek's takes
# in whole phrases at once. The first half is claim C52 of [our list](../book/ledger.md); the second, C48, is chapter 9's.
#
# > **Before you read on.** A Transformer of 2017 gets a prompt of 500 words. How many of them does it handle at once: one,
# > a phrase of some five, or all 500?
# >
# > <details><summary>What we found</summary>
# >
# > **All 500.** Reading in parallel is what attention was made for. Only writing goes one after another, and in DeepSeek-V3
# > it does too. The [verdict](#The-claim-again) stands at the end.
# >
# > </details>
#
# ## The idea, by hand
#
# In a text, a token's meaning lies in other tokens. In `width * height` the second name is easier to guess once you have
# looked back and found `area`. [Attention](../book/glossary.md#attention) is a way to look back that can be trained.
#
# Each token makes three short lists of numbers from its [hidden state](../book/glossary.md#hidden-state), the numbers that
# stand for it inside the model. A **query**: what am I looking for? A **key**: what can I be found by? A **value**: what do
# I have to say? Three matrices of weights make them, `w_q`, `w_k` and `w_v`, and training adjusts these. A query is
# multiplied with the key of every token up to its own: number by number, and added up. The larger this product, the better
# the fit. The products are turned into shares that add up to 1, and by these shares the values are added. One such set of
# queries, keys and values is a **head**. The picture has one; a layer has several.

# %% tags=["remove-input"]
show.drawing("lookback",
             alt="The query of the word sat, (1, 1), meets three keys; the products are 0, 3 and 0, two to that 1, 8 and 1, the shares 0.1, 0.8 and 0.1; the values added by these shares give (2, 9).",
             caption="One query, three tokens, in numbers small enough to check in your head.")

# %% [markdown]
# Check one row. The query of *sat* is $(1, 1)$, the key of *cat* is $(3, 0)$, so the product is $1 \cdot 3 + 1 \cdot 0 =
# 3$. To turn products into shares, take two to the power of each, here $1$, $8$ and $1$, and divide by their sum, $10$.
# Large products win, and none is left with nothing. Models take $e = 2.718…$ instead of 2, and the recipe is called
# [softmax](../book/glossary.md#softmax).
#
# Written for the query at place $t$ and the sources $s$ that it may see:
#
# $$\begin{aligned} p_{t,s} &= \mathrm{softmax}_{s \le t} \left( \frac{q_t \cdot k_s}{\sqrt{D_h}} \right) \\ o_t &= \sum_{s \le t} p_{t,s}\, v_s \end{aligned} \tag{3.1}$$
#
# | Symbol | Meaning | here | Shape |
# |---|---|---|---|
# | $h$ | hidden state, of width $D$ | 128 | `(B, T, D)` |
# | $q$ | queries of $H$ heads, $D_h$ wide | 8 × 16 | `(B, T, H, Dh)` |
# | **k**, **v** | keys and values | 8 × 16 | `(B, S, H, Dh)` |
# | $p$ | shares, the attention weights | | `(B, H, T, S)` |
# | $o$ | outputs, the sums by share | 8 × 16 | `(B, T, H, Dh)` |
#
# $B$ counts texts, $T$ queries, $S$ sources; while a text is read, $T = S$. Two things are new: the root, which is step two
# below, and the $s \le t$ under softmax and sum. A model is trained to name the next token, so while it reads token $t$,
# token $t + 1$ is the answer, and it must not be seen. This rule is the **causal mask**: one line of code, which we will get
# wrong on purpose.
#
# > **Exercise 3.1** (who may look at whom; easy, 3 minutes). Write `may_look(T)`: a list of `T` rows of `T` truth values.
# > Row `t` is a query, column `s` a source; `True` allows.

# %%
def may_look(T):
    ...


# %%
check.may_look(may_look)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def may_look(T):
#     return [[s <= t for s in range(T)] for t in range(T)]
# ```
#
# </details>
#
# ## Build it
#
# ### One: from products to a mean
#
# Here are the three words again, all queries at once. Forbidden products become minus infinity, because two to *that* power
# is nothing.

# %%
q = torch.tensor([[1., 1.], [1., 0.], [1., 1.]])     # (T, Dh)
k = torch.tensor([[1., -1.], [3., 0.], [4., -4.]])   # (S, Dh)
v = torch.tensor([[10., 0.], [0., 10.], [10., 10.]])

score = q @ k.T                                      # (T, S)
may_attend = torch.ones(3, 3).tril().bool()
masked = score.masked_fill(~may_attend, -torch.inf)
share = 2**masked / (2**masked).sum(-1, keepdim=True)
print(score, share, share @ v, sep="\n")

# %% [markdown]
# The last row of each is the drawing. Now look at the second row of the products: *cat* would have given *sat*, which comes
# after it, a 4, its largest. The mask took it away, and what is left adds up to 1 again. Note the order: mask first,
# softmax then.
#
# > **Exercise 3.2** (one head; medium, 10 minutes). Write `attend_one_head(q, k, v)`, equation (3.1) with $e$ and with the
# > root. `q` and `k` are `(T, Dh)`, `v` is `(T, Dv)`, and `Dh` is `q.shape[1]`.

# %%
def attend_one_head(q, k, v):
    ...


# %%
check.attend_one_head(attend_one_head)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `x.masked_fill(forbidden, -torch.inf)`, then `.softmax(-1)`, along a query's row.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def attend_one_head(q, k, v):
#     T, Dh = q.shape
#     score = q @ k.T / Dh**0.5
#     future = torch.ones(T, T).triu(1).bool()
#     return score.masked_fill(future, -torch.inf).softmax(-1) @ v
# ```
#
# </details>
#
# ### Two: why the root
#
# A product of two random lists of $D_h$ numbers is a sum of $D_h$ random terms. Their variances add, so the sum spreads
# like $\sqrt{D_h}$. Without the root, a wide head would begin its life sure of itself for no reason. How large is the
# largest of 64 shares, before anything is learnt?

# %%
torch.manual_seed(0)
rows = []
for Dh in (16, 64, 256):
    a, b = torch.randn(1000, 1, Dh), torch.randn(1000, 64, Dh)
    product = (a * b).sum(-1)                        # (1000, 64)
    largest = [(product / scale).softmax(-1).amax(-1).mean().item()
               for scale in (1, Dh**0.5)]
    rows.append({"head width": Dh, "largest share, no root": largest[0],
                 "with the root": largest[1]})
show.table(rows)

# %% [markdown]
# Without it, a head of 256 gives nearly everything to one token, drawn by chance, and training learns hardly anything about
# the others. With it, the width does not matter.
#
# ### Three: attention does not know order
#
# Everything so far has a hole. Exchange two earlier tokens, keys and values together, and ask the last query again:

# %%
swapped = [1, 0, 2]
before = share[2] @ v
scores = q[2] @ k[swapped].T
after = (2**scores / (2**scores).sum()) @ v[swapped]
print("the cat sat:", before.tolist())
print("cat the sat:", after.tolist())

# %% [markdown]
# The same. A sum has no order. To a query that comes after them, *dog bites man* is *man bites dog*; position has to come
# in on purpose.
#
# > **Margin.** Not quite: the causal mask alone tells something about place ([NoPE](../book/references.md#nope)).
#
# **RoPE**, rotary position embedding, does it by turning ([RoPE](../book/references.md#rope)). Take two numbers of a query
# as an arrow in the plane, and turn it by an angle that grows with its place $t$. Turn the key by the same rule. Turning
# changes no length, so the product of two arrows follows the angle between them. If both move on by five places, both turn
# on by the same amount, and the angle stays.

# %% tags=["remove-input"]
show.drawing("turn",
             alt="Three dials with a key's and a query's hand. At places 1 and 3 they are 60 degrees apart; at places 6 and 8 both have turned on and are still 60 degrees apart; at places 1 and 8 they are 135 degrees apart.",
             caption="Fifteen degrees a place. Moving both keeps the angle between them; moving one does not.")

# %% [markdown]
# A head of 16 numbers has eight such pairs, numbered from 0, and its product is the sum of theirs. Each turns at a speed of
# its own, pair $i$ at place $t$ by $t\,\theta_i$. The first turns by one radian a token, the last by a three-thousandth of
# that, like the hands of a clock:
#
# $$ \theta_i = 10{,}000^{-2i/D_h} \tag{3.2}$$
#
# > **Exercise 3.3** (turn a pair; easy, 5 minutes). Write `turn(a, b, angle)`: the point `(a, b)`, turned counter-clockwise
# > by `angle` in radians, as two numbers. `math.cos` and `math.sin` are there.

# %%
def turn(a, b, angle):
    ...


# %%
check.turn(turn)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def turn(a, b, angle):
#     cos, sin = math.cos(angle), math.sin(angle)
#     return a * cos - b * sin, a * sin + b * cos
# ```
#
# </details>
#
# Does the promise hold? One query, one key, and 65 distances, with the text beginning at place 0, at 100, and at 900:

# %%
from minimodels.layers import Rope, rotate

config = ModelConfig.preset("yardstick")     # 8 heads of 16, width 128
rope = Rope.from_config(config)
torch.manual_seed(1)
a_query, a_key = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)
curves = {}
for start in (0, 100, 900):
    turned_key = rotate(a_key, rope(torch.tensor([start])))
    places = start + torch.arange(65)
    turned_query = rotate(a_query.expand(1, 65, 1, 16), rope(places))
    curves[start] = (turned_query * turned_key).sum(-1).flatten().tolist()
gap = max(abs(x - y) for there in (100, 900)
          for x, y in zip(curves[0], curves[there]))
print("the same curve from each start, to 5 decimals:", gap < 1e-5)

# %% tags=["hide-input"]
show.show(show.lines({f"from place {start}": (list(range(65)), ys) for start, ys in curves.items() if start == 0}, concept={"from place 0": "mha"},
                     x="distance between query and key, tokens", y="product of query and key",
                     title="With RoPE, a product follows the distance, wherever the text begins"),
          alt="One wavy line over distances 0 to 64; the curves for the three starting places lie on each other.",
          caption="One random query and key of 16 numbers. Starts at 100 and 900 give the same curve to five decimals, so one is drawn.")

# %% [markdown]
# The waves are the fast pairs, the slow drift below them the slow ones. Four of the eight alone:

# %% tags=["hide-input"]
speeds = 10_000.0 ** (-torch.arange(0, 16, 2, dtype=torch.float64) / 16)
names = {0: "pair 0", 2: "pair 2", 4: "pair 4", 7: "pair 7"}
show.show(show.lines({name: (list(range(55)), [math.cos(d * speeds[i]) for d in range(55)]) for i, name in names.items()},
                     concept={name: "mha" for name in names.values()}, x="distance between query and key, tokens",
                     y="product, as a share of its largest", title="Fast pairs tell neighbours apart, slow pairs tell regions apart"),
          alt="Four cosines: pair 0 swings eight times in 54 tokens, pair 2 not quite once, pair 4 falls a little, pair 7 stays at one.",
          caption="Equation (3.2) for a head of 16. Computed, not measured. Pair 7 needs thousands of tokens: half a turn takes it some 9,900.")

# %% [markdown]
# Training can lean on either: on a fast pair for *the token just before*, on a slow one for *somewhere above*.
#
# ### Four: several heads
#
# One head has one opinion about where to look. A layer has $H$ of them, narrow ones, side by side: **multi-head
# attention**. Their outputs are joined and mixed by one more matrix, `w_o`. Here is a whole layer, without any shortcut; it
# takes the package's weights, so that we can compare. Read `einsum("bthd,bshd->bhts", q, k)` so: a letter for each axis, and
# what is missing behind the arrow, here `d`, is multiplied and added up. It is the product of each query with each key, for
# all heads at once.

# %%
def attention_by_hand(layer, h, turn_table):
    """All tokens at once, without a cache: (B, T, D) -> (B, T, D)."""
    H, Dh = layer.n_heads, layer.d_head
    q = layer.w_q(h).unflatten(-1, (H, Dh))                # (B, T, H, Dh)
    k = layer.w_k(h).unflatten(-1, (H, Dh))                # (B, S, H, Dh)
    v = layer.w_v(h).unflatten(-1, (H, Dh))                # (B, S, H, Dh)
    q, k = rotate(q, turn_table), rotate(k, turn_table)
    score = einsum("bthd,bshd->bhts", q, k) / Dh**0.5      # (B, H, T, S)
    future = torch.ones(score.shape[-2:]).triu(1).bool()   # (T, S)
    share = score.masked_fill(future, -torch.inf).softmax(-1)
    o = einsum("bhts,bshd->bthd", share, v)                # (B, T, H, Dh)
    return layer.w_o(o.flatten(-2))


# %% [markdown]
# Must every head have keys and values of its own? In **multi-query attention** (**MQA**) all heads read the same pair, in
# **grouped-query attention** (**GQA**) a group of heads shares one. The queries stay as many as they were.

# %% tags=["remove-input"]
show.drawing("groups",
             alt="Eight query heads in three rows. MHA: heads 0 to 7 read pairs 0 to 7, 256 numbers a token. GQA: the first four heads read pair 0, the last four pair 1, 64 numbers. MQA: all read pair 0, 32 numbers.",
             caption="Which key-value pair each query head reads, at our sizes. A pair is 16 numbers of key and 16 of value.")

# %% [markdown]
# > **Exercise 3.4** (share; medium, 5 minutes). Write `share_heads(k, n_heads)`. `k` is `(B, S, n_kv_heads, Dh)`, a key for
# > each group of heads; the result is `(B, S, n_heads, Dh)`, with each group's key repeated for its heads, neighbours
# > together as in the drawing.

# %%
def share_heads(k, n_heads):
    ...


# %%
check.share_heads(share_heads)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def share_heads(k, n_heads):
#     return k.repeat_interleave(n_heads // k.shape[2], dim=2)
# ```
#
# `k.repeat` would give groups in turns, 0 1 0 1: as many numbers, and other neighbours. With random weights nobody would
# notice; with somebody else's trained weights it is a bug.
#
# </details>
#
# ## Prove it
#
# > **Margin.** Hugging Face's layer turns number $i$ together with number $i + 8$, where we turn neighbours; the hidden cell
# > reorders its weights.
#
# Does the layer by hand do what the package's does, and do both do what others have written? The second opinion is
# PyTorch's own attention in one call, the third the layer of Meta's Llama as Hugging Face wrote it. Weights are drawn large,
# so that a mistake would show. In the package a `Place` says where the tokens of a pass stand: it carries their turns and, if
# wanted, a mask. `layer.project(h, place)` gives queries, keys and values, turned.

# %%
from minimodels.attention import Cache, Place
from minimodels.model import Transformer

torch.manual_seed(0)
layer = Transformer(config).layers[0].attention.eval()
for parameter in layer.parameters():
    parameter.data.mul_(4)
T, h = 40, torch.randn(2, 40, 128)
place = Place.of(rope, T, h.device)

# %% tags=["hide-input"]
from torch.nn.functional import scaled_dot_product_attention
from transformers.models.llama import modeling_llama as llama


def llama_attention(layer, h):
    """The same weights in Hugging Face's layer, which turns halves of a head where ours turns neighbours."""
    H, Dh = layer.n_heads, layer.d_head
    theirs = llama.LlamaConfig(hidden_size=h.shape[-1], num_attention_heads=H, num_key_value_heads=H, head_dim=Dh, attn_implementation="eager")
    halves = torch.cat([torch.arange(0, Dh, 2), torch.arange(1, Dh, 2)])
    order = (torch.arange(H)[:, None] * Dh + halves).flatten()
    module = llama.LlamaAttention(theirs, 0).eval()
    module.load_state_dict({"q_proj.weight": layer.w_q.weight[order], "k_proj.weight": layer.w_k.weight[order],
                            "v_proj.weight": layer.w_v.weight, "o_proj.weight": layer.w_o.weight})
    n = h.shape[1]
    turns = llama.LlamaRotaryEmbedding(theirs)(h, torch.arange(n)[None])
    return module(h, turns, torch.full((n, n), -torch.inf).triu(1)[None, None])[0]


# %%
with torch.no_grad():
    hand = attention_by_hand(layer, h, place.turn)
    q, k, v = (x.transpose(1, 2) for x in layer.project(h, place))
    fused = scaled_dot_product_attention(q, k, v, is_causal=True)
    fused = fused.transpose(1, 2).flatten(-2)              # (B, T, D)
    answers = {"the package": layer(h, place),
               "PyTorch, fused": layer.w_o(fused),
               "Hugging Face's Llama": llama_attention(layer, h)}
for name, answer in answers.items():
    torch.testing.assert_close(answer, hand, atol=1e-5, rtol=0)
    print(f"by hand = {name}, to 5 decimals")

# %% [markdown]
# ## Look inside
#
# So far all weights were random. This book's **yardstick** is a small **dense model** of four layers with eight heads each,
# which chapter 4 builds and chapter 5 trains on Python's standard library. Where do its 32 heads look?
#
# > **Before you read on.** Nobody told the heads what to do. For how many of the 32 can we name one kind of target that gets
# > at least 40 percent of the head's share?
# >
# > <details><summary>What we found</summary>
# >
# > **Four.** Only one of them gives more than half. Of the others some spread theirs widely, and some look sharply at
# > something that our seven kinds do not cover.
# >
# > </details>
#
# Each small square below is a head: a row for every query, a column for every source, darker for a larger share. Choose one,
# then walk through the text.

# %%
from minimodels.checkpoint import Run

yardstick = Run.open(lab.data_file("checkpoints/yardstick")).model()
TEXTS = {"a class": """\
class Box:
    def __init__(self, width):
        self.width = width
        self.height = None
        self.name = "box"
""", "a function": """\
def area(width, height):
    if width < 0:
        raise ValueError("width")
    return width * height
""", "nonsense, twice": " ".join(2 * ["blue seven list open river"])}

# %% tags=["nbval-ignore-output"]
AttentionPattern.of(yardstick, TEXTS, layer=3, head=3, query=25)

# %% [markdown]
# It opens on the last `self`. Head 3 of layer 3 gives four fifths of its share to what stood right *after* the earlier
# ones, `.w`, `.` and a comma; and `.name` comes next here. Head 7 of layer 2, whatever the token, looks at the one before.
# The heads of layer 0 look almost everywhere a little.
#
# A picture convinces too easily, so measure. Take 32 pieces of 128 tokens, spread over text that the model was not trained
# on, and seven kinds of target. What mean share does a head give to each? An even look scores something too, which stands
# beside it.
#
# > **Exercise 3.5** (a score for a job; easy, 5 minutes). Write `looks_back_one(weights)`: the mean share that queries give
# > to the token just before them. `weights` is `(T, T)`, row `t` for query `t`. The first query has nobody before it, so
# > leave it out.

# %%
def looks_back_one(weights):
    ...


# %%
check.looks_back_one(looks_back_one)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def looks_back_one(weights):
#     T = len(weights)
#     return sum(weights[t][t - 1] for t in range(1, T)) / (T - 1)
# ```
#
# </details>

# %% tags=["nbval-ignore-output"]
from minimodels.data import prepare
from minimodels.patterns import jobs, patterns, targets
from minimodels.studies.attention import LIVE, LIVE_BYTES, LIVE_MODEL

data = prepare("stdlib", 4096, max_bytes=LIVE_BYTES)
tokenizer = yardstick.tokenizer
unseen = tokenizer.encode(data.valid_text()).ids
pages = torch.tensor(unseen[:32 * 1224]).view(32, 1224)[:, :128]
found = [targets(page, [tokenizer.decode([i]) for i in page])
         for page in pages.tolist()]
scores = jobs(patterns(yardstick, pages), found)

# %% tags=["nbval-ignore-output"]
rows = []
for kind, (mean, even, n) in scores.items():
    layer_no, head_no = divmod(mean.argmax().item(), config.n_heads)
    rows.append({"looks at": kind,
                 "best head": f"layer {layer_no}, head {head_no}",
                 "its mean share": mean.max().item(),
                 "an even look": even, "queries": n})
show.table(rows)

by_kind = torch.stack([mean for mean, _, _ in scores.values()])
named = (by_kind >= 0.4).nonzero().tolist()
for kind, layer_no, head_no in named:
    print(f"layer {layer_no}, head {head_no}: {list(scores)[kind]}, "
          f"{by_kind[kind, layer_no, head_no]:.1%}")

# %% tags=["hide-input"]
fig = show.dots({kind: mean.flatten().tolist() for kind, (mean, _, _) in scores.items()}, concept={kind: "mha" for kind in scores},
                unit="mean share that a head gives to this kind", title="One head of 32 looks at the token before, and at little else")
fig.data = fig.data[::2]    # the dots without their mean
show.show(fig,
          alt="Seven rows of 32 dots, most of them near zero. One dot stands alone at 0.93 in the row of the previous token; three lie near 0.4 after the same token, one near 0.5 at the previous token, two near 0.3 at the start of the line.",
          caption="This run: every head of the yardstick is a dot in each row, on 4,096 tokens of unseen text.")

# %% [markdown]
# Head 7 of layer 2 is nearly pure: 93 percent to the token before. Head 0 of layer 1 does the same with half its share.
# Heads 0 and 3 of layer 3 find, for a token that has occurred already, what *followed* it then, with two fifths of theirs,
# where an even look would give 3 percent; head 4, with 36 percent, just misses our line. Two more lean to the start of the
# line, which in Python is its indentation. No head looks for the same token itself, and none deserves the name of a bracket
# head.
#
# Tokens before, and tokens that followed: these two kinds belong together, and there is a way to prove it.
#
# ### Two heads that copy
#
# The pair is known from other models, of two layers and of many, as an [induction](../book/glossary.md#induction-head)
# circuit ([Olsson and others](../book/references.md#induction-heads)): the first head notes at every place what stood before
# it, and the second, in a later layer, searches these notes. Together they say: *last time this token came, that one
# followed; so it will again.*

# %% tags=["remove-input"]
show.drawing("induction",
             alt="Tokens self, dot, name, comma, and later self again. A head notes at the dot that self stood before it. A later head, at the second self, finds the place where self was noted, and proposes what stands there, the dot, as the next token.",
             caption="How two heads in different layers copy what followed last time.")

# %% [markdown]
# If that is what happens, it must work on nonsense too. Take 32 tokens drawn at random and put them twice, one behind the
# other. No grammar, no meaning; the first half cannot be predicted, and the second only by looking back. Then cut a single
# head out of the model and measure again. The heads' outputs are joined, so head $n$ feeds columns of its own in `w_o`: set
# them to zero.

# %%
g = torch.Generator().manual_seed(0)
once = torch.randint(300, 4096, (32, 32), generator=g)
twice = torch.cat([once, once], dim=1)               # (32, 64)

# %%
@torch.inference_mode()
def loss_by_half(model):
    """Nats a token on the first and the second half of `twice`."""
    logits = model(twice).logits[:, :-1].mT          # (32, V, 63)
    loss = torch.nn.functional.cross_entropy(logits, twice[:, 1:],
                                             reduction="none")
    return loss[:, :31].mean().item(), loss[:, 32:].mean().item()


# %%
def without(model, layer_no, head_no):
    """A copy of the model with one head cut out."""
    cut = copy.deepcopy(model)
    Dh = model.config.d_head
    w_o = cut.layers[layer_no].attention.w_o.weight.data
    w_o[:, head_no * Dh:(head_no + 1) * Dh] = 0
    return cut


# %%
def share_on_what_followed(model):
    """By layer and head: how much the second half gives to it."""
    weights = patterns(model, twice)[..., 32:63, 1:32]
    return weights.diagonal(dim1=-2, dim2=-1).mean((1, 3))


# %% tags=["nbval-ignore-output"]
rows = []
for name, model in {"whole": yardstick,
                    "without layer 2, head 7": without(yardstick, 2, 7),
                    "without layer 2, head 0": without(yardstick, 2, 0)
                    }.items():
    first, second = loss_by_half(model)
    copied = share_on_what_followed(model)[3, [0, 3, 4]].mean().item()
    rows.append({"model": name, "first time, nats": first,
                 "second time": second, "three heads' share": copied})
show.table(rows, caption="The last column: what heads 0, 3 and 4 of layer 3 "
                         "give, in the mean, to what followed last time.")

# %% [markdown]
# The first time nobody can know the tokens. The model is even worse than blind guessing, 8.3 nats, because it expects
# Python. The second time it needs 2.6 nats less. That is still no better than blind guessing, for it goes on expecting
# Python; but it has copied. Now cut head 7 of layer 2: the second time is nearly as bad as the first. The last column says
# why. A layer above, the copying heads gave 32 percent of their share to the right place, and now give 3. The head that we
# cut copies nothing itself; without its notes the others find nothing. Would any head have done? Cut each of the 32:

# %% tags=["nbval-ignore-output"]
whole = loss_by_half(yardstick)[1]
harm = {(a, n): loss_by_half(without(yardstick, a, n))[1] - whole
        for a in range(4) for n in range(8)}
order = sorted(harm, key=harm.get, reverse=True)
for a, n in order[:5] + order[-3:]:
    print(f"layer {a}, head {n}: {harm[a, n]:+.2f} nats")

# %% tags=["hide-input"]
fig = show.dots({f"layer {a}": [harm[a, n] for n in range(8)] for a in range(4)}, concept={f"layer {a}": "mha" for a in range(4)},
                unit="nats more on the second half, one head cut", title="One head's cut ends the copying, and three come next")
fig.data = fig.data[::2]
show.show(fig,
          alt="Four rows of eight dots. In layer 2 one dot stands alone at 2.4; in layer 3 three lie near 1; all others lie below 0.4, three in layer 1 as low as minus 0.6 to minus 1.2.",
          caption="This run: each dot is one of the 32 heads, cut out alone.")

# %% [markdown]
# Head 7 of layer 2 costs more than twice as much as any other, and the three that come next are the three copying heads.
# None of the rest costs half as much as these. Some cuts help, by up to 1.2 nats; we do not know why. The shares showed where
# heads look, and the cuts show what for.
#
# ## Remember: the KV cache
#
# Now let the model write. Each new token needs the keys and values of all tokens before it. These do not change any more,
# for the mask lets nothing that comes later reach them. So keep them, in a [KV cache](../book/glossary.md#kv-cache), and
# compute only what is new.
#
# > **Exercise 3.6** (one step with a cache; medium, 10 minutes). Write `decode_one(q, k, v, k_cache, v_cache)` for one new
# > token. `q`, `k`, `v` are `(H, Dh)`; the caches are `(S, H, Dh)`. Return the output `(H, Dh)` and both caches, one token
# > longer. Do you need a mask?

# %%
def decode_one(q, k, v, k_cache, v_cache):
    ...


# %%
check.decode_one(decode_one)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `torch.cat([k_cache, k[None]])` first. Then `einsum("hd,shd->hs", ...)`.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def decode_one(q, k, v, k_cache, v_cache):
#     k_cache = torch.cat([k_cache, k[None]])
#     v_cache = torch.cat([v_cache, v[None]])
#     score = einsum("hd,shd->hs", q, k_cache) / q.shape[-1]**0.5
#     o = einsum("hs,shd->hd", score.softmax(-1), v_cache)
#     return o, k_cache, v_cache
# ```
#
# No mask: the future is not there yet. That is worth remembering when a mask is wrong.
#
# </details>
#
# Decoding by hand, token by token, must give what reading all at once gave, with the `h` and `layer` of the proof above.

# %%
def read_one_by_one(layer, h):
    """Each token behind a cache of those before: (T, D) -> (T, D)."""
    H, Dh = layer.n_heads, layer.d_head
    k_cache = v_cache = torch.empty(0, H, Dh)
    out = []
    for t in range(len(h)):
        here = Place(rope(torch.tensor([t])))
        q, k, v = (x[0, 0] for x in layer.project(h[None, t:t + 1], here))
        k_cache = torch.cat([k_cache, k[None]])
        v_cache = torch.cat([v_cache, v[None]])
        score = einsum("hd,shd->hs", q, k_cache) / Dh**0.5
        o = einsum("hs,shd->hd", score.softmax(-1), v_cache)
        out.append(layer.w_o(o.flatten()))
    return torch.stack(out)


# %%
with torch.no_grad():
    torch.testing.assert_close(read_one_by_one(layer, h[0]), hand[0],
                               atol=1e-5, rtol=0)
print("one by one = all at once, to 5 decimals")

# %% [markdown]
# Note what goes into the cache: the key *after* its turn. Its place will not change, so it is turned once. And count what
# is kept:

# %%
from dataclasses import replace

rows = []
for name in ("mha", "gqa", "mqa"):
    sized = replace(config, attention=name)
    cache = Cache(sized, batch_size=1, max_len=1024)
    rows.append({"scheme": name.upper(),
                 "numbers a token": sized.cached_values_per_token,
                 "bytes for 1,024 tokens": cache.n_bytes})
show.table(rows, caption="Four layers, four bytes a number.")

# %% [markdown]
# Each layer keeps $2 H D_h$ numbers for each token: a key and a value of every head. Four megabytes for a thousand tokens
# are nothing to worry about. At DeepSeek-V3's sizes the same formula gives 2 · 128 heads · 128 numbers · 61 layers, at two
# bytes each 4 megabytes for *one* token. [Chapter 6](06_mla.ipynb) begins with that pain, and with what V3 keeps instead.
#
# ## Prefill and decode, timed
#
# So there are two ways through the same model. **Prefill** reads: all tokens are known, and pass together. **Decode**
# writes: one token a pass, because the next is not known before this one is done.

# %% tags=["remove-input"]
show.drawing("passes",
             alt="Prefill: six tokens pass one block of weights together; the weights are read once. Decode: three tokens pass one after another, each under its own block of weights, and each leads to the next; the weights are read three times.",
             caption="The same weights, read once for a prompt, and once for every token that is written.")

# %% [markdown]
# Time both on your machine, in turns, in processor time of one thread. The third row writes without a cache, and computes
# everything again for each token.

# %% tags=["nbval-ignore-output"]
from minimodels.timing import a_pass, interleaved

S = 512
ways = {"prefill of 512 tokens": (S, a_pass(yardstick, S, 1, 0)),
        "decode behind 512": (1, a_pass(yardstick, 1, 1, S)),
        "decode without a cache": (1, a_pass(yardstick, S + 1, 1, 0))}
ms = interleaved({name: run for name, (_, run) in ways.items()},
                 rounds=5, clock=time.thread_time)
show.table([{"way": name, "tokens a second":
             round(n / statistics.median(ms[name]) * 1e3)}
            for name, (n, _) in ways.items()])

# %% [markdown]
# The cache is worth more than an order of magnitude. And reading is faster by far than writing. But do not explain this table
# with memory: a few megabytes can be fetched in a fraction of a millisecond. One token takes many times that, most of it, we
# think, for many small calls. To see the machine's own limit we need a model too large for the processor's caches.
#
# ## Why writing is slow
#
# A machine can multiply only so fast, and it can fetch numbers from memory only so fast. Which of the two limits it hits
# depends on how much it does with a number once it has it. Call that the **intensity**: [FLOPs](../book/glossary.md#flop)
# for each byte fetched.
#
# In decoding, each weight is fetched, multiplied with one number of one token, added, and dropped: two FLOPs for four bytes,
# half a FLOP a byte. In a prefill of 512 tokens the same weight, once fetched, is used 512 times. In between lies the batch:
# 64 texts that are written at the same time share the weights. They do not share their caches.
#
# > **Exercise 3.7** (intensity; medium, 10 minutes). Write `intensity(n_weights, n_cached, batch, n_bytes)`, for one
# > decoded token in each of `batch` sequences. Each sequence's token meets all `n_weights` numbers and the `n_cached`
# > numbers of its own cache, with two FLOPs each. Fetched are the weights, once, and every cache, once; a number has
# > `n_bytes`.

# %%
def intensity(n_weights, n_cached, batch, n_bytes):
    ...


# %%
check.intensity(intensity)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def intensity(n_weights, n_cached, batch, n_bytes):
#     flops = 2 * batch * (n_weights + n_cached)
#     return flops / (n_bytes * (n_weights + batch * n_cached))
# ```
#
# With a short cache it grows with the batch. The longer the cache, the closer it sinks to 2 FLOPs a number, whatever the
# batch: a cache has no one to share it with. The model below keeps 2 · 1,024 · 4 numbers a token for 129 tokens:
# `intensity(51e6, 1.06e6, 64, 4)` is 14.0, as in the table.
#
# </details>
#
# Now put it to the test with 51 million weights (205 MB; the output head is not timed), too much for most processors'
# caches. We time six passes, decoding behind 128 tokens, and in the same turns the two limits: adding up an array of 268 MB,
# which is nothing but fetching, and multiplying two matrices, which is hardly any.

# %% tags=["nbval-ignore-output"]
from minimodels.studies.attention import PASSES, WIDE, against, pooled, work
from minimodels.timing import MULTIPLY_FLOPS, READ_BYTES, roofs

wide = Transformer(WIDE).eval()
ms = interleaved(roofs() | {name: a_pass(wide, *sizes)
                            for name, sizes in PASSES.items()},
                 rounds=3, clock=time.thread_time)
took = {name: statistics.median(x) / 1e3 for name, x in ms.items()}  # s
GB_s = READ_BYTES / took["read"] / 1e9
GFLOPS = MULTIPLY_FLOPS / took["multiply"] / 1e9
print(f"this machine, one thread: {GB_s:.1f} GB/s, {GFLOPS:.0f} GFLOPS;"
      f" they meet at {GFLOPS / GB_s:.1f} FLOPs a byte")

# %% tags=["nbval-ignore-output"]
rows = []
for name, (T, B, S) in PASSES.items():
    cost = work(WIDE, T, B, S)
    at = cost["flops"] / cost["bytes"]
    rows.append({"pass": name, "FLOPs a byte": round(at, 1),
                 "bound, GFLOPS": round(min(at * GB_s, GFLOPS), 1),
                 "measured": round(cost["flops"] / took[name] / 1e9, 1),
                 "tokens a second": round(T * B / took[name])})
show.table(rows)

# %% [markdown]
# The bound is the smaller of intensity times bandwidth, and the peak. Drawn with both axes in powers it looks like a roof,
# hence [roofline](../book/glossary.md#roofline) ([Roofline](../book/references.md#roofline)). With our recorded times:

# %% tags=["hide-input"]
timed = recorded("attention-roofline")
rounds = pooled(timed["trials"])
typical = {name: statistics.median(times) / 1e3 for name, times in rounds.items()}
bandwidth, peak = READ_BYTES / typical["read"] / 1e9, MULTIPLY_FLOPS / typical["multiply"] / 1e9
ridge = peak / bandwidth
roof = [0.25, ridge, 400]
points = {}
for name, sizes in PASSES.items():
    if name == "prefill, 8 tokens":    # it lies on "decode, 8"
        continue
    cost = work(WIDE, *sizes)
    points[name] = [cost["flops"] / cost["bytes"]], [cost["flops"] / typical[name] / 1e9]
fig = show.lines({"roof": (roof, [min(x * bandwidth, peak) for x in roof])} | points,
                 concept={name: "mha" for name in points}, x="FLOPs for each byte fetched", y="GFLOPS reached", log_x=True, log_y=True,
                 title=f"Written one by one, tokens use {statistics.median(against(rounds)['percent of the peak, written']):.0f} percent of the peak")
fig.update_layout(margin={"r": 24}, xaxis={"range": [-0.7, 3.4], "dtick": 1}, yaxis={"dtick": 1})
show.show(fig,
          alt="A line that rises and then runs flat. Decode with a batch of one lies far down its slope; decode with 8 and 64 and prefill lie further right and higher; prefill of 512 tokens comes closest to the flat part.",
          caption=f"Recorded: minimodels study attention-roofline; {timed['trials'][0]['hardware']}. Medians of {len(rounds['read'])} rounds, in processor time.")

# %%
show.table([{"within a round": what,
             "median": round(statistics.median(x), 2),
             "from": round(min(x), 2), "to": round(max(x), 2)}
            for what, x in against(rounds).items()])
in_ms = {"written": 1e3 * typical["decode, 1 at a time"],
         "read": 1e3 * typical["prefill, 512"] / 512}
print(f"medians: {bandwidth:.1f} GB/s, {peak:.0f} GFLOPS; a token",
      ", ".join(f"{way} {x:.2f} ms" for way, x in in_ms.items()))

# %% [markdown]
# Each row is a ratio of two times of the same round, so that a slow moment of the machine meets both. Begin at the lower
# left of the figure. With half a FLOP a byte, decoding reaches 3 percent of the peak. At the right a long prompt reaches
# 81 percent: there the processor works.
#
# Now the factor from the top, 23. A token that is read costs at least its FLOPs divided by the peak, one that is written
# at least its bytes divided by the bandwidth. These bounds alone differ by a factor of 11. The rest is how far each stays
# behind its bound: reading takes 1.2 times as long, writing 2.6 times. Of these 2.6, the model's matrix products alone
# take 2.1. Fetching is slower for them than for a plain sum: one large matrix that meets a vector already takes 1.3 times
# the bound, and why our smaller ones take more, we did not find out. The many small calls are hardly to blame. A whole
# pass of the yardstick, with as many layers and next to no weights, takes 0.2.
#
# Sixty-four texts at once have 14 FLOPs a byte and not 32, because each brings a cache of its own that nobody shares; the
# longer the texts, the worse. And most points lie well below the roof: it says what is possible, not what is reached.
#
# ## What sharing costs
#
# Fewer keys and values are fewer bytes to fetch: that is the whole case for **GQA** and **MQA**. What do they cost? Five
# seeds each, 600 steps, at equal parameters, each at the rate that suited it best of four on one other seed; the study is
# chapter 6's.

# %% tags=["hide-input"]
quality = recorded("mla-quality")
quality_of = {name.upper(): [t["bits_per_byte"] for t in quality["trials"] if t["arm"] == name] for name in ("mha", "gqa", "mqa")}
show.show(show.dots(quality_of, unit="bits per byte of unseen text", title="The more heads share a key, the more bits our model needs"),
          alt="Three rows of five dots. The means rise from MHA to GQA to MQA; the rows overlap at their ends.",
          caption=f"Recorded: minimodels study mla-quality; five seeds each; {quality['trials'][0]['hardware']}. The stroke is the mean.")

# %%
mean = {name: statistics.mean(bits) for name, bits in quality_of.items()}
for less, more in (("MHA", "GQA"), ("MHA", "MQA"), ("GQA", "MQA")):
    cost = [b - a for a, b in zip(quality_of[less], quality_of[more])]
    print(f"{more} against {less}, bits a byte: {statistics.mean(cost):+.4f}, "
          f"from {min(cost):+.4f} to {max(cost):+.4f} over the seeds")

# %% [markdown]
# A quarter of the cache for 0.6 percent more bits, an eighth for 1.2. The rows overlap, but with every seed **MHA** is best
# and **MQA** worst. Many large models take the middle: Llama 3.1 405B has eight pairs for 128 heads ([Llama 3, Table
# 3](../book/references.md#llama-3)).
#
# ## Break it
#
# ### A mask that leaks
#
# Write `s <= t + 1` where `s <= t` belongs. Each query now sees one token too many, the very one that it has to predict.
# Nothing crashes. We train two models of two layers on short windows for 120 steps, one right and one with the leak.
#
# > **Before you read on.** After a full training, the yardstick needs more than 3 nats a token. What loss will the leaking
# > model show after 120 steps: about the same as the right one, half of it, or nearly nothing?
# >
# > <details><summary>What we found</summary>
# >
# > **Nearly nothing.** Half a nat a token (0.18 bits per byte, 0.15 to 0.24 over three seeds), where the right model needs
# > 6.3 (2.42). It has found where the answer is written.
# >
# > </details>

# %% tags=["nbval-ignore-output"]
from minimodels.bugs import plant
from minimodels.bugs.attention import LeakingMask
from minimodels.data import Batches
from minimodels.train import train

batches = Batches(data.train, batch_size=LIVE.batch_size,
                  seq_len=LIVE.seq_len, seed=0)
torch.manual_seed(0)
right = Transformer(LIVE_MODEL)
torch.manual_seed(0)
leaking = plant(Transformer(LIVE_MODEL), LeakingMask)

# %% tags=["nbval-ignore-output"]
live = show.Live(alt="Two falling curves; the leaking one dives.",
                 caption="This run: 120 steps each, on this machine.")
losses = {}
for name, model in (("right", right), ("leaking", leaking)):
    losses[name] = [], []
    for record in train(model, batches, LIVE):
        losses[name][0].append(record.step)
        losses[name][1].append(record.loss)
        if record.step % 20 == 0:
            live.draw(show.lines(losses, x="step", y="loss, nats a token",
                                 concept={"leaking": "mha"},
                                 title="With a leak, the loss dives"))

# %% [markdown]
# At first the leaking model is only a little ahead. Then it discovers where the answer lies, and its loss falls far below
# what the yardstick reaches after two hundred times as many tokens. In practice this looks like a triumph. Ask the model to
# *use* what it knows: put the right mask back, and nothing else, and score it on unseen text.

# %% tags=["nbval-ignore-output"]
from minimodels.evaluate import evaluate
from minimodels.studies.attention import heal


def bits(model):
    return evaluate(model, data.valid, n_bytes=data.valid_bytes,
                    seq_len=LIVE.seq_len).bits_per_byte


shown = {"right": bits(right), "leaking, as trained": bits(leaking)}
shown["leaking, with the right mask"] = bits(heal(leaking))
blind = math.log2(4096) * len(data.valid) / data.valid_bytes
nats = math.log(2) * data.valid_bytes / len(data.valid)  # a token, for 1
show.table([{"model": name, "bits per byte": b, "nats a token": b * nats}
            for name, b in (shown | {"blind guessing": blind}).items()])
print(lab.band("attention", "right after 120 steps", shown["right"]))

# %% [markdown]
# With the right mask it is worse than blind guessing among 4,096 tokens, here and with each of the three recorded seeds. It
# has learnt to copy, and now there is nothing to copy.
#
# ### Rotations that go wrong
#
# Three more faults in the same small model, trained at twice the yardstick's rate, three seeds each. *Key turned twice*: the
# key is rotated where it is made, and again where it is used, as happens when two people add RoPE. *Both turned twice*:
# queries too. *Never turned*: no rotation at all.

# %% tags=["hide-input"]
broken = recorded("attention-bugs")
by_arm = {arm: [t for t in broken["trials"] if t["arm"] == arm][:3] for arm in broken["arms"]}
turned = {arm: [t["bits_per_byte"] for t in runs] for arm, runs in by_arm.items() if arm != "leaking mask"}
show.show(show.dots(turned, concept={arm: "dense" if arm == "right" else "mha" for arm in turned}, unit="bits per byte of unseen text",
                    title="In a short training, a fault in the rotation hardly shows"),
          alt="Four rows of three dots that overlap: right, key turned twice, both turned twice, never turned.",
          caption=f"Recorded: minimodels study attention-bugs; three seeds each; {broken['trials'][0]['hardware']}. The stroke is the mean.")

# %%
kinds = {"bits per byte": "bits_per_byte", "with the right layer afterwards": "honest"}
show.table([{"layer": arm} | {
                words: round(statistics.mean(t[key] for t in runs), 3)
                for words, key in kinds.items()}
            for arm, runs in by_arm.items()])

# %% [markdown]
# Nothing to see: with each fault one seed is better and two are worse than the right layer. So short a training, on windows
# of 64 tokens, hardly uses the rotation: put the right layer in afterwards, and all nine scores rise, but by less than 0.007.
# Whether the four part in a longer run, we did not record. A short run is what everybody makes after a change, and this one
# was no test of a rotation. Only the leak stands out in the table, and it stands out as the best.
#
# Now plant every fault in the yardstick, which was trained with the right rotation. A fifth joins them: *cached before
# rotation*, where the key goes into the cache as it was. The model reads the second half of our 32 pieces, once all at once,
# and once token by token behind a cache. Nothing is trained:

# %% tags=["nbval-ignore-output"]
from minimodels.bugs.attention import BUGS
from minimodels.studies.attention import read

spoilt = {name: plant(copy.deepcopy(yardstick), bug)
          for name, bug in BUGS.items()}
rows = []
for name, model in ({"right": yardstick} | spoilt).items():
    loss = read(model, pages)
    rows.append({"yardstick": name, "read at once": loss["at_once"],
                 "read one by one": loss["one_by_one"]})
show.table(rows, caption="Nats a token.")

# %% [markdown]
# Now all of them matter. The faults of the rotation cost the trained model from 0.6 to 2.0 nats a token. The leak *lowers*
# the loss, without a step of training. (We think that the copying heads find it: the next token has noted what stands before
# it, and that is the query's own.) The last row is the treacherous one. Read at once, it agrees with the right model in every digit; only one by one does it lose its
# way, by 2.4 nats. It remembers what was said, and not where.
#
# > **Bugs that still train.**
# > - **A mask that leaks.** The loss is too good. Behind a cache there is no next token to see, and what was learnt is useless.
# > - **The key turned twice.** The query has turned by $t$, the key by $2s$: a score depends on where a text stands. Moving
# >   all of it by nine places changes the output; a right layer's does not change. [Chapter 6](06_mla.ipynb) lets you write
# >   that test.
# > - **Both turned twice.** Distances still decide, so that test passes. Only a comparison with another implementation finds
# >   it.
# > - **Cached before rotation.** Training has no cache, and its loss is exactly right. Reading one by one gives other numbers
# >   than reading at once.
#
# > **Exercise 3.8** (catch the leak; medium, 15 minutes). Write `sees_the_future(layer, h, place)`. `layer(h, place)` gives
# > the outputs `(B, T, D)` for hidden states `h`. Change late tokens, and look whether an earlier output moves; compare
# > with `torch.allclose(..., atol=1e-5)`. The check hands you layers with and without a leak, and some with another fault,
# > which is no leak and must not be reported. Return a truth value.

# %%
def sees_the_future(layer, h, place):
    ...


# %%
check.sees_the_future(sees_the_future)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def sees_the_future(layer, h, place):
#     for t in range(1, h.shape[1]):
#         changed = h.clone()
#         changed[:, t:] += 1
#         before, after = layer(h, place)[:, :t], layer(changed, place)[:, :t]
#         if not torch.allclose(before, after, atol=1e-5):
#             return True
#     return False
# ```
#
# A few lines of test, and the most embarrassing bug of the trade is gone. It works on a whole model too: exchange late
# tokens, and compare its [logits](../book/glossary.md#logits), the numbers that it gives out for the next token.
#
# </details>
#
# ## Does it pay here?
# > **Does it pay here?** **The cache, yes, at every size. Sharing heads, not at ours.**
# >
# > - **The cache:** it changes no number, and without it the yardstick would compute 513 tokens to write one.
# > - **GQA and MQA:** a few megabytes are not worth 0.0105 and 0.0198 bits per byte.
# > - **A batch:** if you have many texts to continue, continue them together. On our machine 64 at once came out at 13 times
# >   as many tokens a second as one alone (11 to 18 within a round), with 128 tokens in each cache.
# > - **At DeepSeek's scale:** such a cache takes megabytes a token, so there sharing pays.
#
#
# ## The claim again
#
# > **Claim C52 · misleading.** *Traditional systems handle text strictly one word after another.*
# >
# > They read all of it at once: the causal mask lets every place of a text be computed in the same pass. You have timed it.
# > Only *writing* goes one token after another, in DeepSeek-V3 too.
# >
# > *It would have been right to say:* every Transformer reads in parallel and writes one token after another.
# >
# > Source: [DeepSeek-V3, section 3.4](../book/references.md#deepseek-v3); the timings above.
#
# ## What production does
#
# - **Fused kernels.** Hardly anybody writes the $T \times S$ scores to memory. A kernel computes softmax block by block while
#   it fetches keys; the shares that you saw never exist. Chapter 11 builds one.
# - **Two fleets.** V3's prefill runs on units of at least 32 GPUs, its decoding on units of at least 320; of the experts in
#   decoding the paper says that memory access is the bottleneck ([DeepSeek-V3, section
#   3.4](../book/references.md#deepseek-v3)).
# - **A smaller gap.** Over a day in 2025 a node that served V3 and R1 took in 73.7 thousand tokens a second, or put out 14.8
#   thousand. But 56 percent of the input was found in a cache; without it the factor is 2.2, by our sum
#   ([open-infra-index](../book/references.md#open-infra-index)).
# - **Smaller caches.** Shared heads, then **latent attention** ([chapter 6](06_mla.ipynb)), then fewer bits a number.
#
# > **Takeaways**
# > 1. Attention is a weighted mean of values; a query's products with the keys make the weights, by softmax over $s \le t$.
# > 2. It knows no order. RoPE turns queries and keys by their place, so that products follow distances.
# > 3. Some heads find jobs that have names. Measure before you name, and cut to see whether it matters.
# > 4. A KV cache changes no number. Decoding fetches all weights for every token, and memory limits it long before
# >    arithmetic does; a prompt or a batch shares them.
# > 5. Too good a loss is a bug report. Test the mask by changing the future.
#
# ## Longer problems
#
# > **Exercise 3.9** (turned twice is not turned wrong; easy, 15 minutes). Show that turning queries and keys twice is RoPE
# > with doubled speeds: give a table `Rope(frequency, max_len)` whose single turn equals two turns of ours, and compare the
# > turned queries. What does that say about the speeds in equation (3.2)?
#
# <details><summary>Solution</summary>
#
# ```python
# frequency = 10_000.0 ** (-torch.arange(0, 16, 2) / 16)
# once, doubled = Rope(frequency, 1024), Rope(2 * frequency, 1024)
# x, at = torch.randn(1, 1024, 1, 16), torch.arange(1024)
# twice_turned = rotate(rotate(x, once(at)), once(at))
# print(torch.allclose(twice_turned, rotate(x, doubled(at)), atol=1e-4))
# ```
#
# It prints `True`. The speeds are a choice, and 10,000 is one number of it: another base changes all but the first, doubling
# changes all. Our short runs are no test of which is better. What must hold is that the query's and the key's are the same.
#
# </details>
#
# > **Exercise 3.10** (how far back it looks; medium, 30 minutes). Let every query of the trained yardstick see only the
# > last $w$ tokens, itself among them, and score it on `pages` for $w$ = 1, 2, 4, … 128. Nothing is trained again. From
# > where on does it hardly matter, and why does that not prove that a model *trained* with a window of this size would do
# > as well?
#
# <details><summary>Hint</summary>
#
# `Place` takes a `mask`, `(T, S)`, `True` allows. A subclass of `GroupedAttention` with a `forward` of its own can put one
# in, as the classes in `minimodels/bugs/attention.py` do; `plant` swaps it in.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# from minimodels.attention import GroupedAttention
#
# class Windowed(GroupedAttention):
#     width = 128
#
#     def forward(self, h, place, cache=None):
#         t = torch.arange(h.shape[1])
#         near = (t[:, None] >= t) & (t[:, None] - t < Windowed.width)
#         return super().forward(
#             h, Place(place.turn, mask=near, is_causal=False))
#
# model = plant(copy.deepcopy(yardstick), Windowed)
# for Windowed.width in (1, 2, 4, 8, 16, 32, 64, 128):
#     with torch.inference_mode():
#         logits = model(pages).logits[:, :-1].mT
#     loss = torch.nn.functional.cross_entropy(logits, pages[:, 1:])
#     print(Windowed.width, round(loss.item(), 3))
# ```
#
# In our run the loss falls from 5.51 nats with the token itself alone to 3.38 with 32 tokens and 3.25 with 128; the doubling
# from 64 on gains less than 0.02. Our pieces end at 128 tokens, so half of the queries have fewer than 64 before them, and
# this says nothing about a longer look back. A model that was trained with all of the text has never learnt to do without
# it; one that was trained with a window could pass news on from layer to layer, and so reach four windows back.
#
# </details>
#
# > **Exercise 3.11** (which heads matter; hard, 45 minutes). You have cut each of the 32 heads out on nonsense. Do it on
# > `pages`, on real text. Does the head with the clearest job matter most there too? Then cut the five that matter least,
# > together. Is the harm the sum of the five harms?
#
# <details><summary>Solution</summary>
#
# ```python
# @torch.inference_mode()
# def loss_on_pages(model):
#     logits = model(pages).logits[:, :-1].mT
#     return torch.nn.functional.cross_entropy(logits, pages[:, 1:]).item()
#
# whole = loss_on_pages(yardstick)
# harm = {(l, n): loss_on_pages(without(yardstick, l, n)) - whole
#         for l in range(4) for n in range(8)}
# order = sorted(harm, key=harm.get)
# print("most:", [(at, round(harm[at], 3)) for at in order[::-1][:5]])
# print("least:", [(at, round(harm[at], 3)) for at in order[:5]])
#
# model = yardstick
# for at in order[:5]:
#     model = without(model, *at)
# print("five together:", round(loss_on_pages(model) - whole, 3),
#       "their sum:", round(sum(harm[at] for at in order[:5]), 3))
# ```
#
# In our run the head that looks back one matters most by far: 0.42 nats, more than twice as much as any other. The least
# important five, four of them in layer 0, can go together for two hundredths of a nat. That is more than the sum of their
# single harms, 0.012: perhaps, while one was gone, others did its work. Part of it is our choice: we took the five that came
# out lowest.
#
# </details>
#
# > **Next: [The yardstick](04_model.ipynb).** You have the part of a model that looks back. Put it into a stack with
# > everything else that a Transformer needs: the whole fits on a screen.
