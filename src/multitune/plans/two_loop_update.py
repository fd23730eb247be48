"""The two-loop methods at work (see multitune.methods.two_loop)."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import SGD

from multitune.errors import DivergedError
from multitune.methods.base import NonFiniteError
from multitune.methods.losses import Loss
from multitune.methods.optimizer_state import load_plain, to_plain
from multitune.methods.reptile import Reptile
from multitune.methods.sampling import EpochSampler, PermutedSampler, TaskSampler
from multitune.methods.schedule import Linear, Schedule, inner_steps_at, outer_lr_at
from multitune.methods.slow_weights import NonFiniteWeightsError
from multitune.methods.two_loop import Fish, TwoLoop
from multitune.plans.update import Setup, SingleBatchUpdate

if TYPE_CHECKING:
    from multitune.plans.two_loop import ManyWalks, TwoLoopPlan

RISING_FROM, DILOCO = 0.5, 0.7
"""eta where the recipe does not set it: its first value, and with Nesterov's momentum its only one."""
STRETCH = 4
"""Steps that each of several trajectories makes before ranks tell each other their losses: often enough to stop soon
after a signal, and so seldom that a long batch of one is made up for by a short one."""
WEIGHTS = "weights"
FAULTS = ("loss", "gradient", WEIGHTS)
"""What may be not finite; ranks tell each other the place in this list."""


class TwoLoopUpdate(SingleBatchUpdate):
    """One batch a step, or a few of each of several trajectories; the optimizer is an inner and an outer loop.

    Args:
        setup: of the run.
        two_loop: over the run's optimizer.
        samplers: of each trajectory, say whose batch comes next; none where the loop does (Reptile).
        notes: as of every update.
    """

    def __init__(self, setup: Setup, two_loop: TwoLoop, samplers: Sequence[TaskSampler], notes: Sequence[str]) -> None:
        super().__init__(setup, two_loop)
        self._two_loop, self._samplers, self.notes = two_loop, samplers, tuple(notes)
        self._ranks, self.smallest_step = setup.ranks, two_loop.trajectories

    def draw(self, most: int) -> list[int]:
        """As every update does; with M trajectories the n-th batch is the (n mod M)-th one's."""
        loop = self._two_loop
        if isinstance(loop, Reptile):
            return [loop.task]
        if loop.between_loops:
            self._begin_orders(loop.loop_length)
        steps = min(STRETCH if loop.trajectories > 1 else 1, loop.loop_length - loop.inner_step)
        turns = range(min(steps, most // loop.trajectories))
        return [number for _ in turns for sampler in self._samplers for number in sampler.draw(1)]

    def _begin_orders(self, inner_steps: int) -> None:
        """Let the order of tasks begin with the inner loop where it goes by these."""
        for sampler in self._samplers:
            if isinstance(sampler, PermutedSampler) or (
                isinstance(sampler, EpochSampler) and isinstance(self._two_loop, Fish)
            ):
                sampler.begin(inner_steps)

    def optimizer_steps(self, batches: int) -> int:
        return batches

    def step(self, drawn: Sequence[int], losses: Iterable[Loss]) -> list[float]:
        """As every update does.

        Raises:
            DivergedError: an outer step is due, and the fast weights are NaN or infinite: no later batch mends them.
        """
        try:
            return super().step(drawn, losses) if self._two_loop.trajectories == 1 else self._walk(drawn, losses)
        except NonFiniteWeightsError as error:
            raise DivergedError(f"at the end of an inner loop {error} (learning_rate)") from error

    def _walk(self, drawn: Sequence[int], losses: Iterable[Loss]) -> list[float]:
        """A few steps of each of several trajectories."""
        values, faults = torch.zeros(len(drawn), dtype=torch.float64), torch.zeros(len(drawn), dtype=torch.float64)
        for place, loss in enumerate(losses):
            if self._ranks.computes(place):
                self._step_of_one(drawn, place, loss, values, faults)
        values, faults = self._ranks.sums_on_host([values, faults])
        if places := faults.nonzero().flatten().tolist():
            found = {FAULTS[int(faults[place]) - 1] for place in places}
            if WEIGHTS in found:
                raise NonFiniteWeightsError
            what = "gradient" if "gradient" in found else "loss"
            raise NonFiniteError(what, [drawn[place] for place in places], places)
        read: list[float] = values.tolist()
        return read

    def _step_of_one(self, drawn: Sequence[int], place: int, loss: Loss, values: Tensor, faults: Tensor) -> None:
        """A step of the trajectory whose batch is at ``place``; it stands still where its loss is not finite."""
        try:
            (values[place],) = super().step([drawn[place]], [loss])
        except NonFiniteError as error:
            faults[place] = 1 + FAULTS.index(error.what)
            if error.what == WEIGHTS:
                return
            try:
                self._two_loop.pass_turn()
            except NonFiniteWeightsError:
                faults[place] = 1 + FAULTS.index(WEIGHTS)

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
            raise DivergedError(f"at the end of the budget {error} (learning_rate)") from error

    def state_dict(self) -> dict[str, Any]:
        samplers = [sampler.state_dict() for sampler in self._samplers]
        return {"samplers": samplers, "two_loop": to_plain(self._two_loop.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for sampler, own in zip(self._samplers, state["samplers"], strict=True):
            sampler.load_state_dict(own)
        load_plain(self._two_loop, state["two_loop"])


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


def walk_options(plan: "ManyWalks", setup: Setup) -> dict[str, Any]:
    """The plan's trajectories as the two-loop classes take them."""
    return {"trajectories": plan.trajectories, "process_group": setup.ranks}


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
