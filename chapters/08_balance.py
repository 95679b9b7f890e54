# ---
# jupyter:
#   book:
#     number: 8
#     reading: 75 min
#     cpu: 30 s, 1.1 GB
#     needs: "[Experts](07_moe.ipynb): the gate, its affinities, and K experts a token"
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: book
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # No expert left idle
#
# [Open in Colab](https://colab.research.google.com/github/minimodels/small-models-big-claims/blob/main/chapters/08_balance.ipynb)
#
# > *The busiest expert sets the pace.*
#
# > **You will be able to**
# > - say how uneven a load is, and what that costs in time on several devices;
# > - watch a gate send nearly everything to a favourite, and say where it comes from;
# > - write both remedies, a second loss and a bias, and tell what each of them moves;
# > - tell an even batch from even sequences, and measure which of the two lets experts differ;
# > - count the nodes that a token visits;
# > - write tests for balancing bugs that no loss curve shows.
#
# ## What you need, in two paragraphs
#
# A layer of a **mixture of experts** ([chapter 7](07_moe.ipynb)) holds $E$ small networks, and each token passes $K$ of them. The
# [gate](../book/glossary.md#gate) chooses. It has a vector $w_i$ for each expert; for a token with hidden state $x$ it computes an
# *affinity* $s_i = \sigma(w_i \cdot x)$, between 0 and 1, and takes the $K$ largest. The outputs of the chosen experts are added up
# with weights: their affinities, divided by their sum.
#
# The choice itself has no derivative. A [gradient](../book/glossary.md#gradient) reaches the gate through the weights of the
# experts that *were* chosen, and through no others. An expert that gets no token learns nothing, and nobody hears of it. How
# many tokens an expert gets is its [load](../book/glossary.md#load).

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
from minimodels import exercises, lab, show
from minimodels.balance import max_violation, update_bias
from minimodels.explorables import Router
from minimodels.moe import Gate
from minimodels.studies import recorded

check = exercises.load("balance")
print(lab.tier())

# %% [markdown]
# ## The pain
#
# **8 times its share**
#
# > **Margin.** Recorded: `minimodels study balance-sweep`, the run without balancing, first layer with experts, on all validation
# > text. One seed; with five others 6.5 to 8.9 times.
#
# That is what the busiest of 31 experts got, in a model that was trained for 600 steps with nothing to keep it even. The model
# is the last of chapter 7: the [yardstick](04_model.ipynb) with 31 small experts and a shared one in each layer but the first,
# three of the 31 for each token.

# %%
sweep = {t["arm"]: t for t in recorded("balance-sweep")["trials"]}
load = torch.tensor(sweep["none"]["load"][0])
mean = load.sum() / 31
print(f"{load.sum() // 3:,} tokens, {mean:,.0f} choices an expert")
print(f"the busiest: {load.max():,}, {load.max() / mean:.1f} times the mean,",
      f"{load.max() / (load.sum() / 3):.0%} of all tokens")
print("experts with less than a tenth of the mean:",
      (load < mean / 10).sum().item(), "of 31")

# %% [markdown]
# Most of these experts were bought, stored and hardly used: [collapse](../book/glossary.md#collapse). And it is worse than waste.
# In a large model the experts of a layer lie on different GPUs. A step ends when the *last* of them is done, and so the GPU with the
# favourite sets the pace for all.
#
# Collapse costs time. Does it cost bits, too? And does the cure?
#
# ## What the press said
#
# Nothing: no claim in our [ledger](../book/ledger.md) is about balance. But V3's own paper makes one: experts differ more clearly
# *without an auxiliary loss* ([DeepSeek-V3](../book/references.md#deepseek-v3), Figure 9 and Appendix C). So a means to keep experts
# busy would decide what they become. That can be tested, and we will.
#
# > **Before you read on.** A small model with sixteen experts a layer, two for each token, random weights, and nothing to
# > balance them. When is one expert busiest: at the start, after some twenty steps, or at the end?
# >
# > <details><summary>What we found</summary>
# >
# > **After 30 to 50 steps.** The load begins nearly even. Then one expert rushes to between 6.4 and 7.9 times its share (six
# > recorded seeds, every tenth step, the worse of two layers), where 8 times is all that there is. Later training takes a part of
# > that back.
# >
# > </details>
#
# ## How uneven is it?
#
# Twelve tokens, four experts, one for each token. The loads are 8, 2, 1 and 1, with a mean of 3. The busiest has 5 more than the
# mean, or $5/3$ of it. This is [MaxVio](../book/glossary.md#maxvio), the *maximal violation*
# ([Loss-free](../book/references.md#loss-free), section 4.1):
#
# $$ \mathrm{MaxVio} = \frac{\max_i c_i - \bar c}{\bar c} \tag{8.1}$$
#
# | Symbol | Meaning | here | Shape |
# |---|---|---|---|
# | $E$, $K$ | experts, and how many a token gets | 31 and 3; live 16 and 2 | |
# | $T$ | tokens that are counted together | | |
# | $c$, `load` | tokens that each expert got | | `(E,)` |
# | $\bar c$ | their mean, $T K / E$ | | |
# | $s$, `score` | affinities, each in (0, 1) | | `(T, E)` |
# | `expert` | the chosen ones | | `(T, K)` |
# | $f$, $P$ | an expert's load over the mean, and its mean share of the affinities | | `(E,)` |
# | $b$, `bias` | what is added to $s$ to choose | | `(E,)` |
# | $\alpha$, $\gamma$ | weight of a loss, speed of the bias | 0.001 to 0.1 | |
#
# > **Margin.** The most possible: 7 for our live model, 9.33 for the recorded one, 31 for a layer of DeepSeek-V3.
#
# Even loads have MaxVio 0. An expert that is chosen by *all* tokens has $T$ of them, $E/K$ times the mean: MaxVio is $E/K - 1$, and
# no more is possible. It matters what is counted together, a batch, a sequence or all of a text; we say which each time. (Words and
# drawings count layers and experts from 1, code from 0.)
#
# > **Exercise 8.1** (MaxVio; easy, 5 minutes). Write `violation(load)` for a list of numbers.

# %%
def violation(load):
    ...


# %%
check.violation(violation)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def violation(load):
#     mean = sum(load) / len(load)
#     return (max(load) - mean) / mean
# ```
#
# </details>
#
# Why the maximum, and not an average? Because of who waits for whom:

# %% tags=["remove-input"]
show.drawing("waits",
             alt="Four devices with one expert each: with loads 8, 2, 1 and 1 three devices wait for the first until 8; with loads of 3 each the step ends after 3.",
             caption="Twelve tokens on four devices. A bar is work, a dashed outline is waiting.")

# %% [markdown]
# With one expert on each device a step takes $1 + \mathrm{MaxVio}$ times as long as it need. If devices hold several, a busy one may
# have idle neighbours, and some of it evens out.
#
# > **Exercise 8.2** (who waits; medium, 10 minutes). Write `slowdown(load, n_devices)`: how many times as long does a step take
# > as it would with even loads? The experts lie in order, $E / n$ on each of $n$ devices, and time is the number of tokens.

