"""Chapter 10: its exercises' solutions, its bugs and studies, the solutions of its longer problems, and the figures that its text writes."""

import argparse
import inspect
import itertools
import math
import re
import statistics
from dataclasses import replace

import pytest
import torch

from minimodels import fp8, lab
from minimodels.bugs import plant
from minimodels.bugs.fp8 import BUGS, FlooredGradients, LastStepsScale, NoMaster, NoMasterBF16, OneScaleARow, UnscaledGradients
from minimodels.checkpoint import Run
from minimodels.config import ModelConfig, TrainConfig
from minimodels.exercises import fp8 as exercises
from minimodels.fp8 import BLOCK, TILE, WHOLE, FP8Linear, Recipe, convert, quantise
from minimodels.linear import Linear
from minimodels.model import Transformer
from minimodels.moe import Gate
from minimodels.mtp import losses
from minimodels.studies import fp8 as studies
from minimodels.studies import recorded

TINY = ModelConfig(vocab_size=97, d_model=24, n_layers=2, max_seq_len=64, attention="mha", n_heads=3, d_head=8, d_value=8, d_ff=40, n_experts=0,
                   mtp_depth=0)


def source():
    return (lab.data_file("").parent / "chapters" / "10_fp8.py").read_text("utf8")


def text():
    """The chapter's text as one line of words."""
    return " ".join(source().replace("\n# > ", " ").replace("\n#", " ").split())


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- exercises

def test_the_solutions_read_and_round_as_torch_does():
    codes = torch.arange(256, dtype=torch.uint8)
    for code, value in zip(codes.tolist(), codes.view(torch.float8_e4m3fn).float().tolist()):
        assert exercises.value_of_code(code) == value or math.isnan(value) and math.isnan(exercises.value_of_code(code))
    for x in (normal(500) * 10 ** normal(500, seed=1)).clamp(-448, 448).tolist():
        assert exercises.round_e4m3(x) == torch.tensor(x).to(torch.float8_e4m3fn).float().item()
    assert exercises.round_e4m3(1e6) == 448


def test_what_lies_just_above_the_bound_survives_beside_the_largest():
    for amax in (1e4, 3e5, 1e7):
        bound = exercises.lost_below(amax)
        x = torch.tensor([[amax, bound * 1.001, bound * 0.999]])
        back = quantise(x, block=WHOLE).dequantise()[0]
        assert back[1] > 0 and back[2] == 0


def test_tiles_by_hand_are_the_packages():
    x = normal(6, 256) * 10 ** normal(6, 256, seed=1)
    assert torch.allclose(exercises.quantise_tiles(x, 128), quantise(x).dequantise(), rtol=1e-6)


def test_the_product_under_scales_is_that_of_the_numbers():
    a, b = (quantise(normal(n, 384, seed=n)) for n in (5, 7))
    got = exercises.scaled_product(a.data.float(), a.scale, b.data.float(), b.scale, 128)
    assert torch.allclose(got, a.dequantise() @ b.dequantise().T, atol=1e-4)


# ---- bugs

def spoilt(bug, d_in=256, d_out=24):
    torch.manual_seed(0)
    return plant(convert(Linear(d_in, d_out)), bug)


def right(d_in=256, d_out=24):
    torch.manual_seed(0)
    return convert(Linear(d_in, d_out))


@pytest.mark.parametrize("bug", BUGS.values())
def test_a_bug_changes_no_weight_when_planted_and_still_passes_gradients(bug):
    layer = spoilt(bug)
    assert torch.equal(layer.weight, right().weight)
    layer(normal(40, 256)).backward(normal(40, 24, seed=1))
    assert layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("bug", BUGS.values())
def test_a_spoilt_layer_can_be_evaluated_between_two_steps(bug):
    layer = spoilt(bug)
    with torch.inference_mode():
        layer(normal(40, 256))
    layer(normal(40, 256).requires_grad_()).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


