"""The explorables: two languages, one answer; a committed output that is small, stable and safe; and pages that work without a kernel."""

import itertools
import json
import random
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import browser as browsers
import nbformat
import pytest

from book_files import load, write_statics
from configs import odd_config
from minimodels.config import ModelConfig
from minimodels.explorables import ALL, Absorb, KVCache, base, kv_cache, scripts
from minimodels.mla import LatentAttention
from minimodels.palette import COLORS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "minimodels" / "explorables"
VIEW = "application/vnd.jupyter.widget-view+json"

LARGEST = {"tokens": 80_000}    # characters of a committed output, where its facts are many: here 3,839 merges

each_piece = pytest.mark.parametrize("piece", ALL, ids=lambda piece: piece.name)


class Table(HTMLParser):
    """The tags of an HTML text, its first explorable's attributes, and the rows of its tables' bodies."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.place, self.rows, self.is_body = set(), {}, [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.place = self.place or (dict(attrs) if tag == "div" else {})
        assert tag == "div" or not attrs, f"{tag} has attributes, which GitHub's viewer removes"
        if tag in ("thead", "tbody"):
            self.is_body = tag == "tbody"
            self.rows += [[]] if self.is_body else []
        elif tag == "tr" and self.is_body:
            self.rows[-1].append([])

    def handle_data(self, data):
        if self.is_body and data.strip() and self.lasttag in ("th", "td"):
            self.rows[-1][-1].append(data)


# ---- the sizes of caches

@pytest.mark.parametrize("name, scheme, n_bytes", [
    ("DeepSeek-V3", "MLA", 70_272), ("Qwen-2.5-72B", "GQA", 327_680), ("Llama-3.1-405B", "GQA", 516_096)])
def test_cache_sizes_are_the_published_ones(name, scheme, n_bytes):
    """Source: Insights into DeepSeek-V3, Table 1."""
    cache = KVCache.preset(name)
    assert cache.bytes_per_token()[scheme] == n_bytes
    assert cache.presets[name]["uses"] == scheme


def test_deepseek_caches_the_published_values():
    v2, v3 = KVCache.preset("DeepSeek-V2"), KVCache.preset("DeepSeek-V3")
    assert v2.values_per_layer()["MLA"] * v2.n_layers == 34_560  # DeepSeek-V2, Table 9, says 34.6K
    assert v3.values_per_layer()["MLA"] * v3.n_layers == 35_136
    assert v3.values_per_layer() == {"MHA": 32_768, "GQA": 2_048, "MQA": 256, "MLA": 576}


def test_the_93_percent_of_deepseek_v2_are_layers_groups_and_six_bits():
    """Source: DeepSeek-V2, abstract and section 3.2.3: against DeepSeek-67B, 95 layers with 8 key-value heads of width 128 at 16 bits."""
    old = 95 * 2 * 8 * 128 * 2  # bytes a token
    assert KVCache(n_layers=95, n_heads=64, n_kv_heads=8, d_head=128).bytes_per_token()["GQA"] == old == 389_120
    new = KVCache.preset("DeepSeek-V2", bits=6).bytes_per_token()["MLA"]
    assert round(100 * (1 - new / old), 1) == 93.3
    assert round(100 * (1 - KVCache.preset("DeepSeek-V2").bytes_per_token()["MLA"] / old)) == 82


@pytest.mark.parametrize("scheme", ["mha", "gqa", "mqa", "mla"])
def test_cache_sizes_are_those_of_the_models_of_this_book(scheme):
    config = odd_config(attention=scheme)
    shape = {field: getattr(config, field) for field in kv_cache.SHAPE}
    cache = KVCache(**shape, bits=16)
    assert cache.bytes_per_token()[scheme.upper()] == 2 * config.cached_values_per_token
    assert KVCache.preset("cpu").n_layers == ModelConfig.preset("cpu").n_layers


def test_what_fits_fits_and_one_more_does_not():
    for name, context, bits in itertools.product(kv_cache.PRESETS, (512, 131_072, 1_000_003), (6, 16)):
        cache = KVCache.preset(name, context=context, bits=bits)
        for scheme, n in cache.sequences_that_fit().items():
            size = cache.bytes_per_token()[scheme] * context
            assert n * size <= 80e9 < (n + 1) * size


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match="preset must be one of DeepSeek-V2, .*cpu, got 'GPT-2'"):
        KVCache.preset("GPT-2")
    with pytest.raises(Exception, match="'n_layers' trait of a KVCache instance"):
        KVCache(n_layers=0)


# ---- absorbing

class Counted(int):
    """A number that counts its multiplications."""

    n = 0

    def __mul__(self, other):
        Counted.n += 1
        return int(self) * int(other)

    __rmul__ = __mul__


@pytest.mark.parametrize("way", ["naive", "absorbed"])
@pytest.mark.parametrize("T, S", [(1, 1), (1, 7), (3, 7), (7, 7), (11, 7)])
def test_multiplications_are_those_of_the_loops(way, T, S):
    H, Dn, Dr, Dv, C = 2, 3, 2, 5, 11

    def product(matrix, vector):
        return [sum(Counted(a) * b for a, b in zip(row, vector, strict=True)) for row in matrix]

    def through():
        product([[1] * C] * Dn, [1] * C)  # W_UK, or its transpose: as many
        product([[1] * C] * Dv, [1] * C)  # W_UV

    def attend(d_key, d_value):
        product([[1] * d_key], [1] * d_key)  # a score
        product([[1]] * d_value, [1])        # a weight times a value

    Counted.n = 0
    for _ in range(H * (S if way == "naive" else min(T, S))):
        through()
    n_through, Counted.n = Counted.n, 0
    for _ in range(H * min(T, S) * S):
        attend(*((Dn + Dr, Dv) if way == "naive" else (C + Dr, C)))
    counted = Absorb(n_heads=H, d_head=Dn, d_rope=Dr, d_value=Dv, d_latent=C, context=S, queries=T).multiplications()[way]
    assert counted == {"through": n_through, "attend": Counted.n}


SIZES = [dict(d_head=a, d_rope=6, d_value=b, d_latent=c) for a, b, c in [(5, 11, 17), (2, 3, 100), (32, 32, 128), (50, 41, 23)]]


@pytest.mark.parametrize("sizes", SIZES, ids=lambda s: f"C{s['d_latent']}")
def test_the_cheaper_way_is_the_one_that_the_model_takes(sizes):
    attention, piece = LatentAttention(odd_config(**sizes)), Absorb(n_heads=3, **sizes)
    for piece.queries in (1, 2, 5, 13, 64, 200):
        cheaper = []
        for piece.context in range(piece.queries, 400):
            n = {way: sum(parts.values()) for way, parts in piece.multiplications().items()}
            assert (n["absorbed"] < n["naive"]) == attention.absorbing_is_cheaper(piece.queries, piece.context)
            cheaper += [piece.context] if n["absorbed"] < n["naive"] else []
        start = piece.pays_from()
        assert cheaper == ([] if start is None else list(range(start, 400)))


def test_decoding_pays_from_the_second_token_and_a_long_prompt_never():
    assert Absorb().pays_from() == 2
    assert Absorb(queries=170).pays_from() is not None and Absorb(queries=171).pays_from() is None


def test_both_ways_give_the_same_scores_whatever_the_numbers():
    dice = random.Random(0)
    for _ in range(30):
        H, Dn, C, S = (dice.randint(1, 5) for _ in range(4))
        q, c = ([[dice.randint(-9, 9) for _ in range(n)] for _ in range(m)] for n, m in ((Dn, H), (C, S)))
        w = [[[dice.randint(-9, 9) for _ in range(C)] for _ in range(Dn)] for _ in range(H)]
        piece = Absorb(query=q, w_uk=w, c_kv=c, head=dice.randrange(H))
        expected = [sum(q[piece.head][n] * w[piece.head][n][i] * c[s][i] for n in range(Dn) for i in range(C)) for s in range(S)]
        assert piece.scores("naive") == piece.scores("absorbed") == expected


# ---- what is committed

def test_the_fallback_of_a_cache_says_the_numbers():
    table = Table(KVCache.preset("DeepSeek-V3", batch=2).html())
    assert table.rows == [[
        ["MHA hypothetical", "4 MB", "1.05 TB", "100 %", "0"],
        ["GQA hypothetical", "250 KB", "65.5 GB", "6.25 %", "2"],
        ["MQA hypothetical", "31.2 KB", "8.19 GB", "0.781 %", "19"],
        ["MLA in DeepSeek-V3", "70.3 KB", "18.4 GB", "1.76 %", "8"],
    ]]
    qwen = Table(KVCache.preset("Qwen-2.5-72B").html()).rows[0]
    assert qwen[1][0] == "GQA in Qwen-2.5-72B" and qwen[3][0].startswith("MLA hypothetical, at DeepSeek's ratios")
    assert Table(KVCache(n_layers=7).html()).rows[0][3][0] == "MLA"


def test_the_fallback_of_absorb_says_the_numbers():
    identity, counts = Table(Absorb().html()).rows
    assert [row[2:] for row in identity] == [["1", "1"], ["5", "5"], ["2", "2"], ["6", "6"]]
    assert counts == [["Expand the keys", "68.7 billion", "168 million", "68.9 billion"],
                      ["Absorb into the query", "16.8 million", "570 million", "587 million"]]


@each_piece
def test_html_carries_the_state_and_nothing_that_runs(piece):
    one = piece()
    table = Table(one.html())
    assert table.place == {"class": "explorable", "data-explorable": one.name, "data-state": json.dumps(one.state(), ensure_ascii=False)}
    assert table.tags <= {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "p", "em"}
    assert len(one.html()) < LARGEST.get(one.name, 4000)


def test_state_survives_quotes_and_tags_and_refuses_what_is_not_finite():
    odd = {"</div><script>": "it's & <b>\"bold\"</b>"}
    absorb = Absorb(presets=odd)
    assert json.loads(Table(absorb.html()).place["data-state"])["presets"] == odd
    absorb.presets = {"a": float("nan")}
    with pytest.raises(ValueError, match="not JSON compliant"):
        absorb.html()


@each_piece
def test_a_notebook_stores_the_same_output_each_time_and_no_widget(piece):
    tidy = load("_tools/execute.py").tidy
    outputs = []
    for _ in range(2):
        data, metadata = piece()._repr_mimebundle_()
        assert VIEW in data  # live, this wins
        output = nbformat.v4.new_output("execute_result", data=data, metadata=metadata, execution_count=1)
        cell = nbformat.v4.new_code_cell("KVCache()", outputs=[output])
        outputs.append(tidy(nbformat.v4.new_notebook(cells=[cell])).cells[0].outputs[0])
    assert outputs[0] == outputs[1]
    assert set(outputs[0].data) == {"text/html", "text/plain"} and outputs[0].metadata == {}
    assert "\n" not in outputs[0].data["text/plain"]


# ---- the contract of the files

def test_every_script_has_its_class():
    assert set(scripts.NAMES) == {piece.name for piece in ALL}


@pytest.mark.parametrize("path", [*FOLDER.glob("*.js"), ROOT / "book" / "_static" / "explorables.js"], ids=lambda path: path.stem)
def test_a_script_reaches_for_nothing(path):
    text = re.sub(r"//.*|/\*[\s\S]*?\*/", "", path.read_text("utf8").replace("http://www.w3.org/2000/svg", ""))
    text = text.replace("window.explorables", "") if path.parent != FOLDER else text
    reached = re.findall(r"\b(fetch|XMLHttpRequest|WebSocket|import\(|eval|Function|localStorage|sessionStorage|cookie|window|globalThis|"
                         r"navigator|require|Plotly|https?:|innerHTML)", text)
    assert reached == []


@each_piece
def test_a_module_imports_the_kit_alone_and_ends_in_render(piece):
    text = (FOLDER / f"{piece.name}.js").read_text("utf8")
    assert re.findall(r'from "(.*)"', text) == ["./kit.js"]
    assert text.endswith("\nexport default { render };\n")
    assert not re.search(r"^(import|export (?!const|function|default))", scripts.module(piece.name), re.MULTILINE)
    assert not re.search(r"^(import|export)", scripts.classic(piece.name), re.MULTILINE)


def test_what_breaks_the_contract_is_refused(tmp_path, monkeypatch):
    shutil.copy(FOLDER / "kit.js", tmp_path)
    (tmp_path / "lost.js").write_text('import { h } from "./kit.js";\nexport const render = 1;\n')
    monkeypatch.setattr(scripts, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match="lost.js must have one import"):
        scripts.module("lost")


def test_the_colours_are_those_of_the_book():
    css = scripts.CSS
    light = dict(re.findall(r"--xp-(\w+): var\(--\1, (#\w{6})\);", css))
    dark = dict(re.findall(r"--xp-(\w+): (#\w{6});", css))
    assert light == {token: COLORS[token][0] for token in light}
    assert dark == {token: COLORS[token][1] for token in light}
    assert set(re.findall(r"var\(--xp-(\w+)\)", css)) <= set(light)
    rest = re.sub(r"--xp-\w+: [^;]*;", "", css)
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b|rgb|hsl|gradient|shadow: (?!none)", rest)


def test_the_site_needs_neither_torch_nor_anywidget(tmp_path):
    program = f"""
