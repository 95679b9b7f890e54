"""Time several things fairly on a machine that is never quiet: in one process, in turns, and always with the spread."""

import math
import time
from collections.abc import Callable

import torch

from minimodels.attention import Cache, GroupedAttention, Place
from minimodels.config import ModelConfig
from minimodels.layers import Rope
from minimodels.linear import product
from minimodels.mla import LatentAttention


def interleaved(functions: dict[str, Callable[[], object]], *, rounds: int = 7, least_ms: float = 3.0,
                threads: int = 1, clock: Callable[[], float] = time.perf_counter) -> dict[str, list[float]]:
    """Milliseconds of one call of each function, one figure a round.

    In every round each function runs in turn, as often as fills least_ms, so that a slow moment of the machine meets all of them.
    Compare within a round, and report medians with the range. threads: of torch; with one,
    other programs disturb least. clock: with time.thread_time, and one thread, the time in which other programs run does not count.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        # the first call warms up; of three, the fastest says how many calls fill a round
        n_calls = {name: max(1, round(least_ms / min(_ms(function, 1, clock) for _ in range(3)))) for name, function in functions.items()}
        times = {name: [] for name in functions}
        for _ in range(rounds):
            for name, function in functions.items():
                times[name].append(_ms(function, n_calls[name], clock))
    finally:
        torch.set_num_threads(before)
    return times


def _ms(function, n_calls, clock):
    began = clock()
    for _ in range(n_calls):
        function()
    return (clock() - began) / n_calls * 1e3


def decode_step(config: ModelConfig, context: int, *, absorb: bool | None = None) -> Callable[[], torch.Tensor]:
    """A function that passes one token through one attention layer of config, with context tokens in its cache: (1, 1, D).

    Projections, cache and attention are in it; weights and cache hold random numbers, which take as long as others.
    absorb: for MLA, the path; None lets the layer choose.
    """
    layer = (LatentAttention if config.attention == "mla" else GroupedAttention)(config).eval()
    cache = Cache(config, 1, context + 1)
    for tensor in cache.layers[0].tensors.values():
        tensor.normal_()
    h = torch.randn(1, 1, config.d_model)
    place = Place.of(Rope.from_config(config), 1, h.device, [context])
    path = {"absorb": absorb} if config.attention == "mla" else {}

    @torch.inference_mode()
    def step():
        return layer(h, place, cache.layers[0], **path)

    return step


READ_BYTES = 2**28                       # of the array that is read: more than any processor's cache
ROWS, WIDE, NARROW = 512, 4096, 1024     # of the matrices that are multiplied: (ROWS, NARROW) by (WIDE, NARROW)
MULTIPLY_FLOPS = 2 * ROWS * WIDE * NARROW


def roofs() -> dict[str, Callable[[], torch.Tensor]]:
    """The two things that a machine can be short of: a function that reads READ_BYTES of memory, and one that does MULTIPLY_FLOPS.

    The latter is the product that our models use, on matrices of a size that suits it. Between them one that reads READ_BYTES as decoding
    does, as a matrix that meets one vector.
    """
    array, x, weight = torch.ones(READ_BYTES // 4), torch.randn(ROWS, NARROW), torch.randn(WIDE, NARROW)
    side = math.isqrt(len(array))
    matrix, vector = array.view(side, side), torch.ones(1, side)
    return {"read": array.sum, "read by a product": lambda: product(vector, matrix), "multiply": lambda: product(x, weight)}


def a_pass(model: torch.nn.Module, T: int, B: int, S: int) -> Callable[[], torch.Tensor]:
    """A function that passes T random tokens in each of B sequences through all layers, behind S tokens in the cache: (B, T, D).

    The head is left out: a prompt needs it for one token alone.
    """
    cache = Cache(model.config, B, S + T)
    tokens = torch.randint(0, model.config.vocab_size, (B, T))  # (B, T)

    @torch.inference_mode()
    def run():
        cache.lengths = [S] * B
        return model(tokens, cache).hidden[0]

    return run