def test_small_gradients_vanish_without_a_scale_and_lose_digits_under_an_activations_floor():
    found = {}
    for name, layer in (("right", right()), ("none", spoilt(UnscaledGradients)), ("floor", spoilt(FlooredGradients))):
        layer(normal(40, 256)).backward(normal(40, 24, seed=1) * 1e-6)
        found[name] = layer.weight.grad
    assert found["none"].eq(0).all()
    error = ((found["floor"] - found["right"]).norm() / found["right"].norm()).item()
    assert 0.01 < error < 0.5    # codes of a few units: subnormal, yet not zero


def test_the_last_steps_scale_is_right_until_something_grows():
    layer, x = spoilt(LastStepsScale), normal(40, 256)
    want = right()(x)
    assert torch.allclose(layer(x), want) and torch.allclose(layer(x), want)
    assert layer(1024 * x).abs().max() < 100 * want.abs().max() < right()(1024 * x).abs().max()


def test_the_first_tiles_scale_is_right_for_one_tile_alone():
    x = normal(40, 128)
    assert torch.allclose(spoilt(OneScaleARow, 128)(x), right(128)(x), atol=1e-5)
    wide = torch.cat([x, 9 * normal(40, 128, seed=1)], 1)
    error = (spoilt(OneScaleARow)(wide) - right()(wide)).norm() / right()(wide).norm()
    assert error > 0.5


@pytest.mark.parametrize("bug, kept", [(NoMaster, lambda w: quantise(w, block=BLOCK).dequantise()), (NoMasterBF16, lambda w: w.bfloat16().float())])
def test_weights_without_a_master_stay_on_their_grid(bug, kept):
    layer = spoilt(bug)
    layer(normal(3, 256))
    once = layer.weight.detach().clone()
    assert torch.allclose(kept(once), once, rtol=1e-6)
    with torch.no_grad():
        layer.weight += 1e-7
    layer(normal(3, 256))
    assert torch.isclose(layer.weight, once, rtol=1e-5).float().mean() > 0.9


# ---- studies

def test_the_short_sum_is_the_loop():
    a, b = quantise(normal(3, 150)), quantise(normal(5, 150, seed=1))
    x, w = a.dequantise().double(), b.dequantise().double()
    for i in range(3):
        for j in range(5):
            total = 0.0
            for k in range(0, 150, 32):
                total += float(x[i, k:k + 32] @ w[j, k:k + 32])
                exponent = math.frexp(total)[1] - 1
                total = math.trunc(total / 2.0 ** (exponent - 9)) * 2.0 ** (exponent - 9)
            assert studies.short_gemm(a, b, keep_bits=9)[i, j].item() == pytest.approx(total, rel=3e-3)


def test_a_gate_in_fp8_chooses_by_affinities_in_fp8():
    config = replace(ModelConfig.preset("unit"), d_model=32)
    torch.manual_seed(0)
    gate = Gate(config)
    torch.nn.init.normal_(gate.weight)
    x = normal(11, 32).requires_grad_()
    want = (quantise(x.detach()).dequantise() @ quantise(gate.weight.detach(), block=BLOCK).dequantise().T).sigmoid()
    gate.__class__ = studies.GateInFP8
    routing = gate(x)
    assert torch.allclose(routing.score, want, atol=1e-5)
    routing.weight[:, 0].sum().backward()
    assert gate.weight.grad.abs().sum() > 0 and x.grad.abs().sum() > 0
    assert dict(gate.named_parameters()).keys() == {"weight"}


def test_every_study_builds_what_its_arms_say():
    trials = {(study.name, t.arm): t for study in studies.STUDIES for t in study.trials}
    for (name, arm), trial in trials.items():
        layers = [m for m in replace(trial, model=TINY if name != "fp8-gate" else trial.model).build().modules() if isinstance(m, FP8Linear)]
        assert bool(layers) == (arm != "bf16"), (name, arm)
        if name == "fp8-bugs":
            assert {type(m) for m in layers} == {BUGS.get(arm, FP8Linear)}
    assert all(t.training.dtype == "bf16" for (name, arm), t in trials.items() if name != "fp8-gate")
    assert studies.BF16 == replace(TrainConfig.preset("yardstick"), dtype="bf16", eval_every=300)


