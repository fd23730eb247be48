"""One picture of what confirming stages found: each contender's difference from the baseline, with its intervals."""

from collections.abc import Callable, Sequence
from typing import Any

from analyse import Compared
from contrasts import Contrast
from multitune.reports.plotting import Axes, Figure, Line2D, styled
from plan import Plan
from verdicts import BETTER, LEVEL, WORSE

COLOURS = {BETTER: "#1a8fc0", LEVEL: "#117733", WORSE: "#cc6677"}
"""Verdict -> colour; what is undecided is grey, and pale where a stage is to go on."""
GREY, PALE = "#6e6e6e", "#b4b4b4"
POINT: dict[str, Any] = {"marker": "o", "markersize": 4}
THICK: dict[str, Any] = {"linewidth": 2.5, "solid_capstyle": "butt"}
THIN: dict[str, Any] = {"linewidth": 0.8}
LINE = 0.24
"""Inches from row to row."""


def draw(plan: Plan, found: Sequence[Compared]) -> Figure:
    """Two panels, unseen and seen languages, with a row a contender; of each setting the largest gain is first."""
    places = list(dict.fromkeys(each.setting for each in found))
    rows = sorted(found, key=lambda each: (places.index(each.setting), -each.unseen.these.mean))
    with styled(8):
        figure = Figure(figsize=(7.0, 1.0 + LINE * len(rows)), dpi=200)
        left, right = figure.subplots(1, 2, sharey=True)
        _panel(left, rows, lambda each: each.unseen)
        _panel(right, rows, lambda each: each.seen)
        left.set(title="unseen languages", xlabel=f"points above {plan.baseline}")
        right.set(title="seen languages", xlabel=f"points above {plan.baseline}")
        right.axvline(-plan.margins["seen"], color=GREY, linewidth=0.8, linestyle=":")
        left.set_yticks(range(len(rows)), [f"{each.setting}  {each.contender}" for each in rows])
        left.set_ylim(len(rows) - 0.5, -0.5)
        handles = [
            Line2D([], [], color=_colour(verdict), label=verdict or "no verdict yet", **POINT, **THICK)
            for verdict in dict.fromkeys(each.verdict for each in rows)
        ]
        handles.append(Line2D([], [], color=GREY, label="other languages, too", **THIN))
        figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False)
        figure.tight_layout(rect=(0.0, 0.3 / figure.get_figheight(), 1.0, 1.0))
    return figure


def _panel(axes: Axes, rows: Sequence[Compared], side: Callable[[Compared], Contrast]) -> None:
    for place, each in enumerate(rows):
        contrast, colour = side(each), _colour(each.verdict)
        if contrast.new is not None:
            axes.plot([contrast.new.low, contrast.new.high], [place, place], color=colour, **THIN)
        axes.plot([contrast.these.low, contrast.these.high], [place, place], color=colour, **THICK)
        axes.plot([contrast.these.mean], [place], color=colour, **POINT)
    axes.axvline(0.0, color="black", linewidth=0.5)
    axes.tick_params(axis="y", length=0)
    for edge in ("top", "right", "left"):
        axes.spines[edge].set_visible(False)


def _colour(verdict: str) -> str:
    return COLOURS.get(verdict, GREY if verdict else PALE)
