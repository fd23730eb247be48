"""The combining methods as their papers' pseudo-code has them: slow loops over full gradient vectors in float64.

Conventions where the papers divide by zero are those of the docstrings in multitune.methods.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def pcgrad(gradients: Tensor, order: Sequence[Sequence[int]]) -> Tensor:
    """Yu et al. 2020, Algorithm 1. gradients: [T, P]; order[i]: the j != i as they come. Returns the sum, [P]."""
    total = torch.zeros_like(gradients[0])
    for i, gradient in enumerate(gradients):
        modified = gradient.clone()
        for j in order[i]:
            inner = modified @ gradients[j]
            if inner < 0:
                modified = modified - inner / gradients[j].norm() ** 2 * gradients[j]
        total = total + modified
    return total


def gradvac(gradients: Tensor, targets: list[list[float]], order: Sequence[Sequence[int]], beta: float) -> Tensor:
    """Wang et al. 2021, Algorithm 1. gradients: [T, P]. Changes targets[i][j] in place; returns the sum, [P]."""
    total = torch.zeros_like(gradients[0])
    for i, gradient in enumerate(gradients):
        modified, parts = gradient.clone(), float(gradient.norm())
        for j in order[i]:
            norm_i, norm_j = float(modified.norm()), float(gradients[j].norm())
            if norm_i <= 1e-7 * parts:
                norm_i = 0.0
            cosine = _cosine(float(modified @ gradients[j]), norm_i * norm_j)
            target = min(targets[i][j], 1 - 1e-6)
            if cosine < target and norm_i > 0 and norm_j > 0:
                sine, target_sine = math.sqrt(1 - cosine**2), math.sqrt(1 - target**2)
                factor = norm_i * (target * sine - cosine * target_sine) / (norm_j * target_sine)
                modified = modified + factor * gradients[j]
                parts += abs(factor) * norm_j
            targets[i][j] = (1 - beta) * targets[i][j] + beta * cosine
        total = total + modified
    return total


def _cosine(inner: float, norms: float) -> float:
    cosine = max(-1.0, min(1.0, inner / norms)) if norms > 0 else 0.0
    return math.copysign(1.0, cosine) if 1 - abs(cosine) < 1e-12 else cosine


class GradNorm:
    """Chen et al. 2018, Algorithm 1, with every task in every step."""

    def __init__(self, num_tasks: int, alpha: float, lr: float) -> None:
        self.weights = [1.0] * num_tasks
        self.first: list[float] | None = None
        self.alpha, self.lr = alpha, lr

    def direction(self, gradients: Tensor, losses: Sequence[float]) -> Tensor:
        """The weighted sum of this step, [P]; the weights are then those of the next."""
        self.first = self.first or list(losses)
        total = torch.zeros_like(gradients[0])
        for weight, gradient in zip(self.weights, gradients, strict=True):
            total = total + weight * gradient
        norms = [float(gradient.norm()) for gradient in gradients]
        G = [weight * norm for weight, norm in zip(self.weights, norms, strict=True)]
        ratios = [loss / first for loss, first in zip(losses, self.first, strict=True)]
        for i, (norm, ratio) in enumerate(zip(norms, ratios, strict=True)):
            rate = ratio / (sum(ratios) / len(ratios))
            target = sum(G) / len(G) * rate**self.alpha
            sign = (G[i] > target) - (G[i] < target)
            self.weights[i] = max(self.weights[i] - self.lr * sign * norm, 1e-3)
        whole = sum(self.weights)
        self.weights = [weight * len(G) / whole for weight in self.weights]
        return total