def test_operands_are_what_a_layer_multiplies():
    torch.manual_seed(0)
    model, tokens = Transformer(TINY), torch.randint(0, 97, (3, 13))
    seen = studies.operands(model, tokens)
    assert len(seen) == 2 * 6 and "head" not in seen
    losses(model(tokens), tokens)[0].backward()
    for name, layer in seen.items():
        assert torch.allclose(layer["gradient"].T @ layer["input"], model.get_submodule(name).weight.grad, atol=1e-6), name


def test_what_is_kept_is_counted_once_and_without_weights():
    torch.manual_seed(0)
    model, tokens = Transformer(TINY), torch.randint(0, 97, (3, 13))
    plain = studies.kept_for_backward(model, tokens)
    eight = studies.kept_for_backward(convert(Transformer(TINY)), tokens)
    rows = 3 * 13
    # w_q, w_k and w_v each keep their input, w_o its own, w_gate_up one and w_down a wider one: codes and a scale a row
    assert eight["linear layers"] == 2 * rows * (5 * 24 + 40 + 6 * 4)
    assert plain["linear layers"] > eight["linear layers"]
    assert all(plain[kind] == eight[kind] for kind in plain if kind != "linear layers")


# ---- figures of the text

def test_e4m3_has_253_numbers_and_the_range_that_the_text_says():
    values = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    finite = {v for v in values.tolist() if math.isfinite(v)}
    assert len(finite) == 253 and "**253**" in text()
    positive = sorted(v for v in finite if v > 0)
    normals = [v for v in positive if v >= 2**-6]
    assert max(normals) / min(normals) == 28_672 and "28,672" in text()
    after = dict(zip(positive, positive[1:]))
    assert (after[16], after[256], positive[-1]) == (18, 288, 448)


def test_the_sweep_of_outliers():
    torch.manual_seed(0)
    x = torch.randn(256, 512)
    usual = torch.ones_like(x, dtype=torch.bool)
    usual[97, 211] = False

    def error(outlier, largest, rounded):
        spoilt = x.masked_fill(~usual, outlier)
        scale = spoilt.abs().max() / largest
        return 100 * ((rounded(spoilt / scale) * scale - spoilt)[usual].norm() / spoilt[usual].norm()).item()

    def e4m3(v):
        return v.to(torch.float8_e4m3fn).float()

    of_e4m3 = [error(size, 448, e4m3) for size in (1, 1e4, 1e5, 1e6)]
    assert of_e4m3 == pytest.approx([2.65, 2.72, 12.6, 95.3], abs=0.06)
    of_int8 = [error(size, 127, torch.round) for size in (1, 100, 1000)]
    assert of_int8 == pytest.approx([1.04, 22.7, 100], abs=0.1)
    assert error(11, 127, torch.round) < error(11, 448, e4m3) < error(13, 127, torch.round)


def test_the_models_sum_is_wrong_by_as_much_as_its_docstring_says():
    torch.manual_seed(4096)
    a, b = (quantise(torch.rand(12, 4096)).data.float() for _ in range(2))
    exact = a.double() @ b.double().T
    by_bits = {bits: 100 * ((fp8.limited_gemm(a, b, accumulate_bits=bits) - exact) / exact).abs().max().item() for bits in (13, 14, 15)}
    assert by_bits == pytest.approx({13: 7.8, 14: 3.7, 15: 1.65}, abs=0.05)
    assert "3.7 % with 14 places" in fp8.limited_gemm.__doc__ and "7.8 % with 13" in fp8.limited_gemm.__doc__


def test_sums_of_v3s_length_and_sums_that_are_kept_exactly():
    def worst(K, draw, multiply):
        torch.manual_seed(K)
        a, b = (quantise(draw(12, K)).data.float() for _ in range(2))
        exact = a.double() @ b.double().T
        return 100 * ((multiply(a, b) - exact).abs().max() / exact.pow(2).mean().sqrt()).item()

    def only_products_cut(a, b):
        total = 0.0
        for k in range(0, a.shape[1], 32):
            product = (a[:, None, k:k + 32] * b[:, k:k + 32]).double()
            step = 2.0 ** (product.abs().amax(-1, keepdim=True).log2().floor() - 14)
            total += ((product / step).trunc() * step).sum(-1)
        return total

    assert worst(7168, torch.randn, fp8.limited_gemm) == pytest.approx(0.35, abs=0.05) and "0.4 percent at worst with both signs" in text()
    assert worst(7168, torch.rand, fp8.limited_gemm) == pytest.approx(6.9, abs=0.4) and "and by 7 with one" in text()
    assert worst(4096, torch.rand, only_products_cut) < 0.01 < 1 < worst(4096, torch.rand, fp8.limited_gemm)


