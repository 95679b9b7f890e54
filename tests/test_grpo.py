"""The loss is the papers' by hand, no gradient comes from a prompt or from beyond the clip, and what is rewarded becomes likelier."""

import math
import statistics
from dataclasses import asdict, fields, replace

import pytest
import torch
from configs import odd_config
from torch.testing import assert_close

from minimodels import grpo as module
from minimodels.grpo import GRPOConfig, Learner, Step, advantages, entropy, grpo, grpo_loss, is_held_back, k3, ratios, total
from minimodels.model import Transformer
from minimodels.solve import Episodes, log_probs, token_ids, write
from minimodels.tasks import END_THINK, TASKS, THINK, Reward

N, L, V = 3, 13, 29
PROMPTS, COMPLETIONS = [[1] * 2, [1] * 5, [1] * 3], [[2] * 7, [2] * 2, [2] * 5]  # lengths 7, 2 and 5, ends at 9, 7 and 8
EPISODES = Episodes.of(PROMPTS, COMPLETIONS)
EPISODES = Episodes(torch.nn.functional.pad(EPISODES.tokens, (0, L - 9)), torch.nn.functional.pad(EPISODES.is_completion, (0, L - 9)))
LENGTHS = torch.tensor([7.0, 2.0, 5.0], dtype=torch.float64)


def noise(*shape, scale=1.0):
    return scale * torch.randn(*shape, dtype=torch.float64)


def config(**changes):
    return GRPOConfig(**dict(n_prompts=5, group_size=7, minibatches=1, max_new_tokens=3, lr=0.01, rollouts=3) | changes)


# ---- configuration

@pytest.mark.parametrize("field, value, rule", [
    ("rollouts", 0, "at least 1"), ("n_prompts", 0, "at least 1"), ("max_new_tokens", 0, "at least 1"), ("minibatches", 0, "at least 1"),
    ("group_size", 1, "at least 2, because an answer is compared with its group"), ("minibatches", 17, "at most n_prompts=16"),
    ("temperature", 0.0, "above 0"), ("lr", 0.0, "above 0"), ("clip", 0.0, "above 0"), ("grad_clip", -1.0, "above 0"),
    ("warmup", -1, "at least 0"), ("kl_weight", -0.5, "at least 0"), ("format_weight", -0.5, "at least 0"),
    ("averages", "word", "one of sequence, token, constant"), ("ratio", "word", "one of token, sequence"),
    ("lr", "fast", "of type float"), ("group_size", 8.0, "of type int"), ("divides_by_std", 1, "of type bool"), ("clip", math.nan, "a finite number"),
])
def test_a_wrong_field_is_refused_with_its_rule_and_value(field, value, rule):
    with pytest.raises(ValueError, match=f"^{field} must be {rule}, got {value!r}$"):
        GRPOConfig(**{field: value})


def test_a_configuration_survives_its_dictionary():
    changed = GRPOConfig(averages="token", ratio="sequence", divides_by_std=False, kl_weight=0.04)
    assert GRPOConfig.from_dict(changed.to_dict()) == changed != GRPOConfig()


# ---- advantages

