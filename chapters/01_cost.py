# ---
# jupyter:
#   book:
#     number: 1
#     reading: 75 min
#     cpu: 20 s, 0.6 GB
#     needs: "Python, and what a matrix times a vector is; nothing about neural networks"
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: book
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What did it cost?
#
# [Open in Colab](https://colab.research.google.com/github/minimodels/small-models-big-claims/blob/main/chapters/01_cost.ipynb)
#
# > *A price is a product. Ask for its factors.*
#
# > **You will be able to**
# > - count the 671 billion parameters of DeepSeek-V3 from its published configuration, and say how few of them work at a time;
# > - turn a model's size into operations, operations into hours of a GPU, and hours into days and dollars, and back;
# > - check a figure that nobody has audited against figures that were published elsewhere;
# > - take "95 percent cheaper" apart, and see which part is DeepSeek's doing;
# > - check how this book counts a model's operations, and measure how much of your own machine they use.
#
# ## A number that nobody could check
#
# On 27 January 2025 the chip maker Nvidia lost 17 percent of its value, almost 600 billion dollars
# ([Nvidia 2025](../book/references.md#nvidia-2025)). In those days the press was repeating the last entry of a small table in a
# technical report of the month before:
#
# **\$5.576 million**
#
# > **Margin.** [DeepSeek-V3, Table 1](../book/references.md#deepseek-v3). Nvidia's loss was a hundred thousand times as much.
#
# That, says the table, is what it cost to train the language model DeepSeek-V3. In the articles that this book tests it became
# the price of the whole undertaking, then a saving of 95 percent, then the price of another model. Nobody outside has audited it.
# It looks as if you could only believe it or not.
#
# There is a third way. Nineteen twentieths of the sum are a product of five factors. The work on a token and the peak of the chip
# anybody can count or look up. The use of the chip was published later, for another purpose. The tokens we have to take from the
# report, and the price is an assumption that it states. So do what an auditor does: build the bill from below, and see
# whether it comes out. It takes a pencil's worth of arithmetic, and five words.
#
# - A [token](../book/glossary.md#token) is a piece of text: a word, or a part of one. A language model predicts the next.
# - A [parameter](../book/glossary.md#parameter) is a number that training adjusts. Nearly all stand in matrices. Inside the model a
#   token is a row of numbers, which the matrices multiply, one [layer](../book/glossary.md#layer) after another.
# - An [expert](../book/glossary.md#expert) is a bundle of such matrices that is used for some tokens and rests for the others.
# - A [FLOP](../book/glossary.md#flop) is one multiplication, or one addition, of two numbers. A GFLOP is $10^9$ of them. FLOPS is
#   how many a machine does in a second; TFLOPS are $10^{12}$ a second, and *peta* is $10^{15}$.
# - A [GPU-hour](../book/glossary.md#gpu-hour) is one graphics processor for an hour. Those of V3 were Nvidia's H800.

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
from dataclasses import replace

import torch
from minimodels import cost, exercises, lab, ledger, show
from minimodels.config import ModelConfig
from minimodels.explorables import TrainingCost

check = exercises.load("cost")
print(lab.tier())

# %% tags=["remove-input"]
show.drawing("bill",
             alt="The work on a token times tokens gives operations; divided by a GPU's peak and the share of it that is used, GPU-hours; times the price of an hour, dollars.",
             caption="The whole chapter in one picture. Heavy: the five factors of the bill. The rest follows from them.")

# %% [markdown]
# ## What the press said
#
# Twenty-two of the claims that this book tests can be weighed with this arithmetic and a few documents. Here are six. The others are
# answered [with them at the end](#The-claims-again).

# %% tags=["remove-input"]
ledger.show("C01", "C02", "C08", "C12", "C14", "C16", form="told")

# %% [markdown]
# > **Before you read on.** DeepSeek-V3 has 671 billion parameters. What share of them works on any one token?
# >
# > <details><summary>What we found</summary>
# >
# > **5.6 percent.** 37.55 billion, which the next section counts.
# >
# > </details>
#
# ## Build the bill
#
# ### One: the parameters
#
# V3's configuration is a short public file ([DeepSeek-V3 code](../book/references.md#deepseek-v3-code)). Inside the model a token
# is a row of 7,168 numbers. There are 61 layers. Each looks back at the earlier tokens (that is
# [attention](../book/glossary.md#attention), chapter 3), then passes the token through small networks. In the first three layers
# there is one such network, the same for all tokens. In the other 58 there are 256 **routed** experts, of which a
# [gate](../book/glossary.md#gate) chooses eight for each token, and one **shared** expert, which every token passes.
#
# A network of this kind has three matrices: two go from $D$ numbers up to $D_f$, side by side, and one comes back down. In V3's
# experts $D_f$ is 2,048.
#
# > **Exercise 1.1** (an expert; easy, 2 minutes). Write `expert_weights`: how many parameters has an expert with three matrices
# > between `d_model` and `d_expert` numbers, and nothing else?

# %%
def expert_weights(d_model, d_expert):
    ...


# %%
check.expert_weights(expert_weights)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def expert_weights(d_model, d_expert):
#     return 3 * d_model * d_expert
# ```
#
# For V3: $3 \cdot 7{,}168 \cdot 2{,}048 = 44$ million. One expert has as many parameters as 34 of the models that you will
# train in chapter 5.
#
# </details>
#
# Now all of them. Only attention is taken from the package here; you will count it yourself in chapter 6. (The **embedding** is the
# table that turns a token into its row, and the **head** turns rows into guesses. **Norms** keep the rows at one size, chapter 4.)

# %%
D, vocabulary = 7168, 129_280
layers, dense_layers = 61, 3
experts, chosen, shared = 256, 8, 1
expert = 3 * D * 2048                     # 44 million
moe_layers = layers - dense_layers

v3 = ModelConfig.preset("deepseek_v3")    # sizes alone: nothing is built
everything = {
    "routed experts": moe_layers * experts * expert,
    "shared experts": moe_layers * shared * expert,
    "first layers": dense_layers * 3 * D * 18_432,    # wider networks
    "attention": v3.parameters["attention"],
    "embedding, head": 2 * vocabulary * D,
    "gates": moe_layers * experts * D,       # a score for each expert
    "norms": (2 * layers + 1) * D}           # two a layer, one at the end
print(f"by hand  {sum(everything.values()):,}")
print(f"package  {v3.n_params:,}")

# %% [markdown]
# 671.03 billion. The paper's 671 is counted, not believed. Now let one token through. Everything works on it except most of the
# routed experts, of which it meets 8 in 256:

