"""Distillation's planted bugs: each does what it says and no more, the loss falls all the same, and nothing is left when a context ends."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from configs import odd_config
from minimodels import distill as module
from minimodels import solve
from minimodels.bugs.distill import BUGS
from minimodels.config import TrainConfig
from minimodels.distill import imitation, rejection_sample
from minimodels.model import Transformer
from minimodels.solve import Episodes, as_episodes, cross_entropy, drawn, learn, worked
from minimodels.tasks import STOP, addition

SUMS = [addition(a, b) for a, b in ((2, 3), (7, 5), (4, 0), (8, 9), (1, 6))]
each_bug = pytest.mark.parametrize("name", BUGS)


def tiny(seed=0):
    """A model of one layer that reads the tasks' tokens."""
    torch.manual_seed(seed)
    return Transformer(odd_config(vocab_size=50, n_layers=1, n_dense_layers=1, n_experts=0, mtp_depth=0))


def of(*probabilities):
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_each_says_how_it_hides_in_one_line():
    said = [bug.wrong.__doc__ for bug in BUGS.values()]
    assert len(set(said)) == len(BUGS) == 5 and all(text and "\n" not in text for text in said)


@each_bug
def test_the_loss_falls_with_a_bug_however_the_lesson_was_made(name):
    """On texts that the teacher wrote, and by its distribution; the loss was made before the bug was planted."""
    teacher, loss = tiny(seed=1), imitation(tiny(seed=1), temperature=2.0)
    for lesson in ("texts", "distribution"):
        with BUGS[name].planted():
            texts = worked(SUMS)
            if lesson == "texts" and name == "wrong texts kept":
                texts = rejection_sample(teacher, SUMS, n_samples=2, max_new_tokens=11, generator=torch.Generator().manual_seed(0)).episodes
            config = TrainConfig(steps=13, optimizer="adamw", lr=2e-2, warmup=0.1, decay=0.0)
            losses = list(learn(tiny(), drawn(texts, 5), config, cross_entropy if lesson == "texts" else loss))
        assert losses[-1] < 0.8 * losses[0], lesson


# ---- the divergence


def test_with_swapped_roles_forward_is_reverse_and_reverse_is_forward():
    student, teacher = of(1 / 8, 3 / 8, 4 / 8), of(1 / 4, 1 / 4, 1 / 2)
    forward = 1 / 4 * math.log(2) + 1 / 4 * math.log(2 / 3)
    reverse = 1 / 8 * math.log(1 / 2) + 3 / 8 * math.log(3 / 2)
    assert_close(module.divergence(student, teacher).item(), forward)
    with BUGS["roles swapped"].planted():
        assert_close(module.divergence(student, teacher).item(), reverse)
        assert_close(module.divergence(student, teacher, direction="reverse").item(), forward)
        assert module.divergence(teacher, teacher).item() == pytest.approx(0, abs=1e-12)


def test_with_swapped_roles_a_student_that_leaves_out_half_of_what_the_teacher_says_pays_little():
    """The teacher says two things alike, the student one: forward grows without bound, and reverse stays below log 2."""
    teacher, student = of(0.5, 0.5), of(1 - 1e-9, 1e-9)
    assert module.divergence(student, teacher).item() > 9
    with BUGS["roles swapped"].planted():
        assert module.divergence(student, teacher).item() < math.log(2)


def test_temperature_on_one_side_asks_the_student_to_be_as_unsure_at_one():
    teacher = of(1 / 9, 4 / 9, 4 / 9)  # at temperature 2 its roots, 1 : 2 : 2
    unsure, another = of(1 / 5, 2 / 5, 2 / 5), of(1 / 2, 1 / 4, 1 / 4)
    assert module.divergence(teacher, teacher, temperature=2.0).item() == pytest.approx(0, abs=1e-12)
    assert module.divergence(unsure, teacher, temperature=2.0).item() > 0.01
    with BUGS["temperature on one side"].planted():
        assert module.divergence(unsure, teacher, temperature=2.0).item() == pytest.approx(0, abs=1e-12)
        assert module.divergence(teacher, teacher, temperature=2.0).item() > 0.01
        forward, reverse = (module.divergence(another, teacher, direction=d, temperature=2.0).item() for d in ("forward", "reverse"))
    assert_close(forward, 4 * (1 / 5 * math.log(2 / 5) + 4 / 5 * math.log(8 / 5)))
    assert_close(reverse, 4 * (1 / 2 * math.log(5 / 2) + 1 / 2 * math.log(5 / 8)))


