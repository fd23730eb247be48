"""Tasks that share an encoder but not a head: they may differ in kind, labels and scores (GLUE)."""

from collections.abc import Mapping
from typing import final

import numpy as np
from numpy.typing import NDArray

from multitune.tasks.task import Task


@final
class OwnHeads:
    """What stands for a ``Task`` where each "language" is a task of its own.

    Its ``metric``, ``score``, is each task's own main one, so that an average over tasks is what GLUE's is.
    """

    metric = "score"

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self.tasks = dict(tasks)

    @property
    def heads(self) -> dict[str, Task]:
        """The task of each head: each has its own."""
        return self.tasks

    @property
    def can_trim(self) -> bool:
        """As of a task: only tokens that occur in training have a gradient."""
        return all(task.can_trim for task in self.tasks.values())

    def of(self, language: str) -> Task:
        """The task that goes by the name of ``language``."""
        return self.tasks[language]

    def scores_of(self, language: str, rows: NDArray[np.float64]) -> dict[str, float]:
        """Scores in percent of a task, from the statistics of its records; its main one is also the ``score``."""
        task = self.tasks[language]
        scores = task.score_rows(rows)
        return scores | {self.metric: scores[task.metric]}

    def versions(self) -> dict[str, str]:
        """As of a task: what results are to say of how they were scored."""
        return {name: version for task in self.tasks.values() for name, version in task.versions().items()}
