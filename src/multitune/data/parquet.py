"""Rows of parquet files as the Hugging Face Hub has them, with the names of their class labels."""

import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from multitune.data.bad import BadRecord, BadRecords, parsed, report
from multitune.data.corpus import Place, Placed, Record
from multitune.data.lines import LARGEST, LONGEST
from multitune.errors import UserError

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
        UserError: the package datasets is missing; (without ``bad``) a file that is no parquet file or is damaged, a
            column that it lacks, a bad row.
    """
    require()
    for path in paths:
        rows = _rows(path, columns, bad, where)
        yield from parsed(rows, lambda row: parse(row[1] if numbered else _named(*row)), bad)


def require() -> None:
    """Raise ``UserError`` where the package is missing that reads such files."""
    if importlib.util.find_spec("datasets") is None:
        raise UserError("data: parquet files and the Hub need the package datasets; pip install 'multitune[hub]'")


def _rows(
    path: Path, columns: Mapping[str, str], bad: BadRecords | None, where: Callable[[Values], bool]
) -> Iterator[tuple[Place, tuple[Values, Values]]]:
    """The features and values by field of each row that is meant."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    keys = {field: column.split(".") for field, column in columns.items()}
    numbers = count(1)
    try:
        with ParquetFile(path) as file:
            features = _features(file.schema_arrow)
        missing = [column for column, *_ in keys.values() if column not in features]
        if missing:
            report(bad, shown(path), f"no column {missing[0]!r}; it has {', '.join(features)}")
            return
        kinds = {field: features[column] for field, (column, *_) in keys.items()}
        for row in _unpacked_rows(path, sorted({column for column, *_ in keys.values()})):
            place = Place(shown(path), [next(numbers)])
            if (size := _characters(row)) > LONGEST:
                report(bad, place.of(), f"a row of {size} characters, more than {LONGEST}")
                continue
            values = {field: _inner(row, key) for field, key in keys.items()}
            if where(values):
                yield place, (kinds, values)
    except (ArrowException, OSError, ValueError) as error:
        report(bad, f"{shown(path)}:{next(numbers)}", f"no parquet file, or it is damaged ({error})")


def _unpacked_rows(path: Path, columns: Sequence[str]) -> Iterator[Values]:
    """Rows of a file, so that memory does not grow with what a few bytes of it unpack to.

    Texts are read as dictionaries: a value that many rows have is in memory once.
    """
    from pyarrow import schema
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        plain = schema([file.schema_arrow.field(column) for column in columns])
        leaves = [file.schema.column(number) for number in range(len(file.schema))]
        _check_size(file.metadata)
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    with ParquetFile(path, read_dictionary=texts) as file:
        for batch in file.iter_batches(ROWS, columns=columns):
            for part in _parts(batch.select(columns)):
                yield from part.cast(plain).to_pylist()  # ten times as fast as from dictionaries


def _features(schema: Any) -> Mapping[str, Any]:
    """The kinds of the columns; raises ``ValueError`` where what the file says of them makes no sense."""
    from datasets import Features

    try:
        features: Mapping[str, Any] = Features.from_arrow_schema(schema)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"its features cannot be read: {error}") from error
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


def _parts(batch: Any) -> Iterator[Any]:
    """Parts of a batch whose texts take at most ``UNPACKED`` bytes, or single rows."""
    if batch.num_rows > 1 and sum(map(_longest, batch.columns)) > UNPACKED:
        half = batch.num_rows // 2
        yield from _parts(batch.slice(0, half))
        yield from _parts(batch.slice(half))
    else:
        yield batch


def _longest(column: Any) -> int:
    """The most bytes that the texts of a column can take: each as long as the longest."""
    from pyarrow import compute, types

    if types.is_dictionary(column.type):
        return len(column) * (compute.max(compute.binary_length(column.dictionary)).as_py() or 0)
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
    """The value with the names of class labels for their numbers."""
    from datasets import ClassLabel, List

    if isinstance(kind, List) and isinstance(value, list):
        return [_with_names(kind.feature, each) for each in value]
    if not isinstance(kind, ClassLabel) or not isinstance(value, int):
        return value
    if not 0 <= value < len(kind.names):
        raise BadRecord(f"class {value} is not among the file's {len(kind.names)} classes")
    return kind.names[value]


def shown(path: Path) -> str:
    """The path; of a file in the Hub's cache, its repository and its name there."""
    cached = CACHED.search(path.as_posix())
    return "/".join(cached.groups()) if cached else str(path)
