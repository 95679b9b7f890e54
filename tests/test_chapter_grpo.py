"""Chapter 15: its exercises by other routes, its examples by hand, and what its text says of the records."""

import itertools
import math
import statistics
from pathlib import Path

import jupytext
import pytest
import torch

from minimodels import grpo, lab, solve
from minimodels.checkpoint import Run
from minimodels.exercises import agree
from minimodels.exercises import grpo as exercises
from minimodels.solve import Episodes
from minimodels.studies import recorded
from minimodels.studies.grpo import LIVE, LOG, LOOK, MODEL, VARIANTS, evaluation, pass_curve
from minimodels.tasks import TOKENIZER, addition, reward

CHAPTER = Path(__file__).parents[1] / "chapters" / "15_grpo.py"
TEXT = " ".join(" ".join(cell.source for cell in jupytext.read(CHAPTER).cells if cell.cell_type == "markdown").replace("\n>", " ").split())


def says(*sentences):
    """Whether the chapter's text has each of them, line breaks aside."""
    missing = [s for s in sentences if " ".join(s.split()) not in TEXT]
    assert not missing, missing


def trials(name, arm=None):
    return [t for t in recorded(name)["trials"] if arm in (None, t["arm"])]


def greedy(name, arm=None, when="after"):
    """Percent of new sums solved, a number for each seed."""
    return [100 * t[when]["greedy"] for t in trials(name, arm)]

def test_the_log_probability_of_a_completion_is_that_of_the_package():
    logits = torch.randn(1, 7, 50, generator=torch.Generator().manual_seed(1))
    episodes = Episodes.of([[11, 13, 17]], [[19, 23, 29, 0]])
    wanted = (solve.log_probs(logits, episodes.tokens) * episodes.targets).sum().item()
    assert exercises.completion_log_prob(logits[0], episodes.tokens[0].tolist(), 3).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("text", ["<think>7+5+0=12;3+2+1=6</think><answer>62</answer>", "<think></think><answer>61</answer>", "62",
                                  "<think>62</think><answer>62</answer>x", "<think></think><answer>062</answer>"])
def test_what_is_earned_is_the_packages_reward(text):
    judged = reward(addition(37, 25), text)
    assert exercises.earned(text, "62") == (judged.accuracy, judged.format)


def test_advantages_k3_and_the_gain_are_the_packages():
    rewards = [[1.25, 0.25, 0, 0.25], [0.25, 0.25, 0.25, 0.25]]
    assert agree(exercises.above_group(rewards), grpo.advantages(torch.tensor(rewards)).tolist(), tolerance=1e-5)
    log_p, log_ref = [-1.0, -2.0, -0.5], [-1.5, -0.5, -0.5]
    assert exercises.kl_by_k3(log_p, log_ref) == pytest.approx(grpo.k3(torch.tensor(log_p), torch.tensor(log_ref)).mean().item(), rel=1e-5)
    episodes, config = Episodes.of([[11]], [[13]]), grpo.GRPOConfig()
    for ratio, advantage in itertools.product((0.5, 0.9, 1.0, 1.1, 2.0), (1.0, -1.0, 0.3)):
        loss = grpo.grpo_loss(torch.tensor([[ratio]]).log(), torch.zeros(1, 1), torch.tensor([advantage]), episodes, config)
        assert exercises.gain(ratio, advantage, config.clip) == pytest.approx(-loss.item(), rel=1e-5)


@pytest.mark.parametrize("averages", grpo.LENGTHS)
def test_a_tokens_share_is_its_gradient(averages):
    episodes = Episodes.of([[11, 13], [17]], [[19, 23], [29, 31, 37, 41, 43]])
    log_p = torch.zeros(episodes.targets.shape, requires_grad=True)
    grpo.grpo_loss(log_p, log_p.detach(), torch.ones(2), episodes, grpo.GRPOConfig(averages=averages, max_new_tokens=7)).backward()
    assert (-log_p.grad).amax(1).tolist() == pytest.approx(exercises.shares([2, 5], averages, 7), rel=1e-5)


@pytest.mark.parametrize("n, n_right", [(5, 2), (7, 1), (7, 5)])
def test_one_of_k_is_the_share_of_all_picks(n, n_right):
    for k in range(1, n + 1):
        picks = itertools.combinations([1] * n_right + [0] * (n - n_right), k)
        assert exercises.one_of_k(n, n_right, k) == pytest.approx(statistics.mean(map(max, picks)))


