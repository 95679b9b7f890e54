"""Chapter 02: its byte-pair encoding is the library's, its counting models are probabilities, its page cuts text as the library does."""

import json
import math
import random
import re
import statistics
from collections import Counter, defaultdict

import browser as browsers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from minimodels import exercises, lab, studies
from minimodels.bpe import count_pairs, encode_word, learn_merges, merge
from minimodels.bugs.data import BUGS
from minimodels.config import ModelConfig
from minimodels.corpus import END, load_corpus, take
from minimodels.data import Batches, first_rows, prepare, train_tokenizer
from minimodels.explorables import Tokens, scripts
from minimodels.explorables.tokens import BYTES_BY_ID, book_tokenizer, merges_of, said
from minimodels.ngram import NGram, copied
from minimodels.studies import recorded
from minimodels.studies.data import LONG, SPLITS, WINDOWS, K, split

ROOT = lab.data_file("").parent
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
def browser():
    with browsers.chromium() as running:
        yield running


@pytest.fixture(scope="module")
def in_page(browser):
    """A page with the explorable's module as m; evaluates an expression of m and a value."""
    page = browser.new_page()
    handle = page.evaluate_handle("text => import(URL.createObjectURL(new Blob([text], { type: 'text/javascript' })))", scripts.module("tokens"))
    return lambda expression, value: page.evaluate(f"([m, value]) => {expression}", [handle, value])


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


# ---- copies, splits, batches

def test_copied_runs_are_those_that_stand_in_both():
    rng = np.random.default_rng(0)
    train, valid = rng.integers(0, 3, 300), rng.integers(0, 3, 80)
    runs = {tuple(train[i:i + 5]) for i in range(296)}
    assert copied(train, valid, 5).tolist() == [tuple(valid[i:i + 5]) in runs for i in range(76)]
    assert copied(train, train[40:90], 32).all() and not copied(train, rng.integers(3, 9, 60), 5).any()


def test_the_first_rows_of_a_tokenizer_are_a_smaller_tokenizer():
    texts = take(load_corpus("stdlib").train, 100_000)
    large, small = train_tokenizer(texts, 700), train_tokenizer(texts, 400)
    assert [first_rows(large, 400).encode(text).ids for text in NASTY] == [small.encode(text).ids for text in NASTY]
    assert first_rows(large, 257).encode("abc").ids == [id_ for c in "abc" for id_ in large.encode(c).ids]
    with pytest.raises(ValueError, match="at most the tokenizer's 700 rows, got 701"):
        first_rows(large, 701)


@pytest.mark.parametrize("way", SPLITS)
def test_a_split_loses_no_text_and_holds_back_a_twentieth(way):
    texts = ["".join(f"{i} {n}\n" for n in range(50)) for i in range(40)]
    train, valid = split(texts, way, random.Random(0))
    assert Counter((train[0] + valid[0]).splitlines()) == Counter("".join(texts).splitlines())
    assert len(valid[0]) / len("".join(texts)) == pytest.approx(0.05, abs=0.02)


def test_windows_hold_as_many_bytes_whatever_the_vocabulary():
    trials = {t.model.vocab_size: t for t in studies.find("data-vocabulary").trials}
    read = {t["arm"]: t["tokens"] for t in recorded("data-vocabulary")["trials"]}
    n_tokens = {rows: len(prepare("stdlib", rows).train) for rows in (512, 4096)}    # of the same text
    assert {t.model.vocab_size: t.training.seq_len for t in trials.values()} == WINDOWS
    assert WINDOWS[512] / 256 == pytest.approx(n_tokens[512] / n_tokens[4096], abs=0.01)
    assert {f"{rows} rows": 200 * 4 * window for rows, window in WINDOWS.items()} == read
    counts = [t.model.n_params for t in trials.values()]
    assert max(counts) / min(counts) < 1.001


@pytest.mark.parametrize("name, share", [(None, 1), ("with replacement", 1 - math.exp(-1)), ("half overlapping", 0.5), ("shuffled every step", 1 - math.exp(-1))])
def test_spoilt_loaders_leave_text_unread(name, share):
    batches = BUGS.get(name, Batches)(np.arange(20_000), batch_size=4, seq_len=8, seed=3)
    rows = [row for step in range(len(batches)) for row in batches.at(step).tolist()]
    read = {token for row in rows[:batches.n_windows] for token in row}
    assert len(read) / (8 * batches.n_windows) == pytest.approx(share, abs=0.02)


# ---- drawings and figures of the chapter

def drawn(name):
    return re.findall(r">([^<>]+)</text>", (ROOT / "minimodels" / "drawings" / f"{name}.svg").read_text("utf8"))


