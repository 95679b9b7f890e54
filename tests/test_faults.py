"""Bad input through the command line: one clear line, a status that is not zero, and nothing half-written.

A row: name, the command (a function of a folder), what the line must say, and what is wrong with the world meanwhile, if anything is.
The folder holds text.txt, `run` (a trained run on it), `plain` (one without MTP modules, of a kind that cannot be exported), and
`begun` (a run without a checkpoint), and `silent` (one that does not say what it was trained on).
"""

import contextlib
import errno
import os
import re
import shutil
import socket
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from faults_checkpoint import cut, flip, not_ours, small_disk
from faults_data import HELLO, SHA, Loopback, without_waiting

from minimodels import corpus
from minimodels.checkpoint import Run
from minimodels.cli import main
from minimodels.download import Source
from minimodels.model import Transformer

TEXT = "".join(f"line {i} of a text that says little, {i * i % 97} times\n" for i in range(400))
UNIT = ["--preset", "unit", "--steps", "2"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The folder that every fault gets a copy of, and the token cache they share."""
    world = tmp_path_factory.mktemp("faults")
    (world / "place").mkdir()
    text = world / "place" / "text.txt"
    text.write_text(TEXT)
    with patch.dict(os.environ, {"MINIMODELS_CACHE": str(world / "cache")}):
        for out, more in (("run", []), ("plain", ["--mtp-depth", "0", "--attention", "mha"])):
            assert main(["train", *UNIT, "--data", str(text), "--out", str(text.with_name(out)), "--checkpoint-every", "1", *more]) == 0
    run = Run.open(world / "place" / "run")
    for out in ("begun", "silent"):
        with Run.create(world / "place" / out, run.model_config, run.train_config, run.tokenizer) as other:
            if out == "silent":
                other.save(*run.latest())
    return world


# ---- commands

def train(*more, data="text.txt", out="new", preset=UNIT):
    return lambda place: ["train", *preset, "--data", data if data in ("", *corpus.CORPORA, "/dev/null") else str(place / data),
                          "--out", str(place / out) if out else "", *more]


def resume(*more, run="run", data=None):
    return lambda place: ["train", "--resume", "--out", str(place / run), *(["--data", str(place / data)] if data else []), *more]


def generate(*more, prompt="line", run="run"):
    return lambda place: ["generate", "--run", str(place / run), "--prompt", prompt, *more]


def evaluate(*more, run="run"):
    return lambda place: ["evaluate", "--run", str(place / run), *(str(place / word) if word.endswith(".txt") else word for word in more)]


def export(run="run", out="new"):
    return lambda place: ["export", "--run", str(place / run), "--out", str(place / out) if out else ""]


def just(*argv):
    return lambda place: list(argv)


# ---- what is wrong with the world

def holding(content, name="odd.txt"):
    """The folder also has a file with this content."""
    def before(place):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(content)
        return contextlib.nullcontext()
    return before


def harmed(change):
    """Something was done to the run."""
    def before(place):
        change(place / "run")
        return contextlib.nullcontext()
    return before


def during(context):
    """A context manager, the same for every folder."""
    return lambda place: context()


def environment(**variables):
    return lambda place: patch.dict(os.environ, {k: v.replace("PLACE", str(place)) for k, v in variables.items()})


def shakespeare(files, faults=(), sha256=SHA):
    """tinyshakespeare is the file of a server on this machine, with these faults."""
    @contextlib.contextmanager
    def context(place):
        with Loopback(files, {"/file": list(faults)}) as server, without_waiting():
            source = Source("s.txt", server.url + "/file", n_bytes=13, sha256=sha256)
            with patch.dict(corpus.SOURCES, tinyshakespeare=(source,)), patch.dict(os.environ, MINIMODELS_CACHE=str(place / "cache")):
                yield
    return context


@contextlib.contextmanager
def no_network(place):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/file"
    with (patch.dict(corpus.SOURCES, tinyshakespeare=(Source("s.txt", url),)),
          patch.dict(os.environ, MINIMODELS_CACHE=str(place / "cache"), no_proxy="127.0.0.1")):
        yield


def out_of_memory(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory.")


def checkpoints(run):
    return sorted((run / "checkpoints").iterdir())


def cut_both(run):
    for path in checkpoints(run):
        cut(path, 900)


@contextlib.contextmanager
def unwritable(place):
    """Nothing can be made in the folder. Root may do all, and another user could not read this Python; so root is told a lie."""
    mkdir = os.mkdir

    def refuse(path, *args, **kwargs):
        if Path(path).parent == place and not os.path.exists(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        mkdir(path, *args, **kwargs)
    with not_ours(place) if os.name != "nt" and os.geteuid() else patch("os.mkdir", refuse):
        yield


def without_text(place):
    (place / "folder").mkdir()
    (place / "folder" / "a.bin").write_bytes(b"\0\1")
    return contextlib.nullcontext()


FAULTS = [
    # flags
    ("unknown preset", train(preset=["--preset", "huge"]),
     r"--preset: invalid choice: 'huge' \(choose from .*unit.*see minimodels train --help"),
    ("preset that only counts", train(preset=["--preset", "deepseek_v3"]), r"--preset: invalid choice: 'deepseek_v3'"),
    ("unknown flag", train("--learning-rate", "1"), r"unknown flag or word: --learning-rate 1; see minimodels train --help"),
    ("missing --out", just("train", *UNIT), r"arguments are required: --out; see minimodels train --help"),
    ("missing --prompt", just("generate", "--run", "x"), r"arguments are required: --prompt"),
    ("no command", just(), r"arguments are required: COMMAND"),
    ("unknown command", just("trian"), r"invalid choice: 'trian' \(choose from .*train"),
    ("flag without its value", train("--steps"), r"--steps: expected one argument"),
    ("no number", train("--steps", "many"), r"--steps: invalid int value: 'many'"),
    ("no whole number", train("--steps", "1.5"), r"--steps: invalid int value: '1\.5'"),
    ("two values for one", train("--steps", "1", "2"), r"unknown flag or word: 2; see minimodels train --help"),
    ("misspelt flag", train("--n-expert=4"), r"unknown flag or word: --n-expert=4; did you mean --n-experts\?"),
    ("misspelt command flag", generate("--draf", "mtp"), r"unknown flag or word: --draf mtp; did you mean --draft\?"),
    ("a switch with a value", train("--fp8=yes"), r"--fp8.*: ignored explicit argument 'yes'"),
    # the model
    ("heads that do not divide", train("--attention", "gqa", "--n-heads", "3", "--n-kv-heads", "2"),
     r"n_kv_heads must be a divisor of n_heads=3, got 2"),
    ("top-k above experts", train("--top-k", "5"), r"top_k must be in \[1, n_experts=4\], got 5"),
    ("top-k above open groups", train("--n-groups", "2", "--top-k", "3"), r"top_k must be at most top_groups x experts a group = 2, got 3"),
    ("groups that do not divide", train("--n-groups", "3"), r"n_groups must be a divisor of n_experts=4, got 3"),
    ("more groups open than there are", train("--n-groups", "2", "--top-groups", "3"), r"top_groups must be in \[1, n_groups=2\], got 3"),
    ("odd rotary size", train("--d-rope", "3"), r"d_rope must be even and at least 2, .*got 3"),
    ("odd head", train("--attention", "mha", "--d-head", "7", "--d-value", "7"), r"d_head must be even with attention='mha', .*got 7"),
    ("value width unlike the head's", train("--attention", "mqa", "--d-value", "6"), r"d_value must be equal to d_head=8 .*got 6"),
    ("unknown attention", train("--attention", "flash"), r"attention must be one of mla, mha, gqa, mqa, got 'flash'"),
    ("unknown gate", train("--gate", "relu"), r"gate must be one of sigmoid, softmax, got 'relu'"),
    ("no width", train("--d-model", "0"), r"d_model must be at least 1, got 0"),
    ("negative depth", train("--mtp-depth", "-1"), r"mtp_depth must be at least 0, got -1"),
    ("a context made shorter", train("--yarn-factor", "0.5"), r"yarn_factor must be at least 1, got 0\.5"),
    ("vocabulary below the bytes", train("--vocab-size", "100"), r"vocab_size must be in \[257, .*got 100"),
    ("model beyond the memory", train("--d-model", "1000000000"),
     r"must fit in memory: .* billion parameters .*this machine has .*; lower d_model"),
    # the training
    ("no steps", train("--steps", "0"), r"steps must be at least 1, got 0"),
    ("empty batch", train("--batch-size", "0"), r"batch_size must be at least 1, got 0"),
    ("empty micro-batch", train("--micro-batch", "0"), r"micro_batch must be at least 1, or None for the whole batch, got 0"),
    ("negative rate", train("--lr", "-1"), r"lr must be above 0, got -1\.0"),
    ("rate that is no number", train("--lr", "nan"), r"lr must be a finite number, got nan"),
    ("rate without end", train("--muon-lr", "inf"), r"muon_lr must be a finite number, got inf"),
    ("momentum of one", train("--beta1", "1"), r"beta1 must be in \[0, 1\), got 1\.0"),
    ("warm-up and decay above one", train("--warmup", "0.7", "--decay", "0.4"), r"decay must be at most 1 - warmup = 0\.3, got 0\.4"),
    ("unknown optimizer", train("--optimizer", "sgd"), r"optimizer must be one of muon, adamw, got 'sgd'"),
    ("unknown balance", train("--balance", "even"), r"balance must be one of bias, .*got 'even'"),
    ("unknown number format", train("--dtype", "int4"), r"dtype must be one of auto, fp32, .*got 'int4'"),
    ("negative seed", train("--seed", "-3"), r"seed must be in \[0, 2\*\*63\), got -3"),
    ("seed beyond 63 bits", train("--seed", "9" * 30), r"seed must be in \[0, 2\*\*63\), got 999"),
    ("sequence above the context", train("--seq-len", "129"), r"seq_len must be at most max_seq_len=128, got 129"),
    ("sequence of one token", train("--seq-len", "1"), r"seq_len must be at least 2, .*got 1"),
    ("sequence too short for its depth", train("--seq-len", "4", "--mtp-depth", "3"),
     r"seq_len must be at least mtp_depth \+ 2 = 5, .*got 4"),
    ("batch that processes cannot share", train("--batch-size", "5"), r"batch_size must be a multiple of the 2 processes, got 5",
     during(lambda: patch("minimodels.train.world_size", return_value=2))),
    # the machine
    ("unknown device", train("--device", "tpu"), r"device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
    ("device that is not here", train("--device", "cuda:99"), r"device 'cuda:99' is not on this machine, .*use --device cpu"),
    ("unknown tier", train(), r"MINIMODELS_TIER must be one of cpu, .*got 'mainframe'; unset it", environment(MINIMODELS_TIER="mainframe")),
    ("unknown tier for the doctor", just("doctor"), r"MINIMODELS_TIER must be one of .*got 'x'", environment(MINIMODELS_TIER="x")),
    ("memory that the system refuses", train(), r"memory ran out; lower batch_size, .*can't allocate memory",
     during(lambda: patch("minimodels.commands.Transformer", side_effect=lambda config: torch.empty(1 << 60)))),
    # the text
    ("missing file", train(data="none.txt"), r"nothing is at .*none\.txt"),
    ("unknown corpus", just("train", *UNIT, "--data", "wikipedia", "--out", "new"), r"data must be one of stdlib, .*got 'wikipedia'"),
    ("misspelt corpus", just("train", *UNIT, "--data", "tinystory", "--out", "new"), r"did you mean tinystories\?"),
    ("no name for the text", train(data=""), r"--data must be one of stdlib, .*got ''"),
    ("empty file", train(data="odd.txt"), r"data must be a text, got .*odd\.txt, which is empty", holding(b"")),
    ("binary file", train(data="odd.txt"), r"odd\.txt, which is binary \(a zero byte at position 3\); convert it", holding(b"abc\0def")),
    ("file not in UTF-8", train(data="odd.txt"),
     r"must be UTF-8 text, got .*odd\.txt, .*byte 0xe9 at position 3.*iconv", holding(b"caf\xe9 noir")),
    ("folder without text", train(data="folder"),
     r"must be a folder with UTF-8 text, got .*folder, which has none \(1 binary", without_text),
    ("device instead of a file", train(data="/dev/null"), r"must be a file or a folder, got /dev/null, which is a device"),
    ("text shorter than a batch", train(data="odd.txt"),
     r"must fill one batch: batch_size=4 .*seq_len=32 .*use a longer text or smaller batches",
     holding(b"only a few words here\n" * 5)),
    ("text on one side only", train(data="odd.txt"),
     r"text on both sides of the split.*odd\.txt.*use a longer text", holding(b"a line\n" + b" " * 500)),
    ("cache under a file", train(), r"cache must be a folder, got .*text\.txt/c, .*set MINIMODELS_CACHE",
     environment(MINIMODELS_CACHE="PLACE/text.txt/c")),
    ("full disk under the cache", train(), r"disk full while writing .*: free some space, or set MINIMODELS_CACHE",
     environment(MINIMODELS_CACHE="PLACE/cache"), during(lambda: small_disk(2000))),
    # downloads
    ("no network", train(data="tinyshakespeare"),
     r"cannot reach 127\.0\.0\.1:\d+ for s\.txt .*put the file yourself at .*--data stdlib", no_network),
    ("download refused", train(data="tinyshakespeare"),
     r"refuses s\.txt \(HTTP 403 .*put the file yourself", shakespeare(HELLO, [("status", 403)])),
    ("download not there", train(data="tinyshakespeare"), r"refuses s\.txt \(HTTP 404 ", shakespeare(HELLO, [("status", 404)])),
    ("server down", train(data="tinyshakespeare"),
     r"cut 5 times \(HTTP 503 .*run again to continue", shakespeare(HELLO, [("status", 503)] * 5)),
    ("download cut", train(data="tinyshakespeare"), r"s\.txt was cut 5 times \(5 of 13 bytes came\)",
     shakespeare(HELLO, [("cut", 5)] + [("cut", 0)] * 4)),
    ("download altered", train(data="tinyshakespeare"), r"s\.txt must have SHA-256 68e6.*it was altered; nothing was kept",
     shakespeare({"/file": b"hello, w0rld!"})),
    ("download of another size", train(data="tinyshakespeare"), r"s\.txt must have 13 bytes, got 5", shakespeare({"/file": b"hello"})),
    # the folder of a new run
    ("existing run", train(out="run"), r"run already holds a run: continue it with --resume, or choose another --out"),
    ("checkpoints without a run", train(out="run"), r"run holds the log or checkpoints .* choose another --out",
     harmed(lambda run: (run / "config.json").unlink())),
    ("run is a file", train(out="text.txt"), r"text\.txt must be a folder, but it is a file .*: choose another --out"),
    ("run under a file", train(out="text.txt/a/b"), r"must be a folder, .* lies under one: choose another --out"),
    ("no name for the run", train(out=""), r"--out must name a folder, got ''"),
    ("place that may not be written", train(), r"cannot write .*new \(permission denied\): choose another --out", unwritable),
    ("place that may not be written, deeper", train(out="a/b/c"), r"cannot write .*c \(permission denied\)", unwritable),
    ("full disk at the start", train(out="a/new"),
     r"disk full while writing .*new: choose another --out", during(lambda: small_disk(3000))),
    ("full disk at the tokenizer", train(), r"disk full while writing .*new: ",
     during(lambda: patch("minimodels.checkpoint.write", side_effect=OSError(errno.ENOSPC, "No space left on device")))),
    # resuming
    ("resume where there is no run", resume(run="none"), r"none holds no run, because it has no config\.json"),
    ("resume with another model", resume("--d-model", "48"), r"run was made with d_model=32, not 48: resume with the run's own settings"),
    ("resume with other steps", resume("--steps", "99"), r"made with steps=2, not 99: .*or choose another --out"),
    ("resume with another preset", resume("--preset", "cpu"), r"made with vocab_size=512, not 4096; d_model=32, not 128; "),
    ("resume with other text", resume(data="odd.txt"),
     r"--data must hold the text that .*run was made with .*got other text in .*odd\.txt: put",
     holding(TEXT.replace("little", "much").encode())),
    ("resume after the text has gone", resume(), r"nothing is at .*text\.txt", harmed(lambda run: (run.parent / "text.txt").unlink())),
    ("config.json cut", resume(), r"run/config\.json was cut or altered, because it is not JSON.*: put the file back",
     harmed(lambda run: cut(run / "config.json", 400))),
    ("config.json edited", resume(), r"run/config\.json was cut or altered \(its SHA-256.*: put the file back",
     harmed(lambda run: (run / "config.json").write_text((run / "config.json").read_text().replace('"seed": 0', '"seed": 1')))),
    ("config.json of another version", resume(), r"run/config\.json cannot be used, because version must be 1, got 9",
     harmed(lambda run: (run / "config.json").write_text((run / "config.json").read_text().replace('"version": 1', '"version": 9')))),
    ("tokenizer altered", resume(), r"run/tokenizer\.json was cut or altered", harmed(lambda run: flip(run / "tokenizer.json", 900))),
    ("tokenizer missing", generate(),
     r"run/tokenizer\.json is missing: put the file back", harmed(lambda run: (run / "tokenizer.json").unlink())),
    # reading a run
    ("no run to generate from", generate(run="none"), r"none holds no run"),
    ("no name for the run to read", just("generate", "--run", "", "--prompt", "x"), r"--run must name a folder, got ''"),
    ("run without a checkpoint", generate(run="begun"), r"begun has no checkpoint yet: train it first, with --resume"),
    ("empty prompt", generate(prompt=""), r"--prompt must have at least one character, got an empty one"),
    ("prompt too long", generate(prompt="word " * 200),
     r"--prompt must be shorter than max_seq_len=128 tokens, got \d+; leave out its beginning"),
    ("more tokens than the context holds", generate("--max-new-tokens", "128"),
     r"max_new_tokens must be at most max_seq_len .*got 128; shorten"),
    ("no new tokens", generate("--max-new-tokens", "0"), r"max_new_tokens must be at least 1, got 0"),
    ("negative temperature", generate("--temperature", "-1"), r"temperature must be at least 0 .*got -1\.0"),
    ("temperature that is no number", generate("--temperature", "nan"), r"temperature must be at least 0 .*got nan"),
    ("top-k of none", generate("--top-k", "0"), r"top_k must be a whole number of at least 1.*got 0"),
    ("top-p of none", generate("--top-p", "0"), r"top_p must be in \(0, 1\].*got 0\.0"),
    ("top-p above one", generate("--top-p", "1.5"), r"top_p must be in \(0, 1\].*got 1\.5"),
    ("min-p above one", generate("--min-p", "2"), r"min_p must be in \[0, 1\].*got 2\.0"),
    ("negative seed of a draw", generate("--seed", "-1"), r"--seed must be in \[0, 2\*\*63\), got -1"),
    ("drafts without MTP", generate("--draft", "mtp", run="plain"),
     r"draft must be None for a model with mtp_depth=0, got 'mtp'; train one with"),
    ("unknown drafter", generate("--draft", "magic"), r"--draft: invalid choice: 'magic' \(choose from '?mtp'?\)"),
    ("nothing to evaluate", evaluate("--data", "odd.txt"), r"odd\.txt, which is empty", holding(b"  \n")),
    ("evaluation of what is not there", evaluate("--data", "none.txt"), r"nothing is at .*none\.txt"),
    ("no run to evaluate", evaluate(run="text.txt"), r"text\.txt holds no run"),
    ("run that does not say its text", evaluate(run="silent"),
     r"--data must be given, because .*silent does not say what it was trained on"),
    ("every checkpoint damaged", evaluate(),
     r"run has no checkpoint that can be read: .*step_000002\.safetensors was cut or altered.*step_000001",
     harmed(cut_both)),
    # exporting
    ("export target is there", export(out="run"), r"must be new or empty, got .*run; choose another name"),
    ("export target is a file", export(out="text.txt"), r"must be a folder, got the file .*text\.txt; choose another name"),
    ("export to a place that may not be written", export(),
     r"where files can be written, got .*new \(Permission denied\); choose another", unwritable),
    ("export to a full disk", export(), r"(there is room|disk full).*", during(lambda: small_disk(3000))),
    ("no name for the export", export(out=""), r"--out must name a folder, got ''"),
    ("export of what DeepSeek cannot express", export(run="plain"), r"attention must be .*mla.*got 'mha'"),
    ("unknown format", just("export", "--run", "x", "--out", "y", "--format", "onnx"),
     r"--format: invalid choice: 'onnx' \(choose from '?hf'?\)"),
]

# While a run is under way: the run stays, with what was good.
LATE = [
    ("full disk while saving", train("--checkpoint-every", "1"), r"disk full while writing .*step_000001\.safetensors: .*free some space",
     during(lambda: small_disk(90_000))),
    ("loss that is not finite", train("--lr", "1e30", "--muon-lr", "1e30", "--warmup", "0", "--steps", "9"),
     r"must stay finite, got (nan|inf) at step 2; .*Start another run with a lower lr \(now 1e\+30\) or muon_lr"),
    ("one sequence too large for the memory", train(), r"hold one sequence, but seq_len=32 does not fit at step 1: lower seq_len or d_model",
     during(lambda: patch.object(Transformer, "forward", out_of_memory))),
]


def snapshot(place):
    """Every folder and file below place with its content; a run's lock, which says who wrote last, and the cache aside."""
    return {path.relative_to(place): path.read_bytes() if path.is_file() else None for path in sorted(place.rglob("*"))
            if path.name != "run.lock" and path.relative_to(place).parts[0] != "cache"}


def status_of(fault, world, tmp_path, monkeypatch):
    """Run a row's command in a copy of the world. Returns the exit status, and what lay there before and lies there after."""
    _, command, _, *contexts = fault
    place = tmp_path / "place"
    shutil.copytree(world / "place", place)
    for out in ("run", "plain"):  # which remember where their text lies
        keep_text(place / out, place / "text.txt")
    monkeypatch.chdir(place)
    monkeypatch.setenv("MINIMODELS_CACHE", str(world / "cache"))
    with contextlib.ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context(place))
        before = snapshot(place)
        status = main(command(place))
    return status, before, snapshot(place)


