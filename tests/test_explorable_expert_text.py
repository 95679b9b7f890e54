"""The tokens of a text with their experts: what is encoded and counted, that both languages agree, and the page with keys and on a phone."""

import itertools
import json
import random
from collections import Counter
from pathlib import Path

import browser as browsers
import pytest
import torch

from book_files import write_statics
from minimodels import lab
from minimodels.checkpoint import Run
from minimodels.explorables import ExpertText, scripts
from minimodels.explorables.expert_text import KINDS, counted, letters, pieces

ROOT = Path(__file__).parents[1]
E, K, LAYERS = 7, 3, [1, 2]
TEXT = 'def f(x):\n    """Say é."""\n    return x + 42  # 🙂\n'


def random_piece(seed, n=23):
    """A piece of two texts with E experts, of which the last gets nothing, and K a token; and the experts of the first text's layers."""
    dice = random.Random(seed)
    texts, counts, routed = [], [[[[0] * E for _ in KINDS] for _ in range(2)] for _ in LAYERS], []
    for name in ("odd", "even"):
        kinds = [dice.choice([0, 1, 1, 1, 2, 4, 6, 7]) for _ in range(n)]
        layers = []
        for i, _ in enumerate(LAYERS):
            tokens = [dice.sample(range(E - 1), K) for _ in range(n)]
            weights = [sorted((dice.random() for _ in range(K)), reverse=True) for _ in range(n)]
            layers.append([[(e, w / sum(ws)) for e, w in zip(es, ws)] for es, ws in zip(tokens, weights)])
            more = counted(kinds, tokens, E)
            counts[i] = [[[a + b for a, b in zip(*lines)] for lines in zip(*parts)] for parts in zip(counts[i], more)]
        routed.append(layers)
        words = [dice.choice(["a", " bc", "):\n    ", "<i>", '"', " ", "‹F0›"]) for _ in range(n)]
        texts.append({"name": name, "tokens": words, "kinds": kinds, "choices": [letters(layer) for layer in layers]})
    piece = ExpertText(texts=texts, counts=counts, layers=LAYERS, n_experts=E, top_k=K, layer=dice.choice(LAYERS), text=dice.randrange(2),
                       expert=dice.randrange(-1, E), token=dice.randrange(n), count=dice.choice(["first", "any"]))
    return piece, routed


# ---- what is encoded and counted

def test_choices_are_what_was_encoded():
    for seed in range(10):
        piece, routed = random_piece(seed)
        wanted = routed[piece.text][LAYERS.index(piece.layer)]
        for i, token in enumerate(wanted):
            assert [e for e, _ in piece.choices(i)] == [e for e, _ in token]
            assert [w for _, w in piece.choices(i)] == pytest.approx([w for _, w in token], abs=0.5 / 4095 + 1e-9)
        assert piece.ranks() == [next((k for k, (e, _) in enumerate(token) if e == piece.expert), -1) for token in wanted]


def test_rows_are_counts_by_hand():
    """Ten tokens, six of them names; expert 1 is first for two names and for both operators: its names are 2/4 against 6/10."""
    names, operators = KINDS.index("name"), KINDS.index("operator")
    kinds = [names] * 6 + [operators] * 2 + [KINDS.index("number")] * 2
    first = [1, 1, 0, 0, 0, 0, 1, 1, 0, 0]
    one = ExpertText(counts=[counted(kinds, [[e, 2] for e in first], 3)], n_experts=3, expert=1)
    name, operator, number = one.numbers()
    assert (name["n"], name["share"], name["chance"]) == (2, 0.5, 0.6) and name["times"] == pytest.approx(5 / 6)
    assert (operator["n"], operator["share"], operator["chance"]) == (2, 0.5, 0.2) and operator["times"] == 2.5
    assert (number["n"], number["times"], number["is_few"]) == (0, 0, True)
    assert one.cells() == [["name", "2", "50 %", "60 %", "0.8 (few)"], ["operator", "2", "50 %", "20 %", "2.5 (few)"], ["number", "0", "0 %", "20 %", "0.0 (few)"]]
    one.expert, one.count = 2, "any"    # the second choice of every token
    assert [row["times"] for row in one.numbers()] == [1, 1, 1]
    one.expert, one.count = -1, "first"
    assert one.cells() == [["name", "6", "60 %", "0", "67 %"], ["operator", "2", "20 %", "1", "100 %"], ["number", "2", "20 %", "0", "100 %"]]


