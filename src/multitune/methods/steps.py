"""A step's task gradients until they are combined: one sum, a weighted sum as they come, or a row for each."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multitune.methods.base import (
    GramMethod,
    RowsMethod,
    check_finite,
)
from multitune.methods.collected import Collected
from multitune.methods.heads import Heads
from multitune.methods.ranks import Ranks, on_host
from multitune.methods.replicas import Replicas
from multitune.methods.rows import Rows


@dataclass(frozen=True)
class Setting:
    """What all steps of a Combiner have in common.

    Attributes:
        rows: the buffer.
        measured: positions of the parameters whose gradient norms GradNorm compares.
        mean: divide the combined gradient by the number of tasks.
        heads: the parameters that one task alone uses.
        ranks: that share each step's tasks; None where this process computes all.
        shards: the ranks that have the shards of each gradient; None where this process has whole ones.
    """

    rows: Rows
    measured: Sequence[int]
    mean: bool
    heads: Heads
    ranks: Ranks | None
    shards: Ranks | None


@dataclass
class Share:
    """What a task has brought to a step.

    Attributes:
        scale: what its gradient was multiplied by.
        loss: a scalar, not multiplied; None where it is not known.
    """

    scale: float
    loss: Tensor | None


class Step(ABC):
    """The gradients of one step.

    Attributes:
        shares: what has come, by task, in the order in which the tasks came first; to other ranks, too, once that is
            known.
        own: the tasks whose gradients have come to this rank, in that order.
        losses: the tasks' losses, [n], where all are known; there once they are combined.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting, self.rows = setting, setting.rows
        self.shares: dict[int, Share] = {}
        self.own: list[int] = []
        self.losses: Tensor | None = None

    @property
    def tasks(self) -> list[int]:
        """Which tasks have come, in order."""
        return list(self.shares)

    @property
    def divisor(self) -> int:
        """What the sum over tasks is divided by."""
        return len(self.shares) if self.setting.mean else 1

    @abstractmethod
    def place(self, task: int) -> tuple[int, bool]:
        """The row that a task's next gradient goes to, and whether it is added to what is there."""

    def check(self, task: int, scale: float) -> None:
        """Make sure that a task may come with ``scale``.

        Raises:
            ValueError: it has come with another one before.
        """
        if task in self.shares and self.shares[task].scale != scale:
            raise ValueError(f"task {task} has the scales {self.shares[task].scale} and {scale} in one step")

    def take(self, task: int, loss: Tensor | None, scale: float) -> None:
        """Note that a gradient of a task, multiplied by ``scale``, has come to its row."""
        share = self.shares.setdefault(task, Share(scale, None if loss is None else torch.zeros_like(loss)))
        share.loss = None if loss is None or share.loss is None else share.loss + loss
        if task not in self.own:
            self.own.append(task)

    def pass_over(self, task: int, scale: float) -> None:
        """Note that another rank computes a task's gradient, multiplied by ``scale``."""
        self.shares[task] = Share(scale, torch.zeros((), dtype=torch.float64, device=self.rows.device))

    def join(self, rounds: Sequence[Sequence[Collected]]) -> None:
        """Let the tasks be those that all ranks have collected, one round after the other."""
        every = [collected for one in rounds for collected in one]
        own, self.shares = self.shares, {}
        for collected in every:
            self.pass_over(collected.task, collected.scale)
        self.shares |= own
        if not all(collected.has_loss for collected in every):
            for share in self.shares.values():
                share.loss = None

    def combine(self, loss_scale: float, replicas: Replicas | None) -> dict[int, float]:
        """Put the combined gradient in row 0, and make one step of the method's state.

        Args:
            loss_scale: what all losses were multiplied by before their backward passes; so is the combined gradient.
            replicas: over which losses are averaged.

        Returns:
            The weights of the tasks' heads, where they are not 1.

        Raises:
            NonFiniteError: a loss or gradient is NaN or infinite; the method's state is as before.
        """
        losses = [share.loss for share in self.shares.values() if share.loss is not None]
        if self.setting.shards is not None:
            return self._combine_shards(self.setting.shards, losses, loss_scale)
        if self.setting.ranks is not None:
            return self._combine_over(self.setting.ranks, losses, loss_scale)
        if len(losses) < len(self.shares):
            return self._combine(on_host(*self._measure()), loss_scale)
        gathered = torch.stack(losses) if replicas is None else replicas.mean(torch.stack(losses))
        read, *measured = on_host(gathered, *self._measure())
        self.losses = read.to(gathered.dtype)
        check_finite("loss", self.losses, self.tasks)
        return self._combine(measured, loss_scale)

    def _combine_over(self, ranks: Ranks, losses: Sequence[Tensor], loss_scale: float) -> dict[int, float]:
        """Combine what all ranks have measured; all of them raise together."""
        rows, heads = self.rows, self.setting.heads
        reached = torch.tensor([*rows.reached, *heads.reached], dtype=torch.float64)
        known = losses if len(losses) == len(self.shares) else []
        own = torch.stack([loss.double() for loss in known]) if known else reached.new_empty(0)
        told, reached, *measured = ranks.sums_on_host([own.to(rows.device), reached.to(rows.device), *self._measure()])
        anywhere = reached.bool().tolist()
        rows.reached, heads.reached = anywhere[: len(rows.reached)], anywhere[len(rows.reached) :]
        if known:
            self.losses = told
            check_finite("loss", told, self.tasks)
        weights = self._combine(measured, loss_scale)
        self._spread(ranks)
        return weights

    def _combine_shards(self, ranks: Ranks, losses: Sequence[Tensor], loss_scale: float) -> dict[int, float]:
        """Combine this rank's shards by what all ranks have measured of theirs: one all-reduce of a few numbers."""
        if len(losses) < len(self.shares):
            return self._combine(ranks.sums_on_host(self._measure()), loss_scale)
        whole = torch.stack([loss.double() for loss in losses])  # all ranks have the same: the first one's count
        told = whole if ranks.rank == 0 else torch.zeros_like(whole)
        self.losses, *measured = ranks.sums_on_host([told, *self._measure()])
        check_finite("loss", self.losses, self.tasks)
        return self._combine(measured, loss_scale)

    def _spread(self, ranks: Ranks) -> None:
        """Put the whole combined gradient, of which each rank has a part in its row 0, in row 0 of all ranks."""
        if not self.own:
            self.rows.combined.zero_()
        ranks.sum(self.rows.combined)

    @abstractmethod
    def _measure(self) -> list[Tensor]:
        """All that has to be known of the gradients, on their device."""

    @abstractmethod
    def _combine(self, measured: list[Tensor], loss_scale: float) -> dict[int, float]:
        """As ``combine``, with ``losses`` and what was measured, on the CPU: the device is read once."""

    def sum_over(self, parts: Ranks) -> None:
        """Sum up the gradients over ranks, each of which has had a part of each batch."""
        for row in range(1, 1 + len(self.own)):
            parts.sum(self.rows.row(row))

    def write_through(self) -> None:
        """Have in row 0 what shows that a task is not finite: the sum, or NaN where that is finite, or over ranks."""
        if self.setting.ranks is not None or self.rows.combined.isfinite().all():
            for columns in self.rows.layout.columns:
                self.rows.combined[columns] = torch.nan


