import dataclasses
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given

from configs import model_configs, odd_config, repeatable
from minimodels.config import ModelConfig, TrainConfig

V3 = ModelConfig.preset("deepseek_v3")
V2 = replace(V3, vocab_size=102_400, d_model=5120, n_layers=60, n_experts=160, n_shared=2, top_k=6, d_expert=1536, d_ff=12_288,
             n_dense_layers=1, gate="softmax", n_groups=8, top_groups=3, normalise_weights=False, routed_scale=16.0, mtp_depth=0)
V2_LITE = replace(V2, d_model=2048, n_layers=27, n_heads=16, d_query_latent=None, n_experts=64, d_expert=1408, d_ff=10_944, n_groups=1,
                  top_groups=1, routed_scale=1.0)


def billions(n):
    return round(n / 1e9, 2)


def test_deepseek_v3_has_671_billion_parameters_of_which_37_work_on_a_token():
    assert billions(V3.n_params) == 671.03
    assert billions(V3.n_active_params) == 37.55
    # without the input embedding, which is looked up; and without the head too
    assert billions(V3.n_active_params - V3.parameters["embedding"]) == 36.63
    assert billions(V3.n_active_params - V3.parameters["embedding"] - V3.parameters["head"]) == 35.70


def test_nearly_all_of_v3_is_routed_experts():
    one_expert = V3.parameters["experts"] // (58 * 256)
    assert one_expert == 3 * 7168 * 2048 and round(one_expert / 1e6, 2) == 44.04
    assert round(100 * V3.parameters["experts"] / V3.n_params, 1) == 97.4
    assert round(V3.parameters["attention"] / 61 / 1e6, 1) == 187.1
    assert billions(V3.parameters["mtp"]) == 11.61


def test_deepseek_v2_and_v2_lite_are_counted_by_the_same_rule():
    assert [round(n / 1e9, 1) for n in (V2.n_params, V2.n_active_params)] == [235.7, 21.4]
    assert round(V2_LITE.n_params / 1e9, 1) == 15.7 and billions(V2_LITE.n_active_params) == 2.66


def test_a_v3_token_caches_70_272_bytes():
    assert V3.cached_values_per_layer == 576
    assert V3.cached_values_per_token == (512 + 64) * 61 == 35_136
    assert V3.cached_values_per_token * 2 == 70_272
    assert V2.cached_values_per_token == 34_560 and V2_LITE.cached_values_per_token == 15_552


def test_the_93_percent_are_latents_and_six_bits_together():
    deepseek_67b = ModelConfig(attention="gqa", n_layers=95, n_heads=64, n_kv_heads=8, d_head=128, d_value=128, n_experts=0)
    assert deepseek_67b.cached_values_per_token == 194_560
    assert round(100 * (1 - V2.cached_values_per_token / 194_560)) == 82
    assert round(100 * (1 - V2.cached_values_per_token * 6 / (194_560 * 16)), 1) == 93.3


@pytest.mark.parametrize("attention, cached", [("mha", 32_768), ("gqa", 2048), ("mqa", 256), ("mla", 576)])
def test_what_a_layer_caches_is_table_1_of_v2(attention, cached):
    assert replace(V2, attention=attention, n_kv_heads=8).cached_values_per_layer == cached


def test_presets_are_named_by_where_they_run():
    for name in ("unit", "cpu", "t4", "gaming", "deepseek_v3"):
        assert isinstance(ModelConfig.preset(name), ModelConfig)
    for name in ("unit", "cpu", "t4", "gaming"):
        assert isinstance(TrainConfig.preset(name), TrainConfig)
    assert ModelConfig.preset("cpu") == ModelConfig() and TrainConfig.preset("cpu") == TrainConfig()
    sizes = [ModelConfig.preset(name).n_params for name in ("unit", "cpu", "t4", "gaming", "deepseek_v3")]
    assert sizes == sorted(sizes)


def test_an_unknown_preset_is_answered_with_those_that_exist():
    with pytest.raises(ValueError, match="preset must be one of cpu, unit, yardstick, together, t4, gaming, deepseek_v3, got 'gpu'"):
        ModelConfig.preset("gpu")


