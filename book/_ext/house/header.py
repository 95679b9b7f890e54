"""metadata.book and the line under the title become a kicker, the facts of the chapter, and links to Colab and to the file."""

import re
from pathlib import PurePosixPath

from docutils import nodes
from sphinx import addnodes
from sphinx.util.osutil import relative_uri

from .page import container, paragraph
from .prose import slug

FACTS = {"reading": "Reading", "cpu": "Laptop CPU", "t4": "Free Colab", "gaming": "Gaming GPU", "needs": "You need"}
KEYS = {"number", "terms", *FACTS}
LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")


def dress(page):
    """Replace the line under the title; complain where it does not lead to Colab, or where the metadata hold what we do not know."""
    if unknown := sorted(set(page.book) - KEYS):
        page.complain_at(-1, 0, f"metadata.book has unknown keys {', '.join(unknown)}; known: {', '.join(sorted(KEYS))}")
    if not isinstance(page.book.get("number"), int):
        page.complain_at(-1, 0, f"metadata.book.number must be the chapter's number, got {page.book.get('number')!r}")
        return
    section = next(page.document.findall(nodes.section), None)
    line = next((node for node in section[1:] if not isinstance(node, nodes.comment)), None) if section is not None else None
    found = [link["refuri"] for link in line.findall(nodes.reference) if "refuri" in link] if isinstance(line, nodes.paragraph) else []
    if colab(page) not in found[:1]:
        page.complain(line if line is not None else page.document, f"the line under the title must begin with a link to {colab(page)}, found "
                      f"{found[0] if found else 'none'}")
        return
    line.replace_self(container("chapter-head", facts(page), ways_to_run(page), chapter=page.book["number"]))


def put_kicker(app, doctree, name):
    """'Chapter 6' goes above the title, once Sphinx no longer looks for a title there."""
    for head in list(doctree.findall(lambda node: isinstance(node, nodes.container) and "chapter" in node)):
        head.parent.insert(0, paragraph("kicker", f"Chapter {head['chapter']}"))


def colab(page) -> str:
    """Where Colab opens the chapter."""
    repository = page.app.config.html_theme_options["repository_url"].removeprefix("https://github.com/")
    branch = page.app.config.html_theme_options.get("repository_branch", "main")
    return f"https://colab.research.google.com/github/{repository}/blob/{branch}/{page.name}.ipynb"


def facts(page):
    rows = nodes.definition_list(classes=["facts"])
    for key, label in FACTS.items():
        if key in page.book:
            meaning = nodes.paragraph("", "", *inline(page, str(page.book[key])))
            rows += nodes.definition_list_item("", nodes.term("", label), nodes.definition("", meaning))
    return rows


def ways_to_run(page):
    file = relative_uri(page.app.builder.get_target_uri(page.name), f"_sources/{page.name}.ipynb")
    return paragraph("run-it", nodes.reference("", "Open in Colab", refuri=colab(page), classes=["button"]),
                     nodes.reference("", "Download .ipynb", refuri=file, classes=["button"]))


def inline(page, source):
    """The nodes of a text in metadata; links are all the Markdown that it may hold."""
    end = 0
    for link in LINK.finditer(source):
        yield nodes.Text(source[end:link.start()])
        yield link_to(page, *link.groups())
        end = link.end()
    yield nodes.Text(source[end:])


def link_to(page, text, target):
    """A link to another page of the book, as the Markdown parser makes it, so that a dead one is noticed; or to elsewhere."""
    if re.match(r"https?:", target):
        return nodes.reference("", text, refuri=target)
    file, _, heading = target.partition("#")
    name = PurePosixPath(page.name).parent / file
    parts = []
    for part in name.with_suffix("").parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    return addnodes.pending_xref("", nodes.inline("", text, classes=["xref", "myst"]), refdomain="doc", reftype="myst", refexplicit=True,
                                 reftarget="/".join(parts), reftargetid=slug(heading) or None, refdoc=page.name)


def setup(app):
    app.connect("doctree-resolved", put_kicker)
