"""The command line: train, generate, evaluate, export, study, ladder, doctor. Its flags are the fields of the two configurations."""

import argparse
import difflib
import os
import sys
import types
import typing

import torch.distributed as dist

from minimodels.commands import run_doctor, run_evaluate, run_export, run_generate, run_ladder, run_study, run_train
from minimodels.config import PRESETS, ModelConfig, TrainConfig
from minimodels.devices import is_out_of_memory
from minimodels.ladder import FULL


class Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviations, and whose complaint is one line, like every other complaint of this program."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def parse_known_args(self, args=None, namespace=None):
        """As ever, but each command answers for the flags that it does not know."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            close = difflib.get_close_matches(unknown[0].partition("=")[0], self._option_string_actions, n=1, cutoff=0.8)
            self.error(f"unknown flag or word: {' '.join(unknown)}" + (f"; did you mean {close[0]}?" if close else ""))
        return options, unknown

    def error(self, message):
        raise ValueError(f"{message}; see {self.prog} --help")


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0, 2 for bad input, 130 if it was interrupted."""
    try:
        options = parser().parse_args(argv)
        options.command(options)
        return 0
    except KeyboardInterrupt:
        print("minimodels: stopped", file=sys.stderr)
        return 130
    except (ValueError, OSError, ArithmeticError, MemoryError, RuntimeError) as error:
        is_full = isinstance(error, RuntimeError) and is_out_of_memory(error)
        # any other RuntimeError is a fault of this program, whose traceback somebody needs
        if isinstance(error, RuntimeError) and not is_full or os.environ.get("MINIMODELS_TRACEBACK"):
            raise
        cure = "memory ran out; lower batch_size, seq_len, vocab_size or d_model: " if is_full else ""
        print(f"minimodels: error: {cure}{' '.join(str(error).split())}", file=sys.stderr)
        return 2
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def parser() -> Parser:
    """The whole command line."""
    root = Parser(prog="minimodels", description="Train and study small DeepSeek-style language models.")
    commands = root.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    sub = commands.add_parser("train", help="train a model on a corpus")
    sub.set_defaults(command=run_train)
    sub.add_argument("--preset", choices=[p for p in PRESETS[TrainConfig]], help="sizes and recipe to start from (default cpu)")
    sub.add_argument("--data", help="stdlib, a corpus that is downloaded, or a file or folder of text (default stdlib)")
    sub.add_argument("--out", required=True, help="folder of the run")
    sub.add_argument("--resume", action="store_true", help="continue the run in --out from its last checkpoint")
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    for config_class in (ModelConfig, TrainConfig):
        add_fields(sub.add_argument_group(f"{config_class.__name__} (instead of the preset's)"), config_class)

    sub = commands.add_parser("generate", help="continue a prompt: the text alone on stdout, statistics on stderr")
    sub.set_defaults(command=run_generate)
    sub.add_argument("--run", required=True, help="folder of the run")
    sub.add_argument("--prompt", required=True)
    sub.add_argument("--max-new-tokens", type=int, help="default 128, or what max_seq_len leaves")
    sub.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token")
    for name, kind in (("top-k", int), ("top-p", float), ("min-p", float)):
        sub.add_argument(f"--{name}", type=kind)
    sub.add_argument("--draft", choices=["mtp"], help="let the MTP modules guess tokens that one pass then checks")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--device", default="auto")

    sub = commands.add_parser("evaluate", help="bits per byte, acceptance of drafts, bytes of cache, load of experts")
    sub.set_defaults(command=run_evaluate)
    sub.add_argument("--run", required=True, help="folder of the run")
    sub.add_argument("--data", help="corpus, file or folder (default: what it was trained on)")
    sub.add_argument("--device", default="auto")

    sub = commands.add_parser("export", help="write a run as a Hugging Face DeepseekV3ForCausalLM")
    sub.set_defaults(command=run_export)
    sub.add_argument("--run", required=True, help="folder of the run")
    sub.add_argument("--format", choices=["hf"], default="hf")
    sub.add_argument("--out", required=True, help="folder to write")

    sub = commands.add_parser("study", help="run what is missing of a recorded experiment; without a name, list them")
    sub.set_defaults(command=run_study)
    sub.add_argument("name", nargs="?", help="such as mla-quality")
    add_recording(sub)

    sub = commands.add_parser("ladder", help="measure what each technique changes on a tier, as far as it is not recorded, and print the table")
    sub.set_defaults(command=run_ladder)
    sub.add_argument("--tier", choices=FULL, default="cpu", help="default cpu; what is not recorded yet takes hours, and the other tiers a GPU")
    add_recording(sub)

    sub = commands.add_parser("doctor", help="what this machine can run, and which tier it is")
    sub.set_defaults(command=run_doctor)
    return root


def add_recording(sub: Parser):
    """The flags of a command that records trials."""
    sub.add_argument("--out", help="folder of the recorded runs (default: the repository's data/runs)")
    sub.add_argument("--jobs", type=int, default=2, help="trials side by side, one thread each (default 2)")


def add_fields(group, config_class: type):
    """A flag for each field of a configuration: d_model becomes --d-model. A flag that is not given leaves no trace in the options."""
    for name, annotation in typing.get_type_hints(config_class).items():
        kinds = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
        flag = f"--{name.replace('_', '-')}"
        if kinds == (bool,):
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS)
        else:
            group.add_argument(flag, type=_reader(kinds), default=argparse.SUPPRESS, metavar=kinds[0].__name__.upper())


def _reader(kinds: tuple):
    def read(text):
        return None if types.NoneType in kinds and text.lower() == "none" else kinds[0](text)
    read.__name__ = kinds[0].__name__
    return read
