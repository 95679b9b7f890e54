"""Figures, tables and tokens: what a notebook stores is plain, small, rounded, named and in the house's colours."""

import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from minimodels import figure, palette, show

ROOT = Path(__file__).parents[1]
TWO = {"MLA": ([1, 2, 3], [3.0, 2.0, 1.0]), "MHA": ([1, 2, 3], [4.0, 3.0, 2.0])}
NAMES = dict(title="It falls", x="step", y="loss, nats")


@pytest.fixture
def displayed(monkeypatch):
    """What was displayed: a list of mime bundles; an update replaces what it updates."""
    import IPython.display

    bundles = []

    class Handle:
        def __init__(self, at):
            self.at = at

        def update(self, bundle, raw):
            bundles[self.at] = bundle

    def display(bundle, *, raw, display_id=False):
        bundles.append(bundle)
        return Handle(len(bundles) - 1) if display_id else None

    monkeypatch.setattr(IPython.display, "display", display)
    return bundles


# ---- colours

def test_css_and_python_hold_one_list_of_colours():
    css = (ROOT / "book" / "_static" / "tokens.css").read_text("utf8")
    light, dark, *others = (dict(re.findall(r"--([\w-]+): ([^;]+);", block)) for block in re.findall(r"\{([^}]*)\}", css))
    assert light == {token: both[0] for token, both in palette.COLORS.items()}
    assert dark == {token: both[1] for token, both in palette.COLORS.items()}
    tints = {name: rule for block in others for name, rule in block.items() if name.endswith("-tint")}
    assert tints == {f"{token}-tint": f"color-mix(in srgb, var(--{token}) {palette.TINT.get(token, 0.13):.0%}, var(--paper))"
                     for token in (*palette.CONCEPTS, "ink", "muted")}


def test_a_pale_ground_is_the_mixture_that_the_site_makes():
    assert palette.light("mla-tint") == "#eee0d9"    # 0.13 · #882804 + 0.87 · #fdfcf9, by hand
    assert palette.light("ink-tint") == "#ebeae7" and palette.light("ink") == "#1f1d1a"


