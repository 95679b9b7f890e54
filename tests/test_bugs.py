"""Planted bugs: each does the damage it is there for, and no other."""

import pytest
import torch
from torch import nn

from minimodels.attention import Cache
from minimodels.bugs import plant
from minimodels.bugs.mla import BUGS, CachedBeforeNorm, HalvesForPairs, Unscaled
from minimodels.mla import LatentAttention
from minimodels.model import Transformer
from configs import odd_config

B, T = 2, 7


def pair(bug):
    """The same model right and spoilt, with weights large enough that a mistake shows; and tokens."""
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        model = Transformer(odd_config(mtp_depth=0)).eval()
        for layer in model.layers:
            for parameter in layer.attention.parameters():
                nn.init.normal_(parameter, std=0.4)
        models.append(model)
    plant(models[1], bug)
    return *models, torch.randint(0, models[0].config.vocab_size, (B, T))


def read_cached(model, tokens):
    cache = Cache(model.config, B, T)
    return torch.cat([model(tokens[:, t:t + 1], cache).logits for t in range(T)], dim=1)


@pytest.mark.parametrize("bug", BUGS.values())
def test_a_bug_changes_no_weight_and_can_be_trained(bug):
    right, spoilt, tokens = pair(bug)
    assert all(torch.equal(a, b) for a, b in zip(right.state_dict().values(), spoilt.state_dict().values()))
    spoilt(tokens).logits.sum().backward()
    assert spoilt.layers[0].attention.w_dkv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("bug", [HalvesForPairs, Unscaled])
def test_two_bugs_change_what_is_computed_but_cache_and_full_still_agree(bug):
    right, spoilt, tokens = pair(bug)
    assert not torch.allclose(right(tokens).logits, spoilt(tokens).logits, atol=1e-2)
    assert torch.allclose(spoilt(tokens).logits, read_cached(spoilt, tokens), atol=1e-3)


def test_caching_before_the_norm_shows_only_behind_a_cache():
    right, spoilt, tokens = pair(CachedBeforeNorm)
    assert torch.equal(right(tokens).logits, spoilt(tokens).logits)
    assert torch.allclose(right(tokens).logits, read_cached(right, tokens), atol=1e-3)
    assert not torch.allclose(right(tokens).logits, read_cached(spoilt, tokens), atol=1e-2)


def test_without_scale_is_a_layer_whose_scores_are_larger_by_the_root_of_its_width():
    right, spoilt, tokens = pair(Unscaled)
    for layer in right.layers:
        layer.attention.scale *= (layer.attention.d_head + layer.attention.d_rope) ** 0.5
    assert torch.allclose(right(tokens).logits, spoilt(tokens).logits, atol=1e-4)


def test_halves_and_pairs_are_the_same_where_a_key_has_one_pair():
    torch.manual_seed(0)
    config = odd_config(d_rope=2, mtp_depth=0)
    model, tokens = Transformer(config), torch.randint(0, config.vocab_size, (B, T))
    before = model(tokens).logits
    assert torch.allclose(before, plant(model, HalvesForPairs)(tokens).logits)


def test_there_must_be_something_to_spoil():
    with pytest.raises(ValueError, match="module must hold a LatentAttention to plant Unscaled in, got a Linear"):
        plant(nn.Linear(2, 3), Unscaled)
    assert all(issubclass(bug, LatentAttention) for bug in BUGS.values())
