"""Whether a model fits in memory, before its weights are read."""

from collections.abc import Sequence
from typing import Any

import torch

from multitune.errors import UserError
from multitune.models.fetching import fetched
from multitune.storage.memory import free_memory
from multitune.tasks import Task

BYTES = 4
"""Of a number in fp32, in which weights are loaded."""


def check_room(name: str, configs: Sequence[Any], tasks: Sequence[Task], device: torch.device) -> None:
    """Find whether a model's weights alone fit, by its configuration; training takes more.

    Args:
        name: as the recipe names it.
        configs: one a head, whose models are loaded side by side.
        tasks: of the heads.
        device: where the model is to run; it is loaded on the CPU first.

    Raises:
        UserError: they do not; the message has the bytes that are needed and those that are free. Or no model can be
            made of a configuration.
    """
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        sizes = [_numbers(name, one, task) for one, task in zip(configs, tasks, strict=True)]
    for where, needed in ((torch.device("cpu"), sum(sizes)), (device, max(sizes))):
        free = free_memory(where)
        if free is not None and BYTES * needed > free:
            raise UserError(
                f"model: {name} needs {BYTES * needed:,} bytes for its weights, and {free:,} are free on {where}; "
                f"choose a smaller one, or fewer layers"
            )


def _numbers(name: str, config: Any, task: Task) -> int:
    """The numbers of a model that is made without memory."""
    model = fetched(name, lambda *_, **__: task.auto_model.from_config(config, trust_remote_code=False))
    return sum(weight.numel() for weight in model.parameters())
