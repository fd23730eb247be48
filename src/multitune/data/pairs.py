"""XNLI and PAWS-X as XTREME has them: ``text TAB text TAB label``, no header, or the labels in a file of their own."""

from collections.abc import Iterator
from pathlib import Path

from multitune.data import fields, lines
from multitune.data.bad import BadRecord, BadRecords, parsed, records
from multitune.data.corpus import Place, Placed, Record


def read(path: str | Path, bad: BadRecords | None = None, *, labels: str | Path | None = None) -> Iterator[Record]:
    """Yield ``{"text", "text_pair", "label"}`` a line, without ``label`` where neither file has it.

    Quotes are text, but around a value whose own quotes are all doubled, as csv writes it.

    Args:
        path: a UTF-8 file of two or three columns, plain or gzipped.
        bad: takes the bad lines; None raises at the first.
        labels: the file with the label of each line, for a file of two columns.

    Raises:
        UserError: naming file and line: the wrong columns, a blank value, files of unequal length.
    """
    return records(placed(path, bad, labels=labels))


def placed(path: str | Path, bad: BadRecords | None = None, *, labels: str | Path | None = None) -> Iterator[Placed]:
    """Yield what ``read`` does, each with its place."""
    return parsed(_rows(path, bad, labels), _parse, bad)


def _rows(
    path: str | Path, bad: BadRecords | None, labels: str | Path | None
) -> Iterator[tuple[Place, tuple[int, list[str]]]]:
    """The columns of each line, a label from its own file among them, and how many there must be."""
    width = 0 if labels is None else 3
    for number, parts in lines.aligned([path] if labels is None else [path, labels], bad):
        columns = "\t".join(parts).split("\t")
        width = width or (2 if len(columns) == 2 else 3)
        if "".join(parts).strip():
            yield Place(str(path), [number]), (width, columns)


def _parse(raw: tuple[int, list[str]]) -> Record:
    width, columns = raw
    if len(columns) != width:
        raise BadRecord(f"{len(columns)} columns with the label; a line is text TAB text{' TAB label' * (width == 3)}")
    names = ("text", "text_pair", "label")[:width]
    return {name: fields.text(_unquoted(value), name) for name, value in zip(names, columns, strict=True)}


def _unquoted(value: str) -> str:
    """The value without the quoting that a csv writer gives one with quotes in it; XTREME's PAWS-X has it."""
    inner = value[1:-1]
    quoted = value.startswith('"') and value.endswith('"') and '""' in inner and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if quoted else value
