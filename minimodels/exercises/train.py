"""Exercises of chapter 05."""

import math

import torch

from minimodels.exercises import Exercise, Mutant


def _generator(rng):
    return torch.Generator().manual_seed(rng.randrange(2**31))


# ---- 5.1

def first_loss(vocab_size, logit_std):
    """The loss of an untrained model, in nats, whose logits are normal with this standard deviation and know nothing of the target.

    The target's logit is 0 in the mean, and the mean of exp(z) over normal logits is exp(logit_std**2 / 2).
    """
    return math.log(vocab_size) + logit_std**2 / 2


def _first_inputs(rng):
    return rng.choice([257, 512, 4096, 129_280]), rng.uniform(0.1, 1.5)


def _in_bits(vocab_size, logit_std):
    return math.log2(vocab_size) + logit_std**2 / 2


def _even_logits(vocab_size, logit_std):
    return math.log(vocab_size)


def _std_not_variance(vocab_size, logit_std):
    return math.log(vocab_size) + logit_std / 2


def _helps(vocab_size, logit_std):
    return math.log(vocab_size) - logit_std**2 / 2


# ---- 5.2

def rate_at(step, steps, warmup, decay):
    """The factor on the peak rate at step, counted from 1: warmup steps of rise, a plateau, decay steps of fall. No step has factor 0."""
    return min(1.0, step / warmup, (steps - step + 1) / decay)


def _rate_inputs(rng):
    warmup, decay = rng.randint(2, 9), rng.randint(3, 20)
    steps = warmup + decay + rng.randint(1, 20)
    first, last = (1, warmup), (steps - decay + 1, steps)
    return rng.randint(*rng.choice([first, first, last, last, (1, steps)])), steps, warmup, decay


def _first_step_lost(step, steps, warmup, decay):
    return min(1.0, (step - 1) / warmup, (steps - step + 1) / decay)


def _last_step_lost(step, steps, warmup, decay):
    return min(1.0, step / warmup, (steps - step) / decay)


def _no_plateau(step, steps, warmup, decay):
    return min(1.0, step / warmup, (steps - step + 1) / (steps - warmup))


def _falls_a_step_early(step, steps, warmup, decay):
    return min(1.0, step / warmup, (steps - step + 1) / (decay + 1))


def _never_falls(step, steps, warmup, decay):
    return min(1.0, step / warmup)


# ---- 5.3

def adamw_step(w, g, m, v, t, lr, decay):
    """One step of AdamW with beta1 = 0.9, beta2 = 0.95; t counts from 1. Tensors of one shape. Returns w, m, v, all new."""
    m = 0.9 * m + 0.1 * g
    v = 0.95 * v + 0.05 * g**2
    m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.95**t)
    return w - lr * decay * w - lr * m_hat / (v_hat.sqrt() + 1e-8), m, v


def _adamw_inputs(rng):
    g, t = _generator(rng), rng.randint(1, 6)
    w, gradient, m = (torch.randn(5, 3, generator=g) for _ in range(3))
    v = torch.rand(5, 3, generator=g) + 0.1
    if t == 1:
        m, v = torch.zeros(5, 3), torch.zeros(5, 3)
    return w, gradient, m, v, t, rng.choice([0.1, 0.03]), rng.choice([0.1, 0.5])


def _no_correction(w, g, m, v, t, lr, decay):
    m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
    return w - lr * decay * w - lr * m / (v.sqrt() + 1e-8), m, v


def _decay_in_gradient(w, g, m, v, t, lr, decay):
    return adamw_step(w, g + decay * w, m, v, t, lr, 0.0)


def _root_forgotten(w, g, m, v, t, lr, decay):
    m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
    return w - lr * decay * w - lr * m / (1 - 0.9**t) / (v / (1 - 0.95**t) + 1e-8), m, v


def _betas_swapped(w, g, m, v, t, lr, decay):
    m, v = 0.95 * m + 0.05 * g, 0.9 * v + 0.1 * g**2
    return w - lr * decay * w - lr * m / (1 - 0.95**t) / ((v / (1 - 0.9**t)).sqrt() + 1e-8), m, v


