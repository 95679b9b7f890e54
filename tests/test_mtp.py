import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from configs import odd_config
from minimodels.attention import Place
from minimodels.model import Block, Transformer
from minimodels.mtp import losses

B, T, V = 2, 11, 53


@pytest.fixture
def model():
    model = Transformer(odd_config())
    for name, p in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(p, 0.5, 1.5)
    return model


@pytest.fixture
def tokens():
    return torch.randint(V, (B, T))


def test_each_depth_is_scored_on_the_token_one_further_ahead(model, tokens):
    out = model(tokens)
    all_logits = [out.logits, *out.mtp_logits]
    for k, loss in enumerate(losses(out, tokens)):
        log_p = all_logits[k].log_softmax(-1)
        terms = [-log_p[b, i, tokens[b, i + k + 1]] for b in range(B) for i in range(T - k - 1)]
        assert_close(loss, sum(terms) / len(terms))


def test_depth_k_is_k_tokens_shorter(model, tokens):
    out = model(tokens)
    assert [tuple(x.shape) for x in (out.logits, *out.mtp_logits)] == [(B, 11, V), (B, 10, V), (B, 9, V)]


def test_a_module_joins_the_state_before_it_with_the_embedding_of_the_token_ahead(model, tokens):
    # eqs. 21-23 for both depths, one position at a time up to the block
    out = model(tokens)
    h = out.hidden[0]
    for k, module in enumerate(model.mtp, start=1):
        joined = torch.stack([torch.stack([
            module.project.weight @ torch.cat([module.h_norm(h[b, i]), module.embed_norm(model.embed.weight[tokens[b, i + k]])])
            for i in range(T - k)]) for b in range(B)])
        h = module.final_norm(module.block(joined, Place.of(model.rope, T - k, "cpu"))[0])
        assert_close(out.mtp_logits[k - 1], F.linear(h, model.embed.weight), atol=1e-4, rtol=1e-4)


def test_a_module_owns_neither_embedding_nor_head(model):
    for module in model.mtp:
        assert not any(V in p.shape for p in module.parameters())
    assert model(torch.zeros(1, 3, dtype=torch.int64)).head is model.head


def test_an_mtp_block_is_of_the_last_layers_kind(model):
    assert [m.block.ffn.__class__.__name__ for m in model.mtp] == ["MoE", "MoE"]
    assert [m.block.ffn.__class__.__name__ for m in Transformer(odd_config(n_experts=0)).mtp] == ["SwiGLU", "SwiGLU"]
    assert all(isinstance(m.block, Block) for m in model.mtp)


@pytest.mark.parametrize("changed", range(T))
def test_depth_k_sees_k_tokens_ahead_and_no_further(model, tokens, changed):
    other = tokens.clone()
    other[:, changed] = (other[:, changed] + 1) % V
    with torch.no_grad():
        before, after = model(tokens), model(other)
    for k, (a, b) in enumerate(zip(before.mtp_logits, after.mtp_logits), start=1):
        first = max(changed - k, 0)  # position i has token i + k
        assert_close(a[:, :first], b[:, :first], atol=1e-5, rtol=1e-5)
        if first < T - k:
            assert (a[:, first] - b[:, first]).abs().amax() > 1e-3


def test_the_losses_of_the_modules_train_the_main_model(model, tokens):
    _, first, second = losses(model(tokens), tokens)
    (first + second).backward()
    assert model.layers[0].attention.w_dkv.weight.grad.ne(0).any()
    assert model.embed.weight.grad.ne(0).any()
    assert model.final_norm.weight.grad.ne(0).any()  # the modules read what the main head reads


@pytest.mark.parametrize("length, n_losses", [(1, 1), (2, 2), (3, 3)])
def test_a_text_shorter_than_a_module_looks_ahead_has_no_loss_there_but_a_finite_one(model, length, n_losses):
    tokens = torch.randint(V, (B, length))
    each = losses(model(tokens), tokens)
    assert len(each) == n_losses and torch.stack(each).isfinite().all()
    assert each[length - 1] == 0  # the last depth that runs has nothing to predict
    sum(each).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_main_model_does_not_depend_on_its_mtp_modules(model, tokens):
    bare = Transformer(odd_config(mtp_depth=0))
    bare.load_state_dict({name: p for name, p in model.state_dict().items() if not name.startswith("mtp")})
    assert_close(bare(tokens).logits, model(tokens).logits, atol=0, rtol=0)
    assert bare(tokens).mtp_logits == []