# %%
at_work = dict(everything)
at_work["routed experts"] = moe_layers * chosen * expert
show.table([{"part": part, "all, billions": n / 1e9,
             "at work on a token": at_work[part] / 1e9}
            for part, n in everything.items()])
print(f"at work: {sum(at_work.values()) / 1e9:.2f} billion, "
      f"{sum(at_work.values()) / sum(everything.values()):.1%}")

# %% tags=["remove-input"]
show.drawing("sparse",
             alt="671 small squares, one for each billion parameters of DeepSeek-V3: 654 for the routed experts, of which 20 are filled, and 17 for everything else, all filled.",
             caption="DeepSeek-V3, a square for each billion parameters. Filled: at work on one token. Which of the experts' squares are filled changes from token to token.")

# %% [markdown]
# The paper and the articles say 37 billion. You have counted 37.55 with the embedding, of which a token looks up one row and
# multiplies nothing; without it, 36.6. (DeepSeek's page for the weights says 36.7, *with* the embedding. By our count it is not
# in there.) Ninety-seven of a hundred parameters sit in routed experts, and at any token nearly all of these rest.
#
# > **Exercise 1.2** (both counts; medium, 5 minutes). Write `count_both`. A model has `n_layers` layers of experts. Each has
# > `n_experts` routed ones, of which `top_k` work on a token, and `n_shared` shared ones; an expert has `per_expert` parameters.
# > `rest` parameters stand elsewhere. Return two numbers: all parameters, and those at work on a token.

# %%
def count_both(n_layers, n_experts, top_k, n_shared, per_expert, rest):
    ...


# %%
check.count_both(count_both)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def count_both(n_layers, n_experts, top_k, n_shared, per_expert, rest):
#     total = n_layers * (n_experts + n_shared) * per_expert + rest
#     active = n_layers * (top_k + n_shared) * per_expert + rest
#     return total, active
# ```
#
# </details>
#
# ### One token, or many?
#
# Two articles say that at no moment more than 37 billion parameters are active. Look at the last words of the drawing's caption
# before you agree. A machine seldom works on one token. What does a *batch* of tokens touch?
#
# > **Exercise 1.3** (a crowd; medium, 10 minutes). Each of `n_tokens` tokens draws `top_k` different experts out of `n_experts`,
# > all equally likely. How many experts get at least one token, on average? Write `touched`.

# %%
def touched(n_experts, top_k, n_tokens):
    ...


# %%
check.touched(touched)

# %% [markdown]
# <details><summary>Hint</summary>
#
# One token leaves a given expert alone with probability $1 - K/E$. What about all of them together?
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def touched(n_experts, top_k, n_tokens):
#     left_alone = (1 - top_k / n_experts) ** n_tokens
#     return n_experts * (1 - left_alone)
# ```
#
# </details>
#
# The formula is short, so do not trust it: draw experts at random, and count.

# %%
generator = torch.Generator().manual_seed(0)
sizes, formula, drawn = [1, 4, 16, 64, 128, 256], [], []
for n in sizes:
    counts = []
    for _ in range(100):
        score = torch.rand(n, experts, generator=generator)
        counts.append(len(score.topk(chosen).indices.unique()))
    drawn.append(statistics.mean(counts))
    formula.append(experts * (1 - (1 - chosen / experts) ** n))
print("tokens ", *(f"{n:6}" for n in sizes))
print("formula", *(f"{x:6.1f}" for x in formula))
print("drawn  ", *(f"{x:6.1f}" for x in drawn))

# %% tags=["hide-input"]
outside = (sum(everything.values()) - everything["routed experts"]) / 1e9
tokens = [2**i for i in range(10)]
awake = [outside + everything["routed experts"] / 1e9 * (1 - (1 - chosen / experts) ** n) for n in tokens]
show.show(show.lines({"in use": (tokens, awake), "in memory": (tokens, [671.03] * len(tokens))}, x="tokens computed together",
                     y="billions of parameters", log_x=True, concept={"in use": "moe", "in memory": "dense"},
                     title="37 billion parameters work on one token, nearly all 671 on a small batch"),
          alt="The line of parameters in use rises from 38 billion with one token to 277 with sixteen and reaches 671 at about two hundred and fifty.",
          caption="Computed from V3's configuration, embedding included, every expert equally likely. Real gates are less even, so they touch fewer.")

# %% [markdown]
# Sixteen tokens wake 102 of the 256 experts of a layer, 128 tokens wake 252. One conversation on your desk may come close to the
# 37 billion while the model writes; when it reads your prompt, it touches far more. A training step, which takes millions of
# tokens at once, uses everything. That is the first lesson about sparsity: it saves *work*, and it does not save *memory*. The
# machine has to hold all 671 billion numbers for the 37 billion that it multiplies.
#
# ### Two: operations
#
# How much work is a parameter? Take a matrix of two rows and three columns, and a token of three numbers:
#
# $$ \begin{pmatrix} 1 & 2 & 0 \\ 3 & 0 & 1 \end{pmatrix} \begin{pmatrix} 2 \\ 1 \\ 5 \end{pmatrix} = \begin{pmatrix} 4 \\ 11 \end{pmatrix} \tag{1.1}$$
#
# Each of the six weights is multiplied once, and each product is added to a sum: twelve operations, **two for each weight**.
# That is the forward pass, which predicts. To learn, the model also goes backward, and asks how its mistake would change with
# each number: the [gradient](../book/glossary.md#gradient). For the weights that is six numbers, each one product, added to those of
# the other tokens: twelve operations. For the token, as the layer before needs it, that is three, each a sum of two products: twelve more.

# %% tags=["remove-input"]
show.drawing("six",
             alt="Three products of one matrix: forward, weights times input gives output; backward, weights times the output's gradient gives the input's gradient, and input times the output's gradient gives the weights' gradient. Two operations a weight each, six in all.",
             caption="What one matrix has to do for one token of training.")

# %% [markdown]
# Two and four are six. With $N$ parameters at work, training on one token takes
#
# $$ \text{FLOPs} = 6\,N \tag{1.2}$$
#
# ([scaling laws](../book/references.md#scaling-laws), section 2.1). Torch can count what it really does. One matrix, fifty
# tokens:

# %%
matrix = torch.nn.Linear(300, 200, bias=False)
x = torch.randn(50, 300, requires_grad=True)
with cost.counter() as count:
    matrix(x).sum().backward()
print(f"torch counts {count.get_total_flops():,}")
print(f"6 N a token  {6 * 300 * 200 * 50:,}")