def keep_text(folder: Path, text: Path):
    """Make the copied run's text the one in its own folder."""
    old = Run.open(folder)
    copy = folder.with_name(folder.name + ".new")
    with Run.create(copy, old.model_config, old.train_config, old.tokenizer, data=old.data | {"source": str(text)}) as new:
        for step in (1, 2):
            kept = old.load(step)
            new.save(step, kept.tensors, kept.meta)
        for record in old.records():
            new.append(record)
    shutil.rmtree(folder)
    copy.rename(folder)


@pytest.mark.parametrize("fault", FAULTS, ids=[fault[0] for fault in FAULTS])
def test_bad_input_is_told_in_one_line_and_leaves_nothing_behind(fault, world, tmp_path, monkeypatch, capsys):
    status, before, after = status_of(fault, world, tmp_path, monkeypatch)
    out, err = capsys.readouterr()
    told = err.splitlines()
    if fault[0] == "every checkpoint damaged":  # each is named when it is passed over, too
        told = told[2:]
    assert status == 2 and out == ""
    assert len(told) == 1 and told[0].startswith("minimodels: error: ") and re.search(fault[2], told[0]), err
    assert len(told[0]) < 700 and "Traceback" not in err
    assert after == before


@pytest.mark.filterwarnings("ignore:out of memory")
@pytest.mark.parametrize("fault", LATE, ids=[fault[0] for fault in LATE])
def test_a_fault_on_the_way_is_told_in_one_line_and_leaves_a_whole_run(fault, world, tmp_path, monkeypatch, capsys):
    status, before, after = status_of(fault, world, tmp_path, monkeypatch)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("minimodels: error: ")]
    assert status == 2 and len(told) == 1 and re.search(fault[2], told[0]), told
    assert {path for path in after if path.suffix == ".tmp"} == set() and before.items() <= after.items()
    Run.open(tmp_path / "place" / "new").records()


def test_there_are_at_least_forty_faults_and_no_two_are_one():
    names = [fault[0] for fault in FAULTS + LATE]
    assert len(FAULTS) >= 40 and len(set(names)) == len(names)
