"""The parts that every block is made of: RMSNorm, rotary positions with YaRN, SwiGLU, and a linear layer per expert."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minimodels.config import ModelConfig


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, over the last axis.

    x: (..., D) of any float type; the mean is taken in float32. Source: Zhang & Sennrich (2019), arXiv:1910.07467.
    """

    def __init__(self, d_model: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)


def yarn_frequencies(d_rope: int, base: float, factor: float, original_len: int, beta_fast: float, beta_slow: float) -> Tensor:
    """Angle per position, in radians, of each rotary pair: (d_rope / 2,), float64.

    Pair i turns by base^(-2i/d_rope) a token. YaRN leaves alone the pairs that turn more than beta_fast times in the original
    context, divides by factor those that turn less than beta_slow times, and blends in between.
    Source: YaRN (arXiv:2309.00071), as in DeepSeek-V3's released code. Left out: the dynamic form.
    """
    pair = torch.arange(0, d_rope, 2, dtype=torch.float64)
    frequency = base ** (-pair / d_rope)
    if factor == 1:
        return frequency

    def pair_that_turns(times):
        return d_rope * math.log(original_len / (times * 2 * math.pi)) / (2 * math.log(base))

    low = max(math.floor(pair_that_turns(beta_fast)), 0)
    high = min(math.ceil(pair_that_turns(beta_slow)), d_rope - 1)
    slowed = ((pair / 2 - low) / max(high - low, 0.001)).clamp(0, 1)
    return frequency * (1 - slowed) + frequency / factor * slowed


def yarn_mscale(factor: float, mscale: float) -> float:
    """sqrt(t) = 0.1 m ln(s) + 1: YaRN multiplies the softmax scale by its square. 1.3689 for DeepSeek-V3 (s = 40, m = 1)."""
    return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0


class Rope(nn.Module):
    """The table of rotary turns: e^(i t frequency) for every position t, complex64 of shape (max_len, d_rope / 2).

    Source: Su et al. (2021), arXiv:2104.09864, with YaRN's frequencies where the configuration asks for them.
    """

    def __init__(self, frequency: Tensor, max_len: int):
        super().__init__()
        angle = torch.outer(torch.arange(max_len, dtype=torch.float64), frequency)
        # kept as pairs (cos, sin), because casting a model to bf16 must not touch a complex tensor; never saved
        self.register_buffer("turn", torch.stack([angle.cos(), angle.sin()], -1).float(), persistent=False)

    @classmethod
    def from_config(cls, config: ModelConfig) -> "Rope":
        """The table for a model: MLA turns the shared rotary part of a head, the classical forms the whole head."""
        width = config.d_rope if config.attention == "mla" else config.d_head
        frequency = yarn_frequencies(width, config.rope_base, config.yarn_factor, config.yarn_original_len,
                                     config.yarn_beta_fast, config.yarn_beta_slow)
        return cls(frequency, config.max_seq_len)

    def forward(self, position: Tensor) -> Tensor:
        """position: (T,) or (B, T), int64. Returns their turns, complex64, (T, d_rope / 2) or (B, T, d_rope / 2)."""
        return torch.view_as_complex(self.turn[position].float())


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Turn each pair (x[2i], x[2i+1]), so that the product of a query and a key depends on their distance alone.

    x: (B, T, H, d); turn: (T, d/2) or (B, T, d/2), complex64. Returns x rotated, same shape and type.
    Pairs are interleaved, as in DeepSeek-V3's released code.
    """
    # a pair of numbers turned by an angle is a complex number times e^(i angle); the copy makes offset and strides even
    copy = x.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    pair = torch.view_as_complex(copy.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pair * turn.unsqueeze(-2)).flatten(-2).to(x.dtype)


class SwiGLU(nn.Module):
    """w_down(silu(gate) * up), where w_gate_up gives gate and up in one product.

    x: (..., D) -> (..., D). Source: Shazeer (2020), arXiv:2002.05202.
    """

    def __init__(self, d_model: int, d_hidden: int):
        super().__init__()
        self.w_gate_up = nn.Linear(d_model, 2 * d_hidden, bias=False)
        self.w_down = nn.Linear(d_hidden, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.w_gate_up(x).chunk(2, dim=-1)
        return self.w_down(F.silu(gate) * up)


class GroupedLinear(nn.Module):
    """E linear layers without bias, one an expert, applied to rows that are sorted by expert.

    weight: (E, d_out, d_in). x: (rows, d_in); counts: E row counts that sum to rows. Returns (rows, d_out).
    On a GPU this is `F.grouped_mm`; elsewhere a product a group, written into one output.
    """

    def __init__(self, n_experts: int, d_in: int, d_out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_experts, d_out, d_in))
        nn.init.normal_(self.weight, std=d_in**-0.5)

    def each(self, x: Tensor, expert: list[int]) -> Tensor:
        """x: (rows, d_in), row r through expert[r], in any order: (rows, d_out). For a few rows, one product each."""
        return torch.cat([F.linear(row, self.weight[e]) for row, e in zip(x.split(1), expert, strict=True)])

    def forward(self, x: Tensor, counts: list[int]) -> Tensor:
        assert sum(counts) == len(x), f"counts must sum to {len(x)} rows, got {sum(counts)}"
        weight = self.weight
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, weight = x.to(dtype), weight.to(dtype)
        if x.device.type == "cuda" and x.dtype == torch.bfloat16:
            return _grouped_mm(x, weight, counts)
        return _GroupedProduct.apply(x, weight, counts)


def _grouped_mm(x: Tensor, weight: Tensor, counts: list[int]) -> Tensor:
    """The same product as `_GroupedProduct`, in one kernel."""
    ends = torch.tensor(counts, device=x.device, dtype=torch.int32).cumsum(0, dtype=torch.int32)
    y = F.grouped_mm(x, weight.mT, offs=ends)
    if y.requires_grad:
        y.register_hook(torch.Tensor.contiguous)  # the gradient of a sum arrives with stride 0, which the kernel rejects
    return y


class _GroupedProduct(torch.autograd.Function):
    """y[group e] = x[group e] @ weight[e].T, with the two products of its gradient."""

    @staticmethod
    def forward(ctx, x, weight, counts):
        ctx.save_for_backward(x, weight)
        ctx.counts = counts
        y = x.new_empty(len(x), weight.shape[1])
        for e, rows in groups(counts):
            torch.mm(x[rows], weight[e].T, out=y[rows])
        return y

    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        dy = dy.contiguous()  # the gradient of a sum arrives with stride 0
        dx, dweight = torch.empty_like(x), torch.zeros_like(weight)
        for e, rows in groups(ctx.counts):
            torch.mm(dy[rows], weight[e], out=dx[rows])
            torch.mm(dy[rows].T, x[rows], out=dweight[e])
        return dx, dweight, None


def groups(counts: list[int]):
    """Each group that has rows, as (its number, the slice of its rows)."""
    start = 0
    for e, n in enumerate(counts):
        if n:
            yield e, slice(start, start + n)
        start += n
