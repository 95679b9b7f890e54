"""Chapter 01: its explorable against published runs, its bug, its drawings, and the figures that its text writes down."""

import copy
import json
import statistics

import pytest
import torch

from minimodels import cost, lab
from minimodels.bugs import plant
from minimodels.bugs.cost import EveryExpert
from minimodels.config import ModelConfig
from minimodels.explorables import TrainingCost, training_cost
from minimodels.moe import MoE
from minimodels.studies import recorded
from minimodels.studies.cost import SHAPE, dense_twin, sparse_at, yardstick_at

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
    run = TrainingCost.preset("Llama-3.1-405B", scores_percent=0.0).run()
    assert run["petaflop_s_days"] * cost.PETAFLOP_S_DAY == pytest.approx(3.8e25, rel=0.01)


def test_the_run_is_that_of_the_functions_of_the_package():
    run = TrainingCost(total_billion=7.0, active_percent=50.0, scores_percent=0.0, tokens_trillion=2.0, peak_tflops=312.0, utilisation_percent=40.0,
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
