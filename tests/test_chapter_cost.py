"""Chapter 01: its explorable against published runs, its bug, its drawings, and the figures that its text writes down."""

import copy
import json
import math
import re
import statistics
from dataclasses import replace

import browser as browsers
import pytest
import torch

from book_files import write_statics
from minimodels import cost, exercises, lab
from minimodels.bugs import plant
from minimodels.bugs.cost import EveryExpert
from minimodels.config import ModelConfig
from minimodels.explorables import TrainingCost, training_cost
from minimodels.explorables.base import COUNTS, figures, with_unit
from minimodels.moe import MoE
from minimodels.studies import recorded
from minimodels.studies.cost import dense_twin, sparse_at, utilisation, yardstick_at

ROOT = lab.data_file("").parent


# ---- the explorable

@pytest.mark.parametrize("name, field, published, rel", [
    ("DeepSeek-V3", "flops_per_token", 250e9, 0.003), ("DeepSeek-V3", "gpu_hours", 2664e3, 0.005), ("DeepSeek-V3", "days", 54.2, 0.005),
    ("DeepSeek-V2", "flops_per_token", 155e9, 0.003), ("DeepSeek-V2", "gpu_hours", 172.8e3 * 8.1, 0.005),
    ("GPT-3", "petaflop_s_days", 3640, 0.005), ("Llama-3.1-405B", "gpu_hours", 30.84e6, 0.15)])
def test_a_preset_comes_to_what_was_published(name, field, published, rel):
    assert TrainingCost.preset(name).run()[field] == pytest.approx(published, rel=rel)


def test_llama_takes_the_flop_that_its_paper_says():
    """Source: Llama 3, section 3: 3.8e25, by the rule of six; ours adds attention's scores."""
    run = TrainingCost.preset("Llama-3.1-405B", scores_gflop=0.0).run()
    assert run["petaflop_s_days"] * cost.PETAFLOP_S_DAY == pytest.approx(3.8e25, rel=0.01)


def test_the_run_is_that_of_the_functions_of_the_package():
    run = TrainingCost(total_billion=7.0, active_percent=50.0, scores_gflop=0.0, tokens_trillion=2.0, peak_tflops=312.0, utilisation_percent=40.0,
                       n_gpus=64, price_usd=1.5).run()
    hours = cost.gpu_hours(6 * 3.5e9 * 2e12, peak_flops=312e12, utilisation=0.4)
    assert run["gpu_hours"] == pytest.approx(hours)
    assert run["days"] == pytest.approx(cost.days(hours, n_gpus=64))
    assert run["dollars"] == pytest.approx(cost.dollars(hours, price_usd_per_hour=1.5))


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match="preset must be one of DeepSeek-V2, .*Llama-3.1-405B, got 'GPT-4'"):
        TrainingCost.preset("GPT-4")
    with pytest.raises(Exception, match="'n_gpus' trait of a TrainingCost instance"):
        TrainingCost(n_gpus=0)


def test_the_fallback_names_every_run_and_what_was_published():
    html = TrainingCost().html()
    for name, preset in training_cost.PRESETS.items():
        assert f"<th>{name}</th>" in html and preset["published"] in html
    assert "<th>yours</th>" not in html and "<th>yours</th>" in TrainingCost(n_gpus=7).html()
    assert TrainingCost().model == "DeepSeek-V3"


# ---- the bug

def test_every_expert_gives_the_same_numbers_and_gradients_for_more_work():
    config = ModelConfig(d_model=24, n_experts=7, top_k=3, n_shared=1, d_expert=10, n_dense_layers=0, n_layers=1)
    torch.manual_seed(0)
    right = MoE(config)
    wrong = plant(copy.deepcopy(right), EveryExpert)
    h, flops = torch.randn(2, 5, 24), []
    for layer in (right, wrong):
        with cost.counter() as count:
            y, _ = layer(h)
        flops.append(count.get_total_flops())
        y.square().sum().backward()
    torch.testing.assert_close(right(h)[0], wrong(h)[0])
    for a, b in zip(right.parameters(), wrong.parameters()):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-4)
    assert flops == [2 * 10 * ((k + 1) * 3 * 24 * 10 + 7 * 24) for k in (3, 7)]


# ---- the studies

