"""The two-loop methods at work (see multitune.methods.two_loop)."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.optim import SGD

from multitune.methods.sampling import TaskSampler
from multitune.methods.schedule import Linear, Schedule
from multitune.methods.two_loop import Reptile, TwoLoop
from multitune.plans.update import Setup, SingleBatchUpdate

if TYPE_CHECKING:
    from multitune.plans.two_loop import TwoLoopPlan


class TwoLoopUpdate(SingleBatchUpdate):
    """One batch a step; the optimizer is an inner and an outer loop.

    Args:
        setup: of the run.
        two_loop: over the run's optimizer.
        sampler: says whose batch comes next; None where the loop does (Reptile).
    """

    def __init__(self, setup: Setup, two_loop: TwoLoop, sampler: TaskSampler | None) -> None:
        super().__init__(setup, two_loop)
        self._two_loop, self._sampler = two_loop, sampler

    def draw(self, most: int) -> list[int]:
        if self._sampler is not None:
            return self._sampler.draw(1)
        assert isinstance(self._two_loop, Reptile)
        return [self._two_loop.task]

    def shipped_weights(self) -> AbstractContextManager[None]:
        return self._two_loop.slow_weights()

    def advance(self, learning_rate: float, progress: float) -> None:
        super().advance(learning_rate, progress)
        self._two_loop.progress = progress

    def finish(self) -> None:
        self._two_loop.finish()

    def state_dict(self) -> dict[str, Any]:
        sampler = self._sampler.state_dict() if self._sampler else None
        return {"sampler": sampler, "two_loop": self._two_loop.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self._sampler:
            self._sampler.load_state_dict(state["sampler"])
        self._two_loop.load_state_dict(state["two_loop"])


def loop_options(plan: "TwoLoopPlan", inner_steps: int) -> dict[str, Any]:
    """The plan's options as the two-loop classes take them."""
    nesterov = partial(SGD, momentum=plan.momentum, nesterov=True)
    return {
        "inner_steps": _linear(inner_steps, plan.inner_steps_end),
        "outer_lr": _linear(plan.outer_lr, plan.outer_lr_end),
        "inner_state": plan.inner_state,
        "outer_optimizer": nesterov if plan.outer_optimizer == "nesterov" else None,
        "slow_device": plan.slow_device,
    }


def _linear(start: float, end: float | None) -> float | Schedule:
    return start if end is None else Linear(start, end)
