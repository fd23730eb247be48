"""Comparisons: intervals against closed forms, runs kept and resumed, the results' contract."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multitune as mt
from builders import comparison_file as file
from multitune.errors import UserError
from multitune.evaluation import intervals
from multitune.evaluation.scoring import Sample, read_samples
from multitune.recipe_files import RecipeFile
from multitune.results import predictions
from multitune.results.comparison import Comparison
from multitune.results.predictions import Prediction, prediction_line
from multitune.storage import lock
from multitune.tasks import Classification, HeadMap, Task
from multitune.tasks.image_classification import ImageClassification
from multitune.tasks.question_answering import QuestionAnswering
from multitune.tasks.tagging import Tagging

METHODS = ("mtl", "sequential_reptile")
HEADS = HeadMap.of_all(Classification(("no", "yes")))


def outcomes(right: int, wrong: int, each: int = 1) -> Sample:
    """A test set with so many right and wrong answers, so many in each cluster."""
    rows = np.array([[1.0, 1.0]] * right + [[0.0, 1.0]] * wrong)
    return Sample(rows, np.arange(len(rows)) // each)


def test_bootstrap_interval_of_an_accuracy_is_the_binomial_one() -> None:
    draws = intervals.bootstrap({"de": outcomes(320, 80)}, HEADS)
    found = intervals.from_draws(80.0, draws)
    half = 100 * 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert found.low == pytest.approx(80 - half, abs=0.6)
    assert found.high == pytest.approx(80 + half, abs=0.6)


def test_examples_that_depend_on_each_other_are_drawn_together() -> None:
    """400 answers of which always four are alike say as much as 100; of one cluster, as much as they do alone."""
    together, fewer = (
        intervals.bootstrap({"de": sample}, HEADS) for sample in (outcomes(320, 80, 4), outcomes(80, 20))
    )
    assert np.array_equal(together, fewer)
    one = Sample(outcomes(320, 80).statistics, np.zeros(400, dtype=np.int64))
    assert np.array_equal(
        intervals.bootstrap({"de": one}, HEADS), intervals.bootstrap({"de": outcomes(320, 80)}, HEADS)
    )


ORIGINS: dict[str, tuple[Task, list[dict[str, Any]]]] = {
    # kind, records of which the first and the third are of one origin
    "premises": (Classification(("x",)), [{"text": text, "text_pair": pair} for text, pair in ("ac", "bc", "ad")]),
    "templates": (Classification(("x",)), [{"text": text, "template": made} for text, made in ("au", "bv", "cu")]),
    "passages": (QuestionAnswering(()), [{"context": text, "question": asked} for text, asked in ("ac", "bc", "ad")]),
    "words": (Tagging(("O",)), [{"tokens": [word]} for word in "aba"]),
}


@pytest.mark.parametrize(("task", "records"), ORIGINS.values(), ids=ORIGINS)
def test_what_examples_have_in_common(tmp_path: Path, task: Task, records: list[dict[str, Any]]) -> None:
    lines = (prediction_line(Prediction("de", record, "x", [1.0, 1.0])) for record in records)
    (tmp_path / predictions.FILE).write_text("".join(lines))
    assert read_samples(tmp_path, HeadMap.of_all(task))["de"].clusters.tolist() == [0, 1, 0]


def test_images_are_each_their_own(tmp_path: Path) -> None:
    row = prediction_line(Prediction("birds", {"label": "x"}, "x", [1.0, 1.0]))
    (tmp_path / predictions.FILE).write_text(row * 3)
    heads = HeadMap.of_all(ImageClassification(("x",)))
    assert read_samples(tmp_path, heads)["birds"].clusters.tolist() == [0, 1, 2]


def test_resamples_are_paired_by_language() -> None:
    one, other = outcomes(300, 100), outcomes(310, 90)
    first, second = (intervals.bootstrap({"de": rows}, HEADS) for rows in (one, other))
    assert np.array_equal(first, intervals.bootstrap({"de": one}, HEADS))
    difference = intervals.from_draws(2.5, second - first)
    alone = intervals.from_draws(75.0, first)
    assert difference.high - difference.low < 0.5 * (alone.high - alone.low)
    swapped = intervals.bootstrap({"fr": one}, HEADS)
    assert not np.array_equal(first, swapped)


def test_languages_count_alike_whatever_their_size() -> None:
    draws = intervals.bootstrap({"de": outcomes(1000, 0), "yo": outcomes(0, 10)}, HEADS)
    assert set(draws) == {50.0}


def test_interval_over_seeds_is_students() -> None:
    found = intervals.from_seeds(np.array([1.0, 2.0, 3.0]))
    assert found.mean == 2.0
    assert found.high - 2.0 == pytest.approx(4.302653 / np.sqrt(3))
    assert found.low + found.high == pytest.approx(4.0)


def test_seeds_and_examples_add_up_as_squares() -> None:
    values, draws = np.array([70.0, 72.0, 74.0]), np.linspace(60, 80, 1001)
    seeds, examples = intervals.from_seeds(values), intervals.from_draws(72.0, draws)
    found = intervals.from_both(values, draws)
    assert found.mean == 72.0
    assert (found.high - 72.0) ** 2 == pytest.approx((seeds.high - 72.0) ** 2 + (examples.high - 72.0) ** 2)
    assert (72.0 - found.low) ** 2 == pytest.approx((72.0 - seeds.low) ** 2 + (72.0 - examples.low) ** 2)


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_the_interval_over_both_covers_the_score_on_all_examples_by_all_seeds(seeds: int) -> None:
    """An interval over seeds alone would cover it .64, .43 and .21 of the time."""
    draw = np.random.default_rng(0)
    true, covered, tries = 0.8, 0, 200
    for _ in range(tries):
        own = true + draw.normal(0, 0.01, seeds)
        hard = draw.random(150)  # an example is as hard for every seed
        right = [int((hard < each).sum()) for each in own]
        values = np.array([100 * number / 150 for number in right])
        draws = intervals.bootstraps([{"de": outcomes(number, 150 - number)} for number in right], HEADS)
        found = intervals.from_both(values, draws.mean(0))
        covered += found.low <= 100 * true <= found.high
    assert covered >= 0.93 * tries


def test_runs_with_other_languages_keep_their_draws() -> None:
    runs = [{"de": outcomes(30, 10)}, {"de": outcomes(20, 20), "fi": outcomes(10, 5)}, {"fi": outcomes(7, 8)}]
    together = intervals.bootstraps(runs, HEADS)
    for draws, samples in zip(together, runs, strict=True):
        assert np.array_equal(draws, intervals.bootstrap(samples, HEADS))
    assert intervals.bootstraps([], HEADS).shape == (0, intervals.RESAMPLES)


def test_a_comparison_and_its_contract(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    out = tmp_path / "comparison"
    found = mt.compare(file(tiny_model, tiny_panx), out)
    saved = json.loads((out / "results.json").read_text())
    assert Comparison.read(out) == found
    assert {"runs", "summary", "baseline", "differences"} <= set(saved)
    assert saved["baseline"] == "mtl"
    assert list(saved["summary"]) == ["mtl", "sequential_reptile"]
    assert list(saved["differences"]) == ["sequential_reptile"]
    by_method = {run["method"]: run for run in saved["runs"]}
    for side in ("seen", "unseen"):
        gap = by_method["sequential_reptile"]["average"][side] - by_method["mtl"]["average"][side]
        interval = saved["differences"]["sequential_reptile"][side]
        assert interval["mean"] == pytest.approx(gap)
        assert interval["low"] <= interval["mean"] <= interval["high"]
    ahead, behind = (saved["pairwise"][one][other] for one, other in (METHODS, METHODS[::-1]))
    assert behind == saved["differences"]["sequential_reptile"]
    for side in ("seen", "unseen"):
        assert [-ahead[side][end] for end in ("mean", "low", "high")] == pytest.approx(
            [behind[side][end] for end in ("mean", "high", "low")]
        )
    texts = [(out / name / "recipe.yaml").read_text() for name in ("mtl-seed0", "sequential_reptile-seed0")]
    assert ["learning_rate: 0.005" in text for text in texts] == [True, False], "each method has its own options"

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.parent != out}
    assert mt.compare(file(tiny_model, tiny_panx), out).runs == found.runs
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_several_seeds_and_another_recipe_in_the_folder(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    found = mt.compare(file(tiny_model, tiny_panx), tmp_path, methods=["mtl"], seeds=2, overrides={"budget": 8})
    assert [(run.method, run.seed) for run in found.runs] == [("mtl", 0), ("mtl", 1)]
    assert found.interval == "Student's t over seeds and paired bootstrap over test examples"
    values = np.array([run.average["seen"] for run in found.runs], dtype=np.float64)
    over_seeds, both = intervals.from_seeds(values), found.summary["mtl"].seen
    assert both is not None
    assert both.mean == pytest.approx(over_seeds.mean)
    assert both.low < over_seeds.low
    saved = tmp_path / "mtl-seed0" / "recipe.yaml"
    saved.write_text(saved.read_text().replace("skip_bad: false\n", ""))  # as an earlier version would have left it
    again = mt.compare(file(tiny_model, tiny_panx), tmp_path, methods=["mtl"], seeds=2, overrides={"budget": 8})
    assert again.runs == found.runs
    with pytest.raises(UserError, match=r"holds a run of another recipe \(in budget\)"):
        mt.compare(file(tiny_model, tiny_panx), tmp_path, methods=["mtl"], overrides={"budget": 9})


@pytest.mark.parametrize(
    ("methods", "baseline"),
    [(["mtl", "sequential", "mixed"], "mixed"), (["sequential", "mtl"], "mtl"), (["sequential", "stl"], "sequential")],
)
def test_the_baseline_is_ordinary_fine_tuning_where_it_is_among_the_methods(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, methods: list[str], baseline: str
) -> None:
    found = mt.compare(file(tiny_model, tiny_panx), tmp_path, methods=methods, overrides={"budget": 2, "dev_limit": 1})
    assert found.baseline == baseline


@pytest.mark.parametrize(
    ("methods", "said"), [(["mtl", "sequental"], "unknown method 'sequental'"), ([], "no method is named")]
)
def test_mistakes_come_before_anything_runs(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, methods: list[str], said: str
) -> None:
    given = RecipeFile(run=file(tiny_model, tiny_panx).run, methods={}, source="tiny.yaml")
    with pytest.raises(UserError, match=said):
        mt.compare(given, tmp_path / "out", methods=methods)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("mtl", "mixed", "said"),
    [
        ({"languages": ["aa"]}, {}, "aa seen by one, aa, bb by the other"),
        ({"languages": ["aa"], "unseen": ["bb"]}, {"languages": ["aa"]}, "bb unseen by one, cc by the other"),
    ],
)
def test_averages_over_other_languages_are_refused_before_anything_runs(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, mtl: dict[str, Any], mixed: dict[str, Any], said: str
) -> None:
    """Languages that methods have of their own."""
    given = RecipeFile(run=file(tiny_model, tiny_panx).run, methods={"mtl": mtl, "mixed": mixed}, source="tiny.yaml")
    with pytest.raises(UserError, match=f"mtl-seed0 and mixed-seed0 have other languages, .*: {said}"):
        mt.compare(given, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_side_that_a_method_has_no_scores_on_is_not_compared(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path
) -> None:
    quick = {"budget": 4, "dev_limit": 1, "test_limit": 4}
    given = RecipeFile(run=file(tiny_model, tiny_panx).run, methods={"mixed": {}, "stl": {}}, source="tiny.yaml")
    found = mt.compare(given, tmp_path, overrides=quick)
    again = mt.compare_finished([tmp_path / run.folder for run in found.runs])
    for comparison in (found, again):
        assert comparison.differences["stl"].seen is not None
        assert comparison.differences["stl"].unseen is None
    assert (again.summary, again.differences) == (found.summary, found.differences)


def test_the_folder_of_a_run_is_none_of_a_comparison_or_a_sweep(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path
) -> None:
    given, out = file(tiny_model, tiny_panx), tmp_path / "run"
    mt.train(given.resolve("mtl", {"budget": 2, "dev_limit": 1, "save_model": False}), out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for several in (mt.compare, mt.sweep):
        more: dict[str, Any] = {} if several is mt.compare else {"grid": {"learning_rate": [1e-3, 1e-2]}}
        with pytest.raises(UserError, match=f"--out: {out} is the folder of a run"):
            several(given, out, **more)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_recipe_of_ones_own_may_lie_in_the_folder(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    quick = {"budget": 2, "dev_limit": 1, "save_model": False}
    (tmp_path / "recipe.yaml").write_text("a note")
    for _ in range(2):
        mt.compare(file(tiny_model, tiny_panx), tmp_path, methods=["mtl"], overrides=quick)
    assert (tmp_path / "recipe.yaml").read_text() == "a note"


def test_a_run_that_is_half_removed_or_in_use_ends_a_comparison_before_it_trains(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path
) -> None:
    given, quick = file(tiny_model, tiny_panx), {"budget": 2, "dev_limit": 1, "save_model": False}
    mt.compare(given, tmp_path, methods=["mtl"], overrides=quick)
    run = tmp_path / "mtl-seed0"
    with lock.held(run), pytest.raises(UserError, match=f"{run} is in use by process"):
        mt.compare(given, tmp_path, overrides=quick)
    for name in ("recipe.yaml", predictions.FILE):
        (run / name).rename(tmp_path / "kept")
        with pytest.raises(UserError, match=f"{run} lacks its {name}; remove this folder"):
            mt.compare(given, tmp_path, overrides=quick)
        (tmp_path / "kept").rename(run / name)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["mtl-seed0"]


@pytest.mark.skipif(os.fsencode("\udcff") != b"\xff", reason="needs names of files that are bytes")
def test_a_folder_whose_name_is_not_utf_8_is_refused_before_anything_runs(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path
) -> None:
    given, out = file(tiny_model, tiny_panx), tmp_path / "\udcff"
    runs: list[Callable[[], object]] = [
        lambda: mt.train(given.resolve("mtl"), out),
        lambda: mt.compare(given, out),
        lambda: mt.sweep(given, out, grid={"learning_rate": [1e-3, 1e-2]}),
        lambda: mt.merge([tmp_path / "a", tmp_path / "b"], out),
    ]
    for run in runs:
        with pytest.raises(UserError, match=r"udcff is no name in UTF-8"):
            run()
    assert not list(tmp_path.iterdir())
