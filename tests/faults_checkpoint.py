"""What can go wrong with a run's folder, as a table: name, what raises, the exception, and what its one line must say.

Each function takes an empty folder and returns a callable that raises. A disk that is full is a real one where the platform can
limit the size of files; a folder that may not be written is a real one too, because root becomes another user for the moment.
"""

import contextlib
import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from unittest.mock import patch

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from minimodels.checkpoint import Run, load_model_tensors, model_tensors
from minimodels.config import ModelConfig, TrainConfig
from minimodels.model import Transformer

MODEL = ModelConfig(vocab_size=257, d_model=7, n_layers=2, max_seq_len=11, n_heads=3, d_head=5, d_rope=2, d_value=3, d_latent=13,
                    n_experts=5, top_k=2, d_expert=3, d_ff=17)
TRAIN = TrainConfig.preset("unit")
DATA = {"source": "stdlib", "name": "stdlib"}


def byte_tokenizer() -> Tokenizer:
    """A tokenizer with a row for each byte, and a token of zeros as long as a SHA-256, which a seal must not be mistaken for."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)} | {"0" * 64: 256}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def numbered(step: int) -> dict[str, torch.Tensor]:
    """Tensors that say which step they belong to."""
    return {"a": torch.full((31, 37), step), "optimizer.0": torch.full((41,), float(step)), "seen": torch.tensor(step)}


def make_run(folder, *steps: int) -> Run:
    """A run in folder with a tokenizer, and a checkpoint and a record for each of these steps; nobody writes it now."""
    with Run.create(folder, MODEL, TRAIN, byte_tokenizer(), data=DATA) as run:
        for step in steps:
            run.append({"step": step, "loss": 1 / step})
            run.save(step, numbered(step), {"micro_batch": 3})
    return run


def checkpoint_file(run, step):
    return run.directory / "checkpoints" / f"step_{step:06d}.safetensors"


def flip(path, offset: int, bit: int = 0):
    """Turn one bit of the byte at offset."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(content)


def cut(path, n_bytes: int):
    """Keep the first n_bytes of a file."""
    path.write_bytes(path.read_bytes()[:n_bytes])


