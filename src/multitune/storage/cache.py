"""What can be made anew, kept between runs: entries in the user's cache folder, checked whenever they are used.

An entry is a folder ``<cache>/<use>/<key>``: the files that its maker wrote, and their hashes in ``SHA256SUMS``, which
``sha256sum --check`` reads, too. It appears whole. A damaged one is made anew, file by file, so that whoever reads it
meets a good file or a bad one, never none. Processes that make one entry at a time write the same bytes, and need no
lock.
"""

import atexit
import functools
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

from platformdirs import user_cache_path
from safetensors import SafetensorError

from multitune.errors import RunError
from multitune.storage import scratch
from multitune.storage.atomic import remove, sync, unlock

log = logging.getLogger(__name__)

SUMS = "SHA256SUMS"
"""Processors have instructions for this hash: it takes half of BLAKE2b's time."""
UNUSED = 30 * 24 * 3600
"""Seconds without use after which an entry goes, when a process writes its first one."""

Value = TypeVar("Value")

_checked: dict[Path, object] = {}  # entry -> the state of its files when this process found it whole
_told: set[Path] = set()  # entries and cache folders that this process has warned of
_substitutes: dict[Path, Path] = {}  # entry that cannot be written -> the temporary folder that stands in for it


def root() -> Path:
    """The folder of all entries: ``multitune`` in the user's cache folder, which ``XDG_CACHE_HOME`` moves."""
    return user_cache_path("multitune")


def key(*parts: Any) -> str:
    """The name of an entry: a hash of all that decides its content, plain JSON values."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


@functools.cache
def code(*patterns: str) -> str:
    """A hash of this package's source files, named by patterns like ``tasks/*.py``: part of a key."""
    package = Path(__file__).parents[1]
    files = sorted({file for pattern in patterns for file in package.glob(pattern)})
    return hashlib.blake2b(b"".join(file.read_bytes() for file in files), digest_size=16).hexdigest()


def kept(
    use: str,
    key: str,
    *,
    make: Callable[[], Value],
    write: Callable[[Value, Path], None],
    read: Callable[[Path], Value],
) -> Value:
    """A value, read from its entry; where there is no good one, it is made and written first.

    Where it cannot be written, a warning says so, and the value is what ``make`` returns.

    Args:
        use: what the entry is for: the folder of all entries of its kind.
        key: what ``key`` returns.
        make: makes the value.
        write: writes it into a folder, as files.
        read: reads it from there.
    """
    entry = root() / use / key
    if _whole(entry):
        with suppress(FileNotFoundError):  # another process clears the cache
            return read(entry)
    made = make()
    if _written(entry, lambda folder: write(made, folder)):
        with suppress(FileNotFoundError):
            return read(entry)
    return made


def folder(use: str, key: str, fill: Callable[[Path], None]) -> Path:
    """The folder of an entry, filled where there is no good one.

    Where it cannot be written, a warning says so, and a temporary folder stands in for it until the process ends.

    Args:
        use: what the entry is for: the folder of all entries of its kind.
        key: what ``key`` returns.
        fill: writes files into a folder.

    Raises:
        RunError: the temporary folder cannot be written either.
    """
    entry = root() / use / key
    if entry not in _substitutes:
        if _whole(entry) or _written(entry, fill):
            return entry
        _substitutes[entry] = _substitute(entry, fill)
    return _substitutes[entry]


def _whole(entry: Path) -> bool:
    """Whether an entry is there and as it was written, which counts as its use; of a damaged one a warning tells."""
    if not os.path.lexists(entry):
        return False
    try:
        state = _state(entry)
        if _checked.get(entry) != state:
            if (entry / SUMS).read_text(encoding="utf-8") != _sums(entry):
                raise ValueError("a hash differs")
            _checked[entry] = state
    except (OSError, ValueError) as error:
        _warn_once(entry, f"{entry} is damaged ({_reason(error)}), and is made anew")
        return False
    with suppress(OSError):  # it may only be read
        os.utime(entry)
    return True


