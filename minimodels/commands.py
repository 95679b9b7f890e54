"""What the commands of the command line do."""

import contextlib
import dataclasses
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from tqdm import tqdm

from minimodels import lab, studies
from minimodels.checkpoint import Run
from minimodels.config import ModelConfig, TrainConfig
from minimodels.convert import save_hf
from minimodels.corpus import CORPORA
from minimodels.data import Batches, Dataset, bits_per_byte, compressed_bits_per_byte, prepare
from minimodels.devices import choose_device, rank
from minimodels.download import file_sha256
from minimodels.evaluate import Evaluation, evaluate
from minimodels.generate import decode
from minimodels.model import Transformer
from minimodels.studies import together
from minimodels.train import check_share, train


def configs(options, run: Run | None = None) -> tuple[ModelConfig, TrainConfig]:
    """The preset, or without one the run to resume, with the given flags put over it."""
    def one(config_class, kept):
        base = kept if kept and options.preset is None else config_class.preset(options.preset or "cpu")
        given = {f.name: getattr(options, f.name) for f in dataclasses.fields(config_class) if hasattr(options, f.name)}
        return dataclasses.replace(base, **given)
    return one(ModelConfig, run and run.model_config), one(TrainConfig, run and run.train_config)


def run_train(options):
    """Train, then score the model on the validation text beside zlib and lzma, and show a sample."""
    device, tier = join_processes(choose_device(options.device)), lab.tier()
    run = Run.open(named(options, "out")) if options.resume else None
    model_config, train_config = configs(options, run)
    if run:
        run.check_same(model_config, train_config)
    check_sizes(model_config, train_config)
    source = source_of(options, run) or "stdlib"
    data = prepare_once(source, model_config.vocab_size)
    origin = {"source": source, "name": data.name, "train_sha256": file_sha256(data.folder / "train.bin")}
    torch.manual_seed(train_config.seed)
    model = Transformer(model_config).to(device)
    batches = Batches(data.train, batch_size=train_config.batch_size, seq_len=train_config.seq_len, seed=train_config.seed)
    if run:
        check_same_text(run, origin)
    else:
        run = create_once(named(options, "out"), model_config, train_config, data, origin)
    counts = f"{model_config.n_params / 1e6:.2f}M parameters, {model_config.n_active_params / 1e6:.2f}M active"
    say(f"{counts}; {len(data.train) / 1e6:.2f}M tokens of {data.name}; on {device}, tier {tier.name}")
    try:
        with contextlib.closing(train(model, batches, train_config, run=run, resume=options.resume, valid=data)) as records:
            show_progress(records, train_config, data.valid_bytes / len(data.valid))
    except KeyboardInterrupt:
        say(f"stopped; continue with: minimodels train --out {options.out} --resume")
        raise
    if rank() == 0:
        report(model, data, train_config)
        say(f"the run is in {options.out}")


def named(options, flag: str) -> str:
    """The folder that a flag gives. Raises ValueError for an empty name, which would be the current folder."""
    value = getattr(options, flag)
    if not value:
        raise ValueError(f"--{flag} must name a folder, got {value!r}")
    return value


def source_of(options, run: Run | None) -> str | None:
    """What --data names, or without it what the run was trained on; a path is made absolute, so that it holds elsewhere too."""
    if options.data is None:
        return run and run.data.get("source")
    if not options.data:
        raise ValueError(f"--data must be one of {', '.join(CORPORA)}, or a file or folder, got {options.data!r}")
    return options.data if options.data in CORPORA or not os.path.exists(options.data) else os.path.abspath(options.data)


def check_same_text(run: Run, origin: dict):
    """Raise ValueError if the training tokens are not those that the run was made with, wherever they lie now."""
    if run.data.get("train_sha256", origin["train_sha256"]) != origin["train_sha256"]:
        raise ValueError(f"--data must hold the text that {run.directory} was made with ({run.data['source']}, as it was then), got other "
                         f"text in {origin['source']}: put the text back, or choose another --out")


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


