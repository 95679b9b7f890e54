"""Every shape comment in the package runs, and is true."""

import importlib
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

import minimodels
from configs import odd_config
from shapes import ExecutedShapes, ShapeError, shape_comments
from minimodels.attention import Cache
from minimodels.balance import batch_loss, sequence_loss
from minimodels.config import TrainConfig
from minimodels.data import Batches
from minimodels.evaluate import acceptance
from minimodels.generate import window
from minimodels.grpo import GRPOConfig, Learner
from minimodels.model import Transformer
from minimodels.layers import Rope
from minimodels.mtp import losses
from minimodels.optim import make_optimizers
from minimodels.patterns import jobs, patterns, targets
from minimodels.sampling import Sampling
from minimodels.solve import Episodes
from minimodels.timing import a_pass

B, T, S = 2, 7, 9  # texts, tokens in a text, and with the two that a cache holds before them
SIZES = dict(B=B, D=23, H=3, Dn=5, Dr=6, Dv=11, C=17, E=13, K=4, G=1, V=53)
CLASSICAL = dict(B=B, D=23, H=6, Dh=10)


def read(config, held=None):
    """A forward pass over T tokens and the gradient of its losses; or T more tokens behind a cache whose rows hold so many."""
    model, tokens = Transformer(config), torch.randint(53, (B, T))
    if held is None:
        return lambda: sum(losses(model(tokens), tokens)).backward()
    cache = Cache(config, B, S)
    cache.lengths = held
    return torch.no_grad()(lambda: model(tokens, cache))


def read_in_bf16(config):
    model, tokens = Transformer(config).bfloat16(), torch.randint(53, (B, T))
    return lambda: model(tokens)


def route(**changes):
    """One layer's experts on the tokens of the whole batch."""
    layer, h = Transformer(odd_config(**changes)).layers[1].ffn, torch.randn(B, T, 23)
    return lambda: layer(h)[0].sum().backward()


def balance():
    routing = Transformer(odd_config())(torch.randint(53, (B, T))).routing[1]
    return lambda: (sequence_loss(routing, B), batch_loss(routing))


def one_step_of_muon():
    model = Transformer(odd_config())
    sum(p.square().sum() for p in model.parameters()).backward()
    optimizers = make_optimizers(model, TrainConfig())
    return lambda: [optimizer.step() for optimizer in optimizers]


def one_batch():
    batches = Batches(np.arange(101, dtype=np.uint16), batch_size=B, seq_len=T, seed=0)
    return lambda: batches.at(0)


def verify(temperature):
    logits, draft, q = torch.randn(B, 4, 53), torch.randint(53, (B, 3)), [torch.full((B, 53), 1 / 53)] * 3
    return lambda: Sampling(temperature=temperature).verify(logits, draft, q)


def foresee(config):
    model, tokens = Transformer(config), torch.randint(53, (B, T))
    return lambda: acceptance(model, tokens)


def look(config):
    model, tokens = Transformer(config), torch.randint(53, (B, T))
    found = [targets(row, ["x"] * T) for row in tokens.tolist()]
    return lambda: jobs(patterns(model, tokens), found)


def time_a_pass():
    model = Transformer(odd_config(mtp_depth=0))
    return lambda: a_pass(model, T, B, 2)


def improve():
    """One update from a group of 7 answers to each of 3 questions."""
    learner = Learner(Transformer(odd_config(n_experts=0)), GRPOConfig(n_prompts=3, group_size=7, minibatches=1))
    episodes = Episodes.of([[1, 2]] * 21, [[3, 4, 5]] * 21)
    return lambda: learner.improve(episodes, torch.randn(3, 7))


# module -> what runs it, each with the sizes that its comments then have
SCENARIOS = {
    "attention": [
        (lambda: read(odd_config(attention="gqa", mtp_depth=0)), CLASSICAL | dict(T=T, S=T, kv=2)),
        (lambda: read(odd_config(attention="gqa"), held=[2, 2]), CLASSICAL | dict(T=T, S=S, kv=2)),
        (lambda: read(odd_config(attention="mqa"), held=[0, 2]), CLASSICAL | dict(T=T, S=S, kv=1)),
        (lambda: read_in_bf16(odd_config(attention="mha", mtp_depth=0)), CLASSICAL | dict(T=T, S=T, kv=6)),
    ],
    "layers": [(lambda: lambda: Rope(torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64), 11), dict(max_len=11, d_rope=6))],
    "mla": [
        (lambda: read(odd_config(mtp_depth=0)), SIZES | dict(T=T, S=T)),
        (lambda: read(odd_config(), held=[2, 2]), SIZES | dict(T=T, S=S)),
        (lambda: read(odd_config(mtp_depth=0, d_latent=1)), SIZES | dict(T=T, S=T, C=1)),  # so narrow that absorbing always pays
    ],
    "moe": [
        (lambda: route(), SIZES | dict(T=B * T)),
        (lambda: route(n_experts=12, n_groups=3, top_groups=2), SIZES | dict(T=B * T, E=12, G=3)),
    ],
    "balance": [(balance, SIZES | dict(T=T))],
    "loss": [(lambda: read(odd_config()), SIZES)],
    "mtp": [(lambda: read(odd_config()), SIZES | dict(T=T))],
    "model": [(lambda: read(odd_config()), SIZES | dict(T=T))],
    "patterns": [(lambda: look(odd_config(attention="gqa", mtp_depth=0)), CLASSICAL | dict(T=T, n_layers=3))],
    "timing": [(time_a_pass, dict(B=B, T=T))],
    "data": [(one_batch, dict(B=B, T=T))],
    "optim": [(one_step_of_muon, {})],
    "generate": [(lambda: lambda: window(torch.zeros(B, S), [0, 2], T), dict(B=B, T=T))],
    "evaluate": [(lambda: foresee(odd_config()), SIZES | dict(T=T))],
    "solve": [(lambda: lambda: Episodes.of([[1] * 2, [1] * 5, [1] * 3], [[2] * 7, [2] * 2, [2] * 5]), dict(N=3, L=9))],
    "grpo": [(improve, dict(N=21))],
    "sampling": [(lambda: verify(0.0), SIZES | dict(n=3)), (lambda: verify(1.0), SIZES | dict(n=3))],
}

