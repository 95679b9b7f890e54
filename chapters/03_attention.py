# ---
# jupyter:
#   book:
#     number: 3
#     reading: 80 min
#     cpu: 45 s, 1.4 GB
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
# > - look into a trained model and find, by measurement, heads with a job that has a name;
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
# **20 times**
#
# > **Margin.** One thread of an AMD EPYC, 51 million weights, a batch of one. [Below](#Why-writing-is-slow) you measure
# > your own machine.
#
# So much longer does our test model take for a token that it *writes* than for a token that it *reads*. It is the same
# model with the same weights, and for one token it does about the same multiplications either way. Nothing is wrong with
# the code. Where does the time go?
#
# The answer needs attention, what attention keeps, and what it costs to fetch it. At the end of this chapter you will be
# able to say where most of that factor comes from, with two numbers of your machine.
#
# ## What the press said
#
# An opinion piece from the weeks after R1 explains DeepSeek's innovations: traditional systems handle text strictly one
# word after another, the new one takes in whole phrases at once. That is claim C52 of [our list](../book/ledger.md).
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
# In a text, a token's meaning lies in other tokens. In `width * height` the second name is easier to guess if you look back
# and find that the function is called `area`. [Attention](../book/glossary.md#attention) is a way to look back that can be
# trained.
#
# Each token makes three short lists of numbers from its [hidden state](../book/glossary.md#hidden-state), the numbers that
# stand for it inside the model. A **query**: what am I looking for? A **key**: what can I be found by? A **value**: what do
# I have to say? Three matrices of weights make them, `w_q`, `w_k` and `w_v`, and training adjusts these. A query is
# multiplied with the key of every token up to its own: number by number, and added up. The larger this product, the better
# the fit. The products are turned into shares that add up to 1, and by these shares the values are added.

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
# $$\begin{aligned} p_{t,s} &= \mathrm{softmax}_s \left( \frac{q_t \cdot k_s}{\sqrt{D_h}} \right) \\ o_t &= \sum_{s \le t} p_{t,s}\, v_s \end{aligned} \tag{3.1}$$
#
# | Symbol | Meaning | here | Shape |
# |---|---|---|---|
# | $h$ | hidden state, of width $D$ | 128 | `(B, T, D)` |
# | $q$ | queries of $H$ heads, $D_h$ wide | 8 × 16 | `(B, T, H, Dh)` |
# | **k**, **v** | keys and values | 8 × 16 | `(B, S, H, Dh)` |
# | $p$ | shares, the attention weights | | `(B, H, T, S)` |
# | $o$ | outputs, the sums by share | 8 × 16 | `(B, T, H, Dh)` |
#
# Two things in it are new: the root, which is step two below, and the $s \le t$ under the sum. A model is trained to name
# the next token, so while it reads token $t$, token $t + 1$ is the answer, and it must not be seen. This rule is the
# **causal mask**. It is one line of code, and at the end of the chapter we will get it wrong on purpose.
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
# A product of two random lists of $D_h$ numbers is a sum of $D_h$ random terms, and such a sum spreads like $\sqrt{D_h}$.
# Without the root, a wide head would begin its life sure of itself for no reason. How large is the largest of 64 shares,
# before anything is learnt?

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
# Without it, a head of 256 gives nearly everything to one token, drawn by chance, and softmax hardly passes a gradient to
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
# The same. A sum has no order. To attention, *dog bites man* is *man bites dog*; position has to come in on purpose.
#
# > **Margin.** Not quite: the causal mask alone tells a model something about place, and models without any position can be
# > trained ([NoPE](../book/references.md#nope)).
#
# **RoPE**, rotary position embedding, does it by turning ([RoPE](../book/references.md#rope)). Take two numbers of a query
# as a point in the plane, and turn it by an angle that grows with its place $t$. Turn the key by the same rule. A product
# of two arrows depends on the angle between them, and if both move on by five places, both turn on by the same amount.

# %% tags=["remove-input"]
show.drawing("turn",
             alt="Three dials with a key's and a query's hand. At places 1 and 3 they are 60 degrees apart; at places 6 and 8 both have turned on and are still 60 degrees apart; at places 1 and 8 they are 135 degrees apart.",
             caption="Fifteen degrees a place. Moving both keeps the angle between them; moving one does not.")