def test_scales_of_two_lose_nothing_the_second_time():
    x = normal(512, 384)
    for is_two, want in ((True, 2.66), (False, 3.62)):
        once = quantise(x, power_of_two=is_two).dequantise()
        twice = quantise(once.T.contiguous(), power_of_two=is_two).dequantise().T
        assert 100 * ((twice - x).norm() / x.norm()).item() == pytest.approx(want, abs=0.03)
        assert (once.isclose(twice).float().mean().item() > 0.999) == is_two
    assert "With scales that are powers of two it would stay at 2.7 percent" in text()


def test_most_of_v3s_work_is_in_8_bits():
    assert round(100 * (250.5 - 36.9) / 250.5) == 85 and "85 percent of them" in text()    # chapter 1 and claim C03 have the sum
    assert 250.5e9 * 14.8e12 == pytest.approx(3.7e24, rel=0.01)


@pytest.fixture(scope="module")
def page():
    run = Run.open(lab.data_file("checkpoints/yardstick"))
    tokens = torch.tensor(run.tokenizer.encode(inspect.getsource(argparse)).ids[:3 * 2048])
    return run, tokens.view(3, 8, 256)


def test_the_trained_model_has_no_outliers_that_e4m3_would_feel(page):
    run, (tokens, *_) = page
    seen = studies.operands(run.model(), tokens)
    for kind, area, fine in (("weight", BLOCK, 2.65), ("input", TILE, 2.30), ("gradient", TILE, 2.39)):
        tensors = [layer[kind] for layer in seen.values()]
        assert max((t.abs().max() / t.abs().median()).item() for t in tensors) < 4000
        for block, want in ((WHOLE, 2.65), (area, fine)):
            error = [((quantise(t, block=block, amax_floor=fp8.GRADIENT_FLOOR).dequantise() - t).norm() / t.norm()).item() for t in tensors]
            assert 100 * statistics.mean(error) == pytest.approx(want, abs=0.04)
    assert "2.7 percent under one scale, 2.3 to 2.7 under V3's" in text()


def test_gradients_of_the_trained_model_need_a_scale_and_no_floor(page):
    run, (tokens, *_) = page
    gradients = [layer["gradient"] for layer in studies.operands(run.model(), tokens).values()]
    # without a scale, what is at most half of E4M3's smallest number becomes zero; tiles: 128 numbers of a row
    vanish = statistics.mean((g.abs() <= 2**-10).float().mean().item() for g in gradients)
    floored = statistics.mean((g.unflatten(1, (-1, 128)).abs().amax(2) < 1e-4).float().mean().item() for g in gradients)
    assert vanish == pytest.approx(0.9997, abs=2e-4) and "99.97 percent" in text()
    assert 0.5 < floored < 0.6 and "More than half of our tiles" in text()

    def wrong(size, floor):
        return statistics.mean(((quantise(size * g, amax_floor=floor).dequantise() - size * g).norm() / (size * g).norm()).item() for g in gradients)
    right = wrong(1, fp8.GRADIENT_FLOOR)
    assert wrong(1, 1e-4) < 1.05 * right and "hardly a digit" in text()
    assert wrong(1e-4, 1e-4) > 2 * right and "the error more than doubles" in text() and wrong(1e-6, 1e-4) > 0.85
    assert 62.9e6 / 2048 > 1e4                                        # tokens of a batch: V3's last (section 4.2), and ours


