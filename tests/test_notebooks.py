"""The notebooks: the text and its execution agree, and every address is the one in pyproject.toml."""

import ast
import re
import shutil
from pathlib import Path

import pytest

from book_files import load
from minimodels import lab

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("jupytext")

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "chapters").glob("*.py"))
ADDRESSED = re.compile(r"(?:colab\.research\.google\.com/github/|(?:git\+|git clone )https://github\.com/)([\w.-]+/[\w.-]*[\w-])")


execute, address = load("_tools/execute.py"), load("_tools/address.py")
ADDRESS = address.address()
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)


def code_cells(path):
    return [cell.source for cell in execute.read_source(path).cells if cell.cell_type == "code"]


def definitions(source):
    """{name: node} of the functions and classes that source defines, without docstrings, which may differ."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            for inner in ast.walk(node):
                if isinstance(inner, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(inner):
                    inner.body = inner.body[1:] or [ast.Expr(ast.Constant(...))]
            found[node.name] = node
    return found


def means_the_same(here, there):
    """Whether two definitions are one: the same code, or for a stub to fill in the same parameters."""
    is_stub = isinstance(here, ast.FunctionDef) and ast.unparse(here.body) in ("...", "return ...", "pass")
    if is_stub and isinstance(there, ast.FunctionDef):
        here, there = ([a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)] for node in (here, there))
        return here == there
    return ast.unparse(here) == ast.unparse(there)


PACKAGE = {}
for file in sorted((ROOT / "minimodels").glob("*.py")):
    for defined, node in definitions(file.read_text("utf8")).items():
        PACKAGE.setdefault(defined, []).append(node)


def test_there_are_chapters_and_every_notebook_has_its_source():
    assert CHAPTERS
    assert {path.stem for path in (ROOT / "chapters").glob("*.ipynb")} == {path.stem for path in CHAPTERS}


@each_chapter
def test_text_and_execution_agree(path):
    assert execute.check(path) == ""


@each_chapter
def test_the_line_under_the_title_opens_the_chapter_in_colab(path):
    first = execute.read_source(path).cells[0].source.split("\n")
    assert first[0].startswith("# ") and first[1] == ""
    assert first[2].startswith(lab.colab_link(ADDRESS, path.stem))


@each_chapter
def test_the_first_code_cell_is_the_install_cell(path):
    assert code_cells(path)[0] == lab.install_cell(ADDRESS)


@each_chapter
def test_a_name_means_in_the_notebook_what_it_means_in_the_package(path):
    for cell in code_cells(path):
        for name, node in definitions(cell).items():
            is_same = name not in PACKAGE or any(means_the_same(node, other) for other in PACKAGE[name])
            assert is_same, f"{path.name}: {name} is not what minimodels calls {name}"


@pytest.mark.parametrize("here, is_same", [
    ("def f(a, b):\n    return a + b", True),
    ("def f(a, b):\n    'Adds.'\n    return a + b", True),
    ("def f(a, b):\n    'Your turn.'\n    ...", True),
    ("def f(a, b):\n    'Your turn.'", True),
    ("def f(a):\n    ...", False),
    ("def f(a, b):\n    return b + a", False),
    ("class f:\n    pass", False),
])
def test_what_one_meaning_is(here, is_same):
    there = definitions("def f(a, b):\n    'The sum.'\n    return a + b")["f"]
    assert means_the_same(definitions(here)["f"], there) == is_same


@each_chapter
def test_a_cell_fits_on_a_page(path):
    for cell in code_cells(path):
        assert len(cell.splitlines()) <= 25, f"{path.name}: {len(cell.splitlines())} lines in the cell {cell[:60]!r}"


@each_chapter
def test_no_output_names_a_folder_of_the_machine_that_made_it(path):
    notebook = path.with_suffix(".ipynb").read_text("utf8")
    for folder in {str(ROOT), str(Path.home()), "site-packages", "/tmp/"}:
        assert folder not in notebook, f"{path.stem}.ipynb names {folder}"


@each_chapter
def test_a_cell_that_draws_live_is_not_compared(path):
    for cell in execute.read_source(path).cells:
        if cell.cell_type == "code" and "Live(" in cell.source:
            assert "nbval-ignore-output" in cell.metadata.get("tags", []), f"{path.name}: {cell.source[:60]!r}"


@each_chapter
def test_a_figure_was_stored_by_show(path):
    for cell in nbformat.read(path.with_suffix(".ipynb"), 4).cells:
        for output in cell.get("outputs", []):
            figure = output.get("data", {}).get("application/vnd.plotly.v1+json")
            assert figure is None or figure["layout"]["meta"]["alt"], f"{path.name}: a figure without an alternative text"


def test_every_file_names_the_address_of_pyproject():
    repository = ADDRESS.removeprefix("https://github.com/")
    texts = {str(path.relative_to(ROOT)): path.read_text("utf8") for path in address.files() if path.parent.name != "tests"}
    named = {(name, found) for name, text in texts.items() for found in ADDRESSED.findall(text)}
    assert {found for _, found in named} == {repository}, sorted(named)
    assert {"README.md"} <= {name for name, _ in named}
    assert address.configured() == ADDRESS
    assert f"repository-code: {ADDRESS}\n" in (ROOT / "CITATION.cff").read_text("utf8")


def test_a_fork_changes_the_address_in_one_place(tmp_path):
    for name in ("pyproject.toml", "_config.yml", "README.md", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "chapters", tmp_path / "chapters")
    old, new = ADDRESS.removeprefix("https://github.com/"), "some-one/a.fork"
    project = tmp_path / "pyproject.toml"
    project.write_text(project.read_text("utf8").replace(old, new), "utf8")

    changed = address.rewrite(tmp_path)
    assert {path.name for path in changed} >= {"_config.yml", "README.md", "CITATION.cff", *(f"{path.stem}.ipynb" for path in CHAPTERS)}
    for path in address.files(tmp_path):
        assert old not in path.read_text("utf8")
    for path in sorted((tmp_path / "chapters").glob("*.py")):
        assert execute.check(path) == ""
        assert code_cells(path)[0] == lab.install_cell(f"https://github.com/{new}")
    readme = (tmp_path / "README.md").read_text("utf8")
    assert f"git clone https://github.com/{new}\ncd a.fork\n" in readme
    assert address.rewrite(tmp_path) == []


def test_an_address_elsewhere_is_refused(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project.urls]\nrepository = "https://example.org/a"\n')
    with pytest.raises(ValueError, match="project.urls.repository must be https://github.com/OWNER/NAME"):
        address.address(tmp_path)


# ---- the executor

SOURCE = """\
# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # A chapter

