"""Static pictures of the figures in a notebook, for readers whose program does not run plotly: GitHub, a printed page.

A picture stands beside the figure's JSON as image/png. It has 32 colours, which is enough for lines on paper, and a third of the size.
"""

import base64
import shutil
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import plotly

ROOT = Path(__file__).parents[2]
FIGURE, PICTURE = "application/vnd.plotly.v1+json", "image/png"
WIDTH, SCALE, N_COLORS = 720, 2, 32
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync"]
NO_BROWSER = "no Chromium here, so figures get no static picture; the notebook is not fit to be committed (apt-get install chromium)"
DRAW = """async figure => {
    const { sliders, updatemenus, ...layout } = figure.layout;
    await document.fonts.ready;
    await Plotly.newPlot("figure", figure.data, { ...layout, width: %d }, { staticPlot: true });
    await document.fonts.ready;
}""" % WIDTH
PIXELS = """async png => {
    const bitmap = await createImageBitmap(await (await fetch("data:image/png;base64," + png)).blob());
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    canvas.drawImage(bitmap, 0, 0);
    const { data, width } = canvas.getImageData(0, 0, bitmap.width, bitmap.height);
    let text = "";
    for (let i = 0; i < data.length; i += 30000) text += String.fromCharCode(...data.subarray(i, i + 30000));
    return [btoa(text), width];
}"""


def chromium() -> str | None:
    """Where a Chromium is on this machine."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next(filter(None, map(shutil.which, names)), None)


def figures(notebook):
    """The outputs of a notebook that hold a figure."""
    return [o for cell in notebook.cells for o in cell.get("outputs", []) if FIGURE in o.get("data", {})]


def add(notebook):
    """Put a picture beside every figure. Without a browser say so, and leave the notebook as it is."""
    outputs = figures(notebook)
    if not outputs:
        return
    if chromium() is None:
        print(NO_BROWSER, file=sys.stderr)
        return
    for output, picture in zip(outputs, draw([output["data"][FIGURE] for output in outputs])):
        output["data"][PICTURE] = base64.b64encode(picture).decode() + "\n"
        output["metadata"] = {PICTURE: {"width": WIDTH}}


def draw(stored) -> list[bytes]:
    """A PNG for each figure, drawn by plotly.js in the light colours and the book's own faces."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGS)
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, device_scale_factor=SCALE, color_scheme="light")
        page.goto((ROOT / "book" / "_static" / "fonts.css").as_uri())    # so that the faces are found beside it
        page.set_content('<link rel="stylesheet" href="fonts.css"><body style="margin:0;font-family:var(--sans)">.<div id="figure"></div>')
        page.add_script_tag(path=Path(plotly.__file__).parent / "package_data" / "plotly.min.js")
        drawn = []
        for figure in stored:
            page.evaluate(DRAW, figure)
            screenshot = page.locator("#figure").screenshot()
            pixels, width = page.evaluate(PIXELS, base64.b64encode(screenshot).decode())
            drawn.append(indexed_png(np.frombuffer(base64.b64decode(pixels), dtype=np.uint8).reshape(-1, width, 4)[:, :, :3]))
        browser.close()
    return drawn


def indexed_png(pixels) -> bytes:
    """pixels (height, width, 3) as a PNG with the N_COLORS commonest colours; others become the nearest of them."""
    height, width, _ = pixels.shape
    codes = pixels.astype(np.int32) @ np.array([65536, 256, 1], dtype=np.int32)
    colors, inverse, count = np.unique(codes, return_inverse=True, return_counts=True)
    rgb = np.stack([colors >> 16, colors >> 8 & 255, colors & 255], axis=1)
    palette = rgb[np.argsort(-count, kind="stable")[:N_COLORS]]
    nearest = ((rgb[:, None] - palette[None]) ** 2).sum(axis=2).argmin(axis=1).astype(np.uint8)
    rows = np.zeros((height, width + 1), dtype=np.uint8)    # a row begins with its filter, none
    rows[:, 1:] = nearest[inverse].reshape(height, width)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)), (b"PLTE", palette.astype(np.uint8).tobytes()),
              (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
