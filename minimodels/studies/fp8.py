"""Chapter 10: the yardstick with its products in FP8, by DeepSeek-V3's recipe and by others, against bf16.

Everything that is not such a product runs in bf16, but for the models with experts, which run in fp32 as chapter 07's do.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from minimodels import fp8
from minimodels.attention import GroupedAttention
from minimodels.bugs.fp8 import BUGS
from minimodels.config import ModelConfig, TrainConfig
from minimodels.fp8 import BLOCK, E5M2, WHOLE, FP8Linear, Quantised, Recipe, convert
from minimodels.layers import RMSNorm, SwiGLU
from minimodels.mla import LatentAttention
from minimodels.model import Transformer
from minimodels.moe import Gate, Routing
from minimodels.mtp import losses
from minimodels.studies import Planted, Study, Training
from minimodels.studies.moe import BEST_RATE, MODELS
from minimodels.studies.moe import RECIPE as EXPERTS

YARDSTICK = ModelConfig.preset("yardstick")
BF16 = replace(TrainConfig.preset("yardstick"), dtype="bf16", eval_every=300)   # seeds 1 to 3 of it are train-formats
LONGER = replace(BF16, steps=1800, eval_every=600)
SHORT = replace(BF16, steps=120, eval_every=30)
LIVE = replace(BF16, steps=30, eval_every=0)                                     # what the chapter trains while you read
LIVE_BYTES = 3_000_000

RECIPES = {
    "V3's": Recipe(),
    "a scale for a tensor": Recipe(activation=WHOLE, weight=WHOLE, gradient=WHOLE),
    "gradients in blocks": Recipe(gradient=BLOCK),
    "E5M2 gradients": Recipe(gradient_fmt=E5M2),
    "scales of two": Recipe(power_of_two=True),
}
SEEDS = (1, 2, 3, 4, 5)


@dataclass(frozen=True, kw_only=True)
class Eight(Training):
    """Training whose linear layers run in FP8 by one of RECIPES, named by its arm; the rest runs in bf16."""

    def settings(self) -> dict:
        return super().settings() | {"recipe": str(RECIPES[self.arm])}

    def build(self) -> Transformer:
        return convert(super().build(), RECIPES[self.arm])


# ---- a short accumulator

ACCUMULATORS = {"13 bits": 13, "7 bits": 7}    # bits behind the leading one that a running sum keeps


def short_gemm(a: Quantised, b: Quantised, *, keep_bits: int) -> Tensor:
    """a b^T, whose running sum is cut to keep_bits bits behind its leading one after every 32 products, and never promoted.

    A cheap stand-in for `fp8.limited_gemm`, which also cuts each of the 32 products: on the weight gradients of the trained yardstick
    13 bits here err about as much as 14 there. Returns (m, n), float32.
    """
    with torch.autocast(a.data.device.type, enabled=False):
        x, w = a.dequantise(), b.dequantise()
        y = x.new_zeros(len(x), len(w))
        for x_k, w_k in zip(x.split(32, 1), w.split(32, 1)):
            y += x_k @ w_k.mT
            y.view(torch.int32).bitwise_and_(-(1 << (23 - keep_bits)))    # towards zero
        return y


@dataclass(frozen=True, kw_only=True)
class ShortSum(Training):
    """Training by V3's recipe, but that the products of every FP8 layer are added up by short_gemm."""

    def settings(self) -> dict:
        return super().settings() | {"recipe": str(Recipe()), "keep_bits": ACCUMULATORS[self.arm]}

    def build(self) -> Transformer:
        return convert(super().build())

    def run(self) -> dict:
        ours, fp8.gemm = fp8.gemm, lambda a, b: short_gemm(a, b, keep_bits=ACCUMULATORS[self.arm])
        try:
            return super().run()
        finally:
            fp8.gemm = ours


# ---- a gate in FP8

class GateInFP8(Gate):
    """A gate whose product with the experts' vectors, and that product's gradients, run in FP8 like any other layer's."""

    recipe = Recipe()

    def forward(self, x: Tensor) -> Routing:
        weight, logit = self.weight, fp8.product(x.float(), self.weight, self.recipe)  # (T, E)
        self._parameters["weight"] = nn.Parameter(torch.eye(len(weight)), requires_grad=False)
        try:
            return super().forward(logit)    # the identity lets it pass
        finally:
            self._parameters["weight"] = weight


@dataclass(frozen=True, kw_only=True)
class WithExperts(Training):
    """Training of a model with experts whose linear layers run in FP8; gate: its gates too. The rest runs in fp32."""

    gate: bool = False

    def settings(self) -> dict:
        return super().settings() | {"recipe": str(Recipe()), "gate": self.gate}

    def build(self) -> Transformer:
        model = convert(super().build())
        for gate in model.gates if self.gate else ():
            gate.__class__ = GateInFP8
        return model


# ---- what stands in a model while it trains

