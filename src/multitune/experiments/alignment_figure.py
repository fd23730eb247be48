"""One picture of what aligns gradients in the plane."""

from collections.abc import Sequence

import torch

from multitune.experiments.alignment import INNER, INNER_STEPS, ORDERS, OUTER_RATES, TASKS, Alignment, Order, Rest
from multitune.experiments.funnels import OPTIMA, cosines
from multitune.reports.plotting import Axes, Figure, Line2D

COLOURS: dict[Order, str] = {"independent": "#1a8fc0", "permuted": "#ee3311"}
STYLES = (("--", "o"), ("-", "s"))
"""Lines of the expansion: of the mean gradient, and of the modified loss."""
NAMES = {"sgd": "SGD", "momentum": "momen-\ntum 0.9", "rmsprop": "Adam,\nbeta1 0", "adam": "Adam,\nbeta1 0.9"}
SIDE = 0.9
"""Half the width of the part of the plane around one optimum."""
RATE, OUTER_RATE = 0.1, 0.02
"""The learning rate and eta of the panels that vary something else."""


def draw(causes: Alignment) -> Figure:
    """Cosine by K, by eta and by inner optimizer, the error of the expansion, and where the walks rest."""
    figure = Figure(figsize=(7.0, 4.6))
    axes = figure.subplots(2, 3).flat
    _by_loop_length(axes[0], causes.rests)
    _by_outer_rate(axes[1], causes.rests)
    _by_optimizer(axes[2], causes.rests)
    _expansion(axes[3], causes)
    _derivation(axes[4], causes)
    _places(axes[5], causes.rests)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=2, frameon=False)
    figure.subplots_adjust(left=0.075, right=0.985, top=0.95, bottom=0.145, wspace=0.34, hspace=0.5)
    return figure


def _by_loop_length(axes: Axes, rests: Sequence[Rest]) -> None:
    for order in ORDERS:
        own = [r for r in rests if (r.inner, r.order, r.outer_lr, r.learning_rate) == ("sgd", order, OUTER_RATE, RATE)]
        _curve(axes, order, [rest.inner_steps for rest in own], own)
    axes.set(xscale="log", xlabel="K", ylabel="cosine", title=f"(a) eta {OUTER_RATE:g}")
    axes.set_xticks(INNER_STEPS, [str(K) for K in INNER_STEPS])
    _frame(axes)


def _by_outer_rate(axes: Axes, rests: Sequence[Rest]) -> None:
    for order in ORDERS:
        own = [r for r in rests if (r.inner, r.order, r.inner_steps, r.learning_rate) == ("sgd", order, TASKS, RATE)]
        _curve(axes, order, [rest.outer_lr for rest in own], own)
    axes.set(xscale="log", xlabel="eta", title="(b) K = 3")
    axes.set_xticks(OUTER_RATES, [f"{eta:g}" for eta in OUTER_RATES])
    _frame(axes)


def _by_optimizer(axes: Axes, rests: Sequence[Rest]) -> None:
    for at, order in enumerate(ORDERS):
        own = [
            rest
            for name in INNER
            for rest in rests
            if (rest.inner, rest.order, rest.inner_steps) == (name, order, TASKS)
            and (rest.outer_lr, rest.learning_rate) == (OUTER_RATE, RATE)
        ]
        places = [place + 0.36 * at - 0.18 for place in range(len(own))]
        axes.bar(places, [rest.cosine.mean for rest in own], width=0.34, color=COLOURS[order])
    axes.set_xticks(range(len(INNER)), [NAMES[name] for name in INNER], fontsize=5.5)
    axes.set_title(f"(c) K = 3, eta {OUTER_RATE:g}")
    _frame(axes)


def _expansion(axes: Axes, causes: Alignment) -> None:
    for order in ORDERS:
        own = [each for each in causes.displacements if each.order == order]
        rates = [each.learning_rate for each in own]
        errors = ([each.first_order for each in own], [each.second_order for each in own])
        for values, (style, marker) in zip(errors, STYLES, strict=True):
            axes.plot(rates, values, style, marker=marker, color=COLOURS[order], markersize=3, linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="error of the displacement")
    lines = [
        axes.plot([], [], style, marker=marker, color="0.3", markersize=3, linewidth=0.8)[0] for style, marker in STYLES
    ]
    axes.legend(lines, ("mean gradient", "modified loss"), frameon=False, fontsize=5.5, loc="lower right")
    axes.set_title("(d) against its predictions")
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.minorticks_off()


def _derivation(axes: Axes, causes: Alignment) -> None:
    """Walks against the expected walk, with the modified loss beside it."""
    for order in ORDERS:
        own = [each for each in causes.derived if each.order == order]
        walked = [each.walked.mean for each in own]
        colour = COLOURS[order]
        axes.plot([each.modified for each in own], walked, "x", color=colour, markersize=4)
        axes.plot([each.expected for each in own], walked, "o", color=colour, markersize=4, fillstyle="none")
    axes.axline((0, 0), slope=1, color="0.8", linewidth=0.5, zorder=0)
    marks = [Line2D([], [], color="0.3", linestyle="", marker=m, fillstyle="none", markersize=4) for m in ("o", "x")]
    axes.legend(marks, ("expected walk", "modified loss"), frameon=False, fontsize=5.5, loc="upper left")
    axes.set(xlabel="predicted cosine", ylabel="cosine of walks", title="(e) at rest, eta 0.1")
    axes.set(xlim=(-0.6, 1), ylim=(-0.6, 1))


def _places(axes: Axes, rests: Sequence[Rest]) -> None:
    """Where walks of K = 3 and eta 0.02 rest around one optimum, on the mean cosine of the plane there."""
    ticks = torch.linspace(-SIDE, SIDE, 121, dtype=torch.float64)
    x, y = torch.meshgrid(ticks + OPTIMA[2][0], ticks + OPTIMA[2][1], indexing="xy")
    mean = cosines(torch.stack((x, y), dim=-1)).mean(-1)
    axes.contourf(x, y, mean, 16, cmap="PuOr", vmin=-1, vmax=1)
    for order in ORDERS:
        own = [r for r in rests if (r.inner, r.order, r.inner_steps, r.outer_lr) == ("sgd", order, TASKS, OUTER_RATE)]
        ends = [end for rest in own for end in rest.ends]
        axes.plot(*zip(*ends, strict=True), "o", color=COLOURS[order], markersize=3.5, markeredgecolor="w", mew=0.5)
    axes.plot(*OPTIMA[2], "*", color="white", markeredgecolor="black", markersize=6, mew=0.5)
    axes.set(xlim=(10 - SIDE, 10 + SIDE), ylim=(-SIDE, SIDE), xlabel="$\\phi_1$", ylabel="$\\phi_2$")
    axes.set_title(f"(f) at rest: K = 3, eta {OUTER_RATE:g}")


def _curve(axes: Axes, order: Order, x: Sequence[float], rests: Sequence[Rest]) -> None:
    cosines = [rest.cosine for rest in rests]
    bars = [[one.mean - one.low for one in cosines], [one.high - one.mean for one in cosines]]
    means = [one.mean for one in cosines]
    axes.errorbar(
        x, means, yerr=bars, color=COLOURS[order], marker="o", markersize=3, linewidth=1, label=f"{order} tasks"
    )


def _frame(axes: Axes) -> None:
    axes.set_ylim(-0.6, 0.85)
    axes.minorticks_off()
    axes.axhline(0.0, color="0.8", linewidth=0.5, zorder=0)
