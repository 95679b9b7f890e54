"""The site as a browser sees it: it builds without a warning, loads nothing from elsewhere, fits a phone, reads well to everybody."""

import hashlib
import html
import json
import re
import threading
from pathlib import Path
from urllib.parse import parse_qsl

import browser as browsers
import pytest

from book_files import load

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[1]
TOC = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text("utf8"))
NAMES = [TOC["root"], *(entry["file"] for part in TOC["parts"] for entry in part["chapters"])]
CHAPTERS = [name for name in NAMES if name.startswith("chapters/")]
ADDRESS = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))["repository"]["url"]
WIDTHS = (390, 1680, 1280)    # the last one stays
PAPER = {"light": "rgb(253, 252, 249)", "dark": "rgb(23, 22, 20)"}
GRAVE = ("serious", "critical")

pytestmark = [pytest.mark.xdist_group("site"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built with warnings as errors."""
    pytest.importorskip("jupyter_book", reason="needs the site's tools: pip install -r requirements.txt")
    out = tmp_path_factory.mktemp("site")
    status = load("_tools/site.py").build(out=out, is_strict=True)
    assert status == 0, "the build of the site has warnings; they stand above"
    return out / "_build" / "html"


@pytest.fixture(scope="module")
def address(site):
    """Where the built site is served."""
    running = load("_tools/site.py").server(site, 0)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()


@pytest.fixture(scope="module")
def browser():
    with browsers.chromium() as running:
        yield running


class Visit:
    """A page, opened and scrolled to its end, with what it asked for and what went wrong."""

    def __init__(self, browser, address, page, *, theme="light"):
        self.address, self.foreign, self.wrong = address, [], []
        self.context = browser.new_context(viewport={"width": WIDTHS[-1], "height": 900}, color_scheme=theme)
        self.page = self.context.new_page()
        self.page.on("request", self._see_request)
        self.page.on("response", lambda r: r.status >= 400 and self.wrong.append(f"HTTP {r.status} {r.url}"))
        self.page.on("requestfailed", lambda r: self.wrong.append(f"failed {r.url}"))
        self.page.on("pageerror", lambda e: self.wrong.append(f"error {e}"))
        self.page.on("console", lambda m: m.type in ("error", "warning") and self.wrong.append(f"console {m.text}"))
        self.page.goto(f"{address}/{page}", wait_until="load")
        self.page.evaluate("""async () => {
            const shown = () => new Promise(r => requestAnimationFrame(() => setTimeout(r, 20)));    // or a busy machine skips places
            for (let y = 0; y < document.body.scrollHeight; y += 500) { scrollTo(0, y); await shown(); }
            scrollTo(0, 0);
        }""")
        self.page.wait_for_function("[...document.querySelectorAll('.bookfig')].every(f => f.dataset.state === 'ready')", timeout=60_000)
        self.page.wait_for_load_state("networkidle")

    def _see_request(self, request):
        if not request.url.startswith((self.address + "/", "data:", "blob:")):
            self.foreign.append(request.url)


CASES = [(page, theme) for page in (*(f"{name}.html" for name in NAMES), "search.html?q=expert") for theme in PAPER]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{Path(case[0]).stem}-{case[1]}")
def visit(request, browser, address):
    page, theme = request.param
    opened = Visit(browser, address, page, theme=theme)
    yield opened
    opened.context.close()


# ---- every page, in light and in dark

def test_a_page_loads_nothing_from_elsewhere_and_nothing_goes_wrong(visit):
    assert visit.foreign == []
    assert visit.wrong == []


def test_a_page_is_accessible(visit):
    visit.page.add_script_tag(path=ROOT / "tests" / "vendor" / "axe.min.js")
    found = visit.page.evaluate("""async () => (await axe.run(document, { resultTypes: ["violations"] })).violations.map(
        v => ({ impact: v.impact, rule: v.id, where: v.nodes.slice(0, 3).map(n => n.html.slice(0, 160)) }))""")
    assert [violation for violation in found if violation["impact"] in GRAVE] == []


def test_a_page_does_not_scroll_sideways(visit):
    for width in WIDTHS:
        visit.page.set_viewport_size({"width": width, "height": 900})
        visit.page.wait_for_timeout(150)    # figures take the new width
        wide = visit.page.evaluate("""() => {
            const limit = document.documentElement.clientWidth;
            const clips = e => ["auto", "scroll", "hidden"].includes(getComputedStyle(e).overflowX);
            const scrolls = e => e && e !== document.body && (clips(e) || scrolls(e.parentElement));
            const wide = [...document.querySelectorAll("main *")].filter(e => e.getBoundingClientRect().right > limit + 1 && !scrolls(e));
            return { page: document.documentElement.scrollWidth - limit, wide: wide.slice(0, 5).map(e => e.outerHTML.slice(0, 120)) };
        }""")
        assert wide == {"page": 0, "wide": []}, f"at {width} px"


def test_the_theme_follows_the_system(visit):
    theme = visit.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'")
    assert visit.page.evaluate("document.documentElement.dataset.theme") == theme
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == PAPER[theme]


def test_figures_follow_the_theme(visit):
    grounds = visit.page.evaluate("[...document.querySelectorAll('.bookfig-plot .main-svg')].map(s => s.style.background)")
    paper = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    drawn = [g for g in grounds if re.match(r"rgb\(", g)]
    assert len(drawn) >= visit.page.evaluate("document.querySelectorAll('.bookfig').length")
    assert set(drawn) <= {paper}


def test_figures_and_drawings_have_words_for_those_who_do_not_see_them(visit):
    plots = visit.page.evaluate("""[...document.querySelectorAll(".bookfig")].map(
        f => [f.getAttribute("role"), f.ariaLabel, f.querySelector(".bookfig-title")?.textContent])""")
    assert all(role == "figure" and alt and title for role, alt, title in plots)
    drawings = visit.page.evaluate("""[...document.querySelectorAll("svg.drawing")].map(d => [d.getAttribute("role"), d.ariaLabel,
        document.getElementById(d.getAttribute("aria-describedby"))?.textContent,
        (d.closest("figure").querySelector("figcaption") ?? d.closest("aside").querySelector(".sidebar-title")).textContent])""")
    assert all(role == "img" and alt and description and title for role, alt, description, title in drawings)


def test_a_narrow_drawing_stands_in_for_a_broad_one_on_a_phone(visit):
    shown = """[...document.querySelectorAll("svg.drawing")].filter(d => d.getBoundingClientRect().width > 0).map(
        d => ({ label: d.ariaLabel, wide: d.viewBox.baseVal.width, drawn: d.getBoundingClientRect().width }))"""
    desk = visit.page.evaluate(shown)
    visit.page.set_viewport_size({"width": 390, "height": 900})
    phone = visit.page.evaluate(shown)
    visit.page.set_viewport_size({"width": WIDTHS[-1], "height": 900})
    assert [d["label"] for d in desk] == [d["label"] for d in phone]
    assert all(d["drawn"] >= 0.97 * d["wide"] for d in phone), "a drawing shrinks, and its words with it: it needs a narrow form"


# ---- single pages

def test_every_page_of_the_contents_is_there_and_no_other(site):
    built = {path.relative_to(site).with_suffix("").as_posix() for folder in ("book", "chapters") for path in (site / folder).rglob("*.html")}
    assert built == set(NAMES)
    assert (site / "index.html").exists()


def test_every_link_inside_the_site_leads_to_a_page_and_its_place(site):
    ids = {path: set(re.findall(r'\sid="([^"]+)"', path.read_text("utf8"))) for path in site.rglob("*.html")}
    for page in ids:
        for target in re.findall(r'<a[^>]*\shref="([^":?]*)(?:\?[^"]*)?"', page.read_text("utf8")):
            file, _, anchor = html.unescape(target).partition("#")
            there = (page.parent / file).resolve() if file else page
            assert there.exists(), f"{page.relative_to(site)} links to {target}"
            if "=" in anchor and there.stem == "ledger":    # a choice of the ledger's filters
                assert all(re.search(rf'data-{name}="[^"]*\b{value}\b', there.read_text("utf8")) for name, value in parse_qsl(anchor)), target
            elif anchor and there in ids:
                assert anchor in ids[there], f"{page.relative_to(site)} links to {target}"


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_opens_in_colab_and_can_be_downloaded(site, name):
    page = (site / f"{name}.html").read_text("utf8")
    links = {text: html.unescape(target) for target, text in re.findall(r'<a class="button[^"]*" href="([^"]+)">([^<]+)</a>', page)}
    assert links["Open in Colab"] == f"https://colab.research.google.com/github/{ADDRESS.removeprefix('https://github.com/')}/blob/main/{name}.ipynb"
    downloaded = (site / f"{name}.html").parent / links["Download .ipynb"]
    assert json.loads(downloaded.read_text("utf8")) == json.loads((ROOT / f"{name}.ipynb").read_text("utf8"))


def test_the_front_page_shows_the_famous_claims_with_their_stamps(site):
    claims = yaml.safe_load((ROOT / "data" / "claims.yml").read_text("utf8"))["claims"]
    famous = sorted((claim for claim in claims if "famous" in claim), key=lambda claim: claim["famous"])
    page = (site / f"{TOC['root']}.html").read_text("utf8")
    stamps = re.findall(r'class="stamp stamp-\w+">([^<]+)<', page)
    assert [stamp.lower() for stamp in stamps] == [claim["verdict"] for claim in famous]
    assert len(famous) == 5


# ---- the ledger

CLAIMS = yaml.safe_load((ROOT / "data" / "claims.yml").read_text("utf8"))
STAMPS = {"supported": "supported", "with a caveat": "caveat", "misleading": "misleading", "wrong": "wrong", "cannot be verified": "unverifiable"}


def claims_with(**wanted):
    """Numbers of the claims that fit, straight from the file."""
    return [c["id"].lower() for c in CLAIMS["claims"] if all(v in c["documents"] if k == "document" else v == c[k] for k, v in wanted.items())]


def shown(page):
    return page.locator("details.entry:visible").evaluate_all("all => all.map(entry => entry.id)")


@pytest.fixture
def the_ledger(browser, address):
    visit = Visit(browser, address, "book/ledger.html")
    yield visit.page
    assert visit.foreign == [] and visit.wrong == []
    visit.context.close()


def test_the_ledger_is_all_there_without_a_script(site):
    page = (site / "book" / "ledger.html").read_text("utf8")
    assert len(page.encode()) < 300_000
    rows = re.findall(r'<details class="entry" id="(c\d\d)"[^>]*>(.*?)</details>', page, re.S)
    assert [number for number, _ in rows] == [claim["id"].lower() for claim in CLAIMS["claims"]]
    for (_, row), claim in zip(rows, CLAIMS["claims"]):
        text = html.unescape(" ".join(re.sub(r"<[^>]+>", "", row).split())).replace("’", "'")
        assert f'stamp-{STAMPS[claim["verdict"]]}"' in row
        for sentence in (claim["claim"], claim["reason"], claim.get("right", ""), *(figure["says"] for figure in claim["figures"])):
            assert " ".join(sentence.split()) in text, f'{claim["id"]} lacks {sentence!r}'
        for figure in claim["figures"]:
            assert figure.get("place", "") in text and figure.get("arithmetic", "") in text
            assert "source" not in figure or f'href="references.html#{figure["source"]}"' in row
        assert ("which is not written yet" in row) == (claim["chapter"] not in {name.partition("_")[2] for name in CHAPTERS})


def judged_in(site, name):
    """Numbers of the claims that a chapter's page gives their verdicts."""
    return re.findall(r'<div class="(?:box )?claim[^"]*" id="claim-(c\d\d)"', (site / f"{name}.html").read_text("utf8"))


def test_a_claim_in_a_chapter_and_its_row_lead_to_each_other(site):
    ledger = (site / "book" / "ledger.html").read_text("utf8")
    for name in CHAPTERS:
        page = (site / f"{name}.html").read_text("utf8")
        for number in judged_in(site, name):
            assert f'href="../book/ledger.html#{number}"' in page
            row = re.search(rf'<details class="entry" id="{number}".*?</details>', ledger, re.S)[0]
            assert f'href="../{name}.html#claim-{number}"' in row
    assert 'href="../chapters/06_mla.html#claim-c60"' in ledger


@pytest.mark.parametrize("wanted", [{"verdict": "wrong"}, {"subject": "experts"}, {"document": "cascade"}, {"chapter": "cost"},
                                    {"document": "crypto-press", "verdict": "misleading"}], ids=str)
def test_filters_show_the_claims_that_fit_and_the_address_keeps_them(site, the_ledger, wanted):
    page, expected = the_ledger, claims_with(**wanted)
    if word := wanted.get("chapter"):    # also those that it judges for another chapter
        expected = sorted({*expected, *(n for name in CHAPTERS if name.endswith(f"_{word}") for n in judged_in(site, name))})
    for name, value in wanted.items():
        page.get_by_role("combobox", name=name.capitalize(), exact=True).select_option(STAMPS.get(value, value))
    assert shown(page) == expected and 0 < len(expected) < 97
    page.get_by_role("status").get_by_text(f"{len(expected)} of 97 claims.").wait_for()
    page.reload()
    assert shown(page) == expected
    page.get_by_role("button", name="Show all").click()
    page.get_by_role("status").get_by_text("All 97 claims.").wait_for()
    assert len(shown(page)) == 97 and "#" not in page.url


def test_words_are_searched_in_all_of_a_claim_and_none_found_is_said(the_ledger):
    page = the_ledger
    page.get_by_label("Words").fill("h800 POWER")
    found = shown(page)
    assert "c04" in found and len(found) < 10
    page.get_by_label("Words").fill("DeepSeek's chips")    # the page has a printer's apostrophe
    assert "c04" in shown(page)
    page.get_by_label("Words").fill("c60")
    assert shown(page) == ["c60"]
    page.get_by_label("Words").fill("no such word")
    page.get_by_role("status").get_by_text("No claim fits. Take a filter back, or show all.").wait_for()
    assert shown(page) == []


def test_a_link_opens_its_claim_also_where_a_filter_hid_it(the_ledger):
    page = the_ledger
    page.goto(page.url + "#verdict=wrong")
    assert shown(page) == claims_with(verdict="wrong")
    page.evaluate("location.hash = 'c60'")
    page.wait_for_function("document.activeElement.parentElement.id === 'c60'")
    assert page.locator("#c60").evaluate("entry => entry.open") and len(shown(page)) == 97
    assert page.locator("#c60").evaluate("entry => entry.getBoundingClientRect().top") < 300
    page.locator(".segments a.of-wrong").nth(1).click()
    assert shown(page) == claims_with(verdict="wrong", document="cascade")


def test_the_ledger_works_by_keyboard(the_ledger):
    page = the_ledger
    page.get_by_label("Words").focus()
    for name in ("verdict", "subject", "document", "chapter"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.name") == name
    page.locator("#c01 > summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("#c01 .entry-body").is_visible()
    page.keyboard.press("Enter")
    assert not page.locator("#c01 .entry-body").is_visible()
    page.get_by_role("button", name="Open what is shown").press("Enter")
    assert page.locator("details.entry[open]").count() == 97
    page.get_by_role("button", name="Close what is shown").press("Enter")
    assert page.locator("details.entry[open]").count() == 0


def test_the_search_finds_a_word_that_only_a_row_has(browser, address):
    visit = Visit(browser, address, "search.html?q=Palihapitiya")
    visit.page.wait_for_selector("#search-results li a")
    assert visit.page.locator("#search-results li a", has_text="The ledger of claims").count() == 1
    visit.context.close()


def test_on_paper_the_ledger_is_open_and_without_its_filters(the_ledger):
    page = the_ledger
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details.entry[open]").count() == 97 and not page.locator(".filters").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details.entry[open]").count() == 0


@pytest.mark.parametrize("theme", PAPER)
def test_the_ledger_is_accessible_with_its_rows_open_and_fits_a_small_phone(browser, address, theme):
    visit = Visit(browser, address, "book/ledger.html", theme=theme)
    page = visit.page
    page.get_by_role("button", name="Open what is shown").click()
    page.add_script_tag(path=ROOT / "tests" / "vendor" / "axe.min.js")
    found = page.evaluate("async () => (await axe.run(document)).violations.map(v => [v.impact, v.id, v.nodes.slice(0, 3).map(n => n.html.slice(0, 160))])")
    assert [violation for violation in found if violation[0] in GRAVE] == []
    for width in (360, 768, 1440):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0, f"at {width} px"
        wide = page.evaluate("""() => [...document.querySelectorAll("article *")].filter(
            e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML.slice(0, 80))""")
        assert wide == [], f"at {width} px"
    visit.context.close()


def test_a_prediction_is_kept_over_a_reload(browser, address):
    visit = Visit(browser, address, "chapters/00_start.html")
    page = visit.page
    assert not page.locator("details.what-we-found").first.evaluate("fold => fold.open")
    page.get_by_label("Your guess").first.fill("Python's grammar")
    page.get_by_role("button", name="Write it down").first.click()
    assert page.locator("details.what-we-found").first.evaluate("fold => fold.open")
    page.reload()
    assert page.get_by_label("Your guess").first.input_value() == "Python's grammar"
    assert "You wrote: Python's grammar" in page.locator(".guess .reply").first.inner_text()
    assert visit.foreign == []
    visit.context.close()


def test_the_key_shows_one_expert_alone(browser, address):
    visit = Visit(browser, address, "chapters/00_start.html")
    tokens = visit.page.locator(".by-expert > p:first-child > span")
    button = visit.page.locator(".by-expert button", has_text="9")
    button.press("Enter")
    alone = tokens.evaluate_all("all => all.filter(t => !t.classList.contains('faint')).map(t => t.querySelector('sub').textContent)")
    assert alone and set(alone) == {"9"}
    button.press("Enter")
    assert visit.page.locator(".by-expert .faint").count() == 0
    visit.context.close()


def test_the_search_finds_a_word(browser, address):
    visit = Visit(browser, address, "search.html?q=experts")
    visit.page.wait_for_selector("#search-results li a")
    assert visit.page.locator("#search-results li a", has_text="Start").count() >= 1
    visit.context.close()


def test_the_switch_changes_the_theme_and_it_stays(browser, address):
    visit = Visit(browser, address, f"{TOC['root']}.html")
    seen = []
    for _ in range(3):
        seen.append(visit.page.evaluate("document.documentElement.dataset.theme"))
        visit.page.locator("button.theme-switch-button:visible").first.click()
    assert set(seen) == {"light", "dark"}
    last = visit.page.evaluate("document.documentElement.dataset.theme")
    visit.page.reload()
    assert visit.page.evaluate("document.documentElement.dataset.theme") == last
    visit.context.close()


def test_on_paper_folds_are_open_and_the_interface_is_gone(browser, address):
    visit = Visit(browser, address, "chapters/00_start.html", theme="dark")
    visit.page.emulate_media(media="print")
    visit.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert visit.page.evaluate("[...document.querySelectorAll('details.fold')].every(fold => fold.open)")
    assert not visit.page.locator(".bd-sidebar-primary").is_visible()
    assert visit.page.locator("article h1").first.is_visible()
    assert visit.page.locator(".bookfig-paper").first.is_visible()
    assert visit.page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    visit.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert visit.page.evaluate("document.documentElement.dataset.theme") == "dark"
    visit.context.close()


def test_the_site_has_one_plotly_and_the_mathjax_that_its_readme_names(site):
    assert len(list(site.rglob("plotly*.js"))) == 1
    readme = (ROOT / "book" / "_static" / "vendor" / "README.md").read_text("utf8")
    mathjax = (site / "_static" / "vendor" / "tex-svg-full.js").read_bytes()
    assert hashlib.sha256(mathjax).hexdigest() in readme


def test_what_comes_from_others_is_what_its_readme_names():
    readme = (ROOT / "tests" / "vendor" / "README.md").read_text("utf8")
    assert hashlib.sha256((ROOT / "tests" / "vendor" / "axe.min.js").read_bytes()).hexdigest() in readme
