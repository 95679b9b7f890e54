"""Plain Markdown in a notebook, the house's dress on the site.

A chapter is written so that it reads well where nobody dresses it: in Colab, in JupyterLab, on GitHub. This extension gives it its dress on
the site, and stops the build at anything that it does not know, naming cell and line. It acts on notebooks with `metadata.book`.

    header.py    metadata.book and the line under the title: kicker, facts, links to Colab and to the file
    prose.py     links, folds, big numbers, equations, concept words, and markup that would show as it is elsewhere
    boxes.py     block quotes with a bold lead: motto, exercise, claim, prediction, ...
    claims.py    data/claims.yml: stamps, lists of claims, links into the ledger, the front page's list
    ledger_page.py    the ledger's page
    drawings.py  what show.drawing displayed
    theme.py     what the theme needs: files, figure numbers
"""

from docutils import nodes
from sphinx.errors import SphinxError
from sphinx.transforms import SphinxTransform

from . import boxes, claims, drawings, header, ledger_page, prose, theme
from .page import Page

STEPS = (header.dress, claims.unwrap, prose.fold, boxes.dress, claims.dress_lists, prose.refuse_foreign_markup, prose.enlarge_numbers,
         prose.tag_equations, drawings.place, prose.color_concepts)


class Dress(SphinxTransform):
    """Goes through the steps on every page; complaints are kept until all pages are read."""

    default_priority = 200    # after parsing, before numbers and references

    def apply(self, **kwargs):
        page = Page(self.app, self.document, self.env.docname)
        prose.point_links_at_headings(page)
        ledger_page.let_pages_link_to_rows(page)
        if page.book is not None:
            for text in [t for t in self.document.findall(nodes.Text) if not t.astext()]:
                text.parent.remove(text)           # the parser leaves empty texts around bold words
            for step in STEPS:
                step(page)
        elif page.notebook is not None:
            boxes.refuse(page)
        else:
            prose.link_chapters(page)
        complaints_of(self.env)[self.env.docname] = page.complaints


def complaints_of(env) -> dict:
    """{page: [complaint]}, kept with Sphinx's environment."""
    if not hasattr(env, "house_complaints"):
        env.house_complaints = {}
    return env.house_complaints


def forget(app, env, docname):
    complaints_of(env).pop(docname, None)


def gather(app, env, docnames, other):
    complaints_of(env).update({name: said for name, said in complaints_of(other).items() if name in docnames})


def stop_if_anything_is_wrong(app, env):
    said = [complaint for _, of_page in sorted(complaints_of(env).items()) for complaint in of_page]
    if said:
        raise SphinxError("the site cannot show this as it is meant:\n  " + "\n  ".join(said))


def setup(app):
    app.add_transform(Dress)
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", gather)
    app.connect("env-updated", stop_if_anything_is_wrong)
    for part in (header, claims, ledger_page, drawings, theme):
        part.setup(app)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
