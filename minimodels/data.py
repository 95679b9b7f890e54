"""From text to batches: a byte-level BPE tokenizer, memory-mapped tokens, and windows that a resumed run continues.

Losses are reported in bits per byte of text, so that tokenizers, corpora and zlib can be compared.
Left out: packing that keeps the documents of a window apart.
"""

import hashlib
import json
import lzma
import math
import os
import re
import shutil
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from minimodels.corpus import CORPORA, END, Corpus, load_corpus, take  # noqa: F401 (CORPORA, Corpus and load_corpus are read from here)
from minimodels.download import cache_folder, file_sha256, only_one, writing

SAMPLE_BYTES = 6_000_000  # text that a tokenizer is trained on, at most
FORMAT = 1                # of the token files; a new number makes old ones be built again

# What is split off before pairs are merged: words with one leading sign (`.append`, ` the`), numbers of up to three digits,
# signs with the line break and indentation after them (`):\n    `), other white space.
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+(?:\n *)*|\s*\n *|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class Dataset:
    """A corpus as tokens on disk: train and valid are memory-mapped (N,) arrays, every document followed by token 0."""

    name: str
    tokenizer: Tokenizer
    train: np.memmap
    valid: np.memmap
    valid_bytes: int     # of the validation text in UTF-8, the ends of documents not counted
    folder: Path

    @property
    def vocab_size(self) -> int:
        """Rows that the tokenizer has: fewer than asked for if the text had no more pairs to merge."""
        return self.tokenizer.get_vocab_size()

    def valid_text(self) -> str:
        """The validation text, valid_bytes long: documents one after the other, with nothing between them."""
        return (self.folder / "valid.txt").read_bytes().decode()


def train_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE learnt from at most 6 MB of texts: `<|endoftext|>` is token 0, the 256 bytes follow, then merges by frequency.

    Every string comes back as it was: `decode(encode(text).ids, skip_special_tokens=False) == text`. The tokenizer has fewer
    than vocab_size rows if no pair is left that occurs twice. Training is deterministic.
    Raises ValueError if vocab_size is not in [257, 2**24] or there is no text.
    Source: Sennrich et al. (2016) for BPE; GPT-2 for bytes. Left out: normalisation, dropout, a vocabulary for chat.
    """
    _check_vocab_size(vocab_size)
    sample = take(texts, SAMPLE_BYTES)
    if not sample:
        raise ValueError("texts must have at least one character to train a tokenizer on, got none")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[END], min_frequency=2, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(sample, trainer)
    return tokenizer


def first_rows(tokenizer: Tokenizer, vocab_size: int) -> Tokenizer:
    """The tokenizer with its first vocab_size rows alone: what `train_tokenizer` would have learnt, had it stopped there.

    Raises ValueError if vocab_size is not in [257, rows of the tokenizer].
    """
    _check_vocab_size(vocab_size)
    if vocab_size > tokenizer.get_vocab_size():
        raise ValueError(f"vocab_size must be at most the tokenizer's {tokenizer.get_vocab_size():,} rows, got {vocab_size:,}")
    state = json.loads(tokenizer.to_str())
    state["model"]["merges"] = state["model"]["merges"][:vocab_size - 257]
    state["model"]["vocab"] = {piece: i for piece, i in state["model"]["vocab"].items() if i < vocab_size}
    return Tokenizer.from_str(json.dumps(state))


def _check_vocab_size(vocab_size):
    if not isinstance(vocab_size, int) or isinstance(vocab_size, bool) or not 257 <= vocab_size <= 1 << 24:
        raise ValueError(f"vocab_size must be in [257, {1 << 24}], because 256 bytes and {END} come first, got {vocab_size!r}")


def token_bytes(tokenizer: Tokenizer) -> np.ndarray:
    """How many bytes of text each token stands for: (V,) int64, 0 for `<|endoftext|>`. Its sum over tokens is their text's length."""
    # in a byte-level vocabulary every byte is written as one character
    pieces = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    return np.array([0 if piece == END else len(piece) for piece in pieces], dtype=np.int64)


