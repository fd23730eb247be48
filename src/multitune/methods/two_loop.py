"""Slow weights, fast weights, an inner and an outer optimizer: one engine for Sequential Reptile and its relatives.

An inner optimizer walks K steps from the slow weights phi to the fast weights theta^K; an outer optimizer then gets the
pseudo-gradient phi - theta^K, and the next inner loop starts from the new phi. The methods differ in the batches that
the caller feeds to the inner loop:

| Class | Inner loop | Paper |
|---|---|---|
| :class:`SequentialReptile` | one task per step, drawn at random | Lee et al., ICLR 2022, Algorithm 1 |
| :class:`Lookahead` | batches that mix the tasks | Zhang et al., arXiv 1907.08610 |
| :class:`Fish` | one task per step, without replacement | Shi et al., arXiv 2104.09937, Algorithm 1 |
| ``reptile.Reptile`` | a trajectory per task, then their mean | Nichol et al., arXiv 1803.02999 |
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Literal, final

import torch
from torch import Tensor
from torch.optim import Optimizer

from multitune.methods.optimizer_state import copied
from multitune.methods.ranks import Ranks
from multitune.methods.replicas import find_replicas
from multitune.methods.schedule import Schedule, inner_steps_at, outer_lr_at
from multitune.methods.slow_weights import require_finite
from multitune.methods.two_loop_state import OuterOptimizer, TwoLoopState, Weights
from multitune.methods.walks import Walks

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

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

        trajectories: M walks of K steps from the same phi, which then goes toward their mean. They take turns: each
            ``step()`` is one of :attr:`trajectory`, and the next one then has its turn. Each has weights and an inner
            state of its own. (Reptile has walks of single tasks.)
        process_group: of torch.distributed (or `Ranks` of one), whose R ranks share the trajectories: rank r walks the
            r-th, the (R + r)-th, ... of them. All ranks begin with the same weights, make as many steps, and together
            end their inner loops (one all-reduce), call ``state_dict()``, whose result on rank 0 has all trajectories,
            and load it, after the model's weights. No DistributedDataParallel is around the model.

    Raises:
        ValueError: inner_steps, outer_lr or inner_state out of range; trajectories that cannot be dealt evenly.
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
        trajectories: int = 1,
        process_group: "ProcessGroup | Ranks | None" = None,
    ) -> None:
        inner_steps_at(inner_steps, 0.0)
        outer_lr_at(outer_lr, 0.0)
        if inner_state not in ("carry", "reset"):
            raise ValueError(f"inner_state={inner_state!r}: choose 'carry' or 'reset'")
        keep_initial = inner_state == "reset" or self._takes_turns or trajectories > 1
        ranks = process_group if isinstance(process_group, Ranks) else Ranks(process_group)
        super().__init__(optimizer, outer_optimizer, slow_device, keep_initial, Walks(trajectories, ranks))
        self._inner_steps, self._outer_lr, self._inner_state = inner_steps, outer_lr, inner_state

    @property
    def loop_length(self) -> int:
        """K of the inner loop that the next step continues or begins."""
        return self.current_loop if self.inner_step else inner_steps_at(self._inner_steps, self.progress)

    @property
    def between_loops(self) -> bool:
        """Whether no inner loop is open, so that phi is where the last outer step has put it, and theta = phi."""
        return self.inner_step == 0 and self.trajectory == self._walks.own[0]

    @property
    def trajectories(self) -> int:
        """M."""
        return self._walks.count

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of the inner optimizer, and every K steps an outer step; returns what ``closure`` returns.

        With several trajectories, one step of that whose turn it is, and an outer step after K steps of each.

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
        if self.inner_step in (0, length - 1):
            outer_lr_at(self._outer_lr, self.progress)  # what is wrong with it is said before the step, not after it
        self._continue_loop(length)
        loss: float | None = self.inner.step(closure)
        self._end_turn()
        return loss

    def pass_turn(self) -> None:
        """Let the trajectory whose turn it is stand still for a step, as where its loss is not finite.

        Raises:
            ValueError, NonFiniteWeightsError: as ``step()``.
        """
        if self.parameters_hold == "slow":
            raise ValueError("the slow weights are in the model: call train() before pass_turn()")
        self._continue_loop(self.loop_length)
        self._end_turn()

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

    def _continue_loop(self, length: int) -> None:
        """Go on with an inner loop of so many steps, or begin it; the very first copies the weights."""
        if not self.current_loop:
            self._forget_made_state()
            self._check_replicas()
        self._copy_what_trains()
        self.current_loop = length

    def _end_turn(self) -> None:
        """Count a step; the next of this rank's trajectories has its turn, and after K turns the inner loop ends."""
        if len(self._walks.own) > 1:
            self._turn_to(self._walks.after(self.trajectory))
        if self.trajectory == self._walks.own[0]:
            self.inner_step += 1
            if self.inner_step >= self.current_loop:
                self._end_inner_loop()

    def _turn_to(self, trajectory: int) -> None:
        self._walks.leave(self.trajectory, list(self._phi.copies), dict(self.inner.state))
        self._phi.restart(self._walks.at_phi(trajectory, self._phi.copies))
        entries = self._walks.enter(trajectory)
        self._set_inner_state(copied(self._initial) if entries is None else entries)
        self.trajectory = trajectory

    def _end_inner_loop(self) -> None:
        ends = list(self._phi.copies) if self.trajectories == 1 else self._walks.mean(self.trajectory, self._phi.copies)
        require_finite(ends)
        self._outer_step(ends)

    def _close(self) -> None:
        if not self.between_loops:
            self._end_inner_loop()

    def _outer_step(self, ends: Sequence[Tensor]) -> None:
        """phi <- outer(phi, phi - end); theta <- phi. The values of ``ends``, one for each copy, may be lost."""
        eta = outer_lr_at(self._outer_lr, self.progress)
        if self._outer is None:
            self._phi.follow(ends, eta)
        else:
            self._phi.step(self._outer, ends, eta)
        self._walks.to_phi(keep_state=self._inner_state == "carry")
        if self.trajectory != (first := self._walks.own[0]):  # closed in the middle of a turn
            self._turn_to(first)
            self._walks.to_phi(keep_state=True)
        self._phi.restart()
        self.inner_step, self.outer_steps = 0, self.outer_steps + 1
        self.way_left *= 1.0 - eta
        if self._inner_state == "reset":
            self._walks.waiting.clear()
            self._set_inner_state(copied(self._initial))

    def _check_replicas(self) -> None:
        if self._walks.ranks.size > 1 and find_replicas(self._parameters()) is not None:
            raise ValueError(
                "DistributedDataParallel would average the gradients of the ranks' trajectories, so that steps mix "
                "their tasks: give process_group= a model that is not wrapped"
            )


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
