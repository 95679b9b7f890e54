"""The efficiency ladder: one technique a rung, and a table that says what was recorded."""

import dataclasses
import json
import statistics
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from book_files import load
from minimodels import studies
from minimodels.cli import main
from minimodels.config import ModelConfig
from minimodels.ladder import FULL, rungs
from minimodels.model import Transformer
from minimodels.studies import together
from minimodels.studies.together import Climb, Pace, ladder_studies, measured

ROOT = Path(__file__).parents[1]
SVG = "{http://www.w3.org/2000/svg}"
NAMES = ["dense", "+ MLA", "+ experts", "+ MTP", "+ FP8"]
TINY = dict(vocab_size=300, d_model=16, n_layers=2, max_seq_len=128, n_heads=2, d_head=4, d_rope=2, d_value=4, d_latent=8, d_expert=8)


def changed(below, above):
    """The fields of two configurations that differ."""
    return {f.name for f in dataclasses.fields(below) if getattr(below, f.name) != getattr(above, f.name)}


@pytest.mark.parametrize("tier", FULL)
def test_a_rung_adds_one_technique_and_nothing_else(tier):
    climb = rungs(tier)
    assert [rung.name for rung in climb] == NAMES
    models = [changed(a.model, b.model) for a, b in zip(climb, climb[1:])]
    recipes = [changed(a.training, b.training) for a, b in zip(climb, climb[1:])]
    assert models == [{"attention"}, {"n_experts"}, {"mtp_depth"}, set()] and recipes == [set(), set(), set(), {"fp8"}]


@pytest.mark.parametrize("tier", FULL)
def test_as_many_hidden_numbers_work_on_a_token_on_every_rung(tier):
    for rung in rungs(tier):
        model = rung.model
        assert model.d_ff == (model.top_k + model.n_shared) * model.d_expert


def test_the_bottom_of_the_book_s_own_ladder_is_the_yardstick():
    bottom, yardstick = rungs("cpu")[0].model, ModelConfig.preset("yardstick")
    assert bottom.n_params == yardstick.n_params == 1_279_104
    assert not bottom.is_moe and changed(bottom, yardstick) <= {"n_experts", "top_k", "d_expert"}    # what a dense model does not read


def test_every_rung_of_the_book_s_own_ladder_has_the_best_rate_that_was_tried():
    tried = {t["arm"]: t["bits_per_byte"] for name in ("mla-rates", "ladder-rates") for t in studies.recorded(name)["trials"]}
    for name, arm in {"dense": "mha", "+ MLA": "mla", "+ experts": "+ experts", "+ MTP": "+ MTP"}.items():
        score = {rate: tried[f"{arm} {rate:g}"] for rate in together.RATES}
        assert together.BEST_RATE[name] == min(score, key=score.get)
    assert together.BEST_RATE["+ FP8"] == together.BEST_RATE["+ MTP"]    # the same model


def test_an_unknown_tier_has_no_ladder():
    with pytest.raises(ValueError, match="tier must be one of cpu, t4, gaming, got 'tpu'"):
        rungs("tpu")


@pytest.fixture
def tiny(monkeypatch):
    """The ladder of a model that trains in a blink."""
    def small(tier):
        return [replace(rung, model=replace(rung.model, **TINY, d_ff=8 * (rung.model.top_k + rung.model.n_shared)),
                        training=replace(rung.training, steps=2, batch_size=2, seq_len=32)) for rung in rungs(tier)]
    monkeypatch.setattr(together, "rungs", small)
    return small("cpu")


def test_every_rung_trains_and_says_what_a_step_keeps_and_which_drafts_stand(tiny):
    found = {rung.name: Climb(arm=rung.name, seed=1, model=rung.model, training=rung.training, max_bytes=60_000).run() for rung in tiny}
    for name in NAMES:
        has_drafts = name in ("+ MTP", "+ FP8")
        assert len(found[name]["acceptance"]) == has_drafts and all(0 <= share <= 1 for share in found[name]["acceptance"])
    assert found["+ MTP"]["kept_bytes"] > found["+ experts"]["kept_bytes"] > 0


def test_rungs_are_timed_in_turns_with_and_without_drafts(tiny, monkeypatch):
    monkeypatch.setattr(together, "BATCHES", (2,))
    out = Pace(arm="all", seed=1, names=("dense", "+ FP8"), rounds=2).run()
    assert {name: len(each) for name, each in out["step_ms"].items()} == {"dense": 2, "+ FP8": 2}
    assert list(out["pass_ms"][2]) == ["dense", "+ FP8", "+ FP8, drafting"]
    assert all(ms > 0 for each in out["pass_ms"][2].values() for ms in each)


def made_up(trial):
    """What a trial might have recorded: figures from which a row is easily told by hand."""
    ways = [*NAMES, "+ MTP, drafting", "+ FP8, drafting"]
    if isinstance(trial, Climb):
        return {"bits_per_byte": 1.5 + trial.seed / 100, "kept_bytes": 1000, "acceptance": [0.5] if "MTP" in trial.arm or "FP8" in trial.arm else []}
    return {"step_ms": {name: [2048.0, 1024.0, 512.0] for name in NAMES},
            "pass_ms": {B: {way: [10.0, 20.0, 30.0] for way in ways} for B in (1, 32)}}