def test_thirty_questions_are_a_wide_benchmark_and_more_samples_of_them_do_not_help():
    """24 of 30: the deviation of a sample of noughts and ones is sqrt(n p (1 - p) / (n - 1)), over sqrt(n)."""
    half = 1.96 * (0.8 * 0.2 / 29) ** 0.5
    for n_samples in (1, 64):
        right = [[1] * n_samples] * 24 + [[0] * n_samples] * 6
        assert exercises.benchmark_interval(right) == pytest.approx((0.8 - half, 0.8 + half))


@pytest.mark.parametrize("text, score", [
    ("7+5+0=12;4+8+1=13;3+0+1=4", 1), ("7+5+0=12;4+8+1=13", 2 / 3), ("7+5+0=12;4+8+0=12;3+0+1=4", 2 / 3), ("0+0+0=0;" * 9, 0),
    ("0+0+0=0;7+5+0=12;4+8+1=13;3+0+1=4", 0), ("7+5+0=12;" * 9, 1 / 3), ("7+5+0=12;4+8+1=13;3+0+1=4;0+0+0=0", 1), ("", 0),
])
def test_a_careful_score_pays_for_columns_in_their_place(text, score):
    assert exercises.careful_score("347+85=", text) == pytest.approx(score)


# ---- examples by hand

def test_four_answers_have_the_advantages_that_the_text_prints():
    std = math.sqrt(4 * 0.25 / 3)
    assert round(std, 3) == 0.577 and round(0.5 / std, 2) == 0.87
    says("have mean 0.5 and standard deviation 0.577 (of a sample: the root of a third). The advantages are 0.87, $-0.87$, $-0.87$, 0.87.")
    one_of_four = torch.tensor([[1.0, 0, 0, 0]])
    assert grpo.advantages(one_of_four)[0].tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-3)


def test_leaving_out_the_answer_itself_shrinks_the_push_as_the_text_says():
    G, rewards = 8, torch.tensor([[3.0, 1, 4, 1, 5, 9, 2, 6]])
    others = (rewards.sum() - rewards) / (G - 1)
    torch.testing.assert_close(rewards - rewards.mean(), (rewards - others) * (1 - 1 / G))


def test_thirty_tokens_in_a_row():
    assert round(0.97**30, 1) == 0.4 and round(0.90**30, 2) == 0.04 and round(1.01**30, 2) == 1.35
    n = [len(TOKENIZER.encode(p.completion).ids) for p in evaluation(100)]
    assert 30 <= min(n) and max(n) <= 36


def test_the_clip_counts_what_the_text_says():
    assert exercises.gain(1.5, 1, 0.2) == pytest.approx(1.2) and exercises.gain(1.5, -1, 0.2) == -1.5


# ---- what the records say

def test_the_start_jumps_as_the_chapter_says():
    for t in trials("grpo-start"):
        by_step = {row[0]: row[2] for row in t["curve"]}
        assert max(share for step, share in by_step.items() if step <= 110) < 0.02
        assert 0.25 < max(by_step[s] for s in (150, 160, 170)) < 0.6
        assert any(by_step[s + 10] < by_step[s] - 0.1 for s in range(170, 390, 10)), "it swings"


def test_what_three_hundred_rollouts_reach():
    runs = trials("grpo-quality")
    ends = [round(share, 1) for share in greedy("grpo-quality")]
    for t in runs:
        assert next(row[0] for row in t["curve"] if row[1] >= 0.8) <= 40
    minutes = [round(t["seconds"] / 60, 1) for t in runs]
    says(f"All three pass 80 percent within forty rollouts, and end at {min(ends)} to {max(ends)}.", f"Here are 300, with three seeds, {min(minutes)} to {max(minutes)} minutes each:",
         f"300 rollouts bring {min(ends)} to {max(ends)} percent in {min(minutes)} to {max(minutes)} minutes.")


