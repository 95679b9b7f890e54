"""Chapter 13: the ladder built by hand, the solutions of its longer problems, and the figures that its text writes."""

import itertools
import math
import re
import statistics
from dataclasses import replace

import pytest

from minimodels import cost, lab, ledger
from minimodels.checkpoint import Run
from minimodels.config import ModelConfig, TrainConfig
from minimodels.data import prepare
from minimodels.evaluate import acceptance, windows
from minimodels.exercises import together as exercises
from minimodels.fp8 import convert
from minimodels.ladder import rungs
from minimodels.mtp import losses
from minimodels.studies import recorded
from minimodels.studies import together as studies
from minimodels.studies.moe_routing import choices
from minimodels.studies.together import LIVE_BYTES

V3 = ModelConfig.preset("deepseek_v3")


def source():
    return (lab.data_file("").parent / "chapters" / "13_together.py").read_text("utf8")


def text():
    """The chapter's text as one line of words."""
    return " ".join(source().replace("\n# > ", " ").replace("\n#", " ").split())


def bits(study, arm):
    return {t["seed"]: t["bits_per_byte"] for t in recorded(study)["trials"] if t["arm"] == arm}


def median(values):
    return statistics.median(list(values))


def large():
    """The ladder at V3's sizes, lowest rung first."""
    experts = replace(V3, mtp_depth=0)
    latent = replace(experts, n_experts=0)
    return replace(latent, attention="mha"), latent, experts, V3


# ---- what is counted

def test_deepseek_saved_42_percent_of_the_hours():
    assert 1 - 172.8 / 300.6 == pytest.approx(0.425, abs=5e-4) and "**42.5 percent**" in text()


def test_the_ladder_by_hand_says_what_the_package_says():
    dense = ModelConfig.preset("yardstick")
    latent = replace(dense, attention="mla")
    experts = replace(latent, n_experts=31, top_k=3, d_expert=80)
    module = replace(experts, mtp_depth=1)
    for config, rung in zip((dense, latent, experts, module, module), rungs("cpu"), strict=True):
        ours, theirs = config.to_dict(), rung.model.to_dict()
        assert config.n_params == rung.model.n_params and config.parameters == rung.model.parameters
        assert {name for name in ours if ours[name] != theirs[name]} <= {"top_k", "d_expert"}    # which a dense model does not read
        assert replace(rung.training, fp8=False) == TrainConfig.preset("yardstick")
    assert studies.BEST_RATE == {"dense": 0.01, "+ MLA": 0.02, "+ experts": 0.01, "+ MTP": 0.01, "+ FP8": 0.01}
    assert "**MLA** at 0.02, all others at 0.01" in text()


def test_what_the_small_ladder_counts():
    dense, latent, experts, module, _ = (rung.model for rung in rungs("cpu"))
    expert = 3 * 128 * 80
    assert experts.n_params - latent.n_params == 3 * (32 * expert + 31 * 128 - 3 * 128 * 320) == 2_592_384
    assert experts.n_active_params - latent.n_active_params == 3 * 31 * 128 == 11_904 and "Two and a half million more to keep; twelve thousand" in text()
    assert (64 + 8) / (2 * 8 * 16) == pytest.approx(0.28, abs=2e-3) and (2 * 8 * 16) / (64 + 8) == pytest.approx(3.6, abs=0.05)
    assert experts.n_params / latent.n_params == pytest.approx(3.0, abs=0.05)
    flops = [cost.flops_per_token(m, seq_len=256, mtp=True) for m in (latent, experts, module)]
    assert flops[2] / flops[1] == pytest.approx(1.54, abs=5e-3) and "The module costs 4 percent, not 54" in text()
    assert flops[0] > cost.flops_per_token(dense, seq_len=256)
    head, more = 3 * 2 * 4096 * 128, flops[2] - flops[1]
    assert head / more > 0.5 and "most of it for a second pass through the head" in text()


def test_what_the_ladder_counts_at_v3s_sizes():
    dense, latent, experts, module = large()
    assert V3.d_ff == (V3.top_k + V3.n_shared) * V3.d_expert == 18_432
    flops = [cost.flops_per_token(m, seq_len=4096, mtp=True) for m in large()]
    assert 1 - flops[1] / flops[0] == pytest.approx(0.28, abs=5e-3) and "*saves* 28 percent of the operations" in text()
    assert flops[3] / flops[2] == pytest.approx(1.04, abs=2e-3) and flops[2] / flops[1] < 1.003
    assert cost.cache_bytes(dense, 1) / cost.cache_bytes(latent, 1) == pytest.approx(57, abs=0.2) and "by a factor of 57, not 3.6" in text()
    assert experts.n_params / latent.n_params == pytest.approx(18, abs=0.1) and "parameters by 18, not by 3" in text()


