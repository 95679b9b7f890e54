"""Explorables on the site: their scripts and style, written into the build, and linked from the pages that have one.

The scripts are read as files, because the package needs torch and anywidget, which the site's build does without.
"""

import importlib.util
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "minimodels" / "explorables" / "scripts.py"


def read_scripts():
    spec = importlib.util.spec_from_file_location("explorables_scripts", SCRIPTS)
    scripts = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scripts)
    return scripts


def write(app):
    if app.builder.format != "html":
        return
    scripts = read_scripts()
    folder = Path(app.outdir) / "_static" / "explorables"
    folder.mkdir(parents=True, exist_ok=True)
    for name in scripts.NAMES:
        (folder / f"{name}.js").write_text(scripts.classic(name), "utf8")
    (folder / "explorables.css").write_text(scripts.CSS, "utf8")


def link(app, pagename, templatename, context, doctree):
    if '<div class="explorable"' in context.get("body", ""):  # inside this event, both calls mean this page alone
        app.add_js_file("explorables.js", loading_method="defer")
        app.add_css_file("explorables/explorables.css")


def setup(app):
    app.connect("builder-inited", write)
    app.connect("html-page-context", link)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
