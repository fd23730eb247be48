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
from multitune.methods.parts import sum_gradients
from multitune.methods.pcgrad import PCGrad
from multitune.methods.ranks import LostRankError, Ranks
from multitune.methods.torchjd import torchjd

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch has no torch.distributed here")
RANKS, STEPS, HIDDEN = 2, 4, 400
WHOLE, HALVES = slice(None), (slice(4), slice(4, 8))
FAULTY = 2
"""The step in which the last task's batch is not finite."""
METHODS: dict[str, Callable[[int], CombiningMethod]] = {
    "Joint": lambda tasks: Joint(),
    "GradNorm": lambda tasks: GradNorm(tasks, lr=0.1),
    "FAMO": FAMO,
    "PCGrad": lambda tasks: PCGrad(seed=1),
    "GradVac": lambda tasks: GradVac(tasks, beta=0.5),
    "UPGrad": lambda tasks: torchjd("UPGrad"),
    "IMTLG": lambda tasks: torchjd("IMTLG"),
}
ILL_CONDITIONED = "IMTLG"
"""It multiplies by the pseudo-inverse of the Gram matrix: what float32 rounds is magnified by its condition number."""
STREAMING = ("Joint", "GradNorm", "FAMO")


@dataclass(frozen=True)
class Case:
    """One training: its method, its tasks, its numbers."""

    method: str
    tasks: int
    groups: str = "whole_model"
    dtype: torch.dtype = torch.float64
    buckets: int = 1
    way: str = "backward"
    """How the Combiner gets the gradients: `backward`; `collect`; in `halves` of each; in `parts`, a half a rank."""

    @property
    def name(self) -> str:
        return f"{self.method}-{self.tasks}-{self.groups}-{self.dtype}-{self.way}-{self.buckets}"


CASES = [
    *(Case(method, tasks) for method in METHODS for tasks in (2, 4)),
    *(Case(method, tasks) for method in ("Joint", "FAMO", "PCGrad") for tasks in (1, 3)),
    *(Case("GradVac", *given) for given in ((2, "all_layer"), (4, "all_layer"), (5, "all_matrix"))),
    *(Case(method, tasks, dtype=torch.float32) for method in METHODS if method != ILL_CONDITIONED for tasks in (2, 4)),
    *(Case(method, tasks, way="collect") for method in METHODS for tasks in (2, 4)),
    *(Case(method, tasks, way="halves") for method in ("Joint", "FAMO", "PCGrad") for tasks in (1, 3)),
    *(Case("GradVac", *given, way="collect") for given in ((4, "all_layer"), (5, "all_matrix"))),
    *(
        Case(method, tasks, dtype=torch.float32, way="collect")
        for method in METHODS
        if method != ILL_CONDITIONED
        for tasks in (2, 4)
    ),
    *(Case("GradVac", *given, buckets=3) for given in ((2, "whole_model"), (5, "all_layer"))),
    Case("UPGrad", 4, buckets=3, way="collect"),
    *(Case(method, 3, way="parts") for method in METHODS),
    *(Case(method, 3, way="backward of parts") for method in ("Joint", "FAMO", "PCGrad")),
]


class Net(nn.Module):
    """An encoder with dropout, a layer that odd tasks alone use (those of rank 1), one for none, and heads."""

    def __init__(self, tasks: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(6, HIDDEN), nn.Tanh(), nn.Dropout(0.2), nn.Linear(HIDDEN, HIDDEN))
        self.odd, self.never = nn.Linear(HIDDEN, HIDDEN), nn.Linear(2, 2)
        self.heads = nn.ModuleList(nn.Linear(HIDDEN, 2) for _ in range(tasks))

    def loss(self, step: int, task: int, part: slice = WHOLE) -> Tensor:
        """Of some of a batch's examples their part of the mean. Dropout goes by the place of the batch."""
        weight = self.never.weight
        generator = torch.Generator().manual_seed(100 * step + task)
        batch = torch.randn(8, 6, generator=generator, dtype=torch.float64).to(weight.dtype)
        if step == FAULTY and task == len(self.heads) - 1:
            batch[0] = torch.nan
        torch.manual_seed(100 * step + task)
        hidden = self.encoder(batch)
        if task % 2:
            hidden = self.odd(hidden.tanh())
        loss: Tensor = ((self.heads[task](hidden) - task).square().mean(1) / len(batch))[part].sum()
        return loss

    def shared(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, weight) for name, weight in self.named_parameters() if not name.startswith("heads")]


