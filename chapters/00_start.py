# ---
# jupyter:
#   book:
#     number: 0
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: book
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Start
#
# [Open in Colab](https://colab.research.google.com/github/minimodels/small-models-big-claims/blob/main/chapters/00_start.ipynb)
#
# A language model learns from text. The text of this book is already on your machine: the standard library of your own Python, its code,
# its docstrings and its help topics. This page looks at it, and at the number to beat.

# %% tags=["hide-input"]
BOOK = "git+https://github.com/minimodels/small-models-big-claims"
try:
    import minimodels
except ModuleNotFoundError:  # in Colab, where the book is not installed yet
    import subprocess, sys
    pip = [sys.executable, "-m", "pip", "install", "-q", BOOK]
    subprocess.run(pip, check=True)

# %% [markdown]
# ## A page of the corpus

# %% tags=["nbval-ignore-output"]
from minimodels.data import load_corpus

corpus = load_corpus("stdlib")
text = "\n".join(corpus.valid)
print(f"{len(corpus.train)} files to train on, {len(corpus.valid)} to test with\n")
print(text[:600])

# %% [markdown]
# ## What a compressor makes of it
#
# A model that predicts text well can also compress it. So we measure both in **bits per byte**: how many bits the text costs, for each byte
# of it. Plain storage costs 8. A model that is worth its training must need fewer bits than `lzma`, which has seen no other text.

# %% tags=["nbval-ignore-output", "hide-input"]
from minimodels.data import compressed_bits_per_byte
from minimodels.show import bars, show

needs = {method: compressed_bits_per_byte(text, method) for method in ("zlib", "lzma")}
fig = bars({"stored": 8.0} | needs, unit="bits per byte",
           title="A compressor needs less than a third of the bits")
show(fig, name="fig-compressors",
     alt="Three bars: stored text takes 8 bits per byte, zlib and lzma far fewer.",
     caption="The validation part of the stdlib corpus, on the machine that made this page.")

# %% [markdown]
# ## Your turn
#
# A training loop reports its loss in nats per token. Turn it into bits per byte:
#
# $$ \text{bits per byte} = \frac{\ell}{\ln 2} \cdot \frac{n_\text{tokens}}{n_\text{bytes}} $$

# %%
def loss_to_bits_per_byte(loss_nats_per_token, n_tokens, n_bytes):
    ...


# %%
from minimodels import exercises

check = exercises.load("start")
check.loss_to_bits_per_byte(loss_to_bits_per_byte)