def encode_documents(tokenizer: Tokenizer, texts: list[str], progress=None) -> np.ndarray:
    """The tokens of all texts, each followed by token 0: (N,), uint16 for up to 65,536 rows, else uint32.

    Long texts are encoded in pieces of about 64 KB that end with a line, which bounds memory and keeps all cores busy.
    """
    dtype = np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.uint32
    pieces = [(piece, is_last) for text in texts for piece, is_last in _pieces(text)]
    arrays = []
    for start in range(0, len(pieces), 64):
        some = pieces[start:start + 64]
        for (_, is_last), encoding in zip(some, tokenizer.encode_batch_fast([piece for piece, _ in some])):
            arrays.append(np.array(encoding.ids + [0] * is_last, dtype=dtype))
        if progress:
            progress("encoding", start + len(some), len(pieces))
    return np.concatenate(arrays) if arrays else np.empty(0, dtype)


def _pieces(text, size=65_536):
    start = 0
    while len(text) - start > size:
        end = text.rfind("\n", start, start + size) + 1 or start + size
        yield text[start:end], False
        start = end
    yield text[start:], True


def prepare(name_or_path: str | Path, vocab_size: int, *, cache: str | Path | None = None, max_bytes: int | None = None,
            tokenizer: Tokenizer | None = None, progress=None) -> Dataset:
    """The corpus as tokens: from the cache if the same text, vocabulary size and format were prepared before, else made now.

    The cache holds train.bin, valid.bin, valid.txt, tokenizer.json, and meta.json with the size and SHA-256 of each. They are
    checked at every call; if one is cut or altered, a line on stderr names it and all are made again. They appear together
    (a folder is renamed) and one process makes them while others wait. max_bytes and progress as in `load_corpus`.
    tokenizer: one of `train_tokenizer`'s kind to encode with, such as a trained model's; None: train one on this text.
    Raises ValueError (vocab_size below 257, or what load_corpus refuses), OSError (cache full or not writable).
    """
    _check_vocab_size(vocab_size)
    corpus = load_corpus(name_or_path, cache=cache, max_bytes=max_bytes, progress=progress)
    name = re.sub(r"[^\w.-]", "_", corpus.name)
    folder = cache_folder(cache) / "tokens" / f"{name}-{vocab_size}-{_key(corpus, vocab_size, tokenizer)}"
    if _problem(folder):
        with writing(folder), only_one(folder):
            problem = _problem(folder)  # none if another process has made them meanwhile
            if problem and folder.exists():
                print(f"minimodels: {problem}; making the tokens of {corpus.name} again", file=sys.stderr)
            if problem:
                _make(corpus, vocab_size, tokenizer, folder, progress)
    return _open_folder(corpus.name, folder)


