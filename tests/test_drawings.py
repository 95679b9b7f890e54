"""The drawings keep to minimodels/drawings/README.md: its classes and sizes, words that fit, and areas that are to scale."""

import dataclasses
import hashlib
import re
import statistics
from pathlib import Path
from xml.etree import ElementTree

import browser as browsers
import pytest

from minimodels.corpus import END
from minimodels.cost import flops_per_token
from minimodels.ladder import rungs
from minimodels.studies import moe, recorded
from minimodels.tasks import ANSWER, END_ANSWER, END_THINK, SETS, THINK, addition

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "minimodels" / "drawings"
CSS = (FOLDER / "drawing.css").read_text("utf8")
SVG = "{http://www.w3.org/2000/svg}"
FILES = sorted(FOLDER.glob("*.svg"))
BROAD = [path for path in FILES if not path.stem.endswith(".narrow")]
BROADEST, NARROWEST = 900, 350              # px
LOOKS = re.compile(r"style|fill.*|stroke.*|font.*|opacity|color|on.*|.*href|src")

every_file = pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
every_drawing = pytest.mark.parametrize("path", BROAD, ids=lambda p: p.stem)


def read(path):
    return ElementTree.parse(path).getroot()


def size(path):
    x, y, width, height = (float(n) for n in read(path).get("viewBox").split())
    assert (x, y) == (0, 0), f"{path.name}: the viewBox must begin at 0 0"
    return width, height


def is_narrow(path):
    return path.stem.endswith(".narrow")


def words(path, *tags):
    return [" ".join("".join(e.itertext()).split()) for tag in tags for e in read(path).iter(SVG + tag)]


def classes(path):
    return {name for element in read(path).iter() for name in element.get("class", "").split()}


# ---- what a file holds

def test_there_are_drawings_and_a_vocabulary():
    assert BROAD
    assert {"d-label", "d-thick", "tint-mla"} <= vocabulary()


def vocabulary():
    return set(re.findall(r"\.([a-z]+-[a-z0-9]+)", CSS))


@every_file
def test_a_drawing_uses_only_the_classes_of_the_stylesheet(path):
    unknown = classes(path) - vocabulary()
    assert not unknown, f"{path.name}: {', '.join(sorted(unknown))}: not in {FOLDER.name}/README.md"


@every_file
def test_a_drawing_has_a_title_and_a_long_description(path):
    title, description = words(path, "title"), words(path, "desc")
    assert len(title) == len(description) == 1
    assert 1 <= len(title[0].split()) <= 10
    assert description[0].count(".") >= 2, "the description must say in sentences what is drawn"


@every_file
def test_a_drawing_has_no_look_of_its_own_and_asks_for_nothing(path):
    text = path.read_text("utf8")
    for element in read(path).iter():
        tag = element.tag.removeprefix(SVG)
        assert tag not in {"style", "script", "image", "a", "foreignObject", "use"}, f"{path.name}: <{tag}>"
        wrong = [name for name in element.keys() if LOOKS.fullmatch(name.split("}")[-1])]
        assert not wrong, f"{path.name}: {', '.join(wrong)} at <{tag}>: use a class"
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b(?!-)", text), "colours come from classes"
    assert re.findall(r"\w+://[^\"\s]+", text) == ["http://www.w3.org/2000/svg"]


@every_file
def test_ids_begin_with_the_files_name_and_what_is_referred_to_is_there(path):
    ids = {element.get("id") for element in read(path).iter() if element.get("id")}
    start = path.stem.replace(".", "-") + "-"
    assert all(name.startswith(start) for name in ids), f"ids must begin with {start}, got {sorted(ids)}"
    assert set(re.findall(r"url\(#([^)]+)\)", path.read_text("utf8"))) == ids


@every_file
def test_a_drawing_fits_its_place(path):
    width, _ = size(path)
    assert width <= (NARROWEST if is_narrow(path) else BROADEST)


@every_drawing
def test_what_is_wider_than_a_phone_has_a_narrow_form_that_says_the_same(path):
    if size(path)[0] <= NARROWEST:
        return
    narrow = path.with_name(f"{path.stem}.narrow.svg")
    assert narrow.exists(), f"{narrow.name} is missing: {path.name} is wider than {NARROWEST} px"
    assert words(narrow, "title", "desc") == words(path, "title", "desc")
    assert symbols(narrow) == symbols(path)


def symbols(path):
    """The names of the code that a drawing shows, and the word for what is kept."""
    texts = ["".join(e.itertext()) for e in read(path).iter(SVG + "text") if "d-code" in e.get("class", "")]
    return {*texts, *({"cached"} & set(words(path, "text")))}


