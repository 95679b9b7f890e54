# ---
# jupyter:
#   book:
#     number: 7
#     reading: 85 min
#     cpu: 70 s, 1.2 GB
#     needs: "the feed-forward network of [chapter 4](04_model.ipynb); two paragraphs recall it"
#     terms:
#       moe: [experts, gate]
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: book
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A few experts out of many
#
# [Open in Colab](https://colab.research.google.com/github/minimodels/small-models-big-claims/blob/main/chapters/07_moe.ipynb)
#
# > *Own a large library. Open four books.*
#
# *This chapter is still being measured: runs over several seeds are being recorded, and where a finding rests on one seed the text
# says so.*
#
# > **You will be able to**
# > - cut a feed-forward network into experts, and say what each cut changes and what it leaves alone;
# > - do a gate's arithmetic by hand, and send tokens to their experts in three ways that give one answer;
# > - say which weights a gate teaches, and why with one expert a token it may teach none;
# > - count the experts that a conversation wakes, and the experts that a crowd wakes;
# > - measure what experts divide a text by, in bits, and test a comparison with a hospital;
# > - judge what all this gains per token, per second and per byte of memory.
#
# ## What you need, in two paragraphs
#
# A layer of the yardstick ([chapter 4](04_model.ipynb)) does two things to a token's [hidden state](../book/glossary.md#hidden-state).
# Attention brings in what stands before it. Then a **feed-forward network** thinks about this one token by itself: two matrices take
# its 128 numbers to 320 *hidden numbers* each, one pair is multiplied into the other through a bend
# ([SwiGLU](../book/glossary.md#swiglu)), and a third matrix takes the 320 back to 128. The result is added to the hidden state.
#
# Most of a model's parameters sit in these networks, and most of what it seems to know. A wider network holds more. It also
# costs more, for *every* token, because all of it works on all of them: on `import` as on a comma.

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

import torch
import torch.nn.functional as F
from minimodels import exercises, lab, ledger, show
from minimodels.checkpoint import Run
from minimodels.config import ModelConfig
from minimodels.explorables import ExpertText
from minimodels.studies import recorded

check = exercises.load("moe")
print(lab.tier())

# %% [markdown]
# ## The pain
#
# **17.9 times**
#
# > **Margin.** 671.03 billion parameters, of which 37.55 work on a token, counted from the published configuration.
#
# That is how much more DeepSeek-V3 would compute for each token if all its parameters had a say in it. A training run of 57 days
# would take nearly three years. To have the parameters and not pay for them, you must let most of them rest, and choose which,
# token by token, *before* you know what they would have said.

# %%
v3 = ModelConfig.preset("deepseek_v3")
print(f"{v3.n_params / 1e9:.2f} billion in all, "
      f"{v3.n_active_params / 1e9:.2f} at work on a token: "
      f"{v3.n_params / v3.n_active_params:.1f} times")

# %% [markdown]
# ## What the press said
#
# Three of its sentences about this will not survive the chapter unchanged.

# %% tags=["remove-input"]
ledger.show("C54", "C57", "C59", form="told")

# %% [markdown]
# > **Before you read on.** A model with sixteen experts in a layer has learnt Python from its standard library. What will decide
# > which expert a token goes to: the subject of the file (mail, threads, dates), the kind of token (keyword, name, comment), the
# > token itself, or nothing that one can name?
# >
# > <details><summary>What we found</summary>
# >
# > **The token itself.** In the first layer with experts it tells 74 percent of the choice, its kind 20 percent, and the file
# > 3 percent. In the last layer the token tells less and the kind more. [Below](#What-do-experts-specialise-in?) you measure it.
# >
# > </details>
#
# ## Sparse already
#
# Is it plausible at all that a token can do without most of a network? Ask a model that was never told to. The dense yardstick,
# trained for 6,000 steps, has 320 hidden numbers in each of four layers. For each token and layer, keep the half that counts
# most (its size, times the length of the column that it will meet) and set the other half to zero. Then do the same with *one*
# fixed half for all tokens, the half that counts most on average.

# %%
from minimodels.data import prepare
from minimodels.studies.mla import LIVE, LIVE_BYTES
from minimodels.studies.moe_routing import (bits, bytes_of, importance,
                                            thinned)

full, dense = (Run.open(lab.data_file(f"checkpoints/{name}")).model().eval()
               for name in ("cpu-long", "yardstick"))
text = prepare("stdlib", 4096, max_bytes=LIVE_BYTES,
               tokenizer=full.tokenizer)
tokens = torch.tensor(text.valid[:].astype("int64"))
windows = tokens[:96 * 256].view(96, 256)
n_bytes = bytes_of(windows[:24], full.tokenizer)

# %% tags=["nbval-ignore-output"]
sizes = importance(dense, windows[:24])
print(f"all 320: {bits(dense, windows[:24], n_bytes):.3f} bits per byte")
for by in ("token", "all"):
    end = thinned(dense, 1 / 2, by=by, importance=sizes)
    score = bits(dense, windows[:24], n_bytes)
    print(f"half of them, chosen for {by}: {score:.3f}")
    end()

# %% tags=["hide-input"]
routing = recorded("moe-routing")["trials"][0]
thin = routing["thinned"]
shares = (1 / 2, 1 / 4, 1 / 8, 1 / 16)
left_out = [0] + [100 * (1 - s) for s in shares]
show.show(show.lines({"token by token": (left_out, [thin["all"]] + [thin[f"{s:g} by token"] for s in shares]),
                      "same for all": (left_out, [thin["all"]] + [thin[f"{s:g} by all"] for s in shares])},
                     x="hidden numbers left out, %", y="bits per byte of unseen text", concept={"token by token": "moe", "same for all": "dense"},
                     title="A dense network can spare three quarters of itself, but not the same ones for each token"),
          alt="Two curves against the share left out. Chosen token by token it stays flat up to three quarters and then rises a little; with the same numbers for all it rises steeply at once.",
          caption="Recorded: minimodels study moe-routing; the yardstick after 6,000 steps, 128 windows of unseen text.")

# %% [markdown]
# Half of the numbers, chosen token by token, cost next to nothing; a quarter costs under two percent. One fixed half for all is
# a disaster. So the dense network is sparse already. It only does not know in advance *which* part of
# itself a token will need, so it computes everything and finds out. All the savings lie in that gap: a cheap guess, made before
# the work, of who will be useful.
#
# ## The idea in pictures
#
# An **expert** is a part of the network that is used or left alone as a whole. A **gate** makes the guess: one number for each
# expert, from the hidden state, and the best $K$ win. How large should a part be? The history of the idea is a list of answers,
# and DeepSeekMoE's Table 1 walks through it ([DeepSeekMoE](../book/references.md#deepseekmoe)): one expert a token, as in
# [Switch](../book/references.md#switch); two, as in [GShard](../book/references.md#gshard); then many small ones, and one that
# everybody gets.

