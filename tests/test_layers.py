import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from configs import odd_config
from minimodels import layers
from minimodels.layers import GroupedLinear, RMSNorm, Rope, SwiGLU, groups, rotate, yarn_frequencies, yarn_mscale

D, H, T = 23, 3, 7


def silu(x):
    return x / (1 + np.exp(-x))


def test_rmsnorm_makes_the_root_mean_square_one_and_scales():
    norm = RMSNorm(D, eps=1e-6)
    norm.weight.data.normal_()
    x = torch.randn(2, T, D)
    x64 = x.double().numpy()
    expected = x64 / np.sqrt((x64**2).mean(-1, keepdims=True) + 1e-6) * norm.weight.detach().double().numpy()
    assert_close(norm(x).double(), torch.from_numpy(expected), atol=1e-6, rtol=1e-5)


def test_rmsnorm_by_hand():
    # mean of 9 and 16 is 12.5
    assert_close(RMSNorm(2, eps=0.0)(torch.tensor([3.0, 4.0])), torch.tensor([3.0, 4.0]) / 12.5**0.5)


def test_rmsnorm_keeps_the_type_and_computes_in_float32():
    x = (torch.randn(T, D) * 1000).bfloat16()
    norm = RMSNorm(D)
    assert norm(x).dtype == torch.bfloat16
    assert_close(norm(x), norm(x.float()).bfloat16(), rtol=0, atol=0)
    # the squares of these overflow in float16
    assert_close(norm(torch.full((D,), 1000.0).half()).float(), torch.ones(D))


def turn_by_hand(x, position, frequency):
    """Every pair (x[2i], x[2i+1]) times its own 2 x 2 rotation matrix, in float64."""
    y = np.empty_like(x, dtype=np.float64)
    for i, w in enumerate(frequency):
        a = position * w
        matrix = np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
        y[2 * i:2 * i + 2] = matrix @ x[2 * i:2 * i + 2]
    return y


def test_rotate_is_a_2x2_rotation_of_every_pair():
    frequency = yarn_frequencies(6, 10_000.0, 1.0, 4096, 32.0, 1.0)
    rope = Rope(frequency, 41)
    x = torch.randn(2, T, H, 6)
    position = torch.arange(11, 11 + T)
    y = rotate(x, rope(position))
    for b, t, h in np.ndindex(2, T, H):
        expected = turn_by_hand(x[b, t, h].double().numpy(), 11 + t, [1.0, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3)])
        assert_close(y[b, t, h].double(), torch.from_numpy(expected), atol=1e-6, rtol=1e-5)


def test_the_product_of_a_query_and_a_key_depends_on_their_distance_alone():
    rope = Rope.from_config(odd_config())
    q, k = torch.randn(2, 1, 1, 1, 6)
    product = [(rotate(q, rope(torch.tensor([t]))) * rotate(k, rope(torch.tensor([t - 5])))).sum() for t in range(5, 41)]
    assert_close(torch.stack(product), product[0].expand(36), atol=1e-5, rtol=1e-5)
    assert (product[0] - (q * k).sum()).abs() > 0.01


def test_rotation_keeps_lengths_and_position_zero_stays():
    rope = Rope.from_config(odd_config())
    x = torch.randn(2, T, H, 6)
    y = rotate(x, rope(torch.arange(T)))
    assert_close(y.norm(dim=-1), x.norm(dim=-1))
    assert_close(y[:, 0], x[:, 0], atol=0, rtol=0)


def test_each_row_may_stand_at_its_own_position():
    rope = Rope.from_config(odd_config())
    x = torch.randn(2, T, H, 6)
    position = torch.stack([torch.arange(T), torch.arange(13, 13 + T)])
    together = rotate(x, rope(position))
    for b in range(2):
        assert_close(together[b], rotate(x[b:b + 1], rope(position[b]))[0], atol=0, rtol=0)


def test_the_last_position_of_v3_is_turned_as_exactly_as_the_first():
    frequency = yarn_frequencies(64, 10_000.0, 40.0, 4096, 32.0, 1.0)
    turn = torch.view_as_complex(Rope(frequency, 163_840).turn)[-1]
    assert_close(turn.real.double(), (163_839 * frequency).cos(), atol=1e-7, rtol=0)


def test_a_bf16_input_stays_bf16_and_the_table_is_not_saved():
    rope = Rope.from_config(odd_config())
    assert rotate(torch.randn(1, T, H, 6).bfloat16(), rope(torch.arange(T))).dtype == torch.bfloat16
    assert not rope.state_dict()


def test_without_yarn_pairs_turn_in_a_geometric_series():
    frequency = yarn_frequencies(6, 10_000.0, 1.0, 4096, 32.0, 1.0)
    assert_close(frequency, torch.tensor([1.0, 10_000 ** (-2 / 6), 10_000 ** (-4 / 6)], dtype=torch.float64))


def test_yarn_leaves_v3s_pairs_to_10_slows_those_from_23_and_ramps_between():
    # the pair that turns r times in 4096 tokens has index 64 ln(4096 / 2 pi r) / (2 ln 10000): r = 32 and r = 1
    assert math.floor(64 * math.log(4096 / (2 * math.pi * 32)) / (2 * math.log(10_000))) == 10
    assert math.ceil(64 * math.log(4096 / (2 * math.pi)) / (2 * math.log(10_000))) == 23
    plain = np.array([10_000 ** (-2 * i / 64) for i in range(32)])
    share_slowed = np.array([min(max((i - 10) / 13, 0), 1) for i in range(32)])
    expected = plain * (1 - share_slowed) + plain / 40 * share_slowed
    frequency = yarn_frequencies(64, 10_000.0, 40.0, 4096, 32.0, 1.0).numpy()
    np.testing.assert_allclose(frequency, expected, rtol=1e-12)
    assert (frequency[:11] == plain[:11]).all() and np.allclose(frequency[23:], plain[23:] / 40) and (np.diff(frequency) < 0).all()


