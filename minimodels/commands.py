"""What the commands of the command line do."""

import dataclasses
import os
import sys

import torch
import torch.distributed as dist
from tqdm import tqdm

from minimodels import lab
from minimodels.checkpoint import Run
from minimodels.config import ModelConfig, TrainConfig
from minimodels.convert import save_hf
from minimodels.data import Batches, Dataset, bits_per_byte, compressed_bits_per_byte, prepare
from minimodels.devices import choose_device, rank
from minimodels.evaluate import Evaluation, evaluate
from minimodels.generate import decode
from minimodels.model import Transformer
from minimodels.train import train


def configs(options, run: Run | None = None) -> tuple[ModelConfig, TrainConfig]:
    """The preset, or without one the run to resume, with the given flags put over it."""
    def one(config_class, kept):
        base = kept if kept and options.preset is None else config_class.preset(options.preset or "cpu")
        given = {f.name: getattr(options, f.name) for f in dataclasses.fields(config_class) if getattr(options, f.name) is not None}
        return dataclasses.replace(base, **given)
    return one(ModelConfig, run and run.model_config), one(TrainConfig, run and run.train_config)


def run_train(options):
    """Train, then score the model on the validation text beside zlib and lzma, and show a sample."""
    device = join_processes(choose_device(options.device))
    run = Run.open(options.out) if options.resume else None
    model_config, train_config = configs(options, run)
    source = options.data or (run.data["source"] if run else "stdlib")
    if run:
        run.check_same(model_config, train_config, {**run.data, "source": source})
    check_window(model_config, train_config)
    data = prepare_once(source, model_config.vocab_size)
    torch.manual_seed(train_config.seed)
    model = Transformer(model_config).to(device)
    batches = Batches(data.train, batch_size=train_config.batch_size, seq_len=train_config.seq_len, seed=train_config.seed)
    if not run:
        run = create_once(options.out, model_config, train_config, data, source)
    counts = f"{model_config.n_params / 1e6:.2f}M parameters, {model_config.n_active_params / 1e6:.2f}M active"
    say(f"{counts}; {len(data.train) / 1e6:.2f}M tokens of {data.name}; on {device}, tier {lab.tier()}")
    bytes_per_token = data.valid_bytes / len(data.valid)
    records = train(model, batches, train_config, run=run, resume=options.resume, valid=data)
    show_progress(records, train_config, bytes_per_token)
    if rank() == 0:
        report(model, data, train_config)
        say(f"the run is in {options.out}")


def join_processes(device: torch.device) -> torch.device:
    """Under torchrun: meet the other processes, and take this one's GPU."""
    if "RANK" not in os.environ:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def prepare_once(source: str, vocab_size: int) -> Dataset:
    """The dataset; under torchrun the first process makes it, and the others read it."""
    if rank() == 0:
        data = prepare(source, vocab_size)
    if dist.is_initialized():
        dist.barrier()
    return data if rank() == 0 else prepare(source, vocab_size)


def create_once(out: str, model_config: ModelConfig, train_config: TrainConfig, data: Dataset, source: str) -> Run | None:
    """A new run, made by the first process; the others keep nothing."""
    if rank() != 0:
        return None
    return Run.create(out, model_config, train_config, data.tokenizer, data={"source": source, "name": data.name})


def check_window(model_config: ModelConfig, train_config: TrainConfig):
    """Raise ValueError if a training sequence is longer than the model's rotary table, or too short for its MTP modules."""
    if train_config.seq_len > model_config.max_seq_len:
        raise ValueError(f"seq_len must be at most max_seq_len={model_config.max_seq_len}, got {train_config.seq_len}")
    if train_config.seq_len < model_config.mtp_depth + 2:
        raise ValueError(f"seq_len must be at least mtp_depth + 2 = {model_config.mtp_depth + 2}, got {train_config.seq_len}")


def show_progress(records, config: TrainConfig, bytes_per_token: float):
    """A progress bar on stderr: loss, bits per byte (of the batch, from the mean token's length), tokens per second, time left."""
    with tqdm(total=config.steps, unit="step", disable=rank() != 0, dynamic_ncols=True) as bar:
        for record in records:
            bar.update(record.step - bar.n)
            bits = bits_per_byte(record.loss, 1) / bytes_per_token
            bar.set_postfix_str(f"loss {record.loss:.3f}, {bits:.3f} bits/byte, {record.tokens_per_s:,.0f} tokens/s", refresh=False)


