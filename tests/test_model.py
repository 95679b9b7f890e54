import math
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.testing import assert_close

from configs import model_configs, odd_config, repeatable
from minimodels.attention import Cache, Place
from minimodels.config import ModelConfig
from minimodels.mla import LatentAttention
from minimodels.model import Transformer
from minimodels.moe import MoE, dispatch_loop

B, T, V = 3, 11, 53

KINDS = {
    "mla": odd_config(),
    "mla_no_query_latent": odd_config(d_query_latent=None),
    "mla_yarn": odd_config(yarn_factor=4.0, yarn_original_len=16),
    "mha": odd_config(attention="mha"),
    "gqa": odd_config(attention="gqa"),
    "mqa": odd_config(attention="mqa"),
    "groups": odd_config(n_experts=12, n_groups=4, top_groups=2),
    "softmax_gate": odd_config(gate="softmax", normalise_weights=False),
    "dense": odd_config(n_experts=0),
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


def model_of(config):
    """A model whose gates have a bias, so that choosing and weighing differ."""
    model = Transformer(config)
    for gate in model.gates:
        gate.bias.normal_(std=0.1)
    return model.eval()


def tokens_of(config, *shape):
    return torch.randint(config.vocab_size, shape or (B, T))


@EVERY_KIND
@pytest.mark.parametrize("changed", [0, 4, 10])
def test_the_future_does_not_leak(kind, changed):
    model, tokens = model_of(KINDS[kind]), tokens_of(KINDS[kind])
    other = tokens.clone()
    other[:, changed:] = torch.randint(V, (B, T - changed))
    other[:, changed] = (tokens[:, changed] + 1) % V
    with torch.no_grad():
        before, after = model(tokens).logits, model(other).logits
    # other experts get other numbers of rows, whose products may round differently
    assert_close(before[:, :changed], after[:, :changed], atol=1e-5, rtol=1e-5)
    assert (before[:, changed] - after[:, changed]).abs().amax() > 1e-3


@EVERY_KIND
def test_texts_in_one_batch_do_not_see_each_other(kind):
    model, tokens = model_of(KINDS[kind]), tokens_of(KINDS[kind])
    with torch.no_grad():
        together = model(tokens).logits
        for b in range(B):
            assert_close(model(tokens[b:b + 1]).logits[0], together[b], atol=1e-5, rtol=1e-4)


def in_chunks(model, tokens, lengths, cache):
    parts = [model(part, cache).logits for part in tokens.split(lengths, dim=1)]
    return torch.cat(parts, dim=1)


@EVERY_KIND
@pytest.mark.parametrize("lengths", [[11], [1] * 11, [4, 7], [5, 1, 1, 3, 1]], ids=str)
def test_reading_in_pieces_with_a_cache_is_reading_at_once(kind, lengths):
    model, tokens = model_of(KINDS[kind]), tokens_of(KINDS[kind])
    with torch.no_grad():
        cache = Cache(model.config, B, T)
        assert_close(in_chunks(model, tokens, lengths, cache), model(tokens).logits, atol=1e-5, rtol=1e-4)
        assert cache.lengths == [T] * B


@repeatable
@given(st.data())
def test_any_model_reads_alike_in_any_pieces(data):
    config = data.draw(model_configs())
    torch.manual_seed(data.draw(st.integers(0, 99)))
    model, tokens = model_of(config), tokens_of(config)
    cuts = sorted(data.draw(st.sets(st.integers(1, T - 1))))
    lengths = [b - a for a, b in zip([0, *cuts], [*cuts, T])]
    with torch.no_grad():
        assert_close(in_chunks(model, tokens, lengths, Cache(config, B, T + 1)), model(tokens).logits, atol=1e-4, rtol=1e-3)


@EVERY_KIND
def test_rows_of_different_length_go_on_together(kind):
    model, tokens = model_of(KINDS[kind]), tokens_of(KINDS[kind])
    start, length = [2, 7, 4], 4
    with torch.no_grad():
        full, cache = model(tokens).logits, Cache(model.config, B, 13)
        padded = tokens.clone()
        for b, n in enumerate(start):
            padded[b, n:] = 0  # what stands behind a row's end must not matter
        model(padded[:, :7], cache)
        cache.rewind(start)
        new = torch.stack([tokens[b, n:n + length] for b, n in enumerate(start)])
        got = torch.cat([model(part, cache).logits for part in new.split([1, 3], dim=1)], dim=1)
    for b, n in enumerate(start):
        assert_close(got[b], full[b, n:n + length], atol=1e-5, rtol=1e-4)
    assert cache.lengths == [6, 11, 8]


@EVERY_KIND
def test_rejected_tokens_can_be_taken_back(kind):
    model, tokens = model_of(KINDS[kind]), tokens_of(KINDS[kind])
    with torch.no_grad():
        cache = Cache(model.config, B, T)
        model(tokens[:, :5], cache)
        model(tokens_of(model.config, B, 3), cache)  # three drafts, all rejected
        cache.rewind([5] * B)
        assert_close(model(tokens[:, 5:], cache).logits, model(tokens).logits[:, 5:], atol=1e-5, rtol=1e-4)


def test_a_cached_pass_naive_or_absorbed_gives_the_same_text():
    model, tokens = model_of(odd_config()), tokens_of(odd_config())
    logits = []
    for absorb in (False, True):
        for m in model.modules():
            if isinstance(m, LatentAttention):
                m.absorbing_is_cheaper = lambda T, S, absorb=absorb: absorb
        with torch.no_grad():
            logits += [model(tokens).logits, in_chunks(model, tokens, [4, 1, 6], Cache(model.config, B, T))]
    for other in logits[1:]:
        assert_close(other, logits[0], atol=1e-5, rtol=1e-4)


def test_both_dispatch_forms_train_the_same_model():
    model, tokens = model_of(odd_config()), tokens_of(odd_config(), 4, 37)
    gradients = []
    for dispatch in (None, dispatch_loop):
        for m in model.modules():
            if isinstance(m, MoE) and dispatch:
                m.dispatch = dispatch
        model.zero_grad()
        out = model(tokens)
        (F.cross_entropy(out.logits.flatten(0, 1), tokens.flatten()) + sum(x.square().mean() for x in out.mtp_logits)).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name in gradients[0]:
        assert_close(gradients[0][name], gradients[1][name], atol=1e-5, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


def test_the_blocks_stand_in_v3s_order():
    model, tokens = model_of(odd_config()), tokens_of(odd_config())
    place = Place.of(model.rope, T, "cpu")
    with torch.no_grad():
        h = model.embed.weight[tokens]
        for i, block in enumerate(model.layers):
            h = h + block.attention(block.attention_norm(h), place)
            h = h + (block.ffn(block.ffn_norm(h)) if i < 1 else block.ffn(block.ffn_norm(h))[0])
        out = model(tokens)
        assert_close(out.hidden[0], model.final_norm(h))
        assert_close(out.logits, model.final_norm(h) @ model.embed.weight.T)


def test_routing_has_a_record_a_layer_and_load_only_those_with_experts():
    out = model_of(odd_config())(tokens_of(odd_config()))
    assert [r is None for r in out.routing] == [True, False, False, False, False]  # a dense layer, two with experts, two MTP modules
    assert [int(n.sum()) for n in out.load] == [B * T * 4, B * T * 4, B * (T - 1) * 4, B * (T - 2) * 4]
    assert len(model_of(odd_config()).gates) == 4


def test_a_tied_head_is_the_embedding_itself():
    tied, untied = Transformer(odd_config(tie_embeddings=True)), Transformer(odd_config(tie_embeddings=False))
    assert tied.head.weight is tied.embed.weight
    assert untied.head.weight is not untied.embed.weight and not untied.head.weight.equal(untied.embed.weight)
    assert sum(p.numel() for p in untied.parameters()) - sum(p.numel() for p in tied.parameters()) == 53 * 23


def test_every_parameter_learns():
    model, tokens = model_of(odd_config(tie_embeddings=False)), tokens_of(odd_config(), 4, 37)
    out = model(tokens)
    (out.logits.square().mean() + sum(x.square().mean() for x in out.mtp_logits)).backward()
    assert all(p.grad is not None and p.grad.ne(0).any() for p in model.parameters())


def test_a_new_model_knows_nothing():
    config = replace(ModelConfig.preset("unit"), vocab_size=4099)
    tokens = torch.randint(4099, (2, 31))
    loss = F.cross_entropy(Transformer(config)(tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    assert abs(loss.item() - math.log(4099)) < 0.1


def test_weights_start_with_the_configured_spread_and_norms_at_one():
    model = Transformer(odd_config(d_model=101, init_std=0.07))
    for name, p in model.named_parameters():
        if "norm" in name:
            assert p.eq(1).all(), name
        elif p.numel() > 1000:
            assert 0.06 < p.std() < 0.08 and abs(p.mean()) < 0.01, name


@repeatable
@given(model_configs())
def test_the_configuration_counts_the_parameters_that_the_model_has(config):
    with torch.device("meta"):
        model = Transformer(config)
    parts = {
        "embedding": model.embed, "head": None if config.tie_embeddings else model.head, "mtp": model.mtp,
        "attention": [b.attention for b in model.layers],
        "norms": [model.final_norm, *(norm for b in model.layers for norm in (b.attention_norm, b.ffn_norm))],
        "dense": [b.ffn for b in model.layers if not isinstance(b.ffn, MoE)],
        "experts": [b.ffn.experts for b in model.layers if isinstance(b.ffn, MoE)],
        "gate": [b.ffn.gate for b in model.layers if isinstance(b.ffn, MoE)],
        "shared": [b.ffn.shared for b in model.layers if isinstance(b.ffn, MoE) and b.ffn.shared],
    }

    def count(part):
        modules = part if isinstance(part, list) else [part] if part is not None else []
        return sum(p.numel() for m in modules for p in m.parameters())

    assert config.parameters == {name: count(part) for name, part in parts.items()}
    assert config.n_params + config.parameters["mtp"] == sum(p.numel() for p in model.parameters())


def test_deepseek_v3_itself_is_built_without_memory_and_counted():
    config = ModelConfig.preset("deepseek_v3")
    with torch.device("meta"):
        model = Transformer(replace(config, max_seq_len=1))
    assert sum(p.numel() for p in model.parameters()) == config.n_params + config.parameters["mtp"]


@repeatable
@given(model_configs())
def test_any_valid_model_runs_and_caches_what_the_configuration_says(config):
    model, tokens = Transformer(config), tokens_of(config)
    out = model(tokens)
    assert out.logits.shape == (B, T, config.vocab_size)
    assert [x.shape for x in out.mtp_logits] == [(B, T - k, config.vocab_size) for k in range(1, config.mtp_depth + 1)]
    assert all(x.isfinite().all() for x in (out.logits, *out.mtp_logits))
    sum(x.sum() for x in (out.logits, *out.mtp_logits)).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert Cache(config, B, 13).n_bytes == config.cached_values_per_token * 4 * B * 13


WHOLE = [f.name for f in fields(ModelConfig) if f.type is int and f.name not in ("max_seq_len", "yarn_original_len")]


@repeatable
@given(st.fixed_dictionaries({name: st.integers(-1, 6) for name in WHOLE}), st.sampled_from(["mla", "mha", "gqa", "mqa"]))
def test_sizes_drawn_blindly_are_refused_by_name_or_run(sizes, attention):
    try:
        config = ModelConfig(**sizes, attention=attention, max_seq_len=7)
    except ValueError as error:
        name, _, rest = str(error).partition(" ")
        assert name in sizes and rest.startswith("must be ") and rest.endswith(f"got {sizes[name]}")
    else:
        assert Transformer(config)(tokens_of(config, 2, 7)).logits.isfinite().all()


@pytest.mark.parametrize("tokens, message", [
    (torch.zeros(5, dtype=torch.int64), r"tokens must have two axes \(B, T\) and at least one token, got shape \(5,\)"),
    (torch.zeros(2, 0, dtype=torch.int64), r"tokens must have two axes \(B, T\) and at least one token, got shape \(2, 0\)"),
    (torch.zeros(2, 5), "tokens must be of type int64, got torch.float32"),
    (torch.zeros(2, 42, dtype=torch.int64), "tokens must be at most max_seq_len=41 long, with what the cache holds, got 42"),
    (torch.full((2, 5), 53), r"tokens must be in \[0, vocab_size=53\), got 53 to 53; was the text encoded with another tokenizer\?"),
    (torch.tensor([[3, -1]]), r"tokens must be in \[0, vocab_size=53\), got -1 to 3"),
])
def test_tokens_that_cannot_be_read_are_refused(tokens, message):
    with pytest.raises(ValueError, match=message):
        Transformer(odd_config())(tokens)


def test_a_cache_that_does_not_fit_is_refused_before_anything_is_written():
    model, tokens = Transformer(odd_config()), tokens_of(odd_config())
    with pytest.raises(ValueError, match=r"cache must be of this model's configuration; make it with Cache\(model.config"):
        model(tokens, Cache(odd_config(d_latent=13), B, T))
    with pytest.raises(ValueError, match="tokens must have a row for each of the cache's 2, got 3"):
        model(tokens, Cache(odd_config(), 2, T))
    with pytest.raises(ValueError, match="max_len of the cache must be at least 11, got 10"):
        model(tokens, Cache(odd_config(), B, 10))
    cache = Cache(odd_config(), B, 100)
    model(tokens, cache)
    with pytest.raises(ValueError, match="max_seq_len=41 long, with what the cache holds, got 42"):
        model(tokens_of(odd_config(), B, 31), cache)
    assert cache.lengths == [T] * B
