"""The training loop: it shows its verbs, yields a record a step, and continues exactly where it was stopped."""

import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from minimodels.balance import batch_loss, max_violation, sequence_loss, update_bias
from minimodels.checkpoint import Run, load_model_tensors, model_tensors
from minimodels.config import TrainConfig
from minimodels.data import Batches
from minimodels.devices import all_reduce, average_gradients, choose_dtype, delayed_interrupt, is_out_of_memory, rank, world_size
from minimodels.evaluate import evaluate
from minimodels.fp8 import convert
from minimodels.model import Output, Transformer
from minimodels.mtp import losses
from minimodels.optim import make_optimizers, schedule


@dataclass
class Record:
    """What one step did.

    step: counted from 1. loss: mean cross-entropy of the next token, nats. mtp_loss: the same for each MTP depth. tokens: seen
    since the run began. tokens_per_s: of this step. lr: that of config.lr. grad_norm: before clipping; None if it overflowed in
    fp16, and the step was left out. load: for each layer with
    experts, the tokens that each expert got. max_violation: the largest MaxVio of these, None without experts.
    valid_bits_per_byte: None except after an evaluation. micro_batch: sequences of one forward pass.
    """

    step: int
    loss: float
    mtp_loss: list[float]
    tokens: int
    tokens_per_s: float
    lr: float
    grad_norm: float | None
    load: list[list[int]]
    max_violation: float | None
    micro_batch: int
    valid_bits_per_byte: float | None = None


def train(model: Transformer, batches: Batches, config: TrainConfig, *, run: Run | None = None, resume: bool = False,
          valid=None) -> Iterator[Record]:
    """Train model in place and yield a Record after each step; the caller logs and plots.

    batches: `batches.at(step)` gives (batch_size, seq_len) tokens, so that a step's data depends on nothing but its number.
    run: where checkpoints and the log go; None keeps nothing. resume: start from the run's latest good checkpoint; the losses
    are those of a run that was never stopped. valid: a Dataset to evaluate on every eval_every steps.
    Under torchrun each process takes its share of every batch and gradients are averaged.
    Stopping it early (Ctrl-C, or closing the iterator) saves first. Out of memory halves the micro-batch and warns. A loss that
    is not finite raises FloatingPointError with the step, before the weights change; earlier checkpoints stay. Out of memory with
    a micro-batch of 1 raises MemoryError.
    """
    if resume and run is None:
        raise ValueError("run must be given to resume it, got None")
    trainer = Trainer(model, batches, config)
    start = saved = logged = trainer.load(run) if resume else 0
    try:
        for step in range(start + 1, config.steps + 1):
            with delayed_interrupt():
                record = trainer.step(step)
                if valid is not None and config.eval_every and step % config.eval_every == 0:
                    score = evaluate(model, valid.valid, n_bytes=valid.valid_bytes, seq_len=config.seq_len)
                    record.valid_bits_per_byte = score.bits_per_byte
                if run is not None and rank() == 0:
                    run.append({k: v for k, v in asdict(record).items() if k != "load"})
                logged = step
                if run is not None and (step % config.checkpoint_every == 0 or step == config.steps):
                    trainer.save(run)
                    saved = step
            yield record
    except (KeyboardInterrupt, GeneratorExit):
        # a second Ctrl-C may have come in the middle of a step, and half a step is never saved
        if run is not None and trainer.steps_done == logged > saved:
            trainer.save(run)
        raise


def check_share(config: TrainConfig):
    """Raise ValueError unless every process gets as many sequences as the others."""
    if config.batch_size % world_size():
        raise ValueError(f"batch_size must be a multiple of the {world_size()} processes, got {config.batch_size}")


