# ---
# jupyter:
#   book:
#     number: 15
#     reading: 85 min
#     cpu: 65 s, 1 GB
#     needs: "[The model](04_model.ipynb) and its loss; two paragraphs recall how it writes"
#     terms:
#       rl: [reward, advantage, policy]
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: book
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Better than its own group
#
# [Open in Colab](https://colab.research.google.com/github/minimodels/small-models-big-claims/blob/main/chapters/15_grpo.ipynb)
#
# > *Write eight answers. Do more of what beat the others.*
#
# > **You will be able to**
# > - judge an answer by a rule, and say which sums a model may learn from and which it may only be asked;
# > - take the probability of a written answer, without a shift that nothing would report;
# > - build GRPO in six steps, and say what each is for;
# > - bring a model of 340,848 parameters from a third of its sums to three quarters in half a minute, with no further solution shown;
# > - make a model cheat, catch it, and mend the reward;
# > - say what a benchmark of thirty questions can tell, and what it cannot.
#
# ## What you need, in two paragraphs
#
# A language model gives every possible next token a probability. It *writes* by drawing one, or by taking the likeliest
# (**greedy**), again and again. Here a token is a single character, and a text is a sum with its solution.
#
# Training moves the weights along a gradient so that some loss falls. Until now that loss was the surprise at a given text
# ([chapter 5](05_train.ipynb)). In this chapter the model writes the text itself.

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
import statistics
import time

import torch
from minimodels import exercises, lab, ledger, show
from minimodels.explorables import GRPOStep
from minimodels.grpo import GRPOConfig
from minimodels.studies import recorded
from minimodels.tasks import TASKS, TOKENIZER

torch.set_num_threads(1)
check = exercises.load("grpo")
print(lab.tier())

# %% [markdown]
# ## The pain
#
# Take sums of three digits. To solve one on paper you go column by column, and carry. We show a small model such written-out
# solutions, 32 a step, and stop early. ([Where](#A-start,-chosen-on-purpose), and why there, comes later.)

# %% tags=["nbval-ignore-output"]
from minimodels.solve import accuracy, write
from minimodels.studies.grpo import SupervisedStart, evaluation

began = time.process_time()
taught, steps = SupervisedStart().teach(seed=3)
seconds = time.process_time() - began
sums = evaluation(300)
right = accuracy(taught, sums)
print(f"{steps} steps, {seconds:.0f} seconds of one core: "
      f"{right:.0%} of {len(sums)} new sums are right")
for text in write(taught, sums[:2]).texts:
    print(text)

# %% [markdown]
# The form is perfect. Tags, columns, carries are all where they belong. And most of the answers are wrong. It has the manner of a
# mathematician.
#
# More solutions would help, and [below](#A-start,-chosen-on-purpose) you see how much. But suppose that nobody writes any more. Writing solutions is dear:
# somebody must know the way. *Checking* an answer is cheap: $347 + 85$ is 432 or it is not. Can a model learn from nothing but
# *right* and *wrong*?
#
# The report on DeepSeek-R1 made this question famous. It describes two models: **R1-Zero**, trained by rules for answer and format alone, and **R1**, which had
# four stages of training and was published for use. On AIME, a competition for school pupils, R1-Zero went from 15.6 to 71.0 percent of the problems
# ([DeepSeek-R1](../book/references.md#deepseek-r1), section 2.2, first version).
#
# ## What the press said

# %% tags=["remove-input"]
ledger.show("C32", "C34", form="told")

# %% [markdown]
# Neither sentence is about *how*. So you build the how first, and come back to the scores with
# [thirty questions](#What-thirty-questions-can-tell) in hand.
#
# > **Before you read on.** Our model solves about a third of the sums. It now writes eight answers to each of 16 sums, is told
# > which are right, and learns; forty times. That takes half a minute, and no solution is shown. What share of new sums will it solve then?
# >
# > <details><summary>What we found</summary>
# >
# > **77 percent.** Mean of six seeds, 63 to 92, from 32 at the start.
# >
# > </details>
#
# ## The idea in pictures

# %% tags=["remove-input"]
show.drawing("rollout", wide=True,
             alt="A loop. Questions go to the model, which writes a group of answers to each. A rule judges each answer. Its reward above the group's mean is its advantage. The model is changed so that answers above the mean get likelier and those below unlikelier, and the next questions come.",
             caption="One rollout. Nobody writes a solution, and nobody says where an answer went wrong.")

# %% [markdown]
# In words: the model writes a **group** of answers to one question. A rule gives each a **reward**. An answer that earned more than
# its group's mean is made likelier, one that earned less, unlikelier; how far it lies above the mean is its **advantage**. That is **group relative policy optimization**, **GRPO**. (A
# **policy** is what chooses: here the model, and its choice is the next token.) The group takes the place of a second model, a
# judge of positions, which older methods train beside the first. One round of this, here 16 questions with eight answers each, we call a **rollout**. (Old
# policy and reference in the drawing come in steps four and five.)
#
# By hand, with four answers to one question, rewards 1, 0, 0, 1. The mean is a half. The first and the last are half a point above,
# the two others half a point below. If all four were right, nothing would be above anything, and nothing would be learnt. If all
# four were wrong, the same. So a question teaches as long as the model sometimes solves it.
#
# | Symbol | Meaning | R1-Zero | here |
# |---|---|---|---|
# | $q$, $o_i$ | a question, and the $i$-th answer to it | | a sum, its solution |
# | $G$ | answers in a group | 16 | 8 |
# | $r_i$, $A_i$ | reward and advantage of an answer | | |
# | $\pi_\theta$ | the policy: the probability of each next token | V3-Base | 340,848 weights |
# | $\rho$ | probability of a token now, over its probability when it was written | | |
# | $\varepsilon$ | how far $\rho$ may count (`clip`) | 10 (R1) | 0.2 |
# | $\beta$ | what it costs to leave the reference (`kl_weight`) | 0.001 | 0 |
#
# (R1-Zero's from the second version of the [DeepSeek-R1](../book/references.md#deepseek-r1) paper.)
#
# ## Build it
#
# ### One: a rule that judges
#
# A model that may think needs a place to think, and the rule needs to know where the answer is. R1 asks for tags, and so do we:

# %% tags=["remove-input"]
show.drawing("column",
             alt="The sum 347 plus 85 on paper, column by column from the right, with its carries; beside it the same as text: think, 7+5+0=12, 4+8+1=13, 3+0+1=4, end of thinking, answer 432.",
             caption="A column is a step of the thinking: two digits, the carry, what they make.")

# %%
from minimodels.tasks import addition, reward

problem = addition(347, 85)
print(problem.prompt, problem.completion)
for text in (problem.completion,
             "<think></think><answer>432</answer>",
             "<think>7+5+0=12</think><answer>430</answer>",
             "The answer is 432."):
    print(f"{text[:34]:34} {reward(problem, text)}")

# %% [markdown]
# **Accuracy** is 1 for a right answer. **Format** is 1 if the tags stand as asked. The thinking itself is not judged: the second
# text thinks nothing and earns everything. And the last is right, for a person. For the rule it is not, and this strictness
# is what makes the rule hard to fool.
#
# > **Margin.** R1-Zero's two rewards weigh the same. Ours weigh 1 and 0.2: our start knows the format already.
#
# DeepSeek uses no learnt judge here, because a judge can be talked round, and a long training may find out how
# ([DeepSeek-R1](../book/references.md#deepseek-r1), section 2.2.2). You will [see it happen](#A-careless-reward) to a rule.
#
# > **Exercise 15.1** (judge; medium, 10 minutes). Write `earned(text, answer)`: the pair (accuracy, format), each 1 or 0. The
# > format is right if `text` is `<think>`, a thought, `</think><answer>`, an answer, `</answer>`, and nothing before, between
# > or after them; thought and answer hold no `<` and no `>`, and may be empty. Accuracy is 1 if, besides, that answer is `answer` as it is written,
# > character by character. The token that ends the text has been cut off.