def test_the_drawings_show_what_the_tokenizer_does():
    tokens = Tokens(text="def café").tokens()
    words = drawn("text")
    assert all(f"{b:02X}" in words for b in "def café".encode()) and [w for w in words if w.isdigit() and len(w) > 2 or w == "70"] == [str(i) for i, _ in tokens]
    assert all(said(piece) in words for _, piece in tokens)
    token, steps, merges = TOKENIZER.token_to_id("Ġreturn"), [], merges_of(TOKENIZER)
    todo = [token]
    while todo:
        i = todo.pop()
        if i >= 257:
            steps.append(i - 256)
            todo += merges[i - 257]
    assert [f"merge {n}" for n in sorted(steps)] == [w for w in drawn("merging") if w.startswith("merge")] and f"token {token}" in drawn("merging")
    assert 10 + 5 + 11 + 3 == 29 and (29 - 5 + 1) // 5 == 5    # packing: five windows of five, whatever the offset


def test_the_figures_that_the_chapter_writes_are_those_of_the_recorded_runs():
    text = " ".join((ROOT / "chapters" / "02_data.py").read_text("utf8").replace("\n# > ", " ").replace("\n#", " ").split())
    full = recorded("data-rungs")["trials"][0]
    yardstick = statistics.mean(t["bits_per_byte"] for t in recorded("mla-quality")["trials"] if t["arm"] == "mha")
    assert f"**{full['2-gram of bytes, nats a token']:.1f} loses to {full['2-gram, nats a token']:.1f}**" in text
    kilobytes = [full[name] * full["valid_bytes"] / 8000 for name in ("2-gram of bytes", "2-gram")]
    assert f"{full['valid_bytes'] / 1000:.0f} kilobytes shrink to {kilobytes[0]:.0f}, and with tokens to {kilobytes[1]:.0f}" in text
    assert 2 * full["valid_bytes"] / full["valid_tokens"] == pytest.approx(8, abs=0.5) and "a pair of tokens spans some eight bytes" in text
    assert f"{yardstick:.2f} to {full['5-gram']:.2f} to {full['lzma']:.2f}" in text
    assert full["5-gram"] / yardstick == pytest.approx(1.06, abs=0.005) and "six percent behind" in text
    assert f"`lzma` needs {full['lzma with training text']:.2f} bits a byte" in text and full["lzma with training text"] < yardstick
    assert f"{100 * full['copied bytes']:.1f} percent of the bytes lie in copies, a third of them in this file" in text
    worst = full["most_copied"][0]
    assert worst["copied bytes"] / (full["copied bytes"] * full["valid_bytes"]) == pytest.approx(1 / 3, abs=0.02) and "more than half of it" in text
    assert worst["copied bytes"] > worst["bytes"] / 2 and f"needs {worst['bits_per_byte']:.2f} bits a byte for it, and {full['5-gram']:.2f} for the whole" in text
    assert full["documents"][1] / sum(full["documents"]) == pytest.approx(0.05, abs=0.005) and "five percent of the files are held back" in text
    assert f"{100 * full['valid_bytes'] / (full['valid_bytes'] + full['train_bytes']):.1f} percent of the bytes. A hash" in text
    assert f"The best weight is {full['cache weight']:g}, and the score falls from {full['5-gram']:.3f} to {full['5-gram with cache']:.3f}" in text
    assert f"after 600 steps, {yardstick:.3f}" in text
    assert f"need {full['5-gram, copied']:.2f} bits per byte there, and {full['5-gram, not copied']:.2f} elsewhere; pairs {full['2-gram, copied']:.2f} and {full['2-gram, not copied']:.2f}" in text
    lead = full["2-gram"] - full["5-gram"], full["2-gram, not copied"] - full["5-gram, not copied"]
    assert f"The lead over pairs is {lead[0]:.3f}." in text and f"Without them the lead is {lead[1]:.3f}, a tenth less" in text
    from_copies = full["copied bytes"] * (full["2-gram, copied"] - full["5-gram, copied"])
    assert f"= {from_copies:.3f}$ of that: an eighth" in text and from_copies / lead[0] == pytest.approx(1 / 8, abs=0.01)
    assert lead[1] / lead[0] == pytest.approx(0.9, abs=0.01) and full["copied bytes"] == pytest.approx(1 / 30, abs=0.002)

    run = json.loads((ROOT / "data" / "runs" / "cpu-stdlib.json").read_text("utf8"))
    small = ModelConfig.preset("yardstick")
    assert f"with {run['n_params'] / 1e6:.1f} million parameters and 1,000 steps" in text
    assert f"with {run['n_params'] / small.n_params:.1f} times the parameters and {run['tokens'] / (600 * 8 * 256):.1f} times the text" in text
    assert run["bits_per_byte"] < full["lzma with training text"] and "loses to 1,000" in text
    rates = [t["bits_per_byte"] for t in recorded("mla-rates")["trials"] if t["arm"].startswith("mha")]
    assert len(rates) == 4 and f"with the worst, {max(rates):.2f}, it would still win" in text and max(rates) < full["5-gram"]

    splits = {way: [t["5-gram"] for t in recorded("data-splits")["trials"] if t["arm"] == way] for way in SPLITS}
    mean = {way: statistics.mean(values) for way, values in splits.items()}
    assert f"{mean['by file']:.2f} bits a byte; as single lines {mean['by line']:.2f}, which is {100 * (1 - mean['by line'] / mean['by file']):.0f} percent less" in text
    assert f"from {min(splits['by file']):.2f} to {max(splits['by file']):.2f}" in text and len(splits["by file"]) == 5

    better = [100 * (1 - line / file) for file, line in zip(splits["by file"], splits["by line"])]
    assert f"from {min(better):.0f} to {max(better):.0f}." in text
    lzma = {(way, key): statistics.mean(t[key] for t in recorded("data-splits")["trials"] if t["arm"] == way) for way in SPLITS for key in ("lzma", "lzma with training text")}
    falls = {way: f"from {lzma[way, 'lzma']:.2f} to {lzma[way, 'lzma with training text']:.2f}" for way in SPLITS}
    assert f"it falls {falls['by file']} on whole files and {falls['by line']} on single lines" in text

    study = recorded("data-vocabulary")
    bits = [statistics.mean(t["bits_per_byte"] for t in study["trials"] if t["arm"] == f"{rows} rows") for rows in WINDOWS]
    assert f"{bits[0]:.2f}, {bits[1]:.2f}, {bits[2]:.2f} and {bits[3]:.2f} bits per byte" in text and bits == sorted(bits, reverse=True)
    assert f"falls by {bits[0] - bits[1]:.2f} bits per byte" in text and f"by another {bits[1] - bits[3]:.2f}" in text
    each = {rows: [t["bits_per_byte"] for t in study["trials"] if t["arm"] == f"{rows} rows"] for rows in WINDOWS}
    spread = max(max(values) - min(values) for values in each.values())
    steps = [first - second for first, second in zip(bits, bits[1:])]
    assert steps[0] > 5 * spread and steps[1] == pytest.approx(spread, rel=0.2) and steps[2] < spread and min(each[2048]) > max(each[4096])
    assert [f"{step:.2f}" for step in steps] == ["0.33", "0.04", "0.02"] and "The first step, 0.33, " in text and "second, 0.04, hardly" in text and "last, 0.02, smaller" in text
    assert sorted(a < b for a, b in zip(each[4096], each[6144])) == [False, False, True] and "one seed of three says the opposite" in text
    assert study["arms"]["512 rows"]["model"]["d_ff"] / study["arms"]["6144 rows"]["model"]["d_ff"] == pytest.approx(4, abs=0.2)
    tokens = {t["arm"]: t["tokens"] for t in study["trials"]}
    assert f"read {tokens['512 rows'] / tokens['6144 rows']:.1f} times as many tokens" in text
    wide = study["arms"]["6144 rows"]["model"]
    assert round(100 * 6144 * wide["d_model"] / ModelConfig(**wide).n_params) == 62 and "With 6,144, 62 percent" in text
    assert len(Tokens(text=" token", rows=512).tokens()) == 3
    assert 200 * 4 * 256 * full["train_bytes"] / full["train_tokens"] == pytest.approx(0.8e6, rel=0.01)

    for greeting, n in (("hello, how are you?", 8), ("Hallo, wie geht es dir?", 12), ("Привет, как дела?", 30)):
        assert len(TOKENIZER.encode(greeting).ids) == n and f"`{greeting}`" in text and f" {n}" in text
    v3 = ModelConfig.preset("deepseek_v3")
    assert f"{100 * v3.vocab_size * v3.d_model / v3.n_params:.2f} percent of all parameters" in text
    table, active = v3.vocab_size * v3.d_model, v3.n_active_params
    assert v3.n_params / table == pytest.approx(700, rel=0.05) and "a seven-hundredth" in text
    assert f"Of what a token uses, the latter are {100 * table / active:.1f} percent" in text
    assert round(14.8 * full["valid_bytes"] / full["valid_tokens"]) == 56 and "some 56 terabytes" in text


