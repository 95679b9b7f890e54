"""One page while it is dressed."""

import json
import re
from pathlib import Path

from docutils import nodes

LINES_A_CELL = 10_000    # a line's number in myst-nb is that of its cell times this, and its own


class Page:
    """A page's document, its notebook and its metadata.book (None where there is none), and what is wrong with it."""

    def __init__(self, app, document, name):
        self.app, self.document, self.name = app, document, name
        self.complaints, self.n_predictions = [], 0
        path = Path(app.env.doc2path(name))
        self.file = path.relative_to(app.srcdir).as_posix()
        self.notebook = json.loads(path.read_text("utf8")) if path.suffix == ".ipynb" else None
        self.book = self.notebook["metadata"].get("book") if self.notebook else None

    def cells(self, kind):
        """Number, id and text of the notebook's cells of that kind."""
        for number, cell in enumerate(self.notebook["cells"]):
            if cell["cell_type"] == kind:
                yield number, cell.get("id", "?"), "".join(cell["source"])

    def complain(self, node, message):
        """Say what is wrong at a node: with file, cell and line."""
        position = next((n.line for n in node.findall() if getattr(n, "line", None)), None) or _line_above(node)
        cell, line = divmod(position, LINES_A_CELL) if position else (0, 1)
        self.complain_at(cell - 1, line - 1, message)    # myst-nb begins at cell 1, line 2

    def complain_at(self, cell, line, message):
        """The same where cell (from 0) and line (from 1) are known; -1 for what is in no cell."""
        where = f"cell {cell} ({self.notebook['cells'][cell].get('id', '?')}), line {line}: " if cell >= 0 else ""
        self.complaints.append(f"{self.file}: {where}{message}")


def _line_above(node):
    while node.parent is not None:
        node = node.parent
        if getattr(node, "line", None):
            return node.line
    return None


def container(kind, *children, **attributes):
    """A <div class="kind">."""
    return nodes.container("", *children, classes=kind.split(), **attributes)


def paragraph(kind, *children):
    """A <p class="kind">; a child may be text."""
    return nodes.paragraph("", "", *(nodes.Text(c) if isinstance(c, str) else c for c in children), classes=kind.split())


def strip_start(node, pattern):
    """Take what pattern matches off the start of a node's text."""
    first = next(iter(node.findall(nodes.Text)), None)
    if first is None:
        return
    rest = re.sub(r"\A(?:" + pattern + ")", "", first.astext())
    first.parent.replace(first, [nodes.Text(rest)] if rest else [])