def made(case: Case, net: Net, ranks: Ranks | None) -> Combiner:
    return Combiner(
        net.shared(),
        METHODS[case.method](case.tasks),
        groups=case.groups,
        buckets=case.buckets,
        heads=net.heads.parameters(),
        reduction="mean",
        process_group=ranks,
        split_batch="parts" in case.way,
    )


def trained(case: Case, ranks: Ranks | None = None) -> dict[str, Any]:
    """What a few steps leave: the weights, the Combiner's state, the losses, the faults."""
    net = Net(case.tasks).to(case.dtype)
    combiner = made(case, net, ranks)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    losses, faults, first = [], [], torch.zeros(0)
    for step in range(STEPS):
        optimizer.zero_grad()
        tasks = range(
            case.tasks - (step == STEPS - 1 and case.tasks > 1 and case.method not in ("UPGrad", "IMTLG"))
        )  # a short step
        if case.way in ("collect", "halves", "parts"):
            at_fault = collected(case, net, combiner, step, tasks, ranks)
        else:
            part = HALVES[ranks.rank] if ranks is not None and case.way == "backward of parts" else WHOLE
            given = (partial(net.loss, step, task, part) for task in tasks)
            at_fault = []
            try:
                losses.append(combiner.backward(given, tasks=tasks, scales=[1.0 + task for task in tasks]))
            except NonFiniteError as error:
                at_fault = error.tasks
        if step == 0 and case.dtype == torch.float32:
            first = torch.cat([weight.grad.flatten() for weight in net.parameters() if weight.grad is not None])
        if at_fault:
            faults.append(at_fault)
        else:
            optimizer.step()
    state = {name: tensor.clone() for name, tensor in combiner.state_dict().items()}
    return {"weights": net.state_dict(), "state": state, "losses": losses, "faults": faults, "first": first}


def collected(
    case: Case, net: Net, combiner: Combiner, step: int, tasks: range, ranks: Ranks | None = None
) -> list[int]:
    """A step of `backward()` by task, on ranks of their own tasks, or of a half of each; the tasks at fault.

    Where one is, all ranks are left with the same `.grad`, which is not finite, and a regulariser's gradient is lost.
    """
    own = tasks if ranks is None or case.way == "parts" else tasks[ranks.rank :: ranks.size]
    halves = [HALVES[ranks.rank]] if ranks is not None and case.way == "parts" else HALVES
    for part in [WHOLE] if case.way == "collect" else halves:
        for task in own:
            loss = net.loss(step, task, part)
            loss.backward()
            combiner.collect(task, loss if case.method in ("GradNorm", "FAMO") or step != 1 else None, 1.0 + task)
    at_fault = combiner.apply()
    if at_fault:
        norms = torch.stack([weight.grad.norm() for weight in net.parameters() if weight.grad is not None])
        assert not norms.isfinite().all()
    return at_fault


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
    net, sent, tasks = Net(case.tasks).to(case.dtype), {"bytes": 0}, range(case.tasks)
    combiner = made(case, net, ranks)
    with counted(sent):
        if case.way == "collect":
            collected(case, net, combiner, 0, tasks, ranks)
        else:
            combiner.backward((partial(net.loss, 0, task) for task in tasks), tasks=tasks)
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
    outcome["reached"] = {way: reached_by_one_part(ranks, way) for way in ("backward", "collect", "one batch")}
    outcome["refused"] = refusals_of_collecting(ranks)
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


