"""Damaged and hostile input: every reader and the recipe end in records or in one line, never in a traceback or a hang.

``make test`` tries a few hundred files a reader and recipes, ``make check-slow`` 10,000 of each.
"""

import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from builders import zipped
from multitune.data import fields, images, parquet
from multitune.data.bad import BadRecords, records
from multitune.data.corpus import Record
from multitune.errors import UserError
from multitune.recipe_files import parse_overrides
from multitune.recipe_files import read as read_recipe
from multitune.training.loading import load_plan
from reader_cases import BAD, GOOD, Read, scored

FEW, MANY = 60, 10_000
SECONDS = 2.0
"""For a file of a few hundred bytes: a thousand times what one takes."""

PIECES = [
    *(bytes([byte]) for byte in b"\0\t\n\r\x1a\x1b \"'\\,;:#-_{}[]()&*!|>%@`?~=0aO"),
    b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xc2\x85", b"\x1f\x8b", b"\xf0\x9f\x98\x80",
    b"null", b"NaN", b"-Infinity", b"1e999", b"-1", b"9" * 400, b"true", b"B-", b"../../x", b"<img onerror=x>",
    b'"answer_start": ', b'{"text": ', b"[" * 2000, b"{" * 2000, b"\t" * 3000, b"a" * 5000, b'"' * 999, b"\n" * 999,
    b"!!python/object/apply:os.system [id]", b"&a [*a,*a]", b"<<: ", b"? [a]\n: b", b"--- \n", b"learning_rate: ",
]  # fmt: skip
Edit = tuple[int, int, bytes]
"""Where (a place in a file, which wraps around), how many bytes go, and what comes instead."""

EDITS = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.sampled_from([0, 0, 0, 1, 2, 5, 20, 10_000]),
        st.one_of(st.sampled_from(PIECES), st.binary(max_size=8)),
    ),
    min_size=1,
    max_size=6,
)


def read_parquet(path: str | Path, bad: BadRecords | None = None) -> Iterator[Record]:
    columns = {"tokens": "tokens", "tags": "ner_tags"}
    return records(parquet.placed([Path(path)], columns, fields.ENTITIES.record, bad))


