"""Weights as they were at one moment, in a temporary file: memory holds one of them at a time."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from multitune.storage.disk import disk_explained


class Remembered:
    """A copy of weights in the system's temporary folder (``TMPDIR``); it has no name there, and goes with this object.

    Args:
        weights: by name.

    Raises:
        RunError: the disk is full.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        with tempfile.TemporaryDirectory() as folder, disk_explained(Path(folder)):
            path = Path(folder) / "weights.safetensors"
            save_file({name: weight.detach().contiguous() for name, weight in weights.items()}, path)
            self._file = safe_open(path, framework="pt")

    def weight(self, name: str) -> Tensor:
        """One of the weights, on the CPU."""
        tensor: Tensor = self._file.get_tensor(name)  # type: ignore[no-untyped-call]
        return tensor