def test_the_sentence_leaves_out_what_rests_on_few_tokens():
    name, number = KINDS.index("name"), KINDS.index("number")
    one = ExpertText(counts=[counted([name] * 60 + [number] * 3, [[1, 0]] * 20 + [[0, 1]] * 40 + [[1, 0]] * 3, 2)], n_experts=2, expert=1)
    assert one.cells()[1][-1] == "2.7 (few)"
    assert one.sentence() == "In layer 0, expert 1 is the first choice of 23 of 63 tokens; an even share is 32."
    one.expert = 0
    assert one.sentence().endswith("Most above chance: name, 1.1 times (40 tokens).")


def test_the_text_alternative_says_the_table_and_the_token():
    piece, _ = random_piece(1)
    piece.expert, piece.count, piece.source = 1, "any", "two odd texts"
    told = piece.fallback()
    assert told.startswith(f"<table>\n<caption>{piece.sentence()} Counted: two odd texts.</caption>")
    for first, *rest in piece.cells():
        assert f"<tr><th>{first}</th>{''.join(f'<td>{cell}</td>' for cell in rest)}</tr>" in told
    assert f" goes to {piece.choices()[0][0]} (" in piece.summary() and piece.sentence() in piece.summary() and "\n" not in piece.summary()


def test_bytes_of_a_shared_character_are_written_as_numbers():
    assert pieces("a🙂\n", [1, 1, 2, 1, 1]) == ["a", "‹F0›", "‹9F›‹99›", "‹82›", "\n"]


# ---- a trained model

@pytest.fixture(scope="module")
def model():
    return Run.open(lab.data_file("checkpoints/cpu-long")).model()


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_the_piece_of_a_model_is_its_routing(model, layer):
    piece = ExpertText.of(model, {"one": TEXT, "two": "It rains.\n"}, layer=layer, expert=9)
    ids = model.tokenizer.encode(TEXT).ids
    with torch.no_grad():
        routing = model(torch.tensor([ids])).routing[layer]
    assert piece.layers == [1, 2, 3] and (piece.n_experts, piece.top_k) == (16, 4)
    for i in range(len(ids)):
        wanted = dict(zip(routing.expert[i].tolist(), (routing.weight[i] / routing.weight[i].sum()).tolist()))
        assert dict(piece.choices(i)) == pytest.approx(wanted, abs=1e-3)
        assert [w for _, w in piece.choices(i)] == sorted((w for _, w in piece.choices(i)), reverse=True)
    assert "".join(piece.texts[0]["tokens"]) == TEXT.replace("é", "‹C3›‹A9›").replace("🙂", "‹F0›‹9F›‹99›‹82›")
    kinds = dict(zip(piece.texts[0]["tokens"], (KINDS[k] for k in piece.texts[0]["kinds"])))
    assert kinds["def"] == "keyword" and kinds["return"] == "keyword" and kinds["4"] == "number" and kinds["‹F0›"] == "comment"


