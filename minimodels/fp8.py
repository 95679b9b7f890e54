"""FP8 training: two 8-bit formats, one scale per tile, and linear layers whose three products run on 8-bit numbers.

`convert` turns a finished model's linear layers into FP8 ones. A product y = x W^T has two more in its gradient, and each
quantises its operands so that every scale covers 128 numbers along the axis that is summed:

    forward           y  = x W^T     x in 1x128 tiles, W in 128x128 blocks
    input gradient    dx = dy W      dy in 1x128 tiles, the same blocks of W, transposed
    weight gradient   dW = dy^T x    both tiled again along the tokens, 128x1; x from the tiles that the forward pass kept

Source: DeepSeek-V3 section 3.3 and its released inference/kernel.py. Left out: E5M6 for the input of the layer after attention,
FP8 dispatch between devices, recomputing SwiGLU in backward, and fused kernels: quantising here takes several passes over memory.

Where the products run: emulated (codes back to float32, then a float32 product) on any device; on NVIDIA GPUs from sm89 with
`torch._scaled_mm`, one call per 128 of the summed axis; on Hopper with the block scales of `F.scaled_mm`, one call in all. A GPU's form is
used only after it has agreed with the emulation on that GPU (`backend`). Both forms follow PyTorch's documented layouts. Run so
far: the emulation and the `torch._scaled_mm` form on CPU; on a GPU nothing yet, and the Hopper form only against a strict stand-in.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minimodels.linear import GroupedLinear, Linear

TILE, BLOCK = (1, 128), (128, 128)  # rows x columns under one scale: activations, weights
WHOLE = (2**31, 2**31)              # one scale for a whole tensor: what the tiles improve on
AMAX_FLOOR = 1e-4                   # as in DeepSeek's later kernels: a block of zeros gets a scale, not 0/0
GRADIENT_FLOOR = 2.0**-100          # a gradient of a mean over many tokens lies far below 1e-4, so its floor only avoids 0/0
KEPT = ("head", "gate")             # linear layers of these names stay as they are


@dataclass(frozen=True)
class FloatFormat:
    """An 8-bit float: (-1)^sign 2^(exponent - bias) (1 + mantissa / 2^m), and (mantissa / 2^m) 2^(1 - bias) where exponent is 0.

    Source: Micikevicius et al. (2022), arXiv:2209.05433.
    """

    dtype: torch.dtype
    exponent_bits: int
    mantissa_bits: int  # m
    has_infinity: bool  # E5M2 keeps its top exponent for infinity and NaN; E4M3 counts on, and gives up one mantissa for NaN

    @property
    def bits(self) -> int:
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bias(self) -> int:
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def max(self) -> float:
        """The largest number: 448 for E4M3, 57344 for E5M2."""
        top = 2**self.exponent_bits - 1 - self.bias
        step = 2.0**-self.mantissa_bits
        return 2.0 ** (top - 1) * (2 - step) if self.has_infinity else 2.0**top * (2 - 2 * step)

    @property
    def smallest_normal(self) -> float:
        return 2.0 ** (1 - self.bias)

    @property
    def smallest_subnormal(self) -> float:
        return self.smallest_normal * 2.0**-self.mantissa_bits


E4M3 = FloatFormat(torch.float8_e4m3fn, exponent_bits=4, mantissa_bits=3, has_infinity=False)
E5M2 = FloatFormat(torch.float8_e5m2, exponent_bits=5, mantissa_bits=2, has_infinity=True)
FORMATS = {fmt.dtype: fmt for fmt in (E4M3, E5M2)}


@dataclass(frozen=True)
class Quantised:
    """A matrix as FP8 codes times scales: data (..., rows, columns), and a float32 scale for each block of rows x columns.

    The last block of a row or column may be smaller; nothing is padded.
    """

    data: Tensor
    scale: Tensor
    block: tuple[int, int]

    def dequantise(self) -> Tensor:
        """The numbers that the codes stand for, float32."""
        return decode(self.data).mul_(_spread(self.scale, self.block, self.data.shape))

    @property
    def mT(self) -> "Quantised":
        """The transposed matrix, without a copy."""
        return Quantised(self.data.mT, self.scale.mT, self.block[::-1])

    @property
    def n_bytes(self) -> int:
        return self.data.nbytes + self.scale.nbytes


def quantise(x: Tensor, fmt: FloatFormat = E4M3, block: tuple[int, int] = TILE, *, power_of_two: bool = False,
             amax_floor: float = AMAX_FLOOR) -> Quantised:
    """Scale each block of x so that its largest magnitude becomes fmt.max, then round to the nearest code, ties to even.

    x: (..., rows, columns), any float type. Scale = max(amax, amax_floor) / fmt.max, taken now and not from history; with power_of_two
    rounded up to a power of two (UE8M0, as from V3.1 on). Numbers up to 2^127 never become NaN or infinity; a block that
    holds one of these comes back without one finite number, so that a loss scaler still sees it.
    Raises ValueError for a block below 1x1. Source: DeepSeek-V3 section 3.3.2.
    """
    if min(block) < 1:
        raise ValueError(f"block must be at least (1, 1), rows by columns, got {block}")
    x = x.float()
    amax = x
    for dim, size in zip((-2, -1), block):
        amax = _amax(amax, dim, size)
    scale = amax.abs().clamp(min=amax_floor) / fmt.max
    if power_of_two:
        mantissa = torch.frexp(scale).mantissa  # in [0.5, 1); 0.5 where scale is a power of two already
        scale = scale.where(mantissa == 0.5, scale / mantissa)
    # the cast rounds to even; clamped before, because E5M2 and older casts overflow to infinity or NaN
    data = (x / _spread(scale, block, x.shape)).clamp_(-fmt.max, fmt.max).to(fmt.dtype)
    return Quantised(data, scale, block)


def _amax(x: Tensor, dim: int, size: int) -> Tensor:
    """The largest magnitude of every `size` neighbours along dim; the last run may be shorter."""
    if size == 1 or x.shape[dim] == 0:
        return x
    n = x.shape[dim] // size
    whole, rest = x.tensor_split([n * size], dim)
    runs = [run for run in (whole.unflatten(dim, (n, size)), rest.unsqueeze(dim - 1)) if run.shape[dim] and run.shape[dim - 1]]
    # from both ends, because x.abs() would write x once more
    return torch.cat([torch.maximum(run.amax(dim), -run.amin(dim)) for run in runs], dim)


def _spread(scale: Tensor, block: tuple[int, int], shape: tuple[int, ...]) -> Tensor:
    """One scale per block -> a tensor that broadcasts to one per number."""
    for dim, size in zip((-2, -1), block):
        if size > 1 and scale.shape[dim] > 1:
            scale = scale.repeat_interleave(size, dim).narrow(dim, 0, shape[dim])
    return scale


def decode(codes: Tensor) -> Tensor:
    """FP8 -> float32, exactly; faster than torch's cast on CPU by a factor of ten. Codes of NaN and infinity are not ours to decode."""
    if codes.device.type != "cpu":
        return codes.float()
    fmt = FORMATS[codes.dtype]
    shift = 23 - fmt.mantissa_bits
    # moved to float32's exponent and mantissa, the seven bits are the same number but for the bias, a power of two
    bits = codes.view(torch.int8).int().bitwise_left_shift_(shift).bitwise_and_((0x7F << shift) - 2**31)
    return bits.view(torch.float32).mul_(2.0 ** (127 - fmt.bias))


