"""What a notebook asks about the machine it runs on: its tier, whether a measured number is usual there, and how the book got here.

A tier is a promise about time and memory, not about speed records: `cpu` (2 cores, 8 GB), `t4` (free Colab), `gaming` (12 to 24 GB).
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

TIERS = ("cpu", "t4", "gaming")
GIB = 2**30
T4_MEMORY, GAMING_MEMORY = 7 * GIB, 11 * GIB    # a card sold with 12 GB shows 11.6 GiB

# the first code cell of every chapter, with the address from pyproject.toml; a test holds them together
INSTALL_CELL = '''\
BOOK = "git+{address}"
try:
    import minimodels
except ModuleNotFoundError:  # in Colab, where the book is not installed yet
    import subprocess, sys
    pip = [sys.executable, "-m", "pip", "install", "-q", BOOK]
    subprocess.run(pip, check=True)'''


# ---- where the book comes from

def address() -> str:
    """The repository's public address, as the installed package has it from pyproject.toml."""
    urls = dict(entry.split(", ", 1) for entry in metadata.metadata("minimodels").get_all("Project-URL"))
    return urls["repository"]


def install_cell(address: str) -> str:
    """The first code cell of a chapter: it installs the package where it is missing, and does nothing elsewhere."""
    return INSTALL_CELL.format(address=address)


def colab_link(address: str, chapter: str) -> str:
    """The Markdown link that opens chapters/<chapter>.ipynb in Colab."""
    repository = address.removeprefix("https://github.com/")
    return f"[Open in Colab](https://colab.research.google.com/github/{repository}/blob/main/chapters/{chapter}.ipynb)"


# ---- tiers

