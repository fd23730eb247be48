"""Rows over ranks: each rank computes some tasks' rows, and combines its columns of all of them."""

from collections.abc import Sequence

from torch import Tensor

from multitune.methods.base import GramMethod
from multitune.methods.collected import Collected
from multitune.methods.division import division_of
from multitune.methods.ranks import Journey, Ranks
from multitune.methods.rows import Rows
from multitune.methods.steps import Setting, StackedForGram, Step

TRAVELLING = 2
"""Rows of its own that a rank keeps: one travels while the next is made."""


class Shard:
    """This rank's columns of all tasks' rows.

    Args:
        rows: whose width is a multiple of the number of ranks.
        ranks: that share them.

    Attributes:
        columns: which they are.
    """

    def __init__(self, rows: Rows, ranks: Ranks) -> None:
        self.ranks, self._buffer = ranks, rows.new_rows(0, rows.layout.width // ranks.size)
        self._division = division_of(rows.layout, ranks.rank)
        size = self._buffer.shape[1]
        self.columns = slice(ranks.rank * size, (ranks.rank + 1) * size)

    def tasks(self, count: int) -> Tensor:
        """The rows of ``count`` tasks, [count, width / R]."""
        if len(self._buffer) < count:
            size = self._buffer.shape[1]
            self._buffer = self._buffer[:0]  # its memory goes before more is taken
            self._buffer = self._buffer.new_zeros(count, size)
        return self._buffer[:count]

    def grams(self, count: int) -> Tensor:
        """This rank's part of the Gram matrices of ``count`` tasks, [groups, count, count]."""
        return self._division.grams(self.tasks(count))

    def combine(self, weights: Tensor, out: Tensor) -> None:
        """Put this rank's columns of the combined gradient in their place in ``out``, [width].

        Args:
            weights: [groups, tasks].
            out: the combined gradient.
        """
        self._division.combine(self.tasks(weights.shape[1]), weights, out[self.columns])

    def spread(self, combined: Tensor) -> None:
        """Give the combined gradient, of which each rank has its columns, to all ranks whole."""
        self.ranks.gather_into(combined, combined[self.columns])


class ShardedForGram(Step):
    """Rows of all ranks, whose weights come from their Gram matrices.

    A rank sends each row when it has been made, and gets its columns of the others' rows of that round. The Gram matrix
    is the sum of those of the columns. Of R ranks and P parameters each sends (n / R + 1) P (R - 1) / R numbers a step
    of n tasks, and has (n / R + 1) P of them and two rows at most in memory.
    """

    def __init__(self, setting: Setting, method: GramMethod, count: int, shard: Shard) -> None:
        super().__init__(setting)
        self._method, self._count, self._shard = method, count, shard
        self._rounds = -(-count // shard.ranks.size)
        self._journeys: list[Journey] = []
        setting.rows.reserve(1 + min(TRAVELLING, self._rounds))
        self._gathered = shard.tasks(count)

    def place(self, task: int) -> tuple[int, bool]:
        number = len(self._journeys)
        if number >= TRAVELLING:
            self._journeys[number - TRAVELLING].wait()
        return 1 + number % TRAVELLING, False

    def take(self, task: int, loss: Tensor | None, scale: float) -> None:
        super().take(task, loss, scale)
        self._send(self.rows.row(1 + len(self._journeys) % TRAVELLING))

    def _send(self, row: Tensor | None) -> None:
        """Begin the next round; ``row`` is this rank's."""
        first = len(self._journeys) * self._shard.ranks.size
        out = self._gathered[first : first + self._shard.ranks.size]
        self._journeys.append(self._shard.ranks.send_columns(row, out, range(len(out))))

    def _measure(self) -> list[Tensor]:
        if len(self._journeys) < self._rounds:
            self._send(None)
        for journey in self._journeys:
            journey.wait()
        return [self._shard.grams(self._count)]

    def _combine(self, measured: list[Tensor], loss_scale: float) -> dict[int, float]:
        (grams,) = measured
        weights = self._method.weights(grams / loss_scale**2, tasks=self.tasks, losses=self.losses)
        self._shard.combine(weights / self.divisor, self.rows.combined)
        return {}

    def _spread(self, ranks: Ranks) -> None:
        self._shard.spread(self.rows.combined)


class CollectedForGram(StackedForGram):
    """Rows that each rank has collected of its own tasks; their columns travel once all are there.

    Each rank sends as much as with ``ShardedForGram``, and has (2 n / R + 1) P numbers in memory.
    """

    def __init__(self, setting: Setting, method: GramMethod, shard: Shard) -> None:
        super().__init__(setting, method)
        setting.rows.reserve(1)
        self._shard = shard
        self._origins: list[list[int]] = []

    def join(self, rounds: Sequence[Sequence[Collected]]) -> None:
        super().join(rounds)
        self._origins = [[collected.rank for collected in one] for one in rounds]

    def _measure(self) -> list[Tensor]:
        ranks, gathered, journeys = self._shard.ranks, self._shard.tasks(len(self.shares)), []
        for number, origins in enumerate(self._origins):
            row = self.rows.row(1 + number) if ranks.rank in origins else None
            out, gathered = gathered[: len(origins)], gathered[len(origins) :]
            journeys.append(ranks.send_columns(row, out, origins))
        for journey in journeys:
            journey.wait()
        return [self._shard.grams(len(self.shares))]

    def _weigh(self, weights: Tensor) -> None:
        self._shard.combine(weights / self.divisor, self.rows.combined)

    def _spread(self, ranks: Ranks) -> None:
        self._shard.spread(self.rows.combined)
