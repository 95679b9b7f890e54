"""From text to an exported model by commands alone; the flags are the fields of the two configurations."""

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minimodels import cli, commands
from minimodels.checkpoint import Run
from minimodels.cli import main, parser
from minimodels.config import PRESETS, ModelConfig, TrainConfig

ROOT = Path(__file__).parents[1]
TEXT = "".join(f"line {i} of a text that says little, {i * i % 97} times\n" for i in range(400))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a text and a run on it, made by the command itself."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("cli")
        patch.setenv("MINIMODELS_CACHE", str(place / "cache"))
        (place / "text.txt").write_text(TEXT)
        assert main(["train", "--preset", "unit", "--data", str(place / "text.txt"), "--out", str(place / "run"), "--steps", "30"]) == 0
        yield place


@pytest.fixture
def text_and_run(place, monkeypatch):
    monkeypatch.setenv("MINIMODELS_CACHE", str(place / "cache"))
    return str(place / "text.txt"), str(place / "run")


def test_train_scores_the_model_beside_two_compressors_and_shows_a_sample(text_and_run, tmp_path, capsys):
    text, _ = text_and_run
    assert main(["train", "--preset", "unit", "--data", text, "--out", str(tmp_path / "r"), "--steps", "3"]) == 0
    out, err = capsys.readouterr()
    scores = {line[:14].strip(): float(line[14:]) for line in out.splitlines() if line.startswith("  ")}
    assert list(scores) == ["this model", "lzma", "zlib"] and all(0 < bits < 20 for bits in scores.values())
    assert "line 381 of a text" in out and "a sample" in out
    assert "3/3" in err and "tokens/s" in err and "bits/byte" in err and "0.04M parameters, 0.03M active" in err


def test_generate_writes_the_text_alone_and_statistics_beside_it(text_and_run, capsys):
    _, run = text_and_run
    assert main(["generate", "--run", run, "--prompt", "line 38", "--max-new-tokens", "20"]) == 0
    plain, told = capsys.readouterr()
    model = Run.open(run).model()
    tokens = torch.tensor([model.tokenizer.encode("line 38").ids])
    for _ in range(20):  # one token at a time, without a cache
        with torch.inference_mode():
            tokens = torch.cat([tokens, model(tokens).logits[:, -1:].argmax(-1)], dim=1)
    assert plain == model.tokenizer.decode(tokens[0].tolist()) + "\n"
    assert told.startswith("20 tokens in ") and "tokens/s), 20 passes, cache" in told and told.count("\n") == 1

    assert main(["generate", "--run", run, "--prompt", "line 38", "--max-new-tokens", "20", "--draft", "mtp"]) == 0
    drafted, told = capsys.readouterr()
    assert drafted == plain and "of drafts accepted" in told


def test_generate_takes_what_the_context_leaves(text_and_run, capsys):
    _, run = text_and_run
    assert main(["generate", "--run", run, "--prompt", "line 38"]) == 0
    n_prompt = len(Run.open(run).tokenizer.encode("line 38").ids)
    assert capsys.readouterr().err.startswith(f"{128 - n_prompt} tokens")


def test_sampled_text_depends_on_its_seed_alone(text_and_run, capsys):
    def sampled(seed):
        main(["generate", "--run", text_and_run[1], "--prompt", "line", "--max-new-tokens", "30", "--temperature", "1", "--top-k", "40",
              "--top-p", "0.95", "--min-p", "0.01", "--seed", seed])
        return capsys.readouterr().out
    assert sampled("1") == sampled("1") != sampled("2")


def test_evaluate_repeats_the_score_of_training(text_and_run, capsys):
    text, run = text_and_run
    assert main(["evaluate", "--run", run]) == 0
    own = capsys.readouterr().out
    assert main(["evaluate", "--run", run, "--data", text]) == 0
    assert capsys.readouterr().out == own
    assert [line.split("  ")[0] for line in own.splitlines()] == ["bits per byte", "cache", "drafts accepted", "layer 1", "MTP 1"]
    assert "288 bytes a token in fp32 (72 values)" in own  # 2 layers x (32 + 4) values x 4 bytes
    assert main(["train", "--out", run, "--resume"]) == 0  # it is done, so only the report comes
    score = next(float(line.split()[-1]) for line in capsys.readouterr().out.splitlines() if "this model" in line)
    assert abs(float(own.split()[3]) - score) < 1e-3


