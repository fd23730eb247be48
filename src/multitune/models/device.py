"""Where a model runs: what a recipe's ``device`` names on this machine."""

import os

import torch
from torch import Tensor

from multitune.errors import UserError

RANK = "LOCAL_RANK"
"""The variable in which torchrun tells a process its number on its machine."""


def chosen(device: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` means here.

    ``auto`` takes CUDA where there is a device of it, else the CPU: Apple's GPU has to be named. Under torchrun,
    ``auto`` and ``cuda`` are the device whose number is the process's on its machine.

    Raises:
        UserError: this machine has no such device.
    """
    there = available()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    rank = os.environ.get(RANK, "")
    if device == "cuda" and rank.isdecimal():
        device = f"cuda:{int(rank)}"
    if device not in there and not (device == "cuda" and "cuda:0" in there):
        raise UserError(f"device: {device} is not there; this machine has {', '.join(there)}")
    return torch.device(device)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device; the host does not wait for that.

    But with Apple's GPU: torch lets it read memory that is free again by then.
    """
    return tensor.to(device, non_blocking=device.type != "mps")


def available() -> list[str]:
    """The devices of this machine, as recipes name them."""
    cards = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    apple = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(f"cuda:{number}" for number in cards), *apple]