# %% [markdown]
# A head of 16 numbers has eight such pairs, and each turns at a speed of its own. The first turns by one radian a token,
# the last by a three-thousandth of that, like the hands of a clock:
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
# The package keeps a table of cosines and sines and turns all pairs at once. Does the promise hold? One query, one key, and
# 65 distances, with the text beginning at place 0, at 100, and at 900:

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

# %% tags=["hide-input"]
speeds = 10_000.0 ** (-torch.arange(0, 16, 2, dtype=torch.float64) / 16)
names = {0: "pair 0", 2: "pair 2", 4: "pair 4", 7: "pair 7"}
show.show(show.lines({name: (list(range(65)), [math.cos(d * speeds[i]) for d in range(65)]) for i, name in names.items()},
                     concept={name: "mha" for name in names.values()}, x="distance between query and key, tokens",
                     y="what the pair adds, if equal at distance 0", title="Fast pairs tell neighbours apart, slow pairs tell regions apart"),
          alt="Four cosines: pair 0 swings ten times in 64 tokens, pair 2 once, pair 4 falls a little, pair 7 stays at one.",
          caption="Equation (3.2) for a head of 16. Computed, not measured.")

# %% [markdown]
# One curve for all three starts. Where the text stands does not matter; how far the two tokens are apart does. The waves
# are the fast pairs, the slow drift below them the slow ones. Training can lean on either: on a fast pair for *the token
# just before*, on a slow one for *somewhere above*.
#
# ### Four: several heads
#
# One head has one opinion about where to look. A layer has $H$ of them, narrow ones, side by side: **multi-head
# attention**. Their outputs are joined and mixed by one more matrix, `w_o`. Here is a whole layer, without any shortcut; it
# takes the package's weights, so that we can compare.

# %%
def attention_by_hand(layer, h, turn_table):
    """All tokens at once, without a cache: (B, T, D) -> (B, T, D)."""
    H, Dh = layer.n_heads, layer.d_head
    q = layer.w_q(h).unflatten(-1, (H, Dh))                # (B, T, H, Dh)
    k = layer.w_k(h).unflatten(-1, (H, Dh))                # (B, S, H, Dh)
    v = layer.w_v(h).unflatten(-1, (H, Dh))                # (B, S, H, Dh)
    q, k = rotate(q, turn_table), rotate(k, turn_table)
    score = einsum("bthn,bshn->bhts", q, k) / Dh**0.5      # (B, H, T, S)
    future = torch.ones(score.shape[-2:]).triu(1).bool()   # (T, S)
    share = score.masked_fill(future, -torch.inf).softmax(-1)
    o = einsum("bhts,bshn->bthn", share, v)                # (B, T, H, Dh)
    return layer.w_o(o.flatten(-2))


# %% [markdown]
# Must every head have keys and values of its own? That is a choice, and it becomes a matter of money later. In
# **multi-query attention** (**MQA**) all heads read the same pair, in **grouped-query attention** (**GQA**) a group of
# heads shares one. The queries stay as many as they were.

# %% tags=["remove-input"]
show.drawing("groups",
             alt="Eight query heads in three rows. MHA: heads 0 to 7 read pairs 0 to 7, 256 numbers a token. GQA: the first four heads read pair 0, the last four pair 1, 64 numbers. MQA: all read pair 0, 32 numbers.",
             caption="Which key-value pair each query head reads, at our sizes. A pair is 16 numbers of key and 16 of value.")

