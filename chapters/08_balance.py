# ---
# jupyter:
#   book:
#     number: 8
#     reading: 75 min
#     cpu: 60 s, 1.1 GB
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
# *This chapter is still being measured: runs over several seeds are being recorded, and where a finding rests on one seed the text
# says so.*
#
# > **You will be able to**
# > - say how uneven a load is, and what that costs in time on any number of devices;
# > - watch a gate send nearly everything to the same few experts, and say why it does;
# > - write both remedies, a second loss and a bias, and tell what each of them moves;
# > - tell an even batch from even sequences, and measure which of the two lets experts differ;
# > - count the network traffic that a node limit saves;
# > - write two tests for balancing bugs that no loss curve shows.
#
# ## What you need, in two paragraphs
#
# A layer of a **mixture of experts** ([chapter 7](07_moe.ipynb) builds it) holds $E$ small networks, and each token passes $K$
# of them. The [gate](../book/glossary.md#gate) chooses. It has a vector $w_i$ for each expert; for a token with hidden state $x$
# it computes an *affinity* $s_i = \sigma(w_i \cdot x)$, a number between 0 and 1, and takes the $K$ largest. The outputs of the
# chosen experts are added up with weights: their affinities, divided by their sum.
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
from minimodels.moe import Gate, Routing
from minimodels.studies import recorded

check = exercises.load("balance")
print(lab.tier())

# %% [markdown]
# ## The pain
#
# **8 times its share**
#
# > **Margin.** Recorded: `minimodels study balance-sweep`, the arm `none`, first layer with experts, on all validation text. One
# > seed.
#
# That is what the busiest of 31 experts got, in a model that was trained for 600 steps with nothing to keep it even. The model
# is the last of chapter 7: the yardstick with 31 small experts and a shared one in each layer but the first, three of the 31 for
# each token.

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
# Most of these experts were bought, stored and hardly used. This is called [collapse](../book/glossary.md#collapse). And it is
# worse than waste. In a large model the experts of a layer
# lie on different GPUs. A step ends when the *last* of them is done, and so the GPU with the favourite sets the pace for all.
#
# ## What the press said
#
# Nothing. None of the claims in our [ledger](../book/ledger.md) is about balance. One comes near it: experts are like the
# doctors of a hospital, each with a subject of their own, and chapter 7 has judged that. But its source says something else as
# well: experts differ more clearly *without an auxiliary loss* ([DeepSeek-V3](../book/references.md#deepseek-v3), Figure 9 and
# Appendix C). A means to keep experts busy decides what they become. That can be tested, and we will.
#
# > **Before you read on.** A small model with sixteen experts a layer, two for each token, and nothing to balance them. All
# > weights are drawn at random. When is one expert busiest: at the start, after some twenty steps, or at the end?
# >
# > <details><summary>What we found</summary>
# >
# > **After 30 to 50 steps.** The load begins nearly even. Then one expert rushes to between 6.4 and 7.9 times its share (six
# > recorded seeds, the worse of two layers), where 8 times is all that there is; later training takes a part of that back. See
# > [below](#Watch-it-collapse).
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
# | $c$, `load` | tokens that each expert got | | `(E,)` |
# | $\bar c$ | their mean, $T K / E$ | | |
# | $s$, `score` | affinities, each in (0, 1) | | `(T, E)` |
# | `expert` | the chosen ones | | `(T, K)` |
# | $b$, `bias` | what is added to $s$ to choose | | `(E,)` |
# | $E$, $K$ | experts, and how many a token gets | 31 and 3; live 16 and 2 | |
#
# > **Margin.** The most possible: 7 for our live model, 9.33 for the recorded one, 31 for a layer of DeepSeek-V3.
#
# Even loads have MaxVio 0. If all tokens choose the same $K$ experts, each of these has $T$ tokens, $E/K$ times the mean: MaxVio
# is $E/K - 1$, and no more is possible.
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
# Why the maximum, and not some average? Because of who waits for whom:

# %% tags=["remove-input"]
show.drawing("waits",
             alt="Four devices with one expert each: with loads 8, 2, 1 and 1 three devices wait for the first until 8; with loads of 3 each the step ends after 3.",
             caption="Twelve tokens on four devices. A bar is work, a dashed outline is waiting.")

# %% [markdown]
# With one expert on each device a step takes $1 + \mathrm{MaxVio}$ times as long as it need. If devices hold several experts, a
# busy one may have idle neighbours, and some of it evens out.
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
# Here are the recorded loads of two models, spread over more and more devices: one was not balanced, one had the bias of this
# chapter's second remedy.

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
show.show(show.lines({"not balanced": (devices, times["none"]), "with a bias": (devices, times["bias 0.01"])},
                     concept={"not balanced": "dense", "with a bias": "moe"}, log_x=True,
                     x="devices that share a layer's 31 experts", y="time, over that of even loads",
                     title="The more devices share the experts, the more an uneven load costs"),
          alt="Two lines from 1 on one device. The one without balancing rises to nearly eight with 31 devices, the one with a bias stays below two.",
          caption="Computed from recorded loads on all validation text (minimodels study balance-sweep), worst of three layers, "
                  "as if time were the number of tokens. No devices were used.")

