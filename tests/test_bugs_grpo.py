"""GRPO's planted bugs: each does what it says and no more, and nothing of it is left when its context ends."""

import copy
from dataclasses import replace

import pytest
import torch

from minimodels import distill
from minimodels import grpo as module
from minimodels import solve
from minimodels.bugs import distill as of_distillation
from minimodels.bugs.grpo import BUGS, PROBLEMS
from minimodels.grpo import GRPOConfig, Learner
from minimodels.model import Transformer
from minimodels.solve import Episodes
from minimodels.tasks import STOP, TASKS, Reward
from configs import odd_config

CONFIG = GRPOConfig(n_prompts=2, group_size=3, max_new_tokens=7, minibatches=1, averages="constant", lr=1e-2, warmup=0)
each_bug = pytest.mark.parametrize("name", BUGS)
each_of_both_chapters = pytest.mark.parametrize("bug", [*BUGS.values(), *of_distillation.BUGS.values()], ids=[*BUGS, *of_distillation.BUGS])


def pair():
    """Two answers to one prompt of three tokens: two tokens and the end, and the end alone. Predictions: five, of tokens 1 to 5."""
    return Episodes.of([[11, 13, 17]] * 2, [[19, 23, STOP], [STOP]])


def slopes(episodes, *, ratio=1.0, advantage=(1.0, -1.0), config=CONFIG):
    """Minus the loss's gradient by log_p, (N, L-1), in units of what one token weighs with averages="constant"."""
    log_p = torch.full(episodes.targets.shape, -2.0, requires_grad=True)
    log_old = log_p.detach() - torch.tensor(ratio).log()
    module.grpo_loss(log_p, log_old, torch.tensor(advantage), episodes, config).backward()
    return (-log_p.grad * config.max_new_tokens * len(episodes)).round(decimals=4).tolist()


def tiny(seed=0):
    """A model of one layer that reads the tasks' tokens; and two sums of one digit, whose prompts have four tokens."""
    torch.manual_seed(seed)
    config = odd_config(vocab_size=50, n_layers=1, n_dense_layers=1, n_experts=0, mtp_depth=0)
    return Transformer(config), TASKS["addition"].problems(2, level=1, of="rl")


def likes_low_tokens(problem, text):
    """A score that tells samples apart: by how many different characters they hold."""
    return Reward(len(set(text)) / 7, 0.0)


# ---- planting


def everything():
    return {(owner.__name__, name): value for owner in (module, distill, solve, Learner, Episodes) for name, value in vars(owner).items()}


@each_of_both_chapters
def test_a_bug_stands_inside_its_context_alone(bug):
    before = everything()
    with bug.planted():
        inside = everything()
        assert vars(bug.owner)[bug.name] is bug.wrong
    assert {key for key in before if inside[key] is not before[key]} == {(bug.owner.__name__, bug.name)}
    after = everything()
    assert after.keys() == before.keys() and all(after[key] is before[key] for key in before)


@each_of_both_chapters
def test_an_exception_does_not_leave_a_bug_behind(bug):
    before = everything()
    with pytest.raises(KeyError, match="on the way"), bug.planted():
        raise KeyError("on the way")
    assert all(everything()[key] is before[key] for key in before)


def test_bugs_can_be_planted_one_in_the_other():
    before = everything()
    with BUGS["no clip"].planted(), BUGS["one token late"].planted(), BUGS["over the batch"].planted():
        assert module.grpo_loss is BUGS["one token late"].wrong and module.advantages is BUGS["over the batch"].wrong
    assert all(everything()[key] is before[key] for key in before)


def test_there_are_seven_and_each_says_how_it_hides_in_one_line():
    parts = [bug.wrong for bug in BUGS.values()] + list(PROBLEMS.values())
    assert len(BUGS) == 7 and len({part.__name__ for part in parts}) == 8
    assert all(part.__doc__ and "\n" not in part.__doc__ for part in parts)


@each_bug
def test_a_policy_still_learns_with_a_bug(name):
    model, problems = tiny()
    before = copy.deepcopy(model.state_dict())
    with BUGS[name].planted():
        steps = list(module.grpo(model, problems, replace(CONFIG, rollouts=2), score=likes_low_tokens))
    assert [step.rollout for step in steps] == [1, 2] and all(0 < step.grad_norm < float("inf") for step in steps)
    assert not torch.equal(before["embed.weight"], model.embed.weight)


# ---- which tokens are learnt: predictions of tokens 1, 2 (prompt) and 3, 4, 5


def test_without_a_bug_the_answers_are_learnt_their_ends_with_them():
    assert slopes(pair()) == [[0, 0, 1, 1, 1], [0, 0, -1, 0, 0]]


def test_prompts_too_are_learnt_but_no_padding():
    with BUGS["prompts learnt too"].planted():
        assert slopes(pair()) == [[1, 1, 1, 1, 1], [-1, -1, -1, 0, 0]]


def test_in_the_first_update_a_groups_prompt_cancels_unless_answers_are_averaged_each():
    """A prompt's two tokens have the same log-probabilities in both answers, so that their slopes add up."""
    with BUGS["prompts learnt too"].planted():
        first = torch.tensor(slopes(pair()))
        assert first[:, :2].sum(0).tolist() == [0, 0]
        later = torch.tensor(slopes(pair(), ratio=[[1.1, 1.1, 1, 1, 1], [1.5, 1.5, 1, 1, 1]]))
        assert later[:, :2].sum(0).tolist() == pytest.approx([1.1 - 1.5] * 2, abs=1e-3)
        each = torch.tensor(slopes(pair(), config=replace(CONFIG, averages="sequence")))
        assert each[:, :2].sum(0).tolist() == pytest.approx([7 * (1 / 5 - 1 / 3)] * 2, abs=1e-3)