def test_a_sparse_model_and_its_twin_are_as_large():
    for width in (128, 256):
        sparse, dense = sparse_at(width), dense_twin(sparse_at(width))
        assert dense.n_params == pytest.approx(sparse.n_params, rel=0.001) and not dense.is_moe
    assert yardstick_at(128) == ModelConfig.preset("yardstick")


# ---- the explorable in a browser

@pytest.fixture(scope="module")
def visit(tmp_path_factory):
    """Opens a page with the explorable as the site shows it, of a width in px; nothing may go wrong on it."""
    folder = tmp_path_factory.mktemp("cost")
    write_statics(folder)
    styles = "".join(f'<link rel="stylesheet" href="_static/{name}.css">' for name in ("tokens", "fonts", "explorables/explorables"))
    (folder / "page.html").write_text(f'<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8">{styles}'
                                      '<meta name="viewport" content="width=device-width"><script defer src="_static/explorables.js"></script>'
                                      f'<style>main {{ max-width: 39rem; padding: 0 1.25rem; }}</style><main>{TrainingCost().html()}</main>', "utf8")
    wrong = []
    with browsers.chromium() as running:
        def open_page(width):
            page = running.new_page(viewport={"width": width, "height": 900}, reduced_motion="reduce")
            page.on("console", lambda message: wrong.append(message.text))
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.goto((folder / "page.html").as_uri())
            page.wait_for_selector("[data-live]")
            return page
        yield open_page
    assert wrong == []


def rows(page):
    return page.locator(".xp-table tbody tr:not(.xp-bars)").evaluate_all("rows => rows.map(row => [...row.cells].map(cell => cell.textContent))")


def test_the_page_shows_what_python_says_for_every_preset(visit):
    page = visit(1280)
    for name in training_cost.PRESETS:
        page.get_by_label(name, exact=True).check()
        run = TrainingCost.preset(name).run()
        told = [with_unit(run["flops_per_token"], training_cost.FLOPS), with_unit(run["gpu_hours"], COUNTS), figures(run["days"]),
                "$" + with_unit(run["dollars"], COUNTS)]
        shown = {row[0]: row[1:] for row in rows(page)}
        assert shown["This run"] == shown[name] == told
    page.close()


def test_one_slider_makes_v3_sixteen_times_as_dear(visit):
    """As the chapter says: let every parameter work."""
    page = visit(1280)
    page.get_by_label("Of them active").focus()
    page.keyboard.press("End")
    assert rows(page)[0][4] == "$86.6 million" and page.locator("[type=radio]:checked").count() == 0
    assert "V3 costs\n# 87 million dollars, sixteen times" in (ROOT / "chapters" / "01_cost.py").read_text("utf8")
    page.get_by_role("status").filter(has_text="Your own run").wait_for(state="attached")
    page.close()


def test_it_fits_a_narrow_phone(visit):
    page = visit(360)
    assert page.evaluate("""() => [document.documentElement.scrollWidth, [...document.querySelectorAll(".xp-panel *")]
        .filter(e => !e.closest("svg") && e.getBoundingClientRect().right > e.closest(".xp-panel").getBoundingClientRect().right + 1).length]""") == [360, 0]
    page.close()


# ---- what the text says

@pytest.fixture(scope="module")
def text():
    return " ".join((ROOT / "chapters" / "01_cost.py").read_text("utf8").replace("\n# > ", " ").replace("\n#", " ").split())


def test_the_figures_of_v3_that_the_chapter_writes_follow_from_its_configuration(text):
    """By hand, from config_671B.json, and not by the package."""
    D, F, E, K, V = 7168, 2048, 256, 8, 129_280
    attention = D * 1536 + 1536 + 1536 * 128 * 192 + D * 576 + 512 + 512 * 128 * 256 + 128 * 128 * D
    rest = 61 * attention + 3 * 3 * D * 18_432 + 2 * V * D + 58 * E * D + (2 * 61 + 1) * D + 58 * 3 * D * F
    total, active = rest + 58 * E * 3 * D * F, rest + 58 * K * 3 * D * F
    assert f"{total / 1e9:.2f} billion" in text and f"{active / 1e9:.2f} billion" in text
    assert f"{100 * active / total:.1f} percent.** {active / 1e9:.2f} billion" in text
    assert round(3 * D * F / 1e6) == 44 and "= 44$ million" in text and round(3 * D * F / ModelConfig.preset("yardstick").n_params) == 34
    assert round((total - rest) / total * 100) == 97 and "Ninety-seven of a hundred" in text
    scores = 3 * 2 * 61 * 128 * (192 + 128) * 4097 / 2
    per_token = 6 * (active - V * D - (2 * 61 + 1) * D - 61 * (1536 + 512)) + scores
    assert f"count says {per_token / 1e9:.1f}" in text
    assert 6 * 58 * K * 3 * D * F / per_token == pytest.approx(0.49, abs=0.01) and "Routed experts do half of the work" in text
    module = 2 * D * D + attention + (K + 1) * 3 * D * F + E * D + V * D
    assert round((per_token + 6 * module + scores / 61) / 1e9) == 261 and "package counts 261 GFLOP" in text
    assert round(671.03 / 41.7) == 16 and "sixteen times as large" in text


