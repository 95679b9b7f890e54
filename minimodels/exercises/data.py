"""Exercises of chapter 02."""

import math
import statistics
from collections import Counter

import numpy as np

from minimodels.bpe import count_pairs, encode_word, merge
from minimodels.bugs.data import BUGS
from minimodels.data import Batches
from minimodels.exercises import Exercise, Mutant

# ---- 2.1


def merge_pair(word, pair, new):
    """word, a tuple of ids, with every occurrence of pair, from the left, replaced by new."""
    return merge(word, pair, new)


def _merge_inputs(rng):
    a, b = rng.sample(range(1, 4), 2) if rng.random() < 0.5 else (2, 2)
    return tuple(rng.choice([a, b, a, b, 3]) for _ in range(rng.randint(6, 12))), (a, b), 257


def _from_the_right(word, pair, new):
    return merge(word[::-1], pair[::-1], new)[::-1]


def _first_alone(word, pair, new):
    for i in range(len(word) - 1):
        if word[i:i + 2] == pair:
            return word[:i] + (new,) + word[i + 2:]
    return word


def _overlapping(word, pair, new):
    return tuple(new if word[i:i + 2] == pair else word[i] for i in range(len(word)) if word[max(0, i - 1):i + 1] != pair or word[i:i + 2] == pair)


def _pair_stays(word, pair, new):
    return tuple(x for i in range(len(word)) for x in ((new, word[i]) if word[i:i + 2] == pair else (word[i],)))


# ---- 2.2

def best_pair(words):
    """The pair of neighbours that occurs most often in words, {tuple of ids: how often}; among equals the one with the smallest ids."""
    pairs = count_pairs(words)
    return min(pairs, key=lambda pair: (-pairs[pair], pair))


def _words(rng):
    often = rng.choice([1, 5])    # 1: many ties
    return {tuple(rng.choices(range(1, 5), k=rng.randint(2, 6))): rng.randint(1, often) for _ in range(6)}


def _each_word_once(words):
    return best_pair(dict.fromkeys(words, 1))


def _largest_of_equals(words):
    pairs = count_pairs(words)
    return max(pairs, key=lambda pair: (pairs[pair], pair))


def _first_of_equals(words):
    return count_pairs(words).most_common(1)[0][0]


def _across_words(words):
    return best_pair({tuple(i for word, n in words.items() for _ in range(n) for i in word): 1})


def _rarest(words):
    pairs = count_pairs(words)
    return min(pairs, key=lambda pair: (pairs[pair], pair))


# ---- 2.3

def _encode_inputs(rng):
    ranks, ids = {}, [1, 2, 3]
    while len(ranks) < 8:
        pair = rng.choice(ids), rng.choice(ids)
        if pair not in ranks:
            ranks[pair] = 257 + len(ranks)
            ids.append(ranks[pair])
    return tuple(rng.choices([1, 2, 3], k=rng.randint(8, 14))), ranks


def _left_to_right(word, ranks):
    while pairs := [pair for pair in zip(word, word[1:]) if pair in ranks]:
        i = list(zip(word, word[1:])).index(pairs[0])
        word = word[:i] + (ranks[pairs[0]],) + word[i + 2:]
    return word


def _latest_first(word, ranks):
    while pairs := [pair for pair in zip(word, word[1:]) if pair in ranks]:
        last = max(pairs, key=ranks.get)
        word = merge(word, last, ranks[last])
    return word


def _one_merge(word, ranks):
    pairs = [pair for pair in zip(word, word[1:]) if pair in ranks]
    return merge(word, min(pairs, key=ranks.get), min(ranks[pair] for pair in pairs)) if pairs else word


def _most_frequent_first(word, ranks):
    while pairs := Counter(pair for pair in zip(word, word[1:]) if pair in ranks):
        most = pairs.most_common(1)[0][0]
        word = merge(word, most, ranks[most])
    return word


# ---- 2.4

def score(pieces, probabilities):
    """Bits per byte of a text, from its tokens as strings and the probability that a model gave to each."""
    bits = -sum(math.log2(p) for p in probabilities)
    return bits / sum(len(piece.encode()) for piece in pieces)


def _score_inputs(rng):
    pieces = [rng.choice(["def", " return", "é", "🙂", "漢", ":\n    ", "x"]) for _ in range(12)] + ["ö"]
    return pieces, [rng.uniform(0.01, 0.9) for _ in pieces]


def _per_character(pieces, probabilities):
    return -sum(map(math.log2, probabilities)) / len("".join(pieces))


def _per_token(pieces, probabilities):
    return -sum(map(math.log2, probabilities)) / len(pieces)


