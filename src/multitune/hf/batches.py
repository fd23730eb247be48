"""Batches each of which is of one task, for any DataLoader."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final, get_args

import numpy as np
from torch import Tensor
from torch.utils.data import BatchSampler, IterableDataset

from multitune.errors import UserError
from multitune.hf.order import ExampleOrder
from multitune.methods.sampling import CategoricalSampler, SystematicSampler, task_probabilities
from multitune.seeds import seeded

Sampling = Literal["proportional", "uniform", "unimax"]


@dataclass(frozen=True)
class Tasks:
    """A data set's tasks.

    Attributes:
        names: the values of the column, in order.
        examples: each task's indices into the data set.
    """

    names: list[Any]
    examples: list[list[int]]

    @property
    def sizes(self) -> list[int]:
        """Examples of each."""
        return [len(indices) for indices in self.examples]


@dataclass(frozen=True)
class Shares:
    """How often each task comes, as a recipe's keys of the same names say.

    Attributes:
        sampling: "proportional" (temperature sampling: p_t ~ N_t^q), "uniform", or "unimax".
        sampling_exponent: q.
        sampling_epochs: the most often that "unimax" repeats a task's examples.

    Raises:
        UserError: another sampling, a negative exponent, or epochs that are not positive.
    """

    sampling: Sampling = "proportional"
    sampling_exponent: float = 0.2
    sampling_epochs: float = 5.0

    def __post_init__(self) -> None:
        if self.sampling not in get_args(Sampling):
            raise UserError(f"sampling: {self.sampling!r} is not allowed; choose {', '.join(get_args(Sampling))}")
        if not self.sampling_exponent >= 0:
            raise UserError(f"sampling_exponent: must be 0 or more, not {self.sampling_exponent}")
        if not self.sampling_epochs > 0:
            raise UserError(f"sampling_epochs: must be above 0, not {self.sampling_epochs}")

    def probabilities(self, sizes: Sequence[int], budget: int) -> Tensor:
        """Compute p, float64 [tasks].

        Args:
            sizes: examples of each task.
            budget: examples that the training will draw, of all tasks together.
        """
        return task_probabilities(
            self.sampling,
            sizes,
            exponent=self.sampling_exponent,
            budget=budget,
            max_epochs=self.sampling_epochs,
        )


def find_tasks(dataset: Any, column: str) -> Tasks:
    """Find the tasks that a column of a data set names.

    Args:
        dataset: of ``datasets``, or any with a length whose rows are mappings.
        column: its name.

    Raises:
        UserError: several data sets, no length, no such column, or a row whose value is missing or cannot name a task.
    """
    if isinstance(dataset, Mapping):
        raise UserError(
            f"train_dataset: is a {type(dataset).__name__}; give one data set whose column {column!r} names each row's "
            f"task, such as datasets.concatenate_datasets makes of several"
        )
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise UserError(
            f"train_dataset: {type(dataset).__name__} has no rows by number, and batches of one task need all rows' "
            f"values of {column!r} before the first step: give a data set that is not streamed"
        )
    examples: dict[Any, list[int]] = {}
    for number, name in enumerate(map(_plain, _values(dataset, column))):
        if name is None or (isinstance(name, float) and math.isnan(name)):  # pandas' missing value
            raise UserError(f"train_dataset: row {number} has no value of {column!r}")
        if isinstance(name, Tensor) or not isinstance(name, Hashable):
            raise UserError(
                f"train_dataset: row {number}'s value of {column!r} is a {type(name).__name__}; a task has one name or "
                f"number"
            )
        examples.setdefault(name, []).append(number)
    if not examples:
        raise UserError("train_dataset: has no rows")
    names = sorted(examples, key=str)
    return Tasks(names, [examples[name] for name in names])


def _values(dataset: Any, column: str) -> Sequence[Any]:
    columns = getattr(dataset, "column_names", None)
    if columns is not None:
        if column not in columns:
            raise _no_column(column, columns)
        return list(dataset.with_format(None)[column])
    return [_value(number, dataset[number], column) for number in range(len(dataset))]


def _value(number: int, row: Any, column: str) -> Any:
    if not isinstance(row, Mapping):
        raise UserError(
            f"train_dataset: row {number} is a {type(row).__name__}; give rows that are dicts, whose {column!r} names "
            f"their task"
        )
    if column not in row:
        raise _no_column(column, list(row))
    return row[column]


def _plain(value: Any) -> Any:
    """A single number of torch or NumPy as Python's own, so that equal ones are one task; all else as it is."""
    return value.item() if isinstance(value, Tensor | np.ndarray | np.generic) and value.ndim == 0 else value