def test_the_sums_that_the_chapter_writes_are_right(text):
    run = 250e9 * 14.8e12
    for value, words in [
            (600e9 / 5.576e6 / 1e5, "a hundred thousand times as much"), (run / 989e12 / 3.156e7 / 119, "one GPU would need 119 years"),
            (run / 989e12 / 2048 / 86_400 / 21, "2,048 of them three weeks"), (run / 2.664e6 / 3600 / 386e12, "386 TFLOPS"),
            (14.8e12 / 272.8e9 / 54.3, "54.3 days"), (261 / 250 * 39.0 / 41, "mean 41 percent"),
            (2448e9 * 15.6e12 / (30.84e6 * 3600 * 989e12) / 0.348, "published hours mean 35"), (5.328 / 5.576 / 0.95, "Nineteen twentieths"),
            (2.664e6 / 2048 / 24 / 54.2, "they took 54.2"), (6 * 128 * 4096 * 2048 / 6.44e9, "6.44 GFLOP"),
            (30.84 / 2.664 / 11.58, "Between eleven and twelve times"), (6 * 300e9 * 175e9 / (0.213 * 125e12 * 3600) * 2 / 6.57e6, "6.6 million, *higher*"),
            (100 * (1 - 37.55 / 671.03 / (280 / 1800)) / 64, "Alone it saves 64 percent"), (1.6e9 / 5.576e6 / 287, "That is 287 times"),
            (64 * 8 * (198 + 80) / 142_336, "142,336 GPU-hours"), (0.294 / 5.576 * 20, "a twentieth of what V3 had cost"),
            (3640 / (run / 8.64e19) * 12, "a twelfth of V3's operations"), (989 / 125 / 8, "eight times the peak of a V100"),
            (38.94 / 21.3 / 1.83, "nearly twice as large a share"), (6 * 175e9 * 300e9 / 8.64e19 / 3646, "3,646."),
            (6 * 21e9 * 8.1e12 / 8.64e19 / 210 / 56, "fifty-six times as much"), (172.8e3 * 8.1 / 1.4e6, "1.40 million"),
            (100 * (1 - 155 / 402) / 61.4, "61 percent less arithmetic"), (100 * (1 - 172.8 / 300.6) / 42.5, "42.5 percent of the hours"),
            (402e21 / (300.6e3 * 3600 * 989e12) / 0.376, "ran at 38 percent"), (155e21 / (172.8e3 * 3600 * 989e12) / 0.252, "V2's at 25"),
            (671e9 / 1.279104e6 / 0.5e6, "half a million times smaller"), (6 * 671 / 4026, "4,026 GFLOP"), (671 / 41.7 / 16, "sixteen times too much"),
            (6 * 671e9 * 14.8e12 / (2.664e6 * 3600 * 989e12) / 6.28, "more than six times the peak"), (2448 / 250 / 9.8, "9.8 times as much")]:
        assert words in text and value == pytest.approx(1, abs=0.08), words
    shares = {"sixth": 100 / 63, "third is that V3 is simply a smaller": 1800 / 671.03, "factor of 2.8": (280 / 1800) / (37.55 / 671.03)}
    whole = math.log(100 / 5.576)
    assert [round(100 * math.log(f) / whole) for f in shares.values()] == [16, 34, 35] and all(words in text for words in shares)


