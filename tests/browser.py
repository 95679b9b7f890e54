"""A headless Chromium for the tests that look at pages, and visits to pages with explorables; without one they are skipped with a line that says how to get it."""

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


@contextmanager
def visits(browser, folder, *, count=1, width=390):
    """A function that opens folder/NAME.html and waits for so many live explorables; at the end nothing may have gone wrong or come from elsewhere."""
    wrong, contexts = [], []

    def open_page(name="light", width=width, motion="reduce"):
        context = browser.new_context(viewport={"width": width, "height": 900}, reduced_motion=motion)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda one: one.url.startswith(folder.as_uri()) or wrong.append(one.url))
        page.goto(f"{folder.as_uri()}/{name}.html")
        page.wait_for_function(f"document.querySelectorAll('[data-live]').length === {count}")
        page.set_default_timeout(20_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []
