"""RecAdam against its equations stepped by hand in numpy, and against torch's AdamW where they must agree."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import AdamW

from multitune.methods.recadam import RecAdam, task_weight

Vector = NDArray[np.float64]


def by_hand(
    theta: Vector, gradients: list[Vector], *, lr: float, gamma: float, k: float, t0: float, decay: float
) -> Vector:
    """The authors' step, with theta* the first theta."""
    pretrained, m, v = theta.copy(), np.zeros_like(theta), np.zeros_like(theta)
    for t, g in enumerate(gradients, start=1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        weight = 1.0 / (1.0 + math.exp(-k * (t - t0)))
        step = lr * math.sqrt(1.0 - 0.999**t) / (1.0 - 0.9**t)
        theta = theta - step * weight * m / (np.sqrt(v) + 1e-6)
        theta = theta - lr * (1.0 - weight) * gamma * (theta - pretrained)
        theta = theta - lr * decay * theta
    return theta


def gradients(steps: int, scale: float = 1.0) -> list[Vector]:
    return list(scale * np.random.default_rng(0).normal(size=(steps, 6)))


def stepped(optimizer: torch.optim.Optimizer, parameter: Tensor, grads: list[Vector]) -> Vector:
    for g in grads:
        parameter.grad = torch.tensor(g)
        optimizer.step()
    return parameter.detach().numpy().copy()


def start() -> nn.Parameter:
    return nn.Parameter(torch.linspace(-1.0, 1.0, 6, dtype=torch.float64))


@pytest.mark.parametrize("scale", [1e-10, 1e-3, 1.0, 1e10])
@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 1e-2, "gamma": 10.0, "k": 0.5, "t0": 8.0, "decay": 0.0},
        {"lr": 1e-2, "gamma": 150.0, "k": 0.2, "t0": 5.0, "decay": 0.1},
        {"lr": 1e-3, "gamma": 1900.0, "k": 0.05, "t0": 100.0, "decay": 0.01},
        {"lr": 1e-2, "gamma": 0.0, "k": 1.0, "t0": 0.0, "decay": 0.0},
    ],
)
def test_matches_the_equations_by_hand(settings: dict[str, float], scale: float) -> None:
    x = start()
    grads = gradients(20, scale)
    expected = by_hand(x.detach().numpy().copy(), grads, **settings)
    options = {name: settings[name] for name in ("lr", "gamma", "k", "t0")}
    actual = stepped(RecAdam([x], weight_decay=settings["decay"], **options), x, grads)  # type: ignore[arg-type]
    np.testing.assert_allclose(actual, expected, rtol=1e-10)


def test_without_annealing_and_recall_it_is_adamw_at_half_rate_with_eps_moved() -> None:
    """lambda = 1/2; sqrt(v) + eps over sqrt(1 - beta2^t) is AdamW's denominator with eps / sqrt(1 - beta2^t)."""
    x, y = start(), start()
    grads = gradients(20, 1e-5)
    recadam = RecAdam([x], lr=1e-2, k=0.0, t0=0.0, gamma=0.0)
    adamw = AdamW([y], lr=0.5e-2, weight_decay=0.0)
    for t, g in enumerate(grads, start=1):
        adamw.param_groups[0]["eps"] = 1e-6 / math.sqrt(1.0 - 0.999**t)
        np.testing.assert_allclose(stepped(recadam, x, [g]), stepped(adamw, y, [g]), rtol=1e-12)


@pytest.mark.parametrize("eps", [0.0, 1e-14])
def test_without_eps_it_is_adamw_at_half_rate(eps: float) -> None:
    x, y = start(), start()
    recadam = RecAdam([x], lr=1e-2, k=0.0, t0=0.0, gamma=0.0, eps=eps)
    adamw = AdamW([y], lr=0.5e-2, weight_decay=0.0, eps=eps)
    np.testing.assert_allclose(stepped(recadam, x, gradients(20)), stepped(adamw, y, gradients(20)), rtol=1e-11)


def test_a_group_without_recall_is_adam_and_keeps_no_pretrained_weights() -> None:
    encoder, head, y = start(), start(), start()
    groups: list[dict[str, Any]] = [{"params": [encoder]}, {"params": [head], "recall": False}]
    recadam = RecAdam(groups, lr=1e-2, gamma=100.0, eps=0.0)
    adamw = AdamW([y], lr=1e-2, weight_decay=0.0, eps=0.0)
    np.testing.assert_allclose(stepped(recadam, head, gradients(9)), stepped(adamw, y, gradients(9)), rtol=1e-11)
    assert "pretrained" in recadam.state[encoder]
    assert "pretrained" not in recadam.state[head]


