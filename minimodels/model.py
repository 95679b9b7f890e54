"""The Transformer: embedding, blocks, head, and the modules that predict further tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minimodels.attention import Cache, GroupedAttention, LayerCache, Place
from minimodels.config import ModelConfig
from minimodels.layers import RMSNorm, Rope, SwiGLU
from minimodels.linear import GroupedLinear
from minimodels.mla import LatentAttention
from minimodels.moe import Gate, MoE, Routing
from minimodels.mtp import MTPModule


class Block(nn.Module):
    """h + attention(norm(h)), then + feed-forward(norm(that)): experts, or one SwiGLU in the first layers.

    h: (B, T, D) -> (B, T, D), Routing (None if dense). Source: DeepSeek-V3, figure 2.
    """

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.norm_eps)
        self.attention = LatentAttention(config) if config.attention == "mla" else GroupedAttention(config)
        self.ffn_norm = RMSNorm(config.d_model, config.norm_eps)
        self.ffn = MoE(config) if config.is_moe_layer(layer) else SwiGLU(config.d_model, config.d_ff)

    def forward(self, h: Tensor, place: Place, cache: LayerCache | None = None) -> tuple[Tensor, Routing | None]:
        h = h + self.attention(self.attention_norm(h), place, cache)
        y = self.ffn(self.ffn_norm(h))
        y, routing = y if isinstance(y, tuple) else (y, None)
        return h + y, routing


@dataclass
class Output:
    """What a forward pass computed, for tokens (B, T).

    hidden: what the head reads: the main model's (B, T, D), then for each MTP depth k (B, T - k, D).
    routing: one entry a layer, then one an MTP module that ran: its Routing, or None if it is dense.
    Logits are computed when asked for, because a training step never holds them.
    """

    hidden: list[Tensor]
    routing: list[Routing | None]
    head: nn.Linear

    @property
    def logits(self) -> Tensor:
        """The main model's logits: (B, T, V). Position i predicts token i + 1."""
        return self.head(self.hidden[0])

    @property
    def mtp_logits(self) -> list[Tensor]:
        """For each MTP depth k, logits (B, T - k, V). Position i predicts token i + k + 1."""
        return [self.head(h) for h in self.hidden[1:]]

    @property
    def load(self) -> list[Tensor]:
        """For each layer with experts, how many tokens each expert got: (E,)."""
        return [r.load for r in self.routing if r is not None]


class Transformer(nn.Module):
    """A DeepSeek-V3 style language model; the configuration can also make it a plain dense Transformer.

    tokens: (B, T), int64 -> Output. With a cache the tokens continue what it holds, and MTP modules do not run
    (`generate.py` runs them to draft).
    tokenizer: the tokenizer that made the tokens, if the model was loaded with one; None otherwise.
    Source: DeepSeek-V3, section 2 and figure 2.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.tokenizer = None
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.n_layers))
        self.final_norm = RMSNorm(config.d_model, config.norm_eps)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)  # training reads its weight alone (loss.py)
        self.mtp = nn.ModuleList(MTPModule(config, Block(config, config.n_layers)) for _ in range(config.mtp_depth))
        self.rope = Rope.from_config(config)
        self.apply(self._initialise)
        if config.tie_embeddings:
            self.head.weight = self.embed.weight

    def _initialise(self, module: nn.Module):
        if isinstance(module, (nn.Linear, nn.Embedding, GroupedLinear, Gate)):
            nn.init.normal_(module.weight, std=self.config.init_std)

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Output:
        self._check(tokens, cache)
        place = Place.of(self.rope, tokens.shape[1], tokens.device, cache.lengths if cache else None)
        h = self.embed(tokens)  # (B, T, D)
        routings = []
        for i, block in enumerate(self.layers):
            h, routing = block(h, place, cache.layers[i] if cache else None)
            routings.append(routing)
        hidden = [self.final_norm(h)]
        if cache:
            cache.advance(tokens.shape[1])
        else:
            self._look_ahead(tokens, hidden, routings)
        return Output(hidden, routings, self.head)

    def _look_ahead(self, tokens: Tensor, hidden: list[Tensor], routings: list[Routing | None]):
        """Run the MTP modules: depth k sees hidden state i and token i + k, so its sequence is k tokens shorter."""
        for k, module in enumerate(self.mtp, start=1):
            if tokens.shape[1] <= k:
                return
            embedded = self.embed(tokens[:, k:])  # (B, T-k, D)
            h, routing = module(hidden[-1][:, :-1], embedded, Place.of(self.rope, tokens.shape[1] - k, tokens.device))
            hidden.append(h)
            routings.append(routing)

    def _check(self, tokens: Tensor, cache: Cache | None):
        config = self.config
        if tokens.dim() != 2 or tokens.numel() == 0:
            raise ValueError(f"tokens must have two axes (B, T) and at least one token, got shape {tuple(tokens.shape)}")
        if tokens.dtype != torch.int64:
            raise ValueError(f"tokens must be of type int64, got {tokens.dtype}")
        if tokens.device.type == "cpu":  # on a GPU this question would make the processor wait
            low, high = (int(n) for n in tokens.aminmax())
            if low < 0 or high >= config.vocab_size:
                raise ValueError(f"tokens must be in [0, vocab_size={config.vocab_size}), got {low} to {high}; "
                                 "was the text encoded with another tokenizer?")
        n_tokens = tokens.shape[1]
        if cache is not None:
            if cache.config is not config and cache.config != config:
                raise ValueError("cache must be of this model's configuration; make it with Cache(model.config, ...)")
            if len(cache.lengths) != len(tokens):
                raise ValueError(f"tokens must have a row for each of the cache's {len(cache.lengths)}, got {len(tokens)}")
            n_tokens += max(cache.lengths)
        if n_tokens > config.max_seq_len:
            raise ValueError(f"tokens must be at most max_seq_len={config.max_seq_len} long, with what the cache holds, got {n_tokens}")

    @property
    def gates(self) -> list[Gate]:
        """The gates of all layers with experts, in the order of Output.load."""
        return [m for m in self.modules() if isinstance(m, Gate)]
