"""A task with pretraining's own beside it: masked language modelling, replayed while the languages are learnt."""

from typing import final

import numpy as np
from numpy.typing import NDArray

from multitune.tasks.masked_language_modelling import MaskedLanguageModelling
from multitune.tasks.own_heads import OwnHeads
from multitune.tasks.task import Task

REPLAY = "replay"
"""The name of the task that is replayed, among the languages."""
MAIN = "main"
"""The name of the head that all languages share."""


@final
class Replayed:
    """What stands for a ``Task`` (or ``OwnHeads``) that is trained with a replay: in all but training it is that one.

    The replay has a head of its own, which pretraining left where the model has one, and which does not ship.
    """

    can_trim = False

    def __init__(self, task: Task | OwnHeads) -> None:
        self._task, self._replay = task, MaskedLanguageModelling(())
        self.metric = task.metric
        self.heads = (task.heads if isinstance(task, OwnHeads) else {MAIN: task}) | {REPLAY: self._replay}

    def of(self, language: str) -> Task:
        """The task of a language, or the one that is replayed."""
        return self._replay if language == REPLAY else self._task.of(language)

    def scores_of(self, language: str, rows: NDArray[np.float64]) -> dict[str, float]:
        """As the task's own."""
        return self._task.scores_of(language, rows)

    def versions(self) -> dict[str, str]:
        """As the task's own."""
        return self._task.versions()
