"""Figures on the site: plotly's own mime type, drawn by one plotly.js that the site serves itself; and nothing fetched from elsewhere.

The JSON stands in the page; `_static/bookfig.js` draws it when it comes into view. The static picture that the notebook holds beside it is for
paper, and for a browser without scripts.
"""

import base64
import hashlib
import json
import shutil
import struct
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
        node = nodes.raw(format="html", figure=data.content, text=(
            f'<div class="bookfig" role="figure" aria-label="{escape(meta["alt"], quote=True)}"{anchor}>'
            f'<p class="bookfig-title">{escape(meta["title"])}</p>'
            f'<div class="bookfig-plot" style="min-height:{layout["height"] - layout["margin"]["t"] + 12}px"></div>'
            f'<script type="application/json">{stored}</script>'
            f'<!-- picture --></div>'))
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


def put_pictures_beside(app, doctree):
    """The notebook's static picture of each figure, fetched only where it is shown."""
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb":
        return
    outputs = [output["data"] for cell in json.loads(path.read_text("utf8"))["cells"] for output in cell.get("outputs", []) if "data" in output]
    for node in doctree.findall(lambda node: isinstance(node, nodes.raw) and "figure" in node):
        figure = node.attributes.pop("figure")
        picture = next((data["image/png"] for data in outputs if data.get(MIME) == figure and "image/png" in data), None)
        if picture is None:
            continue
        png = base64.b64decode("".join(picture))
        name = f"{hashlib.sha256(png).hexdigest()[:16]}.png"
        folder = Path(app.outdir) / "_images"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png)
        width, height = struct.unpack(">II", png[16:24])
        source = "../" * app.env.docname.count("/") + f"_images/{name}"
        image = (f'<img class="bookfig-paper" src="{source}" width="{width}" height="{height}" loading="lazy" '
                 f'alt="{escape(figure["layout"]["meta"]["alt"], quote=True)}">')
        node[:] = [nodes.Text(node.astext().replace("<!-- picture -->", image))]


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
    app.connect("doctree-read", put_pictures_beside)
    app.add_js_file("bookfig.js", loading_method="defer")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
