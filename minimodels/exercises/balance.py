"""Exercises of chapter 08."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

from minimodels.bugs import plant
from minimodels.bugs.balance import OneSequenceCounted, WishesCounted
from minimodels.bugs.moe import BiasInWeight
from minimodels.config import ModelConfig
from minimodels.exercises import Exercise, Mutant, wrong_tests
from minimodels.moe import Gate, MoE


def _generator(rng):
    return torch.Generator().manual_seed(rng.randrange(2**31))


@dataclass(frozen=True, kw_only=True)
class Watched(Exercise):
    """An exercise that looks at more than what an answer returns: watch(function, *inputs) gives that, or words for what went wrong."""

    watch: Callable

    def _run(self, function, seed, i):
        return super()._run(lambda *inputs: self.watch(function, *inputs), seed, i)


# ---- 8.1

def violation(load):
    """MaxVio: how far the busiest expert lies above the mean load, in mean loads. load: a number of tokens for each expert."""
    mean = sum(load) / len(load)
    return (max(load) - mean) / mean


def _load_inputs(rng):
    load = [rng.randint(0, 40) for _ in range(rng.choice([3, 5, 8]))]
    load[rng.randrange(len(load))] += 50
    return (load,)


def _times_the_mean(load):
    return violation(load) + 1


def _of_the_largest(load):
    return (max(load) - sum(load) / len(load)) / max(load)


def _whole_range(load):
    return (max(load) - min(load)) * len(load) / sum(load)


def _deviation(load):
    return statistics.pstdev(load) * len(load) / sum(load)


# ---- 8.2

def slowdown(load, n_devices):
    """How many times as long a step takes as with even loads, when the first E / n_devices experts lie on the first device, and so on."""
    per_device = len(load) // n_devices
    work = [sum(load[i * per_device:(i + 1) * per_device]) for i in range(n_devices)]
    return max(work) / (sum(work) / n_devices)


def _device_inputs(rng):
    n_devices = rng.choice([2, 3, 4])
    load = [rng.randint(1, 60) for _ in range(n_devices * rng.choice([2, 3, 4]))]
    load[0] += 90
    return load, n_devices


def _one_each(load, n_devices):
    return max(load) / (sum(load) / len(load))


def _dealt_like_cards(load, n_devices):
    work = [sum(load[i::n_devices]) for i in range(n_devices)]
    return max(work) * n_devices / sum(work)


def _share_of_the_slowest(load, n_devices):
    return slowdown(load, n_devices) / n_devices


def _violation_of_devices(load, n_devices):
    return slowdown(load, n_devices) - 1


def _over_the_fastest(load, n_devices):
    per_device = len(load) // n_devices
    work = [sum(load[i * per_device:(i + 1) * per_device]) for i in range(n_devices)]
    return max(work) / min(work)


# ---- 8.3

def balance_loss(score, expert):
    """sum_i f_i P_i over one batch: f_i the load over its mean, P_i the mean of the normalised affinity. score: (T, E); expert: (T, K).

    Source: DeepSeek-V3 eqs. 17-20, over a batch.
    """
    T, E = score.shape
    f = torch.bincount(expert.flatten(), minlength=E) * E / expert.numel()  # (E)
    P = (score / score.sum(-1, keepdim=True)).mean(0)  # (E)
    return (f * P).sum()


def _loss_inputs(rng):
    T, E, K = 7, 5, 2
    slope = torch.linspace(0.2, 1, E)
    score = torch.rand(T, E, generator=_generator(rng)) * (slope if rng.random() < 0.5 else slope.flip(0))
    if rng.random() < 0.5:
        score[:, -1] /= 1000                   # an idle last expert, which bincount forgets without minlength
    return score, score.topk(K, dim=-1).indices


def _with_gradient(function, score, expert):
    """What function returns, or words where no gradient reaches the affinities."""
    value = function(score.requires_grad_(), expert)
    return value if value is None or value is ... or getattr(value, "requires_grad", False) else "a number without a gradient"


def _detached(score, expert):
    return balance_loss(score.detach(), expert)


def _divided_late(score, expert):
    f = torch.bincount(expert.flatten(), minlength=score.shape[1]) * score.shape[1] / expert.numel()
    return (f * score.mean(0)).sum() / score.mean(0).sum()


def _softmax(score, expert):
    f = torch.bincount(expert.flatten(), minlength=score.shape[1]) * score.shape[1] / expert.numel()
    return (f * score.softmax(-1).mean(0)).sum()


def _not_normalised(score, expert):
    f = torch.bincount(expert.flatten(), minlength=score.shape[1]) * score.shape[1] / expert.numel()
    return (f * score.mean(0)).sum()


def _shares(score, expert):
    return balance_loss(score, expert) / score.shape[1]


def _times_too_many(score, expert):
    return balance_loss(score, expert) * expert.shape[1]


def _chosen_only(score, expert):
    kept = torch.zeros_like(score).scatter(1, expert, score.gather(1, expert))
    return balance_loss(kept, expert)


def _affinities_twice(score, expert):
    P = (score / score.sum(-1, keepdim=True)).mean(0)
    return (P * P).sum() * score.shape[1]


# ---- 8.4

def loss_by_sequence(score, expert, n_sequences):
    """The mean over sequences of equal length of sum_i f_i P_i, f and P taken within a sequence. score: (T, E); expert: (T, K)."""
    pairs = zip(score.chunk(n_sequences), expert.chunk(n_sequences))
    return sum(balance_loss(s, e) for s, e in pairs) / n_sequences


def _sequence_inputs(rng):
    n_sequences, T, E = rng.choice([2, 3]), rng.choice([4, 6]), 5
    score = torch.rand(n_sequences * T, E, generator=_generator(rng)) ** 3
    return score, score.topk(2, dim=-1).indices, n_sequences


def _whole_batch(score, expert, n_sequences):
    return balance_loss(score, expert)


def _sum_of_sequences(score, expert, n_sequences):
    return loss_by_sequence(score, expert, n_sequences) * n_sequences


def _parts_of_n(score, expert, n_sequences):
    pairs = list(zip(score.split(n_sequences), expert.split(n_sequences)))
    return sum(balance_loss(s, e) for s, e in pairs) / len(pairs)


def _every_other_token(score, expert, n_sequences):
    return sum(balance_loss(score[i::n_sequences], expert[i::n_sequences]) for i in range(n_sequences)) / n_sequences


# ---- 8.5

def move_bias(bias, load, rate):
    """b_i + rate * sign(mean load - load_i), a list. bias, load: lists, a number an expert. Source: DeepSeek-V3, section 2.1.2."""
    mean = sum(load) / len(load)
    return [b + rate * ((mean > n) - (mean < n)) for b, n in zip(bias, load)]


def _bias_inputs(rng):
    E = rng.choice([4, 6])
    off = [rng.randint(1, 9) for _ in range(E // 2 - 1)]
    load = [20, 20, *(20 + d for d in off), *(20 - d for d in off)]     # two experts are exactly at the mean
    if rng.random() < 0.5:
        load = [20 + 40 * E, *(rng.randint(1, 30) for _ in range(E - 1))]    # or all but one lie below it
    rng.shuffle(load)
    return [round(rng.uniform(-0.2, 0.2), 3) for _ in load], load, rng.choice([0.01, 0.02, 0.05])


def _keeping(function, bias, load, rate):
    """What function returns, or words where it changed the list that it was given."""
    before = list(bias)
    new = function(bias, load, rate)
    return new if bias == before else "a changed list: yours must be a new one"


def _in_place(bias, load, rate):
    bias[:] = move_bias(bias, load, rate)
    return bias


def _about_the_median(bias, load, rate):
    middle = statistics.median(load)
    return [b + rate * ((middle > n) - (middle < n)) for b, n in zip(bias, load)]


def _flipped(bias, load, rate):
    return [2 * b - moved for b, moved in zip(bias, move_bias(bias, load, rate))]


def _in_proportion(bias, load, rate):
    mean = sum(load) / len(load)
    return [b + rate * (mean - n) / mean for b, n in zip(bias, load)]


def _in_proportion_of_shares(bias, load, rate):
    mean = sum(load) / len(load)
    return [b + rate * (mean - n) for b, n in zip(bias, load)]


def _never_still(bias, load, rate):
    mean = sum(load) / len(load)
    return [b + (rate if n < mean else -rate) for b, n in zip(bias, load)]


def _forgets(bias, load, rate):
    return move_bias([0.0] * len(load), load, rate)


# ---- 8.6

def choose_and_weigh(score, bias, top_k):
    """The top_k experts by score + bias, best first, and their weights: scores that are made to sum to 1. For one token; lists."""
    order = sorted(range(len(score)), key=lambda e: score[e] + bias[e], reverse=True)
    chosen = order[:top_k]
    total = sum(score[e] for e in chosen)
    return chosen, [score[e] / total for e in chosen]


def _gate_inputs(rng):
    E = rng.choice([5, 7])
    score = [round(rng.uniform(0.05, 0.95), 3) for _ in range(E)]
    bias = [round(rng.uniform(-0.5, 0.5), 3) for _ in range(E)]
    return score, bias, rng.choice([2, 3])


def _bias_weighs_too(score, bias, top_k):
    return choose_and_weigh([s + b for s, b in zip(score, bias)], [0.0] * len(score), top_k)


def _bias_ignored(score, bias, top_k):
    return choose_and_weigh(score, [0.0] * len(score), top_k)


def _subtracted(score, bias, top_k):
    return choose_and_weigh(score, [-b for b in bias], top_k)


def _by_affinity(score, bias, top_k):
    chosen = sorted(choose_and_weigh(score, bias, top_k)[0], key=lambda e: -score[e])
    return chosen, [score[e] / sum(score[i] for i in chosen) for e in chosen]


def _raw_scores(score, bias, top_k):
    chosen, _ = choose_and_weigh(score, bias, top_k)
    return chosen, [score[e] for e in chosen]


def _over_all_experts(score, bias, top_k):
    chosen, _ = choose_and_weigh(score, bias, top_k)
    return chosen, [score[e] / sum(score) for e in chosen]


# ---- 8.7

def expected_nodes(n_experts, n_nodes, top_k):
    """On how many nodes the experts of a token lie in the mean, if all sets of top_k experts are equally likely. Nodes hold equally many."""
    elsewhere = n_experts - n_experts // n_nodes
    missed = math.comb(elsewhere, top_k) / math.comb(n_experts, top_k)
    return n_nodes * (1 - missed)


def _nodes_inputs(rng):
    n_nodes = rng.choice([2, 3, 4, 8])
    return n_nodes * rng.choice([4, 8, 32]), n_nodes, rng.choice([2, 4, 6])


def _with_replacement(n_experts, n_nodes, top_k):
    return n_nodes * (1 - (1 - 1 / n_nodes) ** top_k)


def _chance_of_one(n_experts, n_nodes, top_k):
    return expected_nodes(n_experts, n_nodes, top_k) / n_nodes


def _nodes_missed(n_experts, n_nodes, top_k):
    return n_nodes - expected_nodes(n_experts, n_nodes, top_k)


def _at_worst(n_experts, n_nodes, top_k):
    return min(n_nodes, top_k)


# ---- 8.8 and 8.9: tests that find a bug

CONFIG = ModelConfig(vocab_size=11, d_model=24, n_layers=1, max_seq_len=64, n_heads=3, d_head=8, d_rope=8, d_value=8, d_latent=16, n_experts=6,
                     top_k=2, n_shared=1, d_expert=8, n_dense_layers=0, mtp_depth=0)


def _made(rng, cls, *bugs):
    """A layer or gate with weights large enough that a mistake shows, and a bias; right or with one of bugs."""
    g = _generator(rng)
    part = cls(CONFIG)
    for parameter in part.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=g)
    gate = part if cls is Gate else part.gate
    gate.bias.uniform_(-0.5, 0.5, generator=g)
    bug = rng.choice([*(None for _ in bugs), *bugs])
    return plant(part, bug) if bug else part


def counts_what_it_sends(layer, h):
    """Whether the load that a layer of experts reports is the number of tokens that each expert got. h: (B, T, D)."""
    _, routing = layer(h)
    return torch.equal(routing.load, torch.bincount(routing.expert.flatten(), minlength=len(routing.load)))


def _counting_inputs(rng):
    layer = _made(rng, MoE, WishesCounted, OneSequenceCounted)
    if rng.random() < 0.5:
        layer.gate.bias[-1] = -2               # an idle last expert, which bincount forgets without minlength
    return layer, torch.randn(3, 8, CONFIG.d_model, generator=_generator(rng))


def _wishes(layer, h):
    _, routing = layer(h)
    wished = routing.score.topk(routing.expert.shape[1], dim=-1).indices
    return torch.equal(routing.load, torch.bincount(wished.flatten(), minlength=len(routing.load)))


def _forgets_idle(layer, h):
    _, routing = layer(h)
    return torch.equal(routing.load, torch.bincount(routing.expert.flatten()))


def bias_only_chooses(gate, x):
    """Whether the same number added to every bias leaves choices and weights as they were. x: (T, D); leaves gate.bias as it was."""
    before = gate(x)
    gate.bias += 0.25
    after = gate(x)
    gate.bias -= 0.25
    return torch.equal(before.expert, after.expert) and torch.allclose(before.weight, after.weight, atol=1e-5)


def _leaving(function, gate, x):
    """What function returns, or words where the gate's bias is not what it was."""
    before = gate.bias.clone()
    answer = function(gate, x)
    return answer if torch.allclose(gate.bias, before, atol=1e-6) else "a gate with another bias than before"


