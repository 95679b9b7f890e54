"""Studies: a file that is the memory, settings that may not change behind it, and definitions that are what they say."""

import json
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from minimodels import lab, studies
from minimodels.cli import main
from minimodels.config import ModelConfig, TrainConfig
from minimodels.model import Transformer
from minimodels.studies import Study, Training, recorded, run_study
from minimodels.studies.mla import BASE, BEST_RATE, RATES, SCHEMES, schemes_at, squeeze, with_attention


@dataclass(frozen=True, kw_only=True)
class Squares:
    """A trial that costs nothing, and that fails for a negative seed."""

    arm: str
    seed: int
    power: int = 2

    def settings(self):
        return {"power": self.power}

    def run(self):
        if self.seed < 0:
            raise ArithmeticError("negative")
        return {"result": self.seed**self.power}


def study(*seeds, power=2):
    return Study(name="squares", question="How big?", is_timing=True, trials=tuple(Squares(arm="a", seed=s, power=power) for s in seeds))


def test_a_study_runs_only_what_its_file_lacks(tmp_path):
    path = tmp_path / "new" / "squares.json"
    assert [t["result"] for t in run_study(study(3), path)] == [9]
    assert [t["result"] for t in run_study(study(2, 3, 5), path)] == [4, 25]
    kept = json.loads(path.read_text())
    assert [(t["seed"], t["result"]) for t in kept["trials"]] == [(2, 4), (3, 9), (5, 25)]
    assert kept["command"] == "minimodels study squares" and kept["arms"] == {"a": {"power": 2}}
    assert all(t["hardware"] and "commit" in t for t in kept["trials"])
    assert len(path.read_text().splitlines()) == len(json.dumps({**kept, "trials": []}, indent=1).splitlines()) + 4    # a line a trial


def test_what_was_finished_before_a_failure_is_kept(tmp_path):
    path = tmp_path / "squares.json"
    with pytest.raises(ArithmeticError):
        list(run_study(study(4, -1, 6), path))
    assert [t["result"] for t in json.loads(path.read_text())["trials"]] == [16]


def test_a_file_of_other_settings_is_refused_and_stays(tmp_path):
    path = tmp_path / "squares.json"
    list(run_study(study(3), path))
    before = path.read_text()
    with pytest.raises(ValueError, match="settings of arm 'a' in .* delete the file"):
        list(run_study(study(3, 4, power=3), path))
    assert path.read_text() == before


def test_trials_side_by_side_are_those_of_one_process(tmp_path):
    config = ModelConfig.preset("unit")
    recipe = replace(TrainConfig.preset("unit"), steps=3, eval_every=2)
    (tmp_path / "text.txt").write_text("\n".join(f"def f{i}(x): return x + {i}" for i in range(4000)))
    trials = tuple(Training(arm="unit", seed=s, model=config, training=replace(recipe, seed=s), data=str(tmp_path / "text.txt"))
                   for s in (1, 2))
    both = list(run_study(Study(name="tiny", question="?", trials=trials), tmp_path / "tiny.json", jobs=2))
    alone = [trial.run() for trial in trials]
    key = {t["seed"]: t for t in both}
    assert [key[1]["curve"], key[2]["curve"]] == [a["curve"] for a in alone] and alone[0] != alone[1]
    assert [tokens for tokens, _ in alone[0]["curve"]] == [2 * recipe.batch_size * recipe.seq_len]
    assert alone[0]["tokens"] == 3 * recipe.batch_size * recipe.seq_len