# %% [markdown]
# > **Exercise 3.4** (share; medium, 5 minutes). Write `share_heads(k, n_heads)`. `k` is `(B, S, G, Dh)`, keys of `G`
# > groups; the result is `(B, S, n_heads, Dh)`, with each group's key repeated for its heads, neighbours together as in the
# > drawing.

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
# Does the layer by hand do what the package's does, and do both do what others have written? The second opinion is
# PyTorch's own fused attention, the third the layer of Meta's Llama as Hugging Face wrote it. Llama turns number $i$
# together with number $i + 8$, where we turn neighbours, so its weights need reordering, which is in the hidden cell.
# Weights are drawn large, so that a mistake would show.

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
# 1.28 million parameters, which chapter 4 builds and chapter 5 trains on Python's standard library. Its trained weights lie
# in the repository. Where do its 32 heads look?
#
# > **Before you read on.** Nobody told the heads what to do. In how many of the 32 will you be able to name, after a look
# > at the numbers, what the head does most of the time?
# >
# > <details><summary>What we found</summary>
# >
# > **Five.** In our run that many of the 32 give at least 40 percent of their share to one kind of target that we could
# > name, and one of them gives nearly all. The others spread theirs over many tokens, and we have no name for what they do.
# >
# > </details>
#
# Each small square below is a head: a row for every query, a column for every source, darker for a larger share. Choose a
# layer and a head, then point at a token, or walk through the text with the arrow keys.

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
# ones, `.w`, `.` and a comma; and `.name` comes next here. Now choose head 7 of layer 2 and walk: whatever the token, it
# looks at the one before. Layer 0 has nothing of the kind; its heads look almost everywhere a little.
#
# A picture convinces too easily, so measure. For every kind of target, over 4,096 tokens of text that the model was not
# trained on, take the mean share that a head gives to it. A head that looked everywhere alike would score something too;
# that stands beside it.
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
unseen = tokenizer.encode(data.valid_text()[:40_000]).ids[:4096]
pages = torch.tensor(unseen).view(32, 128)
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
                 "looking evenly": even, "queries": n})
show.table(rows)

clearest = torch.stack([mean for mean, _, _ in scores.values()]).amax(0)
print(f"{(clearest >= 0.4).sum()} of {clearest.numel()} heads give at "
      "least 40 percent of their share to one kind of target")

# %% [markdown]
# One head is nearly pure: head 7 of layer 2 gives 93 percent of its share to the token before. Heads 0, 3 and 4 of layer 3
# find, for a token that has occurred already, what *followed* it then, with about two fifths of their share, where an even
# look would give 3 percent. A third kind looks at the start of the line, which in Python is its indentation. Note also what
# is missing. No head looks for the same token itself, and the best at open brackets gives them a share so small, on so few
# queries, that we will not call it a bracket head.
#
# The first two kinds seem to belong together, and there is a way to find out.
#
# ### Two heads that copy
#
# The pair is known from larger models as an [induction](../book/glossary.md#induction-head) circuit ([Olsson and
# others](../book/references.md#induction-heads)): the first head notes at every place what stood before it, and the second,
# in a later layer, searches these notes. Together they say: *last time this token came, that one followed; so it will
# again.*

# %% tags=["remove-input"]
show.drawing("induction",
             alt="Tokens self, dot, name, comma, and later self again. A head notes at the dot that self stood before it. A later head, at the second self, finds the place where self was noted, and proposes what stands there, the dot, as the next token.",
             caption="How two heads in different layers copy what followed last time.")

# %% [markdown]
# If that is what happens, it must work on nonsense too. Take 32 tokens drawn at random and put them twice, one behind the
# other. No grammar, no meaning; the first half cannot be predicted, and the second only by looking back. Then cut a single
# head out of the model, by setting its part of `w_o` to zero, and measure again.

# %%
g = torch.Generator().manual_seed(0)
once = torch.randint(300, 4096, (64, 32), generator=g)
twice = torch.cat([once, once], dim=1)               # (64, 64)

# %%
@torch.inference_mode()
def loss_by_half(model):
    """Nats a token on the first and the second half of `twice`."""
    logits = model(twice).logits[:, :-1].mT          # (64, V, 63)
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


# %% tags=["nbval-ignore-output"]
layer_no, n = divmod(scores["previous token"][0].argmax().item(), 8)
beside = (n + 1) % 8
cut = {"whole": yardstick,
       f"without head {n}": without(yardstick, layer_no, n),
       f"without head {beside}": without(yardstick, layer_no, beside)}
rows = []
for name, model in cut.items():
    first, second = loss_by_half(model)
    rows.append({"model": name, "first time, nats": first,
                 "second time": second})
show.table(rows, caption=f"Heads of layer {layer_no}.")

