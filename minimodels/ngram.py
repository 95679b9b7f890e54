"""Language models that only count: the opponents a trained one should beat, and a detector of text that was seen before.

Left out: the smoothing that won competitions (Kneser-Ney), and counts that do not fit in memory.
"""

import numpy as np


class NGram:
    """What follows the last n - 1 tokens, by counting, with shorter contexts to fall back on.

        p_n(w | h) = (count(h w) + k p_{n-1}(w | h')) / (count(h) + k),    p_0(w) = 1 / V

    h: the n - 1 tokens before w; h': the same without the first of them. k: how many observations the shorter context is worth,
    where k = 0 would give probability 0 to what was never seen. n = 1 looks at nothing, n = 2 at the token before: a bigram model.
    tokens: (N,), any integer type, each in [0, vocab_size). Memory: some 16 bytes a token and order.
    Raises ValueError if n, k or the tokens do not fit.
    Source: MacKay and Peto (1995), with one k for all contexts.
    """

    def __init__(self, tokens: np.ndarray, *, vocab_size: int, n: int, k: float):
        if n < 1 or vocab_size**n >= 2**63:
            raise ValueError(f"n must be at least 1, and vocab_size**n below 2**63, got n={n} with vocab_size={vocab_size}")
        if k <= 0:
            raise ValueError(f"k must be above 0, because an unseen token would get probability 0, got {k}")
        self.vocab_size, self.n, self.k = vocab_size, n, k
        grams = self._grams(tokens)
        self._tables = [np.unique(of_length, return_counts=True) for of_length in grams]
        # a context counts where something follows it: not at the very end
        self._contexts = [(np.zeros(1, np.int64), np.array([len(grams[0])]))]
        self._contexts += [np.unique(of_length[:-1], return_counts=True) for of_length in grams[:-1]]

    def probabilities(self, tokens: np.ndarray) -> np.ndarray:
        """p of each token, given those before it: (N,). The first ones have fewer than n - 1 before them."""
        grams, p = self._grams(tokens), np.full(len(tokens), 1 / self.vocab_size)
        for length, of_length in enumerate(grams, 1):
            seen = _look_up(self._tables[length - 1], of_length)
            before = _look_up(self._contexts[length - 1], grams[length - 2][:-1] if length > 1 else np.zeros(len(tokens), np.int64))
            p[length - 1:] = (seen + self.k * p[length - 1:]) / (before + self.k)
        return p

    def nats(self, tokens: np.ndarray) -> float:
        """What the tokens cost together: the sum of -ln p. `data.bits_per_byte` makes a score of it."""
        return float(-np.log(self.probabilities(tokens)).sum())

    def _grams(self, tokens):
        """For each length up to n, one number for each run of so many tokens: [(N,), (N - 1,), ...]."""
        tokens = np.asarray(tokens, dtype=np.int64)
        if len(tokens) < self.n or tokens.min() < 0 or tokens.max() >= self.vocab_size:
            raise ValueError(f"tokens must be at least n={self.n}, each in [0, vocab_size={self.vocab_size}), got {len(tokens)}")
        grams = [tokens]
        for _ in range(self.n - 1):
            grams.append(grams[-1][:-1] * self.vocab_size + tokens[len(grams):])
        return grams


def copied(train: np.ndarray, valid: np.ndarray, n: int) -> np.ndarray:
    """Whether the n tokens of valid that begin at each place stand in train, too, in this order: (N - n + 1,) truth values.

    Runs are compared by a 64-bit hash, so that one in some 10^13 may be called copied by chance.
    """
    runs = [_hashes(np.asarray(tokens), n) for tokens in (train, valid)]
    return np.isin(runs[1], runs[0])


def _hashes(tokens, n):
    """A number for each run of n tokens: a polynomial in them, modulo 2**64."""
    total = np.zeros(max(0, len(tokens) - n + 1), dtype=np.uint64)
    for i in range(n):
        total = total * np.uint64(0x9E3779B97F4A7C15) + tokens[i:i + len(total)].astype(np.uint64) + np.uint64(1)
    return total


def _look_up(table, keys):
    """The count of each key; 0 for one that is not in the table."""
    known, counts = table
    at = np.searchsorted(known, keys).clip(max=len(known) - 1)
    return np.where(known[at] == keys, counts[at], 0)