@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU as torch reports it."""

    name: str
    memory: int                     # bytes
    capability: tuple[int, int]     # (8, 9) is written sm89
    has_bf16: bool                  # in hardware, not emulated

    def __str__(self):
        return f"{self.name}, {self.memory / GIB:.1f} GiB, sm{self.capability[0]}{self.capability[1]}"


@dataclass(frozen=True)
class Tier:
    """What the machine can be expected to do: one of `cpu`, `t4`, `gaming`, and why."""

    name: str
    reason: str

    def __str__(self):
        return f"Tier {self.name}: {self.reason}."

    __repr__ = __str__


def gpu() -> Gpu | None:
    """The first NVIDIA GPU that torch can use, or None."""
    import torch

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    # without the argument a T4 says True: it emulates
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return Gpu(properties.name, properties.total_memory, (properties.major, properties.minor), has_bf16)


def tier(*, gpu=gpu, environ=os.environ) -> Tier:
    """The tier of this machine, with its reason; the variable MINIMODELS_TIER overrides what is detected.

    gpu: a function that returns a Gpu or None; environ: a mapping. Raises ValueError for a MINIMODELS_TIER that does not exist.
    """
    wanted = environ.get("MINIMODELS_TIER", "")
    if wanted:
        if wanted not in TIERS:
            raise ValueError(f"MINIMODELS_TIER must be one of {', '.join(TIERS)}, got {wanted!r}; unset it to have the tier detected")
        return Tier(wanted, "MINIMODELS_TIER says so")
    found = gpu()
    if found is None:
        return Tier("cpu", "torch finds no NVIDIA GPU")
    if found.has_bf16 and found.memory >= GAMING_MEMORY:
        return Tier("gaming", f"{found} does bf16 and has at least {GAMING_MEMORY // GIB} GiB")
    if found.capability >= (7, 0) and found.memory >= T4_MEMORY:
        lacks = f"less than {GAMING_MEMORY // GIB} GiB" if found.has_bf16 else "no bf16 in hardware"
        return Tier("t4", f"{found} has {lacks}")
    lacks = f"less than {T4_MEMORY // GIB} GiB" if found.capability >= (7, 0) else "no tensor cores"
    return Tier("cpu", f"{found} has {lacks}")


# ---- bands

def data_file(name: str) -> Path:
    """data/NAME of the repository, or of the installed package where there is no repository."""
    inside = Path(__file__).resolve().parents[1] / "data"
    return (inside if inside.is_dir() else Path(sysconfig.get_path("data")) / "share" / "minimodels") / name


def band(chapter: str, metric: str, value: float, *, bands: dict | None = None, tier_name: str | None = None) -> str:
    """A sentence that says whether value lies where recorded runs on this tier lay, and what usually explains it if not.

    bands: the table (data/README.md says what it holds); default: data/bands.json. tier_name: default, this machine's tier.
    A metric without a band for this tier is said to have none.
    """
    table = json.loads(data_file("bands.json").read_text("utf8")) if bands is None else bands
    name = tier_name or tier().name
    entry = table.get(chapter, {}).get(metric)
    recorded = entry and entry["tiers"].get(name)
    if not recorded:
        return f"{metric}: {value:.4g}. No band is recorded for it on the {name} tier, so there is nothing to compare it with."
    low, high, unit = recorded["low"], recorded["high"], entry["unit"]
    usual = f"{low:.4g} to {high:.4g} {unit} (mean {recorded['mean']:#.4g} of {recorded['n_runs']} runs, {recorded['hardware']})"
    if low <= value <= high:
        return f"{metric}: {value:.4g} {unit} lies inside the {name} band, {usual}."
    side = "below" if value < low else "above"
    return f"{metric}: {value:.4g} {unit} lies {side} the {name} band, {usual}. Usual reason: {entry[f'if_{side}']}"


# ---- doctor

def doctor() -> str:
    """A report of what this machine can run, a line each: versions, cores, memory, GPU, number formats, compiler, disk, tier."""
    import torch

    found, here = gpu(), tier()
    rows = {
        "tier": f"{here.name} ({here.reason})",
        "python": f"{platform.python_version()} ({platform.system()} {platform.machine()})",
        "torch": torch.__version__,
        "cores": f"{n_cores()} usable, {torch.get_num_threads()} threads in torch",
        "memory": f"{memory() / GIB:.1f} GiB" if memory() else "unknown",
        "gpu": str(found or "none that torch can use"),
        "formats": ", ".join(formats(found)),
        "compiler": compiler() or "none found: torch.compile needs one (gcc, clang or MSVC)",
        "free disk": f"{shutil.disk_usage(Path.cwd()).free / GIB:.1f} GiB where this runs",
    }
    return "\n".join(f"{key:<10} {value}" for key, value in rows.items())


def machine() -> dict:
    """The hardware and the versions that a recorded number stands on: plain values for a JSON file."""
    import torch

    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    found = gpu()
    return {"cpu": cpu, "cores": n_cores(), "threads": torch.get_num_threads(), "gpu": found and str(found), "system": platform.system(),
            "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None, "python": platform.python_version(),
            "torch": torch.__version__}


def commit() -> str | None:
    """The commit of the repository that this package lies in; None for an installed copy."""
    here = Path(__file__).resolve().parents[1]
    if not (here / ".git").exists():
        return None
    found = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else None


def n_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int | None:
    """Bytes of memory that this process may use: the machine's, or its container's limit. None where the system does not say."""
    if sys.platform == "win32":
        return _windows_memory()
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(limit).read_text()))
        except (OSError, ValueError):    # no such file, or "max"
            pass
    return total


def _windows_memory():
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [(name, ctypes.c_ulonglong) for name in (
            "total", "free", "page_total", "page_free", "virtual_total", "virtual_free", "extended")]

    status = Status(length=ctypes.sizeof(Status))
    return status.total if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else None


def formats(found: Gpu | None) -> list[str]:
    """Number formats that the device multiplies in hardware; the others are emulated, correctly and slowly."""
    if found is None:
        return ["fp32"] + (["bf16"] if _cpu_has_bf16() else [])
    fp16 = ["fp16"] if found.capability >= (7, 0) else []
    bf16 = ["bf16"] if found.has_bf16 else []
    return ["fp32", *fp16, *bf16] + (["fp8"] if found.capability >= (8, 9) else [])


def _cpu_has_bf16():
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.system() == "Darwin" and platform.machine() == "arm64"
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))


def compiler() -> str | None:
    """The path of the C++ compiler that torch.compile would use on the CPU, or None."""
    return next(filter(None, map(shutil.which, (os.environ.get("CXX") or "g++", "clang++", "cl"))), None)
