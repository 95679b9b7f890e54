"""Chapter 07: one dense feed-forward network, split step by step into experts, at equal work for a token."""

import copy
from dataclasses import dataclass, replace

import torch

from minimodels.balance import max_violation
from minimodels.bugs import plant
from minimodels.config import ModelConfig, TrainConfig
from minimodels.data import Dataset
from minimodels.evaluate import evaluate
from minimodels.model import Transformer
from minimodels.moe import Gate, MoE
from minimodels.studies import Study, Training

YARDSTICK = ModelConfig.preset("yardstick")
RECIPE = replace(TrainConfig.preset("yardstick"), eval_every=300)
WIDTH = YARDSTICK.d_ff                         # hidden numbers that work on a token, in every arm
TIMES = 8                                      # hidden numbers in all, as a multiple of that


def split(n_experts: int, top_k: int, n_shared: int = 0, **more) -> ModelConfig:
    """The yardstick with experts in all layers but the first: n_experts + n_shared of one size, of which top_k + n_shared work on a token."""
    return replace(YARDSTICK, n_experts=n_experts, top_k=top_k, n_shared=n_shared, d_expert=WIDTH // (top_k + n_shared), **more)


# The order of DeepSeekMoE's Table 1. A weight normed over one expert is always 1 and would pass the gate no gradient.
MODELS = {
    "dense": YARDSTICK,
    "top-1": split(TIMES, 1, normalise_weights=False),
    "top-2": split(2 * TIMES, 2),
    "fine": split(4 * TIMES, 4),
    "fine + shared": split(4 * TIMES - 1, 3, n_shared=1),
}
BEST_RATE = {"top-1": 0.02, "top-2": 0.01, "fine": 0.02, "fine + shared": 0.01}   # each one's best in moe-rates; a test compares
RATES = (0.005, 0.01, 0.02, 0.04)              # Muon's peak rates that are tried, with seed 0; the dense model's are in mla-rates
SEEDS = (1, 2, 3, 4, 5)

SECONDS = replace(RECIPE, steps=1000, eval_every=0)          # dense steps in the time of 600 with experts: 1.6 to 1.7 times as many


@dataclass(frozen=True, kw_only=True)
class Split(Training):
    """Training of a model with experts, which is then scored with parts of it switched off."""

    def examine(self, model: Transformer, data: Dataset) -> dict:
        """max_violation: of each layer with experts, on the validation text. without: bits per byte with something switched off."""
        if not model.gates:
            return {}
        score = evaluate(model, data.valid, n_bytes=data.valid_bytes, seq_len=self.training.seq_len)
        without = {"first choice": bits(without_first_choice(model), data, self.training.seq_len)}
        if self.model.n_shared:
            without["shared"] = bits(without_shared(model), data, self.training.seq_len)
        return {"max_violation": [round(max_violation(load), 3) for load in score.load], "without": without}


class SkipFirst(Gate):
    """A gate that passes over each token's first choice and takes the next ones."""

    def choose(self, biased: torch.Tensor) -> torch.Tensor:
        return biased.topk(self.config.top_k + 1, dim=-1).indices[:, 1:]


def bits(model: Transformer, data: Dataset, seq_len: int) -> float:
    """Bits per byte of the validation text."""
    return round(evaluate(model, data.valid, n_bytes=data.valid_bytes, seq_len=seq_len).bits_per_byte, 5)


def without_first_choice(model: Transformer) -> Transformer:
    """A copy of model in which each token's first expert stays idle and one more works."""
    return plant(copy.deepcopy(model), SkipFirst)


def without_shared(model: Transformer) -> Transformer:
    """A copy of model whose shared experts are silent, with as many more routed experts a token. Source: DeepSeekMoE, section 4.5."""
    other = copy.deepcopy(model)
    for part in other.modules():
        if isinstance(part, MoE):
            part.shared = None
        if isinstance(part, Gate):
            part.config = replace(part.config, top_k=part.config.top_k + part.config.n_shared)
    return other


STUDIES = [
    Study(name="moe-rates", question="Which learning rate suits each way to split? The dense model's rates are those of mla-rates.",
          trials=tuple(Training(arm=f"{name} {rate:g}", seed=0, model=config, training=replace(RECIPE, muon_lr=rate, seed=0))
                       for name, config in MODELS.items() if name != "dense" for rate in RATES)),
    Study(name="moe-quality", question="At equal work for a token, which split predicts unseen text best? The dense model's runs are mla-quality's mha.",
          trials=tuple(Split(arm=name, seed=seed, model=MODELS[name], training=replace(RECIPE, muon_lr=BEST_RATE[name], seed=seed))
                       for seed in SEEDS for name in BEST_RATE)),
    Study(name="moe-seconds", question="How well does the dense model do with as many seconds as the experts take?",
          trials=tuple(Training(arm="dense", seed=seed, model=YARDSTICK, training=replace(SECONDS, seed=seed)) for seed in SEEDS[:3])),
    Study(name="moe-longer", question="With more text: does the gain of the experts grow? The dense model's runs are moe-seconds.",
          trials=tuple(Split(arm="fine + shared", seed=seed, model=MODELS["fine + shared"],
                             training=replace(SECONDS, muon_lr=BEST_RATE["fine + shared"], seed=seed)) for seed in SEEDS[:3])),
]
