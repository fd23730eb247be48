"""Input made to be large: memory and time stay in proportion to what is read, or the input is refused."""

import gc
import gzip
import logging
import os
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet as parquet_files

from builders import png, quick, zipped
from multitune import recipe_files
from multitune.data import images, lines, parquet, squad
from multitune.data.bad import KEPT, BadRecords
from multitune.data.corpus import Record
from multitune.errors import UserError
from multitune.recipe import Recipe
from multitune.training.loading import load_corpus
from reader_cases import Read, article, dumped, inferences, question, questions, sentences, texts, translations

LONG = b"x" * 300
QUOTED = b'"' + (b"x" * 100 + b"\n") * 2 + b"x" * 100 + b'",b\n'
TOO_LONG: dict[str, tuple[Read, str, bytes, list[int], int]] = {
    # reader, file, its content, lines that are told, good records beside
    "sentences": (sentences, "x.tsv", b"a\tO\n\n" + LONG + b"\tO\nb\tO\n\nc\tO\n", [3], 2),
    "a sentence without end": (sentences, "x.tsv", b"a\tO\n\n" + b"b\tO\n" * 80 + b"\nc\tO\n", [3], 2),
    "comments are no part of one": (sentences, "x.conllu", b"# c\n" * 80 + b"1\ta\tO\n\n", [], 1),
    "the header": (texts, "x.tsv", LONG + b"\ntext\tlabel\na\tb\n", [1], 1),
    "the last line": (texts, "x.tsv", b"text\tlabel\na\tb\n" + LONG, [3], 1),
    "two on end": (texts, "x.tsv", b"text\tlabel\n" + (LONG + b"\n") * 2 + b"a\tb\n", [2, 3], 1),
    "columns": (texts, "x.tsv", b"text\tlabel\n" + b"\t" * 300 + b"\na\tb\n", [2], 1),
    "JSON": (texts, "x.jsonl", b'{"text": "a", "label": ' + b"[" * 300 + b'\n{"text": "a", "label": "b"}', [1], 1),
    "gzipped": (texts, "x.csv.gz", gzip.compress(b"text,label\n" + LONG * 9 + b"\na,b\n"), [2], 1),
    "a row of many lines": (texts, "x.csv", b"text,label\na,b\n" + QUOTED + b"c,d\n", [3], 2),
    "one of two": (translations, "x.txt", LONG + b"\na\n", [1], 1),
    "pairs": (inferences, "x.tsv", LONG + b"\na\tb\n", [1], 1),
}


@pytest.mark.parametrize(("read", "name", "content", "told", "good"), TOO_LONG.values(), ids=TOO_LONG)
def test_what_is_too_long_is_a_bad_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read, name: str, content: bytes, told: list[int], good: int
) -> None:
    monkeypatch.setattr(lines, "LONGEST", 256)
    monkeypatch.setattr(lines, "BLOCK", 16)
    (tmp_path / name).write_bytes(content)
    (tmp_path / "target.txt").write_text("x\ny\n")
    bad = BadRecords()
    assert len(list(read(tmp_path / name, bad))) == good
    assert [place for place, _ in bad] == [f"{tmp_path / name}:{line}" for line in told]
    assert all("more than 256" in problem or "broken quoting" in problem for _, problem in bad)


def test_a_file_that_is_read_whole_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LARGEST", 400)
    for name, pack in (("x.json", bytes), ("x.json.gz", gzip.compress)):
        (tmp_path / name).write_bytes(pack(dumped(article("ab", question()))))
        assert len(list(questions(tmp_path / name, None))) == 1
        (tmp_path / name).write_bytes(pack(dumped(article("ab" * 200, question()))))
        with pytest.raises(UserError, match=f"{name}: has more than 400 bytes"):
            list(questions(tmp_path / name, None))


PEAK = """
import sys
from multitune.data import BadRecords, conll, pairs, parallel, squad, tabular
read = {"conll": conll.read, "pairs": pairs.read, "squad": squad.read, "tabular": tabular.read,
        "parallel": lambda path, bad: parallel.read(path, path, bad)}[sys.argv[1]]
bad, good = BadRecords(), 0
for _ in read(sys.argv[2], bad):
    good += 1
(peak,) = (int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(good, len(bad), peak * 1024)
"""


