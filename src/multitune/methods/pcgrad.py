"""PCGrad: Gradient Surgery for Multi-Task Learning (Yu et al., NeurIPS 2020, arXiv 2001.06782)."""

import torch
from torch import Tensor

from multitune.methods.base import GramMethod, Seeded, random_order


class PCGrad(Seeded, GramMethod):
    """PCGrad, Algorithm 1: each g_i loses its component along every g_j that it conflicts with.

        g'_i = g_i
        for j != i in random order:  if <g'_i, g_j> < 0:  g'_i -= <g'_i, g_j> / |g_j|^2 g_j
        d = sum_i g'_i

    Every g'_i is compared with the original g_j. The sum is returned, as in the paper (some libraries return the mean).
    All parameter groups of a step share one random order.

    Args:
        seed: of the order of the pairs.
    """

    def _weights(self, grams: Tensor, tasks: Tensor, losses: Tensor | None) -> Tensor:
        return pcgrad(grams, random_order(len(tasks), self.generator))


def pcgrad(gram: Tensor, order: Tensor) -> Tensor:
    """The weights of Algorithm 1, [groups, n].

    The rows of C are the g'_i in terms of the g_j, so that <g'_i, g_j> = (C G)_ij. One g'_i never meets another, so
    step k does all of them at once, each with the k-th task in its own order.

    Args:
        gram: [groups, n, n].
        order: [n, n - 1], see `random_order`.
    """
    groups, n, _ = gram.shape
    i = torch.arange(n)
    squared_norm = gram.diagonal(dim1=1, dim2=2)
    C = torch.eye(n, dtype=gram.dtype).repeat(groups, 1, 1)
    for j in order.T:
        inner = (C @ gram)[:, i, j]
        C[:, i, j] -= torch.where(inner < 0, inner / squared_norm[:, j], 0.0)
    return C.sum(1)
