"""What takes long says what it is and how far it has come; the screen that is open, if any, shows it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol


class Bar(Protocol):
    """One thing that goes on."""

    def advance(self, count: int = 1) -> None:
        """So much more of it is done."""

    def show(self, done: int, *state: str) -> None:
        """So much of it is done; ``state`` says more, the most important first."""

    def resize(self, total: int) -> None:
        """It begins anew, with a length that was not known."""

    def extend(self, total: int) -> None:
        """It is longer than was known; what is done stays done."""

    def close(self) -> None:
        """It is over, and nobody needs to see it any more."""


class Screen(Protocol):
    """Where a command shows what it does."""

    moves: bool
    """Whether bars are seen; where they are not, lines have to do."""

    def bar(self, title: str, total: int | None = None, *, brief: bool = False, in_bytes: bool = False) -> Bar:
        """A new bar at the bottom.

        Args:
            title: what goes on, which is never cut.
            total: its length; None where that is unknown.
            brief: it may be over at once; it is shown only where it lasts.
            in_bytes: what is counted are bytes, which are shown as megabytes.
        """

    def say(self, text: str) -> None:
        """A line that stays."""

    def __enter__(self) -> "Screen": ...
    def __exit__(self, *_: object) -> None: ...


_open: ContextVar[Screen | None] = ContextVar("screen", default=None)
_reading: ContextVar["_Files | None"] = ContextVar("reading", default=None)


@contextmanager
def shown_on(make: Callable[[], Screen]) -> Iterator[Screen]:
    """Inside, a screen is open: the one that was open already, or else a new one."""
    if (already := _open.get()) is not None:
        yield already
        return
    with make() as screen:
        token = _open.set(screen)
        try:
            yield screen
        finally:
            _open.reset(token)


def opened() -> Screen | None:
    """The screen that is open, if any."""
    return _open.get()


@contextmanager
def stage(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Inside, something goes on; yields what is told of each part that is done."""
    screen = _open.get()
    if screen is None:
        yield _unseen
        return
    bar = screen.bar(what, total, brief=True)
    try:
        yield bar.advance
    finally:
        bar.close()


def _unseen(count: int) -> None:
    """Nobody watches."""


class _Files:
    """Files that are read, on a bar that counts their bytes."""

    def __init__(self, bar: Bar) -> None:
        self._bar, self._sizes = bar, dict[Path, int]()

    def expect(self, paths: Iterable[Path]) -> None:
        self._sizes |= {path: path.stat().st_size for path in paths if path.is_file()}
        if total := sum(self._sizes.values()):
            self._bar.extend(total)

    def passed(self, path: Path, size: int) -> None:
        if path in self._sizes:
            self._bar.advance(size)


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Inside, files are read; readers tell of them by ``expect`` and ``passed``, from anywhere."""
    screen = _open.get()
    if screen is None:
        yield
        return
    bar = screen.bar(what, brief=True, in_bytes=True)
    token = _reading.set(_Files(bar))
    try:
        yield
    finally:
        _reading.reset(token)
        bar.close()


def expect(paths: Iterable[Path]) -> None:
    """These files will be read, each once, in what goes on; the time left is told from their sizes."""
    if (files := _reading.get()) is not None:
        files.expect(paths)


def passed(path: Path, size: int) -> None:
    """So many bytes more of a file have been read; those of a file that nobody expects do not count."""
    if (files := _reading.get()) is not None:
        files.passed(path, size)
