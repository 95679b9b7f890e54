# ---
# jupyter:
#   book:
#     number: 16
#     reading: 75 min
#     cpu: 60 s, 0.6 GB
#     needs: "[Better than its own group](15_grpo.ipynb): its sums, its rewards, its model"
#     terms:
#       distill: [student, teacher]
#       rl: [reward]
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: book
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A teacher and a student
#
# [Open in Colab](https://colab.research.google.com/github/minimodels/small-models-big-claims/blob/main/chapters/16_distill.ipynb)
#
# > *Read how the other did it.*
#
# > **You will be able to**
# > - teach a small model with the texts of a larger one, and keep only those that are right;
# > - teach it with probabilities in place of texts, and say what temperature and direction do;
# > - let it write itself, and have the teacher grade every token;
# > - draw up a bill, with the teacher's work left out and counted;
# > - compare a teacher with a reward, from a start that is fair to both;
# > - find out what a student has lost, and whether a source exists.
#
# ## What you need, in two paragraphs
#
# [Chapter 15](15_grpo.ipynb) taught a model of 340,848 parameters to write out sums of three digits, and let it improve by right and wrong alone:
# **GRPO**. In 300 rollouts it went from 44 to 99 percent of new sums. That model is the **teacher** of this chapter. It lies in
# `data/checkpoints/solver`.
#
# A model's **logits** are its scores for every possible next token; softmax makes probabilities of them. Training lowers the surprise at given tokens, the **cross-entropy**.

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
import time
from dataclasses import replace

import torch
from minimodels import cost, exercises, lab, ledger, show
from minimodels.explorables import Traces
from minimodels.studies import recorded
from minimodels.studies.distill import STUDENT, teacher
from minimodels.studies.grpo import MODEL, evaluation

torch.set_num_threads(1)
check = exercises.load("distill")
print(lab.tier())

# %% [markdown]
# ## The pain
#
# Here is a student of less than a third of the teacher's size. It was taught subtraction and sorting, in the same format, and has never seen a plus
# worked out. Let it do what made its teacher great: try, and be rewarded. Three seeds, the same work as all that follows in this chapter:

# %%
ways = recorded("distill-ways")["trials"]
rewarded = [t for t in ways if t["arm"] == "other tasks: a reward"]
print(f"teacher {MODEL.n_params:,} parameters, student {STUDENT.n_params:,}, "
      f"{STUDENT.n_params / MODEL.n_params:.0%}")
for t in rewarded:
    print(f"seed {t['seed']}: {t['before']['addition 3']:.1%} of new sums before, "
          f"{t['after']['addition 3']:.1%} after")

# %% [markdown]
# PAIN_TEXT
#
# The same happened, at another size, to DeepSeek. Reinforcement on a model of 32 billion parameters brought it to 47.0 percent of the
# AIME's problems. Reading texts of R1 brought the same model to 72.6 ([DeepSeek-R1](../book/references.md#deepseek-r1), first version, table
# 6).
#
# ## What the press said

# %% tags=["remove-input"]
ledger.show("C19", "C35", "C36", "C63", "C64", "C65", "C66", form="told")

# %% [markdown]
# > **Before you read on.** The student reads worked solutions by its teacher, for as much work as the reward cost it. How many percent of new sums
# > does it solve then?
# >
# > <details><summary>What we found</summary>
# >
# > **TEXTS_MEAN percent.** Mean of three seeds.
# >
# > </details>
#
# ## The idea in pictures

# %% tags=["remove-input"]
show.drawing("lessons", wide=True,
             alt="Three panels. In the first the teacher writes a text and the student learns its tokens. In the second the teacher writes a text and at each place the student learns the teacher's whole distribution. In the third the student writes the text, and at each place learns the teacher's distribution.",
             caption="Three ways to learn from a model: its texts, its probabilities, and its probabilities on one's own texts.")

# %% [markdown]
# A right-or-wrong of a whole sum is one bit for thirty tokens. A text of the teacher says at each of the thirty what to
# write. Its distribution says at each also what *else* could stand there, and how nearly. All three are called **distillation**. What
# R1's small models had is the first.
#
# | Symbol | Meaning | here |
# |---|---|---|
# | $p$, $q$ | the teacher's and the student's distribution of the next token | 50 probabilities |
# | $\tau$ | temperature: logits are divided by it | 1, 2 |
# | $\mathrm{KL}(p \,\Vert\, q)$ | forward: dear where $q$ misses what $p$ may say | nats a token |
# | $\mathrm{KL}(q \,\Vert\, p)$ | reverse: dear where $q$ says what $p$ would not | nats a token |
#
# ## Build it
#
# ### One: texts, if they are right
#
# Even a good teacher errs. But a sum can be checked, so let it write, keep what is right, and throw the rest away: **rejection
# sampling**. R1's 600 thousand reasoning samples were made so.
#
# @@keep_right
#
# The student then learns the kept texts like any others, by cross-entropy. On a hundred sums:

# %% tags=["nbval-ignore-output"]
from minimodels.distill import rejection_sample
from minimodels.studies.distill import questions