@pytest.fixture
def filled(tmp_path):
    """A folder that holds the whole ladder of the tier cpu, made up."""
    for study in ladder_studies("cpu"):
        arms = {trial.arm: trial.settings() for trial in study.trials}
        trials = [{"arm": trial.arm, "seed": trial.seed} | made_up(trial) for trial in study.trials]
        (tmp_path / f"{study.name}.json").write_text(json.dumps({"arms": arms, "trials": trials}))
    return tmp_path


def test_a_row_follows_from_what_was_recorded(filled):
    table = {row.name: row for row in measured("cpu", filled)}
    assert list(table) == NAMES
    dense, full = table["dense"], table["+ FP8"]
    assert dense.bits_per_byte == [1.51, 1.52, 1.53]
    assert dense.train_tokens_per_s == [8 * 256 / 1.024] * 3                                     # the median of three rounds
    assert dense.decode_tokens_per_s == {1: [50.0] * 3, 32: [1600.0] * 3}
    assert dense.drafting_tokens_per_s == {} and full.drafting_tokens_per_s == {1: [75.0] * 3, 32: [2400.0] * 3}
    assert dense.training_bytes[0] > 1000 + 3 * 4 * dense.n_params                               # Muon keeps one number, AdamW two
    assert dense.cache_bytes == 2 * 4 * 2 * 8 * 16 and full.cache_bytes == 2 * 4 * (64 + 8)      # keys and values of 8 heads; a latent and a key
    model = Transformer(rungs("cpu")[2].model)                                                   # without the module, as papers count
    assert full.n_params == sum(p.numel() for p in model.parameters())
    assert full.n_params - full.n_active == 3 * (31 - 3) * 3 * 128 * 80                          # three layers, in which 28 experts of 31 are idle
    assert full.flops > table["+ experts"].flops


def test_one_command_prints_the_table_of_a_tier(filled, capsys):
    assert main(["ladder", "--out", str(filled)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split("  ")[0] == "rung" and all(name in out.splitlines()[0] for name in NAMES)
    line = {line[:18].strip(): line[18:] for line in out.splitlines()}
    assert line["bits per byte"].split() == ["1.5200"] * 5 and line["the same, drafting"].count("75, 2,400") == 2


def test_a_tier_that_needs_a_gpu_says_so_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["ladder", "--tier", "gaming", "--out", str(tmp_path)]) == 2
    assert "--tier gaming needs an NVIDIA GPU" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_ladders_of_other_tiers_are_planned_with_names_of_their_own():
    known = studies.studies()
    assert {"ladder", "ladder-pace", "ladder-t4", "ladder-pace-t4", "ladder-gaming", "ladder-pace-gaming"} <= set(known)
    assert all(trial.device == "cuda" for name in ("ladder-t4", "ladder-pace-gaming") for trial in known[name].trials)


# ---- the drawing of the front page

def test_the_drawing_of_the_ladder_is_that_of_its_records():
    for name, svg in load("_tools/ladder.py").drawings(measured("cpu")).items():
        assert (ROOT / "minimodels" / "drawings" / name).read_text("utf8") == svg, f"{name} is old: run python book/_tools/ladder.py"


def test_the_drawing_of_a_ladder_marks_the_best_and_draws_to_scale(filled):
    table = measured("cpu", filled)
    for svg in load("_tools/ladder.py").drawings(table).values():
        root = ElementTree.fromstring(svg)
        bars = [float(rect.get("width")) for rect in root.iter(f"{SVG}rect") if "solid-" in rect.get("class")]
        cache = [width for width, row in zip(bars[1::5] if root.get("viewBox").startswith("0 0 900") else bars[5:10], reversed(table), strict=True)]
        assert cache[-1] / cache[0] == pytest.approx(2_048 / 576, rel=0.02)
        assert sum(1 for dot in root.iter(f"{SVG}circle")) == 5 * 3
        bold = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "d-number"]
        assert bold.count("576") == 4 and "2,048" not in bold


def test_the_front_page_says_what_the_ladder_holds():
    said = " ".join((ROOT / "book" / "index.md").read_text("utf8").split())
    bottom, *_, top = measured("cpu")
    fewer = [1 - a / b for a, b in zip(top.bits_per_byte, bottom.bits_per_byte, strict=True)]
    assert min(fewer) > 0 and f"{100 * statistics.mean(fewer):.1f} percent fewer bits" in said
    assert f"{100 * top.cache_bytes / bottom.cache_bytes:.0f} percent of the cache" in said
    assert round(top.n_params / bottom.n_params) == 3 and "three times the parameters" in said
    assert statistics.mean(top.train_tokens_per_s) / statistics.mean(bottom.train_tokens_per_s) == pytest.approx(1 / 4, abs=0.02)
    assert "a quarter of the speed of learning" in said
