"""What is saved comes back bit for bit, what is damaged is refused by name, and a kill at any moment leaves a good checkpoint."""

import ast
import errno
import json
import os
import random
import shutil
import signal
import time
import traceback
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from configs import odd_config, repeatable
from faults_checkpoint import DATA, FAULTS, MODEL, TRAIN, byte_tokenizer, checkpoint_file, cut, flip, make_run, numbered
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from minimodels import checkpoint, disk
from minimodels.checkpoint import Run, load_model_tensors, model_tensors
from minimodels.config import PRESETS, ModelConfig, TrainConfig
from minimodels.model import Transformer

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork: not on Windows")


def bits(tensor):
    return tensor.shape, tensor.dtype, tensor.contiguous().flatten().view(torch.uint8).tolist()


def is_step(found, step):
    """Whether a checkpoint holds what `numbered` made for this step, all of it."""
    return found.step == step and found.tensors.keys() == numbered(step).keys() and all(
        torch.equal(found.tensors[name], tensor) for name, tensor in numbered(step).items())


# ---- faults

@pytest.mark.parametrize("function, kind, message", [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_every_fault_is_told_in_one_clear_line(tmp_path, function, kind, message):
    call = function(tmp_path)
    with pytest.raises(kind, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("function", [row[1] for row in FAULTS if "while saving" in row[0] or "syncing" in row[0]],
                         ids=[row[0] for row in FAULTS if "while saving" in row[0] or "syncing" in row[0]])
def test_a_failed_save_leaves_the_checkpoints_before_it_and_no_half_file(tmp_path, function):
    with pytest.raises(OSError):
        function(tmp_path)()
    run = Run.open(tmp_path / "run")
    assert is_step(run.latest(), 2) and is_step(run.load(1), 1)
    assert sorted(p.name for p in (run.directory / "checkpoints").iterdir()) == ["step_000001.safetensors", "step_000002.safetensors"]


# ---- round trips

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int64, torch.int32,
          torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64]


@st.composite
def any_tensor(draw):
    """Any bits (NaN and infinity among them) in any type, with 0 to 3 axes, some empty, some in another order than in memory."""
    dtype, shape = draw(st.sampled_from(DTYPES)), draw(st.lists(st.sampled_from([0, 1, 2, 3, 5]), max_size=3))
    n_bytes = torch.Size(shape).numel() * dtype.itemsize
    raw = torch.tensor(list(draw(st.binary(min_size=n_bytes, max_size=n_bytes))), dtype=torch.uint8)
    tensor = (raw & 1 if dtype == torch.bool else raw).view(dtype).reshape(shape) if n_bytes else torch.empty(shape, dtype=dtype)
    return tensor.permute(draw(st.permutations(range(len(shape)))))


@repeatable
@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), any_tensor(), max_size=6),
       st.dictionaries(st.text(max_size=3), st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9)))
def test_what_is_saved_comes_back_bit_for_bit(tmp_path_factory, tensors, meta):
    folder = tmp_path_factory.mktemp("run")
    with Run.create(folder, MODEL, TRAIN) as run:
        run.save(3, tensors, meta)
    found = Run.open(folder).latest()
    assert found.step == 3 and found.meta == meta and found.tensors.keys() == tensors.keys()
    assert {name: bits(t) for name, t in found.tensors.items()} == {name: bits(t) for name, t in tensors.items()}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_safetensors_library_reads_every_type_that_we_write(tmp_path, dtype):
    tensors = {"scalar": torch.tensor(1).to(dtype), "matrix": torch.arange(6).reshape(2, 3).to(dtype),
               "none": torch.empty(0, 3, dtype=dtype)}
    with Run.create(tmp_path, MODEL, TRAIN) as run:
        run.save(1, tensors, {})
    assert {name: bits(t) for name, t in load_file(checkpoint_file(run, 1)).items()} == {name: bits(t) for name, t in tensors.items()}


