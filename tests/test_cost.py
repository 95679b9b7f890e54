"""cost.py against torch's counter, real optimizers and tensors, and published figures."""

from dataclasses import replace

import pytest
import torch
from configs import model_configs, odd_config, repeatable
from hypothesis import given, settings
from hypothesis import strategies as st

from minimodels import cost
from minimodels.attention import Cache
from minimodels.config import ModelConfig, TrainConfig
from minimodels.model import Transformer
from minimodels.moe import MoE, dispatch_loop
from minimodels.mtp import losses
from minimodels.optim import make_optimizers


def built(config, dispatch=dispatch_loop):
    """A model whose experts pad no rows."""
    model = Transformer(config)
    for module in model.modules():
        if isinstance(module, MoE):
            module.dispatch = dispatch
    return model


def text(config, T, B):
    return torch.randint(0, config.vocab_size, (B, T), generator=torch.Generator().manual_seed(0))


def counted(function):
    with cost.counter() as count:
        function()
    return count.get_total_flops()


def forward(model, tokens):
    def run():
        out = model(tokens)
        return out.logits, out.mtp_logits
    return run


def step(model, tokens):
    return lambda: sum(losses(model(tokens), tokens)).backward()


many = settings(repeatable, max_examples=60)


@given(model_configs(), st.sampled_from([2, 3, 7, 13]), st.sampled_from([1, 2, 5]))
@many
def test_a_forward_pass_is_counted_exactly(config, T, B):
    expected = counted(forward(built(config), text(config, T, B)))
    assert sum(cost.forward_flops(config, seq_len=T, batch_size=B).values()) == expected


@given(model_configs(), st.sampled_from([2, 3, 7, 13]), st.sampled_from([1, 2, 5]))
@many
def test_a_training_step_is_counted_exactly(config, T, B):
    expected = counted(step(built(config), text(config, T, B)))
    assert sum(cost.training_flops(config, seq_len=T, batch_size=B).values()) == expected


def test_each_part_is_that_of_its_modules():
    """By the counter's own tree of modules; scores are what an attention layer does beside its four projections."""
    config, T, B = odd_config(), 17, 3
    model = built(config)
    with cost.counter() as count:
        forward(model, text(config, T, B))()
    tree = {name: sum(ops.values()) for name, ops in count.get_flop_counts().items()}

    def inside(*endings):
        return sum(n for name, n in tree.items() if name.startswith("Transformer.layers") and name.endswith(endings))

    flops = cost.forward_flops(config, seq_len=T, batch_size=B)
    assert flops["head"] == 2 * B * T * 53 * 23
    assert flops["gate"] == inside(".ffn.gate") == 2 * 2 * B * T * 23 * 13
    assert flops["experts"] == inside(".w_gate_up", ".w_down") - inside(".shared.w_gate_up", ".shared.w_down", "0.ffn.w_gate_up", "0.ffn.w_down")
    assert flops["shared"] == inside(".shared")
    assert flops["dense"] == inside("0.ffn") == 2 * B * T * 3 * 23 * 31
    assert flops["attention"] + flops["scores"] == inside(".attention")
    assert flops["scores"] == 3 * B * 2 * T * T * 3 * (11 + 11)    # Dn + Dr = Dv = 11
    assert set(flops) == set(cost.PARTS)


def test_needed_scores_are_those_that_a_loop_over_pairs_counts():
    config, T = odd_config(d_value=7, mtp_depth=0), 13
    pairs = sum(1 for t in range(T) for s in range(T) if s <= t)
    assert cost.forward_flops(config, seq_len=T, causal=True)["scores"] == 3 * pairs * 3 * 2 * ((5 + 6) + 7)


def test_padding_for_speed_adds_at_most_31_rows_an_expert_and_is_not_counted():
    config, T, B = odd_config(mtp_depth=0), 41, 16
    model = Transformer(config)
    with torch.no_grad():
        expected = counted(lambda: model(text(config, T, B)).logits)
    more = expected - sum(cost.forward_flops(config, seq_len=T, batch_size=B).values())
    assert 0 < more <= 2 * 31 * 2 * 13 * 3 * 23 * 29    # two layers of 13 experts


