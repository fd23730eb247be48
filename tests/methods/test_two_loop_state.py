"""The two-loop optimizers in anyone's loop: eval() and train(), torch's layout of the state, copies, odd weights."""

import copy
import pickle
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from multitune.methods.base import NonFiniteError
from multitune.methods.recadam import RecAdam
from multitune.methods.reptile import Reptile
from multitune.methods.two_loop import SequentialReptile, TwoLoop
from small_network import network, same, train, weights

ADAMW = partial(AdamW, lr=1e-2)
NESTEROV = partial(SGD, momentum=0.9, nesterov=True)
PLAIN = partial(SequentialReptile, inner_steps=4, outer_lr=0.3)

Make = Callable[[Optimizer], TwoLoop]
METHODS: dict[str, Make] = {
    "plain": PLAIN,
    "reset": partial(PLAIN, inner_state="reset"),
    "nesterov": partial(PLAIN, outer_optimizer=NESTEROV),
    "adamw outside": partial(PLAIN, outer_optimizer=AdamW),
    "reptile": partial(Reptile, inner_steps=4, outer_lr=0.3, num_tasks=3),
    "reptile, carry": partial(Reptile, inner_steps=4, outer_lr=0.3, num_tasks=3, inner_state="carry"),
}
INNER: dict[str, Callable[..., Optimizer]] = {"adamw": ADAMW, "sgd": partial(SGD, lr=0.1)}
TYPES = [torch.float32, torch.bfloat16]


def trained(make: Make, inner: Callable[..., Optimizer] = ADAMW, steps: int = 10) -> tuple[nn.Module, TwoLoop]:
    model = network()
    outer = make(inner(model.parameters()))
    train(model, outer, range(steps))
    return model, outer


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_eval_shows_phi_and_train_brings_the_fast_weights_back(make: Make, dtype: torch.dtype) -> None:
    model, undisturbed = network(dtype), network(dtype)
    outer, reference = make(ADAMW(model.parameters())), make(ADAMW(undisturbed.parameters()))
    for first in range(0, 40, 5):
        train(model, outer, range(first, first + 5))
        train(undisturbed, reference, range(first, first + 5))
        fast = weights(model)
        phi = [outer.state[p]["slow"].to(dtype).clone() for p in model.parameters()]
        for _ in range(2):
            outer.eval()
            assert same(weights(model), phi)
        with outer.slow_weights():
            assert same(weights(model), phi)
        assert outer.parameters_hold == "slow"
        for _ in range(2):
            outer.train()
            assert same(weights(model), fast)
    assert same(weights(model), weights(undisturbed))


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_eval_is_harmless_before_the_first_step(make: Make) -> None:
    model, undisturbed = network(), network()
    outer = make(ADAMW(model.parameters()))
    outer.eval()
    with pytest.raises(ValueError, match=r"the slow weights are in the model: call train\(\)"):
        outer.step()
    with outer.slow_weights():
        assert same(weights(model), weights(undisturbed))
    outer.train()
    train(model, outer, range(9))
    train(undisturbed, make(ADAMW(undisturbed.parameters())), range(9))
    assert same(weights(model), weights(undisturbed))


def test_an_inner_loop_may_be_closed_in_either_mode() -> None:
    (a, one), (b, other) = trained(PLAIN), trained(PLAIN)
    one.eval()
    one.close_inner_loop()
    other.close_inner_loop()
    assert (one.parameters_hold, one.outer_steps, other.outer_steps) == ("slow", 3, 3)
    assert same(weights(a), weights(b))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shown", [False, True], ids=["train", "eval"])
