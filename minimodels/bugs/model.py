"""Five ways to spoil a Transformer's block or its norm. All of them run, and the loss falls with each."""

from torch import Tensor

from minimodels.attention import LayerCache, Place
from minimodels.layers import RMSNorm
from minimodels.model import Block


class NoResidual(Block):
    """A branch's output replaces the stream, where it should be added to it."""

    def forward(self, h: Tensor, place: Place, cache: LayerCache | None = None) -> tuple[Tensor, None]:
        h = self.attention(self.attention_norm(h), place, cache)
        return self.ffn(self.ffn_norm(h)), None


class NormedResidual(Block):
    """The norm's output serves as the stream too: what a branch is added to has been rescaled first."""

    def forward(self, h: Tensor, place: Place, cache: LayerCache | None = None) -> tuple[Tensor, None]:
        h = self.attention_norm(h)
        h = self.ffn_norm(h + self.attention(h, place, cache))
        return h + self.ffn(h), None


class CutGradient(Block):
    """A `detach` too many: branches compute, and no gradient reaches their weights. Embedding and head learn alone."""

    def forward(self, h: Tensor, place: Place, cache: LayerCache | None = None) -> tuple[Tensor, None]:
        h = h + self.attention(self.attention_norm(h), place, cache).detach()
        return h + self.ffn(self.ffn_norm(h)).detach(), None


class OverTokens(RMSNorm):
    """The mean of squares runs over the tokens, not over a token's own numbers: each token feels those that come after it."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(-2, keepdim=True) + self.eps).rsqrt() * self.weight


class SumForMean(RMSNorm):
    """Divides by the root of the sum of squares: everything after a norm is sqrt(D) times too small."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().sum(-1, keepdim=True) + self.eps).rsqrt() * self.weight


BUGS = {"no residual": NoResidual, "residual of the norm": NormedResidual, "cut gradient": CutGradient, "norm over tokens": OverTokens,
        "sum for mean": SumForMean}
