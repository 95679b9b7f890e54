"""Chapter 09: its bugs spoil what they should and no more, its laws by other routes, its studies' settings, and what its text writes."""

import json
import math
import random
import statistics
from dataclasses import replace
from fractions import Fraction
from unittest import mock
from xml.etree import ElementTree

import pytest
import torch
from torch.testing import assert_close

from configs import odd_config
from minimodels import cost, lab, moe
from minimodels.attention import Cache
from minimodels.bugs import plant
from minimodels.bugs.mtp import BUGS, SAMPLINGS, Detached, HandedTheAnswer, NormedTwice, NotTakenBack
from minimodels.config import ModelConfig
from minimodels.exercises import mtp as exercises
from minimodels.generate import decode
from minimodels.model import Transformer
from minimodels.mtp import losses
from minimodels.sampling import Sampling
from minimodels.studies import find, recorded
from minimodels.studies import mtp as studies

V = 53


def spoilt(bug, **changes):
    """The same model right and with a bug, and tokens."""
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(Transformer(odd_config(mtp_depth=1, **changes)).eval())
        for name, parameter in models[-1].named_parameters():
            if "final_norm" in name:
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
    plant(models[1], bug)
    return *models, torch.randint(1, V, (2, 11))


# ---- bugs that train

@pytest.mark.parametrize("bug", BUGS.values())
def test_a_bug_of_the_module_leaves_the_main_models_logits_and_all_weights_alone(bug):
    right, wrong, tokens = spoilt(bug)
    assert all(torch.equal(a, b) for a, b in zip(right.state_dict().values(), wrong.state_dict().values(), strict=True))
    assert torch.equal(right(tokens).logits, wrong(tokens).logits)
    sum(losses(wrong(tokens), tokens)).backward()


def test_handed_the_answer_depends_on_the_target_itself():
    right, wrong, tokens = spoilt(HandedTheAnswer)
    other = tokens.clone()
    other[:, 5] = (other[:, 5] + 1) % V
    for model, moves in ((right, False), (wrong, True)):    # place 3 of depth 1 is to predict token 5
        with torch.no_grad():
            a, b = model(tokens).mtp_logits[0][:, 3], model(other).mtp_logits[0][:, 3]
        assert (a - b).abs().max().gt(1e-4) == moves


def test_detached_modules_teach_the_main_model_nothing():
    right, wrong, tokens = spoilt(Detached)
    assert torch.equal(right(tokens).mtp_logits[0], wrong(tokens).mtp_logits[0])
    for model, learns in ((right, True), (wrong, False)):
        losses(model(tokens), tokens)[1].backward()
        grad = model.layers[0].ffn_norm.weight.grad
        assert (grad is not None and grad.abs().sum() > 0) == learns
        assert model.mtp[0].project.weight.grad.abs().sum() > 0


def test_normed_twice_is_one_more_norm():
    right, wrong, tokens = spoilt(NormedTwice)
    once, twice = right(tokens).hidden[1], wrong(tokens).hidden[1]
    w, eps = right.mtp[0].final_norm.weight, right.config.norm_eps
    assert_close(twice, once / (once.square().mean(-1, keepdim=True) + eps).sqrt() * w)
    assert not torch.allclose(once, twice, atol=1e-2)


def test_as_it_drafts_the_answer_is_not_handed():
    right, wrong, tokens = spoilt(HandedTheAnswer)
    assert torch.equal(studies.as_it_drafts(wrong)(tokens).mtp_logits[0], right(tokens).mtp_logits[0])


# ---- bugs that write

def test_a_stale_cache_changes_the_text_only_where_a_draft_was_rejected():
    torch.manual_seed(3)
    model = Transformer(odd_config(mtp_depth=1, init_std=0.3)).eval()
    plain = decode(model, [[1, 2, 3]], max_new_tokens=30).tokens
    with mock.patch("minimodels.generate.Cache", NotTakenBack):
        assert decode(model, [[1, 2, 3]], max_new_tokens=30).tokens == plain
        drafted = decode(model, [[1, 2, 3]], max_new_tokens=30, draft="mtp")
    assert drafted.acceptance < 1 and drafted.tokens != plain
    assert issubclass(NotTakenBack, Cache)


