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
        temporary = Path(tempfile.gettempdir())
        # in no folder of its own: where TMPDIR is on NFS, a folder cannot be removed while a file of it is open
        with disk_explained(temporary), tempfile.NamedTemporaryFile(suffix=".safetensors", dir=temporary) as file:
            save_file({name: weight.detach().contiguous() for name, weight in weights.items()}, file.name)
            self._file = safe_open(file.name, framework="pt")

    def weight(self, name: str) -> Tensor:
        """One of the weights, on the CPU."""
        tensor: Tensor = self._file.get_tensor(name)  # type: ignore[no-untyped-call]
        return tensor
