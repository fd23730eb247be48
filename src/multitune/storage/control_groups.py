"""The control groups of Linux that this process is in, of version 1 or 2, and the files in which their limits are."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

GROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""The folder of all control groups, and the file that says in which of them this process is."""


@dataclass(frozen=True)
class Group:
    """A control group.

    Attributes:
        folder: that has its files.
        version: 1 or 2, whose files have other names.
    """

    folder: Path
    version: int

    def read(self, name: str) -> str:
        """What one of its files says; nothing where it has no such file, or cannot be seen from here."""
        path = self.folder / name
        return path.read_text().strip() if path.exists() else ""


def groups(controller: str) -> Iterator[Group]:
    """The groups in which a controller, as ``memory``, may limit this process: each limits what is inside it."""
    for line in OWN.read_text().splitlines() if OWN.exists() else ():
        _, controllers, path = line.split(":", 2)
        own = Path(path.lstrip("/"))
        if not controllers:
            yield from (Group(GROUPS / folder, 2) for folder in (own, *own.parents))
        elif controller in controllers.split(","):
            yield from (Group(GROUPS / controller / folder, 1) for folder in (own, *own.parents))
