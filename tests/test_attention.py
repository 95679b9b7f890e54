from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from configs import odd_config
from minimodels.attention import Cache, GroupedAttention, LayerCache, Place, may_attend
from minimodels.config import ModelConfig
from minimodels.layers import Rope

B, T, D = 2, 7, 23
CLASSICAL = ["mha", "gqa", "mqa"]


def picture(mask):
    return "\n".join("".join("01"[bool(x)] for x in row) for row in mask)


def attention_of(config, **changes):
    module = GroupedAttention(replace(config, **changes))
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return module


def test_a_query_sees_itself_and_what_came_before():
    assert picture(may_attend(torch.arange(5), 5)) == "10000\n11000\n11100\n11110\n11111"


def test_behind_a_cache_of_three_two_queries_see_three_more():
    assert picture(may_attend(torch.tensor([3, 4]), 5)) == "11110\n11111"


def test_rows_of_different_length_have_a_mask_each():
    mask = may_attend(torch.tensor([[0, 1], [2, 3]]), 4)
    assert mask.shape == (2, 1, 2, 4)  # one for all heads
    assert picture(mask[0, 0]) == "1000\n1100" and picture(mask[1, 0]) == "1110\n1111"


def test_without_a_cache_the_place_is_causal_and_from_zero():
    rope = Rope.from_config(odd_config())
    place = Place.of(rope, T, "cpu")
    assert place.is_causal and place.mask is None and place.lengths is None
    assert_close(place.turn, rope(torch.arange(T)))


def test_behind_an_even_cache_one_token_needs_no_mask_and_several_do():
    rope = Rope.from_config(odd_config())
    one, several = (Place.of(rope, n, "cpu", [3, 3]) for n in (1, 2))
    assert one.mask is None and not one.is_causal and not several.is_causal
    assert picture(several.mask) == "11110\n11111"
    assert_close(several.turn, rope(torch.tensor([3, 4])))


def test_behind_a_ragged_cache_every_row_goes_on_from_its_own_end():
    rope = Rope.from_config(odd_config())
    place = Place.of(rope, 1, "cpu", [1, 3])
    assert picture(place.mask[:, 0, 0]) == "1100\n1111"
    assert_close(place.turn, rope(torch.tensor([[1], [3]])))
    assert place.lengths == [1, 3]


def test_append_writes_behind_each_rows_own_length():
    layer = LayerCache(x=torch.zeros(2, 6, 1))
    new = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
    seen, = layer.append([0, 3], x=new)
    assert seen[..., 0].tolist() == [[1, 2, 0, 0, 0], [0, 0, 0, 3, 4]]
    seen, = layer.append([2, 2], x=new)
    assert seen[..., 0].tolist() == [[1, 2, 1, 2], [0, 0, 3, 4]]


def test_a_full_cache_says_how_long_it_would_have_to_be():
    layer = LayerCache(x=torch.zeros(2, 6, 1))
    with pytest.raises(ValueError, match="max_len of the cache must be at least 7, got 6"):
        layer.append([1, 5], x=torch.ones(2, 2, 1))
    assert layer.tensors["x"].eq(0).all()


@pytest.mark.parametrize("attention, values", [("mha", 2 * 6 * 10), ("gqa", 2 * 2 * 10), ("mqa", 2 * 10), ("mla", 17 + 6)])
def test_the_bytes_of_a_cache_are_counted_from_its_tensors(attention, values):
    config = odd_config(attention=attention)
    assert Cache(config, B, 13).n_bytes == B * 13 * 3 * values * 4
    assert Cache(config, B, 13, dtype=torch.bfloat16).n_bytes == B * 13 * 3 * values * 2
    assert Cache(config, B, 13, mtp=True).n_bytes == B * 13 * 5 * values * 4  # two MTP modules more


def test_the_cache_of_deepseek_v3_takes_70_272_bytes_a_token():
    assert Cache(ModelConfig.preset("deepseek_v3"), 1, 1, device="meta", dtype=torch.bfloat16).n_bytes == 70_272


@pytest.mark.parametrize("lengths", [[4, 4], [3], [-1, 3], [3, 3, 3]], ids=str)
def test_a_cache_cannot_be_rewound_to_what_it_never_held(lengths):
    cache = Cache(odd_config(), B, 13)
    cache.lengths = [3, 4]
    with pytest.raises(ValueError, match=r"lengths must be a number for each row, from 0 to at most \[3, 4\]"):
        cache.rewind(lengths)
    cache.rewind([0, 4])
    assert cache.lengths == [0, 4]


