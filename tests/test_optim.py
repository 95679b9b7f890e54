"""Muon's step is orthogonal and by hand the same; every parameter has one optimizer; the schedule is the one that is drawn."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from configs import odd_config
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from configs import repeatable
from minimodels.config import TrainConfig
from minimodels.model import Transformer
from minimodels.optim import Muon, make_optimizers, orthogonalise, schedule


def newton_schulz(gradient: np.ndarray) -> np.ndarray:
    """One matrix, in float64, after the paper's listing: normalise, lie it down, five times x <- a x + b (xx')x + c (xx')^2 x."""
    x = gradient / (np.sqrt((gradient**2).sum()) + 1e-7)
    x = x.T if x.shape[0] > x.shape[1] else x
    for _ in range(5):
        once = x @ x.T @ x
        x = 3.4445 * x - 4.7750 * once + 2.0315 * (x @ x.T @ once)
    return x.T if gradient.shape[0] > gradient.shape[1] else x


# ---- orthogonalise

@repeatable
@given(rows=st.integers(1, 37), columns=st.integers(1, 37), n=st.sampled_from([None, 1, 5]), scale=st.sampled_from([1e-3, 1.0, 1e4]),
       seed=st.integers(0, 99))
def test_singular_values_come_near_one_and_singular_vectors_stay(rows, columns, n, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, columns) if n is None else (n, rows, columns)
    rank = min(rows, columns)
    u, _, vh = torch.linalg.svd(torch.randn(shape, generator=generator, dtype=torch.float64), full_matrices=False)
    # after the division by the norm at least 0.1 / sqrt(37) = 0.016; the five polynomials bring [0.01, 1] to [0.68, 1.2]
    s = scale * (0.1 + 0.9 * torch.rand(shape[:-2] + (rank,), generator=generator, dtype=torch.float64))
    x = orthogonalise(((u * s[..., None, :]) @ vh).float()).double()
    got = u.mT @ x @ vh.mT  # diagonal if the singular vectors are the same
    values = got.diagonal(dim1=-2, dim2=-1)
    assert_close(got, torch.diag_embed(values), atol=1e-4, rtol=0)
    assert values.min() > 0.67 and values.max() < 1.21
    assert_close(u @ (got @ vh), x, atol=1e-4, rtol=0)  # and nothing outside of them


@pytest.mark.parametrize("shape", [(13, 29), (29, 13), (1, 23), (23, 1)])
def test_random_gradients_come_out_near_orthogonal(shape):
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape, dtype=torch.float64)))
    assert values.min() > 0.67 and values.max() < 1.21


def test_the_weakest_directions_of_a_square_matrix_stay_behind():
    values = torch.linalg.svdvals(orthogonalise(torch.randn(43, 43, dtype=torch.float64)))
    assert values.median() > 0.67 and values.max() < 1.21 and (values < 0.67).double().mean() < 0.1


@pytest.mark.parametrize("shape", [(7, 5, 11), (7, 11, 5), (2, 3, 5, 5)])
def test_a_stack_is_each_of_its_matrices_alone(shape):
    stack = torch.randn(shape)
    alone = torch.stack([orthogonalise(m) for m in stack.flatten(0, -3)])
    assert_close(orthogonalise(stack), alone.view(shape), atol=1e-5, rtol=1e-5)


def test_no_gradient_gives_no_step_and_not_nan():
    assert orthogonalise(torch.zeros(2, 3, 5)).abs().max() == 0


# ---- Muon

@pytest.mark.parametrize("shape, parts", [((5, 11), 1), ((11, 5), 1), ((3, 7, 5), 1), ((14, 5), 2), ((3, 14, 13), 2), ((3, 6, 13), 2)])
def test_three_steps_of_muon_by_hand(shape, parts):
    p = torch.nn.Parameter(torch.randn(shape, dtype=torch.float64))
    muon = Muon([{"params": [p], "parts": parts}], lr=0.03, momentum=0.9, weight_decay=0.2)
    expected, momentum = p.detach().numpy().copy(), np.zeros(shape)
    for _ in range(3):
        p.grad = torch.randn(shape, dtype=torch.float64)
        gradient = p.grad.numpy().copy()
        momentum = 0.9 * momentum + 0.1 * gradient
        nesterov = 0.9 * momentum + 0.1 * gradient
        rows = shape[-2] // parts
        matrices = nesterov.reshape(-1, rows, shape[-1])
        step = np.stack([newton_schulz(m) for m in matrices]).reshape(shape)
        expected = expected * (1 - 0.03 * 0.2) - 0.03 * math.sqrt(max(1, rows / shape[-1])) * step
        muon.step()
        assert_close(p.detach(), torch.from_numpy(expected), atol=1e-9, rtol=1e-9)