# Products -------------------------------------------------------------------------------------------------------------------

def gemm(a: Quantised, b: Quantised) -> Tensor:
    """a b^T, accumulated in float32. a: (m, k), b: (n, k), both scaled in runs along k. Returns (m, n), float32."""
    is_standard = a.block == TILE and b.block in (TILE, BLOCK) and E4M3.dtype in (a.data.dtype, b.data.dtype)
    return ROUTES[backend(a.data.device) if is_standard else "emulated"](a, b)


def _emulated(a: Quantised, b: Quantised) -> Tensor:
    with torch.autocast(a.data.device.type, enabled=False):
        return a.dequantise() @ b.dequantise().mT


def _promoted(a: Quantised, b: Quantised) -> Tensor:
    """One `torch._scaled_mm` per 128 of k, promoted to float32 and scaled there: V3's N_C = 128 (section 3.3.2)."""
    a_data, b_data, one = _pad(a.data, 1, 16), _pad(b.data, 16, 16), torch.ones((), device=a.data.device)
    a_scale, b_scale = (_spread(q.scale, (q.block[0], 1), q.data.shape) for q in (a, b))
    y = a.scale.new_zeros(len(a.data), len(b.data))
    for i, (a_k, b_k) in enumerate(zip(a_data.split(TILE[1], 1), b_data.split(TILE[1], 1))):
        part = torch._scaled_mm(a_k, b_k.t(), one, one, out_dtype=torch.float32)[:, :y.shape[1]]
        y += part * a_scale[:, i, None] * b_scale[:, i]
    return y


