"""Figures in the house style, as plain values that a notebook can store.

No template, plain lists, four significant digits: so a committed notebook stays small, reads the same under plotly 5, 6 and 7, and passes a
comparison on another processor. A figure is stored in the light colours; the site translates them. Colour never stands alone: lines carry
their name at their end, bars at their foot.
"""

import base64
import math
import textwrap
from collections import Counter

import numpy as np

from minimodels.palette import COLORS, CONCEPTS

SCHEMES = {"mha": "attn", "gqa": "attn", "mqa": "attn"}    # three schemes, one concept: they differ by dash
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")

HEIGHT, MARGIN_LEFT, MARGIN_BOTTOM = 380, 64, 56   # px
LINE = 24                                          # px, a line of the title
LABEL = 17                                         # px, the least distance between two names at the ends of lines


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
        xs, ys = plain(xs), plain(ys)
        if not xs or len(xs) != len(ys):
            raise ValueError(f"series {name!r} must have as many x as y, and at least one, got {len(xs)} and {len(ys)}")
        color, dash = styles[name]
        if spread and name in spread:
            low, high = (plain(edge) for edge in spread[name])
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
    numbers = plain(list(values.values()))
    colors = [color for color, _ in _styles(values, concept, otherwise="muted").values()]
    fig = go.Figure(go.Bar(x=numbers, y=list(values), orientation="h", marker={"color": colors}, text=[say(n) for n in numbers],
                           textposition="outside", cliponaxis=False, showlegend=False))
    fig.update_layout(title=title, height=140 + 34 * len(values), margin={"r": 72},
                      xaxis={"title": unit, "rangemode": "tozero"}, yaxis={"autorange": "reversed", "showgrid": False})
    return fig


def dots(values, *, title, unit, concept=None):
    """A figure with one dot per seed and a bar at their mean, a row per entry of values, first on top: the spread is seen.

    values: {name: [a number per seed]}. unit: what the numbers are. title and concept as in `lines`. Raises ValueError for an
    empty row or none.
    """
    import plotly.graph_objects as go

    if not values or not all(len(row) for row in values.values()):
        raise ValueError(f"values must hold at least one row, and each row a number, got {({k: len(v) for k, v in values.items()})}")
    fig = go.Figure()
    for name, (color, _) in _styles(values, concept).items():
        row = plain(list(values[name]))
        mean = sum(row) / len(row)
        fig.add_scatter(x=row, y=[name] * len(row), mode="markers", marker={"color": color, "size": 9, "opacity": 0.65}, name=name,
                        showlegend=False)
        fig.add_scatter(x=[mean], y=[name], mode="markers+text", text=[say(mean)], textposition="top center", hoverinfo="skip",
                        marker={"color": color, "symbol": "line-ns-open", "size": 22, "line": {"width": 2}}, showlegend=False)
    fig.update_layout(title=title, height=150 + 48 * len(values), xaxis={"title": unit},
                      yaxis={"range": [len(values) - 0.5, -0.8], "showgrid": False})    # first on top, and room for its mean
    return fig


def figure_json(fig, *, alt, caption="", name=""):
    """The figure as plain values, in the house style: what a notebook stores. Arguments and errors as in `show`."""
    if not str(alt).strip():
        raise ValueError("alt must say what a reader would see, got an empty text")
    stored = plain(fig.to_plotly_json() if hasattr(fig, "to_plotly_json") else fig)
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
    every = [to_y(v) for _, ys in series.values() for v in plain(ys) if v is not None]
    low, high = min(every), max(every)
    px = (HEIGHT - MARGIN_BOTTOM - 2 * LINE - 28) / ((high - low) or 1)
    ends = sorted((to_y(plain(ys)[-1]), float(plain(xs)[-1]), name) for name, (xs, ys) in series.items() if plain(ys)[-1] is not None)
    labels, below = [], -math.inf
    for y, x, name in ends:
        at = max((y - low) * px, below + LABEL)
        below = at
        labels.append({"text": name, "x": math.log10(x) if log_x else x, "y": y, "yshift": round(at - (y - low) * px), "xanchor": "left",
                       "xshift": 8, "showarrow": False, "font": {"color": styles[name][0]}})
    return labels


def plain(value):
    """value with lists for arrays, floats at four significant digits, and None for what is not a finite number."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().tolist()
    elif isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, dict):
        if set(value) >= {"dtype", "bdata"}:   # plotly 6 and 7 pack arrays
            shape = [int(n) for n in str(value.get("shape", -1)).split(",")]
            return plain(np.frombuffer(base64.b64decode(value["bdata"]), dtype=value["dtype"]).reshape(shape))
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") + 0.0 if math.isfinite(value) else None
    if value is not None and not isinstance(value, (str, bool, int)) and hasattr(value, "__iter__"):
        return [plain(v) for v in value]      # a pandas column
    return value


def say(value):
    """value as a reader wants it: thousands apart, at most four significant digits unless it is whole."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    rounded = float(f"{value:.4g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:g}"
