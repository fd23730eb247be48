"""Texts are tokenised once: their examples are kept in the user's cache folder and found there by their content."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path

from multitune.data.records.corpus import Record
from multitune.data.records.spool import digest
from multitune.data.records.stored import Stored, opened, stored
from multitune.models.encoder import Encoder
from multitune.storage import atomic
from multitune.tasks.task import Example, Task
from multitune.versions import versions

log = logging.getLogger(__name__)

CODE = ("tasks/*.py", "data/records/stored.py", "seeds.py", "evaluation/tokenised.py")
"""What decides, beside the installed packages, how a record becomes an example in a file."""

UNUSED = 30 * 24 * 3600
"""Seconds without use after which a file is removed, when another one is written."""


def examples(records: Sequence[Record], task: Task, encoder: Encoder, max_length: int) -> Sequence[Example]:
    """The records as the task encodes them, from the cache where they are in it.

    A cache that cannot be written is only a warning; then they are held in memory.
    """
    made = task.encode(records, encoder.tokenizer, max_length)
    if not task.tokenised:
        return list(made)
    content = [digest(records), type(task).__name__, task.labels, max_length, encoder.tokenizer_hash, versions(), _code()]
    key = hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()
    path = user_cache_path("multitune") / "tokenised" / f"{key}.arrow"
    found = opened(path)
    if found is not None:
        with suppress(OSError):
            os.utime(path)  # it is in use
        return found
    fresh = stored(made)
    return _kept(fresh, path) or fresh


def _kept(fresh: Stored, path: Path) -> Stored | None:
    """The same examples in the file; None where it cannot be written."""
    try:
        fresh.write(path)
        _clear(path.parent)
    except OSError as error:
        _warn(f"{path.parent}: cannot be written ({error.strerror}); texts are tokenised for this run alone")
        return None
    return opened(path)


@cache
def _clear(folder: Path) -> None:
    """Remove what nobody has used for long; once is enough."""
    for file in folder.iterdir():
        with suppress(OSError):  # another process was first
            if time.time() - file.stat().st_mtime > UNUSED:
                atomic.remove(file)


@cache
def _warn(message: str) -> None:
    """Say it once."""
    log.warning(message)


@cache
def _code() -> str:
    """A hash of the code that makes and keeps examples."""
    sources = sorted(file for pattern in CODE for file in Path(__file__).parents[1].glob(pattern))
    return hashlib.blake2b(b"".join(source.read_bytes() for source in sources)).hexdigest()
