"""Five broken runs and a right one: the reader looks at the curves and says what is wrong."""

import math

import traitlets as t

from minimodels.explorables.base import Explorable, table
from minimodels.studies import recorded

STEPS = (*range(1, 11), *range(15, 151, 5))    # whose loss is kept
RUNS = {"A": "gradients never zeroed", "B": "targets not shifted", "C": "rate too high", "D": "the same batches again", "E": "text in order"}
CLUES = {
    "gradients never zeroed": "The hardest one: the right run's hump, but higher, then always a little above it. Old gradients pull with the new ones, and "
                              "the clip keeps them short.",
    "targets not shifted": "The first loss is below that of even odds, and soon text that it never saw costs nothing. That is too good to be true.",
    "rate too high": "In ten steps it is twice as bad as knowing nothing. It comes back: Muon's steps have a fixed length, so nothing runs away.",
    "the same batches again": "The line falls faster than the right one, and the rings do not follow: it learns by heart.",
    "text in order": "Waves: neighbours in a text are of one kind, easy once they have begun, and then comes another file.",
}


def curves(study: dict) -> dict[str, dict]:
    """{arm: {loss, valid}} of a recorded train-broken: the loss after each of STEPS, and [step, loss of unseen text], nats a token."""
    return {trial["arm"]: {"loss": [round(trial["loss"][step - 1], 2) for step in STEPS if step <= len(trial["loss"])],
                           "valid": [[step, round(bits * trial["bytes_per_token"] * math.log(2), 2)] for step, bits in trial["curve"]]}
            for trial in study["trials"]}


class TrainingCurves(Explorable):
    """Loss by step of one broken run at a time, beside the right one; the fault is named when the reader has guessed.

    The line is the training loss, the dots are unseen text, both in nats a token. runs: what was recorded, by letter.
    """

    name = "training_curves"

    run = t.Unicode("A").tag(sync=True)
    guess = t.Unicode("").tag(sync=True)       # a fault, or nothing yet
    log_x = t.Bool(False).tag(sync=True)
    steps = t.List(list(STEPS)).tag(sync=True)
    right = t.Dict().tag(sync=True)
    runs = t.Dict().tag(sync=True)             # by letter: loss, valid, fault, clue

    def __init__(self, **values):
        """What values do not name is the recorded study train-broken."""
        if "runs" not in values:
            known = curves(recorded("train-broken"))
            runs = {letter: known[fault] | {"fault": fault, "clue": CLUES[fault]} for letter, fault in RUNS.items()}
            values = {"right": known["right"], "runs": runs} | values
        super().__init__(**values)

    def verdict(self) -> str:
        """What is said to the guess; nothing before there is one."""
        one = self.runs[self.run]
        if not self.guess:
            return ""
        return f"Yes: {one['fault']}. {one['clue']}" if self.guess == one["fault"] else f"No. Look again: {one['clue']}"

    def summary(self) -> str:
        ends = ", ".join(f"{letter} {one['loss'][0]:.2f} to {one['loss'][-1]:.2f}" for letter, one in self.runs.items())
        return f"Training loss of five broken runs, first step to last: {ends}; a right run {self.right['loss'][0]:.2f} to {self.right['loss'][-1]:.2f}"

    def fallback(self) -> str:
        rows = [[name, *(f"{one['loss'][self.steps.index(step)]:.2f}" for step in (1, 10, 50, 150)), f"{one['valid'][-1][1]:.2f}"]
                for name, one in {"right": self.right, **self.runs}.items()]
        return table("Loss in nats a token of a right run and five broken ones", ["Run", "Step 1", "Step 10", "Step 50", "Step 150", "Unseen text"], rows)
