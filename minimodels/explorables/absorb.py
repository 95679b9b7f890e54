"""Two ways to compute one step of MLA: rebuild every key from its latent, or move the matrix to the query's side."""

import traitlets as t

from minimodels.config import ModelConfig
from minimodels.explorables.base import COUNTS, Explorable, table, with_unit

WAYS = {"naive": "Expand the keys", "absorbed": "Absorb into the query"}
SIZES = ("n_heads", "d_head", "d_rope", "d_value", "d_latent")
PRESETS = {label: {field: getattr(ModelConfig.preset(name), field) for field in SIZES}
           for label, name in {"DeepSeek-V3": "deepseek_v3", "This book's cpu": "cpu"}.items()}


def dot(a: list[int], b: list[int]) -> int:
    """The sum of the products. Raises ValueError for unequal lengths."""
    return sum(x * y for x, y in zip(a, b, strict=True))


class Absorb(Explorable):
    """The identity q . (W_UK c) = (W_UK^T q) . c with small integers, and the multiplications of both ways at a real size.

    *naive* rebuilds the keys and values of all S cached tokens; *absorbed* maps each of T queries into the latent space, and
    its result back. Left out of the picture: the rotary part, whose key is cached as it is; both ways add the same to a score.
    Source: DeepSeek-V2, appendix C; `minimodels.mla` computes both and counts alike.
    """

    name = "absorb"

    way = t.Enum(list(WAYS), "naive").tag(sync=True)
    head = t.Int(0, min=0).tag(sync=True)    # which head's query and matrix the picture shows
    token = t.Int(0, min=0).tag(sync=True)   # which cached token's score it spells out
    query = t.List([[2, -1], [1, 3]]).tag(sync=True)                                  # (H, Dn)
    w_uk = t.List([[[1, 0, 2], [3, -1, 1]], [[0, 2, -1], [1, 1, 0]]]).tag(sync=True)  # (H, Dn, C)
    c_kv = t.List([[1, 2, 0], [0, -1, 2], [2, 1, 1], [-2, 1, 1]]).tag(sync=True)      # (S, C)

    n_heads = t.Int(min=1).tag(sync=True)        # H
    d_head = t.Int(min=1).tag(sync=True)         # Dn
    d_rope = t.Int(min=0).tag(sync=True)         # Dr
    d_value = t.Int(min=1).tag(sync=True)        # Dv
    d_latent = t.Int(min=1).tag(sync=True)       # C
    context = t.Int(4096, min=1).tag(sync=True)  # S, cached tokens, the new ones among them
    queries = t.Int(1, min=1).tag(sync=True)     # T, new tokens at once: 1 when decoding; more than S count as S
    presets = t.Dict(PRESETS).tag(sync=True)

    def __init__(self, **values):
        """What values do not name is DeepSeek-V3's."""
        super().__init__(**PRESETS["DeepSeek-V3"] | values)

    def rebuilt_keys(self) -> list[list[int]]:
        """The head's key of each cached token, W_UK c: (S, Dn)."""
        return [[dot(row, c) for row in self.w_uk[self.head]] for c in self.c_kv]

    def absorbed_query(self) -> list[int]:
        """The head's query in the latent space, W_UK^T q: (C,)."""
        return [dot(self.query[self.head], column) for column in zip(*self.w_uk[self.head], strict=True)]

    def scores(self, way: str) -> list[int]:
        """One score a cached token: (S,)."""
        if way == "naive":
            return [dot(self.query[self.head], k) for k in self.rebuilt_keys()]
        return [dot(self.absorbed_query(), c) for c in self.c_kv]

    def multiplications(self) -> dict[str, dict[str, int]]:
        """Of one layer and step, by way: "through" W_UK and W_UV, and to "attend", for scores and sums. All else is alike."""
        H, Dn, Dr, Dv, C = (getattr(self, field) for field in SIZES)
        S, T = self.context, min(self.queries, self.context)
        return {
            "naive": {"through": S * H * C * (Dn + Dv), "attend": T * S * H * (Dn + Dr + Dv)},
            "absorbed": {"through": T * H * C * (Dn + Dv), "attend": T * S * H * (C + Dr + C)},
        }

    def pays_from(self) -> int | None:
        """The smallest S at which absorbing needs fewer multiplications, or None where there is none."""
        T, rebuilt = self.queries, self.d_latent * (self.d_head + self.d_value)
        # absorbed < naive, divided by H:  T rebuilt + T S (2C + Dr)  <  S rebuilt + T S (Dn + Dr + Dv)
        gain = rebuilt - T * (2 * self.d_latent - self.d_head - self.d_value)
        return max(T, T * rebuilt // gain + 1) if gain > 0 else None

    def summary(self) -> str:
        n = {way: with_unit(sum(parts.values()), COUNTS) for way, parts in self.multiplications().items()}
        scores = ", ".join(map(_signed, self.scores("naive")))
        return f"scores {scores} both ways; multiplications over {self.context:,} tokens: naive {n['naive']}, absorbed {n['absorbed']}"

    def fallback(self) -> str:
        q, q_absorbed = self.query[self.head], self.absorbed_query()
        rows = [[_vector(c), _vector(k), _signed(s), _signed(a)]
                for c, k, s, a in zip(self.c_kv, self.rebuilt_keys(), self.scores("naive"), self.scores("absorbed"), strict=True)]
        identity = table(f"Head {self.head + 1}: q = {_vector(q)}, absorbed query W_UKᵀ q = {_vector(q_absorbed)}",
                         ["Cached latent c", "Key W_UK c", "q · key", "Absorbed query · c"], rows)
        counts = [[WAYS[way], *(with_unit(n, COUNTS) for n in (parts["through"], parts["attend"], sum(parts.values())))]
                  for way, parts in self.multiplications().items()]
        caption = (f"Multiplications of one layer for {min(self.queries, self.context):,} new over {self.context:,} cached tokens: "
                   f"H = {self.n_heads}, Dn = {self.d_head}, Dr = {self.d_rope}, Dv = {self.d_value}, C = {self.d_latent}")
        return identity + "\n" + table(caption, ["Way", "Through W_UK, W_UV", "Scores and sums", "Together"], counts)


def _signed(n):
    return f"{n}".replace("-", "−")


def _vector(values):
    return f"({', '.join(map(_signed, values))})"
