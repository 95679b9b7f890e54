"""From logits to a token: temperature, filters, one draw, and the test that lets a drafted token stand."""

from dataclasses import dataclass

import torch
from torch import Tensor


def distribution(logits: Tensor, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None,
                 min_p: float | None = None) -> Tensor:
    """The probabilities that tokens are drawn from: softmax(logits / temperature), filtered, and summing to 1 again.

    logits: (..., V) -> (..., V), float32 or wider. Filters in this order: top_k keeps the k likeliest tokens (Fan et al., 2018);
    top_p the fewest likeliest whose sum reaches p (Holtzman et al., 2020); min_p those at least min_p times as likely as the
    likeliest (Nguyen et al., 2024). Tokens that tie with the last one kept by top_k stay. Temperature 0 puts all on the argmax.
    Raises ValueError for a setting out of its range.
    """
    check_sampling(temperature, top_k, top_p, min_p)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if temperature == 0:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    # the maximum goes first, so that a tiny temperature overflows to -inf and not to inf
    p = ((logits - logits.amax(-1, keepdim=True)) / temperature).softmax(-1)
    if top_k is not None and top_k < p.shape[-1]:
        p = p.where(p >= p.topk(top_k).values[..., -1:], 0)
    if top_p is not None and top_p < 1:
        p = p / p.sum(-1, keepdim=True)
        ranked, token = p.sort(dim=-1, descending=True)
        is_kept = ranked.cumsum(-1) - ranked < top_p
        p = p.where(torch.zeros_like(is_kept).scatter_(-1, token, is_kept), 0)
    if min_p is not None:
        p = p.where(p >= min_p * p.amax(-1, keepdim=True), 0)
    return p / p.sum(-1, keepdim=True)


def check_sampling(temperature: float, top_k: int | None, top_p: float | None, min_p: float | None):
    """Raise ValueError, naming field, rule and value, for a setting out of its range."""
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be at least 0 (0 takes the likeliest token), got {temperature!r}")
    if top_k is not None and (top_k != int(top_k) or top_k < 1):
        raise ValueError(f"top_k must be a whole number of at least 1, or None for all tokens, got {top_k!r}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], or None for all tokens, got {top_p!r}")
    if min_p is not None and not 0 <= min_p <= 1:
        raise ValueError(f"min_p must be in [0, 1], or None for all tokens, got {min_p!r}")


def sample(probabilities: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw one token a row. probabilities: (..., V), which need not sum to 1 -> (...), int64.

    generator: None takes torch's own. It may live on another device than the probabilities.
    """
    device = generator.device if generator else probabilities.device
    noise = torch.empty(probabilities.shape, dtype=probabilities.dtype, device=device).exponential_(generator=generator)
    # argmax of p / Exp(1) noise is a draw from p
    return (probabilities / noise.to(probabilities.device)).argmax(-1)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen: the settings of `distribution`, and the generator that draws."""

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    generator: torch.Generator | None = None

    def distribution(self, logits: Tensor) -> Tensor:
        """`distribution` with these settings."""
        return distribution(logits, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p)

    def draft(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """logits (B, V) -> a token (B,), and the probabilities q (B, V) it was drawn from; None if greedy."""
        if self.temperature == 0:
            return logits.argmax(-1), None
        q = self.distribution(logits)
        return sample(q, self.generator), q

    def verify(self, logits: Tensor, draft: Tensor, q: list[Tensor | None]) -> tuple[Tensor, list[int]]:
        """How many drafts of each row stand, and the token after them.

        logits: (B, n + 1, V), the main model's at the last token and at each of n drafts (B, n); q: n times (B, V), None if greedy.
        Returns tokens (B, n + 1), of which the first accepted[b] + 1 count, and accepted.
        Greedy: a draft stands if it is the argmax, so the text is the one without drafts. Sampled: it stands with probability
        min(1, p / q); else the token comes from (p - q)+, and the law is p exactly. Source: Leviathan et al. (2023), appendix A.
        """
        n = draft.shape[1]
        if self.temperature == 0:
            token = logits.argmax(-1)  # (B, n+1)
            return token, count_true(token[:, :n] == draft) if n else [0] * len(token)
        p = self.distribution(logits)  # (B, n+1, V)
        if n == 0:
            return sample(p, self.generator), [0] * len(p)
        q = torch.stack([*q, torch.zeros_like(q[0])], dim=1)  # (B, n+1, V), nothing was drafted behind the last
        u = torch.rand(draft.shape, generator=self.generator, device=self.generator.device if self.generator else p.device)
        p_draft, q_draft = (x[:, :n].gather(2, draft[..., None])[..., 0] for x in (p, q))
        accepted = count_true(u.to(p) * q_draft < p_draft)
        row, at = torch.arange(len(p), device=p.device), torch.tensor(accepted, device=p.device)
        token = torch.cat([draft, draft[:, :1]], dim=1)
        token[row, at] = sample(residual(p[row, at], q[row, at]), self.generator)
        return token, accepted


def residual(p: Tensor, q: Tensor) -> Tensor:
    """(p - q)+, the law of the token that replaces a rejected draft, up to its sum. p, q: (B, V) -> (B, V)."""
    rest = (p - q).clamp(min=0)
    return rest.where(rest.sum(-1, keepdim=True) > 0, p)  # p = q is never rejected, except by rounding


def count_true(is_right: Tensor) -> list[int]:
    """How many of a row are True before the first that is not. (B, n), bool -> B numbers."""
    return is_right.cumprod(1).sum(1).tolist()
