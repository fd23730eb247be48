"""The report: what it reads, what it concludes, what its page and its figures hold."""

import base64
import hashlib
import json
import re
import shlex
import string
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

import multitune as mt
import report_folders
from builders import comparison_file as file
from multitune.cli.app import app
from multitune.errors import UserError
from multitune.plans import METHODS
from multitune.recipe_files import RecipeFile, parse
from multitune.reports import by_language, causes, outcomes, page, repeat, training_curves
from multitune.reports.charts import BOTTOM, HEIGHT, LEFT, TOP, WIDTH, nice_ticks, plot_chart, rows_chart
from multitune.reports.colours import look
from multitune.reports.evidence import load
from multitune.reports.examples import Agreement, examples
from multitune.reports.method_names import ARXIV
from multitune.reports.pictures import HeatMap, Plot, described, pareto_front
from multitune.results.metrics import Train
from multitune.results.probes import BeforeAfter, Findings
from report_folders import HOSTILE, Contents, evidence

PLAIN = Contents()
GRID = Contents(
    grid=({"learning_rate": 1e-4, "options.inner_steps": 10}, {"learning_rate": 3e-4, "options.inner_steps": 10})
)
WIDE = Contents(
    methods=[*METHODS][:10],
    seen=[f"{a}{b}" for a in "abcdefghij" for b in "abcdefghij"],
    unseen=[f"x{letter}" for letter in string.ascii_lowercase],
    examples=4,
)
CONTENTS = {
    "two methods": PLAIN,
    "seeds": Contents(seeds=3),
    "nothing unseen, no probes": Contents(unseen=(), probed=False),
    "a grid": GRID,
    "pseudo-tasks": Contents(clusters=4),
    "one of TorchJD's": Contents(methods=("torchjd:UPGrad", "stl")),
}


class Page(HTMLParser):
    """The elements of a page: open ones must be closed in order."""

    VOID = ("br", "input", "link", "meta")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.mark.parametrize("contents", CONTENTS.values(), ids=CONTENTS)
def test_a_page_is_whole_alone_and_inert(tmp_path: Path, contents: Contents) -> None:
    text = page.render(evidence(tmp_path, contents))
    found = Page(text)
    assert len(found.of("script")) == 1, "a language called <script> stays text"
    assert HOSTILE not in text
    links = [v for _, attributes in found.elements for k, v in attributes.items() if k in ("src", "href")]
    assert all(str(link).startswith(("#", "data:", ARXIV)) for link in links)
    assert not any(str(attributes.get("src")).startswith(ARXIV) for _, attributes in found.elements)
    assert not re.search(r"url\(|@import|https?://", text.replace(f'<a href="{ARXIV}', ""))
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {str(link)[1:] for link in links if str(link).startswith("#")} <= set(ids)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_every_picture_is_described_for_those_who_cannot_see_it(tmp_path: Path) -> None:
    found = Page(page.render(evidence(tmp_path, PLAIN)))
    charts = [attributes for attributes in found.of("svg") if attributes.get("role") == "img"]
    assert len(charts) >= 10
    assert all(re.search(r"\d", str(attributes["aria-label"])) for attributes in charts)
    assert all("scope" in attributes for attributes in found.of("th"))


@pytest.mark.check
def test_a_hundred_languages_and_ten_methods_stay_under_three_megabytes(tmp_path: Path) -> None:
    path = page.write(report_folders.comparison(tmp_path / "wide", WIDE))
    assert path.stat().st_size < 3_000_000


@pytest.mark.parametrize("what", ["run", "comparison"])
def test_training_and_comparing_leave_a_report(tmp_path: Path, tiny_model: Path, tiny_panx: Path, what: str) -> None:
    given = file(tiny_model, tiny_panx)
    if what == "run":
        mt.train(given, tmp_path, overrides={"budget": 8})
    else:
        mt.compare(given, tmp_path, overrides={"budget": 8})
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert Page(text).of("svg")
    result = json.loads((tmp_path / "results.json").read_text())
    for run in result.get("runs", [result]):
        assert run["method"] in text
        assert f"{run['average']['seen']:.1f}" in text