def test_latents_beside_grouped_heads_save_little_work():
    _, latent, *_ = large()
    rival = replace(latent, attention="gqa", n_kv_heads=8)
    counts = (lambda c: c.n_params, lambda c: cost.flops_per_token(c, seq_len=4096), lambda c: cost.cache_bytes(c, 1))
    assert [round(count(latent) / count(rival), 2) for count in counts] == [0.91, 0.94, 0.28] and "0.91, 0.94 and 0.28, and 2.25 groups" in text()
    wide = replace(latent, d_query_latent=None)
    assert counts[1](wide) / counts[1](rival) == pytest.approx(1.11, abs=5e-3) and "operations is 1.11" in text()


# ---- seeds

def ten():
    arms = {"mla": ("mha", "gqa", "mqa", "mla"), "moe": ("top-1", "top-2", "fine", "fine + shared"), "mtp": ("one module, weight 0.3",), "fp8": ("V3's",)}
    return [bits(f"{chapter}-quality", arm) for chapter, names in arms.items() for arm in names]


def test_seeds_that_are_lucky_for_one_model_are_lucky_for_the_next():
    pairs = [[(a[s], b[s]) for s in range(1, 6)] for a, b in itertools.combinations(ten(), 2)]
    assert len(pairs) == 45 and "all 45 pairs" in text()
    assert all(statistics.correlation(*zip(*pair)) > 0 for pair in pairs) and "Every pair." in text()
    halves = [statistics.stdev(x - y for x, y in pair) / math.hypot(*map(statistics.stdev, zip(*pair))) for pair in pairs]
    assert 0.4 < median(halves) < 0.55 and "in the middle pairing halves the spread" in text()
    mha_mla = halves[2]    # of the order mha, gqa, mqa, mla
    assert round(mha_mla, 2) == round(max(halves), 2) == 0.85 and "(For **MHA** and **MLA** it leaves 0.85.)" in text()
    luck = {s: statistics.mean(each[s] - statistics.mean(each.values()) for each in ten()) for s in range(1, 6)}
    assert sorted(luck, key=luck.get)[0] == 4 and sorted(luck, key=luck.get)[-1] == 3 and "one good seed, the fourth, and one bad one, the third" in text()
    assert sum(luck[s] ** 2 for s in (3, 4)) > 0.9 * sum(each ** 2 for each in luck.values())


def test_students_t_is_the_text_s():
    assert exercises.T95[2] == pytest.approx(4.30, abs=5e-3) and exercises.T95[4] == pytest.approx(2.78, abs=5e-3)
    assert "4.30 standard errors to each side for three of them, and 2.78 for five" in text()
    apart = [2.776, 2.306]    # for two arms of three and of five runs: 4 and 8 degrees of freedom
    assert [round(t, 2) for t in apart] == [2.78, 2.31] and "Without pairing it would be 2.78 and 2.31" in text()
    assert exercises.T95[2] / apart[0] == pytest.approx(1.55, abs=0.01) and 1 - apart[0] / exercises.T95[2] > 1 / 3 and "more than a third of the spread" in text()


def test_how_many_seeds_a_tenth_of_a_percent_takes():
    sixteen, eight = bits("train-formats", "bf16") | bits("fp8-quality", "bf16"), bits("fp8-quality", "V3's")
    unit = statistics.mean(sixteen.values()) / 100
    by_seed = statistics.stdev((eight[s] - sixteen[s]) / unit for s in range(1, 6))
    apart = math.hypot(statistics.stdev(eight.values()), statistics.stdev(sixteen.values())) / unit
    needed = [math.ceil((2 * s / wanted) ** 2) for s in (by_seed, apart) for wanted in (0.1, 0.05)]    # more than 12, where t is 2
    assert needed == [26, 104, 89, 356] and "26 and 104 with pairs, 89 and 356 without" in text()
    assert "owes you 26 pairs, some fifty runs" in text()


# ---- the recorded ladder

NAMES = [rung.name for rung in rungs("cpu")]


def ladder(key="bits_per_byte"):
    """{rung: [a figure a seed]}, as it was recorded."""
    return {name: [t[key] for t in sorted(recorded("ladder")["trials"], key=lambda t: t["seed"]) if t["arm"] == name] for name in NAMES}


def percent(after, before):
    return [100 * (a / b - 1) for a, b in zip(after, before, strict=True)]


def alone():
    """What each technique changed on the yardstick, in percent, a figure for each of the seeds 1 to 5."""
    sixteen, dense = bits("train-formats", "bf16") | bits("fp8-quality", "bf16"), bits("mla-quality", "mha")
    pairs = {"+ MLA": (dense, bits("mla-quality", "mla")), "+ experts": (dense, bits("moe-quality", "fine + shared")),
             "+ MTP": (dense, bits("mtp-quality", "one module, weight 0.3")), "+ FP8": (sixteen, bits("fp8-quality", "V3's"))}
    return {name: percent([after[s] for s in range(1, 6)], [before[s] for s in range(1, 6)]) for name, (before, after) in pairs.items()}