master = teacher()
samples = rejection_sample(master, questions(100), n_samples=1,
                           generator=torch.Generator().manual_seed(0))
print(f"{samples.n_written} written, {len(samples.episodes)} kept, "
      f"{samples.n_tokens:,} tokens through the teacher")
print(samples.problems[0].prompt, samples.episodes.texts[0])

# %% [markdown]
# ### Two: everything that it knows about the next token
#
# A text shows one token where the teacher had fifty probabilities in mind. [Hinton et al. (2015)](../book/references.md#hinton-2015) train on these instead:
# the student's distribution should be the teacher's. How far it is says the **KL divergence**:
#
# $$ \mathrm{KL}(p \,\Vert\, q) = \sum_v p_v \ln \frac{p_v}{q_v} \tag{16.1}$$
#
# Where the teacher puts all on one token, this is the surprise at that token, and nothing is gained. So they *soften* both with a temperature: logits
# are divided by $\tau$, and small probabilities come into sight. For logits 4, 0 the second token has 1.8 percent at $\tau = 1$, and 12 at
# $\tau = 2$.
#
# @@soften
#
# @@forward_kl
#
# Softer targets have smaller gradients: by $1 / \tau$ for the division, and by about $1 / \tau$ again, because softened distributions differ less. A factor $\tau^2$ gives it back.
#
# ### Three: forward or reverse
#
# The divergence is not symmetric. Suppose that the teacher finds two words likely, and the student can hold only one hump.

# %% tags=["remove-input"]
show.drawing("twokl",
             alt="A teacher's distribution with two humps, twice. On the left a student whose one broad hump covers both, and the gap between them: forward. On the right a student whose one narrow hump sits on one of the two: reverse.",
             caption="Forward punishes what is missed, so the student covers. Reverse punishes what should not be there, so the student chooses.")

# %% [markdown]
# By hand: the teacher has $(0.49, 0.02, 0.49)$. A student that covers has $(0.34, 0.32, 0.34)$, one that chooses $(0.90, 0.05, 0.05)$.

# %%
from minimodels.distill import divergence

humps = torch.tensor([[0.49, 0.02, 0.49]]).log()
students = torch.tensor([[0.34, 0.32, 0.34], [0.90, 0.05, 0.05]]).log()
for direction in ("forward", "reverse"):
    covers, chooses = divergence(students, humps.expand(2, 3),
                                 direction=direction).tolist()
    print(f"{direction}: covers {covers:.2f}, chooses {chooses:.2f} nats")

# %% [markdown]
# @@better_one
#
# Hold the package against torch's own function, and against a sum by hand:

# %%
generator = torch.Generator().manual_seed(0)
theirs, ours = torch.randn(2, 4, 50, generator=generator)
p, q = (theirs / 2).softmax(-1), (ours / 2).softmax(-1)
by_hand = 4 * (p * (p / q).log()).sum(-1)
by_torch = 4 * torch.nn.functional.kl_div(q.log(), p, reduction="none").sum(-1)
found = divergence(ours, theirs, temperature=2.0)
torch.testing.assert_close(found, by_hand)
torch.testing.assert_close(found, by_torch)
print("by hand = package = torch, at temperature 2")

# %% [markdown]
# ### Four: on its own texts
#
# A student that only ever read perfect texts has never seen its own mistakes. It writes a wrong carry, and stands where no teacher has been. The cure is to let the *student*
# write and the teacher grade each token of it: **on-policy distillation** ([Agarwal et al., 2024](../book/references.md#gkd)). It is like reinforcement, with
# thirty grades in place of one, and no luck needed.
#
# @@grade_own
#
# ### Five: the bill
#
# Is a teacher cheap? That depends on who pays for it. We count tokens that pass forward through the student. One that it learns from
# costs 3, because the way back is twice the work. What passes through the teacher stands on another page.

# %% tags=["remove-input"]
show.drawing("twobills",
             alt="Two bills side by side. The first has the student's work alone. The second has beneath it the teacher's writing, and beneath that the making of the teacher.",
             caption="The same student, billed twice.")

# %% [markdown]
# @@bill_of
#
# ## A lesson, here and now
#
# A student from the same start, three hundred steps on the teacher's texts:

# %% tags=["nbval-ignore-output"]
from minimodels.config import TrainConfig
from minimodels.distill import Bill, imitation
from minimodels.solve import accuracy, drawn, learn
from minimodels.studies.distill import STARTS, TEXT, recipe
from minimodels.studies.grpo import BATCH

began = time.process_time()
student, _ = STARTS["other tasks"].teach(1, STUDENT)
texts = rejection_sample(master, questions(1024), n_samples=1,
                         generator=torch.Generator().manual_seed(1)).episodes
sums, bill = evaluation(200), Bill()
batch = bill.metered(drawn(texts, BATCH, seed=1), trained=1)
lesson = replace(recipe(3), steps=300)
for step, loss in enumerate(learn(student, batch, lesson), 1):
    if step % 100 == 0:
        print(f"step {step}: {accuracy(student, sums):.0%} of new sums, "
              f"{bill.student:,} tokens")
