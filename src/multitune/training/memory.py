"""How much memory a run takes, and what would help where it is too little."""

import ctypes
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
    half = "precision=bf16, " if recipe.precision in ("auto", "fp32") else ""
    several = "fewer options.tasks_per_step, " if "tasks_per_step" in recipe.options else ""
    return (
        f"not enough memory: what helps is a lower batch_size (now {recipe.batch_size}) or max_length (now "
        f"{recipe.max_length}), {trim}{several}{half}a smaller model, or a method with fewer copies of the "
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
    if sys.platform == "win32":
        return _peak_working_set()
    return _peak_resident_set()


if sys.platform == "win32":

    class _Counters(ctypes.Structure):
        """PROCESS_MEMORY_COUNTERS of the Windows API: two 32-bit numbers, then eight sizes."""

        _fields_ = (
            *((name, ctypes.c_uint32) for name in ("cb", "page_faults")),
            *((name, ctypes.c_size_t) for name in ("peak", "current", "a", "b", "c", "d", "pagefile", "peak_pagefile")),
        )

    def _peak_working_set() -> int:
        counters = _Counters(cb=ctypes.sizeof(_Counters))
        kernel = ctypes.windll.kernel32
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        process = ctypes.c_void_p(kernel.GetCurrentProcess())
        if not kernel.K32GetProcessMemoryInfo(process, ctypes.byref(counters), ctypes.c_uint32(counters.cb)):
            raise ctypes.WinError()
        return int(counters.peak)

else:

    def _peak_resident_set() -> int:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
