"""95 % intervals: a paired bootstrap over test examples, clusters of them at once, or Student's t over seeds."""

import zlib
from collections.abc import Iterator, Mapping

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
    """Average scores over languages of resampled test sets, [RESAMPLES].

    Each language's clusters of examples are drawn with replacement, by a generator that depends on the language alone:
    two runs on one test set get the same resamples, so that differences of their draws are paired. Where all examples
    are of one cluster, which would never vary, they are drawn one by one.

    Args:
        samples: language -> its examples, as the language's task scores them.
    """
    scores = [_draws(language, sample, heads.task(language)) for language, sample in samples.items()]
    average: NDArray[np.float64] = np.mean(scores, axis=0)
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


def _draws(language: str, sample: Sample, task: Task) -> NDArray[np.float64]:
    """The main score of each resample of a language, [RESAMPLES]."""
    rows, clusters = sample.statistics, sample.clusters
    several = clusters if clusters.any() else np.arange(len(clusters))
    return np.concatenate([task.scores(rows, counts)[task.metric] for counts in _resamples(language, several)])


def _resamples(language: str, clusters: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
    """How often each example is in each resample, a chunk at a time: [CHUNK, examples]."""
    generator = np.random.default_rng(zlib.crc32(language.encode()))
    number = int(clusters.max()) + 1
    share = np.full(number, 1.0 / number)
    for _ in range(RESAMPLES // CHUNK):
        yield generator.multinomial(number, share, size=CHUNK)[:, clusters].astype(np.float64)
