"""Copies of a model on several ranks: whether the gradients that a Combiner gets have been averaged over them."""

import gc
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


class Replicas:
    """The ranks of a DistributedDataParallel module, each with a batch of its own.

    Each backward pass averages one task's gradient over the ranks, so that all of them combine the same gradients.
    Losses are not averaged by it.
    """

    def __init__(self, module: DistributedDataParallel) -> None:
        self._module = module
        self._averaged = bool(module.require_backward_grad_sync)
        module.register_forward_pre_hook(self._note)

    def _note(self, module: nn.Module, inputs: Any) -> None:
        del inputs  # what decides is whether the forward pass was under no_sync()
        if torch.is_grad_enabled():
            self._averaged = bool(module.require_backward_grad_sync)

    def check(self, task: int) -> None:
        """Make sure that the newest gradient is the ranks' mean.

        Raises:
            ValueError: the last forward pass was under no_sync().
        """
        if not self._averaged:
            raise ValueError(
                f"the gradient of task {task} was made under no_sync() and differs from rank to rank, and so would the "
                "combined one: let the last forward and backward pass of each task be outside of no_sync()"
            )

    def mean(self, losses: Tensor) -> Tensor:
        """The mean over the ranks, with which they all decide alike."""
        group = self._module.process_group
        total = losses.clone()
        distributed.all_reduce(total, group=group)
        return total / distributed.get_world_size(group)


def find_replicas(parameters: Iterable[Tensor]) -> Replicas | None:
    """The replicas that these parameters belong to, if any.

    DistributedDataParallel leaves no mark on parameters, so all living objects are looked through: tens of
    milliseconds, and only where ranks have been set up.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    wanted = {id(parameter) for parameter in parameters}
    for living in gc.get_objects():
        if issubclass(type(living), DistributedDataParallel):
            assert isinstance(living, DistributedDataParallel)
            if not wanted.isdisjoint(map(id, living.parameters())):
                return Replicas(living)
    return None
