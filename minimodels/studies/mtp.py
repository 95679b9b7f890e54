"""Chapter 09: what a second prediction is worth in training, and what its drafts are worth in writing.

Quality is measured with the yardstick, drafts with data/checkpoints/cpu-long.
"""

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from minimodels import convert, lab
from minimodels.attention import Cache
from minimodels.bugs.mtp import BUGS
from minimodels.checkpoint import Run
from minimodels.config import ModelConfig, TrainConfig
from minimodels.data import Batches, Dataset, prepare
from minimodels.evaluate import acceptance, evaluate, windows
from minimodels.generate import Drafter, decode
from minimodels.model import Transformer
from minimodels.sampling import Sampling
from minimodels.studies import Planted, Study, Training
from minimodels.timing import interleaved
from minimodels.train import Trainer

YARDSTICK = ModelConfig.preset("yardstick")
RECIPE = replace(TrainConfig.preset("yardstick"), eval_every=300)
SEEDS = (1, 2, 3, 4, 5)
RATES = (0.005, 0.01, 0.02, 0.04)                # peak rates of Muon that are tried with a module; 0.01 was best without (mla-rates)
BEST_RATE = 0.02                                 # of them, in mtp-rates; a test compares
AS_MUCH = 894                                    # steps without a module that take the FLOPs of 600 with one; a test counts them

CHECKPOINT = "checkpoints/cpu-long"
PROMPT, NEW = 64, 128                            # tokens of a prompt, and tokens written after it
N_PROMPTS = 16
BATCHES = (1, 2, 4, 8, 16, 32, 64)
N_DRAFTS = (0, 1, 2, 3, 4)                       # a pass; 0: without drafts
TEMPERATURES = (0.0, 0.8, 1.0)
NGRAM = 4
UNSEEN_BYTES = 3_000_000                         # of the corpus; 5 % as much is held out


# ---- in training

@dataclass(frozen=True, kw_only=True)
class Drafting(Planted):
    """Training with MTP modules, right or with a bug planted, and then the loss of each depth and how many of its drafts would stand."""

    BUGS = BUGS

    def examine(self, model: Transformer, data: Dataset) -> dict:
        T = self.training.seq_len
        score, right = evaluate(model, data.valid, n_bytes=data.valid_bytes, seq_len=T), as_it_drafts(model)
        stands = acceptance(right, next(windows(data.valid, T, 64)))
        return {"loss": [round(x, 4) for x in (score.loss, *score.mtp_loss)], "acceptance": [round(x.mean().item(), 4) for x in stands]}


def as_it_drafts(model: Transformer) -> Transformer:
    """The model as `decode` uses it: its own weights and modules, and the right tokens for each, whatever it was trained with."""
    if type(model) is Transformer:
        return model.eval()
    right = Transformer(model.config)
    right.load_state_dict(model.state_dict())
    return right.eval()


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Time a training step of the yardstick with so many modules, in turns, and its parts: forward, and forward with backward."""

    arm: str
    seed: int
    depths: tuple[int, ...] = (0, 1, 2)
    rounds: int = 9

    def settings(self) -> dict:
        return {"model": YARDSTICK.to_dict(), "depths": list(self.depths), "rounds": self.rounds}

    def run(self) -> dict:
        data = prepare("stdlib", YARDSTICK.vocab_size, max_bytes=UNSEEN_BYTES)
        batches = Batches(data.train, batch_size=RECIPE.batch_size, seq_len=RECIPE.seq_len, seed=self.seed)
        steps = {depth: a_step(depth, batches, self.seed) for depth in self.depths}
        return {"ms": {depth: [round(ms, 2) for ms in each] for depth, each in interleaved(steps, rounds=self.rounds).items()}}


def a_step(depth: int, batches, seed: int = 0) -> Callable[[], object]:
    """A function that trains a new yardstick with so many modules for one step: forward, backward, and the optimizers."""
    torch.manual_seed(seed)
    trainer = Trainer(Transformer(replace(YARDSTICK, mtp_depth=depth)), batches, RECIPE)
    return lambda: trainer.step(1)


# ---- in writing

def experienced() -> Transformer:
    """The committed model that drafts: the `cpu` preset after 10,000 steps, with one MTP module."""
    return Run.open(lab.data_file(CHECKPOINT)).model().eval()


@torch.no_grad()
def logits_of_transformers(model: Transformer, tokens: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """What Hugging Face Transformers' own MTP layer, with the model's weights, makes of the model's states h (B, T, D): (B, T-1, V).

    The model travels in DeepSeek's released layout. Their positions are those of the tokens ahead, from 1; only distances matter.
    """
    import transformers
    from transformers.modeling_layers import MtpModel

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        theirs = transformers.AutoModelForCausalLM.from_pretrained(convert.save_hf(model, folder + "/hf"), experts_implementation="eager").eval()
        # they know the released model's layer by its number, 61, and of no other
        theirs._keys_to_ignore_on_load_unexpected = [rf"model\.layers\.{model.config.n_layers}\."]
        module = MtpModel.from_pretrained(theirs)
    states = module.forward_layer(0, h[:, :-1], torch.arange(1, tokens.shape[1])[None], None, input_ids=tokens[:, 1:])
    return module._project_to_logits(states)


def held_out(model: Transformer, n: int, length: int = PROMPT, *, seed: int = 0) -> tuple[torch.Tensor, Dataset]:
    """n excerpts of unseen text (n, length), from random places, and the corpus they are from, in the model's own tokens."""
    data = prepare("stdlib", model.config.vocab_size, max_bytes=UNSEEN_BYTES, tokenizer=model.tokenizer)
    text = torch.tensor(data.valid[:].astype("int64"))
    start = torch.randint(len(text) - length, (n,), generator=torch.Generator().manual_seed(seed))
    return text[start[:, None] + torch.arange(length)], data


