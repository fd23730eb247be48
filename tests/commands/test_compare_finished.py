"""Finished runs compared wherever they are: as a comparison of theirs, by setting, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import multitune as mt
from builders import comparison_file
from multitune.cli import tables
from multitune.cli.app import app
from multitune.errors import UserError
from multitune.results.predictions import read_predictions


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_panx: Path) -> tuple[Path, mt.Comparison]:
    """A comparison of two methods."""
    out = tmp_path_factory.mktemp("made") / "out"
    return out, mt.compare(comparison_file(tiny_model, tiny_panx), out, overrides={"budget": 6})


def test_it_is_the_comparison_that_the_runs_could_have_been_made_in(
    made: tuple[Path, mt.Comparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, comparison = made
    monkeypatch.chdir(out)
    folders = [run.folder for run in comparison.runs]
    found = mt.compare_finished(folders)
    assert (found.summary, found.differences, found.baseline) == (
        comparison.summary,
        comparison.differences,
        comparison.baseline,
    )
    done = CliRunner().invoke(app, ["compare", *folders, "--json", "-q"])
    rows = json.loads(done.stdout)["summary"]["rows"]
    assert [row["method"] for row in rows] == ["mtl", "sequential_reptile"]


def test_a_runs_own_page_has_the_intervals_that_a_comparison_gives_it(made: tuple[Path, mt.Comparison]) -> None:
    for run in made[1].runs:
        text = (made[0] / run.folder / "report.html").read_text(encoding="utf-8")
        for each in (made[1].summary[run.method].seen, made[1].summary[run.method].unseen):
            assert each is not None
            assert f"<td>{each.mean:.1f} [{each.low:.1f}, {each.high:.1f}]</td>" in text
        (unseen,) = run.unseen
        own = made[1].summary[run.method].unseen  # the average of one language is that language
        assert own is not None
        number = len([each for each in read_predictions(made[0] / run.folder) if each.language == unseen])
        cells = f'<td class="text">[{own.low:.1f}, {own.high:.1f}]</td><td data-value="{number}">{number}</td>'
        assert cells in text


def test_settings_of_one_method_go_by_their_folders(made: tuple[Path, mt.Comparison], tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        shutil.copytree(made[0] / "mtl-seed0", folder)
    recipe = second / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("learning_rate: 0.005", "learning_rate: 0.5"))
    assert list(mt.compare_finished([first, second]).summary) == [str(first), str(second)]


def test_seeds_of_one_setting_are_one_method(
    made: tuple[Path, mt.Comparison], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders = [made[0] / "mtl-seed0", tmp_path / "mtl-seed1"]
    shutil.copytree(folders[0], folders[1])
    for name in ("recipe.yaml", "results.json"):
        file = folders[1] / name
        file.write_text(file.read_text().replace("seed: 0", "seed: 1").replace('"seed": 0', '"seed": 1'))
    found = mt.compare_finished(folders)
    assert list(found.summary) == ["mtl"]
    assert [run.seed for run in found.runs] == [0, 1]
    assert not caplog.text
    found = mt.compare_finished([*folders, made[0] / "sequential_reptile-seed0"])
    assert found.summary["mtl"].seen is not None
    assert found.summary["sequential_reptile"].seen is None
    assert "one seed alone of sequential_reptile: the table has no score of it" in caplog.text


def test_a_run_that_was_stopped_early_has_not_cost_the_same(
    made: tuple[Path, mt.Comparison], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, other = made[0] / "mtl-seed0", tmp_path / "other"
    shutil.copytree(made[0] / "sequential_reptile-seed0", other)
    results = json.loads((other / "results.json").read_text())
    (other / "results.json").write_text(json.dumps(results | {"stopped": 4}))
    found = mt.compare_finished([run, other])
    assert "costs are not equal" in caplog.text
    assert "4 to 6 gradient computations a run" in tables.summary(found).notes[0]


def test_what_cannot_be_compared_is_refused(made: tuple[Path, mt.Comparison], tmp_path: Path) -> None:
    run, other = made[0] / "mtl-seed0", tmp_path / "other"
    with pytest.raises(UserError, match="two finished runs or more"):
        mt.compare_finished([run, run])
    shutil.copytree(run, other)
    results = json.loads((other / "results.json").read_text())
    language = next(iter(results["digests"]["test"]))
    results["digests"]["test"][language] = "0" * 32
    (other / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match=f"the test records of {language} in .* are not those"):
        mt.compare_finished([run, other])
    del results["seen"][language]
    (other / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match="have other languages"):
        mt.compare_finished([run, other])
    (other / "results.json").unlink()
    with pytest.raises(UserError, match="holds no finished run"):
        mt.compare_finished([run, other])
    done = CliRunner().invoke(app, ["compare", str(run), str(run), "--seeds", "2"])
    assert isinstance(done.exception, UserError)