def test_evaluate_reads_other_text_with_the_models_own_tokenizer(text_and_run, tmp_path, capsys):
    (tmp_path / "other.txt").write_text("Tyger Tyger, burning bright,\n" * 100)
    assert main(["evaluate", "--run", text_and_run[1], "--data", str(tmp_path / "other.txt")]) == 0
    other = float(capsys.readouterr().out.split()[3])
    assert main(["evaluate", "--run", text_and_run[1]]) == 0
    assert other > 1.5 * float(capsys.readouterr().out.split()[3])


@pytest.mark.parametrize("changes", [
    ["--max-seq-len", "8", "--seq-len", "8"], ["--mtp-depth", "0"], ["--n-experts", "0"], ["--mtp-depth", "2"], ["--fp8"],
    ["--no-tie-embeddings", "--attention", "mha"], ["--dtype", "bf16"], ["--seq-len", "3"]], ids=" ".join)
def test_every_command_takes_a_model_of_any_kind(text_and_run, tmp_path, changes, capsys):
    out = str(tmp_path / "r")
    assert main(["train", "--preset", "unit", "--data", text_and_run[0], "--out", out, "--steps", "2", *changes]) == 0
    assert main(["evaluate", "--run", out]) == 0
    assert main(["generate", "--run", out, "--prompt", "line"]) == 0
    assert "error" not in capsys.readouterr().err


