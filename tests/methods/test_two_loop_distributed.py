"""The two-loop optimizers with torch's own tools for many processes: fully_shard and torch.distributed.checkpoint."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim import Adagrad, Optimizer

from multitune.methods.two_loop import TwoLoop
from small_network import network, same, train
from test_two_loop_state import ADAMW, METHODS, Make

Build = Callable[[], nn.Module]


@pytest.fixture(scope="module", autouse=True)
def group() -> Iterator[None]:
    """One process is enough to meet sharded weights, and their checkpoints."""
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def sharded() -> nn.Module:
    model = network()
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    return model


def whole(model: nn.Module) -> list[Tensor]:
    return [p.full_tensor() if hasattr(p, "full_tensor") else p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_sharded_weights_are_those_of_one_process(make: Make) -> None:
    models = network(), sharded()
    for model in models:
        outer = make(ADAMW(model.parameters()))
        train(model, outer, range(14))
        outer.eval()
        outer.train()
        train(model, outer, range(14, 26))
        outer.eval()
    for one, other in zip(*map(whole, models), strict=True):
        torch.testing.assert_close(one, other)


def save(model: nn.Module, outer: TwoLoop, folder: Path, flat: bool = False) -> None:
    weights, state = get_state_dict(model, outer, options=StateDictOptions(flatten_optimizer_state_dict=flat))
    state_dict_saver.save({"model": weights, "optimizer": state}, checkpoint_id=folder)


def load(model: nn.Module, outer: TwoLoop, folder: Path, flat: bool = False) -> None:
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    weights, state = get_state_dict(model, outer, options=options)
    state_dict_loader.load({"model": weights, "optimizer": state}, checkpoint_id=folder)
    set_state_dict(model, outer, model_state_dict=weights, optim_state_dict=state, options=options)


INNER: dict[str, Callable[[nn.Module], Optimizer]] = {
    "adamw": lambda model: ADAMW(model.parameters()),
    "adagrad": lambda model: Adagrad(model.parameters(), lr=0.1),
}
CASES = [
    *[("adamw", method, sharded, False, False) for method in METHODS if method != "reptile, carry"],
    *[("adamw", "nesterov", network, flat, shown) for flat in (False, True) for shown in (False, True)],
    ("adamw", "plain", sharded, False, True),
    ("adagrad", "reset", network, True, False),
]


@pytest.mark.parametrize(("inner", "method", "build", "flat", "shown"), CASES)
def test_torchs_distributed_checkpoint_saves_and_loads_it(
    tmp_path: Path, inner: str, method: str, build: Build, flat: bool, shown: bool
) -> None:
    """The step by which it makes a state does not count, and what it loads continues bitwise."""

    def make(model: nn.Module) -> TwoLoop:
        return METHODS[method](INNER[inner](model))

    undisturbed, model, resumed = build(), build(), build()
    train(undisturbed, make(undisturbed), range(20))
    outer, again = make(model), make(resumed)
    get_state_dict(model, outer)
    assert (outer.current_loop, outer.inner_step, outer.outer_steps) == (0, 0, 0)
    train(model, outer, range(14))
    if shown:
        outer.eval()
    save(model, outer, tmp_path, flat)
    load(resumed, again, tmp_path, flat)
    assert again.parameters_hold == outer.parameters_hold
    again.train()
    train(resumed, again, range(14, 20))
    assert same(whole(resumed), whole(undisturbed))


def wrapped(method: str, model: nn.Module) -> TwoLoop:
    return METHODS[method](ADAMW(model.parameters()))


def test_a_checkpoint_at_the_very_start_is_no_step_either(tmp_path: Path) -> None:
    undisturbed, model, resumed = network(), network(), network()
    save(model, wrapped("nesterov", model), tmp_path)
    again = wrapped("nesterov", resumed)
    load(resumed, again, tmp_path)
    train(resumed, again, range(9))
    train(undisturbed, wrapped("nesterov", undisturbed), range(9))
    assert same(whole(resumed), whole(undisturbed))


def test_a_first_step_with_a_rate_of_zero_counts() -> None:
    """Only zero gradients mark the step that makes a state: schedules that warm up begin at a rate of zero, too."""
    model = network()
    outer = METHODS["plain"](ADAMW(model.parameters(), lr=0.0))
    train(model, outer, range(1))
    assert outer.inner_step == 1


def test_what_a_checkpoint_cannot_hold_is_said(tmp_path: Path) -> None:
    """A new Reptile that carries has no place for the optimizer states of all tasks."""
    model, resumed = network(), network()
    outer = wrapped("reptile, carry", model)
    train(model, outer, range(14))
    save(model, outer, tmp_path)
    with pytest.raises(ValueError, match=r"has the trajectories of tasks \[\], and needs those of 2 tasks"):
        load(resumed, wrapped("reptile, carry", resumed), tmp_path)
