"""The two configurations, frozen and checked: what a model is, and how it is trained.

A size that can be derived is a property, so that counting DeepSeek-V3's 671 billion parameters builds no tensor.
Field comments give the book's letter and, where it differs, the paper's symbol.
"""

import dataclasses
import math
import types
import typing
from dataclasses import dataclass

ATTENTION = ("mla", "mha", "gqa", "mqa")
GATES = ("sigmoid", "softmax")
OPTIMIZERS = ("muon", "adamw")
BALANCE = ("bias", "bias+sequence", "sequence", "batch", "none")
DTYPES = ("auto", "fp32", "bf16", "fp16")


class Fields:
    """What all configurations share: a dictionary form, and a type check of every field."""

    def __post_init__(self):
        for name, annotation in typing.get_type_hints(type(self)).items():
            _check_type(name, getattr(self, name), annotation)
        self._check()

    def to_dict(self) -> dict:
        """A dictionary of plain values that `from_dict` turns back into an equal configuration."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict):
        """The configuration with these values. Raises ValueError for a field that does not exist."""
        names = {f.name for f in dataclasses.fields(cls)}
        for name in values:
            if name not in names:
                raise ValueError(f"{cls.__name__} has no field {name!r}; its fields are {', '.join(sorted(names))}")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    @classmethod
    def preset(cls, name: str):
        """The configuration called name. Raises ValueError with the names that exist."""
        table = PRESETS[cls]
        if name not in table:
            raise ValueError(f"preset must be one of {', '.join(table)}, got {name!r}")
        return cls(**table[name])

    def _require(self, is_met: bool, name: str, rule: str):
        if not is_met:
            raise ValueError(f"{name} must be {rule}, got {getattr(self, name)!r}")


def _check_type(name, value, annotation):
    allowed = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    kinds = tuple(typing.get_origin(a) or a for a in allowed)
    is_bool_for_number = isinstance(value, bool) and bool not in kinds
    is_int_for_float = float in kinds and isinstance(value, int) and not isinstance(value, bool)
    if is_bool_for_number or not (isinstance(value, kinds) or is_int_for_float):
        wanted = " or ".join("nothing" if k is types.NoneType else k.__name__ for k in kinds)
        raise ValueError(f"{name} must be of type {wanted}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Fields):
    """The shape of a model. Defaults are those of the `cpu` preset.

    Raises ValueError, naming field, rule and value, for sizes that do not fit together.
    Source: the symbols are those of DeepSeek-V3, section 2.1.
    """

    vocab_size: int = 4096             # V
    d_model: int = 128                 # D, d in the paper
    n_layers: int = 4                  # l, without the MTP modules
    max_seq_len: int = 1024            # longest text that the rotary table covers, in tokens

    attention: str = "mla"             # mla | mha | gqa | mqa
    n_heads: int = 4                   # H, n_h in the paper
    n_kv_heads: int = 1                # key-value heads; read by gqa alone
    d_head: int = 32                   # Dn, d_h: the part of a head that MLA does not rotate; elsewhere the whole head
    d_rope: int = 16                   # Dr, d_h^R: the rotary part of each query, and of the one key that MLA's heads share
    d_value: int = 32                  # Dv
    d_latent: int = 128                # C, d_c
    d_query_latent: int | None = None  # d_c'; None: queries come straight from the hidden state, as in V2-Lite
    rope_base: float = 10_000.0        # theta
    yarn_factor: float = 1.0           # s: how many times longer than it was trained the context becomes; 1 is plain RoPE
    yarn_original_len: int = 4096      # the context length before YaRN, in tokens
    yarn_beta_fast: float = 32.0       # pairs that turn more often than this within the original context stay as they are
    yarn_beta_slow: float = 1.0        # pairs that turn less often than this are slowed by the whole factor
    yarn_mscale: float = 1.0           # m in sqrt(t) = 0.1 m ln(s) + 1, whose square multiplies the softmax scale

    n_experts: int = 16                # E, N_r: routed experts a layer; 0 makes every layer dense
    n_shared: int = 1                  # N_s: experts that are always on
    top_k: int = 4                     # K, K_r: routed experts a token
    d_expert: int = 64                 # hidden width of one expert
    d_ff: int = 320                    # hidden width of a dense layer's SwiGLU
    n_dense_layers: int = 1            # the first layers, whose feed-forward part stays dense
    gate: str = "sigmoid"              # sigmoid (V3) | softmax (V2, which has normalise_weights=False and routed_scale=16)
    n_groups: int = 1                  # expert groups, one a node in the paper
    top_groups: int = 1                # M: groups a token may use
    normalise_weights: bool = True     # weights of the chosen experts sum to 1 before they are scaled
    routed_scale: float = 1.0          # factor on the routed experts' sum; V3 uses 2.5, V2 16

    mtp_depth: int = 1                 # D in the paper: how many tokens beyond the next are predicted
    tie_embeddings: bool = True        # the output head is the embedding, transposed
    norm_eps: float = 1e-6
    init_std: float = 0.02

    def _check(self):
        require = self._require
        for name in ("vocab_size", "d_model", "n_layers", "max_seq_len", "n_heads", "d_head", "d_value", "d_latent", "d_ff"):
            require(getattr(self, name) >= 1, name, "at least 1")
        for name in ("n_experts", "n_shared", "mtp_depth", "n_dense_layers"):
            require(getattr(self, name) >= 0, name, "at least 0")
        for name in ("norm_eps", "init_std", "routed_scale"):
            require(getattr(self, name) > 0, name, "above 0")
        require(self.attention in ATTENTION, "attention", f"one of {', '.join(ATTENTION)}")
        require(self.gate in GATES, "gate", f"one of {', '.join(GATES)}")
        require(self.d_query_latent is None or self.d_query_latent >= 1, "d_query_latent", "at least 1, or None for no query latent")
        self._check_rope()
        if self.is_moe:
            self._check_experts()

    def _check_rope(self):
        require = self._require
        if self.attention == "mla":
            require(self.d_rope >= 2 and self.d_rope % 2 == 0, "d_rope", "even and at least 2, because RoPE rotates pairs")
        else:
            require(self.d_head % 2 == 0, "d_head", f"even with attention={self.attention!r}, because RoPE rotates pairs")
            require(self.d_value == self.d_head, "d_value", f"equal to d_head={self.d_head} with attention={self.attention!r}")
        if self.attention == "gqa":
            require(1 <= self.n_kv_heads and self.n_heads % self.n_kv_heads == 0, "n_kv_heads", f"a divisor of n_heads={self.n_heads}")
        require(self.rope_base > 1, "rope_base", "above 1, so that later pairs turn more slowly")
        require(self.yarn_factor >= 1, "yarn_factor", "at least 1")
        require(self.yarn_original_len >= 1, "yarn_original_len", "at least 1")
        require(self.yarn_beta_slow > 0, "yarn_beta_slow", "above 0")
        require(self.yarn_beta_fast > self.yarn_beta_slow, "yarn_beta_fast", f"above yarn_beta_slow={self.yarn_beta_slow}")

    def _check_experts(self):
        require = self._require
        require(self.d_expert >= 1, "d_expert", "at least 1")
        require(1 <= self.top_k <= self.n_experts, "top_k", f"in [1, n_experts={self.n_experts}]")
        require(self.n_groups >= 1 and self.n_experts % self.n_groups == 0, "n_groups", f"a divisor of n_experts={self.n_experts}")
        require(1 <= self.top_groups <= self.n_groups, "top_groups", f"in [1, n_groups={self.n_groups}]")
        per_group = self.n_experts // self.n_groups
        # with sigmoid (V3) a group is scored by its two best experts, with softmax (V2) by its best
        is_scored_by_two = self.gate == "sigmoid" and self.top_groups < self.n_groups
        require(not is_scored_by_two or per_group >= 2, "n_groups", f"at most n_experts/2={self.n_experts // 2} with gate='sigmoid'")
        require(self.top_k <= self.top_groups * per_group, "top_k", f"at most top_groups x experts a group = {self.top_groups * per_group}")

    @property
    def is_moe(self) -> bool:
        """Whether any layer has routed experts (an MTP module's block follows the last layer's kind)."""
        return self.n_experts > 0 and self.n_dense_layers < self.n_layers

    def is_moe_layer(self, layer: int) -> bool:
        """Whether layer (counted from 0; MTP modules come after the last) has experts instead of a dense feed-forward part."""
        return self.is_moe and layer >= self.n_dense_layers

    @property
    def kv_heads(self) -> int:
        """Heads whose keys and values MHA, GQA or MQA caches."""
        return {"mha": self.n_heads, "gqa": self.n_kv_heads, "mqa": 1, "mla": self.n_heads}[self.attention]

    @property
    def cached_values_per_layer(self) -> int:
        """Numbers that one layer's cache keeps for one token. Source: DeepSeek-V2, Table 1."""
        return self.d_latent + self.d_rope if self.attention == "mla" else 2 * self.kv_heads * self.d_head

    @property
    def cached_values_per_token(self) -> int:
        """Numbers that the whole cache keeps for one token; the MTP modules, which only draft, are not counted."""
        return self.cached_values_per_layer * self.n_layers

    @property
    def parameters(self) -> dict[str, int]:
        """Parameters by part: embedding, head, attention, dense, experts, shared, gate, norms (main model), and mtp."""
        n_moe = sum(self.is_moe_layer(i) for i in range(self.n_layers))
        return {
            "embedding": self.vocab_size * self.d_model,
            "head": 0 if self.tie_embeddings else self.vocab_size * self.d_model,
            "attention": self.n_layers * self._attention_parameters,
            "dense": (self.n_layers - n_moe) * 3 * self.d_model * self.d_ff,
            "experts": n_moe * self.n_experts * self._expert_parameters,
            "shared": n_moe * self.n_shared * self._expert_parameters,
            "gate": n_moe * self.n_experts * self.d_model,
            "norms": (2 * self.n_layers + 1) * self.d_model,
            "mtp": self.mtp_depth * self._mtp_parameters,
        }

    @property
    def n_params(self) -> int:
        """Parameters of the main model, without MTP modules, as the papers count: 671.03 billion for DeepSeek-V3."""
        return sum(n for part, n in self.parameters.items() if part != "mtp")

    @property
    def n_active_params(self) -> int:
        """Parameters of the main model that work on one token, embedding and head included: 37.55 billion for V3."""
        if not self.is_moe:
            return self.n_params
        return self.n_params - self.parameters["experts"] * (self.n_experts - self.top_k) // self.n_experts

    @property
    def _expert_parameters(self) -> int:
        return 3 * self.d_model * self.d_expert

    @property
    def _attention_parameters(self) -> int:
        D, H = self.d_model, self.n_heads
        if self.attention != "mla":
            return D * self.d_head * (2 * H + 2 * self.kv_heads)
        to_query, C, latent = H * (self.d_head + self.d_rope), self.d_latent, self.d_query_latent
        query = D * to_query if latent is None else D * latent + latent + latent * to_query
        return query + D * (C + self.d_rope) + C + C * H * (self.d_head + self.d_value) + H * self.d_value * D

    @property
    def _mtp_parameters(self) -> int:
        D = self.d_model
        moe = (self.n_experts + self.n_shared) * self._expert_parameters + self.n_experts * D
        feed_forward = moe if self.is_moe else 3 * D * self.d_ff
        return 2 * D * D + 3 * D + self._attention_parameters + 2 * D + feed_forward


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Fields):
    """How a model is trained. Defaults are those of the `cpu` preset.

    Raises ValueError, naming field, rule and value.
    Source: schedule and losses of DeepSeek-V3, section 4.2; Muon as in Jordan et al. (2024).
    """

    steps: int = 1000                  # optimizer steps
    batch_size: int = 8                # sequences a step, over all devices
    seq_len: int = 256                 # T, tokens a sequence
    micro_batch: int | None = None     # sequences a forward pass; None: all that a device gets
    optimizer: str = "muon"            # muon (AdamW for embedding, head, gates and norms) | adamw
    lr: float = 0.005                  # AdamW's peak rate; with muon that of gates and norms alone
    muon_lr: float = 0.02              # Muon's, scaled by sqrt(max(1, rows/columns))
    embed_lr: float = 0.03             # AdamW's for embedding and head, when Muon has the other matrices
    weight_decay: float = 0.1          # decoupled, on matrices
    beta1: float = 0.9
    beta2: float = 0.95
    warmup: float = 0.02               # share of the steps in which the rate rises from 0
    decay: float = 0.4                 # share of the steps, at the end, in which it falls
    final_lr: float = 0.0              # what it falls to, as a share of the peak
    clip: float = 1.0                  # largest norm of the whole gradient
    mtp_weight: float = 0.3            # lambda; V3 has 0.3 for 10T tokens, then 0.1
    balance: str = "bias"              # bias (loss-free) | bias+sequence (V3) | sequence | batch | none
    balance_rate: float = 0.01         # gamma: how far a step moves a bias; V3 has 0.001, and many more steps
    balance_weight: float = 1e-4       # alpha of the auxiliary losses
    dtype: str = "auto"                # fp32, bf16, fp16; auto: what the device does well
    fp8: bool = False                  # run the products of linear layers in FP8, emulated where the hardware has none
    seed: int = 0
    eval_every: int = 0                # steps between evaluations; 0: none (the command evaluates once, at the end)
    checkpoint_every: int = 100        # steps between checkpoints

    def _check(self):
        require = self._require
        for name in ("steps", "batch_size", "checkpoint_every"):
            require(getattr(self, name) >= 1, name, "at least 1")
        require(self.seq_len >= 2, "seq_len", "at least 2, because a token is predicted from those before it")
        require(self.micro_batch is None or self.micro_batch >= 1, "micro_batch", "at least 1, or None for the whole batch")
        for name in ("weight_decay", "mtp_weight", "balance_rate", "balance_weight", "eval_every"):
            require(getattr(self, name) >= 0, name, "at least 0")
        require(0 <= self.seed < 2**63, "seed", "in [0, 2**63)")
        for name in ("lr", "muon_lr", "embed_lr", "clip"):
            require(getattr(self, name) > 0, name, "above 0")
        for name in ("beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, name, "in [0, 1)")
        for name in ("warmup", "decay", "final_lr"):
            require(0 <= getattr(self, name) <= 1, name, "in [0, 1]")
        require(self.warmup + self.decay <= 1, "decay", f"at most 1 - warmup = {1 - self.warmup:g}")
        require(self.optimizer in OPTIMIZERS, "optimizer", f"one of {', '.join(OPTIMIZERS)}")
        require(self.balance in BALANCE, "balance", f"one of {', '.join(BALANCE)}")
        require(self.dtype in DTYPES, "dtype", f"one of {', '.join(DTYPES)}")


PRESETS = {
    ModelConfig: {
        "cpu": {},
        "unit": dict(vocab_size=512, d_model=32, n_layers=2, max_seq_len=128, n_heads=2, d_head=8, d_rope=4, d_value=8, d_latent=32,
                     n_experts=4, top_k=2, d_expert=16, d_ff=64),
        # dense, with plain multi-head attention: what chapters 3 to 5 build, and what every later idea is measured against
        "yardstick": dict(attention="mha", n_heads=8, n_kv_heads=2, d_head=16, d_value=16, d_rope=8, d_latent=64, n_experts=0,
                          mtp_depth=0),
        # the yardstick with every technique of the book: what chapter 13 climbs to, a rung a technique
        "together": dict(n_heads=8, n_kv_heads=2, d_head=16, d_value=16, d_rope=8, d_latent=64, n_experts=31, top_k=3, d_expert=80),
        "t4": dict(vocab_size=8192, d_model=512, n_layers=8, max_seq_len=2048, n_heads=8, d_head=64, d_rope=32, d_value=64,
                   d_latent=256, n_experts=32, top_k=4, d_expert=256, d_ff=1280),
        "gaming": dict(vocab_size=16_384, d_model=768, n_layers=12, max_seq_len=4096, n_heads=12, d_head=64, d_rope=32, d_value=64,
                       d_latent=256, n_experts=64, top_k=6, d_expert=256, d_ff=1792),
        # counting only: nobody builds this on a laptop
        "deepseek_v3": dict(vocab_size=129_280, d_model=7168, n_layers=61, max_seq_len=163_840, n_heads=128, d_head=128, d_rope=64,
                            d_value=128, d_latent=512, d_query_latent=1536, yarn_factor=40.0, n_experts=256, top_k=8, d_expert=2048,
                            d_ff=18_432, n_dense_layers=3, n_groups=8, top_groups=4, routed_scale=2.5, tie_embeddings=False,
                            init_std=0.006),
    },
    TrainConfig: {
        "cpu": {},
        "unit": dict(steps=20, batch_size=4, seq_len=32, checkpoint_every=5),
        "yardstick": dict(steps=600, muon_lr=0.01),
        "together": dict(steps=600, muon_lr=0.01, fp8=True),
        "t4": dict(steps=4000, batch_size=32, seq_len=512, lr=1e-3, embed_lr=0.01),
        "gaming": dict(steps=10_000, batch_size=64, seq_len=1024, lr=6e-4, embed_lr=0.006),
    },
}
