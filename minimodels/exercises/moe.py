"""Exercises of chapter 07."""

import math

import torch

from minimodels.bugs import plant
from minimodels.bugs.moe import BiasInWeight, DeadExpert, Dropping
from minimodels.config import ModelConfig
from minimodels.exercises import Exercise, Mutant, wrong_tests
from minimodels.moe import Gate, MoE, Routing


def _generator(rng):
    return torch.Generator().manual_seed(rng.randrange(2**31))


# ---- 7.1

def choose_and_weigh(score, bias, top_k):
    """A token's top_k experts by score + bias, the best first, and their weights, by score alone, which sum to 1: two lists."""
    biased = [s + b for s, b in zip(score, bias)]
    expert = sorted(range(len(score)), key=lambda e: -biased[e])[:top_k]
    total = sum(score[e] for e in expert)
    return expert, [score[e] / total for e in expert]


def _gate_inputs(rng):
    E = rng.randint(4, 7)
    score, biased = rng.sample(range(1, 20), E), rng.sample(range(5, 30), E)    # no two alike, so that no order is a matter of taste
    return score, [b - s for s, b in zip(score, biased)], rng.randint(2, 3)


def _bias_in_weight(score, bias, top_k):
    biased = [s + b for s, b in zip(score, bias)]
    return choose_and_weigh(biased, [0] * len(bias), top_k)


def _bias_forgotten(score, bias, top_k):
    return choose_and_weigh(score, [0] * len(bias), top_k)


def _scores_as_they_are(score, bias, top_k):
    expert, _ = choose_and_weigh(score, bias, top_k)
    return expert, [score[e] for e in expert]


def _normed_over_all(score, bias, top_k):
    expert, _ = choose_and_weigh(score, bias, top_k)
    return expert, [score[e] / sum(score) for e in expert]


# ---- 7.2

def combinations(n_experts, top_k, pieces):
    """How many sets of experts a token may get when each of n_experts is cut into pieces and as many times top_k are chosen."""
    return math.comb(n_experts * pieces, top_k * pieces)


def _combination_inputs(rng):
    n = rng.choice([6, 8, 12, 16])
    return n, rng.choice([2, 3]), rng.choice([2, 3, 4])


def _choices_as_before(n_experts, top_k, pieces):
    return math.comb(n_experts * pieces, top_k)


def _in_order(n_experts, top_k, pieces):
    return math.perm(n_experts * pieces, top_k * pieces)


def _with_repetition(n_experts, top_k, pieces):
    return (n_experts * pieces)**(top_k * pieces)


# ---- 7.3

def rows_by_expert(expert, n_experts):
    """Sort all (token, choice) pairs by expert, the earlier token first. expert: (T, K).

    Returns token (T K), whose token each row is, and counts, a list: rows of each expert.
    """
    order = expert.flatten().argsort(stable=True)
    return order // expert.shape[1], torch.bincount(expert.flatten(), minlength=n_experts).tolist()


def _rows_inputs(rng):
    E, K, T = rng.randint(6, 8), rng.choice([2, 3]), rng.randint(3, 5)
    return torch.stack([torch.randperm(E - 1, generator=_generator(rng))[:K] for _ in range(T)]), E    # the last expert gets nothing


def _pairs_for_tokens(expert, n_experts):
    return expert.flatten().argsort(stable=True), rows_by_expert(expert, n_experts)[1]


def _idle_left_out(expert, n_experts):
    token, counts = rows_by_expert(expert, n_experts)
    return token, [n for n in counts if n]


def _remainder_for_quotient(expert, n_experts):
    return expert.flatten().argsort(stable=True) % len(expert), rows_by_expert(expert, n_experts)[1]


def _left_in_order(expert, n_experts):
    return torch.arange(expert.numel()) // expert.shape[1], rows_by_expert(expert, n_experts)[1]


# ---- 7.4

def rows_that_learn(chosen, n_experts, gate, is_normalised):
    """Which rows of a gate's matrix one token's weights send a gradient to, a truth value for each expert.

    chosen: the token's experts. gate: sigmoid, or softmax over all experts. is_normalised: weights are divided by their sum.
    """
    if is_normalised and len(chosen) == 1:
        return [False] * n_experts
    if gate == "softmax" and not is_normalised:
        return [True] * n_experts
    return [e in chosen for e in range(n_experts)]


def _learn_inputs(rng):
    E = rng.randint(4, 6)
    return sorted(rng.sample(range(E), rng.choice([1, 1, 2, 3]))), E, rng.choice(["sigmoid", "softmax"]), rng.choice([True, False])


def _the_chosen(chosen, n_experts, gate, is_normalised):
    return [e in chosen for e in range(n_experts)]


def _softmax_reaches_all(chosen, n_experts, gate, is_normalised):
    if is_normalised and len(chosen) == 1:
        return [False] * n_experts
    return [gate == "softmax" or e in chosen for e in range(n_experts)]


def _one_learns_too(chosen, n_experts, gate, is_normalised):
    return [gate == "softmax" and not is_normalised or e in chosen for e in range(n_experts)]


