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

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Literal, Protocol, final

import torch
from torch import Tensor
from torch.optim import Optimizer

from multitune.methods.optimizer_state import load_plain, to_plain
from multitune.methods.schedule import Schedule, value_at

InnerState = Literal["carry", "reset"]
_State = dict[Tensor, Any]


class OuterOptimizer(Protocol):
    """Makes the outer optimizer: ``torch.optim.SGD``, or ``functools.partial(SGD, momentum=0.9, nesterov=True)``."""

    def __call__(self, params: list[Tensor], /, *, lr: float) -> Optimizer:
        """An optimizer over ``params``, the slow weights."""


class TwoLoop(Optimizer):
    """The engine: it wraps the inner optimizer and takes its place in any loop, scheduler or trainer.

    Only the parameters of ``optimizer`` are touched; buffers (batch norm's statistics) are left alone. With the default
    outer optimizer there is exactly one more copy of these parameters, and an outer step makes two passes over them.

    Args:
        optimizer: the inner optimizer. Its groups are shared, so a learning-rate scheduler may be given either object.
        inner_steps: K, a number or a schedule of :attr:`progress` (rounded), read when an inner loop begins.
        outer_lr: eta, a number or a schedule of :attr:`progress`, read at each outer step. With eta = 1 and the
            default outer optimizer the steps are those of ``optimizer`` alone, bitwise.
        inner_state: what an outer step does with the inner optimizer's state (moments, step counts): leave it
            (``"carry"``; the paper is silent) or put it back to what it was at construction (``"reset"``).
        outer_optimizer: called as ``outer_optimizer(slow_weights, lr=eta)``; it gets phi - theta^K as gradient, and its
            learning rate is set to eta before each outer step. Default: SGD, phi <- phi - eta (phi - theta^K), Eq. 6.
            ``partial(torch.optim.SGD, momentum=0.9, nesterov=True)`` with eta 0.7 is DiLoCo's, arXiv 2311.08105.
        slow_device: where slow weights and the outer optimizer's state live. Default: beside their parameters.

    Raises:
        ValueError: inner_steps below 1, a negative outer_lr, an unknown inner_state.
    """

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
        if inner_state not in ("carry", "reset"):
            raise ValueError(f"inner_state={inner_state!r}: choose 'carry' or 'reset'")
        super().__init__(optimizer.param_groups, optimizer.defaults)
        self.inner = optimizer
        self.progress: float | None = None
        """Share of the training that is done, 0 to 1: the caller sets it where a schedule reads it."""
        self.inner_step = 0
        """Steps done since the current inner loop (of Reptile: trajectory) began."""
        self.outer_steps = 0
        """Outer steps done."""
        self._inner_steps, self._outer_lr, self._inner_state = inner_steps, outer_lr, inner_state
        self._fast: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
        self._slow = [p.detach().to(slow_device or p.device, copy=True) for p in self._fast]
        # Some optimizers (Adagrad, RecAdam) have state before their first step: clearing it would be no reset.
        self._initial_state: _State = _copied(optimizer.state) if inner_state == "reset" else {}
        self._loop_length = self._inner_steps_at(0.0)
        eta = self._outer_lr_at(0.0)
        self._outer = outer_optimizer(self._slow, lr=eta) if outer_optimizer else None
        self._shows_slow_weights = False
        self._share_groups()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of the inner optimizer, and every K steps an outer step; returns what ``closure`` returns.

        Raises:
            ValueError: parameters were added to the optimizer, a schedule was not told the progress, or the slow
                weights are in the model.
        """
        self._require_fast_weights()
        self._share_groups()
        if self.inner_step == 0:
            self._loop_length = self._inner_steps_at(self.progress)
        loss: float | None = self.inner.step(closure)
        self.inner_step += 1
        if self.inner_step == self._loop_length:
            self._end_inner_loop()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """The inner optimizer's ``zero_grad``."""
        self.inner.zero_grad(set_to_none)

    def finish(self) -> None:
        """Close a partial inner loop by an outer step, as at the end of a budget; nothing at the start of a loop."""
        self._require_fast_weights()
        if self.inner_step:
            self._outer_step()

    @contextmanager
    def slow_weights(self) -> Iterator[None]:
        """Within this context the model has the slow weights phi, those to evaluate and to keep.

        The fast weights come back bitwise, also after an exception and in the middle of an inner loop. The two copies
        trade places tensor by tensor, so there is no third one.

        Raises:
            ValueError: the slow weights are in the model already.
        """
        self._require_fast_weights()
        self._swap_weights()
        self._shows_slow_weights = True
        try:
            yield
        finally:
            self._swap_weights()
            self._shows_slow_weights = False

    def state_dict(self) -> dict[str, Any]:
        """All that a resume needs besides the model's own (fast) weights, in the middle of an inner loop too.

        Dictionaries with string keys, lists, strings, numbers, None and tensors, fit for safetensors and JSON. As with
        any optimizer of torch, the tensors are the live ones.

        Raises:
            ValueError: the slow weights are in the model.
        """
        self._require_fast_weights()
        return {
            "inner": to_plain(self.inner.state_dict()),
            "initial": self._packed(self._initial_state),
            "outer": to_plain(self._outer.state_dict()) if self._outer else None,
            "slow": list(self._slow),
            "inner_step": self.inner_step,
            "loop_length": self._loop_length,
            "outer_steps": self.outer_steps,
            "progress": self.progress,
        }

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was taken; load the model's own weights as well, before or after.

        Raises:
            ValueError: the state belongs to other parameters or another kind of outer optimizer.
        """
        self._require_fast_weights()
        if [p.shape for p in state_dict["slow"]] != [p.shape for p in self._slow]:
            raise ValueError("this state belongs to other parameters: build model and optimizer as when it was saved")
        if (state_dict["outer"] is None) != (self._outer is None):
            raise ValueError("this state was saved with another outer_optimizer: give the same one")
        self._initial_state = self._unpacked(state_dict["initial"], state_dict)
        load_plain(self.inner, state_dict["inner"])
        if self._outer:
            load_plain(self._outer, state_dict["outer"])
        torch._foreach_copy_(self._slow, list(state_dict["slow"]))
        self.inner_step, self.outer_steps = state_dict["inner_step"], state_dict["outer_steps"]
        self._loop_length, self.progress = state_dict["loop_length"], state_dict["progress"]
        self._share_groups()

    def _end_inner_loop(self) -> None:
        self._outer_step()

    @torch.no_grad()
    def _outer_step(self) -> None:
        """phi <- outer(phi, phi - theta); theta <- phi."""
        eta = self._outer_lr_at(self.progress)
        fast = [p.detach().to(s.device) for p, s in zip(self._fast, self._slow, strict=True)]
        if self._outer is None:
            # The interpolation is exact at eta = 1, where phi - 1 (phi - theta) would round.
            torch._foreach_lerp_(self._slow, fast, eta)
        else:
            self._outer_optimizer_step(self._outer, fast, eta)
        torch._foreach_copy_(self._fast, self._slow)
        self.inner_step = 0
        self.outer_steps += 1
        if self._inner_state == "reset":
            self._set_inner_state(_copied(self._initial_state))

    def _outer_optimizer_step(self, outer: Optimizer, fast: list[Tensor], eta: float) -> None:
        # theta is about to be overwritten by phi, so its storage can hold the pseudo-gradient: no third copy.
        torch._foreach_neg_(fast)
        torch._foreach_add_(fast, self._slow)
        for slow, pseudo_gradient in zip(self._slow, fast, strict=True):
            slow.grad = pseudo_gradient
        for group in outer.param_groups:
            group["lr"] = eta
        outer.step()
        outer.zero_grad()

    @torch.no_grad()
    def _swap_weights(self) -> None:
        for fast, slow in zip(self._fast, self._slow, strict=True):
            held = fast.detach().clone()
            fast.copy_(slow)
            slow.copy_(held)

    def _share_groups(self) -> None:
        # The inner optimizer's load_state_dict replaces both, so once at construction is not enough.
        self.param_groups, self.state = self.inner.param_groups, self.inner.state
        if sum(len(group["params"]) for group in self.param_groups) != len(self._fast):
            raise ValueError("parameters were added to the optimizer: make a new one and wrap that")

    def _require_fast_weights(self) -> None:
        if self._shows_slow_weights:
            raise ValueError("the slow weights are in the model: leave `with slow_weights()` first")

    def _inner_steps_at(self, progress: float | None) -> int:
        steps = round(value_at(self._inner_steps, progress))
        if steps < 1:
            raise ValueError(f"inner_steps={steps}: at least one inner step is needed")
        return steps

    def _outer_lr_at(self, progress: float | None) -> float:
        eta = value_at(self._outer_lr, progress)
        if not eta >= 0.0:
            raise ValueError(f"outer_lr={eta}: choose 0 or more (the paper: 0.1)")
        return eta

    def _set_inner_state(self, state: _State) -> None:
        self.inner.state.clear()
        self.inner.state.update(state)

    def _packed(self, state: Mapping[Tensor, Any]) -> dict[str, Any]:
        return {str(i): to_plain(state[p]) for i, p in enumerate(self._fast) if p in state}

    def _unpacked(self, packed: Mapping[str, Any], state_dict: Mapping[str, Any]) -> _State:
        """The reverse, through the inner optimizer, which knows on which device each entry belongs."""
        load_plain(self.inner, {"state": packed, "param_groups": state_dict["inner"]["param_groups"]})
        return dict(self.inner.state)


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

    Args:
        num_tasks: T. The other arguments are :class:`TwoLoop`'s; an outer step comes every T * inner_steps steps.

    Raises:
        ValueError: num_tasks below 1, and as :class:`TwoLoop`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        inner_steps: int | Schedule = 1000,
        outer_lr: float | Schedule = 0.1,
        *,
        num_tasks: int,
        inner_state: InnerState = "carry",
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
        self.task = 0
        """Whose batch the next step needs, 0 to T - 1."""
        self._num_tasks = num_tasks
        self._initial_state = _copied(optimizer.state)
        self._mean: list[Tensor] = []
        self._states: dict[int, _State] = {}

    def finish(self) -> None:
        """An outer step with the mean of the trajectories so far, the last of them perhaps shorter."""
        self._require_fast_weights()
        if self.inner_step:
            self._add_to_mean()
        if self._mean:
            self._end_round()

    def state_dict(self) -> dict[str, Any]:
        trajectories = {str(task): self._packed(state) for task, state in self._states.items()}
        own = {"task": self.task, "mean": list(self._mean), "trajectories": trajectories}
        return super().state_dict() | own

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        trajectories = state_dict["trajectories"].items()
        self._states = {int(task): self._unpacked(state, state_dict) for task, state in trajectories}
        self._mean = [m.to(p.device, copy=True) for m, p in zip(state_dict["mean"], self._fast, strict=False)]
        self.task = state_dict["task"]
        super().load_state_dict(state_dict)

    def _end_inner_loop(self) -> None:
        self._add_to_mean()
        if self.task + 1 < self._num_tasks:
            self._begin_trajectory(self.task + 1)
        else:
            self._end_round()

    @torch.no_grad()
    def _add_to_mean(self) -> None:
        if self._mean:
            torch._foreach_lerp_(self._mean, self._fast, 1.0 / (self.task + 1))
        else:
            self._mean = [p.detach().clone() for p in self._fast]

    @torch.no_grad()
    def _end_round(self) -> None:
        torch._foreach_copy_(self._fast, self._mean)
        self._mean = []
        self._outer_step()
        self._begin_trajectory(0)

    @torch.no_grad()
    def _begin_trajectory(self, task: int) -> None:
        if self._inner_state == "carry":
            self._states[self.task] = dict(self.inner.state)
        state = self._states.pop(task, None)
        self._set_inner_state(_copied(self._initial_state) if state is None else state)
        torch._foreach_copy_(self._fast, self._slow)
        self.task, self.inner_step = task, 0


def _copied(state: Mapping[Tensor, Any]) -> _State:
    return {parameter: deepcopy(entries) for parameter, entries in state.items()}
