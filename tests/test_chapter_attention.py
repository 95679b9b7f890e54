"""Chapter 03: patterns and their names, the bugs, the count behind the roofline, the explorable in both languages, and typed figures."""

import copy
import itertools
import json
import random
import statistics
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import browser as browsers
import pytest
import torch

from book_files import write_statics
from configs import odd_config
from minimodels import lab
from minimodels.attention import Cache
from minimodels.bugs import plant
from minimodels.bugs.attention import BUGS, BothTurnedTwice, CachedBeforeRotation, KeyTurnedTwice, LeakingMask, NeverTurned
from minimodels.checkpoint import Run
from minimodels.config import ModelConfig
from minimodels.cost import counter
from minimodels.explorables import AttentionPattern, attention_pattern, scripts
from minimodels.layers import Rope
from minimodels.model import Transformer
from minimodels.patterns import jobs, patterns, targets
from minimodels.studies import recorded
from minimodels.studies.attention import PASSES, WIDE, against, heal, pooled, read, work
from minimodels.timing import MULTIPLY_FLOPS, READ_BYTES, a_pass

ROOT = Path(__file__).parents[1]
B, T = 2, 7


def classical(scheme="mha", **changes):
    torch.manual_seed(0)
    return Transformer(odd_config(attention=scheme, mtp_depth=0, n_experts=0, **changes)).eval()


def some_tokens(model):
    return torch.randint(0, model.config.vocab_size, (B, T), generator=torch.Generator().manual_seed(1))


# ---- patterns