def _decay_without_rate(w, g, m, v, t, lr, decay):
    new, m, v = adamw_step(w, g, m, v, t, lr, 0.0)
    return new - decay * w, m, v


def _corrected_kept(w, g, m, v, t, lr, decay):
    new, m, v = adamw_step(w, g, m, v, t, lr, decay)
    return new, m / (1 - 0.9**t), v / (1 - 0.95**t)


# ---- 5.4

A, B, C = 3.4445, -4.7750, 2.0315    # Jordan et al. (2024)


def newton_schulz(g, n):
    """n rounds of X <- a X + b (X X^T) X + c (X X^T)^2 X, from g over its Frobenius norm. g: (rows, columns), rows <= columns."""
    x = g / g.norm()
    for _ in range(n):
        gram = x @ x.T
        x = A * x + B * gram @ x + C * gram @ gram @ x
    return x


def _schulz_inputs(rng):
    g = torch.randn(3, 5, generator=_generator(rng))
    return g * rng.choice([0.3, 2.0]), rng.randint(1, 5)


def _not_normed(g, n):
    x = g
    for _ in range(n):
        gram = x @ x.T
        x = A * x + B * gram @ x + C * gram @ gram @ x
    return x


def _entry_by_entry(g, n):
    x = g / g.norm()
    for _ in range(n):
        x = A * x + B * x**3 + C * x**5
    return x


def _cubic(g, n):
    x = g / g.norm()
    for _ in range(n):
        x = 1.5 * x - 0.5 * x @ x.T @ x
    return x


def _fifth_power_missing(g, n):
    x = g / g.norm()
    for _ in range(n):
        gram = x @ x.T
        x = A * x + B * gram @ x + C * gram @ x
    return x


def _schulz_from(x, n):
    for _ in range(n):
        gram = x @ x.T
        x = A * x + B * gram @ x + C * gram @ gram @ x
    return x


def _exact(g, n):
    U, _, Vh = torch.linalg.svd(g, full_matrices=False)
    return U @ Vh


def _rows_normed(g, n):
    return _schulz_from(g / g.norm(dim=1, keepdim=True), n)


# ---- 5.5

def batch_gradient(parts):
    """The gradient of the mean loss over all targets, from parts [(gradient of the part's mean loss, its number of targets), ...]."""
    n_targets = sum(n for _, n in parts)
    return sum(g * (n / n_targets) for g, n in parts)


def _parts_inputs(rng):
    g = _generator(rng)
    return ([(torch.randn(4, generator=g), rng.randint(3, 300)) for _ in range(rng.randint(2, 4))],)


def _mean_of_means(parts):
    return sum(g for g, _ in parts) / len(parts)


def _plain_sum(parts):
    return sum(g for g, _ in parts)


def _last_alone(parts):
    return parts[-1][0]


def _summed_over_targets(parts):
    return sum(g * n for g, n in parts)


# ---- 5.6

def is_honest(loss_of, tokens, vocab_size):
    """Whether a loss is that of a model that cannot see the token which it predicts.

    loss_of(tokens): (1, T) -> (T - 1,), nats; entry i for token i + 1. Put every token of the vocabulary in the last place: the
    probabilities that the losses stand for must sum to 1.
    """
    total = 0.0
    for token in range(vocab_size):
        tried = tokens.clone()
        tried[0, -1] = token
        total += math.exp(-loss_of(tried)[-1])
    return abs(total - 1) < 1e-3


VOCAB = 11


class _TinyModel:
    """A table from the two newest tokens to logits. leak: how much a position sees of the token that it predicts; sharpness: of the table."""

    def __init__(self, generator, leak, sharpness):
        self.table = torch.randn(VOCAB, VOCAB, generator=generator) * sharpness
        self.old = torch.randn(VOCAB, VOCAB, generator=generator)
        self.leak = leak

    def logits(self, read):
        return self.table[read] + self.old[torch.cat([read[:1], read[:-1]])]  # (T-1, V)

    def text(self, n, generator):
        """n tokens, mostly those that it finds likely."""
        tokens = torch.randint(0, VOCAB, (1,), generator=generator)
        while len(tokens) < n:
            tokens = torch.cat([tokens, self.logits(tokens)[-1:].argmax(-1)])
        return tokens[None]

    def __call__(self, tokens):
        read, ahead = tokens[0, :-1], tokens[0, 1:]
        return torch.nn.functional.cross_entropy(self.logits(read) + self.leak * self.table[ahead], ahead, reduction="none")


