"""Stepping through drafts: a recorded generation is the model's own, both languages say the same, and keys alone are enough."""

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import browser as browsers
import pytest
import torch

from book_files import write_statics
from configs import odd_config
from minimodels import lab
from minimodels.checkpoint import Run
from minimodels.explorables import DraftSteps, draft_steps, scripts
from minimodels.generate import decode
from minimodels.model import Transformer
from minimodels.palette import COLORS

ROOT = Path(__file__).parents[1]
WORDS = ["a", " b", "\n    ", "()\n", "<i>", '"', "'", " long_identifier_of_twenty", "é", "\n\n"]


def random_run(seed):
    """A run that might have been: drafts that stand are the text's, the first that does not is not; the end may fall inside drafts."""
    rng = random.Random(seed)
    n_draft, tokens, passes = rng.choice([1, 1, 2, 3]), [rng.choice(WORDS) for _ in range(rng.randint(2, 25))], []
    at = 1
    while at < len(tokens):
        asked = min(n_draft, len(tokens) - at)
        n = rng.randint(0, asked)
        wrong = [rng.choice([w for w in WORDS if w != tokens[at + n]])] if n < asked else []
        passes.append([n, *tokens[at:at + n], *(wrong + [rng.choice(WORDS) for _ in range(asked)])[:asked - n]])
        at += n + 1
    return {"name": f"run {seed}", "prompt": rng.choice(["x", "def f():\n    "]), "tokens": tokens, "passes": passes}


def random_pieces(n=60):
    runs = [random_run(seed) for seed in range(n)]
    return [DraftSteps(runs=[run], step=step) for run in runs for step in range(len(run["passes"]) + 2)]


# ---- what is recorded

@pytest.fixture(scope="module")
def trained():
    return Run.open(lab.data_file("checkpoints/cpu-long")).model()


def test_a_recorded_run_is_what_the_model_writes_and_counts(trained):
    prompt = "    def __init__(self"
    piece = DraftSteps.of(trained, {"one": "import", "two": prompt}, max_new_tokens=23, run=1, step=99)
    ids = trained.tokenizer.encode(prompt).ids
    text = list(ids)
    with torch.no_grad():
        for _ in range(23):     # the slow road: no cache, no drafts
            text.append(trained(torch.tensor([text])).logits[0, -1].argmax().item())
    run, out = piece.runs[1], decode(trained, [ids], max_new_tokens=23, draft="mtp")
    assert "".join(run["tokens"]) == trained.tokenizer.decode(text[len(ids):]) and len(run["tokens"]) == 23
    assert piece.counts() == {"passes": out.n_passes, "tokens": 22, "drafted": out.n_drafted, "accepted": out.n_accepted}
    assert out.tokens_per_pass == 22 / piece.counts()["passes"] and piece.runs[0]["name"] == "one"


def test_what_stands_is_the_text_and_what_falls_is_not(trained):
    for n_draft in (1, 3):
        run = draft_steps.record(trained, "one", "def main(", max_new_tokens=31, n_draft=n_draft)
        at, verdicts = 1, set()
        for n, *drafts in run["passes"]:
            assert drafts[:n] == run["tokens"][at:at + n] and len(drafts) <= n_draft
            assert n == len(drafts) or drafts[n] != run["tokens"][at + n]
            verdicts.add(n)
            at += n + 1
        assert at == 31 and verdicts >= {0, 1}


def test_a_text_that_ends_early_is_recorded_to_its_end(trained):
    tiny = Transformer(replace(odd_config(mtp_depth=1), vocab_size=4096)).eval()
    tiny.head.weight = torch.nn.Parameter(torch.zeros_like(tiny.head.weight))    # all logits tie, and the first token is the end
    tiny.tokenizer = trained.tokenizer
    run = draft_steps.record(tiny, "end", "x", max_new_tokens=7)
    assert run["tokens"] == ["<|endoftext|>"] and run["passes"] == []
    assert DraftSteps(runs=[run]).rows()[0] == ["Passes", "0", "0"]


def test_the_example_by_hand():
    """three | four five | nine struck, six | seven: four tokens in three passes, one draft of two."""
    piece = DraftSteps()
    said = []
    for piece.step in range(4):
        said.append(piece.said())
    assert said == [
        "The pass that reads the prompt writes “·three”. The module drafts “·four”.",
        "Pass 1 accepts “·four”, and writes “·five”: 2 tokens. The module drafts “·nine”.",
        "Pass 2 rejects “·nine”, and writes “·six” instead: one token.",
        "Pass 3 has no draft to check, and writes “·seven”: one token. The text is complete: 4 tokens in 3 passes; without drafts it takes 4."]
    assert piece.rows() == [["Passes", "3", "4"], ["Tokens", "4", "4"], ["Tokens a pass", "1.33", "1"], ["Drafts accepted", "1 of 2, 50 %", "no drafts"]]


