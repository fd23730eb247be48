"""Weights that wait on disk come back bit by bit, and leave nothing behind."""

import os
import tempfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from builders import disk
from multitune.errors import RunError
from multitune.models.remembered import Remembered

WEIGHTS: dict[str, Tensor] = {
    "a matrix": torch.randn(5, 3),
    "transposed": torch.randn(5, 3).T,
    "a row": torch.randn(7, 4)[3],
    "a number": torch.tensor(0.1),
    "bf16": torch.randn(9).bfloat16(),
    "a parameter": nn.Parameter(torch.randn(2)),
}


def test_weights_come_back_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    weights = {name: weight.detach().clone() for name, weight in WEIGHTS.items()}
    remembered = Remembered(weights)
    assert list(tmp_path.iterdir()) == []
    for weight in weights.values():
        weight.add_(1)
    for name, weight in WEIGHTS.items():
        found = remembered.weight(name)
        assert found.dtype == weight.dtype
        assert torch.equal(found, weight.detach())


def test_the_file_may_lie_on_nfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a file that is open gets another name when it is removed, and its folder cannot go before it."""

    def renamed(path: str, *, dir_fd: int | None = None) -> None:
        os.rename(path, f"{path}.nfs", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "unlink", renamed)
    assert Remembered({"w": torch.ones(2)}).weight("w").tolist() == [1, 1]


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with disk(tmp_path / "disk", megabytes=1) as small:
        monkeypatch.setattr(tempfile, "tempdir", str(small))
        with pytest.raises(RunError, match="the disk is full"):
            Remembered({"w": torch.zeros(400_000)})
        assert list(small.iterdir()) == []