class Trainer:
    """Model, optimizers and loss scale of one run: `step` moves them, `save` and `load` keep them."""

    def __init__(self, model: Transformer, batches: Batches, config: TrainConfig):
        self.model, self.batches, self.config = convert(model) if config.fp8 else model, batches, config
        self.device = model.embed.weight.device
        check_share(config)
        self.dtype = choose_dtype(config.dtype, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.optimizers = make_optimizers(model, config)
        self.peaks = [[g["lr"] for g in o.param_groups] for o in self.optimizers]
        self.micro_batch = min(config.micro_batch or config.batch_size, config.batch_size // world_size())
        self.steps_done = 0

    def step(self, step: int) -> Record:
        """One optimizer step; step counts from 1."""
        began = time.perf_counter()
        self.model.train()
        loss, load = self._accumulate(self._share(self.batches.at(step - 1)), step)
        grad_norm = self._update(step)
        if self.config.balance.startswith("bias"):
            for gate, n in zip(self.model.gates, load):
                update_bias(gate, n, self.config.balance_rate)
        self.steps_done = step
        seconds, per_step = time.perf_counter() - began, self.config.batch_size * self.config.seq_len
        return Record(step=step, loss=loss[0], mtp_loss=loss[1:], tokens=step * per_step, tokens_per_s=per_step / seconds,
                      lr=self.config.lr * schedule(step, self.config), grad_norm=grad_norm, load=[n.tolist() for n in load],
                      max_violation=max(map(max_violation, load), default=None), micro_batch=self.micro_batch)

    def _share(self, tokens: Tensor) -> Tensor:
        mine = len(tokens) // world_size()
        return tokens[rank() * mine:(rank() + 1) * mine].to(self.device)

    def _accumulate(self, tokens: Tensor, step: int) -> tuple[list[float], list[Tensor]]:
        """Gradients of the whole batch, a micro-batch at a time. Returns each depth's loss and each layer's load."""
        while True:
            try:
                self.model.zero_grad(set_to_none=True)
                parts = [self._forward_backward(part, len(part) / len(tokens)) for part in tokens.split(self.micro_batch)]
                break
            except RuntimeError as error:
                self._halve_micro_batch(error, step)
        loss = all_reduce(sum(loss for loss, _ in parts)) / world_size()
        load = [all_reduce(sum(layer)) for layer in zip(*(load for _, load in parts))]
        if not loss.isfinite().all():
            raise FloatingPointError(f"loss must stay finite, got {loss[0].item()} at step {step}; the weights were not changed. "
                                     f"Start another run with {self._lower_rates()}; this run's checkpoints are kept")
        return loss.tolist(), load

    def _lower_rates(self) -> str:
        muon = f" or muon_lr (now {self.config.muon_lr:g}) or embed_lr (now {self.config.embed_lr:g})" if self.config.optimizer == "muon" else ""
        return f"a lower lr (now {self.config.lr:g}){muon}"

    def _forward_backward(self, tokens: Tensor, share: float) -> tuple[Tensor, list[Tensor]]:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            out = self.model(tokens)
            each = losses(out, tokens)
            total = each[0] + self._balance_loss(out, len(tokens))
            if each[1:]:
                total = total + self.config.mtp_weight * sum(each[1:]) / len(each[1:])  # V3 eq. 25
        self.scaler.scale(total * share).backward()
        return torch.stack(each).detach() * share, out.load

    def _balance_loss(self, out: Output, n_sequences: int) -> Tensor | float:
        routings = [r for r in out.routing if r is not None]
        if self.config.balance.endswith("sequence"):
            # a routing of an MTP module holds shorter sequences, but as many
            return self.config.balance_weight * sum(sequence_loss(r, n_sequences) for r in routings)
        if self.config.balance == "batch":
            return self.config.balance_weight * sum(batch_loss(r) for r in routings)
        return 0.0

    def _halve_micro_batch(self, error: RuntimeError, step: int):
        if not is_out_of_memory(error):
            raise error
        if self.micro_batch == 1:
            raise MemoryError(f"memory must hold one sequence, but seq_len={self.config.seq_len} does not fit at step {step}: "
                              "lower seq_len or d_model") from error
        self.micro_batch = (self.micro_batch + 1) // 2
        self.model.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        same = "" if self.config.balance == "batch" else "; the losses stay the same"
        warnings.warn(f"out of memory at step {step}: micro_batch is now {self.micro_batch}{same}", stacklevel=2)

    def _update(self, step: int) -> float | None:
        """Average gradients over processes, clip, and let every optimizer take its step. Returns the gradient's norm, None if the
        gradient overflowed in fp16."""
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        average_gradients(parameters)  # before unscaling, so that every process sees the same overflow
        for optimizer, peaks in zip(self.optimizers, self.peaks):
            for group, peak in zip(optimizer.param_groups, peaks):
                group["lr"] = peak * schedule(step, self.config)
            self.scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.clip)
        if not norm.isfinite() and not self.scaler.is_enabled():
            raise FloatingPointError(f"the gradient's norm must stay finite, got {norm.item()} at step {step}; the weights were not "
                                     f"changed. Start another run with {self._lower_rates()}; this run's checkpoints are kept")
        self.steps_done = None  # until the step is whole
        if norm.isfinite():  # in fp16 a gradient may overflow: then no optimizer steps, and the scale is halved
            for optimizer in self.optimizers:
                self.scaler.step(optimizer)
        self.scaler.update()
        return norm.item() if norm.isfinite() else None

    def save(self, run: Run):
        """Write everything that the next step depends on. Only the first process writes."""
        if rank() != 0:
            return
        tensors = model_tensors(self.model)
        for i, optimizer in enumerate(self.optimizers):
            for j, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{i}.{j}.{name}": value for name, value in state.items()}
        run.save(self.steps_done, tensors, {"scaler": self.scaler.state_dict(), "micro_batch": self.micro_batch})

    def load(self, run: Run) -> int:
        """Put everything back as the run's latest good checkpoint has it. Returns its step, 0 if there is none."""
        checkpoint = run.latest()
        if checkpoint is None:
            if rank() == 0:
                run.truncate_log(0)
            return 0
        load_model_tensors(self.model, checkpoint.tensors)
        for i, optimizer in enumerate(self.optimizers):
            state = optimizer.state_dict()
            for key, value in checkpoint.tensors.items():
                kind, *rest = key.split(".")
                if kind == "optimizer" and rest[0] == str(i):
                    state["state"].setdefault(int(rest[1]), {})[rest[2]] = value
            optimizer.load_state_dict(state)
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(checkpoint.meta["scaler"])
        self.micro_batch, self.steps_done = min(self.micro_batch, checkpoint.meta["micro_batch"]), checkpoint.step
        if rank() == 0:
            run.truncate_log(checkpoint.step)
        return checkpoint.step