def law_of(rule, p, q):
    """What a rule writes, by adding up every draft, exactly. rule: how likely draft x stands, and the law of its replacement."""
    total = [Fraction(0)] * len(p)
    for x, drafted in enumerate(q):
        stands, instead = rule(x)
        total[x] += drafted * stands
        for y, r in enumerate(instead):
            total[y] += drafted * (1 - stands) * r
    return total


def test_the_rule_keeps_every_law_and_the_two_others_do_not():
    rng = random.Random(0)
    for _ in range(50):
        p, q = ([Fraction(round(20 * x), 20) for x in law] for law in exercises._laws(rng))

        def stands(x):
            return min(Fraction(1), p[x] / q[x])

        rest = [max(a - b, 0) for a, b in zip(p, q)]
        assert law_of(lambda x: (stands(x), [r / sum(rest) for r in rest]), p, q) == p
        assert law_of(lambda x: (stands(x), p), p, q) != p
        if len(set(q)) > 1:    # where drafts come evenly, p alone happens to be right
            assert law_of(lambda x: (p[x], p), p, q) != p
        assert exercises.chance(p, q) == sum(b * stands(x) for x, b in enumerate(q))
        assert exercises.replacement(p, q) == [r / sum(rest) for r in rest]


def test_the_planted_samplings_have_the_laws_that_the_chapter_prints():
    P, Q = torch.tensor([10, 6, 3, 1.0]) / 20, torch.tensor([2, 2, 2, 14.0]) / 20
    n, wanted = 40_000, {"right": [0.5, 0.3, 0.15, 0.05], "likely enough": [0.485, 0.291, 0.1455, 0.0785],
                         "not renormalised": [0.425, 0.295, 0.1975, 0.0825]}
    for name, kind in {"right": Sampling, **SAMPLINGS}.items():
        rule = kind(temperature=1.0, generator=torch.Generator().manual_seed(1))
        draft, q = rule.draft(Q.log().expand(n, 4))
        token, stood = rule.verify(P.log().expand(n, 2, 4), draft[:, None], [q])
        share = torch.bincount(token[:, 0], minlength=4) / n
        assert_close(share, torch.tensor(wanted[name]), atol=0.01, rtol=0)
        # behind a draft that stood the pass writes from p again
        second = torch.bincount(token[:, 1][torch.tensor(stood) == 1], minlength=4).double()
        assert_close(second / second.sum(), P.double(), atol=0.02, rtol=0)
        assert sum(stood) / n == pytest.approx({"likely enough": 0.13}.get(name, 0.35), abs=0.01)


# ---- exercises by other routes

def test_writing_with_any_drafts_is_writing_without():
    rng = random.Random(1)
    for _ in range(200):
        text = [rng.randrange(3) for _ in range(12)]    # what the main model would write, whatever is drafted
        got = []
        while len(got) < len(text):
            draft = [rng.randrange(3) for _ in range(min(3, len(text) - len(got) - 1))]
            wanted, right = [], True
            for k in range(len(draft) + 1):
                wanted.append(text[len(got) + k] if right else rng.randrange(3))    # behind a wrong draft anything may stand
                right = right and k < len(draft) and draft[k] == text[len(got) + k]
            got += exercises.written(draft, wanted)
        assert got == text


def test_the_speed_up_is_that_of_drawing_passes():
    rng, p, n, check, draft = random.Random(2), 0.7, 3, [10.0, 11.0, 12.0, 13.0], 2.0
    tokens, N = 0, 100_000
    for _ in range(N):
        tokens += 1
        for _ in range(n):
            if rng.random() >= p:
                break
            tokens += 1
    took = N * (check[n] + n * draft)
    assert exercises.speed_up(p, n, check, draft) == pytest.approx(tokens * check[0] / took, rel=0.01)


def test_repeats_by_brute_force():
    rng = random.Random(3)
    for _ in range(100):
        tokens, n = [rng.randrange(3) for _ in range(14)], rng.choice([1, 2, 3, 4])
        wanted = [i + 1 >= n and any(tokens[j - n + 1:j + 1] == tokens[i - n + 1:i + 1] for j in range(n - 1, i)) for i in range(14)]
        assert exercises.repeats(tokens, n) == studies.is_repeated(tokens, n) == wanted


