"""What a colleague types to run it again: a recipe and a command."""

import shlex
from collections.abc import Mapping
from typing import Any

from multitune.recipe import Recipe
from multitune.recipe_files import dumped, read
from multitune.reports.evidence import Evidence


def recipe(evidence: Evidence) -> str:
    """One recipe for all runs: keys that differ from their defaults, and under ``methods:`` what methods differ in."""
    given = {run.method: _given(run.recipe, run.grid) for run in reversed(evidence.runs)}  # each method's first run
    failed = _of_failed(evidence)
    given = failed | given
    first = next(reversed(given.values()))
    if evidence.comparison is None:
        return dumped(first)
    common = {k: v for k, v in first.items() if k != "method" and all(keys.get(k) == v for keys in given.values())}
    own = {
        method: {k: v for k, v in given[method].items() if k not in {*common, "method"}}
        for method in (*evidence.methods, *failed)
    }
    return dumped(common | {"methods": own})


def command(evidence: Evidence) -> str:
    """The command that runs the recipe, saved as recipe.yaml."""
    if evidence.comparison is None:
        return "multitune train recipe.yaml"
    values: dict[str, dict[str, None]] = {}
    for point in [*(run.grid for run in evidence.runs), *(run.grid for run in evidence.failed)]:
        for key, value in point.items():
            values.setdefault(key, {})[str(value)] = None
    grid = [f"--grid {shlex.quote('='.join((key, ','.join(points))))}" for key, points in values.items()]
    seeds = [f"--seeds {evidence.seeds}"] if evidence.seeds > 1 else []
    paper = [f"--paper {evidence.comparison.paper[0].table}"] if evidence.comparison.paper else []
    return " ".join(["multitune compare recipe.yaml", *seeds, *grid, *paper])


def _of_failed(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """The keys of methods all of whose runs failed, as far as one of them had begun."""
    runs = {run.method: run for run in reversed(evidence.failed) if run.method not in evidence.methods}
    files = {method: evidence.folder / run.folder / "recipe.yaml" for method, run in runs.items()}
    return {k: _given(read(file).resolve(), runs[k].grid) for k, file in files.items() if file.exists()}


def _given(recipe: Recipe, grid: Mapping[str, Any]) -> dict[str, Any]:
    keys = recipe.model_dump(mode="json", exclude_defaults=True)
    return {"method": recipe.method} | {key: value for key, value in keys.items() if key not in grid}