# %% [markdown]
# > **Exercise 1.4** (a product; medium, 5 minutes). Write `product_flops(m, k, n)` for the product of an `(m, k)` and a `(k, n)`
# > matrix: return the FLOPs of the forward pass, and those of the backward pass, if both matrices need a gradient.

# %%
def product_flops(m, k, n):
    ...


# %%
check.product_flops(product_flops)

# %% [markdown]
# <details><summary>Solution</summary>
#
# The result has $m \cdot n$ numbers, each a sum of $k$ products. One gradient is an $(m, n)$ times an $(n, k)$ matrix, the other
# a $(k, m)$ times an $(m, n)$: the same three sizes in another order.
#
# ```python
# def product_flops(m, k, n):
#     forward = 2 * m * k * n
#     return forward, 2 * forward
# ```
#
# </details>
#
# By (1.2) V3 should take six times 37.55 billion. It does not, quite, for two reasons that pull in opposite directions. The
# embedding is looked up and not multiplied. And attention compares each token with those before it, which takes operations and
# no parameters: its **scores**. V3 read texts of 4,096 tokens, so a token looks back, on average, at half of them (the code calls that
# *causal*). For each it multiplies, in 128 heads of a layer, the 192 numbers of a key and the 128 of a value (chapter 6).

# %%
multiplied = sum(at_work.values()) - vocabulary * D
scores = 3 * 2 * layers * 128 * (192 + 128) * 4097 / 2
bare = replace(v3, mtp_depth=0)      # without the second guess, chapter 9
flops = cost.forward_flops(bare, seq_len=4096, causal=True)
per_token = {part: 3 * n / 4096 / 1e9 for part, n in flops.items() if n}
print(f"six times 37.55:       {6 * 37.55:.1f} GFLOP a token")
print(f"without the embedding: {6 * multiplied / 1e9:.1f}")
print(f"with the scores:       {(6 * multiplied + scores) / 1e9:.1f}")
print(f"package, by parts:     {sum(per_token.values()):.1f}")

# %% tags=["hide-input"]
names = {"experts": "routed experts", "attention": "attention, its matrices", "scores": "attention, its scores", "shared": "shared experts",
         "dense": "first layers", "head": "head", "gate": "gates"}
show.show(show.bars({words: round(per_token[part], 1) for part, words in names.items()}, unit="GFLOP to train on one token",
                    concept={"routed experts": "moe", "shared experts": "moe", "attention, its matrices": "attn", "attention, its scores": "attn",
                             "first layers": "dense"},
                    title="Routed experts do half of the work, and attention most of the rest"),
          alt="Bars: routed experts 122.6, attention's matrices 68.5, its scores 30.7, shared experts 15.3, first layers 7.1, head 5.6, gates 0.6 GFLOP.",
          caption="Counted by minimodels.cost from V3's configuration: texts of 4,096 tokens, each token looking back at those before it; without the module that guesses a second token.")

# %% [markdown]
# They hold ninety-seven percent of the parameters. Five months after the report, DeepSeek's engineers printed how much V3 computes:
# **250 GFLOP** for each token of training ([ISCA 2025, Table 2](../book/references.md#isca-2025)). Your count says 250.5. The table
# also has V2, DeepSeek's model of May 2024, and Meta's Llama 3.1 405B. That one is [**dense**](../book/glossary.md#dense): everything works on
# every token. A model with experts that rest is **sparse**.

# %%
from minimodels.explorables.training_cost import LLAMA_405B, V2

table = (("DeepSeek-V3", v3, 250), ("DeepSeek-V2", V2, 155),
         ("Llama 3.1 405B", LLAMA_405B, 2448))
for name, config, said in table:
    counted = cost.flops_per_token(config, seq_len=4096) / 1e9
    print(f"{name:15} counted {counted:7.1f}   printed {said:5,}")

# %% [markdown]
# > **Margin · What we could not reproduce.** The table's 394 for "Qwen-72B" is less than six times 72 billion, which is 432.
# > Exercise 1.12 finds the one percent that Llama is off.
#
# A dense model of 405 billion parameters computes 9.8 times as much for a token as a sparse one of 671. *This* is the saving. It
# is real, it is large, and anybody can count it. What remains is to see how much of it arrives as money.
#
# ### Three: hours and days
#
# V3 read 14.8 trillion tokens, says its report. So the whole run took

# %%
run_flops = 250e9 * 14.8e12
print(f"{run_flops:.2e} operations")
years = run_flops / 8e9 / (365.25 * 86_400)
print(f"eight billion people, one a second: {years / 1e6:.0f} million years")

# %% [markdown]
# > **Margin · Eight bits.** V3 did most of its products with 8-bit numbers ([report](../book/references.md#deepseek-v3), Section 3.3.1), for
# > which the same chip's peak is twice as high. DeepSeek, like everybody, quotes the share of the 16-bit peak, so that runs can be
# > compared. So do we, and come back to it.
#
# A GPU has a [peak](../book/glossary.md#peak): so many operations a second if it did nothing but multiply. For 16-bit numbers it is
# 989 TFLOPS on the H100. The H800, made to comply with export rules, computes as fast and talks to its neighbours more slowly, at
# 400 in place of 900 GB/s ([GPU data sheets](../book/references.md#gpu-data-sheets);
# [ISCA 2025](../book/references.md#isca-2025), section 4.1). So one GPU would need 119 years, and 2,048 of them three weeks. The
# report says 2.664 million GPU-hours, more than twice as long.
#
# > **Exercise 1.5** (the share; easy, 5 minutes). Guess first: of what the GPUs could have done in these hours with 16-bit numbers,
# > how much did they do? Then write `share_of_peak(gflop_per_token, tokens, gpu_hours, peak_tflops)`, and call it with V3's four
# > numbers: `250, 14.8e12, 2.664e6, 989`.

# %%
def share_of_peak(gflop_per_token, tokens, gpu_hours, peak_tflops):
    ...


# %%
check.share_of_peak(share_of_peak)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def share_of_peak(gflop_per_token, tokens, gpu_hours, peak_tflops):
#     done = gflop_per_token * 1e9 * tokens
#     possible = gpu_hours * 3600 * peak_tflops * 1e12
#     return done / possible
# ```
#
# </details>

# %%
used = cost.utilisation(run_flops, gpu_hours=2.664e6, peak_flops=989e12)
back = cost.gpu_hours(run_flops, peak_flops=989e12, utilisation=0.3894)
print(f"share of the peak: {used:.2%}, {used * 989:.0f} TFLOPS a GPU")
print(f"days on 2,048 GPUs: {cost.days(2.664e6, n_gpus=2048):.1f}, "
      f"with all stages {cost.days(2.788e6, n_gpus=2048):.1f}")