# ---- studies

def test_the_yardstick_alone_gets_the_flops_of_one_with_a_module():
    each = [replace(studies.YARDSTICK, mtp_depth=depth) for depth in (0, 1)]
    alone, both = (sum(cost.training_flops(c, seq_len=256, batch_size=8).values()) + cost.muon_flops(c) for c in each)
    assert studies.AS_MUCH == round(600 * both / alone)


def test_the_rate_with_a_module_is_the_best_that_was_tried():
    score = {float(t["arm"]): t["bits_per_byte"] for t in recorded("mtp-rates")["trials"]}
    assert set(score) == set(studies.RATES) and studies.BEST_RATE == min(score, key=score.get)
    alone = {float(t["arm"].split()[1]): t["bits_per_byte"] for t in recorded("mla-rates")["trials"] if t["arm"].startswith("mha ")}
    assert set(alone) == set(score) and min(alone, key=alone.get) == 0.01
    assert "Of four peak rates" in text() and "0.02 was best with a module, 0.01 without, one seed each" in text()


def test_models_with_modules_are_trained_as_the_yardstick_alone_was_but_for_the_rate():
    alone = find("mla-quality")
    plain = next(t for t in alone.trials if t.arm == "mha").settings()
    for trial in find("mtp-quality").trials:
        settings = trial.settings()
        model, training = settings["model"], settings["training"]
        if "module" in trial.arm:
            assert training["steps"] == 600 and model["mtp_depth"] == (2 if "two" in trial.arm else 1)
            assert training["mtp_weight"] == float(trial.arm.split()[-1])
        assert {**model, "mtp_depth": 0, "n_kv_heads": 0} == {**plain["model"], "n_kv_heads": 0}
        assert training["muon_lr"] == (studies.BEST_RATE if "module" in trial.arm else 0.01)
        same = {"steps": 600, "mtp_weight": 0.3, "muon_lr": 0.01}
        assert {**training, **same} == {**plain["training"], **same}


def test_transformers_agrees_with_our_module_through_the_helper():
    torch.manual_seed(0)
    model = Transformer(odd_config(mtp_depth=1)).eval()
    tokens = torch.randint(1, V, (2, 11))
    with torch.no_grad():
        out = model(tokens)
    assert_close(studies.logits_of_transformers(model, tokens, out.hidden[0]), out.mtp_logits[0], atol=1e-4, rtol=0)


def test_operations_are_counted():
    x = torch.ones(3)
    assert studies.count_operations(lambda: x + x) == 1 and studies.count_operations(lambda: (x * x).sum()) == 2


def test_checks_of_drafts_are_matched_with_the_tokens_in_their_place(monkeypatch):
    torch.manual_seed(0)
    model = Transformer(odd_config(mtp_depth=1, init_std=0.3, max_seq_len=64)).eval()
    monkeypatch.setattr(studies, "NEW", 24)
    prompts = torch.randint(1, V, (3, 6))
    checks, texts = studies.write(model, prompts, temperature=0.0)
    out = decode(model, prompts, max_new_tokens=24, draft="mtp")
    assert [t[6:] for t in texts] == out.tokens
    assert (len(checks), sum(stood for _, stood in checks)) == (out.n_drafted, out.n_accepted)


# ---- what the text says

def text():
    path = lab.data_file("").parent / "chapters" / "09_mtp.py"
    return " ".join(path.read_text("utf8").replace("\n# > ", " ").replace("\n#", " ").split())


def test_the_drawing_of_two_laws_is_to_scale():
    for name, unit in (("overlap", 22), ("overlap.narrow", 13)):
        path = lab.data_file("").parent / "minimodels" / "drawings" / f"{name}.svg"
        svg = "{http://www.w3.org/2000/svg}"
        widths = {}
        for rect in ElementTree.parse(path).getroot().iter(svg + "rect"):
            if float(rect.get("height")) == 26:
                widths.setdefault(float(rect.get("y")), []).append(float(rect.get("width")) / unit)
        bars = [sum(widths[y]) for y in sorted(widths)]
        assert bars[0::2] == [10, 6, 3, 1] and bars[1::2] == [2, 2, 2, 14]


