# ---
# jupyter:
#   book:
#     number: 2
#     reading: 75 min
#     cpu: 20 s, 1 GB
#     needs: "Python, and what a probability is"
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: book
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Text into numbers
#
# [Open in Colab](https://colab.research.google.com/github/minimodels/small-models-big-claims/blob/main/chapters/02_data.ipynb)
#
# > *Count bytes. Tokens are somebody's choice.*
#
# > **You will be able to**
# > - learn a vocabulary from bytes by hand, and prove that a library learns the same;
# > - turn any loss into bits per byte, and say when two losses may be compared;
# > - name the scores that a model must beat before it is worth a second look;
# > - catch a test that was in the training text, and measure how much it flatters;
# > - say what rows of a vocabulary cost and buy, at our size and at DeepSeek's;
# > - fill batches so that an epoch reads no token twice, and test that it is so.

# %%
BOOK = "git+https://github.com/minimodels/small-models-big-claims"
try:
    import minimodels
except ModuleNotFoundError:  # in Colab, where the book is not installed yet
    import subprocess, sys
    pip = [sys.executable, "-m", "pip", "install", "-q", BOOK]
    subprocess.run(pip, check=True)

# %% tags=["nbval-ignore-output"]
import json
import math
import random
import statistics
from collections import Counter

import numpy as np
from minimodels import data as book_data
from minimodels import exercises, lab, show
from minimodels.config import ModelConfig
from minimodels.corpus import load_corpus
from minimodels.data import bits_per_byte, compressed_bits_per_byte, prepare
from minimodels.explorables import Tokens
from minimodels.ngram import NGram
from minimodels.studies import recorded

check = exercises.load("data")
print(lab.tier())

# %% [markdown]
# ## The pain
#
# **2.5 loses to 5.0**
#
# Here are two models of the same text. Neither has learnt more than to count which piece follows which. One counts bytes, the
# other [tokens](../book/glossary.md#token), pieces of several bytes each. Their **loss** is the average surprise at the next
# piece: the natural logarithm of one over its probability, in **nats**. Whoever knows the probabilities can also write the text
# down, a piece of probability $p$ in $-\log_2 p$ bits. So a model is a compressor, too, and a nat is $1/\ln 2 = 1.44$ bits. Both are
# tested on text that they have not seen, 306 kilobytes of it.

# %% tags=["nbval-ignore-output"]
corpus = load_corpus("stdlib")
data = prepare("stdlib", vocab_size=4096)
as_bytes = [np.frombuffer("".join(texts).encode(), np.uint8)
            for texts in (corpus.train, corpus.valid)]

two_bytes = NGram(as_bytes[0], vocab_size=256, n=2, k=100)
two_tokens = NGram(data.train, vocab_size=4096, n=2, k=100)
nats = {"of bytes": two_bytes.nats(as_bytes[1]),
        "of tokens": two_tokens.nats(data.valid)}
pieces = {"of bytes": len(as_bytes[1]), "of tokens": len(data.valid)}
show.table([{"pairs": name, "loss, nats a piece": nats[name] / pieces[name],
             "the text, kilobytes":
                 nats[name] / math.log(2) / 8 / 1000} for name in nats])

# %% [markdown]
# > **Margin · Perplexity.** Some reports write $e$ to the power of this loss. It hides the unit even better.
#
# Read the middle column, and the model of bytes is twice as good. Read the last one, and it needs nearly twice the space: 306
# kilobytes shrink to 137, and with tokens to 73. Both columns are right. The first divides by the number of pieces, and one of the
# two models has made its pieces small. A loss *per token* is a quotient, and whoever chose the tokens chose what it is divided by.
#
# Prices per million tokens, tokens per second, 14.8 trillion tokens of training: most numbers about language models count in this
# unit. (No claim of the press is decided here; those of chapters 6 to 10 rest on it.) So we build the tokens first, then a score
# that does not know what a token is, and then we ask how good a score has to be. The answer will not flatter our models.
#
# ## Bytes
#
# A computer stores text as bytes, by a standard called UTF-8. An English letter takes one, é two, most emoji four. There are only
# 256 values, so whoever starts from bytes can write every text, and no word is unknown. But bytes are short. A model pays for
# every piece that it reads, so pieces ought to be few.

# %% tags=["remove-input"]
show.drawing("text",
             alt="The text def café as eight characters, nine bytes, five tokens, five ids, and five rows of 128 numbers; the letter é is two bytes, and two tokens.",
             caption="One text, five times. The book's tokenizer has not met é often enough to give it a token of its own.")

# %% [markdown]
# The last line is what the model sees. For every token it keeps a row of 128 numbers. The table of these rows is the
# [embedding](../book/glossary.md#embedding), and one says that a [vocabulary](../book/glossary.md#vocabulary) has 4,096 *rows*.
#
# | Symbol | Meaning | Here |
# |---|---|---|
# | $V$ | rows of the vocabulary: tokens that exist | 4,096 |
# | $p_t$ | probability that a model gave to the token that really came at place $t$ | |
#
# ## Build a tokenizer
#
# ### One: the most frequent pair becomes a token
#
# [Byte-level BPE](../book/glossary.md#byte-level-bpe) has one idea. Find the two neighbours that stand side by side most
# often. Give the pair a number of its own, and write that number wherever the pair stands. Do it again.
#
# > **Exercise 2.1** (merge; easy, 10 minutes). Write `merge_pair(word, pair, new)`. `word` is a tuple of ids; every occurrence
# > of `pair` in it, from the left, becomes the one id `new`. Mind `(2, 2, 2)`: it holds the pair `(2, 2)` once, not twice.

