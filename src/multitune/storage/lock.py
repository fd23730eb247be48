"""One process at a time in a run folder."""

import getpass
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from multitune.errors import UserError

LOCK, OWNER = ".lock", ".owner"
"""What a folder holds while a process has it: the file that is locked, and who that process is."""
FILES = (LOCK, OWNER)
PATIENCE = 0.1
"""Seconds after which a lock counts as another's; the last owner may just be removing its file."""


@contextmanager
def held(folder: Path) -> Iterator[str | None]:
    """Keep every other process out of ``folder`` inside the block.

    The system itself ends the hold of a process that ends, so that no lock is ever left behind; what is left behind
    only tells who it was. Yields that owner in words, or None where the last one went in an orderly way.

    Raises:
        UserError: another process has it; the message says which.
    """
    lock, owner = _acquired(folder), folder / OWNER
    try:
        last = _owner(folder) if owner.exists() else None
        owner.write_text(json.dumps(_this_process()), encoding="utf-8")
        yield last
    finally:
        owner.unlink(missing_ok=True)
        with suppress(PermissionError):  # Windows removes no file that is open; filelock does there, once it is closed
            (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def check_free(folder: Path) -> None:
    """Raise UserError, as ``held`` does, where another process has the folder; leaves nothing behind."""
    if (folder / LOCK).exists():
        _acquired(folder).release()


def is_held(folder: Path) -> bool:
    """Whether any process, this one included, has a folder; leaves nothing behind."""
    return (folder / LOCK).exists() and is_locked(folder / LOCK)


def is_locked(path: Path) -> bool:
    """Whether any process, this one included, has the lock on a file."""
    try:
        locked(path).release()
    except Timeout:
        return True
    return False


def locked(path: Path) -> FileLock:
    """Take the lock on a file, which is made where it is missing; any thread of this process may release it.

    Raises:
        Timeout: it is in other hands.
    """
    lock = FileLock(path, timeout=PATIENCE, poll_interval=PATIENCE / 4, thread_local=False)
    lock.acquire()
    return lock


def _acquired(folder: Path) -> FileLock:
    try:
        return locked(folder / LOCK)
    except Timeout:
        raise UserError(
            f"--out: {folder} is in use by {_owner(folder)}; wait for it to end, or name another folder"
        ) from None


def _this_process() -> dict[str, str | int]:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "user": _user(), "host": socket.gethostname(), "since": since}


def _user() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # no name in the environment, and none for the user's number
        return "an unknown user"


def _owner(folder: Path) -> str:
    """Who has a folder, or had it last, in words."""
    try:
        owner = json.loads((folder / OWNER).read_bytes())
        return f"process {owner['pid']} of {owner['user']} on {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "an unknown process"
