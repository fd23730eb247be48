"""Joint training, the baseline: the sum of the task gradients."""

from typing import ClassVar

import torch
from torch import Tensor

from multitune.methods.base import StreamingMethod


class Joint(StreamingMethod):
    """Every task has weight 1: d = sum_i g_i, ordinary multi-task learning (MTL)."""

    unweighted: ClassVar[bool] = True

    def task_weight(self, task: int, loss: Tensor) -> float:
        return 1.0

    def _weights(self, grams: Tensor, tasks: Tensor, losses: Tensor | None) -> Tensor:
        return torch.ones(grams.shape[:2], dtype=torch.float64)