# %% tags=["remove-input"]
show.drawing("experts",
             alt="Five rows of blocks to scale: one network of 320 hidden numbers; eight of 320, one working; sixteen of 160, two working; thirty-two of 80, four working; thirty-one of 80, three working, and one more that always works. The filled width is the same in every row.",
             caption="The five models of this chapter: hidden numbers of one layer, to scale. Filled: at work on one token. Always 320.")

# %%
from minimodels.studies.moe import MODELS

show.table([{"model": name, "routed experts": c.n_experts,
             "chosen": c.top_k if c.n_experts else 0,
             "parameters, M": round(c.n_params / 1e6, 2),
             "at work, M": round(c.n_active_params / 1e6, 2)}
            for name, c in MODELS.items()])

# %% [markdown]
# All five do the same work for a token, to within the gate; four of them own three times the parameters. (The first layer stays
# dense in all, as in DeepSeek's models, and attention and embedding do not grow. So eight times the network is three times the
# model.)
#
# | Symbol | Meaning | V3 | here, *fine* | Shape |
# |---|---|---|---|---|
# | $x$ | hidden state of a token, normed | 7,168 | 128 | `(T, D)` |
# | $E$, $K$ | routed experts, and how many a token gets | 256, 8 | 32, 4 | |
# | $D_f$ | hidden numbers of one expert | 2,048 | 80 | |
# | $w_e$ | the gate's row for expert $e$ | 7,168 | 128 | `(E, D)` |
# | $s_e$ | `score`: how well the expert fits | | | `(T, E)` |
# | $b_e$ | `bias`: it helps to choose; [what moves it](../book/glossary.md#loss-free-balancing) is chapter 8's subject | | | `(E,)` |
# | $g_e$ | `weight` of a chosen expert | | | `(T, K)` |
#
# $$\begin{aligned} s_e &= \mathrm{sigmoid}(w_e \cdot x) \\ \text{chosen} &= \mathrm{top}_K(s_e + b_e) \\ g_e &= s_e \,/\, \textstyle\sum_{\text{chosen}} s \end{aligned} \tag{7.1}$$
#
# $$ y = \mathrm{shared}(x) + \sum_{\text{chosen}} g_e\, \mathrm{FFN}_e(x) \tag{7.2}$$
#
# Read the second line of (7.1) with the third. The bias says who is chosen. It does not say how much they count.
#
# ### Eight tokens by hand
#
# Here are the eight tokens of `def add(a, b):` and four experts, with small whole numbers for the scores. Each token takes two.
# On the left the bias is zero. Expert 2 gets six of sixteen places, where four would be fair, so on the right its bias is −2.

# %% tags=["remove-input"]
show.drawing("gate",
             alt="Two tables of eight tokens by four experts with whole-number scores; the two best of each row are filled and their weights written beside. Left: loads 3, 3, 6, 4. Right, with a bias of minus two for expert 2: loads 4, 3, 4, 5.",
             caption="The gate's arithmetic. On the right two tokens, `add` and `a`, have changed an expert; all other weights are what they were.")

# %%
words = ["def", "add", "(", "a", ",", "b", ")", ":"]
score = torch.tensor([
    [6, 1, 2, 3], [1, 8, 2, 0], [2, 1, 6, 3], [1, 6, 3, 2],
    [3, 0, 9, 1], [0, 4, 1, 2], [1, 2, 7, 3], [3, 1, 6, 2]])
for bias in ([0, 0, 0, 0], [0, 0, -2, 0]):
    expert = (score + torch.tensor(bias)).topk(2).indices    # (T, K)
    weight = score.gather(1, expert)
    weight = weight / weight.sum(-1, keepdim=True)
    load = torch.bincount(expert.flatten(), minlength=4)
    print(f"load {load.tolist()}, `,` goes to {expert[4].tolist()} "
          f"with {weight[4].tolist()}")

# %% [markdown]
# Look at the comma. With the bias expert 2 wins by 7, not by 9; and still it counts three quarters, which is 9 of 12.
#
# > **Exercise 7.1** (a gate for one token; easy, 10 minutes). Write `choose_and_weigh(score, bias, top_k)` for one token, with
# > plain lists. Return two lists: the chosen experts, the best first, and their weights, as (7.1) has them.

# %%
def choose_and_weigh(score, bias, top_k):
    ...


# %%
check.choose_and_weigh(choose_and_weigh)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def choose_and_weigh(score, bias, top_k):
#     biased = [s + b for s, b in zip(score, bias)]
#     best = sorted(range(len(score)), key=lambda e: -biased[e])
#     expert = best[:top_k]
#     total = sum(score[e] for e in expert)
#     return expert, [score[e] / total for e in expert]
# ```
#
# </details>
#
# ## Build it
#
# ### One: an expert is a slice
#
# Cut the 320 hidden numbers of a dense network into eight slices of 40. Each slice has its rows of the first two matrices and its
# columns of the third, so it is a small network of its own. And the large one is the sum of the eight:

# %%
from minimodels.layers import SwiGLU

torch.manual_seed(0)
network, x = SwiGLU(128, 320), torch.randn(8, 128)
gates, ups = network.w_gate_up.weight.chunk(2)      # (Df, D) each
downs = network.w_down.weight                       # (D, Df)

y = torch.zeros(8, 128)
for part in torch.arange(320).split(40):            # an expert
    hidden = F.silu(x @ gates[part].T) * (x @ ups[part].T)
    y = y + hidden @ downs[:, part].T
print("eight slices = the network:",
      torch.allclose(y, network(x), atol=1e-5))

# %% [markdown]
# So a dense layer *is* a mixture of experts, one in which all eight are chosen with weight 1. Nothing about it is new except
# that the sum may stop early.
#
# That also shows what finer cuts buy. Cut each expert into $m$ pieces and choose $m$ times as many: the work is the same, the
# parameters are the same, and the number of teams that can be formed explodes.
#
# > **Exercise 7.2** (teams; easy, 3 minutes). Write `combinations(n_experts, top_k, pieces)`: how many different sets of experts
# > can a token get, when each expert is cut into `pieces` and as many times more are chosen? `math.comb` counts sets.

# %%
def combinations(n_experts, top_k, pieces):
    ...


# %%
check.combinations(combinations)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# import math
#
# def combinations(n_experts, top_k, pieces):
#     return math.comb(n_experts * pieces, top_k * pieces)
# ```
#
# DeepSeekMoE's own example: two of 16 make 120 teams, eight of 64 make 4.4 billion. (Nobody promises that a model uses them.)
#
# </details>
#
# ### Two: one token after another
#
# The whole layer, in the order of (7.1) and (7.2), as slowly as possible. It takes the package's weights, so that we can compare.

