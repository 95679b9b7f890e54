"""Three ways to serve windows of text that train without complaint, and read some of the text twice and some of it never."""

import numpy as np

from minimodels.data import Batches


class WithReplacement(Batches):
    """Every window is drawn from all of the text, whatever was drawn before: in an epoch's length more than a third is not read."""

    def _epoch(self, epoch):
        rng = np.random.default_rng((self.seed, epoch))
        return rng.integers(len(self.tokens) - self.seq_len + 1, size=self.n_windows)


class HalfOverlapping(Batches):
    """Windows lie half over their neighbours, so that an epoch of as many windows ends in the middle of the text."""

    def _epoch(self, epoch):
        rng = np.random.default_rng((self.seed, epoch))
        return self.seq_len // 2 * rng.permutation(self.n_windows)


class ShuffledEveryStep(Batches):
    """The order is drawn anew at every step, as a loader does that is made inside the loop."""

    def at(self, step: int):
        anew = Batches(self.tokens, batch_size=self.batch_size, seq_len=self.seq_len, seed=self.seed + step)
        return anew.at(0)


BUGS = {"with replacement": WithReplacement, "half overlapping": HalfOverlapping, "shuffled every step": ShuffledEveryStep}
