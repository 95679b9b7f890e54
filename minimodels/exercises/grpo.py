"""Exercises of chapter 15."""

import math
import re
import statistics

import torch

from minimodels.exercises import Exercise, Mutant
from minimodels.tasks import addition


def _generator(rng):
    return torch.Generator().manual_seed(rng.randrange(2**31))


# ----

def completion_log_prob(logits, tokens, n_prompt):
    """The log-probability, in nats, of the tokens behind the first n_prompt. logits: (L, V), row t predicts token t + 1; tokens: L, a list."""
    log_p = logits.log_softmax(-1)
    return sum(log_p[t - 1, tokens[t]] for t in range(n_prompt, len(tokens)))


def _text_inputs(rng):
    L, V = rng.randint(5, 9), rng.choice([7, 11])
    return 2 * torch.randn(L, V, generator=_generator(rng)), [rng.randrange(V) for _ in range(L)], rng.randint(2, L - 2)


def _off_by_one(logits, tokens, n_prompt):
    log_p = logits.log_softmax(-1)
    return sum(log_p[t, tokens[t]] for t in range(n_prompt, len(tokens)))


def _prompt_counted(logits, tokens, n_prompt):
    return completion_log_prob(logits, tokens, 1)


def _first_forgotten(logits, tokens, n_prompt):
    return completion_log_prob(logits, tokens, n_prompt + 1)


def _not_normalised(logits, tokens, n_prompt):
    return sum(logits[t - 1, tokens[t]] for t in range(n_prompt, len(tokens)))


def _over_places(logits, tokens, n_prompt):
    log_p = logits.log_softmax(0)
    return sum(log_p[t - 1, tokens[t]] for t in range(n_prompt, len(tokens)))


def _a_token(logits, tokens, n_prompt):
    return completion_log_prob(logits, tokens, n_prompt) / (len(tokens) - n_prompt)


def _as_a_loss(logits, tokens, n_prompt):
    return -completion_log_prob(logits, tokens, n_prompt)


# ----

def earned(text, answer):
    """(accuracy, format), each 1 or 0: whether text is a thought and an answer in their tags and nothing else, and the answer is this one."""
    found = re.fullmatch("<think>[^<>]*</think><answer>([^<>]*)</answer>", text)
    return (0, 0) if found is None else (int(found[1] == answer), 1)


def _judged_inputs(rng):
    n, off = rng.randint(11, 99), rng.choice([-1, 1, 10])
    right, wrong, thought = str(n), str(n + off), f"{n % 10}+0+0={n % 10}"
    return rng.choice([
        f"<think>{thought}</think><answer>{right}</answer>", f"<think></think><answer>{right}</answer>",
        f"<think>{thought}</think><answer>{wrong}</answer>",
        f"<think>{right}</think><answer>{wrong}</answer>", f"<think>{thought}</think><answer>1{right}</answer>",
        f"<answer>{right}</answer>", f"{thought}</think><answer>{right}</answer>", right,
        f"<think>{thought}</think><answer> {right}</answer>", f"<think>{thought}</think><answer>0{right}</answer>",
        f"<think>{thought}</think><answer>+{right}</answer>",
        f"<think>{thought}</think><answer>{wrong}</answer><answer>{right}</answer>",
        f"<think><answer>{right}</answer></think><answer>{wrong}</answer>",
        f"<think>{thought}</think><answer>{right}</answer>{wrong}", f"<think>{thought}</think><answer>{right}",
    ]), right


def _stands_somewhere(text, answer):
    return int(answer in text), earned(text, answer)[1]


def _answer_tags_alone(text, answer):
    return int(answer in re.findall("<answer>(.*?)</answer>", text)), earned(text, answer)[1]


def _both_by_the_answer_tags(text, answer):
    found = re.findall("<answer>(.*?)</answer>", text)
    return int(answer in found), int(bool(found))


def _spaces_forgiven(text, answer):
    found = re.fullmatch("<think>[^<>]*</think><answer>([^<>]*)</answer>", text)
    return (0, 0) if found is None else (int(found[1].strip() == answer), 1)


def _as_numbers(text, answer):
    found = re.fullmatch("<think>[^<>]*</think><answer>([^<>]*)</answer>", text)
    return (0, 0) if found is None else (int(int(found[1]) == int(answer)), 1)


