"""Build the site from the committed notebooks, and serve it on this machine.

    python book/_tools/site.py build [--strict] [--out FOLDER]    strict: a warning is an error
    python book/_tools/site.py serve [--port 8000]
"""

import argparse
import functools
import http.server
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", ".", "--toc", "book/_toc.yml", "--all"]
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".json": "application/json"}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of the site, without a line of log a request. Types are ours: Windows takes them from its registry, often wrongly."""

    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | TYPES

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    # elsewhere a closed server frees its port at once; on Windows the flag would let two servers share it
    allow_reuse_address = os.name != "nt"


def build(*, out=None, is_strict=False) -> int:
    """Build the site into out/_build/html (the repository's own folder by default) and return the exit status."""
    command = BUILD + (["-W", "-n", "--keep-going"] if is_strict else ["-q"]) + (["--path-output", str(out)] if out else [])
    status = subprocess.run(command, cwd=ROOT, stdout=None if is_strict else subprocess.DEVNULL).returncode
    if status == 0 and not out:
        print(f"Built: {ROOT / '_build' / 'html' / 'index.html'}")
    return status


def server(folder, port) -> Server:
    """A server of folder on this machine alone. Port 0 takes a free one. Raises OSError for a port that is taken."""
    return Server(("127.0.0.1", port), functools.partial(Handler, directory=str(folder)))


def serve(port) -> int:
    """Serve the built site until Ctrl-C and return the exit status."""
    folder = ROOT / "_build" / "html"
    if not (folder / "index.html").exists():
        print("There is no site yet: run `make site`, or `python book/_tools/site.py build`.", file=sys.stderr)
        return 1
    try:
        running = server(folder, port)
    except (OSError, OverflowError) as error:
        reason = "is taken by another program" if isinstance(error, OSError) and port > 1023 else f"cannot be used ({error})"
        print(f"Port {port} {reason}; choose another one: make book PORT={port + 1 if port < 65535 else 8000}", file=sys.stderr)
        return 1
    print(f"The book is on http://localhost:{port} (Ctrl-C stops it)", flush=True)
    try:
        running.serve_forever()
    except KeyboardInterrupt:
        print()
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build")
    building.add_argument("--strict", action="store_true", help="a warning is an error")
    building.add_argument("--out", type=Path, help="folder that gets _build/html")
    serving = commands.add_parser("serve")
    serving.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    return build(out=args.out, is_strict=args.strict) if args.command == "build" else serve(args.port)


if __name__ == "__main__":
    sys.exit(main())
