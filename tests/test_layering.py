"""Imports point one way: a file of the package imports only files that come before it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "minimodels"
ORDER = ("config devices linear layers attention mla moe balance loss mtp model patterns kinds timing fp8 kernels download disk corpus data bpe ngram checkpoint optim sampling "
         "evaluate train generate convert tasks solve grpo distill sparse parallel cost ladder palette figure lab ledger studies commands cli").split()
NOTEBOOKS_ONLY = {"show"}    # it may import any, and none imports it
FILES = sorted(path for path in PACKAGE.glob("*.py") if not path.stem.startswith("_"))


def imported(path):
    """The modules of the package that the file at path imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf8"))):
        if isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")
            if parts[0] == "minimodels":
                yield from parts[1:2] or [alias.name for alias in node.names]
            elif node.level:
                yield from (node.module.split(".")[:1] if node.module else [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("minimodels."))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_file_has_its_place(path):
    assert path.stem in {*ORDER, *NOTEBOOKS_ONLY}, f"write {path.stem} into ORDER, where its imports allow it"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_imports_point_one_way(path):
    allowed = set(ORDER[: ORDER.index(path.stem)]) if path.stem in ORDER else set(ORDER)
    wrong = set(imported(path)) - allowed
    assert not wrong, f"{path.name} imports {', '.join(sorted(wrong))}"


def test_no_file_imports_the_tests_or_transformers_at_its_top():
    for path in FILES:
        for node in ast.parse(path.read_text("utf8")).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not {name.split(".")[0] for name in names} & {"tests", "transformers", "pytest"}, f"{path.name} imports {names}"