print(f"hours from operations and 38.94%: {back / 1e6:.3f} million")

# %% [markdown]
# Stop here for a moment, because this is the heart of the chapter. The hours stand in one document, of December 2024. In May 2025
# another prints what was *measured* in a training step: 272.8 billion tokens a day, **385 TFLOPS, 38.94 percent**
# ([ISCA 2025, Table 4](../book/references.md#isca-2025)). At that pace 14.8 trillion tokens take 54.3 days; by the hours they took 54.2.
#
# Look at what was compared. The 386 TFLOPS that you get from the hours and the measured 385 contain the same 250, so their agreement is that of two paces. Your count does the
# other half of the work: it turns a pace into a share of the peak, and says that this share is possible. Whoever made up the
# hours would have had to make up a believable speed to fit them. Llama's authors report 38 to 43 percent for theirs
# ([Llama 3](../book/references.md#llama-3), Table 4); by your check its published hours mean 35. So much slack there is.
#
# This share is called [MFU](../book/glossary.md#mfu), model FLOPs utilization. Each by its own convention, it was 21 percent for
# OpenAI's GPT-3 of 2020 and 46 for Google's PaLM of 2022 ([PaLM](../book/references.md#palm), Table 3). The rest goes to waiting, for
# other GPUs and for memory.
#
# What does the check *not* show?
#
# - **Runs that failed** do not appear in it.
# - **Everything is DeepSeek's word:** the tokens, the hours, the later pace. They fit together, and more an outsider cannot see.
# - **Eight bits widen the slack.** Counted against the higher peak where V3 used it, 39 percent become about 22 (Exercise 1.11), and
#   half the hours would mean 45: nothing impossible.
# - **Conventions.** V3 trains a second, smaller guess beside the first (chapter 9), which the 250 leaves out. With it the package
#   counts 261 GFLOP, and the same hours mean 41 percent.
#
# Without the second paper, a figure that was five times too small would still not have passed. One that was half as large would have.
#
# ### Four: dollars
#
# The last factor is a price. The report takes two dollars for an hour of an H800, and calls it an assumption. And after the run that
# you have checked come two short ones: with longer texts, and the **post-training** that teaches the model to answer.

# %%
stages = {"pre-training": 2664, "longer texts": 119, "post-training": 5}
show.table([{"stage": stage, "thousand GPU-hours": hours,
             "million dollars": 2 * hours / 1e3}
            for stage, hours in stages.items()])
print(f"in all: {2 * sum(stages.values()) / 1e3:.3f} million dollars")

# %% [markdown]
# So the famous sum is **hours times a round number**. 2,664 of the 2,788 thousand hours pass the check; for the other 124 there is
# nothing to check them with. What an hour really cost DeepSeek is not published. The report itself says, in its first section,
# what is left out: research, and experiments on architecture, algorithms and data.

# %% tags=["remove-input"]
show.drawing("scope",
             alt="A large dashed frame without figures: runs that failed and small experiments, people and data, the machines themselves. In its middle a box, the final run: 5.328 million dollars of pre-training, 0.238 of longer texts, 0.010 of post-training. Below it a smaller box, R1: 0.294 million.",
             caption="What is in the sum, and what is around it. Only the boxes with a full line have published figures; their bars are to scale.")

# %% [markdown]
# How much does that matter? Let two unknowns move: the price of an hour, and how many runs' worth of experiments came before.

# %% tags=["hide-input"]
prices = [0.5 * i for i in range(2, 11)]
bills = {f"{k} {'run' if k == 1 else 'runs'}": (prices, [2.788 * price * k for price in prices]) for k in (1, 2, 5, 10)}
fig = show.lines(bills, x="dollars a GPU-hour", y="million dollars", log_y=True,
                 title="One run costs 3 to 14 million dollars; the trials before it may cost more")
fig.update_layout(yaxis={"tickvals": [2, 5, 10, 20, 50, 100]})
show.show(fig,
          alt="Four rising lines on a logarithmic axis. One run goes from 2.8 to 13.9 million dollars between one and five dollars an hour; ten runs from 28 to 139.",
          caption="Computed: 2.788 million GPU-hours, times price, times runs. How many runs' worth of trials V3 took is not published; 2, 5 and 10 are examples.")

# %% [markdown]
# The price can move the sum by a factor of two or three, the experiments by ten, and nobody outside knows by how much. Analysts
# put the servers of DeepSeek and its parent at 1.6 billion dollars ([SemiAnalysis 2025](../book/references.md#semianalysis-2025); an
# estimate, read in reports). That is 287 times the famous sum, and no contradiction to it: one is a kitchen, the other the
# ingredients of one dinner.
#
# **R1**, the model that the headlines were about, was trained *from* V3. Its bill came eight months later, with the paper in
# *Nature*: 64 nodes of eight GPUs ran for 198 hours for a first version, R1-Zero, and for 80 hours for R1; making data for it took
# 5 thousand GPU-hours ([DeepSeek-R1](../book/references.md#deepseek-r1); we read the second arXiv version, Table 7 of the supplement).
#
# > **Exercise 1.6** (R1's rent; easy, 5 minutes). Write `rent(stages, price)`. `stages` is a list of `(nodes, GPUs in a node,
# > hours)`. Return the GPU-hours of all stages together, and what they cost.

# %%
def rent(stages, price):
    ...


# %%
check.rent(rent)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def rent(stages, price):
#     hours = sum(nodes * gpus * each for nodes, gpus, each in stages)
#     return hours, hours * price
#
# rent([(64, 8, 198), (64, 8, 80)], 2)
# ```
#
# 142,336 GPU-hours. With the 5 thousand for the data, a stage `(1, 1, 5000)`, they are the published 147 thousand, and (from rounded
# hours) 0.294 million dollars: a twentieth of what V3 had cost.
#
# </details>
#
# Now turn all the factors yourself. Start from V3, and find a single change *of the model* that makes it cost more than eighty
# million dollars. Then choose GPT-3, on the chips of its day. It took a twelfth of V3's operations. Is its rent lower?

# %%
TrainingCost.preset("DeepSeek-V3")

