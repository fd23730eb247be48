"""Reptile: a trajectory of K steps for each task, one after the other, then the slow weights follow their mean."""

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor
from torch.optim import Optimizer

from multitune.methods.optimizer_state import Entries, InGroups, copied
from multitune.methods.schedule import Schedule
from multitune.methods.sharded import shards
from multitune.methods.slow_weights import precise, require_finite
from multitune.methods.two_loop import InnerState, TwoLoop
from multitune.methods.two_loop_state import Groups, OuterOptimizer


@final
class Reptile(TwoLoop):
    """A trajectory of K steps per task from the same phi, then phi <- phi - eta mean_t(phi - theta_t^K).

    Nichol et al., "On First-Order Meta-Learning Algorithms", arXiv 1803.02999; Lee et al., ICLR 2022, Eq. 2 and 3. The
    trajectories run one after the other: :attr:`task` says whose batch the next step needs. Where training ends within
    a round, those that have not begun count as standing at phi. Memory: one more copy of
    the weights than the other methods (the mean of the trajectories), and with ``inner_state="carry"`` one inner
    optimizer state per task; ``"reset"`` starts every trajectory afresh and keeps none.

    ``state[p]`` also has ``"mean"``, of the trajectories' ends so far, and with ``"carry"`` ``"trajectories"``, the
    inner optimizer's entries of the tasks that are not at work.

    Args:
        num_tasks: T. The other arguments are :class:`TwoLoop`'s; an outer step comes every T * inner_steps steps.

    Raises:
        ValueError: num_tasks below 1, and as :class:`TwoLoop`.
    """

    task: InGroups[int] = InGroups(0)
    """Whose batch the next step needs, 0 to T - 1."""
    trajectories_kept: InGroups[int] = InGroups(0)
    """Tasks of whose last trajectory the inner optimizer's entries are kept."""

    _takes_turns: ClassVar[bool] = True
    _our_entries: ClassVar[tuple[str, ...]] = (*TwoLoop._our_entries, "mean", "trajectories")
    _attributes: ClassVar[tuple[str, ...]] = (*TwoLoop._attributes, "_num_tasks", "_mean", "_trajectories")

    def __init__(
        self,
        optimizer: Optimizer,
        inner_steps: int | Schedule = 1000,
        outer_lr: float | Schedule = 0.1,
        *,
        num_tasks: int,
        inner_state: InnerState = "reset",
        outer_optimizer: OuterOptimizer | None = None,
        slow_device: torch.device | str | None = None,
    ) -> None:
        if num_tasks < 1:
            raise ValueError(f"num_tasks={num_tasks}: at least one task is needed")
        super().__init__(
            optimizer,
            inner_steps,
            outer_lr,
            inner_state=inner_state,
            outer_optimizer=outer_optimizer,
            slow_device=slow_device,
        )
        self._num_tasks = num_tasks

    @property
    def between_loops(self) -> bool:
        return self.inner_step == 0 and self.task == 0

    def _end_inner_loop(self) -> None:
        self._add_to_mean()
        if self.task + 1 < self._num_tasks:
            self._begin_trajectory(self.task + 1)
        else:
            self._end_round()

    def _close(self) -> None:
        """An outer step with the mean of all trajectories, of which one may be shorter, and some may stand at phi."""
        if self.between_loops:
            return
        begun = self.task
        if self.inner_step:
            self._add_to_mean()
            begun += 1
        self._add_phi_to_mean(begun)
        self._end_round()

    @torch.no_grad()
    def _add_to_mean(self) -> None:
        """m <- m + (theta - m) / n at the end of the n-th trajectory, the first of which replaces m."""
        require_finite(self._mean)
        means = shards(self._mean.values())
        ends = [shard.to(mean.dtype) for shard, mean in zip(shards(self._mean), means, strict=True)]
        torch._foreach_lerp_(means, ends, 1.0 / (self.task + 1))

    @torch.no_grad()
    def _add_phi_to_mean(self, begun: int) -> None:
        """m <- m + (phi - m) (T - n) / T, where n trajectories have begun: the others are where they would begin."""
        slow = [self._phi.copies[p].to(mean.device, mean.dtype) for p, mean in self._mean.items()]
        torch._foreach_lerp_(shards(self._mean.values()), shards(slow), 1.0 - begun / self._num_tasks)

    def _end_round(self) -> None:
        self._outer_step(list(self._mean.values()))
        self._begin_trajectory(0)

    def _begin_trajectory(self, task: int) -> None:
        if self._inner_state == "carry":
            self._trajectories[self.task] = dict(self.inner.state)
        state = self._trajectories.pop(task, None)
        self._set_inner_state(copied(self._initial) if state is None else state)
        self._phi.restart()
        self.task, self.inner_step = task, 0
        self.trajectories_kept = sum(1 for kept in self._trajectories.values() if kept)

    def _add_copies(self, values: Mapping[Tensor, Tensor]) -> None:
        super()._add_copies(values)
        for p, copy in self._phi.copies.items():
            if p not in self._mean:
                self._mean[p] = copy.to(p.device, precise(p.dtype), copy=True)

    def _drop_copies(self) -> None:
        super()._drop_copies()
        self._mean: dict[Tensor, Tensor] = {}
        self._trajectories: dict[int, Entries] = {}

    def _own_entries(self, parameter: Tensor) -> dict[str, Any]:
        kept = {str(task): entries[parameter] for task, entries in self._trajectories.items() if entries.get(parameter)}
        own = {"mean": self._mean.get(parameter), "trajectories": kept or None}
        return super()._own_entries(parameter) | {name: entry for name, entry in own.items() if entry is not None}

    def _check(self, entries: Entries, groups: Groups) -> None:
        super()._check(entries, groups)
        expected, present = groups[0].get("trajectories_kept", 0), _tasks(entries)
        if len(present) != expected:
            raise ValueError(f"this state has the trajectories of tasks {present}, and needs those of {expected} tasks")

    def _load(self, entries: Entries, groups: Groups) -> None:
        trajectories = {}
        for task in _tasks(entries):
            of_task = {
                p: own["trajectories"][task] for p, own in entries.items() if task in own.get("trajectories", ())
            }
            trajectories[int(task)] = self._as_inner_entries(of_task, groups)
        super()._load(entries, groups)
        self._trajectories = trajectories
        for p, mean in self._mean.items():
            if "mean" in entries[p]:
                mean.copy_(entries[p]["mean"])


def _tasks(entries: Entries) -> list[str]:
    """The tasks of whose trajectories there are entries."""
    return sorted({task for own in entries.values() for task in own.get("trajectories", ())})
