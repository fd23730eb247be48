"""Any torch optimizer's state: in terms of JSON and tensors, as copies, and as numbers in its parameter groups."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Generic, TypeVar

from torch import Tensor
from torch.optim import Optimizer

from multitune.methods.sharded import divided_alike

Entries = dict[Tensor, dict[str, Any]]
"""An optimizer's entries for each of its parameters, as ``optimizer.state`` has them."""
Value = TypeVar("Value")


def to_plain(value: Any) -> Any:
    """The same value with string keys and lists, where torch has integer keys and tuples."""
    if isinstance(value, Mapping):
        return {str(key): to_plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(entry) for entry in value]
    return value


def load_plain(optimizer: Optimizer, plain: Mapping[str, Any]) -> None:
    """Load ``to_plain(optimizer.state_dict())`` into ``optimizer``.

    Raises:
        ValueError: the state has other groups or other numbers of parameters than the optimizer.
    """
    if len(plain["param_groups"]) != len(optimizer.param_groups):
        raise ValueError(
            f"the state has {len(plain['param_groups'])} groups, the optimizer {len(optimizer.param_groups)}"
        )
    groups = [
        {key: tuple(value) if isinstance(now.get(key), tuple) else value for key, value in saved.items()}
        for saved, now in zip(plain["param_groups"], optimizer.param_groups, strict=True)
    ]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {int(index): divided_alike(entries, parameters[int(index)]) for index, entries in plain["state"].items()}
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def copied(entries: Mapping[Tensor, Mapping[str, Any]]) -> Entries:
    """Copies of entries, under the same parameters."""
    return {parameter: deepcopy(dict(own)) for parameter, own in entries.items()}


class InGroups(Generic[Value]):
    """An attribute of an optimizer that is kept in each of its parameter groups, where torch's tools save and load it.

    Args:
        start: its value at the beginning, and where the groups were loaded from an optimizer that has no such thing.
    """

    def __init__(self, start: Value) -> None:
        self.start = start

    def __set_name__(self, owner: type[Optimizer], name: str) -> None:
        self._name = name

    def __get__(self, optimizer: Optimizer, owner: type[Optimizer] | None = None) -> Value:
        value: Value = optimizer.param_groups[0].get(self._name, self.start)
        return value

    def __set__(self, optimizer: Optimizer, value: Value) -> None:
        for group in optimizer.param_groups:
            group[self._name] = value


def kept_in_groups(optimizer: Optimizer) -> list[InGroups[Any]]:
    """All such attributes of an optimizer."""
    kinds = type(optimizer).__mro__
    return [attribute for kind in kinds for attribute in vars(kind).values() if isinstance(attribute, InGroups)]
