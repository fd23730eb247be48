"""The two-loop methods at work (see multitune.methods.two_loop)."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.optim import SGD

from multitune.errors import RunError
from multitune.methods.base import NonFiniteError
from multitune.methods.optimizer_state import load_plain, to_plain
from multitune.methods.sampling import PermutedSampler, TaskSampler
from multitune.methods.schedule import Linear, Schedule, inner_steps_at, outer_lr_at
from multitune.methods.slow_weights import NonFiniteWeightsError
from multitune.methods.two_loop import Reptile, TwoLoop
from multitune.plans.update import Setup, SingleBatchUpdate

if TYPE_CHECKING:
    from multitune.plans.two_loop import TwoLoopPlan

RISING_FROM, DILOCO = 0.5, 0.7
"""eta where the recipe does not set it: its first value, and with Nesterov's momentum its only one."""


class TwoLoopUpdate(SingleBatchUpdate):
    """One batch a step; the optimizer is an inner and an outer loop.

    Args:
        setup: of the run.
        two_loop: over the run's optimizer.
        sampler: says whose batch comes next; None where the loop does (Reptile).
        notes: as of every update.
    """

    def __init__(self, setup: Setup, two_loop: TwoLoop, sampler: TaskSampler | None, notes: Sequence[str] = ()) -> None:
        super().__init__(setup, two_loop)
        self._two_loop, self._sampler, self.notes = two_loop, sampler, tuple(notes)

    def draw(self, most: int) -> list[int]:
        if isinstance(self._sampler, PermutedSampler) and self._two_loop.inner_step == 0:
            self._sampler.begin(self._two_loop.loop_length)
        if self._sampler is not None:
            return self._sampler.draw(1)
        assert isinstance(self._two_loop, Reptile)
        return [self._two_loop.task]

    @property
    def two_loop(self) -> TwoLoop:
        """The optimizer, for a loop of another kind."""
        return self._two_loop

    @property
    def ships_anew(self) -> bool:
        return self._two_loop.between_loops

    def shipped_weights(self) -> AbstractContextManager[None]:
        return self._two_loop.slow_weights()

    def advance(self, learning_rate: float, progress: float) -> None:
        super().advance(learning_rate, progress)
        self._two_loop.progress = progress

    def finish(self) -> None:
        try:
            self._two_loop.close_inner_loop()
        except NonFiniteWeightsError as error:
            raise RunError(f"at the end of the budget {error} (learning_rate)") from error

    def state_dict(self) -> dict[str, Any]:
        sampler = self._sampler.state_dict() if self._sampler else None
        return {"sampler": sampler, "two_loop": to_plain(self._two_loop.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self._sampler:
            self._sampler.load_state_dict(state["sampler"])
        load_plain(self._two_loop, state["two_loop"])

    def _apply(self, tasks: Sequence[int]) -> None:
        try:
            super()._apply(tasks)
        except NonFiniteWeightsError as error:
            self._two_loop.zero_grad()
            raise NonFiniteError("result of a step", tasks) from error


def loop_options(plan: "TwoLoopPlan", inner_steps: int) -> dict[str, Any]:
    """The plan's options as the two-loop classes take them; ``inner_steps`` is K where training begins."""
    nesterov = partial(SGD, momentum=plan.momentum, nesterov=True)
    return {
        "inner_steps": _linear(inner_steps, plan.inner_steps_end),
        "outer_lr": _outer_lr(plan),
        "inner_state": plan.inner_state,
        "outer_optimizer": nesterov if plan.outer_optimizer == "nesterov" else None,
        "slow_device": plan.slow_device,
    }


def _outer_lr(plan: "TwoLoopPlan") -> float | Schedule:
    """The plan's, or what suits any budget: rising to 1 as the learning rate decays, so that phi ends near theta."""
    if plan.outer_lr is not None:
        return _linear(plan.outer_lr, plan.outer_lr_end)
    if plan.outer_optimizer == "nesterov":
        return _linear(DILOCO, plan.outer_lr_end)
    return Linear(RISING_FROM, 1.0 if plan.outer_lr_end is None else plan.outer_lr_end)


def _linear(start: float, end: float | None) -> float | Schedule:
    return start if end is None else Linear(start, end)


def short_way(options: Mapping[str, Any], budget: int, trajectories: int = 1) -> list[str]:
    """A sentence where the slow weights will go less than half of the way to the fast ones: 1 - prod_i (1 - eta_i).

    Args:
        options: as ``loop_options`` gives them; with Nesterov's momentum the way is not known, and nothing is said.
        budget: steps of the run.
        trajectories: inner loops before an outer step.
    """
    if options["outer_optimizer"] is not None:
        return []
    left, done, outer_steps = 1.0, 0, 0
    while done < budget:
        done = min(budget, done + trajectories * inner_steps_at(options["inner_steps"], done / budget))
        left *= 1.0 - outer_lr_at(options["outer_lr"], (done - 1) / budget)
        outer_steps += 1
    if left <= 0.5:
        return []
    return [
        f"the shipped weights go {1.0 - left:.0%} of the way that plain steps go (outer steps: {outer_steps}); without "
        f"options.inner_steps and options.outer_lr, both fit the budget"
    ]
