"""Keep a finished run for the book: its log and score in data/runs/, its weights in data/checkpoints/.

    python book/_tools/record.py RUN NAME

The weights are stored in bfloat16, which halves the file; the score is that of the stored weights.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from minimodels import lab
from minimodels.checkpoint import Run, model_tensors
from minimodels.config import PRESETS, TrainConfig
from minimodels.data import compressed_bits_per_byte, prepare
from minimodels.evaluate import evaluate

ROOT = Path(__file__).resolve().parents[2]
EVERY = 10  # steps between the records that are kept


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", help="folder of the run")
    parser.add_argument("name", help="name of the two that are written")
    options = parser.parse_args(argv)
    try:
        run = Run.open(options.run)
        model = keep_weights(run, ROOT / "data" / "checkpoints" / options.name)
        kept = summary(run, model)
    except (ValueError, OSError) as error:
        print(f"record: error: {error}", file=sys.stderr)
        return 2
    path = ROOT / "data" / "runs" / f"{options.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"{path.relative_to(ROOT)}: {kept['bits_per_byte']:.3f} bits per byte after {kept['tokens']:,} tokens in {kept['seconds'] / 60:.1f} minutes")
    return 0


def keep_weights(run: Run, directory: Path):
    """Write the run's configuration, tokenizer and rounded weights as a run of their own; returns the model as it is read back."""
    tensors = {name: t.bfloat16() if t.dtype == torch.float32 and not name.endswith("gate.bias") else t
               for name, t in model_tensors(run.model()).items()}
    if run.model_config.tie_embeddings:
        tensors["model.head.weight"] = tensors["model.embed.weight"]
    step = run.latest().step
    with Run.create(directory, run.model_config, run.train_config, run.tokenizer, data=run.data) as kept:
        kept.save(step, tensors, {})
    (directory / "run.lock").unlink(missing_ok=True)
    return Run.open(directory).model()


def command(run: Run) -> str:
    """The command that makes such a run: the preset that it has most fields of, and a flag for each other one."""
    def changes(name):
        pairs = ((config, type(config).preset(name)) for config in (run.model_config, run.train_config))
        return {field: value for ours, preset in pairs for field, value in ours.to_dict().items() if value != getattr(preset, field)}

    name = min(PRESETS[TrainConfig], key=lambda name: len(changes(name)))
    flags = "".join(f" --{field.replace('_', '-')} {value}" for field, value in changes(name).items())
    return f"minimodels train --preset {name} --data {run.data['source']}{flags} --out RUN"


def summary(run: Run, model) -> dict:
    """What a figure or a sentence of the book may say of the run, with all that is needed to make it again."""
    data = prepare(run.data["source"], run.model_config.vocab_size, tokenizer=run.tokenizer)
    score = evaluate(model, data.valid, n_bytes=data.valid_bytes, seq_len=run.train_config.seq_len)
    text, records = data.valid_text(), list(run.records())
    per_step = run.train_config.batch_size * run.train_config.seq_len
    columns = ("step", "tokens", "loss", "mtp_loss", "max_violation", "tokens_per_s")
    return {
        "command": command(run),
        "commit": lab.commit(), "machine": lab.machine(), "seed": run.train_config.seed,
        "model": run.model_config.to_dict(), "train": run.train_config.to_dict(),
        "n_params": run.model_config.n_params, "n_active_params": run.model_config.n_active_params,
        "tokens": records[-1]["tokens"], "seconds": round(sum(per_step / r["tokens_per_s"] for r in records), 1),
        "valid_bytes": data.valid_bytes, "bits_per_byte": round(score.bits_per_byte, 4),
        "lzma": round(compressed_bits_per_byte(text, "lzma"), 4), "zlib": round(compressed_bits_per_byte(text, "zlib"), 4),
        "records": [{c: r[c] for c in columns} for r in records if r["step"] % EVERY == 0 or r["step"] == 1],
    }


if __name__ == "__main__":
    sys.exit(main())
