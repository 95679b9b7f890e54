"""convert: Hugging Face's implementation, written by others, must compute what ours computes, from the same weights."""

import json
import random
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from minimodels import convert
from minimodels.attention import Cache
from minimodels.config import ModelConfig
from minimodels.data import train_tokenizer
from minimodels.model import Transformer

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

TINY = ModelConfig(vocab_size=307, d_model=23, n_layers=3, max_seq_len=64, n_heads=3, d_head=5, d_rope=6, d_value=11, d_latent=13,
                   n_experts=7, n_shared=2, top_k=3, d_expert=17, d_ff=29, mtp_depth=1)


def draw_config(seed):
    """A random model that DeepSeek-V3 can express; between them, the seeds cover every field."""
    choose = random.Random(seed)
    groups, per_group = choose.choice([(1, 2), (1, 5), (1, 7), (2, 3), (2, 4), (3, 5), (4, 2)])
    top_groups = choose.randint(1, groups)
    n_layers = choose.randint(1, 4)
    yarn = choose.random() < 0.5
    return ModelConfig(
        vocab_size=choose.choice([31, 67, 101]), d_model=choose.choice([13, 19, 32]), n_layers=n_layers, max_seq_len=48,
        n_heads=choose.choice([1, 2, 3, 5]), d_head=choose.choice([3, 5, 8]), d_rope=choose.choice([2, 4, 6, 10]),
        d_value=choose.choice([3, 7, 8, 17]), d_latent=choose.choice([5, 11, 16]), d_query_latent=choose.choice([None, 7, 12]),
        rope_base=choose.choice([100.0, 10_000.0]), yarn_factor=choose.choice([2.0, 3.5, 40.0]) if yarn else 1.0,
        yarn_original_len=choose.choice([16, 4096]) if yarn else 4096, yarn_beta_fast=choose.choice([4.0, 32.0]) if yarn else 32.0,
        yarn_mscale=choose.choice([0.0, 0.707, 1.0]) if yarn else 1.0,
        n_experts=groups * per_group, n_groups=groups, top_groups=top_groups, top_k=choose.randint(1, top_groups * per_group),
        n_shared=choose.randint(0, 2), d_expert=choose.choice([3, 8, 11]), d_ff=choose.choice([7, 16, 37]),
        n_dense_layers=choose.randint(0, n_layers), normalise_weights=choose.random() < 0.7, routed_scale=choose.choice([1.0, 2.5, 0.3]),
        mtp_depth=0, tie_embeddings=choose.random() < 0.5)


CONFIGS = [draw_config(seed) for seed in range(24)]