def a_parquet_file() -> bytes:
    """Five sentences with the Hub's kinds of columns."""
    from datasets import ClassLabel, Dataset, Features, List, Value, disable_progress_bars

    disable_progress_bars()
    file, row = io.BytesIO(), {"tokens": ["Anna", "in", "Oslo"], "ner_tags": [1, 0, 1]}
    kinds = {"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=["O", "B-PER"]))}
    Dataset.from_list([row] * 5, features=Features(kinds)).to_parquet(file)
    return file.getvalue()


def pictures(path: Path, bad: BadRecords | None) -> Iterator[Record]:
    """What an image reader finds, in values that can be compared."""
    for record in images.read(path, bad):
        yield record | {"image": (record["image"].shape, record["image"].tobytes())}


def zipped_picture(path: Path, bad: BadRecords | None) -> Iterator[Record]:
    """The file in a zip file with checksums that fit."""
    return pictures(zipped(path.with_suffix(".zip"), {"a/1.png": path.read_bytes()}), bad)


def zipped_array(path: Path, bad: BadRecords | None) -> Iterator[Record]:
    y = npy(np.zeros(2, np.int64))
    return pictures(zipped(path.with_suffix(".npz"), {"x.npy": path.read_bytes(), "y.npy": y}), bad)


def npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((5, 4), 50).save(file, kind)
    return file.getvalue()


def archive(name: str, files: dict[str, bytes]) -> tuple[Read, str, bytes]:
    with TemporaryDirectory() as folder:
        return pictures, name, zipped(Path(folder) / name, files).read_bytes()


ARRAYS = {"x.npy": npy(np.arange(24, dtype=np.uint8).reshape(2, 3, 4)), "y.npy": npy(np.array([3, 5]))}
FORMATS: dict[str, tuple[Read, str, bytes]] = {
    **{name: (read, file, content) for name, (read, file, content, _) in GOOD.items()},
    **{name: (read, file, content) for name, (read, file, content, *_) in BAD.items() if len(content) < 5000},
    "scores in JSON": (scored, "x.jsonl", b'{"a": "x", "b": "y", "s": 2.5}\n'),
    "a zip file": archive("x.zip", {"a/1.png": picture("PNG"), "b/2.png": picture("PNG")}),
    "an npz file": archive("x.npz", ARRAYS),
    **{f"images: {kind}": (zipped_picture, "x.img", picture(kind)) for kind in images.FORMATS},
    "an array": (zipped_array, "x.npy", ARRAYS["x.npy"]),
}
"""Everything that a reader was shown in test_readers, to begin with; and images."""
if find_spec("datasets") is not None:
    FORMATS["parquet"] = (read_parquet, "de.parquet", a_parquet_file())
READERS = {read.__name__: read for read, *_ in FORMATS.values()}
SEEDS = {name: [row[1:] for row in FORMATS.values() if row[0] is read] for name, read in READERS.items()}

RECIPE = b"""\
model: offline:e5-small
data: panx
path: data/panx
languages: [de, nl]
budget: 100
learning_rate: 1e-4
options: {inner_steps: 5, outer_lr: 0.5}
method: sequential_reptile
methods:
  mtl: {learning_rate: 3e-4}
"""

RUNS = [
    FEW,
    pytest.param(MANY, marks=[pytest.mark.slow]),
]


def edited(content: bytes, edits: Sequence[Edit]) -> bytes:
    for place, gone, piece in edits:
        at = place % (len(content) + 1)
        content = content[:at] + piece + content[at + gone :]
    return content


@contextmanager
def in_time() -> Iterator[None]:
    began = time.process_time()
    yield
    assert time.process_time() - began < SECONDS


def one_line(error: UserError) -> None:
    said = str(error)
    assert said
    assert "\n" not in said
    assert len(said) < 1000
    assert said.isprintable()


def check_reader(read: Read, path: Path) -> None:
    """With ``bad`` what is bad is noted and the rest is read; without, one line tells of the first."""
    bad = BadRecords()
    with in_time():
        try:
            found = list(read(path, bad))
        except UserError as error:
            one_line(error)
            return
    for _, problem in bad:
        assert problem
        assert problem.isprintable()
    if len(bad):
        with pytest.raises(UserError) as refused:
            list(read(path, None))
        one_line(refused.value)
    else:
        assert list(read(path, None)) == found


def check_recipe(path: Path) -> None:
    with in_time():
        try:
            load_plan(read_recipe(path).resolve())
        except UserError as error:
            one_line(error)


def partners(folder: Path) -> None:
    """The files that go with one that is read."""
    (folder / "labels.txt").write_text("x\ny\n")
    (folder / "target.txt").write_text("x\ny\n\n")


@pytest.mark.parametrize("count", RUNS)
@pytest.mark.parametrize("reader", SEEDS)
def test_readers(tmp_path_factory: pytest.TempPathFactory, reader: str, count: int) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    partners(folder)

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=count == FEW,
        suppress_health_check=list(HealthCheck),
    )
    @given(seed=st.sampled_from(SEEDS[reader]), edits=EDITS)
    def check(seed: tuple[str, bytes], edits: Sequence[Edit]) -> None:
        name, content = seed
        (folder / name).write_bytes(edited(content, edits))
        check_reader(READERS[reader], folder / name)

    check()


@pytest.mark.parametrize("count", RUNS)
def test_recipes(tmp_path_factory: pytest.TempPathFactory, count: int) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "recipe.yaml"

    @settings(
        max_examples=5 * count if count == FEW else count,
        deadline=None,
        database=None,
        derandomize=count == FEW,
        suppress_health_check=list(HealthCheck),
    )
    @given(edits=EDITS)
    def check(edits: Sequence[Edit]) -> None:
        path.write_bytes(edited(RECIPE, edits))
        check_recipe(path)

    check()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("atheris") is None, reason="needs atheris: pip install 'multitune[fuzz]'")
@pytest.mark.parametrize("target", [*SEEDS, "recipe"])
def test_guided_by_coverage(tmp_path: Path, target: str) -> None:
    """As many files as above, but each made from those that reached new code."""
    words = [sys.executable, str(Path(__file__).with_name("fuzz_atheris.py")), target, str(tmp_path), str(MANY)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    (runs,) = re.findall(r"stat::number_of_executed_units: (\d+)", done.stderr)
    (covered,) = re.findall(r"INITED cov: (\d+)", done.stderr)
    reached = re.findall(r"cov: (\d+)", done.stderr)[-1]
    print(f"\n{target}: {runs} runs, branches reached {covered} -> {reached}")
    assert int(runs) >= MANY


@pytest.mark.parametrize("count", RUNS)
def test_overrides(count: int) -> None:
    @settings(max_examples=5 * count if count == FEW else count, deadline=None, database=None, derandomize=count == FEW)
    @given(edits=EDITS)
    def check(edits: Sequence[Edit]) -> None:
        word = os.fsdecode(edited(b"options.outer_lr=0.5", edits))
        with in_time():
            try:
                parse_overrides([word])
            except UserError as error:
                one_line(error)

    check()
