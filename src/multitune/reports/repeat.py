"""What a colleague types to run it again: a recipe and a command."""

from collections.abc import Mapping
from typing import Any

from multitune.recipe import Recipe, dumped
from multitune.reports.evidence import Evidence


def recipe(evidence: Evidence) -> str:
    """One recipe for all runs: keys that differ from their defaults, and under ``methods:`` what methods differ in."""
    given = {run.method: _given(run.recipe, run.grid) for run in reversed(evidence.runs)}  # each method's first run
    first = next(reversed(given.values()))
    if evidence.comparison is None:
        return dumped(first)
    common = {k: v for k, v in first.items() if k != "method" and all(keys.get(k) == v for keys in given.values())}
    own = {
        method: {k: v for k, v in given[method].items() if k not in {*common, "method"}} for method in evidence.methods
    }
    return dumped(common | {"methods": own})


def command(evidence: Evidence) -> str:
    """The command that runs the recipe, saved as recipe.yaml."""
    if evidence.comparison is None:
        return "multitune train recipe.yaml"
    values: dict[str, dict[str, None]] = {}
    for run in evidence.runs:
        for key, value in run.grid.items():
            values.setdefault(key, {})[str(value)] = None
    grid = [f"--grid {key}={','.join(points)}" for key, points in values.items()]
    seeds = [f"--seeds {evidence.seeds}"] if evidence.seeds > 1 else []
    paper = [f"--paper {evidence.comparison.paper[0].table}"] if evidence.comparison.paper else []
    return " ".join(["multitune compare recipe.yaml", *seeds, *grid, *paper])


def _given(recipe: Recipe, grid: Mapping[str, Any]) -> dict[str, Any]:
    keys = recipe.model_dump(mode="json", exclude_defaults=True)
    return {"method": recipe.method} | {key: value for key, value in keys.items() if key not in grid}