# %%
def moe_by_hand(layer, x):
    """One token at a time: (T, D) -> (T, D)."""
    gate, experts, K = layer.gate, layer.experts, layer.gate.config.top_k
    score = (x @ gate.weight.T).sigmoid()                    # (T, E)
    expert = (score + gate.bias).topk(K).indices             # (T, K)
    weight = score.gather(1, expert)
    weight = weight / weight.sum(-1, keepdim=True)           # (T, K)
    rows = []
    for t in range(len(x)):
        y = layer.shared(x[t])
        for e, g in zip(expert[t], weight[t]):
            a, b = (experts.w_gate_up.weight[e] @ x[t]).chunk(2)
            y = y + g * (experts.w_down.weight[e] @ (F.silu(a) * b))
        rows.append(y)
    return torch.stack(rows)


# %% [markdown]
# ### Three: one expert after another
#
# That is well for eight tokens and hopeless for two thousand: each little product reads an expert's matrices for a single row.
# Turn the loops around. For each expert, collect its tokens, multiply them all at once, and add what comes out to the right rows.
# The package's reference, `dispatch_loop`, does the same:

# %%
def loop_by_hand(x, routing, experts):
    """For each expert: gather its tokens, run it, add what it says."""
    y = torch.zeros_like(x)
    for e in range(len(routing.load)):
        token, choice = torch.where(routing.expert == e)
        y = y.index_add(
            0, token, experts.one(x[token], e)
            * routing.weight[token, choice].to(x.dtype).unsqueeze(-1))
    return y


# %% [markdown]
# The third way sorts. Write all (token, choice) pairs into one list and sort it by expert: each expert's rows are then one slice,
# the whole layer is one product with many slices (a *grouped* product), and undoing the sort brings the rows home.

# %% tags=["remove-input"]
show.drawing("dispatch",
             alt="Eight tokens on the left; in the middle sixteen rows sorted by expert into slices of three, three, six and four; on the right the eight tokens again, each the sum of its two rows.",
             caption="The eight tokens again. In the middle each token stands twice, once for each of its experts; a bar is one product.")

# %% [markdown]
# > **Exercise 7.3** (sort them; medium, 15 minutes). Write `rows_by_expert(expert, n_experts)`. `expert` is `(T, K)`. Return two
# > things: a tensor with the *token* of each of the $T K$ rows, sorted by expert and within an expert in the order of the text;
# > and a list with the number of rows of each expert, idle ones included.

# %%
def rows_by_expert(expert, n_experts):
    ...


# %%
check.rows_by_expert(rows_by_expert)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `expert.flatten()` lists the pairs token by token, so pair number $i$ belongs to token $i$ // $K$. `argsort(stable=True)` keeps
# the order among equals, and `torch.bincount(..., minlength=...)` counts.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def rows_by_expert(expert, n_experts):
#     pairs = expert.flatten()
#     order = pairs.argsort(stable=True)
#     counts = torch.bincount(pairs, minlength=n_experts)
#     return order // expert.shape[1], counts.tolist()
# ```
#
# </details>

