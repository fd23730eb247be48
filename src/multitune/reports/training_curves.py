"""Pictures of a run's course: score, loss, drift and cosine against what it had cost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from multitune.reports.evidence import Evidence, FinishedRun
from multitune.reports.pictures import Plot, Point, Series
from multitune.results.decimals import decimals
from multitune.results.falling import unit
from multitune.results.metrics import Event, Probe, Train, Validate

COSTS = {"gradients": "gradient computations", "seconds": "seconds"}


@dataclass(frozen=True)
class Measure:
    """What a curve shows: a number of each event of one kind; None where it is not finite."""

    name: str
    title: str
    label: str
    values: Callable[[FinishedRun], list[tuple[Event, float | None]]]
    digits: int
    most: int = 100
    """Points of a series; more events are averaged."""


def measures(metric: str) -> list[Measure]:
    """The curves, each against either cost."""
    return [
        Measure("dev", f"Score on dev: {metric}", f"dev {metric}{unit(metric)}", _scores, digits=decimals(metric)),
        Measure("loss", "Training loss", "loss", _losses, digits=3, most=25),
        Measure("drift", "Drift from the pretrained weights", "L2 distance", _drifts, digits=2),
        Measure("cosine", "Alignment of the languages' gradients", "mean cosine", _cosines, digits=3),
    ]


def curves(evidence: Evidence) -> dict[str, dict[str, Plot]]:
    """Measure -> cost -> its curves; only measures that some run has."""
    by_measure = {}
    for measure in measures(evidence.metric):
        plots = {cost: _plot(evidence, measure, cost) for cost in COSTS}
        if plots["gradients"].series:
            by_measure[measure.name] = plots
    return by_measure


def cosine_against_loss(evidence: Evidence) -> list[Plot]:
    """Where a run's probes went: its mean cosine against its mean loss on the held-out batches."""
    series = _series(evidence, [_path(evidence, run) for run in evidence.shown])
    if not series:
        return []
    return [Plot("cosine-loss", "Alignment against loss", "loss on held-out batches", "mean cosine", series)]


def _path(evidence: Evidence, run: FinishedRun) -> tuple[Point, ...]:
    points = []
    for event in run.measured(Probe):
        loss = sum(event.losses) / len(event.losses)
        said = f"{evidence.label(run)} at {event.gradients} gradients: loss {loss:.2f}, cosine {event.cosine:.3f}"
        points.append(Point(loss, event.cosine, said))
    return tuple(points)


def _plot(evidence: Evidence, measure: Measure, cost: str) -> Plot:
    series = _series(evidence, [_course(evidence, run, measure, cost) for run in evidence.shown])
    return Plot(f"{measure.name}-{cost}", measure.title, COSTS[cost], measure.label, series)


def _series(evidence: Evidence, courses: Sequence[Sequence[Point]]) -> tuple[Series, ...]:
    """The shown runs' curves, where they have points."""
    shown = zip(evidence.shown, courses, strict=True)
    return tuple(Series(evidence.label(run), run.method, tuple(points)) for run, points in shown if points)


def _course(evidence: Evidence, run: FinishedRun, measure: Measure, cost: str) -> tuple[Point, ...]:
    """A point an event, or a stretch of events: their mean, at the last one."""
    measured = [(event, value) for event, value in measure.values(run) if value is not None]
    points = []
    for stretch in np.array_split(np.arange(len(measured)), min(len(measured), measure.most)) if measured else []:
        value = sum(measured[n][1] for n in stretch) / len(stretch)
        last, _ = measured[stretch[-1]]
        said = f"{value:.{measure.digits}f} at {last.gradients} gradients, {last.seconds:.0f} s"
        at = last.gradients if cost == "gradients" else last.seconds
        points.append(Point(at, value, f"{evidence.label(run)}: {said}"))
    return tuple(points)


def _scores(run: FinishedRun) -> list[tuple[Event, float | None]]:
    return [(event, event.average) for event in run.measured(Validate)]


def _losses(run: FinishedRun) -> list[tuple[Event, float | None]]:
    return [(event, event.loss) for event in run.measured(Train)]


def _drifts(run: FinishedRun) -> list[tuple[Event, float | None]]:
    return [(event, event.drift) for event in run.measured(Validate)]


def _cosines(run: FinishedRun) -> list[tuple[Event, float | None]]:
    return [(event, event.cosine) for event in run.measured(Probe)]
