"""Configurations for tests: one whose sizes are all different, and a hypothesis strategy over small valid ones."""

from hypothesis import settings
from hypothesis import strategies as st

from minimodels.config import ModelConfig

# the same examples on every machine and in every run
repeatable = settings(derandomize=True, deadline=None, max_examples=25, database=None)


def odd_config(**changes) -> ModelConfig:
    """V=53 D=23 H=3 Dn=5 Dr=6 Dv=11 C=17 E=13 K=4: sizes that cannot be mistaken for each other. Weights large enough to matter."""
    sizes = dict(vocab_size=53, d_model=23, n_layers=3, max_seq_len=41, n_heads=3, d_head=5, d_rope=6, d_value=11, d_latent=17,
                 d_query_latent=19, n_experts=13, n_shared=2, top_k=4, d_expert=29, d_ff=31, n_dense_layers=1, mtp_depth=2,
                 routed_scale=1.7, init_std=0.2)
    if changes.get("attention", "mla") != "mla":
        sizes |= dict(n_heads=6, n_kv_heads=2, d_head=10, d_value=10)
    return ModelConfig(**sizes | changes)


@st.composite
def model_configs(draw) -> ModelConfig:
    """Small valid configurations of every kind."""
    def one_of(*values):
        return draw(st.sampled_from(values))

    attention = one_of("mla", "mha", "gqa", "mqa")
    n_kv_heads, heads_each = one_of(1, 2, 3), one_of(1, 2, 3)
    d_head = one_of(2, 4, 6)
    n_groups, per_group = one_of((1, 1), (1, 5), (1, 7), (2, 3), (3, 2), (4, 4))
    top_groups = draw(st.integers(1, n_groups))
    n_layers = one_of(1, 2, 3)
    yarn_factor = one_of(1.0, 4.0)
    return ModelConfig(
        vocab_size=one_of(1, 11, 53), d_model=one_of(3, 8, 13), n_layers=n_layers, max_seq_len=one_of(16, 17), attention=attention,
        n_heads=n_kv_heads * heads_each, n_kv_heads=n_kv_heads, d_head=d_head, d_value=one_of(1, 5, 11) if attention == "mla" else d_head,
        d_rope=one_of(2, 4, 6), d_latent=one_of(1, 7, 17), d_query_latent=one_of(None, 1, 5), rope_base=one_of(100.0, 10_000.0),
        yarn_factor=yarn_factor, yarn_original_len=one_of(4, 64), n_experts=one_of(0, n_groups * per_group), n_shared=one_of(0, 1, 2),
        top_k=draw(st.integers(1, top_groups * per_group)), d_expert=one_of(1, 5), d_ff=one_of(1, 7),
        n_dense_layers=draw(st.integers(0, n_layers)), gate=one_of("sigmoid", "softmax"), n_groups=n_groups, top_groups=top_groups,
        normalise_weights=draw(st.booleans()), routed_scale=one_of(1.0, 2.5), mtp_depth=one_of(0, 1, 2), tie_embeddings=draw(st.booleans()),
        init_std=0.2)
