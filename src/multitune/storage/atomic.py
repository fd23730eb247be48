"""Files and folders that are on disk whole or not at all, whenever the process or the machine ends."""

import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PRIVATE = 0o600


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write a file or a folder to, which becomes ``path`` when the block ends well.

    Its files get the permissions that the umask gives. It is synced before it is renamed, and removed when the block
    raises. (A folder that is in the way goes first: a process that is killed in that moment leaves neither, never a
    half of each.)
    """
    beside = path.with_name(f".{path.name}.part")
    remove(beside)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield beside
        unlock(beside)
        for written in [beside, *beside.rglob("*")]:
            sync(written)
        if path.is_dir():  # or a link to one, which goes as a link to a file does
            remove(path)
        beside.replace(path)
        sync(path.parent)
    finally:
        remove(beside)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file, whole or not at all."""
    with replaced(path) as beside:
        beside.write_text(text, encoding="utf-8")


def unlock(path: Path) -> None:
    """Give a file, or all in a folder, the permissions of any new file: safetensors keeps its own to their owner."""
    files = [file for file in (path, *path.rglob("*")) if file.is_file()]
    private = [file for file in files if stat.S_IMODE(file.stat().st_mode) == PRIVATE]
    if private:
        new = path.with_name(f".{path.name}.new.part")
        new.touch()
        mode = stat.S_IMODE(new.stat().st_mode)
        new.unlink()
        for file in private:
            file.chmod(mode)


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


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk; Windows opens no folder, and syncs no reader."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON, whole or not at all.

    Raises:
        ValueError: a number is NaN or infinite, which JSON has no word for.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