def test_k_is_the_best_on_text_that_no_score_is_taken_from():
    trials = recorded("data-smoothing")["trials"]
    means = {k: statistics.mean(t[f"{LONG}-gram"][k] for t in trials) for k in trials[0][f"{LONG}-gram"]}
    assert min(means, key=means.get) == str(K) and len(means) == 6
    assert all(min(t[f"{LONG}-gram"], key=t[f"{LONG}-gram"].get) == str(K) for t in trials)
    of_pairs = {k: statistics.mean(t["2-gram"][k] for t in trials) for k in trials[0]["2-gram"]}
    assert min(of_pairs, key=of_pairs.get) == "200" and round(of_pairs[str(K)] - of_pairs["200"], 3) == 0.002


def test_the_draw_in_the_chapter_is_as_its_text_says():
    cells = json.loads((ROOT / "chapters" / "02_data.ipynb").read_text("utf8"))["cells"]
    said_ = "".join(line for cell in cells for out in cell.get("outputs", []) if "text" in out for line in out["text"])
    file, line = (float(re.search(rf"by {way}: ([\d.]+) bits", said_)[1]) for way in ("file", "line"))
    text = "".join("".join(cell["source"]) for cell in cells)
    assert f"This one draw says {100 * (1 - line / file):.0f} percent" in text


