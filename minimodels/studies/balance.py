"""Chapter 08: what keeps experts equally busy, and what that costs in loss."""

from dataclasses import dataclass, replace

import torch

from minimodels.balance import max_violation
from minimodels.data import Batches, prepare
from minimodels.evaluate import evaluate
from minimodels.studies import Study, Training
from minimodels.studies.moe import MODELS, RECIPE
from minimodels.train import train

MODEL = MODELS["fine + shared"]
BALANCED = replace(RECIPE, muon_lr=0.01, eval_every=0)
EVERY = 10                                     # steps between two records of the load

SWEEP = {
    "none": dict(balance="none"),
    **{f"bias {rate:g}": dict(balance="bias", balance_rate=rate) for rate in (0.001, 0.003, 0.01, 0.03, 0.1)},
    **{f"{scope} {weight:g}": dict(balance=scope, balance_weight=weight) for scope in ("sequence", "batch") for weight in (0.001, 0.01, 0.1)},
    "bias 0.01 + sequence 0.0001": dict(balance="bias+sequence", balance_rate=0.01, balance_weight=1e-4),
}


@dataclass(frozen=True, kw_only=True)
class Balanced(Training):
    """Training of which the load is kept: MaxVio of each layer's batch every few steps, and each expert's load on the validation text."""

    def run(self) -> dict:
        data = prepare(self.data, self.model.vocab_size, max_bytes=self.max_bytes)
        model, config = self.build(), self.training
        batches = Batches(data.train, batch_size=config.batch_size, seq_len=config.seq_len, seed=self.seed)
        violation = [[record.step, *(round(max_violation(torch.tensor(load)), 3) for load in record.load)]
                     for record in train(model, batches, config) if record.step % EVERY == 0]
        score = evaluate(model, data.valid, n_bytes=data.valid_bytes, seq_len=config.seq_len)
        return {"bits_per_byte": round(score.bits_per_byte, 5), "max_violation": [round(max_violation(layer), 3) for layer in score.load],
                "load": [layer.tolist() for layer in score.load], "violation": violation}


STUDIES = [
    Study(name="balance-sweep", question="How balanced are the experts, and at which loss, by method and strength?",
          trials=tuple(Balanced(arm=arm, seed=0, model=MODEL, training=replace(BALANCED, seed=0, **changes)) for arm, changes in SWEEP.items())),
]
