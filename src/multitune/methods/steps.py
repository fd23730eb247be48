"""A step's task gradients until they are combined: one sum, a weighted sum as they come, or a row for each."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multitune.methods.base import (
    CombiningMethod,
    GramMethod,
    NonFiniteError,
    RowsMethod,
    StreamingMethod,
    check_finite,
    on_host,
)
from multitune.methods.gram import combine_rows, gram_matrices
from multitune.methods.heads import Heads
from multitune.methods.ranks import Ranks
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
        shares: what has come, by task, in the order in which the tasks came first.
        has_own: whether a task's gradient has come to this rank.
        losses: the tasks' losses, [n], where all are known; there once they are combined.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting, self.rows = setting, setting.rows
        self.shares: dict[int, Share] = {}
        self.has_own = False
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
        self.has_own = True

    def pass_over(self, task: int, scale: float) -> None:
        """Note that another rank computes a task's gradient, multiplied by ``scale``."""
        self.shares[task] = Share(scale, torch.zeros((), dtype=torch.float64, device=self.rows.device))

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
        if len(losses) < len(self.shares):
            return self._combine(on_host(*self._measure()), loss_scale)
        if self.setting.ranks is not None:
            return self._combine_over(self.setting.ranks, losses, loss_scale)
        gathered = torch.stack(losses) if replicas is None else replicas.mean(torch.stack(losses))
        read, *measured = on_host(gathered, *self._measure())
        self.losses = read.to(gathered.dtype)
        check_finite("loss", self.losses, self.tasks)
        return self._combine(measured, loss_scale)

    def _combine_over(self, ranks: Ranks, losses: Sequence[Tensor], loss_scale: float) -> dict[int, float]:
        """Combine what all ranks have measured; all of them raise together."""
        rows, heads = self.rows, self.setting.heads
        reached = torch.tensor([*rows.reached, *heads.reached], dtype=torch.float64)
        own = torch.stack([loss.double() for loss in losses])
        self.losses, reached, *measured = ranks.sums_on_host([own, reached.to(own.device), *self._measure()])
        anywhere = reached.bool().tolist()
        rows.reached, heads.reached = anywhere[: len(rows.reached)], anywhere[len(rows.reached) :]
        check_finite("loss", self.losses, self.tasks)
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
        if not self.has_own:
            self.rows.combined.zero_()
        ranks.sum(self.rows.combined)

    @abstractmethod
    def _measure(self) -> list[Tensor]:
        """All that has to be known of the gradients, on their device."""

    @abstractmethod
    def _combine(self, measured: list[Tensor], loss_scale: float) -> dict[int, float]:
        """As ``combine``, with ``losses`` and what was measured, on the CPU: the device is read once."""

    def write_through(self) -> None:
        """Have in row 0 what shows that a task is not finite: the sum, or NaN where the losses alone are not."""
        if self.rows.combined.isfinite().all():
            for columns in self.rows.layout.columns:
                self.rows.combined[columns] = torch.nan


