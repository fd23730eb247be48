"""Successive halving (Jamieson and Talwalkar, 2016): all points at a small budget, the best ones at larger ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multitune.commands import grid as grids
from multitune.commands.compare import How, compare_planned, plan_runs
from multitune.commands.grid import Grid
from multitune.commands.init import recipe_for
from multitune.errors import UserError
from multitune.recipe_files import AnyRecipe, RecipeFile, merge, to_yaml
from multitune.results.comparison import Comparison, Point
from multitune.results.falling import rank
from multitune.results.sweep import Rung, Sweep, SweptPoint
from multitune.screen.places import wanted
from multitune.storage.atomic import write_text
from multitune.storage.disk import disk_explained
from multitune.training import run_folder

FACTOR = 3
"""What the budget is multiplied by from rung to rung, and the number of points divided by."""
WINNER = "winner.yaml"
"""The recipe of the point that wins, in the sweep's folder."""


def sweep(
    recipe: AnyRecipe,
    out: str | Path | None = None,
    *,
    grid: Grid,
    rungs: int = 3,
    seeds: int = 1,
    overrides: Mapping[str, Any] | None = None,
    jobs: int | None = 1,
    on: str | None = None,
    progress: bool | None = None,
    track: str | None = None,
) -> Sweep:
    """Look for the point of a grid that is best on dev, at a share of the whole grid's gradient computations.

    All points are run with a small budget; the best third of them with three times that budget, and so on, up to the
    recipe's. Every run has its whole schedule: none is cut short, and none goes on from a smaller one. With three rungs
    and nine points or more a sweep costs about a third of the grid.

    Args:
        recipe: a recipe, or the path of a file that holds one; of one method.
        out: the folder of the sweep, ``runs/<recipe>-sweep`` by default; a comparison a rung is in ``rung1`` ...
        grid: recipe keys with the values to try, all combinations.
        rungs: how many.
        seeds: runs of each point, whose dev averages are averaged.
        overrides: recipe keys for all runs.
        jobs, on, progress, track: as of ``compare``.

    Returns:
        What each rung found; ``sweep.json`` and ``winner.yaml`` in ``out`` hold it and the recipe that wins.

    Raises:
        UserError: a budget too small for so many rungs, a grid of one point or of the budget; or as ``compare`` does.
        RunError, Interrupted: as ``compare`` does; the same call goes on from there.
    """
    if name := {"method", "methods"}.intersection(grid):
        raise UserError(f"--grid {name.pop()}: a sweep is of one method, which method=NAME says")
    file = recipe_for(recipe, overrides)
    first = file.resolve(overrides=overrides)
    folder = Path("runs") / f"{file.name}-sweep" if out is None else Path(out)
    run_folder.check_for_several(folder)
    points = grids.points(grid)
    budgets = _budgets(first.budget, rungs, grid, points)
    found: list[Rung] = []
    for number, budget in enumerate(budgets, 1):
        if len(points) == 1 and number < rungs:
            continue  # there is nothing left to choose: the last rung is the winner's run
        common = merge(overrides or {}, {"budget": budget})
        planned = plan_runs(file, [first.method], seeds, points, common)
        within = folder / f"rung{number}"
        comparison = compare_planned(planned, within, How(jobs, on, wanted(progress), track))
        keep = max(1, len(points) // FACTOR) if number < rungs else 1
        found.append(_ranked(comparison, within.name, budget, points, keep))
        points = [each.grid for each in found[-1].points if each.kept]
    result = Sweep(
        method=first.method,
        metric=comparison.metric,
        seeds=seeds,
        rungs=found,
        winner=points[0],
        gradients=seeds * sum(rung.budget * len(rung.points) for rung in found),
        full_grid=seeds * first.budget * len(found[0].points),
    )
    with disk_explained(folder):
        result.write(folder)
        write_text(folder / WINNER, _winner(file, result, overrides))
    return result


def _budgets(budget: int, rungs: int, grid: Grid, points: Sequence[Point]) -> list[int]:
    """The budget of each rung, the recipe's last.

    Raises:
        UserError: there is nothing to choose from, or the smallest would be nothing.
    """
    if "budget" in grid:
        raise UserError("--grid budget: a sweep sets it by itself, rung by rung")
    if len(points) < 2:
        raise UserError("--grid: a sweep needs two points or more; name several values of a key")
    if rungs < 1:
        raise UserError(f"--rungs: {rungs} is too few; name 1 or more")
    if rungs > budget.bit_length() or not budget // FACTOR ** (rungs - 1):
        raise UserError(f"--rungs: {rungs} are too many for a budget of {budget}, a third of which is left in each")
    return [budget // FACTOR ** (rungs - number) for number in range(1, rungs + 1)]


def _ranked(comparison: Comparison, folder: str, budget: int, points: Sequence[Point], keep: int) -> Rung:
    """The points by dev, best first; of equal ones that which stands first in the grid."""
    failed = [run.grid for run in comparison.failed]
    dev = [None if point in failed else _dev(comparison, point) for point in points]
    order = sorted(range(len(points)), key=lambda n: -rank(comparison.metric, dev[n]))
    kept = max(1, min(keep, len(dev) - dev.count(None)))
    return Rung(folder, budget, [SweptPoint(points[n], dev[n], place < kept) for place, n in enumerate(order)])


def _dev(comparison: Comparison, point: Point) -> float | None:
    """The mean over seeds; None where a score is not finite."""
    scores = [run.shipped.dev for run in comparison.runs if run.grid == point]
    known = [score for score in scores if score is not None]
    return float(np.mean(known)) if len(known) == len(scores) else None


def _winner(file: RecipeFile, found: Sweep, overrides: Mapping[str, Any] | None) -> str:
    """The recipe of the point that wins, at the whole budget."""
    return to_yaml(file.resolve(found.method, merge(overrides or {}, grids.overrides(found.winner))))