def test_parts_add_up_to_the_whole():
    config = odd_config()
    main = sum(n for part, n in config.parameters.items() if part != "mtp")
    assert config.n_params == main
    # 2 of 3 layers have 13 experts of 3 * 23 * 29 parameters, of which 13 - 4 sleep
    assert config.n_params - config.n_active_params == 2 * 9 * 3 * 23 * 29


def test_a_dense_model_is_wholly_active():
    dense = odd_config(n_experts=0)
    assert dense.n_active_params == dense.n_params and not dense.is_moe
    assert dense.parameters["experts"] == dense.parameters["gate"] == dense.parameters["shared"] == 0


@pytest.mark.parametrize("n_experts, n_dense_layers, kinds", [
    (13, 1, "dense moe moe moe"),  # the last is the MTP module's block
    (13, 0, "moe moe moe moe"),
    (13, 2, "dense dense moe moe"),
    (13, 3, "dense dense dense dense"),
    (0, 1, "dense dense dense dense"),
])
def test_the_first_layers_are_dense_and_an_mtp_block_is_like_the_last_layer(n_experts, n_dense_layers, kinds):
    config = odd_config(n_experts=n_experts, n_dense_layers=n_dense_layers)
    assert " ".join("moe" if config.is_moe_layer(i) else "dense" for i in range(4)) == kinds


@pytest.mark.parametrize("attention, heads", [("mha", 6), ("gqa", 2), ("mqa", 1)])
def test_mha_gqa_and_mqa_differ_in_the_heads_that_are_cached(attention, heads):
    config = odd_config(attention=attention)
    assert config.kv_heads == heads and config.cached_values_per_layer == 2 * heads * 10


def test_a_configuration_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().top_k = 2
    with pytest.raises(TypeError):
        ModelConfig(4096)


@repeatable
@given(model_configs())
def test_a_configuration_survives_json(config):
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_train_configuration_survives_json():
    config = TrainConfig(steps=7, micro_batch=3, lr=0.11, balance="sequence")
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_an_unknown_field_is_named_together_with_the_known_ones():
    with pytest.raises(ValueError, match="ModelConfig has no field 'n_head'; its fields are attention, .*n_heads"):
        ModelConfig.from_dict({"n_head": 4})


def test_a_whole_number_may_stand_for_a_fraction():
    assert ModelConfig(rope_base=10_000) == ModelConfig(rope_base=10_000.0)


