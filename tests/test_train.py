"""A step is what it says, however it is cut up; a run that was stopped, killed or interrupted goes on as if it had not been."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from configs import odd_config
from torch.nn import functional as F
from torch.testing import assert_close

from minimodels.checkpoint import Run
from minimodels.cli import main
from minimodels.config import TrainConfig
from minimodels.data import Batches
from minimodels.fp8 import converted
from minimodels.model import Transformer
from minimodels.train import Trainer, train

ROOT = Path(__file__).parents[1]
TEXT = "".join(f"line {i} of a text that says little, {i * i % 97} times\n" for i in range(400))
TINY = ["--preset", "unit", "--d-model", "16", "--max-seq-len", "32", "--steps", "30", "--seq-len", "16", "--checkpoint-every", "3"]


def model_of(seed=0, **changes):
    torch.manual_seed(seed)
    return Transformer(odd_config(**dict(n_layers=2, n_experts=5, top_k=2, mtp_depth=1) | changes))


def config_of(**changes):
    return TrainConfig(**dict(steps=9, batch_size=4, seq_len=13, lr=1e-2, embed_lr=1e-2, balance_rate=0.001, checkpoint_every=4) | changes)


def batches_of(config):
    tokens = np.random.default_rng(0).integers(0, 53, 997).astype(np.uint16)
    return Batches(tokens, batch_size=config.batch_size, seq_len=config.seq_len, seed=config.seed)


def run_of(folder, model, config):
    return Run.create(folder, model.config, config)


def facts(record):
    """What must be the same in every bit, whenever the step was made."""
    return record.step, record.loss, record.mtp_loss, record.grad_norm, record.load, record.tokens


def trained(model, config, **options):
    return [facts(record) for record in train(model, batches_of(config), config, **options)]


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters()}


# ---- one step

def test_the_loss_falls_on_a_batch_that_can_be_learnt_by_heart():
    config = config_of(steps=40, warmup=0.0, decay=0.0)
    batches = SimpleNamespace(at=lambda step: batches_of(config).at(0))
    losses = [record.loss for record in train(model_of(), batches, config)]
    assert losses[0] > 0.8 * math.log(53) and losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("name", ["layers.0.attention.w_o.weight", "embed.weight"], ids=["of_muon", "of_adamw"])
@pytest.mark.parametrize("planted", [math.inf, math.nan], ids=str)
def test_in_fp16_an_overflow_in_one_optimizer_leaves_the_whole_step_out(name, planted):
    model, config = model_of(), config_of(dtype="fp16")
    trainer = Trainer(model, batches_of(config), config)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    before, scale = [p.clone() for p in model.parameters()], trainer.scaler.scale(torch.ones(())).item()
    model.get_parameter(name).grad[0, 0] = planted
    assert trainer._update(1) is None
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before))
    assert trainer.scaler.get_scale() == scale / 2


@pytest.mark.parametrize("mtp_weight", [0.0, 0.3])
@pytest.mark.parametrize("mtp_depth", [0, 1, 2])
def test_the_gradient_is_that_of_the_papers_loss(mtp_depth, mtp_weight):
    config, model, other = config_of(mtp_weight=mtp_weight, clip=1e9), model_of(mtp_depth=mtp_depth), model_of(mtp_depth=mtp_depth)
    tokens = batches_of(config).at(0)
    record = next(train(model, batches_of(config), config))
    out = other(tokens)
    each = [F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, k + 1:].flatten())
            for k, logits in enumerate([out.logits, *out.mtp_logits])]
    (each[0] + mtp_weight * sum(each[1:]) / max(mtp_depth, 1)).backward()  # V3 eqs. 24 and 25
    assert_close(torch.tensor([record.loss, *record.mtp_loss]), torch.stack(each).detach())
    norm = torch.cat([g.flatten() for g in gradients(other).values()]).norm()
    assert math.isclose(record.grad_norm, norm, rel_tol=1e-5)
    for name, g in gradients(other).items():
        assert_close(gradients(model)[name], g, atol=1e-6, rtol=1e-4, msg=name)


def test_predicting_further_ahead_changes_what_the_main_model_learns():
    got = {}
    for weight in (0.0, 0.3):
        model = model_of()
        next(train(model, batches_of(config_of()), config_of(mtp_weight=weight, clip=1e9)))
        got[weight] = gradients(model)
    assert (got[0.0]["mtp.0.project.weight"] == 0).all() and (got[0.3]["mtp.0.project.weight"] != 0).any()
    assert (got[0.0]["layers.0.attention.w_o.weight"] - got[0.3]["layers.0.attention.w_o.weight"]).norm() > 1e-4


@pytest.mark.parametrize("balance", ["bias", "bias+sequence", "none"])
def test_a_batch_in_pieces_is_the_batch(balance):
    whole = None
    for micro_batch in (None, 4, 2, 1, 3):
        config, model = config_of(steps=5, micro_batch=micro_batch, balance=balance, balance_weight=0.1), model_of()
        trainer = Trainer(model, batches_of(config), config)
        first = trainer.step(1)
        grads, records = gradients(model), [first, *(trainer.step(step) for step in range(2, 6))]
        assert first.micro_batch == (micro_batch or 4)
        if whole is None:
            whole = grads, records
            continue
        for name, g in whole[0].items():
            assert_close(grads[name], g, atol=2e-6, rtol=1e-4, msg=name)
        for a, b in zip(whole[1], records):
            assert a.load == b.load and np.allclose([a.loss, *a.mtp_loss], [b.loss, *b.mtp_loss], rtol=1e-4)


@pytest.mark.parametrize("clip", [0.01, 1e9])
def test_a_gradient_is_clipped_to_its_bound_and_recorded_before(clip):
    config, model = config_of(clip=clip), model_of()
    record = next(train(model, batches_of(config), config))
    norm = torch.cat([g.flatten() for g in gradients(model).values()]).norm()
    assert math.isclose(norm, min(clip, record.grad_norm), rel_tol=1e-3) and record.grad_norm > 0.1


def test_a_record_says_what_the_step_did():
    config, model = config_of(warmup=0.4, decay=0.0, steps=10, micro_batch=2), model_of()
    records = list(train(model, batches_of(config), config))
    assert [r.step for r in records] == list(range(1, 11)) and [r.tokens for r in records] == [52 * s for s in range(1, 11)]
    assert [round(r.lr, 6) for r in records] == [0.0025, 0.005, 0.0075] + [0.01] * 7
    for r in records:
        # one layer with experts sees 4 x 13 tokens, the MTP module 4 x 12; 2 experts a token
        assert [sum(n) for n in r.load] == [104, 96] and all(len(n) == 5 for n in r.load)
        assert math.isclose(r.max_violation, max((max(n) - sum(n) / 5) / (sum(n) / 5) for n in r.load))
        assert r.tokens_per_s > 0 and r.micro_batch == 2 and r.valid_bits_per_byte is None and len(r.mtp_loss) == 1


def test_a_dense_model_has_no_load_to_record():
    record = next(train(model_of(n_experts=0, mtp_depth=0), batches_of(config_of()), config_of()))
    assert record.load == [] and record.max_violation is None and record.mtp_loss == []


def test_evaluations_come_when_they_are_asked_for_and_change_nothing():
    config = config_of(eval_every=4)
    valid = SimpleNamespace(valid=torch.arange(40), valid_bytes=40)
    records = list(train(model_of(), batches_of(config), config, valid=valid))
    assert [r.step for r in records if r.valid_bits_per_byte is not None] == [4, 8]
    assert all(0 < r.valid_bits_per_byte < 20 for r in records if r.valid_bits_per_byte)
    assert [facts(r) for r in records] == trained(model_of(), config_of())


# ---- balance

def test_a_bias_moves_against_the_load_by_the_rate():
    config, model = config_of(balance_rate=0.01), model_of()
    record = next(train(model, batches_of(config), config))
    for gate, load in zip(model.gates, record.load, strict=True):
        expected = [0.01 * ((n < sum(load) / 5) - (n > sum(load) / 5)) for n in load]
        assert_close(gate.bias, torch.tensor(expected))


def test_maxvio_falls_from_a_skewed_start():
    config, model = config_of(steps=60, balance_rate=0.02, lr=1e-6, muon_lr=1e-6), model_of()
    for gate in model.gates:
        gate.bias[:] = torch.tensor([1.0, 0, 0, 0, 0])  # expert 0 is in everybody's choice
    found = [record.max_violation for record in train(model, batches_of(config), config)]
    assert found[0] == 1.5 and np.mean(found[-10:]) < 0.7  # 1.5: all tokens of a layer choose expert 0, and 2 of 5 is even


@pytest.mark.parametrize("balance", ["bias", "bias+sequence", "sequence", "batch", "none"])
def test_each_balance_moves_what_it_says(balance):
    def after_a_step(kind, weight):
        config, model = config_of(balance=kind, balance_weight=weight, clip=1e9), model_of()
        next(train(model, batches_of(config), config))
        return gradients(model)["layers.1.ffn.gate.weight"], torch.stack([gate.bias for gate in model.gates])
    without, _ = after_a_step("none", 0.1)
    (one, bias), (two, _) = after_a_step(balance, 0.1), after_a_step(balance, 0.2)
    assert bool(bias.any()) == balance.startswith("bias")
    assert bool((one - without).norm() > 1e-5) == (balance not in ("bias", "none"))
    assert_close(two - without, 2 * (one - without), atol=1e-5, rtol=1e-2)  # the loss term is linear in its weight


@pytest.mark.parametrize("balance", ["sequence", "batch"])
def test_a_loss_term_evens_out_the_load(balance):
    def last_violation(kind):
        config, model = config_of(steps=40, balance=kind, balance_weight=1.0), model_of()
        model.gates[0].weight.data[0] += 3 * model.gates[0].weight.data[1]
        return np.mean([r.max_violation for r in train(model, batches_of(config), config)][-10:])
    assert last_violation(balance) < 0.8 * last_violation("none")


# ---- number formats

@pytest.mark.parametrize("dtype, tolerance", [("bf16", 0.02), ("fp16", 0.01)])
def test_a_half_format_trains_like_float32_and_keeps_its_weights_there(dtype, tolerance):
    model = model_of()
    half = [r.loss for r in train(model, batches_of(config_of()), config_of(dtype=dtype))]
    full = [r.loss for r in train(model_of(), batches_of(config_of()), config_of(dtype="fp32"))]
    assert half != full and np.allclose(half, full, rtol=tolerance)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_fp8_trains():
    config, model = config_of(steps=25, fp8=True, warmup=0.0, decay=0.0), model_of()
    batches = SimpleNamespace(at=lambda step: batches_of(config).at(0))
    losses = [record.loss for record in train(model, batches, config)]
    assert losses[-1] < 0.6 * losses[0] and len(converted(model)) > 5
    exact = next(train(model_of(), batches_of(config), config_of())).loss
    assert losses[0] != exact and math.isclose(losses[0], exact, rel_tol=0.02)


# ---- stopping and going on

@pytest.mark.parametrize("changes", [
    dict(), dict(optimizer="adamw"), dict(micro_batch=1), dict(micro_batch=3, balance="bias+sequence"), dict(dtype="bf16"),
    dict(dtype="fp16"), dict(fp8=True), dict(balance="none", mtp_weight=0.0),
], ids=str)
@pytest.mark.parametrize("k", [1, 4, 6])
def test_a_run_that_was_closed_after_k_steps_goes_on_in_every_bit(tmp_path, changes, k):
    config = config_of(**changes)
    straight = trained(model_of(), config)
    with run_of(tmp_path, model_of(), config) as run:
        records = train(model_of(), batches_of(config), config, run=run)
        first = [facts(next(records)) for _ in range(k)]
        records.close()
    with Run.open(tmp_path) as run:
        rest = trained(model_of(seed=5), config, run=run, resume=True)  # another start, which the checkpoint replaces
        logged = run.records()
    assert first + rest == straight
    assert [(r["step"], r["loss"]) for r in logged] == [f[:2] for f in straight]


def test_a_run_that_is_done_has_nothing_to_resume(tmp_path):
    config = config_of(steps=3)
    run = run_of(tmp_path, model_of(), config)
    assert len(trained(model_of(), config, run=run)) == 3 and trained(model_of(), config, run=run, resume=True) == []


def test_a_run_without_a_checkpoint_resumes_from_its_beginning(tmp_path):
    config = config_of(steps=3)
    run = run_of(tmp_path, model_of(), config)
    run.append({"step": 1, "loss": 9.0})
    assert trained(model_of(), config, run=run, resume=True) == trained(model_of(), config)
    assert [r["step"] for r in run.records()] == [1, 2, 3]


def test_what_the_log_has_beyond_the_checkpoint_is_written_anew(tmp_path):
    config = config_of()
    run = run_of(tmp_path, model_of(), config)
    records = train(model_of(), batches_of(config), config, run=run)
    for _ in range(6):
        next(records)
    records.close()
    (tmp_path / "checkpoints" / "step_000006.safetensors").unlink()  # as if it had been killed after step 6
    assert trained(model_of(), config, run=run, resume=True) == trained(model_of(), config)[4:]
    assert [r["step"] for r in run.records()] == list(range(1, 10))


def test_resuming_no_run_is_refused():
    with pytest.raises(ValueError, match="run must be given"):
        next(train(model_of(), batches_of(config_of()), config_of(), resume=True))


def test_every_line_of_the_log_has_step_loss_and_tokens(tmp_path):
    config = config_of()
    with run_of(tmp_path, model_of(), config) as run:
        records = list(train(model_of(), batches_of(config), config, run=run))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(n["step"], n["loss"], n["tokens"]) for n in lines] == [(r.step, r.loss, r.tokens) for r in records]


def test_a_checkpoint_is_written_every_so_often_and_at_the_end(tmp_path):
    config, saved = config_of(steps=10, checkpoint_every=4), []
    with run_of(tmp_path, model_of(), config) as run, patch.object(run, "save", side_effect=lambda step, *a: saved.append(step)):
        trained(model_of(), config, run=run)
    assert saved == [4, 8, 10]


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_half_a_step_is_never_saved(tmp_path, optimizer):
    config, model = config_of(optimizer=optimizer), model_of()
    with run_of(tmp_path, model, config) as run:
        records = train(model, batches_of(config), config, run=run)
        for _ in range(2):
            next(records)
        # the second Ctrl-C does not wait: here it comes when AdamW, the last optimizer, has done its part
        with patch("minimodels.train.update_bias", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            next(records)
        assert run.latest() is None
        assert trained(model_of(), config, run=run, resume=True) == trained(model_of(), config)


# ---- what goes wrong

def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    config, model = config_of(), model_of()
    with run_of(tmp_path, model, config) as run:
        records = train(model, batches_of(config), config, run=run)
        for _ in range(5):
            next(records)
        model.final_norm.weight.data[3] = math.nan
        before = {name: t.clone() for name, t in model.state_dict().items()}
        with pytest.raises(FloatingPointError, match=r"must stay finite, got nan at step 6; .*lr \(now 0.01\) or muon_lr \(now 0.02\)"):
            next(records)
        assert all(torch.equal(t, before[name]) or name == "final_norm.weight" for name, t in model.state_dict().items())
        good = run.latest()
        assert good.step == 4 and all(t.isfinite().all() for t in good.tensors.values())
        assert [r["step"] for r in run.records()] == [1, 2, 3, 4, 5]
        assert trained(model_of(seed=3), config, run=run, resume=True) == trained(model_of(), config)[4:]


def test_a_gradient_that_is_not_finite_stops_the_run_too():
    config, model = config_of(), model_of()
    model.layers[0].attention.w_o.weight.register_hook(lambda g: g * math.inf)
    before = model.embed.weight.clone()
    with pytest.raises(FloatingPointError, match="the gradient's norm must stay finite, got (inf|nan) at step 1; "):
        next(train(model, batches_of(config), config))
    assert torch.equal(model.embed.weight, before)


def small_memory(n_sequences):
    """A model's forward pass that fits n_sequences sequences at most."""
    forward = Transformer.forward

    def limited(self, tokens, cache=None):
        if len(tokens) > n_sequences:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, tokens, cache)
    return patch.object(Transformer, "forward", limited)


