"""Chapter 13: the ladder built by hand, the solutions of its longer problems, and the figures that its text writes."""

import itertools
import math
import re
import statistics
from dataclasses import replace

import pytest

from minimodels import cost, lab, ledger
from minimodels.config import ModelConfig, TrainConfig
from minimodels.exercises import together as exercises
from minimodels.ladder import rungs
from minimodels.studies import recorded
from minimodels.studies import together as studies

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
    memory = [sum(cost.training_bytes(m, TrainConfig.preset("yardstick")).values()) for m in (dense, module)]
    assert memory[1] / memory[0] == pytest.approx(3.5, abs=0.05) and "take 3.5 times as many" in text()


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
    assert 0.4 < median(halves) < 0.55 and "Pairing halves the spread" in text()


def test_students_t_is_the_text_s():
    assert exercises.T95[2] == pytest.approx(4.30, abs=5e-3) and exercises.T95[4] == pytest.approx(2.78, abs=5e-3)
    assert "4.30 standard errors to each side for three of them, and 2.78 for five" in text()


def test_how_many_seeds_a_tenth_of_a_percent_takes():
    sixteen, eight = bits("train-formats", "bf16") | bits("fp8-quality", "bf16"), bits("fp8-quality", "V3's")
    unit = statistics.mean(sixteen.values()) / 100
    by_seed = statistics.stdev((eight[s] - sixteen[s]) / unit for s in range(1, 6))
    apart = math.hypot(statistics.stdev(eight.values()), statistics.stdev(sixteen.values())) / unit
    needed = [math.ceil((2 * s / wanted) ** 2) for s in (by_seed, apart) for wanted in (0.1, 0.05)]    # more than 12, where t is 2
    assert needed == [26, 104, 89, 356] and "26 and 104 with pairs, 89 and 356 without" in text()


# ---- where lines cross

def test_sparse_operations_cost_less_extra_in_a_wider_model():
    extra = {}
    for t in recorded("cost-sparsity")["trials"]:
        left = median(s / d for s, d in zip(t["ms"]["sparse"], t["ms"]["dense"]))
        extra.setdefault(t["arm"], []).append(left * t["done_flops"]["dense"] / t["done_flops"]["sparse"] - 1)
    assert [round(100 * f(extra["D=128"])) for f in (min, max)] == [7, 37] and [round(100 * f(extra["D=256"])) for f in (min, max)] == [6, 11]
    assert "At width 128 it is 7 to 37 percent longer, at 256 6 to 11" in text()


def test_latents_decode_faster_than_keys_from_the_middle_widths_on():
    faster = {}
    for t in recorded("mla-decoding")["trials"]:
        ratio = {int(S): median(a / b for a, b in zip(ms["MHA"], ms["MLA absorbed"])) for S, ms in t["ms"].items()}
        faster.setdefault(int(t["arm"][2:]), []).append(max(ratio.values()) >= 1)
        if t["arm"] == "D=96":
            faster.setdefault("rises", []).append(ratio[8192] > ratio[4096] * 1.1)
    assert all(all(found) for width, found in faster.items() if width != "rises" and width >= 384) and "from 384 on the layers cross" in text()
    assert not any(faster[96]) and sum(faster["rises"]) == 1 and "At width 96 two of three repetitions find no crossing" in text()


def test_a_second_token_costs_a_quarter_with_32_texts_and_a_tenth_with_one():
    more = {B: [median(b / a for a, b in zip(t["ms"]["1 tokens"], t["ms"]["2 tokens"])) - 1
                for t in recorded("mtp-pass")["trials"] if t["arm"] == f"B={B}"] for B in (1, 32)}
    assert median(more[32]) == pytest.approx(0.25, abs=0.04) and 0.02 <= min(more[1]) and max(more[1]) < 0.12
    assert "a second token costs a quarter of a pass here, not a tenth" in text()


def test_eight_bits_speed_v3_up_by_74_percent_at_most():
    assert round(100 * (250.5 - 36.9) / 250.5) == 85 and 1 / (0.15 + 0.85 / 2) == pytest.approx(1.74, abs=5e-3) and "= 1.74$ times" in text()


# ---- comparisons that look right

def test_with_one_rate_for_all_the_module_would_have_been_dropped():
    def at(rate):
        return {"dense": bits("mla-rates", f"mha {rate}")[0], "experts": bits("moe-rates", f"fine + shared {rate}")[0], "MTP": bits("mtp-rates", rate)[0],
                "MLA": bits("mla-rates", f"mla {rate}")[0]}
    low, high = at("0.01"), at("0.02")
    assert min(low, key=low.get) == "experts" and low["dense"] - low["MTP"] == pytest.approx(0.0015, abs=5e-5) and "brings 0.0015 bits" in text()
    assert min(high, key=high.get) == "MTP" and (high["dense"] - high["MTP"]) / (low["dense"] - low["MTP"]) == pytest.approx(10, abs=1)


def test_with_one_seed_each_a_third_find_the_wrong_winner():
    def wrong(better, worse):
        return statistics.mean(a > b for a in better.values() for b in worse.values())
    sixteen = bits("train-formats", "bf16") | bits("fp8-quality", "bf16")
    assert wrong(bits("mla-quality", "gqa"), bits("mla-quality", "mla")) == pytest.approx(1 / 3, abs=0.02) and "a third of all authors" in text()
    for better, worse in ((bits("mtp-quality", "one module, weight 0.3"), bits("moe-quality", "fine + shared")), (bits("fp8-quality", "V3's"), sixteen)):
        assert 0.38 < wrong(better, worse) < 0.5 and "a coin would have done nearly as well" in text()


def test_timed_one_after_the_other_two_tokens_are_cheaper_than_one():
    ms = next(t["ms"] for t in recorded("mtp-pass")["trials"] if t["arm"] == "B=8" and t["seed"] == 0)
    one, two = ms["1 tokens"], ms["2 tokens"]
    assert median(two[8:]) < median(one[:7]) and median(two[:7]) > 2 * median(one[8:]) and "cheaper than one, or cost more than twice" in text()
    assert median(b / a for a, b in zip(one, two)) == pytest.approx(1.5, abs=0.05) and "it is one and a half" in text()
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