def test_the_recorded_splits_are_the_band():
    values = [t["5-gram"] for t in recorded("data-splits")["trials"] if t["arm"] == "by file"]
    band = json.loads(lab.data_file("bands.json").read_text("utf8"))["data"]["five tokens, split by file"]["tiers"]["cpu"]
    mean, spread = statistics.mean(values), statistics.stdev(values)
    assert [band["mean"], band["low"], band["high"]] == pytest.approx([mean, mean - 3 * spread, mean + 3 * spread], abs=5e-4)


def test_the_solutions_that_the_chapter_prints_pass_their_checks():
    lines = (ROOT / "chapters" / "02_data.py").read_text("utf8").splitlines()
    text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)
    checks, passed = exercises.load("data"), set()
    for code in re.findall(r"```python\n(.*?)```", text, re.S):
        name = re.match(r"def (\w+)", code)
        if name and name[1] in checks.exercises:
            names = {"Counter": Counter, "math": math, "merge": merge}
            exec(code, names)
            assert checks.exercises[name[1]].check(names[name[1]]), name[1]
            passed.add(name[1])
    assert passed == set(checks.exercises)


MOUNT = """async ([text, state]) => {
    const m = await import(URL.createObjectURL(new Blob([text], { type: "text/javascript" }))), listeners = {};
    window.state = state;
    const model = {
        get: key => state[key], on: (event, f) => (listeners[event] ??= new Set()).add(f), off: (event, f) => listeners[event]?.delete(f),
        set: (key, value) => { if (!Object.is(state[key], value)) { state[key] = value; (listeners[`change:${key}`] ?? []).forEach(f => f()); } },
        save_changes() {} };
    document.body.innerHTML = '<main class="explorable"><div></div></main>';
    window.stop = m.default.render({ model, el: document.querySelector("main div") });
    window.listeners = () => Object.values(listeners).reduce((n, all) => n + all.size, 0);
}"""


def test_the_page_follows_the_reader(browser):
    page, wrong = browser.new_page(viewport={"width": 360, "height": 900}), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.set_content(f"<!doctype html><meta name='viewport' content='width=device-width'><style>{scripts.CSS}</style><body></body>")
    page.evaluate(MOUNT, [scripts.module("tokens"), Tokens().state()])

    def shown():
        return [int(label.split("token ")[-1]) for label in page.locator(".xp-token").evaluate_all("all => all.map(e => e.ariaLabel)")]

    text = "    return naïve\n" + "x" * 200
    page.get_by_label("Your text", exact=True).fill(text)
    assert shown() == TOKENIZER.encode(text).ids
    assert page.locator(".xp-readout").text_content().startswith(f"{len(text)} characters, {len(text.encode())} bytes, {len(shown())} tokens of 4,096 rows.")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    token = page.get_by_label("·return, token")
    token.click()
    assert "made by 6 merges" in page.locator(".xp-made").text_content() and page.locator(".xp-made li").count() == 6
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.ariaLabel").startswith("·n, token") and page.locator(".xp-token[tabindex='0']").count() == 1
    page.get_by_label("Rows of the vocabulary").press("Home")
    assert len(shown()) == len(text.encode())
    page.get_by_label("numbers", exact=True).check()
    assert page.locator(".xp-token").first.text_content() == str(shown()[0])
    page.evaluate("stop()")
    assert page.evaluate("listeners()") == 0 and wrong == []