def test_parameters_of_one_shape_do_not_mix():
    start = torch.randn(3, 5, 7)
    together, alone = ([torch.nn.Parameter(matrix.clone()) for matrix in start] for _ in range(2))
    gradient = torch.randn(3, 5, 7)
    for group in (together, alone):
        for i, p in enumerate(group):
            p.grad = gradient[i] * 10**i
    Muon(together).step()
    for p in alone:
        Muon([p]).step()
    for a, b in zip(together, alone):
        assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_a_parameter_without_a_gradient_stays():
    moved, still = (torch.nn.Parameter(torch.ones(3, 5)) for _ in range(2))
    moved.grad = torch.randn(3, 5)
    Muon([moved, still], weight_decay=0.1).step()
    assert (still == 1).all() and (moved != 1).all()


# ---- who gets which

def names_by_optimizer(model, config):
    """{optimizer class: {parameter name: its group's (weight decay, parts)}}, and all names as a list."""
    name_of, table, seen = {id(p): name for name, p in model.named_parameters()}, {}, []
    for optimizer in make_optimizers(model, config):
        for group in optimizer.param_groups:
            for p in group["params"]:
                table.setdefault(type(optimizer).__name__, {})[name_of[id(p)]] = group["weight_decay"], group.get("parts")
                seen.append(name_of[id(p)])
    return table, seen


@pytest.mark.parametrize("kind", ["muon", "adamw"])
@pytest.mark.parametrize("changes", [dict(), dict(tie_embeddings=False), dict(attention="gqa"), dict(n_experts=0), dict(mtp_depth=0)],
                         ids=str)
def test_every_parameter_belongs_to_exactly_one_group(kind, changes):
    model = Transformer(odd_config(**changes))
    table, seen = names_by_optimizer(model, TrainConfig(optimizer=kind))
    assert sorted(seen) == sorted(name for name, _ in model.named_parameters())
    assert set(table) == ({"Muon", "AdamW"} if kind == "muon" else {"AdamW"})
    vectors = {name for name, p in model.named_parameters() if p.dim() == 1}
    assert vectors and all((decay == 0) == (name in vectors) for part in table.values() for name, (decay, _) in part.items())


def test_embedding_head_gates_and_norms_go_to_adamw_and_all_else_to_muon():
    model = Transformer(odd_config(tie_embeddings=False))
    table, _ = names_by_optimizer(model, TrainConfig())
    words = ("embed.weight", "head.weight", "gate.weight", "norm.weight")
    assert all(name.endswith(words) for name in table["AdamW"]) and not any(name.endswith(words) for name in table["Muon"])
    assert sum(name.endswith("gate.weight") for name in table["AdamW"]) == 4  # two layers with experts, two MTP modules
    assert {"embed.weight", "head.weight"} < set(table["AdamW"])
    fused = {name for name, (_, parts) in table["Muon"].items() if parts == 2}
    assert fused == {name for name, _ in model.named_parameters() if "w_gate_up" in name} and len(fused) > 4
    assert any(".experts." in name for name in table["Muon"])


def test_tied_embedding_and_head_are_one_parameter():
    table, seen = names_by_optimizer(Transformer(odd_config(tie_embeddings=True)), TrainConfig())
    assert "embed.weight" in table["AdamW"] and "head.weight" not in seen


def test_the_rates_are_the_configurations():
    muon, adamw = make_optimizers(Transformer(odd_config()), TrainConfig(lr=0.004, muon_lr=0.03, embed_lr=0.05, beta1=0.7, beta2=0.8, weight_decay=0.3))
    assert {g["lr"] for g in muon.param_groups} == {0.03} and [g["lr"] for g in adamw.param_groups] == [0.05, 0.004, 0.004]
    assert {g["betas"] for g in adamw.param_groups} == {(0.7, 0.8)} and {g["weight_decay"] for g in muon.param_groups} == {0.3}


# ---- schedule

def test_the_schedule_by_hand():
    config = TrainConfig(steps=10, warmup=0.4, decay=0.4, final_lr=0.0)
    # a rise over 4 steps, a plateau, and a fall over 4 whose last step is one part and not zero
    assert [round(schedule(s, config), 10) for s in range(1, 11)] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 0.75, 0.5, 0.25]


def test_the_fall_ends_near_its_floor():
    config = TrainConfig(steps=10, warmup=0.0, decay=0.5, final_lr=0.2)
    assert [round(schedule(s, config), 10) for s in range(1, 11)] == [1, 1, 1, 1, 1, 1, 0.84, 0.68, 0.52, 0.36]


@pytest.mark.parametrize("warmup, decay, expected", [(0, 0, [1, 1, 1, 1]), (1, 0, [0.25, 0.5, 0.75, 1]), (0, 1, [1, 0.75, 0.5, 0.25])])
def test_warmup_and_decay_may_be_nothing_or_everything(warmup, decay, expected):
    assert [schedule(s, TrainConfig(steps=4, warmup=warmup, decay=decay)) for s in range(1, 5)] == expected


@repeatable
@given(steps=st.integers(1, 50), warmup=st.floats(0, 0.5), decay=st.floats(0, 0.5), final=st.floats(0, 1))
def test_a_rate_is_positive_at_every_step_and_never_above_its_peak(steps, warmup, decay, final):
    config = replace(TrainConfig(), steps=steps, warmup=warmup, decay=decay, final_lr=final)
    assert all(0 < schedule(s, config) <= 1 for s in range(1, steps + 1))
