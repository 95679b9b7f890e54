"""Drawings: what show.drawing displayed says which file and where; the site draws the file itself, in the colours of the theme."""

import html
import json
import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from myst_nb.core import render
from sphinx.util.docutils import SphinxDirective

from .page import container

MIME = "image/svg+xml"
ROOM = {"text": 624, "wide": 900, "margin": 232}    # px
FOLDER = Path(__file__).parents[3] / "minimodels" / "drawings"


class Drawing:
    """myst-nb's plug-in for the SVG of show.drawing; any other SVG is left to myst-nb."""

    mime_priority_overrides = [("html", MIME, 2)]

    @staticmethod
    def handle_mime(renderer, data, inline):
        placed = re.search(r' data-drawing="([^"]*)"', data.string) if data.mime_type == MIME and not inline else None
        return [nodes.raw("", "", format="html", placed=json.loads(html.unescape(placed[1])))] if placed else None


def place(page):
    """Turn a cell that shows a drawing into a figure, with the Markdown that it shows as the caption."""
    for raw in [raw for raw in page.document.findall(nodes.raw) if "placed" in raw]:
        placed, cell = raw["placed"], raw.parent
        while "cell" not in cell.get("classes", []):
            cell = cell.parent
        caption = list(cell.findall(nodes.paragraph))
        if not (FOLDER / f"{placed['name']}.svg").exists():
            page.complain(cell, f"there is no drawing {placed['name']!r} in minimodels/drawings")
            continue
        if (width := width_of(placed["name"])) > (room := ROOM["margin" if placed["margin"] else "wide" if placed["wide"] else "text"]):
            page.complain(cell, f"the drawing {placed['name']!r} is {width:g} px wide, and its place {room}")
        figure = nodes.figure("", *forms(placed), classes=["drawing-figure"])
        if placed["margin"]:
            box = nodes.sidebar("", nodes.title("", placed["margin"]), figure, *caption, classes=["margin"])
        else:
            box = figure
            figure["classes"] += ["wide"] if placed["wide"] else []
            figure["names"] = [f"fig-{placed['name']}"]
            if caption:
                figure += nodes.caption("", "", *caption[0].children)
                page.document.note_explicit_target(figure)
        cell.replace_self(box)


def forms(placed):
    """The drawing, and its narrow form for phones where there is one."""
    names = [name for name in (placed["name"], f"{placed['name']}.narrow") if (FOLDER / f"{name}.svg").exists()]
    kinds = ["whole"] if len(names) == 1 else ["broad", "narrow"]
    return [container(f"drawing-{kind}", nodes.raw("", themed(name, placed["alt"]), format="html")) for kind, name in zip(kinds, names)]


def width_of(name) -> float:
    return float(re.search(r'viewBox="[\d.]+ [\d.]+ ([\d.]+)', (FOLDER / f"{name}.svg").read_text("utf8"))[1])


def themed(name, alt):
    """The SVG as the page holds it: named and described for those who do not see it, never larger than its natural size."""
    svg = (FOLDER / f"{name}.svg").read_text("utf8").strip()
    view = re.search(r'viewBox="([^"]+)"', svg)[1]
    described = f"{name.replace('.', '-')}-described"
    svg = re.sub(r"<title>.*?</title>\s*", "", svg, flags=re.DOTALL)    # a browser would show it as a tooltip over everything
    svg = svg.replace("<desc>", f'<desc id="{described}">', 1)
    root = (f'<svg xmlns="http://www.w3.org/2000/svg" class="drawing" viewBox="{view}" style="max-width:{width_of(name):g}px" role="img" '
            f'aria-label="{html.escape(alt)}" aria-describedby="{described}">')
    return re.sub(r"<svg [^>]*>", lambda _: root, svg, count=1)


class OnPage(SphinxDirective):
    """A drawing on a page that is no notebook: ```{drawing} NAME, with the option alt, and its caption between the fences."""

    required_arguments = 1
    option_spec = {"alt": directives.unchanged_required}
    has_content = True

    def run(self):
        name = self.arguments[0]
        if not (FOLDER / f"{name}.svg").exists():
            raise self.error(f"there is no drawing {name!r} in minimodels/drawings")
        for file in FOLDER.glob(f"{name}*.svg"):
            self.env.note_dependency(str(file))
        caption, _ = self.state.inline_text(" ".join(self.content), self.lineno)
        return [nodes.figure("", *forms({"name": name, "alt": self.options["alt"]}), nodes.caption("", "", *caption), classes=["drawing-figure"])]


def setup(app):
    app.add_directive("drawing", OnPage)
    plugins = render.load_mime_renders()
    if Drawing not in plugins:
        plugins.append(Drawing)