def test_out_of_memory_halves_the_micro_batch_and_the_losses_stay():
    config = config_of(batch_size=8)
    with small_memory(2), pytest.warns(UserWarning, match="out of memory at step 1: micro_batch is now") as told:
        records = list(train(model_of(), batches_of(config), config))
    assert ["now 4" in str(told[0].message), "now 2" in str(told[1].message), len(told)] == [True, True, 2]
    assert {r.micro_batch for r in records} == {2}
    assert np.allclose([r.loss for r in records], [f[1] for f in trained(model_of(), config)], rtol=1e-4)


def test_a_halved_micro_batch_survives_a_stop(tmp_path):
    config = config_of(checkpoint_every=1, steps=2)
    with run_of(tmp_path, model_of(), config) as run, small_memory(1), warnings.catch_warnings(action="ignore"):
        records = train(model_of(), batches_of(config), config, run=run)
        next(records)
        records.close()
        assert [r.micro_batch for r in train(model_of(), batches_of(config), config, run=run, resume=True)] == [1]


def test_one_sequence_that_does_not_fit_is_told():
    config = config_of()
    with small_memory(0), warnings.catch_warnings(action="ignore"):
        with pytest.raises(MemoryError, match="hold one sequence, but seq_len=13 does not fit at step 1: lower seq_len or d_model"):
            next(train(model_of(), batches_of(config), config))


