"""One process at a time in a run folder."""

import errno
import getpass
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from multitune.errors import UserError

LOCK, OWNER = ".lock", ".owner"
"""What a folder holds while a process has it: the file that is locked, and who that process is."""
FILES = (LOCK, OWNER)
NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP}
"""What file systems say that have no locks, as NFS without its lock daemon. Where they do not even know flock (ENOSYS:
Lustre mounted without it), the file itself is filelock's lock."""
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
        said = f"--out: {folder} is in use by {_owner(folder)}; wait for it to end, or name another folder"
        raise UserError(said + _elsewhere(folder)) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise UserError(
            f"--out: {folder}: its disk has no locks ({os.strerror(error.errno)}), which keep two runs out of one "
            f"folder; name a folder on another disk, or mount this one with locks"
        ) from error


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
    owner = _noted(folder)
    return "process {pid} of {user} on {host}, since {since}".format(**owner) if owner else "an unknown process"


def _elsewhere(folder: Path) -> str:
    """What helps where another machine has a folder, and may be gone: no system that is left ends its lock."""
    here = _noted(folder).get("host", socket.gethostname()) == socket.gethostname()
    return "" if here else f"; where that machine is gone, remove {folder / LOCK}"


def _noted(folder: Path) -> dict[str, Any]:
    """What an owner of a folder has noted of itself; nothing where that cannot be read."""
    try:
        owner = json.loads((folder / OWNER).read_bytes())
        return {name: owner[name] for name in ("pid", "user", "host", "since")}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}