@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_a_state_says_which_weights_the_model_has(
    make: Make, inner: Callable[..., Optimizer], shown: bool, dtype: torch.dtype
) -> None:
    """Model and optimizer, saved in either mode with torch.save, continue as if nothing had been."""
    whole, model = network(dtype), network(dtype)
    train(whole, make(inner(whole.parameters())), range(30))
    outer = make(inner(model.parameters()))
    train(model, outer, range(14))
    if shown:
        outer.eval()
    saved = pickle.dumps((model.state_dict(), outer.state_dict()))

    resumed = network(dtype)
    again = make(inner(resumed.parameters()))
    train(resumed, again, range(3))  # what it did before is forgotten
    for_the_model, for_the_optimizer = pickle.loads(saved)
    resumed.load_state_dict(for_the_model)
    again.load_state_dict(for_the_optimizer)
    assert again.parameters_hold == outer.parameters_hold == ("slow" if shown else "fast")
    again.train()
    train(resumed, again, range(14, 30))
    assert same(weights(whole), weights(resumed))


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_the_state_has_torchs_layout(make: Make, tmp_path: Path) -> None:
    model, outer = trained(make)
    state = outer.state_dict()
    assert list(state) == ["state", "param_groups"]
    assert sorted(state["state"]) == [0, 1, 2, 3]
    for p, entries in zip(model.parameters(), state["state"].values(), strict=True):
        assert entries["slow"] is outer.state[p]["slow"]
        assert entries["slow"].shape == entries["exp_avg"].shape == p.shape
    assert {group["inner_step"] for group in state["param_groups"]} == {2}
    torch.save(state, tmp_path / "optimizer.pt")
    torch.load(tmp_path / "optimizer.pt", weights_only=True)


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_the_state_of_a_plain_optimizer_loads(make: Make) -> None:
    model, reference = network(), network()
    plain = ADAMW(reference.parameters())
    train(reference, plain, range(5))
    outer = make(ADAMW(model.parameters()))
    train(model, outer, range(3))
    model.load_state_dict(reference.state_dict())
    outer.load_state_dict(copy.deepcopy(plain.state_dict()))
    assert (outer.inner_step, outer.outer_steps, outer.parameters_hold) == (0, 0, "fast")
    train(model, outer, range(5, 6))
    train(reference, plain, range(5, 6))
    start = network()
    train(start, ADAMW(start.parameters()), range(5))
    assert same(weights(model), weights(reference))
    with outer.slow_weights():
        assert same(weights(model), weights(start))


def change_values(model: nn.Module) -> nn.Module:
    model.load_state_dict({name: value + 1 for name, value in model.state_dict().items()})
    return model


@pytest.mark.parametrize(
    "change",
    [change_values, lambda m: m.to(torch.float64), lambda m: m.to(torch.bfloat16)],
    ids=["load", "f64", "bf16"],
)
@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_what_happens_to_the_weights_before_the_first_step_counts(
    make: Make, change: Callable[[nn.Module], nn.Module]
) -> None:
    wrapped_before, wrapped_after = network(), change(network())
    before = make(ADAMW(wrapped_before.parameters()))
    change(wrapped_before)
    train(wrapped_before, before, range(9))
    train(wrapped_after, make(ADAMW(wrapped_after.parameters())), range(9))
    assert same(weights(wrapped_before), weights(wrapped_after))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_slow_weights_of_low_precision_are_fp32(make: Make, dtype: torch.dtype) -> None:
    model = network(dtype)
    outer = make(SGD(model.parameters(), lr=0.1))
    train(model, outer, range(13))
    for p, entries in outer.state.items():
        assert entries["slow"].dtype == torch.float32
        assert not torch.equal(entries["slow"], entries["slow"].to(p.dtype).float())


def test_slow_weights_move_by_less_than_their_parameters_can() -> None:
    """Inner loops of one unit in the last place: bf16 numbers could not go a tenth of that."""
    weight = nn.Parameter(torch.ones(10, dtype=torch.bfloat16))
    outer = SequentialReptile(SGD([weight], lr=torch.finfo(torch.bfloat16).eps), 1, 0.1)
    for n in range(1, 4):
        weight.grad = torch.ones_like(weight)
        outer.step()
        torch.testing.assert_close(outer.state[weight]["slow"], torch.full((10,), 0.9**n + (1 - 0.9**n) * (1 - 2**-7)))


def test_frozen_weights_are_not_copied_until_they_train() -> None:
    model = network()
    model[0].requires_grad_(False)
    outer = PLAIN(ADAMW(model.parameters()))
    train(model, outer, range(4))
    assert set(outer.state) == set(model[2].parameters())
    model[0].requires_grad_(True)
    held = weights(model[0])
    train(model, outer, range(4, 6))
    outer.eval()
    assert same(weights(model[0]), held)


