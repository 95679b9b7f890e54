"""Chapter 07: its exercises' solutions by other routes, its bugs, what it measures of the checkpoint, and the figures that its text writes."""

import itertools
import math
import random
import statistics
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from minimodels import lab
from minimodels.bugs import plant
from minimodels.bugs.moe import BUGS, BiasInWeight, DeadExpert, Dropping, NotNormalised, SoftmaxGate
from minimodels.checkpoint import Run
from minimodels.config import ModelConfig
from minimodels.data import prepare
from minimodels.exercises import moe as exercises
from minimodels.kinds import KINDS
from minimodels.model import Transformer
from minimodels.moe import MoE
from minimodels.optim import make_optimizers
from minimodels.studies import find, recorded
from minimodels.studies import moe as studies
from minimodels.studies import moe_routing as routing
from minimodels.studies.mla import LIVE, LIVE_BYTES
from minimodels.studies.moe_short import Hashed

CONFIG = replace(exercises.CONFIG, vocab_size=97, d_model=24, n_layers=3, n_dense_layers=1, n_experts=7, top_k=3, d_expert=8, d_ff=20)


def text():
    """The chapter's text as one line of words."""
    path = lab.data_file("").parent / "chapters" / "07_moe.py"
    return " ".join(path.read_text("utf8").replace("\n# > ", " ").replace("\n#", " ").split())


def scores(study, arm, seeds=None):
    found = {t["seed"]: t["bits_per_byte"] for t in recorded(study)["trials"] if t["arm"] == arm}
    return [found[seed] for seed in seeds or found]


# ---- the exercises' solutions, by other routes

def test_the_gate_by_hand_is_the_packages():
    g = torch.Generator().manual_seed(0)
    layer = MoE(CONFIG)
    torch.nn.init.normal_(layer.gate.weight, generator=g)
    layer.gate.bias.normal_(std=0.3, generator=g)
    got = layer.gate(torch.randn(11, 24, generator=g))
    for score, expert, weight in zip(got.score.tolist(), got.expert.tolist(), got.weight.tolist()):
        mine, weights = exercises.choose_and_weigh(score, layer.gate.bias.tolist(), 3)
        assert mine == expert and weights == pytest.approx(weight, abs=1e-6)


def test_combinations_are_those_that_can_be_listed():
    for n, k, pieces in ((4, 1, 2), (3, 2, 2), (5, 2, 1)):
        assert exercises.combinations(n, k, pieces) == len(list(itertools.combinations(range(n * pieces), k * pieces)))
    assert (exercises.combinations(16, 2, 1), exercises.combinations(16, 2, 4)) == (120, 4_426_165_368) and "two of 16 make 120 teams, eight of 64 make 4.4 billion" in text()


def test_rows_by_expert_are_those_of_a_loop():
    expert = torch.tensor([[2, 0], [3, 2], [0, 3], [2, 3]])
    token, counts = exercises.rows_by_expert(expert, 5)
    wanted = [t for e in range(5) for t in range(4) if e in expert[t].tolist()]
    assert token.tolist() == wanted and counts == [2, 0, 3, 3, 0]


@pytest.mark.parametrize("gate, is_normalised", list(itertools.product(["sigmoid", "softmax"], [True, False])))
@pytest.mark.parametrize("K", [1, 2, 3])
def test_the_rows_that_learn_are_those_that_autograd_reaches(gate, is_normalised, K):
    E, g = 5, torch.Generator().manual_seed(K)
    w = torch.randn(E, 6, generator=g, dtype=torch.float64).requires_grad_()
    logit = w @ torch.randn(6, generator=g, dtype=torch.float64)
    score = logit.sigmoid() if gate == "sigmoid" else logit.softmax(-1)
    chosen = score.detach().topk(K).indices
    weight = score[chosen] / (score[chosen].sum() if is_normalised else 1)
    (weight * torch.randn(K, generator=g, dtype=torch.float64)).sum().backward()
    assert exercises.rows_that_learn(chosen.tolist(), E, gate, is_normalised) == (w.grad.abs().sum(1) > 1e-12).tolist()