# %%
def merge_pair(word, pair, new):
    ...


# %%
check.merge_pair(merge_pair)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def merge_pair(word, pair, new):
#     merged, i = [], 0
#     while i < len(word):
#         if word[i:i + 2] == pair:
#             merged.append(new)
#             i += 2
#         else:
#             merged.append(word[i])
#             i += 1
#     return tuple(merged)
# ```
#
# </details>
#
# Try the idea on something like a line of a play, with letters for bytes, and ties by the alphabet:

# %%
from minimodels.bpe import count_pairs, merge

text = tuple("to be or not to be is to be")
for _ in range(4):
    pairs = count_pairs({text: 1})
    best = min(pairs, key=lambda pair: (-pairs[pair], pair))
    text = merge(text, best, "".join(best))
    print(f"{pairs[best]} x {''.join(best)!r:8}", "|".join(text))

# %% [markdown]
# The third merge reaches across a space, and the fourth makes a phrase into a token. Left alone, the method would spend its rows
# on `to be`, `to be,` and `to be?`. So text is cut into **words** first, and nothing is merged across a cut. Our rule, a regular
# expression, keeps a space, or one other sign, with the word that follows it (`(r`). It takes at most three digits together, and
# leaves punctuation with a line break and the indentation after it (`):` and the break):

# %%
line = "def area(r):\n    return 3.14159 * r\n"
cut = data.tokenizer.pre_tokenizer.pre_tokenize_str
print([line[start:end] for _, (start, end) in cut(line)])

# %% [markdown]
# > **Exercise 2.2** (the next pair; medium, 15 minutes). Write `best_pair(words)`. `words` maps a word, a tuple of ids, to how
# > often it occurs. Return the pair that occurs most often in all of them. Among equals take the one with the smallest ids:
# > that rule is arbitrary, and you will see below why it is this one.

# %%
def best_pair(words):
    ...


# %%
check.best_pair(best_pair)

# %% [markdown]
# <details><summary>Hint</summary>
#
# A `Counter` of pairs, to which a word that occurs five times adds five. For the tie: `min` over the tuple `(-count, pair)`.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def best_pair(words):
#     pairs = Counter()
#     for word, n in words.items():
#         for pair in zip(word, word[1:]):
#             pairs[pair] += n
#     return min(pairs, key=lambda pair: (-pairs[pair], pair))
# ```
#
# </details>
#
# Both in a loop, and the tokenizer is finished. (`count_pairs` and `merge` are the package's, so that the cell runs whether you
# did the exercises or not.) The loop ends when no pair occurs twice:

# %%
def learn_by_hand(words, n_merges):
    """The pairs that are merged, in order: the most frequent each time."""
    merges = []
    for new in range(257, 257 + n_merges):
        pairs = count_pairs(words)
        best = min(pairs, key=lambda pair: (-pairs[pair], pair),
                   default=None)
        if best is None or pairs[best] < 2:
            break
        merges.append(best)
        words = {merge(word, best, new): n for word, n in words.items()}
    return merges


# %% [markdown]
# ### Two: prove it
#
# The [`tokenizers`](../book/references.md#tokenizers) library is written in Rust, and much faster. Does it learn the same?
# Forty kilobytes are enough for a proof. Ties decide: among equal counts the library hands out the pair with the smallest ids,
# so our ids must be the library's. [GPT-2](../book/references.md#gpt-2)'s code separated tokens by spaces, so no byte could
# look like one. It wrote every byte as a visible character: those that are visible as themselves, the others moved behind them.
# The library does the same, so id 1 is `!`, and a space comes after all the letters. (Id 0 ends a document.)

# %%
visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
order = visible + [b for b in range(256) if b not in visible]
id_of = {b: 1 + i for i, b in enumerate(order)}

sample = "".join(book_data.take(corpus.train, 40_000))
words = Counter(tuple(id_of[b] for b in sample[start:end].encode())
                for _, (start, end) in cut(sample))
ours = learn_by_hand(words, 200)

library = book_data.train_tokenizer([sample], vocab_size=257 + 200)
model = json.loads(library.to_str())["model"]
theirs = [tuple(model["vocab"][part] for part in pair)
          for pair in model["merges"]]
print(f"the same {len(theirs)} merges, in order: {ours == theirs}")

# %% [markdown]
# A test of the book does it with four hundred, and with texts made to be full of ties.

# %% tags=["remove-input"]
show.drawing("merging",
             alt="Seven bytes, a space and the letters of return, become one token in six merges: re, ur, tur, turn, return, and at last the space in front.",
             caption="How six of the book's 3,839 merges make one token. The number of a merge says how early it was learnt.")

