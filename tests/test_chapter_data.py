"""Chapter 02: its byte-pair encoding is the library's, its counting models are probabilities, its page cuts text as the library does."""

import random
from collections import Counter, defaultdict

import browser as browsers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from minimodels.bpe import count_pairs, encode_word, learn_merges, merge
from minimodels.corpus import END, load_corpus, take
from minimodels.data import train_tokenizer
from minimodels.explorables import Tokens, scripts
from minimodels.explorables.tokens import BYTES_BY_ID, book_tokenizer, merges_of, said
from minimodels.ngram import NGram

TOKENIZER = book_tokenizer()
NASTY = ["", " ", "a", "def f(x):\n    return x + 1\n", "naïve café, Ünïcödé", "🙂 👩‍👩‍👧‍👦 🇪🇺", "\t\tif x:\r\n\t\t\ty = 1\r\n", "a\0b\0\0", "3.14159265358979323846",
         "12345678901234567890", "漢字かな交じり文とкириллица mixed عربى", "    \n\n   \n", " trailing   ", "a\u0085b\u00a0c\u2003d\u3000e", "\ufeffBOM\ufeff",
         "x" * 300, "-" * 101, "\u200b\u200d", "e\u0301e\u0301", END, f"one{END}two{END}{END}", "<|endof text|>", "``` code ```", "don't we'll I'm",
         "\x1b[31mred\x1b[0m", "𝒳 = 𝟛", "\r\r\n\n\r", "a  b   c    d", "snake_case camelCase __dunder__", "½ ² ٣ Ⅷ", "\u2028line\u2029para", "é" * 50]


def words_of(tokenizer, texts):
    """{word, as ids: how often}, cut as the tokenizer cuts."""
    vocab = tokenizer.get_vocab()
    return Counter(tuple(vocab[char] for char in word) for text in texts for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text))


# ---- byte-pair encoding

def test_the_library_learns_the_same_hundreds_of_merges_from_real_text():
    text = "".join(take(load_corpus("stdlib").train, 60_000))
    tokenizer = train_tokenizer([text], 257 + 400)
    assert learn_merges(words_of(tokenizer, [text]), 400) == merges_of(tokenizer)


