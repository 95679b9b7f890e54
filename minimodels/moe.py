"""Mixture of experts: a gate sends each token to a few small networks, and one or more shared experts see every token."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minimodels.config import ModelConfig
from minimodels.layers import SwiGLU
from minimodels.linear import SMALL_MATRIX, GroupedLinear


@dataclass
class Routing:
    """What the gate of one layer decided for T tokens (those of the whole batch, flattened).

    score: (T, E), the affinities s before any bias. expert: (T, K), int64. weight: (T, K), routed_scale included. load: (E,), tokens
    that each expert got.
    """

    score: Tensor
    expert: Tensor
    weight: Tensor
    load: Tensor


class Gate(nn.Module):
    """Choose K experts a token by affinity + bias, but weigh them by affinity alone.

        s = sigmoid(x w_e)  (V3)  or  softmax over the experts (V2);  chosen = top_k(s + bias)
        weight = routed_scale * s / sum of chosen s  (V3);  with normalise_weights=False  routed_scale * s  (V2)

    bias: (E,), a buffer that the balancer moves and no gradient touches. With groups only the best top_groups of n_groups are
    open to a token; V3 scores a group by the sum of its two best biased affinities, V2 by the best.
    x: (T, D) -> Routing. Everything here is float32. Source: DeepSeek-V3 eqs. 12-16 and its released code; V2 section 2.2.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.n_experts, config.d_model))
        nn.init.normal_(self.weight, std=config.init_std)
        self.register_buffer("bias", torch.zeros(config.n_experts))

    def forward(self, x: Tensor) -> Routing:
        with torch.autocast(x.device.type, enabled=False) if torch.is_autocast_enabled(x.device.type) else nullcontext():
            logit = F.linear(x.float(), self.weight.float())  # (T, E)
        score = logit.sigmoid() if self.config.gate == "sigmoid" else logit.softmax(-1)  # (T, E)
        expert = self.choose(score.detach() + self.bias.float())  # (T, K)
        weight = score.gather(1, expert)  # (T, K)
        if self.config.normalise_weights:
            weight = weight / (weight.sum(-1, keepdim=True) + 1e-20)
        load = torch.bincount(expert.flatten(), minlength=self.config.n_experts)
        return Routing(score, expert, weight * self.config.routed_scale, load)

    def choose(self, biased: Tensor) -> Tensor:
        """The K best experts of each row of biased (T, E), within its best groups: (T, K)."""
        if self.config.top_groups < self.config.n_groups:
            group = biased.unflatten(-1, (self.config.n_groups, -1))  # (T, G, E//G)
            n_best = 2 if self.config.gate == "sigmoid" else 1
            group_score = group.topk(n_best, dim=-1).values.sum(-1)  # (T, G)
            closed = torch.ones_like(group_score, dtype=torch.bool)
            closed.scatter_(1, group_score.topk(self.config.top_groups, dim=-1).indices, False)
            biased = group.masked_fill(closed.unsqueeze(-1), float("-inf")).flatten(1)
        return biased.topk(self.config.top_k, dim=-1).indices


