# ---
# jupyter:
#   book:
#     number: 6
#     reading: 80 min
#     cpu: 40 s, 0.8 GB
#     needs: "[Attention](03_attention.ipynb) and its cache; two paragraphs recall them"
#     terms:
#       mla: [c_kv, k_rope]
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
# # Latent attention
#
# [Open in Colab](https://colab.research.google.com/github/minimodels/small-models-big-claims/blob/main/chapters/06_mla.ipynb)
#
# > *Do not remember the keys. Remember how to make them.*
#
# > **You will be able to**
# > - count what each attention scheme leaves in memory for every token of a conversation;
# > - follow multi-head latent attention line by line, and prove it equal to two other implementations;
# > - say why position needs a path of its own, after watching the simple way fail;
# > - fold one matrix into another, and decode without rebuilding a single key;
# > - write three tests for bugs that a loss curve does not show;
# > - judge what all this gains at our size and at DeepSeek's, and check the press's figure for it.
#
# ## What you need, in two paragraphs
#
# In **attention** ([chapter 3](03_attention.ipynb) builds it) every token sends out a *query*, and each earlier token, and itself,
# offers a *key* and a *value*. Query times key, scaled and put through a softmax, says how much of that value to take. A model does this in many **heads** side by
# side, each with queries, keys and values of its own. Position enters by rotation (**RoPE**): queries and keys are turned by an
# angle that grows with their place in the text, pair of numbers by pair, so that the product of two of them depends on their
# distance.
#
# When a model writes, it adds one token at a time. The keys and values of what is already there do not change, so they are
# kept, in the [KV cache](../book/glossary.md#kv-cache). For each new token the model computes one query per head and reads
# *all* of the cache. Reading a prompt is different: there all tokens are known, and their queries are computed together. The
# first is called **decode**, the second **prefill**, and this chapter will treat them differently.

# %%
BOOK = "git+https://github.com/minimodels/small-models-big-claims"
try:
    import minimodels
except ModuleNotFoundError:  # in Colab, where the book is not installed yet
    import subprocess, sys
    pip = [sys.executable, "-m", "pip", "install", "-q", BOOK]
    subprocess.run(pip, check=True)

# %% tags=["nbval-ignore-output"]
import statistics
from dataclasses import replace

import torch
from torch import einsum
from minimodels import exercises, lab, show
from minimodels.config import ModelConfig
from minimodels.explorables import Absorb, KVCache

check = exercises.load("mla")
print(lab.tier())

# %% [markdown]
# ## The pain
#
# **524 GB**
#
# > **Margin.** 2 × 128 heads × 128 numbers × 61 layers × 2 bytes = 4.0 MB a token; times 131,072 tokens.
#
# That is what *one* conversation of 128K tokens would fill if DeepSeek-V3 kept keys and values as ordinary **multi-head
# attention** does. The H800 that it was trained on has 80 GB. And not a single weight is loaded yet.
#
# The cache decides two things that cost money. How many conversations fit on a machine; and how fast each of them is served,
# because every new token reads the whole of it.
#
# ## What the press said
#
# In October 2025 a summary of a video listed DeepSeek's technical innovations. Latent attention is on the list, with three
# claims: it is new; it needs 5 to 13 percent of the memory of traditional methods; and that makes inference cheaper.
#
# > **Before you read on.** At V3's sizes **MHA** keeps 32,768 numbers for each token in each layer. What share of them does
# > **MLA** keep: about a half, 13 percent, 5 percent, or less?
# >
# > <details><summary>What we found</summary>
# >
# > **1.8 percent.** 576 of 32,768, and the 576 stay whatever the number of heads. The press's range is too *high* for V3, not
# > too low; the [verdict](#The-claims-again) looks for what it may have compared.
# >
# > </details>
#
# The configuration knows. Here are DeepSeek-V3's own sizes with four ways to attend:

# %%
v3 = ModelConfig.preset("deepseek_v3")
schemes = {"MHA": "mha", "GQA, 8 groups": "gqa", "MQA": "mqa", "MLA": "mla"}
rows = []
for name, scheme in schemes.items():
    config = replace(v3, attention=scheme, n_kv_heads=8)
    n_bytes = 2 * config.cached_values_per_token          # BF16
    rows.append({"scheme": name,
                 "values a layer": config.cached_values_per_layer,
                 "bytes a token": n_bytes,
                 "GB for 128K tokens": n_bytes * 131_072 / 1e9})
show.table(rows)

# %% [markdown]
# Two of the four are older answers to the same pain. **MQA** lets all heads share one key and one value. **GQA** is the
# compromise: groups of heads share. Both make the cache small by having fewer heads to remember, and both pay for it in
# quality; V2's own experiment is [below](#What-the-papers-measured). **MLA** keeps every head different and is still the second
# smallest.

# %% tags=["remove-input"]
show.drawing("cache",
             alt="What one token leaves in one layer's cache, to scale: MHA fills a tall block of 128 lines, 32,768 values; GQA with 8 groups is a band of 8 lines, MQA a single line, and MLA two and a quarter lines, 576 values.",
             caption="What one token leaves behind in one layer of DeepSeek-V3's size, to scale.")

# %% [markdown]
# Now turn the knobs yourself. Which of them makes **MHA**'s number grow and leaves **MLA**'s alone? (The longest bar is always
# drawn full.) Then choose Llama. It has **GQA** already: what would **MLA** in DeepSeek's ratios save *there*?

# %%
KVCache.preset("DeepSeek-V3")

# %% [markdown]
# The number of heads does it: **MLA**'s latent does not know how many heads will read it. And Llama's cache would shrink from
# 516 KB to 145 KB a token: 3.6 times, not fifty. Remember that factor when a saving is quoted beside **MHA**.

# %% [markdown]
# > **Exercise 6.1** (count; easy, 5 minutes). Write `cached_values`: the numbers that one layer keeps for one token. `scheme`
# > is `"mha"`, `"gqa"`, `"mqa"` or `"mla"`; the other arguments are sizes. In MLA, `d_latent` numbers of latent and `d_rope` of
# > a rotary key are kept; both come from the next section, and you can count them without knowing what they are for.

# %%
def cached_values(scheme, n_heads, d_head, n_groups, d_latent, d_rope):
    ...


# %%
check.cached_values(cached_values)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def cached_values(scheme, n_heads, d_head, n_groups, d_latent, d_rope):
#     if scheme == "mla":
#         return d_latent + d_rope
#     heads = {"mha": n_heads, "gqa": n_groups, "mqa": 1}[scheme]
#     return 2 * heads * d_head        # a key and a value
# ```
#
# </details>
#
# ## The idea in pictures
#
# All heads' keys and values of a token are computed from one hidden state. **MHA** keeps the results. **Latent attention**
# keeps one short vector, the [latent](../book/glossary.md#latent), from which every head can make its own key and value again,
# and one rotary key that all heads share.

# %% tags=["remove-input"]
show.drawing("heads",
             alt="Four query heads and what they read: in MHA a key and value each, in GQA one pair for two heads, in MQA one pair for all, and in MLA pairs rebuilt for each head from one cached latent, beside one rotary key that all heads share.",
             caption="Who shares what, with four heads. Dashed: rebuilt, not cached. In MLA the stored vector is shared, and the way to read it is not.")

