"""Rows of parquet files as the Hugging Face Hub has them, with the names of their class labels."""

import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from multitune.data.bad import BadRecord, BadRecords, parsed, report
from multitune.data.records.corpus import Place, Placed, Record
from multitune.errors import UserError

ROWS = 500
"""That are read at a time."""

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
        found = _rows(path, columns, bad, where)
        yield from parsed(found, lambda row: parse(row[1] if numbered else _named(*row)), bad)


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
            for batch in file.iter_batches(ROWS, columns=sorted({column for column, *_ in keys.values()})):
                for row in batch.to_pylist():
                    place = Place(shown(path), [next(numbers)])
                    values = {field: _inner(row, key) for field, key in keys.items()}
                    if where(values):
                        kinds = {field: features[column] for field, (column, *_) in keys.items()}
                        yield place, (kinds, values)
    except (ArrowException, OSError, ValueError) as error:
        report(bad, f"{shown(path)}:{next(numbers)}", f"no parquet file, or it is damaged ({error})")


def _features(schema: Any) -> Mapping[str, Any]:
    """The kinds of the columns; raises ``ValueError`` where what the file says of them makes no sense."""
    from datasets import Features

    try:
        found: Mapping[str, Any] = Features.from_arrow_schema(schema)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"its features are none: {error}") from error
    return found


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
        raise BadRecord(f"class {value} is none of the file's {len(kind.names)} classes")
    return kind.names[value]


def shown(path: Path) -> str:
    """The path; of a file in the Hub's cache, its repository and its name there."""
    cached = CACHED.search(path.as_posix())
    return "/".join(cached.groups()) if cached else str(path)
