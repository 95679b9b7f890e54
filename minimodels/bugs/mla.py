"""Three ways to spoil latent attention that no loss curve gives away."""

import torch
from torch import Tensor

from minimodels.attention import LayerCache, Place
from minimodels.layers import rotate
from minimodels.mla import LatentAttention


class HalvesForPairs(LatentAttention):
    """The query rotates neighbours (x0, x1), the key rotates halves (x0, x4): two layouts of RoPE that both exist in public code.

    Scores then depend on where a text stands, not only on distances.
    """

    def latent(self, h: Tensor, place: Place) -> Tensor:
        c_kv, k_rope = self.w_dkv(h).split([self.w_ukv.in_features, self.d_rope], dim=-1)
        as_pairs = k_rope.unflatten(-1, (2, -1)).mT.flatten(-2)  # (B, T, Dr)
        turned = rotate(as_pairs.unsqueeze(2), place.turn).squeeze(2)  # (B, T, Dr)
        return torch.cat([self.kv_norm(c_kv), turned.unflatten(-1, (-1, 2)).mT.flatten(-2)], dim=-1)


class Unscaled(LatentAttention):
    """The factor 1 / sqrt(Dn + Dr) is missing, so that a score grows with the width of a head."""

    @property
    def scale(self) -> float:
        return 1.0

    @scale.setter
    def scale(self, value: float):
        pass  # what the constructor computes is what this bug forgets


class CachedBeforeNorm(LatentAttention):
    """The latent goes into the cache before its norm. Training has no cache, so it is right; only generation reads something else."""

    def forward(self, h: Tensor, place: Place, cache: LayerCache | None = None, *, absorb: bool | None = None) -> Tensor:
        if cache is None:
            return super().forward(h, place, absorb=absorb)
        norm, self.kv_norm = self.kv_norm, torch.nn.Identity()
        try:
            return super().forward(h, place, cache, absorb=absorb)
        finally:
            self.kv_norm = norm


BUGS = {"halves for pairs": HalvesForPairs, "no scale": Unscaled, "cached before the norm": CachedBeforeNorm}
