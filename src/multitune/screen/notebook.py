"""The screen in a notebook: one output of the cell, which holds the bars while they are there, and lines below."""

import time
from html import escape
from typing import Any

from multitune.errors import printable
from multitune.screen.words import duration

SELDOM = 0.25
"""Seconds between two drawings of what only advances."""


class Cell:
    """Bars in the output of the cell that runs, gone at the end, and printed lines that stay."""

    moves = True

    def __init__(self) -> None:
        self._bars: dict[int, _Bar] = {}
        self._drawn = 0.0
        self._output: Any = None

    def __enter__(self) -> "Cell":
        from IPython.display import DisplayHandle

        self._output = DisplayHandle()  # type: ignore[no-untyped-call]
        self._output.display({"text/plain": ""}, raw=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.clear()
        self.draw()

    def bar(self, title: str, total: int | None = None, *, brief: bool = False, in_bytes: bool = False) -> "_Bar":
        bar = _Bar(self, printable(title), total, in_bytes)
        self._bars[id(bar)] = bar
        self.draw()
        return bar

    def say(self, text: str) -> None:
        print(printable(text))

    def remove(self, bar: "_Bar") -> None:
        """Forget a bar."""
        self._bars.pop(id(bar), None)
        self.draw()

    def draw(self, *, seldom: bool = False) -> None:
        """Show the bars as they are now; ``seldom`` leaves out what comes shortly after another drawing."""
        if seldom and time.monotonic() - self._drawn < SELDOM:
            return
        self._drawn = time.monotonic()
        html = "".join(bar.html() for bar in self._bars.values())
        self._output.update({"text/html": html, "text/plain": ""}, raw=True)


class _Bar:
    """One line of the output."""

    def __init__(self, cell: Cell, title: str, total: int | None, in_bytes: bool) -> None:
        self._cell, self._title, self._total, self._in_bytes = cell, title, total, in_bytes
        self._done, self._state, self._first = 0, "", (0, time.monotonic())

    def advance(self, count: int = 1) -> None:
        self._done += count
        self._cell.draw(seldom=True)

    def show(self, done: int, *state: str) -> None:
        if not self._done:  # what was done before, as of a resumed run, says nothing of the speed
            self._first = (done, time.monotonic())
        self._done, self._state = done, "  ".join(state)
        self._cell.draw(seldom=True)

    def resize(self, total: int) -> None:
        self._total, self._done, self._state = total, 0, ""

    def extend(self, total: int) -> None:
        self._total = total

    def close(self) -> None:
        self._cell.remove(self)

    def html(self) -> str:
        """The bar as text, the browser's bar, how much is done, the state, and the time left."""
        if self._total is None:
            return f"<div>{escape(self._title)} <progress></progress></div>"
        done, total = self._done, self._total
        count = f"{done / 1e6:.1f}/{total / 1e6:.1f} MB" if self._in_bytes else f"{done}/{total}"
        told = " ".join(filter(None, (count, self._state, self._left())))
        bar = f'<progress value="{self._done}" max="{self._total}"></progress>'
        return f"<div>{escape(self._title)} {bar} {escape(told)}</div>"

    def _left(self) -> str:
        done, began = self._first
        if self._total is None or self._done <= done:
            return ""
        return duration((time.monotonic() - began) * (self._total - self._done) / (self._done - done)) + " left"
