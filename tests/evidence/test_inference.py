"""The study's intervals cover what they promise, by simulation, and its bounds are the published ones."""

import math

import numpy as np
import pytest

from inference import (
    crossed,
    estimate,
    holm,
    nominal,
    obrien_fleming,
    over_seeds,
    power,
    seeds_needed,
)

TRIALS = 1000


@pytest.mark.parametrize("seeds", [3, 5, 8])
def test_students_interval_over_paired_seeds_covers_what_it_promises_and_a_bootstrap_does_not(seeds: int) -> None:
    generator = np.random.default_rng(seeds)
    differences = generator.normal(0.7, 1.3, (TRIALS, seeds))
    found = [over_seeds(row, (0.0, math.inf)) for row in differences]
    covered = np.mean([each.low <= 0.7 <= each.high for each in found])
    draws = generator.integers(seeds, size=(200, seeds))
    low, high = np.percentile(differences[:, draws].mean(-1), [2.5, 97.5], axis=1)
    bootstrapped = np.mean((low <= 0.7) & (high >= 0.7))
    assert covered == pytest.approx(0.95, abs=0.02)
    assert bootstrapped < {3: 0.82, 5: 0.89, 8: 0.93}[seeds]


@pytest.mark.parametrize("share", [0.2, 1.0, 4.0])
def test_with_test_variance_the_interval_covers_new_test_rows(share: float) -> None:
    """A test set has an error that all seeds share, of ``share`` times the variance over five seeds."""
    generator, seeds, rows = np.random.default_rng(7), 5, 60
    common = generator.normal(0, math.sqrt(share / seeds), TRIALS)
    differences = common[:, None] + generator.normal(0, 1, (TRIALS, seeds))
    variances = share / seeds * generator.chisquare(rows - 1, TRIALS) / (rows - 1)
    pairs = zip(differences, variances, strict=True)
    found = [over_seeds(row, (variance, rows - 1)) for row, variance in pairs]
    assert np.mean([each.low <= 0 <= each.high for each in found]) == pytest.approx(0.955, abs=0.02)
    ignored = [over_seeds(row, (0.0, math.inf)) for row in differences]
    assert np.mean([each.low <= 0 <= each.high for each in ignored]) < {0.2: 0.95, 1.0: 0.91, 4.0: 0.77}[share]


def test_crossed_effects_find_their_variances_and_cover_new_seeds_and_languages() -> None:
    generator, seeds, languages = np.random.default_rng(1), 6, 20
    tables = (
        1.5
        + generator.normal(0, 1.0, (600, seeds, 1))
        + generator.normal(0, 2.0, (600, 1, languages))
        + generator.normal(0, 3.0, (600, seeds, languages))
    )
    found = [crossed(table) for table in tables]
    components = np.mean([(each.seeds, each.languages, each.rest) for _, each in found], axis=0)
    assert components == pytest.approx([1.0, 4.0, 9.0], rel=0.12)
    assert np.mean([each.low <= 1.5 <= each.high for each, _ in found]) == pytest.approx(0.95, abs=0.025)


def test_without_effects_crossed_variance_is_near_that_of_a_plain_mean() -> None:
    found = [crossed(table)[0] for table in np.random.default_rng(2).normal(0, 1, (600, 5, 12))]
    assert 1 / 60 <= np.mean([each.error**2 for each in found]) <= 1.6 / 60  # negative components count as zero
    assert np.mean([each.low <= 0 <= each.high for each in found]) >= 0.94


def test_a_constant_difference_has_an_interval_of_one_point() -> None:
    assert over_seeds(np.full(4, 2.0), (0.0, math.inf)).p == 0.0
    assert (estimate(0.0, [(0.0, 3)]).low, estimate(0.0, [(0.0, 3)]).p) == (0.0, 1.0)
    assert crossed(np.full((3, 4), 2.0))[0].high == 2.0


def test_satterthwaite_is_welchs() -> None:
    """The degrees of freedom of Welch's test of samples of 5 and 9 with variances 2 and 8."""
    found = estimate(1.0, [(2 / 5, 4), (8 / 9, 8)])
    assert found.df == pytest.approx((2 / 5 + 8 / 9) ** 2 / ((2 / 5) ** 2 / 4 + (8 / 9) ** 2 / 8))
    assert found.error == pytest.approx(math.sqrt(2 / 5 + 8 / 9))


@pytest.mark.parametrize(("looks", "constant"), [(1, 1.960), (2, 1.977), (3, 2.004), (4, 2.024), (5, 2.040)])
def test_bounds_are_the_published_ones(looks: int, constant: float) -> None:
    """Jennison and Turnbull, Group Sequential Methods (2000), Table 2.3."""
    bounds = obrien_fleming([(look + 1) / looks for look in range(looks)])
    assert bounds == pytest.approx([constant * math.sqrt(looks / (look + 1)) for look in range(looks)], abs=2e-3)


def test_two_looks_together_reject_as_often_as_promised() -> None:
    generator = np.random.default_rng(3)
    halves = generator.normal(size=(40_000, 2))
    z = np.stack([halves[:, 0], halves.sum(1) / math.sqrt(2)])
    bounds = np.array(obrien_fleming([0.5, 1.0]))
    assert np.mean((abs(z) > bounds[:, None]).any(0)) == pytest.approx(0.05, abs=0.004)
    assert nominal(bounds[0]) == pytest.approx(0.0052, abs=2e-4)


def test_holm_corrects_by_rank_and_never_falls() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == pytest.approx({"a": 1.0, "b": 1.0})
    assert holm({}) == {}


def test_seeds_have_the_power_that_is_wanted() -> None:
    """A paired t test of an effect of one SD has a power of 0.80 with ten pairs (Cohen's tables: 0.803)."""
    assert power(10, 1.0, 0.0, 1.0) == pytest.approx(0.803, abs=2e-3)
    assert seeds_needed(1.0, 0.0, 1.0, 0.8, least=5, most=50) == 10
    assert seeds_needed(0.1, 0.0, 1.0, 0.8, least=5, most=50) == 5
    assert seeds_needed(9.0, 0.0, 1.0, 0.8, least=5, most=12) == 12
    samples = np.random.default_rng(5).normal(1.0, 1.5, (20_000, 8))
    t = samples.mean(1) / (samples.std(1, ddof=1) / math.sqrt(8))
    assert np.mean(abs(t) > 2.3646) == pytest.approx(power(8, 1.5, 0.0, 1.0), abs=0.01)
