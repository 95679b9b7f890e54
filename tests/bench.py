"""How fast is minimodels beside Hugging Face's DeepseekV3, with the same configuration, weights, arithmetic and optimizer?

    python tests/bench.py [--quick] [--device cuda] [--threads N] [--out data/runs/bench-cpu.json]

Everything runs in one process, in turns: in every round each side runs once, and a ratio is taken within a round, so that a
machine that is busy for a while slows both. A table shows medians and, for ratios, the range over all rounds.

Training is forward, backward and AdamW (torch's fused one on both sides), with mtp_depth=0, because Hugging Face trains without
MTP. Theirs runs with the implementations of experts and attention that are fastest here, found in a first few rounds. Decoding
is greedy, with a cache, one prompt at a time unless a batch is named; theirs is `generate` or a bare loop, whichever is faster.
Drafts need a model that has learnt something: data/checkpoints/cpu-stdlib if it is there, else one that is trained briefly first.
"""

import argparse
import copy
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch
import transformers

from minimodels import convert, lab
from minimodels.checkpoint import Run
from minimodels.config import ModelConfig, TrainConfig
from minimodels.data import Batches, prepare
from minimodels.generate import decode
from minimodels.model import Transformer
from minimodels.mtp import losses
from minimodels.train import train

EXPERTS = ("eager", "grouped_mm", "batched_mm")
ATTENTION = ("sdpa", "eager")
CHECKPOINT = ROOT / "data" / "checkpoints" / "cpu-stdlib"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PROMPTS = ("def main(argv=None):\n    parser = argparse.ArgumentParser(", "class Cache:\n    \"\"\"A dictionary that ",
           "import os\nimport sys\n\n")
MAX_GATHERED_BYTES = 2**30  # batched_mm copies an expert's weights for every token; beyond this it is not tried


@dataclass
class Result:
    """One line of the table: tokens a second on both sides, and the ratio ours / theirs in each round."""

    what: str
    config: str
    dtype: str
    ours: float
    theirs: float
    theirs_is: str
    ratios: list[float]
    note: str = ""

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    def row(self) -> str:
        return (f"{self.what:<28} {self.config:<5} {self.dtype:<5} {self.ours:>9,.0f} {self.theirs:>9,.0f}   "
                f"{self.ratio:5.2f}  {min(self.ratios):5.2f} to {max(self.ratios):5.2f}   {self.theirs_is:<20} {self.note}")


