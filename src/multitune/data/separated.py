"""Tables: TSV, where quotes are text, and quoted ones such as CSV, each with named columns or by position."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from multitune.data import lines
from multitune.data.bad import BadRecords, report
from multitune.data.corpus import Place

Row = tuple[Place, dict[str, str]]
MARKS = (";", "\t")
"""What separates the columns of a ``.csv`` whose header has no comma, the first that it has: spreadsheets write
semicolons where the comma is the decimal mark."""


def rows(
    path: str | Path,
    columns: Mapping[str, str | int],
    bad: BadRecords | None = None,
    *,
    quoted: bool | None = None,
) -> Iterator[Row]:
    """Yield ``{field: value}`` a row, each with its place. Lines without a value are no rows.

    Args:
        path: a UTF-8 file, plain or gzipped; commas separate the columns of ``.csv`` (semicolons or tabs where its
            header has no comma), tabs those of any other.
        columns: field -> the name of its column in the header (the first row), or its position from 0 in a file
            without one.
        bad: takes the bad rows; None raises at the first.
        quoted: a value may stand in double quotes, a quote in it doubled (RFC 4180); by default in ``.csv`` alone.

    Raises:
        UserError: naming file and line: a column that the header lacks, a row of another width, broken quoting.
    """
    named = any(isinstance(column, str) for column in columns.values())
    split = _split(path, bad, quoted, named=named)
    first = next(split, None)
    if first is None:
        return
    number, head = first
    positions = {field: _position(column, head) for field, column in columns.items()}
    for field, column in columns.items():
        if head.count(str(column)) > 1 and isinstance(column, str):
            report(bad, f"{path}:{number}", f"column {column!r} stands {head.count(column)} times in the header")
            return
        if positions[field] is None:
            has = (
                f"the header has {', '.join(head)} (columns: in the recipe names them)"
                if named
                else f"the first row has {len(head)} columns"
            )
            report(bad, f"{path}:{number}", f"no column {column!r} for {field}: {has}")
            return
    for number, row in split if named else chain([first], split):
        if len(row) == len(head):
            yield Place(str(path), [number]), {field: row[at] for field, at in positions.items() if at is not None}
        else:
            report(bad, f"{path}:{number}", f"{len(row)} columns; the first row has {len(head)}")


def objects(path: str | Path, bad: BadRecords | None = None) -> Iterator[dict[str, str]]:
    """Yield ``{column: value}`` a row, of all columns that the header names; spreadsheets leave several without a name.

    Raises:
        UserError: as ``rows`` does.
    """
    head = header(path, bad)
    columns = {name: name for name in head if name.strip() or head.count(name) == 1}
    return (values for _, values in rows(path, columns, bad))


def header(path: str | Path, bad: BadRecords | None = None) -> list[str]:
    """The names of a file's columns; none where it is empty.

    Raises:
        UserError: as ``rows`` does.
    """
    _, head = next(_split(path, bad, None, named=True), (0, []))
    return head


def _split(
    path: str | Path, bad: BadRecords | None, quoted: bool | None, *, named: bool
) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file as lists, each with the number of its first line."""
    comma = ".csv" in map(str.lower, Path(path).suffixes)
    if not (comma if quoted is None else quoted):
        return _plain(path, bad)
    return _quoted(path, MARKS if comma and named else (), "," if comma else "\t", bad)


def _position(column: str | int, head: Sequence[str]) -> int | None:
    if isinstance(column, str):
        return head.index(column) if column in head else None
    return column if column < len(head) else None


def _plain(path: str | Path, bad: BadRecords | None) -> Iterator[tuple[int, list[str]]]:
    return ((number, line.split("\t")) for number, line in lines.numbered(path, bad) if line.strip())


def _quoted(
    path: str | Path, marks: Sequence[str], delimiter: str, bad: BadRecords | None
) -> Iterator[tuple[int, list[str]]]:
    """Rows by the number of their first line; a row may go over several lines.

    Args:
        marks: separate the columns where the first line that is not blank has one of them and no ``delimiter``.
    """
    numbered, begin = lines.numbered(path, bad), list[tuple[int, str]]()
    for each in numbered:
        begin.append(each)
        if each[1].strip():
            delimiter = next((mark for mark in marks if mark in each[1] and delimiter not in each[1]), delimiter)
            break
    source = _RowLines(chain(begin, numbered))
    csv.field_size_limit(lines.LONGEST)  # Python's own limit, of the process, is 128 KiB
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    while True:
        source.begin_row()
        known = len(bad or ())
        try:
            row = next(reader, None)
        except csv.Error as error:
            report(bad, f"{path}:{source.taken[0]}", _told(error, source.taken))
            continue
        if row is None:
            return
        holds = len(row) == 1 or any(map(str.strip, row))  # spreadsheets end with lines of commas
        if holds and (len(source.taken) == 1 or len(bad or ()) == known):
            yield source.taken[0], row


def _told(error: csv.Error, taken: Sequence[int]) -> str:
    if "new-line character" in str(error):
        return "a carriage return in a value without quotes; a line feed, perhaps after one, ends a row"
    lost = f"; no row is read up to line {taken[-1]}" if len(taken) > 1 else ""
    return f"broken quoting ({error}); a quote within a value is doubled{lost}"


class _RowLines:
    """The lines that ``csv`` makes a row of, each with its end; ``taken`` has their numbers."""

    def __init__(self, numbered: Iterator[tuple[int, str]]) -> None:
        self._numbered = numbered
        self.begin_row()

    def begin_row(self) -> None:
        self.taken: list[int] = []
        self._size = 0

    def __iter__(self) -> "_RowLines":
        return self

    def __next__(self) -> str:
        number, line = next(self._numbered)
        self.taken.append(number)
        self._size += len(line) + 1
        if len(self.taken) > 1 and self._size > lines.LONGEST:
            raise csv.Error(f"a row of more than {lines.LONGEST} characters")
        return f"{line}\n"
