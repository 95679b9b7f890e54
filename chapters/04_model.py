# ---
# jupyter:
#   book:
#     number: 4
#     reading: 80 min
#     cpu: 25 s, 0.7 GB
#     needs: "[Attention](03_attention.ipynb): heads, RoPE, the causal mask"
#     terms:
#       dense: [yardstick]
#       attn: [attention]
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: book
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The yardstick
#
# [Open in Colab](https://colab.research.google.com/github/minimodels/small-models-big-claims/blob/main/chapters/04_model.ipynb)
#
# > *Before you measure anything, make a ruler.*
#
# > **You will be able to**
# > - say what stands around attention in a Transformer, and what breaks without each part;
# > - write the whole model in a screenful, and prove it equal to two other implementations;
# > - count its parameters and its work by part, in your head to one digit and in code exactly;
# > - look inside a model before it has learnt anything, and tell what is odd about its start;
# > - give any model the first test that it should pass, and name a bug whose loss passes it too;
# > - choose depth and width for a fixed budget, and say how sure you are.
#
# Attention lets a token look back. A language model needs more: something that computes with what was seen, a way to stack
# many such steps, and a start from which they can learn. You build all of it in this chapter, and nothing is clever. That is the point.
# Every later chapter changes one thing in this model and asks what the change is worth.

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
from importlib.util import find_spec

import torch
from torch import einsum, nn
from minimodels import exercises, lab, show
from minimodels.config import ModelConfig
from minimodels.explorables import ModelShape
from minimodels.model import Transformer
from minimodels.mtp import losses
from minimodels.studies.model import SHAPES, YARDSTICK

check = exercises.load("model")
print(lab.tier())

# %% [markdown]
# ## The pain
#
# **16 layers: nan**
#
# > **Margin.** *Not a number*: what floating-point arithmetic answers to infinity minus infinity. Nothing can be learnt from it.
#
# That is what sixteen layers answer to their first batch, before any training, if you add attention and feed-forward parts to the stream as they
# are, with no norms, and draw the weights with a standard deviation of 0.1. At 0.05 nothing blows up, and nothing happens either. Watch the [root mean square](../book/glossary.md#rms) (RMS) of the hidden state, the typical size of one of its
# numbers, after layers 1, 4, 7, 10, 13 and 16:

# %%
def rms(x):
    """Root of the mean square: the typical size of a number in x."""
    return x.detach().square().mean().sqrt().item()


def sizes(model, tokens):
    """RMS of the hidden state after each layer."""
    seen = []
    hooks = [block.register_forward_hook(lambda m, args, out:
             seen.append(rms(out[0]))) for block in model.layers]
    with torch.no_grad():
        model(tokens)
    for hook in hooks:
        hook.remove()
    return seen


# %% tags=["nbval-ignore-output"]
deep = SHAPES[16]                      # sixteen layers, 80 wide
dice = torch.Generator().manual_seed(0)
tokens = torch.randint(4096, (4, 256), generator=dice)
naked = {}
for std in (0.05, 0.1):
    torch.manual_seed(0)
    model = Transformer(replace(deep, init_std=std))
    for block in model.layers:         # take the norms away
        block.attention_norm = block.ffn_norm = nn.Identity()
    naked[std] = sizes(model, tokens)
    print(f"std {std}:", *(f"{x:.3g}" for x in naked[std][::3]))

# %% [markdown]
# At a standard deviation of 0.05 the state comes out as it went in: all 32 parts together, sixteen attentions and sixteen
# feed-forward networks, changed its size by less than two percent. The model is a look-up table with decoration. At 0.1 the numbers
# double, then square, then leave the range of 32-bit floats. Somewhere between lies a usable value, and it would be another one for
# every depth and width. Nobody trains a model on such an edge. What follows takes the edge away.
#
# ## What a yardstick is for
#
# In this book the **yardstick** is a [dense](../book/glossary.md#dense) Transformer
# with four layers, 128 wide, eight heads of 16, and a vocabulary of 4,096. Dense means that every parameter works on every token.
# When chapter 6 says that latent attention costs a percent, it is a percent of *this*. The press calls it a *traditional model*, and says that
# such models "keep all of their parameters active constantly". Whether the name is fair is for chapter 7; this chapter settles no claim, it makes the ruler
# for those that do.
#
# > **Before you read on.** The yardstick has 1.28 million parameters. What share of them is attention, the part that gave the
# > Transformer its fame: 80, 50, or 20 percent?
# >
# > <details><summary>What we found</summary>
# >
# > **20 percent.** The [count below](#Count-it) gives 41 percent to the embedding, 38 to the feed-forward networks, 20 to attention, and a
# > thousandth to the norms, without which the sixteen layers above end in `nan`.
# >
# > </details>
#
# ## The idea in a picture

# %% tags=["remove-input"]
show.drawing("stream",
             alt="A heavy line runs from the embedding to the head; in each layer two branches leave it, through a norm and attention and through a norm and SwiGLU, and are added back to it.",
             caption="The whole model. The heavy line is the residual stream; parts read it, and add to it.")

# %% [markdown]
# Follow the heavy line. A token's number picks a row of the **embedding**, a vector of $D$ numbers. That vector is the beginning of the
# [residual stream](../book/glossary.md#residual-stream). Each layer reads the stream twice and adds to it twice: once what
# attention found in other tokens, once what a feed-forward network made of this token alone. Nothing is overwritten, only added to.
# At the end the **head** turns the stream into one number for each possible next token.
#
# | Symbol | Meaning | here | Shape |
# |---|---|---|---|
# | $h$ | the stream: a token's hidden state, $D$ wide | 128 | `(B, T, D)` |
# | $B$, $T$ | texts in a batch, tokens in a text | | |
# | $L$ | layers | 4 | |
# | $H$ | heads, each $D_h$ = 16 wide | 8 | |
# | $D_f$ | hidden width of the feed-forward network (in code `d_ff`) | 320 | |
# | $V$ | rows of the vocabulary | 4,096 | |
# | $w$ | a norm's weights, one a place | 128 | `(D,)` |
#
# ## Build it
#
# ### One: a norm
#
# Before a part reads the stream, the stream is brought to a known size. [RMSNorm](../book/glossary.md#rmsnorm) divides a vector
# by its own RMS, then multiplies each place by a learned weight:
#
# $$ \mathrm{norm}(x) = \frac{x}{\sqrt{\overline{x^2} + \epsilon}} \odot w \tag{4.1}$$
#
# The bar is a mean over the $D$ numbers of one token; $\epsilon$, a millionth, is there for vectors of zeros, or nearly; $\odot$ multiplies
# number by number. Take $x = (1, 7)$: the mean of the squares is $(1 + 49) / 2 = 25$, the root is 5, and $x$ becomes $(0.2, 1.4)$. Now
# take $(100, 700)$. It becomes the same $(0.2, 1.4)$. The size is gone, only the direction is left, and that is the whole trick: what
# a part does no longer depends on how large the stream has grown.
#
# (LayerNorm, which is older, subtracts the mean first and adds a learned bias. RMSNorm leaves both out to save time;
# its authors found quality about equal, [RMSNorm](../book/references.md#rmsnorm).)
#
# > **Exercise 4.1** (equation 4.1; easy, 5 minutes). Write `rms_norm(x, weight, eps)` for `x` of shape `(..., D)`, each vector by
# > itself. `x.mean(-1, keepdim=True)` is a mean that keeps its axis.

