"""The pages around the chapters: versions, hardware, hashes and links that they name are those of the repository."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(ROOT.glob("book/*.md"))


def text_of(name):
    return (ROOT / name).read_text("utf8")


def test_the_colophon_names_the_versions_that_tests_run_with():
    exact = dict(line.split("==") for line in text_of("constraints.txt").splitlines() if "==" in line)
    rows = re.findall(r"^\| [^|]+ \| ([\w-]+) \| (\d[\w.]*) \|$", text_of("book/colophon.md"), re.M)
    assert len(rows) > 10
    wrong = {name: exact.get(name) for name, version in rows if exact.get(name) != version}
    assert not wrong, f"book/colophon.md must have the versions of constraints.txt: {wrong}"
    mathjax = re.search(r"`mathjax`.*?\| ([\d.]+) \|", text_of("book/_static/vendor/README.md"))[1]
    assert f"MathJax {mathjax} " in text_of("book/colophon.md")


def machines(value):
    """Names of the processors, or GPUs, that a recorded file names anywhere."""
    if isinstance(value, dict):
        if isinstance(value.get("machine"), dict):
            yield value["machine"]["gpu"] or value["machine"]["cpu"]
        if isinstance(value.get("hardware"), str):
            yield value["hardware"].split(",")[0]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from machines(item)


@pytest.mark.parametrize("path", sorted((ROOT / "data" / "runs").glob("*.json")), ids=lambda p: p.stem)
def test_the_colophon_names_the_hardware_of_recorded_runs(path):
    missing = {name for name in machines(json.loads(path.read_text("utf8"))) if name not in text_of("book/colophon.md")}
    assert not missing, f"{path.name} was recorded on {missing}: name it in book/colophon.md, and read again what book/intro.md says of hardware"


def test_the_citation_is_that_of_the_repository():
    page, cff = text_of("book/colophon.md"), text_of("CITATION.cff")
    for name in ("version", "repository-code"):
        assert re.search(rf"^{name}: (.*)$", cff, re.M)[1] in page


def test_hashes_of_what_was_measured():
    spec = importlib.util.spec_from_file_location("hashes", ROOT / "data" / "hashes.py")
    hashes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hashes)
    found = {name: hashes.hash_of(name) for name in hashes.files()}
    wrong = sorted({*found.items()} ^ {*hashes.listed().items()})
    assert not wrong, f"data/SHA256SUMS differs for {', '.join(sorted({n for n, _ in wrong}))}; if you meant to change it: python data/hashes.py"


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_a_page_links_to_headings_that_exist(path):
    for page, anchor in re.findall(r"\]\((?:\./)?(\w+\.md)?#([\w-]+)\)", path.read_text("utf8")):
        headings = re.findall(r"^#+ (.+)$", text_of(f"book/{page}") if page else path.read_text("utf8"), re.M)
        slugs = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings]
        is_claim = re.fullmatch(r"c\d\d", anchor) and (page or path.name) == "ledger.md" and 1 <= int(anchor[1:]) <= 97
        assert is_claim or anchor in slugs, f"{path.name} links to {page}#{anchor}, which does not exist"


def test_the_glossary_is_without_a_double_and_every_term_names_its_chapter():
    terms = re.split(r"^### ", text_of("book/glossary.md"), flags=re.M)[1:]
    names = [term.partition("\n")[0] for term in terms]
    assert len(set(names)) == len(names) >= 50
    for name, term in zip(names, terms):
        assert re.search(r"Chapter \d+\.", term), f"{name} must name the chapter in which it first matters"


def test_the_five_claims_of_the_introduction_carry_their_verdicts():
    yaml = pytest.importorskip("yaml")
    data = yaml.safe_load(text_of("data/claims.yml"))
    famous = {c["id"]: c["verdict"] for c in data["claims"] if "famous" in c}
    intro = " ".join(text_of("book/intro.md").split())
    told = {number: verdict.lower() for verdict, number in re.findall(r"\*\*([\w ]+)\*\* \(claim (C\d\d)\)", intro)}
    assert told == famous
    counts = [sum(c["verdict"] == v for c in data["claims"]) for v in data["verdicts"]]
    numbers = re.search(r"gave us (\d+) claims\. Of these, (\d+) are .*?, (\d+) .*?, (\d+) mislead, (\d+) .*?, and (\d+) ", intro)
    assert [int(n) for n in numbers.groups()] == [len(data["claims"]), *counts]


def test_the_front_page_counts_the_verdicts_as_the_ledger_does():
    yaml = pytest.importorskip("yaml")
    data = yaml.safe_load(text_of("data/claims.yml"))
    page = " ".join(text_of("book/index.md").split())
    numbers = re.search(r"All (\d+) stand in \[the ledger\]\(ledger\.md\): (\d+) are supported, (\d+) with a caveat, (\d+) misleading, (\d+) wrong, and (\d+) ", page)
    assert [int(n) for n in numbers.groups()] == [len(data["claims"]), *(sum(c["verdict"] == v for c in data["claims"]) for v in data["verdicts"])]


def test_the_ledger_s_page_does_not_promise_what_its_rows_do_not_show():
    from minimodels import ledger

    page, book = text_of("book/ledger.md"), ledger.read()
    assert int(re.search(r"took them apart into (\d+) claims", page)[1]) == len(book.claims)
    assert {f"#{c.id.lower()}" for c in book.claims} >= set(re.findall(r"\((#c\d\d)\)", page))
    from_hours, from_pace = (ledger.result(f.arithmetic) for f in book["C03"].figures if f.arithmetic and " days" in f.says)
    assert abs(from_hours / from_pace - 1) < 0.01    # 2,664 thousand hours on 2,048 GPUs; 14.8 trillion tokens at the pace of a measured step
    for id, verdict in {"C14": "wrong", "C10": "misleading", "C12": "misleading", "C53": "supported"}.items():
        assert book[id].verdict == verdict


def test_a_verdict_on_reports_alone_is_never_better_than_with_a_caveat():
    from minimodels import ledger

    dates = {"C33"}    # a date may rest on a report
    for claim in ledger.read().select(verdict="supported"):
        assert claim.id in dates or any(figure.kind == "primary" for figure in claim.figures) or all(f.kind == "arithmetic" for f in claim.figures), claim.id


def test_workflows_wrap_the_makefile():
    yaml = pytest.importorskip("yaml")
    targets = set(re.search(r"^\.PHONY: (.*)$", text_of("Makefile"), re.M)[1].split())
    for name in ("test", "pages"):
        jobs = yaml.safe_load(text_of(f".github/workflows/{name}.yml"))["jobs"]
        commands = [step["run"] for job in jobs.values() for step in job["steps"] if step.get("run", "").startswith("make")]
        assert len(commands) == 1 and commands[0].split()[1] in targets, f"{name}.yml must call one target of the Makefile, got {commands}"
