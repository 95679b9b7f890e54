"""Which rung for what: bills told by hand, both languages say the same, and a page that answers to keys alone."""

import json
import random
import re
from pathlib import Path

import browser as browsers
import pytest

from book_files import write_statics
from minimodels.explorables import WhichRung, scripts, which_rung
from minimodels.ladder import rungs
from minimodels.studies.together import Measured

ROOT = Path(__file__).parents[1]
NAMES = ["dense", "+ MLA", "+ experts", "+ MTP", "+ FP8"]
SPEEDS = {"dense": 8000, "+ MLA": 7400, "+ experts": 4400, "+ MTP": 3000, "+ FP8": 2000}    # made up, like all that follows


def made_up():
    """A ladder that might be recorded one day: three seeds, an FP8 rung that drafts, and an MTP rung that does not."""
    table = []
    for i, rung in enumerate(rungs("cpu")):
        drafts = {1: [300.0, 310.0, 320.0], 32: [900.0, 910.0, 920.0]} if rung.training.fp8 else {1: [500.0] * 3, 32: [1000.0] * 3} if rung.model.mtp_depth else {}
        table.append(Measured(name=rung.name, bits_per_byte=[1.64123 - 0.01 * i, 1.65 - 0.01 * i, 1.63 - 0.01 * i], n_params=rung.model.n_params,
                              n_active=rung.model.n_active_params, flops=9e6, cache_bytes=2 * rung.model.cached_values_per_token,
                              training_bytes=[10**8] * 3, train_tokens_per_s=[SPEEDS[rung.name] + 10.0 * k for k in range(3)],
                              decode_tokens_per_s={1: [1300.0 / (i + 1)] * 3, 32: [6000.0 / (i + 1)] * 3} if not rung.training.fp8
                              else {1: [100.0] * 3, 32: [800.0] * 3}, drafting_tokens_per_s=drafts, acceptance=[0.5] if drafts else []))
    return table


def random_pieces(n=120):
    """Any prices and volumes, also none, on ladders of any figures; the script has to agree on every one."""
    dice, pieces = random.Random(0), []

    def price(top):
        return dice.choice([0.0, 1.0, 10 ** dice.uniform(-3, top)])

    for _ in range(n):
        seeds = dice.randint(1, 4)
        some = [{"name": f"rung {i}", "bits": [dice.uniform(1.5, 1.7) for _ in range(seeds)], "train_s": [dice.uniform(100, 900) for _ in range(seeds + 1)],
                 "write_ms": {B: [dice.uniform(0.1, 9) for _ in range(seeds)] for B in ("1", "32")}, "params": {B: dice.randint(10**6, 5 * 10**6) for B in ("1", "32")},
                 "cache_bytes": dice.choice([576, 2048]), "note": dice.choice([{}, {"1": "a <note>", "32": "another"}])} for i in range(dice.randint(2, 5))]
        pieces.append(WhichRung(rungs=some, tokens=dice.choice([0.0, 10 ** dice.uniform(2, 12)]), texts=dice.choice([1, 32]), context=2 ** dice.randint(7, 20),
                                train_price=price(4), write_price=price(4), memory_price=price(4), bit_price=price(2)))
    return pieces


# ---- bills

def test_a_bill_told_by_hand():
    """A million tokens at 3.6 ms are an hour; 2 x 500,000 + 2,000 x 2,000 bytes are 0.005 GB."""
    piece = WhichRung(tokens=1e6, texts=1, context=2000, train_price=10.0, write_price=20.0, memory_price=1000.0, bit_price=2.0)
    fast, small, good = piece.parts()
    assert fast == pytest.approx([10, 20, 5, 30])               # 0.15 bits worse than the best mean, 1.85
    assert small == pytest.approx([10, 40, 4, 50])              # two hours, 0.002 GB
    assert good == pytest.approx([20, 40, 18, 0])               # two hours, 0.009 GB
    assert piece.bills() == pytest.approx([65, 104, 78]) and piece.seeds_won() == (2, 2)
    # paid once: 40, 60, 20; for each million tokens: 25, 44, 58. 20 + 58 n = 40 + 25 n at n = 20/33
    assert piece.turns() == [(pytest.approx(1e6 * 20 / 33), "good"), None]
    assert piece.said().replace("\u00a0", " ") == (
        "The cheapest is fast, 65 ¢, in each of 2 runs. Next comes good, 78 ¢: 10 ¢ more for training, 20 ¢ more for writing, 13 ¢ more for memory, "
        "30 ¢ less for its score. Below 606 thousand tokens to write, good would be cheapest.")
    assert piece.beside() == ["cheapest", "+60 %", "+20 %"]