class Stacked(Step):
    """Each task of this rank has a row of its own, in whatever order gradients come."""

    def place(self, task: int) -> tuple[int, bool]:
        if task in self.own:
            return self._row(task), True
        row = 1 + len(self.own)
        self.rows.reserve(row + 1, kept=row)
        return row, False

    def _row(self, task: int) -> int:
        """The row of a task of this rank."""
        return 1 + self.own.index(task)

    @property
    def gradients(self) -> Tensor:
        """[tasks of this rank, width]."""
        return self.rows.tasks(len(self.own))

    def write_through(self) -> None:
        torch.sum(self.gradients, 0, out=self.rows.combined)
        super().write_through()

    def _weigh(self, weights: Tensor) -> None:
        """weights: [groups, tasks]."""
        self.rows.division.combine(self.gradients, weights / self.divisor, self.rows.combined)


class StackedForGram(Stacked):
    """Rows whose weights come from their Gram matrices."""

    def __init__(self, setting: Setting, method: GramMethod) -> None:
        super().__init__(setting)
        self._method = method

    def _measure(self) -> list[Tensor]:
        return [self.rows.division.grams(self.gradients)]

    def _combine(self, measured: list[Tensor], loss_scale: float) -> dict[int, float]:
        (grams,) = measured
        self._weigh(self._method.weights(grams / loss_scale**2, tasks=self.tasks, losses=self.losses))
        return {}


class StackedForRows(Stacked):
    """Rows that the method has to see."""

    def __init__(self, setting: Setting, method: RowsMethod) -> None:
        super().__init__(setting)
        self._method = method

    def _measure(self) -> list[Tensor]:
        return [self.gradients.sum(1, dtype=torch.promote_types(self.gradients.dtype, torch.float32))]

    def _combine(self, measured: list[Tensor], loss_scale: float) -> dict[int, float]:
        check_finite("gradient", measured[0], self.tasks)
        gradients, combined = self.gradients, self.rows.combined
        if loss_scale != 1:
            gradients /= loss_scale
        for group, columns in enumerate(self.rows.layout.columns):
            combined[columns] = self._method.combine(gradients[:, columns], group)
        if loss_scale != 1:
            combined *= loss_scale
        if self.divisor != 1:
            combined /= self.divisor
        return {}
