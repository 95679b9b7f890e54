"""Chapter 02: what the vocabulary's size does to a model that may read so much text, and what a split of the text does to a score."""

import lzma
import random
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from minimodels.config import ModelConfig, TrainConfig
from minimodels.corpus import VALID_PERCENT, load_corpus
from minimodels.data import Dataset, bits_per_byte, compressed_bits_per_byte, encode_documents, prepare, token_bytes, train_tokenizer
from minimodels.ngram import NGram, copied
from minimodels.studies import Study, Training

# rows of the vocabulary: tokens in a window, so that a window holds as many bytes of training text as 256 tokens of 4,096 rows do
WINDOWS = {512: 454, 2048: 296, 4096: 256, 6144: 239}
SEEDS = (1, 2, 3)
RECIPE = replace(TrainConfig.preset("yardstick"), steps=200, batch_size=4)

ROWS = 4096         # of the vocabulary that models count with
LONG, K = 5, 100    # the longest run of tokens that is counted, and what a shorter context is worth: best for such runs in data-smoothing
SPLITS = ("by file", "by piece", "by line")
PIECE_LINES = 20
RUN = 32            # tokens: so many in a row are no accident
HELD_OUT = 100_000  # tokens at the end of the training text, on which the weight of a cache is chosen
WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3)
PART = 3_000_000    # bytes of the library that splits are compared on


def with_vocabulary(rows: int) -> ModelConfig:
    """The yardstick with so many rows, its feed-forward part changed until it has as many parameters as before, to a unit of width.

    Raises ValueError where the embedding leaves nothing for the feed-forward part, which is at 7,930 rows and more.
    """
    yardstick = ModelConfig.preset("yardstick")
    config = replace(yardstick, vocab_size=rows)
    per_unit = 3 * config.d_model * config.n_layers
    return replace(config, d_ff=config.d_ff + round((yardstick.n_params - config.n_params) / per_unit))


def split(texts: list[str], way: str, rng: random.Random, percent: float = VALID_PERCENT) -> tuple[list[str], list[str]]:
    """Training and validation text of the same texts: whole files, pieces of 20 lines, or single lines are drawn for validation.

    The last two put neighbours of what is tested into the training text: they are here to show what that does.
    """
    if way not in SPLITS:
        raise ValueError(f"way must be one of {', '.join(SPLITS)}, got {way!r}")
    units = texts
    if way != "by file":
        size = PIECE_LINES if way == "by piece" else 1
        lines = [text.splitlines(keepends=True) for text in texts]
        units = ["".join(each[i:i + size]) for each in lines for i in range(0, len(each), size)]
    chosen = set(rng.sample(range(len(units)), max(1, round(len(units) * percent / 100))))
    return ["".join(unit for i, unit in enumerate(units) if i not in chosen)], ["".join(units[i] for i in sorted(chosen))]


def lzma_with_dictionary(train: str, valid: str) -> float:
    """Bits per byte of valid for lzma that may look back into train: what both need together, less what train needs alone."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 1 << 25}]
    sizes = [len(lzma.compress(text.encode(), lzma.FORMAT_RAW, filters=filters)) for text in (train + valid, train)]
    return 8 * (sizes[0] - sizes[1]) / len(valid.encode())


@dataclass(frozen=True, kw_only=True)
class Counting:
    """Score what only counts and what only compresses, on one split of a part of the standard library."""

    arm: str
    seed: int
    max_bytes: int = PART

    def settings(self) -> dict:
        return {"data": "stdlib", "max_bytes": self.max_bytes, "rows": ROWS, "n": LONG, "k": K, "percent": VALID_PERCENT,
                "piece_lines": PIECE_LINES}

    def run(self) -> dict:
        corpus = load_corpus("stdlib", max_bytes=self.max_bytes)
        train, valid = split(corpus.train + corpus.valid, self.arm, random.Random(self.seed))
        tokenizer, n_bytes = train_tokenizer(train, ROWS), len(valid[0].encode())
        tokens = [encode_documents(tokenizer, texts)[:-1] for texts in (train, valid)]    # one text each: no end is counted
        scores = {f"{n}-gram": counted(*tokens, n_bytes, n=n) for n in (1, 2, LONG)}
        scores |= {name: compressed_bits_per_byte(valid[0], name) for name in ("zlib", "lzma")}
        scores["lzma with training text"] = lzma_with_dictionary(train[0], valid[0])
        return {name: round(bits, 4) for name, bits in scores.items()} | {"valid_bytes": n_bytes, "bytes_per_token": round(n_bytes / len(tokens[1]), 4)}


@dataclass(frozen=True, kw_only=True)
class Rungs:
    """Score the same opponents on the book's own split of the whole library, and look for what stands in both parts of it."""

    arm: str
    seed: int = 0

    def settings(self) -> dict:
        return {"data": "stdlib", "rows": ROWS, "n": LONG, "k": K, "run": RUN}

    def run(self) -> dict:
        data, corpus = prepare("stdlib", ROWS), load_corpus("stdlib")
        as_bytes = [np.frombuffer("".join(texts).encode(), np.uint8) for texts in (corpus.train, corpus.valid)]
        counted_bytes = NGram(as_bytes[0], vocab_size=256, n=2, k=K).nats(as_bytes[1])
        models = {n: NGram(data.train, vocab_size=ROWS, n=n, k=K) for n in (1, 2, LONG)}
        nats = {n: model.nats(data.valid) for n, model in models.items()}
        scores = {f"{n}-gram": bits_per_byte(total, data.valid_bytes) for n, total in nats.items()}
        scores |= {name: compressed_bits_per_byte(data.valid_text(), name) for name in ("zlib", "lzma")}
        scores |= {"lzma with training text": lzma_with_dictionary("".join(corpus.train), data.valid_text()),
                   "2-gram of bytes": bits_per_byte(counted_bytes, data.valid_bytes),
                   "2-gram, nats a token": nats[2] / len(data.valid), "2-gram of bytes, nats a token": counted_bytes / data.valid_bytes,
                   "copied": copied(data.train, data.valid, RUN).mean()}
        scores |= self.memory(data, models)
        files = by_document(data, models[LONG], [text.split("\n", 1)[0] for text in corpus.valid])
        return {name: round(float(value), 4) for name, value in scores.items()} | {
            "valid_bytes": data.valid_bytes, "train_bytes": len(as_bytes[0]), "train_tokens": len(data.train), "valid_tokens": len(data.valid),
            "documents": [len(corpus.train), len(corpus.valid)], "most_copied": sorted(files, key=lambda f: -f["copied bytes"])[:5]}

    def memory(self, data: Dataset, models: dict[int, NGram]) -> dict[str, float]:
        """What a cache of the last 500 tokens is worth, its weight chosen on the end of the training text; and scores of copied text alone."""
        rest, held_out = data.train[:-HELD_OUT], np.asarray(data.train[-HELD_OUT:])
        smaller, caches = NGram(rest, vocab_size=ROWS, n=LONG, k=K).probabilities(held_out), from_cache(held_out)
        w = min(WEIGHTS, key=lambda w: -np.log((1 - w) * smaller + w * caches).sum())
        p = (1 - w) * models[LONG].probabilities(data.valid) + w * from_cache(np.asarray(data.valid))
        is_copied, length = np.zeros(len(data.valid), bool), token_bytes(data.tokenizer)[data.valid]
        for at in np.flatnonzero(copied(data.train, data.valid, RUN)):
            is_copied[at:at + RUN] = True
        found = {"cache weight": w, f"{LONG}-gram with cache": -np.log2(p).sum() / data.valid_bytes,
                 "copied bytes": length[is_copied].sum() / data.valid_bytes}
        for n, model in models.items():
            bits = -np.log2(model.probabilities(data.valid))
            for name, which in (("copied", is_copied), ("not copied", ~is_copied)):
                found[f"{n}-gram, {name}"] = bits[which].sum() / length[which].sum()
        return found


