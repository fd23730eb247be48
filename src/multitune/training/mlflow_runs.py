"""A run's curves in MLflow: on the server that MLFLOW_TRACKING_URI names, else in a folder of the run."""

import hashlib
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from multitune.recipe import Recipe

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

EXPERIMENT = "multitune"
FOLDER = "mlflow"
"""Where curves go within a run folder."""
PLACE = "multitune_folder"
"""A tag: the hash of the run folder's path."""
LONGEST = 500
"""Characters of a parameter."""


class MlflowRun:
    """One run in the experiment multitune, from now until it is finished.

    Args:
        recipe: its keys are the run's parameters.
        out: the run folder, whose name the run has.
        resumed: go on with the newest MLflow run of that folder, if there is one.
    """

    def __init__(self, recipe: Recipe, out: Path, *, resumed: bool) -> None:
        self._client = _client(out)
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        known = self._client.create_experiment(EXPERIMENT) if experiment is None else experiment.experiment_id
        # Not the path itself: it may tell a server whose machine this is.
        place = hashlib.sha256(str(out.absolute()).encode()).hexdigest()
        before = self._client.search_runs([known], f"tags.{PLACE} = '{place}'", max_results=1) if resumed else []
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
        self._client.log_batch(self._id, metrics=[Metric(_name(k), v, now, step) for k, v in values.items()])

    def finish(self) -> None:
        """Say that nothing more comes."""
        self._client.set_terminated(self._id)


def _client(out: Path) -> MlflowClient:
    if "MLFLOW_TRACKING_URI" in os.environ:
        return MlflowClient()
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # mlflow-skinny has no other store without a server
    return MlflowClient(tracking_uri=(out / FOLDER).absolute().as_uri())


def _name(curve: str) -> str:
    """A name that MLflow takes: languages may be called anything."""
    return re.sub(r"[^\w\-. :/]", "_", curve, flags=re.ASCII)