import sys
sys.modules.update(dict.fromkeys(("torch", "anywidget", "traitlets", "minimodels")))
sys.path.insert(0, {str(ROOT / "book" / "_ext")!r})
import explorables
from types import SimpleNamespace
explorables.write(SimpleNamespace(outdir={str(tmp_path)!r}, builder=SimpleNamespace(format="html")))"""
    subprocess.run([sys.executable, "-c", program], check=True)
    written = {path.name for path in (tmp_path / "_static" / "explorables").iterdir()}
    assert written == {"explorables.css", *(f"{piece.name}.js" for piece in ALL)}


def test_only_a_page_with_an_explorable_gets_the_scripts():
    extension, added = load("_ext/explorables.py"), []
    app = SimpleNamespace(add_js_file=lambda name, **_: added.append(name), add_css_file=added.append)
    extension.link(app, "page", "page.html", {"body": "<p>an explorable</p>"}, None)
    assert added == []
    extension.link(app, "page", "page.html", {"body": KVCache().html()}, None)
    assert added == ["explorables.js", "explorables/explorables.css"]


# ---- in a browser

@pytest.fixture(scope="module")
def browser():
    with browsers.chromium() as running:
        yield running


@pytest.fixture(scope="module")
def in_script(browser):
    """Evaluates an expression with the exports of a module as m, loaded from a blob as anywidget does."""
    page = browser.new_page()

    def evaluate(name, expression):
        return page.evaluate("""async ([text, expression]) => {
            const m = await import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
            return new Function("m", `return ${expression}`)(m);
        }""", [scripts.module(name), expression])

    yield evaluate
    page.close()


def test_cache_sizes_agree_in_both_languages(in_script):
    grid = itertools.product((1, 61, 126), (1, 3, 128), (1, 8), (8, 13, 128), (17, 512), (0, 5, 64), (512, 131_072), (6, 16, 32))
    fields = ("n_layers", "n_heads", "n_kv_heads", "d_head", "d_latent", "d_rope", "context", "bits")
    pieces = [KVCache(**dict(zip(fields, values, strict=True)), presets={}) for values in itertools.islice(grid, 0, None, 7)]
    states = json.dumps([piece.state() for piece in pieces])
    assert len(pieces) > 180
    assert in_script("kv_cache", f"{states}.map(m.valuesPerLayer)") == [piece.values_per_layer() for piece in pieces]
    assert in_script("kv_cache", f"{states}.map(m.bytesPerToken)") == [piece.bytes_per_token() for piece in pieces]
    assert in_script("kv_cache", f"{states}.map(m.sequencesThatFit)") == [piece.sequences_that_fit() for piece in pieces]


def test_multiplications_and_scores_agree_in_both_languages(in_script):
    grid = itertools.product((1, 128), (5, 128), (0, 64), (1, 128), (17, 100, 512), (1, 2, 999, 4096), (1, 64, 171, 512))
    fields = ("n_heads", "d_head", "d_rope", "d_value", "d_latent", "context", "queries")
    pieces = [Absorb(**dict(zip(fields, values, strict=True)), head=i % 2, presets={})
              for i, values in enumerate(itertools.islice(grid, 0, None, 5))]
    states = json.dumps([piece.state() for piece in pieces])
    assert in_script("absorb", f"{states}.map(m.multiplications)") == [piece.multiplications() for piece in pieces]
    assert in_script("absorb", f"{states}.map(m.paysFrom)") == [piece.pays_from() for piece in pieces]
    heads = in_script("absorb", f"{states}.slice(0, 2).map(m.oneHead)")
    for head, piece in zip(heads, pieces[:2], strict=True):
        assert head["keys"] == piece.rebuilt_keys() and head["absorbed"] == piece.absorbed_query()
        assert head["scores"] == {way: piece.scores(way) for way in ("naive", "absorbed")}


def test_numbers_are_written_alike_in_both_languages(in_script):
    dice = random.Random(0)
    sizes = [0, 1, 999, 999.4, 999.5, 1000, 1125, 70_272, 999_499, 999_500, 10_250, 3.2e16, 9.9e17]
    sizes += [10 ** dice.uniform(0, 17) for _ in range(300)]
    assert in_script("kv_cache", f"{sizes}.map(x => m.withUnit(x, m.BYTES))") == [base.with_unit(x, base.BYTES) for x in sizes]
    assert in_script("absorb", f"{sizes}.map(x => m.withUnit(x, m.COUNTS))") == [base.with_unit(x, base.COUNTS) for x in sizes]
    shares = [100, 6.25, 0.78125, 1.7578125, 225, 1e-7, 0.00125, *(dice.uniform(0, 200) for _ in range(300))]
    assert in_script("kv_cache", f"{shares}.map(m.figures)") == [base.figures(x) for x in shares]
    assert (base.with_unit(70_272, base.BYTES), base.with_unit(999_500, base.BYTES), base.figures(1.125)) == ("70.3 KB", "1 MB", "1.13")


PAGE = """<!doctype html><html lang="en" {html}><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Explorables</title>{tokens}
<link rel="stylesheet" href="_static/explorables/explorables.css"><script defer src="_static/explorables.js"></script>
<style>body {{ margin: 0; background: var(--paper); }} main {{ max-width: 39rem; margin: 1rem auto; padding: 0 1.25rem; }}</style></head>
<body {body}><main>{pieces}</main></body></html>"""
PIECES = (KVCache.preset("DeepSeek-V3"), Absorb(), KVCache.preset("Llama-3.1-405B", batch=8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small site, made by the extension: pages for the site's two themes, and for a dark notebook, which has no tokens."""
    folder = tmp_path_factory.mktemp("explorables")
    write_statics(folder)
    tokens = "".join(f'<link rel="stylesheet" href="_static/{name}.css">' for name in ("tokens", "fonts"))
    pieces = "\n".join(piece.html() for piece in PIECES)
    themes = {"light": ('data-theme="light"', ""), "dark": ('data-theme="dark"', ""), "lab": ("", 'data-jp-theme-light="false"')}
    for name, (html, body) in themes.items():
        page = PAGE.format(html=html, body=body, pieces=pieces, tokens=tokens if html else "")
        (folder / f"{name}.html").write_text(page, "utf8")
    return folder


