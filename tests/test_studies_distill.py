"""Chapter 16's studies: a budget that is kept, a bill that is right, and settings that survive a file. They are planned, not recorded."""

import json
from dataclasses import replace

import pytest
import torch

from minimodels.grpo import GRPOConfig
from minimodels.model import Transformer
from minimodels.studies import distill as study
from minimodels.studies.distill import MODEL, STARTS, STUDENT, STUDIES, Student, Way, recipe
from minimodels.tasks import TOKENIZER
from test_studies_grpo import SMALL


@pytest.fixture
def small(monkeypatch):
    """A student of one layer, a teacher of another seed, and a budget of a few steps."""
    torch.manual_seed(7)
    taught_by = Transformer(SMALL).eval()
    for name, value in {"STUDENT": SMALL, "BUDGET": 40_000, "N_TEXTS": 64, "teacher": lambda: taught_by, "evaluation": lambda n: study.questions(min(n, 5))}.items():
        monkeypatch.setattr(study, name, value)
    monkeypatch.setattr(study, "skills", lambda model: {"addition 3": 0.0})
    questions = study.questions
    monkeypatch.setattr(study, "questions", lambda n=64: questions(n))


def test_a_student_has_less_than_a_third_of_its_teacher():
    assert STUDENT.n_params == 98_816 and STUDENT.n_params < MODEL.n_params / 3


def test_a_sum_with_its_solution_has_about_the_tokens_that_schedules_reckon_with():
    lengths = [len(TOKENIZER.encode(p.prompt + p.completion).ids) for p in study.questions(200)]
    assert abs(sum(lengths) / 200 - study.TEXT) < 0.7
    assert recipe(3).steps * study.BATCH * study.TEXT * 3 == pytest.approx(study.BUDGET, rel=0.002)


@pytest.mark.parametrize("way, per_text, of_teacher", [
    (Way(texts="worked"), 3, 0), (Way(texts="worked", loss="forward"), 3, 1), (Way(texts="own", loss="reverse"), 4, 1), (Way(rl=GRPOConfig(n_prompts=2, group_size=2)), 5, 0)])
def test_every_way_ends_with_its_budget_and_pays_for_each_pass(small, way, per_text, of_teacher):
    model, found = Student(arm="", seed=1, start=STARTS["from scratch"], way=way).learn()
    assert 0.9 * study.BUDGET < found["student_tokens"] < 1.35 * study.BUDGET
    assert found["teacher_tokens"] == pytest.approx(of_teacher * found["student_tokens"] / per_text, rel=0.01)
    spent = [row[0] for row in found["curve"]]
    assert spent[0] == 0 and spent == sorted(spent) and spent[-1] == found["student_tokens"] and len(found["texts"]) == len(spent) and len(found["texts"][0]) == 3
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), STARTS["from scratch"].teach(1, SMALL)[0].parameters())) or way.rl


def test_the_same_seed_gives_the_same_record(small):
    trial = Student(arm="", seed=3, start=STARTS["from scratch"], way=Way(texts="worked", loss="forward"))
    assert trial.run() == trial.run() != replace(trial, seed=4).run()


def test_settings_survive_a_file_and_tell_every_arm_from_the_others():
    for found in STUDIES:
        arms = {trial.arm: json.dumps(trial.settings()) for trial in found.trials}
        assert len(set(arms.values())) == len(arms), found.name
        assert all(json.loads(text) == next(t for t in found.trials if t.arm == arm).settings() for arm, text in arms.items())
