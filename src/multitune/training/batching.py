"""Length-bucketed mini-batches of one task: lengths alike in a batch, the order a pure function of the seed."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from multitune.seeds import seeded

POOL = 32
"""Batches that are sorted by length together: large enough for little padding, small enough to stay random."""


class Batches:
    """Endless mini-batches of one task's examples.

    Every epoch visits each example once. Its order is computed from (seed, name, epoch), so that the state is two
    numbers and two methods with one seed meet a task's batches in the same order.
    """

    def __init__(self, name: str, lengths: Sequence[int] | NDArray[np.int64], batch_size: int, seed: int) -> None:
        assert len(lengths), f"no examples for {name}"
        self._name, self._batch_size, self._seed = name, batch_size, seed
        self._lengths = torch.tensor(lengths)
        self._epoch, self._position = 0, 0
        self._order = self._shuffled(0)

    def next(self) -> list[int]:
        """Indices of the next mini-batch; fewer than the batch size where the examples run out."""
        if self._position == len(self._order):
            self._epoch, self._position = self._epoch + 1, 0
            self._order = self._shuffled(self._epoch)
        self._position += 1
        return self._order[self._position - 1]

    @property
    def newest(self) -> list[int]:
        """The mini-batch that ``next`` gave last."""
        return self._order[self._position - 1]

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._epoch, self._position = state["epoch"], state["position"]
        self._order = self._shuffled(self._epoch)

    def _shuffled(self, epoch: int) -> list[list[int]]:
        generator = seeded(self._seed, self._name, epoch)
        shuffled = torch.randperm(len(self._lengths), generator=generator)
        pools = [pool[self._lengths[pool].argsort(stable=True)] for pool in shuffled.split(self._batch_size * POOL)]
        batches = [batch.tolist() for pool in pools for batch in pool.split(self._batch_size)]
        return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]