def test_all_choices_of_a_model_are_counted_and_longer_texts_beside(model):
    alone = ExpertText.of(model, {"one": TEXT})
    n = len(model.tokenizer.encode(TEXT).ids)
    assert alone.layer == 3 and [[sum(map(sum, part)) for part in layer] for layer in alone.counts] == [[n, 4 * n]] * 3
    first = Counter((kind, alone.choices(i)[0][0]) for i, kind in enumerate(alone.texts[0]["kinds"]))
    assert {(kind, e): c for kind, line in enumerate(alone.counts[2][0]) for e, c in enumerate(line) if c} == dict(first)
    more = ExpertText.of(model, {"one": TEXT}, also=[20 * TEXT], source="a text twenty times")
    assert len(more.texts) == 1 and sum(map(sum, more.counts[2][0])) == n + len(model.tokenizer.encode(20 * TEXT).ids) > 256
    assert "Counted: a text twenty times." in more.fallback() and len(more.html()) < 12_000


def test_what_a_model_lacks_is_refused(model):
    with pytest.raises(ValueError, match="layer must be one of 1, 2, 3, got 0"):
        ExpertText.of(model, {"one": TEXT}, layer=0)
    with pytest.raises(ValueError, match="expert must be one of -1, 0, .*15, got 16"):
        ExpertText.of(model, {"one": TEXT}, expert=16)
    with pytest.raises(ValueError, match="model must have experts"):
        ExpertText.of(Run.open(lab.data_file("checkpoints/yardstick")).model(), {"one": TEXT})


# ---- in a browser

@pytest.fixture(scope="module")
def browser():
    with browsers.chromium() as running:
        yield running


def test_both_languages_say_the_same(browser):
    made = [random_piece(seed)[0] for seed in range(60)]
    tab = browser.new_page()
    found = tab.evaluate("""async ([text, states]) => {
        const m = await import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
        return states.map(s => [m.choices(s), m.ranks(s), m.numbers(s), m.head(s), m.cells(s), m.sentence(s)]);
    }""", [scripts.module("expert_text"), [piece.state() for piece in made]])
    tab.close()
    wanted = [[piece.choices(), piece.ranks(), piece.numbers(), piece.head(), piece.cells(), piece.sentence()] for piece in made]
    assert found == json.loads(json.dumps(wanted))
    assert {piece.expert for piece in made} == set(range(-1, E)) and any("Most above" in piece.sentence() for piece in made)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts")
    write_statics(folder)
    for theme in ("light", "dark"):
        (folder / f"{theme}.html").write_text(f"""<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8"><title>x</title>
<meta name="viewport" content="width=device-width"><style>body {{ margin: 1rem; background: var(--paper); }}</style>
<link rel="stylesheet" href="_static/tokens.css"><link rel="stylesheet" href="_static/fonts.css">
<link rel="stylesheet" href="_static/explorables/explorables.css"></head><body><main>{start().html()}</main>
<script src="_static/explorables.js"></script></body></html>""", "utf8")
    return folder


def start():
    piece, _ = random_piece(3)
    piece.text, piece.layer, piece.expert, piece.token, piece.count = 0, 2, -1, 5, "first"
    return piece


@pytest.fixture
def visit(browser, folder):
    with browsers.visits(browser, folder) as open_page:
        yield open_page


def pick(page, group, name):
    page.get_by_role("group", name=group, exact=True).get_by_label(name, exact=True).check(force=True)


def test_a_page_shows_what_python_computes_for_every_expert(visit):
    page, piece = visit(), start()
    for layer, count, expert in itertools.product(LAYERS, ("first", "any"), range(-1, E)):
        pick(page, "Layer", str(layer))
        pick(page, "Count", "first choices" if count == "first" else f"all {K} choices")
        pick(page, "Expert that stands out", "none" if expert < 0 else str(expert))
        piece.layer, piece.count, piece.expert = layer, count, expert
        rows = page.locator(".xp-table tbody tr:not(.xp-bars):not([hidden])").evaluate_all("rows => rows.map(row => [...row.cells].map(c => c.textContent))")
        assert rows == piece.cells()
        assert page.locator(".xp-table thead th").all_text_contents() == piece.head()
        assert page.locator(".xp-readout").text_content() == piece.sentence()
        marks = page.locator(".xp-et-word").evaluate_all(
            "words => words.map(w => ['xp-et-first', 'xp-et-other', 'xp-et-rest'].map(name => w.classList.contains(name)))")
        ranks = piece.ranks()
        assert marks == [[r == 0, r > 0 and count == "any", expert >= 0 and not (r == 0 or (r > 0 and count == "any"))] for r in ranks]
        numbers = page.locator(".xp-et-word > b").all_text_contents()
        assert numbers == [str(piece.choices(i)[0][0]) for i in range(len(ranks))]