# %% [markdown]
# Several single changes do it, but only one of them is a design: the second slider. Let every parameter work, and V3 costs
# 87 million dollars, sixteen times as much. And GPT-3 is the surprise. For a twelfth of the operations, at two dollars for an hour
# of an old chip, its rent would be 6.6 million, *higher* than V3's. An H800 has eight times the peak of a V100, and V3's engineers
# used nearly twice as large a share of it. Whoever compares two models across four years measures the chips, above all.
#
# ## Three numbers that cannot all be true
#
# One undated article, on a DeepSeek model of May 2024, has three figures for its bargain. It reached GPT-4's level at 6 percent of
# the training cost. It cost 1.4 million dollars, where others spend 100 million. And it took 210
# [petaflop/s-days](../book/glossary.md#petaflops-day), where GPT-4 took 3,640: a machine of $10^{15}$ operations a second, running for
# a day.
#
# > **Exercise 1.7** (an older unit; easy, 5 minutes). Write `as_petaflop_days(n_active, n_tokens)` by the rule of six. Then try
# > it on GPT-3: 175 billion parameters, 300 billion tokens. Does the answer look familiar?

# %%
def as_petaflop_days(n_active, n_tokens):
    ...


# %%
check.as_petaflop_days(as_petaflop_days)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def as_petaflop_days(n_active, n_tokens):
#     return 6 * n_active * n_tokens / (1e15 * 86_400)
#
# as_petaflop_days(175e9, 300e9)
# ```
#
# 3,646. The 3,640 that the article gives to GPT-4 is GPT-3's, printed in its paper of 2020
# ([GPT-3](../book/references.md#gpt-3), appendix D).
#
# </details>
#
# Three figures for one thing can be compared, because the chain turns each into the others:

# %%
print(f"210 of 3,640 petaflop/s-days: {210 / 3640:.1%}")
print(f"1.4 of 100 million dollars:   {1.4 / 100:.1%}")
hours = cost.gpu_hours(210 * cost.PETAFLOP_S_DAY, peak_flops=989e12,
                       utilisation=0.3894)
print(f"210 petaflop/s-days at V3's speed: {hours:,.0f} GPU-hours, "
      f"{cost.dollars(hours, price_usd_per_hour=2):,.0f} dollars")

# %% [markdown]
# The 6 percent are 210 over 3,640, rounded, so these two are one number. The dollars fit neither: 1.4 of 100 million is 1.4 percent,
# and 210 petaflop/s-days at two dollars an hour would be 26 thousand dollars. And 3,640 belongs to another model. What did models
# really take? (By the rule of six, so without scores; with them V3 has 42,800.)

# %% tags=["hide-input"]
def six(n_active, n_tokens):
    return 6 * n_active * n_tokens / cost.PETAFLOP_S_DAY


taken = {"the article, “DeepSeek”": 210, "DeepSeekMoE 16B": six(2.8e9, 2e12), "the article, “GPT-4”": 3640, "GPT-3": six(175e9, 300e9),
         "DeepSeek-V2": six(21e9, 8.1e12), "DeepSeek-V3": six(37e9, 14.8e12)}
show.show(show.bars({name: round(days) for name, days in taken.items()}, unit="petaflop/s-days of training", concept={name: "moe" for name in taken if name.startswith("DeepSeek")},
                    title="210 petaflop/s-days would not have trained even DeepSeek's 16B model"),
          alt="Bars: the article's 210, DeepSeekMoE 16B 389, the article's 3,640 for GPT-4 and 3,646 for GPT-3, DeepSeek-V2 11,810, DeepSeek-V3 38,030.",
          caption="Six operations for each active parameter and token, sizes from the papers; grey: the article's two figures, and GPT-3.")

# %% [markdown]
# DeepSeek's model of that May was V2, and it took fifty-six times as much. Where might the 1.4 million come from? V2's paper gives
# 172.8 thousand GPU-hours for each trillion tokens, and 8.1 trillion tokens. Multiply, and you get 1.40 million: GPU-*hours*.
# Perhaps hours became dollars. That is our guess, the only one in this section.
#
# ## "95 percent cheaper", taken apart
#
# From 100 million dollars to 5.576: a factor of 18. It compares a rumour about everything that GPT-4 cost with a bill for one run
# of V3. So begin with a comparison that is clean: **Llama 3.1 405B**, an open model of V3's class, of the same year, on chips of
# the same kind. Its model card reports 30.84 million GPU-hours ([Llama 3](../book/references.md#llama-3)), for 15.6 trillion tokens. Beside
# V3's first stage:

# %%
hours = 30.84 / 2.664
work, tokens_read = 2448 / 250, 15.6 / 14.8
print(f"GPU-hours, Llama / V3        {hours:5.2f} times")
print(f"  work on a token            {work:5.2f}")
print(f"  tokens                     {tokens_read:5.2f}")
print(f"  use of the GPUs, the rest  {hours / work / tokens_read:5.2f}")

# %% [markdown]
# Between eleven and twelve times fewer hours, and nearly all of it is the work on a token. No secret chips, no cheaper hours:
# sparsity. It did not make an operation cheaper. It left most of them out. (The rest, 1.12, hides what eight bits gained, and what
# sparse work lost.)
#
# Now the rumour. A leak of 2023, never confirmed, gives GPT-4 280 billion active parameters out of 1.8 trillion, 13 trillion
# tokens, and some 25,000 A100 for 90 to 100 days, for 63 million dollars ([GPT-4 leak](../book/references.md#gpt-4-leak)). (So the
# rumour itself speaks of experts; the press made of it that big models use all 1.8 trillion at once.) If it is right, the chain says
# how 100 becomes 5.576. How do you share out a saving among factors that multiply? Logarithms add up, in any order.
#
# > **Exercise 1.8** (share out a saving; medium, 10 minutes). Write `shares_of_saving(factors)`. `factors` says for each cause how
# > many times cheaper it makes things. Return a dictionary with the share of the whole saving that each explains, so that the
# > shares add up to 1 and do not depend on the order.

# %%
def shares_of_saving(factors):
    ...


# %%
check.shares_of_saving(shares_of_saving)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def shares_of_saving(factors):
#     whole = math.log(math.prod(factors.values()))
#     return {name: math.log(factor) / whole
#             for name, factor in factors.items()}
# ```
#
# A factor below 1, which makes things dearer, gets a negative share. Try it on `factors`, below.
#
# </details>

# %% [markdown]
# One line for each cause. The rule of six leaves scores out, so the fourth corrects V3's tokens for them; 312 TFLOPS is the peak of
# an A100.

# %%
leak_hours = 25_000 * 95 * 24                         # of an A100
leak_flops = 6 * 280e9 * 13e12
leak_used = cost.utilisation(leak_flops, gpu_hours=leak_hours,
                             peak_flops=312e12)