@given(st.lists(st.text("abc ", min_size=1, max_size=30), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_ties_are_broken_as_the_library_breaks_them(texts):
    tokenizer = train_tokenizer(texts, 257 + 30)
    assert learn_merges(words_of(tokenizer, texts), 30) == merges_of(tokenizer)


def test_ids_follow_the_printed_form_of_bytes():
    vocab = TOKENIZER.get_vocab()
    assert [vocab[char] for char in sorted(pre_tokenizers.ByteLevel.alphabet())] == list(range(1, 257))
    assert all(TOKENIZER.encode(chr(b)).ids == [i] for i, b in enumerate(BYTES_BY_ID, 1) if b < 128)
    assert sorted(BYTES_BY_ID) == list(range(256))


def test_a_pair_is_merged_from_the_left_and_never_twice():
    assert merge((1, 1, 1), (1, 1), 9) == (9, 1) and merge((1, 1, 1, 1), (1, 1), 9) == (9, 9)
    assert merge((1, 2, 3, 1, 2), (1, 2), 9) == (9, 3, 9) and merge((), (1, 2), 9) == ()
    assert count_pairs({(1, 2, 1, 2): 3, (2, 1): 5}) == {(1, 2): 6, (2, 1): 8}


def test_a_smaller_vocabulary_is_the_beginning_of_a_larger_one():
    texts = take(load_corpus("stdlib").train, 200_000)
    small, large = (merges_of(train_tokenizer(texts, rows)) for rows in (400, 900))
    assert large[:len(small)] == small and len(large) == 900 - 257


@given(st.text("def self.x=()\n 0é", max_size=60))
@settings(max_examples=100, deadline=None)
def test_words_are_encoded_as_the_library_encodes_them(text):
    ranks = {pair: 257 + i for i, pair in enumerate(merges_of(TOKENIZER))}
    vocab = TOKENIZER.get_vocab()
    cut = [word for word, _ in TOKENIZER.pre_tokenizer.pre_tokenize_str(text)]
    assert [i for word in cut for i in encode_word(tuple(vocab[c] for c in word), ranks)] == TOKENIZER.encode(text).ids


# ---- counting

def by_loops(train, valid, n, k, vocab_size):
    """The same model, slowly: dictionaries, one token after another."""
    follows = defaultdict(Counter)
    for t in range(len(train)):
        for length in range(min(n, t + 1)):
            follows[tuple(train[t - length:t])][train[t]] += 1

    def p(context, token):
        shorter = p(context[1:], token) if context else 1 / vocab_size
        seen = follows[tuple(context)]
        return (seen[token] + k * shorter) / (sum(seen.values()) + k)

    return [p(list(valid[max(0, t - n + 1):t]), valid[t]) for t in range(len(valid))]


@pytest.mark.parametrize("n, k", [(1, 3.0), (2, 0.5), (3, 7.0), (5, 100.0)])
def test_counting_at_once_is_counting_one_by_one(n, k):
    rng = np.random.default_rng(n)
    train, valid = rng.integers(0, 7, 211), rng.integers(0, 7, 53)
    p = NGram(train, vocab_size=7, n=n, k=k).probabilities(valid)
    assert p.tolist() == pytest.approx(by_loops(train.tolist(), valid.tolist(), n, k, 7))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_probabilities_of_all_next_tokens_sum_to_one(n):
    rng = np.random.default_rng(0)
    model = NGram(rng.integers(0, 11, 97), vocab_size=11, n=n, k=2.5)
    context = rng.integers(0, 11, 4).tolist()
    assert sum(model.probabilities(np.array([*context, token]))[-1] for token in range(11)) == pytest.approx(1)


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match="vocab_size\\*\\*n below 2\\*\\*63, got n=6 with vocab_size=4096"):
        NGram(np.zeros(9), vocab_size=4096, n=6, k=1.0)
    with pytest.raises(ValueError, match="k must be above 0"):
        NGram(np.zeros(9), vocab_size=5, n=2, k=0)
    with pytest.raises(ValueError, match="each in \\[0, vocab_size=5\\)"):
        NGram(np.array([1, 5]), vocab_size=5, n=1, k=1)


# ---- the explorable

@pytest.mark.parametrize("text", NASTY)
def test_python_counts_the_tokens_of_the_library(text):
    tokens = Tokens(text=text).tokens()
    assert [i for i, _ in tokens] == TOKENIZER.encode(text).ids
    assert b"".join(piece for _, piece in tokens).decode() == text.replace(END, "")


def test_the_fallback_says_the_tokens():
    piece = Tokens(text="def x\n")
    ids = TOKENIZER.encode("def x\n").ids
    assert piece.summary().startswith(f"6 characters, 6 bytes, {len(ids)} tokens of 4,096 rows")
    assert "<th>def</th>" in piece.fallback() and "<th>⏎</th>" in piece.fallback()
    assert [said(b" a\t"), said(b"\xe2\x9c"), said("é\0".encode())] == ["·a⇥", "E2 9C", "é\\u0000"]


@pytest.fixture(scope="module")
def in_page():
    """A page with the explorable's module as m; evaluates an expression of m and a value."""
    with browsers.chromium() as browser:
        page = browser.new_page()
        page.goto("about:blank")
        handle = page.evaluate_handle("text => import(URL.createObjectURL(new Blob([text], { type: 'text/javascript' })))", scripts.module("tokens"))
        yield lambda expression, value: page.evaluate(f"([m, value]) => {expression}", [handle, value])


def test_the_page_cuts_nasty_text_as_the_library_does(in_page):
    state = Tokens().state()
    dice = random.Random(0)
    alphabet = "abz AZ09_.,:;(){}'\"\n\t\r éß漢я🙂\u0301\u200d\u00a0\u0085\ufeff\0"
    texts = NASTY + ["".join(dice.choices(alphabet, k=dice.randint(1, 60))) for _ in range(300)]
    texts += take(load_corpus("stdlib").valid, 30_000)
    ids = in_page("value.texts.map(text => m.encode({ ...value.state, text }))", {"state": state, "texts": texts})
    for text, found in zip(texts, ids, strict=True):
        assert found == TOKENIZER.encode(text).ids, ascii(text[:80])


@pytest.mark.parametrize("rows", [257, 258, 300, 1024])
def test_the_page_with_fewer_rows_is_a_smaller_vocabulary(in_page, rows):
    text = NASTY[3] + NASTY[4] + NASTY[11]
    piece = Tokens(rows=rows, text=text)
    assert in_page("m.encode(value)", piece.state()) == [i for i, _ in piece.tokens()]
    assert max(i for i, _ in piece.tokens()) < rows


def test_the_page_names_tokens_and_tells_their_history(in_page):
    state, spelled = Tokens().state(), [piece for _, piece in Tokens(text="return 🙂\n").tokens()]
    assert in_page("value.map(m.said)", [list(piece) for piece in spelled]) == [said(piece) for piece in spelled]
    token = TOKENIZER.token_to_id("return")
    steps = in_page("m.history(value.token, value.merges)", {"token": token, "merges": state["merges"]})
    assert steps[-1][2] == token and len(steps) == len("return") - 1
    assert all(state["merges"][2 * (i - 257):2 * (i - 257) + 2] == [a, b] for a, b, i in steps)
