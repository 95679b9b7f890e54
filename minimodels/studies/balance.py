"""Chapter 08: what keeps experts equally busy, and what that costs in loss."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from minimodels import kinds
from minimodels.balance import max_violation
from minimodels.bugs.balance import BUGS
from minimodels.config import TrainConfig
from minimodels.data import Batches, Dataset, prepare, token_bytes
from minimodels.evaluate import evaluate, windows
from minimodels.model import Transformer
from minimodels.studies import Planted, Study, Training
from minimodels.studies.moe import MODELS, RECIPE, SEEDS, YARDSTICK, split
from minimodels.train import train

MODEL = MODELS["fine + shared"]
BALANCED = replace(RECIPE, muon_lr=0.01, eval_every=0)
EVERY = 10                                     # steps between two records of the load

SWEEP = {
    "none": dict(balance="none"),
    **{f"bias {rate:g}": dict(balance="bias", balance_rate=rate) for rate in (0.001, 0.003, 0.01, 0.03, 0.1)},
    **{f"{scope} {weight:g}": dict(balance=scope, balance_weight=weight) for scope in ("sequence", "batch") for weight in (0.001, 0.01, 0.1)},
    "bias 0.01 + sequence 0.0001": dict(balance="bias+sequence", balance_rate=0.01, balance_weight=1e-4),
}
CHOSEN = ("none", "bias 0.01", "sequence 0.01", "batch 0.01")  # of the sweep; the losses at the weight that is about as even as the bias

# What the chapter trains while you read: 0.5 million parameters, sixteen experts in both layers.
LIVE_MODEL = replace(YARDSTICK, d_model=64, n_layers=2, n_heads=4, n_dense_layers=0, n_experts=16, top_k=2, n_shared=1, d_expert=32)
LIVE = replace(TrainConfig.preset("yardstick"), steps=120, seq_len=128)
LIVE_BYTES = 3_000_000

# Where experts fall idle sooner: one choice a token; a gate that learns four times as fast; V2's gate, in which affinities share one sum.
COLLAPSE = {
    "top-1": (split(8, 1, normalise_weights=False), {}),
    "faster gate": (MODEL, dict(lr=0.02)),
    "softmax": (replace(MODEL, gate="softmax"), {}),
}

LIMITED = {groups: replace(MODELS["fine"], n_groups=8, top_groups=groups) for groups in (2, 4)}
LIMITED_RATE = 0.02                            # that of the unlimited model, chapter 07's "fine"


@dataclass(frozen=True, kw_only=True)
class Balanced(Training):
    """Training of which the load is kept: MaxVio of each layer's batch every few steps, and each expert's load on the validation text."""

    def run(self) -> dict:
        data = prepare(self.data, self.model.vocab_size, max_bytes=self.max_bytes)
        model, config = self.build(), self.training
        batches = Batches(data.train, batch_size=config.batch_size, seq_len=config.seq_len, seed=self.seed)
        violation = [[record.step, *(round(max_violation(torch.tensor(load)), 3) for load in record.load)]
                     for record in train(model, batches, config) if record.step % EVERY == 0]
        score = evaluate(model, data.valid, n_bytes=data.valid_bytes, seq_len=config.seq_len)
        return {"bits_per_byte": round(score.bits_per_byte, 5), "max_violation": [round(max_violation(layer), 3) for layer in score.load],
                "load": [layer.tolist() for layer in score.load], "violation": violation} | self.examine(model, data)


@dataclass(frozen=True, kw_only=True)
class Specialised(Balanced):
    """Balanced, and then asked how much an expert's number tells about the file and the kind of a token."""

    def examine(self, model: Transformer, data: Dataset) -> dict:
        """Of each layer: window_violation, the mean MaxVio of single sequences; by_kind, load by kind of token; information, see `specialisation`."""
        kind, file = labels(data)
        rows = choices(model, data, self.training.seq_len)
        n = rows[0].shape[0]
        T, E = self.training.seq_len - 1, self.model.n_experts
        return {"window_violation": [round(window_violation(expert, T, E), 3) for expert in rows],
                "by_kind": [crossed(kind[:n], expert, len(kinds.KINDS), E).tolist() for expert in rows],
                "information": {name: [specialisation(label[:n], expert, E) for expert in rows]
                                for name, label in (("file", file), ("kind", kind))}}


@dataclass(frozen=True, kw_only=True)
class Misbalanced(Planted):
    """Training with a bug planted in every gate or layer of experts, and the loads that its experts really get."""

    BUGS = BUGS

    def examine(self, model: Transformer, data: Dataset) -> dict:
        """max_violation: of each layer on the validation text, as counted by this study. bias: its smallest and largest value in each layer."""
        E = self.model.n_experts
        load = [torch.bincount(expert.flatten(), minlength=E) for expert in choices(model, data, self.training.seq_len)]
        return {"max_violation": [round(max_violation(layer), 3) for layer in load],
                "bias": [[round(value, 3) for value in (gate.bias.min().item(), gate.bias.max().item())] for gate in model.gates]}


