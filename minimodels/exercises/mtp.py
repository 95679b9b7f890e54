"""Exercises of chapter 09."""

import torch
from torch.nn import functional as F

from minimodels.exercises import Exercise, Mutant, wrong_tests


def _generator(rng):
    return torch.Generator().manual_seed(rng.randrange(2**31))


def _tokens(rng, low=4, high=9):
    return rng.sample(range(2, 60), rng.randint(low, high))


# ---- 9.1

def rows_of(tokens, k):
    """What module k is trained on: a triple for each position, the token there, the one that the module is handed, and its target."""
    return [(tokens[i], tokens[i + k], tokens[i + k + 1]) for i in range(len(tokens) - k - 1)]


def _rows_inputs(rng):
    tokens = _tokens(rng, 5, 9)
    return tokens, rng.choice([1, 2, 3])


def _handed_the_answer(tokens, k):
    return [(a, c, c) for a, b, c in rows_of(tokens, k)]


def _next_alone(tokens, k):
    return [(tokens[i], tokens[i + 1], tokens[i + 2]) for i in range(len(tokens) - 2)]


def _one_too_near(tokens, k):
    return [(tokens[i], tokens[i + k - 1], tokens[i + k]) for i in range(len(tokens) - k)]


# ---- 9.2

def join(h, embedded, w):
    """What the block of the first module reads: the normed state of token i beside the normed embedding of token i + 1, times w.

    h, embedded: (T, D), of the same T tokens; w: (D, 2 D). Returns (T - 1, D). The norms have no weights here.
    """
    D = h.shape[-1]
    return torch.cat([F.rms_norm(h[:-1], (D,)), F.rms_norm(embedded[1:], (D,))], -1) @ w.T


def _join_inputs(rng):
    g, T, D = _generator(rng), rng.randint(3, 6), 5
    return 3 * torch.randn(T, D, generator=g), torch.randn(T, D, generator=g), torch.randn(D, 2 * D, generator=g)


def _not_shifted(h, embedded, w):
    return join(h, torch.cat([embedded[:1], embedded[:-1]]), w)


def _uncut(h, embedded, w):
    D = h.shape[-1]
    return torch.cat([F.rms_norm(h, (D,)), F.rms_norm(embedded, (D,))], -1) @ w.T


def _embedding_first(h, embedded, w):
    D = h.shape[-1]
    return join(h, embedded, torch.cat([w[:, D:], w[:, :D]], -1))


def _one_norm(h, embedded, w):
    both = torch.cat([h[:-1], embedded[1:]], -1)
    return F.rms_norm(both, both.shape[-1:]) @ w.T


def _no_norm(h, embedded, w):
    return torch.cat([h[:-1], embedded[1:]], -1) @ w.T


# ---- 9.3

def training_loss(losses, weight):
    """The main model's loss, which is the first, and weight times the mean of the others. Source: DeepSeek-V3 eqs. 24, 25."""
    main, *others = losses
    return main + weight * sum(others) / len(others)


def _loss_inputs(rng):
    return [round(rng.uniform(1, 6), 2) for _ in range(rng.randint(2, 4))], rng.choice([0.1, 0.3, 0.5])


def _summed(losses, weight):
    return losses[0] + weight * sum(losses[1:])


def _mean_of_all(losses, weight):
    return losses[0] + weight * sum(losses) / len(losses)


def _shared_out(losses, weight):
    return (1 - weight) * losses[0] + weight * sum(losses[1:]) / len(losses[1:])


# ---- 9.4

def written(draft, wanted):
    """The tokens that a pass writes: drafts as long as they are what the main model wants, and one token more.

    draft: n tokens; wanted: n + 1, the main model's likeliest token at its last token and behind each draft.
    """
    n = 0
    while n < len(draft) and draft[n] == wanted[n]:
        n += 1
    return wanted[:n + 1]


def _written_inputs(rng):
    wanted = [rng.randrange(10, 99) for _ in range(rng.randint(2, 5))]
    draft = [w if rng.random() < 0.6 else rng.randrange(10) for w in wanted[:-1]]
    return draft, wanted


def _drafts_alone(draft, wanted):
    return written(draft, wanted)[:-1]


def _all_that_match(draft, wanted):
    return [w for d, w in zip(draft, wanted) if d == w] + wanted[-1:]


