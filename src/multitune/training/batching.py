"""Mini-batches of one task, or of all mixed: lengths alike in a batch, the order a pure function of the seed."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multitune.methods.sampling import TaskSampler
from multitune.seeds import seeded

POOL = 32
"""Batches that are sorted by length together: large enough for little padding, small enough to stay random."""

Lengths = Sequence[int] | NDArray[np.int64]
Batch = dict[str, list[int]]
"""The rows of a mini-batch by language."""


class Batches(ABC):
    """Endless mini-batches, cut from pools of examples that are sorted by length."""

    @abstractmethod
    def next(self) -> Batch:
        """The next mini-batch."""

    @property
    @abstractmethod
    def place(self) -> tuple[str | int, ...]:
        """Which mini-batch ``next`` gave last; no other one of a run has the same place."""

    @abstractmethod
    def newest(self) -> dict[str, dict[str, Any]]:
        """What ``next`` gave last, by language: ``rows``, the language's ``epoch``, and the batch's ``position``."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that a resume needs."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state`` was taken."""


class TaskBatches(Batches):
    """Mini-batches of one task's examples.

    Every epoch visits each example once. Its order is computed from (seed, name, epoch), so that the state is two
    numbers and two methods with one seed meet a task's batches in the same order.
    """

    def __init__(self, name: str, lengths: Lengths, batch_size: int, seed: int) -> None:
        self._examples, self._batch_size = ShuffledExamples(name, lengths, seed), batch_size
        self._epoch, self._position = 0, 0
        self._cut()

    def next(self) -> Batch:
        """The next mini-batch; fewer rows than the batch size where the examples run out."""
        if self._position == len(self._ends):
            self._epoch, self._position = self._epoch + 1, 0
            self._cut()
        self._position += 1
        return {self._examples.name: self._newest_rows}

    @property
    def place(self) -> tuple[str | int, ...]:
        return (self._examples.name, self._epoch, self._position)

    def newest(self) -> dict[str, dict[str, Any]]:
        return {self._examples.name: self.state_dict() | {"rows": self._newest_rows}}

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._epoch, self._position = state["epoch"], state["position"]
        self._cut()

    @property
    def _newest_rows(self) -> list[int]:
        begin, end = (int(self._ends[place]) if place >= 0 else 0 for place in (self._position - 2, self._position - 1))
        rows: list[int] = self._rows[begin:end].tolist()
        return rows

    def _cut(self) -> None:
        """Lay out the rows of all batches of this epoch, in order: as tensors, since Python's numbers take 40 bytes."""
        shuffled, generator = self._examples.epoch(self._epoch)
        rows, sizes = [], []
        for pool in shuffled.split(self._batch_size * POOL):
            cut = cut_by_length(self._examples.lengths[pool], self._batch_size)
            batches = [cut[index] for index in torch.randperm(len(cut), generator=generator).tolist()]
            rows.append(pool[torch.cat(batches)])
            sizes += [len(batch) for batch in batches]
        self._rows, self._ends = torch.cat(rows), torch.tensor(sizes).cumsum(0)


