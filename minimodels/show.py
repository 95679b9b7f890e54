"""Figures and tables in the house style, for notebooks.

A figure is stored as plain JSON: no template, plain lists, four significant digits. So a committed notebook stays small, reads the same
under plotly 5, 6 and 7, and passes a comparison on another processor. It is stored in the light colours; the site translates them.
Colour never stands alone: lines carry their name at their end, bars at their foot, tokens the number of their expert.
"""

import base64
import math
import sys
import textwrap
from collections import Counter
from html import escape

import numpy as np

MIME = "application/vnd.plotly.v1+json"

# token: (light, dark); book/_static/tokens.css holds the same, and a test compares them
COLORS = {
    "paper": ("#fdfcf9", "#171614"),
    "raised": ("#f6f3ec", "#211f1c"),
    "ink": ("#1f1d1a", "#e9e5dc"),
    "muted": ("#635d54", "#aba498"),
    "rule": ("#d8d2c5", "#3d3934"),
    "hair": ("#e8e3d9", "#2b2825"),
    "mark": ("#882804", "#ee7d66"),
    "dense": ("#322d28", "#b5b0aa"),
    "attn": ("#5f6ea0", "#7db2fe"),
    "mla": ("#882804", "#ea6a55"),
    "moe": ("#03563d", "#a6dd97"),
    "mtp": ("#481f87", "#9f89f0"),
    "fp8": ("#8c5f26", "#e3a02a"),
    "rl": ("#660259", "#c67bae"),
    "distill": ("#0f686b", "#6be6ea"),
}
CONCEPTS = ("dense", "attn", "mla", "moe", "mtp", "fp8", "rl", "distill")
SCHEMES = {"mha": "attn", "gqa": "attn", "mqa": "attn"}    # three schemes, one concept: they differ by dash
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")

HEIGHT, MARGIN_LEFT, MARGIN_BOTTOM = 380, 64, 56   # px
LINE = 24                                          # px, a line of the title
BAR = r"\|"                                        # a bar inside a cell of a Markdown table
LABEL = 17                                         # px, the least distance between two names at the ends of lines


# ---- figures

def lines(series, *, title, x, y, concept=None, spread=None, log_x=False, log_y=False):
    """A figure with one line per entry of series, named at its end.

    series: {name: (xs, ys)}. title: the finding, as a sentence. x, y: what the axes show, with units.
    concept: {name: concept} where a name is not itself a concept; what belongs to no concept is drawn in ink.
    spread: {name: (lows, highs)}, shaded: several seeds, say.
    Raises ValueError for a series without points, with unequal lengths, or an unknown concept.
    """
    import plotly.graph_objects as go

    styles = _styles(series, concept)
    fig = go.Figure()
    for name, (xs, ys) in series.items():
        xs, ys = _plain(xs), _plain(ys)
        if not xs or len(xs) != len(ys):
            raise ValueError(f"series {name!r} must have as many x as y, and at least one, got {len(xs)} and {len(ys)}")
        color, dash = styles[name]
        if spread and name in spread:
            low, high = (_plain(edge) for edge in spread[name])
            fig.add_scatter(x=xs + xs[::-1], y=high + low[::-1], fill="toself", fillcolor=color, opacity=0.15, mode="lines",
                            line={"width": 0}, hoverinfo="skip", showlegend=False)
        fig.add_scatter(x=xs, y=ys, name=name, mode="lines+markers" if len(xs) <= 12 else "lines", showlegend=False,
                        line={"color": color, "dash": dash, "width": 2}, marker={"color": color, "size": 6})
    fig.update_layout(title=title, xaxis={"title": x, "type": "log" if log_x else "linear"},
                      yaxis={"title": y, "type": "log" if log_y else "linear"})
    if len(series) > 1:
        fig.update_layout(annotations=_end_labels(series, styles, log_x, log_y), margin={"r": 24 + 8 * max(len(n) for n in series)})
    return fig


def bars(values, *, title, unit, concept=None):
    """A figure with one horizontal bar per entry of values, first on top, with its number at its end.

    values: {name: number}. unit: what the numbers are. title and concept as in `lines`. Raises ValueError for no values.
    """
    import plotly.graph_objects as go

    if not values:
        raise ValueError("values must hold at least one bar, got none")
    numbers = _plain(list(values.values()))
    colors = [color for color, _ in _styles(values, concept, otherwise="muted").values()]
    fig = go.Figure(go.Bar(x=numbers, y=list(values), orientation="h", marker={"color": colors}, text=[_say(n) for n in numbers],
                           textposition="outside", cliponaxis=False, showlegend=False))
    fig.update_layout(title=title, height=140 + 34 * len(values), margin={"r": 72},
                      xaxis={"title": unit, "rangemode": "tozero"}, yaxis={"autorange": "reversed", "showgrid": False})
    return fig


def show(fig, *, alt, caption="", name=""):
    """Display fig in the house style.

    alt: what a reader would see, for those who do not see it. caption: plain text below; with it the site numbers the figure.
    name: the anchor that a link on the site may use. Raises ValueError without alt, or without a title in the figure.
    """
    from IPython.display import display

    display(_bundle(fig, alt, caption, name), raw=True)
    if caption:
        display(_caption(caption), raw=True)


