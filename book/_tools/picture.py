"""Take the README's picture: a page of the built site, as Chromium shows it on a desk.

    python book/_tools/site.py build && python book/_tools/picture.py [book/index.html] [--at SELECTOR]
"""

import argparse
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", nargs="?", default="book/index.html")
    parser.add_argument("--at", default="h1", help="CSS selector of what stands at the top")
    args = parser.parse_args()
    page_file = ROOT / "_build" / "html" / args.page
    if not page_file.exists():
        print(f"{page_file} does not exist: run python book/_tools/site.py build", file=sys.stderr)
        return 1
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme="light")
        page.goto(page_file.as_uri())
        page.locator(args.at).first.evaluate("element => scrollTo(0, element.getBoundingClientRect().top + scrollY - 80)")
        page.wait_for_timeout(3000)    # figures are drawn when they come into view
        page.screenshot(path=ROOT / "book" / "_static" / "readme.png")
        browser.close()
    print("book/_static/readme.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
