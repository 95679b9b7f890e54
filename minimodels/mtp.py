"""Multi-token prediction: each module looks one token further ahead, from the hidden state of the one before it."""

import torch
from torch import Tensor, nn

from minimodels.attention import LayerCache, Place
from minimodels.config import ModelConfig
from minimodels.layers import RMSNorm
from minimodels.linear import Linear
from minimodels.loss import next_token_loss
from minimodels.moe import Routing


class MTPModule(nn.Module):
    """Depth k: h^k = norm(block(M_k [norm(h^(k-1)) ; norm(embedding of token i + k)])), from which token i + k + 1 is predicted.

    h: (B, T, D), what the head reads at depth k - 1; embedded: (B, T, D), the embeddings of the tokens k places ahead. Returns
    h^k (B, T, D), ready for the head, and its Routing. Embedding and head are the model's own; the final norm is the module's.
    block: a Block of the model's last kind, which the module owns. Source: DeepSeek-V3 eqs. 21-23. The paper does not say
    whether h comes before or after the final norm; it comes after, as Hugging Face Transformers passes it when it drafts.
    """

    def __init__(self, config: ModelConfig, block: nn.Module):
        super().__init__()
        self.h_norm = RMSNorm(config.d_model, config.norm_eps)
        self.embed_norm = RMSNorm(config.d_model, config.norm_eps)
        self.project = Linear(2 * config.d_model, config.d_model)  # M_k
        self.block = block
        self.final_norm = RMSNorm(config.d_model, config.norm_eps)

    def forward(self, h: Tensor, embedded: Tensor, place: Place, cache: LayerCache | None = None) -> tuple[Tensor, Routing | None]:
        joined = torch.cat([self.h_norm(h), self.embed_norm(embedded)], dim=-1)
        h, routing = self.block(self.project(joined), place, cache)
        return self.final_norm(h), routing


def losses(out, tokens: Tensor) -> list[Tensor]:
    """Mean cross-entropy of each depth, in nats a token: the main model's first, then one for each MTP module.

    out: the model's Output for tokens (B, T). Depth k at position i predicts token i + k + 1, so it has T - k - 1 targets.
    Source: DeepSeek-V3 eq. 24, as a mean over the targets that there are. The training loss adds mtp_weight times the mean of the modules' losses (eq. 25).
    """
    return [next_token_loss(h[:, :-1], out.head.weight, tokens[:, k + 1:]) for k, h in enumerate(out.hidden)]
