"""What a notebook shows: figures, drawings, tables and tokens, each with words for those who do not see it."""

import json
import re
import sys
from collections import Counter
from html import escape
from pathlib import Path

import numpy as np

from minimodels.figure import bars, dots, figure_json, lines, plain, say    # noqa: F401, so that a chapter imports show alone
from minimodels.palette import COLORS, CONCEPTS, light    # noqa: F401

MIME = "application/vnd.plotly.v1+json"
DRAWINGS = Path(__file__).parent / "drawings"
GROUND = 16                                        # px of paper around a drawing in a raw notebook
BAR = r"\|"                                        # a bar inside a cell of a Markdown table


# ---- figures

def show(fig, *, alt, caption="", name=""):
    """Display fig in the house style.

    alt: what a reader would see, for those who do not see it. caption: plain text below; with it the site numbers the figure.
    name: the anchor that a link on the site may use. Raises ValueError without alt, or without a title in the figure.
    """
    from IPython.display import display

    display(_bundle(fig, alt, caption, name), raw=True)
    if caption:
        display(_caption(caption), raw=True)


class Live:
    """A place in the output where a figure is drawn again and again: live = Live(alt=…), then live.draw(fig) in a loop.

    The notebook keeps the last drawing. nbval does not see that a drawing was replaced: tag the cell nbval-ignore-output.
    Arguments and errors as in `show`.
    """

    def __init__(self, *, alt, caption="", name=""):
        self.alt, self.caption, self.name = alt, caption, name
        self._handle = None

    def draw(self, fig):
        """Replace what stands there by fig."""
        from IPython.display import display

        bundle = _bundle(fig, self.alt, self.caption, self.name)
        if self._handle is not None:
            self._handle.update(bundle, raw=True)
            return
        self._handle = display(bundle, raw=True, display_id=True)
        if self.caption:
            display(_caption(self.caption), raw=True)


def _bundle(fig, alt, caption, name):
    stored = figure_json(fig, alt=alt, caption=caption, name=name)
    text = f"[figure: {stored['layout']['meta']['title']} {alt}]"
    if "google.colab" not in sys.modules:
        return {MIME: stored, "text/plain": text}
    from plotly.io import to_html    # Colab draws plotly from HTML alone

    return {"text/html": to_html(stored, include_plotlyjs="cdn", full_html=False, validate=False), "text/plain": text}


def _caption(caption):
    # raw notebooks show this; on the site the figure has its caption already, and the extension drops this
    return {"text/html": f'<p class="bookfig-caption"><em>{escape(caption)}</em></p>', "text/plain": caption}


# ---- drawings

def drawing(name, *, alt, caption="", wide=False, margin=""):
    """Display minimodels/drawings/NAME.svg, in the light colours on a ground of paper; the site draws the file in its own theme.

    alt: what a reader would see. caption: Markdown, below. wide: over the text and the margin column. margin: a title; the drawing then
    stands in the margin. Raises ValueError without alt, or for a name without a file.
    """
    from IPython.display import display

    if not str(alt).strip():
        raise ValueError("alt must say what a reader would see, got an empty text")
    path = DRAWINGS / f"{name}.svg"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in DRAWINGS.glob("*.svg") if "." not in p.stem))
        raise ValueError(f"name must be a drawing of {DRAWINGS.name}/ ({known}), got {name!r}")
    placed = {"name": name, "alt": alt, "wide": wide, "margin": margin}
    display({"image/svg+xml": _alone(path.read_text("utf8"), placed), "text/plain": f"[drawing: {alt}]"}, raw=True)
    if caption:
        display({"text/markdown": caption, "text/plain": caption}, raw=True)