def report(model: Transformer, data: Dataset, config: TrainConfig):
    """Print the validation score beside two compressors' on the same text, then a sample."""
    score = evaluate(model, data.valid, n_bytes=data.valid_bytes, seq_len=config.seq_len)
    text = data.valid_text()
    print(f"\nbits per byte of {data.valid_bytes:,} bytes of validation text")
    rows = {"this model": score.bits_per_byte} | {name: compressed_bits_per_byte(text, name) for name in ("lzma", "zlib")}
    for name, bits in rows.items():
        print(f"  {name:12}{bits:.3f}")
    prompt = data.valid[:16].tolist()
    result = decode(model, [prompt], max_new_tokens=min(120, model.config.max_seq_len - 16), temperature=0.7,
                    generator=torch.Generator(model.embed.weight.device).manual_seed(config.seed))
    print("\na sample at temperature 0.7; the prompt ends at the bar")
    print(data.tokenizer.decode(prompt) + "|" + data.tokenizer.decode(result.tokens[0]))


def load(options) -> Transformer:
    """The model of --run, on --device."""
    return Run.open(options.run).model().to(choose_device(getattr(options, "device", "cpu")))


def run_generate(options):
    """The continuation of --prompt on stdout, what it took on stderr."""
    model = load(options)
    prompt = model.tokenizer.encode(options.prompt).ids
    if not prompt:
        raise ValueError("--prompt must have at least one character, got an empty one")
    generator = torch.Generator(model.embed.weight.device).manual_seed(options.seed)
    result = decode(model, [prompt], max_new_tokens=options.max_new_tokens, temperature=options.temperature, top_k=options.top_k,
                    top_p=options.top_p, min_p=options.min_p, draft=options.draft, stop_token=0, generator=generator)
    print(options.prompt + model.tokenizer.decode(result.tokens[0]))
    n_new = len(result.tokens[0])
    say(f"{n_new} tokens in {result.seconds:.2f} s ({n_new / result.seconds:.0f} tokens/s), {result.n_passes + 1} passes, "
        f"cache {result.cache_bytes / 1024:.0f} KiB" + (f", {result.acceptance:.0%} of drafts accepted" if options.draft else ""))


def run_evaluate(options):
    """Bits per byte, acceptance of the drafts, bytes of cache a token, and the load of the experts."""
    run = Run.open(options.run)
    model = load(options)
    data = prepare(options.data or run.data["source"], model.config.vocab_size, tokenizer=model.tokenizer)
    score = evaluate(model, data.valid, n_bytes=data.valid_bytes, seq_len=run.train_config.seq_len)
    print(f"bits per byte    {score.bits_per_byte:.4f}  ({data.valid_bytes:,} bytes of {data.name})")
    print(f"cache            {model.config.cached_values_per_token * 4:,} bytes a token in fp32 ({model.config.cached_values_per_token} values)")
    if model.config.mtp_depth:
        print(f"drafts accepted  {acceptance(model, data):.1%}  (greedy, 8 prompts of 32 tokens, 64 tokens each)")
    print_load(score, model.config)


def acceptance(model: Transformer, data: Dataset) -> float:
    """Share of greedy drafts that the main model confirms, over 8 prompts spread over the validation text."""
    starts = torch.linspace(0, len(data.valid) - 33, 8).long().tolist()
    prompts = [data.valid[s:s + 32].tolist() for s in starts]
    return decode(model, prompts, max_new_tokens=min(64, model.config.max_seq_len - 32), draft="mtp").acceptance


def print_load(score: Evaluation, config: ModelConfig):
    """Each layer's busiest and idlest expert, as a multiple of an equal share."""
    for i, load in enumerate(score.load):
        share = load / load.double().mean()
        n_main = config.n_layers - config.n_dense_layers
        name = f"layer {i + config.n_dense_layers}" if i < n_main else f"MTP {i - n_main + 1}"
        print(f"{name:16} busiest expert {share.max():.2f}, idlest {share.min():.2f} of an equal share")


def run_export(options):
    """Write the run's model and tokenizer for Hugging Face Transformers."""
    save_hf(load(options), options.out)
    say(f"written to {options.out}; load it with AutoModelForCausalLM.from_pretrained({options.out!r})")


def run_doctor(options):
    """What this machine can run, and which tier it is."""
    print(lab.doctor())


def say(text: str):
    """A line for the person, on stderr, from the first process alone."""
    if rank() == 0:
        print(text, file=sys.stderr)


