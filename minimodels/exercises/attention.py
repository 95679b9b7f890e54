"""Exercises of chapter 03."""

import math

import torch

from minimodels.attention import GroupedAttention, Place
from minimodels.bugs import plant
from minimodels.bugs.attention import KeyTurnedTwice, LeakingMask
from minimodels.config import ModelConfig
from minimodels.exercises import Exercise, Mutant
from minimodels.layers import Rope


def _generator(rng):
    return torch.Generator().manual_seed(rng.randrange(2**31))


# ---- 3.1

def may_look(T):
    """Which sources each of T queries may see, as a list of rows of truth values: itself, and what came before."""
    return [[s <= t for s in range(T)] for t in range(T)]


def _mask_inputs(rng):
    return (rng.randint(2, 7),)


def _next_too(T):
    return [[s <= t + 1 for s in range(T)] for t in range(T)]


def _not_itself(T):
    return [[s < t for s in range(T)] for t in range(T)]


def _columns_for_rows(T):
    return [[t <= s for s in range(T)] for t in range(T)]


def _forbidden(T):
    return [[s > t for s in range(T)] for t in range(T)]


# ---- 3.2

def attend_one_head(q, k, v):
    """Causal attention of one head. q, k: (T, Dh); v: (T, Dv). Returns (T, Dv)."""
    T, Dh = q.shape
    score = q @ k.T / math.sqrt(Dh)
    future = torch.ones(T, T).triu(1).bool()
    return score.masked_fill(future, -torch.inf).softmax(-1) @ v


def _head_inputs(rng):
    g, (T, Dh, Dv) = _generator(rng), (5, 3, 2)
    return 3 * torch.randn(T, Dh, generator=g), torch.randn(T, Dh, generator=g), torch.randn(T, Dv, generator=g)


def _unscaled(q, k, v):
    return attend_one_head(q * math.sqrt(q.shape[1]), k, v)


def _divided_by_width(q, k, v):
    return attend_one_head(q / math.sqrt(q.shape[1]), k, v)


def _unmasked(q, k, v):
    return (q @ k.T / math.sqrt(q.shape[1])).softmax(-1) @ v


def _zero_for_minus_infinity(q, k, v):
    return (q @ k.T / math.sqrt(q.shape[1])).tril().softmax(-1) @ v


def _masked_after_softmax(q, k, v):
    return (q @ k.T / math.sqrt(q.shape[1])).softmax(-1).tril() @ v


def _powers_of_two(q, k, v):
    return attend_one_head(q * math.log(2), k, v)


def _root_of_length(q, k, v):
    return attend_one_head(q * math.sqrt(q.shape[1] / len(q)), k, v)


def _keys_ask(q, k, v):
    return attend_one_head(k, q, v)


def _softmax_over_queries(q, k, v):
    T = len(q)
    score = (q @ k.T / math.sqrt(q.shape[1])).masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf)
    return score.softmax(0) @ v


# ---- 3.3

def turn(a, b, angle):
    """The pair (a, b) turned by angle, in radians, counter-clockwise."""
    cos, sin = math.cos(angle), math.sin(angle)
    return a * cos - b * sin, a * sin + b * cos


def _pair_inputs(rng):
    return rng.uniform(-3, 3), rng.uniform(-3, 3), rng.uniform(0.2, 3.0)


def _turned_back(a, b, angle):
    return turn(a, b, -angle)


def _sum_of_both(a, b, angle):
    cos, sin = math.cos(angle), math.sin(angle)
    return a * cos + b * sin, a * sin + b * cos


def _in_degrees(a, b, angle):
    return turn(a, b, math.radians(angle))


def _second_from_first(a, b, angle):
    a = a * math.cos(angle) - b * math.sin(angle)
    return a, a * math.sin(angle) + b * math.cos(angle)


# ---- 3.4