def test_the_fallback_says_the_numbers_and_the_first_passes():
    html = DraftSteps(runs=[draft_steps.BY_HAND, random_run(3)]).fallback()
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", html)]
    assert rows[1] == ["by hand", "3", "4", "1.33", "1 of 2, 50 %"] and rows[2][0] == "run 3"
    assert rows[4:] == [["1", "“·four”", "accepted", "“·four”, “·five”"], ["2", "“·nine”", "rejected", "“·six”"], ["3", "", "no draft", "“·seven”"]]


# ---- in a browser

@pytest.fixture(scope="module")
def browser():
    with browsers.chromium() as running:
        yield running


def test_both_languages_count_and_say_the_same(browser):
    pieces = random_pieces()
    states = json.dumps([piece.state() for piece in pieces])
    tab = browser.new_page()
    found = tab.evaluate("""async ([text, states]) => {
        const m = await import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
        return states.map(s => [m.counts(s.runs[s.run], s.step), m.said(s.runs[s.run], s.step), m.rowsOf(s.runs[s.run], s.step)]);
    }""", [scripts.module("draft_steps"), json.loads(states)])
    tab.close()
    assert found == [[piece.counts(), piece.said(), piece.rows()] for piece in pieces] and len(pieces) > 400


RUNS = [random_run(3), random_run(8), random_run(5)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drafts")
    write_statics(folder)
    for theme in ("light", "dark"):
        (folder / f"{theme}.html").write_text(f"""<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8"><title>Drafts</title>
<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="_static/tokens.css"><link rel="stylesheet" href="_static/fonts.css">
<link rel="stylesheet" href="_static/explorables/explorables.css"><style>body {{ margin: 0; background: var(--paper); color: var(--ink); }}</style></head>
<body><main><h1>Drafts</h1>{DraftSteps(runs=RUNS).html()}</main><script src="_static/explorables.js"></script></body></html>""", "utf8")
    return folder


@pytest.fixture
def visit(browser, folder):
    with browsers.visits(browser, folder) as open_page:
        yield open_page


def seen(page):
    """The sentence, the table, and the tokens of the first text that are to be seen, each with its kind."""
    table = page.locator(".xp-table tbody tr").evaluate_all("rows => rows.map(row => [...row.cells].map(cell => cell.textContent))")
    tokens = page.locator(".ds-text").first.locator(".ds-pass .ds-token").evaluate_all("""all => all
        .filter(e => getComputedStyle(e).visibility === "visible" && e.getClientRects().length)
        .map(e => [e.textContent, (e.className.match(/ds-(stands|falls|waits)/) ?? ["", "own"])[1]])""")
    return page.locator(".xp-readout").text_content(), table, tokens


def expected(piece):
    """The same by another way: from the state alone."""
    run, tokens, at = piece.runs[piece.run], [], 1

    def put(sign, token, kind):
        tokens.append([sign + (token.split("\n")[0] + "⏎" if "\n" in token else token), kind])

    for n, *drafts in run["passes"][:piece.step]:
        for k, draft in enumerate(drafts):
            put("✓" if k < n else "✗", draft, "stands" if k < n else "falls")
        for token in run["tokens"][at + n:at + n + 1]:
            put("", token, "own")
        at += n + 1
    for draft in run["passes"][piece.step][1:] if piece.step < len(run["passes"]) else []:
        put("?", draft, "waits")
    return piece.said(), piece.rows(), tokens


@pytest.mark.parametrize("width", [390, 1280])
def test_keys_alone_step_through_every_run(visit, width):
    page = visit(width=width)
    for i, run in enumerate(RUNS):
        page.get_by_label(run["name"], exact=True).focus()
        page.keyboard.press("Space")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Start"
        piece = DraftSteps(runs=RUNS, run=i)
        for piece.step in range(len(run["passes"]) + 1):
            assert seen(page) == expected(piece)
            page.keyboard.press("ArrowRight")
        assert seen(page) == expected(piece)          # beyond the end nothing happens
        for key, step in (("ArrowLeft", len(run["passes"]) - 1), ("Home", 0), ("ArrowLeft", 0), ("End", len(run["passes"]))):
            page.keyboard.press(key)
            piece.step = step
            assert seen(page) == expected(piece)


def test_buttons_step_keep_the_focus_and_say_where_they_end(visit):
    page, piece = visit(), DraftSteps(runs=RUNS)
    button = {words: page.get_by_role("button", name=words) for words in ("Start", "Back", "Next pass", "End")}
    assert [one.get_attribute("aria-disabled") for one in button.values()] == ["true", "true", "false", "false"]
    for words, step in (("Next pass", 1), ("Next pass", 2), ("Back", 1), ("End", len(RUNS[0]["passes"])), ("Start", 0)):
        button[words].click()
        piece.step = step
        assert seen(page) == expected(piece) and page.evaluate("document.activeElement.textContent") == words
    button["End"].click()
    assert [one.get_attribute("aria-disabled") for one in button.values()] == ["false", "false", "true", "true"]
    page.get_by_role("status").filter(has_text="The text is complete").wait_for(state="attached")


def test_the_text_alternative_says_what_is_seen(visit):
    page, piece = visit(), DraftSteps(runs=RUNS)
    for piece.step in range(4):
        run, c = RUNS[0], piece.counts()
        with_drafts, without = page.get_by_role("img").evaluate_all("all => all.map(e => e.ariaLabel)")
        assert "".join(run["tokens"][:1 + c["tokens"]]) + "”" in with_drafts and f"{c['accepted']} of {c['drafted']} drafts accepted" in with_drafts
        assert f"Waiting: {draft_steps.listed(run['passes'][piece.step][1:])}." in with_drafts
        assert "".join(run["tokens"][:1 + c["passes"]]) + "”" in without and f"{c['tokens'] - c['passes']} tokens behind" in without
        page.get_by_role("button", name="Next pass").click()


def test_the_other_text_is_one_token_a_pass(visit):
    page, piece = visit(width=1280), DraftSteps(runs=RUNS)
    page.get_by_role("button", name="Next pass").focus()
    for piece.step in range(len(RUNS[0]["passes"]) + 1):
        c = piece.counts()
        there, missing, later = page.locator(".ds-text").nth(1).locator(".ds-pass").evaluate_all(
            "all => ['ds-pass', 'ds-missing', 'ds-later'].map(name => all.filter(e => e.classList.contains(name)).length)")
        assert (there - missing - later, missing) == (c["passes"], c["tokens"] - c["passes"])
        page.keyboard.press("ArrowRight")


@pytest.mark.parametrize("theme, dark", [("light", 0), ("dark", 1)])
def test_drafts_that_stand_wear_the_colour_of_mtp(visit, theme, dark):
    page = visit(theme)
    page.get_by_role("button", name="End").click()
    color = page.locator(".ds-text .ds-stands").first.evaluate("e => getComputedStyle(e).color")
    assert color == f"rgb({', '.join(str(int(COLORS['mtp'][dark][i:i + 2], 16)) for i in (1, 3, 5))})"
    struck = page.locator(".ds-text .ds-falls").first.evaluate("e => getComputedStyle(e).textDecorationLine")
    assert struck == "line-through"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_nothing_overflows_and_axe_has_no_complaint(visit, theme, width):
    page = visit(theme, width)
    page.add_script_tag(path=ROOT / "tests" / "vendor" / "axe.min.js")
    for button in ("Next pass", "End"):
        page.get_by_role("button", name=button).click()
        assert page.evaluate("""() => [document.documentElement.scrollWidth, [...document.querySelectorAll(".xp-panel *")]
            .filter(e => e.getBoundingClientRect().right > e.closest(".xp-panel").getBoundingClientRect().right + 1)
            .map(e => e.outerHTML.slice(0, 80))]""") == [width, []]
        found = page.evaluate("async () => (await axe.run(document, { preload: false })).violations.map(v => [v.id, v.nodes.slice(0, 3).map(n => n.html.slice(0, 120))])")
        assert found == []


def test_on_a_wide_page_nothing_moves_while_the_text_is_written(visit):
    page = visit(width=1280)

    def places():
        return page.locator(".ds-text .ds-token, .xp-table").evaluate_all("all => all.map(e => e.getBoundingClientRect()).map(b => [b.left, b.top, b.width])")

    before = places()
    page.get_by_role("button", name="Next pass").click()
    page.get_by_role("button", name="Next pass").click()
    assert places() == before
