"""The ledger: every claim that the book tests, with its figures, its verdict and the reason, as data/claims.yml holds them.

The site is built where torch is not installed and reads this file by itself, so its head imports nothing but PyYAML.
"""

import ast
import functools
import math
import operator
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import yaml

VERDICTS = ("supported", "with a caveat", "misleading", "wrong", "cannot be verified")
KINDS = ("primary", "secondary", "arithmetic")
FORMS = ("told", "rows", "boxes")
TABLES = {"documents": {"name", "kind", "date", "about"}, "subjects": None, "sources": None}    # None: a text a key
NEEDED = {"id", "documents", "subject", "claim", "figures", "verdict", "reason", "chapter"}
OPTIONAL = {"right", "famous"}
REFERENCES = "../book/references.md"    # as a chapter links to it
NUMBER = re.compile(r"\d[\d,]*\.?\d*")


# ---- records

@dataclass(frozen=True, kw_only=True)
class Figure:
    """What is known about a claim: a sentence, and where it stands, or the sum from which it follows."""

    says: str
    kind: str                            # one of KINDS
    source: str | None = None            # a key of Ledger.sources
    place: str | None = None             # where in the source
    arithmetic: str | None = None        # in Python's notation
    value: float | None = None           # its result, as `says` rounds it

    @property
    def is_exact(self) -> bool:
        """Whether the sum comes out at value without rounding."""
        return math.isclose(result(self.arithmetic), self.value, rel_tol=1e-12)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What was said, by which documents, and what became of it."""

    id: str
    documents: tuple[str, ...]           # keys of Ledger.documents
    subject: str                         # a key of Ledger.subjects
    claim: str
    figures: tuple[Figure, ...]
    verdict: str                         # one of VERDICTS
    reason: str
    chapter: str                         # the word of the chapter that tests it
    right: str | None = None             # what it would have been right to say; None where nothing would be
    famous: int | None = None            # 1 for the one that spread furthest


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """All claims in order, and the tables that they refer to. ledger["C60"] is one claim."""

    documents: dict[str, dict[str, str]]
    subjects: dict[str, str]
    sources: dict[str, str]              # key of the bibliography: name
    chapters: tuple[str, ...]            # words; the first is chapter 1
    claims: tuple[Claim, ...]

    def __getitem__(self, id: str) -> Claim:
        found = next((claim for claim in self.claims if claim.id == id), None)
        if found is None:
            raise ValueError(f"id must be a claim from {self.claims[0].id} to {self.claims[-1].id}, got {id!r}")
        return found

    def select(self, *, verdict=None, subject=None, document=None, chapter=None) -> list[Claim]:
        """The claims that fit everything given, in order. Raises ValueError for a word that no table has."""
        for name, given, known in (("verdict", verdict, VERDICTS), ("subject", subject, self.subjects),
                                   ("document", document, self.documents), ("chapter", chapter, self.chapters)):
            if given is not None and given not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {given!r}")
        return [c for c in self.claims if verdict in (None, c.verdict) and subject in (None, c.subject)
                and (document is None or document in c.documents) and chapter in (None, c.chapter)]

    def chapter_number(self, word: str) -> int:
        return 1 + self.chapters.index(word)


def count(claims) -> dict[str, int]:
    """How many claims have each verdict, in the order of VERDICTS."""
    return {verdict: sum(c.verdict == verdict for c in claims) for verdict in VERDICTS}


# ---- reading

def read(path=None) -> Ledger:
    """The ledger in the file at path, or data/claims.yml. Raises ValueError with every mistake of form, one a line."""
    if path is None:
        from minimodels.lab import data_file

        path = data_file("claims.yml")
    return _read(Path(path), Path(path).stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _read(path, changed):
    data = yaml.safe_load(path.read_text("utf8"))
    if found := mistakes(data):
        raise ValueError(f"{path.name} must be mended before it can be shown:\n" + "\n".join(found))
    claims = tuple(Claim(**entry | {"documents": tuple(entry["documents"]), "figures": tuple(Figure(**f) for f in entry["figures"])})
                   for entry in data["claims"])
    return Ledger(claims=claims, chapters=tuple(data["chapters"]), **{name: data[name] for name in TABLES})


def mistakes(data: dict) -> list[str]:
    """Everything that is wrong with the form of what claims.yml holds, a sentence each."""
    found = [f"verdicts must be {list(VERDICTS)}, got {data.get('verdicts')}"] if data.get("verdicts") != list(VERDICTS) else []
    for table, fields in TABLES.items():
        for key, entry in data[table].items():
            if set(entry) != fields if fields else not isinstance(entry, str):
                found.append(f"{table}: {key} must have {', '.join(sorted(fields)) if fields else 'a text'}, got {entry}")
    ids = [claim.get("id") for claim in data["claims"]]
    found += [f"{id}: the id stands twice; give the second claim a free one" for id in sorted(set(ids)) if ids.count(id) > 1]
    return found + [f"{claim.get('id')}: {m}" for claim in data["claims"] for m in _mistakes_of_claim(claim, data)]


def _mistakes_of_claim(claim, data):
    if NEEDED - set(claim) or set(claim) - NEEDED - OPTIONAL:
        yield f"missing {sorted(NEEDED - set(claim))}, unknown {sorted(set(claim) - NEEDED - OPTIONAL)}"
        return
    for name in ("claim", "reason", "right"):
        text = claim.get(name, "A sentence.")
        if not isinstance(text, str) or not re.fullmatch(r"[A-Z0-9].*[.)]", text):
            yield f"{name} must be a sentence that ends in a full stop, got {text!r}"
    for name, known in (("verdict", VERDICTS), ("chapter", data["chapters"]), ("subject", list(data["subjects"]))):
        if claim[name] not in known:
            yield f"{name} must be one of {', '.join(known)}, got {claim[name]!r}"
    if claim["verdict"] != "cannot be verified" and not (claim.get("right") and claim["figures"]):
        yield "only what cannot be verified may do without `right` and without figures"
    if not claim["documents"] or set(claim["documents"]) - set(data["documents"]):
        yield f"documents must be keys of the table above, got {claim['documents']}"
    for figure in claim["figures"]:
        yield from _mistakes_of_figure(figure, data["sources"])


def _mistakes_of_figure(figure, sources):
    says, kind = figure.get("says", ""), figure.get("kind")
    if not (isinstance(says, str) and says.endswith(".")):
        yield f"says must be a sentence that ends in a full stop, got {says!r}"
    if kind not in KINDS:
        yield f"kind must be one of {', '.join(KINDS)}, got {kind!r}"
    if "source" in figure or kind != "arithmetic":
        if figure.get("source") not in sources:
            yield f"source {figure.get('source')!r} is not in the table of sources; add it there and to the bibliography"
        if not figure.get("place"):
            yield f"place is missing where {says!r} cites {figure.get('source')}"
    sum_fields, is_sum = {"arithmetic", "value"}, kind == "arithmetic"
    if set(figure) - {"says", "kind", "source", "place", *sum_fields} or sum_fields & set(figure) != (sum_fields if is_sum else set()):
        yield f"fields must be says, kind, source, place, and with kind arithmetic also arithmetic and value; got {sorted(figure)}"
    elif is_sum:
        yield from _mistakes_of_sum(figure["arithmetic"], figure["value"], says)


def _mistakes_of_sum(arithmetic, value, says):
    try:
        found = result(arithmetic)
    except ValueError as error:
        yield str(error)
        return
    decimals = len(str(value).partition(".")[2])
    if abs(found - value) > 0.5 * 10**-decimals + 1e-9:
        yield f"{arithmetic} is {found:.6g}, not {value}"
    if value not in [float(n.replace(",", "").rstrip(".")) for n in NUMBER.findall(says)]:
        yield f"the value {value} does not stand in {says!r}"


# ---- sums

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Pow: operator.pow}
FUNCTIONS = {"log2": math.log2, "log10": math.log10, "sqrt": math.sqrt, "round": round,
             "days": lambda a, b: (date.fromisoformat(b) - date.fromisoformat(a)).days}


def result(arithmetic: str) -> float:
    """What a sum in Python's notation comes to. Raises ValueError for anything but numbers, + - * / **, and FUNCTIONS."""
    def of(node):
        match node:
            case ast.Constant(value=value):
                return value
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                return OPERATORS[type(op)](of(left), of(right))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -of(operand)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
                return FUNCTIONS[name](*map(of, args))
        raise ValueError(f"arithmetic must be numbers, + - * / ** and {', '.join(FUNCTIONS)}, got {arithmetic!r}")

    try:
        tree = ast.parse(arithmetic, mode="eval").body
    except SyntaxError:
        raise ValueError(f"arithmetic must be a sum in Python's notation, got {arithmetic!r}") from None
    return of(tree)