def built(config, seed=0):
    """A model whose every number matters: weights that keep activations near 1, norms that are not 1, biases that change choices."""
    torch.manual_seed(seed)
    model = Transformer(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(1, 0.3) if weight.dim() == 1 else weight.normal_(std=weight.shape[-1] ** -0.5)
        for gate in model.gates:
            gate.bias.normal_(std=0.2)
    return model.eval()


def tokens_for(config, seed, *, T=13):
    return torch.randint(config.vocab_size, (1 + seed % 3, T), generator=torch.Generator().manual_seed(seed))


def hugging_face(model):
    """Their model with our weights. Its default product for experts wants widths in multiples of 16 bytes; ours are odd on purpose."""
    hf = convert.to_hf(model).eval()
    hf.set_experts_implementation("eager")
    return hf


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# The same function ------------------------------------------------------------------------------------------------------------

def test_the_random_configs_cover_what_they_should():
    assert len(CONFIGS) >= 20
    assert any(c.top_groups < c.n_groups for c in CONFIGS) and any(c.n_groups == 1 for c in CONFIGS)
    assert {c.d_query_latent is None for c in CONFIGS} == {c.tie_embeddings for c in CONFIGS} == {True, False}
    assert {c.yarn_factor > 1 for c in CONFIGS} == {c.normalise_weights for c in CONFIGS} == {True, False}
    assert {c.routed_scale for c in CONFIGS} == {1.0, 2.5, 0.3} and {c.n_shared for c in CONFIGS} == {0, 1, 2}
    assert any(c.n_dense_layers == 0 for c in CONFIGS) and any(0 < c.n_dense_layers < c.n_layers for c in CONFIGS)
    assert any(c.n_dense_layers == c.n_layers for c in CONFIGS)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("seed", range(len(CONFIGS)))
def test_logits_and_gradients_equal_hugging_face(seed):
    config = CONFIGS[seed]
    model, tokens = built(config, seed), tokens_for(config, seed)
    hf = hugging_face(model)
    ours, theirs = model(tokens).logits, hf(tokens).logits
    close(ours, theirs)
    assert ours.std() > 0.1  # or else closeness would mean nothing

    target = torch.randn(ours.shape, generator=torch.Generator().manual_seed(seed)) / tokens.numel() ** 0.5
    (ours * target).sum().backward()
    (theirs * target).sum().backward()
    # gradients laid out as weights, so that they can be compared name by name
    for weight in hf.parameters():
        weight.data = weight.grad if weight.grad is not None else torch.zeros_like(weight)
    gradient = dict(convert.from_hf(hf).named_parameters())
    for name, weight in model.named_parameters():
        expected = gradient[name].detach()
        atol = 1e-4 * max(1.0, expected.abs().max().item())
        ours = weight.grad if weight.grad is not None else torch.zeros_like(weight)
        torch.testing.assert_close(ours, expected, atol=atol, rtol=1e-4, msg=lambda text: f"{name}: {text}")


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@torch.no_grad()
@pytest.mark.parametrize("seed", range(len(CONFIGS)))
def test_cached_decoding_equals_hugging_face(seed):
    config = CONFIGS[seed]
    model, tokens = built(config, seed), tokens_for(config, seed)
    hf = hugging_face(model)
    expected = hf(tokens).logits
    cache, theirs = Cache(config, len(tokens), tokens.shape[1]), transformers.DynamicCache(config=hf.config)
    for t in range(tokens.shape[1]):
        one = tokens[:, t:t + 1]
        logits = model(one, cache).logits[:, 0]
        close(logits, expected[:, t])
        close(logits, hf(one, past_key_values=theirs, use_cache=True).logits[:, 0])


@torch.no_grad()
def test_a_prompt_may_be_read_in_pieces():
    model, tokens = built(TINY), tokens_for(TINY, 1)
    expected, cache = hugging_face(model)(tokens).logits, Cache(TINY, len(tokens), 13)
    pieces = [model(piece, cache).logits for piece in tokens.split([5, 1, 3, 1, 3], dim=1)]
    close(torch.cat(pieces, 1), expected)


@torch.no_grad()
@pytest.mark.parametrize("hidden", ["model's", "file's"])
def test_mtp_logits_equal_hugging_face(hidden, tmp_path):
    from transformers.modeling_layers import MtpModel

    model = built(TINY)
    hf = loaded_with_mtp(convert.save_hf(model, tmp_path / "hf"))
    tokens = tokens_for(TINY, 1)
    source = model if hidden == "model's" else convert.load_hf(tmp_path / "hf")
    out = source(tokens)
    theirs = MtpModel.from_pretrained(hf)
    # their positions are those of the tokens ahead; only distances matter
    h = theirs.forward_layer(0, out.hidden[0][:, :-1], torch.arange(1, 13)[None], None, input_ids=tokens[:, 1:])
    close(out.mtp_logits[0], theirs._project_to_logits(h))


def loaded_with_mtp(directory):
    hf = transformers.AutoModelForCausalLM.from_pretrained(directory, experts_implementation="eager").eval()
    # transformers knows the MTP layer of the released model by its number, 61, and of no other
    hf._keys_to_ignore_on_load_unexpected = [rf"model\.layers\.{hf.config.num_hidden_layers}\."]
    return hf


def test_hugging_face_drafts_with_our_mtp_layer(tmp_path):
    hf = loaded_with_mtp(convert.save_hf(built(TINY), tmp_path / "hf"))
    prompt = tokens_for(TINY, 0)
    wanted = dict(max_new_tokens=17, do_sample=False, eos_token_id=None)
    torch.testing.assert_close(hf.generate(prompt, use_mtp=True, **wanted), hf.generate(prompt, **wanted))


@torch.no_grad()
@pytest.mark.parametrize("attention", ["mha", "gqa", "mqa"])
def test_a_dense_model_is_llama(attention):
    config = ModelConfig(vocab_size=31, d_model=42, n_layers=2, max_seq_len=64, attention=attention, n_heads=6, n_kv_heads=3, d_head=10,
                         d_value=10, n_experts=0, d_ff=29, mtp_depth=0, tie_embeddings=False, norm_eps=1e-5)
    model, tokens = built(config), tokens_for(config, 1)
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=31, hidden_size=42, num_hidden_layers=2, max_position_embeddings=64, num_attention_heads=6, head_dim=10,
        num_key_value_heads={"mha": 6, "gqa": 3, "mqa": 1}[attention], intermediate_size=29, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0})).eval()

    def halves(weight):  # Llama pairs i with i + Dh/2, we pair 2i with 2i + 1
        return weight.unflatten(0, (-1, 5, 2)).transpose(1, 2).flatten(0, 2)

    llama.model.embed_tokens.weight.copy_(model.embed.weight)
    llama.model.norm.weight.copy_(model.final_norm.weight)
    llama.lm_head.weight.copy_(model.head.weight)
    for ours, theirs in zip(model.layers, llama.model.layers, strict=True):
        theirs.input_layernorm.weight.copy_(ours.attention_norm.weight)
        theirs.post_attention_layernorm.weight.copy_(ours.ffn_norm.weight)
        theirs.self_attn.q_proj.weight.copy_(halves(ours.attention.w_q.weight))
        theirs.self_attn.k_proj.weight.copy_(halves(ours.attention.w_k.weight))
        theirs.self_attn.v_proj.weight.copy_(ours.attention.w_v.weight)
        theirs.self_attn.o_proj.weight.copy_(ours.attention.w_o.weight)
        theirs.mlp.gate_proj.weight.copy_(ours.ffn.w_gate_up.weight[:29])
        theirs.mlp.up_proj.weight.copy_(ours.ffn.w_gate_up.weight[29:])
        theirs.mlp.down_proj.weight.copy_(ours.ffn.w_down.weight)
    expected, cache = llama(tokens).logits, Cache(config, len(tokens), 13)
    close(model(tokens).logits, expected)
    close(torch.cat([model(tokens[:, t:t + 1], cache).logits for t in range(13)], 1), expected)