# %% [markdown]
# ### Three: encode
#
# > **Margin.** Nothing is ever lost: decoding gives back every text byte by byte.
#
# A new word is not searched for the longest token. It is put together again as it was learnt: whichever of its pairs was
# learnt first is merged first.
#
# > **Exercise 2.3** (encode; medium, 15 minutes). Write `encode_word(word, ranks)`. `ranks` maps a pair to the id of its
# > token; a smaller id was learnt earlier. Merge until no pair of `word` is in `ranks`. `merge(word, pair, new)` is there.

# %%
def encode_word(word, ranks):
    ...


# %%
check.encode_word(encode_word)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def encode_word(word, ranks):
#     while pairs := [pair for pair in zip(word, word[1:]) if pair in ranks]:
#         first = min(pairs, key=ranks.get)
#         word = merge(word, first, ranks[first])
#     return word
# ```
#
# </details>
#
# Type anything into the box below, then drag the vocabulary from 4,096 rows down to 257, where nothing is left but bytes. Every
# smaller vocabulary is the beginning of this one. Choose a token to see which merges made it. Try your name; a number of ten
# digits; and a language that is not English.

# %%
Tokens()

# %% [markdown]
# The tokenizer has read Python and English. The word `self`, with the space before it, is one token, and an emoji falls into
# bytes, because the tokenizer never met one. `hello, how are you?` takes 8 tokens, its German form `Hallo, wie geht es dir?` 12,
# and `Привет, как дела?`, 17 characters of Russian, takes 30: one for each of its bytes. Whoever pays by the token pays for what the
# tokenizer has read.
#
# ## What a row costs, and what it buys
#
# Each row is a vector that the model has to learn, and to multiply with at every step. How much shorter does it make the text? One
# tokenizer of 32,768 rows answers for all smaller ones:

# %% tags=["nbval-ignore-output"]
largest = book_data.train_tokenizer(corpus.train, vocab_size=32_768)
sizes = [257, 512, 1024, 2048, 4096, 8192, 16_384, 32_768]
bytes_a_token = {}
for rows in sizes:
    smaller = book_data.first_rows(largest, rows)
    tokens = book_data.encode_documents(smaller, corpus.valid)
    bytes_a_token[rows] = data.valid_bytes / len(tokens)

# %% tags=["hide-input", "nbval-ignore-output"]
show.show(show.lines({"bytes a token": (sizes, list(bytes_a_token.values()))}, log_x=True,
                     x="rows of the vocabulary", y="bytes a token, unseen text", title="The first thousand rows buy more than the last twenty thousand"),
          alt="Bytes a token rise from 1 with 257 rows to 2.7 with 1,024 and 3.8 with 4,096, and then ever more slowly, to about 4.9 with 32,768.",
          caption="This run: validation text of the standard library. The tokenizer was learnt from at most 6 MB of the training text.")

# %%
yardstick = ModelConfig.preset("yardstick")
v3 = ModelConfig.preset("deepseek_v3")
show.table([{"rows": f"{rows:,}", "width": c.d_model,
             "millions of parameters": rows * c.d_model / 1e6,
             "% of the model as it is": 100 * rows * c.d_model / c.n_params}
            for rows, c in [(512, yardstick), (4096, yardstick),
                            (32_768, yardstick), (129_280, v3)]])

# %% [markdown]
# > **Margin.** The yardstick uses the same matrix once more, to score the next token at its end. V3 has a second one for that.
#
# The last column answers a riddle: why does DeepSeek-V3 have 129,280 rows and our **yardstick**, the model that chapters 3 to 5
# build, 4,096? V3's rows are a seven-hundredth of its parameters. With a quarter as many, our table alone would weigh three
# times what the whole model weighs now. A vocabulary is a matter of scale.
#
# > **Before you read on.** Give four yardsticks 512, 2,048, 4,096 and 6,144 rows, the same number of parameters (the feed-forward
# > part gives up what the rows take) and the same *bytes* of text to learn from. Which scores best on unseen text?
# >
# > <details><summary>What we found</summary>
# >
# > **6,144 rows.** The means are 2.51, 2.18, 2.14 and 2.12 bits per byte, better with every step. But between the last two one
# > seed of three says the opposite.
# >
# > </details>

# %% tags=["hide-input"]
study = recorded("data-vocabulary")
scores = {arm: [t["bits_per_byte"] for t in study["trials"] if t["arm"] == arm] for arm in study["arms"]}
show.show(show.dots(scores, unit="bits per byte of unseen text", title="After 0.8 MB of text more rows are better, or at least no worse"),
          alt="Four rows of three dots: 512 rows far to the right, the others close together; the dots of 4,096 and 6,144 rows overlap.",
          caption=f"Recorded: minimodels study data-vocabulary; three seeds each; {study['trials'][0]['hardware']}. The stroke is the mean.")

# %%
rows = []
for arm, bits in scores.items():
    runs = [t for t in study["trials"] if t["arm"] == arm]
    config = study["arms"][arm]["model"]
    rows.append({"vocabulary": arm, "feed-forward width": config["d_ff"],
                 "tokens read": runs[0]["tokens"],
                 "mean, bits per byte": f"{statistics.mean(bits):.3f}",
                 "over three seeds": f"{min(bits):.3f} to {max(bits):.3f}"})
show.table(rows)

