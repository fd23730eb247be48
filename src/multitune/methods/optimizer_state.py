"""Any torch optimizer's state in terms of JSON and tensors: string keys, lists, strings, numbers, None and tensors."""

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer


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
    state = {int(index): entries for index, entries in plain["state"].items()}
    optimizer.load_state_dict({"state": state, "param_groups": groups})
