"""The report's page in a real browser: Debian's chromium, driven by playwright. `make check-browser` runs this file."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import report_folders
from multitune.plans import METHODS
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

SCREENS = {"light": ("light", 1280), "dark": ("dark", 1280), "narrow": ("light", 390)}
TALLEST = 5_000
"""Pixels of a page on a desktop before anything is unfolded."""
FILTERS = {"latin seen": ["de"], "ARABIC": ["ar"], "indo-european": ["hi", "de", "fr"], "zz": []}
UNFOLD = "document.querySelectorAll('details').forEach(part => { part.open = true; })"


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


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of ten methods and 126 languages."""
    contents = Contents(
        methods=[*METHODS][:10],
        seen=[f"{a}{b}" for a in "abcdefghij" for b in "abcdefghij"],
        unseen=[f"x{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"],
        probed=False,
    )
    return report_page.write(report_folders.comparison(tmp_path_factory.mktemp("wide") / "comparison", contents))


def test_the_answer_is_on_the_first_screen(page: "Page") -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    for part in (".headline", "#answer figure .chart", "#answer table"):
        box = page.locator(part).first.bounding_box()
        assert box is not None
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= 800, part


@pytest.mark.parametrize("which", ["report", "wide"])
def test_a_folded_page_is_short_and_no_column_is_cut(
    browser: "Browser", which: str, request: pytest.FixtureRequest
) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(request.getfixturevalue(which).as_uri())
    assert page.evaluate("document.documentElement.scrollHeight") <= TALLEST
    page.evaluate(UNFOLD)
    cut = "[...document.querySelectorAll('.scroll')].filter(each => each.scrollWidth > each.clientWidth)"
    assert page.evaluate(f"{cut}.map(each => each.ariaLabel)") == []
    page.close()


def test_on_a_phone_the_language_stays_in_view(page: "Page") -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    table, cell = page.locator(".tall").first, page.locator("#language-table tbody th[data-value=ar]")
    before = cell.bounding_box()
    assert table.evaluate("each => { each.scrollLeft = 200; return each.scrollLeft; }") > 50
    assert cell.bounding_box() == before


def test_the_filter_shows_what_has_all_words(page: "Page") -> None:
    shown = page.locator("#language-table tbody tr:not(.group):visible")
    everything = shown.count()
    box = page.get_by_role("searchbox")
    for words, languages in FILTERS.items():
        box.fill(words)
        assert [row.get_attribute("data-value") for row in shown.locator("th").all()] == languages
        groups = page.locator("#language-table tr.group:visible")
        assert (groups.count() > 0) == bool(languages), "a group without languages goes"
        assert page.locator(".filter output").inner_text() == f"{len(languages)} of {everything}"
    box.fill("")
    assert shown.count() == everything


def test_a_link_unfolds_what_it_points_to(page: "Page") -> None:
    assert not page.locator("#curves .chart").first.is_visible()
    page.locator("nav a", has_text="Learning curves").click()
    page.locator("#curves .chart").first.wait_for(state="visible")
    page.locator("#answer a.method").first.click()
    page.locator("#methods dt").first.wait_for(state="visible")


def test_recipe_and_command_are_copied(page: "Page") -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(UNFOLD)
    for source in ("recipe", "command"):
        button = page.locator(f"[data-copies={source}]")
        button.click()
        page.wait_for_function("button => button.textContent === 'Copied'", arg=button.element_handle())
        assert page.evaluate("navigator.clipboard.readText()") == page.locator(f"#{source}").text_content()


def test_without_scripts_the_page_is_read_and_unfolded(browser: "Browser", report: Path) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator("#language-table tr.group").count() == 5
    assert not page.get_by_role("searchbox").is_visible()
    page.locator("#runs summary").click()
    assert page.locator("#recipe").is_visible()
    assert not page.locator(".copy").first.is_visible()
    context.close()


def first_column(page: "Page") -> list[str]:
    rows = page.locator("#language-table tbody tr:not(.group) th")
    return [str(row.get_attribute("data-value")) for row in rows.all()]


def test_columns_sort_by_mouse_and_by_keyboard(page: "Page") -> None:
    given = first_column(page)
    button = page.locator("#language-table th button", has_text="language")
    button.click()
    assert first_column(page) == sorted(given)
    assert button.locator("..").get_attribute("aria-sort") == "ascending"
    button.press("Enter")
    assert first_column(page) == sorted(given, reverse=True)
    button.press("Enter")
    assert first_column(page) == given
    assert page.locator("#language-table tr.group").first.is_visible()
    score = page.locator("#language-table th button", has_text="Joint training").first
    score.click()
    values = [
        float(text) for text in page.locator("#language-table tbody tr:not(.group) td:nth-child(3)").all_inner_texts()
    ]
    assert values == sorted(values, reverse=True)
    assert page.locator("#language-table th[aria-sort]").count() == 1
    assert not page.locator("#language-table tr.group").first.is_visible()


def test_the_cost_axis_switches(page: "Page") -> None:
    page.evaluate(UNFOLD)
    gradients, seconds = page.locator(".by-gradients").first, page.locator(".by-seconds").first
    assert (gradients.is_visible(), seconds.is_visible()) == (True, False)
    page.get_by_label("seconds", exact=True).check()
    assert (gradients.is_visible(), seconds.is_visible()) == (False, True)
    assert "seconds" in seconds.inner_text()


def test_pointing_tells_the_value(page: "Page") -> None:
    page.evaluate(UNFOLD)
    page.locator("#curves .mark").first.hover()
    assert page.locator("#tip").inner_text() == "Joint training: 12.5 at 24 gradients, 30 s"
    cell = page.locator(".heat td[style]").nth(1)
    cell.hover()
    assert page.locator("#tip").inner_text() == f"hi and de: {cell.inner_text()}"
    page.locator("h1").hover()
    assert not page.locator("#tip").is_visible()


def test_arrow_keys_step_through_points_and_cells(page: "Page") -> None:
    page.evaluate(UNFOLD)
    tip = page.locator("#tip")
    page.locator("#curves .chart").first.focus()
    for expected in ("Joint training: 12.5", "Joint training: 25.0", "Joint training: 37.5"):
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
    assert page.locator("#language-table tbody th", has_text=HOSTILE).count() == 1
    assert page.locator('#language-table [data-language="ar"]').inner_text() == "Arabic"


def test_right_to_left_text_runs_from_the_right(page: "Page") -> None:
    page.evaluate(UNFOLD)
    text = page.locator('.said[lang="ar"]').first
    assert text.evaluate("element => getComputedStyle(element).direction") == "rtl"


def test_everything_is_printed(page: "Page") -> None:
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".by-gradients").first.is_visible()
    assert page.locator(".by-seconds").first.is_visible()
    assert not page.locator("nav").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not page.locator("#curves .chart").first.is_visible()


@pytest.mark.parametrize("role", ["button", "radio", "img", "region"])
def test_every_control_and_picture_has_a_name(page: "Page", role: str) -> None:
    page.evaluate(UNFOLD)
    found = page.get_by_role(role).count()  # type: ignore[arg-type]
    assert found > 0
    assert page.get_by_role(role, name=re.compile(r"\w")).count() == found  # type: ignore[arg-type]
