"""TorchJD's methods at work."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from multitune.errors import UserError
from multitune.methods.base import RowsMethod
from multitune.methods.sharded import ranks_of
from multitune.methods.torchjd import TorchJDAggregator, TorchJDWeighting, torchjd
from multitune.plans.combined_update import CombinedUpdate, combiner
from multitune.plans.update import Setup

if TYPE_CHECKING:
    from multitune.plans.combined import TorchJDPlan

TorchJDMethod = TorchJDWeighting | TorchJDAggregator


def method(aggregator: str, options: dict[str, Any], tasks: int, seed: int = 0) -> TorchJDMethod:
    """TorchJD's ``aggregator`` for steps of so many tasks.

    Raises:
        UserError: there is none of that name, or an option is wrong.
    """
    own = {"n_tasks": tasks} if aggregator.startswith("NashMTL") else {}
    return torchjd(aggregator, **({"seed": seed} | own | options))


def build(plan: "TorchJDPlan", setup: Setup) -> "TorchJDUpdate":
    """The update of a plan.

    Raises:
        UserError: an option does not fit the number of tasks.
    """
    tasks, options = min(plan.tasks_per_step, setup.num_tasks), plan.model_extra or {}
    made = method(plan.aggregator, options, tasks, setup.generator("method").initial_seed())
    if made.by_place and tasks < setup.num_tasks:
        raise UserError(
            f"options of torchjd:{plan.aggregator}: it keeps a value for each task, so all {setup.num_tasks} must be "
            f"in every step: set tasks_per_step={setup.num_tasks}"
        )
    if setup.ranks.size > 1 and isinstance(made, RowsMethod):
        raise UserError(
            f"method: torchjd:{plan.aggregator} reads the gradients themselves and runs in one process, without "
            f"torchrun; torchjd:UPGrad and others of the Gram matrix run on several ranks"
        )
    if isinstance(made, RowsMethod) and ranks_of([weight for _, weight in setup.parameters]) is not None:
        raise UserError(
            f"shard (in a Trainer: fsdp): cannot stand beside torchjd:{plan.aggregator}, which reads whole gradients"
        )
    _try(plan.aggregator, options, tasks)
    return TorchJDUpdate(setup, made, plan, tasks)


def _try(aggregator: str, options: dict[str, Any], tasks: int) -> None:
    """Make a first step: options that do not fit the number of tasks show in it."""
    rows, made = torch.eye(tasks, dtype=torch.float64), method(aggregator, options, tasks)
    try:
        _ = made.combine(rows) if isinstance(made, RowsMethod) else made.weights(rows)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"options of torchjd:{aggregator} with {tasks} tasks a step: {reason}") from error


class TorchJDUpdate(CombinedUpdate):
    """Every step has the same number of tasks, in their order: what TorchJD keeps goes by a task's place.

    Tasks get their weights as ``method.task_weights`` says.
    """

    def __init__(self, setup: Setup, method: TorchJDMethod, plan: "TorchJDPlan", tasks_per_step: int) -> None:
        made = combiner(setup, method, groups=plan.groups, buckets=plan.buckets, mean=False)
        optimizer = setup.make_optimizer(setup.parameters)
        super().__init__(setup, optimizer, made, tasks_per_step, weighted=method.task_weights == "rows")
        self.smallest_step = tasks_per_step
        self._method = method
        self._preferring = method.task_weights == "preference" and setup.task_weights == "sampling"

    def draw(self, most: int) -> list[int]:
        return sorted(super().draw(most))

    def scales(self, drawn: Sequence[int]) -> list[float]:
        """The scales of the gradients; a method with a preference gets these tasks' weights as that instead."""
        if self._preferring:
            self._method.preference = self._sampler.weights(drawn)
        return super().scales(drawn)