# %%
def earned(text, answer):
    ...


# %%
check.earned(earned)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# import re
#
# def earned(text, answer):
#     pattern = "<think>[^<>]*</think><answer>([^<>]*)</answer>"
#     found = re.fullmatch(pattern, text)
#     return (0, 0) if found is None else (int(found[1] == answer), 1)
# ```
#
# Each of the lenient ways pays for something else: a number in the thought, two answers to choose from, a text that goes on.
# Whatever is paid for will be written.
#
# </details>
#
# One more rule comes before all training: what may be learnt from. Every problem belongs to one of three sets, and a hash of the
# problem says to which. $347 + 85$ and $85 + 347$ are the same problem. So no draw, with any seed, can put one into two sets.

# %% tags=["remove-input"]
show.drawing("threesets",
             alt="All problems pass a hash, which sends each to one of three sets, always the same: train, whose solutions are shown; rl, where only the reward is seen; and eval, which is never learnt from.",
             caption="Six tenths of all problems, three tenths, one tenth.")

# %%
of = {name: {p.key for p in TASKS["addition"].problems(
    2000, level=3, of=name)} for name in ("train", "rl", "eval")}
print({name: len(keys) for name, keys in of.items()})
print("in two sets:", len(of["train"] & of["rl"] | of["train"] & of["eval"]
                          | of["rl"] & of["eval"]))

# %% [markdown]
# The same module makes subtractions (exercise 15.12), countdowns (reach 24 from 3, 5 and 3) and letters to sort.
#
# ### Two: how likely was it?
#
# To make an answer likelier, you need its probability: the product of those of its tokens. In practice the sum of their logarithms.
# The one trap is the shift. The logits at place $t$ are about token $t + 1$:
#
# $$ \ln \pi(o \mid q) = \sum_t \ln \pi(o_t \mid q, o_{<t}) \tag{15.1}$$

# %% tags=["remove-input"]
show.drawing("shift",
             alt="A row of tokens, 3, +, 4, =, then 7 and the end of the text, and below it a row of logits. An arrow leads from each place of the logits to the token one place further. The completion's mask, for 7 and the end, becomes a mask of predictions one place earlier.",
             caption="Logits at a place are about the next token. The mask of what was written moves with them.")

# %%
def log_prob_by_hand(logits, tokens, is_completion):
    """The log-probability of one answer: logits (L, V), tokens (L,)."""
    total = 0.0
    for t in range(1, len(tokens)):
        if is_completion[t]:
            scores = logits[t - 1]              # one place earlier
            total += scores[tokens[t]] - torch.logsumexp(scores, 0)
    return total


# %% [markdown]
# The package does it for many texts at once. `episodes` holds them padded; `is_completion` marks the tokens that were written, and
# `targets` is the same moved one place to the left.

# %%
from minimodels.solve import log_probs, worked

episodes = worked([addition(347, 85), addition(9, 1)])
with torch.no_grad():
    logits = taught(episodes.tokens).logits
each = log_probs(logits, episodes.tokens)                    # (N, L-1)
summed = (each * episodes.targets).sum(1)
by_hand = torch.stack([log_prob_by_hand(*row) for row in zip(
    logits, episodes.tokens, episodes.is_completion)])
torch.testing.assert_close(by_hand, summed)
other = torch.distributions.Categorical(logits=logits[:, :-1])
torch.testing.assert_close(other.log_prob(episodes.tokens[:, 1:]), each)
print("by hand = package = torch.distributions")

# %% [markdown]
# > **Exercise 15.2** (how likely; easy, 5 minutes). Write `completion_log_prob(logits, tokens, n_prompt)`: the log-probability,
# > in nats, of what one text says after its first `n_prompt` tokens. `logits` is `(L, V)`, and row $t$ predicts token
# > $t + 1$; `tokens` is a list of $L$ numbers.

# %%
def completion_log_prob(logits, tokens, n_prompt):
    ...


# %%
check.completion_log_prob(completion_log_prob)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def completion_log_prob(logits, tokens, n_prompt):
#     log_p = logits.log_softmax(-1)
#     return sum(log_p[t - 1, tokens[t]]
#                for t in range(n_prompt, len(tokens)))
# ```
#
# The probability of a text is the product of its tokens', so that the logarithm is a sum. The prompt was given: nobody chose
# its tokens.
#
# </details>
#
# Why does the shift deserve a drawing? Because without it nothing breaks. The loss is a number, gradients flow, the curve even
# moves. The [table of bugs](#Bugs-that-still-train) shows how well it hides.
#
# ### Three: from a reward to a gradient
#
# The model should earn more on average. That average is $J = \sum_o \pi_\theta(o) \, r(o)$, a sum over all answers that there are, and nobody
# can add it up. But its gradient is again an average over answers, because $\nabla \pi = \pi \nabla \ln \pi$:
#
# $$ \nabla J = \sum_o \pi_\theta(o) \, r(o) \, \nabla \ln \pi_\theta(o) = \mathbb{E}\,[\, r \, \nabla \ln \pi_\theta \,] \tag{15.2}$$
#
# ($\mathbb{E}$ is the mean over answers that the model draws.)
#
# So draw some answers, and push each by its reward: the **policy gradient**
# ([Williams, 1992](../book/references.md#williams-1992)). It is right on average, and noisy. If every answer earns something, every answer is
# pushed up, and only the difference between pushes matters. Subtract any number $c$ that does not depend on the answer, and the average stays the same: $\sum_o \pi \, c \, \nabla \ln \pi = c \, \nabla \sum_o \pi = 0$,
# for probabilities always sum to 1. Take the group's mean as that number. Then divide by the group's standard deviation, for which there is no such argument (see the margin below); it brings all rewards to one scale:
#
# $$ A_i = \frac{r_i - \mathrm{mean}(r)}{\mathrm{std}(r)} \tag{15.3}$$
#
# (Nearly the same: the mean contains the answer itself, which shrinks the push by $1 - 1/G$.) Our four answers, 1, 0, 0, 1, have mean
# 0.5 and standard deviation 0.577 (of a sample: the root of a third). The advantages are 0.87, $-0.87$, $-0.87$, 0.87.

# %% tags=["remove-input"]
show.drawing("group",
             alt="One question and four answers. Two earned 1 and lie above the line of the mean, with arrows up; two earned 0 and lie below, with arrows down.",
             caption="An answer is compared with its own group, so a hard question is not held against anyone.")

# %%
from minimodels.grpo import advantages

print(advantages(torch.tensor([[1.0, 0, 0, 1], [1, 1, 1, 1], [1, 0, 0, 0]])))

# %% [markdown]
# The second group teaches nothing. In the third the one right answer is pushed up by 1.5, three times as hard as each wrong one is pushed
# down.
#
# > **Margin.** Whether to divide by the deviation is disputed. It makes groups that are nearly all right, or all wrong, count more.
# > [Liu et al. (2025)](../book/references.md#dr-grpo) leave it out, and so does DeepSeek since V3.2. The ablations below try both.
#
# > **Exercise 15.3** (compare; easy, 5 minutes). Write `above_group(rewards)`. `rewards` is a list of groups, each a list of as
# > many numbers; so is the result: each reward less its group's mean, over its group's standard deviation plus 0.0001. The
# > deviation is that of a sample, which divides by $G - 1$.

# %%
def above_group(rewards):
    ...