def refusals_of_collecting(ranks: Ranks) -> list[str]:
    """What is said of tasks that ranks cannot share so; what was collected then is forgotten, of heads, too."""
    said = []
    for mine, split in (([0, ranks.rank], False), ([0, 1][: 1 + ranks.rank], True), ([], False)):
        case = Case("PCGrad", 2, way="parts" if split else "collect")
        net = Net(2).double()
        combiner = made(case, net, ranks)
        for task in mine:
            net.loss(0, task).backward()
            combiner.collect(task)
        try:
            combiner.apply()
        except ValueError as error:
            said.append(str(error))
        collected(case, net, combiner, 0, range(2), ranks)
        again, other = Net(2).double(), Case("PCGrad", 2, way="collect")
        collected(other, again, made(other, again, None), 0, range(2))
        for weight, expected in zip(net.parameters(), again.parameters(), strict=True):
            torch.testing.assert_close(weight.grad, expected.grad, rtol=1e-10, atol=1e-10)
    return said


def reached_by_one_part(ranks: Ranks, way: str) -> list[Tensor | None]:
    """The gradients of two weights, and of a head for two, of which each part of a batch reaches one."""
    weights = [nn.Parameter(torch.ones(2)) for _ in range(4)]
    combiner = Combiner(weights[:2], PCGrad(), heads=weights[2:], process_group=ranks, split_batch=True)
    for _ in range(2):
        for weight in weights:
            weight.grad = None
        losses = [(weights[ranks.rank] * weights[2 + ranks.rank]).sum() for _ in range(2)]
        if way == "backward":
            combiner.backward(losses)
            continue
        if way == "one batch":
            losses[0].backward()
            sum_gradients(ranks, weights)
            continue
        for task, loss in enumerate(losses):
            loss.backward()
            combiner.collect(task, loss)
        combiner.apply()
    return [weight.grad for weight in weights]


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
    """Weights, the method's state, losses, faults; in fp32 gradients to 1e-6 of their norm.

    With dropout, NaN on one rank, and a short last step.
    """
    expected = trained(case)
    bound = 1e-10 if case.dtype == torch.float64 else 1e-5
    assert len(expected["faults"]) == 1
    for outcome in (each[case.name] for each in two_ranks):
        assert outcome["faults"] == expected["faults"]
        for name, weight in expected["weights"].items():
            torch.testing.assert_close(outcome["weights"][name], weight, rtol=bound, atol=bound, msg=name)
        for name, tensor in expected["state"].items():
            torch.testing.assert_close(outcome["state"][name], tensor, rtol=10 * bound, atol=10 * bound, msg=name)
        assert (outcome["first"] - expected["first"]).norm() <= 1e-6 * expected["first"].norm()
        for ours, theirs in zip(outcome["losses"], expected["losses"], strict=True):
            torch.testing.assert_close(ours, theirs.double(), rtol=bound, atol=bound)


@pytest.mark.check
@pytest.mark.parametrize("tasks", [2, 4])
def test_ranks_send_and_keep_no_more_than_they_have_to(tasks: int, two_ranks: list[dict[str, Any]]) -> None:
    for case in (case for case in CASES if case.tasks == tasks):
        for outcome in (each["cost"][case.name] for each in two_ranks):
            most = 1.02 if case.method in STREAMING else {2: 1.05, 4: 1.58}[tasks]
            assert outcome["bytes"] <= most, case.name
            streamed = case.method == "Joint" or (case.method in STREAMING and case.way == "backward")
            assert outcome["rows"] <= 1.03 * (2 if streamed else 2 * tasks / RANKS + 1), case.name


@pytest.mark.check
def test_what_one_part_reaches_all_ranks_train(two_ranks: list[dict[str, Any]]) -> None:
    """The second step's gradients of two tasks; the ranks' weights would drift apart if some had none."""
    for outcome in two_ranks:
        for way, gradients in outcome["reached"].items():
            tasks = 1.0 if way == "one batch" else 2.0
            assert [None if own is None else own.tolist() for own in gradients] == [[tasks, tasks]] * 4


@pytest.mark.check
def test_tasks_that_ranks_cannot_share_are_named(two_ranks: list[dict[str, Any]]) -> None:
    for outcome in two_ranks:
        both, unlike, nothing = outcome["refused"]
        assert both.startswith("ranks 0 and 1 have both collected task 0: let each task be one rank's")
        assert unlike.startswith("rank 1 has collected tasks [0, 1] and rank 0 tasks [0]: with split_batch=True each")
        assert nothing.startswith("nothing to apply")


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
