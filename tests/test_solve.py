"""Only completions are learnt, a prediction is of the token after it, greedy text is the argmax's, and the scores are those of their papers."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from configs import odd_config
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from minimodels import solve
from minimodels.config import TrainConfig
from minimodels.corpus import END
from minimodels.generate import Generation, decode
from minimodels.model import Transformer
from minimodels.solve import Episodes, accuracy, as_episodes, cross_entropy, drawn, judge, learn, log_probs, pass_at_k, token_ids, wilson, worked, write
from minimodels.tasks import STOP, TASKS, TOKENIZER, Reward, addition

N, L, V = 3, 11, 53
PROBLEMS = [addition(7, 5), addition(31, 4), addition(28, 17)]  # prompts of 4, 5 and 6 tokens


def build(**changes):
    # float64, so that two ways of computing a logit cannot round to different argmaxes
    return Transformer(odd_config(vocab_size=50, n_layers=2, n_experts=0, mtp_depth=0, **changes)).double()


def fixed(logits):
    """A model that says the same whatever it reads."""
    return lambda tokens: SimpleNamespace(logits=logits)


# ---- episodes

def test_what_came_after_the_prompt_counts_with_its_end_and_nothing_else_does():
    episodes = Episodes.of([[7, 8], [9, 10, 11], [12] * 5], [[20, 21, 22, 23, STOP], [], [24, 25, 26]])
    assert episodes.tokens.tolist() == [[7, 8, 20, 21, 22, 23, STOP, STOP], [9, 10, 11] + [STOP] * 5, [12] * 5 + [24, 25, 26]]
    assert episodes.is_completion.int().tolist() == [[0, 0, 1, 1, 1, 1, 1, 0], [0] * 8, [0, 0, 0, 0, 0, 1, 1, 1]]
    assert episodes.targets.int().tolist() == [[0, 1, 1, 1, 1, 1, 0], [0] * 7, [0, 0, 0, 0, 1, 1, 1]]
    assert episodes.lengths.tolist() == [5, 0, 3] and episodes.tokens.dtype == torch.int64 and len(episodes) == 3


def test_rows_of_episodes_are_episodes():
    episodes = worked(PROBLEMS)
    chosen = episodes[torch.tensor([2, 0, 2])]
    assert chosen.texts == [PROBLEMS[i].completion for i in (2, 0, 2)] and chosen.lengths.tolist() == episodes.lengths[[2, 0, 2]].tolist()
    assert episodes[1:].texts == [p.completion for p in PROBLEMS[1:]]


@pytest.mark.parametrize("is_direct", [False, True])
def test_every_task_comes_back_as_the_text_that_went_in(is_direct):
    problems = [p for task in TASKS.values() for level in task.levels for p in task.problems(2, level=level, of="train")]
    episodes = worked(problems, is_direct=is_direct)
    expected = [p.direct if is_direct else p.completion for p in problems]
    assert episodes.texts == expected
    assert episodes.lengths.tolist() == [len(TOKENIZER.encode(text).tokens) for text in expected]
    before = [TOKENIZER.decode(row[:is_completion.int().argmax()].tolist()) for row, is_completion in zip(episodes.tokens, episodes.is_completion)]
    assert before == [p.prompt for p in problems]


def test_a_text_that_was_cut_comes_back_without_an_end():
    assert as_episodes(PROBLEMS[:2], ["<think>7", "<answer>35</answer>" + END]).texts == ["<think>7", "<answer>35</answer>" + END]


# ---- log-probabilities

def test_entry_t_is_the_log_probability_of_the_token_after_it():
    logits, tokens = torch.randn(N, L, V, dtype=torch.float64), torch.randint(V, (N, L))

    rows, sums = logits.tolist(), [[sum(map(math.exp, scores)) for scores in row] for row in logits.tolist()]

    def by_hand(n, t, token):
        return math.log(math.exp(rows[n][t][token]) / sums[n][t])

    got = log_probs(logits, tokens)
    assert_close(got, torch.tensor([[by_hand(n, t, tokens[n, t + 1]) for t in range(L - 1)] for n in range(N)], dtype=torch.float64))
    # logits differ from place to place, so an alignment that is off by one gives other numbers
    itself = torch.tensor([[by_hand(n, t, tokens[n, t]) for t in range(L)] for n in range(N)])
    for wrong in (itself[:, 1:], itself[:, :-1]):
        assert (got - wrong).abs().mean() > 0.5


def test_a_model_that_foresees_each_token_has_probability_one_and_one_that_lags_has_none():
    tokens = torch.arange(L).repeat(N, 1)
    sure = 50.0 * F.one_hot(tokens, V).double()
    assert_close(log_probs(sure.roll(-1, 1), tokens), torch.zeros(N, L - 1, dtype=torch.float64))
    assert log_probs(sure, tokens).max() < -49 and log_probs(sure.roll(1, 1), tokens)[:, 1:].max() < -49


# ---- writing

def by_argmax(model, prompt, n):
    """Greedy text by the slow road: the whole text anew for each token."""
    text = list(prompt)
    while len(text) < len(prompt) + n and (len(text) == len(prompt) or text[-1] != STOP):
        with torch.no_grad():
            text.append(model(torch.tensor([text])).logits[0, -1].argmax().item())
    return text[len(prompt):]


def test_greedy_text_is_the_argmax_prompt_by_prompt():
    model, n = build(), 13
    model.embed.weight.data[STOP] *= 3  # so that some texts end by themselves, and others are cut
    episodes = write(model, PROBLEMS, max_new_tokens=n)
    expected = [by_argmax(model, token_ids(p.prompt), n) for p in PROBLEMS]
    assert {text[-1] == STOP for text in expected} == {False, True} and len({len(text) for text in expected}) > 1
    for row, keep, problem, text in zip(episodes.tokens, episodes.is_completion, PROBLEMS, expected):
        assert row[:len(token_ids(problem.prompt)) + len(text)].tolist() == token_ids(problem.prompt) + text
        assert row[keep].tolist() == text


def test_a_problems_samples_lie_side_by_side():
    episodes = write(build(), PROBLEMS, n_samples=5, temperature=1.0, max_new_tokens=7, generator=torch.Generator().manual_seed(0))
    for i, row in enumerate(episodes.tokens.tolist()):
        prompt = token_ids(PROBLEMS[i // 5].prompt)
        assert row[:len(prompt)] == prompt and episodes.is_completion[i].int().argmax() == len(prompt)
    assert len(episodes) == 15 and all(len(set(episodes.texts[i:i + 5])) == 5 for i in (0, 5, 10))


def test_a_text_ends_with_its_end_or_is_cut_at_the_limit():
    texts = write(build(init_std=0.02), PROBLEMS, n_samples=23, temperature=1.0, max_new_tokens=31, generator=torch.Generator().manual_seed(0)).texts
    is_ended = [text.endswith(END) for text in texts]
    assert 0 < sum(is_ended) < 69
    for text, ended in zip(texts, is_ended):
        n = len(token_ids(text))
        assert (text.count(END) == 1 and n <= 31) if ended else (END not in text and n == 31)


def test_rows_in_several_batches_are_the_rows_of_one(monkeypatch):
    model, sizes = build(), []
    whole = write(model, PROBLEMS, n_samples=5, max_new_tokens=7)

    def counting(model, prompts, **settings):
        sizes.append(len(prompts))
        return decode(model, prompts, **settings)

    monkeypatch.setattr(solve, "ROWS", 7)
    monkeypatch.setattr(solve, "decode", counting)
    split = write(model, PROBLEMS, n_samples=5, max_new_tokens=7)
    assert sizes == [7, 7, 1] and torch.equal(split.tokens, whole.tokens) and torch.equal(split.is_completion, whole.is_completion)
    sampled = write(model, PROBLEMS[:1], n_samples=21, temperature=1.0, max_new_tokens=7, generator=torch.Generator().manual_seed(0)).texts
    assert sampled[:7] != sampled[7:14] != sampled[14:]  # the generator goes on from batch to batch


def test_a_text_is_judged_by_its_own_problem():
    right = [p.completion for p in PROBLEMS]
    assert judge(PROBLEMS, right) == [Reward(1.0, 1.0)] * 3
    assert judge(PROBLEMS, right[1:] + right[:1]) == [Reward(0.0, 1.0)] * 3
    assert judge(PROBLEMS[:2], [right[0], "12", right[1], right[0], right[1], ""]) == [Reward(*map(float, pair)) for pair in (
        (1, 1), (0, 0), (0, 1), (0, 1), (1, 1), (0, 0))]


def test_accuracy_is_the_share_of_right_samples(monkeypatch):
    asked = []

    def fake(model, prompts, **settings):
        """Right are all samples of the first problem, 2 of 5 of the second, and none of the third."""
        asked.append(settings)
        n_right = {PROBLEMS[0].prompt: 5, PROBLEMS[1].prompt: 2, PROBLEMS[2].prompt: 0}
        texts = []
        for i, (prompt, problem) in enumerate(zip(prompts, [p for p in PROBLEMS for _ in range(5)])):
            assert TOKENIZER.decode(prompt) == problem.prompt
            texts.append(token_ids(problem.completion if i % 5 < n_right[problem.prompt] else problem.prompt))
        return Generation(texts)

    monkeypatch.setattr(solve, "decode", fake)
    generator = torch.Generator()
    assert accuracy(None, PROBLEMS, n_samples=5, temperature=0.7, max_new_tokens=37, generator=generator) == 7 / 15
    assert asked == [dict(max_new_tokens=37, temperature=0.7, stop_token=STOP, generator=generator)]


# ---- learning

def test_the_loss_is_the_completions_mean_and_a_prompt_has_no_gradient():
    episodes = worked(PROBLEMS)
    length = episodes.tokens.shape[1]
    logits = torch.randn(N, length, 50, dtype=torch.float64, requires_grad=True)
    labels = torch.full((N, length), -100)
    for row, problem in zip(labels, PROBLEMS):
        start, text = len(token_ids(problem.prompt)), token_ids(problem.completion)
        row[start - 1:start - 1 + len(text)] = torch.tensor(text)
    loss = cross_entropy(fixed(logits), episodes)
    assert_close(loss, F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100))
    loss.backward()
    assert torch.equal(logits.grad.abs().sum(-1) > 0, labels != -100)
    other = torch.where((labels == -100)[..., None], 10 * torch.randn_like(logits), logits)
    assert_close(cross_entropy(fixed(other), episodes), loss)


def test_a_step_draws_the_same_batch_whenever_it_is_asked():
    episodes = worked(TASKS["addition"].problems(101, level=3, of="train"))
    first, again, other = (drawn(episodes, 13, seed) for seed in (5, 5, 6))
    texts = {step: first(step).texts for step in (1, 2, 3)}
    assert [again(step).texts for step in (3, 1, 2)] == [texts[step] for step in (3, 1, 2)]
    assert texts[1] != texts[2] and other(1).texts != texts[1]
    assert all(len(t) == 13 and set(t) <= set(episodes.texts) for t in texts.values())
    assert len({text for step in range(1, 200) for text in first(step).texts}) == 101  # none is left out for good


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_worked_solutions_are_learnt(optimizer):
    model = Transformer(odd_config(vocab_size=50, n_layers=1, n_experts=0, mtp_depth=0, n_dense_layers=1, init_std=0.02))
    batch = drawn(worked(TASKS["addition"].problems(30, level=1, of="train")), 16)
    first = cross_entropy(model, batch(1)).item()
    losses = list(learn(model, batch, TrainConfig(optimizer=optimizer, lr=0.02, steps=40, warmup=0.05, decay=0.0)))
    assert losses[0] == pytest.approx(first) == pytest.approx(math.log(50), abs=0.1)  # before its step, and knowing nothing
    assert len(losses) == 40 and losses[-1] < 0.5 * losses[0]


class Line(nn.Module):
    """Two weights a and b, at first 0."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))


