"""The KV cache, and attention in its three classical forms: MHA, GQA and MQA differ only in how many heads keep keys."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minimodels.config import ModelConfig
from minimodels.layers import Rope, rotate, yarn_mscale
from minimodels.linear import Linear


class LayerCache:
    """What one layer remembers: named tensors of shape (B, max_len, ...), filled from the front.

    `append` writes at each sequence's own length and returns everything up to the longest, for attention to read.
    """

    def __init__(self, **tensors: Tensor):
        self.tensors = tensors

    def append(self, lengths: list[int], **new: Tensor) -> list[Tensor]:
        """Write new (B, T, ...) values after the first lengths[b] of row b; returns the tensors up to the last value."""
        T = next(iter(new.values())).shape[1]
        end = max(lengths) + T
        for name, value in new.items():
            tensor = self.tensors[name]
            if end > tensor.shape[1]:
                raise ValueError(f"max_len of the cache must be at least {end}, got {tensor.shape[1]}")
            if min(lengths) == max(lengths):
                tensor[:, end - T:end] = value
            else:
                place = torch.tensor(lengths, device=tensor.device)[:, None] + torch.arange(T, device=tensor.device)  # (B, T)
                tensor[torch.arange(len(lengths), device=tensor.device)[:, None], place] = value
        return [self.tensors[name][:, :end] for name in new]


class Cache:
    """A preallocated KV cache for a whole model; `n_bytes` is counted from its tensors.

    lengths[b] tokens of row b are valid; what lies behind is written over. So taking back rejected drafts, and prompts of
    different lengths in one batch, are both a change of `lengths`.
    max_len: tokens it can hold. mtp: also allocate layers for the MTP modules, which draft.
    """

    def __init__(self, config: ModelConfig, batch_size: int, max_len: int, *, device=None, dtype=torch.float32, mtp: bool = False):
        def empty(*shape):
            return torch.zeros(batch_size, max_len, *shape, device=device, dtype=dtype)

        def layer():
            if config.attention == "mla":
                # the normed latent and the rotated key side by side, so that absorbed attention reads one tensor
                return LayerCache(latent=empty(config.d_latent + config.d_rope))
            return LayerCache(k=empty(config.kv_heads, config.d_head), v=empty(config.kv_heads, config.d_head))

        if batch_size < 1 or max_len < 1:
            raise ValueError(f"batch_size and max_len of a cache must be at least 1, got {batch_size} and {max_len}")
        self.config = config
        self.lengths = [0] * batch_size
        self.max_len = max_len
        self.layers = [layer() for _ in range(config.n_layers + (config.mtp_depth if mtp else 0))]

    @property
    def n_bytes(self) -> int:
        """Bytes of all tensors, whether filled or not."""
        return sum(t.nbytes for layer in self.layers for t in layer.tensors.values())

    def advance(self, n_tokens: int):
        """Count n_tokens more as valid in every row."""
        self.lengths = [n + n_tokens for n in self.lengths]

    def rewind(self, lengths: list[int]):
        """Keep only the first lengths[b] tokens of row b. Raises ValueError if that is more than there are."""
        if len(lengths) != len(self.lengths) or any(not 0 <= new <= old for new, old in zip(lengths, self.lengths)):
            raise ValueError(f"lengths must be a number for each row, from 0 to at most {self.lengths}, got {lengths}")
        self.lengths = list(lengths)

    def keep(self, rows: list[int]):
        """Keep only these rows, in this order."""
        self.lengths = [self.lengths[b] for b in rows]
        for layer in self.layers:
            layer.tensors = {name: tensor[rows] for name, tensor in layer.tensors.items()}


@dataclass
class Place:
    """Where the tokens of one forward pass stand; every layer gets the same.

    turn: rotary turns of their positions. lengths: tokens that each row of the cache holds before them, None without a cache.
    mask: which sources a query may see, (T, S) or (B, 1, T, S), True allows; None where is_causal says it, or all may be seen.
    """

    turn: Tensor
    lengths: list[int] | None = None
    mask: Tensor | None = None
    is_causal: bool = True

    @classmethod
    def of(cls, rope: Rope, T: int, device, lengths: list[int] | None = None) -> "Place":
        """The place of T tokens: from 0 without a cache, else behind the lengths[b] tokens that row b of the cache holds."""
        step = torch.arange(T, device=device)
        if lengths is None:
            return cls(rope(step))
        is_even = min(lengths) == max(lengths)
        position = step + lengths[0] if is_even else torch.tensor(lengths, device=device)[:, None] + step
        all_seen = is_even and T == 1
        mask = None if all_seen else may_attend(position, max(lengths) + T)
        return cls(rope(position), lengths, mask, is_causal=False)


def may_attend(position: Tensor, n_sources: int) -> Tensor:
    """Which sources a query may see: s <= t. position (T,) or (B, T) -> (T, S) or (B, 1, T, S), bool, True allows."""
    s = torch.arange(n_sources, device=position.device)
    mask = s <= position[..., None]
    return mask if mask.dim() == 2 else mask[:, None]


def attend(q: Tensor, k: Tensor, v: Tensor, place: Place, scale: float) -> Tensor:
    """softmax(q k^T scale) v, each query over the sources that it may see.

    q: (B, T, H, Dk); k: (B, S, kv, Dk); v: (B, S, kv, Dv), where kv divides H. Returns (B, T, H, Dv).
    """
    Dv, T = v.shape[-1], q.shape[1]
    if Dv < q.shape[-1]:
        v = F.pad(v, (0, q.shape[-1] - Dv))  # fused kernels want values as wide as keys
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if place.is_causal and q.dtype == torch.bfloat16 and q.device.type == "cpu" and T <= 1024 and k.shape[1] == q.shape[1]:
        # in bf16 on a CPU torch's fused kernel is slower than its parts
        score = (q @ k.mT * scale).masked_fill(~may_attend(torch.arange(T), T), float("-inf"))  # (B, H, T, T)
        return (score.softmax(-1) @ v).transpose(1, 2)[..., :Dv]
    o = F.scaled_dot_product_attention(q, k, v, attn_mask=place.mask, is_causal=place.is_causal, scale=scale,
                                       enable_gqa=k.shape[1] < q.shape[1])
    return o.transpose(1, 2)[..., :Dv]


class GroupedAttention(nn.Module):
    """softmax(q k^T scale) v with scale = 1 / sqrt(Dh), where H / kv_heads query heads share one key-value head.

    With kv_heads = H this is MHA (Vaswani et al., 2017), with 1 MQA (Shazeer, 2019), between them GQA (Ainslie et al., 2023).
    h: (B, T, D) -> (B, T, D). The whole head rotates; with YaRN the scale grows by its mscale^2. cache: None to train; else this
    layer's part of a Cache.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.n_heads, self.kv_heads, self.d_head = config.n_heads, config.kv_heads, config.d_head
        self.w_q = Linear(config.d_model, self.n_heads * self.d_head)
        self.w_k = Linear(config.d_model, self.kv_heads * self.d_head)
        self.w_v = Linear(config.d_model, self.kv_heads * self.d_head)
        self.w_o = Linear(self.n_heads * self.d_head, config.d_model)
        self.scale = self.d_head**-0.5 * yarn_mscale(config.yarn_factor, config.yarn_mscale) ** 2

    def project(self, h: Tensor, place: Place) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of h, queries and keys turned by their places: (B, T, H, Dh), then twice (B, T, kv, Dh)."""
        q = rotate(self.w_q(h).unflatten(-1, (-1, self.d_head)), place.turn)  # (B, T, H, Dh)
        k = rotate(self.w_k(h).unflatten(-1, (-1, self.d_head)), place.turn)  # (B, T, kv, Dh)
        return q, k, self.w_v(h).unflatten(-1, (-1, self.d_head))

    def forward(self, h: Tensor, place: Place, cache: LayerCache | None = None) -> Tensor:
        q, k, v = self.project(h, place)
        if cache is not None:
            k, v = cache.append(place.lengths, k=k, v=v)  # (B, S, kv, Dh), (B, S, kv, Dh)
        return self.w_o(attend(q, k, v, place, self.scale).flatten(-2))
