"""The loss of the output head, computed a few hundred rows at a time, so that all logits together never exist."""

import torch
from torch import Tensor

from minimodels.linear import product


def next_token_loss(hidden: Tensor, weight: Tensor, target: Tensor, *, chunk: int = 512) -> Tensor:
    """Mean cross-entropy, in nats a token, of the logits hidden @ weight.T against target. Scalar, float32.

    hidden: (..., D), normed; weight: (V, D), the head's; target: (...), int64. chunk: rows of logits that exist at a time.
    The same number as `F.cross_entropy(hidden @ weight.T, target)`. The gradient is computed with the loss, while a chunk's
    logits still lie in the processor's cache.
    Without a target, as where a sequence is shorter than an MTP module looks ahead, the loss is 0.
    """
    # inside a Function gradients are always off, so whether anybody wants one is asked here
    wants_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    return _ChunkedLoss.apply(hidden.flatten(0, -2), weight, target.flatten(), chunk, wants_gradient)


class _ChunkedLoss(torch.autograd.Function):
    """d loss / d logits = (softmax(logits) - one_hot(target)) / rows."""

    @staticmethod
    def forward(ctx, hidden, weight, target, chunk, wants_gradient):
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        w, n_rows, total = weight.to(dtype), len(hidden), hidden.new_zeros((), dtype=torch.float32)
        dhidden = torch.empty_like(hidden) if wants_gradient else None
        dweight = torch.zeros_like(weight, dtype=torch.float32) if wants_gradient else None
        for start in range(0, n_rows, chunk):
            rows = slice(start, start + chunk)
            h, t = hidden[rows].to(dtype), target[rows, None]
            log_p = product(h, w).float().log_softmax(-1)  # (c, V)
            total -= log_p.gather(1, t).sum()
            if wants_gradient:
                dlogits = log_p.exp_().scatter_add_(1, t, log_p.new_full(t.shape, -1.0)).to(dtype)
                dhidden[rows] = product(dlogits, w.T)
                dweight += product(h.T, dlogits.T).T
        if wants_gradient:
            ctx.save_for_backward(dhidden, dweight.to(weight.dtype))
        ctx.n_rows = max(n_rows, 1)
        return total / ctx.n_rows

    @staticmethod
    def backward(ctx, dloss):
        dhidden, dweight = ctx.saved_tensors
        scale = dloss / ctx.n_rows
        return dhidden * scale.to(dhidden.dtype), dweight * scale.to(dweight.dtype), None, None, None
