"""The site as a browser sees it: it builds without a warning, loads nothing from elsewhere, and fits a phone, in light and in dark."""

import importlib.util
import re
import shutil
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", 
        "--disable-component-update", "--disable-sync"]
WIDTHS = {"desktop": 1280, "phone": 390}
THEMES = ("light", "dark")
PAGES = ["book/intro.html", *(f"chapters/{path.stem}.html" for path in sorted((ROOT / "chapters").glob("*.ipynb"))), "search.html?q=expert"]

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
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -r requirements.txt")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"))), None)
    with sync_api.sync_playwright() as playwright:
        path = path or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("no Chromium: `apt-get install chromium`, or `python -m playwright install chromium`, then run this again")
        running = playwright.chromium.launch(executable_path=path, args=ARGS)
        yield running
        running.close()


class Visit:
    """A page, opened and scrolled to its end, with what it asked for and what went wrong."""

    def __init__(self, browser, address, page, *, width, theme):
        self.address, self.foreign, self.wrong = address, [], []
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
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


CASES = [(page, width, theme) for page in PAGES for width in WIDTHS for theme in THEMES]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{Path(case[0]).stem}-{case[1]}-{case[2]}")
def visit(request, browser, address):
    page, width, theme = request.param
    opened = Visit(browser, address, page, width=WIDTHS[width], theme=theme)
    yield opened
    opened.context.close()


def test_a_page_loads_nothing_from_elsewhere_and_nothing_goes_wrong(visit):
    assert visit.foreign == []
    assert visit.wrong == []


def test_a_page_does_not_scroll_sideways(visit):
    wide = visit.page.evaluate("""() => {
        const limit = document.documentElement.clientWidth;
        const clips = e => ["auto", "scroll", "hidden"].includes(getComputedStyle(e).overflowX);
        const scrolls = e => e && e !== document.body && (clips(e) || scrolls(e.parentElement));
        const wide = [...document.querySelectorAll("main *")].filter(e => e.getBoundingClientRect().right > limit + 1 && !scrolls(e));
        return { page: document.documentElement.scrollWidth - limit, wide: wide.slice(0, 5).map(e => e.outerHTML.slice(0, 120)) };
    }""")
    assert wide == {"page": 0, "wide": []}


def test_the_theme_follows_the_system(visit):
    theme = visit.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'")
    assert visit.page.evaluate("document.documentElement.dataset.theme") == theme
    paper = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(253, 252, 249)", "dark": "rgb(23, 22, 20)"}[theme]


def test_figures_follow_the_theme(visit):
    grounds = visit.page.evaluate("[...document.querySelectorAll('.bookfig-plot .main-svg')].map(s => s.style.background)")
    paper = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    drawn = [g for g in grounds if re.match(r"rgb\(", g)]
    assert len(drawn) >= visit.page.evaluate("document.querySelectorAll('.bookfig').length")
    assert set(drawn) <= {paper}


def test_a_figure_has_a_name_for_those_who_do_not_see_it(visit):
    names = visit.page.evaluate("[...document.querySelectorAll('.bookfig')].map(f => [f.role, f.ariaLabel])")
    assert all(role == "figure" and name for role, name in names)


def test_every_link_inside_the_site_leads_somewhere(site):
    for page in site.rglob("*.html"):
        html = page.read_text("utf8")
        for target in re.findall(r'<a[^>]*\shref="([^"#?:]+)(?:[#?][^"]*)?"', html):
            assert (page.parent / target).exists(), f"{page.relative_to(site)} links to {target}"


def test_the_site_has_one_plotly_and_the_mathjax_that_its_readme_names(site):
    import hashlib

    assert len(list(site.rglob("plotly*.js"))) == 1
    readme = (ROOT / "book" / "_static" / "vendor" / "README.md").read_text("utf8")
    mathjax = (site / "_static" / "vendor" / "tex-svg-full.js").read_bytes()
    assert hashlib.sha256(mathjax).hexdigest() in readme