def _tags_within(text, answer):
    found = re.fullmatch("<think>(.*)</think><answer>(.*)</answer>", text)
    return (0, 0) if found is None else (int(found[2] == answer), 1)


def _more_behind(text, answer):
    found = re.match("<think>[^<>]*</think><answer>([^<>]*)</answer>", text)
    return (0, 0) if found is None else (int(found[1] == answer), 1)


def _format_first(text, answer):
    return earned(text, answer)[::-1]


# ----

EPS = 1e-4


def above_group(rewards):
    """Of each reward how far it lies above its group's mean, in the group's standard deviations (of a sample) and EPS. rewards: P lists of G."""
    above = []
    for group in rewards:
        mean, std = statistics.mean(group), statistics.stdev(group)
        above.append([(r - mean) / (std + EPS) for r in group])
    return above


def _reward_inputs(rng):
    """Groups of one size, of which the first has earned differently, and the second is another."""
    P, G = rng.randint(2, 4), rng.randint(3, 5)
    groups = [[1.25, *rng.choices([0, 0.25], k=G - 1)], [0.25, *rng.choices([0.25, 1.25], k=G - 1)]]
    groups += [rng.choices([0, 0.25, 1.25], k=G) for _ in range(P - 2)]
    rng.shuffle(groups)
    return (groups,)


def _above_batch(rewards):
    G, flat = len(rewards[0]), above_group([[r for group in rewards for r in group]])[0]
    return [flat[i:i + G] for i in range(0, len(flat), G)]


def _batch_std(rewards):
    std = statistics.stdev(r for group in rewards for r in group) + EPS
    return [[(r - statistics.mean(group)) / std for r in group] for group in rewards]


def _population_std(rewards):
    return [[(r - statistics.mean(group)) / (statistics.pstdev(group) + EPS) for r in group] for group in rewards]


def _no_mean(rewards):
    return [[r / (statistics.stdev(group) + EPS) for r in group] for group in rewards]


def _not_divided(rewards):
    return [[r - statistics.mean(group) for r in group] for group in rewards]


def _by_std_alone(rewards):
    return [[(r - statistics.mean(group)) / (statistics.stdev(group) or 1) for r in group] for group in rewards]


# ----

def gain(ratio, advantage, clip):
    """What a token adds to the objective. Source: DeepSeekMath, equation 3."""
    clipped = min(max(ratio, 1 - clip), 1 + clip)
    return min(ratio * advantage, clipped * advantage)


def _gain_inputs(rng):
    return round(rng.uniform(0.4, 1.8), 2), rng.choice([-1, 1]) * round(rng.uniform(0.2, 2), 1), rng.choice([0.1, 0.2, 0.3])


def _always_clipped(ratio, advantage, clip):
    return min(max(ratio, 1 - clip), 1 + clip) * advantage


def _never_clipped(ratio, advantage, clip):
    return ratio * advantage


def _the_larger(ratio, advantage, clip):
    return max(ratio * advantage, _always_clipped(ratio, advantage, clip))


def _sign_too_late(ratio, advantage, clip):
    return min(ratio, 1 + clip) * advantage


# ----

def kl_by_k3(log_p, log_ref):
    """The mean of u - log u - 1 with u = ref / p, over tokens that p wrote. Two lists of log-probabilities. Source: Schulman (2020)."""
    log_u = [b - a for a, b in zip(log_p, log_ref)]
    return sum(math.exp(x) - x - 1 for x in log_u) / len(log_u)


def _kl_inputs(rng):
    log_p = [-round(rng.uniform(0.1, 2), 2) for _ in range(rng.randint(3, 6))]
    return log_p, [min(round(x + rng.uniform(-1, 1), 2), -0.01) for x in log_p]


def _reversed(log_p, log_ref):
    return kl_by_k3(log_ref, log_p)


def _k1(log_p, log_ref):
    return sum(a - b for a, b in zip(log_p, log_ref)) / len(log_p)


def _k2(log_p, log_ref):
    return sum((a - b) ** 2 / 2 for a, b in zip(log_p, log_ref)) / len(log_p)


def _weighed(log_p, log_ref):
    return sum(math.exp(a) * (math.exp(b - a) - (b - a) - 1) for a, b in zip(log_p, log_ref))


