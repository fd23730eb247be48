"""Whether a model fits into memory, told before its weights are fetched or read."""

import os
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from multitune.errors import UserError

LIMIT = Path("/sys/fs/cgroup/memory.max")
"""What Linux lets a container have, in bytes, or "max"."""


def check_room(name: str, auto_model: Any, config: PretrainedConfig) -> None:
    """Refuse a model whose weights alone, in fp32, are larger than this machine's memory.

    Raises:
        UserError: it is too large; the message says the bytes of both.
    """
    with torch.device("meta"):
        weights = sum(weight.numel() for weight in auto_model.from_config(config).parameters())
    there = memory()
    if there is not None and 4 * weights > there:
        raise UserError(
            f"model: {name!r} has {weights:,} weights, which take {4 * weights:,} bytes in fp32, more than the "
            f"{there:,} bytes of memory here; choose a smaller one"
        )


def memory() -> int | None:
    """Bytes of memory that this process may use; None where the system does not say."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = LIMIT.read_text(encoding="ascii").strip() if LIMIT.is_file() else "max"
    return min(whole, int(limit)) if limit.isdecimal() else whole
