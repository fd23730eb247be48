"""Combining and two-loop methods on a model under fully_shard: two ranks with shards are one process with all."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.optim import SGD, AdamW, Optimizer

from multitune.methods.base import CombiningMethod, NonFiniteError
from multitune.methods.combiner import Combiner
from multitune.methods.famo import FAMO
from multitune.methods.gradnorm import GradNorm
from multitune.methods.gradvac import GradVac
from multitune.methods.joint import Joint
from multitune.methods.pcgrad import PCGrad
from multitune.methods.sharded import global_norm, scale_to, whole
from multitune.methods.slow_weights import NonFiniteWeightsError
from multitune.methods.torchjd import torchjd
from multitune.methods.two_loop import Fish, Lookahead, SequentialReptile, TwoLoop

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch has no torch.distributed here")
RANKS, STEPS, TASKS, EXAMPLES = 2, 5, 3, 8
FAULTY = 3
"""The step in which a batch is not finite; of its examples, one that rank 1 has."""
COMBINING: dict[str, tuple[Callable[[], CombiningMethod], str]] = {
    "Joint": (Joint, "whole_model"),
    "GradNorm": (lambda: GradNorm(TASKS, lr=0.1), "whole_model"),
    "FAMO": (lambda: FAMO(TASKS), "whole_model"),
    "PCGrad": (lambda: PCGrad(seed=1), "whole_model"),
    "GradVac": (lambda: GradVac(TASKS, beta=0.5), "whole_model"),
    "GradVac by layer": (lambda: GradVac(TASKS, beta=0.5), "all_layer"),
    "GradVac by matrix": (lambda: GradVac(TASKS, beta=0.5), "all_matrix"),
    "UPGrad": (lambda: torchjd("UPGrad"), "whole_model"),
    "PCGrad by bucket": (lambda: PCGrad(seed=1), "whole_model"),
    "GradVac by layer and bucket": (lambda: GradVac(TASKS, beta=0.5), "all_layer"),
}
BUCKETS = {"PCGrad by bucket": 2, "GradVac by layer and bucket": 3}
CASES = [*((name, "backward") for name in COMBINING), *((name, "collect") for name in ("Joint", "FAMO", "PCGrad"))]
"""Methods, and the way in which the Combiner gets their gradients."""
NESTEROV = partial(SGD, momentum=0.9, nesterov=True)
WALKING: dict[str, Callable[[Optimizer], TwoLoop]] = {
    "sequential_reptile": lambda inner: SequentialReptile(inner, 2, 0.5),
    "nesterov": lambda inner: SequentialReptile(inner, 2, 0.7, outer_optimizer=NESTEROV),
    "reset": lambda inner: Fish(inner, 2, 0.5, inner_state="reset"),
    "two trajectories": lambda inner: SequentialReptile(inner, 2, 0.5, trajectories=2),
    "lookahead": lambda inner: Lookahead(inner, 3, 0.5),
}
MOST = 0.5
"""To which norm gradients are clipped."""
BYTES = 10_000
"""What a step may send beside the same loop without a method."""


class Net(nn.Module):
    """Layers that fully_shard divides unevenly, one that a single task uses, and heads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(7, 7) for _ in range(2))
        self.odd, self.one = nn.Linear(7, 7), nn.Linear(7, 5)
        self.heads = nn.ModuleList(nn.Linear(5, 3) for _ in range(TASKS))

    def forward(self, batch: Tensor, task: int) -> Tensor:
        for layer in self.layers:
            batch = layer(batch).tanh()
        if task == 1:
            batch = self.odd(batch)
        out: Tensor = self.heads[task](self.one(batch))
        return out

    def shared(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, weight) for name, weight in self.named_parameters() if not name.startswith("heads")]


