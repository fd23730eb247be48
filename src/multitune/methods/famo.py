"""FAMO: Fast Adaptive Multitask Optimization (Liu et al., NeurIPS 2023, arXiv 2306.03792)."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from multitune.errors import UserError
from multitune.methods.base import StreamingMethod

EPSILON = 1e-8


class FAMO(StreamingMethod):
    """FAMO, Algorithm 1: all losses fall at the same rate, at the cost of joint training.

        z = softmax(xi),  w_i = c z_i / L_i  with  c = 1 / sum_i (z_i / L_i)           (so sum_i w_i = 1)
        xi <- xi - lr (J^T delta + weight_decay xi),  delta_i = log L_i(before) - log L_i(after)

    J is the Jacobian of the softmax: J^T delta = z (delta - <z, delta>). L_i stands for L_i - min_loss_i + 1e-8.

    The step on xi needs the losses of the same batches after the optimizer's step: give them to `update`. Otherwise it
    is made with the losses of the tasks' next visit.

    Departures from the paper:
    1. The step on xi is Adam's (betas 0.9, 0.999, weight decay added to the gradient), as in the authors' code.
    2. Without `update`, delta compares different batches, and the step on xi follows that visit instead of preceding
       it, so that gradients can be summed before all the losses are known.
    3. Of T tasks only those of the step are in the softmax.

    State: `logits` xi, Adam's moments and step, and `last_losses` (NaN where there is nothing to compare with).

    Args:
        num_tasks: T.
        lr: of xi.
        weight_decay: gamma (the authors' code has other values, too).
        min_losses: [T], a lower bound of each loss (default: 0).

    Raises:
        ValueError: a value that is out of range.
    """

    reads_losses: ClassVar[bool] = True

    logits: Tensor
    moment1: Tensor
    moment2: Tensor
    steps: Tensor
    last_losses: Tensor
    min_losses: Tensor

    def __init__(
        self,
        num_tasks: int,
        lr: float = 0.025,
        weight_decay: float = 1e-3,
        min_losses: Sequence[float] | None = None,
    ) -> None:
        if num_tasks < 1 or lr < 0 or weight_decay < 0:
            raise ValueError(
                f"FAMO needs num_tasks >= 1, lr and weight_decay >= 0; got {num_tasks}, {lr}, {weight_decay}"
            )
        if min_losses is not None and len(min_losses) != num_tasks:
            raise ValueError(f"min_losses must have {num_tasks} values, one a task; got {len(min_losses)}")
        super().__init__()
        self.num_tasks, self.lr, self.weight_decay = num_tasks, lr, weight_decay
        for name in ("logits", "moment1", "moment2"):
            self.register_buffer(name, torch.zeros(num_tasks, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("last_losses", torch.full((num_tasks,), torch.nan, dtype=torch.float64))
        self.register_buffer("min_losses", torch.tensor(min_losses or [0.0] * num_tasks, dtype=torch.float64))

    def task_weight(self, task: int, loss: Tensor) -> Tensor:
        return self.logits[task].exp() / (loss.double() - self.min_losses[task] + EPSILON)

    def update(self, losses: Tensor | Sequence[float], tasks: Sequence[int] | None = None) -> None:
        """Make the step on xi.

        Args:
            losses: [n], of the same batches as the last `weights`, after the optimizer's step.
            tasks: whose they are (default: all, in order).

        Raises:
            ValueError: losses at or below their minimum, or tasks that `weights` has not seen.
        """
        after = torch.as_tensor(losses).detach().to("cpu", torch.float64)
        indices = torch.tensor(self.task_indices(tasks, len(after)))
        if self.last_losses[indices].isnan().any():
            raise ValueError("FAMO.update compares with the losses that `weights` saw: call it once, after that step")
        self._step(indices, self._above_minimum(indices, after))
        self.last_losses[indices] = torch.nan

    def _weights(self, grams: Tensor, tasks: Tensor, losses: Tensor | None) -> Tensor:
        if losses is None:
            raise ValueError("FAMO needs losses=[n], one a row of gram")
        above = self._above_minimum(tasks, losses)
        weights = self.logits[tasks].softmax(0) / above
        known = [i for i, last in enumerate(self.last_losses[tasks].tolist()) if not math.isnan(last)]
        if known:
            self._step(tasks[known], above[known])
        self.last_losses[tasks] = above
        return (weights / weights.sum()).repeat(len(grams), 1)

    def _step(self, tasks: Tensor, losses: Tensor) -> None:
        delta = self.last_losses[tasks].log() - losses.log()
        z = self.logits[tasks].softmax(0)
        gradient = self.weight_decay * self.logits
        gradient[tasks] += z * (delta - z @ delta)
        self._adam(gradient)

    def _adam(self, gradient: Tensor) -> None:
        self.steps += 1
        self.moment1.lerp_(gradient, 1 - 0.9)
        self.moment2.mul_(0.999).addcmul_(gradient, gradient, value=1 - 0.999)
        step: Any = self.steps.tolist()
        denominator = (self.moment2 / (1 - 0.999**step)).sqrt() + 1e-8
        self.logits -= self.lr * self.moment1 / (1 - 0.9**step) / denominator

    def _above_minimum(self, tasks: Tensor, losses: Tensor) -> Tensor:
        """L_i - min_loss_i + 1e-8, [n]."""
        above = losses - self.min_losses[tasks] + EPSILON
        low = [task for task, value in zip(tasks.tolist(), above.tolist(), strict=True) if not value > 0]
        if low:
            raise UserError(
                f"FAMO takes logarithms: the losses of tasks {low} are not above their minimum (min_losses=)"
            )
        return above
