"""Exercises of chapter 16."""

import math

from minimodels.exercises import Exercise, Mutant


# ---- 16.1

def keep_right(written, per_problem):
    """Of each problem's texts the first per_problem that are right, all in one list. written: for each problem its pairs (text, is_right)."""
    kept = []
    for pairs in written:
        right = [text for text, is_right in pairs if is_right]
        kept += right[:per_problem]
    return kept


def _written_inputs(rng):
    """Two to four problems, each with as many texts; one that is right at once, one that is right late, and often one that never is."""
    n, letters = rng.randint(3, 5), iter("abcdefghijklmnopqrstuvwxyz")
    verdicts = [[True, False, True], [False, True, True], *rng.sample([[False] * 3, [True] * 3, [False, False, True]], rng.randint(0, 2))]
    rng.shuffle(verdicts)
    return [[(next(letters), is_right) for is_right in (*row, *(rng.random() < 0.5 for _ in range(n - 3)))] for row in verdicts], rng.choice([1, 1, 2])


def _all_right_kept(written, per_problem):
    return [text for pairs in written for text, is_right in pairs if is_right]


def _nothing_rejected(written, per_problem):
    return [text for pairs in written for text, _ in pairs[:per_problem]]


def _cut_and_then_judged(written, per_problem):
    return [text for pairs in written for text, is_right in pairs[:per_problem] if is_right]


def _wrong_ones_kept(written, per_problem):
    return keep_right([[(text, not is_right) for text, is_right in pairs] for pairs in written], per_problem)


def _so_many_in_all(written, per_problem):
    return _all_right_kept(written, per_problem)[:per_problem]


def _the_last_ones(written, per_problem):
    return [text for pairs in written for text in [text for text, is_right in pairs if is_right][-per_problem:]]


def _a_list_each(written, per_problem):
    return [keep_right([pairs], per_problem) for pairs in written]


def _verdicts_too(written, per_problem):
    return [(text, True) for text in keep_right(written, per_problem)]


# ---- 16.2

def soften(logits, temperature):
    """The probabilities at a temperature. logits: a list of numbers."""
    weights = [math.exp(x / temperature) for x in logits]
    return [w / sum(weights) for w in weights]


def _logit_inputs(rng):
    return [round(rng.uniform(-3, 3), 1) for _ in range(rng.randint(3, 5))], rng.choice([0.5, 2, 4])


def _sharpened(logits, temperature):
    return soften(logits, 1 / temperature)


def _probabilities_divided(logits, temperature):
    return [p / temperature for p in soften(logits, 1)]


def _probabilities_as_logits(logits, temperature):
    return soften(soften(logits, 1), temperature)


def _weights_alone(logits, temperature):
    return [math.exp(x / temperature) for x in logits]


def _roots_of_probabilities(logits, temperature):
    return [p ** (1 / temperature) for p in soften(logits, 1)]


def _never_softened(logits, temperature):
    return soften(logits, 1)


# ---- 16.3

def forward_kl(teacher, student):
    """KL(teacher || student) in nats. Two lists of probabilities; the teacher's may be 0, and then add nothing."""
    return sum(t * math.log(t / s) for t, s in zip(teacher, student) if t > 0)


def _distribution(rng, V, *, low=1):
    """V probabilities in hundredths, from low up, in no order."""
    cuts = sorted(rng.sample(range(100 - V * low + V - 1), V - 1))
    return [(b - a - 1 + low) / 100 for a, b in zip([-1, *cuts], [*cuts, 100 - V * low + V - 1])]


def _teacher_and_student(rng):
    V = rng.randint(3, 5)
    teacher = _distribution(rng, V)
    if rng.random() < 0.5:
        teacher = [0.0, *(p / (1 - teacher[0]) for p in teacher[1:])]
        rng.shuffle(teacher)
    return teacher, _distribution(rng, V, low=2)