def half_width(found):
    t95 = {3: 4.303, 5: 2.776, 6: 2.571}[len(found)]
    return t95 * statistics.stdev(found) / len(found) ** 0.5


def seconds(*names):
    """A step's time beside that of another rung: a median over rounds for each repetition."""
    above, below = names
    return [median(t["step_ms"][above]) / median(t["step_ms"][below]) for t in recorded("ladder-pace")["trials"]]


def test_the_lowest_rung_repeats_the_yardstick_to_the_last_digit():
    assert ladder()["dense"] == [bits("mla-quality", "mha")[s] for s in (1, 2, 3)]


def test_after_thirty_steps_the_first_rung_and_the_last_cannot_be_told_apart():
    dense, top = (bits("ladder-live", arm) for arm in ("dense", "top"))
    assert len(dense) == len(top) == 6 and studies.LIVE_STEPS == 30
    more = percent([top[s] for s in sorted(top)], [dense[s] for s in sorted(dense)])
    assert (round(statistics.mean(more), 1), round(half_width(more), 1)) == (0.1, 0.3) and "Over six recorded seeds the whole is 0.1 percent worse, ± 0.3" in text()


def test_what_each_rung_changes():
    found = ladder()
    change = {name: percent(found[name], found[below]) for below, name in zip(NAMES, NAMES[1:])}
    mean = {name: statistics.mean(each) for name, each in change.items()}
    assert 0.9 < mean["+ MLA"] < 1.05 and min(change["+ MLA"]) > 0 and "one gives one percent back" in text()
    assert mean["+ experts"] == pytest.approx(-0.7, abs=0.05) and max(change["+ experts"]) < 0 and "**Experts** buy 0.7 percent of the bits" in text()
    assert mean["+ MTP"] == pytest.approx(-0.8, abs=0.05) and max(change["+ MTP"]) < 0 and "**The module** buys 0.8 percent" in text()
    assert min(change["+ FP8"]) < 0 < max(change["+ FP8"]) and abs(mean["+ FP8"]) < 0.1
    assert [a > b for a, b in zip(found["+ experts"], found["dense"])].count(True) == 2
    assert "the third rung is worse than the first with two seeds, and better with one" in text()
    assert sorted(round(half_width(each), 2) for each in change.values()) == [0.26, 0.68, 0.93, 1.11] and "Three seeds, paired, saw 0.3 to 1.1 percent here" in text()
    before = {name: each[:3] for name, each in alone().items()}
    assert all(abs(statistics.mean(less)) < half_width(less) for less in ([a - b for a, b in zip(change[name], before[name])] for name in change))
    assert "every interval holds zero" in text()
    assert round(statistics.mean(before["+ MLA"]), 1) == 1.3 and round(mean["+ MLA"], 1) == 1.0 and "latents cost 1.3 percent alone and 1.0 here" in text()
    for name, part in (("+ experts", 2 / 3), ("+ MTP", 3 / 4)):
        assert mean[name] / statistics.mean(before[name]) == pytest.approx(part, abs=0.015) and "two thirds and three quarters" in text()
        assert 0.55 < mean[name] / statistics.mean(alone()[name]) < 0.67 and "some six tenths" in text()
    assert statistics.mean(alone()["+ MLA"]) == pytest.approx(mean["+ MLA"], abs=0.02) and "In the means latents cost as much as alone" in text()


def test_the_dense_model_keeps_four_columns_of_the_drawing():
    measured = studies.measured("cpu")
    mean = statistics.mean
    columns = [[mean(row.bits_per_byte) for row in measured], [row.flops for row in measured], [row.cache_bytes for row in measured],
               [mean(row.training_bytes) for row in measured], [-mean(row.train_tokens_per_s) for row in measured], [-mean(row.decode_tokens_per_s[1]) for row in measured]]
    assert [column.index(min(column)) for column in columns] == [4, 0, 1, 0, 0, 0] and "Four of six, and yet no winner" in text()
    assert round(rungs("cpu")[-1].model.parameters["mtp"] / 1e6, 2) == 1.09 and source().count("the module has 1.09 million") == 1


def test_no_rung_saves_seconds_and_one_saves_cache():
    for below, name in zip(NAMES, NAMES[1:]):
        assert min(seconds(name, below)) > 1
        for B in ("1", "32"):
            stands = {n: 1 + statistics.mean(a[0] if a else 0 for a in ladder("acceptance")[n]) for n in NAMES}
            way = {n: studies.DRAFTING.format(n) if stands[n] > 1 else n for n in NAMES}
            faster = [median(t["pass_ms"][B][way[name]]) / stands[name] < median(t["pass_ms"][B][way[below]]) / stands[below]
                      for t in recorded("ladder-pace")["trials"]]
            assert not all(faster), (name, B)
    assert "none makes writing faster with every repetition" in text()
    assert statistics.mean(seconds("+ experts", "+ MLA")) > 1.5 and "a step takes more than half as long again" in text()
    stands = [share for name in ("+ MTP", "+ FP8") for each in ladder("acceptance")[name] for share in each]
    assert 0.48 < min(stands) and max(stands) < 0.56 and "of drafts on given text half stand after 600 steps" in text()


