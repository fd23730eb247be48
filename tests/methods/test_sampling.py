"""Distributions over tasks against worked examples, and samplers against their distributions at fixed seeds."""

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from multitune.methods.sampling import (
    CategoricalSampler,
    EpochSampler,
    PermutedSampler,
    SystematicSampler,
    TaskSampler,
    inclusion,
    proportional,
    uniform,
    unimax,
)

TYDIQA = [14805, 2390, 3696, 6855, 5702, 1625, 6490, 2755, 5563]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (proportional([1, 32, 243]), [1 / 6, 2 / 6, 3 / 6]),
        (proportional([1, 3], exponent=1.0), [0.25, 0.75]),
        (proportional([5, 10**15], exponent=0.0), [0.5, 0.5]),
        (proportional([10**300, 10**300], exponent=2.0), [0.5, 0.5]),
        (uniform(4), [0.25] * 4),
        # By hand: 120 / 3 = 40 is more than 2 * 10, so 20; 100 / 2 = 50 each for the others.
        (unimax([100, 10, 60], budget=120, max_epochs=2), [50 / 120, 20 / 120, 50 / 120]),
        # Nothing can use the whole budget: every task is at its limit of epochs, so in proportion to size.
        (unimax([30, 10], budget=1000, max_epochs=1), [0.75, 0.25]),
        # Nothing reaches its limit: uniform.
        (unimax([30, 10, 20], budget=3, max_epochs=1), [1 / 3] * 3),
        # The example that the package unimax-sampling prints (swe, fas, ekk, isl, fao).
        (
            unimax([179955884499, 184595788282, 42541080893, 10027573389, 549707867], 250_000_000_000, 4),
            [0.27692116663466665, 0.27692116663466665, 0.2769211666346667, 0.160441174224, 0.008795325872],
        ),
    ],
)
def test_probabilities(actual: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0.0)


def frequencies_agree(drawn: list[Any], probabilities: dict[Any, float]) -> bool:
    """Pearson's chi-square test at level 0.01; the p-value is the regularised upper incomplete gamma function."""
    counts = Counter(drawn)
    assert set(counts) <= set(probabilities)
    expected = {outcome: p * len(drawn) for outcome, p in probabilities.items()}
    statistic = sum((counts[outcome] - mean) ** 2 / mean for outcome, mean in expected.items())
    half_freedom = torch.tensor((len(expected) - 1) / 2)
    return float(torch.special.gammaincc(half_freedom, torch.tensor(statistic / 2))) > 0.01


