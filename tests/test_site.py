"""The site as a browser sees it: it builds without a warning, loads nothing from elsewhere, fits a phone, reads well to everybody."""

import hashlib
import html
import importlib.util
import json
import re
import threading
from pathlib import Path

import browser as browsers
import pytest

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


def load_tool(name):
    spec = importlib.util.spec_from_file_location(f"book_tool_{name}", ROOT / "book" / "_tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built with warnings as errors."""
    pytest.importorskip("jupyter_book", reason="needs the site's tools: pip install -r requirements.txt")
    out = tmp_path_factory.mktemp("site")
    status = load_tool("site").build(out=out, is_strict=True)
    assert status == 0, "the build of the site has warnings; they stand above"
    return out / "_build" / "html"


@pytest.fixture(scope="module")
def address(site):
    """Where the built site is served."""
    running = load_tool("site").server(site, 0)
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
            for (let y = 0; y < document.body.scrollHeight; y += 500) { scrollTo(0, y); await new Promise(r => setTimeout(r, 40)); }
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
            if anchor and there in ids:
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