@pytest.fixture
def visit(browser, folder):
    with browsers.visits(browser, folder, count=3, width=1280) as open_page:
        yield open_page


def cells(page, nth):
    """The rows of an explorable's table of results, as text, without the first column."""
    return [row.split("|") for row in page.locator(".explorable").nth(nth).locator(".xp-table tbody tr:not(.xp-bars)").evaluate_all(
        "rows => rows.map(row => [...row.querySelectorAll('td')].map(cell => cell.textContent).join('|'))")]


def test_a_page_shows_what_python_computes_for_every_preset_and_precision(visit):
    page = visit()
    first = page.locator(".explorable").first
    for name, bits in itertools.product(kv_cache.PRESETS, (32, 16, 8, 6)):
        first.get_by_label(kv_cache.PRESETS[name].get("label", name), exact=True).check()
        first.get_by_label("6 (V2)" if bits == 6 else str(bits), exact=True).check()
        expected = Table(KVCache.preset(name, bits=bits).html()).rows[0]
        assert cells(page, 0) == [row[1:] for row in expected]
        used = next(row[0] for row in expected if " in " in row[0])
        assert first.locator(".xp-used").evaluate("e => e.closest('th').textContent") == used
    assert cells(page, 1) == [row[1:] for row in Table(Absorb().html()).rows[1]]