# %%
def slowdown(load, n_devices):
    ...


# %%
check.slowdown(slowdown)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def slowdown(load, n_devices):
#     each = len(load) // n_devices
#     work = [sum(load[i * each:(i + 1) * each]) for i in range(n_devices)]
#     return max(work) / (sum(work) / n_devices)
# ```
#
# </details>
#
# Recorded loads of two models, one with this chapter's second remedy:

# %%
def waiting(load, n):
    """Time of a layer on n devices, over that with even loads."""
    parts = torch.tensor(load).tensor_split(n)
    most = max(len(part) for part in parts)          # 31 is a prime
    return max(part.sum() for part in parts) / (most * sum(load) / len(load))


devices = [1, 2, 4, 8, 16, 31]
times = {arm: [max(waiting(layer, n).item() for layer in sweep[arm]["load"])
               for n in devices] for arm in ("none", "bias 0.01")}


# %% tags=["hide-input"]
fig = show.lines({"not balanced": (devices, times["none"]), "with a bias": (devices, times["bias 0.01"])},
                 concept={"not balanced": "dense", "with a bias": "moe"}, log_x=True,
                 x="devices that share a layer's 31 experts", y="time, over that of even loads",
                 title="The more devices share the experts, the more an uneven load costs")
fig.update_xaxes(tickvals=devices)
show.show(fig, alt="Two lines from 1 on one device. The one without balancing rises to nearly eight with 31 devices, the one with a bias stays below two.",
          caption="Computed from recorded loads on all validation text (minimodels study balance-sweep), worst of three layers, "
                  "as if time were the number of tokens. No devices were used.")

# %% [markdown]
# On one device nobody waits. On 31, seven eighths of what the devices cost together would be spent on waiting.
#
# ## Watch it collapse
#
# Now a live model: half a million parameters, two layers, sixteen experts and a shared one in both, two for each token. We keep
# MaxVio, and now and then what each gate reads.

# %%
from minimodels.data import Batches, prepare
from minimodels.evaluate import evaluate
from minimodels.model import Transformer
from minimodels.studies.balance import LIVE, LIVE_BYTES, LIVE_MODEL
from minimodels.train import train

data = prepare("stdlib", vocab_size=4096, max_bytes=LIVE_BYTES)
batches = Batches(data.train, batch_size=LIVE.batch_size,
                  seq_len=LIVE.seq_len, seed=0)
fresh = batches.at(500)                    # a batch that is not trained on

# %%
def read_by_gates(model, tokens):
    """Of each layer what its gate reads, (T, D), and the gate's weights."""
    seen = []

    def keep(gate, args):                  # called with what the gate gets
        seen.append((args[0], gate.weight.detach().clone()))

    hooks = [gate.register_forward_pre_hook(keep) for gate in model.gates]
    with torch.no_grad():
        model(tokens)
    for hook in hooks:
        hook.remove()
    return seen


# %%
def watch(balance, gates_learn=True, until=LIVE.steps):
    """Train the live model. Each step's MaxVio; what gates read, by step."""
    torch.manual_seed(0)
    model = Transformer(LIVE_MODEL)
    for gate in model.gates:
        gate.weight.requires_grad_(gates_learn)
    uneven, seen = [], {0: read_by_gates(model, fresh)}
    config = replace(LIVE, balance=balance)
    for record in train(model, batches, config):
        uneven.append([max_violation(torch.tensor(n)) for n in record.load])
        if record.step == 1 or record.step % 5 == 0:
            seen[record.step] = read_by_gates(model, fresh)
        if record.step == until:
            break
    return model, uneven, seen


# %% tags=["nbval-ignore-output"]
models, traces = {}, {}
models["none"], traces["none"], seen = watch("none")
for step in (1, 20, 40, 80, 120):
    layers = [f"{v:.1f}" for v in traces["none"][step - 1]]
    print(f"step {step:3}: MaxVio {layers[0]} and {layers[1]}")

# %% tags=["hide-input", "nbval-ignore-output"]
steps = list(range(1, LIVE.steps + 1))
show.show(show.lines({f"layer {i + 1}": (steps, [v[i] for v in traces["none"]]) for i in (0, 1)}
                     | {"most possible": (steps, [16 / 2 - 1] * len(steps))},
                     concept={"layer 1": "moe", "layer 2": "moe"}, x="step", y="MaxVio of the batch",
                     title="Within forty steps nearly every token goes to one favourite, and nobody asked for it"),
          alt="Two curves that start below one, rise steeply to between five and seven within forty steps, and then sink to about three by step 120.",
          caption="This run, on this machine: no balancing. At 7 one expert would be among the two of every token.")

# %% [markdown]
# Where does the favourite come from? The usual answer is *the rich get richer*: who is chosen learns, gets better, and is chosen
# again. But getting better takes time. Look at what the gates read, and how soon it changes. Take the mean of all hidden states $x$;
# what share is its squared length of the mean squared length of an $x$?

# %% tags=["hide-input", "nbval-ignore-output"]
def shared(x):
    """Squared length of the mean vector, % of the mean squared length."""
    return 100 * (x.mean(0).norm()**2 / (x**2).sum(-1).mean()).item()


show.show(show.lines({f"layer {i + 1}": (list(seen), [shared(each[i][0]) for each in seen.values()]) for i in (0, 1)},
                     concept={"layer 1": "moe", "layer 2": "moe"}, x="step", y="squared length that all tokens share, %",
                     title="At first, learning makes all tokens alike; only then does it tell them apart"),
          alt="Two curves from two or three per cent. Both jump at the first step; layer two rises to about half within twenty steps, layer one to about a fifth, and both then fall slowly.",
          caption="This run: what the gates read of one batch that was not trained on; mean vector's squared length over the mean squared length.")

# %% [markdown]
# Before training, tokens have almost nothing in common: two or three per cent. After *one* step it is many times that. A model
# first learns what helps everywhere, probably which tokens are frequent. It writes that into every position, and for a while half of
# what the second gate reads is the same for all tokens.
#
# What does a gate make of that? Split $x$ into the mean $m$ and the rest: $w_i \cdot x = w_i \cdot m + w_i \cdot (x - m)$. The
# first part does not depend on the token. **It is a head start for some experts, given to all tokens alike.** Say expert A gets 0.5
# from $m$ and expert B $-0.3$, and a token likes B more by 0.6. That makes 0.5 for A and $-0.3 + 0.6 = 0.3$ for B: the token goes to
# A. How large are the head starts of our run, and how even would the load be without them?

# %%
def head_start(x, w):
    """What w (E, D) makes of the mean of x (T, D), and of the rest."""
    m = x.mean(0)

    def uneven(x):
        chosen = (x @ w.T).topk(LIVE_MODEL.top_k).indices        # (T, K)
        load = torch.bincount(chosen.flatten(), minlength=len(w))
        return f"{max_violation(load):.1f}"

    return {"shared": f"{shared(x):.0f} %",
            "head starts": f"{(w @ m).std():.2f}",
            "tokens": f"{((x - m) @ w.T).std(0).mean():.2f}",
            "MaxVio": uneven(x), "without m": uneven(x - m)}