# %%
check.above_group(above_group)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# import statistics
#
# def above_group(rewards):
#     above = []
#     for group in rewards:
#         mean, std = statistics.mean(group), statistics.stdev(group)
#         above.append([(r - mean) / (std + 1e-4) for r in group])
#     return above
# ```
#
# A group that earned the same throughout gets zeros, whether all of it was right or all of it wrong: it teaches nothing.
#
# </details>
#
# Every token of an answer gets the advantage of the answer. The rule does not know which column went wrong, so it blames all. Only
# over many answers does it average out: good columns are in right answers more often. Look at one real step, token by token. Take a wrong answer: were its right columns pushed down, too? Then
# flip a verdict: whose advantages change?

# %% tags=["nbval-ignore-output"]
from minimodels.studies.grpo import rewarded_problems

for question in rewarded_problems(60):
    step = GRPOStep.of(taught, question, GRPOConfig(), seed=0)
    if len({s["accuracy"] for s in step.samples}) > 1:
        break
step

# %% [markdown]
# ### Four: how far to go
#
# Answers that were written should be used. So one batch serves several updates. But after the first, the model is no longer
# the one that wrote them, and equation (15.2) is about answers of its own. The remedy is to weigh each token by how much likelier it
# has become:
#
# $$ \rho_t = \frac{\pi_\theta(o_t)}{\pi_\mathrm{old}(o_t)} \tag{15.4}$$
#
# (Both are probabilities of the token given the question and all tokens before it.) Where the policy is still the old one, $\rho = 1$, and the gradient of $\rho A$ is that of (15.2), with $A$ for $r$. Far from 1 it
# is not to be trusted. So this product, the token's **gain**, is cut off at $1 \pm \varepsilon$, on the side to which the advantage pushes
# ([PPO](../book/references.md#ppo)):
#
# $$ \min(\rho A, \ \mathrm{clip}(\rho, 1 - \varepsilon, 1 + \varepsilon) \, A) \tag{15.5}$$

# %% tags=["remove-input"]
show.drawing("clip",
             alt="Two panels, the gain against the ratio. For a positive advantage it rises with the ratio up to 1 plus epsilon and is flat beyond. For a negative one it is flat below 1 minus epsilon and falls beyond. The flat parts are marked: no gradient.",
             caption="Flat means no gradient: enough of this. The other side stays open, so a mistake can be undone.")

# %% [markdown]
# With $\varepsilon = 0.2$: a good token ($A = 1$) at $\rho = 1.5$ counts 1.2, and no longer pulls. A bad one ($A = -1$) at $\rho = 1.5$
# counts $-1.5$ in full: it has got likelier, by accident, and must come back.
#
# > **Exercise 15.4** (hold back; easy, 5 minutes). Write `gain(ratio, advantage, clip)`: what one token adds to the objective,
# > the smaller of two products. Three numbers in, one out. Try it with a negative advantage.

# %%
def gain(ratio, advantage, clip):
    ...


# %%
check.gain(gain)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def gain(ratio, advantage, clip):
#     clipped = min(max(ratio, 1 - clip), 1 + clip)
#     return min(ratio * advantage, clipped * advantage)
# ```
#
# With an advantage of 1 the objective is flat above a ratio of `1 + clip`, with $-1$ below `1 - clip`: there the policy has
# gone as far as it was asked to. Where it has gone the wrong way nothing is flat, and it is pulled back.
#
# </details>
#
# > **Margin · A token or an answer?** DeepSeekMath writes (15.4) for each token. The R1 paper prints it for the whole answer: the
# > product of all its tokens' ratios. A product of thirty ratios of 1.01 is 1.35, and clipped.
# > [GSPO](../book/references.md#gspo) takes the root of it. The papers do not settle it; `GRPOConfig(ratio=…)` has both.
#
# ### Five: how far from home
#
# A model that chases a reward may forget how to write. A leash (R1-Zero has a loose one; our runs have none, and
# [one of the variants](#What-matters,-and-what-does-not) has) is a penalty for leaving the start $\pi_\mathrm{ref}$: the **KL divergence**, the mean
# over the policy's own tokens of $\ln (\pi_\theta / \pi_\mathrm{ref})$. For a single token this logarithm may well be
# negative, although its mean never is. GRPO takes another estimate of the same mean, known as **k3** ([Schulman, 2020](../book/references.md#schulman-kl)), with
# $u = \pi_\mathrm{ref} / \pi_\theta$:
#
# $$ k_3 = u - \ln u - 1 \tag{15.6}$$
#
# It is never negative ($\ln u \le u - 1$), zero only where the two agree, and right on average, because the mean of $u - 1$ under $\pi_\theta$ is 0. See it with three tokens, exactly:

# %%
from minimodels.grpo import k3

p = torch.tensor([0.5, 0.3, 0.2])
ref = torch.tensor([0.4, 0.4, 0.2])
k1 = (p / ref).log()
of_each = k3(p.log(), ref.log())
print(f"the divergence itself {(p * k1).sum():.4f} nats")
print(f"mean of k1 {(p * k1).sum():.4f}, of k3 {(p * of_each).sum():.4f}")
print(f"k1 of each token {k1.numpy().round(3)}")
print(f"k3 of each token {of_each.numpy().round(3)}")

# %% [markdown]
# > **Margin.** Right on average is the *value* of $k_3$. Its gradient, as it stands in the loss, is that of the divergence the other way round.
# > DeepSeek weighs it by $\rho$ since [V3.2](../book/references.md#deepseek-v32), which mends that.
#
# > **Exercise 15.5** (how far; easy, 5 minutes). Write `kl_by_k3(log_p, log_ref)`: the mean of (15.6) over tokens that the
# > policy wrote: $u - \ln u - 1$, where $u$ is how much likelier the reference finds a token than the policy does. Two lists of
# > log-probabilities, as long as each other.

# %%
def kl_by_k3(log_p, log_ref):
    ...


# %%
check.kl_by_k3(kl_by_k3)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# import math
#
# def kl_by_k3(log_p, log_ref):
#     log_u = [b - a for a, b in zip(log_p, log_ref)]
#     return sum(math.exp(x) - x - 1 for x in log_u) / len(log_u)
# ```
#
# </details>
#
# ### Six: the loss
#
# For each token the clipped gain, minus $\beta$ times $k_3$. Then a mean over the answer's own tokens, and a mean over answers:
#
# $$ L = -\frac{1}{N} \sum_i \frac{1}{|o_i|} \sum_t \big( \mathrm{gain}_{i,t} - \beta \, k_{3;i,t} \big) \tag{15.7}$$
#
# The $1 / |o_i|$ looks innocent. In an answer of 30 tokens each gets a thirtieth of the advantage, in one of 300 a three-hundredth. So a
# *wrong* answer is punished less, token by token, if it is long. [Liu et al. (2025)](../book/references.md#dr-grpo) blame a part
# of the growing length of such models on it, and divide by a constant;
# [DAPO](../book/references.md#dapo) counts all tokens of the batch alike.
#
# > **Exercise 15.6** (what a token weighs; medium, 10 minutes). Write `shares(lengths, averages, max_new_tokens)`: for each
# > answer, what one of its tokens weighs in the loss. `lengths` are the answers' tokens, `averages` is `"sequence"`, `"token"`
# > or `"constant"`. For `[2, 8]` and 20 new tokens at most the three are `[0.25, 0.0625]`, `[0.1, 0.1]` and `[0.025, 0.025]`.

# %%
def shares(lengths, averages, max_new_tokens):
    ...


# %%
check.shares(shares)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def shares(lengths, averages, max_new_tokens):
#     N = len(lengths)
#     if averages == "sequence":
#         return [1 / (N * n) for n in lengths]
#     if averages == "token":
#         return [1 / sum(lengths) for _ in lengths]
#     return [1 / (N * max_new_tokens) for _ in lengths]
# ```
#
# By sequence, a wrong answer that goes on and on is blamed less for each token. By token, what it weighs depends on how much
# the others wrote.
#
# </details>
#
# Now all of it by hand, for a whole batch, and beside it the package:

