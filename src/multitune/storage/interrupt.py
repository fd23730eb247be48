"""Ctrl-C, SIGTERM and a closed terminal end a run at its next safe place, with what was learnt saved; a second signal
ends it at once."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

CLOSED = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()
"""What comes where a terminal is closed, or a session of ssh has ended; Windows has no such signal."""
ECHO = 5.0
"""Seconds in which a second SIGTERM is the first one: clusters signal all processes, and launchers pass it on."""


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


def _heeded() -> tuple[signal.Signals, ...]:
    """The signals that end a run: a closed terminal is none where it is ignored, as ``nohup`` has it."""
    closed = (number for number in CLOSED if signal.getsignal(number) != signal.SIG_IGN)
    return (signal.SIGINT, signal.SIGTERM, *closed)


@contextmanager
def leaving() -> Iterator[None]:
    """Inside, SIGINT, SIGTERM and SIGHUP raise ``Leave``, but for the first one within a ``StopSignal``."""
    before = {number: signal.signal(number, _leave) for number in _heeded()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    raise Leave(signal.Signals(number))


class StopSignal:
    """While entered, the first SIGINT, SIGTERM or SIGHUP is only noted, for ``check``; outside the main thread none is.

    A SIGTERM that soon follows another one is the same (``ECHO``), and a SIGHUP that follows another signal changes
    nothing: a terminal that is closed meanwhile asks for no more haste.

    ``requested`` is that signal, or None.
    """

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self._noted_at = 0.0
        self._handlers: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._request) for number in _heeded()}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore(*self._handlers)

    def check(self) -> None:
        """Raise StopRequested where a signal has come."""
        if self.requested is not None:
            raise StopRequested(self.requested)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested is None:
            self.requested, self._noted_at = signal.Signals(number), time.monotonic()
            self._restore(*((signal.SIGINT, signal.SIGTERM) if number == signal.SIGINT else (signal.SIGINT,)))
        elif number not in CLOSED and time.monotonic() - self._noted_at >= ECHO:
            self._restore(*self._handlers)
            signal.raise_signal(number)

    def _restore(self, *numbers: signal.Signals) -> None:
        for number in numbers:
            if number in self._handlers:
                signal.signal(number, self._handlers.pop(number))