def test_eight_bits_move_a_gradient_less_than_another_page_and_most_of_it_stays(page):
    run, pages = page

    def gradient(model, tokens):
        losses(model(tokens), tokens)[0].backward()
        return torch.cat([m.weight.grad.flatten() for name, m in model.named_modules() if isinstance(m, Linear) and name != "head"])

    def rounded():
        model = run.model()
        for name, m in model.named_modules():
            if isinstance(m, Linear) and name != "head":
                m.weight.data = quantise(m.weight.data, block=BLOCK).dequantise()
        return model

    def alike(a, b):
        return torch.cosine_similarity(a, b, 0).item()

    exact, eight, weights = ([gradient(make(), tokens) for tokens in pages] for make in (run.model, lambda: convert(run.model()), rounded))
    coarse = gradient(convert(run.model(), Recipe(activation=WHOLE, weight=WHOLE, gradient=WHOLE)), pages[0])
    away = [100 * ((g - exact[0]).norm() / exact[0].norm()).item() for g in (eight[0], coarse, exact[1])]
    assert away == pytest.approx([14.6, 14.8, 142], rel=0.1)
    assert "**142 percent**" in text() and "by 15 percent of its length" in text()
    pairs = [100 * ((a - b).norm() / a.norm()).item() for a, b in itertools.permutations(exact, 2)]
    assert [round(min(pairs)), round(max(pairs))] == pytest.approx([114, 142], abs=2) and "114 to 142" in text()
    assert [p / 2**0.5 for p in (min(pairs), max(pairs))] == pytest.approx([80, 100], abs=2) and "80 to 100 percent" in text()
    error, of_weights = ([a - b for a, b in zip(one, exact)] for one in (eight, weights))
    rest = [a - b for a, b in zip(eight, weights)]
    assert "nothing in common from page to page" in text() and abs(alike(*rest[:2])) < 0.1
    assert "Pages agree more on FP8's error than on the gradient itself" in text()
    for i, j in itertools.combinations(range(3), 2):
        assert alike(error[i], error[j]) > alike(exact[i], exact[j]) + 0.1
        assert 0.38 < alike(error[i], error[j]) < 0.53 and "Nearly half of its square is common" in text()
    assert "larger part comes from the weights" in text() and of_weights[0].norm() > 1.5 * rest[0].norm()


def test_five_seeds_show_no_price_of_v3s_recipe():
    trials = [*recorded("train-formats")["trials"], *recorded("fp8-quality")["trials"]]
    bits = {arm: {t["seed"]: t["bits_per_byte"] for t in trials if t["arm"] == arm} for arm in ("bf16", "V3's")}
    assert bits["bf16"].keys() == bits["V3's"].keys() == {1, 2, 3, 4, 5}
    gap = [100 * (bits["V3's"][seed] - bits["bf16"][seed]) / bits["bf16"][seed] for seed in bits["bf16"]]
    assert sum(g > 0 for g in gap) == 2 and "Two seeds need more bits in FP8, three need fewer" in text()
    # Student's t of four degrees of freedom, 95 percent on both sides: 2.776
    reach = 2.776 * statistics.stdev(gap) / 5**0.5
    assert (round(statistics.mean(gap), 2), round(reach, 2)) == (-0.09, 0.32) and statistics.mean(gap) + reach < 0.25
    assert "The mean is −0.09 percent, ± 0.32" in text() and "a price above a quarter of a percent does not fit" in text() and "−0.09 ± 0.32 percent" in text()
    assert [round(statistics.mean(b.values()), 3) for b in bits.values()] == [1.641, 1.639] and "1.641 and 1.639" in source()
    assert [(round(min(b.values()), 3), round(max(b.values()), 3)) for b in bits.values()] == [(1.637, 1.646), (1.632, 1.648)]
    assert "bf16 from 1.637 to 1.646, FP8 from 1.632 to 1.648" in source()


def gaps(study, arm, baseline):
    """Percent more bits than the same seed of baseline."""
    bits = {t["seed"]: t["bits_per_byte"] for t in recorded(study)["trials"] if t["arm"] == arm}
    return [100 * (bits[seed] / baseline[seed] - 1) for seed in sorted(bits)]


