"""An evaluation is a plain loop over windows; every token but the first is predicted once; bits per byte by hand."""

import math

import numpy as np
import pytest
import torch
from configs import odd_config
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from configs import repeatable
from minimodels.evaluate import acceptance, evaluate, windows
from minimodels.model import Transformer

V = 53


def model_of(**changes):
    torch.manual_seed(1)
    return Transformer(odd_config(**changes))


def tokens_of(n):
    return torch.randint(0, V, (n,), generator=torch.Generator().manual_seed(2))


def by_hand(model, tokens, seq_len):
    """Sum of nats and count for every depth: one window after the other, each logit in float64."""
    depths = 1 + model.config.mtp_depth
    total, count, model = [0.0] * depths, [0] * depths, model.double().eval()
    for start in range(0, len(tokens) - 1, seq_len - 1):
        window = tokens[start:start + seq_len]
        with torch.no_grad():
            out = model(window[None])
            logits = [out.logits, *out.mtp_logits]
        for k, each in enumerate(logits):
            target = window[k + 1:]
            if len(target):
                total[k] += F.cross_entropy(each[0, :len(target)], target, reduction="sum").item()
                count[k] += len(target)
    model.float()
    return total, count


@pytest.mark.parametrize("n, seq_len, batch_size", [(97, 7, 5), (97, 7, 1), (91, 11, 64), (5, 23, 3), (2, 7, 3), (8, 8, 2),
                                                    (9, 8, 2), (30, 2, 7)])
def test_an_evaluation_is_a_plain_loop_over_windows(n, seq_len, batch_size):
    model, tokens = model_of(), tokens_of(n)
    total, count = by_hand(model, tokens, seq_len)
    score = evaluate(model, tokens, n_bytes=71, seq_len=seq_len, batch_size=batch_size)
    assert score.n_tokens == count[0] == n - 1
    assert math.isclose(score.loss, total[0] / (n - 1), rel_tol=1e-5)
    assert math.isclose(score.bits_per_byte, total[0] / math.log(2) / 71, rel_tol=1e-5)
    for got, nats, k in zip(score.mtp_loss, total[1:], count[1:], strict=True):
        assert math.isclose(got, nats / k if k else 0, rel_tol=1e-5)


@repeatable
@given(n=st.integers(2, 200), seq_len=st.integers(2, 30), batch_size=st.integers(1, 9))
def test_every_token_but_the_first_is_predicted_exactly_once(n, seq_len, batch_size):
    batches = list(windows(torch.arange(n), seq_len, batch_size))
    predicted = [t for batch in batches for row in batch.tolist() for t in row[1:]]
    assert predicted == list(range(1, n))
    assert all(batch.shape[0] <= batch_size and batch.shape[1] <= seq_len for batch in batches)


def test_a_model_that_knows_nothing_needs_the_logarithm_of_its_vocabulary():
    model = model_of()
    model.embed.weight.data.zero_()  # tied: every logit is 0
    score = evaluate(model, tokens_of(60), n_bytes=59, seq_len=13)
    assert math.isclose(score.loss, math.log(V), rel_tol=1e-6) and math.isclose(score.bits_per_byte, math.log2(V), rel_tol=1e-6)


def test_loads_sum_to_tokens_times_experts_a_token():
    model, seq_len, n = model_of(), 7, 62  # 10 full windows of stride 6, and one of 2 tokens
    score = evaluate(model, tokens_of(n), n_bytes=1, seq_len=seq_len, batch_size=3)
    K, lengths = model.config.top_k, [7] * 10 + [2]
    depths = [0, 0, 1, 2]  # two layers with experts, then the two MTP modules, each a token shorter
    assert [int(load.sum()) for load in score.load] == [K * sum(max(length - k, 0) for length in lengths) for k in depths]
    assert all(load.shape == (model.config.n_experts,) for load in score.load)


def test_a_last_window_without_all_depths_leaves_their_loads_whole():
    # a single token more than full windows: the rest has two tokens, and the second MTP module does not run on it
    model = model_of()
    alone = evaluate(model, tokens_of(7), n_bytes=1, seq_len=7)
    both = evaluate(model, tokens_of(8), n_bytes=1, seq_len=7)
    assert len(both.load) == len(alone.load) and torch.equal(both.load[3], alone.load[3])


def test_a_dense_model_has_no_loads_and_no_depth_no_losses():
    score = evaluate(model_of(n_experts=0, mtp_depth=0), tokens_of(40), n_bytes=1, seq_len=7)
    assert score.load == [] and score.mtp_loss == []


def test_memory_mapped_tokens_are_read_as_they_are(tmp_path):
    tokens = tokens_of(50)
    tokens.numpy().astype(np.uint16).tofile(tmp_path / "t.bin")
    mapped = np.memmap(tmp_path / "t.bin", dtype=np.uint16, mode="r")
    assert evaluate(model_of(), mapped, n_bytes=9, seq_len=7).loss == evaluate(model_of(), tokens, n_bytes=9, seq_len=7).loss


@pytest.mark.parametrize("is_training", [True, False])
def test_a_model_keeps_its_mode_and_its_weights(is_training):
    model = model_of().train(is_training)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    evaluate(model, tokens_of(30), n_bytes=1, seq_len=7)
    assert model.training is is_training and all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("n, changes, message", [
    (1, {}, "tokens must hold at least 2.*got 1"), (9, {"n_bytes": 0}, "n_bytes at least 1, got 7, 32, 0"),
    (9, {"seq_len": 1}, "seq_len must be at least 2.*got 1, "), (90, {"seq_len": 80}, "max_seq_len=41"),
])
def test_what_cannot_be_evaluated_is_refused(n, changes, message):
    with pytest.raises(ValueError, match=message):
        evaluate(model_of(), tokens_of(n), **{"n_bytes": 1, "seq_len": 7} | changes)


def test_a_refused_evaluation_leaves_the_mode_too():
    model = model_of().train()
    with pytest.raises(ValueError):
        evaluate(model, tokens_of(90), n_bytes=1, seq_len=80)
    assert model.training


def test_a_draft_stands_where_the_main_model_would_write_it():
    model, tokens = model_of().eval(), tokens_of(22).view(2, 11)
    with torch.no_grad():
        out = model(tokens)
    for temperature, each in ((0.0, acceptance(model, tokens)), (0.7, acceptance(model, tokens, temperature=0.7))):
        assert len(each) == model.config.mtp_depth == 2
        for k, stands in enumerate(each, start=1):
            assert stands.shape == (2, 11 - k)
            for b in range(2):
                for i in range(11 - k):    # token i + k + 1, as the main model and as the module of depth k predict it
                    main, draft = out.logits[b, i + k], out.mtp_logits[k - 1][b, i]
                    if temperature == 0:
                        wanted = float(main.argmax() == draft.argmax())
                    else:    # the overlap is one less half of the distance of the two laws
                        wanted = 1 - ((main / temperature).softmax(0) - (draft / temperature).softmax(0)).abs().sum().item() / 2
                    assert stands[b, i].item() == pytest.approx(wanted, abs=1e-5)
