"""What the page is made of: groups of languages, full names, digits, the plane without its outliers, what is folded."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import report_folders
from multitune.plans import METHODS
from multitune.probes import typology
from multitune.reports import by_language, outcomes, page
from multitune.reports.charts import HEIGHT, LEFT, RIGHT, TOP, WIDTH, plot_chart
from multitune.reports.digits import alike, stepped
from multitune.reports.evidence import Evidence, load
from multitune.reports.method_names import NAMES, anchor, entries, full, linked
from multitune.results.run import Sides
from report_folders import HOSTILE, Contents, evidence

DOCS = Path(__file__).parents[2] / "docs" / "methods"
MANY = Contents(methods=("mtl", "mixed", "gradvac", "sequential_reptile", "reptile"))


def moved(found: Evidence, averages: dict[str, tuple[float, float]]) -> Evidence:
    """The same runs with other averages, seen and unseen."""
    runs = []
    for run in found.runs:
        seen, unseen = averages[run.method]
        runs.append(replace(run, result=replace(run.result, average=Sides(seen=seen, unseen=unseen))))
    return replace(found, runs=tuple(runs), shown=tuple(runs))


def test_every_method_has_the_name_of_its_page() -> None:
    assert NAMES.keys() == METHODS.keys()
    for method, name in NAMES.items():
        assert (DOCS / f"{method}.md").read_text(encoding="utf-8").splitlines()[0] == f"# {name}: `{method}`"
    assert [full(method) for method in ("torchjd:UPGrad", "of_a_plugin")] == ["UPGrad (TorchJD)", "of_a_plugin"]


def test_every_method_has_an_entry_that_its_name_links_to(tmp_path: Path) -> None:
    methods = ("mtl", "torchjd:UPGrad")
    text = page.render(evidence(tmp_path, Contents(methods=methods)))
    for entry in entries(methods):
        assert f'<dt id="{anchor(entry.method)}">' in text
        assert f'href="#{anchor(entry.method)}">{entry.name}</a>' in text
        assert (DOCS.parents[1] / entry.page).is_file()
        assert linked(entry.paper) in text


@pytest.mark.parametrize(
    ("paper", "html"),
    [
        (
            "arXiv 2110.02600, Algorithm 1",
            'arXiv <a href="https://arxiv.org/abs/2110.02600" rel="noreferrer">2110.02600</a>, Algorithm 1',
        ),
        ("<b>a plugin's</b> 12345.67890", "&lt;b&gt;a plugin&#39;s&lt;/b&gt; 12345.67890"),
    ],
)
def test_papers_on_arxiv_are_links_and_all_else_is_text(paper: str, html: str) -> None:
    assert linked(paper) == html


def test_languages_are_grouped_by_family_and_script(tmp_path: Path) -> None:
    contents = Contents(seen=("de", "ru", HOSTILE, "nl"), unseen=("ar", "sr-Latn", "tr"))
    found = evidence(tmp_path, contents)
    groups = by_language.groups(found, "sequential_reptile")
    assert [(group.title, [line.language for line in group.lines]) for group in groups] == [
        ("Afro-Asiatic, Arabic", ["ar"]),
        ("Indo-European, Cyrillic", ["ru"]),
        ("Indo-European, Latin", ["de", "nl", "sr-Latn"]),
        ("Turkic, Latin", ["tr"]),
        ("Others", [HOSTILE]),
    ]
    assert groups[2].means == {"mtl": pytest.approx((50 + 50 + 30) / 3), "sequential_reptile": pytest.approx(160 / 3)}
    assert groups[2].gain == pytest.approx(10)
    text = page.render(found)
    assert text.count('<tr class="group">') == 5
    assert HOSTILE not in text


def test_texts_and_names_say_their_language_as_browsers_know_it(tmp_path: Path) -> None:
    text = page.render(evidence(tmp_path, Contents(seen=("arb_Arab", "xquad:de"))))
    assert '<span class="name" data-language="arb-Arab"></span>' in text
    assert {'lang="arb-Arab">', 'lang="de">'} <= set(re.findall(r'lang="[^"]*">', text))


def test_without_scripts_everything_is_there_and_no_control_is_dead(tmp_path: Path) -> None:
    """Filter and copy buttons appear with the script; what is folded is in <details>, which needs none."""
    text = page.render(evidence(tmp_path, Contents(clusters=2)))
    assert re.search(r'<p class="filter" hidden>', text)
    assert len(re.findall(r"<button [^>]*class=\"copy\"[^>]* hidden>", text)) == 2
    assert not re.search(r"<(tr|tbody|section|details|td)[^>]* hidden", text)
    folded = re.findall(r'<section id="([a-z]+)"[^>]*>\n<details class="part"><summary>', text)
    assert folded == ["relatives", "curves", "causes", "tasks", "examples", "methods", "runs"]


OUTLIERS: dict[str, tuple[dict[str, tuple[float, float]], list[str]]] = {
    "one far to the left and below": (
        {"mtl": (85, 52), "mixed": (86, 53), "gradvac": (93, 57), "sequential_reptile": (94, 59), "reptile": (40, 3)},
        ["Reptile: 40.0, 3.0"],
    ),
    "none": (
        {"mtl": (85, 52), "mixed": (86, 53), "gradvac": (93, 57), "sequential_reptile": (94, 59), "reptile": (84, 50)},
        [],
    ),
    "far, but the others are as wide": (
        {"mtl": (50, 20), "mixed": (60, 30), "gradvac": (70, 40), "sequential_reptile": (80, 50), "reptile": (40, 10)},
        [],
    ),
    "all but one alike": ({method: (50.0 + (method == "mtl"), 20) for method in MANY.methods}, []),
}


@pytest.mark.parametrize(("averages", "outside"), OUTLIERS.values(), ids=OUTLIERS)
def test_an_outlier_stands_at_the_edge_of_the_plane(
    tmp_path: Path, averages: dict[str, tuple[float, float]], outside: list[str]
) -> None:
    (plot,) = outcomes.plane(moved(evidence(tmp_path, MANY), averages))
    chart = plot_chart(plot)
    marks = {line.marks[0].said.partition(":")[0]: line.marks[0] for line in chart.lines}
    beyond = {name: mark for name, mark in marks.items() if mark.beyond is not None}
    assert list(beyond) == [name.partition(":")[0] for name in outside]
    assert {name.text for name in chart.names} >= set(outside)
    assert all(LEFT <= mark.x <= WIDTH - RIGHT and TOP <= mark.y <= HEIGHT for mark in marks.values())
    for mark in beyond.values():
        assert 90 < (mark.beyond or 0) <= 180, "down and to the left"
        spread = [other.x for other in marks.values() if other.beyond is None]
        assert max(spread) - min(spread) > (WIDTH - LEFT) / 2


def test_a_figure_has_the_outlier_at_its_edge_too(tmp_path: Path) -> None:
    figures = pytest.importorskip("multitune.reports.figures")
    averages, (outside,) = OUTLIERS["one far to the left and below"]
    (plot,) = outcomes.plane(moved(evidence(tmp_path, MANY), averages))
    axes = figures.draw(plot).axes[0]
    assert axes.get_xlim()[0] > 80
    assert axes.get_ylim()[0] > 45
    assert f"{outside} (outside)" in [text.get_text() for text in axes.texts]


def test_names_in_a_picture_stay_inside_and_apart(tmp_path: Path) -> None:
    (plot,) = outcomes.plane(moved(evidence(tmp_path, MANY), dict.fromkeys(MANY.methods, (50.0, 20.0))))
    names = plot_chart(plot).names
    assert len(names) == 1, "all at one point: one name is written"
    assert all(0 <= end <= WIDTH for name in names for end in name.extent)


DIGITS: dict[str, tuple[Any, list[float], list[str]]] = {
    "of scores": (alike, [93.75, 5.0, 100 / 3], ["93.8", "5.0", "33.3"]),
    "of cosines": (alike, [0.5, -0.031], ["0.500", "−0.031"]),
    "whole": (alike, [250.0, 1000.0], ["250", "1000"]),
    "of an axis": (stepped, [-0.5, 0.0, 0.5], ["−0.5", "0.0", "0.5"]),
    "of a whole axis": (stepped, [0.0, 20.0], ["0", "20"]),
}


@pytest.mark.parametrize(("how", "values", "texts"), DIGITS.values(), ids=DIGITS)
def test_digits_of_a_column_are_alike(how: Any, values: list[float], texts: list[str]) -> None:
    assert how(values) == texts


def test_the_nearest_seen_languages_in_tree_and_typology(tmp_path: Path) -> None:
    found = evidence(tmp_path, Contents(seen=("de", "ru", HOSTILE), unseen=("nl", "hu", "xx")))
    near = {each.line.language: each for each in by_language.nearest(found, "mtl")}
    assert near["nl"].in_tree is not None
    assert (near["nl"].in_tree.language, near["nl"].in_tree.genealogical) == ("de", 0.25)
    assert HOSTILE not in near
    assert "xx" not in near
    if typology.source() is None:
        assert near["nl"].in_typology is None
        assert "hu" not in near, "no relative is seen"
    else:
        assert near["hu"].in_tree is None
        assert near["hu"].in_typology is not None
        assert near["hu"].in_typology.language in ("de", "ru")
        assert "CC BY-SA 4.0" in page.render(found)


def test_a_page_needs_no_typological_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typology, "PACKAGE", "a-package-that-nobody-has")
    typology._rows.cache_clear()
    typology._features.cache_clear()
    text = page.render(evidence(tmp_path, Contents()))
    assert "multitune[typology]" in text
    assert "nearest in typology" not in text
    typology._rows.cache_clear()
    typology._features.cache_clear()


def test_a_comparison_without_a_finite_score_has_a_page(tmp_path: Path) -> None:
    """As of a task of a plugin that cannot score one of the languages."""
    found = evidence(tmp_path, Contents(grid=({"learning_rate": 1e-4}, {"learning_rate": 2e-4})))
    assert found.comparison is not None
    nothing: Any = Sides(None, None)
    runs = [replace(run, result=replace(run.result, average=nothing)) for run in found.runs]
    summary = dict.fromkeys(found.methods, nothing)
    compared = replace(found.comparison, summary=summary, differences={}, pairwise={k: {} for k in summary})
    given = replace(found, runs=tuple(runs), shown=tuple(runs[:2]), comparison=compared)
    assert "No method has a score with an interval." in page.render(given)


def test_a_single_run_has_a_page(tmp_path: Path) -> None:
    folder = report_folders.comparison(tmp_path / "comparison", Contents())
    text = page.render(load(folder / "mtl-0-seed0"))
    assert "<h1>Joint training on panx" in text
    assert "Ship" not in text
