"""What heads look at: the attention weights of a model, and scores that say whether a head has a job that one can name.

A score is the mean weight that a head gives to one kind of target, over the queries that have such a target. A head that looks
everywhere alike has a score too, so `jobs` returns that beside it.
Left out: what a head writes. A weight says where it looks, not what it does with what it finds.
"""

import torch
from torch import Tensor

from minimodels.attention import GroupedAttention, Place, may_attend
from minimodels.model import Transformer

KINDS = ("itself", "previous token", "first token", "same token", "after same token", "start of line", "open bracket")
OPEN, CLOSE = "([{", ")]}"


@torch.inference_mode()
def patterns(model: Transformer, tokens: Tensor) -> Tensor:
    """Every layer's and head's attention weights on tokens (B, T): (n_layers, B, H, T, T), rows summing to 1.

    Raises ValueError for a model with another attention than MHA, GQA or MQA.
    """
    layers = [block.attention for block in model.layers]
    if not all(isinstance(layer, GroupedAttention) for layer in layers):
        raise ValueError(f"model must have attention mha, gqa or mqa, got {model.config.attention}")
    weights = []
    hooks = [layer.register_forward_pre_hook(lambda layer, args: weights.append(weights_of(layer, *args[:2]))) for layer in layers]
    try:
        model(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(weights)


def weights_of(layer: GroupedAttention, h: Tensor, place: Place) -> Tensor:
    """softmax(q k^T scale) of one layer without a cache, which its fused kernel never shows: (B, H, T, T)."""
    q, k, _ = layer.project(h, place)
    k = k.repeat_interleave(layer.n_heads // layer.kv_heads, dim=2)  # (B, T, H, Dh)
    score = torch.einsum("bthd,bshd->bhts", q, k) * layer.scale  # (B, H, T, T)
    T = h.shape[1]
    return score.masked_fill(~may_attend(torch.arange(T, device=h.device), T), float("-inf")).softmax(-1)


def targets(tokens: list[int], words: list[str]) -> dict[str, Tensor]:
    """For each kind which sources are its target: (T, T), bool, row t is query t. tokens, words: one text, as numbers and as written.

    After same token: the token that followed an earlier occurrence of the query's own. Start of line: the last token, before the
    query's own, that ends in a line break and its indentation. Open bracket: the last that is still open, where the query is a bracket that closes it.
    """
    T = len(tokens)
    found = {kind: torch.zeros(T, T, dtype=torch.bool) for kind in KINDS}
    stack, line = [], None
    for t in range(T):
        found["itself"][t, t] = True
        if t:
            found["previous token"][t, t - 1] = True
            found["first token"][t, 0] = True
        for s in range(t):
            if tokens[s] == tokens[t]:
                found["same token"][t, s] = True
                if s + 1 < t:
                    found["after same token"][t, s + 1] = True
        if line is not None:
            found["start of line"][t, line] = True
        if "\n" in words[t]:
            line = t
        if words[t].strip() and words[t].strip() in CLOSE and stack:
            found["open bracket"][t, stack[-1]] = True
        for letter in words[t]:
            if letter in OPEN:
                stack.append(t)
            elif letter in CLOSE and stack:
                stack.pop()
    return found


def jobs(weights: Tensor, found: list[dict[str, Tensor]]) -> dict[str, tuple[Tensor, float, int]]:
    """For each kind: the mean weight of each head on its targets (n_layers, H), that of even attention, and how many queries had one.

    weights: (n_layers, B, H, T, T), found: `targets` of each of the B texts. A kind without a target in any text is left out.
    """
    T = weights.shape[-1]
    even = 1 / torch.arange(1, T + 1)[:, None]  # (T, 1)
    scores = {}
    for kind in KINDS:
        target = torch.stack([each[kind] for each in found])  # (B, T, T)
        has_one = target.any(-1)  # (B, T)
        n = int(has_one.sum())
        if n:
            on_target = (weights * target[None, :, None]).sum(-1)  # (n_layers, B, H, T)
            mean = (on_target * has_one[None, :, None]).sum((1, 3)) / n  # (n_layers, H)
            scores[kind] = mean, ((even * target).sum(-1) * has_one).sum().item() / n, n
    return scores
