"""Kinds of task, one file each."""

from multitune.tasks.classification import Classification
from multitune.tasks.regression import Regression
from multitune.tasks.tagging import PosTagging, Tagging
from multitune.tasks.task import Task

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "pos_tagging": PosTagging,
    "regression": Regression,
    "tagging": Tagging,
}

__all__ = ["TASKS", "Classification", "PosTagging", "Regression", "Tagging", "Task"]
