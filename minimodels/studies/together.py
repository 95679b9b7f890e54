"""Chapter 13: the efficiency ladder of each tier, every rung trained alike, and timed in turns with the others."""

import statistics
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from minimodels import cost
from minimodels.data import Dataset
from minimodels.devices import choose_device
from minimodels.evaluate import acceptance, windows
from minimodels.fp8 import convert
from minimodels.generate import decode
from minimodels.ladder import FULL, Rung, rungs
from minimodels.model import Transformer
from minimodels.studies import Study, Training, recorded
from minimodels.studies.cost import whole_step
from minimodels.studies.fp8 import kept_for_backward
from minimodels.timing import interleaved

CPU = {rung.name: rung for rung in rungs("cpu")}
RATES = (0.01, 0.02)                # Muon's peak rates that are tried, with seed 0; for the dense model and MLA they are in mla-rates
BEST_RATE = {"dense": 0.01, "+ MLA": 0.02, "+ experts": 0.01, "+ MTP": 0.01, "+ FP8": 0.01}    # of mla-rates and ladder-rates; a test compares
SEEDS = (1, 2, 3)
BATCHES = (1, 32)                   # texts that are written side by side
PROMPT, NEW = 64, 48                # tokens of a prompt, and tokens written after it
DRAFTING = "{}, drafting"           # a rung whose MTP module drafts while it writes
LIVE_STEPS, LIVE_BYTES = 30, 3_000_000    # what the chapter trains while you read


def name_of(kind: str, tier: str) -> str:
    """The study's name: the tier `cpu` is the book's own."""
    return kind if tier == "cpu" else f"{kind}-{tier}"


def climbed(tier: str) -> list[Rung]:
    """The rungs as they are trained: on `cpu` each with the best of the rates that were tried, elsewhere with the preset's."""
    return [replace(rung, training=replace(rung.training, muon_lr=BEST_RATE[rung.name])) if tier == "cpu" else rung for rung in rungs(tier)]


def live() -> dict[str, Rung]:
    """What the chapter trains while you read: the first rung and the last, for LIVE_STEPS steps."""
    dense, *_, top = climbed("cpu")
    return {name: replace(rung, training=replace(rung.training, steps=LIVE_STEPS)) for name, rung in {"dense": dense, "top": top}.items()}