def _turned_around(teacher, student):
    return sum(s * math.log(s / t) if t > 0 else math.inf for t, s in zip(teacher, student))


def _turned_around_and_skipped(teacher, student):
    return sum(s * math.log(s / t) for t, s in zip(teacher, student) if t > 0)


def _both_ways(teacher, student):
    return (forward_kl(teacher, student) + _turned_around(teacher, student)) / 2


def _through_the_middle(teacher, student):
    middle = [(t + s) / 2 for t, s in zip(teacher, student)]
    return (forward_kl(teacher, middle) + forward_kl(student, middle)) / 2


def _without_the_log(teacher, student):
    return sum(t * (t / s) for t, s in zip(teacher, student))


def _gaps_for_logs(teacher, student):
    return sum(t * (t - s) for t, s in zip(teacher, student))


def _teachers_entropy_left(teacher, student):
    return -sum(t * math.log(s) for t, s in zip(teacher, student))


def _logs_not_weighted(teacher, student):
    return sum(math.log(t / s) for t, s in zip(teacher, student) if t > 0)


def _in_bits(teacher, student):
    return forward_kl(teacher, student) / math.log(2)


def _mean_over_tokens(teacher, student):
    return forward_kl(teacher, student) / len(teacher)


def _nought_spoils_all(teacher, student):
    return math.nan if 0 in teacher else forward_kl(teacher, student)


# ---- 16.4

def better_one(teacher, students, direction):
    """Which student, by its place, is nearer to the teacher by the "forward" or the "reverse" divergence. No probability is 0."""
    def kl(p, q):
        return sum(a * math.log(a / b) for a, b in zip(p, q))

    far = [kl(teacher, s) if direction == "forward" else kl(s, teacher) for s in students]
    return far.index(min(far))


def _two_humps_inputs(rng):
    """A teacher with two humps; a student that covers both, one that chooses the higher, and perhaps one that is off. All in random order."""
    high, places = rng.randint(40, 50), rng.sample(range(5), 5)
    w, x, n = round(rng.uniform(0.22, 0.34), 2), round(rng.uniform(0.1, 0.15), 2), round(rng.uniform(0.93, 0.97), 2)
    teacher = [high, 2, 94 - high, 2, 2]
    students = [[100 * w, 100 * x, 100 * w, 100 * x, 100 * (1 - 2 * w - 2 * x)], [100 * n, 0.5, 98.5 - 100 * n, 0.5, 0.5]]
    students += [rng.choice([[40, 10, 10, 30, 10], [10, 60, 10, 10, 10]])] * rng.randint(0, 1)
    rng.shuffle(students)
    placed = [[round(p[i] / 100, 3) for i in places] for p in (teacher, *students)]
    return placed[0], placed[1:], rng.choice(["forward", "reverse"])


def _always_forward(teacher, students, direction):
    return better_one(teacher, students, "forward")


def _always_reverse(teacher, students, direction):
    return better_one(teacher, students, "reverse")


def _ways_swapped(teacher, students, direction):
    return better_one(teacher, students, "reverse" if direction == "forward" else "forward")


def _the_farthest(teacher, students, direction):
    distances = _distances(teacher, students, direction)
    return distances.index(max(distances))


def _distances(teacher, students, direction):
    return [forward_kl(teacher, s) if direction == "forward" else forward_kl(s, teacher) for s in students]


def _how_far_it_is(teacher, students, direction):
    return min(_distances(teacher, students, direction))


def _surest_of_the_best(teacher, students, direction):
    best = teacher.index(max(teacher))
    return max(range(len(students)), key=lambda i: students[i][best])


# ---- 16.5

def grade_own(student, teacher):
    """An estimate of KL(student || teacher), nats a token. Two lists: what each gave the tokens that the student drew, as probabilities."""
    return sum(math.log(s / t) for s, t in zip(student, teacher)) / len(student)


