"""A step's losses in the forms that a Combiner takes them, one scalar at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor

Loss = Tensor | Callable[[], Any] | Iterable[Any]
"""A task's loss: a scalar, a function that returns it, or several whose sum it is (micro-batches)."""


def numbered(losses: Iterable[Loss], tasks: Sequence[int]) -> Iterator[tuple[int, Loss]]:
    """Each loss with its task, one at a time.

    Raises:
        ValueError: more or fewer losses than tasks.
    """
    remaining = iter(losses)
    for task in tasks:
        try:
            loss = next(remaining)
        except StopIteration:
            raise ValueError(f"fewer losses than the {len(tasks)} tasks") from None
        yield task, loss
    if next(remaining, None) is not None:
        raise ValueError(f"more losses than the {len(tasks)} tasks")


def scalars(loss: Loss) -> Iterator[Tensor]:
    """The scalars whose sum is the loss, one at a time."""
    if isinstance(loss, Tensor):
        yield loss
    elif callable(loss):
        yield from scalars(loss())
    else:
        for part in loss:
            yield from scalars(part)


def graphs_needed_again(losses: Iterable[Loss]) -> set[int]:
    """The ids of those losses whose graph is, in part, that of a later one.

    Losses in lists exist already, and can share a graph; what a generator or a function will make is not looked at.
    """
    needed: set[int] = set()
    later: set[Any] = set()
    for loss in reversed(list(_existing(losses))):
        nodes = _graph(loss)
        if not nodes.isdisjoint(later):
            needed.add(id(loss))
        later |= nodes
    return needed


def _graph(loss: Tensor) -> set[Any]:
    """The nodes that backward() passes, but for those of the parameters, in which all graphs end."""
    nodes, waiting = set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in nodes and type(node).__name__ != "AccumulateGrad":
            nodes.add(node)
            waiting.extend(parent for parent, _ in node.next_functions)
    return nodes


def _existing(losses: Iterable[Loss]) -> Iterator[Tensor]:
    if isinstance(losses, Tensor):
        yield losses
    elif isinstance(losses, Sequence):
        for loss in losses:
            yield from _existing(loss)