def is_repeated(tokens: list[int], n: int = NGRAM) -> list[bool]:
    """For each token, whether it ends a run of n tokens that stood in the text before."""
    seen, repeated = set(), []
    for i in range(len(tokens)):
        gram = tuple(tokens[i - n + 1:i + 1]) if i >= n - 1 else None
        repeated.append(gram in seen)
        seen.add(gram or object())
    return repeated


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """How many drafts stand at one temperature: on given text (teacher forcing), and on text that the model writes itself."""

    arm: str
    seed: int
    temperature: float

    def settings(self) -> dict:
        return {"checkpoint": CHECKPOINT, "temperature": self.temperature, "max_bytes": UNSEEN_BYTES, "prompts": N_PROMPTS, "prompt": PROMPT, "new": NEW, "ngram": NGRAM}

    def run(self) -> dict:
        torch.set_num_threads(1)
        model = experienced()
        given, _ = held_out(model, N_PROMPTS, PROMPT + NEW, seed=self.seed)
        forced = acceptance(model, given, temperature=self.temperature)[0][:, PROMPT - 1:].mean().item()
        checks, written = write(model, given[:, :PROMPT], temperature=self.temperature, seed=self.seed)
        own = torch.tensor([row[:PROMPT + NEW] for row in written])
        both = {"given": given.tolist(), "written": written}
        return {"forced": round(forced, 4), "forced_on_own": round(acceptance(model, own, temperature=self.temperature)[0][:, PROMPT - 1:].mean().item(), 4),
                "free": round(statistics.mean(stood for _, stood in checks), 4),
                "repeated": {name: round(statistics.mean(x for row in rows for x in is_repeated(row)[PROMPT:]), 4) for name, rows in both.items()},
                "free_if_repeated": round(statistics.mean(stood for again, stood in checks if again), 4),
                "free_if_new": round(statistics.mean(stood for again, stood in checks if not again), 4)}


