"""Doing again what is done, and going on with what is not: ``--resume``, and ``evaluate`` of a run that was stopped."""

import logging
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import multitune as mt
from builders import comparison_file, recipe, stop_after
from multitune.commands.evaluate import evaluate
from multitune.errors import Interrupted, RunError, UserError
from multitune.recipe_files import to_yaml
from multitune.storage.cores import usable_cores
from multitune.training import trainer
from multitune.training.progress import Silent

HELD = 300 << 20


@pytest.mark.parametrize("method", ["mtl", "stl"])
def test_of_a_finished_run_the_report_is_written_again(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, method: str
) -> None:
    one, run = recipe(tiny_model, tiny_panx, method, budget=12), tmp_path / "run"
    result = mt.train(one, run)
    report = (run / "report.html").read_bytes()
    rest = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.suffix != ".html"}
    (run / "report.html").unlink()
    left = run / "checkpoints" / "000000012"
    left.mkdir(parents=True)
    for _ in range(2):
        assert mt.train(one, run, resume=True) == result
        assert (run / "report.html").read_bytes() == report
    assert not left.exists()
    now = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.suffix != ".html"}
    assert now == rest
    for keys in ({"seed": 3}, {"budget": 13}):
        with pytest.raises(UserError, match="already holds a finished run"):
            mt.train(one.model_copy(update=keys), run, resume=True)


def test_a_comparison_writes_the_reports_that_its_runs_lack(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    file = comparison_file(tiny_model, tiny_panx)
    mt.compare(file, tmp_path / "all")
    report = tmp_path / "all" / "mtl-seed0" / "report.html"
    report.unlink()
    mt.compare(file, tmp_path / "all")
    assert report.exists()


def test_checkpoints_of_a_finished_run_stay_where_they_are_wanted(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path
) -> None:
    one = recipe(tiny_model, tiny_panx, budget=12, validate_every=4, keep_checkpoints=True)
    mt.train(one, tmp_path / "run")
    kept = ["000000008", "000000012"]
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == kept
    mt.train(one, tmp_path / "run", resume=True)
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == kept


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_panx: Path) -> Path:
    """A run that was stopped after 6 of 12 gradients."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        stop_after(6, patch)
        with pytest.raises(Interrupted):
            mt.train(recipe(tiny_model, tiny_panx, budget=12), out)
    return out


def test_a_recipe_of_an_earlier_version_resumes(
    tmp_path: Path, stopped: Path, tiny_model: Path, tiny_panx: Path
) -> None:
    """It lacks the keys that have come since; the folder gets them."""
    one = recipe(tiny_model, tiny_panx, budget=12)
    shutil.copytree(stopped, tmp_path / "run")
    saved = tmp_path / "run" / "recipe.yaml"
    earlier = [line for line in to_yaml(one).splitlines() if not line.startswith(("replay:", "keep_checkpoints:"))]
    saved.write_text("\n".join(earlier))
    mt.train(one, tmp_path / "run", resume=True)
    assert saved.read_text() == to_yaml(one.model_copy(update={"threads": usable_cores()}))


def test_a_half_trained_model_is_scored_with_a_warning(
    tmp_path: Path, stopped: Path, tiny_model: Path, tiny_panx: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert set(evaluate(stopped)) == {"aa", "bb", "cc"}
    said = f"{stopped} was stopped after 6 of 12 gradients, so its model is half-trained"
    assert [message for message in caplog.messages if message.startswith(said)]
    caplog.clear()
    mt.train(recipe(tiny_model, tiny_panx, budget=12), tmp_path / "run")
    evaluate(tmp_path / "run")
    assert caplog.messages == []


def test_without_save_model_no_half_trained_model_is_left(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would stand beside the results of the finished run, and be taken for the model that they are of."""
    one, run = recipe(tiny_model, tiny_panx, budget=12, save_model=False), tmp_path / "run"
    stop_after(6, monkeypatch)
    with pytest.raises(Interrupted, match=r"^stopped after 6 of 12 gradients; --resume goes on from there$"):
        mt.train(one, run)
    mt.train(one, run, resume=True)
    assert (run / "results.json").exists()
    assert not (run / "model").exists()


class StoppedAtOnce(Silent):
    """A display before whose first line Ctrl-C comes."""

    def __enter__(self) -> "StoppedAtOnce":
        os.kill(os.getpid(), signal.SIGINT)
        return self


def test_a_run_that_is_stopped_before_its_first_step_meets_the_same_tasks(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path
) -> None:
    one = recipe(tiny_model, tiny_panx, "fish", budget=12, validate_every=6)
    mt.train(one, tmp_path / "whole")
    with pytest.raises(Interrupted, match="stopped after 0 of 12 gradients"):
        mt.train(one, tmp_path / "run", progress=lambda *_: StoppedAtOnce())
    mt.train(one, tmp_path / "run", resume=True)
    weights, whole = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("run", "whole"))
    assert all(torch.equal(weights[name], whole[name]) for name in whole)


class Hungry(Silent):
    """A display that takes 300 MB for a moment, and is stopped."""

    def validated(self, *_: object) -> None:
        held = b"x" * HELD
        del held
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_resumed_run_tells_the_most_memory_of_all_its_sessions(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path
) -> None:
    """A comparison's table would else show what the rest of a run takes, or its last evaluation alone."""
    one = recipe(tiny_model, tiny_panx, budget=12, validate_every=6)
    whole = mt.train(one, tmp_path / "whole").peak_memory_bytes
    with pytest.raises(Interrupted, match="stopped after 6 of 12 gradients"):
        mt.train(one, tmp_path / "run", progress=lambda *_: Hungry())
    assert mt.train(one, tmp_path / "run", resume=True).peak_memory_bytes > whole + HELD / 2


def test_stl_without_all_its_models_is_not_scored(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(6, monkeypatch)
    with pytest.raises(Interrupted):
        mt.train(recipe(tiny_model, tiny_panx, "stl", budget=12), tmp_path / "run")
    with pytest.raises(UserError, match="run: holds no finished run; evaluate needs"):
        evaluate(tmp_path / "run")
    mt.train(recipe(tiny_model, tiny_panx, "stl", budget=12), tmp_path / "run", resume=True)
    shutil.rmtree(tmp_path / "run" / "model" / "bb")
    with pytest.raises(UserError, match="there is no model of 'bb'; there are models of aa"):
        evaluate(tmp_path / "run")


def removing(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove a folder in the step that passes 7 gradients."""
    step = trainer.Trainer._step

    def wrapped(self: trainer.Trainer) -> None:
        step(self)
        if self._now.gradients == 8:
            self._writer.wait()
            shutil.rmtree(self._out / what)

    monkeypatch.setattr(trainer.Trainer, "_step", wrapped)


@pytest.mark.parametrize("keys", [{}, {"checkpoint_every": 1, "budget": 400, "validate_every": 200}])
def test_a_run_whose_folder_goes_ends_in_one_line(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any]
) -> None:
    """The log or a checkpoint is the first to miss it."""
    monkeypatch.setattr(trainer, "LOG_LINES", 4)
    removing(".", monkeypatch)
    with pytest.raises(RunError, match=f"{tmp_path / 'run'}: was removed while the run was going on"):
        mt.train(recipe(tiny_model, tiny_panx, **keys), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_checkpoints_go_goes_on(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removing("checkpoints", monkeypatch)
    mt.train(recipe(tiny_model, tiny_panx, budget=24, validate_every=6), tmp_path / "run")
    assert (tmp_path / "run" / "report.html").exists()