def test_the_answer_turns_where_the_bills_are_equal():
    for piece in random_pieces(60):
        if max(piece.bills()) - min(piece.bills()) < 1e-9:
            continue    # all one
        below, above = piece.turns()
        first = piece.rungs[which_rung.cheapest(piece.bills())]["name"]
        for at, side in ((below, -1), (above, 1)):
            if at is None:
                continue
            n, other = at
            assert (n - piece.tokens) * side >= 0
            near = type(piece)(rungs=piece.rungs, **{key: getattr(piece, key) for key in which_rung.KNOBS} | {"tokens": n})
            bill = dict(zip((rung["name"] for rung in near.rungs), near.bills()))
            assert bill[first] == pytest.approx(bill[other], rel=1e-6, abs=1e-9) == pytest.approx(min(bill.values()), rel=1e-6, abs=1e-9)
        if above is None:
            far = type(piece)(rungs=piece.rungs, **{key: getattr(piece, key) for key in which_rung.KNOBS} | {"tokens": max(piece.tokens, 1) * 1e6})
            assert which_rung.cheapest(far.bills()) == which_rung.cheapest(piece.bills())


def test_what_another_rung_beats_in_everything_wins_at_no_price():
    beaten = 0
    for piece in random_pieces():
        worse = [i for i, by in enumerate(piece.beaten_by()) if by]
        beaten += len(worse)
        assert not worse or which_rung.cheapest(piece.bills()) not in worse or len(set(piece.bills())) < len(piece.bills())
    assert beaten
    assert WhichRung(texts=1).beaten_by() == ["", "", ""] and WhichRung(texts=32).beaten_by() == ["", "", ""]
    same = [WhichRung().rungs[0], WhichRung().rungs[0] | {"name": "twin"}, WhichRung().rungs[0] | {"name": "slow", "train_s": [4000, 4000]}]
    assert WhichRung(rungs=same).beaten_by() == ["", "", "fast"]


def test_seeds_that_disagree_are_said():
    """good is 0.05 bits better with seed 1 and 0.01 worse with seed 2: in the mean it wins."""
    fast, _, good = WhichRung().rungs
    some = [fast | {"bits": [1.8, 1.8]}, good | {"bits": [1.75, 1.81], "train_s": [3600, 3600]}]
    piece = WhichRung(rungs=some, tokens=0.0, train_price=5.0, bit_price=1.0)
    assert piece.seeds_won() == (1, 2) and "The cheapest is good, 5\u00a0¢, but in 1 of 2 runs only." in piece.said()


def test_where_nothing_costs_anything_all_is_one():
    assert WhichRung(train_price=0.0, write_price=0.0, memory_price=0.0, bit_price=0.0).said() == "At these prices it is all one: every rung costs the same."


# ---- from the record

def test_a_ladder_becomes_bills():
    table = made_up()
    piece = WhichRung.of(table, tokens=3.6e6, texts=1, context=1000, train_price=3600.0, write_price=100.0, memory_price=0.0, bit_price=1.0)
    assert [rung["name"] for rung in piece.rungs] == NAMES
    dense, mla, _, mtp, fp8 = piece.rungs
    assert dense["train_s"] == [153.6, 153.4, 153.2] and dense["bits"][0] == 1.6412     # 600 x 8 x 256 tokens at 8,000 a second
    assert dense["cache_bytes"] == 2048 and mla["cache_bytes"] == 576
    assert dense["write_ms"]["1"] == [0.7692] * 3 and mtp["write_ms"]["1"] == [2.0] * 3    # 500 a second with drafts, 325 without
    module = rungs("cpu")[3].model.parameters["mtp"]
    assert mtp["params"] == {"1": table[3].n_params + module, "32": table[3].n_params}     # of 32 texts, 1,500 a second without drafts
    assert mtp["note"] == {"1": "writes with drafts"}
    assert set(fp8["note"]) == {"1", "32"} and all("emulated" in words and "drafts" in words for words in fp8["note"].values())
    training, writing, memory, score = piece.parts()[0]
    assert (training, writing, memory, score) == pytest.approx((153.4, 76.92, 0, 4.0), abs=1e-2)
    assert "1.23 million tokens" in piece.about and "3 seeds" in piece.about


