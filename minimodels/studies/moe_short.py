"""Chapter 07: its short runs, those of planted bugs, that which the chapter makes while it is read, and experts without a gate's choice."""

import copy
from dataclasses import dataclass, replace

import torch

from minimodels.balance import max_violation
from minimodels.bugs import plant
from minimodels.bugs.moe import BUGS
from minimodels.data import Dataset
from minimodels.evaluate import evaluate
from minimodels.model import Transformer
from minimodels.moe import Gate
from minimodels.studies import Planted, Study, Training
from minimodels.studies.mla import LIVE, LIVE_BYTES
from minimodels.studies.moe import BEST_RATE, MODELS, RECIPE, bits


@dataclass(frozen=True, kw_only=True)
class Misrouted(Planted):
    """Training with a bug planted in every gate, and then read in other company, and by gates without the bug."""

    BUGS = BUGS

    def examine(self, model: Transformer, data: Dataset) -> dict:
        """alone: bits per byte read a window at a time. mended: read by right gates, with the weights as they are. max_violation: a layer."""
        T = self.training.seq_len
        alone, together = (evaluate(model, data.valid, n_bytes=data.valid_bytes, seq_len=T, batch_size=n) for n in (1, 32))
        return {"alone": round(alone.bits_per_byte, 5), "mended": bits(mended(model), data, T),
                "max_violation": [round(max_violation(load), 3) for load in together.load]}


def mended(model: Transformer) -> Transformer:
    """A copy of model whose gates are right, and whose weights are the same."""
    other = copy.deepcopy(model)
    for gate in other.gates:
        gate.__class__ = Gate
    return other


class Hashed(Gate):
    """A gate that chooses by the token's number alone: four of 32 experts, of which there are eight such teams. It still weighs."""

    ids: torch.Tensor                                    # (B, T), of the forward pass under way

    def choose(self, biased: torch.Tensor) -> torch.Tensor:
        team = self.ids.flatten() % 8                    # (T)
        return team[:, None] + torch.tensor([0, 8, 16, 24])


@dataclass(frozen=True, kw_only=True)
class WithoutChoice(Training):
    """Training of a model whose experts are chosen by the token's number. Source: the Hash row of DeepSeekMoE, Table 1, there with one expert."""

    def build(self) -> Transformer:
        model = plant(super().build(), Hashed)
        model.register_forward_pre_hook(lambda module, args: setattr(Hashed, "ids", args[0]))
        return model


STUDIES = [
    Study(name="moe-live", question="Where does the chapter's short run end, over seeds? The dense model's runs are mla-live's mha.",
          trials=tuple(Training(arm="fine", seed=seed, model=MODELS["fine"], training=replace(LIVE, seed=seed), max_bytes=LIVE_BYTES)
                       for seed in range(1, 7))),
    Study(name="moe-bugs", question="Does a planted bug in the gate show in the loss?",
          trials=tuple(Misrouted(arm=bug or "right", seed=seed, bug=bug, model=MODELS["fine"],
                                 training=replace(RECIPE, muon_lr=BEST_RATE["fine"], steps=200, eval_every=50, seed=seed))
                       for seed in (1, 2, 3) for bug in (None, *BUGS))),
    Study(name="moe-hash", question="What is a learnt choice worth? The rivals are moe-live's fine and moe-quality's.",
          trials=(*(WithoutChoice(arm="60 steps", seed=seed, model=MODELS["fine"], training=replace(LIVE, seed=seed), max_bytes=LIVE_BYTES)
                    for seed in (1, 2, 3)),
                  *(WithoutChoice(arm="600 steps", seed=seed, model=MODELS["fine"], training=replace(RECIPE, muon_lr=BEST_RATE["fine"], seed=seed))
                    for seed in (1, 2, 3)))),
]