# %% [markdown]
# | Symbol | Meaning | V3 | here | Shape |
# |---|---|---|---|---|
# | $h$ | hidden state, of width $D$ | 7,168 | 128 | `(B, T, D)` |
# | **c_kv**, $c$ | latent of width $C$, cached | 512 | 64 | `(B, S, C)` |
# | **k**, **v** | keys and values of $H$ heads, $D_n$ and $D_v$ wide, made from the latent | 128 × 128 | 8 × 16 | `(B, S, H, Dn)`, `(B, S, H, Dv)` |
# | `q_nope` | the part of a query that knows no position | 128 × 128 | 8 × 16 | `(B, T, H, Dn)` |
# | **k_rope** | rotary key of width $D_r$, cached, one for all heads; step four shows why | 64 | 8 | `(B, S, Dr)` |
#
# $T$ counts queries, $S$ the tokens that they look at. Position aside, the whole idea is three products. $W^{DKV}$ goes down,
# $W^{UK}$ and $W^{UV}$ go up, and each head $i$ has its own part of the two that go up:
#
# $$\begin{aligned} c_s &= \mathrm{norm}(W^{DKV} h_s) \\ k_{s,i} &= W^{UK}_i\, c_s \\ v_{s,i} &= W^{UV}_i\, c_s \end{aligned} \tag{6.1}$$
#
# All heads' keys together are much wider than the latent; the key of *one* head is narrower. Take a latent of three numbers, $c
# = (2, 1, 1)$, and a head of two:
#
# $$W = \begin{pmatrix} 1 & 2 & 0 \\ 3 & 0 & 1 \end{pmatrix}, \qquad W c = (4, 7) \tag{6.2}$$
#
# So the key is $(4, 7)$. The query $q = (1, 2)$ meets it with $1 \cdot 4 + 2 \cdot 7 = 18$. Keep that 18.
#
# ## Build it
#
# ### One: squeeze, keep, rebuild
#
# Equation (6.1) at the size of the model that we will train, without norm and position. Every letter is one of the table's.

# %%
B, S, D, H, Dn, Dv, C, Dr = 1, 6, 128, 8, 16, 16, 64, 8
torch.manual_seed(0)
h = torch.randn(B, S, D)
w_dkv = torch.randn(C, D) / D**0.5
w_uk = torch.randn(H, Dn, C) / C**0.5
w_uv = torch.randn(H, Dv, C) / C**0.5

c_kv = einsum("bsd,cd->bsc", h, w_dkv)      # (B, S, C), all that is kept
k = einsum("bsc,hnc->bshn", c_kv, w_uk)     # (B, S, H, Dn), rebuilt
v = einsum("bsc,hvc->bshv", c_kv, w_uv)     # (B, S, H, Dv), rebuilt
print(f"kept {c_kv[0, 0].numel()} numbers a token, "
      f"rebuilt {k[0, 0].numel() + v[0, 0].numel()}")

# %% [markdown]
# Seen from here, **MHA** is wasteful. It keeps 256 numbers, all computed from a hidden state of 128; V3 would keep 32,768,
# computed from 7,168. At least half of such a cache, and in V3 more than three quarters, could be computed from the rest. The
# latent goes further. The rank of a matrix says how many of its columns are independent; take the keys and values of a thousand
# tokens:

# %%
many = torch.randn(1000, D)
ordinary = torch.randn(2 * H * Dn, D)                   # MHA's W_K and W_V
up = torch.cat([w_uk, w_uv]).flatten(0, 1)              # MLA's, all heads
print("256 keys and values a token; independent:")
print("  MHA", torch.linalg.matrix_rank(many @ ordinary.T).item())
print("  MLA", torch.linalg.matrix_rank(many @ w_dkv.T @ up.T).item())

# %% [markdown]
# **GQA** with two groups pays in the same coin: 64 independent numbers, which it copies to the heads. In **MLA** each head
# reads the 64 through a matrix of its own, so **GQA** without rotation is a special case of **MLA**; you can prove it in
# exercise 6.10. Whether the freedom is worth anything is a question for the measurement, not for the algebra.
#
# ### Two: the keys need not be rebuilt
#
# At every step, rebuilding means blowing all $S$ latents up into the keys of all heads, to use each of them once. Look at the
# score again. It is $q^\top W c$, and you may start from the left:
#
# $$q^\top (W c) = (W^\top q)^\top c \tag{6.3}$$
#
# With the numbers above, $W^\top q = (7, 2, 2)$, and $(7, 2, 2) \cdot (2, 1, 1) = 14 + 2 + 2 = 18$. The same 18, and no key was
# made. The query crossed over into the latent's space, *once*, and can now meet as many latents as there are. This is called
# [absorption](../book/glossary.md#absorption). (Why not multiply the query's own projection with $W$ beforehand? Because the
# product would have $D \cdot C$ numbers a head, far more than the two matrices that it replaces.)
#
# > **Exercise 6.2** (absorb the key's matrix; medium, 10 minutes). Write `absorb_query(q_nope, w_uk)`, so that its scores
# > against `c_kv` are those of `q_nope` against the rebuilt keys. Shapes: `(B, T, H, Dn)` and `(H, Dn, C)`; result `(B, T, H,
# > C)`. One `einsum` does it.

# %%
def absorb_query(q_nope, w_uk):
    ...


# %%
check.absorb_query(absorb_query)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Write equation (6.3) with indices. Which letter is summed on the query's side?
#
# </details>
#
# <details><summary>Solution</summary>
#
# The letter `n` is summed, and `h` is kept: each head has its own matrix.
#
# ```python
# def absorb_query(q_nope, w_uk):
#     return einsum("bthn,hnc->bthc", q_nope, w_uk)
# ```
#
# </details>
#
# Here is that line at work, and the scores of both ways:

# %%
q = torch.randn(B, S, H, Dn)
rebuilt = einsum("bthn,bshn->bhts", q, k)
absorbed = einsum("bthc,bsc->bhts",
                  einsum("bthn,hnc->bthc", q, w_uk), c_kv)
print("equal:", torch.allclose(rebuilt, absorbed, atol=1e-4))

# %% [markdown]
# The next picture is the same identity with small whole numbers. Switch between the two ways, choose another head and another
# token, and then watch the count of multiplications while you lengthen the context.

# %%
Absorb()

# %% [markdown]
# ### Three: position breaks it
#
# Now add what every head needs, position. Rotate queries and keys by their places, as in any other model, and absorb again:

# %%
from minimodels.layers import Rope, rotate

rotary = ModelConfig(attention="mha", d_head=Dn, d_value=Dn, n_heads=H)
turn = Rope.from_config(rotary)(torch.arange(S))
q_turned, k_turned = rotate(q, turn), rotate(k, turn)

rebuilt = einsum("bthn,bshn->bhts", q_turned, k_turned)
absorbed = einsum("bthc,bsc->bhts",
                  einsum("bthn,hnc->bthc", q_turned, w_uk), c_kv)
print("equal:", torch.allclose(rebuilt, absorbed, atol=1e-4))
print(f"wrong by up to {(rebuilt - absorbed).abs().max():.1f}, "
      f"where scores spread by {rebuilt.std():.1f}")

# %% [markdown]
# It fails, and not by a rounding error: the query was turned and the latent was not. Could one turn the latent? No: the
# rotation acts on the 16 numbers of a head's key, after $W$, and not on the latent's 64. Could one store the turned keys? That
# is **MHA**'s cache again. So the key stays $R_s W c_s$, with a rotation $R_s$ for its position $s$, and the query is $R_t q$.
# Transposing a turn turns back, and turns add up, so
#
# $$\begin{aligned} (R_t q)^\top (R_s W c_s) &= q^\top R_t^\top R_s W c_s \\ &= q^\top R_{s-t} W \, c_s \end{aligned} \tag{6.4}$$
#
# The matrix to absorb is $R_{s-t} W$, and it is another one at every distance. How different?