@every_file
def test_text_is_large_enough(path):
    # d-code is exempt on a phone: a monospaced letter of 13.5 px is wider than one of 14 px in the sans
    for name, px in re.findall(r"\.(d-[a-z]+) \{[^}]*font-size: ([\d.]+)px", CSS):
        if name in classes(path) and not (is_narrow(path) and name == "d-code"):
            assert float(px) >= (14 if is_narrow(path) else 13), f"{path.name}: {name} has {px} px"


@every_file
def test_what_is_called_cached_has_a_heavy_outline(path):
    if "cached" in words(path, "text"):
        assert any("d-thick" in e.get("class", "") for e in read(path).iter(SVG + "rect"))


# ---- what the drawings claim

@pytest.mark.parametrize("form", ["cache", "cache.narrow"])
def test_the_cache_is_drawn_to_scale(form):
    """The inked lengths stand to each other as the cached values of MHA, GQA-8, MQA and MLA at V2's sizes."""
    lengths = [sum(float(n) for n in re.findall(r"h(\d[\d.]*)v", path.get("d")))
               for path in read(FOLDER / f"{form}.svg").iter(SVG + "path")]
    H, Dh, C, Dr = 128, 128, 512, 64
    values = [2 * H * Dh, 2 * 8 * Dh, 2 * Dh, C + Dr]
    assert [length / lengths[0] for length in lengths] == pytest.approx([value / values[0] for value in values])
    said = [int(re.sub(r"\D", "", text)) for text in words(FOLDER / f"{form}.svg", "text") if re.fullmatch(r"[\d,]+ values", text)]
    assert said == values


def test_the_ratios_in_the_drawings_are_right():
    assert 32_768 // 2_048 == 16 and 32_768 // 256 == 128
    assert round(32_768 / (512 + 64)) == 57                  # MHA's cache by MLA's
    assert round(128 * (128 + 128) / (512 + 64)) == 57       # k_nope and v of V3's heads, by what they are rebuilt from


@pytest.mark.parametrize("form", ["rungs", "rungs.narrow"])
def test_the_rungs_are_drawn_with_the_fields_that_change(form):
    climb = rungs("cpu")
    fields = [f"{f.name}={value!r}".replace("'", '"') for below, above in zip(climb, climb[1:]) for a, b in ((below.model, above.model), (below.training, above.training))
              for f in dataclasses.fields(a) if (value := getattr(b, f.name)) != getattr(a, f.name)]
    assert symbols(FOLDER / f"{form}.svg") == {"yardstick", *fields}
    assert any("320 hidden" in said for said in words(FOLDER / f"{form}.svg", "desc")) and {rung.model.d_ff for rung in climb} == {320}


@pytest.mark.parametrize("form", ["whole", "whole.narrow"])
def test_the_whole_model_has_as_many_experts_as_the_top_rung(form):
    top = rungs("cpu")[-1].model
    squares = [e.get("class") for e in read(FOLDER / f"{form}.svg").iter(SVG + "rect") if e.get("rx") == "1"]
    assert len(squares) == top.n_experts + top.n_shared and squares.count("solid-moe") == top.top_k + top.n_shared
    assert any(f"{top.n_layers} times" in said for said in words(FOLDER / f"{form}.svg", "text")) and top.n_dense_layers == 1


@pytest.mark.parametrize("form", ["fair", "fair.narrow"])
def test_the_fair_scales_are_those_of_the_records(form):
    experts, dense = (statistics.mean(t["bits_per_byte"] for t in recorded(name)["trials"] if t["arm"] == arm)
                      for name, arm in (("moe-quality", "fine + shared"), ("mla-quality", "mha")))
    longer = statistics.mean(t["bits_per_byte"] for t in recorded("moe-seconds")["trials"])
    said = [text for text in words(FOLDER / f"{form}.svg", "text") if re.fullmatch(r"1\.\d\d", text)]
    assert said == [f"{bits:.2f}" for bits in (experts, dense, experts, dense, experts, longer)]
    per_token = [flops_per_token(model, seq_len=256) for model in (moe.MODELS["fine + shared"], moe.YARDSTICK)]
    assert round(100 * (per_token[0] / per_token[1] - 1), 1) == 0.8
    blocks = [e.get("class").split("-")[1] for e in read(FOLDER / f"{form}.svg").iter(SVG + "rect")]
    assert blocks == 6 * ["moe"] + 6 * ["dense"] + 6 * ["moe"] + 7 * ["dense"] + 6 * ["moe"] + 10 * ["dense"]
    assert moe.RECIPE.steps == 600 and moe.SECONDS.steps == 1000 and round(600 * 8 * 256 / 1e6, 2) == 1.23


