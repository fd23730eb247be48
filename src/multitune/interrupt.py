"""Ctrl-C and SIGTERM end a run at its next safe place, with what was learnt saved; a second one ends it at once."""

import signal
import threading
from types import FrameType


class Interrupted(Exception):
    """A signal asked the run to end. Its checkpoint and its model are saved; ``signal`` says which it was."""

    def __init__(self, message: str, number: signal.Signals) -> None:
        super().__init__(message)
        self.signal = number


class StopRequested(Exception):
    """A signal has come; raised at a safe place, for the run to save what it has. ``signal`` says which it was."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.signal = number


class StopSignal:
    """While entered, the first SIGINT or SIGTERM is only noted, for ``check``; outside the main thread none is."""

    def __init__(self) -> None:
        self._requested: signal.Signals | None = None
        self._handlers: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            self._handlers = {
                number: signal.signal(number, self._request) for number in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def check(self) -> None:
        """Raise StopRequested where a signal has come."""
        if self._requested is not None:
            raise StopRequested(self._requested)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self._requested = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