def test_the_numbers_of_the_example_are_what_its_laws_give():
    p, q = [Fraction(n, 20) for n in (10, 6, 3, 1)], [Fraction(n, 20) for n in (2, 2, 2, 14)]
    assert sum(map(min, p, q)) == Fraction(7, 20)
    assert [a - b for a, b in zip(p, q)][:3] == [Fraction(n, 20) for n in (8, 4, 1)]
    one, two = 0.0785 / 0.05, 0.0825 / 0.05
    assert round(one, 1) == 1.6 and two == pytest.approx(5 / 3, abs=0.02)
    assert "more than half as often again" in text() and "nearly two thirds too often" in text()
    rejected = 1 - Fraction(7, 20)
    assert q[3] * (p[3] / q[3]) + rejected * p[3] == Fraction(825, 10_000) and "$0.05 + 0.65 \\cdot 0.05 = 0.0825$" in text()
    # where the wrong rules miss most, in scatters of 20,000 draws: the hint of 9.7
    scatter = max(math.sqrt(x * (1 - x) / 20_000) for x in p)
    misses = [max(abs(a - float(b)) for a, b in zip(wrong, p)) / scatter for wrong in ((0.485, 0.291, 0.1455, 0.0785), (0.425, 0.295, 0.1975, 0.0825))]
    assert round(misses[0]) == 8 and 20 < misses[1] < 22
    # chi-square with three degrees of freedom: 16.27 is passed once in a thousand
    x = 16.27
    assert math.erfc(math.sqrt(x / 2)) + math.sqrt(2 * x / math.pi) * math.exp(-x / 2) == pytest.approx(0.001, abs=2e-5)


def test_the_shares_that_the_text_names_are_those_of_the_record():
    trials = recorded("mtp-acceptance")["trials"]

    def percent(arm, key):
        return round(100 * statistics.mean(t[key] for t in trials if t["arm"] == arm))

    says = text()
    given, own = percent("T=0", "forced"), percent("T=0", "free")
    assert f"{own} percent, against {given}.**" in says
    assert f"{percent('T=1', 'free')} percent of its own text, {percent('T=1', 'forced')} of given text" in says
    assert all(t["free"] < t["forced"] for t in trials if t["arm"] == "T=1") and "in all six draws" in says
    assert f"{given} percent of the greedy drafts stand. On the model's own greedy text {own} percent do" in says
    assert f"easy to guess: {percent('T=0', 'free_if_repeated')} percent" in says
    assert (f"the share is {percent('T=0', 'free_if_new')} percent, much as at the other temperatures "
            f"({percent('T=0.8', 'free_if_new')} and {percent('T=1', 'free_if_new')})") in says
    assert f"the module had {given} and {own} in the mean of six such draws" in says
    assert 0.75 < statistics.mean(t["repeated"]["written"] for t in trials if t["arm"] == "T=0") < 0.85    # four of five
    for arm, key, low, high in (("T=0", "forced", 67, 69), ("T=0", "free", 88, 92)):
        values = [100 * t[key] for t in trials if t["arm"] == arm]
        assert (round(min(values)), round(max(values))) == (low, high)
    rest = [100 * t[key] for t in trials if t["arm"] != "T=0" for key in ("forced", "free")]
    assert (math.floor(min(rest)), round(max(rest))) == (66, 75)


