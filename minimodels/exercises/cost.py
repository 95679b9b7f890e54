"""Exercises of chapter 01."""

import math

import torch

from minimodels import cost
from minimodels.bugs import plant
from minimodels.bugs.cost import EveryExpert
from minimodels.config import ModelConfig
from minimodels.exercises import Exercise, Mutant, wrong_tests
from minimodels.moe import MoE

# ---- 1.1

def expert_weights(d_model, d_expert):
    """Parameters of one expert: two matrices up, from d_model to d_expert numbers, and one down."""
    return 3 * d_model * d_expert


def _expert_inputs(rng):
    d_expert = rng.randint(8, 4096)
    return d_expert + rng.randint(1, 4096), d_expert


def _two_matrices(d_model, d_expert):
    return 2 * d_model * d_expert


def _square_matrices(d_model, d_expert):
    return 3 * d_model * d_model


def _sizes_added(d_model, d_expert):
    return 3 * (d_model + d_expert)


# ---- 1.2

def count_both(n_layers, n_experts, top_k, n_shared, per_expert, rest):
    """(all parameters, those that work on one token) of a model with n_layers layers of experts, and rest parameters elsewhere."""
    return tuple(n_layers * (n + n_shared) * per_expert + rest for n in (n_experts, top_k))


def _both_inputs(rng):
    n_experts = rng.randint(16, 256)
    return rng.randint(2, 60), n_experts, rng.randint(2, 8), rng.randint(1, 3), rng.randint(100, 9000), rng.randint(10_000, 99_999)


def _idle_shared(n_layers, n_experts, top_k, n_shared, per_expert, rest):
    total, active = count_both(n_layers, n_experts, top_k, n_shared, per_expert, rest)
    return total, active - n_layers * n_shared * per_expert


def _one_layer(n_layers, n_experts, top_k, n_shared, per_expert, rest):
    return count_both(1, n_experts, top_k, n_shared, per_expert, rest)


def _rest_rests(n_layers, n_experts, top_k, n_shared, per_expert, rest):
    total, active = count_both(n_layers, n_experts, top_k, n_shared, per_expert, rest)
    return total, active - rest


def _swapped(n_layers, n_experts, top_k, n_shared, per_expert, rest):
    return count_both(n_layers, n_experts, top_k, n_shared, per_expert, rest)[::-1]


def _share_of_all(n_layers, n_experts, top_k, n_shared, per_expert, rest):
    total, _ = count_both(n_layers, n_experts, top_k, n_shared, per_expert, rest)
    return total, total * top_k / n_experts


def _without_rest(n_layers, n_experts, top_k, n_shared, per_expert, rest):
    return count_both(n_layers, n_experts, top_k, n_shared, per_expert, 0)


# ---- 1.3

def product_flops(m, k, n):
    """FLOPs of the product of an (m, k) and a (k, n) matrix, forward, and of the two products of its gradients, backward."""
    return 2 * m * k * n, 4 * m * k * n


def _product_inputs(rng):
    return rng.randint(2, 99), rng.randint(2, 99), rng.randint(2, 99)


def _half(m, k, n):
    return m * k * n, 2 * m * k * n


def _back_like_forward(m, k, n):
    return 2 * m * k * n, 2 * m * k * n


def _with_forward(m, k, n):
    return 2 * m * k * n, 6 * m * k * n


# ---- 1.4

def touched(n_experts, top_k, n_tokens):
    """How many experts of a layer at least one of n_tokens tokens uses, on average, if each token draws top_k different ones."""
    return n_experts * (1 - (1 - top_k / n_experts) ** n_tokens)


def _touched_inputs(rng):
    return rng.randint(8, 256), rng.randint(2, 7), rng.randint(2, 40)


def _no_overlap(n_experts, top_k, n_tokens):
    return min(n_experts, top_k * n_tokens)


def _untouched(n_experts, top_k, n_tokens):
    return n_experts * (1 - top_k / n_experts) ** n_tokens


def _as_a_share(n_experts, top_k, n_tokens):
    return touched(n_experts, top_k, n_tokens) / n_experts


def _drawn_again(n_experts, top_k, n_tokens):
    return n_experts * (1 - (1 - 1 / n_experts) ** (top_k * n_tokens))


def _one_expert_a_token(n_experts, top_k, n_tokens):
    return n_experts * (1 - (1 - 1 / n_experts) ** n_tokens)


# ---- 1.5

def share_of_peak(gflop_per_token, tokens, gpu_hours, peak_tflops):
    """The share of its peak that a GPU reached on average: FLOPs done, over FLOPs that could have been done in the hours."""
    return gflop_per_token * 1e9 * tokens / (gpu_hours * 3600 * peak_tflops * 1e12)


def _peak_inputs(rng):
    tokens, peak, share = rng.uniform(1, 20) * 1e12, rng.choice([125.0, 312.0, 989.0]), rng.uniform(0.15, 0.6)
    gflop = rng.uniform(20, 900)
    return gflop, tokens, gflop * 1e9 * tokens / (share * peak * 1e12 * 3600), peak