def _honest_inputs(rng):
    g = _generator(rng)
    model = _TinyModel(g, *rng.choice([(0.0, 0.5), (0.0, 4.0), (0.2, 0.5), (5.0, 1.5)]))
    return model, model.text(rng.randint(4, 9), g), VOCAB


def _always(loss_of, tokens, vocab_size):
    return True


def _not_too_good(loss_of, tokens, vocab_size):
    return loss_of(tokens).mean().item() > 0.3 * math.log(vocab_size)


def _losses_for_probabilities(loss_of, tokens, vocab_size):
    total = 0.0
    for token in range(vocab_size):
        tried = tokens.clone()
        tried[0, -1] = token
        total += loss_of(tried)[-1].item()
    return abs(total - 1) < 1e-3


def _about_one(loss_of, tokens, vocab_size):
    total = 0.0
    for token in range(vocab_size):
        tried = tokens.clone()
        tried[0, -1] = token
        total += math.exp(-loss_of(tried)[-1])
    return 0.8 < total < 1.2


# ---- 5.7

def predict_score(sizes, scores, wanted):
    """Fit score = a * size**(-alpha) as a straight line through the logarithms, by least squares; returns the score at size wanted."""
    x, y = [math.log(n) for n in sizes], [math.log(s) for s in scores]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mx) * (b - my) for a, b in zip(x, y)) / sum((a - mx) ** 2 for a in x)
    return math.exp(my + slope * (math.log(wanted) - mx))


def _law_inputs(rng):
    sizes = sorted(rng.sample(range(20, 900), 4))
    a, alpha = rng.uniform(2, 5), rng.uniform(0.05, 0.4)
    scores = [a * n**-alpha * rng.uniform(0.97, 1.03) for n in sizes]
    return [1000 * n for n in sizes], scores, 1000 * rng.randint(1000, 3000)


def _line(x, y, at):
    mx, my = sum(x) / len(x), sum(y) / len(y)
    return my + sum((a - mx) * (b - my) for a, b in zip(x, y)) / sum((a - mx) ** 2 for a in x) * (at - mx)


def _straight_in_size(sizes, scores, wanted):
    return _line(sizes, scores, wanted)


def _straight_in_log_size(sizes, scores, wanted):
    return _line([math.log(n) for n in sizes], scores, math.log(wanted))


def _still_a_logarithm(sizes, scores, wanted):
    return math.log(predict_score(sizes, scores, wanted))


def _ends_alone(sizes, scores, wanted):
    slope = math.log(scores[-1] / scores[0]) / math.log(sizes[-1] / sizes[0])
    return scores[-1] * (wanted / sizes[-1]) ** slope


