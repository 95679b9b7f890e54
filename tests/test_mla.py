from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from configs import odd_config
from minimodels.attention import Cache, Place
from minimodels.config import ModelConfig
from minimodels.layers import Rope
from minimodels.mla import LatentAttention

B, T, D, H, DN, DR, DV, C = 2, 7, 23, 3, 5, 6, 11, 17

FORMS = {
    "query_latent": odd_config(),
    "no_query_latent": odd_config(d_query_latent=None),
    "values_wider_than_keys": odd_config(d_value=13),
    "values_as_narrow_as_one": odd_config(d_value=1),
    "yarn": odd_config(yarn_factor=40.0, yarn_original_len=16),
}


def attention_of(config):
    module = LatentAttention(config)
    for name, p in module.named_parameters():
        torch.nn.init.uniform_(p, 0.5, 1.5) if "norm" in name else torch.nn.init.normal_(p, std=0.3)
    return module


def place_of(config, T=T, lengths=None):
    return Place.of(Rope.from_config(config), T, "cpu", lengths)


def matrices(module):
    return {name: p.detach().double().numpy() for name, p in module.named_parameters()}


def normed(x, weight):
    return x / np.sqrt((x**2).mean() + 1e-6) * weight


def turned(x, t):
    z = (x[0::2] + 1j * x[1::2]) * np.exp(1j * t * 10_000.0 ** (-np.arange(0, DR, 2) / DR))
    return np.stack([z.real, z.imag], -1).reshape(-1)


def equations_1_to_11(module, h, has_query_latent):
    """DeepSeek-V3 eqs. 1-11, one token and one head at a time, in float64."""
    w = matrices(module)
    w_dkv, w_kr = w["w_dkv.weight"][:C], w["w_dkv.weight"][C:]
    w_ukv = w["w_ukv.weight"].reshape(H, DN + DV, C)
    h = h.double().numpy()
    u = np.zeros_like(h)
    for b in range(B):
        c_kv = [normed(w_dkv @ h[b, s], w["kv_norm.weight"]) for s in range(T)]  # eq. 1
        k_rope = [turned(w_kr @ h[b, s], s) for s in range(T)]  # eq. 3
        for t in range(T):
            if has_query_latent:
                q = w["w_uq.weight"] @ normed(w["w_dq.weight"] @ h[b, t], w["q_norm.weight"])  # eqs. 6, 7
            else:
                q = w["w_q.weight"] @ h[b, t]
            heads = []
            for i in range(H):
                q_nope, q_rope = np.split(q.reshape(H, DN + DR)[i], [DN])
                q_i = np.concatenate([q_nope, turned(q_rope, t)])  # eqs. 8, 9
                w_uk, w_uv = w_ukv[i, :DN], w_ukv[i, DN:]
                score = np.array([q_i @ np.concatenate([w_uk @ c_kv[s], k_rope[s]]) for s in range(t + 1)])  # eqs. 2, 4
                p = np.exp((score - score.max()) / np.sqrt(DN + DR))
                heads.append(sum(p[s] / p.sum() * (w_uv @ c_kv[s]) for s in range(t + 1)))  # eqs. 5, 10
            u[b, t] = w["w_o.weight"] @ np.concatenate(heads)  # eq. 11
    return torch.from_numpy(u)