def test_three_seeds_see_no_departure_from_the_recipe():
    sixteen = {t["seed"]: t["bits_per_byte"] for t in [*recorded("train-formats")["trials"], *recorded("fp8-quality")["trials"]] if t["arm"] == "bf16"}
    arms = {"scale": ("fp8-scales", "a scale for a tensor"), "13": ("fp8-sums", "13 bits"), "7": ("fp8-sums", "7 bits"),
            "blocks": ("fp8-scales", "gradients in blocks"), "E5M2": ("fp8-gradients", "E5M2 gradients")}
    found = {name: gaps(*at, sixteen) for name, at in arms.items()}
    reach = {name: 4.303 * statistics.stdev(more) / 3**0.5 for name, more in found.items()}
    assert all(len(more) == 3 and abs(statistics.mean(more)) < reach[name] for name, more in found.items()) and "Beside bf16 each interval holds zero" in text()
    high = {name: round(statistics.mean(more) + reach[name], 1) for name, more in found.items()}
    assert (high["scale"], high["13"]) == (0.7, 0.4) and "one scale costs no more than 0.7 percent, sums of 13 bits no more than 0.4" in text()
    assert min(found["scale"] + found["13"]) > 0 and "Both needed more bits with every seed" in text()
    assert statistics.mean(found["scale"]) == pytest.approx(0.25, abs=0.01) and "a price of a quarter of a percent may hide" in text()
    assert min(found["7"]) < 0 < statistics.mean(found["7"]) < statistics.mean(found["13"]) and "at 7 bits, they cost less in the mean" in text()
    eight = {t["seed"]: t["bits_per_byte"] for t in recorded("fp8-quality")["trials"] if t["arm"] == "V3's"}
    beside = {name: gaps(*at, eight) for name, at in arms.items()}
    half = {name: 4.303 * statistics.stdev(more) / 3**0.5 for name, more in beside.items()}
    assert [name for name, more in beside.items() if abs(statistics.mean(more)) > half[name]] == ["blocks"] and "the same but for one" in text()
    assert (round(statistics.mean(beside["blocks"]), 2), round(half["blocks"], 2)) == (-0.18, 0.12) and "0.18 ± 0.12 percent" in text()
    for name, said in {"scale": "from 0.11 to 0.45", "13": "13 bits 0.04 to 0.23", "7": "7 bits -0.13 to 0.28", "blocks": "blocks -0.33 to 0.03", "E5M2": "E5M2 -0.13 to 0.60"}.items():
        assert said.endswith(f"{min(found[name]):.2f} to {max(found[name]):.2f}") and said in source()


def test_three_times_the_text_shows_no_price_either():
    more = gaps("fp8-longer", "V3's", {t["seed"]: t["bits_per_byte"] for t in recorded("fp8-longer")["trials"] if t["arm"] == "bf16"})
    assert [round(each, 2) for each in more] == [1.06, 0.42, -0.01] and "recorded first says +1.06" in text()
    assert statistics.stdev(more) == pytest.approx(0.54, abs=0.01) and "scatter by half a percent, those of the five before by a quarter" in text()
    assert (round(statistics.mean(more), 2), round(4.303 * statistics.stdev(more) / 3**0.5, 2)) == (0.49, 1.34) and "+0.49 ± 1.34" in text()


def test_experts_in_fp8_show_a_price_once_the_gate_is_too():
    plain = {t["seed"]: t["bits_per_byte"] for t in recorded("moe-quality")["trials"] if t["arm"] == "fine + shared"}
    spared = {t["seed"]: t["bits_per_byte"] for t in recorded("fp8-gate")["trials"] if t["arm"] == "gate in fp32"}
    for more in (gaps("fp8-gate", "gate in fp32", plain), gaps("fp8-gate", "gate in FP8", spared)):
        assert len(more) == 3 and abs(statistics.mean(more)) < 4.303 * statistics.stdev(more) / 3**0.5
    both = gaps("fp8-gate", "gate in FP8", plain)
    assert (round(statistics.mean(both), 2), round(4.303 * statistics.stdev(both) / 3**0.5, 2)) == (0.22, 0.15) and min(both) > 0
    assert "Neither step shows a price by itself. Both together do: 0.22 ± 0.15 percent" in text()


