"""A run: a folder with a configuration, a tokenizer, a log, and checkpoints that survive a kill at any moment.

    runs/a/config.json   version, model, train, data      runs/a/log.jsonl      a record a line
    runs/a/tokenizer.json                                 runs/a/checkpoints/step_000100.safetensors

config.json and every checkpoint carry a seal (see disk.py), and config.json holds the tokenizer's SHA-256: a file that was cut or
altered is refused by name. Nothing is ever unpickled. Left out: checkpoints in several parts.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor, nn

from minimodels.config import ModelConfig, TrainConfig
from minimodels.disk import NO_SEAL, Lock, check_seal, clear_errors, safetensors_chunks, second_name, to_json, write
from minimodels.model import Transformer

VERSION = 1
N_KEPT = 2        # checkpoints, the newest ones; a named one is kept besides
MODEL = "model."  # begins the names of a model's tensors; train.py puts the optimizer's beside them
FIELDS = {"seal": str, "version": int, "model": dict, "train": dict, "data": dict, "tokenizer_sha256": (str, type(None))}  # of config.json
RESTORE = "put the file back as it was, or start another run with --out"
GO_ON = "the checkpoint before it is kept; free some space or mend the folder, then continue with --resume"


class Checkpoint(NamedTuple):
    """What a run needs to go on after `step` steps: tensors by name, on the CPU, and meta, plain values."""

    step: int
    tensors: dict[str, Tensor]
    meta: dict


class Run:
    """A run's folder: `create` or `open` it, then `save`, `append`, `latest`, `model`.

    Opening is reading. The first write makes this process the run's only writer (`lock`) until `close`, the end of a `with`, or
    the process's end, however it comes. warnings: a line for each checkpoint that was passed over, also printed once on stderr.
    """

    def __init__(self, directory: Path, model_config: ModelConfig, train_config: TrainConfig, tokenizer: Tokenizer | None, data: dict,
                 seal: str):
        self.directory = directory
        self.model_config, self.train_config, self.data = model_config, train_config, data
        self.tokenizer = tokenizer
        self.warnings = []
        self._log, self._checkpoints = directory / "log.jsonl", directory / "checkpoints"
        self._seal = seal    # config.json's, which every checkpoint repeats
        self._good = set()   # steps that this process wrote or read
        self._lock = Lock(directory / "run.lock")

    @classmethod
    def create(cls, directory: str | Path, model_config: ModelConfig, train_config: TrainConfig, tokenizer: Tokenizer | None = None, *,
               data: dict | None = None) -> "Run":
        """A new run in directory, which may exist but must hold no run. data: plain values that say what it is trained on.

        Raises FileExistsError (there is a run), NotADirectoryError (a file is in the way), PermissionError, OSError (disk full, or
        another process is at it), ValueError (data is not JSON), each with the cure.
        """
        directory, data = Path(directory).expanduser(), data or {}
        text = None if tokenizer is None else tokenizer.to_str().encode()
        sha256 = None if text is None else hashlib.sha256(text).hexdigest()
        config = to_json({"seal": NO_SEAL, "version": VERSION, "model": model_config.to_dict(), "train": train_config.to_dict(),
                          "data": data, "tokenizer_sha256": sha256}, "data", indent=1)
        run = cls(directory, model_config, train_config, tokenizer, json.loads(config)["data"], "")
        made = []
        try:
            with clear_errors(directory, "choose another --out"):
                made = [path for path in (run._checkpoints, directory, *directory.parents) if not path.exists()]
                run._checkpoints.mkdir(parents=True, exist_ok=True)
                run.lock()
                run._refuse_an_old_one()
                if text is not None:
                    write(directory / "tokenizer.json", [text])
                run._seal = write(directory / "config.json", [config], sealed=True)  # last, because it makes the folder a run
        except BaseException as error:
            if directory in made and not isinstance(error, FileExistsError):
                run._remove(made)
            run.close()
            raise
        return run

    def _remove(self, made):
        """Take back a run that could not be made, if nobody else is at it: its files, then the folders made for it."""
        with contextlib.suppress(OSError):
            if self._lock.take() is None:
                for name in ("config.json", "tokenizer.json", "run.lock"):
                    (self.directory / name).unlink(missing_ok=True)
        for path in made:
            with contextlib.suppress(OSError):  # somebody has put something there
                path.rmdir()

    def _refuse_an_old_one(self):
        if (self.directory / "config.json").exists():
            raise FileExistsError(f"{self.directory} already holds a run: continue it with --resume, or choose another --out")
        if self._steps() or self._log.exists():
            raise FileExistsError(f"{self.directory} holds the log or checkpoints of a run, but no config.json: choose another --out")

    @classmethod
    def open(cls, directory: str | Path) -> "Run":
        """The run in directory, checked.

        Raises FileNotFoundError (no run, no tokenizer.json) and ValueError, naming file and field: cut, altered, another version,
        fields or values that a configuration refuses.
        """
        directory = Path(directory).expanduser()
        path = directory / "config.json"
        if not path.is_file():
            raise FileNotFoundError(f"{directory} holds no run, because it has no config.json: give the folder that --out named")
        try:
            values = json.loads(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path} was cut or altered, because it is not JSON ({error}): {RESTORE}") from None
        try:
            model_config, train_config = _parse(values)
        except ValueError as error:
            raise ValueError(f"{path} cannot be used, because {error}: {RESTORE}") from None
        seal = check_seal(path, RESTORE)
        tokenizer = _read_tokenizer(directory / "tokenizer.json", values["tokenizer_sha256"])
        return cls(directory, model_config, train_config, tokenizer, values["data"], seal)

    def check_same(self, model_config: ModelConfig, train_config: TrainConfig, data: dict | None = None):
        """Raise ValueError, naming each field that differs with both values, unless the run was made with these settings.

        All of them count: `steps` too, because the learning rate's schedule depends on it. data is compared if it is given.
        """
        pairs = [("", self.model_config.to_dict(), model_config.to_dict()), ("", self.train_config.to_dict(), train_config.to_dict())]
        if data is not None:
            pairs.append(("data ", self.data, json.loads(to_json(data, "data"))))
        differ = [f"{prefix}{name}={old.get(name)!r}, not {new.get(name)!r}" for prefix, old, new in pairs
                  for name in old | new if old.get(name) != new.get(name)]
        if differ:
            raise ValueError(f"{self.directory} was made with {'; '.join(differ)}: "
                             "resume with the run's own settings, or choose another --out")

    def lock(self):
        """Make this process the run's only writer. Raises OSError with the other's process number and machine if there is one."""
        with clear_errors(self._lock.path, "choose another --out"):
            holder = self._lock.take()
        if holder:
            raise OSError(f"{self.directory} is being written by {holder}: wait for its end, or choose another --out")

    def close(self):
        """Let another process write."""
        self._lock.drop()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def save(self, step: int, tensors: dict[str, Tensor], meta: dict, *, name: str | None = None):
        """Make this the run's latest checkpoint; once it is safe on disk, all others go but the newest good one before it.

        tensors: of any shape and layout, on any device; two names of one tensor (tied weights) are stored once. meta: JSON values.
        With a name ("best") the checkpoint is kept under that name too, until the next of that name.
        Raises OSError (disk full, not writable): then the checkpoints before it are untouched. ValueError for a tensor of a type
        that safetensors does not have, or meta that is not JSON.
        """
        if not isinstance(step, int) or step < 0:
            raise ValueError(f"step must be a whole number, at least 0, got {step!r}")
        if name is not None and (not name.isidentifier() or name.startswith("step_")):
            raise ValueError(f"name must be a word such as best, got {name!r}")
        chunks = safetensors_chunks(tensors, {"run": self._seal, "step": step, "meta": meta})
        path = self._path(step)
        self.lock()
        with clear_errors(path, GO_ON):
            with open(self._log, "ab") as log:
                os.fsync(log.fileno())  # a checkpoint on disk implies its records on disk
            write(path, chunks, sealed=True)
            self._good.add(step)
            if name is not None:
                second_name(path, self._path(name))
            self._prune(step)

    def _prune(self, step):
        """Remove the checkpoints that are no longer wanted, and what a kill left half-written."""
        kept = {step}
        for other in reversed(self._steps()):
            # a later one is from before the run was taken back to an earlier step
            if other < step and len(kept) < N_KEPT and self._is_good(other):
                kept.add(other)
        for path in [self._path(s) for s in self._steps() if s not in kept] + list(self._checkpoints.glob("*.tmp")):
            path.unlink()
        self._good &= kept

    def _is_good(self, step):
        try:
            return step in self._good or bool(check_seal(self._path(step), ""))
        except ValueError:
            return False

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; None if there is none at all. A damaged one is passed over with a line on stderr.

        Raises ValueError, naming them, if there are checkpoints and all are damaged.
        """
        refused = {}
        while steps := [s for s in self._steps() if s not in refused]:
            try:
                return self.load(steps[-1])
            except FileNotFoundError:
                continue  # its writer removed it after it was listed
            except (ValueError, OSError) as error:
                refused[steps[-1]] = str(error)
                self._warn(f"{error}; the one before it is taken instead")
        if refused:
            raise ValueError(f"{self.directory} has no checkpoint that can be read: {'; '.join(refused.values())}")
        return None

    def _warn(self, text):
        if text not in self.warnings:
            self.warnings.append(text)
            print(f"minimodels: {text}", file=sys.stderr)

    def load(self, step: int | str) -> Checkpoint:
        """The checkpoint of a step, or of a name. Raises ValueError if it is damaged, FileNotFoundError if there is none."""
        path = self._path(step)
        if not path.is_file():
            there = ", ".join(map(str, self._steps())) or "none"
            raise FileNotFoundError(f"{self.directory} has no checkpoint {step}; steps that it has: {there}")
        check_seal(path, "it is not used")
        with safe_open(path, framework="pt") as file:
            note = json.loads(file.metadata()["minimodels"])
            # copies, because what safe_open gives lies in the mapped file
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        if note["run"] != self._seal or isinstance(step, int) and note["step"] != step:
            raise ValueError(f"{path} is another run's or another step's checkpoint (it says step {note['step']}): it is not used")
        tensors |= {name: tensors[twin] for name, twin in note["twins"].items()}
        self._good.add(note["step"])
        return Checkpoint(note["step"], tensors, note["meta"])

    def model(self) -> Transformer:
        """The model with the latest good weights, in evaluation mode, on the CPU, with the run's tokenizer.

        Raises ValueError if no checkpoint was saved yet, or none can be read.
        """
        checkpoint = self.latest()
        if checkpoint is None:
            raise ValueError(f"{self.directory} has no checkpoint yet: train it first, with --resume")
        with torch.random.fork_rng(devices=[]):  # the weights drawn here are thrown away, and nobody's draws change
            model = Transformer(self.model_config)
        load_model_tensors(model, checkpoint.tensors)
        model.tokenizer = self.tokenizer
        return model.eval()

    def append(self, record: dict):
        """Add a line to the log. record: JSON values, tensors, arrays; its "step" counts the steps done, as a checkpoint's does."""
        if not isinstance(record.get("step"), int):
            raise ValueError(f"record must have a whole number as its step, got {record.get('step')!r}")
        line = to_json(record, "record") + b"\n"
        self.lock()
        with clear_errors(self._log, GO_ON), open(self._log, "ab") as log:
            log.write(line)

    def records(self) -> list[dict]:
        """The log's records; a last line that was cut is left out. Raises ValueError naming any other line that is no record."""
        records = [_record(line) for line in self._lines()]
        if None in records:
            raise ValueError(f"{self._log} line {records.index(None) + 1} is not a record: delete that line")
        return records

    def truncate_log(self, step: int):
        """Keep the records up to step (that one too), in order to go on from its checkpoint; lines that are no records go too."""
        self.lock()
        kept = [line + b"\n" for line in self._lines() if (_record(line) or {"step": math.inf})["step"] <= step]
        with clear_errors(self._log, GO_ON):
            write(self._log, kept)

    def _lines(self):
        return self._log.read_bytes().split(b"\n")[:-1] if self._log.exists() else []

    def _path(self, step):
        return self._checkpoints / (f"step_{step:06d}.safetensors" if isinstance(step, int) else f"{step}.safetensors")

    def _steps(self):
        """The steps that have a checkpoint file, in order."""
        found = [re.fullmatch(r"step_(\d{6,})\.safetensors", path.name) for path in self._checkpoints.glob("step_*") if path.is_file()]
        return sorted(int(match[1]) for match in found if match)


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's parameters and kept buffers under names that begin with "model.": the tensors themselves, not copies."""
    return {MODEL + name: tensor.detach() for name, tensor in model.state_dict().items()}