# %%
def rms_norm(x, weight, eps):
    ...


# %%
check.rms_norm(rms_norm)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def rms_norm(x, weight, eps):
#     return x / (x**2).mean(-1, keepdim=True).add(eps).sqrt() * weight
# ```
#
# </details>
#
# ### Two: SwiGLU
#
# Attention moves information between tokens. It is the feed-forward network that computes with it, token by token. The classic one is a matrix up,
# a bend, a matrix down. (Without the bend the two matrices would be one.) [SwiGLU](../book/glossary.md#swiglu) has two matrices up, and lets the one decide how much of the other
# passes:
#
# $$ W_d \big( \mathrm{silu}(W_g x) \odot W_u x \big) \tag{4.2}$$

# %% tags=["remove-input"]
show.drawing("swiglu",
             alt="The vector x goes through w_gate and w_up side by side; the gate is bent by SiLU and multiplied with up, number by number; w_down leads back to width D.",
             caption="SwiGLU: three matrices, and a gate for each of the hidden numbers.")

# %% [markdown]
# SiLU is $z\,\sigma(z)$, where the *sigmoid* $\sigma(z) = 1 / (1 + e^{-z})$ lies between 0 and 1. SiLU is near $z$ for large $z$, near nothing for very negative ones, and dips to −0.28 between. So a hidden number is
# a product: a gate that is more or less open, times what waits at it. One example by hand. Let gate and up have one number
# each, $W_g x = 0$ and $W_u x = 5$: the gate is $\mathrm{silu}(0) = 0$, and the 5 does not pass. With $W_g x = 3$ it is
# $3 \cdot 0.953 = 2.86$, and 14.3 passes.
#
# > **Exercise 4.2** (equation 4.2; easy, 10 minutes). Write `swiglu(x, w_gate, w_up, w_down)`. Both matrices up have shape `(Df, D)`,
# > `w_down` has `(D, Df)`; the product of a matrix with the last axis of `x` is `x @ w.T`. Use no ready-made SiLU.

# %%
def swiglu(x, w_gate, w_up, w_down):
    ...


# %%
check.swiglu(swiglu)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def swiglu(x, w_gate, w_up, w_down):
#     gate, up = x @ w_gate.T, x @ w_up.T
#     return (gate * gate.sigmoid() * up) @ w_down.T
# ```
#
# </details>
#
# That product is how the `nan` ends. What happens to the output when the input doubles?

# %%
torch.manual_seed(0)
ffn = Transformer(replace(deep, init_std=0.1)).layers[0].ffn
x = torch.randn(1000, deep.d_model)
for size in (0.25, 0.5, 1, 2, 4, 8):
    print(f"RMS in {size:4}: out {rms(ffn(size * x)):7.3f}")

# %% [markdown]
# Twice the input gives somewhat more than four times the output: two factors double, and the gate opens wider. Feed that back into a stream, and
# a small one gets next to nothing added, while a large one explodes. (Attention begins it: alone, without SwiGLU, it takes the stream
# of std 0.1 from 0.1 to between 3 and 6, four seeds. What has passed 1 is then squared, and squared again.) After a norm the input is always 1, and one line of this table is all that can happen.
#
# ### Three: the stream
#
# A layer is two lines. The left arrow means "becomes":
#
# $$\begin{aligned} h &\leftarrow h + \mathrm{attention}(\mathrm{norm}(h)) \\ h &\leftarrow h + \mathrm{SwiGLU}(\mathrm{norm}(h)) \end{aligned} \tag{4.3}$$
#
# Look at where the norms stand: on the branches, not on the line. From the last layer back to the embedding there is a road on which
# nothing is multiplied. A gradient can take it too, and we will see that it does. (The idea of the road is that of residual networks for images, [2015](../book/references.md#residual-connections). The first
# Transformers normed the line itself, after each addition. Large models of today norm the branch, DeepSeek-V3 among them; it is called
# [pre-norm](../book/glossary.md#pre-norm).)
#
# If nothing is ever removed, does the stream not grow without end? It grows, but slowly. Two random vectors in many dimensions are
# nearly at right angles, so lengths add as in Pythagoras: squares add, not sizes.
#
# > **Exercise 4.3** (how it grows; medium, 10 minutes). The stream starts with RMS `start`. Every branch adds a vector of RMS
# > `branch` that points anywhere. Write `stream_rms(start, branch, n_layers)`, its RMS after the last layer.

# %%
def stream_rms(start, branch, n_layers):
    ...


# %%
check.stream_rms(stream_rms)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def stream_rms(start, branch, n_layers):
#     return math.sqrt(start**2 + 2 * n_layers * branch**2)
# ```
#
# Sixteen layers whose branches are as large as the embedding make the stream $\sqrt{33}$ times as large, not 33 times: 5.7.
#
# </details>
#
# ### Four: the weights to begin with
#
# Weights are drawn at random, and the only thing to choose is their standard deviation. A number that leaves a matrix is a sum of as
# many products as come in, $d$ of them. Variances of independent things add. So if the inputs have RMS 1, the outputs have
#
# $$ \mathrm{RMS} = \mathrm{std} \cdot \sqrt{d} \tag{4.4}$$
#
# > **Exercise 4.4** (choose a start; easy, 5 minutes). Write `init_std(d_in, wanted)`: with which standard deviation does a matrix
# > turn `d_in` numbers of RMS 1 into numbers of RMS `wanted`? Then use it: our std is 0.02 at width 128. What would give the same RMS at
# > DeepSeek-V3's width, 7,168?

# %%
def init_std(d_in, wanted):
    ...


# %%
check.init_std(init_std)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def init_std(d_in, wanted):
#     return wanted / math.sqrt(d_in)
# ```
#
# `init_std(7168, 0.02 * math.sqrt(128))` is 0.0027.
#
# </details>
#
# Our models use 0.02 everywhere, whatever the width. At width 128 that makes outputs of RMS 0.23; at 7,168 it would make 1.7. V3 uses 0.006, which makes 0.51 ([DeepSeek-V3, section 4.2](../book/references.md#deepseek-v3)).
#
# ### Five: one matrix, read twice
#

# %% tags=["remove-input"]
show.drawing("tied", margin="One matrix",
             alt="One matrix of 4,096 rows: on the way in a token picks its row, on the way out the hidden state is multiplied with every row and gives 4,096 logits.",
             caption="In, a token picks its row. Out, the stream meets all rows.")

