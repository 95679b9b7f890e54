"""How good a model is on text that it has not seen: bits per byte, and how busy its experts were."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from minimodels.model import Transformer
from minimodels.mtp import losses


@dataclass
class Evaluation:
    """loss: mean cross-entropy, nats a token. mtp_loss: the same for each MTP depth. bits_per_byte: of the whole text.
    n_tokens: tokens predicted. load: for each layer with experts, tokens an expert got (E,), over all the text.
    """

    loss: float
    mtp_loss: list[float]
    bits_per_byte: float
    n_tokens: int
    load: list[Tensor]


@torch.inference_mode()
def evaluate(model: Transformer, tokens: Tensor, *, n_bytes: int, seq_len: int, batch_size: int = 32) -> Evaluation:
    """Predict every token but the first once, from at most seq_len - 1 before it in its window.

    tokens: (N,), any integer type, such as a memory-mapped file's. n_bytes: length of the text they encode, in UTF-8.
    Bits per byte compare models with different tokenizers: total nats / (ln 2 * n_bytes).
    """
    if len(tokens) < 2:
        raise ValueError(f"tokens must hold at least 2, because a token is predicted from those before it, got {len(tokens)}")
    was_training = model.training
    model.eval()
    total, count, load = 0.0, 0.0, 0
    for batch in windows(tokens, seq_len, batch_size):
        out = model(batch.to(model.embed.weight.device))
        n_targets = torch.tensor([len(batch) * (batch.shape[1] - 1 - k) for k in range(len(out.normed))], dtype=torch.float64)
        each = [loss if n else loss.new_zeros(()) for loss, n in zip(losses(out, batch.to(out.hidden.device)), n_targets)]
        full = torch.zeros(1 + len(model.mtp), dtype=torch.float64)
        full[:len(each)] = torch.stack(each).double().cpu() * n_targets
        total, count = total + full, count + torch.nn.functional.pad(n_targets, (0, len(full) - len(n_targets)))
        load = [a + b.cpu() for a, b in zip(load, out.load)] if load else [b.cpu() for b in out.load]
    model.train(was_training)
    mean = (total / count.clamp(min=1)).tolist()
    return Evaluation(mean[0], mean[1:], total[0].item() / math.log(2) / n_bytes, int(count[0]), load)


def windows(tokens: Tensor, seq_len: int, batch_size: int):
    """Batches (b, seq_len) of windows that overlap by one token, so that each is predicted once; what is left comes last."""
    tokens = torch.as_tensor(tokens[:].astype("int64") if hasattr(tokens, "astype") else tokens, dtype=torch.int64)
    stride = seq_len - 1
    n_full = (len(tokens) - 1) // stride
    starts = torch.arange(n_full) * stride
    for some in starts.split(batch_size):
        if len(some):
            yield tokens[some[:, None] + torch.arange(seq_len)]
    rest = tokens[n_full * stride:]
    if len(rest) > 1:
        yield rest[None]
