"""What a picture shows, apart from how it is drawn: the page draws it as SVG, the figures with matplotlib."""

from collections.abc import Sequence
from dataclasses import dataclass

from multitune.reports.digits import alike


@dataclass(frozen=True)
class Point:
    """A measured point; ``said`` is what pointing at it tells."""

    x: float
    y: float
    said: str


@dataclass(frozen=True)
class Series:
    """Points of one method, joined by a line or not."""

    label: str
    method: str
    points: tuple[Point, ...]
    joined: bool = True


@dataclass(frozen=True)
class Frame:
    """The part of a plane that a picture shows: from low to high in x and in y. What lies outside is at its edge."""

    x: tuple[float, float]
    y: tuple[float, float]

    def holds(self, x: float, y: float) -> bool:
        """Whether a point lies inside."""
        return self.x[0] <= x <= self.x[1] and self.y[0] <= y <= self.y[1]

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point itself, or where the frame is nearest to it."""
        return min(max(x, self.x[0]), self.x[1]), min(max(y, self.y[0]), self.y[1])


@dataclass(frozen=True)
class Plot:
    """Series in a plane.

    Attributes:
        name: of its file, e.g. ``plane``.
        front: corners of the Pareto front, left to right; empty where none is drawn.
        names: point labels to write into the picture, ``(x, y, text)``.
        x_ticks: what to write at x = 0, 1, ...; None for a scale of numbers.
        frame: what is shown; None for all points.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    front: tuple[tuple[float, float], ...] = ()
    names: tuple[tuple[float, float, str], ...] = ()
    x_ticks: tuple[str, ...] | None = None
    frame: Frame | None = None

    @property
    def methods(self) -> list[str]:
        """The methods that it shows."""
        return list(dict.fromkeys(series.method for series in self.series))


@dataclass(frozen=True)
class Row:
    """A value, with its interval where there is one."""

    label: str
    method: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Rows:
    """Values below each other on one scale, in groups with a heading each."""

    name: str
    title: str
    x_label: str
    groups: tuple[tuple[str, tuple[Row, ...]], ...]


@dataclass(frozen=True)
class HeatMap:
    """Pairs of languages, [languages, languages], symmetric, from -1 to 1; families as far as they are known."""

    name: str
    title: str
    languages: tuple[str, ...]
    families: tuple[str | None, ...]
    values: tuple[tuple[float, ...], ...]


Picture = Plot | Rows | HeatMap


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other is at least as high as in both coordinates and higher in one; from left to right."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(set(points), reverse=True):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front[::-1]


def described(picture: Plot | Rows) -> str:
    """A picture in words, for those who cannot see it: every value of few, the ends of long series."""
    if isinstance(picture, Rows):
        texts = iter(alike([row.value for _, group in picture.groups for row in group]))
        rows = [
            f"{title}: {', '.join(f'{row.label} {next(texts)}' for row in group)}" for title, group in picture.groups
        ]
        return f"{picture.title}. {'; '.join(rows)}."
    parts = []
    for series in picture.series:
        ends = series.points if len(series.points) < 4 else (series.points[0], series.points[-1])
        parts.append(f"{series.label} {' to '.join(f'{point.y:.4g} at {point.x:.4g}' for point in ends)}")
    return f"{picture.title}: {picture.y_label} against {picture.x_label}. {'; '.join(parts)}."
