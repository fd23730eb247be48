"""Rows that are made when they are asked for, where memory need not hold all records or examples as Python objects."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, final, overload

import numpy as np

Row = dict[str, Any]


class Rows(Sequence[Row], ABC):
    """A sequence that makes each row anew; a slice is a list."""

    @abstractmethod
    def row(self, number: int) -> Row:
        """The row of that number, from 0."""

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        numbers = range(len(self))[place]
        return self.row(numbers) if isinstance(numbers, int) else [self.row(number) for number in numbers]

    def __iter__(self) -> Iterator[Row]:
        return map(self.row, range(len(self)))


@final
class View(Rows):
    """So many rows, each as a function gives it."""

    def __init__(self, count: int, row: Callable[[int], Row]) -> None:
        self._count, self._row = count, row

    def __len__(self) -> int:
        return self._count

    def row(self, number: int) -> Row:
        return self._row(number)


def chosen(rows: Sequence[Row], numbers: Sequence[int]) -> View:
    """Some of the rows, in the order of ``numbers``."""
    return View(len(numbers), lambda number: rows[numbers[number]])


def joined(parts: Sequence[Sequence[Row]]) -> View:
    """The rows of all parts, one part after the other."""
    ends = np.cumsum([len(part) for part in parts])

    def row(number: int) -> Row:
        part = int(np.searchsorted(ends, number, side="right"))
        return parts[part][number - int(ends[part])]  # from its end

    return View(int(ends[-1]) if len(ends) else 0, row)
