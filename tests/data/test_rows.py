"""Rows made on demand, records spooled to disk, and Arrow files: what goes in comes out, and memory stays flat."""

import gc
import json
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import disk
from multitune.data.bad import BadRecords
from multitune.data.records.digest import digest
from multitune.data.records.rows import Row, View, chosen, joined
from multitune.data.records.spool import BLOCK, Spool
from multitune.data.records.stored import opened, stored
from multitune.data.sets import load
from multitune.errors import RunError
from multitune.tasks import TASKS

TEN: list[Row] = [{"n": n} for n in range(10)]
VIEWS: dict[str, tuple[Callable[[], Sequence[Row]], list[Row]]] = {
    "view": (lambda: View(10, lambda number: TEN[number]), TEN),
    "chosen": (lambda: chosen(TEN, [7, 2, 2]), [TEN[7], TEN[2], TEN[2]]),
    "joined": (lambda: joined([TEN[:3], [], TEN[3:9], TEN[9:], []]), TEN),
    "spooled": (lambda: Spool().keep(TEN), TEN),
    "stored": (lambda: stored(TEN), TEN),
    "nothing": (lambda: joined([]), []),
    "nothing spooled": (lambda: Spool().keep([]), []),
    "nothing stored": (lambda: stored([]), []),
}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(("make", "expected"), VIEWS.values(), ids=VIEWS)
def test_rows_are_a_sequence(make: Callable[[], Sequence[Row]], expected: list[Row]) -> None:
    rows = make()
    assert list(rows) == list(rows) == expected
    for place in (slice(None), slice(1, 3), slice(None, None, -1), slice(20, 30)):
        assert rows[place] == expected[place]
    for number in range(-len(expected), len(expected)):
        assert rows[number] == expected[number]
    for number in (len(expected), -len(expected) - 1):
        with pytest.raises(IndexError):
            rows[number]


@settings(max_examples=30, deadline=None)
@given(records=st.lists(st.dictionaries(st.text(st.characters(codec="utf-8")), JSON, max_size=4), max_size=8))
def test_spooled_records_come_back(records: list[Row]) -> None:
    spool = Spool()
    kept = spool.keep(records[:3]), spool.keep(records[3:])
    assert [list(part) for part in kept] == [records[:3], records[3:]]
    assert [digest(part) for part in kept] == [digest(records[:3]), digest(records[3:])]
    assert digest([*records, {}]) != digest(records)


def test_long_records_go_to_disk_in_blocks() -> None:
    records = [{"text": character * (BLOCK // 3)} for character in "abcdefgh"]
    spooled = Spool().keep(records)
    assert list(spooled) == records
    assert digest(spooled) == digest(records)


def test_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with disk(tmp_path / "disk", megabytes=1) as folder:
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        with pytest.raises(RunError, match="the disk is full"):
            Spool().keep({"text": "a" * 1000} for _ in range(3000))
        gc.collect()  # the exception holds it
        assert list(folder.iterdir()) == []


def plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [{name: np.asarray(value).tolist() for name, value in row.items()} for row in rows]


def test_numbers_and_lists_come_back_from_the_file(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"ids": [5, -100, 2**31 - 1], "label": 2**40, "score": 0.1, "none": ()},
        {"ids": [], "label": -1, "score": -1e300, "none": []},
        {"ids": [7], "label": 0, "score": 3.0, "none": ()},
    ]
    stored(rows).write(tmp_path / "x.arrow")
    for each in (opened(tmp_path / "x.arrow"), stored(rows)):
        assert plain(each) == [row | {"none": []} for row in rows]
        assert each.lengths("ids").tolist() == [3, 0, 1]
        assert each.values("ids").tolist() == [5, -100, 2**31 - 1, 7]
        assert type(each[0]["label"]) is int
        assert not each[0]["ids"].flags.writeable


def test_rows_of_other_names_are_a_defect() -> None:
    with pytest.raises(AssertionError):
        stored([{"a": 1}, {"b": 1}])


def test_memory_does_not_grow_with_the_records(tmp_path: Path) -> None:
    """Of a table that is divided, and so read twice, ; a record takes about 300 bytes as a dict."""

    def peak(records: int) -> int:
        folder = tmp_path / str(records)
        folder.mkdir()
        lines = (json.dumps({"text": f"sentence number {n} of the table", "label": str(n % 5)}) for n in range(records))
        (folder / "de.jsonl").write_text("\n".join(lines))
        tracemalloc.start()
        corpus = load("folder", BadRecords(), TASKS, path=str(folder))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sum(len(split["de"]) for split in (corpus.train, corpus.dev, corpus.test)) == records
        return found

    peak(200)  # what is loaded but once
    assert peak(3_000) - peak(1_000) < 2_000 * 100


def test_images_are_told_apart_by_points_shape_and_type() -> None:
    points = np.arange(6, dtype=np.uint8)
    images = [points, points + 1, points.reshape(2, 3), points.reshape(3, 2), points.astype(np.int8)]
    assert len({digest([{"image": image}]) for image in images}) == len(images)
    assert digest([{"image": points.reshape(3, 2).T}]) == digest([{"image": points.reshape(3, 2).T.copy()}])
    with pytest.raises(TypeError, match="a record holds a object"):
        digest([{"image": object()}])