class Experts(nn.Module):
    """E SwiGLU networks: `grouped` runs rows sorted by expert, `each` a few rows in any order, `one` all rows through one."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.w_gate_up = GroupedLinear(config.n_experts, config.d_model, 2 * config.d_expert)
        self.w_down = GroupedLinear(config.n_experts, config.d_expert, config.d_model)

    def grouped(self, x: Tensor, counts: list[int], weight: Tensor) -> Tensor:
        """x: (rows, D), sorted by expert, counts rows each; weight: (rows,). Returns weight * expert(x), (rows, D)."""
        gate, up = self.w_gate_up(x, counts).chunk(2, dim=-1)
        # the weight goes in before w_down, where a row is narrower; w_down is linear, so the result is the same
        return self.w_down(F.silu(gate) * up * weight.to(x.dtype).unsqueeze(-1), counts)

    def each(self, x: Tensor, expert: Tensor, weight: Tensor) -> Tensor:
        """x: (rows, D), row r through expert[r], in any order; weight: (rows,). The same as `grouped`, for a few rows."""
        gate, up = self.w_gate_up.each(x, expert).chunk(2, dim=-1)
        return self.w_down.each(F.silu(gate) * up * weight.to(x.dtype).unsqueeze(-1), expert)

    def one(self, x: Tensor, expert: int) -> Tensor:
        """x: (rows, D) through one expert: (rows, D)."""
        counts = [0] * len(self.w_down.weight)
        counts[expert] = len(x)
        return self.grouped(x, counts, x.new_ones(len(x)))


def dispatch_loop(x: Tensor, routing: Routing, experts: Experts) -> Tensor:
    """The reference: for each expert, gather its tokens, run it, add its weighted output to theirs.

    x: (T, D) -> (T, D). Source: DeepSeek-V3 eq. 12.
    """
    y = torch.zeros_like(x)
    for e in range(len(routing.load)):
        token, choice = torch.where(routing.expert == e)
        y = y.index_add(0, token, experts.one(x[token], e) * routing.weight[token, choice].to(x.dtype).unsqueeze(-1))
    return y


def dispatch_few(x: Tensor, routing: Routing, experts: Experts) -> Tensor:
    """For decoding: with a handful of tokens sorting costs more than it saves, so each (token, choice) is a product of its own.

    x: (T, D) -> (T, D), equal to `dispatch_loop`.
    """
    T, K = routing.expert.shape
    y = experts.each(x.unsqueeze(1).expand(T, K, -1).flatten(0, 1), routing.expert.flatten(), routing.weight.flatten())
    return y.unflatten(0, (T, K)).sum(1)


def dispatch_sorted(x: Tensor, routing: Routing, experts: Experts, *, multiple: int = 32) -> Tensor:
    """The fast form: sort all (token, choice) pairs by expert, so that each expert's rows are one slice.

    Each slice is padded to a multiple of 32 rows: matrix kernels on CPU are prepared for a shape and kept, and row counts that
    change every step would prepare them anew. Padding rows have weight 0, so they add nothing, forward or backward. A GPU's
    grouped product needs no padding, and a few tokens are not worth it.
    x: (T, D) -> (T, D), equal to `dispatch_loop`.
    """
    T, K = routing.expert.shape
    counts = routing.load.tolist()
    order = routing.expert.flatten().argsort(stable=True)  # (T*K)
    slot = torch.arange(T * K, device=x.device)  # (T*K)
    if x.device.type == "cpu" and T * K >= multiple * len(counts):
        padded = [-(-n // multiple) * multiple for n in counts]
        before = torch.tensor([0, *padded[:-1]]).cumsum(0) - torch.tensor([0, *counts[:-1]]).cumsum(0)
        slot, counts = slot + before.repeat_interleave(routing.load), padded
    token = order.new_zeros(sum(counts)).index_copy_(0, slot, order // K)
    row = torch.empty_like(order).index_copy_(0, order, slot).unflatten(0, (T, K))
    weight = routing.weight.new_zeros(sum(counts)).index_copy(0, slot, routing.weight.flatten()[order])
    y = experts.grouped(_Spread.apply(x, token, row), counts, weight)
    return _Collect.apply(y, token, row)


class _Spread(torch.autograd.Function):
    """Copy each token to its K rows: y[r] = x[token[r]]. Its gradient is `_Collect`, a gather and not a slow scatter."""

    @staticmethod
    def forward(ctx, x, token, row):
        ctx.save_for_backward(token, row)
        return x[token]

    @staticmethod
    def backward(ctx, dy):
        return _Collect.apply(dy, *ctx.saved_tensors), None, None


class _Collect(torch.autograd.Function):
    """Sum each token's K rows: y[t] = sum over k of x[row[t, k]]. Its gradient is `_Spread`."""

    @staticmethod
    def forward(ctx, x, token, row):
        ctx.save_for_backward(token, row)
        return F.embedding_bag(row, x, mode="sum")

    @staticmethod
    def backward(ctx, dy):
        return _Spread.apply(dy, *ctx.saved_tensors), None, None


def dispatch_fast(x: Tensor, routing: Routing, experts: Experts) -> Tensor:
    """The faster form for this many tokens: on a CPU `dispatch_few` for a few rows an expert, else `dispatch_sorted`.

    A row is a token's choice. Few: up to 4 an expert if its matrices are small and cheap to copy, else one to every second expert.
    """
    is_small = experts.w_down.weight[0].numel() <= SMALL_MATRIX
    is_few = x.device.type == "cpu" and 2 * routing.expert.numel() <= (8 if is_small else 1) * routing.score.shape[1]
    return (dispatch_few if is_few else dispatch_sorted)(x, routing, experts)


class MoE(nn.Module):
    """y = sum of shared experts + sum over the K chosen experts of weight * expert(x). The residual is added by the block.

    h: (B, T, D) -> (B, T, D), Routing. The shared experts are one SwiGLU of n_shared times the width: the same function.
    dispatch: the form in which tokens reach the experts; all forms give the same.
    Source: DeepSeekMoE, section 3; DeepSeek-V3 eq. 12. Left out: dropping tokens (V3 drops none).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate = Gate(config)
        self.experts = Experts(config)
        self.shared = SwiGLU(config.d_model, config.n_shared * config.d_expert) if config.n_shared else None
        self.dispatch = dispatch_fast

    def forward(self, h: Tensor) -> tuple[Tensor, Routing]:
        x = h.flatten(0, -2)  # (T, D) with T of the whole batch
        routing = self.gate(x)
        y = self.dispatch(x, routing, self.experts)
        if self.shared is not None:
            y = y + self.shared(x)
        return y.view_as(h), routing