def _blockwise(a: Quantised, b: Quantised) -> Tensor:
    """One call with every scale, on Hopper. cuBLASLt wants rows in multiples of 4, n and k in multiples of 16."""
    recipe = {TILE: F.ScalingType.BlockWise1x128, BLOCK: F.ScalingType.BlockWise128x128}
    a_data, b_data = _pad(a.data, 4, 16), _pad(b.data, 16, 16)
    y = F.scaled_mm(a_data, b_data.t(), _scale_layout(a, len(a_data)), recipe[a.block],
                    _scale_layout(b, len(b_data)), recipe[b.block], output_dtype=torch.float32)
    return y[:len(a.data), :len(b.data)]


def _scale_layout(q: Quantised, n_rows: int) -> Tensor:
    """The scales as cuBLASLt reads them. Tiles: (n_rows, k/128), rows contiguous. Blocks: (k/128 up to 4s, rows/128), k contiguous."""
    if q.block == TILE:
        return F.pad(q.scale, (0, 0, 0, n_rows - len(q.scale))).t().contiguous().t()
    return F.pad(q.scale, (0, -q.scale.shape[1] % 4)).t()


def _pad(data: Tensor, rows: int, columns: int) -> Tensor:
    """Contiguous, with codes of zero up to a multiple of rows and columns."""
    return F.pad(data.view(torch.uint8), (0, -data.shape[1] % columns, 0, -len(data) % rows)).contiguous().view(data.dtype)


ROUTES = {"emulated": _emulated, "promoted": _promoted, "blockwise": _blockwise}


def candidates(capability: tuple[int, int] | None) -> list[str]:
    """Routes that PyTorch offers a GPU of this compute capability, best first; none before sm89 or without a GPU.

    Block scales are refused everywhere but on Hopper (9, x): PyTorch's own check, in ScaledBlas.cpp.
    """
    if capability is None or capability < (8, 9):
        return []
    return ["blockwise", "promoted"] if capability[0] == 9 and hasattr(F, "scaled_mm") else ["promoted"]


@functools.cache
def backend(device: torch.device) -> str:
    """How products run on device: blockwise, promoted or emulated. A GPU's route must first agree with the emulation there."""
    is_nvidia = device.type == "cuda" and torch.version.hip is None
    offered = candidates(torch.cuda.get_device_capability(device) if is_nvidia else None)
    return next((route for route in offered if agrees(route, device)), "emulated")