@dataclass
class Side:
    """One process with the whole model, or a rank with its shards and its part of each batch."""

    rank: int = 0
    ranks: int = 1

    def net(self) -> Net:
        net = Net()
        if self.ranks > 1:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            mesh = init_device_mesh("cpu", (self.ranks,))
            for layer in net.layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(net, mesh=mesh)
        return net

    def loss(self, net: Net, step: int, task: int) -> Tensor:
        generator = torch.Generator().manual_seed(100 * step + task)
        batch = torch.randn(EXAMPLES, 7, generator=generator)
        if step == FAULTY and task == 2:
            batch[1] = torch.nan
        own = batch[self.rank :: self.ranks]
        out: Tensor = (net(own, task) - task).square().mean()
        return out


def weights(net: Net) -> dict[str, Tensor]:
    return {name: whole(weight).detach().clone() for name, weight in net.named_parameters()}


def combined(side: Side, name: str, way: str) -> dict[str, Any]:
    """What a few steps of a combining method leave, clipped by the global norm."""
    make, groups = COMBINING[name]
    net = side.net()
    heads = [weight for weight in net.parameters() if all(weight is not shared for _, shared in net.shared())]
    combiner = Combiner(
        net.shared(), make(), groups=groups, buckets=BUCKETS.get(name, 1), heads=heads, reduction="mean"
    )
    optimizer = AdamW(net.parameters(), lr=1e-2)
    found: dict[str, Any] = {"losses": [], "faults": [], "norms": []}
    for step in range(STEPS):
        optimizer.zero_grad()
        scales = [1.0 + task for task in range(TASKS)]
        if way == "backward":
            losses = [partial(side.loss, net, step, task) for task in range(TASKS)]
            try:
                found["losses"].append(combiner.backward(losses, range(TASKS), scales))
            except NonFiniteError as error:
                found["faults"].append(str(error))
                continue
        else:
            for task in range(TASKS):
                loss = side.loss(net, step, task)
                loss.backward()
                combiner.collect(task, loss, scales[task])
            if bad := combiner.apply():
                found["faults"].append(str(bad))
                continue
        gradients = [weight.grad for weight in net.parameters() if weight.grad is not None]
        found["norms"].append(global_norm(gradients))
        scale_to(gradients, found["norms"][-1], MOST)
        optimizer.step()
    state = {key: tensor.clone() for key, tensor in combiner.state_dict().items()}
    return found | {"weights": weights(net), "state": state}


def walked(side: Side, name: str) -> dict[str, Any]:
    """What inner loops leave, and the slow weights of a partial one."""
    net = side.net()
    loop = WALKING[name](AdamW(net.parameters(), lr=1e-2))
    for step in (step for step in range(2 * STEPS) if step != FAULTY):
        loop.zero_grad()
        side.loss(net, step, step % TASKS).backward()
        loop.step()
    fast = weights(net)
    with loop.slow_weights():
        return {"fast": fast, "slow": weights(net)}


def diverged(side: Side) -> str:
    """What all ranks say where one of them has a weight that is not finite."""
    net = side.net()
    loop = SequentialReptile(SGD(net.parameters(), lr=0.1), 1, 0.5)
    side.loss(net, 0, 0).backward()
    first = next(net.parameters())
    if side.rank == side.ranks - 1:
        local: Any = first
        (local.to_local() if side.ranks > 1 else local).detach()[-1] = torch.inf
    try:
        loop.step()
    except NonFiniteWeightsError as error:
        return str(error)
    return ""


