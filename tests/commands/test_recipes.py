"""The recipes that come along: listed, printed as they are, and the demo's run."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from multitune.cli.app import app
from multitune.commands import recipes
from multitune.errors import UserError

ROOT = Path(__file__).parents[2]


def said(*words: str) -> str:
    done = CliRunner().invoke(app, [*words], prog_name="multitune", env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    return done.output


def test_all_are_listed_and_printed_as_they_are() -> None:
    listed = said("recipes", "--csv")
    files = sorted((ROOT / "recipes").glob("**/*.yaml"))
    assert len(files) > 10
    for file in files:
        name = file.relative_to(ROOT / "recipes").with_suffix("").as_posix()
        assert f"\n{name}," in listed
        assert said("recipes", name) == file.read_text(encoding="utf-8")


def test_each_says_what_it_is_for() -> None:
    for file in recipes.names().values():
        assert file.read_text(encoding="utf-8").startswith("# ")
        assert len(recipes.summary(file)) > 20


def test_a_name_that_is_none_is_told() -> None:
    with pytest.raises(UserError, match="did you mean 'demo'"):
        recipes.path_of("demmo")


def test_the_demo_compares_by_its_recipe(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keys = ("budget=16", "validate_every=16", "batch_size=4", "layers=2", "data=panx", f"path={tiny_panx}")
    shown = said("demo", f"model={tiny_model}", *keys)
    assert all(word in shown for word in ("sequential_reptile", "mixed", "aa", "cc"))
    run = tmp_path / "runs" / "demo" / "mixed-seed0" / "recipe.yaml"
    assert yaml.safe_load(run.read_text())["learning_rate"] == 2e-4
