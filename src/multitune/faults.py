"""What a machine can do to a run, in one line each that says what would help."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from multitune.errors import RunError, UserError
from multitune.recipe import Recipe

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG}
BROKEN = {errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE}
NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""In the message of the plain RuntimeError that torch raises on the CPU."""


@contextmanager
def disk_explained(out: Path) -> Iterator[None]:
    """Inside, what the disk under ``out`` does becomes an error that a user can read.

    Raises:
        RunError: it is full, or broken.
        UserError: ``out`` cannot be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        told = _of_the_disk(error, out)
        if told is None:
            raise
        raise told from error


@contextmanager
def memory_explained(recipe: Recipe) -> Iterator[None]:
    """Inside, a lack of memory becomes an error that says what would help.

    Raises:
        RunError: there is not enough.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and NO_MEMORY not in str(error):
            raise
        raise RunError(_more_memory(recipe)) from error


def error_number(error: OSError | SafetensorError) -> int | None:
    """The system's number; safetensors, written in Rust, has it in its message alone."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def _of_the_disk(error: OSError | SafetensorError, out: Path) -> Exception | None:
    number = error_number(error)
    where = getattr(error, "filename", None) or out
    if number in FULL:
        return RunError(f"{where}: no space left; make room on that disk, then go on with --resume")
    if number in REFUSED:
        return UserError(f"--out: cannot write {where}: {errno.errorcode[number]}; name a folder that can be written")
    if number in BROKEN:
        return RunError(f"{where}: the disk fails ({errno.errorcode[number]}); when it is well, go on with --resume")
    return None


def _more_memory(recipe: Recipe) -> str:
    trim = "" if recipe.trim_vocabulary else "trim_vocabulary=true, "
    several = "fewer options.tasks_per_step, " if "tasks_per_step" in recipe.options else ""
    return (
        f"not enough memory: what helps is a lower batch_size (now {recipe.batch_size}) or max_length (now "
        f"{recipe.max_length}), {trim}{several}precision=bf16, a smaller model, or a method with fewer copies of the "
        f"weights"
    )