def measured(reader: str, path: Path) -> tuple[int, int, int]:
    """Good records, bad ones and the most bytes of memory of a process that reads a file."""
    done = subprocess.run([sys.executable, "-c", PEAK, reader, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    good, bad, peak = map(int, done.stdout.split())
    return good, bad, peak


LARGE: dict[str, tuple[str, str, bytes, bytes, bytes, int, int]] = {
    # reader, file, what it begins with, what is repeated up to a gigabyte, its end, good records, bad ones
    "a line": ("tabular", "x.tsv", b"text\tlabel\n", b"x", b"\na\tb\n", 1, 1),
    "a line of columns": ("tabular", "x.tsv", b"text\tlabel\n", b"\t", b"\na\tb\n", 1, 1),
    "a line of JSON": ("tabular", "x.jsonl", b'{"text": ', b"[],", b'\n{"text": "a", "label": "b"}', 1, 1),
    "a quoted value": ("tabular", "x.csv", b'text,label\na,b\n"', b"x" * 99_999 + b"\n", b"", 1, 9_999),
    "a sentence": ("conll", "x.tsv", b"a\tO\n\n", b"a" * 96 + b"\tO\n", b"\na\tO\n", 2, 1),
    "bad lines": ("pairs", "x.tsv", b"a\tb\n", b"x" * 999 + b"\n", b"", 1, 1_000_000),
    "blank lines": ("parallel", "x.txt", b"a\n", b" " * 99 + b"\n", b"", 1, 0),
    "SQuAD's JSON": ("squad", "x.json", b'{"data": [', b"[],", b"[]]}", 0, 1),
    "a gzipped line": ("tabular", "x.tsv.gz", b"text\tlabel\n", b"x", b"\na\tb\n", 1, 1),
    "gzipped JSON": ("squad", "x.json.gz", b'{"data": [', b"[],", b"[]]}", 0, 1),
}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
@pytest.mark.parametrize(("reader", "name", "begin", "piece", "end", "good", "bad"), LARGE.values(), ids=LARGE)
def test_a_gigabyte_is_read_in_little_memory(
    tmp_path: Path, reader: str, name: str, begin: bytes, piece: bytes, end: bytes, good: int, bad: int
) -> None:
    block = piece * (1_000_000 // len(piece))
    with gzip.open(tmp_path / name, "wb", 1) if name.endswith(".gz") else (tmp_path / name).open("wb") as file:
        file.write(begin)
        for _ in range(10**9 // len(block)):
            file.write(block)
        file.write(end)
    began = time.monotonic()
    found, refused, peak = measured(reader, tmp_path / name)
    seconds = time.monotonic() - began
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"")
    base = measured(reader, tmp_path / name)[2]
    shown = f"peak {peak / 1e6:.0f} MB, of it {base / 1e6:.0f} without data; {seconds:.0f} s"
    print(f"{name}, {piece[:3]!r}: {shown}")
    assert (found, refused) == (good, bad)
    assert peak < 600e6


def zip_that_lies(path: Path, name: str, size: int) -> Path:
    """A zip file whose one member unpacks to ``size`` zeros, and says that it has 100."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, b"\0" * size)
    path.write_bytes(path.read_bytes().replace(size.to_bytes(4, "little"), (100).to_bytes(4, "little")))
    return path


@pytest.mark.parametrize("name", ["x.zip", "x.npz"])
def test_a_zip_file_does_not_unpack_to_more_than_it_says(tmp_path: Path, name: str) -> None:
    path = zip_that_lies(tmp_path / name, "x.npy" if name == "x.npz" else "a/1.png", 50_000_000)
    bad = BadRecords()
    tracemalloc.start()
    assert list(images.read(path, bad)) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(bad) == 1
    assert peak < 5e6


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_file_is_stored_or_deflated(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as archive:
        archive.writestr("a/1.png", png())
    with pytest.raises(UserError, match=r"a/1\.png: is neither stored nor deflated"):
        list(images.read(tmp_path / "x.zip"))


def test_arrays_that_say_or_have_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=np.zeros((2, 100, 100), np.uint8), y=np.zeros(2, int))
    with monkeypatch.context() as patch:
        patch.setattr(images, "LARGEST_ARRAYS", 20_000)
        with pytest.raises(UserError, match=r"x\.npz: its arrays have more than 20000"):
            list(images.read(path))
    shape = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({10**15},)}}"
    header = b"\x93NUMPY\1\0\x76\0" + shape.encode().ljust(118)
    with pytest.raises(UserError, match=r"x\.npz: the npz file is damaged"):
        list(images.read(zipped(path, {"x.npy": header, "y.npy": header})))
    np.savez(path, x=np.zeros((10**6, 0, 0), np.uint8), y=np.zeros(10**6, np.uint8))
    with pytest.raises(UserError, match=r"x\.npz: x is empty: it has the shape \[1000000, 0, 0\]"):
        list(images.read(path))


def test_no_image_is_a_program(tmp_path: Path) -> None:
    """Pillow would have Ghostscript run an EPS file."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(UserError, match=r"a/1\.png: does not decode: none of PNG"):
        list(images.read(tmp_path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_may_never_end_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    os.mkfifo(tmp_path / "images" / "a" / "1.png")
    os.mkfifo(tmp_path / "pipe.tsv")
    (tmp_path / "zeros.tsv").symlink_to("/dev/zero")
    for read, name in ((images.read, "images"), (texts, "pipe.tsv"), (texts, "zeros.tsv")):
        with pytest.raises(UserError, match="is not a regular file"):
            list(read(tmp_path / name, None))


def test_bad_records_are_counted_and_the_first_remembered(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_bytes(b"a\tb\n" + b"x\n" * (KEPT + 500))
    bad = BadRecords()
    assert len(list(inferences(tmp_path / "x.tsv", bad))) == 1
    assert (len(bad), len(list(bad))) == (KEPT + 500, KEPT)
    with pytest.raises(UserError, match=f"x.tsv:2: .*{KEPT + 499} more bad records"):
        bad.refuse()


def test_blank_lines_take_no_memory(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"a\n" + b"\n" * 20_000 + b"b\n")
    (tmp_path / "target.txt").write_bytes(b"a\n" + b" \n" * 20_000)
    bad = BadRecords()
    tracemalloc.start()
    assert len(list(translations(tmp_path / "target.txt", bad))) == 1
    assert tracemalloc.get_traced_memory()[1] < 5e5
    tracemalloc.stop()


def ids(count: int, name: Callable[[int], str]) -> bytes:
    rows = ",".join(f'{{"id": {name(n)}, "question": "?", "answers": []}}' for n in range(count))
    return f'{{"data": [{{"paragraphs": [{{"context": "c", "qas": [{rows}]}}]}}]}}'.encode()


SPELLINGS: dict[str, Callable[[int], str]] = {
    "plain": lambda n: f'"é{n}"',
    "escaped": lambda n: f'"\\u00e9{n}"',
    "escaped otherwise": lambda n: f'"\\u00E9\\/{n}"',
    "now so, now so": lambda n: f'"é{n}"' if n % 2 else f'"\\u00e9{n}"',
    "none": lambda n: "[]",
}


@pytest.mark.parametrize("spelling", quick(SPELLINGS, "escaped otherwise"))
def test_the_lines_of_questions_are_found_in_one_pass(tmp_path: Path, spelling: str) -> None:
    seconds = []
    for count in (2_000, 20_000):  # a search from the start for each would take 100 times as long
        (tmp_path / "x.json").write_bytes(ids(count, SPELLINGS[spelling]))
        gc.collect()
        gc.disable()  # a collection of all that torch has loaded takes longer than the reading
        try:
            began = time.process_time()
            list(squad.read(tmp_path / "x.json", BadRecords()))
            seconds.append(time.process_time() - began)
        finally:
            gc.enable()
    assert seconds[1] < 40 * seconds[0]


def test_texts_taken_for_labels_are_told_in_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = 20_000
    for split in ("train", "dev", "test"):
        table = "".join(f"a {split},{split} {n}\n" for n in range(rows))
        (tmp_path / f"{split}-aa.csv").write_text(f"text,label\n{table}")
    began = time.process_time()
    with caplog.at_level(logging.WARNING):
        load_corpus(Recipe(data="folder", path=str(tmp_path), dev_limit=None))
    assert time.process_time() - began < 5
    for said, split in zip(caplog.messages, ("dev", "test"), strict=True):
        assert said.startswith(f"{split} labels that training lacks count as wrong")
        assert said.endswith(f"'{split} 7' (1) and 19992 more")


SHORT_OF_MEMORY = """
import resource, sys
from multitune.errors import RunError
from multitune.recipe import Recipe
from multitune.training.loading import load_corpus
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (100 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    load_corpus(Recipe(data="squad", path=sys.argv[1]))
except RunError as error:
    print(error)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.check
def test_too_little_memory_for_the_data_says_what_helps(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        (tmp_path / f"{split}-v1.1.json").write_bytes(b'{"data": [' + b"[]," * 5_000_000 + b"[]]}")
    done = subprocess.run([sys.executable, "-c", SHORT_OF_MEMORY, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.startswith(
        "data: not enough memory to read squad; fewer languages or smaller files would help"
    ), done.stderr[-2000:]


@pytest.mark.parametrize("character", ["a", "\n", "\x1b", "\U000e0001"])
def test_messages_are_short(character: str) -> None:
    said = str(UserError(character * 100_000))
    assert len(said) < 1000
    assert said.isprintable()


def test_a_recipe_has_a_largest_size(tmp_path: Path) -> None:
    for comment in (
        "#" * recipe_files.LARGEST,
        "#" + "é" * (recipe_files.LARGEST // 2),
        "#" + "é" * (recipe_files.LARGEST // 2 + 1),
    ):
        (tmp_path / "recipe.yaml").write_text(f"data: panx\n{comment}\nbudget: 5")
        with pytest.raises(UserError, match=r"recipe\.yaml: a recipe has at most 65536 bytes"):
            recipe_files.read(tmp_path / "recipe.yaml")
    (tmp_path / "recipe.yaml").write_text("data: [" + "x," * (recipe_files.LARGEST // 2 - 8) + "]")
    began = time.process_time()
    recipe_files.read(tmp_path / "recipe.yaml")
    assert time.process_time() - began < 10


def packed(path: Path, texts: Any, *, dictionary: bool = True) -> Path:
    table = pyarrow.table({"text": texts, "label": ["a"] * len(texts)})
    parquet_files.write_table(table, path, compression="zstd", use_dictionary=dictionary)
    return path


def texts_of_parquet(path: Path, bad: BadRecords) -> list[Record]:
    columns = {"text": "text", "label": "label"}
    return [record for _, record in parquet.placed([path], columns, lambda values: values, bad)]


def test_one_value_of_many_rows_is_in_memory_once(tmp_path: Path) -> None:
    """200 rows that point at one text of 12 MB: some kilobytes that would take 2.4 GB."""
    values = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 200, pyarrow.int32()), ["red dog " * 1_500_000])
    path, bad = packed(tmp_path / "x.parquet", values), BadRecords()
    before = pyarrow.default_memory_pool().max_memory()
    assert texts_of_parquet(path, bad) == []
    assert len(bad) == 200
    assert "a row of 12000001 characters, more than 4194304" in next(iter(bad))[1]
    assert pyarrow.default_memory_pool().max_memory() < max(before, 200 << 20)


def test_bytes_that_unpack_to_far_more_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "x.parquet", [f"{n}{'a' * 100_000}" for n in range(20)], dictionary=False)
    assert len(texts_of_parquet(path, BadRecords())) == 20
    monkeypatch.setattr(parquet, "LARGEST", 1_000_000)
    bad = BadRecords()
    assert texts_of_parquet(path, bad) == []
    assert "unpack to 2000" in next(iter(bad))[1]


def test_rows_come_alike_however_many_are_unpacked_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [None, "", *("ä" * n for n in range(50))]
    path = packed(tmp_path / "x.parquet", texts)
    monkeypatch.setattr(parquet, "UNPACKED", 100)
    assert [record["text"] for record in texts_of_parquet(path, BadRecords())] == texts
