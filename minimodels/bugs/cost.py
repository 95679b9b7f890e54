"""A way to waste nearly all of what sparsity saves, with the same numbers at every step."""

import torch
from torch import Tensor

from minimodels.moe import MoE, Routing


class EveryExpert(MoE):
    """Every expert computes every token, and what was not chosen is multiplied by nought: the right output, for E / K times the work."""

    def forward(self, h: Tensor) -> tuple[Tensor, Routing]:
        x = h.flatten(0, -2)  # (T, D) with T of the whole batch
        routing = self.gate(x)
        weight = torch.zeros_like(routing.score).scatter(1, routing.expert, routing.weight)  # (T, E)
        y = sum(weight[:, e:e + 1] * self.experts.one(x, e) for e in range(weight.shape[1]))
        if self.shared is not None:
            y = y + self.shared(x)
        return y.view_as(h), routing


BUGS = {"every expert computes": EveryExpert}