def test_an_advantage_is_by_hand_the_distance_from_the_groups_mean():
    # means 0.4 and 0.5; deviations' squares sum to 0.88 and 1, of which three degrees of freedom are left
    rewards = torch.tensor([[1.2, 0.2, 0.0, 0.2], [1.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    above = torch.tensor([[0.8, -0.2, -0.4, -0.2], [0.5, -0.5, -0.5, 0.5]], dtype=torch.float64)
    std = torch.tensor([[math.sqrt(0.88 / 3)], [math.sqrt(1 / 3)]], dtype=torch.float64)
    assert_close(advantages(rewards, divides_by_std=False), above)
    assert_close(advantages(rewards, eps=0.0), above / std)
    assert_close(advantages(rewards), above / std, atol=1e-3, rtol=0)


def test_with_the_division_neither_the_scale_nor_the_place_of_rewards_matters():
    rewards = noise(5, 7)
    assert_close(advantages(3 * rewards + 11, eps=0.0), advantages(rewards, eps=0.0))
    assert_close(advantages(3 * rewards + 11, divides_by_std=False), 3 * advantages(rewards, divides_by_std=False))
    for row, group in zip(advantages(rewards, eps=0.0), rewards.tolist()):
        assert row.tolist() == pytest.approx([(r - statistics.mean(group)) / statistics.stdev(group) for r in group])
        assert row.sum().item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("divides_by_std", [True, False])
@pytest.mark.parametrize("group_size", [2, 7, 8, 61])
def test_a_group_whose_answers_earn_the_same_has_no_advantage_at_all(group_size, divides_by_std):
    # exactly none: Adam would make a full step of the smallest remainder
    for earned in (0.0, 0.1, 0.2, 1.0, 1.2):
        assert advantages(torch.full((3, group_size), earned), divides_by_std=divides_by_std).eq(0).all(), earned


# ---- k3

def test_k3_is_never_negative_and_zero_where_the_policies_agree():
    log_p, log_ref = noise(1009), noise(1009)
    assert k3(log_p, log_ref).min() > 0 > (log_p - log_ref).min()  # unlike the plain difference
    assert k3(log_p, log_p).eq(0).all()
    assert_close(k3(log_p, log_ref), (log_ref - log_p).exp() - (log_ref - log_p) - 1)


def test_k3_of_nearly_equal_policies_survives_single_precision():
    apart = torch.tensor([1e-2, 1e-3, 1e-4, -1e-3, 3e-4])
    got = k3(torch.zeros(5), apart)
    assert got.min() >= 0
    assert_close(got, apart**2 / 2 + apart**3 / 6, rtol=1e-2, atol=1e-10)  # exp's series


def categorical():
    p_logits, ref_logits = noise(V).requires_grad_(), noise(V)
    log_p, log_ref = p_logits.log_softmax(0), ref_logits.log_softmax(0)
    return p_logits, log_p, log_ref


def test_k3_is_on_average_the_divergence_itself():
    _, log_p, log_ref = categorical()
    exact = (log_p.exp() * (log_p - log_ref)).sum()  # over all V tokens, each with its probability
    assert_close((log_p.exp() * k3(log_p, log_ref)).sum(), exact)


def test_the_gradient_of_k3_is_on_average_that_of_the_divergence_the_other_way_round():
    # drawn tokens are constants, so the loss differentiates k3 alone and not the law that drew them
    p_logits, log_p, log_ref = categorical()
    of_k3, = torch.autograd.grad((log_p.detach().exp() * k3(log_p, log_ref)).sum(), p_logits, retain_graph=True)
    other_way, = torch.autograd.grad((log_ref.exp() * (log_ref - log_p)).sum(), p_logits, retain_graph=True)
    itself, = torch.autograd.grad((log_p.exp() * (log_p - log_ref)).sum(), p_logits)
    assert_close(of_k3, other_way)
    assert (of_k3 - itself).abs().max() > 1e-3


# ---- ratios

def test_a_ratio_is_a_tokens_or_the_product_of_an_answers():
    log_old, p, old = torch.zeros(1, 6), [0.1, 0.5, 0.2, 0.9, 0.4, 0.3], [0.2, 0.25, 0.3, 0.6, 0.1, 0.3]
    log_p, log_old = torch.tensor([p]).log(), torch.tensor([old]).log()
    targets = torch.tensor([[False, True, True, True, False, False]])
    assert_close(ratios(log_p, log_old, targets), torch.tensor([[1, 2, 2 / 3, 1.5, 1, 1]]))
    assert_close(ratios(log_p, log_old, targets, per="sequence"), torch.full((1, 6), 2.0))  # 2 x 2/3 x 3/2
    assert_close(ratios(log_p, log_p, targets, per="sequence"), torch.ones(1, 6))


# ---- the loss

def leaf(x):
    return x.clone().requires_grad_()


def test_where_nothing_has_changed_the_gradient_is_the_plain_policy_gradient():
    logits, tokens, advantage = leaf(noise(N, L, V)), EPISODES.tokens, noise(N)
    for ratio in ("token", "sequence"):
        log_p = log_probs(logits, tokens)
        got, = torch.autograd.grad(grpo_loss(log_p, log_p.detach(), advantage, EPISODES, config(ratio=ratio)), logits)
        # - A log p: of each token, over the answer's length; or of the whole answer, whose ratio each of its tokens has
        summed = sum((log_probs(logits[n:n + 1], tokens[n:n + 1])[0, len(p) - 1:len(p) - 1 + len(c)]).sum() * advantage[n]
                     / (len(c) if ratio == "token" else 1) for n, (p, c) in enumerate(zip(PROMPTS, COMPLETIONS)))
        expected, = torch.autograd.grad(-summed / N, logits)
        assert_close(got, expected)


@pytest.mark.parametrize("averages", ["sequence", "token", "constant"])
def test_an_answer_a_token_or_a_constant_share_counts(averages):
    advantage = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    log_p = leaf(torch.zeros(N, L - 1, dtype=torch.float64))
    loss = grpo_loss(log_p, log_p.detach(), advantage, EPISODES, config(averages=averages, max_new_tokens=11))
    loss.backward()
    # a token's weight, answer by answer: lengths are 7, 2 and 5, together 14 of 3 x 11
    weight = {"sequence": [1 / 21, 1 / 6, 1 / 15], "token": [1 / 14] * 3, "constant": [1 / 33] * 3}[averages]
    for n, (p, c) in enumerate(zip(PROMPTS, COMPLETIONS)):
        row = [0.0] * (L - 1)
        row[len(p) - 1:len(p) - 1 + len(c)] = [-weight[n] * advantage[n].item()] * len(c)
        assert log_p.grad[n].tolist() == pytest.approx(row)
    by_hand = {"sequence": -(1 - 2 + 0.5) / 3, "token": -(7 - 4 + 2.5) / 14, "constant": -(7 - 4 + 2.5) / 33}[averages]
    assert loss.item() == pytest.approx(by_hand)


ONE = Episodes(torch.zeros(1, 2, dtype=torch.int64), torch.tensor([[False, True]]))  # one token of an answer


def gradient_at(is_now, advantage, **changes):
    """The loss's gradient with respect to the log-probability of one token, which is now so many times as likely."""
    log_p = leaf(torch.tensor([[math.log(is_now)]], dtype=torch.float64))
    grpo_loss(log_p, torch.zeros(1, 1, dtype=torch.float64), torch.tensor([advantage], dtype=torch.float64), ONE, config(**changes)).backward()
    return log_p.grad.item()


@pytest.mark.parametrize("ratio, advantage, expected", [
    (1.3, 2.0, 0.0), (0.7, -2.0, 0.0),        # gone far enough: held back
    (1.3, -2.0, 2.6), (0.7, 2.0, -1.4),       # gone the wrong way: the whole way back is open
    (1.1, 2.0, -2.2), (1.1, -2.0, 2.2), (0.9, 2.0, -1.8), (0.9, -2.0, 1.8),
])
def test_the_clip_takes_the_gradient_on_the_side_that_the_advantage_asks_for(ratio, advantage, expected):
    for per in ("token", "sequence"):
        assert gradient_at(ratio, advantage, clip=0.2, ratio=per) == pytest.approx(expected)


@pytest.mark.parametrize("clip", [0.1, 0.2, 0.5])
def test_held_back_is_what_has_no_gradient(clip):
    for ratio in (0.3, 0.45, 0.55, 0.79, 0.81, 0.89, 0.91, 1.0, 1.09, 1.11, 1.19, 1.21, 1.49, 1.51, 3.0):
        for advantage in (-1.5, -0.1, 0.1, 1.5):
            held = is_held_back(torch.tensor(ratio), torch.tensor(advantage), clip)
            assert held.item() == (gradient_at(ratio, advantage, clip=clip) == 0), (ratio, advantage)
        assert not is_held_back(torch.tensor(ratio), torch.tensor(0.0), clip)  # an idle group's answer is not the clip's doing


def test_the_loss_by_hand_token_by_token():
    log_p, log_old, log_ref, advantage = noise(N, L - 1, scale=0.3), noise(N, L - 1, scale=0.3), noise(N, L - 1), noise(N)
    for ratio in ("token", "sequence"):
        means = []
        for n, (p, c) in enumerate(zip(PROMPTS, COMPLETIONS)):
            places, A, gains = range(len(p) - 1, len(p) - 1 + len(c)), advantage[n].item(), []
            whole = math.prod(math.exp(log_p[n, t]) / math.exp(log_old[n, t]) for t in places)
            for t in places:
                r = whole if ratio == "sequence" else math.exp(log_p[n, t]) / math.exp(log_old[n, t])
                ref = math.exp(log_ref[n, t] - log_p[n, t])
                gains.append(min(r * A, min(max(r, 0.8), 1.2) * A) - 0.25 * (ref - math.log(ref) - 1))
            means.append(sum(gains) / len(gains))
        got = grpo_loss(log_p, log_old, advantage, EPISODES, config(ratio=ratio, kl_weight=0.25), log_ref)
        assert got.item() == pytest.approx(-sum(means) / N)


def test_a_sequence_that_has_gone_too_far_is_held_back_as_a_whole():
    targets = EPISODES.targets
    log_p = leaf(torch.full((N, L - 1), 0.05, dtype=torch.float64))  # ratios: e^0.05 a token, and e^0.35, e^0.1, e^0.25 an answer
    for ratio, moves in (("token", [True, True, True]), ("sequence", [False, True, False])):
        grad, = torch.autograd.grad(grpo_loss(log_p, torch.zeros_like(log_p), torch.ones(N), EPISODES, config(ratio=ratio)), log_p)
        assert torch.equal(grad != 0, targets & torch.tensor(moves)[:, None])


@pytest.mark.parametrize("averages", ["sequence", "token", "constant"])
@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_prompt_and_padding_have_no_gradient_whatever_stands_there(ratio, averages):
    log_p, log_old, log_ref, advantage = noise(N, L - 1, scale=0.1), noise(N, L - 1, scale=0.1), noise(N, L - 1), noise(N)
    settings = config(ratio=ratio, averages=averages, kl_weight=0.25, clip=5.0)
    results = []
    for elsewhere in (0.0, -3.0, -800.0):  # e^800 is beyond any float: a policy may forget to foresee prompts
        changed = leaf(torch.where(EPISODES.targets, log_p, elsewhere))
        loss = grpo_loss(changed, log_old, advantage, EPISODES, settings, log_ref)
        grad, = torch.autograd.grad(loss, changed)
        assert torch.equal(grad != 0, EPISODES.targets)
        results.append((loss, grad))
    assert_close(results[1:], results[:1] * 2)


# ---- entropy and total

def test_entropy_is_that_of_the_closed_form():
    p = 0.3
    two = torch.tensor([math.log(p), math.log(1 - p)]) + 7.0  # what all logits share changes nothing
    assert entropy(two).item() == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p))
    assert entropy(torch.zeros(V)).item() == pytest.approx(math.log(V))
    assert entropy(torch.tensor([1000.0, 0.0])).item() == 0
    logits = noise(N, L, V)
    assert_close(entropy(logits), torch.distributions.Categorical(logits=logits).entropy())


def test_format_counts_by_its_weight_beside_accuracy():
    scores = [total(Reward(a, f), config(format_weight=0.3)) for a, f in ((1, 1), (0, 1), (0, 0))]
    assert scores == pytest.approx([1.3, 0.3, 0.0])


# ---- questions

def test_all_questions_are_asked_before_any_is_asked_again():
    settings, problems = config(n_prompts=3), list("abcdefg")
    asked = [module._questions(problems, settings, rollout) for rollout in range(1, 15)]  # 42 = 6 times all 7
    flat = [q for batch in asked for q in batch]
    rounds = ["".join(flat[i:i + 7]) for i in range(0, 42, 7)]
    assert all(sorted(r) == problems for r in rounds) and len(set(rounds)) == 6
    assert module._questions(problems, settings, 9) == asked[8]
    assert [module._questions(problems, replace(settings, seed=1), i) for i in range(1, 15)] != asked


# ---- the whole

PROBLEMS = TASKS["addition"].problems(13, level=1, of="rl")


def build(seed=0, init_std=0.02):
    torch.manual_seed(seed)
    return Transformer(odd_config(vocab_size=50, n_layers=1, n_experts=0, mtp_depth=0, init_std=init_std))


def begins_with_a_thought(problem, text):
    return Reward(float(text.startswith(THINK)), 0.0)


def constant(problem, text):
    return Reward(0.0, 1.0)


def without_seconds(steps):
    return [{name: value for name, value in asdict(s).items() if name not in ("seconds", "kl")} for s in steps]


def changes(before, after):
    return max((a - b).abs().max().item() for a, b in zip(before.parameters(), after.parameters()))


@pytest.mark.parametrize("settings", [
    dict(), dict(ratio="sequence", divides_by_std=False), dict(averages="token", minibatches=3), dict(averages="constant", kl_weight=0.01)], ids=str)
def test_what_is_rewarded_becomes_likelier(settings):
    # at first one text in fifty begins so, and most groups have nothing to compare
    settings = config(rollouts=24, n_prompts=13, lr=0.02, **settings)
    steps = list(grpo(build(), PROBLEMS, settings, score=begins_with_a_thought))
    assert statistics.mean(s.accuracy for s in steps[:3]) < 0.1 and statistics.mean(s.accuracy for s in steps[-3:]) > 0.9
    assert steps[-1].entropy < steps[0].entropy == pytest.approx(math.log(50), abs=0.1)


def test_a_step_records_what_was_written():
    seen = []

    def score(problem, text):
        seen.append((problem, text))
        return Reward(float(END_THINK in text), float(len(text) % 2))

    settings = config(rollouts=4, max_new_tokens=31, format_weight=0.3)
    for rollout, step in enumerate(grpo(build(), PROBLEMS, settings, score=score), start=1):
        assert [p for p, _ in seen] == [p for p in module._questions(PROBLEMS, settings, rollout) for _ in range(7)]
        right, formed, lengths = ([f(t) for _, t in seen] for f in (lambda t: END_THINK in t, lambda t: len(t) % 2, lambda t: len(token_ids(t))))
        assert 0 < sum(right) < 35
        assert (step.rollout, step.accuracy, step.format) == (rollout, sum(right) / 35, sum(formed) / 35)
        assert (step.reward, step.length) == pytest.approx((sum(right) / 35 + 0.3 * sum(formed) / 35, sum(lengths) / 35))
        assert step.seconds > 0 and step.clipped == 0 and step.grad_norm > 0  # one update a rollout: no ratio has moved yet
        seen.clear()


def test_a_score_judges_a_text_beside_its_own_problem(monkeypatch):
    monkeypatch.setattr(module, "write", lambda model, problems, **settings: write(model, problems, **settings | dict(max_new_tokens=1)))
    episodes, rewards = Learner(build(), config()).play(PROBLEMS[:5], lambda problem, text: (problem.prompt, text))
    for row, keep, (prompt, text), written in zip(episodes.tokens, episodes.is_completion, rewards, episodes.texts, strict=True):
        assert row[:keep.int().argmax()].tolist() == token_ids(prompt) and text == written


def test_one_seed_makes_one_run():
    def run(seed, elsewhere):
        model = build()
        torch.manual_seed(elsewhere)  # what others draw from torch's own generator changes nothing
        return without_seconds(grpo(model, PROBLEMS, config(seed=seed), score=begins_with_a_thought))

    first, again, other = run(3, 0), run(3, 1), run(4, 0)
    assert first == again and first != other and len(first) == 3


@pytest.mark.parametrize("group_size", [2, 7, 8])
def test_groups_that_all_earn_the_same_teach_nothing(group_size):
    model, start = build(), build()
    steps = list(grpo(model, PROBLEMS, config(group_size=group_size), score=constant))
    assert [s.idle for s in steps] == [1.0] * 3 and [s.reward for s in steps] == pytest.approx([0.2] * 3)
    assert changes(model, start) == 0 and {s.grad_norm for s in steps} == {0.0}


def test_idle_is_the_share_of_groups_without_a_difference():
    odd = {p.prompt for p in PROBLEMS[::2]}
    count = iter(range(10**6))
    settings = config(rollouts=4)
    steps = grpo(build(), PROBLEMS, settings, score=lambda problem, text: Reward(float(problem.prompt in odd and next(count) % 2), 1.0))
    for rollout, step in enumerate(steps, start=1):
        idle = [p.prompt not in odd for p in module._questions(PROBLEMS, settings, rollout)]
        assert step.idle == pytest.approx(sum(idle) / 5) and 0 < sum(idle) < 5


def test_the_distance_from_the_start_is_measured_only_where_a_start_is_kept():
    def kl(**changes):
        steps = list(grpo(build(), PROBLEMS, config(rollouts=7, n_prompts=13, lr=0.02, **changes), score=begins_with_a_thought))
        return [s.kl for s in steps]

    assert all(map(math.isnan, kl()))
    loose, tight = kl(kl_weight=1e-6), kl(kl_weight=10.0)
    assert loose[0] == tight[0] == pytest.approx(0, abs=1e-7)
    assert loose[-1] > 1e-3 and tight[-1] < loose[-1] / 3


def test_the_reference_stays_where_the_policy_began():
    model, start = build(), build()
    learner = Learner(model, config(kl_weight=0.1))
    for _ in range(3):
        episodes, rewards = learner.play(PROBLEMS[:5], begins_with_a_thought)
        learner.improve(episodes, torch.randn(5, 7))
    assert changes(learner.reference, start) == 0 < changes(model, start)
    assert all(p.grad is None for p in learner.reference.parameters())


def test_entropy_is_of_the_choices_at_which_the_answers_were_written():
    model = build(init_std=0.2)
    learner = Learner(model, config(max_new_tokens=11))
    episodes, _ = learner.play(PROBLEMS[:5], constant)
    with torch.no_grad():
        of_each = torch.distributions.Categorical(logits=model(episodes.tokens).logits).entropy()  # (N, L)
    # an answer's token at place t was chosen from what place t - 1 predicts
    by_hand = [of_each[n, t - 1].item() for n, t in episodes.is_completion.nonzero().tolist()]
    assert learner.improve(episodes, torch.randn(5, 7))["entropy"] == pytest.approx(statistics.mean(by_hand), rel=1e-4)


def test_the_rate_rises_from_its_first_updates_share():
    model, start = build(), build()
    learner = Learner(model, config(warmup=5, lr=0.01))
    learner.improve(learner.play(PROBLEMS[:5], constant)[0], torch.randn(5, 7))
    assert changes(model, start) == pytest.approx(0.01 / 5, rel=1e-2)  # Adam's first step is the rate, along the gradient's signs


@pytest.mark.parametrize("minibatches", range(1, 8))
def test_a_rollout_makes_as_many_updates_as_asked_each_from_whole_groups(minibatches, monkeypatch):
    sizes, update = [], Learner._update

    def counting(self, episodes, *given):
        sizes.append(len(episodes))
        return update(self, episodes, *given)

    monkeypatch.setattr(Learner, "_update", counting)
    learner = Learner(build(), config(n_prompts=7, group_size=2, minibatches=minibatches))
    learner.improve(learner.play(PROBLEMS[:7], constant)[0], torch.randn(7, 2))
    assert len(sizes) == learner.updates == minibatches and sum(sizes) == 14
    assert all(size % 2 == 0 for size in sizes) and max(sizes) - min(sizes) <= 2


def test_the_second_update_of_a_rollout_may_be_held_back():
    learner = Learner(build(), config(n_prompts=5, minibatches=5, lr=0.1, warmup=0))
    episodes, _ = learner.play(PROBLEMS[:5], constant)
    assert learner.improve(episodes, torch.randn(5, 7))["clipped"] > 0


def test_too_few_problems_are_refused():
    with pytest.raises(ValueError, match="problems must be at least n_prompts=5, got 4; draw more or ask for fewer prompts"):
        next(grpo(build(), PROBLEMS[:4], config()))


def test_a_loss_that_is_no_number_is_said_and_not_learnt_from():
    model = build()
    steps = grpo(model, PROBLEMS, config(), score=begins_with_a_thought)
    next(steps)
    with torch.no_grad():
        model.layers[0].ffn.w_down.weight[0, 0] = math.nan
    before = model.embed.weight.clone()
    with pytest.raises(FloatingPointError, match="loss must stay finite, got nan; take a lower lr than 0.01, or a smaller clip"):
        next(steps)
    assert torch.equal(model.embed.weight, before)


def test_every_field_of_a_step_is_a_number():
    step, = grpo(build(), PROBLEMS, config(rollouts=1, kl_weight=0.1, minibatches=2), score=begins_with_a_thought)
    assert [f.name for f in fields(Step)] == list(asdict(step)) and all(math.isfinite(value) for value in asdict(step).values())
