"""How much an attention scheme has to remember: MHA, GQA, MQA and MLA, side by side."""

import traitlets as t

from minimodels.config import ModelConfig
from minimodels.explorables.base import BYTES, Explorable, figures, table, with_unit

SCHEMES = ("MHA", "GQA", "MQA", "MLA")
SHAPE = ("n_layers", "n_heads", "n_kv_heads", "d_head", "d_latent", "d_rope")


def _shape(config: ModelConfig, **changes) -> dict:
    return {field: getattr(config, field) for field in SHAPE} | changes


RATIOS = "at DeepSeek's ratios C = 4 Dh and Dr = Dh/2"

_V3 = ModelConfig.preset("deepseek_v3")
# `uses` is the scheme of the model itself, the others are what-ifs: GQA gets the usual 8 groups (2 where there are 4 heads),
# and MLA, where a model has none, DeepSeek's ratios.
# Sources: DeepSeek-V2, section 3.1.2; DeepSeek-V3, section 4.2; Qwen2.5, Table 1; Llama 3, Table 3; ModelConfig.
PRESETS = {
    "DeepSeek-V2": _shape(_V3, n_layers=60, n_kv_heads=8) | {"uses": "MLA"},
    "DeepSeek-V3": _shape(_V3, n_kv_heads=8) | {"uses": "MLA"},
    "Qwen-2.5-72B": dict(n_layers=80, n_heads=64, n_kv_heads=8, d_head=128, d_latent=512, d_rope=64, uses="GQA", ratios=RATIOS),
    "Llama-3.1-405B": dict(n_layers=126, n_heads=128, n_kv_heads=8, d_head=128, d_latent=512, d_rope=64, uses="GQA", ratios=RATIOS),
    "cpu": _shape(ModelConfig.preset("cpu"), n_kv_heads=2) | {"uses": "MLA", "label": "This book's cpu"},
}


class KVCache(Explorable):
    """The size of the KV cache under four schemes, for one shape of model, one load and one precision.

        values a token and layer:  MHA 2 H Dh    GQA 2 G Dh    MQA 2 Dh    MLA C + Dr

    Left out: the scales of a quantised cache, and everything else that a GPU's memory holds.
    Source: DeepSeek-V2, Table 1.
    """

    name = "kv_cache"

    n_layers = t.Int(min=1).tag(sync=True)
    n_heads = t.Int(min=1).tag(sync=True)            # H
    n_kv_heads = t.Int(min=1).tag(sync=True)         # G, key-value groups of GQA; more than H count as H
    d_head = t.Int(min=1).tag(sync=True)             # Dh
    d_latent = t.Int(min=1).tag(sync=True)           # C
    d_rope = t.Int(min=0).tag(sync=True)             # Dr
    context = t.Int(131_072, min=1).tag(sync=True)   # S, tokens a sequence
    batch = t.Int(1, min=1).tag(sync=True)           # B, sequences at once
    bits = t.Int(16, min=1).tag(sync=True)           # a value
    memory_bytes = t.Int(80_000_000_000, min=1).tag(sync=True)  # of the GPU that the cache should fit
    presets = t.Dict(PRESETS).tag(sync=True)

    def __init__(self, **values):
        """What values do not name is DeepSeek-V3's."""
        super().__init__(**{field: PRESETS["DeepSeek-V3"][field] for field in SHAPE} | values)

    @classmethod
    def preset(cls, name: str, **values) -> "KVCache":
        """The shape of the model called name; values go on top. Raises ValueError with the names that exist."""
        if name not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
        return cls(**{field: PRESETS[name][field] for field in SHAPE} | values)

    @property
    def model(self) -> str | None:
        """The preset that has this shape, or None."""
        return next((name for name, p in self.presets.items() if all(p[f] == getattr(self, f) for f in SHAPE)), None)

    def values_per_layer(self) -> dict[str, int]:
        """Numbers that one layer keeps for one token, by scheme."""
        H, G, Dh = self.n_heads, self.n_kv_heads, self.d_head
        return {"MHA": 2 * H * Dh, "GQA": 2 * min(G, H) * Dh, "MQA": 2 * Dh, "MLA": self.d_latent + self.d_rope}

    def bytes_per_token(self) -> dict[str, int]:
        """Bytes that all layers keep for one token, by scheme, rounded up to whole ones."""
        return {scheme: -(-n * self.n_layers * self.bits // 8) for scheme, n in self.values_per_layer().items()}

    def total_bytes(self) -> dict[str, int]:
        """Bytes of the whole cache, by scheme: every sequence at its full length."""
        return {scheme: n * self.context * self.batch for scheme, n in self.bytes_per_token().items()}

    def sequences_that_fit(self) -> dict[str, int]:
        """How many sequences of this length fit into memory_bytes, by scheme, with nothing else there."""
        return {scheme: self.memory_bytes // (n * self.context) for scheme, n in self.bytes_per_token().items()}

    def role(self, scheme: str) -> str:
        """'in NAME' for the scheme that the model uses, 'hypothetical' for the others, nothing for a shape of your own."""
        if self.model is None:
            return ""
        preset = self.presets[self.model]
        if scheme == preset["uses"]:
            return f"in {preset.get('label', self.model)}"
        return f"hypothetical, {preset['ratios']}" if scheme == "MLA" and "ratios" in preset else "hypothetical"

    def summary(self) -> str:
        sizes = ", ".join(f"{scheme} {with_unit(n, BYTES)}" for scheme, n in self.total_bytes().items())
        return f"KV cache of {self.batch:,} × {self.context:,} tokens at {self.bits} bits: {sizes}"

    def fallback(self) -> str:
        each, total, fit = self.bytes_per_token(), self.total_bytes(), self.sequences_that_fit()
        rows = [[f"{scheme} {self.role(scheme)}".rstrip(), with_unit(each[scheme], BYTES), with_unit(total[scheme], BYTES),
                 f"{figures(100 * each[scheme] / each['MHA'])} %", f"{fit[scheme]:,}"] for scheme in SCHEMES]
        sequences = "one sequence" if self.batch == 1 else f"{self.batch:,} sequences"
        caption = (f"KV cache of {sequences} of {self.context:,} tokens, {self.bits} bits a value: {self.n_layers} layers, "
                   f"H = {self.n_heads}, Dh = {self.d_head}, G = {self.n_kv_heads}, C = {self.d_latent}, Dr = {self.d_rope}")
        return table(caption, ["Scheme", "A token", "In all", "Of MHA", f"Fit into {with_unit(self.memory_bytes, BYTES)}"], rows)
