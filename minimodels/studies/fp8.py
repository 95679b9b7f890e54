"""Chapter 10: the yardstick with its products in FP8, by DeepSeek-V3's recipe and by others, against bf16."""

from dataclasses import dataclass, replace

from minimodels.config import ModelConfig, TrainConfig
from minimodels.fp8 import BLOCK, E5M2, WHOLE, Recipe, convert
from minimodels.model import Transformer
from minimodels.studies import Study, Training

YARDSTICK = ModelConfig.preset("yardstick")
BF16 = replace(TrainConfig.preset("yardstick"), dtype="bf16", eval_every=300)   # seeds 1 to 3 of it are train-formats

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


STUDIES = [
    Study(name="fp8-quality", question="What does FP8 cost, recipe by recipe? bf16's seeds 1 to 3 are those of train-formats.",
          trials=tuple(Training(arm="bf16", seed=seed, model=YARDSTICK, training=replace(BF16, seed=seed)) for seed in SEEDS[3:])
          + tuple(Eight(arm=arm, seed=seed, model=YARDSTICK, training=replace(BF16, seed=seed)) for seed in SEEDS for arm in RECIPES)),
]