factors = {
    "scope: all, or one run": 100 / 63,
    "smaller: parameters": 1800 / 671.03,
    "sparser: share at work": (280 / 1800) / (37.55 / 671.03),
    "tokens, scores": 13e12 * 6 * 37.55 / (14.8e12 * 250),
    "newer chip, its price": 989 / 312 * (63e6 / leak_hours) / 2,
    "use of the chip": used / leak_used,
    "stages after the first": 2664 / 2788}
print(f"by the leak, GPT-4's chips reached {leak_used:.1%} of 312 TFLOPS")
print(f"all factors: {math.prod(factors.values()):.2f}; "
      f"100 / 5.576 = {100 / 5.576:.2f}")

# %% tags=["hide-input"]
shares = exercises.cost.shares_of_saving(factors)    # the book's own solution
fig = show.bars({name: round(100 * share) for name, share in shares.items()}, unit="% of the saving, by logarithm",
                concept={"sparser: share at work": "moe"},
                title="Sparsity explains about a third of “95 percent”, if the leak is right")
fig.update_layout(xaxis={"range": [-30, 46]})
show.show(fig,
          alt="Bars: scope 16, smaller 34, sparser 35, tokens and scores minus 8, a newer chip and its price 19, use of the chip 5, later stages minus 2 percent.",
          caption="From an unconfirmed leak about GPT-4, a round 100 million, and V3's report. Negative: made V3 dearer.")

# %% [markdown]
# The factors must multiply to 17.93, for the use of the chip takes what the others leave: this is bookkeeping, not evidence, and half
# of its inputs are hearsay. Still, some things would survive a large error. A sixth of the saving is scope: everything against one
# run. A fifth is the calendar: a chip with three times the peak, at nearly twice the price an hour. A third is that V3 is simply a
# smaller model. And a third, a factor of 2.8, is that a smaller share of it works at a time. *That* is design. Alone it saves
# 64 percent. It is worth a headline, and it is not 95.
#
# ### A comparison inside one house
#
# DeepSeek has compared itself with itself. Its dense model of 67 billion parameters took 300.6 thousand GPU-hours for a trillion
# tokens, and V2, sparse, 172.8 thousand on the same cluster ([DeepSeek-V2, Section 3.2.3](../book/references.md#deepseek-v2)).

# %%
rows = []
for name, gflop, khours in (("67B, dense", 6 * 67, 300.6),
                            ("V2, sparse", 155, 172.8),
                            ("V3, sparse", 250, 2664 / 14.8)):
    share = cost.utilisation(gflop * 1e9 * 1e12, gpu_hours=khours * 1e3,
                             peak_flops=989e12)
    rows.append({"model": name, "GFLOP a token": gflop,
                 "thousand hours / 10^12 tokens": khours,
                 "share of the peak, %": 100 * share})
show.table(rows)

# %% [markdown]
# Here is the second lesson about sparsity, and you will not find it in a headline. V2 did at least 61 percent less arithmetic than
# the dense model, and saved 42.5 percent of the hours. The dense model's GPUs ran at 38 percent of their peak, V2's at 25. (The 402
# leaves out scores, so 61 and 38 are lower bounds.) The likely reason: sparse work does not keep a machine as busy. Tokens travel
# to their experts, and experts wait for tokens. With V3 the share of the 16-bit peak is back at 39. As far as one can tell from
# outside, some of that is engineering (chapters 11 and 12) and some is smaller numbers: by then most products were in eight bits,
# which V2's paper has for serving only.
#
# Does sparsity lose some of its saving on a small machine, too?
#
# ## Your own bill
#
# The model that chapters 3 to 5 build is called the **yardstick**: dense, four layers, 1.28 million parameters. One step of its
# training reads eight texts of 256 tokens. Count it by parts, and let torch count the real thing:

# %%
from minimodels.model import Transformer
from minimodels.mtp import losses
from minimodels.studies.cost import SHAPE

yardstick = ModelConfig.preset("yardstick")
step_flops = cost.training_flops(yardstick, **SHAPE)
model = Transformer(yardstick)
tokens = torch.randint(0, yardstick.vocab_size, (8, 256))
with cost.counter() as count:
    losses(model(tokens), tokens)[0].backward()
print(f"counted by parts  {sum(step_flops.values()):,}")
print(f"counted by torch  {count.get_total_flops():,}")

# %% [markdown]
# Equal to the last operation, and a test holds the two together for every kind of model that the package can build. Check one part
# by hand: the head multiplies 2,048 tokens by a matrix of 128 rows and 4,096 columns, six operations each. That is 6.44 GFLOP, and
# the bar below says 6.4. (The code computes all scores and throws half away. From here on only the useful ones count, as in V3's 250.)

# %% tags=["hide-input"]
needed = cost.training_flops(yardstick, causal=True, **SHAPE)
parts = {"head": "head", "dense": "feed-forward networks", "attention": "attention, its matrices", "scores": "attention, its scores"}
show.show(show.bars({words: round(needed[part] / 1e9, 1) for part, words in parts.items()} | {"Muon, the optimizer": round(cost.muon_flops(yardstick) / 1e9, 1)},
                    unit="GFLOP a step", concept={"attention, its matrices": "attn", "attention, its scores": "attn", "feed-forward networks": "dense"},
                    title="In a small model the vocabulary is the largest part of the work"),
          alt="Bars: head 6.4, feed-forward networks 6.0, attention's matrices 3.2, its scores 1.6, and the optimizer 2.5 GFLOP.",
          caption="The yardstick: 8 texts of 256 tokens, only scores that are needed.")

# %% [markdown]
# Compare it with V3's bars. Our head is the largest part, because a vocabulary of 4,096 different tokens is large for a model that
# is 128 wide. And **Muon**, the optimizer (chapter 5), adds a seventh. Its work does not grow with the batch; beside DeepSeek's
# batches it would vanish.
#
# Now measure. What is the peak of *your* machine? Let it do the friendliest thing there is, a product of two large matrices, and
# take that. Then train for some steps, in turns with the product. The clock stands still while other programs run.
#
# > **Before you read on.** DeepSeek's GPUs reached 39 percent of a peak. Will one thread of an ordinary processor, training a
# > model half a million times smaller, reach more or less?
# >
# > <details><summary>What we found</summary>
# >
# > **Nearly as much.** The yardstick's step reached 30 to 34 percent of the product's speed in three recorded repetitions.
# > (Ours is a share of a product that really ran, theirs of a data sheet, which no product reaches.)
# >
# > </details>

# %% tags=["nbval-ignore-output"]
from minimodels.studies.cost import large_product, whole_step
from minimodels.timing import interleaved