def test_an_error_of_another_kind_is_not_taken_for_memory():
    with patch.object(Transformer, "forward", side_effect=RuntimeError("shapes do not match")):
        with pytest.raises(RuntimeError, match="shapes do not match"):
            next(train(model_of(), batches_of(config_of()), config_of()))


def test_a_batch_that_cannot_be_shared_is_refused():
    with patch("minimodels.train.world_size", return_value=3):
        with pytest.raises(ValueError, match="batch_size must be a multiple of the 3 processes, got 4"):
            next(train(model_of(), batches_of(config_of()), config_of()))


# ---- whole processes

@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a small text, whose tokens are cached there."""
    (tmp_path / "text.txt").write_text(TEXT)
    monkeypatch.setenv("MINIMODELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def command(place, out, *more):
    return ["train", "--data", str(place / "text.txt"), "--out", str(place / out), *TINY, *more]


def logged(place, out):
    """The log's lines without their times."""
    lines = [json.loads(line) for line in (place / out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "tokens_per_s"} for line in lines]


# forks a process for each attempt, after one whole run, so that a kill lands in the work and not in the start-up
NURSERY = """
import json, os, random, signal, sys, threading, time
import torch
from tqdm import tqdm
from minimodels.cli import main
torch.set_num_threads(1)
place, command, n_kills = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
main([*command, "--out", place + "/warm"])
began = time.perf_counter()
main([*command, "--out", place + "/straight"])
longest = time.perf_counter() - began
sys.stdout.flush()  # or every child would print it again
rng, killed, finished, begun = random.Random(1), 0, 0, []
while killed < n_kills or finished < len(begun):
    if finished == len(begun):
        begun.append(f"{place}/killed{finished}")
    resume = ["--resume"] if os.path.exists(begun[-1] + "/config.json") else []
    child = os.fork()
    if child == 0:
        out = os.open(place + "/said", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.dup2(out, 1), os.dup2(out, 2)
        tqdm.set_lock(threading.RLock())  # its own lock is shared by forked processes: one killed holding it would stop all others
        os._exit(main([*command, "--out", begun[-1], *resume]))
    if killed < n_kills:
        time.sleep(rng.uniform(0, 0.7 * longest))
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        killed += 1
    else:
        assert os.waitstatus_to_exitcode(status) == 0, open(place + "/said").read()[-2000:]
        finished += 1
print(json.dumps([killed, begun]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_twenty_kills_at_random_moments_change_no_loss(place):
    run = subprocess.run([sys.executable, "-c", NURSERY, str(place), json.dumps(command(place, "unused")), "20"],
                         capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    n_kills, folders = json.loads(run.stdout.splitlines()[-1])
    assert n_kills == 20 and len(folders) >= 1
    for folder in folders:
        assert logged(place, Path(folder).name) == logged(place, "straight")  # no step is missing or double, and no bit differs
        assert not list(Path(folder).rglob("*.tmp"))


@pytest.mark.slow
def test_ctrl_c_saves_and_the_run_goes_on(place):
    argv = command(place, "stopped", "--checkpoint-every", "1000", "--steps", "120")
    child = subprocess.Popen([sys.executable, "-m", "minimodels", *argv],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = place / "stopped" / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") >= 3) and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, told = child.communicate(timeout=60)
    assert child.returncode == 130, told
    n_done = len(logged(place, "stopped"))
    assert Run.open(place / "stopped").latest().step == n_done < 120 and "--resume" in told and "Traceback" not in told
    assert main(["train", "--out", str(place / "stopped"), "--resume"]) == 0
    assert main(command(place, "straight", "--checkpoint-every", "1000", "--steps", "120")) == 0
    assert logged(place, "stopped") == logged(place, "straight")


def torchrun(*arguments):
    return subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
                           "--rdzv-endpoint", "localhost:0", "-m", "minimodels", *arguments], capture_output=True, text=True, timeout=200)


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one_and_one_log(place):
    assert main(command(place, "one", "--steps", "20")) == 0
    run = torchrun(*command(place, "two", "--steps", "20"))
    assert run.returncode == 0, run.stderr
    one, two = logged(place, "one"), logged(place, "two")
    assert [line["step"] for line in two] == list(range(1, 21)) and run.stdout.count("bits per byte") == 1
    assert np.allclose([line["loss"] for line in two], [line["loss"] for line in one], atol=1e-4, rtol=0)
    assert np.allclose([line["grad_norm"] for line in two], [line["grad_norm"] for line in one], atol=1e-3, rtol=0)

    # as if the machine had gone down after step 18: one process goes on from what two have written, and two from that of one
    for out in ("one", "two"):
        (place / out / "checkpoints" / "step_000020.safetensors").unlink()
    assert main(["train", "--out", str(place / "two"), "--resume"]) == 0
    run = torchrun("train", "--out", str(place / "one"), "--resume")
    assert run.returncode == 0, run.stderr
    for out in ("one", "two"):
        again = logged(place, out)
        assert [line["step"] for line in again] == list(range(1, 21)) and again[:18] == (one if out == "one" else two)[:18]
        assert np.allclose([line["loss"] for line in again], [line["loss"] for line in one], atol=1e-4, rtol=0)


def test_a_loss_that_is_not_finite_is_one_line_and_status_2(place, capsys):
    assert main(command(place, "hot", "--lr", "1e30", "--muon-lr", "1e30", "--warmup", "0")) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("minimodels: error:")]
    assert len(told) == 1 and "must stay finite" in told[0] and "at step 2" in told[0]


def test_a_config_of_another_kind_is_trained_too():
    # every sort of model takes a step: no optimizer, gradient or record assumes one of them
    for changes in (dict(attention="mha"), dict(attention="gqa"), dict(attention="mqa"), dict(gate="softmax"), dict(n_shared=0),
                    dict(n_dense_layers=0), dict(n_experts=6, n_groups=3, top_groups=2), dict(tie_embeddings=False), dict(mtp_depth=2)):
        assert math.isfinite(next(train(model_of(**changes), batches_of(config_of()), config_of())).loss)