# %% [markdown]
# We expected an optimum in the middle, and found none. The first step, 0.33, is far larger than the spread of the seeds; the
# second, 0.04, hardly larger; the last, 0.02, smaller. Beside the model with 6,144 rows, the one with 512 has a feed-forward part
# four times as wide, and loses by far. Perhaps it spends its layers on spelling: with 512 rows ` token` comes in three pieces. (We have
# not tested that.) These runs are short, and all have one learning rate; a longer training may find its optimum elsewhere. The book
# keeps 4,096 rows. With 6,144, 62 percent of the yardstick's parameters would lie in the embedding, and it is layers that the book
# wants to study.
#
# ## Bits per byte
#
# Take the compressor at its word. Add up the bits that a text costs, and divide by something that no tokenizer can change:
#
# $$ \text{bits per byte} = \frac{ \sum_t -\log_2 p_t }{ \text{bytes} } \tag{2.1}$$
#
# Take another tokenizer, in which `caf` and `é` are tokens, and a model that gives them $\tfrac14$ and $\tfrac18$. The text costs
# $2 + 3 = 5$ bits. It has five bytes, because é has two: 1.0 bit per byte. In bits per *character* it would be 1.25, and per token
# 2.5. Only the first can be compared with a file on a disk.
#
# > **Exercise 2.4** (the score; easy, 5 minutes). Write `score(pieces, probabilities)`: bits per byte of a text, from its tokens as
# > strings and the probability that a model gave to each.

# %%
def score(pieces, probabilities):
    ...


# %%
check.score(score)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def score(pieces, probabilities):
#     bits = -sum(math.log2(p) for p in probabilities)
#     return bits / sum(len(piece.encode()) for piece in pieces)
# ```
#
# </details>
#
# > **Margin.** Ends of documents cost bits and count no bytes. And of all ways to cut a text into tokens we pay for one alone, so
# > the score is a little stricter than it need be.
#
# The package has `bits_per_byte(nats, n_bytes)`, for a total in nats. Now the two models of the beginning can be compared:

# %% tags=["nbval-ignore-output"]
n_bytes = data.valid_bytes
for name, total in nats.items():
    bits = bits_per_byte(total, n_bytes)
    print(f"pairs {name}: {bits:.2f} bits per byte")

# %% [markdown]
# No wonder: a pair of tokens spans some eight bytes, a pair of bytes two. The tokenizer had done a part of the work before the
# model began to count.
#
# ## Rungs to beat
#
# A score means something beside other scores. Knowing only that there are 256 bytes costs 8 bits. A **unigram** model knows how
# frequent each token is, a **bigram** model what follows what. A pair that never occurred must not get probability 0, or one
# surprise would cost infinitely many bits. So what was seen is mixed with what the shorter context says
# ([MacKay and Peto](../book/references.md#mackay-peto)):
#
# $$ p(b \mid a) = \frac{ \mathrm{count}(ab) + k\, p(b) }{ \mathrm{count}(a) + k } \tag{2.2}$$
#
# The bar reads "given". It is as if $a$ had been seen $k$ more times, before the text began, its successors shared out as $p(b)$
# says. With a large count the $k$ hardly matter; with none they are all we have. And $p(b)$ is mixed with $1/V$ in the same way. A pair
# with $\mathrm{count}(ab) = 6$, $\mathrm{count}(a) = 8$, $p(b) = 0.1$ and $k = 2$ gets $(6 + 0.2) / 10 = 0.62$. Ours has $k = 100$.
#
# > **Exercise 2.5** (counting; medium, 15 minutes). Write `bigram(tokens, vocab_size, k)`, the table of equation (2.2): `V` rows
# > $a$ of `V` numbers $p(b \mid a)$, for tokens in `range(vocab_size)`, as lists or as an array. $p(b)$ is
# > $(\mathrm{count}(b) + k/V) / (n + k)$ for $n$ tokens. As a context the last one does not count, for nothing follows it. Every row
# > must sum to 1.

# %%
def bigram(tokens, vocab_size, k):
    ...


# %%
check.bigram(bigram)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Three counters: of tokens, of `zip(tokens, tokens[1:])`, and of `tokens[:-1]`. Then two nested loops fill the table.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def bigram(tokens, vocab_size, k):
#     one, two = Counter(tokens), Counter(zip(tokens, tokens[1:]))
#     before, V = Counter(tokens[:-1]), range(vocab_size)
#     p = [(one[b] + k / vocab_size) / (len(tokens) + k) for b in V]
#     return [[(two[a, b] + k * p[b]) / (before[a] + k) for b in V] for a in V]
# ```
#
# </details>
#
# Nothing stops you at pairs. The package's `NGram` counts runs of $n$ tokens, and falls back on shorter ones by the same formula.
# And there are compressors, `zlib` and the stronger `lzma`, which replace what they have seen before by a pointer to it.
#
# > **Before you read on.** Put these in order: a model that counts up to five tokens, `lzma`, and our yardstick, a Transformer
# > of 1.3 million parameters that was trained for 600 steps.
# >
# > <details><summary>What we found</summary>
# >
# > **The Transformer wins, 1.64 to 1.74 to 1.88.** Counting comes second, six percent behind. And there is a compressor
# > that beats them both; we owe it to you [below](#The-opponent-that-we-owe-you).
# >
# > </details>

