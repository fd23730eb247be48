"""A table apart from how it is shown: named columns, and cells that know both their text and their values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from multitune.errors import printable
from multitune.results.comparison import Interval, Pair
from multitune.results.json_files import finite

NONE = "-"
"""What is shown where there is no value."""

Plain = str | int | float | bool | None


class Cell(Protocol):
    """A cell of a table."""

    def beside(self) -> str:
        """Its text in one line."""

    def below(self) -> list[str]:
        """Its text where columns are narrow, in the lines that it may have there."""

    def values(self, key: str) -> dict[str, Plain]:
        """What JSON and CSV have of it, by column; ``key`` is the name of its own."""


@dataclass(frozen=True)
class Words:
    """A text: a name, and keys with their values, which go below the name where columns are narrow."""

    name: Plain
    keys: Mapping[str, Plain] = field(default_factory=dict)

    def beside(self) -> str:
        return " ".join(self.below())

    def below(self) -> list[str]:
        name = NONE if self.name is None else str(self.name)
        return [printable(line) for line in (name, *(f"{key}={value}" for key, value in self.keys.items()))]

    def values(self, key: str) -> dict[str, Plain]:
        return {key: self.name, **self.keys}


@dataclass(frozen=True)
class Lines:
    """A text of several lines, which stay lines."""

    text: Sequence[str]

    def beside(self) -> str:
        return "\n".join(self.below())

    def below(self) -> list[str]:
        return [printable(line) for line in self.text]

    def values(self, key: str) -> dict[str, Plain]:
        return {key: "\n".join(self.text)}


@dataclass(frozen=True)
class Number:
    """A number with so many decimals; None where there is none."""

    value: float | None
    digits: int = 2
    sign: str = ""
    unit: str = ""

    def beside(self) -> str:
        return NONE if self.value is None else f"{self.value:{self.sign}.{self.digits}f}{self.unit}"

    def below(self) -> list[str]:
        return [self.beside()]

    def values(self, key: str) -> dict[str, Plain]:
        return {key: None if self.value is None else finite(self.value)}


@dataclass(frozen=True)
class Estimate:
    """A number in percent and its interval, which goes below it where columns are narrow."""

    interval: Interval | None
    sign: str = ""
    none: str = NONE
    digits: int = 1

    def beside(self) -> str:
        return " ".join(self.below())

    def below(self) -> list[str]:
        if self.interval is None:
            return [self.none]
        mean, low, high = (
            f"{n:{self.sign}.{self.digits}f}" for n in (self.interval.mean, self.interval.low, self.interval.high)
        )
        return [mean, f"[{low}, {high}]"]

    def values(self, key: str) -> dict[str, Plain]:
        return _bounds(key, self.interval)


@dataclass(frozen=True)
class Spread:
    """A number and half the width of its interval."""

    interval: Interval | None
    digits: int
    sign: str = ""

    def beside(self) -> str:
        if self.interval is None:
            return NONE
        half = self.interval.high - self.interval.mean
        return f"{self.interval.mean:{self.sign}.{self.digits}f}" + (f" ±{half:.{self.digits}f}" if half else "")

    def below(self) -> list[str]:
        return self.beside().split(" ")

    def values(self, key: str) -> dict[str, Plain]:
        return _bounds(key, self.interval)


@dataclass(frozen=True)
class Beside:
    """A figure of ours, and a paper's in brackets."""

    pair: Pair | None
    sign: str = ""

    def beside(self) -> str:
        if self.pair is None:
            return ""
        return f"{Number(self.pair.ours, 1, self.sign).beside()} ({Number(self.pair.paper, 1, self.sign).beside()})"

    def below(self) -> list[str]:
        return self.beside().split(" ")

    def values(self, key: str) -> dict[str, Plain]:
        pair = self.pair
        return {key: None if pair is None else pair.ours, f"{key}_paper": None if pair is None else pair.paper}


def _bounds(key: str, interval: Interval | None) -> dict[str, Plain]:
    if interval is None:
        return dict.fromkeys((key, f"{key}_low", f"{key}_high"))
    return {key: interval.mean, f"{key}_low": interval.low, f"{key}_high": interval.high}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: its name in JSON and CSV.
        head: its name in the terminal, ``key`` where it has no other.
        text: whether it holds text, which begins at the left, and not numbers, which end at the right.
        cost: whether it says what a run cost: such columns go first where the terminal is narrow, the last before the
            others.
        once: whether a value that stands below its like is left blank.
        folds: whether its text may go on in a next line.
        beside: whether it is read with the column before it, and stays in one part of a table with it.
    """

    key: str
    head: str | None = None
    text: bool = False
    cost: bool = False
    once: bool = False
    folds: bool = False
    beside: bool = False

    @property
    def title(self) -> str:
        """What stands above it in the terminal."""
        return printable(self.key if self.head is None else self.head)


@dataclass
class Sheet:
    """A table.

    Attributes:
        name: in JSON.
        columns: from the left; the first ``leading`` of them stand in each part of a table that is too wide for one.
        rows: from the top, a cell a column.
        breaks: the rows that a line stands above.
        notes: sentences below it.
    """

    name: str
    columns: Sequence[Column]
    leading: int = 1
    rows: list[list[Cell]] = field(default_factory=list)
    breaks: set[int] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: Cell | Plain) -> None:
        """Add a row; what is not a cell becomes a text."""
        assert len(cells) == len(self.columns)
        self.rows.append([Words(each) if isinstance(each, str | int | float | None) else each for each in cells])

    def rule(self) -> None:
        """Draw a line between the rows that there are and those that follow."""
        self.breaks.add(len(self.rows))

    def records(self) -> list[dict[str, Plain]]:
        """A flat dict for each row."""
        keys = [column.key for column in self.columns]
        return [
            {name: value for key, cell in zip(keys, row, strict=True) for name, value in cell.values(key).items()}
            for row in self.rows
        ]