def slope(model, batch):
    """3 a + 4 b, whose gradient has length 5 everywhere; and what the batch adds."""
    return model.w @ torch.tensor([3.0, 4.0]) + batch


@pytest.fixture
def plain_descent(monkeypatch):
    monkeypatch.setattr(solve, "make_optimizers", lambda model, config: [torch.optim.SGD(model.parameters(), lr=config.lr)])


def test_rates_follow_the_schedule_and_gradients_are_clipped(plain_descent):
    model, config = Line(), TrainConfig(steps=4, lr=0.1, clip=1.0, warmup=0.5, decay=0.5)
    # clipped to length 1, a step takes lr * factor * 5 off the loss; the factors are 1/2, 1, 1, 1/2
    losses = list(learn(model, lambda step: 100 * step, config, slope))
    assert losses == pytest.approx([100, 200 - 0.25, 300 - 0.75, 400 - 1.25])
    assert_close(model.w.data, -0.3 * torch.tensor([0.6, 0.8]))


def test_learning_stops_where_its_loop_is_left(plain_descent):
    asked = []
    steps = learn(Line(), lambda step: asked.append(step) or 0, TrainConfig(steps=7), slope)
    next(steps), next(steps)
    assert asked == [1, 2]


def test_a_loss_that_is_no_number_is_said_and_not_learnt_from(plain_descent):
    model = Line()
    steps = learn(model, lambda step: 0.0 if step < 3 else math.nan, TrainConfig(steps=7, warmup=0.0), slope)
    next(steps), next(steps)
    before = model.w.data.clone()
    with pytest.raises(FloatingPointError, match="loss must stay finite, got nan at step 3; take a lower rate"):
        next(steps)
    assert torch.equal(model.w, before) and before.ne(0).all()