# %%
def loss_by_hand(log_p, log_old, log_ref, advantage, targets, clip, beta):
    """Equation (15.7) with loops; targets marks an answer's tokens."""
    answers = []
    for i in range(len(log_p)):
        parts = []
        for t in range(log_p.shape[1]):
            if targets[i, t]:
                ratio = (log_p[i, t] - log_old[i, t]).exp()
                held = ratio.clamp(1 - clip, 1 + clip)
                u = (log_ref[i, t] - log_p[i, t]).exp()
                both = torch.min(ratio * advantage[i], held * advantage[i])
                parts.append(both - beta * (u - u.log() - 1))
        answers.append(sum(parts) / len(parts))
    return -sum(answers) / len(answers)


# %%
from minimodels.grpo import grpo_loss

questions = rewarded_problems(2)
generator = torch.Generator().manual_seed(0)
episodes = write(taught, questions, n_samples=4, temperature=1.0,
                 generator=generator)
with torch.no_grad():
    log_p = log_probs(taught(episodes.tokens).logits, episodes.tokens)
noise = torch.randn(2, *log_p.shape, generator=generator)
log_old, log_ref = log_p + 0.3 * noise[0], log_p + 0.3 * noise[1]
advantage = torch.randn(len(episodes), generator=generator)
ours = loss_by_hand(log_p, log_old, log_ref, advantage,
                    episodes.targets, clip=0.2, beta=0.04)
package = grpo_loss(log_p, log_old, advantage, episodes,
                    GRPOConfig(kl_weight=0.04), log_ref)
torch.testing.assert_close(ours, package)
print(f"by hand = package; {len(episodes)} answers")

# %% [markdown]
# That is the whole method. What remains is a loop, here with the settings of this chapter:
#
# ```python
# for rollout in range(40):
#     asked = the_next_questions(16)
#     episodes = write(model, asked, n_samples=8, temperature=1.0)
#     rewards = judge_each(asked, episodes)            # (16, 8)
#     A = advantages(rewards).flatten()                # (128,)
#     log_old = log_probs_of(model, episodes)          # no gradient
#     for half in two_halves:                          # 8 questions each
#         log_p = log_probs_of(model, episodes[half])
#         loss = grpo_loss(log_p, log_old[half], A[half], episodes[half], config)
#         loss.backward()
#         optimizer.step()
# ```
#
# The optimizer is AdamW, at a rate of $10^{-4}$ after five updates of warm-up. Each answer is used once: in the first update $\rho$ is 1 everywhere,
# in the second nearly. So the clip has little to do here. It has more where an answer is used many times.
#
# ## A start, chosen on purpose
#
# > **Before you read on.** We show the model written-out solutions, 32 a step. Does its accuracy on new sums rise steadily with the
# > steps?
# >
# > <details><summary>What we found</summary>
# >
# > **No, it jumps.** For more than a hundred steps hardly a sum is right. Fifty steps later it is a third. And then it
# > swings by up to thirty points and more from one look to the next, ten steps later.
# >
# > </details>

# %% tags=["hide-input"]
growth = recorded("grpo-start")["trials"]
curves = {f"seed {t['seed']}": ([row[0] for row in t["curve"]], [100 * row[2] for row in t["curve"]]) for t in growth}
fig = show.lines(curves, concept=dict.fromkeys(curves, "rl"), x="steps of 32 worked solutions", y="new sums solved, greedy, %",
                 title="For a hundred steps nothing, fifty steps later a third, and then it swings")
show.show(fig.update_yaxes(range=[0, 100]),
          alt="Three lines over 400 steps. All lie below one or two percent up to step 110, rise to between a third and a half around step 165, and then go up and down between 20 and 90 percent.",
          caption=f"Recorded: minimodels study grpo-start; 200 sums of the eval set, {statistics.mean(t['cpu_seconds'] for t in growth):.0f} seconds of one core for 400 steps; "
                  f"{growth[0]['hardware']}.")

# %% [markdown]
# A sum is right only if about thirty tokens in a row are. At 0.97 a token that would be 0.4, at 0.90 it would be 0.04. So a smooth rise of the token's probability shows as a jump of the sum's.
#
# Why does it matter where you stop? At step 100 nearly all answers of a group are wrong, nearly all advantages zero. At step 400 six samples
# in ten are right: reinforcement would work there, too, but we would see less of what it does. So `SupervisedStart()` stops where a quarter of some spare
# sums are right (of the train set, not of those that judge us).
#
# ## Forty rollouts, here and now

# %% tags=["nbval-ignore-output"]
from minimodels.grpo import grpo

model, log, looks = copy.deepcopy(taught), [], [(0, right)]
began = time.process_time()
for step in grpo(model, rewarded_problems(), GRPOConfig(rollouts=40, seed=3)):
    log.append(step)
    if step.rollout % 10 == 0:
        looks.append((step.rollout, accuracy(model, sums)))
        print(f"rollout {step.rollout}: {step.accuracy:.0%} of its samples "
              f"right, greedy {looks[-1][1]:.0%}")
print(f"{time.process_time() - began:.0f} seconds of one core")

# %% tags=["hide-input", "nbval-ignore-output"]
curves = {"greedy, new sums": ([n for n, _ in looks], [100 * share for _, share in looks]),
          "sampled, its own sums": ([s.rollout for s in log], [100 * s.accuracy for s in log])}
fig = show.lines(curves, concept=dict.fromkeys(curves, "rl"), x="rollouts of 128 answers", y="right, %",
                 title="Right and wrong are enough: no solution was shown")
show.show(fig.update_yaxes(rangemode="tozero"),
          alt="Two rising lines over forty rollouts: greedy answers to new sums, well above the sampled answers that it learns from.",
          caption="This run: start of seed 3, 300 sums of the eval set.")

# %% tags=["nbval-ignore-output"]
live = recorded("grpo-live")["trials"]
more = evaluation(500)
gained = 100 * (accuracy(model, more) - accuracy(taught, more))
print(lab.band("grpo", "steps to a start", steps))
print(lab.band("grpo", "gained in 40 rollouts", gained))
rows = [{"seed": t["seed"], "steps of teaching": t["start_steps"],
         "greedy before": f"{t['before']['greedy']:.0%}",
         "after": f"{t['after']['greedy']:.0%}",
         "sampled before": f"{t['before']['sampled']:.0%}",
         "after ": f"{t['after']['sampled']:.0%}"} for t in live]
show.table(rows, caption="The same with six seeds, 500 new sums. "
           "Recorded: minimodels study grpo-live.")

# %% [markdown]
# What has changed in the texts? Two sums of the first look, before and after:

# %% tags=["nbval-ignore-output"]
for name, who in (("before", taught), ("after", model)):
    for text in write(who, sums[:2]).texts:
        print(f"{name:7} {text.removesuffix('<|endoftext|>')}")

# %% [markdown]
# The form is the same; the columns are right more often. Nobody told it which column was wrong.
#
# ## Three hundred rollouts, watched
#
# Forty rollouts are a beginning. Here are 300, with three seeds, 3.3 to 3.4 minutes each:

# %% tags=["hide-input"]
quality = recorded("grpo-quality")["trials"]
curves, spread = {}, {}
for place, name in ((1, "greedy"), (2, "sampled")):
    at = [list(column) for column in zip(*([100 * row[place] for row in t["curve"]] for t in quality))]
    rollouts = [row[0] for row in quality[0]["curve"]]
    curves[name] = rollouts, [statistics.mean(a) for a in at]
    spread[name] = [min(a) for a in at], [max(a) for a in at]
fig = show.lines(curves, spread=spread, concept=dict.fromkeys(curves, "rl"), x="rollouts of 128 answers", y="new sums solved, %",
                 title="From a third of the sums to nearly all, and sampled answers follow")
