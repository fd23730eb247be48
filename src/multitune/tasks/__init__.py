"""Kinds of task, one file each."""

from multitune.tasks.classification import Classification
from multitune.tasks.tagging import Tagging
from multitune.tasks.task import Task

TASKS: dict[str, type[Task]] = {"classification": Classification, "tagging": Tagging}

__all__ = ["TASKS", "Classification", "Tagging", "Task"]