def test_what_a_module_is_worth_in_training_is_what_the_record_says():
    alone = {t["seed"]: t["bits_per_byte"] for t in recorded("mla-quality")["trials"] if t["arm"] == "mha"}
    score = {}
    for t in recorded("mtp-quality")["trials"]:
        score.setdefault(t["arm"], {})[t["seed"]] = t["bits_per_byte"]
    one, weak, two, as_much = (score[arm] for arm in ("one module, weight 0.3", "one module, weight 0.1", "two modules, weight 0.3", "none, same FLOPs"))
    says, mean = text(), statistics.mean
    gain = [alone[seed] - one[seed] for seed in alone]
    assert len(gain) == 5 and f"better with every seed, by {min(gain):.3f} to {max(gain):.3f} bits" in says
    assert f"five seeds): {mean(one.values()):.3f} bits per byte with a module, {mean(alone.values()):.3f} without" in says
    assert f"three seeds): {mean(one.values()):.3f} with it, {mean(as_much.values()):.3f} without" in says
    assert f"it wins by {mean(one.values()) - mean(as_much.values()):.3f} bits, some four times" in says
    assert round((mean(one.values()) - mean(as_much.values())) / mean(gain)) == 4
    assert (f"gains {100 * mean(gain) / mean(alone.values()):.1f} percent here at equal text, and loses "
            f"{100 * (mean(one.values()) / mean(as_much.values()) - 1):.1f} percent at equal work") in says.replace("\n", " ")
    weak_gain = [alone[seed] - weak[seed] for seed in weak]
    assert min(weak_gain) < 0.001 and mean(weak_gain) < mean(gain) and len(two) == len(weak) == len(as_much) == 3
    by_seed = [one[seed] - two[seed] for seed in two]
    assert min(by_seed) < 0 < max(by_seed)                             # two modules bring as much as one
    shared = [mean(alone[seed] - each[seed] for seed in two) for each in (two, one)]
    assert f"two modules bring as much as one, {shared[0]:.3f} bits and {shared[1]:.3f}" in says
    weaker = sorted(one[seed] - weak[seed] for seed in weak)           # what weight 0.1 gains more than 0.3, by seed
    assert weaker[0] < -0.02 and all(abs(less) < 0.002 for less in weaker[1:]) and "and the third next to nothing" in says
    assert f"it spreads from {min(weak.values()):.3f} to {max(weak.values()):.3f}" in says


def test_what_one_seed_gains_at_either_rate():
    with_one = {float(t["arm"]): t["bits_per_byte"] for t in recorded("mtp-rates")["trials"]}
    alone = {float(t["arm"].split()[1]): t["bits_per_byte"] for t in recorded("mla-rates")["trials"] if t["arm"].startswith("mha ")}
    assert abs(alone[0.01] - alone[0.02]) < 0.001 and "Without a module the two rates tie." in text()
    gain = {rate: alone[rate] - with_one[rate] for rate in (0.01, 0.02)}
    assert f"this seed gained {gain[0.02]:.3f} bits at 0.02, and only {gain[0.01]:.3f} at 0.01" in text()


def test_a_right_modules_loss_lies_below_the_main_models_in_young_models():
    young = [t["loss"] for t in recorded("mtp-quality")["trials"] if "module" in t["arm"]]
    young += [t["loss"] for t in recorded("mtp-bugs")["trials"] if t["arm"] == "right"]
    assert len(young) == 14 and all(module < main for main, *modules in young for module in modules)
    assert "In young models it is even better" in text() and "it may lie, as the right one does in the table" in text()


def test_the_band_is_that_of_the_record():
    values = [100 * t["free"] for t in recorded("mtp-acceptance")["trials"] if t["arm"] == "T=1"]
    band = json.loads(lab.data_file("bands.json").read_text())["mtp"]["drafts that stand, sampled"]["tiers"]["cpu"]
    mean, spread = statistics.mean(values), statistics.stdev(values)
    assert band["n_runs"] == len(values) >= 5
    assert [band["mean"], band["low"], band["high"]] == pytest.approx([mean, mean - 3 * spread, mean + 3 * spread], abs=5e-4)