@pytest.mark.parametrize("form", ["column", "column.narrow"])
def test_the_sum_by_columns_is_the_worked_solution_token_by_token(form):
    tokens = [text for text in words(FOLDER / f"{form}.svg", "text") if text in {END_THINK, THINK, ANSWER, END_ANSWER} or re.fullmatch(r"[\d+=;]", text)]
    problem = addition(347, 85)
    shown = "".join(tokens[tokens.index(THINK):])
    assert shown + END == problem.completion and problem.is_right("432")
    assert "".join(tokens[:tokens.index(THINK)]) == "110" + "347" + "85" + "+" + "432"     # by hand: carries, terms and sum


@pytest.mark.parametrize("form", ["threesets", "threesets.narrow"])
def test_the_three_sets_are_drawn_with_the_parts_and_keys_of_the_code(form):
    parts = [e.get("class") for e in read(FOLDER / f"{form}.svg").iter(SVG + "rect") if e.get("width") in ("54", "56")]
    assert [parts.count(name) for name in ("tint-ink", "tint-rl", "line-ink d-dashed")] == [end - first for first, end in SETS.values()]
    shown = symbols(FOLDER / f"{form}.svg")
    for a, b, part, name in ((347, 85, 3, "train"), (85, 347, 3, "train"), (520, 136, 8, "rl"), (640, 99, 9, "eval")):
        problem = addition(a, b)
        assert {problem.prompt, problem.key, name} <= shown and problem.belongs_to == name
        assert int(hashlib.sha256(problem.key.encode()).hexdigest()[:16], 16) % 10 == part


@pytest.mark.parametrize("form", ["group", "group.narrow"])
def test_the_advantages_of_the_group_follow_from_its_rewards(form):
    shown = words(FOLDER / f"{form}.svg", "text")
    rewards = [float(addition(347, 85).is_right(text)) for text in shown if re.fullmatch(r"\d{3}", text)]
    mean, spread = statistics.mean(rewards), statistics.stdev(rewards)
    assert len(rewards) == 4 and f"mean, {mean:g}" in shown and spread == pytest.approx(0.577, abs=5e-4)
    assert [text.replace("−", "-") for text in shown if re.fullmatch(r"[+−]\d\.\d+", text)] == [f"{(r - mean) / spread:+.2f}" for r in rewards]


# ---- what a browser measures

MEASURE = """() => Object.fromEntries([...document.querySelectorAll('svg')].map(svg => [svg.id, {
    texts: [...svg.querySelectorAll('text')].map(e => { const b = e.getBBox(); return [e.textContent, b.x, b.y, b.width, b.height]; }),
    rects: [...svg.querySelectorAll('rect')].map(e => { const b = e.getBBox(); return [b.x, b.y, b.width, b.height]; })}]))"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """{name of a file: its texts and rectangles, as laid out in the site's faces}."""
    fonts = ROOT / "book" / "_static" / "fonts.css"
    page_file = tmp_path_factory.mktemp("drawings") / "all.html"
    drawn = "".join(path.read_text("utf8").replace("<svg ", f'<svg id="{path.stem}" width="{size(path)[0]}" ', 1) for path in FILES)
    page_file.write_text(f'<meta charset="utf-8"><link rel="stylesheet" href="{fonts.as_uri()}"><style>{CSS}</style>'
                         f'<div class="drawing">{drawn}</div>', "utf8")
    with browsers.chromium() as browser:
        page = browser.new_page()
        page.goto(page_file.as_uri())
        page.evaluate("document.fonts.ready")
        return page.evaluate(MEASURE)


@pytest.mark.xdist_group("drawings")
@every_file
def test_no_text_runs_over_the_edge_or_out_of_its_box(path, measured):
    width, height = size(path)
    for text, x, y, w, h in measured[path.stem]["texts"]:
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height, f"{text!r} runs out of the drawing"
        around = [r for r in measured[path.stem]["rects"] if r[0] < x + w / 2 < r[0] + r[2] and r[1] < y + h / 2 < r[1] + r[3]]
        if around:
            left, _, room, _ = around[-1]      # the topmost
            assert x >= left + 2 and x + w <= left + room - 2, f"{text!r}, {w:.0f} px, runs out of its box, {room:.0f} px"


@pytest.mark.xdist_group("drawings")
@every_file
def test_no_two_texts_overlap(path, measured):
    texts = measured[path.stem]["texts"]
    for i, (a, ax, ay, aw, ah) in enumerate(texts):
        for b, bx, by, bw, bh in texts[i + 1:]:
            across, down = min(ax + aw, bx + bw) - max(ax, bx), min(ay + ah, by + bh) - max(ay, by)
            assert across <= 0 or down <= 4, f"{a!r} and {b!r} overlap"      # lines of a text may touch: a box has room above its letters