def test_eight_bits_save_memory_in_training():
    memory = {row.name: statistics.mean(row.training_bytes) / 1e6 for row in studies.measured("cpu")}
    assert (round(memory["+ MTP"]), round(memory["+ FP8"])) == (235, 205) and "205 MB instead of 235" in text()
    assert memory["+ FP8"] / memory["dense"] == pytest.approx(1.9, abs=0.05) and "To train takes 1.9 times as many" in text()


def test_twins_that_differ_in_three_hidden_numbers_differ_by_most_of_a_percent():
    ours, theirs = (recorded(study)["arms"][arm] for study, arm in (("ladder", "+ MLA"), ("mla-quality", "mla")))
    differ = {key for key in ours["model"] if ours["model"][key] != theirs["model"][key]} - {"n_experts", "n_shared", "top_k", "d_expert", "mtp_depth"}
    assert differ == {"d_ff"} and (theirs["model"]["d_ff"], ours["model"]["d_ff"]) == (317, 320)
    assert {key for key in ours["training"] if ours["training"][key] != theirs["training"][key]} <= {"eval_every"}
    for twin in (ours, theirs):
        assert not ModelConfig(**twin["model"]).is_moe and twin["model"]["mtp_depth"] == 0
    two = bits("mla-quality", "mla")[2], bits("ladder", "+ MLA")[2]
    assert 100 * (two[0] / two[1] - 1) == pytest.approx(0.8, abs=0.05) and "With seed 2 the twins differ by 0.8 percent" in text()


def test_on_the_seeds_of_both_the_parts_promise_what_the_whole_brings_within_one_percent():
    promised = [100 * (math.exp(sum(math.log1p(each / 100) for each in of_seed)) - 1) for of_seed in zip(*alone().values())]
    whole = percent(ladder()["+ FP8"], ladder()["dense"])
    assert (round(statistics.mean(promised), 1), round(statistics.mean(whole), 1)) == (-1.6, -0.6)
    assert "Over five seeds the parts promise 1.6 percent fewer bits, and over three the whole brings 0.6" in text()
    assert max(promised[3:]) < min(promised[:3]) and "just there the parts promise most" in text()
    assert round(statistics.mean(promised[:3]), 1) == -0.8 and "the parts promise 0.8 percent, the whole brings 0.6" in text()
    assert "the parts promised 0.8 percent and the whole brought 0.6, give or take one" in text()
    missing = [a - b for a, b in zip(whole, promised)]
    assert round(statistics.mean(missing) - half_width(missing)) == -1 and round(statistics.mean(missing) + half_width(missing)) == 1
    assert statistics.mean(whole) + half_width(whole) < 0 and "can just see that the whole is better" in text()
    assert (round(-max(whole), 1), round(-min(whole), 1)) == (0.3, 0.8) and "three seeds: 0.3 to 0.8" in text()


def test_experts_and_the_module_together_bring_less_than_they_promise():
    found, single = ladder(), alone()
    there = percent(found["+ MTP"], found["+ MLA"])
    promised = [100 * ((1 + a / 100) * (1 + b / 100) - 1) for a, b in zip(single["+ experts"][:3], single["+ MTP"][:3])]
    assert (round(statistics.mean(there), 1), round(statistics.mean(promised), 1)) == (-1.5, -2.1)
    assert "they bring 1.5 percent and alone, with the same seeds, promise 2.1" in text()


def test_with_the_optimizer_the_dense_model_wins_the_drawing_s_second_row():
    low, _, experts, *_, top = (rung.model for rung in rungs("cpu"))
    experts = replace(experts, attention="mha")
    passes, optimizer = (lambda m: cost.flops_per_token(m, seq_len=256, mtp=True) * 2048), cost.muon_flops
    steps = 600 * (passes(experts) + optimizer(experts)) / (passes(low) + optimizer(low))
    assert round(steps) == 757 and "has 757 steps for the same price" in source()
    short, long = statistics.mean(bits("mla-quality", "mha").values()), statistics.mean(bits("mtp-quality", "none, same FLOPs").values())
    reached = short - (short - long) * math.log(steps / 600) / math.log(894 / 600)
    assert round(reached, 2) == 1.59 and reached < statistics.mean(bits("moe-quality", "fine + shared").values())
    assert optimizer(low) / passes(low) == pytest.approx(1 / 7, abs=5e-3) and optimizer(rungs("cpu")[2].model) / passes(rungs("cpu")[2].model) == pytest.approx(0.4, abs=0.015)
    assert "a seventh of what the dense model's passes take, and four tenths of the experts'" in text()
    assert round(passes(top) / passes(low), 1) == 1.6 and "(1.6 without)" in text()
    ratio = (passes(rungs("cpu")[2].model) + optimizer(rungs("cpu")[2].model)) / (passes(rungs("cpu")[1].model) + optimizer(rungs("cpu")[1].model))
    assert ratio == pytest.approx(1.25, abs=0.015) and "with the optimizer's a quarter to the step" in text()


