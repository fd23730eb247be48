"""Folders that a process fills before what is in them moves to its place. They go with the process, however it ends."""

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NAME = re.compile(r"\.multitune\.(?P<process>\d{1,9})\.\w+\.(?P<host>.+)\.part")


def made(parent: Path) -> Path:
    """A new folder in ``parent``, for this process alone; its name tells whose it is."""
    prefix, suffix = f".multitune.{os.getpid()}.", f".{socket.gethostname()}.part"
    return Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=parent))


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A new folder in ``parent``, removed when the block ends."""
    folder = made(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def in_use(path: Path) -> bool:
    """Whether this is the folder of a process that lives, as far as this machine can tell."""
    name = _NAME.fullmatch(path.name)
    return name is not None and not _died(name)


def remove_left(folder: Path) -> None:
    """Remove what processes of this machine left in ``folder`` when they were killed."""
    for path in folder.glob(".multitune.*.part"):
        name = _NAME.fullmatch(path.name)
        if name is not None and _died(name):
            shutil.rmtree(path, ignore_errors=True)


def _died(name: re.Match[str]) -> bool:
    if name["host"] != socket.gethostname():
        return False
    with suppress(PermissionError):  # another user's
        try:
            os.kill(int(name["process"]), 0)
        except ProcessLookupError:
            return True
    return False
