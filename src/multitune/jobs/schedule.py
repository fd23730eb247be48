"""Jobs begun as there is room, run again where their process died, and ended together."""

import queue
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from signal import Signals
from typing import Protocol

from multitune.errors import Interrupted, RunError
from multitune.jobs.display import DONE, Board
from multitune.jobs.job import Ended, Job, Message, error_of
from multitune.storage.interrupt import StopSignal

TRIES = 3
"""How often a job is begun whose process dies; the last time it has the machine to itself."""
GRACE = 25.0
"""Seconds that jobs have to save what they learnt after a signal; clusters give 30."""
TICK = 0.2
"""Seconds after which a signal is looked for, and whether there is room now."""


@dataclass(frozen=True)
class Gone:
    """The process of a job is no more; ``how`` says it in words."""

    how: str


Event = tuple[str, Message | Gone]
"""The name of a job, and what it tells or that it is gone."""


class Worker(Protocol):
    """A process that does one job."""

    def stop(self) -> None:
        """Ask it to save what it has, and to end."""

    def kill(self) -> None:
        """End it at once."""


class Workers(Protocol):
    """Where jobs are done."""

    def has_room(self, running: Collection[str]) -> bool:
        """Whether another job may begin beside those that run."""

    def start(self, job: Job, report: Callable[[Event], None]) -> Worker:
        """Begin a job in a process of its own, which reports what it tells, and at last that it is gone."""

    def takes(self, job: str, bytes_held: int) -> None:
        """A job tells the most bytes that its process has held."""


class Schedule:
    """The jobs of a comparison, done by workers.

    Args:
        jobs: all of them, in the order in which they begin.
        workers: who does them.
        board: shows how it goes.
    """

    def __init__(self, jobs: Sequence[Job], workers: Workers, board: Board) -> None:
        self._waiting, self._count = deque(jobs), len(jobs)
        self._workers, self._board = workers, board
        self._jobs = {job.name: job for job in jobs}
        self._running: dict[str, Worker] = {}
        self._outcome: dict[str, Ended] = {}
        self._done: set[str] = set()
        self._stopping = False
        self._tries = dict.fromkeys(self._jobs, 0)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def run(self) -> Generator[Ended]:
        """Do all jobs; yields how each ends. Whoever leaves off early closes the iterator, which kills what runs.

        Raises:
            Interrupted: a signal has come, and the jobs have saved what they had.
        """
        with StopSignal() as stop, self._board:
            try:
                while self._waiting or self._running:
                    if stop.requested is not None:
                        self._stop(stop.requested)
                    self._begin()
                    yield from self._next(TICK)
            finally:
                for worker in self._running.values():
                    worker.kill()

    def _begin(self) -> None:
        """Begin what there is room for."""
        while (job := self._ready()) is not None:
            self._waiting.remove(job)
            self._tries[job.name] += 1
            self._running[job.name] = self._workers.start(job, self._events.put)
            self._board.started(job.name)

    def _ready(self) -> Job | None:
        """The next job that may begin now."""
        if any(self._tries[name] == TRIES for name in self._running) or not self._workers.has_room(self._running):
            return None
        ready = (job for job in self._waiting if self._done.issuperset(job.after))
        return next((job for job in ready if self._tries[job.name] < TRIES - 1 or not self._running), None)

    def _next(self, patience: float) -> Iterator[Ended]:
        """Take the next event, if any comes in time."""
        try:
            name, event = self._events.get(timeout=patience)
        except queue.Empty:
            return
        if isinstance(event, Gone):
            yield from self._gone(self._jobs[name], event)
        elif event[0] == "memory":
            self._workers.takes(name, event[1])
        elif event[0] == "done":
            self._outcome[name] = Ended(self._jobs[name])
        elif event[0] == "failed":
            self._outcome[name] = Ended(self._jobs[name], error_of(*event[1:]))
        else:
            self._board.take(name, event)

    def _gone(self, job: Job, gone: Gone) -> Iterator[Ended]:
        del self._running[job.name]
        ended = self._outcome.get(job.name)
        if ended is None and self._stopping:
            self._board.ended(job.name, "stopped")
            return
        if ended is None and self._tries[job.name] < TRIES:
            self._board.ended(job.name, f"its process {gone.how}; it is run again from its newest checkpoint")
            self._waiting.append(replace(job, again=True))
            return
        if ended is None:
            ended = Ended(job, RunError(f"its process {gone.how}, the last of {TRIES} times"))
        if ended.error is None:
            self._done.add(job.name)
        else:
            self._waiting = deque(each for each in self._waiting if job.name not in each.after)
        self._board.ended(job.name, DONE if ended.error is None else "failed")
        yield ended

    def _stop(self, number: Signals) -> None:
        """Let the jobs save what they have, and end.

        Raises:
            Interrupted: always.
        """
        self._board.say(f"stopping {len(self._running)} runs, which save what they have")
        self._stopping = True
        for worker in self._running.values():
            worker.stop()
        until = time.monotonic() + GRACE
        while self._running and time.monotonic() < until:
            list(self._next(TICK))  # runs that finish meanwhile are counted
        raise Interrupted.among(len(self._done), self._count, number)
