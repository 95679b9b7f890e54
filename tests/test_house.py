"""The extension that dresses plain Markdown: each piece gets its dress, and what it does not know stops the build, with file, cell and line."""

import io
import json
import re
import sys
from pathlib import Path

import browser as browsers
import pytest

sphinx_app = pytest.importorskip("sphinx.application", reason="needs the site's tools: pip install -r requirements.txt")
pytest.importorskip("myst_nb")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from house import drawings, prose  # noqa: E402

pytestmark = [pytest.mark.xdist_group("house"), pytest.mark.timeout(120)]

COLAB = "https://colab.research.google.com/github/some-one/a-book/blob/main/chapters/06_trial.ipynb"
HEAD = f"# Trial\n\n[Open in Colab]({COLAB}) · in Colab this line is all there is"
BOOK = {"number": 6, "reading": "70 min", "cpu": "55 s, 0.4 GB", "needs": "[The start](07_next.ipynb#One-Heading) and patience",
        "terms": {"mla": ["c_kv"]}}
CLAIMS = """\
documents: {one: {name: One, kind: article, date: undated, about: A thing.}}
subjects: {thing: Things}
sources: {a-paper: A paper}
verdicts: [supported, with a caveat, misleading, wrong, cannot be verified]
chapters: [trial, data]
claims:
- {id: C01, claim: One., verdict: wrong, reason: Because., right: Two., famous: 2, ABOUT}
- {id: C02, claim: Three costs $4., verdict: with a caveat, reason: It does., right: It costs $5., famous: 1, ABOUT}
- {id: C03, claim: Five., verdict: supported, reason: Yes., right: Five., ABOUT}
""".replace("famous: 2, ABOUT", "famous: 2, chapter: trial, ALL").replace("ABOUT", "chapter: data, ALL").replace(
    "ALL", "documents: [one], subject: thing, figures: [{says: It is., kind: primary, source: a-paper, place: Table 1}]")
SVG = ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 40"><title>A line</title><desc>A line from left to right.</desc>'
       '<path d="M2 20H40" class="line-mla"/></svg>')


