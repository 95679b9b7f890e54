"""What every explorable is built from: a widget whose committed output works without a kernel, and the words both sides share."""

import json
import math
from html import escape

import anywidget

from minimodels.explorables.scripts import CSS, module

NOTE = "<p><em>Interactive on the book's site, and here once you run the cell.</em></p>"


class Explorable(anywidget.AnyWidget):
    """A widget that is a plain table where nothing runs: on GitHub, on paper, in a notebook that was not run yet.

    A subclass sets `name`, which its script has too, and synced traits, its state: JSON, finite numbers only. It writes `summary`
    and `fallback`. Facts (presets, say) are traits as well, so that the script holds none.
    """

    name = ""

    def __init_subclass__(cls, **kwargs):
        if "name" in cls.__dict__:  # traitlets' add_traits makes subclasses too, without a name of their own
            cls._esm, cls._css = module(cls.name), CSS
        super().__init_subclass__(**kwargs)

    def summary(self) -> str:
        """The state in one line of text."""
        raise NotImplementedError

    def fallback(self) -> str:
        """The state as HTML that `table` made."""
        raise NotImplementedError

    def state(self) -> dict:
        """The synced traits of the subclass: what the script starts from on the site."""
        ours = set(self.trait_names(sync=True)) - set(anywidget.AnyWidget.class_trait_names(sync=True))
        return {key: getattr(self, key) for key in sorted(ours) if not key.startswith("_")}

    def html(self) -> str:
        """The committed output: the fallback, with the state in an attribute. Raises ValueError for a number that is not finite."""
        # single quotes outside, so that the JSON inside stays readable in a diff
        state = json.dumps(self.state(), ensure_ascii=False, allow_nan=False)
        for char, entity in ("&", "&amp;"), ("'", "&#39;"), ("<", "&lt;"), (">", "&gt;"):
            state = state.replace(char, entity)
        start = f"<div class=\"explorable\" data-explorable=\"{self.name}\" data-state='{state}'>"
        return f"{start}\n{self.fallback()}\n{NOTE}\n</div>"

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_(**kwargs)  # the metadata lead Colab to its widget manager
        return {**data, "text/html": self.html(), "text/plain": self.summary()}, metadata


def table(caption: str, head: list[str], rows: list[list[str]]) -> str:
    """A table without style, class or id, which GitHub's viewer would remove; the first cell of a row names it."""
    lines = ["".join([f"<th>{escape(first)}</th>", *(f"<td>{escape(cell)}</td>" for cell in rest)]) for first, *rest in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    heads = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return f"<table>\n<caption>{escape(caption)}</caption>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def figures(x: float) -> str:
    """Three digits, halves up, thousands apart: 70.272 -> '70.3'. kit.js does the same operations, so both print the same."""
    k = 0
    while k < 4 and x * 10**k < 100:
        k += 1
    rounded = math.floor(x * 10**k + 0.5) / 10**k
    return f"{rounded:,.0f}" if rounded >= 1000 else f"{rounded:g}"


def with_unit(x: float, units: tuple[str, ...]) -> str:
    """Three digits and the decimal unit that fits: with_unit(70_272, BYTES) -> '70.3 KB'."""
    i = 0
    while x >= 999.5 and i < len(units) - 1:
        x, i = x / 1000, i + 1
    return f"{figures(x)} {units[i]}".rstrip()


BYTES = ("B", "KB", "MB", "GB", "TB", "PB")  # decimal, as the papers use them
COUNTS = ("", "thousand", "million", "billion", "trillion")