@pytest.mark.parametrize("arguments, rule", [
    (["study", "mla-qualty"], "a study must be one of .*mla-rates, .*got 'mla-qualty'"),
    (["study", "mla-rates", "--jobs", "0"], "jobs must be at least 1, got 0"),
])
def test_a_wrong_study_or_number_of_jobs_is_one_line(arguments, rule, capsys, tmp_path):
    assert main([*arguments, "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and pytest.importorskip("re").search(rule, told)
    assert not list(tmp_path.iterdir())


def test_studies_are_listed(capsys):
    assert main(["study"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in studies.studies())


def test_a_study_that_was_not_recorded_says_how_to_make_it(monkeypatch, tmp_path):
    monkeypatch.setattr(lab, "data_file", lambda name: tmp_path / name)
    with pytest.raises(FileNotFoundError, match="minimodels study mla-rates"):
        recorded("mla-rates")


# ---- chapter 06

def test_the_four_models_have_as_many_parameters():
    counts = [with_attention(scheme).n_params for scheme in SCHEMES]
    assert max(counts) / min(counts) < 1.001
    # by hand: eight heads of 16, two groups, one head, and a latent of 64 with a rotary key of 8
    assert [with_attention(scheme).cached_values_per_layer for scheme in SCHEMES] == [2 * 8 * 16, 2 * 2 * 16, 2 * 16, 64 + 8]
    assert BASE.d_latent == 4 * BASE.d_head and BASE.d_rope == BASE.d_head / 2    # DeepSeek's ratios, 512 : 128 and 64 : 128


def test_each_scheme_has_the_rate_that_its_search_found_best():
    trials = recorded("mla-rates")["trials"]
    score = {t["arm"]: t["bits_per_byte"] for t in trials}
    assert BEST_RATE == {scheme: min(RATES, key=lambda rate: score[f"{scheme} {rate:g}"]) for scheme in SCHEMES}


def test_schemes_are_timed_in_deepseeks_ratios():
    for name, (config, absorb) in schemes_at(768).items():
        assert (config.d_model, config.n_heads * config.d_head, config.d_latent, config.d_rope) == (768, 768, 256, 32)
        assert (absorb is None) == (config.attention != "mla"), name
    assert schemes_at(768)["GQA"][0].kv_heads == 4


@pytest.mark.parametrize("name", sorted(name for name, study in studies.studies().items() if not study.is_planned))
def test_recorded_files_hold_the_whole_study_and_its_settings(name):
    kept, wanted = recorded(name), studies.find(name)
    assert [(t["arm"], t["seed"]) for t in kept["trials"]] == [(t.arm, t.seed) for t in wanted.trials]
    assert kept["arms"] == json.loads(json.dumps({t.arm: t.settings() for t in wanted.trials}))


def test_no_chapter_reads_a_study_that_is_only_planned():
    planned = [name for name, study in studies.studies().items() if study.is_planned]
    chapters = {path.name: path.read_text("utf8") for path in (Path(__file__).parent.parent / "chapters").glob("*.py")}
    assert not [(name, chapter) for name in planned for chapter, text in chapters.items() if f'recorded("{name}")' in text]


def test_the_recorded_live_run_is_the_band():
    bands = json.loads(lab.data_file("bands.json").read_text())["mla"]
    for arm in ("mha", "mla"):
        values = [t["bits_per_byte"] for t in recorded("mla-live")["trials"] if t["arm"] == arm]
        band = bands[f"{arm} after 60 steps"]["tiers"]["cpu"]
        mean, spread = statistics.mean(values), statistics.stdev(values)
        assert band["n_runs"] == len(values) >= 5
        assert [band["mean"], band["low"], band["high"]] == pytest.approx([mean, mean - 3 * spread, mean + 3 * spread], abs=5e-4)


def test_a_squeezed_model_has_the_rank_that_was_asked_and_with_all_directions_is_the_same():
    torch.manual_seed(0)
    config = replace(BASE, attention="mha", n_layers=2, vocab_size=97)
    model, tokens = Transformer(config), torch.randint(0, 97, (3, 50))
    before = model(tokens).logits

    def rank(model):
        return [torch.linalg.matrix_rank(torch.cat([b.attention.w_k.weight, b.attention.w_v.weight]), rtol=1e-4).item() for b in model.layers]

    assert rank(squeeze(model, tokens, 5)) == [5, 5]
    assert torch.allclose(squeeze(model, tokens, 256)(tokens).logits, before, atol=1e-4)
    assert not torch.allclose(squeeze(model, tokens, 5)(tokens).logits, before, atol=1e-2)
    assert torch.equal(model(tokens).logits, before)    # the model itself stays as it was


def test_the_figures_that_chapter_06_writes_are_those_of_the_recorded_runs():
    text = " ".join((lab.data_file("").parent / "chapters" / "06_mla.py").read_text("utf8").replace("\n# > ", " ").replace("\n#", " ").split())
    score = {arm: [t["bits_per_byte"] for t in recorded("mla-quality")["trials"] if t["arm"] == arm] for arm in SCHEMES}
    more = {arm: [a - b for a, b in zip(score[arm], score["mha"])] for arm in SCHEMES}
    mean = {arm: statistics.mean(score[arm]) for arm in SCHEMES}
    cut = statistics.mean(t["squeezed"]["64"] for t in recorded("mla-quality")["trials"] if t["arm"] == "mha") - mean["mha"]
    wide = [t["bits_per_byte"] - b for t, b in zip((t for t in recorded("mla-sizes")["trials"] if t["arm"] == "latent 128"), score["mha"])]
    gqa = {t["seed"]: statistics.median(g / m for g, m in zip(t["ms"]["8192"]["GQA"], t["ms"]["8192"]["MLA absorbed"]))
           for t in recorded("mla-decoding")["trials"] if t["arm"] == "D=1536"}.values()
    assert sorted(mean, key=mean.get) == ["mha", "gqa", "mla", "mqa"] and "**MHA, GQA, MLA, MQA.** In the mean of five seeds" in text
    assert all(min(more[arm]) > 0 for arm in SCHEMES[1:]) and "**MHA** wins with every seed" in text
    assert f"{statistics.mean(more['mla']):.4f} bits per byte more than **MHA** (five seeds: {min(more['mla']):.4f} to {max(more['mla']):.4f})" in text
    assert f"**GQA** with two groups loses {statistics.mean(more['gqa']):.4f}" in text
    assert f"from first to last it is {100 * (mean['mqa'] / mean['mha'] - 1):.1f} percent" in text
    assert f"Cut to 64 numbers, the models lose {cut:.3f} bits" in text
    assert sum(wide) / sum(more["mla"][:3]) == pytest.approx(2 / 3, abs=0.02) and "two thirds of the gap remain" in text
    assert f"leads by {100 * (min(gqa) - 1):.0f} to {100 * (max(gqa) - 1):.0f} percent" in text
    wins = [sum(a < b for a, b in zip(score["mla"], score[arm])) for arm in ("mqa", "gqa")]
    assert wins == [4, 2] and "beats **MQA** with four seeds of five" in text and "beats it with only two" in text
