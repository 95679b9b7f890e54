"""What can go wrong with text, tokens and downloads, as a table: name, what raises, the exception, and what its one line must say.

Each function takes an empty folder and returns a callable that raises. `Loopback` is a server on this machine that misbehaves on demand.
"""

import contextlib
import errno
import http.server
import json
import os
import socket
import threading
import urllib.parse
from pathlib import Path
from unittest.mock import patch

import numpy as np

from minimodels import corpus, data
from minimodels.download import Source, fetch


class Loopback:
    """An HTTP server on loopback. files: path -> bytes. faults: path -> list of faults, one used up by each request.

    Faults: ("cut", n) announces all bytes and sends n; ("status", code); ("redirect", path); ("whole",) ignores Range; ("drop",) hangs up.
    requests: every (path, Range, If-Range) that came. rows: a table served in pages at /rows.
    """

    def __init__(self, files=None, faults=None, rows=0):
        self.files, self.faults, self.rows, self.requests, self.etag = files or {}, faults or {}, rows, [], '"one"'
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                with contextlib.suppress(ConnectionError):
                    owner.answer(self)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        self.no_proxy = patch.dict(os.environ, {"no_proxy": "127.0.0.1"})
        self.no_proxy.start()
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.no_proxy.stop()

    def answer(self, request):
        path = urllib.parse.urlsplit(request.path)
        self.requests.append((request.path, request.headers.get("Range"), request.headers.get("If-Range")))
        fault = self.faults[path.path].pop(0) if self.faults.get(path.path) else (None,)
        if fault[0] == "drop":
            return request.connection.shutdown(socket.SHUT_RDWR)
        if fault[0] == "status":
            return request.send_error(fault[1])
        if fault[0] == "redirect":
            request.send_response(302)
            request.send_header("Location", self.url + fault[1])
            return request.end_headers()
        body = self.page(urllib.parse.parse_qs(path.query)) if path.path == "/rows" else self.files[path.path]
        span = request.headers.get("Range") if fault[0] != "whole" else None
        if request.headers.get("If-Range") not in (None, self.etag):
            span = None
        self.send(request, body, span, fault[1] if fault[0] == "cut" else None)

    def send(self, request, body, span, n_sent):
        start, end = 0, len(body)
        if span:
            first, _, last = span.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) + 1, end) if last else end
            if start >= len(body):
                return request.send_error(416)
        request.send_response(206 if span else 200)
        request.send_header("Content-Length", str(end - start))
        request.send_header("ETag", self.etag)
        if span:
            request.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(body)}")
        request.end_headers()
        request.wfile.write(body[start:end][:n_sent])

    def page(self, query):
        if self.rows is None:
            return b"<html>down for maintenance</html>"
        offset, length = int(query["offset"][0]), int(query["length"][0])
        assert length <= 100, "the real service refuses more"
        some = range(offset, min(offset + length, self.rows))
        rows = [{"row_idx": i, "row": {"text": f"document {i}: caf\u00e9\n"}, "truncated_cells": []} for i in some]
        return json.dumps({"rows": rows}).encode()


TEXT = "".join(f"line {i} of a text that says little\n" for i in range(300))


def without_waiting():
    return patch("minimodels.download.time.sleep")


def _file(folder, content, name="text.txt"):
    path = Path(folder) / name
    path.write_bytes(content)
    return path


def _load(content):
    return lambda folder: lambda: corpus.load_corpus(_file(folder, content))


def _named(name):
    return lambda folder: lambda: corpus.load_corpus(name, cache=folder)


def _folder_without_text(folder):
    _file(folder, b"\0\1\2", "image.bin")
    _file(folder, b"hidden text", ".hidden.txt")
    return lambda: corpus.load_corpus(folder)


def _unreadable(folder):
    path = _file(folder, b"some text\n")

    def call():
        with patch.object(Path, "read_bytes", side_effect=PermissionError(errno.EACCES, "Permission denied")):
            corpus.load_corpus(path)
    return call


def _prepare(folder, **changes):
    changes = {"vocab_size": 300, "cache": Path(folder) / "cache"} | changes
    path = _file(folder, TEXT.encode())
    return lambda: data.prepare(path, changes.pop("vocab_size"), **changes)


def _with_patch(target, error):
    def function(folder):
        call = _prepare(folder)

        def patched():
            with patch(target, side_effect=error):
                call()
        return patched
    return function


def _download(files, faults=None, rows=0, before=None, **known):
    """A download of /file from a server with these files and faults; before(folder, source) may prepare the cache."""
    def function(folder):
        def call():
            with Loopback(files, {"/file": list(faults or [])}, rows) as server, without_waiting():
                path = "/rows?dataset=d" if known.get("n_rows") else "/file"
                source = Source("file.txt", server.url + path, **known)
                if before:
                    before(folder, source)
                fetch(source, folder)
        return call
    return function