def sent_beside_a_plain_loop(side: Side, name: str) -> int:
    """Bytes that a rank gives to collectives in a step, beyond those of the same passes without a method."""
    net = side.net()
    combiner = Combiner(net.named_parameters(), COMBINING[name][0](), groups=COMBINING[name][1])

    def plain() -> None:
        for task in range(TASKS):
            side.loss(net, 0, task).backward()

    def surgery() -> None:
        combiner.backward([partial(side.loss, net, 0, task) for task in range(TASKS)], range(TASKS))

    plain()
    surgery()
    with counted() as of_plain:
        plain()
    with counted() as of_surgery:
        surgery()
    assert of_plain["all_reduce"] == 0
    assert {k: v for k, v in of_surgery.items() if k != "all_reduce"} == {
        k: v for k, v in of_plain.items() if k != "all_reduce"
    }
    return 2 * of_surgery["all_reduce"]


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Inside, the bytes of what collectives are given are counted."""
    names = [
        name
        for name in ("all_reduce", "all_gather_into_tensor", "reduce_scatter_tensor", "all_gather_single")
        if hasattr(distributed, name)
    ]
    before, bytes_of = {name: getattr(distributed, name) for name in names}, dict.fromkeys(names, 0)

    def watched(name: str, *arguments: Any, **options: Any) -> Any:
        given = arguments[0] if arguments else options["output_tensor"]
        bytes_of[name] += given.nbytes
        return before[name](*arguments, **options)

    for name in names:
        setattr(distributed, name, partial(watched, name))
    try:
        yield bytes_of
    finally:
        for name, call in before.items():
            setattr(distributed, name, call)


def rank(folder: Path, number: int) -> None:
    """What one of two processes does."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = f"file://{folder / 'store'}"
    distributed.init_process_group("gloo", init_method=store, rank=number, world_size=RANKS)
    side = Side(number, RANKS)
    outcome: dict[str, Any] = {f"{name}, {way}": combined(side, name, way) for name, way in CASES}
    outcome |= {name: walked(side, name) for name in WALKING}
    outcome["sent"] = {name: sent_beside_a_plain_loop(side, name) for name in COMBINING}
    outcome["diverged"] = diverged(side)
    outcome["rows"] = rows_of_a_rank(side)
    torch.save(outcome, folder / f"{number}.pt")
    distributed.destroy_process_group()


def rows_of_a_rank(side: Side) -> float:
    """Numbers that PCGrad's rows have without their padding, over those of the parameters."""
    net = side.net()
    combiner = Combiner(net.named_parameters(), PCGrad())
    return sum(combiner.layout.sizes) / sum(weight.numel() for weight in net.parameters())


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    code = "import pathlib, sys, test_sharded; test_sharded.rank(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"
    command = [sys.executable, "-c", code, str(folder)]
    ranks = [subprocess.Popen([*command, str(k)], cwd=Path(__file__).parent) for k in range(RANKS)]
    assert [process.wait(timeout=300) for process in ranks] == [0, 0]
    return [torch.load(folder / f"{k}.pt", weights_only=True) for k in range(RANKS)]


def assert_close(ours: Any, theirs: Any, name: str) -> None:
    if isinstance(theirs, dict):
        for key, value in theirs.items():
            assert_close(ours[key], value, f"{name} {key}")
    elif isinstance(theirs, list):
        for one, other in zip(ours, theirs, strict=True):
            assert_close(one, other, name)
    elif isinstance(theirs, Tensor):
        torch.testing.assert_close(ours.to(theirs.dtype), theirs, rtol=1e-5, atol=1e-5, msg=name)
    else:
        assert ours == theirs, name


@pytest.mark.check
@pytest.mark.parametrize(("name", "way"), CASES)
def test_two_ranks_combine_as_one_process_does(name: str, way: str, two_ranks: list[dict[str, Any]]) -> None:
    """Weights, the method's state, losses, norms; and the step that all of them skip, since one has a NaN."""
    expected = combined(Side(), name, way)
    assert len(expected["faults"]) == 1
    for outcome in two_ranks:
        assert_close(outcome[f"{name}, {way}"], expected, name)


@pytest.mark.check
@pytest.mark.parametrize("name", WALKING)
def test_two_ranks_walk_as_one_process_does(name: str, two_ranks: list[dict[str, Any]]) -> None:
    for outcome in two_ranks:
        assert_close(outcome[name], walked(Side(), name), name)


@pytest.mark.check
def test_a_step_sends_little_beside_the_same_loop_without_a_method(two_ranks: list[dict[str, Any]]) -> None:
    for outcome in two_ranks:
        assert all(0 < sent < BYTES for sent in outcome["sent"].values()), outcome["sent"]
        assert outcome["rows"] < 0.6


@pytest.mark.check
def test_weights_of_one_rank_that_are_not_finite_stop_all(two_ranks: list[dict[str, Any]]) -> None:
    assert [outcome["diverged"] for outcome in two_ranks] == [diverged(Side())] * RANKS
    assert "NaN or infinite" in diverged(Side())
