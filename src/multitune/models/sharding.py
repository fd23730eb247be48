"""A model whose weights are divided over ranks by torch's ``fully_shard``: the way there, and back to whole weights.

Zhao et al., "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel", arXiv 2304.11277. A layer's weights are
gathered when it is computed, and freed again; each gradient is summed over the ranks, each of which keeps its shard.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from multitune.methods.sharded import add_over_ranks, divided_as, is_sharded, shards, whole
from multitune.models.heads import Heads


class Sharding:
    """The division of a model over all ranks: each layer by itself, and what is left as a whole.

    Args:
        model: with its head, on the CPU or where it runs.
        device: where it runs. The weights get there a layer at a time.
    """

    def __init__(self, model: PreTrainedModel, device: torch.device) -> None:
        from torch import distributed
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
        for part in [*layers(model), model]:
            fully_shard(part, mesh=mesh)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)  # losses are parts of a batch's, whose gradients add up
                module.set_force_sum_reduction_for_comms(True)  # gloo knows sums alone
        self._model: Any = model
        self.gathered: dict[str, Tensor] | None = None

    def reshard(self) -> None:
        """Free what a forward pass has gathered: weights that are written next would not be seen there."""
        reshard(self._model)

    @contextmanager
    def gathering(self, *, here: bool) -> Iterator[None]:
        """Inside, ``gathered`` has the whole weights and buffers by name, on the CPU; all ranks enter together.

        Args:
            here: whether this rank keeps them.
        """
        self.reshard()
        found: dict[int, Tensor] = {}  # a weight that has two names stays one
        named: dict[str, Tensor] = {}
        for name, tensor in self._model.state_dict(keep_vars=True).items():
            if id(tensor) not in found:
                complete = whole(tensor.detach())
                found[id(tensor)] = complete.cpu() if here else torch.empty(0)
            named[name] = found[id(tensor)]
        self.gathered = named if here else None
        try:
            yield
        finally:
            self.gathered = None


def reshard(model: nn.Module) -> None:
    """Free what a forward pass has gathered of a model's weights, where ``fully_shard`` has divided them."""
    parts: Iterable[Any] = model.modules()
    for part in parts:
        if hasattr(part, "reshard"):
            part.reshard()


def layers(model: PreTrainedModel | Heads) -> list[nn.Module]:
    """The layers of a model's body: what stands in its outermost lists."""
    found: list[nn.Module] = []
    waiting = list(model.base_model.children())
    while waiting:
        module = waiting.pop(0)
        if isinstance(module, nn.ModuleList):
            found += list(module)
        else:
            waiting += list(module.children())
    return found


def non_finite(weights: Sequence[tuple[str, Tensor]]) -> str | None:
    """The name of a weight that holds a number that is not finite; None where there is none. All ranks ask together."""
    own = shards(weight for _, weight in weights)
    bad = torch.stack([~weight.detach().isfinite().all() for weight in own])
    found = add_over_ranks(bad.float(), [weight for _, weight in weights]).tolist()
    return next((name for (name, _), is_bad in zip(weights, found, strict=True) if is_bad), None)


def distance(weight: Tensor, start: Tensor) -> Tensor:
    """The L2 distance of this process's shard of a weight from that of ``start``, which is whole; a scalar."""
    now, before = shards([weight.detach(), divided_as(weight, start)])
    far: Tensor = (now - before.to(now.device)).norm()
    return far


def of_shards(norms: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """The norms of weights from those of this process's shards; of weights that are whole, they are the norms."""
    return add_over_ranks(norms.square(), weights).sqrt() if any(map(is_sharded, weights)) else norms
