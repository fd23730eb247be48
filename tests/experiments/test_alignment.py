"""What aligns gradients in the plane: walks against the library's classes, and the derivation against enumeration."""

import json
from itertools import permutations, product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from multitune.experiments import alignment
from multitune.experiments.alignment import INNER, ORDERS, SMOOTH, TASKS, Order, displacement, modified_loss, walk
from multitune.experiments.funnels import task_gradients, task_losses
from multitune.experiments.synthetic import STARTS
from multitune.methods.two_loop import SequentialReptile

SHORT = 120
HERE = torch.tensor([4.0, 3.0], dtype=torch.float64)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "BUDGET", SHORT)


def _optimizer(name: str, point: nn.Parameter, learning_rate: float) -> torch.optim.Optimizer:
    if INNER[name].adaptive:
        return torch.optim.Adam([point], lr=learning_rate * INNER[name].scale, betas=(INNER[name].momentum, 0.999))
    return torch.optim.SGD([point], lr=learning_rate)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adam"])
def test_a_walk_is_that_of_sequential_reptile(short: None, name: str, order: Order) -> None:
    found = walk(INNER[name], order, 6, [0.3, 0.1], [0.02, 0.05], [5, 7])[:, 1, 0, 2, 1]
    tasks = alignment._drawn(order, [7])[:, 0]
    point = nn.Parameter(torch.tensor(STARTS[2], dtype=torch.float64))
    outer, expected = SequentialReptile(_optimizer(name, point, 0.02), inner_steps=6, outer_lr=0.1), []
    for step, task in enumerate(tasks, 1):
        outer.zero_grad()
        task_losses(point)[task].backward()
        outer.step()
        expected += [point.detach().clone()] if step % 6 == 0 else []
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-9, atol=1e-9)


def test_momentum_is_a_mean_of_past_gradients(short: None) -> None:
    found = walk(INNER["momentum"], "permuted", 1, [1.0], [0.05], [3])[:, 0, 0, 0, 0]
    at, past, expected = torch.tensor(STARTS[0], dtype=torch.float64), [], []
    for task in alignment._drawn("permuted", [3])[:, 0]:
        past.append(task_gradients(at)[task])
        weights = torch.tensor([0.9**age for age in reversed(range(len(past)))], dtype=torch.float64)
        at = at - 0.05 * (weights[:, None] * torch.stack(past)).sum(0) / weights.sum()
        expected.append(at)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", ORDERS)
def test_displacement_is_the_mean_over_all_orders(order: Order) -> None:
    orders = product(range(TASKS), repeat=3) if order == "independent" else permutations(range(TASKS))
    ends = []
    for tasks in orders:
        theta = HERE
        for task in tasks:
            theta = theta - 0.3 * task_gradients(theta)[task]
        ends.append(theta)
    found = displacement(torch.stack([HERE + 1, HERE]), 0.3, 3, order, 0.5)[1]
    torch.testing.assert_close(found, HERE - torch.stack(ends).mean(0))


def _gradient(point: Tensor, learning_rate: float, inner_steps: int, outer_lr: float, order: Order) -> Tensor:
    point = point.detach().requires_grad_()
    (found,) = torch.autograd.grad(modified_loss(point, learning_rate, inner_steps, outer_lr, order, SMOOTH), point)
    return found


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("inner_steps", [3, 6])
def test_the_modified_loss_has_the_displacement_to_second_order(order: Order, inner_steps: int) -> None:
    def error(rate: float) -> float:
        found = displacement(HERE, rate, inner_steps, order, SMOOTH) / (rate * inner_steps)
        return float((found - _gradient(HERE, rate, inner_steps, 0.0, order)).norm())

    assert error(1e-3) / error(5e-4) == pytest.approx(4.0, rel=0.05)
    assert error(1e-3) < 1e-3 * float(_gradient(HERE, 0.0, inner_steps, 0.0, order).norm())


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("outer_lr", [0.3, 1.0])
def test_outer_steps_follow_the_flow_of_the_modified_loss(order: Order, outer_lr: float) -> None:
    """One outer step is the flow's way in the time eta alpha K, up to alpha^3."""

    def error(rate: float) -> float:
        step, point, parts = outer_lr * displacement(HERE, rate, 3, order, SMOOTH), HERE, 8
        for _ in range(parts):  # by the midpoint rule
            time = outer_lr * rate * 3 / parts
            half = point - time / 2 * _gradient(point, rate, 3, outer_lr, order)
            point = point - time * _gradient(half, rate, 3, outer_lr, order)
        return float((HERE - step - point).norm())

    assert error(1e-3) / error(5e-4) == pytest.approx(8.0, rel=0.05)


@pytest.mark.parametrize("inner_steps", [3, 6, 30])
def test_with_eta_1_the_modified_loss_is_that_of_plain_steps(inner_steps: int) -> None:
    gradients = task_gradients(HERE, SMOOTH)
    mean, loss = gradients.mean(0).square().sum(), task_losses(HERE, SMOOTH).mean()
    independent = modified_loss(HERE, 0.1, inner_steps, 1.0, "independent", SMOOTH)
    permuted = modified_loss(HERE, 0.1, inner_steps, 1.0, "permuted", SMOOTH)
    torch.testing.assert_close(independent, loss + 0.1 / 4 * mean)  # Barrett & Dherin, 2021
    torch.testing.assert_close(permuted, loss + 0.1 / 4 * gradients.square().sum(-1).mean())  # Smith et al., 2021


def test_permuted_tasks_end_where_gradients_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "BUDGET", 6000)
    monkeypatch.setattr(alignment, "OUTER_RATES", (0.1,))
    monkeypatch.setattr(alignment, "LEARNING_RATES", (0.1,))
    monkeypatch.setattr(alignment, "SEEDS", 2)
    found = {
        (name, order): next(alignment._rests(name, order, 3, 0)).cosine.mean
        for name, order in product(("sgd", "rmsprop", "adam"), ORDERS)
    }
    for name in ("sgd", "rmsprop"):
        assert found[name, "permuted"] > 0.35
        assert found[name, "independent"] < 0.1
    assert found["adam", "permuted"] < -0.1


def test_the_seed_decides_and_the_file_holds_all(short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "SEEDS", 2)
    first, other = alignment.run(0), alignment.run(1)
    assert first.rests == alignment.run(0).rests != other.rests
    assert first.displacements == other.displacements
    first.write(tmp_path / "alignment.json")
    found = json.loads((tmp_path / "alignment.json").read_text())
    assert len(found["rests"]) == len(first.rests) == (2 * 4 + 3 * 2) * 16
    assert len(found["derived"]) == 2 * 3 * 4
    assert found["inner"]["adam"] == {"label": "Adam, beta1 = 0.9", "momentum": 0.9, "adaptive": True, "scale": 20.0}