@contextlib.contextmanager
def small_disk(n_bytes: int):
    """No file may become longer than n_bytes."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        with patch("os.fsync", side_effect=OSError(errno.ENOSPC, "No space left on device")):
            yield
        return
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextlib.contextmanager
def not_ours(folder):
    """Nothing in folder may be written."""
    if os.name == "nt":  # a folder's mode means nothing there
        with patch("builtins.open", side_effect=PermissionError(errno.EACCES, "Permission denied")):
            yield
        return
    mode = folder.stat().st_mode
    folder.chmod(0o555)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(mode)


def within(context, call):
    """call, made to run within the context that `context()` gives."""
    def run():
        with context():
            call()
    return run


def create(folder, **changes):
    return lambda: Run.create(folder, **{"model_config": MODEL, "train_config": TRAIN, "tokenizer": byte_tokenizer(), **changes})


# ---- create

def existing_run(folder):
    make_run(folder / "run")
    return create(folder / "run")


def checkpoints_without_a_config(folder):
    run = make_run(folder / "run", 1)
    (run.directory / "config.json").unlink()
    return create(run.directory)


def path_is_a_file(folder):
    (folder / "run").write_text("mine")
    return create(folder / "run")


def path_under_a_file(folder):
    (folder / "notes").write_text("mine")
    return create(folder / "notes" / "run")


def unwritable_place(folder):
    return within(partial(not_ours, folder), create(folder / "run"))


def full_disk_at_the_start(folder):
    return within(partial(small_disk, 100), create(folder / "run"))


# ---- open

def opened_after(change):
    """A fault: the run that `change` did something to is opened."""
    def fault(folder):
        run = make_run(folder / "run", 1, 2)
        change(run.directory)
        return lambda: Run.open(run.directory)
    return fault


def config_with(change):
    """A fault: somebody edited config.json."""
    def edit(directory):
        path = directory / "config.json"
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values, indent=1))
    return opened_after(edit)


# ---- resume

def resumed_with(model=(), train=(), data=None):
    def fault(folder):
        run = make_run(folder / "run", 1)
        return lambda: run.check_same(replace(MODEL, **dict(model)), replace(TRAIN, **dict(train)), data)
    return fault


def another_process(folder):
    run = make_run(folder / "run", 1)
    source = f"import time; from minimodels.disk import Lock; from pathlib import Path; " \
             f"lock = Lock(Path({str(run.directory / 'run.lock')!r})); lock.take(); print('mine', flush=True); time.sleep(60)"

    def call():
        with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE) as other:
            try:
                other.stdout.readline()
                Run.open(run.directory).save(2, numbered(2), {})
            finally:
                other.kill()
    return call


# ---- checkpoints

def read_after(change, call, steps=(1, 2)):
    """A fault: `change` did something to the run, then it is read by `call`."""
    def fault(folder):
        run = make_run(folder / "run", *steps)
        change(run)
        return lambda: call(Run.open(run.directory))
    return fault


def nothing(_):
    pass


def damage_all(run):
    cut(checkpoint_file(run, 1), 900)
    flip(checkpoint_file(run, 2), 2000)


def without_a_seal(run):
    from safetensors.torch import save_file
    save_file({"a": torch.zeros(3)}, checkpoint_file(run, 2))


def from_another_run(run):
    with Run.create(run.directory.with_name("other"), MODEL, replace(TRAIN, seed=7)) as other:
        other.save(2, numbered(2), {})
    os.replace(checkpoint_file(other, 2), checkpoint_file(run, 2))


def full_disk(run):
    with small_disk(5000):
        run.save(3, numbered(3), {})


def full_at_sync(run):
    with patch("os.fsync", side_effect=OSError(errno.ENOSPC, "No space left on device")):
        run.save(3, numbered(3), {})


def broken_disk(run):
    with patch("os.replace", side_effect=OSError(errno.EIO, "Input/output error")):
        run.save(3, numbered(3), {})


def unwritable_folder(run):
    run.lock()
    with not_ours(run.directory / "checkpoints"):
        run.save(3, numbered(3), {})


def full_log(run):
    with small_disk((run.directory / "log.jsonl").stat().st_size + 5):
        run.append({"step": 3, "loss": 0.25})


def spoil_the_log(run):
    path = run.directory / "log.jsonl"
    path.write_bytes(b'{"step": 1, "lo\n' + path.read_bytes())


def loaded_with(change):
    """A fault: a model is given tensors that `change` did something to."""
    def fault(folder):
        tensors = model_tensors(Transformer(MODEL))
        change(tensors)
        return lambda: load_model_tensors(Transformer(MODEL), tensors)
    return fault


REFUSED = r"config\.json was cut or altered"
FAULTS = [
    ("existing run", existing_run, FileExistsError, r"run already holds a run: continue it with --resume, or choose another --out"),
    ("checkpoints without a config", checkpoints_without_a_config, FileExistsError, r"but no config\.json: choose another --out"),
    ("run path is a file", path_is_a_file, NotADirectoryError, r"run must be a folder, but it is a file .*: choose another --out"),
    ("run path under a file", path_under_a_file, NotADirectoryError, r"must be a folder, .* lies under one: choose another --out"),
    ("unwritable place", unwritable_place, PermissionError, r"cannot write .*run \(permission denied\): choose another --out"),
    ("full disk at the start", full_disk_at_the_start, OSError, r"disk full while writing .*run: choose another --out"),
    ("data that JSON does not have", lambda folder: create(folder / "run", data={"source": object()}), ValueError, r"data must hold JSON"),
    ("no run there", lambda folder: lambda: Run.open(folder / "none"), FileNotFoundError,
     r"none holds no run, .* give the folder that --out"),
    ("config.json cut", opened_after(lambda d: cut(d / "config.json", 300)), ValueError, REFUSED + r", because it is not JSON"),
    ("config.json empty", opened_after(lambda d: cut(d / "config.json", 0)), ValueError, REFUSED + r", because it is not JSON"),
    ("config.json binary", opened_after(lambda d: (d / "config.json").write_bytes(b"\xff\x00")), ValueError, REFUSED),
    ("config.json a list", opened_after(lambda d: (d / "config.json").write_text("[1]")), ValueError, r"config\.json .*version is missing"),
    ("config.json of another version", config_with(lambda v: v.update(version=2)), ValueError, r"config\.json .*version must be 1, got 2"),
    ("config.json edited", config_with(lambda v: v["train"].update(lr=0.5)), ValueError, REFUSED + r".*: put the file back"),
    ("config.json with an unknown part", config_with(lambda v: v.update(notes="mine")), ValueError,
     r"config\.json .*'notes' is not a field"),
    ("config.json without a part", config_with(lambda v: v.pop("train")), ValueError, r"config\.json .*train is missing"),
    ("config.json with an unknown field", config_with(lambda v: v["model"].update(d_modle=8)), ValueError,
     r"config\.json .*no field 'd_modle'"),
    ("config.json without a field", config_with(lambda v: v["model"].pop("d_model")), ValueError, REFUSED),
    ("config.json with a bad value", config_with(lambda v: v["model"].update(top_k=9)), ValueError, r"config\.json .*top_k must be in \[1"),
    ("config.json with a bad type", config_with(lambda v: v["train"].update(steps="9")), ValueError,
     r"config\.json .*steps must be of type int"),
    ("tokenizer cut", opened_after(lambda d: cut(d / "tokenizer.json", 500)), ValueError,
     r"tokenizer\.json was cut or altered .*: put the file"),
    ("tokenizer altered", opened_after(lambda d: flip(d / "tokenizer.json", 700)), ValueError, r"tokenizer\.json was cut or altered"),
    ("tokenizer missing", opened_after(lambda d: (d / "tokenizer.json").unlink()), FileNotFoundError,
     r"tokenizer\.json is missing: put the file"),
    ("resume with another model", resumed_with(model={"d_model": 8, "top_k": 3}), ValueError,
     r"d_model=7, not 8; top_k=2, not 3: resume with"),
    ("resume with other steps", resumed_with(train={"steps": 99}), ValueError, r"made with steps=20, not 99: resume with the run's own"),
    ("resume with other data", resumed_with(data={"source": "a.txt"}), ValueError, r"data source='stdlib', not 'a\.txt'.*another --out"),
    ("another process writes", another_process, OSError,
     r"run is being written by process \d+ on .+: wait for its end, or choose another --out"),
    ("all checkpoints damaged", read_after(damage_all, Run.latest), ValueError,
     r"step_000002\.safetensors was cut.*step_000001\.safetensors was"),
    ("checkpoint cut", read_after(lambda r: cut(checkpoint_file(r, 2), 900), lambda r: r.load(2)), ValueError, r"step_000002\.\w+ was cut"),
    ("checkpoint emptied", read_after(lambda r: cut(checkpoint_file(r, 2), 0), lambda r: r.load(2)), ValueError,
     r"step_000002\.\w+ was cut"),
    ("checkpoint altered", read_after(lambda r: flip(checkpoint_file(r, 2), 4000), lambda r: r.load(2)), ValueError,
     r"step_000002\.\w+ was cut"),
    ("checkpoint without a seal", read_after(without_a_seal, lambda r: r.load(2)), ValueError, r"step_000002\.\w+ was cut or altered"),
    ("checkpoint of another run", read_after(from_another_run, lambda r: r.load(2)), ValueError, r"step_000002\.\w+ is another run's"),
    ("checkpoint under a false step", read_after(lambda r: os.replace(checkpoint_file(r, 2), checkpoint_file(r, 5)), lambda r: r.load(5)),
     ValueError, r"step_000005\.\w+ is .*another step's checkpoint \(it says step 2\)"),
    ("no such checkpoint", read_after(nothing, lambda r: r.load(7)), FileNotFoundError, r"no checkpoint 7; steps that it has: 1, 2"),
    ("no checkpoint yet", read_after(nothing, Run.model, steps=()), ValueError, r"no checkpoint yet: train it first"),
    ("full disk while saving", read_after(nothing, full_disk), OSError,
     r"disk full while writing .*step_000003\.\w+: the checkpoint before"),
    ("full disk when syncing", read_after(nothing, full_at_sync), OSError, r"disk full while writing .*free some space .* --resume"),
    ("broken disk while saving", read_after(nothing, broken_disk), OSError, r"cannot write .*step_000003\.\w+ \(input/output error\): the"),
    ("unwritable folder while saving", read_after(nothing, unwritable_folder), PermissionError,
     r"cannot write .*\(permission denied\): the"),
    ("tensor of a strange type", read_after(nothing, lambda r: r.save(3, {"x": torch.zeros(2, dtype=torch.complex128)}, {})), ValueError,
     r"x must be a tensor of a type that safetensors has, got torch\.complex128"),
    ("no tensor", read_after(nothing, lambda r: r.save(3, {"x": 1.5}, {})), ValueError, r"x must be a tensor .*, got float"),
    ("meta that JSON does not have", read_after(nothing, lambda r: r.save(3, {}, {"rng": b"x"})), ValueError,
     r"meta must hold JSON values"),
    ("negative step", read_after(nothing, lambda r: r.save(-1, {}, {})), ValueError, r"step must be a whole number, at least 0, got -1"),
    ("a name that is a path", read_after(nothing, lambda r: r.save(3, {}, {}, name="../x")), ValueError,
     r"name must be a word such as best"),
    ("full disk while logging", read_after(nothing, full_log), OSError, r"disk full while writing .*log\.jsonl: the checkpoint before"),
    ("damaged log", read_after(spoil_the_log, Run.records), ValueError, r"log\.jsonl line 1 is not a record: delete that line"),
    ("record without a step", read_after(nothing, lambda r: r.append({"loss": 1.0})), ValueError,
     r"record must have a whole number as its step"),
    ("weights missing", loaded_with(lambda t: t.pop("model.final_norm.weight")), ValueError, r"but model\.final_norm\.weight is missing"),
    ("weights too many", loaded_with(lambda t: t.update({"model.bias": torch.zeros(3)})), ValueError, r"model\.bias is not in the model"),
    ("weights of another shape", loaded_with(lambda t: t.update({"model.final_norm.weight": torch.zeros(6)})), ValueError,
     r"model\.final_norm\.weight must have shape \(7,\), got \(6,\)"),
]
