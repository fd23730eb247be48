"""What metrics.jsonl says of a run's course: the rate of each step, seconds that go on over sessions."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest

import multitune as mt
from builders import lines, prepared, recipe
from multitune.data.corpus import Corpus
from multitune.errors import Interrupted
from multitune.evaluation.scoring import Evaluation
from multitune.plans.averaged import ONE_VALUE
from multitune.results.run import RunResult
from multitune.screen.words import duration
from multitune.training import trainer
from multitune.training.checkpoint import Progress
from multitune.training.estimate import evaluations, of_the_rest
from multitune.training.progress import Silent

SLOW = 0.3
"""Seconds that a validation takes, at least."""


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_the_rate_of_a_line_is_that_of_its_newest_step(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, schedule: str
) -> None:
    """A warm-up over all of the budget rises to its end, too."""
    for warmup, expected in (
        (0.0, [1.0, 0.75, 0.5, 0.25] if schedule == "linear" else [1.0] * 4),
        (0.5, [0.2, 0.6, *([1.0, 0.5] if schedule == "linear" else [1.0, 1.0])]),
        (1.0, [1 / 9, 3 / 9, 5 / 9, 7 / 9]),
    ):
        keys: dict[str, Any] = {"budget": 8, "schedule": schedule, "warmup": warmup, "learning_rate": 0.01}
        mt.train(recipe(tiny_model, tiny_panx, "mtl", **keys, test_limit=4), tmp_path / str(warmup))
        logged = [line["learning_rate"] for line in lines(tmp_path / str(warmup)) if line["event"] == "train"]
        assert logged == pytest.approx([0.01 * share for share in expected])


@pytest.fixture
def slow_validations(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated = trainer.Trainer._evaluated

    def wrapped(self: trainer.Trainer, split: Any) -> Evaluation:
        time.sleep(SLOW)
        return evaluated(self, split)

    monkeypatch.setattr(trainer.Trainer, "_evaluated", wrapped)


@pytest.mark.usefixtures("slow_validations")
def test_a_run_that_is_stopped_in_its_last_evaluation_keeps_the_seconds_of_the_validation_before(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = recipe(tiny_model, tiny_panx, budget=8, validate_every=4)
    ship = trainer.Trainer.ship

    def stopped(self: trainer.Trainer, corpus: Corpus) -> RunResult:
        signal.raise_signal(signal.SIGTERM)
        return ship(self, corpus)

    with monkeypatch.context() as stopping:
        stopping.setattr(trainer.Trainer, "ship", stopped)
        with pytest.raises(Interrupted, match="stopped in the last evaluation"):
            mt.train(one, tmp_path / "run")
    assert mt.train(one, tmp_path / "run", resume=True).seconds > 3 * SLOW, "two validations and the test split"
    seconds = [line["seconds"] for line in lines(tmp_path / "run")]
    assert seconds == sorted(seconds)


def test_what_is_said_of_the_rest_of_a_run_leaves_out_what_is_done(tiny_model: Path, tiny_panx: Path) -> None:
    one = recipe(tiny_model, tiny_panx, budget=40, validate_every=10)
    run = prepared(one)
    left = [evaluations(run, done) for done in (0, 10, 39, 40)]
    assert left[0] - left[1] == pytest.approx(left[2] - left[3]), "a validation each"
    assert left[0] > left[1]
    assert left[0] - left[3] == pytest.approx(4 * (left[0] - left[1]))
    assert of_the_rest(run, Progress(gradients=40, step_seconds=40e3)).startswith(f"about {duration(1e3 * left[3])}, ")


def test_a_model_of_one_language_is_called_by_it(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    """What its bar shows, and what is said of its rest, is not all of the run."""
    shown: list[str] = []

    def display(title: str, budget: int) -> Silent:
        shown.append(f"{title}: {budget}")
        return Silent()

    mt.train(recipe(tiny_model, tiny_panx, "stl", budget=9, sampling="uniform"), tmp_path / "run", progress=display)
    assert shown == ["stl on aa seed 0: 4", "stl on bb seed 0: 5"]


def test_what_is_said_of_a_model_of_one_language_names_it(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    keys: dict[str, Any] = {"budget": 9, "sampling": "uniform", "average": "snapshots", "validate_every": 4}
    assert mt.train(recipe(tiny_model, tiny_panx, "stl", **keys), tmp_path / "run").notes == [f"aa: {ONE_VALUE}"]
