"""The book's scripts, which are no package, as modules; and what its pages need beside their HTML."""

import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace

BOOK = Path(__file__).parents[1] / "book"


def load(path):
    """The module of a script, by its path from book/."""
    path = BOOK / path
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_statics(folder):
    """The site's style sheets and scripts, those of the explorables with them, in folder/_static; without Plotly."""
    load("_ext/explorables.py").write(SimpleNamespace(outdir=folder, builder=SimpleNamespace(format="html")))
    shutil.copytree(BOOK / "_static", folder / "_static", dirs_exist_ok=True, ignore=shutil.ignore_patterns("vendor"))
