"""A gate that routes made-up tokens: what a bias does to the loads of its experts, and what an auxiliary loss does to their affinities."""

from functools import reduce
from types import SimpleNamespace

import torch
import traitlets as t
from torch import Tensor

from minimodels.balance import max_violation, update_bias
from minimodels.explorables.base import Explorable, figures, table
from minimodels.moe import Routing

PRESETS = {
    "Nothing": dict(gamma=0.0, alpha=0.0),
    "Bias": dict(gamma=0.01, alpha=0.0),
    "Bias, too fast": dict(gamma=0.1, alpha=0.0),
    "Auxiliary loss": dict(gamma=0.0, alpha=1.0),
}
KEPT = 400    # steps whose MaxVio is remembered
FULL = 2**32


class Router(Explorable):
    """Affinities s = sigmoid(z) of T tokens for E experts, K experts a token, and after each step two ways to even out the loads.

        z_ti = skew (E + 1 - 2i) / (E - 1) + moved_i + noise_ti,  i = 1..E      expert 1 is liked best; noise: see `noise`
        chosen = top_k(s + bias)
        bias_i  += gamma sign(mean load - load_i)                               `minimodels.balance.update_bias`
        moved_i -= alpha dL/dmoved_i,  L = sum_i f_i P_i                        `minimodels.balance.batch_loss`
        dL/dmoved_i = mean_t  s_ti (1 - s_ti) / S_t  (f_i - sum_j f_j s_tj / S_t),  S_t = sum_j s_tj,  f_i = load_i / mean load

    Each step has fresh tokens. gamma is V3's; alpha is the weight of the loss times a learning rate, so no paper's. All of it is float64
    with +, -, * and / alone, sums go from first to last, and of equals the first is chosen: so router.js computes the same bits.
    Source: DeepSeek-V3 eqs. 12-16 and section 4.5.3. Left out: whatever else is learnt. So no expert gets better by being busy (the skew
    stays as it is set), and no language model's loss pulls the affinities back.
    """

    name = "router"

    top_k = t.Enum([2, 4], 2).tag(sync=True)        # K
    skew = t.Float(1.5, min=0).tag(sync=True)       # in standard deviations of the noise
    gamma = t.Float(0.0, min=0).tag(sync=True)      # how far a step moves a bias
    alpha = t.Float(0.0, min=0).tag(sync=True)      # how far a step goes down the auxiliary loss's gradient
    seed = t.Int(0, min=0, max=FULL - 1).tag(sync=True)
    n_experts = t.Int(16, min=4).tag(sync=True)     # E
    n_tokens = t.Int(512, min=1).tag(sync=True)     # T
    steps = t.Int(0, min=0).tag(sync=True)          # taken so far; the batch that is shown is the next step's
    bias = t.List().tag(sync=True)                  # (E,)
    moved = t.List().tag(sync=True)                 # (E,), what the auxiliary loss has added to the logits
    history = t.List().tag(sync=True)               # MaxVio before each of the last KEPT steps
    presets = t.Dict(PRESETS).tag(sync=True)

    def __init__(self, **values):
        """Bias and what was moved begin at 0."""
        zeros = [0.0] * values.get("n_experts", 16)
        super().__init__(**{"bias": zeros, "moved": zeros} | values)
        for name in ("bias", "moved"):
            if len(getattr(self, name)) != self.n_experts:
                raise ValueError(f"{name} must have n_experts={self.n_experts} values, got {len(getattr(self, name))}")

    @classmethod
    def preset(cls, name: str, **values) -> "Router":
        """The gate balanced in the way called name; values go on top. Raises ValueError with the names that exist."""
        if name not in PRESETS:
            raise ValueError(f"preset must be one of {'; '.join(PRESETS)}, got {name!r}")
        return cls(**PRESETS[name] | values)

    def score(self, moved: list[float] | None = None) -> Tensor:
        """Affinities of the tokens of this step, by default with what the auxiliary loss has moved: (T, E), float64."""
        E = self.n_experts
        centre = [self.skew * (E - 1 - 2 * i) / (E - 1) + by for i, by in enumerate(self.moved if moved is None else moved)]
        z = torch.tensor(centre, dtype=torch.float64) + noise(self.steps, self.n_tokens, E, self.seed)  # (T, E)
        return 1 / (1 + exp(-z))

    def routing(self) -> Routing:
        """What the gate decides for the tokens of this step; batch_loss takes it."""
        score = self.score()
        biased = score + torch.tensor(self.bias, dtype=torch.float64)
        expert = biased.sort(dim=1, descending=True, stable=True).indices[:, :self.top_k]  # (T, K)
        weight = score.gather(1, expert)
        return Routing(score, expert, weight / weight.sum(1, keepdim=True), torch.bincount(expert.flatten(), minlength=self.n_experts))

    def gradient(self) -> Tensor:
        """Of the auxiliary loss, by what it moves: (E,). f counts choices, so nothing flows through it."""
        routing = self.routing()
        s, f = routing.score, routing.load.double() / routing.load.double().mean()
        S = total(s.T)[:, None]  # (T, 1)
        return total(s * (1 - s) / S * (f - total((f * s).T)[:, None] / S)) / self.n_tokens

    def advance(self, steps: int = 1) -> "Router":
        """Take some steps: bias and affinities move by what the batch shows, and then comes the next one. Returns itself."""
        for _ in range(steps):
            load, gradient = self.routing().load, self.gradient()
            gate = SimpleNamespace(bias=torch.tensor(self.bias, dtype=torch.float64))
            update_bias(gate, load, self.gamma)
            moved = torch.tensor(self.moved, dtype=torch.float64) - self.alpha * gradient
            with self.hold_sync():
                self.bias, self.moved = gate.bias.tolist(), moved.tolist()
                self.history = [*self.history, max_violation(load)][-KEPT:]
                self.steps += 1
        return self

    def measures(self) -> dict:
        """What the page shows of this step's batch: load, affinity and start by expert, and three numbers.

        affinity: the mean over tokens; start: the same without what the loss moved. max_violation: (largest load - mean) / mean.
        elsewhere: share of tokens that do not get their best expert by affinity. changed: share whose best expert by affinity is not the
        one that it would be had nothing moved.
        """
        routing, start = self.routing(), self.score([0.0] * self.n_experts)
        first = routing.score.argmax(1)
        return {
            "load": routing.load.tolist(),
            "affinity": (total(routing.score) / self.n_tokens).tolist(),
            "start": (total(start) / self.n_tokens).tolist(),
            "max_violation": max_violation(routing.load),
            "elsewhere": (routing.expert != first[:, None]).all(1).sum().item() / self.n_tokens,
            "changed": (first != start.argmax(1)).sum().item() / self.n_tokens,
        }

    def summary(self) -> str:
        now = self.measures()
        return (f"after {self.steps:,} steps with gamma {self.gamma:g}, alpha {self.alpha:g}: MaxVio {figures(now['max_violation'])}; "
                f"{figures(100 * now['elsewhere'])} % of the tokens go elsewhere than their first choice")

    def fallback(self) -> str:
        now = self.measures()
        rows = [[str(i + 1), str(now["load"][i]), f"{now['affinity'][i]:.3f}", f"{round(self.bias[i], 3) + 0.0:.3f}".replace("-", "−")]
                for i in range(self.n_experts)]
        caption = (f"{self.n_tokens} tokens, {self.top_k} experts each, after {self.steps:,} steps with bias speed {self.gamma:g} and auxiliary "
                   f"loss {self.alpha:g}: MaxVio {figures(now['max_violation'])}")
        return table(caption, ["Expert", "Tokens", "Mean affinity", "Bias"], rows)


