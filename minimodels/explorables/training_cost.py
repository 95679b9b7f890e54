"""From the size of a model to the rent of its training: five numbers multiplied, beside four runs that were published."""

from dataclasses import replace

import traitlets as t

from minimodels.config import ModelConfig
from minimodels.cost import PETAFLOP_S_DAY, flops_per_token
from minimodels.explorables.base import COUNTS, Explorable, figures, table, with_unit

FLOPS = ("FLOP", "KFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP")
RUN = ("total_billion", "active_percent", "scores_gflop", "tokens_trillion", "peak_tflops", "utilisation_percent", "n_gpus")
CHIPS = {"125": "V100", "312": "A100", "989": "H100"}    # by their peak in dense 16-bit products, TFLOPS; the H800 has the H100's

V3 = ModelConfig.preset("deepseek_v3")
V2 = replace(V3, n_layers=60, d_model=5120, vocab_size=102_400, d_ff=12_288, n_dense_layers=1, n_experts=160, n_shared=2, top_k=6,
             d_expert=1536, gate="softmax", mtp_depth=0)
LLAMA_405B = ModelConfig(vocab_size=128_256, d_model=16_384, n_layers=126, attention="gqa", n_heads=128, n_kv_heads=8, d_head=128,
                         d_value=128, d_ff=53_248, n_experts=0, mtp_depth=0, tie_embeddings=False)


def _counted(config: ModelConfig, seq_len: int) -> dict:
    """Size, active share and scores of a configuration. The input embedding is looked up and not multiplied, so it counts as idle.

    Scores do not grow with the active share, so they are GFLOP a token and not a part of the other work.
    """
    active = config.n_active_params - config.parameters["embedding"] - config.parameters["norms"]
    per_token = flops_per_token(config, seq_len=seq_len)
    return {"total_billion": round(config.n_params / 1e9, 2), "active_percent": round(100 * active / config.n_params, 3),
            "scores_gflop": round((per_token - 6 * active) / 1e9, 2)}


# Sources: V2, sections 3.1 and 3.2.3 (its utilisation follows from its hours); V3, Table 1 and section 3.1, and for the utilisation ISCA 2025,
# Table 4; GPT-3, appendix D, which leaves scores out, and for the utilisation PaLM, Table 3; Llama 3, Tables 3 and 4, and its model card.
# Peaks: dense 16-bit products, from NVIDIA's data sheets. Numbers of GPUs that were not published are V3's.
PRESETS = {
    "DeepSeek-V2": _counted(V2, 4096) | dict(tokens_trillion=8.1, peak_tflops=989.0, utilisation_percent=25.2, n_gpus=2048,
                                             published="1.4 million GPU-hours; 2,048 GPUs are assumed"),
    "DeepSeek-V3": _counted(V3, 4096) | dict(tokens_trillion=14.8, peak_tflops=989.0, utilisation_percent=38.94, n_gpus=2048,
                                             published="2.664 million GPU-hours"),
    "GPT-3": dict(total_billion=175.0, active_percent=100.0, scores_gflop=0.0, tokens_trillion=0.3, peak_tflops=125.0,
                  utilisation_percent=21.3, n_gpus=2048, published="3,640 petaflop/s-days; 2,048 GPUs are assumed"),
    "Llama-3.1-405B": _counted(LLAMA_405B, 8192) | dict(tokens_trillion=15.6, peak_tflops=989.0, utilisation_percent=41.0, n_gpus=16_384,
                                                        published="30.84 million GPU-hours"),
}


class TrainingCost(Explorable):
    """Days and dollars of one training run.

        FLOPs a token = 6 x active parameters + scores      GPU-hours = FLOPs a token x tokens / (peak x utilisation) / 3600

    Left out: everything but the run itself. active_percent: of the parameters, those that are multiplied with a token.
    scores_gflop: what attention's scores add to a token. Utilisation is of the peak of 16-bit products. Source: Kaplan et al. (2020) for the six.
    """

    name = "training_cost"

    total_billion = t.Float(min=0.0001).tag(sync=True)
    active_percent = t.Float(min=0.01, max=100.0).tag(sync=True)
    scores_gflop = t.Float(min=0.0).tag(sync=True)
    tokens_trillion = t.Float(min=1e-6).tag(sync=True)
    peak_tflops = t.Float(min=0.001).tag(sync=True)                  # of one GPU
    utilisation_percent = t.Float(min=0.1, max=100.0).tag(sync=True)
    n_gpus = t.Int(min=1).tag(sync=True)
    price_usd = t.Float(2.0, min=0.01).tag(sync=True)                # a GPU-hour
    presets = t.Dict(PRESETS).tag(sync=True)
    chips = t.Dict(CHIPS).tag(sync=True)

    def __init__(self, **values):
        """What values do not name is DeepSeek-V3's."""
        super().__init__(**{field: PRESETS["DeepSeek-V3"][field] for field in RUN} | values)

    @classmethod
    def preset(cls, name: str, **values) -> "TrainingCost":
        """The run of the model called name; values go on top. Raises ValueError with the names that exist."""
        if name not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
        return cls(**{field: PRESETS[name][field] for field in RUN} | values)

    @property
    def model(self) -> str | None:
        """The preset that has these numbers, or None."""
        return next((name for name, p in self.presets.items() if all(p[f] == getattr(self, f) for f in RUN)), None)

    def run(self) -> dict[str, float]:
        """What these numbers come to: flops_per_token, petaflop_s_days, gpu_hours, days, dollars."""
        return computed({field: getattr(self, field) for field in RUN}, self.price_usd)

    def summary(self) -> str:
        r = self.run()
        return (f"Training {figures(self.total_billion)} billion parameters on {figures(self.tokens_trillion)} trillion tokens: "
                f"{with_unit(r['gpu_hours'], COUNTS)} GPU-hours, {figures(r['days'])} days, ${with_unit(r['dollars'], COUNTS)}")

    def fallback(self) -> str:
        runs = [(name, computed(p, self.price_usd), p["published"]) for name, p in self.presets.items()]
        if self.model is None:
            runs.insert(0, ("yours", self.run(), ""))
        rows = [[name, with_unit(r["flops_per_token"], FLOPS), with_unit(r["gpu_hours"], COUNTS), figures(r["days"]),
                 f"${with_unit(r['dollars'], COUNTS)}", published] for name, r, published in runs]
        return table(f"One training run, at ${figures(self.price_usd)} a GPU-hour, by arithmetic from published sizes",
                     ["Run", "A token", "GPU-hours", "Days", "Rent", "Published"], rows)


def computed(p: dict, price_usd: float) -> dict[str, float]:
    """The same for any run p with the fields of RUN; training_cost.js does these operations in this order."""
    per_token = 6 * p["total_billion"] * 1e9 * p["active_percent"] / 100 + p["scores_gflop"] * 1e9
    flops = per_token * p["tokens_trillion"] * 1e12
    hours = flops / (p["peak_tflops"] * 1e12 * p["utilisation_percent"] / 100) / 3600
    return {"flops_per_token": per_token, "petaflop_s_days": flops / PETAFLOP_S_DAY, "gpu_hours": hours, "days": hours / p["n_gpus"] / 24,
            "dollars": hours * price_usd}
