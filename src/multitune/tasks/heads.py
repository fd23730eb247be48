"""The one map from language to head: which task each language has, and where the model with its head ships."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import final

import numpy as np
from numpy.typing import NDArray

from multitune.errors import UserError
from multitune.results.falling import is_falling
from multitune.tasks.task import Task


@final
@dataclass(frozen=True)
class HeadMap:
    """The heads of a model, by number, and the head of each language.

    Languages (or tasks that stand for them) bear the names that users give them, so no name has a meaning here.

    Attributes:
        tasks: the task of each head, by the head's number.
        folders: where the model with each head ships: a folder below ``model/``, "" for ``model/`` itself; None where
            it does not ship.
        metric: the score that averages, comparisons and the choice of the best weights use.
        own: language -> the number of the head that it alone has.
        shared: the number of the head that all other languages share; None where there are no others.
        replay: the name of the task that is replayed among the languages; None without a replay.
    """

    tasks: tuple[Task, ...]
    folders: tuple[str | None, ...]
    metric: str
    own: Mapping[str, int]
    shared: int | None
    replay: str | None = None

    @staticmethod
    def of_all(task: Task) -> "HeadMap":
        """One head that all languages share, whatever they are."""
        return HeadMap((task,), ("",), task.metric, {}, shared=0)

    @staticmethod
    def of_each(tasks: Mapping[str, Task]) -> "HeadMap":
        """A head for each language, in whose folder its model ships (GLUE).

        The ``metric``, ``score``, is each task's own main one, so that an average over tasks is what GLUE's is.

        Raises:
            UserError: one of these is better where it is lower, so that no average over tasks says anything.
        """
        for language, task in tasks.items():
            if is_falling(task.metric):
                raise UserError(
                    f"data: {language!r} has a head of its own, and of its main score, {task.metric}, a lower one is "
                    "better, so that it has no average with others; tasks with heads of their own need scores that rise"
                )
        own = {language: number for number, language in enumerate(tasks)}
        return HeadMap(tuple(tasks.values()), tuple(tasks), "score", own, shared=None)

    def with_replay(self, task: Task, languages: Iterable[str]) -> "HeadMap":
        """These heads and that of a task that is replayed, under a name that none of the languages has.

        A kind of task that all languages share already is replayed with their head.
        """
        name = _unused("replay", {*self.own, *languages})
        if self.shared is not None and type(self.tasks[self.shared]) is type(task):
            return replace(self, own={**self.own, name: self.shared}, replay=name)
        own = {**self.own, name: len(self.tasks)}
        return replace(self, tasks=(*self.tasks, task), folders=(*self.folders, None), own=own, replay=name)

    def number(self, language: str) -> int:
        """The number of a language's head."""
        return self.own[language] if self.shared is None else self.own.get(language, self.shared)

    def task(self, language: str) -> Task:
        """The task of a language."""
        return self.tasks[self.number(language)]

    def folder(self, language: str) -> str:
        """Where the model of a language ships, below ``model/``."""
        folder = self.folders[self.number(language)]
        assert folder is not None, "the replay ships no model"
        return folder

    def groups(self, languages: Iterable[str]) -> dict[int, list[str]]:
        """The languages of each head, by the head's number."""
        groups: dict[int, list[str]] = {}
        for language in languages:
            groups.setdefault(self.number(language), []).append(language)
        return groups

    @property
    def can_trim(self) -> bool:
        """Whether only tokens that occur in training have a gradient."""
        return all(task.can_trim for task in self.tasks)

    def scores_of(self, language: str, rows: NDArray[np.float64]) -> dict[str, float]:
        """Scores in percent of one language, from the statistics of its records, [records, statistics]."""
        task = self.task(language)
        scores = task.score_rows(rows)
        return scores | {self.metric: scores[task.metric]}

    def versions(self) -> dict[str, str]:
        """What results are to say of how they were scored, beside the packages' versions."""
        return {name: version for task in self.tasks for name, version in task.versions().items()}


def _unused(name: str, taken: Collection[str]) -> str:
    """``name``, or where it is taken ``name-2`` and so on."""
    numbered = (f"{name}-{number}" for number in count(2))
    return name if name not in taken else next(each for each in numbered if each not in taken)
