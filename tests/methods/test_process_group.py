"""Combiner with a process group: two ranks, each with its own tasks, are one process with all of them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from multitune.methods.base import CombiningMethod, NonFiniteError
from multitune.methods.combiner import Combiner
from multitune.methods.famo import FAMO
from multitune.methods.gradnorm import GradNorm
from multitune.methods.gradvac import GradVac
from multitune.methods.groups import BLOCK, lay_out
from multitune.methods.joint import Joint
from multitune.methods.pcgrad import PCGrad
from multitune.methods.ranks import LostRankError, Ranks
from multitune.methods.torchjd import torchjd

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch has no torch.distributed here")
RANKS, STEPS, HIDDEN = 2, 4, 400
FAULTY = 2
"""The step in which the last task's batch is not finite."""
METHODS: dict[str, Callable[[int], CombiningMethod]] = {
    "Joint": lambda tasks: Joint(),
    "GradNorm": lambda tasks: GradNorm(tasks, lr=0.1),
    "FAMO": FAMO,
    "PCGrad": lambda tasks: PCGrad(seed=1),
    "GradVac": lambda tasks: GradVac(tasks, beta=0.5),
    "UPGrad": lambda tasks: torchjd("UPGrad"),
}
STREAMING = ("Joint", "GradNorm", "FAMO")


@dataclass(frozen=True)
class Case:
    """One training: its method, its tasks, its numbers."""

    method: str
    tasks: int
    groups: str = "whole_model"
    dtype: torch.dtype = torch.float64

    @property
    def name(self) -> str:
        return f"{self.method}-{self.tasks}-{self.groups}-{self.dtype}"


CASES = [
    *(Case(method, tasks) for method in METHODS for tasks in (2, 4)),
    *(Case(method, tasks) for method in ("Joint", "FAMO", "PCGrad") for tasks in (1, 3)),
    *(Case("GradVac", *given) for given in ((2, "all_layer"), (4, "all_layer"), (5, "all_matrix"))),
    *(Case(method, tasks, dtype=torch.float32) for method in METHODS for tasks in (2, 4)),
]


class Net(nn.Module):
    """An encoder with dropout, a layer that odd tasks alone use (those of rank 1), one for none, and heads."""

    def __init__(self, tasks: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(6, HIDDEN), nn.Tanh(), nn.Dropout(0.2), nn.Linear(HIDDEN, HIDDEN))
        self.odd, self.never = nn.Linear(HIDDEN, HIDDEN), nn.Linear(2, 2)
        self.heads = nn.ModuleList(nn.Linear(HIDDEN, 2) for _ in range(tasks))

    def loss(self, step: int, task: int) -> Tensor:
        """Dropout goes by the place of the batch, whoever computes it."""
        weight = self.never.weight
        generator = torch.Generator().manual_seed(100 * step + task)
        batch = torch.randn(8, 6, generator=generator, dtype=torch.float64).to(weight.dtype)
        if step == FAULTY and task == len(self.heads) - 1:
            batch[0] = torch.nan
        torch.manual_seed(100 * step + task)
        hidden = self.encoder(batch)
        if task % 2:
            hidden = self.odd(hidden.tanh())
        loss: Tensor = (self.heads[task](hidden) - task).square().mean()
        return loss

    def shared(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, weight) for name, weight in self.named_parameters() if not name.startswith("heads")]


