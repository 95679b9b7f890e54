"""The ledger of claims: verdicts, their stamps, agreement with data/claims.yml, and the list of the famous ones on the front page."""

import functools
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from .page import container, paragraph

LEDGER = Path("data") / "claims.yml"
VERDICTS = {"supported": "supported", "with a caveat": "caveat", "misleading": "misleading", "wrong": "wrong",
            "cannot be verified": "unverifiable"}    # as written: as a class


def stamp(verdict):
    """The verdict as a stamp: a word, a shape and a colour."""
    return nodes.inline("", verdict[0].upper() + verdict[1:], classes=["stamp", f"stamp-{VERDICTS[verdict]}"])


def ledger(app) -> dict:
    """{number: claim}."""
    path = Path(app.srcdir) / LEDGER
    return _read(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _read(path, changed):
    return {claim["id"]: claim for claim in yaml.safe_load(path.read_text("utf8"))["claims"]}


def disagreement(app, number, verdict) -> str:
    """How a claim in the text differs from the ledger, or an empty text."""
    known = ledger(app)
    if number not in known:
        return f"claim {number} is not in {LEDGER.as_posix()}"
    if known[number]["verdict"] != verdict:
        return f"claim {number} is {verdict!r} here and {known[number]['verdict']!r} in {LEDGER.as_posix()}"
    return ""


class FamousClaims(SphinxDirective):
    """The claims of the ledger that spread furthest, each with its stamp and the sentence that would have been right."""

    def run(self):
        self.env.note_dependency(str(Path(self.env.srcdir) / LEDGER))
        famous = sorted((claim for claim in ledger(self.env.app).values() if "famous" in claim), key=lambda claim: claim["famous"])
        return [container("famous", *(row(claim) for claim in famous))]


def row(claim):
    right = paragraph("right", claim.get("right", claim["reason"]))
    return container("claim", paragraph("verdict", stamp(claim["verdict"])), paragraph("quote", claim["claim"]), right)


def setup(app):
    app.add_directive("famous-claims", FamousClaims)