# %% tags=["nbval-ignore-output"]
rungs = {}
for n, name in ((1, "unigram"), (2, "bigram"), (5, "five tokens")):
    model = NGram(data.train, vocab_size=4096, n=n, k=100)
    rungs[name] = bits_per_byte(model.nats(data.valid), n_bytes)
for name in ("zlib", "lzma"):
    rungs[name] = compressed_bits_per_byte(data.valid_text(), name)
rungs["yardstick, recorded"] = statistics.mean(
    t["bits_per_byte"] for t in recorded("mla-quality")["trials"]
    if t["arm"] == "mha")
rungs = dict(sorted(rungs.items(), key=lambda rung: -rung[1]))

# %% tags=["hide-input", "nbval-ignore-output"]
show.show(show.bars(rungs, unit="bits per byte of unseen text, less is better", concept={"yardstick, recorded": "dense"},
                    title="Five tokens beat lzma; a Transformer beats them by little"),
          alt="Bars, from the longest: unigram 2.7, zlib 2.1, bigram 1.9, lzma 1.9, five tokens 1.7, yardstick 1.6.",
          caption="This run, but for the yardstick: mean of five seeds, 600 steps, minimodels study mla-quality. All are scored on the same text; what works on tokens has 4,096 rows.")

# %% [markdown]
# Keep this ladder; the rung that knows nothing, 8 bits, lies far off to the right. When a curve has fallen from 2.7 to 1.9, the
# Transformer is worth as much as a table of pairs. Only below 1.74 is it beyond what counting five tokens gives. (Of six values
# $k = 100$ was the best for five tokens, on three splits of the *training* text; for pairs 200 is better by 0.002. The
# Transformer's rate is the best of four on the validation text; with the worst, 1.67, it would still win.)
#
# ## What we read
#
# | Corpus | Text | Size | Licence |
# |---|---|---|---|
# | `stdlib` | your own Python's library: code, docstrings, help topics | 9 MB | PSF |
# | `tinyshakespeare` | plays | 1.1 MB | public domain |
# | `tinystories` | [children's stories](../book/references.md#tinystories), written by GPT-4 | first 100 MB | CDLA-Sharing-1.0 |
# | `fineweb-edu` | [web pages](../book/references.md#fineweb-edu), filtered for teaching | 5,000 pages | ODC-By 1.0 |
#
# The first is on every machine that has Python; the others are downloaded on request. Each is split into text to learn from and
# [validation text](../book/glossary.md#validation-text) to be tested on. The library is split by file: five percent of the files are held back, 3.3 percent
# of the bytes. A hash of each path decides, so a new file moves no other. Plays are cut near their end, and the stories come with
# a validation file. Why not draw lines, or pages?

# %% tags=["remove-input"]
show.drawing("splits",
             alt="Six files, split in two ways. By file: one page is held back as a whole. By line: single lines are held back in every page, between lines that are learnt from.",
             caption="The heavy lines are held back for the test.")

# %% [markdown]
# Drawing lines looks fairer, for every file is represented. Let the counting model judge.
#
# > **Before you read on.** The same text, about as much of it held back, the same model. Only single lines are held back, where it
# > was whole files. By how much does the score get better: 1 percent, 5, or 20?
# >
# > <details><summary>What we found</summary>
# >
# > **22 percent.** That is the mean of five draws. And not because single lines are easier: on their own they are harder to
# > compress.
# >
# > </details>

# %% tags=["nbval-ignore-output"]
from minimodels.studies.data import LONG, PART, counted, split

part = load_corpus("stdlib", max_bytes=PART)
flattered = {}
for way in ("by file", "by line"):
    train, valid = split(part.train + part.valid, way, random.Random(0))
    tokenizer = book_data.train_tokenizer(train, 4096)
    tokens = [book_data.encode_documents(tokenizer, t)[:-1]
              for t in (train, valid)]
    flattered[way] = counted(*tokens, len(valid[0].encode()), n=LONG)
    print(f"{way}: {flattered[way]:.2f} bits per byte")
print(lab.band("data", "five tokens, split by file", flattered["by file"]))

# %% [markdown]
# This one draw says 16 percent. Five recorded ones say 22 on average, from 18 to 26. (The last line asks whether yours lies in the
# [band](../book/glossary.md#band) of recorded runs.)

# %% tags=["hide-input"]
splits = recorded("data-splits")
ways = {"by file": "whole files", "by piece": "pieces of 20 lines", "by line": "single lines"}
of_way = {(arm, key): [t[key] for t in splits["trials"] if t["arm"] == arm] for arm in ways for key in ("5-gram", "lzma")}
show.show(show.dots({f"{what}, {words}": of_way[arm, key] for key, what in (("5-gram", "five tokens"), ("lzma", "lzma")) for arm, words in ways.items()},
                    unit="bits per byte of the validation text",
                    title="Leaking tests: harder to compress, easier to predict"),
          alt="Six rows of five dots. Five tokens: whole files near 2.0, pieces and lines near 1.55. lzma without training text: whole files near 2.0, pieces near 2.3, lines near 2.6.",
          caption=f"Recorded: minimodels study data-splits; five draws each, a third of the library; {splits['trials'][0]['hardware']}. "
                  "lzma sees the validation text alone.")