def test_a_fixed_bill_prices_bits_as_more_steps_do():
    from minimodels.studies import recorded

    piece = WhichRung.of(made_up())
    short = [t["bits_per_byte"] for t in recorded("mla-quality")["trials"] if t["arm"] == "mha"]
    longer = [t["bits_per_byte"] for t in recorded("moe-seconds")["trials"]]
    gained = 100 * (sum(short) / len(short) - sum(longer) / len(longer))                   # hundredths of a bit
    more_steps = 400 * 153.4 / 600 / 3600 * 5                                              # cents
    assert piece.presets["A fixed training bill"]["bit_price"] == pytest.approx(more_steps / gained, rel=0.01)
    assert piece.purpose == "A phone, one text"


def test_the_fallback_says_the_bills_and_the_purposes():
    piece = WhichRung.of(made_up())
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", piece.fallback())]
    assert [row[0] for row in rows] == ["Purpose", *which_rung.PURPOSES, "Rung", *NAMES]
    assert rows[1][1:3] == [piece.rungs[which_rung.cheapest(piece.bills())]["name"], which_rung.money(min(piece.bills()))]
    assert rows[7][-1] == which_rung.money(piece.bills()[0])
    assert len(piece.html()) < 6000


@pytest.mark.parametrize("cents, words", [(0, "0 ¢"), (0.0115, "0.0115 ¢"), (31.23, "31.2 ¢"), (999, "999 ¢"), (1000, "$10"), (123_456, "$1,235"), (-2, "−2 ¢"),
                                          (-1e-9, "0 ¢")])
def test_money(cents, words):
    assert which_rung.money(cents).replace("\u00a0", " ") == words


# ---- in a browser

@pytest.fixture(scope="module")
def browser():
    with browsers.chromium() as running:
        yield running


def test_both_languages_tell_the_same_bills_and_say_the_same(browser):
    pieces = random_pieces() + [WhichRung.of(made_up(), **{key: p[key] for key in which_rung.KNOBS}) for p in which_rung.PURPOSES.values()] + [WhichRung()]
    states = json.dumps([piece.state() for piece in pieces])
    page = browser.new_page()
    found = page.evaluate("""async ([text, states]) => {
        const m = await import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
        return states.map(s => [m.parts(s), m.seedsWon(s), m.turns(s), m.beatenBy(s), m.said(s), m.beside(s), m.notes(s)]);
    }""", [scripts.module("which_rung"), json.loads(states)])
    page.close()
    for piece, (parts, won, turns, beaten, said, beside, notes) in zip(pieces, found, strict=True):
        assert parts == piece.parts() and tuple(won) == piece.seeds_won()
        assert [turn and tuple(turn) for turn in turns] == piece.turns()
        assert (beaten, said, beside, notes) == (piece.beaten_by(), piece.said(), piece.beside(), piece.notes())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("which-rung")
    write_statics(folder)
    links = "".join(f'<link rel="stylesheet" href="_static/{name}.css">' for name in ("tokens", "fonts", "explorables/explorables"))
    for theme in ("light", "dark"):
        (folder / f"{theme}.html").write_text(
            f'<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f'<title>Rungs</title>{links}<script defer src="_static/explorables.js"></script><style>body {{ margin: 0; color: var(--ink); background: var(--paper); }} '
            f'main {{ max-width: 39rem; margin: 1rem auto; padding: 0 1.25rem; }}</style></head><body><main><h1>Rungs</h1>{WhichRung.of(made_up()).html()}</main></body></html>', "utf8")
    return folder


@pytest.fixture
def visit(browser, folder):
    with browsers.visits(browser, folder) as open_page:
        yield open_page


