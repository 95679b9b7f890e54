"""Files that appear whole or not at all, with a seal that shows damage, and a lock that dies with its process.

A file is written under another name, forced to disk, then renamed; a kill or a full disk leaves the one before it. A seal is the
SHA-256 of all bytes of a file, with 64 zeros in its own place. It finds damage, not malice: who alters a file can seal it anew.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from minimodels.download import CHUNK, DENIED, FULL

SEAL, NO_SEAL = re.compile(rb'"seal": "([0-9a-f]{64})"'), "0" * 64
CODES = {  # what safetensors calls a type
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2", torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
    torch.bool: "BOOL", torch.complex64: "C64",
}


def write(path: Path, chunks: Iterable, *, sealed: bool = False) -> str:
    """The chunks (bytes or byte arrays) under path, whole or not at all. Returns their SHA-256.

    With sealed the first chunk must hold `"seal": "000..."`, whose 64 zeros that SHA-256 replaces.
    Raises what the disk raises; then path is as it was, and nothing half-written stays.
    """
    new, digest, at = path.with_name(path.name + ".tmp"), hashlib.sha256(), None
    try:
        with open(new, "wb") as file:
            for chunk in chunks:
                at = SEAL.search(chunk).start(1) if sealed and at is None else at
                digest.update(chunk)
                file.write(chunk)
            if sealed:
                file.seek(at)
                file.write(digest.hexdigest().encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return digest.hexdigest()


def _sync_folder(folder):
    if os.name != "nt":  # where a folder cannot be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def second_name(path: Path, other: Path):
    """Make other a second name of path's file, which is never changed in place; a copy where the disk knows no second names."""
    new = other.with_name(other.name + ".tmp")
    new.unlink(missing_ok=True)
    try:
        os.link(path, new)
    except OSError:
        shutil.copyfile(path, new)
    os.replace(new, other)
    _sync_folder(other.parent)


def check_seal(path: Path, cure: str) -> str:
    """The seal of a file. Raises ValueError, naming the file, if it is not the SHA-256 of the file's other bytes."""
    with open(path, "rb") as file:
        head = file.read(1000)
        found = SEAL.search(head)
        seal = found[1] if found else b""
        digest = hashlib.sha256(head.replace(seal, NO_SEAL.encode(), 1) if found else head)
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest().encode() != seal:
        raise ValueError(f"{path} was cut or altered (its SHA-256 is not the one sealed in it): {cure}")
    return seal.decode()


def safetensors_chunks(tensors: dict[str, Tensor], note: dict) -> Iterator:
    """A sealed safetensors file, piece by piece: the header with its length, then one tensor after the other.

    One tensor at a time comes to the CPU. A tensor that has two names is stored under the first; note["twins"] says which.
    Raises ValueError, at once, for a type that safetensors does not have, or a note that is not JSON.
    Source: the format's description, https://github.com/huggingface/safetensors. Written here and not by the library, whose
    save_file refuses twins, brings everything to the CPU, and leaves its own temporary file behind when it is killed.
    """
    first, twins = {}, {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.dtype not in CODES:
            kind = getattr(tensor, "dtype", type(tensor).__name__)
            raise ValueError(f"{name} must be a tensor of a type that safetensors has, got {kind}")
        # the same memory, seen in the same way; an empty tensor has none
        view = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if tensor.numel() else name
        if first.setdefault(view, name) != name:
            twins[name] = first[view]
    # wide types first, so that every tensor starts at a multiple of its type's size
    names = sorted(first.values(), key=lambda name: (-tensors[name].element_size(), name))
    header, end = {"__metadata__": {"seal": NO_SEAL, "minimodels": to_json(note | {"twins": twins}, "meta").decode()}}, 0
    for name in names:
        header[name] = {"dtype": CODES[tensors[name].dtype], "shape": list(tensors[name].shape),
                        "data_offsets": [end, end := end + tensors[name].nbytes]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return _pieces(len(head).to_bytes(8, "little") + head, (tensors[name] for name in names))


def _pieces(head, tensors):
    yield head
    for tensor in tensors:
        yield tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy()


def to_json(values: dict, name: str, **layout) -> bytes:
    """values as JSON; tensors and arrays become lists. Raises ValueError, with name, for anything else that JSON does not have."""
    def plain(value):
        if hasattr(value, "tolist"):
            return value.tolist()
        raise TypeError(f"{value!r} of type {type(value).__name__}")
    try:
        return json.dumps(values, default=plain, **layout).encode()
    except TypeError as error:
        raise ValueError(f"{name} must hold JSON values only, got {error}") from None


@contextlib.contextmanager
def clear_errors(path: Path, cure: str):
    """Whatever the disk refuses within this block becomes one line with path, reason and cure."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # our own, which has its line
            raise
        if error.errno in FULL:
            raise OSError(f"disk full while writing {path}: {cure}") from error
        if error.errno in {errno.EEXIST, errno.ENOTDIR}:
            raise NotADirectoryError(f"{path} must be a folder, but it is a file or lies under one: {cure}") from error
        kind = PermissionError if error.errno in DENIED else OSError
        raise kind(f"cannot write {path} ({os.strerror(error.errno).lower()}): {cure}") from error


class Lock:
    """One process at a time, among those that name the same path; its file says which one.

    The operating system drops the lock when its process ends, by whatever signal, so that a dead one never blocks the next.
    A process that was forked off is another one, and may not write either; as long as it lives, it keeps its parent's lock.
    """

    def __init__(self, path: Path):
        self.path, self._file, self._owner = path, None, None

    def take(self) -> str | None:
        """Take the lock, or return who has it. Several Lock objects of one process may share it."""
        me = f"process {os.getpid()} on {socket.gethostname()}"
        if self._file is not None and self._owner == os.getpid():
            return None
        file = open(self.path, "a+b")
        if not _is_free(file):
            file.seek(0)
            holder = file.read(200).decode(errors="replace").strip()
            file.close()
            return None if holder == me else holder or "another process"
        self._file, self._owner = file, os.getpid()
        file.truncate(0)
        file.write(me.encode())
        file.flush()
        return None

    def drop(self):
        """Let another process take it."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _is_free(file) -> bool:
    """Lock the file if nobody has. True also on a disk that has no locks."""
    try:
        if os.name == "nt":
            import msvcrt
            file.seek(1 << 30)  # far from the text, which others must be able to read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}
    return True
