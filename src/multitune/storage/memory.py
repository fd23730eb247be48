"""How much memory there is, and what a lack of it looks like."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""In the message of the plain RuntimeError that torch raises on the CPU."""
MEMINFO = Path("/proc/meminfo")
GROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""The folder of all control groups, and the file that says in which of them this process is."""


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
        return min([free, *(_left_in(group, at_most=free) for group in _groups())])
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


@dataclass(frozen=True)
class Group:
    """A control group.

    Attributes:
        folder: that has its files.
        limit, used: the names of the files of its limit and of its use.
        given_back: what memory.stat calls the part of the use that Linux gives back when it is short.
    """

    folder: Path
    limit: str
    used: str
    given_back: str


def _groups() -> Iterator[Group]:
    """The control groups, of version 2 or 1, that this process is in: each limits what is inside it."""
    for line in OWN.read_text().splitlines() if OWN.exists() else ():
        _, controllers, path = line.split(":", 2)
        own = Path(path.lstrip("/"))
        if not controllers:
            for folder in (own, *own.parents):
                yield Group(GROUPS / folder, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            for folder in (own, *own.parents):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                yield Group(GROUPS / "memory" / folder, *names)


def _left_in(group: Group, at_most: int) -> int:
    """Bytes that a control group may still take; ``at_most`` where it has no limit, or cannot be seen from here."""
    limit = group.folder / group.limit
    if not limit.exists() or not (text := limit.read_text().strip()).isdecimal():
        return at_most
    stat = dict(map(str.split, (group.folder / "memory.stat").read_text().splitlines()))
    return int(text) - int((group.folder / group.used).read_text()) + int(stat.get(group.given_back, 0))