# %% tags=["nbval-ignore-output"]
show.table([{"step": str(step), "layer": str(layer)} | head_start(x, w)
            for step in (0, 1, 30)
            for layer, (x, w) in enumerate(seen[step], start=1)],
           caption="Spread over experts of the head starts, and over "
                   "tokens of what each adds: standard deviations.")

# %% [markdown]
# After a single step MaxVio is 2 to 3, and without $m$ it would be below 1: so quickly nobody gets rich. At step 30 the second layer's
# head starts spread by 0.53, and what tells its tokens apart by 0.29. Take $m$ away, and MaxVio falls from 6.8 to 1.9; in the first
# layer, where tokens share less, from 5.7 to 3.1.
#
# But a head start does not grow by itself. Train for 30 steps once more, with the gates frozen at their random weights:

# %% tags=["nbval-ignore-output"]
_, _, frozen = watch("none", gates_learn=False, until=30)
show.table([{"step 30": f"layer {layer}, gate {name}"} | head_start(x, w)
            for layer in (1, 2)
            for name, read in (("learns", seen), ("frozen", frozen))
            for x, w in [read[30][layer - 1]]])

# %% [markdown]
# The tokens become as much alike, and yet MaxVio stops at about 2 and 3. The head starts are a fifth to a quarter as large. The rest
# is *learnt*: a gate that may move comes to lean on what all tokens share. Why, we have not measured; perhaps here the rich do get
# richer. (One seed.)
#
# The larger model of the first section goes to the very end, with each of six seeds: in some batch one expert is among the three of
# at least 2,044 of 2,048 tokens. In 600 steps it finds only part of the way back; the six busiest of the 31 experts of its first
# layer then still do 84% to 96% of the work. Is that the gate's fault? Three others, 600 steps each: one that learns four times as
# fast, V2's softmax, and eight large experts with one a token.

# %%
unbalanced = {"as above": [sweep["none"], *(
    t for t in recorded("balance-quality")["trials"] if t["arm"] == "none")]}
for t in recorded("balance-collapse")["trials"]:
    unbalanced.setdefault(t["arm"], []).append(t)
rows = []
for arm, each in unbalanced.items():
    loads = [torch.tensor(layer) for t in each for layer in t["load"]]
    idle = [(n < n.double().mean() / 10).double().mean().item() for n in loads]
    most = len(loads[0]) / (1 if arm == "top-1" else 3) - 1
    worst = [max(t["max_violation"]) for t in each]
    rows.append({"gate": arm, "seeds": len(each),
                 "MaxVio, worst layer": f"{min(worst):.1f} to {max(worst):.1f}"
                                        f" of {most:.1f}",
                 "nearly idle experts": f"{statistics.mean(idle):.0%}",
                 "bits per byte": f"{statistics.mean(t['bits_per_byte'] for t in each):.3f}"})
show.table(rows, caption="Unseen text, three layers. Nearly idle: less than "
           "a tenth of the mean load. Recorded: minimodels study "
           "balance-collapse.")

# %% [markdown]
# No. Each leaves half of its experts or more nearly idle. (Their bits lie within those of the six seeds above.) Top-1
# can go furthest: with one of two seeds a layer sends 99.99% of all tokens to one of its eight experts, and is a dense network by
# another name.
#
# Keep this picture: what has to be taken back is *one number for each expert*, the same for all tokens. The second remedy will do
# just that.
#
# ## First remedy: a second loss
#
# The older idea ([GShard](../book/references.md#gshard), [Switch](../book/references.md#switch)): let the model pay for an uneven
# load. The load is a count, and a count has no gradient. So it is multiplied by something that has one. In V3's form,
# let $f_i$ be the load of expert $i$ over the mean load, and $P_i$ the mean over tokens of its affinity, after each token's
# affinities have been divided by their sum:
#
# $$\begin{aligned} f_i &= c_i / \bar c \\ P_i &= \tfrac1T \sum_t s_{t,i} / \textstyle\sum_j s_{t,j} \\ L &= \alpha \sum_i f_i P_i \end{aligned} \tag{8.2}$$
#
# Take loads 8, 4, 4 and 0, so $f = (2, 1, 1, 0)$, and $P = (0.4, 0.3, 0.2, 0.1)$. The sum is $0.8 + 0.3 + 0.2 = 1.3$; with even
# $f$ or even $P$ it is 1. The [auxiliary loss](../book/glossary.md#auxiliary-loss) is added to the real one with a small weight
# $\alpha$. Its derivative by $P_i$ is $\alpha f_i$. Because a token's shares sum to 1, only differences count: the affinities of
# busy experts go down, those of idle ones up.
#
# > **Exercise 8.3** (the loss; medium, 15 minutes). Write `balance_loss(score, expert)`, the sum in (8.2) without $\alpha$.
# > Shapes `(T, E)` and `(T, K)`; the result has no axes, and a gradient. `torch.bincount(..., minlength=E)` counts.

# %%
def balance_loss(score, expert):
    ...


# %%
check.balance_loss(balance_loss)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The mean load is `expert.numel() / E`, for each token makes $K$ choices.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def balance_loss(score, expert):
#     E = score.shape[1]
#     f = torch.bincount(expert.flatten(), minlength=E) * E / expert.numel()
#     P = (score / score.sum(-1, keepdim=True)).mean(0)
#     return (f * P).sum()
# ```
#
# </details>
#
# ### Even where?
#
# A choice is hidden in the formula: *which* tokens are counted together? All of a batch, or each sequence by itself?

# %% tags=["remove-input"]
show.drawing("twoscopes",
             alt="Six tokens of code all went to expert 1, six of prose all to expert 2. Counted in each sequence the load is 6 and 0; counted together it is 6 and 6.",
             caption="The same twelve choices are as uneven as can be, and perfectly even.")

# %% [markdown]
# A loss over the batch leaves these two alone: one may become an expert for code and the other for prose. A loss within each sequence
# forbids it. Every sequence must use all experts, whatever it is about.
#
# > **Exercise 8.4** (within a sequence; easy, 5 minutes). Write `loss_by_sequence(score, expert, n_sequences)`: the mean over
# > the sequences of `balance_loss`. The tokens of a sequence lie side by side, and all sequences are equally long. (Write
# > `balance_loss` first, or paste its solution above.)

# %%
def loss_by_sequence(score, expert, n_sequences):
    ...


