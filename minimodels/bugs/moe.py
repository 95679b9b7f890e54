"""Five ways to spoil a gate. All of them run, and the loss falls with each."""

import torch
from torch import Tensor
from torch.nn import functional as F

from minimodels.moe import Gate, Routing


class BiasInWeight(Gate):
    """The bias that balances experts is folded into their weights, where it should only choose. Source: DeepSeek-V3 eq. 16, misread."""

    def forward(self, x: Tensor) -> Routing:
        routing = super().forward(x)
        return _weighed(routing, routing.score + self.bias, self.config)


class SoftmaxGate(Gate):
    """The affinities are a softmax over all experts, V2's, and everything else is V3's: they are small, and a step of the bias is not."""

    def forward(self, x: Tensor) -> Routing:
        score = F.linear(x.float(), self.weight.float()).softmax(-1)  # (T, E)
        expert = self.choose(score.detach() + self.bias.float())  # (T, K)
        load = torch.bincount(expert.flatten(), minlength=self.config.n_experts)
        return _weighed(Routing(score, expert, score.gather(1, expert), load), score, self.config)


class NotNormalised(Gate):
    """A token's weights are affinities as they are: they add up to anything from 0 to K, where they should add up to 1."""

    def forward(self, x: Tensor) -> Routing:
        routing = super().forward(x)
        weight = routing.score.gather(1, routing.expert) * self.config.routed_scale  # (T, K)
        return Routing(routing.score, routing.expert, weight, routing.load)


class DeadExpert(Gate):
    """The choice stops one short of the end, so that the last expert never gets a token."""

    def choose(self, biased: Tensor) -> Tensor:
        return biased[:, :-1].topk(self.config.top_k, dim=-1).indices


class Dropping(Gate):
    """Each expert takes an even share of a batch's rows and no more: who comes later is dropped, without a word.

    Rows are served in the order of the batch, so that a token's output depends on who else is in it. Source: Switch, with a
    capacity factor of 1, where dropping was meant.
    """

    def forward(self, x: Tensor) -> Routing:
        routing = super().forward(x)
        T, K = routing.expert.shape
        capacity = -(-T * K // self.config.n_experts)
        served = F.one_hot(routing.expert, self.config.n_experts).flatten(0, 1).cumsum(0)  # (T*K, E)
        place = served.gather(1, routing.expert.flatten()[:, None]).view(T, K)  # (T, K)
        return Routing(routing.score, routing.expert, routing.weight * (place <= capacity), routing.load)


def _weighed(routing: Routing, score: Tensor, config) -> Routing:
    """routing with weights from score (T, E), normalised and scaled as config says."""
    weight = score.gather(1, routing.expert)  # (T, K)
    if config.normalise_weights:
        weight = weight / (weight.sum(-1, keepdim=True) + 1e-20)
    return Routing(routing.score, routing.expert, weight * config.routed_scale, routing.load)


BUGS = {"bias in the weight": BiasInWeight, "softmax for sigmoid": SoftmaxGate, "not normalised": NotNormalised, "dead expert": DeadExpert,
        "dropped tokens": Dropping}
