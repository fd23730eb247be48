"""Pictures of a report in docs/figures: the first screen in light and in dark, and the page on a phone.

Usage: python tests/reports/screenshots.py REPORT.html FOLDER
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

SCREENS = {"light": ("light", 1280, 800), "dark": ("dark", 1280, 800), "narrow": ("light", 390, 844)}
"""Name -> colour scheme, width and height; pixels."""


def main(report: Path, folder: Path) -> None:
    """Write report-light.png, report-dark.png and report-narrow.png."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (scheme, width, height) in SCREENS.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
            page.goto(report.resolve().as_uri())
            page.screenshot(path=folder / f"report-{name}.png", full_page=True)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