@pytest.mark.parametrize("scheme", ["mha", "gqa", "mqa"])
@torch.inference_mode()
def test_patterns_times_values_are_the_layers_outputs(scheme):
    model = classical(scheme)
    weights, caught = patterns(model, some_tokens(model)), {}
    layer = model.layers[1].attention
    hook = layer.register_forward_hook(lambda module, args, out: caught.update(h=args[0], out=out))
    model(some_tokens(model))
    hook.remove()
    config = model.config
    v = layer.w_v(caught["h"]).unflatten(-1, (config.kv_heads, config.d_head))
    H = config.n_heads
    o = [sum(weights[1][:, i, :, s, None] * v[:, None, s, i * config.kv_heads // H] for s in range(T)) for i in range(H)]
    torch.testing.assert_close(layer.w_o(torch.cat(o, -1)), caught["out"], atol=1e-5, rtol=1e-4)
    assert weights.shape == (config.n_layers, B, H, T, T) and not weights.triu(1).any()


def test_patterns_of_latent_attention_are_refused():
    with pytest.raises(ValueError, match="model must have attention mha, gqa or mqa, got mla"):
        patterns(Transformer(odd_config(mtp_depth=0)), torch.zeros(1, 3, dtype=torch.int64))


def test_targets_of_a_short_text_by_hand():
    words = ["f", "(", "x", ")", ":\n  ", "x", "(", ")"]
    found = targets([5, 1, 7, 2, 3, 7, 1, 2], words)

    def places(kind):
        return [(t, s) for t in range(8) for s in range(8) if found[kind][t, s]]

    assert places("previous token") == [(t, t - 1) for t in range(1, 8)]
    assert places("first token") == [(t, 0) for t in range(1, 8)]
    assert places("same token") == [(5, 2), (6, 1), (7, 3)]
    assert places("after same token") == [(5, 3), (6, 2), (7, 4)]
    assert places("start of line") == [(5, 4), (6, 4), (7, 4)]
    assert places("open bracket") == [(3, 1), (7, 6)]


def test_a_head_that_looks_evenly_scores_what_is_said_of_one_and_a_sure_head_scores_one():
    words = list("abab(a)")
    tokens = [ord(word) for word in words]
    found = targets(tokens, words)
    even = torch.ones(T, T).tril()
    even = even / even.sum(-1, keepdim=True)
    back = torch.diag(torch.ones(T - 1), -1)
    weights = torch.stack([even, back])[None, None]    # one layer, one text, two heads
    scores = jobs(weights, [found])
    for kind, (mean, of_even, n) in scores.items():
        assert mean[0, 0].item() == pytest.approx(of_even, abs=1e-6), kind
        assert n == int(found[kind].any(-1).sum())
    assert scores["previous token"][0][0, 1].item() == pytest.approx(1)
    assert scores["itself"][1] == pytest.approx(sum(1 / (t + 1) for t in range(T)) / T)


# ---- bugs

@pytest.fixture
def model():
    return classical()


def logits_of(model, tokens):
    with torch.inference_mode():
        return model(tokens).logits


def one_by_one(model, tokens):
    cache = Cache(model.config, B, T)
    with torch.inference_mode():
        return torch.cat([model(tokens[:, t:t + 1], cache).logits for t in range(T)], dim=1)


@pytest.mark.parametrize("bug", BUGS.values())
def test_a_bug_changes_no_weight_and_is_healed(model, bug):
    before, right = {k: v.clone() for k, v in model.state_dict().items()}, logits_of(model, some_tokens(model))
    plant(model, bug)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert torch.equal(logits_of(heal(model), some_tokens(model)), right)


def test_the_leak_sees_one_token_too_many_in_a_layer_and_none_behind_a_cache(model):
    tokens = some_tokens(model)
    right, other = logits_of(model, tokens), tokens.clone()
    other[:, 4] = (other[:, 4] + 1) % model.config.vocab_size
    plant(model, LeakingMask)
    changed = (logits_of(model, tokens) - logits_of(model, other)).abs().amax(-1)
    assert (changed[:, 4 - model.config.n_layers] > 1e-4).all()    # a layer hands on what it saw
    assert torch.equal(logits_of(model, tokens[:, :1]), logits_of(heal(model), tokens[:, :1]))
    plant(model, LeakingMask)
    torch.testing.assert_close(one_by_one(model, tokens), right, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("bug, is_relative", [(KeyTurnedTwice, False), (BothTurnedTwice, True), (NeverTurned, True)])
def test_which_bugs_break_the_rule_of_distances(model, bug, is_relative):
    tokens = some_tokens(model)
    right, spoilt = logits_of(model, tokens), logits_of(plant(model, bug), tokens)
    model.rope.turn = model.rope.turn.roll(-5, dims=1)    # place t has the turn of t + 5
    moved = logits_of(model, tokens)
    assert not torch.allclose(right, spoilt, atol=1e-2)
    assert torch.allclose(spoilt, moved, atol=1e-3) == is_relative


def test_both_turned_twice_is_rope_at_twice_the_speed(model):
    tokens = some_tokens(model)
    spoilt = logits_of(plant(model, BothTurnedTwice), tokens)
    heal(model)
    width = model.config.d_head
    model.rope = Rope(2 * 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width), model.config.max_seq_len)
    torch.testing.assert_close(logits_of(model, tokens), spoilt, atol=1e-4, rtol=1e-4)


def test_caching_before_the_turn_shows_only_behind_a_cache(model):
    tokens = some_tokens(model)
    right = logits_of(model, tokens)
    plant(model, CachedBeforeRotation)
    assert torch.equal(logits_of(model, tokens), right)
    assert not torch.allclose(one_by_one(model, tokens), right, atol=1e-2)


def test_reading_at_once_and_one_by_one_cost_a_right_model_the_same(model):
    found = read(model, some_tokens(model))
    assert found["at_once"] == pytest.approx(found["one_by_one"], abs=1e-4)


# ---- the roofline's count

@pytest.mark.parametrize("n_new, n_rows, n_before", [(1, 1, 16), (1, 3, 16), (8, 1, 0)])
def test_flops_are_those_that_torch_counts(n_new, n_rows, n_before):
    config = replace(WIDE, d_model=64, n_heads=4, d_head=16, d_value=16, d_ff=96, n_layers=2, vocab_size=300)
    model = Transformer(config).eval()
    with counter() as count:
        a_pass(model, n_new, n_rows, n_before)()
    assert work(config, n_new, n_rows, n_before)["flops"] == count.get_total_flops()


def test_one_decoded_token_does_half_a_flop_a_byte():
    """Two FLOPs for each number of four bytes, with weights and cache alike."""
    cost = work(WIDE, 1, 1, 127)
    assert cost["flops"] / cost["bytes"] == pytest.approx(0.5, abs=0.01)
    weights = 4 * (4 * 1024**2 + 3 * 1024 * 2816 + 2 * 1024) + 1024
    assert work(WIDE, 1, 1, 0)["bytes"] == 4 * (weights + 4 * 2 * 1024)


# ---- the explorable

def random_piece(seed, n=9, layers=2, heads=3):
    rng = random.Random(seed)
    weights = [[[[rng.random() ** 3 for _ in range(n)] for _ in range(n)] for _ in range(heads)] for _ in range(layers)]
    text = attention_pattern.encoded("odd", [rng.choice(["a", " b", "\n  ", "<i>", '"']) for _ in range(n)], weights)
    return AttentionPattern(texts=[text], layer=rng.randrange(layers), head=rng.randrange(heads), query=rng.randrange(n)), weights


def test_a_row_is_what_was_encoded():
    for seed in range(20):
        piece, weights = random_piece(seed)
        wanted = weights[piece.layer][piece.head][piece.query][:piece.query + 1]
        assert piece.row() == pytest.approx(wanted, abs=0.5 / 63 + 1e-9)


def test_the_pattern_of_a_model_is_that_of_patterns():
    model = classical(vocab_size=300)
    model.tokenizer = SimpleNamespace(encode=lambda text: SimpleNamespace(ids=list(text.encode())), decode=lambda ids: bytes(ids).decode())
    piece = AttentionPattern.of(model, {"one": "a(b)\n", "two": "xyz"}, text=1, layer=2, head=3, query=2)
    weights = patterns(model, torch.tensor([list(b"xyz")]))
    assert piece.texts[0]["tokens"] == list("a(b)\n")
    assert piece.row() == pytest.approx(weights[2, 0, 3, 2].tolist(), abs=0.5 / 63 + 1e-6)
    assert piece.summary().startswith("layer 2, head 3, from 2 “z”: ")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of the site with one instance in it, in a browser; nothing may go wrong on it."""
    folder, wrong = tmp_path_factory.mktemp("patterns"), []
    write_statics(folder)
    (folder / "page.html").write_text(f"""<!doctype html><html data-theme="light"><head><meta charset="utf-8"><title>x</title>
<meta name="viewport" content="width=device-width">
<link rel="stylesheet" href="_static/tokens.css"><link rel="stylesheet" href="_static/fonts.css">
<link rel="stylesheet" href="_static/explorables/explorables.css"></head><body>{random_piece(3)[0].html()}
<script src="_static/explorables.js"></script></body></html>""", "utf8")
    with browsers.chromium() as browser:
        one = browser.new_page(viewport={"width": 360, "height": 900})
        one.on("console", lambda message: wrong.append(message.text))
        one.on("pageerror", lambda error: wrong.append(str(error)))
        one.goto((folder / "page.html").as_uri())
        one.wait_for_selector("[data-live]")
        yield one
    assert wrong == []


def table_of(page):
    return page.locator(".xp-table tbody tr:not(.xp-bars):not([hidden])").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))")


def rows_of(piece):
    tokens = piece.texts[0]["tokens"]
    return [[attention_pattern.shown(tokens[s]), str(s), attention_pattern.percent(w)] for s, w in piece.seen() if w]


def test_a_page_shows_what_python_computes_for_every_head_and_token(page):
    piece, _ = random_piece(3)
    for layer, head in itertools.product(range(2), range(3)):
        page.get_by_label(str(layer), exact=True).check(force=True)
        page.get_by_label(f"Head {head}").check(force=True)
        page.locator(".xp-word[tabindex='0']").focus()
        page.keyboard.press("Home")
        for query in range(9):
            piece.layer, piece.head, piece.query = layer, head, query
            assert table_of(page) == rows_of(piece)
            page.keyboard.press("ArrowRight")


def test_the_text_is_one_tab_stop_and_arrows_move_in_it(page):
    assert page.locator(".xp-word[tabindex='0']").count() == 1
    page.locator(".xp-word[tabindex='0']").focus()
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement === [...document.querySelectorAll('.xp-word')].at(-1)")
    page.keyboard.press("ArrowUp")
    assert page.locator(".xp-word[aria-selected='true']").count() == 1
    assert page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
    page.keyboard.press("Home")
    assert "place 0, weight" in page.evaluate("document.activeElement.ariaLabel")


def test_a_phone_is_wide_enough(page):
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate("[...document.querySelectorAll('.xp-map')].every(one => one.getBoundingClientRect().width > 40)")


def test_script_and_class_share_their_letters():
    assert f'"{attention_pattern.LETTERS}"' in scripts.module("attention_pattern") and len(set(attention_pattern.LETTERS)) == 64


# ---- what the chapter works by hand

def test_the_numbers_of_the_drawing_are_those_of_the_formula():
    query, keys, values = (1, 1), ((1, -1), (3, 0), (4, -4)), ((10, 0), (0, 10), (10, 10))
    powers = [2 ** sum(a * b for a, b in zip(query, key)) for key in keys]
    assert powers == [1, 8, 1]
    assert [sum(p * v[i] for p, v in zip(powers, values)) / sum(powers) for i in range(2)] == [2, 9]
    assert attention_pattern.BY_HAND["weights"][0][0][2] == [p / sum(powers) for p in powers]


def test_the_dials_of_the_drawing_turn_by_fifteen_degrees_a_place():
    for path, (s, t, between) in itertools.product(("turn", "turn.narrow"), ((1, 3, 60), (6, 8, 60), (1, 8, 135))):
        assert (40 + 15 * t) - (10 + 15 * s) == between
        assert f"{between}°" in (ROOT / "minimodels" / "drawings" / f"{path}.svg").read_text("utf8")


def test_the_drawing_of_groups_counts_what_the_configuration_counts():
    for scheme, pairs in (("mha", 8), ("gqa", 2), ("mqa", 1)):
        config = replace(ModelConfig.preset("yardstick"), attention=scheme)
        assert config.kv_heads == pairs and f"{config.cached_values_per_layer} numbers" in (ROOT / "minimodels/drawings/groups.svg").read_text("utf8")


# ---- figures that the chapter writes

TEXT = " ".join((ROOT / "chapters" / "03_attention.py").read_text("utf8").replace("\n# > ", " ").replace("\n#", " ").split())


def trials(study, arm=None):
    return [t for t in recorded(study)["trials"] if arm in (None, t["arm"])]


SMALL = "a yardstick's pass / the same bound"


def test_the_figures_of_the_roofline_are_those_of_the_recorded_runs():
    """Medians of ratios within a round. After a new recording this test says which of the typed figures to change."""
    ratios = against(pooled(trials("attention-roofline")))
    said = {what: statistics.median(values) for what, values in ratios.items()}
    n_rounds = len(ratios["written / its bound"])
    factor = ratios["a token written / a token read"]
    wanted = [f"**{statistics.median(factor):.0f} times**",
              f"median of {n_rounds} rounds, which went from {min(factor):.0f} to {max(factor):.0f}.",
              f"Now the factor from the top, {statistics.median(factor):.0f}.",
              f"differ by a factor of {said['the bounds of the two']:.0f}.",
              f"reading takes {said['read / its bound']:.1f} times as long, writing {said['written / its bound']:.1f} times",
              f"Of these {said['written / its bound']:.1f}, the model's matrix products alone take {said['its products alone / the same bound']:.1f}",
              f"already takes {said['one large product / the same bound']:.1f} times the bound",
              f"takes {said[SMALL]:.1f}. ",
              f"decoding reaches {said['percent of the peak, written']:.0f} percent of the peak",
              f"a long prompt reaches {said['percent of the peak, read']:.0f} percent"]
    batch = ratios["tokens a second, 64 at once / 1"]
    wanted.append(f"64 at once came out at {statistics.median(batch):.0f} times as many tokens a second as one alone "
                  f"({min(batch):.0f} to {max(batch):.0f} within a round)")
    assert [words for words in wanted if words not in TEXT] == []


def test_ratios_within_a_round_by_hand():
    """Two rounds on a machine that does 1 GFLOPS and fetches 1 GB/s, the second at half the speed: no ratio notices."""
    cost = {name: work(WIDE, *sizes) for name, sizes in PASSES.items()}
    once = {name: 1e-6 * max(each["flops"], each["bytes"]) for name, each in cost.items()}
    once |= {"read": READ_BYTES / 1e6, "read by a product": 1.5 * READ_BYTES / 1e6, "multiply": MULTIPLY_FLOPS / 1e6}
    found = against({name: [ms, 2 * ms] for name, ms in once.items()})
    assert all(a == pytest.approx(b) for a, b in found.values())
    assert found["written / its bound"][0] == found["read / its bound"][0] == pytest.approx(1)
    assert found["percent of the peak, read"][0] == pytest.approx(100)
    assert found["one large product / the same bound"][0] == pytest.approx(1.5)
    one, prompt = cost["decode, 1 at a time"], cost["prefill, 512"]
    assert found["a token written / a token read"][0] == pytest.approx(one["bytes"] / (prompt["flops"] / 512))
    assert found["the bounds of the two"] == pytest.approx(found["a token written / a token read"])
    assert found["percent of the peak, written"][0] == pytest.approx(100 * one["flops"] / one["bytes"])


def test_the_cost_of_sharing_is_that_of_chapter_six():
    score = {arm: [t["bits_per_byte"] for t in trials("mla-quality", arm)] for arm in ("mha", "gqa", "mqa")}
    mean = {arm: statistics.mean(values) for arm, values in score.items()}
    more = {arm: statistics.mean(a - b for a, b in zip(score[arm], score["mha"])) for arm in ("gqa", "mqa")}
    assert all(a < b < c for a, b, c in zip(*score.values())) and "with every seed **MHA** is best and **MQA** worst" in TEXT
    assert f"A quarter of the cache for {100 * (mean['gqa'] / mean['mha'] - 1):.1f} percent more bits, an eighth for {100 * (mean['mqa'] / mean['mha'] - 1):.1f}" in TEXT
    assert f"{more['gqa']:.4f} and {more['mqa']:.4f} bits per byte." in TEXT


def test_what_is_said_of_the_planted_bugs_is_what_was_recorded():
    mean = {arm: {key: statistics.mean(t[key] for t in trials("attention-bugs", arm)[:3]) for key in ("bits_per_byte", "honest", "one_by_one")}
            for arm in recorded("attention-bugs")["arms"]}
    leak, right = mean["leaking mask"], mean["right"]
    shown = [t["bits_per_byte"] for t in trials("attention-bugs", "leaking mask")]
    assert f"({leak['bits_per_byte']:.2f} bits per byte, {min(shown):.2f} to {max(shown):.2f} over three seeds)" in TEXT
    # 39,964 tokens of 150,000 bytes: 2.60 nats a token for one bit per byte
    nats = 2.60 * right["bits_per_byte"]
    assert "Half a nat a token" in TEXT and 0.4 < 2.60 * leak["bits_per_byte"] < 0.6 and f"needs {nats:.1f} ({right['bits_per_byte']:.2f})" in TEXT.replace(" > ", " ")
    assert all(t["honest"] > 12 / 3.75 for t in trials("attention-bugs", "leaking mask"))    # blind guessing: 12 bits a token of 3.75 bytes
    rotations = ("key turned twice", "both turned twice", "never turned")
    better = [sum(a["bits_per_byte"] < b["bits_per_byte"] for a, b in zip(trials("attention-bugs", arm), trials("attention-bugs", "right"))) for arm in rotations]
    assert better == [1, 1, 1] and "with each fault one seed is better and two are worse" in TEXT
    rises = [t["honest"] - t["bits_per_byte"] for arm in rotations for t in trials("attention-bugs", arm)]
    assert len(rises) == 9 and 0 < min(rises) and max(rises) < 0.007 and "all nine scores rise, but by less than 0.007" in TEXT


def test_the_band_is_that_of_the_recorded_runs():
    band = json.loads(lab.data_file("bands.json").read_text())["attention"]["right after 120 steps"]["tiers"]["cpu"]
    values = [t["bits_per_byte"] for t in trials("attention-bugs", "right")]
    mean, spread = statistics.mean(values), statistics.stdev(values)
    assert band["n_runs"] == len(values) == 5
    assert [band["mean"], band["low"], band["high"]] == pytest.approx([mean, mean - 3 * spread, mean + 3 * spread], abs=5e-4)


@pytest.fixture(scope="module")
def yardstick():
    return Run.open(lab.data_file("checkpoints/yardstick")).model()


@pytest.fixture(scope="module")
def twice():
    """32 tokens drawn at random, put twice: no text, so the same on every machine."""
    once = torch.randint(300, 4096, (32, 32), generator=torch.Generator().manual_seed(0))
    return torch.cat([once, once], 1)


def follows(model, twice):
    """By layer and head, the share that token t + 32 gives to t + 1."""
    t = torch.arange(31)
    with torch.inference_mode():
        return patterns(model, twice)[..., t + 32, t + 1].mean((1, 3))


def test_the_trained_yardstick_has_the_heads_that_the_chapter_names(yardstick, twice):
    with torch.inference_mode():
        back = patterns(yardstick, twice).diagonal(-1, -2, -1).mean((1, 3))    # (n_layers, H), on the token before
    layer, head = divmod(back.argmax().item(), 8)
    assert f"head {head} of layer {layer}" in TEXT.lower() and back.max() > 0.8
    best = follows(yardstick, twice).flatten().topk(3)
    assert {divmod(i, 8) for i in best.indices.tolist()} == {(3, 0), (3, 3), (3, 4)} and "Heads 0 and 3 of layer 3 find" in TEXT and best.values.min() > 0.2


def test_cutting_each_head_says_what_the_chapter_says(yardstick, twice):
    def cut(layer, head):
        model = copy.deepcopy(yardstick)
        part = slice(16 * head, 16 * head + 16)
        model.layers[layer].attention.w_o.register_forward_pre_hook(lambda module, args: (hide(args[0], part),))
        return model

    def hide(x, part):
        x = x.clone()
        x[..., part] = 0
        return x

    def halves(model):
        with torch.inference_mode():
            loss = -model(twice).logits.log_softmax(-1)[:, :-1].gather(-1, twice[:, 1:, None])[..., 0]
        return loss[:, :31].mean().item(), loss[:, 32:].mean().item()

    first, second = halves(yardstick)
    harm = {(a, n): halves(cut(a, n))[1] - second for a, n in itertools.product(range(4), range(8))}
    order = sorted(harm, key=harm.get, reverse=True)
    assert f"it needs {first - second:.1f} nats less" in TEXT and second > 8.3
    assert order[0] == (2, 7) and harm[2, 7] > 2 * harm[order[1]] and set(order[1:4]) == {(3, 0), (3, 3), (3, 4)}
    assert harm[order[4]] < harm[order[3]] / 2 and f"by up to {-harm[order[-1]]:.1f} nats" in TEXT
    whole, now = (100 * follows(model, twice)[3, [0, 3, 4]].mean().item() for model in (yardstick, cut(2, 7)))
    assert f"gave {whole:.0f} percent of their share to the right place, and now give {now:.0f}" in TEXT