# %%
theta = 10_000.0 ** (-torch.arange(0, Dn, 2, dtype=torch.float64) / Dn)
w = w_uk[0].double().unflatten(0, (-1, 2))              # (Dn/2, 2, C)
differs = []
for distance in range(65):
    cos, sin = (distance * theta).cos(), (distance * theta).sin()
    R = torch.stack([cos, -sin, sin, cos], -1).unflatten(-1, (2, 2))
    turned = R @ w
    differs.append(((turned - w).norm() / w.norm()).item())
print(f"at distance 1: {differs[1]:.0%}; at 64: {differs[64]:.0%}")

# %% tags=["hide-input"]
show.show(show.lines({"MLA": (list(range(65)), [100 * d for d in differs])},
                     x="distance between the two tokens",
                     y="difference from distance 0, % of its norm",
                     title="With RoPE on the keys, every distance needs another matrix"),
          alt="The difference jumps to about 40 percent at distance one, first passes 100 percent "
              "at distance nine, and wanders between 58 and 122 percent.",
          caption="Head 0 of the cell above. Frobenius norm of the difference between the matrix to absorb and "
                  "the one at distance 0.")

# %% [markdown]
# With $S$ tokens in the cache, a query would have to be absorbed $S$ times, once for each distance. That is as much work as
# rebuilding the keys, which is what we wanted to avoid.
#
# > **Exercise 6.3** (what stands between; medium, 15 minutes). Take one rotary pair: `q` has two numbers, `w_uk` is `(2, C)`,
# > and the key stands `angle` $= (t - s)\,\theta$ behind the query. Write `absorb_turned(q, w_uk, angle)`, the vector of `C`
# > numbers whose product with $c$ is the score (6.4). A turn by $a$ is the matrix with rows $(\cos a, -\sin a)$ and $(\sin a,
# > \cos a)$; mind that (6.4) turns by $s - t$.

# %%
def absorb_turned(q, w_uk, angle):
    ...


# %%
check.absorb_turned(absorb_turned)

# %% [markdown]
# <details><summary>Hint</summary>
#
# $q^\top R_{s-t} W c$ is $(W^\top R_{s-t}^\top q)^\top c$. Transposing a turn turns it back.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# import math
#
# def absorb_turned(q, w_uk, angle):
#     cos, sin = math.cos(angle), math.sin(angle)
#     return w_uk.T @ torch.tensor([[cos, -sin], [sin, cos]]) @ q
# ```
#
# Call it with two angles: you get two vectors. No single one serves both distances.
#
# </details>
#
# ### Four: two lanes
#
# DeepSeek's way out is to stop asking one vector for both. Most of a head carries content and knows no position: it can be
# absorbed. A small second part carries position. Its key is an ordinary rotary key, made from the hidden state and cached
# *after* turning. It is never rebuilt, so there is nothing to absorb; and to keep it small, all heads share one. The two scores
# add:
#
# $$ \frac{ q^{nope}_{t,i} \cdot W^{UK}_i c_s + q^{rope}_{t,i} \cdot k^{rope}_s }{ \sqrt{D_n + D_r} } \tag{6.5}$$
#
# This is what **decoupled RoPE** means. The sum is one product of two joined vectors, $D_n + D_r$ long, hence the root.

# %% tags=["remove-input"]
show.drawing("decouple",
             alt="Three scores as chains of factors: without position w_uk is multiplied into the query once; with RoPE on the keys a rotation that differs for each cached token stands between; with two lanes the content is free of it and a small rotary key carries position.",
             caption="Why position travels in a lane of its own.")

# %% tags=["remove-input"]
show.drawing("mla",
             alt="The data flow of an MLA layer: the hidden state becomes queries through c_q, and c_kv and k_rope, which alone are cached; from c_kv each head rebuilds k_nope and v, k_rope serves all heads, and softmax, weighted sum and w_o follow.",
             caption="The attention of one layer. Only the two heavily outlined vectors are kept; a stack means one for each head.")

# %% [markdown]
# Now the whole layer. (V2 and V3 send the query through a latent too, `c_q` in the drawing, to save memory while they train. It
# changes nothing in the cache, V2-Lite leaves it out, and so do we.) The sketch takes the package's weights, so that we can
# compare, and does everything else by hand. `w_dkv` makes latent and rotary key in one product, and `w_ukv` holds the
# up-projections of keys and values. The latent is normed, so that its size cannot drift; the rotary key is not.

# %%
def mla_by_hand(layer, h, turn):
    """All tokens at once, without a cache: (B, T, D) -> (B, T, D)."""
    H, Dn, Dv, Dr = layer.n_heads, layer.d_head, layer.d_value, layer.d_rope
    q_nope, q_rope = layer.w_q(h).unflatten(-1, (H, -1)).split([Dn, Dr], -1)
    c_kv, k_rope = layer.w_dkv(h).split([layer.w_ukv.in_features, Dr], -1)
    c_kv = layer.kv_norm(c_kv)                               # (B, S, C)
    k_nope, v = layer.w_ukv(c_kv).unflatten(-1, (H, -1)).split([Dn, Dv], -1)
    q_rope, k_rope = rotate(q_rope, turn), rotate(k_rope[:, :, None], turn)
    score = einsum("bthn,bshn->bhts", q_nope, k_nope)
    score = score + einsum("bthr,bsr->bhts", q_rope, k_rope[:, :, 0])
    future = torch.ones(score.shape[-2:]).triu(1).bool()     # (T, S)
    score = (score / (Dn + Dr)**0.5).masked_fill(future, -torch.inf)
    o = einsum("bhts,bshv->bthv", score.softmax(-1), v)      # (B, T, H, Dv)
    return layer.w_o(o.flatten(-2))


# %% [markdown]
# Does it do what the package's layer does? The weights are drawn larger than usual, so that a mistake would show.

# %%
from minimodels.attention import Place
from minimodels.model import Transformer
from minimodels.studies.mla import with_attention

torch.manual_seed(0)
model = Transformer(with_attention("mla")).eval()
for parameter in model.layers[0].attention.parameters():
    parameter.data.mul_(4)
layer, h = model.layers[0].attention, torch.randn(2, 40, D)
place = Place.of(model.rope, 40, h.device)
with torch.no_grad():
    hand = mla_by_hand(layer, h, place.turn)
    torch.testing.assert_close(hand, layer(h, place), atol=1e-4, rtol=0)
print(f"outputs up to {hand.abs().max():.0f}, equal to 4 decimals")

# %% [markdown]
# ### Five: decode in the latent's space
#
# The values can be absorbed too. A head's output is a mean of $W^{UV} c_s$, weighted by the attention $p_s$. A matrix may be
# taken out of a sum, so average the *latents*, and apply $W^{UV}$ once, to the result:
#
# $$ \sum_s p_s\, W^{UV} c_s = W^{UV} \sum_s p_s\, c_s \tag{6.6}$$
#
# > **Exercise 6.4** (absorb the values' matrix; easy, 5 minutes). Write `absorbed_output(attention, c_kv, w_uv)` without making
# > a value: no tensor of yours may have both an `s` and a `v`. Shapes: `(B, H, T, S)`, `(B, S, C)`, `(H, Dv, C)`; result `(B,
# > T, H, Dv)`.

# %%
def absorbed_output(attention, c_kv, w_uv):
    ...


# %%
check.absorbed_output(absorbed_output)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def absorbed_output(attention, c_kv, w_uv):
#     o_latent = einsum("bhts,bsc->bthc", attention, c_kv)
#     return einsum("bthc,hvc->bthv", o_latent, w_uv)
# ```
#
# The check compares numbers, so it cannot see whether you made a value. You can.
#
# </details>
#
# Put both together and nothing is ever rebuilt. What remains looks like MQA with one very wide key, $C + D_r$, for all heads.
# There is a twist: MQA keeps a key *and* a value. Here the same latent serves as both, and that is why 576 numbers are enough.

