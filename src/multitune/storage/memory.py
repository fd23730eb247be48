"""How much memory there is, and what a lack of it looks like."""

import os
from pathlib import Path

import torch

NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""In the message of the plain RuntimeError that torch raises on the CPU."""
MEMINFO = Path("/proc/meminfo")
GROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), "memory.usage_in_bytes", "total_inactive_file"),
)
"""Of control groups, version 2 and 1: the file of the limit, that of the use beside it, and what memory.stat calls the
part of the use that Linux gives back when it is short."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that there was not enough memory, on the CPU or on a device."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or NO_MEMORY in str(error)


def free_memory(device: torch.device) -> int | None:
    """Bytes that a process can still take on a device; None where the system does not say.

    On the CPU: what Linux could give, swap included, and no more than the process's control group may take; elsewhere
    all that the machine has.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    if MEMINFO.exists():
        sizes = {name: 1024 * int(size) for name, size, *_ in map(str.split, MEMINFO.read_text().splitlines())}
        free = sizes["MemAvailable:"] + sizes["SwapFree:"]
        return min(free, *(_left_in(*group, at_most=free) for group in GROUPS))
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _left_in(limit: Path, used: str, given_back: str, at_most: int) -> int:
    """Bytes that a control group may still take; ``at_most`` where it has no limit."""
    if not limit.exists() or not (text := limit.read_text().strip()).isdecimal():
        return at_most
    stat = dict(map(str.split, (limit.parent / "memory.stat").read_text().splitlines()))
    return int(text) - int((limit.parent / used).read_text()) + int(stat.get(given_back, 0))