def _wrong_draft_kept(draft, wanted):
    n = len(written(draft, wanted))
    return (draft + wanted[-1:])[:n]


def _what_was_drafted(draft, wanted):
    return draft[:len(written(draft, wanted))]


def _nothing_on_top(draft, wanted):
    return written(draft, wanted)[:len(draft)]


def _as_if_all_stood(draft, wanted):
    return list(wanted)


# ---- 9.5

def chance(p, q):
    """How likely a draft stands that is drawn from q: the sum over all tokens of q times min(1, p / q), which is min(p, q)."""
    return sum(min(a, b) for a, b in zip(p, q))


def law(rng, n, unit=20):
    """n probabilities above 0, in whole units, that sum to 1."""
    cuts = sorted(rng.sample(range(1, unit), n - 1))
    return [(b - a) / unit for a, b in zip([0, *cuts], [*cuts, unit])]


def _laws(rng):
    """Two different laws over as many tokens."""
    n = rng.randint(2, 5)
    p = q = law(rng, n)
    while p == q:
        q = law(rng, n)
    return p, q


def _both_draw_it(p, q):
    return sum(a * b for a, b in zip(p, q))


def _whole_distance(p, q):
    return 1 - sum(abs(a - b) for a, b in zip(p, q))


def _ratios(p, q):
    return sum(min(1, a / b) for a, b in zip(p, q)) / len(p)


# ---- 9.6

def replacement(p, q):
    """The law of the token that replaces a rejected draft: (p - q)+, made to sum to 1. Source: Leviathan et al. (2023), section 2.3."""
    rest = [max(a - b, 0) for a, b in zip(p, q)]
    return [r / sum(rest) for r in rest]


def _p_again(p, q):
    return list(p)


def _not_summing(p, q):
    return [max(a - b, 0) for a, b in zip(p, q)]


def _what_q_has_too_much(p, q):
    return replacement(q, p)


def _distances(p, q):
    rest = [abs(a - b) for a, b in zip(p, q)]
    return [r / sum(rest) for r in rest]


# ---- 9.7: a test that finds a wrong rule

P, Q = [0.5, 0.3, 0.15, 0.05], [0.1, 0.1, 0.1, 0.7]


def drawn_by(rule, generator):
    """A function that draws n tokens with drafts from Q, by a rule: right, p again, or p alone."""
    p, q = torch.tensor(P), torch.tensor(Q)

    def draw(n):
        draft = torch.multinomial(q, n, replacement=True, generator=generator)
        u = torch.rand(n, generator=generator)
        stands = u < (p[draft] if rule == "p alone" else p[draft] / q[draft])
        rest = torch.tensor(replacement(P, Q)) if rule == "right" else p
        return torch.where(stands, draft, torch.multinomial(rest, n, replacement=True, generator=generator))

    return draw


def keeps_the_law(draw, p):
    """Whether draw(n), n tokens, has the law p: a chi-square of 20,000 of them, whose mean is 3 if it has."""
    n = 20_000
    count = torch.bincount(draw(n), minlength=len(p)).tolist()
    chi_square = sum((c - n * x) ** 2 / (n * x) for c, x in zip(count, p))
    return chi_square < 40


def _too_lenient(draw, p):
    """A threshold of 0.05, wider than rule one is wrong."""
    n = 20_000
    count = torch.bincount(draw(n), minlength=len(p)).tolist()
    return max(abs(c / n - x) for c, x in zip(count, p)) < 0.05


def _law_inputs(rng):
    return drawn_by(rng.choice(["right", "p again", "p alone"]), _generator(rng)), P


# ---- 9.8

def repeats(tokens, n):
    """For each token, whether it ends n tokens in a row that stood, in this order, in the text before."""
    seen, found = set(), []
    for i in range(len(tokens)):
        gram = tuple(tokens[i - n + 1:i + 1]) if i >= n - 1 else None
        found.append(gram in seen)
        if gram:
            seen.add(gram)
    return found


def _repeats_inputs(rng):
    n = rng.choice([2, 3])
    phrase = [rng.randrange(5) for _ in range(rng.randint(n, 5))]
    return [*phrase, *(rng.randrange(5) for _ in range(rng.randint(0, 3))), *phrase, *phrase[:n]], n