# %% tags=["remove-input"]
show.drawing("absorb", wide=True,
             alt="Two ways from the same cache to the same output: expand rebuilds keys and values of all heads from every latent at each step; absorb takes the query over to the latents, reads them as MQA with one key of width C + Dr, and goes up once.",
             caption="Two ways to read the same cache.")


# %%
def decode_by_hand(layer, h_new, turn_new, cached):
    """One new token; cached: (B, S, C + Dr), its own entry last."""
    H, Dn, Dv, Dr = layer.n_heads, layer.d_head, layer.d_value, layer.d_rope
    q = layer.w_q(h_new).unflatten(-1, (H, -1))              # (B, 1, H, Dn + Dr)
    q_nope, q_rope = q.split([Dn, Dr], -1)
    q_rope = rotate(q_rope, turn_new)
    c_kv, k_rope = cached.split([layer.w_ukv.in_features, Dr], -1)
    w_uk, w_uv = layer.w_ukv.weight.unflatten(0, (H, -1)).split([Dn, Dv], 1)
    q_absorbed = einsum("bthn,hnc->bthc", q_nope, w_uk)      # (B, 1, H, C)
    score = einsum("bthc,bsc->bhts", q_absorbed, c_kv)       # (B, H, 1, S)
    score = score + einsum("bthr,bsr->bhts", q_rope, k_rope)
    attention = (score / (Dn + Dr)**0.5).softmax(-1)
    o_latent = einsum("bhts,bsc->bthc", attention, c_kv)     # (B, 1, H, C)
    o = einsum("bthc,hvc->bthv", o_latent, w_uv)             # (B, 1, H, Dv)
    return layer.w_o(o.flatten(-2))


# %% [markdown]
# ## Prove it
#
# The third implementation is not ours: Hugging Face Transformers, which reads DeepSeek's released weights. We hand our model's
# weights to its `DeepseekV3ForCausalLM`, run it on random tokens, and catch what goes into its first attention layer and what
# comes out.

# %% tags=["hide-input"]
from minimodels import convert

theirs, caught = convert.to_hf(model).eval(), {}
theirs.model.layers[0].self_attn.register_forward_hook(
    lambda module, args, named, out: caught.update(h=named["hidden_states"], out=out[0]), with_kwargs=True)
with torch.no_grad():
    theirs(torch.randint(0, 4096, (2, 40)))
print("caught:", tuple(caught["h"].shape), "in,", tuple(caught["out"].shape), "out")

# %%
h = caught["h"]
with torch.no_grad():
    hand = mla_by_hand(layer, h, place.turn)
    kept = layer.latent(h, place)                         # (B, S, C + Dr)
    last = decode_by_hand(layer, h[:, -1:], place.turn[:, -1:], kept)
    answers = {"package, naive": layer(h, place, absorb=False),
               "package, absorbed": layer(h, place, absorb=True),
               "Hugging Face": caught["out"],
               "decoded by hand": torch.cat([hand[:, :-1], last], 1)}
for name, answer in answers.items():
    torch.testing.assert_close(answer, hand, atol=1e-5, rtol=0)
    print(f"by hand = {name}, to 5 decimals")

# %% [markdown]
# ## Bugs that still train
#
# A wrong attention layer rarely crashes. It learns around its fault, and the loss falls. To see it, we planted three bugs in
# the four layers of our model and trained each for 200 steps, three seeds each.

# %% tags=["hide-input"]
from minimodels.studies import recorded

planted = recorded("mla-bugs")
curves, spread = {}, {}
for arm in planted["arms"]:
    runs = [t["curve"] for t in planted["trials"] if t["arm"] == arm]
    at = list(zip(*([bits for _, bits in run] for run in runs)))
    curves[arm] = [tokens for tokens, _ in runs[0]], [statistics.mean(a) for a in at]
    spread[arm] = [min(a) for a in at], [max(a) for a in at]
show.show(show.lines(curves, spread=spread, concept={arm: "dense" if arm == "right" else "mla" for arm in curves},
                     x="tokens seen", y="bits per byte of unseen text", title="Every bug learns, and one of them learns faster than the right layer"),
          alt="Four falling curves close together: right and cached before the norm are one line, halves for pairs ends above it, "
              "no scale below.", caption=f"Recorded: minimodels study mla-bugs; mean and range of three seeds; {planted['trials'][0]['hardware']}.")

# %%
def mean_of(key, arm):
    """Mean of a recorded value over the seeds of an arm."""
    runs = [t for t in planted["trials"] if t["arm"] == arm]
    return statistics.mean(t[key] for t in runs)


show.table([{"layer": arm,
             "bits per byte": f"{mean_of('bits_per_byte', arm):.3f}",
             "loss, read at once": f"{mean_of('at_once', arm):.3f}",
             "loss, behind a cache": f"{mean_of('cached', arm):.3f}"}
            for arm in planted["arms"]])

# %% [markdown]
# All of them learn. *Halves for pairs* ends two percent worse, which you would see beside the right curve, if you had one. *No
# scale* ends one percent **better** than the right layer, with every seed: its scores are multiplied by five times as much
# ($\sqrt{24} = 4.9$), and perhaps attention finds its targets sooner for that. A longer run might undo the lead. This run's
# curve would have you keep the bug. And *cached before the norm* has exactly the right curve, because training has no cache.
# Behind a cache it reads worse, and only there.
#
# > **Bugs that still train.**
# > - **Halves for pairs.** The query rotates neighbours, $(x_0, x_1)$, and the key halves, $(x_0, x_4)$. Both layouts exist in
# >   public code. Scores then depend on where a text stands, not on distances alone.
# > - **No scale.** The factor $1/\sqrt{D_n + D_r}$ is missing, or it is $1/\sqrt{D_n}$. Scores are too large, here by
# >   $\sqrt{24} = 4.9$ or $\sqrt{24/16} = 1.2$, and training makes do.
# > - **Cached before the norm.** Training has no cache, so its loss is exactly right. Generation reads latents of the wrong
# >   size.
#
# No loss curve is a test. Three kinds of test catch most of these bugs: a *symmetry* that must hold, *parity* with something
# slow and plain, and *consistency* between two ways to the same answer. You write one of each. Every check below hands your
# test a number of layers, some right and some spoilt, and compares your verdicts. `True` means that the layer is right.
#
# > **Exercise 6.5** (symmetry; medium, 10 minutes). With RoPE only distances count, so moving a whole text must change nothing.
# > Write `depends_on_distance_alone(layer, h, place_at)`. `place_at(start, T)` gives the places of `T` tokens from position
# > `start` on (there are 64), and `layer(h, place)` the layer's output. Return a truth value; compare with `torch.allclose(...,
# > atol=1e-4)`.

# %%
def depends_on_distance_alone(layer, h, place_at):
    ...


# %%
check.depends_on_distance_alone(depends_on_distance_alone)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def depends_on_distance_alone(layer, h, place_at):
#     T = h.shape[1]
#     here, there = layer(h, place_at(0, T)), layer(h, place_at(9, T))
#     return torch.allclose(here, there, atol=1e-4)
# ```
#
# </details>
#
# > **Exercise 6.6** (parity; easy, 5 minutes). Write `scores_are_scaled(layer, h, place)`. You have a slow and plain layer
# > already: `mla_by_hand(layer, h, place.turn)`.

# %%
def scores_are_scaled(layer, h, place):
    ...


# %%
check.scores_are_scaled(scores_are_scaled)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def scores_are_scaled(layer, h, place):
#     return torch.allclose(layer(h, place), mla_by_hand(layer, h, place.turn), atol=1e-4)
# ```
#
# </details>
#
# > **Exercise 6.7** (consistency; medium, 15 minutes). Reading token by token, with a cache, must give what reading at once
# > gives. Write `cache_agrees(layer, h, place, cached_place, new_cache)`. `place` is that of all of `h`; `cached_place(n)` is
# > the place of one token behind `n` cached ones; `new_cache()` makes an empty cache, which goes to the layer as its third
# > argument and fills itself.

