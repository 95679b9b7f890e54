"""Chapter 06: what the attention scheme does to a model's score, with as many parameters whatever the scheme."""

from dataclasses import replace

from minimodels.config import ModelConfig, TrainConfig
from minimodels.studies import Study, Training

# eight heads of 16, and MLA in DeepSeek's ratios: a latent of 4 heads' width, a rotary key of half a head
BASE = ModelConfig(n_heads=8, d_head=16, d_value=16, d_rope=8, d_latent=64, n_kv_heads=2, n_experts=0, mtp_depth=0, d_ff=320)
SCHEMES = ("mha", "gqa", "mqa", "mla")
RATES = (0.01, 0.02, 0.04)                                         # peak rates of Muon that are tried
BEST_RATE = {"mha": 0.02, "gqa": 0.02, "mqa": 0.02, "mla": 0.02}   # each scheme's best in mla-rates; a test compares
RECIPE = replace(TrainConfig.preset("cpu"), steps=600, eval_every=100)
SEEDS = (1, 2, 3, 4, 5)


def with_attention(scheme: str) -> ModelConfig:
    """BASE with this scheme, its feed-forward part widened until the model has as many parameters as with MHA, to a unit of width."""
    wanted, config = replace(BASE, attention="mha").n_params, replace(BASE, attention=scheme)
    per_unit = 3 * config.d_model * config.n_layers
    return replace(config, d_ff=config.d_ff + round((wanted - config.n_params) / per_unit))


STUDIES = [
    Study(name="mla-rates", question="Which learning rate suits each attention scheme?",
          trials=tuple(Training(arm=f"{scheme} {rate:g}", seed=0, model=with_attention(scheme), training=replace(RECIPE, muon_lr=rate, seed=0))
                       for scheme in SCHEMES for rate in RATES)),
    Study(name="mla-quality", question="At equal parameters and tokens, which attention scheme predicts unseen text best?",
          trials=tuple(Training(arm=scheme, seed=seed, model=with_attention(scheme),
                                training=replace(RECIPE, muon_lr=BEST_RATE[scheme], seed=seed))
                       for scheme in SCHEMES for seed in SEEDS)),
]
