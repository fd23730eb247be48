"""One display for all jobs of a comparison: a line for each that runs, and lines that stay; plain ones in a pipe."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol

from multitune.jobs.job import Message
from multitune.results.decimals import decimals
from multitune.screen.places import here
from multitune.screen.stages import Bar, Screen, shown_on

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
    """A bar for each job that runs, and one that counts those that are done.

    Args:
        count: of all jobs.
        make: the screen, where none is open.
    """

    def __init__(self, count: int, make: Callable[[], Screen] = here) -> None:
        self._count, self._make = count, make
        self._opened = ExitStack()
        self._bars: dict[str, Bar] = {}
        self._budgets: dict[str, int] = {}
        self._state: dict[str, str] = {}

    def __enter__(self) -> "Lines":
        self._screen = self._opened.enter_context(shown_on(self._make))
        self._all = self._screen.bar("all runs", self._count)
        return self

    def __exit__(self, *_: object) -> None:
        for bar in (*self._bars.values(), self._all):
            bar.close()
        self._opened.close()

    def started(self, job: str) -> None:
        self._bars[job] = self._screen.bar(job)
        self._bars[job].show(0, "loading")

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
        self._bars.pop(job).close()
        if how == DONE:
            self._all.advance()
        self.say(f"{job}: {how}" + (f", {state}" if how == DONE and (state := self._state.get(job)) else ""))

    def say(self, text: str) -> None:
        self._screen.say(text)

    def _begin(self, job: str, budget: int) -> None:
        self._budgets[job] = budget
        self._bars[job].resize(budget)

    def _step(self, job: str, gradients: int, loss: float, speed: float) -> None:
        told = (self._state.get(job, ""), f"loss {loss:.3f}", f"{speed:.1f}/s")
        self._bars[job].show(gradients, *filter(None, told))

    def _validated(self, job: str, gradients: int, average: float, metric: str, drift: float) -> None:
        self._state[job] = f"dev {metric} {average:.{decimals(metric)}f}"
        if not self._screen.moves:
            self.say(f"{job}: {gradients}/{self._budgets[job]} gradients, {self._state[job]}, drift {drift:.2f}")


def _passed_on(job: str, message: Message) -> None:
    """Log here what a job has logged in its process."""
    name, *given = message
    if name == "log":
        logger, level, text = given
        logging.getLogger(logger).log(level, "%s: %s", job, text)


def board(count: int, *, progress: bool) -> Board:
    """The display of a comparison's jobs, or one that shows warnings alone."""
    return Lines(count) if progress else Quiet()
