"""Pictures of what a comparison found: averages with intervals, seen against unseen, sweeps of a grid."""

from collections.abc import Hashable

from multitune.reports.evidence import Evidence, FinishedRun
from multitune.reports.pictures import Plot, Point, Row, Rows, Series, pareto_front
from multitune.results.run import SIDES, Side

SIDE_TITLES = {"seen": "languages seen in training", "unseen": "unseen languages"}


def averages(evidence: Evidence) -> Rows:
    """Each method's average with its 95 % interval."""
    assert evidence.comparison is not None
    groups = []
    for side in SIDES:
        intervals = {method: sides[side] for method, sides in evidence.comparison.summary.items()}
        rows = tuple(Row(k, k, v.mean, v.low, v.high) for k, v in intervals.items() if v is not None)
        if rows:
            groups.append((f"{len(evidence.languages(side))} {SIDE_TITLES[side]}", rows))
    return Rows("averages", "Average over languages", f"{evidence.metric}, %", tuple(groups))


def plane(evidence: Evidence) -> list[Plot]:
    """Every run as a point, seen score against unseen, and the Pareto front.

    Learning rate and training length move a method along this plane: only the front tells whether it is better.
    """
    series, scored = [], []
    for method in evidence.methods:
        points = [_in_plane(evidence, run) for run in evidence.runs if run.method == method and _both(run)]
        scored += [(point.x, point.y) for point in points]
        if points:
            series.append(Series(method, method, tuple(points), joined=False))
    if len(scored) < 2:
        return []
    title = "Seen against unseen, every run a point"
    labels = (f"seen {evidence.metric}, %", f"unseen {evidence.metric}, %")
    return [Plot("plane", title, *labels, tuple(series), front=tuple(pareto_front(scored)))]


def sweeps(evidence: Evidence) -> list[Plot]:
    """For each key of the grid with several values, scores against these; runs that agree in all else are joined."""
    values: dict[str, set[str]] = {}
    for run in evidence.runs:
        for key, value in run.grid.items():
            values.setdefault(key, set()).add(str(value))
    keys = [key for key, tried in values.items() if len(tried) > 1]
    return [_sweep(evidence, key, side) for key in keys for side in SIDES if evidence.languages(side)]


def _both(run: FinishedRun) -> bool:
    return all(run.result.average[side] is not None for side in SIDES)


def _in_plane(evidence: Evidence, run: FinishedRun) -> Point:
    seen, unseen = (run.result.average[side] for side in SIDES)
    assert seen is not None
    assert unseen is not None
    return Point(seen, unseen, f"{evidence.label(run)}: seen {seen:.1f}, unseen {unseen:.1f}")


def _sweep(evidence: Evidence, key: str, side: Side) -> Plot:
    values = sorted({run.grid[key] for run in evidence.runs}, key=lambda value: (isinstance(value, str), value))
    lines: dict[Hashable, list[Point]] = {}
    methods: dict[Hashable, str] = {}
    for run in evidence.runs:
        score = run.result.average[side]
        if score is not None:
            others = tuple((k, str(v)) for k, v in run.grid.items() if k != key)
            line = (run.method, run.result.seed, others)
            methods[line] = run.method
            point = Point(values.index(run.grid[key]), score, f"{evidence.label(run)}: {score:.1f}")
            lines.setdefault(line, []).append(point)
    series = tuple(
        Series(methods[line], methods[line], tuple(sorted(points, key=lambda point: point.x)))
        for line, points in lines.items()
    )
    title = f"{key}: {SIDE_TITLES[side]}"
    ticks = tuple(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
    name = f"sweep-{key}-{side}".replace(".", "-")
    return Plot(name, title, key, f"{side} {evidence.metric}, %", series, x_ticks=ticks)
