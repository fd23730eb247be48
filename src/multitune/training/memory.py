"""How much memory a run takes, and what would help where it is too little."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from multitune.errors import RunError
from multitune.recipe import Recipe
from multitune.storage.memory import is_out_of_memory


@contextmanager
def memory_explained(recipe: Recipe) -> Iterator[None]:
    """Inside, a lack of memory becomes an error that says what would help.

    Raises:
        RunError: there is not enough.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(_more_memory(recipe)) from error


def _more_memory(recipe: Recipe) -> str:
    trim = "" if recipe.trim_vocabulary else "trim_vocabulary=true, "
    several = "fewer options.tasks_per_step, " if "tasks_per_step" in recipe.options else ""
    return (
        f"not enough memory: what helps is a lower batch_size (now {recipe.batch_size}) or max_length (now "
        f"{recipe.max_length}), {trim}{several}precision=bf16, a smaller model, or a method with fewer copies of the "
        f"weights"
    )


def reset_peak_memory(device: torch.device) -> None:
    """Start measuring ``peak_memory`` anew, where the system can (Linux, CUDA)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        with suppress(OSError):  # some containers forbid it; then the peak is that of the whole process
            clear.write_text("5")


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process (on CUDA: its device) has held since the reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
