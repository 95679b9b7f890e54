"""The ledger as a page: every claim with its figures, sources, reason and chapter. ledger.js filters what stands here; without it all is there.

The lists are built when every page has been read: only then is it known which chapters exist, and where they judge a claim.
"""

import html
import re
from pathlib import Path
from urllib.parse import quote

from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from sphinx.util.osutil import relative_uri

from .claims import FILE, PAGE, VERDICTS, ledger, places_of, read, stamp
from .page import container, paragraph

FILTERS = ("verdict", "subject", "document", "chapter")


class Placeholder(nodes.General, nodes.Element):
    """Where the lists of the ledger's page will stand: part is verdicts, documents or claims."""


class LedgerPart(SphinxDirective):
    required_arguments = 1

    def run(self):
        self.env.note_dependency(str(Path(self.env.srcdir) / FILE))
        if self.arguments[0] not in PARTS:
            raise self.error(f"the ledger's page has the parts {', '.join(PARTS)}, got {self.arguments[0]!r}")
        return [Placeholder(part=self.arguments[0])]


def let_pages_link_to_rows(page):
    """A row is a place that Markdown may link to, as it links to a heading: ledger.md#c60."""
    if any(place["part"] == "claims" for place in page.document.findall(Placeholder)):
        rows = {claim.id.lower(): (0, claim.id.lower(), claim.claim) for claim in read(page.app).claims}
        for slugs in (page.document.myst_slugs, page.app.env.metadata[page.name]["myst_slugs"]):
            slugs.update(rows)


def fill(app, doctree, name):
    for place in list(doctree.findall(Placeholder)):
        made = PARTS[place["part"]](Site(app, name), read(app))
        curl_apostrophes(made)
        place.replace_self(made)


class Site:
    """What the rows link to, seen from the ledger's page."""

    def __init__(self, app, name):
        self.app, self.name = app, name
        written = (re.fullmatch(r"chapters/\d\d_(\w+)", doc) for doc in app.env.found_docs)
        self.chapters = {found[1]: found[0] for found in written if found}    # word: page

    def judged(self, claim):
        """The words of the chapters that give the claim its verdict, the one that tests it first."""
        places = places_of(self.app.env)
        return sorted((word for word, page in self.chapters.items() if claim.id in places.get(page, {})), key=lambda word: (word != claim.chapter, word))

    def link(self, page, anchor, *children):
        there = relative_uri(self.app.builder.get_target_uri(self.name), self.app.builder.get_target_uri(page))
        return nodes.reference("", "", *children, refuri=f"{there}#{anchor}" if anchor else there, internal=True)

    def title(self, word):
        """A chapter's title, or None where it is not written yet."""
        return self.app.env.titles[self.chapters[word]].astext() if word in self.chapters else None

    def contest(self, claim):
        repository = self.app.config.html_theme_options["repository_url"]
        return nodes.reference("", "Contest this verdict", refuri=f"{repository}/issues/new?title={quote(f'{claim.id}: ')}")


def curl_apostrophes(made):
    """The apostrophes of a printed page, as the parser gives them to Markdown; this comes after it."""
    for text in list(made.findall(nodes.Text)):
        if "'" in text and not isinstance(text.parent, (nodes.literal, nodes.raw)):
            text.parent.replace(text, nodes.Text(text.replace("'", "’")))


def raw(text):
    return nodes.raw("", text, format="html")


def inline(kind, *children):
    return nodes.inline("", "", *(nodes.Text(c) if isinstance(c, str) else c for c in children), classes=kind.split())


# ---- the summary

def verdicts(site, book):
    """A line for each verdict: its stamp, how many claims have it, and the rule."""
    rows = nodes.definition_list(classes=["verdicts"])
    for verdict, n in ledger.count(book.claims).items():
        shown = nodes.reference("", "", stamp(verdict), refuri=f"#verdict={VERDICTS[verdict]}", internal=True)
        term = nodes.term("", "", shown, inline("n", f" {n}"))
        rows += nodes.definition_list_item("", term, nodes.definition("", nodes.paragraph("", RULES[verdict])))
    return rows


RULES = {
    "supported": "A primary source says so, about the thing that the sentence is about, or a sum over primary figures does.",
    "with a caveat": "It holds within a limit that the sentence leaves out, or only reports carry it.",
    "misleading": "Something in it is true, but the reader takes away what no source says: another model's number, or two things that do not compare.",
    "wrong": "A source says otherwise, or the sum comes out differently.",
    "cannot be verified": "No source that we found settles it, or it is an opinion or a forecast. It may be true.",
}


def documents(site, book):
    """A bar for each document: its claims by verdict, as segments with sign and number."""
    rows = [bar("All together", "", f"{len(book.claims)} claims", book.claims, "")]
    for key, about in book.documents.items():
        claims = book.select(document=key)
        rows.append(bar(about["name"], f"{about['kind'].capitalize()}, {about['date']}. {about['about']}", f"{len(claims)} claims", claims, key))
    return container("documents", *rows)


