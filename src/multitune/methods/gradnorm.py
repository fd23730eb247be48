"""GradNorm: gradient normalization for adaptive loss balancing (Chen et al., ICML 2018, arXiv 1711.02257)."""

from typing import ClassVar

import torch
from torch import Tensor

from multitune.errors import UserError
from multitune.methods.base import StreamingMethod

SMALLEST_WEIGHT = 1e-3


class GradNorm(StreamingMethod):
    """GradNorm, Algorithm 1: task weights w_i are learnt so that gradient norms go with training rates.

        G_i = w_i |grad_W L_i|,  r_i = (L_i / L_i(0)) / mean_j (L_j / L_j(0)),  target_i = mean_j(G_j) r_i^alpha
        w_i <- w_i - lr d/dw_i sum_j |G_j - target_j|,  then scaled so that sum_i w_i = T

    The targets are held constant in the derivative, which is then sign(G_i - target_i) |grad_W L_i|: no second backward
    pass. |grad_W L_i| is the root of the Gram matrix's diagonal. The step itself uses the weights from before the
    update, as in the paper.

    Departures from the paper:
    1. W is the last shared layer there; here it is what the Gram matrix was taken over, for `multitune.Combiner` the
       whole shared model unless it is told the layer (`last_shared=`).
    2. Of T tasks only those of the step are compared and updated; L_i(0) is the loss at task i's own first visit.
    3. A loss of zero has no ratio to itself: L_i(0) is the first loss above zero, and L_i / L_i(0) is 1 until then.
    4. A plain step can overshoot to a negative weight, which would ascend that task's loss: weights are kept at 0.001
       or more before they are scaled.

    State: `task_weights` and `initial_losses` (NaN before a task's first loss above zero), [T], float64.

    Args:
        num_tasks: T.
        alpha: asymmetry; 0 makes all norms equal.
        lr: of the weights.

    Raises:
        ValueError: a value that is out of range.
    """

    reads_losses: ClassVar[bool] = True
    reads_norms: ClassVar[bool] = True

    task_weights: Tensor
    initial_losses: Tensor

    def __init__(self, num_tasks: int, alpha: float = 1.5, lr: float = 0.025) -> None:
        if num_tasks < 1 or lr < 0:
            raise ValueError(f"GradNorm needs num_tasks >= 1 and lr >= 0; got {num_tasks} and {lr}")
        super().__init__()
        self.num_tasks, self.alpha, self.lr = num_tasks, alpha, lr
        self.register_buffer("task_weights", torch.ones(num_tasks, dtype=torch.float64))
        self.register_buffer("initial_losses", torch.full((num_tasks,), torch.nan, dtype=torch.float64))

    def task_weight(self, task: int, loss: Tensor) -> float:
        weights: list[float] = self.task_weights.tolist()
        return weights[task]

    def _weights(self, grams: Tensor, tasks: Tensor, losses: Tensor | None) -> Tensor:
        if losses is None or len(grams) != 1:
            raise ValueError("GradNorm needs losses=[n] and one Gram matrix: it has one weight a task, not one a group")
        before = self.task_weights[tasks]
        norms = grams[0].diagonal().sqrt()
        gradient = weight_gradient(before, norms, self._training_rates(tasks, losses), self.alpha)
        self.task_weights[tasks] = (before - self.lr * gradient).clamp(min=SMALLEST_WEIGHT)
        self.task_weights *= len(self.task_weights) / self.task_weights.sum()
        return before[None]

    def _training_rates(self, tasks: Tensor, losses: Tensor) -> Tensor:
        """Ltilde_i = L_i / L_i(0), [n]; a task's first loss above zero is remembered."""
        if min(losses.tolist()) < 0:
            raise UserError(f"GradNorm compares ratios of losses, which must not be negative; got {losses.tolist()}")
        first = self.initial_losses[tasks]
        first = torch.where(first.isnan() & (losses > 0), losses, first)
        self.initial_losses[tasks] = first
        return torch.where(first.isnan(), 1.0, losses / first)


def weight_gradient(weights: Tensor, norms: Tensor, rates: Tensor, alpha: float) -> Tensor:
    """d/dw_i sum_j |G_j - target_j| with constant targets, [n].

    Args:
        weights: w, [n].
        norms: |grad_W L_i|, [n].
        rates: Ltilde_i, [n].
        alpha: asymmetry.
    """
    G = weights * norms
    r = torch.where(rates.any(), rates / rates.mean(), 1.0)
    return (G - G.mean() * r**alpha).sign() * norms