ms = interleaved({"product": large_product(),
                  "step": whole_step(yardstick)}, rounds=5,
                 clock=time.thread_time)
useful = sum(needed.values())
speeds = [2 * 1024**3 / p / 1e6 for p in ms["product"]]      # GFLOPS
shares = [useful / step / 1e6 / speed
          for step, speed in zip(ms["step"], speeds)]
share = statistics.median(shares)
step_ms, speed = statistics.median(ms["step"]), statistics.median(speeds)
print(f"large product: {speed:.0f} GFLOPS on one thread")
print(f"a step: {step_ms:.0f} ms, {share:.0%} of that speed "
      f"({min(shares):.0%} to {max(shares):.0%} over five rounds)")

# %% tags=["nbval-ignore-output"]
print(lab.band("cost", "share of the peak in a step", 100 * share))
years = run_flops / (useful / step_ms * 1e3) / (365.25 * 86_400)
print(f"DeepSeek-V3 here would take {years / 1e6:.1f} million years")

# %% [markdown]
# (The range is that of your five rounds; the band, three standard deviations around three recordings.) Larger matrices keep the
# machine busier: in the same study forward and backward reach 26, 41 and 49 percent at widths 64, 128 and 256. The whole step, in
# which Muon's work is not counted as useful, reaches 24, 33 and 33.
#
# ### What sparsity saves here
#
# Take a model with experts, 16 of them in three of its four layers, of which a token gets 4 and a shared one; and a dense model with
# *as many parameters in all*. Let torch count the operations that both really do, and time what arrives.

# %% tags=["hide-input"]
from minimodels.studies import recorded

rows, timed = [], recorded("cost-sparsity")["trials"]
for arm in ("D=128", "D=256"):
    runs = [t for t in timed if t["arm"] == arm]
    saved = sorted(100 - 100 / statistics.median(d / s for d, s in zip(t["ms"]["dense"], t["ms"]["sparse"])) for t in runs)
    left_out = statistics.median(100 - 100 * t["done_flops"]["sparse"] / t["done_flops"]["dense"] for t in runs)
    rows.append({"model": f"{runs[0]['n_params']['sparse'] / 1e6:.1f} million parameters, {arm}", "operations left out, %": round(left_out),
                 "time saved, %, three repetitions": ", ".join(f"{x:.0f}" for x in saved)})
show.table(rows, caption=f"Recorded: minimodels study cost-sparsity, medians of seven rounds; {timed[0]['hardware']}.")

# %% [markdown]
# At width 128 the sparse model leaves out 35 percent of the operations, and saved 11, 16 and 31 percent of the time. At 256 it
# leaves out 43 percent, and saved 36, 38 and 39: most of it arrives. The likely reasons are DeepSeek's, in small: small experts are
# small matrices, and sorting tokens is work that no count shows.
#
# ## Waste that nobody sees
#
# Waste shows in no loss curve. Here is a layer of experts that gives exactly the right output. It lets *every* expert compute
# *every* token, and multiplies what was not chosen by zero. That is the easiest way to write it, because nothing has to be sorted.

# %%
from minimodels.bugs import plant
from minimodels.bugs.cost import EveryExpert
from minimodels.moe import MoE

torch.manual_seed(0)
config = replace(ModelConfig.preset("cpu"), d_expert=32)
right, h = MoE(config), torch.randn(1, 100, config.d_model)
with torch.no_grad(), cost.counter() as count:
    wanted, spent = right(h)[0], count.get_total_flops()
    wrong = plant(copy.deepcopy(right), EveryExpert)
    output = wrong(h)[0]
wasted = count.get_total_flops() - spent
print("same output:", torch.allclose(output, wanted, atol=1e-6))
print(f"operations: {wasted / spent:.1f} times as many")

# %% [markdown]
# The model would train, its loss would be the right one, and its expert layers would do three times the work. (With the gate, a
# sixth of an expert, it is $(16 + 1 + \frac16) / (4 + 1 + \frac16) = 3.3$.) So write a test that counts.
#
# > **Exercise 1.9** (a test for waste; medium, 10 minutes). Write `costs_no_more(layer, h, needed)`. `layer(h)` runs the layer.
# > Return whether that takes at most `needed` FLOPs. `cost.counter()` counts what happens inside a `with`, as in the cell above.
# > Then try it on `right` and on `wrong`, with `h` and `spent`.

# %%
def costs_no_more(layer, h, needed):
    ...


# %%
check.costs_no_more(costs_no_more)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def costs_no_more(layer, h, needed):
#     with cost.counter() as count:
#         layer(h)
#     return count.get_total_flops() <= needed
# ```
#
# It returns True for `right`, and False for `wrong`.
#
# </details>
#
# > **Bugs that still train.**
# > - **Every expert computes.** Right output, $E/K$ times the work of the routed experts. Count operations in a test, as you just
# >   did.
# > - **The wrong peak.** Nvidia's sheets print 1,979 TFLOPS for the H100 in large type. That is for matrices in which half of the
# >   numbers are zero; the dense peak in eight bits happens to be the same number. Divide by it, and your utilisation halves.
# > - **Total for active.** Six times 671 billion is 4,026 GFLOP a token, sixteen times too much. V3's hours would then mean more
# >   than six times the peak. A share above 1 of the right peak is the auditor's alarm.
# > - **Multiply-adds for operations.** Some tools count a multiplication with its addition as one. Every share is then half.
#
# ## Does it pay here?
# > **Does it pay here?** **Less than it counts.** Sparsity is a bargain in operations at every size, and in time at the larger.
# >
# > - **At equal parameters:** with 35 percent fewer operations our smaller sparse model saves 16 percent of the time (11 to 31, three
# >   repetitions); the larger, with 43 percent fewer, saves 38 (36 to 39).
# > - **At equal quality:** not asked here; chapter 7 asks it.
# > - **In memory:** it pays nothing. Weights, gradients and optimizer take the same bytes as in the dense model.
# > - **At DeepSeek's scale:** at least 61 percent less arithmetic and 42.5 percent fewer hours beside their own dense model; nearly
# >   ten times less arithmetic beside a dense model of V3's class.
#
# ## The claims again
#
# Twenty-two, in four groups. First the price of one run, and its time:

# %% tags=["remove-input"]
ledger.show("C01", "C12", "C13", "C02", "C03", "C06", form="rows")

# %% [markdown]
# Two of these six are right as they stand: the hours and the number of GPUs. The dollars and the days are right too, and say less
# than they were made to say. Then the comparisons:

