"""Arrow files of one's own: both formats, class labels, what is refused, damage."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import feather

from multitune.commands.init import init
from multitune.data import parquet, sets, tabular
from multitune.data.bad import BadRecords
from multitune.errors import UserError
from multitune.tasks import TASKS

TABLE = pa.table({"text": ["gut", "schlecht", "gut"], "label": pa.array(["+", "-", "+"]).dictionary_encode()})


def stream(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def indexed(table: pa.Table, path: Path) -> None:
    feather.write_feather(table, path, compression="uncompressed", chunksize=2)


@pytest.mark.parametrize("write", [stream, indexed])
@pytest.mark.parametrize("suffix", [".arrow", ".feather"])
def test_both_formats_have_the_same_rows(
    tmp_path: Path, write: Callable[[pa.Table, Path], None], suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "UNPACKED", 4)  # bytes, so that each row is a part of its own
    path = tmp_path / f"x{suffix}"
    write(TABLE, path)
    assert list(tabular.read(path)) == TABLE.to_pylist()


@pytest.mark.parametrize("write", [stream, indexed])
def test_views_of_texts_are_texts(
    tmp_path: Path, write: Callable[[pa.Table, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """polars writes them. Many may show one long text, so that rows are taken a few at a time."""
    texts = ["gut", "schlecht, und das ist nicht kurz", "gut"]
    table = pa.table({"text": pa.array(texts, pa.string_view()), "label": ["+", "-", "+"]})
    path = tmp_path / "x.arrow"
    write(table, path)
    assert list(tabular.read(path)) == table.to_pylist()
    (batch,) = table.to_batches()
    monkeypatch.setattr(parquet, "UNPACKED", 64)
    assert [part.num_rows for part in parquet.parts(batch)] == [1, 2]


def test_a_data_set_that_was_saved_is_one_of_ones_own(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"lang": ("de", "fi")[n % 2], "review": f"a long enough text {n}", "stars": n % 2} for n in range(200)]
    kinds = {"lang": "string", "review": "string"}
    features = datasets.Features({k: datasets.Value(v) for k, v in kinds.items()} | {"stars": datasets.ClassLabel(2)})
    datasets.Dataset.from_list(rows, features=features).save_to_disk(tmp_path / "saved")
    (path,) = (tmp_path / "saved").glob("*.arrow")
    columns = init(path).run["columns"]
    assert columns == {"language": "lang", "text": "review", "label": "stars"}
    corpus = sets.load("folder", bad := BadRecords(), TASKS, path=str(path), columns=columns)
    assert (list(corpus.train), corpus.labels, list(bad)) == (["de", "fi"], ("0", "1"), [])


def test_class_labels_are_their_names(tmp_path: Path) -> None:
    own = {"info": {"features": {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}}}
    table = pa.table({"text": ["gut"], "label": [1]}).replace_schema_metadata({"huggingface": json.dumps(own)})
    stream(table, tmp_path / "x.arrow")
    assert list(tabular.read(tmp_path / "x.arrow")) == [{"text": "gut", "label": "good"}]


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "compressed": (lambda path: feather.write_feather(TABLE, path, compression="zstd"), "its batches are compressed"),
    "no bytes": (lambda path: stream(pa.table({"text": pa.nulls(9), "label": ["a"] * 9}), path), "has the type null"),
    "csv": (lambda path: path.write_text("text,label\n"), "no Arrow file"),
    "empty": (lambda path: path.write_bytes(b""), "no Arrow file"),
    "no column": (lambda path: stream(pa.table({"text": ["a"]}), path), "no column 'label'"),
}


@pytest.mark.parametrize(("write", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(tmp_path: Path, write: Callable[[Path], Any], said: str) -> None:
    write(path := tmp_path / "x.feather")
    with pytest.raises(UserError, match=said):
        list(tabular.read(path))


@pytest.mark.parametrize("write", [stream, indexed])
def test_damage_is_told_and_read_nowhere_else(tmp_path: Path, write: Callable[[pa.Table, Path], None]) -> None:
    """Each byte of a file, inverted: rows, or bad records, but no crash and nothing else."""
    write(TABLE, tmp_path / "whole.arrow")
    whole, path = (tmp_path / "whole.arrow").read_bytes(), tmp_path / "x.arrow"
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        for record in tabular.read(path, BadRecords()):
            assert record.keys() == {"text", "label"}
