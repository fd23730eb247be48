"""Decay toward the weights of the start is its formula, whatever optimizer follows, within two loops too."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from multitune.methods import SequentialReptile, anchor

ALPHA, RATE = 2.0, 0.1
MAKERS: dict[str, Callable[[list[nn.Parameter]], Optimizer]] = {
    "sgd": lambda parameters: SGD(parameters, lr=RATE),
    "adamw": lambda parameters: AdamW(parameters, lr=RATE, weight_decay=0.3),
    "fused": lambda parameters: AdamW(parameters, lr=RATE, fused=True),
}


def weights() -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)) for _ in range(2)]


def gradient(step: int) -> Tensor:
    return torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64) * (step + 1)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_step_begins_with_the_share_of_the_way_back(make: Callable[[list[nn.Parameter]], Optimizer]) -> None:
    """w <- w + lr alpha (w0 - w), then what the optimizer would do there with the same gradient."""
    (pulled, free), (by_hand, _) = weights(), weights()
    start = pulled.detach().clone()
    optimizer, plain = make([pulled, free]), make([by_hand])
    anchor(optimizer, [pulled], ALPHA)
    for step in range(4):
        pulled.grad, free.grad, by_hand.grad = gradient(step), gradient(step), gradient(step)
        with torch.no_grad():
            by_hand.add_(start - by_hand, alpha=RATE * ALPHA)
        optimizer.step()
        plain.step()
        torch.testing.assert_close(pulled.detach(), by_hand.detach())
    assert float((free - pulled).detach().abs().max()) > 0.01, "only what is anchored is pulled"


def test_sgd_with_an_anchor_is_sgd_on_the_penalised_loss() -> None:
    """One step: w - lr (g + alpha (w - w0))."""
    pulled, _ = weights()
    start, optimizer = pulled.detach().clone(), SGD([pulled], lr=RATE)
    anchor(optimizer, [pulled], ALPHA)
    for step in range(3):
        before, pulled.grad = pulled.detach().clone(), gradient(step)
        optimizer.step()
        expected = before - RATE * (gradient(step) + ALPHA * (before - start))
        torch.testing.assert_close(pulled.detach(), expected)


def test_in_two_loops_the_fast_weights_are_pulled_to_the_start_and_the_slow_ones_follow() -> None:
    pulled, _ = weights()
    start = phi = theta = pulled.detach().clone()
    inner = SGD([pulled], lr=RATE)
    anchor(inner, [pulled], ALPHA)
    loop = SequentialReptile(inner, inner_steps=2, outer_lr=0.5)
    for step in range(6):
        pulled.grad = gradient(step)
        loop.step()
        theta = theta + RATE * ALPHA * (start - theta) - RATE * gradient(step)
        if step % 2:
            phi = theta = phi + 0.5 * (theta - phi)
        torch.testing.assert_close(pulled.detach(), theta)
    assert not torch.equal(phi, start)


def test_a_weight_without_gradient_stays_and_an_anchor_ends() -> None:
    pulled, free = weights()
    optimizer = SGD([pulled, free], lr=RATE)
    handle = anchor(optimizer, [pulled, free], ALPHA)
    with torch.no_grad():
        free.add_(1.0)
    before, pulled.grad = free.detach().clone(), gradient(0)
    optimizer.step()
    assert torch.equal(free, before)
    handle.remove()
    free.grad = torch.zeros_like(free)
    optimizer.step()
    assert torch.equal(free, before)


@pytest.mark.parametrize(("alpha", "said"), [(-1.0, "choose 0 or more"), (10.1, "choose at most 10")])
def test_what_no_anchor_can_be(alpha: float, said: str) -> None:
    own = weights()
    with pytest.raises(ValueError, match=said):
        anchor(SGD(own, lr=RATE), own, alpha)


def test_a_rate_that_a_scheduler_raises_is_refused_before_the_step() -> None:
    """Warm-up begins at zero, where any alpha would do."""
    pulled, free = weights()
    groups: list[dict[str, Any]] = [{"params": [pulled]}, {"params": [free], "lr": 50 * RATE}]
    optimizer = SGD(groups, lr=RATE)
    warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
    anchor(optimizer, [pulled], 15.0)
    for step in range(10):
        pulled.grad = free.grad = gradient(step)
        before = [pulled.detach().clone(), free.detach().clone()]
        if 15.0 * optimizer.param_groups[0]["lr"] > 1.0:
            with pytest.raises(ValueError, match=r"15 times the learning rate 0\.07 is above 1"):
                optimizer.step()
            assert torch.equal(pulled, before[0])
            assert torch.equal(free, before[1])
            return
        optimizer.step()
        warm_up.step()
    pytest.fail("no step was refused")
