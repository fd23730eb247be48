"""What a lack of memory looks like, and how much there is."""

from pathlib import Path

import torch

NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""In the message of the plain RuntimeError that torch raises on the CPU."""


MACHINE = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")
"""Where Linux tells what is free, and the limits of a container."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that there was not enough memory, on the CPU or on a device."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or NO_MEMORY in str(error)


def available() -> int | None:
    """Bytes of memory that processes may still take on this machine; None where the system does not say."""
    free = [*_of_machine(), *_of_group()]
    return min(free) if free else None


def _of_machine() -> list[int]:
    lines = MACHINE.read_text().splitlines() if MACHINE.exists() else []
    return [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]


def _of_group() -> list[int]:
    """What the limit of a container leaves, page cache apart."""
    most, used, parts = (GROUP / name for name in ("memory.max", "memory.current", "memory.stat"))
    if not (most.exists() and used.exists()) or (limit := most.read_text().strip()) == "max":
        return []
    lines = parts.read_text().splitlines() if parts.exists() else []
    cached = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    return [int(limit) - int(used.read_text()) + cached]
