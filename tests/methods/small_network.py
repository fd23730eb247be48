"""A small network, and steps of its training that are functions of their numbers alone."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Three numbers in, two out; the same weights each time."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    for p in model.parameters():
        nn.init.normal_(p, generator=generator)
    return model.to(dtype)


def train(model: nn.Module, optimizer: Optimizer, steps: Sequence[int]) -> None:
    """Step i on a batch that is a function of i."""
    dtype = next(model.parameters()).dtype
    for i in steps:
        x = torch.randn(6, 3, generator=torch.Generator().manual_seed(i)).to(dtype)
        optimizer.zero_grad()
        (model(x) - x[:, :2].cos()).square().mean().backward()
        optimizer.step()


def weights(model: nn.Module) -> list[Tensor]:
    """Copies of all parameters."""
    return [p.detach().clone() for p in model.parameters()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    """Whether two models' weights are the same, to the bit."""
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
