"""What a person sees while a run goes on: a progress bar on stderr, or a line a validation where nothing can move."""

import logging
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from multitune.errors import printable
from multitune.training.checkpoint_writer import Written

log = logging.getLogger(__name__)


class Display(Protocol):
    """What a run tells while it trains."""

    def __enter__(self) -> "Display": ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def step(self, gradients: int, loss: float, speed: float) -> None:
        """``gradients`` computed so far, the mean loss of late, gradients per second."""

    def validated(self, gradients: int, average: float, metric: str, drift: float) -> None:
        """New scores on dev, in percent, and the distance from the pretrained weights."""

    def saved(self, checkpoint: Written) -> None:
        """A checkpoint is on disk."""

    def say(self, text: str) -> None:
        """A line that stays."""


Shows = Callable[[str, int], Display]
"""Makes the display of a run from its title and its budget."""


def in_words(checkpoint: Written) -> str:
    """What was written, and how long that took."""
    return (
        f"checkpoint {checkpoint.path.name} of {checkpoint.bytes / 1e6:.1f} MB written in {checkpoint.seconds:.2f} s; "
        f"training stood still for {checkpoint.stood_still:.2f} s"
    )


class Silent:
    """Says nothing: what a program wants."""

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *_: object) -> None:
        return

    def step(self, gradients: int, loss: float, speed: float) -> None:
        return

    def validated(self, gradients: int, average: float, metric: str, drift: float) -> None:
        return

    def saved(self, checkpoint: Written) -> None:
        return

    def say(self, text: str) -> None:
        return


class Terminal:
    """A bar with loss, gradients a second, time left and the newest dev score; plain lines when not on a terminal.

    Lines about checkpoints are for those who have set the level of multitune's logging to INFO, as ``-v`` does.
    """

    def __init__(self, title: str, budget: int) -> None:
        self._console = Console(file=sys.stderr, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._title, self._budget, self._dev = title, budget, ""
        self._task = self._progress.add_task(title, total=budget, state="")

    def __enter__(self) -> "Terminal":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, gradients: int, loss: float, speed: float) -> None:
        state = f"loss {loss:.3f}  {speed:.1f}/s  {self._dev}"
        self._progress.update(self._task, completed=gradients, state=state)

    def validated(self, gradients: int, average: float, metric: str, drift: float) -> None:
        self._dev = f"dev {metric} {average:.1f}"
        if not self._console.is_terminal:
            self.say(f"{self._title}: {gradients}/{self._budget} gradients, {self._dev}, drift {drift:.2f}")

    def saved(self, checkpoint: Written) -> None:
        if log.isEnabledFor(logging.INFO):
            self.say(f"{self._title}: {in_words(checkpoint)}")

    def say(self, text: str) -> None:
        self._progress.console.print(printable(text), markup=False, soft_wrap=True)