@given(model_configs())
@many
def test_the_steps_of_muon_are_counted_exactly(config):
    model = built(config)
    step(model, text(config, 5, 2))()
    muon, _ = make_optimizers(model, TrainConfig())
    assert counted(muon.step) == cost.muon_flops(config)


@given(model_configs(), st.sampled_from(["muon", "adamw"]))
@many
def test_bytes_of_training_are_those_of_the_tensors(config, optimizer):
    training = TrainConfig(optimizer=optimizer)
    model = built(config)
    step(model, text(config, 5, 2))()
    optimizers = make_optimizers(model, training)
    for each in optimizers:
        each.step()
    parameters = list(model.parameters())
    state = sum(t.nbytes for o in optimizers for s in o.state.values() for name, t in s.items() if name != "step")
    assert cost.training_bytes(config, training) == {"weights": sum(p.nbytes for p in parameters),
                                                     "gradients": sum(p.grad.nbytes for p in parameters), "optimizer": state}


@given(model_configs())
@repeatable
def test_bytes_of_the_cache_are_those_of_its_tensors(config):
    assert cost.cache_bytes(config, 3 * 16) == Cache(config, 3, 16, dtype=torch.bfloat16).n_bytes


# ---- published figures

V3 = ModelConfig.preset("deepseek_v3")
V2 = replace(V3, n_layers=60, d_model=5120, vocab_size=102_400, d_ff=12_288, n_dense_layers=1, n_experts=160, n_shared=2, top_k=6,
             d_expert=1536, gate="softmax")
LLAMA = ModelConfig(vocab_size=128_256, d_model=16_384, n_layers=126, attention="gqa", n_heads=128, n_kv_heads=8, d_head=128, d_value=128,
                    d_ff=53_248, n_experts=0, mtp_depth=0, tie_embeddings=False)


def test_flops_per_token_are_the_published_ones():
    """Source: Insights into DeepSeek-V3, Table 2. V2 and V3 agree to the unit that is printed, Llama to one percent."""
    gflop = {name: cost.flops_per_token(config, seq_len=4096) / 1e9 for name, config in (("V3", V3), ("V2", V2), ("Llama", LLAMA))}
    assert [round(gflop["V3"]), round(gflop["V2"])] == [250, 155]
    assert gflop["Llama"] == pytest.approx(2448, rel=0.012)


def test_six_operations_a_parameter_and_token_is_the_same_without_scores():
    """For a dense model, long texts aside: 6 N D of Kaplan et al., with the head and without the embedding."""
    n = LLAMA.n_params - LLAMA.parameters["embedding"] - LLAMA.parameters["norms"]
    flops = cost.training_flops(LLAMA, seq_len=4096)
    assert sum(flops.values()) - flops["scores"] + 6 * LLAMA.vocab_size * LLAMA.d_model == 6 * n * 4096


def test_hours_days_and_dollars_of_v3_are_those_of_its_table_1():
    hours = cost.gpu_hours(250e9 * 14.8e12, peak_flops=989e12, utilisation=0.3894)
    assert hours == pytest.approx(2.664e6, rel=0.005)
    assert cost.utilisation(250e9 * 14.8e12, gpu_hours=hours, peak_flops=989e12) == pytest.approx(0.3894)
    assert round(cost.days(2664e3, n_gpus=2048), 1) == 54.2
    assert round(cost.dollars(2788e3, price_usd_per_hour=2) / 1e6, 3) == 5.576


def test_gpt_3_took_the_petaflop_s_days_that_its_paper_says():
    assert cost.petaflop_s_days(3.14e23) == pytest.approx(3640, rel=0.002)


@pytest.mark.parametrize("share", [0, -0.1, 1.2])
def test_a_utilisation_that_cannot_be_is_refused(share):
    with pytest.raises(ValueError, match="utilisation must be above 0 and at most 1"):
        cost.gpu_hours(1.0, peak_flops=1.0, utilisation=share)
