"""Ctrl-C and SIGTERM end a run at its next safe place, with what was learnt saved; a second one ends it at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequested(Exception):
    """A signal has come; raised at a safe place, for the run to save what it has. ``signal`` says which it was."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.signal = number


class Leave(BaseException):
    """A signal where nothing has to be saved, or a second one. No ``Exception``: nobody on its way may take it for a
    fault and go on."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.signal = number


@contextmanager
def leaving() -> Iterator[None]:
    """Inside, SIGINT and SIGTERM raise ``Leave``, but for the first one within a ``StopSignal``."""
    before = {number: signal.signal(number, _leave) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    raise Leave(signal.Signals(number))


class StopSignal:
    """While entered, the first SIGINT or SIGTERM is only noted, for ``check``; outside the main thread none is.

    ``requested`` is that signal, or None.
    """

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self._handlers: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._request) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def check(self) -> None:
        """Raise StopRequested where a signal has come."""
        if self.requested is not None:
            raise StopRequested(self.requested)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