@pytest.mark.parametrize("original_len", [1, 4, 4096, 10**9])
def test_yarn_never_speeds_a_pair_up_nor_slows_it_by_more_than_the_factor(original_len):
    plain = yarn_frequencies(6, 10_000.0, 1.0, original_len, 32.0, 1.0)
    ratio = plain / yarn_frequencies(6, 10_000.0, 40.0, original_len, 32.0, 1.0)
    assert (ratio >= 1 - 1e-12).all() and (ratio <= 40 + 1e-9).all()


def test_yarns_temperature_is_1_3689_for_v3():
    assert round(yarn_mscale(40.0, 1.0), 4) == 1.3689 and round(yarn_mscale(40.0, 1.0) ** 2, 3) == 1.874
    assert round(yarn_mscale(40.0, 0.707), 4) == 1.2608  # V2: 0.0707 ln s + 1
    assert yarn_mscale(1.0, 1.0) == 1.0


def test_swiglu_is_down_of_silu_gate_times_up():
    ffn = SwiGLU(D, 31)
    x = torch.randn(2, T, D)
    w = ffn.w_gate_up.weight.detach().double().numpy()
    x64 = x.double().numpy()
    expected = (silu(x64 @ w[:31].T) * (x64 @ w[31:].T)) @ ffn.w_down.weight.detach().double().numpy().T
    assert_close(ffn(x).double(), torch.from_numpy(expected), atol=1e-5, rtol=1e-5)


def test_groups_are_the_slices_of_experts_that_have_rows():
    assert list(groups([2, 0, 3, 0])) == [(0, slice(0, 2)), (2, slice(2, 5))]
    assert list(groups([0, 0])) == []


COUNTS = [[3, 0, 5, 1, 2], [0, 0, 0, 0, 11], [11, 0, 0, 0, 0], [0, 0, 0, 0, 0]]


def per_expert(x, weight, counts):
    return torch.cat([F.linear(rows, w) for rows, w in zip(x.split(counts), weight)])


@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_grouped_linear_is_one_linear_layer_an_expert_forward_and_backward(counts):
    layer = GroupedLinear(5, D, 17)
    x = torch.randn(sum(counts), D, requires_grad=True)
    dy = torch.randn(sum(counts), 17)
    y, expected = layer(x, counts), per_expert(x, layer.weight, counts)
    assert_close(y, expected)
    for got, want in zip(torch.autograd.grad(y, (x, layer.weight), dy), torch.autograd.grad(expected, (x, layer.weight), dy)):
        assert_close(got, want)


@pytest.mark.parametrize("form", [layers._GroupedProduct.apply, layers._grouped_mm], ids=["group_by_group", "one_kernel"])
def test_both_forms_of_the_product_accept_the_gradient_of_a_sum_whose_strides_are_zero(form):
    x, weight = torch.randn(11, 24, requires_grad=True), torch.randn(5, 16, 24, requires_grad=True)
    y, expected = form(x, weight, COUNTS[0]), per_expert(x, weight, COUNTS[0])
    assert_close(y, expected, atol=1e-5, rtol=1e-5)
    for got, want in zip(torch.autograd.grad(y.sum(), (x, weight)), torch.autograd.grad(expected.sum(), (x, weight))):
        assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_grouped_linears_gradient_is_that_of_finite_differences():
    layer, x = GroupedLinear(3, 5, 2).double(), torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: torch.func.functional_call(layer, {"weight": w}, (x, [4, 0, 3])), (x, layer.weight))


def test_an_expert_without_rows_has_a_zero_gradient():
    layer = GroupedLinear(5, D, 17)
    layer(torch.randn(11, D), [3, 0, 5, 1, 2]).square().sum().backward()
    assert layer.weight.grad[1].eq(0).all() and all(layer.weight.grad[e].ne(0).any() for e in (0, 2, 3, 4))


def test_grouped_linear_multiplies_in_bf16_under_autocast_and_keeps_its_gradient_in_float32():
    layer, counts = GroupedLinear(5, D, 17), COUNTS[0]
    x = torch.randn(11, D)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x, counts)
    y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16 and layer.weight.grad.dtype == torch.float32
    assert_close(y.float(), per_expert(x, layer.weight, counts), atol=0.02, rtol=0.02)


def test_counts_that_leave_rows_out_are_an_error():
    with pytest.raises(AssertionError, match="counts must sum to 11 rows, got 10"):
        GroupedLinear(5, D, 17)(torch.randn(11, D), [3, 0, 5, 1, 1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_grouped_linear_on_a_gpu_is_the_one_on_the_processor():
    layer, counts = GroupedLinear(5, 48, 64), [16, 0, 48, 7, 1]  # rows and columns of 16 bytes, as the hardware wants
    x = torch.randn(72, 48)
    got = []
    for device in ("cpu", "cuda"):
        moved = GroupedLinear(5, 48, 64).to(device, torch.bfloat16)
        moved.load_state_dict(layer.state_dict())
        rows = x.to(device, torch.bfloat16).requires_grad_()
        y = moved(rows, counts)
        y.sum().backward()
        got.append([t.float().cpu() for t in (y, rows.grad, moved.weight.grad)])
    for cpu, gpu in zip(*got):
        assert_close(gpu, cpu, atol=0.05, rtol=0.05)
