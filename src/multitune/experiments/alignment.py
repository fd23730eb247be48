"""What aligns gradients in the plane: the order of tasks, K, eta and the inner optimizer, and what a derivation says.

Eq. 7 of the Sequential Reptile paper, taken to the end for independent and for permuted tasks, is ``modified_loss``;
``displacement`` is what it approximates, by enumeration. docs/synthetic.md derives the one and shows where they agree.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations, product
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from multitune.evaluation.intervals import from_seeds
from multitune.experiments.funnels import OPTIMA, ROUNDING, cosines, funnel_gradient, task_gradients, task_losses
from multitune.experiments.synthetic import SEEDS, STARTS, TAIL
from multitune.methods.sampling import CategoricalSampler, EpochSampler, uniform
from multitune.results.comparison import Interval
from multitune.storage.atomic import write_json
from multitune.versions import versions

Order = Literal["independent", "permuted"]
ORDERS: tuple[Order, ...] = ("independent", "permuted")
"""Tasks drawn with replacement, as Algorithm 1 of the paper does, or each task once before any comes again."""
INNER_STEPS = (3, 6, 12, 30)
OUTER_RATES = (0.02, 0.1, 0.3, 1.0)
LEARNING_RATES = (0.05, 0.1, 0.2, 0.5)
BUDGET = 12_000
"""Gradient computations of a walk: enough for the smallest eta to arrive."""
DERIVED_RATES = (0.01, 0.02, 0.05, 0.1)
"""Inner learning rates at which the derivation is compared with walks."""
DERIVED_ETA = 0.1
DERIVED: tuple[tuple[Order, int], ...] = (("independent", 3), ("permuted", 3), ("permuted", 6))
SMOOTH = 3.0
"""Minima so rounded that a step of every one of DERIVED_RATES is small beside them; those of 0.5 are small funnels."""
PROBED_RATES = (0.005, 0.01, 0.02, 0.04)
PROBED_POINT = (4.0, 3.0)
"""Where the displacement is compared with its expansion, in the smooth plane."""
TASKS = len(OPTIMA)


@dataclass(frozen=True)
class Inner:
    """An inner optimizer.

    Attributes:
        label: for the reader.
        momentum: beta1, the weight of past gradients in a step; their mean starts without bias, as Adam's does.
        adaptive: steps are divided by the root of the mean square gradient, as Adam's are (beta2 0.999).
        scale: its learning rate is this many times SGD's, so that steps are about as long.
    """

    label: str
    momentum: float = 0.0
    adaptive: bool = False
    scale: float = 1.0


INNER = {
    "sgd": Inner("SGD"),
    "momentum": Inner("SGD, momentum 0.9", momentum=0.9),
    "rmsprop": Inner("Adam, beta1 = 0", adaptive=True, scale=20.0),
    "adam": Inner("Adam, beta1 = 0.9", momentum=0.9, adaptive=True, scale=20.0),
}


@dataclass(frozen=True)
class Rest:
    """The last quarter of walks of slow weights from all starts; intervals are 95 % over seeds.

    Attributes:
        inner: in ``INNER``.
        order: of tasks.
        inner_steps: K.
        outer_lr: eta.
        learning_rate: SGD's; an adaptive optimizer's is ``scale`` times as large.
        cosine: mean over the pairs of tasks.
        loss: sum_i L_i.
        distance: to the nearest optimum.
        ends: where the first seed's walks end, one a start.
    """

    inner: str
    order: Order
    inner_steps: int
    outer_lr: float
    learning_rate: float
    cosine: Interval
    loss: Interval
    distance: Interval
    ends: list[list[float]]


@dataclass(frozen=True)
class Derived:
    """Mean cosine at rest: of walks, where the modified loss is least, and of the expected walk.

    Attributes:
        rounding: of the minima.
        order: of tasks.
        inner_steps: K.
        learning_rate: alpha; eta is ``DERIVED_ETA``.
        walked: of walks, with a 95 % interval over seeds.
        modified: where gradient descent on ``modified_loss`` ends, from the same starts.
        expected: where phi <- phi - eta E[phi - theta^K] goes, the expectation by enumeration of all orders.
    """

    rounding: float
    order: Order
    inner_steps: int
    learning_rate: float
    walked: Interval
    modified: float
    expected: float


@dataclass(frozen=True)
class Displacement:
    """How far E[phi - theta^K] / (alpha K) is from two predictions, at ``PROBED_POINT`` in the smooth plane.

    Attributes:
        order: of tasks.
        learning_rate: alpha; K is 3.
        first_order: |error| of the mean gradient.
        second_order: |error| of the gradient of the modified loss of one inner loop (eta = 0).
    """

    order: Order
    learning_rate: float
    first_order: float
    second_order: float


@dataclass(frozen=True)
class Alignment:
    """All of it; ``rests`` vary order, K, eta and the learning rate, and at K = 3 the inner optimizer."""

    seed: int
    rests: list[Rest]
    derived: list[Derived]
    displacements: list[Displacement]

    def write(self, path: Path) -> None:
        """Write settings and outcomes as JSON."""
        settings = {"seed": self.seed, "seeds": SEEDS, "budget": BUDGET, "tail": TAIL, "derived_eta": DERIVED_ETA}
        parts = {name: [asdict(each) for each in getattr(self, name)] for name in ("rests", "derived", "displacements")}
        inner = {name: asdict(each) for name, each in INNER.items()}
        write_json(path, settings | {"inner": inner} | parts | {"versions": versions()})


def run(seed: int = 0) -> Alignment:
    """Walk with every order, K, eta, learning rate and inner optimizer, and compare with the derivation.

    Args:
        seed: of all that is drawn (``SEEDS`` different walks); the same seed gives the same numbers.
    """
    settings = [("sgd", order, K) for order, K in product(ORDERS, INNER_STEPS)]
    settings += [(name, order, TASKS) for name, order in product(INNER, ORDERS) if name != "sgd"]
    rests = [rest for name, order, K in settings for rest in _rests(name, order, K, seed)]
    derived = [
        one for rounding in (SMOOTH, ROUNDING) for order, K in DERIVED for one in _derived(rounding, order, K, seed)
    ]
    return Alignment(seed, rests, derived, list(_displacements()))


def modified_loss(
    points: Tensor, learning_rate: Tensor | float, inner_steps: int, outer_lr: float, order: Order, rounding: float
) -> Tensor:
    """What the slow weights descend to second order in alpha; in place of Eq. 7, which leaves its expectation open.

    mean_i L_i - alpha/4 (K - 1 - eta K) |g|^2, g the mean of the task gradients g_i; permuted tasks, whose number
    divides K, add alpha/4 mean_i |g_i - g|^2.

    Args:
        points: [..., 2].
        learning_rate: alpha, of a shape that fits the points.
        inner_steps: K.
        outer_lr: eta; 0 gives the potential of E[phi - theta^K] / (alpha K) alone.
        order: of tasks.
        rounding: of the minima.

    Returns:
        [...].
    """
    gradients = task_gradients(points, rounding)
    mean = gradients.mean(-2)
    reward = (inner_steps - 1 - outer_lr * inner_steps) * mean.square().sum(-1)
    variance = (gradients - mean[..., None, :]).square().sum(-1).mean(-1)
    penalty = variance if order == "permuted" else torch.zeros_like(variance)
    return task_losses(points, rounding).mean(-1) + learning_rate / 4 * (penalty - reward)


def displacement(
    points: Tensor, learning_rate: Tensor | float, inner_steps: int, order: Order, rounding: float
) -> Tensor:
    """E[phi - theta^K] over all orders of the tasks, each equally likely, with SGD inside.

    Args:
        points: phi, [..., 2].
        learning_rate: alpha, of a shape that fits [..., 1].
        inner_steps: K; a multiple of the number of tasks where the order is permuted.
        order: of tasks.
        rounding: of the minima.

    Returns:
        [..., 2].
    """
    tasks = torch.tensor(list(_orders(order, inner_steps)))
    ends = points.expand(len(tasks), *points.shape)
    for optima in points.new_tensor(OPTIMA)[tasks.T]:  # [orders, 2] a step
        aim = optima.view(-1, *[1] * (points.dim() - 1), 2)
        ends = ends - learning_rate * funnel_gradient(ends - aim, rounding)
    return points - ends.mean(0)


def _orders(order: Order, inner_steps: int) -> Iterator[tuple[int, ...]]:
    """All orders of the tasks of an inner loop."""
    if order == "independent":
        return product(range(TASKS), repeat=inner_steps)
    rounds = product(permutations(range(TASKS)), repeat=inner_steps // TASKS)
    return (sum(each, ()) for each in rounds)


def walk(
    inner: Inner,
    order: Order,
    inner_steps: int,
    outer_lrs: Sequence[float],
    learning_rates: Sequence[float],
    seeds: Sequence[int],
    rounding: float = ROUNDING,
) -> Tensor:
    """The slow weights of many walks at once, after each outer step.

    Args:
        inner: the inner optimizer, whose state is carried over outer steps.
        order: of tasks; those of a seed are the same in all walks.
        inner_steps: K.
        outer_lrs: eta of walks.
        learning_rates: alpha of walks, as SGD's.
        seeds: of what is drawn.
        rounding: of the minima.

    Returns:
        [outer steps, outer_lrs, learning_rates, starts, seeds, 2].
    """
    shape = (len(outer_lrs), len(learning_rates), len(STARTS), len(seeds))
    eta = torch.tensor(outer_lrs, dtype=torch.float64)[:, None, None, None, None]
    alpha = inner.scale * torch.tensor(learning_rates, dtype=torch.float64)[:, None, None, None]
    theta = torch.tensor(STARTS, dtype=torch.float64)[:, None].expand(*shape, 2)
    phi, first, second, record = theta, torch.zeros(()), torch.zeros(()), []
    for step, optima in enumerate(theta.new_tensor(OPTIMA)[_drawn(order, seeds)], 1):  # [seeds, 2] a step
        gradient = funnel_gradient(theta - optima, rounding)
        first = inner.momentum * first + (1 - inner.momentum) * gradient
        direction = first / (1 - inner.momentum**step)
        if inner.adaptive:
            second = 0.999 * second + 0.001 * gradient.square()
            direction = direction / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        theta = theta - alpha * direction
        if step % inner_steps == 0:
            phi = theta = phi + eta * (theta - phi)
            record.append(phi)
    return torch.stack(record)


def _drawn(order: Order, seeds: Sequence[int]) -> Tensor:
    """The tasks of each step, [BUDGET, seeds]."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    if order == "permuted":
        return torch.tensor([EpochSampler(TASKS, generator=one).draw(BUDGET) for one in generators]).T
    return torch.tensor([CategoricalSampler(uniform(TASKS), generator=one).draw(BUDGET) for one in generators]).T