def test_bugs_that_show_and_bugs_that_do_not():
    trials = recorded("fp8-bugs")["trials"]
    right = {t["seed"]: t["bits_per_byte"] for t in trials if t["arm"] == "right"}
    found = {arm: gaps("fp8-bugs", arm, right) for arm in BUGS}
    ends = {arm: statistics.mean(t["bits_per_byte"] for t in trials if t["arm"] == arm) for arm in ("right", "gradients without a scale")}
    assert (round(ends["gradients without a scale"], 3), round(ends["right"], 3)) == (2.493, 2.125) and "to 2.493 in place of 2.125" in text()
    for arm, low, high in (("the first tile's scale", 0.7, 1.3), ("weights kept in E4M3", 0.5, 0.7)):
        assert (round(min(found[arm]), 1), round(max(found[arm]), 1)) == (low, high)
    assert "(weights kept in E4M3 0.5 to 0.7, the first tile's scale 0.7 to 1.3)" in text()
    silent = [arm for arm, more in found.items() if max(map(abs, more)) < 0.15]
    assert len(silent) == 3 and "Three do no harm that shows in 120 steps" in text()


def test_the_memory_ledger():
    kept = {}
    for is_fp8 in (False, True):
        torch.manual_seed(0)
        model = Transformer(studies.YARDSTICK)
        kept[is_fp8] = studies.kept_for_backward(convert(model) if is_fp8 else model, torch.zeros(8, 256).long())
    assert [kept[k]["linear layers"] / 2**20 for k in (False, True)] == pytest.approx([18.0, 7.75])
    assert "from 18.0 to 7.8 MiB" in text()
    # by hand: three layers keep 128 numbers a token as w_q, w_k and w_v, one for w_o, one for w_gate_up, 320 for w_down; a scale for each 128
    assert kept[True]["linear layers"] == 4 * 2048 * (5 * 128 + 320 + 4 * (5 + 3))
    bf16 = [studies.kept_for_backward(model, torch.zeros(8, 256).long(), torch.bfloat16)
            for model in (Transformer(studies.YARDSTICK), convert(Transformer(studies.YARDSTICK)))]
    state = 3 * 4 * studies.YARDSTICK.n_params + 4 * 4096 * 128    # weights, gradients, a moment; Adam's second for the embedding
    for plain, eight, percent in ((kept[False], kept[True], 10), (*bf16, 8)):
        saved = sum(plain.values()) - sum(eight.values())
        assert 100 * saved / (sum(plain.values()) + state) == pytest.approx(percent, abs=0.5)
    assert "we save 8 percent in bf16, in which we train, and 10 beside fp32" in text()


def solution(number):
    """The code of the last solution behind an exercise of the chapter."""
    part = source().split(f"**Exercise {number}**")[1].split("```python")[1].split("# ```")[0]
    return re.sub(r"(?m)^# ?", "", part)


def printed(number, capsys, **names):
    names |= {"torch": torch, "math": math, "quantise": quantise, "WHOLE": WHOLE}
    exec(solution(number), names)
    return capsys.readouterr().out


def test_bytes_on_the_wire(capsys):
    told = printed("10.9", capsys)
    assert [float(n) for n in re.findall(r"[\d.]+", told)] == pytest.approx([7392, 14336, 0.242, 0.248], abs=5e-4)
    for figure in ("7,392", "14,336", "24.2 percent", "24.8"):
        assert figure in text()


def test_rounding_by_chance_learns_what_rounding_to_nearest_does_not(capsys):
    torch.manual_seed(0)
    told = [float(n) for n in re.findall(r"\d\.[\de-]+", printed("10.10", capsys))]
    mean, plain, nearest, chance = told
    assert mean == pytest.approx(0.3, abs=2e-4) and plain < 1e-3
    assert nearest == pytest.approx(0.558, abs=5e-3) and chance == pytest.approx(0.035, abs=5e-3)


def test_a_turn_spreads_the_outlier(capsys):
    told = [float(n) for n in re.findall(r"([\d.]+)%", printed("10.11", capsys))]
    plain, turned = told[::4], told[2::4]
    assert plain[3] == pytest.approx(95, abs=1) and turned[3] == pytest.approx(6, abs=0.5) and turned[4] == pytest.approx(55, abs=1)
    own, after = told[1::4], told[3::4]
    assert (own[1], after[1], own[0], after[0]) == pytest.approx((2.4, 3.0, 3.4, 4.1), abs=0.06)


