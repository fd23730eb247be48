"""Sweeps: which points go on, what is spent, what is written; and that the winner is as good as the grid's best."""

from pathlib import Path
from typing import Any

import pytest

import multitune as mt
from builders import comparison_file
from multitune.cli import tables
from multitune.cli.layout import fitted
from multitune.commands.sweep import WINNER
from multitune.errors import UserError
from multitune.recipe_files import read

RATES = [1e-6, 1e-2, 1e-5]


def test_the_best_points_go_on_to_larger_budgets(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    given: dict[str, Any] = {"grid": {"learning_rate": RATES}, "rungs": 2, "overrides": {"method": "mtl", "budget": 36}}
    found = mt.sweep(comparison_file(tiny_model, tiny_panx), tmp_path, **given)
    assert mt.Sweep.read(tmp_path) == found
    small, whole = found.rungs
    assert ([small.budget, whole.budget], [len(small.points), len(whole.points)]) == ([12, 36], [3, 1])
    dev = [point.dev or 0.0 for point in small.points]
    assert dev == sorted(dev, reverse=True)
    assert [point.kept for point in small.points] == [True, False, False]
    assert found.winner == {"learning_rate": 1e-2} == whole.points[0].grid
    assert (found.gradients, found.full_grid) == (3 * 12 + 36, 3 * 36)
    winner = read(tmp_path / WINNER).resolve()
    assert (winner.method, winner.learning_rate, winner.budget) == ("mtl", 1e-2, 36)
    run = mt.RunResult.read(tmp_path / "rung2" / "mtl-learning_rate=0.01-seed0")
    assert run.shipped.dev == whole.points[0].dev
    shown = fitted(tables.rungs(found), 80).plain
    assert "72 gradient computations, 67% of the whole grid's 108" in shown
    assert max(map(len, shown.splitlines())) <= 80

    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("rung*/*/results.json")}
    assert mt.sweep(comparison_file(tiny_model, tiny_panx), tmp_path, **given) == found
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_rung_with_nothing_to_choose_from_is_left_out(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    grid = {"learning_rate": RATES[:2]}
    found = mt.sweep(
        comparison_file(tiny_model, tiny_panx),
        tmp_path,
        grid=grid,
        rungs=3,
        overrides={"method": "mtl", "budget": 36},
    )
    assert [(rung.folder, rung.budget, len(rung.points)) for rung in found.rungs] == [("rung1", 4, 2), ("rung3", 36, 1)]
    assert found.gradients == 2 * 4 + 36


def test_several_runs_are_one_processs_job(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of torchrun's ranks would make all of them, in the same folders."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="start it without torchrun"):
        mt.compare(comparison_file(tiny_model, tiny_panx), tmp_path / "compared")
    assert not (tmp_path / "compared").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"grid": {"budget": [3, 9]}}, "--grid budget: a sweep sets it by itself"),
        ({"grid": {"method": ["mtl", "mixed"]}}, "--grid method: a sweep is of one method, which method=NAME says"),
        ({"grid": {"learning_rate": [1e-3]}}, "--grid: a sweep needs two points or more"),
        ({"grid": {"learning_rate": RATES}, "rungs": 5}, "--rungs: 5 are too many for a budget of 30"),
        ({"grid": {"learning_rate": RATES}, "rungs": 10**9}, "--rungs: 1000000000 are too many for a budget of 30"),
        ({"grid": {"learning_rate": RATES}, "rungs": 0}, "--rungs: 0 is too few"),
        ({"grid": {"learning_rate": RATES}, "seeds": 2**40}, "--seeds: 1099511627776 from seed 0 on go beyond"),
        ({"grid": {"batch_size": RATES}}, "batch_size"),
    ],
)
def test_mistakes_come_before_anything_runs(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        mt.sweep(comparison_file(tiny_model, tiny_panx), tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


@pytest.mark.check
def test_the_winner_is_as_good_as_the_grids_best_for_two_fifths(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path
) -> None:
    """Nine rates over four decades, of which the middle ones learn."""
    file, grid = comparison_file(tiny_model, tiny_panx), {"learning_rate": [10.0 ** (n / 2) for n in range(-11, -2)]}
    given: dict[str, Any] = {"method": "sequential", "budget": 90, "dev_limit": 24, "test_limit": 4}
    found = mt.sweep(file, tmp_path / "sweep", grid=grid, overrides=given)
    del given["method"]
    whole = mt.compare(file, tmp_path / "grid", methods=["sequential"], grid=grid, overrides=given)
    best = max(run.shipped.dev or 0.0 for run in whole.runs)
    spread = [run.shipped.dev or 0.0 for run in whole.runs]
    assert min(spread) < best - 20, "the grid has something to choose from"
    (winner,) = found.rungs[-1].points
    assert winner.dev is not None
    assert winner.dev > best - 0.5
    assert found.gradients <= 0.4 * found.full_grid
