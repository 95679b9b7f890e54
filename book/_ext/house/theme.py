"""What the theme needs from us: style sheets and scripts, the drawings' style beside them, and figures numbered by chapter."""

import json
import shutil
from pathlib import Path

from .drawings import FOLDER

STYLES = ("tokens.css", "fonts.css", "site.css", "pieces.css", "drawing.css", "print.css")
SCRIPTS = ("predictions.js", "experts.js", "site.js")


def copy_style_of_drawings(app):
    if app.builder.format == "html":
        static = Path(app.outdir) / "_static"
        static.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(FOLDER / "drawing.css", static / "drawing.css")


def number_figures_by_chapter(app, env):
    """Figure 6.2, not the seventh of the site: Sphinx counts through all pages, because our parts have no numbers."""
    for name, kinds in env.toc_fignumbers.items():
        book = env.metadata[name].get("book")    # myst-nb keeps it as JSON
        before = (json.loads(book)["number"],) if book else ()
        for figures in kinds.values():
            figures.update({anchor: (*before, count) for count, anchor in enumerate(figures, 1)})
    return []


def setup(app):
    app.connect("builder-inited", copy_style_of_drawings)
    app.connect("env-get-updated", number_figures_by_chapter, priority=900)    # after Sphinx has counted
    for name in STYLES:
        app.add_css_file(name, priority=900)
    for name in SCRIPTS:
        app.add_js_file(name, loading_method="defer")