def _closed_port(folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def call():
        with patch.dict(os.environ, {"no_proxy": "127.0.0.1"}):
            fetch(Source("file.txt", f"http://127.0.0.1:{port}/file"), folder)
    return call


def _altered_in_cache(folder, source):
    fetch(source, folder)
    _file(folder, b"Hello, World!", "file.txt")


def _other_version(folder, source):
    fetch(source, folder)
    (Path(folder) / "file.txt").unlink()
    (Path(folder) / "file.txt.sha256").write_text("0" * 64 + "  file.txt\n")


def _full_while_downloading(folder):
    call = _download(HELLO)(folder)

    def patched():
        with patch("os.fsync", side_effect=OSError(errno.ENOSPC, "No space left on device")):
            call()
    return patched


def _batches(**changes):
    sizes = {"batch_size": 4, "seq_len": 16, "seed": 0} | changes
    return lambda folder: lambda: data.Batches(np.arange(79, dtype=np.uint16)[:78 if changes == {} else None], **sizes)


HELLO = {"/file": b"hello, world!"}
SHA = "68e656b251e67e8358bef8483ab0d51c6619f3e7a1a9f0e75838d41ff368f728"  # of b"hello, world!", by sha256sum
REFUSED, DENIED = {"/file": b""}, PermissionError(errno.EACCES, "Permission denied")

FAULTS = [
    ("unknown corpus", _named("wikipedia"), ValueError, r"data must be one of stdlib, .*, got 'wikipedia'$"),
    ("misspelt corpus", _named("tinyshakespear"), ValueError, r"did you mean tinyshakespeare\?"),
    ("missing file", _named("no/such.txt"), FileNotFoundError, r"nothing is at no/such\.txt"),
    ("empty file", _load(b""), ValueError, r"text\.txt, which is empty"),
    ("file of spaces", _load(b" \n\t\n"), ValueError, r"which is empty"),
    ("binary file", _load(b"abc\0def"), ValueError, r"binary \(a zero byte at position 3\)"),
    ("file not in UTF-8", _load(b"caf\xe9 latin"), ValueError, r"must be UTF-8 text, .*byte 0xe9 at position 3.*iconv"),
    ("file of one character", _load(b"x"), ValueError, r"at least 2 characters, got 1"),
    ("folder without text", _folder_without_text, ValueError, r"has none \(1 binary or empty file"),
    ("text on one side only", _load(b"a line\n" + b" " * 500), ValueError, r"text on both sides of the split"),
    ("device instead of a file", _named(os.devnull), ValueError, r"must be a file or a folder, got .*device"),
    ("unreadable file", _unreadable, PermissionError, r"data must be readable, got .*text\.txt: permission denied"),
    ("max_bytes of zero", lambda folder: lambda: corpus.load_corpus("stdlib", max_bytes=0), ValueError,
     r"max_bytes must be at least 1.*got 0"),
    ("cache under a file", lambda folder: _prepare(folder, cache=_file(folder, b"x", "f") / "c"), NotADirectoryError,
     r"cache must be a folder"),
    ("cache not writable", _with_patch("os.mkdir", DENIED), PermissionError, r"cannot write .*permission denied.*MINIMODELS_CACHE"),
    ("disk full", _with_patch("os.fsync", OSError(errno.ENOSPC, "No space left")), OSError, r"disk full while writing .*free some space"),
    ("vocabulary below the bytes", lambda folder: _prepare(folder, vocab_size=256), ValueError, r"vocab_size must be in \[257, .*got 256"),
    ("vocabulary of no number", lambda folder: _prepare(folder, vocab_size="4k"), ValueError, r"vocab_size must be in .*got '4k'"),
    ("text shorter than a batch", _batches(), ValueError,
     r"must fill one batch: batch_size=4 .*seq_len=16.* 79 tokens, got 78; use a longer"),
    ("no sequences", _batches(batch_size=0), ValueError, r"batch_size must be at least 1, got 0"),
    ("sequence of one token", _batches(seq_len=1), ValueError, r"seq_len must be at least 2, got 1"),
    ("negative seed", _batches(seed=-1), ValueError, r"seed must be at least 0, got -1"),
    ("unknown compressor", lambda folder: lambda: data.compressed_bits_per_byte("abc", "zip"), ValueError,
     r"method must be one of zlib, lzma"),
    ("no bytes", lambda folder: lambda: data.bits_per_byte(1.0, 0), ValueError, r"n_bytes must be at least 1, got 0"),
    ("no network", _closed_port, ConnectionError, r"cannot reach 127\.0\.0\.1:\d+ .*put the file yourself at .*--data stdlib"),
    ("file not found on the server", _download(REFUSED, [("status", 404)]), FileNotFoundError,
     r"refuses file\.txt \(HTTP 404 .*put the file"),
    ("access refused by the server", _download(REFUSED, [("status", 403)]), PermissionError, r"refuses file\.txt \(HTTP 403 "),
    ("server down", _download(REFUSED, [("status", 503)] * 9), ConnectionError, r"cut 5 times \(HTTP 503 .*run again to continue"),
    ("download cut", _download(HELLO, [("cut", 4)] + [("cut", 0)] * 9, sha256=SHA), ConnectionError, r"cut 5 times \(4 of 13 bytes came\)"),
    ("server hangs up", _download(HELLO, [("drop",)] * 9), ConnectionError, r"cut 5 times"),
    ("download of another size", _download(HELLO, n_bytes=14, sha256=SHA), ValueError, r"must have 14 bytes, got 13.*nothing was kept"),
    ("download altered", _download({"/file": b"hello, w0rld!"}, n_bytes=13, sha256=SHA), ValueError,
     r"must have SHA-256 68e6.*nothing was kept"),
    ("cached file altered", _download(HELLO, sha256=SHA, before=_altered_in_cache), ValueError,
     r"altered; delete .*file\.txt and run again"),
    ("download changed since the first", _download(HELLO, before=_other_version), ValueError,
     r"recorded at its first download in .*accept a new"),
    ("disk full while downloading", _full_while_downloading, OSError, r"disk full while writing .*file\.txt"),
    ("table service answers nonsense", _download({}, rows=None, n_rows=10), ValueError,
     r"must answer with rows that have a text, got b'<html>"),
]