# %% [markdown]
# On one device nobody waits. On 31, seven eighths of what the other devices cost would be spent on waiting. V3 decodes with one
# expert on each of 256 GPUs ([DeepSeek-V3](../book/references.md#deepseek-v3), section 3.4.2), and so this is not a detail to
# them. There is a cheaper way out, which V2 and its forerunners took: let each expert have a fixed capacity and *drop* the tokens
# that come too late. Chapter 7 planted that as a bug.
#
# ## Watch it collapse
#
# Now a live model: half a million parameters, two layers, sixteen experts and a shared one in both, two for each token. We keep
# two things at each step: MaxVio, and how much the tokens have in common where the gate reads them. For this second thing,
# take the mean of all hidden states $x$ and compare its squared length with the mean squared length of an $x$.

# %%
from minimodels.data import Batches, prepare
from minimodels.evaluate import evaluate
from minimodels.model import Transformer
from minimodels.studies.balance import LIVE, LIVE_BYTES, LIVE_MODEL
from minimodels.train import train

data = prepare("stdlib", vocab_size=4096, max_bytes=LIVE_BYTES)
batches = Batches(data.train, batch_size=LIVE.batch_size,
                  seq_len=LIVE.seq_len, seed=0)


# %%
def read_by_gates(model, tokens):
    """What each layer's gate reads: hidden states (T, D) a layer."""
    seen = []
    hooks = [gate.register_forward_pre_hook(
        lambda gate, args: seen.append(args[0])) for gate in model.gates]
    with torch.no_grad():
        model(tokens)
    for hook in hooks:
        hook.remove()
    return seen


# %% tags=["nbval-ignore-output"]
models, traces, common = {}, {}, {}


def shared(x):
    """Squared length of the mean vector, % of the mean squared length."""
    return 100 * (x.mean(0).norm()**2 / (x**2).sum(-1).mean()).item()


def watch(balance):
    """Train the live model and keep MaxVio and what tokens share."""
    torch.manual_seed(0)
    model = models[balance] = Transformer(LIVE_MODEL)
    traces[balance], common[balance] = [], []
    config = replace(LIVE, balance=balance, balance_weight=0.1)
    for record in train(model, batches, config):
        loads = [torch.tensor(load) for load in record.load]
        traces[balance].append([max_violation(load) for load in loads])
        if record.step % 5 == 0:
            read = read_by_gates(model, batches.at(500))
            common[balance].append([shared(x) for x in read])


# %% tags=["nbval-ignore-output"]
watch("none")
for step in (1, 20, 40, 80, 120):
    layers = [f"{v:.1f}" for v in traces["none"][step - 1]]
    print(f"step {step:3}: MaxVio {layers[0]} and {layers[1]}")

# %% tags=["hide-input", "nbval-ignore-output"]
steps = list(range(1, LIVE.steps + 1))
show.show(show.lines({f"layer {i + 1}": (steps, [v[i] for v in traces["none"]]) for i in (0, 1)}
                     | {"most possible": (steps, [16 / 2 - 1] * len(steps))},
                     concept={"layer 1": "moe", "layer 2": "moe"}, x="step", y="MaxVio of the batch",
                     title="Within forty steps one expert has most of the tokens, and nobody asked for it"),
          alt="Two curves that start below one, rise steeply to between five and seven within forty steps, and then sink to about three by step 120.",
          caption="This run, on this machine: no balancing. At 7 all tokens would choose the same two experts.")

# %% [markdown]
# Nobody told the gate to have a favourite. Where does it come from? The usual answer is *the rich get richer*: who is chosen
# learns, gets better, and is chosen again. That may be so, but getting better takes time, and this took forty steps. Look at the
# second thing that we kept:

# %% tags=["hide-input", "nbval-ignore-output"]
at = list(range(5, LIVE.steps + 1, 5))
show.show(show.lines({f"layer {i + 1}": (at, [v[i] for v in common["none"]]) for i in (0, 1)},
                     concept={"layer 1": "moe", "layer 2": "moe"}, x="step", y="squared length that all tokens share, %",
                     title="At first, learning makes all tokens alike; only then does it tell them apart"),
          alt="Two curves that rise within some twenty to thirty steps and then fall slowly; layer two reaches half or more, layer one about a third.",
          caption="This run: what the gates read of one batch that was not trained on; mean vector's squared length over the mean squared length.")

# %% [markdown]
# At the start hidden states have nothing in common. The first thing that the model learns is what helps *everywhere*, say that
# some tokens are frequent; it writes the same into every position, and for a while half of what the second gate reads is the
# same for all tokens. Split $x$ into that mean $m$ and the rest: $w_i \cdot x = w_i \cdot m + w_i \cdot (x - m)$. The first part
# does not depend on the token. **It is a head start for some experts, given to all tokens alike.** How large is it, beside what
# tells tokens apart?

