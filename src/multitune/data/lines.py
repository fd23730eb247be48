"""Lines of a text file by number: UTF-8, plain or gzipped, with or without a byte-order mark."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast

from multitune.data.bad import BadRecords, report
from multitune.errors import UserError


def numbered(path: str | Path, bad: BadRecords | None = None) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, line without its end). Only line feeds end a line: texts may hold U+2028 and others.

    A file whose name ends in ``.gz`` is unpacked as it is read.

    Args:
        path: the file.
        bad: takes lines that are not UTF-8, and the place where a gzipped file is cut short; None raises instead.

    Raises:
        UserError: the file cannot be read, or (without ``bad``) it holds a bad line.
    """
    path, number = Path(path), 0
    try:
        with _opened(path) as file:
            for number, line in enumerate(file, 1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError:
                    report(bad, f"{path}:{number}", "not UTF-8 text; save the file as UTF-8")
                    continue
                yield number, text.rstrip("\r\n")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        report(bad, f"{path}:{number + 1}", f"the gzipped file is damaged or cut short ({error})")
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}") from error


def _opened(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


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
        found = [head for head in heads if head is not None]
        number = min(number for number, _ in found)
        if len(found) == len(heads) and all(other == number for other, _ in found):
            yield number, tuple(line for _, line in found)
        for index, head in enumerate(heads):
            if head is not None and head[0] == number:
                ends[index], heads[index] = number, next(sides[index], None)
    if min(ends) != max(ends):
        counts = ", ".join(f"{path} has {end} lines" for path, end in zip(paths, ends, strict=True))
        report(bad, f"{paths[ends.index(min(ends))]}:{min(ends) + 1}", f"files of unequal length: {counts}")


def _without_blank_end(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    blank: list[tuple[int, str]] = []
    for number, line in lines:
        if line.strip():
            yield from blank
            yield number, line
            blank = []
        else:
            blank.append((number, line))
