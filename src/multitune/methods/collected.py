"""What several ranks have collected, each by itself: which tasks they are, and in which order all ranks take them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

from multitune.methods.ranks import Ranks

if TYPE_CHECKING:
    from multitune.methods.steps import Share


@dataclass(frozen=True)
class Collected:
    """A task whose gradient a rank has collected.

    Attributes:
        task: which one.
        rank: whose it is.
        scale: what the gradient was multiplied by.
        has_loss: whether its loss is known.
    """

    task: int
    rank: int
    scale: float
    has_loss: bool


def rounds(ranks: Ranks, shares: "Mapping[int, Share]") -> list[list[Collected]]:
    """The first task of each rank that has one, in the order of the ranks; then the second ones, and so on.

    Where rank r has collected the r-th, the (R + r)-th, ... of some tasks, that is their order. All call together.

    Args:
        ranks: that each have tasks of their own.
        shares: what this rank has collected, by task.

    Raises:
        ValueError: no rank has collected anything, or two ranks the same task; all ranks raise it.
    """
    by_rank = _of_all(ranks, shares)
    every = list(chain.from_iterable(by_rank))
    first: dict[int, int] = {}
    for collected in every:
        other = first.setdefault(collected.task, collected.rank)
        if other != collected.rank:
            raise ValueError(
                f"ranks {other} and {collected.rank} have both collected task {collected.task}: let each task be one "
                f"rank's, or give the Combiner split_batch=True where each rank has a part of every batch"
            )
    return [[each for each in one if each is not None] for one in zip_longest(*by_rank)]


def check_alike(ranks: Ranks, shares: "Mapping[int, Share]") -> None:
    """Make sure that all ranks, which have parts of the same batches, have collected the same. All call together.

    Raises:
        ValueError: they have not; all ranks raise it.
    """
    said: Sequence[list[tuple[int, float, bool]]] = [
        [(each.task, each.scale, each.has_loss) for each in own] for own in _of_all(ranks, shares)
    ]
    for rank, own in enumerate(said):
        if own != said[0]:
            raise ValueError(
                f"rank {rank} has collected tasks {[task for task, *_ in own]} and rank 0 tasks "
                f"{[task for task, *_ in said[0]]}: with split_batch=True each rank collects its part of every task, "
                f"in the same order, with the same scales, and with losses or without"
            )


def _of_all(ranks: Ranks, shares: "Mapping[int, Share]") -> list[list[Collected]]:
    """What each rank has collected.

    Raises:
        ValueError: nothing, on any rank.
    """
    own = [(task, share.scale, share.loss is not None) for task, share in shares.items()]
    told = ranks.pooled({ranks.rank: own})
    if not any(told.values()):
        raise ValueError(NOTHING)
    return [[Collected(task, rank, scale, known) for task, scale, known in told[rank]] for rank in range(ranks.size)]


NOTHING = "nothing to apply: collect(task) comes after the backward pass of each task's loss"
