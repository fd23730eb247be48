"""Scores by language, and their mean."""

from collections.abc import Iterable, Mapping, MutableMapping
from numbers import Real
from statistics import fmean
from typing import Any

from transformers.trainer_utils import default_compute_objective

NO_SCORES = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "jit_compilation_time")
"""Numbers of an evaluation whose mean over data sets would tell nothing."""
LOGGED = "eval_"
"""What TRL's trainers put before the names of the metrics that they log themselves, whatever the prefix."""


def with_means(by_name: Mapping[str, Mapping[str, Any]], prefix: str) -> tuple[dict[str, Any], dict[str, float]]:
    """All data sets' metrics under their names, and the means of the numbers that all of them have.

    Args:
        by_name: data set -> what its evaluation gave. A metric is called ``{prefix}_{name}_{metric}``, or where a
            trainer has logged it without the data set's name ``{prefix}_{metric}``.
        prefix: "eval", as a rule.

    Returns:
        ``{prefix}_{name}_{metric}`` -> its value (and what is no metric of one data set, such as the epoch); and
        ``{prefix}_{metric}`` -> its mean.
    """
    scores = {name: _scores(metrics, f"{prefix}_{name}_", f"{prefix}_") for name, metrics in by_name.items()}
    all_of_them = {
        key: value for metrics in by_name.values() for key, value in metrics.items() if not key.startswith(f"{prefix}_")
    } | {f"{prefix}_{name}_{metric}": value for name, own in scores.items() for metric, value in own.items()}
    common = [
        metric
        for metric in next(iter(scores.values()), {})
        if metric not in NO_SCORES and all(isinstance(own.get(metric), Real) for own in scores.values())
    ]
    return all_of_them, {f"{prefix}_{metric}": fmean(own[metric] for own in scores.values()) for metric in common}


def name_after(metrics: MutableMapping[str, float], prefix: str, name: str) -> None:
    """Rename, in place, the metrics of a data set that a trainer has logged without the data set's name.

    Callbacks get them next, and would take them for the means.
    """
    own, general = f"{prefix}_{name}_", f"{prefix}_"
    for key in [key for key in metrics if key.startswith((general, LOGGED)) and not key.startswith(own)]:
        plain = key.removeprefix(general if key.startswith(general) else LOGGED)
        metrics[own + plain] = metrics.pop(key)


def objective_of_means(names: Iterable[str], metrics: Mapping[str, Any]) -> float:
    """What a search of hyperparameters goes by unless it is told: the Trainer's default, of the means alone.

    Args:
        names: of the data sets, whose own losses and scores it would add up.
        metrics: of an evaluation of all of them.
    """
    own = tuple(f"eval_{name}_" for name in names)
    return float(default_compute_objective({key: value for key, value in metrics.items() if not key.startswith(own)}))


def _scores(metrics: Mapping[str, Any], own: str, general: str) -> dict[str, Any]:
    return {
        key.removeprefix(own) if key.startswith(own) else key.removeprefix(general): value
        for key, value in metrics.items()
        if key.startswith(general)
    }
