"""Chapter 08: its exercises' solutions by other routes, its bugs, its studies' arithmetic, and the figures that its text writes."""

import itertools
import json
import math
import statistics
from dataclasses import replace

import pytest
import torch

from minimodels import lab
from minimodels.balance import batch_loss, max_violation, sequence_loss, update_bias
from minimodels.bugs import plant
from minimodels.bugs.balance import BUGS, OneSequenceCounted, SignFlipped, WishesCounted
from minimodels.config import ModelConfig
from minimodels.exercises import balance as exercises
from minimodels.model import Transformer
from minimodels.moe import Gate, MoE, Routing
from minimodels.studies import balance as studies
from minimodels.studies import recorded

T, D, E, K = 11, 7, 6, 2
TINY = ModelConfig(vocab_size=97, d_model=24, n_layers=2, max_seq_len=64, attention="mha", n_heads=3, d_head=8, d_value=8, d_ff=40, n_experts=E,
                   top_k=K, d_expert=8, n_dense_layers=0, mtp_depth=0)


def text():
    """The chapter's text as one line of words."""
    path = lab.data_file("").parent / "chapters" / "08_balance.py"
    return " ".join(path.read_text("utf8").replace("\n# > ", " ").replace("\n#", " ").split())


def routed(score, top_k=K):
    """A routing by affinity alone."""
    expert = score.topk(top_k, dim=-1).indices
    return Routing(score, expert, score.gather(1, expert), torch.bincount(expert.flatten(), minlength=score.shape[1]))


# ---- the exercises' solutions are what the chapter says that they are

def test_the_examples_by_hand():
    assert exercises.violation([8, 2, 1, 1]) == pytest.approx(5 / 3)
    assert exercises.slowdown([8, 2, 1, 1], 4) == pytest.approx(8 / 3) and exercises.slowdown([8, 2, 1, 1], 2) == pytest.approx(10 / 6)
    assert exercises.move_bias([0, 0, 0, 0], [8, 2, 1, 1], 0.01) == [-0.01, 0.01, 0.01, 0.01]
    chosen, weight = exercises.choose_and_weigh([0.8, 0.6, 0.2, 0.1], [-0.6, -0.1, 0.5, 0.0], 2)
    assert chosen == [2, 1] and weight == pytest.approx([0.25, 0.75])
    f, P = torch.tensor([2.0, 1, 1, 0]), torch.tensor([0.4, 0.3, 0.2, 0.1])
    assert (f * P).sum().item() == pytest.approx(1.3)


def test_with_one_expert_a_device_a_step_takes_maxvio_and_one_times_as_long():
    load = [13, 5, 0, 7, 29]
    assert exercises.slowdown(load, 5) == pytest.approx(1 + max_violation(torch.tensor(load))) == pytest.approx(1 + exercises.violation(load))


def test_the_losses_are_the_packages():
    score = torch.rand(3 * T, E)
    routing = routed(score)
    torch.testing.assert_close(exercises.balance_loss(score, routing.expert), batch_loss(routing))
    torch.testing.assert_close(exercises.loss_by_sequence(score, routing.expert, 3), sequence_loss(routing, 3))


def test_the_bias_moves_as_the_packages():
    gate, load = Gate(replace(TINY, d_model=D)), [3, 0, 9, 4, 4, 4]
    update_bias(gate, torch.tensor(load), 0.05)
    assert gate.bias.tolist() == pytest.approx(exercises.move_bias([0.0] * E, load, 0.05))


def test_choice_and_weights_are_the_gates():
    gate, x = Gate(replace(TINY, d_model=D)), torch.randn(T, D)
    torch.nn.init.normal_(gate.weight)
    gate.bias.uniform_(-0.3, 0.3)
    routing = gate(x)
    for t in range(T):
        chosen, weight = exercises.choose_and_weigh(routing.score[t].tolist(), gate.bias.tolist(), K)
        assert chosen == routing.expert[t].tolist() and weight == pytest.approx(routing.weight[t].tolist(), abs=1e-5)


