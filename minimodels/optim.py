"""What turns gradients into steps: Muon for matrices, AdamW for the rest, and the schedule of their rates."""

from collections import defaultdict

import torch
from torch import Tensor, nn

from minimodels.config import TrainConfig
from minimodels.moe import Gate


def orthogonalise(gradient: Tensor, *, steps: int = 5) -> Tensor:
    """Replace every singular value of a matrix by one near 1: U S V^T becomes about U V^T.

    gradient: (..., rows, columns), a stack of matrices. Newton-Schulz with a quintic polynomial: products alone, no SVD.
    Five steps bring every value from a 300th of the matrix's norm up into [0.68, 1.21]; smaller ones stay smaller.
    Source: Jordan et al. (2024), Muon.
    """
    a, b, c = 3.4445, -4.7750, 2.0315  # chosen there so that small singular values rise fast
    x = gradient / (gradient.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    is_tall = x.shape[-2] > x.shape[-1]
    if is_tall:
        x = x.mT
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose step is orthogonalised, so that all directions of a matrix learn at one pace.

    params: matrices (rows, columns) and stacks of them, such as the experts' (E, rows, columns): each expert is a matrix of
    its own. A group with parts=2 holds weights that are two matrices above each other, as w_gate_up is. The step is scaled by
    sqrt(max(1, rows / columns)). Weight decay is decoupled.
    Source: Jordan et al. (2024), with Nesterov momentum. Left out: their bfloat16 iteration, which CPUs would run slower.
    """

    def __init__(self, params, lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay, parts=1))

    @torch.no_grad()
    def step(self):
        """One step for every parameter that has a gradient. Matrices of one shape are orthogonalised together."""
        same_shape = defaultdict(list)
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    update = self._momentum(p, group).unflatten(-2, (group["parts"], -1)).flatten(0, -3)  # (n, r, c)
                    same_shape[update.shape[-2:]].append((p, group, update))
        for (rows, columns), members in same_shape.items():
            updates = orthogonalise(torch.cat([update for _, _, update in members])).split([len(u) for _, _, u in members])
            for (p, group, _), update in zip(members, updates):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update.reshape(p.shape), alpha=-group["lr"] * max(1, rows / columns) ** 0.5)

    def _momentum(self, p: Tensor, group: dict) -> Tensor:
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(p.grad, 1 - group["momentum"])
        return p.grad.lerp(state["momentum"], group["momentum"])


def make_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """The optimizers of a run. "muon" gives embedding and head to AdamW at embed_lr, other matrices to Muon, the rest to AdamW.

    "adamw" gives everything to AdamW at lr. AdamW decays matrices and leaves vectors (norms) alone; gates are never Muon's.
    """
    of_gate = {id(m.weight) for m in model.modules() if isinstance(m, Gate)}
    of_tokens = {id(model.embed.weight), id(model.head.weight)}
    by_kind = {kind: [] for kind in ("vectors", "gates", "tokens", "fused", "matrices")}
    for name, p in model.named_parameters():
        kind = ("vectors" if p.dim() < 2 else "gates" if id(p) in of_gate else "tokens" if id(p) in of_tokens
                else "fused" if name.endswith("w_gate_up.weight") else "matrices")
        by_kind[kind].append(p)
    is_muon = config.optimizer == "muon"
    groups = [{"params": by_kind["tokens"], "lr": config.embed_lr if is_muon else config.lr}, {"params": by_kind["gates"]},
              {"params": by_kind["vectors"], "weight_decay": 0.0}]
    if not is_muon:
        groups.append({"params": by_kind["matrices"] + by_kind["fused"]})
    adamw = torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=(config.beta1, config.beta2),
                              weight_decay=config.weight_decay, fused=True)
    muon = [{"params": by_kind["matrices"]}, {"params": by_kind["fused"], "parts": 2}]
    return [Muon(muon, lr=config.muon_lr, weight_decay=config.weight_decay), adamw] if is_muon else [adamw]


def schedule(step: int, config: TrainConfig) -> float:
    """The factor on the peak rate at a step (counted from 1): rises linearly, stays, and falls linearly towards final_lr.

    Source: warm-up, constant and decay as in DeepSeek-V3, section 4.2, whose decay is a cosine and not a line.
    """
    warmup, decay = config.warmup * config.steps, config.decay * config.steps
    rise = step / warmup if step < warmup else 1.0
    left = config.steps - step + 1  # so that the last step still moves
    fall = left / decay if left < decay else 1.0
    return min(rise, config.final_lr + (1 - config.final_lr) * fall)