def test_what_the_text_counts_of_yardstick_and_v3():
    v3 = ModelConfig.preset("deepseek_v3")
    alone, both = (cost.flops_per_token(v3, seq_len=4096, mtp=has) for has in (False, True))
    assert round(100 * (both / alone - 1)) == 4 and "its module adds four percent" in text()
    flops = cost.training_flops(replace(studies.YARDSTICK, mtp_depth=1), seq_len=256, batch_size=8)
    def of_a_step(depth):
        config = replace(studies.YARDSTICK, mtp_depth=depth)
        return sum(cost.training_flops(config, seq_len=256, batch_size=8).values()) + cost.muon_flops(config)

    assert flops["head"] / (of_a_step(1) - of_a_step(0)) == pytest.approx(3 / 5, abs=0.02) and "Three fifths of it is the head" in text()
    layer = (flops["attention"] + flops["scores"] + flops["dense"]) / 4
    assert flops["head"] / layer == pytest.approx(2, abs=0.1) and "costs as much as two layers" in text()
    assert 1.9 / 1.5 == pytest.approx(1.27, abs=0.005) and "may cost 27 percent of a pass" in text()
    # V3's best, were the second token of a pass free; and two tokens of one reader, who choose their experts independently
    assert [round(tokens / 1.04, 2) for tokens in (1.85, 1.9)] == [1.78, 1.83] and "that is 1.78 to 1.83" in text()
    touched = v3.n_experts * (1 - (1 - v3.top_k / v3.n_experts) ** 2)
    expert = 3 * v3.d_model * v3.d_expert
    fetched = v3.n_active_params - v3.vocab_size * v3.d_model
    more = (fetched + (v3.n_layers - v3.n_dense_layers) * (touched - v3.top_k) * expert) / fetched
    assert touched == 15.75 and "15.75 experts a layer instead of 8" in text()
    assert round(more, 2) == 1.54 and "fetch 1.54 times the weights" in text()
    assert [round(tokens / (more + 0.04), 1) for tokens in (1.85, 1.9)] == [1.2, 1.2] and "would become 1.2" in text()
    assert sum(0.7**k for k in range(1, 5)) == pytest.approx(1.77, abs=0.005)


def test_what_the_chapter_says_of_planted_bugs():
    of = {arm: [t for t in recorded("mtp-bugs")["trials"] if t["arm"] == arm] for arm in ("right", "handed the answer", "detached", "normed twice")}
    loss = {arm: [t["loss"] for t in each] for arm, each in of.items()}
    stand = {arm: 100 * statistics.mean(t["acceptance"][0] for t in each) for arm, each in of.items()}
    assert all(module < 0.0015 for _, module in loss["handed the answer"]) and "to a thousandth of a nat" in text()
    assert f"then {stand['handed the answer']:.0f} of 100 drafts stand" in text()
    assert 0 < stand["right"] - stand["detached"] < 4 and abs(stand["right"] - stand["normed twice"]) < 1.5
    assert all(wrong[0] > right[0] for right, wrong in zip(loss["right"], loss["detached"], strict=True)) and "the main model learnt less" in text()
    assert all(abs(wrong[0] - right[0]) < 0.01 for right, wrong in zip(loss["right"], loss["normed twice"], strict=True))
    assert len(loss["detached"]) == 3 and "the main model is worse with each of three seeds" in text()


def test_what_the_chapter_says_of_time():
    steps = recorded("mtp-step")["trials"]
    one, two = (statistics.median(b / a for t in steps for a, b in zip(t["ms"]["0"], t["ms"][depth])) for depth in ("1", "2"))
    yardstick = ModelConfig.preset("yardstick")
    counted = [sum(cost.training_flops(replace(yardstick, mtp_depth=n), seq_len=256, batch_size=8).values()) for n in (0, 1, 2)]
    assert abs(one - counted[1] / counted[0]) < 0.1 and abs(two - counted[2] / counted[0]) < 0.15 and "It does. Now the lesson" in text()

    def faster(B, n):
        """Times as fast with n drafts a pass, a figure for each prompt."""
        of = [t for t in recorded("mtp-decoding")["trials"] if t["arm"] == f"B={B}"]
        assert all(share == 1 for t in of for share in t["same_text"].values()) and "every text is the same, to the letter" in text()
        return sorted(statistics.median(a / b for a, b in zip(t["seconds"]["0"], t["seconds"][n])) for t in of)

    one, three = faster(1, "1"), faster(1, "3")
    assert f"makes it {one[0]:.2f} to {one[-1]:.2f} times as fast, three make it {three[0]:.2f} to {three[-1]:.2f}" in text()
    assert max(max(faster(1, n)) for n in "1234") < 1.5 and "in the middle of five rounds no prompt gives it" in text()
    for each in (one, three):
        assert each[0] < 1 < each[1] and "two of three greedy texts get somewhat faster, and one slower" in text()
    assert max(faster(8, "1")) < 1 and "With eight texts one draft a pass is slower each time" in text()
    assert abs(statistics.median(faster(2, "1")) - 1) < 0.05 and all(statistics.median(faster(B, "1")) < 1.05 for B in (4, 8, 16, 32, 64))

    middle = {(B, n): statistics.median(faster(B, n)) for B in (1, 2, 4, 8, 16, 32, 64) for n in "13"}    # the lines of the figure
    assert [round(middle[1, n], 1) for n in "13"] == [1.1, 1.2] and "the lines lie at 1.1 and 1.2" in text()
    assert [round(edge, 1) for edge in (min(one + three), max(one + three))] == [0.9, 1.4] and "from 0.9 to 1.4" in text()
    later = [ratio for (B, _), ratio in middle.items() if B > 1]
    assert (round(min(later), 1), round(max(later), 2)) == (0.8, 1.02) and "the lines lie between 0.8 and 1.02" in text()
    assert all(abs(middle[2, n] - 1) < 0.03 for n in "13") and "With two texts side by side the gain is gone" in text()
    assert all(ratio < 1.02 for (B, _), ratio in middle.items() if B > 2) and "with more, drafts at best break even" in text()