def _no_column(column: str, columns: Sequence[Any]) -> UserError:
    return UserError(
        f"task_column: train_dataset has no column {column!r}; it has {', '.join(map(str, columns)) or 'none'} "
        f"(TRL's packing=True drops all others)"
    )


@final
class OneTaskBatches(BatchSampler):
    """A batch sampler whose batches are of one task each, drawn as often as p says.

        batches = OneTaskBatches(dataset, "language", 8, sampling_exponent=0.2)
        loader = DataLoader(dataset, batch_sampler=batches, collate_fn=...)

    Iterating gives an epoch: the fewest steps that have as many examples as the data set. Every batch is full. The next
    iteration is the next epoch. To go on where a training stopped, give it ``load_state_dict({"batches": n})``
    with the number of batches done, or ``set_epoch(n)`` and accelerate's ``skip_first_batches``.

    Args:
        dataset: of ``datasets``, or any with a length whose rows are mappings.
        column: whose values are the tasks: the language of each row.
        batch_size: examples of a batch.
        sampling: "proportional" (temperature sampling: p_t ~ N_t^q), "uniform" or "unimax".
        sampling_exponent: q; 0 is uniform, 1 proportional to size.
        sampling_epochs: the most often that "unimax" repeats a task's examples.
        budget: batches that the training will draw, which "unimax" needs.
        tasks_per_step: distinct tasks of an optimizer step, one after the other; more than 1 for combining methods.
        batches_per_task: batches in a row of one task. Methods with slow weights want one task for all micro-batches
            of an optimizer step, on all ranks: ``accumulation * ranks`` (accelerate hands batch i to rank i mod ranks).
        seed: of all draws.

    Raises:
        UserError: a setting that is out of range, a data set without that column or without a length.
    """

    def __init__(
        self,
        dataset: Any,
        column: str,
        batch_size: int,
        *,
        sampling: Sampling = "proportional",
        sampling_exponent: float = 0.2,
        sampling_epochs: float = 5.0,
        budget: int | None = None,
        tasks_per_step: int = 1,
        batches_per_task: int = 1,
        seed: int = 0,
    ) -> None:
        shares = Shares(sampling, sampling_exponent, sampling_epochs)
        for name, value in (("batch_size", batch_size), ("batches_per_task", batches_per_task)):
            if value < 1:
                raise UserError(f"{name}: must be 1 or more, not {value}")
        if budget is None and sampling == "unimax":
            raise UserError("budget: unimax needs the number of batches that the training will draw")
        self._tasks = find_tasks(dataset, column)
        if not 1 <= tasks_per_step <= len(self._tasks.names):
            raise UserError(f"tasks_per_step: must be from 1 to {len(self._tasks.names)}, not {tasks_per_step}")
        self._probabilities = shares.probabilities(self._tasks.sizes, (budget or 1) * batch_size)
        kind = CategoricalSampler if tasks_per_step == 1 else SystematicSampler
        drawn = kind(self._probabilities, generator=seeded(seed, "tasks"))
        self._order = ExampleOrder(
            self._tasks.examples,
            lambda _: drawn.draw(tasks_per_step),
            tasks_per_step=tasks_per_step,
            examples_per_task=batch_size * batches_per_task,
            seed=seed,
        )
        super().__init__(self._order, batch_size, drop_last=True)

    @property
    def tasks(self) -> list[Any]:
        """The values of the column, in order."""
        return self._tasks.names

    @property
    def sizes(self) -> list[int]:
        """Examples of each task."""
        return self._tasks.sizes

    @property
    def probabilities(self) -> Tensor:
        """How often each task is drawn, float64 [tasks]."""
        return self._probabilities

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return self._order.steps_per_epoch

    def tasks_of(self, step: int) -> list[Any]:
        """The tasks of an optimizer step, counted from 0 over all epochs."""
        return [self._tasks.names[task] for task in self._order.tasks(step)]

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration be that of an epoch."""
        self._order.set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        """How many batches were asked for since the very first; loaders that work ahead have trained on fewer."""
        return {"batches": self._order.place // self.batch_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration go on after so many batches, up to the end of their epoch."""
        self._order.go_to(state["batches"] * self.batch_size)