def _rests(name: str, order: Order, inner_steps: int, seed: int) -> Iterator[Rest]:
    seeds = range(seed * SEEDS, (seed + 1) * SEEDS)
    paths = walk(INNER[name], order, inner_steps, OUTER_RATES, LEARNING_RATES, seeds)
    tail = paths[-round(TAIL * len(paths)) :]
    for at, outer_lr in enumerate(OUTER_RATES):
        for column, learning_rate in enumerate(LEARNING_RATES):
            own = tail[:, at, column]
            distance = (own[..., None, :] - own.new_tensor(OPTIMA)).norm(dim=-1).amin(-1)
            yield Rest(
                inner=name,
                order=order,
                inner_steps=inner_steps,
                outer_lr=outer_lr,
                learning_rate=learning_rate,
                cosine=_interval(cosines(own).mean(-1)),
                loss=_interval(task_losses(own).sum(-1)),
                distance=_interval(distance),
                ends=own[-1, :, 0].tolist(),
            )


def _interval(values: Tensor) -> Interval:
    """values: [records, starts, seeds]."""
    return from_seeds(values.mean((0, 1)).numpy())


def _derived(rounding: float, order: Order, inner_steps: int, seed: int) -> Iterator[Derived]:
    seeds = range(seed * SEEDS, (seed + 1) * SEEDS)
    paths = walk(INNER["sgd"], order, inner_steps, [DERIVED_ETA], DERIVED_RATES, seeds, rounding)
    walked = cosines(paths[-round(TAIL * len(paths)) :, 0]).mean(-1)
    rates = torch.tensor(DERIVED_RATES, dtype=torch.float64)[:, None]
    modified = _least(rates, order, inner_steps, rounding)
    expected = _expected(rates[..., None], order, inner_steps, rounding)
    for column, learning_rate in enumerate(DERIVED_RATES):
        yield Derived(
            rounding=rounding,
            order=order,
            inner_steps=inner_steps,
            learning_rate=learning_rate,
            walked=_interval(walked[:, column]),
            modified=float(cosines(modified[column]).mean()),
            expected=float(cosines(expected[:, column]).mean()),
        )


