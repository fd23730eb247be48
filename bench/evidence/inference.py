"""Intervals of paired differences: over seeds and test rows, over seeds and languages; looks, many tests, power."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import nct, norm
from scipy.stats import t as student_t

Array = NDArray[np.float64]
Test = TypeVar("Test", bound=Hashable)
POINTS = 400
"""Of the quadrature in ``obrien_fleming``."""


@dataclass(frozen=True)
class Estimate:
    """A mean difference with its interval.

    Attributes:
        mean, low, high: in the units of the differences.
        error: standard error.
        df: degrees of freedom of Student's t.
        p: two-sided, of no difference.
    """

    mean: float
    low: float
    high: float
    error: float
    df: float
    p: float


@dataclass(frozen=True)
class Components:
    """Variances of crossed random effects: of seeds, of languages, and of what is left."""

    seeds: float
    languages: float
    rest: float


def estimate(mean: float, variances: Sequence[tuple[float, float]], alpha: float = 0.05) -> Estimate:
    """A mean whose variance is a sum of independent estimates, by Satterthwaite's degrees of freedom.

    Args:
        variances: each part of the variance of the mean with its degrees of freedom.
        alpha: one minus the level of the interval.
    """
    total = sum(part for part, _ in variances)
    if total == 0.0:
        return Estimate(mean, mean, mean, 0.0, math.inf, float(mean == 0.0))
    below = sum(part**2 / df for part, df in variances)
    df, error = total**2 / below if below else math.inf, math.sqrt(total)
    half = error * float(student_t.ppf(1 - alpha / 2, df))
    return Estimate(mean, mean - half, mean + half, error, df, 2 * float(student_t.sf(abs(mean) / error, df)))


def over_seeds(differences: Array, test: tuple[float, float], alpha: float = 0.05) -> Estimate:
    """The mean of paired differences, [seeds > 1]: variance over seeds plus that of the test rows.

    Args:
        test: the variance of the mean when test rows are resampled, and its degrees of freedom.
    """
    seeds = len(differences)
    return estimate(float(differences.mean()), [(float(differences.var(ddof=1)) / seeds, seeds - 1), test], alpha)


def crossed(table: Array, alpha: float = 0.05) -> tuple[Estimate, Components]:
    """The mean of differences, [seeds > 1, languages > 1], with both as crossed random effects.

    d_sl = mu + S_s + L_l + e_sl; components by the analysis of variance, a negative one taken for zero; the mean has
    the variance var(S) / s + var(L) / l + var(e) / (s l).
    """
    seeds, languages = table.shape
    mean = float(table.mean())
    by_seed, by_language = table.mean(1), table.mean(0)
    squares = languages * float(by_seed.var(ddof=1)), seeds * float(by_language.var(ddof=1))
    rest = table - by_seed[:, None] - by_language[None, :] + mean
    dfs = seeds - 1, languages - 1, (seeds - 1) * (languages - 1)
    left = float((rest**2).sum()) / dfs[2]
    found = Components(max(0.0, (squares[0] - left) / languages), max(0.0, (squares[1] - left) / seeds), left)
    size = seeds * languages
    used = [(square / size, df) for square, df in zip(squares, dfs, strict=False) if square > left]
    correction = (1 - len(used)) * left / size
    variance = sum(part for part, _ in used) + correction
    below = sum(part**2 / df for part, df in used) + correction**2 / dfs[2]
    df = variance**2 / below if below else math.inf
    return estimate(mean, [(variance, df)], alpha), found


def obrien_fleming(fractions: Sequence[float], alpha: float = 0.05) -> list[float]:
    """The bounds of |z| at looks after fractions of the information, as O'Brien and Fleming (Biometrics, 1979).

    z_k is compared with c / sqrt(t_k), and c is such that no difference passes any bound with probability 1 - alpha.
    """
    c = _passed_by(tuple(fractions), alpha)
    return [c / math.sqrt(fraction / fractions[-1]) for fraction in fractions]


@lru_cache
def _passed_by(fractions: tuple[float, ...], alpha: float) -> float:
    """The bound of |z| at time 1, where each earlier one is wider, that noise passes with probability alpha."""
    return float(brentq(lambda bound: _stays_inside(bound, fractions) - (1 - alpha), 1.0, 5.0, xtol=1e-10))


def _stays_inside(bound: float, fractions: Sequence[float]) -> float:
    """The probability that Brownian motion is within +-bound at all looks; the last one is at time 1."""
    nodes, weights = np.polynomial.legendre.leggauss(POINTS)
    places, weights = bound * nodes, bound * weights
    density, before = np.asarray(norm.pdf(places, scale=math.sqrt(fractions[0] / fractions[-1]))), fractions[0]
    for fraction in fractions[1:]:
        step = math.sqrt((fraction - before) / fractions[-1])
        density = norm.pdf(places[:, None] - places[None, :], scale=step) @ (weights * density)
        before = fraction
    return float(weights @ density)


def nominal(bound: float) -> float:
    """The two-sided level of one look with a bound of |z|."""
    return 2 * float(norm.sf(bound))


def holm(p: Mapping[Test, float]) -> dict[Test, float]:
    """p-values corrected for their number (Holm, 1979), by name."""
    corrected, largest = dict[Test, float](), 0.0
    for rank, name in enumerate(sorted(p, key=lambda each: p[each])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[name]))
        corrected[name] = largest
    return {name: corrected[name] for name in p}


def power(seeds: int, sd: float, test_variance: float, difference: float, alpha: float = 0.05) -> float:
    """The probability that the t interval over paired seeds, with test variance, leaves zero out.

    Args:
        sd: of the paired differences.
    """
    parts = [(sd**2 / seeds, float(seeds - 1)), (test_variance, math.inf)]
    total = sum(part for part, _ in parts)
    if total == 0.0:
        return 1.0
    df = min(1e6, total**2 / (parts[0][0] ** 2 / (seeds - 1))) if sd else 1e6
    bound, away = float(student_t.ppf(1 - alpha / 2, df)), difference / math.sqrt(total)
    return float(nct.sf(bound, df, away) + nct.cdf(-bound, df, away))


def seeds_needed(sd: float, test_variance: float, difference: float, wanted: float, least: int, most: int) -> int:
    """The smallest number of seeds with the power that is wanted; ``most`` where no number up to it has it."""
    enough = (n for n in range(max(2, least), most) if power(n, sd, test_variance, difference) >= wanted)
    return next(enough, most)