# %%
check.loss_by_sequence(loss_by_sequence)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def loss_by_sequence(score, expert, n_sequences):
#     pairs = zip(score.chunk(n_sequences), expert.chunk(n_sequences))
#     return sum(balance_loss(s, e) for s, e in pairs) / n_sequences
# ```
#
# </details>
#
# Whatever the scope, this remedy may have a price. To lower $P_i$ the gate's *weights* must move, and hidden states with them, for
# every token, including those for which expert $i$ was right. The loss that you want and the loss that you added pull at the
# same numbers.
#
# ## Second remedy: a bias
#
# [Loss-free balancing](../book/glossary.md#loss-free-balancing) leaves the weights alone. Each expert has a bias $b_i$, which is
# added to its affinity when the choice is made. After every step, look at the load of the whole batch. Was the expert busier than
# the mean? Its bias goes down by a small $\gamma$. Was it idler? Up by $\gamma$:
#
# $$ b_i \leftarrow b_i + \gamma \, \mathrm{sign}(\bar c - c_i) \tag{8.3}$$
#
# No gradient, no second loss, one number for each expert: what the head start calls for. (A and B above have affinities of 0.622 and
# 0.574. A bias of 0.05 for B sends the token home.) Loads 8, 2, 1 and 1 with $\gamma = 0.01$ give
# $-0.01, +0.01, +0.01, +0.01$. How *much* too busy an expert is does not count.
#
# > **Exercise 8.5** (move it; easy, 5 minutes). Write `move_bias(bias, load, rate)` for two lists; return a new list. An
# > expert with exactly the mean load stays where it is.

# %%
def move_bias(bias, load, rate):
    ...


# %%
check.move_bias(move_bias)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def move_bias(bias, load, rate):
#     mean = sum(load) / len(load)
#     return [b + rate * ((mean > n) - (mean < n))
#             for b, n in zip(bias, load)]
# ```
#
# </details>
#
# Freeze the lopsided model that you just trained, and let only the biases of its second gate move, on four batches that are read
# again and again. How many moves will it take, with small steps and with large ones?

# %% tags=["nbval-ignore-output"]
import copy

tokens = torch.cat([batches.at(step) for step in range(500, 504)])
x, _ = read_by_gates(models["none"], tokens)[1]
moved = {}
for rate in (0.001, 0.01, 0.1):
    gate = copy.deepcopy(models["none"].gates[1])
    trace = moved[f"speed {rate:g}"] = []
    with torch.no_grad():
        for move in range(101):
            load = gate(x).load
            trace.append(max_violation(load))
            update_bias(gate, load, rate)
    print(f"speed {rate:g}: MaxVio {trace[0]:.2f}, at last between "
          f"{min(trace[-10:]):.2f} and {max(trace[-10:]):.2f}; "
          f"biases lie {gate.bias.max() - gate.bias.min():.2f} apart")

# %% tags=["hide-input", "nbval-ignore-output"]
show.show(show.lines({name: (list(range(101)), trace) for name, trace in moved.items()}, concept={name: "moe" for name in moved},
                     x="moves of the bias", y="MaxVio", title="A frozen gate becomes even by its biases alone, if they neither creep nor jump"),
          alt="Three curves from the same height. With speed 0.001 it falls slowly, with 0.01 to near zero within twenty-five moves, with 0.1 it falls at once and then jumps up and down.",
          caption="This run: the second gate of the model above, frozen, on 4,096 tokens. Nothing else is trained.")

# %% [markdown]
# With 0.01 some twenty-five moves do it, and not a weight has changed: biases that lie half a unit apart are enough. That is the
# distance, and with 0.001 it should take ten times as many moves. With 0.1 the bias cannot rest: every expert is thrown over the mean
# and back.
#
# ### The bias chooses and does not weigh
#
# The bias decides *who* works on a token. It must not decide how much that expert's answer counts:

# %% tags=["remove-input"]
show.drawing("chooses",
             alt="Four experts: the bias changes who is chosen, experts 2 and 3 instead of 1 and 2; the weights 0.75 and 0.25 come from the affinities 0.6 and 0.2 alone.",
             caption="One token, four experts, two of them for each token.")

# %% [markdown]
# Work it out both ways. The affinities are 0.8, 0.6, 0.2 and 0.1, the biases $-0.6$, $-0.1$, $+0.5$ and 0. Rightly, expert 2 weighs
# $0.6 / 0.8 = 0.75$ and expert 3, which is here only because it is idle, $0.25$. With the bias in the weights it is
# $0.5/1.2 = 0.42$ and $0.7/1.2 = 0.58$: the token would listen more to the one of the two that suits it less, and the more idle an
# expert is, the louder it would be.
#
# > **Exercise 8.6** (the gate; medium, 10 minutes). Write `choose_and_weigh(score, bias, top_k)` for one token and two lists.
# > Return two lists: the `top_k` experts by affinity plus bias, best first, and their weights.

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
#     order = sorted(range(len(score)), reverse=True,
#                    key=lambda e: score[e] + bias[e])
#     chosen = order[:top_k]
#     total = sum(score[e] for e in chosen)
#     return chosen, [score[e] / total for e in chosen]
# ```
#
# </details>
#
# Now turn the knobs. In this gate 512 fresh tokens a step choose two of sixteen experts, and a *skew* prefers the first ones:
# that is the head start. "Start again, balanced by" sets one of four ways; after each, press "100 steps". Two of the four end
# even. Which of the two changes what the affinities *say*?

# %%
Router.preset("Nothing")

# %% [markdown]
# The bias sends many tokens elsewhere than to their first choice. The auxiliary loss sends nobody elsewhere: it has changed the wishes.
# Made-up tokens do not mind. In a model, affinities were learnt for a reason.
#
# ### With the bias from the first step
#
# Train the live model again: same weights, same batches, and $\gamma = 0.01$.

# %% tags=["nbval-ignore-output"]
models["bias"], traces["bias"], _ = watch("bias")
for name in ("none", "bias"):
    score = evaluate(models[name], data.valid, n_bytes=data.valid_bytes,
                     seq_len=LIVE.seq_len)
    even = ", ".join(f"{max_violation(load):.2f}" for load in score.load)
    print(f"{name}: MaxVio on unseen text {even}")
    print(lab.band("balance", f"{name} after 120 steps",
                   score.bits_per_byte))

# %% tags=["hide-input", "nbval-ignore-output"]
show.show(show.lines({name: (steps, [max(v) for v in traces[arm]]) for name, arm in (("not balanced", "none"), ("with a bias", "bias"))},
                     concept={"not balanced": "dense", "with a bias": "moe"}, x="step", y="MaxVio of the batch, worse of two layers",
                     title="The bias is late for the rush, nearly halves it, and has it in hand after some sixty steps"),
          alt="Both curves rise in the first twenty to thirty steps, one to nearly seven, the one with a bias to four. That one then falls to about one, with jumps to two; the other stays above five until step sixty and ends between three and five.",
          caption="This run, on this machine. The bias moves by 0.01 a step.")

# %% [markdown]
# The rush still comes, to four instead of seven: a bias of 0.01 a step cannot quite keep up. And the price? The two scores of this
# run are nearly equal, by luck of its seed. With six other seeds, recorded, the balanced model needs more bits with five
# of the six, 0.0052 in the mean: a fifth of a percent (from 0.0084 more to 0.0018 fewer). So early, balance does not seem to be
# free. Is it later?

# %% [markdown]
# ## Measure it: thirteen ways
#
# The recorded runs have five times as many steps, and the larger model of the first section: no balancing, the bias at five speeds,
# both losses at three weights, and V3's mixture, a bias (at ten times V3's speed) with a very weak loss on each sequence. MaxVio is
# that of unseen text, in the worst of three layers. One seed each: a search, not a verdict.
#
# > **Before you read on.** No balance at all, or nearly perfect balance; by a bias, or by a loss. Which of the thirteen predicts
# > unseen text best?
# >
# > <details><summary>What we found</summary>
# >
# > **Nobody can tell.** Best and worst lie 0.012 bits per byte apart. Six seeds of one and the same way lie 0.023 apart.
# >
# > </details>