@dataclass(frozen=True, kw_only=True)
class Climb(Training):
    """A rung: trained, scored, and asked what a step of it keeps and how many of its drafts would stand."""

    device: str = "cpu"

    def build(self) -> Transformer:
        return super().build().to(choose_device(self.device))

    def examine(self, model: Transformer, data: Dataset) -> dict:
        """kept_bytes: by a forward pass over one batch, for the backward pass. acceptance: greedy, on unseen text, a depth each."""
        T, n = self.training.seq_len, self.training.micro_batch or self.training.batch_size
        kept = kept_for_backward(model, next(windows(data.valid, T, n)).to(self.device))
        with torch.inference_mode():
            stands = acceptance(model, next(windows(data.valid, T, 64)).to(self.device))
        return {"kept_bytes": sum(kept.values()), "acceptance": [round(share.mean().item(), 4) for share in stands]}


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Time some rungs of a tier in turns: a step of training, and a pass of decoding, for each batch.

    Weights are new, which take as long as others; drafts of new weights do not stand, so a pass that drafts writes one token.
    """

    arm: str
    seed: int
    names: tuple[str, ...]
    tier: str = "cpu"
    device: str = "cpu"
    rounds: int = 7

    @property
    def rungs(self) -> list[Rung]:
        return [rung for rung in rungs(self.tier) if rung.name in self.names]

    def settings(self) -> dict:
        return {"models": {rung.name: rung.model.to_dict() for rung in self.rungs}, "batches": list(BATCHES), "prompt": PROMPT, "new": NEW,
                "rounds": self.rounds}

    def run(self) -> dict:
        torch.manual_seed(self.seed)
        device = choose_device(self.device)
        steps = {rung.name: whole_step(rung.model, rung.training, device) for rung in self.rungs}
        times = interleaved(steps, rounds=self.rounds)
        del steps                   # and the memory of their optimizers
        models = {rung.name: Transformer(rung.model).to(device).eval() for rung in self.rungs}
        for rung in self.rungs:
            if rung.training.fp8:
                convert(models[rung.name])
        return {"step_ms": {name: [round(ms, 2) for ms in each] for name, each in times.items()},
                "pass_ms": {B: self.passes(models, B) for B in BATCHES}}

    def passes(self, models: dict[str, Transformer], batch_size: int) -> dict[str, list[float]]:
        """Milliseconds of one pass behind the prompt, a figure a round; of models with a module also for a pass that checks and makes drafts."""
        ways = {name: partial(decode, model) for name, model in models.items()}
        ways |= {DRAFTING.format(name): partial(decode, model, draft="mtp") for name, model in models.items() if model.config.mtp_depth}
        prompts = torch.randint(1, self.rungs[0].model.vocab_size, (batch_size, PROMPT))
        times = {name: [] for name in ways}
        for _ in range(self.rounds):
            for name, write in ways.items():
                out = write(prompts, max_new_tokens=NEW)
                times[name].append(round(1e3 * (out.seconds - out.prefill_seconds) / out.n_passes, 4))
        return times


# ---- the table

@dataclass(frozen=True, kw_only=True)
class Measured:
    """A rung as it was recorded. What was measured is a list, a figure for each seed; the rest is counted.

    flops: to train on one token, with MTP modules. cache_bytes: of one token of context, at 2 bytes a value. training_bytes: weights,
    gradients, optimizer and what one forward pass keeps. train_tokens_per_s: a step's tokens by its time. decode_tokens_per_s: new
    tokens a second, by batch. drafting_tokens_per_s: the same with drafts, of which as many stand as on unseen text; none without modules.
    """

    name: str
    bits_per_byte: list[float]
    n_params: int
    n_active: int
    flops: float
    cache_bytes: int
    training_bytes: list[int]
    train_tokens_per_s: list[float]
    decode_tokens_per_s: dict[int, list[float]]
    drafting_tokens_per_s: dict[int, list[float]]
    acceptance: list[float]


def measured(tier: str = "cpu", folder: Path | None = None) -> list[Measured]:
    """The recorded ladder of a tier, from the bottom up. Raises FileNotFoundError with the command that records it."""
    runs, paces = (recorded(name_of(kind, tier), folder)["trials"] for kind in ("ladder", "ladder-pace"))
    return [of_rung(rung, [run for run in runs if run["arm"] == rung.name], [pace for pace in paces if rung.name in pace["step_ms"]])
            for rung in rungs(tier)]


def of_rung(rung: Rung, runs: list[dict], paces: list[dict]) -> Measured:
    """One row: a rung, its trained runs, and the timings in which it took part."""
    model, training = rung.model, rung.training
    memory = sum(cost.training_bytes(model, training).values())
    stands = [run["acceptance"][0] for run in runs if run["acceptance"]]

    def speed(way: str, n: float) -> dict[int, list[float]]:
        """New tokens a second, when a pass writes n for each text."""
        return {B: [1e3 * B * n / statistics.median(pace["pass_ms"][str(B)][way]) for pace in paces] for B in BATCHES}

    return Measured(
        name=rung.name, bits_per_byte=[run["bits_per_byte"] for run in runs], n_params=model.n_params, n_active=model.n_active_params,
        flops=cost.flops_per_token(model, seq_len=training.seq_len, mtp=True), cache_bytes=cost.cache_bytes(model, 1),
        training_bytes=[memory + run["kept_bytes"] for run in runs],
        train_tokens_per_s=[1e3 * training.batch_size * training.seq_len / statistics.median(pace["step_ms"][rung.name]) for pace in paces],
        decode_tokens_per_s=speed(rung.name, 1), acceptance=stands,
        drafting_tokens_per_s=speed(DRAFTING.format(rung.name), 1 + statistics.mean(stands)) if stands else {})


def rows(table: list[Measured]) -> list[dict[str, str]]:
    """The table as it is printed: means of the seeds, with the spread of the score."""
    mean = statistics.mean
    return [{"rung": row.name,
             "bits per byte": f"{mean(row.bits_per_byte):.4f}", "its seeds": f"{min(row.bits_per_byte):.4f} to {max(row.bits_per_byte):.4f}",
             "parameters": f"{row.n_params / 1e6:.2f} M", "active": f"{row.n_active / 1e6:.2f} M",
             "MFLOPs a token": f"{row.flops / 1e6:.2f}", "cache a token": f"{row.cache_bytes:,} B",
             "memory to train": f"{mean(row.training_bytes) / 1e6:,.0f} MB", "trains": f"{mean(row.train_tokens_per_s):,.0f} tokens/s",
             **{f"writes, {B} text{'s' * (B > 1)}": f"{mean(each):,.0f} tokens/s" for B, each in row.decode_tokens_per_s.items()},
             "the same, drafting": ", ".join(f"{mean(each):,.0f}" for each in row.drafting_tokens_per_s.values()) or "-"} for row in table]


# ---- studies

def ladder_studies(tier: str) -> list[Study]:
    """What `minimodels ladder` runs for a tier. On a GPU trials run one after another, because one fills it."""
    device = "cpu" if tier == "cpu" else "cuda"
    names = [rung.name for rung in rungs(tier)]
    together = {"all": tuple(names)} if tier == "cpu" else {name: (name,) for name in names}
    return [
        Study(name=name_of("ladder", tier), is_planned=tier != "cpu", is_timing=device == "cuda",
              question=f"What does each technique change, one rung after another, on the tier {tier}?",
              trials=tuple(Climb(arm=rung.name, seed=seed, model=rung.model, training=replace(rung.training, seed=seed), device=device)
                           for seed in SEEDS for rung in climbed(tier))),
        Study(name=name_of("ladder-pace", tier), is_planned=tier != "cpu", is_timing=True,
              question=f"How fast does each rung learn and write, on the tier {tier}?",
              trials=tuple(Pace(arm=arm, seed=seed, names=some, tier=tier, device=device) for seed in SEEDS for arm, some in together.items())),
    ]


STUDIES = [
    Study(name="ladder-live", question="Where do the chapter's short runs end, over seeds?",
          trials=tuple(Training(arm=arm, seed=seed, model=rung.model, training=replace(rung.training, seed=seed), max_bytes=LIVE_BYTES)
                       for seed in (1, 2, 3, 4, 5, 6) for arm, rung in live().items())),
    Study(name="ladder-rates", question="Which learning rate suits each rung with experts?",
          trials=tuple(Training(arm=f"{name} {rate:g}", seed=0, model=CPU[name].model, training=replace(CPU[name].training, muon_lr=rate, seed=0))
                       for name in ("+ experts", "+ MTP") for rate in RATES)),
    *(study for tier in FULL for study in ladder_studies(tier)),
]