MISTAKES: dict[str, tuple[str, str | None, str]] = {
    "nothing there": ("results.json", None, "holds no finished run or comparison"),
    "not JSON": ("results.json", "{", r"results.json: not valid JSON"),
    "not an object": ("mtl-0-seed0/metrics.jsonl", "[1]\n", r"metrics.jsonl:1: an object of JSON belongs here"),
    "not an event": ("mtl-0-seed0/metrics.jsonl", '{"event": "trian"}', r"metrics.jsonl:1: unknown event 'trian'"),
    "of another schema": (
        "mtl-0-seed0/clusters.json",
        '{"schema": 2}',
        r"clusters.json: has schema 2; .* reads schema 1",
    ),
    "a key missing": (
        "mtl-0-seed0/probes.json",
        "{}",
        r"probes.json: is damaged .*: Object missing required field run",
    ),
    "a run missing": ("mtl-0-seed0/recipe.yaml", None, "mtl-0-seed0: holds no finished run"),
    "no predictions": ("mtl-0-seed0/predictions.jsonl", None, "predictions.jsonl: cannot be read: No such file"),
}


@pytest.mark.parametrize(("name", "text", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_damaged_folder_is_named(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    folder = report_folders.comparison(tmp_path / "comparison", PLAIN)
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text)
    with pytest.raises(UserError, match=said):
        page.write(folder)


def test_the_command_writes_page_and_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = report_folders.comparison(tmp_path / "comparison", Contents(unseen=(), probed=False))
    for log in folder.glob("*/metrics.jsonl"):
        log.write_text("")
    done = CliRunner().invoke(app, ["report", str(folder), "--figures"])
    assert done.exit_code == 0, done.output
    assert {path.name for path in (folder / "figures").iterdir()} == {"averages.pdf", "averages.svg", "averages.png"}
    assert (folder / "report.html").exists()


def test_figures_show_what_the_page_shows(tmp_path: Path) -> None:
    figures = pytest.importorskip("multitune.reports.figures")
    for picture in figures.pictures(evidence(tmp_path, PLAIN)):
        axes = figures.draw(picture).axes[0]
        assert axes.get_title() == picture.title
        if isinstance(picture, Plot):
            lines = [line for line in axes.lines if line.get_linestyle() != "--"]  # all but the front
            drawn = [list(zip(*line.get_data(), strict=True)) for line in lines]
            assert drawn == [[(point.x, point.y) for point in series.points] for series in picture.series]
            assert [line.get_color() for line in lines] == [look(series.method).light for series in picture.series]
        elif isinstance(picture, HeatMap):
            image = axes.images[0].get_array()
            assert all(image[2][column] == picture.values[2][column] for column in range(2))
            assert image.mask[0].all(), "only the lower triangle"


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([(1, 1)], [(1, 1)]),
        ([(1, 3), (2, 2), (3, 1)], [(1, 3), (2, 2), (3, 1)]),
        ([(1, 3), (2, 2), (2, 4)], [(2, 4)]),
        ([(1, 1), (1, 2), (2, 1), (2, 1)], [(1, 2), (2, 1)]),
        ([(0, 0), (3, 0), (3, 5), (1, 5)], [(3, 5)]),
    ],
)
def test_pareto_fronts(points: list[tuple[float, float]], front: list[tuple[float, float]]) -> None:
    assert pareto_front(points) == front


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (19.2, 33.8, [20, 25, 30]),
        (-0.31, 0.62, [-0.2, 0, 0.2, 0.4, 0.6]),
        (95, 1005, [200, 400, 600, 800, 1000]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)


def test_the_plane_has_every_run_and_its_front(tmp_path: Path) -> None:
    (plane,) = outcomes.plane(evidence(tmp_path, Contents(seeds=3)))
    assert [len(series.points) for series in plane.series] == [3, 3]
    assert plane.front == ((64.0, 44.0),)
    assert outcomes.plane(evidence(tmp_path / "none", Contents(unseen=()))) == []


def test_a_sweep_joins_the_runs_of_a_method_in_the_order_of_its_values(tmp_path: Path) -> None:
    found = outcomes.sweeps(evidence(tmp_path, GRID))
    assert [plot.name for plot in found[:2]] == ["sweep-learning_rate-seen", "sweep-learning_rate-unseen"]
    assert found[0].x_ticks == ("0.0001", "0.0003")
    assert [(series.method, [point.x for point in series.points]) for series in found[0].series] == [
        ("mtl", [0, 1]),
        ("sequential_reptile", [0, 1]),
    ]


