"""The efficiency ladder: from a dense model with multi-head attention upward, one technique a rung, every rung measured alike."""

from dataclasses import dataclass, replace

from minimodels.config import ModelConfig, TrainConfig

FULL = {"cpu": "together", "t4": "t4", "gaming": "gaming"}    # the preset that stands on a tier's last rung


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A model, how it is trained, and the technique that it has and the rung below has not."""

    name: str
    model: ModelConfig
    training: TrainConfig


def rungs(tier: str) -> list[Rung]:
    """The rungs of a tier, from the bottom: dense, + MLA, + experts, + MTP, + FP8.

    The last is the tier's preset, trained in FP8; each rung below leaves one technique out. A token meets as many hidden numbers of
    a feed-forward network on every rung, because presets have d_ff = (top_k + n_shared) * d_expert.
    Raises ValueError for a tier without a ladder.
    """
    if tier not in FULL:
        raise ValueError(f"tier must be one of {', '.join(FULL)}, got {tier!r}")
    full, training = ModelConfig.preset(FULL[tier]), TrainConfig.preset(FULL[tier])
    experts = replace(full, mtp_depth=0)
    latent = replace(experts, n_experts=0)
    models = {"dense": replace(latent, attention="mha"), "+ MLA": latent, "+ experts": experts, "+ MTP": full, "+ FP8": full}
    return [Rung(name=name, model=model, training=replace(training, fp8=name == "+ FP8")) for name, model in models.items()]
