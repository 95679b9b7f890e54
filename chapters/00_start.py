# ---
# jupyter:
#   book:
#     number: 0
#     reading: 10 min
#     cpu: 70 s, 1 GB
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: book
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Start: ten minutes with the whole thing
#
# [Open in Colab](https://colab.research.google.com/github/minimodels/small-models-big-claims/blob/main/chapters/00_start.ipynb)
#
# > *First make it run. Then ask why it works.*
#
# > **You will be able to**
# > - train a DeepSeek-style model on real text, on the machine in front of you, and read its score;
# > - name its four ideas: experts, a small cache, a second guess, and eight-bit numbers;
# > - see experts and second guesses at work in a model that you trained yourself, and count what the cache saves.
#
# You need Python, and no more mathematics than a logarithm. In Colab, choose *Runtime, Run all*; elsewhere run the cells from the
# top. In Colab the first cell installs the book. No text is downloaded: what the model learns from is already there.
#
# ## The sentences that this book is about
#
# In January 2025 the newspapers wrote that a small Chinese laboratory had built one of the best language models in the world
# for under six million dollars. Explanations followed, in articles and blogs; here they are in our words. The model computes with "8 decimal places". It takes in
# entire phrases at once. It is like a hospital with a team of specialists, of whom only the right ones are called.
#
# Some of that is true, some is a misreading, and some is wrong. You cannot tell which from the sentences alone, so you are going
# to build the thing. DeepSeek-V3 has 671 billion **parameters**, the numbers that training adjusts. Ours has two million, and the
# same main parts in the same order. First, watch it work.

# %%
BOOK = "git+https://github.com/minimodels/small-models-big-claims"
try:
    import minimodels
except ModuleNotFoundError:  # in Colab, where the book is not installed yet
    import subprocess, sys
    pip = [sys.executable, "-m", "pip", "install", "-q", BOOK]
    subprocess.run(pip, check=True)

# %% tags=["nbval-ignore-output"]
import time
from dataclasses import replace

import torch
from minimodels import exercises, lab, show
from minimodels.config import ModelConfig, TrainConfig
from minimodels.data import Batches, compressed_bits_per_byte, prepare
from minimodels.devices import choose_device
from minimodels.evaluate import evaluate
from minimodels.generate import decode, generate
from minimodels.model import Transformer
from minimodels.train import train

print(lab.tier())

# %% [markdown]
# ## A page of the text
#
# A language model learns from text. Ours comes from your own Python: its standard library, some nine megabytes of code and English.
# We take a third of it, to save time.
# A small part of that is kept aside: the **validation text**, which the model never learns from, so that it can be tested on it.
#
# A model does not read letters. A **tokenizer** cuts the text into pieces that occur often, its **tokens**, and gives each a
# number. Here is a piece of the validation text as the model will see it. Bars show the cuts:

# %% tags=["nbval-ignore-output"]
data = prepare("stdlib", vocab_size=4096, max_bytes=3_000_000)
piece = data.valid[5000:5110].tolist()
print("|".join(data.tokenizer.decode([t]) for t in piece))
print("\nthe first of them:", piece[:12])
print(f"{len(data.train):,} tokens to learn from; in the validation text "
      f"a token is {data.valid_bytes / len(data.valid):.2f} bytes long on average")

# %% [markdown]
# Common words are one token, rare ones are several. All the model ever sees is the row of numbers below the text, each between 0 and
# 4,095. Its task is to say which number comes next.
#
# ## Our model, beside the famous one
#
# A configuration says everything about a model's shape. We take ours, called `cpu`, and DeepSeek-V3's, and let both count their
# parameters. Nothing is built yet, so counting 671 billion of them takes no memory.

# %%
ours = ModelConfig.preset("cpu")
v3 = ModelConfig.preset("deepseek_v3")
show.table([
    {"model": name, "parameters, millions": c.n_params / 1e6,
     "work on one token, millions": c.n_active_params / 1e6,
     "experts a layer": c.n_experts, "used for a token": c.top_k}
    for name, c in (("ours", ours), ("DeepSeek-V3", v3))])

# %% [markdown]
# Here is a first surprise. Of V3's 671 billion parameters fewer than 38 billion work on any one token. A model is a stack of
# **layers**, and nearly every layer of V3 holds 256 **experts**, small networks, of which it picks 8 for a token. The press said 37
# billion, as DeepSeek's paper does, and that is right: our count is a little higher, because it includes the table that turns tokens
# into vectors. Ours is a smaller bargain. It picks 4 of 16, not 8 of 256, and about half of its parameters sit outside the experts
# and always work.
#
# ## Before training
#
# A new model's parameters are random. What does it write after `def`, the word that begins a Python function? **Sampling** picks each
# token at random, by the model's own probabilities; a **temperature** below 1 makes it prefer the likely ones.

# %% tags=["nbval-ignore-output"]
torch.manual_seed(0)
device = choose_device()
model = Transformer(ours).to(device)
model.tokenizer = data.tokenizer
prompt = "def"
print(prompt + generate(model, prompt, max_new_tokens=40, temperature=0.7,
                        generator=torch.Generator(device).manual_seed(1)))

