"""The list of runs: finished or not, those of comparisons among them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from builders import run_result
from multitune.cli.app import app
from multitune.commands.runs import runs
from multitune.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run, a stopped one, a comparison of one, a sweep with a run that has not ended, a merge, and what is no run."""
    for name in ("b", "a-2", "compared/mtl-seed0", "swept/rung2/mtl-seed0", "b-merged", "neither"):
        (tmp_path / name).mkdir(parents=True)
        if name != "neither":
            (tmp_path / name / "recipe.yaml").touch()
    run_result({"de": {"f1": 71.25}}, budget=400).write(tmp_path / "b")
    run_result({"de": {"f1": 12.5}}).write(tmp_path / "compared" / "mtl-seed0")
    (tmp_path / "compared" / "results.json").write_text("{}")
    (tmp_path / "b-merged" / "merge.json").write_text("{}")
    return tmp_path


def test_runs_are_listed_with_their_scores(folder: Path) -> None:
    found = {each.folder: each.result and each.result.average.seen for each in runs(folder)}
    swept = str(Path("swept/rung2/mtl-seed0"))
    assert found == {"a-2": None, "b": 71.25, str(Path("compared/mtl-seed0")): 12.5, swept: None}
    told = json.loads(CliRunner().invoke(app, ["runs", str(folder), "--json"]).stdout)["runs"]["rows"]
    assert [(row["run"], row["method"], row["seen"]) for row in told][:2] == [
        ("a-2", "not finished", None),
        ("b", "mtl", 71.25),
    ]


def test_a_damaged_run_hides_no_other(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "a-2" / "results.json").write_text("{")
    assert [each.folder for each in runs(folder) if each.result] == ["b", str(Path("compared/mtl-seed0"))]
    (said,) = caplog.messages
    assert "results.json: not valid JSON" in said
    assert said.endswith("the run is listed as not finished")


def test_a_run_itself_is_its_own_list(folder: Path) -> None:
    assert [each.folder for each in runs(folder / "b")] == ["."]


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder; multitune runs lists"):
        runs(tmp_path / "missing")
    assert runs(tmp_path) == []
