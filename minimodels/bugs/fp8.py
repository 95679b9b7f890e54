"""Ways to spoil an FP8 layer that a loss curve hardly shows."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from minimodels.fp8 import E4M3, TILE, FloatFormat, FP8Linear, Quantised, Recipe, quantise


def spoilt(kind: type[Recipe], recipe: Recipe) -> Recipe:
    """recipe, as one of this kind."""
    return kind(**{f.name: getattr(recipe, f.name) for f in fields(recipe)})


def with_scale(x: Tensor, scale: Tensor, fmt: FloatFormat = E4M3) -> Quantised:
    """x (rows, columns) as codes under one scale that was chosen elsewhere: what does not fit becomes the largest number."""
    data = (x.float() / scale).clamp(-fmt.max, fmt.max).to(fmt.dtype)
    return Quantised(data, scale.reshape(1, 1), tuple(x.shape))


@dataclass(frozen=True, kw_only=True)
class NoScale(Recipe):
    """Gradients are cast as they are: scale 1."""

    def quantise_dy(self, dy: Tensor, *, by_token: bool = True) -> Quantised:
        return with_scale(dy, torch.ones((), device=dy.device), self.gradient_fmt)


@dataclass(frozen=True, kw_only=True)
class ActivationFloor(Recipe):
    """Gradients get the floor that was made for activations, 1e-4: as if smaller ones were noise around zero."""

    def quantise_dy(self, dy: Tensor, *, by_token: bool = True) -> Quantised:
        return quantise(dy, self.gradient_fmt, self.gradient if by_token else self.gradient[::-1], power_of_two=self.power_of_two)


class UnscaledGradients(FP8Linear):
    """The gradient is cast to E4M3 without a scale. A mean over thousands of tokens has gradients far below its smallest number."""

    def forward(self, x: Tensor) -> Tensor:
        return _with_recipe(self, NoScale, x)


class FlooredGradients(FP8Linear):
    """The gradient's scale has a floor that was made for activations."""

    def forward(self, x: Tensor) -> Tensor:
        return _with_recipe(self, ActivationFloor, x)


def _with_recipe(layer, kind, x):
    healthy = layer.recipe
    layer.recipe = spoilt(kind, healthy)
    try:
        return FP8Linear.forward(layer, x)
    finally:
        layer.recipe = healthy


class LastStepsScale(FP8Linear):
    """The input's scale is that of the call before, to save a pass over it. What has grown since does not fit, and is cut."""

    last: float | None = None  # no tensor: one that was made while a model is evaluated cannot be trained with

    def forward(self, x: Tensor) -> Tensor:
        amax = x.detach().abs().amax().item()
        if self.last is not None:
            x = x.clamp(-self.last, self.last)  # where codes saturate, and no gradient passes
        self.last = amax
        return super().forward(x)


class OneScaleARow(FP8Linear):
    """The product takes the scale of a row's first tile for all of it. With 128 numbers in a row there is no other."""

    def forward(self, x: Tensor) -> Tensor:
        peak = [tile.detach().abs().amax(-1, keepdim=True).clamp(min=1e-4) for tile in x.split(TILE[1], -1)]
        return super().forward(torch.cat([tile * (peak[0] / own) for tile, own in zip(x.split(TILE[1], -1), peak)], -1))


class NoMaster(FP8Linear):
    """The weights themselves are kept in E4M3: what a step adds is rounded away where it is less than half a step of the format."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.weight.copy_(self.recipe.quantise_w(self.weight).dequantise())
        return super().forward(x)


class NoMasterBF16(FP8Linear):
    """The weights themselves are kept in bf16, which has no more than eight significant bits."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.weight.copy_(self.weight.bfloat16())
        return super().forward(x)


BUGS = {"gradients without a scale": UnscaledGradients, "an activation's floor": FlooredGradients, "the last step's scale": LastStepsScale,
        "the first tile's scale": OneScaleARow, "weights kept in E4M3": NoMaster, "weights kept in bf16": NoMasterBF16}
