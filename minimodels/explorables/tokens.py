"""Text as the book's own tokenizer cuts it, with as many of its merges as the reader allows."""

import json

import traitlets as t
from tokenizers import Tokenizer, pre_tokenizers

from minimodels.bpe import encode_word
from minimodels.corpus import END
from minimodels.data import WORDS
from minimodels.explorables.base import Explorable, figures, table
from minimodels.lab import data_file

FIRST = 257        # id of the first merge: the end of a document is 0, bytes are 1 to 256
SAMPLE = 'def greet(name="world"):\n    # 42 naïve cafés 🙂\n    return f"Hello, {name}!"\n'
SHOWN = 24         # rows of the table

# byte-level BPE writes each byte as one character; ids follow the order of those characters
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
PRINTED = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
BYTES_BY_ID = PRINTED + [b for b in range(256) if b not in PRINTED]


def book_tokenizer() -> Tokenizer:
    """The tokenizer of the checkpoint in data/: 4,096 rows, learnt from Python's standard library."""
    return Tokenizer.from_file(str(data_file("checkpoints/cpu-stdlib/tokenizer.json")))


def merges_of(tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """The pairs of ids that the tokenizer merges, in order; pair i makes token 257 + i."""
    model = json.loads(tokenizer.to_str())["model"]
    return [(model["vocab"][a], model["vocab"][b]) for a, b in model["merges"]]


class Tokens(Explorable):
    """The tokens of a text, with a vocabulary that shrinks and grows: `rows` keeps the end of documents, 256 bytes and the first merges.

    Merges are learnt one after another, so the first of them are those of a smaller vocabulary.
    Source: `minimodels.data.train_tokenizer` made the merges; `minimodels.bpe` applies them here, and tokens.js in the page.
    """

    name = "tokens"

    text = t.Unicode(SAMPLE).tag(sync=True)
    rows = t.Int(min=FIRST).tag(sync=True)       # of the vocabulary that is used
    merges = t.List().tag(sync=True)             # a, b, a, b, ...: half as many pairs
    bytes_by_id = t.List(BYTES_BY_ID).tag(sync=True)    # entry i is the byte of token i + 1
    # what Unicode and the tokenizers library call white space; a script's \s is another set
    words = t.Unicode(WORDS.replace(r"\s", r"\p{White_Space}").replace(r"\S", r"\P{White_Space}")).tag(sync=True)
    end = t.Unicode(END).tag(sync=True)
    show = t.Enum(["text", "ids"], "text").tag(sync=True)
    chosen = t.Int(-1, min=-1).tag(sync=True)    # the token whose history is shown; -1: none

    def __init__(self, **values):
        """What values do not name is the book's tokenizer, with all its rows."""
        if "merges" not in values:
            values["merges"] = [i for pair in merges_of(book_tokenizer()) for i in pair]
        super().__init__(**{"rows": FIRST + len(values["merges"]) // 2} | values)

    def tokens(self) -> list[tuple[int, bytes]]:
        """Each token's id and bytes; the end of a document, written out, is token 0 and has none."""
        pairs = list(zip(self.merges[::2], self.merges[1::2]))[:self.rows - FIRST]
        ranks = {pair: FIRST + i for i, pair in enumerate(pairs)}
        spelled = {i + 1: bytes([b]) for i, b in enumerate(self.bytes_by_id)}
        for (a, b), i in ranks.items():
            spelled[i] = spelled[a] + spelled[b]
        ids, id_of, cut = [], {char: i + 1 for i, char in enumerate(ALPHABET)}, book_tokenizer().pre_tokenizer.pre_tokenize_str
        for n, part in enumerate(self.text.split(self.end)):
            ids += [0] * (n > 0)
            for word, _ in cut(part):
                ids += encode_word(tuple(id_of[char] for char in word), ranks)
        return [(i, spelled.get(i, b"")) for i in ids]

    def summary(self) -> str:
        tokens, n_bytes = self.tokens(), len(self.text.encode())
        return (f"{len(self.text):,} characters, {n_bytes:,} bytes, {len(tokens):,} tokens of {self.rows:,} rows: "
                f"{figures(n_bytes / max(1, len(tokens)))} bytes a token")

    def fallback(self) -> str:
        rows = [[said(piece) if i else self.end, f"{i:,}", str(len(piece))] for i, piece in self.tokens()]
        more = f"; the first {SHOWN} tokens" if len(rows) > SHOWN else ""
        return table(self.summary() + more, ["Token", "Id", "Bytes"], rows[:SHOWN] or [["none", "", ""]])


def said(piece: bytes) -> str:
    """A token's bytes for the eye: spaces and breaks as signs, and what is no whole character as hexadecimal numbers."""
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return " ".join(f"{b:02X}" for b in piece)
    return "".join({" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍"}.get(c, c if c.isprintable() else f"\\u{ord(c):04x}") for c in text)
