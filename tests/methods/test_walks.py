"""Several trajectories from the same slow weights, in one process and over ranks."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from multitune.methods.ranks import Ranks
from multitune.methods.slow_weights import NonFiniteWeightsError
from multitune.methods.two_loop import SequentialReptile

K, ETA, ROUNDS = 3, 0.6, 4
NESTEROV = partial(torch.optim.SGD, momentum=0.9, nesterov=True)
Options = dict[str, Any]
CASES: dict[str, Options] = {
    "carry": {"trajectories": 2},
    "reset": {"trajectories": 2, "inner_state": "reset"},
    "four": {"trajectories": 4},
    "nesterov": {"trajectories": 4, "outer_optimizer": NESTEROV},
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2), nn.Linear(2, 1)).double()


def loss(net: nn.Module, walk: int, step: int) -> Tensor:
    """Of a batch that depends on the walk and its step; the last layer is reached by even walks alone."""
    generator = torch.Generator().manual_seed(1000 * walk + step)
    batch = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    assert isinstance(net, nn.Sequential)
    hidden = net[:3](batch)
    out: Tensor = net[3](hidden) if walk % 2 == 0 else hidden
    return (out - walk).square().mean()


def adam(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters(), lr=0.01)


def new(net: nn.Module, options: Options, ranks: Ranks | None = None) -> SequentialReptile:
    return SequentialReptile(adam(net), K, **{"outer_lr": ETA, "process_group": ranks, **options})


def walked(net: nn.Module, loop: SequentialReptile, first: int, last: int, own: range) -> None:
    """Steps ``first`` to ``last`` of each of ``own`` walks."""
    for step in range(first, last):
        for walk in own:
            assert loop.trajectory == walk
            loop.zero_grad()
            loss(net, walk, step).backward()
            loop.step()


def literal(options: Options, rounds: int) -> list[Tensor]:
    """As many models as walks, each with an optimizer of its own."""
    phi, count = [p.detach().clone() for p in network().parameters()], options["trajectories"]
    nets = [network() for _ in range(count)]
    inner = [adam(net) for net in nets]
    outer = options["outer_optimizer"](phi, lr=ETA) if "outer_optimizer" in options else None
    for number in range(rounds):
        for walk, net in enumerate(nets):
            if options.get("inner_state") == "reset":
                inner[walk] = adam(net)
            for step in range(number * K, (number + 1) * K):
                inner[walk].zero_grad()
                loss(net, walk, step).backward()
                inner[walk].step()
        ends = [torch.stack(list(each)).mean(0) for each in zip(*(net.parameters() for net in nets), strict=True)]
        for p, end in zip(phi, ends, strict=True):
            p.grad = p - end.detach()
            if outer is None:
                p -= ETA * p.grad
        if outer is not None:
            outer.step()
        for net in nets:
            for p, value in zip(net.parameters(), phi, strict=True):
                p.data.copy_(value)
    return phi


def assert_close(ours: Any, theirs: Any) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_walks_are_models_of_their_own_whose_mean_phi_follows(name: str) -> None:
    net, options = network(), CASES[name]
    loop = new(net, options)
    walked(net, loop, 0, K * ROUNDS, range(options["trajectories"]))
    assert loop.between_loops
    assert loop.outer_steps == ROUNDS
    assert_close(net.parameters(), literal(options, ROUNDS))


def test_one_trajectory_is_the_loop_as_it_was() -> None:
    """Bit for bit, with the same state."""
    nets = network(), network()
    loops = SequentialReptile(adam(nets[0]), K, ETA), SequentialReptile(adam(nets[1]), K, ETA, trajectories=1)
    for net, loop in zip(nets, loops, strict=True):
        walked(net, loop, 0, K * ROUNDS + 1, range(1))
    assert all(torch.equal(*pair) for pair in zip(*(net.parameters() for net in nets), strict=True))
    assert loops[0].state_dict()["param_groups"] == loops[1].state_dict()["param_groups"]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("turns", [0, 1, 5, 8, 12])
def test_a_state_goes_on_in_the_middle_of_a_turn(name: str, turns: int) -> None:
    options, nets = CASES[name], (network(), network())
    loop = new(nets[0], options)

    def go(net: nn.Module, loop: SequentialReptile, first: int, last: int) -> None:
        for turn in range(first, last):
            step, walk = divmod(turn, options["trajectories"])
            loop.zero_grad()
            loss(net, walk, step).backward()
            loop.step()

    go(nets[0], loop, 0, turns)
    nets[1].load_state_dict(nets[0].state_dict())
    other = new(nets[1], options)
    other.load_state_dict(copy.deepcopy(loop.state_dict()))
    for net, each in zip(nets, (loop, other), strict=True):
        go(net, each, turns, 30)
        each.close_inner_loop()
    assert all(torch.equal(*pair) for pair in zip(*(net.parameters() for net in nets), strict=True))


def test_phi_is_shown_and_hidden_while_walks_wait() -> None:
    net = network()
    loop = new(net, CASES["carry"])
    phi = [p.detach().clone() for p in net.parameters()]
    walked(net, loop, 0, 2, range(2))
    theta = [p.detach().clone() for p in net.parameters()]
    with loop.slow_weights():
        assert all(torch.equal(*pair) for pair in zip(net.parameters(), phi, strict=True))
    assert all(torch.equal(*pair) for pair in zip(net.parameters(), theta, strict=True))


def test_a_loop_that_is_closed_in_the_middle_of_a_turn_counts_who_has_not_begun_as_phi() -> None:
    net, alone = network(), network()
    phi = [p.detach().clone() for p in net.parameters()]
    loop = new(net, {"trajectories": 2, "outer_lr": 1.0})
    loss(net, 0, 0).backward()
    loop.step()
    loop.close_inner_loop()
    plain = adam(alone)
    loss(alone, 0, 0).backward()
    plain.step()
    assert_close(net.parameters(), [(p + q) / 2 for p, q in zip(phi, alone.parameters(), strict=True)])
    assert loop.between_loops


def test_a_walk_that_stands_still_and_one_that_diverges() -> None:
    net = network()
    loop = new(net, {"trajectories": 2})
    for _ in range(K):
        loss(net, 0, 0).backward()
        loop.step()
        loop.zero_grad()
        loop.pass_turn()
    assert loop.outer_steps == 1
    phi = [p.detach().clone() for p in net.parameters()]
    with torch.no_grad():
        next(net.parameters()).fill_(torch.inf)
    for _ in range(2 * K - 1):
        loop.pass_turn()
    with pytest.raises(NonFiniteWeightsError):
        loop.pass_turn()
    with loop.slow_weights():
        assert all(torch.equal(*pair) for pair in zip(net.parameters(), phi, strict=True))


@pytest.mark.parametrize("count", [0, -1])
def test_fewer_than_one_trajectory_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"trajectories={count}: at least one is needed"):
        new(network(), {"trajectories": count})


def test_a_state_of_other_trajectories_is_refused() -> None:
    net = network()
    loop = new(net, CASES["four"])
    walked(net, loop, 0, 1, range(4))
    with pytest.raises(ValueError, match=r"trajectories \[1, 2, 3\] beside one, and 2 are walked"):
        new(network(), CASES["carry"]).load_state_dict(loop.state_dict())


# Two ranks.


def post_local_sgd(ranks: Ranks) -> list[Tensor]:
    """torch's: each rank steps alone, and every K steps the weights become their mean."""
    from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
    from torch.distributed.optim import PostLocalSGDOptimizer

    net = network()
    made = adam(net)
    averager = PeriodicModelAverager(period=K, warmup_steps=0)
    averager.step = 1  # torch counts from 0, and would average after the first step
    optimizer = PostLocalSGDOptimizer(optim=made, averager=averager)
    for step in range(K * ROUNDS):
        optimizer.zero_grad()
        loss(net, 2 * ranks.rank, step).backward()  # torch averages weights that have a gradient alone: all need one
        optimizer.step()
    return [p.detach() for p in net.parameters()]


def refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except ValueError as error:
        return str(error)
    return ""


def wrapped(ranks: Ranks) -> None:
    model = DistributedDataParallel(network())
    loop = SequentialReptile(adam(model), K, trajectories=2, process_group=ranks)
    model(torch.ones(1, 3, dtype=torch.float64)).sum().backward()
    loop.step()


def rank(folder: Path, number: int) -> None:
    """What one of two processes does."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=number, world_size=2)
    group = distributed.group.WORLD
    assert group is not None
    ranks, found = Ranks(group), dict[str, Any]()
    for name, options in CASES.items():
        own = range(number, options["trajectories"], 2)
        net = network()
        loop = new(net, options, ranks)
        walked(net, loop, 0, K * ROUNDS + 2, own)  # the last loop is open
        state = copy.deepcopy(loop.state_dict())
        weights = copy.deepcopy(net.state_dict())
        if number == 0:
            torch.save((weights, state), folder / f"{name}-state.pt")
        walked(net, loop, K * ROUNDS + 2, K * ROUNDS + 5, own)
        loop.close_inner_loop()
        found[name] = [p.detach() for p in net.parameters()]
        ranks.meet()
        weights, state = torch.load(folder / f"{name}-one.pt")  # one process's, on two
        net = network()
        net.load_state_dict(weights)
        loop = new(net, options, ranks)
        loop.load_state_dict(state)
        walked(net, loop, K * ROUNDS + 2, K * ROUNDS + 5, own)
        loop.close_inner_loop()
        found[f"{name} resumed"] = [p.detach() for p in net.parameters()]
    net = network()
    loop = new(net, {"trajectories": 2, "outer_lr": 1.0}, ranks)
    for step in range(K * ROUNDS):
        loop.zero_grad()
        loss(net, 2 * number, step).backward()
        loop.step()
    found["eta 1"], found["PostLocalSGD"] = [p.detach() for p in net.parameters()], post_local_sgd(ranks)
    found["odd"] = refusal(lambda: new(network(), {"trajectories": 3}, ranks))
    found["wrapped"] = refusal(lambda: wrapped(ranks))
    torch.save(found, folder / f"{number}.pt")
    distributed.destroy_process_group()


def of_one(options: Options, state: tuple[Any, Any] | None = None) -> tuple[list[Tensor], tuple[Any, Any]]:
    """What one process comes to, from the beginning or a state, and its state in the open loop."""
    net = network()
    loop, own = new(net, options), range(options["trajectories"])
    if state is None:
        walked(net, loop, 0, K * ROUNDS + 2, own)
    else:
        net.load_state_dict(state[0])
        loop.load_state_dict(state[1])
    kept = copy.deepcopy((net.state_dict(), loop.state_dict()))
    walked(net, loop, K * ROUNDS + 2, K * ROUNDS + 5, own)
    loop.close_inner_loop()
    return [p.detach() for p in net.parameters()], kept


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("walks")
    for name, options in CASES.items():
        torch.save(of_one(options)[1], folder / f"{name}-one.pt")
    program = "import pathlib, sys, test_walks; test_walks.rank(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"
    ranks = [
        subprocess.Popen([sys.executable, "-c", program, str(folder), str(number)], cwd=Path(__file__).parent)
        for number in range(2)
    ]
    assert [process.wait(timeout=300) for process in ranks] == [0, 0]
    return folder, [torch.load(folder / f"{number}.pt") for number in range(2)]


@pytest.mark.check
@pytest.mark.skipif(not distributed.is_available(), reason="torch has no torch.distributed here")
@pytest.mark.parametrize("name", CASES)
def test_two_ranks_walk_as_one_process_does(name: str, two_ranks: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, found = two_ranks
    weights, _ = of_one(CASES[name])
    for outcome in found:
        assert_close(outcome[name], weights)
        assert_close(outcome[f"{name} resumed"], weights)
    resumed, _ = of_one(CASES[name], torch.load(folder / f"{name}-state.pt"))  # two ranks' state, in one process
    assert_close(resumed, weights)


@pytest.mark.check
@pytest.mark.skipif(not distributed.is_available(), reason="torch has no torch.distributed here")
def test_with_eta_1_they_are_post_local_sgd(two_ranks: tuple[Path, list[dict[str, Any]]]) -> None:
    for outcome in two_ranks[1]:
        assert_close(outcome["eta 1"], outcome["PostLocalSGD"])


@pytest.mark.check
@pytest.mark.skipif(not distributed.is_available(), reason="torch has no torch.distributed here")
def test_what_cannot_be_dealt_and_wrapped_models_are_refused(two_ranks: tuple[Path, list[dict[str, Any]]]) -> None:
    for outcome in two_ranks[1]:
        assert outcome["odd"].startswith("trajectories=3: cannot be dealt evenly over 2 ranks")
        assert "DistributedDataParallel would average the gradients of the ranks' trajectories" in outcome["wrapped"]
