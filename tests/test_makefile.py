"""The commands: they exist where the README says so, and they are clear where something is missing."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text("utf8")
README = (ROOT / "README.md").read_text("utf8")
TARGETS = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split())

needs_make = pytest.mark.skipif(not shutil.which("make"), reason="no make here")


def make(*words, folder=ROOT, **environ):
    return subprocess.run(["make", *words], cwd=folder, capture_output=True, text=True, env=os.environ | environ, timeout=60)


@pytest.fixture
def copy(tmp_path):
    """The files that set-up reads, in a folder whose name has a space."""
    folder = tmp_path / "a b"
    folder.mkdir()
    for name in ("Makefile", "requirements.txt", "requirements-site.txt", "constraints.txt", "pyproject.toml", "_config.yml"):
        shutil.copy(ROOT / name, folder)
    (folder / "data").mkdir()
    shutil.copy(ROOT / "data" / "claims.yml", folder / "data")
    return folder


def test_every_command_of_the_readme_is_a_target():
    named = set(re.findall(r"\bmake (\w+)", README))
    assert {"book", "test", "train"} <= named <= TARGETS


@needs_make
def test_help_is_the_default_and_names_every_target():
    said = make().stdout
    assert said == make("help").stdout
    assert set(re.findall(r"^make (\w+)", said, re.MULTILINE)) == TARGETS - {"help"}


@needs_make
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_target_can_be_planned_in_a_folder_with_a_space(copy, target):
    planned = make("-n", target, folder=copy)
    assert planned.returncode == 0, planned.stderr


@needs_make
def test_the_site_needs_no_torch(copy):
    planned = make("-n", "site", folder=copy).stdout
    assert "--requirement requirements-site.txt" in planned and "--editable" not in planned
    assert "torch" not in (ROOT / "requirements-site.txt").read_text("utf8").split("\n", 1)[1]


@needs_make
def test_a_second_call_sets_nothing_up_until_the_requirements_change(copy):
    (copy / ".venv" / "bin").mkdir(parents=True)
    (copy / ".venv" / "bin" / "python").touch()
    for stamp in ("ready", "site.ready"):
        (copy / ".venv" / stamp).touch()
    assert "pip" not in make("-n", "site", folder=copy).stdout + make("-n", "train", folder=copy).stdout
    later = (copy / ".venv" / "ready").stat().st_mtime + 5
    os.utime(copy / "constraints.txt", (later, later))
    assert "pip" in make("-n", "site", folder=copy).stdout and "pip" in make("-n", "train", folder=copy).stdout


@needs_make
def test_a_python_that_does_not_fit_is_said_so(copy, tmp_path):
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    said = make("site", f"PYTHON={old}", folder=copy)
    assert said.returncode != 0
    assert f"needs Python 3.11, 3.12 or 3.13 with venv; {old} is none of them" in said.stderr
    assert not (copy / ".venv").exists()


def test_a_port_that_is_taken_is_said_so(tmp_path):
    tools = tmp_path / "book" / "_tools"
    tools.mkdir(parents=True)
    shutil.copy(ROOT / "book" / "_tools" / "site.py", tools)
    (tmp_path / "_build" / "html").mkdir(parents=True)
    (tmp_path / "_build" / "html" / "index.html").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = subprocess.run([sys.executable, tools / "site.py", "serve", "--port", str(port)], capture_output=True, text=True, timeout=60)
    assert said.returncode == 1
    assert said.stderr == f"Port {port} is taken by another program; choose another one: make book PORT={port + 1}\n"


def requirements(name):
    return {line for line in (ROOT / name).read_text("utf8").splitlines() if line and not line.startswith("#")}


def test_what_the_site_needs_is_part_of_what_the_book_needs():
    assert requirements("requirements-site.txt") < requirements("requirements.txt")


def test_every_requirement_has_its_exact_version():
    pinned = {line.split("==")[0].lower() for line in requirements("constraints.txt")}
    project = (ROOT / "pyproject.toml").read_text("utf8")
    wanted = requirements("requirements.txt") | set(re.findall(r'^    "([\w-]+[<>=][^"]*)",$', project, re.MULTILINE))
    assert {re.split("[<>=]", line)[0].lower() for line in wanted} <= pinned
    assert "torch==2.13.0" in requirements("constraints.txt")


def test_ci_runs_make_test():
    ci = ROOT / ".ci" / "run"
    assert os.access(ci, os.X_OK) and ci.read_text("utf8").rstrip().endswith("exec make test")
