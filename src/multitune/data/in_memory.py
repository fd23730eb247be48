"""Data that a program has in memory, written as JSON Lines: lists, pandas' and polars' frames, the datasets package's.

None of these packages is imported: what a value can do tells what it is.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from multitune.errors import UserError, kind_of_value

SPLITS = {"train": "train", "dev": "dev", "validation": "dev", "valid": "dev", "val": "dev", "test": "test"}
"""What splits are called -> what their files are."""
WHOLE = "data"
"""The file of rows that are not divided yet."""
KINDS = "a dict of lists, a list of dicts, a pandas or polars frame, a datasets.Dataset, or a dict of these by split"


def write(data: Any, folder: Path) -> None:
    """Write ``train.jsonl`` and ``dev.jsonl``, ``test.jsonl`` or both, or ``data.jsonl`` where there are no splits.

    Args:
        data: ``KINDS``; class labels of a ``datasets.Dataset`` are written by name.
        folder: where to; must be there.

    Raises:
        UserError: other data, other splits, or a value that JSON has no form for.
    """
    for name, table in _by_file(data).items():
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for number, row in enumerate(_rows(table), 1):
                made = {str(column): plain(value, f"data: row {number}, {column!r}") for column, value in row.items()}
                file.write(json.dumps(made) + "\n")


def _by_file(data: Any) -> dict[str, Any]:
    if not (isinstance(data, Mapping) and data and all(map(_is_table, data.values()))):
        return {WHOLE: data}
    for name in data:
        if name not in SPLITS:
            raise UserError(f"data: {name!r} is no split; splits are called {', '.join(SPLITS)}")
    tables = {SPLITS[name]: table for name, table in data.items()}
    if "train" not in tables or len(tables) < len(data):
        raise UserError(
            f"data: needs one split called train, and perhaps one each for dev and test, not {', '.join(data)}"
        )
    if tables.keys() == {"train"}:
        return {WHOLE: tables["train"]}
    return tables


def _is_table(value: Any) -> bool:
    """Whether this is a table, and not the column of one."""
    if isinstance(value, Mapping):
        return True
    if isinstance(value, Sequence):
        return not isinstance(value, str) and bool(value) and all(isinstance(row, Mapping) for row in value)
    return any(hasattr(value, name) for name in ("column_names", "columns"))


def _rows(table: Any) -> Iterator[Mapping[Any, Any]]:
    """The rows of a table."""
    if hasattr(table, "column_names") and hasattr(table, "features"):
        names = _class_names(table.features or {})
        return ({column: _named(value, names.get(column)) for column, value in row.items()} for row in table)
    if hasattr(table, "to_dicts"):
        return iter(table.to_dicts())
    if hasattr(table, "columns") and hasattr(table, "to_dict"):
        return iter(_with_index(table).to_dict("records"))
    if isinstance(table, Mapping):
        return _zipped(table)
    if isinstance(table, Sequence) and not isinstance(table, str) and all(isinstance(row, Mapping) for row in table):
        return iter(table)
    raise UserError(f"data: is {kind_of_value(table)}; it may be {KINDS}")


def _with_index(frame: Any) -> Any:
    """A frame of pandas with the levels of its index that have a name as columns.

    Raises:
        UserError: it has a column twice.
    """
    columns = list(frame.columns)
    for number, column in enumerate(columns):
        if column in columns[:number]:
            raise UserError(f"data: has the column {column!r} twice; rename one, or leave it out")
    named = [name for name in frame.index.names if name is not None and name not in columns]
    return frame.reset_index(level=named) if named else frame


def _zipped(columns: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for name, column in columns.items():
        if isinstance(column, str) or not (hasattr(column, "__len__") and hasattr(column, "__iter__")):
            raise UserError(f"data: the column {name!r} is {kind_of_value(column)}; it must be a list")
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise UserError(f"data: columns of unequal length: {listed}")
    return (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _class_names(features: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """Column of class labels, or of lists of them -> the names that their numbers stand for."""
    inner = {column: getattr(feature, "feature", feature) for column, feature in features.items()}
    return {column: feature.names for column, feature in inner.items() if hasattr(feature, "names")}


def _named(value: Any, names: Sequence[str] | None) -> Any:
    """A class label by its name; datasets writes -1 where there is none."""
    if names is None or value is None:
        return value
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    return names[value] if value >= 0 else None


PLAIN: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("tolist", lambda value: value.tolist()),
    ("to_list", lambda value: value.to_list()),
    ("isoformat", lambda value: value.isoformat()),
)
"""What values of other libraries can do -> what JSON has for them: numpy's arrays and scalars, series, dates."""


def plain(value: Any, place: str) -> Any:
    """A value as JSON has it; one that is missing is null.

    Args:
        value: of another library's, perhaps.
        place: what a message names.

    Raises:
        UserError: JSON has no form for it.
    """
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return None if value != value else value
    if isinstance(value, Mapping):
        return {str(key): plain(inner, place) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, place) for inner in value]
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    for name, convert in PLAIN:
        if hasattr(value, name):
            return plain(convert(value), place)
    raise UserError(f"{place}: is {kind_of_value(value)}, which JSON has no form for; leave the column out")