def test_keys_alone_move_a_slider_and_the_neighbour_stays(visit):
    page = visit()
    first, before = page.locator(".explorable").first, cells(page, 2)
    first.get_by_label("Layers").focus()
    page.keyboard.press("ArrowRight")
    assert cells(page, 0)[3][0] == "71.4 KB"  # 62 x 576 x 2 bytes
    assert first.get_by_label("Layers").get_attribute("aria-valuetext") == "62"
    assert first.locator("[type=radio]:checked").count() == 1  # bits; the shape is nobody's preset now
    first.get_by_role("status").filter(has_text="Your own with MLA: 71.4 KB a token").wait_for(state="attached")    # spoken after a pause
    assert cells(page, 2) == before
    first.get_by_label("DeepSeek-V3").focus()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    assert cells(page, 0)[1][0] == "328 KB" and first.get_by_label("Qwen-2.5-72B").is_checked()


def test_two_instances_share_no_id_and_every_control_has_a_name(visit):
    page = visit()
    found = page.evaluate("""() => {
        const all = [...document.querySelectorAll(".explorable")];
        const ids = all.flatMap(one => [...one.querySelectorAll("[id]")].map(e => e.id));
        const groups = all.flatMap(one => [...new Set([...one.querySelectorAll("[type=radio]")].map(e => e.name))]);
        const lost = [...document.querySelectorAll(".explorable label[for]")].filter(label =>
            label.closest(".explorable") !== document.getElementById(label.htmlFor)?.closest(".explorable"));
        const unnamed = [...document.querySelectorAll(".explorable input")].filter(e => !(e.labels.length || e.ariaLabel));
        return { ids, groups, lost: lost.length, unnamed: unnamed.length };
    }""")
    assert len(set(found["ids"])) == len(found["ids"]) > 15 and len(set(found["groups"])) == len(found["groups"]) == 8
    assert found["lost"] == found["unnamed"] == 0


