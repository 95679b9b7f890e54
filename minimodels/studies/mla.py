"""Chapter 06: what the attention scheme does to a model's score and to its speed, and what planted bugs do to its loss.

Models that are compared have as many parameters, whatever their scheme.
"""

import copy
from dataclasses import dataclass, replace

import torch

from minimodels.attention import Cache
from minimodels.bugs.mla import BUGS
from minimodels.config import ModelConfig, TrainConfig
from minimodels.data import Dataset
from minimodels.evaluate import evaluate, windows
from minimodels.model import Transformer
from minimodels.studies import Planted, Study, Training
from minimodels.timing import decode_step, interleaved

# eight heads of 16, and MLA in DeepSeek's ratios: a latent of 4 heads' width, a rotary key of half a head
BASE = ModelConfig(n_heads=8, d_head=16, d_value=16, d_rope=8, d_latent=64, n_kv_heads=2, n_experts=0, mtp_depth=0, d_ff=320)
SCHEMES = ("mha", "gqa", "mqa", "mla")
RATES = (0.005, 0.01, 0.02, 0.04)                                  # peak rates of Muon that are tried
BEST_RATE = {"mha": 0.01, "gqa": 0.02, "mqa": 0.01, "mla": 0.02}   # each scheme's best in mla-rates; a test compares
RECIPE = replace(TrainConfig.preset("cpu"), steps=600, eval_every=100)
SEEDS = (1, 2, 3, 4, 5)

LIVE = replace(TrainConfig.preset("cpu"), steps=60)                # what the chapter trains while you read
LIVE_BYTES = 3_000_000

LATENTS = (4, 8, 16, 32, 48, 64, 96, 128)                          # directions that a squeezed model keeps

# D: heads, and their width; a group of GQA has three heads
WIDTHS = {96: (6, 16), 192: (6, 32), 384: (12, 32), 768: (12, 64), 1536: (24, 64)}
CONTEXTS = (256, 512, 1024, 2048, 4096, 8192)


def with_attention(scheme: str, **sizes) -> ModelConfig:
    """BASE with this scheme and sizes, its feed-forward part widened until it has as many parameters as with MHA, to a unit of width."""
    wanted, config = replace(BASE, attention="mha").n_params, replace(BASE, attention=scheme, **sizes)
    per_unit = 3 * config.d_model * config.n_layers
    return replace(config, d_ff=config.d_ff + round((wanted - config.n_params) / per_unit))


@dataclass(frozen=True, kw_only=True)
class Cached(Planted):
    """Training with a bug planted in every attention layer, and then read with and without a cache."""

    BUGS = BUGS

    def examine(self, model: Transformer, data: Dataset) -> dict:
        """Loss of the second half of 64 windows, nats a token, read at once and read behind a cache of the first half."""
        tokens = next(windows(data.valid, self.training.seq_len, 64))
        half = tokens.shape[1] // 2
        with torch.inference_mode():
            at_once = model(tokens).logits[:, half:]  # (b, half, V)
            cache = Cache(model.config, len(tokens), tokens.shape[1])
            model(tokens[:, :half], cache)
            cached = model(tokens[:, half:], cache).logits  # (b, half, V)
        return {name: round(loss_of(logits, tokens[:, half:]), 4) for name, logits in (("at_once", at_once), ("cached", cached))}


def loss_of(logits: torch.Tensor, tokens: torch.Tensor) -> float:
    """Mean cross-entropy, nats, of each token but the first, from the logits one place before it."""
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).item()


@dataclass(frozen=True, kw_only=True)
class Squeezed(Training):
    """Training a model with MHA, then squeezing what its heads keep into fewer and fewer directions, without training again."""

    def examine(self, model: Transformer, data: Dataset) -> dict:
        T, sample = self.training.seq_len, next(windows(data.valid, self.training.seq_len, 32))
        squeezed = {C: evaluate(squeeze(model, sample, C), data.valid, n_bytes=data.valid_bytes, seq_len=T) for C in LATENTS}
        return {"squeezed": {C: round(score.bits_per_byte, 5) for C, score in squeezed.items()}}


