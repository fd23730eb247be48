"""The two-loop methods as recipes know them (see multitune.methods.two_loop)."""

from abc import ABC
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch.optim import SGD

from multitune.errors import RunError
from multitune.methods.base import NonFiniteError
from multitune.methods.optimizer_state import load_plain, to_plain
from multitune.methods.sampling import EpochSampler, PermutedSampler, TaskSampler
from multitune.methods.schedule import Linear, Schedule
from multitune.methods.slow_weights import NonFiniteWeightsError
from multitune.methods.two_loop import Fish, InnerState, Lookahead, Reptile, SequentialReptile, TwoLoop
from multitune.plans.update import Mixture, Plan, Setup, SingleBatchUpdate, Update

Steps = Annotated[int, Field(ge=1)]
OuterRate = Annotated[float, Field(gt=0.0, le=1.0)]

PAPERS_STEPS = 1000
"""K of arXiv 2110.02600, for Reptile too."""
ROUNDS = 10
"""Outer steps that Reptile has at least, where the recipe does not set K."""


class TwoLoopPlan(Plan, ABC):
    """The options that all two-loop methods share."""

    inner_steps: Steps | None
    """K: steps of an inner loop."""
    inner_steps_end: Steps | None = None
    """K at the end of the budget, reached linearly; null keeps it constant."""
    outer_lr: OuterRate = 0.1
    """eta: share of the way from the slow to the fast weights that an outer step goes."""
    outer_lr_end: OuterRate | None = None
    """eta at the end of the budget, reached linearly; null keeps it constant."""
    inner_state: InnerState = "carry"
    """What an outer step does with AdamW's moments: carry or reset."""
    outer_optimizer: Literal["sgd", "nesterov"] = "sgd"
    """sgd: phi - eta (phi - theta), the paper's; nesterov: DiLoCo's, made for outer_lr 0.7."""
    momentum: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.9
    """Of nesterov."""
    slow_device: Literal["cpu"] | None = None
    """cpu keeps the slow weights off the accelerator; null beside the fast ones."""

    def loop_options(self, inner_steps: int) -> dict[str, Any]:
        """The options as the two-loop classes take them."""
        nesterov = partial(SGD, momentum=self.momentum, nesterov=True)
        return {
            "inner_steps": _linear(inner_steps, self.inner_steps_end),
            "outer_lr": _linear(self.outer_lr, self.outer_lr_end),
            "inner_state": self.inner_state,
            "outer_optimizer": nesterov if self.outer_optimizer == "nesterov" else None,
            "slow_device": self.slow_device,
        }


class SequentialReptilePlan(TwoLoopPlan):
    """Algorithm 1 of arXiv 2110.02600; the defaults are the paper's."""

    summary: ClassVar[str] = "K single-task steps on fast weights, then the slow weights follow by a share eta"
    paper: ClassVar[str] = "arXiv 2110.02600, Algorithm 1"

    inner_steps: Steps = PAPERS_STEPS
    """K: single-task steps in an inner loop."""
    order: Literal["random", "permuted"] = "random"
    """random: each step's task is drawn by itself; permuted: an inner loop meets each task as often as its probability
    says, rounded up or down, in random order (with K = T and alike probabilities: once)."""

    def build(self, setup: Setup) -> Update:
        optimizer = setup.make_optimizer(setup.parameters)
        loop = SequentialReptile(optimizer, **self.loop_options(self.inner_steps))
        if self.order == "random":
            return TwoLoopUpdate(setup, loop, setup.sampler(replacement=True))
        sampler = PermutedSampler(setup.probabilities, self.inner_steps, generator=setup.generator("tasks"))
        return TwoLoopUpdate(setup, loop, sampler)


class LookaheadPlan(TwoLoopPlan):
    """Lookahead on batches that mix the tasks: what Sequential Reptile is without single-task batches."""

    summary: ClassVar[str] = "as sequential_reptile, but each batch mixes the tasks: its control"
    paper: ClassVar[str] = "arXiv 1907.08610, Algorithm 1"
    mixes_tasks: ClassVar[bool] = True

    inner_steps: Steps = PAPERS_STEPS
    """k: steps of the fast weights in an inner loop (the paper: 5, with outer_lr 0.5)."""

    def build(self, setup: Setup) -> Update:
        loop = Lookahead(setup.make_optimizer(setup.parameters), **self.loop_options(self.inner_steps))
        return TwoLoopUpdate(setup, loop, setup.sampler(replacement=True), examples=setup.batch_size)


class FishPlan(TwoLoopPlan):
    """Inner loops that meet every task once, in random order."""

    summary: ClassVar[str] = "inner loops over the tasks without replacement, whatever their sizes"
    paper: ClassVar[str] = "arXiv 2104.09937, Algorithm 1"

    inner_steps: Steps | None = None
    """Single-task steps in an inner loop; null takes the number of tasks, as the paper does."""

    def build(self, setup: Setup) -> Update:
        optimizer = setup.make_optimizer(setup.parameters)
        loop = Fish(optimizer, **self.loop_options(self.inner_steps or setup.num_tasks))
        return TwoLoopUpdate(setup, loop, EpochSampler(setup.num_tasks, generator=setup.generator("tasks")))


class ReptilePlan(TwoLoopPlan):
    """A trajectory for each task from the same slow weights."""

    summary: ClassVar[str] = "a trajectory of K steps for each task, then the slow weights follow their mean"
    paper: ClassVar[str] = "arXiv 1803.02999; 2110.02600, Eq. 2 and 3"

    inner_steps: Steps | None = None
    """K: steps of each task's trajectory, so that an outer step costs T K gradient computations; null takes 1000 (arXiv
    2110.02600), or what makes ten outer steps of the budget, where that is less."""
    inner_state: InnerState = "reset"
    """AdamW at the start of a trajectory: as new (reset), or as the task's last one left it (carry: T copies)."""

    def build(self, setup: Setup) -> Update:
        affordable = max(1, setup.budget // (ROUNDS * setup.num_tasks))
        options = self.loop_options(self.inner_steps or min(PAPERS_STEPS, affordable))
        loop = Reptile(setup.make_optimizer(setup.parameters), num_tasks=setup.num_tasks, **options)
        return TwoLoopUpdate(setup, loop, None)


class TwoLoopUpdate(SingleBatchUpdate):
    """One batch a step; the optimizer is an inner and an outer loop.

    Args:
        setup: of the run.
        two_loop: over the run's optimizer.
        sampler: draws the tasks of each batch; None where the loop says whose turn it is (Reptile).
        examples: tasks to draw for each batch; more than 1 where a task's mini-batch is one example.
    """

    def __init__(self, setup: Setup, two_loop: TwoLoop, sampler: TaskSampler | None, examples: int = 1) -> None:
        super().__init__(setup, two_loop)
        self._two_loop, self._sampler, self._examples = two_loop, sampler, examples

    def draw(self) -> list[Mixture]:
        if isinstance(self._sampler, PermutedSampler) and self._two_loop.inner_step == 0:
            self._sampler.begin(self._two_loop.loop_length)
        if self._sampler is not None:
            return [tuple(self._sampler.draw(self._examples))]
        assert isinstance(self._two_loop, Reptile)
        return [(self._two_loop.task,)]

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


def _linear(start: float, end: float | None) -> float | Schedule:
    return start if end is None else Linear(start, end)