def test_the_top_is_worth_four_percent_more_training_and_costs_88():
    def steps(score):    # on the piece from 600 to 894 steps, in its own words
        low, high = statistics.mean(bits("mla-quality", "mha").values()), statistics.mean(bits("mtp-quality", "none, same FLOPs").values())
        return 600 * 2 ** (math.log2(894 / 600) * (low - score) / (low - high))
    for name in ("+ MTP", "+ FP8"):
        assert statistics.mean(map(steps, ladder()[name])) / 600 == pytest.approx(1.04, abs=5e-3)
        assert max(a / b for a, b in zip(ladder()[name], ladder()["dense"])) < 1 and "better than the dense model, with each of three seeds" in text()
    worth = [steps(a) / steps(b) for a, b in zip(ladder()["+ FP8"], ladder()["dense"])]
    assert [round(100 * (statistics.mean(worth) + side * half_width(worth) - 1)) for side in (-1, 1)] == [0, 9] and "(nothing to nine)" in text()
    low, *_, top = rungs("cpu")
    work = [cost.flops_per_token(rung.model, seq_len=256, mtp=True) * 2048 + cost.muon_flops(rung.model) for rung in (low, top)]
    assert work[1] / work[0] == pytest.approx(1.88, abs=5e-3) and "(the top's, by seed: nothing to nine), and they cost 88 percent more operations" in text()
    assert statistics.mean(seconds("+ MTP", "dense")) == pytest.approx(2.65, abs=0.02) and statistics.mean(seconds("+ FP8", "dense")) == pytest.approx(4, abs=0.1)
    assert "2.65 times the seconds with the module, four times with eight bits imitated" in text()
    gain = math.log2(1.1) * (statistics.mean(bits("mla-quality", "mha").values()) - 1.5468) / math.log2(894 / 600)
    assert gain / 1.6413 > 0.01 and "a tenth more of it still takes off more than one percent" in text()


def test_trained_for_longer_the_whole_leads_by_more():
    """The dense line on from its last piece, in its own words; prices as in the test above."""
    long, plain = recorded("together"), recorded("yardstick")
    for name in ("steps", "batch_size", "seq_len", "seed", "muon_lr"):
        assert long["train"][name] == plain["train"][name]
    assert long["train"]["fp8"] and (long["train"]["steps"], long["tokens"]) == (6000, plain["tokens"])
    assert ModelConfig(**long["model"]) == rungs("cpu")[-1].model and ModelConfig(**plain["model"]) == ModelConfig.preset("yardstick")
    lead = 100 * (1 - long["bits_per_byte"] / plain["bits_per_byte"])
    assert round(lead, 1) == 6.1 and "**Ten times as much: 6.1 percent.**" in text() and "6.1 after 6,000 (one seed)" in text()
    spread = [max(rung) / min(rung) - 1 for rung in ladder().values()]
    assert 0.012 < max(spread) < 0.013 and "three seeds of a rung lay within 1.3 percent" in text()
    at_1800 = bits("fp8-longer", "bf16").values()
    assert round(100 * (max(at_1800) / min(at_1800) - 1), 1) == 1.4 and "three of the dense model within 1.4 after 1,800" in text()
    at_1000, at_1800 = statistics.mean(bits("moe-seconds", "dense").values()), statistics.mean(bits("fp8-longer", "bf16").values())
    slopes = [(at_1000 - at_1800) / math.log2(1.8), (at_1800 - plain["bits_per_byte"]) / math.log2(6 / 1.8)]       # bits a doubling
    assert slopes[1] < slopes[0] / 2 and "a tenth is worth less, as from 1,800 steps on" in text()

    def worth(luck):
        end = plain["bits_per_byte"] - luck
        return 2 ** ((end - long["bits_per_byte"]) / (at_1800 - end) * math.log2(6 / 1.8))
    assert round(worth(0)) == 2 and "now about twice as much" in text() and "the score is worth about twice the training" in text()
    assert (round(worth(0.01), 1), round(worth(-0.01), 1)) == (1.7, 2.3) and "makes it 1.7 times or 2.3" in text() and "1.7 to 2.3)" in text()
    operations, in_seconds = 1.88, 2.65                                  # held by the test above
    after = [100 * (long["bits_per_byte"] / (plain["bits_per_byte"] - slopes[1] * math.log2(price)) - 1) for price in (operations, in_seconds, 4.05)]
    assert abs(after[0]) < 1.5 and "the two are level as far as we can see" in text()
    assert round(after[1]) == 3 and 7 < after[2] < 7.6 and "by three percent (in imitated eight bits by seven)" in text()
    assert round(6000 * in_seconds, -2) == 15_900 and "as straight to step 15,900" in text()
    rival = at_1000 - slopes[0] * math.log2(0.6 * operations)
    assert round(100 * (statistics.mean(ladder()["+ FP8"]) / rival - 1)) == 10 and "where the dense model led by ten percent" in text()


