"""Rows of parquet files, one's own and those of the Hugging Face Hub, with the names of their class labels."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from multitune.data.bad import BadRecord, BadRecords, parsed, report
from multitune.data.corpus import Place, Placed, Record
from multitune.data.lines import LARGEST, LONGEST, check_opens
from multitune.screen.stages import passed

ROWS = 500
"""That are read at a time."""

RATIO = 100
"""The most bytes that one byte of a group of rows may unpack to, where it unpacks to more than ``LARGEST``."""

UNPACKED = 2**26
"""Bytes of texts that are unpacked at a time, but for a single row."""

CACHED = re.compile(r"/datasets--(.+?)--(.+?)/snapshots/[^/]+/(.+)$")
"""A file in the Hub's cache: owner, repository, name in the repository."""

Values = dict[str, Any]
"""Field -> value of a row."""


@dataclass(frozen=True)
class Format:
    """A kind of file with columns.

    Attributes:
        name: for messages.
        schema: of a file, as pyarrow has it.
        unpacked: the rows of a file with these columns.
    """

    name: str
    schema: Callable[[Path], Any]
    unpacked: Callable[[Path, Sequence[str]], Iterator[Values]]


def placed(
    paths: Sequence[Path],
    columns: Mapping[str, str],
    parse: Callable[[Values], Record],
    bad: BadRecords | None,
    *,
    numbered: bool = False,
    where: Callable[[Values], bool] = lambda values: True,
) -> Iterator[Placed]:
    """The records of the files' rows, each with its place: the file (see ``shown``) and the row, from 1.

    Args:
        paths: parquet files of one table, in order.
        columns: field -> column, or ``column.key`` of a column that holds objects.
        parse: makes a record of a row's values by field; raises ``BadRecord``.
        bad: takes the bad rows; None raises at the first.
        numbered: leave class labels as their numbers; otherwise their names stand for them.
        where: which rows are meant; sees class labels as numbers.

    Raises:
        UserError: a file that the system does not let be read; or (without ``bad``) one that is no parquet file or is
            damaged, a column that it lacks, a bad row.
    """
    for path in paths:
        rows = _rows(path, columns, bad, where, PARQUET)
        yield from parsed(rows, lambda row: parse(row[1] if numbered else _named(*row)), bad)


def rows(
    path: Path, columns: Mapping[str, str], bad: BadRecords | None, kind: Format | None = None
) -> Iterator[tuple[Place, Values]]:
    """The rows of a file (by default a parquet file) as values by field, each with its place; class labels are names.

    Raises:
        UserError: as ``placed`` does.
    """
    return parsed(_rows(path, columns, bad, lambda values: True, kind or PARQUET), lambda row: _named(*row), bad)


def objects(path: Path, bad: BadRecords | None, kind: Format | None = None) -> Iterator[Values]:
    """The rows of a file (by default a parquet file) with all of its columns, but those of one name.

    Raises:
        UserError: as ``placed`` does.
    """
    from pyarrow import ArrowException

    kind = kind or PARQUET
    check_opens(path)
    try:
        names = kind.schema(path).names
    except (ArrowException, OSError, ValueError) as error:
        report(bad, shown(path), f"no {kind.name} file, or it is damaged ({error})")
        return iter(())
    return (values for _, values in rows(path, {name: name for name in names if names.count(name) == 1}, bad, kind))


def _rows(
    path: Path, columns: Mapping[str, str], bad: BadRecords | None, where: Callable[[Values], bool], kind: Format
) -> Iterator[tuple[Place, tuple[Values, Values]]]:
    """The features and values by field of each row that is meant."""
    from pyarrow import ArrowException

    numbers = count(1)
    check_opens(path)
    try:
        schema = kind.schema(path)
        names, features = schema.names, _features(schema)
        keys = {field: [column] if column in names else column.split(".") for field, column in columns.items()}
        missing = [column for column, *_ in keys.values() if column not in names]
        if missing:
            report(bad, shown(path), f"no column {missing[0]!r}; it has {', '.join(names)}")
            return
        twice = [column for column, *_ in keys.values() if names.count(column) > 1]
        if twice:
            report(bad, shown(path), f"column {twice[0]!r} stands {names.count(twice[0])} times in the file")
            return
        kinds = {field: features.get(column) for field, (column, *_) in keys.items()}
        for row in kind.unpacked(path, sorted({column for column, *_ in keys.values()})):
            place = Place(shown(path), [next(numbers)])
            if (size := _characters(row)) > LONGEST:
                report(bad, place.of(), f"a row of {size} characters, more than {LONGEST}")
                continue
            values = {field: _inner(row, key) for field, key in keys.items()}
            if where(values):
                yield place, (kinds, values)
    except (ArrowException, OSError, ValueError) as error:
        report(bad, f"{shown(path)}:{next(numbers)}", f"no {kind.name} file, or it is damaged ({error})")


