"""Figures on the site: plotly's own mime type, drawn by one plotly.js that the site serves itself; and nothing fetched from elsewhere.

The JSON stands in the page; `_static/bookfig.js` draws it when it comes into view.
"""

import json
import shutil
from html import escape
from pathlib import Path

import plotly
from docutils import nodes
from myst_nb.core import render

MIME = "application/vnd.plotly.v1+json"


class PlotlyMime:
    """myst-nb's plug-in for plotly's mime type."""

    mime_priority_overrides = [("html", MIME, 1)]

    @staticmethod
    def handle_mime(renderer, data, inline):
        """The nodes of a figure: with a caption one that Sphinx numbers. None for another mime type."""
        if inline or data.mime_type != MIME:
            return None
        layout = data.content["layout"]
        meta = layout["meta"]
        stored = json.dumps(data.content, separators=(",", ":")).replace("</", "<\\/")
        anchor = f' id="{escape(meta["name"], quote=True)}"' if meta.get("name") and not meta.get("caption") else ""
        node = nodes.raw(format="html", text=(
            f'<div class="bookfig" role="figure" aria-label="{escape(meta["alt"], quote=True)}"{anchor}>'
            f'<p class="bookfig-title">{escape(meta["title"])}</p>'
            f'<div class="bookfig-plot" style="min-height:{layout["height"] - layout["margin"]["t"] + 12}px"></div>'
            f'<script type="application/json">{stored}</script>'
            f'<noscript><p>{escape(meta["alt"])}</p></noscript></div>'))
        if not meta.get("caption"):
            return [node]
        figure = nodes.figure("", node, nodes.caption("", meta["caption"]), classes=["plot"])
        document = renderer.renderer.document
        if meta.get("name"):
            figure["names"] = [meta["name"]]
            document.note_explicit_target(figure)
        else:
            document.set_id(figure)
        return [figure]


def drop_second_captions(app, doctree):
    """A raw notebook shows the caption as an output of its own; here the figure has it already."""
    for node in list(doctree.findall(nodes.raw)):
        if 'class="bookfig-caption"' in node.astext():
            node.parent.remove(node)


def copy_plotly(app):
    if app.builder.format == "html":
        vendor = Path(app.outdir) / "_static" / "vendor"
        vendor.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", vendor / "plotly.min.js")


def silence_thebe(app, config):
    """sphinx-thebe puts a script of another host on every page, even when it is off: take its handlers and its style away."""
    for listeners in app.events.listeners.values():
        listeners[:] = [one for one in listeners if not one.handler.__module__.startswith("sphinx_thebe")]
    app.registry.css_files[:] = [entry for entry in app.registry.css_files if "thebe" not in entry[0]]


def setup(app):
    plugins = render.load_mime_renders()
    if PlotlyMime not in plugins:
        plugins.append(PlotlyMime)
    app.connect("config-inited", silence_thebe)
    app.connect("builder-inited", copy_plotly)
    app.connect("doctree-read", drop_second_captions)
    app.add_js_file("bookfig.js", loading_method="defer")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