def _key(corpus, vocab_size, tokenizer):
    digest = hashlib.sha256(repr((FORMAT, vocab_size, SAMPLE_BYTES, WORDS, tokenizers.__version__)).encode())
    digest.update(tokenizer.to_str().encode() if tokenizer else b"")
    for text in (*corpus.train, END, *corpus.valid):
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def _make(corpus, vocab_size, tokenizer, folder, progress):
    new = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        tokenizer = tokenizer or train_tokenizer(corpus.train, vocab_size)
        _write(new / "tokenizer.json", tokenizer.to_str().encode())
        _write(new / "valid.txt", "".join(corpus.valid).encode())
        for side, texts in (("train", corpus.train), ("valid", corpus.valid)):
            _write(new / f"{side}.bin", encode_documents(tokenizer, texts, progress).tobytes())
        files = {path.name: {"n_bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in sorted(new.iterdir())}
        _write(new / "meta.json", json.dumps({"format": FORMAT, "corpus": corpus.name, "files": files}, indent=1).encode())
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _write(path, data):
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _problem(folder):
    """What is wrong with the token files in folder, in words; None if nothing is."""
    try:
        files = json.loads((folder / "meta.json").read_text())["files"]
        for name in ("train.bin", "valid.bin", "valid.txt", "tokenizer.json"):
            path, wanted = folder / name, files[name]
            if path.stat().st_size != wanted["n_bytes"]:
                return f"{path} must have {wanted['n_bytes']:,} bytes, got {path.stat().st_size:,}"
            if file_sha256(path) != wanted["sha256"]:
                return f"{path} was altered (its SHA-256 is not the one in meta.json)"
    except (FileNotFoundError, NotADirectoryError) as error:
        return f"{error.filename} is missing"
    except (ValueError, KeyError, TypeError):
        return f"{folder / 'meta.json'} is damaged"


def _open_folder(name, folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    dtype = np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.uint32
    train, valid = (np.memmap(folder / f"{side}.bin", dtype=dtype, mode="r") for side in ("train", "valid"))
    return Dataset(name, tokenizer, train, valid, (folder / "valid.txt").stat().st_size, folder)


class Batches:
    """Windows of seq_len tokens, drawn without replacement: every window of an epoch appears once before the next epoch begins.

    An epoch cuts the tokens into n_windows windows that lie side by side, starting at a random offset below seq_len, and shuffles
    them; the next epoch has another offset and order. `at(step)` depends on (tokens, batch_size, seq_len, seed, step) alone, so a
    resumed run continues where it stopped, and several devices take their rows of the same batch. A batch may hold the end of one
    epoch and the beginning of the next.
    `len(batches)` is how many steps see every window at least once. Iterating yields at(0), at(1), ... and never ends.
    tokens: (N,) of any integer type, a memory map or an array. Memory: the orders of two epochs, 8 bytes a window each.
    Raises ValueError if the tokens do not fill one batch, or a size is too small.
    """

    def __init__(self, tokens: np.ndarray, *, batch_size: int, seq_len: int, seed: int):
        for name, value, least in (("batch_size", batch_size, 1), ("seq_len", seq_len, 2), ("seed", seed, 0)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be at least {least}, got {value!r}")
        self.tokens, self.batch_size, self.seq_len, self.seed = tokens, batch_size, seq_len, seed
        self.n_windows = (len(tokens) - seq_len + 1) // seq_len  # whatever the offset
        if self.n_windows < batch_size:
            raise ValueError(f"tokens must fill one batch: batch_size={batch_size} windows of seq_len={seq_len} at any offset need "
                             f"{(batch_size + 1) * seq_len - 1:,} tokens, got {len(tokens):,}; use a longer text or smaller batches")
        self._starts = {}

    def __len__(self) -> int:
        return math.ceil(self.n_windows / self.batch_size)

    def __iter__(self):
        step = 0
        while True:
            yield self.at(step)
            step += 1

    def at(self, step: int) -> torch.Tensor:
        """The batch of this step, counted from 0: (batch_size, seq_len) int64. Raises ValueError for a negative step."""
        if step < 0:
            raise ValueError(f"step must be at least 0, got {step}")
        rows = range(step * self.batch_size, (step + 1) * self.batch_size)
        starts = np.array([self._epoch(row // self.n_windows)[row % self.n_windows] for row in rows])
        windows = self.tokens[starts[:, None] + np.arange(self.seq_len)]  # (B, T)
        return torch.from_numpy(windows.astype(np.int64))

    def _epoch(self, epoch):
        """First token of each window, in the order of this epoch: (n_windows,)."""
        if epoch not in self._starts:
            rng = np.random.default_rng((self.seed, epoch))
            offset = rng.integers(self.seq_len)
            if len(self._starts) == 2:  # a batch never needs more
                del self._starts[max(self._starts, key=lambda e: abs(e - epoch))]
            self._starts[epoch] = offset + self.seq_len * rng.permutation(self.n_windows)
        return self._starts[epoch]


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """A text's total loss in nats (the sum over its tokens, not the mean) as bits per byte of that text: nats / (ln 2 * n_bytes)."""
    if n_bytes < 1:
        raise ValueError(f"n_bytes must be at least 1, got {n_bytes}")
    return nats / (math.log(2) * n_bytes)


def compressed_bits_per_byte(text: str, method: str) -> float:
    """What zlib (level 9) or lzma (preset 9) need for a text's UTF-8 bytes, headers included, in bits per byte.

    Unlike a model they have seen no other text, but they may look back within this one (32 KB, and all of it).
    Raises ValueError for another method or an empty text.
    """
    compress = {"zlib": lambda data: zlib.compress(data, 9), "lzma": lambda data: lzma.compress(data, preset=9)}
    if method not in compress:
        raise ValueError(f"method must be one of {', '.join(compress)}, got {method!r}")
    data = text.encode()
    if not data:
        raise ValueError("text must have at least one byte, got an empty one")
    return 8 * len(compress[method](data)) / len(data)