def _one_never_learns(chosen, n_experts, gate, is_normalised):
    return [False] * n_experts if len(chosen) == 1 else rows_that_learn(chosen, n_experts, gate, is_normalised)


# ---- 7.5

def bits_told(counts):
    """The mutual information of row and column, in bits. counts: a list of rows, how often each pair was seen."""
    total = sum(map(sum, counts))
    rows, columns = [sum(row) for row in counts], [sum(column) for column in zip(*counts)]
    return sum(n / total * math.log2(n * total / (rows[i] * columns[j])) for i, row in enumerate(counts) for j, n in enumerate(row) if n)


def _counts_inputs(rng):
    rows, columns = rng.randint(2, 4), rng.randint(2, 4)
    return [[rng.choice([0, 1, 2, 5, 9, 20]) + (i == 0) + (j == 0) for j in range(columns)] for i in range(rows)],


def _in_nats(counts):
    return bits_told(counts) * math.log(2)


def _uncertainty(counts):
    total, columns = sum(map(sum, counts)), [sum(column) for column in zip(*counts)]
    return -sum(n / total * math.log2(n / total) for n in columns if n)


def _what_is_left(counts):
    return _uncertainty(counts) - bits_told(counts)


def _cells_alike(counts):
    total = sum(map(sum, counts))
    rows, columns = [sum(row) for row in counts], [sum(column) for column in zip(*counts)]
    cells = [math.log2(n * total / (rows[i] * columns[j])) for i, row in enumerate(counts) for j, n in enumerate(row) if n]
    return sum(cells) / len(cells)


# ---- 7.6 to 7.8: tests that find a bug

CONFIG = ModelConfig(vocab_size=11, d_model=12, n_layers=1, n_dense_layers=0, max_seq_len=64, n_heads=3, d_head=4, d_rope=4, d_value=4, d_latent=8,
                     n_experts=5, top_k=2, n_shared=1, d_expert=6, mtp_depth=0)


def layer_of(rng, *bugs):
    """A layer of experts with weights large enough that a mistake shows and a small bias, right or with one of bugs (None: right, once more)."""
    layer, g = MoE(CONFIG), _generator(rng)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=g)
    layer.gate.bias.normal_(std=0.02, generator=g)
    bug = rng.choice([None, *bugs])
    return plant(layer, bug) if bug else layer


def _hidden(rng):
    return torch.randn(4, 8, CONFIG.d_model, generator=_generator(rng))


def bias_only_chooses(layer, h):
    """Whether a bias that is raised for all experts alike leaves the layer's output as it was."""
    y = layer(h)[0]
    layer.gate.bias += 1
    return torch.allclose(layer(h)[0], y, atol=1e-5)


def _bias_inputs(rng):
    return layer_of(rng, BiasInWeight), _hidden(rng)


def company_does_not_matter(layer, h):
    """Whether each sequence of h gets alone what it gets beside the others."""
    alone = torch.cat([layer(one[None])[0] for one in h])
    return torch.allclose(layer(h)[0], alone, atol=1e-5)


class _Queue(Gate):
    """Each expert takes eight rows and no more: the first sequence gets all that it wants, and alone every sequence does."""

    def forward(self, x):
        routing = super().forward(x)
        chosen = torch.nn.functional.one_hot(routing.expert, self.config.n_experts)  # (T, K, E)
        place = chosen.flatten(0, 1).cumsum(0).view_as(chosen).gather(2, routing.expert.unsqueeze(-1)).squeeze(-1)  # (T, K)
        return Routing(routing.score, routing.expert, routing.weight * (place <= 8), routing.load)


def _company_inputs(rng):
    return layer_of(rng, None, Dropping, _Queue), _hidden(rng)


def _only_the_first(layer, h):
    return torch.allclose(layer(h)[0][:1], layer(h[:1])[0], atol=1e-5)


def everyone_can_be_chosen(layer, h):
    """Whether each expert, given a very large bias, gets every token."""
    for e in range(len(layer.gate.bias)):
        layer.gate.bias.zero_()
        layer.gate.bias[e] = 100
        if layer(h)[1].load[e] != h.shape[0] * h.shape[1]:
            return False
    return True


class _FirstDead(Gate):
    """The choice begins one late."""

    def choose(self, biased):
        return biased[:, 1:].topk(self.config.top_k, dim=-1).indices + 1


def _everyone_inputs(rng):
    layer = layer_of(rng, None, DeadExpert, _FirstDead)
    if rng.random() < 0.5:
        layer.gate.bias[rng.randrange(CONFIG.n_experts)] -= 5    # one that nobody chooses, and that is not dead
    return layer, _hidden(rng)


def _by_its_load_now(layer, h):
    return bool((layer(h)[1].load > 0).all())


def _only_the_last(layer, h):
    layer.gate.bias.zero_()
    layer.gate.bias[-1] = 100
    return layer(h)[1].load[-1].item() == h.shape[0] * h.shape[1]


