"""Exercises of chapter 06."""

import math

import torch
from torch import einsum

from minimodels.attention import LayerCache, Place
from minimodels.bugs import plant
from minimodels.bugs.mla import CachedBeforeNorm, HalvesForPairs, Unscaled
from minimodels.config import ModelConfig
from minimodels.exercises import Exercise, Mutant, wrong_tests
from minimodels.layers import Rope, rotate
from minimodels.mla import LatentAttention


def _generator(rng):
    return torch.Generator().manual_seed(rng.randrange(2**31))


# ---- 6.1

def cached_values(scheme, n_heads, d_head, n_groups, d_latent, d_rope):
    """Numbers that one layer keeps for one token. scheme: mha, gqa, mqa or mla. Source: DeepSeek-V2, Table 1."""
    heads = {"mha": n_heads, "gqa": n_groups, "mqa": 1}
    return d_latent + d_rope if scheme == "mla" else 2 * heads[scheme] * d_head


def _cached_inputs(rng):
    n_groups, d_head = rng.choice([2, 3, 5]), 2 * rng.randint(4, 64)
    return (rng.choice(["mha", "gqa", "mqa", "mla"]), n_groups * rng.choice([2, 3, 4]), d_head, n_groups, 4 * d_head, d_head // 2)


def _keys_alone(scheme, n_heads, d_head, n_groups, d_latent, d_rope):
    return cached_values(scheme, n_heads, d_head, n_groups, d_latent, d_rope) // (1 if scheme == "mla" else 2)


def _latent_twice(scheme, n_heads, d_head, n_groups, d_latent, d_rope):
    return cached_values(scheme, n_heads, d_head, n_groups, d_latent, d_rope) * (2 if scheme == "mla" else 1)


def _rope_for_each_head(scheme, n_heads, d_head, n_groups, d_latent, d_rope):
    return cached_values(scheme, n_heads, d_head, n_groups, d_latent, n_heads * d_rope)


def _heads_in_a_group(scheme, n_heads, d_head, n_groups, d_latent, d_rope):
    return cached_values(scheme, n_heads, d_head, n_heads // n_groups, d_latent, d_rope)


# ---- 6.2

def absorb_query(q_nope, w_uk):
    """Each head's query, moved into the latent space. q_nope: (B, T, H, Dn); w_uk: (H, Dn, C). Returns (B, T, H, C)."""
    return einsum("bthn,hnc->bthc", q_nope, w_uk)


def _absorb_inputs(rng):
    g, (B, T, H, Dn, C) = _generator(rng), (2, 3, 5, 7, 11)
    return torch.randn(B, T, H, Dn, generator=g), torch.randn(H, Dn, C, generator=g)


def _first_head_for_all(q_nope, w_uk):
    return einsum("bthn,nc->bthc", q_nope, w_uk[0])


def _heads_summed(q_nope, w_uk):
    return einsum("bthn,hnc->btc", q_nope, w_uk)


def _all_matrices_summed(q_nope, w_uk):
    return einsum("bthn,gnc->bthc", q_nope, w_uk)


# ---- 6.3

def absorb_turned(q, w_uk, angle):
    """The absorbed query for a key that stands `angle` behind it, in radians: its product with c is (R_t q) . (R_s W_UK c).

    q: (2,), one rotary pair; w_uk: (2, C); angle: (t - s) theta. Returns (C,).
    """
    cos, sin = math.cos(angle), math.sin(angle)
    return w_uk.T @ torch.tensor([[cos, -sin], [sin, cos]]) @ q


def _turned_inputs(rng):
    g = _generator(rng)
    return torch.randn(2, generator=g), torch.randn(2, 5, generator=g), rng.uniform(0.2, 3.0)


def _turned_back(q, w_uk, angle):
    return absorb_turned(q, w_uk, -angle)


def _not_turned(q, w_uk, angle):
    return w_uk.T @ q


def _turned_key(q, w_uk, angle):
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[cos, -sin], [sin, cos]]) @ w_uk


# ---- 6.4

def absorbed_output(attention, c_kv, w_uv):
    """Each head's output without a value: average the latents first. attention: (B, H, T, S); c_kv: (B, S, C); w_uv: (H, Dv, C).

    Returns (B, T, H, Dv).
    """
    o_latent = einsum("bhts,bsc->bthc", attention, c_kv)
    return einsum("bthc,hvc->bthv", o_latent, w_uv)


def _output_inputs(rng):
    g, (B, H, T, S, C, Dv) = _generator(rng), (2, 3, 5, 7, 11, 13)
    attention = torch.randn(B, H, T, S, generator=g).softmax(-1)
    return attention, torch.randn(B, S, C, generator=g), torch.randn(H, Dv, C, generator=g)


def _still_latent(attention, c_kv, w_uv):
    return einsum("bhts,bsc->bthc", attention, c_kv)


