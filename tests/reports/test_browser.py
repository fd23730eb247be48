"""The report's page in a real browser: Debian's chromium, driven by playwright. `make check-browser` runs this file."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import report_folders
from multitune.reports import page as report_page
from report_folders import HOSTILE, Contents

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (the extra dev)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.check,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium"),
]

SCREENS = {"light": ("light", 1280), "dark": ("dark", 1280), "narrow": ("light", 400)}


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    contents = Contents(methods=("mtl", "gradvac", "sequential_reptile"), seen=("de", "ar", "hi", HOSTILE), clusters=4)
    return report_page.write(report_folders.comparison(tmp_path_factory.mktemp("report") / "comparison", contents))


@pytest.fixture
def page(browser: "Browser", report: Path) -> Iterator["Page"]:
    """The page, opened from disk; it must say nothing on the console and ask for nothing but itself."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    yield page
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    context.close()


@pytest.mark.parametrize(("scheme", "width"), SCREENS.values(), ids=SCREENS)
def test_it_fits_every_screen(
    page: "Page", scheme: str, width: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('.ink')).color]"
    )
    assert (background, ink) == (
        ("rgb(21, 23, 28)", "rgb(242, 242, 242)") if scheme == "dark" else ("rgb(255, 255, 255)", "rgb(0, 0, 0)")
    )
    out = Path(os.environ.get("SCREENSHOTS", tmp_path))
    name = request.node.callspec.id
    page.screenshot(path=out / f"report-{name}.png", full_page=True)
    assert (out / f"report-{name}.png").stat().st_size > 50_000


def first_column(page: "Page") -> list[str]:
    rows = page.locator(".languages tbody th")
    return [str(row.get_attribute("data-value")) for row in rows.all()]


def test_columns_sort_by_mouse_and_by_keyboard(page: "Page") -> None:
    given = first_column(page)
    button = page.locator(".languages th button", has_text="language")
    button.click()
    assert first_column(page) == sorted(given)
    assert button.locator("..").get_attribute("aria-sort") == "ascending"
    button.press("Enter")
    assert first_column(page) == sorted(given, reverse=True)
    score = page.locator(".languages th button", has_text="mtl").first
    score.click()
    values = [float(text) for text in page.locator(".languages tbody td:nth-child(3)").all_inner_texts()]
    assert values == sorted(values, reverse=True)
    assert page.locator(".languages th[aria-sort]").count() == 1


def test_the_cost_axis_switches(page: "Page") -> None:
    gradients, seconds = page.locator(".by-gradients").first, page.locator(".by-seconds").first
    assert (gradients.is_visible(), seconds.is_visible()) == (True, False)
    page.get_by_label("seconds", exact=True).check()
    assert (gradients.is_visible(), seconds.is_visible()) == (False, True)
    assert "seconds" in seconds.inner_text()


def test_pointing_tells_the_value(page: "Page") -> None:
    page.locator("#curves .mark").first.hover()
    assert page.locator("#tip").inner_text() == "mtl: 12.5 at 24 gradients, 30 s"
    cell = page.locator(".heat td[style]").nth(1)
    cell.hover()
    assert page.locator("#tip").inner_text() == f"hi and de: {cell.inner_text()}"
    page.locator("h1").hover()
    assert not page.locator("#tip").is_visible()


def test_arrow_keys_step_through_points_and_cells(page: "Page") -> None:
    tip = page.locator("#tip")
    page.locator("#curves .chart").first.focus()
    for expected in ("mtl: 12.5", "mtl: 25.0", "mtl: 37.5"):
        page.keyboard.press("ArrowRight")
        assert tip.inner_text().startswith(expected)
    page.locator(".heat").first.focus()
    said = []
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowUp", "ArrowLeft"):
        page.keyboard.press(key)
        said.append(tip.inner_text().rpartition(":")[0])
    assert said == ["ar and de", "hi and de", f"{HOSTILE} and de", f"{HOSTILE} and ar", "hi and ar", "hi and de"]
    page.keyboard.press("Escape")
    assert not tip.is_visible()


def test_a_label_that_is_a_script_stays_text_and_languages_have_names(page: "Page") -> None:
    assert page.locator("script").count() == 1
    assert page.locator(".languages tbody th", has_text=HOSTILE).count() == 1
    assert page.locator('.languages [data-language="ar"]').inner_text() == "Arabic"


def test_right_to_left_text_runs_from_the_right(page: "Page") -> None:
    text = page.locator('.said[lang="ar"]').first
    assert text.evaluate("element => getComputedStyle(element).direction") == "rtl"


def test_everything_is_printed(page: "Page") -> None:
    page.emulate_media(media="print")
    assert page.locator(".by-gradients").first.is_visible()
    assert page.locator(".by-seconds").first.is_visible()
    assert not page.locator("nav").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.parametrize("role", ["button", "radio", "img", "region"])
def test_every_control_and_picture_has_a_name(page: "Page", role: str) -> None:
    found = page.get_by_role(role).count()  # type: ignore[arg-type]
    assert found > 0
    assert page.get_by_role(role, name=re.compile(r"\w")).count() == found  # type: ignore[arg-type]