def test_curves_are_the_logs_lines(tmp_path: Path) -> None:
    found = training_curves.curves(evidence(tmp_path, PLAIN))
    assert list(found) == ["dev", "loss", "drift", "cosine"]
    points = found["dev"]["seconds"].series[0].points
    assert [(point.x, point.y) for point in points] == [(30, 12.5), (60, 25), (90, 37.5), (120, 50)]


def test_long_logs_are_averaged(tmp_path: Path) -> None:
    folder = report_folders.comparison(tmp_path / "comparison", PLAIN)
    events = [Train(gradients=n, seconds=float(n), loss=float(n), learning_rate=0.1) for n in range(1, 1001)]
    report_folders.write_events(folder / "mtl-0-seed0", events)
    points = training_curves.curves(load(folder))["loss"]["gradients"].series[0].points
    assert len(points) == 25
    assert (points[0].x, points[0].y) == (40, 20.5)
    assert (points[-1].x, points[-1].y) == (1000, 980.5)


def test_probes_become_pictures(tmp_path: Path) -> None:
    found = evidence(tmp_path, PLAIN)
    assert [heat.name for heat in causes.heat_maps(found)] == ["cosines-mtl", "cosines-sequential_reptile"]
    assert [(plot.name, plot.x_ticks) for plot in causes.by_layer(found)] == [
        (name, ("embeddings", "layer 0")) for name in ("cosine-layers", "drift-layers")
    ]
    (retrieval,) = causes.retention(found)
    rows = [(row.label, row.value) for row in retrieval.groups[0][1]]
    assert rows == [("pretrained", 80.0), ("Joint training", 70.0), ("Sequential Reptile", 70.0)]
    assert causes.notes(found) == ["masked_lm: the model ships no head"]
    assert [point.y for point in causes.proximity(found)[0].series[0].points] == [0.3] * 3


def test_a_side_without_a_language_to_measure_on_is_left_out(tmp_path: Path) -> None:
    """English alone was trained on: there is no translation from English into it."""
    folder = report_folders.comparison(tmp_path / "comparison", PLAIN)
    for path in folder.glob("*/probes.json"):
        probes = Findings.read(path.parent)
        assert probes.retrieval is not None
        average = replace(probes.retrieval.average, seen=BeforeAfter(pretrained=None, tuned=None))
        replace(probes, retrieval=replace(probes.retrieval, average=average)).write(path.parent)
    (retrieval,) = causes.retention(load(folder))
    assert [title for title, _ in retrieval.groups] == ["unseen languages"]
    assert Page(page.render(load(folder))).of("svg")


def test_pseudo_tasks_are_shown_once_for_all_runs_that_share_them(tmp_path: Path) -> None:
    folder = report_folders.comparison(tmp_path / "comparison", Contents(clusters=4, seeds=2))
    text = page.render(load(folder))
    assert [text.count(f"<h3>cluster-{number}: 25.0 % ") for number in (1, 2, 3, 4)] == [1] * 4
    assert "Do the pseudo-tasks' gradients" in text
    report_folders.division(3).write(folder / "mtl-0-seed0")
    assert page.render(load(folder)).count("<h3>cluster-1: ") == 2


def test_probes_of_training_stand_in_where_the_finished_model_was_not_probed(tmp_path: Path) -> None:
    folder = report_folders.comparison(tmp_path / "comparison", PLAIN)
    for probes in folder.glob("*/probes.json"):
        probes.unlink()
    found = load(folder)
    assert len(causes.heat_maps(found)) == 2
    assert [series.points[0].y for series in causes.by_layer(found)[0].series] == [0.4, 0.4]
    assert causes.by_layer(found)[1].x_ticks == ("layer 0",)