# %% [markdown]
# The embedding has a row for each token. So does the head: a logit is the product of the stream with the row of that
# token. In a small model these two would be most of the parameters, so we [tie](../book/glossary.md#tied-embeddings) them: one matrix does both.
# V3 does not; with 671 billion parameters it can afford two.
#
# Tying has a side effect that you can predict. The stream of a token *begins* as its row, and the head compares it with all rows.
# Which token will a new, untrained model think comes next?

# %%
for is_tied in (True, False):
    torch.manual_seed(0)
    model = Transformer(replace(YARDSTICK, tie_embeddings=is_tied))
    with torch.no_grad():
        p = model(tokens).logits.softmax(-1)             # (B, T, V)
    itself = p.gather(-1, tokens[..., None]).mean() * 4096
    first = (p.argmax(-1) == tokens).float().mean()
    name = "tied" if is_tied else "two matrices"
    print(f"{name}: a token gets {itself:.1f} times its even chance to "
          f"come again, and is the first choice for {first:.0%}")

# %% [markdown]
# Born to stutter: for about half of all tokens, the first choice of a tied model is the same token again. It bets little on it, some 2 chances in 4,096, so the loss hardly
# notices. But it is no accident, and now you know where it comes from.
#
# ## The whole model
#
# Here it is, in a screenful: some fifty lines. Only the rotation of RoPE comes from the package; chapter 3 built it.

# %%
from functools import partial
from minimodels.layers import Rope, rotate

matrix = partial(nn.Linear, bias=False)


class Norm(nn.Module):
    def __init__(self, D):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(D))

    def forward(self, x):
        mean = (x**2).mean(-1, keepdim=True)
        return x / (mean + 1e-6).sqrt() * self.weight


# %%
class Attend(nn.Module):
    def __init__(self, D, Dh):
        super().__init__()
        self.w_q, self.w_k = matrix(D, D), matrix(D, D)
        self.w_v, self.w_o = matrix(D, D), matrix(D, D)
        self.Dh = Dh

    def forward(self, h, turn):
        q, k, v = (w(h).unflatten(-1, (-1, self.Dh))
                   for w in (self.w_q, self.w_k, self.w_v))  # (B, T, H, Dh)
        score = einsum("bthd,bshd->bhts", rotate(q, turn), rotate(k, turn))
        future = torch.ones(score.shape[-2:]).triu(1).bool()
        score = (score / self.Dh**0.5).masked_fill(future, -torch.inf)
        o = einsum("bhts,bshd->bthd", score.softmax(-1), v)
        return self.w_o(o.flatten(-2))


# %%
class FeedForward(nn.Module):
    def __init__(self, D, d_ff):
        super().__init__()
        self.w_gate_up, self.w_down = matrix(D, 2 * d_ff), matrix(d_ff, D)

    def forward(self, x):
        gate, up = self.w_gate_up(x).chunk(2, -1)
        return self.w_down(gate * gate.sigmoid() * up)


# %%
class Layer(nn.Module):
    def __init__(self, D, Dh, d_ff):
        super().__init__()
        self.attention_norm, self.attention = Norm(D), Attend(D, Dh)
        self.ffn_norm, self.ffn = Norm(D), FeedForward(D, d_ff)

    def forward(self, h, turn):
        h = h + self.attention(self.attention_norm(h), turn)
        return h + self.ffn(self.ffn_norm(h))


# %%
class DenseModel(nn.Module):
    def __init__(self, V=4096, D=128, L=4, Dh=16, d_ff=320):
        super().__init__()
        self.embed = nn.Embedding(V, D)
        self.layers = nn.ModuleList(Layer(D, Dh, d_ff) for _ in range(L))
        self.final_norm, self.head = Norm(D), matrix(D, V)
        self.head.weight = self.embed.weight                   # tied
        self.rope = Rope.from_config(YARDSTICK)                # heads of 16

    def forward(self, tokens):
        h = self.embed(tokens)                                 # (B, T, D)
        turn = self.rope(torch.arange(tokens.shape[1]))
        for layer in self.layers:
            h = layer(h, turn)
        return self.head(self.final_norm(h))                   # (B, T, V)


# %% [markdown]
# Two matrices of SwiGLU lie in one, `w_gate_up`, because one larger product is at least as fast as two. You have built all the rest.
#
# ## Prove it
#
# First against the package. Names are the same on purpose, so the weights can be handed over as they are. We make the matrices larger
# than usual: with small weights a wrong branch would hide in the last decimals.

# %%
torch.manual_seed(0)
theirs = Transformer(YARDSTICK).eval()
for parameter in theirs.parameters():
    if parameter.dim() > 1:                              # matrices
        parameter.data.mul_(3)
ours = DenseModel()
ours.load_state_dict(theirs.state_dict())
with torch.no_grad():
    by_hand, package = ours(tokens), theirs(tokens).logits
torch.testing.assert_close(by_hand, package, atol=1e-5, rtol=1e-5)
print(f"{sum(p.numel() for p in ours.parameters()):,} parameters; "
      f"logits up to {by_hand.abs().max():.0f}, equal to 5 digits")

# %% [markdown]
# Then against somebody else's. Hugging Face's `LlamaForCausalLM` is the same architecture, written by other people, with one
# difference that has cost many evenings. Ours turns neighbours, $(x_0, x_1), (x_2, x_3), \dots$; theirs turns halves, $(x_0, x_8),
# (x_1, x_9), \dots$ Both are RoPE. The weights are not interchangeable until the rows of queries and keys have been moved.
#
# > **Exercise 4.5** (move the rows; medium, 15 minutes). Write `halves_from_pairs(w, n_heads)`. `w` is the matrix of a query or key, `(H Dh,
# > D)`: its rows are the heads', one head after the other. Within each head, the rows 0, 2, 4, … come first, then 1, 3, 5, …
# > Two axes change places: `unflatten(0, (n_heads, -1, 2))` shows them.

# %%
def halves_from_pairs(w, n_heads):
    ...


# %%
check.halves_from_pairs(halves_from_pairs)

# %% [markdown]
# <details><summary>Hint</summary>
#
# After `unflatten` the axes are head, pair, place in the pair, and $D$. In the new order the place in the pair changes
# slowest within a head.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def halves_from_pairs(w, n_heads):
#     heads = w.unflatten(0, (n_heads, -1, 2))   # (H, Dh / 2, 2, D)
#     return heads.transpose(1, 2).flatten(0, 2)
# ```
#
# Why may rows move at all? A score is a sum over the head's numbers, and a sum does not care for their order, so long as
# queries and keys agree. Values must stay: `w_o` knows their places.
#
# </details>
#
# `as_llama` does this, and renames the rest. (Colab has the package `transformers`; where it is missing, the cell says so.)

# %%
from minimodels.studies.model import as_llama

if find_spec("transformers"):
    with torch.no_grad():
        llama = as_llama(theirs)(tokens).logits
    torch.testing.assert_close(by_hand, llama, atol=1e-5, rtol=1e-5)
    print("by hand = package = Hugging Face, to 5 digits")
