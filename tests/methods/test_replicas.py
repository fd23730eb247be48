"""Combiner on a model that DistributedDataParallel trains on several ranks."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from multitune.methods.base import CombiningMethod
from multitune.methods.combiner import Combiner
from multitune.methods.famo import FAMO
from multitune.methods.gradnorm import GradNorm
from multitune.methods.joint import Joint
from multitune.methods.pcgrad import PCGrad

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch has no torch.distributed here")
TASKS = 3
METHODS: dict[str, Callable[[], CombiningMethod]] = {
    "Joint": Joint,
    "PCGrad": PCGrad,
    "FAMO": lambda: FAMO(TASKS),
    "GradNorm": lambda: GradNorm(TASKS),
}


class Net(nn.Module):
    """A shared layer and a head for each task."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.shared = nn.Linear(4, 16).double()
        self.heads = nn.ModuleList(nn.Linear(16, 1).double() for _ in range(TASKS))

    def forward(self, task: int, batch: Tensor) -> Tensor:
        found: Tensor = (self.heads[task](self.shared(batch).tanh()) - task).square().mean()
        return found


def batch(step: int, task: int) -> Tensor:
    """[8, 4]; of two ranks each has four."""
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(TASKS * step + task), dtype=torch.float64)


def start(store: Path, rank: int, size: int) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    start(tmp_path / "store", 0, 1)
    yield
    distributed.destroy_process_group()


def wrap(net: Net, *, bucket_view: bool = False) -> DistributedDataParallel:
    return DistributedDataParallel(net, find_unused_parameters=True, gradient_as_bucket_view=bucket_view)


def combiner_of(net: Net, method: CombiningMethod) -> Combiner:
    return Combiner(net.shared.parameters(), method, heads=net.heads.parameters())


def collected(model: nn.Module, combiner: Combiner, step: int, part: slice = slice(None)) -> None:
    model.zero_grad()
    for task in range(TASKS):
        loss = model(task, batch(step, task)[part])
        loss.backward()
        combiner.collect(task, loss)
    combiner.apply()


def passed(model: nn.Module, combiner: Combiner, step: int, part: slice = slice(None)) -> None:
    model.zero_grad()
    combiner.backward((model(task, batch(step, task)[part]) for task in range(TASKS)), tasks=range(TASKS))


FORMS = {"collect": collected, "backward": passed}


def gradients(net: Net) -> Tensor:
    return torch.cat([weight.grad.flatten() for weight in net.parameters() if weight.grad is not None])


@pytest.mark.parametrize(
    ("name", "bucket_view"),
    [
        *(pytest.param(name, False, marks=() if name == "GradVac" else pytest.mark.check) for name in METHODS),
        ("Joint", True),
        ("PCGrad", True),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_a_wrapped_model_is_combined_as_a_plain_one(one_rank: None, name: str, form: str, bucket_view: bool) -> None:
    net, plain = Net(), Net()
    model = wrap(net, bucket_view=bucket_view)
    ours, theirs = (combiner_of(each, METHODS[name]()) for each in (net, plain))
    for step in range(3):
        collected(plain, theirs, step)
        FORMS[form](model, ours, step)
        torch.testing.assert_close(gradients(net), gradients(plain))


@pytest.mark.parametrize("wrapped_first", [True, False])
def test_gradients_that_were_not_averaged_are_refused(one_rank: None, wrapped_first: bool) -> None:
    net = Net()
    model = wrap(net) if wrapped_first else None
    combiner = combiner_of(net, PCGrad())
    model = wrap(net) if model is None else model
    with model.no_sync():
        model(0, batch(0, 0)).backward()
        with pytest.raises(ValueError, match=r"task 0 was made under no_sync\(\) and differs from rank to rank"):
            combiner.collect(0)
    model.zero_grad()
    collected(model, combiner, 0)
    with model.no_sync():
        loss = model(1, batch(0, 1))
    loss.backward()
    with pytest.raises(ValueError, match="task 1 was made under no_sync"):
        combiner.collect(1)
    with model.no_sync(), pytest.raises(ValueError, match="task 2 was made under no_sync"):
        combiner.backward((model(task, batch(0, task)) for task in (2, 1)), tasks=[2, 1])


def test_micro_batches_but_the_last_may_go_without_averaging(one_rank: None) -> None:
    net, plain = Net(), Net()
    model, combiner = wrap(net), combiner_of(net, PCGrad())
    for task in range(TASKS):
        first, last = batch(0, task).chunk(2)
        with model.no_sync():
            (model(task, first) / 2).backward()
        (model(task, last) / 2).backward()
        combiner.collect(task)
    combiner.apply()
    collected(plain, combiner_of(plain, PCGrad()), 0)
    torch.testing.assert_close(gradients(net), gradients(plain))


CASES = [(name, form) for name in METHODS for form in FORMS]


def rank(folder: Path, number: int) -> None:
    """What one of two processes does: three steps of each method on its half of the batches."""
    start(folder / "store", number, 2)
    for name, form in CASES:
        net = Net()
        model = wrap(net)
        combiner, optimizer = combiner_of(net, METHODS[name]()), torch.optim.SGD(net.parameters(), lr=0.1)
        for step in range(3):
            FORMS[form](model, combiner, step, slice(4 * number, 4 * number + 4))
            optimizer.step()
        torch.save(net.state_dict(), folder / f"{name}-{form}-{number}.pt")
    distributed.destroy_process_group()


@pytest.mark.check
def test_two_ranks_are_one_process_with_both_halves(tmp_path: Path) -> None:
    """Also where the weights come from the losses, which differ from rank to rank."""
    code = "import pathlib, sys, test_replicas; test_replicas.rank(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    ranks = [subprocess.Popen([*command, str(k)], cwd=Path(__file__).parent) for k in range(2)]
    assert [process.wait(timeout=120) for process in ranks] == [0, 0]
    for name, form in CASES:
        net = Net()
        combiner, optimizer = combiner_of(net, METHODS[name]()), torch.optim.SGD(net.parameters(), lr=0.1)
        for step in range(3):
            FORMS[form](net, combiner, step)
            optimizer.step()
        for number in range(2):
            state = torch.load(tmp_path / f"{name}-{form}-{number}.pt", weights_only=True)
            for key, value in net.state_dict().items():
                torch.testing.assert_close(state[key], value, msg=f"{name}, {form}, rank {number}, {key}")
