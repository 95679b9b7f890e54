"""data/claims.yml: every claim has its form, every figure its source, and every sum comes out as printed. The bibliography, too."""

import copy
import math
import re
from datetime import date
from pathlib import Path

import pytest
import yaml

from minimodels import ledger

ROOT = Path(__file__).parents[1]
VERDICTS = ["supported", "with a caveat", "misleading", "wrong", "cannot be verified"]
CHAPTERS = ("cost data attention model train mla moe balance mtp fp8 kernels parallel together serve grpo distill beyond verdict").split()
FUNCTIONS = {"log2": math.log2, "log10": math.log10, "sqrt": math.sqrt, "round": round,
             "days": lambda a, b: (date.fromisoformat(b) - date.fromisoformat(a)).days}


def mistakes(data: dict, sources: dict[str, str]) -> list[str]:
    """Everything that is wrong with the claims, one sentence each: their form, and what only this book's claims must be.

    sources: the kind, primary or secondary, of each key of the bibliography.
    """
    found = ledger.mistakes(data)
    for name, wanted in (("verdicts", VERDICTS), ("chapters", CHAPTERS)):
        if data[name] != wanted:
            found.append(f"{name} must be {wanted}, got {data[name]}")
    ids, wanted = [c.get("id") for c in data["claims"]], [f"C{n:02d}" for n in range(1, 98)]
    if ids != wanted:
        found.append(f"ids must run from C01 to C97: missing {sorted(set(wanted) - set(ids))}, unknown or out of order "
                     f"{[i for i, w in zip(ids, wanted) if i != w][:3]}")
    famous = sorted(c["famous"] for c in data["claims"] if "famous" in c)
    if famous != [1, 2, 3, 4, 5]:
        found.append(f"famous must be 1 to 5, each once, got {famous}")
    for table in ("documents", "subjects"):
        used = {word for c in data["claims"] for word in (c.get("documents", []) if table == "documents" else [c.get("subject")])}
        if set(data[table]) - used:
            found.append(f"{table} without a claim: {sorted(set(data[table]) - used)}")
    for claim in data["claims"]:
        found += [f"{claim.get('id')}: {m}" for m in mistakes_of_claim(claim, sources)]
    return found


def mistakes_of_claim(claim, sources):
    if re.search(r"\[(M|P|P2|S|D)\]|\b\d{3}_[0-9a-f]{8,}", str(claim)):
        yield "a tag or a file name of the working notes is left"
    if not claim["figures"] and not re.search(r"[Nn]o (primary )?source|No (source|trace)|none was found|opinion", claim["reason"]):
        yield "without figures the reason must say that no source was found"
    for figure in claim["figures"]:
        kind = figure["kind"]
        if "source" in figure and figure["source"] not in sources:
            yield f"source {figure['source']!r} is not in book/references.bib"
        elif "source" in figure and kind != "arithmetic" and sources[figure["source"]] != kind:
            yield f"{figure['source']} is {sources[figure['source']]} in book/references.bib, and {kind} here"
        if kind == "arithmetic":    # Python does the sum here, and minimodels.ledger does it by itself
            result = eval(figure["arithmetic"], {"__builtins__": {}, **FUNCTIONS})
            if abs(result - figure["value"]) > 0.5 * 10**-len(str(figure["value"]).partition(".")[2]) + 1e-9:
                yield f"{figure['arithmetic']} is {result:.6g}, not {figure['value']}"


# ---- the bibliography