def labels(data: Dataset) -> tuple[Tensor, Tensor]:
    """What each token of the validation text is: its kind, as an index into KINDS, and the number of its file. (N,) both, int64."""
    tokens = np.asarray(data.valid)
    sizes, names = token_bytes(data.tokenizer)[tokens], []
    text = data.valid_text().encode()
    ends = [0, *(np.flatnonzero(tokens == 0) + 1)]
    begin = 0
    for a, b in zip(ends, ends[1:]):
        end = begin + int(sizes[a:b].sum())
        names += kinds.of_tokens(text[begin:end].decode(), sizes[a:b].tolist())
        begin = end
    file = np.concatenate([[0], np.cumsum(tokens == 0)[:-1]])
    return torch.tensor([kinds.KINDS.index(name) for name in names]), torch.from_numpy(file.astype("int64"))


@torch.inference_mode()
def choices(model: Transformer, data: Dataset, seq_len: int) -> list[Tensor]:
    """For each layer with experts, those that each token of the validation text got, in its order: (N, K).

    Sequences overlap by the token that is only predicted; a last, shorter sequence is left out.
    """
    model.eval()
    rows = []
    for batch in windows(data.valid, seq_len, 32):
        if batch.shape[1] == seq_len:
            routing = [r for r in model(batch).routing if r is not None]
            rows.append([r.expert.unflatten(0, (len(batch), -1))[:, :-1].flatten(0, 1) for r in routing])  # the last one stands in the next
    return [torch.cat(layer) for layer in zip(*rows)]


def window_violation(expert: Tensor, length: int, n_experts: int) -> float:
    """The mean over sequences of length tokens of MaxVio within a sequence. expert: (N, K)."""
    each = [max_violation(torch.bincount(part.flatten(), minlength=n_experts)) for part in expert.split(length) if len(part) == length]
    return sum(each) / len(each)


def crossed(label: Tensor, expert: Tensor, n_labels: int, n_experts: int) -> Tensor:
    """How many choices fall on each label and expert: (n_labels, n_experts). label: (N,); expert: (N, K)."""
    return torch.bincount((label[:, None] * n_experts + expert).flatten(), minlength=n_labels * n_experts).view(n_labels, n_experts)


def information(table: Tensor) -> float:
    """Mutual information of a table's rows and columns, bits: how much one tells about the other. table: counts, (R, C)."""
    p = table.double() / table.sum()
    even = p.sum(1, keepdim=True) * p.sum(0, keepdim=True)
    return torch.special.xlogy(p, p / even.clamp(min=1e-300)).sum().item() / math.log(2)


def specialisation(label: Tensor, expert: Tensor, n_experts: int, n_shifts: int = 100) -> list[float]:
    """Bits that an expert's number tells about the label of its token; the same for labels shifted along the text, mean and largest of
    n_shifts; and the entropy of the load, which is the most that there could be.

    label: (N,); expert: (N, K). A shift keeps both rows as they are and breaks what joins them.
    """
    R, N = int(label.max()) + 1, len(label)
    found = information(crossed(label, expert, R, n_experts))
    shifts = torch.randint(N // 20, N - N // 20, (n_shifts,), generator=torch.Generator().manual_seed(0)).tolist()
    by_chance = [information(crossed(label.roll(shift), expert, R, n_experts)) for shift in shifts]
    load = torch.bincount(expert.flatten(), minlength=n_experts).double()
    entropy = -torch.special.xlogy(load / load.sum(), load / load.sum()).sum().item() / math.log(2)
    return [round(value, 4) for value in (found, sum(by_chance) / n_shifts, max(by_chance), entropy)]


STUDIES = [
    Study(name="balance-sweep", question="How balanced are the experts, and at which loss, by method and strength?",
          trials=tuple(Balanced(arm=arm, seed=0, model=MODEL, training=replace(BALANCED, seed=0, **changes)) for arm, changes in SWEEP.items())),
    Study(name="balance-quality", question="Equally balanced by a bias, by a loss on sequences and by a loss on batches: which model predicts best?",
          trials=tuple(Specialised(arm=arm, seed=seed, model=MODEL, training=replace(BALANCED, seed=seed, **SWEEP[arm]))
                       for seed in SEEDS for arm in CHOSEN)),
    Study(name="balance-bugs", question="Does a planted bug in the balancing show in the loss?",
          trials=tuple(Misbalanced(arm=bug or "right", seed=seed, bug=bug, model=MODEL, training=replace(BALANCED, steps=200, eval_every=50, seed=seed))
                       for seed in SEEDS[:3] for bug in (None, *BUGS))),
    Study(name="balance-live", question="Where does the chapter's short run end, over seeds?",
          trials=tuple(Balanced(arm=balance, seed=seed, model=LIVE_MODEL, training=replace(LIVE, balance=balance, seed=seed), max_bytes=LIVE_BYTES)
                       for seed in range(1, 7) for balance in ("none", "bias"))),
    Study(name="balance-collapse", question="Without any balancing: where do experts fall idle?",
          trials=tuple(Balanced(arm=arm, seed=seed, model=model, training=replace(BALANCED, balance="none", seed=seed, **changes))
                       for seed in SEEDS[:2] for arm, (model, changes) in COLLAPSE.items())),
    Study(name="balance-groups", question="What does it cost to choose among few groups of experts? The model without a limit is moe-quality's fine.",
          trials=tuple(Balanced(arm=f"{groups} of 8 groups", seed=seed, model=model, training=replace(BALANCED, muon_lr=LIMITED_RATE, seed=seed))
                       for seed in SEEDS[:3] for groups, model in LIMITED.items())),
]