def _alone(svg, placed):
    """The drawing as it stands by itself: with its style, its ground, and how it is placed, which the site reads."""
    x, y, width, height = (float(n) for n in re.search(r'viewBox="([^"]+)"', svg)[1].split())
    css = re.sub(r"var\(--([\w-]+)\)", lambda found: light(found[1]), (DRAWINGS / "drawing.css").read_text("utf8"))
    css = "\n".join(line for line in css.splitlines() if not line.startswith("/*"))
    box = f"{x - GROUND:g} {y - GROUND:g} {width + 2 * GROUND:g} {height + 2 * GROUND:g}"
    root = (f'<svg xmlns="http://www.w3.org/2000/svg" class="drawing" viewBox="{box}" width="{width + 2 * GROUND:g}" role="img" '
            f'aria-label="{escape(placed["alt"])}" data-drawing="{escape(json.dumps(placed, ensure_ascii=False))}">')
    ground = f'<rect x="{x - GROUND:g}" y="{y - GROUND:g}" width="100%" height="100%" class="d-paper"/>'
    return re.sub(r"<svg [^>]*>", lambda _: f"{root}\n<style>\n{css}\n</style>\n{ground}", svg.strip(), count=1)


# ---- tables and tokens

def table(rows, *, caption=""):
    """Display rows, a list of dictionaries with the same keys, as a table; numbers stand right, at four significant digits.

    Raises ValueError for no rows, or for rows with different keys.
    """
    from IPython.display import display

    if not rows or any(list(row) != list(rows[0]) for row in rows):
        raise ValueError(f"rows must be dictionaries with the same keys, and at least one, got {[list(row) for row in rows]}")
    columns = list(rows[0])
    is_number = [all(isinstance(row[c], (int, float, np.number)) for row in rows) for c in columns]
    cells = [[str(c) for c in columns]] + [[say(plain(row[c])) for c in columns] for row in rows]
    rules = ["---:" if right else "---" for right in is_number]
    markdown = "\n".join(f"| {' | '.join(c.replace('|', BAR) for c in row)} |" for row in (cells[0], rules, *cells[1:]))
    markdown += f"\n\n*{caption}*" if caption else ""
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    justified = [[c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, is_number)] for row in cells]
    text = "\n".join("  ".join(row).rstrip() for row in justified)
    display({"text/markdown": markdown, "text/plain": text}, raw=True)


def tokens_by_expert(tokens, experts, *, n_experts, caption=""):
    """Display text with each token on the colour of its expert and the expert's number after it, and how many tokens each expert got.

    tokens: list of str, as decoded, in order. experts: as many ints in [0, n_experts), say the expert with the largest weight.
    Raises ValueError for unequal lengths or an expert that does not exist.
    """
    from IPython.display import display

    experts = plain(experts)
    if len(tokens) != len(experts):
        raise ValueError(f"experts must be as many as tokens, {len(tokens)}, got {len(experts)}")
    for e in experts:
        if not 0 <= e < n_experts:
            raise ValueError(f"experts must be in [0, n_experts={n_experts}), got {e}")
    words = "".join(_token(t, e, n_experts) for t, e in zip(tokens, experts))
    load = Counter(experts)
    counts = [f"{_chip(str(e), e, n_experts)}&#8202;×&#8202;{load[e]}" for e in range(n_experts)]
    key = " ".join(f'<span style="white-space:nowrap">{count}</span>' for count in counts)
    html = (f'<div class="by-expert" role="group" aria-label="Text; after each token the number of its expert">'
            f'<p style="font-family:monospace;white-space:pre-wrap;line-height:2;overflow-wrap:anywhere">{words}</p>'
            f'<p>Tokens an expert got: {key}</p>' + (f"<p><em>{escape(caption)}</em></p>" if caption else "") + "</div>")
    text = " ".join(f"{t!r}:{e}" for t, e in zip(tokens, experts))
    display({"text/html": html, "text/plain": text}, raw=True)


def _token(token, expert, n_experts):
    seen = token.replace("\n", "⏎").replace("\t", "⇥")
    seen = "␣" * len(seen) if seen.isspace() else seen
    breaks = "\n" * token.count("\n")
    return _chip(f"{escape(seen)}<sub>{expert}</sub>", expert, n_experts) + breaks


def _chip(content, expert, n_experts):
    # hues evenly apart, neighbours far; own ground and ink, so that it reads on any page; the site darkens it in the dark
    hue = round(expert * 360 * 0.381966) % 360 if n_experts > 8 else round(360 * expert / n_experts)
    return f'<span style="--hue:{hue};background:hsl({hue} 60% 86%);color:#1f1d1a;border-radius:3px;padding:1px 2px">{content}</span>'