def _bias_left_moved(gate, x):
    answer = bias_only_chooses(gate, x)
    gate.bias += 0.25
    return answer


def _gate_test_inputs(rng):
    return _made(rng, Gate, BiasInWeight), torch.randn(9, CONFIG.d_model, generator=_generator(rng))


EXERCISES = [
    Exercise(
        solution=violation, inputs=_load_inputs,
        hint="Mean load first. Then the largest load less the mean, divided by the mean.",
        mutants=(
            Mutant(function=_times_the_mean, hint="This says how many times the mean the busiest gets. MaxVio is the excess: 0 when all are equal."),
            Mutant(function=_of_the_largest, hint="Divide by the mean load, not by the largest."),
            Mutant(function=_whole_range, hint="The idlest expert does not count: take the largest less the mean."),
            Mutant(function=_deviation, hint="This is the standard deviation over the mean. MaxVio asks for the worst expert alone."),
        )),
    Exercise(
        solution=slowdown, inputs=_device_inputs,
        hint="Add up the loads of each device. The step takes as long as the largest of these sums; with even loads it would take their mean.",
        mutants=(
            Mutant(function=_one_each, hint="This is for one expert a device. Here a device holds several: add up their loads first."),
            Mutant(function=_dealt_like_cards, hint="Neighbours share a device: the first E / n_devices experts lie on the first."),
            Mutant(function=_share_of_the_slowest, hint="This is the slowest device's share of all work. Compare it with the mean device, not with the sum."),
            Mutant(function=_violation_of_devices, hint="This is the MaxVio of the devices. A step takes MaxVio + 1 times as long."),
            Mutant(function=_over_the_fastest, hint="Compare with the mean device: that is what each would do if the work were even."),
        )),
    Watched(
        solution=balance_loss, inputs=_loss_inputs, watch=_with_gradient,
        hint="f: torch.bincount of the choices, over its mean. P: each row of score divided by its sum, then the mean over tokens.",
        mutants=(
            Mutant(function=_not_normalised, hint="P is the mean of affinities that sum to 1 for each token: divide every row of score by its sum first."),
            Mutant(function=_shares, hint="f is 1 for an expert with a mean load: divide the counts by their mean, not by their sum."),
            Mutant(function=_times_too_many, hint="A token makes K choices: the mean load is T K / E, not T / E."),
            Mutant(function=_chosen_only, hint="P takes all affinities, also those of experts that were not chosen."),
            Mutant(function=_detached, hint="A loss without a gradient moves nothing: return a tensor that comes from score, without item() or detach()."),
            Mutant(function=_divided_late, hint="Each token's affinities are divided by their own sum first; the mean over tokens comes after."),
            Mutant(function=_softmax, hint="Affinities are positive already: P divides each row by its sum. No softmax."),
            Mutant(function=_affinities_twice, hint="This is E times the sum of P squared. f counts choices, it is not an affinity."),
        )),
    Exercise(
        solution=loss_by_sequence, inputs=_sequence_inputs,
        hint="Cut score and expert into n_sequences parts (chunk), take balance_loss of each, and then the mean.",
        mutants=(
            Mutant(function=_whole_batch, hint="This is the batch's loss. Each sequence has an f and a P of its own; with the batch's f, or its P, nothing changes."),
            Mutant(function=_sum_of_sequences, hint="Take the mean over sequences, not their sum."),
            Mutant(function=_parts_of_n, hint="split(n) makes parts of n tokens. You want n parts: chunk(n_sequences)."),
            Mutant(function=_every_other_token, hint="Sequences lie one behind the other: the first T tokens are the first sequence."),
        )),
    Watched(
        solution=move_bias, inputs=_bias_inputs, watch=_keeping,
        hint="An expert below the mean load goes up by rate, one above it down by rate, one exactly at the mean stays.",
        mutants=(
            Mutant(function=_flipped, hint="The sign is flipped: an idle expert must become easier to choose, so its bias goes up."),
            Mutant(function=_in_proportion, hint="All steps are equally long: only the sign of mean - load counts."),
            Mutant(function=_never_still, hint="The sign of 0 is 0: an expert exactly at the mean stays where it is."),
            Mutant(function=_about_the_median, hint="Compare with the mean load, not with the median: of 8, 2, 1 and 1 the mean is 3."),
            Mutant(function=_in_place, hint="The list that you were given has changed. Build a new one and return it."),
            Mutant(function=_in_proportion_of_shares, hint="All steps are equally long, whatever the load: only the sign of mean - load counts."),
            Mutant(function=_forgets, hint="The step is added to the bias that there is."),
        )),
    Exercise(
        solution=choose_and_weigh, inputs=_gate_inputs,
        hint="Sort experts by score + bias and keep top_k. Then forget the bias: their scores, divided by the sum of these.",
        mutants=(
            Mutant(function=_bias_weighs_too, hint="The bias has got into the weights. It chooses and does no more."),
            Mutant(function=_bias_ignored, hint="The choice ignores the bias: sort by score + bias."),
            Mutant(function=_subtracted, hint="The bias is added to the affinity, not taken away: an idle expert has a large one."),
            Mutant(function=_by_affinity, hint="The right experts in another order: best first means by affinity plus bias."),
            Mutant(function=_raw_scores, hint="The weights of the chosen experts sum to 1."),
            Mutant(function=_over_all_experts, hint="Divide by the sum over the chosen experts, not over all."),
        )),
    Exercise(
        solution=expected_nodes, inputs=_nodes_inputs,
        hint="A node is missed if all top_k experts lie elsewhere: comb(elsewhere, top_k) of comb(n_experts, top_k) sets. Expectations add up.",
        mutants=(
            Mutant(function=_with_replacement, hint="The experts of a token are different ones: count sets with math.comb, not powers."),
            Mutant(function=_chance_of_one, hint="This is the chance that one given node is visited. There are n_nodes of them, and expectations add."),
            Mutant(function=_nodes_missed, hint="These are the nodes that are missed."),
            Mutant(function=_at_worst, hint="This is the worst case. Some of the experts share a node."),
        )),
    Exercise(
        solution=counts_what_it_sends, inputs=_counting_inputs, n_trials=12,
        hint="layer(h) returns the output and a routing. routing.expert says who got each token: count it with torch.bincount, compare with routing.load.",
        mutants=(
            Mutant(function=_wishes, hint="These are wishes: the best by affinity alone. routing.expert says who really got the token."),
            Mutant(function=_forgets_idle, hint="An idle last expert is missing in your count: give bincount minlength=len(routing.load)."),
            *wrong_tests(counts_what_it_sends, of="layer",
                         accepts_all="A layer that counts something else has as many entries, and sometimes the same sum: compare every expert's count.",
                         refuses_all="Give torch.bincount minlength=len(routing.load), and flatten routing.expert first: each token counts K times."))),
    Watched(
        solution=bias_only_chooses, inputs=_gate_test_inputs, watch=_leaving, n_trials=12,
        hint="Read x, add one number to all of gate.bias, read x again. Compare expert with torch.equal and weight with torch.allclose.",
        mutants=(
            Mutant(function=_bias_left_moved, hint="gate.bias is not as you found it: take away what you added."),
            *wrong_tests(bias_only_chooses, of="gate",
                         accepts_all="The choice stays the same with both kinds of gate. Compare the weights, too.",
                         refuses_all="Add the same number to all biases: other numbers change the choice, and may. And give allclose atol=1e-5."))),
]