def create_once(out: str, model_config: ModelConfig, train_config: TrainConfig, data: Dataset, origin: dict) -> Run | None:
    """A new run, made by the first process; the others keep nothing."""
    return Run.create(out, model_config, train_config, data.tokenizer, data=origin) if rank() == 0 else None


def check_sizes(model_config: ModelConfig, train_config: TrainConfig):
    """Raise ValueError if the two configurations do not fit each other, the processes, or the machine, before anything is made."""
    T, at_least = train_config.seq_len, model_config.mtp_depth + 2
    if T > model_config.max_seq_len:
        raise ValueError(f"seq_len must be at most max_seq_len={model_config.max_seq_len}, got {T}")
    if T < at_least:
        raise ValueError(f"seq_len must be at least mtp_depth + 2 = {at_least}, so that every depth has a target, got {T}")
    check_share(train_config)
    n_params = sum(model_config.parameters.values())
    needed, memory = 8 * n_params, lab.memory()  # a weight and its gradient, in float32, and no state or activation yet
    if memory and needed > memory:
        raise ValueError(f"the model must fit in memory: {n_params / 1e9:,.1f} billion parameters need more than "
                         f"{needed / 2**30:,.0f} GiB to train, this machine has {memory / 2**30:,.0f}; lower d_model, n_layers, n_experts or vocab_size")


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
    prompt = data.valid[:min(16, model.config.max_seq_len // 2)].tolist()
    result = decode(model, [prompt], max_new_tokens=min(120, model.config.max_seq_len - len(prompt)), temperature=0.7,
                    generator=torch.Generator(model.embed.weight.device).manual_seed(config.seed))
    print("\na sample at temperature 0.7; the prompt ends at the bar")
    print(data.tokenizer.decode(prompt) + "|" + data.tokenizer.decode(result.tokens[0]))


def load(run: Run, options) -> Transformer:
    """The run's model, on --device."""
    return run.model().to(choose_device(getattr(options, "device", "cpu")))


def run_generate(options):
    """The continuation of --prompt on stdout, what it took on stderr."""
    model = load(Run.open(named(options, "run")), options)
    prompt = tokens_of(options.prompt, model)
    if not 0 <= options.seed < 2**63:
        raise ValueError(f"--seed must be in [0, 2**63), got {options.seed}")
    generator = torch.Generator(model.embed.weight.device).manual_seed(options.seed)
    n_new = options.max_new_tokens
    result = decode(model, [prompt], max_new_tokens=min(128, model.config.max_seq_len - len(prompt)) if n_new is None else n_new,
                    temperature=options.temperature, top_k=options.top_k, top_p=options.top_p, min_p=options.min_p, draft=options.draft,
                    stop_token=0, generator=generator)
    print(options.prompt + model.tokenizer.decode(result.tokens[0]))
    n_new = len(result.tokens[0])
    say(f"{n_new} tokens in {result.seconds:.2f} s ({n_new / result.seconds:.0f} tokens/s), {result.n_passes + 1} passes, "
        f"cache {result.cache_bytes / 1024:.0f} KiB" + (f", {result.acceptance:.0%} of drafts accepted" if result.n_drafted else ""))


def tokens_of(prompt: str, model: Transformer) -> list[int]:
    """The prompt's tokens. Raises ValueError if there are none, too many, or no tokenizer."""
    if model.tokenizer is None:
        raise ValueError("--run must hold a tokenizer to read a prompt, got a run that was made without one")
    tokens, limit = model.tokenizer.encode(prompt).ids, model.config.max_seq_len
    if not tokens:
        raise ValueError("--prompt must have at least one character, got an empty one")
    if len(tokens) >= limit:
        raise ValueError(f"--prompt must be shorter than max_seq_len={limit} tokens, got {len(tokens)}; leave out its beginning")
    return tokens


def run_evaluate(options):
    """Bits per byte, acceptance of the drafts, bytes of cache a token, and the load of the experts."""
    run = Run.open(named(options, "run"))
    model, source = load(run, options), source_of(options, run)
    if source is None:
        raise ValueError(f"--data must be given, because {run.directory} does not say what it was trained on")
    data = prepare(source, model.config.vocab_size, tokenizer=model.tokenizer)
    score = evaluate(model, data.valid, n_bytes=data.valid_bytes, seq_len=run.train_config.seq_len)
    print(f"bits per byte    {score.bits_per_byte:.4f}  ({data.valid_bytes:,} bytes of {data.name})")
    n_values = model.config.cached_values_per_token
    print(f"cache            {4 * n_values:,} bytes a token in fp32 ({n_values} values)")
    if model.config.mtp_depth:
        print_acceptance(model, data)
    print_load(score, model.config)


def print_acceptance(model: Transformer, data: Dataset):
    """Share of greedy drafts that the main model confirms, over prompts spread over the validation text."""
    length = min(32, model.config.max_seq_len // 2, len(data.valid))
    starts = torch.linspace(0, len(data.valid) - length, 8).long().tolist()
    n_new = min(64, model.config.max_seq_len - length)
    result = decode(model, [data.valid[s:s + length].tolist() for s in starts], max_new_tokens=n_new, draft="mtp")
    print(f"drafts accepted  {result.acceptance:.1%}  (greedy, 8 prompts of {length} tokens, {n_new} tokens each)")


def print_load(score: Evaluation, config: ModelConfig):
    """Each layer's busiest and idlest expert, as a multiple of an equal share."""
    for i, load in enumerate(score.load):
        share = load / load.double().mean()
        n_main = config.n_layers - config.n_dense_layers
        name = f"layer {i + config.n_dense_layers}" if i < n_main else f"MTP {i - n_main + 1}"
        print(f"{name:16} busiest expert {share.max():.2f}, idlest {share.min():.2f} of an equal share")


def run_export(options):
    """Write the run's model and tokenizer for Hugging Face Transformers."""
    save_hf(load(Run.open(named(options, "run")), options), named(options, "out"))
    say(f"written to {options.out}; load it with AutoModelForCausalLM.from_pretrained({options.out!r})")


def run_study(options):
    """Run the trials of a study that its file lacks, and say each result; without a name, list the studies."""
    if options.name is None:
        for study in studies.studies().values():
            print(f"{study.name:14} {len(study.trials):3} trials  {study.question}")
        return
    record(studies.find(options.name), options)


def record(study: studies.Study, options):
    """Run the trials that the study's file lacks, and say each result."""
    path = folder_of(options) / f"{study.name}.json"
    for trial in studies.run_study(study, path, jobs=options.jobs):
        print(", ".join(f"{name} {value}" for name, value in trial.items() if isinstance(value, (int, float)) or name == "arm"), flush=True)
    say(f"{path} holds all {len(study.trials)} trials")


def folder_of(options) -> Path:
    """Where studies are recorded: --out, or the repository's own folder."""
    return Path(options.out) if options.out else lab.data_file("runs")


def run_ladder(options):
    """Record what a tier's ladder lacks, and print its table: a column a rung, a line a figure."""
    if options.tier != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"--tier {options.tier} needs an NVIDIA GPU, and torch finds none; --tier cpu needs none")
    for study in together.ladder_studies(options.tier):
        record(study, options)
    rows = together.rows(together.measured(options.tier, folder_of(options)))
    width = 2 + max(len(value) for row in rows for value in row.values())
    for name in rows[0]:
        print(f"{name:18}" + "".join(f"{row[name]:>{width}}" for row in rows))


def run_doctor(options):
    """What this machine can run, and which tier it is."""
    print(lab.doctor())


def say(text: str):
    """A line for the person, on stderr, from the first process alone."""
    if rank() == 0:
        print(text, file=sys.stderr)