def test_bits_told_are_the_difference_of_entropies():
    counts = [[5, 0, 3], [1, 9, 2]]

    def entropy(values):
        total = sum(values)
        return -sum(n / total * math.log2(n / total) for n in values if n)

    known = sum(sum(row) / 20 * entropy(row) for row in counts)
    assert exercises.bits_told(counts) == pytest.approx(entropy([6, 9, 5]) - known)
    label, expert = zip(*[(i, j) for i, row in enumerate(counts) for j, n in enumerate(row) for _ in range(n)])
    assert routing.information(torch.tensor(label), torch.tensor(expert), n_experts=3) == pytest.approx(exercises.bits_told(counts))


@pytest.mark.parametrize("test, bug", [(exercises.bias_only_chooses, BiasInWeight), (exercises.company_does_not_matter, Dropping),
                                       (exercises.everyone_can_be_chosen, DeadExpert)])
def test_each_of_the_readers_tests_finds_its_bug(test, bug):
    for seed in range(5):
        rng = random.Random(seed)
        right, h = exercises.layer_of(rng), torch.randn(4, 8, exercises.CONFIG.d_model, generator=torch.Generator().manual_seed(seed))
        assert test(right, h) and not test(plant(right, bug), h)


# ---- the bugs

def pair(bug):
    """The same layer right and spoilt, with large weights and a bias, and what goes in."""
    layers = []
    for _ in range(2):
        g = torch.Generator().manual_seed(0)
        layer = MoE(CONFIG)
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter, std=0.5, generator=g)
        layer.gate.bias.normal_(std=0.1, generator=g)
        layers.append(layer)
    return layers[0], plant(layers[1], bug), torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bug", BUGS.values())
def test_a_bug_changes_the_output_and_no_weight_and_can_be_trained(bug):
    right, spoilt, h = pair(bug)
    assert all(torch.equal(a, b) for a, b in zip(right.state_dict().values(), spoilt.state_dict().values()))
    assert not torch.allclose(right(h)[0], spoilt(h)[0], atol=1e-3)
    spoilt(h)[0].square().sum().backward()
    assert spoilt.gate.weight.grad.abs().sum() > 0


def test_what_each_bug_leaves_alone():
    for bug in (BiasInWeight, NotNormalised, Dropping):    # the choice
        right, spoilt, h = pair(bug)
        assert torch.equal(right(h)[1].expert, spoilt(h)[1].expert)
    right, spoilt, h = pair(BiasInWeight)
    for layer in (right, spoilt):
        layer.gate.bias.zero_()
    assert torch.allclose(right(h)[0], spoilt(h)[0], atol=1e-6)
    right, spoilt, h = pair(NotNormalised)
    x = h.flatten(0, 1)
    assert torch.allclose(spoilt.gate(x).weight / spoilt.gate(x).weight.sum(-1, keepdim=True), right.gate(x).weight, atol=1e-6)
    right, spoilt, h = pair(SoftmaxGate)
    assert torch.allclose(spoilt.gate(x).score, (x @ right.gate.weight.T).softmax(-1), atol=1e-6)
    right, spoilt, h = pair(DeadExpert)
    assert right(h)[1].load[-1] > 0 and spoilt(h)[1].load[-1] == 0


def test_dropping_serves_each_expert_its_share_in_order():
    right, spoilt, h = pair(Dropping)
    x = h.flatten(0, 1)
    routing, capacity = spoilt.gate(x), math.ceil(18 * 3 / 7)
    for e in range(7):
        rows = [(t, k) for t in range(18) for k in range(3) if routing.expert[t, k] == e]
        assert [routing.weight[t, k].item() > 0 for t, k in rows] == [i < capacity for i in range(len(rows))]


# ---- the studies

def test_the_live_run_is_the_dense_live_runs_recipe():
    dense = next(t for t in find("mla-live").trials if t.arm == "mha" and t.seed == 1)
    fine = find("moe-live").trials[0]
    assert fine.training == dense.training == replace(LIVE, seed=1) and fine.max_bytes == dense.max_bytes == LIVE_BYTES
    assert fine.model == studies.MODELS["fine"] and dense.model == studies.YARDSTICK


