"""Exercises of chapter 04."""

import math

import torch
from torch.nn import functional as F

from minimodels.attention import Place
from minimodels.bugs import plant
from minimodels.bugs.model import NormedResidual, OverTokens
from minimodels.config import ModelConfig
from minimodels.exercises import Exercise, Mutant, wrong_tests
from minimodels.model import Transformer


def _generator(rng):
    return torch.Generator().manual_seed(rng.randrange(2**31))


# ---- 4.1

def rms_norm(x, weight, eps):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis. x: (..., D); weight: (D,)."""
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def _norm_inputs(rng):
    g = _generator(rng)
    scale = 10 ** rng.uniform(-2, 2)
    return torch.randn(2, 3, 7, generator=g) * scale + scale, torch.randn(7, generator=g), rng.choice([1e-6, 1e-5])


def _sum_for_mean(x, weight, eps):
    return x / torch.sqrt(x.pow(2).sum(-1, keepdim=True) + eps) * weight


def _layer_norm(x, weight, eps):
    return F.layer_norm(x, weight.shape, weight, None, eps)


def _no_weight(x, weight, eps):
    return rms_norm(x, torch.ones_like(weight), eps)


def _over_everything(x, weight, eps):
    return x / torch.sqrt(x.pow(2).mean() + eps) * weight


def _no_root(x, weight, eps):
    return x / (x.pow(2).mean(-1, keepdim=True) + eps) * weight


def _over_tokens(x, weight, eps):
    return x / torch.sqrt(x.pow(2).mean(-2, keepdim=True) + eps) * weight


# ---- 4.2

def swiglu(x, w_gate, w_up, w_down):
    """w_down (silu(w_gate x) * w_up x). x: (..., D); w_gate, w_up: (F, D); w_down: (D, F). Returns (..., D)."""
    gate, up = x @ w_gate.T, x @ w_up.T
    return (gate * torch.sigmoid(gate) * up) @ w_down.T


def _swiglu_inputs(rng):
    g, (D, width) = _generator(rng), (5, 11)
    return torch.randn(2, 3, D, generator=g), *(torch.randn(*shape, generator=g) for shape in ((width, D), (width, D), (D, width)))


def _sigmoid_gate(x, w_gate, w_up, w_down):
    return (torch.sigmoid(x @ w_gate.T) * (x @ w_up.T)) @ w_down.T


def _no_gate(x, w_gate, w_up, w_down):
    return F.silu(x @ w_up.T) @ w_down.T


def _gate_added(x, w_gate, w_up, w_down):
    return (F.silu(x @ w_gate.T) + x @ w_up.T) @ w_down.T


def _silu_of_both(x, w_gate, w_up, w_down):
    return F.silu((x @ w_gate.T) * (x @ w_up.T)) @ w_down.T


def _silu_on_up(x, w_gate, w_up, w_down):
    return swiglu(x, w_up, w_gate, w_down)


def _no_up(x, w_gate, w_up, w_down):
    return F.silu(x @ w_gate.T) @ w_down.T


def _both_bent(x, w_gate, w_up, w_down):
    return (F.silu(x @ w_gate.T) * F.silu(x @ w_up.T)) @ w_down.T


def _relu_gate(x, w_gate, w_up, w_down):
    return (F.relu(x @ w_gate.T) * (x @ w_up.T)) @ w_down.T


# ---- 4.3

def stream_rms(start, branch, n_layers):
    """RMS of the residual stream after n_layers layers, two branches each, whose outputs of RMS branch point anywhere."""
    return math.sqrt(start**2 + 2 * n_layers * branch**2)


def _stream_inputs(rng):
    return rng.uniform(0.01, 2), rng.uniform(0.05, 1), rng.randint(2, 64)


def _added_up(start, branch, n_layers):
    return start + 2 * n_layers * branch


def _one_branch(start, branch, n_layers):
    return math.sqrt(start**2 + n_layers * branch**2)


def _forgot_the_start(start, branch, n_layers):
    return math.sqrt(2 * n_layers) * branch


def _mean_square(start, branch, n_layers):
    return start**2 + 2 * n_layers * branch**2


# ---- 4.4

def init_std(d_in, wanted):
    """The std of weights with which a matrix turns inputs of RMS 1 into outputs of RMS `wanted`; d_in: numbers that come in."""
    return wanted / math.sqrt(d_in)


def _init_inputs(rng):
    return rng.choice([64, 80, 128, 320, 1024, 7168]), rng.uniform(0.1, 2)


def _variance(d_in, wanted):
    return wanted / d_in


def _times_root(d_in, wanted):
    return wanted * math.sqrt(d_in)


def _root_of_both(d_in, wanted):
    return math.sqrt(wanted / d_in)


def _always_one(d_in, wanted):
    return 1 / math.sqrt(d_in)


# ---- 4.6

def count_parameters(vocab_size, d_model, n_layers, d_ff, is_tied):
    """Parameters of a dense Transformer with MHA whose heads are as wide together as the hidden state, in a dictionary by part."""
    return {"embedding": vocab_size * d_model, "attention": n_layers * 4 * d_model**2, "feed-forward": n_layers * 3 * d_model * d_ff,
            "norms": (2 * n_layers + 1) * d_model, "head": 0 if is_tied else vocab_size * d_model}


def _count_inputs(rng):
    D = 16 * rng.randint(3, 64)
    return rng.choice([512, 4096, 50_257]), D, rng.randint(2, 40), rng.randint(2 * D, 4 * D), rng.random() < 0.5


def _changed(part, change):
    def mutant(vocab_size, d_model, n_layers, d_ff, is_tied):
        n = count_parameters(vocab_size, d_model, n_layers, d_ff, is_tied)
        return n | {part: change(n[part], vocab_size, d_model, n_layers, d_ff)}
    mutant.__name__ = f"_wrong_{part.replace('-', '_')}"
    return mutant


def _tie_turned_round(vocab_size, d_model, n_layers, d_ff, is_tied):
    return count_parameters(vocab_size, d_model, n_layers, d_ff, not is_tied)


# ---- 4.7

def flops_a_token(vocab_size, d_model, n_layers, d_ff, context):
    """FLOPs of one token's forward pass, the mean over a causal text of context tokens: two for each weight of a product, and scores.

    A query meets (context + 1) / 2 sources on average, twice: for its scores, and for the sum of the values.
    """
    weights = n_layers * (4 * d_model**2 + 3 * d_model * d_ff) + vocab_size * d_model
    return 2 * weights + n_layers * 2 * 2 * d_model * (context + 1) / 2


def _flops_inputs(rng):
    D = 16 * rng.randint(3, 64)
    return rng.choice([512, 4096, 50_257]), D, rng.randint(2, 40), rng.randint(2 * D, 4 * D), rng.choice([128, 1024, 8192])


def _one_for_a_weight(V, D, L, d_ff, T):
    return flops_a_token(V, D, L, d_ff, T) - (L * (4 * D**2 + 3 * D * d_ff) + V * D)


def _no_scores(V, D, L, d_ff, T):
    return 2 * (L * (4 * D**2 + 3 * D * d_ff) + V * D)


def _embedding_works(V, D, L, d_ff, T):
    return flops_a_token(V, D, L, d_ff, T) + 2 * V * D


def _no_head(V, D, L, d_ff, T):
    return flops_a_token(V, D, L, d_ff, T) - 2 * V * D


def _future_too(V, D, L, d_ff, T):
    return flops_a_token(V, D, L, d_ff, 2 * T - 1)


def _scores_alone(V, D, L, d_ff, T):
    return flops_a_token(V, D, L, d_ff, T) - L * 2 * D * (T + 1) / 2


def _scores_of_one_layer(V, D, L, d_ff, T):
    return flops_a_token(V, D, L, d_ff, T) - (L - 1) * 4 * D * (T + 1) / 2


def _whole_text(V, D, L, d_ff, T):
    return T * flops_a_token(V, D, L, d_ff, T)


# ---- 4.5

def halves_from_pairs(w, n_heads):
    """The rows of a query's or key's matrix, moved from neighbouring pairs (0, 1), (2, 3), … to halves (0, d/2), (1, d/2 + 1), … in each head.

    w: (H Dh, D). Returns the same shape.
    """
    heads = w.unflatten(0, (n_heads, -1, 2))             # (H, Dh / 2, 2, D)
    return heads.transpose(1, 2).flatten(0, 2)


def _rows_inputs(rng):
    n_heads, d_head = rng.choice([2, 3, 5]), rng.choice([6, 8, 10])
    return torch.randn(n_heads * d_head, 7, generator=_generator(rng)), n_heads


def _pairs_from_halves(w, n_heads):
    return w.unflatten(0, (n_heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _across_heads(w, n_heads):
    return torch.cat([w[0::2], w[1::2]])


def _unmoved(w, n_heads):
    return w.clone()


def _second_first(w, n_heads):
    return w.unflatten(0, (n_heads, -1, 2)).flip(2).transpose(1, 2).flatten(0, 2)


# ---- 4.8 and 4.9: tests that find a bug

CONFIG = ModelConfig(vocab_size=31, d_model=24, n_layers=2, max_seq_len=64, attention="mha", n_heads=3, d_head=8, d_value=8, d_ff=40,
                     n_experts=0, mtp_depth=0)


def model_of(rng, *bugs):
    """A model with weights large enough that a mistake shows, right or with one of bugs."""
    model, g = Transformer(CONFIG).eval(), _generator(rng)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=g)
    for block in model.layers:                           # norms that change what passes
        block.attention_norm.weight.data.abs_().add_(1.2)
    bug = rng.choice([None, *bugs])
    return plant(model, bug) if bug else model


def _tokens(rng, T=9):
    return torch.randint(CONFIG.vocab_size, (2, T), generator=_generator(rng))


@torch.no_grad()
def cannot_see_the_future(model, tokens):
    """Whether another last token leaves all logits before it as they were. tokens: (B, T)."""
    other = tokens.clone()
    other[:, -1] = (other[:, -1] + 1) % model.config.vocab_size
    return torch.allclose(model(tokens).logits[:, :-1], model(other).logits[:, :-1], atol=1e-4)


def _future_inputs(rng):
    return model_of(rng, OverTokens), _tokens(rng)


@torch.no_grad()
def stream_is_untouched(block, h, place):
    """Whether a layer whose branches give nothing passes its input on as it is. block(h, place) returns the new h, and None."""
    block.attention.w_o.weight.zero_()
    block.ffn.w_down.weight.zero_()
    return torch.allclose(block(h, place)[0], h, atol=1e-5)


def _stream_test_inputs(rng):
    model = model_of(rng, NormedResidual)
    h = torch.randn(2, 6, CONFIG.d_model, generator=_generator(rng))
    return model.layers[0], h, Place.of(model.rope, 6, h.device)


EXERCISES = [
    Exercise(
        solution=rms_norm, inputs=_norm_inputs, tolerance=1e-4,
        hint="Square, take the mean over the last axis (keepdim=True), add eps, take the root; divide by it, then multiply by weight.",
        mutants=(
            Mutant(function=_sum_for_mean, hint="This divides by the length of the vector. The mean of the squares, not their sum."),
            Mutant(function=_layer_norm, hint="This subtracts the mean first, as LayerNorm does. RMSNorm leaves it in."),
            Mutant(function=_no_weight, hint="The learned weight is missing: one number for each of the D places."),
            Mutant(function=_over_everything, hint="Each token is normed by itself: the mean runs over the last axis alone."),
            Mutant(function=_over_tokens, hint="Your mean runs over the tokens, so that each feels the others. It belongs over the last axis, a token's own numbers."),
            Mutant(function=_no_root, hint="This divides by the mean square. Its root is missing."),
        )),
    Exercise(
        solution=swiglu, inputs=_swiglu_inputs, tolerance=1e-4,
        hint="Two products up, gate and up. silu(gate) = gate * sigmoid(gate). Multiply it with up, number by number, then go down.",
        mutants=(
            Mutant(function=_sigmoid_gate, hint="silu(z) is z * sigmoid(z); yours is the sigmoid alone, which is the older GLU."),
            Mutant(function=_no_gate, hint="One of the two projections up is not used."),
            Mutant(function=_no_up, hint="w_up is not used: the gate has to multiply something."),
            Mutant(function=_both_bent, hint="SiLU bends the gate alone; up passes as it is."),
            Mutant(function=_relu_gate, hint="This bends the gate with a ReLU. SiLU is z * sigmoid(z)."),
            Mutant(function=_gate_added, hint="The gate multiplies; yours adds."),
            Mutant(function=_silu_of_both, hint="SiLU bends the gate alone, before the two are multiplied."),
            Mutant(function=_silu_on_up, hint="SiLU went to the other projection. A new model would learn as well; these weights expect it on the gate."),
        )),
    Exercise(
        solution=stream_rms, inputs=_stream_inputs,
        hint="Independent vectors add like the sides of a right angle: their squares add. How many branches does a layer have?",
        mutants=(
            Mutant(function=_added_up, hint="That is for branches that all point the same way. These point anywhere: squares add."),
            Mutant(function=_one_branch, hint="A layer adds twice: attention, then feed-forward."),
            Mutant(function=_forgot_the_start, hint="The stream begins with the embedding, whose RMS is start."),
            Mutant(function=_mean_square, hint="This is the mean square. The R in RMS is a root."),
        )),
    Exercise(
        solution=init_std, inputs=_init_inputs,
        hint="An output is a sum of d_in products, each of variance std^2. The variance of a sum of independent numbers is the sum.",
        mutants=(
            Mutant(function=_variance, hint="Variances add, so it is the root of d_in that counts."),
            Mutant(function=_times_root, hint="The more numbers are summed, the smaller each weight must be."),
            Mutant(function=_root_of_both, hint="The root belongs to d_in alone: RMS and std are both roots already."),
            Mutant(function=_always_one, hint="This gives outputs of RMS 1, whatever is wanted."),
        )),
    Exercise(
        solution=count_parameters, inputs=_count_inputs,
        hint="Attention has four D x D matrices a layer, SwiGLU three D x F ones, and there are two norms a layer and one at the end.",
        mutants=(
            Mutant(function=_changed("feed-forward", lambda n, V, D, L, F: 2 * n // 3), hint="SwiGLU has three matrices: gate, up and down."),
            Mutant(function=_changed("norms", lambda n, V, D, L, F: 2 * L * D), hint="One more norm stands before the head."),
            Mutant(function=_changed("head", lambda n, V, D, L, F: V * D), hint="A tied head is the embedding, counted there."),
            Mutant(function=_changed("head", lambda n, V, D, L, F: 0), hint="A head that is not tied has a matrix of its own, V x D."),
            Mutant(function=_tie_turned_round, hint="The tie is turned round: it is the tied head that counts 0."),
            Mutant(function=_changed("attention", lambda n, V, D, L, F: n // L), hint="Every layer has its own four matrices of attention."),
            Mutant(function=_changed("feed-forward", lambda n, V, D, L, F: n // L), hint="Every layer has its own feed-forward network."),
            Mutant(function=_changed("attention", lambda n, V, D, L, F: 3 * n // 4),
                   hint="Four matrices: queries, keys, values, and w_o, which leads back."),
            Mutant(function=_changed("norms", lambda n, V, D, L, F: 2 * L + 1), hint="A norm has a weight for each of the D numbers."),
        )),
    Exercise(
        solution=flops_a_token, inputs=_flops_inputs,
        hint="Two for each weight of a matrix product (layers and head), and a layer's 4 D (T + 1) / 2 for scores and sums.",
        mutants=(
            Mutant(function=_one_for_a_weight, hint="A multiplication and its addition are two operations."),
            Mutant(function=_no_scores, hint="Queries meet keys, and weights meet values: no parameters, and work all the same."),
            Mutant(function=_embedding_works, hint="To look up a row is no product: the embedding costs nothing on the way in."),
            Mutant(function=_no_head, hint="The head multiplies with V rows, tied or not."),
            Mutant(function=_scores_alone, hint="Twice: 2 D for the score, and 2 D for the sum of the values."),
            Mutant(function=_scores_of_one_layer, hint="Every layer has its own scores and sums."),
            Mutant(function=_whole_text, hint="This is the whole text. The work of one token was asked for."),
            Mutant(function=_future_too, hint="A query meets no token that comes after it: on average half of the text, (T + 1) / 2."),
        )),
    Exercise(
        solution=halves_from_pairs, inputs=_rows_inputs,
        hint="w.unflatten(0, (n_heads, -1, 2)) has an axis for heads, for pairs, and for the place in a pair. Which two change places?",
        mutants=(
            Mutant(function=_pairs_from_halves, hint="This is the way back, from halves to pairs."),
            Mutant(function=_across_heads, hint="Rows wandered from one head to another. Each head keeps its own."),
            Mutant(function=_second_first, hint="Within a head 0, 2, 4, … come first; yours begins with 1, 3, 5, …"),
            Mutant(function=_unmoved, hint="Nothing has moved: row 1 of a head must become row d/2."),
        )),
    Exercise(
        solution=cannot_see_the_future, inputs=_future_inputs, n_trials=10,
        hint="Change the last token in a copy, run both, and compare the logits of all places before it (torch.allclose, atol=1e-4).",
        mutants=wrong_tests(cannot_see_the_future, of="model",
                            accepts_all="Is the other text really another? And compare numbers, not shapes.",
                            refuses_all="The last place may change, of course: leave its logits out. Rounding needs atol=1e-4.")),
    Exercise(
        solution=stream_is_untouched, inputs=_stream_test_inputs, n_trials=10,
        hint="Set w_o and w_down to zero, run the block, and compare what comes out with h itself.",
        mutants=wrong_tests(stream_is_untouched, of="model",
                            accepts_all="Compare with h, not with a normed h; and do silence both branches.",
                            refuses_all="block(h, place) returns two things; take the first. Both w_o and w_down must be zero.")),
]
