"""Chapter 04: one budget of parameters in five shapes, the first test of any model, and a look inside it before it learns.

The yardstick's siblings have heads of 16 and as many parameters as it has; what they lose in depth they gain in width.
"""

import codecs
import contextlib
import io
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from minimodels.bugs import plant
from minimodels.bugs.model import BUGS
from minimodels.config import ModelConfig, TrainConfig
from minimodels.exercises.model import halves_from_pairs
from minimodels.model import Transformer
from minimodels.mtp import losses
from minimodels.studies import Study, Training
from minimodels.timing import interleaved
from minimodels.train import train

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


# ---- one page, again and again

PAGE_BYTES = 256
OVERFIT = TrainConfig(steps=60, batch_size=1, seq_len=PAGE_BYTES, warmup=0.0, decay=0.0, weight_decay=0.0)
LEARNT = 0.1    # nats a byte; a model that knows a page by heart loses less


def page() -> str:
    """The Zen of Python, by Tim Peters: a text that every Python carries, whatever its version. Its first PAGE_BYTES bytes."""
    with contextlib.redirect_stdout(io.StringIO()):    # importing it prints it
        import this
    return codecs.decode(this.s, "rot13")[:PAGE_BYTES]


class OneBatch:
    """Batches that are all the same one: tokens (B, T)."""

    def __init__(self, tokens: Tensor):
        self.tokens = tokens

    def at(self, step: int) -> Tensor:
        """The batch, whatever the step."""
        return self.tokens


@dataclass(frozen=True, kw_only=True)
class Overfit:
    """Train the yardstick on one page, whose bytes are its tokens, with a bug planted in each layer or with none."""

    arm: str
    seed: int
    bug: str | None = None

    def settings(self) -> dict:
        training = {name: value for name, value in OVERFIT.to_dict().items() if name != "seed"}
        return {"model": YARDSTICK.to_dict(), "training": training, "learnt": LEARNT, "bug": self.bug}

    def run(self) -> dict:
        torch.manual_seed(self.seed)
        model = Transformer(YARDSTICK)
        if self.bug:
            plant(model, BUGS[self.bug])
        batch = OneBatch(torch.tensor([list(page().encode())]))
        curve = [record.loss for record in train(model, batch, OVERFIT)]
        below = [step for step, loss in enumerate(curve, start=1) if loss < LEARNT]
        return {"steps_to_learn": below[0] if below else None, "curve": [round(loss, 4) for loss in curve]}


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
    Study(name="model-overfit", question="After how many steps does the yardstick know one page by heart, and with a bug planted?",
          trials=tuple(Overfit(arm=bug or "right", seed=seed, bug=bug) for bug in (None, *BUGS) for seed in range(1, 4 if bug else 8))),
    Study(name="model-times", question="How long does a step of training take, by shape?", is_timing=True,
          trials=tuple(StepTimes(arm="all", seed=seed) for seed in range(3))),
]