class Bench:
    """The runs' common settings: device, rounds, and where progress goes."""

    def __init__(self, device: str, rounds: int, quick: bool, clock: Callable[[], float] = time.perf_counter):
        self.device, self.rounds, self.quick, self.clock = torch.device(device), rounds, quick, clock

    def say(self, text: str):
        print(f"  {text}", file=sys.stderr, flush=True)

    def seconds(self, run: Callable[[], object]) -> float:
        self._wait()
        start = self.clock()
        run()
        self._wait()
        return self.clock() - start

    def _wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def in_turns(self, sides: dict[str, Callable], rounds: int) -> dict[str, list[float]]:
        """Seconds of every side in every round; each round starts with another side."""
        seconds, names = {name: [] for name in sides}, list(sides)
        for r in range(rounds):
            for name in names[r % len(names):] + names[:r % len(names)]:
                seconds[name].append(self.seconds(sides[name]))
        return seconds

    def fastest(self, sides: dict[str, Callable]) -> str:
        """The name of the side with the smallest time, after one run each that is not counted."""
        seconds = self.in_turns(sides, 1 if len(sides) == 1 else 3)
        best = {name: min(s[1:] or s) for name, s in seconds.items()}
        self.say("Hugging Face: " + ", ".join(f"{name} {s:.3g} s" for name, s in best.items()))
        return min(best, key=best.get)

    def compare(self, what, name, dtype, n_tokens: int, ours: Callable, theirs: dict[str, Callable], note="") -> Result:
        """Our side against the fastest of theirs."""
        best = self.fastest(theirs)
        ours()
        seconds = self.in_turns({"ours": ours, best: theirs[best]}, self.rounds)
        result = Result(what, name, dtype, n_tokens / statistics.median(seconds["ours"]), n_tokens / statistics.median(seconds[best]),
                        best, [b / a for a, b in zip(seconds["ours"], seconds[best])], note)
        self.say(result.row())
        return result

    # Training -----------------------------------------------------------------------------------------------------------------

    def training(self, name: str, config: ModelConfig, dtype: str, batch_size: int, seq_len: int) -> list[Result]:
        torch.manual_seed(0)
        model = Transformer(replace(config, mtp_depth=0)).to(self.device, DTYPES[dtype])
        hf = convert.to_hf(model)
        tokens = torch.randint(config.vocab_size, (batch_size, seq_len), device=self.device)

        def our_loss():
            return losses(model(tokens), tokens)[0]

        def their_loss():
            return hf(tokens, labels=tokens, use_cache=False).loss

        check_close(our_loss().item(), their_loss().item(), 1e-4 if dtype == "fp32" else 3e-2)

        def step(loss, module, optimizer=None):
            def run():
                module.zero_grad(set_to_none=True)
                loss().backward()
                if optimizer:
                    optimizer.step()
            return run

        def with_forms(experts, attention, run):
            def run_form():
                hf.set_experts_implementation(experts)
                hf.set_attn_implementation(attention)
                run()
            return run_form

        forms, note = list(EXPERTS), f"{batch_size} x {seq_len} tokens a step"
        gathered = batch_size * seq_len * config.top_k * 3 * config.d_model * config.d_expert * DTYPES[dtype].itemsize
        if gathered > MAX_GATHERED_BYTES:
            forms.remove("batched_mm")
            self.say(f"batched_mm is not tried for training: it would copy {gathered / 2**30:.0f} GiB of weights a layer")
        results = []
        for what, makes in (("training", make_adamw), ("forward and backward", lambda m: None)):
            ours, optimizer = step(our_loss, model, makes(model)), makes(hf)
            theirs = {f"{form}, {attention}": with_forms(form, attention, step(their_loss, hf, optimizer))
                      for form in forms for attention in ATTENTION}
            results.append(self.compare(what, name, dtype, tokens.numel(), ours, theirs, note))
        return results

    # Decoding -----------------------------------------------------------------------------------------------------------------

    def decoding(self, name: str, model: Transformer, dtype: str, prompts: list[list[int]], n_new: int, *, trained: bool) -> list[Result]:
        """prompts: of equal length. Plain decoding one by one and as a batch; with drafts if the model is trained."""
        model = copy.deepcopy(model).to(self.device, DTYPES[dtype]).eval()
        hf = convert.to_hf(model).eval()
        agreement = self._agreement(model, hf, prompts, n_new, dtype)
        results = []
        for what, batches in (("decoding", [[p] for p in prompts]), (f"decoding, batch of {4 * len(prompts)}", [prompts * 4])):
            theirs = {f"{form}, {way.__name__}": decoder(hf, form, way, batches, n_new)
                      for way in (generate, loop) for form in EXPERTS if form != "grouped_mm" or runs(hf, prompts)}
            ours = {draft: self._our_decoder(model, batches, n_new, draft) for draft in (None, "mtp")}
            n_tokens = n_new * sum(map(len, batches))
            results.append(self.compare(what, name, dtype, n_tokens, ours[None], theirs, agreement))
            if trained:
                out = [decode(model, b, max_new_tokens=n_new, draft="mtp") for b in batches]
                accepted = sum(o.n_accepted for o in out) / sum(o.n_drafted for o in out)
                best = {results[-1].theirs_is: theirs[results[-1].theirs_is]}
                results.append(self.compare(what.replace("decoding", "decoding with drafts"), name, dtype, n_tokens, ours["mtp"], best,
                                            f"{accepted:.0%} of the drafts stood"))
        return results

    def _our_decoder(self, model, batches, n_new, draft):
        def run():
            for batch in batches:
                decode(model, batch, max_new_tokens=n_new, draft=draft)
        return run

    def _agreement(self, model, hf, prompts, n_new, dtype) -> str:
        """How much of the text is the same on both sides; in fp32 all of it must be."""
        same = total = 0
        for prompt in prompts:
            ours = decode(model, [prompt], max_new_tokens=n_new).tokens[0]
            theirs = generate(hf, torch.tensor([prompt], device=self.device), n_new)[0, len(prompt):].tolist()
            same += next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), n_new)
            total += n_new
        if dtype == "fp32" and same < 0.9 * total:
            raise SystemExit(f"the two sides do not compute the same: {same} of {total} tokens agree")
        return f"{same / total:.0%} of the text the same"


def check_close(ours: float, theirs: float, tolerance: float):
    if abs(ours - theirs) > tolerance * theirs:
        raise SystemExit(f"the two sides do not compute the same loss: {ours} and {theirs}")


def make_adamw(module):
    """A rate so small that both sides keep the weights they began with, and so the work they began with."""
    return torch.optim.AdamW(module.parameters(), lr=1e-7, betas=(0.9, 0.95), weight_decay=0.1, fused=True)


@torch.inference_mode()
def generate(hf, tokens, n_new):
    """Their own `generate`."""
    return hf.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=n_new, min_new_tokens=n_new, do_sample=False,
                       use_cache=True, eos_token_id=None, pad_token_id=0)


@torch.inference_mode()
def loop(hf, tokens, n_new):
    """The least around their model that decodes."""
    cache, last, written = transformers.DynamicCache(config=hf.config), tokens, []
    for _ in range(n_new):
        last = hf(last, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1:].argmax(-1)
        written.append(last)
    return torch.cat([tokens, *written], 1)


