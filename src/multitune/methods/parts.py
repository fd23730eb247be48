"""Batches of which each rank has a part: gradients and losses that add up over the ranks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from multitune.methods.collected import check_alike
from multitune.methods.heads import Heads
from multitune.methods.ranks import Ranks
from multitune.methods.rows import Rows
from multitune.methods.sharded import is_sharded

if TYPE_CHECKING:
    from multitune.methods.steps import Step


class Parts:
    """The ranks that share each batch.

    Args:
        ranks: that have a part each.
        rows: of the shared parameters.
        heads: the parameters that one task alone uses.
    """

    def __init__(self, ranks: Ranks, rows: Rows, heads: Heads) -> None:
        self._ranks, self._rows, self._heads = ranks, rows, heads

    def make_whole(self, task: int, row: int, loss: Tensor) -> Tensor:
        """Sum up a task's gradient, in its row and of the heads, and its loss, which is returned."""
        self._ranks.sum(self._rows.row(row))
        (total,) = self._of_task(task, [loss])
        return total.to(loss.device, loss.dtype)

    def make_step_whole(self, step: "Step") -> None:
        """Sum up what the ranks have collected in a step. All ranks call together.

        Raises:
            ValueError: they have not collected the same, or nothing; all ranks raise it.
        """
        check_alike(self._ranks, step.shares)
        step.sum_over(self._ranks)
        for task, share in step.shares.items():
            totals = self._of_task(task, [] if share.loss is None else [share.loss])
            if share.loss is not None:
                share.loss = totals[0].to(share.loss.device, share.loss.dtype)

    def _of_task(self, task: int, numbers: list[Tensor]) -> list[Tensor]:
        """The sums of some numbers, on the CPU; the heads' gradients of a task are summed.

        A parameter that a part of the batch has reached has been reached: the ranks would drift apart otherwise.
        """
        rows, heads, device = self._rows, self._heads, self._rows.device
        flags = torch.tensor([*rows.reached, *heads.has(task)], dtype=torch.float64).to(device)
        reached, *sums = self._ranks.sums_on_host([flags, *numbers])
        anywhere = reached.bool().tolist()
        rows.reached = anywhere[: len(rows.reached)]
        heads.sum_over(self._ranks, task, anywhere[len(rows.reached) :])
        return sums


def sum_gradients(ranks: Ranks, parameters: Sequence[Tensor]) -> None:
    """Put the sums over the ranks in the places of parameters' gradients; sharded ones are summed up already.

    A parameter that a part of the batch has reached has a gradient on all ranks: they would drift apart otherwise.
    """
    whole = [parameter for parameter in parameters if not is_sharded(parameter)]
    if not whole:
        return
    flags = torch.tensor([parameter.grad is not None for parameter in whole], dtype=torch.float64)
    (reached,) = ranks.sums_on_host([flags.to(whole[0].device, non_blocking=True)])
    gradients = []
    for parameter, reaching in zip(whole, reached.tolist(), strict=True):
        if reaching and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if parameter.grad is not None:
            gradients.append(parameter.grad)
    ranks.sum_together(gradients)