def _k3_summed(log_p, log_ref):
    return kl_by_k3(log_p, log_ref) * len(log_p)


def _one_kept(log_p, log_ref):
    return kl_by_k3(log_p, log_ref) + 1


# ----

def shares(lengths, averages, max_new_tokens):
    """What one token of each answer weighs in the loss. lengths: N numbers of tokens; averages: "sequence", "token" or "constant"."""
    N = len(lengths)
    if averages == "sequence":
        return [1 / (N * n) for n in lengths]
    return [1 / sum(lengths) if averages == "token" else 1 / (N * max_new_tokens) for _ in lengths]


def _length_inputs(rng):
    lengths = rng.sample(range(2, 20), rng.randint(2, 5))
    return lengths, rng.choice(["sequence", "token", "constant"]), rng.choice([24, 32, 64])


def _swapped(lengths, averages, max_new_tokens):
    return shares(lengths, {"sequence": "token", "token": "sequence"}.get(averages, averages), max_new_tokens)


def _answers_not_averaged(lengths, averages, max_new_tokens):
    return [share if averages == "token" else share * len(lengths) for share in shares(lengths, averages, max_new_tokens)]


def _by_the_longest(lengths, averages, max_new_tokens):
    return shares(lengths, averages, max(lengths))


def _of_whole_answers(lengths, averages, max_new_tokens):
    return [n * share for n, share in zip(lengths, shares(lengths, averages, max_new_tokens))]


def _always_by_sequence(lengths, averages, max_new_tokens):
    return shares(lengths, "sequence", max_new_tokens)


# ----

def one_of_k(n, n_right, k):
    """pass@k: the chance that k of the n samples, all different, hold a right one. Source: Chen et al. (2021), equation 1."""
    return 1 - math.comb(n - n_right, k) / math.comb(n, k)


def _sample_inputs(rng):
    n = rng.randint(5, 20)
    return n, rng.randint(1, n - 2), rng.randint(2, n - 2)


def _plugged_in(n, n_right, k):
    return 1 - (1 - n_right / n) ** k


def _all_wrong(n, n_right, k):
    return math.comb(n - n_right, k) / math.comb(n, k)


def _all_right(n, n_right, k):
    return math.comb(n_right, k) / math.comb(n, k)


def _exactly_one(n, n_right, k):
    return n_right * math.comb(n - n_right, k - 1) / math.comb(n, k)


def _k_times_as_likely(n, n_right, k):
    return min(1, k * n_right / n)


# ----

def benchmark_interval(right):
    """The mean score and 1.96 standard errors below and above it, for questions drawn at random. right: for each question the 0 or 1 of its samples."""
    scores = [statistics.mean(samples) for samples in right]
    mean, error = statistics.mean(scores), statistics.stdev(scores) / math.sqrt(len(scores))
    return mean - 1.96 * error, mean + 1.96 * error


def _benchmark_inputs(rng):
    """Questions of which most are nearly always right or nearly always wrong, as many samples of each."""
    n_samples = rng.choice([4, 8])
    chances = [0.9, 0.1, *(rng.choice([0.05, 0.5, 0.95]) for _ in range(rng.randint(3, 8)))]
    right = [[int(rng.random() < chance) for _ in range(n_samples)] for chance in chances]
    return ([[1, *right[0][1:]], [0, *right[1][1:]], *right[2:]],)


def _about(mean, error):
    return mean - 1.96 * error, mean + 1.96 * error


def _every_answer_counts(right):
    flat = [r for samples in right for r in samples]
    return _about(statistics.mean(flat), statistics.stdev(flat) / math.sqrt(len(flat)))


def _every_answer_by_its_share(right):
    flat = [r for samples in right for r in samples]
    p = statistics.mean(flat)
    return _about(p, math.sqrt(p * (1 - p) / len(flat)))


def _one_sample_a_question(right):
    p = statistics.mean(statistics.mean(samples) for samples in right)
    return _about(p, math.sqrt(p * (1 - p) / len(right)))


def _these_questions_alone(right):
    scores = [statistics.mean(samples) for samples in right]
    variances = [p * (1 - p) / len(samples) for p, samples in zip(scores, right)]
    return _about(statistics.mean(scores), math.sqrt(sum(variances)) / len(right))


