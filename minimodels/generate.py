"""Writing text: sampling, one batch of prompts of any lengths, and speculative decoding with the MTP modules as drafters.

The main model decides every token. With draft="mtp" the modules propose the next few, one pass of the main model checks all of
them, and what it would not have written is taken back: the same text, or the same law if it is sampled, in fewer passes.
Left out: beam search, repetition penalties, paged caches, trees of drafts, prompts that join a running batch.
"""

import time
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from minimodels.attention import Cache, Place
from minimodels.corpus import END
from minimodels.model import Transformer
from minimodels.sampling import Sampling, check_sampling


def window(x: Tensor, start: list[int], T: int) -> Tensor:
    """x[b, start[b]:start[b] + T] of every row b: (B, T, ...). Where starts differ, a row repeats its last value behind its end."""
    if min(start) == max(start):
        return x[:, start[0]:start[0] + T]
    row, place = _places(x, start, T)
    return x[row, place]


def put(x: Tensor, start: list[int], value: Tensor):
    """x[b, start[b]:start[b] + T] = value[b] for every row b. value: (B, T)."""
    if min(start) == max(start):
        x[:, start[0]:start[0] + value.shape[1]] = value
    else:
        x[_places(x, start, value.shape[1])] = value


def _places(x, start, T):
    place = torch.tensor(start, device=x.device)[:, None] + torch.arange(T, device=x.device)  # (B, T)
    return torch.arange(len(x), device=x.device)[:, None], place.clamp_(max=x.shape[1] - 1)


class Drafter:
    """The MTP modules in a row: module k reads h^(k-1) and the token k places ahead, and drafts the token after it.

    Module k at position i needs token i + k. With tokens 0 .. n known, positions up to n - k are final; the k - 1 positions
    after them stand on drafts, and are computed again when the tokens are known. So of h^(k-1) one state is left over.
    n_draft: tokens to propose. Beyond the number of modules, the last one continues on its own output, as serving systems do
    with DeepSeek-V3's only module. The modules' caches are the layers of cache behind the main model's.
    """

    def __init__(self, model: Transformer, cache: Cache, n_draft: int):
        self.model, self.cache = model, cache
        self.modules = model.mtp[:n_draft]
        B, D = len(cache.lengths), model.config.d_model
        self.left_over = [model.embed.weight.new_zeros(B, 1, D) for _ in self.modules]

    def keep(self, rows: list[int]):
        """Keep only these rows, as `Cache.keep`."""
        self.left_over = [h[rows] for h in self.left_over]

    def propose(self, h: Tensor, old: list[int], new: list[int], text: Tensor, n_draft: int, sampling: Sampling) -> list[Tensor | None]:
        """Write n_draft tokens into text (B, ...) behind its last known token new[b]; returns the q of each.

        h: (B, T, D), the main model's states of positions old[b] .. new[b] - 1 of row b, with anything behind them.
        """
        q, start, left_over = [], list(old), list(self.left_over)
        for k in range(1, len(self.modules) + 1):
            before, start = start, [max(n - k + 1, 0) for n in old]
            T = max(n - s for n, s in zip(new, start))
            if k > 1:
                with_left_over = torch.cat([left_over[k - 1], h], dim=1)
                h = window(with_left_over, [int(now == then) for now, then in zip(start, before)], T)
            h = self._run(k, h[:, :T], text, start)
            if k < len(self.modules):
                self.left_over[k] = window(h, [max(n - k - s, 0) for n, s in zip(new, start)], 1)
            last = window(h, [n - 1 - s for n, s in zip(new, start)], 1)
            q.append(self._choose(last, text, [n + k for n in new], sampling))
        for k in range(len(self.modules) + 1, n_draft + 1):
            last = self._run(len(self.modules), last, text, [n + k - 1 - len(self.modules) for n in new])
            q.append(self._choose(last, text, [n + k for n in new], sampling))
        return q[:n_draft]

    def _run(self, k, h, text, start):
        """h^k (B, T, D) from h^(k-1) (B, T, D), for positions from start[b] on."""
        T = h.shape[1]
        embedded = self.model.embed(window(text, [s + k for s in start], T))
        place = Place.of(self.model.rope, T, h.device, start)
        return self.model.mtp[k - 1](h, embedded, place, self.cache.layers[self.model.config.n_layers + k - 1])[0]

    def _choose(self, h, text, where, sampling):
        token, q = sampling.draft(self.model.head(h)[:, -1])
        put(text, where, token[:, None])
        return q