# ---- in a notebook

def show(*ids: str, form: str = "boxes"):
    """Display claims, with everything taken from the ledger.

    form: `told` is what was said and by whom, without a verdict, for a chapter's start; `rows` is a compact list of claim, verdict, reason,
    the right sentence and the sources, for many; `boxes` gives each a box of its own, for a few. What is displayed is Markdown of the
    house, so it reads well anywhere, and the site dresses it. Tag the cell remove-input.
    Raises ValueError for no ids, an unknown one or an unknown form.
    """
    from IPython.display import display

    ledger = read()
    if not ids or form not in FORMS:
        raise ValueError(f"show needs at least one id, and form must be one of {', '.join(FORMS)}; got {ids} and {form!r}")
    claims = [ledger[id] for id in ids]
    write = {"told": _told, "rows": _row, "boxes": _box}[form]
    plain = "\n".join(f"{c.id}{'' if form == 'told' else f' ({c.verdict})'}: {c.claim}" for c in claims)
    display({"text/markdown": "\n\n".join(write(claim, ledger) for claim in claims), "text/plain": plain}, raw=True)


def _told(claim, ledger):
    return f"- **{claim.id}.** *{_escape(claim.claim)}* ({', '.join(_escape(ledger.documents[d]['name']) for d in claim.documents)})"


def _row(claim, ledger):
    right = [f"*Right:* {_escape(claim.right)}"] if claim.right else []
    sources = [f"Source: {_sources(claim, ledger)}."]
    paragraphs = [f"**{claim.id} · {claim.verdict}.** *{_escape(claim.claim)}*", _escape(claim.reason), *right, *sources]
    return "- " + "\n\n  ".join(paragraphs)


def _box(claim, ledger):
    right = [f"*It would have been right to say:* {_escape(claim.right)}"] if claim.right else []
    paragraphs = [f"**Claim {claim.id} · {claim.verdict}.** *{_escape(claim.claim)}*", _escape(claim.reason), *right,
                  f"Source: {_sources(claim, ledger)}."]
    return "> " + "\n>\n> ".join(paragraphs)


def _sources(claim, ledger):
    """The places that a claim's figures cite, each once, as links into the bibliography."""
    places = dict.fromkeys((f.source, f.place) for f in claim.figures if f.source)
    links = [f"[{_escape(ledger.sources[source])}, {_escape(place)}]({REFERENCES}#{source})" for source, place in places]
    sums = ["arithmetic"] if any(f.kind == "arithmetic" for f in claim.figures) else []
    return "; ".join(links + sums) or "none was found"


def _escape(text):
    """A sentence as Markdown shows it as it is."""
    return re.sub(r"([\\`*_\[\]<>$])", r"\\\1", text)
