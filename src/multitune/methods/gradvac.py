"""GradVac: Gradient Vaccine (Wang et al., ICLR 2021, arXiv 2010.05874)."""

import torch
from torch import Tensor

from multitune.methods.base import GramMethod, Seeded, random_order

PARALLEL = 1e-12
"""Cosines this near to 1 or -1 are taken for 1 or -1: sqrt(1 - c^2) would be made of rounding errors."""
CANCELLED = 1e-7
"""A g'_i that is a smaller part than this of its terms is zero: projections have left rounding errors only."""
NO_DIRECTION = 1e-15
"""An eigenvalue per task of a Gram matrix of unit vectors that rounding makes of zero."""
LARGEST_TARGET = 1 - 1e-6
"""The correction grows as 1 / sqrt(1 - target^2); tasks that stay parallel bring their target to 1 within rounding."""


class GradVac(Seeded, GramMethod):
    """Gradient Vaccine, Algorithm 1: gradients are corrected that are less similar than they used to be.

        g'_i = g_i
        for j != i in random order:
            c = cos(g'_i, g_j)
            if c < target_ij:
                g'_i += |g'_i| (target_ij sqrt(1 - c^2) - c sqrt(1 - target_ij^2)) / (|g_j| sqrt(1 - target_ij^2)) g_j
            target_ij <- (1 - beta) target_ij + beta c
        d = sum_i g'_i

    c is that before the correction, and target_ij (from 0, not symmetric) moves whether or not there was one.

    Where the paper is silent: the cosine with a zero gradient is 0; the target used in a correction is at most
    1 - 1e-6; all parameter groups of a step share one random order.

    State: `targets` [groups, T, T], float64.

    Args:
        num_tasks: T; a step may have fewer (`tasks=`).
        beta: rate of the targets (0.01 in the authors' code).
        seed: of the order of the pairs.

    Raises:
        ValueError: a value that is out of range.
    """

    targets: Tensor

    def __init__(self, num_tasks: int, beta: float = 0.01, seed: int = 0) -> None:
        if num_tasks < 1 or not 0 <= beta <= 1:
            raise ValueError(f"GradVac needs num_tasks >= 1 and beta from 0 to 1; got {num_tasks} and {beta}")
        super().__init__(seed)
        self.num_tasks, self.beta = num_tasks, beta
        self.register_buffer("targets", torch.zeros(1, num_tasks, num_tasks, dtype=torch.float64))

    def for_groups(self, groups: int) -> None:
        """A target for each pair of tasks and each group, all zero: for Gram matrices of [groups, n, n]."""
        self.targets = self.targets.new_zeros(groups, *self.targets.shape[1:])

    def _weights(self, grams: Tensor, tasks: Tensor, losses: Tensor | None) -> Tensor:
        if len(grams) != len(self.targets):
            raise ValueError(
                f"{len(grams)} groups, but {len(self.targets)} expected: call for_groups({len(grams)}) first"
            )
        pairs = (slice(None), tasks[:, None], tasks)
        order = random_order(len(tasks), self.generator)
        weights, self.targets[pairs] = gradvac(grams, self.targets[pairs], order, self.beta)
        return weights


def gradvac(gram: Tensor, targets: Tensor, order: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """The weights of Algorithm 1, [groups, n], and the new targets, [groups, n, n].

    The rows of C are the g'_i in terms of the g_j, those of A the same in an orthonormal basis of their span: there the
    little that is left of two opposite gradients keeps its digits, which (C G C^T)_ii would lose. One g'_i never meets
    another, so step k does all of them at once, each with the k-th task in its own order.

    Args:
        gram: [groups, n, n].
        targets: [groups, n, n].
        order: [n, n - 1], see `random_order`.
        beta: rate of the targets.
    """
    groups, n, _ = gram.shape
    i = torch.arange(n)
    norm = gram.diagonal(dim1=1, dim2=2).sqrt()
    basis = _coordinates(gram, norm)
    A, C = basis.clone(), torch.eye(n, dtype=gram.dtype).repeat(groups, 1, 1)
    targets = targets.clone()
    for j in order.T:
        g_j, norm_j = basis[:, j], norm[:, j]
        norm_i = _norms(A, C, norm)
        c = _cosine((A * g_j).sum(2), norm_i, norm_j)
        target = targets[:, i, j]
        t = target.clamp(max=LARGEST_TARGET)
        sin_c, sin_t = (1 - c**2).sqrt(), (1 - t**2).sqrt()
        correct = (c < t) & (norm_i > 0) & (norm_j > 0)
        factor = torch.where(correct, norm_i * (t * sin_c - c * sin_t) / (norm_j * sin_t), 0.0)
        A += factor[..., None] * g_j
        C[:, i, j] += factor
        targets[:, i, j] = (1 - beta) * target + beta * c
    return C.sum(1), targets


def _coordinates(gram: Tensor, norm: Tensor) -> Tensor:
    """Vectors with this Gram matrix, [groups, n, n]; directions that hold rounding errors only are left out."""
    scale = torch.where(norm > 0, norm, 1.0)
    values, vectors = torch.linalg.eigh(gram / (scale[:, :, None] * scale[:, None, :]))
    values = torch.where(values > NO_DIRECTION * gram.shape[1], values, 0.0)
    basis: Tensor = norm[:, :, None] * vectors * values.sqrt()[:, None, :]
    return basis


def _norms(A: Tensor, C: Tensor, norm: Tensor) -> Tensor:
    """|g'_i|, [groups, n], zero where the terms of g'_i have cancelled."""
    left, terms = A.norm(dim=2), (C.abs() * norm[:, None]).sum(2)
    return torch.where(left > CANCELLED * terms, left, 0.0)


def _cosine(inner: Tensor, norm_i: Tensor, norm_j: Tensor) -> Tensor:
    product = norm_i * norm_j
    c = torch.where(product > 0, inner / product, 0.0).clamp(-1, 1)
    return torch.where(1 - c.abs() < PARALLEL, c.sign(), c)