def _unpacked_rows(path: Path, columns: Sequence[str]) -> Iterator[Values]:
    """Rows of a file, so that memory does not grow with what a few bytes of it unpack to.

    Texts are read as dictionaries: a value that many rows have is in memory once.
    """
    from pyarrow import schema
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        plain = schema([(column, _without_views(file.schema_arrow.field(column).type)) for column in columns])
        leaves = [file.schema.column(number) for number in range(len(file.schema))]
        _check_size(file.metadata)
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    with ParquetFile(path, read_dictionary=texts) as file:
        size, total = path.stat().st_size, file.metadata.num_rows
        for batch in file.iter_batches(ROWS, columns=columns):
            passed(path, size * batch.num_rows // total)
            for part in parts(batch.select(columns)):
                yield from part.cast(plain).to_pylist()  # ten times as fast as from dictionaries


def _without_views(kind: Any) -> Any:
    """A type with plain texts for views of texts, which polars and DataFusion write and dictionaries do not become."""
    from pyarrow import binary, list_, string, struct, types

    if is_view(kind):
        return string() if str(kind) == "string_view" else binary()
    if types.is_struct(kind):
        return struct([(kind.field(n).name, _without_views(kind.field(n).type)) for n in range(kind.num_fields)])
    return list_(_without_views(kind.value_type)) if types.is_list(kind) else kind


def is_view(kind: Any) -> bool:
    """Whether values of a type are views: of many one may be a part of another."""
    return str(kind) in ("string_view", "binary_view")


def _schema(path: Path) -> Any:
    from pyarrow.parquet import read_schema

    return read_schema(path)


PARQUET = Format("parquet", _schema, _unpacked_rows)


def _features(schema: Any) -> Mapping[str, Any]:
    """What the package datasets has written of the columns; raises ``ValueError`` where that makes no sense."""
    written = (schema.metadata or {}).get(b"huggingface")
    if written is None:
        return {}
    try:
        features = json.loads(written)["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"its features cannot be read: {error}") from error
    if not isinstance(features, dict):
        raise ValueError("its features cannot be read: they are not named")
    return features


def _check_size(metadata: Any) -> None:
    """Raise ``ValueError`` where a group of rows is far larger than the bytes that it is unpacked from."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = [group.column(place) for place in range(group.num_columns)]
        packed = sum(column.total_compressed_size for column in columns)
        unpacked = sum(column.total_uncompressed_size for column in columns)
        if unpacked > max(LARGEST, RATIO * packed):
            raise ValueError(f"{packed} bytes in it unpack to {unpacked}")


def parts(batch: Any) -> Iterator[Any]:
    """Parts of a batch whose texts take at most ``UNPACKED`` bytes, or single rows."""
    if batch.num_rows > 1 and sum(map(_longest, batch.columns)) > UNPACKED:
        half = batch.num_rows // 2
        yield from parts(batch.slice(0, half))
        yield from parts(batch.slice(half))
    else:
        yield batch


def _longest(column: Any) -> int:
    """The most bytes that the texts of a column can take: each as long as the longest."""
    from pyarrow import compute, types

    if types.is_dictionary(column.type):
        return len(column) * (compute.max(compute.binary_length(column.dictionary)).as_py() or 0)
    if is_view(column.type):  # of 16 bytes, which begin with how many bytes it shows
        views = np.frombuffer(column.buffers()[1], np.int32).reshape(-1, 4)
        return len(column) * int(views[column.offset : column.offset + len(column), 0].max(initial=0))
    if types.is_struct(column.type):
        return sum(map(_longest, column.flatten()))
    if types.is_list(column.type) or types.is_large_list(column.type):
        return _longest(column.flatten())
    return 0


def _characters(value: Any) -> int:
    """How many characters the texts in a value have; images have a limit of their own."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list) else 0


def _inner(row: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        row = row.get(key) if isinstance(row, dict) else None
    return row


def _named(kinds: Values, values: Values) -> Values:
    return {field: _with_names(kinds[field], value) for field, value in values.items()}


def _with_names(kind: Any, value: Any) -> Any:
    """The value with the names of class labels for their numbers; ``kind`` is what its feature says."""
    if isinstance(kind, dict) and "feature" in kind and isinstance(value, list):
        return [_with_names(kind["feature"], each) for each in value]
    names = kind.get("names") if isinstance(kind, dict) and kind.get("_type") == "ClassLabel" else None
    if not isinstance(names, list) or not isinstance(value, int):
        return value
    if not 0 <= value < len(names):
        raise BadRecord(f"class {value} is not among the file's {len(names)} classes")
    return str(names[value])


def shown(path: Path) -> str:
    """The path; of a file in the Hub's cache, its repository and its name there."""
    cached = CACHED.search(path.as_posix())
    return "/".join(cached.groups()) if cached else str(path)
