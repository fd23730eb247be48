"""Grids: how they are written, their points, and comparisons over them."""

import json
from pathlib import Path
from typing import Any

import pytest

import multitune as mt
from builders import comparison_file as file
from multitune import recipe_files as recipes
from multitune.cli import tables
from multitune.commands import grid
from multitune.errors import UserError
from multitune.evaluation.scoring import read_statistics


def test_points_are_all_combinations() -> None:
    found = grid.read(["learning_rate=1e-5,3e-5", "options.inner_steps=50,100", "schedule=linear"])
    assert found == {"learning_rate": [1e-5, 3e-5], "options.inner_steps": [50, 100], "schedule": ["linear"]}
    points = grid.points(found)
    assert len(points) == 4
    assert points[1] == {"learning_rate": 1e-5, "options.inner_steps": 100, "schedule": "linear"}
    assert grid.overrides(points[1]) == {
        "learning_rate": 1e-5,
        "options": {"inner_steps": 100},
        "schedule": "linear",
    }
    assert grid.suffix(points[1]) == "-learning_rate=1e-05-options.inner_steps=100-schedule=linear"
    assert len({grid.suffix(point) for point in points}) == 4
    assert grid.overrides({"options.outer_lr": 1, "options.inner_steps": 2}) == {
        "options": {"outer_lr": 1, "inner_steps": 2}
    }


def test_without_keys_there_is_one_point() -> None:
    assert grid.points(grid.read([])) == [{}]
    assert grid.suffix({}) == ""


def test_folder_names_have_no_slash() -> None:
    assert grid.suffix({"model": "../a b/c"}) == "-model=.._a_b_c"


BAD = {
    "learning_rate": "write key=value,value",
    "learning_rate=": "write key=value,value",
    "=3": "write key=value,value",
    "seed=1,2": "use --seeds",
    "method=mtl": "use --methods",
    "layers=null": "must be numbers, words, true or false",
    "languages=[de],[fr]": "must be numbers, words, true or false",
    "budget=10,10": "a value is given twice",
    "budget=[": "--grid budget:1: not valid YAML",
}


@pytest.mark.parametrize(("word", "said"), BAD.items(), ids=BAD)
def test_bad_grids(word: str, said: str) -> None:
    with pytest.raises(UserError, match="--grid") as error:
        grid.points(grid.read([word]))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_key_may_be_given_once() -> None:
    with pytest.raises(UserError, match="budget is given twice"):
        grid.read(["budget=1", "budget=2"])


@pytest.mark.check
def test_a_comparison_over_a_grid(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    points: dict[str, list[Any]] = {"learning_rate": [1e-6, 1e-2], "budget": [15, 30]}
    found = mt.compare(file(tiny_model, tiny_panx), tmp_path, grid=points)
    saved = json.loads((tmp_path / "results.json").read_text())
    assert len(saved["runs"]) == 8
    for run in saved["runs"]:
        rate, budget = run["grid"]["learning_rate"], run["grid"]["budget"]
        assert run["folder"] == f"{run['method']}-learning_rate={rate}-budget={budget}-seed0"
        assert run["budget"] == budget
        recipe = recipes.read(tmp_path / run["folder"] / "recipe.yaml").resolve()
        assert recipe.learning_rate == rate, "a grid wins over a method's own keys"
    assert {"folders", "grid"}.isdisjoint(saved)
    assert saved["chosen"] == found.chosen == dict.fromkeys(("mtl", "sequential_reptile"), found.chosen["mtl"])
    assert found.chosen["mtl"] == {"learning_rate": 1e-2, "budget": 30}, "the best on dev at the largest budget"
    assert [run.method for run in found.chosen_runs] == ["mtl", "sequential_reptile"]
    for run in found.chosen_runs:
        assert saved["summary"][run.method]["seen"]["mean"] == pytest.approx(run.average["seen"])
        assert list(read_statistics(tmp_path / f"{run.method}-learning_rate=0.01-budget=30-seed0"))
    rows = tables.points(found).records()
    assert len(rows) == 8
    assert [row["chosen"] for row in rows].count("*") == 2


def test_seeds_at_each_point(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    given: dict[str, Any] = {"methods": ["mtl"], "seeds": 2, "overrides": {"budget": 8}}
    found = mt.compare(file(tiny_model, tiny_panx), tmp_path, grid={"learning_rate": [1e-6, 1e-2]}, **given)
    assert len(found.runs) == 4
    assert [run.seed for run in found.chosen_runs] == [0, 1]
    assert found.interval == "Student's t over seeds and paired bootstrap over test examples"
    again = mt.compare(file(tiny_model, tiny_panx), tmp_path, grid={"learning_rate": [1e-2]}, **given)
    assert again.runs == found.chosen_runs, "runs of one point are found again in its folder"


def test_methods_with_budgets_of_their_own(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    given = file(tiny_model, tiny_panx)
    given.methods["mtl"]["budget"], given.methods["sequential_reptile"]["budget"] = 8, 7
    found = mt.compare(given, tmp_path)
    assert {run.method: run.budget for run in found.runs} == {"mtl": 8, "sequential_reptile": 7}
    assert found.chosen == {"mtl": {}, "sequential_reptile": {}}


def test_an_option_that_a_method_lacks_is_told_before_anything_runs(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path
) -> None:
    with pytest.raises(UserError, match="options of mtl: unknown key 'inner_steps'"):
        mt.compare(file(tiny_model, tiny_panx), tmp_path / "out", grid={"options.inner_steps": [5]})
    assert not (tmp_path / "out").exists()
