# ---
# jupyter:
#   book:
#     number: 5
#     reading: 85 min
#     cpu: 65 s, 0.9 GB
#     needs: "the yardstick of chapter 4, from outside: text goes in, a loss comes out"
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: book
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Training
#
# [Open in Colab](https://colab.research.google.com/github/minimodels/small-models-big-claims/blob/main/chapters/05_train.ipynb)
#
# > *The loss falls. That proves nothing yet.*
#
# > **You will be able to**
# > - write a training loop in one cell, and say its first number before you run it;
# > - compute a step of AdamW and of Muon by hand, and compare the two without fooling yourself;
# > - choose a rate, a schedule, a batch and a number format, and give a reason for each;
# > - look at the curve of a broken run and name what is broken;
# > - kill a run with no warning and continue it as if nothing had happened;
# > - predict how well a model will do that you have not trained.
#
# ## What you need, in two paragraphs
#
# The yardstick is the model of chapter 4: four layers, 128 wide, 1,279,104 numbers, its **weights**. For every place in a text
# it gives each of 4,096 tokens a score, a [logit](../book/glossary.md#logits); softmax turns the scores into probabilities. The
# [loss](../book/glossary.md#loss) is the mean of $-\ln p$ over the tokens that really came, in nats.
#
# How does the loss change if one weight grows a little? That is a derivative, and there is one for each weight. All of them
# together are the [gradient](../book/glossary.md#gradient). PyTorch computes it, backward through the model, for about twice the
# work of computing the loss. Training takes a small step against the gradient, and another, some hundreds of times.

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
import torch.nn.functional as F
from minimodels import exercises, lab, show
from minimodels.config import ModelConfig, TrainConfig
from minimodels.explorables import TrainingCurves
from minimodels.studies import recorded

check = exercises.load("train")
print(lab.tier())

# %% [markdown]
# ## The pain
#
# **0.037 bits**
#
# > **Margin.** Bits per byte of unseen text, between the best and the worst of four learning rates. Recorded: `minimodels study
# > mla-rates`, the arms called `mha`, one seed.
#
# That is what the choice of one number costs: the [learning rate](../book/glossary.md#learning-rate-schedule), how far a step
# goes. The model is the same, so are the text, the order of the text and the number of steps.

# %%
rates = {t["arm"]: t["bits_per_byte"]
         for t in recorded("mla-rates")["trials"]}
rows = [{"learning rate": f"{r:g}", "bits per byte": rates[f"mha {r:g}"]}
        for r in (0.005, 0.01, 0.02, 0.04)]
show.table(rows)
best = min(row["bits per byte"] for row in rows)
worst = max(row["bits per byte"] for row in rows)
print(f"worst less best: {worst - best:.3f}")

# %% [markdown]
# Keep that number beside another one. Chapter 6 will compare ordinary attention with DeepSeek's **latent attention**, a famous
# invention, and find a difference of 0.016 bits. A careless rate is worth more than twice as much. So whoever tunes one model
# and not the other can prove what they like, and nobody sees it in the table.
#
# The press said much about what training costs, which was chapter 1, and nothing about how it is done. No claim is on trial
# here. The yardstick is: all later verdicts are measured with it.

# %% tags=["remove-input"]
show.drawing("loop",
             alt="A cycle: a batch goes forward through the model and becomes a loss; backward, the loss becomes a gradient, one number for each weight; it is clipped, the optimizer turns it into a step that updates the model, and the next batch comes.",
             caption="One step. Everything in this chapter is one of these boxes or arrows.")

# %% [markdown]
# | Symbol | Meaning | In our code |
# |---|---|---|
# | $w$ | a weight, or a matrix of them | `p` |
# | $g$ | its gradient: how the loss changes with $w$ | `p.grad` |
# | $\eta$ | learning rate | `lr`, `muon_lr`, `embed_lr` |
# | $m$, $v$ | running mean of $g$, and of $g^2$ | the optimizer's state |
# | $\beta_1$, $\beta_2$ | how slowly the two forget, 0.9 and 0.95 | `beta1`, `beta2` |
# | $\lambda$ | weight decay, 0.1 | `weight_decay` |
#
# ## Build it
#
# ### One: know the first number
#
# The text is a third of Python's standard library, as in chapter 2: it is cut into windows of 256 tokens, and a step sees
# eight of them.

# %%
from minimodels.data import Batches, prepare
from minimodels.model import Transformer
from minimodels.studies.train import LIVE, LIVE_BYTES

data = prepare("stdlib", vocab_size=4096, max_bytes=LIVE_BYTES)
batches = Batches(data.train, batch_size=LIVE.batch_size,
                  seq_len=LIVE.seq_len, seed=0)


def new_model(seed=0):
    """The yardstick with random weights."""
    torch.manual_seed(seed)
    model = Transformer(ModelConfig.preset("yardstick"))
    model.tokenizer = data.tokenizer
    return model


# %% [markdown]
# > **Before you read on.** Nothing is trained. What is the model's loss on its first batch, to one decimal?
# >
# > <details><summary>What we found</summary>
# >
# > **8.3 nats.** It knows nothing, so it bets evenly on 4,096 tokens: $\ln 4096 = 8.32$, and a little more, because its bets
# > are not quite even.
# >
# > </details>
#
# How much more? Say the logits $z$ are normal with standard deviation $\sigma$ and know nothing of the target. The target's
# logit is 0 in the mean, and the sum over all tokens is $V$ times the mean of $e^z$, which is $e^{\sigma^2/2}$. So
#
# $$\text{first loss} \approx \ln V + \tfrac{1}{2}\sigma^2 \tag{5.1}$$
#
# And $\sigma$ is known too. A logit is the product of 128 normed numbers, whose squares sum to 128, with a row of the
# embedding, drawn with standard deviation 0.02. So $\sigma = 0.02 \sqrt{128} = 0.226$.
#
# > **Exercise 5.1** (the first loss; easy, 5 minutes). Write `first_loss(vocab_size, logit_std)`, equation (5.1). Then say
# > what it is for DeepSeek-V3: 129,280 tokens, width 7,168, standard deviation 0.006.

# %%
def first_loss(vocab_size, logit_std):
    ...


# %%
check.first_loss(first_loss)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def first_loss(vocab_size, logit_std):
#     return math.log(vocab_size) + logit_std**2 / 2
#
# first_loss(129_280, 0.006 * 7168**0.5)    # 11.90
# ```
#
# </details>

# %%
model = new_model()
tokens = batches.at(0)                            # (8, 256)
with torch.no_grad():
    logits = model(tokens).logits                 # (8, 256, V)
sigma = logits.std().item()
loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
print(f"spread of the logits {sigma:.3f}, wanted {0.02 * 128**0.5:.3f}")
print(f"predicted {math.log(4096) + sigma**2 / 2:.3f}, "
      f"even bets {math.log(4096):.3f}, measured {loss:.3f}")