@dataclass
class Generation:
    """What `decode` wrote, and what it took.

    tokens: for each prompt the new tokens; a stop token, if one was written, is the last. n_passes: passes of the main model
    after those that read the prompts; n_row_passes: the same, with a batch counted once for each row. n_drafted, n_accepted:
    drafts that the main model checked, and those that stood. cache_bytes: the whole cache, MTP modules' layers included.
    seconds: all of it; prefill_seconds: until every row has its first token.
    """

    tokens: list[list[int]]
    n_passes: int = 0
    n_row_passes: int = 0
    n_drafted: int = 0
    n_accepted: int = 0
    seconds: float = 0.0
    prefill_seconds: float = 0.0
    cache_bytes: int = 0

    @property
    def acceptance(self) -> float:
        """Share of the drafts that stood; nan if there were none."""
        return self.n_accepted / self.n_drafted if self.n_drafted else float("nan")

    @property
    def tokens_per_pass(self) -> float:
        """Tokens that a row gained by one pass, on average: 1 without drafts; nan if the prompts' pass was enough."""
        n_after_first = sum(map(len, self.tokens)) - len(self.tokens)
        return n_after_first / self.n_row_passes if self.n_row_passes else float("nan")


@torch.inference_mode()
def decode(model: Transformer, tokens, *, max_new_tokens: int, temperature: float = 0.0, top_k: int | None = None,
           top_p: float | None = None, min_p: float | None = None, draft: str | None = None, n_draft: int | None = None,
           stop_token: int | None = None, generator: torch.Generator | None = None, on_token=None, on_pass=None) -> Generation:
    """Continue each prompt by up to max_new_tokens, or to its stop_token: the same tokens with drafts as without, in fewer passes.

    tokens: (B, T), or a list of B prompts of any lengths (lists or 1-D tensors of token numbers). Sampling as in `distribution`;
    temperature 0 is greedy. draft: None, or "mtp"; n_draft: drafts a pass, mtp_depth if None. generator: None takes torch's own.
    on_token(row, token) is called for each new token as soon as it is certain; before that, on_pass(row, drafts, n_accepted) for
    each pass of the main model: the drafts that it checked, and how many of them stand. The prompts' pass checks none.
    Sampled text with drafts has the law of text without, but another draw. A pass over two tokens may round other than two over
    one; so where two logits tie to the last bit, greedy text with drafts can differ.
    Raises ValueError for an empty prompt, a token outside the vocabulary, a prompt that with max_new_tokens is longer than
    max_seq_len, drafts from a model without MTP modules, or a setting out of its range.
    """
    check_sampling(temperature, top_k, top_p, min_p)
    prompts = _checked(tokens, max_new_tokens, model.config)
    n_draft = _drafts_a_pass(draft, n_draft, model.config.mtp_depth)
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, generator=generator)
    was_training, start = model.training, time.perf_counter()
    model.eval()
    try:
        writer = _Writer(model, prompts, max_new_tokens, n_draft, sampling, stop_token, on_token, on_pass)
        writer.read_prompts()
        writer.result.prefill_seconds = time.perf_counter() - start
        while writer.rows:
            writer.step()
        writer.result.seconds = time.perf_counter() - start
        return writer.result
    finally:
        model.train(was_training)