def decoder(hf, form, way, batches, n_new):
    batches = [torch.tensor(b, device=hf.device) for b in batches]

    def run():
        hf.set_experts_implementation(form)
        for batch in batches:
            way(hf, batch, n_new)
    return run


def runs(hf, prompts) -> bool:
    """Whether grouped_mm takes these widths, which must be multiples of 16 bytes."""
    hf.set_experts_implementation("grouped_mm")
    try:
        loop(hf, torch.tensor(prompts[:1], device=hf.device), 1)
        return True
    except RuntimeError:
        return False


def trained_model(bench: Bench) -> tuple[Transformer, str]:
    """A `cpu` model that has learnt to draft, and where it comes from."""
    if (CHECKPOINT / "config.json").is_file():
        return Run.open(CHECKPOINT).model(), str(CHECKPOINT.relative_to(ROOT))
    config, steps = ModelConfig.preset("cpu"), 20 if bench.quick else 200
    bench.say(f"no {CHECKPOINT.relative_to(ROOT)}: training {steps} steps first")
    data = prepare("stdlib", config.vocab_size)
    settings = replace(TrainConfig.preset("cpu"), steps=steps)
    torch.manual_seed(settings.seed)
    model = Transformer(config).to(bench.device)
    batches = Batches(data.train, batch_size=settings.batch_size, seq_len=settings.seq_len, seed=settings.seed)
    for record in train(model, batches, settings):
        if record.step % 20 == 0:
            bench.say(f"step {record.step} of {steps}, loss {record.loss:.2f}")
    model.tokenizer = data.tokenizer
    return model, f"trained here for {steps} steps"


def parse(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, the cpu configuration alone")
    parser.add_argument("--only", choices=["training", "decoding"], help="one half")
    parser.add_argument("--config", choices=["cpu", "wide"], action="append", help="only this configuration (may be repeated)")
    parser.add_argument("--dtype", choices=list(DTYPES), action="append", help="only this type (may be repeated)")
    parser.add_argument("--rounds", type=int, help="rounds of each comparison (7, or 3 with --quick)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="of torch; its own choice if not given")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds, for a machine that is busy with other things")
    parser.add_argument("--out", type=Path, help="also write JSON there")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    clock = time.process_time if args.cpu_time else time.perf_counter
    bench = Bench(args.device, args.rounds or (3 if args.quick else 7), args.quick, clock)
    facts = lab.machine() | {"clock": clock.__name__}
    names, dtypes = args.config or (["cpu"] if args.quick else ["cpu", "wide"]), args.dtype or list(DTYPES)
    results, source = [], None
    for name in names:
        config = ModelConfig.preset("cpu" if name == "cpu" else "t4")
        batch_size, n_new = (16, 96) if name == "cpu" else (4, 32)
        for dtype in dtypes:
            if args.only != "decoding":
                results += bench.training(name, config, dtype, batch_size, 256)
        if args.only == "training":
            continue
        if name == "cpu":
            model, source = trained_model(bench)
            prompts = [model.tokenizer.encode(p).ids[:8] for p in PROMPTS]
            length = min(map(len, prompts))
            prompts = [p[:length] for p in prompts]
        else:
            torch.manual_seed(0)
            model, prompts = Transformer(config), torch.randint(config.vocab_size, (2, 8)).tolist()
        for dtype in dtypes:
            results += bench.decoding(name, model, dtype, prompts, n_new, trained=name == "cpu")
    report(results, facts, source)
    if args.out:
        write(args.out, results, facts, source)


def report(results: list[Result], facts: dict, source: str | None):
    print(f"{facts['gpu'] or facts['cpu']}, {facts['threads']} threads, torch {torch.__version__}, transformers {transformers.__version__}")
    if source:
        print(f"decoding with the cpu model: {source}")
    print(f"{'tokens/s':<28} {'':<5} {'':<5} {'ours':>9} {'theirs':>9}   {'ratio':>5}  {'range':>14}   theirs is")
    for result in results:
        print(result.row())


def write(path: Path, results: list[Result], facts: dict, source: str | None):
    """Through a temporary file, so that an earlier record is not half overwritten."""
    record = {"command": "python " + " ".join(["tests/bench.py", *sys.argv[1:]]), "commit": lab.commit(), "machine": facts,
              "versions": {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__},
              "decoding_model": source,
              "results": [asdict(r) | {"ratio": round(r.ratio, 3), "ratios": [round(x, 3) for x in r.ratios], "ours": round(r.ours, 1),
                                       "theirs": round(r.theirs, 1)} for r in results]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-", delete=False, encoding="utf-8") as file:
        json.dump(record, file, indent=1)
        file.write("\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