def _heads_before_queries(attention, c_kv, w_uv):
    return absorbed_output(attention, c_kv, w_uv).transpose(1, 2)


def _one_w_uv(attention, c_kv, w_uv):
    return absorbed_output(attention, c_kv, w_uv[:1].expand_as(w_uv))


# ---- 6.8

def take_apart(old, new):
    """What each change saves of a cache, as if it were the only one, and what all save together: four shares.

    old, new: (layers, values a layer keeps for a token, bits a value); the shares come in this order.
    """
    layers, values, bits = (n / o for n, o in zip(new, old))
    return 1 - layers, 1 - values, 1 - bits, 1 - layers * values * bits


def _apart_inputs(rng):
    old = rng.randint(40, 120), 256 * rng.randint(4, 128), 16
    return old, (rng.randint(20, old[0] - 1), rng.randint(100, old[1] - 1), rng.choice([4, 6, 8]))


def _savings_added(old, new):
    *parts, _ = take_apart(old, new)
    return *parts, sum(parts)


def _savings_multiplied(old, new):
    *parts, _ = take_apart(old, new)
    return *parts, math.prod(parts)


def _what_is_kept(old, new):
    return tuple(1 - saved for saved in take_apart(old, new))


# ---- 6.5 to 6.7: tests that find a bug

CONFIG = ModelConfig(vocab_size=11, d_model=24, n_layers=1, max_seq_len=64, n_heads=3, d_head=8, d_rope=8, d_value=8, d_latent=16,
                     n_experts=0, mtp_depth=0)
ROPE = Rope.from_config(CONFIG)


def layer_of(rng, *bugs):
    """A layer with weights large enough that a mistake shows, right or with one of bugs."""
    layer, g = LatentAttention(CONFIG), _generator(rng)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=g)
    bug = rng.choice([None, *bugs])
    return plant(layer, bug) if bug else layer


def hidden_of(rng, T=6):
    return torch.randn(2, T, CONFIG.d_model, generator=_generator(rng))


def place_at(start, T):
    """The places of T tokens from position start, without a cache."""
    return Place(ROPE(torch.arange(start, start + T)))


def depends_on_distance_alone(layer, h, place_at):
    """Whether moving the whole text leaves the layer's output as it was. place_at(start, T): the places of T tokens from start on."""
    T = h.shape[1]
    return torch.allclose(layer(h, place_at(0, T)), layer(h, place_at(9, T)), atol=1e-4)


def _shift_inputs(rng):
    return layer_of(rng, HalvesForPairs), hidden_of(rng), place_at


def scores_are_scaled(layer, h, place):
    """Whether the layer's output is that of scores over sqrt(Dn + Dr)."""
    H, Dn, Dr = layer.n_heads, layer.d_head, layer.d_rope
    q_nope, q_rope = layer.w_q(h).unflatten(-1, (H, Dn + Dr)).split([Dn, Dr], -1)
    c_kv, k_rope = layer.latent(h, place).split([layer.w_ukv.in_features, Dr], -1)
    k_nope, v = layer.w_ukv(c_kv).unflatten(-1, (H, -1)).split([Dn, layer.d_value], -1)
    score = einsum("bthn,bshn->bhts", q_nope, k_nope) + einsum("bthr,bsr->bhts", rotate(q_rope, place.turn), k_rope)
    future = torch.ones(score.shape[-2:]).triu(1).bool()
    attention = (score / math.sqrt(Dn + Dr)).masked_fill(future, float("-inf")).softmax(-1)
    return torch.allclose(layer(h, place), layer.w_o(einsum("bhts,bshv->bthv", attention, v).flatten(-2)), atol=1e-4)


def _scaled_inputs(rng):
    h = hidden_of(rng)
    return layer_of(rng, Unscaled), h, place_at(0, h.shape[1])


def cache_agrees(layer, h, place, cached_place, new_cache):
    """Whether reading h a token at a time, with a cache, gives what reading it at once gives.

    place: of all of h, from position 0. cached_place(n): of one token behind n cached ones. new_cache(): an empty cache for one layer.
    """
    cache, T = new_cache(), h.shape[1]
    one_by_one = torch.cat([layer(h[:, t:t + 1], cached_place(t), cache) for t in range(T)], dim=1)
    return torch.allclose(one_by_one, layer(h, place), atol=1e-4)


def cached_place(n):
    """The place of one token behind n that the cache holds."""
    return Place.of(ROPE, 1, "cpu", [n, n])


def new_cache():
    """An empty cache for one layer: two rows of 64 tokens."""
    return LayerCache(latent=torch.zeros(2, 64, CONFIG.d_latent + CONFIG.d_rope))


def _cache_inputs(rng):
    h = hidden_of(rng)
    return layer_of(rng, CachedBeforeNorm), h, place_at(0, h.shape[1]), cached_place, new_cache


def _points_of_the_first(old, new):
    layers, values, bits = (n / o for n, o in zip(new, old))
    return 1 - layers, layers * (1 - values), layers * values * (1 - bits), 1 - layers * values * bits