# ---- scores

def test_pass_at_k_is_the_share_of_all_choices_of_k_that_hold_a_right_one():
    for n_right, k in itertools.product(range(8), range(1, 8)):
        choices = list(itertools.combinations([True] * n_right + [False] * (7 - n_right), k))
        assert pass_at_k(7, n_right, k) == pytest.approx(sum(map(any, choices)) / len(choices), abs=1e-12)


@pytest.mark.parametrize("p", [0.03, 0.4, 0.9])
def test_pass_at_k_is_right_on_average_and_the_naive_guess_is_not(p):
    n, k = 11, 5

    def expected(score):
        return sum(math.comb(n, c) * p**c * (1 - p) ** (n - c) * score(c) for c in range(n + 1))

    assert expected(lambda c: pass_at_k(n, c, k)) == pytest.approx(1 - (1 - p) ** k)
    assert expected(lambda c: 1 - (1 - c / n) ** k) < 1 - (1 - p) ** k - 1e-5


@pytest.mark.parametrize("k", [0, 8])
def test_more_samples_than_were_drawn_cannot_be_scored(k):
    with pytest.raises(ValueError, match=rf"k must be in \[1, n=7\], got {k}; draw more samples"):
        pass_at_k(7, 3, k)


def bisect(f, low, high):
    """Where f goes from negative to positive."""
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if f(middle) < 0 else (low, middle)
    return low


