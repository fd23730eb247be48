"""A training set divided into clusters, which are then the tasks (docs/pseudo-tasks.md)."""

from multitune.pseudo_tasks.division import Division, check, divide, write

__all__ = ["Division", "check", "divide", "write"]
