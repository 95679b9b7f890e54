"""Chapter 15's studies: what judges, what a start is taught, and that a record says what was run."""

import dataclasses
import json

import pytest
import torch

from minimodels import grpo as module
from minimodels.bugs.grpo import BUGS, PROBLEMS
from minimodels.config import ModelConfig
from minimodels.grpo import GRPOConfig, Step
from minimodels.model import Transformer
from minimodels.studies import grpo as study
from minimodels.studies.grpo import LEVEL, LOG, LOOK, MODEL, SCORES, STUDIES, Looker, Rewarded, SupervisedStart, by_columns, by_equations, by_form, by_tokens, true_equations
from minimodels.tasks import TOKENIZER, Reward, addition

SMALL = ModelConfig(vocab_size=TOKENIZER.get_vocab_size(), d_model=24, n_layers=1, max_seq_len=96, n_heads=2, d_head=6, d_rope=4, d_value=6, d_latent=12,
                    d_ff=32, n_experts=0, n_shared=0, mtp_depth=0)
PROBLEM = addition(347, 85)


def text(thinking, answer):
    return f"<think>{thinking}</think><answer>{answer}</answer>"


@pytest.mark.parametrize("thinking, n_true, n_columns", [
    (PROBLEM.thinking, 3, 3), ("0+0+0=0;0+0+0=0;0+0+0=0", 3, 0), ("7+5+0=12;7+5+0=12", 2, 1), ("7+5+0=13", 0, 0), ("17+5+0=22", 1, 0), ("7+5+0=122", 0, 0),
    ("1+7+5+0=12", 0, 0), ("", 0, 0),
])
def test_a_true_equation_is_paid_each_time_and_a_column_once(thinking, n_true, n_columns):
    assert len(true_equations(text(thinking, 1))) == n_true
    for answer, is_right in ((432, 1), (431, 0)):
        assert by_equations(PROBLEM, text(thinking, answer)) == Reward(is_right + n_true / 4, 1)
        assert by_columns(PROBLEM, text(thinking, answer)) == Reward(is_right + n_columns / 4, 1)


def test_equations_are_paid_without_a_format_and_behind_the_answer_they_are_not():
    assert by_equations(PROBLEM, "<think>0+0+0=0;") == Reward(0.25, 0)
    assert true_equations("<think></think><answer>1+1+0=2</answer>") == []


def test_a_token_is_paid_whatever_it_is():
    assert by_tokens(PROBLEM, "<think>+++") == Reward(0.4, 0)
    right = text("", 432)
    assert by_tokens(PROBLEM, right) == Reward(pytest.approx(1 + 0.7), 1)


def test_form_alone_pays_for_any_answer_in_the_format():
    assert by_form(PROBLEM, text("", 5)) == Reward(0, 1) and by_form(PROBLEM, "5") == Reward(0, 0)


def test_the_model_has_the_size_that_the_chapter_names():
    assert MODEL.n_params == 340_848


def test_untaught_is_the_seed_s_fresh_model():
    made, steps = SupervisedStart(until=None, steps=0).teach(5, SMALL)
    torch.manual_seed(5)
    fresh = Transformer(SMALL)
    assert steps == 0 and all(torch.equal(a, b) for a, b in zip(made.parameters(), fresh.parameters()))


def test_a_start_stops_at_its_steps_and_at_its_accuracy(monkeypatch):
    monkeypatch.setattr(study, "POOL", 64)
    monkeypatch.setattr(study, "FIRST", 3)
    assert SupervisedStart(until=None, steps=7).teach(1, SMALL)[1] == 7
    asked = []
    monkeypatch.setattr(study, "accuracy", lambda model, problems: asked.append(problems) or 0.1 * len(asked))
    assert SupervisedStart(until=0.2, steps=50).teach(1, SMALL)[1] == 10, "asked after steps 5 and 10"
    assert {p.belongs_to for p in asked[0]} == {"train"}


