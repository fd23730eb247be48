"""Pictures of what a comparison found: averages with intervals, seen against unseen, sweeps of a grid."""

from collections.abc import Hashable, Iterator, Sequence
from statistics import quantiles

from multitune.reports.evidence import Evidence, FinishedRun
from multitune.reports.method_names import full
from multitune.reports.pictures import Frame, Plot, Point, Row, Rows, Series, pareto_front
from multitune.results.decimals import decimals
from multitune.results.falling import is_falling, unit
from multitune.results.run import SIDES, Side

FEWEST_FOR_OUTLIERS = 4
FLAT = 2.0
"""How many times wider than all others outliers make a picture before they are drawn at its edge."""
SIDE_TITLES = {"seen": "languages seen in training", "unseen": "unseen languages"}


def averages(evidence: Evidence) -> list[Rows]:
    """Each method's average with its 95 % interval, in one picture; none of a single run, or without intervals."""
    if evidence.comparison is None:
        return []
    groups = []
    for side in SIDES:
        intervals = {method: sides[side] for method, sides in evidence.comparison.summary.items()}
        rows = tuple(Row(full(k), k, v.mean, v.low, v.high) for k, v in intervals.items() if v is not None)
        if rows:
            groups.append((f"{len(evidence.languages(side))} {SIDE_TITLES[side]}", rows))
    return (
        [Rows("averages", "Average over languages", f"{evidence.metric}{unit(evidence.metric)}", tuple(groups))]
        if groups
        else []
    )


def plane(evidence: Evidence) -> list[Plot]:
    """Every run as a point, seen score against unseen, and the Pareto front.

    Learning rate and training length move a method along this plane: only the front tells whether it is better. Of a
    metric that falls there is none.
    """
    series, scored = [], []
    for method in evidence.methods:
        points = [_in_plane(evidence, run) for run in evidence.runs if run.method == method and _both(run)]
        scored += [(point.x, point.y) for point in points]
        if points:
            series.append(Series(full(method), method, tuple(points), joined=False))
    if len(scored) < 2:
        return []
    title = "Seen against unseen, every run a point"
    shown = f"{evidence.metric}{unit(evidence.metric)}"
    frame = Frame(*(_bulk(values) for values in zip(*scored, strict=True)))
    front = () if is_falling(evidence.metric) else tuple(pareto_front(scored))
    names = tuple(_named(evidence, frame))
    return [
        Plot("plane", title, f"seen {shown}", f"unseen {shown}", tuple(series), front=front, names=names, frame=frame)
    ]


def sweeps(evidence: Evidence) -> list[Plot]:
    """For each key of the grid with several values, scores against these; runs that agree in all else are joined."""
    values: dict[str, set[str]] = {}
    for run in evidence.runs:
        for key, value in run.grid.items():
            values.setdefault(key, set()).add(str(value))
    keys = [key for key, tried in values.items() if len(tried) > 1]
    plots = [_sweep(evidence, key, side) for key in keys for side in SIDES]
    return [plot for plot in plots if plot.series]


def _bulk(values: Sequence[float]) -> tuple[float, float]:
    """The lowest and the highest value without outliers, as far as these would press the others together.

    Outliers are those of Tukey's fences: more than 1.5 times the quartiles' distance beyond a quartile. They are left
    out where all values span more than ``FLAT`` times what the others do.
    """
    low, high = min(values), max(values)
    if len(values) < FEWEST_FOR_OUTLIERS:
        return low, high
    first, _, third = quantiles(values, n=4, method="inclusive")
    reach = 1.5 * (third - first)
    inside = [value for value in values if first - reach <= value <= third + reach]
    span = max(inside) - min(inside)
    return (min(inside), max(inside)) if 0 < FLAT * span < high - low else (low, high)


def _named(evidence: Evidence, frame: Frame) -> Iterator[tuple[float, float, str]]:
    """What lies outside the frame with its scores, then each method's first shown run."""
    runs = [run for run in evidence.runs if _both(run)]
    places = {id(run): _in_plane(evidence, run) for run in runs}
    for run in runs:
        point = places[id(run)]
        if not frame.holds(point.x, point.y):
            digits = decimals(evidence.metric)
            yield point.x, point.y, f"{evidence.label(run)}: {point.x:.{digits}f}, {point.y:.{digits}f}"
    for method in evidence.methods:
        first = next((places[id(run)] for run in evidence.of(method) if _both(run)), None)
        if first is not None and frame.holds(first.x, first.y):
            yield first.x, first.y, full(method)


def _both(run: FinishedRun) -> bool:
    return all(run.result.average[side] is not None for side in SIDES)


def _in_plane(evidence: Evidence, run: FinishedRun) -> Point:
    seen, unseen = (run.result.average[side] for side in SIDES)
    assert seen is not None
    assert unseen is not None
    digits = decimals(evidence.metric)
    return Point(seen, unseen, f"{evidence.label(run)}: seen {seen:.{digits}f}, unseen {unseen:.{digits}f}")


def _sweep(evidence: Evidence, key: str, side: Side) -> Plot:
    values = sorted({run.grid[key] for run in evidence.runs}, key=lambda value: (isinstance(value, str), value))
    lines, digits = dict[Hashable, list[Point]](), decimals(evidence.metric)
    methods: dict[Hashable, str] = {}
    for run in evidence.runs:
        score = run.result.average[side]
        if score is not None:
            others = tuple((k, str(v)) for k, v in run.grid.items() if k != key)
            line = (run.method, run.result.seed, others)
            methods[line] = run.method
            point = Point(values.index(run.grid[key]), score, f"{evidence.label(run)}: {score:.{digits}f}")
            lines.setdefault(line, []).append(point)
    series = tuple(
        Series(full(methods[line]), methods[line], tuple(sorted(points, key=lambda point: point.x)))
        for line, points in lines.items()
    )
    title = f"{key}: {SIDE_TITLES[side]}"
    ticks = tuple(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
    name = f"sweep-{key}-{side}".replace(".", "-")
    return Plot(name, title, key, f"{side} {evidence.metric}{unit(evidence.metric)}", series, x_ticks=ticks)
