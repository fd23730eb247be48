"""The paper's tables beside our own figures."""

import json
import shutil
from dataclasses import astuple
from pathlib import Path

import pytest

import multitune as mt
from builders import comparison_file as file
from builders import run_result
from multitune.errors import UserError
from multitune.reports import papers
from multitune.results.comparison import Pair
from multitune.results.run import RunResult

AVERAGES = {"mtl": 82.9, "gradvac": 83.8, "reptile": 83.7, "sequential_reptile": 87.5}
"""The paper's own, of its Table 2 (it cuts digits off where it should round)."""


def finished(method: str, scores: dict[str, float], metric: str = "f1", seed: int = 0) -> RunResult:
    """A run with so many percent in the languages that it has seen, ten less in exact matches."""
    both = {language: {metric: score, "exact_match": score - 10} for language, score in scores.items()}
    return run_result(both, method=method, seed=seed)


@pytest.mark.parametrize("method", AVERAGES)
def test_the_figures_have_the_averages_that_the_paper_prints(method: str) -> None:
    row = papers.find("table2").scores[method]
    assert len(row) == 12
    assert sum(value for (value,) in row.values()) / 12 == pytest.approx(AVERAGES[method], abs=0.1)


def test_only_what_both_have_is_compared_and_seeds_are_averaged() -> None:
    runs = [finished("mtl", {"de": 70, "fr": 10}), finished("mtl", {"de": 72, "fr": 10}, seed=1)]
    runs += [finished("sequential", {"de": 1, "fr": 1}), finished("gradvac", {"de": 75, "fr": 10})]
    (found,) = papers.beside("table2", "panx", runs)
    assert found.languages == {"de": {"mtl": Pair(71, 83.4), "gradvac": Pair(75, 83.9)}}
    assert found.mean == found.languages["de"]
    assert astuple(found.gains["gradvac"]) == pytest.approx((4.0, 0.5))


def test_languages_of_another_set_are_found_by_its_name() -> None:
    runs = [finished("mtl", {"en": 50, "de": 50, "mlqa:de": 40, "xquad:es": 30})]
    f1, exact = papers.beside("table3", "tydiqa", runs)
    assert f1.languages == {"mlqa:de": {"mtl": Pair(40, 50.6)}}
    assert exact.languages == {"mlqa:de": {"mtl": Pair(30, 35.8)}}
    assert f1.gains == {}


@pytest.mark.parametrize(
    ("table", "data", "run", "said"),
    [
        ("table6", "panx", finished("mtl", {"de": 1}), "unknown table 'table6'"),
        ("table2", "tydiqa", finished("mtl", {"en": 1}), "on panx or wikiann .de, en, .*none is tested here"),
        ("table2", "panx", finished("mtl", {"fr": 1}), "none is tested here"),
        ("table2", "panx", finished("mtl", {"de": 1}, "accuracy"), "has figures in f1; here it is accuracy"),
        ("table2", "panx", finished("lookahead", {"de": 1}), "none is run here"),
    ],
)
def test_a_table_that_does_not_fit(table: str, data: str, run: RunResult, said: str) -> None:
    with pytest.raises(UserError, match=said):
        papers.beside(table, data, [run])


def test_a_comparison_keeps_and_reports_it(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    data = tmp_path / "panx"
    shutil.copytree(tiny_panx, data)
    for split in ("train", "dev"):
        (data / f"{split}-aa.tsv").rename(data / f"{split}-de.tsv")
    given, out = file(tiny_model, data), tmp_path / "out"
    with pytest.raises(UserError, match="--paper table1"):
        mt.compare(given, out, overrides={"budget": 8, "languages": ["de", "bb"]}, paper="table1")
    assert not out.exists(), "told before anything runs"

    found = mt.compare(given, out, overrides={"budget": 8, "languages": ["de", "bb"]}, paper="table2")
    (saved,) = json.loads((out / "results.json").read_text())["paper"]
    for run in found.runs:
        assert saved["languages"]["de"][run.method]["ours"] == run.seen["de"]["f1"]
    text = (out / "report.html").read_text()
    assert "Beside the paper" in text
    assert "--paper table2" in text
    assert "83.4" in text
