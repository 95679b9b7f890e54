"""The colours of the book: one for each concept, in every figure, drawing and page, on light and on dark paper."""

# token: (light, dark); book/_static/tokens.css holds the same for the site, and a test compares them
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
TINT = {"dense": 0.08, "ink": 0.08}     # how much of a colour its pale ground holds; the dark inks need less


def light(token) -> str:
    """The colour of a token on light paper; mla-tint is the pale ground of mla."""
    name = token.removesuffix("-tint")
    return COLORS[name][0] if name == token else _mix(COLORS[name][0], COLORS["paper"][0], TINT.get(name, 0.13))


def _mix(color, ground, share):
    parts = ((int(color[i:i + 2], 16), int(ground[i:i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(share * c + (1 - share) * g):02x}" for c, g in parts)