# %% [markdown]
# > **Before you read on.** In about a minute, this model will read some 290,000 tokens, about a megabyte of text. What will it
# > have learnt by then: spelling, Python's grammar, or programs that do something?
# >
# > <details><summary>What we found</summary>
# >
# > **The look of Python, not yet its grammar.** Whole words, indentation, and common names such as `self` are there. Brackets and
# > quotes open and do not close, and the lines mean nothing. Compare with what yours writes below.
# >
# > </details>
#
# ## One minute of training
#
# One step shows the model eight pieces of text, asks it for every next token, and moves all parameters a little in the direction
# that would have made the right answers likelier. `train` yields a record after each step; the plot is drawn from them while you
# watch. The **loss** is the average surprise at the token that really came, measured in **nats**: the natural logarithm of one over the
# probability that the model had given it. Guessing blindly among 4,096 tokens costs $\ln 4096 = 8.32$ nats.

# %% tags=["nbval-ignore-output"]
config = replace(TrainConfig.preset("cpu"), steps=140)
batches = Batches(data.train, batch_size=config.batch_size,
                  seq_len=config.seq_len, seed=0)
live = show.Live(alt="The loss falls steeply, then more and more slowly.",
                 caption="This run: the cpu preset, live on this machine.")
steps, losses, began = [], [], time.perf_counter()
for record in train(model, batches, config):
    steps.append(record.step)
    losses.append(record.loss)
    if record.step % 20 == 0:
        live.draw(show.lines({"loss": (steps, losses)}, x="step",
                             y="loss, nats per token",
                             title="The loss falls while you watch"))
seconds = time.perf_counter() - began

# %% tags=["nbval-ignore-output"]
print(f"{record.tokens:,} tokens in {seconds:.0f} s: "
      f"{record.tokens / seconds:,.0f} tokens per second")

# %% [markdown]
# ## Is that good?
#
# A loss in nats per token means little to anybody else, because another tokenizer cuts other tokens. So this book reports
# **bits per byte**. Surprise is also length: a token to which the model gave probability 1/2 can be written in one bit, one with 1/8
# in three. Add that up over text that it has never seen, divide by the bytes, and you have the score. A file compressor has one too,
# its output in bits divided by the bytes of its input. That gives us two opponents, `zlib` and the stronger `lzma`. All three get the
# same validation text.

# %% tags=["nbval-ignore-output"]
score = evaluate(model, data.valid, n_bytes=data.valid_bytes,
                 seq_len=config.seq_len)
bits = {name: compressed_bits_per_byte(data.valid_text(), name)
        for name in ("zlib", "lzma")}
bits["this model"] = score.bits_per_byte
show.show(show.bars(bits, unit="bits per byte",
                    concept={"this model": "moe"},
                    title="Bits per byte of unseen text: less is better"),
          alt="Three bars of similar length: zlib, lzma, this model.",
          caption="This run. A compressor sees this text alone; the model "
                  "has read other text before, for a minute.")

# %% tags=["nbval-ignore-output"]
print(f"loss {score.loss:.3f} nats per token, {score.n_tokens:,} tokens, "
      f"{data.valid_bytes:,} bytes")

# %% [markdown]
# In our run the model lands between the two. A minute earlier it knew nothing. `make train` gives it seven times as many steps, on
# all nine megabytes, and then it leaves both behind: our recorded run reached 1.37 bits per byte, where lzma needs 1.88 and zlib 2.13
# on the same text. What does a minute buy? The same question as before training:

# %% tags=["nbval-ignore-output"]
print(prompt + generate(model, prompt, max_new_tokens=120, temperature=0.7,
                        generator=torch.Generator(device).manual_seed(1)))

# %% [markdown]
# > **Exercise 0.1** (bits per byte; easy, 5 minutes). The loss is in nats per token. The score is in bits per byte. Write the function
# > that turns one into the other, for a text of `n_tokens` tokens and `n_bytes` bytes. One bit is $\ln 2$ nats; `math.log(2)` gives it.
# > Replace the three dots, run the cell, then run the check below it. Then put in your own three numbers: you get the last bar above.

# %%
import math


def loss_to_bits_per_byte(loss_nats_per_token, n_tokens, n_bytes):
    ...


# %%
check = exercises.load("start")
check.loss_to_bits_per_byte(loss_to_bits_per_byte)

# %% [markdown]
# <details><summary>Hint</summary>
#
# What does the whole text cost, in nats? And in bits? Then share the bits out over the bytes.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def loss_to_bits_per_byte(loss_nats_per_token, n_tokens, n_bytes):
#     bits = loss_nats_per_token * n_tokens / math.log(2)
#     return bits / n_bytes
# ```
#
# </details>
#
# ## Idea one: experts
#
# The press spoke of a hospital with a team of specialists. Each layer but the first holds sixteen experts, and a **gate** that sends
# each token to four of them, each with a weight. Here is the validation text again. Each token's colour and number say which expert
# of the last layer counts most for it.

