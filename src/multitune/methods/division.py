"""Which columns of the tasks' rows have a Gram matrix and weights of their own: runs of blocks, or slices."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multitune.methods.gram import CHUNK, combine_rows, gram_matrices
from multitune.methods.groups import BLOCK, Layout, Slice


class Division(ABC):
    """The columns of a process, divided into parts."""

    @abstractmethod
    def grams(self, rows: Tensor) -> Tensor:
        """<g_i, g_j> by part, [parts, tasks, tasks], float64; rows: [tasks, width]."""

    @abstractmethod
    def combine(self, rows: Tensor, weights: Tensor, out: Tensor) -> None:
        """Put sum_i w_i g_i, by part, in ``out``.

        Args:
            rows: [tasks, width].
            weights: [parts, tasks].
            out: [width].
        """


@dataclass(frozen=True)
class Runs(Division):
    """Parts that are runs of whole blocks.

    Attributes:
        blocks: how many blocks each has.
    """

    blocks: Sequence[int]

    def grams(self, rows: Tensor) -> Tensor:
        return gram_matrices(rows, self.blocks)

    def combine(self, rows: Tensor, weights: Tensor, out: Tensor) -> None:
        combine_rows(rows, weights, self.blocks, out=out)


@dataclass(frozen=True)
class Slices(Division):
    """Parts that are made of slices, some of each parameter's columns; what is in none is padding.

    Attributes:
        count: of the parts.
        slices: of this process's columns.
    """

    count: int
    slices: Sequence[Slice]

    def grams(self, rows: Tensor) -> Tensor:
        grams = rows.new_zeros(self.count, len(rows), len(rows), dtype=torch.float64)
        for part in self._pieces():
            columns = rows[:, part.first : part.end]
            whole = columns.shape[1] // BLOCK
            if whole:
                grams[part.number] += gram_matrices(columns[:, : whole * BLOCK], [whole])[0]
            rest = columns[:, whole * BLOCK :]
            rest = rest.float() if rest.dtype in (torch.bfloat16, torch.float16) else rest
            grams[part.number] += (rest @ rest.T).double()
        return grams

    def combine(self, rows: Tensor, weights: Tensor, out: Tensor) -> None:
        kept = torch.promote_types(rows.dtype, torch.float32)
        by_part = weights.to(rows.device, kept, non_blocking=True)
        for part in self._pieces():
            out[part.first : part.end] = by_part[part.number] @ rows[:, part.first : part.end].to(kept)

    def _pieces(self) -> Iterator[Slice]:
        """The slices, long ones in pieces: rows of low precision are converted to fp32 a piece at a time."""
        for part in self.slices:
            for first in range(part.first, part.end, CHUNK * BLOCK):
                yield Slice(first, min(first + CHUNK * BLOCK, part.end), part.number)


def division_of(layout: Layout, rank: int | None = None) -> Division:
    """The division of a row's columns, or of those of one of the ranks that share them."""
    if layout.buckets == 1:
        return Runs(layout.blocks if rank is None else layout.blocks_of(rank))
    return Slices(layout.parts, layout.slices if rank is None else layout.slices_of(rank))
