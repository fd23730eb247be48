"""What a training run holds beside 4 P (weights, gradient, two moments), in P, the size of the weights that train.

Runs of a model that is made on the spot, with four tasks. Before each step of the optimizer, when gradients are there
and activations are gone, the bytes of all tensors of the process are summed. The largest sum in the first third of the
steps is without a checkpoint, that in the last third with one.

    python bench/memory.py
"""

import gc
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers.utils import logging as transformers_logging

import multitune as mt
from multitune.plans import METHODS
from small_run import make_data, make_model

LANGUAGES = ("aa", "bb", "cc", "dd")
RUNS: dict[str, dict[str, Any]] = {
    **{method: {"method": method} for method in METHODS if method != "stl"},
    "reptile": {"method": "reptile", "options": {"inner_steps": 2}},
    "mtl, ema": {"method": "mtl", "average": "ema"},
    "mtl, 5 snapshots": {"method": "mtl", "average": "snapshots"},
    "mtl, select: best": {"method": "mtl", "select": "best"},
}


class Held:
    """What a run held at each step, in P."""

    def __init__(self) -> None:
        self._before = set(tensors())
        self.steps: list[float] = []

    def __call__(self, optimizer: Optimizer, *_: Any) -> None:
        trained = [weight for group in optimizer.param_groups for weight in group["params"]]
        held = sum(size for storage, size in tensors().items() if storage not in self._before)
        self.steps.append(held / sum(weight.nbytes for weight in trained))


def tensors() -> dict[int, int]:
    """The storages of all tensors of the process: address -> bytes."""
    return {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in _tensors()}


def _tensors() -> Iterator[Tensor]:
    for found in gc.get_objects():
        if type(found) in (Tensor, torch.nn.Parameter):
            yield found
            if found.is_leaf and found.grad is not None:
                yield found.grad


def measured(folder: Path, name: str) -> Held:
    """Train one of ``RUNS`` in a folder with a model and data."""
    keys: dict[str, Any] = {"model": str(folder / "model"), "data": "folder", "path": str(folder / "data")}
    short: dict[str, Any] = {
        "batch_size": 4,
        "trim_vocabulary": False,
        "save_model": False,
        "validate_every": 16,
        "budget": 48,
    }
    gc.collect()
    held = Held()
    hook = register_optimizer_step_pre_hook(held)
    try:
        mt.train(mt.Recipe(**keys, **short, **RUNS[name]), folder / name)
    finally:
        hook.remove()
    return held


def main() -> None:
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    table = Table("run", "until the first checkpoint", "with its copy", title="P held beside 4 P, four tasks a step")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder)
        make_model(folder / "model", 256, 1024)  # large enough that all but weights is small beside them
        make_data(folder / "data", LANGUAGES, 32, 4)
        for run in RUNS:
            steps = measured(folder, run).steps
            third = len(steps) // 3
            table.add_row(run, f"{max(steps[:third]) - 4:.2f}", f"{max(steps[-third:]) - 4:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
