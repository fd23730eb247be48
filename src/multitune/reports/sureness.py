"""How sure its test examples make the scores of a single run: how many there are, and 95 % intervals."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multitune.reports.evidence import FinishedRun
from multitune.results.comparison import Estimates, Interval
from multitune.results.run import SIDES, RunResult, Score, Sides

Draws = NDArray[np.float64]


@dataclass(frozen=True)
class Sureness:
    """How sure the scores of one run are, by intervals as comparisons have them: bootstraps over test examples.

    Attributes:
        examples: language -> its test examples.
        languages: language -> the interval of its main score; none where that is not finite.
        sides: those of the averages.
    """

    examples: Mapping[str, int]
    languages: Mapping[str, Interval]
    sides: Estimates


def of_run(run: FinishedRun) -> Sureness | None:
    """None where the run ships no model: its configuration says how resampled examples are scored.

    Raises:
        UserError: damaged predictions, or a damaged configuration.
    """
    model = run.folder / "model"
    if not model.exists():
        return None
    from multitune.evaluation import intervals  # with transformers, which the report of a comparison does without
    from multitune.evaluation.scoring import read_samples
    from multitune.models.shipped import shipped
    from multitune.tasks import HeadMap

    models = shipped(model)
    heads = HeadMap.of_each(models) if run.result.metric == "score" else HeadMap.of_all(next(iter(models.values())))
    samples, scores = read_samples(run.folder, heads), _scores(run.result)
    draws = {k: intervals.bootstrap({k: samples[k]}, heads) for k, score in scores.items() if score is not None}
    averages = {side: _average(draws, list(run.result.scores[side])) for side in SIDES}

    def interval(estimate: Score, drawn: Draws | None) -> Interval | None:
        return None if estimate is None or drawn is None else intervals.from_draws(estimate, drawn)

    sides = {side: interval(run.result.average[side], averages[side]) for side in SIDES}
    return Sureness(
        examples={language: len(sample.clusters) for language, sample in samples.items()},
        languages={k: own for k, drawn in draws.items() if (own := interval(scores[k], drawn)) is not None},
        sides=Sides(seen=sides["seen"], unseen=sides["unseen"]),
    )


def _scores(result: RunResult) -> dict[str, Score]:
    """Language -> its main score."""
    return {language: own.get(result.metric) for side in SIDES for language, own in result.scores[side].items()}


def _average(draws: Mapping[str, Draws], languages: list[str]) -> Draws | None:
    """The mean over languages of each draw; None where one has none."""
    if not languages or not all(language in draws for language in languages):
        return None
    average: Draws = np.mean([draws[language] for language in languages], axis=0)
    return average
