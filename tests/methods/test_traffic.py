"""Bytes that ranks really send, counted by the kernel where nobody else sends any: a network namespace of their own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from multitune.methods.base import CombiningMethod
from multitune.methods.combiner import Combiner
from multitune.methods.famo import FAMO
from multitune.methods.gradvac import GradVac
from multitune.methods.joint import Joint
from multitune.methods.pcgrad import PCGrad
from multitune.methods.ranks import Ranks
from multitune.methods.two_loop import SequentialReptile

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not distributed.is_available(), reason="torch has no torch.distributed here"),
]
STEPS, K, WIDTH = 10, 10, 1000
COMBINING: dict[str, tuple[Callable[[], CombiningMethod], int, float]] = {
    "Joint": (Joint, 2, 1.02),
    "FAMO": (lambda: FAMO(4), 4, 1.02),
    "PCGrad": (PCGrad, 2, 1.05),
    "GradVac": (lambda: GradVac(4), 4, 1.58),
}
"""The method, its tasks, and the bytes of a step over DistributedDataParallel's that it may send at most."""
Step = Callable[[], object]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 2))


def loss(net: nn.Module) -> Tensor:
    out: Tensor = net(torch.ones(2, WIDTH))
    return out.square().mean()


def replicated() -> Step:
    model = DistributedDataParallel(network())
    return lambda: loss(model).backward()


def combining(ranks: Ranks, make: Callable[[], CombiningMethod], tasks: int) -> Step:
    net = network()
    combiner = Combiner(net.named_parameters(), make(), process_group=ranks)
    return lambda: combiner.backward([partial(loss, net) for _ in range(tasks)], tasks=range(tasks))


def walking(ranks: Ranks) -> Step:
    net = network()
    loop = SequentialReptile(torch.optim.SGD(net.parameters(), lr=1e-3), K, trajectories=2, process_group=ranks)

    def step() -> None:
        loop.zero_grad()
        loss(net).backward()
        loop.step()

    return step


def sent() -> int:
    """Bytes that all processes here have sent."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    (own,) = (line.split(":")[1].split() for line in lines if line.strip().startswith("lo:"))
    return int(own[8])


def counted(ranks: Ranks, step: Step) -> float:
    """Bytes of a step, after a first one."""
    for _ in range(K):
        step()
    ranks.meet()
    before = sent()
    ranks.meet()
    for _ in range(STEPS):
        step()
    ranks.meet()
    return (sent() - before) / STEPS


def rank(folder: Path, number: int) -> None:
    """What one of two processes does."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=number, world_size=2)
    group = distributed.group.WORLD
    assert group is not None
    ranks = Ranks(group)
    bytes_of = {"DDP": counted(ranks, replicated())}
    for name, (make, tasks, _) in COMBINING.items():
        bytes_of[name] = counted(ranks, combining(ranks, make, tasks))
    bytes_of["walks"] = counted(ranks, walking(ranks))
    (folder / f"{number}.json").write_text(json.dumps(bytes_of))
    ranks.meet()
    distributed.destroy_process_group()


def both(folder: Path) -> None:
    """Both processes, in whatever namespace this one is."""
    program = "import pathlib, sys, test_traffic; test_traffic.rank(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"
    ranks = [subprocess.Popen([sys.executable, "-c", program, str(folder), str(number)]) for number in range(2)]
    assert [process.wait() for process in ranks] == [0, 0]


def test_ranks_send_no_more_than_they_have_to(tmp_path: Path) -> None:
    alone = ["unshare", "--map-root-user", "--net"]
    if not all(map(shutil.which, ("unshare", "ip"))) or subprocess.run([*alone, "true"]).returncode:
        pytest.skip("needs unshare and ip, and the right to a network namespace")
    program = "import pathlib, sys, test_traffic; test_traffic.both(pathlib.Path(sys.argv[1]))"
    script = 'ip link set lo up && exec "$@"'
    subprocess.run(
        [*alone, "sh", "-c", script, "sh", sys.executable, "-c", program, str(tmp_path)],
        cwd=Path(__file__).parent,
        check=True,
    )
    bytes_of = json.loads((tmp_path / "0.json").read_text())
    shares = {name: count / bytes_of["DDP"] for name, count in bytes_of.items()}
    print({name: round(share, 4) for name, share in shares.items()})
    for name, (_, _, most) in COMBINING.items():
        assert shares[name] <= most, name
    assert shares["walks"] <= 1.01 / K