else:
    print("install transformers to compare with Hugging Face too")

# %% [markdown]
# ## Count it
#
# Where are the 1.28 million? A head of 16 times eight heads is again 128, so attention has four matrices of $D \times D$.
#
# > **Exercise 4.6** (count; easy, 10 minutes). Write `count_parameters(vocab_size, d_model, n_layers, d_ff, is_tied)`. Return a dictionary with
# > the keys `"embedding"`, `"attention"`, `"feed-forward"`, `"norms"` and `"head"`; a tied head counts 0.

# %%
def count_parameters(vocab_size, d_model, n_layers, d_ff, is_tied):
    ...


# %%
check.count_parameters(count_parameters)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def count_parameters(vocab_size, d_model, n_layers, d_ff, is_tied):
#     return {"embedding": vocab_size * d_model,
#             "attention": n_layers * 4 * d_model**2,
#             "feed-forward": n_layers * 3 * d_model * d_ff,
#             "norms": (2 * n_layers + 1) * d_model,
#             "head": 0 if is_tied else vocab_size * d_model}
# ```
#
# </details>
#
# Parameters are what you store. What you *pay* is work. Every weight of a matrix product costs a token two
# [FLOPs](../book/glossary.md#flop), a multiplication and an addition. To that comes work that has no parameters: the query meets keys, and the weights
# meet values. With $T$ tokens of text a query sees $(T + 1) / 2$ of them on average, and each costs $2D$ for the score and $2D$ for the sum.
#
# > **Exercise 4.7** (work; medium, 15 minutes). Write `flops_a_token(vocab_size, d_model, n_layers, d_ff, context)`, the FLOPs of
# > one token's forward pass, the mean over a text of `context` tokens. Looking up the embedding is no product. The head is one.

# %%
def flops_a_token(vocab_size, d_model, n_layers, d_ff, context):
    ...


# %%
check.flops_a_token(flops_a_token)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def flops_a_token(vocab_size, d_model, n_layers, d_ff, context):
#     weights = n_layers * (4 * d_model**2 + 3 * d_model * d_ff)
#     weights += vocab_size * d_model
#     return 2 * weights + n_layers * 4 * d_model * (context + 1) / 2
# ```
#
# </details>
#
# Now the same count three ways: by hand, by the package's cost sheet of [chapter 1](01_cost.ipynb) (whose name for the feed-forward part is "dense"), and by torch, which watches the real
# model at work and knows nothing of formulas. Torch multiplies the masked half of the scores too, so this comparison counts it.

# %%
from minimodels.cost import counter, forward_flops

V, D, L, d_ff, T = 4096, 128, 4, 320, 256
hand = {"attention": 2 * T * L * 4 * D**2, "scores": L * 4 * D * T * T,
        "dense": 2 * T * L * 3 * D * d_ff, "head": 2 * T * V * D}
sheet = forward_flops(YARDSTICK, seq_len=T)
with counter() as count, torch.no_grad():
    theirs(tokens[:1]).logits
print(f"by hand {sum(hand.values()):,}, cost sheet "
      f"{sum(sheet.values()):,}, torch {count.get_total_flops():,}")
print("by part:", hand == {part: sheet[part] for part in hand})

# %% tags=["hide-input"]
causal = {part: n / T for part, n in forward_flops(YARDSTICK, seq_len=T, causal=True).items()}
held, work = YARDSTICK.parameters, sum(causal.values())
show.show(show.bars({"embedding: parameters": 100 * held["embedding"] / YARDSTICK.n_params, "… as head: work": 100 * causal["head"] / work,
                     "attention: parameters": 100 * held["attention"] / YARDSTICK.n_params, "… work": 100 * causal["attention"] / work,
                     "scores: work": 100 * causal["scores"] / work,
                     "feed-forward: parameters": 100 * held["dense"] / YARDSTICK.n_params, "… feed-forward work": 100 * causal["dense"] / work},
                    unit="share of the whole, %", concept={"attention: parameters": "attn", "… work": "attn", "scores: work": "attn",
                                                           "feed-forward: parameters": "dense", "… feed-forward work": "dense"},
                    title="The yardstick's vocabulary is its largest part"),
          alt="Bars: embedding 41 percent of the parameters, as head 37 percent of the work; attention 20.5 and 18.6, its scores 9.3; feed-forward 38.4 and 34.9.",
          caption="The yardstick: 1,279,104 parameters, 2.82 million FLOPs a token in a text of 256. Computed.")

# %% [markdown]
# The **yardstick** spends more on its vocabulary than on attention. That is not how large models are, and it is worth remembering whenever a small model
# is used to judge an idea. See for yourself. Choose Llama 3 405B: where has the embedding gone? Then choose the yardstick, and lengthen the text.
# At which length do the scores cost as much as all feed-forward networks together?

# %%
ModelShape()

# %% [markdown]
# <details><summary>What we found</summary>
#
# At 405 billion parameters embedding and head are one percent, and the feed-forward part is four fifths. The scores of the
# **yardstick** overtake its feed-forward networks at 960 tokens (the slider has no place between 512 and 1,024): work that grows with the text, and
# needs not a single parameter.
#
# </details>
#
# ## Look inside, before it learns
#
# What does a model look like before its first step? Look at three things, layer by layer, on one batch: how large the stream is, how large each
# branch is beside it, and how large the gradient is that comes back. A *hook* is a function that torch calls whenever a part has computed; `name=name` hands
# each hook its own name; `losses` is the next-token loss.

# %%
def look_inside(model, tokens):
    """Loss, and after each layer the RMS of stream, branches, gradient."""
    streams, seen = [], {"attention": [], "feed-forward": []}
    for block in model.layers:
        block.register_forward_hook(lambda m, a, out: streams.append(out[0]))
        for name, part in zip(seen, (block.attention, block.ffn)):
            part.register_forward_hook(lambda m, a, out, name=name:
                                       seen[name].append(rms(out)))
    out = model(tokens)
    for h in streams:
        h.retain_grad()
    loss = losses(out, tokens)[0]
    loss.backward()
    return loss.item(), seen | {"stream": [rms(h) for h in streams],
                                "gradient": [rms(h.grad) for h in streams]}


# %% tags=["nbval-ignore-output"]
inside, start_loss = {}, {}
for std in (0.002, 0.02, 0.1, 0.5):
    torch.manual_seed(0)
    model = Transformer(replace(deep, init_std=std))
    start_loss[std], inside[std] = look_inside(model, tokens)

layers = list(range(1, 17))
show.show(show.lines({f"std {std:g}": (layers, seen["stream"])
                      for std, seen in inside.items()},
                     x="layer", y="RMS of the stream", log_y=True,
                     title="With norms nothing explodes"),
          alt="Four curves, one a standard deviation: that of 0.002 is level, the others rise and flatten; 0.02 rises most steeply in layers 2 to 4.",
          caption="Sixteen layers, 80 wide, before training.")