def agrees(route: str, device: torch.device) -> bool:
    """Whether route gives the emulation's product within 1 % of sum |a||b|, on odd sizes and with scales that differ by tile."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 523, generator=generator) * 8 ** torch.randn(n, 5, generator=generator).repeat_interleave(128, 1)[:, :523]
            for n in (37, 151))
    for block in (TILE, BLOCK):
        a_q, b_q = quantise(a.to(device)), quantise(b.to(device), block=block)
        try:
            got = ROUTES[route](a_q, b_q)
        except (RuntimeError, ValueError):  # NotImplementedError, by which PyTorch refuses a GPU, is a RuntimeError
            return False
        bound = a_q.dequantise().abs() @ b_q.dequantise().abs().mT
        if not bool(((got - _emulated(a_q, b_q)).abs() <= 0.01 * bound).all()):
            return False
    return True


def limited_gemm(a: Tensor, b: Tensor, *, accumulate_bits: int = 14, promote_every: int | None = None) -> Tensor:
    """a b^T as a tensor core with a short accumulator adds it, as far as the hardware is documented.

    a: (m, k), b: (n, k). Each step takes 32 products, aligns them and the running sum to the largest of them, cuts what lies
    more than accumulate_bits binary places below its leading bit, and adds. With promote_every (a multiple of 32; V3: 128)
    the running sum moves to a float32 register that often, and starts again from zero. Returns (m, n), float32.
    Sources: DeepSeek-V3 section 3.3.2 ("around 14 bits", N_C = 128); Zhao et al. (2025), arXiv:2505.09343, section 3.1, who align 32
    products and keep 13 places. With the leading one these are 14 bits. Where V3 measured nearly 2 % at K = 4,096, this has 3.7 % with 14 places
    and 7.8 % with 13: it is a model.
    """
    if promote_every is not None and (promote_every < 32 or promote_every % 32):
        raise ValueError(f"promote_every must be a multiple of 32, the products of one step, or None, got {promote_every}")
    a, b = a.double(), b.double()
    total = torch.zeros(len(a), len(b), device=a.device)
    running = total.double()
    for k in range(0, a.shape[1], 32):
        product = a[:, None, k:k + 32] * b[:, k:k + 32]
        addend = torch.cat([running.unsqueeze(-1), product], -1)
        leading = torch.frexp(addend.abs().amax(-1, keepdim=True)).exponent - 1
        step = torch.ldexp(torch.ones_like(addend[..., :1]), leading - accumulate_bits)
        running = (addend / step).trunc().mul(step).sum(-1)
        if promote_every and (k + 32) % promote_every == 0:
            total, running = total + running.float(), torch.zeros_like(running)
    return total + running.float()


# Layers ---------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is quantised how; the defaults are DeepSeek-V3's: E4M3 everywhere, 1x128 tiles and 128x128 blocks."""

    fmt: FloatFormat = E4M3
    gradient_fmt: FloatFormat = E4M3
    activation: tuple[int, int] = TILE
    weight: tuple[int, int] = BLOCK
    gradient: tuple[int, int] = TILE
    power_of_two: bool = False

    def quantise_x(self, x: Tensor, *, by_token: bool = True) -> Quantised:
        """Activations, in tiles along the channels (by_token) or, for the weight gradient, along the tokens."""
        return quantise(x, self.fmt, self.activation if by_token else self.activation[::-1], power_of_two=self.power_of_two)

    def quantise_w(self, weight: Tensor) -> Quantised:
        return quantise(weight, self.fmt, self.weight, power_of_two=self.power_of_two)

    def quantise_dy(self, dy: Tensor, *, by_token: bool = True) -> Quantised:
        """Gradients of a product's output, tiled as activations are."""
        block = self.gradient if by_token else self.gradient[::-1]
        return quantise(dy, self.gradient_fmt, block, power_of_two=self.power_of_two, amax_floor=GRADIENT_FLOOR)


