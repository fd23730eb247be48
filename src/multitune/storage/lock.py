"""One process at a time in a run folder."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from multitune.errors import UserError

FILE = ".lock"


@contextmanager
def held(folder: Path) -> Iterator[str | None]:
    """Keep every other process out of ``folder`` inside the block.

    The system itself ends the hold of a process that ends, so that no lock is ever left behind; a file that is left
    behind only tells who it was. Yields that owner in words, or None where the last one went in an orderly way.

    Raises:
        UserError: another process has it; the message says which.
    """
    descriptor = _opened(folder / FILE)
    try:
        last = os.pread(descriptor, 4096, 0)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(_this_process()).encode(), 0)
        yield _told(last) if last else None
    finally:
        (folder / FILE).unlink(missing_ok=True)
        os.close(descriptor)


def check_free(folder: Path) -> None:
    """Raise UserError, as ``held`` does, where another process has the folder; leaves nothing behind."""
    if (folder / FILE).exists():
        os.close(_opened(folder / FILE))


def _opened(path: Path) -> int:
    """A descriptor of the file that is at ``path`` while this process has the lock on it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _told(os.pread(descriptor, 4096, 0))
            os.close(descriptor)
            raise UserError(
                f"--out: {path.parent} is in use by {owner}; wait for it to end, or name another folder"
            ) from None
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
        os.close(descriptor)  # the last owner removed the file between the two calls: it locks nobody out


def _this_process() -> dict[str, str | int]:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "pid": os.getpid(),
        "user": os.environ.get("USER", f"user {os.getuid()}"),
        "host": socket.gethostname(),
        "since": since,
    }


def _told(content: bytes) -> str:
    try:
        owner = json.loads(content)
        return f"process {owner['pid']} of {owner['user']} on {owner['host']}, since {owner['since']}"
    except (ValueError, LookupError, TypeError):
        return "an unknown process"
