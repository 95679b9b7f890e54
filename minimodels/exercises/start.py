"""Exercises of chapter 00."""

import math

from minimodels.exercises import Exercise, Mutant


def loss_to_bits_per_byte(loss_nats_per_token, n_tokens, n_bytes):
    """The loss in bits for each byte of the text: what a tokenizer cannot flatter.

    loss_nats_per_token: mean cross-entropy, natural logarithm. n_tokens, n_bytes: of the same text.
    """
    bits_per_token = loss_nats_per_token / math.log(2)
    return bits_per_token * n_tokens / n_bytes


def _inputs(rng):
    n_tokens = rng.randint(100, 10_000)
    return rng.uniform(0.5, 8.0), n_tokens, round(n_tokens * rng.uniform(1.5, 6.0))


def _nats(loss_nats_per_token, n_tokens, n_bytes):
    return loss_nats_per_token * n_tokens / n_bytes


def _times_log2(loss_nats_per_token, n_tokens, n_bytes):
    return loss_nats_per_token * math.log(2) * n_tokens / n_bytes


def _per_token(loss_nats_per_token, n_tokens, n_bytes):
    return loss_nats_per_token / math.log(2)


def _upside_down(loss_nats_per_token, n_tokens, n_bytes):
    return loss_nats_per_token / math.log(2) * n_bytes / n_tokens


def _log10(loss_nats_per_token, n_tokens, n_bytes):
    return loss_nats_per_token / math.log(10) * n_tokens / n_bytes


def _bits_per_bit(loss_nats_per_token, n_tokens, n_bytes):
    return loss_nats_per_token / math.log(2) * n_tokens / (8 * n_bytes)


EXERCISES = [
    Exercise(
        solution=loss_to_bits_per_byte,
        inputs=_inputs,
        hint="The text costs loss x n_tokens nats in all. One bit is log(2) nats. Share the bits out over the bytes.",
        mutants=(
            Mutant(function=_nats,
                   hint="This is nats per byte. The loss uses the natural logarithm; one bit is log(2) = 0.693 nats."),
            Mutant(function=_times_log2,
                   hint="A nat is more than a bit, so the number of bits is larger: divide by log(2), do not multiply."),
            Mutant(function=_per_token,
                   hint="This is bits per token. A token stands for several bytes: count both for the whole text."),
            Mutant(function=_upside_down,
                   hint="n_tokens and n_bytes changed places: fewer tokens for the same bytes must cost fewer bits."),
            Mutant(function=_log10,
                   hint="This divides by log(10), which gives decimal digits. A bit halves: divide by log(2)."),
            Mutant(function=_bits_per_bit,
                   hint="This is bits per bit of the text, eight times too small: divide by the bytes, not by their bits."),
        ),
    ),
]