def operands(model: Transformer, tokens: Tensor) -> dict[str, dict[str, Tensor]]:
    """What the products of each linear layer but the head multiply in one pass over tokens (B, T), forward and backward.

    Of each layer, by name: its weight, its input and the gradient of its output, with a row a token.
    """
    seen, hooks = {}, []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name != "head":
            seen[name] = kept = {"weight": layer.weight.detach()}
            hooks += [layer.register_forward_hook(lambda module, args, out, kept=kept: kept.update(input=args[0].detach().flatten(0, -2))),
                      layer.register_full_backward_hook(lambda module, dx, dy, kept=kept: kept.update(gradient=dy[0].flatten(0, -2)))]
    losses(model(tokens), tokens)[0].backward()
    for hook in hooks:
        hook.remove()
    model.zero_grad()
    return seen


def kept_for_backward(model: Transformer, tokens: Tensor, dtype: torch.dtype = torch.float32) -> dict[str, int]:
    """Bytes that a forward pass over tokens (B, T) keeps for the backward pass, by what keeps them; weights themselves are left out.

    dtype: autocast's. Tensors that share their memory count once.
    """
    inside, kept, hooks = ["loss"], {}, []
    kinds = {nn.Linear: "linear layers", SwiGLU: "SwiGLU", RMSNorm: "norms", GroupedAttention: "attention", LatentAttention: "attention"}
    for module in model.modules():
        if kind := next((name for cls, name in kinds.items() if isinstance(module, cls)), None):
            hooks += [module.register_forward_pre_hook(lambda module, args, kind=kind: inside.append(kind)),
                      module.register_forward_hook(lambda module, args, out: inside.pop() and None)]
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor):
        memory = tensor.untyped_storage()    # held until the end, so that no other takes its address
        if memory.data_ptr() not in own:
            kept.setdefault(memory.data_ptr(), (inside[-1], memory))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        losses(model(tokens), tokens)
    for hook in hooks:
        hook.remove()
    by_kind = dict.fromkeys([*kinds.values(), "loss"], 0)
    for kind, memory in kept.values():
        by_kind[kind] += memory.nbytes()
    return by_kind


# ---- bugs

@dataclass(frozen=True, kw_only=True)
class Spoilt(Planted):
    """Training by V3's recipe with a bug planted in every FP8 layer."""

    BUGS = BUGS

    def build(self) -> Transformer:
        healthy, bug = convert(Training.build(self)), self.bug and self.BUGS[self.bug]
        for module in healthy.modules() if bug else ():
            if type(module) is FP8Linear:
                module.__class__ = bug
        return healthy


def eights(arms, seeds, recipe=BF16) -> tuple:
    return tuple(Eight(arm=arm, seed=seed, model=YARDSTICK, training=replace(recipe, seed=seed)) for seed in seeds for arm in arms)


def sixteens(seeds, recipe=BF16) -> tuple:
    return tuple(Training(arm="bf16", seed=seed, model=YARDSTICK, training=replace(recipe, seed=seed)) for seed in seeds)


FINE = MODELS["fine + shared"]
FINE_RECIPE = replace(EXPERTS, muon_lr=BEST_RATE["fine + shared"])

STUDIES = [
    Study(name="fp8-live", question="Where does the chapter's short run end, over seeds?",
          trials=tuple(replace(trial, max_bytes=LIVE_BYTES) for trial in eights(["V3's"], (1, 2, 3, 4, 5, 6), LIVE))),
    Study(name="fp8-quality", question="What does V3's recipe cost beside bf16? bf16's seeds 1 to 3 are those of train-formats.",
          trials=sixteens(SEEDS[3:]) + eights(["V3's"], SEEDS)),
    Study(name="fp8-bugs", question="Does a planted bug show in the loss?",
          trials=tuple(Spoilt(arm=bug or "right", seed=seed, bug=bug, model=YARDSTICK, training=replace(SHORT, seed=seed))
                       for bug in (None, *BUGS) for seed in SEEDS[:3])),
    Study(name="fp8-scales", question="Are tiles and blocks needed here? V3's recipe and bf16 are those of fp8-quality.",
          trials=eights(["a scale for a tensor", "gradients in blocks"], SEEDS[:3])),
    Study(name="fp8-longer", question="Does the gap between FP8 and bf16 grow with three times the text?",
          trials=sixteens(SEEDS[:3], LONGER) + eights(["V3's"], SEEDS[:3], LONGER)),
    Study(name="fp8-sums", question="What does a short accumulator cost, with sums of at most 2,048 products?",
          trials=tuple(ShortSum(arm=arm, seed=seed, model=YARDSTICK, training=replace(BF16, seed=seed)) for seed in SEEDS[:3] for arm in ACCUMULATORS)),
    Study(name="fp8-gate", question="What does a gate in FP8 cost? The same model in fp32 is moe-quality's arm fine + shared.",
          trials=tuple(WithExperts(arm=arm, seed=seed, gate=gate, model=FINE, training=replace(FINE_RECIPE, seed=seed))
                       for seed in SEEDS[:3] for arm, gate in {"gate in fp32": False, "gate in FP8": True}.items())),
    Study(name="fp8-gradients", question="Are E5M2 gradients better than E4M3's, here?", trials=eights(["E5M2 gradients"], SEEDS[:3])),
]