def test_bugs_are_trained_as_the_right_gate_is():
    trials = find("moe-bugs").trials
    assert {t.bug for t in trials} == {None, *BUGS} and len({(t.model, replace(t.training, seed=0)) for t in trials}) == 1


def test_what_a_label_tells_is_nothing_for_dice_and_all_for_the_expert_itself():
    g = torch.Generator().manual_seed(0)
    expert, dice = torch.randint(0, 8, (20_000,), generator=g), torch.randint(0, 5, (20_000,), generator=g)
    half = torch.arange(20_000) // 256 % 2 == 0
    assert abs(routing.told(dice, expert, half, n_experts=8)) < 0.01
    assert routing.told(expert, expert, half, n_experts=8) == pytest.approx(3, abs=0.05)
    assert routing.uncertainty(expert) == pytest.approx(3, abs=0.01)
    assert routing.told(expert // 2, expert, half, n_experts=8) == pytest.approx(2, abs=0.05)


def test_shifted_labels_that_come_in_runs_tell_more_than_shuffled_ones():
    expert = torch.arange(30_000) // 1500 % 4    # runs of 1,500
    label = torch.arange(30_000) // 1500 % 4
    chance = routing.rotated(label, expert, n_experts=4, n_trials=20)
    assert routing.information(label, expert, n_experts=4) == pytest.approx(2, abs=1e-6) and statistics.mean(chance) > 0.3


def test_touched_experts_of_independent_tokens_are_the_formulas():
    g = torch.Generator().manual_seed(0)
    chosen = torch.rand(50_000, 16, generator=g).topk(4).indices
    for n in (2, 8):
        wanted = 16 * (1 - (1 - 4 / 16)**n)
        assert routing.touched(chosen, n, consecutive=False) == pytest.approx(wanted, abs=0.15)
        assert routing.touched(chosen, n, consecutive=True) == pytest.approx(wanted, abs=0.15)
    assert routing.touched(chosen[:1].expand(100, 4), 9, consecutive=True) == 4


def test_keeping_all_hidden_numbers_keeps_the_model_and_what_is_undone_is_undone():
    torch.manual_seed(0)
    model = Transformer(replace(CONFIG, n_experts=0)).eval()
    windows = torch.randint(1, 97, (2, 9))
    before = routing.surprise(model, windows)
    end = routing.thinned(model, 1.0, by="token")
    assert torch.allclose(routing.surprise(model, windows), before)
    end()
    end = routing.thinned(model, 0.25, by="token")
    assert not torch.equal(routing.surprise(model, windows), before)
    end()
    assert torch.equal(routing.surprise(model, windows), before)


def test_without_an_expert_nobody_goes_there():
    torch.manual_seed(0)
    model = Transformer(CONFIG).eval()
    windows = torch.randint(1, 97, (2, 9))
    assert (routing.choices(routing.without_expert(model, 2, 3), windows)[2] != 3).all() and (routing.choices(model, windows)[2] == 3).any()


# ---- the figures that the chapter writes

def test_what_the_chapter_says_of_v3():
    v3 = ModelConfig.preset("deepseek_v3")
    assert f"**{v3.n_params / v3.n_active_params:.1f} times**" in text()
    days, more = 2.788e6 / 2048 / 24, (250 + 6 * (v3.n_params - v3.n_active_params) / 1e9) / 250    # 250 GFLOP a token: ISCA 2025, Table 2
    assert round(days) == 57 and "Its training took 57 days" in text()
    assert 2.5 < days * more / 365 < days * 17.9 / 365 < 3 and "two and a half to three years" in text()
    assert round(256 * (1 - (1 - 8 / 256)**128)) == 252 and "128 unrelated tokens wake 252" in text()


def test_what_the_chapter_says_of_the_yardstick():
    c = studies.YARDSTICK
    assert round(100 * c.n_layers * 3 * c.d_model * c.d_ff / c.n_params) == 38 and "In our yardstick it is 38 percent" in text()


def test_what_the_chapter_says_of_its_five_models():
    dense, *split = studies.MODELS.values()
    assert all(abs(c.n_active_params / dense.n_params - 1) < 0.01 for c in split) and all(round(c.n_params / dense.n_params, 1) == 3.0 for c in split)
    assert {c.d_expert * (c.top_k + c.n_shared) for c in split} == {320} and {c.d_expert * (c.n_experts + c.n_shared) for c in split} == {2560}


def recorded_routing():
    return recorded("moe-routing")["trials"][0]


def test_what_the_chapter_says_of_thinning():
    thin = recorded_routing()["thinned"]
    assert thin["0.5 by token"] / thin["all"] < 1.003 and "cost next to nothing" in text()
    assert 1.01 < thin["0.25 by token"] / thin["all"] < 1.02 and "to keep only a quarter costs under two percent" in text()
    assert 1.14 < thin["0.0625 by token"] / thin["all"] < 1.18
    assert thin["0.5 by all"] / thin["all"] > 1.5


def test_what_the_chapter_says_of_parts_switched_off():
    bits = recorded_routing()["bits_per_byte"]
    more = {name: 100 * (score / bits["right"] - 1) for name, score in bits.items()}
    assert f"Ours needs {more['without the shared']:.1f} percent more bits" in text()
    assert f"costs {more['without the first choice']:.0f} percent" in text()
    assert round(2.414 / 1.808, 2) == 1.34 and "the loss on the Pile rose by a third" in text()


def test_what_the_chapter_says_of_a_crowd():
    for layer in recorded_routing()["layers"].values():
        for n, (everywhere, row) in layer["touched"].items():
            assert abs(everywhere - 16 * (1 - 0.75**int(n))) < 0.13 and row <= everywhere + 0.01
    assert recorded_routing()["layers"]["3"]["touched"]["8"][1] == pytest.approx(11.75, abs=5e-3) and "eight tokens in a row wake 11.75 where dice would wake 14.4" in text()
    assert all(recorded_routing()["layers"][n]["touched"]["8"][1] > 13 for n in "12") and "(in layers 1 and 2 more than 13)" in text()


def test_what_the_chapter_says_of_the_bits_told():
    run = recorded_routing()
    first, last = run["layers"]["1"], run["layers"]["3"]
    share = {label: 100 * bits / first["uncertainty"] for label, bits in first["told"].items()}
    assert [round(share[label]) for label in ("the token itself", "its kind", "its file")] == [74, 20, 3]
    assert "it tells 74 percent of the first choice, its kind 20 percent, and the file 3 percent" in text()
    assert f"{run['n_tokens']:,} tokens of validation text" in text() and run["n_files"] == 28 and "the file, 28 of them" in text()
    files = [layer["told"]["its file"] for layer in run["layers"].values()]
    assert (round(min(files), 2), round(max(files), 2)) == (0.11, 0.16) and "0.11 to 0.16 bits of nearly 4" in text()
    assert (round(first["told"]["its kind"], 2), round(first["told"]["its group of embeddings"], 2)) == (0.79, 0.73)
    assert (round(last["told"]["its kind"], 2), round(last["told"]["its group of embeddings"], 2)) == (0.99, 0.59)
    assert (round(first["told"]["code or English"], 2), round(last["told"]["code or English"], 2)) == (0.16, 0.47)
    assert round(last["uncertainty"], 2) == 3.81 and "0.47 bits of 3.81" in text()
    assert max(last["told"], key=last["told"].get) == "the token itself"
    assert max(max(layer["by_chance"]) for layer in run["layers"].values()) < 0.12 and all(len(layer["by_chance"]) == 199 for layer in run["layers"].values())
    assert all(layer["information"] > 0.7 for layer in run["layers"].values())


@pytest.mark.slow
def test_what_the_chapter_says_of_the_file_by_chance_and_of_the_token_before():
    model = Run.open(lab.data_file(routing.CHECKPOINT)).model().eval()
    data = prepare("stdlib", vocab_size=4096)
    seen, E = routing.read(model, torch.tensor(data.valid[:].astype("int64")), data.tokenizer), model.config.n_experts
    before, g, moved = seen.token.roll(1), torch.Generator().manual_seed(0), []
    shifts = torch.randint(1000, len(seen.token) - 1000, (19,), generator=g).tolist()
    for layer, first in seen.first.items():
        real = recorded_routing()["layers"][str(layer)]["told"]
        moved.append(statistics.mean(routing.told(seen.file.roll(n), first, seen.half, n_experts=E) for n in shifts))
        assert 0.5 * real["its file"] < moved[-1] < real["its file"]
        counts = torch.zeros(model.config.vocab_size, E).index_put_((seen.token, first), torch.ones(()), accumulate=True)
        drawn = torch.multinomial(counts[seen.token], 1, generator=g).squeeze(1)    # an expert that knows the token, and no context
        assert routing.told(before, drawn, seen.half, n_experts=E) > 0.5 * real["the token before"]
    assert f"Moved along the text, the file labels still tell {min(moved):.2f} to {max(moved):.2f}" in text()
    assert "mostly because it foretells the token" in text()


def test_what_the_chapter_says_of_the_dismissed_specialist():
    run = recorded_routing()
    kinds = {name: row for name, row in zip(KINDS, run["layers"]["3"]["kinds"])}
    share = {name: row[9] / sum(row) for name, row in kinds.items()}
    assert 0.74 < share["keyword"] < 0.78 and "first choice for three quarters of all keywords" in text()
    lost = run["damage"]["9"]
    assert f"near nothing for others, {lost['all']:.3f} for all tokens together" in text()
    assert max(lost[name] for name in lost if name not in ("keyword", "operator", "all")) < 0.01 and "not Python" not in lost
    assert f"After a keyword the loss rises by {lost['keyword']:.3f} nats, after an operator by {lost['operator']:.3f}" in text().replace(" (a nat is 1.44 bits)", "")
    assert f"({100 * share['operator']:.0f} percent of the operators had this expert first)" in text() and f"by {lost['all']:.3f} over all tokens" in text()
    assert all(d["all"] > 0 for d in run["damage"].values())


def test_what_the_chapter_says_of_the_rates():
    found = {t["arm"]: t["bits_per_byte"] for t in recorded("moe-rates")["trials"]}
    found |= {t["arm"].replace("mha", "dense"): t["bits_per_byte"] for t in recorded("mla-rates")["trials"] if t["arm"].startswith("mha")}
    best = {name: min(found[f"{name} {rate:g}"] for rate in studies.RATES) for name in studies.MODELS}
    assert all(found[f"{name} {rate:g}"] == best[name] for name, rate in studies.BEST_RATE.items()) and best["dense"] == found["dense 0.01"]


def test_what_the_chapter_says_of_the_live_run():
    fine, dense = scores("moe-live", "fine"), scores("mla-live", "mha")
    assert len(fine) == len(dense) == 6
    assert f"{statistics.mean(fine):.3f} in the mean of six seeds, beside the dense model's {statistics.mean(dense):.3f}" in text()


def test_what_the_chapter_says_of_five_seeds():
    seeds = studies.SEEDS
    dense = scores("mla-quality", "mha", seeds)
    found = {name: scores("moe-quality", name, seeds) for name in studies.BEST_RATE}
    less = {name: round(100 * statistics.mean(1 - s / d for s, d in zip(row, dense)), 1) for name, row in found.items()}
    assert (less["fine + shared"], less["top-2"], less["fine"]) == (1.2, 1.1, 0.9) and less["top-1"] < 0
    assert "fine + shared needs 1.2 percent fewer bits than the dense network, top-2 1.1 and *fine* 0.9, each with every seed" in text()
    three = ("top-2", "fine", "fine + shared")
    assert all(s < d for name in three for s, d in zip(found[name], dense)) and any(s < d for s, d in zip(found["top-1"], dense))
    for a, b in itertools.combinations(three, 2):
        assert len({x < y for x, y in zip(found[a], found[b])}) == 2    # "each pair changes its order"
    runs = recorded("moe-quality")["trials"]
    busy = [1 + max(t["max_violation"]) for t in runs if t["arm"] == "top-1"]
    assert f"{min(busy):.1f} to {max(busy):.1f} times its share" in text() and 0.32 < min(busy) / 8 < 0.34 and 0.82 < max(busy) / 8 < 0.86
    assert max(max(t["max_violation"]) for t in runs if t["arm"] != "top-1") < 0.75
    assert all(t["without"]["shared"] / t["bits_per_byte"] < 1.028 for t in runs if t["arm"] == "fine + shared")


def test_what_the_chapter_says_of_a_fixed_choice():
    seeds = (1, 2, 3)
    fixed, learnt = scores("moe-hash", "600 steps", seeds), scores("moe-quality", "fine", seeds)
    assert f"{statistics.mean(fixed):.4f} in the mean, beside {statistics.mean(learnt):.4f}" in text()
    less = [a - b for a, b in zip(fixed, learnt)]
    dense = scores("mla-quality", "mha", seeds)
    saved = statistics.mean(d - b for b, d in zip(learnt, dense))
    assert 4.303 * statistics.stdev(less) / 3**0.5 > saved > abs(statistics.mean(less))    # 95 percent, two degrees of freedom
    assert f"they scatter by {statistics.stdev(less):.2f}, and all that *fine* saves is {saved:.3f}" in text()
    assert round(100 * statistics.mean(1 - a / d for a, d in zip(fixed, dense)), 1) == 0.9 and "they saved one percent, too (three seeds)" in text()
    assert all(a < b for a, b in zip(fixed, scores("moe-quality", "top-1", seeds))) and "ahead of top-1 with each seed" in text()
    assert sum(a < b for a, b in zip(fixed, learnt)) == 2 and "ahead with two seeds and behind with one" in text()
    assert all(a < d and b < d for a, b, d in zip(fixed, learnt, scores("mla-quality", "mha", seeds)))
    ahead = [b - a for a, b in zip(scores("moe-hash", "60 steps", seeds), scores("moe-live", "fine", seeds))]
    assert f"by {min(ahead):.3f} to {max(ahead):.3f} bits per byte" in text()
    for n, runs in (("60", "moe-live"), ("600", "moe-quality")):
        rival = next(t for t in find(runs).trials if t.arm == "fine" and t.seed == 1)
        fixed = next(t for t in find("moe-hash").trials if t.arm == f"{n} steps" and t.seed == 1)
        assert (fixed.model, replace(fixed.training, eval_every=0)) == (rival.model, replace(rival.training, eval_every=0))
    assert round((2.060 - 1.932) / (2.060 - 1.881), 1) == 0.7 and round(1.932 - 1.881, 3) == 0.051


def test_what_the_chapter_says_of_the_eight_teams():
    data = prepare("stdlib", vocab_size=4096)
    share = {part: 8 * max(Counter((ids[:].astype(int) % 8).tolist()).values()) / len(ids) for part, ids in (("train", data.train), ("valid", data.valid))}
    assert f"only {max(share.values()):.2f} times its share" in text() and share["train"] == pytest.approx(1.13, abs=5e-3)
    teams = Hashed.choose(SimpleNamespace(ids=torch.arange(64)), None)
    assert sorted(e for team in {tuple(row) for row in teams.tolist()} for e in team) == list(range(32))    # each expert in one team
    fine, top1 = studies.MODELS["fine"], studies.MODELS["top-1"]
    assert teams.shape[1] * fine.d_expert == top1.d_expert and studies.BEST_RATE["fine"] == studies.BEST_RATE["top-1"]


def test_what_the_chapter_says_of_bugs():
    runs = {arm: [t for t in recorded("moe-bugs")["trials"] if t["arm"] == arm] for arm in recorded("moe-bugs")["arms"]}
    bits = {arm: [t["bits_per_byte"] for t in row] for arm, row in runs.items()}
    seeds = max(bits["right"]) - min(bits["right"])
    assert all(1.90 < s < 1.93 for row in bits.values() for s in row) and "All dots lie between 1.90 and 1.93" in text()
    assert all(abs(s - r) < seeds for row in bits.values() for s, r in zip(row, bits["right"]))
    busy = [1 + max(t["max_violation"]) for t in runs["softmax for sigmoid"]]
    assert 2.9 < min(busy) and max(busy) < 4.1 and max(1 + max(t["max_violation"]) for t in runs["right"]) < 1.6
    assert all(t["alone"] - t["bits_per_byte"] > 0.001 for t in runs["dropped tokens"])
    assert all(abs(t["alone"] - t["bits_per_byte"]) < 1e-4 for arm, row in runs.items() if arm != "dropped tokens" for t in row)
    assert round(100 * statistics.mean(t["mended"] / t["bits_per_byte"] - 1 for t in runs["softmax for sigmoid"]), 1) == 0.3


def test_what_the_chapter_says_of_equal_seconds():
    dense, shared = scores("moe-seconds", "dense", (1, 2, 3)), scores("moe-quality", "fine + shared", (1, 2, 3))
    assert f"{min(dense):.2f} to {max(dense):.2f} (three seeds), beside {min(shared):.2f} to {max(shared):.2f}" in text()


def test_what_the_chapter_says_of_the_optimizers_work():
    dense, shared = (sum(p.numel() for group in make_optimizers(Transformer(studies.MODELS[name]), studies.RECIPE)[0].param_groups
                         for p in group["params"]) for name in ("dense", "fine + shared"))
    assert f"has {shared / dense:.1f} times as many numbers to turn" in text()


def test_what_the_chapter_says_of_equal_memory():
    wide = {t["seed"]: t for t in recorded("train-larger")["trials"]}
    ours, shared = scores("moe-quality", "fine + shared", (1, 2)), studies.MODELS["fine + shared"]
    trial, rival = find("train-larger").trials[0], next(t for t in find("moe-quality").trials if t.arm == "fine + shared" and t.seed == 1)
    assert not trial.model.n_experts and (trial.max_bytes, trial.data, trial.training.steps) == (rival.max_bytes, rival.data, 600)
    assert trial.training == rival.training and all(wide[s]["bits_per_byte"] < o for s, o in zip((1, 2), ours))
    assert f"A dense model of {wide[1]['n_params'] / 1e6:.2f} million parameters" in text()
    assert 1.85 < trial.model.n_active_params / shared.n_active_params < 2 and "at nearly twice the work for a token" in text()
    assert (f"reaches {wide[1]['bits_per_byte']:.3f} and {wide[2]['bits_per_byte']:.3f} after 600 steps (seeds 1 and 2); "
            f"fine + shared, with {shared.n_params / 1e6:.2f} million, {ours[0]:.3f} and {ours[1]:.3f}") in text().replace("> ", "")


def test_what_exercise_7_10_says():
    ms = [256 * (1 - (1 - 8 / 256)**n) * 44.04e6 * 58 / 3.35e12 * 1e3 for n in (1, 128)]
    assert f"{ms[0]:.1f} ms for one token, {ms[1]:.0f} ms for 128 of them, which is {ms[1] / 128:.1f} ms a token" in text()


def test_what_the_chapter_says_of_more_text():
    gains = {}
    for steps, dense, shared in ((600, ("mla-quality", "mha"), ("moe-quality", "fine + shared")), (1000, ("moe-seconds", "dense"), ("moe-longer", "fine + shared"))):
        before, after = ({t["seed"]: t["bits_per_byte"] for t in recorded(study)["trials"] if t["arm"] == arm} for study, arm in (dense, shared))
        gains[steps] = [100 * (1 - after[seed] / before[seed]) for seed in (1, 2, 3)]
    less, more = (statistics.mean(gains[steps]) for steps in (600, 1000))
    assert min(gains[1000]) > 0 and f"they save {more:.1f} percent, again with each of three seeds, where they saved {less:.1f} after 600" in text()
    assert f"one seed saves {min(gains[1000]):.1f} and another {max(gains[1000]):.1f}" in text()
    apart = [b - a for a, b in zip(gains[600], gains[1000])]
    assert statistics.mean(apart) < 4.303 * statistics.stdev(apart) / 3**0.5    # Student's t: no growth that three seeds show
    assert f"After 1,000 steps fine + shared needs {more:.1f} percent fewer (three seeds)" in text()
