"""The screen on stderr: bars at the bottom of a terminal while something goes on; in a pipe, lines alone."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TaskID, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from multitune.errors import printable

BRIEF = 0.3
"""Seconds that a brief stage lasts before its bar is shown: what comes and goes at once would flicker."""
SHORTEST, LONGEST = 8, 40
"""Columns of a bar."""
TIME = 7
"""Columns of the time left."""
SPEED = 120
"""Seconds, over which the speed is measured that the time left follows from; one step may take many."""


class Terminal:
    """Bars at the bottom of stderr, gone at the end, and lines that stay above them.

    Args:
        console: where to; by default stderr.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(file=sys.stderr, highlight=False)
        self.moves = self._console.is_terminal
        self._progress = _Fitted(self._console)

    def __enter__(self) -> "Terminal":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def bar(self, title: str, total: int | None = None, *, brief: bool = False, in_bytes: bool = False) -> "_Bar":
        return _Bar(self._progress, printable(title), total, {"brief": brief, "in_bytes": in_bytes})

    def say(self, text: str) -> None:
        self._console.print(printable(text), markup=False, soft_wrap=True)


class _Bar:
    """A row of the progress."""

    def __init__(self, progress: Progress, title: str, total: int | None, kind: Mapping[str, Any]) -> None:
        self._progress, self._begun, self._kind = progress, False, kind
        self._row: TaskID = progress.add_task(title, total=total, state=(), **kind)

    def advance(self, count: int = 1) -> None:
        self._progress.advance(self._row, count)

    def show(self, done: int, *state: str) -> None:
        if not self._begun:  # what was done before, as of a resumed run, says nothing of the speed
            self._progress.reset(self._row, completed=done, state=state, **self._kind)
            self._begun = True
        self._progress.update(self._row, completed=done, state=state)

    def resize(self, total: int) -> None:
        self._progress.reset(self._row, total=total, state=(), **self._kind)
        self._begun = False

    def extend(self, total: int) -> None:
        self._progress.update(self._row, total=total)

    def close(self) -> None:
        self._progress.remove_task(self._row)


class _Fitted(Progress):
    """Rows fitted to the width: what a state says last goes first, then the bar, then all of the state."""

    def __init__(self, console: Console) -> None:
        self._fitted_to = console  # asked at each drawing, as a window may be resized
        self._names = 0  # columns of the widest name so far: bars that begin elsewhere each time would flicker
        super().__init__(
            console=console,
            speed_estimate_period=SPEED,
            disable=not console.is_terminal,
            transient=True,
            redirect_stdout=False,
            expand=True,
        )

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        rows = [task for task in tasks if not task.fields["brief"] or (task.elapsed or 0) >= BRIEF]
        width = self._fitted_to.width
        self._names = max(self._names, _widest(row.description for row in rows))
        names = min(self._names, width // 2)
        room = width - names - _widest(_count(row) for row in rows) - TIME - 3  # a blank between two columns
        states = [_widest(_state(row, parts) for row in rows) for parts in range(1 + _most_parts(rows))]
        fitting = [parts for parts, columns in enumerate(states) if columns + 1 + SHORTEST <= room]
        parts = fitting[-1] if fitting else 0
        if not parts and len(states) > 1 and states[1] <= room:
            return _table(rows, names, 1, 0)
        return _table(rows, names, parts, min(LONGEST, room - 1 - states[parts]))


def _table(rows: Sequence[Task], names: int, parts: int, bars: int) -> Table:
    """The rows with so many parts of their states, and with bars of so many columns where these are not too few."""
    table, left, bar = Table.grid(padding=(0, 1, 0, 0)), TimeRemainingColumn(compact=True), BarColumn(max(1, bars))
    has_bar = bars >= SHORTEST
    table.add_column(overflow="fold", width=names)
    if has_bar:
        table.add_column()
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    for row in rows:
        table.add_row(
            Text(row.description), *([bar(row)] if has_bar else []), _count(row), _state(row, parts), left(row)
        )
    return table


def _widest(texts: Iterable[str]) -> int:
    return max(map(cell_len, texts), default=0)


def _most_parts(rows: Iterable[Task]) -> int:
    return max((len(row.fields["state"]) for row in rows), default=0)


def _count(row: Task) -> str:
    """How much is done of how much, as wide at first as at the end."""
    if row.total is None:
        return ""
    digits, unit, scale = (1, " MB", 1e6) if row.fields["in_bytes"] else (0, "", 1)
    total = f"{row.total / scale:.{digits}f}"
    return f"{row.completed / scale:{len(total)}.{digits}f}/{total}{unit}"


def _state(row: Task, parts: int) -> str:
    return "  ".join(row.fields["state"][:parts])