EXERCISES = [
    Exercise(
        solution=cached_values, inputs=_cached_inputs,
        hint="MHA, GQA and MQA keep a key and a value for each key-value head. MLA keeps one latent and one rotary key.",
        mutants=(
            Mutant(function=_keys_alone, hint="A value is kept beside each key: MHA, GQA and MQA keep two vectors a head."),
            Mutant(function=_latent_twice, hint="Keys and values come from one latent: MLA keeps it once."),
            Mutant(function=_rope_for_each_head, hint="All heads share one rotary key: it does not grow with the heads."),
            Mutant(function=_heads_in_a_group, hint="n_groups counts the key-value heads of GQA, not the query heads of a group."),
        )),
    Exercise(
        solution=absorb_query, inputs=_absorb_inputs, tolerance=1e-4,
        hint="A score is the sum over n of q[n] times the sum over c of w_uk[n, c] c_kv[c]. Sum over n first: which letters are left?",
        mutants=(
            Mutant(function=_first_head_for_all, hint="Each head has its own up-projection: keep the letter h in w_uk."),
            Mutant(function=_heads_summed, hint="The heads were added up. Each head asks its own question: keep h in the result."),
            Mutant(function=_all_matrices_summed, hint="Every head met every head's matrix. Use the same letter for both heads."),
        )),
    Exercise(
        solution=absorb_turned, inputs=_turned_inputs, tolerance=1e-4,
        hint="(R_t q) . (R_s W c) = q^T R_t^T R_s W c, and R_t^T R_s turns by s - t. What stands left of c, transposed?",
        mutants=(
            Mutant(function=_turned_back, hint="The turn goes the wrong way: transposing a rotation turns it back."),
            Mutant(function=_not_turned, hint="This is the query absorbed without position. The turn by t - s stands between q and W_UK."),
            Mutant(function=_turned_key, hint="This is the turned matrix. Let it meet the query: C numbers are left."),
        )),
    Exercise(
        solution=absorbed_output, inputs=_output_inputs, tolerance=1e-4,
        hint="The output is the average of W_UV c over s. The average can go inside: average c first, then apply each head's W_UV.",
        mutants=(
            Mutant(function=_still_latent, hint="These are averaged latents, of width C. One product with w_uv is left."),
            Mutant(function=_heads_before_queries, hint="The numbers are right, the axes are not: (B, T, H, Dv) was asked."),
            Mutant(function=_one_w_uv, hint="Each head has its own w_uv: keep the letter h."),
        )),
    Exercise(
        solution=take_apart, inputs=_apart_inputs,
        hint="Four shares, in the order of the triples: 1 - layers kept, 1 - values kept, 1 - bits kept, and 1 - all three. What is kept multiplies.",
        mutants=(
            Mutant(function=_savings_added, hint="Savings do not add: each is taken from what the one before has left."),
            Mutant(function=_savings_multiplied, hint="What is kept multiplies, not what is saved."),
            Mutant(function=_points_of_the_first,
                   hint="These are points of the old cache, one step after the other. Take each change by itself, as if it were the only one."),
            Mutant(function=_what_is_kept, hint="These are the shares that are kept. What is saved is the rest."),
        )),
    Exercise(
        solution=depends_on_distance_alone, inputs=_shift_inputs, n_trials=10,
        hint="Read the same h at two starts, place_at(0, T) and place_at(9, T), and compare all outputs with torch.allclose, atol=1e-4.",
        mutants=wrong_tests(depends_on_distance_alone, of="layer",
                            accepts_all="Do the two readings start at different places? Do you compare more than the first token, "
                                        "which sees only itself?",
                            refuses_all="Give torch.allclose atol=1e-4, because rounding differs; and move the places, not h.")),
    Exercise(
        solution=scores_are_scaled, inputs=_scaled_inputs, n_trials=10,
        hint="Compare the layer's output with that of mla_by_hand, which divides by sqrt(Dn + Dr): torch.allclose, atol=1e-4.",
        mutants=wrong_tests(scores_are_scaled, of="layer",
                            accepts_all="The first token attends to itself alone, with weight 1 whatever the scale: compare all of them.",
                            refuses_all="Scores are sums of Dn + Dr products, so they are divided by sqrt(Dn + Dr); and rounding "
                                        "needs atol=1e-4.")),
    Exercise(
        solution=cache_agrees, inputs=_cache_inputs, n_trials=10,
        hint="Pass h[:, t:t+1] at cached_place(t) with one cache for all t, put the outputs together, and compare with layer(h, place).",
        mutants=wrong_tests(cache_agrees, of="layer",
                            accepts_all="Without a cache, or by shapes alone, nothing is wrong with it: compare numbers read through one cache.",
                            refuses_all="Make one cache, before the loop. Token t stands at cached_place(t), behind t others. Rounding needs atol=1e-4.")),
]