def test_parameters_may_be_added() -> None:
    model, head = network(), nn.Linear(2, 1)
    outer = PLAIN(ADAMW(model.parameters()))
    train(model, outer, range(2))
    outer.add_param_group({"params": head.parameters(), "lr": 0.5})
    outer.zero_grad()
    head(model(torch.ones(1, 3))).sum().backward()
    start = weights(head)
    outer.step()
    with outer.slow_weights():
        assert same(weights(head), start)
    assert {group["inner_step"] for group in outer.state_dict()["param_groups"]} == {3}


OWN_STATES: dict[str, Make] = {
    "reset": METHODS["reset"],
    "reptile": METHODS["reptile"],
    "reptile, carry": METHODS["reptile, carry"],
    "trajectories": partial(PLAIN, trajectories=2),
}


@pytest.mark.parametrize("added_after", [0, 3, 12])
@pytest.mark.parametrize("make", OWN_STATES.values(), ids=OWN_STATES)
def test_an_added_parameter_is_one_that_had_no_gradient_before(make: Make, added_after: int) -> None:
    """Of an optimizer that has entries before its first step, in every trajectory and after every reset."""
    ends = []
    for is_added in (False, True):
        body, head = network(), nn.Linear(2, 2)
        nn.init.eye_(head.weight)
        nn.init.zeros_(head.bias)
        given = body.parameters() if is_added else [*body.parameters(), *head.parameters()]
        outer = make(RecAdam(given, lr=1e-2, gamma=10.0, k=0.5, t0=4.0))
        train(body, outer, range(added_after))
        if is_added:
            outer.add_param_group({"params": head.parameters()})
        train(nn.Sequential(body, head), outer, range(added_after, added_after + 30))
        ends.append(weights(body) + weights(head))
    assert same(*ends)


def test_sparse_gradients_at_a_rate_of_zero_are_a_step() -> None:
    """The first one of a warm-up: no step of torch.distributed.checkpoint's has such gradients."""
    table = nn.Embedding(5, 2, sparse=True)
    outer = PLAIN(SGD(table.parameters(), lr=0.1))
    warm_up = torch.optim.lr_scheduler.LambdaLR(outer, lambda step: min(1.0, step / 2))
    for _ in range(4):
        outer.zero_grad()
        table(torch.tensor([1, 2])).sum().backward()
        outer.step()
        warm_up.step()
    assert outer.outer_steps == 1


def by_pickle(both: Any) -> Any:
    return pickle.loads(pickle.dumps(both))


@pytest.mark.parametrize("copied", [copy.deepcopy, by_pickle])
@pytest.mark.parametrize("shown", [False, True], ids=["train", "eval"])
@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_a_copy_goes_on_by_itself_as_the_original_would(make: Make, shown: bool, copied: Callable[[Any], Any]) -> None:
    model, outer = trained(make)
    torch.optim.lr_scheduler.LambdaLR(outer, lambda step: 1.0)  # puts a wrapper of step() into the optimizer
    if shown:
        outer.eval()
    twin, its = copied((model, outer))
    assert its.param_groups is its.inner.param_groups
    its.train()
    train(twin, its, range(10, 20))
    with outer.slow_weights():
        pass  # the copy has taken nothing with it
    outer.train()
    train(model, outer, range(10, 20))
    assert same(weights(model), weights(twin))


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_weights_that_are_not_finite_do_not_spread(make: Make, broken: float) -> None:
    model, outer = trained(make, steps=15)
    phi = [outer.state[p]["slow"].clone() for p in model.parameters()]
    with torch.no_grad():
        next(model.parameters())[0, 0] = broken
    for _ in range(2):
        with pytest.raises(NonFiniteError, match=r"so no outer step was made.* lower the learning rate"):
            train(model, outer, range(15, 16))
    with pytest.raises(NonFiniteError):
        outer.close_inner_loop()
    outer.eval()
    assert same(weights(model), phi)


@pytest.mark.parametrize(
    ("eta", "steps", "share"), [(0.1, 3, "10%"), (0.1, 9 * 4, "61%"), (0.5, 8, "75%"), (0.1, 40, None), (1.0, 4, None)]
)
def test_finish_warns_how_far_phi_has_gone(eta: float, steps: int, share: str | None) -> None:
    model = network()
    outer = SequentialReptile(ADAMW(model.parameters()), 4, eta)
    train(model, outer, range(steps))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        outer.finish()
    assert [share in str(warning.message) for warning in told if share] == ([True] if share else [])
    assert len(told) == (share is not None)
