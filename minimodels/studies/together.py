"""Chapter 13: the efficiency ladder of a tier, every rung trained alike, and timed in turns with the others."""

from dataclasses import dataclass, replace

import torch

from minimodels.data import Dataset
from minimodels.evaluate import acceptance, windows
from minimodels.fp8 import convert
from minimodels.generate import decode
from minimodels.ladder import rungs
from minimodels.model import Transformer
from minimodels.studies import Study, Training
from minimodels.studies.cost import whole_step
from minimodels.studies.fp8 import kept_for_backward
from minimodels.timing import interleaved

CPU = {rung.name: rung for rung in rungs("cpu")}
RATES = (0.01, 0.02)                # Muon's peak rates that are tried, with seed 0; for the dense model and MLA they are in mla-rates
BEST_RATE = {"dense": 0.01, "+ MLA": 0.02, "+ experts": 0.01, "+ MTP": 0.01, "+ FP8": 0.01}    # of mla-rates and ladder-rates; a test compares
SEEDS = (1, 2, 3)
BATCHES = (1, 32)                   # texts that are written side by side
PROMPT, NEW = 64, 48                # tokens of a prompt, and tokens written after it


@dataclass(frozen=True, kw_only=True)
class Climb(Training):
    """A rung: trained, scored, and asked what a step of it keeps and how many of its drafts would stand."""

    def examine(self, model: Transformer, data: Dataset) -> dict:
        """kept_bytes: by a forward pass over one batch, for the backward pass. acceptance: greedy, on unseen text, a depth each."""
        T = self.training.seq_len
        kept = kept_for_backward(model, next(windows(data.valid, T, self.training.batch_size)))
        with torch.inference_mode():
            stands = acceptance(model, next(windows(data.valid, T, 64)))
        return {"kept_bytes": sum(kept.values()), "acceptance": [round(share.mean().item(), 4) for share in stands]}


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Time every rung in turns: a step of training, and a pass of decoding, for each batch. Weights are new, which take as long as others."""

    arm: str
    seed: int
    rounds: int = 7

    def settings(self) -> dict:
        return {"models": {name: rung.model.to_dict() for name, rung in CPU.items()}, "batches": list(BATCHES), "prompt": PROMPT, "new": NEW,
                "rounds": self.rounds}

    def run(self) -> dict:
        torch.manual_seed(self.seed)
        steps = interleaved({name: whole_step(rung.model, rung.training) for name, rung in CPU.items()}, rounds=self.rounds)
        return {"step_ms": {name: [round(ms, 2) for ms in each] for name, each in steps.items()},
                "pass_ms": {B: self.passes(B) for B in BATCHES}}

    def passes(self, batch_size: int) -> dict[str, list[float]]:
        """Milliseconds of one pass behind the prompt, a figure a round. `+ MTP, drafting` is a pass that checks a draft and makes one."""
        models = {name: Transformer(rung.model).eval() for name, rung in CPU.items()}
        convert(models["+ FP8"])
        ways = {name: (model, None) for name, model in models.items()} | {"+ MTP, drafting": (models["+ MTP"], "mtp")}
        prompts = torch.randint(1, models["dense"].config.vocab_size, (batch_size, PROMPT))
        times = {name: [] for name in ways}
        for _ in range(self.rounds):
            for name, (model, draft) in ways.items():
                out = decode(model, prompts, max_new_tokens=NEW, draft=draft)
                times[name].append(round(1e3 * (out.seconds - out.prefill_seconds) / out.n_passes, 4))
        return times


STUDIES = [
    Study(name="ladder-rates", is_planned=True, question="Which learning rate suits each rung with experts?",
          trials=tuple(Training(arm=f"{name} {rate:g}", seed=0, model=CPU[name].model, training=replace(CPU[name].training, muon_lr=rate, seed=0))
                       for name in ("+ experts", "+ MTP") for rate in RATES)),
    Study(name="ladder", is_planned=True, question="What does each technique change, one rung after another?",
          trials=tuple(Climb(arm=name, seed=seed, model=rung.model, training=replace(rung.training, muon_lr=BEST_RATE[name], seed=seed))
                       for seed in SEEDS for name, rung in CPU.items())),
    Study(name="ladder-pace", is_planned=True, question="How fast does each rung learn and write?", is_timing=True,
          trials=tuple(Pace(arm="all", seed=seed) for seed in SEEDS)),
]
