"""The two-loop methods as recipes know them (see multitune.methods.two_loop)."""

from abc import ABC
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from multitune.plans.plan import Plan

if TYPE_CHECKING:
    from multitune.plans.update import Setup, Update

Steps = Annotated[int, Field(ge=1)]
OuterRate = Annotated[float, Field(gt=0.0, le=1.0)]

LONGEST = 1000
"""Inner steps at most, where the recipe does not set K: that of arXiv 2110.02600, for Reptile too."""
OUTER_STEPS = 24
"""Outer steps of a run, where the recipe does not set K."""
ROUNDS = 10
"""Those that Reptile has at least, each of which costs T K gradient computations."""


class TwoLoopPlan(Plan, ABC):
    """The options that all two-loop methods share."""

    inner_steps: Steps | None = None
    """K: steps of an inner loop; null takes a 24th of the budget, at most the paper's 1000."""
    inner_steps_end: Steps | None = None
    """K at the end of the budget, reached linearly; null keeps it constant."""
    outer_lr: OuterRate | None = None
    """eta: share of the way from the slow to the fast weights that an outer step goes (the paper: 0.1); null lets it
    rise from 0.5 to 1 (nesterov: 0.7)."""
    outer_lr_end: OuterRate | None = None
    """eta at the end of the budget, reached linearly; null keeps it constant where ``outer_lr`` is set."""
    inner_state: Literal["carry", "reset"] = "carry"
    """What an outer step does with AdamW's moments: carry or reset."""
    outer_optimizer: Literal["sgd", "nesterov"] = "sgd"
    """sgd: phi - eta (phi - theta), the paper's; nesterov: DiLoCo's, made for outer_lr 0.7."""
    momentum: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.9
    """Of nesterov."""
    slow_device: Literal["cpu"] | None = None
    """cpu keeps the slow weights off the accelerator; null beside the fast ones."""

    def fitting_steps(self, setup: "Setup") -> int:
        """K, or where the recipe does not set it, what fits the run."""
        return self.inner_steps or min(LONGEST, max(1, setup.budget // (OUTER_STEPS * self.walks)))

    @property
    def walks(self) -> int:
        """M: trajectories of all tasks in an outer step."""
        return 1


class ManyWalks(TwoLoopPlan, ABC):
    """Methods of which several trajectories can start from the same slow weights."""

    trajectories: Steps = 1
    """M: walks of K steps over all tasks from the same slow weights, which then go toward their mean; an outer step
    costs M K gradient computations. Ranks share them."""

    @property
    def walks(self) -> int:
        return self.trajectories


class SequentialReptilePlan(ManyWalks):
    """Algorithm 1 of arXiv 2110.02600, which has K = 1000 and eta = 0.1."""

    summary: ClassVar[str] = "K single-task steps on fast weights, then the slow weights follow by a share eta"
    paper: ClassVar[str] = "arXiv 2110.02600, Algorithm 1"

    order: Literal["random", "permuted"] = "random"
    """random: each step's task is drawn by itself; permuted: an inner loop meets each task as often as its probability
    says, rounded up or down, in random order (with K = T and alike probabilities: once)."""

    def build(self, setup: "Setup") -> "Update":
        from multitune.methods.sampling import PermutedSampler
        from multitune.methods.two_loop import SequentialReptile
        from multitune.plans.two_loop_update import TwoLoopUpdate, loop_options, short_way, walk_options

        steps, walks = self.fitting_steps(setup), range(self.walks)
        options = loop_options(self, steps)
        loop = SequentialReptile(setup.make_optimizer(setup.parameters), **options, **walk_options(self, setup))
        notes = short_way(options, setup.budget, self.walks)
        if self.order == "random":
            return TwoLoopUpdate(setup, loop, [setup.sampler(walk) for walk in walks], notes)
        generators = [setup.task_generator(walk) for walk in walks]
        samplers = [PermutedSampler(setup.probabilities, steps, generator=own) for own in generators]
        return TwoLoopUpdate(setup, loop, samplers, notes)


class LookaheadPlan(ManyWalks):
    """Lookahead on batches that mix the tasks: what Sequential Reptile is without single-task batches."""

    summary: ClassVar[str] = "as sequential_reptile, but each batch mixes the tasks: its control"
    paper: ClassVar[str] = "arXiv 1907.08610, Algorithm 1"
    mixes_tasks: ClassVar[bool] = True

    def build(self, setup: "Setup") -> "Update":
        from multitune.methods.two_loop import Lookahead
        from multitune.plans.two_loop_update import TwoLoopUpdate, loop_options, short_way, walk_options

        options = loop_options(self, self.fitting_steps(setup))
        loop = Lookahead(setup.make_optimizer(setup.parameters), **options, **walk_options(self, setup))
        samplers = [setup.sampler(walk) for walk in range(self.walks)]
        return TwoLoopUpdate(setup, loop, samplers, short_way(options, setup.budget, self.walks))


class FishPlan(ManyWalks):
    """Inner loops that meet every task once, in random order."""

    summary: ClassVar[str] = "inner loops over the tasks without replacement, whatever their sizes"
    paper: ClassVar[str] = "arXiv 2104.09937, Algorithm 1"

    inner_steps: Steps | None = None
    """Single-task steps in an inner loop; null takes the number of tasks, as the paper does."""

    def fitting_steps(self, setup: "Setup") -> int:
        return self.inner_steps or setup.num_tasks

    def build(self, setup: "Setup") -> "Update":
        from multitune.methods.sampling import EpochSampler
        from multitune.methods.two_loop import Fish
        from multitune.plans.two_loop_update import TwoLoopUpdate, loop_options, short_way, walk_options

        options = loop_options(self, self.fitting_steps(setup))
        loop = Fish(setup.make_optimizer(setup.parameters), **options, **walk_options(self, setup))
        generators = [setup.task_generator(walk) for walk in range(self.walks)]
        samplers = [EpochSampler(setup.num_tasks, generator=own) for own in generators]
        return TwoLoopUpdate(setup, loop, samplers, short_way(options, setup.budget, self.walks))


class ReptilePlan(TwoLoopPlan):
    """A trajectory for each task from the same slow weights."""

    summary: ClassVar[str] = "a trajectory of K steps for each task, then the slow weights follow their mean"
    paper: ClassVar[str] = "arXiv 1803.02999; 2110.02600, Eq. 2 and 3"

    inner_steps: Steps | None = None
    """K: steps of each task's trajectory, so that an outer step costs T K gradient computations; null takes 1000 (arXiv
    2110.02600), or what makes ten outer steps of the budget, where that is less."""
    inner_state: Literal["carry", "reset"] = "reset"
    """AdamW at the start of a trajectory: as new (reset), or as the task's last one left it (carry: T copies)."""

    def fitting_steps(self, setup: "Setup") -> int:
        return self.inner_steps or min(LONGEST, max(1, setup.budget // (ROUNDS * setup.num_tasks)))

    def build(self, setup: "Setup") -> "Update":
        from multitune.methods.reptile import Reptile
        from multitune.plans.two_loop_update import TwoLoopUpdate, loop_options, short_way

        options = loop_options(self, self.fitting_steps(setup))
        loop = Reptile(setup.make_optimizer(setup.parameters), num_tasks=setup.num_tasks, **options)
        return TwoLoopUpdate(setup, loop, [], short_way(options, setup.budget, trajectories=setup.num_tasks))
