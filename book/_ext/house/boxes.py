"""Block quotes with a bold lead become the book's boxes: each kind is one function, from the lead's text and the rest to the box."""

import html
import re

from docutils import nodes
from sphinx import addnodes

from . import claims
from .page import container, paragraph, strip_start

KNOWN = ("You will be able to, Before you read on, Exercise 1.1, Does it pay here?, Claim C01 · verdict, Bugs that still train, Takeaways, "
         "Margin, Margin · Title, Next: [Title](file.ipynb)")
LOST = re.compile(r"You will be able|Before you read|Exercise \d|Does it pay|Claim [A-Z]\d|Bugs that|Takeaways|Margin\b|Next:", re.IGNORECASE)


class Wrong(Exception):
    """What keeps a block quote from becoming its box."""


def dress(page):
    """Replace every block quote that is a box; an ordinary quotation stays."""
    for quote in list(page.document.findall(nodes.block_quote)):
        try:
            box = box_of(page, quote)
        except Wrong as wrong:
            page.complain(quote, str(wrong))
            quote.parent.remove(quote)    # it has lost its parts by now, and the build will stop
            continue
        if box is not None:
            quote.replace_self(box)
    for text in page.document.findall(nodes.paragraph):
        if len(text) and isinstance(text[0], nodes.strong) and maker_of(text[0].astext())[0]:
            page.complain(text, f"the lead {text[0].astext()!r} stands outside a block quote: '> ' is missing")


def refuse(page):
    """Boxes in a notebook that is not dressed."""
    for quote in page.document.findall(nodes.block_quote):
        if LOST.match(quote.astext()):
            page.complain(quote, "a box in a notebook without metadata.book, so it would lose its dress")


def box_of(page, quote):
    """The box that a block quote stands for, or None for an ordinary quotation."""
    first = quote[0] if len(quote) and isinstance(quote[0], nodes.paragraph) else None
    pieces = [child for child in first.children if child.astext().strip()] if first is not None else []
    if not pieces:
        return None
    if len(quote) == len(pieces) == 1 and isinstance(pieces[0], nodes.emphasis):
        return container("motto", nodes.paragraph("", "", *pieces[0].children))
    if not isinstance(pieces[0], nodes.strong):
        if LOST.match(first.astext()):
            raise Wrong(f"the lead {first.astext()[:30]!r} is not bold")
        return None
    lead = pieces[0]
    maker, words = maker_of(lead.astext())
    if maker is None:
        raise Wrong(f"unknown lead {lead.astext()!r}; known: {KNOWN}")
    return maker(page, lead, words, body_after(first, lead, quote))


def maker_of(lead):
    """The function that makes the box of this lead, and the lead's named parts."""
    text = re.sub(r"\s+", " ", lead).strip().rstrip(".:")
    for pattern, maker in MAKERS.items():
        if found := re.fullmatch(pattern, text):
            return maker, found.groupdict()
    return None, {}


def body_after(first, lead, quote):
    """What stands in the box after its lead."""
    rest = nodes.paragraph("", "", *first.children[first.index(lead) + 1:])
    strip_start(rest, r"[\s.]+")
    return [*([rest] if rest.astext().strip() else []), *quote.children[1:]]


def titled(kind, title, *body, after=()):
    return container(f"box {kind}", paragraph("box-title", title), container("box-body", *body), *after)


# ---- one function a kind: from the page, the lead, its named parts and what follows it to the box

def outcomes(page, lead, words, body):
    return titled("outcomes", "You will be able to", *body)


def takeaways(page, lead, words, body):
    return titled("takeaways", "Takeaways", *body)


def bugs(page, lead, words, body):
    return titled("bugs", "Bugs that still train", *body)


def margin(page, lead, words, body):
    title = [nodes.title("", words["title"])] if words["title"] else []
    return nodes.sidebar("", *title, *body, classes=["margin"])


def exercise(page, lead, words, body):
    about = re.match(r"\(([^;)]+); (easy|medium|hard), ([^)]+)\)\.?\s*", body[0].astext()) if body else None
    if not about:
        raise Wrong(f"after **Exercise {words['number']}** comes (what; easy, medium or hard, minutes)")
    strip_start(body[0], re.escape(about[0]))
    title = paragraph("box-title", f"Exercise {words['number']}", nodes.inline("", f" {about[1]}", classes=["what"]),
                      nodes.inline("", f"{about[2]}, {about[3]}", classes=["effort"]))
    return container("box exercise", title, container("box-body", *body), ids=[f"exercise-{words['number'].replace('.', '-')}"])