def _hours_for_seconds(gflop_per_token, tokens, gpu_hours, peak_tflops):
    return 3600 * share_of_peak(gflop_per_token, tokens, gpu_hours, peak_tflops)


def _upside_down(gflop_per_token, tokens, gpu_hours, peak_tflops):
    return 1 / share_of_peak(gflop_per_token, tokens, gpu_hours, peak_tflops)


def _giga_for_tera(gflop_per_token, tokens, gpu_hours, peak_tflops):
    return share_of_peak(gflop_per_token, tokens, gpu_hours, peak_tflops) / 1000


def _in_percent(gflop_per_token, tokens, gpu_hours, peak_tflops):
    return 100 * share_of_peak(gflop_per_token, tokens, gpu_hours, peak_tflops)


# ---- 1.6

def rent(stages, price):
    """(GPU-hours, dollars) of stages, each (nodes, GPUs in a node, hours), at price dollars a GPU-hour."""
    hours = sum(nodes * gpus * each for nodes, gpus, each in stages)
    return hours, hours * price


def _rent_inputs(rng):
    stages = [(rng.randint(2, 64), rng.choice([4, 8]), rng.randint(20, 400)) for _ in range(rng.randint(2, 4))]
    return stages, rng.choice([1.5, 2.5, 3.0])


def _nodes_for_gpus(stages, price):
    return rent([(nodes, 1, hours) for nodes, _, hours in stages], price)


def _first_stage(stages, price):
    return rent(stages[:1], price)


def _hours_of_the_clock(stages, price):
    hours = sum(each for _, _, each in stages)
    return hours, hours * price


# ---- 1.7

def as_petaflop_days(n_active, n_tokens):
    """Training by the rule of six, in petaflop/s-days: 10^15 operations a second for a day."""
    return 6 * n_active * n_tokens / (1e15 * 86_400)


def _days_inputs(rng):
    return rng.uniform(1, 400) * 1e9, rng.uniform(0.3, 15) * 1e12


def _forward_alone(n_active, n_tokens):
    return as_petaflop_days(n_active, n_tokens) / 3


def _petaflop_s_hours(n_active, n_tokens):
    return 24 * as_petaflop_days(n_active, n_tokens)


def _petaflops(n_active, n_tokens):
    return 86_400 * as_petaflop_days(n_active, n_tokens)


# ---- 1.8

def shares_of_saving(factors):
    """What part of a saving each of several factors explains, so that the parts add up to 1 in any order. factors: {name: old / new}."""
    whole = math.log(math.prod(factors.values()))
    return {name: math.log(factor) / whole for name, factor in factors.items()}


def _saving_inputs(rng):
    return ({name: rng.uniform(1.2, 9) for name in ("arithmetic", "hardware", "scope")},)


def _shares_of_the_sum(factors):
    return {name: factor / sum(factors.values()) for name, factor in factors.items()}


def _savings_side_by_side(factors):
    return {name: 1 - 1 / factor for name, factor in factors.items()}


def _one_after_another(factors):
    shares, left = {}, 1.0
    for name, factor in factors.items():
        shares[name] = left * (1 - 1 / factor)
        left /= factor
    return {name: share / (1 - left) for name, share in shares.items()}


def _logarithms(factors):
    return {name: math.log(factor) for name, factor in factors.items()}


# ---- 1.9: a test that finds waste

CONFIG = ModelConfig(vocab_size=11, d_model=24, n_layers=1, n_dense_layers=0, attention="mha", n_heads=2, d_head=8, d_value=8, n_experts=8,
                     top_k=2, d_expert=16, mtp_depth=0)


def costs_no_more(layer, h, needed):
    """Whether running layer(h) takes at most `needed` FLOPs, by torch's own counter."""
    with cost.counter() as count:
        layer(h)
    return count.get_total_flops() <= needed


def _waste_inputs(rng):
    layer, h = MoE(CONFIG), torch.randn(2, 3, CONFIG.d_model, generator=torch.Generator().manual_seed(rng.randrange(2**31)))
    flops = cost.forward_flops(CONFIG, seq_len=h.shape[1], batch_size=len(h))
    needed = sum(flops[part] for part in ("experts", "shared", "gate"))
    return plant(layer, EveryExpert) if rng.random() < 0.5 else layer, h, needed


