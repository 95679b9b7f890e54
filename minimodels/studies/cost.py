"""Chapter 01: what share of a machine's arithmetic a step of training uses, by width, and how much of sparsity's saving arrives as time.

Everything is timed in turns with one large product, which stands for what the machine can do at best, and by the thread's own clock.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from minimodels import cost
from minimodels.config import ModelConfig, TrainConfig
from minimodels.data import Batches
from minimodels.linear import product
from minimodels.model import Transformer
from minimodels.mtp import losses
from minimodels.studies import Study
from minimodels.timing import interleaved
from minimodels.train import Trainer

TRAINING = TrainConfig.preset("yardstick")
SHAPE = {"seq_len": TRAINING.seq_len, "batch_size": TRAINING.batch_size}
SIDE = 1024                     # of the large product's square matrices
WIDTHS = (64, 128, 256)
SPARSE_WIDTHS = (128, 256)
SEEDS = (1, 2, 3)


def large_product(side: int = SIDE) -> Callable[[], torch.Tensor]:
    """A function that multiplies two square matrices: 2 side^3 FLOP, and little else to do."""
    a, b = torch.randn(side, side), torch.randn(side, side)
    return lambda: product(a, b)


def yardstick_at(width: int) -> ModelConfig:
    """The yardstick with another width; heads stay 16 wide, and the feed-forward part keeps its ratio."""
    yardstick = ModelConfig.preset("yardstick")
    return replace(yardstick, d_model=width, n_heads=width // 16, d_ff=width * yardstick.d_ff // yardstick.d_model)


def sparse_at(width: int) -> ModelConfig:
    """The same with the experts of the `cpu` preset in all layers but the first: 16, of which 4 and a shared one work on a token."""
    return replace(yardstick_at(width), n_experts=16, top_k=4, n_shared=1, d_expert=width // 2)


def dense_twin(sparse: ModelConfig) -> ModelConfig:
    """A model as large in all, to a unit of width, in which every parameter works on every token."""
    per_unit = 3 * sparse.d_model * sparse.n_layers
    dense = replace(sparse, n_experts=0)
    return replace(dense, d_ff=dense.d_ff + round((sparse.n_params - dense.n_params) / per_unit))


def whole_step(config: ModelConfig, training: TrainConfig = TRAINING, device: str | torch.device = "cpu") -> Callable[[], object]:
    """A function that trains a new model for one step, on random tokens."""
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, 100_000).astype(np.uint16)
    batches = Batches(tokens, batch_size=training.batch_size, seq_len=training.seq_len, seed=0)
    trainer = Trainer(Transformer(config).to(device), batches, training)
    return lambda: trainer.step(training.steps // 2)


def forward_backward(config: ModelConfig) -> Callable[[], None]:
    """A function that passes one batch of random tokens through a new model, forward and backward."""
    model = Transformer(config)
    tokens = torch.randint(0, config.vocab_size, (TRAINING.batch_size, TRAINING.seq_len))

    def run():
        model.zero_grad(set_to_none=True)
        losses(model(tokens), tokens)[0].backward()

    return run


def done_flops(function: Callable) -> int:
    """The FLOPs that a call of function does, by torch's counter: with scores that nobody needs, rows that pad an expert, and the optimizer."""
    with cost.counter() as count:
        function()
    return count.get_total_flops()


def utilisation(trial: dict, name: str = "step", *, of: str = "step") -> float:
    """The share of the large product's speed that a recorded function reached: the median of the ratios within a round.

    name: a key of trial["ms"]; of: the model in trial["flops"] that it ran. FLOPs are those that the model needs, the optimizer's not.
    """
    rounds = zip(trial["ms"]["product"], trial["ms"][name], strict=True)
    return statistics.median(trial["flops"][of] / ms / (trial["flops"]["product"] / product_ms) for product_ms, ms in rounds)


@dataclass(frozen=True, kw_only=True)
class _Timed:
    """Time some functions in turns with the large product. A subclass says which, and what each of them computes."""

    arm: str
    seed: int
    width: int
    rounds: int = 7

    def configs(self) -> dict[str, ModelConfig]:
        raise NotImplementedError

    def functions(self) -> dict[str, Callable]:
        raise NotImplementedError

    def settings(self) -> dict:
        return {"models": {name: config.to_dict() for name, config in self.configs().items()}, "side": SIDE, "rounds": self.rounds} | SHAPE

    def run(self) -> dict:
        torch.manual_seed(self.seed)
        functions = self.functions()
        times = interleaved({"product": large_product()} | functions, rounds=self.rounds, clock=time.thread_time)
        flops = {name: sum(cost.training_flops(config, causal=True, **SHAPE).values()) for name, config in self.configs().items()}
        return {"ms": {name: [round(ms, 3) for ms in each] for name, each in times.items()}, "flops": flops | {"product": 2 * SIDE**3},
                "done_flops": {name: done_flops(function) for name, function in functions.items()},
                "muon_flops": {name: cost.muon_flops(config) for name, config in self.configs().items()},
                "n_params": {name: config.n_params for name, config in self.configs().items()}}


@dataclass(frozen=True, kw_only=True)
class Utilisation(_Timed):
    """A whole step of the yardstick at another width, and its forward and backward pass alone."""

    def configs(self):
        return {"step": yardstick_at(self.width)}

    def functions(self):
        return {"step": whole_step(yardstick_at(self.width)), "forward, backward": forward_backward(yardstick_at(self.width))}


@dataclass(frozen=True, kw_only=True)
class Sparsity(_Timed):
    """Forward and backward pass of a model with experts, and of a dense one as large in all."""

    def configs(self):
        sparse = sparse_at(self.width)
        return {"sparse": sparse, "dense": dense_twin(sparse)}

    def functions(self):
        return {name: forward_backward(config) for name, config in self.configs().items()}


STUDIES = [
    Study(name="cost-utilisation", question="What share of the machine's arithmetic does a step of training use, by width?", is_timing=True,
          trials=tuple(Utilisation(arm=f"D={width}", seed=seed, width=width) for seed in SEEDS for width in WIDTHS)),
    Study(name="cost-sparsity", question="How much of the arithmetic that sparsity saves arrives as time?", is_timing=True,
          trials=tuple(Sparsity(arm=f"D={width}", seed=seed, width=width) for seed in SEEDS for width in SPARSE_WIDTHS)),
]
