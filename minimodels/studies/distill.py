"""Chapter 16: what a student of less than a third of its teacher's size learns from it, and what from a reward, for the same work.

The teacher is data/checkpoints/solver, chapter 15's model after 300 rollouts. Work is counted in tokens that pass forward through the
student (distill.Bill); a trial ends when its budget is spent. Students are scored on sums that no model has learnt from.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

import torch

from minimodels import lab
from minimodels.checkpoint import Run
from minimodels.config import ModelConfig, TrainConfig
from minimodels.distill import Bill, imitation, own_texts, rejection_sample
from minimodels.grpo import GRPOConfig, grpo
from minimodels.model import Transformer
from minimodels.solve import Episodes, accuracy, as_episodes, cross_entropy, drawn, learn, write
from minimodels.studies import Study
from minimodels.studies.grpo import BATCH, LEVEL, MODEL, SEEDS, TEACHING, SupervisedStart, evaluation, json_like, sampled
from minimodels.tasks import TASKS

TEACHER = "checkpoints/solver"
STUDENT = replace(MODEL, d_model=64, n_layers=2, d_head=16, d_value=16, d_rope=8, d_latent=32, d_ff=160)
BUDGET = 3_000_000               # tokens forward through the student; a token that it learns from costs 3
TEXT = 41                        # tokens of a sum with its solution, about: from it the length of a schedule is reckoned
N_TEXTS = 4_096                  # sums that the teacher is asked
LOOKS = 10                       # looks at a student while its budget lasts
OTHERS = (("subtraction", LEVEL), ("sorting", 4))
STARTS = {"from scratch": SupervisedStart(until=None, steps=0), "other tasks": SupervisedStart(until=None, steps=400, tasks=OTHERS)}
SKILLS = (("addition", LEVEL), ("addition", 4), ("subtraction", LEVEL), ("sorting", 4), ("countdown", 3))


def teacher() -> Transformer:
    """The model that chapter 15's reinforcement made."""
    return Run.open(lab.data_file(TEACHER)).model().eval()


def questions(n: int = N_TEXTS) -> list:
    """Sums that the teacher answers, or that the student tries: of the set that only a reward sees."""
    return TASKS["addition"].problems(n, level=LEVEL, of="rl")


