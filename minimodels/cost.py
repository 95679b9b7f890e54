"""What a model costs: FLOPs by part, exactly as torch's own counter finds them, then bytes, GPU-hours, days and dollars."""

from dataclasses import replace

import torch
from torch.utils import flop_counter

from minimodels.config import ModelConfig, TrainConfig

PARTS = ("attention", "scores", "dense", "experts", "shared", "gate", "head", "mtp")
PETAFLOP_S_DAY = 1e15 * 86_400    # FLOP of a machine that does 10^15 a second, in a day


# ---- FLOPs

def forward_flops(config: ModelConfig, *, seq_len: int, batch_size: int = 1, causal: bool = False) -> dict[str, int]:
    """FLOPs of one forward pass over batch_size sequences, logits of every depth included, by part.

    A multiplication and its addition are two; norms, softmax, rotations and all else that is no matrix product count as none.
    attention: its projections. scores: queries times keys, and weights times values. mtp: its modules, with their heads.
    causal: False counts the scores as they are computed here, and as `FlopCounterMode` counts a fused kernel: every query meets
    every source, and MLA's values are padded to the width of its keys. True counts what is needed: for each query the sources
    that it may see, and no padding.
    """
    flops = dict.fromkeys(PARTS, 0)
    for layer in range(config.n_layers):
        for part, n in _block(config, layer, seq_len, causal).items():
            flops[part] += n
    flops["head"] = 2 * seq_len * config.vocab_size * config.d_model
    flops["mtp"] = sum(sum(_mtp(config, T, causal).values()) + 2 * T * config.vocab_size * config.d_model
                       for T in _mtp_lengths(config, seq_len))
    return {part: batch_size * n for part, n in flops.items()}


def training_flops(config: ModelConfig, *, seq_len: int, batch_size: int = 1, causal: bool = False) -> dict[str, int]:
    """FLOPs of forward and backward of one training step, by part; the optimizer's are in `muon_flops`.

    Backward costs twice the forward: a product for the input's gradient and one for the weight's. With causal=False scores cost
    2.5 times, where a fused kernel computes them: it kept no weights, so it multiplies queries and keys once more. The head sees
    one token fewer than there are, since the last has no target. Nothing else is recomputed; the rows that pad an expert's
    tokens, for speed, are not counted.
    """
    flops = {part: 3 * n for part, n in forward_flops(config, seq_len=seq_len, batch_size=batch_size, causal=causal).items()}
    to_head = 3 * 2 * batch_size * config.vocab_size * config.d_model
    lengths = _mtp_lengths(config, seq_len)
    flops["head"] -= to_head
    flops["mtp"] -= to_head * len(lengths)
    if not causal:
        flops["scores"] += batch_size * config.n_layers * _recomputed(config, seq_len)
        flops["mtp"] += batch_size * sum(_recomputed(config, T) for T in lengths)
    return flops


def flops_per_token(config: ModelConfig, *, seq_len: int, training: bool = True, causal: bool = True, mtp: bool = False) -> float:
    """FLOPs that one token costs, as papers count them: 250 billion to train DeepSeek-V3, in sequences of 4,096.

    The mean over a sequence of seq_len tokens, each of which counts as predicted. training: three times a forward pass, or one.
    causal: as in `forward_flops`. mtp: whether the modules of multi-token prediction count; in that figure they do not.
    Source: Insights into DeepSeek-V3 (ISCA 2025), Table 2, whose count this convention reproduces for V2 and V3.
    """
    config = config if mtp else replace(config, mtp_depth=0)
    return (3 if training else 1) * sum(forward_flops(config, seq_len=seq_len, causal=causal).values()) / seq_len


def muon_flops(config: ModelConfig, *, iterations: int = 5) -> int:
    """FLOPs of the matrix products of one step of Muon: every matrix orthogonalised by itself. They do not grow with the batch.

    For r rows and c columns, r <= c, an iteration is three products: (r, c) by (c, r), (r, r) by (r, r), (r, r) by (r, c).
    """
    def each(matrices):
        return sum(n * iterations * 2 * (2 * min(r, c) ** 2 * max(r, c) + min(r, c) ** 3) for n, r, c in matrices)

    layers = [each(_matrices(config, layer)) for layer in range(config.n_layers)]
    mtp = each(_matrices(config, config.n_layers)) + each([(1, config.d_model, 2 * config.d_model)])
    return sum(layers) + config.mtp_depth * mtp


def counter() -> flop_counter.FlopCounterMode:
    """`with counter() as count: …`, then `count.get_total_flops()`: torch's counter, and the CPU's kernels that it leaves out."""
    def linear(x, weight, *_, out_shape=None, **__):
        return 2 * torch.Size(x).numel() * weight[0]

    def attend(q, k, v, *_, out_shape=None, **__):
        return flop_counter.sdpa_flop_count(q, k, v)

    def attend_back(dout, q, k, v, *_, out_shape=None, **__):
        return flop_counter.sdpa_backward_flop_count(dout, q, k, v)

    aten = torch.ops.aten
    mapping = {aten._scaled_dot_product_flash_attention_for_cpu: attend,
               aten._scaled_dot_product_flash_attention_for_cpu_backward: attend_back}
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        mapping[torch.ops.mkldnn._linear_pointwise] = linear
    return flop_counter.FlopCounterMode(display=False, custom_mapping=mapping)