def _least(rates: Tensor, order: Order, inner_steps: int, rounding: float) -> Tensor:
    """Where gradient descent on the modified loss ends, [rates, starts, 2]."""
    points = torch.tensor(STARTS, dtype=torch.float64).expand(len(rates), TASKS, 2)
    for _ in range(BUDGET // 4):
        points = points.detach().requires_grad_()
        loss = modified_loss(points, rates, inner_steps, DERIVED_ETA, order, rounding)
        (gradient,) = torch.autograd.grad(loss.sum(), points)
        points = points - 0.01 * gradient
    return points.detach()


def _expected(rates: Tensor, order: Order, inner_steps: int, rounding: float) -> Tensor:
    """The last quarter of phi <- phi - eta E[phi - theta^K], [records, rates, starts, 2]."""
    points = torch.tensor(STARTS, dtype=torch.float64).expand(len(rates), TASKS, 2)
    record = []
    for _ in range(BUDGET // inner_steps):
        points = points - DERIVED_ETA * displacement(points, rates, inner_steps, order, rounding)
        record.append(points)
    return torch.stack(record[-round(TAIL * len(record)) :])


def _displacements() -> Iterator[Displacement]:
    point = torch.tensor(PROBED_POINT, dtype=torch.float64).requires_grad_()
    for order, rate in product(ORDERS, PROBED_RATES):
        loss = modified_loss(point, rate, TASKS, 0.0, order, SMOOTH)
        (predicted,) = torch.autograd.grad(loss, point)
        with torch.no_grad():
            found = displacement(point, rate, TASKS, order, SMOOTH) / (rate * TASKS)
            mean = task_gradients(point, SMOOTH).mean(-2)
        yield Displacement(order, rate, float((found - mean).norm()), float((found - predicted).norm()))