def test_a_cache_keeps_chosen_rows_in_the_chosen_order():
    cache = Cache(odd_config(attention="mqa"), 3, 2)
    cache.layers[1].tensors["k"] += torch.tensor([10.0, 20.0, 30.0])[:, None, None, None]
    cache.lengths = [0, 1, 2]
    cache.keep([2, 0])
    assert cache.lengths == [2, 0]
    assert cache.layers[1].tensors["k"][:, 0, 0, 0].tolist() == [30, 10] and cache.layers[1].tensors["v"].shape == (2, 2, 1, 10)


@pytest.mark.parametrize("batch_size, max_len", [(0, 5), (2, 0)])
def test_an_empty_cache_is_refused(batch_size, max_len):
    with pytest.raises(ValueError, match="batch_size and max_len of a cache must be at least 1"):
        Cache(odd_config(), batch_size, max_len)


def by_hand(module, h, frequency, n_kv_heads, scale):
    """Attention one query, one head and one source at a time, in float64."""
    def turned(x, t):
        z = (x[0::2] + 1j * x[1::2]) * np.exp(1j * t * frequency)
        return np.stack([z.real, z.imag], -1).reshape(-1)

    w_q, w_k, w_v, w_o = (getattr(module, n).weight.detach().double().numpy() for n in ("w_q", "w_k", "w_v", "w_o"))
    h, dh, n_heads = h.double().numpy(), 10, 6
    u = np.zeros_like(h)
    for b, t in np.ndindex(B, T):
        heads = []
        for i in range(n_heads):
            j = i // (n_heads // n_kv_heads)  # the key-value head that query head i shares
            q = turned((w_q @ h[b, t])[i * dh:(i + 1) * dh], t)
            score = [q @ turned((w_k @ h[b, s])[j * dh:(j + 1) * dh], s) * scale for s in range(t + 1)]
            p = np.exp(score - np.max(score))
            heads.append(sum(p[s] / p.sum() * (w_v @ h[b, s])[j * dh:(j + 1) * dh] for s in range(t + 1)))
        u[b, t] = w_o @ np.concatenate(heads)
    return torch.from_numpy(u)


@pytest.mark.parametrize("attention, n_kv_heads", [("mha", 6), ("gqa", 2), ("mqa", 1)])
def test_mha_gqa_and_mqa_are_attention_computed_by_hand(attention, n_kv_heads):
    config = odd_config(attention=attention)
    module, h = attention_of(config), torch.randn(B, T, D)
    frequency = np.array([10_000 ** (-2 * i / 10) for i in range(5)])
    got = module(h, Place.of(Rope.from_config(config), T, "cpu"))
    assert_close(got.double(), by_hand(module, h, frequency, n_kv_heads, 10**-0.5), atol=1e-5, rtol=1e-4)


def test_yarn_sharpens_attention_by_the_square_of_its_mscale():
    # the original length lies so far out that every pair keeps its speed, and only the temperature is left
    config = odd_config(attention="gqa", yarn_factor=40.0, yarn_original_len=10**12)
    module, h = attention_of(config), torch.randn(B, T, D)
    frequency = np.array([10_000 ** (-2 * i / 10) for i in range(5)])
    got = module(h, Place.of(Rope.from_config(config), T, "cpu"))
    assert_close(got.double(), by_hand(module, h, frequency, 2, 10**-0.5 * (0.1 * np.log(40) + 1) ** 2), atol=1e-5, rtol=1e-4)


def test_gqa_with_repeated_key_value_heads_is_mha():
    gqa, mha = attention_of(odd_config(attention="gqa")), attention_of(odd_config(attention="mha"))
    for name in ("w_q", "w_o"):
        getattr(mha, name).weight.data = getattr(gqa, name).weight.data
    for name in ("w_k", "w_v"):
        by_head = getattr(gqa, name).weight.data.unflatten(0, (2, 10))
        getattr(mha, name).weight.data = by_head.repeat_interleave(3, dim=0).flatten(0, 1)
    h, place = torch.randn(B, T, D), Place.of(Rope.from_config(odd_config(attention="gqa")), T, "cpu")
    assert_close(gqa(h, place), mha(h, place))


@pytest.mark.parametrize("attention", CLASSICAL)
def test_no_gradient_flows_back_from_the_past_to_the_future(attention):
    config = odd_config(attention=attention)
    h = torch.randn(1, T, D, requires_grad=True)
    u = attention_of(config)(h, Place.of(Rope.from_config(config), T, "cpu"))
    reaches = [[bool(torch.autograd.grad(u[0, t].sum(), h, retain_graph=True)[0][0, s].ne(0).any()) for s in range(T)] for t in range(T)]
    assert picture(reaches) == "1000000\n1100000\n1110000\n1111000\n1111100\n1111110\n1111111"