class _Product(torch.autograd.Function):
    """y[group e] = x[group e] weight[e]^T, with the three products quantised. A plain linear layer is one group.

    x: (rows, d_in), sorted by group; counts[e] rows each. weight: (E, d_out, d_in). For backward it keeps x as FP8 tiles, about a
    quarter of float32's bytes, and the weight itself, of which there is a copy anyway; that is quantised again.
    """

    @staticmethod
    def forward(ctx, x, weight, counts, recipe, dtype):
        y = x.new_empty(len(x), weight.shape[1], dtype=dtype)
        kept = []
        for x_e, w_e, y_e in zip(x.split(counts), weight, y.split(counts), strict=True):
            if len(x_e):
                x_q = recipe.quantise_x(x_e)
                y_e.copy_(gemm(x_q, recipe.quantise_w(w_e)))
                kept += [x_q.data, x_q.scale]
        ctx.save_for_backward(weight, *kept)
        ctx.counts, ctx.recipe, ctx.x_dtype = counts, recipe, x.dtype
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy):
        weight, *kept = ctx.saved_tensors
        counts, recipe, tiles = ctx.counts, ctx.recipe, iter(kept)
        dx, dweight = dy.new_empty(len(dy), weight.shape[2], dtype=ctx.x_dtype), torch.zeros_like(weight)
        for dy_e, w_e, dx_e, dw_e in zip(dy.split(counts), weight, dx.split(counts), dweight):
            if len(dy_e):
                x_q = Quantised(next(tiles), next(tiles), recipe.activation)
                x_t = recipe.quantise_x(x_q.dequantise(), by_token=False).mT
                dx_e.copy_(gemm(recipe.quantise_dy(dy_e), recipe.quantise_w(w_e).mT))
                dw_e.copy_(gemm(recipe.quantise_dy(dy_e, by_token=False).mT, x_t))
        return dx, dweight, None, None, None


def product(x: Tensor, weight: Tensor, recipe: Recipe = Recipe(), dtype: torch.dtype = torch.float32) -> Tensor:
    """x weight^T in FP8, and so are the two products of its gradient. x: (rows, d_in); weight: (d_out, d_in). Returns (rows, d_out)."""
    return _Product.apply(x, weight.unsqueeze(0), [len(x)], recipe, dtype)


class FP8Linear(Linear):
    """A linear layer with FP8 products. Its parameters stay what they were: the high-precision master weight and bias.

    x: (..., d_in) -> (..., d_out), in x's type, or autocast's. What reads `.weight` itself gets the master weight.
    """

    recipe = Recipe()

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        rows = x.reshape(-1, self.in_features)
        y = product(rows, self.weight, self.recipe, dtype).reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(dtype)


class FP8GroupedLinear(GroupedLinear):
    """E linear layers with FP8 products, one an expert: `GroupedLinear`'s sizes, and tiles that never cross from one to the next."""

    recipe = Recipe()

    def forward(self, x: Tensor, counts: list[int]) -> Tensor:
        return _Product.apply(x, self.weight, list(counts), self.recipe, x.dtype)

    def each(self, x: Tensor, expert: Tensor) -> Tensor:
        numbers = range(len(self.weight))
        return torch.cat([self(row, [int(e == number) for number in numbers]) for row, e in zip(x.split(1), expert.tolist(), strict=True)])


FP8_FORM = {nn.Linear: FP8Linear, Linear: FP8Linear, GroupedLinear: FP8GroupedLinear}


def convert(model: nn.Module, recipe: Recipe = Recipe()) -> nn.Module:
    """Make model's linear layers FP8 layers, in place, and return it.

    Changed: modules whose class is exactly nn.Linear, Linear or GroupedLinear, unless their own name is `head` or `gate`. Everything else
    keeps its precision: embedding, head, MoE gates (a class of their own), norms, and the attention core. Modules and
    parameters stay the same objects, so that an optimizer, a state dict and hooks still fit; a second call only sets the recipe.
    Raises ValueError where there is no such layer. Source: DeepSeek-V3 section 3.3.1.
    """
    for name, module in model.named_modules():
        if type(module) in FP8_FORM and name.rpartition(".")[2] not in KEPT:
            module.__class__ = FP8_FORM[type(module)]
        if isinstance(module, (FP8Linear, FP8GroupedLinear)):
            module.recipe = recipe
    if not converted(model):
        raise ValueError(f"model must have a linear layer that is not named {' or '.join(KEPT)}, got a {type(model).__name__} without")
    return model


def converted(model: nn.Module) -> list[str]:
    """The names of the modules that run in FP8."""
    return [name for name, module in model.named_modules() if isinstance(module, (FP8Linear, FP8GroupedLinear))]
