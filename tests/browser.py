"""A headless Chromium for the tests that look at pages; without one they are skipped with a line that says how to get it."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync"]


@contextmanager
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -r requirements.txt")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    with sync_api.sync_playwright() as playwright:
        path = path or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("no Chromium: `apt-get install chromium`, or `python -m playwright install chromium`, then run this again")
        running = playwright.chromium.launch(executable_path=path, args=ARGS)
        yield running
        running.close()
