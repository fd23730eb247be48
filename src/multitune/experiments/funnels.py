"""Three tasks in the plane, each a funnel: their losses, gradients and cosines.

Lee et al., "Sequential Reptile", ICLR 2022, section 4.1; docs/synthetic.md has the numbered departures.
"""

from itertools import combinations

import torch
from torch import Tensor

OPTIMA = ((0.0, 10.0), (0.0, 0.0), (10.0, 0.0))
PAIRS = tuple(combinations(range(len(OPTIMA)), 2))
DEPTH, DECAY = 200.0, 0.2
ROUNDING = 0.5
"""The losses' minima are cusps, where the gradient, and every cosine with it, is undefined: they are rounded off."""


def task_losses(points: Tensor, rounding: float = ROUNDING) -> Tensor:
    """L_i(x) = -200 exp(-0.2 d_i), d_i^2 = |x - x_i|^2 + rounding^2. points: [..., 2] -> [..., tasks]."""
    return -DEPTH * torch.exp(-DECAY * _distances(points[..., None, :] - points.new_tensor(OPTIMA), rounding))


def task_gradients(points: Tensor, rounding: float = ROUNDING) -> Tensor:
    """The gradient of each task's loss. points: [..., 2] -> [..., tasks, 2]."""
    return funnel_gradient(points[..., None, :] - points.new_tensor(OPTIMA), rounding)


def funnel_gradient(offsets: Tensor, rounding: float = ROUNDING) -> Tensor:
    """The gradient of a task's loss, by how far points are from its optimum. offsets: [..., 2] -> [..., 2]."""
    distances = _distances(offsets, rounding)
    return (DECAY * DEPTH * torch.exp(-DECAY * distances) / distances)[..., None] * offsets


def _distances(offsets: Tensor, rounding: float) -> Tensor:
    return (offsets.square().sum(-1) + rounding**2).sqrt()


def cosines(points: Tensor) -> Tensor:
    """The cosine similarity of the task gradients of each pair in ``PAIRS``. points: [..., 2] -> [..., pairs]."""
    first, second = zip(*PAIRS, strict=True)
    # A gradient points straight away from its optimum. The offsets do not fade out with the distance as gradients do.
    offsets = points[..., None, :] - points.new_tensor(OPTIMA)
    return torch.cosine_similarity(offsets[..., first, :], offsets[..., second, :], dim=-1)