# %%
def cache_agrees(layer, h, place, cached_place, new_cache):
    ...


# %%
check.cache_agrees(cache_agrees)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `layer(h[:, t:t + 1], cached_place(t), cache)` is token `t`. One cache, made before the loop. `torch.cat(..., dim=1)` puts the
# outputs together.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def cache_agrees(layer, h, place, cached_place, new_cache):
#     cache = new_cache()
#     one_by_one = [layer(h[:, t:t + 1], cached_place(t), cache)
#                   for t in range(h.shape[1])]
#     return torch.allclose(torch.cat(one_by_one, dim=1), layer(h, place), atol=1e-4)
# ```
#
# </details>
#
# ## Count, before you time
#
# The two paths give the same numbers and cost different work. With $U = D_n + D_v$, a head multiplies, for $T$ queries over $S$
# cached tokens,
#
# $$\begin{aligned} \text{naive} \; & T S (U + D_r) + S C U \\ \text{absorbed} \; & T S (2 C + D_r) + T C U \\ \text{MHA} \; & T S U \end{aligned} \tag{6.7}$$
#
# The naive path pays to rebuild $S$ keys and values, however few queries there are. The absorbed path has nothing to rebuild,
# but each pair of tokens costs more, because the latent is wider than a head: $2 \cdot 512 + 64 = 1{,}088$ in V3, instead of
# $128 + 128 + 64 = 320$.

# %%
def multiplications(c, T, S):
    """A head's products, by path: equation (6.7)."""
    up, width, Dr = c.d_head + c.d_value, c.d_latent, c.d_rope
    return {"naive": T * S * (up + Dr) + S * width * up,
            "absorbed": T * S * (2 * width + Dr) + T * width * up,
            "MHA": T * S * up}


one = multiplications(v3, T=1, S=4096)
print(f"one query over 4,096 tokens: naive {one['naive']:,}, "
      f"absorbed {one['absorbed']:,}, MHA {one['MHA']:,}")

# %% tags=["hide-input"]
queries = [2**i for i in range(13)]
ratio = [multiplications(v3, T, 4096) for T in queries]
show.show(show.lines({"MLA": (queries, [n["naive"] / n["absorbed"] for n in ratio]),
                      "equal": (queries, [1.0] * len(queries))},
                     x="queries in one pass", y="multiplications, naive / absorbed", log_x=True, log_y=True,
                     title="To write, absorb; to read a prompt, rebuild"),
          alt="The ratio falls from 117 with one query to below one beyond some hundred and sixty.",
          caption="Equation (6.7) at DeepSeek-V3's sizes, 4,096 cached tokens, without a causal mask. Computed, not measured.")

# %% [markdown]
# So a model needs both paths: one to read the prompt and to train, one to write. DeepSeek's papers call them the MHA mode and
# the MQA mode ([DeepSeek-V3.2-Exp](../book/references.md#deepseek-v32-exp), appendix A). Our package counts, and takes the
# cheaper.
#
# And look at the third number. Absorbed **MLA** multiplies four times as much as **MHA** would, to read 1/57 of its memory.
# Less to read, more to compute: which of the two is the bottleneck depends on the machine, so time it.
#
# ## Time it
# One token, one layer, on your machine: model width 1,536, twenty-four heads of 64, a latent of 256 and a rotary key of 32.
# Latent and rotary key have DeepSeek's ratios to a head. **GQA** has eight groups, and so 3.6 times as much to keep as **MLA**,
# as it would have in V3. The five ways are timed in turns, on one thread, so that a busy moment slows all alike.

# %% tags=["nbval-ignore-output"]
from minimodels.studies.mla import CONTEXTS, schemes_at
from minimodels.timing import decode_step, interleaved

ms = {}
for S in CONTEXTS:
    steps = {name: decode_step(config, S, absorb=absorb)
             for name, (config, absorb) in schemes_at(1536).items()}
    ms[S] = {name: statistics.median(times)
             for name, times in interleaved(steps, rounds=5).items()}
show.table([{"context": S} | {n: round(t, 2) for n, t in ms[S].items()}
            for S in CONTEXTS], caption="Milliseconds a token and layer.")

# %% tags=["hide-input", "nbval-ignore-output"]
show.show(show.lines({name: (list(CONTEXTS), [ms[S][name] for S in CONTEXTS]) for name in ms[256]},
                     x="tokens in the cache", y="milliseconds a token and layer", log_x=True, log_y=True,
                     concept={"MLA naive": "mla", "MLA absorbed": "mla", "MHA": "mha", "GQA": "gqa", "MQA": "mqa"},
                     title="Absorbing keeps decoding cheap; rebuilding does not"),
          alt="Naive MLA rises steeply above all others. Absorbed MLA stays below MHA; GQA is lower than absorbed MLA "
              "for short contexts and higher for long ones; MQA is lowest.",
          caption="This run, on this machine; medians of five rounds.")

# %% tags=["nbval-ignore-output"]
for S in (1024, 8192):
    t = ms[S]
    times = {name: t[name] / t["MLA absorbed"] for name in t}
    print(f"{S:,} tokens: absorbed MLA {t['MLA absorbed']:.2f} ms; "
          f"naive takes {times['MLA naive']:.1f} times as long, "
          f"MHA {times['MHA']:.1f}, GQA {times['GQA']:.1f}")

# %% [markdown]
# How this comes out depends on the model's size. The same measurement, recorded at five model widths (heads and their width
# grow along), gives the ratio of **GQA**'s time to that of absorbed **MLA**. Above 1, **MLA** is faster.

# %% tags=["hide-input"]
decoding = recorded("mla-decoding")
curves, spread = {}, {}
for arm in decoding["arms"]:
    repeats = [t["ms"] for t in decoding["trials"] if t["arm"] == arm]
    at = [[statistics.median(g / m for g, m in zip(ms[str(S)]["GQA"], ms[str(S)]["MLA absorbed"])) for ms in repeats] for S in CONTEXTS]
    name = arm.replace("=", " ")
    curves[name] = list(CONTEXTS), [statistics.median(a) for a in at]
    spread[name] = [min(a) for a in at], [max(a) for a in at]
show.show(show.lines(curves | {"equal": (list(CONTEXTS), [1.0] * len(CONTEXTS))}, spread=spread, concept={name: "mla" for name in curves},
                     x="tokens in the cache", y="GQA's time / absorbed MLA's", log_x=True, log_y=True,
                     title="Only wide models with a long context favour MLA over GQA"),
          alt="Five curves, one a model width. The two narrowest stay near one half; the three others rise with the context and reach one "
              "at about four thousand tokens in the widest, later in the other two.",
          caption=f"Recorded: minimodels study mla-decoding; {decoding['trials'][0]['hardware']}. Middle and range of three "
                  "repetitions, each a median over nine rounds.")

# %%
show.table([{"model width": int(name.split()[1]),
             **{f"at {S:,}": f"{low:.2f} to {high:.2f}" for S, low, high
                in zip(CONTEXTS, *spread[name]) if S >= 1024}}
            for name in curves])

