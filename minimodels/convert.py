"""To and from Hugging Face's `DeepseekV3ForCausalLM`: configuration, weights and tokenizer, MTP layers in the released layout.

Only `config_to_hf` and `to_hf` need the package transformers; files are written and read without it.
Left out: FP8 checkpoints with stored scales, and attention forms that DeepSeek-V3 does not have.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from minimodels.config import ModelConfig
from minimodels.corpus import END
from minimodels.layers import yarn_mscale
from minimodels.model import Transformer

# ours -> theirs, where a field only changes its name
FIELDS = {
    "vocab_size": "vocab_size", "d_model": "hidden_size", "n_layers": "num_hidden_layers", "max_seq_len": "max_position_embeddings",
    "n_heads": "num_attention_heads", "d_head": "qk_nope_head_dim", "d_rope": "qk_rope_head_dim", "d_value": "v_head_dim",
    "d_latent": "kv_lora_rank", "d_query_latent": "q_lora_rank", "n_experts": "n_routed_experts", "n_shared": "n_shared_experts",
    "top_k": "num_experts_per_tok", "d_expert": "moe_intermediate_size", "d_ff": "intermediate_size", "n_groups": "n_group",
    "top_groups": "topk_group", "n_dense_layers": "first_k_dense_replace", "normalise_weights": "norm_topk_prob",
    "routed_scale": "routed_scaling_factor", "mtp_depth": "num_nextn_predict_layers", "tie_embeddings": "tie_word_embeddings",
    "norm_eps": "rms_norm_eps", "init_std": "initializer_range",
}

# what a DeepseekV3 configuration means where it is silent
THEIR_DEFAULTS = {
    "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61,
    "num_attention_heads": 128, "n_shared_experts": 1, "n_routed_experts": 256, "routed_scaling_factor": 2.5, "kv_lora_rank": 512,
    "q_lora_rank": 1536, "qk_rope_head_dim": 64, "v_head_dim": 128, "qk_nope_head_dim": 128, "n_group": 8, "topk_group": 4,
    "num_experts_per_tok": 8, "first_k_dense_replace": 3, "norm_topk_prob": True, "max_position_embeddings": 4096,
    "initializer_range": 0.02, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "num_nextn_predict_layers": 1,
}

# what theirs can say and ours cannot: field -> (the values that mean what we do, what we would need)
ONLY = {
    "model_type": (("deepseek_v3",), "a DeepSeek-V3 model"),
    "hidden_act": (("silu", "swish", None), "SwiGLU"),
    "attention_bias": ((False, None), "projections without bias"),
    "attention_dropout": ((0, None), "attention without dropout"),
    "rope_interleave": ((True, None), "rotary pairs side by side"),
    "scoring_func": (("sigmoid", None), "the gate of V3"),
    "topk_method": (("noaux_tc", None), "the gate of V3"),
    "moe_layer_freq": ((1, None), "experts in every layer after the dense ones"),
    "mtp_hidden_states_first": ((False, None), "the released order in eh_proj"),
    "quantization_config": ((None,), "weights without stored scales: convert the checkpoint to bf16 first"),
}

# ours -> theirs, within a layer; several names lie in one of our tensors, one below the other
LAYER = {
    "attention_norm.weight": ["input_layernorm.weight"],
    "attention.w_q.weight": ["self_attn.q_proj.weight"],
    "attention.w_dq.weight": ["self_attn.q_a_proj.weight"],
    "attention.q_norm.weight": ["self_attn.q_a_layernorm.weight"],
    "attention.w_uq.weight": ["self_attn.q_b_proj.weight"],
    "attention.w_dkv.weight": ["self_attn.kv_a_proj_with_mqa.weight"],
    "attention.kv_norm.weight": ["self_attn.kv_a_layernorm.weight"],
    "attention.w_ukv.weight": ["self_attn.kv_b_proj.weight"],
    "attention.w_o.weight": ["self_attn.o_proj.weight"],
    "ffn_norm.weight": ["post_attention_layernorm.weight"],
    "ffn.w_gate_up.weight": ["mlp.gate_proj.weight", "mlp.up_proj.weight"],
    "ffn.w_down.weight": ["mlp.down_proj.weight"],
    "ffn.shared.w_gate_up.weight": ["mlp.shared_experts.gate_proj.weight", "mlp.shared_experts.up_proj.weight"],
    "ffn.shared.w_down.weight": ["mlp.shared_experts.down_proj.weight"],
    "ffn.gate.weight": ["mlp.gate.weight"],
    "ffn.gate.bias": ["mlp.gate.e_score_correction_bias"],
    "ffn.experts.w_gate_up.weight": ["mlp.experts.{e}.gate_proj.weight", "mlp.experts.{e}.up_proj.weight"],
    "ffn.experts.w_down.weight": ["mlp.experts.{e}.down_proj.weight"],
}
FUSED = {"ffn.experts.w_gate_up.weight": "mlp.experts.gate_up_proj", "ffn.experts.w_down.weight": "mlp.experts.down_proj"}
MTP = {"h_norm.weight": ["hnorm.weight"], "embed_norm.weight": ["enorm.weight"], "project.weight": ["eh_proj.weight"],
       "final_norm.weight": ["shared_head.norm.weight"]}
TOP = {"embed.weight": ["model.embed_tokens.weight"], "final_norm.weight": ["model.norm.weight"], "head.weight": ["lm_head.weight"]}


def config_to_hf(config: ModelConfig):
    """The `DeepseekV3Config` that means the same model. Raises ValueError for what DeepSeek-V3 cannot express."""
    return _transformers().DeepseekV3Config(**_to_their_fields(config))


def config_from_hf(hf_config) -> ModelConfig:
    """The ModelConfig of a `DeepseekV3Config`, or of the dictionary in its config.json, old form or new.

    Raises ValueError, naming field, rule and value, for what we cannot express.
    """
    theirs = dict(hf_config if isinstance(hf_config, dict) else hf_config.to_dict())
    if "num_mtp_layers" in theirs:  # the name it has inside transformers
        theirs.setdefault("num_nextn_predict_layers", theirs["num_mtp_layers"])
    for name, (allowed, reason) in ONLY.items():
        if name in theirs and theirs[name] not in allowed:
            raise ValueError(f"{name} must be {allowed[0]!r} ({reason}), got {theirs[name]!r}")
    values = {ours: theirs.get(name, THEIR_DEFAULTS[name]) for ours, name in FIELDS.items()}
    for name in ("n_groups", "top_groups"):
        values[name] = values[name] or 1
    if theirs.get("num_key_value_heads") not in (None, values["n_heads"]):
        raise ValueError(f"num_key_value_heads must be num_attention_heads={values['n_heads']}, got {theirs['num_key_value_heads']}")
    config = ModelConfig(attention="mla", gate="sigmoid", **values, **_from_their_rope(theirs))
    _check_expressible(config)
    return config


def _to_their_fields(config: ModelConfig) -> dict:
    """The plain values of a config.json."""
    _check_expressible(config)
    theirs = {name: getattr(config, ours) for ours, name in FIELDS.items()}
    if not config.is_moe:
        theirs["first_k_dense_replace"] = config.n_layers
    rope = {"rope_type": "default", "rope_theta": config.rope_base}
    if config.yarn_factor != 1:
        rope |= {"rope_type": "yarn", "factor": config.yarn_factor, "original_max_position_embeddings": config.yarn_original_len,
                 "beta_fast": config.yarn_beta_fast, "beta_slow": config.yarn_beta_slow,
                 # equal, so that cos and sin keep length 1 and the softmax scale alone carries YaRN's temperature
                 "mscale": config.yarn_mscale, "mscale_all_dim": config.yarn_mscale, "attention_factor": 1.0}
    return theirs | {"num_key_value_heads": config.n_heads, "rope_parameters": rope, "rope_interleave": True, "hidden_act": "silu",
                     "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}


def _from_their_rope(theirs: dict) -> dict:
    rope = dict(theirs.get("rope_parameters") or theirs.get("rope_scaling") or {})
    kind = rope.get("rope_type", rope.get("type", "default"))
    base = {"rope_base": float(rope.get("rope_theta", theirs.get("rope_theta", 10_000.0)))}
    if rope.get("partial_rotary_factor", 1.0) != 1:
        raise ValueError(f"partial_rotary_factor must be 1, because MLA rotates a part of its own, got {rope['partial_rotary_factor']}")
    if kind == "default":
        return base
    if kind != "yarn":
        raise ValueError(f"rope_type must be default or yarn, got {kind!r}")
    if not rope.get("truncate", True):
        raise ValueError("truncate must be True, because our YaRN rounds its range as DeepSeek-V3 does, got False")
    original = rope.get("original_max_position_embeddings") or theirs["max_position_embeddings"]
    factor = float(rope.get("factor") or theirs["max_position_embeddings"] / original)
    m, m_all = rope.get("mscale"), rope.get("mscale_all_dim")
    length = rope.get("attention_factor")
    if length is None:
        length = yarn_mscale(factor, m) / yarn_mscale(factor, m_all) if m and m_all else yarn_mscale(factor, 1.0)
    if abs(length - 1) > 1e-9:
        raise ValueError(f"mscale must equal mscale_all_dim={m_all}, because our rotary turns have length 1, got {m}")
    return base | {"yarn_factor": factor, "yarn_original_len": original, "yarn_mscale": float(m_all or 0),
                   "yarn_beta_fast": float(rope.get("beta_fast") or 32), "yarn_beta_slow": float(rope.get("beta_slow") or 1)}


def _check_expressible(config: ModelConfig):
    """Raise ValueError if DeepSeek-V3, as Transformers has it, cannot be this model."""
    def require(is_met, name, rule):
        if not is_met:
            raise ValueError(f"{name} must be {rule}, got {getattr(config, name)!r}")

    require(config.attention == "mla", "attention", "'mla' to be a DeepSeek-V3 model")
    # its norms of the latents have this eps, whatever rms_norm_eps says
    require(config.norm_eps == 1e-6, "norm_eps", "1e-6, because DeepSeek-V3 norms its latents with that")
    if config.is_moe:
        require(config.gate == "sigmoid", "gate", "'sigmoid' to be a DeepSeek-V3 model")
        require(config.n_experts // config.n_groups >= 2, "n_experts", "at least 2, because a group is scored by its two best")
    else:
        require(config.mtp_depth == 0, "mtp_depth", "0 without experts, because DeepSeek-V3's MTP layers have them")


def _layout(model: Transformer, *, fused: bool = False) -> Iterator[tuple[str, list[str]]]:
    """Each of our tensors with the names of theirs that lie in it, one below the other.

    fused: as modules of Transformers hold experts, (E, out, in) under one name; else as released, a tensor an expert.
    """
    n_layers, n_experts = model.config.n_layers, model.config.n_experts
    for name in model.state_dict():
        kind, _, rest = name.partition(".")
        if kind not in ("layers", "mtp"):
            yield name, TOP[name]
            continue
        index, _, rest = rest.partition(".")
        layer = int(index) + (n_layers if kind == "mtp" else 0)
        rest = rest.removeprefix("block.")
        theirs = MTP[rest] if rest in MTP else LAYER[rest]
        if rest in FUSED:
            theirs = [FUSED[rest]] if fused else [t.format(e=e) for e in range(n_experts) for t in theirs]
        yield name, [f"model.layers.{layer}.{t}" for t in theirs]


def _swap_halves(name: str, tensor: Tensor) -> Tensor:
    # our M_k reads [h ; embedding], the released eh_proj [embedding ; h]; swapping twice changes nothing
    return tensor.roll(tensor.shape[1] // 2, 1) if name.endswith(".project.weight") else tensor


def _to_their_tensors(model: Transformer, *, fused: bool = False) -> dict[str, Tensor]:
    ours, theirs = model.state_dict(), {}
    for name, parts in _layout(model, fused=fused):
        tensor = _swap_halves(name, ours[name])
        rows = tensor.flatten(0, -2) if len(parts) > 1 else tensor
        theirs |= zip(parts, rows.chunk(len(parts)), strict=True)
    if not model.config.n_shared:
        theirs |= _no_shared_experts(model)
    return theirs


def _no_shared_experts(model: Transformer) -> dict[str, Tensor]:
    """Theirs always has shared experts; width 0 makes them add nothing."""
    weight, D = model.embed.weight, model.config.d_model
    layers = [parts[0].removesuffix("gate.weight") for name, parts in _layout(model) if name.endswith("ffn.gate.weight")]
    return {f"{layer}shared_experts.{name}_proj.weight": weight.new_empty((D, 0) if name == "down" else (0, D))
            for layer in layers for name in ("gate", "up", "down")}


@torch.no_grad()
def _load(model: Transformer, theirs: dict[str, Tensor]) -> Transformer:
    """Copy their tensors into model, experts fused or one by one. Raises ValueError for one missing, left over or of another shape."""
    theirs, ours = {name: t for name, t in theirs.items() if t.numel()}, model.state_dict()
    if model.config.tie_embeddings:
        theirs.setdefault("lm_head.weight", theirs.get("model.embed_tokens.weight"))
    single = dict(_layout(model))
    for name, parts in _layout(model, fused=True):
        parts = parts if parts[0] in theirs else single[name]
        absent = [part for part in parts if theirs.get(part) is None]
        if absent:
            raise ValueError(f"the weights must hold {absent[0]}, which is missing; is config.json that of another model?")
        tensors = [theirs.pop(part) for part in parts]
        whole = tensors[0] if len(tensors) == 1 else torch.cat(tensors).view(-1, *tensors[0].shape[1:])
        if whole.numel() != ours[name].numel() or whole.shape[-1] != ours[name].shape[-1]:
            raise ValueError(f"{parts[0]} must fit {name} of shape {tuple(ours[name].shape)}, got shape {tuple(tensors[0].shape)}")
        ours[name].copy_(_swap_halves(name, whole.view_as(ours[name])))
    shared = re.compile(rf"model\.layers\.({'|'.join(str(model.config.n_layers + k) for k in range(model.config.mtp_depth)) or 'none'})"
                        r"\.(embed_tokens|shared_head\.head)\.weight|.*rotary_emb\.inv_freq")
    extra = [name for name in theirs if not shared.fullmatch(name)]
    if extra:
        raise ValueError(f"the weights must hold nothing that the model has no place for, got {extra[0]}; "
                         "is config.json that of another model?")
    return model


def _empty(config: ModelConfig, dtype: torch.dtype) -> Transformer:
    model = Transformer(config).to(dtype)
    for gate in model.gates:
        gate.bias = gate.bias.float()  # as theirs: steps of 0.001 vanish in bf16
    return model


def from_hf(hf_model) -> Transformer:
    """Our model with the weights of a `DeepseekV3ForCausalLM`, same type and device. Raises ValueError for what we cannot express.

    A loaded model of Transformers holds no MTP layers, so the result has none: `load_hf` reads them from the files.
    """
    config = replace(config_from_hf(hf_model.config), mtp_depth=0)
    weight = hf_model.lm_head.weight
    return _load(_empty(config, weight.dtype).to(weight.device), hf_model.state_dict())


def to_hf(model: Transformer):
    """A `DeepseekV3ForCausalLM` with our weights, same type and device; its logits are ours.

    Transformers keeps MTP layers in files alone, so they stay behind: `save_hf` writes them.
    Raises ValueError for what DeepSeek-V3 cannot express, ImportError without transformers.
    """
    weight = model.embed.weight
    config = config_to_hf(replace(model.config, mtp_depth=0))
    config.dtype = weight.dtype
    hf = _transformers().DeepseekV3ForCausalLM(config).to(device=weight.device, dtype=weight.dtype)
    for name, buffer in hf.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.data = buffer.data.float()
    main = {name: t for name, t in _to_their_tensors(model, fused=True).items() if not _is_mtp(name, model.config)}
    hf.load_state_dict(main, strict=True)
    return hf


def _is_mtp(name: str, config: ModelConfig) -> bool:
    return name.startswith("model.layers.") and int(name.split(".")[2]) >= config.n_layers


def save_hf(model: Transformer, directory, *, overwrite: bool = False) -> Path:
    """Write config.json, model.safetensors and, if the model has a tokenizer, its files; returns the directory.

    `AutoModelForCausalLM` and `AutoTokenizer` load it. Experts and MTP layers are laid out as DeepSeek released them: layer
    n_layers + k is MTP module k, with copies of embedding and head. Everything is written beside the directory and renamed at the end.
    overwrite: replace an earlier export. Raises FileExistsError if something is there that may not be replaced, OSError if it
    cannot be written, ValueError for what DeepSeek-V3 cannot express.
    """
    config, directory = model.config, Path(directory)
    fields = {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3",
              "dtype": str(model.embed.weight.dtype).removeprefix("torch."), **_to_their_fields(config)}
    tensors = _to_their_tensors(model)
    if config.tie_embeddings:
        del tensors["lm_head.weight"]
    for k in range(config.mtp_depth):
        layer = f"model.layers.{config.n_layers + k}"
        tensors |= {f"{layer}.embed_tokens.weight": model.embed.weight, f"{layer}.shared_head.head.weight": model.head.weight}
    with _new_directory(directory, overwrite) as folder:
        _write_json(folder / "config.json", fields)
        # a copy each, because a file may not hold one tensor under two names
        save_file({name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()},
                  folder / "model.safetensors", metadata={"format": "pt"})
        _write_json(folder / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 0})
        if model.tokenizer is not None:
            model.tokenizer.save(str(folder / "tokenizer.json"))
            _write_json(folder / "tokenizer_config.json", {
                "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END, "pad_token": END,
                "clean_up_tokenization_spaces": False, "model_max_length": config.max_seq_len})
    return directory


@contextmanager
def _new_directory(directory: Path, overwrite: bool):
    """A temporary folder that becomes directory if the block ends well, and is removed if it does not."""
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(f"directory must be a folder, got the file {directory}; choose another name")
    if directory.is_dir() and any(directory.iterdir()):
        if not overwrite:
            raise FileExistsError(f"directory must be new or empty, got {directory}; choose another name, or pass overwrite=True")
        if not (directory / "config.json").is_file():
            raise FileExistsError(f"directory must hold an earlier export to be replaced, got {directory} without a config.json")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    except OSError as error:
        raise OSError(f"directory must lie where files can be written, got {directory} ({error.strerror}); choose another place") from error
    try:
        try:
            yield folder
        except SafetensorError as error:  # what safetensors makes of a full disk
            raise OSError(f"directory must lie where there is room, got {directory} ({error})") from error
        folder.chmod(0o777 & ~_umask())
        _put_in_place(folder, directory)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(folder: Path, directory: Path):
    if not directory.exists():
        os.rename(folder, directory)
        return
    old = folder.with_name(folder.name + "-old")
    os.rename(directory, old)
    os.rename(folder, directory)
    shutil.rmtree(old)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_json(path: Path, values: dict):
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def load_hf(directory) -> Transformer:
    """Our model from a folder with a DeepSeek-V3 config.json and safetensors, in one file or several; needs no transformers.

    Experts may be fused or one by one. The tokenizer comes along if there is a tokenizer.json. MTP layers are read where
    the files hold them: Transformers drops them when it saves. Raises FileNotFoundError or ValueError, naming the file.
    """
    directory = Path(directory)
    fields = _read_json(directory / "config.json")
    tensors = _read_tensors(directory)
    try:
        config = config_from_hf({"model_type": None} | fields)
        if not any(_is_mtp(name, config) for name in tensors):
            config = replace(config, mtp_depth=0)
        dtype = tensors["model.embed_tokens.weight"].dtype if "model.embed_tokens.weight" in tensors else torch.float32
        model = _load(_empty(config, dtype), tensors)
        if (directory / "tokenizer.json").is_file():
            model.tokenizer = _read_tokenizer(directory / "tokenizer.json")
    except ValueError as error:
        raise ValueError(f"{directory}: {error}") from error
    return model


def _read_json(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; the folder must hold a DeepSeek-V3 model as Transformers saves it")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # neither UTF-8 nor JSON
        raise ValueError(f"{path} must be JSON ({error}); export or download it again") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must be a JSON object, got {type(values).__name__}; export or download it again")
    return values


def _read_tensors(directory: Path) -> dict[str, Tensor]:
    index = directory / "model.safetensors.index.json"
    files, tensors = {"model.safetensors"}, {}
    if index.is_file():
        weight_map = _read_json(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise ValueError(f"{index} must name the files of the weights in a weight_map; export or download it again")
        files = set(weight_map.values())
    for path in (directory / name for name in sorted(files)):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; the folder must hold the weights as safetensors")
        try:
            with safe_open(path, framework="pt") as file:
                tensors |= {name: file.get_tensor(name) for name in file.keys()}
        except SafetensorError as error:
            raise ValueError(f"{path} must be a whole safetensors file ({error}); export or download it again") from error
    return tensors


def _read_tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ValueError(f"{path.name} must be a tokenizer's JSON ({error}); export or download it again") from error


def _transformers():
    try:
        import transformers
    except ImportError as error:
        raise ImportError("transformers must be installed to build its models; run: pip install 'transformers>=5'") from error
    return transformers