# %%
show.table([{"balancing": arm,
             "MaxVio": f"{max(t['max_violation']):.2f}",
             "bits per byte": f"{t['bits_per_byte']:.4f}"}
            for arm, t in sweep.items()],
           caption="The number is the bias's speed, or the loss's weight.")

# %% tags=["hide-input"]
more_seeds = [t for t in recorded("moe-quality")["trials"] if t["arm"] == "fine + shared"]
families = {"none": [sweep["none"]], "bias": [t for arm, t in sweep.items() if arm.startswith("bias ") and "+" not in arm],
            "batch": [t for arm, t in sweep.items() if arm.startswith("batch ")],
            "sequence": [t for arm, t in sweep.items() if arm.startswith("sequence ")], "mixture": [sweep["bias 0.01 + sequence 0.0001"]],
            "bias 0.01, 6 seeds": [sweep["bias 0.01"], *more_seeds]}
fig = show.dots({name: [1000 * (t["bits_per_byte"] - sweep["none"]["bits_per_byte"]) for t in each] for name, each in families.items()},
                concept={name: "dense" if name == "none" else "moe" for name in families},
                unit="thousandths of a bit per byte",
                title="Thirteen ways with one seed lie within 0.012 bits; six seeds of one way within 0.023")
fig.update_traces(mode="markers", selector={"mode": "markers+text"})    # the mean's stroke, without its number
show.show(fig, alt="Six rows of dots. Thirteen runs of one seed lie between 8 thousandths below no balancing and 4 above, the biases and the losses by sequence each over all of that; six seeds of one bias, beside that same run, reach from 26 below to 3 below.",
          caption=f"Recorded: minimodels study balance-sweep, and moe-quality for five of the seeds; {sweep['none']['hardware']}. 0 is the one run without balancing, seed 0; less is better; a stroke is the mean of a row.")

# %% [markdown]
# MaxVio obeys. Every speed from 0.001 to 0.03 brings it from 7 to below 0.75; the fastest, 0.1, ends at 1.6. Both losses make it
# more even with more weight.
#
# Bits do not. Nine of the twelve balanced runs do better than the one without and three do worse, all within 0.012 bits per byte.
# The loss by sequence does worse the stronger it is, 1.6246, 1.6313 and 1.6367, as its critics would expect. But the five speeds of
# the bias, in no order, span the same 0.012, and six seeds of a single one 0.023. So in this search collapse costs time, and no
# bits that we can see.

# %% tags=["hide-input"]
kept = ["none", "bias 0.001", "bias 0.01", "bias 0.1"]
over_time = {arm: ([v[0] for v in sweep[arm]["violation"]], [max(v[1:]) for v in sweep[arm]["violation"]]) for arm in kept if arm in sweep}
show.show(show.lines(over_time, concept={arm: "dense" if arm == "none" else "moe" for arm in over_time}, log_y=True,
                     x="step", y="MaxVio of the batch, worst layer",
                     title="A slow bias takes hundreds of steps, a fast one never rests"),
          alt="Without balancing MaxVio stays near nine at first and sinks slowly to somewhat above seven. With 0.01 it falls to about one within a hundred steps, with 0.001 only in the last hundred; with 0.1 it soon falls to four, and later jumps between one and three.",
          caption="Recorded: minimodels study balance-sweep; every tenth step.")

# %% [markdown]
# With 0.01 the batch's MaxVio first falls below 1.5 at step 90, with 0.001 at 520 of 600. With 0.1 it does so at 230, and does not
# stay there: of the last twenty records six lie below 1.5, with 0.01 seventeen. Choose the speed by the steps that you have. The
# paper that introduced the bias found 0.0001 slow and 0.01 fluctuating ([Loss-free](../book/references.md#loss-free)). V3 chose
# 0.001, and had more than two hundred thousand steps for it to arrive.
#
# To see more about bits, take four ways, more seeds, and compare runs of the *same* seed.

# %% [markdown]
# ## Does the scope matter?
#
# Back to the two sequences, of code and of prose. Four ways train the larger model again: no balancing, the bias, the loss
# over the batch, and the loss [on each sequence](../book/glossary.md#sequence-wise-loss). Each has six seeds: that of the search,
# and five more. The losses have the weight 0.01: there they came nearest to the bias's MaxVio.
#
# Two more things are measured on unseen text. *MaxVio in a sequence* is the mean over sequences (255 tokens; the 256th is only
# predicted). And *what an expert tells*: how many bits you learn about a token's kind (a keyword, a name, a comment), or its file,
# from the number of one of its experts. This is [mutual information](../book/glossary.md#mutual-information), less what chance
# gives: the mean of the same measure over a hundred shifts of the labels along the text.
#
# > **Before you read on.** In which of the four do experts tell most about a token's kind? And in which least?
# >
# > <details><summary>What we found</summary>
# >
# > **Most with the bias, 0.56 bits. Least without balancing, 0.21.** The loss over the batch keeps 0.52, the loss on each sequence
# > 0.42.
# >
# > </details>

# %%
from minimodels.studies.balance import window_violation

names = {"none": "none", "bias 0.01": "bias",
         "batch 0.01": "loss, batch", "sequence 0.01": "loss, sequence"}
quality = recorded("balance-quality")["trials"]
runs = {name: [t for t in quality if t["arm"] == arm]
        for arm, name in names.items()}                    # seeds 1 to 5
bits = {name: [t["bits_per_byte"] for t in [sweep[arm], *runs[name]]]
        for arm, name in names.items()}                    # seeds 0 to 5


def mean_of(name, what):
    """Mean over three layers and five seeds."""
    return statistics.mean(v for t in runs[name] for v in t[what])


# %%
g = torch.Generator().manual_seed(0)
random = torch.rand(1000 * 255, 31, generator=g).topk(3).indices
show.table([{"balancing": name,
             "MaxVio, all text": f"{mean_of(name, 'max_violation'):.2f}",
             "in a sequence": f"{mean_of(name, 'window_violation'):.2f}",
             "bits per byte": f"{statistics.mean(bits[name]):.4f}"}
            for name in runs],
           caption="MaxVio: means of three layers and five seeds; bits: of six "
                   "seeds. By chance alone a sequence would have "
                   f"{window_violation(random, 255, 31):.2f}.")

# %% tags=["hide-input"]
against = {name: [1000 * (a - b) for a, b in zip(each, bits["none"])] for name, each in bits.items() if name != "none"}
fig = show.dots(against, concept={name: "moe" for name in against}, unit="thousandths of a bit per byte",
                title="All three are even, but only the bias beats no balancing with every seed")
fig.update_traces(texttemplate="%{x:.1f}", selector={"mode": "markers+text"})
show.show(fig, alt="Three rows of six dots, in thousandths of a bit beside no balancing. The bias: all below it, by 15 to 2. The loss over the batch: from 11 below to 2 above; the loss by sequence: from 12 below to 3 above.",
          caption=f"Recorded: minimodels study balance-quality, and balance-sweep for seed 0; {quality[0]['hardware']}. "
                  "0 is no balancing with the same seed, less is better; the stroke is the mean.")