def test_the_two_long_runs_part_after_the_ladder_s_end():
    losses = [{r["step"]: r["loss"] for r in recorded(name)["records"]} for name in ("together", "yardstick")]

    def lead(low, high):
        return 100 * (statistics.mean(losses[0][s] for s in range(low + 10, high + 1, 10)) / statistics.mean(losses[1][s] for s in range(low + 10, high + 1, 10)) - 1)
    readings = [round(n * 2.30e6 / 2048) for n in range(1, 6)]
    assert (readings[0], readings[3], readings[4]) == (1123, 4492, 5615)
    assert abs(lead(200, 600)) < 0.5 and "Until step 600 there is nothing to see" in text()
    assert -5.2 < lead(1050, 1120) < -4.5 and "By step 1,100 the whole model is five percent ahead, on text that neither has read before" in text()
    assert all(-6.5 < lead(low, low + 300) < -4 for low in range(1200, 4400, 400)) and "through two more readings and most of a fourth" in text()
    jumps = [(lead(at // 10 * 10 - 100, at // 10 * 10), lead(at // 10 * 10 + 10, at // 10 * 10 + 110)) for at in readings[1:]]
    assert [after < before - 1.5 for before, after in jumps] == [False, False, True, True] and "the lead jumps twice, to seven percent and to ten" in text()
    assert [round(after) for _, after in jumps[2:]] in ([-7, -10], [-7, -11]) and recorded("yardstick")["train"]["decay"] == 0.4        # from step 3,600 on


def test_the_long_run_is_sound(longer):
    model, pages = longer
    stands = acceptance(model, pages)[0].mean().item()
    assert 0.58 < stands < 0.65 and "Three of five drafts stand" in text()
    load = [chosen.flatten().bincount(minlength=31) / chosen.numel() * 31 for chosen in choices(model, pages).values()]
    assert len(load) == 3 and min(each.min() for each in load) > 0.3 and 1.6 < max(each.max() for each in load) < 2.2
    assert "No expert starves, and the busiest has about twice its share" in text()
    shorter = [t["acceptance"] for t in recorded("ladder")["trials"] if t["arm"] == "+ FP8"]
    assert statistics.mean(each[0] if isinstance(each, list) else each for each in shorter) == pytest.approx(0.51, abs=0.02)
    assert "after 600 steps it was half" in text()


def test_eight_bits_are_no_dialect(longer):
    model, pages = longer
    eight = convert(Run.open(lab.data_file("checkpoints/together")).model())
    nats = [losses(m(pages[:, :-1]), pages[:, :-1])[0].item() for m in (model, eight)]
    assert nats[0] <= nats[1] < 1.005 * nats[0] and "Computed in 32 bits it is no worse than in eight" in text()
    data = prepare("stdlib", 4096, tokenizer=Run.open(lab.data_file("checkpoints/together")).tokenizer)
    assert recorded("together")["bits_per_byte"] * math.log(2) * data.valid_bytes / (len(data.valid) - 1) == pytest.approx(2.97, abs=0.02)
    assert "all unseen text takes 2.97 nats a token" in text()


@pytest.fixture(scope="module")
def longer():
    """The checkpoint, and pages of the page's own held-out text."""
    run = Run.open(lab.data_file("checkpoints/together"))
    data = prepare("stdlib", 4096, max_bytes=LIVE_BYTES, tokenizer=run.tokenizer)
    return run.model(), next(windows(data.valid, 256, 32))


def test_experts_win_by_what_works_and_lose_by_what_is_stored():
    experts = replace(rungs("cpu")[2].model, attention="mha")
    trial = next(t for t in recorded("moe-quality")["trials"] if t["arm"] == "fine + shared")
    assert trial["n_params"] == experts.n_params and round(experts.n_active_params / 1e6, 2) == 1.29 and "1.29 million, experts stand" in text()
    score = statistics.mean(bits("moe-quality", "fine + shared").values())
    assert statistics.mean(bits("train-larger", "D=192").values()) < score < statistics.mean(bits("mla-quality", "mha").values())
    assert recorded("train-larger")["trials"][0]["n_params"] < trial["n_params"]


def test_our_experts_keep_63_percent_of_the_use_of_the_core():
    before, after = (rung.model for rung in rungs("cpu")[1:3])
    passes = [cost.flops_per_token(m, seq_len=256) * 2048 for m in (before, after)]
    steps = [each + cost.muon_flops(m) for each, m in zip(passes, (before, after))]
    for (low, high), share, said in ((passes, 0.63, "keep 63 percent on a single core"), (steps, 0.79, "(Count the optimizer's products as work, and they keep 79.)")):
        left = [high / low / more for more in seconds("+ experts", "+ MLA")]
        assert statistics.mean(left) == pytest.approx(share, abs=8e-3) and said in text()


def test_each_purpose_has_the_winner_that_the_text_names():
    from minimodels.explorables import WhichRung
    from minimodels.explorables.which_rung import KNOBS
    rung = WhichRung.of(studies.measured("cpu"))
    first = {}
    for name, purpose in rung.presets.items():
        for knob in KNOBS:
            setattr(rung, knob, purpose[knob])
        bills = rung.bills()
        first[name.split(",")[0]] = NAMES[bills.index(min(bills))]
    assert first == {"A phone": "dense", "A fixed training bill": "dense", "A server": "+ MLA", "A long context": "+ MLA", "No more text to train on": "+ MTP"}
    assert "The dense model takes the telephone and the fixed bill. Latents take the server, if barely, and the long context for its memory" in text()
    best = {}
    for rung.bit_price in (0.36, 0.4):    # the purpose set last: no more text to train on
        best[rung.bit_price] = NAMES[rung.bills().index(min(rung.bills()))]
    assert best == {0.36: "dense", 0.4: "+ MTP"} and "if a hundredth of a bit is worth 0.4 cents or more" in text()


# ---- where lines cross

def test_sparse_operations_cost_less_extra_in_a_wider_model():
    extra = {}
    for t in recorded("cost-sparsity")["trials"]:
        left = median(s / d for s, d in zip(t["ms"]["sparse"], t["ms"]["dense"]))
        extra.setdefault(t["arm"], []).append(left * t["done_flops"]["dense"] / t["done_flops"]["sparse"] - 1)
    assert [round(100 * f(extra["D=128"])) for f in (min, max)] == [7, 37] and [round(100 * f(extra["D=256"])) for f in (min, max)] == [6, 11]
    assert "7 to 37 percent longer at width 128 (and still the step was shorter by 11 to 31), at 256 6 to 11" in text()
    shorter = [1 - median(s / d for s, d in zip(t["ms"]["sparse"], t["ms"]["dense"])) for t in recorded("cost-sparsity")["trials"] if t["arm"] == "D=128"]
    assert [round(100 * f(shorter)) for f in (min, max)] == [11, 31]
    powers = [(1 + a, math.log2((1 + b) / (1 + a))) for a in extra["D=128"] for b in extra["D=256"]]
    cross = sorted(128 * low ** (-1 / power) for low, power in powers if power < 0)
    assert [round(x) for x in cross] == [304, 319, 322, 345, 365, 416, 25_764] and "six cross between 304 and 416, one at 25,764, and two never" in text()
    assert median(low * 40 ** power for low, power in powers) == pytest.approx(0.49, abs=5e-3) and "has an operation take half the dense time" in text()


def decoding(rival):
    """{width: [{context: how many times as fast absorbed MLA decodes, a dictionary for each repetition}]}"""
    found = {}
    for t in recorded("mla-decoding")["trials"]:
        ratios = {int(S): median(a / b for a, b in zip(ms[rival], ms["MLA absorbed"])) for S, ms in t["ms"].items()}
        found.setdefault(int(t["arm"][2:]), []).append(ratios)
    return found


def test_latents_decode_faster_than_keys_from_the_middle_widths_on():
    beside = decoding("MHA")
    def lasting(ratios):
        return min((S for S in ratios if min(r for T, r in ratios.items() if T >= S) >= 1), default=math.inf)
    at = {width: [lasting(ratios) for ratios in each] for width, each in beside.items()}
    assert at[384] == [512, 4096, 4096] and at[768] == [1024, 1024, 512] and at[1536] == [256] * 3 and "from 384 on the layers cross" in text()
    assert at[96] == [math.inf] * 3 and sum(r[8192] > r[4096] * 1.1 for r in beside[96]) == 1 and "At width 96 two of three repetitions find no crossing" in text()
    assert len(set(at[192])) > 1 and "at 192 each finds another" in text()
    grouped = decoding("GQA")
    assert max(r for width in (96, 192) for each in grouped[width] for r in each.values()) < 1
    assert [lasting(each) for each in grouped[1536]] == [4096] * 3
    assert "Beside grouped heads none crosses up to width 192, and at 1,536 it takes 4,096 tokens" in text()


def test_a_second_token_costs_a_quarter_with_32_texts_and_less_than_an_eighth_with_one():
    more = {B: [round(100 * (median(b / a for a, b in zip(t["ms"]["1 tokens"], t["ms"]["2 tokens"])) - 1))
                for t in recorded("mtp-pass")["trials"] if t["arm"] == f"B={B}"] for B in (1, 32)}
    assert [f(more[B]) for B in (32, 1) for f in (min, max)] == [24, 28, 2, 11] and "a second token costs 24 to 28 percent of a pass here, not 2 to 11" in text()


def test_with_half_of_the_drafts_four_layers_win_nothing():
    stands = [share for name in ("+ MTP", "+ FP8") for each in ladder("acceptance")[name] for share in each]
    assert statistics.mean(stands) == pytest.approx(0.51, abs=0.015)
    faster = []
    for t in recorded("mtp-pass")["trials"]:
        if t["arm"] == "B=1":
            one, two, draft = (median(t["ms"][part]) for part in ("1 tokens", "2 tokens", "draft"))
            faster.append(1.51 * one / (two + draft))    # at four layers nothing is drawn on
    assert 0.98 < min(faster) and max(faster) < 1.04 and "four layers win nothing" in text()


def test_eight_bits_speed_v3_up_by_74_percent_at_most():
    assert round(100 * (250.5 - 36.9) / 250.5) == 85 and 1 / (0.15 + 0.85 / 2) == pytest.approx(1.74, abs=5e-3) and "= 1.74$ times" in text()


# ---- comparisons that look right

def test_with_one_rate_for_all_the_module_would_have_been_dropped():
    def at(rate):
        return {"dense": bits("mla-rates", f"mha {rate}")[0], "experts": bits("moe-rates", f"fine + shared {rate}")[0], "MTP": bits("mtp-rates", rate)[0],
                "MLA": bits("mla-rates", f"mla {rate}")[0]}
    low, high = at("0.01"), at("0.02")
    assert min(low, key=low.get) == "experts" and low["dense"] - low["MTP"] == pytest.approx(0.0015, abs=5e-5) and "brings 0.0015 bits" in text()
    found = ladder()
    assert round(statistics.mean(found["+ experts"]) - statistics.mean(found["+ MTP"]), 3) == 0.013 and "on the ladder it brought 0.013 at 0.01" in text()
    assert min(high, key=high.get) == "MTP" and (high["dense"] - high["MTP"]) / (low["dense"] - low["MTP"]) == pytest.approx(10, abs=1)


def test_with_one_seed_each_a_third_find_the_wrong_winner():
    def wrong(better, worse):
        return statistics.mean(a > b for a in better.values() for b in worse.values())
    sixteen = bits("train-formats", "bf16") | bits("fp8-quality", "bf16")
    assert wrong(bits("mla-quality", "gqa"), bits("mla-quality", "mla")) == pytest.approx(1 / 3, abs=0.02) and "a third of all authors" in text()
    worse = percent(*([each[s] for s in range(1, 6)] for each in (bits("mla-quality", "mla"), bits("mla-quality", "gqa"))))
    assert (round(statistics.mean(worse), 1), round(half_width(worse), 1)) == (0.3, 0.5) and "ahead by 0.3 percent, ± 0.5" in text()
    for better, worse in ((bits("mtp-quality", "one module, weight 0.3"), bits("moe-quality", "fine + shared")), (bits("fp8-quality", "V3's"), sixteen)):
        assert 0.38 < wrong(better, worse) < 0.5 and "a coin would have done nearly as well" in text()


def test_timed_one_after_the_other_two_tokens_are_cheaper_than_one():
    ms = next(t["ms"] for t in recorded("mtp-pass")["trials"] if t["arm"] == "B=8" and t["seed"] == 0)
    one, two = ms["1 tokens"], ms["2 tokens"]
    assert median(two[8:]) < median(one[:7]) and median(two[:7]) > 2 * median(one[8:]) and "cheaper than one, or cost more than twice" in text()
    assert median(b / a for a, b in zip(one, two)) == pytest.approx(1.5, abs=0.05)
    others = [median(b / a for a, b in zip(t["ms"]["1 tokens"], t["ms"]["2 tokens"])) for t in recorded("mtp-pass")["trials"] if t["arm"] == "B=8"][1:]
    assert all(other == pytest.approx(1.3, abs=0.055) for other in others) and "1.5 here, and 1.3 in the two quieter repetitions" in text()
    assert all(1 - median(part[9:]) / median(part[:9]) > 0.3 for part in (one, two)) and "by a third and more" in text()


def test_v2_did_half_as_much_in_an_hour_as_its_predecessor():
    assert exercises.utilisation_left((67, 300.6), (21, 172.8)) == pytest.approx((21 / 67) / (172.8 / 300.6)) == pytest.approx(0.545, abs=1e-3)
    assert "V2 does 31 percent of the work, and it took 57.5 percent of the hours" in text()


# ---- the page

def test_claims_stand_at_the_start_and_at_the_end():
    assert {c.id for c in ledger.read().select(chapter="together")} == {"C08", "C11"}
    assert source().count('ledger.show("C08", "C11"') == 2


def test_exercises_count_up_and_each_is_checked():
    assert [int(n) for n in re.findall(r"\*\*Exercise 13\.(\d+)\*\*", source())] == list(range(1, 12))
    assert re.findall(r"^check\.(\w+)\(\1\)$", source(), re.M) == [exercise.name for exercise in exercises.EXERCISES]