# %%
def dispatch_by_hand(x, routing, experts):
    """Sort, run slice by slice, put back: (T, D) -> (T, D)."""
    T, K = routing.expert.shape
    order = routing.expert.flatten().argsort(stable=True)    # (T*K)
    rows = x[order // K]                                     # sorted
    weight = routing.weight.flatten()[order]
    y = experts.grouped(rows, routing.load.tolist(), weight)
    back = torch.empty_like(order)
    back[order] = torch.arange(T * K)                        # undo the sort
    return y[back].unflatten(0, (T, K)).sum(1)


# %% [markdown]
# Do all of them agree, and with a stranger? Hugging Face's layer reads DeepSeek's released weights, and knows nothing of ours. We
# give it our model's, run it on random tokens, and catch what enters and leaves its last layer of experts.

# %% tags=["hide-input"]
from minimodels import convert
from minimodels.model import Transformer

torch.manual_seed(0)
model = Transformer(ModelConfig.preset("cpu")).eval()
layer = model.layers[-1].ffn
for parameter in layer.parameters():
    parameter.data.mul_(4)
layer.gate.bias.normal_(std=0.1)
theirs, caught = convert.to_hf(model).eval(), {}
theirs.model.layers[3].mlp.register_forward_hook(
    lambda module, args, out: caught.update(x=args[0], out=out))
with torch.no_grad():
    theirs(torch.randint(0, 4096, (2, 40)))
print("caught:", tuple(caught["x"].shape), "in,", tuple(caught["out"].shape), "out")

# %%
from minimodels.moe import dispatch_sorted

x = caught["x"].flatten(0, 1)                                # (T, D)
with torch.no_grad():
    gated, shared = layer.gate(x), layer.shared(x)
    answers = {"Hugging Face": caught["out"].flatten(0, 1)} | {
        name: shared + dispatch(x, gated, layer.experts)
        for name, dispatch in {"a loop over experts": loop_by_hand,
                               "sorted by hand": dispatch_by_hand,
                               "sorted, package": dispatch_sorted}.items()}
    hand = moe_by_hand(layer, x)
for name, answer in answers.items():
    torch.testing.assert_close(answer, hand, atol=1e-5, rtol=0)
    print(f"token by token = {name}, to 5 decimals")

# %% [markdown]
# Same answer, different time. Take the layer *fine*, 32 experts and 4 a token, and let the ways take turns.

# %% tags=["nbval-ignore-output"]
from minimodels.moe import MoE
from minimodels.timing import interleaved

wide, COUNTS = MoE(MODELS["fine"]).eval(), (4, 16, 64, 256, 1024)
ms = {}
with torch.no_grad():
    for T in COUNTS:
        x = torch.randn(T, 128)
        gated = wide.gate(x)
        ways = {"loop": lambda: loop_by_hand(x, gated, wide.experts),
                "sorted": lambda: dispatch_sorted(x, gated, wide.experts)}
        ms[T] = {name: statistics.median(times)
                 for name, times in interleaved(ways, rounds=5).items()}

# %% tags=["hide-input", "nbval-ignore-output"]
show.show(show.lines({way: (list(COUNTS), [1000 * ms[T][way] / T for T in COUNTS]) for way in ("loop", "sorted")},
                     x="tokens at once", y="microseconds a token", log_x=True, log_y=True, concept={"loop": "dense", "sorted": "moe"},
                     title="A token is cheap only in company"),
          alt="Two falling lines, microseconds a token against tokens at once. From sixteen tokens on the sorted form lies below the loop.",
          caption="This run, on this machine, one thread; medians of five rounds. Forward pass alone.")

# %% tags=["nbval-ignore-output"]
for T in COUNTS:
    print(f"{T:>5} tokens: the loop takes "
          f"{ms[T]['loop'] / ms[T]['sorted']:.1f} times as long")

# %% [markdown]
# With few tokens the loop spends its time starting products for one row or none: two for each of 32 experts. With many, each
# product has enough to do and the two draw near. But look at the height of both lines. A token in a small group costs many times
# what it costs in a crowd. Thirty-two small matrices are less convenient for a processor than one large one, and we will meet
# that bill again.
#
# ### Four: what the gate can learn
#
# "Choose the best four" has no slope. Nudge a score a little, and the same four win: the derivative is zero, until it jumps. So
# how does a gate learn at all? Only through the weights, $g_e$, by which the outputs are multiplied.

# %% tags=["remove-input"]
show.drawing("paths",
             alt="From x three ways lead to the output: through the shared expert, through the chosen expert, and through the gate's score, which divided by the sum becomes the weight. A dashed way from the score over bias and top K decides who is chosen; no gradient comes back on it.",
             caption="Solid: numbers forward, gradients back. Dashed: a choice, and no gradient.")

# %% [markdown]
# > **Before you read on.** With one expert a token and weights that are divided by their sum: which rows of the gate get a
# > gradient?
# >
# > <details><summary>What we found</summary>
# >
# > **None.** $s / s$ is 1, whatever $s$ is. The gate stays as random as it was drawn, forever, and the loss falls all the same.
# >
# > </details>
#
# Let autograd say it. One token, six experts, and the gate of each kind:

# %%
def rows_with_gradient(kind, top_k, is_normalised):
    """How many of six rows of a gate's matrix one token teaches."""
    torch.manual_seed(0)
    w = torch.randn(6, 8, requires_grad=True)
    logit = w @ torch.randn(8)
    score = logit.sigmoid() if kind == "sigmoid" else logit.softmax(-1)
    chosen = score.detach().topk(top_k).indices
    weight = score[chosen]
    if is_normalised:
        weight = weight / weight.sum()
    (weight * torch.randn(top_k)).sum().backward()   # outputs as numbers
    return (w.grad.abs().sum(1) > 1e-6).sum().item()


show.table([{"gate": kind, "experts a token": k,
             "weights as they are": rows_with_gradient(kind, k, False),
             "weights that sum to 1": rows_with_gradient(kind, k, True)}
            for kind in ("sigmoid", "softmax") for k in (1, 2)])

# %% [markdown]
# There is the zero, twice. That is why this chapter's top-1 model does not normalise, and Switch did not either. The 6 is a
# property of softmax: its denominator holds all scores, so even experts that were not chosen hear about it. Divide two of its
# weights by their sum, and the denominator cancels.
#
# An expert learns from the tokens that it gets, and from no others. One that is never chosen never improves, so it is never
# chosen. The biases are there to break that circle; they get no gradient at all. How they move is chapter 8.
#
# > **Exercise 7.4** (who learns; hard, 15 minutes). Write `rows_that_learn(chosen, n_experts, gate, is_normalised)`: a truth value
# > for each expert, whether one token's weights send its row a gradient. `chosen` is a list of experts, `gate` is `"sigmoid"` or
# > `"softmax"`. No autograd: think.

# %%
def rows_that_learn(chosen, n_experts, gate, is_normalised):
    ...


# %%
check.rows_that_learn(rows_that_learn)

# %% [markdown]
# <details><summary>Hint</summary>
#
# With softmax, $g_1 = e^{z_1} / (e^{z_1} + e^{z_2} + \ldots)$. Divide by $g_1 + g_2$ and look at what is left.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def rows_that_learn(chosen, n_experts, gate, is_normalised):
#     if is_normalised and len(chosen) == 1:
#         return [False] * n_experts           # s / s
#     if gate == "softmax" and not is_normalised:
#         return [True] * n_experts            # the denominator
#     return [e in chosen for e in range(n_experts)]
# ```
#
# </details>
#
# ### Five: one for everybody
#
# If every token needs some of the same, thirty-two experts will each learn it. DeepSeekMoE takes it out: a **shared expert** that
# every token passes, without a gate. In their model it became indispensable. Switched off after training, with one more routed
# expert in its place, the loss on the Pile rose from 1.808 to 2.414 (section 4.5). Is it so in ours? The trained checkpoint of
# this book has one shared expert and sixteen others, of which a token gets four.

# %%
changed = routing["bits_per_byte"]
for name, score in changed.items():
    print(f"{name:>24}: {score:.3f} bits per byte "
          f"({score / changed['right'] - 1:+.1%})")

# %% [markdown]
# No. Without the shared expert, and with a fifth routed one instead, ours needs 2.8 percent more bits. Theirs rose by a third. To
# take away each token's *first choice*, and give it one more of the others, costs ours 20 percent. So the routed experts hold
# what is hard to replace, and the shared one, with its 64 hidden numbers, does not. Theirs had two billion parameters and a
# hundred billion tokens to learn what everybody needs; why ours differs we have not tested.
#
# ## How many does a crowd wake?
#
# A token wakes $K$ of $E$. Another token wakes others. If every expert is equally likely, a given expert sleeps through one
# token with probability $1 - K/E$, and through $T$ of them with its $T$-th power, so the experts awake are
#
# $$ E \left(1 - (1 - K/E)^T\right) \tag{7.3}$$
#
# You wrote it in [chapter 1](01_cost.ipynb). It assumes that tokens choose independently. Do they? The trained checkpoint can tell:
# once for tokens from all over the text, as a server decodes them for many users at once, and once for tokens that stand one
# after another, as in a prompt.

# %% tags=["hide-input"]
E, K = full.config.n_experts, full.config.top_k
counts = routing["layers"]["3"]["touched"]
batches = [int(n) for n in counts]
show.show(show.lines({"formula": (batches, [E * (1 - (1 - K / E)**n) for n in batches]),
                      "from everywhere": (batches, [counts[str(n)][0] for n in batches]),
                      "one after another": (batches, [counts[str(n)][1] for n in batches])},
                     x="tokens", y="experts of layer 3 that work, of 16", log_x=True, concept={"from everywhere": "moe", "one after another": "moe"},
                     title="Unrelated tokens wake as many experts as dice would; a text wakes fewer"),
          alt="Three rising curves from 4 to 16. The formula and the tokens from everywhere coincide; tokens one after another stay below, most at eight tokens.",
          caption="Recorded: minimodels study moe-routing; the checkpoint cpu-long, means of 400 draws.")

# %%
show.table([{"tokens": n, "formula": round(E * (1 - (1 - K / E)**n), 2),
             "from everywhere": round(counts[str(n)][0], 2),
             "one after another": round(counts[str(n)][1], 2),
             "V3, formula": round(256 * (1 - (1 - 8 / 256)**n))}
            for n in batches], caption="Layer 3 of ours; and V3's 256.")

# %% [markdown]
# For unrelated tokens the formula holds to about a tenth of an expert, although some experts are more popular than others. A text
# repeats itself, and neighbours share experts: eight tokens in a row wake 11.75 where dice would wake 14.4. Either way, few
# experts of ours sleep through sixteen tokens. V3 has more of them; by the formula 128 unrelated tokens wake 252 of 256 in each
# layer, and a prompt of 128, if it is like ours, somewhat fewer.
#
# So "no more than 37 billion at any moment" is a sentence about *one* token. The machine that serves it must hold all 671, for it
# does not know who comes next. Sparsity saves arithmetic. It does not save memory, and in a crowd it does not even save reading.
#
# ## What do experts specialise in?
#
# In a hospital, says the press, each patient is sent to the right doctor. Let us follow some patients. Below are short texts as
# the checkpoint routes them. Choose an expert, look at what it gets, then change the layer.

# %%
TEXTS = {
    "a function": '''def find(names, wanted):
    """Look for a name in the list, or return None if it is not there."""
    for name in names:
        if name is not None and name == wanted:
            return name
    return None  # not in the list, or for some reason not a name
''',
    "plain English": "If it is not in the list, look for it in the other "
                     "room. A name is not a number, and for some reason "
                     "nobody is there to return it.\n",
    "a class": '''class Counter(dict):
    def add(self, key, n=1):
        self[key] = self.get(key, 0) + n
        return self[key]
'''}
files = tokens.tensor_split((tokens == 0).nonzero().flatten() + 1)
files = [full.tokenizer.decode(f[f != 0].tolist()) for f in files]

# %% tags=["nbval-ignore-output"]
ExpertText.of(full, TEXTS, also=files[:6], layer=1, expert=8,
              source="the three texts and six files of unseen text")

# %% [markdown]
# In layer 1 take expert 8. It gets ` name`, ` names`, ` list`, wherever they stand, in code or in English. Every comma goes to one
# expert, every ` not` to another. This is not a department. It is an alphabetical counter: the word decides.
#
# Then go to layer 3. Here the same word goes different ways. Look at ` not`, ` is`, ` if`, `return` in the code, and in the
# English:

# %% tags=["nbval-ignore-output"]
from minimodels.studies.moe_routing import choices

ids = full.tokenizer.encode(TEXTS["a function"]).ids
chosen = choices(full, torch.tensor([ids]))
rows = {}
for i, token in enumerate(ids):
    word = full.tokenizer.decode([token]).strip()
    if word in ("for", "if", "is", "not", "return", "name"):
        seen = rows.setdefault(word, {1: [], 3: []})
        for layer in (1, 3):
            seen[layer].append(str(chosen[layer][i, 0].item()))
show.table([{"word": word} | {f"layer {n}, in order": " ".join(experts)
                              for n, experts in seen.items()}
            for word, experts_of in rows.items() for seen in [experts_of]])

# %% [markdown]
# In layer 1 a word keeps its expert (`for` at the start of a line is another token than ` for`, which has a space). In layer 3 ` is`,
# ` not`, ` if` and `return` go to expert 9 where they are Python, and to others, mostly to expert 15, where they are English. Two
# more layers of attention have told the gate what the word is doing there. Is there a Python department after all, two floors up?
#
# ### How many bits does it tell?
#
# One text proves nothing. Take 80,640 tokens of validation text and label each in several ways: the token itself; its kind, as
# Python's own `tokenize` sees it (keyword, name, operator, number, string, comment, white space); the file that it comes from, 28
# of them, which is its subject. If you know the label, how much less surprised are you by the expert?
#
# The unit for that is the bit, and the quantity is called **mutual information**. With $p$ for shares of all tokens,
#
# $$ I = \sum_{\text{label},\,e} p_{\text{label},e} \log_2 \frac{p_{\text{label},e}}{p_{\text{label}}\; p_e} \tag{7.4}$$
#
# Zero: the label tells nothing. The most it can be is the uncertainty about the expert, which for sixteen equally busy ones is 4
# bits.
#
# > **Exercise 7.5** (bits told; medium, 10 minutes). Write `bits_told(counts)`. `counts` is a list of rows, a row for each label and
# > a column for each expert: how many tokens had this label and went there. An empty cell adds nothing.

# %%
def bits_told(counts):
    ...


# %%
check.bits_told(bits_told)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# import math
#
# def bits_told(counts):
#     total = sum(map(sum, counts))
#     rows = [sum(row) for row in counts]
#     columns = [sum(column) for column in zip(*counts)]
#     return sum(n / total * math.log2(n * total / (r * c))
#                for row, r in zip(counts, rows)
#                for n, c in zip(row, columns) if n)
# ```
#
# </details>
#
# Two traps lie here. *Chance tells something too*: any two labels of the same text seem related, since both come in runs. So we
# move the labels along the text by a random distance, 199 times, which keeps the runs and breaks the tie, and see what is left.
# And *a label with 4,096 values fits anything*. So in the figure below everything is learnt on one half of the text and tested on
# the other.

# %%
from minimodels.studies.moe_routing import information, labels, rotated

kind, file = labels(tokens, full.tokenizer)         # of whole files
kind = kind[:windows.numel()]
first = choices(full, windows)[3][:, 0]             # layer 3, first choices
real = kind >= 0                                    # not a file's end

# %% tags=["nbval-ignore-output"]
told = information(kind[real], first[real], n_experts=E)
chance = rotated(kind[real], first[real], n_experts=E)
print(f"layer 3: a token's kind tells {told:.2f} bits about its expert")
print(f"moved along the text: {statistics.mean(chance):.2f} in the mean, "
      f"{max(chance):.2f} at most of {len(chance)}")

# %% tags=["hide-input"]
def kinds_of_row(layer, least=500):
    """Share of each kind's tokens by expert, for kinds with enough tokens."""
    from minimodels.kinds import KINDS
    table = {k: n for k, n in zip(KINDS, routing["layers"][str(layer)]["kinds"]) if sum(n) >= least}
    return {k: [x / sum(n) for x in n] for k, n in table.items()}


named = {"the token itself": "token", "the token before": "before", "its kind": "kind", "its group of embeddings": "group", "code or English": "English?",
         "its file": "file"}
show.show(show.bars({f"{label}, layer {n}": 100 * routing["layers"][n]["told"][label] / routing["layers"][n]["uncertainty"]
                     for label in named for n in ("1", "3")}, unit="of the uncertainty about the first expert, %",
                    concept={f"{label}, layer {n}": "moe" if n == "3" else "dense" for label in named for n in ("1", "3")},
                    title="The word decides, and later its role; the subject of the file hardly matters"),
          alt="Bars for six labels in layers 1 and 3. The token itself 74 and 56 percent, the token before 36 and 25, its kind 20 and 26, its group of embeddings 19 and 15, code or English 4 and 12, its file 3 and 4.",
          caption="Recorded: minimodels study moe-routing; checkpoint cpu-long, 80,640 tokens, learnt on one half and tested on the other.")

# %%
show.table([{"what you know": label}
            | {f"layer {n}, bits": f"{each['told'][label]:.2f}"
               for n, each in routing["layers"].items()}
            for label in routing["layers"]["1"]["told"]]
           + [{"what you know": "(most: uncertainty)"}
              | {f"layer {n}, bits": f"{each['uncertainty']:.2f}"
                 for n, each in routing["layers"].items()}])

# %% [markdown]
# Read it from the bottom. The file, the nearest thing to a subject that we have, tells about 0.1 bits of nearly 4: three or four
# percent. This is what is left of the hospital. The *kind* tells 0.8 bits in layer 1. That sounds like grammar, but eight groups of
# similar embeddings, which know no grammar and no context, tell as much. It is the words that are sorted, and words of a kind are alike.
#
# In layer 3 the picture has moved. The token tells less than before, the kind tells more, 0.99 bits against 0.59 for the groups, and
# "is it code or English?" has risen from 0.16 to 0.47. Here the gate uses what attention has found out: not what the word is, but
# what it does here. And the kind is far above chance in every layer: of 199 shifted texts none reached 0.12 bits.
#
# ### Dismiss the specialist
#
# Expert 9 of layer 3 is first choice for three quarters of all keywords. If it is their specialist, what happens without it? We
# forbid it (a bias of −100), so that the next best steps in, and look at the loss by the kind of token that was just read.

# %% tags=["hide-input"]
damage = routing["damage"]
first_of = kinds_of_row(3)
kinds_seen = [k for k in damage["9"] if k != "all" and k in first_of]
fig = (show.bars({f"after {k}": damage["9"][k] for k in kinds_seen} | {"all tokens": damage["9"]["all"]}, unit="loss, nats a token more",
                    concept={f"after {k}": "moe" for k in kinds_seen} | {"all tokens": "dense"},
                    title="Without their favourite expert, keywords and operators suffer, and most others hardly notice"))
fig.update_layout(xaxis={"range": [-0.03, 0.18]})
show.show(fig, alt="Bars of the rise in loss by kind of the token read: highest for keywords and operators, near nothing for others and for all tokens together.",
          caption="Recorded: minimodels study moe-routing; layer 3, expert 9 forbidden; 128 windows of unseen text.")

# %%
from minimodels.kinds import KINDS

rows = []
for expert in range(E):
    got = {k: first_of[k][expert] for k in kinds_seen}
    lost = damage[str(expert)]
    best = max(got, key=got.get)
    rows.append({"expert": expert, "favoured by": best,
                 "of them, first": f"{got[best]:.0%}",
                 "their loss without it": f"{lost[best]:+.3f}",
                 "all tokens'": f"{lost['all']:+.3f}"})
show.table(rows, caption="Layer 3. Loss in nats a token.")

# %% [markdown]
# After a keyword the loss rises by 0.155 nats, after an operator by 0.099 (45 percent of the operators had this expert first), and
# by 0.017 over all tokens. So the division of labour is real: the damage lands where the tokens came from. And it is bounded, because
# a token has three other experts, the next best takes the place, and attention and the shared expert go on as before. No expert has
# an answer to itself. (Expert 8 is a curiosity: without it, numbers are predicted *better*, on this text.)
#
# ## Does it learn better?
#
# First a taste, live: the model *fine*, 60 steps on a third of the standard library, watched by your own measure. Now and
# then we ask how many bits a token's kind tells about its expert in the last layer.

# %%
from minimodels.data import Batches
from minimodels.evaluate import evaluate
from minimodels.train import train

data = prepare("stdlib", vocab_size=4096, max_bytes=LIVE_BYTES)
batches = Batches(data.train, batch_size=LIVE.batch_size,
                  seq_len=LIVE.seq_len, seed=0)
unseen = torch.tensor(data.valid[:].astype("int64"))
n = len(unseen) // 256 * 256
page_kind, page = (each[:n].view(-1, 256)[::15] for each in
                   (labels(unseen, data.tokenizer)[0], unseen))
is_text = page_kind.flatten() >= 0

# %% tags=["nbval-ignore-output"]
torch.manual_seed(0)
model = Transformer(MODELS["fine"])
live = show.Live(
    alt="Bits that a token's kind tells about its expert: some at once, "
        "then fewer, then more.",
    caption="This run: 60 steps, layer 3, 32 experts; eleven windows.")
steps, known = [], []
for record in train(model, batches, LIVE):
    if record.step == 1 or record.step % 15 == 0:
        e = choices(model, page)[3][:, 0]
        steps.append(record.step)
        known.append(information(page_kind.flatten()[is_text], e[is_text],
                                 n_experts=32))
        live.draw(show.lines(
            {"moe": (steps, known)}, x="step", y="bits about the expert",
            title="A new gate sorts by accident, then it learns to sort"))

# %% tags=["nbval-ignore-output"]
score = evaluate(model, data.valid, n_bytes=data.valid_bytes,
                 seq_len=LIVE.seq_len)
print(lab.band("moe", "fine after 60 steps", score.bits_per_byte))
dense_live = [t["bits_per_byte"] for t in recorded("mla-live")["trials"]
              if t["arm"] == "mha"]
print(f"the dense model after as many steps: {min(dense_live):.3f} to "
      f"{max(dense_live):.3f} (recorded, six seeds)")

# %% [markdown]
# Surprised that the curve does not begin at zero? A gate drawn at random sends equal tokens to equal experts, and each kind has its
# frequent tokens. Training first upsets that order, and then builds one of its own. After sixty steps the model is still *behind*
# the dense one: each expert has seen an eighth of the text. Patience is the price of entry. So train ten times as long, on the whole standard library. First each model
# looks for its own learning rate, with one seed:

# %% tags=["hide-input"]
RATES = (0.005, 0.01, 0.02, 0.04)
rates = {t["arm"]: t["bits_per_byte"] for t in recorded("moe-rates")["trials"]}
rates |= {t["arm"].replace("mha", "dense"): t["bits_per_byte"] for t in recorded("mla-rates")["trials"] if t["arm"].startswith("mha")}
show.show(show.lines({name: (list(RATES), [rates[f"{name} {rate:g}"] for rate in RATES]) for name in MODELS},
                     x="Muon's rate", y="bits per byte of unseen text", log_x=True, concept={name: "dense" if name == "dense" else "moe" for name in MODELS},
                     title="With a rate of its own, each split but top-1 beats the dense network"),
          alt="Five curves over four learning rates, each with its lowest point at 0.01 or 0.02. Fine lies lowest there, then top-2 and fine with a shared expert, then dense and top-1.",
          caption="Recorded: minimodels studies moe-rates and mla-rates; seed 0, 600 steps.")

# %%
best = {name: min(RATES, key=lambda rate: rates[f"{name} {rate:g}"])
        for name in MODELS}
low = rates[f"dense {best['dense']:g}"]
show.table([{"model": name, "best rate": rate,
             "bits per byte": f"{rates[f'{name} {rate:g}']:.3f}",
             "beside dense": f"{rates[f'{name} {rate:g}'] / low - 1:+.1%}"}
            for name, rate in best.items()])

# %% [markdown]
# With this one seed two experts beat one, four small ones beat two, one expert does not beat the dense network at all, and the shared
# one does not help. Five other seeds keep the first and the third of these, and reverse the other two: in the mean *fine* falls behind
# top-2, and fine + shared is best of all.
#
# <!-- figure pending: study moe-quality -->
#
# ## What the papers measured
#
# DeepSeekMoE's Table 1 compares a dense model and four mixtures of two billion parameters, with 0.2 to 0.3 billion of them at work,
# after a hundred billion tokens ([DeepSeekMoE](../book/references.md#deepseekmoe)):
#
# | Model | experts for a token | loss on the Pile |
# |---|---|---|
# | dense | | 2.060 |
# | Hash | 1, by the token's number | 1.932 |
# | Switch | 1 | 1.881 |
# | GShard | 2 | 1.867 |
# | DeepSeekMoE | 7 of 63 small ones, and 1 shared | 1.808 |
#
# (The last two let two feed-forward networks' worth of experts work on a token, the others one. Ours are all equal.) Look at the
# second row. *Hash* has no gate: which expert a token gets depends on the token's number alone. It takes most of the way
# from dense to Switch, with no choice learnt. You have seen why that is not absurd: in our first layer of experts the learnt gate
# decides mostly by the word, too.
#
# And look at their upper bound. A dense network with all sixteen times the parameters at work reaches 1.806 (Table 2). DeepSeekMoE,
# with 1.808, loses next to nothing of that and computes a small part. This is the strongest single number for the idea. It is its
# authors' own.
#
# ## Bugs that still train
#
# > **Bugs that still train.**
# > - **The bias folded into the weight.** $g_e = s_e + b_e$. The balancer now changes what experts *say*, not only who speaks.
# > - **Softmax for sigmoid.** V2's gate with V3's balancing. Softmax scores of 32 experts are around 0.03, so a bias that moves by
# >   0.01 a step soon decides alone.
# > - **Weights not normalised.** They sum to anything between 0 and $K$, and the layer's output swings with them.
# > - **A dead expert.** The choice stops one short of the end. One expert in 32 never works; the model is only a little smaller.
# > - **Dropped tokens.** Each expert takes its fair share of a batch and no more. Who comes late is skipped, so an answer depends on
# >   who else was in the batch.
#
# <!-- figure pending: study moe-bugs -->
#
# No curve will tell you. Three short tests do. Each gets layers, some right and some spoilt, and says `True` for a right one.
# `layer(h)` returns a pair: the output, and the routing with its `load`. The biases are `layer.gate.bias`.
#
# > **Exercise 7.6** (symmetry; medium, 10 minutes). If all biases grow by the same amount, the same experts win. Write
# > `bias_only_chooses(layer, h)`: does the output stay the same, to 1e-5?

# %%
def bias_only_chooses(layer, h):
    ...


# %%
check.bias_only_chooses(bias_only_chooses)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def bias_only_chooses(layer, h):
#     y = layer(h)[0]
#     layer.gate.bias += 1
#     return torch.allclose(layer(h)[0], y, atol=1e-5)
# ```
#
# </details>
#
# > **Exercise 7.7** (company; medium, 10 minutes). A sequence must get alone what it gets beside others. Write
# > `company_does_not_matter(layer, h)`. `h` is `(B, T, D)`.

# %%
def company_does_not_matter(layer, h):
    ...


# %%
check.company_does_not_matter(company_does_not_matter)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def company_does_not_matter(layer, h):
#     alone = torch.cat([layer(one[None])[0] for one in h])
#     return torch.allclose(layer(h)[0], alone, atol=1e-5)
# ```
#
# </details>
#
# > **Exercise 7.8** (nobody is dead; easy, 10 minutes). Give one expert a bias of 100 and the others 0, and it must get every token.
# > Write `everyone_can_be_chosen(layer, h)`, which tries it with each expert.

# %%
def everyone_can_be_chosen(layer, h):
    ...


# %%
check.everyone_can_be_chosen(everyone_can_be_chosen)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def everyone_can_be_chosen(layer, h):
#     n_tokens = h.shape[0] * h.shape[1]
#     for e in range(len(layer.gate.bias)):
#         layer.gate.bias.zero_()
#         layer.gate.bias[e] = 100
#         if layer(h)[1].load[e] != n_tokens:
#             return False
#     return True
# ```
#
# </details>
#
# ## What it costs here
#
# The five models do the same arithmetic for a token. Do they take the same time? Forward and backward alone, and a whole step of
# training with its optimizer, in turns:

# %% tags=["nbval-ignore-output"]
import time

from minimodels.studies.cost import forward_backward, whole_step

parts = {"forward, backward": forward_backward, "whole step": whole_step}
timed = interleaved({f"{name}, {part}": make(MODELS[name])
                     for name in ("dense", "fine")
                     for part, make in parts.items()},
                    rounds=3, clock=time.thread_time)
for part in parts:
    ratio = [b / a for a, b in zip(timed[f"dense, {part}"],
                                   timed[f"fine, {part}"])]
    print(f"{part}: fine takes {statistics.median(ratio):.2f} times "
          f"as long ({min(ratio):.2f} to {max(ratio):.2f})")

# %%
show.table([{"model": name, "megabytes": 4 * c.n_params / 1e6,
             "of them at work on a token": 4 * c.n_active_params / 1e6}
            for name, c in MODELS.items()])

# %% [markdown]
# On one core of an AMD EPYC a whole step takes about 1.6 times as long, for the same arithmetic. Gathering, sorting and small
# products take the smaller part of that. The larger is the optimizer's: it has three times as many parameters to move, whether
# they rest or not. So in the time that *fine* needs for 600 steps, the dense model does nearly 1,000. And the memory is three
# times as large.
#
# ## Does it pay here?
#
# > **Does it pay here?** **A little per token. Not per byte of memory, and not per second.**
# >
# > - **At equal tokens and equal arithmetic:** over five recorded seeds (`minimodels study moe-quality`) fine + shared needs 1.2
# >   percent fewer bits than the dense network, top-2 1.1 and *fine* 0.9, each with every seed; top-1 gains nothing.
# > - **At equal wall clock:** experts lose. A step takes about 1.6 times as long on our processor, and with 1,000 steps in the time of
# >   their 600 the dense model reaches 1.51 to 1.53 (three recorded seeds, `minimodels study moe-seconds`) beside their 1.62.
# > - **Per byte of memory:** three times the parameters, held by every machine and in every optimizer, for one or two percent.
# > - **At DeepSeek's scale:** a loss of 1.808 against 2.060, in their Table 1. There, memory is spread over many machines, and
# >   arithmetic is what runs out. Ours can neither confirm nor refute it.
# <!-- figure pending: studies moe-quality, moe-seconds, moe-wide, moe-longer -->
#
# ## The claims again
#
# Three about what works at a time. All of them are about one token, and none of them says so:

# %% tags=["remove-input"]
ledger.show("C53", "C54", "C59", form="rows")

# %% [markdown]
# Three that compare with other models:

# %% tags=["remove-input"]
ledger.show("C55", "C56", "C58", form="rows")

# %% [markdown]
# And the hospital:

# %% tags=["remove-input"]
ledger.show("C57")

# %% [markdown]
# ## What production does
#
# - **Experts live apart.** In V3's decoding each of 320 GPUs holds about one routed expert of a layer, and a token travels to eight of
#   them and back, 58 times ([DeepSeek-V3](../book/references.md#deepseek-v3), section 3.4). What you timed as sorting is traffic there.
# - **Limits.** A token may use experts of at most four nodes, so that it travels to no more. [Chapter 8](../book/glossary.md#node-limit)
#   counts what that saves.
# - **Nothing is dropped.** V2 dropped tokens of overfull devices in training; V3 drops none, in training or in use (section 2.1.2).
# - **Popular experts are copied.** A balancer duplicates those with the highest load ([EPLB](../book/references.md#eplb)).
# - **Grouped products.** [DeepGEMM](../book/references.md#deepgemm) multiplies the slices of all experts in one kernel, in FP8.

# %% [markdown]
# > **Takeaways**
# > 1. An expert is a slice of a feed-forward network that is used or left alone as a whole; a dense layer is the mixture that leaves
# >    nothing alone.
# > 2. A gate chooses by score plus bias and weighs by score. It learns through the weights alone: where a weight is always 1, it learns
# >    nothing.
# > 3. $K$ of $E$ is about one token. A crowd wakes nearly everybody, so all parameters lie in memory.
# > 4. Early experts sort words; later ones sort what words do. The subject of the text tells a few percent of the choice. Nobody is a
# >    doctor.
# > 5. For the same arithmetic, experts saved one or two percent of the bits and took about 1.6 times as long.
#
# ## Longer problems
#
# > **Exercise 7.9** (no gate at all; medium, 45 minutes). DeepSeekMoE's *Hash* row sends each token to an expert by its number. Build it:
# > a subclass of `Gate` whose `choose` ignores the scores, planted with `minimodels.bugs.plant`. (What does it need that `choose` is not
# > told?) Train it and *fine* for 60 steps as above, and compare.
#
# <details><summary>Hint</summary>
#
# `choose` sees scores, not tokens. A hook before the model's forward pass can leave the tokens' numbers where the gate finds them. Four
# different experts for a token: take `token % 8`, and add 0, 8, 16, 24.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# from minimodels.bugs import plant
# from minimodels.moe import Gate
#
# class Hashed(Gate):
#     ids = None
#     def choose(self, biased):
#         start = (Hashed.ids.flatten() % 8)[:, None]
#         return start + torch.tensor([0, 8, 16, 24])
#
# def run(is_hashed, seed):
#     torch.manual_seed(seed)
#     m = Transformer(MODELS["fine"])
#     if is_hashed:
#         plant(m, Hashed)
#         m.register_forward_pre_hook(
#             lambda module, args: setattr(Hashed, "ids", args[0]))
#     b = Batches(data.train, batch_size=8, seq_len=256, seed=seed)
#     list(train(m, b, LIVE))
#     return evaluate(m, data.valid, n_bytes=data.valid_bytes,
#                     seq_len=256).bits_per_byte
#
# for seed in (1, 2, 3):
#     print(seed, run(False, seed), run(True, seed))
# ```
#
# <!-- figure pending: study moe-hash -->
# Watch two things: how far the hashed model is behind, and that its balance is as good or bad as the frequencies of words.
#
# </details>
#
# > **Exercise 7.10** (V3's memory; easy, 15 minutes). A layer of V3 has 256 routed experts of 44.04 million parameters, a byte each. A
# > GPU reads 3.35 TB a second. How long does it take to read the experts that *one* token needs, in all 58 layers, and those that 128
# > unrelated tokens need? What does that make a token?
#
# <details><summary>Solution</summary>
#
# ```python
# expert, layers, speed = 44.04e6, 58, 3.35e12
# for n in (1, 128):
#     awake = 256 * (1 - (1 - 8 / 256)**n)
#     seconds = awake * expert * layers / speed
#     print(n, awake, 1000 * seconds, 1000 * seconds / n)
# ```
#
# 6.1 ms for one token, 192 ms for 128 of them, which is 1.5 ms a token. (One GPU could not hold them; the sum is what counts.) Sixteen
# times 128 tokens would wake hardly anybody new, and cost a tenth of a millisecond each: sparse models want crowds even more than
# dense ones.
#
# </details>
#
# > **Exercise 7.11** (how much did the gate know?; hard, 1 hour). In the first section you kept, for each token, the hidden numbers that
# > counted most, *after* computing them all. Cut the trained yardstick's first layer into eight slices of 40 instead, and measure three
# > choices of two slices a token: the two that count most; two at random; and the two that a linear gate predicts, fitted by least
# > squares from the hidden state to the slices' importance on other text. How much of the way from random to best does the gate go?
#
# <details><summary>Hint</summary>
#
# A forward pre-hook on `dense.layers[0].ffn` sees $x$, one on its `w_down` sees the hidden numbers. `torch.linalg.lstsq` fits.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# ffn = dense.layers[0].ffn
# column = ffn.w_down.weight.norm(dim=0)
# seen = {}
# ffn.register_forward_pre_hook(lambda m, a: seen.update(x=a[0]))
#
# def slices(hidden):
#     return (hidden.abs() * column).unflatten(-1, (8, 40)).sum(-1)
#
# def cut(pick):
#     def hook(m, args):
#         chosen = pick(args[0]).topk(2, dim=-1).indices
#         keep = torch.zeros(*args[0].shape[:-1], 8).scatter(-1, chosen, 1.0)
#         return (args[0] * keep.repeat_interleave(40, -1),)
#     return ffn.w_down.register_forward_pre_hook(hook)
#
# caught = []
# with torch.no_grad():
#     h = ffn.w_down.register_forward_pre_hook(
#         lambda m, a: caught.append((seen["x"], slices(a[0]))))
#     dense(windows[24:56])
#     h.remove()
# x, wanted = (torch.cat(part).flatten(0, 1) for part in zip(*caught))
# gate = torch.linalg.lstsq(x, wanted).solution        # (D, 8)
#
# print("all", bits(dense, windows[:24], n_bytes))
# for name, pick in {"best": slices, "random": lambda h: torch.rand(*h.shape[:-1], 8),
#                    "gate": lambda h: seen["x"] @ gate}.items():
#     h = cut(pick)
#     print(name, bits(dense, windows[:24], n_bytes))
#     h.remove()
# ```
#
# Ours: 1.43 bits per byte with all eight slices, 1.70 with the two best, 2.52 with two at random, and 1.90 with the gate's two, which
# are the best two for about half of the tokens. A linear guess, made beforehand, goes three quarters of the way. (And 1.70 is far
# above 1.43: these slices were never meant to work alone. Models that are trained in pieces learn to put into a piece what belongs
# together.)
#
# </details>
#
# > **Next: [Balance](08_balance.ipynb).** Every gate here came with a bias that moved it. Take it away, and watch what happens.
