"""Checkpoints written while training goes on: a copy in memory, then a thread."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from multitune.storage.interrupt import Leave
from multitune.training.checkpoint import Flat, RunState, flatten, write


@dataclass(frozen=True)
class Written:
    """A checkpoint on disk: how large, seconds that the writing took, and that training stood still for it."""

    path: Path
    bytes: int
    seconds: float
    stood_still: float


class CheckpointWriter:
    """Writes a run's checkpoints one at a time. What goes wrong in its thread is raised by its next call (RunError for
    a full disk, else OSError).

    The copy's memory is kept for the next one while the writer is entered: writing to memory that the process has is
    several times faster than getting new pages from the system.

    Args:
        folder: of the run's checkpoints.
        tell: called, by a method of this class, with each checkpoint that has been written.
    """

    def __init__(self, folder: Path, tell: Callable[[Written], None]) -> None:
        self._folder, self._tell = folder, tell
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[Written] | None = None
        self._copies: dict[str, Tensor] = {}

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown(wait=kind is not Leave)
        self._copies = {}

    def save(self, state: RunState, *, early: bool = False) -> None:
        """Copy a state and begin to write it. A write that is still going on is waited for."""
        began = time.monotonic()
        self.wait()
        live = flatten(state, early=early)
        copy = replace(live, tensors={name: self._copied(name, tensor) for name, tensor in live.tensors.items()})
        self._copies = dict(copy.tensors)
        self._writing = self._thread.submit(self._write, copy, time.monotonic() - began)

    def check(self) -> None:
        """Tell of a checkpoint that has been written by now; never waits."""
        if self._writing and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Wait for the write that is going on, if any, and tell of it."""
        writing, self._writing = self._writing, None
        if writing:
            self._tell(writing.result())

    def _write(self, flat: Flat, stood_still: float) -> Written:
        began = time.monotonic()
        path = write(flat, self._folder)
        return Written(path, flat.bytes, time.monotonic() - began, stood_still)

    def _copied(self, name: str, tensor: Tensor) -> Tensor:
        copy = self._copies.get(name)
        if copy is None or copy.shape != tensor.shape or copy.dtype != tensor.dtype:
            copy = _memory_for(tensor)
        return copy.copy_(tensor)


def _memory_for(tensor: Tensor) -> Tensor:
    """On the CPU; pinned where the tensor comes from a GPU, which is the faster way."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
