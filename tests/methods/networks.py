"""A network whose parameters tasks share, share in part, or have for themselves, and the methods that train it."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from multitune.methods.base import CombiningMethod
from multitune.methods.famo import FAMO
from multitune.methods.gradnorm import GradNorm
from multitune.methods.gradvac import GradVac
from multitune.methods.joint import Joint
from multitune.methods.pcgrad import PCGrad

TASKS = 3


class Net(nn.Module):
    """A shared encoder, a layer that only odd tasks use, one that none does, and a head for each task."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(6, 50), nn.Tanh(), nn.Linear(50, 50), nn.Tanh())
        self.sometimes = nn.Linear(50, 50)
        self.never = nn.Linear(2, 2)
        self.heads = nn.ModuleList(nn.Linear(50, 2) for _ in range(TASKS))
        self.to(dtype)

    def loss(self, task: int, batch: Tensor) -> Tensor:
        hidden = self.encoder(batch)
        if task % 2:
            hidden = self.sometimes(hidden)
        loss: Tensor = (self.heads[task](hidden) - task).square().mean()
        return loss

    def weight(self, name: str) -> nn.Parameter:
        return dict(self.named_parameters())[name]

    def shared(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, weight) for name, weight in self.named_parameters() if not name.startswith("heads")]


def batches(step: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(TASKS, 8, 6, generator=torch.Generator().manual_seed(step), dtype=dtype)


def losses(net: Net, step: int = 0, tasks: Iterable[int] = range(TASKS)) -> Iterator[Tensor]:
    data = batches(step, next(net.parameters()).dtype)
    return (net.loss(task, data[task]) for task in tasks)


def autograd_rows(net: Net, step: int = 0) -> dict[str, Tensor]:
    """Each parameter's gradients, [tasks, size], from torch.autograd."""
    names, weights = zip(*net.named_parameters(), strict=True)
    found = [
        torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True) for loss in losses(net, step)
    ]
    return {name: torch.stack([row[i].flatten() for row in found]) for i, name in enumerate(names)}


METHODS: dict[str, Callable[[], CombiningMethod]] = {
    "Joint": Joint,
    "FAMO": lambda: FAMO(TASKS),
    "GradNorm": lambda: GradNorm(TASKS, lr=0.1),
    "PCGrad": PCGrad,
    "GradVac": lambda: GradVac(TASKS, beta=0.5),
}
"""The combining methods of our own."""