def test_what_the_chapter_says_of_a_pass_and_what_the_equation_makes_of_it():
    trials, says = recorded("mtp-pass")["trials"], text()

    def takes(part, B):
        """In passes over one token, a figure for each repetition."""
        return [statistics.median(a / b for a, b in zip(t["ms"][part], t["ms"]["1 tokens"])) for t in trials if t["arm"] == f"B={B}"]

    batches = (1, 2, 4, 8, 16, 32, 64)
    for B in batches:
        drafts = takes("draft", B)
        assert 0.35 < min(drafts) and max(drafts) < 0.5 and 0.38 < statistics.median(drafts) < 0.46
    assert max(takes("draft", 1)) < 0.45 and "in the recorded times two fifths of the milliseconds" in says
    second = {B: statistics.median(takes("2 tokens", B)) - 1 for B in batches}
    assert round(second[1], 1) == 0.1 and 0.45 < second[64] < 0.55 and "costs a tenth of a pass for one text, half for 64" in says
    many = [took - 1 for B in batches if B >= 8 for took in takes("2 tokens", B)]
    assert 0.23 < min(many) < 0.27 and 0.64 < max(many) < 0.69 and "a quarter to two thirds of a pass" in says

    promised = {}
    for B in batches:
        tokens = [t["tokens_per_pass"]["1"] for t in recorded("mtp-decoding")["trials"] if t["arm"] == f"B={B}"]
        cost_of_it = statistics.median(takes("2 tokens", B)) + statistics.median(takes("draft", B))
        promised[B] = [n / cost_of_it for n in tokens]
    assert f"(9.6) promises {min(promised[1]):.2f} to {max(promised[1]):.2f} for three texts" in says
    clock = [statistics.median(a / b for a, b in zip(t["seconds"]["0"], t["seconds"]["1"]))
             for t in recorded("mtp-decoding")["trials"] if t["arm"] == "B=1"]
    assert all(took < hoped for took, hoped in zip(clock, promised[1], strict=True)) and "for each the clock gives less" in says
    assert all(abs(hoped - 1.25) < 0.025 for hoped in promised[2]) and "At two texts (9.6) still promises 1.25" in says
    assert all(max(promised[B]) < 1.14 for B in batches if B >= 8) and "From eight texts on the passes explain most of it" in says


def test_above_sixteen_tokens_the_experts_are_served_in_another_way():
    config = studies.experienced().config
    form = {}
    for n in (1, 16, 17, 32):
        layer = moe.MoE(config)
        with mock.patch.object(moe, "dispatch_few", wraps=moe.dispatch_few) as few, torch.no_grad():
            layer(torch.randn(1, n, config.d_model))
        form[n] = few.called
    assert form == {1: True, 16: True, 17: False, 32: False} and "Above sixteen tokens in a pass" in text()
