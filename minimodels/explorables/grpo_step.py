"""A GRPO step in slow motion: a group of answers to one question, their rewards and advantages, and what one update did to every token."""

import copy
import math
from dataclasses import replace

import torch
import traitlets as t

from minimodels.explorables.base import Explorable, figures, table

PHASES = (1, 2, 3, 4)    # sample, reward, advantage, tokens

# an example by hand, with made-up probabilities: a half becomes 0.6, and the other half 0.4
BY_HAND = [
    {"tokens": ["<answer>", "2", "</answer>"], "answer": "2", "accuracy": 1, "format": 0, "total": 1.0, "advantage": 0.707,
     "before": [0.0, -0.6931, 0.0], "after": [0.0, -0.5108, 0.0]},
    {"tokens": ["<answer>", "3", "</answer>"], "answer": "3", "accuracy": 0, "format": 0, "total": 0.0, "advantage": -0.707,
     "before": [0.0, -0.6931, 0.0], "after": [0.0, -0.9163, 0.0]},
]


class GRPOStep(Explorable):
    """One question's group on its way through a step of GRPO: the samples, their rewards, their advantages, and each token before and after.

        r_i = accuracy_i + format_weight format_i
        A_i = (r_i - mean r) / (std r + 0.0001), or r_i - mean r                `minimodels.grpo.advantages`

    The reader flips verdicts, and turns the division on and off, and every advantage answers; the tokens stay those of the update that was made.
    Source: DeepSeekMath, section 4.1.2. Left out: the other questions of a batch, and AdamW's memory of earlier updates. So this update is
    AdamW's first, which moves a weight by about lr whatever the size of its gradient.
    """

    name = "grpo_step"

    prompt = t.Unicode("1+1=").tag(sync=True)
    answer = t.Unicode("2").tag(sync=True)           # a right one
    end = t.Unicode("<|endoftext|>").tag(sync=True)  # the token that ends a text
    samples = t.List(BY_HAND).tag(sync=True)         # (G,): see `of`
    clip = t.Float(0.2, min=0).tag(sync=True)        # epsilon
    ratio = t.Enum(["token", "sequence"], "token").tag(sync=True)
    format_weight = t.Float(0.2, min=0).tag(sync=True)
    divides_by_std = t.Bool(True).tag(sync=True)     # of the update that was made

    phase = t.Enum(PHASES, 1).tag(sync=True)
    divides = t.Bool(True).tag(sync=True)            # the reader's
    flipped = t.List(t.Int()).tag(sync=True)         # samples, from 0, whose verdict the reader has flipped
    sample = t.Int(0, min=0).tag(sync=True)          # the token that the reader points at
    token = t.Int(0, min=0).tag(sync=True)

    def __init__(self, **values):
        """The reader begins with the division as the update had it."""
        super().__init__(**{"divides": values.get("divides_by_std", True)} | values)

    @classmethod
    def of(cls, model, problem, config, *, seed: int = 0, **values) -> "GRPOStep":
        """What one real update of a copy of model does to its own answers to this problem; values go on top.

        config: a GRPOConfig, of which are read group_size, max_new_tokens, temperature and what the loss reads; lr, without warm-up.
        Each sample: tokens (strings), answer (in its tags, "" without them), accuracy and format (0 or 1), total, advantage, and of each
        token the log-probability in nats before and after, at temperature 1. They have four digits after the point.
        """
        from minimodels.grpo import Learner, total
        from minimodels.tasks import END, TOKENIZER, parts, reward

        learner = Learner(copy.deepcopy(model), replace(config, n_prompts=1, minibatches=1, warmup=0, seed=seed))
        episodes, rewards = learner.play([problem], reward)
        totals = [total(one, config) for one in rewards]
        before = _log_probs(learner.model, episodes)
        if len(set(totals)) > 1:    # rewards all alike have no gradient, and AdamW would make a whole step of what rounding leaves
            learner.improve(episodes, torch.tensor([totals]))
        after = _log_probs(learner.model, episodes)
        samples = [{
            "tokens": [TOKENIZER.id_to_token(token) for token in episodes.tokens[i][episodes.is_completion[i]].tolist()],
            "answer": (parts(text) or ("", ""))[1], "accuracy": int(one.accuracy), "format": int(one.format), "total": round(totals[i], 4),
            "before": before[i], "after": after[i],
        } for i, (text, one) in enumerate(zip(episodes.texts, rewards))]
        facts = dict(prompt=problem.prompt, answer=problem.answer, end=END, clip=config.clip, ratio=config.ratio,
                     format_weight=config.format_weight, divides_by_std=config.divides_by_std)
        judged = advantages(totals, config.divides_by_std)
        i, j = largest_change(samples)
        return cls(**facts | {"samples": [one | {"advantage": round(A, 6) + 0.0} for one, A in zip(samples, judged)], "sample": i, "token": j} | values)

    def verdicts(self) -> list[int]:
        """Of each sample 1 if its answer counts as right, else 0: the judge's word, flipped where the reader wants it."""
        return [one["accuracy"] ^ (i in self.flipped) for i, one in enumerate(self.samples)]

    def rewards(self) -> list[float]:
        """Of each sample, as the verdicts stand."""
        return [right + self.format_weight * one["format"] for right, one in zip(self.verdicts(), self.samples)]

    def advantages(self) -> list[float]:
        """Of each sample, as verdicts and division stand."""
        return advantages(self.rewards(), self.divides)

    def is_changed(self) -> bool:
        """Whether the reader has set the rewards or the division otherwise than the update had them."""
        return bool(self.flipped) or self.divides != self.divides_by_std

    def said(self) -> str:
        """What the phase shows, in words."""
        return (self._said_samples, self._said_rewards, self._said_advantages, self._said_tokens)[self.phase - 1]()

    def _said_samples(self):
        return f"The model wrote {len(self.samples)} answers to {shown(self.prompt)}, each drawn token by token. A right answer is {self.answer}."

    def _said_rewards(self):
        verdicts, rewards = self.verdicts(), self.rewards()
        formed = sum(one["format"] for one in self.samples)
        turned = f" Verdicts that you flipped: {len(self.flipped)}." if self.flipped else ""
        return (f"{sum(verdicts)} of {len(verdicts)} are right, which earns 1; {formed} have the format, which earns {figures(self.format_weight)}. "
                f"The mean reward is {figures(tidy(mean(rewards)))}.{turned}")

    def _said_advantages(self):
        rewards, moved = self.rewards(), [tidy(A) for A in self.advantages()]
        if not any(moved):
            return (f"All {len(rewards)} earn {figures(tidy(rewards[0]))}: nobody beats the group, every advantage is 0, "
                    "and this question teaches nothing.")
        std = figures(tidy(deviation(rewards)))
        return (f"{sum(A > 0 for A in moved)} of {len(rewards)} beat the mean of {figures(tidy(mean(rewards)))} and are to become likelier; "
                f"{sum(A < 0 for A in moved)} are to become less likely. "
                + (f"Divided by the standard deviation, {std}." if self.divides else f"Not divided by the standard deviation, {std}."))

    def _said_tokens(self):
        asked = [one for one in self.samples if one["advantage"]]
        mine = "You changed the advantages, but what is shown is the update that was made, with the judge's rewards. " if self.is_changed() else ""
        if not asked:
            return f"{mine}Every advantage is 0, so there was nothing to change."
        kept = sum(one["advantage"] * tidy(sum(one["after"]) - sum(one["before"])) > 0 for one in asked)
        i, j = largest_change(self.samples)
        one = self.samples[i]
        most = f"token {j + 1} of answer {i + 1}, {shown(one['tokens'][j])}, from {probability(one['before'][j])} to {probability(one['after'][j])}"
        return (f"{mine}After one update on this question alone, {kept} of {len(asked)} answers moved the way that their advantage asks. "
                f"The largest change: {most}.")

    def summary(self) -> str:
        judged = ", ".join(signed(one["advantage"]) for one in self.samples)
        return f"{self._said_samples()} Advantages: {judged}. {self._said_tokens()}"

    def fallback(self) -> str:
        word = ("no", "yes")
        rows = [["".join(one["tokens"]).removesuffix(self.end), word[one["accuracy"]], word[one["format"]], figures(one["total"]), signed(one["advantage"])]
                for one in self.samples]
        caption = f"{len(rows)} answers to {shown(self.prompt)}, of which {self.answer} is a right one, with the advantages of the update that was made"
        return table(caption, ["Answer", "Right", "Format", "Reward", "Advantage"], rows)