def write(model: Transformer, prompts: torch.Tensor, *, temperature: float, seed: int = 0) -> tuple[list[tuple[bool, bool]], list[list[int]]]:
    """Write NEW tokens after each prompt with drafts. Returns, for each draft, whether what was written in its place is repeated and whether
    the draft stood; and the texts, prompts included."""
    passes = {row: [] for row in range(len(prompts))}
    out = decode(model, prompts, max_new_tokens=NEW, temperature=temperature, draft="mtp", generator=torch.Generator().manual_seed(seed),
                 on_pass=lambda row, drafts, n: passes[row].append((len(drafts), n)))
    texts, checks = [p + t for p, t in zip(prompts.tolist(), out.tokens)], []
    for row, text in enumerate(texts):
        again, at = is_repeated(text), prompts.shape[1]
        for n_drafts, n in passes[row]:
            if n_drafts and at < len(text):
                checks.append((again[at], n > 0))
            at += n + 1
    return checks, texts


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Time greedy text with and without drafts, for batches of several sizes, in turns; the texts must be the same."""

    arm: str
    seed: int
    batch_size: int
    rounds: int = 5

    def settings(self) -> dict:
        return {"checkpoint": CHECKPOINT, "batch_size": self.batch_size, "max_bytes": UNSEEN_BYTES, "drafts": list(N_DRAFTS), "prompt": PROMPT, "new": NEW, "rounds": self.rounds}

    def run(self) -> dict:
        torch.set_num_threads(1)
        model = experienced()
        prompts, _ = held_out(model, self.batch_size, seed=self.seed)
        runs = {n: lambda n=n: write_greedily(model, prompts, n) for n in N_DRAFTS}
        first = {n: run() for n, run in runs.items()}
        same = {n: statistics.mean(a == b for a, b in zip(out.tokens, first[0].tokens)) for n, out in first.items()}
        times = {n: [] for n in N_DRAFTS}
        for _ in range(self.rounds):
            for n, run in runs.items():
                out = run()
                times[n].append(round(out.seconds - out.prefill_seconds, 4))
        n_tokens = self.batch_size * (NEW - 1)
        return {"n_tokens": n_tokens, "seconds": times, "same_text": same,
                "acceptance": {n: round(out.acceptance, 4) for n, out in first.items() if n},
                "tokens_per_pass": {n: round(out.tokens_per_pass, 4) for n, out in first.items()}}


def write_greedily(model: Transformer, prompts: torch.Tensor, n_draft: int):
    """`decode` of NEW tokens with so many drafts a pass, or without for 0."""
    drafts = {"draft": "mtp", "n_draft": n_draft} if n_draft else {}
    return decode(model, prompts, max_new_tokens=NEW, **drafts)


@dataclass(frozen=True, kw_only=True)
class PassTime:
    """Time what one pass is made of: the main model over 1 to 5 tokens behind a cache, its head, and the module drafting."""

    arm: str
    seed: int
    batch_size: int
    rounds: int = 15

    def settings(self) -> dict:
        return {"checkpoint": CHECKPOINT, "batch_size": self.batch_size, "context": PROMPT, "rounds": self.rounds}

    def run(self) -> dict:
        model = experienced()
        times = interleaved(parts_of_a_pass(model, self.batch_size), rounds=self.rounds)
        return {"ms": {name: [round(ms, 4) for ms in each] for name, each in times.items()}}


def parts_of_a_pass(model: Transformer, batch_size: int = 1, lengths=(1, 2, 3, 4, 5)) -> dict[str, Callable[[], object]]:
    """Functions that do a part of a pass behind PROMPT cached tokens: the main model over T tokens with its head, and a draft."""
    cache = Cache(model.config, batch_size, PROMPT + 16, mtp=True)
    text = torch.randint(1, model.config.vocab_size, (batch_size, PROMPT + 16), generator=torch.Generator().manual_seed(0))
    h = torch.randn(batch_size, 1, model.config.d_model)
    drafter, old, new = Drafter(model, cache, 1), [PROMPT] * batch_size, [PROMPT + 1] * batch_size

    @torch.inference_mode()
    def check(T):
        cache.lengths = list(old)
        return model(text[:, PROMPT:PROMPT + T], cache).logits.argmax(-1)

    @torch.inference_mode()
    def draft():
        return drafter.propose(h, old, new, text, 1, Sampling())

    return {f"{T} tokens": lambda T=T: check(T) for T in lengths} | {"draft": draft}


class _Count(TorchDispatchMode):
    """Counts the operations that torch is asked for inside it."""

    n = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.n += 1
        return operation(*args, **(kwargs or {}))


def count_operations(function: Callable[[], object]) -> int:
    """How many operations torch is asked for by one call."""
    with _Count() as count:
        function()
    return count.n


# ---- studies

def with_modules(arm: str, seed: int, depth: int = 1, bug: str | None = None, model: ModelConfig = YARDSTICK, **changes) -> Drafting:
    recipe = replace(RECIPE, **{"muon_lr": BEST_RATE, "seed": seed} | changes)
    return Drafting(arm=arm, seed=seed, bug=bug, model=replace(model, mtp_depth=depth), training=recipe)


STUDIES = [
    Study(name="mtp-quality", question="At equal tokens, does a second prediction make the main model better?",
          trials=(*(with_modules("one module, weight 0.3", seed) for seed in SEEDS),
                  *(with_modules(arm, seed, depth, mtp_weight=weight) for seed in SEEDS[:3]
                    for arm, depth, weight in (("one module, weight 0.1", 1, 0.1), ("two modules, weight 0.3", 2, 0.3))),
                  *(Training(arm="none, same FLOPs", seed=seed, model=YARDSTICK, training=replace(RECIPE, steps=AS_MUCH, seed=seed))
                    for seed in SEEDS[:3]))),
    Study(name="mtp-rates", question="Which learning rate suits the yardstick with one module?",
          trials=tuple(with_modules(f"{rate:g}", 0, muon_lr=rate) for rate in RATES)),
    Study(name="mtp-bugs", question="Does a planted bug of the module show in the losses, or in the drafts?",
          trials=tuple(with_modules(bug or "right", seed, bug=bug, steps=160, eval_every=40) for bug in (None, *BUGS) for seed in SEEDS[:3])),
    Study(name="mtp-acceptance", question="How many drafts stand, on given text and on the model's own?",
          trials=tuple(Acceptance(arm=f"T={t:g}", seed=seed, temperature=t) for t in TEMPERATURES for seed in range(6))),
    Study(name="mtp-step", question="How long does a training step take with no, one and two modules?", is_timing=True,
          trials=tuple(StepTime(arm="yardstick", seed=seed) for seed in range(3))),
    Study(name="mtp-pass", question="What does a pass over several tokens cost, and what a draft?", is_timing=True,
          trials=tuple(PassTime(arm=f"B={B}", seed=seed, batch_size=B) for seed in range(3) for B in BATCHES)),
    Study(name="mtp-decoding", question="How much faster is greedy text with drafts, by batch?", is_timing=True,
          trials=tuple(Decoding(arm=f"B={B}", seed=seed, batch_size=B) for seed in range(3) for B in BATCHES)),
]