def _in_nats(pieces, probabilities):
    return score(pieces, probabilities) * math.log(2)


def _mean_first(pieces, probabilities):
    return -math.log2(statistics.mean(probabilities)) * len(pieces) / len("".join(pieces).encode())


# ---- 2.5

def bigram(tokens, vocab_size, k):
    """A table of p(b | a), V rows a of V numbers b: (count(ab) + k p(b)) / (count(a followed by anything) + k).

    p(b) = (count(b) + k / V) / (N + k).
    """
    tokens = [int(t) for t in tokens]
    one, two, before = Counter(tokens), Counter(zip(tokens, tokens[1:])), Counter(tokens[:-1])
    p = [(one[b] + k / vocab_size) / (len(tokens) + k) for b in range(vocab_size)]
    return [[(two[a, b] + k * p[b]) / (before[a] + k) for b in range(vocab_size)] for a in range(vocab_size)]


def _bigram_inputs(rng):
    tokens = rng.choices(range(5), weights=[5, 3, 2, 1, 0], k=40)
    return tokens, 5, rng.choice([0.5, 2.0, 7.0])


def _bigram(tokens, V, k, *, p=None, before=None, more=None):
    one, two = Counter(tokens), Counter(zip(tokens, tokens[1:]))
    p = p or [(one[b] + k / V) / (len(tokens) + k) for b in range(V)]
    before, more = before or Counter(tokens[:-1]), k if more is None else more
    return [[(two[a, b] + k * p[b]) / max(before[a] + more, 1e-9) for b in range(V)] for a in range(V)]


def _all_alike(tokens, V, k):
    return _bigram(tokens, V, k, p=[1 / V] * V)


def _last_token_counts(tokens, V, k):
    return _bigram(tokens, V, k, before=Counter(tokens))


def _turned_round(tokens, V, k):
    return [list(column) for column in zip(*_bigram(tokens, V, k))]


def _k_below_missing(tokens, V, k):
    return _bigram(tokens, V, k, more=0)


def _unseen_stay_zero(tokens, V, k):
    return _bigram(tokens, V, k, p=[Counter(tokens)[b] / len(tokens) for b in range(V)])


def _unsmoothed(tokens, V, k):
    return _bigram(tokens, V, 0, p=[1 / V] * V)


def _p_without_the_last(tokens, V, k):
    return _bigram(tokens, V, k, p=[(Counter(tokens[:-1])[b] + k / V) / (len(tokens) - 1 + k) for b in range(V)])


# ---- 2.6

def overlap(train, valid, n):
    """The share of the runs of n tokens in valid that occur somewhere in train."""
    seen = {tuple(train[i:i + n]) for i in range(len(train) - n + 1)}
    runs = [tuple(valid[i:i + n]) for i in range(len(valid) - n + 1)]
    return sum(run in seen for run in runs) / len(runs)


def _overlap_inputs(rng):
    train = rng.choices(range(4), k=40)
    copied = train[7:14]
    return train, rng.choices(range(5), k=10) + copied + [4, 4, 4, 4, 4, 4] + copied[:rng.randint(4, 6)], rng.choice([2, 3])


def _distinct(train, valid, n):
    seen = {tuple(train[i:i + n]) for i in range(len(train) - n + 1)}
    runs = {tuple(valid[i:i + n]) for i in range(len(valid) - n + 1)}
    return len(runs & seen) / len(runs)


def _other_way_round(train, valid, n):
    return overlap(valid, train, n)


def _side_by_side(train, valid, n):
    seen = {tuple(train[i:i + n]) for i in range(0, len(train) - n + 1, n)}
    runs = [tuple(valid[i:i + n]) for i in range(0, len(valid) - n + 1, n)]
    return sum(run in seen for run in runs) / len(runs)


def _how_many(train, valid, n):
    return overlap(train, valid, n) * (len(valid) - n + 1)


def _in_percent(train, valid, n):
    return 100 * overlap(train, valid, n)


def _last_run_missing(train, valid, n):
    return overlap(train[:-1], valid[:-1], n)


def _single_tokens(train, valid, n):
    return sum(t in set(train) for t in valid) / len(valid)


# ---- 2.7

def may_look(tokens):
    """Which earlier tokens each token of a window may look at, if documents are kept apart: (T, T) truth values, row t, column s.

    Token 0 ends a document and belongs to it.
    """
    document = [sum(s == 0 for s in tokens[:t]) for t in range(len(tokens))]
    return [[s <= t and document[s] == document[t] for s in range(len(tokens))] for t in range(len(tokens))]


