"""Text: this Python's own library, the reader's files, and public corpora, each split into training and validation documents.

Left out: corpora larger than memory, mixtures of corpora, file formats other than plain UTF-8 text.
"""

import difflib
import hashlib
import json
import os
import random
import sysconfig
import tokenize
from dataclasses import dataclass
from pathlib import Path

from minimodels.download import Source, cache_folder, fetch

END = "<|endoftext|>"  # ends a document
VALID_PERCENT = 5      # share that is kept for validation

# Folders of the standard library that are not read, so that the text is much the same on every machine: the test suite, which many
# Pythons lack (17 of the 31 MB that CPython 3.11 installs), IDLE, what is gone since 3.13, and tables of character codes.
NOT_STDLIB = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo",
              "encodings", "pydoc_data"}

_STORIES = "https://huggingface.co/datasets/roneneldan/TinyStories/resolve/f54c09fd23315a6f9c86f9dc80f725de7d8f9c64/"
SOURCES = {
    "tinyshakespeare": (
        Source("tinyshakespeare.txt", "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
               n_bytes=1_115_394, sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"),
    ),
    "tinystories": (
        # the first 100 MB of 2.2 GB; nobody publishes a hash of this part
        Source("tinystories-train-100MB.txt", _STORIES + "TinyStoriesV2-GPT4-train.txt", n_bytes=100_000_000, is_prefix=True),
        Source("tinystories-valid.txt", _STORIES + "TinyStoriesV2-GPT4-valid.txt", n_bytes=22_502_601,
               sha256="6874bae9a4c1a4e7edcf0e53b86c17817e9cf881fc75ff2368da457b80c0585d"),
    ),
    "fineweb-edu": (
        Source("fineweb-edu-5000.jsonl", "https://datasets-server.huggingface.co/rows?dataset=HuggingFaceFW%2Ffineweb-edu"
               "&config=sample-10BT&split=train", n_rows=5000),
    ),
}
CORPORA = ("stdlib", *SOURCES)


@dataclass(frozen=True)
class Corpus:
    """Training and validation documents. No file of a folder has a part on both sides; a single file is cut near its end."""

    name: str
    train: list[str]
    valid: list[str]


def load_corpus(name_or_path: str | Path, *, cache: str | Path | None = None, max_bytes: int | None = None, progress=None) -> Corpus:
    """The documents of a corpus by name, or of a file or folder, split into training and validation text, the same at every call.

    `stdlib`: this Python's own library (9 MB of code, docstrings, help topics), read where it lies. `tinyshakespeare` (1.1 MB),
    `tinystories` (its first 100 MB, V2; its own validation file) and `fineweb-edu` (5,000 documents of sample-10BT) are downloaded
    to the cache. A file is split by position: its last 5 % is validation. A folder is read with its subfolders, without hidden and
    binary files, and split by a hash of each file's path: about 5 % of the files, at least one, and not all. A document ends with
    its file or at `<|endoftext|>`. With max_bytes: a part of the training text, chosen at random but the same at every call, of at
    most that size, and 5 % as much for validation.
    Raises ValueError (unknown name; empty or binary text), FileNotFoundError, PermissionError, and what `fetch` raises.
    """
    if max_bytes is not None and (not isinstance(max_bytes, int) or max_bytes < 1):
        raise ValueError(f"max_bytes must be at least 1, or None for the whole corpus, got {max_bytes!r}")
    name = str(name_or_path)
    if name == "stdlib":
        train, valid = _read_stdlib()
    elif name in SOURCES:
        train, valid = _read_download(name, cache_folder(cache) / "downloads", progress)
    else:
        path = _existing_path(name_or_path)
        name = path.resolve().name
        train, valid = _read_folder(path) if path.is_dir() else _split_text(_read_text(path), path)
    if not (train and valid):
        raise ValueError(f"data must have text on both sides of the split into training and validation, got {name_or_path}, "
                         "which has none on one side: use a longer text")
    if max_bytes is not None:
        train, valid = take(train, max_bytes), take(valid, max(1, max_bytes * VALID_PERCENT // 100))
    return Corpus(name, train, valid)


def take(texts: list[str], max_bytes: int) -> list[str]:
    """A random choice of texts, always the same, that together have at most max_bytes bytes of UTF-8; the last one may be cut."""
    taken, left = [], max_bytes
    for text in random.Random(0).sample(texts, len(texts)):
        data = text.encode()[:left]
        left -= len(data)
        if data:
            taken.append(data.decode(errors="ignore"))
        if left <= 0:
            break
    return taken


def _existing_path(name_or_path):
    path = Path(name_or_path).expanduser()
    if path.is_file() or path.is_dir():
        return path
    if path.exists():
        raise ValueError(f"data must be a file or a folder, got {path}, which is a device, pipe or socket: write its text to a file")
    if path.suffix or len(path.parts) > 1:
        raise FileNotFoundError(f"data must be a file or folder that exists, or one of {', '.join(CORPORA)}; nothing is at {path}")
    close = difflib.get_close_matches(str(name_or_path), CORPORA, n=1)
    hint = f": did you mean {close[0]}?" if close else ""
    raise ValueError(f"data must be one of {', '.join(CORPORA)}, or the path of a file or folder, got {str(name_or_path)!r}{hint}")


def _read_stdlib():
    """Every module as its author wrote it, and the help topics as `help()` shows them. Source: sysconfig's path `stdlib`."""
    root, texts = Path(sysconfig.get_paths()["stdlib"]), {}
    for path in _walk(root, NOT_STDLIB):
        # _sysconfigdata tells how this machine's Python was built
        if path.suffix == ".py" and not path.name.startswith("_sysconfigdata"):
            try:
                with tokenize.open(path) as file:  # heeds the encoding that a module declares
                    texts[path.relative_to(root).as_posix()] = file.read()
            except (UnicodeDecodeError, SyntaxError, OSError):
                continue
    try:
        from pydoc_data.topics import topics
        texts |= {f"pydoc_data/topics/{name}": text for name, text in topics.items()}
    except ImportError:
        pass
    if len(texts) < 2:
        raise FileNotFoundError(f"stdlib must have modules as .py files, found {len(texts)} in {root}: "
                                "use --data with a file or folder of text")
    return _split_files(texts)


def _walk(root, leave_out=frozenset()):
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in leave_out and not f.startswith("."))
        yield from (Path(folder, f) for f in sorted(files) if not f.startswith(".") and Path(folder, f).is_file())


def _read_folder(folder):
    texts, n_skipped = {}, 0
    for path in _walk(folder):
        try:
            texts[path.relative_to(folder).as_posix()] = _read_text(path)
        except ValueError:
            n_skipped += 1
    if not texts:
        raise ValueError(f"data must be a folder with UTF-8 text, got {folder}, which has none "
                         f"({n_skipped} binary or empty files, hidden ones not counted)")
    return _split_files(texts) if len(texts) > 1 else _split_text(*texts.values(), folder)


def _read_text(path):
    try:
        data = path.read_bytes()
    except PermissionError:
        raise PermissionError(f"data must be readable, got {path}: permission denied; change its mode or copy it") from None
    if not data.strip():
        raise ValueError(f"data must be a text, got {path}, which is empty")
    if b"\0" in data:
        raise ValueError(f"data must be a text, got {path}, which is binary (a zero byte at position {data.index(0):,}); "
                         "convert it to UTF-8 text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"data must be UTF-8 text, got {path}, which is not (byte {data[error.start]:#04x} at position {error.start:,}); "
                         "convert it, for example with iconv") from None


def _split_files(texts):
    """By a hash of the path: a file that is added or removed moves no other. One file at least on either side."""
    rank = sorted(texts, key=lambda name: hashlib.sha256(name.encode()).digest())
    n = sum(hashlib.sha256(name.encode()).digest()[0] * 100 < 256 * VALID_PERCENT for name in rank)
    chosen = set(rank[:min(max(n, 1), len(rank) - 1)])
    sides = [name for name in texts if name not in chosen], [name for name in texts if name in chosen]
    return [[document for name in side for document in _documents(texts[name])] for side in sides]


def _split_text(text, path):
    if len(text) < 2:
        raise ValueError(f"data must have at least 2 characters, got {len(text)} in {path}: one side of the split would be empty")
    cut = max(1, len(text) * (100 - VALID_PERCENT) // 100)
    line_end = text.find("\n", cut) + 1
    cut = line_end if 0 < line_end < len(text) and line_end - cut <= (len(text) - cut) // 2 else cut
    return _documents(text[:cut]), _documents(text[cut:])


def _documents(text):
    return [part for part in text.split(END) if part.strip()]


def _read_download(name, folder, progress):
    paths = [fetch(source, folder, progress=progress) for source in SOURCES[name]]
    if name == "fineweb-edu":
        rows = [json.loads(line) for line in paths[0].read_text(encoding="utf-8").splitlines()]
        # JSON can spell half a surrogate pair, UTF-8 cannot
        return _split_files({str(row["row"]): row["text"].encode(errors="replace").decode() for row in rows})
    texts = [path.read_bytes().decode(errors="ignore") for path in paths]  # a prefix may end within a character
    if len(texts) == 1:
        return _split_text(texts[0], paths[0])
    train, valid = (_documents(text) for text in texts)
    return train[:-1] or train, take(valid, 2_000_000)  # the last story of a prefix is cut; 2 MB measure well enough
