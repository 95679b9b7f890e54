"""SHA-256 of what was measured: everything in runs/ and checkpoints/, and bands.json. Texts that people edit are left out.

    python data/hashes.py      writes data/SHA256SUMS; `cd data && sha256sum -c SHA256SUMS` checks it without Python

Where there is a git, only files that it knows count: a study that runs at this moment changes its file all the time.
"""

import hashlib
import subprocess
from pathlib import Path

DATA = Path(__file__).parent
LIST = DATA / "SHA256SUMS"


def files() -> list[str]:
    """Paths below data/ of what was measured, in order."""
    found = [path for folder in ("runs", "checkpoints") for path in (DATA / folder).rglob("*") if path.is_file()]
    names = {path.relative_to(DATA).as_posix() for path in [*found, DATA / "bands.json"] if not path.name.startswith(".")}
    try:
        git = subprocess.run(["git", "ls-files", "-z"], cwd=DATA, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        git = ""
    return sorted(names & set(git.split("\0"))) if git else sorted(names)


def hash_of(name: str) -> str:
    """SHA-256 of the file, in hexadecimal."""
    return hashlib.sha256((DATA / name).read_bytes()).hexdigest()


def listed() -> dict[str, str]:
    """Hash by name, as SHA256SUMS has them."""
    return {name: digest for digest, name in (line.split("  ", 1) for line in LIST.read_text("utf8").splitlines())}


if __name__ == "__main__":
    LIST.write_text("".join(f"{hash_of(name)}  {name}\n" for name in files()), "utf8", newline="\n")
    print(f"{LIST.name}: {len(files())} files")
