"""Draw the efficiency ladder from its records: minimodels/drawings/ladder.svg, and ladder.narrow.svg for phones.

    python book/_tools/ladder.py
"""

import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from minimodels.studies.together import Measured, measured

FOLDER = Path(__file__).resolve().parents[2] / "minimodels" / "drawings"
RUNGS = {"dense": ("dense", "eight heads, no tricks"), "+ MLA": ("mla", "a latent is cached"), "+ experts": ("moe", "3 of 31, and a shared one"),
         "+ MTP": ("mtp", "drafts a second token"), "+ FP8": ("fp8", "products of 8 bits")}


@dataclass(frozen=True)
class Column:
    """One measure: its name and unit, a figure in words, the figures of a row (one for each seed, or one), their form, and which is best."""

    name: str
    unit: str
    said: str
    figures: Callable[[Measured], list[float]]
    form: str
    best: Callable
    from_zero: bool = True      # bars; without it dots, on an axis from the least to the greatest


COLUMNS = [
    Column("Bits per byte", "unseen text, 3 seeds", "{} bits per byte", lambda row: row.bits_per_byte, "{:.3f}", min, from_zero=False),
    Column("Arithmetic", "MFLOP a token", "{} MFLOP for a token learnt", lambda row: [row.flops / 1e6], "{:.1f}", min),
    Column("Cache", "bytes a token", "{} bytes of cache for a token", lambda row: [row.cache_bytes], "{:,.0f}", min),
    Column("Memory to train", "MB", "{} MB to train", lambda row: [x / 1e6 for x in row.training_bytes], "{:.0f}", min),
    Column("Learns", "tokens a second", "{} tokens learnt a second", lambda row: row.train_tokens_per_s, "{:,.0f}", max),
    Column("Writes", "tokens a second", "{} written", lambda row: max(row.decode_tokens_per_s[1], row.drafting_tokens_per_s.get(1, [0]), key=statistics.mean), "{:,.0f}", max),
]


def mark(column: Column, table: list[Measured], row: Measured, x: float, y: float, width: float) -> str:
    """The cell of a row: a number, and behind it a bar, or a dot for each seed."""
    concept, _ = RUNGS[row.name]
    means = {each.name: statistics.mean(column.figures(each)) for each in table}
    shown = {name: column.form.format(mean) for name, mean in means.items()}
    weight = ' class="d-number"' if shown[row.name] == shown[column.best(means, key=means.get)] else ""
    drawn = [f'<text x="{x + 52:g}" y="{y + 5:g}" text-anchor="end"{weight}>{shown[row.name]}</text>']
    if column.from_zero:
        drawn.append(f'<rect x="{x + 60:g}" y="{y - 7:g}" width="{max(width * means[row.name] / max(means.values()), 1.5):.1f}" height="14" class="solid-{concept}"/>')
    else:
        every = [figure for each in table for figure in column.figures(each)]
        at = [x + 64 + (width - 8) * (figure - min(every)) / (max(every) - min(every) or 1) for figure in column.figures(row)]
        drawn.append(f'<path d="M{x + 60:g} {y:g}h{width:g}" class="d-axis"/>')
        drawn += [f'<circle cx="{cx:.1f}" cy="{y:g}" r="4" class="solid-{concept}"/>' for cx in at]
    return "".join(drawn)


def title(column: Column, x: float, y: float, small: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" class="d-label">{column.name}</text><text x="{x:g}" y="{y + 18:g}" class="{small}">{column.unit}</text>'


def broad(table: list[Measured]) -> str:
    """A row for each rung, the last on top, between the rails of a ladder; a column for each measure."""
    top, step, left, pitch = 62, 46, 178, 121
    lines = [f'<path d="M8 50V{top + step * len(table) + 6}M160 50V{top + step * len(table) + 6}" class="line-muted"/>']
    lines += [title(column, left + pitch * i, 18, "d-small") for i, column in enumerate(COLUMNS)]
    for i, row in enumerate(reversed(table)):
        y, (concept, says) = top + step * i, RUNGS[row.name]
        lines += [f'<text x="20" y="{y + 15}" class="d-label text-{concept}">{row.name}</text><text x="20" y="{y + 32}" class="d-small">{says}</text>',
                  f'<path d="M8 {y + step - 6}H160" class="line-{concept} d-thick"/>']
        lines += [mark(column, table, row, left + pitch * j, y + 18, pitch - 74) for j, column in enumerate(COLUMNS)]
    return wrapped(table, "ladder", 900, top + step * len(table) + 10, lines)


def narrow(table: list[Measured]) -> str:
    """A block for each measure, two side by side; in it a row for each rung."""
    step, head, lines = 21, 46, []
    height = head + step * len(table) + 22
    for i, column in enumerate(COLUMNS):
        x, top = 178 * (i % 2), height * (i // 2)
        lines.append(title(column, x + 4, top + 16, "d-note"))
        for j, row in enumerate(reversed(table)):
            y, (concept, _) = top + head + 8 + step * j, RUNGS[row.name]
            lines.append(f'<text x="{x + 4}" y="{y + 5}" class="text-{concept}">{row.name.removeprefix("+ ")}</text>')
            lines.append(mark(column, table, row, x + 52, y, 56))
    return wrapped(table, "ladder.narrow", 350, height * 3 - 14, lines)


def wrapped(table: list[Measured], name: str, width: int, height: int, lines: list[str]) -> str:
    said = " ".join(f"{row.name}: " + ", ".join(column.said.format(column.form.format(statistics.mean(column.figures(row)))) for column in COLUMNS) + "."
                    for row in table)
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">', "<title>The efficiency ladder</title>",
                      f"<desc>Five models, each with one technique more than the one below. {said}</desc>", *lines, "</svg>"]) + "\n"


def drawings(table: list[Measured]) -> dict[str, str]:
    """The two files: name and contents."""
    return {"ladder.svg": broad(table), "ladder.narrow.svg": narrow(table)}


if __name__ == "__main__":
    try:
        for name, svg in drawings(measured("cpu")).items():
            (FOLDER / name).write_text(svg, "utf8")
            print(f"minimodels/drawings/{name}")
    except FileNotFoundError as error:
        sys.exit(f"ladder: error: {error}")
