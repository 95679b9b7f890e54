"""Keeping experts equally busy: DeepSeek-V3's bias without a loss, the auxiliary losses it replaced, and how to measure both."""

import torch
from torch import Tensor

from minimodels.moe import Gate, Routing


@torch.no_grad()
def update_bias(gate: Gate, load: Tensor, rate: float):
    """Loss-free balancing: b_i += rate * sign(mean load - load_i). A busy expert becomes harder to choose, an idle one easier.

    load: (E,), tokens each expert got in the whole batch, all devices together. rate: gamma, 0.001 in V3. Changes gate.bias.
    Source: DeepSeek-V3, section 2.1.2; Wang et al. (2024), arXiv:2408.15664.
    """
    load = load.to(gate.bias)
    gate.bias += rate * (load.mean() - load).sign()


def max_violation(load: Tensor) -> float:
    """MaxVio = (largest load - mean load) / mean load: 0 if all are equal; at most E / K - 1, if all tokens choose one expert.

    load: (E,). Source: Wang et al. (2024), section 4.1. Raises ValueError if no token was routed.
    """
    load = load.double()
    if load.sum() == 0:
        raise ValueError("load must count at least one token, got none")
    return ((load.max() - load.mean()) / load.mean()).item()


def sequence_loss(routing: Routing, n_sequences: int) -> Tensor:
    """Mean over sequences of sum_i f_i P_i: 1 when balanced, up to E / K when one set of K experts takes all. Scalar.

    f_i: share of the sequence's tokens that would choose expert i by score alone, times E / K; no gradient.
    P_i: mean of the normalised score of expert i. The caller multiplies by alpha (1e-4 in V3).
    routing holds n_sequences sequences of equal length. Source: DeepSeek-V3 eqs. 17-20. Left out: group limits in f, as there.
    """
    score = routing.score.unflatten(0, (n_sequences, -1))  # (B, T, E)
    K = routing.expert.shape[1]
    chosen = torch.zeros_like(score).scatter_(-1, score.topk(K, dim=-1).indices, 1.0)  # (B, T, E)
    f = chosen.mean(1) * score.shape[-1] / K  # (B, E)
    P = (score / score.sum(-1, keepdim=True)).mean(1)  # (B, E)
    return (f.detach() * P).sum(-1).mean()


def batch_loss(routing: Routing) -> Tensor:
    """The same sum over one forward pass as a whole, with the choices that were made: sum_i f_i P_i. Scalar.

    V3's scope is the whole batch; here it is a micro-batch of one device, so micro_batch changes this loss.
    Source: DeepSeek-V3, section 4.5.3.
    """
    load = routing.load.to(routing.score)
    f = load / load.mean()  # (E)
    P = (routing.score / routing.score.sum(-1, keepdim=True)).mean(0)  # (E)
    return (f * P).sum()