EXERCISES = [
    Exercise(solution=first_loss, inputs=_first_inputs,
             hint="Two terms: what even odds cost, and what confidence without knowledge adds.",
             mutants=(
                 Mutant(function=_in_bits, hint="The loss is in nats: the natural logarithm."),
                 Mutant(function=_even_logits, hint="That is right for even odds. Logits that spread cost something more: equation (5.1)."),
                 Mutant(function=_std_not_variance, hint="The square of the standard deviation counts, halved."),
                 Mutant(function=_helps, hint="Confidence without knowledge makes the loss larger, not smaller."))),
    Exercise(solution=rate_at, inputs=_rate_inputs,
             hint="Three lines: one that rises, one that falls, and 1. The lowest of the three holds.",
             mutants=(
                 Mutant(function=_first_step_lost, hint="Steps count from 1, and the first must move: its factor is 1 / warmup, not 0."),
                 Mutant(function=_last_step_lost, hint="The last step would have factor 0, and be computed for nothing. It should have 1 / decay."),
                 Mutant(function=_no_plateau, hint="The fall lasts `decay` steps. Before it the factor stays at 1."),
                 Mutant(function=_falls_a_step_early, hint="The fall begins from 1 and has `decay` steps: the first of them still has factor 1, the last 1 / decay."),
                 Mutant(function=_never_falls, hint="It rises and stays. The last `decay` steps must fall."))),
    Exercise(solution=adamw_step, inputs=_adamw_inputs,
             hint="Go through equation (5.3) line by line: m, v, their corrections, then the two things that are taken from w.",
             mutants=(
                 Mutant(function=_no_correction, hint="m and v begin at 0 and are too small at first: divide them by 1 - beta**t."),
                 Mutant(function=_decay_in_gradient, hint="The decay went through m and v, where it is divided by the gradient's size. That is Adam with "
                                                          "a penalty; AdamW takes lr * decay * w from w itself."),
                 Mutant(function=_root_forgotten, hint="Divide by the root of v. v has the unit of a gradient squared."),
                 Mutant(function=_betas_swapped, hint="0.9 is for m, 0.95 for v."),
                 Mutant(function=_decay_without_rate, hint="The decay is multiplied by the learning rate too."),
                 Mutant(function=_corrected_kept, hint="Return m and v as they are. The correction is for this step's move alone."))),
    Exercise(solution=newton_schulz, inputs=_schulz_inputs, tolerance=1e-3,
             hint="First divide by the norm, once. Then in each round compute X X^T once and use it twice.",
             mutants=(
                 Mutant(function=_not_normed, hint="Divide by the norm before the first round. The polynomial knows only singular values up to about 1."),
                 Mutant(function=_entry_by_entry, hint="x**3 raises each entry. The singular values are raised by matrix products: x @ x.T @ x."),
                 Mutant(function=_cubic, hint="That is the cubic, with 1.5 and -0.5: it converges, and needs more rounds. Take the three given coefficients."),
                 Mutant(function=_fifth_power_missing, hint="The last term needs X X^T twice: it is the fifth power."),
                 Mutant(function=_exact, hint="That is exactly orthogonal. Muon's polynomial stays near 1 only: equation (5.5), n rounds."),
                 Mutant(function=_rows_normed, hint="One norm for the whole matrix. A norm for each row changes its directions."))),
    Exercise(solution=batch_gradient, inputs=_parts_inputs,
             hint="A part with twice as many targets has twice as much to say.",
             mutants=(
                 Mutant(function=_mean_of_means, hint="A mean of means is the mean only if all parts have as many targets."),
                 Mutant(function=_plain_sum, hint="Added up, two parts give twice the gradient."),
                 Mutant(function=_last_alone, hint="Only the last part is left: somebody zeroed the gradients inside the loop."),
                 Mutant(function=_summed_over_targets, hint="That is the gradient of the sum over targets. Divide by how many there are."))),
    Exercise(solution=is_honest, inputs=_honest_inputs,
             hint="Try every token in the last place. exp(-loss) is the probability that each was given.",
             mutants=(
                 Mutant(function=_always, hint="Some of these models read the answer. Your test calls all of them honest."),
                 Mutant(function=_not_too_good, hint="A low loss is no proof: a model may leak a little, and an honest one may be good. Sum probabilities."),
                 Mutant(function=_losses_for_probabilities, hint="A loss is -log p. Sum the p of the last place: not losses, and not a mean over places."),
                 Mutant(function=_about_one, hint="A leak can be small. The sum must be 1 to a thousandth, not only about 1."))),
    Exercise(solution=predict_score, inputs=_law_inputs,
             hint="Take logarithms of sizes and scores, fit a line, read it at log(wanted), and come back with exp.",
             mutants=(
                 Mutant(function=_straight_in_size, hint="A line through the numbers themselves falls below 0 one day. Take logarithms of both."),
                 Mutant(function=_straight_in_log_size, hint="Take the logarithm of the scores too."),
                 Mutant(function=_still_a_logarithm, hint="The line gives the logarithm of the score: come back with exp."),
                 Mutant(function=_ends_alone, hint="You drew the line through the first and the last size. Fit all of them, by least squares."))),
]
