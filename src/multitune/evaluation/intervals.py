"""95 % intervals: a paired bootstrap over test examples, clusters of them at once; Student's t over seeds; both."""

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit  # scipy.stats would take a second to import

from multitune.evaluation.scoring import Sample
from multitune.results.comparison import Interval
from multitune.tasks import HeadMap, Task

RESAMPLES = 1000
CHUNK = 50
"""Resamples drawn at a time, so that memory stays at CHUNK x examples."""


def bootstrap(samples: Mapping[str, Sample], heads: HeadMap) -> NDArray[np.float64]:
    """Average scores over languages of resampled test sets, [RESAMPLES]; as ``bootstraps`` has them of one run."""
    draws: NDArray[np.float64] = bootstraps([samples], heads)[0]
    return draws


def bootstraps(runs: Sequence[Mapping[str, Sample]], heads: HeadMap) -> NDArray[np.float64]:
    """Each run's average scores over languages of resampled test sets, [runs, RESAMPLES].

    Each language's clusters of examples are drawn with replacement, by a generator that depends on the language alone:
    all runs on one test set get the same resamples, so that differences of their draws are paired. Where all examples
    are of one cluster, which would never vary, they are drawn one by one.

    Args:
        runs: of each, language -> its examples, as the language's task scores them.
    """
    totals = np.zeros((len(runs), RESAMPLES))
    for language in dict.fromkeys(language for samples in runs for language in samples):
        own = [number for number, samples in enumerate(runs) if language in samples]
        totals[own] += _draws(language, [runs[number][language] for number in own], heads.task(language))
    average: NDArray[np.float64] = totals / np.array([len(samples) for samples in runs]).reshape(-1, 1)
    return average


def from_draws(estimate: float, draws: NDArray[np.float64]) -> Interval:
    """The percentile interval of bootstrap draws around an estimate."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(mean=estimate, low=float(low), high=float(high))


def from_seeds(values: NDArray[np.float64]) -> Interval:
    """The mean of a value a seed, [seeds > 1], with Student's t interval."""
    half = float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values)))
    estimate = float(values.mean())
    return Interval(mean=estimate, low=estimate - half, high=estimate + half)


def from_both(values: NDArray[np.float64], draws: NDArray[np.float64]) -> Interval:
    """The mean of a value a seed, with an interval for other seeds and other test examples of the same languages.

    Seeds and test examples are independent: on each side the half widths of their two intervals add up as squares
    (Howe, 1974). With few seeds it is too wide rather than too narrow: Satterthwaite's t would cover .87 with two.

    Args:
        values: of each seed, [seeds > 1].
        draws: bootstrap draws of their mean, [RESAMPLES].
    """
    seeds = from_seeds(values)
    examples = from_draws(seeds.mean, draws)
    below = np.hypot(seeds.mean - seeds.low, seeds.mean - examples.low)
    above = np.hypot(seeds.high - seeds.mean, examples.high - seeds.mean)
    return Interval(mean=seeds.mean, low=seeds.mean - float(below), high=seeds.mean + float(above))


def _draws(language: str, samples: Sequence[Sample], task: Task) -> NDArray[np.float64]:
    """The main score of each run's resamples of a language, [runs, RESAMPLES]."""
    clusters = [one.clusters if one.clusters.any() else np.arange(len(one.clusters)) for one in samples]
    numbers = [int(own.max()) + 1 for own in clusters]
    parts = [
        [
            task.scores(one.statistics, counts[number][:, own].astype(np.float64))[task.metric]
            for one, own, number in zip(samples, clusters, numbers, strict=True)
        ]
        for counts in _resamples(language, set(numbers))
    ]
    return np.concatenate(parts, axis=1)


def _resamples(language: str, numbers: Collection[int]) -> Iterator[dict[int, NDArray[np.int64]]]:
    """For each number of clusters, how often each is in each resample, a chunk at a time: [CHUNK, number]."""
    generators = {number: np.random.default_rng(zlib.crc32(language.encode())) for number in numbers}
    for _ in range(RESAMPLES // CHUNK):
        yield {n: own.multinomial(n, np.full(n, 1.0 / n), size=CHUNK) for n, own in generators.items()}
