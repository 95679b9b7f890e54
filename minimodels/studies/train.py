"""Chapter 05: which optimizer, which rate, how large a model; what a run looks like from inside, and what a broken one looks like.

Every run is of the yardstick or of its family, on the standard library, by the yardstick's recipe but for what its arm says.
"""

import types
from dataclasses import dataclass, replace

import torch

from minimodels import optim
from minimodels.config import ModelConfig, TrainConfig
from minimodels.data import Batches, prepare
from minimodels.evaluate import evaluate
from minimodels.model import Transformer
from minimodels.studies import Study, Training
from minimodels.train import Trainer, train

YARDSTICK = ModelConfig.preset("yardstick")
RECIPE = replace(TrainConfig.preset("yardstick"), eval_every=300)

ADAMW = replace(RECIPE, optimizer="adamw")
ADAMW_RATES = (0.001, 0.002, 0.004)            # peak rates of AdamW that are tried; Muon's four are in mla-rates

SHORT = replace(RECIPE, steps=150, eval_every=50)  # what the broken runs break
TOO_HIGH = 8                                       # times the rates of the recipe, all three
ADAMW_BEST = 0.002                             # the best of them; a test compares
SEEDS = (1, 2, 3)

LIVE = replace(RECIPE, steps=80, eval_every=0)     # what the chapter trains while you read
LIVE_BYTES = 3_000_000

WIDTHS = (32, 48, 64, 96)                      # the sizes that the scaling law is fitted to; the yardstick, 128, is recorded in mla-quality
LARGER = 192                                   # a second prediction, beyond the yardstick

BATCHES = {2: (1, 2), 32: (1, 2)}              # windows a step, and the seeds; 8, the yardstick's, is recorded in mla-quality


