"""Parameters that ``fully_shard`` has divided over ranks (DTensor): each process computes on its own shards."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from multitune.methods.ranks import Ranks


def is_sharded(tensor: Tensor) -> bool:
    """Whether torch.distributed has divided a tensor."""
    # Asking for the method spares a program with one process the import of torch.distributed.tensor.
    return hasattr(tensor, "to_local")


@torch.no_grad()
def shards(tensors: Iterable[Tensor]) -> list[Tensor]:
    """This process's shards of tensors that torch.distributed has divided, the others as they are."""
    given: Iterable[Any] = tensors
    return [tensor.to_local() if is_sharded(tensor) else tensor for tensor in given]


def ranks_of(parameters: Sequence[Tensor]) -> Ranks | None:
    """The ranks that have parameters' shards; None where each process has whole ones.

    Raises:
        ValueError: some are sharded and others not, or not over the same ranks.
    """
    divided = [parameter for parameter in parameters if is_sharded(parameter)]
    if not divided:
        return None
    meshes = {_mesh(parameter) for parameter in divided}
    if len(divided) < len(parameters) or len(meshes) != 1:
        raise ValueError("some parameters are sharded and others not, or over other ranks: fully_shard the whole model")
    (mesh,) = meshes
    if mesh.ndim != 1:
        raise ValueError(f"the parameters are sharded over a mesh of {mesh.ndim} dimensions; one with one is needed")
    return Ranks(mesh.get_group())


def add_over_ranks(number: Tensor, divided: Sequence[Tensor]) -> Tensor:
    """The sum of a number over the ranks that have shards of some tensors, a scalar; without shards the number."""
    for mesh in {_mesh(tensor) for tensor in divided if is_sharded(tensor)}:
        number = number.to(mesh.device_type)
        for dimension in range(mesh.ndim):
            Ranks(mesh.get_group(dimension)).sum(number)
    return number


def resembling(like: Tensor, shard: Tensor) -> Tensor:
    """A tensor divided as ``like``, of which this process has ``shard``, whose memory it shares."""
    if not is_sharded(like):
        return shard
    from torch.distributed.tensor import DTensor

    given: Any = like
    return DTensor.from_local(
        shard, given.device_mesh, given.placements, run_check=False, shape=given.shape, stride=given.stride()
    )


def divided_as(like: Tensor, whole: Tensor) -> Tensor:
    """A tensor that each process has whole, divided as ``like``: each takes its shard, and nothing is sent."""
    if not is_sharded(like):
        return whole
    from torch.distributed.tensor import distribute_tensor

    given: Any = like
    return distribute_tensor(whole.to(given.device), given.device_mesh, given.placements, src_data_rank=None)


@torch.no_grad()
def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, on each process; all call together."""
    given: Any = tensor
    gathered: Tensor = given.full_tensor() if is_sharded(tensor) else tensor
    return gathered


def gathered(value: Any, *, here: bool) -> Any:
    """A nested state with whole tensors on the CPU for sharded ones, or where ``here`` is not set with empty ones.

    All ranks call together.
    """
    if isinstance(value, Tensor):
        if not is_sharded(value):
            return value
        complete = whole(value)
        return complete.cpu() if here else complete.new_empty(0)
    if isinstance(value, Mapping):
        return {key: gathered(own, here=here) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [gathered(own, here=here) for own in value]
    return value


def divided_alike(value: Any, like: Tensor) -> Any:
    """A nested state of a parameter, whose tensors of the parameter's shape are divided as it is."""
    if isinstance(value, Tensor):
        return divided_as(like, value) if value.shape == like.shape else value
    if isinstance(value, Mapping):
        return {key: divided_alike(own, like) for key, own in value.items()}
    return value


@torch.no_grad()
def global_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The L2 norm of tensors, a scalar: of sharded ones that of the whole, on all ranks the same."""
    norm = get_total_norm(shards(tensors))
    if not any(map(is_sharded, tensors)):
        return norm
    return add_over_ranks(norm.double().square(), tensors).sqrt().to(norm.dtype)


@torch.no_grad()
def scale_to(tensors: Sequence[Tensor], norm: Tensor, most: float) -> None:
    """Multiply tensors of an L2 norm so that it becomes ``most`` at most, as ``clip_grad_norm_`` does."""
    if tensors:
        torch._foreach_mul_(shards(tensors), (most / (norm + 1e-6)).clamp(max=1.0))


def _mesh(tensor: Any) -> Any:
    return tensor.device_mesh