# %% tags=["nbval-ignore-output"]
gates = models["none"].gates
for layer, (gate, x) in enumerate(zip(gates, read_by_gates(
        models["none"], batches.at(500))), start=1):
    start = gate.weight.detach() @ x.mean(0)                    # (E,)
    rest = (x - x.mean(0)) @ gate.weight.detach().T             # (T, E)
    print(f"layer {layer}: head starts spread by {start.std():.2f}, "
          f"tokens by {rest.std(0).mean():.2f}")

# %% [markdown]
# The two are of the same order, even now. The larger model of the first section goes all the way: MaxVio of its batches reaches
# 9.328, where 9.333 is the most that there is. For a while three experts have every token, and 28 have none. In 600 steps it
# finds only a part of the way back.
#
# Keep this picture: what has to be taken back is *one number for each expert*, the same
# for all tokens. The second remedy will do just that.
#
# ## First remedy: a second loss
#
# The older idea, from [GShard](../book/references.md#gshard) and [Switch](../book/references.md#switch): let the model pay for
# an uneven load. The load is a count, and a count has no gradient. So it is multiplied by something that has one. Let $f_i$ be
# the load of expert $i$ over the mean load, and $P_i$ the mean over tokens of its affinity, after each token's affinities have
# been divided by their sum:
#
# $$\begin{aligned} f_i &= c_i / \bar c \\ P_i &= \tfrac1T \sum_t s_{t,i} / \textstyle\sum_j s_{t,j} \\ L &= \alpha \sum_i f_i P_i \end{aligned} \tag{8.2}$$
#
# Take loads 8, 4, 4 and 0, so $f = (2, 1, 1, 0)$, and $P = (0.4, 0.3, 0.2, 0.1)$. The sum is $0.8 + 0.3 + 0.2 = 1.3$; with even
# $f$ or even $P$ it is 1. The [auxiliary loss](../book/glossary.md#auxiliary-loss) is added to the real one with a small weight
# $\alpha$. Its derivative by $P_i$ is $\alpha f_i$: each affinity is pushed down in proportion to how busy its expert is.
#
# > **Exercise 8.3** (the loss; medium, 15 minutes). Write `balance_loss(score, expert)`, the sum in (8.2) without $\alpha$.
# > Shapes `(T, E)` and `(T, K)`; the result has no axes. `torch.bincount(..., minlength=E)` counts.

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
# There is a choice hidden in the formula: *which* tokens are counted together? All of a batch, or each sequence by itself?

# %% tags=["remove-input"]
show.drawing("twoscopes",
             alt="Six tokens of code all went to expert 1, six of prose all to expert 2. Counted in each sequence the load is 6 and 0; counted together it is 6 and 6.",
             caption="The same twelve choices are as uneven as can be, and perfectly even.")

# %% [markdown]
# A loss over the batch leaves these two experts alone: one may become an expert for code and the other for prose. A loss within
# each sequence forbids it. Every sequence must use all experts, whatever it is about.
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
# The package has both, and the drawing's numbers come out, nearly: a sigmoid is never quite 0 or 1.

# %%
from minimodels.balance import batch_loss, sequence_loss

code = torch.tensor([[0.99, 0.01]]).expand(6, 2)
score = torch.cat([code, code.flip(-1)])                        # (T, E)
expert = score.argmax(-1, keepdim=True)                         # (T, K)
routing = Routing(score, expert, torch.ones(12, 1),
                  torch.bincount(expert.flatten()))
print(f"by sequence {sequence_loss(routing, 2):.2f}, "
      f"over the batch {batch_loss(routing):.2f}")

# %% [markdown]
# > **Margin.** V2 had three such losses, with weights 0.003 for experts, 0.05 for devices and 0.02 for what they send each other
# > ([DeepSeek-V2](../book/references.md#deepseek-v2), section 2.2).
#
# Whatever the scope, this remedy has a price. To lower $P_i$ the gate's *weights* must move, and hidden states with them, for
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
# > **Margin.** Published in August 2024, four months before V3, by DeepSeek's own people
# > ([Loss-free](../book/references.md#loss-free)).
#
# No gradient, no second loss, one number for each expert: what the head start calls for. Loads 8, 2, 1 and 1 with $\gamma =
# 0.01$ give $-0.01, +0.01, +0.01, +0.01$. How *much* too busy an expert is does not count.
#
# > **Exercise 8.5** (move it; easy, 5 minutes). Write `move_bias(bias, load, rate)` for two lists; return the new list. An
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
# Does it work? Take the lopsided model that you just trained, freeze it, and let only the biases of its second gate move. Four
# batches, read again and again. How many moves will it take, with small steps and with large ones?

# %% tags=["nbval-ignore-output"]
import copy

