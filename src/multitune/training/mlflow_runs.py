"""A run's curves in MLflow: on the server that MLFLOW_TRACKING_URI names, else in a folder of the run."""

import hashlib
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from multitune.errors import Interrupted, UserError, as_line
from multitune.recipe import Recipe
from multitune.storage.interrupt import Leave

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

log = logging.getLogger(__name__)

EXPERIMENT = "multitune"
URI = "MLFLOW_TRACKING_URI"
"""The variable that names a server."""
FOLDER = "mlflow"
"""Where curves go within a run folder."""
PLACE = "multitune_folder"
"""A tag: the hash of the run folder's path."""
LONGEST = 500
"""Characters of a parameter."""


class MlflowRun:
    """One run in the experiment multitune, from now until it is finished.

    A server that fails meanwhile gets no more of it, and the run itself goes on.

    Args:
        recipe: its keys are the run's parameters.
        out: the run folder, whose name the run has.
        resumed: go on with the newest MLflow run of that folder, if there is one.

    Raises:
        UserError: the server cannot be reached, or refuses.
    """

    def __init__(self, recipe: Recipe, out: Path, *, resumed: bool) -> None:
        self._lost = False
        try:
            self._begin(recipe, out, resumed=resumed)
        except MlflowException as error:
            raise UserError(f"--track: mlflow (MLFLOW_TRACKING_URI) takes no run: {as_line(str(error))}") from error

    def _begin(self, recipe: Recipe, out: Path, *, resumed: bool) -> None:
        self._client = _client(out)
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        known = self._client.create_experiment(EXPERIMENT) if experiment is None else experiment.experiment_id
        # Not the path itself: it may tell a server whose machine this is.
        place = hashlib.sha256(str(out.absolute()).encode()).hexdigest()
        # in a folder of the run, which may have been moved, there is no other one
        own = f"tags.{PLACE} = '{place}'" if URI in os.environ else ""
        before = self._client.search_runs([known], own, max_results=1) if resumed else []
        if before:
            self._id = before[0].info.run_id
            self._client.update_run(self._id, "RUNNING")
            return
        self._id = self._client.create_run(known, run_name=out.name, tags={PLACE: place}).info.run_id
        keys = recipe.model_dump(mode="json").items()
        self._client.log_batch(self._id, params=[Param(key, str(value)[:LONGEST]) for key, value in keys])

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to each curve."""
        now = int(time.time() * 1000)
        with self._losing():
            self._client.log_batch(self._id, metrics=[Metric(_name(k), v, now, step) for k, v in values.items()])

    def finish(self, error: BaseException | None = None) -> None:
        """Say that nothing more comes, and which error ended the run, if one did."""
        stopped = "KILLED" if isinstance(error, Interrupted | Leave | KeyboardInterrupt) else "FAILED"
        with self._losing():
            self._client.set_terminated(self._id, "FINISHED" if error is None else stopped)

    @contextmanager
    def _losing(self) -> Iterator[None]:
        """Inside, a server that fails is warned of, once."""
        try:
            yield
        except MlflowException as error:
            if not self._lost:
                log.warning(
                    "--track: mlflow lacks part of the curves, all of which metrics.jsonl has: %s", as_line(str(error))
                )
            self._lost = True


def _client(out: Path) -> MlflowClient:
    if URI in os.environ:
        return MlflowClient()
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # mlflow-skinny has no other store without a server
    return MlflowClient(tracking_uri=(out / FOLDER).absolute().as_uri())


def _name(curve: str) -> str:
    """A name that MLflow takes: languages may be called anything."""
    return re.sub(r"[^\w\-. :/]", "_", curve, flags=re.ASCII)
