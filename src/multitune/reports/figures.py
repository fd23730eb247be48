"""The report's pictures with matplotlib, for print: PDF and SVG, and PNG to look at."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from multitune.reports import causes, outcomes, training_curves
from multitune.reports.colours import look
from multitune.reports.evidence import Evidence, load
from multitune.reports.method_names import full
from multitune.reports.pictures import HeatMap, Picture, Plot, Rows
from multitune.reports.plotting import Axes, Figure, styled

WIDTH = 3.4
"""Inches: a column of a page with two."""
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.markersize": 4,
    "lines.linewidth": 1.2,
    "svg.fonttype": "none",
    "svg.hashsalt": "multitune",
}
NUMBERS_UP_TO = 16
"""Languages of a heat map with its numbers written in."""


def write(folder: Path, out: Path) -> list[Path]:
    """Draw the report of a run or a comparison into ``out``; returns the PNG files.

    Raises:
        UserError: as ``evidence.load`` does.
    """
    return save(pictures(load(folder)), out)


def save(drawn: Iterable[Picture], out: Path) -> list[Path]:
    """Draw pictures into ``out`` as PDF, SVG and PNG; returns the PNG files."""
    out.mkdir(exist_ok=True)
    paths = []
    with styled(8, STYLE):
        for picture in drawn:
            figure = draw(picture)
            figure.savefig(out / f"{picture.name}.pdf", bbox_inches="tight", metadata={"CreationDate": None})
            figure.savefig(out / f"{picture.name}.svg", bbox_inches="tight", metadata={"Date": None})
            figure.savefig(out / f"{picture.name}.png", bbox_inches="tight", dpi=200)
            paths.append(out / f"{picture.name}.png")
    return paths


def pictures(evidence: Evidence) -> Iterator[Picture]:
    """All that the evidence allows."""
    yield from outcomes.averages(evidence)
    yield from outcomes.plane(evidence)
    yield from outcomes.sweeps(evidence)
    for by_cost in training_curves.curves(evidence).values():
        yield from by_cost.values()
    yield from training_curves.cosine_against_loss(evidence)
    yield from causes.heat_maps(evidence)
    yield from causes.by_layer(evidence)
    yield from causes.proximity(evidence)
    yield from causes.retention(evidence)
    yield from causes.divergence(evidence)


def draw(picture: Picture) -> Figure:
    """One picture as a figure."""
    if isinstance(picture, Plot):
        return _plot(picture)
    return _rows(picture) if isinstance(picture, Rows) else _heat_map(picture)


def _plot(plot: Plot) -> Figure:
    figure = Figure(figsize=(WIDTH, 2.5))
    axes = figure.subplots()
    if plot.front:
        _front(axes, plot)
    labelled = set()
    for series in plot.series:
        shown = look(series.method)
        axes.plot(
            *zip(*(_shown(plot, point.x, point.y) for point in series.points), strict=True),
            color=shown.light,
            marker=shown.marker,
            linestyle="-" if series.joined else "",
            markeredgecolor="white",
            markeredgewidth=0.4,
            label=full(series.method) if series.method not in labelled else "_again",
            clip_on=False,
        )
        labelled.add(series.method)
    for x, y, name in plot.names:
        at = _shown(plot, x, y)
        outside = at != (x, y)
        axes.annotate(
            f"{name} (outside)" if outside else name, at, xytext=(3, 3), textcoords="offset points", fontsize=6
        )
    if plot.x_ticks is not None:
        axes.set_xticks(range(len(plot.x_ticks)), plot.x_ticks, rotation=45 if len(plot.x_ticks) > 6 else 0)
    axes.set(xlabel=plot.x_label, ylabel=plot.y_label, title=plot.title)
    axes.grid(color="0.9", linewidth=0.5)
    if len(labelled) > 1:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _shown(plot: Plot, x: float, y: float) -> tuple[float, float]:
    """Where a point is drawn: at the frame's edge where it lies outside."""
    return plot.frame.nearest(x, y) if plot.frame else (x, y)


def _front(axes: Axes, plot: Plot) -> None:
    """From axis to axis, as steps: what lies left of and below the line is beaten by a run on it."""
    shown = [point for point in plot.front if plot.frame is None or plot.frame.holds(*point)]
    if not shown:
        return
    xs, ys = zip(*shown, strict=True)
    points = [point for series in plot.series for point in series.points]
    left = plot.frame.x[0] if plot.frame else min(point.x for point in points)
    bottom = plot.frame.y[0] if plot.frame else min(point.y for point in points)
    axes.step([left, *xs, xs[-1]], [ys[0], *ys, bottom], where="pre", color="0.5", linewidth=0.8, linestyle="--")


def _rows(rows: Rows) -> Figure:
    every = [row for _, group in rows.groups for row in group]
    figure = Figure(figsize=(WIDTH, 0.5 + 0.22 * (len(every) + len(rows.groups))))
    axes = figure.subplots()
    labels, at = [], 0
    for title, group in rows.groups:
        labels.append((at, title))
        for row in group:
            at += 1
            shown = look(row.method)
            ends = (
                [[row.value - row.low], [row.high - row.value]]
                if row.low is not None and row.high is not None
                else None
            )
            axes.errorbar(row.value, at, xerr=ends, color=shown.light, marker=shown.marker, capsize=2)
            labels.append((at, row.label))
        at += 1
    axes.set_yticks([place for place, _ in labels], [text for _, text in labels])
    titles = {title for title, _ in rows.groups}
    for tick in axes.get_yticklabels():
        tick.set_fontweight("bold" if tick.get_text() in titles else "normal")
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel=rows.x_label, title=rows.title, ylim=(at - 0.5, -0.5))
    axes.grid(axis="x", color="0.9", linewidth=0.5)
    return figure


def _heat_map(heat: HeatMap) -> Figure:
    """The lower triangle; the colours end at the largest cosine of two languages."""
    count = len(heat.languages)
    figure = Figure(figsize=(WIDTH, WIDTH))
    axes = figure.subplots()
    pairs = [
        [value if column < row else float("nan") for column, value in enumerate(values)]
        for row, values in enumerate(heat.values)
    ]
    largest = max(abs(heat.values[row][column]) for row in range(count) for column in range(row))
    image = axes.imshow(pairs, cmap="PuOr_r", vmin=-largest, vmax=largest)
    size = 7.0 if count <= NUMBERS_UP_TO else max(2.0, 120 / count)
    axes.set_xticks(range(count - 1), heat.languages[:-1], rotation=90, fontsize=size)
    axes.set_yticks(range(1, count), heat.languages[1:], fontsize=size)
    axes.set(xlim=(-0.5, count - 1.5), ylim=(count - 0.5, 0.5), title=heat.title)
    for row in range(count if count <= NUMBERS_UP_TO else 0):
        for column in range(row):
            value = heat.values[row][column]
            ink = "white" if abs(value) > 0.7 * largest else "black"
            axes.text(
                column, row, f"{value:.2f}".replace("0.", ".", 1), ha="center", va="center", fontsize=5, color=ink
            )
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, shrink=0.6, label="cosine")
    return figure
