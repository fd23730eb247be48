"""Rows of Arrow files of one's own: streams, as ``datasets`` keeps them, and files with an index, such as Feather's."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from multitune.data import parquet
from multitune.data.bad import BadRecords
from multitune.data.corpus import Place
from multitune.data.parquet import ROWS, Format, Values
from multitune.screen.stages import passed

SUFFIXES = (".arrow", ".feather")
MAGIC = b"ARROW1\0\0"
"""Begins a file with an index; a stream with all of its batches follows."""
DICTIONARY, BATCH = 2, 3
"""Kinds of a message's content, as Message.fbs numbers them."""


def rows(path: Path, columns: Mapping[str, str], bad: BadRecords | None) -> Iterator[tuple[Place, Values]]:
    """The rows of a file as values by field, each with its place; names stand for class labels.

    Raises:
        UserError: (without ``bad``) no such file, one that is damaged, compressed inside or has columns of other types
            than texts, numbers, truth values, and lists and objects of these; or a column that it lacks.
    """
    return parquet.rows(path, columns, bad, ARROW)


def objects(path: Path, bad: BadRecords | None) -> Iterator[Values]:
    """The rows of a file with all of its columns.

    Raises:
        UserError: as ``rows`` does.
    """
    return parquet.objects(path, bad, ARROW)


@contextmanager
def _stream(path: Path) -> Iterator[Any]:
    """The file's stream of messages, mapped into memory."""
    from pyarrow import memory_map

    with memory_map(str(path)) as file:
        begin = len(MAGIC) if file.read(len(MAGIC)) == MAGIC else 0
        file.seek(begin)
        yield file


def _schema(path: Path) -> Any:
    from pyarrow.ipc import open_stream

    with _stream(path) as file, open_stream(file) as reader:
        return reader.schema


def _rows(path: Path, columns: Sequence[str]) -> Iterator[Values]:
    """Rows of a file, so that memory does not grow with it: what is mapped is read where it lies."""
    from pyarrow import Table
    from pyarrow.ipc import open_stream

    _check(path)
    with _stream(path) as file, open_stream(file) as reader:
        for column in columns:
            _check_type(column, reader.schema.field(column).type)
        begin = file.tell()
        for batch in reader:
            batch.validate(full=True)  # its offsets lead to where the texts are, whoever wrote them
            for part in Table.from_batches([batch]).select(columns).to_batches(max_chunksize=ROWS):
                yield from chain.from_iterable(each.to_pylist() for each in parquet.parts(part))
            passed(path, file.tell() - begin)
            begin = file.tell()


def _check(path: Path) -> None:
    """Raise ``ValueError`` where a batch is compressed: a few bytes may unpack to any number of them."""
    from pyarrow.ipc import MessageReader

    with _stream(path) as file:
        for message in MessageReader.open_stream(file):
            if _is_compressed(message.metadata.to_pybytes()):
                raise ValueError("its batches are compressed; write it with compression='uncompressed', or as Parquet")


def _is_compressed(message: bytes) -> bool:
    """Whether a message's batch is, from its metadata: the flatbuffer Message of Arrow's Message.fbs.

    Raises:
        ValueError: it is no such flatbuffer.
    """
    try:
        root = _number("<I", message, 0)
        kind, header = _field(message, root, 1), _field(message, root, 2)
        content = message[kind] if kind else 0
        if content not in (DICTIONARY, BATCH):
            return False
        batch = header + _number("<I", message, header)
        if content == DICTIONARY:
            inner = _field(message, batch, 1)
            batch = inner + _number("<I", message, inner)
        return _field(message, batch, 3) > 0
    except (struct.error, IndexError) as error:
        raise ValueError("a message of it cannot be read") from error


def _number(layout: str, message: bytes, place: int) -> int:
    number: int = struct.unpack_from(layout, message, place)[0]
    return number


def _field(message: bytes, table: int, index: int) -> int:
    """Where a field of a flatbuffer's table is; 0 where the table lacks it."""
    entries = table - _number("<i", message, table)
    place = 4 + 2 * index
    offset = _number("<H", message, entries + place) if place < _number("<H", message, entries) else 0
    return table + offset if offset else 0


def _check_type(column: str, kind: Any) -> None:
    """Raise ``ValueError`` for types whose values may take no bytes, so that a small file has any number of them."""
    from pyarrow import types

    if types.is_dictionary(kind) or types.is_list(kind) or types.is_large_list(kind):
        _check_type(column, kind.value_type)
    elif types.is_struct(kind) and kind.num_fields:
        for number in range(kind.num_fields):
            _check_type(column, kind.field(number).type)
    elif not any(
        is_such(kind) for is_such in (types.is_primitive, types.is_string, types.is_large_string, parquet.is_view)
    ):
        raise ValueError(f"the column {column!r} has the type {kind}; texts, numbers, and lists and objects of them do")


ARROW = Format("Arrow", _schema, _rows)