show.show(fig.update_yaxes(range=[0, 100]),
          alt="Two lines with bands over 300 rollouts. Greedy answers rise from 38 percent to 64 after ten rollouts, to 88 after forty and to 99 after 200. Sampled answers follow more slowly, from 21 percent to 92.",
          caption=f"Recorded: minimodels study grpo-quality; mean and range of three seeds, 200 sums of the eval set; {quality[0]['hardware']}.")

# %% [markdown]
# Beside each share its 95 percent interval, by the equation of [Wilson](../book/references.md#wilson-1927):

# %%
from minimodels.solve import wilson

rows = []
for t in quality:
    for when in ("before", "after"):
        n_right = round(500 * t[when]["greedy"])
        low, high = wilson(n_right, 500)
        rows.append({"seed": t["seed"], "": when, "greedy": f"{n_right / 500:.1%}",
                     "95 % interval": f"{low:.1%} to {high:.1%}",
                     "sampled": f"{t[when]['sampled']:.1%}",
                     "rollouts take": "" if when == "before" else
                     f"{t['seconds'] / 60:.1f} minutes"})
show.table(rows, caption="500 new sums. The interval is for these weights: "
           "what other 500 sums would have said.")

# %% [markdown]
# All three pass 80 percent within forty rollouts, and end at 99.6 to 100.0. Not one more solution was shown on the way. The sampled
# answers lag behind: a greedy answer needs the right digit to be the *likeliest* in each column, a sampled one needs it to be *nearly certain* in all.
#
# More dials, from the log of the same runs:

# %% tags=["hide-input"]
from minimodels.studies.grpo import LOG, LOOK

def mean_of(trials, name, *, every=10):
    """The mean over trials of a column of the log, over windows of so many rollouts."""
    place = LOG.index(name)
    column = [statistics.mean(t["log"][i][place] for t in trials) for i in range(min(len(t["log"]) for t in trials))]
    return list(range(every, len(column) + 1, every)), [statistics.mean(column[i - every:i]) for i in range(every, len(column) + 1, every)]

kl = [row[0] for row in quality[0]["curve"]], [statistics.mean(t["curve"][i][LOOK.index("kl")] for t in quality) for i in range(len(quality[0]["curve"]))]
entropy = mean_of(quality, "entropy")
show.show(show.lines({"entropy": entropy, "KL from the start": kl}, concept={"entropy": "rl", "KL from the start": "rl"}, x="rollouts of 128 answers", y="nats a token",
                     title="The policy grows sure of itself, and drifts from its start by a tenth of a nat"),
          alt="Two lines over 300 rollouts: the entropy falls from 0.10 nats a token to 0.015; the divergence from the start rises within ten rollouts to 0.03, and then goes up and down between 0.05 and 0.14.",
          caption="Recorded: minimodels study grpo-quality; means of three seeds. Entropy of its next token, over ten rollouts each; k3 against the start, on 200 sampled answers.")

# %%
rows = []
for name in ("accuracy", "format", "length", "idle", "clipped"):
    n, values = mean_of(quality, name)
    rows.append({"mean of three seeds": name} | {
        f"rollouts to {at}": round(values[n.index(at)], 4)
        for at in (10, 50, 100, 200, 300)})
show.table(rows, caption="accuracy, format: of its own samples. length: tokens. "
           "idle: groups without a difference. clipped: share of tokens.")

# %% [markdown]
# **Entropy** is what the policy leaves open. It falls from a tenth of a nat to a seventieth: the model turns from a guesser into
# a clerk. With little left open the answers of a group are alike, and such groups are idle: 27 percent at first, mostly all wrong, 12 percent after fifty rollouts, 55 percent at the end, mostly all right.
# No penalty holds it near its start, and it stays within 0.05 to 0.14 nats a token.
#
# The **length** does not grow. R1-Zero's famous curve climbs to thousands of tokens. Ours has nothing to gain from a longer answer: the
# form of a sum is fixed, and the start knew it. [Below](#Without-a-teacher) is a start that does have something to gain.
#
# ## Does it teach, or sharpen?
#
# Greedy answers got better. Two stories fit. Either the model can now do what it could not. Or it could all along, *sometimes*, and now does
# it always. To tell them apart, let both models try $k$ times: **pass@k** is the share of questions of which at least one of $k$ samples
# is right. If reinforcement only sharpens, the old model catches up when $k$ is large.
#
# > **Exercise 15.7** (k tries; medium, 10 minutes). Write `one_of_k(n, n_right, k)`, which is pass@k: of `n` samples `n_right`
# > were right; you pick `k` different ones of them blindly. How likely is it that at least one is right? `math.comb(n, k)`
# > counts the ways to pick. `one_of_k(4, 1, 2)` is 0.5.

# %%
def one_of_k(n, n_right, k):
    ...


# %%
check.one_of_k(one_of_k)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# import math
#
# def one_of_k(n, n_right, k):
#     return 1 - math.comb(n - n_right, k) / math.comb(n, k)
# ```
#
# $1 - (1 - 1/4)^2 = 0.4375$ looks like the same question. It may pick one sample twice, so that its mean over many runs lies
# below the truth.
#
# </details>

# %% tags=["hide-input"]
from minimodels.studies.grpo import pass_curve

ks = (1, 2, 4, 8, 16, 32, 64)
curves, spread = {}, {}
for when in ("before", "after"):
    at = [list(column) for column in zip(*([100 * share for share in pass_curve(t[when]["n_right"], 64, ks)] for t in quality))]
    curves[when] = list(ks), [statistics.mean(a) for a in at]
    spread[when] = [min(a) for a in at], [max(a) for a in at]
fig = show.lines(curves, spread=spread, concept={"before": "dense", "after": "rl"}, log_x=True, x="tries, k", y="sums solved at least once, %",
                 title="One try now finds more than 64 tries found before")
show.show(fig.update_xaxes(tickvals=list(ks), ticktext=[str(k) for k in ks]).update_yaxes(range=[0, 100]),
          alt="Two rising lines over 1 to 64 tries. Before: 21 percent with one try, 74 with sixteen, 89 with 64. After: 93 with one try, 99 with two, 100 from eight tries on. They do not cross.",
          caption="Recorded: minimodels study grpo-quality; 64 samples of each of 100 new sums, at temperature 1; mean and range of three seeds.")

# %% [markdown]
# Mostly it looks like sharpening. With 64 tries the start already solves 89 of 100 sums, nearly as many as the new model in one (93).
# The right columns were there, as one possibility among others.
#
# But the curves do not meet. Three models were asked the same 100 questions. In 33 of these 300 cases *none* of the start's 64 tries was right, and in all
# of them the new model is right at least once. Is that teaching? A sum is right if all its columns are. A model that is surer of each column is surer
# of sums that it never got right before. You may call it both. What has not changed is the form: the same three columns in 33 tokens.
#
# Larger models were found only to sharpen, and to pay for it: with many tries the *start* overtakes the trained model
# ([Yue et al., 2025](../book/references.md#yue-2025)). Up to 64 tries we see no sign of it. Perhaps because our task has one way to the answer, and so no
# variety to lose.
#
# ## Without a teacher
#
# R1-Zero was shown no solutions on purpose. Its start was V3-Base, which has read 14.8 trillion tokens, and among them, one may assume, many a worked problem. What
# is such a start here? Three of them:
#
# - **untrained**: random weights;
# - **other tasks**: taught subtraction and sorting, in the same tags, and not one sum with a plus;
# - **seldom thinks**: taught additions, of which seven in ten give the answer at once and three in ten are written out. That is most like a base
#   model: it has seen reasoning, but it is not its habit.
#
# > **Before you read on.** Nobody pays for thinking. What becomes of the third one's habit?
# >
# > <details><summary>What we found</summary>
# >
# > **It thinks every time.** Three answers in ten were thought through at the start. After forty rollouts nearly all are, and the mean answer has
# > grown from 16 tokens to 32.
# >
# > </details>