tokens = torch.cat([batches.at(step) for step in range(500, 504)])
x = read_by_gates(models["none"], tokens)[1]
frozen = {}
for rate in (0.001, 0.01, 0.1):
    gate = copy.deepcopy(models["none"].gates[1])
    trace = frozen[f"speed {rate:g}"] = []
    with torch.no_grad():
        for move in range(101):
            load = gate(x).load
            trace.append(max_violation(load))
            update_bias(gate, load, rate)
for name, trace in frozen.items():
    print(f"{name}: from {trace[0]:.2f} to {trace[-1]:.2f}")

# %% tags=["hide-input", "nbval-ignore-output"]
show.show(show.lines({name: (list(range(101)), trace) for name, trace in frozen.items()}, concept={name: "moe" for name in frozen},
                     x="moves of the bias", y="MaxVio", title="A frozen gate becomes even by its biases alone, if they neither creep nor jump"),
          alt="Three curves from the same height. With speed 0.001 it falls slowly, with 0.01 to near zero within thirty moves, with 0.1 it falls at once and then jumps up and down.",
          caption="This run: the second gate of the model above, frozen, on 4,096 tokens. Nothing else is trained.")

# %% [markdown]
# With 0.01 some thirty moves do it, and not a weight has changed. With 0.001 the same distance takes ten times as many. With 0.1
# the bias cannot rest: every expert is thrown over the mean and back. (Even 0.01 does not reach 0: near the goal it trembles by
# its own step.)
#
# ### The bias chooses and does not weigh
#
# The bias decides *who* works on a token. It must not decide how much that expert's answer counts:

# %% tags=["remove-input"]
show.drawing("chooses",
             alt="Four experts: the bias changes who is chosen, experts 2 and 3 instead of 1 and 2; the weights 0.75 and 0.25 come from the affinities 0.6 and 0.2 alone.",
             caption="One token, four experts, two of them for each token.")

# %% [markdown]
# Work it out both ways. Rightly, expert 2 weighs $0.6 / 0.8 = 0.75$ and expert 3, which is here only because it is idle, $0.25$.
# With the bias in the weights it is $0.5/1.2 = 0.42$ and $0.7/1.2 = 0.58$: the token would listen more to the
# one of the two that suits it less, and the more idle an expert is, the louder it would be. And a sum of affinity and bias can be
# 0 or negative; a share cannot.
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
# The bias sends many tokens elsewhere than to their first choice; the affinities stay. The auxiliary loss sends nobody
# elsewhere, since it has changed the wishes themselves. On a page with made-up tokens that costs nothing. In a model, the
# affinities were learnt for a reason.
#
# ### With the bias from the first step
#
# Train the live model again: same weights, same batches, and $\gamma = 0.01$.

# %% tags=["nbval-ignore-output"]
watch("bias")
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
                     title="The bias is late for the rush, and has it in hand after some sixty steps"),
          alt="Both curves rise in the first twenty to thirty steps; the one with a bias then falls below one, the other stays between three and five.",
          caption="This run, on this machine. The bias moves by 0.01 a step.")

# %% [markdown]
# The rush comes all the same, for a bias of 0.01 a step cannot keep up with it. After that the load is nearly even. Now compare
# the scores. In the recorded runs, which are this one with six other seeds, the balanced model needs more bits with five of the
# six, 0.0052 in the mean: a fifth of a percent. Balance is not free at this length of training. Is it later?

# %% [markdown]
# ## Measure it: thirteen ways
#
# The recorded runs have five times as many steps and the larger model of the first section: no balancing, the bias at five speeds,
# both losses at three weights, and V3's own mixture, a bias with a very weak loss on each sequence. One seed each: this is a
# search, not a verdict. MaxVio is that of the worst of three layers on unseen text.

# %%
show.table([{"balancing": arm,
             "MaxVio": f"{max(t['max_violation']):.2f}",
             "bits per byte": f"{t['bits_per_byte']:.4f}"}
            for arm, t in sweep.items()],
           caption="The number is the bias's speed, or the loss's weight.")

# %% tags=["hide-input"]
families = {"bias": [a for a in sweep if a.startswith("bias ") and "+" not in a], "loss by sequence": [a for a in sweep if a.startswith("sequence ")],
            "loss over the batch": [a for a in sweep if a.startswith("batch ")], "nothing": ["none"]}
points = {name: ([max(sweep[a]["max_violation"]) for a in arms], [sweep[a]["bits_per_byte"] for a in arms]) for name, arms in families.items() if arms}
show.show(show.lines(points, concept={name: "dense" if name == "nothing" else "moe" for name in points}, log_x=True,
                     x="MaxVio on unseen text, worst layer", y="bits per byte of unseen text",
                     title="Here evenness buys no bits; pressed for it by a loss on sequences, the model pays"),
          alt="One point a run: without balancing far to the right; the biases and the strong losses to the left; in height all lie close together.",
          caption=f"Recorded: minimodels study balance-sweep; one seed; {sweep['none']['hardware']}. Points of one method are joined in the order of its strength.")

