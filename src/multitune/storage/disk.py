"""What a machine can do to a run, in one line each that says what would help."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from multitune.errors import RunError, UserError

FULL = {errno.ENOSPC, errno.EDQUOT}
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EEXIST, errno.ELOOP}
TOO_LARGE = "the limit of file sizes is reached (ulimit -f shows it); raise the limit"
BROKEN = {errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE}


@contextmanager
def disk_explained(out: Path) -> Iterator[None]:
    """Inside, what the disk under ``out`` does becomes an error that a user can read.

    Raises:
        RunError: it is full or broken, it takes no file of that size, or a folder of the run was removed.
        UserError: ``out`` cannot be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        explained = _of_the_disk(error, out)
        if explained is None:
            raise
        raise explained from error


def check_readable(path: Path) -> None:
    """Find out whether the system lets a path be looked at; a missing one is the caller's business.

    Raises:
        UserError: its name is too long, or a folder above it is closed.
    """
    try:
        path.exists()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def check_listed(folder: Path) -> None:
    """Find out whether the system lets a folder and what is in it be read, where it would else seem to be empty.

    Raises:
        UserError: it does not.
    """
    try:
        os.scandir(folder).close()
        os.stat(f"{folder}/.")  # some can be listed, and what is in them cannot be looked at
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror}") from error


def check_writable(folder: Path, what: str) -> None:
    """Raise UserError where ``what`` cannot be written into a folder, before it is computed for long."""
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder}: cannot be written, and {what} belongs there; copy the folder, or give it the right")


def in_words(error: OSError) -> str | None:
    """What a disk or a pipe did to a command outside ``disk_explained``, in a line.

    Returns:
        "" where nobody reads any more what is written; None where it was neither disk nor pipe.
    """
    if error.errno == errno.EPIPE:
        return ""
    if error.errno not in FULL | REFUSED | BROKEN | {errno.EFBIG}:
        return None
    return f"{error.filename or 'cannot write what was to be printed'}: {os.strerror(error.errno)}"


def error_number(error: OSError | SafetensorError) -> int | None:
    """The system's number; safetensors, written in Rust, has it in its message alone."""
    if isinstance(error, OSError):
        return error.errno
    code = re.search(r"\(os error (\d+)\)", str(error))
    return int(code[1]) if code else None


def _of_the_disk(error: OSError | SafetensorError, out: Path) -> Exception | None:
    number = error_number(error)
    where = getattr(error, "filename", None) or out
    if number in FULL:
        return RunError(f"{where}: the disk is full; make room on it, then go on with --resume")
    if number == errno.EFBIG:
        return RunError(f"{where}: {TOO_LARGE}, then go on with --resume")
    if number == errno.ENOENT and not out.exists():
        return RunError(f"{out}: was removed while the run was going on; nothing of it is left, start it again")
    if number in REFUSED:
        return UserError(f"--out: cannot write {where}: {os.strerror(number)}; name another folder")
    if number in BROKEN:
        return RunError(f"{where}: the disk failed ({os.strerror(number)}); once it is repaired, go on with --resume")
    return None
