"""Make the models of chapters 15 and 16 again: the teacher that reinforcement made, and the best student.

    python book/_tools/solvers.py solver
    python book/_tools/solvers.py student

Each is written to data/checkpoints/NAME as a run of its own, its weights in bfloat16, and its score is that of the stored weights.
"""

import sys
from pathlib import Path

import torch

from minimodels.checkpoint import Run, model_tensors
from minimodels.grpo import GRPOConfig
from minimodels.solve import accuracy
from minimodels.studies import distill
from minimodels.studies import grpo as study
from minimodels.tasks import TOKENIZER

ROOT = Path(__file__).resolve().parents[2]
# name: the trial that makes it, and in a few words what it was made from
MADE = {
    "solver": (study.Rewarded(arm="grpo", seed=1, config=GRPOConfig(rollouts=300)), "worked sums of three digits, then 300 rollouts of GRPO"),
    "student": (distill.Student(arm="", seed=1, start=distill.STARTS["other tasks"], way=distill.WAYS["its texts"]), "other tasks, then texts of solver"),
}


def main(names) -> int:
    if not names or not set(names) <= set(MADE):
        print(f"solvers: error: names must be of {', '.join(MADE)}, got {' '.join(names) or 'none'}", file=sys.stderr)
        return 2
    for name in names:
        trial, source = MADE[name]
        torch.set_num_threads(1)
        model, record = trial.learn()
        keep(model, ROOT / "data" / "checkpoints" / name, source, seed=trial.seed)
        stored = Run.open(ROOT / "data" / "checkpoints" / name).model().eval()
        print(f"{name}: {accuracy(stored, study.evaluation(study.N_EVAL)):.1%} of {study.N_EVAL} new sums right, greedy; {stored.config.n_params:,} parameters")
    return 0


def keep(model, directory: Path, source: str, *, seed: int):
    """Write the model with its configuration, tokenizer and rounded weights."""
    tensors = {name: t.bfloat16() if t.dtype == torch.float32 else t for name, t in model_tensors(model).items()}
    tensors["model.head.weight"] = tensors["model.embed.weight"]    # they are one
    config = study.TEACHING.from_dict(study.TEACHING.to_dict() | {"seed": seed})
    with Run.create(directory, model.config, config, TOKENIZER, data={"source": source}) as run:
        run.save(config.steps, tensors, {})
    (directory / "run.lock").unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
