"""How good a model is on text that it has not seen: bits per byte, how busy its experts were, and which drafts would stand."""

from dataclasses import dataclass

import torch
from torch import Tensor

from minimodels.data import bits_per_byte
from minimodels.model import Transformer
from minimodels.mtp import losses
from minimodels.sampling import distribution


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
    Computed in the weights' own type, without autocast, so that runs in bf16 and fp32 compare.
    Bits per byte compare models with different tokenizers: total nats / (ln 2 * n_bytes).
    Raises ValueError for fewer than two tokens, a window of one, or no bytes.
    """
    if len(tokens) < 2:
        raise ValueError(f"tokens must hold at least 2, because a token is predicted from those before it, got {len(tokens)}")
    if seq_len < 2 or batch_size < 1 or n_bytes < 1:
        raise ValueError(f"seq_len must be at least 2, batch_size and n_bytes at least 1, got {seq_len}, {batch_size}, {n_bytes}")
    was_training = model.training
    model.eval()
    depths = 1 + len(model.mtp)
    total, count = torch.zeros(depths, dtype=torch.float64), torch.zeros(depths, dtype=torch.float64)
    load = [torch.zeros_like(gate.bias, dtype=torch.int64, device="cpu") for gate in model.gates]
    try:
        for batch in windows(tokens, seq_len, batch_size):
            batch = batch.to(model.embed.weight.device)
            out = model(batch)
            # a last short window may have no target for a depth, or no token for its module at all
            for k, loss in enumerate(losses(out, batch)):
                n_targets = len(batch) * (batch.shape[1] - 1 - k)
                total[k] += loss.item() * n_targets
                count[k] += n_targets
            for sum_of_layer, n in zip(load, out.load):
                sum_of_layer += n.cpu()
    finally:
        model.train(was_training)
    mean = (total / count.clamp(min=1)).tolist()
    return Evaluation(mean[0], mean[1:], bits_per_byte(total[0].item(), n_bytes), int(count[0]), load)


@torch.inference_mode()
def acceptance(model: Transformer, tokens: Tensor, *, temperature: float = 0.0) -> list[Tensor]:
    """How likely a draft of each MTP depth would stand, on a text that is given (teacher forcing): for depth k (B, T - k).

    tokens: (B, T), int64. Depth k at position i drafts token i + k + 1, for which the main model stands at position i + k.
    Greedy: 1 where both have the same argmax, else 0. Sampled: the sum over all tokens of min(p, q), which is the mean of
    min(1, p / q) over drafts from q (Leviathan et al., 2023, section 3.2). The tokens between are the text's, not drafts.
    """
    out = model(tokens)
    p = distribution(out.logits, temperature=temperature)  # (B, T, V)
    return [torch.minimum(p[:, k:], distribution(q, temperature=temperature)).sum(-1) for k, q in enumerate(out.mtp_logits, start=1)]


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