# %% [markdown]
# Over all text the three remedies are equally even; within a sequence they are not. **The bias predicts
# better than no balancing with each of six seeds**, by 0.0024 to 0.0152 bits per byte, 0.0086 in the mean: half a percent. Seeds of one
# way lie further apart than that, but they move all four ways together: seed 4 is everybody's best. So subtract before you compare.
#
# Evenness alone does not explain it: the loss by sequence is as even, beats no balancing with five of six, and stays behind the
# bias with every seed, by 0.0005 to 0.0111. The loss over the batch decides nothing: it beats no balancing with four seeds, the
# bias with two, the other loss with three. Nor was the race quite fair: each loss ran with one weight, and Muon's rate was searched
# for the bias alone.

# %%
def tells(trial, label):
    """Bits that an expert tells about a label, less chance; layers' mean."""
    return statistics.mean(found - chance for found, chance, *_
                           in trial["information"][label])


known = {label: {name: [tells(t, label) for t in each]
                 for name, each in runs.items()} for label in ("kind", "file")}
show.table([{"balancing": name} | {
    f"bits about the {label}": f"{statistics.mean(known[label][name]):.3f} "
    f"({min(known[label][name]):.3f} to {max(known[label][name]):.3f})"
    for label in known} for name in runs],
    caption="Mean and range of five seeds.")

# %% tags=["hide-input"]
fig = show.dots(known["kind"], concept={name: "dense" if name == "none" else "moe" for name in runs},
                unit="bits about the kind, less chance",
                title="Busy experts tell more about a token's kind if a sequence may be uneven")
fig.update_traces(texttemplate="%{x:.3f}", selector={"mode": "markers+text"})
show.show(fig, alt="Four rows of five dots. No balancing lies between 0.204 and 0.239 bits, the loss by sequence between 0.388 and 0.439, the loss over the batch between 0.503 and 0.532, the bias between 0.529 and 0.578.",
          caption="Recorded: minimodels study balance-quality; mean of three layers, five seeds; unseen text.")

# %% [markdown]
# Here the scope shows. The two losses differ in nothing else. Counted over a batch, a sequence keeps a MaxVio of 2.1, and an expert
# tells 0.52 bits about the kind; counted by sequence these are 1.4 and 0.42, and no seed of one comes near the other. (The file
# points the same way and is only a hint: in 36 of the 60 layers of all runs the luckiest of the hundred shifts tells as much as the
# true labels. About the kind none comes near.) Scope is not all: the bias counts over the batch as well, and its experts tell most
# with every seed. And without balancing they tell little for another reason: few of them work. So V3's claim, about the bias and a
# loss on sequences, holds here for a token's kind.
#
# ## Keep a token at home
#
# Even experts do not yet mean little traffic. In V3 the 256 experts of a layer lie on eight nodes, 32 on each. A token must travel to
# each node that has one of its eight experts. If all sets of eight are equally likely, on how many nodes do they lie? A node is missed
# if all eight lie among the 224 experts elsewhere.
#
# > **Exercise 8.7** (count nodes; medium, 10 minutes). Write `expected_nodes(n_experts, n_nodes, top_k)` for any sizes.
# > `math.comb` counts sets.

# %%
def expected_nodes(n_experts, n_nodes, top_k):
    ...


# %%
check.expected_nodes(expected_nodes)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def expected_nodes(n_experts, n_nodes, top_k):
#     elsewhere = n_experts - n_experts // n_nodes
#     missed = math.comb(elsewhere, top_k) / math.comb(n_experts, top_k)
#     return n_nodes * (1 - missed)
# ```
#
# </details>
#
# For V3 this is
#
# $$ 8 \left( 1 - \binom{224}{8} \Big/ \binom{256}{8} \right) = 5.29 \tag{8.4}$$
#
# V3 allows four. The [node limit](../book/glossary.md#node-limit) is a second choice before the first. Each node gets a score,
# the sum of its two best biased affinities for this token; the four nodes with the highest scores are open, and the token takes
# its eight best experts among theirs. By hand, with four nodes of two experts, two nodes open, and four experts a token:

# %% tags=["remove-input"]
show.drawing("nodes",
             alt="Without a limit the experts with 0.9, 0.8, 0.7 and 0.65 lie on four nodes. With two nodes open, C with 0.7 and 0.6 and D with 0.65 and 0.5 win, because 1.3 and 1.15 exceed 1.0.",
             caption="Who is open is decided by a node's best two together. Here the two best experts stay closed.")

# %% [markdown]
# Look who is left out: the two best experts of all. They live alone. That is the price, paid in affinity. In code, with groups of
# experts for nodes:

# %%
def limited_choice(biased, n_groups, top_groups, top_k):
    """The top_k experts within the top_groups best groups: (T, K)."""
    group = biased.unflatten(-1, (n_groups, -1))               # (T, G, E//G)
    best_two = group.topk(2, dim=-1).values.sum(-1)            # (T, G)
    is_open = torch.zeros_like(best_two).scatter(
        1, best_two.topk(top_groups, dim=-1).indices, 1.0).bool()
    closed = ~is_open.unsqueeze(-1)
    within = group.masked_fill(closed, -torch.inf).flatten(1)
    return within.topk(top_k, dim=-1).indices


by_hand = torch.tensor([[0.9, 0.1, 0.8, 0.2, 0.7, 0.6, 0.65, 0.5]])
print(sorted(limited_choice(by_hand, 4, 2, 4)[0].tolist()))

# %% [markdown]
# Is that V3's rule? Our package and, as a second witness, Hugging Face's gate for DeepSeek-V3 choose for 4,096 random tokens, with
# V3's numbers:

# %% tags=["hide-input"]
from types import SimpleNamespace
from minimodels.config import ModelConfig
from transformers.models.deepseek_v3 import modeling_deepseek_v3

g = torch.Generator().manual_seed(0)
weight = torch.randn(256, 64, generator=g) / 8
bias = 0.2 * torch.rand(256, generator=g) - 0.1
ours = Gate(replace(ModelConfig.preset("deepseek_v3"), d_model=64))    # V3's gate, but narrower
ours.load_state_dict({"weight": weight, "bias": bias})
theirs = modeling_deepseek_v3.DeepseekV3TopkRouter(SimpleNamespace(
    num_experts_per_tok=8, num_local_experts=256, hidden_size=64, routed_scaling_factor=2.5, n_group=8, topk_group=4, norm_topk_prob=True))
theirs.load_state_dict({"weight": weight, "e_score_correction_bias": bias})
with torch.no_grad():
    x = torch.randn(4096, 64, generator=g)
    routing = ours(x)
    _, their_weight, their_expert = theirs(x)
hand = limited_choice(routing.score + bias, 8, 4, 8)
for name, chosen in {"package": routing.expert, "Hugging Face": their_expert}.items():
    same = torch.equal(hand.sort(-1).values, chosen.sort(-1).values)
    print(f"by hand = {name}: {same}, for {len(x):,} tokens")