def share_heads(k, n_heads):
    """Each key-value head, repeated for its group of query heads. k: (B, S, n_kv_heads, Dh). Returns (B, S, n_heads, Dh)."""
    return k.repeat_interleave(n_heads // k.shape[2], dim=2)


def _share_inputs(rng):
    n_kv_heads = rng.choice([2, 3])
    return torch.randn(2, 5, n_kv_heads, 7, generator=_generator(rng)), n_kv_heads * rng.choice([2, 3])


def _in_turns(k, n_heads):
    return k.repeat(1, 1, n_heads // k.shape[2], 1)


def _first_group_for_all(k, n_heads):
    return k[:, :, :1].expand(-1, -1, n_heads, -1)


def _times_n_heads(k, n_heads):
    return k.repeat_interleave(n_heads, dim=2)


# ---- 3.6

def decode_one(q, k, v, k_cache, v_cache):
    """One new token behind a cache of S: its output, and the longer caches.

    q, k, v: (H, Dh), of the new token. k_cache, v_cache: (S, H, Dh). Returns (H, Dh), and (S + 1, H, Dh) twice.
    """
    k_cache, v_cache = torch.cat([k_cache, k[None]]), torch.cat([v_cache, v[None]])
    score = torch.einsum("hd,shd->hs", q, k_cache) / math.sqrt(q.shape[-1])
    return torch.einsum("hs,shd->hd", score.softmax(-1), v_cache), k_cache, v_cache


def _cache_inputs(rng):
    g, (S, H, Dh) = _generator(rng), (5, 3, 4)
    new = [2 * torch.randn(H, Dh, generator=g) for _ in range(3)]
    return *new, torch.randn(S, H, Dh, generator=g), torch.randn(S, H, Dh, generator=g)


def _without_itself(q, k, v, k_cache, v_cache):
    score = torch.einsum("hd,shd->hs", q, k_cache) / math.sqrt(q.shape[-1])
    return torch.einsum("hs,shd->hd", score.softmax(-1), v_cache), torch.cat([k_cache, k[None]]), torch.cat([v_cache, v[None]])


def _at_the_front(q, k, v, k_cache, v_cache):
    o, _, _ = decode_one(q, k, v, k_cache, v_cache)
    return o, torch.cat([k[None], k_cache]), torch.cat([v[None], v_cache])


def _cache_unchanged(q, k, v, k_cache, v_cache):
    return decode_one(q, k, v, k_cache, v_cache)[0], k_cache, v_cache


def _heads_mixed(q, k, v, k_cache, v_cache):
    o, k_cache, v_cache = decode_one(q, k, v, k_cache, v_cache)
    score = torch.einsum("hd,sgd->hs", q, k_cache) / math.sqrt(q.shape[-1])
    return torch.einsum("hs,shd->hd", score.softmax(-1), v_cache), k_cache, v_cache


def _output_alone(q, k, v, k_cache, v_cache):
    return decode_one(q, k, v, k_cache, v_cache)[0]


def _softmax_over_heads(q, k, v, k_cache, v_cache):
    o, k_cache, v_cache = decode_one(q, k, v, k_cache, v_cache)
    score = torch.einsum("hd,shd->hs", q, k_cache) / math.sqrt(q.shape[-1])
    return torch.einsum("hs,shd->hd", score.softmax(0), v_cache), k_cache, v_cache


def _decode_unscaled(q, k, v, k_cache, v_cache):
    return decode_one(q * math.sqrt(q.shape[-1]), k, v, k_cache, v_cache)


# ---- 3.7

def intensity(n_weights, n_cached, batch, n_bytes):
    """FLOPs for each byte that must be read, when every sequence of a batch gets one token.

    n_weights: numbers in all matrices. n_cached: numbers in one sequence's cache. n_bytes: of one number. Each number is multiplied
    and added once for every token that uses it; weights are read once for the whole batch, each cache once.
    """
    flops = 2 * batch * (n_weights + n_cached)
    return flops / (n_bytes * (n_weights + batch * n_cached))


def _intensity_inputs(rng):
    return 1000 * rng.randint(10, 90), 100 * rng.randint(5, 90), rng.choice([2, 8, 64]), rng.choice([1, 2, 4])


def _weights_for_each(n_weights, n_cached, batch, n_bytes):
    return intensity(n_weights, n_cached, 1, n_bytes)


def _one_cache_for_all(n_weights, n_cached, batch, n_bytes):
    return 2 * batch * (n_weights + n_cached) / (n_bytes * (n_weights + n_cached))


def _cache_met_once(n_weights, n_cached, batch, n_bytes):
    return 2 * (batch * n_weights + n_cached) / (n_bytes * (n_weights + batch * n_cached))


def _bytes_for_each_flop(n_weights, n_cached, batch, n_bytes):
    return 1 / intensity(n_weights, n_cached, batch, n_bytes)


def _one_flop(n_weights, n_cached, batch, n_bytes):
    return intensity(n_weights, n_cached, batch, n_bytes) / 2


def _numbers_for_bytes(n_weights, n_cached, batch, n_bytes):
    return intensity(n_weights, n_cached, batch, 1)


# ---- 3.8

CONFIG = ModelConfig(vocab_size=11, d_model=24, n_layers=1, max_seq_len=64, attention="mha", n_heads=3, d_head=8, d_value=8, n_experts=0,
                     mtp_depth=0)
ROPE = Rope.from_config(CONFIG)


def layer_of(rng, *bugs):
    """A layer with weights large enough that a mistake shows, right or with one of bugs."""
    layer, g = GroupedAttention(CONFIG), _generator(rng)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=g)
    bug = rng.choice([None, *bugs])
    return plant(layer, bug) if bug else layer


def sees_the_future(layer, h, place):
    """Whether an output of layer depends on a later token. h: (B, T, D), at place. Returns True or False."""
    T = h.shape[1]
    for t in range(1, T):
        changed = h.clone()
        changed[:, t:] += 1.0
        if not torch.allclose(layer(h, place)[:, :t], layer(changed, place)[:, :t], atol=1e-5):
            return True
    return False


def _leak_inputs(rng):
    T = 6
    # a rotation that is wrong is no leak, so it must not be taken for one
    return layer_of(rng, LeakingMask, KeyTurnedTwice), torch.randn(2, T, CONFIG.d_model, generator=_generator(rng)), Place(ROPE(torch.arange(T)))


def _itself_compared_too(layer, h, place):
    changed = h.clone()
    changed[:, -1:] += 1.0
    return not torch.allclose(layer(h, place), layer(changed, place), atol=1e-5)


def _never_leaks(layer, h, place):
    return False


def _upside_down(layer, h, place):
    return not sees_the_future(layer, h, place)


# ---- 3.5

def looks_back_one(weights):
    """The mean weight that queries give to the token before them, over the queries that have one. weights: (T, T), row t is query t."""
    T = len(weights)
    return sum(float(weights[t][t - 1]) for t in range(1, T)) / (T - 1)


def _weights_inputs(rng):
    T = rng.randint(3, 8)
    score = 2 * torch.randn(T, T, generator=_generator(rng))
    return (score.masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf).softmax(-1),)


