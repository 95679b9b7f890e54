"""Carry the repository's public address from pyproject.toml to every file that names it.

    edit `repository` in pyproject.toml, then: python book/_tools/address.py

The old address is the one in _config.yml. Notebooks are rewritten as text, so they need no new execution.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUFFIXES = {".cff", ".ipynb", ".md", ".py", ".toml", ".yml"}
SKIP = {".git", ".venv", "_build", "runs"}
HOST = "https://github.com/"


def address(root=ROOT) -> str:
    """The public address, from pyproject.toml. Raises ValueError if it is no GitHub repository."""
    text = tomllib.loads((root / "pyproject.toml").read_text("utf8"))["project"]["urls"]["repository"]
    if not re.fullmatch(re.escape(HOST) + r"[\w.-]+/[\w.-]+", text):
        raise ValueError(f"project.urls.repository must be {HOST}OWNER/NAME, because Colab opens notebooks from there, got {text!r}")
    return text


def configured(root=ROOT) -> str:
    """The address that the site's configuration names."""
    return re.search(r"^repository:\s*\n\s+url:\s*(\S+)", (root / "_config.yml").read_text("utf8"), re.MULTILINE)[1]


def files(root=ROOT):
    """The text files of the repository that may name the address."""
    for path in sorted(root.rglob("*")):
        if path.suffix in SUFFIXES and path.is_file() and not SKIP & set(path.relative_to(root).parts):
            yield path


def rewrite(root=ROOT) -> list[Path]:
    """Replace the configured address by that of pyproject.toml everywhere; returns the files that changed."""
    old, new = (text.removeprefix(HOST) for text in (configured(root), address(root)))
    if old == new:
        return []
    whole = re.compile(re.escape(old) + r"(?![\w-])")
    folder = re.compile(r"(?<=^cd )" + re.escape(old.split("/")[1]) + r"$", re.MULTILINE)    # after a clone line
    changed = []
    for path in files(root):
        before = path.read_text("utf8")
        after = folder.sub(new.split("/")[1], whole.sub(new, before))
        if after != before:
            path.write_text(after, "utf8")
            changed.append(path)
    return changed


def main():
    try:
        changed = rewrite()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    for path in changed:
        print(path.relative_to(ROOT))
    if not changed:
        print(f"Every file names {address()} already.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