# %% [markdown]
# The same sixteen layers, the same standard deviation of 0.1 that ended in `nan`, and a factor of 250 between the smallest and
# the largest start: nothing explodes. The two large starts bend over, as Pythagoras says; 0.002 hardly moves; 0.02 climbs first, because its attention branches grow
# over the first layers, and Exercise 4.3's equal branches do not hold there. Put Pythagoras to the test with the branches' measured sizes: add their squares to that of the embedding,
# whose RMS is std.

# %%
for std in (0.02, 0.1):
    seen = inside[std]
    squares = sum(a**2 + f**2 for a, f in
                  zip(seen["attention"], seen["feed-forward"]))
    print(f"std {std}: by Pythagoras {math.sqrt(std**2 + squares):.3g}, "
          f"measured {seen['stream'][-1]:.3g}")

# %% [markdown]
# To seven percent at 0.02 (branches are not quite at right angles there), and to one at 0.1. Is every start alike, then? The norms make all of them finite. Two numbers tell
# what is odd about them. The first is the loss. A model that knows nothing should say so, and give each of 4,096 tokens the same chance:
# $\ln 4096 = 8.32$ nats.

# %% tags=["hide-input", "nbval-ignore-output"]
show.show(show.bars({f"std {std:g}": loss for std, loss in start_loss.items()} | {"knowing nothing": math.log(4096)},
                    unit="loss before the first step, nats a token", concept={"knowing nothing": "dense"},
                    title="Too large a start is sure of itself, and wrong"),
          alt="Bars: 8.32 for std 0.002, 8.33 for 0.02, 8.7 for 0.1, 17 for 0.5; 8.32 for knowing nothing.",
          caption="One batch of random tokens, sixteen layers. This run.")

# %% [markdown]
# A standard deviation of 0.5 starts many nats above ignorance: the model is *certain*, of nonsense. The sixteen layers are not to blame. The last norm hands the head numbers of RMS 1, and
# equation 4.4 makes of them logits of RMS $0.5 \sqrt{80} = 4.5$. 0.002 starts perfectly ignorant. What is odd about it shows in the second number: how much do the branches matter?

# %% tags=["hide-input", "nbval-ignore-output"]
share = {f"std {std:g}": (layers, [100 * math.hypot(a, f) / h for a, f, h in zip(seen["attention"], seen["feed-forward"], seen["stream"])])
         for std, seen in inside.items()}
show.show(show.lines(share, x="layer", y="a layer's two branches, % of the stream", log_y=True,
                     title="Start too small, and sixteen layers hardly touch the stream"),
          alt="With std 0.002 each layer adds two to three percent to the stream; with 0.02 a quarter to three fifths; with larger starts the first layer is the stream, and later ones add less and less.",
          caption="Sixteen layers, before training. This run.")

# %% [markdown]
# At 0.002 a layer adds two to three percent to the stream: the model begins almost without depth. At 0.1 and above the first layer drowns the embedding. From layer 5 on, the three
# larger starts are one. Whether a start is *good* these pictures cannot say. They say which are odd; whether they can learn, the first test below will say.
#
# ### The road back
#
# Now the gradient: how much would the loss change if the stream after layer 3 changed a little? Without the residual road, a gradient has to pass
# through every branch. We take the road away, `h = branch(norm(h))` where there was `h = h + …`, and leave all else as it is.
#
# > **Before you read on.** Sixteen layers without residual connections: will the gradient at the first layer be smaller than at the last,
# > as large, or larger?
# >
# > <details><summary>What we found</summary>
# >
# > **Larger, a hundred to two hundred times (three seeds).** The textbook word is *vanishing*. The cause comes after the picture.
# >
# > </details>

# %% tags=["nbval-ignore-output"]
from minimodels.bugs import plant
from minimodels.bugs.model import BUGS

torch.manual_seed(0)
model = plant(Transformer(deep), BUGS["no residual"])
_, without = look_inside(model, tokens)
roads = {"with residual": inside[0.02], "without": without}
show.show(show.lines({name: (layers, seen["gradient"])
                      for name, seen in roads.items()},
                     x="layer", y="RMS of the gradient", log_y=True,
                     title="On the residual road the gradient keeps its size"),
          alt="With residual a nearly flat line. Without, a line far above "
              "it falls 500 times to layer 15, then rises fourfold.",
          caption="Sixteen layers of std 0.02, one batch, before training.")

# %% tags=["nbval-ignore-output"]
for name, seen in roads.items():
    g = seen["gradient"]
    print(f"{name}: layer 1 gets {g[0] / g[-1]:.1f} times "
          f"the gradient of layer 16")

# %% [markdown]
# On the road the first layer's gradient is two or three times the last one's, at this std. Without it they differ by two orders of magnitude, and no plain gradient step suits both.
# (The optimizers of chapter 5 divide each matrix's gradient by its own size, so for them this is less of a trouble.) What makes it grow? Not the norms: what a branch shrinks the norm restores, and on the
# way back the two cancel. We put something else in the place of a part, in all sixteen layers, and measured again:

# %%
from minimodels.studies import recorded

names = {"with residual": "with residual", "without": "without",
         "SwiGLU alone": "without, no attention",
         "attention alone": "without, no SwiGLU",
         "a plain matrix": "without, a matrix for SwiGLU",
         "a deaf gate": "without, no gradient through the gate"}
ratio = {arm: [t["gradient"][0] / t["gradient"][-1]
               for t in recorded("model-gradients")["trials"]
               if t["arm"] == arm] for arm in names}
show.table([{"sixteen layers": name, "layer 1 over layer 16":
             f"{min(ratio[arm]):.1f} to {max(ratio[arm]):.1f}"}
            for arm, name in names.items()],
           caption="Recorded: model-gradients; three seeds.")

# %% [markdown]
# It is SwiGLU, and in SwiGLU the *product*. For small $z$ the gate is about $z / 2$, so the output is a product of two factors of equal standing, and both carry gradient
# back. Two equal, independent parts add, as in Pythagoras, to $\sqrt 2$ times one of them, and $\sqrt 2$ fifteen times is 181. Stop the gate's part, and the ratio is 2 at most. (The kink at the last layer comes with attention. With SwiGLU alone it is gone.)
#
# ## The first test of any model
#
# You have a new model. Before you give it a corpus and an hour, give it one page and a few seconds. It should learn the page *by heart*. A model
# with a million parameters can hold 256 bytes; if it does not, something is broken, and no corpus will mend it.
#
# Which page matters. Were all tokens different, a table of "what follows what" would do, and attention could be dead. So our tokens are single
# bytes, which come again and again: the beginning of the *Zen of Python*, which every Python carries in its module `this`. How far can a model come
# without attention? Two numbers say it: the loss of one that knows only how often each byte occurs, and of one that knows which byte follows which.

# %%
from collections import Counter
from minimodels.studies.page import page

