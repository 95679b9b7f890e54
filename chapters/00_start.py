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
# Trial of the pipeline: $E = mc^2$, and
#
# $$ \mathrm{bpb} = \frac{\ell}{\ln 2} \cdot \frac{n_{\text{tokens}}}{n_{\text{bytes}}} \tag{0.1} $$

# %%
BOOK = "git+https://github.com/minimodels/small-models-big-claims"
try:
    import minimodels
except ModuleNotFoundError:  # in Colab, where the book is not installed yet
    import subprocess, sys
    pip = [sys.executable, "-m", "pip", "install", "-q", BOOK]
    subprocess.run(pip, check=True)

# %% tags=["nbval-ignore-output"]
from minimodels import exercises, lab
print(lab.tier())
print(lab.band("start", "valid_bpb", 1.5))
print(lab.doctor())

# %% tags=["hide-input"]
from minimodels.show import Live, bars, lines, show, table, tokens_by_expert
import numpy as np
steps = np.arange(1, 60)
show(lines({"MLA": (steps, 5 / steps**0.5), "MHA": (steps, 5.1 / steps**0.5), "GQA": (steps, 6 / steps**0.4), "loss": (steps, 3 + 0 * steps)},
           title="A test of the pipeline: four lines that fall at different speeds, and one that does not fall at all", x="step", y="loss, nats per token",
           spread={"MLA": (4 / steps**0.5, 6 / steps**0.5)}),
     alt="Three falling lines and a flat one.", caption="Made up for a test; no run.", name="fig-test")

# %%
show(bars({"MHA": 32768, "GQA": 2048, "MLA": 576}, title="MLA keeps the least", unit="numbers a token and layer"), alt="Three bars, MLA's the shortest.")

# %%
live = Live(alt="A line that grows.")
for n in (3, 10, 30):
    live.draw(lines({"loss": (range(1, n), [1 / k for k in range(1, n)])}, title="The loss falls", x="step", y="loss"))

# %%
table([{"preset": "cpu", "parameters": 1_700_000, "bits per byte": 1.42341}, {"preset": "t4", "parameters": 17, "bits per byte": 1.1}], caption="A caption.")

# %%
tokens_by_expert(["def", " main", "(", "):", "\n", "    ", "return", " 1", "\n"] * 9, [0, 1, 2, 3, 4, 5, 6, 7, 0] * 9, n_experts=16, caption="A test.")

# %%
def bits_per_byte(loss_nats_per_token, n_tokens, n_bytes):
    ...

# %%
check = exercises.load("start")
check.bits_per_byte(bits_per_byte)