def load_model_tensors(model: nn.Module, tensors: dict[str, Tensor]):
    """Copy into the model all tensors whose names begin with "model."; others are not looked at.

    Raises ValueError, naming them, for tensors that are missing, that the model does not have, or that have another shape.
    """
    wanted = model_tensors(model)
    given = {name: tensor for name, tensor in tensors.items() if name.startswith(MODEL)}
    faults = [f"{name} is missing" for name in wanted if name not in given]
    faults += [f"{name} is not in the model" for name in given if name not in wanted]
    faults += [f"{name} must have shape {tuple(wanted[name].shape)}, got {tuple(tensor.shape)}"
               for name, tensor in given.items() if name in wanted and wanted[name].shape != tensor.shape]
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise ValueError(f"tensors must be those of the model, but {'; '.join(faults[:5])}{more}")
    for name, tensor in given.items():
        wanted[name].copy_(tensor)


def _parse(values):
    """The model's and the training's configuration in config.json's values."""
    if not isinstance(values, dict) or "version" not in values:
        raise ValueError("version is missing")
    if values["version"] != VERSION:
        raise ValueError(f"version must be {VERSION}, got {values['version']!r}")
    for name in FIELDS | values:
        if name not in FIELDS:
            raise ValueError(f"{name!r} is not a field; its fields are {', '.join(FIELDS)}")
        if not isinstance(values.get(name, ...), FIELDS[name]):
            raise ValueError(f"{name} is missing or of the wrong type")
    return ModelConfig.from_dict(values["model"]), TrainConfig.from_dict(values["train"])


def _read_tokenizer(path, sha256):
    if sha256 is None:
        return None
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {RESTORE}")
    text = path.read_bytes()
    if hashlib.sha256(text).hexdigest() != sha256:
        raise ValueError(f"{path} was cut or altered (its SHA-256 is not the one in config.json): {RESTORE}")
    return Tokenizer.from_str(text.decode())


def _record(line):
    """The record in a line of the log; None if there is none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None