def _over_all_queries(weights):
    return looks_back_one(weights) * (len(weights) - 1) / len(weights)


def _with_wrap(weights):
    T = len(weights)
    return sum(float(weights[t][t - 1]) for t in range(T)) / (T - 1) + float(weights[0][0]) / (T - 1)


def _on_itself(weights):
    return sum(float(weights[t][t]) for t in range(len(weights))) / len(weights)


def _looks_ahead(weights):
    T = len(weights)
    return sum(float(weights[t - 1][t]) for t in range(1, T)) / (T - 1)


EXERCISES = [
    Exercise(solution=may_look, inputs=_mask_inputs, hint="T lists of T truth values, True or False. Row t is a query, column s a source. Which s may it see?", mutants=(
        Mutant(function=_next_too, hint="Your query sees the token after it, which is the one that it must predict."),
        Mutant(function=_not_itself, hint="A token may look at itself. Without that, what does the first one look at?"),
        Mutant(function=_columns_for_rows, hint="Rows and columns are exchanged: a row is a query, and the first query sees one token alone."),
        Mutant(function=_forbidden, hint="True allows. Yours is true where looking is forbidden."))),
    Exercise(solution=attend_one_head, inputs=_head_inputs, hint="Scores, scale, mask, softmax along a query's row, weighted sum of the values.", mutants=(
        Mutant(function=_unscaled, hint="Divide the scores by the root of Dh."),
        Mutant(function=_divided_by_width, hint="Divide by the root of Dh, not by Dh."),
        Mutant(function=_unmasked, hint="The future must be masked: a query may see s <= t alone."),
        Mutant(function=_zero_for_minus_infinity, hint="A score of 0 is not 'no weight', because exp(0) is 1. Put minus infinity."),
        Mutant(function=_masked_after_softmax, hint="Mask before softmax: after it, the weights that are left no longer add up to 1."),
        Mutant(function=_powers_of_two, hint="Softmax takes e to the power of each score; the two was for sums by hand."),
        Mutant(function=_root_of_length, hint="The root is that of Dh, the width of a query, and not that of T."),
        Mutant(function=_keys_ask, hint="Queries and keys are exchanged: row t of the scores belongs to query t."),
        Mutant(function=_softmax_over_queries, hint="Softmax runs along the sources of one query, the last axis."))),
    Exercise(solution=turn, inputs=_pair_inputs, hint="Where does (1, 0) go if it is turned by a quarter? And (0, 1)?", mutants=(
        Mutant(function=_turned_back, hint="Yours turns the other way round: the minus belongs to the first number."),
        Mutant(function=_sum_of_both, hint="Without a minus it is no rotation: the length changes."),
        Mutant(function=_in_degrees, hint="The angle is in radians already."),
        Mutant(function=_second_from_first, hint="The second number is made from the *old* first one; yours has been written over."))),
    Exercise(solution=share_heads, inputs=_share_inputs, hint="Each key-value head, n_heads / n_kv_heads times in a row.", mutants=(
        Mutant(function=_in_turns, hint="Neighbouring query heads share: 0 0 0 1 1 1, not 0 1 0 1 0 1. You have repeated the whole, not each."),
        Mutant(function=_first_group_for_all, hint="That is multi-query attention: all heads read the first group."),
        Mutant(function=_times_n_heads, hint="Repeat each head n_heads / n_kv_heads times, so that n_heads come out."))),
    Exercise(solution=decode_one, inputs=_cache_inputs, hint="Append, then attend; a mask is not needed, because nothing lies in the future.", mutants=(
        Mutant(function=_without_itself, hint="The new token looks at itself too: append before you attend."),
        Mutant(function=_at_the_front, hint="The new entry goes behind the others: the next one must find them in order."),
        Mutant(function=_cache_unchanged, hint="The caches that you return must hold the new token."),
        Mutant(function=_heads_mixed, hint="Each head meets its own keys alone: keep the letter h in both."),
        Mutant(function=_output_alone, hint="Return three things: the output, and both caches, which the next token will need."),
        Mutant(function=_softmax_over_heads, hint="Softmax runs along the sources of one head, the last axis of (H, S)."),
        Mutant(function=_decode_unscaled, hint="The scale 1 / sqrt(Dh) belongs here too."))),
    Exercise(solution=intensity, inputs=_intensity_inputs, hint="FLOPs: two for each number that a token meets. Bytes: what is read, once.", mutants=(
        Mutant(function=_weights_for_each, hint="The batch shares the weights: they are read once for all its tokens."),
        Mutant(function=_one_cache_for_all, hint="Each sequence has a cache of its own, and each must be read."),
        Mutant(function=_cache_met_once, hint="Each sequence's token meets a cache: count its FLOPs once for each of the batch."),
        Mutant(function=_bytes_for_each_flop, hint="That is bytes for each FLOP: divide the other way round."),
        Mutant(function=_one_flop, hint="A multiplication with its addition counts as two FLOPs."),
        Mutant(function=_numbers_for_bytes, hint="You divide by numbers; a number has n_bytes bytes."))),
    Exercise(solution=sees_the_future, inputs=_leak_inputs, hint="Change what comes late, and look at what was computed for what came early.", mutants=(
        Mutant(function=_itself_compared_too, hint="Your test finds a leak in every layer. The outputs of a changed token and of those after "
               "it may change: compare the earlier ones alone."),
        Mutant(function=_never_leaks, hint="Your test finds no leak in any layer, and some have one."),
        Mutant(function=_upside_down, hint="Return True where the layer sees the future."))),
    Exercise(solution=looks_back_one, inputs=_weights_inputs, hint="Row t, column t - 1, for t from 1 on.", mutants=(
        Mutant(function=_over_all_queries, hint="The first query has nobody before it: divide by T - 1."),
        Mutant(function=_with_wrap, hint="weights[0][-1] is the last column, not a token before the first."),
        Mutant(function=_on_itself, hint="That is the diagonal: the weight on the token itself."),
        Mutant(function=_looks_ahead, hint="Rows are queries: weights[t][t - 1], not weights[t - 1][t], which is masked."))),
]
