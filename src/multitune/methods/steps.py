"""A step's task gradients until they are combined: one sum, a weighted sum as they come, or a row for each."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multitune.methods.base import CombiningMethod, GramMethod, RowsMethod, StreamingMethod, check_finite
from multitune.methods.gram import combine_rows, gram_matrices
from multitune.methods.replicas import Replicas
from multitune.methods.rows import Rows


@dataclass(frozen=True)
class Setting:
    """What all steps of a Combiner have in common.

    Attributes:
        rows: the buffer.
        measured: positions of the parameters whose gradient norms GradNorm compares.
        mean: divide the combined gradient by the number of tasks.
    """

    rows: Rows
    measured: Sequence[int]
    mean: bool


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
        losses: the tasks' losses, [n], where all are known; there once they are combined.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting, self.rows = setting, setting.rows
        self.shares: dict[int, Share] = {}
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
        if len(losses) == len(self.shares):
            self.losses = torch.stack(losses) if replicas is None else replicas.mean(torch.stack(losses))
        return self._combine(loss_scale)

    @abstractmethod
    def _combine(self, loss_scale: float) -> dict[int, float]:
        """As ``combine``, with ``losses``."""

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
        return 0, bool(self.shares)

    def take(self, task: int, loss: Tensor | None, scale: float) -> None:
        super().take(task, loss, scale)
        self._sums.append((task, self.rows.row_sum(0)))

    def _combine(self, loss_scale: float) -> dict[int, float]:
        if self.losses is not None:
            check_finite("loss", self.losses, self.tasks)
        # A sum that is not finite stays so: the first is of the task at fault.
        for task, total in self._sums:
            check_finite("gradient", total[None], [task])
        if self.divisor != 1:
            combined = self.rows.combined
            combined *= 1.0 / self.divisor
        return {}


class Stacked(Step):
    """Each task has a row of its own, for any method and in whatever order gradients come."""

    def __init__(self, setting: Setting, method: CombiningMethod) -> None:
        super().__init__(setting)
        self._method = method

    def place(self, task: int) -> tuple[int, bool]:
        if task in self.shares:
            return 1 + self.tasks.index(task), True
        row = 1 + len(self.shares)
        self.rows.reserve(row + 1, kept=row)
        return row, False

    @property
    def _gradients(self) -> Tensor:
        return self.rows.tasks(len(self.shares))

    def _combine(self, loss_scale: float) -> dict[int, float]:
        if self.losses is not None:
            check_finite("loss", self.losses, self.tasks)
        if isinstance(self._method, StreamingMethod):
            return self._weigh(self._method, loss_scale)
        if isinstance(self._method, GramMethod):
            grams = gram_matrices(self._gradients, self.rows.layout.blocks)
            grams = grams if loss_scale == 1 else grams / loss_scale**2
            self._apply(self._method.weights(grams, tasks=self.tasks, losses=self.losses))
        else:
            assert isinstance(self._method, RowsMethod)
            self._combine_columns(self._method, loss_scale)
        return {}

    def _weigh(self, method: StreamingMethod, loss_scale: float) -> dict[int, float]:
        rows = range(1, 1 + len(self.shares))
        check_finite("gradient", torch.stack([self.rows.row_sum(row) for row in rows]), self.tasks)
        squares = [self.rows.squared_norm(row, self.setting.measured) for row in rows]
        weights = _streaming_weights(method, self, squares, loss_scale)
        self._apply(weights.expand(len(self.rows.layout.groups), -1))
        return dict(zip(self.tasks, weights.tolist(), strict=True))

    def _apply(self, weights: Tensor) -> None:
        blocks = self.rows.layout.blocks
        combine_rows(self._gradients, weights / self.divisor, blocks, out=self.rows.combined)

    def _combine_columns(self, method: RowsMethod, loss_scale: float) -> None:
        gradients, combined = self._gradients, self.rows.combined
        sums = gradients.sum(1, dtype=torch.promote_types(gradients.dtype, torch.float32))
        check_finite("gradient", sums, self.tasks)
        if loss_scale != 1:
            gradients /= loss_scale
        for group, columns in enumerate(self.rows.layout.columns):
            combined[columns] = method.combine(gradients[:, columns], group)
        if loss_scale != 1:
            combined *= loss_scale
        if self.divisor != 1:
            combined /= self.divisor

    def write_through(self) -> None:
        torch.sum(self._gradients, 0, out=self.rows.combined)
        super().write_through()


class Streamed(Step):
    """Each task comes once, with its loss: row 0 sums up the gradients, each by its weight but for a common factor."""

    def __init__(self, setting: Setting, method: StreamingMethod) -> None:
        super().__init__(setting)
        self._method = method
        self._weights: list[float] = []
        self._sums: list[Tensor] = []
        self._squares: list[Tensor] = []
        setting.rows.reserve(2)

    def place(self, task: int) -> tuple[int, bool]:
        if not self.shares:
            self.rows.combined.zero_()
        return 1, False

    def take(self, task: int, loss: Tensor | None, scale: float) -> None:
        super().take(task, loss, scale)
        assert loss is not None
        check_finite("loss", loss[None], [task])
        self._weights.append(self._method.task_weight(task, float(loss)))
        self._sums.append(self.rows.row_sum(1))
        self._squares.append(self.rows.squared_norm(1, self.setting.measured))
        self.rows.combined.add_(self.rows.tasks(1)[0], alpha=self._weights[-1])

    def _combine(self, loss_scale: float) -> dict[int, float]:
        check_finite("gradient", torch.stack(self._sums), self.tasks)
        weights = _streaming_weights(self._method, self, self._squares, loss_scale)
        factor = float(weights.sum()) / sum(self._weights) / self.divisor
        if factor != 1:
            combined = self.rows.combined
            combined *= factor
        return dict(zip(self.tasks, weights.tolist(), strict=True))


def _streaming_weights(method: StreamingMethod, step: Step, squares: Sequence[Tensor], loss_scale: float) -> Tensor:
    """[n]; squares: of the norms of the gradients, each times its task's scale and ``loss_scale``."""
    scales = [share.scale * loss_scale for share in step.shares.values()]
    plain = [square if scale == 1 else square / scale**2 for square, scale in zip(squares, scales, strict=True)]
    return method.weights(torch.diag(torch.stack(plain)), tasks=step.tasks, losses=step.losses)


def new_step(setting: Setting, method: CombiningMethod, count: int | None) -> Step:
    """What a step needs: rows for all tasks, unless the method can do without.

    Args:
        setting: of the Combiner.
        method: the combining method.
        count: how many tasks will come, each once and with its loss; None where that is not known.
    """
    if isinstance(method, StreamingMethod) and method.unweighted:
        return Summed(setting)
    if isinstance(method, StreamingMethod) and count is not None:
        return Streamed(setting, method)
    setting.rows.reserve(1 + (count or 0))
    return Stacked(setting, method)