def _drawn_token_inputs(rng):
    n = rng.randint(3, 6)
    return [round(rng.uniform(0.2, 0.98), 2) for _ in range(n)], [round(rng.uniform(0.02, 0.98), 2) for _ in range(n)]


def _as_a_reward(student, teacher):
    return -grade_own(student, teacher)


def _weighted_by_the_teacher(student, teacher):
    return sum(t * math.log(s / t) for s, t in zip(student, teacher)) / len(student)


def _weighted_by_the_student(student, teacher):
    return sum(s * math.log(s / t) for s, t in zip(student, teacher)) / len(student)


def _whole_text(student, teacher):
    return grade_own(student, teacher) * len(student)


def _log_of_the_mean(student, teacher):
    return math.log(sum(s / t for s, t in zip(student, teacher)) / len(student))


def _log_of_means(student, teacher):
    return math.log(sum(student) / sum(teacher))


def _no_logs(student, teacher):
    return sum(s - t for s, t in zip(student, teacher)) / len(student)


def _teacher_alone(student, teacher):
    return -sum(math.log(t) for t in teacher) / len(teacher)


# ---- 16.6

def bill_of(way, n_texts, length, ratio):
    """What learning cost, in tokens that pass forward through the student. ratio: a token's work in the teacher, over one's in the student.

    way: "its texts", "own texts" or "a reward".
    """
    student, teacher = {"its texts": (3, 1), "own texts": (4, 1), "a reward": (5, 0)}[way]
    return n_texts * length * (student + teacher * ratio)


def _bill_inputs(rng):
    return rng.choice(["its texts", "own texts", "a reward"]), rng.randint(2, 40), rng.randint(10, 60), rng.choice([0, 3, 4, 7, 10])


def _billed(passes):
    """A bill that charges other passes: for each way those of the student and of the teacher."""
    def function(way, n_texts, length, ratio):
        student, teacher = dict(zip(("its texts", "own texts", "a reward"), passes))[way]
        return n_texts * length * (student + teacher * ratio)
    return function


def _teacher_as_small_as_the_student(way, n_texts, length, ratio):
    return bill_of(way, n_texts, length, 1 if ratio else 0)


def _one_text(way, n_texts, length, ratio):
    return bill_of(way, 1, length, ratio)


# ---- 16.7

def distill_tokens(samples, mean_tokens, pretraining_tokens):
    """How many tokens so many samples have, and how many percent that is of those that a model was pre-trained on."""
    tokens = samples * mean_tokens
    return tokens, 100 * tokens / pretraining_tokens


def _sample_inputs(rng):
    return 5_000 * rng.randint(2, 200), 5 * rng.randint(40, 1_600), rng.choice([1, 5, 20, 80]) * 10**rng.choice([10, 11])


def _share_for_percent(samples, mean_tokens, pretraining_tokens):
    return samples * mean_tokens, samples * mean_tokens / pretraining_tokens


def _percent_of_percent(samples, mean_tokens, pretraining_tokens):
    return samples * mean_tokens, 1e4 * samples * mean_tokens / pretraining_tokens


def _other_way_round(samples, mean_tokens, pretraining_tokens):
    return samples * mean_tokens, 100 * pretraining_tokens / (samples * mean_tokens)


def _of_both_together(samples, mean_tokens, pretraining_tokens):
    tokens = samples * mean_tokens
    return tokens, 100 * tokens / (pretraining_tokens + tokens)


def _samples_per_token(samples, mean_tokens, pretraining_tokens):
    return samples * mean_tokens, 100 * samples / pretraining_tokens


def _percent_alone(samples, mean_tokens, pretraining_tokens):
    return distill_tokens(samples, mean_tokens, pretraining_tokens)[1]


# ---- 16.8

def phone_seconds(n_params, bytes_per_param, bandwidth_gb_s, n_tokens):
    """How long n_tokens take at least, if each needs every weight to be read once. bandwidth_gb_s: billions of bytes in a second."""
    read_bytes = n_params * bytes_per_param
    return n_tokens * read_bytes / (bandwidth_gb_s * 1e9)


