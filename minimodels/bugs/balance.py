"""Four ways to balance experts wrongly. All of them run, and the loss falls with each."""

import torch
from torch import Tensor

from minimodels.bugs.moe import BiasInWeight
from minimodels.moe import Gate, MoE, Routing


class SignFlipped(Gate):
    """The bias counts the wrong way round: a busy expert becomes easier to choose. It is as if the update had the other sign."""

    def choose(self, biased: Tensor) -> Tensor:
        return super().choose(biased - 2 * self.bias.float())


class WishesCounted(MoE):
    """The load that is reported counts what tokens would choose by affinity alone, as the sequence-wise loss does, and not what they got.

    The bias then never sees its own effect, and moves on for ever. Source: DeepSeek-V3 eq. 18, taken for the load.
    """

    def forward(self, h: Tensor) -> tuple[Tensor, Routing]:
        y, routing = super().forward(h)
        K = routing.expert.shape[1]
        return y, recounted(routing, routing.score.topk(K, dim=-1).indices)


class OneSequenceCounted(MoE):
    """The load that is reported is that of the first sequence alone: one micro-batch, or one device, in place of the whole batch."""

    def forward(self, h: Tensor) -> tuple[Tensor, Routing]:
        y, routing = super().forward(h)
        return y, recounted(routing, routing.expert[:h.shape[-2]])


def recounted(routing: Routing, expert: Tensor) -> Routing:
    """routing as it was, but with the load of expert (T, K)."""
    load = torch.bincount(expert.flatten(), minlength=routing.score.shape[1])
    return Routing(routing.score, routing.expert, routing.weight, load)


BUGS = {"sign flipped": SignFlipped, "wishes counted": WishesCounted, "one sequence counted": OneSequenceCounted, "bias in the weight": BiasInWeight}