def test_entropy_and_distance_are_what_the_text_says():
    runs = trials("grpo-quality")
    entropy = [statistics.mean(t["log"][i][LOG.index("entropy")] for t in runs for i in part) for part in (range(10), range(290, 300))]
    assert entropy == pytest.approx([0.10, 1 / 70], abs=0.005)
    kl = [statistics.mean(t["curve"][i][LOOK.index("kl")] for t in runs) for i in range(4, len(runs[0]["curve"]))]
    says(f"it stays within {min(kl):.2f} to {max(kl):.2f} nats a token")
    idle = [statistics.mean(t["log"][i][LOG.index("idle")] for t in runs for i in part) for part in (range(10), range(40, 50), range(290, 300))]
    says("{:.0%} at first, mostly all wrong, {:.0%} after fifty rollouts, {:.0%} at the end".format(*idle).replace("%", " percent"))
    lengths = [row[LOOK.index("length")] for t in runs for row in t["curve"]]
    assert max(lengths) - min(lengths) < 0.5


def test_pass_at_k_is_what_the_text_says():
    runs, ks = trials("grpo-quality"), (1, 2, 4, 8, 16, 32, 64)
    before, after = ([statistics.mean(100 * share for share in at) for at in zip(*(pass_curve(t[when]["n_right"], 64, ks) for t in runs))] for when in ("before", "after"))
    assert [round(before[i]) for i in (0, 4, 6)] == [21, 74, 89] and [round(after[i]) for i in (0, 1)] == [93, 99] and min(after[3:]) > 99.99
    never = [(t, i) for t in runs for i, n in enumerate(t["before"]["n_right"]) if n == 0]
    assert len(never) == 33 and all(t["after"]["n_right"][i] > 0 for t, i in never)
    says("In 33 of these 300 cases *none* of the start's 64 tries was right, and in all of them the new model is right at least once.")


def test_the_teacher_is_the_model_of_the_record():
    model = Run.open(lab.data_file("checkpoints/solver")).model().eval()
    assert model.config == MODEL and solve.accuracy(model, evaluation(100)) > 0.97


def test_forty_rollouts_of_six_seeds_are_what_the_prediction_says():
    ends, starts = greedy("grpo-live"), greedy("grpo-live", when="before")
    says(f"**{statistics.mean(ends):.0f} percent.** Mean of six seeds, {min(ends):.0f} to {max(ends):.0f}, from {statistics.mean(starts):.0f} at the start.")


def test_three_starts_and_what_becomes_of_them():
    of = {arm: trials("grpo-zero", arm) for arm in ("untrained", "other tasks", "seldom thinks")}
    assert all(t["curve"][-1][LOOK.index("kl")] == 0 and t["after"]["greedy"] == 0 for t in of["untrained"])
    assert greedy("grpo-zero", "other tasks") == [0, 0, 0]

    def mean(arm, look, name):
        return statistics.mean(t["curve"][look][LOOK.index(name)] for t in of[arm])
    says(f"from {100 * mean('other tasks', 0, 'form'):.1f} percent of its texts to {100 * mean('other tasks', -1, 'form'):.1f}.")
    assert mean("seldom thinks", 0, "thinks") == pytest.approx(0.3, abs=0.02) and mean("seldom thinks", 2, "thinks") > 0.95
    says(f"grown from {mean('seldom thinks', 0, 'length'):.0f} tokens to {mean('seldom thinks', 2, 'length'):.0f}.")
    assert [round(100 * mean("seldom thinks", i, "greedy")) for i in (0, 1, -1)] == [5, 58, 89]
    assert mean("seldom thinks", -1, "length") == pytest.approx(33, abs=0.5)


def test_what_a_careless_reward_does():
    share = {arm: [[row[LOOK.index("greedy")] for row in t["curve"]] for t in trials("grpo-hacking", arm)] for arm in ("tokens", "equations", "columns")}
    assert all(curve[-1] == 0 for curve in share["tokens"]) and sum(max(curve) > curve[0] + 0.1 for curve in share["tokens"]) == 2
    for t in trials("grpo-hacking", "tokens"):
        rewards = [row[LOG.index("reward")] for row in t["log"]]
        assert statistics.mean(rewards[-5:]) > 1.6 * rewards[0]
        assert 3.6 < rewards[0] < 3.9 and 6.3 < rewards[-1] < 6.5
    assert min(greedy("grpo-hacking", "equations")) > 87
    at = {arm: [round(100 * statistics.mean(column)) for column in zip(*curves)] for arm, curves in share.items()}
    assert at["tokens"][:2] == [38, 48] and at["tokens"][-2] <= 2 and min(at["equations"][-1], at["columns"][-1]) > 90
    paid = trials("grpo-hacking", "tokens")[0]["log"][-1][LOG.index("reward")]
    assert paid == pytest.approx(6.4, abs=0.05) and 1 + 0.2 + 33 / 10 == pytest.approx(4.5)


