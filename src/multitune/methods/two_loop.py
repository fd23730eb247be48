"""Slow weights, fast weights, an inner and an outer optimizer: one engine for Sequential Reptile and its relatives.

An inner optimizer walks K steps from the slow weights phi to the fast weights theta^K; an outer optimizer then gets the
pseudo-gradient phi - theta^K, and the next inner loop starts from the new phi. The methods differ in the batches that
the caller feeds to the inner loop:

| Class | Inner loop | Paper |
|---|---|---|
| :class:`SequentialReptile` | one task per step, drawn at random | Lee et al., ICLR 2022, Algorithm 1 |
| :class:`Lookahead` | batches that mix the tasks | Zhang et al., arXiv 1907.08610 |
| :class:`Fish` | one task per step, without replacement | Shi et al., arXiv 2104.09937, Algorithm 1 |
| :class:`Reptile` | a trajectory per task, then their mean | Nichol et al., arXiv 1803.02999 |
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor
from torch.optim import Optimizer

from multitune.methods.optimizer_state import Entries, InGroups, copied
from multitune.methods.schedule import Schedule, inner_steps_at, outer_lr_at
from multitune.methods.slow_weights import precise, require_finite, shards
from multitune.methods.two_loop_state import Groups, OuterOptimizer, TwoLoopState, Weights

InnerState = Literal["carry", "reset"]
FEW = 10
"""Outer steps below which ``finish()`` warns."""


class TwoLoop(TwoLoopState):
    """The engine: it wraps the inner optimizer and takes its place in any loop, scheduler or trainer.

    The slow weights are copied at the first step: weights that are loaded, cast or moved before it count. Only
    parameters of ``optimizer`` that train are copied and touched; frozen ones and buffers (batch norm's statistics) are
    left alone. With the default outer optimizer there is exactly one copy (in fp32 where the parameters have a lower
    precision), and an outer step makes three passes over the weights.

    Args:
        optimizer: the inner optimizer. Its groups are shared, so a learning-rate scheduler may be given either object.
        inner_steps: K, a whole number or a schedule of :attr:`progress` (rounded), read when an inner loop begins.
        outer_lr: eta, above 0 and up to 1, or a schedule of :attr:`progress`, read at each outer step. With eta = 1 and
            the default outer optimizer the steps are those of ``optimizer`` alone, bitwise.
        inner_state: what an outer step does with the inner optimizer's state (moments, step counts): leave it
            (``"carry"``; the paper is silent) or put it back to what it was at construction (``"reset"``).
        outer_optimizer: called as ``outer_optimizer(slow_weights, lr=eta)``; it gets phi - theta^K as gradient, and its
            learning rate is set to eta before each outer step. Default: SGD, phi <- phi - eta (phi - theta^K), Eq. 6.
            ``partial(torch.optim.SGD, momentum=0.9, nesterov=True)`` with eta 0.7 is DiLoCo's, arXiv 2311.08105.
        slow_device: where slow weights and the outer optimizer's state live. Default: beside their parameters.

    Raises:
        ValueError: inner_steps, outer_lr or inner_state out of range.
    """

    _attributes: ClassVar[tuple[str, ...]] = (
        *TwoLoopState._attributes,
        *("_inner_steps", "_outer_lr", "_inner_state"),
    )
    _takes_turns: ClassVar[bool] = False
    """Trajectories have inner states of their own, the first of which are the inner optimizer's at construction."""

    def __init__(
        self,
        optimizer: Optimizer,
        inner_steps: int | Schedule = 1000,
        outer_lr: float | Schedule = 0.1,
        *,
        inner_state: InnerState = "carry",
        outer_optimizer: OuterOptimizer | None = None,
        slow_device: torch.device | str | None = None,
    ) -> None:
        inner_steps_at(inner_steps, 0.0)
        outer_lr_at(outer_lr, 0.0)
        if inner_state not in ("carry", "reset"):
            raise ValueError(f"inner_state={inner_state!r}: choose 'carry' or 'reset'")
        keep_initial = inner_state == "reset" or self._takes_turns
        super().__init__(optimizer, outer_optimizer, slow_device, keep_initial)
        self._inner_steps, self._outer_lr, self._inner_state = inner_steps, outer_lr, inner_state

    @property
    def loop_length(self) -> int:
        """K of the inner loop that the next step continues or begins."""
        return self.current_loop if self.inner_step else inner_steps_at(self._inner_steps, self.progress)

    @property
    def between_loops(self) -> bool:
        """Whether no inner loop is open, so that phi is where the last outer step has put it, and theta = phi."""
        return self.inner_step == 0

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of the inner optimizer, and every K steps an outer step; returns what ``closure`` returns.

        Raises:
            ValueError: the parameters hold the slow weights, or a schedule was not told the progress.
            NonFiniteWeightsError: (a ValueError) an outer step is due, and fast weights are NaN or infinite.
        """
        if self.parameters_hold == "slow":
            raise ValueError(
                "the slow weights are in the model: call train(), which brings the fast ones back, before step()"
            )
        if closure is None and self._is_for_the_state_alone():
            self._make_state()
            return None
        length = self.loop_length
        outer_lr_at(self._outer_lr, self.progress)  # what is wrong with it is said before the step, not after it
        if not self.current_loop:
            self._forget_made_state()
        self._copy_what_trains()
        self.current_loop = length
        loss: float | None = self.inner.step(closure)
        self.inner_step += 1
        if self.inner_step >= length:
            self._end_inner_loop()
        return loss

    def eval(self) -> None:
        """Let the parameters hold phi, the weights to evaluate, keep and ship.

        This and :meth:`train` are the protocol of schedule-free optimizers, which Hugging Face's Trainer and accelerate
        follow. Both may be called at any time and any number of times. The two kinds of weights trade places tensor by
        tensor, so there is no third copy (but of bf16 and fp16 weights).
        """
        self._hold("slow")

    def train(self) -> None:
        """Let the parameters hold theta, the weights to train, again: bitwise, in the middle of an inner loop too."""
        self._hold("fast")

    @contextmanager
    def slow_weights(self) -> Iterator[None]:
        """Within this context the parameters hold phi; afterwards what they held before, also after an exception."""
        before = self.parameters_hold
        self._hold("slow")
        try:
            yield
        finally:
            self._hold(before)

    def close_inner_loop(self) -> None:
        """Close a partial inner loop by an outer step, as at the end of a budget; nothing at the start of a loop.

        Raises:
            NonFiniteWeightsError: (a ValueError) fast weights are NaN or infinite.
        """
        before = self.parameters_hold
        self._hold("fast")
        try:
            self._close()
        finally:
            self._hold(before)

    def finish(self) -> None:
        """End training: close a partial inner loop, so that the parameters hold phi, the weights to ship.

        Warns after fewer than ten outer steps, which may leave phi near where it began.

        Raises:
            NonFiniteWeightsError: (a ValueError) fast weights are NaN or infinite.
        """
        self.close_inner_loop()
        if self.current_loop and self.outer_steps < FEW and self.way_left > 0.0:
            gone = "" if self._outer else f" ({1.0 - self.way_left:.0%} of the way to the fast ones)"
            warnings.warn(
                f"finish() after few outer steps: {self.outer_steps}; the slow weights may not have gone far{gone}: a "
                f"smaller inner_steps or a larger outer_lr takes them further",
                stacklevel=2,
            )

    def _hold(self, weights: Weights) -> None:
        if weights == self.parameters_hold:
            return
        if weights == "slow":
            self._phi.show()
        else:
            self._phi.hide()
        self.parameters_hold = weights

    def _end_inner_loop(self) -> None:
        require_finite(self._phi.copies)
        self._outer_step(list(self._phi.copies))

    def _close(self) -> None:
        if self.inner_step:
            self._end_inner_loop()

    def _outer_step(self, ends: Sequence[Tensor]) -> None:
        """phi <- outer(phi, phi - end); theta <- phi. The values of ``ends``, one for each copy, may be lost."""
        eta = outer_lr_at(self._outer_lr, self.progress)
        if self._outer is None:
            self._phi.follow(ends, eta)
        else:
            self._phi.step(self._outer, ends, eta)
        self._phi.restart()
        self.inner_step, self.outer_steps = 0, self.outer_steps + 1
        self.way_left *= 1.0 - eta
        if self._inner_state == "reset":
            self._set_inner_state(copied(self._initial))


@final
class SequentialReptile(TwoLoop):
    """One trajectory through all tasks: a task at random per inner step, t_k ~ Cat(p), K = 1000, eta = 0.1.

    Lee et al., "Sequential Reptile: Inter-Task Gradient Alignment for Multilingual Learning", ICLR 2022, Algorithm 1.
    On the same sequence of batches it is Lookahead(k = K, alpha = eta).
    """


@final
class Lookahead(TwoLoop):
    """The control with batches that mix the tasks; otherwise the same arithmetic.

    Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back", arXiv 1907.08610, Algorithm 1 (k = inner_steps,
    alpha = outer_lr). The defaults are Sequential Reptile's, whose control it is; the paper has k = 5, alpha = 0.5.
    """


@final
class Fish(TwoLoop):
    """Inner loops that meet the tasks without replacement, as a shuffled epoch of tasks; otherwise the same arithmetic.

    Shi et al., "Gradient Matching for Domain Generalization", arXiv 2104.09937, Algorithm 1, where inner_steps is the
    number of tasks.
    """


@final
class Reptile(TwoLoop):
    """A trajectory of K steps per task from the same phi, then phi <- phi - eta mean_t(phi - theta_t^K).

    Nichol et al., "On First-Order Meta-Learning Algorithms", arXiv 1803.02999; Lee et al., ICLR 2022, Eq. 2 and 3. The
    trajectories run one after the other: :attr:`task` says whose batch the next step needs. Memory: one more copy of
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
        """An outer step with the mean of the trajectories so far, the last of them perhaps shorter."""
        if self.inner_step:
            self._add_to_mean()
        if not self.between_loops:
            self._end_round()

    @torch.no_grad()
    def _add_to_mean(self) -> None:
        """m <- m + (theta - m) / n at the end of the n-th trajectory, the first of which replaces m."""
        require_finite(self._mean)
        means = shards(self._mean.values())
        ends = [shard.to(mean.dtype) for shard, mean in zip(shards(self._mean), means, strict=True)]
        torch._foreach_lerp_(means, ends, 1.0 / (self.task + 1))

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