def from_cache(tokens: np.ndarray, length: int = 500) -> np.ndarray:
    """p of each token, (N,), under a unigram model of the tokens just before it, length of them; 0 for one that is not among them."""
    counts, p = Counter(), np.zeros(len(tokens))
    for t, token in enumerate(tokens.tolist()):
        p[t] = counts[token] / max(1, min(t, length))
        counts[token] += 1
        if t >= length:
            counts[int(tokens[t - length])] -= 1
    return p


def by_document(data: Dataset, model: NGram, names: list[str]) -> list[dict]:
    """For each validation document: its name, bytes, those in runs that stand in the training text, the share of its runs, and its bits per byte."""
    is_copied, bits, length = copied(data.train, data.valid, RUN), -np.log2(model.probabilities(data.valid)), token_bytes(data.tokenizer)
    found, start = [], 0
    for name, end in zip(names, np.flatnonzero(np.asarray(data.valid) == 0), strict=True):
        n_bytes = int(length[data.valid[start:end]].sum())
        runs = is_copied[start:max(start + 1, end + 1 - RUN)]
        inside = np.zeros(end - start, bool)
        for at in np.flatnonzero(runs):
            inside[at:at + RUN] = True
        found.append({"name": name, "bytes": n_bytes, "copied bytes": int(length[data.valid[start:end]][inside].sum()), "copied": round(float(runs.mean()), 3),
                      "bits_per_byte": round(float(bits[start:end + 1].sum()) / n_bytes, 3)})
        start = end + 1
    return found


def counted(train: np.ndarray, valid: np.ndarray, n_bytes: int, *, n: int, k: float = K) -> float:
    """Bits per byte of an n-gram model of 4,096 rows that counted train, on valid."""
    return bits_per_byte(NGram(train, vocab_size=ROWS, n=n, k=k).nats(valid), n_bytes)


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """Choose k on a part of the training text, never on the validation text: the files are split once more."""

    arm: str
    seed: int
    ks: tuple = (12, 25, 50, 100, 200, 400)

    def settings(self) -> dict:
        return {"data": "stdlib", "rows": ROWS, "ks": list(self.ks), "percent": VALID_PERCENT}

    def run(self) -> dict:
        train, held_out = split(load_corpus("stdlib").train, "by file", random.Random(self.seed))
        tokenizer, n_bytes = train_tokenizer(train, ROWS), len(held_out[0].encode())
        tokens = [encode_documents(tokenizer, texts)[:-1] for texts in (train, held_out)]
        return {f"{n}-gram": {k: round(counted(*tokens, n_bytes, n=n, k=k), 4) for k in self.ks} for n in (2, LONG)}


STUDIES = [
    Study(name="data-vocabulary", question="At equal parameters and equal text, which vocabulary gives the fewest bits per byte?",
          trials=tuple(Training(arm=f"{rows} rows", seed=seed, model=with_vocabulary(rows), training=replace(RECIPE, seq_len=window, seed=seed))
                       for seed in SEEDS for rows, window in WINDOWS.items())),
    Study(name="data-rungs", question="What do counting and compressing reach on the text that the book's models are scored on?",
          trials=(Rungs(arm="the book's own split"),)),
    Study(name="data-smoothing", question="How much should a shorter context count, chosen without the validation text?",
          trials=tuple(Smoothing(arm="by file", seed=seed) for seed in SEEDS)),
    Study(name="data-splits", question="How much easier does a test become when its neighbours are in the training text?",
          trials=tuple(Counting(arm=way, seed=seed) for seed in range(1, 6) for way in SPLITS)),
]
