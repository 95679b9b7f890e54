"""The ledger of claims on the site: stamps, links between a claim and its row, lists of claims, the famous ones of the front page."""

import importlib.util
import re
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from sphinx.util.osutil import relative_uri

from .page import container, paragraph, strip_start

FILE, PAGE = Path("data") / "claims.yml", "book/ledger"
VERDICTS = {"supported": "supported", "with a caveat": "caveat", "misleading": "misleading", "wrong": "wrong",
            "cannot be verified": "unverifiable"}    # as written: as a class
ITEM = re.compile(r"(?P<number>C\d+)(?: · (?P<verdict>.+?))?\.?")
PARTS = {"Right:": "right", "It would have been right to say:": "right", "Source:": "source"}    # how a paragraph begins: its class


def _load():
    """minimodels/ledger.py by its file: the package itself is not installed where the site alone is built."""
    spec = importlib.util.spec_from_file_location("house_ledger", Path(__file__).parents[3] / "minimodels" / "ledger.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ledger = _load()


def read(app):
    """The site's ledger."""
    return ledger.read(Path(app.srcdir) / FILE)


def stamp(verdict):
    """The verdict as a stamp: a word, a shape and a colour."""
    return nodes.inline("", verdict[0].upper() + verdict[1:], classes=["stamp", f"stamp-{VERDICTS[verdict]}"])


def disagreement(app, number, verdict) -> str:
    """How a claim in the text differs from the ledger, or an empty text. verdict may be None."""
    known = {claim.id: claim.verdict for claim in read(app).claims}
    if number not in known:
        return f"claim {number} is not in {FILE.as_posix()}"
    if verdict not in (None, known[number]):
        return f"claim {number} is {verdict!r} here and {known[number]!r} in {FILE.as_posix()}"
    return ""


def to_ledger(app, name, id, text=""):
    """A claim's number; on a site with a ledger it leads to its row there. name: the page on which it stands."""
    said = nodes.inline("", text or id, classes=["claim-number"])
    if PAGE not in app.env.found_docs or name == PAGE:
        return said
    there = relative_uri(app.builder.get_target_uri(name), app.builder.get_target_uri(PAGE))
    return nodes.reference("", "", said, refuri=f"{there}#{id.lower()}", internal=True, classes=["to-ledger"])


def classed(parts):
    """Paragraphs of a claim's body, with a class for the one that was right and the one with the sources."""
    for part in parts:
        kind = next((kind for lead, kind in PARTS.items() if part.astext().startswith(lead)), None)
        part["classes"] += [kind] if kind else []
    return parts


# ---- lists of claims: items that begin with **C01.** or **C01 · verdict.**

def dress_lists(page):
    """Give every list of claims its dress; complain where one disagrees with the ledger."""
    for items in list(page.document.findall(nodes.bullet_list)):
        leads = [ITEM.fullmatch(_lead(item)) for item in items]
        if not any(leads):
            continue
        wrong = {item: _wrong_with(page, lead) for item, lead in zip(items, leads)}
        for item in filter(wrong.get, wrong):
            page.complain(item, wrong[item])
        if not any(wrong.values()):
            items.replace_self(container("claims", *(_item(page, item, **lead.groupdict()) for item, lead in zip(items, leads))))


def _wrong_with(page, lead):
    if lead is None:
        return "every item of a list of claims begins with **C01.** or **C01 · verdict.**"
    return disagreement(page.app, lead["number"], lead["verdict"] and lead["verdict"].lower())


def _lead(item):
    first = item[0] if len(item) and isinstance(item[0], nodes.paragraph) else None
    return first[0].astext() if first is not None and len(first) and isinstance(first[0], nodes.strong) else ""


def _item(page, item, number, verdict):
    first = item[0]
    first.pop(0)
    strip_start(first, r"[\s.]+")
    first["classes"].append("said")
    head = [stamp(verdict.lower())] if verdict else []
    mark = paragraph("verdict", *head, to_ledger(page.app, page.name, number))
    body = container("claim-body", first, *classed(item.children[1:]))
    return container("claim judged" if verdict else "claim told", mark, body, **place(page, number if verdict else None))


def place(page, number):
    """The anchor of a claim that is judged here: the first on its page has it."""
    anchor = f"claim-{(number or '').lower()}"
    places = places_of(page.app.env).setdefault(page.name, {})
    if number is None or number in places:
        return {}
    places[number] = anchor
    return {"ids": [anchor]}


def places_of(env) -> dict:
    """{page: {claim: anchor}}, kept with Sphinx's environment."""
    if not hasattr(env, "house_claims"):
        env.house_claims = {}
    return env.house_claims


def unwrap(page):
    """A cell that shows nothing but claims, with its code removed, gives them to the page."""
    for cell in list(page.document.findall(lambda node: "tag_remove-input" in getattr(node, "attributes", {}).get("classes", []))):
        shown = [next((form for form in bundle if form.get("mime_type") == "text/markdown"), None) for output in cell for bundle in output]
        if shown and all(form is not None and len(form) and all(map(_is_claims, form)) for form in shown):
            cell.parent.replace(cell, [part for form in shown for part in form])    # replace_self would hand on the cell's classes


def _is_claims(node):
    lead = node[0][0] if isinstance(node, nodes.block_quote) and len(node[0]) else None
    return bool(lead is not None and re.match(r"Claim C\d+ · ", lead.astext()) or isinstance(node, nodes.bullet_list) and ITEM.fullmatch(_lead(node[0])))


# ---- the famous ones

class FamousClaims(SphinxDirective):
    """The claims of the ledger that spread furthest, each with its stamp and the sentence that would have been right."""

    def run(self):
        self.env.note_dependency(str(Path(self.env.srcdir) / FILE))
        famous = sorted((claim for claim in read(self.env.app).claims if claim.famous), key=lambda claim: claim.famous)
        return [container("famous", *(self.row(claim) for claim in famous))]

    def row(self, claim):
        mark = paragraph("verdict", stamp(claim.verdict))
        return container("claim", mark, paragraph("quote", claim.claim), paragraph("right", claim.right or claim.reason))


def forget(app, env, docname):
    places_of(env).pop(docname, None)


def setup(app):
    app.add_directive("famous-claims", FamousClaims)
    app.connect("env-purge-doc", forget)
