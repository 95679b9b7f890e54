"""What stands between the boxes: links, folds, big numbers, equations, and the words that wear their concept's colour."""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.util.osutil import relative_uri

from .page import container

FOLDS = ("Solution", "Hint", "What we found")
OPENING = re.compile(r"\s*<details>\s*<summary>(.*?)</summary>\s*", re.DOTALL)
CONCEPTS = {    # a chapter adds its own symbols in metadata.book.terms
    "dense": ("dense transformer", "dense model"),
    "attn": ("mha", "gqa", "mqa", "multi-head attention", "grouped-query attention", "multi-query attention", "ordinary attention"),
    "mla": ("mla", "latent attention", "multi-head latent attention"),
    "moe": ("moe", "mixture of experts"),
    "mtp": ("mtp", "multi-token prediction"),
    "fp8": ("fp8",),
    "rl": ("rl", "grpo", "reinforcement learning"),
    "distill": ("distillation",),
}
CHAPTER = re.compile(r"\b[Cc]hapter (\d+)\b")
CODE_OR_MATH = re.compile(r"^```.*?^```|`[^`\n]+`(?!`)|\$\$.*?\$\$|\$[^$\n]+\$", re.DOTALL | re.MULTILINE)
FOREIGN = re.compile(r"^[> ]*(:::+\S*|```\{\S+|\([\w-]+\)=|\{[.#][^}]+\})|(\[\^\w+\]|\{[\w-]+\}(?=`))", re.MULTILINE)


def point_links_at_headings(page):
    """Jupyter writes #The-Heading's-Words, the site #the-headings-words."""
    for link in page.document.findall(nodes.reference):
        if link.get("refuri", "").startswith("#"):
            link["refuri"] = "#" + slug(link["refuri"])
    for link in page.document.findall(addnodes.pending_xref):
        if link.get("reftargetid"):
            link["reftargetid"] = slug(link["reftargetid"])


def link_chapters(page):
    """'Chapter 3' on a page around the chapters leads there, as soon as that chapter exists."""
    found = (re.fullmatch(r"chapters/(\d\d)_\w+", name) for name in page.app.env.found_docs)
    pages = {int(chapter[1]): chapter[0] for chapter in found if chapter}
    get_uri = page.app.builder.get_target_uri
    for text in list(page.document.findall(nodes.Text)):
        if _is_linked(text) or not CHAPTER.search(text):
            continue
        parts, end = [], 0
        for named in CHAPTER.finditer(text):
            if int(named[1]) in pages:
                uri = relative_uri(get_uri(page.name), get_uri(pages[int(named[1])]))
                parts += [nodes.Text(text[end:named.start()]), nodes.reference("", named[0], refuri=uri, internal=True)]
                end = named.end()
        text.parent.replace(text, [part for part in (*parts, nodes.Text(text[end:])) if part.astext()])


def _is_linked(node):
    while node is not None and not isinstance(node, (nodes.reference, nodes.title, nodes.literal, addnodes.pending_xref)):
        node = node.parent
    return node is not None


def slug(heading) -> str:
    return re.sub(r"[^\w-]", "", heading.lower())


def fold(page):
    """<details> and </details> are two pieces of raw HTML with Markdown between them, in one cell."""
    while (opening := next(_openings(page.document), None)) is not None:
        opening["is-seen"] = True
        parent, found = opening.parent, OPENING.fullmatch(opening.astext())
        name = found[1].strip() if found else ""
        start = parent.index(opening)
        end = next((i for i in range(start + 1, len(parent)) if parent[i].astext().strip() == "</details>"), None)
        if not found:
            page.complain(opening, "write <details><summary>…</summary> on a line of its own, and an empty line below it")
        elif name not in FOLDS:
            page.complain(opening, f"unknown fold {name!r}; known: {', '.join(FOLDS)}")
        elif end is None:
            page.complain(opening, f"the fold {name!r} does not end in its cell: empty lines around </details> are missing")
        else:
            parent[start:end + 1] = [folded(name, parent[start + 1:end])]


def _openings(document):
    return (raw for raw in document.findall(nodes.raw) if "<details" in raw.astext() and "is-seen" not in raw)


def folded(name, body):
    kind = name.lower().replace(" ", "-")
    before = nodes.raw("", f'<details class="fold {kind}"><summary>{name}</summary>', format="html", **{"is-seen": True})
    return container(f"fold-{kind}", before, *body, nodes.raw("", "</details>", format="html"))


def enlarge_numbers(page):
    """A paragraph that is only a bold number."""
    for paragraph in page.document.findall(nodes.paragraph):
        is_number = len(paragraph) == 1 and isinstance(paragraph[0], nodes.strong) and re.match(r"[−$€~]?\d", paragraph.astext())
        if is_number and isinstance(paragraph.parent, nodes.section):
            paragraph[:] = paragraph[0].children
            paragraph["classes"].append("number")


def tag_equations(page):
    """MathJax numbers an equation with \\tag, here as elsewhere: hand it over as it is."""
    for block in page.document.findall(nodes.math_block):
        if r"\tag{" in block.astext():
            block[:] = [nodes.Text(r"\[" + block.astext() + r"\]")]
            block["nowrap"] = True


def color_concepts(page):
    """Bold words that name a concept."""
    words = {word: concept for concept, of_concept in CONCEPTS.items() for word in of_concept}
    for concept, symbols in page.book.get("terms", {}).items():
        if concept not in CONCEPTS:
            page.complain_at(-1, 0, f"metadata.book.terms has the unknown concept {concept!r}; known: {', '.join(CONCEPTS)}")
        words |= {str(symbol).lower(): concept for symbol in symbols}
    for strong in list(page.document.findall(nodes.strong)):
        if concept := words.get(strong.astext().lower()):
            strong.replace_self(nodes.inline("", "", *strong.children, classes=["concept", f"c-{concept}"]))


def refuse_foreign_markup(page):
    """Markup that only the site would understand."""
    for number, _, text in page.cells("markdown"):
        text = CODE_OR_MATH.sub(_blank, text)
        for found in FOREIGN.finditer(text):
            line = text[:found.start(1 if found[1] else 2)].count("\n") + 1
            page.complain_at(number, line, f"the markup {(found[1] or found[2])!r} shows as it is in Colab, JupyterLab and on GitHub")


def _blank(found):
    """Empty lines for code and equations; a role's braces stay in sight: {math}`x` is a piece of code to the pattern."""
    return "\n" * found[0].count("\n") or "`"