def _spread_of_questions(right):
    scores = [statistics.mean(samples) for samples in right]
    return _about(statistics.mean(scores), statistics.stdev(scores))


def _population(right):
    scores = [statistics.mean(samples) for samples in right]
    return _about(statistics.mean(scores), statistics.pstdev(scores) / math.sqrt(len(scores)))


def _one_error(right):
    low, high = benchmark_interval(right)
    return (low + high) / 2 - (high - low) / 2 / 1.96, (low + high) / 2 + (high - low) / 2 / 1.96


# ----

def careful_score(prompt, text):
    """The share of a sum's columns that stand in their own place. prompt: "347+85="; text: the thinking, equations with ";" between them."""
    a, b = map(int, prompt.removesuffix("=").split("+"))
    wanted = addition(a, b).thinking.split(";")
    return sum(w == found for w, found in zip(wanted, text.split(";"))) / len(wanted)


def _wanted(prompt):
    return addition(*map(int, prompt.removesuffix("=").split("+"))).thinking.split(";")


def _thinking_inputs(rng):
    """A sum, and its thinking: right, cut, with a mistake in a column, or inflated by one of several tricks."""
    y = rng.randint(1, 5)
    twice = 100 * rng.randint(1, 9) + 11 * y, 11 * rng.randint(1, 9 - y)    # a sum with two equal columns
    a, b = rng.choice([twice, (rng.randint(10, 9999), rng.randint(10, 999))])
    columns = addition(a, b).thinking.split(";")
    at, x = rng.randrange(len(columns)), rng.randint(0, 9)
    others = [f"{x}+{y}+{c}={x + y + c}" for y in range(10) for c in (0, 1)]
    spoilt = [*columns[:at], f"{x}+1+0={x + 2}", *columns[at + 1:]]
    return f"{a}+{b}=", ";".join(rng.choice([
        columns, columns[:at], spoilt, [*columns, *columns], [columns[at]] * rng.randint(4, 9), ["0+0+0=0"] * rng.randint(1, 9),
        others, [*others[:5], *columns], columns[::-1], [*columns, *others[:6]],
    ]))


def _is_true(equation):
    found = re.fullmatch(r"(\d)\+(\d)\+(\d)=(\d+)", equation)
    return bool(found) and sum(map(int, found.groups()[:3])) == int(found[4])


def _true_equations(prompt, text):
    return sum(map(_is_true, text.split(";"))) / len(_wanted(prompt))


def _true_equations_with_a_cap(prompt, text):
    return min(1, _true_equations(prompt, text))


def _every_time_that_it_stands(prompt, text):
    wanted = _wanted(prompt)
    return sum(found in wanted for found in text.split(";")) / len(wanted)


def _stands_anywhere(prompt, text):
    wanted, found = _wanted(prompt), text.split(";")
    return sum(w in found for w in wanted) / len(wanted)


def _different_ones_anywhere(prompt, text):
    wanted = set(_wanted(prompt))
    return len(wanted & set(text.split(";"))) / len(wanted)


def _by_what_was_written(prompt, text):
    found = text.split(";")
    return sum(w == f for w, f in zip(_wanted(prompt), found)) / len(found)


def _up_to_the_first_mistake(prompt, text):
    pairs = list(zip(_wanted(prompt), text.split(";")))
    n_right = next((i for i, (w, found) in enumerate(pairs) if w != found), len(pairs))
    return n_right / len(_wanted(prompt))


def _columns_counted(prompt, text):
    return careful_score(prompt, text) * len(_wanted(prompt))


