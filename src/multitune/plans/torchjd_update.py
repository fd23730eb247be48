"""TorchJD's methods at work."""

from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from multitune.errors import UserError
from multitune.methods.base import RowsMethod
from multitune.methods.combiner import Combiner
from multitune.methods.torchjd import TorchJDAggregator, TorchJDWeighting, torchjd
from multitune.plans.combined_update import CombinedUpdate, combiner
from multitune.plans.update import Setup

if TYPE_CHECKING:
    from multitune.plans.combined import TorchJDPlan


def method(aggregator: str, options: dict[str, Any], tasks: int, seed: int = 0) -> TorchJDWeighting | TorchJDAggregator:
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
    _try(plan.aggregator, options, tasks)
    optimizer = setup.make_optimizer(setup.parameters)
    return TorchJDUpdate(setup, optimizer, combiner(setup, made, groups=plan.groups, mean=False), tasks)


def _try(aggregator: str, options: dict[str, Any], tasks: int) -> None:
    """Make a first step: options that do not fit the number of tasks show in it."""
    rows, made = torch.eye(tasks, dtype=torch.float64), method(aggregator, options, tasks)
    try:
        _ = made.combine(rows) if isinstance(made, RowsMethod) else made.weights(rows)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"options of torchjd:{aggregator} with {tasks} tasks a step: {reason}") from error


class TorchJDUpdate(CombinedUpdate):
    """Every step has the same number of tasks, in their order: what TorchJD keeps goes by a task's place."""

    def __init__(self, setup: Setup, optimizer: Optimizer, combiner: Combiner, tasks_per_step: int) -> None:
        super().__init__(setup, optimizer, combiner, tasks_per_step)
        self.smallest_step = tasks_per_step

    def draw(self, most: int) -> list[int]:
        return sorted(super().draw(most))