# %% [markdown]
# At widths 96 and 192 **GQA** is about twice as fast at every context that we timed. With 2,048 tokens or fewer it leads at
# every width. Beyond that, at 384, and with 4,096 tokens at 768, the repetitions do not agree. At 768 the balance has turned
# with 8,192 tokens, by a sixth to a fifth; at 1,536 it is even at 4,096, and at 8,192 absorbed **MLA** leads by 39 to 48
# percent. **MQA**, with the smallest cache of all, is fastest but for a few ties with **GQA** in the narrowest models; naive
# **MLA** is slowest everywhere.
#
# ## Does it learn as well?
#
# A small cache is worth nothing if the model is worse. So we train four models that differ in their attention, and in the
# feed-forward width that makes up for its parameters: 128 wide, four layers, eight heads of 16, no experts, 1.28 million
# parameters each, to within a thousandth.
#
# > **Before you read on.** In bits per byte of unseen text (less is better): which order will the four come in, and how far is
# > the best from the worst?
# >
# > <details><summary>What we found</summary>
# >
# > **MHA, GQA, MLA, MQA.** In the mean of five seeds; from first to last it is 1.2 percent. **MHA** is first with every seed,
# > and **GQA** before **MQA**; only **MLA**'s place among the last three depends on the seed.
# >
# > </details>
#
# First a taste, live: **MHA** and **MLA** for 60 steps each, on a third of the standard library.

# %%
from minimodels.data import Batches, prepare
from minimodels.evaluate import evaluate
from minimodels.studies.mla import LIVE, LIVE_BYTES
from minimodels.train import train

data = prepare("stdlib", vocab_size=4096, max_bytes=LIVE_BYTES)
batches = Batches(data.train, batch_size=LIVE.batch_size,
                  seq_len=LIVE.seq_len, seed=0)

# %% tags=["nbval-ignore-output"]
live = show.Live(alt="Two falling curves, MHA and MLA, hardly apart.",
                 caption="This run: 60 steps each, on this machine.")
models, losses = {}, {}
for name in ("mha", "mla"):
    torch.manual_seed(0)
    models[name] = Transformer(with_attention(name))
    losses[name] = [], []
    for record in train(models[name], batches, LIVE):
        losses[name][0].append(record.step)
        losses[name][1].append(record.loss)
        if record.step % 20 == 0:
            seen = {k.upper(): xy for k, xy in losses.items()}
            live.draw(show.lines(seen, x="step", y="loss, nats per token",
                                 title="MHA and MLA learn side by side"))

# %% tags=["nbval-ignore-output"]
for name, model in models.items():
    score = evaluate(model, data.valid, n_bytes=data.valid_bytes,
                     seq_len=LIVE.seq_len)
    print(lab.band("mla", f"{name} after 60 steps", score.bits_per_byte))

# %% [markdown]
# And how long does a step of training take, in turns, forward and backward, on one thread?

# %% tags=["nbval-ignore-output"]
from minimodels.mtp import losses as losses_by_depth


def step_of(model):
    """A function that runs one batch forward and backward."""
    tokens = batches.at(0)
    return lambda: losses_by_depth(model(tokens), tokens)[0].backward()


step_ms = interleaved({name: step_of(m) for name, m in models.items()},
                      rounds=5)
ratios = [mla / mha for mha, mla in zip(step_ms["mha"], step_ms["mla"])]
print(f"MLA takes {statistics.median(ratios):.2f} times as long as MHA "
      f"({min(ratios):.2f} to {max(ratios):.2f} over five rounds)")

# %% [markdown]
# Sixty steps of one seed decide nothing. The recorded runs have ten times as many steps, on the whole standard library, with
# five seeds a scheme; each scheme has the learning rate that suited it best of four, tried with one other seed (`minimodels
# study mla-rates`). The command is `minimodels study mla-quality`.

# %% tags=["hide-input"]
quality = recorded("mla-quality")
names = {"mha": "MHA", "gqa": "GQA", "mqa": "MQA", "mla": "MLA"}
scores = {name: [t["bits_per_byte"] for t in quality["trials"] if t["arm"] == arm] for arm, name in names.items()}
show.show(show.dots(scores, unit="bits per byte of unseen text",
                    title="At eight heads, ordinary attention predicts best; latent attention is third in the mean"),
          alt="Four rows of five dots. MHA lies lowest, GQA next, MLA and MQA highest; the dots of MLA and MQA are spread widest.",
          caption=f"Recorded: minimodels study mla-quality; five seeds a scheme; {quality['trials'][0]['hardware']}. "
                             "The stroke is the mean.")

# %%
rows = []
for arm, name in names.items():
    runs = [t for t in quality["trials"] if t["arm"] == arm]
    paired = [t["bits_per_byte"] - m for t, m in zip(runs, scores["MHA"])]
    rows.append({
        "scheme": name,
        "values a layer": runs[0]["cached_values_per_layer"],
        "mean, bits per byte": f"{statistics.mean(scores[name]):.4f}",
        "more than MHA, same seed": f"{statistics.mean(paired):+.4f}",
        "over five seeds": f"{min(paired):+.4f} to {max(paired):+.4f}"})
show.table(rows)

# %% [markdown]
# The three classical schemes come in the order of V2's tables: the more is shared, the worse. **MHA** wins with every seed.
# **MLA** needs about one percent more bits than **MHA** in the mean, and its distance varies most, from 0.0070 to 0.0265. It
# beats **MQA** with four seeds of five. **GQA** keeps fewer numbers, and **MLA** beats it with only two, by less than 0.001.
# Beside **MHA**, DeepSeek reports the opposite, at a thousand times our size and more; so this deserves a second look.
#
# ### How much is there to squeeze?
# Is the latent too small? Here is a test that needs no training. Take the five trained **MHA** models, find the directions in
# which all heads' keys and values together are longest (a singular value decomposition), and cut away all others. What is left
# could be rebuilt from as many numbers as there are directions.


# %% tags=["hide-input"]
squeezed = [t["squeezed"] for t in quality["trials"] if t["arm"] == "mha"]
latents = [int(C) for C in squeezed[0] if int(C) >= 16]
by_latent = [[each[str(C)] for each in squeezed] for C in latents]
whole = statistics.mean(scores["MHA"])
show.show(show.lines({"MHA, squeezed afterwards": (latents, [statistics.mean(b) for b in by_latent]),
                      "MHA, whole": (latents, [whole] * len(latents)),
                      "MLA, trained so": ([64], [statistics.mean(scores["MLA"])])},
                     spread={"MHA, squeezed afterwards": ([min(b) for b in by_latent], [max(b) for b in by_latent])},
                     concept={"MHA, squeezed afterwards": "mha", "MHA, whole": "mha", "MLA, trained so": "mla"},
                     x="numbers kept for a token", y="bits per byte of unseen text",
                     title="Cut to a quarter of its numbers, an ordinary model loses half a percent"),
          alt="The score of the squeezed models falls steeply until some 48 numbers and is that of the whole model from 96 on; the point of MLA at 64 lies above the curve.",
          caption="Recorded: minimodels study mla-quality; the MHA models of five seeds, their mean and range.")

# %% [markdown]
# Cut to 64 numbers, the models lose 0.009 bits, with no training to get used to it. The **MLA** models, trained with 64 from
# the start, lose 0.016 in the mean, and more than the cut ones with three seeds of five. So 64 numbers can hold most of what
# eight heads say. (The directions were chosen on a sample of the text that is scored, which flatters the cut models a little.
# And such a cut would save memory, not time: these keys turn in full, so they must be rebuilt at every step.) We gave **MLA**
# twice the latent, and twice the rotary key, at equal parameters as before and the same learning rate:

# %%
sizes = recorded("mla-sizes")["trials"]
rows = []
for arm in ("mla", "latent 128", "rotary key 16"):
    runs = [t for t in quality["trials"] + sizes if t["arm"] == arm][:3]
    more = [t["bits_per_byte"] - m for t, m in zip(runs, scores["MHA"])]
    rows.append({
        "model": {"mla": "MLA as above"}.get(arm, f"MLA, {arm}"),
        "values a layer": runs[0]["cached_values_per_layer"],
        "more than MHA, three seeds": f"{statistics.mean(more):+.4f}",
        "range": f"{min(more):+.4f} to {max(more):+.4f}"})
