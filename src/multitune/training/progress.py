"""What a person sees while a run goes on: a bar on the screen, or a line a validation where nothing can move."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol

from multitune.results.decimals import decimals
from multitune.screen.places import here
from multitune.screen.stages import shown_on
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


class OnScreen:
    """A bar with loss, speed, the newest dev score and the time left; lines of scores where no bar can move.

    Lines about checkpoints are for those who have set the level of multitune's logging to INFO, as ``-v`` does.
    """

    def __init__(self, title: str, budget: int) -> None:
        self._title, self._budget, self._dev = title, budget, ""
        self._opened = ExitStack()

    def __enter__(self) -> "OnScreen":
        self._screen = self._opened.enter_context(shown_on(here))
        self._bar = self._screen.bar(self._title, self._budget)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._opened.close()

    def step(self, gradients: int, loss: float, speed: float) -> None:
        told = (self._dev, f"loss {loss:.3f}", f"{speed:.1f}/s")
        self._bar.show(gradients, *filter(None, told))

    def validated(self, gradients: int, average: float, metric: str, drift: float) -> None:
        self._dev = f"dev {metric} {average:.{decimals(metric)}f}"
        if not self._screen.moves:
            self.say(f"{self._title}: {gradients}/{self._budget} gradients, {self._dev}, drift {drift:.2f}")

    def saved(self, checkpoint: Written) -> None:
        if log.isEnabledFor(logging.INFO):
            self.say(f"{self._title}: {in_words(checkpoint)}")

    def say(self, text: str) -> None:
        self._screen.say(text)