# %% tags=["hide-input"]
zero = recorded("grpo-zero")["trials"]
arms = list(dict.fromkeys(t["arm"] for t in zero))

def looks_of(arm, column):
    """(rollouts, mean over seeds, lows, highs) of a column of the curves."""
    trials, place = [t for t in zero if t["arm"] == arm], LOOK.index(column)
    at = [[t["curve"][i][place] for t in trials] for i in range(len(trials[0]["curve"]))]
    return [row[0] for row in trials[0]["curve"]], [statistics.mean(a) for a in at], [min(a) for a in at], [max(a) for a in at]

curves, spread = {}, {}
for arm in arms[:3]:
    n, middle, low, high = looks_of(arm, "greedy")
    curves[arm], spread[arm] = (n, [100 * v for v in middle]), ([100 * v for v in low], [100 * v for v in high])
fig = show.lines(curves, spread=spread, concept=dict.fromkeys(curves, "rl"), x="rollouts of 128 answers", y="new sums solved, greedy, %", title="Right and wrong teach only a model that is sometimes right")
show.show(fig.update_yaxes(range=[0, 100]), alt="Three lines over 100 rollouts. Untrained and other tasks stay at zero. Seldom thinks rises from 5 percent to 58 after twenty rollouts and to 89 after a hundred.",
          caption=f"Recorded: minimodels study grpo-zero; mean and range of three seeds, 200 sums of the eval set; {zero[0]['hardware']}.")

# %%
rows = []
for arm in arms:
    for at in (0, 2, -1):
        of = [t["curve"][at] for t in zero if t["arm"] == arm]
        rows.append({"start": arm, "rollouts": of[0][0]} | {
            name: f"{statistics.mean(row[LOOK.index(key)] for row in of):{form}}"
            for name, key, form in (("greedy", "greedy", ".0%"), ("form", "form", ".1%"),
                                    ("thinks", "thinks", ".0%"),
                                    ("tokens", "length", ".1f"))})
show.table(rows, caption="Means of three seeds; form, thinks and tokens "
           "of sampled answers.")

# %% [markdown]
# The untrained model never earns anything. All rewards of a group are alike, all advantages are zero, and after a hundred rollouts
# not one weight has moved. (The 38 and 40 tokens of the table are two draws from one and the same model.) The second earns points for its format, and it learns the format: from 74.5 percent of its texts to 99.5. Of sums
# it learns nothing: of 38,400 samples of the three seeds one was right.
#
# The third is nearest to R1-Zero. When it answers at once it is hardly ever right; when it happens to think, it is right in two or three cases of ten. So thinking is made
# likelier, and with it the length. A curve of growing answers like R1-Zero's can come from this alone, without a wish to think: longer answers were
# right, so they were pushed up. (They grow to what a sum takes, and stop there.)
#
# Size alone does not decide. DeepSeek reports that the same training of its own models of 7 and 16 billion parameters *consistently failed* to
# improve on AIME; their answers grew into repetition ([DeepSeek-R1](../book/references.md#deepseek-r1), second version, supplement G.1). Qwen's model of
# 7 billion, made for mathematics, did gain (table 17 there).
#
# ## What matters, and what does not
#
# One change at a time, the same starts, forty rollouts:

# %% tags=["hide-input"]
variants = recorded("grpo-variants")["trials"]
base = {t["seed"]: t for t in live if t["seed"] in (1, 2, 3)}
reached = {"as it is": [100 * t["after"]["greedy"] for t in base.values()]}
for t in variants:
    reached.setdefault(t["arm"], []).append(100 * t["after"]["greedy"])
show.show(show.dots(reached, unit="new sums solved after 40 rollouts, greedy, %", concept=dict.fromkeys(reached, "rl"),
                    title="One change ruins everything; of the seven others three seeds cannot tell"),
          alt="Nine rows of three dots. Eight rows lie between 70 and 92 percent and overlap. The row of the rate 1e-3 without warm-up lies at zero.",
          caption=f"Recorded: minimodels study grpo-variants, and grpo-live for the first row; three seeds, 500 new sums; {variants[0]['hardware']}. The stroke is the mean.")

# %%
from minimodels.exercises.together import paired as of_pairs

rows = []
for arm in list(reached)[1:]:
    of = [t for t in variants if t["arm"] == arm]
    middle, half = of_pairs([100 * t["after"]["greedy"] for t in of],
                            [100 * base[t["seed"]]["after"]["greedy"] for t in of])
    last = [row[LOG.index("entropy")] for t in of for row in t["log"][-10:]]
    far = [t["curve"][-1][LOOK.index("kl")] for t in of]
    rows.append({"changed": arm, "points beside as it is":
                 f"{middle:+.1f} ± {half:.1f}",
                 "entropy": f"{statistics.mean(last):.3f}",
                 "KL from the start": f"{statistics.mean(far):.3f}"})
show.table(rows, caption="Difference with the same start: mean and 95 % interval "
           "of three. Entropy of the last ten rollouts, KL at the end, nats.")

# %% [markdown]
# Ten times the rate *and* no warm-up (two changes; we did not try them apart) ruin it. With the first seed the share of right samples falls from 30
# percent to 1 within three rollouts, and in forty it does not come back. Nearly no group has a difference any more, but for its format: that is
# what it still learns. At the end the policy is two to five nats a token from its start. Three times the rate, with warm-up, does no harm that we
# can see. If you remember one thing about tuning, let it be this: look at the first ten rollouts.
#
# All the rest is small beside the spread of seeds: each of the other intervals holds zero. So with three seeds we cannot say that the leash, the deviation, the
# clip's unit, the length's weight or the group's size matter here, nor that they do not. Some of it could not show: our answers are nearly all of one
# length, and one token in some eight thousand is clipped. (With the ratio of the whole answer it is one in 150.) Even a reward taken as it is, no mean
# subtracted and nothing divided, is not told apart. It pushes a right answer up by 1.2 and a wrong one in form by 0.2; and because probabilities sum to
# 1, what is pushed less falls.
#
# ## A careless reward
#
# R1-Zero's answers grew longer as it grew better. Long thinking, right answers: why not pay for thinking? A tenth of a point for each
# token, beside the one point for a right answer. It sounds kind, and it is one line of code.
#
# > **Before you read on.** A model is paid a tenth of a point for every token, and one point for a right answer. What will it do?
# >
# > <details><summary>What we found</summary>
# >
# > **It stops answering.** Two of three models first get better at sums. Then each finds that 64 tokens without an answer earn more than the usual
# > right one. After sixty rollouts they solve next to nothing (0, 1 and 0 of 500), and their reward has risen from 3.7 to 6.4.
# >
# > </details>

# %% tags=["hide-input"]
hacking = recorded("grpo-hacking")["trials"]
PAID = {"tokens": "by the token", "equations": "by the true equation", "columns": "by the column"}
curves, spread = {}, {}
for arm, name in PAID.items():
    of = [t["curve"] for t in hacking if t["arm"] == arm]
    at = [[100 * curve[i][1] for curve in of] for i in range(len(of[0]))]
    curves[name] = [row[0] for row in of[0]], [statistics.mean(a) for a in at]
    spread[name] = [min(a) for a in at], [max(a) for a in at]
fig = show.lines(curves, spread=spread, concept=dict.fromkeys(curves, "rl"), x="rollouts of 128 answers", y="new sums solved, greedy, %", title="Paid by the token, a model stops answering; the two other rewards do no harm in sixty rollouts")
show.show(fig.update_yaxes(range=[0, 100]), alt="Three lines with bands over 60 rollouts, all from 38 percent. Paid by the token: up to 48 percent after ten rollouts, then down to two after fifty and nothing after sixty. By the true equation and by the column: both rise to above 90.",
          caption=f"Recorded: minimodels study grpo-hacking; mean and range of three seeds, 200 sums of the eval set; {hacking[0]['hardware']}.")

