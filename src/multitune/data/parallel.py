"""Parallel text: line n of one file translates line n of the other (Multi30k, Tatoeba, OPUS)."""

from collections.abc import Iterator
from pathlib import Path

from multitune.data import fields, lines
from multitune.data.bad import BadRecords, parsed, records
from multitune.data.corpus import Place, Placed, Record


def read(source: str | Path, target: str | Path, bad: BadRecords | None = None) -> Iterator[Record]:
    """Yield ``{"source", "target"}`` a line. Blank lines at the end of either file do not count.

    Args:
        source: a UTF-8 file, plain or gzipped.
        target: its translation.
        bad: takes the bad pairs; None raises at the first.

    Raises:
        UserError: naming file and line: a blank line on one side, a damaged file, files of unequal length.
    """
    return records(placed(source, target, bad))


def placed(source: str | Path, target: str | Path, bad: BadRecords | None = None) -> Iterator[Placed]:
    """Yield what ``read`` does, each with its place in the source file."""
    rows = ((Place(str(source), [number]), pair) for number, pair in lines.aligned([source, target], bad))
    return parsed(rows, lambda pair: _parse(pair, target), bad)


def _parse(pair: tuple[str, ...], target: str | Path) -> Record:
    return {"source": fields.text(pair[0], "the line"), "target": fields.text(pair[1], f"its translation in {target}")}
