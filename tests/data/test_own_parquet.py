"""Parquet files of one's own: rows, class labels, bad rows by number, the columns and the budget that init finds."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet as files

from multitune.commands.init import init
from multitune.data import sets, tabular
from multitune.data.bad import BadRecords
from multitune.errors import UserError
from multitune.tasks import TASKS

TEXT, LABEL = "a text that is long enough", ("bad", "good")


def features(**own: Any) -> dict[str, Any]:
    return {"huggingface": json.dumps({"info": {"features": own}})}


CLASSES = {"names": list(LABEL), "_type": "ClassLabel"}


def write(path: Path, rows: list[dict[str, Any]], **own: Any) -> Path:
    files.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(features(**own) if own else None), path)
    return path


def reviews(count: int = 600) -> list[dict[str, Any]]:
    return [{"lang": ("de", "fi")[n % 2], "review": f"{TEXT} {n}", "stars": n % 3} for n in range(count)]


def test_a_file_is_a_data_set_by_its_path(tmp_path: Path) -> None:
    path = write(tmp_path / "reviews.parquet", reviews())
    file = init(path)
    assert file.run["columns"] == {"language": "lang", "text": "review", "label": "stars"}
    assert file.run["budget"] == round(3 * 0.8 * 600 / 16)
    bad = BadRecords()
    corpus = sets.load("folder", bad, TASKS, path=str(path), columns=file.run["columns"])
    assert (list(corpus.train), corpus.labels, len(bad)) == (["de", "fi"], ("0", "1", "2"), 0)
    splits = (corpus.train, corpus.dev, corpus.test)
    assert sum(len(split[code]) for split in splits for code in ("de", "fi")) == 600


def test_class_labels_are_their_names(tmp_path: Path) -> None:
    rows = [{"text": TEXT, "a.b": 1, "topics": [0, 1]}, {"text": TEXT, "a.b": 0, "topics": []}]
    own = {"a.b": CLASSES, "topics": {"feature": CLASSES, "_type": "List"}}
    path = write(tmp_path / "x.parquet", rows, **own)
    one = tabular.read(path, columns={"text": "text", "label": "a.b"})
    assert [record["label"] for record in one] == ["good", "bad"]
    several = tabular.read(path, columns={"text": "text", "labels": "topics"})
    assert [record["labels"] for record in several] == [["bad", "good"], []]


def test_bad_rows_are_named(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": TEXT, "label": 0},
        {"text": None, "label": 1},
        {"text": " ", "label": 1},
        {"text": TEXT, "label": 7},
    ]
    path, bad = write(tmp_path / "x.parquet", rows, label=CLASSES), BadRecords()
    assert len(list(tabular.read(path, bad))) == 1
    assert list(bad) == [
        (f"{path}:2", "text is missing; it must be text"),
        (f"{path}:3", "text is blank"),
        (f"{path}:4", "class 7 is not among the file's 2 classes"),
    ]
    with pytest.raises(UserError, match=r"x\.parquet:2: text is missing"):
        list(tabular.read(path))


def test_a_column_that_is_missing_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", [{"text": TEXT, "stars": 0}])
    with pytest.raises(UserError, match="no column 'label'; it has text, stars"):
        list(tabular.read(path))


def test_decimals_are_scores(tmp_path: Path) -> None:
    """Databases export them."""
    files.write_table(pa.table({"text": [TEXT] * 2, "score": [Decimal("1.50"), Decimal(-2)]}), tmp_path / "x.parquet")
    read = tabular.read(tmp_path / "x.parquet", columns={"text": "text", "score": "score"})
    assert [record["label"] for record in read] == [1.5, -2.0]


def test_views_of_texts_are_texts(tmp_path: Path) -> None:
    """DataFusion's files have them, also within lists and objects."""
    view = pa.string_view()
    columns = {"text": pa.array([TEXT, "yes"], view), "labels": pa.array([["a", "b"], []], pa.list_(view))}
    columns["data"] = pa.array([{"title": "one"}, {"title": "two"}], pa.struct([("title", view)]))
    files.write_table(pa.table(columns), tmp_path / "x.parquet")
    path = tmp_path / "x.parquet"
    several = tabular.read(path, columns={"text": "text", "labels": "labels"})
    assert list(several) == [{"text": TEXT, "labels": ["a", "b"]}, {"text": "yes", "labels": []}]
    of_objects = tabular.read(path, columns={"text": "data.title", "label": "text"})
    assert list(of_objects) == [{"text": "one", "label": TEXT}, {"text": "two", "label": "yes"}]


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow"])
def test_columns_of_one_name(tmp_path: Path, name: str) -> None:
    """Those that nobody asks for are no reason to stop."""
    columns = {"text": [TEXT] * 9, "label": ["a", "b", "c"] * 3}
    for more in ("note", "label"):
        table = pa.Table.from_arrays(
            [*map(pa.array, columns.values()), *[pa.array([1] * 9)] * 2], [*columns, more, more]
        )
        path = tmp_path / name
        if name == "x.parquet":
            files.write_table(table, path)
        else:
            with pa.ipc.new_file(path, table.schema) as file:
                file.write_table(table)
        if more == "note":
            assert len(list(tabular.read(path))) == 9
            assert init(path).run["columns"] == {"text": "text", "label": "label"}
        else:
            with pytest.raises(UserError, match=rf"{name}: column 'label' stands 3 times in the file"):
                list(tabular.read(path))


@pytest.mark.parametrize("content", [b"PAR1 and no more", b""])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(content)
    for read in (init, lambda path: list(tabular.read(path))):
        with pytest.raises(UserError, match=r"x\.parquet.*no parquet file, or it is damaged"):
            read(path)


@pytest.mark.parametrize("written", ["no JSON", "[]", '{"info": {}}', '{"info": {"features": 3}}'])
def test_features_that_make_no_sense_are_told(tmp_path: Path, written: str) -> None:
    table = pa.Table.from_pylist([{"text": TEXT, "label": 0}]).replace_schema_metadata({"huggingface": written})
    files.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(UserError, match="its features cannot be read"):
        list(tabular.read(tmp_path / "x.parquet"))