# %% [markdown]
# Held back as whole files, the text costs the counting model 2.00 bits a byte; as single lines 1.56, which is 22 percent less.
# Is the second test easier? `lzma`, which sees nothing but the test, finds it *harder*: lines that were torn out have less in
# common. The model is no better. It has learnt from the lines before and after: the same names, the same phrases, the other half of
# the same table. That is a [leak](../book/glossary.md#leak), and it flatters whatever can remember. `lzma` can: allowed to look
# back into the training text, it falls from 1.97 to 1.65 on whole files and from 2.63 to 1.63 on single lines. The harder test
# no longer costs it more.
#
# Note the five draws of whole files, from 1.90 to 2.10. Which files are drawn matters more than most differences between models in
# this book. So all of ours are scored on the same files.
#
# ### It happened to us
#
# Our corpus is split by file. Is it clean? Look for runs of 32 tokens in the validation text that stand in the training text, word
# for word.
#
# > **Exercise 2.6** (find the copies; medium, 10 minutes). Write `overlap(train, valid, n)`: the share of the runs of `n` tokens in
# > `valid` that also stand somewhere in `train`. Runs begin at every place.

# %%
def overlap(train, valid, n):
    ...


# %%
check.overlap(overlap)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def overlap(train, valid, n):
#     seen = {tuple(train[i:i + n]) for i in range(len(train) - n + 1)}
#     runs = [tuple(valid[i:i + n]) for i in range(len(valid) - n + 1)]
#     return sum(run in seen for run in runs) / len(runs)
# ```
#
# </details>

# %% tags=["nbval-ignore-output"]
from minimodels.studies.data import by_document

model = NGram(data.train, vocab_size=4096, n=5, k=100)
first_lines = [text.split("\n", 1)[0] for text in corpus.valid]
files = by_document(data, model, first_lines)
files.sort(key=lambda file: -file["copied bytes"])
show.table([{"begins with": file["name"].strip('"# ')[:24],
             "bytes": file["bytes"], "copied": file["copied bytes"],
             "bits a byte": file["bits_per_byte"]} for file in files[:4]])

# %% [markdown]
# > **Margin.** Yours may look different: Python 3.13 removed this module, and a third of the copied bytes with it.
#
# In our run, with Python 3.11, one file leaps out. It reads the chunks of which some sound files consist, and more than half of it
# stands in the training text, because another module of the library holds a copy of its class. The counting model needs 1.07 bits
# a byte for it, and 1.74 for the whole. In all, 3.4 percent of the bytes lie in copies, a third of them in this file.
# What they do to the score you can find out in exercise 2.11. We keep the split: a corpus that changed under recorded runs would
# do more harm. But who builds a corpus should remove near-copies *before* the split.
#
# ### The opponent that we owe you
#
# The compressors above saw the test alone; the counting model had read nine megabytes before. Give `lzma` the training text too:
# compress both together, and subtract what the training text takes alone. Here are the five best, the best last: chapter 0's
# recorded run of the `cpu` preset, with 2.3 million parameters and 1,000 steps.

# %%
full = recorded("data-rungs")["trials"][0]
run = json.loads(lab.data_file("runs/cpu-stdlib.json").read_text("utf8"))
top = {"lzma": full["lzma"], "five tokens": full["5-gram"],
       "yardstick, 600 steps": rungs["yardstick, recorded"],
       "lzma and training text": full["lzma with training text"],
       "cpu preset, 1,000 steps": run["bits_per_byte"]}

# %% tags=["hide-input"]
show.show(show.bars(top, unit="bits per byte of unseen text, less is better",
                    concept={"yardstick, 600 steps": "dense", "cpu preset, 1,000 steps": "moe"},
                    title="lzma with the training text beats 600 steps, and loses to 1,000"),
          alt="Five bars, from the longest: lzma 1.88, five tokens 1.74, yardstick 1.64, lzma and training text 1.48, cpu preset 1.37.",
          caption="Recorded: minimodels study data-rungs; the yardstick as above; the cpu preset's run of seed 0 in data/runs/cpu-stdlib.json.")

# %% [markdown]
# With the training text `lzma` needs 1.48 bits a byte, and leaves the yardstick behind. It does not understand a line. But it
# looks back through the whole library *and* everything of the test so far, while the yardstick sees 256 tokens and had half an
# epoch to learn. The `cpu` preset passes it, with 1.8 times the parameters and 1.7 times the text (one run). When you read of a small
# model that "learnt to program", remember that rung: a compressor with the same training text is the least that it should beat.

# %% [markdown]
# ## From documents to batches
#
# A model learns from rows of equal length. Documents are not of equal length. **Packing** writes them one after another, each
# followed by token 0, and cuts the stream into windows.

# %% tags=["remove-input"]
show.drawing("packing",
             alt="Three documents form one stream with an end mark after each; the stream is cut into windows of equal length after a random offset, and the windows are read in random order.",
             caption="Nothing is padded. The few tokens before the offset and behind the last window wait for the next epoch, which begins elsewhere.")

# %%
from minimodels.data import Batches

stream = np.arange(30)             # every token is its own position
batches = Batches(stream, batch_size=2, seq_len=5, seed=0)
for step in range(3):
    print(f"step {step}:", batches.at(step).tolist())

