"""A device is here or refused by name; Ctrl-C waits for the end of a step; two processes agree on sums and means."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from minimodels.devices import (all_reduce, average_gradients, choose_device, choose_dtype, delayed_interrupt, is_out_of_memory, rank,
                                world_size)

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["tpu", "mps", "meta", "cuda:99", "cuda:x", "gpu", ""])
def test_a_device_that_is_not_here_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"device .*'{name}'.*"):
        choose_device(name)


def test_auto_takes_a_gpu_if_there_is_one():
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu") and choose_device("cpu").type == "cpu"


@pytest.mark.parametrize("has_bf16, expected", [(True, torch.bfloat16), (False, torch.float16)])
def test_auto_is_fp32_on_a_cpu_and_what_the_hardware_has_on_a_gpu(monkeypatch, has_bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bf16 or including_emulation)
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32 and choose_dtype("auto", torch.device("cuda")) == expected
    assert [choose_dtype(name, torch.device("cpu")) for name in ("fp32", "bf16", "fp16")] == [torch.float32, torch.bfloat16, torch.float16]


def test_one_process_is_the_first_of_one_and_keeps_what_it_has():
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.full((3,), 5.0)
    average_gradients([p])
    assert (rank(), world_size()) == (0, 1) and p.grad.tolist() == [5, 5, 5] and all_reduce(torch.tensor(7)) == 7


def test_memory_that_a_cpu_refuses_is_recognised_and_other_errors_are_not():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 60)
    with pytest.raises(RuntimeError) as other:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert is_out_of_memory(refused.value) and is_out_of_memory(torch.OutOfMemoryError("CUDA")) and not is_out_of_memory(other.value)


# ---- Ctrl-C

def test_an_interrupt_waits_for_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt):
        with delayed_interrupt():
            signal.raise_signal(signal.SIGINT)
            done.append("the rest of the step")
        done.append("never")
    assert done == ["the rest of the step"]


def test_a_second_interrupt_does_not_wait():
    done = []
    with pytest.raises(KeyboardInterrupt), delayed_interrupt():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append("never")
    assert done == []


def test_the_handler_before_is_back_afterwards_also_after_an_error():
    before = signal.getsignal(signal.SIGINT)
    with delayed_interrupt():
        assert signal.getsignal(signal.SIGINT) != before
    with pytest.raises(ZeroDivisionError), delayed_interrupt():
        1 / 0
    assert signal.getsignal(signal.SIGINT) == before


def test_another_thread_may_enter_the_block():
    done = []

    def work():
        with delayed_interrupt():
            done.append(1)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [1]


# ---- processes

CHILD = """
import torch, torch.distributed as dist
from minimodels.devices import *
dist.init_process_group("gloo")
p, q = torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(5))
p.grad, q.grad = torch.full((2, 3), 1.0 + 2 * rank()), torch.arange(5.0) * rank()
average_gradients([p, q])
assert p.grad.tolist() == [[2.0] * 3] * 2 and q.grad.tolist() == [0, 0.5, 1, 1.5, 2], (p.grad, q.grad)
assert all_reduce(torch.tensor([rank(), 1, 10])).tolist() == [1, 2, 20] and world_size() == 2
dist.barrier()
dist.destroy_process_group()
"""


def test_two_processes_have_the_sum_and_the_mean_of_what_each_had(tmp_path):
    (tmp_path / "child.py").write_text(CHILD)
    run = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
                          "--rdzv-endpoint", "localhost:0", str(tmp_path / "child.py")], env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
                         capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