def pays(page, lead, words, body):
    """A verdict in words, and a list whose items begin with a bold label."""
    if any(isinstance(part, nodes.table) for part in body):
        raise Wrong("a table in a block quote shows as raw text elsewhere; write a list: - **At equal steps:** …")
    rows = nodes.definition_list(classes=["ledger"])
    for item in (item for part in body if isinstance(part, nodes.bullet_list) for item in part):
        text = item[0]
        if not isinstance(text[0], nodes.strong):
            raise Wrong(f"the item {text.astext()[:30]!r} needs a bold label")
        label = text.pop(0).astext().rstrip(".:")
        strip_start(text, r"[\s:.]+")
        rows += nodes.definition_list_item("", nodes.term("", label), nodes.definition("", *item.children))
    rest = [part for part in body if not isinstance(part, nodes.bullet_list)]
    return titled("pays", "Does it pay here?", *rest, after=[rows] if len(rows) else [])


def claim(page, lead, words, body):
    """The stamp, the claim, why, what would have been right, and the source."""
    verdict, number = words["verdict"].lower(), words["number"]
    if verdict not in claims.VERDICTS:
        raise Wrong(f"unknown verdict {words['verdict']!r}; known: {', '.join(claims.VERDICTS)}")
    if wrong := claims.disagreement(page.app, number, verdict):
        raise Wrong(wrong)
    if not body or not isinstance(body[0], nodes.paragraph) or not isinstance(body[0][0], nodes.emphasis):
        raise Wrong(f"after the lead of claim {number} comes the claim in *italics*")
    quoted, why = body[0][0], claims.classed([nodes.paragraph("", "", *body[0].children[1:]), *body[1:]])
    why = [part for part in why if part.astext().strip()]
    apart = [part for kind in ("right", "source") for part in why if kind in part.get("classes", [])]
    if not apart or "source" not in apart[-1]["classes"]:
        raise Wrong(f"claim {number} needs a last paragraph 'Source: …'")
    mark = paragraph("verdict", claims.stamp(verdict), claims.to_ledger(page.app, page.name, number, f"Claim {number}"))
    return container("box claim", mark, paragraph("quote", *quoted.children), container("box-body", *[p for p in why if p not in apart]),
                     *apart, **claims.place(page, number))


def prediction(page, lead, words, body):
    """A question, a place for the reader's guess (predictions.js), and a fold with what was found."""
    fold = next((part for part in body if "fold-what-we-found" in part.get("classes", [])), None)
    bold = next(fold.findall(nodes.strong), None) if fold is not None else None
    if bold is None:
        raise Wrong("a prediction needs <details><summary>What we found</summary>, and in it first the answer in bold: **576 values.**")
    page.n_predictions += 1
    number = re.fullmatch(r"([-+−]?\d[\d.,]*)\s*(\D*?)[.:]?", bold.astext().strip())    # the unit is shown, so no second number stands in it
    answer, unit = (number[1].rstrip(".,"), number[2]) if number else (bold.astext().strip().rstrip("."), "")
    about = {"key": f"{page.name.rpartition('/')[2]}-{page.n_predictions}", "answer": answer, "unit": unit}
    data = "".join(f' data-{name}="{html.escape(value)}"' for name, value in about.items())
    place = nodes.raw("", f'<div class="guess"{data}{" data-number" if number else ""}></div>', format="html")
    return titled("prediction", "Before you read on", *[part for part in body if part is not fold], after=[place, fold])


def onward(page, lead, words, body):
    link = next((node for node in lead.findall() if isinstance(node, (nodes.reference, addnodes.pending_xref))), None)
    if link is None:
        raise Wrong("**Next: [Title](file.ipynb).** needs its link")
    return titled("onward", "Next chapter", paragraph("onward-link", link), *body)


MAKERS = {
    r"You will be able to": outcomes,
    r"Before you read on": prediction,
    r"Exercise (?P<number>\d+\.\d+)": exercise,
    r"Does it pay here\?": pays,
    r"Claim (?P<number>[A-Z]\d+) · (?P<verdict>.+)": claim,
    r"Bugs that still train": bugs,
    r"Takeaways": takeaways,
    r"Margin(?: · (?P<title>.+))?": margin,
    r"Next: .+": onward,
}
