"""Rows of numbers and of lists of whole numbers in Arrow files, read where they lie: the files are mapped."""

from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from multitune.data.records.rows import Row, Rows


@final
class Stored(Rows):
    """Rows by column. In a row, a list is a read-only array, int32."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        lists = {name: column for name, column in columns.items() if pa.types.is_large_list(column.type)}
        self._numbers = {name: column.to_numpy() for name, column in columns.items() if name not in lists}
        self._lists = {name: (column.offsets.to_numpy(), column.values.to_numpy()) for name, column in lists.items()}

    def __len__(self) -> int:
        count: int = self._batch.num_rows
        return count

    def row(self, number: int) -> Row:
        lists = {name: values[ends[number] : ends[number + 1]] for name, (ends, values) in self._lists.items()}
        return lists | {name: values[number].item() for name, values in self._numbers.items()}

    def lengths(self, name: str) -> NDArray[np.int64]:
        """How long each row's list of that name is, [rows]."""
        ends: NDArray[np.int64] = self._lists[name][0]
        return np.diff(ends)

    def values(self, name: str) -> NDArray[np.int32]:
        """The lists of that name, one after the other."""
        values: NDArray[np.int32] = self._lists[name][1]
        return values

    def write(self, path: Path) -> None:
        """Write a file that ``opened`` reads."""
        with path.open("wb") as file, pa.ipc.new_file(file, self._batch.schema) as writer:
            writer.write_batch(self._batch)


def stored(rows: Iterable[Row]) -> Stored:
    """Rows in memory by column; all have the names and types of the first."""
    columns: dict[str, _Numbers | _Lists] = {}
    for row in rows:
        if not columns:
            columns = {name: _column(value) for name, value in row.items()}
        assert row.keys() == columns.keys()
        for name, value in row.items():
            columns[name].add(value)
    return Stored(pa.record_batch({name: column.arrow() for name, column in columns.items()}))


def opened(path: Path) -> Stored:
    """What ``Stored.write`` has written, mapped into memory."""
    with pa.memory_map(str(path)) as file:
        return Stored(pa.ipc.open_file(file).get_batch(0))


class _Numbers:
    def __init__(self, code: str) -> None:
        self._values = array(code)

    def add(self, value: Any) -> None:
        self._values.append(value)

    def arrow(self) -> pa.Array:
        return pa.array(np.asarray(self._values))


class _Lists:
    def __init__(self) -> None:
        self._values, self._ends = array("i"), array("q", [0])

    def add(self, value: Any) -> None:
        self._values.extend(value)
        self._ends.append(len(self._values))

    def arrow(self) -> pa.Array:
        return pa.LargeListArray.from_arrays(np.asarray(self._ends), pa.array(np.asarray(self._values)))


def _column(value: Any) -> _Numbers | _Lists:
    if isinstance(value, int | float):
        return _Numbers("q" if isinstance(value, int) else "d")
    return _Lists()
