"""Records on disk: MessagePack in a temporary file; memory holds no more than where each of them is."""

import os
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import final

import msgspec

from multitune.data.records.rows import Row, Rows
from multitune.storage.disk import disk_explained

BLOCK = 2**16
"""Bytes that are written or read at a time."""

_encoded = msgspec.msgpack.Encoder().encode
_decoded = msgspec.msgpack.Decoder(Row).decode


@final
class Spool:
    """A file in the system's temporary folder (``TMPDIR``) that goes when nothing of it is in use any more."""

    def __init__(self) -> None:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # open as long as the spool is
        weakref.finalize(self, file.close)
        self._file, self._end, self._turn = file.fileno(), 0, Lock()

    def keep(self, records: Iterable[Row]) -> "Spooled":
        """The records, on disk: plain JSON values, whole numbers of 64 bits.

        Raises:
            RunError: the disk is full.
        """
        ends = array("q", [self._end])
        block: list[bytes] = []
        for record in records:
            block.append(_encoded(record))
            ends.append(ends[-1] + len(block[-1]))
            if ends[-1] - self._end > BLOCK:
                self._write(block)
        self._write(block)
        return Spooled(self, ends)

    def read(self, begin: int, end: int) -> bytes:
        """The bytes from one place in the file to another."""
        if hasattr(os, "pread"):
            return os.pread(self._file, end - begin, begin)
        with self._turn:  # Windows has one place in a file for all threads
            os.lseek(self._file, begin, os.SEEK_SET)
            return os.read(self._file, end - begin)

    def _write(self, block: list[bytes]) -> None:
        left = b"".join(block)
        with disk_explained(Path(tempfile.gettempdir())):
            while left:
                with self._turn:
                    os.lseek(self._file, self._end, os.SEEK_SET)
                    written = os.write(self._file, left)
                self._end, left = self._end + written, left[written:]
        block.clear()


@final
class Spooled(Rows):
    """Records in a spool, one after the other; ``ends`` are where they begin, and where the last one ends, in bytes."""

    def __init__(self, spool: Spool, ends: Sequence[int]) -> None:
        self._spool, self._ends = spool, ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    def row(self, number: int) -> Row:
        return _decoded(self._spool.read(self._ends[number], self._ends[number + 1]))

    def blocks(self) -> Iterator[bytes]:
        """All their bytes in the file."""
        edges = [*range(self._ends[0], self._ends[-1], BLOCK), self._ends[-1]]
        return (self._spool.read(begin, end) for begin, end in pairwise(edges))
