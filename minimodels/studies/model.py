"""Chapter 04: one budget of parameters in five shapes, and a look inside a model before it learns.

The yardstick's siblings have heads of 16 and as many parameters as it has; what they lose in depth they gain in width.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from minimodels.attention import LayerCache, Place
from minimodels.bugs import plant
from minimodels.bugs.model import BUGS
from minimodels.config import ModelConfig, TrainConfig
from minimodels.exercises.model import halves_from_pairs
from minimodels.model import Block, Transformer
from minimodels.mtp import losses
from minimodels.studies import Study, Training, recorded
from minimodels.timing import interleaved

YARDSTICK = ModelConfig.preset("yardstick")
WIDTHS = {1: 192, 2: 160, 4: 128, 8: 96, 16: 80}                   # layers: D, a multiple of the head's width
RECIPE = replace(TrainConfig.preset("yardstick"), steps=120)
SEEDS = {1: (1, 2, 3), 4: (1, 2, 3), 16: (1, 2)}                    # layers of the shapes that are trained; deep ones take twice as long


def with_shape(n_layers: int, d_model: int) -> ModelConfig:
    """The yardstick with another depth and width, and the feed-forward width that gives it as many parameters, to a unit."""
    config = replace(YARDSTICK, n_layers=n_layers, d_model=d_model, n_heads=d_model // YARDSTICK.d_head)
    per_unit = 3 * d_model * n_layers
    return replace(config, d_ff=config.d_ff + round((YARDSTICK.n_params - config.n_params) / per_unit))


def arm_of(n_layers: int) -> str:
    """The name of a shape in what is recorded."""
    return f"{n_layers} layer{'s' * (n_layers > 1)}"


SHAPES = {n_layers: with_shape(n_layers, d_model) for n_layers, d_model in WIDTHS.items()}


def shape_scores() -> dict[int, list[float]]:
    """Bits per byte by layers, in the order of seeds, as model-shapes recorded them."""
    trials = recorded("model-shapes")["trials"]
    return {n: [t["bits_per_byte"] for t in trials if t["arm"] == arm_of(n)] for n in SEEDS}


# ---- the way back, without a residual

class Linear(nn.Module):
    """A plain matrix in the place of a feed-forward network."""

    def __init__(self, D: int, std: float):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(D, D) * std)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


class DeafGate(nn.Module):
    """SwiGLU whose gate computes, and passes no gradient back."""

    def __init__(self, ffn: nn.Module):
        super().__init__()
        self.ffn = ffn

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.ffn.w_gate_up(x).chunk(2, -1)
        return self.ffn.w_down((gate * gate.sigmoid()).detach() * up)


class Pass(nn.Module):
    """Nothing happens: what comes in goes out."""

    def forward(self, x: Tensor, *rest) -> Tensor:
        return x


class Silent(nn.Module):
    """A branch that says nothing."""

    def forward(self, x: Tensor, *rest) -> Tensor:
        return 0 * x


class PostNorm(Block):
    """A layer of the first Transformers: the norm stands on the stream, after each sum."""

    def forward(self, h: Tensor, place: Place, cache: LayerCache | None = None) -> tuple[Tensor, None]:
        h = self.attention_norm(h + self.attention(h, place, cache))
        return self.ffn_norm(h + self.ffn(h)), None


def change_parts(model: Transformer, change: str):
    """Put something else in the place of attention or SwiGLU, in every layer."""
    for block in model.layers:
        if change == "a plain matrix":
            block.ffn = Linear(model.config.d_model, model.config.init_std)
        if change == "a deaf gate":
            block.ffn = DeafGate(block.ffn)
        if change == "SwiGLU alone":
            block.attention = Pass()
        if change == "attention alone":
            block.ffn = Pass()


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """Measure the gradient behind each of sixteen layers before training, without residuals, with something else in a part's place."""

    arm: str
    seed: int
    std: float = 0.02

    def settings(self) -> dict:
        return {"model": replace(SHAPES[16], init_std=self.std).to_dict(), "tokens": [4, 256]}

    def run(self) -> dict:
        tokens = torch.randint(YARDSTICK.vocab_size, (4, 256), generator=torch.Generator().manual_seed(0))
        torch.manual_seed(self.seed)
        model = Transformer(replace(SHAPES[16], init_std=self.std))
        if self.arm.startswith("norm on the sum"):
            plant(model, PostNorm)
        elif not self.arm.startswith("with residual"):
            plant(model, BUGS["no residual"])
        change_parts(model, self.arm)
        streams = []
        for block in model.layers:
            block.register_forward_hook(lambda module, arguments, out: streams.append(out[0]))
        out = model(tokens)
        for h in streams:
            h.retain_grad()
        losses(out, tokens)[0].backward()
        return {"gradient": [float(f"{h.grad.square().mean().sqrt():.4g}") for h in streams]}