def _checked(tokens, max_new_tokens, config) -> list[list[int]]:
    prompts = [p.tolist() if isinstance(p, Tensor) else list(p) for p in tokens]
    if not prompts or not all(prompts):
        raise ValueError("tokens must be at least one prompt of at least one token each; a text can start from its end-of-text token")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    wrong = [t for p in prompts for t in p if not 0 <= t < config.vocab_size]
    if wrong:
        raise ValueError(f"tokens must be in [0, vocab_size={config.vocab_size}), got {wrong[0]}; was another tokenizer used?")
    longest = max(map(len, prompts))
    if longest + max_new_tokens > config.max_seq_len:
        raise ValueError(f"max_new_tokens must be at most max_seq_len - the prompt's length = {config.max_seq_len} - {longest}, "
                         f"got {max_new_tokens}; shorten the prompt or ask for fewer tokens")
    return prompts


def _drafts_a_pass(draft, n_draft, mtp_depth) -> int:
    if draft not in (None, "mtp"):
        raise ValueError(f"draft must be 'mtp', or None for no drafts, got {draft!r}")
    if draft is None:
        if n_draft is not None:
            raise ValueError(f"n_draft must be None without draft='mtp', got {n_draft}")
        return 0
    if mtp_depth == 0:
        raise ValueError("draft must be None for a model with mtp_depth=0, got 'mtp'; train one with mtp_depth=1")
    if n_draft is not None and n_draft < 1:
        raise ValueError(f"n_draft must be at least 1, got {n_draft}; for no drafts take draft=None")
    return n_draft or mtp_depth


class _Writer:
    """A batch while it is being written; rows that are finished leave it.

    rows: their prompts' numbers. text: (B, L), known tokens and, behind them, drafts. cache.lengths: what the main model has read,
    all known tokens but the last.
    """

    def __init__(self, model, prompts, max_new_tokens, n_draft, sampling, stop_token, on_token, on_pass):
        self.model, self.sampling, self.max_new_tokens, self.n_draft = model, sampling, max_new_tokens, n_draft
        self.stop_token, self.on_token, self.on_pass = stop_token, on_token, on_pass
        self.prompt_lengths = [len(p) for p in prompts]
        max_len = max(self.prompt_lengths) + max_new_tokens
        weight = model.embed.weight
        self.cache = Cache(model.config, len(prompts), max_len, device=weight.device, dtype=weight.dtype, mtp=n_draft > 0)
        self.drafter = Drafter(model, self.cache, n_draft) if n_draft else None
        padded = [p + [0] * (max_len + model.config.mtp_depth + 1 - len(p)) for p in prompts]
        self.text = torch.tensor(padded, device=weight.device)
        self.q = []  # of the drafts that wait in text
        self.rows = list(range(len(prompts)))
        self.result = Generation([[] for _ in prompts], cache_bytes=self.cache.n_bytes)

    def read_prompts(self):
        """One pass over all prompts, padded at the right, which no token before sees."""
        lengths = self.prompt_lengths
        out = self.model(self.text[:, :max(lengths)], self.cache)
        logits = self.model.head(window(out.hidden[0], [n - 1 for n in lengths], 1))
        self._go_on(out.hidden[0], [0] * len(lengths), lengths, logits)

    def step(self):
        """One pass over each row's last token and its drafts."""
        old = self.cache.lengths
        out = self.model(window(self.text, old, 1 + len(self.q)), self.cache)
        self.result.n_passes += 1
        self.result.n_row_passes += len(old)
        self.result.n_drafted += len(old) * len(self.q)
        self._go_on(out.hidden[0], old, [n + 1 for n in old], self.model.head(out.hidden[0]))

    def _go_on(self, h, old, known, logits):
        """Keep the drafts that stand and one token more, let finished rows go, and draft. known[b]: where row b's drafts begin."""
        draft = window(self.text, known, len(self.q))
        token, accepted = self.sampling.verify(logits, draft, self.q)
        if self.on_pass:
            for row, drafts, n in zip(self.rows, draft.tolist(), accepted):
                self.on_pass(row, drafts, n)
        put(self.text, known, token)
        new = [n + a for n, a in zip(known, accepted)]
        self.cache.rewind(new)
        self.result.n_accepted += sum(accepted)
        is_open = [self._deliver(row, t[:a + 1]) for row, t, a in zip(self.rows, token.tolist(), accepted)]
        if not all(is_open):
            rows = [b for b, still in enumerate(is_open) if still]
            self.rows, old, new = ([values[b] for b in rows] for values in (self.rows, old, new))
            if not rows:
                return
            h, self.text = h[rows], self.text[rows]
            self.cache.keep(rows)
            if self.drafter:
                self.drafter.keep(rows)
        if self.drafter:
            self._draft(h, old, new)

    def _draft(self, h, old, new):
        """As many drafts as can still be used, and as the cache has room for."""
        missing = self.max_new_tokens - min(len(self.result.tokens[row]) for row in self.rows)
        n = min(self.n_draft, missing - 1, self.cache.max_len - 1 - max(new))
        self.q = self.drafter.propose(h, old, new, self.text, n, self.sampling) if missing > 1 else []

    def _deliver(self, row, tokens) -> bool:
        """Hand on a row's new tokens, up to its end; returns whether the row goes on."""
        written = self.result.tokens[row]
        for token in tokens:
            written.append(token)
            if self.on_token:
                self.on_token(row, token)
            if token == self.stop_token or len(written) == self.max_new_tokens:
                return False
        return True