def test_the_recorded_figures_that_the_chapter_writes_are_those_of_the_studies(text):
    share = {arm: {name: sorted(100 * utilisation(t, name) for t in recorded("cost-utilisation")["trials"] if t["arm"] == arm)
                   for name in ("step", "forward, backward")} for arm in ("D=64", "D=128", "D=256")}
    low, _, high = share["D=128"]["step"]
    assert f"reached {low:.0f} to {high:.0f} percent of the product's speed" in text
    there, whole = ("{:.0f}, {:.0f} and {:.0f}".format(*(share[arm][name][1] for arm in share)) for name in ("forward, backward", "step"))
    assert f"forward and backward reach {there} percent at widths 64, 128 and 256" in text and f"not counted as useful, reaches {whole}." in text
    assert share["D=64"]["forward, backward"][2] < share["D=128"]["forward, backward"][0] < share["D=256"]["forward, backward"][0]
    band = json.loads(lab.data_file("bands.json").read_text())["cost"]["share of the peak in a step"]["tiers"]["cpu"]
    assert band["mean"] == pytest.approx(statistics.mean(share["D=128"]["step"]), abs=1e-3) and band["n_runs"] == 3


def test_what_sparsity_saves_is_written_as_recorded(text):
    for arm, told, again in (
            ("D=128", "leaves out {} percent of the operations, and saved {}, {} and {} percent of the time",
             "with {} percent fewer operations our smaller sparse model saves {} percent of the time ({} to {},"),
            ("D=256", "leaves out {} percent, and saved {}, {} and {}: most", "the larger, with {} percent fewer, saves {} ({} to {}).")):
        runs = [t for t in recorded("cost-sparsity")["trials"] if t["arm"] == arm]
        left_out = statistics.median(1 - t["done_flops"]["sparse"] / t["done_flops"]["dense"] for t in runs)
        low, middle, high = sorted(1 - 1 / statistics.median(d / s for d, s in zip(t["ms"]["dense"], t["ms"]["sparse"])) for t in runs)
        assert told.format(*(f"{100 * share:.0f}" for share in (left_out, low, middle, high))) in text
        assert again.format(*(f"{100 * share:.0f}" for share in (left_out, middle, low, high))) in text
        assert high < left_out


def test_the_operations_that_were_recorded_are_those_that_the_package_counts():
    """The dense model's exactly; the sparse model's but for the rows that pad its experts, at most 31 in each."""
    for trial in recorded("cost-sparsity")["trials"]:
        width = int(trial["arm"].removeprefix("D="))
        sparse = sparse_at(width)
        counted = {name: sum(cost.training_flops(config, seq_len=256, batch_size=8).values())
                   for name, config in (("sparse", sparse), ("dense", dense_twin(sparse)))}
        assert trial["done_flops"]["dense"] == counted["dense"]
        assert 0 <= trial["done_flops"]["sparse"] - counted["sparse"] <= 3 * 16 * 31 * 6 * 3 * width * width // 2


def test_the_printed_solutions_pass_their_checks_and_the_longer_ones_print_what_the_text_says(capsys):
    source = (ROOT / "chapters" / "01_cost.py").read_text("utf8")
    blocks = [block.replace("# ", "", 1).replace("\n# ", "\n").replace("\n#\n", "\n\n") for block in
              re.findall(r"^# ```python\n(.*?)\n# ```$", source, re.M | re.S)]
    given = {"math": math, "cost": cost, "replace": replace, "run_flops": 250e9 * 14.8e12, "v3": training_cost.V3, "V2": training_cost.V2,
             "LLAMA_405B": training_cost.LLAMA_405B}
    for block in blocks:
        exec(block, given)
    told, check = capsys.readouterr().out, exercises.load("cost")
    for name in check.exercises:
        assert getattr(check, name)(given[name]), name
    assert len(blocks) == len(check.exercises) + 3
    for words in ("41.7 billion parameters", "86 million dollars, and 2.4 years", "2.07 to 3.16 million", "1725 TFLOPS: 1.19 to 1.81 million, V3 used 22%", "1 1 0 [250, 155, 2473]", "0.5 1 0 [235, 140, 2448]"):
        assert words in told
    text = " ".join(source.replace("\n#", " ").split())
    for words in ("41.7 billion parameters; 86 million dollars (87 with scores", "2.07 to 3.16 million", "1,725 TFLOPS",
                  "1.19 to 1.81 million", "only 22 percent", "250 and 155 to the billion, and 2,473"):
        assert words in text