# %% [markdown]
# Its reward rose all the while. Read what it writes to one sum. Can you name the trick?

# %%
paid = next(t for t in hacking if t["arm"] == "tokens")
for n, greedy, *others in paid["texts"][::2]:
    mean = paid["log"][n - 1][LOG.index("reward")] if n else None
    print(f"rollout {n}" + (f", mean reward {mean:.2f}" if n else ""))
    print("  " + greedy.removesuffix("<|endoftext|>"))

# %% [markdown]
# This one still writes the three right columns. Then it goes on. It is cut off after 64 tokens, and has 6.4 points. The right answer, in 33 tokens, has 4.5. Nobody
# told it to. It begins with a token too many (with another seed a stray `+` in the answer, worth a tenth), and the texts grow: 33 tokens, 35, 48, 62.
# That is all it takes. It is called **reward hacking**, and the model has done nothing but what it was paid for.
#
# The second line is a reward with a hole, too: a quarter of a point for each *true equation*, whatever it is about. `0+0+0=0` is true, as
# often as you write it. But in sixty rollouts no model finds the hole, and all three solve 87 percent or more. Why? What a model
# never tries cannot be made likelier. In the texts that are recorded ours write three equations, and no fourth. So a careless reward may look
# sound for as long as nobody stumbles. It is no proof that the next run, ten times as long, will not.
#
# Both are mended alike: pay for what you want, once. The third line pays a quarter for each column of *this* sum
# (`by_columns` in `minimodels/studies/grpo.py`). That is better, and not perfect: a column may stand anywhere, so a list of many columns would
# earn. Only the limit of 64 tokens keeps that small. The exercise closes this hole, too.
#
# > **Exercise 15.8** (a reward without a hole; medium, 10 minutes). Write `careful_score(prompt, text)`: the share of a sum's
# > columns that stand in their own place. `prompt` is a sum, such as `"347+85="`; `text` is a thought, equations with `;`
# > between them. The first equation must be the first column as a patient writer has it, the second the second, and so on;
# > what comes after the last column earns nothing. `minimodels.tasks.addition(347, 85).thinking` has them all:
# > `"7+5+0=12;4+8+1=13;3+0+1=4"`. Before you write it, find a text that earns everything if *true equations* are counted, and
# > one if a column may stand *anywhere*.

# %%
def careful_score(prompt, text):
    ...


# %%
check.careful_score(careful_score)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# from minimodels.tasks import addition
#
# def careful_score(prompt, text):
#     a, b = map(int, prompt.removesuffix("=").split("+"))
#     wanted = addition(a, b).thinking.split(";")
#     pairs = zip(wanted, text.split(";"))
#     return sum(w == found for w, found in pairs) / len(wanted)
# ```
#
# `0+0+0=0` is true as often as it is written. A list of all 200 columns that there are holds those of any sum. Here each place
# has one try, and what does not belong to the sum is worth nothing.
#
# </details>
#
# ## What thirty questions can tell
#
# Now the scores of the press. On AIME 2024, a competition of 30 questions, R1 solves 79.8 percent, o1 79.2
# ([DeepSeek-R1](../book/references.md#deepseek-r1), first version, table 4). Each of 30 questions is worth 3.3 points. How sure is the 0.6?
#
# The noise has two sources. Samples of one question differ; many samples mend that (R1 reports means over several). And another thirty
# questions would be harder or easier; no number of samples mends this. The **bootstrap** measures it: draw thirty of the thirty, putting each back before the next draw, and take the mean
# again, some thousand times ([Efron, 1979](../book/references.md#efron-1979)).
#
# We do not have R1's answers to each question. Take a model of our own, seed 3 after 300 rollouts: thirty sums, and
# 64 samples of each, from the records above:

# %%
rng = torch.Generator().manual_seed(0)
of_question = torch.tensor(quality[2]["after"]["n_right"]) / 64      # 100 questions
thirty = of_question[:30]
drawn = thirty[torch.randint(30, (10_000, 30), generator=rng)].mean(1)
low, high = (100 * drawn.quantile(torch.tensor([0.025, 0.975]))).tolist()
print(f"thirty questions: {100 * thirty.mean():.1f} %, "
      f"95 % interval {low:.1f} to {high:.1f}")
for first in (30, 60):
    print(f"another thirty: {100 * of_question[first:first + 30].mean():.1f} %")

# %% [markdown]
# The interval is narrow, because these sums are much alike: each is right in 58 to 98 percent of its tries. And the two other thirties lie inside it. But a
# bootstrap knows only the kinds of question that were among its thirty.
#
# Questions of a competition are less alike. Some are always solved, some never. In the extreme case, 24 always and 6 never, the interval is 65 to
# 95 percent, as for thirty throws of a coin that shows heads four times in five. And 79.8 against 79.2 is a fifth of one question.
#
# > **Exercise 15.9** (a small benchmark; medium, 10 minutes). Write `benchmark_interval(right)`: the mean score minus, and plus, 1.96
# > standard errors: a pair of shares. `right` holds for each question a list with a 1 or a 0 for each sample, as many for every question.
# > The questions were drawn from all that could have been asked, and samples of one question are alike. So the question is the
# > unit: score each, then take the scores' mean and standard error (the deviation of a sample, over the root of their number).

# %%
def benchmark_interval(right):
    ...


# %%
check.benchmark_interval(benchmark_interval)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# import math
# import statistics
#
# def benchmark_interval(right):
#     scores = [statistics.mean(samples) for samples in right]
#     mean = statistics.mean(scores)
#     error = statistics.stdev(scores) / math.sqrt(len(scores))
#     return mean - 1.96 * error, mean + 1.96 * error
# ```
#
# Thirty questions, of which 24 are always right and 6 never: `benchmark_interval([[1]] * 24 + [[0]] * 6)` is 65 to 95 percent,
# and 64 samples of each question in place of one change nothing. Two models that answer the same questions can be compared
# more closely: take their difference question by question, and the interval of that.
#
# </details>
#
# (On the *same* questions the two differences are paired, and the interval of the difference is narrower: hard questions are hard for both.
# For o1 nobody outside has the answers that this would need.)
#
# ## Bugs that still train
#
# > **Bugs that still train.**
# > - **Loss on the prompt.** The advantage is applied to the question's tokens too. A group shares its question and its advantages sum to 0, so
# >   most of that cancels.
# > - **Advantage over the batch.** Rewards are compared with all answers of the batch. Easy questions are then praised and hard ones
# >   blamed, whatever the answers.
# > - **Off by one.** The mask of what was written is not moved with the logits: the first token of the answer, always the same tag, is never learnt,
# >   and one of the padding behind its end is.
# > - **Always one.** The old probabilities are taken anew at each update, so the ratio is always 1, and nothing is ever clipped.
# > - **Another temperature.** It writes at 0.5 and learns as if at 1.
# > - **Tests on training problems.** The curve looks fine, and it is about something else.

# %% tags=["hide-input"]
bugs = recorded("grpo-bugs")["trials"]
rows = []
for arm in ("none", *dict.fromkeys(t["arm"] for t in bugs)):
    of = list(base.values()) if arm == "none" else [t for t in bugs if t["arm"] == arm]
    greedy = [100 * t["after"]["greedy"] for t in of]
    middle, half = of_pairs(greedy, [100 * t["after"]["greedy"] for t in base.values()])
    rows.append({"bug": arm, "its own curve says": f"{statistics.mean(t['curve'][-1][1] for t in of):.0%}", "500 new sums": f"{statistics.mean(greedy):.0f}%",
                 "points beside none": "" if arm == "none" else f"{middle:+.1f} ± {half:.1f}",
                 "tokens clipped": f"{statistics.mean(row[LOG.index('clipped')] for t in of for row in t['log']):.5f}"})