MODULES = sorted(path.stem for path in Path(minimodels.__file__).parent.glob("*.py") if shape_comments(path.read_text()))


@pytest.mark.parametrize("name", MODULES)
def test_every_shape_comment_runs_and_is_true(name):
    assert name in SCENARIOS, f"{name}.py has shape comments: give it an entry in SCENARIOS that runs them"
    module, missing = importlib.import_module(f"minimodels.{name}"), None
    for prepare, sizes in SCENARIOS[name]:
        run = prepare()
        with ExecutedShapes(module, **sizes) as shapes:
            run()
        missing = set(shapes.missing) if missing is None else missing & set(shapes.missing)
    assert not missing, f"shape comments that nothing has run: {sorted(missing)}"


# --- the checker itself ---

SOURCE = '''
    import functools
    import torch

    def assigned(x):
        """Two names at once, a local size, and words behind the shape."""
        y, z = x @ x.T, x.sum(0)  # (B, B), (d) summed over the batch
        return y.flatten()  # (B*B)

    def with_variable(x, k):
        y = x[k:]  # (B-k, D)
        for n in (2, 3):
            z = x[:n - 1]  # (part, D)
        return y

    class Holder:
        @property
        def size(self):
            def inner(x):
                y = x.mT  # (D, B)
                return y
            return inner

        @classmethod
        def scalar(cls, x):
            total: torch.Tensor = x.sum()  # ()
            return total

        @functools.lru_cache
        def wrapped(self):
            x = torch.zeros(7,
                            3)  # (7, n)
            return x
    '''


def module_of(tmp_path, monkeypatch, source):
    (tmp_path / "sample.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "sample", raising=False)
    importlib.invalidate_caches()
    return importlib.import_module("sample")


def run_all(sample):
    x = torch.zeros(5, 3)
    sample.assigned(x), sample.with_variable(x, 2), sample.Holder().size(x), sample.Holder.scalar(x), sample.Holder().wrapped()


def test_true_comments_pass_wherever_they_stand(tmp_path, monkeypatch):
    sample = module_of(tmp_path, monkeypatch, SOURCE)
    with ExecutedShapes(sample, B=5, D=3) as shapes:
        assert len(shapes.missing) == 7
        run_all(sample)
    assert shapes.missing == []


def test_afterwards_the_module_is_as_it_was(tmp_path, monkeypatch):
    sample = module_of(tmp_path, monkeypatch, SOURCE)
    before = sample.assigned.__code__
    with pytest.raises(KeyError), ExecutedShapes(sample, B=5, D=3):
        raise KeyError
    assert sample.assigned.__code__ is before and not hasattr(sample, "__check_shapes__")


@pytest.mark.parametrize("old, new, line, message", [
    ("(B, B), (d)", "(B, D), (d)", 7, r"the comment says that y is \(B, D\) = \(5, 3\), but it is \(5, 5\)"),
    ("(B, B), (d)", "(B, B), (d, d)", 7, r"that z is \(d, d\) = \(3, 3\), but it is \(3,\)"),
    ("(B, B), (d)", "(d, d), (d)", 7, r"that z is \(d\) = \(5,\), but it is \(3,\)"),  # d was bound by y
    ("(B, B), (d)", "(B, B)", 7, "2 names are assigned, but the comment has 1 shapes"),
    ("(B*B)", "(2*B)", 8, r"that __result__ is \(2\*B\) = \(10,\), but it is \(25,\)"),
    ("(B-k, D)", "(B, D)", 11, r"= \(5, 3\), but it is \(3, 3\)"),
    ("(part, D)", "(2, D)", 13, r"= \(2, 3\), but it is \(1, 3\)"),
    ("(D, B)", "(B, D)", 20, r"= \(5, 3\), but it is \(3, 5\)"),
    ("# ()", "# (D)", 26, r"= \(3,\), but it is \(\)"),
    ("(7, n)", "(Q, n)", 32, r"the test gives no size for Q in \(Q, n\)"),
])
def test_a_false_comment_is_found_with_file_line_name_and_both_shapes(tmp_path, monkeypatch, old, new, line, message):
    sample = module_of(tmp_path, monkeypatch, SOURCE.replace(old, new))
    with ExecutedShapes(sample, B=5, D=3), pytest.raises(ShapeError, match=rf"^sample.py:{line}: .*{message}"):
        run_all(sample)


def test_a_shape_comment_that_nothing_can_check_is_refused(tmp_path, monkeypatch):
    sample = module_of(tmp_path, monkeypatch, "def f(x):\n    x.zero_()  # (B, T)\n    return x\n")
    with pytest.raises(ShapeError, match="sample.py:2: a shape comment must end a statement that assigns plain names, or a return"):
        ExecutedShapes(sample)


@pytest.mark.parametrize("line", [
    "x = 1  # why", "x = (8, 9)  # (8, 9) is written sm89", "# (B, T)", "x = 1  # (see above, or below)", "x = 1  # M_k (B, T)"])
def test_a_comment_that_is_no_shape_is_left_alone(line):
    assert shape_comments(line + "\n") == {}