show.table(rows)

# %% [markdown]
# Neither closes the gap. A latent of 128 is as wide as the hidden state. With each of the three seeds it is better than 64, but
# in the mean two thirds of the gap remain. (These three are **MLA**'s worst seeds, and the feed-forward part had to shrink to
# pay for the wider latent.) Twice the rotary key changes less than the seeds differ. We have not tested the other suspects: one
# rotary key for all heads, the norm on the latent, two matrices that may learn more slowly than one. What we can say is this:
# the size of the latent does not explain most of the gap.

# %% [markdown]
# ## What the papers measured
#
# DeepSeek-V2's appendix compares twice, both times by training real models ([DeepSeek-V2](../book/references.md#deepseek-v2),
# Tables 8 and 9). First three dense models of 7 billion parameters, each trained on 1.33 trillion tokens:
#
# | Benchmark | MQA | GQA, 8 groups | MHA |
# |---|---|---|---|
# | BBH | 33.2 | 35.6 | 37.0 |
# | MMLU | 37.9 | 41.2 | 45.2 |
# | C-Eval | 30.0 | 37.7 | 42.9 |
# | CMMLU | 34.6 | 38.4 | 43.5 |
#
# Sharing heads costs points: the more heads share, the more points. Then **MHA** against **MLA**, in two mixtures of experts, a
# small one of 16 billion parameters and a large one of about 250 billion:
#
# | Benchmark | small, MHA | small, MLA | large, MHA | large, MLA |
# |---|---|---|---|---|
# | cached values a token | 110.6K | 15.6K | 860.2K | 34.6K |
# | BBH | 37.9 | 39.0 | 46.6 | 50.7 |
# | MMLU | 48.7 | 50.0 | 57.5 | 59.0 |
# | C-Eval | 51.6 | 50.9 | 57.9 | 59.2 |
# | CMMLU | 52.3 | 53.4 | 60.7 | 62.5 |
#
# Seven of eight comparisons go to **MLA**, with a cache of 14 and of 4 percent. It is a strong result. Read the baseline as
# carefully as the result, though:

# %%
per_layer = 860_200 / 60    # 60 layers: 34.6K / 576

print(f"the large MHA model keeps {per_layer:,.0f} values a layer, "
      f"which is 2 x {per_layer / 2:,.0f};")
print(f"128 heads of 128 would keep {2 * 128 * 128:,}")

# %% [markdown]
# So the large **MHA** model's heads have 7,168 numbers together, which would be 56 heads of 128, where V2 itself has 128 such
# heads. How many its **MLA** rival has the paper does not say, and a cache of 576 does not tell. In the small pair the heads
# fit: 110.6K is 27 layers of 2 × 16 × 128, as V2-Lite has them. And the large **MHA** model has more active parameters (25.0
# against 21.5 billion). No table separates these causes. Nor does V2 have one that sets **MLA** beside **GQA**, the scheme that
# other large models use. Ours above does, at a very small size.
#
# ## The most famous percentage, taken apart
#
# V2's abstract says that its cache is 93.3 percent smaller than that of DeepSeek's earlier model of 67 billion parameters. It
# is, and not because of latent attention alone. The old model had 95 layers and **GQA** with eight groups of heads of 128 (we
# know its configuration from a secondary source, [DeepSeek-LLM](../book/references.md#deepseek-llm)), at 16 bits a number. V2
# has 60 layers, **MLA**, and stores six bits a number on average (section 3.2.3).
#
# > **Exercise 6.8** (take it apart; easy, 10 minutes). Write `take_apart(old, new)`. Each argument is a triple: layers, values
# > that a layer keeps for a token, bits a value. Return four shares: what fewer layers save, what fewer values save, what fewer
# > bits save, each by itself, as if it were the only change; and what all three save together. Then call it with the two
# > models' triples.

# %%
def take_apart(old, new):
    ...


# %%
check.take_apart(take_apart)

# %% [markdown]
# <details><summary>Solution</summary>
#
# What is *kept* multiplies.
#
# ```python
# def take_apart(old, new):
#     layers, values, bits = (n / o for n, o in zip(new, old))
#     return 1 - layers, 1 - values, 1 - bits, 1 - layers * values * bits
#
# take_apart((95, 2 * 8 * 128, 16), (60, 512 + 64, 6))
# ```
#
# </details>

# %%
old, new = 95 * 2 * 8 * 128, 60 * (512 + 64)
steps = {"DeepSeek 67B, GQA": 1.0,
         "MLA, layer for layer": (512 + 64) / (2 * 8 * 128),
         "… and 60 layers, not 95": new / old,
         "… and 6 bits, not 16": new / old * 6 / 16}
print(f"saved in all: {1 - new / old * 6 / 16:.1%}")

# %% tags=["hide-input"]
show.show(show.bars({name: 100 * share for name, share in steps.items()}, unit="cache a token, % of DeepSeek 67B's",
                    concept={"DeepSeek 67B, GQA": "gqa", "MLA, layer for layer": "mla"},
                    title="Latent attention alone would save 72 percent, not 93"),
          alt="Bars: 100, 28.1, 17.8 and 6.66 percent.",
          caption="Computed from published sizes. The order of the steps is a choice; their product is not.")

# %% [markdown]
# Latent attention alone leaves 28 percent of the old cache. Fewer layers make it 18, and six bits 6.7. Before the six bits the
# saving is 82 percent; that figure is sometimes given to **MLA**, but it includes the thinner stack of layers.
#
# ## Does it pay here?
# > **Does it pay here?** **No, not at our size.** Here **GQA** with two groups keeps less and, in the mean, predicts better;
# > and our contexts are short.
# >
# > - **At equal parameters and tokens:** 0.0156 bits per byte more than **MHA** (five seeds: 0.0070 to 0.0265), with 28 percent
# >   of its cache. **GQA** with two groups loses 0.0105, with 25 percent.
# > - **At equal wall clock:** (not run) presumably worse, for a step of training takes about a fifth longer on our machine; the
# >   live run above prints by how much on yours.
# > - **To decode:** absorbed **MLA** is faster than **GQA** with three heads a group from width 768 on, with 8,192 tokens in
# >   the cache, on one thread of our processor. With 2,048 tokens or fewer it never was; between the two, and at width 384, the
# >   repetitions disagree or come out even.
# > - **At DeepSeek's scale:** the cache of one conversation of 128K tokens falls from 524 GB to 9. With 128 heads there is no
# >   equal bargain in **GQA**: for V3's 576 numbers it could keep little more than two groups, for 128 heads. Ours keeps two
# >   for eight. That V2 lost no quality is DeepSeek's measurement; ours can neither confirm nor refute it.
#
#
# ## The claims again
#
# > **Claim C60 · with a caveat.** *Latent attention needs 5 to 13 percent of the memory of traditional methods.*
# >
# > It is the *cache* that shrinks, not all memory, and no comparison that we found gives this range. DeepSeek's own two, beside
# > **MHA**, give 4 and 14 percent; a layer of V3's sizes would give 1.8. Beside the **GQA** that large models use, a layer's
# > cache shrinks 3.6 times; V3 as a whole keeps 13.6 percent of Llama 3.1 405B's, because each layer keeps 28 percent as much,
# > and there are half as many.
# >
# > *It would have been right to say:* latent attention kept 4 and 14 percent of the cache of ordinary attention in DeepSeek's
# > two comparisons.
# >
# > Source: [DeepSeek-V2, Table 9](../book/references.md#deepseek-v2); [ISCA 2025, Table 1](../book/references.md#isca-2025).
#
# > **Claim C61 · with a caveat.** *Latent attention makes inference cheaper.*
# >
# > V2 generates up to 5.76 times as many tokens a second as the 67B model. But its layers are fewer and its active parameters
# > too, its weights are in FP8, and its cache has six bits a number. By itself **MLA** saves 72 percent of a layer's cache
# > beside that model's **GQA**, and multiplies more for it.
# >
# > *It would have been right to say:* latent attention cut a layer's cache by 72 percent beside the older model's **GQA**;
# > fewer layers and fewer bits did the rest of the 93.3 percent. How much cheaper that makes an answer depends on what else
# > holds the machine up.
# >
# > Source: [DeepSeek-V2, section 3.2.3](../book/references.md#deepseek-v2); the arithmetic and timings above.
#
# > **Claim C62 · supported.** *Latent attention is new.*
# >
# > One compressed vector for the keys and values of all heads, with position in a path of its own, was first published with
# > DeepSeek-V2 in May 2024.
# >
# > *It would have been right to say:* latent attention was introduced by DeepSeek-V2 in May 2024.
# >
# > Source: [DeepSeek-V2, section 2.1](../book/references.md#deepseek-v2).
#
# ## What production does
#
# - **Both modes, one set of weights.** V3's released code can be set to a naive or an absorbed path. DeepSeek-V3.2-Exp builds
#   its sparse attention on the absorbed one, because there all heads of a query read the same latents
#   ([DeepSeek-V3.2-Exp](../book/references.md#deepseek-v32-exp), section 2.1).
# - **Kernels.** [FlashMLA](../book/references.md#flashmla)'s FP8 format keeps 656 bytes for a token in a layer: 512 latent
#   numbers in FP8, 16 bytes of scales, and the 64 rotary numbers in BF16, for accuracy, as its documentation says.
# - **Long contexts.** With YaRN, V3's code multiplies the softmax scale by 1.87, for short texts too. A port that forgets it is
#   right at the first token alone.