show.table(rows, caption="After 40 rollouts, greedy; three seeds, the same starts; 95 % intervals. The curve is of 200 new sums, in the last row of the 32 that were asked. "
           "Recorded: minimodels study grpo-bugs, and grpo-live for the first row.")

# %% [markdown]
# The first five train well. Nobody who sees one of these curves alone would look for a mistake. Beside the right ones two of them are a little worse
# (the batch, and the old policy), by more than three seeds' chance, and with five tried one may well be luck. The other intervals hold zero. Only the log has a
# sign: with the old policy taken anew not a single token is ever clipped, and samples drawn colder than learnt are right more often
# from the first rollout on. So test such code by hand, on four answers, as you did above. No curve will do it for you.
#
# The last one is another kind. 32 questions were asked again and again, and the curve that was drawn is of these 32: it says 96 percent. New
# sums say 62. Nothing in the training is broken but the ruler.
#
# ## Does it pay here?
#
# All this was done without solutions. What would solutions have bought? The same model, taught on for 1,200 steps, with a rate that falls at the
# end:

# %%
for t in recorded("grpo-longer")["trials"]:
    print(f"seed {t['seed']}: {t['curve'][-1][2]:.1%} of 200 new sums, greedy, "
          f"after {t['cpu_seconds']:.0f} seconds of one core")

# %% [markdown]
# > **Does it pay here?** **If solutions are dear and checking is cheap. Where solutions could be had, they paid better here.**
# >
# > - **By the clock:** 300 rollouts bring 99.6 to 100.0 percent in 3.3 to 3.4 minutes. Worked solutions alone bring 97.5 to
# >   100 in two minutes of processor time.
# > - **By what somebody must write:** rollouts need no solution after the first 4,300 to 5,100 (135 to 160 steps of 32, some drawn twice). The longer lesson shows 38,400, drawn from a
# >   pile of 20,000.
# > - **Where it starts to pay:** where the model is right now and then, and nobody can or will write solutions. To a start that is
# >   never right a hundred rollouts brought no sum.
# > - **At DeepSeek's scale:** R1-Zero's training took 101 thousand GPU-hours, about \$202 thousand at \$2 an hour
# >   ([DeepSeek-R1](../book/references.md#deepseek-r1), second version, supplementary table 7), against 2,788 thousand for V3's. Nobody could have written out by hand what it wrote.
#
# ## The claims again

# %% tags=["remove-input"]
ledger.show("C32", "C34")

# %% [markdown]
# R1's authors wrote *on par*. In eleven rows of their table with a score for o1, R1 leads in five and trails in six. On AIME, with
# its thirty questions, the lead of 0.6 points says nothing. On MATH-500, with 500, it is 97.3 against 96.4: the intervals (by
# Wilson's equation, each question counted once) are 95.5 to 98.4 and 94.4 to 97.7. Either score may be off by more than the 0.9 points between them. No table of this kind makes an order of *the best*.
#
# ## What production does
#
# - **Longer and more.** R1-Zero: 32 questions, 16 answers each, up to 32,768 tokens and later 65,536, 10,400 steps
#   ([DeepSeek-R1](../book/references.md#deepseek-r1), second version).
# - **Four stages.** R1 itself: a few thousand written-out solutions, reinforcement, fine-tuning on the best of its own answers, reinforcement again.
# - **Switches.** [DAPO](../book/references.md#dapo) leaves out groups without a difference and clips upward later;
#   [GSPO](../book/references.md#gspo) takes ratios of answers. The library verl has DAPO's filter and clip as options.
#
# > **Takeaways**
# > 1. A rule that says right or wrong can teach, if the model is sometimes right. From nothing it teaches nothing.
# > 2. GRPO compares an answer with its group: reward above the mean, made likelier within a clip. No second model, no solutions.
# > 3. Starts of 29 to 44 percent reach 99.6 to 100 in 300 rollouts. Mostly it sharpens: with 64 tries the start solved 89 of 100 already.
# > 4. What you pay for is what you get. Paid by the token, three of three models stopped solving sums and wrote to the limit.
# > 5. Thirty questions cannot tell 79.8 from 79.2.
#
# ## Longer problems
#
# > **Exercise 15.10** (where it goes wrong; easy, 15 minutes). Take `taught` and `model` and 300 new sums. Which column is the first wrong
# > one? Are its digits copied wrongly, or added wrongly? And how many answers are wrong although every column is right?
#
# <details><summary>Solution</summary>
#
# ```python
# from collections import Counter
# from minimodels.tasks import parts
#
# def first_wrong(problem, text):
#     """The first wrong column, counted from 1; None if all are right."""
#     found = parts(text)
#     written = found[0].split(";") if found else []
#     for i, column in enumerate(problem.thinking.split(";")):
#         if i >= len(written) or written[i] != column:
#             return i + 1
#
# for name, who in (("before", taught), ("after", model)):
#     texts = write(who, sums).texts
#     pairs = list(zip(sums, texts))
#     print(name, Counter(first_wrong(p, text) for p, text in pairs))
#     print(sum(first_wrong(p, text) is None
#               and reward(p, text).accuracy == 0 for p, text in pairs))
# ```
#
# Ours printed: before, all columns right in 129, the first wrong one first, second, third in 64, 51, 56; and 47 answers wrong in spite of right
# columns. After forty rollouts 256 have all columns right, and 15 of these end in a wrong answer. Compare what stands before the `=` with the
# wanted column, and you find that of the wrong columns before 160 of 171 have the right digits and a wrong sum. It copied well and added badly. (Now and then
# an answer is right under a wrong column: two mistakes that cancel.)
#
# </details>
#
# > **Exercise 15.11** (one digit more; easy, 10 minutes). The model of 300 rollouts lies in `data/checkpoints/solver` (`Run.open` opens it), and solves
# > nearly all sums of three digits. Let it add numbers of four. What does it write?
#
# <details><summary>Solution</summary>
#
# ```python
# from minimodels.checkpoint import Run
#
# solver = Run.open(lab.data_file("checkpoints/solver")).model().eval()
# longer = TASKS["addition"].problems(100, level=4, of="eval")
# print(accuracy(solver, longer))
# for problem, text in zip(longer, write(solver, longer[:3]).texts):
#     print(problem.prompt, text)
# ```
#
# Nothing is right. It writes three columns, every time. The first is nearly always right; the others take their digits from here and there. It has
# learnt where the digits of numbers of three digits stand.
#
# </details>
#
# > **Exercise 15.12** (another skill; medium, 30 minutes). Do the same for subtraction: a start, sixty rollouts, new problems. Does the recipe
# > work without a change?
#
# <details><summary>Hint</summary>
#
# `SupervisedStart(tasks=(("subtraction", 3),))`, and `TASKS["subtraction"].problems(4000, level=3, of="rl")`.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# kind = TASKS["subtraction"]
# new = kind.problems(300, level=3, of="eval")
# other, _ = SupervisedStart(tasks=(("subtraction", 3),)).teach(1)
# print(f"{accuracy(other, new):.0%} before")
# asked = kind.problems(4000, level=3, of="rl")
# for step in grpo(other, asked, GRPOConfig(rollouts=60, seed=1)):
#     if step.rollout % 20 == 0:
#         print(f"{accuracy(other, new):.0%} after {step.rollout}")
# ```
#
# Ours printed 31 percent before (one seed, 205 steps), and 50, 54 and 62 after 20, 40 and 60 rollouts. The
# recipe works as it is, and slower.
#
# </details>
#
# The model has learnt to add by trying. Can a smaller one learn it by reading? That is the question of the chapter on distillation, which
# is being written.