# %% [markdown]
# The first time nobody can know the tokens. The model is even worse than blind guessing, 8.3 nats, because it expects
# Python. The second time it saves more than two nats on every token. Then cut that one head out of 32, and the second time
# is nearly as bad as the first. Its neighbour may go without harm. The head does not copy anything itself; but without its
# notes the copying heads find nothing. This is stronger evidence than a picture: a picture shows where a head looks, a cut
# shows what for.
#
# ## Remember: the KV cache
#
# Now let the model write. Each new token needs the keys and values of all tokens before it. They do not change any more:
# the mask sees to that, for nothing that comes later can reach them. So keep them, in a [KV
# cache](../book/glossary.md#kv-cache), and compute only what is new.
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
# A loop that decodes by hand, token by token, must give what reading all at once gave. `h` and `layer` are those of the
# proof above.

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
# are nothing to worry about. At DeepSeek-V3's sizes the same formula gives 4 megabytes for *one* token; [chapter
# 6](06_mla.ipynb) begins with that pain, and with what V3 keeps instead.
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
# Time both with the trained yardstick, on your machine, in turns, in processor time of one thread. The third row writes
# without a cache and so computes everything again for each token.

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
# Reading is faster by far than writing, and the cache is worth more than an order of magnitude. But do not explain this
# table with memory. The five megabytes of our weights could be fetched in well under a millisecond; a pass over one token
# takes many times that, and spends it on calls of Python and PyTorch. To see the machine's own limit we need a model that
# is too large for the processor's caches.
#
# ## Why writing is slow
#
# A machine can be short of two things. It can multiply only so fast, and it can fetch numbers from memory only so fast.
# Which of the two it hits depends on how much it does with a number once it has it. Call that the **intensity**:
# [FLOPs](../book/glossary.md#flop) for each byte fetched.
#
# In decoding, each weight is fetched, multiplied with one number of one token, added, and dropped. That is two FLOPs for
# four bytes, half a FLOP a byte. In a prefill of 512 tokens the same weight, once fetched, is used 512 times. And in
# between lies the batch: 64 conversations that are written at the same time share the weights, too. They do not share their
# caches.
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
# With a short cache it grows with the batch. With a long one it cannot exceed 2 FLOPs a number, whatever the batch: a cache
# has no one to share it with.
#
# </details>
#
# Now put it to the test with 51 million weights, 205 MB, too much for the cache of most processors. We time six passes, and
# in the same turns the two limits themselves: adding up an array of 268 MB, which is nothing but fetching, and multiplying
# two matrices, which is hardly any.

# %% tags=["nbval-ignore-output"]
from minimodels.studies.attention import PASSES, WIDE, work
from minimodels.timing import MULTIPLY_FLOPS, READ_BYTES, roofs

wide = Transformer(WIDE).eval()
ms = interleaved(roofs() | {name: a_pass(wide, *sizes)
                            for name, sizes in PASSES.items()},
                 rounds=3, clock=time.thread_time)
fastest = {name: min(times) / 1e3 for name, times in ms.items()}  # seconds
GB_s = READ_BYTES / fastest["read"] / 1e9
GFLOPS = MULTIPLY_FLOPS / fastest["multiply"] / 1e9
print(f"this machine, one thread: {GB_s:.1f} GB/s, {GFLOPS:.0f} GFLOPS;"
      f" they meet at {GFLOPS / GB_s:.1f} FLOPs a byte")

# %% tags=["nbval-ignore-output"]
rows = []
for name, (T, B, S) in PASSES.items():
    cost = work(WIDE, T, B, S)
    at = cost["flops"] / cost["bytes"]
    rows.append({"pass": name, "FLOPs a byte": round(at, 1),
                 "bound, GFLOPS": round(min(at * GB_s, GFLOPS), 1),
                 "measured": round(cost["flops"] / fastest[name] / 1e9, 1),
                 "tokens a second": round(T * B / fastest[name])})
show.table(rows)

# %% [markdown]
# The bound is the smaller of the two limits: intensity times bandwidth, or the peak. Drawn with both axes in powers, it
# looks like a roof, and the picture is called a [roofline](../book/glossary.md#roofline)
# ([Roofline](../book/references.md#roofline)). Here it is with our recorded times.