ROADS = ("with residual", "without", "a plain matrix", "a deaf gate", "SwiGLU alone", "attention alone")
LARGE = 0.2                                    # a large start, at which the place of the norm shows


# ---- another's implementation

def as_llama(model: Transformer):
    """Hugging Face's `LlamaForCausalLM` with the weights of a dense model with MHA. Needs the package transformers.

    Theirs rotates halves (x0, x8) where ours rotates neighbours (x0, x1), so the rows of queries and keys move; the scores stay.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    c = model.config
    theirs = LlamaForCausalLM(LlamaConfig(
        vocab_size=c.vocab_size, hidden_size=c.d_model, intermediate_size=c.d_ff, num_hidden_layers=c.n_layers, num_attention_heads=c.n_heads,
        num_key_value_heads=c.n_heads, head_dim=c.d_head, max_position_embeddings=c.max_seq_len, rms_norm_eps=c.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_base}, tie_word_embeddings=c.tie_embeddings))
    tensors = {"model.embed_tokens.weight": model.embed.weight, "model.norm.weight": model.final_norm.weight, "lm_head.weight": model.head.weight}
    for i, block in enumerate(model.layers):
        layer = {name: block.get_submodule(ours).weight for name, ours in THEIR_NAMES.items()}
        for name in ("self_attn.q_proj", "self_attn.k_proj"):
            layer[name] = halves_from_pairs(layer[name], c.n_heads)
        layer["mlp.gate_proj"], layer["mlp.up_proj"] = block.ffn.w_gate_up.weight.chunk(2)
        tensors |= {f"model.layers.{i}.{name}.weight": weight for name, weight in layer.items()}
    theirs.load_state_dict(tensors)
    return theirs.eval()


THEIR_NAMES = {"input_layernorm": "attention_norm", "self_attn.q_proj": "attention.w_q", "self_attn.k_proj": "attention.w_k",
               "self_attn.v_proj": "attention.w_v", "self_attn.o_proj": "attention.w_o", "post_attention_layernorm": "ffn_norm",
               "mlp.down_proj": "ffn.w_down"}


# ---- time

@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """Time one step of training, forward and backward, of every shape, in turns."""

    arm: str
    seed: int
    rounds: int = 5

    def settings(self) -> dict:
        return {"shapes": {n: config.to_dict() for n, config in SHAPES.items()}, "batch_size": RECIPE.batch_size, "seq_len": RECIPE.seq_len,
                "rounds": self.rounds}

    def run(self) -> dict:
        torch.manual_seed(self.seed)
        tokens = torch.randint(YARDSTICK.vocab_size, (RECIPE.batch_size, RECIPE.seq_len))
        times = interleaved({n: step_of(Transformer(config), tokens) for n, config in SHAPES.items()}, rounds=self.rounds)
        return {"ms": {n: [round(ms, 2) for ms in each] for n, each in times.items()}}


def step_of(model: Transformer, tokens: Tensor):
    """A function that runs tokens (B, T) through model, forward and backward."""
    return lambda: losses(model(tokens), tokens)[0].backward()


STUDIES = [
    Study(name="model-shapes", question="At equal parameters and tokens, how deep should the yardstick be?",
          trials=tuple(Training(arm=arm_of(n), seed=seed, model=SHAPES[n], training=replace(RECIPE, seed=seed))
                       for n, seeds in SEEDS.items() for seed in seeds)),
    Study(name="model-gradients", question="Without residuals, what makes the gradient grow on its way back?",
          trials=tuple(Gradients(arm=road, seed=seed) for road in ROADS for seed in range(3))
          + tuple(Gradients(arm=f"{road}, std {LARGE:g}", seed=seed, std=LARGE) for road in ("with residual", "norm on the sum") for seed in range(3))),
    Study(name="model-times", question="How long does a step of training take, by shape?", is_timing=True,
          trials=tuple(StepTimes(arm="all", seed=seed) for seed in range(3))),
]
