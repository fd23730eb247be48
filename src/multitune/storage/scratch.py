"""Folders that a process fills before what is in them moves to its place. They go with the process, however it ends.

Each holds a file that its process has a lock on. The system ends the lock with the process, so that whoever comes next
on this machine can tell what was left behind.
"""

import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from multitune.storage.lock import LOCK, is_locked, locked

_NAME = re.compile(r"\.multitune\.\w+\.(?P<host>.+)\.part")


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A new folder in ``parent``, for this process alone, removed when the block ends; its name tells the machine."""
    folder, lock = _made(parent)
    try:
        yield folder
    finally:
        _remove(folder, lock)


def _made(parent: Path) -> tuple[Path, FileLock]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=".multitune.", suffix=f".{socket.gethostname()}.part", dir=parent))
        try:
            return folder, locked(folder / LOCK)
        except (Timeout, FileNotFoundError):  # another process took it for one that was left: it was not locked yet
            continue
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def in_use(path: Path) -> bool:
    """Whether this is the folder of a process that lives, as far as this machine can tell."""
    name = _NAME.fullmatch(path.name)
    if name is None or name["host"] != socket.gethostname():
        return name is not None
    try:
        return is_locked(path / LOCK)
    except PermissionError:  # another user's
        return True


def remove_left(folder: Path) -> None:
    """Remove what processes of this machine left in ``folder`` when they were killed."""
    for path in folder.glob(".multitune.*.part"):
        name = _NAME.fullmatch(path.name)
        if name is not None and name["host"] == socket.gethostname():
            try:
                lock = locked(path / LOCK)
            except (Timeout, OSError):  # it is in use, or another user's, or another process was first
                continue
            _remove(path, lock)


def _remove(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()
    shutil.rmtree(folder, ignore_errors=True)  # where no file goes that is open (Windows), the lock's goes only now