def of_batch(windows: int, factor: float = 1.0) -> TrainConfig:
    """The yardstick's recipe at the same tokens with another batch; factor multiplies all three peak rates."""
    rates = {name: factor * getattr(RECIPE, name) for name in ("lr", "muon_lr", "embed_lr")}
    steps = RECIPE.steps * RECIPE.batch_size // windows
    return replace(RECIPE, batch_size=windows, steps=steps, eval_every=steps // 2, **rates)


def of_width(width: int) -> ModelConfig:
    """The yardstick's family: heads of 16, feed-forward part two and a half times as wide as the model, four layers."""
    return replace(YARDSTICK, d_model=width, n_heads=width // 16, d_ff=5 * width // 2)


# ---- what can be wrong

class InOrder(Batches):
    """Bug: windows come in the order of the text, so that a batch is eight neighbours."""

    def at(self, step: int) -> torch.Tensor:
        first = step * self.batch_size * self.seq_len
        return torch.from_numpy(self.tokens[first:first + self.batch_size * self.seq_len].astype("int64")).view(self.batch_size, -1)


class SameAgain(Batches):
    """Bug: the same 25 batches over and over, as if the corpus ended there."""

    def at(self, step: int) -> torch.Tensor:
        return super().at(step % 25)


class Unshifted(Transformer):
    """Bug: position i is scored on token i, which it has just read, and not on token i + 1."""

    def forward(self, tokens, cache=None):
        out = super().forward(tokens, cache)
        if cache is None:
            out.hidden[0] = out.hidden[0].roll(-1, dims=1)
        return out


def never_zeroed(model: Transformer) -> Transformer:
    """Bug: gradients of all steps add up, because nobody empties them."""
    model.zero_grad = types.MethodType(lambda self, set_to_none=True: None, model)
    return model


def unshifted(model: Transformer) -> Transformer:
    model.__class__ = Unshifted
    return model


@dataclass(frozen=True, kw_only=True)
class Watched(Training):
    """Training of which each step's loss and gradient norm are kept. batches: how the text is cut; spoil: what is done to the model before."""

    batches: type[Batches] = Batches
    spoil: object = None

    def settings(self) -> dict:
        spoilt = self.spoil.__name__ if self.spoil else None
        return super().settings() | {"batches": self.batches.__name__, "spoil": spoilt}

    def build(self) -> Transformer:
        return self.spoil(super().build()) if self.spoil else super().build()

    def run(self) -> dict:
        data = prepare(self.data, self.model.vocab_size, max_bytes=self.max_bytes)
        model, config = self.build(), self.training
        batches = self.batches(data.train, batch_size=config.batch_size, seq_len=config.seq_len, seed=self.seed)
        records = list(train(model, batches, config, valid=data))
        scored = [[r.step, round(r.valid_bits_per_byte, 4)] for r in records if r.valid_bits_per_byte is not None]
        return {"bits_per_byte": scored[-1][1], "n_params": self.model.n_params,
                "bytes_per_token": round(data.valid_bytes / len(data.valid), 4), "curve": scored,
                "loss": [round(r.loss, 4) for r in records], "grad_norm": [round(r.grad_norm, 4) for r in records]}


@dataclass(frozen=True, kw_only=True)
class SplitRates(Training):
    """Training with AdamW alone, whose embedding learns at training.embed_lr, as it does beside Muon, and all else at training.lr.

    norms: their peak rate, if it is another.
    """

    norms: float | None = None

    def settings(self) -> dict:
        return super().settings() | {"embedding": "embed_lr"} | ({"norms": self.norms} if self.norms else {})

    def run(self) -> dict:
        data = prepare(self.data, self.model.vocab_size, max_bytes=self.max_bytes)
        model, config = self.build(), self.training
        trainer = Trainer(model, Batches(data.train, batch_size=config.batch_size, seq_len=config.seq_len, seed=self.seed), config)
        trainer.peaks[0][0] = config.embed_lr                   # make_optimizers puts embedding and head first, then the norms
        trainer.peaks[0][1] = self.norms or trainer.peaks[0][1]
        for step in range(1, config.steps + 1):
            trainer.step(step)
        score = evaluate(model, data.valid, n_bytes=data.valid_bytes, seq_len=config.seq_len)
        return {"bits_per_byte": round(score.bits_per_byte, 5), "n_params": self.model.n_params}


def same_size(gradient: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """What stands in for orthogonalise: matrices (..., n, m) scaled to the Frobenius norm that Muon's step has, their directions left as they are."""
    norm = gradient.norm(dim=(-2, -1), keepdim=True)
    return gradient / (norm + 1e-7) * min(gradient.shape[-2:]) ** 0.5


@dataclass(frozen=True, kw_only=True)
class SameSize(Training):
    """Training with Muon, whose steps keep their size and lose their equal lengths in all directions."""

    def settings(self) -> dict:
        return super().settings() | {"orthogonalise": "same_size"}

    def run(self) -> dict:
        ours, optim.orthogonalise = optim.orthogonalise, same_size
        try:
            return super().run()
        finally:
            optim.orthogonalise = ours


@dataclass(frozen=True, kw_only=True)
class Forgetful(Training):
    """Training that loses the optimizers' memory after half of its steps, or keeps it."""

    forgets: bool = True

    def settings(self) -> dict:
        return super().settings() | {"forgets": self.forgets}

    def run(self) -> dict:
        data = prepare(self.data, self.model.vocab_size, max_bytes=self.max_bytes)
        model, config = self.build(), self.training
        batches = Batches(data.train, batch_size=config.batch_size, seq_len=config.seq_len, seed=self.seed)
        trainer, losses = Trainer(model, batches, config), []
        for step in range(1, config.steps + 1):
            if self.forgets and step == config.steps // 2 + 1:
                trainer = Trainer(model, batches, config)
            losses.append(round(trainer.step(step).loss, 4))
        score = evaluate(model, data.valid, n_bytes=data.valid_bytes, seq_len=config.seq_len)
        return {"bits_per_byte": round(score.bits_per_byte, 5), "loss": losses}


def short(arm: str, seed: int, kind: type[Training] = Training, *, more: dict | None = None, **changes) -> Training:
    """The chapter's short run with changes to its recipe. more: what the kind of training takes besides."""
    return kind(arm=arm, seed=seed, model=YARDSTICK, training=replace(LIVE, seed=seed, **changes), max_bytes=LIVE_BYTES, **(more or {}))


SAME_SIZE_BEST = 0.0025                        # the best of the rates tried for it; a test compares
TIGHT, NO_CLIP = 0.01, 1e9                     # a clip that is far too low, and one that never bites

FAULTS = {
    "right": {},
    "rate too high": dict(training=replace(SHORT, **{name: TOO_HIGH * getattr(SHORT, name) for name in ("lr", "muon_lr", "embed_lr")}, seed=1)),
    "text in order": dict(batches=InOrder),
    "gradients never zeroed": dict(spoil=never_zeroed),
    "the same batches again": dict(batches=SameAgain),
    "targets not shifted": dict(spoil=unshifted),
}

STUDIES = [
    Study(name="train-broken", question="What does the loss look like when something is wrong?",
          trials=tuple(Watched(arm=arm, seed=1, model=YARDSTICK, **{"training": replace(SHORT, seed=1)} | fault) for arm, fault in FAULTS.items())),
    Study(name="train-rates", question="Which learning rate suits AdamW?",
          trials=tuple(Training(arm=f"adamw {rate:g}", seed=0, model=YARDSTICK, training=replace(ADAMW, lr=rate, seed=0)) for rate in ADAMW_RATES)),
    Study(name="train-optimizers", question="At its best rate, how well does AdamW train the yardstick? Muon's runs are the arm mha of mla-quality.",
          trials=tuple(Training(arm="adamw", seed=seed, model=YARDSTICK, training=replace(ADAMW, lr=ADAMW_BEST, seed=seed)) for seed in SEEDS)),
    Study(name="train-embedding", question="How much of the gap is the embedding's rate, which Muon's recipe sets apart?",
          trials=tuple(SplitRates(arm="adamw, embedding apart", seed=seed, model=YARDSTICK, training=replace(ADAMW, lr=ADAMW_BEST, seed=seed))
                       for seed in SEEDS)
          + tuple(SplitRates(arm="adamw, embedding and norms apart", seed=seed, model=YARDSTICK, training=replace(ADAMW, lr=ADAMW_BEST, seed=seed), norms=RECIPE.lr)
                  for seed in SEEDS)),
    Study(name="train-live", question="Where does the chapter's short run end, over seeds?",
          trials=tuple(short("yardstick", seed) for seed in range(1, 6))),
    Study(name="train-directions", question="Is it the equal lengths in all directions that help Muon? Its own runs of 80 steps are those of train-live.",
          trials=tuple(short(f"Muon {rate:g}", 0, muon_lr=rate) for rate in (0.005, 0.01, 0.02))
          + tuple(short(f"same size {rate:g}", 0, SameSize, muon_lr=rate) for rate in (0.001, SAME_SIZE_BEST, 0.005, 0.01))
          + tuple(short(f"same size {SAME_SIZE_BEST:g}", seed, SameSize, muon_lr=SAME_SIZE_BEST) for seed in SEEDS)),
    Study(name="train-memory", question="What does it cost to lose the optimizers' memory in the middle of the short run?",
          trials=tuple(short(arm, seed, Forgetful, more={"forgets": forgets}) for seed in SEEDS for arm, forgets in (("keeps", False), ("forgets", True)))),
    Study(name="train-clip", question="What does a clip do to a right run, and to one whose gradients are never zeroed? Right runs with 1.0 are those of train-live.",
          trials=tuple(trial for seed in SEEDS for trial in (
              short(f"clip {TIGHT:g}", seed, clip=TIGHT), short("no clip", seed, clip=NO_CLIP),
              short("never zeroed", seed, Watched, more={"spoil": never_zeroed}, eval_every=LIVE.steps),
              short("never zeroed, no clip", seed, Watched, more={"spoil": never_zeroed}, eval_every=LIVE.steps, clip=NO_CLIP)))),
    Study(name="train-sizes", question="How does the score depend on the model's size, at equal tokens?",
          trials=tuple(Training(arm=f"D={width}", seed=seed, model=of_width(width), training=replace(RECIPE, seed=seed))
                       for seed in (1, 2) for width in WIDTHS)),
    Study(name="train-larger", question="Does the law that fits the smaller sizes hold for one beyond the yardstick?",
          trials=tuple(Training(arm=f"D={LARGER}", seed=seed, model=of_width(LARGER), training=replace(RECIPE, seed=seed)) for seed in (1, 2))),
    Study(name="train-batch", question="At equal tokens, what does another batch do, with rates by the square root of the batch and with the same rates?",
          trials=tuple(Training(arm=f"{windows} windows, root", seed=seed, model=YARDSTICK,
                                training=replace(of_batch(windows, (windows / RECIPE.batch_size) ** 0.5), seed=seed))
                       for windows, seeds in BATCHES.items() for seed in seeds)
          + tuple(Training(arm=f"{windows} windows, same", seed=1, model=YARDSTICK, training=replace(of_batch(windows), seed=1)) for windows in BATCHES)),
    Study(name="train-formats", question="What does bf16 do to the score? fp32's runs are the arm mha of mla-quality.",
          trials=tuple(Training(arm="bf16", seed=seed, model=YARDSTICK, training=replace(RECIPE, dtype="bf16", seed=seed)) for seed in SEEDS)),
    Study(name="train-warmup", question="What does the yardstick lose without warm-up? The runs with it are the arm mha of mla-quality.",
          trials=tuple(Training(arm="no warm-up", seed=seed, model=YARDSTICK, training=replace(RECIPE, warmup=0.0, seed=seed)) for seed in SEEDS)),
]