text = page().encode()
one, two = Counter(text[1:]), Counter(zip(text, text[1:]))
before = Counter(text[:-1])
N = len(text) - 1
rungs = {"how often": -sum(n * math.log(n / N) for n in one.values()) / N,
         "what follows": -sum(n * math.log(n / before[a])
                              for (a, _), n in two.items()) / N}
print(page()[:62])
print({name: round(nats, 2) for name, nats in rungs.items()}, "nats a byte")

# %% [markdown]
# Train the **yardstick** on this page alone, sixty times. (The optimizer is chapter 5's; here it is a black box that takes steps.) Its
# line should fall through both rungs and end near nothing. Beside it goes a second model, whose attention we silence in every layer. By what we just
# counted, it can reach the lower rung and no further.

# %%
from minimodels.studies.page import LEARNT, OVERFIT, OneBatch
from minimodels.train import train


class Silent(nn.Module):
    def forward(self, h, *rest):
        return 0 * h


# %% tags=["nbval-ignore-output"]
batch = OneBatch(torch.tensor([list(text)]))
curves = {}
for name in ("silenced", "yardstick"):
    torch.manual_seed(0)
    model = Transformer(YARDSTICK)
    if name != "yardstick":
        for block in model.layers:
            block.attention = Silent()
    curves[name] = [record.loss for record in train(model, batch, OVERFIT)]

# %% tags=["hide-input", "nbval-ignore-output"]
steps = list(range(1, OVERFIT.steps + 1))
flat = {name: (steps, [nats] * len(steps)) for name, nats in rungs.items()}
fig = show.lines({name: (steps, curve) for name, curve in curves.items()} | flat,
                 concept={"yardstick": "attn"},
                 x="step", y="loss, nats a byte", title="Only attention gets below what follows what")
show.show(fig.update_xaxes(range=[0, OVERFIT.steps]),
          alt="Two falling curves and two level lines. The model without attention comes to rest on the lower line, 1.39; the whole one falls through it to nearly zero.",
          caption="This run: one page of 256 bytes, sixty steps. Level lines: a model of how often each byte occurs, and one of what follows it.")

# %% tags=["nbval-ignore-output"]
from minimodels.generate import decode

curve = curves["yardstick"]
below = next((i for i, loss in enumerate(curve, 1) if loss < LEARNT), None)
print(lab.band("model", "steps to learn a page", below or math.inf))
print(f"without attention: {curves['silenced'][-1]:.3f} nats, "
      f"where the rung is {rungs['what follows']:.3f}")
recited = decode(model, [list(text[:5])], max_new_tokens=len(text) - 5)
recited = text[:5] + bytes(b for b in recited.tokens[0] if b < 256)
print(recited.decode(errors="replace"))
print("word for word:", recited == text)

# %% [markdown]
# The silenced model comes to rest on the rung that we had counted before it was built. The whole one falls through, and from five bytes recites
# the page. It has passed, by its loss and by what it writes.
#
# And the odd starts? We gave the same page to four layers and to sixteen, from each standard deviation, with norms on the branches and without.

# %%
from minimodels.studies.page import STARTS, start_arm

def span(trials, key="steps_to_learn"):
    """The smallest to the largest value of trials, or how it failed."""
    values = [t[key] for t in trials]
    if all(values):
        return f"{min(values)} to {max(values)}"
    return "not in 60" if all(t["is_finite"] for t in trials) else "nan"


starts = recorded("model-starts")["trials"]
by_start = {}
for n, std, has_norms in STARTS:
    runs = [t for t in starts if t["arm"] == start_arm(n, std, has_norms)]
    row = f"std {std:g}" + ", no norms" * (not has_norms)
    by_start.setdefault(row, {"start": row})[f"{n} layers"] = span(runs)
show.table(list(by_start.values()),
           caption="Steps to learn the page. Recorded: model-starts; 3 seeds.")

# %% [markdown]
# With norms every start learns the page. 0.1 is the quickest, at both depths, though its first layer drowns the embedding; 0.002, which began almost without depth, is a few steps later than 0.02 in four layers, and no later in sixteen. So the
# pictures showed what is odd, and not what is bad. Without norms, 0.02 is not learnt in sixty steps. 0.1 is: by four layers, sooner than by the **yardstick** with its norms and 0.02; sixteen end in
# `nan`. That is what norms have bought: not the best start, but a wide plateau of usable ones. It is one page and one set of rates, and says little about a corpus.
#
# What does it look like when something is broken? We planted five bugs, one at a time, and gave each
# model the same page, three seeds each (the right one, seven).

# %% tags=["hide-input"]
planted = recorded("model-overfit")
curves = {}
for arm in planted["arms"]:
    runs = [t["curve"] for t in planted["trials"] if t["arm"] == arm]
    curves[arm] = steps, [statistics.mean(at) for at in zip(*runs)]
fig = show.lines(curves | {"what follows": flat["what follows"]}, concept={"right": "dense", "residual of the norm": "attn", "norm over tokens": "attn"},
                 x="step", y="loss, nats a byte", title="By their loss three bugs fail, and two pass")
show.show(fig.update_xaxes(range=[0, OVERFIT.steps]),
          alt="Six curves: right, residual of the norm and norm over tokens reach zero; no residual, cut gradient and sum for mean stay above two nats.",
          caption=f"In colour the two bugs that pass. Recorded: minimodels study model-overfit; means over seeds; {planted['trials'][0]['hardware']}.")

# %%
rows = []
for arm in planted["arms"]:
    runs = [t for t in planted["trials"] if t["arm"] == arm]
    last = [t["curve"][-1] for t in runs]
    learnt = [t["steps_to_learn"] for t in runs]
    rows.append({"model": arm, "seeds": len(runs),
                 "loss at the end": f"{min(last):.3f} to {max(last):.3f}",
                 "steps to learn it": f"{min(learnt)} to {max(learnt)}"
                 if all(learnt) else "not in 60"})
show.table(rows)

# %%
recital = recorded("model-recital")
for arm in recital["arms"]:
    runs = [t for t in recital["trials"] if t["arm"] == arm]
    print(f"{arm}: right bytes before the first wrong one, of "
          f"{runs[0]['asked']}:", *(t["right"] for t in runs))

