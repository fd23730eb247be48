"""Pictures as SVG for the page: where each thing goes, in pixels. The template's macros write the elements."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from multitune.reports.colours import Look, look
from multitune.reports.digits import alike, stepped
from multitune.reports.pictures import Frame, Plot, Rows, Series

WIDTH, HEIGHT = 480, 300
"""Small enough that its text is still read on a telephone's 400 pixels."""
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 10, 44
LABELS = 150
"""Width of the labels of rows; pixels."""
ROW, GROUP = 26, 30
"""Height of a row and of a group's heading; pixels."""

MOST_MARKS = 200
LETTER, NAME_HEIGHT, NAME_GAP = 6, 12, 9
"""Room for a letter of a name that is written beside a point, and between both; pixels."""
EDGE = 14
"""How far inside the frame a mark is drawn whose point lies outside; pixels."""

SHAPES = {
    "o": "M4,0A4,4 0 1 1 -4,0A4,4 0 1 1 4,0Z",
    "s": "M-3.6,-3.6H3.6V3.6H-3.6Z",
    "D": "M0,-5L5,0L0,5L-5,0Z",
    "d": "M0,-5.2L3.3,0L0,5.2L-3.3,0Z",
    "^": "M0,-4.8L4.6,3.8H-4.6Z",
    "v": "M0,4.8L4.6,-3.8H-4.6Z",
    "<": "M-4.8,0L3.8,-4.6V4.6Z",
    ">": "M4.8,0L-3.8,-4.6V4.6Z",
    "X": "M-4.6,-2.3L-2.3,-4.6L0,-2.3L2.3,-4.6L4.6,-2.3L2.3,0L4.6,2.3L2.3,4.6L0,2.3L-2.3,4.6L-4.6,2.3L-2.3,0Z",
    "P": "M-1.6,-4.8H1.6V-1.6H4.8V1.6H1.6V4.8H-1.6V1.6H-4.8V-1.6H-1.6Z",
    "p": "M0,-5L4.8,-1.5L2.9,4H-2.9L-4.8,-1.5Z",
    "h": "M0,-4.9L4.2,-2.45V2.45L0,4.9L-4.2,2.45V-2.45Z",
    "*": "M0,-5.6L1.4,-1.9L5.3,-1.7L2.2,0.7L3.3,4.5L0,2.3L-3.3,4.5L-2.2,0.7L-5.3,-1.7L-1.4,-1.9Z",
    "|": "M-1.5,-7H1.5V7H-1.5Z",
}
"""Outlines of matplotlib's markers, around the origin."""


@dataclass(frozen=True)
class Scale:
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


@dataclass(frozen=True)
class Tick:
    """A place on an axis and what is written there."""

    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A marker; ``said`` is what pointing at it tells.

    Attributes:
        beyond: where its point lies if that is outside the frame: degrees, 0 to the right, 90 down.
    """

    x: float
    y: float
    said: str
    beyond: float | None = None


@dataclass(frozen=True)
class Name:
    """A name that begins right of a point, or ends left of it."""

    x: float
    y: float
    text: str
    ends: bool

    @property
    def extent(self) -> tuple[float, float]:
        """From left to right; pixels."""
        width = len(self.text) * LETTER
        return (self.x - width, self.x) if self.ends else (self.x, self.x + width)


@dataclass(frozen=True)
class Line:
    """A series: the path through its points, empty where they are not joined, and their markers.

    A cloud of more than ``MOST_MARKS`` points is a path of dots, which say nothing when pointed at.
    """

    look: Look
    path: str
    marks: tuple[Mark, ...]
    dots: str


@dataclass(frozen=True)
class PlotChart:
    """A plot, placed."""

    plot: Plot
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    front: str
    names: tuple[Name, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Bar:
    """A row: its label, its value and the ends of its interval."""

    look: Look
    label: str
    y: float
    value: Mark
    low: float | None
    high: float | None


@dataclass(frozen=True)
class RowsChart:
    """Rows, placed; ``headings`` are the groups'."""

    rows: Rows
    ticks: tuple[Tick, ...]
    headings: tuple[Tick, ...]
    bars: tuple[Bar, ...]
    height: int
    width: int = WIDTH
    left: int = LABELS
    right: int = WIDTH - RIGHT


def plot_chart(plot: Plot) -> PlotChart:
    """Place a plot."""
    points = [point for series in plot.series for point in series.points]
    frame = plot.frame
    x = _scale(frame.x if frame else [point.x for point in points], LEFT, WIDTH - RIGHT)
    y = _scale(frame.y if frame else [point.y for point in points], HEIGHT - BOTTOM, TOP)
    return PlotChart(
        plot=plot,
        x_ticks=_ticks(x) if plot.x_ticks is None else _named_ticks(plot.x_ticks, x),
        y_ticks=_ticks(y),
        lines=tuple(_line(series, x, y, frame) for series in plot.series),
        front=_stairs([(x(a), y(b)) for a, b in plot.front if _inside(a, b, frame)]),
        names=_apart([_name(_mark(a, b, text, x, y, frame)) for a, b, text in plot.names]),
    )