@pytest.mark.parametrize(
    "probabilities", [proportional(TYDIQA), uniform(3), unimax(TYDIQA, 40000, 1.0), torch.tensor([0.0, 0.3, 0.7])]
)
@pytest.mark.parametrize("cut", [1, 10_000])
def test_draws_follow_the_probabilities(probabilities: Tensor, cut: int) -> None:
    sampler = CategoricalSampler(probabilities, generator=generator(1))
    drawn = [task for _ in range(10_000 // cut) for task in sampler.draw(cut)]
    assert frequencies_agree(drawn, {t: p for t, p in enumerate(probabilities.tolist()) if p})


SHARES = [proportional(TYDIQA), proportional(TYDIQA, 1.0), uniform(9), unimax(TYDIQA, 40000, 1.0)]


@pytest.mark.parametrize(
    ("probabilities", "n", "expected"),
    [
        ([0.5, 0.3, 0.2], 1, [0.5, 0.3, 0.2]),
        ([0.4, 0.3, 0.3], 2, [0.8, 0.6, 0.6]),
        ([0.8, 0.15, 0.05], 2, [1.0, 0.75, 0.25]),
        ([0.9, 0.05, 0.03, 0.02], 3, [1.0, 1.0, 0.6, 0.4]),  # the second is certain once the first is
        ([0.9, 0.1], 2, [1.0, 1.0]),
        ([0.0, 0.6, 0.4], 2, [0.0, 1.0, 1.0]),
    ],
)
def test_inclusion_is_as_near_to_proportional_as_distinctness_allows(
    probabilities: list[float], n: int, expected: list[float]
) -> None:
    found = inclusion(torch.tensor(probabilities, dtype=torch.float64), n)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(("draws", "within"), [(1000, 0.05), pytest.param(3000, 0.03, marks=pytest.mark.check)])
@pytest.mark.parametrize("n", [1, 4, 8, 9])
@pytest.mark.parametrize("probabilities", SHARES)
def test_weighted_distinct_draws_give_each_task_its_share(
    probabilities: Tensor, n: int, draws: int, within: float
) -> None:
    sampler = SystematicSampler(probabilities, generator=generator(2))
    times, shares = torch.zeros(9), torch.zeros(9, dtype=torch.float64)
    for _ in range(draws):
        drawn = sampler.draw(n)
        weights = sampler.weights(drawn)
        assert len(set(drawn)) == n
        assert float(weights.sum()) == pytest.approx(1.0)
        times[drawn] += 1 / draws
        shares[drawn] += weights / draws
    torch.testing.assert_close(shares, probabilities, atol=0.0 if n == 9 else within, rtol=1e-9)
    torch.testing.assert_close(times.double(), inclusion(probabilities, n), atol=within, rtol=0)


def test_distinct_draws_come_in_random_order_and_in_all_pairs() -> None:
    sampler = SystematicSampler(uniform(4), generator=generator(3))
    counts = Counter(tuple(sampler.draw(2)) for _ in range(6000))
    assert set(counts) == set(itertools.permutations(range(4), 2))
    assert min(counts.values()) > 300


@pytest.mark.parametrize("cuts", [[1] * 14, [7, 7], [3, 11], [14]])
def test_an_epoch_has_each_task_as_often_as_asked_for(cuts: list[int]) -> None:
    sampler = EpochSampler(3, generator=generator(3), times=[4, 1, 2])
    torch.testing.assert_close(sampler.probabilities * 7, torch.tensor([4.0, 1.0, 2.0], dtype=torch.float64))
    drawn = [task for n in cuts for task in sampler.draw(n)]
    assert [sorted(drawn[:7]), sorted(drawn[7:])] == [[0, 0, 0, 0, 1, 2, 2]] * 2


@pytest.mark.parametrize("cuts", [[1] * 60, [5] * 12, [3, 7] * 6, [60]])
def test_every_epoch_is_a_permutation_however_it_is_cut(cuts: list[int]) -> None:
    sampler = EpochSampler(5, generator=generator(3))
    drawn = [task for n in cuts for task in sampler.draw(n)]
    epochs = [tuple(drawn[i : i + 5]) for i in range(0, 60, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len(set(epochs)) > 1


def test_epochs_come_in_every_order() -> None:
    sampler = EpochSampler(3, generator=generator(4))
    drawn = [tuple(sampler.draw(3)) for _ in range(3_000)]
    assert frequencies_agree(drawn, dict.fromkeys(itertools.permutations(range(3)), 1 / 6))


@pytest.mark.parametrize("inner_steps", [1, 4, 9, 50])
@pytest.mark.parametrize("probabilities", [proportional(TYDIQA), uniform(9), torch.tensor([0.0, 0.05, 0.95])])
def test_inner_loops_meet_each_task_as_often_as_its_probability_says(probabilities: Tensor, inner_steps: int) -> None:
    """In every inner loop: rounded up or down. On average: exactly, by a test of the shares that were rounded up."""
    sampler, loops = PermutedSampler(probabilities, inner_steps, generator=generator(7)), 2_000
    counts = torch.stack(
        [torch.tensor(sampler.draw(inner_steps)).bincount(minlength=len(probabilities)) for _ in range(loops)]
    )
    expected = inner_steps * probabilities
    assert bool((counts.sum(1) == inner_steps).all())
    assert bool(((counts - expected).abs() < 1).all())
    up = expected - expected.floor()
    deviation = (up * (1 - up) / loops).sqrt()
    assert bool(((counts.double().mean(0) - expected).abs() <= 3.5 * deviation + 1e-9).all())


@pytest.mark.parametrize("cuts", [[1] * 60, [5] * 12, [3, 7] * 6, [60]])
def test_with_one_step_a_task_inner_loops_are_those_of_fish(cuts: list[int]) -> None:
    sampler = PermutedSampler(uniform(5), 5, generator=generator(3))
    drawn = [task for n in cuts for task in sampler.draw(n)]
    assert all(sorted(drawn[i : i + 5]) == [0, 1, 2, 3, 4] for i in range(0, 60, 5))
    three = PermutedSampler(uniform(3), 3, generator=generator(4))
    orders = [tuple(three.draw(3)) for _ in range(3_000)]
    assert frequencies_agree(orders, dict.fromkeys(itertools.permutations(range(3)), 1 / 6))


def test_an_inner_loop_that_begins_early_drops_what_is_left() -> None:
    sampler = PermutedSampler(uniform(4), 4, generator=generator(8))
    sampler.draw(3)
    sampler.begin(8)
    assert sorted(sampler.draw(8)) == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("drawn", [0, 2, 4, 6])
@pytest.mark.parametrize(
    "make", [lambda g: EpochSampler(4, generator=g), lambda g: PermutedSampler(uniform(4), 4, generator=g)]
)
def test_an_inner_loop_that_begins_after_loading_is_the_one_that_would_have_begun(
    make: Callable[[torch.Generator], EpochSampler | PermutedSampler], drawn: int
) -> None:
    first, second = make(generator(5)), make(generator(6))
    for _ in range(drawn):
        first.draw(1)
    second.load_state_dict(first.state_dict())
    for sampler in (first, second):
        sampler.begin(4)
    assert first.draw(12) == second.draw(12)


@pytest.mark.parametrize(
    "make",
    [
        lambda g: PermutedSampler(proportional(TYDIQA), 20, generator=g),
        lambda g: CategoricalSampler(proportional(TYDIQA), generator=g),
        lambda g: SystematicSampler(proportional(TYDIQA), generator=g),
        lambda g: EpochSampler(9, generator=g),
        lambda g: EpochSampler(2, generator=g, times=[2, 5]),
    ],
)
def test_state_continues_where_it_was_taken(make: Callable[[torch.Generator], TaskSampler]) -> None:
    first, second = make(generator(5)), make(generator(6))
    first.draw(7)
    second.draw(4)
    second.load_state_dict(first.state_dict())
    assert [first.draw(5) for _ in range(20)] == [second.draw(5) for _ in range(20)]


def test_a_state_from_before_the_first_draw_keeps_the_first_epoch() -> None:
    """An inner loop that begins then has nothing to drop."""
    first, second = EpochSampler(9, generator=generator(5)), EpochSampler(9, generator=generator(6))
    second.draw(4)
    second.load_state_dict(first.state_dict())
    second.load_state_dict(second.state_dict())
    for sampler in (first, second):
        sampler.begin(9)
    assert first.draw(30) == second.draw(30)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: proportional([3, 0, 1]), "task 1 has 0 training examples"),
        (lambda: unimax([3, -1], 10, 1), "task 1 has -1"),
        (lambda: proportional([]), "no tasks"),
        (lambda: proportional([1], exponent=-1.0), "exponent=-1.0"),
        (lambda: unimax([3], 0, 1), "budget=0"),
        (lambda: uniform(0), "num_tasks=0"),
        (lambda: EpochSampler(0, generator=generator()), "num_tasks=0"),
        (lambda: EpochSampler(3, generator=generator()).draw(0), "at least one"),
        (lambda: PermutedSampler(uniform(3), 0, generator=generator()), "inner_steps=0"),
        (lambda: PermutedSampler(uniform(3), 3, generator=generator()).begin(0), "inner_steps=0"),
        (lambda: PermutedSampler(uniform(3), 3, generator=generator()).draw(0), "at least one"),
        (lambda: PermutedSampler(torch.tensor([0.5, 0.4]), 3, generator=generator()), "sum to 0.9"),
        (lambda: CategoricalSampler(torch.tensor([0.5, 0.4]), generator=generator()), "sum to 0.9"),
        (lambda: CategoricalSampler(torch.tensor([1.5, -0.5]), generator=generator()), "non-negative"),
        (lambda: CategoricalSampler(torch.tensor([float("nan"), 1.0]), generator=generator()), "sum to nan"),
        (lambda: CategoricalSampler(uniform(3), generator=generator()).draw(0), "at least one"),
        (lambda: EpochSampler(2, generator=generator(), times=[1]), "times has 1 numbers for num_tasks=2"),
        (lambda: EpochSampler(2, generator=generator(), times=[1, 0]), "task 1 has 0"),
        (lambda: SystematicSampler(uniform(3) * 2, generator=generator()), "sum to 2.0"),
        (lambda: SystematicSampler(uniform(3), generator=generator()).draw(4), "4 distinct tasks of 3"),
        (lambda: SystematicSampler(uniform(3), generator=generator()).draw(0), "0 distinct tasks of 3"),
        (lambda: SystematicSampler(torch.tensor([1.0, 0.0]), generator=generator()).draw(2), "2 distinct tasks of 1"),
    ],
)
def test_mistakes_are_explained(mistake: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mistake()
