"""The pictures of the synthetic experiment, after Figures 3 and 9 to 11 of the Sequential Reptile paper."""

from collections.abc import Sequence
from pathlib import Path

import torch

from multitune.experiments import alignment_figure
from multitune.experiments.alignment import Alignment
from multitune.experiments.funnels import OPTIMA, PAIRS, task_losses
from multitune.experiments.synthetic import METHODS, STARTS, Outcome, Synthetic
from multitune.reports.colours import look
from multitune.reports.plotting import Axes, Figure, Line2D, styled

WIDTH = 7.0
"""Inches: the text width of a two-column page."""
EXTENT = (-14.0, 24.0)
"""Both axes of the plane; some walks of large steps leave it for a while."""
LOSSES = (-240.0, -95.0)
"""Shown MTL losses; those of walks that large steps have thrown far from all optima are near 0."""


def write(results: Synthetic, causes: Alignment, folder: Path) -> list[Path]:
    """Write a figure for each start, one of the sweep and one of what aligns, as PNG and PDF; returns the PNG files."""
    with styled(7):
        figures = {f"synthetic-start-{n}": start(results, at) for n, at in enumerate(STARTS, 1)}
        figures["synthetic-learning-rates"] = learning_rates(results)
        figures["synthetic-alignment"] = alignment_figure.draw(causes)
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.png", dpi=180)
            figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
    return [folder / f"{name}.png" for name in figures]


def start(results: Synthetic, at: tuple[float, float]) -> Figure:
    """The trajectory of each method from one start, and the heat map of cosines where they end."""
    outcomes = results.of_figures(at)
    figure = Figure(figsize=(WIDTH, 4.1))
    grid = figure.add_gridspec(3, 4, left=0.06, right=0.7, top=0.95, bottom=0.14, wspace=0.08, hspace=0.2)
    side = figure.add_gridspec(1, 1, left=0.785, right=0.99, top=0.95, bottom=0.1)
    for n, outcome in enumerate(outcomes):
        axes = figure.add_subplot(grid[n // 4, n % 4])
        _trajectory(axes, results, outcome)
        axes.set_title(f"({chr(ord('a') + n)}) {METHODS[outcome.method].label}", pad=3)
        axes.tick_params(labelbottom=n + 4 >= len(outcomes), labelleft=n % 4 == 0)
    _heat_map(figure, figure.add_subplot(side[0]), outcomes, chr(ord("a") + len(outcomes)))
    figure.supxlabel("$\\phi_1$", x=0.38, y=0.06, fontsize=8)
    figure.supylabel("$\\phi_2$", x=0.005, y=0.545, fontsize=8)
    figure.legend(handles=_marks(), loc="lower center", ncols=5, frameon=False)
    return figure


def learning_rates(results: Synthetic) -> Figure:
    """Mean cosine against learning rate, and against MTL loss."""
    figure = Figure(figsize=(WIDTH, 3.4))
    by_rate, by_loss = figure.subplots(1, 2, sharey=True)
    for name in results.methods:
        outcomes = [outcome for outcome in results.sweep if outcome.method == name]
        _curve(by_rate, name, [outcome.learning_rate for outcome in outcomes], outcomes)
        _curve(by_loss, name, [outcome.loss.mean for outcome in outcomes], outcomes)
    by_rate.set(xscale="log", xlabel="learning rate (inner, where there are two)", ylabel="mean pairwise cosine")
    rates = sorted({outcome.learning_rate for outcome in results.sweep})
    by_rate.set_xticks(rates, [f"{rate:g}" for rate in rates])
    by_rate.minorticks_off()
    by_loss.set(xlabel="MTL loss (lower is better)", xlim=LOSSES)
    for axes, title in ((by_rate, "(a) against the learning rate"), (by_loss, "(b) against the MTL loss")):
        axes.set_title(title)
        axes.axhline(0.0, color="0.8", linewidth=0.5, zorder=0)
    figure.legend(*by_rate.get_legend_handles_labels(), loc="lower center", ncols=4, frameon=False)
    figure.subplots_adjust(left=0.07, right=0.985, top=0.93, bottom=0.32, wspace=0.06)
    return figure


def _trajectory(axes: Axes, results: Synthetic, outcome: Outcome) -> None:
    """Loss surface, optima and the walk of the first seed."""
    assert outcome.start is not None
    ticks = torch.linspace(*EXTENT, 80, dtype=torch.float64)
    surface = task_losses(torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), dim=-1)).sum(-1)
    axes.contourf(ticks, ticks, surface, levels=14, cmap="Greys_r", vmin=-420, vmax=0)
    path = results.paths[outcome.method, outcome.start]
    colour = look(outcome.method).light
    axes.plot(path[:, 0], path[:, 1], color=colour, linewidth=0.8)
    axes.plot(*zip(*OPTIMA, strict=True), "*", color="white", markeredgecolor="black", markersize=7, mew=0.5)
    axes.plot(*path[0], "o", color="white", markeredgecolor="black", markersize=4, mew=0.7)
    axes.plot(*path[-1], "s", color=colour, markeredgecolor="black", markersize=4, mew=0.7)
    axes.set(xlim=EXTENT, ylim=EXTENT, aspect="equal", xticks=(-10, 0, 10, 20), yticks=(-10, 0, 10, 20))
    axes.tick_params(length=2, pad=1.5)