# %%
{code}

# %% tags=["nbval-ignore-output"]
print("a")
print("b")
"""


@pytest.fixture
def chapter(tmp_path):
    path = tmp_path / "07_trial.py"
    path.write_text(SOURCE.format(code="1 + 1"))
    return path


def test_a_chapter_is_executed_twice_to_the_same_notebook(chapter):
    assert execute.check(chapter) == "07_trial.ipynb does not exist"
    notebooks = []
    for _ in range(2):
        assert execute.execute(chapter, timeout=60) == ""
        notebooks.append(chapter.with_suffix(".ipynb").read_text("utf8"))
    assert notebooks[0] == notebooks[1]
    assert execute.check(chapter) == ""
    cells = nbformat.reads(notebooks[0], 4).cells
    assert [cell.get("execution_count") for cell in cells] == [None, 1, 2]
    assert cells[2].outputs == [{"output_type": "stream", "name": "stdout", "text": "a\nb\n"}]


def test_a_change_is_noticed_and_moves_no_other_id(chapter):
    assert execute.execute(chapter, timeout=60) == ""
    before = execute.read_source(chapter)
    chapter.write_text(SOURCE.format(code="1 + 2"))
    after = execute.read_source(chapter)
    assert "cell 1 is not that of 07_trial.py" in execute.check(chapter)
    assert [a.id == b.id for a, b in zip(before.cells, after.cells)] == [True, False, True]


def test_a_cell_that_fails_is_named_and_leaves_the_old_notebook(chapter):
    assert execute.execute(chapter, timeout=60) == ""
    old = chapter.with_suffix(".ipynb").read_text("utf8")
    chapter.write_text(SOURCE.format(code="1 / 0"))
    assert "ZeroDivisionError" in execute.execute(chapter, timeout=60)
    assert chapter.with_suffix(".ipynb").read_text("utf8") == old
    assert not list(chapter.parent.glob("*.tmp"))


def test_a_notebook_that_was_not_executed_is_noticed(chapter):
    nbformat.write(execute.read_source(chapter), chapter.with_suffix(".ipynb"))
    assert "were not executed" in execute.check(chapter)
