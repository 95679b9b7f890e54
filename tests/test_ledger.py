"""The ledger: records are what the file says, a wrong file is refused by name, sums are done right, and what a notebook shows is the ledger's."""

import re
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
import yaml

from minimodels import ledger

ROOT = Path(__file__).parents[1]
FILE = ROOT / "data" / "claims.yml"
RAW = yaml.safe_load(FILE.read_text("utf8"))
SMALL = """\
documents:
  one: {name: The one, kind: article, date: undated, about: A thing.}
  two: {name: The $2, kind: essay, date: 2025, about: Another.}
subjects: {thing: Things, price: Prices}
sources: {a-paper: A_paper}
verdicts: [supported, with a caveat, misleading, wrong, cannot be verified]
chapters: [cost, data]
claims:
- id: C01
  documents: [one, two]
  subject: price
  claim: It costs $4 * 2.
  figures:
  - {says: Four., kind: primary, source: a-paper, place: Table 1}
  - {says: Four again., kind: primary, source: a-paper, place: Table 1}
  - {says: "Twice 4.06 is 8.1.", kind: arithmetic, arithmetic: "2 * 4.06", value: 8.1}
  verdict: wrong
  reason: It is more.
  right: It costs $8.12.
  chapter: data
- {id: C02, documents: [two], subject: thing, claim: Nobody knows., figures: [], verdict: cannot be verified, reason: No source was found., chapter: cost}
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "claims.yml"
    path.write_text(SMALL, "utf8")
    return path


# ---- reading

def test_the_records_are_what_the_file_says():
    book = ledger.read()
    assert len(book.claims) == len(RAW["claims"]) == 97
    for claim, raw in zip(book.claims, RAW["claims"]):
        plain = {name: value for name, value in vars(claim).items() if value is not None}
        figures = [{name: value for name, value in vars(f).items() if value is not None} for f in plain.pop("figures")]
        assert plain | {"figures": figures, "documents": list(claim.documents)} == raw


def test_a_claim_is_found_by_its_number_and_is_frozen(small):
    book = ledger.read(small)
    assert book["C02"].reason == "No source was found." and book["C02"].right is None
    assert [book.chapter_number(claim.chapter) for claim in book.claims] == [2, 1]
    with pytest.raises(ValueError, match="id must be a claim from C01 to C02, got 'C03'"):
        book["C03"]
    with pytest.raises(FrozenInstanceError):
        book["C01"].verdict = "supported"


@pytest.mark.parametrize("wanted, found", [
    ({}, ["C01", "C02"]), ({"verdict": "wrong"}, ["C01"]), ({"document": "two"}, ["C01", "C02"]), ({"document": "one"}, ["C01"]),
    ({"subject": "thing"}, ["C02"]), ({"chapter": "cost"}, ["C02"]), ({"chapter": "cost", "verdict": "wrong"}, []),
])
def test_claims_are_selected_by_everything_given(small, wanted, found):
    assert [claim.id for claim in ledger.read(small).select(**wanted)] == found


@pytest.mark.parametrize("wanted, message", [
    ({"verdict": "true"}, "verdict must be one of supported, with a caveat, .*, got 'true'"),
    ({"subject": "gossip"}, "subject must be one of thing, price, got 'gossip'"),
    ({"document": "three"}, "document must be one of one, two, got 'three'"),
    ({"chapter": "mla"}, "chapter must be one of cost, data, got 'mla'"),
])
def test_a_word_that_no_table_has_is_refused(small, wanted, message):
    with pytest.raises(ValueError, match=message):
        ledger.read(small).select(**wanted)


def test_claims_are_counted_by_verdict(small):
    assert ledger.count(ledger.read(small).claims) == {"supported": 0, "with a caveat": 0, "misleading": 0, "wrong": 1, "cannot be verified": 1}


@pytest.mark.parametrize("old, new, message", [
    ("verdict: wrong", "verdict: false", "C01: verdict must be one of supported, .*, got False"),
    ("subject: price", "subject: cost", "C01: subject must be one of thing, price, got 'cost'"),
    ("value: 8.1}", "value: 8.2}", r"C01: 2 \* 4\.06 is 8\.12, not 8\.2"),
    ('"2 * 4.06"', '"two * 4.06"', r"C01: arithmetic must be numbers, .*, got 'two \* 4\.06'"),
    ('"2 * 4.06", value: 8.1', '"2 * 4.06"', "C01: fields must be says, kind, source, place, and with kind arithmetic"),
    ("source: a-paper, place: Table 1}", "source: b-paper, place: Table 1}", "C01: source 'b-paper' is not in the table of sources"),
    ("id: C02", "id: C01", "C01: the id stands twice"),
    ("kind: essay, ", "", "documents: two must have about, date, kind, name, got"),
    ("price: Prices", "price: 3", "subjects: price must have a text, got 3"),
])
def test_a_file_with_a_mistake_is_refused_by_name(small, old, new, message):
    assert SMALL.count(old) >= 1
    small.write_text(SMALL.replace(old, new, 1), "utf8")
    with pytest.raises(ValueError, match="claims.yml must be mended before it can be shown:\n" + message):
        ledger.read(small)


def test_a_file_that_changed_is_read_again(small):
    before = ledger.read(small)
    assert ledger.read(small) is before
    small.write_text(SMALL.replace("It is more.", "It is much more."), "utf8")
    import os
    os.utime(small, (0, 0))
    assert ledger.read(small)["C01"].reason == "It is much more."


def test_the_ledger_is_read_without_torch():
    code = "import sys; from minimodels import ledger; assert len(ledger.read().claims) == 97; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# ---- sums

@pytest.mark.parametrize("arithmetic, value", [
    ("2 + 3 * 4 - 6 / 3", 12), ("2 ** 3 ** 2", 512), ("-(1 - 3)", 2), ("round(1234, -2)", 1200), ("log2(8) + log10(100) + sqrt(49)", 12),
    ("days('2024-12-26', '2025-01-21')", 26), ("100 * (1 - 172.8 / 300.6)", 42.51497005988024),
])
def test_a_sum_is_done(arithmetic, value):
    assert ledger.result(arithmetic) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("arithmetic", ["__import__('os')", "x + 1", "(1).real", "[1, 2]", "1 if 1 else 2", "round(1, ndigits=2)", "1 +", "1 // 2", "lambda: 1"])
def test_what_is_no_sum_is_refused(arithmetic):
    with pytest.raises(ValueError, match="arithmetic must be"):
        ledger.result(arithmetic)


def test_a_value_without_rounding_is_told_from_one_with(small):
    assert not ledger.read(small)["C01"].figures[2].is_exact                     # 8.12 is printed as 8.1
    assert ledger.Figure(says="It is 3.", kind="arithmetic", arithmetic="0.1 * 30", value=3).is_exact


# ---- in a notebook

@pytest.fixture
def shown(small, monkeypatch):
    """What show displays of the small ledger, as Markdown and as text."""
    import IPython.display

    bundles, book = [], ledger.read(small)
    monkeypatch.setattr(IPython.display, "display", lambda bundle, raw: bundles.append(bundle))
    monkeypatch.setattr(ledger, "read", lambda: book)

    def show(*ids, **options):
        ledger.show(*ids, **options)
        return bundles[-1]["text/markdown"], bundles[-1]["text/plain"]

    return show


def test_what_was_told_comes_without_a_verdict(shown):
    markdown, text = shown("C01", "C02", form="told")
    assert markdown == "- **C01.** *It costs \\$4 \\* 2.* (The one, The \\$2)\n\n- **C02.** *Nobody knows.* (The \\$2)"
    assert text == "C01: It costs $4 * 2.\nC02: Nobody knows."


def test_a_row_and_a_box_hold_verdict_reason_right_sentence_and_each_source_once(shown):
    source = "[A\\_paper, Table 1](../book/references.md#a-paper); arithmetic."
    rows, text = shown("C01", "C02", form="rows")
    assert rows == (f"- **C01 · wrong.** *It costs \\$4 \\* 2.*\n\n  It is more.\n\n  *Right:* It costs \\$8.12.\n\n  Source: {source}\n\n"
                    "- **C02 · cannot be verified.** *Nobody knows.*\n\n  No source was found.\n\n  Source: none was found.")
    assert text == "C01 (wrong): It costs $4 * 2.\nC02 (cannot be verified): Nobody knows."
    boxes, _ = shown("C01", "C02")
    assert boxes == (f"> **Claim C01 · wrong.** *It costs \\$4 \\* 2.*\n>\n> It is more.\n>\n> *It would have been right to say:* It costs \\$8.12.\n>\n"
                     f"> Source: {source}\n\n> **Claim C02 · cannot be verified.** *Nobody knows.*\n>\n> No source was found.\n>\n> Source: none was found.")


@pytest.mark.parametrize("ids, form, message", [
    ((), "rows", "show needs at least one id"), (("C01",), "table", "form must be one of told, rows, boxes"), (("C99",), "rows", "got 'C99'"),
])
def test_a_wrong_call_is_refused(shown, ids, form, message):
    with pytest.raises(ValueError, match=message):
        shown(*ids, form=form)


def test_what_a_notebook_shows_of_a_claim_is_what_the_ledger_says_today():
    for path in sorted((ROOT / "chapters").glob("*.ipynb")):
        import json

        for cell in json.loads(path.read_text("utf8"))["cells"]:
            call = re.search(r"^ledger\.show\((.*?)\)$", "".join(cell["source"]).replace("\n", ""), re.M)
            if cell["cell_type"] != "code" or not call:
                continue
            ids, form = re.findall(r'"(C\d\d)"', call[1]), (re.search(r'form="(\w+)"', call[1]) or [0, "boxes"])[1]
            write = {"told": ledger._told, "rows": ledger._row, "boxes": ledger._box}[form]
            fresh = "\n\n".join(write(ledger.read()[id], ledger.read()) for id in ids)
            stored = "".join("".join(out["data"].get("text/markdown", "")) for out in cell["outputs"] if "data" in out)
            assert stored == fresh, f"{path.name} shows claims as they were: execute it again"