def _files(entry: Path) -> list[Path]:
    """What is in an entry. Hidden files are not ours: NFS has them in place of files that are removed while open."""
    return sorted(path for path in entry.iterdir() if not path.name.startswith("."))


def _state(entry: Path) -> object:
    """What differs once a file has been written to: of its times, the one that nobody can set."""
    stats = [(file.name, file.stat()) for file in _files(entry)]
    return [(name, stat.st_ino, stat.st_size, stat.st_ctime_ns) for name, stat in stats]


def _sums(entry: Path) -> str:
    """What ``sha256sum`` prints of an entry's files."""
    return "".join(f"{_sha256(file)}  {file.name}\n" for file in _files(entry) if file.name != SUMS)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _written(entry: Path, fill: Callable[[Path], None]) -> bool:
    """Whether an entry could be written; if not, a warning names the folder."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        _tidy(root())
        with scratch.scratch(entry.parent) as beside:
            _fill(beside / entry.name, fill)
            _seal(beside / entry.name)
            _publish(beside / entry.name, entry)
    except (OSError, SafetensorError) as error:
        message = f"{entry.parent}: the cache cannot be written ({_reason(error)}), and this run goes on without it"
        _warn_once(root(), f"{message}; XDG_CACHE_HOME names another folder")
        return False
    return True


def _fill(folder: Path, fill: Callable[[Path], None]) -> None:
    folder.mkdir()  # with the permissions that the umask gives, unlike the folder that it is in
    fill(folder)
    unlock(folder)


def _seal(folder: Path) -> None:
    """Write the hashes of the files in a folder, and wait until all files are on the disk.

    Folders are not waited for, which would double the time: what a power cut could take then is a whole entry.
    """
    (folder / SUMS).write_text(_sums(folder), encoding="utf-8")
    for file in _files(folder):
        sync(file)


def _publish(fresh: Path, entry: Path) -> None:
    """Move a new entry to its place, also where a damaged one is, or one that another process has just made."""
    try:
        fresh.rename(entry)
    except OSError:
        if not os.path.lexists(entry):
            raise
        if entry.is_dir():
            _mend(entry, fresh)
        else:
            entry.unlink()
            fresh.rename(entry)


def _mend(entry: Path, fresh: Path) -> None:
    """Exchange the files of an entry, one after the other, the hashes last."""
    files = sorted(_files(fresh), key=lambda file: file.name == SUMS)
    strays = {path.name for path in _files(entry)} - {file.name for file in files}
    for name in strays | {file.name for file in files if (entry / file.name).is_dir()}:
        remove(entry / name)
    for file in files:
        file.replace(entry / file.name)


@functools.cache
def _tidy(root: Path) -> None:
    """Remove what nobody has used for long, and what killed processes have left; once a process is enough."""
    for use in root.iterdir():
        scratch.remove_left(use)
    for entry in root.glob("*/*"):
        with suppress(OSError):  # another process was first, or it may only be read
            if time.time() - entry.lstat().st_mtime > UNUSED:
                remove(entry)


def _substitute(entry: Path, fill: Callable[[Path], None]) -> Path:
    """A temporary folder with what an entry would hold; it goes when the process ends."""
    try:
        parent = Path(tempfile.gettempdir())
        scratch.remove_left(parent)
        with ExitStack() as kept:
            beside = kept.enter_context(scratch.scratch(parent))
            _fill(beside / entry.name, fill)
            atexit.register(kept.pop_all().close)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"neither the cache, {entry.parent}, nor a temporary folder can be written ({_reason(error)}); "
            f"XDG_CACHE_HOME and TMPDIR name other ones"
        ) from error
    return beside / entry.name


def _warn_once(about: Path, message: str) -> None:
    if about not in _told:
        _told.add(about)
        log.warning(message)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).splitlines()[0]