def test_a_parameter_without_gradient_stays_and_counts_its_own_steps() -> None:
    x, y = start(), start()
    both = RecAdam([x, y], lr=1e-2, gamma=50.0, k=0.3, t0=6.0)
    grads = gradients(10)
    for t, g in enumerate(grads):
        x.grad = torch.tensor(g)
        y.grad = torch.tensor(g) if t % 2 else None
        both.step()
    settings = {"lr": 1e-2, "gamma": 50.0, "k": 0.3, "t0": 6.0, "decay": 0.0}
    for parameter, seen in ((x, grads), (y, grads[1::2])):
        expected = by_hand(start().detach().numpy(), seen, **settings)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("step", "k", "t0", "weight"),
    [(250, 0.1, 250.0, 0.5), (7, 0.0, 1000.0, 0.5), (3, 1.0, 2.0, 0.7310585786300049), (1, 1.0, 5000.0, 0.0)],
)
def test_task_weight_is_a_sigmoid_of_the_step(step: int, k: float, t0: float, weight: float) -> None:
    assert task_weight(step, k, t0) == pytest.approx(weight, rel=1e-14, abs=1e-300)


def test_a_rate_may_be_a_tensor() -> None:
    """As of torch's optimizers, whose compiled steps want it."""
    x, y = start(), start()
    grads = gradients(6)
    number = RecAdam([x], lr=1e-2, gamma=20.0, t0=3.0)
    tensor = RecAdam([y], lr=torch.tensor(1e-2), gamma=20.0, t0=3.0)
    np.testing.assert_allclose(stepped(number, x, grads), stepped(tensor, y, grads), rtol=1e-6)


def test_complex_parameters_are_pairs_of_real_ones() -> None:
    pairs = nn.Parameter(torch.linspace(-1.0, 1.0, 6, dtype=torch.float64).view(3, 2))
    numbers = nn.Parameter(torch.view_as_complex(pairs.detach().clone()))
    both = [RecAdam([p], lr=1e-2, gamma=20.0, t0=3.0, weight_decay=0.1) for p in (pairs, numbers)]
    for g in gradients(6):
        pairs.grad = torch.tensor(g).view(3, 2)
        numbers.grad = torch.view_as_complex(pairs.grad.clone())
        for optimizer in both:
            optimizer.step()
    torch.testing.assert_close(torch.view_as_real(numbers), pairs.data, rtol=1e-14, atol=0)


def sparse() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    x = start()
    groups: list[dict[str, Any]] = [{"params": [x]}, {"params": table.parameters()}]
    optimizer = RecAdam(groups, gamma=10.0)
    x.grad = torch.ones_like(x)
    table(torch.tensor([1])).sum().backward()
    try:
        optimizer.step()
    finally:
        assert torch.equal(x, start()), "no weight has moved"


def grown() -> None:
    x = start()
    optimizer = RecAdam([x], lr=1e-5, gamma=5000.0)
    optimizer.param_groups[0]["lr"] = 1e-3
    stepped(optimizer, x, gradients(1))


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: RecAdam([start()], lr=1e-3, gamma=5000.0), "gamma below 2000"),
        (lambda: RecAdam([{"params": [start()], "gamma": 1e9}], lr=1e-5), "diverges"),
        (grown, "gamma below 2000"),
        (sparse, "no sparse gradients"),
        (lambda: RecAdam([start()], lr=-1.0), "lr=-1.0"),
        (lambda: RecAdam([start()], k=-1.0), "k=-1.0"),
        (lambda: RecAdam([start()], betas=(0.9, 1.0)), "betas"),
    ],
)
def test_mistakes_are_explained(mistake: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mistake()


def test_just_inside_the_bound_recall_returns_to_the_pretrained_weights() -> None:
    x = start()
    optimizer = RecAdam([x], lr=1e-3, gamma=1999.0, k=1.0, t0=1e6)
    with torch.no_grad():
        x.add_(1.0)
    stepped(optimizer, x, [np.zeros(6)] * 8000)
    np.testing.assert_allclose(x.detach().numpy(), start().detach().numpy(), atol=1e-3)


def test_step_returns_the_loss_of_its_closure() -> None:
    x = start()
    optimizer = RecAdam([x], lr=1e-3, gamma=1.0)

    def closure() -> float:
        loss = x.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == pytest.approx(2.8)