# %% tags=["remove-input"]
ledger.show("C08", "C09", "C10", "C11", "C07", "C93", form="rows")

# %% [markdown]
# The article of the three numbers:

# %% tags=["remove-input"]
ledger.show("C14", "C15", "C16", "C17", form="rows")

# %% [markdown]
# And last what works at a time, and on which chips:

# %% tags=["remove-input"]
ledger.show("C53", "C54", "C55", "C58", "C04", "C05", form="rows")

# %% [markdown]
# ## What production does
#
# - **Everybody counts like this.** PaLM's authors proposed the share of the peak that *needed* operations reach, so that work
#   done twice to save memory does not look like speed ([PaLM](../book/references.md#palm)). Conventions still differ: ask for
#   scores, and for the peak of which numbers.
# - **Training is a part of the bill.** On a day in February 2025 DeepSeek served V3 and R1 with 1,814 GPUs on average, nearly as
#   many as had trained V3 ([Open-infra-index](../book/references.md#open-infra-index)). Chapter 14 does that sum.
#
# > **Takeaways**
# > 1. A training bill is a product: parameters at work, times six, times tokens, over peak and utilisation, times a price. Parameters
# >    and peak anybody can check, the pace with a second paper; the tokens are taken on trust, and the price is assumed.
# > 2. V3 passes twice: its hours agree with the pace that a second paper prints, and the count says that this pace is 39 percent of
# >    the 16-bit peak, which others reach too.
# > 3. \$5.576 million is the rent of one run that succeeded, at an assumed price. What led up to it is not in it, and unknown.
# > 4. Sparsity leaves operations out, nearly ten times beside a dense model of V3's class. It saves no memory, and some of its
# >    saving is lost in keeping the machine busy: of V2's 61 percent, 42.5 arrived.
# > 5. A ratio of two prices compares scope, year, chips, size and design at once. Take logarithms, and ask for each.
#
# ## Longer problems
#
# > **Exercise 1.10** (the same money, dense; easy, 15 minutes). How large a *dense* model could be trained on as many tokens, for
# > V3's operations? And what would a dense model of 671 billion parameters have cost, on 14.8 trillion tokens, at V3's
# > utilisation and two dollars? Leave out scores, which are in V3's 250.
#
# <details><summary>Solution</summary>
#
# ```python
# print(f"{run_flops / (6 * 14.8e12) / 1e9:.1f} billion parameters")
# hours = cost.gpu_hours(6 * 671e9 * 14.8e12, peak_flops=989e12,
#                        utilisation=0.3894)
# print(f"{2 * hours / 1e6:.0f} million dollars, and "
#       f"{cost.days(hours, n_gpus=2048) / 365:.1f} years on 2,048 GPUs")
# ```
#
# 41.7 billion parameters; 86 million dollars (87 with scores, as in the explorable), and 2.4 years. V3's makers chose a model that
# is sixteen times as large as the dense one that they could have had for the same operations.
#
# </details>
#
# > **Exercise 1.11** (how wrong could it be?; medium, 30 minutes). Put error bars on the audit. Suppose that you know the tokens
# > and not the hours, and that three things are uncertain: whether the second guess counts (250 or 261 GFLOP), whether the peak is
# > reachable (a large product reaches perhaps 60 to 80 percent of it), and what share of such a *reachable* speed a good team gets
# > (50 to 70 percent). In what range would you expect the hours? Draw a thousand times and give the middle 90 percent: once for
# > the 16-bit peak, and once for V3's mix, in which scores, head and gates (36.9 of 250.5 GFLOP) are 16-bit products, and the rest has the 8-bit
# > peak of 1,979. Would 2.664 million surprise you? Would half of it?
#
# <details><summary>Solution</summary>
#
# ```python
# import random
# mixed = 250.5 / (36.9 / 989 + (250.5 - 36.9) / 1979)
# for peak in (989, mixed):
#     dice, hours = random.Random(0), []
#     for _ in range(1000):
#         work = dice.choice([250e9, 261e9]) * 14.8e12
#         share = dice.uniform(0.6, 0.8) * dice.uniform(0.5, 0.7)
#         hours.append(cost.gpu_hours(work, peak_flops=peak * 1e12,
#                                     utilisation=share))
#     hours.sort()
#     print(f"{peak:.0f} TFLOPS: {hours[50] / 1e6:.2f} to "
#           f"{hours[949] / 1e6:.2f} million, V3 used {386 / peak:.0%}")
# ```
#
# 2.07 to 3.16 million by the 16-bit peak, and the published 2.664 lies in the middle; half of it would lie far outside. But by the
# peak of 1,725 TFLOPS that V3's mix allows it is 1.19 to 1.81 million. Half would be no surprise, and 2.664 means only 22 percent.
# So the count alone excludes a factor of five, and not a factor of two. For that you need the second paper.
#
# </details>
#
# > **Exercise 1.12** (the missing percent; hard, 45 minutes). The package counts 2,473 GFLOP for Llama 3.1 405B, and the table of
# > the ISCA paper says 2,448. Try conventions: scores whole, halved by causality, or halved again; with head and embedding, or
# > without. Which of them gives 2,448? Does the same one give 250 for V3 and 155 for V2?
#
# <details><summary>Hint</summary>
#
# `cost.training_flops(replace(config, mtp_depth=0), seq_len=4096, causal=True)` gives the parts, for 4,096 tokens, so divide by
# 4,096. Multiply `scores` by 2 (whole), 1 or ½; add or leave out `head`; add or leave out six times
# `config.parameters["embedding"]`. The configurations `V2` and `LLAMA_405B` were imported above.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# import itertools
# for times, head, embed in itertools.product((2, 1, 0.5), (0, 1), (0, 1)):
#     found = []
#     for c in (v3, V2, LLAMA_405B):
#         f = cost.forward_flops(replace(c, mtp_depth=0), seq_len=4096,
#                                causal=True)
#         per = 3 * (sum(f.values()) - f["head"] - f["scores"]) / 4096
#         per += 3 * (head * f["head"] + times * f["scores"]) / 4096
#         per += 6 * embed * c.parameters["embedding"]
#         found.append(round(per / 1e9))
#     print(times, head, embed, found)
# ```
#
# Scores once, with either the head or the embedding, give 250 and 155 to the billion, and 2,473. The 2,448 comes out if Llama's
# scores, and only Llama's, are halved once more. So the table seems to mix two conventions. It changes no verdict here, and you
# have found that with ten lines.
#
# </details>
#
# > **Next: [Text into numbers](02_data.ipynb).** The bill counts tokens. What is a token, and why is the fair unit a byte?