# %% tags=["hide-input"]
timed = recorded("attention-roofline")
best = {name: min(min(t["ms"][name]) for t in timed["trials"]) / 1e3 for name in timed["trials"][0]["ms"]}
bandwidth, peak = READ_BYTES / best["read"] / 1e9, MULTIPLY_FLOPS / best["multiply"] / 1e9
ridge = peak / bandwidth
roof = [0.25, ridge, 400]
points = {}
for name, sizes in PASSES.items():
    if name == "prefill, 8 tokens":    # it lies on "decode, 8"
        continue
    cost = work(WIDE, *sizes)
    points[name] = [cost["flops"] / cost["bytes"]], [cost["flops"] / best[name] / 1e9]
fig = show.lines({"roof": (roof, [min(x * bandwidth, peak) for x in roof])} | points,
                 concept={name: "mha" for name in points}, x="FLOPs for each byte fetched", y="GFLOPS reached", log_x=True, log_y=True,
                 title="Writing one token at a time leaves most of the processor waiting for memory")
fig.update_layout(margin={"r": 24}, xaxis={"range": [-0.7, 3.4], "dtick": 1}, yaxis={"dtick": 1})
show.show(fig,
          alt="A line that rises and then runs flat. Decode with a batch of one lies far down its slope; decode with 8 and 64 and prefill lie further right and higher, prefill of 512 tokens at the flat part.",
          caption=f"Recorded: minimodels study attention-roofline; {timed['trials'][0]['hardware']}. The fastest of 15 rounds, in processor time.")

# %%
written, read = best["decode, 1 at a time"], best["prefill, 512"] / 512
n_bytes = work(WIDE, *PASSES["decode, 1 at a time"])["bytes"]
print(f"{bandwidth:.1f} GB/s and {peak:.0f} GFLOPS meet at {ridge:.1f} "
      f"FLOPs a byte, {ridge / 0.5:.0f} times the half FLOP of decoding")
print(f"a token written takes {1e3 * written:.1f} ms, a token read "
      f"{1e3 * read:.2f} ms: {written / read:.0f} times as long")
by_product = n_bytes / READ_BYTES * best["read by a product"]
print(f"fetching {n_bytes / 1e6:.0f} MB: {n_bytes / bandwidth / 1e6:.1f} "
      f"ms for a sum, {1e3 * by_product:.1f} ms for a product")

# %% [markdown]
# Begin at the lower left. With half a FLOP a byte, decoding reaches 4 percent of the peak; the multipliers stand idle, and
# faster ones would not help. At the right a long prompt reaches 80 percent: there the processor works.
#
# Two numbers explain the greater part of the factor at the top of the chapter. A token that is read costs at least its
# FLOPs divided by the peak, one that is written at least its bytes divided by the bandwidth. With half a FLOP a byte the
# two differ by twice the intensity at which the roof bends: an expected factor of 11. We measured 20. The rest has names
# too. Fetching by multiplying with a vector, which is what decoding does, is slower than fetching by a plain sum (8.0 ms
# against 5.9); and a pass over one token is many small calls, whose cost we did not take apart.
#
# Between the two lies the batch. Sixty-four texts at once have 14 FLOPs a byte and not 32, because each brings a cache of
# its own that nobody shares; the longer the texts, the worse. The point for 8 texts lies far below the roof, and part of
# that is ours: for fewer than 32 rows our package multiplies by another routine, which does not use this processor's widest
# instructions. A roof says what is possible, not what is reached.
#
# ## What sharing costs
#
# If fetching is the limit, fewer keys and values are fewer bytes, and that is the whole case for **GQA** and **MQA**. What
# do they cost? Five seeds each, at equal parameters (the feed-forward part is widened for what attention saves), 600 steps;
# the study is chapter 6's.

# %% tags=["hide-input"]
quality = recorded("mla-quality")
quality_of = {name.upper(): [t["bits_per_byte"] for t in quality["trials"] if t["arm"] == name] for name in ("mha", "gqa", "mqa")}
show.show(show.dots(quality_of, unit="bits per byte of unseen text", title="The more heads share a key, the more bits the model needs"),
          alt="Three rows of five dots: MHA lowest, then GQA, then MQA.",
          caption=f"Recorded: minimodels study mla-quality; five seeds each; {quality['trials'][0]['hardware']}. The stroke is the mean.")

