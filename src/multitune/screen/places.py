"""Where this program runs: in a notebook's cell, at a terminal, as one of several processes."""

import os
import sys
from contextlib import AbstractContextManager, nullcontext

from multitune.screen.notebook import Cell
from multitune.screen.stages import Screen, shown_on
from multitune.screen.terminal import Terminal


def here() -> Screen:
    """A screen where this program is watched."""
    return Cell() if in_notebook() else Terminal()


def is_one_of_several() -> bool:
    """Whether a launcher has started this process and others as one run."""
    size = os.environ.get("WORLD_SIZE", "")
    return "RANK" in os.environ and size.isdecimal() and int(size) > 1


def in_notebook() -> bool:
    """Whether this program is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def wanted(progress: bool | None) -> bool:
    """Whether progress is shown; None leaves it to the place: in a notebook somebody watches."""
    return in_notebook() if progress is None else progress


def watched(progress: bool) -> AbstractContextManager[object]:
    """A block whose stages are shown, if that is wanted."""
    return shown_on(here) if progress else nullcontext()