@pytest.mark.parametrize("absorb", [False, True, None])
@pytest.mark.parametrize("form", ["query_latent", "no_query_latent"])
def test_mla_is_the_papers_equations(form, absorb):
    module, h = attention_of(FORMS[form]), torch.randn(B, T, D)
    got = module(h, place_of(FORMS[form]), absorb=absorb)
    assert_close(got.double(), equations_1_to_11(module, h, form == "query_latent"), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_absorbed_equals_naive_forward_and_backward(form):
    module, h, du = attention_of(FORMS[form]), torch.randn(B, T, D, requires_grad=True), torch.randn(B, T, D)
    inputs = [h, *module.parameters()]
    naive, absorbed = (module(h, place_of(FORMS[form]), absorb=absorb) for absorb in (False, True))
    assert_close(absorbed, naive, atol=1e-5, rtol=1e-4)
    for a, n in zip(torch.autograd.grad(absorbed, inputs, du), torch.autograd.grad(naive, inputs, du)):
        assert_close(a, n, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("lengths", [[4, 4], [1, 4], [0, 0]], ids=str)
@pytest.mark.parametrize("n_new", [1, 3])
def test_absorbed_equals_naive_behind_a_cache(lengths, n_new):
    module, h = attention_of(odd_config()), torch.randn(B, n_new, D)
    old = torch.randn(B, 13, C + DR)
    outputs = []
    for absorb in (False, True):
        cache = Cache(odd_config(), B, 13).layers[0]
        cache.tensors["latent"].copy_(old)
        outputs.append(module(h, place_of(odd_config(), n_new, lengths), cache, absorb=absorb))
    assert_close(*outputs, atol=1e-5, rtol=1e-4)


def test_absorbed_attention_is_mqa_with_one_key_as_wide_as_the_cache():
    # V2 appendix C: keys [c_kv ; k_rope] of width C + Dr, values c_kv of width C, one head of both for all queries
    module, h, place = attention_of(odd_config()), torch.randn(B, T, D), place_of(odd_config())
    (q_nope, q_rope), latent = module.query(h, place), module.latent(h, place)
    w_ukv = module.w_ukv.weight.reshape(H, DN + DV, C)
    q = torch.stack([torch.cat([q_nope[:, :, i] @ w_ukv[i, :DN], q_rope[:, :, i]], -1) for i in range(H)], dim=1)
    shared = latent[:, None]
    o = F.scaled_dot_product_attention(q, shared, shared[..., :C], is_causal=True, scale=(DN + DR) ** -0.5, enable_gqa=True)
    expected = torch.stack([o[:, i] @ w_ukv[i, DN:].T for i in range(H)], dim=2)
    assert_close(module.absorbed(q_nope, q_rope, latent, place), expected, atol=1e-5, rtol=1e-4)


def test_the_cache_holds_the_normed_latent_and_the_turned_key_which_is_not_normed():
    config = odd_config()
    module, h, cache = attention_of(config), torch.randn(B, T, D), Cache(config, B, 13).layers[0]
    module(h, place_of(config, T, [0, 0]), cache)
    w, kept = matrices(module), cache.tensors["latent"].double().detach().numpy()
    for b, t in np.ndindex(B, T):
        c_kv, k_rope = np.split(w["w_dkv.weight"] @ h[b, t].double().numpy(), [C])
        np.testing.assert_allclose(kept[b, t, :C], normed(c_kv, w["kv_norm.weight"]), atol=1e-5)
        np.testing.assert_allclose(kept[b, t, C:], turned(k_rope, t), atol=1e-5)
    assert (kept[:, T:] == 0).all()


def test_v3s_softmax_scale_is_one_over_root_192_and_yarn_nearly_doubles_it():
    v3 = ModelConfig.preset("deepseek_v3")
    with torch.device("meta"):
        assert round(LatentAttention(replace(v3, yarn_factor=1.0)).scale, 5) == 0.07217
        assert round(LatentAttention(v3).scale, 5) == 0.13523


def test_v3_decodes_absorbed_and_reads_a_prompt_naively():
    with torch.device("meta"):
        v3 = LatentAttention(ModelConfig.preset("deepseek_v3"))
    assert v3.absorbing_is_cheaper(1, 4096) and v3.absorbing_is_cheaper(2, 4096)  # 2: a token and its draft
    assert not v3.absorbing_is_cheaper(4096, 4096)


@pytest.mark.parametrize("n_new, n_sources", [(1, 1), (1, 40), (3, 40), (40, 40), (300, 300), (100, 400)])
def test_the_cheaper_path_is_the_one_with_fewer_multiplications(n_new, n_sources):
    module = LatentAttention(odd_config())
    naive = absorbed = 0
    for _ in range(H):
        naive += n_sources * C * (DN + DV)  # rebuild keys and values
        naive += n_new * n_sources * (DN + DR) + n_new * n_sources * DV  # score, sum
        absorbed += n_new * C * DN + n_new * C * DV  # W_UK into the query, W_UV behind the sum
        absorbed += n_new * n_sources * (C + DR) + n_new * n_sources * C
    assert module.absorbing_is_cheaper(n_new, n_sources) == (absorbed < naive)


@pytest.mark.parametrize("absorb", [False, True])
def test_no_gradient_flows_back_from_the_past_to_the_future(absorb):
    config = odd_config()
    h = torch.randn(1, T, D, requires_grad=True)
    u = attention_of(config)(h, place_of(config), absorb=absorb)
    for t in range(T):
        dh, = torch.autograd.grad(u[0, t].sum(), h, retain_graph=True)
        assert [bool(x) for x in dh[0].ne(0).any(-1)] == [s <= t for s in range(T)]