# %% [markdown]
# An **epoch** reads every window once, here five of them. Then comes another offset, and another order. Look at step 2: it holds
# the last window of one epoch and the first of the next. `at(step)` depends on the step and the seed alone, so a run that was
# killed goes on with the very batch that it would have seen.
#
# Each window is input and answer at once: the model reads tokens 0 to $T - 2$ and is asked for 1 to $T - 1$. One window of 256
# asks 255 questions. (In evaluation windows overlap by one token, so that every token but the first is asked for, and once.)
#
# > **Exercise 2.7** (who may look at whom; medium, 15 minutes). A packed window can hold the end of one document and the beginning
# > of another. Write `may_look(tokens)`, a table of truth values, as lists or an array: row $t$, column $s$ is `True` if token
# > $t$ may look at
# > token $s$, that is, at itself and at earlier tokens of the *same* document. Token 0 ends a document and belongs to it.

# %%
def may_look(tokens):
    ...


# %%
check.may_look(may_look)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def may_look(tokens):
#     T = range(len(tokens))
#     document = [sum(s == 0 for s in tokens[:t]) for t in T]
#     return [[s <= t and document[s] == document[t] for s in T] for t in T]
# ```
#
# </details>
#
# Our models do without that mask: a token may look across token 0, into a document that has nothing to do with it, and can
# learn that it should not. V3 does the same.
#
# ## Bugs that still train
#
# A loader that serves the wrong text raises no error. We spoilt ours in three ways. How much of a text of 100,000 tokens does each
# of them show a model, in as many steps as should read it once?

# %%
from minimodels.bugs.data import BUGS

for name, kind in ({"right": Batches} | BUGS).items():
    batches = kind(np.arange(100_000), batch_size=8, seq_len=256, seed=0)
    read = {token for step in range(len(batches))
            for token in batches.at(step).flatten().tolist()}
    print(f"{name}: {len(read) / 100_000:.1%}")

# %% [markdown]
# What the right one leaves, less than two windows, waits for the next epoch. Three bugs, and two outside the loader:
#
# > **Bugs that still train.**
# > - **With replacement.** Each window is drawn from all of the text. In an epoch's length more than a third is never read ($1/e$).
# > - **Half overlapping.** Windows begin every $T/2$ tokens. The model sees half of the corpus, twice.
# > - **Shuffled every step.** The loader is made inside the loop, with another order each time. Same effect as the first.
# > - **Sixteen bits.** Ids of a vocabulary above 65,536 rows, cast with `.astype(np.uint16)`, come back as other tokens. Nothing
# >   crashes; id 65,537 becomes id 1.
# > - **Characters for bytes.** A score divided by `len(text)` is right for English and wrong for everybody else.
#
# > **Exercise 2.8** (write the test; medium, 15 minutes). Write `reads_each_token_once(batches)`: whether the first `batches.n_windows`
# > windows hold no token twice. (Not that all of them come: a few wait.) In the check every token is its own position, as above.
# > `len(batches)` steps hold at least one epoch; the last of them may reach into the next.

# %%
def reads_each_token_once(batches):
    ...