def _block(config, layer, T, causal):
    """FLOPs of one layer over one sequence of T tokens, by part; a layer behind the last is that of an MTP module."""
    D, weights = config.d_model, dict.fromkeys(PARTS, 0)
    weights["attention"] = _attention_weights(config)
    if config.is_moe_layer(layer):
        expert = 3 * D * config.d_expert
        weights |= {"experts": config.top_k * expert, "shared": config.n_shared * expert, "gate": config.n_experts * D}
    else:
        weights["dense"] = 3 * D * config.d_ff
    flops = {part: 2 * T * n for part, n in weights.items()}
    n_pairs = T * (T + 1) // 2 if causal else T * T
    flops["scores"] = 2 * n_pairs * config.n_heads * sum(_widths(config, causal))
    return flops


def _mtp(config, T, causal):
    return _block(config, config.n_layers, T, causal) | {"project": 2 * T * 2 * config.d_model**2}


def _mtp_lengths(config, seq_len):
    """Tokens that each MTP module reads: depth k reads k fewer, and the ones behind the text's end do not run."""
    return [seq_len - k for k in range(1, config.mtp_depth + 1) if seq_len > k]


def _attention_weights(config):
    """Weights of one layer's projections that a token meets. Absorbing moves two of MLA's; each still meets every token once."""
    D, H = config.d_model, config.n_heads
    if config.attention != "mla":
        return D * config.d_head * (2 * H + 2 * config.kv_heads)
    to_query, C, latent = H * (config.d_head + config.d_rope), config.d_latent, config.d_query_latent
    query = D * to_query if latent is None else latent * (D + to_query)
    return query + D * (C + config.d_rope) + C * H * (config.d_head + config.d_value) + H * config.d_value * D


def _widths(config, causal):
    """Numbers that a query meets of a key, and of a value, in one head."""
    if config.attention != "mla":
        return config.d_head, config.d_head
    if not causal and _is_absorbed(config):
        return config.d_latent + config.d_rope, config.d_latent
    key = config.d_head + config.d_rope
    return key, config.d_value if causal else max(key, config.d_value)


def _is_absorbed(config):
    """Whether a whole text is read on MLA's absorbed path: where the latent is narrower than half a key and value."""
    return config.attention == "mla" and 2 * config.d_latent < config.d_head + config.d_value


def _recomputed(config, T):
    """FLOPs of one layer's scores that a fused kernel computes again in the backward pass; the plain path kept them."""
    key, value = _widths(config, causal=False)
    return 0 if _is_absorbed(config) or value != key else 2 * T * T * config.n_heads * key


def _matrices(config, layer):
    """The matrices of one layer that Muon moves, as (how many, rows, columns)."""
    D, H = config.d_model, config.n_heads
    if config.attention != "mla":
        yield from ((2, H * config.d_head, D), (2, config.kv_heads * config.d_head, D))
    else:
        to_query, C, latent = H * (config.d_head + config.d_rope), config.d_latent, config.d_query_latent
        yield from [(1, to_query, D)] if latent is None else [(1, latent, D), (1, to_query, latent)]
        yield from ((1, C + config.d_rope, D), (1, H * (config.d_head + config.d_value), C), (1, D, H * config.d_value))
    if config.is_moe_layer(layer):
        yield from ((3 * config.n_experts, config.d_expert, D), (3 if config.n_shared else 0, config.n_shared * config.d_expert, D))
    else:
        yield (3, config.d_ff, D)


# ---- bytes

def training_bytes(config: ModelConfig, training: TrainConfig) -> dict[str, int]:
    """Bytes that weights, gradients and the optimizer's state fill while this package trains a model; activations are left out.

    All are float32. AdamW keeps two numbers for each parameter, Muon one for each of its matrices. MTP modules are included.
    """
    n = config.n_params + config.parameters["mtp"]
    of_muon = 0
    if training.optimizer == "muon":
        each = [sum(k * r * c for k, r, c in _matrices(config, layer)) for layer in range(config.n_layers + 1)]
        of_muon = sum(each[:-1]) + config.mtp_depth * (each[-1] + 2 * config.d_model**2)
    return {"weights": 4 * n, "gradients": 4 * n, "optimizer": 4 * (2 * n - of_muon)}


def cache_bytes(config: ModelConfig, n_tokens: int, *, bits: int = 16) -> int:
    """Bytes of the KV cache of n_tokens tokens, rounded up to whole ones."""
    return -(-config.cached_values_per_token * n_tokens * bits // 8)


# ---- hours, days, dollars

def gpu_hours(flops: float, *, peak_flops: float, utilisation: float) -> float:
    """Hours of one GPU for so many FLOPs. peak_flops: what it could do in a second. utilisation: the share of that it does."""
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation must be above 0 and at most 1, got {utilisation}")
    return flops / (peak_flops * utilisation) / 3600


def utilisation(flops: float, *, gpu_hours: float, peak_flops: float) -> float:
    """The share of the peak that a run reached, which turned gpu_hours into flops; `gpu_hours` read the other way."""
    return flops / (gpu_hours * 3600 * peak_flops)


def days(gpu_hours: float, *, n_gpus: int) -> float:
    """Days on so many GPUs that never stop."""
    return gpu_hours / n_gpus / 24


def dollars(gpu_hours: float, *, price_usd_per_hour: float) -> float:
    """The rent of so many GPU-hours, which is not what a company pays that owns the machines, nor what else it pays."""
    return gpu_hours * price_usd_per_hour


def petaflop_s_days(flops: float) -> float:
    """FLOPs in the unit of older papers: 3,640 of them for GPT-3 (its appendix D)."""
    return flops / PETAFLOP_S_DAY
