import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from configs import odd_config
from minimodels.layers import RMSNorm, Rope, SwiGLU, rotate, yarn_frequencies, yarn_mscale

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
    cos, sin = Rope(frequency, 163_840).turn[:, -1].double()
    assert_close(cos[::2], (163_839 * frequency).cos(), atol=1e-7, rtol=0)
    assert_close(sin[1::2], (163_839 * frequency).sin(), atol=1e-7, rtol=0)


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