# %% [markdown]
# It is met to a hundredth or two. This is the cheapest test in the book. A first loss that is too *high* means weights that are
# drawn too large. One that is too *low* means that something tells the model the answer, and you will meet that case below.
#
# ### Two: the loop in one cell
#
# Read it with the drawing beside it. `schedule` is a factor on the learning rates, and `make_optimizers` brings the two
# optimizers that the yardstick uses. Both are opened in the next sections.

# %%
from minimodels.optim import make_optimizers, schedule


def train_by_hand(model, batches, config):
    """Train in place; yields the loss of each step."""
    optimizers = make_optimizers(model, config)
    groups = [g for o in optimizers for g in o.param_groups]
    peaks = [group["lr"] for group in groups]
    for step in range(1, config.steps + 1):
        tokens = batches.at(step - 1)                        # (B, T)
        logits = model(tokens).logits[:, :-1].flatten(0, 1)
        loss = F.cross_entropy(logits, tokens[:, 1:].flatten())
        model.zero_grad()                                    # forget the last
        loss.backward()                                      # p.grad
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        for group, peak in zip(groups, peaks):
            group["lr"] = peak * schedule(step, config)
        for optimizer in optimizers:
            optimizer.step()
        yield loss.item()


# %% [markdown]
# That is all of it but the optimizers. One line needs a word. If the gradient is longer than `clip`, 1.0,
# then `clip_grad_norm_` shortens it to that length: one strange batch may push the model, but only so far.
#
# The package's `train` does more: it survives crashes, fills several GPUs and saves memory. Its losses must be the same.

# %%
from minimodels.train import train

five = replace(LIVE, steps=5)
by_hand = list(train_by_hand(new_model(), batches, five))
package = [r.loss for r in train(new_model(), batches, five)]
torch.testing.assert_close(by_hand, package, atol=1e-4, rtol=0)
print("five losses by hand = five of the package, to 4 decimals")

# %% [markdown]
# Now let it run: 80 steps, 164 thousand tokens. Four times we stop it and let it write.

# %% tags=["nbval-ignore-output"]
from minimodels.generate import generate

prompt, texts = "    def __init__(self", {}


def says(model):
    """What the model writes after the prompt."""
    draw = torch.Generator().manual_seed(1)
    return generate(model, prompt, max_new_tokens=40, temperature=0.7,
                    generator=draw)


live = show.Live(alt="The loss falls steeply, then more slowly.",
                 caption="This run, on this machine: 80 steps of 2,048 tokens.")
model, losses = new_model(), []
texts[0] = says(model)
for loss in train_by_hand(model, batches, LIVE):
    losses.append(loss)
    if len(losses) in (5, 20, 80):
        texts[len(losses)] = says(model)
    if len(losses) % 20 == 0:
        live.draw(show.lines({"loss": (list(range(1, len(losses) + 1)), losses)},
                             x="step", y="loss, nats per token",
                             title="First the common tokens, then what follows what"))

# %% tags=["nbval-ignore-output"]
for step, text in texts.items():
    print(f"---- after {step} steps\n{prompt}{text}")

# %% [markdown]
# At step 0 it is noise from the whole vocabulary. Soon the common tokens are there, in no order. By step 80 you see line breaks
# with indentation after them, `self`, dots and brackets in plausible places: the outside of Python. How good is that? Score it
# on text that it has not seen, and compare with five recorded runs of the same cell with other seeds:

# %% tags=["nbval-ignore-output"]
from minimodels.evaluate import evaluate


def score(model):
    """Bits per byte of the validation text."""
    return evaluate(model, data.valid, n_bytes=data.valid_bytes,
                    seq_len=LIVE.seq_len).bits_per_byte


print(lab.band("train", "yardstick after 80 steps", score(model)))

# %% [markdown]
# ### Three: a rate that rises and falls
#
# A learning rate need not be constant, and ours is not. It rises over the first 2 percent of the steps
# ([warm-up](../book/glossary.md#warm-up)), stays, and falls over the last 40 percent ([decay](../book/glossary.md#decay)).
#
# - **Why warm up?** At the start the weights are small and the optimizer has seen one batch. The next section shows that its
#   first step is as long as it can be, in every weight at once.
# - **Why decay?** Each batch points in a slightly different direction. With long steps the weights jump about in a valley; with
#   short ones they sink to its floor.
#
# > **Exercise 5.2** (the schedule; easy, 10 minutes). Write `rate_at(step, steps, warmup, decay)`, the factor on the peak rate.
# > Steps count from 1. The factor rises in a straight line and reaches 1 at step `warmup`; it falls in a straight line over the
# > last `decay` steps. No step may have factor 0: it would be computed for nothing.

# %%
def rate_at(step, steps, warmup, decay):
    ...


# %%
check.rate_at(rate_at)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def rate_at(step, steps, warmup, decay):
#     return min(1.0, step / warmup, (steps - step + 1) / decay)
# ```
#
# </details>
#
# Here is what decay does, in the four recorded runs of the first table. The decay begins at step 360 of 600.