class Summed(Step):
    """All tasks have the same weight: one row holds their sum."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._sums: list[tuple[int, Tensor]] = []
        setting.rows.reserve(1)

    def place(self, task: int) -> tuple[int, bool]:
        return 0, self.has_own

    def take(self, task: int, loss: Tensor | None, scale: float) -> None:
        super().take(task, loss, scale)
        self._sums.append((task, self.rows.row_sum(0)))

    def pass_over(self, task: int, scale: float) -> None:
        super().pass_over(task, scale)
        self._sums.append((task, self.rows.zero_sum()))

    def _measure(self) -> list[Tensor]:
        return [torch.stack([total for _, total in self._sums])]

    def _combine(self, measured: list[Tensor], loss_scale: float) -> dict[int, float]:
        (sums,) = measured
        finite = sums.isfinite().tolist()
        if not all(finite):  # a sum that is not finite stays so: the first is of the task at fault
            raise NonFiniteError("gradient", [self._sums[finite.index(False)][0]])
        if self.divisor != 1:
            combined = self.rows.combined
            combined *= 1.0 / self.divisor
        return {}


class Stacked(Step):
    """Each task has a row of its own, in whatever order gradients come."""

    def place(self, task: int) -> tuple[int, bool]:
        if task in self.shares:
            return 1 + self.tasks.index(task), True
        row = 1 + len(self.shares)
        self.rows.reserve(row + 1, kept=row)
        return row, False

    @property
    def gradients(self) -> Tensor:
        """[tasks, width]."""
        return self.rows.tasks(len(self.shares))

    def write_through(self) -> None:
        torch.sum(self.gradients, 0, out=self.rows.combined)
        super().write_through()

    def _weigh(self, weights: Tensor) -> None:
        """weights: [groups, tasks]."""
        combine_rows(self.gradients, weights / self.divisor, self.rows.layout.blocks, out=self.rows.combined)


class StackedForGram(Stacked):
    """Rows whose weights come from their Gram matrices."""

    def __init__(self, setting: Setting, method: GramMethod) -> None:
        super().__init__(setting)
        self._method = method

    def _measure(self) -> list[Tensor]:
        return [gram_matrices(self.gradients, self.rows.layout.blocks)]

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


class StackedForNorms(Stacked):
    """Rows whose weights come from the losses and the norms of the gradients."""

    def __init__(self, setting: Setting, method: StreamingMethod) -> None:
        super().__init__(setting)
        self._norms = _Norms(self, method)

    def _measure(self) -> list[Tensor]:
        for row in range(1, 1 + len(self.shares)):
            self._norms.measure(row)
        return self._norms.measured()

    def _combine(self, measured: list[Tensor], loss_scale: float) -> dict[int, float]:
        weights = self._norms.weights(measured, loss_scale)
        self._weigh(weights.expand(len(self.rows.layout.groups), -1))
        return dict(zip(self.tasks, weights.tolist(), strict=True))


class Streamed(Step):
    """Each task comes once, with its loss: row 0 sums up the gradients, each by its weight but for a common factor."""

    def __init__(self, setting: Setting, method: StreamingMethod) -> None:
        super().__init__(setting)
        self._method, self._norms = method, _Norms(self, method)
        setting.rows.reserve(2)

    def place(self, task: int) -> tuple[int, bool]:
        if not self.has_own:
            self.rows.combined.zero_()
        return 1, False

    def take(self, task: int, loss: Tensor | None, scale: float) -> None:
        super().take(task, loss, scale)
        assert loss is not None
        self._norms.measure(1)
        self.rows.add_to_combined(1, self._method.task_weight(task, loss))

    def pass_over(self, task: int, scale: float) -> None:
        super().pass_over(task, scale)
        self._norms.pass_over()

    def _measure(self) -> list[Tensor]:
        return self._norms.measured()

    def _combine(self, measured: list[Tensor], loss_scale: float) -> dict[int, float]:
        assert self.losses is not None
        given = [self._method.task_weight(task, loss) for task, loss in zip(self.tasks, self.losses, strict=True)]
        weights = self._norms.weights(measured, loss_scale)
        factor = _number(weights.sum()) / sum(map(_number, given)) / self.divisor
        if factor != 1:
            combined = self.rows.combined
            combined *= factor
        return dict(zip(self.tasks, weights.tolist(), strict=True))


def _number(value: float | Tensor) -> float:
    """A scalar of the CPU as a number."""
    number: Any = value.tolist() if isinstance(value, Tensor) else value
    return float(number)


class _Norms:
    """What a streaming method has to know of the gradients."""

    def __init__(self, step: Step, method: StreamingMethod) -> None:
        self._step, self._method = step, method
        self._sums: list[Tensor] = []
        self._squares: list[Tensor] = []

    def measure(self, row: int) -> None:
        """Measure the gradient of the next task."""
        self._sums.append(self._step.rows.row_sum(row))
        if self._method.reads_norms:
            self._squares.append(self._step.rows.squared_norm(row, self._step.setting.measured))

    def pass_over(self) -> None:
        """Note that another rank measures the gradient of the next task."""
        self._sums.append(self._step.rows.zero_sum())
        if self._method.reads_norms:
            self._squares.append(self._sums[-1].double())

    def measured(self) -> list[Tensor]:
        """The sums of the gradients, which are finite where they are, and the squares of the norms; on the device."""
        sums = torch.stack(self._sums)
        return [sums, torch.stack(self._squares) if self._squares else torch.zeros_like(sums)]

    def weights(self, measured: list[Tensor], loss_scale: float) -> Tensor:
        """[n]; measured: as above, on the CPU. What the gradients were multiplied by is no part of their norms."""
        sums, squares = measured
        check_finite("gradient", sums, self._step.tasks)
        scales = torch.tensor([share.scale * loss_scale for share in self._step.shares.values()], dtype=torch.float64)
        gram = torch.diag(squares / scales**2)
        return self._method.weights(gram, tasks=self._step.tasks, losses=self._step.losses)


def new_step(setting: Setting, method: CombiningMethod, count: int | None) -> Step:
    """What a step needs: rows for all tasks, unless the method can do without.

    Args:
        setting: of the Combiner.
        method: the combining method.
        count: how many tasks will come, each once and with its loss; None where that is not known.
    """
    if isinstance(method, StreamingMethod):
        if method.unweighted:
            return Summed(setting)
        return StackedForNorms(setting, method) if count is None else Streamed(setting, method)
    setting.rows.reserve(1 + (count or 0))
    if isinstance(method, GramMethod):
        return StackedForGram(setting, method)
    assert isinstance(method, RowsMethod)
    return StackedForRows(setting, method)