def _token_alone(tokens, n):
    return [token in tokens[:i] for i, token in enumerate(tokens)]


def _also_later(tokens, n):
    grams = [tuple(tokens[i - n + 1:i + 1]) if i >= n - 1 else None for i in range(len(tokens))]
    return [gram is not None and grams.count(gram) > 1 for gram in grams]


def _without_overlap(tokens, n):
    return [i >= n - 1 and any(tokens[j:j + n] == tokens[i - n + 1:i + 1] for j in range(i - 2 * n + 2)) for i in range(len(tokens))]


def _one_longer(tokens, n):
    return repeats(tokens, n + 1)


# ---- 9.9

def speed_up(share, n, check_ms, draft_ms):
    """How many times as fast writing is with n drafts a pass, each of which stands with probability share if those before it did.

    check_ms: of a pass of the main model over 1, 2, ..., tokens; draft_ms: of one draft.
    """
    tokens = sum(share**k for k in range(n + 1))
    return tokens * check_ms[0] / (check_ms[n] + n * draft_ms)


def _speed_inputs(rng):
    check = [10.0]
    while len(check) < 5:
        check.append(check[-1] + rng.randint(1, 3))
    return rng.choice([0.0, 1.0, *[round(rng.uniform(0.3, 0.95), 2) for _ in range(4)]]), rng.randint(2, 4), check, float(rng.randint(1, 5))


def _each_counts_alone(share, n, check_ms, draft_ms):
    return (1 + n * share) * check_ms[0] / (check_ms[n] + n * draft_ms)


def _drafts_are_free(share, n, check_ms, draft_ms):
    return sum(share**k for k in range(n + 1)) * check_ms[0] / check_ms[n]


def _checks_are_free(share, n, check_ms, draft_ms):
    return sum(share**k for k in range(n + 1)) * check_ms[0] / (check_ms[0] + n * draft_ms)


def _one_draft_timed(share, n, check_ms, draft_ms):
    return sum(share**k for k in range(n + 1)) * check_ms[0] / (check_ms[n] + draft_ms)


def _no_token_of_its_own(share, n, check_ms, draft_ms):
    return sum(share**k for k in range(1, n + 1)) * check_ms[0] / (check_ms[n] + n * draft_ms)