@pytest.mark.parametrize("z", [1.96, 2.576])
@pytest.mark.parametrize("n_right, n", [(0, 13), (1, 13), (5, 13), (13, 13), (97, 199), (1, 1)])
def test_the_interval_ends_where_the_share_is_z_deviations_away(n_right, n, z):
    # Wilson's idea: all x from which p is not further than z standard deviations of x itself
    p = n_right / n

    def excess(x):
        return abs(p - x) - z * math.sqrt(x * (1 - x) / n)

    low, high = wilson(n_right, n, z=z)
    assert low == pytest.approx(0 if p == 0 else bisect(lambda x: -excess(x), 0, p), abs=1e-9)
    assert high == pytest.approx(1 if p == 1 else bisect(excess, p, 1), abs=1e-9)


def test_the_published_intervals_come_out():
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3
    for n_right, n, *expected in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]:
        assert wilson(n_right, n) == pytest.approx(expected, abs=6e-5)


def test_an_interval_holds_its_share_and_stays_between_0_and_1():
    for n in range(1, 60):
        for n_right in range(n + 1):
            low, high = wilson(n_right, n)
            assert 0 <= low < high <= 1
            assert low - 1e-12 <= n_right / n <= high + 1e-12
            assert (1 - high, 1 - low) == pytest.approx(wilson(n - n_right, n))
