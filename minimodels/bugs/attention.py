"""Five ways to spoil ordinary attention; four of them still train, and the first trains best of all."""

import torch
from torch import Tensor

from minimodels.attention import GroupedAttention, LayerCache, Place, may_attend
from minimodels.layers import rotate


class LeakingMask(GroupedAttention):
    """The mask allows s <= t + 1, one token too many: the one that is to be predicted.

    Behind a cache, token by token, there is no next token to see, so what was learnt fails there.
    """

    def forward(self, h: Tensor, place: Place, cache: LayerCache | None = None) -> Tensor:
        if cache is None:
            T = h.shape[1]
            mask = may_attend(torch.arange(1, T + 1, device=h.device), T)  # (T, T)
            place = Place(place.turn, None, mask, is_causal=False)
        return super().forward(h, place, cache)


class KeyTurnedTwice(GroupedAttention):
    """The key is rotated where it is made, and again where it is used. Scores depend on t - 2s, where a text stands."""

    def project(self, h: Tensor, place: Place) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().project(h, place)
        return q, rotate(k, place.turn), v


class BothTurnedTwice(GroupedAttention):
    """Query and key are both rotated twice: scores still depend on distance alone, as if every pair turned at twice its speed."""

    def project(self, h: Tensor, place: Place) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().project(h, place)
        return rotate(q, place.turn), rotate(k, place.turn), v


class NeverTurned(GroupedAttention):
    """No rotation at all: a score knows the two tokens, and not where they stand."""

    def project(self, h: Tensor, place: Place) -> tuple[Tensor, Tensor, Tensor]:
        still = torch.stack([torch.ones_like(place.turn[0]), torch.zeros_like(place.turn[1])])
        return super().project(h, Place(still, place.lengths, place.mask, place.is_causal))


class CachedBeforeRotation(GroupedAttention):
    """The key goes into the cache before it is turned. Training has no cache, so it is right; generation forgets where keys stood."""

    def forward(self, h: Tensor, place: Place, cache: LayerCache | None = None) -> Tensor:
        self.forgets = cache is not None
        return super().forward(h, place, cache)

    def project(self, h: Tensor, place: Place) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().project(h, place)
        return q, self.w_k(h).unflatten(-1, (-1, self.d_head)) if self.forgets else k, v


BUGS = {"leaking mask": LeakingMask, "key turned twice": KeyTurnedTwice, "both turned twice": BothTurnedTwice, "never turned": NeverTurned,
        "cached before rotation": CachedBeforeRotation}