class Live:
    """A place in the output where a figure is drawn again and again: live = Live(alt=…), then live.draw(fig) in a loop.

    The notebook keeps the last drawing. nbval does not see that a drawing was replaced: tag the cell nbval-ignore-output.
    Arguments and errors as in `show`.
    """

    def __init__(self, *, alt, caption="", name=""):
        self.alt, self.caption, self.name = alt, caption, name
        self._handle = None

    def draw(self, fig):
        """Replace what stands there by fig."""
        from IPython.display import display

        bundle = _bundle(fig, self.alt, self.caption, self.name)
        if self._handle is not None:
            self._handle.update(bundle, raw=True)
            return
        self._handle = display(bundle, raw=True, display_id=True)
        if self.caption:
            display(_caption(self.caption), raw=True)


def figure_json(fig, *, alt, caption="", name=""):
    """The figure as plain values, in the house style: what a notebook stores. Arguments and errors as in `show`."""
    if not str(alt).strip():
        raise ValueError("alt must say what a reader would see, got an empty text")
    stored = _plain(fig.to_plotly_json() if hasattr(fig, "to_plotly_json") else fig)
    layout = dict(stored.get("layout", {}))
    layout.pop("template", None)
    title = layout.get("title", "")
    title = title.get("text", "") if isinstance(title, dict) else title
    if not title:
        raise ValueError("a figure must have a title that says what it shows, got none")
    meta = {"alt": alt, "title": title, "caption": caption, "name": name}
    layout = _house(layout, title) | {"meta": {k: v for k, v in meta.items() if v}}
    frames = {"frames": stored["frames"]} if stored.get("frames") else {}
    return {"data": stored["data"], "layout": layout} | frames


def _bundle(fig, alt, caption, name):
    stored = figure_json(fig, alt=alt, caption=caption, name=name)
    text = f"[figure: {stored['layout']['meta']['title']} {alt}]"
    if "google.colab" not in sys.modules:
        return {MIME: stored, "text/plain": text}
    from plotly.io import to_html    # Colab draws plotly from HTML alone

    return {"text/html": to_html(stored, include_plotlyjs="cdn", full_html=False, validate=False), "text/plain": text}


def _caption(caption):
    # raw notebooks show this; on the site the figure has its caption already, and the extension drops this
    return {"text/html": f'<p class="bookfig-caption"><em>{escape(caption)}</em></p>', "text/plain": caption}


def _house(layout, title):
    ink, muted, rule, paper = (COLORS[k][0] for k in ("ink", "muted", "rule", "paper"))
    axis = {"gridcolor": rule, "zeroline": False, "linecolor": muted, "tickcolor": muted, "ticks": "outside", "ticklen": 4,
            "automargin": True}
    wrapped = textwrap.wrap(title.replace("<br>", " "), 74)
    house = {
        "font": {"family": "'Source Sans 3', 'Segoe UI', system-ui, sans-serif", "size": 14, "color": ink},
        "paper_bgcolor": paper, "plot_bgcolor": paper, "height": HEIGHT, "autosize": True,
        "colorway": [COLORS[c][0] for c in CONCEPTS],
        "hoverlabel": {"bgcolor": COLORS["raised"][0], "bordercolor": muted, "font": {"color": ink}},
    } | layout
    house["title"] = {"text": "<br>".join(wrapped), "x": 0, "xref": "container", "xanchor": "left", "y": 1, "yref": "container",
                      "yanchor": "top", "pad": {"l": 12, "t": 12}, "font": {"size": 17}}
    house["margin"] = {"l": MARGIN_LEFT, "r": 24, "b": MARGIN_BOTTOM, "t": 28 + LINE * len(wrapped)} | layout.get("margin", {})
    for key in {"xaxis", "yaxis"} | {k for k in layout if k[1:].startswith("axis")}:
        house[key] = axis | layout.get(key, {})
    return house


def _styles(names, concept, otherwise="ink"):
    """{name: (colour, dash)}: a concept's colour, and within one colour a dash each; otherwise is for what belongs to no concept."""
    concept, seen, styles = concept or {}, Counter(), {}
    for name in names:
        key = concept.get(name, name.lower())
        key = SCHEMES.get(key, key)
        if name in concept and key not in CONCEPTS:
            raise ValueError(f"the concept of {name!r} must be one of {', '.join((*CONCEPTS, *SCHEMES))}, got {concept[name]!r}")
        key = key if key in CONCEPTS else otherwise
        styles[name] = COLORS[key][0], DASHES[seen[key] % len(DASHES)]
        seen[key] += 1
    return styles