@torch.no_grad()
def _log_probs(model, episodes):
    """Of each episode the log-probabilities of its completion's tokens, in nats, rounded."""
    from minimodels.solve import log_probs

    found = log_probs(model.eval()(episodes.tokens).logits, episodes.tokens)  # (N, L-1)
    return [[digits(x) for x in row[keep].tolist()] for row, keep in zip(found, episodes.targets)]


def largest_change(samples: list[dict]) -> tuple[int, int]:
    """Which sample's which token changed the most in log-probability: the first of equals."""
    places = [(i, j) for i, one in enumerate(samples) for j in range(len(one["tokens"]))]
    return max(places, key=lambda place: abs(samples[place[0]]["after"][place[1]] - samples[place[0]]["before"][place[1]]))


# ---- the formulas of grpo_step.js; a test compares the two, and advantages with those of grpo.py


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def deviation(numbers: list[float]) -> float:
    """The standard deviation, with one degree of freedom less, as torch takes it."""
    middle = mean(numbers)
    return math.sqrt(sum((x - middle) ** 2 for x in numbers) / (len(numbers) - 1))


def advantages(rewards: list[float], divides_by_std: bool) -> list[float]:
    """Of each answer of one group, from its reward."""
    middle, by = mean(rewards), deviation(rewards) + 1e-4 if divides_by_std else 1
    return [(r - middle) / by for r in rewards]


def tidy(x: float) -> float:
    """Without what rounding left behind, so that half-way values print alike."""
    return math.floor(1e6 * x + 0.5) / 1e6


def digits(x: float) -> float:
    """Four digits after the point, and no minus before 0."""
    return round(x, 4) + 0.0


def signed(x: float) -> str:
    """'+0.71', '−0.71', '0.00': halves away from 0."""
    n = math.floor(100 * tidy(abs(x)) + 0.5)
    return f"{'' if n == 0 else '+' if x > 0 else '−'}{n / 100:.2f}"


def probability(log_p: float) -> str:
    """In percent: two digits after the point, and three in all below 1 %."""
    percent = 100 * math.exp(log_p)
    return f"{math.floor(100 * percent + 0.5) / 100:g} %" if percent >= 1 else f"{figures(percent)} %"


def shown(token: str) -> str:
    """A token in quotes, with its spaces to be seen."""
    return f"“{token.replace(' ', '·')}”"