def rows_chart(rows: Rows) -> RowsChart:
    """Place rows below each other."""
    every = [row for _, group in rows.groups for row in group]
    ends = [end for row in every for end in (row.value, row.low, row.high) if end is not None]
    x = _scale(ends, LABELS, WIDTH - RIGHT)
    texts = iter(alike(ends))
    headings, bars, top = [], [], 0
    for title, group in rows.groups:
        headings.append(Tick(top + 19, title))
        top += GROUP
        for row in group:
            said = f"{row.label}: {next(texts)}"
            said += "" if row.low is None else f", 95 % interval {next(texts)} to {next(texts)}"
            low, high = (None if end is None else x(end) for end in (row.low, row.high))
            mark = Mark(x(row.value), top + ROW / 2, said)
            bars.append(Bar(look(row.method), row.label, top + ROW / 2, mark, low, high))
            top += ROW
    return RowsChart(rows, _ticks(x), tuple(headings), tuple(bars), top + BOTTOM)


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most so many: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough * (1 - 1e-9))
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _inside(x: float, y: float, frame: Frame | None) -> bool:
    return frame is None or frame.holds(x, y)


def _mark(a: float, b: float, said: str, x: Scale, y: Scale, frame: Frame | None) -> Mark:
    """At the frame's edge where the point lies outside."""
    if _inside(a, b, frame):
        return Mark(x(a), y(b), said)
    there = (x(a), y(b))
    at = (_between(there[0], LEFT, WIDTH - RIGHT), _between(there[1], TOP, HEIGHT - BOTTOM))
    return Mark(*at, said, beyond=round(math.degrees(math.atan2(there[1] - at[1], there[0] - at[0]))))


def _between(pixel: float, low: float, high: float) -> float:
    """Drawn in from an end that it lies beyond."""
    return low + EDGE if pixel < low else high - EDGE if pixel > high else pixel


def _name(mark: Mark) -> Name:
    ends = mark.x + NAME_GAP + len(mark.said) * LETTER > WIDTH
    return Name(mark.x - NAME_GAP if ends else mark.x + NAME_GAP, mark.y - 5, mark.said, ends)


def _line(series: Series, x: Scale, y: Scale, frame: Frame | None) -> Line:
    marks = tuple(_mark(point.x, point.y, point.said, x, y, frame) for point in series.points)
    if series.joined:
        path = f"M{'L'.join(f'{mark.x:g},{mark.y:g}' for mark in marks)}"
        return Line(look(series.method), path, marks, "")
    if len(marks) <= MOST_MARKS:
        return Line(look(series.method), "", marks, "")
    return Line(look(series.method), "", (), "".join(f"M{mark.x:g},{mark.y:g}h0" for mark in marks))


def _apart(names: Sequence[Name]) -> tuple[Name, ...]:
    """The names that would not be written over one before."""
    kept: list[Name] = []
    for name in names:
        if not any(_overlap(name, other) for other in kept):
            kept.append(name)
    return tuple(kept)


def _overlap(one: Name, other: Name) -> bool:
    (left, right), (start, end) = one.extent, other.extent
    return abs(one.y - other.y) < NAME_HEIGHT and left < end and start < right


def _scale(values: Sequence[float], start: float, end: float) -> Scale:
    """With a margin of a twentieth on either side."""
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return Scale(low - margin, high + margin, start, end)


def _ticks(scale: Scale) -> tuple[Tick, ...]:
    values = nice_ticks(scale.low, scale.high)
    return tuple(Tick(scale(value), text) for value, text in zip(values, stepped(values), strict=True))


def _named_ticks(names: Sequence[str], scale: Scale) -> tuple[Tick, ...]:
    """As many of the names as have room."""
    every = math.ceil(len(names) * max(map(len, names)) * 7 / (WIDTH - LEFT))
    return tuple(Tick(scale(n), name) for n, name in enumerate(names) if n % every == 0)


def _stairs(points: Sequence[tuple[float, float]]) -> str:
    """Through the points of a front, from axis to axis: all that lies left of and below it is beaten by some point."""
    if not points:
        return ""
    return f"M{LEFT},{points[0][1]:g}" + "".join(f"V{y:g}H{x:g}" for x, y in points) + f"V{HEIGHT - BOTTOM}"