# %% [markdown]
# <!-- figure pending: study balance-sweep -->
# Every speed from 0.001 to 0.03 brings MaxVio from 7 to below 0.75; the fastest, 0.1, ends at 1.6. And the scores? The biases lie
# within 0.012 bits per byte of one another, in no order, and the model without balance lies among them.
#
# The loss on each sequence does what its critics say. With weights of 0.001, 0.01 and 0.1 MaxVio is 3.39, 0.56 and 0.29: ever more
# even. And the scores are 1.6246, 1.6313 and 1.6367: ever worse. That is one seed, and no more than a hint. `minimodels
# study balance-quality` asks five, with the losses at 0.01, where they are about as even as the bias.

# %% tags=["hide-input"]
kept = ["none", "bias 0.001", "bias 0.01", "bias 0.1"]
over_time = {arm: ([v[0] for v in sweep[arm]["violation"]], [max(v[1:]) for v in sweep[arm]["violation"]]) for arm in kept if arm in sweep}
show.show(show.lines(over_time, concept={arm: "dense" if arm == "none" else "moe" for arm in over_time}, log_y=True,
                     x="step", y="MaxVio of the batch, worst layer",
                     title="A slow bias takes hundreds of steps, a fast one never rests"),
          alt="Without balancing MaxVio stays near nine at first and sinks slowly to about six. The biases fall below it one after the other, the faster the sooner.",
          caption="Recorded: minimodels study balance-sweep; every tenth step.")

# %% [markdown]
# With 0.001 the batch's MaxVio first falls below 1.5 at step 520 of 600; with 0.003 at 230, with 0.01 at 90, with 0.03 at 80; and
# with 0.1 at 230 again, to jump up soon after. (A single batch is more uneven than a long text: an expert expects 198 of its
# choices, and chance adds to that.) V3 chose 0.001, and had hundreds of thousands of steps for it to arrive. The paper that
# introduced the bias tried other speeds on a model of a billion parameters: 0.0001 was slow, 0.01 fluctuated
# ([Loss-free](../book/references.md#loss-free)). What is slow depends on how long you train. The distance, some tenths, does not.

# %% [markdown]
# ## Does the scope matter?
#
# Back to the question of the two sequences: is it the same to be even over a batch and to be even within each sequence? Train the
# live model twice more, with the loss over the batch and with the loss [on each
# sequence](../book/glossary.md#sequence-wise-loss). Both have the weight 0.1, which in so short a run
# balances about as well as the bias.
#
# > **Before you read on.** Four models: nothing, the bias, the loss over the batch, the loss by sequence. In which will the
# > number of an expert tell you *least* about whether its token was a keyword, a name or a comment?
# >
# > <details><summary>What we found</summary>
# >
# > **With the loss by sequence, or with nothing.** The two are close; the bias leaves the most. One seed, 120 steps.
# >
# > </details>

# %% tags=["nbval-ignore-output"]
watch("batch")
watch("sequence")

# %% [markdown]
# For each model: MaxVio over all unseen text, and the mean MaxVio within its sequences. And one more number: how many bits the
# number of an expert tells about the kind of its token, as Python's own `tokenize` labels it. That is [mutual
# information](../book/glossary.md#mutual-information); what chance would give, with labels shifted along the text, is taken off.

# %% tags=["nbval-ignore-output"]
from minimodels.studies.balance import (choices, labels, specialisation,
                                        window_violation)

g = torch.Generator().manual_seed(0)
kind, _ = labels(data)
T, E, rows = LIVE.seq_len - 1, LIVE_MODEL.n_experts, []
for name, model in models.items():
    experts = choices(model, data, LIVE.seq_len)                # (N, K) a layer
    whole = [torch.bincount(e.flatten(), minlength=E) for e in experts]
    told = [specialisation(kind[:len(e)], e, E, n_shifts=20) for e in experts]
    apart = [window_violation(e, T, E) for e in experts]
    row = {"MaxVio, all text": statistics.mean(map(max_violation, whole)),
           "in a sequence": statistics.mean(apart),
           "bits about the kind": statistics.mean(t[0] - t[1] for t in told)}
    rows.append({"balanced by": name}
                | {k: f"{value:.2f}" for k, value in row.items()})

# %% tags=["nbval-ignore-output"]
even = torch.randint(E, (1000 * T, 2), generator=g)
show.table(rows, caption="Means of two layers. By chance alone a sequence "
                         f"would have {window_violation(even, T, E):.2f}.")

# %% [markdown]
# Over all text the three remedies are about equally even. Within a sequence they are not: the loss by sequence presses each
# stretch of 127 tokens down to about 1.0, the other two leave it near 1.6 and 1.8. The last column shows what the freedom is used
# for. An expert of the bias tells most about the kind of its token, an expert of the loss by sequence clearly less; the loss over
# the batch lies between the two. So at our size, too, what is counted together decides how far experts differ; and a loss seems
# to take something besides, whatever its scope. Without balancing the experts tell little for another reason: few of them work.
#
# This is one seed and 120 steps. And to differ is a means. Is a model better for it? V3's paper [says
# so](#What-the-papers-measured).
# <!-- figure pending: study balance-quality -->

