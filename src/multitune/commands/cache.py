"""What runs have kept to be faster the next time: how much it is, and its removal."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from multitune.errors import UserError
from multitune.storage import cache, scratch
from multitune.storage.atomic import remove


@dataclass(frozen=True)
class Usage:
    """What the cache holds for one use.

    Attributes:
        use: its name, a folder in the cache.
        entries: how many there are.
        size: of them all, in bytes.
        last: when one of them was used or written.
    """

    use: str
    entries: int
    size: int
    last: datetime


def usage() -> list[Usage]:
    """The contents of the cache by use, the largest first; uses without entries are left out.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        uses = [_usage(use.name, entries) for use in _uses() if (entries := _entries(use))]
    except OSError as error:
        raise UserError(f"{error.filename}: the cache cannot be read ({error.strerror})") from error
    return sorted(uses, key=lambda use: -use.size)


def clear() -> int:
    """Remove all entries, but for what another process is just writing.

    Returns:
        Bytes that are free now.

    Raises:
        UserError: one of them cannot be removed.
    """
    before = sum(use.size for use in usage())
    try:
        for entry in [entry for use in _uses() for entry in _entries(use)]:
            if not scratch.in_use(entry):
                remove(entry)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be removed ({error.strerror})") from error
    return before - sum(use.size for use in usage())


def _uses() -> list[Path]:
    return list(cache.root().iterdir()) if cache.root().is_dir() else []


def _entries(use: Path) -> list[Path]:
    """What is in a folder; a file is its own entry."""
    return list(use.iterdir()) if use.is_dir() else [use]


def _usage(use: str, entries: list[Path]) -> Usage:
    sizes = [path.lstat().st_size for entry in entries for path in (entry, *entry.rglob("*")) if path.is_file()]
    last = max(entry.lstat().st_mtime for entry in entries)
    return Usage(use, len(entries), sum(sizes), datetime.fromtimestamp(last, UTC))