# %%
mean = {name: statistics.mean(bits) for name, bits in quality_of.items()}
for name, kept in (("GQA", 64), ("MQA", 32)):
    more = [a - b for a, b in zip(quality_of[name], quality_of["MHA"])]
    print(f"{name} keeps {kept / 256:.1%} of MHA's numbers; bits a byte: "
          f"{statistics.mean(more):+.4f}, from {min(more):+.4f} to "
          f"{max(more):+.4f} over the seeds")

# %% [markdown]
# A quarter of the cache for 0.6 percent more bits, an eighth for 1.2. With every seed **MHA** is best and **MQA** worst.
# Large models, which pay for every byte of cache, mostly take the middle: Llama 3.1 405B has eight pairs for 128 heads
# ([Llama 3, Table 3](../book/references.md#llama-3)).
#
# ## Break it
#
# ### A mask that leaks
#
# Write `s <= t + 1` where `s <= t` belongs. Each query now sees one token too many, the very one that it has to predict.
# Nothing crashes. We train two models of two layers on short windows, one right and one with the leak, for 120 steps, which
# takes about half a minute.
#
# > **Before you read on.** After a full training, the yardstick needs more than 3 nats a token. What loss will the leaking
# > model show after 120 steps: about the same as the right one, half of it, or nearly nothing?
# >
# > <details><summary>What we found</summary>
# >
# > **Nearly nothing.** 0.18 bits per byte in the mean of three seeds, where the right model needs 2.42. It has found where
# > the answer is written.
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
# For a while both learn alike. Then the leaking model discovers where the answer lies, and its loss falls far below what
# the yardstick reaches after two hundred times as many tokens. In practice this moment looks like a triumph. Ask the model
# to *use* what it knows: put the right mask back, and nothing else, and score it on unseen text.

# %% tags=["nbval-ignore-output"]
from minimodels.evaluate import evaluate
from minimodels.studies.attention import heal


def bits(model):
    return evaluate(model, data.valid, n_bytes=data.valid_bytes,
                    seq_len=LIVE.seq_len).bits_per_byte


shown = {"right": bits(right), "leaking, as trained": bits(leaking)}
shown["leaking, with the right mask"] = bits(heal(leaking))
blind = math.log2(4096) * len(data.valid) / data.valid_bytes
show.table([{"model": name, "bits per byte": b}
            for name, b in (shown | {"blind guessing": blind}).items()])
print(lab.band("attention", "right after 120 steps", shown["right"]))

# %% [markdown]
# With the right mask it is worse than blind guessing among 4,096 tokens. It never learnt to predict, only to copy, and now
# it copies from the wrong place with confidence.
#
# ### Rotations that go wrong
#
# Three more faults, all around the rotation, in the same small model, recorded with three seeds each. *Key turned twice*:
# the key is rotated where it is made, and again where it is used, as happens when two people add RoPE. *Both turned twice*:
# queries too. *Never turned*: no rotation at all. What do you expect of each?

# %% tags=["hide-input"]
broken = recorded("attention-bugs")
by_arm = {arm: [t for t in broken["trials"] if t["arm"] == arm][:3] for arm in broken["arms"]}
turned = {arm: [t["bits_per_byte"] for t in runs] for arm, runs in by_arm.items() if arm != "leaking mask"}
show.show(show.dots(turned, concept={arm: "dense" if arm == "right" else "mha" for arm in turned}, unit="bits per byte of unseen text",
                    title="In a short training, a fault in the rotation does not show"),
          alt="Four rows of three dots that overlap: right, key turned twice, both turned twice, never turned.",
          caption=f"Recorded: minimodels study attention-bugs; three seeds each; {broken['trials'][0]['hardware']}. The stroke is the mean.")

# %%
kinds = {"bits per byte": "bits_per_byte", "with the right one": "honest"}
show.table([{"layer": arm} | {
                words: round(statistics.mean(t[key] for t in runs), 3)
                for words, key in kinds.items()}
            for arm, runs in by_arm.items()])

