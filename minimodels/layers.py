"""The parts that every block is made of: RMSNorm, rotary positions with YaRN, and SwiGLU."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minimodels.config import ModelConfig
from minimodels.linear import Linear


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, over the last axis.

    x: (..., D) of any float type; the mean is taken in float32. Source: Zhang & Sennrich (2019), arXiv:1910.07467.
    """

    def __init__(self, d_model: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == self.weight.dtype == torch.float32:  # no casts: they cost as much as the norm of one token
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)


def yarn_frequencies(d_rope: int, base: float, factor: float, original_len: int, beta_fast: float, beta_slow: float) -> Tensor:
    """Angle per position, in radians, of each rotary pair: (d_rope / 2,), float64.

    Pair i turns by base^(-2i/d_rope) a token. YaRN leaves alone the pairs that turn more than beta_fast times in the original
    context, divides by factor those that turn less than beta_slow times, and blends in between; the two
    bounds are rounded outwards to whole pairs (10 and 23 for DeepSeek-V3).
    Source: YaRN (arXiv:2309.00071), as in DeepSeek-V3's released code. Left out: the dynamic form.
    """
    pair = torch.arange(d_rope // 2, dtype=torch.float64)
    frequency = base ** (-2 * pair / d_rope)
    if factor == 1:
        return frequency

    def pair_that_turns(times):
        return d_rope * math.log(original_len / (times * 2 * math.pi)) / (2 * math.log(base))

    low = max(math.floor(pair_that_turns(beta_fast)), 0)
    high = min(math.ceil(pair_that_turns(beta_slow)), d_rope - 1)
    slowed = ((pair - low) / max(high - low, 0.001)).clamp(0, 1)
    return frequency * (1 - slowed) + frequency / factor * slowed


def yarn_mscale(factor: float, mscale: float) -> float:
    """sqrt(t) = 0.1 m ln(s) + 1: YaRN multiplies the softmax scale by its square. 1.3689 for DeepSeek-V3 (s = 40, m = 1)."""
    return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0


class Rope(nn.Module):
    """The table of rotary turns: for every position t and pair i, cosine and sine of t * frequency[i], float32.

    turn: (2, max_len, d_rope). turn[0] holds each pair's cosine twice, turn[1] its sine with the signs (-, +), as `rotate` uses
    them. Source: Su et al. (2021), arXiv:2104.09864, with YaRN's frequencies where the configuration asks for them.
    """

    def __init__(self, frequency: Tensor, max_len: int):
        super().__init__()
        angle = torch.outer(torch.arange(max_len, dtype=torch.float64), frequency)  # (max_len, d_rope / 2)
        cos, sin = angle.cos(), angle.sin()
        turn = torch.stack([torch.stack([cos, cos], -1), torch.stack([-sin, sin], -1)]).flatten(-2).float()
        self.register_buffer("turn", turn, persistent=False)  # derived from the configuration, so never saved

    @classmethod
    def from_config(cls, config: ModelConfig) -> "Rope":
        """The table for a model: MLA turns the shared rotary part of a head, the classical forms the whole head."""
        width = config.d_rope if config.attention == "mla" else config.d_head
        frequency = yarn_frequencies(width, config.rope_base, config.yarn_factor, config.yarn_original_len,
                                     config.yarn_beta_fast, config.yarn_beta_slow)
        return cls(frequency, config.max_seq_len)

    def forward(self, position: Tensor) -> Tensor:
        """position: (T,) or (B, T), int64. Returns their turns, with an axis for the heads: (2, T, 1, d) or (2, B, T, 1, d)."""
        return self.turn[:, position].unsqueeze(-2)


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Turn each pair (x[2i], x[2i+1]), so that the product of a query and a key depends on their distance alone.

    x: (B, T, H, d); turn: from `Rope`, for the same positions. Returns x rotated, same shape and type.
    Pairs are interleaved, as in DeepSeek-V3's released code.
    """
    cos, sin = turn
    swapped = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    # (a, b) turns into (a cos - b sin, b cos + a sin)
    return (x * cos + swapped * sin).to(x.dtype)


class SwiGLU(nn.Module):
    """w_down(silu(gate) * up), where w_gate_up gives gate and up in one product.

    x: (..., D) -> (..., D). Source: Shazeer (2020), arXiv:2002.05202.
    """

    def __init__(self, d_model: int, d_hidden: int):
        super().__init__()
        self.w_gate_up = Linear(d_model, 2 * d_hidden)
        self.w_down = Linear(d_hidden, d_model)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.w_gate_up(x).chunk(2, dim=-1)
        return self.w_down(F.silu(gate) * up)
