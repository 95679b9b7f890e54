"""Distillation: the divergences against other routes to them, whose tokens count, whose texts are learnt, and the bill."""

import math
import re

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from configs import odd_config
from minimodels.config import TrainConfig
from minimodels.cost import flops_per_token
from minimodels.distill import DIRECTIONS, Bill, count_tokens, divergence, imitation, kept, own_texts, rejection_sample, text_lengths
from minimodels.model import Transformer
from minimodels.solve import Episodes, as_episodes, drawn, learn, log_probs, token_ids, worked, write
from minimodels.tasks import STOP, TASKS, addition

N, L, V = 3, 7, 53
EASY = [addition(a, b) for a, b in ((2, 3), (7, 5), (4, 0), (8, 9), (1, 6))]


def tiny(seed=0, **changes):
    torch.manual_seed(seed)
    return Transformer(odd_config(**dict(vocab_size=50, n_layers=2, n_experts=0, mtp_depth=0, max_seq_len=61) | changes))


def logits(seed=0, scale=3.0):
    return scale * torch.randn(N, L, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of(*probabilities):
    return torch.tensor(probabilities, dtype=torch.float64).log()


# ---- the divergence

@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_divergence_is_torchs_kl_of_the_tempered_distributions(direction, temperature):
    student, teacher = logits(1), logits(2)
    s, t = ((x / temperature).log_softmax(-1) for x in (student, teacher))
    from_, to = (s, t.exp()) if direction == "forward" else (t, s.exp())
    want = F.kl_div(from_, to, reduction="none").sum(-1) * temperature**2
    got = divergence(student, teacher, direction=direction, temperature=temperature)
    assert got.shape == (N, L)
    assert_close(got, want)


def test_by_hand_on_three_tokens_each_direction_has_its_number():
    student, teacher = of(1 / 2, 1 / 4, 1 / 4), of(1 / 4, 1 / 4, 1 / 2)
    assert_close(divergence(student, teacher).item(), math.log(2) / 4)  # 1/4 log 1/2 + 1/4 log 1 + 1/2 log 2
    student = of(1 / 8, 3 / 8, 4 / 8)
    assert_close(divergence(student, teacher, direction="forward").item(), 1 / 4 * math.log(2) + 1 / 4 * math.log(2 / 3))
    assert_close(divergence(student, teacher, direction="reverse").item(), 1 / 8 * math.log(1 / 2) + 3 / 8 * math.log(3 / 2))


def test_temperature_by_hand_takes_roots_of_the_probabilities_and_pays_four_times():
    student, teacher = of(1 / 2, 1 / 4, 1 / 4), of(1 / 9, 4 / 9, 4 / 9)
    root = 1 / math.sqrt(2)
    s, t = [x / (root + 1) for x in (root, 1 / 2, 1 / 2)], [x / 5 for x in (1, 2, 2)]
    want = 4 * sum(q * math.log(q / p) for p, q in zip(s, t))
    assert_close(divergence(student, teacher, temperature=2.0).item(), want)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_it_is_zero_where_the_distributions_are_equal_and_above_elsewhere(direction, temperature):
    student, teacher = logits(1), logits(2)
    assert_close(divergence(student, student + 7, direction=direction, temperature=temperature), torch.zeros(N, L).double())
    assert (divergence(student, teacher, direction=direction, temperature=temperature) > 0.1).all()


def test_what_one_misses_is_dear_forward_and_what_it_adds_is_dear_in_reverse():
    teacher, narrow, broad = of(0.498, 0.498, 0.004), of(0.994, 0.003, 0.003), of(0.25, 0.25, 0.5)
    assert divergence(narrow, teacher, direction="forward") > 2 > 1 > divergence(narrow, teacher, direction="reverse")
    assert divergence(broad, teacher, direction="reverse") > 2 > 1 > divergence(broad, teacher, direction="forward")


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_hot_distributions_differ_by_half_the_variance_of_the_logits_differences(direction):
    student, teacher = logits(1), logits(2)
    want = (student - teacher).var(-1, unbiased=False) / 2
    assert_close(divergence(student, teacher, direction=direction, temperature=1e4), want, rtol=1e-2, atol=0)
    cold = divergence(student, teacher, direction=direction)
    assert ((cold - want).abs() > 0.1 * want).any(), "at temperature 1 it is another number"


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_gradient_has_one_size_at_every_high_temperature(direction):
    def size(temperature):
        student = logits(1).requires_grad_()
        divergence(student, logits(2), direction=direction, temperature=temperature).sum().backward()
        return student.grad.norm().item()

    assert size(30.0) == pytest.approx(size(300.0), rel=0.1)


def test_forward_from_a_certain_teacher_is_cross_entropy_and_so_is_its_gradient():
    token = torch.randint(V, (N, L))
    student, same = logits(1).requires_grad_(), logits(1).requires_grad_()
    certain = torch.full((N, L, V), -torch.inf, dtype=torch.float64).scatter_(-1, token[..., None], 0.0)
    got, want = divergence(student, certain).mean(), F.cross_entropy(same.flatten(0, 1), token.flatten())
    assert_close(got, want)
    assert_close(torch.autograd.grad(got, student)[0], torch.autograd.grad(want, same)[0])


def test_in_bf16_logits_the_divergence_is_computed_wider():
    student, teacher = (logits(seed).to(torch.bfloat16) for seed in (1, 2))
    got = divergence(student, teacher, direction="reverse", temperature=2.0)
    assert got.dtype == torch.float32
    assert_close(got.double(), divergence(student.double(), teacher.double(), direction="reverse", temperature=2.0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("changed, message", [
    (dict(direction="sideways"), "direction must be one of forward, reverse, got 'sideways'"),
    (dict(temperature=0.0), "temperature must be above 0 and finite, got 0.0"),
    (dict(temperature=math.inf), "temperature must be above 0 and finite, got inf"),
])
def test_a_setting_out_of_its_range_is_refused_at_once(changed, message):
    with pytest.raises(ValueError, match=message):
        divergence(logits(1), logits(2), **changed)
    with pytest.raises(ValueError, match=message):
        imitation(None, **changed)


def test_another_vocabulary_is_refused_and_not_broadcast():
    with pytest.raises(ValueError, match=r"shape of teacher_logits, \(1, 1\), got \(3, 7, 53\); do both"):
        divergence(logits(1), torch.zeros(1, 1))


# ---- imitation

class Table(torch.nn.Module):
    """A model that answers with given logits (N, L, V), whatever it reads."""

    def __init__(self, table):
        super().__init__()
        self.table = torch.nn.Parameter(table)

    def forward(self, tokens):
        return type("Output", (), {"logits": self.table})


def three_texts():
    return Episodes.of([[11, 12], [13], [14, 15, 16]], [[21, 22, STOP], [23, STOP], [24, 25, 26, STOP]])  # (3, 7)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_imitation_is_the_mean_over_the_completions_tokens_alone(direction):
    student, teacher = Table(logits(1)), Table(logits(2))
    loss = imitation(teacher, direction=direction, temperature=2.0)(student, three_texts())
    where = [(0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (2, 2), (2, 3), (2, 4), (2, 5)]  # the logits before each token of a completion
    each = [divergence(student.table[at], teacher.table[at], direction=direction, temperature=2.0) for at in where]
    assert_close(loss, torch.stack(each).mean())
    gradient, = torch.autograd.grad(loss, student.table)
    assert {tuple(at) for at in gradient.abs().sum(-1).nonzero().tolist()} == set(where)


def test_prompts_and_padding_teach_nothing():
    student, teacher, texts = Table(logits(1)), Table(logits(2)), three_texts()
    before = imitation(teacher)(student, texts)
    with torch.no_grad():
        teacher.table[:, -1] += torch.randn(V)                   # after the last token
        teacher.table[1, 2:] += torch.randn(V)                   # padding
        teacher.table[0, 0] -= torch.randn(V)                    # the second token of a prompt
    assert_close(imitation(teacher)(student, texts), before)
    with torch.no_grad():
        teacher.table[0, 1] -= torch.randn(V)                    # a completion's first token
    assert (imitation(teacher)(student, texts) - before).abs() > 1e-3


@pytest.mark.parametrize("is_training", [True, False])
def test_the_teacher_reads_in_eval_gets_no_gradient_and_keeps_its_mode(is_training):
    modes, student, teacher = [], tiny(1), tiny(2).train(is_training)
    teacher.register_forward_pre_hook(lambda module, _: modes.append((module.training, torch.is_grad_enabled())))
    imitation(teacher)(student, worked(EASY)).backward()
    assert modes == [(False, False)] and teacher.training == is_training
    assert all(p.grad is None for p in teacher.parameters()) and all(p.grad is not None for p in student.parameters())


def test_a_teacher_has_nothing_to_tell_itself():
    model = tiny()
    assert imitation(model)(model, worked(EASY)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_student_that_is_told_the_distributions_comes_near_its_teacher(direction):
    teacher, student = tiny(2), tiny(1, d_model=13, n_layers=1)
    texts, others = worked(EASY[:3]), worked(EASY[3:])

    def apart(episodes):  # KL(teacher || student), the token's law summed out by torch
        with torch.no_grad():
            s, t = (model(episodes.tokens).logits[:, :-1].log_softmax(-1)[episodes.targets] for model in (student, teacher))
        return F.kl_div(s, t, log_target=True, reduction="batchmean").item()

    before, before_others = apart(texts), apart(others)
    config = TrainConfig(steps=50, optimizer="adamw", lr=0.02, warmup=0.05)
    losses = list(learn(student, drawn(texts, 5), config, imitation(teacher, direction=direction)))
    assert min(losses[-10:]) < losses[0] / 3
    assert apart(texts) < before / 3 and apart(others) < before_others


# ---- rejection sampling

def test_of_each_problem_the_first_right_answers_are_kept_in_the_format_and_no_others():
    a, b, c = addition(2, 3), addition(7, 5), addition(9, 9)
    good, short = a.completion, a.direct
    answers = [good.replace(">5<", ">6<"), good, short, good,          # wrong, then three right ones
               "12", b.completion[1:], b.completion + "1", "<answer>12</answer>",   # right numbers, never in the format
               c.direct, c.completion, c.direct.replace("18", "81"), c.direct]
    episodes = as_episodes([p for p in (a, b, c) for _ in range(4)], answers)
    assert kept([a, b, c], episodes) == [1, 8]
    assert kept([a, b, c], episodes, per_problem=2) == [1, 2, 8, 9]
    assert kept([a, b, c], episodes, per_problem=99) == [1, 2, 3, 8, 9, 11]


def test_a_problem_that_is_asked_twice_keeps_twice():
    p = addition(2, 3)
    assert kept([p, p], as_episodes([p] * 4, [p.direct] * 4)) == [0, 2]


@pytest.fixture(scope="module")
def teacher():
    """A model that knows three sums by heart, so that it is right about them often, but not always."""
    model = tiny(5)
    for _ in learn(model, drawn(worked(EASY[:3], is_direct=True), 5), TrainConfig(steps=60, optimizer="adamw", lr=0.02, warmup=0.1)):
        pass
    return model


def is_right(problem, text):
    """By another rule than the reward's: the whole text is an answer in its tags, and the answer a number that is the sum."""
    match = re.fullmatch(r"<think>[^<>]*</think><answer>(\d+)</answer>(<\|endoftext\|>)?", text)
    return bool(match) and int(match[1]) == sum(problem.given)


def test_a_teachers_right_answers_are_kept_and_all_that_it_wrote_is_counted(teacher):
    settings = dict(n_samples=11, temperature=1.5, max_new_tokens=13)
    written = write(teacher, EASY, generator=torch.Generator().manual_seed(3), **settings)
    found = rejection_sample(teacher, EASY, per_problem=2, generator=torch.Generator().manual_seed(3), **settings)
    right = [[t for t in written.texts[11 * i:11 * i + 11] if is_right(p, t)] for i, p in enumerate(EASY)]
    assert found.n_written == 55 and 0 < sum(map(len, right)) < 55 and max(map(len, right)) > 2
    assert found.episodes.texts == [text for texts in right for text in texts[:2]]
    assert found.problems == [p for p, texts in zip(EASY, right) for _ in texts[:2]]
    assert found.n_tokens == sum(len(token_ids(p.prompt)) for p in EASY) * 11 + sum(len(token_ids(t)) for t in written.texts)


def test_what_is_kept_is_no_longer_than_it_must_be_and_can_be_learnt(teacher):
    found = rejection_sample(teacher, EASY, n_samples=11, max_new_tokens=29, generator=torch.Generator().manual_seed(3))
    again = as_episodes(found.problems, found.episodes.texts)
    assert torch.equal(found.episodes.tokens, again.tokens) and torch.equal(found.episodes.is_completion, again.is_completion)
    config = TrainConfig(steps=20, optimizer="adamw", lr=0.01)
    losses = list(learn(tiny(1), drawn(found.episodes, 5), config))
    assert losses[-1] < losses[0] / 2


def test_a_teacher_that_is_never_right_leaves_nothing_but_its_cost():
    found = rejection_sample(tiny(), EASY, n_samples=2, max_new_tokens=3, generator=torch.Generator().manual_seed(0))
    assert len(found.episodes) == len(found.problems) == 0 and found.n_written == 10
    assert found.n_tokens == count_tokens(write(tiny(), EASY, n_samples=2, temperature=1.0, max_new_tokens=3, generator=torch.Generator().manual_seed(0)))


def test_to_keep_none_is_refused():
    with pytest.raises(ValueError, match="per_problem must be at least 1, got 0"):
        rejection_sample(tiny(), EASY, n_samples=2, per_problem=0, generator=None)


# ---- the student's own texts

def test_own_texts_are_what_the_student_writes_greedily_to_problems_of_the_list():
    student = tiny(4)
    texts = own_texts(student, EASY, 7, temperature=0.0, max_new_tokens=5)(1)
    assert len(texts) == 7
    for row, is_completion in zip(texts.tokens.tolist(), texts.is_completion.tolist()):
        start, length = is_completion.index(True), sum(is_completion)
        assert row[:start] in [token_ids(p.prompt) for p in EASY]
        for t in range(start, start + length):  # the likeliest next token, by a pass over all before it
            assert row[t] == student(torch.tensor([row[:t]])).logits[0, -1].argmax()
        assert length == 5 or row[start + length - 1] == STOP


def test_own_texts_have_the_students_law():
    student = tiny(4, init_std=0.05)
    first = torch.cat([own_texts(student, EASY[:1], 500, max_new_tokens=1)(step).tokens[:, 4] for step in range(8)])
    with torch.no_grad():
        p = student(torch.tensor([token_ids(EASY[0].prompt)])).logits[0, -1].double().softmax(-1)
    seen = first.bincount(minlength=50) / len(first)
    assert ((seen - p).abs() < 5 * (p * (1 - p) / len(first)).sqrt()).all()


def test_own_texts_come_again_with_seed_step_and_weights_and_change_with_each():
    def texts(student=tiny(4), seed=0, step=1, **changes):
        return own_texts(student, EASY, 5, max_new_tokens=7, seed=seed, **changes)(step).tokens.tolist()

    assert texts() == texts(tiny(4))
    assert len({str(t) for t in (texts(), texts(seed=1), texts(step=2), texts(tiny(3)), texts(temperature=0.5))}) == 5


def test_the_texts_follow_the_student_while_it_learns():
    student, seen = tiny(1), []
    batch = own_texts(student, EASY, 5, temperature=0.0, max_new_tokens=5, seed=2)

    def recorded(step):
        seen.append(batch(1))
        return seen[-1]

    for _ in learn(student, recorded, TrainConfig(steps=3, optimizer="adamw", lr=0.02), imitation(tiny(2))):
        pass
    assert torch.equal(seen[0].tokens, own_texts(tiny(1), EASY, 5, temperature=0.0, max_new_tokens=5, seed=2)(1).tokens)
    assert seen[0].texts != seen[-1].texts and student.training


def test_on_its_own_texts_a_student_comes_near_a_teacher_whose_texts_it_never_reads(teacher):
    student = tiny(1)

    def nats(episodes):  # a token, of what the teacher writes
        with torch.no_grad():
            return -log_probs(student(episodes.tokens).logits, episodes.tokens)[episodes.targets].mean().item()

    written = write(teacher, EASY[:3], n_samples=23, temperature=1.0, max_new_tokens=13, generator=torch.Generator().manual_seed(0))
    before = nats(written)
    batch = own_texts(student, EASY[:3], 13, max_new_tokens=13, seed=3)
    for _ in learn(student, batch, TrainConfig(steps=40, optimizer="adamw", lr=0.02, warmup=0.1), imitation(teacher, direction="reverse")):
        pass
    assert nats(written) < before / 2


# ---- the bill

def test_texts_are_counted_with_their_prompts_and_without_their_padding():
    texts = three_texts()
    assert text_lengths(texts).tolist() == [5, 3, 7] and count_tokens(texts) == 15
    problems = TASKS["addition"].problems(17, level=3, of="train")
    assert count_tokens(worked(problems)) == sum(len(token_ids(p.prompt + p.completion)) for p in problems)


def test_the_bill_of_on_policy_distillation_by_hand():
    bill = Bill()
    bill.charge(three_texts(), forward=1, trained=1, teacher=1)  # the student writes, the teacher reads, the student learns
    bill.charge(three_texts(), trained=1)
    assert bill == Bill(forward=15, trained=30, teacher=15)
    assert bill.student == 15 + 3 * 30
    assert bill.flops(student=7.0, teacher=1000.0) == 7 * 105 + 15_000 and bill.flops(student=7.0) == 735


def test_a_metered_batch_is_the_same_batch_and_is_charged_each_time():
    bill, texts = Bill(teacher=2), worked(EASY)
    batch = bill.metered(drawn(texts, 3, seed=1), forward=2, trained=1)
    lengths = 0
    for step in (1, 2, 1):
        episodes, same = batch(step), drawn(texts, 3, seed=1)(step)
        assert torch.equal(episodes.tokens, same.tokens)
        lengths += sum(len(token_ids(p)) for p in same.texts) + 3 * 4  # each prompt has 4 tokens
    assert bill == Bill(forward=2 * lengths, trained=lengths, teacher=2)


def test_a_trained_token_costs_what_the_cost_model_says_of_training():
    config = odd_config()
    forward, training = (flops_per_token(config, seq_len=31, training=is_training) for is_training in (False, True))
    assert Bill(trained=11).flops(student=forward) == pytest.approx(11 * training)
