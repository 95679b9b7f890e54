import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from configs import odd_config
from minimodels import moe
from minimodels.layers import SwiGLU
from minimodels.moe import Experts, Gate, MoE, Routing, dispatch_few, dispatch_loop, dispatch_sorted

D, E, K, DE = 23, 13, 4, 29


def gate_of(bias_std=0.0, **changes):
    gate = Gate(odd_config(**changes))
    gate.bias.normal_(std=bias_std)
    return gate


def moe_of(**changes):
    layer = MoE(odd_config(**changes))
    for p in layer.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return layer


def affinities(gate, x):
    logit = x.double().numpy() @ gate.weight.detach().double().numpy().T
    if gate.config.gate == "sigmoid":
        return 1 / (1 + np.exp(-logit))
    e = np.exp(logit - logit.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def choose_by_hand(biased, n_groups, top_groups, top_k, n_best):
    """One token: open the best groups, then take the best experts among theirs."""
    size = len(biased) // n_groups
    of_group = [range(g * size, (g + 1) * size) for g in range(n_groups)]
    value = [sum(sorted((biased[e] for e in members), reverse=True)[:n_best]) for members in of_group]
    best_groups = sorted(range(n_groups), key=lambda g: -value[g])[:top_groups]
    open_experts = [e for g in best_groups for e in of_group[g]]
    return set(sorted(open_experts, key=lambda e: -biased[e])[:top_k])


@pytest.mark.parametrize("changes", [
    dict(),
    dict(gate="softmax"),
    dict(gate="softmax", normalise_weights=False),
    dict(n_experts=12, n_groups=4, top_groups=2),
    dict(n_experts=12, n_groups=3, top_groups=2, gate="softmax"),
    dict(n_experts=12, n_groups=3, top_groups=3),
    dict(top_k=1), dict(top_k=13),
], ids=str)
def test_experts_are_chosen_by_score_plus_bias_and_weighed_by_score_alone(changes):
    gate, x = gate_of(bias_std=0.3, **changes), torch.randn(37, D)
    config, score = gate.config, affinities(gate, x)
    routing = gate(x)
    assert_close(routing.score.double(), torch.from_numpy(score), atol=1e-6, rtol=1e-5)
    for t in range(37):
        chosen = routing.expert[t].tolist()
        n_best = 2 if config.gate == "sigmoid" else 1
        biased = score[t] + gate.bias.double().numpy()
        assert set(chosen) == choose_by_hand(biased, config.n_groups, config.top_groups, config.top_k, n_best)
        share = score[t][chosen] / (score[t][chosen].sum() if config.normalise_weights else 1)
        assert_close(routing.weight[t].double(), torch.from_numpy(1.7 * share), atol=1e-6, rtol=1e-5)


def test_a_biased_choice_by_hand():
    gate = gate_of(n_experts=3, top_k=1, d_model=1)
    gate.weight.data = torch.tensor([[0.0], [1.0], [-1.0]])
    gate.bias.copy_(torch.tensor([0.0, -1.0, 0.1]))
    routing = gate(torch.tensor([[0.0], [9.0]]))
    # at x = 0 every score is 0.5, and the bias decides; at x = 9 scores are .5, .9999, .0001, and expert 1 loses by its bias
    assert routing.expert.tolist() == [[2], [0]]
    assert_close(routing.weight, torch.full((2, 1), 1.7))  # a single choice, normalised, whatever its score


@pytest.mark.parametrize("normalise, total", [(True, 1.7), (False, None)])
def test_weights_sum_to_the_scale_if_they_are_normalised(normalise, total):
    routing = gate_of(normalise_weights=normalise)(torch.randn(37, D))
    expected = torch.full((37,), total) if normalise else 1.7 * routing.score.gather(1, routing.expert).sum(1)
    assert_close(routing.weight.sum(1), expected)


def test_sigmoid_scores_are_independent_and_softmax_scores_share_one():
    x = torch.randn(37, D)
    sigmoid, softmax = gate_of(), gate_of(gate="softmax")
    before = sigmoid(x).score
    sigmoid.weight.data[0] += 1
    assert_close(sigmoid(x).score[:, 1:], before[:, 1:], atol=0, rtol=0)
    assert_close(softmax(x).score.sum(1), torch.ones(37))


def test_a_token_stays_within_its_groups():
    gate = gate_of(bias_std=0.3, n_experts=12, n_groups=4, top_groups=2)
    group = gate(torch.randn(101, D)).expert // 3
    assert max(len(set(row)) for row in group.tolist()) == 2
    free = gate_of(bias_std=0.3, n_experts=12)
    assert max(len(set(row)) for row in (free(torch.randn(101, D)).expert // 3).tolist()) > 2


def test_v3_rates_a_group_by_its_two_best_and_v2_by_its_best():
    biased = torch.tensor([[0.9, 0.1, 0.6, 0.5]])  # groups {0, 1} and {2, 3}
    common = dict(n_experts=4, n_groups=2, top_groups=1, top_k=1)
    assert gate_of(**common).choose(biased).item() == 2  # 0.6 + 0.5 > 0.9 + 0.1
    assert gate_of(gate="softmax", **common).choose(biased).item() == 0  # 0.9 > 0.6


def test_closed_groups_stay_closed_when_every_biased_score_is_negative():
    gate = gate_of(n_experts=12, n_groups=4, top_groups=2)
    biased = torch.rand(37, 12) - 5
    for row, chosen in zip(biased.tolist(), gate.choose(biased).tolist()):
        assert set(chosen) == choose_by_hand(row, 4, 2, 4, 2)


def test_the_load_counts_the_tokens_of_each_expert():
    routing = gate_of()(torch.randn(37, D))
    count = [sum(e in row for row in routing.expert.tolist()) for e in range(E)]
    assert routing.load.tolist() == count and sum(count) == 37 * K


def test_no_gradient_reaches_the_bias_and_one_reaches_every_gate_weight():
    layer = moe_of()
    layer(torch.randn(5, 37, D))[0].square().sum().backward()
    assert not layer.gate.bias.requires_grad and "bias" not in dict(layer.gate.named_parameters())
    assert "bias" in layer.gate.state_dict()  # saved all the same
    assert layer.gate.weight.grad.ne(0).any(-1).all()


def test_the_gate_stays_in_float32_under_autocast():
    gate, x = gate_of(), torch.randn(37, D)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = gate(x)
    assert low.score.dtype == torch.float32
    assert_close(low.score, gate(x).score, atol=0, rtol=0)


def random_routing(T, E, K, live=None):
    """K different experts a token, out of the first `live` ones; weights that sum to anything."""
    expert = torch.stack([torch.randperm(live or E)[:K] for _ in range(T)])
    return Routing(torch.rand(T, E), expert, torch.rand(T, K), torch.bincount(expert.flatten(), minlength=E))


def sum_by_hand(x, routing, experts):
    """Eq. 12's routed sum, one token and one choice at a time, in float64."""
    y = np.zeros((len(x), D))
    w_gate_up, w_down = (w.weight.detach().double().numpy() for w in (experts.w_gate_up, experts.w_down))
    for t, (chosen, weights) in enumerate(zip(routing.expert.tolist(), routing.weight.tolist())):
        for e, g in zip(chosen, weights):
            gate, up = np.split(w_gate_up[e] @ x[t].double().numpy(), 2)
            y[t] += g * (w_down[e] @ (gate / (1 + np.exp(-gate)) * up))
    return torch.from_numpy(y)


FORMS = [dispatch_loop, dispatch_sorted, dispatch_few]
CASES = {  # T, K, live experts; rows are padded from T * K >= 32 * E = 416
    "few_tokens": (7, K, None),
    "padded": (127, K, None),
    "one_choice": (37, 1, None),
    "one_choice_padded": (431, 1, None),
    "all_experts": (17, E, None),
    "all_experts_padded": (37, E, None),
    "experts_without_tokens": (17, K, 5),
    "experts_without_tokens_padded": (127, K, 5),
    "one_token": (1, K, None),
    "every_count_a_multiple": (416, K, 4),
}


@pytest.mark.parametrize("case", CASES)
def test_every_dispatch_is_the_sum_by_hand(case):
    T, K, live = CASES[case]
    experts, x, routing = moe_of().experts, torch.randn(T, D), random_routing(T, E, K, live)
    for dispatch in FORMS:
        assert_close(dispatch(x, routing, experts).double(), sum_by_hand(x, routing, experts), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("of_sum", [False, True], ids=["random_gradient", "gradient_with_stride_0"])
@pytest.mark.parametrize("case", CASES)
def test_every_dispatch_has_the_gradients_of_the_loop(case, of_sum):
    T, K, live = CASES[case]
    experts, routing, dy = moe_of().experts, random_routing(T, E, K, live), torch.randn(T, D)
    x = torch.randn(T, D, requires_grad=True)
    routing.weight.requires_grad_()
    inputs = [x, routing.weight, *experts.parameters()]
    gradients = []
    for dispatch in FORMS:
        y = dispatch(x, routing, experts)
        gradients.append(torch.autograd.grad(y.sum() if of_sum else (y * dy).sum(), inputs))
    for loop, *others in zip(*gradients):
        for fast in others:
            assert_close(fast, loop, atol=2e-4, rtol=1e-4)


def test_padding_rounds_every_busy_expert_up_to_a_multiple_and_leaves_idle_ones_empty():
    experts, routing, seen = moe_of().experts, random_routing(127, E, K, 5), []
    grouped = experts.grouped
    experts.grouped = lambda x, counts, weight: seen.append(counts) or grouped(x, counts, weight)
    dispatch_sorted(torch.randn(127, D), routing, experts)
    load = routing.load.tolist()
    assert seen == [[next(m for m in range(0, 999, 32) if m >= n) for n in load]] and seen[0][5:] == [0] * 8


@pytest.mark.parametrize("case", ["few_tokens", "padded", "experts_without_tokens_padded"])
@pytest.mark.parametrize("dispatch", FORMS)
def test_under_bf16_autocast_every_dispatch_is_the_sum_to_bf16s_precision(case, dispatch):
    T, K, live = CASES[case]
    experts, routing = moe_of().experts, random_routing(T, E, K, live)
    x = torch.randn(T, D)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = dispatch(x, routing, experts)
    y.float().square().sum().backward()
    expected = sum_by_hand(x, routing, experts)
    assert (y.double() - expected).norm() < 0.01 * expected.norm()
    assert experts.w_down.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("T", [7, 127])
def test_a_bf16_model_dispatches_alike_in_all_forms(T):
    experts, x, routing = moe_of().experts.bfloat16(), torch.randn(T, D).bfloat16(), random_routing(T, E, K)
    loop, *fast = (dispatch(x, routing, experts) for dispatch in FORMS)
    for y in fast:
        assert loop.dtype == y.dtype == torch.bfloat16
        assert (loop - y).float().norm() < 0.01 * loop.float().norm()


def test_one_expert_is_a_swiglu():
    experts, x = moe_of().experts, torch.randn(37, D)
    for e in (0, 12):
        ffn = SwiGLU(D, DE)
        ffn.w_gate_up.weight.data, ffn.w_down.weight.data = experts.w_gate_up.weight.data[e], experts.w_down.weight.data[e]
        assert_close(experts.one(x, e), ffn(x))


def dense_of(layer, config):
    """One SwiGLU as wide as all experts together, routed and shared, made of their weights."""
    gate, up = (w.flatten(0, 1) for w in layer.experts.w_gate_up.weight.data.chunk(2, dim=1))
    shared_gate, shared_up = layer.shared.w_gate_up.weight.data.chunk(2)
    dense = SwiGLU(D, (config.n_experts + config.n_shared) * DE)
    dense.w_gate_up.weight.data = torch.cat([gate, shared_gate, up, shared_up])
    dense.w_down.weight.data = torch.cat([*layer.experts.w_down.weight.data, layer.shared.w_down.weight.data], dim=1)
    return dense


@pytest.mark.parametrize("dispatch", FORMS)
def test_with_all_experts_on_and_weighed_alike_the_layer_is_one_dense_swiglu(dispatch):
    config = odd_config(top_k=E, routed_scale=float(E))  # equal weights of 1/13, times 13
    layer = moe_of(top_k=E, routed_scale=float(E))
    layer.dispatch = dispatch
    layer.gate.weight.data.zero_()
    h = torch.randn(2, 37, D)
    y, routing = layer(h)
    assert_close(routing.weight, torch.ones(74, E))
    assert_close(y, dense_of(layer, config)(h), atol=1e-3, rtol=1e-4)


def test_the_shared_experts_are_added_whatever_the_gate_says():
    layer, h = moe_of(), torch.randn(2, 7, D)
    y, routing = layer(h)
    x = h.reshape(14, D)
    wide = layer.shared.w_gate_up.weight
    expected = sum_by_hand(x, routing, layer.experts).float()
    for i in range(2):  # n_shared = 2 separate experts
        part = slice(i * DE, (i + 1) * DE)
        gate, up = x @ wide[:2 * DE][part].T, x @ wide[2 * DE:][part].T
        expected = expected + (F.silu(gate) * up) @ layer.shared.w_down.weight[:, part].T
    assert_close(y.reshape(14, D), expected, atol=1e-4, rtol=1e-4)


def test_a_layer_may_have_no_shared_expert():
    layer, h = moe_of(n_shared=0), torch.randn(2, 7, D)
    y, routing = layer(h)
    assert layer.shared is None
    assert_close(y.reshape(14, D).double(), sum_by_hand(h.reshape(14, D), routing, layer.experts), atol=1e-4, rtol=1e-4)


def test_tokens_do_not_see_each_other():
    layer, h = moe_of(), torch.randn(3, 47, D)
    together, _ = layer(h)
    order = torch.randperm(3 * 47)
    shuffled, _ = layer(h.flatten(0, 1)[order][None])
    assert_close(shuffled[0], together.flatten(0, 1)[order], atol=1e-4, rtol=1e-4)


def test_fine_experts_have_the_parameters_of_coarse_ones_and_more_ways_to_combine():
    coarse = odd_config(n_experts=8, top_k=2, d_expert=28)
    fine = replace(coarse, n_experts=32, top_k=8, d_expert=7)
    assert sum(p.numel() for p in Experts(coarse).parameters()) == sum(p.numel() for p in Experts(fine).parameters()) == 8 * 3 * D * 28
    # DeepSeekMoE, section 3.1: 16 choose 2, and 64 choose 8
    assert math.comb(16, 2) == 120 and math.comb(64, 8) == 4_426_165_368


@pytest.mark.parametrize("limit, most", [(2**16, 4 * E // K), (0, E // (2 * K))])
def test_the_fast_form_sorts_unless_rows_are_few_for_the_experts_and_their_size(limit, most, monkeypatch):
    layer, taken = moe_of(), []
    monkeypatch.setattr(moe, "SMALL_MATRIX", limit)
    for form in ("few", "sorted"):
        monkeypatch.setattr(moe, f"dispatch_{form}", lambda x, routing, experts, form=form: taken.append(form) or x)
    for T in (1, most, most + 1):
        moe.dispatch_fast(torch.randn(T, D), random_routing(T, E, K), layer.experts)
    assert taken == ["few", "few", "sorted"]


def test_the_fast_form_is_the_one_that_a_layer_starts_with():
    assert MoE(odd_config()).dispatch is moe.dispatch_fast
    assert isinstance(MoE(odd_config()).experts, Experts)
