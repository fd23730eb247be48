"""Live curves in TensorBoard, Weights & Biases, trackio (through accelerate) or MLflow; off unless asked for."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from multitune.errors import UserError, unknown
from multitune.recipe import Recipe
from multitune.recipe_files import to_yaml
from multitune.results.metrics import Event

TRACKERS = {
    "tensorboard": ("accelerate", "tensorboard"),
    "wandb": ("accelerate", "wandb"),
    "trackio": ("accelerate", "trackio"),
    "mlflow": ("mlflow",),
}
"""Tracker -> the packages that it needs."""
EXTRAS = ("tensorboard", "mlflow")
"""Those of them that an extra of multitune installs."""
Log = Callable[[Event], None]
"""Takes an event of the run, as metrics.jsonl does."""


def check_tracker(name: str | None) -> None:
    """Find out before a run whether it can be tracked.

    Raises:
        UserError: an unknown tracker, or one whose package is missing.
    """
    if name is None:
        return
    if name not in TRACKERS:
        raise UserError(f"--track: {unknown('tracker', name, TRACKERS)}")
    for package in TRACKERS[name]:
        if find_spec(package) is None:
            extra = f"'multitune[{name}]'" if name in EXTRAS else f"accelerate {name}"
            raise UserError(f"--track: {name} needs the package {package}: pip install {extra}")


@contextmanager
def tracking(name: str | None, recipe: Recipe, out: Path, gradients: int) -> Iterator[Log]:
    """Yield what takes the events of a run and shows them by gradient computations; None as a name shows nothing.

    Args:
        name: one of ``TRACKERS``. TensorBoard's files go to ``out/tensorboard``, MLflow's to ``out/mlflow`` where
            MLFLOW_TRACKING_URI names no place, the others go where they always do, into the project multitune.
        gradients: computed already, where a run is resumed.
    """
    if name is None:
        yield lambda *_: None
        return
    if name == "mlflow":
        from multitune.training.mlflow_runs import MlflowRun

        tracker: Any = MlflowRun(recipe, out, resumed=gradients > 0)
    else:
        tracker = _tracker(name, recipe, out, gradients)
        tracker.start()
    if name == "tensorboard":
        tracker.log({"recipe": to_yaml(recipe)}, step=gradients)
    finish = tracker.finish
    try:
        yield lambda event: tracker.log(dict(_numbers(event.EVENT, event.measured())), step=event.gradients)
    except BaseException as error:
        if name == "mlflow":
            finish = partial(tracker.finish, error)
        raise
    finally:
        finish()


def _tracker(name: str, recipe: Recipe, out: Path, gradients: int) -> Any:
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # the trackers log, and accelerate's logger wants to know its rank first
    if name == "tensorboard":
        return LOGGER_TYPE_TO_CLASS[name]("tensorboard", logging_dir=out, purge_step=gradients + 1)
    return LOGGER_TYPE_TO_CLASS[name]("multitune", name=out.name, config=recipe.model_dump(mode="json"))


def _numbers(name: str, measured: Any) -> Iterator[tuple[str, float]]:
    """``validate/dev/de/f1`` and the like; what is no number (lists of languages, matrices) cannot be a curve."""
    if isinstance(measured, Mapping):
        for key, value in measured.items():
            yield from _numbers(f"{name}/{key}", value)
    elif isinstance(measured, int | float):
        yield name, float(measured)