EXERCISES = [
    Exercise(
        solution=expert_weights, inputs=_expert_inputs,
        hint="A matrix from D numbers to D_f has D x D_f weights. How many such matrices has an expert, and are they all as large?",
        mutants=(
            Mutant(function=_two_matrices, hint="An expert has three matrices: two go up, side by side, and one comes down."),
            Mutant(function=_square_matrices, hint="Each matrix has d_model on one side and d_expert on the other."),
            Mutant(function=_sizes_added, hint="A matrix of D by D_f holds D times D_f numbers, not D plus D_f."),
        )),
    Exercise(
        solution=count_both, inputs=_both_inputs,
        hint="Return two numbers of one form: layers x experts x per_expert + rest. Which experts count in each?",
        mutants=(
            Mutant(function=_idle_shared, hint="A shared expert works on every token, so it is active."),
            Mutant(function=_one_layer, hint="Every one of the n_layers layers has its own experts."),
            Mutant(function=_share_of_all, hint="Only routed experts rest. What stands in `rest` works on every token."),
            Mutant(function=_rest_rests, hint="The rest works on every token too, so it stands in both numbers."),
            Mutant(function=_swapped, hint="The other way round: first all parameters, then those at work."),
            Mutant(function=_without_rest, hint="Embedding, attention and the other parts are missing: add rest to both."),
        )),
    Exercise(
        solution=product_flops, inputs=_product_inputs,
        hint="Return two numbers. The result has m x n numbers, each a sum of k products; backward there are two products of the same three sizes.",
        mutants=(
            Mutant(function=_half, hint="A multiplication and its addition are two operations."),
            Mutant(function=_back_like_forward, hint="Backward there are two gradients, one for each of the matrices, and each is a product."),
            Mutant(function=_with_forward, hint="The second number is that of the backward pass alone."),
        )),
    Exercise(
        solution=touched, inputs=_touched_inputs,
        hint="How likely is it that one token leaves a given expert alone? And that all of them do?",
        mutants=(
            Mutant(function=_no_overlap, hint="Two tokens may choose the same expert, and then it counts once."),
            Mutant(function=_untouched, hint="These are the experts that no token uses. The others were asked."),
            Mutant(function=_as_a_share, hint="This is the share of the experts. Their number was asked."),
            Mutant(function=_drawn_again, hint="A token draws top_k different experts, so it cannot meet one of them twice."),
            Mutant(function=_one_expert_a_token, hint="A token chooses top_k experts, so it leaves a given one alone with probability 1 - top_k / n_experts."),
        )),
    Exercise(
        solution=share_of_peak, inputs=_peak_inputs,
        hint="Above: FLOPs of the whole run. Below: seconds times FLOPs that a GPU could do in a second. Giga is 10^9, tera 10^12.",
        mutants=(
            Mutant(function=_hours_for_seconds, hint="The peak is per second, and the time is in hours."),
            Mutant(function=_upside_down, hint="It is upside down: what was done, over what could have been done."),
            Mutant(function=_giga_for_tera, hint="It is a thousand times too small: giga above is 10^9, tera below is 10^12."),
            Mutant(function=_in_percent, hint="A share lies between 0 and 1: leave out the 100."),
        )),
    Exercise(
        solution=rent, inputs=_rent_inputs,
        hint="Return two numbers. Each stage has nodes x GPUs in a node x hours. Add the stages up, then multiply with the price.",
        mutants=(
            Mutant(function=_nodes_for_gpus, hint="A node holds several GPUs, and each of them is rented."),
            Mutant(function=_first_stage, hint="There is more than one stage: add them all."),
            Mutant(function=_hours_of_the_clock, hint="These are hours on the clock. All GPUs of a stage run during them."),
        )),
    Exercise(
        solution=as_petaflop_days, inputs=_days_inputs,
        hint="FLOPs by the rule of six, over those of a machine that does 10^15 in a second and runs for a day.",
        mutants=(
            Mutant(function=_forward_alone, hint="Two operations are the forward pass. Backward takes four more."),
            Mutant(function=_petaflop_s_hours, hint="A day has 86,400 seconds; 3,600 are an hour."),
            Mutant(function=_petaflops, hint="These are petaFLOPs. A petaflop/s-day holds as many of them as a day has seconds."),
        )),
    Exercise(
        solution=shares_of_saving, inputs=_saving_inputs,
        hint="Return a dictionary. Factors multiply, and parts shall add: which function turns a product into a sum?",
        mutants=(
            Mutant(function=_shares_of_the_sum, hint="Factors multiply: three factors of 2 save eight times, not six. Take logarithms before you divide."),
            Mutant(function=_savings_side_by_side, hint="These are savings as if each factor were the only one. They do not add up to 1."),
            Mutant(function=_one_after_another, hint="This depends on the order of the factors: the first gets most. Logarithms have no order."),
            Mutant(function=_logarithms, hint="The logarithms are right. Divide each by their sum."),
        )),
    Exercise(
        solution=costs_no_more, inputs=_waste_inputs, n_trials=12,
        hint="Run the layer inside `with cost.counter() as count:`, then compare count.get_total_flops() with needed.",
        mutants=wrong_tests(costs_no_more, of="layer", accepts_all="Is the layer run inside the `with`, and its count read after it?",
                            refuses_all="The right one takes exactly `needed`: at most is <=.")),
]
