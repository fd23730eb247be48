"""Whose batches a method wants, step by step, known before its optimizer exists: data loaders work ahead."""

from collections.abc import Sequence

from multitune.errors import UserError
from multitune.hf.order import Draw
from multitune.methods.reptile import Reptile
from multitune.methods.sampling import EpochSampler, PermutedSampler, SystematicSampler
from multitune.methods.schedule import Schedule, inner_steps_at
from multitune.methods.two_loop import TwoLoop
from multitune.plans import Plan
from multitune.plans.combined import SeveralTasks, TorchJDPlan
from multitune.plans.two_loop import FishPlan, ReptilePlan, SequentialReptilePlan, TwoLoopPlan
from multitune.plans.two_loop_update import loop_options
from multitune.plans.update import Setup


def draws(plan: Plan, setup: Setup, tasks_per_step: int) -> Draw:
    """The tasks of a step: one, or ``tasks_per_step`` distinct ones for a combining method."""
    generator = setup.generator("tasks")
    if isinstance(plan, SeveralTasks):
        systematic = SystematicSampler(setup.probabilities, generator=generator)
        in_order = isinstance(plan, TorchJDPlan)  # what TorchJD keeps goes by a task's place
        return lambda _: sorted(systematic.draw(tasks_per_step)) if in_order else systematic.draw(tasks_per_step)
    if isinstance(plan, ReptilePlan):
        return Turns(setup.num_tasks, loops_of(plan, setup))
    if isinstance(plan, FishPlan):
        return Permuted(EpochSampler(setup.num_tasks, generator=generator), loops_of(plan, setup))
    if isinstance(plan, SequentialReptilePlan) and plan.order == "permuted":
        loops = loops_of(plan, setup)
        return Permuted(PermutedSampler(setup.probabilities, loops.steps_at(0), generator=generator), loops)
    one = setup.make_sampler(generator)
    return lambda _: one.draw(tasks_per_step)


class InnerLoops:
    """Where inner loops begin, as an optimizer with the same options finds it while it steps.

    Args:
        inner_steps: K, or a schedule of the progress.
        total: steps of the training.

    Attributes:
        starts: the steps asked for so far with which a loop begins.
    """

    def __init__(self, inner_steps: int | Schedule, total: int) -> None:
        self._inner_steps, self._total, self._left = inner_steps, total, 0
        self.starts: set[int] = set()

    def steps_at(self, step: int) -> int:
        """K of a loop that begins with a step."""
        return inner_steps_at(self._inner_steps, min(1.0, step / self._total))

    def begins(self, step: int) -> bool:
        """Whether a loop begins with this step, the next one."""
        begins = self._left == 0
        if begins:
            self.starts.add(step)
        self._left = (self.steps_at(step) if begins else self._left) - 1
        return begins


def loops_of(plan: TwoLoopPlan, setup: Setup) -> InnerLoops:
    """The inner loops of a method with slow weights."""
    return InnerLoops(loop_options(plan, plan.fitting_steps(setup))["inner_steps"], setup.budget)


class Turns:
    """Reptile's draws: each task in turn, for a whole trajectory."""

    def __init__(self, num_tasks: int, loops: InnerLoops) -> None:
        self._num_tasks, self._loops, self._task = num_tasks, loops, -1

    def __call__(self, step: int) -> Sequence[int]:
        if self._loops.begins(step):
            self._task = (self._task + 1) % self._num_tasks
        return [self._task]


class Permuted:
    """Each inner loop meets the tasks as often as p says, or each as often as the others (Fish), in random order."""

    def __init__(self, sampler: PermutedSampler | EpochSampler, loops: InnerLoops) -> None:
        self._sampler, self._loops = sampler, loops

    def begins(self, step: int) -> bool:
        """Whether a loop begins with a step that was asked for."""
        return step in self._loops.starts

    def __call__(self, step: int) -> Sequence[int]:
        if self._loops.begins(step):
            self._sampler.begin(self._loops.steps_at(step))
        return self._sampler.draw(1)


def check_turn(draw: Draw | None, loop: TwoLoop | None, step: int, task: int) -> None:
    """Make sure that a step's batches, drawn long before, are those that the optimizer is at.

    Args:
        draw: the tasks of a step, once it was asked for this one.
        loop: the optimizer; None where it has no inner loops.
        step: the one to come.
        task: of its batches.

    Raises:
        UserError: they are not, after a resume that has changed either.
    """
    if isinstance(loop, Reptile) and loop.task != task:
        what = f"reptile: step {step} has a batch of task {task}, and the trajectory is of task {loop.task}"
    elif loop is not None and isinstance(draw, Permuted) and draw.begins(step) != (loop.inner_step == 0):
        what = f"step {step}: an inner loop begins there either in the order of tasks or in the optimizer, not in both"
    else:
        return
    raise UserError(
        f"{what}; resume with the options, batch sizes and max_steps of the checkpoint, saved without save_only_model"
    )
