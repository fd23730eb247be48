"""How much memory there is, and what a lack of it looks like."""

import os
from pathlib import Path

import torch

from multitune.storage.control_groups import Group, groups

NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""In the message of the plain RuntimeError that torch raises on the CPU."""
MEMINFO = Path("/proc/meminfo")
FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}
"""By version of control groups: the files of a limit and of its use, and what memory.stat calls the part of the use
that Linux gives back when it is short."""


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
        return min([free, *(_left_in(group, at_most=free) for group in groups("memory"))])
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _left_in(group: Group, at_most: int) -> int:
    """Bytes that a control group may still take; ``at_most`` where it has no limit, or cannot be seen from here."""
    limit, used, given_back = FILES[group.version]
    if not (text := group.read(limit)).isdecimal():
        return at_most
    stat = dict(map(str.split, group.read("memory.stat").splitlines()))
    return int(text) - int(group.read(used)) + int(stat.get(given_back, 0))