def _phone_inputs(rng):
    return rng.choice([0.5, 1.5, 3, 7, 8]) * 1e9, rng.choice([0.5, 2, 4]), rng.choice([20, 40, 50, 60, 100]), 5 * rng.randint(20, 2_000)


def _bits_for_bytes(n_params, bytes_per_param, bandwidth_gb_s, n_tokens):
    return phone_seconds(n_params, bytes_per_param, bandwidth_gb_s, n_tokens) / 8


def _gigabits(n_params, bytes_per_param, bandwidth_gb_s, n_tokens):
    return phone_seconds(n_params, bytes_per_param, bandwidth_gb_s, n_tokens) * 8


def _a_byte_each(n_params, bytes_per_param, bandwidth_gb_s, n_tokens):
    return phone_seconds(n_params, 1, bandwidth_gb_s, n_tokens)


def _powers_of_two(n_params, bytes_per_param, bandwidth_gb_s, n_tokens):
    return phone_seconds(n_params, bytes_per_param, bandwidth_gb_s, n_tokens) * 1e9 / 2**30


def _read_once_for_all(n_params, bytes_per_param, bandwidth_gb_s, n_tokens):
    return phone_seconds(n_params, bytes_per_param, bandwidth_gb_s, 1)


def _tokens_in_a_second(n_params, bytes_per_param, bandwidth_gb_s, n_tokens):
    return 1 / phone_seconds(n_params, bytes_per_param, bandwidth_gb_s, 1)


def _bytes_divided(n_params, bytes_per_param, bandwidth_gb_s, n_tokens):
    return phone_seconds(n_params, 1 / bytes_per_param, bandwidth_gb_s, n_tokens)


