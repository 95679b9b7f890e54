"""Where the parameters and the work of a dense Transformer lie, by part, for any shape."""

import traitlets as t

from minimodels.explorables.base import COUNTS, Explorable, figures, table, with_unit
from minimodels.studies.model import SHAPES, YARDSTICK

PARTS = {"embedding": "Embedding", "attention": "Attention", "scores": "Scores and sums", "ffn": "Feed-forward", "norms": "Norms",
         "head": "Head"}
SHAPE = ("n_layers", "d_model", "d_ff", "sharing", "vocab_size", "is_tied")


def _sibling(config) -> dict:
    return dict(n_layers=config.n_layers, d_model=config.d_model, d_ff=config.d_ff, sharing=1, vocab_size=config.vocab_size, is_tied=True)


# Source of Llama's sizes: Llama 3, Table 3.
PRESETS = {
    "The yardstick": _sibling(YARDSTICK),
    "1 layer": _sibling(SHAPES[1]),
    "16 layers": _sibling(SHAPES[16]),
    "Llama 3 8B": dict(n_layers=32, d_model=4096, d_ff=14_336, sharing=4, vocab_size=128_000, is_tied=False),
    "Llama 3 405B": dict(n_layers=126, d_model=16_384, d_ff=53_248, sharing=16, vocab_size=128_000, is_tied=False),
}


class ModelShape(Explorable):
    """Parameters of a dense Transformer, and FLOPs of its forward pass for one token, by part.

    Heads are as wide together as the hidden state; `sharing` query heads have one key and value. FLOPs are the mean over a text
    of `context` tokens, causal: a query meets (context + 1) / 2 sources on average. A multiplication and its addition are two.
    Norms, softmax and all that is no matrix product count as none. `minimodels.cost` counts alike.
    """

    name = "model_shape"

    n_layers = t.Int(min=1).tag(sync=True)
    d_model = t.Int(min=1).tag(sync=True)      # D
    d_ff = t.Int(min=1).tag(sync=True)         # hidden width of SwiGLU
    sharing = t.Int(min=1).tag(sync=True)      # query heads to one key-value head: 1 is MHA
    vocab_size = t.Int(min=1).tag(sync=True)   # V
    is_tied = t.Bool().tag(sync=True)          # head and embedding are one matrix
    context = t.Int(256, min=1).tag(sync=True)
    is_held = t.Bool(False).tag(sync=True)     # whether the page keeps d_ff such that the budget is met
    budget = t.Int(YARDSTICK.n_params, min=1).tag(sync=True)
    presets = t.Dict(PRESETS).tag(sync=True)

    def __init__(self, **values):
        """What values do not name is the yardstick's."""
        super().__init__(**PRESETS["The yardstick"] | values)

    @classmethod
    def preset(cls, name: str, **values) -> "ModelShape":
        """The shape called name; values go on top. Raises ValueError with the names that exist."""
        if name not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
        return cls(**PRESETS[name] | values)

    def parameters(self) -> dict[str, int]:
        """Parameters by part; scores have none, and a tied head is the embedding's."""
        L, D, V = self.n_layers, self.d_model, self.vocab_size
        return {"embedding": V * D, "attention": L * self._projections(), "scores": 0, "ffn": 3 * L * D * self.d_ff,
                "norms": (2 * L + 1) * D, "head": 0 if self.is_tied else V * D}

    def flops(self) -> dict[str, int]:
        """FLOPs of one token's forward pass by part; to look a row up in the embedding is no work."""
        L, D = self.n_layers, self.d_model
        return {"embedding": 0, "attention": 2 * L * self._projections(), "scores": 2 * L * D * (self.context + 1),
                "ffn": 6 * L * D * self.d_ff, "norms": 0, "head": 2 * self.vocab_size * D}

    def held_d_ff(self) -> int:
        """The feed-forward width with which the parameters come closest to the budget; at least 1."""
        rest = sum(self.parameters().values()) - self.parameters()["ffn"]
        per_unit = 3 * self.n_layers * self.d_model
        return max(1, (2 * (self.budget - rest) + per_unit) // (2 * per_unit))

    def _projections(self):
        return 2 * self.d_model**2 + 2 * self.d_model * (self.d_model // self.sharing)

    def summary(self) -> str:
        n, work = (with_unit(sum(of.values()), COUNTS) for of in (self.parameters(), self.flops()))
        return f"{self.n_layers} layers of width {self.d_model:,}: {n} parameters, {work} FLOPs a token"

    def fallback(self) -> str:
        n, work = self.parameters(), self.flops()
        rows = [[words, with_unit(n[part], COUNTS), f"{figures(100 * n[part] / sum(n.values()))} %", with_unit(work[part], COUNTS),
                 f"{figures(100 * work[part] / sum(work.values()))} %"] for part, words in PARTS.items()]
        rows.append(["Together", with_unit(sum(n.values()), COUNTS), "100 %", with_unit(sum(work.values()), COUNTS), "100 %"])
        head = "tied" if self.is_tied else "not tied"
        caption = (f"{self.n_layers} layers of width {self.d_model:,}, feed-forward {self.d_ff:,}, vocabulary {self.vocab_size:,}, head "
                   f"{head}; a token of {self.context:,}")
        return table(caption, ["Part", "Parameters", "Share", "FLOPs a token", "Share"], rows)