def test_the_reader_changes_the_query_and_both_ways_follow(visit):
    page = visit()
    piece = page.locator(".explorable").nth(1)
    piece.get_by_label("Query, number 1").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("-3")
    assert page.evaluate("document.activeElement.ariaLabel") == "Query, number 1"
    piece.get_by_label("3", exact=True).check()
    expected = Absorb(query=[[-3, -1], [1, 3]])
    score = str(expected.scores("naive")[2]).replace("-", "−")
    for words in ("Expand the keys", "Absorb into the query"):
        piece.get_by_label(words).check()
        assert piece.locator(".xp-of-score .xp-here").text_content() == score
        assert piece.locator(".xp-now").text_content().startswith(words)
    assert [text.split(" = ")[-1].startswith(score) for text in piece.locator(".xp-sum").all_text_contents()] == [True, True]
    piece.get_by_label("Query, number 2").fill("99")
    assert piece.get_by_label("Query, number 2").get_attribute("aria-invalid") == "true"
    assert piece.locator(".xp-of-score .xp-here").text_content() == score
    piece.get_by_label("New tokens, T").press("End")
    assert "absorbing never needs fewer" in piece.locator(".xp-readout").last.text_content()


def rgb(color):
    return f"rgb({', '.join(str(int(color[i:i + 2], 16)) for i in (1, 3, 5))})"


