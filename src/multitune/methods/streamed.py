"""The steps of methods with one weight a task, which follows from losses and norms: sums, weighted as they come."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from multitune.methods.base import NonFiniteError, StreamingMethod, check_finite
from multitune.methods.collected import Collected
from multitune.methods.gram import combine_rows
from multitune.methods.groups import BLOCK
from multitune.methods.ranks import Ranks, on_host
from multitune.methods.steps import Setting, Stacked, Step


class Summed(Step):
    """All tasks have the same weight: one row holds their sum."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._sums: list[tuple[int, Tensor]] = []
        setting.rows.reserve(1)

    def place(self, task: int) -> tuple[int, bool]:
        return 0, bool(self.own)

    def take(self, task: int, loss: Tensor | None, scale: float) -> None:
        super().take(task, loss, scale)
        self._sums.append((task, self.rows.row_sum(0)))

    def pass_over(self, task: int, scale: float) -> None:
        super().pass_over(task, scale)
        self._sums.append((task, self.rows.zero_sum()))

    def join(self, rounds: Sequence[Sequence[Collected]]) -> None:
        own, self._sums = self._sums, []
        super().join(rounds)
        self._sums = _with_fault(self._sums, own)

    def sum_over(self, parts: Ranks) -> None:
        parts.sum(self.rows.combined)
        sums = _with_fault([(task, self.rows.zero_sum()) for task in self.tasks], self._sums)
        total = torch.stack([own for _, own in sums])
        parts.sum(total)
        self._sums = [*zip(self.tasks, total, strict=True), (self.tasks[0], self.rows.row_sum(0))]

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


def _with_fault(zeros: Sequence[tuple[int, Tensor]], sums: Sequence[tuple[int, Tensor]]) -> list[tuple[int, Tensor]]:
    """Zeros of all tasks, and in the place of one the first of this rank's running sums that is not finite."""
    at_fault: dict[int, Tensor] = {}
    if sums:
        (finite,) = on_host(torch.stack([total for _, total in sums]).isfinite())
        at_fault = {} if finite.all() else dict([sums[int(finite.argmin())]])
    return list((dict(zeros) | at_fault).items())


class StackedForNorms(Stacked):
    """Rows whose weights come from the losses and the norms of the gradients."""

    def __init__(self, setting: Setting, method: StreamingMethod) -> None:
        super().__init__(setting)
        self._norms = _Norms(self, method)
        setting.rows.reserve(1)

    def _measure(self) -> list[Tensor]:
        for task in self.tasks:
            if task in self.own:
                self._norms.measure(self._row(task))
            else:
                self._norms.pass_over()
        return self._norms.measured()

    def _combine(self, measured: list[Tensor], loss_scale: float) -> dict[int, float]:
        weights = self._norms.weights(measured, loss_scale)
        if self.own:
            own = weights[None, [self.tasks.index(task) for task in self.own]] / self.divisor
            combine_rows(self.gradients, own, [self.rows.layout.width // BLOCK], out=self.rows.combined)
        return dict(zip(self.tasks, weights.tolist(), strict=True))


class Streamed(Step):
    """Each task comes once, with its loss: row 0 sums up the gradients, each by its weight but for a common factor."""

    def __init__(self, setting: Setting, method: StreamingMethod) -> None:
        super().__init__(setting)
        self._method, self._norms = method, _Norms(self, method)
        setting.rows.reserve(2)

    def place(self, task: int) -> tuple[int, bool]:
        if not self.own:
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