def test_one_late_misses_the_first_token_and_takes_one_of_padding():
    with BUGS["one token late"].planted():
        assert slopes(pair()) == [[0, 0, 0, 1, 1], [0, 0, 0, -1, 0]]


def test_one_late_is_one_late_also_where_prompts_differ_in_length():
    episodes = Episodes.of([[11], [11, 13, 17]], [[19, STOP], [23, 29, STOP]])
    assert slopes(episodes) == [[1, 1, 0, 0, 0], [0, 0, -1, -1, -1]]
    with BUGS["one token late"].planted():
        assert slopes(episodes) == [[0, 1, 1, 0, 0], [0, 0, 0, -1, -1]]


def test_the_end_is_not_learnt_but_the_last_token_of_a_text_that_was_cut_is():
    with BUGS["end not learnt"].planted():
        assert slopes(pair()) == [[0, 0, 1, 1, 0], [0, 0, 0, 0, 0]]
        assert slopes(Episodes.of([[11]], [[19, 23]]), advantage=(1.0,)) == [[1, 1]]


@pytest.mark.parametrize("ratio, advantage, right, wrong", [
    (2.0, 3.0, 0, 6), (0.5, -3.0, 0, -1.5), (0.5, 3.0, 1.5, 1.5), (2.0, -3.0, -6, -6), (1.1, 3.0, 3.3, 3.3),
])
def test_without_a_clip_a_ratio_pulls_however_far_it_has_gone(ratio, advantage, right, wrong):
    episode = Episodes.of([[11]], [[STOP]])
    assert slopes(episode, ratio=ratio, advantage=(advantage,)) == [[pytest.approx(right, abs=1e-3)]]
    with BUGS["no clip"].planted():
        assert slopes(episode, ratio=ratio, advantage=(advantage,)) == [[pytest.approx(wrong, abs=1e-3)]]


# ---- advantages, the old policy, temperature


def test_over_the_batch_an_easy_question_praises_all_its_answers():
    rewards = torch.tensor([[1.0, 1.0], [0.0, 0.0]])  # mean 1/2, deviation of the four 1/sqrt(3)
    assert module.advantages(rewards).tolist() == [[0, 0], [0, 0]]
    with BUGS["over the batch"].planted():
        assert module.advantages(rewards).flatten().tolist() == pytest.approx([3**0.5 / 2] * 2 + [-(3**0.5) / 2] * 2, rel=1e-3)
        assert module.advantages(rewards, divides_by_std=False).tolist() == [[0.5, 0.5], [-0.5, -0.5]]


def test_one_group_is_a_batch():
    rewards = torch.tensor([[1.25, 0.25, 0.0]])
    right = module.advantages(rewards)
    with BUGS["over the batch"].planted():
        assert torch.equal(module.advantages(rewards), right)


def learnt(config, *bugs):
    """What an improvement records, and the weights after it, from the same episodes and rewards whatever the bugs."""
    model, problems = tiny()
    learner = Learner(model, config)
    episodes, _ = learner.play(problems, likes_low_tokens)
    rewards = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    for name in bugs:
        with BUGS[name].planted():
            return learner.improve(episodes, rewards), model.embed.weight
    return learner.improve(episodes, rewards), model.embed.weight


def test_with_the_old_policy_anew_the_first_update_is_right_and_no_ratio_ever_leaves_one():
    record, weights = learnt(CONFIG)
    assert record["clipped"] == 0
    assert torch.equal(weights, learnt(CONFIG, "old policy anew")[1])
    two = replace(CONFIG, minibatches=2, lr=0.1, clip=0.01)
    (record, weights), (spoilt, others) = learnt(two), learnt(two, "old policy anew")
    assert record["clipped"] > 0.1 and spoilt["clipped"] == 0
    assert not torch.allclose(weights, others)


def test_without_a_clip_the_log_says_what_a_clip_would_hold_back():
    two = replace(CONFIG, minibatches=2, lr=0.1, clip=0.01)
    (record, weights), (spoilt, others) = learnt(two), learnt(two, "no clip")
    assert spoilt["clipped"] == record["clipped"] > 0.1
    assert not torch.allclose(weights, others)


def test_colder_answers_are_those_of_half_the_temperature():
    def texts(temperature):
        model, problems = tiny()
        return Learner(model, replace(CONFIG, temperature=temperature)).play(problems, likes_low_tokens)[0].texts

    warm, cold = texts(1.0), texts(0.5)
    with BUGS["colder than learnt"].planted():
        assert texts(1.0) == cold != warm


# ---- the measure


def test_problems_that_were_learnt_from_are_no_evaluation():
    task = TASKS["addition"]
    seen = {p.key for p in task.problems(31, level=2, of="rl", seed=5)}
    spoilt = {p.key for p in PROBLEMS["learnt from"](task, 17, level=2, seed=5)}
    assert spoilt < seen and len(spoilt) == 17
    assert not seen & {p.key for p in task.problems(17, level=2, of="eval", seed=5)}