# There and back ---------------------------------------------------------------------------------------------------------------

@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("seed", range(len(CONFIGS)))
def test_there_and_back_changes_nothing(seed):
    model = built(CONFIGS[seed], seed)
    hf = convert.to_hf(model)
    back = convert.from_hf(hf)
    assert back.config == model.config
    assert same_weights(back, model)
    again = convert.to_hf(back)
    assert same_weights(again, hf) and again.config.to_dict() == hf.config.to_dict()


def test_bf16_stays_bf16_and_the_selection_bias_stays_fp32():
    model = built(TINY)
    biases = [gate.bias.clone() for gate in model.gates]
    model = model.to(torch.bfloat16)
    for gate, bias in zip(model.gates, biases, strict=True):
        gate.bias = bias
    hf = convert.to_hf(model)
    assert hf.dtype == torch.bfloat16 and hf.model.layers[1].mlp.gate.e_score_correction_bias.equal(biases[0])
    back = convert.from_hf(hf)
    assert back.embed.weight.dtype == torch.bfloat16 and back.gates[0].bias.equal(biases[0])


@pytest.mark.parametrize("config", [TINY, replace(TINY, mtp_depth=0), replace(TINY, mtp_depth=2, tie_embeddings=False),
                                    replace(TINY, n_shared=0, n_dense_layers=0, d_query_latent=19),
                                    replace(TINY, yarn_factor=4.0, yarn_original_len=16, n_experts=8, n_groups=4, top_groups=2),
                                    replace(TINY, n_dense_layers=3, mtp_depth=0)],
                         ids=["tied", "no mtp", "two mtp", "no shared", "groups", "dense"])
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@torch.no_grad()
def test_a_saved_model_loads_here_and_there(config, tmp_path):
    model, tokens = built(config), tokens_for(config, 2)
    convert.save_hf(model, tmp_path / "deep" / "er")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["er"]  # nothing temporary is left
    hf = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "deep" / "er", experts_implementation="eager").eval()
    assert type(hf).__name__ == "DeepseekV3ForCausalLM"
    close(model(tokens).logits, hf(tokens).logits)
    back = convert.load_hf(tmp_path / "deep" / "er").eval()
    assert back.config == config and same_weights(back, model)