@pytest.mark.parametrize("direction", module.DIRECTIONS)
def test_at_temperature_one_a_side_more_or_less_is_nothing(direction):
    student, teacher = torch.randn(2, 3, 7, 53, generator=torch.Generator().manual_seed(0))
    right = module.divergence(student, teacher, direction=direction)
    with BUGS["temperature on one side"].planted():
        assert_close(module.divergence(student, teacher, direction=direction), right)


# ---- texts of the teacher


def answered():
    """Three answers to each of three sums: wrong, right, right; right, wrong, wrong; all wrong."""
    problems, wrong = SUMS[:3], addition(3, 3).completion
    texts = [wrong, problems[0].completion, problems[0].direct, problems[1].direct, wrong, wrong, wrong, wrong, wrong]
    return problems, as_episodes([p for p in problems for _ in range(3)], texts)


def test_without_rejection_the_first_answers_are_kept_right_or_wrong():
    assert module.kept(*answered()) == [1, 3] and module.kept(*answered(), per_problem=2) == [1, 2, 3]
    with BUGS["wrong texts kept"].planted():
        assert module.kept(*answered()) == [0, 3, 6]
        assert module.kept(*answered(), per_problem=2) == [0, 1, 3, 4, 6, 7]


def test_without_rejection_a_teacher_that_knows_nothing_teaches_as_much_as_any():
    def sampled():
        return rejection_sample(tiny(), SUMS, n_samples=3, per_problem=2, max_new_tokens=7, generator=torch.Generator().manual_seed(0))

    assert sampled().problems == []
    with BUGS["wrong texts kept"].planted():
        samples = sampled()
    assert samples.problems == [p for p in SUMS for _ in range(2)] and samples.n_written == 15
    assert all(problem.completion != text for problem, text in zip(samples.problems, samples.episodes.texts))


# ---- which predictions are compared


class Says(nn.Module):
    """It expects, nearly surely, the token that lies `step` above the one that it reads."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, tokens):
        return SimpleNamespace(logits=30.0 * F.one_hot((tokens + self.step) % 53, 53))


def test_a_late_teacher_is_followed_by_who_repeats_what_it_has_read():
    """In a text that counts up, the teacher expects the next number. A token late it expects the one that has just been read."""
    counting = Episodes.of([[11, 12, 13]], [[14, 15, 16, 17]])
    loss = imitation(Says(1))
    assert loss(Says(1), counting) < 1e-6 and loss(Says(0), counting) > 29
    with BUGS["teacher one token late"].planted():
        assert loss(Says(0), counting) < 1e-6 and loss(Says(1), counting) > 29


def test_a_late_teacher_is_late_by_one_at_every_completions_first_token_too():
    teacher, tokens = tiny(), torch.arange(2 * 7).view(2, 7)
    right = teacher(tokens).logits
    with BUGS["teacher one token late"].planted():
        assert_close(module._logits_of(teacher, tokens)[:, 1:], right[:, :-1])
        assert teacher.training    # as it was


def pair():
    """Two answers to one prompt of three tokens: two tokens and the end, and the end alone. Predictions: five, of tokens 1 to 5."""
    return Episodes.of([[11, 13, 17]] * 2, [[19, 23, STOP], [STOP]])


def test_prompts_too_are_learnt_but_no_padding():
    assert pair().targets.int().tolist() == [[0, 0, 1, 1, 1], [0, 0, 1, 0, 0]]
    with BUGS["prompts learnt too"].planted():
        assert pair().targets.int().tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
        assert pair().is_completion[:, 1:].int().tolist() == [[0, 0, 1, 1, 1], [0, 0, 1, 0, 0]] and pair().lengths.tolist() == [3, 1]


def test_prompts_too_count_in_both_losses():
    model, teacher, episodes = tiny(), tiny(seed=1), pair()
    wanted = torch.tensor([[13, 17, 19, 23, STOP], [13, 17, STOP, -1, -1]])
    logits, others = (each(episodes.tokens).logits[:, :-1].detach() for each in (model, teacher))
    nll = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=-1)
    kl = F.kl_div(logits.log_softmax(-1), others.softmax(-1), reduction="none").sum(-1)[wanted >= 0].mean()
    loss = imitation(teacher)
    with BUGS["prompts learnt too"].planted():
        assert_close(cross_entropy(model, episodes), nll)
        assert_close(loss(model, episodes), kl)
    for right, wrong in ((cross_entropy(model, episodes), nll), (loss(model, episodes), kl)):
        assert abs(right - wrong) > 1e-3
