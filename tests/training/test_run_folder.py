"""Run folders that nobody names: a number instead of a collision, --overwrite, and what git sees."""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import multitune as mt
from builders import recipe
from multitune.errors import UserError
from multitune.recipe import Recipe
from multitune.recipe_files import RecipeFile
from multitune.results.run import FILE
from multitune.storage import atomic
from multitune.storage.atomic import remove
from multitune.training import run_folder


@pytest.fixture
def file(tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch) -> RecipeFile:
    """A recipe of seconds, and a folder of the test's own to run it in."""
    monkeypatch.chdir(tmp_path)
    keys = recipe(tiny_model, tiny_panx, budget=2, dev_limit=1).model_dump(mode="json")
    return RecipeFile(run=keys, methods={}, source="tiny.yaml")


def test_a_second_run_gets_a_number_and_overwriting_none(file: RecipeFile) -> None:
    for _ in range(3):
        mt.train(file)
    names = {path.name for path in Path("runs").iterdir()}
    assert names == {".gitignore", "tiny-mtl-seed0", "tiny-mtl-seed0-2", "tiny-mtl-seed0-3"}
    before = Path("runs/tiny-mtl-seed0/probes.json")
    before.touch()
    mt.train(file, overrides={"budget": 4}, overwrite=True)
    assert not before.exists()
    assert mt.RunResult.read("runs/tiny-mtl-seed0").budget == 4
    assert {path.name for path in Path("runs").iterdir()} == names


def test_git_sees_no_runs(file: RecipeFile) -> None:
    subprocess.run(["git", "init", "--quiet"], check=True)
    mt.train(file)
    seen = subprocess.run(["git", "status", "--porcelain", "--untracked-files=all"], capture_output=True, text=True)
    assert seen.stdout == ""
    Path("runs/.gitignore").write_text("")
    mt.train(file)
    assert Path("runs/.gitignore").read_text() == "", "whoever wants runs in git has them there"


def test_runs_that_begin_at_once_do_not_disturb_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a job array in a new folder: what git is to see is written while others write it."""
    monkeypatch.chdir(tmp_path)
    one = Recipe(data="panx")

    def synced(path: Path) -> None:
        monkeypatch.setattr(atomic, "sync", sync)
        run_folder.begin(Path("runs/second"), one)
        sync(path)

    sync = atomic.sync
    monkeypatch.setattr(atomic, "sync", synced)
    run_folder.begin(Path("runs/first"), one)
    names = {path.name for path in Path("runs").iterdir()}
    assert names == {".gitignore", "first", "second"}
    assert Path("runs/.gitignore").read_text() == "*\n"


def test_resuming_takes_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def default(*, resume: bool = False, overwrite: bool = False) -> str:
        return run_folder.default("run", resume=resume, overwrite=overwrite).name

    assert default() == default(resume=True) == default(overwrite=True) == "run"
    for name in ("run", "run-2"):
        Path("runs", name).mkdir(parents=True)
        assert default() == name, "an empty folder is free"
        Path("runs", name, "recipe.yaml").touch()
    assert (default(), default(resume=True), default(overwrite=True)) == ("run-3", "run-2", "run")
    for name in ("run-12", "run-20261128", "run-02", "run-two", "other-13"):
        Path("runs", name).mkdir()
        Path("runs", name, "recipe.yaml").touch()
    assert (default(), default(resume=True)) == ("run-13", "run-12"), "those between were removed"
    for name in ("run", "run-2"):
        Path("runs", name, "recipe.yaml").unlink()
        Path("runs", name).rmdir()
    assert (default(), default(resume=True), default(overwrite=True)) == ("run-13", "run-12", "run")


def test_only_runs_are_overwritten(file: RecipeFile) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.tex").touch()
    with pytest.raises(UserError, match="is not the folder of a run"):
        mt.train(file, "mine", overwrite=True)
    with pytest.raises(UserError, match="cannot stand beside --overwrite"):
        mt.train(file, "other", overwrite=True, resume=True)
    Path("mine/recipe.yaml").touch()
    with pytest.raises(UserError, match="mine holds no run that has begun"):
        mt.train(file, "mine", overwrite=True)
    Path("mine/metrics.jsonl").touch()
    with pytest.raises(UserError, match=r"mine holds 'thesis\.tex', which no run has written"):
        mt.train(file, "mine", overwrite=True)
    files = {str(path) for path in Path().rglob("*") if path.is_file()}
    assert files == {"mine/thesis.tex", "mine/recipe.yaml", "mine/metrics.jsonl"}


def test_an_unfinished_run_with_a_model_for_each_language_is_overwritten(tmp_path: Path) -> None:
    """It has no log of its own, but its languages have."""
    one, out = Recipe(data="panx", method="stl"), tmp_path / "run"
    run_folder.begin(out, one)
    with pytest.raises(UserError, match="add --resume, or name another folder"):
        run_folder.check(out, one, resume=False)
    run_folder.begin(run_folder.of_language(out, "aa"), one)
    (run_folder.of_language(out, "aa") / "metrics.jsonl").touch()
    with pytest.raises(UserError, match="add --resume or --overwrite"):
        run_folder.check(out, one, resume=False)
    with run_folder.opened(out, one, resume=False, overwrite=True):
        assert {path.name for path in out.iterdir()} == {"recipe.yaml", ".lock", ".owner"}


class Killed(BaseException):
    """The process ends."""


def test_a_run_that_was_half_overwritten_is_not_finished_and_is_overwritten_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Recipe(data="panx")
    names = ("model/config.json", "languages/aa/metrics.jsonl", "report.html", "metrics.jsonl", FILE)
    for before in range(10):
        out = tmp_path / str(before)
        with run_folder.opened(out, one, resume=False):
            for name in names:
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                (out / name).touch()
        left = iter(range(before))

        def removed(path: Path, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise Killed
            remove(path)

        with monkeypatch.context() as patch:
            patch.setattr(run_folder, "remove", removed)
            with suppress(Killed), run_folder.opened(out, one, resume=False, overwrite=True):
                """All was removed before."""
        assert not run_folder.is_finished(out, one) or all((out / name).exists() for name in names)
        if (out / "metrics.jsonl").exists():
            with run_folder.opened(out, one, resume=False, overwrite=True):
                """It may be overwritten again."""
        assert [path.name for path in out.iterdir()] == ["recipe.yaml"]
