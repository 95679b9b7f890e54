"""Linear layers: the product by either library, one matrix, and one matrix an expert."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from minimodels import linear
from minimodels.linear import GroupedLinear, Linear, groups, product

D = 23


@pytest.mark.parametrize("rows", [1, 31, 32, 37, 211])
@pytest.mark.parametrize("library", ["oneDNN", "torch's own"])
def test_the_product_is_that_of_float64_by_either_library(rows, library, monkeypatch):
    if library != "oneDNN":
        monkeypatch.setattr(linear, "ONEDNN", None)
    elif linear.ONEDNN is None:
        pytest.skip("this torch was built without oneDNN")
    x, weight = torch.randn(rows, D), torch.randn(17, D)
    assert_close(product(x, weight).double(), x.double() @ weight.double().T, atol=1e-5, rtol=1e-5)
    assert_close(product(x.T.contiguous().T, weight.T.contiguous().T).double(), x.double() @ weight.double().T, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (5, 31), (3, 2, 11)], ids=str)
@pytest.mark.parametrize("has_onednn", [True, False])
def test_linear_is_torchs_forward_and_backward(shape, has_onednn, monkeypatch):
    if not has_onednn:
        monkeypatch.setattr(linear, "ONEDNN", None)
    layer, x = Linear(D, 17), torch.randn(*shape, D, requires_grad=True)
    y, expected, dy = layer(x), F.linear(x, layer.weight), torch.randn(*shape, 17)
    assert_close(y, expected, atol=1e-5, rtol=1e-5)
    for got, want in zip(torch.autograd.grad(y, (x, layer.weight), dy), torch.autograd.grad(expected, (x, layer.weight), dy)):
        assert_close(got, want, atol=1e-4, rtol=1e-5)
    assert_close(torch.autograd.grad(layer(x.detach()).sum(), layer.weight)[0], dy.new_ones(*shape, 17).flatten(0, -2).T @ x.flatten(0, -2),
                 atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_each_takes_rows_in_any_order(dtype):
    layer, x, expert = GroupedLinear(5, D, 17).to(dtype), torch.randn(7, D, dtype=dtype), torch.tensor([3, 0, 0, 4, 1, 3, 2])
    expected = torch.stack([layer.weight[e] @ row for row, e in zip(x, expert)])
    assert_close(layer.each(x, expert), expected)


def test_groups_are_the_slices_of_experts_that_have_rows():
    assert list(groups([2, 0, 3, 0])) == [(0, slice(0, 2)), (2, slice(2, 5))]
    assert list(groups([0, 0])) == []


COUNTS = [[3, 0, 5, 1, 2], [0, 0, 0, 0, 11], [11, 0, 0, 0, 0], [0, 0, 0, 0, 0]]


def per_expert(x, weight, counts):
    return torch.cat([F.linear(rows, w) for rows, w in zip(x.split(counts), weight)])


@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_grouped_linear_is_one_linear_layer_an_expert_forward_and_backward(counts):
    layer = GroupedLinear(5, D, 17)
    x = torch.randn(sum(counts), D, requires_grad=True)
    dy = torch.randn(sum(counts), 17)
    y, expected = layer(x, counts), per_expert(x, layer.weight, counts)
    assert_close(y, expected)
    for got, want in zip(torch.autograd.grad(y, (x, layer.weight), dy), torch.autograd.grad(expected, (x, layer.weight), dy)):
        assert_close(got, want)


@pytest.mark.parametrize("form", [linear._GroupedProduct.apply, linear._grouped_mm], ids=["group_by_group", "one_kernel"])
def test_both_forms_of_the_product_accept_the_gradient_of_a_sum_whose_strides_are_zero(form):
    x, weight = torch.randn(11, 24, requires_grad=True), torch.randn(5, 16, 24, requires_grad=True)
    y, expected = form(x, weight, COUNTS[0]), per_expert(x, weight, COUNTS[0])
    assert_close(y, expected, atol=1e-5, rtol=1e-5)
    for got, want in zip(torch.autograd.grad(y.sum(), (x, weight)), torch.autograd.grad(expected.sum(), (x, weight))):
        assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_grouped_linears_gradient_is_that_of_finite_differences():
    layer, x = GroupedLinear(3, 5, 2).double(), torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: torch.func.functional_call(layer, {"weight": w}, (x, [4, 0, 3])), (x, layer.weight))


def test_an_expert_without_rows_has_a_zero_gradient():
    layer = GroupedLinear(5, D, 17)
    layer(torch.randn(11, D), [3, 0, 5, 1, 2]).square().sum().backward()
    assert layer.weight.grad[1].eq(0).all() and all(layer.weight.grad[e].ne(0).any() for e in (0, 2, 3, 4))


def test_grouped_linear_multiplies_in_bf16_under_autocast_and_keeps_its_gradient_in_float32():
    layer, counts = GroupedLinear(5, D, 17), COUNTS[0]
    x = torch.randn(11, D)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x, counts)
    y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16 and layer.weight.grad.dtype == torch.float32
    assert_close(y.float(), per_expert(x, layer.weight, counts), atol=0.02, rtol=0.02)


def test_counts_that_leave_rows_out_are_an_error():
    with pytest.raises(AssertionError, match="counts must sum to 11 rows, got 10"):
        GroupedLinear(5, D, 17)(torch.randn(11, D), [3, 0, 5, 1, 1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_grouped_linear_on_a_gpu_is_the_one_on_the_processor():
    layer, counts = GroupedLinear(5, 48, 64), [16, 0, 48, 7, 1]  # rows and columns of 16 bytes, as the hardware wants
    x = torch.randn(72, 48)
    got = []
    for device in ("cpu", "cuda"):
        moved = GroupedLinear(5, 48, 64).to(device, torch.bfloat16)
        moved.load_state_dict(layer.state_dict())
        rows = x.to(device, torch.bfloat16).requires_grad_()
        y = moved(rows, counts)
        y.sum().backward()
        got.append([t.float().cpu() for t in (y, rows.grad, moved.weight.grad)])
    for cpu, gpu in zip(*got):
        assert_close(gpu, cpu, atol=0.05, rtol=0.05)