# %% [markdown]
# Read the table's last column as you would without the first. Three models fail, and you would look for the reason. All three end far above the rung that a model without attention reaches. Look at *cut
# gradient* among them: its loss fell by 70 percent, while not one weight of its four layers moved. (Why is it worse than silence? Our guess: a tied matrix alone scores two tokens almost alike in either order, and only the feed-forward networks learn which comes first.)
#
# And by their loss two broken models pass. *Residual of the norm* takes 53 to 56 steps, where the right one takes 44 to 48; alone, you would call that an unlucky seed. *Norm over tokens* is even a
# little ahead, with 42 to 44: its norm tells each token a little about those that come after it, and they are what it is asked for; that may be why. A training loss never accuses a model of cheating. Writing does:
# *norm over tokens* goes wrong at the second or the eleventh byte, because what it peeked at is not there yet. (Writing is a hard examiner: one right model of three slipped too, after 90 bytes, and so did two with *residual of the norm*.)
#
# > **Bugs that still train.**
# > - **No residual.** `h = branch(norm(h))`. The loss falls for a while. One page shows it.
# > - **Residual of the norm.** `h = norm(h); h = h + branch(h)`: the branch is added to the normed stream. Its loss passes the test, only later.
# > - **Cut gradient.** A `detach()` or a `no_grad` too many. Embedding, head and last norm learn alone, and the loss still falls by 70 percent.
# > - **Norm over tokens.** The mean runs over the wrong axis, so that each token feels those after it. Its loss passes; it cannot recite.
# > - **Sum for mean.** The norm is $\sqrt{D}$ times too small. The loss creeps, and looks like a bad learning rate.
#
# So write tests for what the loss cannot show. You did that for attention; here are two for the model.
#
# > **Exercise 4.8** (no look ahead; medium, 10 minutes). Write `cannot_see_the_future(model, tokens)`: whether another *last* token leaves all
# > logits before it as they were. `model(tokens).logits` is `(B, T, V)`, `model.config.vocab_size` the number of tokens. Return a truth value; compare with
# > `torch.allclose(..., atol=1e-4)`.

# %%
def cannot_see_the_future(model, tokens):
    ...


# %%
check.cannot_see_the_future(cannot_see_the_future)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def cannot_see_the_future(model, tokens):
#     other = tokens.clone()
#     other[:, -1] = (other[:, -1] + 1) % model.config.vocab_size
#     one, two = model(tokens).logits, model(other).logits
#     return torch.allclose(one[:, :-1], two[:, :-1], atol=1e-4)
# ```
#
# It finds the norm over tokens at once, and a leaking mask too.
#
# </details>
#
# > **Exercise 4.9** (the stream is untouched; hard, 15 minutes). Write `stream_is_untouched(block, h, place)`; `place` holds the positions, from chapter 3. Silence both branches, by
# > setting the matrices that lead back to the stream to zero (`block.attention.w_o.weight`, `block.ffn.w_down.weight`; do it under
# > `torch.no_grad()`). What must a layer whose branches say nothing return? `block(h, place)` gives the new stream, and a second thing that you can ignore.
# > The check hands over a block to throw away; on a model of your own, work on `copy.deepcopy(block)`.

# %%
def stream_is_untouched(block, h, place):
    ...


# %%
check.stream_is_untouched(stream_is_untouched)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# @torch.no_grad()
# def stream_is_untouched(block, h, place):
#     block.attention.w_o.weight.zero_()
#     block.ffn.w_down.weight.zero_()
#     return torch.allclose(block(h, place)[0], h, atol=1e-5)
# ```
#
# This one finds the residual of the norm, which one page only showed as a few steps' delay.
#
# </details>
#
# ## Deep or wide?
#
# The budget is fixed: 1.28 million parameters. You may spend them on one wide layer or on sixteen narrow ones. The picture shows the choice to
# scale.

# %% tags=["remove-input"]
show.drawing("shapes",
             alt="Five models of equal area: one layer 192 wide, two of 160, four of 128, eight of 96, sixteen of 80; the embedding takes 61, 51, 41, 31 and 26 percent.",
             caption="Five ways to spend one budget, to scale. Heads are 16 wide in all of them.")

# %% [markdown]
# > **Before you read on.** One layer 192 wide, four 128 wide, sixteen 80 wide: as many parameters, the same text. Which predicts unseen text best, and which worst?
# >
# > <details><summary>What we found</summary>
# >
# > **Sixteen last, by far.** One wide layer lost to four with two seeds, by half a percent, and drew with the third. Sixteen thin ones lost to both, with both seeds, by three percent.
# >
# > </details>
#
# We trained the yardstick and the two extremes. Each gets the same recipe: the same text, the same batches, the same rates, 120 steps of 2,048 tokens, and three seeds (two for sixteen layers). That is a fifth of
# the yardstick's training, and Muon's rate was searched for at four layers, with one seed, not for each shape.

# %% tags=["hide-input"]
from minimodels.studies.model import arm_of, shape_scores

scores = shape_scores()
show.show(show.dots({arm_of(n): bits for n, bits in scores.items()}, unit="bits per byte of unseen text", concept={arm_of(n): "dense" for n in scores},
                    title="One layer is close behind four; sixteen thin ones are far behind"),
          alt="Three rows of dots: those of 1 and 4 layers overlap, those of 16 layers lie far to the right.",
          caption="Recorded: minimodels study model-shapes; three seeds a shape, two of sixteen layers, 120 steps; two virtual cores of an AMD EPYC. The stroke is the mean.")

# %%
times = recorded("model-times")["trials"]
slower, work = {}, {}
for n, config in SHAPES.items():
    slower[n] = statistics.median(a / b for t in times for a, b in
                                  zip(t["ms"][str(n)], t["ms"]["4"]))
    flops = forward_flops(config, seq_len=256, causal=True)
    work[n] = sum(flops.values()) / 256e6

# %%
show.table([{
    "layers × width": f"{n} × {config.d_model}",
    "bits per byte": f"{statistics.mean(scores[n]):.4f}"
                     if n in scores else "not run",
    "MFLOPs a token": f"{work[n]:.2f}",
    "time of a step": f"{slower[n]:.2f}"}
    for n, config in SHAPES.items()],
    caption="Time: forward and backward, as a multiple of the "
            "four layers' in the same round; median.")
for n in (1, 16):
    more = [a - b for a, b in zip(scores[n], scores[4])]
    print(f"{arm_of(n)}: {min(more):+.3f} to {max(more):+.3f} bits per byte "
          "beside four layers, same seed")