def test_the_file_has_the_released_layout(tmp_path):
    convert.save_hf(built(TINY), tmp_path / "hf")
    shape = {name: tuple(t.shape) for name, t in load_file(tmp_path / "hf" / "model.safetensors").items()}
    assert shape["model.layers.0.mlp.gate_proj.weight"] == (29, 23)
    assert shape["model.layers.1.mlp.experts.6.up_proj.weight"] == (17, 23)
    assert shape["model.layers.1.mlp.shared_experts.down_proj.weight"] == (23, 2 * 17)
    assert shape["model.layers.1.mlp.gate.e_score_correction_bias"] == (7,)
    assert shape["model.layers.2.self_attn.kv_a_proj_with_mqa.weight"] == (13 + 6, 23)
    # the MTP module is layer n_layers; README_WEIGHTS.md of the release lists these beside an ordinary layer's
    mtp = {name.removeprefix("model.layers.3.") for name in shape if name.startswith("model.layers.3.")}
    assert {"embed_tokens.weight", "enorm.weight", "hnorm.weight", "eh_proj.weight", "shared_head.norm.weight",
            "shared_head.head.weight", "self_attn.o_proj.weight", "mlp.experts.0.gate_proj.weight"} <= mtp
    assert shape["model.layers.3.eh_proj.weight"] == (23, 2 * 23)


@torch.no_grad()
@pytest.mark.parametrize("shard", ["50GB", "20KB"])
def test_what_transformers_saves_loads_here(shard, tmp_path):
    model = built(TINY)
    convert.to_hf(model).save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "20KB")
    back = convert.load_hf(tmp_path).eval()
    tokens = tokens_for(TINY, 2)
    assert back.config == replace(TINY, mtp_depth=0)
    assert torch.equal(back(tokens).logits, model(tokens).logits)


def test_fused_experts_load_too(tmp_path):
    model = built(replace(TINY, mtp_depth=0))
    convert.save_hf(model, tmp_path / "hf")
    fused = {name: t.contiguous() for name, t in convert.to_hf(model).state_dict().items() if name != "lm_head.weight"}
    assert "model.layers.1.mlp.experts.gate_up_proj" in fused
    save_file(fused, tmp_path / "hf" / "model.safetensors")
    assert same_weights(convert.load_hf(tmp_path / "hf"), model)


def test_the_tokenizer_comes_along(tmp_path):
    text = "def main(argv):\n    return [len(a) for a in argv]\n\n# naïve façade – 12345 + 678\n"
    tokenizer = train_tokenizer([text * 5, "class Cache(dict):\n    pass\n" * 5], TINY.vocab_size)
    model = built(TINY)
    model.tokenizer = tokenizer
    convert.save_hf(model, tmp_path / "hf")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    back = convert.load_hf(tmp_path / "hf").tokenizer
    for sample in (text, "", "  two  spaces\n\n\n", "unseen: ∑ 🙂 \u00e9", "<|endoftext|>def"):
        ids = tokenizer.encode(sample).ids
        assert theirs(sample)["input_ids"] == ids == back.encode(sample).ids
        assert theirs.decode(ids, skip_special_tokens=False) == tokenizer.decode(ids, skip_special_tokens=False) == sample
    assert theirs.eos_token_id == theirs.bos_token_id == 0
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert model.generation_config.eos_token_id == model.config.eos_token_id == 0


# Configurations ---------------------------------------------------------------------------------------------------------------

# config.json of the released DeepSeek-V3, less what no one computes with; its weights carry scales, which is tested below
RELEASED = {
    "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 1,
    "first_k_dense_replace": 3, "hidden_act": "silu", "hidden_size": 7168, "initializer_range": 0.02, "intermediate_size": 18432,
    "kv_lora_rank": 512, "max_position_embeddings": 163840, "model_type": "deepseek_v3", "moe_intermediate_size": 2048,
    "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": True,
    "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06,
    "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
                     "original_max_position_embeddings": 4096, "type": "yarn"},
    "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "tie_word_embeddings": False, "topk_group": 4,
    "topk_method": "noaux_tc", "v_head_dim": 128, "vocab_size": 129280,
}


