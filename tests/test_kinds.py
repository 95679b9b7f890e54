"""What a token is in Python's eyes: checked against texts labelled by hand, and on Python's own library."""

import ast
import keyword
import textwrap
from itertools import groupby

import pytest

from minimodels import kinds
from minimodels.kinds import KINDS, of_bytes, of_tokens


def runs(text):
    """[(kind, bytes), ...] of text, neighbours of one kind together."""
    data, found, at = text.encode(), [], 0
    for kind, group in groupby(of_bytes(text)):
        n = len(list(group))
        found.append((kind, data[at:at + n].decode()))
        at += n
    return [(kind, piece) for kind, piece in found if kind != "white space"]


def tokens(text, *pieces):
    assert "".join(pieces) == text
    return of_tokens(text, [len(piece.encode()) for piece in pieces])


def test_every_byte_of_a_line_has_its_kind():
    assert runs('if café != 0x2A:  # naïve\n    x = "é" + f"{a}"\n') == [
        ("keyword", "if"), ("name", "café"), ("operator", "!="), ("number", "0x2A"), ("operator", ":"), ("comment", "# naïve"),
        ("name", "x"), ("operator", "="), ("string", '"é"'), ("operator", "+"), ("string", 'f"{a}"')]


def test_a_bytes_list_is_as_long_as_the_text_in_bytes():
    for text in ("", "x", "é = '🙂'\n", "Not Python at all, é.", "```python\nx = 1\n```\n"):
        assert len(of_bytes(text)) == len(text.encode()) and set(of_bytes(text)) <= set(KINDS)


def test_what_stands_in_an_f_string_is_string_on_every_python():
    text = "y = f'a {b + f\"{c}\"} {{d}}' if e else F'''{\ng}'''\n"
    assert [kind for kind, _ in runs(text)] == ["name", "operator", "string", "keyword", "name", "keyword", "string"]


def test_a_token_takes_the_kind_of_most_of_its_bytes():
    assert tokens("print (name, x=\"y\")", "print", " (", "name", ",", " x", '="', "y", '")') == [
        "name", "operator", "name", "operator", "name", "operator", "string", "string"]
    assert tokens("self.append(x)", "self", ".append", "(x", ")") == ["name", "name", "operator", "operator"]
    assert tokens("x  = 2", "x", " ", " =", " ", "2") == ["name", "white space", "operator", "white space", "number"]


def test_a_token_that_ends_a_line_of_code_is_white_space_but_not_inside_a_string():
    assert tokens("def f():\n    '''a\n    b'''\n", "def", " f", "():\n    ", "'''", "a", "\n    ", "b", "'''\n") == [
        "keyword", "name", "white space", "string", "string", "string", "string", "white space"]
    assert tokens("f(a,\n  b)  # c\n", "f", "(", "a", ",\n  ", "b", ")", "  #", " c", "\n") == [
        "name", "operator", "name", "white space", "name", "operator", "comment", "comment", "white space"]


def test_pieces_of_one_character_have_its_kind():
    assert of_tokens("# 🙂", [1, 1, 2, 2]) == ["comment"] * 4
    assert of_tokens("'🙂'", [2, 2, 1, 1]) == ["string"] * 4


def test_english_is_not_python_and_code_between_fences_is():
    text = "Open it for 3 days.\n```python\nfor x in y:\n    pass  # ok\n```\nThen if it fails, stop.\n"
    code = [(kind, piece) for kind, piece in runs(text) if kind != "not Python"]
    assert code == [("keyword", "for"), ("name", "x"), ("keyword", "in"), ("name", "y"), ("operator", ":"), ("keyword", "pass"), ("comment", "# ok")]
    assert {kind for kind, _ in runs("```python\nfor is not code\n```\n")} == {"not Python"}
    assert tokens("It rains.\nThen", "It", " rains", ".\n", "Then") == ["not Python", "not Python", "white space", "not Python"]


def test_sizes_of_another_text_are_refused():
    with pytest.raises(ValueError, match="add up to the text's 3 bytes, got 4; are they"):
        of_tokens("é=", [4])


@pytest.mark.parametrize("module", [textwrap, keyword, kinds], ids=lambda module: module.__name__)
def test_a_module_has_as_many_names_numbers_and_strings_as_its_syntax_tree_says(module):
    """The same counts by another route: ast knows no tokens."""
    with open(module.__file__, encoding="utf8") as file:
        text = file.read()
    found, tree = runs(text), list(ast.walk(ast.parse(text)))
    f_strings = [node for node in tree if isinstance(node, ast.JoinedStr)]
    inside = {id(below) for node in f_strings for below in ast.walk(node)}
    names = {node.id for node in tree if isinstance(node, ast.Name) and id(node) not in inside}
    assert names <= {piece for kind, piece in found if kind == "name"}
    numbers = [node for node in tree if isinstance(node, ast.Constant) and type(node.value) in (int, float) and id(node) not in inside]
    assert len(numbers) == sum(kind == "number" for kind, _ in found)
    assert all(keyword.iskeyword(piece) for kind, piece in found if kind == "keyword")
    assert all(piece.startswith("#") for kind, piece in found if kind == "comment")
