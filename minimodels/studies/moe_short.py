"""Chapter 07: its short runs, that of planted bugs and that which the chapter makes while it is read."""

import copy
from dataclasses import dataclass, replace

from minimodels.balance import max_violation
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


STUDIES = [
    Study(name="moe-live", question="Where does the chapter's short run end, over seeds? The dense model's runs are mla-live's mha.",
          trials=tuple(Training(arm="fine", seed=seed, model=MODELS["fine"], training=replace(LIVE, seed=seed), max_bytes=LIVE_BYTES)
                       for seed in range(1, 7))),
    Study(name="moe-bugs", question="Does a planted bug in the gate show in the loss?",
          trials=tuple(Misrouted(arm=bug or "right", seed=seed, bug=bug, model=MODELS["fine"],
                                 training=replace(RECIPE, muon_lr=BEST_RATE["fine"], steps=200, eval_every=50, seed=seed))
                       for seed in (1, 2, 3) for bug in (None, *BUGS))),
]