BAD_MODEL = [
    (dict(vocab_size=0), "vocab_size must be at least 1, got 0"),
    (dict(d_model=-23), "d_model must be at least 1, got -23"),
    (dict(n_layers=0), "n_layers must be at least 1"),
    (dict(max_seq_len=0), "max_seq_len must be at least 1"),
    (dict(n_heads=0), "n_heads must be at least 1"),
    (dict(d_head=0), "d_head must be at least 1"),
    (dict(d_value=0), "d_value must be at least 1"),
    (dict(d_latent=0), "d_latent must be at least 1"),
    (dict(d_ff=0), "d_ff must be at least 1"),
    (dict(d_query_latent=0), "d_query_latent must be at least 1, or None"),
    (dict(n_experts=-1), "n_experts must be at least 0"),
    (dict(n_shared=-1), "n_shared must be at least 0"),
    (dict(mtp_depth=-1), "mtp_depth must be at least 0"),
    (dict(n_dense_layers=-1), "n_dense_layers must be at least 0"),
    (dict(rope_base=1.0), "rope_base must be above 1"),
    (dict(rope_base=math.nan), "rope_base must be a finite number, got nan"),
    (dict(routed_scale=math.inf), "routed_scale must be a finite number, got inf"),
    (dict(norm_eps=0.0), "norm_eps must be above 0"),
    (dict(init_std=0.0), "init_std must be above 0"),
    (dict(routed_scale=0.0), "routed_scale must be above 0"),
    (dict(attention="flash"), "attention must be one of mla, mha, gqa, mqa, got 'flash'"),
    (dict(gate="tanh"), "gate must be one of sigmoid, softmax, got 'tanh'"),
    (dict(d_rope=5), "d_rope must be even and at least 2, because RoPE rotates pairs, got 5"),
    (dict(d_rope=0), "d_rope must be even and at least 2"),
    (dict(attention="mha", d_head=7, d_value=7), "d_head must be even with attention='mha'"),
    (dict(attention="mha", d_head=8, d_value=6), "d_value must be equal to d_head=8"),
    (dict(attention="gqa", n_heads=6, n_kv_heads=4), "n_kv_heads must be a divisor of n_heads=6, got 4"),
    (dict(attention="gqa", n_kv_heads=0), "n_kv_heads must be a divisor of n_heads"),
    (dict(yarn_factor=0.5), "yarn_factor must be at least 1"),
    (dict(yarn_original_len=0), "yarn_original_len must be at least 1"),
    (dict(yarn_beta_slow=0.0), "yarn_beta_slow must be above 0"),
    (dict(yarn_beta_fast=1.0), "yarn_beta_fast must be above yarn_beta_slow=1.0, got 1.0"),
    (dict(d_expert=0), "d_expert must be at least 1"),
    (dict(top_k=0), "top_k must be in [1, n_experts=13], got 0"),
    (dict(top_k=14), "top_k must be in [1, n_experts=13], got 14"),
    (dict(n_groups=2), "n_groups must be a divisor of n_experts=13, got 2"),
    (dict(n_groups=0), "n_groups must be a divisor of n_experts=13, got 0"),
    (dict(n_groups=13), "n_groups must be at most n_experts/2=6 with gate='sigmoid', got 13"),
    (dict(top_groups=2), "top_groups must be in [1, n_groups=1], got 2"),
    (dict(n_experts=12, n_groups=4, top_groups=1, top_k=4), "top_k must be at most top_groups x experts a group = 3, got 4"),
    (dict(d_model=True), "d_model must be of type int, got True"),
    (dict(d_model=23.0), "d_model must be of type int, got 23.0"),
    (dict(d_model="23"), "d_model must be of type int, got '23'"),
    (dict(rope_base="big"), "rope_base must be of type float, got 'big'"),
    (dict(d_query_latent=1.5), "d_query_latent must be of type int or nothing, got 1.5"),
    (dict(tie_embeddings=1), "tie_embeddings must be of type bool, got 1"),
]

BAD_TRAIN = [
    (dict(steps=0), "steps must be at least 1, got 0"),
    (dict(batch_size=0), "batch_size must be at least 1"),
    (dict(seq_len=1), "seq_len must be at least 2, because a token is predicted from those before it, got 1"),
    (dict(micro_batch=0), "micro_batch must be at least 1, or None"),
    (dict(checkpoint_every=0), "checkpoint_every must be at least 1"),
    (dict(lr=0.0), "lr must be above 0"),
    (dict(lr=math.inf), "lr must be a finite number, got inf"),
    (dict(muon_lr=-1.0), "muon_lr must be above 0"),
    (dict(clip=0.0), "clip must be above 0"),
    (dict(beta1=1.0), "beta1 must be in [0, 1), got 1.0"),
    (dict(warmup=1.5), "warmup must be in [0, 1]"),
    (dict(warmup=0.75, decay=0.5), "decay must be at most 1 - warmup = 0.25, got 0.5"),
    (dict(mtp_weight=-0.1), "mtp_weight must be at least 0"),
    (dict(seed=-1), "seed must be in [0, 2**63), got -1"),
    (dict(optimizer="sgd"), "optimizer must be one of muon, adamw, got 'sgd'"),
    (dict(balance="hope"), "balance must be one of bias, bias+sequence, sequence, batch, none, got 'hope'"),
    (dict(dtype="fp8"), "dtype must be one of auto, fp32, bf16, fp16, got 'fp8'"),
]


@pytest.mark.parametrize("changes, message", BAD_MODEL, ids=lambda x: str(x) if isinstance(x, dict) else "")
def test_a_model_that_cannot_be_is_refused_by_field_rule_and_value(changes, message):
    with pytest.raises(ValueError) as error:
        odd_config(**changes)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("changes, message", BAD_TRAIN, ids=lambda x: str(x) if isinstance(x, dict) else "")
def test_a_training_that_cannot_be_is_refused_by_field_rule_and_value(changes, message):
    with pytest.raises(ValueError) as error:
        TrainConfig(**changes)
    assert str(error.value).startswith(message)