EXERCISES = [
    Exercise(
        solution=rows_of, inputs=_rows_inputs,
        hint="Position i has token i, is handed token i + k, and predicts token i + k + 1. The last k + 1 tokens start no row.",
        mutants=(
            Mutant(function=_handed_the_answer, hint="The module is handed the token that it is to predict. Such a module learns to copy, and its loss falls to nothing."),
            Mutant(function=_next_alone, hint="This is the first module, whatever k is. Module k is handed the token k places ahead."),
            Mutant(function=_one_too_near, hint="Everything stands one place too near: the main model predicts i + 1, and module k predicts i + k + 1."),
        )),
    Exercise(
        solution=join, inputs=_join_inputs, tolerance=1e-4,
        hint="State i goes with embedding i + 1: h[:-1] and embedded[1:]. Norm each by itself, put the state first, multiply by w transposed.",
        mutants=(
            Mutant(function=_not_shifted, hint="The embeddings are not shifted: state i needs the token one further ahead, embedded[1:]."),
            Mutant(function=_uncut, hint="State i stands beside embedding i: nothing is shifted. Cut a row from each: h[:-1] and embedded[1:]."),
            Mutant(function=_embedding_first, hint="The state comes first, then the embedding: w was made for that order."),
            Mutant(function=_one_norm, hint="Each half has a norm of its own. One norm for both lets the longer half drown the other."),
            Mutant(function=_no_norm, hint="Nothing is normed. A state is many times as long as an embedding."),
        )),
    Exercise(
        solution=training_loss, inputs=_loss_inputs,
        hint="The first loss as it is, plus weight times the mean of the rest.",
        mutants=(
            Mutant(function=_summed, hint="The modules' losses are averaged, not added up: equation (9.3) takes their mean."),
            Mutant(function=_mean_of_all, hint="The main loss is in your mean, too. The mean is over the modules alone."),
            Mutant(function=_shared_out, hint="The main loss keeps its full weight; the modules' comes on top."),
        )),
    Exercise(
        solution=written, inputs=_written_inputs,
        hint="Count the drafts from the left that equal the wanted token. Then return that many wanted tokens, and one more.",
        mutants=(
            Mutant(function=_drafts_alone, hint="One token is missing: behind the last draft that stands, the pass has computed the next token anyway."),
            Mutant(function=_all_that_match, hint="Behind the first wrong draft nothing counts: what the model wanted there rests on a token that is not in the text."),
            Mutant(function=_wrong_draft_kept, hint="At the first wrong draft the text gets what the model wanted, not what was drafted."),
            Mutant(function=_what_was_drafted, hint="You return drafts, the first wrong one with them. Return what was wanted: as many tokens as stand, and one more."),
            Mutant(function=_nothing_on_top, hint="Where all drafts stand there is one token more: what the model wants behind the last of them."),
            Mutant(function=_as_if_all_stood, hint="You return all that the model wanted. Where a draft is wrong, what stands behind it is worthless."),
        )),
    Exercise(
        solution=chance, inputs=_laws,
        hint="Draft x comes with probability q(x), and stands with min(1, p(x) / q(x)). Multiply, and add up over x.",
        mutants=(
            Mutant(function=_both_draw_it, hint="That is the chance that two separate draws agree. The rule asks for less: it only wants the law to be p."),
            Mutant(function=_whole_distance, hint="Half of the distance is lost, not all: what p has too much is what q has too little."),
            Mutant(function=_ratios, hint="Tokens are drafted with probability q, not evenly: weigh each ratio with q(x)."),
        )),
    Exercise(
        solution=replacement, inputs=_laws,
        hint="max(p - q, 0) for each token, divided by the sum of these.",
        mutants=(
            Mutant(function=_p_again, hint="From p itself, what q likes comes too often: it was offered once already. Take only what is missing, (p - q)+."),
            Mutant(function=_not_summing, hint="The numbers are right up to a factor: a law sums to 1."),
            Mutant(function=_what_q_has_too_much, hint="This is what q has too much. Accepted drafts fall short where p is larger."),
            Mutant(function=_distances, hint="Where q is larger than p nothing is missing: take 0 there, not the distance."),
        )),
    Exercise(
        solution=keeps_the_law, inputs=_law_inputs, n_trials=12,
        hint="Draw some 20,000 tokens, count each, and compare the counts with n times p: a chi-square, or shares within 0.02.",
        mutants=(*wrong_tests(keeps_the_law, of="rule",
                              accepts_all="Do you compare with p, token by token? The wrong rules miss by 0.03 and by 0.075 where they miss most.",
                              refuses_all="Shares scatter: with 20,000 draws those within 0.02 are equal, with 500 not even the right rule's are."),
                 Mutant(function=_too_lenient, hint="You refuse one wrong rule and accept the other, which misses by 0.0285 where it misses most. "
                                                    "Let less pass, and draw more if that refuses the right one."))),
    Exercise(
        solution=repeats, inputs=_repeats_inputs,
        hint="Go from left to right and keep a set of the n-tuples that have ended so far. Look before you add.",
        mutants=(
            Mutant(function=_token_alone, hint="You look at single tokens. n in a row must have been there, in this order."),
            Mutant(function=_also_later, hint="A run that comes again *later* is new when it comes first. Look only at what stood before."),
            Mutant(function=_without_overlap, hint="Runs may overlap: in 1 1 1 the second 1 1 has stood there before."),
            Mutant(function=_one_longer, hint="You ask for one token more than n."),
        )),
    Exercise(
        solution=speed_up, inputs=_speed_inputs,
        hint="Tokens of a pass: 1 + a + a^2 + … + a^n, where a is the share. Its time: check_ms[n], which reads n + 1 tokens, and n drafts. Without drafts: one token in check_ms[0].",
        mutants=(
            Mutant(function=_each_counts_alone, hint="The second draft counts only if the first stood, too: share times share."),
            Mutant(function=_drafts_are_free, hint="Drafts take time, too: n of them in each pass."),
            Mutant(function=_checks_are_free, hint="The pass reads n + 1 tokens: check_ms[n], not check_ms[0]."),
            Mutant(function=_one_draft_timed, hint="n drafts are made in a pass, one after the other."),
            Mutant(function=_no_token_of_its_own, hint="One token is certain: the model's own. The sum begins at 1."),
        )),
]
