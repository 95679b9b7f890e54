"""Chapter 07: what the experts of the trained checkpoint are sent, how many a batch touches, and what is lost without one.

Nothing is trained here: the model is data/checkpoints/cpu-long, the text its validation text.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from minimodels import lab
from minimodels.checkpoint import Run
from minimodels.data import bits_per_byte, prepare, token_bytes
from minimodels.kinds import KINDS, of_tokens
from minimodels.model import Transformer
from minimodels.studies import Study
from minimodels.studies.moe import without_first_choice, without_shared

CHECKPOINT = "checkpoints/cpu-long"
T = 256                                  # tokens that the model reads at a time, as in training
BATCHES = (1, 2, 4, 8, 16, 32, 64)       # tokens of which the experts are counted
ENGLISH = tuple(KINDS.index(kind) for kind in ("string", "comment", "not Python"))
SHARES = (1 / 2, 1 / 4, 1 / 8, 1 / 16)   # of a dense layer's hidden numbers that are kept
SCORED = 128                             # windows on which changed models are scored


@dataclass
class Reading:
    """A text as a model routed it, N tokens in windows of 256. token, kind (a place in KINDS, -1 at a document's end), file: (N,).

    first: {layer: (N,)}, the expert with the largest weight. chosen: {layer: (N, K)}.
    """

    token: Tensor
    kind: Tensor
    file: Tensor
    first: dict[int, Tensor]
    chosen: dict[int, Tensor]

    @property
    def half(self) -> Tensor:
        """(N,), whether a token is in an even window: what is learnt on one half is tested on the other."""
        return torch.arange(len(self.token)) // T % 2 == 0


def labels(tokens: Tensor, tokenizer) -> tuple[Tensor, Tensor]:
    """Of each token of documents that end with token 0, its kind, a place in KINDS (the end: -1), and its document: (N,), (N,)."""
    sizes, kind, file = token_bytes(tokenizer), [], []
    for n, document in enumerate(tokens.tensor_split((tokens == 0).nonzero().flatten() + 1)):
        body = document[document != 0].tolist()
        kind += [KINDS.index(k) for k in of_tokens(tokenizer.decode(body), sizes[body].tolist())] + [-1] * (len(document) - len(body))
        file += [n] * len(document)
    return torch.tensor(kind), torch.tensor(file)


@torch.inference_mode()
def choices(model: Transformer, windows: Tensor) -> dict[int, Tensor]:
    """The experts of each token of windows (n, T), the one with the largest weight first: {layer: (n T, K)}."""
    found = {i: [] for i in range(model.config.n_layers) if model.config.is_moe_layer(i)}
    for batch in windows.split(16):
        routing = model(batch).routing
        for layer, parts in found.items():
            order = routing[layer].weight.argsort(dim=-1, descending=True, stable=True)
            parts.append(routing[layer].expert.gather(1, order))
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def read(model: Transformer, tokens: Tensor, tokenizer) -> Reading:
    """Route whole windows of a stream of documents."""
    kind, file = labels(tokens, tokenizer)
    n = len(tokens) // T * T
    chosen = choices(model, tokens[:n].view(-1, T))
    return Reading(tokens[:n], kind[:n], file[:n], {layer: each[:, 0] for layer, each in chosen.items()}, chosen)


def told(label: Tensor, expert: Tensor, half: Tensor, *, n_experts: int, pull: float = 5.0) -> float:
    """Bits about a token's expert that its label tells, learnt on one half of the text and tested on the other; the mean of both ways.

    A label's shares are pulled towards those of all tokens, as if `pull` tokens more had been seen. Below 0: the label misleads.
    label, expert, half: (N,).
    """
    saved = []
    for learnt in (half, ~half):
        n = torch.zeros(int(label.max()) + 1, n_experts, dtype=torch.float64)
        n.index_put_((label[learnt], expert[learnt]), torch.ones((), dtype=torch.float64), accumulate=True)
        base = (n.sum(0) + 1) / (n.sum() + n_experts)  # (E)
        share = (n + pull * base) / (n.sum(1, keepdim=True) + pull)  # (labels, E)
        saved.append((share[label[~learnt], expert[~learnt]] / base[expert[~learnt]]).log2().mean().item())
    return sum(saved) / 2


def uncertainty(expert: Tensor) -> float:
    """Entropy of the experts' shares, in bits."""
    share = torch.bincount(expert).double() / len(expert)
    return -(share * share.clamp(min=1e-12).log2()).sum().item()


def information(label: Tensor, expert: Tensor, *, n_experts: int) -> float:
    """Mutual information of two labels of the same tokens, in bits, by their counts."""
    n = torch.bincount(label * n_experts + expert, minlength=(int(label.max()) + 1) * n_experts).double().view(-1, n_experts)
    expected = n.sum(1, keepdim=True) * n.sum(0, keepdim=True) / n.sum()
    return (n / n.sum() * (n / expected.clamp(min=1e-12)).clamp(min=1e-12).log2()).sum().item()


def rotated(label: Tensor, expert: Tensor, *, n_experts: int, n_trials: int = 199) -> list[float]:
    """What `information` is by chance: with the labels moved along the text by a random distance, so that both keep their order."""
    shifts = torch.randint(1000, len(label) - 1000, (n_trials,), generator=torch.Generator().manual_seed(0))
    return [information(label.roll(int(shift)), expert, n_experts=n_experts) for shift in shifts]


def clusters(model: Transformer, n: int = len(KINDS), *, steps: int = 20) -> Tensor:
    """n groups of tokens with similar embeddings, by k-means on their directions: a group for each row of the vocabulary."""
    x = F.normalize(model.embed.weight.detach(), dim=1)
    centre = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:n]]
    for _ in range(steps):
        group = torch.cdist(x, centre).argmin(1)
        centre = torch.stack([x[group == i].mean(0) if (group == i).any() else centre[i] for i in range(n)])
    return group