def test_thirty_questions_are_what_the_text_says():
    share = torch.tensor(trials("grpo-quality")[2]["after"]["n_right"]) / 64
    thirty = share[:30]
    low, high = (100 * q for q in (thirty.min().item(), thirty.max().item()))
    says(f"each is right in {low:.0f} to {high:.0f} percent of its tries")
    rng = torch.Generator().manual_seed(0)
    low, high = thirty[torch.randint(30, (10_000, 30), generator=rng)].mean(1).quantile(torch.tensor([0.025, 0.975]))
    assert all(low < other.mean() < high for other in (share[30:60], share[60:90])), "both lie inside"
    for p, (a, b) in {0.973: (95.5, 98.4), 0.964: (94.4, 97.7)}.items():
        assert [round(100 * x, 1) for x in solve.wilson(round(500 * p * 10) / 10, 500)] == pytest.approx([a, b], abs=0.11)
    says("are 95.5 to 98.4 and 94.4 to 97.7")
    assert round((79.8 - 79.2) / (100 / 30), 1) == 0.2


def test_what_solutions_would_have_bought():
    runs = trials("grpo-longer")
    ends, seconds = [100 * t["curve"][-1][2] for t in runs], [t["cpu_seconds"] for t in runs]
    assert (min(ends), max(ends)) == (97.5, 100) and 100 < min(seconds) and max(seconds) < 121
    steps = [t["start_steps"] for t in trials("grpo-quality")]
    assert (min(steps), max(steps)) == (135, 160) and (135 * 32, 160 * 32, 1200 * 32) == (4320, 5120, 38_400)


def test_what_the_chapter_says_of_variants_and_bugs():
    base = {t["seed"]: t for t in trials("grpo-live") if t["seed"] < 4}

    def interval(name, arm):
        more = [100 * (t["after"]["greedy"] - base[t["seed"]]["after"]["greedy"]) for t in trials(name, arm)]
        return statistics.mean(more), 4.303 * statistics.stdev(more) / math.sqrt(3)

    holds_zero = {arm: abs(interval("grpo-variants", arm)[0]) < interval("grpo-variants", arm)[1] for arm in dict.fromkeys(t["arm"] for t in trials("grpo-variants"))}
    assert [arm for arm, holds in holds_zero.items() if not holds] == ["rate 1e-3, no warm-up"] and len(holds_zero) == len(VARIANTS) + 1 == 8
    ruined = trials("grpo-variants", "rate 1e-3, no warm-up")
    assert [round(100 * row[LOG.index("accuracy")]) for row in ruined[0]["log"][:3]][::2] == [30, 1]
    assert all(2 <= round(t["curve"][-1][LOOK.index("kl")]) <= 5 for t in ruined) and max(greedy("grpo-variants", "rate 1e-3, no warm-up")) <= 0.2
    clipped = {name: statistics.mean(row[LOG.index("clipped")] for t in of for row in t["log"]) for name, of in
               {"token": base.values(), "answer": trials("grpo-variants", "ratio of the answer"), "anew": trials("grpo-bugs", "old policy anew")}.items()}
    assert 1 / clipped["token"] == pytest.approx(8000, rel=0.1) and 1 / clipped["answer"] == pytest.approx(150, rel=0.05) and clipped["anew"] == 0
    worse = {arm for arm in dict.fromkeys(t["arm"] for t in trials("grpo-bugs")) if abs(interval("grpo-bugs", arm)[0]) > interval("grpo-bugs", arm)[1]}
    assert worse == {"over the batch", "old policy anew", "learnt from"}
    assert round(100 * statistics.mean(t["curve"][-1][1] for t in trials("grpo-bugs", "learnt from"))) == 96 and round(statistics.mean(greedy("grpo-bugs", "learnt from"))) == 62


def test_of_other_tasks_one_sample_was_right_and_of_seldom_thinks_three_thoughts_in_ten():
    others = trials("grpo-zero", "other tasks")
    assert sum(round(128 * row[LOG.index("accuracy")]) for t in others for row in t["log"]) == 1 and sum(len(t["log"]) for t in others) * 128 == 38_400
    first = [t["curve"][0] for t in trials("grpo-zero", "seldom thinks")]
    assert max(row[LOOK.index("sampled")] / row[LOOK.index("thinks")] for row in first) < 0.31