print("weights equal:", torch.allclose(routing.weight.sort(-1).values, their_weight.sort(-1).values, atol=1e-6))

# %% [markdown]
# Now count the nodes, with the limit and without, beside the closed form:

# %%
with torch.no_grad():
    free = (routing.score + bias).topk(8, dim=-1).indices      # (T, K)


def nodes(expert):
    """On how many of eight nodes each token's experts lie: (T,)."""
    on = torch.zeros(len(expert), 8).scatter(1, expert // 32, 1.0)
    return on.sum(1)


closed_form = 8 * (1 - math.comb(224, 8) / math.comb(256, 8))
print(f"no limit: {nodes(free).mean():.2f} nodes, at most "
      f"{nodes(free).max():.0f}; closed form {closed_form:.2f}")
print(f"limit 4:  {nodes(hand).mean():.2f} nodes, at most "
      f"{nodes(hand).max():.0f}")
stay = (hand.unsqueeze(-1) == free.unsqueeze(1)).any(-1).float().mean()
print(f"choices that the limit leaves as they were: {stay:.0%}")

# %% [markdown]
# The limit saves a quarter of the copies, and so of the traffic. And the most is known beforehand: this gate is random, but a trained
# one without a limit could send every token to eight nodes.
#
# What does the limit cost in bits? Chapter 7's model of 32 small experts was trained in eight groups of four, with two or four groups open to a token:

# %%
unlimited = {t["seed"]: t for t in recorded("moe-quality")["trials"]
             if t["arm"] == "fine"}
rows = []
for groups in (4, 2):
    each = [t for t in recorded("balance-groups")["trials"]
            if t["arm"] == f"{groups} of 8 groups"]
    more = [100 * (t["bits_per_byte"] / unlimited[t["seed"]]["bits_per_byte"]
                   - 1) for t in each]
    worst = [max(t["max_violation"]) for t in each]
    rows.append({"groups that are open": f"{groups} of 8",
                 "bits more than with all, %": f"{statistics.mean(more):+.2f}",
                 "three seeds": f"{min(more):+.2f} to {max(more):+.2f}",
                 "MaxVio, worst layer": f"{min(worst):.2f} to {max(worst):.2f}"})
show.table(rows, caption="Recorded: minimodels study balance-groups.")

# %% [markdown]
# No price that three seeds can show: with half of the groups one seed loses and two gain, with a quarter two lose and one is even. A gate
# that learns under a limit arranges itself.

# %% [markdown]
# ## Bugs that still train
#
# Balancing is easy to get wrong, and nothing complains: a model with lopsided experts is still a model. Four bugs lie ready in
# `minimodels.bugs.balance`.
#
# > **Bugs that still train.**
# > - **The sign is flipped.** A busy expert becomes easier to choose. The collapse of this chapter's start is made permanent.
# > - **Wishes are counted.** The load that moves the bias is that of the affinities alone, right in V3's loss on sequences (eq. 18)
# >   and wrong here. The bias never sees what it has done, and pushes on.
# > - **One sequence is counted.** One micro-batch, or one of several devices, stands for the batch. With several devices every copy of
# >   the model gets biases of its own.
# > - **The bias is in the weight.** It chooses, *and* weighs.
#
# Each was trained for 200 steps, with three seeds:

# %%
planted = recorded("balance-bugs")
rows = []
for arm in planted["arms"]:
    each = [t for t in planted["trials"] if t["arm"] == arm]
    final = [t["bits_per_byte"] for t in each]
    uneven = [max(t["max_violation"]) for t in each]
    far = max(abs(b) for t in each for layer in t["bias"] for b in layer)
    rows.append({"balancing": arm,
                 "bits per byte": f"{statistics.mean(final):.3f}",
                 "three seeds": f"{min(final):.3f} to {max(final):.3f}",
                 "MaxVio, worst layer": f"{min(uneven):.1f} to {max(uneven):.1f}",
                 "largest bias": f"{far:.2f}"})
show.table(rows, caption="Recorded: minimodels study balance-bugs.")

# %% [markdown]
# By the loss you would ship all five: the worst is 0.4 percent behind. (Beside the right run of the same seed, which you do not
# have, the first two lose every time, by 0.004 to 0.010.) MaxVio finds these two: with the sign flipped some expert of the worst
# layer gets *every* token. And look at the last column. A bias moves by 0.01 a step, so 2.00 after 200 steps means that it has
# never once turned back. For the last two bugs no number here is an alarm.
#
# Of the four, two are found by one comparison, a third by a symmetry. You write both.
#
# > **Exercise 8.8** (what it counts; medium, 5 minutes). Write `counts_what_it_sends(layer, h)`. `layer(h)` returns
# > an output and a `routing`; `routing.expert` `(T, K)` says who got what, `routing.load` is what the balancer will hear.

# %%
def counts_what_it_sends(layer, h):
    ...


# %%
check.counts_what_it_sends(counts_what_it_sends)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def counts_what_it_sends(layer, h):
#     _, routing = layer(h)
#     sent = torch.bincount(routing.expert.flatten(),
#                           minlength=len(routing.load))
#     return torch.equal(routing.load, sent)
# ```
#
# </details>
#
# > **Exercise 8.9** (a symmetry; hard, 15 minutes). What may you do to all biases at once without changing anything? Write
# > `bias_only_chooses(gate, x)` that does it, and tells a right gate from one whose bias weighs, too. `gate(x)` returns a routing;
# > leave `gate.bias` as you found it.

# %%
def bias_only_chooses(gate, x):
    ...


# %%
check.bias_only_chooses(bias_only_chooses)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Who is largest does not change if the same number is added to all.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def bias_only_chooses(gate, x):
#     before = gate(x)
#     gate.bias += 0.25
#     after = gate(x)
#     gate.bias -= 0.25
#     return (torch.equal(before.expert, after.expert)
#             and torch.allclose(before.weight, after.weight, atol=1e-5))
# ```
#
# </details>
#
# The flipped sign passes both. To find it, break the symmetry: raise one bias alone, and that expert must not get fewer tokens.

# %% tags=["nbval-ignore-output"]
from minimodels.bugs import plant
from minimodels.bugs.balance import SignFlipped

read, _ = read_by_gates(models["bias"], fresh)[1]
for name in ("right", "sign flipped"):
    gate = copy.deepcopy(models["bias"].gates[1])
    gate = plant(gate, SignFlipped) if name != "right" else gate
    before = gate(read).load[0]
    gate.bias[0] += 0.25
    print(f"{name}: expert 0 had {before} of {len(read):,} tokens, "
          f"now {gate(read).load[0]}")

# %% [markdown]
# ## What the papers measured
#
# The paper that introduced the bias found better scores and more even loads at once: with a billion parameters a
# [perplexity](../book/glossary.md#perplexity) of 9.50 in place of 9.56, and a MaxVio of 0.04 in place of 0.72
# ([Loss-free](../book/references.md#loss-free)). A clean win for the bias? V3 asked *why*
# ([DeepSeek-V3](../book/references.md#deepseek-v3), section 4.5.3), and put a third way beside the two, a loss over the whole batch.
# These are validation losses:
#
# | Model | loss by sequence | bias | loss over the batch |
# |---|---|---|---|
# | 1B | 2.258 | 2.253 | 2.253 |
# | 3B | 2.085 | 2.080 | 2.080 |
#
# The loss over the batch does as well as the bias. So the gain came from the *scope*, from what is counted together, and not from
# doing without a gradient.
#
# Our runs bear out one half: the bias beats the loss by sequence. Six seeds do not decide the other half.
#
# ## Does it pay here?
#
# > **Does it pay here?** **In bits a little, with the bias. For speed, no: nothing here waits.** All our experts share one processor.
# >
# > - **At equal steps:** after 600 the bias saves bits with every one of six seeds, half a percent in the mean; the losses, as
# >   even, save less than half of that, with four and five of six. In the short run above it cost a fifth of a percent.
# > - **At equal wall clock:** (not run) the bias costs a handful of additions a step.
# > - **On several devices:** with an expert on each, the unbalanced layer would take seven to nine times as long, the balanced one
# >   1.4 to 1.7 times (six seeds, worst layer). V3 trains in groups of 64 GPUs, four experts on each, that wait for one another in
# >   every layer ([DeepSeek-V3](../book/references.md#deepseek-v3), section 3.2). There balance is a matter of time, whatever it
# >   does to bits.
#
# ## What production does
#
# - **V3** moved its biases by 0.001 a step for 14.3 trillion tokens and not at all for the last 500 billion; a loss on each
#   sequence with $\alpha = 0.0001$ was added against extremes within one. No token was dropped
#   ([DeepSeek-V3](../book/references.md#deepseek-v3), sections 2.1.2 and 4.2).
# - **V2** had three losses, and in training dropped tokens of overfull devices, those with the lowest affinity
#   ([DeepSeek-V2](../book/references.md#deepseek-v2), section 2.2).
# - **Serving** meets other texts than training. So the hottest experts are copied to further GPUs: 32 such copies where prompts are
#   read (section 3.4.1). The public [EPLB](../book/references.md#eplb) decides who is copied and where; exercise 8.11 writes a small
#   one.

# %% [markdown]
# > **Takeaways**
# > 1. A layer on many devices is as fast as its busiest expert: MaxVio + 1 times the time, with one expert on each.
# > 2. Our gates rushed to a favourite within thirty to fifty steps: what is learnt first makes all tokens alike, and the gate leans on it.
# > 3. A loss changes what tokens want; a bias changes who serves them. The bias chooses and must not weigh.
# > 4. Compare runs of the same seed. So read, the bias saves bits with each of six, half a percent in the mean; two losses, as
# > even, save less than half of that, and not with each.
# > 5. An even batch may hold lopsided sequences, and its experts tell more. Wrong balancing trains on: log MaxVio beside the loss.
#
# ## Longer problems
#
# > **Exercise 8.10** (a bias that stops; easy, 15 minutes). Somebody calls `model.bfloat16()`, which casts the biases too. With
# > steps of 0.001, where does a bias that wants to go up stop for ever? And with steps of 0.01? Find it by trying, then explain
# > it: BF16 keeps eight significant binary digits.
#
# <details><summary>Solution</summary>
#
# ```python
# for rate in (0.001, 0.01):
#     bias, step = torch.tensor(0.0, dtype=torch.bfloat16), 0
#     while (moved := bias + rate) != bias:
#         bias, step = moved, step + 1
#     print(f"rate {rate}: stops at {bias.item()} after {step} steps")
# ```
#
# At 0.5 after 383 steps, and at 4 after 350. Between 0.5 and 1 neighbours of BF16 lie $2^{-8} = 0.0039$ apart, and a step of
# less than half of that is rounded away. On the way the steps are not 0.001 long, either: just below 0.5 they are 0.002. So Hugging
# Face's class for DeepSeek-V3 lists the bias among what must stay in FP32.
#
# </details>
#
# > **Exercise 8.11** (copy the hottest; medium, 45 minutes). You serve the unbalanced layer of the first section, one expert on each
# > of 31 devices, and get five devices more. Always copy the expert whose copies have the most work each, and let copies share its
# > tokens evenly. How many tokens has the busiest device, before and after? And with the run `bias 0.01`?
#
# <details><summary>Solution</summary>
#
# ```python
# def with_copies(load, n_free):
#     copies = [1] * len(load)
#     for _ in range(n_free):
#         work = [n / c for n, c in zip(load, copies)]
#         copies[work.index(max(work))] += 1
#     return max(n / c for n, c in zip(load, copies)), copies
#
# for arm in ("none", "bias 0.01"):
#     load = sweep[arm]["load"][0]
#     for n_free in (0, 5):
#         busiest, copies = with_copies(load, n_free)
#         print(arm, n_free, f"{busiest:,.0f}", max(copies))
# ```
#
# Unbalanced, the busiest device has 62,528 tokens, and 29,028 with the five copies: 16% more devices halve the time. Balanced, it is
# 10,369 and 9,041: 16% more devices save 13%, for the copies go to the five busiest in turn, and the sixth is left nearly as busy.
# Copies are for the few that stick out.
#
# </details>
#
# > **Exercise 8.12** (a better controller; hard, 1 hour). The sign throws away how far an expert is off. Replace it with a step in
# > proportion, $\gamma (\bar c - c_i) / \bar c$, and compare on the frozen gate above: how many moves to a MaxVio below 0.1, and
# > where does each end after 300, for several $\gamma$? Why might DeepSeek have kept the sign?
#
# <details><summary>Solution</summary>
#
# ```python
# def settle(rule, rate, moves=300):
#     gate = copy.deepcopy(models["none"].gates[1])
#     trace = []
#     with torch.no_grad():
#         for _ in range(moves):
#             load = gate(x).load.float()
#             trace.append(max_violation(load))
#             off = (load.mean() - load) / load.mean()
#             gate.bias += rate * rule(off)
#     first = next((i for i, v in enumerate(trace) if v < 0.1), None)
#     return first, [round(f(trace[-10:]), 3) for f in (min, max)]
#
# x, _ = read_by_gates(models["none"], tokens)[1]
# for name, rule in {"sign": torch.sign, "proportion": lambda off: off}.items():
#     print(name, {rate: settle(rule, rate) for rate in (0.003, 0.01, 0.03, 0.1)})
# ```
#
# On our run the sign with 0.01 never gets below 0.1, but swings between 0.14 and 0.26, because every expert steps over the mean and
# back; with 0.003 it takes 80 moves. In proportion, 0.03 takes 8 moves and stays near 0.01: steps shrink as the goal comes near. On a
# frozen gate and one batch it is the better controller. In training the load of a batch is noisy and the gate moves; the paper that
# introduced the bias tried it and found a slightly higher perplexity, 9.53 against 9.50
# ([Loss-free](../book/references.md#loss-free)). And a sign knows no scale: $\gamma$ alone says how far a bias can go in a step.
#
# </details>
#
# > **Next: [More than one token at a time](09_mtp.ipynb).** Every place in a text predicts one token. What if it had to predict two?