def _window(rng):
    tokens = [rng.randint(1, 9) for _ in range(9)]
    for i in rng.sample(range(1, 8), 2):
        tokens[i] = 0
    return (tokens,)


def _future_too(tokens):
    rows = may_look(tokens)
    return [[rows[max(s, t)][min(s, t)] for s in range(len(tokens))] for t in range(len(tokens))]


def _end_begins(tokens):
    document = [sum(s == 0 for s in tokens[:t + 1]) for t in range(len(tokens))]
    return [[s <= t and document[s] == document[t] for s in range(len(tokens))] for t in range(len(tokens))]


def _causal_alone(tokens):
    return [[s <= t for s in range(len(tokens))] for t in range(len(tokens))]


def _not_itself(tokens):
    return [[allowed and s != t for s, allowed in enumerate(row)] for t, row in enumerate(may_look(tokens))]


def _zero_shut_out(tokens):
    return [[s <= t and 0 not in tokens[s:t + 1] for s in range(len(tokens))] for t in range(len(tokens))]


def _turned_mask(tokens):
    return [list(column) for column in zip(*may_look(tokens))]


# ---- 2.8

def reads_each_token_once(batches):
    """Whether the first n_windows windows hold no token twice. In the check every token is its own position in the text."""
    rows = [row for step in range(len(batches)) for row in batches.at(step).tolist()]
    read = [token for row in rows[:batches.n_windows] for token in row]
    return len(set(read)) == len(read)


class _RepeatsAtTheEnd(Batches):
    """A right epoch, but for its last window, which is its first once more."""

    def _epoch(self, epoch):
        starts = super()._epoch(epoch).copy()
        starts[-1] = starts[0]
        return starts


def _batches(rng):
    kind = rng.choice([Batches, Batches, _RepeatsAtTheEnd, *BUGS.values()])
    return (kind(np.arange(rng.randint(150, 200)), batch_size=4, seq_len=8, seed=rng.randrange(99)),)


def _first_batch_alone(batches):
    read = batches.at(0).flatten().tolist()
    return len(set(read)) == len(read)


def _last_batch_left_out(batches):
    read = [token for step in range(len(batches) - 1) for token in batches.at(step).flatten().tolist()]
    return len(set(read)) == len(read)


def _a_step_a_window(batches):
    read = [token for step in range(batches.n_windows) for token in batches.at(step).flatten().tolist()]
    return len(set(read)) == len(read)


def _next_epoch_too(batches):
    read = [token for step in range(len(batches)) for token in batches.at(step).flatten().tolist()]
    return len(set(read)) == len(read)


def _starts_differ(batches):
    rows = [row for step in range(len(batches)) for row in batches.at(step).tolist()]
    starts = [row[0] for row in rows[:batches.n_windows]]
    return len(set(starts)) == len(starts)


