"""Files and folders that are on disk whole or not at all, whenever the process or the machine ends."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write a file or a folder to, which becomes ``path`` when the block ends well.

    It is synced before it is renamed, and removed when the block raises. (A folder that is in the way goes first: a
    process that is killed in that moment leaves neither, never a half of each.)
    """
    beside = path.with_name(f".{path.name}.part")
    remove(beside)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield beside
        for written in [beside, *beside.rglob("*")]:
            _sync(written)
        if path.is_dir():
            shutil.rmtree(path)
        beside.replace(path)
        _sync(path.parent)
    finally:
        remove(beside)


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """As ``replaced``, for a file that several processes may write at once: each has a place of its own.

    The last one stays. It is not synced: this is for what can be made anew.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        beside = Path(folder) / path.name
        yield beside
        beside.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file, whole or not at all."""
    with replaced(path) as beside:
        beside.write_text(text, encoding="utf-8")


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Remove what a killed process was still writing in a folder."""
    for part in folder.glob(".*.part"):
        remove(part)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