@pytest.mark.parametrize("name, dark", [("light", 0), ("dark", 1), ("lab", 1)])
def test_colours_follow_the_theme(visit, name, dark):
    panel, line = visit(name).evaluate("""() => {
        const panel = getComputedStyle(document.querySelector(".xp-panel"));
        return [[panel.backgroundColor, panel.color], getComputedStyle(document.querySelector(".xp-mla")).stroke];
    }""")
    assert panel == [rgb(COLORS["paper"][dark]), rgb(COLORS["ink"][dark])] and line == rgb(COLORS["mla"][dark])


@pytest.mark.parametrize("name", ["light", "lab"])
def test_a_narrow_phone_is_wide_enough(visit, name):
    assert visit(name, width=360).evaluate("""() => [document.documentElement.scrollWidth, [...document.querySelectorAll(".xp-panel *")]
        .filter(e => !e.closest("svg") && e.getBoundingClientRect().right > e.closest(".xp-panel").getBoundingClientRect().right + 1)
        .map(e => e.outerHTML.slice(0, 80))]""") == [360, []]


def test_paper_shows_the_tables_and_no_controls(visit):
    page = visit()
    page.emulate_media(media="print")
    assert page.locator("input[type=range]:visible, input[type=radio]:visible").count() == 0
    assert page.locator(".xp-table:visible").count() == 3 and page.locator(".xp-readout:visible").count() == 4