def test_keys_alone_move_in_the_text_and_choose_an_expert(visit):
    page, piece = visit(width=1280), start()
    here = page.locator(".xp-et-word[tabindex='0']")
    assert here.count() == 1
    here.focus()
    for key, token in ("End", 22), ("ArrowRight", 22), ("ArrowLeft", 21), ("Home", 0), ("ArrowRight", 1):
        page.keyboard.press(key)
        piece.token = token
        first, second, third = [f"{e} {int(100 * w + 0.5)} %" for e, w in piece.choices()]
        label = page.evaluate("document.activeElement.ariaLabel")
        assert label.endswith(f", {KINDS[piece.texts[0]['kinds'][token]]}: expert {first}, {second}, {third}")
        assert page.locator(".xp-et-chosen button").all_text_contents() == [f"expert {one}" for one in (first, second, third)]
        assert page.locator(".xp-et-chosen p").text_content().startswith(f"Token {token}, “")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    piece.token, piece.expert = 0, start().choices(0)[0][0]
    assert page.locator(".xp-readout").text_content() == piece.sentence()
    page.get_by_role("status").filter(has_text=f"expert {piece.expert} is the first choice").wait_for(state="attached")
    page.keyboard.press("Enter")
    assert page.get_by_label("none", exact=True).is_checked()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")    # the second choice's button
    assert page.locator(".xp-et-chosen [aria-pressed='true']").text_content().startswith(f"expert {piece.choices()[1][0]} ")
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"


def test_another_text_keeps_the_place_and_the_expert(visit):
    page, piece = visit(), start()
    pick(page, "Expert that stands out", "2")
    pick(page, "Text", "even")
    piece.text, piece.expert = 1, 2
    assert page.locator(".xp-et-word > b").all_text_contents() == [str(piece.choices(i)[0][0]) for i in range(23)]
    assert page.locator(".xp-et-chosen button").first.text_content().startswith(f"expert {piece.choices(5)[0][0]} ")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_it_is_accessible_and_nothing_overflows(visit, theme, width):
    page = visit(theme, width)
    page.add_script_tag(path=ROOT / "tests" / "vendor" / "axe.min.js")
    for expert in ("none", "1"):
        pick(page, "Count", f"all {K} choices")
        pick(page, "Expert that stands out", expert)
        assert page.evaluate("async () => (await axe.run('.explorable', { preload: false })).violations.map(v => [v.impact, v.id, v.nodes.slice(0, 3).map(n => n.html)])") == []
        assert page.evaluate("""() => [document.documentElement.scrollWidth, [...document.querySelectorAll(".xp-panel *")].filter(
            e => !e.closest("svg") && e.getBoundingClientRect().right > e.closest(".xp-panel").getBoundingClientRect().right + 1).map(
            e => e.outerHTML.slice(0, 80))]""") == [width, []]


def test_an_expert_is_marked_by_more_than_colour(visit):
    page = visit()
    pick(page, "Count", f"all {K} choices")
    pick(page, "Expert that stands out", str(start().choices(0)[0][0]))
    first, other, rest = ((page.locator(f".xp-et-{name}").first.evaluate(
        "e => [getComputedStyle(e).borderBottomStyle, getComputedStyle(e.lastChild).fontWeight, getComputedStyle(e).borderBottomColor]"))
        for name in ("first", "other", "rest"))
    assert first[:2] == ["solid", "700"] and other[:2] == ["dashed", "400"] and rest[2] == "rgba(0, 0, 0, 0)"
