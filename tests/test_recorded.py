"""What lies in data/: the recorded runs, their weights, and the sentences that quote them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from minimodels.checkpoint import Run
from minimodels.cli import parser
from minimodels.commands import configs
from minimodels.config import ModelConfig, TrainConfig
from minimodels.data import token_bytes
from minimodels.evaluate import evaluate
from minimodels.model import Transformer
from minimodels.solve import accuracy
from minimodels.studies import grpo as study

DATA = Path(__file__).parents[1] / "data"
RUNS = sorted(path.stem for path in (DATA / "runs").glob("*.json") if "records" in json.loads(path.read_text()))
TEXT = '''def read_lines(path, encoding="utf-8"):
    """Return the lines of the file at path, without their line breaks."""
    with open(path, encoding=encoding) as file:
        return [line.rstrip("\\n") for line in file]
'''


def recorded(name):
    return json.loads((DATA / "runs" / f"{name}.json").read_text())


@pytest.mark.parametrize("name", RUNS)
def test_a_recorded_run_says_how_to_make_it_again(name):
    run = recorded(name)
    assert run["command"].startswith("minimodels train") and len(run["commit"]) == 40 and run["machine"]["cpu"] and run["machine"]["torch"]
    steps = [r["step"] for r in run["records"]]
    assert steps == sorted(steps) and run["records"][-1]["tokens"] == run["tokens"] and run["records"][-1]["loss"] < run["records"][0]["loss"]


@pytest.mark.parametrize("name", RUNS)
def test_the_command_of_a_recorded_run_gives_its_settings(name):
    run = recorded(name)
    model, training = configs(parser().parse_args(run["command"].split()[1:]))
    assert (model.to_dict(), training.to_dict()) == (run["model"], run["train"])


def test_the_recorded_run_of_the_cpu_preset_is_that_of_todays_preset():
    run = recorded("cpu-stdlib")
    assert ModelConfig.from_dict(run["model"]) == ModelConfig.preset("cpu") and TrainConfig.from_dict(run["train"]) == TrainConfig.preset("cpu")
    assert run["bits_per_byte"] < 1.50 < run["lzma"] < run["zlib"] and run["seconds"] < 8 * 60


@pytest.mark.parametrize("name", ["cpu-stdlib", "cpu-long", "yardstick", "together"])
def test_the_recorded_weights_have_learnt_python(name):
    run = Run.open(DATA / "checkpoints" / name)
    tokens = torch.tensor([0, *run.tokenizer.encode(TEXT).ids])
    n_bytes = int(token_bytes(run.tokenizer)[tokens[1:].numpy()].sum())
    assert n_bytes == len(TEXT)
    torch.manual_seed(0)
    learnt, fresh = (evaluate(m, tokens, n_bytes=n_bytes, seq_len=256).bits_per_byte for m in (run.model(), Transformer(run.model_config)))
    assert learnt < 2 < fresh


@pytest.mark.parametrize("name, preset, steps", [("cpu-long", "cpu", 10_000), ("yardstick", "yardstick", 6000), ("together", "together", 6000)])
def test_a_long_run_is_its_preset_with_more_steps_and_its_readme_row_is_its_score(name, preset, steps):
    run, row = recorded(name), (DATA / "README.md").read_text("utf8")
    assert ModelConfig.from_dict(run["model"]) == ModelConfig.preset(preset)
    assert TrainConfig.from_dict(run["train"]) == replace(TrainConfig.preset(preset), steps=steps)
    assert f"| {run['bits_per_byte']:.3f} | {run['tokens']:,} | {run['seconds'] / 60:.1f} |" in row


def test_readmes_quote_the_recorded_run():
    run = recorded("cpu-stdlib")
    readme, of_data = (path.read_text("utf8") for path in (DATA.parent / "README.md", DATA / "README.md"))
    for text in (f"**{run['bits_per_byte']:.3f} bits per byte**", f"after {run['seconds'] / 60:.1f} minutes", f"lzma needs {run['lzma']:.3f}",
                 f"zlib {run['zlib']:.3f}"):
        assert text in readme
    start = " ".join((DATA.parent / "chapters" / "00_start.py").read_text("utf8").replace("\n#", " ").split())
    assert f"reached {run['bits_per_byte']:.2f} bits per byte, where lzma needs {run['lzma']:.2f} and zlib {run['zlib']:.2f}" in start
    assert f"| {run['bits_per_byte']:.3f} | {run['tokens']:,} | {run['seconds'] / 60:.1f} |" in of_data


def test_all_checkpoints_together_stay_below_40_mb():
    assert sum(path.stat().st_size for path in (DATA / "checkpoints").rglob("*")) < 40e6


def test_the_solver_solves_new_sums_and_its_row_says_how_many():
    run = Run.open(DATA / "checkpoints" / "solver")
    model, new = run.model().eval(), study.evaluation(study.N_EVAL)
    share = accuracy(model, new)
    assert model.config == study.MODEL and share > 0.98
    assert f"| `solver` | 1 | {share:.1%}".replace("%", " %") in (DATA / "README.md").read_text("utf8")
