"""Chapter 04: the first test of any model. Can it learn one page by heart, from which start, with which part missing or broken?"""

import codecs
import contextlib
import io
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from minimodels.bugs import plant
from minimodels.bugs.model import BUGS
from minimodels.config import TrainConfig
from minimodels.generate import decode
from minimodels.model import Transformer
from minimodels.studies import Study
from minimodels.studies.model import SHAPES, YARDSTICK, PostNorm, Silent, arm_of
from minimodels.train import train

PAGE_BYTES = 256
OVERFIT = TrainConfig(steps=60, batch_size=1, seq_len=PAGE_BYTES, warmup=0.0, decay=0.0, weight_decay=0.0)
LEARNT = 0.1    # nats a byte; a model that knows a page by heart loses less


def page() -> str:
    """The Zen of Python, by Tim Peters: a text that every Python carries, whatever its version. Its first PAGE_BYTES bytes."""
    with contextlib.redirect_stdout(io.StringIO()):    # importing it prints it
        import this
    return codecs.decode(this.s, "rot13")[:PAGE_BYTES]


class OneBatch:
    """Batches that are all the same one: tokens (B, T)."""

    def __init__(self, tokens: Tensor):
        self.tokens = tokens

    def at(self, step: int) -> Tensor:
        """The batch, whatever the step."""
        return self.tokens


@dataclass(frozen=True, kw_only=True)
class Overfit:
    """Train the yardstick on one page, whose bytes are its tokens, with a bug planted in each layer or with none."""

    arm: str
    seed: int
    bug: str | None = None

    def settings(self) -> dict:
        training = {name: value for name, value in OVERFIT.to_dict().items() if name != "seed"}
        return {"model": YARDSTICK.to_dict(), "training": training, "learnt": LEARNT, "bug": self.bug}

    def build(self) -> Transformer:
        torch.manual_seed(self.seed)
        model = Transformer(YARDSTICK)
        return plant(model, BUGS[self.bug]) if self.bug else model

    def run(self) -> dict:
        curve = learn_page(self.build())
        return {"steps_to_learn": steps_to_learn(curve), "curve": [round(loss, 4) for loss in curve]}


def learn_page(model: Transformer) -> list[float]:
    """Train model on the page in place. Returns the loss of each step, nats a byte."""
    return [record.loss for record in train(model, OneBatch(torch.tensor([list(page().encode())])), OVERFIT)]


def steps_to_learn(curve: list[float]) -> int | None:
    """The first step whose loss is below LEARNT, counted from 1; None if there is none."""
    return next((step for step, loss in enumerate(curve, start=1) if loss < LEARNT), None)


def without_norms(model: Transformer) -> Transformer:
    """The model with no norms on its branches; the last one, before the head, stays."""
    for block in model.layers:
        block.attention_norm = block.ffn_norm = nn.Identity()
    return model


@dataclass(frozen=True, kw_only=True)
class Start:
    """Train a shape on one page from weights of a standard deviation, until it knows the page, or OVERFIT.steps, or a loss that is not finite."""

    arm: str
    seed: int
    n_layers: int
    std: float
    has_norms: bool = True

    def settings(self) -> dict:
        training = {name: value for name, value in OVERFIT.to_dict().items() if name != "seed"}
        model = replace(SHAPES[self.n_layers], init_std=self.std).to_dict()
        return {"model": model, "training": training, "learnt": LEARNT, "has_norms": self.has_norms}

    def run(self) -> dict:
        torch.manual_seed(self.seed)
        model = Transformer(replace(SHAPES[self.n_layers], init_std=self.std))
        if not self.has_norms:
            without_norms(model)
        curve = []
        try:    # a loss that is not finite ends the trial
            for record in train(model, OneBatch(torch.tensor([list(page().encode())])), OVERFIT):
                curve.append(record.loss)
                if record.loss < LEARNT:
                    break
        except FloatingPointError:
            pass
        is_learnt = bool(curve) and curve[-1] < LEARNT
        return {"steps_to_learn": len(curve) if is_learnt else None, "is_finite": is_learnt or len(curve) == OVERFIT.steps,
                "curve": [round(loss, 4) for loss in curve]}


def start_arm(n_layers: int, std: float, has_norms: bool) -> str:
    """The name of a start in what is recorded."""
    return f"{arm_of(n_layers)}, std {std:g}" + ", no norms" * (not has_norms)


STARTS = [(n, std, has_norms) for n in (4, 16) for std, has_norms in
          ((0.002, True), (0.02, True), (0.1, True), (0.5, True), (0.02, False), (0.1, False))]


@dataclass(frozen=True, kw_only=True)
class Recital(Overfit):
    """Train as Overfit does, then let the model write the page from its first five bytes: how many of the others are right before the first wrong one."""

    def run(self) -> dict:
        model, text = self.build(), list(page().encode())
        curve = learn_page(model)
        written = list(decode(model, [text[:PROMPT]], max_new_tokens=len(text) - PROMPT).tokens[0])
        right = next((i for i, (a, b) in enumerate(zip(written, text[PROMPT:])) if a != b), len(written))
        return {"steps_to_learn": steps_to_learn(curve), "right": right, "asked": len(text) - PROMPT, "last_loss": round(curve[-1], 4)}


PROMPT = 5      # bytes of the page that a model is given to recite the rest


def without_feed_forward(model: Transformer) -> Transformer:
    """The model with nothing but attention in its layers."""
    for block in model.layers:
        block.ffn = Silent()
    return model


def without_positions(model: Transformer) -> Transformer:
    """The model with a RoPE that turns nothing."""
    model.rope.turn[0], model.rope.turn[1] = 1, 0    # cosines and sines
    return model


def normed_sums(model: Transformer) -> Transformer:
    """The model with its norms where the first Transformers had them."""
    return plant(model, PostNorm)


CHANGES = {"no feed-forward": without_feed_forward, "no positions": without_positions, "norm on the sum": normed_sums}


@dataclass(frozen=True, kw_only=True)
class Changed(Overfit):
    """Train as Overfit does, with a part of the model taken away or moved: one of CHANGES, by its arm."""

    def settings(self) -> dict:
        return super().settings() | {"change": self.arm}

    def build(self) -> Transformer:
        return CHANGES[self.arm](super().build())


STUDIES = [
    Study(name="model-parts", question="How well is one page learnt without feed-forward networks, without positions, with norms on the sum?",
          trials=tuple(Changed(arm=change, seed=seed) for change in CHANGES for seed in range(1, 4))),
    Study(name="model-starts", question="From which starts does a model learn one page by heart, with norms and without?",
          trials=tuple(Start(arm=start_arm(n, std, has_norms), seed=seed, n_layers=n, std=std, has_norms=has_norms)
                       for seed in range(1, 4) for n, std, has_norms in STARTS)),
    Study(name="model-recital", question="Which models write the page, of those whose loss says that they know it?",
          trials=tuple(Recital(arm=bug or "right", seed=seed, bug=bug)
                       for seed in range(1, 4) for bug in (None, "residual of the norm", "norm over tokens"))),
    Study(name="model-overfit", question="After how many steps does the yardstick know one page by heart, and with a bug planted?",
          trials=tuple(Overfit(arm=bug or "right", seed=seed, bug=bug) for bug in (None, *BUGS) for seed in range(1, 4 if bug else 8))),
]
