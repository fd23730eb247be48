"""The front of a merge: seen scores against unseen ones, from the runs' mean back to the pretrained weights."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from multitune.reports.figures import save
from multitune.reports.pictures import Plot, Point, Series, pareto_front
from multitune.results.falling import is_falling, unit
from multitune.results.merged import Merged, MergedPoint
from multitune.results.run import Score, Sides

MEAN = "merged"
"""The name under which the points are drawn."""


def write(merged: Merged, out: Path) -> list[Path]:
    """Draw the picture into a folder; returns the PNG file, or nothing where seen or unseen scores are missing."""
    return save([picture], out) if (picture := plane(merged)) is not None else []


def plane(merged: Merged) -> Plot | None:
    """The points, joined in the order of their weights, and the runs; None where seen or unseen scores are missing."""
    points = sorted(merged.points, key=lambda point: point.weight)
    own = [made for point in points if (made := _of_point(point)) is not None]
    if not own:
        return None
    runs = [
        Series(run.method, run.method, (made,), joined=False)
        for run in merged.runs
        if (made := _in_plane(run.average, f"{run.method} seed {run.seed}")) is not None
    ]
    return Plot(
        name="front",
        title="Seen against unseen, by share of the runs",
        x_label=f"seen {merged.metric}{unit(merged.metric)}",
        y_label=f"unseen {merged.metric}{unit(merged.metric)}",
        series=(Series(MEAN, MEAN, tuple(own)), *runs),
        front=() if is_falling(merged.metric) else tuple(pareto_front([(point.x, point.y) for point in own])),
        names=tuple(_names(own)),
    )


def _names(points: Sequence[Point]) -> Iterator[tuple[float, float, str]]:
    """The weights beside the points; those of points that coincide in one place."""
    weights: dict[tuple[float, float], list[str]] = {}
    for point in points:
        weights.setdefault((point.x, point.y), []).append(point.said)
    return ((x, y, ", ".join(said)) for (x, y), said in weights.items())


def _of_point(point: MergedPoint) -> Point | None:
    return _in_plane(point.average, f"{point.weight:g}")


def _in_plane(average: Sides[Score], said: str) -> Point | None:
    return None if average.seen is None or average.unseen is None else Point(average.seen, average.unseen, said)