def luminance(color):
    parts = [int(color[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear))


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("token", ["ink", "muted", "mark", *palette.CONCEPTS])
def test_every_colour_that_writes_is_readable_on_paper(token, theme):
    low, high = sorted([luminance(palette.COLORS[token][theme]), luminance(palette.COLORS["paper"][theme])])
    assert (high + 0.05) / (low + 0.05) >= 4.5


def test_the_script_translates_every_token_that_a_figure_may_hold():
    script = (ROOT / "book" / "_static" / "bookfig.js").read_text("utf8")
    tokens = json.loads(re.search(r"const TOKENS = (\[.*?\]);", script, re.DOTALL)[1])
    assert set(tokens) == set(palette.COLORS) - {"mark"}    # mark is mla's light colour, and no figure uses it


# ---- figures

def test_a_figure_without_an_alternative_text_is_an_error():
    for alt in ("", "  "):
        with pytest.raises(ValueError, match="alt must say what a reader would see"):
            show.show(show.lines(TWO, **NAMES), alt=alt)


def test_a_figure_without_a_title_is_an_error():
    with pytest.raises(ValueError, match="title"):
        show.show(go.Figure(go.Bar(y=[1])), alt="a bar")


def test_what_is_stored_is_plain_json_without_a_template():
    fig = go.Figure(go.Scatter(x=np.arange(5), y=torch.arange(5.0).numpy(), marker={"color": np.array([1.23456, 2, 3, 4, 5])}))
    fig.update_layout(title="A finding", template="plotly_white")
    stored = show.figure_json(fig, alt="a line")
    assert stored == json.loads(json.dumps(stored, allow_nan=False))
    assert "template" not in json.dumps(stored) and "bdata" not in json.dumps(stored)
    assert stored["data"][0]["x"] == [0, 1, 2, 3, 4]
    assert stored["data"][0]["marker"]["color"] == [1.235, 2, 3, 4, 5]
    assert stored["layout"]["meta"] == {"alt": "a line", "title": "A finding"}


def test_packed_arrays_are_unpacked():
    packed = {"dtype": "f4", "bdata": "AACAPwAAAEAAAEBAAACAQA==", "shape": "2, 2"}    # 1, 2, 3, 4 as float32
    assert figure.plain({"z": packed}) == {"z": [[1, 2], [3, 4]]}
    assert figure.plain({"x": {k: v for k, v in packed.items() if k != "shape"}}) == {"x": [1, 2, 3, 4]}


@pytest.mark.parametrize("value, stored", [
    (1.234567, 1.235), (123456.0, 123500.0), (123456, 123456), (math.nan, None), (math.inf, None), (-0.0, 0.0), (True, True), ("a", "a"),
    (np.float32(0.1), 0.1), (np.int64(7), 7), ((1, 2), [1, 2]), (range(3), [0, 1, 2]), (None, None),
    (torch.tensor([0.33333, 2.0]), [0.3333, 2.0]),
])
def test_values_are_plain_and_rounded(value, stored):
    plain = figure.plain(value)
    assert plain == stored and type(plain) is type(stored)
    assert math.copysign(1, plain or 0) == math.copysign(1, stored or 0) if isinstance(stored, float) else True


def test_lines_wear_the_colour_of_their_concept_and_their_name_at_the_end():
    series = TWO | {"GQA": ([1, 2, 3], [5, 4, 3]), "loss": ([1, 2, 3], [1, 1, 0.9])}
    fig = show.lines(series, **NAMES)
    drawn = {trace.name: (trace.line.color, trace.line.dash) for trace in fig.data}
    light = {token: both[0] for token, both in palette.COLORS.items()}
    assert drawn == {"MLA": (light["mla"], "solid"), "MHA": (light["attn"], "solid"), "GQA": (light["attn"], "dash"),
                     "loss": (light["ink"], "solid")}
    assert {a.text: a.font.color for a in fig.layout.annotations} == {name: color for name, (color, _) in drawn.items()}


def test_names_at_the_ends_do_not_overlap():
    series = {f"run {i}": ([0, 1], [0.0, 1 + i / 1000]) for i in range(5)}
    labels = show.lines(series, **NAMES).layout.annotations
    px = (figure.HEIGHT - figure.MARGIN_BOTTOM - 2 * figure.LINE - 28) / 1.004
    places = sorted(label.y * px + label.yshift for label in labels)
    assert min(b - a for a, b in zip(places, places[1:])) >= figure.LABEL - 1


def test_a_log_axis_labels_where_plotly_puts_it():
    labels = show.lines({"a": ([1, 10, 100], [1, 10, 1000]), "b": ([1, 100], [2, 10])}, **NAMES, log_x=True, log_y=True).layout.annotations
    assert {label.text: (label.x, label.y) for label in labels} == {"a": (2, 3), "b": (2, 1)}


def test_a_series_must_have_points_and_a_concept_must_exist():
    with pytest.raises(ValueError, match="series 'a' must have as many x as y"):
        show.lines({"a": ([1, 2], [1])}, **NAMES)
    with pytest.raises(ValueError, match="concept of 'a' must be one of .*, got 'rope'"):
        show.lines({"a": ([1], [1])}, **NAMES, concept={"a": "rope"})


def test_a_spread_is_shaded_in_the_line_s_colour():
    area, line = show.lines({"MLA": ([1, 2], [2, 1])}, **NAMES, spread={"MLA": ([1.5, 0.5], [2.5, 1.5])}).data
    assert area.fillcolor == line.line.color and list(area.x) == [1, 2, 2, 1] and list(area.y) == [2.5, 1.5, 0.5, 1.5]


def test_bars_carry_their_numbers():
    fig = show.bars({"MHA": 32_768, "MLA": 576.0}, title="Less", unit="numbers")
    assert list(fig.data[0].text) == ["32,768", "576"] and list(fig.data[0].y) == ["MHA", "MLA"]
    with pytest.raises(ValueError, match="at least one bar"):
        show.bars({}, title="Less", unit="numbers")


def test_a_long_title_wraps_and_gets_room():
    stored = show.figure_json(show.lines(TWO, **NAMES | {"title": "word " * 30}), alt="lines")
    assert stored["layout"]["title"]["text"].count("<br>") == 1    # 149 characters, at most 74 a line
    assert stored["layout"]["margin"]["t"] > show.figure_json(show.lines(TWO, **NAMES), alt="lines")["layout"]["margin"]["t"]


def test_showing_displays_figure_and_caption_with_words_for_those_who_see_neither(displayed):
    show.show(show.lines(TWO, **NAMES), alt="Two lines fall.", caption="Run a & b", name="fig-a")
    figure, caption = displayed
    assert figure["text/plain"] == "[figure: It falls Two lines fall.]"
    assert figure[show.MIME]["layout"]["meta"] == {"alt": "Two lines fall.", "title": "It falls", "caption": "Run a & b", "name": "fig-a"}
    assert caption["text/html"] == '<p class="bookfig-caption"><em>Run a &amp; b</em></p>'


def test_a_live_figure_leaves_one_output(displayed):
    live = show.Live(alt="A line grows.")
    for n in (1, 2, 3):
        live.draw(show.lines({"loss": (range(n), range(n))}, **NAMES))
    assert len(displayed) == 1 and displayed[0][show.MIME]["data"][0]["x"] == [0, 1, 2]


def test_colab_gets_html(displayed, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "google.colab", object())
    show.show(show.lines(TWO, **NAMES), alt="Two lines fall.")
    assert set(displayed[0]) == {"text/html", "text/plain"} and "Plotly.newPlot" in displayed[0]["text/html"]


# ---- drawings

@pytest.fixture
def drawings(tmp_path, monkeypatch):
    """A folder with one drawing and a style sheet of two rules."""
    (tmp_path / "line.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 40"><title>t</title><path class="line-mla"/></svg>')
    (tmp_path / "drawing.css").write_text("/* what it is */\n.drawing .line-mla { stroke: var(--mla); fill: var(--mla-tint); }\n")
    monkeypatch.setattr(show, "DRAWINGS", tmp_path)


def test_a_drawing_carries_its_own_light_style_and_ground(drawings, displayed):
    show.drawing("line", alt='A "line" & more', caption="It *rises*.", wide=True)
    drawn, caption = displayed
    svg = drawn["image/svg+xml"]
    root = ElementTree.fromstring(svg)
    assert (root.get("viewBox"), root.get("width")) == ("-16 -16 132 72", "132")
    assert (root.get("role"), root.get("aria-label")) == ("img", 'A "line" & more')
    assert json.loads(root.get("data-drawing")) == {"name": "line", "alt": 'A "line" & more', "wide": True, "margin": ""}
    assert ".drawing .line-mla { stroke: #882804; fill: #eee0d9; }" in svg and "what it is" not in svg
    assert svg.index("</style>") < svg.index('class="d-paper"') < svg.index('class="line-mla"')
    assert drawn["text/plain"] == '[drawing: A "line" & more]' and caption == {"text/markdown": "It *rises*.", "text/plain": "It *rises*."}


def test_a_drawing_needs_words_and_a_file(drawings, displayed):
    with pytest.raises(ValueError, match="alt must say what a reader would see"):
        show.drawing("line", alt=" ")
    with pytest.raises(ValueError, match=r"name must be a drawing of .* \(line\), got 'lime'"):
        show.drawing("lime", alt="A line")
    assert displayed == []


def test_every_colour_of_the_drawings_style_is_known():
    for token in re.findall(r"var\(--([\w-]+)\)", (show.DRAWINGS / "drawing.css").read_text("utf8")):
        assert re.fullmatch(r"#[0-9a-f]{6}", palette.light(token))


# ---- tables and tokens

def test_a_table_is_markdown_with_numbers_on_the_right(displayed):
    rows = [{"preset": "cpu", "parameters": 1_700_000, "bits": np.float32(1.42341)}, {"preset": "a|b", "parameters": 17, "bits": 1}]
    show.table(rows, caption="Two.")
    assert displayed[0]["text/markdown"] == (
        "| preset | parameters | bits |\n| --- | ---: | ---: |\n| cpu | 1,700,000 | 1.423 |\n| a\\|b | 17 | 1 |\n\n*Two.*")
    assert displayed[0]["text/plain"] == "preset  parameters   bits\ncpu      1,700,000  1.423\na|b             17      1"


def test_a_table_has_rows_with_the_same_keys():
    for rows in ([], [{"a": 1}, {"b": 1}]):
        with pytest.raises(ValueError, match="same keys"):
            show.table(rows)


def test_each_token_carries_the_number_of_its_expert(displayed):
    show.tokens_by_expert(["<a", " b", "\n", "   "], torch.tensor([3, 0, 1, 3]), n_experts=4)
    html = displayed[0]["text/html"]
    assert re.findall(r">([^<>]+)<sub>(\d+)</sub>", html) == [("&lt;a", "3"), (" b", "0"), ("⏎", "1"), ("␣␣␣", "3")]
    assert re.findall(r">(\d+)</span>&#8202;×&#8202;(\d+)", html) == [("0", "1"), ("1", "1"), ("2", "0"), ("3", "2")]
    assert displayed[0]["text/plain"] == "'<a':3 ' b':0 '\\n':1 '   ':3"


@pytest.mark.parametrize("experts, message", [([0], "as many as tokens, 2, got 1"), ([0, 4], r"in \[0, n_experts=4\), got 4")])
def test_experts_that_do_not_fit_are_refused(experts, message):
    with pytest.raises(ValueError, match=message):
        show.tokens_by_expert(["a", "b"], experts, n_experts=4)


@pytest.mark.parametrize("n_experts", [4, 8, 16, 64])
def test_experts_have_different_hues(n_experts):
    hues = [re.search(r"--hue:(\d+)", show._chip("", e, n_experts))[1] for e in range(n_experts)]
    assert len(set(hues)) == n_experts


def test_dots_show_every_seed_and_their_mean_with_the_first_row_on_top():
    fig = show.dots({"MHA": [1.0, 2.0, 6.0], "MLA": [4.0]}, title="A finding", unit="bits per byte")
    stored = show.figure_json(fig, alt="dots")
    seeds, mean = stored["data"][0], stored["data"][1]
    assert seeds["x"] == [1.0, 2.0, 6.0] and seeds["y"] == ["MHA"] * 3 and mean["x"] == [3.0] and mean["text"] == ["3"]
    assert stored["data"][0]["marker"]["color"] == show.COLORS["attn"][0] and stored["data"][2]["marker"]["color"] == show.COLORS["mla"][0]
    bottom, top = stored["layout"]["yaxis"]["range"]
    assert bottom > 1 and top < 0    # two rows, 0 and 1, and room for the mean above the first
    with pytest.raises(ValueError, match="at least one row, and each row a number"):
        show.dots({"MHA": []}, title="A finding", unit="bits")