# %% tags=["nbval-ignore-output"]
model.eval()
page = torch.tensor(data.valid[5000:5160].astype("int64"), device=device)
with torch.no_grad():
    routing = model(page[None]).routing[ours.n_layers - 1]
best = routing.expert.gather(1, routing.weight.argmax(1, keepdim=True))
show.tokens_by_expert(
    [data.tokenizer.decode([t]) for t in page.tolist()],
    best.flatten().tolist(), n_experts=ours.n_experts,
    caption="The last layer's first choice for each token, in this run.")

# %% [markdown]
# Look for a rule; yours may differ from ours. In our run one expert comes first for more than half of the tokens, most of them whole
# words. Others take line breaks, or pieces of words, and several are never first. That is after one minute, on one page, and each
# token has three other experts too. Nobody gives the experts subjects: the choice is made token by token, in every layer. Chapter 7
# measures what they divide the text by, and chapter 8 what keeps all sixteen busy.
#
# ## Idea two: a small cache
#
# To write the next token, **attention** looks back at every earlier one. What it needs to know about them is kept in a **cache**, which
# grows with each token. For long texts and many users the cache can fill the memory. Ordinary attention (MHA) has several
# **heads**, which look back side by side, and each keeps its own notes. DeepSeek's **latent attention** (MLA) keeps one short summary
# a token, from which all heads work.

# %%
def cached(config, attention):
    return replace(config, attention=attention).cached_values_per_token


show.table([
    {"numbers cached for one token": name,
     "ordinary attention (MHA)": cached(config, "mha"),
     "latent attention (MLA)": cached(config, "mla"),
     "MLA keeps, %": 100 * cached(config, "mla") / cached(config, "mha")}
    for name, config in (("our sizes", ours), ("DeepSeek-V3's sizes", v3))])

# %% [markdown]
# At V3's sizes less than two percent is left, a saving of more than fifty times. (Other large models already use thriftier attention;
# beside that, chapter 6 finds less.) At ours it is less than two times, because a small model has few heads to summarise. One idea,
# two sizes, two very different answers. Watch for that in the chapters to come.
#
# ## Idea three: a second guess
#
# "Entire phrases at once", said the press. What V3 has is an extra module, small beside the rest, that guesses one token further
# ahead; it is called **multi-token prediction** (MTP). When the model writes, that guess is a **draft**: the model checks it while it
# computes the next token anyway. A right draft saves a whole run of the model, a **pass**. A wrong one wastes a little work. Below,
# the model always takes its likeliest token, and keeps a draft only if it is that one; so the text must come out the same.

# %% tags=["nbval-ignore-output"]
start = [data.valid[5000:5032].tolist()]
plain = decode(model, start, max_new_tokens=200)
drafted = decode(model, start, max_new_tokens=200, draft="mtp")
show.table([{"writing": name, "tokens": len(g.tokens[0]),
             "passes of the model": g.n_passes, "seconds": g.seconds}
            for name, g in (("plain", plain), ("with drafts", drafted))])
print(f"the same text: {plain.tokens == drafted.tokens}")
print(f"{drafted.acceptance:.0%} of the drafts were right")
print("the end of it:", data.tokenizer.decode(plain.tokens[0])[-120:])

# %% [markdown]
# The text is the same, in fewer passes. So "phrases at once" misleads: it is one token and one checked guess. Now compare the
# seconds. They fall less than the passes, because guessing and checking cost time too. And look at the end of the text: a model this
# young repeats itself, so it is easy to guess. Do not take the percentage for a law. Chapter 9 measures it properly.
#
# ## Idea four, and the map
#
# The fourth idea is numbers of eight *bits*; the press read eight *decimal places*. There is nothing to see of it in ten minutes, so
# it waits for chapter 10. Here is the plan of the whole book. The claims are in our words.
#
# | Chapters | What you build | Claims they test |
# |---|---|---|
# | 1–5 | the cost sheet, data, attention, a plain Transformer, training | price, time, one word after another |
# | 6–10 | latent attention, experts, their balance, the second guess, eight-bit training | a cache of 5–13 %, specialists, phrases at once, 8 decimal places |
# | 11–14 | kernels, many GPUs, everything in one run, serving | 2,000 GPUs instead of 100,000, 95 % cheaper |
# | 15–16 | reasoning by reinforcement, distillation | better than o1, distillation explains it |
# | 17–18 | what came after, and the verdict on every claim | all of them |
#
# > **Takeaways**
# > 1. The main parts of DeepSeek-V3 fit into two million parameters, and train for a minute on two processor cores.
# > 2. Bits per byte compare models across tokenizers, and with file compressors.
# > 3. Experts let most of a large model rest on any one token; at our size, less of it.
# > 4. Latent attention keeps under 2 % of V3's cache, and more than half of ours. Size decides what an idea is worth.
# > 5. Drafts can save passes. They leave the likeliest text as it is, and the odds of a sampled one as they are.
#
# > **Next: [What did it cost?](01_cost.ipynb).** The most famous sentence first: six million dollars, rebuilt from figures that anybody can look up.