def seen(page):
    """The sentence, and of each rung its bill, its place and its note."""
    return page.evaluate("""() => [document.querySelector(".xp-readout").textContent,
        [...document.querySelectorAll(".wr-row")].map(row => [...row.querySelectorAll("td")].map(e => e.textContent)),
        [...document.querySelectorAll(".xp-bars .xp-note")].map(e => e.textContent)]""")


def expected(piece):
    return [piece.said(), [list(row) for row in zip(map(which_rung.money, piece.bills()), piece.beside())], piece.notes()]


@pytest.mark.parametrize("width", [390, 1280])
def test_every_purpose_is_answered_by_keys_alone(visit, width):
    page, piece = visit(width=width), WhichRung.of(made_up())
    page.get_by_label("A phone, one text", exact=True).focus()
    for name in which_rung.PURPOSES:
        assert page.get_by_label(name, exact=True).is_checked()
        for key in which_rung.KNOBS:
            setattr(piece, key, piece.presets[name][key])
        assert seen(page) == expected(piece) and page.locator(".wr-says").text_content() == piece.presets[name]["says"]
        first = page.locator(".wr-first th")
        assert first.count() == 1 and first.text_content() == NAMES[which_rung.cheapest(piece.bills())]
        page.keyboard.press("ArrowRight")


def test_a_slider_moves_the_answer_and_says_its_value_in_words(visit):
    page, piece = visit(), WhichRung.of(made_up())
    bits = page.get_by_label("0.01 bits per byte less")
    bits.focus()
    page.keyboard.press("End")
    piece.bit_price = 100.0
    assert seen(page) == expected(piece) and bits.get_attribute("aria-valuetext") == "100\u00a0¢"
    assert page.locator(".wr-says").text_content() == "Your own purpose, at your own prices."
    page.get_by_role("status").filter(has_text=piece.said().split(",")[0]).wait_for(state="attached")
    page.get_by_label("32", exact=True).check()
    piece.texts = 32
    assert seen(page) == expected(piece)
    page.get_by_label("Tokens to write").press("Home")
    piece.tokens = 0.0
    assert seen(page) == expected(piece) and page.get_by_label("Tokens to write").get_attribute("aria-valuetext") == "none"


def test_bars_are_as_long_as_the_bills_and_what_is_cut_says_so(visit):
    page, piece = visit(width=1280), WhichRung.of(made_up())
    drawn = page.evaluate("""() => [...document.querySelectorAll(".wr-bar")].map(bar => [[...bar.querySelectorAll("line")].map(e =>
        parseFloat(e.getAttribute("x2")) - parseFloat(e.getAttribute("x1"))), !bar.querySelector(".wr-end").hidden])""")
    bills, most = piece.bills(), min(max(piece.bills()), 4 * min(piece.bills()))
    for (pieces, cut), parts, bill in zip(drawn, piece.parts(), bills, strict=True):
        assert sum(pieces) == pytest.approx(min(100 * bill / most, 100), abs=1e-6) and cut == (bill > most)
        if not cut:
            assert pieces == pytest.approx([100 * part / most for part in parts], abs=1e-6)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_nothing_overflows_and_axe_has_no_complaint(visit, theme, width):
    page = visit(theme, width)
    page.add_script_tag(path=ROOT / "tests" / "vendor" / "axe.min.js")
    for name in ("A server, 32 texts", "A long context"):
        page.get_by_label(name, exact=True).check()
        assert page.evaluate("""() => [document.documentElement.scrollWidth, [...document.querySelectorAll(".xp-panel *")]
            .filter(e => !e.closest("svg") && e.getBoundingClientRect().right > e.closest(".xp-panel").getBoundingClientRect().right + 1)
            .map(e => e.outerHTML.slice(0, 80))]""") == [width, []]
        found = page.evaluate("async () => (await axe.run(document, { preload: false })).violations.map(v => [v.id, v.nodes.slice(0, 3).map(n => n.html.slice(0, 120))])")
        assert found == []


def test_paper_shows_the_answer_and_no_controls(visit):
    page = visit()
    page.emulate_media(media="print")
    assert page.locator("input:visible").count() == 0 and page.locator(".xp-readout:visible").count() == 1
    assert page.locator(".xp-table:visible").count() == 1