def mix(x: Tensor) -> Tensor:
    """A well-mixed 32-bit number for each in x, one to one. Source of the constants: Wellons, hash-prospector."""
    x = (x ^ (x >> 16)) * 0x21F0AAAD % FULL
    x = (x ^ (x >> 15)) * 0x735A2D97 % FULL
    return x ^ (x >> 15)


def noise(step: int, n_tokens: int, n_experts: int, seed: int) -> Tensor:
    """Nearly normal numbers with mean 0 and variance 1: the sum of four even ones, two hashes' halves. (T, E), float64, within 3.47."""
    count = torch.arange(2 * n_tokens * n_experts) + 2 * n_tokens * n_experts * step
    word = mix((mix(count % FULL) + 0x9E3779B9 * seed) % FULL).view(n_tokens, n_experts, 2)
    halves = ((word >> 16) + word % 65536).sum(2)  # 0 to 4 * 65535
    return (halves - 131_070).double() / 65536 * 1.7320508075688772  # four even ones have variance 4/12


def exp(x: Tensor) -> Tensor:
    """e^x by Taylor's series of x / 64, squared six times: right to some 14 digits for |x| < 20, and to the same bit everywhere."""
    y, e = x / 64, torch.ones_like(x)
    for n in range(12, 0, -1):
        e = 1 + y / n * e
    for _ in range(6):
        e = e * e
    return e


def total(x: Tensor) -> Tensor:
    """The sum along the first axis, from the first to the last: torch's own order differs between machines."""
    return reduce(torch.add, x.unbind())
