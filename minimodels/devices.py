"""What depends on the machine: number formats, several processes under torchrun, running out of memory, and Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """The device called name; auto takes a GPU if there is one. Raises ValueError for one that is not here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r} is not on this machine, which has {torch.cuda.device_count()} CUDA devices; use --device cpu")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The format that matrix products use. auto: fp32 on a CPU; on a GPU bf16 where the hardware has it, else fp16 (a T4)."""
    if name != "auto":
        return DTYPES[name]
    if device.type == "cpu":
        return torch.float32
    # a T4 answers True through emulation, which is slow
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def rank() -> int:
    """This process's number among those that torchrun started; 0 alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def all_reduce(x: Tensor) -> Tensor:
    """The sum of x over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(x)
    return x


def average_gradients(parameters: list[Tensor]):
    """Replace every gradient by its mean over all processes: one message, not one a parameter."""
    if world_size() == 1:
        return
    flat = all_reduce(torch.cat([p.grad.flatten() for p in parameters])) / world_size()
    for p, part in zip(parameters, flat.split([p.numel() for p in parameters])):
        p.grad.copy_(part.view_as(p))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error means that memory ran out, on a GPU or on a CPU (where torch has no class for it)."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def delayed_interrupt() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block, so that a step is done whole or not at all; a second one does not wait."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return
    arrived = []

    def remember(number, frame):
        if arrived:
            raise KeyboardInterrupt
        arrived.append(number)

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if arrived:
        raise KeyboardInterrupt