# %% [markdown]
# > **Takeaways**
# > 1. A cache is a choice: keep results, or keep what makes them. **MLA** keeps $C + D_r$ numbers a token and layer, whatever
# >    the number of heads.
# > 2. A matrix can move to the query's side, so that decoding rebuilds no key and no value; RoPE stands in the way, so position
# >    gets a lane of its own.
# > 3. To write, absorb; to read and to train, rebuild. The two give the same numbers.
# > 4. At eight heads latent attention took one percent more bits than **MHA**, and **GQA** did at least as well with less. The
# >    more heads there are, the more cache it saves beside **MHA**; the longer the context, the more that counts. Whether its
# >    quality changes with the number of heads, we did not test.
# > 5. The press's 5 to 13 percent is about the cache alone. Of V2's famous 93.3 percent, latent attention alone would have
# >    saved 72.
#
# ## Longer problems
#
# > **Exercise 6.9** (how many fit; easy, 20 minutes). Sixteen GPUs of 80 GB hold DeepSeek-V3's weights in FP8, a byte each. How
# > many conversations of 8,000 tokens fit into what is left, with each of the four schemes, at V3's sizes and two bytes a
# > number? How many with **MLA** if a cached token takes FlashMLA's 656 bytes a layer?
#
# <details><summary>Solution</summary>
#
# ```python
# left = 16 * 80e9 - v3.n_params
# for name, scheme in schemes.items():
#     config = replace(v3, attention=scheme, n_kv_heads=8)
#     print(name, int(left / (8000 * 2 * config.cached_values_per_token)))
# print("MLA, FP8", int(left / (8000 * 656 * 61)))
# ```
#
# 19, 304, 2,437 and 1,083; in FP8 1,902. The first number is why nobody serves such a model with **MHA**. (Counting the weights
# with each scheme's own attention changes little; activations are left out.)
#
# </details>
#
# > **Exercise 6.10** (GQA is an MLA; medium, 45 minutes). Show that every **GQA** layer without rotation is an **MLA** layer
# > without norm: give its $C$, `w_dkv`, `w_uk` and `w_uv` in terms of `w_k` and `w_v`, each $(G D_h, D)$, and prove it with
# > random numbers. What does that say about which of the two can express more at the same cache? And why does the proof break
# > down once keys rotate?
#
# <details><summary>Hint</summary>
#
# The latent may simply be all groups' keys and values, one behind the other. Then the up-projections only have to pick.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# D, H, G, Dh = 20, 6, 2, 4
# h = torch.randn(1, 5, D)
# w_k, w_v = torch.randn(G * Dh, D), torch.randn(G * Dh, D)
#
# w_dkv = torch.cat([w_k, w_v])                        # C = 2 G Dh
# pick = torch.eye(G * Dh).unflatten(0, (G, Dh)).repeat_interleave(H // G, 0)
# w_uk = torch.cat([pick, torch.zeros_like(pick)], -1)
# w_uv = torch.cat([torch.zeros_like(pick), pick], -1)
#
# k = (h @ w_k.T).unflatten(-1, (G, Dh)).repeat_interleave(H // G, 2)
# v = (h @ w_v.T).unflatten(-1, (G, Dh)).repeat_interleave(H // G, 2)
# for wanted, up in ((k, w_uk), (v, w_uv)):
#     made = einsum("bsc,hnc->bshn", h @ w_dkv.T, up)
#     print(torch.allclose(made, wanted, atol=1e-4))
# ```
#
# With $C = 2 G D_h$ both keep the same number of values, and **MLA**'s matrices are free where **GQA**'s only copy: it can
# express everything that **GQA** can, and more. With rotation the proof breaks down: a turned key is $R_s W h_s$, and no fixed
# matrix on a latent can make the $R_s$, which differs from token to token. That is section three again.
#
# </details>
#
# > **Exercise 6.11** (surgery, then healing; hard, 2 hours). `squeeze` in `minimodels.studies.mla` cuts a trained **MHA**
# > model's keys and values down to few directions. Take the **MHA** model that you trained above, squeeze it to 8, and train it
# > on for 60 steps, once with the squeezed matrices free again and once held to their rank (squeeze after every step). Compare
# > with the same 60 steps for the model that was not squeezed. How much of the damage heals, and does the rank stay low by
# > itself?
#
# <details><summary>Hint</summary>
#
# `train` yields after each step, so you can change the weights between two steps: copy those of `squeeze(model, tokens, 8)`
# into `model` with `load_state_dict`. Use another seed for the batches, or you will train on the same text twice. Report bits
# per byte before, and after each of the three.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# import copy
# from minimodels.studies.mla import squeeze
#
# more = Batches(data.train, batch_size=LIVE.batch_size, seq_len=LIVE.seq_len, seed=1)
# sample = torch.tensor(data.valid[:4096].astype("int64")).view(16, 256)
#
# def score(model):
#     return evaluate(model, data.valid, n_bytes=data.valid_bytes, seq_len=256).bits_per_byte
#
# def heal(model, is_held):
#     model = copy.deepcopy(model).train()
#     for record in train(model, more, LIVE):
#         if is_held:
#             model.load_state_dict(squeeze(model, sample, 8).state_dict())
#     return score(model)
#
# cut = squeeze(models["mha"], sample, 8)
# print("before", score(models["mha"]), "cut", score(cut))
# print("free", heal(cut, False), "held", heal(cut, True),
#       "never cut", heal(models["mha"], False))
# ```
#
# We have not recorded this one: your numbers are the answer. Look also at the singular values of the free one's keys and values
# afterwards. If the other directions fill again, a low rank has to be built in, which is what a latent does.
#
# </details>
#
# > **Next: [A few experts out of many](07_moe.ipynb).** The latent makes the cache small. The other half of the layer is about to
# > grow, and how 633 billion parameters can rest while a token passes is its subject.
