"""The two-loop engine against literal references, another library's Lookahead, and the paper's Appendix C."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import pytorch_optimizer
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, AdamW, Optimizer

from multitune.methods.reptile import Reptile
from multitune.methods.schedule import Linear
from multitune.methods.two_loop import Fish, Lookahead, SequentialReptile, TwoLoop
from small_network import network, same, train, weights

FLOAT = torch.float64
ADAMW = partial(AdamW, lr=1e-2, weight_decay=0.01)
NESTEROV = partial(SGD, momentum=0.9, nesterov=True)


class Quadratics:
    """L_t(x) = (x - c_t)^T A_t (x - c_t) / 2 with symmetric A_t, in R^d."""

    def __init__(self, tasks: int, d: int = 4) -> None:
        rng = np.random.default_rng(tasks)
        factors = rng.normal(size=(tasks, d, d))
        self.a = factors @ factors.transpose(0, 2, 1) / d
        self.c = rng.normal(size=(tasks, d))
        self.start = rng.normal(size=d)

    def gradient(self, x: NDArray[np.float64], task: int) -> NDArray[np.float64]:
        return self.a[task] @ (x - self.c[task])  # type: ignore[no-any-return]

    def loss(self, x: Tensor, task: int) -> Tensor:
        offset = x - torch.tensor(self.c[task])
        return 0.5 * offset @ torch.tensor(self.a[task]) @ offset

    def parameter(self) -> nn.Parameter:
        return nn.Parameter(torch.tensor(self.start))


def walk(problem: Quadratics, x: nn.Parameter, optimizer: Optimizer, tasks: Sequence[int]) -> None:
    for task in tasks:
        optimizer.zero_grad()
        problem.loss(x, task).backward()
        optimizer.step()


def literal(problem: Quadratics, tasks: Sequence[int], k: int, alpha: float, eta: float) -> NDArray[np.float64]:
    """Algorithm 1, line by line, for whole inner loops."""
    phi = problem.start.copy()
    for first in range(0, len(tasks), k):
        theta = phi.copy()
        for task in tasks[first : first + k]:
            theta = theta - alpha * problem.gradient(theta, task)
        phi = phi - eta * (phi - theta)
    return phi


@pytest.mark.parametrize("method", [SequentialReptile, Lookahead, Fish])
@pytest.mark.parametrize("tasks", [1, 2, 5])
@pytest.mark.parametrize(("k", "eta"), [(1, 0.3), (3, 0.1), (4, 0.5), (6, 1.0), (12, 0.9)])
def test_matches_the_algorithm_line_by_line(method: type[TwoLoop], tasks: int, k: int, eta: float) -> None:
    problem = Quadratics(tasks)
    order = np.random.default_rng(k).integers(tasks, size=12).tolist()
    x = problem.parameter()
    walk(problem, x, method(SGD([x], lr=0.1), k, eta), order)
    np.testing.assert_allclose(x.detach().numpy(), literal(problem, order, k, 0.1, eta), rtol=1e-12)


@pytest.mark.parametrize("inner_state", ["carry", "reset"])
@pytest.mark.parametrize("tasks", [1, 2, 4])
def test_reptile_is_the_mean_of_trajectories_that_have_their_own_optimizers(tasks: int, inner_state: Any) -> None:
    problem, k, eta, rounds = Quadratics(tasks), 3, 0.4, 3
    phi = torch.tensor(problem.start)
    copies = [problem.parameter() for _ in range(tasks)]
    optimizers = [ADAMW([theta]) for theta in copies]
    for _ in range(rounds):
        for task, theta in enumerate(copies):
            if inner_state == "reset":
                optimizers[task] = ADAMW([theta])
            theta.data.copy_(phi)
            walk(problem, theta, optimizers[task], [task] * k)
        phi = phi - eta * torch.stack([phi - theta.detach() for theta in copies]).mean(0)

    x = problem.parameter()
    reptile = Reptile(ADAMW([x]), k, eta, num_tasks=tasks, inner_state=inner_state)
    for _ in range(rounds * tasks * k):
        walk(problem, x, reptile, [reptile.task])
    torch.testing.assert_close(x.detach(), phi, rtol=1e-12, atol=1e-14)
    assert (reptile.outer_steps, reptile.task, reptile.inner_step) == (rounds, 0, 0)


@pytest.mark.parametrize(("k", "eta"), [(1, 0.5), (5, 0.5), (7, 0.1), (4, 0.95)])
def test_is_pytorch_optimizers_lookahead(k: int, eta: float) -> None:
    theirs, ours = network(dtype=FLOAT), network(dtype=FLOAT)
    train(theirs, pytorch_optimizer.Lookahead(ADAMW(theirs.parameters()), k=k, alpha=eta), range(30))
    train(ours, SequentialReptile(ADAMW(ours.parameters()), k, eta), range(30))
    for mine, other in zip(weights(ours), weights(theirs), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("make", [ADAMW, partial(SGD, lr=0.1, momentum=0.9), partial(Adagrad, lr=0.1)])
def test_outer_rate_one_is_plain_steps_bitwise(make: Callable[..., Optimizer]) -> None:
    plain, wrapped = network(), network()
    train(plain, make(plain.parameters()), range(23))
    two_loop = SequentialReptile(make(wrapped.parameters()), inner_steps=5, outer_lr=1.0)
    train(wrapped, two_loop, range(23))
    two_loop.finish()
    assert same(weights(plain), weights(wrapped))


@pytest.mark.parametrize("inner_state", ["carry", "reset"])
@pytest.mark.parametrize("outer", [None, NESTEROV])
@pytest.mark.parametrize("make", [ADAMW, partial(Adagrad, lr=0.1)])
def test_reptile_with_one_task_is_sequential_reptile(make: Any, outer: Any, inner_state: Any) -> None:
    a, b = network(), network()
    options = {"inner_steps": 4, "outer_lr": 0.3, "inner_state": inner_state, "outer_optimizer": outer}
    for model, two_loop in (
        (a, SequentialReptile(make(a.parameters()), **options)),
        (b, Reptile(make(b.parameters()), num_tasks=1, **options)),
    ):
        train(model, two_loop, range(14))
        two_loop.close_inner_loop()
    assert same(weights(a), weights(b))


def test_mean_displacement_matches_appendix_c_to_third_order() -> None:
    """E[phi - theta^K] = alpha d/dphi E[sum L_k - alpha/2 sum_{j<k} <g_k, g_j>] + O(alpha^3), over all sequences."""
    problem, k, eta = Quadratics(2), 3, 0.1
    sequences = list(itertools.product(range(2), repeat=k))

    def displacement(alpha: float) -> Tensor:
        total = torch.zeros(4, dtype=FLOAT)
        for tasks in sequences:
            x = problem.parameter()
            walk(problem, x, SequentialReptile(SGD([x], lr=alpha), k, eta), tasks)
            total += torch.tensor(problem.start) - x.detach()
        return total / len(sequences) / eta

    def expansion(alpha: float) -> Tensor:
        phi = problem.parameter()
        objective = torch.zeros((), dtype=FLOAT)
        for tasks in sequences:
            losses = [problem.loss(phi, task) for task in tasks]
            g = [torch.autograd.grad(loss, phi, create_graph=True)[0] for loss in losses]
            products = sum((g[i] @ g[j] for i in range(k) for j in range(i)), torch.zeros((), dtype=FLOAT))
            objective = objective + (sum(losses, torch.zeros((), dtype=FLOAT)) - alpha / 2 * products) / len(sequences)
        return alpha * torch.autograd.grad(objective, phi)[0]

    coarse, fine = ((displacement(a) - expansion(a)).norm().item() for a in (2e-3, 1e-3))
    assert coarse / fine == pytest.approx(8.0, rel=0.02)
    assert fine < 1e-4 * displacement(1e-3).norm().item()


def test_outer_sgd_is_the_interpolation() -> None:
    a, b = network(dtype=FLOAT), network(dtype=FLOAT)
    train(a, SequentialReptile(ADAMW(a.parameters()), 3, 0.3), range(12))
    train(b, SequentialReptile(ADAMW(b.parameters()), 3, 0.3, outer_optimizer=SGD), range(12))
    for x, y in zip(weights(a), weights(b), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-14)


def test_nesterov_outside_is_dilocos() -> None:
    problem, k, eta, mu, alpha = Quadratics(3), 4, 0.7, 0.9, 0.05
    order = [0, 1, 2, 2, 1, 0] * 4
    phi, momentum = problem.start.copy(), np.zeros(4)
    for first in range(0, len(order), k):
        theta = phi.copy()
        for task in order[first : first + k]:
            theta = theta - alpha * problem.gradient(theta, task)
        delta = phi - theta
        momentum = mu * momentum + delta
        phi = phi - eta * (delta + mu * momentum)
    x = problem.parameter()
    walk(problem, x, SequentialReptile(SGD([x], lr=alpha), k, eta, outer_optimizer=NESTEROV), order)
    np.testing.assert_allclose(x.detach().numpy(), phi, rtol=1e-12)


@pytest.mark.parametrize("make", [ADAMW, partial(Adagrad, lr=0.1, initial_accumulator_value=0.5)])
def test_reset_is_a_new_optimizer_for_every_inner_loop(make: Any) -> None:
    a, b = network(), network()
    for first in range(0, 12, 4):
        start = weights(a)
        train(a, make(a.parameters()), range(first, first + 4))
        for p, phi in zip(a.parameters(), start, strict=True):
            p.data.copy_(torch.lerp(phi, p.data, 0.3))
    train(b, SequentialReptile(make(b.parameters()), 4, 0.3, inner_state="reset"), range(12))
    assert same(weights(a), weights(b))


@pytest.mark.parametrize("outer", [None, SGD])
def test_schedules_of_both_settings_follow_the_progress(outer: Any) -> None:
    problem, alpha, order = Quadratics(2), 0.1, [0, 1, 1, 0, 1, 0, 0, 1, 0, 1]
    x = problem.parameter()
    schedules = Linear(2.0, 5.0, until=0.5), Linear(0.2, 1.0)
    two_loop = SequentialReptile(SGD([x], lr=alpha), *schedules, outer_optimizer=outer)
    for i, task in enumerate(order):
        two_loop.progress = i / len(order)
        walk(problem, x, two_loop, [task])

    # Inner loops begin at steps 0, 2 and 5: K = 2, round(2 + 3 * 0.4) = 3, 5; eta is read with their last steps.
    phi = problem.start.copy()
    for first, last in ((0, 2), (2, 5), (5, 10)):
        theta = phi.copy()
        for task in order[first:last]:
            theta = theta - alpha * problem.gradient(theta, task)
        phi = phi - (0.2 + 0.8 * (last - 1) / len(order)) * (phi - theta)
    np.testing.assert_allclose(x.detach().numpy(), phi, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "steps"),
    [(SequentialReptile, 7), (partial(Reptile, num_tasks=2), 6), (partial(Reptile, num_tasks=2), 12)],
)
@pytest.mark.filterwarnings("ignore:finish.. after few outer steps")
def test_finish_closes_what_is_open_once(make: Callable[..., TwoLoop], steps: int) -> None:
    model = network(dtype=FLOAT)
    two_loop = make(ADAMW(model.parameters()), inner_steps=4, outer_lr=0.5)
    train(model, two_loop, range(steps))
    assert not two_loop.between_loops
    two_loop.finish()
    assert two_loop.between_loops
    closed = weights(model)
    with two_loop.slow_weights():
        assert same(weights(model), closed)
    two_loop.finish()
    assert same(weights(model), closed)
    assert two_loop.outer_steps == steps // 8 + 1 if isinstance(two_loop, Reptile) else steps // 4 + 1


@pytest.mark.parametrize("tasks", [[0], [0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1, 1, 1, 2]])
@pytest.mark.parametrize("slow_device", [None, "cpu"])
def test_finish_of_reptile_weighs_all_trajectories_equally(tasks: list[int], slow_device: str | None) -> None:
    """Those that have not begun are where they would begin, so that the first tasks alone do not decide."""
    problem, alpha, eta = Quadratics(3), 0.1, 0.5
    x = problem.parameter()
    reptile = Reptile(SGD([x], lr=alpha), 3, eta, num_tasks=3, slow_device=slow_device)
    walk(problem, x, reptile, tasks)
    reptile.close_inner_loop()
    ends = [literal(problem, [task] * tasks.count(task), 3, alpha, 1.0) for task in range(3)]
    expected = problem.start - eta * (problem.start - np.mean(ends, axis=0))
    np.testing.assert_allclose(x.detach().numpy(), expected, rtol=1e-12)
    assert (reptile.task, reptile.outer_steps) == (0, 1)


METHODS = [SequentialReptile, partial(Reptile, num_tasks=3)]


@pytest.mark.parametrize("make", METHODS)
def test_slow_weights_show_phi_and_give_the_fast_weights_back_bitwise(make: Callable[..., TwoLoop]) -> None:
    model, undisturbed = network(), network()
    start = weights(model)
    two_loop = make(ADAMW(model.parameters()), inner_steps=8)
    train(model, two_loop, range(5))
    fast = weights(model)
    with two_loop.slow_weights():
        assert same(weights(model), start)
    assert same(weights(model), fast)
    with pytest.raises(KeyError), two_loop.slow_weights():
        raise KeyError("evaluation failed")
    assert same(weights(model), fast)
    train(model, two_loop, range(5, 30))
    train(undisturbed, make(ADAMW(undisturbed.parameters()), inner_steps=8), range(30))
    assert same(weights(model), weights(undisturbed))


def test_touches_the_parameters_of_the_optimizer_only() -> None:
    model = network()
    head = model[2]
    before = weights(head)
    two_loop = SequentialReptile(ADAMW(model[0].parameters()), 2)
    train(model, two_loop, range(4))
    assert same(weights(head), before)


def test_default_outer_optimizer_keeps_exactly_one_more_copy() -> None:
    model = network()
    inner = ADAMW(model.parameters())
    train(model, inner, range(2))
    two_loop = SequentialReptile(inner, 2)
    train(model, two_loop, range(5))
    added = [{*entries} - {*inner.state[p]} for p, entries in two_loop.state.items()]
    assert added == [{"slow"}] * 4
    assert [entries["slow"].shape for entries in two_loop.state.values()] == [p.shape for p in model.parameters()]


@pytest.mark.parametrize("on_inner", [False, True])
def test_learning_rate_scheduler_acts_on_the_inner_optimizer(on_inner: bool) -> None:
    plain, wrapped = network(), network()
    reference = ADAMW(plain.parameters())
    inner = ADAMW(wrapped.parameters())
    two_loop = SequentialReptile(inner, 3, 1.0)
    for model, optimizer, scheduled in (
        (plain, reference, reference),
        (wrapped, two_loop, inner if on_inner else two_loop),
    ):
        scheduler = torch.optim.lr_scheduler.LambdaLR(scheduled, lambda step: 1.0 / (1 + step))
        for i in range(7):
            train(model, optimizer, [i])
            scheduler.step()
    assert same(weights(plain), weights(wrapped))


def test_step_returns_the_loss_of_its_closure() -> None:
    assert SequentialReptile(SGD([nn.Parameter(torch.ones(1))], lr=0.5)).step(lambda: 3.0) == 3.0


def test_continues_after_the_inner_optimizers_own_load() -> None:
    model = network()
    inner = ADAMW(model.parameters())
    two_loop = SequentialReptile(inner, 4)
    train(model, two_loop, range(2))
    inner.load_state_dict(inner.state_dict())
    train(model, two_loop, [2])
    assert two_loop.param_groups is inner.param_groups
    assert (two_loop.inner_step, float(two_loop.state[next(model.parameters())]["step"])) == (3, 3)


def wrapped(**options: Any) -> SequentialReptile:
    return SequentialReptile(ADAMW(network().parameters()), **options)


def begun(**options: Any) -> dict[str, Any]:
    model = network()
    two_loop = SequentialReptile(ADAMW(model.parameters()), 2, **options)
    train(model, two_loop, range(3))
    return two_loop.state_dict()


MISTAKES: list[tuple[Callable[[], Any], str]] = [
    (lambda: wrapped(inner_steps=0), "at least one inner step"),
    (lambda: wrapped(inner_steps=2.5), "inner_steps=2.5: .* a whole number"),
    (lambda: wrapped(inner_steps=float("nan")), "inner_steps=nan"),
    (lambda: wrapped(inner_steps=Linear(0.2, 3.0)), "inner_steps=0"),
    (lambda: wrapped(inner_steps=lambda progress: float("inf")), "inner_steps=inf"),
    (lambda: wrapped(outer_lr=-0.1), "outer_lr=-0.1"),
    (lambda: wrapped(outer_lr=0.0), "outer_lr=0.0: choose above 0 and up to 1"),
    (lambda: wrapped(outer_lr=1.5), "outer_lr=1.5"),
    (lambda: wrapped(outer_lr=Linear(2.0, 1.0)), "outer_lr=2.0"),
    (lambda: wrapped(outer_lr=float("nan")), "outer_lr=nan"),
    (lambda: wrapped(inner_state="keep"), "'carry' or 'reset'"),
    (lambda: wrapped(inner_steps=Linear(2.0, 4.0)).step(), "set .progress"),
    (lambda: wrapped(outer_lr=Linear(0.1, 1.0)).step(), "set .progress"),
    (lambda: Reptile(ADAMW(network().parameters()), num_tasks=0), "num_tasks=0"),
    (lambda: wrapped().load_state_dict(begun(outer_optimizer=NESTEROV)), "with an outer_optimizer: give the same"),
    (
        lambda: SequentialReptile(SGD([nn.Parameter(torch.ones(2))], lr=0.1)).load_state_dict(begun()),
        "other parameters",
    ),
    (
        lambda: SequentialReptile(SGD([nn.Parameter(torch.ones(2)) for _ in range(4)], lr=0.1)).load_state_dict(
            begun()
        ),
        "other parameters",
    ),
]


def test_an_outer_rate_may_fall_to_zero() -> None:
    model = network()
    two_loop = SequentialReptile(ADAMW(model.parameters()), 1, Linear(1.0, 0.0))
    two_loop.progress = 1.0
    start = weights(model)
    train(model, two_loop, range(1))
    assert same(weights(model), start)


@pytest.mark.parametrize(("mistake", "message"), MISTAKES)
def test_mistakes_are_explained(mistake: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mistake()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("outer", [None, NESTEROV])
def test_slow_weights_on_the_cpu(outer: Any) -> None:
    a, b = network().cuda(), network().cuda()
    for model, device in ((a, None), (b, "cpu")):
        two_loop = Reptile(ADAMW(model.parameters()), 2, 0.3, num_tasks=2, outer_optimizer=outer, slow_device=device)
        for i in range(9):
            x = torch.randn(6, 3, generator=torch.Generator().manual_seed(i)).cuda()
            two_loop.zero_grad()
            model(x).square().mean().backward()
            two_loop.step()
        with two_loop.slow_weights():
            pass
        two_loop.finish()
    for x, y in zip(weights(a), weights(b), strict=True):
        torch.testing.assert_close(x, y)
