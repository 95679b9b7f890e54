"""Chapter 04: shapes that cost the same, drawings to scale, an explorable that counts as the package does, bugs that are found, figures that hold."""

import itertools
import json
import math
import re
import statistics
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import browser as browsers
import pytest
import torch
from torch.nn import functional as F

from minimodels import lab
from minimodels.attention import Place
from minimodels.bugs import plant
from minimodels.bugs.model import BUGS
from minimodels.config import ModelConfig
from minimodels.cost import forward_flops
from minimodels.exercises.model import cannot_see_the_future, halves_from_pairs, stream_is_untouched
from minimodels.explorables import ModelShape, scripts
from minimodels.explorables.model_shape import PRESETS
from minimodels.model import Transformer
from minimodels.studies import recorded
from minimodels.studies.model import SEEDS, SHAPES, WIDTHS, YARDSTICK, as_llama, shape_scores
from minimodels.studies.page import LEARNT, OVERFIT, PAGE_BYTES, STARTS, OneBatch, page, start_arm, without_feed_forward, without_norms

ROOT = Path(__file__).parents[1]
DRAWINGS = ROOT / "minimodels" / "drawings"
TINY = ModelConfig(vocab_size=37, d_model=24, n_layers=3, max_seq_len=64, attention="mha", n_heads=3, d_head=8, d_value=8, d_ff=29, n_experts=0,
                   mtp_depth=0)


def words():
    """The chapter's text, boxes and line breaks taken out."""
    text = (ROOT / "chapters" / "04_model.py").read_text("utf8")
    return " ".join(re.sub(r"\n# (> )?", " ", text).split())


def large(config, seed=0):
    """A model with weights large enough that a mistake shows."""
    torch.manual_seed(seed)
    model = Transformer(config).eval()
    for parameter in model.parameters():
        parameter.data.normal_(1, 0.3) if parameter.dim() == 1 else parameter.data.normal_(std=0.3)
    return model


# ---- shapes

def test_the_five_shapes_have_as_many_parameters_to_a_fifth_of_a_percent():
    counts = {n: sum(p.numel() for p in Transformer(config).parameters()) for n, config in SHAPES.items()}
    assert counts[4] == 1_279_104 and max(counts.values()) / min(counts.values()) < 1.002
    assert SHAPES[4] == YARDSTICK
    assert all(config.d_model == config.n_heads * 16 for config in SHAPES.values())


@pytest.mark.parametrize("form, px, height", [("shapes", 0.5, 80), ("shapes.narrow", 0.31, 49.6)])
def test_the_five_shapes_are_drawn_to_scale(form, px, height):
    """Areas stand to each other as parameters do: embedding grey, layers dark, one scale."""
    paths = [e.get("d") for e in ElementTree.parse(DRAWINGS / f"{form}.svg").getroot().iter("{http://www.w3.org/2000/svg}path")]
    areas = [sum(float(w) * float(h) for w, h in re.findall(r"h([\d.]+)v([\d.]+)h-", d)) for d in paths]
    scale = px * height / 4096                                   # px^2 of a parameter: the embedding is D wide and V high
    for i, config in enumerate(SHAPES.values()):
        each = config.parameters
        assert areas[2 * i] == pytest.approx(scale * each["embedding"], rel=0.01)
        assert areas[2 * i + 1] == pytest.approx(scale * (each["attention"] + each["dense"]), rel=0.01)
        assert len(re.findall("M", paths[2 * i + 1])) == config.n_layers


# ---- the explorable

@pytest.mark.parametrize("n_layers", WIDTHS)
def test_the_explorable_counts_what_the_package_counts(n_layers):
    config = SHAPES[n_layers]
    piece = ModelShape(n_layers=n_layers, d_model=config.d_model, d_ff=config.d_ff, context=53)
    held, work = config.parameters, forward_flops(config, seq_len=53, causal=True)
    names = {"embedding": "embedding", "attention": "attention", "ffn": "dense", "norms": "norms", "head": "head"}
    assert {part: piece.parameters()[part] for part in names} == {part: held[name] for part, name in names.items()}
    assert {part: 53 * piece.flops()[part] for part in ("attention", "scores", "ffn", "head")} == \
        {part: work[name] for part, name in {"attention": "attention", "scores": "scores", "ffn": "dense", "head": "head"}.items()}
    assert piece.held_d_ff() == config.d_ff


