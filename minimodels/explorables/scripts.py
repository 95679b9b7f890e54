"""The explorables' scripts and style, read as files: the site is built where neither torch nor anywidget is installed."""

import re
from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.js") if path.stem != "kit"))
CSS = (FOLDER / "explorables.css").read_text("utf8")

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./kit\.js";\n', re.MULTILINE)


def module(name: str) -> str:
    """The ES module of an explorable as one text, with the kit in it: anywidget imports a blob, where no relative import works.

    Raises ValueError for a file that does not keep the contract.
    """
    kit = (FOLDER / "kit.js").read_text("utf8")
    text, n_imports = _IMPORT.subn(lambda _: kit, (FOLDER / f"{name}.js").read_text("utf8"))
    if n_imports != 1 or re.findall(r"^export default .*", text, re.MULTILINE) != ["export default { render };"]:
        raise ValueError(f"{name}.js must have one import, from ./kit.js, and end in `export default {{ render }};`")
    return text


def classic(name: str) -> str:
    """The same text as a classic script that sets window.explorables[name]: browsers refuse modules from file://."""
    body = re.sub(r"^export default ", "return ", module(name), flags=re.MULTILINE)
    body = re.sub(r"^export ", "", body, flags=re.MULTILINE)
    return f"(window.explorables ||= {{}}).{name} = (() => {{\n{body}}})();\n"