# %%
check.reads_each_token_once(reads_each_token_once)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def reads_each_token_once(batches):
#     rows = [row for step in range(len(batches))
#             for row in batches.at(step).tolist()]
#     read = [token for row in rows[:batches.n_windows] for token in row]
#     return len(set(read)) == len(read)
# ```
#
# </details>
#
# ## What DeepSeek chose
#
# From [DeepSeek-V3](../book/references.md#deepseek-v3), sections 4.1, 4.2 and 4.4:
#
# - **Vocabulary.** Byte-level BPE with 128 thousand tokens; the embedding has 129,280 rows
#   ([configuration](../book/references.md#deepseek-v3-code)).
# - **Cuts.** Some tokens join punctuation with line breaks, as our `):` above. A prompt that ends before the break then meets cuts that
#   training never showed, so a share of such tokens is split at random in training.
# - **Packing.** Windows of 4K tokens, without a mask between their documents.
# - **Fill in the middle ([FIM](../book/references.md#fim)).** One document in ten is cut in three and reordered: beginning, end,
#   middle. The model still
#   predicts the next token, and learns to fill a gap.
# - **Score.** Bits per byte, "to guarantee fair comparison among models using different tokenizers": 0.548 on the test text
#   of the Pile, where Llama 3.1 405B has 0.542 (Table 3).
# - **Amount.** 14.8 trillion tokens, at our 3.8 bytes a token some 56 terabytes. What theirs stand for nobody outside knows: the
#   tokenizer is public, the corpus is not.
#
# ## Does it pay here?
#
# > **Does it pay here?** **Yes: 2,048 rows beat 512 by far, and 4,096 and more beat 2,048 by a little.**
# >
# > - **At equal parameters and text:** from 512 rows to 2,048 the score falls by 0.33 bits per byte, and from 2,048 to 6,144
# >   by another 0.06, over three seeds of a short training.
# > - **At equal work:** not measured. The model with 512 rows read 1.9 times as many tokens as the one with 6,144 and still lost,
# >   so equal work should widen the gap.
# > - **At DeepSeek's scale:** 129,280 rows are 0.14 percent of all parameters, and as much again where the next token is scored. Of
# >   what a token uses, the latter are 2.5 percent: little, but not nothing.
#
# > **Takeaways**
# > 1. BPE merges the most frequent pair, again and again, within words. Know how ties are broken, and two programs agree to the
# >    last merge.
# > 2. Rows cost parameters and buy shorter texts, ever less. What V3 carries would crush a small model.
# > 3. Losses per token compare only under one tokenizer. Bits per byte compare with anything, a compressed file included.
# > 4. Climb the ladder before you boast: pairs, `lzma`, five tokens, and `lzma` that has read the training text.
# > 5. Split by file, look for copies, and compare models on the same files. A leak flattered a counting model by a fifth.
#
# ## Longer problems
#
# You need three tools. `model.probabilities(tokens)` gives the probability of each token. `copied(train, valid, n)`, from
# `minimodels.ngram`, is true at each place of `valid` where a copied run of `n` tokens begins. And
# `book_data.token_bytes(data.tokenizer)` holds the bytes of every row: index it with tokens.
#
# > **Exercise 2.9** (a cache; medium, 45 minutes). `lzma` may look back at everything so far. Add some of that to the counting
# > model: mix its probability with a unigram model of the last 500 tokens, with a weight $w$ that you choose on a part of the
# > training text. How many bits per byte does it save on the validation text?
#
# <details><summary>Solution</summary>
#
# ```python
# from collections import deque
#
# def from_cache(tokens, length=500):
#     """p of each token under a unigram model of the last tokens."""
#     counts, last, p = Counter(), deque(), []
#     for token in tokens.tolist():
#         p.append(counts[token] / max(1, len(last)))
#         counts[token] += 1
#         last.append(token)
#         if len(last) > length:
#             counts[last.popleft()] -= 1
#     return np.array(p)
#
# def bits(tokens, model, w):
#     p = (1 - w) * model.probabilities(tokens) + w * from_cache(tokens)
#     return -np.log2(p).sum()
#
# rest, held_out = data.train[:-100_000], data.train[-100_000:]
# model = NGram(rest, vocab_size=4096, n=5, k=100)
# cost = {w: bits(held_out, model, w) for w in (0, 0.05, 0.1, 0.2, 0.3)}
# best = min(cost, key=cost.get)
# model = NGram(data.train, vocab_size=4096, n=5, k=100)
# print(best, [bits(data.valid, model, w) / n_bytes for w in (0, best)])
# ```
#
# The best weight is 0.2, and the score falls from 1.739 to 1.635. That is a hair below the yardstick after 600 steps, 1.641: some
# tables of counts, and a list of 500 tokens.
#
# </details>
#
# > **Exercise 2.10** (fill in the middle; easy, 30 minutes). Write `fim(text, rng)`: cut a text at two random places and return it as
# > `<pre>` beginning `<suf>` end `<mid>` middle, and its inverse. Show that no byte is lost, for a hundred random cuts of the
# > validation text. What goes wrong if the text itself holds the word `<suf>`, and what do real tokenizers do about it?
#
# <details><summary>Solution</summary>
#
# ```python
# def fim(text, rng):
#     i, j = sorted(rng.randint(0, len(text)) for _ in range(2))
#     return f"<pre>{text[:i]}<suf>{text[j:]}<mid>{text[i:j]}"
#
# def undo(text):
#     beginning, rest = text.removeprefix("<pre>").split("<suf>", 1)
#     end, middle = rest.split("<mid>", 1)
#     return beginning + middle + end
#
# rng, text = random.Random(0), data.valid_text()[:20_000]
# print(all(undo(fim(text, rng)) == text for _ in range(100)))
# ```
#
# A text that holds `<suf>` is cut in the wrong place. Real tokenizers give each mark a row of its own, which no text can spell,
# and insert the marks as ids after encoding.
#
# </details>
#
# > **Exercise 2.11** (how much is memory; hard, 1 hour). Take the tokens of the validation text that lie in a copied run of 32, each
# > run with all its tokens, and those that do not. Score both kinds apart, with `n` from 1 to 5. Which share of the counting
# > model's lead over a bigram model comes from copies? What would the ladder look like without them?
#
# <details><summary>Solution</summary>
#
# ```python
# from minimodels.ngram import copied
#
# inside = np.zeros(len(data.valid), bool)
# for at in np.flatnonzero(copied(data.train, data.valid, 32)):
#     inside[at:at + 32] = True
# size = book_data.token_bytes(data.tokenizer)[data.valid]
# print(f"{size[inside].sum() / n_bytes:.1%} of the bytes are copied")
# for n in range(1, 6):
#     model = NGram(data.train, vocab_size=4096, n=n, k=100)
#     cost = -np.log2(model.probabilities(data.valid))
#     print(n, *(cost[kind].sum() / size[kind].sum() for kind in (inside, ~inside)))
# ```
#
# 3.4 percent are copied. Five tokens need 0.86 bits per byte there, and 1.77 elsewhere; pairs 1.50 and 1.92. The lead over pairs
# is 0.165. The copies give $0.034 \times (1.50 - 0.86) = 0.022$ of that: an eighth, from a thirtieth of the text. Without them
# the lead is 0.149, a tenth less. The counting rungs move up by a little and stay in order.
#
# </details>
#
# > **Next: [Attention](03_attention.ipynb).** A table of five tokens looks back at four. Attention looks at all.