@pytest.mark.parametrize("name, published", [("Llama 3 8B", 8.03e9), ("Llama 3 405B", 405.85e9)])
def test_llamas_parameters_are_the_published_ones(name, published):
    """Meta's repositories say 8.03 and 405.85 billion, with a vocabulary of 128,256; the paper's table says 128,000."""
    assert sum(ModelShape.preset(name, vocab_size=128_256).parameters().values()) == pytest.approx(published, rel=0.0007)


def test_what_the_chapter_says_of_llama_and_of_long_texts():
    n = ModelShape.preset("Llama 3 405B").parameters()
    assert round(100 * (n["embedding"] + n["head"]) / sum(n.values())) == 1
    assert 0.78 < n["ffn"] / sum(n.values()) < 0.82
    assert ModelShape(context=958).flops()["scores"] < ModelShape().flops()["ffn"] <= ModelShape(context=959).flops()["scores"]
    with pytest.raises(ValueError, match="preset must be one of The yardstick, .*got 'GPT-4'"):
        ModelShape.preset("GPT-4")


def test_both_languages_count_alike():
    grid = itertools.product((1, 5, 126), (16, 80, 16_384), (1, 140, 53_248), (1, 4), (256, 128_000), (True, False), (32, 131_072))
    fields = ("n_layers", "d_model", "d_ff", "sharing", "vocab_size", "is_tied", "context")
    pieces = [ModelShape(**dict(zip(fields, values, strict=True)), presets={}) for values in itertools.islice(grid, 0, None, 5)]
    states = json.dumps([piece.state() for piece in pieces])
    with browsers.chromium() as browser:
        tab = browser.new_page()
        results = tab.evaluate("""async ([text, expression]) => {
            const m = await import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
            return new Function("m", `return ${expression}`)(m);
        }""", [scripts.module("model_shape"), f"{states}.map(s => [m.parameters(s), m.flops(s), m.heldDff(s)])"])
    assert results == [[piece.parameters(), piece.flops(), piece.held_d_ff()] for piece in pieces]
    assert set(PRESETS) <= set(ModelShape().presets)


# ---- parity, and bugs