@torch.no_grad()
def squeeze(model: Transformer, tokens: torch.Tensor, n_directions: int) -> Transformer:
    """A copy of a model with MHA whose keys and values, before rotation, have rank n_directions in each layer.

    The directions are those in which keys and values of all heads together, on tokens (B, T), are longest: a singular value
    decomposition. Such a layer could keep n_directions numbers a token, and rebuild the rest.
    """
    small, seen = copy.deepcopy(model).eval(), []
    hooks = [block.attention.register_forward_pre_hook(lambda module, args: seen.append(args[0])) for block in small.layers]
    small(tokens)
    for hook in hooks:
        hook.remove()
    for block, h in zip(small.layers, seen):
        w_k, w_v = block.attention.w_k.weight, block.attention.w_v.weight
        both = torch.cat([w_k, w_v])
        kept = torch.linalg.svd((h @ both.T).flatten(0, 1), full_matrices=False).Vh[:n_directions]
        both = kept.T @ (kept @ both)
        w_k.copy_(both[:len(w_k)])
        w_v.copy_(both[len(w_k):])
    return small


def schemes_at(width: int) -> dict[str, tuple[ModelConfig, bool | None]]:
    """The ways to attend at model width D that are timed: {name: (config, absorb)}, MLA in DeepSeek's ratios."""
    H, Dh = WIDTHS[width]
    base = ModelConfig(d_model=width, n_heads=H, d_head=Dh, d_value=Dh, d_rope=Dh // 2, d_latent=4 * Dh, n_kv_heads=H // 3, n_layers=1,
                       n_experts=0, mtp_depth=0, max_seq_len=max(CONTEXTS) + 1)
    ways = {"MLA naive": ("mla", False), "MLA absorbed": ("mla", True), "MHA": ("mha", None), "GQA": ("gqa", None), "MQA": ("mqa", None)}
    return {name: (replace(base, attention=scheme), absorb) for name, (scheme, absorb) in ways.items()}


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Time one decoded token through one attention layer of each scheme, over several contexts, in turns."""

    arm: str
    seed: int
    width: int
    rounds: int = 9

    def settings(self) -> dict:
        H, Dh = WIDTHS[self.width]
        return {"d_model": self.width, "n_heads": H, "d_head": Dh, "contexts": list(CONTEXTS), "rounds": self.rounds}

    def run(self) -> dict:
        torch.manual_seed(self.seed)
        return {"ms": {S: self.times(S) for S in CONTEXTS}}

    def times(self, context: int) -> dict[str, list[float]]:
        """Milliseconds of a step by scheme, a figure a round."""
        steps = {name: decode_step(config, context, absorb=absorb) for name, (config, absorb) in schemes_at(self.width).items()}
        return {name: [round(ms, 4) for ms in each] for name, each in interleaved(steps, rounds=self.rounds).items()}


STUDIES = [
    Study(name="mla-rates", question="Which learning rate suits each attention scheme?",
          trials=tuple(Training(arm=f"{scheme} {rate:g}", seed=0, model=with_attention(scheme), training=replace(RECIPE, muon_lr=rate, seed=0))
                       for scheme in SCHEMES for rate in RATES)),
    Study(name="mla-quality", question="At equal parameters and tokens, which attention scheme predicts unseen text best?",
          trials=tuple((Squeezed if scheme == "mha" else Training)(
              arm=scheme, seed=seed, model=with_attention(scheme), training=replace(RECIPE, muon_lr=BEST_RATE[scheme], eval_every=300, seed=seed))
              for seed in SEEDS for scheme in SCHEMES)),
    Study(name="mla-bugs", question="Does a planted bug show in the loss?",
          trials=tuple(Cached(arm=bug or "right", seed=seed, bug=bug, model=with_attention("mla"),
                               training=replace(RECIPE, steps=200, eval_every=50, seed=seed))
                       for bug in (None, *BUGS) for seed in SEEDS[:3])),
    Study(name="mla-sizes", question="Which of MLA's two parts is too small here, the latent or the rotary key?",
          trials=tuple(Training(arm=arm, seed=seed, model=with_attention("mla", **sizes),
                                training=replace(RECIPE, muon_lr=BEST_RATE["mla"], eval_every=300, seed=seed))
                       for seed in SEEDS[:3] for arm, sizes in {"latent 128": {"d_latent": 128}, "rotary key 16": {"d_rope": 16}}.items())),
    Study(name="mla-live", question="Where does the chapter's short run end, over seeds?",
          trials=tuple(Training(arm=scheme, seed=seed, model=with_attention(scheme), training=replace(LIVE, seed=seed), max_bytes=LIVE_BYTES)
                       for scheme in ("mha", "mla") for seed in range(1, 7))),
    Study(name="mla-decoding", question="How long does one decoded token take in one attention layer, by width and context?", is_timing=True,
          trials=tuple(Decoding(arm=f"D={width}", seed=seed, width=width) for seed in range(3) for width in WIDTHS)),
]
