"""The gradients of parameters that one task alone uses: kept by task until the tasks' weights are known."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from multitune.methods.ranks import Ranks
from multitune.methods.rows import Gradients
from multitune.methods.sharded import shards


class Heads:
    """The parameters that are left out of the combination, and their gradients of the current step.

    Args:
        parameters: the heads'.
        ranks: that share each step's tasks, if any do.

    Attributes:
        parameters: the heads'.
        reached: which of them have had a gradient in this step, on any rank once the ranks have told each other.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], ranks: Ranks | None = None) -> None:
        self.parameters, self._ranks = list(parameters), ranks
        self.reached = [False] * len(self.parameters)
        self._kept: list[dict[int, Tensor]] = [{} for _ in self.parameters]

    @torch.no_grad()
    def absorb(self, task: int, row: Tensor, *, scale: float = 1.0) -> None:
        """Move `.grad`, times ``scale``, to what is kept of a task.

        Where a gradient is not finite, the task's ``row``, [width], is made so, too: methods look at rows alone.
        """
        for kept, parameter in zip(self._kept, self.parameters, strict=True):
            gradient, parameter.grad = parameter.grad, None
            if gradient is not None:
                gradient = gradient * scale
                kept[task] = kept[task].add_(gradient) if task in kept else gradient
                for shard in shards([gradient]):
                    if shard.numel():
                        row[0] += 0.0 * shard.abs().amax()
        self.reached = [old or bool(kept) for old, kept in zip(self.reached, self._kept, strict=True)]

    def has(self, task: int) -> list[bool]:
        """Which of the parameters have a gradient of a task."""
        return [task in kept for kept in self._kept]

    def sum_over(self, parts: Ranks, task: int, reached: Sequence[bool]) -> None:
        """Make a task's gradients the sums of those of ranks that had a part of its batch.

        Args:
            parts: those ranks.
            task: whose gradients.
            reached: which of the parameters have one on any rank.
        """
        mine = [(kept, head) for kept, head, is_in in zip(self._kept, self.parameters, reached, strict=True) if is_in]
        parts.sum_together([kept.setdefault(task, torch.zeros_like(head)) for kept, head in mine])

    def set_aside(self) -> Gradients:
        """Take what is in `.grad` away, to be given back."""
        gradients: Gradients = [parameter.grad for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        return gradients

    def put_back(self, gradients: Gradients) -> None:
        """Let `.grad` be ``gradients``, and keep nothing of any task."""
        self._kept, self.reached = [{} for _ in self.parameters], [False] * len(self.parameters)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient

    @torch.no_grad()
    def leave(self, others: Gradients, weights: Mapping[int, float], divisor: int) -> None:
        """Leave sum_i w_i g_i / ``divisor`` in `.grad`, and ``others`` added to it.

        Args:
            others: one a parameter.
            weights: of each task; one that is not there counts 1.
            divisor: the number of tasks, or 1 for a sum.
        """
        sums = [_weighted_sum(kept, weights) for kept in self._kept]
        if self._ranks is not None:
            sums = [self._of_all(self._ranks, i, total) for i, total in enumerate(sums)]
        for i, total in enumerate(sums):
            if total is not None and divisor != 1:
                total /= divisor
            other = others[i]
            if total is not None and other is not None:
                total += other
            sums[i] = other if total is None else total
        self.put_back(sums)

    def _of_all(self, ranks: Ranks, i: int, own: Tensor | None) -> Tensor | None:
        """The sum of the ranks' gradients of a parameter; one rank alone has any, as a rule."""
        if not self.reached[i]:
            return own
        total = torch.zeros_like(self.parameters[i]) if own is None else own
        ranks.sum(total)
        return total


def _weighted_sum(kept: Mapping[int, Tensor], weights: Mapping[int, float]) -> Tensor | None:
    total = None
    for task, gradient in kept.items():
        if task in weights:
            gradient *= weights[task]
        total = gradient if total is None else total.add_(gradient)
    return total
