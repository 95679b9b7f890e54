"""Linear layers, one matrix or one an expert, and the matrix product beneath them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Not a public operation, so everything works without it: oneDNN's product, which torch uses for bf16 and its compiler for fp32.
ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
MANY_ROWS = 32        # below, a call to oneDNN costs more than it saves
SMALL_MATRIX = 2**16  # numbers; above, a copy of a matrix costs more than one more product


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight.T, for x (rows, d_in) and weight (d_out, d_in) of one type. No gradient passes.

    In fp32 on a CPU oneDNN computes it. Torch would take MKL, which leaves the widest vector instructions of AMD's processors
    unused.
    """
    if ONEDNN is not None and len(x) >= MANY_ROWS and _is_plain_fp32(x):
        return ONEDNN(x, weight, None, "none", [], "")
    return x @ weight.T


def _is_plain_fp32(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


class Linear(nn.Linear):
    """nn.Linear without bias, by `product`. weight: (d_out, d_in). x: (..., d_in) -> (..., d_out)."""

    def __init__(self, d_in: int, d_out: int):
        super().__init__(d_in, d_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if ONEDNN is None or x.numel() < MANY_ROWS * x.shape[-1] or not _is_plain_fp32(x):
            return F.linear(x, self.weight)
        return _Product.apply(x, self.weight)


class _Product(torch.autograd.Function):
    """y = x @ weight.T, with the two products of its gradient."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return product(x.flatten(0, -2), weight).unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        rows, drows = x.flatten(0, -2), dy.flatten(0, -2)
        dx = product(drows, weight.T).view_as(x) if ctx.needs_input_grad[0] else None
        return dx, product(rows.T, drows.T).T  # that way round oneDNN is faster


class GroupedLinear(nn.Module):
    """E linear layers without bias, one an expert, applied to rows that are sorted by expert.

    weight: (E, d_out, d_in). x: (rows, d_in); counts: E row counts that sum to rows. Returns (rows, d_out).
    On a GPU in bf16, with widths that are multiples of 8, this is `F.grouped_mm` (newer than torch 2.9); elsewhere a product a group, written into one output.
    """

    def __init__(self, n_experts: int, d_in: int, d_out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_experts, d_out, d_in))
        nn.init.normal_(self.weight, std=d_in**-0.5)

    def forward(self, x: Tensor, counts: list[int]) -> Tensor:
        assert sum(counts) == len(x), f"counts must sum to {len(x)} rows, got {sum(counts)}"
        weight = self.weight
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, weight = x.to(dtype), weight.to(dtype)
        is_wide = x.shape[-1] % 8 == 0 and weight.shape[1] % 8 == 0  # rows of whole 16 bytes
        if x.device.type == "cuda" and x.dtype == torch.bfloat16 and is_wide and hasattr(F, "grouped_mm"):
            return _grouped_mm(x, weight, counts)
        return _GroupedProduct.apply(x, weight, counts)

    def each(self, x: Tensor, expert: Tensor) -> Tensor:
        """x: (rows, d_in), row r through expert[r], in any order: (rows, d_out). For a few rows, which sorting would slow."""
        if x.dtype == torch.float32 and self.weight[0].numel() > SMALL_MATRIX:
            return torch.cat([F.linear(row, self.weight[e]) for row, e in zip(x.split(1), expert.tolist(), strict=True)])
        # small matrices cost less to copy than several products to start, above all in bf16
        return torch.bmm(x.unsqueeze(1), self.weight.index_select(0, expert).mT).squeeze(1)


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
            y[rows] = product(x[rows], weight[e])
        return y

    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        dy = dy.contiguous()  # the gradient of a sum arrives with stride 0
        dx, dweight = torch.empty_like(x), torch.zeros_like(weight)
        for e, rows in groups(ctx.counts):
            dx[rows] = product(dy[rows], weight[e].T)
            dweight[e] = product(x[rows].T, dy[rows].T).T
        return dx, dweight, None


def groups(counts: list[int]):
    """Each group that has rows, as (its number, the slice of its rows)."""
    start = 0
    for e, n in enumerate(counts):
        if n:
            yield e, slice(start, start + n)
        start += n