# %% [markdown]
# Nothing to see: the four differ less than their seeds do. A training as short as this, on windows of 64 tokens, hardly
# uses position; you can even put the right layer in afterwards, and the score hardly moves. Whether the four part in a
# longer run, we did not record. So a short test run, which is what everybody makes after a change, is no test of a
# rotation. Only the leak stands out in the table, and it stands out as the best.
#
# Now plant every fault in the yardstick instead, which was trained with the right rotation and has come to rely on it. A
# fifth joins them: *cached before its turn*, where the key goes into the cache as it was. The model reads the second half
# of eight pages, once all at once, and once token by token behind a cache. Nothing is trained:

# %% tags=["nbval-ignore-output"]
from minimodels.bugs.attention import BUGS
from minimodels.studies.attention import read

spoilt = {name: plant(copy.deepcopy(yardstick), bug)
          for name, bug in BUGS.items()}
rows = []
for name, model in ({"right": yardstick} | spoilt).items():
    loss = read(model, pages[:8])
    rows.append({"yardstick": name, "read at once": loss["at_once"],
                 "read one by one": loss["one_by_one"]})
show.table(rows, caption="Nats a token.")

# %% [markdown]
# Now all of them matter. The faults of the rotation cost the trained model from 0.6 to 1.9 nats a token. The leak *lowers*
# the loss, without a step of training: to copy what it finds is a thing that this model can do already. And the last row is
# the treacherous one. Read at once, it agrees with the right model in every digit; only one by one does it lose its way. It
# remembers what was said, and not where.
#
# > **Bugs that still train.**
# > - **A mask that leaks.** The loss is too good. Token by token, behind a cache, there is no next token to see, and what
# >   was learnt is useless.
# > - **One of the two turned twice.** A score depends on $t - 2s$, so on where a text stands. Moving the whole text by nine
# >   places changes the output; a right layer's does not change. [Chapter 6](06_mla.ipynb) lets you write that test.
# > - **Both turned twice.** Distances still decide, so the test of distances passes. Only a comparison with another
# >   implementation finds it.
# > - **Cached before the turn.** Training has no cache, and its loss is exactly right. Reading one by one gives other
# >   numbers than reading at once.
#
# > **Exercise 3.8** (catch the leak; medium, 15 minutes). Write `sees_the_future(layer, h, place)`. `layer(h, place)` gives
# > the outputs `(B, T, D)` for hidden states `h`. Change late tokens, and look whether an earlier output moves; compare
# > with `torch.allclose(..., atol=1e-5)`. The check hands you layers with and without a leak, and some with another fault,
# > which is not one. Return a truth value.

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
# Three lines of test, and the most embarrassing bug of the trade is gone. It works on a whole model too, on logits.
#
# </details>
#
# ## Does it pay here?
# > **Does it pay here?** **The cache, yes, at every size. Sharing heads, not at ours.**
# >
# > - **The cache:** it changes no number, and without it the yardstick would compute 513 tokens to write one. You have
# >   timed the difference above.
# > - **GQA and MQA:** four megabytes for a thousand tokens are not worth saving, and both cost quality: 0.0105 and 0.0198
# >   bits per byte more in the mean of five seeds.
# > - **A batch:** if you have many texts to continue, continue them together. On our machine 64 at once came out at 12
# >   times as many tokens a second as one alone, with 128 tokens in each cache.
# > - **At DeepSeek's scale:** the cache is what limits how many conversations share a machine, so all of this is reversed.
# >   V3 serves reading and writing on separate groups of GPUs ([DeepSeek-V3, section
# >   3.4](../book/references.md#deepseek-v3)).
#
#
# ## The claim again
#
# > **Claim C52 · misleading.** *Traditional systems handle text strictly one word after another.*
# >
# > They read all of it at once: the causal mask lets every place of a text be computed in the same pass, and that is how
# > every Transformer is trained. You have timed it. Only *writing* goes one token after another, and there DeepSeek-V3 does
# > the same. Its paper serves the two apart, as prefilling and decoding. What V3 adds, a guess at the token after next, is
# > chapter 9's.
# >
# > *It would have been right to say:* every Transformer reads in parallel and writes one token after another.
# >
# > Source: [DeepSeek-V3, section 3.4](../book/references.md#deepseek-v3); the timings above.
#
# ## What production does
#
# - **Fused kernels.** Nobody writes the $T \times S$ scores to memory. Kernels such as the one in PyTorch compute softmax
#   block by block while they fetch keys; the weights that you saw in the pictures never exist. Chapter 11 builds one.
# - **Two fleets.** V3's prefill runs on units of 32 GPUs and its decoding on units of 320 ([DeepSeek-V3, section
#   3.4](../book/references.md#deepseek-v3)), because one is limited by arithmetic and the other by memory.
# - **The same gap.** On average over a day in 2025 one of V3's nodes took in 73.7 thousand tokens a second, those that were
#   found in a cache included, or put out 14.8 thousand ([open-infra-index](../book/references.md#open-infra-index)). With
#   very large batches the factor shrinks; it does not vanish.
# - **Smaller caches.** Shared heads, then **latent attention** ([chapter 6](06_mla.ipynb)), then fewer bits a number.
#
# > **Takeaways**
# > 1. Attention is a weighted mean of values; a query's products with the keys are the weights, after softmax, over $s \le
# >    t$.
# > 2. It knows no order. RoPE turns queries and keys by their place, so that products follow distances.
# > 3. Heads find jobs by themselves, some of which have names. Measure before you name, and cut to see whether it matters.
# > 4. A KV cache changes no number. Decoding fetches all weights for every token, and waits for memory; a prompt or a batch
# >    shares them.
# > 5. Too good a loss is a bug report. Test the mask by changing the future.
#
# ## Longer problems
#
# > **Exercise 3.9** (turned twice is not turned wrong; easy, 15 minutes). Show that turning queries and keys twice is RoPE
# > with doubled frequencies: give a table `Rope(frequency, max_len)` whose single turn equals two turns of ours, and
# > compare the products. What does that say about the base 10,000 in equation (3.2)?
#
# <details><summary>Solution</summary>
#
# ```python
# from minimodels.layers import yarn_frequencies
#
# frequency = yarn_frequencies(16, 10_000.0, 1, 4096, 32, 1)
# once, doubled = Rope(frequency, 1024), Rope(2 * frequency, 1024)
# x, at = torch.randn(1, 1024, 1, 16), torch.arange(1024)
# twice_turned = rotate(rotate(x, once(at)), once(at))
# print(torch.allclose(twice_turned, rotate(x, doubled(at)), atol=1e-4))
# ```
#
# It prints `True`. The speeds are a choice, and the model trains with others as well. What must hold is that the query's
# and the key's are the same.
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
#         return super().forward(h, Place(place.turn, None, near, False))
#
# model = plant(copy.deepcopy(yardstick), Windowed)
# for Windowed.width in (1, 2, 4, 8, 16, 32, 64, 128):
#     with torch.inference_mode():
#         logits = model(pages).logits[:, :-1].mT
#     loss = torch.nn.functional.cross_entropy(logits, pages[:, 1:])
#     print(Windowed.width, round(loss.item(), 3))
# ```
#
# In our run the loss falls from 5.76 nats with the token itself alone to 3.54 with 32 tokens and 3.41 with 128; the
# doubling from 64 on gains less than 0.03. A model that was trained with all of the text has never learnt to do without it;
# one that was trained with a window could pass news on from layer to layer, and so reach four windows back.
#
# </details>
#
# > **Exercise 3.11** (which heads matter; hard, 45 minutes). Cut each of the 32 heads out in turn with `without`, and
# > measure the loss on `pages`. Does the head with the clearest job matter most? Then cut the five that matter least,
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
# In our run the head that looks back one matters most by far: 0.40 nats, more than twice as much as any other. The least
# important five, most of them in layer 0, can go together for about a hundredth of a nat. That is more than the sum of
# their single harms: while one was gone, others did its work.
#
# </details>
#
# > **Next: [The yardstick](04_model.ipynb).** You have the part of a model that looks back. Put it into a stack with
# > everything else that a Transformer needs: the whole fits on a screen.
