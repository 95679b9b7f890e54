"""Static pictures of figures: what a notebook shows where nobody runs plotly."""

import base64
import importlib.util
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from minimodels import show

nbformat = pytest.importorskip("nbformat")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pictures():
    spec = importlib.util.spec_from_file_location("book_tool_pictures", ROOT / "book" / "_tools" / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def decode(png):
    """The pixels of a PNG with a palette and no filter, read by its specification."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at:at + 8])
        data = png[at + 8:at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length:at + 12 + length])[0] == zlib.crc32(kind + data)
        chunks[kind], at = data, at + 12 + length
    width, height, depth, color_type = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (depth, color_type) == (8, 3)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), dtype=np.uint8).reshape(height, width + 1)
    assert not rows[:, 0].any()
    return np.frombuffer(chunks[b"PLTE"], dtype=np.uint8).reshape(-1, 3)[rows[:, 1:]]


def notebook_with(*outputs):
    cell = nbformat.v4.new_code_cell("show.show(fig)", outputs=[nbformat.v4.new_output("display_data", data) for data in outputs])
    return nbformat.v4.new_notebook(cells=[cell])


def test_few_colours_come_back_as_they_were(pictures):
    pixels = np.random.default_rng(0).choice(np.array([[253, 252, 249], [31, 29, 26], [136, 40, 4]], dtype=np.uint8), size=(7, 5))
    assert (decode(pictures.indexed_png(pixels)) == pixels).all()


def test_a_rare_colour_becomes_the_nearest_of_the_common_ones(pictures):
    pixels = np.repeat(np.arange(0, 128, 4, dtype=np.uint8), 3 * 4).reshape(-1, 4, 3)    # 32 greys, each four times
    rare = np.array([[[5, 5, 5]] * 3 + [[0, 0, 0]]], dtype=np.uint8)
    assert (decode(pictures.indexed_png(np.concatenate([pixels, rare])))[-1, :3] == 4).all()


def test_without_a_browser_the_notebook_stays_and_one_line_says_so(pictures, monkeypatch, capsys):
    monkeypatch.setattr(pictures, "chromium", lambda: None)
    notebook = notebook_with({pictures.FIGURE: {"data": [], "layout": {}}})
    pictures.add(notebook)
    assert pictures.PICTURE not in notebook.cells[0].outputs[0]["data"]
    assert capsys.readouterr().err.count("\n") == 1


def test_a_figure_gets_a_small_picture_twice_as_fine_as_it_is_shown(pictures):
    pytest.importorskip("playwright")
    if pictures.chromium() is None:
        pytest.skip("no Chromium: apt-get install chromium")
    fig = show.lines({"MLA": ([1, 2, 3], [3.0, 2.0, 1.0]), "MHA": ([1, 2, 3], [4.0, 3.0, 2.0])}, title="It falls", x="step", y="loss, nats")
    notebook = notebook_with({pictures.FIGURE: show.figure_json(fig, alt="Two lines fall.")}, {"text/plain": "42"})
    pictures.add(notebook)
    drawn, other = notebook.cells[0].outputs
    pixels = decode(base64.b64decode(drawn["data"][pictures.PICTURE]))
    assert pixels.shape[1] == 2 * drawn["metadata"][pictures.PICTURE]["width"] == 2 * pictures.WIDTH
    assert len(drawn["data"][pictures.PICTURE]) < 60_000
    assert {(136, 40, 4), (95, 110, 160)} <= set(map(tuple, pixels.reshape(-1, 3).tolist())), "the lines' colours"
    assert list(other["data"]) == ["text/plain"]