# %% [markdown]
# ## Keep a token at home
#
# Even experts do not yet mean little traffic. In V3 the 256 experts of a layer lie on eight nodes, 32 on each. A token is
# computed on one node, and must travel to each node that has one of its eight experts. If all sets of eight are equally likely,
# on how many nodes do they lie? A node is missed if all eight lie among the 224 experts elsewhere:
#
# $$ 8 \left( 1 - \binom{224}{8} \Big/ \binom{256}{8} \right) \tag{8.4}$$
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
# V3 allows four. The [node limit](../book/glossary.md#node-limit) is a second choice before the first. Each node gets a score,
# the sum of its two best biased affinities for this token; the four nodes with the highest scores are open, and the token takes
# its eight best experts among theirs. By hand, with four nodes of two experts, two nodes open, and four experts a token:

# %% tags=["remove-input"]
show.drawing("nodes",
             alt="Without a limit the experts with 0.9, 0.8, 0.7 and 0.65 lie on four nodes. With two nodes open, C with 0.7 and 0.6 and D with 0.65 and 0.5 win, because 1.3 and 1.15 exceed 1.0.",
             caption="Who is open is decided by a node's best two together. Here the two best experts stay closed.")

# %% [markdown]
# Look who is left out: the two best experts of all. They live alone. That is the price, and it is paid in affinity. In code,
# with groups of experts for nodes:

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
# Is that V3's rule? We ask our package and, as a second witness, Hugging Face's gate for DeepSeek-V3, at V3's numbers of experts,
# groups and choices, with random weights and biases.

# %%
from types import SimpleNamespace
from minimodels.config import ModelConfig
from transformers.models.deepseek_v3 import modeling_deepseek_v3

v3 = ModelConfig.preset("deepseek_v3")
small = replace(v3, d_model=64)                                 # V3's gate, narrower
g = torch.Generator().manual_seed(0)
weight = torch.randn(256, 64, generator=g) / 8
bias = 0.2 * torch.rand(256, generator=g) - 0.1
x = torch.randn(4096, 64, generator=g)

# %%
ours = Gate(small)
ours.load_state_dict({"weight": weight, "bias": bias})
theirs = modeling_deepseek_v3.DeepseekV3TopkRouter(SimpleNamespace(
    num_experts_per_tok=8, num_local_experts=256, hidden_size=64,
    routed_scaling_factor=2.5, n_group=8, topk_group=4,
    norm_topk_prob=True))
named = {"weight": weight, "e_score_correction_bias": bias}
print(theirs.load_state_dict(named))

# %%
with torch.no_grad():
    routing = ours(x)
    _, their_weight, their_expert = theirs(x)
hand = limited_choice(routing.score + bias, 8, 4, 8)
answers = {"package": routing.expert, "Hugging Face": their_expert}
for name, chosen in answers.items():
    same = torch.equal(hand.sort(-1).values, chosen.sort(-1).values)
    print(f"by hand = {name}: {same}, for {len(x):,} tokens")
ordered = [w.sort(-1).values for w in (routing.weight, their_weight)]
print("weights equal:", torch.allclose(*ordered, atol=1e-6))

# %% [markdown]
# Now count the nodes of these tokens, with the limit and without, beside the closed form:

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
# > **Margin.** For each node and layer: 7,168 numbers, a byte each on the way there and two on the way back, 21.5 KB. V3 has 58
# > layers with experts.
#
# Simulation and closed form agree, though the random gate of this cell is no trained one. The mean saving looks modest. What
# changes is the worst case: no token goes to more than four nodes, and a step waits for the worst. What is that in bytes? V3
# sends a token to its experts in FP8, one byte a number, and gets answers back in BF16, two (section 3.3.3). A node gets one
# copy, however many of its experts want it, and an eighth of the time the node is the token's own.

# %%
width, n_layers = v3.d_model, v3.n_layers - v3.n_dense_layers
a_node = width * (1 + 2)                 # there in FP8, back in BF16
for name, n in {"eight experts, each by itself": 8,
                "a copy a node, no limit": nodes(free).mean().item(),
                "a copy a node, limit 4": nodes(hand).mean().item()}.items():
    mb = n * 7 / 8 * a_node * n_layers / 1e6
    print(f"{name}: {mb:.1f} MB a token, "
          f"{mb / 50e3 * 1e6:.0f} microseconds at 50 GB/s")