EXERCISES = [
    Exercise(
        solution=completion_log_prob, inputs=_text_inputs, tolerance=1e-4,
        hint="logits.log_softmax(-1) makes log-probabilities. For t from n_prompt to the last, token t is predicted by row t - 1. Add them up.",
        mutants=(
            Mutant(function=_off_by_one, hint="Row t predicts token t + 1. This asks each row for the token that it has just read."),
            Mutant(function=_prompt_counted, hint="The prompt was given, not written: begin with token n_prompt."),
            Mutant(function=_first_forgotten, hint="The first token after the prompt counts, too: row n_prompt - 1 predicts it."),
            Mutant(function=_not_normalised, hint="Logits are no log-probabilities: take log_softmax first."),
            Mutant(function=_over_places, hint="Normalise over the vocabulary, the last axis, not over the places of the text."),
            Mutant(function=_a_token, hint="This is the mean over tokens. The probability of a text is a product, so its logarithm is a sum."),
            Mutant(function=_as_a_loss, hint="This has the sign of a loss. A log-probability is never above 0."),
        )),
    Exercise(
        solution=earned, inputs=_judged_inputs, n_trials=120,
        hint="re.fullmatch with one pattern for all of the text: <think>, anything but < and >, </think><answer>, the same, </answer>. No match: (0, 0). "
             "Return two numbers, 1 or 0.",
        mutants=(
            Mutant(function=_stands_somewhere, hint="This rewards the number wherever it stands: in the thought, or within a longer one. Compare what "
                                                    "is between the answer tags."),
            Mutant(function=_answer_tags_alone, hint="Without its format a text has no answer. This finds answer tags anywhere, also in a thought, and "
                                                     "of several answers takes any."),
            Mutant(function=_both_by_the_answer_tags, hint="The format asks for the thought, too, for one answer, and for nothing before, between and behind."),
            Mutant(function=_spaces_forgiven, hint="The number is right as it is written, or not at all: a space is not part of it. Do not strip."),
            Mutant(function=_as_numbers, hint="int() forgives spaces, a sign and leading zeros. Compare the two texts."),
            Mutant(function=_tags_within, hint="A dot matches tags as well, so that two answers pass for one. Let [^<>] stand for it."),
            Mutant(function=_more_behind, hint="re.match does not ask what follows the match: take re.fullmatch."),
            Mutant(function=_format_first, hint="Accuracy first, then the format."),
        )),
    Exercise(
        solution=above_group, inputs=_reward_inputs,
        hint="For each group: its mean, and statistics.stdev of it. Reward less mean, over the deviation plus 1e-4. If a deviation is 0, so is all above it.",
        mutants=(
            Mutant(function=_above_batch, hint="This compares with all answers. Each group has a mean and a deviation of its own."),
            Mutant(function=_batch_std, hint="The mean is the group's, the deviation is not: each group has its own."),
            Mutant(function=_population_std, hint="This divides squares by G. The deviation of a sample divides by G - 1: statistics.stdev, or torch's "
                                                  "std as it is."),
            Mutant(function=_no_mean, hint="Take away the group's mean first: otherwise every answer that earned something is praised."),
            Mutant(function=_not_divided, hint="Divide by the group's standard deviation plus 1e-4. Some leave that out; asked is equation "
                                               "(15.3)."),
            Mutant(function=_by_std_alone, hint="Add 1e-4 to every deviation, not only to one that is 0."),
        )),
    Exercise(
        solution=gain, inputs=_gain_inputs, n_trials=40,
        hint="Bring the ratio into 1 - clip to 1 + clip. Multiply both, it and the ratio as it was, by the advantage. The smaller product counts.",
        mutants=(
            Mutant(function=_always_clipped, hint="This forgets the ratio as it was. Where it has moved against the advantage, the objective must "
                                                  "still pull it back."),
            Mutant(function=_never_clipped, hint="Nothing is clipped here."),
            Mutant(function=_the_larger, hint="The smaller of the two products: the objective is careful."),
            Mutant(function=_sign_too_late, hint="A negative advantage turns larger and smaller around: multiply first, then take the smaller."),
        )),
    Exercise(
        solution=kl_by_k3, inputs=_kl_inputs,
        hint="log u is log_ref - log_p, for each token. Add up exp(log u) - log u - 1, and divide by the number of tokens.",
        mutants=(
            Mutant(function=_reversed, hint="u is reference over policy, because the policy wrote the tokens. This is turned around."),
            Mutant(function=_k1, hint="This is k1, the mean of -log u: without bias, but noisier, and negative for some texts."),
            Mutant(function=_k2, hint="This is k2, half the square of log u. It is close where u is near 1, and biased."),
            Mutant(function=_weighed, hint="The policy drew these tokens, so a plain mean weighs them already: do not multiply by their probability."),
            Mutant(function=_k3_summed, hint="The mean over tokens, not the sum."),
            Mutant(function=_one_kept, hint="Equal policies must give 0: take 1 away."),
        )),
    Exercise(
        solution=shares, inputs=_length_inputs, n_trials=30,
        hint='"sequence": the mean over N answers of a mean over their tokens. "token": one mean over all tokens. "constant": a sum over all tokens, '
             'over N times max_new_tokens.',
        mutants=(
            Mutant(function=_swapped, hint='"sequence" and "token" are the wrong way round: by sequence a token of a long answer weighs less.'),
            Mutant(function=_answers_not_averaged, hint="The mean over answers is missing: divide by their number."),
            Mutant(function=_by_the_longest, hint='"constant" divides by max_new_tokens, whatever was written, and not by the longest answer.'),
            Mutant(function=_of_whole_answers, hint="This is what a whole answer weighs. Asked is one token of it."),
            Mutant(function=_always_by_sequence, hint="The three ways differ: look at averages."),
        )),
    Exercise(
        solution=one_of_k, inputs=_sample_inputs,
        hint="Of math.comb(n, k) ways to choose k samples, math.comb(n - n_right, k) hold wrong ones alone. The rest holds a right one.",
        mutants=(
            Mutant(function=_plugged_in, hint="This draws with replacement: the same sample may come twice. The mean over runs is then too low. Count "
                                              "sets with math.comb."),
            Mutant(function=_all_wrong, hint="This is the chance that all k are wrong."),
            Mutant(function=_all_right, hint="One right sample is enough: this asks that all k are right."),
            Mutant(function=_exactly_one, hint="At least one, not exactly one."),
            Mutant(function=_k_times_as_likely, hint="Chances do not add up: two of the k samples may both be right."),
        )),
    Exercise(
        solution=benchmark_interval, inputs=_benchmark_inputs,
        hint="First a score for each question, the mean of its samples. Then the mean of the scores, and statistics.stdev of them over the root of "
             "their number.",
        mutants=(
            Mutant(function=_every_answer_counts, hint="Samples of one question are alike. This counts each as if it were a question of its own, and "
                                                       "promises too much: take a mean for each question first."),
            Mutant(function=_every_answer_by_its_share, hint="sqrt(p (1 - p) / n) with n answers holds for independent ones. Samples of one question "
                                                             "are alike: take a mean for each question first."),
            Mutant(function=_one_sample_a_question, hint="sqrt(p (1 - p) / n) with n questions is for one sample each. Here the questions' mean scores "
                                                         "are known: take their standard deviation."),
            Mutant(function=_these_questions_alone, hint="This is the error of the samples, as if no other questions could have been asked. Questions "
                                                         "were drawn, too."),
            Mutant(function=_spread_of_questions, hint="This is how far questions lie apart. The error of their mean is smaller by the root of their number."),
            Mutant(function=_population, hint="The deviation of a sample divides by one less than their number: statistics.stdev."),
            Mutant(function=_one_error, hint="This is one standard error to each side. 95 percent need 1.96."),
        )),
    Exercise(
        solution=careful_score, inputs=_thinking_inputs, n_trials=80,
        hint="The columns are minimodels.tasks.addition(a, b).thinking.split(';'). Compare them with the text's equations pair by pair (zip), "
             "and divide by the number of columns.",
        mutants=(
            Mutant(function=_true_equations, hint="This counts equations that are true. 0+0+0=0 is true as often as one likes to write it."),
            Mutant(function=_true_equations_with_a_cap, hint="The cap ends the inflation, not the fraud: 0+0+0=0 once for each column still earns "
                                                             "everything. Ask for this sum's columns."),
            Mutant(function=_every_time_that_it_stands, hint="A column that is written five times counts five times."),
            Mutant(function=_stands_anywhere, hint="Who lists all 200 columns that there are, has yours among them. A column counts in its own place alone."),
            Mutant(function=_different_ones_anywhere, hint="Each column counts once, but anywhere: a list of all 200 columns earns everything. And of "
                                                           "two equal columns both are asked for, each in its place."),
            Mutant(function=_by_what_was_written, hint="Divide by the number of columns, not of equations written: one right equation and then silence "
                                                       "would earn everything."),
            Mutant(function=_up_to_the_first_mistake, hint="A wrong column does not take away those after it."),
            Mutant(function=_columns_counted, hint="A share, not a number: a long sum is not worth more."),
        )),
]