def trained(case: Case, ranks: Ranks | None = None) -> dict[str, Any]:
    """What a few steps leave: the weights, the Combiner's state, the losses, the faults."""
    net = Net(case.tasks).to(case.dtype)
    combiner = Combiner(
        net.shared(),
        METHODS[case.method](case.tasks),
        groups=case.groups,
        heads=net.heads.parameters(),
        reduction="mean",
        process_group=ranks,
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    losses, faults = [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        tasks = range(case.tasks - (step == STEPS - 1 and case.tasks > 1 and case.method != "UPGrad"))  # a short step
        try:
            values = combiner.backward(
                (partial(net.loss, step, task) for task in tasks), tasks=tasks, scales=[1.0 + task for task in tasks]
            )
        except NonFiniteError as error:
            faults.append(str(error))
            continue
        losses.append(values)
        optimizer.step()
    state = {name: tensor.clone() for name, tensor in combiner.state_dict().items()}
    return {"weights": net.state_dict(), "state": state, "losses": losses, "faults": faults}


@contextmanager
def counted(sent: dict[str, int]) -> Iterator[None]:
    """Inside, the bytes that this rank sends are counted, from the sizes of what collectives are given."""
    names = [
        name
        for name in ("all_reduce", "all_to_all_single", "all_gather_single", "all_gather_into_tensor")
        if hasattr(distributed, name)
    ]
    before = {name: getattr(distributed, name) for name in names}
    others = (RANKS - 1) / RANKS

    def watched(name: str, *arguments: Any, **options: Any) -> Any:
        given = arguments[0] if name == "all_reduce" else arguments[1]
        times = {"all_reduce": 2 * others, "all_to_all_single": others}.get(name, RANKS - 1)
        sent["bytes"] += int(given.nbytes * times)
        return before[name](*arguments, **options)

    for name in names:
        setattr(distributed, name, partial(watched, name))
    try:
        yield
    finally:
        for name, call in before.items():
            setattr(distributed, name, call)


def cost(case: Case, ranks: Ranks) -> dict[str, float]:
    """What one step costs: bytes beside DistributedDataParallel's, and gradient vectors kept in memory."""
    net, sent = Net(case.tasks).to(case.dtype), {"bytes": 0}
    combiner = Combiner(
        net.shared(),
        METHODS[case.method](case.tasks),
        groups=case.groups,
        heads=net.heads.parameters(),
        process_group=ranks,
    )
    with counted(sent):
        combiner.backward((partial(net.loss, 0, task) for task in range(case.tasks)), tasks=range(case.tasks))
    replicated = 2 * (RANKS - 1) / RANKS * sum(weight.nbytes for weight in net.parameters())
    shard = combiner._shard
    assert shard is not None
    kept = combiner._rows._buffer.numel() + shard._buffer.numel()
    return {"bytes": sent["bytes"] / replicated, "rows": kept / sum(weight.numel() for _, weight in net.shared())}


def rank(folder: Path, number: int) -> None:
    """What one of two processes does."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = f"file://{folder / 'store'}"
    distributed.init_process_group("gloo", init_method=store, rank=number, world_size=RANKS)
    group = distributed.group.WORLD
    assert group is not None
    ranks = Ranks(group)
    outcome: dict[str, Any] = {case.name: trained(case, ranks) for case in CASES}
    outcome["cost"] = {case.name: cost(case, ranks) for case in CASES if case.tasks in (2, 4)}
    ranks.wanted = 15 * number
    trained(CASES[0], ranks)
    outcome["agreed"] = ranks.agreed
    outcome["wrapped"] = refusal_of_a_wrapped_model(ranks)
    if number == 0:
        began = time.monotonic()
        try:
            trained(CASES[-1], ranks)
        except LostRankError as error:
            outcome["lost"], outcome["waited"] = str(error), time.monotonic() - began
    torch.save(outcome, folder / f"{number}.pt")
    os._exit(0)  # rank 1 is killed, as it were


def refusal_of_a_wrapped_model(ranks: Ranks) -> str:
    model = DistributedDataParallel(nn.Linear(2, 1))
    combiner = Combiner(model.parameters(), PCGrad(), process_group=ranks)
    try:
        combiner.backward((partial(lambda: model(torch.ones(2)).sum()) for _ in range(2)), tasks=range(2))
    except ValueError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    code = (
        "import pathlib, sys, test_process_group; test_process_group.rank(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(folder)]
    ranks = [subprocess.Popen([*command, str(k)], cwd=Path(__file__).parent) for k in range(RANKS)]
    assert [process.wait(timeout=300) for process in ranks] == [0, 0]
    return [torch.load(folder / f"{k}.pt", weights_only=True) for k in range(RANKS)]


@pytest.mark.check
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_two_ranks_are_one_process(case: Case, two_ranks: list[dict[str, Any]]) -> None:
    """Weights, the method's state, losses and faults; with dropout, NaN on one rank, and a short last step."""
    expected = trained(case)
    bound = 1e-10 if case.dtype == torch.float64 else 1e-5
    assert len(expected["faults"]) == 1
    for outcome in (each[case.name] for each in two_ranks):
        assert outcome["faults"] == expected["faults"]
        for name, weight in expected["weights"].items():
            torch.testing.assert_close(outcome["weights"][name], weight, rtol=bound, atol=bound, msg=name)
        for name, tensor in expected["state"].items():
            torch.testing.assert_close(outcome["state"][name], tensor, rtol=10 * bound, atol=10 * bound, msg=name)
        for ours, theirs in zip(outcome["losses"], expected["losses"], strict=True):
            torch.testing.assert_close(ours, theirs.double(), rtol=bound, atol=bound)


@pytest.mark.check
@pytest.mark.parametrize("tasks", [2, 4])
def test_ranks_send_and_keep_no_more_than_they_have_to(tasks: int, two_ranks: list[dict[str, Any]]) -> None:
    for case in (case for case in CASES if case.tasks == tasks):
        for outcome in (each["cost"][case.name] for each in two_ranks):
            most = 1.02 if case.method in STREAMING else {2: 1.05, 4: 1.58}[tasks]
            assert outcome["bytes"] <= most, case.name
            assert outcome["rows"] <= 1.03 * (2 if case.method in STREAMING else 2 * tasks / RANKS + 1), case.name


@pytest.mark.check
def test_what_one_rank_wants_all_know(two_ranks: list[dict[str, Any]]) -> None:
    assert [outcome["agreed"] for outcome in two_ranks] == [15, 15]


@pytest.mark.check
def test_a_wrapped_model_and_a_lost_rank_are_named(two_ranks: list[dict[str, Any]]) -> None:
    assert all("DistributedDataParallel would mix the gradients" in outcome["wrapped"] for outcome in two_ranks)
    assert "another rank has ended or cannot be reached" in two_ranks[0]["lost"]
    assert two_ranks[0]["waited"] < 10


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_columns_are_shared_out_in_whole_blocks(ranks: int) -> None:
    """All ranks have as many, and the groups' blocks among them add up to the groups' blocks and the padding."""
    sizes = {"a": 5 * BLOCK + 1, "b": 1, "c": 2 * BLOCK}
    layout = lay_out([(name, nn.Parameter(torch.empty(size))) for name, size in sizes.items()], str, ranks)
    shares = [layout.blocks_of(rank) for rank in range(ranks)]
    assert {sum(share) * BLOCK * ranks for share in shares} == {layout.width}
    first, second, last = (sum(blocks) for blocks in zip(*shares, strict=True))
    assert (first, second) == (6, 1)
    assert 2 <= last < 2 + ranks