EXERCISES = [
    Exercise(
        solution=merge_pair, inputs=_merge_inputs,
        hint="Walk from the left. Where the pair begins, write the new id and go on two places further; elsewhere copy and go on one.",
        mutants=(
            Mutant(function=_from_the_right, hint="In a run such as 2 2 2 the pair (2, 2) is merged from the left: 257, then 2."),
            Mutant(function=_first_alone, hint="Every occurrence is merged, not the first alone."),
            Mutant(function=_overlapping, hint="In 2 2 2 the middle 2 belongs to one pair only: after a merge go on behind it."),
            Mutant(function=_pair_stays, hint="The new id stands for both parts of the pair: neither of them stays."),
        )),
    Exercise(
        solution=best_pair, inputs=lambda rng: (_words(rng),),
        hint="Add up, over all words, how often each pair of neighbours stands in a word times how often the word occurs.",
        mutants=(
            Mutant(function=_each_word_once, hint="A word that occurs five times counts five times."),
            Mutant(function=_largest_of_equals, hint="Among pairs that are equally frequent the one with the smallest ids wins: (1, 2) before (1, 3)."),
            Mutant(function=_first_of_equals, hint="This takes whichever of the equals it met first. Take the one with the smallest ids: `min` over (-count, pair)."),
            Mutant(function=_across_words, hint="The last id of a word and the first of the next are no pair: nothing is merged across words."),
            Mutant(function=_rarest, hint="This is the rarest pair. Sort by the negative count."),
        )),
    Exercise(
        solution=encode_word, inputs=_encode_inputs,
        hint="While the word has a pair that is in ranks: take the pair with the smallest id, and merge it everywhere.",
        mutants=(
            Mutant(function=_left_to_right, hint="It is not the leftmost pair that is merged first, but the one that was learnt first: the smallest id."),
            Mutant(function=_latest_first, hint="The latest merge has the largest id. Merges are applied in the order in which they were learnt."),
            Mutant(function=_one_merge, hint="This stops after one merge. New pairs arise: go on until no pair is in ranks."),
            Mutant(function=_most_frequent_first, hint="Where a pair stands and how often plays no part now: the pair that was learnt first, with the smallest id, is merged first."),
        )),
    Exercise(
        solution=score, inputs=_score_inputs,
        hint="A token with probability p costs -log2(p) bits. Add them up, and divide by the bytes of all pieces.",
        mutants=(
            Mutant(function=_per_character, hint="These are bits per character: é has two bytes and 🙂 four. `piece.encode()` gives the bytes."),
            Mutant(function=_per_token, hint="These are bits per token, which another tokenizer would change."),
            Mutant(function=_in_nats, hint="These are nats per byte: take the logarithm to base 2."),
            Mutant(function=_mean_first, hint="Take the logarithm of each probability and then the sum; the logarithm of their mean is something else."),
        )),
    Exercise(
        solution=bigram, inputs=_bigram_inputs,
        hint="Count single tokens, pairs of neighbours, and how often each token has a successor. Then fill the formula in.",
        mutants=(
            Mutant(function=_all_alike, hint="The k imagined observations are distributed as p(b), not evenly."),
            Mutant(function=_last_token_counts, hint="The last token has no successor, so as a context it counts once less."),
            Mutant(function=_turned_round, hint="Rows and columns changed places: row a holds what follows a, and sums to 1."),
            Mutant(function=_k_below_missing, hint="A row must sum to 1: the k belongs below the line too."),
            Mutant(function=_unseen_stay_zero, hint="A token that never occurred has probability 0 here, and costs infinitely many bits: smooth p(b) too, with k / V."),
            Mutant(function=_unsmoothed, hint="These are the bare shares: what was never seen gets 0. Add k p(b) above the line and k below it."),
            Mutant(function=_p_without_the_last, hint="p(b) counts every token. Only as a context, in count(a), is the last one left out."),
        )),
    Exercise(
        solution=overlap, inputs=_overlap_inputs,
        hint="Put all runs of n tokens of train into a set, and count the runs of valid that it holds, each time they occur.",
        mutants=(
            Mutant(function=_distinct, hint="A run that occurs twice in valid counts twice: the share is one of places, not of different runs."),
            Mutant(function=_other_way_round, hint="This is the share of train that occurs in valid. Ask it the other way round."),
            Mutant(function=_side_by_side, hint="Runs begin at every place, not only at multiples of n."),
            Mutant(function=_how_many, hint="This is how many runs stand in both. The share is that number by the number of runs in valid."),
            Mutant(function=_in_percent, hint="This is in percent. A share lies between 0 and 1."),
            Mutant(function=_last_run_missing, hint="The last run is missing: of N tokens there are N - n + 1 runs, and the last begins at N - n."),
            Mutant(function=_single_tokens, hint="This counts single tokens. A run of n must occur as a whole."),
        )),
    Exercise(
        solution=may_look, inputs=_window,
        hint="Number the documents: token t belongs to as many documents further on as there are zeros before it. Then compare numbers.",
        mutants=(
            Mutant(function=_future_too, hint="A token may not look at what comes after it: s <= t."),
            Mutant(function=_end_begins, hint="Token 0 ends a document, so it belongs to the one before it: count the zeros before a token, without itself."),
            Mutant(function=_zero_shut_out, hint="Here a zero at t itself shuts t out. Only a zero before t, at s or later, lies between two documents."),
            Mutant(function=_causal_alone, hint="Here a token still looks into the document before its own."),
            Mutant(function=_not_itself, hint="A token may look at itself."),
            Mutant(function=_turned_mask, hint="Row t says where token t may look; rows and columns changed places."),
        )),
    Exercise(
        solution=reads_each_token_once, inputs=_batches, n_trials=40,
        hint="Collect the tokens of the first n_windows windows, over as many steps as len(batches) says, and look for one that comes twice.",
        mutants=(
            Mutant(function=_first_batch_alone, hint="Within a batch all may be well, and a later batch brings the same text again: look at all steps."),
            Mutant(function=_next_epoch_too, hint="The last batch may hold the beginning of the next epoch. Compare the first n_windows windows alone."),
            Mutant(function=_last_batch_left_out, hint="The last batch is not looked at, and a window may come again in it."),
            Mutant(function=_a_step_a_window, hint="This makes as many steps as there are windows, but each step brings a batch of them. Make len(batches) steps, then keep n_windows rows."),
            Mutant(function=_starts_differ, hint="Windows that start at different places can still overlap: compare all their tokens."),
        )),
]
