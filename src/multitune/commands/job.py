"""One run as a job: the process that ``jobs`` starts reads it from stdin, and tells on stdout how it goes."""

import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from multitune.commands.single_language import train_language
from multitune.commands.train import train
from multitune.errors import Interrupted, UserError
from multitune.jobs.job import KINDS, Tell
from multitune.recipe_files import RecipeFile
from multitune.storage import lock
from multitune.storage.interrupt import Leave, leaving
from multitune.training import run_folder
from multitune.training.checkpoint_writer import Written
from multitune.training.loading import load_corpus
from multitune.training.memory import peak_memory
from multitune.training.progress import in_words

log = logging.getLogger("multitune")
STOPPED = 128 + signal.SIGTERM
SAVING = 60.0
"""Seconds in which a process that an earlier try has left behind saves what it has, at most."""
TICK = 0.2
"""Seconds after which it is looked for again."""
_telling = threading.Lock()


def main() -> None:
    """Do the job that the first line of stdin holds; where whoever gave it is gone, save and end."""
    told = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no message
    tell = partial(_write, told)
    try:
        with leaving():
            order = _order()
            threading.Thread(target=_end_when_alone, daemon=True).start()
            with _Told(tell):
                _run(order, tell)
    except (Interrupted, Leave):
        os._exit(STOPPED)


def _order() -> dict[str, Any]:
    """What is to be done; read without a buffer, whose lock ``_end_when_alone`` would hold at the end."""
    line = b""
    while not line.endswith(b"\n"):
        more = os.read(0, 1 << 16)
        if not more:  # whoever gave it is gone
            raise Leave(signal.SIGTERM)
        line += more
    order: dict[str, Any] = json.loads(line)
    return order


def _end_when_alone() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _write(to: int, message: list[Any]) -> None:
    """Write a message as a line, whole: a pipe may take a long one in parts, and several threads have messages."""
    line = json.dumps(message).encode() + b"\n"
    try:
        with _telling:
            while line:
                line = line[os.write(to, line) :]
    except BrokenPipeError:
        return  # nobody listens any more; _end_when_alone sees to the rest


def _run(order: dict[str, Any], tell: Tell) -> None:
    try:
        os.chdir(order["folder"])
    except OSError as error:
        raise UserError(
            f"--on: {order['folder']}: {error.strerror} on a node of the cluster; all nodes need the same folders"
        ) from error
    log.addHandler(_Sent(tell))
    log.propagate = False
    recipe = RecipeFile(run=order["recipe"], methods={}, source="recipe").resolve()
    log.setLevel(logging.ERROR)  # what is to be said of the data has been, before the first job
    corpus = load_corpus(recipe)
    log.setLevel(order["level"])
    out, shows, track = Path(order["out"]), partial(Sending, tell), order["track"]
    if order["again"]:
        _wait_for(out if order["language"] is None else run_folder.of_language(out, order["language"]), tell)
    if order["language"] is None:
        train(recipe, out, resume=True, progress=shows, track=track, corpus=corpus)
    else:
        train_language(recipe, out, order["language"], corpus, progress=shows, track=track)


def _wait_for(folder: Path, tell: Tell) -> None:
    """Wait for the process of an earlier try, which its Ray worker may have left behind, but not for ever."""
    if not lock.is_held(folder):
        return
    tell(["say", "waiting for its earlier process, which saves what it has"])
    last = time.monotonic() + SAVING
    while lock.is_held(folder) and time.monotonic() < last:
        time.sleep(TICK)


class Sending:
    """The display of a run in another process.

    Args:
        tell: sends a message there.
        title: of the run, which that process knows by another name.
        budget: of the run, in gradient computations.
    """

    def __init__(self, tell: Tell, title: str, budget: int) -> None:
        self._tell, self._title, self._budget = tell, title, budget

    def __enter__(self) -> "Sending":
        self._tell(["begin", self._budget])
        return self

    def __exit__(self, *_: object) -> None:
        self._tell(["memory", peak_memory(torch.device("cpu"))])

    def step(self, gradients: int, loss: float, speed: float) -> None:
        self._tell(["step", gradients, loss, speed])
        self._tell(["memory", peak_memory(torch.device("cpu"))])

    def validated(self, gradients: int, average: float, metric: str, drift: float) -> None:
        self._tell(["validated", gradients, average, metric, drift])

    def saved(self, checkpoint: Written) -> None:
        if log.isEnabledFor(logging.INFO):
            self.say(in_words(checkpoint))

    def say(self, text: str) -> None:
        self._tell(["say", text.removeprefix(f"{self._title}: ")])


class _Sent(logging.Handler):
    """Log lines, logged in the other process."""

    def __init__(self, tell: Callable[[list[Any]], None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(["log", record.name, record.levelno, record.getMessage()])


class _Told:
    """Tells whether the block was done, or which error has ended it; signals are no errors."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def __enter__(self) -> None:
        """Nothing is to be prepared."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is None:
            self._tell(["done"])
            return False
        if not isinstance(error, Exception) or isinstance(error, Interrupted):
            return False
        names = [name for name, each in KINDS.items() if isinstance(error, each)]
        name = names[0] if names else type(error).__name__
        self._tell(["failed", name, str(error), "".join(traceback.format_exception(error))])
        return True


if __name__ == "__main__":
    main()
