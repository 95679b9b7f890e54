"""Ways to spoil multi-token prediction: three that train, and three that write. None stops the main model from learning."""

import torch
from torch import Tensor

from minimodels.attention import Cache, LayerCache, Place
from minimodels.model import Transformer
from minimodels.moe import Routing
from minimodels.mtp import MTPModule
from minimodels.sampling import Sampling, count_true, sample

# ---- bugs that still train


class HandedTheAnswer(Transformer):
    """Off by one: module k gets the embedding of token i + k + 1, which it is to predict. Its loss falls to nothing, and it has learnt to copy."""

    def _look_ahead(self, tokens: Tensor, hidden: list[Tensor], routings: list[Routing | None]):
        for k, module in enumerate(self.mtp, start=1):
            answer = torch.cat([tokens[:, k + 1:], tokens[:, -1:]], dim=1)  # (B, T-k), the last has no target
            h, routing = module(hidden[-1][:, :-1], self.embed(answer), Place.of(self.rope, tokens.shape[1] - k, tokens.device))
            hidden.append(h)
            routings.append(routing)


class Detached(MTPModule):
    """A `detach` too many: the module learns to draft, and its gradient never reaches the main model."""

    def forward(self, h: Tensor, embedded: Tensor, place: Place, cache: LayerCache | None = None) -> tuple[Tensor, Routing | None]:
        return super().forward(h.detach(), embedded.detach(), place, cache)


class NormedTwice(MTPModule):
    """The module's final norm is applied to what it has normed already."""

    def forward(self, h: Tensor, embedded: Tensor, place: Place, cache: LayerCache | None = None) -> tuple[Tensor, Routing | None]:
        h, routing = super().forward(h, embedded, place, cache)
        return self.final_norm(h), routing


BUGS = {"handed the answer": HandedTheAnswer, "detached": Detached, "normed twice": NormedTwice}

# ---- bugs that still write


class NotRenormalised(Sampling):
    """What replaces a rejected draft is drawn from p, and not from what is left of it, (p - q)+."""

    def stands(self, p: Tensor, q: Tensor) -> Tensor:
        """How likely a draft stands that the main model gives p, and the module q."""
        return p / q

    def verify(self, logits: Tensor, draft: Tensor, q: list[Tensor | None]) -> tuple[Tensor, list[int]]:
        p, n = self.distribution(logits), draft.shape[1]  # (B, n+1, V)
        stood = [x[:, :n].gather(2, draft[..., None])[..., 0] for x in (p, torch.stack(q, dim=1))] if n else [draft, draft]
        accepted = count_true(torch.rand(draft.shape, generator=self.generator) < self.stands(*stood)) if n else [0] * len(p)
        row, at = torch.arange(len(p)), torch.tensor(accepted)
        token = torch.cat([draft, draft.new_zeros(len(p), 1)], dim=1)
        token[row, at] = sample(p[row, at], self.generator)
        return token, accepted


class LikelyEnough(NotRenormalised):
    """A draft stands with probability p, however likely the module was to draft it; what replaces it is drawn from p, too."""

    def stands(self, p: Tensor, q: Tensor) -> Tensor:
        return p


class Stale(LayerCache):
    """A place that was written once is not written again: where a draft was rejected, its key and value stay in the cache."""

    def append(self, lengths: list[int], **new: Tensor) -> list[Tensor]:
        B, T = next(iter(new.values())).shape[:2]
        if not hasattr(self, "is_filled"):
            self.is_filled = torch.zeros(next(iter(self.tensors.values())).shape[:2], dtype=torch.bool)
        at = torch.arange(B)[:, None], torch.tensor(lengths)[:, None] + torch.arange(T)
        for name, value in new.items():
            is_old = self.is_filled[at].view(B, T, *[1] * (value.dim() - 2))
            new[name] = torch.where(is_old, self.tensors[name][at], value)
        self.is_filled[at] = True
        return super().append(lengths, **new)


class NotTakenBack(Cache):
    """A cache for one batch of prompts that end together, whose main layers keep what rejected drafts wrote."""

    def __init__(self, config, *sizes, **kind):
        super().__init__(config, *sizes, **kind)
        for layer in self.layers[:config.n_layers]:
            layer.__class__ = Stale


SAMPLINGS = {"not renormalised": NotRenormalised, "likely enough": LikelyEnough}