def test_charts_keep_their_marks_in_the_frame_and_in_order(tmp_path: Path) -> None:
    found = evidence(tmp_path, PLAIN)
    for plot in [*outcomes.plane(found), *causes.by_layer(found), training_curves.curves(found)["dev"]["gradients"]]:
        chart = plot_chart(plot)
        for line, series in zip(chart.lines, plot.series, strict=True):
            assert all(LEFT <= mark.x <= WIDTH and TOP <= mark.y <= HEIGHT - BOTTOM for mark in line.marks)
            for mark, point in zip(line.marks, series.points, strict=True):
                assert [mark.x > other.x for other in line.marks] == [point.x > other.x for other in series.points]
                assert [mark.y < other.y for other in line.marks] == [point.y > other.y for other in series.points]
        assert all(LEFT <= tick.at <= WIDTH for tick in chart.x_ticks)
    bars = rows_chart(outcomes.averages(found)[0]).bars
    assert all(bar.low is not None and bar.high is not None and bar.low < bar.value.x < bar.high for bar in bars)


def test_a_description_has_the_numbers(tmp_path: Path) -> None:
    found = evidence(tmp_path, PLAIN)
    assert "Joint training 50, Sequential Reptile 60" in described(outcomes.averages(found)[0])
    assert "Joint training 12.5 at 24 to 50 at 96" in described(training_curves.curves(found)["dev"]["gradients"])


def test_language_lines_are_means_over_seeds(tmp_path: Path) -> None:
    found = evidence(tmp_path, Contents(seeds=3))
    lines = by_language.language_lines(found, "sequential_reptile")
    assert [(line.language, line.side) for line in lines][2:4] == [(HOSTILE, "seen"), ("fr", "unseen")]
    assert lines[0].scores == {"mtl": 52.0, "sequential_reptile": 62.0}
    assert {line.gain for line in lines} == {10.0}


def test_examples_are_those_on_which_methods_disagree(tmp_path: Path) -> None:
    found = evidence(tmp_path, Contents(methods=("mtl", "fish", "stl")))
    chosen, agreements = examples(found.runs[::-1])
    assert {example.language for example in chosen} == {"de", "ar", HOSTILE, "fr", "ja"}
    assert {example.pattern for example in chosen} == {(True, True, False), (True, False, False)}
    # stl has all three of a language right, fish two, mtl one
    assert agreements == [Agreement("stl", "fish", 10, 5, 0, 0), Agreement("stl", "mtl", 5, 10, 0, 0)]


def test_examples_of_a_single_run_are_its_mistakes(tmp_path: Path) -> None:
    chosen, agreements = examples(evidence(tmp_path, PLAIN).runs[:1])
    assert [example.answers[0].right for example in chosen] == [False] * 10
    assert agreements == []


@pytest.mark.parametrize("contents", CONTENTS.values(), ids=CONTENTS)
def test_the_recipe_repeats_every_run(tmp_path: Path, contents: Contents) -> None:
    found = evidence(tmp_path, contents)
    keys = parse(repeat.recipe(found), "recipe.yaml")
    given = RecipeFile(run=keys, methods=keys.pop("methods"), source="recipe.yaml")
    for run in found.runs:
        again = given.resolve(run.method, {"seed": run.result.seed} | report_folders.overrides(run.grid))
        assert again == run.recipe


def test_a_page_that_cannot_be_written_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="needs limits of file sizes, which POSIX has")
    folder = report_folders.comparison(tmp_path / "comparison", Contents())
    before, (soft, hard) = sorted(folder.iterdir()), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            page.write(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(folder.iterdir()) == before


def test_the_page_says_why_records_were_left_out(tmp_path: Path) -> None:
    text = page.render(evidence(tmp_path, Contents()))
    assert "1 record was left out, because the recipe ignores all of their labels." in text


def test_the_command_is_quoted_for_a_shell(tmp_path: Path) -> None:
    found = evidence(tmp_path, Contents(grid=({"model": "my models/a"}, {"model": "my models/b"})))
    expected = ["multitune", "compare", "recipe.yaml", "--grid", "model=my models/a,my models/b"]
    assert shlex.split(repeat.command(found)) == expected


def test_the_command_repeats_seeds_and_grid(tmp_path: Path) -> None:
    assert repeat.command(evidence(tmp_path / "seeds", Contents(seeds=3))) == "multitune compare recipe.yaml --seeds 3"
    grid = "--grid learning_rate=0.0001,0.0003 --grid options.inner_steps=10"
    assert repeat.command(evidence(tmp_path / "grid", GRID)) == f"multitune compare recipe.yaml {grid}"
