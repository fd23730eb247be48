"""Processes of this machine that do jobs: as many at once as are asked for and as memory allows."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from typing import IO

import torch

from multitune.jobs.job import Job
from multitune.jobs.schedule import Event, Gone
from multitune.storage.memory import free_memory

CPU = torch.device("cpu")
COMMAND = (sys.executable, "-P", "-m", "multitune.commands.job")
"""What does a job; -P, so that no file of the user's folder is taken for a module."""
LAST_WORDS = 2.0
"""Seconds for what a job that has ended has written to stderr: a process that it began may hold that open for ever."""


class Processes:
    """Workers on this machine.

    A second job begins when the first one has told what it takes: only as many run as memory has room for.

    Args:
        count: the most that run at once.
        cards: numbers of the CUDA devices that they share; empty without.
    """

    def __init__(self, count: int, cards: Sequence[str] = ()) -> None:
        self._count, self._cards = count, cards
        self._held: dict[str, int] = {}
        self._card_of: dict[str, str] = {}

    def has_room(self, running: Collection[str]) -> bool:
        self._card_of = {name: card for name, card in self._card_of.items() if name in running}
        if not running:
            return True
        if len(running) >= self._count or not self._held:
            return False
        free, needed = free_memory(CPU), max(self._held.values())
        promised = sum(needed - self._held.get(name, 0) for name in running)
        return free is None or free - promised >= needed

    def takes(self, job: str, bytes_held: int) -> None:
        self._held[job] = bytes_held

    def start(self, job: Job, report: Callable[[Event], None]) -> "Process":
        self._held.pop(job.name, None)  # what it held when it died is free again
        return Process(job, self._environment(job), report)

    def _environment(self, job: Job) -> dict[str, str]:
        """The variables of a job's process, with the card that fewest of the jobs have that run."""
        if not self._cards:
            return dict(os.environ)
        taken = list(self._card_of.values())
        self._card_of[job.name] = min(self._cards, key=taken.count)
        return os.environ | {"CUDA_VISIBLE_DEVICES": self._card_of[job.name]}


class Process:
    """One worker, in a session of its own: Ctrl-C reaches the terminal's processes alone, who pass it on once.

    Args:
        job: what it does.
        environment: its variables.
        report: takes what it tells, from threads.
    """

    def __init__(self, job: Job, environment: dict[str, str], report: Callable[[Event], None]) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, start_new_session=True
        )
        self._name, self._report = job.name, report
        assert self._process.stdin is not None
        self._process.stdin.write(job.to_line().encode())
        self._process.stdin.flush()  # it stays open: its end tells the process that this one is gone
        threading.Thread(target=self._listen, daemon=True).start()

    def stop(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _listen(self) -> None:
        """Report what the process tells, and then its end."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        errors = threading.Thread(target=self._pass_on, args=[process.stderr], daemon=True)
        errors.start()
        for line in process.stdout:
            if line.endswith(b"\n"):  # else it was killed in the midst of it
                self._report((self._name, json.loads(line)))
        code = process.wait()
        errors.join(LAST_WORDS)
        for stream in (process.stdin, process.stdout):
            stream.close()
        self._report((self._name, Gone(in_words(code))))

    def _pass_on(self, stream: IO[bytes]) -> None:
        """Let lines that libraries have written to stderr be seen."""
        with stream:
            for line in stream:
                if text := line.decode(errors="replace").rstrip():
                    self._report((self._name, ["log", __name__, 30, text]))


def in_words(code: int) -> str:
    """How a process ended, e.g. ``was killed by SIGKILL``."""
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