EXERCISES = [
    Exercise(
        solution=choose_and_weigh, inputs=_gate_inputs,
        hint="Sort the experts by score + bias and keep top_k. Then forget the bias: a weight is the expert's score over the sum of the chosen scores.",
        mutants=(
            Mutant(function=_bias_in_weight, hint="The bias is in the weights, too. It may choose an expert, and not say how much it counts."),
            Mutant(function=_bias_forgotten, hint="These are the best by score alone. The bias is added before the choice."),
            Mutant(function=_scores_as_they_are, hint="The right experts, and their scores as they are. Divide by the sum of the chosen scores."),
            Mutant(function=_normed_over_all, hint="You divided by the sum over all experts. Only the chosen ones share the token."),
        )),
    Exercise(
        solution=combinations, inputs=_combination_inputs,
        hint="Cutting multiplies both: there are n_experts * pieces of them, of which top_k * pieces are chosen, in no order.",
        mutants=(
            Mutant(function=_choices_as_before, hint="A piece does a piece of the work, so more of them are chosen: top_k * pieces."),
            Mutant(function=_in_order, hint="You counted orders. The outputs are added, so it does not matter which expert comes first."),
            Mutant(function=_with_repetition, hint="You let a token have the same expert twice. The chosen ones differ."),
        )),
    Exercise(
        solution=rows_by_expert, inputs=_rows_inputs,
        hint="expert.flatten() lists the pairs, K for each token. A stable argsort sorts them by expert; pair number i belongs to token i // K.",
        mutants=(
            Mutant(function=_pairs_for_tokens, hint="These are numbers of pairs, up to T K. Whose pair is number i, if each token has K?"),
            Mutant(function=_idle_left_out, hint="An expert without a token counts too: with 0. torch.bincount has an argument minlength."),
            Mutant(function=_remainder_for_quotient, hint="Pairs lie token by token, K in a row: divide by K, and drop the remainder."),
            Mutant(function=_left_in_order, hint="The rows are still in the tokens' order. Sort the pairs by expert first."),
        )),
    Exercise(
        solution=rows_that_learn, inputs=_learn_inputs, n_trials=60,
        hint="Return a truth value for each expert. Write down one weight as a function of the logits: a row learns if the weight changes when its "
             "logit does.",
        mutants=(
            Mutant(function=_the_chosen, hint="Two things are missing: a softmax's denominator, and what a quotient by itself is."),
            Mutant(function=_softmax_reaches_all, hint="A softmax's denominator holds all logits, but two weights divided by their sum have lost it."),
            Mutant(function=_one_learns_too, hint="One weight divided by the sum of one weight is 1, whatever the score."),
            Mutant(function=_one_never_learns, hint="With one expert it depends on the norm: a weight that is not divided by itself does change with its score."),
        )),
    Exercise(
        solution=bits_told, inputs=_counts_inputs,
        hint="Sum over cells: p(row, column) times log2 of p(row, column) / (p(row) p(column)). An empty cell adds nothing.",
        mutants=(
            Mutant(function=_in_nats, hint="These are nats: use the logarithm to base 2."),
            Mutant(function=_uncertainty, hint="This is how uncertain the column is before you know the row. How much of it does the row take away?"),
            Mutant(function=_what_is_left, hint="This is what remains uncertain once you know the row. What was taken away is asked."),
            Mutant(function=_cells_alike, hint="A cell counts as often as it was seen: weigh the logarithms by n / total."),
        )),
    Exercise(
        solution=bias_only_chooses, inputs=_bias_inputs, n_trials=10,
        hint="If all biases grow by the same number, the same experts win. Then the output may not move: torch.allclose, atol=1e-5.",
        mutants=wrong_tests(bias_only_chooses, of="layer",
                            accepts_all="Do you keep the first output, and compare it with the one after the biases were raised?",
                            refuses_all="Raise all biases by the same number; if one alone grows, others are chosen. And rounding needs atol=1e-5.")),
    Exercise(
        solution=company_does_not_matter, inputs=_company_inputs, n_trials=20,
        hint="Pass h at once, then each h[i:i + 1] alone, and compare: torch.allclose, atol=1e-5.",
        mutants=wrong_tests(company_does_not_matter, of="layer",
                            accepts_all="Do you compare each sequence alone with the same sequence beside the others, all of them?",
                            refuses_all="A layer returns a pair, its output and its routing: compare the outputs. And rounding needs atol=1e-5.")
        + (Mutant(function=_only_the_first, hint="The first sequence is served before all others. Compare each of them."),)),
    Exercise(
        solution=everyone_can_be_chosen, inputs=_everyone_inputs, n_trials=20,
        hint="Set one bias to 100 and the others to 0: that expert must get all tokens. Do so for each of them; routing.load counts.",
        mutants=wrong_tests(everyone_can_be_chosen, of="layer",
                            accepts_all="Do you try every expert, the first and the last one too?",
                            refuses_all="An expert gets a token once at most: load[e] is the number of tokens, not of choices. Set the other biases back to 0.")
        + (Mutant(function=_by_its_load_now, hint="An expert without a token may be unpopular and well. Give it a bias of 100 and look again."),
           Mutant(function=_only_the_last, hint="You try the last expert alone. Another may be dead."))),
]
