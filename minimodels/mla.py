"""Multi-head Latent Attention: all heads' keys and values come from one small latent, and only that is cached."""

import torch
from torch import Tensor, nn

from minimodels.attention import LayerCache, Place, attend, may_attend
from minimodels.config import ModelConfig
from minimodels.layers import RMSNorm, rotate, yarn_mscale
from minimodels.linear import Linear


class LatentAttention(nn.Module):
    """Keys and values are linear in a latent c_kv = norm(W_DKV h); position enters by a rotary key that all heads share.

        k_i = [W_UK,i c_kv ; k_rope]     v_i = W_UV,i c_kv     o_i = softmax(q_i k_i^T scale) v_i

    Two paths give the same numbers. *Naive* rebuilds keys and values of every head: few FLOPs a pair of tokens, so it trains
    and reads prompts. *Absorbed* moves W_UK into the query and W_UV behind the sum, so that attention runs on the latents
    themselves, as MQA with one key of width C + Dr: nothing is rebuilt, so it decodes.

    h: (B, T, D) -> (B, T, D). cache: None to train; else this layer's part of a Cache.
    Source: DeepSeek-V2, section 2.1 and appendix C; DeepSeek-V3 eqs. 1-11. The cache holds the normed latent and the rotated
    key, as in the released code.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.n_heads, self.d_head, self.d_rope, self.d_value = config.n_heads, config.d_head, config.d_rope, config.d_value
        D, C, to_query = config.d_model, config.d_latent, config.n_heads * (config.d_head + config.d_rope)
        self.w_q = None
        if config.d_query_latent is None:
            self.w_q = Linear(D, to_query)
        else:
            self.w_dq = Linear(D, config.d_query_latent)
            self.q_norm = RMSNorm(config.d_query_latent, config.norm_eps)
            self.w_uq = Linear(config.d_query_latent, to_query)
        self.w_dkv = Linear(D, C + config.d_rope)  # W_DKV and W_KR in one
        self.kv_norm = RMSNorm(C, config.norm_eps)
        self.w_ukv = Linear(C, self.n_heads * (self.d_head + self.d_value))  # W_UK and W_UV in one, by head
        self.w_o = Linear(self.n_heads * self.d_value, D)
        self.scale = (self.d_head + self.d_rope) ** -0.5 * yarn_mscale(config.yarn_factor, config.yarn_mscale) ** 2

    def forward(self, h: Tensor, place: Place, cache: LayerCache | None = None, *, absorb: bool | None = None) -> Tensor:
        """absorb: None takes the path that needs fewer multiplications."""
        q_nope, q_rope = self.query(h, place)
        latent = self.latent(h, place)
        if cache is not None:
            latent, = cache.append(place.lengths, latent=latent)
        if absorb is None:
            absorb = self.absorbing_is_cheaper(h.shape[1], latent.shape[1])
        path = self.absorbed if absorb else self.naive
        return self.w_o(path(q_nope, q_rope, latent, place).flatten(-2))

    def absorbing_is_cheaper(self, T: int, S: int) -> bool:
        """Compare multiplications a head for T queries over S cached tokens: a longer key against rebuilding S keys and values."""
        C, Dr, rebuilt = self.w_ukv.in_features, self.d_rope, self.d_head + self.d_value
        absorbed = T * S * (2 * C + Dr) + T * C * rebuilt
        naive = T * S * (rebuilt + Dr) + S * C * rebuilt
        return absorbed < naive

    def query(self, h: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        """The two parts of each head's query: (B, T, H, Dn) and, rotated, (B, T, H, Dr)."""
        q = self.w_uq(self.q_norm(self.w_dq(h))) if self.w_q is None else self.w_q(h)
        q_nope, q_rope = q.unflatten(-1, (self.n_heads, -1)).split([self.d_head, self.d_rope], dim=-1)
        return q_nope, rotate(q_rope, place.turn)

    def latent(self, h: Tensor, place: Place) -> Tensor:
        """What is cached for each token, normed latent and rotated key: (B, T, C + Dr)."""
        c_kv, k_rope = self.w_dkv(h).split([self.w_ukv.in_features, self.d_rope], dim=-1)
        k_rope = rotate(k_rope.unsqueeze(2), place.turn).squeeze(2)  # (B, T, Dr)
        return torch.cat([self.kv_norm(c_kv), k_rope], dim=-1)

    def naive(self, q_nope: Tensor, q_rope: Tensor, latent: Tensor, place: Place) -> Tensor:
        """Attention over the keys and values of every head, rebuilt from the latents: (B, T, H, Dv)."""
        c_kv, k_rope = latent.split([self.w_ukv.in_features, self.d_rope], dim=-1)
        k_nope, v = self.w_ukv(c_kv).unflatten(-1, (self.n_heads, -1)).split([self.d_head, self.d_value], dim=-1)
        k = torch.cat([k_nope, k_rope.unsqueeze(2).expand(-1, -1, self.n_heads, -1)], dim=-1)  # (B, S, H, Dn + Dr)
        q = torch.cat([q_nope, q_rope], dim=-1)  # (B, T, H, Dn + Dr)
        return attend(q, k, v, place, self.scale)

    def absorbed(self, q_nope: Tensor, q_rope: Tensor, latent: Tensor, place: Place) -> Tensor:
        """The same result without rebuilding a key or a value: (B, T, H, Dv)."""
        w_uk, w_uv = self.w_ukv.weight.unflatten(0, (self.n_heads, -1)).split([self.d_head, self.d_value], dim=1)
        dtype = q_nope.dtype
        if q_nope.device.type == "cpu":  # where a small product in bf16 costs several in fp32
            q_nope, q_rope, latent, w_uk, w_uv = (x.float() for x in (q_nope, q_rope, latent, w_uk, w_uv))
        T, H = q_nope.shape[1:3]
        # q . (W_UK c) = (W_UK^T q) . c, so the matrix moves to the query's side
        q_absorbed = q_nope.transpose(1, 2) @ w_uk  # (B, H, T, C)
        q = torch.cat([q_absorbed, q_rope.transpose(1, 2)], dim=-1)  # (B, H, T, C + Dr)
        # all heads read the same latents, so heads and queries are the rows of one product
        score = (q.flatten(1, 2) @ latent.mT * self.scale).unflatten(1, (H, T))  # (B, H, T, S)
        mask = may_attend(torch.arange(T, device=q.device), T) if place.is_causal else place.mask
        if mask is not None:
            score = score.masked_fill(~mask, float("-inf"))
        attention = score.softmax(-1)  # (B, H, T, S)
        o_latent = (attention.flatten(1, 2) @ latent[..., :w_uk.shape[-1]]).unflatten(1, (H, T))  # (B, H, T, C)
        return (o_latent @ w_uv.mT).transpose(1, 2).to(dtype)