def test_every_tensor_starts_at_a_multiple_of_its_types_size(tmp_path):
    with Run.create(tmp_path, MODEL, TRAIN) as run:
        run.save(1, {str(dtype): torch.zeros(3).to(dtype) for dtype in DTYPES}, {})
    content = checkpoint_file(run, 1).read_bytes()
    n_header = int.from_bytes(content[:8], "little")
    header = json.loads(content[8:8 + n_header])
    assert n_header % 8 == 0
    assert all(header[str(dtype)]["data_offsets"][0] % dtype.itemsize == 0 for dtype in DTYPES)


def test_what_was_loaded_does_not_change_with_its_file(tmp_path):
    run = make_run(tmp_path, 1)
    found = run.latest()
    path = checkpoint_file(run, 1)
    with open(path, "r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert is_step(found, 1)


@pytest.mark.parametrize("kind", [ModelConfig, TrainConfig], ids=lambda k: k.__name__)
def test_every_preset_comes_back_from_config_json(tmp_path, kind):
    for name in PRESETS[kind]:
        configs = {ModelConfig: MODEL, TrainConfig: TRAIN} | {kind: kind.preset(name)}
        Run.create(tmp_path / name, *configs.values(), data=DATA).close()
        run = Run.open(tmp_path / name)
        assert (run.model_config, run.train_config, run.data) == (*configs.values(), DATA)
        run.check_same(*configs.values(), DATA)


def test_the_tokenizer_comes_back_even_with_a_token_that_looks_like_an_open_seal(tmp_path):
    make_run(tmp_path)
    assert Run.open(tmp_path).tokenizer.to_str() == byte_tokenizer().to_str()
    assert "0" * 64 in (tmp_path / "tokenizer.json").read_text()


def test_a_run_without_a_tokenizer_has_none(tmp_path):
    Run.create(tmp_path, MODEL, TRAIN).close()
    assert Run.open(tmp_path).tokenizer is None and not (tmp_path / "tokenizer.json").exists()


# ---- models

@pytest.mark.parametrize("config", [MODEL, odd_config(tie_embeddings=False), odd_config(attention="gqa")], ids=["tied", "untied", "gqa"])
def test_a_model_comes_back_with_equal_logits(tmp_path, config):
    model = Transformer(config)
    model.gates[0].bias += torch.arange(config.n_experts)  # a buffer that training moves
    with Run.create(tmp_path, config, TRAIN, byte_tokenizer()) as run:
        run.save(1, model_tensors(model) | {"optimizer.0": torch.ones(3)}, {})
    before = torch.random.get_rng_state()
    again = Run.open(tmp_path).model()
    assert torch.equal(torch.random.get_rng_state(), before)
    tokens = torch.randint(config.vocab_size, (2, 7))
    assert torch.equal(again(tokens).logits, model.eval()(tokens).logits)
    assert not again.training and again.tokenizer.encode("né").ids == byte_tokenizer().encode("né").ids
    assert (again.head.weight is again.embed.weight) == config.tie_embeddings


def test_tied_weights_are_stored_once(tmp_path):
    model = Transformer(MODEL)
    with Run.create(tmp_path, MODEL, TRAIN) as run:
        run.save(1, model_tensors(model), {})
    stored = load_file(checkpoint_file(run, 1))
    assert "model.embed.weight" in stored and "model.head.weight" not in stored
    assert sum(t.numel() for name, t in stored.items() if not name.endswith("gate.bias")) == MODEL.n_params + MODEL.parameters["mtp"]
    found = run.latest().tensors
    assert found.keys() == model_tensors(model).keys() and found["model.head.weight"] is found["model.embed.weight"]


def test_overlapping_views_are_stored_each_for_itself(tmp_path):
    whole = torch.arange(12.0)
    tensors = {"whole": whole, "left": whole[:5], "twin": whole[:5], "matrix": whole.view(3, 4), "turned": whole.view(4, 3).T}
    with Run.create(tmp_path, MODEL, TRAIN) as run:
        run.save(1, tensors, {})
    assert load_file(checkpoint_file(run, 1)).keys() == tensors.keys() - {"twin"}
    assert all(torch.equal(t, tensors[name]) for name, t in run.latest().tensors.items())


def test_a_model_that_is_given_wrong_tensors_stays_as_it_was():
    model = Transformer(MODEL)
    before = {name: t.clone() for name, t in model_tensors(model).items()}
    wrong = {name: t + 1 for name, t in before.items()} | {"model.final_norm.weight": torch.zeros(3)}
    with pytest.raises(ValueError):
        load_model_tensors(model, wrong)
    assert all(torch.equal(t, before[name]) for name, t in model_tensors(model).items())


# ---- damage

def offsets(n_bytes):
    """The ends of the file and of its header, and a sample between."""
    rng = random.Random(n_bytes)
    return sorted({0, 1, 7, 8, 9, 90, n_bytes - 8, n_bytes - 1, *(rng.randrange(n_bytes) for _ in range(40))})


@pytest.mark.parametrize("damage", [cut, flip], ids=["cut", "flipped"])
def test_a_checkpoint_damaged_anywhere_is_refused_and_the_one_before_it_loads(tmp_path, damage, capsys):
    path = checkpoint_file(make_run(tmp_path, 1, 2), 2)
    whole = path.read_bytes()
    for offset in offsets(len(whole)):
        damage(path, offset)
        run = Run.open(tmp_path)
        assert is_step(run.latest(), 1), offset
        run.latest()
        said = capsys.readouterr().err
        assert said == f"minimodels: {run.warnings[0]}\n" and path.name in said and len(run.warnings) == 1
        with pytest.raises(ValueError, match=path.name):
            run.load(2)
        path.write_bytes(whole)
    assert is_step(Run.open(tmp_path).latest(), 2)


def test_a_byte_too_many_is_refused(tmp_path):
    path = checkpoint_file(make_run(tmp_path, 1, 2), 2)
    path.write_bytes(path.read_bytes() + b"\0")
    assert is_step(Run.open(tmp_path).latest(), 1)


@pytest.mark.parametrize("damage", [cut, flip], ids=["cut", "flipped"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_config_or_tokenizer_damaged_anywhere_is_refused_until_it_is_put_back(tmp_path, name, damage):
    make_run(tmp_path, 1, 2)
    path = tmp_path / name
    whole = path.read_bytes()
    for offset in range(0, len(whole), 9 if name == "config.json" else 29):
        damage(path, offset, **({"bit": offset % 8} if damage is flip else {}))
        with pytest.raises(ValueError, match=name) as caught:
            Run.open(tmp_path)
        assert "\n" not in str(caught.value)
        path.write_bytes(whole)
    assert is_step(Run.open(tmp_path).latest(), 2)


def test_a_run_goes_on_after_its_latest_checkpoint_was_lost(tmp_path):
    run = make_run(tmp_path, 1, 2, 3)
    flip(checkpoint_file(run, 3), 3000)
    with Run.open(tmp_path) as again:
        found = again.latest()
        again.truncate_log(found.step)
        assert found.step == 2 and [r["step"] for r in again.records()] == [1, 2]
        for step in (3, 4):
            again.append({"step": step, "loss": 0.0})
            again.save(step, numbered(step), {})
    assert is_step(again.latest(), 4) and is_step(again.load(3), 3)


# ---- which checkpoints stay

def steps_of(run):
    return [int(path.name[5:11]) for path in sorted((run.directory / "checkpoints").glob("step_*"))]


def test_the_last_two_checkpoints_stay(tmp_path):
    assert steps_of(make_run(tmp_path, 5, 10, 15, 20)) == [15, 20]


def test_a_damaged_checkpoint_is_not_one_of_the_two(tmp_path):
    run = make_run(tmp_path, 1, 2)
    cut(checkpoint_file(run, 2), 100)
    with Run.open(tmp_path) as again:
        again.save(3, numbered(3), {})
    assert steps_of(run) == [1, 3]


def test_checkpoints_after_the_step_that_a_run_was_taken_back_to_go(tmp_path):
    run = make_run(tmp_path, 5, 10)
    with Run.open(tmp_path) as again:
        again.load(5)
        again.save(7, numbered(7), {})
    assert steps_of(run) == [5, 7] and again.latest().step == 7


def test_a_step_can_be_saved_again(tmp_path):
    run = make_run(tmp_path, 1)
    run.save(1, numbered(1), {"again": True})
    assert run.latest().meta == {"again": True} and steps_of(run) == [1]


@pytest.mark.parametrize("has_links", [True, False])
def test_a_named_checkpoint_stays_until_the_next_of_that_name(tmp_path, has_links):
    with ExitStack() as stack:
        if not has_links:
            stack.enter_context(patch("os.link", side_effect=OSError(errno.EPERM, "no links")))
        run = make_run(tmp_path, 1)
        for step in (2, 3, 4, 5):
            run.save(step, numbered(step), {}, name="best" if step == 2 else None)
        assert is_step(run.load("best"), 2) and steps_of(run) == [4, 5]
        run.save(6, numbered(6), {}, name="best")
        run.save(6, numbered(6), {}, name="best")
        assert is_step(run.load("best"), 6) and not list((tmp_path / "checkpoints").glob("*.tmp"))


def test_a_reader_takes_the_next_when_a_writer_removes_what_it_was_about_to_read(tmp_path):
    make_run(tmp_path, 1, 2)
    reader, writer = Run.open(tmp_path), Run.open(tmp_path)
    real = checkpoint.check_seal

    def race(path, cure):
        if not writer._good:
            writer._good.add(2)
            writer.save(3, numbered(3), {})
            writer.save(4, numbered(4), {})
        return real(path, cure)
    with patch.object(checkpoint, "check_seal", race):
        assert is_step(reader.latest(), 4)
    assert reader.warnings == []


# ---- kills and full disks at every moment

class Trap:
    """Within this block the n-th call that changes the disk does not happen; `spring` does instead. n_calls counts them."""

    CALLS = [(os, "fsync"), (os, "replace"), (os, "link"), (Path, "unlink")]

    def __init__(self, n, spring):
        self.n, self.spring, self.n_calls, self.patches = n, spring, 0, ExitStack()

    def __enter__(self):
        for owner, name in self.CALLS:
            self.patches.enter_context(patch.object(owner, name, self.guard(getattr(owner, name))))
        return self

    def __exit__(self, *exception):
        self.patches.close()

    def guard(self, real):
        def call(*args, **kwargs):
            self.n_calls += 1
            if self.n_calls == self.n:
                self.spring()
            return real(*args, **kwargs)
        return call


def save_named(run):
    run.save(3, numbered(3), {}, name="best")


def disk_full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_is_full_at_any_call_leaves_a_good_checkpoint(tmp_path):
    with Trap(0, None) as counter:
        make_run(tmp_path / "count", 1, 2)
        before = counter.n_calls
        save_named(Run.open(tmp_path / "count"))
    n = counter.n_calls - before
    assert n >= 8
    for i in range(1, n + 1):
        run = make_run(tmp_path / str(i), 1, 2)
        with Trap(i, disk_full):
            try:
                save_named(run)
            except OSError as error:
                assert str(error).startswith("disk full while writing") and "\n" not in str(error)
        again = Run.open(run.directory)
        found = again.latest()
        assert is_step(found, found.step) and found.step in (2, 3) and again.warnings == []
        again.save(4, numbered(4), {}, name="best")
        assert is_step(Run.open(run.directory).latest(), 4) and not list((run.directory / "checkpoints").glob("*.tmp"))


@needs_fork
def test_log_then_checkpoint_then_its_name_are_forced_to_disk_in_this_order(tmp_path):
    run, done = make_run(tmp_path, 1), []
    real_sync, real_replace, real_unlink = os.fsync, os.replace, Path.unlink
    names = {}

    def sync(handle):
        for path in (run.directory / "log.jsonl", *(run.directory / "checkpoints").iterdir(), run.directory / "checkpoints"):
            names[path.stat().st_ino] = path.name
        done.append(f"sync {names[os.fstat(handle).st_ino]}")
        real_sync(handle)

    def replaced(old, new):
        done.append(f"rename {Path(old).name}")
        real_replace(old, new)

    def unlinked(path, **kwargs):
        done.append(f"remove {path.name}")
        real_unlink(path, **kwargs)
    run.save(2, numbered(2), {})
    with patch.object(os, "fsync", sync), patch.object(os, "replace", replaced), patch.object(Path, "unlink", unlinked):
        run.save(3, numbered(3), {})
    new = "step_000003.safetensors.tmp"
    assert done == ["sync log.jsonl", f"sync {new}", f"rename {new}", "sync checkpoints", "remove step_000001.safetensors"]


def fork(work):
    """work() in a child process; returns its number."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid


def kill_me():
    os.kill(os.getpid(), signal.SIGKILL)


@needs_fork
def test_a_kill_before_any_disk_call_of_a_save_leaves_a_good_checkpoint(tmp_path):
    i, was_killed = 0, True
    while was_killed:
        i += 1
        folder = tmp_path / str(i)
        make_run(folder, 1, 2)

        def work(folder=folder, i=i):
            with Trap(i, kill_me):
                save_named(Run.open(folder))
        _, status = os.waitpid(fork(work), 0)
        was_killed = os.WIFSIGNALED(status)
        assert was_killed or os.WEXITSTATUS(status) == 0
        run = Run.open(folder)
        found = run.latest()
        assert is_step(found, found.step) and found.step in (2, 3) and run.warnings == []
        run.save(4, numbered(4), {}, name="best")
        assert is_step(run.latest(), 4) and not list((folder / "checkpoints").glob("*.tmp"))
    assert i > 8 and found.step == 3


@needs_fork
def test_a_kill_before_any_disk_call_of_create_leaves_nothing_or_a_run(tmp_path):
    i, was_killed = 0, True
    while was_killed:
        i += 1
        folder = tmp_path / str(i)

        def work(folder=folder, i=i):
            with Trap(i, kill_me):
                make_run(folder)
        _, status = os.waitpid(fork(work), 0)
        was_killed = os.WIFSIGNALED(status)
        assert was_killed or os.WEXITSTATUS(status) == 0
        if (folder / "config.json").exists():
            assert Run.open(folder).tokenizer is not None
        else:
            make_run(folder, 1)
    assert i > 5


@needs_fork
def test_a_process_killed_at_random_moments_always_leaves_its_last_save_and_a_free_lock(tmp_path):
    make_run(tmp_path)
    rng = random.Random(0)
    step = 0
    for _ in range(10):
        reading, writing = os.pipe()

        def work():
            run = Run.open(tmp_path)
            found = run.latest()
            at = found.step if found else 0
            run.truncate_log(at)
            while True:
                at += 1
                run.append({"step": at, "loss": 0.5})
                run.save(at, numbered(at), {})
                os.write(writing, b"%d\n" % at)
        pid = fork(work)
        os.close(writing)
        time.sleep(rng.uniform(0.02, 0.2))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with os.fdopen(reading) as pipe:
            said = [int(line) for line in pipe.read().split()]
        step = said[-1] if said else step
        with Run.open(tmp_path) as run:
            found = run.latest()
            at = found.step if found else 0
            assert at in (step, step + 1) and (found is None or is_step(found, at)) and run.warnings == []
            run.lock()
            run.truncate_log(at)
            assert [r["step"] for r in run.records()] == list(range(1, at + 1))
        step = at
    assert step > 10


# ---- the log

def test_records_come_back_with_tensors_as_lists(tmp_path):
    run = make_run(tmp_path)
    run.append({"step": 1, "loss": 0.1 + 0.2, "load": [torch.tensor([3, 5])], "valid": None})
    assert Run.open(tmp_path).records() == [{"step": 1, "loss": 0.1 + 0.2, "load": [[3, 5]], "valid": None}]


def test_the_log_goes_back_to_a_checkpoint_whatever_its_end_looks_like(tmp_path):
    run = make_run(tmp_path, 1, 2, 3, 4)
    log = tmp_path / "log.jsonl"
    whole = log.read_bytes()
    for n in range(len(whole)):
        log.write_bytes(whole[:n])
        whole_lines = whole[:n].count(b"\n")
        assert [r["step"] for r in run.records()] == [1, 2, 3, 4][:whole_lines]
        run.truncate_log(2)
        assert [r["step"] for r in run.records()] == [1, 2][:whole_lines]
        run.append({"step": 9})
        assert run.records()[-1] == {"step": 9}


def test_the_log_may_be_missing_or_hold_rubbish_when_a_run_goes_on(tmp_path):
    run = make_run(tmp_path)
    assert run.records() == []
    run.truncate_log(0)
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 1}\n\0\0\0\n[]\n{"step": "2"}\n{"step": 2}\n{"ste')
    run.truncate_log(2)
    assert run.records() == [{"step": 1}, {"step": 2}]


# ---- one writer

@needs_fork
def test_a_second_process_may_read_but_not_write(tmp_path):
    with Run.create(tmp_path, MODEL, TRAIN) as run:
        run.save(1, numbered(1), {})
        reading, writing = os.pipe()

        def work():
            other = Run.open(tmp_path)
            said = ["read" if is_step(other.latest(), 1) else "failed"]
            for call in (lambda: other.save(2, numbered(2), {}), lambda: other.append({"step": 2}), lambda: other.truncate_log(0),
                         other.lock, run.lock):
                try:
                    call()
                except OSError as error:
                    said.append(str(error))
            os.write(writing, json.dumps(said).encode())
        pid = fork(work)
        os.waitpid(pid, 0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            first, *errors = json.load(pipe)
    assert first == "read" and len(errors) == 5
    assert all(f"being written by process {os.getpid()} on " in error for error in errors)
    assert is_step(run.latest(), 1) and run.records() == []


def test_a_closed_run_can_be_written_by_the_next_and_two_of_one_process_share_it(tmp_path):
    with Run.create(tmp_path, MODEL, TRAIN) as first:
        second = Run.open(tmp_path)
        second.save(1, numbered(1), {})
        first.save(2, numbered(2), {})
    second.save(3, numbered(3), {})
    assert steps_of(second) == [2, 3]


def test_a_lock_file_of_a_process_that_is_gone_blocks_nobody(tmp_path):
    make_run(tmp_path)
    (tmp_path / "run.lock").write_text("process 1 on elsewhere")
    run = Run.open(tmp_path)
    run.save(1, numbered(1), {})
    assert str(os.getpid()) in (tmp_path / "run.lock").read_text()


@pytest.mark.skipif(os.name == "nt", reason="locks differently")
def test_a_disk_without_locks_can_be_written(tmp_path):
    with patch("fcntl.flock", side_effect=OSError(errno.ENOLCK, "No locks available")):
        assert steps_of(make_run(tmp_path, 1)) == [1]


def test_a_failed_create_lets_go_of_its_lock(tmp_path):
    make_run(tmp_path)
    before = set(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else None
    with pytest.raises(FileExistsError) as caught:
        Run.create(tmp_path, MODEL, TRAIN)
    if before is not None:
        assert set(os.listdir("/proc/self/fd")) == before
    assert "--resume" in str(caught.value)


# ---- what is not there

def test_a_run_may_start_in_a_folder_that_holds_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert steps_of(make_run(tmp_path, 1)) == [1] and (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_can_be_moved_and_copied(tmp_path):
    make_run(tmp_path / "a", 1, 2)
    shutil.copytree(tmp_path / "a", tmp_path / "b c")
    with Run.open(tmp_path / "b c") as run:
        assert is_step(run.latest(), 2)
        run.save(3, numbered(3), {})


def test_an_empty_run_has_no_latest_checkpoint(tmp_path):
    assert make_run(tmp_path).latest() is None


def test_settings_that_differ_are_all_named(tmp_path):
    run = make_run(tmp_path)
    with pytest.raises(ValueError) as caught:
        run.check_same(replace(MODEL, d_model=8), replace(TRAIN, lr=0.5, seed=3), {**DATA, "name": "x"})
    for words in ("d_model=7, not 8", f"lr={TRAIN.lr}, not 0.5", "seed=0, not 3", "data name='stdlib', not 'x'"):
        assert words in str(caught.value)


def test_nothing_in_the_package_unpickles():
    modules = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for path in sorted(Path(disk.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf8"))):
            if isinstance(node, ast.Import):
                assert not modules & {alias.name.split(".")[0] for alias in node.names}, path
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in modules, path
                assert node.module != "torch" or not {"load", "save"} & {alias.name for alias in node.names}, path
            elif isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in ("torch.load", "torch.save", "torch.hub", "torch.package"), f"{path}:{node.lineno}"
            elif isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle" or ast.unparse(node.value) == "False", f"{path}:{node.value.lineno}"
