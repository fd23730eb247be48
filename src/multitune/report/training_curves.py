"""Pictures of a run's course: score, loss, drift and cosine against what it had cost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from multitune.report.evidence import Event, Evidence, FinishedRun
from multitune.report.pictures import Plot, Point, Series

COSTS = {"gradients": "gradient computations", "seconds": "seconds"}


@dataclass(frozen=True)
class Measure:
    """What a curve shows: a number in each line of one event."""

    name: str
    title: str
    event: str
    label: str
    value: Callable[[Event], float]
    digits: int
    most: int = 100
    """Points of a series; more lines of the log are averaged."""


def measures(metric: str) -> list[Measure]:
    """The curves, each against either cost."""
    return [
        Measure("dev", f"Score on dev: {metric}", "validate", f"dev {metric}, %", lambda line: line["average"], 1),
        Measure("loss", "Training loss", "train", "loss", lambda line: line["loss"], 3, most=25),
        Measure("drift", "Drift from the pretrained weights", "validate", "L2 distance", lambda line: line["drift"], 2),
        Measure(
            "cosine", "Alignment of the languages' gradients", "probe", "mean cosine", lambda line: line["cosine"], 3
        ),
    ]


def curves(evidence: Evidence) -> dict[str, dict[str, Plot]]:
    """Measure -> cost -> its curves; only measures that some run has."""
    found = {}
    for measure in measures(evidence.metric):
        plots = {cost: _plot(evidence, measure, cost) for cost in COSTS}
        if plots["gradients"].series:
            found[measure.name] = plots
    return found


def cosine_against_loss(evidence: Evidence) -> list[Plot]:
    """Where a run's probes went: its mean cosine against its mean loss on the held-out batches."""
    series = _series(evidence, [_path(evidence, run) for run in evidence.shown])
    if not series:
        return []
    return [Plot("cosine-loss", "Alignment against loss", "loss on held-out batches", "mean cosine", series)]


def _path(evidence: Evidence, run: FinishedRun) -> tuple[Point, ...]:
    points = []
    for line in run.measured("probe"):
        loss, cosine = sum(line["losses"]) / len(line["losses"]), line["cosine"]
        said = f"{evidence.label(run)} at {line['gradients']} gradients: loss {loss:.2f}, cosine {cosine:.3f}"
        points.append(Point(loss, cosine, said))
    return tuple(points)


def _plot(evidence: Evidence, measure: Measure, cost: str) -> Plot:
    series = _series(evidence, [_course(evidence, run, measure, cost) for run in evidence.shown])
    return Plot(f"{measure.name}-{cost}", measure.title, COSTS[cost], measure.label, series)


def _series(evidence: Evidence, courses: Sequence[Sequence[Point]]) -> tuple[Series, ...]:
    """The shown runs' curves, where they have points; what a diverged run has measured as NaN or infinite is none."""
    finite = [tuple(point for point in points if isfinite(point.x) and isfinite(point.y)) for points in courses]
    shown = zip(evidence.shown, finite, strict=True)
    return tuple(Series(evidence.label(run), run.method, points) for run, points in shown if points)


def _course(evidence: Evidence, run: FinishedRun, measure: Measure, cost: str) -> tuple[Point, ...]:
    """A point a line of the log, or a stretch of lines: their mean, at the last one."""
    lines = run.measured(measure.event)
    points = []
    for stretch in np.array_split(np.arange(len(lines)), min(len(lines), measure.most)) if lines else []:
        value = sum(measure.value(lines[n]) for n in stretch) / len(stretch)
        last = lines[stretch[-1]]
        where = f"{last['gradients']} gradients, {last['seconds']:.0f} s"
        points.append(Point(last[cost], value, f"{evidence.label(run)}: {value:.{measure.digits}f} at {where}"))
    return tuple(points)