# %% tags=["hide-input"]
searched = {t["arm"]: dict(t["curve"]) for t in recorded("mla-rates")["trials"]}
above = {f"{r:g}": [100 * (b / searched["mha 0.01"][n] - 1) for n, b in searched[f"mha {r:g}"].items()] for r in (0.04, 0.02, 0.005)}
steps = [n // 2048 for n in searched["mha 0.01"]]
show.show(show.lines({name: (steps, more) for name, more in above.items()} | {"0.01": (steps, [0.0] * len(steps))},
                     concept=dict.fromkeys([*above, "0.01"], "dense"), x="step", y="% more bits per byte than with 0.01",
                     title="What a high rate costs in the middle, the decay gives back in part"),
          alt="Three lines around the level line of the rate 0.01. The highest rate, 0.04, lies 2 to 4 percent above it and comes down from step 400 on; 0.02 begins below, rises above, and ends on it; 0.005 lies 1 to 3 percent above from step 200 on.",
          caption="Recorded: minimodels study mla-rates, one seed. The peak rate of Muon is written at the end of each line.")

# %% [markdown]
# In bits per byte: from step 400 on, the rate 0.04 gains 0.213 bits, 0.02 gains 0.201, 0.01 gains 0.182, and 0.005 gains
# 0.179. The higher the rate was, the more the decay gives back. So a score taken in the middle of a run says little about its
# end, and two runs may only be compared when both have decayed.
#
# ### Four: AdamW, one weight at a time
#
# The plain step is $w \leftarrow w - \eta g$. Its trouble is the unit. A gradient of 0.001 in one weight and of 10 in another
# says how *sensitive* the loss is, not how far to go. AdamW keeps two running means for each weight and divides one by the root
# of the other ([Adam](../book/references.md#adam); [AdamW](../book/references.md#adamw)):
#
# $$\begin{aligned} m &\leftarrow \beta_1 m + (1 - \beta_1)\, g \\ v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2 \end{aligned} \tag{5.2}$$
#
# $$\begin{aligned} \hat m &= m / (1 - \beta_1^t), \quad \hat v = v / (1 - \beta_2^t) \\ w &\leftarrow w - \eta \lambda w - \eta\, \hat m / \sqrt{\hat v} \end{aligned} \tag{5.3}$$
#
# Work one weight by hand, with gradients $4$ and then $-2$. At $t = 1$: $m = 0.4$ and $v = 0.8$. Both began at 0, so they are
# too small; the hats mend that, $\hat m = 4$ and $\hat v = 16$. The step is $4/4 = 1$ rate. At $t = 2$: $m = 0.36 - 0.2 =
# 0.16$, $v = 0.76 + 0.2 = 0.96$, with hats $0.84$ and $9.85$. The step is $0.84/3.14 = 0.27$ rates. The gradient changed its
# sign, so the weight slows down.
#
# Look at the first step again. Whatever $g$ is, it is $g/|g|$: **every** weight moves by one whole rate, the unimportant ones
# too. Here is torch's AdamW with gradients that differ a million times:

# %%
w = torch.nn.Parameter(torch.zeros(3))
w.grad = torch.tensor([0.001, -10.0, 1000.0])
torch.optim.AdamW([w], lr=0.002).step()
print("moved by", [f"{x:+.4f}" for x in w.tolist()])

# %% [markdown]
# Our weights are drawn with standard deviation 0.02. Ten such steps in a row can turn a model into another one. That is what
# warm-up is for.
#
# The term $\eta \lambda w$ is [weight decay](../book/glossary.md#weight-decay): each step pulls each weight a little towards 0.
# The W of AdamW means that it is kept out of $m$ and $v$, where it would be divided by the gradient's size.
#
# > **Exercise 5.3** (AdamW; medium, 15 minutes). Write `adamw_step(w, g, m, v, t, lr, decay)` with $\beta_1 = 0.9$, $\beta_2 =
# > 0.95$; add `1e-8` to the root. All but `t`, `lr` and `decay` are tensors of one shape. Return the new `w`, `m` and `v`.

# %%
def adamw_step(w, g, m, v, t, lr, decay):
    ...


# %%
check.adamw_step(adamw_step)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Four lines: `m`, `v`, the two hats, the return. Return `m` and `v` without their hats.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def adamw_step(w, g, m, v, t, lr, decay):
#     m = 0.9 * m + 0.1 * g
#     v = 0.95 * v + 0.05 * g**2
#     m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.95**t)
#     step = m_hat / (v_hat.sqrt() + 1e-8)
#     return w - lr * decay * w - lr * step, m, v
# ```
#
# </details>
#
# ### Five: Muon, one matrix at a time
#
# AdamW does not know that weights stand in matrices. A matrix turns vectors into vectors, and its gradient has *directions*:
# the [singular values](../book/glossary.md#singular-values) say how long it is in each. Take a matrix with whole numbers,
#
# $$G = \begin{pmatrix} 3 & 0 \\ 4 & 5 \end{pmatrix}, \quad G^\top G = \begin{pmatrix} 25 & 20 \\ 20 & 25 \end{pmatrix} \tag{5.4}$$
#
# The singular values are the roots of the eigenvalues of $G^\top G$, which are $25 \pm 20$: so 6.71 and 2.24. A plain step
# would go three times as far in the first direction. **Muon** ([Muon](../book/references.md#muon)) asks for the same length in
# each. Write $G = U S V^\top$, with $S$ the singular values, and drop the $S$: the step is $U V^\top$.

# %%
G = torch.tensor([[3.0, 0.0], [4.0, 5.0]])
U, S, Vh = torch.linalg.svd(G)
print("singular values", [round(s, 2) for s in S.tolist()])
print("U V^T  ", [f"{x:.2f}" for x in (U @ Vh).flatten().tolist()])
print("by hand", [f"{x / 5**0.5:.2f}" for x in (2, -1, 1, 2)])

# %% tags=["remove-input"]
show.drawing("muon",
             alt="Left, what the gradient makes of a circle: an ellipse, 6.71 long in one direction and 2.24 in the other. Right, what Muon's step makes of it: a circle, 1 long in both. The directions stayed.",
             caption="The gradient of equation (5.4), and the step that Muon takes from it.")

# %% [markdown]
# For a 2 by 2 matrix you can do it without any decomposition: add the matrix of cofactors, with rows $(5, -4)$ and $(0, 3)$, and
# norm the result. The sum has rows $(8, -4)$ and $(4, 8)$, which is $(2, -1)$ and $(1, 2)$ over $\sqrt 5$.
#
# For our matrices an SVD at every step would be slow. But $X X^\top X = U S^3 V^\top$: products alone change the singular values
# and leave the directions as they are. So any odd polynomial can be applied to all singular values at once. Muon uses this one,
# five times ([Newton-Schulz](../book/glossary.md#newton-schulz)):
#
# $$\begin{aligned} s &\leftarrow a s + b s^3 + c s^5 \\ X &\leftarrow a X + (b A + c A A) X \end{aligned} \tag{5.5}$$
#
# with $A = X X^\top$, $a = 3.4445$, $b = -4.775$, $c = 2.0315$, after dividing by the norm, so that every $s$ is at most 1.

# %% tags=["hide-input"]
values = [10 ** (-3 + 3 * i / 120) for i in range(121)]
quintic, cubic = list(values), list(values)
for _ in range(5):
    quintic = [3.4445 * s - 4.775 * s**3 + 2.0315 * s**5 for s in quintic]
    cubic = [1.5 * s - 0.5 * s**3 for s in cubic]
show.show(show.lines({"Muon's": (values, quintic), "classical": (values, cubic), "wanted": (values, [1.0] * 121)},
                     x="singular value before, as a share of the norm", y="after five rounds", log_x=True,
                     title="Muon's polynomial gives up exactness to lift small singular values fast"),
          alt="Muon's curve rises steeply and stays between 0.7 and 1.2 from 0.003 on; the classical cubic reaches 1 exactly, but only from about 0.3 on.",
          caption="Computed. The classical iteration is 1.5 s - 0.5 s^3, five rounds as well.")

# %% [markdown]
# Close to 1 is close enough, and small values get there sooner.
#
# > **Exercise 5.4** (Newton-Schulz; medium, 15 minutes). Write `newton_schulz(g, n)`: divide `g` by its norm, then do `n`
# > rounds of equation (5.5) with matrices. `g` has at least as many columns as rows.

# %%
def newton_schulz(g, n):
    ...


# %%
check.newton_schulz(newton_schulz)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def newton_schulz(g, n):
#     x = g / g.norm()
#     for _ in range(n):
#         A = x @ x.T
#         x = 3.4445 * x + (-4.775 * A + 2.0315 * A @ A) @ x
#     return x
# ```
#
# </details>
#
# Is it worth the trouble? Look at a real gradient: the output matrix of the second layer's attention, in the model that you
# have just trained, before and after.

# %%
from minimodels.optim import orthogonalise


def gradient_of(model, tokens):
    """Put the gradient of the loss on tokens (B, T) into p.grad."""
    model.zero_grad()
    logits = model(tokens).logits[:, :-1].flatten(0, 1)
    F.cross_entropy(logits, tokens[:, 1:].flatten()).backward()


gradient_of(model, batches.at(200))
g = model.layers[1].attention.w_o.weight.grad     # (128, 128)
before, after = (torch.linalg.svdvals(x) for x in (g, orthogonalise(g)))
U, S, Vh = torch.linalg.svd(g)

# %% tags=["hide-input", "nbval-ignore-output"]
rank = list(range(1, 129))
show.show(show.lines({"gradient": (rank, (before / before[0]).tolist()), "Muon's step": (rank, (after / after[0]).tolist())},
                     x="direction, longest first", y="singular value, share of the longest", log_y=True,
                     title="A few directions own the gradient; Muon gives most of the others a voice"),
          alt="The gradient's singular values fall steeply over several powers of ten; those of Muon's step stay near the top for most directions, then fall.",
          caption="This run: the gradient of w_o in layer 1 on one batch after 80 steps.")

# %% tags=["nbval-ignore-output"]
share = (before[:8].square().sum() / before.square().sum()).item()
print(f"8 of 128 directions hold {share:.0%} of the gradient's energy; "
      f"of Muon's step {(after[:8].square().sum() / after.square().sum()):.0%}")

# %% [markdown]
# That is the case for Muon: AdamW sees 16,384 single weights, and a step that is loud in eight directions. Muon adds momentum
# before, as AdamW's $m$ does, and scales tall matrices up by $\sqrt{\text{rows}/\text{columns}}$. It keeps one number for each
# weight instead of two. Embedding, norms and everything that is no matrix stay with AdamW.
#
# ## Which one is better?
#
# Now the comparison that is so easy to get wrong. Both optimizers get the same model, the same batches and 600 steps, all of
# the standard library. Each gets *its own learning rate*, searched with one seed. Then other seeds decide.
#
# > **Before you read on.** After 600 steps: how many bits per byte lie between the two? For scale: between ordinary and **latent
# > attention** there will be 0.016, between the best and worst rate of the first table 0.037.
# >
# > <details><summary>What we found</summary>
# >
# > **0.36 bits**, at first sight, in favour of Muon: ten times as much as the rate of the first table is worth. Then we found out
# > what most of it was. Read on.
# >
# > </details>

# %% tags=["hide-input"]
by_rate = {"Muon": {float(arm.split()[1]): bits for arm, bits in rates.items() if arm.startswith("mha ")},
           "AdamW": {float(t["arm"].split()[1]): t["bits_per_byte"] for t in recorded("train-rates")["trials"]}}
by_rate = {name: dict(sorted(found.items())) for name, found in by_rate.items()}
show.show(show.lines({name: (list(found), list(found.values())) for name, found in by_rate.items()}, log_x=True,
                     concept={name: "dense" for name in by_rate}, x="peak learning rate", y="bits per byte of unseen text",
                     title="AdamW's best rate is far from as good as Muon's worst"),
          alt="Two curves. Muon's, between rates 0.005 and 0.04, lies between 1.64 and 1.67, lowest in the middle; AdamW's, between 0.001 and 0.004, lies between 1.95 and 2.04, lowest in the middle.",
          caption="Recorded: minimodels study mla-rates (arms mha) and train-rates; one seed, 600 steps.")

# %% tags=["hide-input"]
muon = [t["bits_per_byte"] for t in recorded("mla-quality")["trials"] if t["arm"] == "mha"]
adamw = [t["bits_per_byte"] for t in recorded("train-optimizers")["trials"]]
show.show(show.dots({"Muon": muon, "AdamW": adamw}, concept={"Muon": "dense", "AdamW": "dense"}, unit="bits per byte of unseen text",
                    title="Muon leads with every seed, by more than a third of a bit"),
          alt="Two rows of dots far apart: Muon's five between 1.636 and 1.647, AdamW's three between 1.99 and 2.01.",
          caption="Recorded: minimodels study mla-quality (arm mha) and train-optimizers; a dot is a seed, the stroke the mean.")

# %%
more = [a - m for a, m in zip(adamw, muon)]
print(f"Muon {statistics.mean(muon):.4f} in the mean of {len(muon)} seeds, "
      f"AdamW {statistics.mean(adamw):.4f} of {len(adamw)}")
print("AdamW less Muon, seed by seed:", [f"{d:+.4f}" for d in more])

# %% [markdown]
# Both searches end inside their range, so neither was cut short. (AdamW's three seeds all score worse than the seed of its
# search did, 1.950. One seed can be lucky, and the best of several tries is more often lucky than not. So other seeds decide.)
#
# Now be suspicious, as always when the effect is large. Muon's recipe sets the embedding apart: there AdamW works too, at a rate
# of 0.03. Our plain AdamW moves the embedding at 0.002, fifteen times as slowly. Is it Muon that wins, or the embedding's rate?
# Give AdamW that rate for the embedding, and its own best for the rest:

# %%
apart = recorded("train-embedding")["trials"][0]["bits_per_byte"]
show.table([{"seed 1": name, "bits per byte": f"{bits:.3f}"}
            for name, bits in (("AdamW, one rate", adamw[0]),
                               ("AdamW, the embedding at 0.03", apart),
                               ("Muon, the embedding at 0.03", muon[0]))])
print(f"the embedding's rate: {(adamw[0] - apart) / (adamw[0] - muon[0]):.0%}"
      " of the gap")

# %% [markdown]
# There it is. The embedding's rate was 84 percent of the gap; what is left for Muon is 0.057 bits. That comes from one seed, and
# we did not search AdamW's other rate again beside the new one, so it is an upper bound. It is still five times as much as
# Muon's seeds differ from first to last.
#
# Nothing in the first comparison was wrong. Both rates were searched, three seeds agreed to two hundredths of a bit. It compared
# two *recipes* and we nearly wrote down the name of one ingredient. When a result is too good, look for the second difference.
#
# And the time? A whole step of each, in turns, on one thread:

# %% tags=["nbval-ignore-output"]
from minimodels.timing import interleaved
from minimodels.train import Trainer

trainers = {name: Trainer(new_model(), batches,
                          replace(LIVE, optimizer=name))
            for name in ("adamw", "muon")}
ms = interleaved({name: lambda t=t: t.step(1)
                  for name, t in trainers.items()}, rounds=3)
ratio = [b / a for a, b in zip(ms["adamw"], ms["muon"])]
print(f"Muon's step takes {statistics.median(ratio):.2f} times as long "
      f"({min(ratio):.2f} to {max(ratio):.2f})")

# %% [markdown]
# ## How large should a batch be?
#
# A batch of eight windows gives a gradient that is partly signal and partly luck. With more windows the luck averages out, and
# each step costs more. There is a way to ask the gradient itself ([noise scale](../book/references.md#noise-scale)). Take
# the gradients of single windows, $g_i$, and of $n$ together, $\bar g$. The squared length of the mean is signal plus an $n$-th
# of the noise:
#
# $$ E|\bar g|^2 = |G|^2 + \tfrac{1}{n}\, \Sigma, \quad E|g_i|^2 = |G|^2 + \Sigma \tag{5.6}$$
#
# Two equations, two unknowns. $\Sigma / |G|^2$ is the batch at which signal and luck are equally large. Far below it, twice the
# batch is worth nearly two steps. Far above, it is wasted.

# %% tags=["nbval-ignore-output"]
def noise_scale(model, windows):
    """Windows at which signal and luck are equal."""
    n, mean, single = len(windows), 0, []
    for window in windows:
        gradient_of(model, window[None])
        g = torch.cat([p.grad.flatten() for p in model.parameters()])
        single.append(g.square().sum().item())
        mean = mean + g / n
    big, small = mean.square().sum().item(), statistics.mean(single)
    luck = (small - big) / (1 - 1 / n)
    return luck / (small - luck)


windows = torch.cat([batches.at(s) for s in (301, 302, 303, 304)])
for name, m in {"new": new_model(), "80 steps": model}.items():
    print(f"{name}: {noise_scale(m, windows):.0f} windows")

# %% [markdown]
# Some fifty windows, and we take eight: the gradient of our batch is mostly luck. Then why not take fifty? Because the text is
# given. With 1.23 million tokens you have 600 steps of eight windows or 96 of fifty, so a step of fifty would have to be worth
# more than six of ours. By the paper's model of such runs it is worth three and a half. Small batches are thrifty with text and
# wasteful for a machine; who has 2,048 GPUs to feed decides otherwise. DeepSeek-V3 began with 3,072 sequences a batch and ended with 15,360
# ([DeepSeek-V3](../book/references.md#deepseek-v3), section 4.2).
#
# ### The same batch in parts
#
# A large batch may not fit into memory. It need not: gradients add. Go through the batch in parts, let PyTorch add up the
# gradients, and step once. This is [gradient accumulation](../book/glossary.md#gradient-accumulation), and the package does it
# when `micro_batch` is smaller than the batch.

# %%
whole, parts = new_model(), new_model()
first = replace(LIVE, steps=3)
a = [r.loss for r in train(whole, batches, first)]
b = [r.loss for r in train(parts, batches, replace(first, micro_batch=3))]
print("losses equal to 4 decimals:",
      all(abs(x - y) < 1e-4 for x, y in zip(a, b)))

# %% [markdown]
# Eight windows in parts of three, three and two. The last part is smaller, and there is a trap in it, which a widely used
# library found in its own training loop in 2024 ([Accumulation fix](../book/references.md#accumulation-fix)): a mean of means is
# not the mean.
#
# > **Exercise 5.5** (accumulate; easy, 5 minutes). Write `batch_gradient(parts)`. Each part is a pair: the gradient of *its*
# > mean loss, and its number of targets. Return the gradient of the mean loss over all targets.

# %%
def batch_gradient(parts):
    ...


# %%
check.batch_gradient(batch_gradient)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def batch_gradient(parts):
#     n_targets = sum(n for _, n in parts)
#     return sum(g * (n / n_targets) for g, n in parts)
# ```
#
# </details>
#
# ## Half the bits
#
# So far every number had 32 bits. Matrix products in 16 bits are faster on most hardware, and take half the memory. There are
# two ways to spend 16 bits.

# %% tags=["remove-input"]
show.drawing("formats",
             alt="Three formats as rows of bits: fp32 has 8 bits of exponent and 23 of mantissa, bf16 8 and 7, fp16 5 and 10. bf16 keeps fp32's range, fp16 ends at 65,504.",
             caption="bf16 keeps the range and gives up exactness; fp16 does the opposite.")

# %% [markdown]
# Neither is good enough for everything. bf16 cannot *add*: beside 1 it knows nothing smaller than 0.008. fp16 cannot be
# *small*: below $6 \times 10^{-8}$ there is nothing, and gradients live there.

# %%
print("bf16: 1 + 0.001 =", (torch.tensor(1.0).bfloat16() + 0.001).item())
print("fp16: 0.00000001 =", torch.tensor(1e-8).half().item())

# %% [markdown]
# The cure for the first is [mixed precision](../book/glossary.md#mixed-precision): weights and optimizer stay in fp32, only the
# products run in 16 bits ([mixed precision](../book/references.md#mixed-precision)). The cure for the second is a loss scale:
# multiply the loss by, say, 65,536, so that all gradients move up into fp16's range, and divide them again before the step.
#
# > **Exercise 5.6** (what fp16 loses; easy, 10 minutes). Write `lost_in_fp16(gradient, scale)`: of the entries that are not 0,
# > the share that becomes 0 in fp16 after they were multiplied by `scale`. `x.half()` converts.

# %%
def lost_in_fp16(gradient, scale):
    ...


# %%
check.lost_in_fp16(lost_in_fp16)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def lost_in_fp16(gradient, scale):
#     alive = gradient[gradient != 0]
#     return ((alive * scale).half() == 0).float().mean().item()
# ```
#
# </details>

# %% tags=["nbval-ignore-output"]
gradient_of(model, batches.at(200))
g = torch.cat([p.grad.flatten() for p in model.parameters()])
g = g[g != 0]
for scale in (1, 256, 65_536):
    lost = ((g * scale).half() == 0).float().mean().item()
    print(f"scale {scale:>6,}: {lost:.4%} of the gradient becomes 0")
print(f"bf16, no scale: {(g.bfloat16() == 0).float().mean():.4%}")

# %% [markdown]
# In our run fp16 loses about half a percent of the entries without a scale, and none with 65,536. bf16 loses none, and needs no
# scale. (Too large a scale would push the largest entries over 65,504. So programs raise the scale carefully, and halve it and
# leave out the step when something overflows. `Trainer` does.)
#
# And what does it bring here? One step of this model, forward and backward, in turns, on one thread:

# %% tags=["nbval-ignore-output"]
from minimodels.mtp import losses as losses_by_depth


def in_format(dtype):
    """A function that runs one batch forward and backward."""
    def step():
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = losses_by_depth(model(tokens), tokens)[0]
        loss.backward()
    return step


ms = interleaved({"fp32": in_format(torch.float32),
                  "bf16": in_format(torch.bfloat16)}, rounds=3)
ratio = [b / f for f, b in zip(ms["fp32"], ms["bf16"])]
print(f"bf16 takes {statistics.median(ratio):.2f} times as long as fp32 "
      f"({min(ratio):.2f} to {max(ratio):.2f})")

# %% [markdown]
# Our processor multiplies bf16 in hardware. Even on a quiet machine the step kept more than four fifths of its time, because these matrices are
# small and much of a step is not a product. Half the bits do not make half the time. (The habit comes from GPUs with large
# matrices, where a product in 16 bits has hardware of its own. We did not measure one.)
#
# | Tier | What we choose | Why |
# |---|---|---|
# | `cpu` | fp32 | many processors emulate bf16 or gain little from it |
# | `t4` | fp16 with a loss scale | its tensor cores know fp16 and no bf16 |
# | `gaming` | bf16 | the range of fp32, so no scale is needed |
#
# `TrainConfig(dtype="auto")` chooses so. We had neither a T4 nor a gaming card for this chapter, so the last two rows are
# reasons and not measurements.
#
# ## Curves that go wrong
#
# Most faults do not crash. They train, and the loss falls, and you believe it. We broke five runs on purpose, each in one way,
# and recorded 150 steps of each beside a right one. You are the doctor.
#
# > **Before you read on.** One of the five is all but invisible: which? A rate eight times too high, gradients that are never
# > zeroed, text in its original order, the same 25 batches over and over, or targets that are not shifted, so that each position
# > is scored on the token that it has just read?
# >
# > <details><summary>What we found</summary>
# >
# > **Gradients that are never zeroed.** On unseen text that run ends two percent behind the right one. The rate that is eight
# > times too high costs three.
# >
# > </details>

# %%
TrainingCurves()

# %% [markdown]
# Now all six in a table: the first loss, the training loss over the last ten steps, and unseen text.

# %%
broken = {t["arm"]: t for t in recorded("train-broken")["trials"]}
# nats a token that one bit per byte is worth
per_byte = broken["right"]["bytes_per_token"] * math.log(2)
show.table([{"run": arm, "first loss": f"{t['loss'][0]:.2f}",
             "worst": f"{max(t['loss']):.2f}",
             "last ten": f"{statistics.mean(t['loss'][-10:]):.2f}",
             "unseen": f"{t['bits_per_byte'] * per_byte:.2f}"}
            for arm, t in broken.items()],
           caption="Nats a token, after 150 steps; one seed.")

# %% [markdown]
# - **Targets not shifted** is caught before training: its first loss is 7.55, and equation (5.1) allows 8.34. An untrained model
#   cannot know. (Why lower at all? The last hidden state still resembles the embedding of the token just read, and the head *is*
#   the embedding; so that token gets a larger logit.) Validation does not help here. It makes the same mistake.
# - **The same batches again** has the steepest line of all honest runs, 2.66 nats in the end. On unseen text it stands at 6.7, and
#   has become worse since step 50. Look at validation, always.
# - **Text in order** has waves: at step 40 it is at 3.4, because eight neighbouring windows are one kind of file, and five
#   steps later at 6.6.
# - **Rate too high** climbs to 17 nats, twice the price of knowing nothing, and comes back, to 3 percent behind. Muon's steps
#   have a fixed length, so when the rate falls the damage ends. Do not count on it.
# - **Gradients never zeroed** is the one to be afraid of. A hump in the first ten steps, then always a little too high, and no
#   alarm. Without a right run beside it you would call it done.
#
# A curve can raise a suspicion. A test can prove it. This one catches every leak of the answer, whatever its cause. The
# probabilities of all 4,096 tokens in one place sum to 1. If the model sees the answer, then the probability that it gives to
# *each candidate, when that candidate is the answer*, is too large, and the sum is not 1.
#
# > **Exercise 5.7** (no peeking; hard, 20 minutes). Write `is_honest(loss_of, tokens, vocab_size)`. `loss_of(tokens)` takes `(1,
# > T)` and returns the `T - 1` losses of tokens 1, 2, …, in nats. Put each token of the vocabulary in the last place in turn,
# > and sum the probabilities that the losses stand for. Return whether the sum is 1, to a thousandth.

# %%
def is_honest(loss_of, tokens, vocab_size):
    ...


# %%
check.is_honest(is_honest)

# %% [markdown]
# <details><summary>Hint</summary>
#
# A loss is $-\ln p$. `tokens.clone()` keeps the original; its last place is `[0, -1]`.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def is_honest(loss_of, tokens, vocab_size):
#     total = 0.0
#     for token in range(vocab_size):
#         tried = tokens.clone()
#         tried[0, -1] = token
#         total += math.exp(-loss_of(tried)[-1])
#     return abs(total - 1) < 1e-3
# ```
#
# </details>
#
# > **Bugs that still train.**
# > - **Targets not shifted.** The loss is splendid, on unseen text too; the model has learnt to repeat. The first loss gives it
# >   away.
# > - **The same batches again.** A loader that starts from the top after every restart, a corpus that is smaller than you
# >   think. The training loss is splendid; only unseen text tells.
# > - **Gradients never zeroed.** Each step follows the sum of all gradients so far. Here it cost two percent, and
# >   nothing in the curve says so.
# > - **A clip that is far too low.** You might expect a slow run. With AdamW and Muon hardly anything happens: both divide by
# >   the gradient's size, so a clip that always bites changes little.
#
# ## Kill it
#
# Long runs die: a machine is switched off, a notebook times out. What has to be kept, so that the run goes on *exactly*?

# %% tags=["remove-input"]
show.drawing("resume",
             alt="Two lines of steps: one runs straight from 1 to 20; the other is killed at step 13, after checkpoints at 5 and 10, and goes on from 10 with the same losses.",
             caption="Three steps are lost, and computed again. Nothing else.")

# %% [markdown]
# The weights alone are not enough. $m$ and $v$ belong to it, the step's number, from which the rate follows, and the place in the
# data: here a batch depends on the seed and the step and nothing else. Try it for real. A small model trains in a *process of
# its own*, which saves every five steps. We wait for some steps and kill it: no warning, no tidying up.

# %% tags=["nbval-ignore-output"]
import subprocess, sys, tempfile, time
from pathlib import Path

folder = Path(tempfile.mkdtemp())
(folder / "text.txt").write_text(data.valid_text()[:60_000], "utf8")
log, quiet = folder / "run" / "log.jsonl", subprocess.DEVNULL
process = subprocess.Popen(
    [sys.executable, "-m", "minimodels", "train", "--preset", "unit",
     "--steps", "200", "--data", folder / "text.txt",
     "--out", folder / "run"], stdout=quiet, stderr=quiet)
while not (log.exists() and log.read_text().count("\n") > 22):
    time.sleep(0.01)
process.kill()                                    # SIGKILL
process.wait()
print("killed after step", log.read_text().count("\n"))

# %% [markdown]
# Now continue it here, and beside it run the same 200 steps without an accident.

# %% tags=["nbval-ignore-output"]
from minimodels.checkpoint import Run


def start(run):
    """Model, batches and settings of the killed run, all new."""
    text = prepare(folder / "text.txt", run.model_config.vocab_size)
    config = run.train_config
    torch.manual_seed(config.seed)
    return Transformer(run.model_config), Batches(
        text.train, batch_size=config.batch_size, seq_len=config.seq_len,
        seed=config.seed), config


with Run.open(folder / "run") as run:
    resumed = list(train(*start(run), run=run, resume=True))
straight = list(train(*start(run)))
print(f"resumed after step {resumed[0].step - 1}")

# %%
tail = straight[resumed[0].step - 1:]
print("losses of the resumed run equal those of the straight one:",
      [r.loss for r in resumed] == [r.loss for r in tail])

# %% [markdown]
# Equal, not close. To the last bit, because nothing that a step depends on was left out.

# %% [markdown]
# ## Predict a model that you have not trained
#
# Nobody trains a large model on a guess. One trains small ones, and their scores fall along a line that can be drawn on: a
# [scaling law](../book/glossary.md#scaling-law) ([Scaling laws](../book/references.md#scaling-laws)). On paper with logarithms
# on both axes it is straight, $\text{score} = a N^{-\alpha}$ for $N$ parameters.
#
# We trained the yardstick's family at widths 32, 48, 64 and 96: heads of 16, four layers, a feed-forward part two and a half
# times as wide as the model, 600 steps of the same text, two seeds each. The learning rates are the yardstick's. We did not
# search them for each size, and that is a weakness: a size whose rate suits it less lies too high. The yardstick itself, width
# 128, is *not* in the fit. It is what we predict.
#
# > **Before you read on.** The four score 1.861, 1.782, 1.732 and 1.672 in the mean, with 0.18, 0.30, 0.45 and 0.82 million
# > parameters. What will the yardstick score, with 1.28 million?
# >
# > <details><summary>What we found</summary>
# >
# > **1.641 bits per byte.** The straight line says 1.616, and it is wrong by more than its whole range.
# >
# > </details>
#
# > **Exercise 5.8** (draw the line on; medium, 15 minutes). Write `predict_score(sizes, scores, wanted)`: a straight line through
# > the logarithms of sizes and scores, by least squares, read at the size `wanted`. Return a score, not its logarithm.

# %%
def predict_score(sizes, scores, wanted):
    ...


# %%
check.predict_score(predict_score)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def predict_score(sizes, scores, wanted):
#     x, y = [math.log(n) for n in sizes], [math.log(s) for s in scores]
#     mx, my = statistics.mean(x), statistics.mean(y)
#     slope = (sum((a - mx) * (b - my) for a, b in zip(x, y))
#              / sum((a - mx)**2 for a in x))
#     return math.exp(my + slope * (math.log(wanted) - mx))
# ```
#
# </details>

# %%
import itertools

import numpy as np


def line_on(sizes, scores, wanted, floor=0.0):
    """A straight line through the logarithms of what is above the floor."""
    slope, height = np.polyfit(np.log(sizes), np.log(np.array(scores) - floor), 1)
    return floor + float(np.exp(height)) * wanted**float(slope)


by_size = {}
for t in recorded("train-sizes")["trials"]:
    by_size.setdefault(t["n_params"], []).append(t["bits_per_byte"])
sizes, yardstick = list(by_size), ModelConfig.preset("yardstick").n_params
# every way to take one seed a size, and the line through it
guesses = [line_on(sizes, one, yardstick)
           for one in itertools.product(*by_size.values())]
print(f"predicted {statistics.mean(guesses):.4f}, "
      f"from {min(guesses):.4f} to {max(guesses):.4f}")

# %% [markdown]
# Sixteen lines, one for each choice of seeds, give a prediction and a range. Now look.

# %%
seen = [t["bits_per_byte"] for t in recorded("mla-quality")["trials"]
        if t["arm"] == "mha"]
print(f"measured  {statistics.mean(seen):.4f}, "
      f"from {min(seen):.4f} to {max(seen):.4f} (five seeds)")
inside = min(guesses) <= statistics.mean(seen) <= max(guesses)
print("inside the predicted range:", inside)

# %% [markdown]
# It is not inside. The yardstick is *worse* than every one of the sixteen lines, by far more than its seeds differ. A range over
# seeds knows about luck; it does not know that the line is the wrong curve.
#
# What bends it? A line that goes on falling would reach 0 one day. [Chinchilla](../book/references.md#chinchilla) has another
# form, $E + a N^{-\alpha} + b D^{-\beta}$ for $D$ tokens: below a floor, more parameters do not help, because the text is too
# short. Our $D$ is the same for all sizes, so two of the three terms are one floor. Try some:

# %%
mean = [statistics.mean(one) for one in by_size.values()]
rows = []
for floor in (0.0, 0.6, 1.2, 1.4, 1.5):
    fitted = [line_on(sizes, mean, n, floor) for n in sizes]
    rows.append({
        "floor": floor,
        "worst miss": f"{max(abs(f - m) for f, m in zip(fitted, mean)):.4f}",
        "yardstick": f"{line_on(sizes, mean, yardstick, floor):.3f}",
        "a billion": f"{line_on(sizes, mean, 1e9, floor):.2f}"})
show.table(rows, caption="Bits per byte: the floor, how far the curve misses "
                         "the four sizes, and what it predicts.")

# %% [markdown]

# %% [markdown]
# The higher the floor, up to about 1.4, the better the curve meets the four sizes. And the floors that fit best predict 1.63 to
# 1.64 for the yardstick: 1.641 is nearly met. So there is a law. It is not the straight line.
#
# But what a floor! The yardstick itself goes far below it, as the next section shows, with more steps. So 1.4 is no limit of
# Python. It is about what 1.23 million tokens can teach, whatever the size of the pupil. At this budget the text is the
# bottleneck, and parameters are not. (Or the rates are: we did not search them for each size.)
#
# The last column is the warning. Five curves agree on four measured sizes to less than a hundredth of a bit, and disagree by
# half a bit on a model of a billion. A range over seeds did not tell you.
# %% [markdown]
# ## With more patience
#
# Six hundred steps are a measuring run. What can the yardstick do with ten times as many?

# %% tags=["hide-input"]
long = recorded("yardstick")
kept = [r for r in long["records"] if r["step"] % 50 == 0 or r["step"] <= 50]
smooth = [statistics.mean(r["loss"] for r in kept[max(0, i - 4):i + 1]) for i in range(len(kept))]
show.show(show.lines({"yardstick": ([r["tokens"] for r in kept], smooth)}, concept={"yardstick": "dense"}, log_x=True,
                     x="tokens seen", y="training loss, nats per token",
                     title="No wall in sight: ten times the tokens still buy a large step, and the decay another"),
          alt="The loss falls from above 7 to below 3 nats; on a logarithmic axis of tokens it is nearly a line from 100 thousand tokens on, and bends down at the end.",
          caption=f"Recorded: {long['command']}; means of five records, 50 steps apart.")

# %%
short = statistics.mean(seen)
show.table([{"who": who, "bits per byte": f"{bits:.3f}"} for who, bits in (
    ("zlib", long["zlib"]), ("lzma", long["lzma"]),
    ("yardstick, 600 steps, five seeds", short),
    (f"yardstick, {long['train']['steps']:,} steps", long["bits_per_byte"]))])
last = statistics.mean(r["loss"] for r in long["records"][-10:])
print(f"the last training losses: {last:.3f} nats a token, "
      f"{last / per_byte:.2f} bits per byte")

# %% tags=["nbval-ignore-output"]
patient = Run.open(lab.data_file("checkpoints/yardstick")).model()
print(prompt + says(patient))

# %% [markdown]
# Ten times the steps take it from 1.641 to 1.206 bits per byte, far below both compressors, and it closes its brackets, names
# its arguments, and stores them in `self`. What it writes means nothing; but it is Python.
#
# Look closer at the price. The corpus has 2.3 million training tokens, and the run has read each more than five times. Its last
# training losses are worth 1.07 bits per byte, less than the 1.206 on unseen text. Some of that gap is memory: a text that you
# have read five times you begin to know by heart. A longer run on the same text would gain less on other text than it seems to.
#
# ## Does it pay here?
#
# > **Does it pay here?** **Muon: a little, if at all.** A rate of its own for the embedding: yes, a lot. bf16: a little.
# >
# > - **At equal steps:** Muon's recipe has 0.36 bits per byte less than AdamW with one rate (three seeds: 0.35 to 0.37). The
# >   embedding's rate makes up 0.30 of it, Muon at most 0.06 (one seed).
# > - **At equal wall clock:** (not run) Muon's step takes about a fifth longer on a quiet core of ours; the run above prints by how much on
# >   yours. That would buy AdamW more than a hundred further steps, and they may be worth most of the 0.06.
# > - **bf16** saved a sixth of a step's time at best. What it does to the score we did not measure.
# > - **At DeepSeek's scale:** V3 was trained with AdamW. Others report that Muon halves the computation at 16 billion parameters.
# >   Our runs are ten thousand times smaller and can neither confirm nor refute it.
#
# ## What production does
#
# - **The recipe.** DeepSeek-V3 was trained with AdamW: $\beta_1 = 0.9$, $\beta_2 = 0.95$, weight decay 0.1, a gradient clipped at
#   1.0. Its rate rose over 2,000 steps to 0.00022, stayed until ten trillion tokens were read, fell along a cosine to a tenth
#   over 4.3 trillion, and was constant, in two stages, for the last 500 billion ([DeepSeek-V3](../book/references.md#deepseek-v3),
#   section 4.2). Our trapezoid is that shape with straight lines.
# - **Muon.** It has been used at 16 billion parameters and 5.7 trillion tokens; its makers report half of AdamW's computation for
#   the same loss ([Moonlight](../book/references.md#moonlight), abstract). DeepSeek's model card of V4 names Muon
#   ([DeepSeek-V4](../book/references.md#deepseek-v4)).
# - **Eight bits.** V3 went one step further down than this chapter. Chapter 10 follows it.
#
# > **Takeaways**
# > 1. Know the first loss before you run: $\ln V$ and half the variance of the logits. It is the cheapest test there is.
# > 2. A comparison of two models is a comparison of two searches. Give each its own learning rate, then several seeds; and when
# >    the gap is large, look for a second difference. Ours was the embedding's rate.
# > 3. AdamW makes the steps of all weights alike, Muon those of all directions of a matrix.
# > 4. The training loss alone proves nothing. Unseen text finds the repeated batch, the sum of probabilities finds the leak.
# > 5. A run that can be killed at any moment is one whose every step depends on what was saved, and on nothing else.
#
# ## Longer problems
#
# > **Exercise 5.9** (underfed; easy, 20 minutes). [Chinchilla](../book/references.md#chinchilla) found some twenty tokens a
# > parameter to be the best use of a given amount of computation. How many has the yardstick had after 600 steps, how many after
# > 6,000, and how many steps would twenty be? How many had DeepSeek-V3, counting all its 671 billion parameters, and counting
# > the 37.6 billion that work on a token? It read 14.8 trillion tokens. Why might somebody train far beyond twenty?
#
# <details><summary>Solution</summary>
#
# ```python
# n = ModelConfig.preset("yardstick").n_params
# print(600 * 2048 / n, 6000 * 2048 / n, 20 * n / 2048)
# print(14.8e12 / 671e9, 14.8e12 / 37.6e9)
# ```
#
# 0.96, 9.6, and 12,491 steps. V3 had 22 for each parameter and 394 for each that works on a token. Training is paid once, and
# every answer after that: a model that is smaller and read more is dearer to make and cheaper to use.
#
# </details>
#
# > **Exercise 5.10** (take Muon apart; medium, 45 minutes). Is it the equal lengths in all directions that help, or only that
# > every matrix takes a step of the same size? Replace `orthogonalise` in `minimodels.optim` by a function that scales the matrix
# > to the same Frobenius norm, the root of its smaller side, and leaves its directions alone. Train 80 steps of both.
#
# <details><summary>Hint</summary>
#
# `Muon.step` calls `optim.orthogonalise` on stacks of matrices. Put your own function there, train, and put the old one back.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# from minimodels import optim
#
# def same_size(gradient, steps=5):
#     norm = gradient.norm(dim=(-2, -1), keepdim=True)
#     return gradient / norm * min(gradient.shape[-2:])**0.5
#
# ours = optim.orthogonalise
# for name, function in (("Muon", ours), ("same size", same_size)):
#     optim.orthogonalise = function
#     m = new_model()
#     list(train(m, batches, LIVE))
#     print(name, score(m))
# optim.orthogonalise = ours
# ```
#
# One seed of ours, Muon 2.26 bits per byte, the same size without the same lengths 2.57. After 80 steps that
# model still knows little but how frequent each token is. It is the directions.
#
# </details>
#
# > **Exercise 5.11** (half a checkpoint; hard, 1 hour). A program saves the weights and the step, and forgets the optimizer's
# > memory. Show what that costs: train 40 of 80 steps, go on once with the optimizers as they are and once with new ones, and
# > compare the losses of the next steps, and the scores at the end. Is the damage large, does it heal, and would you notice it
# > in the curve?
#
# <details><summary>Hint</summary>
#
# `Trainer` in `minimodels.train` has a method `step(n)`. Its `optimizers` and `peaks` can be replaced in the middle by those of
# another Trainer of the same model.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# from minimodels.train import Trainer
#
# for forgets in (False, True):
#     m = new_model()
#     trainer = Trainer(m, batches, LIVE)
#     losses = []
#     for step in range(1, LIVE.steps + 1):
#         if forgets and step == 41:
#             trainer = Trainer(m, batches, LIVE)
#         losses.append(trainer.step(step).loss)
#     print(forgets, [round(x, 3) for x in losses[38:48]], score(m))
# ```
#
# Ours, one seed: the loss of step 41 is the same, because it is computed before the step. Then it is 0.5, 0.8, 0.7 and 0.7 nats
# too high, and it does not quite heal: 2.324 bits per byte at the end instead of 2.259. AdamW's new $m$ and $v$ make its next
# steps whole rates again, and there is no warm-up in the middle of a run. In a curve you would see a hump. In the middle of a
# long run, at a low rate, you might not.
#
# </details>
#
# > **Next: [Latent attention](06_mla.ipynb).** The yardstick is built, trained, and known to the third decimal. Now change one
# > thing in it: what attention remembers.