def recipe(cost_of_text: float) -> TrainConfig:
    """How a student learns from texts, each of which costs so many passes over its tokens, until the budget is spent."""
    return replace(TEACHING, steps=int(BUDGET / (BATCH * TEXT * cost_of_text)), decay=0.4)


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of learning. texts: "teacher" (those that are right), "own", or "worked" (of the book). loss: "texts" (cross-entropy),
    "forward" or "reverse". Neither is read if rl is given, which says how a reward improves the student. n_texts: sums that are asked."""

    texts: str = "teacher"
    loss: str = "texts"
    temperature: float = 1.0
    n_texts: int = N_TEXTS
    rl: GRPOConfig | None = None


@dataclass(frozen=True, kw_only=True)
class Student:
    """Give a start the budget, spent in one way, and score what it has become."""

    arm: str
    seed: int
    way: Way
    start: SupervisedStart = field(default_factory=SupervisedStart)

    def settings(self) -> dict:
        way = asdict(self.way) | {"rl": self.way.rl and self.way.rl.to_dict()}
        return {"student": STUDENT.to_dict(), "teacher": TEACHER, "teaching": TEACHING.to_dict(), "start": json_like(asdict(self.start)), "way": way, "budget": BUDGET}

    def run(self) -> dict:
        return self.learn()[1]

    def learn(self) -> tuple[Transformer, dict]:
        """The student, and the record of its way."""
        model, steps = self.start.teach(self.seed, STUDENT)
        record = {"start_steps": steps, "before": skills(model)}
        bill, looks = Bill(), []
        for _ in self._steps(model, bill):
            if bill.student >= BUDGET * len(looks) / LOOKS:
                looks.append(look(model, bill.student))
            if bill.student >= BUDGET:
                break
        if looks[-1][0] < bill.student:    # the schedule may end a little before the budget does
            looks.append(look(model, bill.student))
        return model, record | {"after": skills(model), "sampled": sampled(model, evaluation(500)), "curve": [row[:2] for row in looks],
                                "texts": [[row[0], *row[2:]] for row in looks], "student_tokens": bill.student, "teacher_tokens": bill.teacher}

    def _steps(self, model: Transformer, bill: Bill):
        """Yield before the first step and after each; bill grows."""
        yield
        if self.way.rl:
            yield from self._rewarded(model, bill)
        else:
            batch, loss, cost = self._lessons(model, bill)
            yield from learn(model, batch, recipe(cost), loss)

    def _rewarded(self, model, bill):
        config = GRPOConfig.from_dict(self.way.rl.to_dict() | {"seed": self.seed})
        for step in grpo(model, questions(), config):
            n = config.n_prompts * config.group_size * (TEXT - 33 + step.length)    # a sum before its solution has 8 tokens
            bill.forward, bill.trained = bill.forward + round(2 * n), bill.trained + round(n)    # written, read once for the old ratio
            yield

    def _lessons(self, model, bill) -> tuple[Callable, Callable, float]:
        """The batches, charged as they are drawn; the loss; and what a text costs the student, in passes."""
        way, taught_by = self.way, teacher()
        loss = cross_entropy if way.loss == "texts" else imitation(taught_by, direction=way.loss, temperature=way.temperature)
        reads = int(way.loss != "texts")
        if way.texts == "own":
            batch = own_texts(model, questions(), BATCH, seed=self.seed)
            return bill.metered(batch, forward=1, trained=1, teacher=reads), loss, 4
        return bill.metered(drawn(self._texts(taught_by, bill), BATCH, self.seed), trained=1, teacher=reads), loss, 3

    def _texts(self, taught_by: Transformer, bill: Bill) -> Episodes:
        asked = questions(self.way.n_texts)
        if self.way.texts == "worked":
            return as_episodes(asked, [p.completion for p in asked])
        samples = rejection_sample(taught_by, asked, n_samples=1, generator=torch.Generator().manual_seed(self.seed))
        bill.teacher += samples.n_tokens
        return samples.episodes


def look(model: Transformer, spent: int) -> list:
    """What was spent, greedy accuracy on 200 new sums, and what is written to the first two of them."""
    return [spent, accuracy(model, evaluation(200)), *write(model, evaluation(2)).texts]


def skills(model: Transformer) -> dict:
    """Greedy accuracy on new problems of each kind: 500 sums, 100 of any other."""
    return {f"{task} {level}": accuracy(model, TASKS[task].problems(500 if (task, level) == SKILLS[0] else 100, level=level, of="eval"))
            for task, level in SKILLS}


# ---- the studies

RL = GRPOConfig(rollouts=1_000)    # the budget ends it
WAYS = {
    "its texts": Way(),
    "its logits, forward": Way(loss="forward"),
    "its logits, reverse": Way(loss="reverse"),
    "own texts, forward": Way(texts="own", loss="forward"),
    "own texts, reverse": Way(texts="own", loss="reverse"),
    "a reward": Way(rl=RL),
}
TRIED = [("other tasks", way) for way in WAYS] + [("from scratch", way) for way in ("its texts", "its logits, forward", "a reward")]
AMOUNTS = (32, 128, 512, 2_048, 8_192)
LEVELS = {"5 %": 0.05, "25 %": 0.25, "50 %": 0.5}

STUDIES = [
    Study(name="distill-ways", is_planned=True, question="What does a student learn from a teacher, and what from a reward, for the same work?",
          trials=tuple(Student(arm=f"{start}: {way}", seed=s, start=STARTS[start], way=WAYS[way]) for start, way in TRIED for s in SEEDS)),
    Study(name="distill-starts", is_planned=True, question="From which start does a reward work for the student, too?",
          trials=tuple(Student(arm=f"{level}: {way}", seed=s, start=SupervisedStart(until=LEVELS[level], steps=1_500), way=WAYS[way])
                       for level in LEVELS for way in ("its texts", "a reward") for s in SEEDS)),
    Study(name="distill-samples", is_planned=True, question="How many of the teacher's texts does a student need?",
          trials=tuple(Student(arm=f"{n} texts", seed=s, start=STARTS["other tasks"], way=Way(n_texts=n)) for n in AMOUNTS for s in SEEDS)),
]