def test_hugging_faces_llama_computes_the_same():
    pytest.importorskip("transformers")
    model, tokens = large(TINY), torch.randint(37, (2, 19), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(as_llama(model)(tokens).logits, model(tokens).logits, atol=1e-4, rtol=1e-4)


def test_rows_move_from_pairs_to_halves_within_a_head():
    moved = halves_from_pairs(torch.arange(12)[:, None], 2)[:, 0].tolist()
    assert moved == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_changes_what_a_model_says_or_what_it_learns(name):
    tokens = torch.randint(37, (2, 19), generator=torch.Generator().manual_seed(1))
    right, wrong = large(TINY), plant(large(TINY), BUGS[name])
    one, two = right(tokens).logits, wrong(tokens).logits
    two.sum().backward()
    touched = wrong.layers[0].ffn.w_down.weight.grad is not None
    assert torch.allclose(one, two, atol=1e-3) == (name == "cut gradient")
    assert touched == (name != "cut gradient")


@pytest.mark.parametrize("name", [None, *BUGS])
def test_each_of_the_two_tests_finds_its_bug(name):
    model = large(TINY)
    if name:
        plant(model, BUGS[name])
    tokens = torch.randint(37, (2, 9), generator=torch.Generator().manual_seed(2))
    assert cannot_see_the_future(model, tokens) == (name != "norm over tokens")
    h = torch.randn(2, 9, TINY.d_model)
    untouched = stream_is_untouched(model.layers[0], h, Place.of(model.rope, 9, h.device))
    assert untouched == (name not in ("no residual", "residual of the norm"))


# ---- the page

def test_the_page_is_the_beginning_of_the_zen():
    assert page().startswith("The Zen of Python, by Tim Peters\n\nBeautiful is better than ugly.\n") and len(page().encode()) == PAGE_BYTES
    batch = torch.zeros(1, 3, dtype=torch.int64)
    assert OneBatch(batch).at(0) is OneBatch(batch).at(17) is batch


def test_the_rungs_are_those_of_models_that_count():
    text = torch.tensor(list(page().encode()))
    how_often = torch.bincount(text[1:], minlength=256).double()
    follows = torch.zeros(256, 256, dtype=torch.float64)
    for a, b in zip(text, text[1:]):
        follows[a, b] += 1
    nats = F.nll_loss((how_often / how_often.sum()).log().expand(255, -1), text[1:]).item()
    assert round(nats, 2) == 3.03
    rows = (follows / follows.sum(1, keepdim=True)).log()[text[:-1]]
    assert round(F.nll_loss(rows, text[1:]).item(), 2) == 1.39 and "the lower line, 1.39" in words()
    assert len(Counter(page())) < 40


# ---- figures that the chapter writes

def test_the_figures_of_the_count():
    held, total = YARDSTICK.parameters, YARDSTICK.n_params
    work = forward_flops(YARDSTICK, seq_len=256, causal=True)
    assert [round(100 * held[part] / total) for part in ("embedding", "dense", "attention")] == [41, 38, 20]
    assert "41 percent to the embedding, 38 to the feed-forward networks, 20 to attention" in words()
    assert held["norms"] / total < 0.001
    shares = [round(100 * work[part] / sum(work.values()), 1) for part in ("head", "attention", "scores", "dense")]
    assert shares == [37.2, 18.6, 9.3, 34.9] and f"{sum(work.values()) / 256e4 / 100:.2f} million FLOPs a token" in words()
    v3 = ModelConfig.preset("deepseek_v3")
    assert round(100 * (v3.parameters["embedding"] + v3.parameters["head"]) / v3.n_params, 1) == 0.3
    assert round(v3.init_std * v3.d_model**0.5, 2) == 0.51 and round(0.02 * v3.d_model**0.5, 1) == 1.7
    assert round(0.02 * 128**0.5, 2) == 0.23


def test_the_hand_examples():
    x = torch.tensor([1.0, 7.0])
    assert F.rms_norm(x, (2,)).tolist() == pytest.approx([0.2, 1.4])
    assert F.silu(torch.tensor(3.0)).item() == pytest.approx(2.86, abs=0.005) and F.silu(torch.tensor(3.0)).item() * 5 == pytest.approx(14.3, abs=0.05)
    assert math.sqrt(33) == pytest.approx(5.7, abs=0.05)


def test_the_figures_of_the_longer_problems():
    two = replace(YARDSTICK, tie_embeddings=False)
    room = YARDSTICK.n_params - (two.n_params - two.parameters["dense"])
    assert room == -32_768 and round(room / (3 * 4 * 128)) == -21
    sizes = {D: replace(two, d_model=D, n_heads=D // 16, d_ff=5 * D // 2).n_params for D in (96, 112)}
    assert [f"{n:,}" in words() for n in sizes.values()] == [True, True] and sizes[96] < YARDSTICK.n_params < sizes[112]


# ---- recorded runs

def trials(study, arm):
    return [t for t in recorded(study)["trials"] if t["arm"] == arm]


def test_what_the_chapter_says_of_the_page_with_bugs():
    last = {arm: [t["curve"][-1] for t in trials("model-overfit", arm)] for arm in ("right", *BUGS)}
    learnt = {arm: [t["steps_to_learn"] for t in trials("model-overfit", arm)] for arm in ("right", *BUGS)}
    fail = {arm for arm in learnt if not all(learnt[arm])}
    assert fail == {"no residual", "cut gradient", "sum for mean"} and "By their loss three bugs fail, and two pass" in words()
    assert all(min(last[arm]) > 2 for arm in fail) and "stay above two nats" in words()
    fallen = [1 - t["curve"][-1] / t["curve"][0] for t in trials("model-overfit", "cut gradient")]
    assert {round(100 * share) for share in fallen} <= {70, 71} and "its loss fell by 70 percent" in words()
    steps = {arm: f"{min(learnt[arm])} to {max(learnt[arm])}" for arm in ("residual of the norm", "right", "norm over tokens")}
    assert f"takes {steps['residual of the norm']} steps, where the right one takes {steps['right']}" in words()
    assert f"is even a little ahead, with {steps['norm over tokens']}" in words()


def test_the_band_is_that_of_the_recorded_page():
    band = json.loads(lab.data_file("bands.json").read_text())["model"]["steps to learn a page"]["tiers"]["cpu"]
    values = [t["steps_to_learn"] for t in trials("model-overfit", "right")]
    mean, spread = statistics.mean(values), statistics.stdev(values)
    assert band["n_runs"] == len(values) >= 5
    assert [band["mean"], band["low"], band["high"]] == pytest.approx([mean, mean - 3 * spread, mean + 3 * spread], abs=5e-4)
    assert all(value <= OVERFIT.steps for value in values) and LEARNT == 0.1


def ratios(arm):
    """The first layer's gradient over the sixteenth's."""
    return [t["gradient"][0] / t["gradient"][-1] for t in trials("model-gradients", arm)]


def test_it_is_the_product_that_makes_the_gradient_grow():
    assert 100 < min(ratios("without")) and max(ratios("without")) < 220 and "a hundred to two hundred times (three seeds)" in words()
    assert min(ratios("SwiGLU alone")) > 200 and round(2**7.5) == 181 and "fifteen times is 181" in words()
    assert all(0.5 < ratio < 2.1 for arm in ("a plain matrix", "a deaf gate", "attention alone") for ratio in ratios(arm))
    assert all(2 < ratio < 3 for ratio in ratios("with residual")) and "two or three times the last one's, at this std" in words()
    gradient = trials("model-gradients", "without")[0]["gradient"]
    assert round(gradient[0] / gradient[14], -2) == 500 and round(gradient[15] / gradient[14]) == 4 and "falls 500 times to layer 15, then rises fourfold" in words().replace('" "', "")
    assert all(t["gradient"][15] > 3 * t["gradient"][14] for t in trials("model-gradients", "without"))
    assert all(t["gradient"][15] < t["gradient"][14] for t in trials("model-gradients", "SwiGLU alone"))


def test_what_the_chapter_says_of_starts():
    steps = {start: [t["steps_to_learn"] for t in trials("model-starts", start_arm(*start))] for start in STARTS}
    assert all(len(each) == 3 for each in steps.values())
    assert all(all(each) for (n, std, has_norms), each in steps.items() if has_norms) and "With norms every start learns the page" in words()
    for n in (4, 16):
        assert max(steps[n, 0.1, True]) < min(steps[n, std, True][i] for std in (0.002, 0.02, 0.5) for i in range(3)) and "0.1 is the quickest, at both depths" in words()
        assert not any(steps[n, 0.02, False])
    later = {n: [a - b for a, b in zip(steps[n, 0.002, True], steps[n, 0.02, True])] for n in (4, 16)}
    assert min(later[4]) > 0 >= max(later[16]) and "a few steps later than 0.02 in four layers, and no later in sixteen" in words()
    assert all(steps[4, 0.1, False]) and not any(t["is_finite"] for t in trials("model-starts", start_arm(16, 0.1, False)))


def test_what_the_chapter_says_of_the_recitals():
    right = {arm: [t["right"] for t in trials("model-recital", arm)] for arm in ("right", "residual of the norm", "norm over tokens")}
    assert all(t["steps_to_learn"] for arm in right for t in trials("model-recital", arm))
    assert right["norm over tokens"] == [1, 1, 10] and "goes wrong at the second or the eleventh byte" in words()
    assert min(right["right"]) == 90 and sorted(right["right"])[1] == 251 and "slipped too, after 90 bytes" in words()
    assert min(right["residual of the norm"]) > 30
    assert {t["asked"] for t in trials("model-recital", "right")} == {251}


def test_what_the_chapter_says_of_a_page_without_a_part():
    learnt = {arm: [t["steps_to_learn"] for t in trials("model-parts", arm)] for arm in ("no feed-forward", "norm on the sum")}
    assert all(f"{min(each)} to {max(each)}" == "55 to 57" for each in learnt.values())
    assert "(Recorded, `minimodels study model-parts`: 55 to 57 with three seeds" in words() and "the page is learnt after 55 to 57 steps" in words()
    last = [t["curve"][-1] for t in trials("model-parts", "no positions")]
    assert [round(min(last), 2), round(max(last), 2)] == [0.31, 0.43] and "to between 0.31 and 0.43 after sixty steps" in words()
    large = {arm: ratios(f"{arm}, std 0.2") for arm in ("with residual", "norm on the sum")}
    assert [round(x) for x in (min(large["with residual"]), max(large["with residual"]))] == [27, 33]
    assert [round(x, -3) for x in (min(large["norm on the sum"]), max(large["norm on the sum"]))] == [18_000, 190_000]
    assert "27 to 33 times the last one's" in words() and "18,000 to 190,000 times" in words()


def test_attention_alone_takes_the_stream_beyond_one():
    grown = []
    for seed in range(4):
        tokens = torch.randint(4096, (4, 256), generator=torch.Generator().manual_seed(0))
        torch.manual_seed(seed)
        model = without_feed_forward(without_norms(Transformer(replace(SHAPES[16], init_std=0.1))))
        model.layers[-1].register_forward_hook(lambda module, arguments, out: grown.append(out[0].square().mean().sqrt().item()))
        with torch.no_grad():
            model(tokens)
    assert 2.5 < min(grown) < 3.5 and 5.5 < max(grown) < 6.5 and "from 0.1 to between 3 and 6, four seeds" in words()


def test_what_the_chapter_says_of_depth_and_width():
    score = shape_scores()
    mean = {n: statistics.mean(bits) for n, bits in score.items()}
    deep = [a / b - 1 for a, b in zip(score[16], score[4])]
    more = {n: [a - b for a, b in zip(score[n], score[4])] for n in (1, 16)}
    assert all(max(a, b) < c for a, b, c in zip(score[4], score[1], score[16])) and "Sixteen thin ones lost to both, with both seeds" in words()
    assert min(score[16]) > max(score[1] + score[4]) and min(more[16]) > 5 * max(more[1])
    assert f"sixteen layers need {min(more[16]):.3f} to {max(more[16]):.3f} bits per byte more than four, one layer {sorted(more[1])[1]:.3f} to {max(more[1]):.3f} with two seeds" in words()
    assert {round(100 * share) for share in deep} == {3} and "sixteen thin layers need 3 percent more" in words()
    assert [round(gap, 3) for gap in more[1]] == [0.012, -0.0, 0.011] and "lost to four with two seeds, by half a percent, and drew with the third" in words()
    assert 0.003 < mean[1] / mean[4] - 1 < 0.0036 and "in the mean it stays a third of a percent behind four" in words()
    assert [len(score[n]) for n in SEEDS] == [3, 3, 2] and "three seeds, two of sixteen layers, 120 steps" in words()
    ratios = [a / b for t in recorded("model-times")["trials"] for a, b in zip(t["ms"]["16"], t["ms"]["4"])]
    assert f"takes {statistics.median(ratios):.1f} times as long" in words()
    work = [sum(forward_flops(c, seq_len=256, causal=True).values()) / 256e6 for c in SHAPES.values()]
    assert f"{min(work):.1f} to {max(work):.1f} million FLOPs a token" in words()
    v3 = ModelConfig.preset("deepseek_v3")
    assert [round(c.d_model / c.n_layers) for c in (v3, YARDSTICK, SHAPES[16])] == [118, 32, 5]