def _end_labels(series, styles, log_x, log_y):
    """Annotations with the names at the ends of the lines, pushed apart where two would overlap."""
    to_y = math.log10 if log_y else float
    every = [to_y(v) for _, ys in series.values() for v in _plain(ys) if v is not None]
    low, high = min(every), max(every)
    px = (HEIGHT - MARGIN_BOTTOM - 2 * LINE - 28) / ((high - low) or 1)
    ends = sorted((to_y(_plain(ys)[-1]), float(_plain(xs)[-1]), name) for name, (xs, ys) in series.items() if _plain(ys)[-1] is not None)
    labels, below = [], -math.inf
    for y, x, name in ends:
        at = max((y - low) * px, below + LABEL)
        below = at
        labels.append({"text": name, "x": math.log10(x) if log_x else x, "y": y, "yshift": round(at - (y - low) * px), "xanchor": "left",
                       "xshift": 8, "showarrow": False, "font": {"color": styles[name][0]}})
    return labels


def _plain(value):
    """value with lists for arrays, floats at four significant digits, and None for what is not a finite number."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().tolist()
    elif isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, dict):
        if set(value) >= {"dtype", "bdata"}:   # plotly 6 and 7 pack arrays
            shape = [int(n) for n in str(value.get("shape", -1)).split(",")]
            return _plain(np.frombuffer(base64.b64decode(value["bdata"]), dtype=value["dtype"]).reshape(shape))
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") + 0.0 if math.isfinite(value) else None
    if value is not None and not isinstance(value, (str, bool, int)) and hasattr(value, "__iter__"):
        return [_plain(v) for v in value]      # a pandas column
    return value


def _say(value):
    """value as a reader wants it: thousands apart, at most four significant digits unless it is whole."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    rounded = float(f"{value:.4g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:g}"


# ---- tables and tokens

def table(rows, *, caption=""):
    """Display rows, a list of dictionaries with the same keys, as a table; numbers stand right, at four significant digits.

    Raises ValueError for no rows, or for rows with different keys.
    """
    from IPython.display import display

    if not rows or any(list(row) != list(rows[0]) for row in rows):
        raise ValueError(f"rows must be dictionaries with the same keys, and at least one, got {[list(row) for row in rows]}")
    columns = list(rows[0])
    is_number = [all(isinstance(row[c], (int, float, np.number)) for row in rows) for c in columns]
    cells = [[str(c) for c in columns]] + [[_say(_plain(row[c])) for c in columns] for row in rows]
    rules = ["---:" if right else "---" for right in is_number]
    markdown = "\n".join(f"| {' | '.join(c.replace('|', BAR) for c in row)} |" for row in (cells[0], rules, *cells[1:]))
    markdown += f"\n\n*{caption}*" if caption else ""
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    justified = [[c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, is_number)] for row in cells]
    plain = "\n".join("  ".join(row).rstrip() for row in justified)
    display({"text/markdown": markdown, "text/plain": plain}, raw=True)


def tokens_by_expert(tokens, experts, *, n_experts, caption=""):
    """Display text with each token on the colour of its expert and the expert's number after it, and how many tokens each expert got.

    tokens: list of str, as decoded, in order. experts: as many ints in [0, n_experts), say the expert with the largest weight.
    Raises ValueError for unequal lengths or an expert that does not exist.
    """
    from IPython.display import display

    experts = _plain(experts)
    if len(tokens) != len(experts):
        raise ValueError(f"experts must be as many as tokens, {len(tokens)}, got {len(experts)}")
    for e in experts:
        if not 0 <= e < n_experts:
            raise ValueError(f"experts must be in [0, n_experts={n_experts}), got {e}")
    words = "".join(_token(t, e, n_experts) for t, e in zip(tokens, experts))
    load = Counter(experts)
    counts = [f"{_chip(str(e), e, n_experts)}&#8202;×&#8202;{load[e]}" for e in range(n_experts)]
    key = " ".join(f'<span style="white-space:nowrap">{count}</span>' for count in counts)
    html = (f'<div class="by-expert" role="group" aria-label="Text; after each token the number of its expert">'
            f'<p style="font-family:monospace;white-space:pre-wrap;line-height:2;overflow-wrap:anywhere">{words}</p>'
            f'<p>Tokens an expert got: {key}</p>' + (f"<p><em>{escape(caption)}</em></p>" if caption else "") + "</div>")
    plain = " ".join(f"{t!r}:{e}" for t, e in zip(tokens, experts))
    display({"text/html": html, "text/plain": plain}, raw=True)


def _token(token, expert, n_experts):
    seen = token.replace("\n", "⏎").replace("\t", "⇥")
    seen = "␣" * len(seen) if seen.isspace() else seen
    breaks = "\n" * token.count("\n")
    return _chip(f"{escape(seen)}<sub>{expert}</sub>", expert, n_experts) + breaks


def _chip(content, expert, n_experts):
    # hues evenly apart, neighbours far; own ground and ink, so that it reads on any page; tokens.css darkens it in the dark
    hue = round(expert * 360 * 0.381966) % 360 if n_experts > 8 else round(360 * expert / n_experts)
    return f'<span style="--hue:{hue};background:hsl({hue} 60% 86%);color:#1f1d1a;border-radius:3px;padding:1px 2px">{content}</span>'
