"""Lines of a text file by number: UTF-8, plain or gzipped, with or without byte-order marks."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO, cast

from multitune.data.bad import BadRecords, report
from multitune.errors import UserError
from multitune.screen.stages import passed

LONGEST = 4 * 2**20
"""Bytes of a line, and characters of a record of several lines: what is longer is bad, and never held in memory."""
LARGEST = 256 * 2**20
"""Bytes, unpacked, of a file that is read whole."""
BLOCK = 2**16
OFTEN = 1000
"""Lines, after which the screen is told how many bytes of a file were read."""


def numbered(path: str | Path, bad: BadRecords | None = None) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, line without its end). Only line feeds end a line: texts may hold U+2028 and others.

    A file whose name ends in ``.gz`` is unpacked as it is read.

    Args:
        path: the file.
        bad: takes lines that are too long or not UTF-8, a file whose lines end in carriage returns alone, and the place
            where a gzipped file is cut short; None raises instead.

    Raises:
        UserError: the file cannot be read, or (without ``bad``) it holds a bad line.
    """
    path, number = Path(path), 0
    try:
        with _opened(path) as file:
            told = 0
            for number, line in numbered_in(file, str(path), bad):
                if number % OFTEN == 0:
                    passed(path, (place := _place(file)) - told)
                    told = place
                yield number, line
            passed(path, _place(file) - told)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        report(bad, f"{path}:{number + 1}", f"the gzipped file is damaged or cut short ({error})")


def numbered_in(file: IO[bytes], name: str, bad: BadRecords | None = None) -> Iterator[tuple[int, str]]:
    """Yield what ``numbered`` does, of an open file; ``name`` is what messages call it."""
    rows = iter(partial(file.readline, LONGEST + 1), b"")
    begin = [*islice(rows, 1)]
    if begin and len(begin[0]) <= LONGEST and _has_carriage_return(begin[0]):
        begin += islice(rows, 1)
        if len(begin) == 1:
            report(bad, f"{name}:1", "carriage returns alone end its lines; save the file with line feeds")
            return
    for number, line in enumerate(chain(begin, rows), 1):
        if len(line) > LONGEST:
            no_end = "; carriage returns alone end none" if _has_carriage_return(line) else ""
            report(bad, f"{name}:{number}", f"a line of more than {LONGEST} bytes{no_end}")
            _skip_line(file, line)
            continue
        try:
            text = line.decode("utf-8-sig")  # files that were joined have a mark at several lines
        except UnicodeDecodeError:
            report(bad, f"{name}:{number}", "not UTF-8 text; save the file as UTF-8")
            continue
        yield number, text.rstrip("\r\n")


def _has_carriage_return(line: bytes) -> bool:
    return b"\r" in line.rstrip(b"\r\n")


def whole(path: str | Path, bad: BadRecords | None = None) -> str | None:
    """The text of a file that is no sequence of lines; None where it is bad.

    Args:
        path: a UTF-8 file, plain or gzipped.
        bad: takes what is wrong with it; None raises instead.

    Raises:
        UserError: the file cannot be read, or (without ``bad``) it is too large or not UTF-8.
    """
    path = Path(path)
    try:
        with _opened(path) as file:
            content = file.read(LARGEST + 1)
        passed(path, path.stat().st_size)
        if len(content) <= LARGEST:
            return content.decode("utf-8-sig")
        report(bad, str(path), f"has more than {LARGEST} bytes, which are read at once; divide the file")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        report(bad, f"{path}:{line}", "not UTF-8 text; save the file as UTF-8")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        report(bad, str(path), f"the gzipped file is damaged or cut short ({error})")
    return None


def check_opens(path: Path) -> None:
    """Raise ``UserError`` as all do that read a file: no regular one, or the system does not let it be read."""
    with _opened(path):
        pass


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Raises UserError where the system does not let it be read, or it is a device, which may have no end."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is not a regular file")
    try:
        with cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb") as file:
            yield file
    except gzip.BadGzipFile:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _place(file: IO[bytes]) -> int:
    """How many bytes of a file were read, packed as they are."""
    return file.fileobj.tell() if isinstance(file, gzip.GzipFile) else file.tell()


def _skip_line(file: IO[bytes], line: bytes) -> None:
    """Read on to the end of a line, block by block."""
    while line and not line.endswith(b"\n"):
        line = file.readline(BLOCK)


def aligned(paths: Sequence[str | Path], bad: BadRecords | None = None) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield (number, line of each file) for files whose lines with one number belong together.

    Blank lines at the end of a file do not count. Where a line of one file is not UTF-8, its partners go with it.

    Raises:
        UserError: as ``numbered`` does, or (without ``bad``) the files are of unequal length.
    """
    sides = [_without_blank_end(numbered(path, bad)) for path in paths]
    heads = [next(side, None) for side in sides]
    ends = [0] * len(sides)
    while any(heads):
        present = [head for head in heads if head is not None]
        number = min(number for number, _ in present)
        if len(present) == len(heads) and all(other == number for other, _ in present):
            yield number, tuple(line for _, line in present)
        for index, head in enumerate(heads):
            if head is not None and head[0] == number:
                ends[index], heads[index] = number, next(sides[index], None)
    if min(ends) != max(ends):
        counts = ", ".join(f"{path} has {end} lines" for path, end in zip(paths, ends, strict=True))
        report(bad, f"{paths[ends.index(min(ends))]}:{min(ends) + 1}", f"files of unequal length: {counts}")


def _without_blank_end(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """The lines up to the last that is not blank; blank ones as empty. Only where they begin and end is remembered."""
    blank: list[range] = []
    for number, line in lines:
        if line.strip():
            yield from ((each, "") for run in blank for each in run)
            yield number, line
            blank = []
        elif blank and blank[-1].stop == number:
            blank[-1] = range(blank[-1].start, number + 1)
        else:
            blank.append(range(number, number + 1))