def test_the_released_configuration_is_our_preset():
    assert convert.config_from_hf(RELEASED) == replace(ModelConfig.preset("deepseek_v3"), init_std=0.02)
    assert convert.config_from_hf(transformers.DeepseekV3Config(**RELEASED)) == convert.config_from_hf(RELEASED)


def test_their_defaults_are_theirs():
    theirs = transformers.DeepseekV3Config().to_dict() | {"num_nextn_predict_layers": transformers.DeepseekV3Config().num_mtp_layers}
    assert {name: theirs[name] for name in convert.THEIR_DEFAULTS} == convert.THEIR_DEFAULTS


def test_every_field_of_ours_is_converted():
    rope = {name for name in asdict(TINY) if name.startswith(("rope_", "yarn_"))}
    assert set(convert.FIELDS) | rope | {"attention", "gate", "n_kv_heads"} == set(asdict(TINY))


@pytest.mark.parametrize("config", CONFIGS + [ModelConfig.preset(name) for name in ("unit", "cpu", "t4", "gaming", "deepseek_v3")])
def test_a_configuration_comes_back(config):
    hf = convert.config_to_hf(config)
    assert convert.config_from_hf(hf) == config
    assert convert.config_from_hf(json.loads(hf.to_json_string())) == config


@pytest.mark.parametrize("change, words", [
    (dict(attention="mha", d_value=8, d_head=8), "attention must be 'mla'"),
    (dict(gate="softmax"), "gate must be 'sigmoid'"),
    (dict(norm_eps=1e-5), "norm_eps must be 1e-6"),
    (dict(n_experts=1, top_k=1), "n_experts must be at least 2"),
    (dict(n_experts=0), "mtp_depth must be 0 without experts"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_deepseek_v3_cannot_express_is_refused(change, words, tmp_path):
    config = replace(TINY, **change)
    with pytest.raises(ValueError, match=words):
        convert.config_to_hf(config)
    with pytest.raises(ValueError, match=words):
        convert.save_hf(Transformer(config), tmp_path / "hf")
    assert not list(tmp_path.iterdir())


YARN = RELEASED["rope_scaling"]


@pytest.mark.parametrize("change, words", [
    (dict(model_type="llama"), "model_type must be 'deepseek_v3'"),
    (dict(hidden_act="gelu"), "hidden_act must be 'silu'"),
    (dict(attention_bias=True), "attention_bias must be False"),
    (dict(attention_dropout=0.1), "attention_dropout must be 0"),
    (dict(rope_interleave=False), "rope_interleave must be True"),
    (dict(scoring_func="softmax"), "scoring_func must be 'sigmoid'"),
    (dict(moe_layer_freq=2), "moe_layer_freq must be 1"),
    (dict(quantization_config={"quant_method": "fp8"}), "quantization_config must be None .* convert the checkpoint to bf16 first"),
    (dict(num_key_value_heads=1), "num_key_value_heads must be num_attention_heads=128, got 1"),
    (dict(rms_norm_eps=1e-5), "norm_eps must be 1e-6"),
    (dict(hidden_size="7168"), "d_model must be of type int, got '7168'"),
    (dict(num_experts_per_tok=200), "top_k must be at most"),
    (dict(rope_scaling={"type": "linear", "factor": 4.0}), "rope_type must be default or yarn, got 'linear'"),
    (dict(rope_scaling=YARN | {"mscale": 0.5}), "mscale must equal mscale_all_dim=1.0"),
    (dict(rope_scaling={"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096}), "mscale must equal mscale_all_dim"),
    (dict(rope_scaling=YARN | {"truncate": False}), "truncate must be True"),
    (dict(rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}), "partial_rotary_factor must be 1"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_we_cannot_express_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        convert.config_from_hf(RELEASED | change)


# Files that are not as they should be -----------------------------------------------------------------------------------------

def test_an_export_is_never_half_replaced(tmp_path, monkeypatch):
    first, second = built(TINY, 1), built(TINY, 2)
    folder = convert.save_hf(first, tmp_path / "hf")
    with pytest.raises(FileExistsError, match="directory must be new or empty, got .*hf; choose another name"):
        convert.save_hf(second, folder)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(convert, "save_file", full)
        with pytest.raises(OSError, match="No space left"):
            convert.save_hf(second, folder, overwrite=True)
    assert same_weights(convert.load_hf(folder), first)
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]
    convert.save_hf(second, folder, overwrite=True)
    assert same_weights(convert.load_hf(folder), second)
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="must hold an earlier export to be replaced"):
        convert.save_hf(built(TINY), tmp_path, overwrite=True)
    with pytest.raises(FileExistsError, match="directory must be a folder, got the file"):
        convert.save_hf(built(TINY), tmp_path / "thesis.tex")
    with pytest.raises(OSError, match="directory must lie where files can be written"):
        convert.save_hf(built(TINY), tmp_path / "thesis.tex" / "hf")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def cut(path: Path):
    path.write_bytes(path.read_bytes()[:-100])


def without(name):
    def change(path):
        save_file({n: t for n, t in load_file(path).items() if n != name}, path)
    return change


def with_tensor(name, tensor):
    def change(path):
        save_file(load_file(path) | {name: tensor}, path)
    return change


def with_field(**values):
    def change(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return change


@pytest.mark.parametrize("file, damage, words", [
    ("config.json", Path.unlink, "config.json is missing"),
    ("config.json", cut, "config.json must be JSON"),
    ("config.json", lambda p: p.write_bytes(b"\xff\xfe\x00"), "config.json must be JSON"),
    ("config.json", lambda p: p.write_text("[1]"), "config.json must be a JSON object, got list"),
    ("config.json", with_field(hidden_size=24), "model.embed_tokens.weight must fit embed.weight of shape"),
    ("config.json", with_field(num_hidden_layers=2, num_nextn_predict_layers=0), "must hold nothing that the model has no place for"),
    ("config.json", with_field(num_hidden_layers=9), "must hold model.layers.4.input_layernorm.weight, which is missing"),
    ("config.json", with_field(model_type="qwen3"), "model_type must be 'deepseek_v3'"),
    ("model.safetensors.index.json", lambda p: p.write_text("{}"), "model.safetensors.index.json must name the files"),
    ("model.safetensors", Path.unlink, "model.safetensors is missing"),
    ("model.safetensors", cut, "model.safetensors must be a whole safetensors file"),
    ("model.safetensors", lambda p: p.write_bytes(b""), "model.safetensors must be a whole safetensors file"),
    ("model.safetensors", without("model.norm.weight"), "must hold model.norm.weight, which is missing"),
    ("model.safetensors", without("model.layers.1.mlp.experts.6.up_proj.weight"), "must hold model.layers.1.mlp.experts.6.up_proj.weight"),
    ("model.safetensors", without("model.layers.3.eh_proj.weight"), "must hold model.layers.3.eh_proj.weight"),
    ("model.safetensors", with_tensor("visual.weight", torch.ones(2)), "no place for, got visual.weight"),
    ("model.safetensors", with_tensor("model.norm.weight", torch.ones(5)), "model.norm.weight must fit final_norm.weight of shape"),
    ("tokenizer.json", lambda p: p.write_text("{}"), "tokenizer.json must be a tokenizer's JSON"),
])
def test_a_damaged_folder_is_refused_by_name(file, damage, words, tmp_path):
    model = built(TINY)
    model.tokenizer = train_tokenizer(["ab " * 50], 257)
    folder = convert.save_hf(model, tmp_path / "hf")
    damage(folder / file)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
        convert.load_hf(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_without_transformers_files_still_work(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    model = built(TINY)
    assert same_weights(convert.load_hf(convert.save_hf(model, tmp_path / "hf")), model)
    with pytest.raises(ImportError, match=r"pip install 'transformers>=5'"):
        convert.to_hf(model)


def test_cross_entropy_is_the_same_number():
    model, tokens = built(TINY), tokens_for(TINY, 2)
    ours = F.cross_entropy(model(tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    close(ours, hugging_face(model)(tokens, labels=tokens).loss)