def generate(model: Transformer, prompt: str | list[str], *, max_new_tokens: int = 64, temperature: float = 0.0,
             top_k: int | None = None, top_p: float | None = None, min_p: float | None = None, draft: str | None = None,
             n_draft: int | None = None, tokenizer: Tokenizer | None = None,
             generator: torch.Generator | None = None) -> str | list[str]:
    """The text that the model writes after the prompt, without the prompt; for a list of prompts a list of texts.

    Ends at `<|endoftext|>`, from which an empty prompt also starts. tokenizer: model.tokenizer if None. The rest as in `decode`.
    Raises ValueError as `decode` does, and without a tokenizer.
    """
    tokenizer = tokenizer or model.tokenizer
    if tokenizer is None:
        raise ValueError("tokenizer must be given for a model that was loaded without one, got None")
    tokens = [encode(tokenizer, p) for p in ([prompt] if isinstance(prompt, str) else prompt)]
    out = decode(model, tokens, max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
                 draft=draft, n_draft=n_draft, stop_token=tokenizer.token_to_id(END), generator=generator)
    texts = [tokenizer.decode(t) for t in out.tokens]
    return texts[0] if isinstance(prompt, str) else texts


def encode(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The tokens of a prompt; `<|endoftext|>` alone if it is empty. Raises ValueError if the tokenizer has no such token then."""
    tokens = tokenizer.encode(prompt).ids or [tokenizer.token_to_id(END)]
    if tokens == [None]:
        raise ValueError(f"prompt must have at least one character, because this tokenizer has no {END}, got {prompt!r}")
    return tokens


class TextStream:
    """An `on_token` for one prompt that calls write(text) as soon as characters are complete; `close` writes what is left."""

    def __init__(self, tokenizer: Tokenizer, write):
        self.tokenizer, self.write, self.waiting = tokenizer, write, []

    def __call__(self, row: int, token: int):
        self.waiting.append(token)
        # the bytes of one character may be spread over tokens, and decode to U+FFFD until the last is there
        if not self.tokenizer.decode(self.waiting).endswith("\ufffd"):
            self.close()

    def close(self):
        """Write all that waits, complete or not."""
        if self.waiting:
            self.write(self.tokenizer.decode(self.waiting))
            self.waiting = []
