"""The combining methods' common interface: task gradients g_1 .. g_n in, one direction d = sum_i w_i g_i out.

Whatever a method does with projections stays in the span of the g_i, so its weights w follow from the Gram matrix
G_ij = <g_i, g_j> alone (`weights`). What a method reads decides what `multitune.Combiner` has to keep in memory.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class NonFiniteError(ValueError):
    """A loss or gradient that is NaN or infinite.

    Attributes:
        what: "loss" or "gradient".
        tasks: the indices of the tasks at fault.
        places: which of the step's batches are at fault, where the others have been stepped with; None where the step
            is skipped as a whole.
    """

    def __init__(self, what: str, tasks: Sequence[int], places: Sequence[int] | None = None) -> None:
        self.what, self.tasks, self.places = what, list(tasks), places
        named = ("task " if len(self.tasks) == 1 else "tasks ") + ", ".join(map(str, self.tasks))
        super().__init__(f"the {what} of {named} is not finite: lower the learning rate, or look at the batch")


class CombiningMethod(nn.Module, ABC):
    """The base of all combining methods.

    All state is in buffers (and one uint8 tensor for a generator), so that `state_dict()` holds tensors only.

    Attributes:
        num_tasks: how many tasks there are in all, for a method that remembers something of each; a step may have
            fewer.
        reads_losses: the weights depend on the losses, which `weights` must be given.
    """

    num_tasks: int | None = None
    reads_losses: ClassVar[bool] = False

    def for_groups(self, groups: int) -> None:
        """Prepare for Gram matrices of `groups` parameter groups, each with a state of its own."""

    def task_indices(self, tasks: Sequence[int] | None, rows: int) -> list[int]:
        """Find which task each row belongs to.

        Args:
            tasks: the rows' tasks; None for all tasks in order.
            rows: how many rows there are.

        Raises:
            ValueError: a wrong number of tasks, one given twice, or one that is out of range.
        """
        if tasks is None and self.num_tasks not in (None, rows):
            raise ValueError(f"{rows} rows for {self.num_tasks} tasks: say which tasks they are (tasks=[...])")
        indices = list(range(rows)) if tasks is None else [int(task) for task in tasks]
        if len(indices) != rows or len(set(indices)) != rows:
            raise ValueError(f"tasks must be {rows} different numbers, one a row; got {indices}")
        if indices and (min(indices) < 0 or (self.num_tasks is not None and max(indices) >= self.num_tasks)):
            raise ValueError(f"tasks must be from 0 to {self.num_tasks or 'n'} - 1; got {indices}")
        return indices


class GramMethod(CombiningMethod):
    """A method whose weights follow from the Gram matrix (and, for some, the losses)."""

    def weights(
        self, gram: Tensor, *, tasks: Sequence[int] | None = None, losses: Tensor | Sequence[float] | None = None
    ) -> Tensor:
        """Compute the weights w of d = sum_i w_i g_i, and make one step of the method's state.

        Args:
            gram: [n, n], any float dtype, or [groups, n, n] for one matrix a parameter group.
            tasks: which of the method's tasks the n rows are (default: all, in order).
            losses: [n], for the methods that read them.

        Returns:
            [n] (or [groups, n]), float64, on gram's device.

        Raises:
            NonFiniteError: (a ValueError) names the tasks whose gradient or loss is NaN or infinite.
            ValueError: wrong shapes or tasks.
        """
        if gram.dim() not in (2, 3) or gram.shape[-1] != gram.shape[-2] or not gram.is_floating_point():
            raise ValueError(f"gram must be [n, n] or [groups, n, n] and float; got {list(gram.shape)}, {gram.dtype}")
        n = gram.shape[-1]
        indices = self.task_indices(tasks, n)
        if losses is not None:
            losses = torch.as_tensor(losses).detach().to("cpu", torch.float64)
            if losses.shape != (n,):
                raise ValueError(f"losses must be [{n}], one a row of gram; got {list(losses.shape)}")
            check_finite("loss", losses, indices)
        # The recurrences are many tiny steps: on the CPU in float64 they cost one transfer instead of many launches.
        grams = gram.detach().to("cpu", torch.float64).reshape(-1, n, n)
        _check_gram(grams, indices)
        with torch.no_grad():
            weights = self._weights(grams, torch.tensor(indices, dtype=torch.long), losses)
        return weights.reshape(gram.shape[:-1]).to(gram.device)

    @abstractmethod
    def _weights(self, grams: Tensor, tasks: Tensor, losses: Tensor | None) -> Tensor:
        """The weights, [groups, n], float64.

        Args:
            grams: [groups, n, n], float64, finite, on the CPU.
            tasks: [n].
            losses: [n], float64, finite, on the CPU.
        """


class StreamingMethod(GramMethod):
    """A method whose weight for a task follows, up to a factor common to all tasks, from its loss and the state alone.

    Gradients can be summed as they come, without a [tasks, params] buffer. Of a Gram matrix `weights` reads the
    diagonal |g_i|^2 at most. Parameter groups make no difference.

    Attributes:
        unweighted: all tasks have the same weight, whatever their losses: they can share one gradient vector.
        reads_norms: `weights` reads the diagonal of the Gram matrix.
    """

    unweighted: ClassVar[bool] = False
    reads_norms: ClassVar[bool] = False

    @abstractmethod
    def task_weight(self, task: int, loss: Tensor) -> float | Tensor:
        """The weight of a task in this step, up to a factor common to all tasks. It is positive, and no state changes.

        Args:
            task: which one.
            loss: a scalar.

        Returns:
            A number; where it depends on the loss, a float64 scalar on the loss's device, for which the host does not
            wait.
        """


class RowsMethod(CombiningMethod):
    """A method that has to see the gradients themselves: its result is not a function of the Gram matrix."""

    @abstractmethod
    def combine(self, rows: Tensor, group: int = 0) -> Tensor:
        """Combine the task gradients of one parameter group.

        Args:
            rows: [n, P].
            group: its number.

        Returns:
            [P].
        """


class Seeded(CombiningMethod):
    """A method that draws random numbers, from a generator of its own whose state is part of `state_dict()`.

    Args:
        seed: of that generator.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def get_extra_state(self) -> Tensor:
        return self.generator.get_state()

    def set_extra_state(self, state: Any) -> None:
        self.generator.set_state(state.to("cpu", torch.uint8))


def random_order(n: int, generator: torch.Generator) -> Tensor:
    """For each i, the other tasks in random order, [n, n - 1]: one `randperm(n)` an i, i itself struck out."""
    orders = [torch.randperm(n, generator=generator).tolist() for _ in range(n)]
    others = [[j for j in order if j != i] for i, order in enumerate(orders)]
    return torch.tensor(others, dtype=torch.long).view(n, n - 1)


def check_finite(what: str, values: Tensor, tasks: Sequence[int]) -> None:
    """Make sure that no task's value is NaN or infinite.

    Args:
        what: "loss" or "gradient", for the message.
        values: [n] or [n, ...].
        tasks: [n].

    Raises:
        NonFiniteError: with the tasks at fault.
    """
    finite = values.isfinite().reshape(len(tasks), -1).all(1).tolist()
    bad = [task for task, is_finite in zip(tasks, finite, strict=True) if not is_finite]
    if bad:
        raise NonFiniteError(what, bad)


def _check_gram(grams: Tensor, tasks: Sequence[int]) -> None:
    """Name the tasks at fault: a row i that is not finite spoils row and column i, but only the i-th diagonal entry."""
    check_finite("gradient", grams.diagonal(dim1=1, dim2=2).T, tasks)
    check_finite("gradient", grams.transpose(0, 1), tasks)