# %% tags=["hide-input"]
limits = list(range(1, 9))
reached = {M: nodes(limited_choice(routing.score.detach() + bias, 8, M, 8)).mean().item() for M in limits}
show.show(show.lines({"nodes used": (limits, [reached[M] for M in limits]), "closed form, no limit": (limits, [closed_form] * 8)},
                     concept={"nodes used": "moe"}, x="nodes that are open to a token", y="nodes that its eight experts lie on, mean",
                     title="The limit bites up to five nodes; beyond that, chance keeps tokens near enough"),
          alt="A line that rises almost one for one until four and flattens towards the closed form near five and a third.",
          caption="Computed: V3's gate with random weights, 256 experts on eight nodes, eight a token, 4,096 tokens.")

# %% [markdown]
# V3's own argument goes on from here. Inside a node, NVLink is 3.2 times as fast as the network between nodes (160 against 50 GB
# a second, section 3.2.2). So a copy that has arrived may be handed to 3.2 experts of the node in the time of one trip. With four
# nodes that would be some 13 experts at the network's price of eight.
#
# Does a limit hurt? The full `cpu` model of this book, trained for 10,000 steps without one, has 16 experts and takes four. Impose
# a limit on it *afterwards*, in groups that mean nothing to it:

# %%
from minimodels.checkpoint import Run

run = Run.open(lab.data_file("checkpoints/cpu-long"))
trained = run.model()
text = data.valid_text()[:60_000]
ids = torch.tensor([0, *run.tokenizer.encode(text).ids])
rows = []
for groups in (4, 3, 2, 1):
    for gate in trained.gates:
        gate.config = replace(gate.config, n_groups=4, top_groups=groups)
    score = evaluate(trained, ids, n_bytes=len(text.encode()), seq_len=256)
    rows.append({"groups of four that are open": groups,
                 "bits per byte": round(score.bits_per_byte, 4),
                 "MaxVio, worst layer": round(max(map(max_violation, score.load)), 2)})
show.table(rows)

# %% [markdown]
# With half the groups closed it gets a little worse, with one open a lot. (These numbers are of a part of the validation text, and
# no model here was trained under a limit, which would let it arrange itself.)

# %% [markdown]
# ## Bugs that still train
#
# Balancing is easy to get wrong, and nothing complains: a model with lopsided experts is still a model. Four bugs lie ready in
# `minimodels.bugs.balance`, and `minimodels study balance-bugs` trains a model with each. <!-- figure pending: study balance-bugs -->
#
# > **Bugs that still train.**
# > - **The sign is flipped.** A busy expert becomes easier to choose. The collapse of this chapter's start is made permanent.
# > - **Wishes are counted.** The load that moves the bias is that of the affinities alone, as in V3's loss on sequences (eq.
# >   18), and not what was really sent. The bias never sees what it has done, and pushes on.
# > - **One sequence is counted.** One micro-batch, or one of several devices, stands for the batch. On several devices it is
# >   worse than noise: every copy of the model gets biases of its own.
# > - **The bias is in the weight.** It chooses, *and* weighs.
#
# Two of these are found by one comparison, a third by a symmetry. You write both.
#
# > **Exercise 8.8** (what it counts; medium, 10 minutes). Write `counts_what_it_sends(layer, h)`. `layer(h)` returns
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
# > `bias_only_chooses(gate, x)` that does it, and tells a right gate from one whose bias has got into the weights. `gate(x)`
# > returns a routing; leave `gate.bias` as you found it.

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
# The flipped sign passes both. No look at one step finds it; watch MaxVio for fifty. A run that logs its loss alone will not
# tell you.
#
# ## What the papers measured
#
# | Model | Balanced by | Perplexity | MaxVio |
# |---|---|---|---|
# | 1B | loss, weight 0.001 | 9.56 | 0.72 |
# | 1B | bias, speed 0.001 | 9.50 | 0.04 |
# | 3B | loss | 7.97 | 0.52 |
# | 3B | bias | 7.92 | 0.04 |
#
# These are perplexities from the paper that introduced the bias ([Loss-free](../book/references.md#loss-free)). Better
# and more even at once: it reads like a clean win for the bias. Then V3 asked *why*
# ([DeepSeek-V3](../book/references.md#deepseek-v3), section 4.5.3), and put a third way beside the two, a loss over the whole
# batch. These are validation losses:
#
# | Model | loss by sequence | bias | loss over the batch |
# |---|---|---|---|
# | 1B | 2.258 | 2.253 | 2.253 |
# | 3B | 2.085 | 2.080 | 2.080 |
#
# The loss over the batch does as well as the bias. So the gain came from the *scope*: from what is counted together. That a
# bias needs no gradient is handy, and it is not what made the difference.
#
# ## Does it pay here?
#
# > **Does it pay here?** **For speed, no; nothing here waits.** All our experts share one processor, so the time of a step hardly
# > depends on who does the work.
# >
# > - **At equal steps:** not in the short run, where the bias cost 0.0052 bits per byte in the mean of six seeds (from 0.0084 more
# >   to 0.0018 fewer). After 600 steps, with one seed, the biases lie on both sides of no balance at all.
# >   <!-- figure pending: study balance-quality -->
# > - **At equal wall clock:** (not run) the bias costs a handful of additions a step.
# > - **On several devices:** the unbalanced layer would take up to eight times as long with an expert on each device, the
# >   balanced one up to one and a half times.
# > - **At DeepSeek's scale:** 256 experts on as many GPUs wait for each other in every layer. There balance is not a matter of
# >   quality at all; without it the machine does not run.
#
# ## What production does
#
# - **V3** moved its biases by 0.001 a step for 14.3 trillion tokens and not at all for the last 500 billion; a loss on each
#   sequence with $\alpha = 0.0001$ was added against extremes within one. No token was dropped
#   ([DeepSeek-V3](../book/references.md#deepseek-v3), sections 2.1.2 and 4.2).
# - **V2** had three losses, for experts, devices and communication, and dropped tokens in training
#   ([DeepSeek-V2](../book/references.md#deepseek-v2), section 2.2).
# - **Serving** meets other texts than training. So the hottest experts are copied to further GPUs, by loads that are measured as
#   they serve: 32 such copies for prefill (section 3.4.1). The public [EPLB](../book/references.md#eplb) decides who is copied and
#   where; exercise 8.11 writes a small one.
# - **Precision.** A bias moves by tiny steps, and a short number swallows them: exercise 8.10. Hugging Face's class lists the
#   bias among what must stay in FP32.