print(f"{time.process_time() - began:.0f} seconds of one core")

# %% [markdown]
# Now see students of the recorded runs learn, beside their teacher. Move through their training.

# %%
EXPLORABLE

# %% [markdown]
# ## The same work, six ways
#
# Every way gets the same budget: three million tokens forward through the student, three seeds. Texts and rewards are about the same 4,096 sums.

# %% tags=["hide-input"]
by_arm = {}
for t in ways:
    by_arm.setdefault(t["arm"], []).append(100 * t["after"]["addition 3"])
show.show(show.dots(by_arm, unit="new sums solved, greedy, %", concept={arm: "rl" if arm.endswith("reward") else "distill" for arm in by_arm}, title="WAYS_TITLE"),
          alt="WAYS_ALT", caption=f"Recorded: minimodels study distill-ways; three seeds, 500 new sums; {ways[0]['hardware']}. The stroke is the mean.")

# %%
per_token = {name: cost.flops_per_token(config, seq_len=TEXT, training=False)
             for name, config in (("student", STUDENT), ("teacher", MODEL))}
ratio = per_token["teacher"] / per_token["student"]
rows = []
for arm in by_arm:
    of = [t for t in ways if t["arm"] == arm]
    own = statistics.mean(t["student_tokens"] for t in of)
    rows.append({"start: way": arm, "new sums": f"{statistics.mean(by_arm[arm]):.1f} %",
                 "student": f"{own / 1e6:.1f}", "with the teacher": "{:.1f}".format(
                     (own + ratio * statistics.mean(t["teacher_tokens"] for t in of)) / 1e6)})
show.table(rows, caption="Millions of tokens forward through the student; a token "
           f"of the teacher counts as {ratio:.1f}. Its making is not in it.")

# %% [markdown]
# WAYS_TEXT
#
# ## Where a reward works for the small one
#
# To compare a teacher with a reward from a start at which no answer is ever right is not fair. So teach the student worked sums first, until it solves
# 5, 25 or 50 percent, and give both the same budget from there.

# %% tags=["hide-input"]
starts = recorded("distill-starts")["trials"]
reached = {}
for t in starts:
    reached.setdefault(t["arm"], []).append(100 * t["after"]["addition 3"])
show.show(show.dots(reached, unit="new sums solved, greedy, %", concept={arm: "rl" if arm.endswith("reward") else "distill" for arm in reached}, title="STARTS_TITLE"),
          alt="STARTS_ALT", caption=f"Recorded: minimodels study distill-starts; three seeds, 500 new sums; {starts[0]['hardware']}.")

# %% [markdown]
# STARTS_TEXT
#
# ## How many texts?
#
# R1's students read 800 thousand. Ours read as often as the budget allows, from a pile of 32 to 8,192:

# %% tags=["hide-input"]
piles = recorded("distill-samples")["trials"]
sizes = sorted({int(t["arm"].split()[0]) for t in piles})
at = [[100 * t["after"]["addition 3"] for t in piles if t["arm"] == f"{n} texts"] for n in sizes]
fig = show.lines({"student": (sizes, [statistics.mean(a) for a in at])}, spread={"student": ([min(a) for a in at], [max(a) for a in at])}, concept={"student": "distill"},
                 log_x=True, x="sums that the teacher was asked", y="new sums solved, greedy, %", title="PILES_TITLE")
show.show(fig.update_xaxes(tickvals=sizes, ticktext=[f"{n:,}" for n in sizes]).update_yaxes(range=[0, 100]), alt="PILES_ALT",
          caption=f"Recorded: minimodels study distill-samples; mean and range of three seeds, the same work for each; {piles[0]['hardware']}.")

# %% [markdown]
# PILES_TEXT
#
# @@distill_tokens
#
# ## What was lost, and what was not gained
#
# The student could subtract and sort before the lesson. And its teacher is good at sums of three digits. What of the rest?

# %% tags=["nbval-ignore-output"]
from minimodels.studies.distill import skills

rows, of_teacher = [], skills(master)
lessons = [t for t in ways if t["arm"] == "other tasks: its texts"]
for skill in of_teacher:
    rows.append({"new problems": skill} | {
        when: f"{statistics.mean(t[key][skill] for t in lessons):.0%}"
        for when, key in (("student before", "before"), ("after", "after"))}
        | {"teacher": f"{of_teacher[skill]:.0%}"})
show.table(rows, caption="Greedy; means of three seeds. The number behind a kind "
           "of problem is its digits, letters or numbers.")

# %% [markdown]
# SKILLS_TEXT
#
# @@phone_seconds
#
# ## Does the source exist?
#
# CASCADE_TEXT
#
# ## Does it pay here?
#
# PAY
#
# ## The claims again

# %% tags=["remove-input"]
ledger.show("C19", "C35", "C36", "C63", "C64", "C65", "C66")

# %% [markdown]
# CLAIMS_TEXT
#
# ## What production does
#
# PRODUCTION
#
# > **Takeaways**
# > TAKEAWAYS
#
# ## Longer problems
#
# PROBLEMS