def _heat_map(figure: Figure, axes: Axes, outcomes: Sequence[Outcome], letter: str) -> None:
    """Methods x (pairs of tasks, and their mean)."""
    values = [[*outcome.pairs, outcome.cosine.mean] for outcome in outcomes]
    image = axes.imshow(values, cmap="PuOr", vmin=-1, vmax=1, aspect="auto")
    for row, cells in enumerate(values):
        for column, value in enumerate(cells):
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=5.5, color=_ink(value))
    axes.set_title(f"({letter}) cosine", pad=3)
    axes.set_xticks(range(len(PAIRS) + 1), [*(f"{i + 1},{j + 1}" for i, j in PAIRS), "mean"])
    axes.set_yticks(range(len(outcomes)), [METHODS[o.method].label.replace(" ", "\n") for o in outcomes])
    axes.set_xlabel("tasks", labelpad=1)
    axes.tick_params(length=0, pad=2)
    axes.axvline(len(PAIRS) - 0.5, color="black", linewidth=0.7)
    figure.colorbar(image, ax=axes, orientation="horizontal", pad=0.09, aspect=16, ticks=(-1, 0, 1))


def _ink(value: float) -> str:
    return "white" if abs(value) > 0.7 else "black"


def _curve(axes: Axes, name: str, x: list[float], outcomes: Sequence[Outcome]) -> None:
    colour, marker = look(name).light, look(name).marker
    cosines = [outcome.cosine for outcome in outcomes]
    bars = [[cosine.mean - cosine.low for cosine in cosines], [cosine.high - cosine.mean for cosine in cosines]]
    axes.errorbar(
        x,
        [cosine.mean for cosine in cosines],
        yerr=bars,
        color=colour,
        marker=marker,
        markersize=3,
        linewidth=1.6 if name == "sequential_reptile" else 0.8,
        elinewidth=0.6,
        label=METHODS[name].label,
        zorder=3 if name == "sequential_reptile" else 2,
    )


def _marks() -> list[Line2D]:
    def mark(marker: str, colour: str, label: str) -> Line2D:
        return Line2D([], [], color=colour, marker=marker, linestyle="", markeredgecolor="black", mew=0.6, label=label)

    return [
        mark("o", "white", "start"),
        Line2D([], [], color="0.3", label="walk (of the slow weights, if any)"),
        mark("s", "0.3", "end"),
        mark("*", "white", "optimum of a task"),
        mark("s", "0.6", "darker: lower MTL loss"),
    ]