class MixedBatches(Batches):
    """Mini-batches that mix the tasks, as ordinary fine-tuning on the concatenated data has them.

    The task of each example is drawn; the example is the next one of the task's shuffled order, which is the order that
    ``TaskBatches`` cut theirs from. ``POOL`` batches are drawn at a time and sorted by length, as group_by_length of
    the Hugging Face Trainer does.

    Args:
        lengths: of each task's examples, by its name.
        sampler: draws a task for each example, by its place in ``lengths``.
    """

    def __init__(self, lengths: Mapping[str, Lengths], sampler: TaskSampler, batch_size: int, seed: int) -> None:
        self._examples = [ShuffledExamples(name, own, seed) for name, own in lengths.items()]
        self._sampler, self._batch_size, self._seed = sampler, batch_size, seed
        self._number, self._position = 0, 0
        self._taken = [0] * len(self._examples)
        self._pool = self._drawn_pool()

    def next(self) -> Batch:
        if self._position == POOL:
            self._taken = [before + drawn for before, drawn in zip(self._taken, self._pool.drawn, strict=True)]
            self._number, self._position = self._number + 1, 0
            self._pool = self._drawn_pool()
        self._position += 1
        return self._pool.batches[self._position - 1]

    @property
    def place(self) -> tuple[str | int, ...]:
        return (self._number, self._position)

    def newest(self) -> dict[str, dict[str, Any]]:
        position = self._number * POOL + self._position
        epochs = {own.name: taken // len(own) for own, taken in zip(self._examples, self._taken, strict=True)}
        batch = self._pool.batches[self._position - 1]
        return {name: {"epoch": epochs[name], "position": position, "rows": rows} for name, rows in batch.items()}

    def state_dict(self) -> dict[str, Any]:
        """What the newest pool is drawn again from, and how many of its batches are gone."""
        own = {"pool": self._number, "position": self._position, "taken": list(self._taken)}
        return own | {"sampler": self._pool.sampler}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._number, self._position, self._taken = state["pool"], state["position"], list(state["taken"])
        self._sampler.load_state_dict(state["sampler"])
        self._pool = self._drawn_pool()

    def _drawn_pool(self) -> "_Pool":
        before = self._sampler.state_dict()
        tasks = torch.tensor(self._sampler.draw(POOL * self._batch_size))
        drawn = tasks.bincount(minlength=len(self._examples)).tolist()
        rows, lengths = torch.empty_like(tasks), torch.empty_like(tasks)
        for task, (own, first, count) in enumerate(zip(self._examples, self._taken, drawn, strict=True)):
            rows[tasks == task] = own.rows(first, count)
            lengths[tasks == task] = own.lengths[rows[tasks == task]]
        batches = cut_by_length(lengths, self._batch_size)
        order = torch.randperm(POOL, generator=seeded(self._seed, "mixed", "pool", self._number)).tolist()
        return _Pool([self._by_language(tasks[batches[i]], rows[batches[i]]) for i in order], drawn, before)

    def _by_language(self, tasks: Tensor, rows: Tensor) -> Batch:
        return {self._examples[task].name: rows[tasks == task].tolist() for task in tasks.unique().tolist()}


@dataclass(frozen=True)
class _Pool:
    """Mixed batches that were sorted by length together.

    Attributes:
        drawn: how many examples of each task they hold.
        sampler: the state of the sampler before it drew them.
    """

    batches: list[Batch]
    drawn: list[int]
    sampler: dict[str, Any]


class ShuffledExamples:
    """The examples of a task in the order in which every method meets them: shuffled anew for each epoch."""

    def __init__(self, name: str, lengths: Lengths, seed: int) -> None:
        assert len(lengths), f"no examples for {name}"
        self.name, self.lengths, self._seed = name, torch.tensor(lengths), seed
        self._held: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def epoch(self, number: int) -> tuple[Tensor, torch.Generator]:
        """The rows of an epoch, and the generator that has shuffled them."""
        generator = seeded(self._seed, self.name, number)
        return torch.randperm(len(self), generator=generator), generator

    def rows(self, first: int, count: int) -> Tensor:
        """``count`` rows from the ``first`` on, counted over all epochs."""
        parts, last = [], first + count
        while first < last:
            number, within = divmod(first, len(self))
            parts.append(self._rows_of(number)[within : within + last - first])
            first += len(parts[-1])
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)

    def _rows_of(self, number: int) -> Tensor:
        if self._held is None or self._held[0] != number:
            self._held = (number, self.epoch(number)[0])
        return self._held[1]


def cut_by_length(lengths: Tensor, batch_size: int) -> list[Tensor]:
    """The places of a pool's examples, sorted by length, in batches."""
    return [*lengths.argsort(stable=True).split(batch_size)]
