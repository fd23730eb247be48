"""All that a resume needs, as safetensors and JSON; nothing is ever unpickled."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

KEPT = 2
"""Checkpoints kept in a run folder; older ones are removed."""


@dataclass
class RunState:
    """A run between two steps.

    Attributes:
        gradients: gradient computations spent.
        seconds: seconds trained, over all sessions of the run.
        losses: of the steps since the last training line of metrics.jsonl.
        dev: the average of the newest validation, in percent.
        weights: the parameters that train, by name (of a two-loop method, the fast ones).
        update: the method's state: optimizer, task sampler, slow weights, ...
        batches: where each language is in its epochs.
        best: the best validation so far (its average score and its gradient count), empty before the first.
        best_weights: the shipped weights of that moment, where the recipe selects them.
        probe_seconds: those of ``seconds`` that probes took.
    """

    gradients: int
    seconds: float
    losses: list[float]
    dev: float
    weights: dict[str, Tensor]
    update: dict[str, Any]
    batches: dict[str, dict[str, int]]
    best: dict[str, float] = field(default_factory=dict)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    probe_seconds: float = 0.0


def save(state: RunState, folder: Path) -> Path:
    """Write ``folder/<gradients>``, whole or not at all, and remove all but the newest checkpoints."""
    target = folder / f"{state.gradients:09d}"
    beside = folder / f".{target.name}.{os.getpid()}"
    beside.mkdir(parents=True)
    tensors: dict[str, Tensor] = {}
    plain = {item.name: _plain(getattr(state, item.name), item.name, tensors) for item in fields(state)}
    save_file(tensors, beside / "tensors.safetensors")
    (beside / "state.json").write_text(json.dumps(plain))
    for file in beside.iterdir():
        _sync(file)
    if target.exists():
        shutil.rmtree(target)
    beside.rename(target)
    _sync(folder)
    for old in _finished(folder)[:-KEPT]:
        shutil.rmtree(old)
    return target


def load_newest(folder: Path) -> RunState | None:
    """The newest checkpoint in a folder, or None where there is none."""
    found = _finished(folder)
    if not found:
        return None
    tensors = load_file(found[-1] / "tensors.safetensors")
    plain = json.loads((found[-1] / "state.json").read_text())
    return RunState(**{name: _restored(value, tensors) for name, value in plain.items()})


def clear(folder: Path) -> None:
    """Remove all checkpoints: the run is finished, and nothing is left to resume."""
    for path in _finished(folder):
        shutil.rmtree(path)


def _finished(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _plain(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """JSON for a nested state; tensors move to ``tensors`` and leave their name. Keys may be numbers."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"items": [[key, _plain(inner, f"{name}.{key}", tensors)] for key, inner in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_plain(inner, f"{name}.{index}", tensors) for index, inner in enumerate(value)]}
    assert value is None or isinstance(value, bool | int | float | str), f"{name} holds a {type(value).__name__}"
    return value


def _restored(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "items":
        return {key: _restored(inner, tensors) for key, inner in content}
    return [_restored(inner, tensors) for inner in content]