def notebook(*cells, book=BOOK):
    made = []
    for i, cell in enumerate(cells):
        cell = {"cell_type": "markdown", "source": cell} if isinstance(cell, str) else cell
        made.append({"id": f"id-{i}", "metadata": {}} | cell)
    metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}} | ({"book": book} if book else {})
    return json.dumps({"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def code(source, *outputs, tags=()):
    shown = [{"output_type": "display_data", "data": data, "metadata": {}} for data in outputs]
    return {"cell_type": "code", "source": source, "outputs": shown, "execution_count": 1, "metadata": {"tags": list(tags)}}


def build(folder, pages, *, claims=CLAIMS):
    """Build pages ({file: text}) into folder/out; returns what Sphinx said, warnings and the error that stopped it included."""
    source = folder / "source"
    for name, text in {"index.md": "# Front\n\n```{toctree}\n:glob:\nchapters/*\n```\n", "data/claims.yml": claims, **pages}.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf8")
    settings = {"extensions": ["myst_nb", "bookfig", "house"], "nb_execution_mode": "off", "html_theme": "sphinx_book_theme", "numfig": True,
                "myst_heading_anchors": 3, "myst_enable_extensions": ["dollarmath"], "nb_render_markdown_format": "myst",
                "html_static_path": [str(ROOT / "book" / "_static")], "suppress_warnings": ["mystnb.lexer"],
                "html_theme_options": {"repository_url": "https://github.com/some-one/a-book"}}
    said = io.StringIO()
    app = sphinx_app.Sphinx(source, None, folder / "out", folder / "trees", "html", confoverrides=settings, status=None, warning=said)
    try:
        app.build()
    except Exception as error:
        said.write(str(error))
    lines = re.sub(r"\x1b\[[\d;]*m", "", said.getvalue()).splitlines()
    return "\n".join(line for line in lines if "already registered" not in line)    # what a second Sphinx in one process says


@pytest.fixture(scope="module")
def folder_of_drawings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawings")
    for name, width in {"line": 600, "line.narrow": 300, "small": 200, "vast": 800}.items():
        (folder / f"{name}.svg").write_text(SVG.format(width=width))
    (folder / "drawing.css").write_text("")
    return folder


@pytest.fixture(scope="module", autouse=True)
def drawings_of_the_test(folder_of_drawings):
    patch = pytest.MonkeyPatch()
    patch.setattr(drawings, "FOLDER", folder_of_drawings)
    patch.setattr("house.theme.FOLDER", folder_of_drawings)
    yield
    patch.undo()


def drawing(name, *, caption="", **placed):
    placed = {"name": name, "alt": "A line & more", "wide": False, "margin": ""} | placed
    attribute = json.dumps(placed).replace("&", "&amp;").replace('"', "&quot;")
    outputs = [{"image/svg+xml": f'<svg data-drawing="{attribute}"><style>x</style></svg>'}]
    outputs += [{"text/markdown": caption}] if caption else []
    return code("show.drawing(…)", *outputs, tags=["remove-input"])


FIGURE = {"data": [], "frames": [{"name": "a", "data": []}, {"name": "b", "data": []}], "layout": {
    "meta": {"alt": "Dots", "title": "It moves", "caption": "This run", "name": "fig-moves"}, "height": 300, "margin": {"t": 40, "l": 60},
    "sliders": [{"currentvalue": {"prefix": "width "}, "steps": [{"label": n, "args": [[n], {"mode": "immediate"}]} for n in "ab"]}]}}

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAABCAAAAADRSSBWAAAAC0lEQVR4nGNgYAAAAAMAAS5rVxgAAAAASUVORK5CYII="

ROWS = """\
- **C01 · wrong.** *One.*

  Because.

  *Right:* Two.

  Source: [Next](07_next.ipynb#one-heading).

- **C02 · with a caveat.** *Three costs \\$4.*

  It does.

  Source: none was found."""

GOOD = [
    f"""{HEAD}

> *A motto, in italics alone.*

> **You will be able to**
> - count

## The Pain, at once

**524 GB**

> **Margin · Sum.** Two and two.

The **MLA** and the **c_kv** and the **rest**; see [the pain](#The-Pain,-at-once).

> A quotation that is no box.

> **Before you read on.** How many?
>
> <details><summary>What we found</summary>
>
> **1,576 values.** Because.
>
> </details>

> **Before you read on.** Will it pay?
>
> <details><summary>What we found</summary>
>
> **Not here.** Because.
>
> </details>

> **Before you read on.** How many of both?
>
> <details><summary>What we found</summary>
>
> **2 percent, and 39 percent.** Because.
>
> </details>

$$x = 1 \\tag{{6.1}}$$""",
    """> **Exercise 6.1** (absorb the key; medium, 10 minutes). Write `absorb`.""",
    """<details><summary>Solution</summary>

Sum over `n`.

</details>

> **Does it pay here?** **Not at our size.** Because.
>
> - **At equal steps:** No.

> **Claim C01 · wrong.** *One.*
>
> Why.
>
> *It would have been right to say:* two.
>
> Source: [Next](07_next.ipynb#one-heading).

> **Bugs that still train.**
> - **A bug.** Hidden.

> **Takeaways**
> 1. One.

> **Next: [The next one](07_next.ipynb).** A sentence.""",
    drawing("line", caption="A *line*."),
    drawing("small", margin="In the margin", caption="Below."),
    code('ledger.show("C01", "C02", form="rows")', {"text/markdown": ROWS, "text/plain": "C01"}, tags=["remove-input"]),
    code('ledger.show("C03")', {"text/markdown": "> **Claim C03 · supported.** *Five.*\n>\n> Yes.\n>\n> Source: [Next](07_next.ipynb#one-heading).",
                                "text/plain": "C03"}, tags=["remove-input"]),
    "- **C02.** *Three costs $4.* (One)\n- **C03.** *Five.* (One)",
    code("show.show(fig)", {"application/vnd.plotly.v1+json": FIGURE, "image/png": PNG, "text/plain": "[figure]"}),
]
NEXT = notebook("# Next\n\n[Open in Colab](" + COLAB.replace("06_trial", "07_next") + ")\n\n## One Heading\n\nText.", book={"number": 7})


LEDGER = """\
---
orphan: true
---
# Chapter 6 and the ledger

Chapter 6 tells; chapter 8 is not there; `chapter 6` is code. See [a row](#c02).

```{ledger} verdicts
```
```{ledger} documents
```
```{ledger} claims
```
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    said = build(folder, {"chapters/06_trial.ipynb": notebook(*GOOD), "chapters/07_next.ipynb": NEXT,
                          "chapters/famous.md": "# Famous\n\n```{famous-claims}\n```\n\n```{drawing} line\n:alt: A line that rises.\n\nA *line*, as drawn.\n```\n",
                          "book/ledger.md": LEDGER})
    assert said == ""
    return folder / "out"


@pytest.fixture(scope="module")
def page(built):
    """The dressed page, in one line."""
    return " ".join((built / "chapters" / "06_trial.html").read_text("utf8").split())


# ---- each piece in its dress

@pytest.mark.parametrize("html", [
    '<p class="kicker">Chapter 6</p>',
    "<dt>Laptop CPU</dt><dd><p>55 s, 0.4 GB</p>",
    'href="07_next.html#one-heading"><span class="std std-ref">The start</span></a> and patience',
    f'<a class="button reference external" href="{COLAB}">Open in Colab</a>',
    'href="../_sources/chapters/06_trial.ipynb">Download .ipynb</a>',
    '<div class="motto docutils container"> <p>A motto, in italics alone.</p>',
    '<p class="box-title">You will be able to</p>',
    '<p class="number">524 GB</p>',
    '<aside class="margin sidebar"> <p class="sidebar-title">Sum</p> <p>Two and two.</p>',
    '<span class="concept c-mla">MLA</span> and the <span class="concept c-mla">c_kv</span> and the <strong>rest</strong>',
    'href="#the-pain-at-once"',
    "<blockquote> <div><p>A quotation that is no box.</p>",
    '<div class="guess" data-key="06_trial-1" data-answer="1,576" data-unit="values" data-number></div>',
    '<div class="guess" data-key="06_trial-2" data-answer="Not here" data-unit=""></div>',
    '<div class="guess" data-key="06_trial-3" data-answer="2 percent, and 39 percent" data-unit=""></div>',    # a unit is shown: it must not tell
    '<details class="fold what-we-found"><summary>What we found</summary>',
    r"\[x = 1 \tag{6.1}\]",
    '<p class="box-title">Exercise 6.1<span class="what"> absorb the key</span><span class="effort">medium, 10 minutes</span></p>',
    '<details class="fold solution"><summary>Solution</summary>',
    "<dt>At equal steps</dt><dd><p>No.</p>",
    '<span class="stamp stamp-wrong">Wrong</span><a class="to-ledger reference internal" href="../book/ledger.html#c01">'
    '<span class="claim-number">Claim C01</span></a>',
    '<p class="quote">One.</p>',
    '<p class="right"><em>It would have been right to say:</em> two.</p>',
    '<p class="source">Source: <a class="reference internal" href="07_next.html#one-heading">',
    '<div class="box claim docutils container" id="claim-c01">',
    '<p class="verdict"><span class="stamp stamp-wrong">Wrong</span><a class="to-ledger reference internal" href="../book/ledger.html#c01">'
    '<span class="claim-number">C01</span></a></p> <div class="claim-body docutils container"> '
    '<p class="said"><em>One.</em></p> <p>Because.</p> <p class="right"><em>Right:</em> Two.</p> <p class="source">Source: '
    '<a class="reference internal" href="07_next.html#one-heading">',
    '<div class="claim judged docutils container" id="claim-c02">',
    '<div class="box claim docutils container" id="claim-c03">',
    '<div class="claim told docutils container"> <p class="verdict"><a class="to-ledger reference internal" href="../book/ledger.html#c02">'
    '<span class="claim-number">C02</span></a></p>',
    '<p class="box-title">Bugs that still train</p>',
    '<p class="box-title">Takeaways</p>',
    '<p class="onward-link"><a class="reference internal" href="07_next.html">',
    '<span class="caption-number">Fig. 6.1 </span><span class="caption-text">A <em>line</em>.</span>',
    '<div class="drawing-broad docutils container"> <svg xmlns="http://www.w3.org/2000/svg" class="drawing" viewBox="0 0 600 40" '
    'style="max-width:600px" role="img" aria-label="A line &amp; more" aria-describedby="line-described">',
    '<div class="drawing-narrow docutils container"> <svg xmlns="http://www.w3.org/2000/svg" class="drawing" viewBox="0 0 300 40"',
    '<p class="sidebar-title">In the margin</p>',
    '<span class="caption-number">Fig. 6.2 </span><span class="caption-text">This run</span>',
])
def test_a_piece_gets_its_dress(page, html):
    assert html in page


def test_the_site_shows_a_figure_once_and_a_drawing_in_its_own_colours(page):
    assert "data:image/png" not in page
    assert re.findall(r'<img class="bookfig-paper"[^>]*alt="([^"]*)"', page) == ["Dots"], "the static picture, for paper alone"
    assert "<style>x</style>" not in page and "<title>A line</title>" not in page


def test_the_title_of_a_page_is_its_heading_and_not_the_kicker(built):
    assert "<title>Trial" in (built / "chapters" / "06_trial.html").read_text("utf8")


def test_the_famous_claims_come_in_their_order_and_dollars_are_no_formula(built):
    page = (built / "chapters" / "famous.html").read_text("utf8")
    assert re.findall(r'class="stamp stamp-(\w+)"', page) == ["caveat", "wrong"]
    assert re.findall(r'<p class="quote">([^<]+)', page) == ["Three costs $4.", "One."]
    assert re.findall(r'<p class="right">([^<]+)', page) == ["It costs $5.", "Two."]


def test_a_page_that_is_no_notebook_shows_a_drawing(built):
    page = " ".join((built / "chapters" / "famous.html").read_text("utf8").split())
    assert re.search(r'<figure class="drawing-figure.{,60}"> <div class="drawing-broad', page) and page.count('aria-label="A line that rises."') == 2
    assert re.search(r"<figcaption>.{,120}A <em>line</em>, as drawn", page)


@pytest.fixture(scope="module")
def rows(built):
    return " ".join((built / "book" / "ledger.html").read_text("utf8").split())


@pytest.mark.parametrize("html", [
    '<a class="reference internal" href="../chapters/06_trial.html">Chapter 6</a> tells; chapter 8 is not there; <code',
    '<a class="reference internal" href="#c02">',
    '<dt><a class="reference internal" href="#verdict=wrong"><span class="stamp stamp-wrong">Wrong</span></a><span class="n"> 1</span></dt>',
    '<li style="flex-grow:1"><a class="of-caveat" href="#document=one&amp;verdict=caveat">',
    '<option value="data">2 · data (not written yet)</option>',
    '<details class="entry" id="c02" data-verdict="caveat" data-subject="thing" data-document="one" data-chapter="data trial"><summary>',
    '<span class="kind">Primary</span> It is. <a class="reference internal" href="references.html#a-paper">A paper, Table 1</a>.',
    '<span class="label">Tested in </span><a class="reference internal" href="../chapters/06_trial.html#claim-c01">chapter 1, Trial</a>.',
    '<span class="label">Tested in </span>chapter 2, which is not written yet; also in <a class="reference internal" '
    'href="../chapters/06_trial.html#claim-c02">chapter 1, Trial</a>.',
    '<a class="reference external" href="https://github.com/some-one/a-book/issues/new?title=C03%3A%20">Contest this verdict</a>',
])
def test_the_ledger_s_page_has_each_piece(rows, html):
    assert html in rows


@pytest.mark.parametrize("heading, anchor", [("#The-Pain,-at-once", "the-pain-at-once"), ("#Does-it-pay-here?", "does-it-pay-here"), ("#a_b", "a_b")])
def test_a_heading_s_anchor_is_the_same_as_jupyter_writes_it(heading, anchor):
    assert prose.slug(heading) == anchor


# ---- what stops the build

BAD = [    # what a cell holds, what is said about it, at which of its lines
    ("> **Warning.** Look.", "unknown lead 'Warning.'; known: You will be able to, ", 1),
    ("Text.\n\n> Before you read on. How many?", "the lead 'Before you read on. How many?' is not bold", 3),
    ("**Takeaways**\n\n1. One.", "the lead 'Takeaways' stands outside a block quote: '> ' is missing", 1),
    ("> **Claim C01 · false.** *One.*\n>\n> Source: x.", "unknown verdict 'false'; known: supported, with a caveat, misleading, wrong, cannot be verified", 1),
    ("> **Claim C77 · wrong.** *One.*\n>\n> Source: x.", "claim C77 is not in data/claims.yml", 1),
    ("> **Claim C02 · wrong.** *One.*\n>\n> Source: x.", "claim C02 is 'wrong' here and 'with a caveat' in data/claims.yml", 1),
    ("- **C03 · wrong.** *One.*", "claim C03 is 'wrong' here and 'supported' in data/claims.yml", 1),
    ("- **C01.** *One.*\n- **Two.** *Two.*", "every item of a list of claims begins with **C01.** or **C01 · verdict.**", 2),
    ("> **Claim C03 · supported.** One.\n>\n> Source: x.", "after the lead of claim C03 comes the claim in *italics*", 1),
    ("> **Claim C03 · supported.** *One.*", "claim C03 needs a last paragraph 'Source: …'", 1),
    ("> **Exercise 6.2** (medium). Write.", "after **Exercise 6.2** comes (what; easy, medium or hard, minutes)", 1),
    ("> **Before you read on.** How many?", "a prediction needs <details><summary>What we found</summary>", 1),
    ("> **Does it pay here?** No.\n>\n> - At equal steps: no.", "the item 'At equal steps: no.' needs a bold label", 1),
    ("> **Does it pay here?** No.\n>\n> | a |\n> |---|\n> | b |", "a table in a block quote shows as raw text elsewhere", 1),
    ("> **Next: Something.** Soon.", "**Next: [Title](file.ipynb).** needs its link", 1),
    ("<details><summary>Answer</summary>\n\nNo.\n\n</details>", "unknown fold 'Answer'; known: Solution, Hint, What we found", 1),
    ("<details><summary>Hint</summary>\n\nNo.", "the fold 'Hint' does not end in its cell", 1),
    ("<details>\n<summary>Hint</summary> No.\n</details>", "write <details><summary>…</summary> on a line of its own", 1),
    ("Text.\n\n:::{note}\nNo.\n:::", "the markup ':::{note}' shows as it is in Colab", 3),
    ("A {math}`x` of it.", "the markup '{math}' shows as it is in Colab", 1),
    (drawing("gone"), "there is no drawing 'gone' in minimodels/drawings", None),
    (drawing("vast"), "the drawing 'vast' is 800 px wide, and its place 624", None),
    (drawing("line", margin="Here"), "the drawing 'line' is 600 px wide, and its place 232", None),
]


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """All that is said about a chapter in which everything is wrong, and about three others."""
    folder = tmp_path_factory.mktemp("bad")
    return build(folder, {
        "chapters/06_trial.ipynb": notebook(HEAD, *(cell for cell, _, _ in BAD)),
        "chapters/08_head.ipynb": notebook("# Trial\n\n[Open in Colab](https://example.org)", book={"number": 8, "mood": "good", "terms": {"cache": ["x"]}}),
        "chapters/09_number.ipynb": notebook("# Trial\n\nText.", book={"reading": "1 min"}),
        "chapters/10_plain.ipynb": notebook("# Trial\n\n> **Takeaways**\n> 1. One.", book=None),
    })


@pytest.mark.parametrize("at, message, line", [(i, message, line) for i, (_, message, line) in enumerate(BAD, 1)], ids=lambda v: str(v)[:40])
def test_what_it_does_not_know_stops_the_build_at_cell_and_line(refused, at, message, line):
    said = [text for text in refused.splitlines() if message in text]
    assert said, refused
    assert said[0].strip().startswith(f"chapters/06_trial.ipynb: cell {at} (id-{at}), line {line if line else ''}"), said


@pytest.mark.parametrize("message", [
    "chapters/08_head.ipynb: metadata.book has unknown keys mood; known: cpu, gaming, needs, number, reading, t4, terms",
    "chapters/08_head.ipynb: metadata.book.terms has the unknown concept 'cache'; known: dense, attn, ",
    "the line under the title must begin with a link to https://colab.research.google.com/github/some-one/a-book/blob/main/chapters/08_head.ipynb, "
    "found https://example.org",
    "chapters/09_number.ipynb: metadata.book.number must be the chapter's number, got None",
    "chapters/10_plain.ipynb: cell 0 (id-0), line 3: a box in a notebook without metadata.book, so it would lose its dress",
])
def test_a_wrong_head_stops_the_build(refused, message):
    assert message in refused


# ---- figures that move

def test_a_figure_that_moves_is_moved_by_keyboard(built):
    with browsers.chromium() as browser:
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        page.goto((built / "chapters" / "06_trial.html").as_uri())
        page.locator(".bookfig").scroll_into_view_if_needed()
        control = page.get_by_role("slider")
        assert control.get_attribute("aria-valuetext") == "width a"
        control.press("ArrowRight")
        assert control.get_attribute("aria-valuetext") == "width b"
        assert page.locator(".bookfig-frames output").inner_text() == "b"
        page.get_by_role("button", name="Play").click()
        assert control.get_attribute("aria-valuetext") == "width a", "it begins again"
        page.get_by_role("button", name="Pause").click()
        assert page.locator(".updatemenu-container, .slider-container").count() == 0
