"""Weight averages against the plain arithmetic of their definitions."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multitune.methods.averaging import (
    ExponentialAverage,
    SnapshotAverage,
    WeightAverage,
    interpolated,
    mean_weights,
)

KINDS: list[Callable[[list[Tensor]], WeightAverage]] = [
    partial(ExponentialAverage, decay=0.9),
    partial(ExponentialAverage, decay=0.0),
    partial(SnapshotAverage, n=1),
    partial(SnapshotAverage, n=3),
]


def parameters() -> list[Tensor]:
    return [nn.Parameter(torch.zeros(2, 3, dtype=torch.float64)), nn.Parameter(torch.zeros((), dtype=torch.float64))]


def trajectory(steps: int) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [[torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters()] for _ in range(steps)]


def move(weights: list[Tensor], values: list[Tensor]) -> None:
    for p, value in zip(weights, values, strict=True):
        p.data.copy_(value)


def averaged(average: WeightAverage, weights: list[Tensor]) -> list[Tensor]:
    with average.weights():
        return [p.detach().clone() for p in weights]


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.75, 0.99])
def test_exponential_average_is_its_recurrence(decay: float) -> None:
    weights, values = parameters(), trajectory(7)
    average = ExponentialAverage(weights, decay)
    for value in values:
        move(weights, value)
        average.update()
    for i, result in enumerate(averaged(average, weights)):
        expected = torch.zeros_like(result)
        for step, value in enumerate(values, start=1):
            weight = max(1.0 - decay, 1.0 / step)
            expected = (1.0 - weight) * expected + weight * value[i]
        torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-14)


def test_exponential_average_begins_as_the_plain_mean() -> None:
    weights, values = parameters(), trajectory(7)
    average = ExponentialAverage(weights, decay=0.9)
    for value in values:
        move(weights, value)
        average.update()
    torch.testing.assert_close(averaged(average, weights)[0], torch.stack([value[0] for value in values]).mean(0))


@pytest.mark.parametrize("decay", [0.2, 0.9])
def test_a_value_weighs_as_much_as_one_that_was_taken_at_each_moment(decay: float) -> None:
    """Values that come k moments apart have the weights that k updates with each of them would have."""
    weights, values = parameters(), trajectory(4)
    seldom, often = ExponentialAverage(weights, decay), ExponentialAverage(weights, decay)
    for value, elapsed in zip(values, (3, 1, 5, 2), strict=True):
        move(weights, value)
        seldom.update(elapsed)
        for _ in range(elapsed):
            often.update()
    torch.testing.assert_close(averaged(seldom, weights), averaged(often, weights), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [partial(ExponentialAverage, decay=0.999), partial(SnapshotAverage, n=50)])
def test_averages_of_low_precision_move(kind: Callable[[list[Tensor]], WeightAverage], dtype: torch.dtype) -> None:
    """A hundredth of the way of one unit in the last place a value: no bf16 or fp16 number could take it in."""
    weight = torch.ones(3, dtype=dtype)
    average = kind([weight])
    for _ in range(25):
        average.update()
    weight += torch.finfo(dtype).eps
    for _ in range(25):
        average.update()
    kept = average.state_dict()["kept"]
    assert {value.dtype for values in kept for value in values} == {torch.float32}
    mean = torch.stack([values[0] for values in kept]).mean(0)
    torch.testing.assert_close(mean, torch.full((3,), 1 + torch.finfo(dtype).eps / 2))
    assert averaged(average, [weight])[0].dtype == dtype


@pytest.mark.parametrize(("n", "updates"), [(1, 4), (3, 2), (3, 3), (3, 7)])
def test_snapshot_average_is_the_mean_of_the_last(n: int, updates: int) -> None:
    weights, values = parameters(), trajectory(updates)
    average = SnapshotAverage(weights, n)
    for value in values:
        move(weights, value)
        average.update()
    for i, result in enumerate(averaged(average, weights)):
        expected = torch.stack([value[i] for value in values[-n:]]).mean(0)
        torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_the_parameters_own_values_come_back_bitwise(kind: Callable[[list[Tensor]], WeightAverage]) -> None:
    weights = parameters()
    average = kind(weights)
    for value in trajectory(4):
        move(weights, value)
        average.update()
    own = trajectory(5)[-1]
    move(weights, own)
    assert not torch.equal(averaged(average, weights)[0], own[0])
    with pytest.raises(KeyError), average.weights():
        raise KeyError("evaluation failed")
    assert all(torch.equal(p, value) for p, value in zip(weights, own, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_an_average_of_one_point_is_that_point_bitwise(kind: Callable[[list[Tensor]], WeightAverage]) -> None:
    weights, (point,) = parameters(), trajectory(1)
    average = kind(weights)
    move(weights, point)
    for _ in range(5):
        average.update()
    assert all(torch.equal(result, value) for result, value in zip(averaged(average, weights), point, strict=True))


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: ExponentialAverage(parameters(), decay=1.0), "decay=1.0"),
        (lambda: SnapshotAverage(parameters(), n=0), "n=0"),
        (lambda: SnapshotAverage([]), "no parameters"),
        (lambda: ExponentialAverage(parameters()).update(0.0), "elapsed=0.0"),
        (lambda: SnapshotAverage(parameters()).update(float("nan")), "elapsed=nan"),
        (lambda: ExponentialAverage(parameters()).weights().__enter__(), r"call update\(\) first"),
        (
            lambda: SnapshotAverage(parameters()).load_state_dict({"kept": [[torch.ones(1)]]}),
            "other parameters",
        ),
    ],
)
def test_mistakes_are_explained(mistake: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mistake()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mean_of_models_is_the_formula(dtype: torch.dtype) -> None:
    models = [[torch.full((2, 3), value, dtype=dtype), torch.tensor([value], dtype=dtype)] for value in (1, 2, 6)]
    for weights in mean_weights(iter(models)):
        assert weights.dtype == torch.float32
        torch.testing.assert_close(weights, torch.full_like(weights, 3.0))
    assert float(models[0][1]) == 1.0, "none is written to"


def test_a_point_between_models_is_the_formula_and_exact_at_the_ends() -> None:
    draw = torch.Generator().manual_seed(0)
    start, end = ([torch.randn(5, generator=draw), torch.randn(2, 2, generator=draw)] for _ in range(2))
    for weight in (0.0, 0.1, 0.5, 0.9, 1.0):
        for made, a, b in zip(interpolated(start, end, weight), start, end, strict=True):
            torch.testing.assert_close(made, a + weight * (b - a))
            assert weight not in (0.0, 1.0) or torch.equal(made, b if weight else a)
    assert interpolated([], [], 0.5) == []


def test_models_without_points_between_them() -> None:
    one, other = [torch.ones(2)], [torch.ones(3)]
    with pytest.raises(ValueError, match="other shapes"):
        mean_weights([one, other])
    with pytest.raises(ValueError, match="other shapes"):
        interpolated(one, other, 0.5)
    with pytest.raises(ValueError, match="no models"):
        mean_weights([])
    with pytest.raises(ValueError, match=r"weight=1\.5: choose 0 to 1"):
        interpolated(one, one, 1.5)