def test_where_a_script_does_not_arrive_the_table_stays(browser, folder):
    page = browser.new_page()
    page.route("**/kv_cache.js", lambda route: route.abort())
    page.goto(f"{folder.as_uri()}/light.html")
    page.wait_for_selector("[data-live]")
    assert page.locator(".explorable:not([data-live]) table").count() == 2
    page.close()
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{folder.as_uri()}/light.html")
    assert page.locator(".explorable table").count() == 4
    context.close()


def test_costs_agree_in_both_languages(in_script):
    from minimodels.explorables import TrainingCost

    dice = random.Random(0)
    fields = dict(total_billion=(-3, 4), active_percent=(-0.3, 2), scores_gflop=(-1, 3), tokens_trillion=(-3, 2), peak_tflops=(0, 4),
                  utilisation_percent=(0, 2), n_gpus=(0, 5), price_usd=(-0.3, 1))
    pieces = [TrainingCost(**{name: int(10 ** dice.uniform(*ends)) if name == "n_gpus" else 10 ** dice.uniform(*ends) for name, ends in fields.items()},
                           presets={}) for _ in range(200)]
    states = json.dumps([piece.state() for piece in pieces])
    found = in_script("training_cost", f"{states}.map(s => m.computed(s, s.price_usd))")
    assert found == [pytest.approx(piece.run(), rel=1e-12) for piece in pieces]