def slug(heading):
    """The address that the site gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def bibliography():
    """Fields of each entry of references.bib by its key; one field a line."""
    entries = {}
    for block in re.findall(r"^@\w+\{(.*?)^\}", (ROOT / "book" / "references.bib").read_text("utf8"), re.M | re.S):
        key, *lines = block.strip().splitlines()
        assert key.rstrip(",") not in entries, f"{key} stands twice in references.bib"
        entries[key.rstrip(",")] = {name: re.sub(r"[{}]|\\(?=[&$])", "", value)
                                    for name, value in (re.fullmatch(r"\s+(\w+) = \{(.*)\},", line).groups() for line in lines)}
    return entries


def sections():
    """Text of each entry of references.md by its address, and whether it stands under "Primary sources"."""
    found = {}
    for part in re.split(r"^## ", (ROOT / "book" / "references.md").read_text("utf8"), flags=re.M)[1:]:
        for entry in re.split(r"^### ", part, flags=re.M)[1:]:
            heading, _, text = entry.partition("\n")
            found[slug(heading)] = text, "primary" if part.startswith("Primary") else "secondary"
    return found


@pytest.fixture(scope="module")
def claims():
    return yaml.safe_load((ROOT / "data" / "claims.yml").read_text("utf8"))


@pytest.fixture(scope="module")
def sources():
    return {key: fields["keywords"] for key, fields in bibliography().items()}


def test_the_claims_are_in_order(claims, sources):
    found = mistakes(claims, sources)
    assert not found, "data/claims.yml:\n" + "\n".join(found)


def test_the_verdicts_are_as_many_as_the_book_says(claims):
    counts = {verdict: sum(c["verdict"] == verdict for c in claims["claims"]) for verdict in VERDICTS}
    assert counts == {"supported": 9, "with a caveat": 32, "misleading": 22, "wrong": 14, "cannot be verified": 20}


@pytest.mark.parametrize("plant, answer", [
    (lambda d: d["claims"].pop(5), "missing ['C06']"),
    (lambda d: d["claims"][1].update(verdict="plausible"), "C02: verdict must be one of"),
    (lambda d: d["claims"][1].update(chapter="latent"), "C02: chapter must be one of"),
    (lambda d: d["claims"][1].update(subject="gossip"), "C02: subject must be one of cost, hardware"),
    (lambda d: d["claims"][1].pop("subject"), "C02: missing ['subject']"),
    (lambda d: d["subjects"].update(gossip="Gossip"), "subjects without a claim: ['gossip']"),
    (lambda d: d["documents"]["cascade"].pop("name"), "documents: cascade must have about, date, kind, name"),
    (lambda d: d["verdicts"].reverse(), "verdicts must be ['supported'"),
    (lambda d: d["claims"][1].update(id="C01"), "C01: the id stands twice"),
    (lambda d: d["claims"][1].update(documents=["newspaper"]), "C02: documents must be keys"),
    (lambda d: d["claims"][1].update(colour="red"), "C02: missing [], unknown ['colour']"),
    (lambda d: d["claims"][1].pop("right"), "C02: only what cannot be verified"),
    (lambda d: d["claims"][1].update(reason="It matches [M]."), "C02: a tag"),
    (lambda d: d["claims"][1].update(claim="no sentence"), "C02: claim must be a sentence"),
    (lambda d: d["claims"][1].update(famous=1), "famous must be 1 to 5"),
    (lambda d: d["claims"][0]["figures"][0].update(source="a-friend"), "C01: source 'a-friend' is not in the table"),
    (lambda d: d["claims"][0]["figures"][0].update(kind="secondary"), "C01: deepseek-v3 is primary"),
    (lambda d: d["claims"][0]["figures"][0].pop("place"), "C01: place is missing"),
    (lambda d: d["claims"][0]["figures"][1].update(arithmetic="(2664 + 119 + 5) * 3 / 1000"), "C01: (2664 + 119 + 5) * 3 / 1000 is 8.364"),
    (lambda d: d["claims"][0]["figures"][1].update(says="That makes 5.6 million."), "C01: the value 5.576 does not stand in"),
    (lambda d: d["claims"][23].update(reason="It is odd."), "C24: without figures"),
], ids=lambda x: x if isinstance(x, str) else "")
def test_a_planted_mistake_is_found(claims, sources, plant, answer):
    data = copy.deepcopy(claims)
    plant(data)
    assert any(m.startswith(answer) or answer in m for m in mistakes(data, sources)), mistakes(data, sources)


def test_the_names_of_sources_are_their_headings_and_each_is_cited(claims):
    headings = re.findall(r"^### (.+)$", (ROOT / "book" / "references.md").read_text("utf8"), re.M)
    assert all(name in headings and slug(name) == key for key, name in claims["sources"].items())
    assert set(claims["sources"]) == {figure["source"] for claim in claims["claims"] for figure in claim["figures"] if "source" in figure}


def test_bibliography_and_page_list_the_same_sources(sources):
    pages = {key: kind for key, (_, kind) in sections().items() if key != "where-primary-sources-differ"}
    assert pages == sources, "headings of book/references.md and keys of references.bib differ"


@pytest.mark.parametrize("key", bibliography())
def test_an_entry_and_its_heading_agree(key):
    fields, text = bibliography()[key], sections()[key][0].replace("\\$", "$")
    for name in ("title", "year", "url"):
        assert fields[name] in text, f"{key}: {name} {fields[name]!r} of references.bib is not on the page"
    if "eprint" in fields:
        assert f"[arXiv:{fields['eprint']}]" in text


def test_pages_link_to_references_that_exist():
    for path in [*ROOT.glob("book/*.md"), *ROOT.glob("chapters/*.py")]:
        for anchor in re.findall(r"references\.md#([\w-]+)", path.read_text("utf8")):
            assert anchor in sections(), f"{path.name} links to references.md#{anchor}, which does not exist"
