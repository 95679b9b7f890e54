"""Chapter 03: what planted bugs do to the score of a small model, and how fast a pass reads and writes beside what memory allows."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from minimodels.attention import Cache
from minimodels.bugs import plant
from minimodels.bugs.attention import BUGS
from minimodels.config import ModelConfig, TrainConfig
from minimodels.data import Dataset
from minimodels.evaluate import evaluate, windows
from minimodels.linear import Linear
from minimodels.model import Transformer
from minimodels.studies import Planted, Study
from minimodels.studies.mla import loss_of
from minimodels.timing import MULTIPLY_FLOPS, READ_BYTES, a_pass, interleaved, roofs

# what the chapter trains while you read: two of the yardstick's layers, short windows and a high rate, so that a leak is found within a minute
LIVE_MODEL = replace(ModelConfig.preset("yardstick"), n_layers=2)
LIVE = replace(TrainConfig.preset("yardstick"), steps=120, batch_size=8, seq_len=64, muon_lr=0.02)
LIVE_BYTES = 3_000_000
SEEDS = (1, 2, 3)
TRAINED = (None, "leaking mask", "key turned twice", "both turned twice", "never turned")


@dataclass(frozen=True, kw_only=True)
class Reread(Planted):
    """Training with a bug planted in every attention layer, and then read with and without a cache."""

    BUGS = BUGS

    def examine(self, model: Transformer, data: Dataset) -> dict:
        """How the trained weights do where no bug can cheat.

        honest: bits per byte with the right attention in place of the planted. at_once, one_by_one: loss of the second half of eight
        windows, nats a token, read at once, and read token by token behind a cache of the first half; forgetful: the latter with
        keys cached before rotation, for the right model alone.
        """
        tokens = next(windows(data.valid, self.training.seq_len, 8))
        found = {name: round(loss, 4) for name, loss in read(model, tokens).items()}
        if self.bug is None:
            found["forgetful"] = round(read(plant(model, BUGS["cached before rotation"]), tokens)["one_by_one"], 4)
        heal(model)
        score = evaluate(model, data.valid, n_bytes=data.valid_bytes, seq_len=self.training.seq_len)
        return found | {"honest": round(score.bits_per_byte, 5)}


def heal(model: Transformer) -> Transformer:
    """The model with the right attention in place of a planted bug, in place; its weights stay as they are."""
    for block in model.layers:
        bug = type(block.attention)
        if bug in BUGS.values():
            block.attention.__class__ = bug.__bases__[0]
    return model


@torch.inference_mode()
def read(model: Transformer, tokens: torch.Tensor) -> dict[str, float]:
    """Loss of the second half of tokens (B, T), nats a token, read at once and one by one behind a cache."""
    T = tokens.shape[1]
    at_once = model(tokens).logits[:, T // 2:]  # (B, T/2, V)
    cache = Cache(model.config, len(tokens), T)
    model(tokens[:, :T // 2], cache)
    cached = torch.cat([model(tokens[:, t:t + 1], cache).logits for t in range(T // 2, T)], dim=1)  # (B, T/2, V)
    return {name: loss_of(logits, tokens[:, T // 2:]) for name, logits in (("at_once", at_once), ("one_by_one", cached))}


# ---- the roofline: 51 million weights that no processor's cache holds

WIDE = ModelConfig(attention="mha", d_model=1024, n_layers=4, n_heads=16, d_head=64, d_value=64, n_experts=0, mtp_depth=0, d_ff=2816,
                   max_seq_len=1024)
CONTEXT = 128
# tokens a sequence that pass at once, sequences, tokens that the cache holds before
PASSES = {"decode, 1 at a time": (1, 1, CONTEXT), "decode, 8": (1, 8, CONTEXT), "decode, 64": (1, 64, CONTEXT), "prefill, 8 tokens": (8, 1, 0),
          "prefill, 64": (64, 1, 0), "prefill, 512": (512, 1, 0)}
APART = ("one token's products", "the yardstick, 1 at a time")


def work(config: ModelConfig, T: int, B: int, S: int) -> dict[str, int]:
    """FLOPs of a pass of T tokens in B sequences behind S cached ones, and the least bytes that it reads in fp32; without the head.

    A multiplication with its addition counts two; every query meets every key, the masked too, for that is what is computed.
    Read are all weights once, and each sequence's cache once.
    """
    weights = config.n_params - config.vocab_size * config.d_model
    matrices = weights - (2 * config.n_layers + 1) * config.d_model    # a norm's weights are read, and hardly multiply
    attended = 4 * config.n_heads * config.d_head * config.n_layers * (S + T)
    cached = config.cached_values_per_token * (S + T)
    return {"flops": B * T * (2 * matrices + attended), "bytes": 4 * (weights + B * cached)}


def products(model: Transformer) -> Callable[[], None]:
    """A function that does the matrix products of one token in all layers, and nothing else of a pass."""
    layers = [module for block in model.layers for module in block.modules() if isinstance(module, Linear)]
    rows = {layer.in_features: torch.randn(1, 1, layer.in_features) for layer in layers}

    @torch.inference_mode()
    def run():
        for layer in layers:
            layer(rows[layer.in_features])

    return run


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """Time passes of a model and the machine's two roofs in turns, in milliseconds of one thread: reading memory, and multiplying matrices.

    Two more take a decoded token apart: its products alone, and a whole pass of the yardstick, with as many layers and calls and 17
    times fewer weights.
    """

    arm: str
    seed: int
    rounds: int = 7

    def settings(self) -> dict:
        return {"model": WIDE.to_dict(), "passes": {name: list(sizes) for name, sizes in PASSES.items()}, "apart": list(APART),
                "rounds": self.rounds}

    def run(self) -> dict:
        torch.manual_seed(self.seed)
        model = Transformer(WIDE).eval()
        passes = {name: a_pass(model, T, B, S) for name, (T, B, S) in PASSES.items()}
        yardstick = Transformer(ModelConfig.preset("yardstick")).eval()
        passes |= dict(zip(APART, (products(model), a_pass(yardstick, *PASSES["decode, 1 at a time"]))))
        times = interleaved(roofs() | passes, rounds=self.rounds, clock=time.thread_time)
        return {"ms": {name: [round(ms, 3) for ms in each] for name, each in times.items()}}


def against(ms: dict[str, list[float]]) -> dict[str, list[float]]:
    """What a table of times says, as ratios within each round: a slow moment of the machine meets both sides of a ratio.

    ms: what `interleaved` gave for `roofs`, PASSES and, where they were timed, APART. Times are those of one token.
    """
    def ratio(a, b, factor=1.0):
        return [factor * x / y for x, y in zip(ms[a], ms[b], strict=True)]

    one, prompt, many = "decode, 1 at a time", "prefill, 512", "decode, 64"
    cost = {name: work(WIDE, *sizes) for name, sizes in PASSES.items()}
    T, B = PASSES[prompt][0], PASSES[many][1]
    fetched = READ_BYTES / cost[one]["bytes"]          # how many times a roof reads what a decoded token reads
    multiplied = MULTIPLY_FLOPS / cost[prompt]["flops"]
    found = {
        "a token written / a token read": ratio(one, prompt, T),
        "the bounds of the two": ratio("read", "multiply", T * multiplied / fetched),
        "read / its bound": ratio(prompt, "multiply", multiplied),
        "written / its bound": ratio(one, "read", fetched)}
    if APART[0] in ms:
        found |= {"its products alone / the same bound": ratio(APART[0], "read", fetched)}
    found |= {"one large product / the same bound": ratio("read by a product", "read")}
    if APART[1] in ms:
        found |= {"a yardstick's pass / the same bound": ratio(APART[1], "read", fetched)}
    return found | {
        "percent of the peak, written": ratio("multiply", one, 100 * cost[one]["flops"] / MULTIPLY_FLOPS),
        "percent of the peak, read": ratio("multiply", prompt, 100 * cost[prompt]["flops"] / MULTIPLY_FLOPS),
        "tokens a second, 64 at once / 1": ratio(one, many, B)}


def pooled(trials: list[dict]) -> dict[str, list[float]]:
    """The rounds of all trials, one after another."""
    return {name: [ms for trial in trials for ms in trial["ms"][name]] for name in trials[0]["ms"]}


STUDIES = [
    Study(name="attention-bugs", question="What does a bug in attention do to the score that one sees, and to the one that counts?",
          trials=tuple(Reread(arm=bug or "right", seed=seed, bug=bug, model=LIVE_MODEL, training=replace(LIVE, seed=seed), max_bytes=LIVE_BYTES)
                       for bug in TRAINED for seed in (SEEDS if bug else (*SEEDS, 4, 5)))),
    Study(name="attention-roofline", question="What bounds a pass: reading the weights, or multiplying with them?", is_timing=True,
          trials=tuple(Roofline(arm="one thread", seed=seed) for seed in range(3))),
]
