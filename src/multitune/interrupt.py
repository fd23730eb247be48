"""Ctrl-C and SIGTERM end a run after its current step, with what was learnt saved; a second one ends it at once."""

import signal
import threading
from types import FrameType


class Interrupted(Exception):
    """A signal asked the run to end. Its checkpoint and its model are saved."""


class StopSignal:
    """While entered, the first SIGINT or SIGTERM only sets ``requested``; outside the main thread it does nothing."""

    def __init__(self) -> None:
        self.requested = False
        self._handlers: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            self._handlers = {
                number: signal.signal(number, self._request) for number in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