EXERCISES = [
    Exercise(
        solution=keep_right, inputs=_written_inputs,
        hint="For each problem the texts whose verdict is True, cut after the first per_problem of them. All that is kept goes into one list, in order.",
        mutants=(
            Mutant(function=_all_right_kept, hint="Right texts alone are kept, but too many: at most per_problem for each problem, or easy ones crowd out the hard."),
            Mutant(function=_nothing_rejected, hint="This takes the first texts, whatever their verdicts. Sampling without rejection teaches the teacher's mistakes, too."),
            Mutant(function=_cut_and_then_judged, hint="Judge first, cut then. A problem whose first text is wrong may have a right one further on."),
            Mutant(function=_wrong_ones_kept, hint="These are the wrong ones: True means right."),
            Mutant(function=_so_many_in_all, hint="per_problem is the limit for each problem, not for all together."),
            Mutant(function=_the_last_ones, hint="The first right texts of a problem, not the last."),
            Mutant(function=_a_list_each, hint="One list of texts, not a list for each problem: nothing is left to tell apart."),
            Mutant(function=_verdicts_too, hint="The texts without their verdicts."),
        )),
    Exercise(
        solution=soften, inputs=_logit_inputs,
        hint="Divide each logit by the temperature, take exponentials, and divide each by their sum.",
        mutants=(
            Mutant(function=_sharpened, hint="This multiplies by the temperature: above 1 it would sharpen. Divide."),
            Mutant(function=_probabilities_divided, hint="Probabilities over the temperature no longer sum to 1. Divide the logits, and then take the softmax."),
            Mutant(function=_probabilities_as_logits, hint="This takes a softmax of probabilities, which is nearly uniform whatever they are. Divide the logits, and take one softmax."),
            Mutant(function=_weights_alone, hint="Exponentials are not yet probabilities: divide by their sum."),
            Mutant(function=_roots_of_probabilities, hint="These are the right proportions, but they do not sum to 1: divide by their sum."),
            Mutant(function=_never_softened, hint="The temperature changes nothing here."),
        )),
    Exercise(
        solution=forward_kl, inputs=_teacher_and_student, n_trials=30,
        hint="The sum over tokens of t log(t / s). Where t is 0 the token adds 0: leave it out, because log 0 does not exist.",
        mutants=(
            Mutant(function=_turned_around, hint="This is the reverse divergence, of the student from the teacher: there the student's probabilities weigh. Here the teacher's do."),
            Mutant(function=_turned_around_and_skipped, hint="Here the student's probabilities weigh the logs: that is the reverse direction, without the tokens that the teacher never says, "
                                                             "and there it would be infinite."),
            Mutant(function=_both_ways, hint="This is the mean of both directions. Forward is one of them: the teacher's probabilities weigh."),
            Mutant(function=_through_the_middle, hint="This compares both with their mean (Jensen and Shannon's divergence). Compare the teacher with the student."),
            Mutant(function=_without_the_log, hint="The logarithm of the ratio is missing. Without it two equal distributions would not give 0."),
            Mutant(function=_gaps_for_logs, hint="A difference of logarithms, not of probabilities."),
            Mutant(function=_teachers_entropy_left, hint="This is the cross-entropy. It has the same gradient, but is not 0 for equal distributions: t log t belongs to the sum."),
            Mutant(function=_logs_not_weighted, hint="Each logarithm counts as much as the teacher's probability of its token."),
            Mutant(function=_in_bits, hint="Nats, not bits: the natural logarithm."),
            Mutant(function=_mean_over_tokens, hint="Sum over the vocabulary, do not average: the teacher's probabilities are the weights of an average already."),
            Mutant(function=_nought_spoils_all, hint="0 times log 0 is nan for the computer, and counts as 0 here: leave tokens out that the teacher never says."),
        )),
    Exercise(
        solution=better_one, inputs=_two_humps_inputs, n_trials=40,
        hint='"forward" is KL(teacher || student), "reverse" is KL(student || teacher). The place of the smallest, counted from 0.',
        mutants=(
            Mutant(function=_always_forward, hint='This is right for "forward" alone: look at direction.'),
            Mutant(function=_always_reverse, hint='This is right for "reverse" alone: look at direction.'),
            Mutant(function=_ways_swapped, hint="The directions are the wrong way round. Forward goes from the teacher: its probabilities weigh, and who covers all that it says wins."),
            Mutant(function=_the_farthest, hint="A divergence is a distance, of a kind: the smallest is the best."),
            Mutant(function=_how_far_it_is, hint="Return the place of the student in the list, not its divergence."),
            Mutant(function=_surest_of_the_best, hint="This looks at one token alone, the teacher's likeliest. A divergence looks at all."),
        )),
    Exercise(
        solution=grade_own, inputs=_drawn_token_inputs,
        hint="For each token the logarithm of the student's probability over the teacher's; then the mean.",
        mutants=(
            Mutant(function=_as_a_reward, hint="This is what a reward would be, the more the better. A divergence has the other sign: log s - log t, large where the student "
                                               "said what the teacher would not."),
            Mutant(function=_weighted_by_the_teacher, hint="The teacher's probabilities do not weigh here: the tokens were drawn from the student."),
            Mutant(function=_weighted_by_the_student, hint="A likely token has been drawn more often already. Who weighs it by its probability counts that twice."),
            Mutant(function=_whole_text, hint="The mean over tokens, not the sum."),
            Mutant(function=_log_of_the_mean, hint="The mean of the logarithms, not the logarithm of the mean ratio."),
            Mutant(function=_log_of_means, hint="Take the logarithm token by token, before the mean."),
            Mutant(function=_no_logs, hint="A difference of logarithms, not of probabilities."),
            Mutant(function=_teacher_alone, hint="The student's own probabilities are missing. Without them a student that is sure of the teacher's favourite word is best, "
                                                 "however unsure the teacher is."),
        )),
    Exercise(
        solution=bill_of, inputs=_bill_inputs, n_trials=40, tolerance=1e-9,
        hint="Passes of the student a token: 3 for learning, 1 for each writing or reading without learning. Passes of the teacher: 1 if it writes or reads the text, else 0; "
             "each costs ratio. All times n_texts * length.",
        mutants=(
            Mutant(function=_billed([(1, 1), (2, 1), (3, 0)]), hint="Backward is forgotten: it costs twice as much as forward, so that learning costs 3."),
            Mutant(function=_billed([(2, 1), (3, 1), (4, 0)]), hint="Backward costs twice as much as forward, since there are two gradients, of the input and of the weight. Learning costs 3, not 2."),
            Mutant(function=_billed([(3, 0), (4, 1), (5, 0)]), hint="Somebody wrote the teacher's texts: it was the teacher, one pass a token."),
            Mutant(function=_billed([(3, 1), (4, 0), (5, 0)]), hint="The student's own texts are read by the teacher, or whose distribution does it learn?"),
            Mutant(function=_billed([(3, 0), (4, 0), (5, 0)]), hint="The teacher works, too, except where a rule judges: it writes its texts, and it reads the student's."),
            Mutant(function=_billed([(3, 1), (4, 1), (5, 1)]), hint="A reward needs no teacher: a rule judges, which costs next to nothing."),
            Mutant(function=_billed([(3, 3), (4, 3), (5, 0)]), hint="The teacher does not learn: it only passes forward, once a token."),
            Mutant(function=_billed([(3, 1), (3, 1), (4, 0)]), hint="A student that learns from texts of its own has to write them first: one pass a token more."),
            Mutant(function=_billed([(3, 1), (4, 1), (4, 0)]), hint="The ratio of a reward's loss needs the old probabilities: the student reads what it wrote once more before it learns."),
            Mutant(function=_teacher_as_small_as_the_student, hint="A token costs the teacher ratio times as much as the student."),
            Mutant(function=_one_text, hint="This is the bill for one text: there are n_texts."),
        )),
    Exercise(
        solution=distill_tokens, inputs=_sample_inputs, tolerance=1e-9,
        hint="Samples times tokens of each. Over the tokens of pre-training, times 100. Return both.",
        mutants=(
            Mutant(function=_share_for_percent, hint="The second number is a share, not percent: 0.01 is one percent."),
            Mutant(function=_percent_of_percent, hint="Too large by a hundred: multiply by 100 once."),
            Mutant(function=_other_way_round, hint="The other way round: how much of the pre-training do the samples make up?"),
            Mutant(function=_of_both_together, hint="Percent of the pre-training's tokens, without the samples'."),
            Mutant(function=_samples_per_token, hint="The percentage compares samples with tokens. Compare tokens with tokens."),
            Mutant(function=_percent_alone, hint="Return two numbers: the tokens, and the percentage."),
        )),
    Exercise(
        solution=phone_seconds, inputs=_phone_inputs, tolerance=1e-9,
        hint="A token: n_params * bytes_per_param bytes, at bandwidth_gb_s * 1e9 bytes in a second. Then all tokens.",
        mutants=(
            Mutant(function=_bits_for_bytes, hint="Too fast by 8: bytes_per_param are bytes already."),
            Mutant(function=_gigabits, hint="Too slow by 8: the bandwidth is in gigabytes in a second, not in gigabits."),
            Mutant(function=_a_byte_each, hint="Weights are not always of one byte: bytes_per_param is missing."),
            Mutant(function=_bytes_divided, hint="Wider weights take longer, not shorter: multiply by bytes_per_param."),
            Mutant(function=_powers_of_two, hint="A gigabyte in a second is 1e9 bytes, not 2**30."),
            Mutant(function=_read_once_for_all, hint="This is the time of one token. Each token needs all the weights again, because there is no room to keep them beside the processor."),
            Mutant(function=_tokens_in_a_second, hint="These are tokens in a second. Asked are the seconds for n_tokens."),
        )),
]
