"""Data in memory as JSON Lines: every kind of table gives the same rows; what is none is refused."""

import datetime
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multitune.data import in_memory
from multitune.errors import UserError

ROWS: list[dict[str, Any]] = [{"text": "one", "label": "a", "n": 1}, {"text": "zwei", "label": "b", "n": 2}]
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}


def frame() -> Any:
    return pytest.importorskip("pandas").DataFrame(ROWS)


def dataset() -> Any:
    datasets = pytest.importorskip("datasets")
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"])}
    coded = COLUMNS | {"label": [0, 1]}
    return datasets.Dataset.from_dict(coded, datasets.Features(features | {"n": datasets.Value("int64")}))


TABLES: dict[str, Callable[[], Any]] = {
    "a list of dicts": lambda: ROWS,
    "a dict of lists": lambda: COLUMNS,
    "a dict of tuples and arrays": lambda: COLUMNS | {"text": ("one", "zwei"), "n": np.array([1, 2])},
    "a frame": frame,
    "a frame with an index of a name": lambda: frame().set_index("text"),
    "a frame with two": lambda: frame().set_index(["text", "label"]),
    "a frame with an index of a column's name": lambda: frame().set_index("text", drop=False),
    "a Dataset": dataset,
}


def written(data: Any, folder: Path) -> dict[str, list[Any]]:
    in_memory.write(data, folder)
    return {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in folder.iterdir()}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_table_gives_the_same_rows(tmp_path: Path, table: Callable[[], Any]) -> None:
    assert written(table(), tmp_path) == {"data": ROWS}


SPLITS = {
    "of the Hub": (("train", "validation", "test"), {"train", "dev", "test"}),
    "none for dev": (("train", "test"), {"train", "test"}),
    "one alone": (("train",), {"data"}),
}


@pytest.mark.parametrize(("names", "files"), SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_splits_are_files(tmp_path: Path, table: Callable[[], Any], names: tuple[str, ...], files: set[str]) -> None:
    assert written({name: table() for name in names}, tmp_path) == dict.fromkeys(files, ROWS)


def test_a_dataset_dict_with_lists_of_class_labels(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    tags = datasets.List(datasets.ClassLabel(names=["O", "B-PER"]))
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": tags})
    one = datasets.Dataset.from_dict({"tokens": [["hi", "ana"]], "ner_tags": [[0, 1]]}, features)
    rows = [{"tokens": ["hi", "ana"], "ner_tags": ["O", "B-PER"]}]
    both = datasets.DatasetDict({"train": one, "validation": one})
    assert written(both, tmp_path) == {"train": rows, "dev": rows}


VALUES = {
    "missing": (math.nan, None),
    "a number of numpy's": (np.float32(0.5), 0.5),
    "an array": (np.array([[1, 2]]), [[1, 2]]),
    "a date": (datetime.date(2026, 1, 2), "2026-01-02"),
    "nested": ({"text": ("a",), 1: np.int64(3)}, {"text": ["a"], "1": 3}),
}


@pytest.mark.parametrize(("value", "plain"), VALUES.values(), ids=VALUES)
def test_values_of_other_libraries_become_plain(tmp_path: Path, value: Any, plain: Any) -> None:
    assert written([{"x": value}], tmp_path) == {"data": [{"x": plain}]}


MISTAKES: dict[str, tuple[Any, str]] = {
    "a text": ("reviews.csv", "data: is text; it may be a dict of lists"),
    "a number": (3, "data: is a whole number; it may be"),
    "a list of texts": (["a", "b"], "data: is a list; it may be"),
    "unequal columns": ({"text": ["a"], "label": ["x", "y"]}, "columns of unequal length: text 1, label 2"),
    "a column of text": ({"text": "ab"}, "the column 'text' is text; it must be a list"),
    "another split": ({"train": ROWS, "extra": ROWS}, "'extra' is no split; splits are called train, dev"),
    "no training": ({"dev": ROWS, "test": ROWS}, "needs one split called train"),
    "a split twice": ({"train": ROWS, "dev": ROWS, "val": ROWS}, "needs one split called train"),
    "a value": ([{"x": object()}], "data: row 1, 'x': is of type object, which JSON has no form for"),
}


@pytest.mark.parametrize(("data", "said"), MISTAKES.values(), ids=MISTAKES)
def test_what_is_no_table_is_refused(tmp_path: Path, data: Any, said: str) -> None:
    with pytest.raises(UserError) as error:
        in_memory.write(data, tmp_path)
    assert said in str(error.value)


def test_a_frame_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    twice = pytest.importorskip("pandas").concat([frame()] * 2, axis=1)
    with pytest.raises(UserError, match="has the column 'text' twice; rename one"):
        in_memory.write(twice, tmp_path)
