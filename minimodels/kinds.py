"""What each token of a text is in Python's eyes: a keyword, a name, a number. Python's own tokenizer says it, of bytes; a model's
tokens are cut elsewhere, so each takes the kind that most of its bytes have.

Left out: soft keywords (`match`, `type`), which are names here, and the code inside an f-string, which is part of a string on
every version of Python.
"""

import ast
import io
import keyword
import re
import tokenize
import warnings
from itertools import accumulate, pairwise

KINDS = ("keyword", "name", "operator", "number", "string", "comment", "white space", "not Python")
SPACE, PROSE = KINDS[6:]
FENCED = re.compile(r"^```(?:python|py)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)

_KIND_OF = {tokenize.OP: "operator", tokenize.NUMBER: "number", tokenize.STRING: "string", tokenize.COMMENT: "comment"}
_F_STARTS, _F_ENDS = ({getattr(tokenize, f"{letter}STRING_{end}", None) for letter in "FT"} - {None} for end in ("START", "END"))


def of_tokens(text: str, sizes: list[int]) -> list[str]:
    """The kind of each token of text, one of KINDS. sizes: how many bytes each token holds.

    A token that ends a line of code is white space, whatever stands before the break in it: `):` and the indentation that follows
    are one token of this book's tokenizers. Any other token is what most of its bytes are, white space aside, and of two
    equals the first: ` x` is a name, `(name` too, `="` an operator.
    Raises ValueError if the sizes do not add up to the text's bytes.
    """
    data, kinds = text.encode(), of_bytes(text)
    if sum(sizes) != len(data):
        raise ValueError(f"sizes must add up to the text's {len(data)} bytes, got {sum(sizes)}; are they this text's tokens?")
    return [_of_token(data[a:b], kinds[a:b]) for a, b in pairwise(accumulate(sizes, initial=0))]


def _of_token(data, kinds):
    if any(byte in b"\r\n" and kind == SPACE for byte, kind in zip(data, kinds)):
        return SPACE
    solid = [kind for kind in kinds if kind != SPACE]
    return max(dict.fromkeys(solid), key=solid.count, default=SPACE)


def of_bytes(text: str) -> list[str]:
    """The kind of each byte of text.encode(), one of KINDS.

    A text that Python can parse is Python. In any other text, what stands between a line "```python" and a line "```" is, if it
    can be parsed; the rest is not Python, except for its line breaks, which are white space.
    """
    kinds = _of_code(text)
    if kinds is None:
        kinds = [SPACE if char in "\r\n" else PROSE for char in text]
        for block in FENCED.finditer(text):
            kinds[slice(*block.span(1))] = _of_code(block[1]) or kinds[slice(*block.span(1))]
    return [kind for char, kind in zip(text, kinds) for _ in char.encode()]


def _of_code(text):
    """The kind of each character, or None if text is not Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in a string warns
            ast.parse(text)
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (SyntaxError, ValueError, tokenize.TokenError):
        return None
    starts = list(accumulate((len(line) for line in io.StringIO(text)), initial=0))
    kinds, depth, begin = [SPACE] * len(text), 0, 0
    for token in tokens:
        a, b = (starts[min(row - 1, len(starts) - 1)] + column for row, column in (token.start, token.end))
        if token.type in _F_STARTS:
            depth, begin = depth + 1, a if depth == 0 else begin
        elif token.type in _F_ENDS:
            depth -= 1
            kinds[begin:b] = ["string"] * (b - begin)
        elif token.type == tokenize.NAME:
            kinds[a:b] = ["keyword" if keyword.iskeyword(token.string) else "name"] * (b - a)
        elif token.type in _KIND_OF:
            kinds[a:b] = [_KIND_OF[token.type]] * (b - a)
    return kinds