def bar(name, about, total, claims, key):
    segments = ""
    for verdict, n in ledger.count(claims).items():
        where, kind = (f"document={key}&amp;" if key else "") + f"verdict={VERDICTS[verdict]}", VERDICTS[verdict]
        if n:
            segments += (f'<li style="flex-grow:{n}"><a class="of-{kind}" href="#{where}"><span class="sign stamp-{kind}" aria-hidden="true"></span>'
                         f'{n}<span class="visually-hidden"> {verdict}</span></a></li>')
    head = paragraph("document-name", nodes.strong("", name), inline("total", f" {total}"))
    said = [paragraph("document-about", about)] if about else []
    return container("document", head, *said, raw(f'<ul class="segments">{segments}</ul>'))


# ---- the claims

def claims(site, book):
    return container("entries", raw(form(site, book)), *(part for claim in book.claims for part in entry(site, book, claim)))


def form(site, book):
    """The filters: native controls, hidden until the script is there."""
    chapters = {}
    for word in book.chapters:
        title = site.title(word)
        chapters[word] = f"{book.chapter_number(word)} · {title.partition(':')[0] if title else f'{word} (not written yet)'}"
    options = {"verdict": {VERDICTS[v]: v.capitalize() for v in VERDICTS}, "subject": book.subjects,
               "document": {key: about["name"] for key, about in book.documents.items()}, "chapter": chapters}
    selects = ""
    for name in FILTERS:
        chosen = "".join(f'<option value="{value}">{html.escape(label)}</option>' for value, label in options[name].items()
                         if any(value in words(site, claim)[name].split() for claim in book.claims))
        selects += f'<label>{name.capitalize()}<select name="{name}"><option value="">All</option>{chosen}</select></label>'
    return (f'<form class="filters" role="search" aria-label="Claims" hidden><label class="query">Words'
            f'<input type="search" name="q" autocomplete="off"></label>{selects}'
            '<p class="found"><span role="status" tabindex="-1"></span> <button type="reset">Show all</button> '
            '<button type="button" class="fold-all">Open what is shown</button></p></form>')


def words(site, claim):
    """What the filters look at, by its name; several words where one claim has several."""
    chapters = dict.fromkeys((claim.chapter, *site.judged(claim)))
    return {"verdict": VERDICTS[claim.verdict], "subject": claim.subject, "document": " ".join(claim.documents), "chapter": " ".join(chapters)}


def entry(site, book, claim):
    data = "".join(f' data-{name}="{value}"' for name, value in words(site, claim).items())
    head = [inline("entry-number", claim.id), nodes.Text(" "), inline("entry-claim", claim.claim), nodes.Text(" "), stamp(claim.verdict)]
    yield raw(f'<details class="entry" id="{claim.id.lower()}"{data}><summary>')
    yield from head
    yield raw('</summary><div class="entry-body">')
    yield nodes.paragraph("", claim.reason)
    if claim.right:
        yield paragraph("right", nodes.emphasis("", "It would have been right to say:"), f" {claim.right}")
    if claim.figures:
        yield nodes.bullet_list("", *(nodes.list_item("", figure_line(site, book, figure)) for figure in claim.figures), classes=["known"])
    yield paragraph("about", *about(site, book, claim))
    yield raw("</div></details>")


def figure_line(site, book, figure):
    parts = [inline("kind", figure.kind.capitalize()), f" {figure.says}"]
    if figure.arithmetic:
        parts += [" ", nodes.literal("", f"{figure.arithmetic} {'=' if figure.is_exact else '≈'} {figure.value}")]
    if figure.source:
        parts += [" ", site.link("book/references", figure.source, nodes.Text(f"{book.sources[figure.source]}, {figure.place}")), "."]
    return paragraph("", *parts)


def about(site, book, claim):
    """Who said it, what it is about, which chapter tests it, and what a reader can do."""
    names = " · ".join(book.documents[key]["name"] for key in claim.documents)
    yield inline("label", "Said in ")
    yield f"{names}. "
    yield inline("label", "Subject ")
    yield f"{book.subjects[claim.subject]}. "
    yield inline("label", "Tested in ")
    if claim.chapter in site.chapters:
        yield chapter(site, book, claim, claim.chapter)
    else:
        yield f"chapter {book.chapter_number(claim.chapter)}, which is not written yet"
    for word in site.judged(claim):
        if word != claim.chapter:
            yield "; also in "
            yield chapter(site, book, claim, word)
    yield ". "
    here = nodes.reference("", "Link to this claim", refuri=f"#{claim.id.lower()}", internal=True)
    yield inline("on-screen", here, " · ", site.contest(claim))


def chapter(site, book, claim, word):
    """A link to a chapter, to the place where it judges the claim if it does."""
    page = site.chapters[word]
    return site.link(page, places_of(site.app.env).get(page, {}).get(claim.id), nodes.Text(f"chapter {book.chapter_number(word)}, {site.title(word)}"))


def add_script(app, pagename, templatename, context, doctree):
    if pagename == PAGE:    # inside this event, both calls mean this page alone
        app.add_js_file("ledger.js", loading_method="defer")
        app.add_css_file("ledger.css", priority=910)


PARTS = {"verdicts": verdicts, "documents": documents, "claims": claims}


def setup(app):
    app.add_node(Placeholder)
    app.add_directive("ledger", LedgerPart)
    app.connect("doctree-resolved", fill)
    app.connect("html-page-context", add_script)