# %% [markdown]
# A single layer! It cannot even look up what a token looked up: attention on top of attention needs two. Yet in the mean it stays a third of a percent behind four, and sixteen thin layers need
# 3 percent more. In so short a training a model learns mostly which tokens follow which, and for that a wide embedding is worth more than depth. That is our guess, and not a
# measurement: longer training may change their order.
#
# The last two columns hold whatever the guess. Work differs by a fifth, 2.7 to 3.2 million FLOPs a token; the difference is the scores, which grow with layers times width. But a step of sixteen layers takes
# nearly twice as long as a step of four. It has 80 heads where four layers have 32, each with its own table of scores, and two and a half times as many numbers to norm, to rotate and to bend. Little of that shows in FLOPs.
#
# At larger sizes shape is said to matter little. Kaplan and others found so with up to a billion and a half parameters, if embeddings are not counted, with models of one layer and of extreme shapes as exceptions
# ([Scaling laws, sections 3.1 and 3.2](../book/references.md#scaling-laws)). Ours are those exceptions, and they count the embedding, which takes 26 to 61 percent of the budget.
#
# ## Does it pay here?
# > **Does it pay here?** **More depth than four layers does not, at this budget, with these rates and after so short a training.** The frame does: without the residual, or with the bug *sum for mean* in its norms, sixty steps did not teach one page to four layers (three seeds, one rate).
# >
# > - **At equal parameters and tokens:** sixteen layers need 0.065 to 0.068 bits per byte more than four, one layer 0.011 to 0.012 with two seeds and nothing with the third (three seeds, two of sixteen layers, 120 steps, rates not searched for each shape).
# > - **At equal wall clock:** (not run) it must be worse still for sixteen layers, whose step, forward and backward, takes 1.9 times as long on one thread of an AMD EPYC. One layer, with four steps for every three, might catch up.
# > - **At DeepSeek's scale:** V3 has 61 layers of 7,168, so it is 118 times as wide as it is deep. The yardstick is 32 times, its sixteen-layer sibling 5. Large models are deep, and they are not thin.
#
# ## What production does
#
# - **V3's frame is this frame.** RMSNorm on each branch, SwiGLU, a residual stream, RoPE, no biases in these products: it stands in the released code
#   ([DeepSeek-V3 code](../book/references.md#deepseek-v3-code)). 61 layers, 7,168 wide; the first three dense, as here, all others with experts. Its
#   embedding and head are two matrices, together 0.3 percent of the whole.
# - **The first test is an old one.** To overfit a single batch stands in Andrej Karpathy's recipe ([Karpathy 2019](../book/references.md#karpathy-2019)).
# - **More norms.** V3 also norms the latents of its attention, which you will meet in chapter 6.
# - **More roads.** A residual stream can be split into several that exchange what they carry; DeepSeek's mHC constrains the exchange, so that the road stays one
#   on which little is multiplied ([mHC](../book/references.md#mhc)).

# %% [markdown]
# > **Takeaways**
# > 1. A Transformer is a stream that parts read and add to. Nothing on it is overwritten.
# > 2. The norm on a branch makes what a part does independent of how large the stream is; that turns an edge into a plateau.
# > 3. Three implementations, one set of weights, equal logits: that is what "the same model" means. RoPE's two layouts differ by an order of rows.
# > 4. Attention is a fifth of the yardstick. The vocabulary is two fifths, and in a large model one percent or less. Spent on sixteen thin layers, the budget predicted worse after 120 steps, with the rates of four.
# > 5. Learn one page by heart first, then recite it. The loss finds what is broken; writing finds what is cheating.
#
# ## Longer problems
#
# > **Exercise 4.10** (a head of its own; easy, 20 minutes). Give the yardstick a second matrix for its head and keep the budget of 1,279,104
# > parameters, at width 128 and four layers. Is there a width for the feed-forward network at all? Then let the width go too, in steps of 16, with `d_ff` two and a half times
# > the width: which one fits?
#
# <details><summary>Solution</summary>
#
# ```python
# two = replace(YARDSTICK, tie_embeddings=False)
# room = YARDSTICK.n_params - (two.n_params - two.parameters["dense"])
# print(room, room / (3 * 4 * 128))
# for D in range(64, 129, 16):
#     c = replace(two, d_model=D, n_heads=D // 16, d_ff=5 * D // 2)
#     print(D, f"{c.n_params:,}")
# ```
#
# There is no room at all: −32,768 parameters, a feed-forward width of −21. The second matrix alone, 524,288, is more than all four feed-forward
# networks. At two matrices the budget buys width 96 (1,211,232); 112 would already be too much (1,495,536). That is what tying is worth here.
#
# </details>
#
# > **Exercise 4.11** (the norm on the road; medium, 45 minutes). The first Transformers normed the sum: `h = norm(h + branch(h))`. Write it
# > as a subclass of `Block` (the package's layer), plant it in sixteen layers with `plant`, and look inside: how large are stream and gradient, layer by layer? Does it
# > learn the page? What would you have to measure to say which is better?
#
# <details><summary>Hint</summary>
#
# `plant(model, PostNorm)` changes the class of every `Block`, and leaves the weights. A block's `forward(self, h, place, cache=None)` returns the new stream and `None`.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# from minimodels.model import Block
#
# class PostNorm(Block):
#     def forward(self, h, place, cache=None):
#         h = self.attention_norm(h + self.attention(h, place, cache))
#         return self.ffn_norm(h + self.ffn(h)), None
#
# torch.manual_seed(0)
# _, seen = look_inside(plant(Transformer(deep), PostNorm), tokens)
# print(seen["stream"][0], seen["stream"][-1])
# print(seen["gradient"][0] / seen["gradient"][-1])
#
# torch.manual_seed(0)
# model = plant(Transformer(YARDSTICK), PostNorm)
# curve = [record.loss for record in train(model, batch, OVERFIT)]
# print(next(i for i, loss in enumerate(curve, 1) if loss < LEARNT))
# ```
#
# The stream has RMS 1 everywhere, the gradient is the same in all layers, to a part in ten thousand, and the page is known after 56 steps, where the yardstick took 47 with the same seed.
# (Recorded, `minimodels study model-parts`: 55 to 57 with three seeds; the yardstick takes 44 to 48.) So it learns, and later. Now set `init_std=0.2` in both. With the norm on the
# branch the first layer's gradient is 27 to 33 times the last one's, with three seeds. With the norm on the road it is 18,000 to 190,000 times
# (`minimodels study model-gradients`). Its fame for being hard to train has another reason:
# with LayerNorm, and weights as the first Transformers drew them, gradients *near the output* are large at the start, so it needs a careful warm-up ([pre-norm](../book/references.md#pre-norm)).
#
# </details>
#
# > **Exercise 4.12** (what does the page need?; hard, 1 hour). Take the yardstick apart on the page: without attention it stops at the rung. What happens without the
# > feed-forward networks, and what without positions (set the turns of RoPE to no turn: its cosines, `model.rope.turn[0]`, to 1 and its sines, `model.rope.turn[1]`, to 0)? Write your prediction down
# > first. Then explain what a model without positions can still know about order.
#
# <details><summary>Solution</summary>
#
# ```python
# def learn(change):
#     torch.manual_seed(0)
#     model = Transformer(YARDSTICK)
#     change(model)
#     return [record.loss for record in train(model, batch, OVERFIT)]
#
# def no_feed_forward(model):
#     for block in model.layers:
#         block.ffn = Silent()
#
# def no_position(model):
#     model.rope.turn[0], model.rope.turn[1] = 1, 0
#
# for change in (no_feed_forward, no_position):
#     curve = learn(change)
#     print(change.__name__, [round(loss, 2) for loss in curve[9::10]])
# ```
#
# Without feed-forward networks the page is learnt after 55 to 57 steps (`minimodels study model-parts`, three seeds), some ten later than with them: reciting a page needs little more than attention. Without positions the loss still falls far
# below the rung, to between 0.31 and 0.43 after sixty steps (three seeds). The causal mask gives order away: the first token sees one token, the tenth sees ten, and layers after the first can count
# ([NoPE](../book/references.md#nope)).
#
# </details>
#
# > **Next: [Training](05_train.ipynb).** The ruler exists, and it knows nothing. The next chapter teaches it Python, and finds out how to take a step.
