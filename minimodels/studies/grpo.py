"""Chapter 15: what a supervised start knows, and what a rule-based reward makes of it.

Every trial teaches a model of 340,848 parameters sums of three digits, stops where its greedy answers to spare problems of the train set
reach a quarter, and goes on by GRPO on problems whose answers nobody shows it. It is scored on problems that neither has touched.
"""

import contextlib
import copy
import random
import re
import time
from dataclasses import asdict, dataclass, field, replace
from unittest import mock

import torch

from minimodels import grpo as module
from minimodels.bugs.grpo import BUGS, PROBLEMS
from minimodels.config import ModelConfig, TrainConfig
from minimodels.grpo import GRPOConfig, grpo, k3
from minimodels.model import Transformer
from minimodels.solve import accuracy, as_episodes, drawn, judge, learn, log_probs, pass_at_k, write
from minimodels.studies import Study
from minimodels.tasks import TASKS, TOKENIZER, Problem, Reward, parts, reward

MODEL = ModelConfig(vocab_size=TOKENIZER.get_vocab_size(), d_model=96, n_layers=3, max_seq_len=96, n_heads=4, d_head=24, d_rope=12,
                    d_value=24, d_latent=48, d_ff=256, n_experts=0, n_shared=0, mtp_depth=0)
TEACHING = TrainConfig(steps=400, muon_lr=0.02, embed_lr=0.02, warmup=0.05, decay=0.0)
RECIPE = GRPOConfig()
LEVEL = 3                        # digits of each summand
BATCH = 32                       # worked solutions a step
POOL, PROBE = 20_000, 128        # problems with worked solutions; of the same set, but spare: where teaching stops is chosen on these
N_RL, N_EVAL, N_LOOK = 4_000, 500, 200
LOOK = ("rollout", "greedy", "sampled", "form", "thinks", "length", "kl")    # columns of a curve
LOG = ("reward", "accuracy", "format", "length", "entropy", "clipped", "idle", "grad_norm")    # of a rollout
WARMUP = 20                      # steps in which a start's rate rises, however many follow
FIRST = 100                      # steps of teaching before which no start is good enough (grpo-start)
SEEDS = (1, 2, 3)


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a model is taught before it is rewarded.

    until: stop where greedy accuracy on spare problems reaches this; None: after all steps. tasks: (name, level) of each kind of
    problem, in equal shares. thinking: share of the solutions that are written out; the others give the answer alone.
    """

    until: float | None = 0.25
    steps: int = TEACHING.steps
    tasks: tuple = (("addition", LEVEL),)
    thinking: float = 1.0

    def teach(self, seed: int, model: ModelConfig = MODEL) -> tuple[Transformer, int]:
        """A model taught so, and the steps that it took."""
        torch.manual_seed(seed)
        made, pool, probe = Transformer(model), [], []
        for task, level in self.tasks:
            problems = TASKS[task].problems(POOL // len(self.tasks) + PROBE, level=level, of="train")
            pool, probe = pool + problems[PROBE:], probe + problems[:PROBE]
        rng = random.Random(seed)
        texts = as_episodes(pool, [p.completion if rng.random() < self.thinking else p.direct for p in pool])
        step, config = 0, replace(TEACHING, steps=max(1, self.steps), warmup=WARMUP / max(WARMUP, self.steps))
        for step, _ in enumerate(learn(made, drawn(texts, BATCH, seed), config) if self.steps else (), 1):
            if self.until is not None and step > FIRST and step % 5 == 0 and accuracy(made, probe) >= self.until:
                break
        return made, step


@dataclass(frozen=True, kw_only=True)
class Taught:
    """How a start grows: greedy and sampled accuracy after every so many steps of teaching."""

    arm: str
    seed: int
    every: int = 10
    teaching: TrainConfig = TEACHING

    def settings(self) -> dict:
        return {"model": MODEL.to_dict(), "teaching": self.teaching.to_dict(), "batch": BATCH, "pool": POOL, "level": LEVEL, "n_eval": N_LOOK}

    def run(self) -> dict:
        torch.manual_seed(self.seed)
        model, questions = Transformer(MODEL), evaluation(N_LOOK)
        texts = as_episodes(pool := TASKS["addition"].problems(POOL + PROBE, level=LEVEL, of="train")[PROBE:], [p.completion for p in pool])
        curve, seconds, began = [], 0.0, time.process_time()
        for step, loss in enumerate(learn(model, drawn(texts, BATCH, self.seed), self.teaching), 1):
            if step % self.every == 0:
                seconds += time.process_time() - began
                curve.append([step, round(loss, 4), accuracy(model, questions), sampled(model, questions)])
                began = time.process_time()
        return {"curve": curve, "cpu_seconds": round(seconds, 1)}


def evaluation(n: int) -> list[Problem]:
    """n sums that no training ever sees."""
    return TASKS["addition"].problems(n, level=LEVEL, of="eval")


def rewarded_problems(n: int = N_RL) -> list[Problem]:
    """n sums of which only the reward is seen."""
    return TASKS["addition"].problems(n, level=LEVEL, of="rl")


def sampled(model: Transformer, questions: list[Problem], seed: int = 0) -> float:
    """Share of right answers at temperature 1, one answer a question."""
    return accuracy(model, questions, temperature=1.0, generator=torch.Generator().manual_seed(seed))


# ---- what judges


def true_equations(text: str) -> list[str]:
    """The equations of a text, from its start up to its answer, that are true: x+y+z=s, as often as they stand there."""
    found = re.findall(r"(?<![\d+])(\d+)\+(\d+)\+(\d+)=(\d+)(?!\d)", text.split("<answer>")[0])
    return ["{}+{}+{}={}".format(*e) for e in found if sum(map(int, e[:3])) == int(e[3])]


def by_tokens(problem: Problem, text: str) -> Reward:
    """Careless: a tenth for each token, because those who think longer are more often right."""
    earned = reward(problem, text)
    return Reward(earned.accuracy + len(TOKENIZER.encode(text).ids) / 10, earned.format)


def by_equations(problem: Problem, text: str) -> Reward:
    """Careless: beside what the rules give, a quarter for each true equation, however many, and whatever about."""
    earned = reward(problem, text)
    return Reward(earned.accuracy + len(true_equations(text)) / 4, earned.format)


def by_columns(problem: Problem, text: str) -> Reward:
    """Mended: a quarter for each column of this sum that is written out, once."""
    earned, written = reward(problem, text), set(true_equations(text))
    return Reward(earned.accuracy + len(written & set(problem.thinking.split(";"))) / 4, earned.format)


def by_form(problem: Problem, text: str) -> Reward:
    """Format alone."""
    return Reward(0.0, reward(problem, text).format)


SCORES = {"rules": reward, "tokens": by_tokens, "equations": by_equations, "columns": by_columns, "form": by_form}


# ---- a run of GRPO


@dataclass(frozen=True, kw_only=True)
class Rewarded:
    """Teach a start, improve it by GRPO, and look at it after every so many rollouts.

    score: what judges, a key of SCORES. bug: a key of BUGS or PROBLEMS. group_mean: whether the advantage is above the group's mean; if
    not, it is the reward itself. n_rl: sums to ask. samples: answers to each of 100 questions for pass@k, before and after; 0: none.
    """

    arm: str
    seed: int
    start: Start = field(default_factory=Start)
    config: GRPOConfig = RECIPE
    score: str = "rules"
    bug: str | None = None
    group_mean: bool = True
    every: int = 20
    samples: int = 0
    n_rl: int = N_RL

    def settings(self) -> dict:
        config = {name: value for name, value in self.config.to_dict().items() if name != "seed"}
        return {"model": MODEL.to_dict(), "teaching": TEACHING.to_dict(), "start": json_like(asdict(self.start)), "grpo": config, "score": self.score, "bug": self.bug,
                "group_mean": self.group_mean, "every": self.every, "samples": self.samples, "n_eval": N_EVAL, "n_look": N_LOOK, "n_rl": self.n_rl}

    def run(self) -> dict:
        return self.learn()[1]

    def learn(self) -> tuple[Transformer, dict]:
        """The model after all rollouts, and the record of its way."""
        began = time.process_time()
        model, steps = self.start.teach(self.seed)
        record = {"start_steps": steps, "start_cpu_seconds": round(time.process_time() - began, 1), "before": final(model, self.samples)}
        of_bug = PROBLEMS.get(self.bug)
        looker = Looker(model, of_bug(TASKS["addition"], self.n_rl, level=LEVEL) if of_bug else evaluation(N_LOOK))
        curve, log, seconds = [looker.look(model, 0)], [], 0.0
        with self._planted():
            try:
                for step in grpo(model, rewarded_problems(self.n_rl), self._config, score=SCORES[self.score]):
                    log.append([round(getattr(step, name), 4) for name in LOG])
                    seconds += step.seconds
                    if step.rollout % self.every == 0:
                        curve.append(looker.look(model, step.rollout))
            except FloatingPointError as error:
                record["stopped"] = str(error)
        return model, record | {"after": final(model, self.samples), "curve": curve, "log": log, "texts": looker.texts, "seconds": round(seconds, 1)}

    @property
    def _config(self):
        return GRPOConfig.from_dict(self.config.to_dict() | {"seed": self.seed})

    @contextlib.contextmanager
    def _planted(self):
        with contextlib.ExitStack() as stack:
            if self.bug in BUGS:
                stack.enter_context(BUGS[self.bug].planted())
            if not self.group_mean:
                stack.enter_context(mock.patch.object(module, "advantages", lambda rewards, **_: rewards))
            yield


def json_like(values):
    """The same values with lists instead of tuples, as they come back from a file."""
    return {k: [list(v) for v in value] if isinstance(value, tuple) else value for k, value in values.items()}


class Looker:
    """Looks at a model from outside: with what it began as, and the same questions each time."""

    def __init__(self, model: Transformer, questions: list[Problem]):
        self.start, self.questions, self.texts = copy.deepcopy(model).eval(), questions, []

    @torch.no_grad()
    def look(self, model: Transformer, rollout: int) -> list:
        """One row of the curve: LOOK. Two answers of each kind go into texts."""
        greedy = write(model, self.questions).texts
        episodes = write(model, self.questions, temperature=1.0, generator=torch.Generator().manual_seed(rollout))
        texts, rewards = episodes.texts, judge(self.questions, episodes.texts)
        ours, theirs = (log_probs(m(episodes.tokens).logits, episodes.tokens)[episodes.targets] for m in (model, self.start))
        self.texts.append([rollout, *greedy[:2], *texts[:2]])
        values = [mean(r.accuracy for r in judge(self.questions, greedy)), mean(r.accuracy for r in rewards), mean(r.format for r in rewards),
                  mean(thinks(text) for text in texts), mean(episodes.lengths.tolist()), k3(ours, theirs).mean().item()]
        return [rollout, *(round(value, 4) for value in values)]


def thinks(text: str) -> bool:
    """Whether a text in the right format holds any thought."""
    found = parts(text)
    return bool(found and found[0])


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def final(model: Transformer, samples: int) -> dict:
    """Greedy and sampled accuracy on all evaluation problems and, from so many samples of each of 100 questions, how many were right."""
    questions = evaluation(N_EVAL)
    found = {"greedy": accuracy(model, questions), "sampled": sampled(model, questions)}
    if samples:
        texts = write(model, questions[:100], n_samples=samples, temperature=1.0, generator=torch.Generator().manual_seed(7)).texts
        right = [int(r.accuracy) for r in judge(questions[:100], texts)]
        found["n_right"] = [sum(right[i:i + samples]) for i in range(0, len(right), samples)]
    return found


def pass_curve(n_right: list[int], samples: int, ks: tuple[int, ...]) -> list[float]:
    """pass@k for each k, the mean over questions. n_right: right ones of so many samples of each."""
    return [mean(pass_at_k(samples, n, k) for n in n_right) for k in ks]


# ---- the studies

LIVE = GRPOConfig(rollouts=40)
SELDOM = Start(until=None, steps=600, thinking=0.3)
OTHERS = Start(until=None, steps=300, tasks=(("subtraction", LEVEL), ("sorting", 4)))
ZERO = {"untrained": Start(until=None, steps=0), "other tasks": OTHERS, "seldom thinks": SELDOM}
VARIANTS = {
    "with a reference, 0.04": dict(kl_weight=0.04),
    "not by the deviation": dict(divides_by_std=False),
    "one constant": dict(averages="constant"),
    "ratio of the answer": dict(ratio="sequence"),
    "groups of 2": dict(group_size=2, n_prompts=64),
    "rate 3e-4": dict(lr=3e-4),
    "rate 1e-3, no warm-up": dict(lr=1e-3, warmup=0),
}


RECORDED_BUGS = ("prompts learnt too", "over the batch", "one token late", "old policy anew", "colder than learnt")


def varied(**changes) -> GRPOConfig:
    """The live run with other settings."""
    return GRPOConfig.from_dict(LIVE.to_dict() | changes)


STUDIES = [
    Study(name="grpo-start", is_planned=True, question="How does the accuracy of a supervised start grow with its steps?",
          trials=tuple(Taught(arm="taught", seed=s) for s in SEEDS)),
    Study(name="grpo-longer", is_planned=True, question="How far do worked solutions alone bring the model, with a rate that falls?",
          trials=tuple(Taught(arm="taught", seed=s, every=100, teaching=replace(TEACHING, steps=1_200, decay=0.4)) for s in SEEDS)),
    Study(name="grpo-quality", is_planned=True, question="How far does GRPO bring a start of a quarter, and does it teach or sharpen?",
          trials=tuple(Rewarded(arm="grpo", seed=s, config=GRPOConfig(rollouts=300), every=10, samples=64) for s in SEEDS)),
    Study(name="grpo-live", is_planned=True, question="What do the chapter's own forty rollouts reach, seed by seed?",
          trials=tuple(Rewarded(arm="live", seed=s, config=LIVE) for s in (1, 2, 3, 4, 5, 6))),
    Study(name="grpo-zero", is_planned=True, question="What does GRPO make of a model that was not taught to think?",
          trials=tuple(Rewarded(arm=arm, seed=s, start=start, config=GRPOConfig(rollouts=100))
                       for arm, start in ZERO.items() for s in SEEDS)),
    Study(name="grpo-hacking", is_planned=True, question="What does a model learn that is paid by the token, by the true equation, or by the column?",
          trials=tuple(Rewarded(arm=score, seed=s, score=score, config=GRPOConfig(rollouts=60), every=10) for score in ("tokens", "equations", "columns") for s in SEEDS)),
    Study(name="grpo-variants", is_planned=True, question="Which parts of GRPO matter here? (As it is: grpo-live.)",
          trials=tuple(Rewarded(arm=arm, seed=s, config=varied(**changes)) for arm, changes in VARIANTS.items() for s in SEEDS)
          + tuple(Rewarded(arm="not above the mean", seed=s, config=LIVE, group_mean=False) for s in SEEDS)),
    Study(name="grpo-bugs", is_planned=True, question="Which bugs of GRPO still train? (Without any: grpo-live.)",
          trials=tuple(Rewarded(arm=bug, seed=s, config=LIVE, bug=bug, n_rl=32 if bug in PROBLEMS else N_RL) for bug in (*RECORDED_BUGS, *PROBLEMS) for s in SEEDS)),
]
