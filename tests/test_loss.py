import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from minimodels.loss import next_token_loss

B, T, D, V = 2, 13, 23, 53


def example(dtype=torch.float32):
    hidden, weight = torch.randn(B, T, D, dtype=dtype, requires_grad=True), torch.randn(V, D, dtype=dtype, requires_grad=True)
    return hidden, weight, torch.randint(V, (B, T))


def plain(hidden, weight, target):
    return F.cross_entropy((hidden @ weight.T).flatten(0, 1).float(), target.flatten())


@pytest.mark.parametrize("chunk", [1, 5, 26, 512])  # 26 rows: one at a time, not dividing, all, more than all
def test_the_loss_in_chunks_is_cross_entropy_forward_and_backward(chunk):
    hidden, weight, target = example()
    got, want = next_token_loss(hidden, weight, target, chunk=chunk), plain(hidden, weight, target)
    assert_close(got, want)
    for g, w in zip(torch.autograd.grad(got, (hidden, weight)), torch.autograd.grad(want, (hidden, weight))):
        assert_close(g, w, atol=1e-6, rtol=1e-5)


def test_the_loss_of_one_row_is_its_own_mean():
    hidden, weight, target = example()
    assert_close(next_token_loss(hidden[:1, :1], weight, target[:1, :1]), plain(hidden[:1, :1], weight, target[:1, :1]))


def test_a_factor_on_the_loss_is_a_factor_on_its_gradients():
    hidden, weight, target = example()
    once = torch.autograd.grad(next_token_loss(hidden, weight, target), (hidden, weight))
    thrice = torch.autograd.grad(next_token_loss(hidden, weight, target) * 3, (hidden, weight))
    for a, b in zip(once, thrice):
        assert_close(b, 3 * a)


def test_equal_logits_cost_the_logarithm_of_the_vocabulary():
    assert next_token_loss(torch.zeros(B, T, D), torch.randn(V, D), torch.randint(V, (B, T))).item() == pytest.approx(math.log(V))


def test_huge_logits_stay_finite():
    hidden, weight, target = example()
    loss = next_token_loss(hidden * 1e4, weight, target)
    loss.backward()
    assert loss.isfinite() and hidden.grad.isfinite().all()
    assert_close(loss, plain(hidden * 1e4, weight, target))


@pytest.mark.parametrize("autocast", [False, True])
def test_in_bf16_loss_and_gradients_agree_to_bf16s_precision(autocast):
    hidden, weight, target = example(torch.float32 if autocast else torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        got = next_token_loss(hidden, weight, target, chunk=5)
    got.backward()
    assert got.dtype == torch.float32 and hidden.grad.dtype == hidden.dtype and weight.grad.dtype == weight.dtype
    hidden64, weight64 = (x.detach().double().requires_grad_() for x in (hidden, weight))
    want = F.cross_entropy((hidden64 @ weight64.T).flatten(0, 1), target.flatten())
    want.backward()
    assert abs(got.item() - want.item()) < 0.02 * want.item()
    for g, w in ((hidden.grad, hidden64.grad), (weight.grad, weight64.grad)):
        assert (g.double() - w).norm() < 0.02 * w.norm()


def test_a_frozen_head_or_frozen_states_leave_the_others_gradient_alone():
    hidden, weight, target = example()
    both = torch.autograd.grad(plain(hidden, weight, target), (hidden, weight))
    assert_close(torch.autograd.grad(next_token_loss(hidden, weight.detach(), target), hidden)[0], both[0], atol=1e-6, rtol=1e-5)
    assert_close(torch.autograd.grad(next_token_loss(hidden.detach(), weight, target), weight)[0], both[1], atol=1e-6, rtol=1e-5)


def test_an_evaluation_computes_no_gradient(monkeypatch):
    def refuse(*_):
        raise AssertionError("a gradient was computed that nobody asked for")

    hidden, weight, target = example()
    want = plain(hidden, weight, target).detach()
    monkeypatch.setattr(torch.Tensor, "exp_", refuse)
    for quiet in (torch.no_grad, torch.inference_mode):
        with quiet():
            assert_close(next_token_loss(hidden, weight, target), want)
    with pytest.raises(AssertionError, match="nobody asked"):
        next_token_loss(hidden, weight, target)


def test_without_a_target_the_loss_is_zero_and_so_is_its_gradient():
    hidden, weight = torch.randn(B, 0, D, requires_grad=True), torch.randn(V, D, requires_grad=True)
    loss = next_token_loss(hidden, weight, torch.zeros(B, 0, dtype=torch.int64))
    loss.backward()
    assert loss == 0 and weight.grad.eq(0).all()


def test_all_logits_together_never_exist():
    made = []
    hidden, weight, target = example()

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, f, types, args=(), kwargs=None):
            out = f(*args, **(kwargs or {}))
            made.extend(t.numel() for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, torch.Tensor))
            return out

    with Sizes():
        next_token_loss(hidden, weight, target, chunk=5).backward()
    assert max(made) == V * D < B * T * V  # nothing is larger than the head's own gradient; a chunk has 5 * V