# %% [markdown]
# > **Takeaways**
# > 1. A layer on many devices is as fast as its busiest expert: MaxVio + 1 times the time, with one expert on each.
# > 2. Without balancing, our gates rushed to a few experts within some thirty steps, when the first thing learnt makes all tokens alike.
# > 3. A loss changes what tokens want; a bias changes who serves them. The bias chooses and must not weigh.
# > 4. What is counted together decides how far experts may differ: an even batch may hold lopsided sequences, and they may be right.
# > 5. Wrong balancing trains on. Log MaxVio beside the loss.
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
# less than half of that is rounded away. On the way the steps are not 0.001 long, either: just below 0.5 they are 0.002.
#
# </details>
#
# > **Exercise 8.11** (copy the hottest; medium, 45 minutes). You serve the unbalanced layer of the first section on 36 devices,
# > one expert on each, and five devices are free. Give them copies: always copy the expert whose copies have the most work each,
# > and let copies share its tokens evenly. How many times as long as with even loads does a step take, before and after? And
# > with the loads of the run with `bias 0.01`?
#
# <details><summary>Solution</summary>
#
# ```python
# def with_copies(load, n_free):
#     copies = [1] * len(load)
#     for _ in range(n_free):
#         work = [n / c for n, c in zip(load, copies)]
#         copies[work.index(max(work))] += 1
#     even = sum(load) / sum(copies)
#     return max(n / c for n, c in zip(load, copies)) / even, copies
#
# for arm in ("none", "bias 0.01"):
#     load = sweep[arm]["load"][0]
#     for n_free in (0, 5):
#         times, copies = with_copies(load, n_free)
#         print(arm, n_free, round(times, 2), max(copies))
# ```
#
# Unbalanced, a step takes 7.96 times as long as with even loads, and 4.29 times with the five copies: 36 devices in place of 31
# to halve the waiting. Balanced, it is 1.32 without copies and 1.34 with them: the copies go to the five busiest in turn, and a
# sixth is left nearly as busy, while the even share of 36 devices is smaller. Copies are for the few that stick out.
#
# </details>
#
# > **Exercise 8.12** (a better controller; hard, 1 hour). The sign throws away how far an expert is off. Replace it with a step in
# > proportion, $\gamma (\bar c - c_i) / \bar c$, and compare on the frozen gate above: how many moves to a MaxVio below 0.1, and
# > where does each end after 300, for several $\gamma$? Then think of a fresh batch at each move. Which of the two would you
# > trust, and why might DeepSeek have kept the sign?
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
#     return first, round(min(trace[-2:]), 3)
#
# x = read_by_gates(models["none"], tokens)[1]
# for name, rule in {"sign": torch.sign, "proportion": lambda off: off}.items():
#     print(name, {rate: settle(rule, rate) for rate in (0.003, 0.01, 0.03, 0.1)})
# ```
#
# On our run the sign with 0.01 never gets below 0.1, but stays at 0.14, because every expert steps over the mean and back; with
# 0.003 it takes 80 moves. In proportion, 0.03 takes 8 moves and ends at 0.006: steps shrink as the goal comes near. On a frozen
# gate and one batch it is the better controller. In training the load of a batch is noisy and the gate moves; the paper that
# introduced the bias tried it and found the load more even and the perplexity a little higher, 9.53 against 9.50
# ([Loss-free](../book/references.md#loss-free)). And a sign knows no scale: the same $\gamma$ does for any batch.
#
# </details>
#
# > **Next: [More than one token at a time](09_mtp.ipynb).** Every place in a text predicts one token. What if it had to predict two?
