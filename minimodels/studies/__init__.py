"""Recorded experiments: a study is a list of trials, and its file is its memory, so that it can be stopped and goes on.

`minimodels study mla-quality` runs what its file, data/runs/mla-quality.json, does not hold yet. A chapter's studies stand in
`minimodels/studies/<word>.py`, in a list STUDIES. A trial has an `arm` (what is compared), a `seed`, `settings()`, plain values
that say exactly what is run, and `run()`, which returns plain values.
"""

import importlib
import json
import multiprocessing
import pkgutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from minimodels import disk, lab
from minimodels.bugs import plant
from minimodels.config import ModelConfig, TrainConfig
from minimodels.data import Batches, Dataset, prepare
from minimodels.evaluate import evaluate
from minimodels.model import Transformer
from minimodels.train import train as train_model  # a submodule of this package is called train


@dataclass(frozen=True, kw_only=True)
class Training:
    """Train one model on a corpus and score it on the corpus's validation text.

    max_bytes: how much of the corpus to use; None: all. curve: [tokens seen, bits per byte] after every training.eval_every steps.
    """

    arm: str
    seed: int
    model: ModelConfig
    training: TrainConfig
    data: str = "stdlib"
    max_bytes: int | None = None

    def settings(self) -> dict:
        training = {name: value for name, value in self.training.to_dict().items() if name != "seed"}
        return {"data": self.data, "max_bytes": self.max_bytes, "model": self.model.to_dict(), "training": training}

    def build(self) -> Transformer:
        torch.manual_seed(self.seed)
        return Transformer(self.model)

    def run(self) -> dict:
        data = prepare(self.data, self.model.vocab_size, max_bytes=self.max_bytes)
        model, config = self.build(), self.training
        batches = Batches(data.train, batch_size=config.batch_size, seq_len=config.seq_len, seed=self.seed)
        records = list(train_model(model, batches, config, valid=data))
        score = evaluate(model, data.valid, n_bytes=data.valid_bytes, seq_len=config.seq_len)
        return {"bits_per_byte": round(score.bits_per_byte, 5), "n_params": self.model.n_params, "tokens": records[-1].tokens,
                "cached_values_per_layer": self.model.cached_values_per_layer, "valid_bytes": data.valid_bytes,
                "curve": [[r.tokens, round(r.valid_bits_per_byte, 4)] for r in records if r.valid_bits_per_byte is not None]} | self.examine(model, data)

    def examine(self, model: Transformer, data: Dataset) -> dict:
        """What else to record of the trained model; nothing here."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Planted(Training):
    """Training with a bug planted in every part that it spoils; None leaves the model right. A subclass says which BUGS there are."""

    BUGS: ClassVar[dict[str, type]]

    bug: str | None = None

    def settings(self) -> dict:
        return super().settings() | {"bug": self.bug}

    def build(self) -> Transformer:
        return plant(super().build(), self.BUGS[self.bug]) if self.bug else super().build()


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question, and the trials that answer it. is_timing: trials run one after another, because they measure time.

    is_planned: nobody has recorded the whole of it yet, so no chapter may read it.
    """

    name: str
    question: str
    trials: tuple
    is_timing: bool = False
    is_planned: bool = False


def studies() -> dict[str, Study]:
    """Every study of the book, by name."""
    modules = (importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    return {study.name: study for module in modules for study in module.STUDIES}


def find(name: str) -> Study:
    """The study called name. Raises ValueError with the names that there are."""
    known = studies()
    if name not in known:
        raise ValueError(f"a study must be one of {', '.join(known)}, got {name!r}")
    return known[name]


def recorded(name: str, folder: Path | None = None) -> dict:
    """What NAME.json of the folder (data/runs) holds: name, question, arms {arm: settings} and trials, a dictionary each.

    Raises FileNotFoundError with the command that makes the file.
    """
    path = (folder or lab.data_file("runs")) / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} must exist; make it with: minimodels study {name}")
    return json.loads(path.read_text("utf8"))


def run_study(study: Study, path: Path, *, jobs: int = 2) -> Iterator[dict]:
    """Run the trials that the file at path does not hold, add each to the file as it ends, and yield it.

    jobs: trials side by side, one thread each; a study of times runs alone. Stopping loses only the trials under way.
    Raises ValueError if the file was made with other settings, before anything is run.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    kept = _read(study, path)
    missing = [trial for trial in study.trials if (trial.arm, trial.seed) not in {(t["arm"], t["seed"]) for t in kept["trials"]}]
    results = map(_timed, missing) if study.is_timing else _side_by_side(missing, jobs)
    for trial in results:
        order = [(t.arm, t.seed) for t in study.trials]
        kept["trials"] = sorted([*kept["trials"], trial], key=lambda t: order.index((t["arm"], t["seed"])))
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.write(path, [_lines(kept).encode()])
        yield trial


def _read(study, path):
    """The file's contents, or those of a new one. Raises ValueError if an arm's settings are no longer the study's."""
    arms = {trial.arm: trial.settings() for trial in study.trials}
    fresh = {"study": study.name, "question": study.question, "command": f"minimodels study {study.name}", "arms": arms, "trials": []}
    if not path.exists():
        return fresh
    kept = json.loads(path.read_text("utf8"))
    for arm, settings in kept["arms"].items():
        if arm in arms and settings != json.loads(json.dumps(arms[arm])):
            raise ValueError(f"settings of arm {arm!r} in {path} must be the study's, got others: delete the file to measure it anew")
    return fresh | {"trials": [t for t in kept["trials"] if t["arm"] in arms]}


def _lines(kept):
    """JSON with one line a trial: readable, and a change shows in a diff."""
    head = json.dumps({**kept, "trials": []}, indent=1)
    rows = ",\n".join("  " + json.dumps(trial) for trial in kept["trials"])
    return head.removesuffix("[]\n}") + f"[\n{rows}\n ]\n}}\n"


def _side_by_side(trials, jobs):
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        under_way = [pool.submit(_alone, trial) for trial in trials]
        try:
            for future in as_completed(under_way):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _alone(trial):
    torch.set_num_threads(1)
    return _timed(trial)


def _timed(trial):
    here = lab.machine()
    hardware = f"{here['cpu']}, {here['cores']} cores, {here['threads']} thread{'s' * (here['threads'] > 1)}, torch {here['torch']}, Python {here['python']}"
    return {"arm": trial.arm, "seed": trial.seed, "commit": lab.commit(), "hardware": hardware} | trial.run()