@pytest.mark.parametrize("n_experts, n_nodes, top_k", [(6, 3, 2), (8, 2, 3), (8, 4, 4), (9, 3, 1)])
def test_expected_nodes_by_counting_every_set(n_experts, n_nodes, top_k):
    each = n_experts // n_nodes
    counts = [len({e // each for e in chosen}) for chosen in itertools.combinations(range(n_experts), top_k)]
    assert exercises.expected_nodes(n_experts, n_nodes, top_k) == pytest.approx(statistics.mean(counts))


def test_a_bias_in_bf16_stops_where_the_solution_says():
    assert torch.tensor(0.5, dtype=torch.bfloat16) + 0.001 == 0.5 and torch.tensor(0.498046875, dtype=torch.bfloat16) + 0.001 == 0.5
    assert torch.tensor(4.0, dtype=torch.bfloat16) + 0.01 == 4.0
    assert "stops" in text() and "At 0.5 after 383 steps, and at 4 after 350." in text()


# ---- the bugs do what they say, and nothing else

def pair(bug):
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(Transformer(TINY).eval())
        for gate in models[-1].gates:
            torch.nn.init.normal_(gate.weight, generator=torch.Generator().manual_seed(1))
            gate.bias.uniform_(-0.3, 0.3, generator=torch.Generator().manual_seed(2))
    plant(models[1], bug)
    return *models, torch.randint(0, TINY.vocab_size, (3, T))


@pytest.mark.parametrize("bug", BUGS.values())
def test_a_bug_changes_no_weight_and_can_be_trained(bug):
    right, spoilt, tokens = pair(bug)
    assert all(torch.equal(a, b) for a, b in zip(right.state_dict().values(), spoilt.state_dict().values()))
    spoilt(tokens).logits.sum().backward()
    assert all(gate.weight.grad.abs().sum() > 0 for gate in spoilt.gates)


def test_a_flipped_sign_is_a_gate_whose_bias_is_negative():
    right, spoilt, tokens = pair(SignFlipped)
    for gate in right.gates:
        gate.bias.neg_()
    assert torch.equal(right(tokens).logits, spoilt(tokens).logits)


@pytest.mark.parametrize("bug", [WishesCounted, OneSequenceCounted])
def test_wrong_counts_leave_the_output_as_it_is(bug):
    right, spoilt, tokens = pair(bug)
    out, wrong = right(tokens), spoilt(tokens)
    assert torch.equal(out.logits, wrong.logits)
    assert not all(torch.equal(a, b) for a, b in zip(out.load, wrong.load))


def test_what_is_counted_instead():
    _, spoilt, tokens = pair(OneSequenceCounted)
    alone = spoilt(tokens[:1]).load
    assert all(torch.equal(a, b) and a.sum() == T * K for a, b in zip(spoilt(tokens).load, alone))
    _, spoilt, tokens = pair(WishesCounted)
    for gate in spoilt.gates:
        gate.bias.zero_()
    routing = spoilt(tokens).routing[0]
    assert torch.equal(routing.load, torch.bincount(routing.expert.flatten(), minlength=E))    # without a bias wishes are choices
    assert all(issubclass(bug, (Gate, MoE)) for bug in BUGS.values())


# ---- what the studies compute

def test_information_by_hand():
    assert studies.information(torch.tensor([[3, 6], [1, 2]])) == pytest.approx(0)                      # rows in proportion
    assert studies.information(torch.diag(torch.tensor([5, 5, 5, 5]))) == pytest.approx(2)              # one of four, known: two bits
    p = 2 / 3
    entropy = -p * math.log2(p) - (1 - p) * math.log2(1 - p)
    assert studies.information(torch.tensor([[4, 0], [0, 2]])) == pytest.approx(entropy)


def test_a_table_of_choices_and_a_window_by_hand():
    label, expert = torch.tensor([0, 0, 1]), torch.tensor([[0, 1], [0, 2], [2, 1]])
    assert studies.crossed(label, expert, 2, 3).tolist() == [[2, 1, 1], [0, 1, 1]]
    even_together = torch.tensor([[0], [0], [1], [1], [1]])             # the last is no whole window
    assert studies.window_violation(even_together, 2, 2) == pytest.approx(1)
    assert studies.window_violation(torch.tensor([[0], [1], [1], [0]]), 2, 2) == 0


def test_what_a_label_decides_is_found_and_what_is_shifted_is_not():
    label = torch.randint(0, 4, (4000,), generator=torch.Generator().manual_seed(0))
    found, by_chance, most, entropy = studies.specialisation(label, label[:, None], 4, n_shifts=10)
    assert found == pytest.approx(entropy) == pytest.approx(2, abs=0.01) and by_chance <= most < 0.01


def test_the_models_of_the_sweep_differ_in_balancing_alone():
    trials = studies.STUDIES[0].trials
    assert len(trials) == 13 and len({json.dumps(t.model.to_dict()) for t in trials}) == 1
    names = {"balance", "balance_rate", "balance_weight"}
    assert len({json.dumps({k: v for k, v in t.training.to_dict().items() if k not in names}) for t in trials}) == 1
    assert set(studies.CHOSEN) <= set(studies.SWEEP)
    assert (studies.LIVE_MODEL.n_experts, studies.LIVE_MODEL.top_k, studies.LIVE_MODEL.n_shared, studies.MODEL.n_experts, studies.MODEL.top_k) == (16, 2, 1, 31, 3)
    assert studies.LIVE_MODEL.n_params == pytest.approx(0.5e6, rel=0.02)


# ---- the figures that the chapter writes

def test_the_figures_of_the_sweep():
    sweep = {t["arm"]: t for t in recorded("balance-sweep")["trials"]}
    first = 1 + max_violation(torch.tensor(sweep["none"]["load"][0]))
    assert round(first) == 8 and "**8 times its share**" in text()
    assert 1 - 1 / (1 + max(sweep["none"]["max_violation"])) == pytest.approx(7 / 8, abs=0.01) and "seven eighths of what the devices cost together" in text()


def six_seeds(arm):
    """The records of an arm with seeds 0 to 5: the search's run, and balance-quality's."""
    both = sorted((t for name in ("balance-sweep", "balance-quality") for t in recorded(name)["trials"] if t["arm"] == arm), key=lambda t: t["seed"])
    assert [t["seed"] for t in both] == [0, 1, 2, 3, 4, 5]
    return both


def test_the_loads_of_six_seeds():
    slow = {arm: [max(max(load) / statistics.mean(load) for load in t["load"]) for t in six_seeds(arm)] for arm in ("none", "bias 0.01")}
    assert 7 < min(slow["none"]) < max(slow["none"]) < 9 and "the unbalanced layer would take seven to nine times as long" in text()
    ends = [f"{f(slow['bias 0.01']):.1f}" for f in (min, max)]
    assert "the balanced one {} to {} times (six seeds, worst layer)".format(*ends) in text()
    firsts = [t["load"][0] for t in six_seeds("none")]
    others = [max(load) / statistics.mean(load) for load in firsts[1:]]
    assert f"with five others {min(others):.1f} to {max(others):.1f} times" in text()
    shares = [100 * sum(sorted(load)[-6:]) / sum(load) for load in firsts]
    assert f"the six busiest of the 31 experts of its first layer then still do {min(shares):.0f}% to {max(shares):.0f}% of the work" in text()
    peaks = [max(max(rest) for _, *rest in t["violation"]) for t in six_seeds("none")]
    tokens = 8 * 256
    assert all(t.training.batch_size * t.training.seq_len == tokens for t in studies.STUDIES[0].trials)
    assert f"among the three of at least {(1 + min(peaks)) * 3 / 31 * tokens:,.0f} of {tokens:,} tokens" in text()


def test_the_figures_of_the_biases_speeds():
    sweep = {t["arm"]: t for t in recorded("balance-sweep")["trials"]}
    biases = {rate: sweep[f"bias {rate}"] for rate in ("0.001", "0.003", "0.01", "0.03", "0.1")}
    uneven = {rate: max(trial["max_violation"]) for rate, trial in biases.items()}
    assert max(uneven[rate] for rate in list(uneven)[:-1]) < 0.75 and "from 0.001 to 0.03 brings it from 7 to below 0.75" in text()
    assert f"the fastest, 0.1, ends at {uneven['0.1']:.1f}" in text() and round(max(sweep["none"]["max_violation"])) == 7
    scores = [trial["bits_per_byte"] for trial in biases.values()]
    assert max(scores) - min(scores) == pytest.approx(0.012, abs=5e-4) and "speeds of the bias, in no order, span the same 0.012" in text()
    batches = {rate: [max(rest) for _, *rest in trial["violation"]] for rate, trial in biases.items()}
    first = {rate: next(step for step, *rest in trial["violation"] if max(rest) < 1.5) for rate, trial in biases.items()}
    assert f"below 1.5 at step {first['0.01']}, with 0.001 at {first['0.001']} of 600. With 0.1 it does so at {first['0.1']}" in text()
    assert [sum(v < 1.5 for v in batches[rate][-20:]) for rate in ("0.1", "0.01")] == [6, 17]
    assert "of the last twenty records six lie below 1.5, with 0.01 seventeen" in text()


def test_the_search_tells_nothing_about_bits():
    sweep = {t["arm"]: t for t in recorded("balance-sweep")["trials"]}
    scores = {arm: trial["bits_per_byte"] for arm, trial in sweep.items()}
    assert len(scores) == 13 and max(scores.values()) - min(scores.values()) == pytest.approx(0.012, abs=5e-4) and "within 0.012 bits" in text()
    better = sum(score < scores["none"] for score in scores.values())
    assert (better, 12 - better) == (9, 3) and "Nine of the twelve balanced runs do better than the one without and three do worse" in text()
    seeds = {t["seed"]: t["bits_per_byte"] for t in recorded("moe-quality")["trials"] if t["arm"] == "fine + shared"}
    assert sorted(seeds) == [1, 2, 3, 4, 5]
    same = [scores["bias 0.01"], *seeds.values()]
    assert max(same) - min(same) == pytest.approx(0.023, abs=5e-4) and text().count("0.023") == 3
    pressed = [sweep[f"sequence {weight}"] for weight in ("0.001", "0.01", "0.1")]
    assert "{:.4f}, {:.4f} and {:.4f}, as its critics".format(*(t["bits_per_byte"] for t in pressed)) in text()
    for scope in ("sequence", "batch"):
        uneven = [max(sweep[f"{scope} {weight}"]["max_violation"]) for weight in ("0.001", "0.01", "0.1")]
        assert sorted(uneven, reverse=True) == uneven and "Both losses make it more even with more weight." in text()


def four_ways():
    """{arm: its bits per byte, seeds 0 to 5}: the search's run, and balance-quality's."""
    return {arm: torch.tensor([trial["bits_per_byte"] for trial in six_seeds(arm)], dtype=torch.float64) for arm in studies.CHOSEN}


def test_seed_0_of_the_search_is_a_sixth_seed():
    from minimodels.studies import find

    for arm in studies.CHOSEN:
        ours, search = ({t.arm: t for t in find(name).trials if t.seed in (0, 1)}[arm] for name in ("balance-quality", "balance-sweep"))
        assert ours.model == search.model and replace(ours.training, seed=0) == search.training
    uneven = {t["arm"]: max(t["max_violation"]) for t in recorded("balance-sweep")["trials"]}
    for scope in ("sequence", "batch"):
        assert min((0.001, 0.01, 0.1), key=lambda weight: abs(uneven[f"{scope} {weight}"] - uneven["bias 0.01"])) == 0.01
    assert "The losses have the weight 0.01: there they came nearest to the bias's MaxVio." in text()


def test_the_bits_of_the_four_ways():
    none, bias, sequence, batch = (four_ways()[arm] for arm in ("none", "bias 0.01", "sequence 0.01", "batch 0.01"))
    saved = none - bias
    assert (saved > 0).all() and "with each of six seeds**" in text() and "only the bias beats no balancing with every seed" in text()
    assert f"by {saved.min():.4f} to {saved.max():.4f} bits per byte, {saved.mean():.4f} in the mean: half a percent" in text()
    assert (saved.mean() / none.mean()).item() == pytest.approx(0.005, abs=5e-4)
    assert "saves bits with every one of six seeds, half a percent in the mean" in text() and "saves bits with each of six, half a percent in the mean" in text()
    assert all(0 < (none - loss).mean() < saved.mean() / 2 for loss in (sequence, batch)) and text().count("save less than half of that") == 2
    assert all(each.argmin() == 4 for each in (none, bias, sequence, batch)) and "seed 4 is everybody's best" in text()
    behind = sequence - bias
    assert (behind > 0).all() and "beats no balancing with five of six" in text()
    assert f"stays behind the bias with every seed, by {behind.min():.4f} to {behind.max():.4f}." in text()
    assert [(a < b).sum().item() for a, b in ((sequence, none), (batch, none), (batch, bias), (batch, sequence))] == [5, 4, 2, 3]
    assert "save less than half of that, with four and five of six" in text() and "it beats no balancing with four seeds, the bias with two, the other loss with three" in text()
    ends = [round(1000 * end.item()) for other in (bias, batch, sequence) for end in ((other - none).min(), (other - none).max())]
    assert ends == [-15, -2, -11, 2, -12, 3]
    assert "all below it, by 15 to 2. The loss over the batch: from 11 below to 2 above; the loss by sequence: from 12 below to 3 above" in text()


def test_what_the_experts_of_the_four_ways_tell():
    told = {arm: {"file": [], "kind": []} for arm in studies.CHOSEN}
    left, within, lucky = {arm: [] for arm in told}, {arm: [] for arm in told}, []
    for trial in recorded("balance-quality")["trials"]:
        arm, info = trial["arm"], torch.tensor([trial["information"]["file"], trial["information"]["kind"]], dtype=torch.float64)    # (2, layers, 4)
        for layer, table in enumerate(trial["by_kind"]):            # once more from the counts: entropies of rows, of columns and of both
            p = torch.tensor(table, dtype=torch.float64) / torch.tensor(table).sum()
            entropy = [-torch.special.xlogy(q, q).sum() / math.log(2) for q in (p.sum(1), p.sum(0), p)]
            assert (entropy[0] + entropy[1] - entropy[2]).item() == pytest.approx(info[1, layer, 0].item(), abs=2e-4)
        mean = info.mean(1)                                          # over layers
        told[arm]["file"].append((mean[0, 0] - mean[0, 1]).item())
        told[arm]["kind"].append((mean[1, 0] - mean[1, 1]).item())
        lucky.append(info[:, :, 2] / info[:, :, 0])                  # (2, layers): the largest shift over what is found
        left[arm].append(statistics.mean(max_violation(torch.tensor(load)) for load in trial["load"]))
        within[arm].append(statistics.mean(trial["window_violation"]))
    none, bias, sequence, batch = (told[arm] for arm in ("none", "bias 0.01", "sequence 0.01", "batch 0.01"))
    kind = [f"{statistics.mean(each['kind']):.2f}" for each in (bias, none, batch, sequence)]
    assert "**Most with the bias, {} bits. Least without balancing, {}.** The loss over the batch keeps {}, the loss on each sequence {}.".format(*kind) in text()
    assert f"tells {kind[2]} bits about the kind; counted by sequence these are 1.4 and {kind[3]}, and no seed of one comes near" in text()
    assert min(batch["file"]) > 2 * max(sequence["file"]) and min(batch["kind"]) > 1.1 * max(sequence["kind"])
    assert all(b > max(others) for label in ("file", "kind") for b, *others in zip(*(each[label] for each in (bias, batch, sequence, none))))
    assert "its experts tell most with every seed" in text()
    file, kinds = torch.stack(lucky, 1)                              # (runs, layers) each
    assert f"in {(file >= 1).sum()} of the {file.numel()} layers of all runs the luckiest of the hundred shifts tells as much" in text()
    assert kinds.max() < 1 / 7 and "About the kind none comes near." in text()
    ends = [f"{f(each['kind']):.3f}" for each in (none, sequence, batch, bias) for f in (min, max)]
    assert "No balancing lies between {} and {} bits, the loss by sequence between {} and {}, the loss over the batch between {} and {}, " \
           "the bias between {} and {}.".format(*ends) in text()
    assert round(statistics.mean(within["batch 0.01"]), 1) == 2.1 and round(statistics.mean(within["sequence 0.01"]), 1) == 1.4
    even = [statistics.mean(left[arm]) for arm in ("bias 0.01", "sequence 0.01", "batch 0.01")]
    assert max(even) - min(even) < 0.1 and min(left["none"]) > 5 and "Over all text the three remedies are equally even" in text()


def test_the_seeds_beside_the_sweep_are_of_the_same_model():
    from minimodels.studies import find

    other = {t.arm: t for t in find("moe-quality").trials if t.seed == 1}["fine + shared"]
    ours = {t.arm: t for t in find("balance-sweep").trials}["bias 0.01"]
    assert other.model == ours.model and replace(other.training, seed=0) == replace(ours.training, eval_every=other.training.eval_every)


def test_the_head_start_by_hand():
    a, b = (1 / (1 + math.exp(-z)) for z in (0.5, -0.3 + 0.6))
    assert (round(a, 3), round(b, 3)) == (0.622, 0.574) and "0.622 and 0.574. A bias of 0.05 for B" in text()
    assert b < a < b + 0.05


def test_the_figures_of_the_short_runs():
    trials = recorded("balance-live")["trials"]
    score = {arm: {t["seed"]: t["bits_per_byte"] for t in trials if t["arm"] == arm} for arm in ("none", "bias")}
    peaks, at = [], []
    for trial in trials:
        if trial["arm"] == "none":
            step, violation = max(((step, max(rest)) for step, *rest in trial["violation"]), key=lambda pair: pair[1])
            peaks.append(1 + violation)
            at.append(step)
    assert (min(at), max(at)) == (30, 50) and "**After 30 to 50 steps.**" in text()
    assert f"between {min(peaks):.1f} and {max(peaks):.1f} times its share (six recorded seeds" in text()
    assert all(step % 10 == 0 for trial in trials for step, *_ in trial["violation"]) and "every tenth step" in text()
    assert studies.LIVE_MODEL.n_experts / studies.LIVE_MODEL.top_k == 8
    more = [score["bias"][seed] - score["none"][seed] for seed in score["none"]]
    assert (len(more), sum(m > 0 for m in more)) == (6, 5) and "with five of the six" in text()
    assert f"{statistics.mean(more):.4f} in the mean: a fifth of a percent (from {max(more):.4f} more to {-min(more):.4f} fewer)" in text()
    assert 100 * statistics.mean(more) / statistics.mean(score["none"].values()) == pytest.approx(20 / 100, abs=0.03)


def test_the_band_is_that_of_the_short_runs():
    bands = json.loads(lab.data_file("bands.json").read_text())["balance"]
    for arm in ("none", "bias"):
        values = [t["bits_per_byte"] for t in recorded("balance-live")["trials"] if t["arm"] == arm]
        band, mean, spread = bands[f"{arm} after 120 steps"]["tiers"]["cpu"], statistics.mean(values), statistics.stdev(values)
        assert [band["mean"], band["low"], band["high"]] == pytest.approx([mean, mean - 3 * spread, mean + 3 * spread], abs=5e-4)


def test_published_figures():
    v3 = ModelConfig.preset("deepseek_v3")
    assert (v3.n_experts, v3.top_k, v3.n_groups, v3.top_groups) == (256, 8, 8, 4)
    assert exercises.expected_nodes(256, 8, 8) == pytest.approx(8 * (1 - math.prod((224 - i) / (256 - i) for i in range(8))))
    assert round(exercises.expected_nodes(256, 8, 8), 2) == 5.29 and "= 5.29" in text()
    assert 14.3e12 / 62.9e6 > 200_000 and "more than two hundred thousand steps" in text()    # the largest batch of V3, section 4.2


def copied(load, n_free):
    """The busiest device when n_free copies are shared out: every way to give them is tried among the experts that matter."""
    top = sorted(load, reverse=True)[:6]
    shared = itertools.product(range(n_free + 1), repeat=len(top))
    best = min(max(n / (1 + c) for n, c in zip(top, copies)) for copies in shared if sum(copies) == n_free)
    return max(best, *sorted(load, reverse=True)[6:])


@pytest.mark.parametrize("arm, before, after", [("none", "62,528", "29,028"), ("bias 0.01", "10,369", "9,041")])
def test_the_copies_of_the_longer_problem(arm, before, after):
    load = {t["arm"]: t for t in recorded("balance-sweep")["trials"]}[arm]["load"][0]
    assert (f"{max(load):,}", f"{copied(load, 5):,.0f}") == (before, after) and before in text() and after in text()
    assert 36 / 31 - 1 == pytest.approx(0.16, abs=0.005) and 1 - 9041 / 10369 == pytest.approx(0.13, abs=0.005)


def test_one_raised_bias_finds_the_flipped_sign():
    right, spoilt, tokens = pair(SignFlipped)
    moved = []
    for model in (right, spoilt):
        before = model(tokens).load[0][0].item()
        model.gates[0].bias[0] += 0.25
        moved.append(model(tokens).load[0][0].item() - before)
    assert moved[0] > 0 > moved[1]


def test_what_the_chapter_says_of_planted_bugs():
    trials = recorded("balance-bugs")["trials"]
    bits, uneven, far = ({} for _ in range(3))
    for t in sorted(trials, key=lambda t: t["seed"]):
        bits.setdefault(t["arm"], []).append(t["bits_per_byte"])
        uneven.setdefault(t["arm"], []).append(max(t["max_violation"]))
        far.setdefault(t["arm"], []).append(max(abs(b) for layer in t["bias"] for b in layer))
    mean = {arm: statistics.mean(each) for arm, each in bits.items()}
    worst = 100 * (max(mean.values()) / mean["right"] - 1)
    assert f"the worst is {worst:.1f} percent behind" in text()
    lost = [b - a for arm in ("sign flipped", "wishes counted") for a, b in zip(bits["right"], bits[arm], strict=True)]    # seed by seed
    assert len(lost) == 6 and f"the first two lose every time, by {min(lost):.3f} to {max(lost):.3f}" in text()
    every_token = studies.MODEL.n_experts / studies.MODEL.top_k - 1
    assert all(round(u, 2) == round(every_token, 2) for u in uneven["sign flipped"]) and "gets *every* token" in text()
    last = ("one sequence counted", "bias in the weight")
    assert all(min(bits[arm]) < max(bits["right"]) and max(uneven[arm]) < 1.2 for arm in last)
    assert all(min(uneven[arm]) > 8 for arm in ("sign flipped", "wishes counted"))
    assert {f"{b:.2f}" for arm in ("sign flipped", "wishes counted") for b in far[arm]} == {"2.00"}


def test_what_other_gates_do_without_balancing():
    above = [t for study, arm in (("balance-sweep", "none"), ("balance-quality", "none")) for t in recorded(study)["trials"] if t["arm"] == arm]
    others = recorded("balance-collapse")["trials"]
    for arm in ("top-1", "faster gate", "softmax"):
        loads = [torch.tensor(layer).double() for t in others if t["arm"] == arm for layer in t["load"]]
        assert statistics.mean((n < n.mean() / 10).double().mean().item() for n in loads) > 0.485
    assert len(above) == 6 and "Each leaves half of its experts or more nearly idle" in text()
    bits = [t["bits_per_byte"] for t in above]
    assert all(min(bits) < t["bits_per_byte"] < max(bits) for t in others) and "Their bits lie within those of the six seeds above" in text()
    most = [max(max(layer) / sum(layer) for layer in t["load"]) for t in others if t["arm"] == "top-1"]
    assert len(most) == 2 and f"{100 * max(most):.2f}% of all tokens" in text() and min(most) < 0.75


def test_what_a_limit_on_groups_costs():
    free = {t["seed"]: t["bits_per_byte"] for t in recorded("moe-quality")["trials"] if t["arm"] == "fine"}
    for groups, (loses, gains) in {4: (1, 2), 2: (2, 0)}.items():
        more = [100 * (t["bits_per_byte"] / free[t["seed"]] - 1) for t in recorded("balance-groups")["trials"] if t["arm"] == f"{groups} of 8 groups"]
        assert (sum(x > 0.1 for x in more), sum(x < -0.1 for x in more), len(more)) == (loses, gains, 3)
        assert abs(statistics.mean(more)) < 4.303 * statistics.stdev(more) / 3**0.5    # Student's t
    assert "with half of the groups one seed loses and two gain, with a quarter two lose and one is even" in text()
