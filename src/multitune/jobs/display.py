"""One display for all jobs of a comparison: a line for each that runs, and lines that stay; plain ones in a pipe."""

import logging
import sys
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from multitune.errors import printable
from multitune.jobs.job import Message

DONE = "done"
"""How a job ends that has all its results."""


class Board(Protocol):
    """What the jobs of a comparison tell, each with its name."""

    def __enter__(self) -> "Board": ...
    def __exit__(self, *_: object) -> None: ...
    def started(self, job: str) -> None:
        """A job has a process now, which loads what it needs."""

    def take(self, job: str, message: Message) -> None:
        """What a job tells while it runs, as ``commands.job`` sends it."""

    def ended(self, job: str, how: str) -> None:
        """A job is over, for good or to be run again."""

    def say(self, text: str) -> None:
        """A line that stays."""


class Quiet:
    """Shows nothing but warnings."""

    def __enter__(self) -> "Quiet":
        return self

    def __exit__(self, *_: object) -> None:
        return

    def started(self, job: str) -> None:
        return

    def take(self, job: str, message: Message) -> None:
        _passed_on(job, message)

    def ended(self, job: str, how: str) -> None:
        return

    def say(self, text: str) -> None:
        return


class Lines:
    """A bar for each job that runs, and one that counts those that are done, at any width from 60 columns on.

    Args:
        count: of all jobs.
        console: where to; by default stderr.
    """

    def __init__(self, count: int, console: Console | None = None) -> None:
        self._console = console or Console(file=sys.stderr, highlight=False)
        cut = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        self._progress = Progress(
            TextColumn("{task.description}", table_column=cut, markup=False),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}", table_column=Column(no_wrap=True), markup=False),
            TimeRemainingColumn(compact=True),
            console=self._console,
            disable=not self._console.is_terminal,
            expand=True,
        )
        self._bars: dict[str, TaskID] = {}
        self._state: dict[str, str] = {}
        self._all = self._progress.add_task("all runs", total=count, state="")

    def __enter__(self) -> "Lines":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def started(self, job: str) -> None:
        self._bars[job] = self._progress.add_task(printable(job), total=None, state="loading")

    def take(self, job: str, message: Message) -> None:
        name, *given = message
        if name == "begin":
            self._begin(job, *given)
        elif name == "step":
            self._step(job, *given)
        elif name == "validated":
            self._validated(job, *given)
        elif name == "say":
            self.say(f"{job}: {given[0]}")
        else:
            _passed_on(job, message)

    def ended(self, job: str, how: str) -> None:
        self._progress.remove_task(self._bars.pop(job))
        if how == DONE:
            self._progress.advance(self._all)
        self.say(f"{job}: {how}" + (f", {state}" if how == DONE and (state := self._state.get(job)) else ""))

    def say(self, text: str) -> None:
        self._progress.console.print(printable(text), markup=False, soft_wrap=True)

    def _begin(self, job: str, budget: int) -> None:
        self._progress.reset(self._bars[job], total=budget, state="")

    def _step(self, job: str, gradients: int, loss: float, speed: float) -> None:
        state = self._state.get(job) or f"loss {loss:.3f}"
        self._progress.update(self._bars[job], completed=gradients, state=state)

    def _validated(self, job: str, gradients: int, average: float, metric: str, drift: float) -> None:
        self._state[job] = f"dev {metric} {average:.1f}"
        if not self._console.is_terminal:
            budget = self._progress.tasks[self._progress.task_ids.index(self._bars[job])].total or 0
            self.say(f"{job}: {gradients}/{budget:.0f} gradients, {self._state[job]}, drift {drift:.2f}")


def _passed_on(job: str, message: Message) -> None:
    """Log here what a job has logged in its process."""
    name, *given = message
    if name == "log":
        logger, level, text = given
        logging.getLogger(logger).log(level, "%s: %s", job, text)


def board(count: int, *, progress: bool) -> Board:
    """The display of a comparison's jobs, or one that shows warnings alone."""
    return Lines(count) if progress else Quiet()
