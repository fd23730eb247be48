"""Live tracking: what TensorBoard is shown is what metrics.jsonl holds; what cannot be had is said before the run."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

import multitune as mt
from builders import recipe
from multitune.errors import DivergedError, Interrupted, UserError
from multitune.recipe import Recipe
from multitune.results.metrics import Train
from multitune.storage.interrupt import Leave
from multitune.training import run_folder
from multitune.training.tracking import tracking


def test_tensorboard_shows_the_log(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    one = recipe(tiny_model, tiny_panx, method="mtl", options={}, budget=12, validate_every=4)
    mt.train(one, tmp_path / "run", track="tensorboard")
    shown = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    shown.Reload()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for event, key in (("train", "loss"), ("validate", "average"), ("validate", "drift")):
        curve = [(point.step, point.value) for point in shown.Scalars(f"{event}/{key}")]
        expected = [(line["gradients"], line[key]) for line in lines if line["event"] == event]
        assert [step for step, _ in curve] == [step for step, _ in expected]
        assert [value for _, value in curve] == pytest.approx([value for _, value in expected], rel=1e-6)
    assert "validate/dev/aa/f1" in shown.Tags()["scalars"]


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package, without a server."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return pytest.importorskip("mlflow")


def test_mlflow_shows_the_log(tmp_path: Path, tiny_model: Path, tiny_panx: Path, mlflow: Any) -> None:
    one = recipe(tiny_model, tiny_panx, method="mtl", options={}, budget=12, validate_every=4)
    mt.train(one, tmp_path / "run", track="mlflow")
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "run" / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("multitune")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status, run.data.params["budget"]) == ("run", "FINISHED", "12")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for event, key in (("train", "loss"), ("validate", "average"), ("validate", "drift")):
        history = client.get_metric_history(run.info.run_id, f"{event}/{key}")
        curve = [(point.step, point.value) for point in history]
        assert curve == [(line["gradients"], line[key]) for line in lines if line["event"] == event]
    assert "validate/dev/aa/f1" in run.data.metrics


def test_a_resumed_run_goes_on_in_mlflow(tmp_path: Path, tiny_model: Path, tiny_panx: Path, mlflow: Any) -> None:
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlflow").as_uri())
    for steps, expected in (((0, 1), 1), ((2, 3), 1), ((0,), 2)):  # a run, the same resumed, and another one
        with tracking("mlflow", recipe(tiny_model, tiny_panx), tmp_path, steps[0]) as log:
            for step in steps:
                log(Train(gradients=step, seconds=1.0, loss=1.0, learning_rate=0.1))
        runs = client.search_runs([client.get_experiment_by_name("multitune").experiment_id])
        assert [run.info.status for run in runs] == ["FINISHED"] * expected
        history = client.get_metric_history(runs[0].info.run_id, "train/loss")
        assert [point.step for point in history] == ([0] if steps == (0,) else list(range(steps[-1] + 1)))


def tracked_to(error: BaseException, one: Recipe, out: Path) -> None:
    """A tracked run that an error ends."""
    with tracking("mlflow", one, out, 0) as log:
        log(Train(gradients=1, seconds=1.0, loss=1.0, learning_rate=0.1))
        raise error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Interrupted("stopped", signal.SIGTERM), "KILLED"),
        (Leave(signal.SIGTERM), "KILLED"),
        (DivergedError("no step was taken"), "FAILED"),
    ],
    ids=["stopped", "stopped at once", "diverged"],
)
def test_mlflow_knows_how_a_run_ended_and_finds_it_where_it_was_moved(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, mlflow: Any, error: BaseException, status: str
) -> None:
    one = recipe(tiny_model, tiny_panx)
    with pytest.raises(type(error)):
        tracked_to(error, one, tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "moved" / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("multitune").experiment_id
    assert [run.info.status for run in client.search_runs([experiment])] == [status]
    with tracking("mlflow", one, tmp_path / "moved", 1) as log:
        log(Train(gradients=2, seconds=2.0, loss=1.0, learning_rate=0.1))
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] == [1, 2]


def test_a_server_that_cannot_be_reached_is_a_mistake_before_the_first_step_and_a_warning_later(
    tmp_path: Path,
    tiny_model: Path,
    tiny_panx: Path,
    mlflow: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = recipe(tiny_model, tiny_panx, method="mtl", options={}, budget=12, validate_every=4, test_limit=4)
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(
            UserError, match=r"--track: mlflow \(MLFLOW_TRACKING_URI\) takes no run: .*127.0.0.1"
        ) as told:
            mt.train(one, tmp_path / "run", track="mlflow")
        assert "\n" not in str(told.value)

    def failing(*_: object, **__: object) -> None:
        raise mlflow.exceptions.MlflowException("API request failed\nwith exception Connection refused")

    with tracking("mlflow", one, tmp_path, 1) as log:
        monkeypatch.setattr(mlflow.MlflowClient, "log_batch", failing)
        for step in (2, 3):
            log(Train(gradients=step, seconds=1.0, loss=1.0, learning_rate=0.1))
    (warned,) = caplog.messages
    assert "mlflow lacks part of the curves, all of which metrics.jsonl has: API request failed" in warned


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
@pytest.mark.usefixtures("mlflow")
def test_a_run_that_was_tracked_can_be_overwritten(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, name: str
) -> None:
    """Its curves are its own files."""
    one = recipe(tiny_model, tiny_panx)
    with run_folder.opened(tmp_path / "run", one, resume=False), tracking(name, one, tmp_path / "run", 0) as log:
        log(Train(gradients=1, seconds=1.0, loss=1.0, learning_rate=0.1))
        (tmp_path / "run" / "metrics.jsonl").touch()
    assert (tmp_path / "run" / name).is_dir()
    with run_folder.opened(tmp_path / "run", one, resume=False, overwrite=True):
        assert not (tmp_path / "run" / name).exists()


def test_without_a_tracker_nothing_is_written(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    with tracking(None, recipe(tiny_model, tiny_panx), tmp_path, 0) as log:
        log(Train(gradients=1, seconds=1.0, loss=1.0, learning_rate=0.1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tensorbord", "unknown tracker 'tensorbord' .did you mean 'tensorboard'"),
        ("wandb", "pip install accelerate wandb"),
        ("mlflow", r"mlflow needs the package mlflow: pip install 'multitune\[mlflow\]'"),
    ],
)
def test_what_cannot_be_had_is_said_before_the_run(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "multitune.training.tracking.find_spec", lambda package: None if package in ("wandb", "mlflow") else object()
    )
    with pytest.raises(UserError, match=said):
        mt.train(recipe(tiny_model, tiny_panx), tmp_path / "run", track=name)
    assert not (tmp_path / "run").exists()
