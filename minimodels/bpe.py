"""Byte-pair encoding in the open: slow, short, and with the same merges as the library that the book trains with.

Left out: speed (every step counts all pairs anew), and the cache that a real encoder keeps for words.
"""

from collections import Counter


def count_pairs(words: dict[tuple, int]) -> Counter:
    """How often each pair of neighbours stands in words, {tuple of ids: how often the word occurs}."""
    pairs = Counter()
    for word, n in words.items():
        for pair in zip(word, word[1:]):
            pairs[pair] += n
    return pairs


def merge(word: tuple, pair: tuple, new: int) -> tuple:
    """word with every occurrence of pair, from the left, replaced by the id new."""
    merged, i = [], 0
    while i < len(word):
        is_pair = word[i:i + 2] == pair
        merged.append(new if is_pair else word[i])
        i += 2 if is_pair else 1
    return tuple(merged)


def learn_merges(words: dict[tuple, int], n_merges: int) -> list[tuple]:
    """The pairs that are merged, in order: each time the most frequent, and among equals the one with the smallest ids.

    words: {tuple of ids in [1, 256]: how often}. Merge i makes token 257 + i. Fewer than n_merges if no pair occurs twice.
    Source: Sennrich et al. (2016), algorithm 1.
    """
    merges = []
    for new in range(257, 257 + n_merges):
        pairs = count_pairs(words)
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        merges.append(best)
        words = {merge(word, best, new): n for word, n in words.items()}
    return merges


def encode_word(word: tuple, ranks: dict[tuple, int]) -> tuple:
    """The ids of a word after all merges: whichever of its pairs was learnt first is merged first. ranks: {pair: id of its token}."""
    while pairs := [pair for pair in zip(word, word[1:]) if pair in ranks]:
        first = min(pairs, key=ranks.get)
        word = merge(word, first, ranks[first])
    return word
