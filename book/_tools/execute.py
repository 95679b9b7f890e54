"""Execute chapters/*.py into tidy notebooks beside them, or check that the two agree.

    python book/_tools/execute.py [CHAPTER.py ...]            all chapters by default
    python book/_tools/execute.py --check [CHAPTER.py ...]
    python book/_tools/execute.py --pictures [CHAPTER.py ...] only the figures' static pictures, drawn again

The .py file (jupytext, py:percent) is the source, the .ipynb its execution. A notebook made twice differs only where its outputs do: a
cell's id comes from its text, so that a change moves no other id; times of execution and random ids are left out; streams are merged.
Beside each figure stands a static picture (pictures.py), which needs a Chromium.
"""

import argparse
import hashlib
import os
import sys
from collections import Counter
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

sys.path.insert(0, str(Path(__file__).parent))
import pictures  # noqa: E402

ROOT = Path(__file__).parents[2]
LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
WIDGET = "application/vnd.jupyter.widget-view+json"


def read_source(path):
    """The notebook that the .py file at path describes, without outputs."""
    notebook = jupytext.read(path)
    header = {k: v for k, v in notebook.metadata.get("jupytext", {}).items() if k in ("formats", "notebook_metadata_filter")}
    book = {"book": notebook.metadata["book"]} if "book" in notebook.metadata else {}
    notebook.metadata = nbformat.from_dict(book | {"jupytext": header, "kernelspec": KERNEL, "language_info": LANGUAGE})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen = Counter()
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
        seen[digest] += 1
        cell["id"] = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        cell.metadata = nbformat.from_dict({"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {})
    return notebook


def tidy(notebook):
    """The executed notebook without what changes from run to run: widget state, random ids, metadata of cells and outputs."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = nbformat.from_dict(LANGUAGE)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {})
        for output in cell.get("outputs", []):
            output.pop("transient", None)
            if "data" in output:
                output["metadata"] = nbformat.from_dict({})
                if len(output["data"]) > 1:
                    output["data"].pop(WIDGET, None)
    return notebook


def execute(path, *, timeout) -> str:
    """Write the notebook beside path; the old one stays if a cell fails. Returns what went wrong, or an empty text."""
    notebook = read_source(path)
    client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", record_timing=False, coalesce_streams=True,
                            resources={"metadata": {"path": str(path.parent)}})
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        return f"{path.name}: {error}"
    write(tidy(notebook), path.with_suffix(".ipynb"))
    return ""


def write(notebook, target):
    """Write the notebook with a picture beside each figure."""
    pictures.add(notebook)
    temporary = target.with_suffix(".ipynb.tmp")
    nbformat.write(notebook, temporary)
    os.replace(temporary, target)


def draw(path) -> str:
    """Draw the pictures of an executed notebook again. Returns what went wrong, or an empty text."""
    target = path.with_suffix(".ipynb")
    if not target.exists():
        return f"{target.name} does not exist"
    write(nbformat.read(target, 4), target)
    return check(path)


def check(path) -> str:
    """What keeps the notebook beside path from being an execution of it, or an empty text."""
    target = path.with_suffix(".ipynb")
    if not target.exists():
        return f"{target.name} does not exist"
    source, executed = read_source(path), nbformat.read(target, 4)
    if source.metadata != executed.metadata:
        return f"{target.name}: its metadata are not those of {path.name}"
    if len(source.cells) != len(executed.cells):
        return f"{target.name} has {len(executed.cells)} cells, {path.name} has {len(source.cells)}"
    for i, (here, there) in enumerate(zip(source.cells, executed.cells)):
        if (here.cell_type, here.source, here.metadata) != (there.cell_type, there.source, there.metadata):
            return f"{target.name}: cell {i} is not that of {path.name}: {there.source[:60]!r}"
    code = [c for c in executed.cells if c.cell_type == "code" and c.source.strip()]
    if [c.execution_count for c in code] != list(range(1, len(code) + 1)):
        return f"{target.name}: its cells were not executed once each, in order"
    for cell in code:
        if any(o.output_type == "error" for o in cell.outputs) and "raises-exception" not in cell.metadata.get("tags", []):
            return f"{target.name}: a cell ends in an error: {cell.source[:60]!r}"
    for output in pictures.figures(executed):
        if pictures.PICTURE not in output["data"]:
            return f"{target.name}: the figure {output['data'][pictures.FIGURE]['layout']['meta']['title']!r} has no static picture"
    return ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", type=Path, help="py:percent files; default: all of chapters/")
    parser.add_argument("--check", action="store_true", help="execute nothing; say what does not agree")
    parser.add_argument("--pictures", action="store_true", help="execute nothing; draw the figures' static pictures again")
    parser.add_argument("--timeout", type=int, default=600, help="seconds a cell may take")
    args = parser.parse_args()
    n_wrong = 0
    for path in args.chapters or sorted((ROOT / "chapters").glob("*.py")):
        wrong = check(path) if args.check else draw(path) if args.pictures else execute(path.resolve(), timeout=args.timeout)
        print(f"{'wrong' if wrong else 'good '}  {path.with_suffix('.ipynb').name}")
        if wrong:
            print(wrong, file=sys.stderr)
            n_wrong += 1
    if n_wrong and args.check:
        print("Cure: python book/_tools/execute.py", file=sys.stderr)
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