def test_resume_needs_no_other_flag_and_works_from_another_folder(text_and_run, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(place)
    out = str(tmp_path / "r")
    with pytest.MonkeyPatch.context() as patch:
        def stop(bar, n):
            raise KeyboardInterrupt
        patch.setattr(commands.tqdm, "update", stop)  # a Ctrl-C between two steps
        argv = ["train", "--preset", "unit", "--data", "text.txt", "--out", out, "--steps", "9", "--fp8", "--no-tie-embeddings"]
        assert main(argv) == 130
    assert Run.open(out).latest().step == 1 and f"continue with: minimodels train --out {out} --resume" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--out", out, "--resume"]) == 0
    assert [r["step"] for r in Run.open(out).records()] == list(range(1, 10))
    kept = Run.open(out)
    assert kept.train_config.fp8 and not kept.model_config.tie_embeddings


def test_a_text_that_moved_is_still_the_runs_text(text_and_run, tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    assert main(["train", "--preset", "unit", "--data", str(tmp_path / "a.txt"), "--out", str(tmp_path / "r"), "--steps", "1"]) == 0
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    assert main(["train", "--data", str(tmp_path / "b.txt"), "--out", str(tmp_path / "r"), "--resume"]) == 0


@pytest.mark.slow
def test_an_export_loads_in_transformers_and_writes_the_same_text(text_and_run, tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    _, run = text_and_run
    assert main(["export", "--run", run, "--format", "hf", "--out", str(tmp_path / "hf")]) == 0
    assert capsys.readouterr().err.count("\n") == 1
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    prompt = tokenizer("line 38", return_tensors="pt")
    written = theirs.generate(**prompt, max_new_tokens=20, do_sample=False)
    assert main(["generate", "--run", run, "--prompt", "line 38", "--max-new-tokens", "20"]) == 0
    assert tokenizer.decode(written[0], skip_special_tokens=True) + "\n" == capsys.readouterr().out


def test_doctor_says_what_the_machine_is(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert torch.__version__ in out and "ier" in out and out.count("\n") >= 6


# ---- flags

def flags(command):
    """{flag: action} of one command."""
    commands = next(a for a in parser()._actions if getattr(a, "choices", None))
    return {option: action for action in commands.choices[command]._actions for option in action.option_strings}


def test_the_flags_of_train_are_the_fields_and_six_more():
    fields = {f.name for c in (ModelConfig, TrainConfig) for f in dataclasses.fields(c)}
    assert {a.dest for a in flags("train").values()} - fields == {"help", "preset", "data", "out", "resume", "device"}
    assert all(f"--{name.replace('_', '-')}" in flags("train") for name in fields)
    both = {f.name for f in dataclasses.fields(ModelConfig)} & {f.name for f in dataclasses.fields(TrainConfig)}
    assert not both  # or a flag would mean two things


def test_a_default_stands_in_the_configuration_alone():
    fields = {f.name for c in (ModelConfig, TrainConfig) for f in dataclasses.fields(c)}
    assert all(action.default == argparse.SUPPRESS for action in flags("train").values() if action.dest in fields)


@pytest.mark.parametrize("argv, changes", [
    ([], {}), (["--d-model", "64"], {"d_model": 64}), (["--fp8"], {"fp8": True}), (["--no-fp8"], {"fp8": False}),
    (["--no-tie-embeddings"], {"tie_embeddings": False}), (["--no-normalise-weights"], {"normalise_weights": False}),
    (["--lr", "1e-4", "--micro-batch", "2"], {"lr": 1e-4, "micro_batch": 2}), (["--d-query-latent", "8"], {"d_query_latent": 8}),
    (["--balance", "bias+sequence"], {"balance": "bias+sequence"}), (["--final-lr", "0"], {"final_lr": 0.0}),
], ids=str)
@pytest.mark.parametrize("preset", [None, "unit", "t4"])
def test_a_flag_changes_its_field_and_no_other(preset, argv, changes):
    options = parser().parse_args(["train", "--out", "x", *(["--preset", preset] if preset else []), *argv])
    for config_class, got in zip((ModelConfig, TrainConfig), commands.configs(options)):
        names = {f.name for f in dataclasses.fields(config_class)}
        assert got == dataclasses.replace(config_class.preset(preset or "cpu"), **{k: v for k, v in changes.items() if k in names})


def test_none_is_a_value_and_not_a_flag_that_is_missing(monkeypatch):
    monkeypatch.setitem(PRESETS[ModelConfig], "cpu", {"d_query_latent": 24})
    assert commands.configs(parser().parse_args(["train", "--out", "x"]))[0].d_query_latent == 24
    options = parser().parse_args(["train", "--out", "x", "--d-query-latent", "none"])
    assert commands.configs(options)[0].d_query_latent is None


@pytest.mark.parametrize("argv", [[], ["train"], ["generate"], ["evaluate"], ["export"], ["doctor"]], ids=" ".join)
def test_help_says_what_there_is(argv, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*argv, "--help"])
    out = capsys.readouterr().out
    assert ended.value.code == 0 and out.startswith(" ".join(["usage: minimodels", *argv]))
    wanted = ["train", "generate", "evaluate", "export", "doctor"] if not argv else list(flags(argv[0]))
    assert all(word in out for word in wanted)


# ---- the process

def test_the_module_is_the_command():
    argv = [sys.executable, "-m", "minimodels", "train", "--steps", "x", "--out", "y"]
    run = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2 and run.stdout == "" and run.stderr.count("\n") == 1
    assert run.stderr.startswith("minimodels: error: argument --steps: ")


def test_an_interrupt_before_anything_is_made_is_status_130(monkeypatch, capsys, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(commands, "prepare", stop)
    assert main(["train", "--out", str(tmp_path / "r")]) == 130
    assert capsys.readouterr().err == "minimodels: stopped\n" and not (tmp_path / "r").exists()


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch, tmp_path):
    monkeypatch.setattr(cli, "run_doctor", commands.run_doctor)
    monkeypatch.setattr(commands.lab, "doctor", lambda: 1 / torch.ones(2).view(3))
    with pytest.raises(RuntimeError, match="shape"):
        main(["doctor"])


def test_a_traceback_comes_when_it_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIMODELS_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        main(["evaluate", "--run", str(tmp_path)])


def test_a_run_says_what_it_was_trained_on(text_and_run):
    text, run = text_and_run
    data = json.loads((Path(run) / "config.json").read_text())["data"]
    assert data["source"] == text and data["name"] == "text.txt" and len(data["train_sha256"]) == 64
