"""Paired differences of stored rows, seed by seed, with the two intervals of the plan."""

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from inference import Array, Components, Estimate, crossed, over_seeds
from plan import Plan
from store import Labels, Stored, read_clusters

RESAMPLES = 1000

Combination = Sequence[tuple[float, Stored]]
"""Rows of one seed with weights: (1, ours) and (-1, the baseline), or a mean over rates of each."""


@dataclass(frozen=True)
class Contrast:
    """A paired difference on one side, in points.

    Attributes:
        these: the interval of these languages.
        new: that of new languages; None with one language.
        components: of ``new``.
        sd: of the differences over seeds.
        test: variance of the mean by resampled test rows, and degrees of freedom.
        by_seed: the difference of each seed.
        by_language: the mean difference of each language.
        diverged: how many of the runs have no model, and count as a score of 0.
    """

    these: Estimate
    new: Estimate | None
    components: Components | None
    sd: float
    test: tuple[float, float]
    by_seed: list[float]
    by_language: dict[str, float]
    diverged: int


def contrast(
    plan: Plan, store: Path, setting: str, seeds: Sequence[Combination], languages: Sequence[str], alpha: float
) -> Contrast:
    """The mean over seeds (two or more) and languages, with both intervals at level 1 - ``alpha``."""
    table = np.array([[combined(one, language) for language in languages] for one in seeds])
    shared = plan.settings[setting].cluster.startswith("shared ")
    test = variance_of_rows(seeds, read_clusters(store, setting), languages, shared=shared)
    new, components = crossed(table, alpha) if len(languages) > 1 else (None, None)
    by_seed = table.mean(1)
    return Contrast(
        these=over_seeds(by_seed, test, alpha),
        new=new,
        components=components,
        sd=float(by_seed.std(ddof=1)),
        test=test,
        by_seed=by_seed.tolist(),
        by_language=dict(zip(languages, table.mean(0).tolist(), strict=True)),
        diverged=sum(row.failed for one in seeds for _, row in one),
    )


def variance_of_rows(
    seeds: Sequence[Combination], clusters: Mapping[str, Labels], languages: Sequence[str], *, shared: bool
) -> tuple[float, float]:
    """The variance of the mean over seeds and languages when clusters of test rows are resampled; degrees of freedom.

    Args:
        shared: the languages have the same clusters, which are then resampled together; else each by itself.
    """
    parts = [part for one in seeds for part in one if not part[1].failed]
    draws, freedom = np.zeros(RESAMPLES), 0
    for language in languages:
        labels = clusters[language]
        count = int(labels.max()) + 1
        freedom = max(freedom, count - 1) if shared else freedom + count - 1
        sums = np.hstack([_sums(row, language, labels, count) for _, row in parts])
        drawn = _times(count, 0 if shared else zlib.crc32(language.encode())) @ sums
        for (weight, _), own in zip(parts, _divided(drawn[:, ::2], drawn[:, 1::2]).T, strict=True):
            draws += weight * 100 * own
    return float((draws / len(seeds) / len(languages)).var(ddof=1)), float(min(freedom, RESAMPLES - 1))


@lru_cache(maxsize=256)
def _times(count: int, seed: int) -> Array:
    """How often each of so many clusters is drawn, [resamples, clusters]."""
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return drawn.astype(np.float64)


def _sums(row: Stored, language: str, labels: Labels, count: int) -> Array:
    """What the score of each cluster is a ratio of, [clusters, 2]."""
    return np.stack([np.bincount(labels, part, count) for part in ratio(row.task, row.statistics[language])], axis=1)


def ratio(task: str, rows: Array) -> tuple[Array, Array]:
    """What the main score of some examples is a ratio of: the sums of the two, each [examples]."""
    match task:
        case "classification":
            return (rows[:, 0] == rows[:, 1]).astype(np.float64), np.ones(len(rows))
        case "pos_tagging":
            return rows[:, 0], rows[:, 1]
        case "tagging":
            return 2 * rows[:, 0], rows[:, 1] + rows[:, 2]
    raise SystemExit(f"contrasts: the score of {task} is no ratio that is known here")


def in_knob_half(language: str) -> bool:
    """Whether a language belongs to the half on which knobs are fixed, by a hash of its code."""
    return hashlib.blake2b(language.encode(), digest_size=1).digest()[0] % 2 == 0


def reported(plan: Plan, setting: str, unseen: Sequence[str]) -> list[str]:
    """The unseen languages that confirm: all, but for the knobs' data set those that no knob was fixed on."""
    knobs = {plan.settings[stage.setting].recipe["data"] for stage in plan.stages.values() if stage.kind == "knobs"}
    divided = plan.settings[setting].recipe["data"] in knobs
    return [language for language in unseen if not (divided and in_knob_half(language))]


def languages_of(rows: Iterable[Stored], side: str) -> list[str]:
    """The languages of a side ("seen", "unseen") that runs were tested on; none where all of the runs diverged."""
    return next((list(row.scores(side)) for row in rows if not row.failed), [])


def combined(parts: Combination, language: str) -> float:
    """The combined score of a language, in points; a run that diverged has nothing right."""
    scores = ((weight, row.scores("seen") | row.scores("unseen")) for weight, row in parts if not row.failed)
    return sum(weight * own[language] for weight, own in scores)


def _divided(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
