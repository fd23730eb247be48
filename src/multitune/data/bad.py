"""Bad records of a data set: each named with its file and line, all of them counted, none left out in silence."""

from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from multitune.data.corpus import Place, Placed, Record
from multitune.errors import UserError, as_line

Raw = TypeVar("Raw")

KEPT = 10_000
"""Bad records that are remembered: a file may have a thousand million bad lines."""


class BadRecord(ValueError):
    """What is wrong with one record, and what is allowed; ``label`` says which of its labels, where that matters."""

    def __init__(self, problem: str, label: int = 0) -> None:
        super().__init__(problem)
        self.label = label


class BadRecords:
    """The bad records that readers meet, in the order they meet them: all are counted, the first ``KEPT`` remembered.

    A reader that is given one adds to it and goes on with the next record; ``read`` functions without one raise at the
    first bad record.
    """

    def __init__(self) -> None:
        self._found: list[tuple[str, str]] = []
        self._count = 0

    def add(self, place: str, problem: str) -> None:
        """Note a bad record: ``place`` is file:line, ``problem`` says what is wrong and what is allowed."""
        self._count += 1
        if self._count <= KEPT:
            self._found.append((as_line(place), as_line(problem)))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._found)

    def refuse(self, lost: str = "", way_out: str = "") -> None:
        """Stop where there are any.

        Args:
            lost: what would be lost where they were left out, in words.
            way_out: what would help then, if there is anything.

        Raises:
            UserError: one line with the first bad record and how many more there are.
        """
        if not self._found:
            return
        place, problem = self._found[0]
        more = len(self) - 1
        which = ", ".join(filter(None, [counted(more, "more bad record") if more else "", lost]))
        helps = ", ".join(
            filter(None, ["multitune data lists them", way_out if lost else "skip_bad: true leaves them out"])
        )
        raise UserError(f"{place}: {problem} ({'; '.join(filter(None, [which, helps]))})")


def counted(number: int, what: str) -> str:
    """``1 bad record``, ``2 bad records``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def first_of(names: Collection[str], most: int) -> str:
    """``a, b and 3 more``: the first names, at most so many, and how many there are besides."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(islice(names, most)) + more


def report(bad: BadRecords | None, place: str, problem: str) -> None:
    """Note a bad record, or raise where nobody notes them.

    Raises:
        UserError: ``bad`` is None.
    """
    if bad is None:
        raise UserError(f"{place}: {problem}")
    bad.add(place, problem)


def parsed(
    rows: Iterable[tuple[Place, Raw]], parse: Callable[[Raw], Record], bad: BadRecords | None
) -> Iterator[Placed]:
    """Parse the rows of a reader, and report whatever ``parse`` raises ``BadRecord`` for.

    Raises:
        UserError: a bad record, and ``bad`` is None.
    """
    for place, raw in rows:
        try:
            record = parse(raw)
        except BadRecord as problem:
            report(bad, place.of(problem.label), str(problem))
        else:
            yield place, record


def records(placed: Iterable[Placed]) -> Iterator[Record]:
    """The records alone."""
    return (record for _, record in placed)