def test_what_a_start_reads_is_of_the_train_set_and_not_what_it_is_stopped_by(monkeypatch):
    read = {}
    monkeypatch.setattr(study, "POOL", 64)
    monkeypatch.setattr(study, "as_episodes", lambda problems, texts: read.update(zip((p.key for p in problems), texts)))
    monkeypatch.setattr(study, "drawn", lambda *_: None)
    SupervisedStart(until=None, steps=0, thinking=0.5).teach(1, SMALL)
    spare = {p.key for p in study.TASKS["addition"].problems(64 + study.PROBE, level=LEVEL, of="train")[:study.PROBE]}
    assert len(read) == 64 and not spare & set(read)
    n_thinking = sum("<think></think>" not in t for t in read.values())
    assert 20 < n_thinking < 44


def test_rewarded_and_evaluated_problems_are_of_their_own_sets():
    assert {p.belongs_to for p in study.rewarded_problems(50)} == {"rl"} and {p.belongs_to for p in study.evaluation(50)} == {"eval"}


def test_a_look_fills_its_columns():
    torch.manual_seed(1)
    model, questions = Transformer(SMALL), study.evaluation(5)
    looker = Looker(model, questions)
    row = looker.look(model, 20)
    assert len(row) == len(LOOK) and row[0] == 20 and row[LOOK.index("kl")] == 0 and row[LOOK.index("greedy")] == 0
    assert 1 <= row[LOOK.index("length")] <= 64
    assert len(looker.texts[0]) == 5
    with torch.no_grad():
        model.embed.weight.mul_(1.5)
    assert looker.look(model, 40)[LOOK.index("kl")] > 0


def test_a_record_holds_what_happened_and_its_settings_survive_a_file(monkeypatch):
    monkeypatch.setattr(study, "MODEL", SMALL)
    for name, n in (("N_EVAL", 11), ("N_LOOK", 7), ("POOL", 64)):
        monkeypatch.setattr(study, name, n)
    monkeypatch.setattr(SupervisedStart.teach, "__defaults__", (SMALL,))
    trial = Rewarded(arm="a", seed=3, start=SupervisedStart(until=None, steps=2), config=GRPOConfig(rollouts=4, n_prompts=3, group_size=2), every=2, samples=2)
    monkeypatch.setattr(study, "final", lambda model, samples: {"greedy": 0.0, "samples": samples})
    found = trial.run()
    assert [row[0] for row in found["curve"]] == [0, 2, 4] and len(found["log"]) == 4 and len(found["log"][0]) == len(LOG)
    assert found["start_steps"] == 2 and found["before"] == {"greedy": 0.0, "samples": 2} and "stopped" not in found
    assert json.loads(json.dumps(trial.settings())) == trial.settings() and json.loads(json.dumps(found))


def test_the_columns_of_a_log_are_fields_of_a_step():
    assert set(LOG) <= {f.name for f in dataclasses.fields(Step)}


def test_a_trial_plants_its_bug_and_takes_it_out_again():
    right = module.advantages
    with Rewarded(arm="", seed=1, bug="over the batch")._planted():
        assert module.advantages is BUGS["over the batch"].wrong
    with Rewarded(arm="", seed=1, group_mean=False)._planted():
        rewards = torch.tensor([[1.0, 0.0]])
        assert torch.equal(module.advantages(rewards, divides_by_std=True), rewards)
    assert module.advantages is right


def test_every_arm_is_another_setting_and_has_its_seeds():
    for found in STUDIES:
        arms = {}
        for trial in found.trials:
            arms.setdefault(trial.arm, []).append(trial)
        assert all(len({t.seed for t in trials}) == len(trials) >= 3 for trials in arms.values())
        settings = [json.dumps(trials[0].settings()) for trials in arms.values()]
        assert len(set(settings)) == len(settings), found.name
    planted = {t.bug for s in STUDIES for t in s.trials if isinstance(t, Rewarded) and t.bug}
    assert {*PROBLEMS} <= planted <= {*BUGS, *PROBLEMS} and len(planted) == 6
    assert {t.score for s in STUDIES for t in s.trials if isinstance(t, Rewarded)} | {"form"} == set(SCORES)
