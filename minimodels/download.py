"""Files from the network, kept in a cache folder: continued when cut, refused when altered, explained when there is no network.

A hash that its publisher is known to give is checked at every use. Where none is published, the first download is recorded
beside the file and a later change is refused: that guards against change, not against a bad first copy.
Left out: mirrors, credentials, several connections at once.
"""

import contextlib
import errno
import hashlib
import http.client
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1 << 20  # bytes read at a time
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG} if hasattr(errno, "EDQUOT") else {errno.ENOSPC, errno.EFBIG}
DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
WAITING = {429, 500, 502, 503, 504}  # HTTP statuses that may pass


@dataclass(frozen=True)
class Source:
    """A file to download: its name in the cache, its address, and what is known of its bytes.

    With is_prefix only the first n_bytes are fetched, and sha256, if known, is theirs.
    With n_rows the address is that of a table served in pages (see `fetch_rows`).
    """

    name: str
    url: str
    n_bytes: int | None = None
    sha256: str | None = None
    is_prefix: bool = False
    n_rows: int | None = None


class _Cut(Exception):
    """The connection ended early, or the server asked to wait: worth another attempt."""


def cache_folder(cache: str | Path | None = None) -> Path:
    """The folder for downloads and tokens: cache, else MINIMODELS_CACHE, else the platform's usual place; it is created.

    Raises OSError (PermissionError, NotADirectoryError) with the cure if it cannot be.
    """
    home, environ = Path.home(), os.environ
    if cache is None and environ.get("MINIMODELS_CACHE"):
        cache = environ["MINIMODELS_CACHE"]
    elif cache is None and sys.platform == "win32":
        cache = Path(environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "minimodels"
    elif cache is None and sys.platform == "darwin":
        cache = home / "Library" / "Caches" / "minimodels"
    elif cache is None:
        cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "minimodels"
    folder = Path(cache).expanduser()
    with writing(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise NotADirectoryError(f"cache must be a folder, got {folder}, which is or lies under a file: "
                                     "set MINIMODELS_CACHE to a folder") from None
    return folder


@contextlib.contextmanager
def writing(path: Path):
    """Whatever a disk refuses within this block becomes one line with path and cure: OSError if full, else PermissionError."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise OSError(f"disk full while writing {path}: free some space, "
                          "or set MINIMODELS_CACHE to a folder on another disk") from error
        if error.errno in DENIED and not isinstance(error, urllib.error.URLError):
            raise PermissionError(f"cannot write {path} ({os.strerror(error.errno).lower()}): "
                                  "set MINIMODELS_CACHE to a folder that you may write") from error
        raise


@contextlib.contextmanager
def only_one(path: Path):
    """One process at a time within this block, among those that name the same path; the lock dies with its process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "a+b") as file:
        if sys.platform == "win32":
            import msvcrt
            while True:
                with contextlib.suppress(OSError):  # msvcrt gives up after ten seconds
                    file.seek(0)
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                    break
        else:
            import fcntl
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(source: Source, folder: Path, *, progress=None, timeout: float = 30.0, tries: int = 5, wait: float = 1.0) -> Path:
    """The source's file in folder, downloaded if it is not there yet, and checked in either case.

    progress(name, done, total) is called after every chunk, in bytes (in rows for a table); total may be None. A cut connection
    is continued (HTTP Range with If-Range) up to `tries` times, after 1, 2, 4 ... times `wait` seconds, and by the next call.
    Raises ConnectionError (no network, cut), PermissionError or FileNotFoundError (the server refuses), ValueError (other bytes than
    expected, by size or SHA-256), OSError (disk full): each with the file's path and a cure.
    """
    path = Path(folder) / source.name
    with writing(path):
        if not path.exists():
            with only_one(path):
                if not path.exists():  # nor made by another process meanwhile
                    _download(source, path, progress, timeout, tries, wait)
        _check(source, path, path)
    return path


def _download(source, path, progress, timeout, tries, wait):
    part = path.with_name(path.name + ".part")
    step = _continue_rows if source.n_rows else _continue_file
    _persist(lambda: step(source, part, progress, timeout), source, path, tries, wait)
    try:
        _check(source, part, path)
    except ValueError:
        _drop(part)
        raise
    os.replace(part, path)
    _drop(part)


def _persist(step, source, path, tries, wait):
    """Take step until it goes through; every other end becomes a clear error."""
    host = urllib.parse.urlsplit(source.url).netloc
    cure = f"put the file yourself at {path} (from {source.url}), or train without a network: --data stdlib"
    for attempt in range(tries):
        if attempt:
            time.sleep(wait * 2 ** (attempt - 1))
        try:
            return step()
        except (_Cut, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            reason = error
        except urllib.error.HTTPError as error:
            kind = {401: PermissionError, 403: PermissionError, 404: FileNotFoundError}.get(error.code, ConnectionError)
            reason = f"HTTP {error.code} {error.reason}"
            if error.code not in WAITING:
                raise kind(f"{host} refuses {source.name} ({reason}): {cure}") from None
        except urllib.error.URLError as error:
            raise ConnectionError(f"cannot reach {host} for {source.name} ({error.reason}): {cure}") from None
    raise ConnectionError(f"the download of {source.name} was cut {tries} times ({reason}): run again to continue it, or {cure}") from None


def _open(url, timeout, **headers):
    # identity: a size and a Range must speak of the file's own bytes
    headers = {"User-Agent": "minimodels", "Accept-Encoding": "identity"} | {k.replace("_", "-"): v for k, v in headers.items()}
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)


def _continue_file(source, part, progress, timeout):
    """Bring part from the bytes that it has to all of them. Raises _Cut if fewer came than were announced."""
    have, stamp = _resume_point(source, part)
    if have and have == (source.n_bytes or stamp.get("total")):
        return
    last = source.n_bytes - 1 if source.is_prefix else ""
    headers = {"Range": f"bytes={have}-{last}"} if have or source.is_prefix else {}
    if have and stamp.get("version"):
        headers["If_Range"] = stamp["version"]
    try:
        reply = _open(source.url, timeout, **headers)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        _drop(part)
        raise _Cut("the file became shorter") from None
    with reply:
        start, total, version = _span(reply)
        if start != have and start != 0 or start and version != stamp.get("version"):
            _drop(part)
            raise _Cut("the file changed between two attempts")
        total = source.n_bytes if source.is_prefix else total
        _stamp(part).write_text(json.dumps({"url": source.url, "version": version, "total": total}))
        _copy(reply, part, start, total, lambda done: progress and progress(source.name, done, total))


def _copy(reply, part, start, total, report):
    """Write what reply sends into part, from byte start on, up to total."""
    done = start
    with open(part, "ab" if start else "wb") as file:  # start is 0 or the size of part
        while total is None or done < total:
            chunk = reply.read(CHUNK if total is None else min(CHUNK, total - done))
            if not chunk:
                break
            file.write(chunk)
            done += len(chunk)
            report(done)
        file.flush()
        os.fsync(file.fileno())
    if total is not None and done < total:
        raise _Cut(f"{done:,} of {total:,} bytes came")


def _span(reply):
    """First byte, size of the whole file (None if unknown), and version (a strong ETag, else the date) that a reply announces."""
    etag = reply.headers.get("ETag", "")
    version = etag if etag and not etag.startswith("W/") else reply.headers.get("Last-Modified")
    if reply.status == 206:
        span, _, size = reply.headers.get("Content-Range", "bytes 0-/*").removeprefix("bytes ").partition("/")
        return int(span.split("-")[0]), int(size) if size.isdigit() else None, version
    size = reply.headers.get("Content-Length")
    return 0, int(size) if size else None, version


def _stamp(part):
    return part.with_name(part.name + ".json")


def _resume_point(source, part):
    """How many bytes of part may be kept, and the note that was taken with them. Nothing, if no later check would notice a mixture."""
    try:
        have, stamp = part.stat().st_size, json.loads(_stamp(part).read_text())
    except (OSError, ValueError):
        return 0, {}
    is_usable = stamp.get("url") == source.url and (stamp.get("version") or source.sha256)
    return (have, stamp) if is_usable and have <= (source.n_bytes or have) else (0, {})


def _drop(part):
    part.unlink(missing_ok=True)
    _stamp(part).unlink(missing_ok=True)


def _check(source, file, path):
    """Refuse file if its size or hash is not the source's, or not the one recorded at the first download to path."""
    n_bytes, digest = file.stat().st_size, file_sha256(file)
    pin = path.with_name(path.name + ".sha256")
    cure = f"delete {path} and run again" if file == path else f"nothing was kept; try later, or put the right file at {path}"
    if source.n_bytes is not None and n_bytes != source.n_bytes and not source.n_rows:
        raise ValueError(f"{source.name} must have {source.n_bytes:,} bytes, got {n_bytes:,}: it was cut or altered; {cure}")
    if source.sha256 is not None:
        if digest != source.sha256:
            raise ValueError(f"{source.name} must have SHA-256 {source.sha256}, got {digest}: it was altered; {cure}")
    elif not pin.exists():
        pin.write_text(f"{digest}  {source.name}\n")
    elif pin.read_text().split()[:1] != [digest]:
        raise ValueError(f"{source.name} must have the SHA-256 recorded at its first download in {pin}, got {digest}: it was altered; "
                         f"{cure}; to accept a new version, delete {pin.name} too")


def _continue_rows(source, part, progress, timeout):
    """Bring part, JSON lines with `row` and `text`, up to n_rows rows of a table that Hugging Face's dataset viewer serves.

    Pages hold 100 rows (the service's limit). It serves the current version only, so pages fetched on different days may differ.
    Source: https://huggingface.co/docs/dataset-viewer/rows.
    """
    lines = part.read_bytes().splitlines(keepends=True) if part.exists() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    done = json.loads(whole[-1])["row"] + 1 if whole else 0
    with open(part, "wb") as file:
        file.writelines(whole)
        while done < source.n_rows:
            n = min(100, source.n_rows - done)
            with _open(f"{source.url}&offset={done}&length={n}", timeout) as reply:
                rows = _rows(reply.read(), source)
            for row, text in rows:
                file.write(json.dumps({"row": row, "text": text}).encode() + b"\n")
            if len(rows) < n:
                break
            done += n
            if progress:
                progress(source.name, done, source.n_rows)
        file.flush()
        os.fsync(file.fileno())


def _rows(body, source):
    try:
        return [(int(row["row_idx"]), "" + (row["row"]["text"] or "")) for row in json.loads(body)["rows"]]
    except (ValueError, KeyError, TypeError):
        host = urllib.parse.urlsplit(source.url).netloc
        raise ValueError(f"{host} must answer with rows that have a text, got {body[:60]!r}: it may be down or changed; "
                         "run again later, or train without a network: --data stdlib") from None
