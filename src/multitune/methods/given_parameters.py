"""The parameters that a Combiner is given: which of them it combines, and whether it can."""

from collections.abc import Iterable, Sequence

from torch import nn

from multitune.methods.ranks import Ranks


def shared_ones(
    parameters: Iterable[nn.Parameter] | Iterable[tuple[str, nn.Parameter]], heads: list[nn.Parameter], *, named: bool
) -> list[tuple[str, nn.Parameter]]:
    """The parameters with their names (numbers where they have none), without heads and frozen ones.

    Raises:
        ValueError: parameters that are given twice, mixed, complex, unnamed where names are needed, or all frozen.
    """
    given = list(parameters)
    if named and any(isinstance(item, nn.Parameter) for item in given):
        raise ValueError("groups go by name: give model.named_parameters()")
    pairs = [(str(i), item) if isinstance(item, nn.Parameter) else item for i, item in enumerate(given)]
    if len({id(parameter) for _, parameter in pairs}) != len(pairs):
        raise ValueError("a parameter is given twice")
    head_ids = {id(head) for head in heads}
    shared = [(name, p) for name, p in pairs if p.requires_grad and id(p) not in head_ids]
    if not shared:
        raise ValueError("no parameter to train: all are frozen or heads")
    (name, first), *_ = shared
    for other, parameter in shared:
        if (parameter.dtype, parameter.device) != (first.dtype, first.device):
            raise ValueError(
                f"all parameters must have one dtype and be on one device: {name} has {first.dtype} on {first.device}, "
                f"{other} {parameter.dtype} on {parameter.device}; cast those that train before the optimizer is made, "
                f"as in `p.data = p.data.float()`"
            )
    if shared[0][1].is_complex():
        raise ValueError(
            "complex parameters have no real inner products: give torch.view_as_real of them as parameters"
        )
    return shared


def positions(parameters: Sequence[nn.Parameter], wanted: Iterable[nn.Parameter] | None) -> list[int]:
    """Where the wanted ones are among parameters; None: all.

    Raises:
        ValueError: they are not among them.
    """
    position = {id(parameter): index for index, parameter in enumerate(parameters)}
    given = parameters if wanted is None else list(wanted)
    if not given or any(id(parameter) not in position for parameter in given):
        raise ValueError("last_shared must be among the parameters, not frozen, and not heads")
    return [position[id(parameter)] for parameter in given]


def check_shards(shards: Ranks, given: Ranks, *, split_batch: bool) -> None:
    """Make sure that a process group goes with parameters that are sharded.

    Raises:
        ValueError: it does not.
    """
    if not split_batch or given.size != shards.size:
        raise ValueError(
            "the parameters are sharded, so that all ranks work on one task's batch at a time: leave process_group "
            "out, or give that of the shards with split_batch=True"
        )