def guesses(model: Transformer, reading: Reading) -> dict[str, Tensor]:
    """The labels that may tell a token's expert, by name."""
    return {"the token itself": reading.token, "the token before": reading.token.roll(1), "its kind": reading.kind.clamp(min=0),
            "its group of embeddings": clusters(model)[reading.token], "code or English": torch.isin(reading.kind, torch.tensor(ENGLISH)).long(),
            "its file": reading.file}


def touched(chosen: Tensor, n_tokens: int, *, consecutive: bool, n_trials: int = 400) -> float:
    """How many experts n_tokens touch, in the mean: tokens that stand one after another, or from anywhere in the text.

    The latter are what a batch of unrelated conversations decodes at once. chosen: (N, K).
    """
    g = torch.Generator().manual_seed(n_tokens)
    if consecutive:
        at = torch.randint(len(chosen) - n_tokens, (n_trials, 1), generator=g) + torch.arange(n_tokens)
    else:
        at = torch.randint(len(chosen), (n_trials, n_tokens), generator=g)
    return sum(len(some.unique()) for some in chosen[at]) / n_trials


@torch.inference_mode()
def surprise(model: Transformer, windows: Tensor) -> Tensor:
    """The loss at each token but the last of each window, nats: what the next token cost. (n, T) -> (n, T - 1)."""
    parts = []
    for batch in windows.split(16):
        logits = model(batch).logits[:, :-1]
        parts.append(F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none").unflatten(0, (len(batch), -1)))
    return torch.cat(parts)


def without_expert(model: Transformer, layer: int, expert: int) -> Transformer:
    """A copy of model in which no token can choose this expert; the next best takes its place."""
    other = copy.deepcopy(model)
    other.layers[layer].ffn.gate.bias[expert] = -100
    return other


def damage(model: Transformer, layer: int, expert: int, windows: Tensor, kind: Tensor, right: Tensor) -> dict[str, float]:
    """How much the loss rises without an expert, nats a token, by the kind of the token that is read, and for all.

    kind: (n, T). right: the losses with all experts, (n, T - 1). A kind with fewer than 50 tokens is left out.
    """
    more, kind = surprise(without_expert(model, layer, expert), windows) - right, kind[:, :-1]
    seen = {name: more[kind == k] for k, name in enumerate(KINDS)}
    return {"all": more.mean().item()} | {name: each.mean().item() for name, each in seen.items() if len(each) >= 50}


def thinned(model: Transformer, share: float, *, by: str, importance: list[Tensor] | None = None) -> Callable[[], None]:
    """Keep of each dense layer's hidden numbers only a share: by "token", the largest of each token; by "all", the same for all, the
    most important; by "dice", any. Size counts with the length of the column of w_down that it meets. Returns what ends it.
    """
    hooks = []
    for i, block in enumerate(model.layers):
        def keep(module, args, i=i):
            size = args[0].abs() * module.weight.norm(dim=0)
            score = {"token": lambda: size, "all": lambda: importance[i].expand_as(size), "dice": lambda: torch.rand_like(size)}[by]()
            kept = score.topk(round(share * size.shape[-1]), dim=-1).indices
            return torch.zeros_like(args[0]).scatter(-1, kept, args[0].gather(-1, kept)),
        hooks.append(block.ffn.w_down.register_forward_pre_hook(keep))
    return lambda: [hook.remove() for hook in hooks] and None


def importance(model: Transformer, windows: Tensor) -> list[Tensor]:
    """The mean size of each hidden number of each dense layer, with the length of the column of w_down that it meets: (D_f) a layer."""
    sizes, hooks = [], []
    for block in model.layers:
        hooks.append(block.ffn.w_down.register_forward_pre_hook(
            lambda module, args: sizes.append((args[0].abs() * module.weight.norm(dim=0)).mean((0, 1)))))
    with torch.inference_mode():
        model(windows)
    for hook in hooks:
        hook.remove()
    return sizes


def bits(model: Transformer, windows: Tensor, n_bytes: int) -> float:
    """Bits per byte of windows (n, T), each read alone."""
    return bits_per_byte(surprise(model, windows).sum().item(), n_bytes)


def bytes_of(windows: Tensor, tokenizer) -> int:
    """Bytes of all tokens that are predicted: of each window's but the first."""
    return int(token_bytes(tokenizer)[windows[:, 1:].flatten().numpy()].sum())


@dataclass(frozen=True, kw_only=True)
class Routed:
    """All of the above of one checkpoint, in about two minutes."""

    arm: str
    seed: int
    checkpoint: str = CHECKPOINT
    dense: str = "checkpoints/yardstick"

    def settings(self) -> dict:
        return {"checkpoint": self.checkpoint, "dense": self.dense, "seq_len": T, "scored_windows": SCORED}

    def run(self) -> dict:
        torch.manual_seed(self.seed)
        model, dense = (Run.open(lab.data_file(name)).model().eval() for name in (self.checkpoint, self.dense))
        data = prepare("stdlib", vocab_size=model.config.vocab_size)
        tokens, E = torch.tensor(data.valid[:].astype("int64")), model.config.n_experts
        reading = read(model, tokens, data.tokenizer)
        windows, kind = (each.view(-1, T)[:SCORED] for each in (reading.token, reading.kind))
        n_bytes, real = bytes_of(windows, data.tokenizer), reading.kind >= 0
        layers = {}
        for layer, first in reading.first.items():
            chance = rotated(reading.kind[real], first[real], n_experts=E)
            layers[layer] = {
                "uncertainty": round(uncertainty(first), 4),
                "told": {name: round(told(label, first, reading.half, n_experts=E), 4) for name, label in guesses(model, reading).items()},
                "information": round(information(reading.kind[real], first[real], n_experts=E), 4), "by_chance": [round(x, 4) for x in chance],
                "kinds": torch.stack([torch.bincount(first[reading.kind == k], minlength=E) for k in range(len(KINDS))]).tolist(),
                "touched": {B: [round(touched(reading.chosen[layer], B, consecutive=c), 3) for c in (False, True)] for B in BATCHES},
            }
        last, right = max(reading.first), surprise(model, windows)
        changed = {"right": model, "without the shared": without_shared(model), "without the first choice": without_first_choice(model)}
        thin = {"all": round(bits(dense, windows, n_bytes), 5)}
        sizes = importance(dense, windows)
        for share in SHARES:
            for by in ("token", "all"):
                end = thinned(dense, share, by=by, importance=sizes)
                thin[f"{share:g} by {by}"] = round(bits(dense, windows, n_bytes), 5)
                end()
        return {"n_tokens": len(reading.token), "n_files": int(reading.file.max()) + 1, "layers": layers,
                "damage": {e: {name: round(x, 4) for name, x in damage(model, last, e, windows, kind, right).items()} for e in range(E)},
                "bits_per_byte": {name: round(bits(each, windows, n_bytes), 5) for name, each in changed.items()}, "thinned": thin}


STUDIES = [Study(name="moe-routing", question="What do the experts of the trained model divide the text by, and what is lost without one?",
                 trials=(Routed(arm="cpu-long", seed=0),))]
