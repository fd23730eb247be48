"""Several methods and seeds at one budget: run what is missing, then summarise with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitune import intervals, tasks
from multitune.data import Corpus
from multitune.errors import UserError
from multitune.evaluate import read_statistics
from multitune.intervals import Interval
from multitune.recipe import AnyRecipe, Recipe, as_file, to_yaml
from multitune.results import FILE, RunResult, write_json
from multitune.run import load_corpus, load_plan
from multitune.tasks import AnyTask
from multitune.training import train

SIDES = ("seen", "unseen")
Sides = dict[str, Interval | None]
"""For ``seen`` and ``unseen`` an estimate with its interval; None where a method has no such languages."""


@dataclass(frozen=True)
class Comparison:
    """What a comparison found, as its results.json has it; scores in percent.

    Attributes:
        runs: every run's result.
        metric: the score that is averaged over languages.
        baseline: the method that differences are from: mtl where it is among the methods, else the first.
        summary: method -> its average over seen and over unseen languages.
        differences: method -> its averages less the baseline's.
        interval: how low and high were found.
    """

    runs: list[RunResult]
    metric: str
    baseline: str
    summary: dict[str, Sides]
    differences: dict[str, Sides]
    interval: str


def compare(
    recipe: AnyRecipe,
    out: str | Path | None = None,
    *,
    methods: Sequence[str] = (),
    seeds: int = 1,
    overrides: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Comparison:
    """Train each method with each seed in a folder of its own, and compare them.

    Finished runs are not run again, unfinished ones are resumed.

    Args:
        recipe: a recipe, or the path of a file that holds one.
        out: the folder of the comparison, ``runs/<recipe>`` by default; its runs are in ``<method>-seed<seed>``.
        methods: names; by default those under the recipe's ``methods:``.
        seeds: how many; the first is the recipe's.
        overrides: recipe keys for all runs.
        progress: show progress on stderr.

    Raises:
        UserError: anything wrong with a recipe, before anything is run; or a run folder that holds another recipe.
        Interrupted: Ctrl-C or SIGTERM; the same call goes on from there.
    """
    file = as_file(recipe)
    out = Path("runs") / file.name if out is None else Path(out)
    names = list(dict.fromkeys(methods or file.methods))
    if not names:
        raise UserError("compare: no method is named; list methods under methods: in the recipe, or with --methods")
    common = dict(overrides or {})
    first = file.resolve(names[0], common).seed
    recipes = [file.resolve(name, common | {"seed": first + n}) for n in range(seeds) for name in names]
    folders = {out / f"{one.method}-seed{one.seed}": one for one in recipes}
    for folder, one in folders.items():
        load_plan(one)
        _check_same(folder, one)
    corpora: dict[str, Corpus] = {}
    for one in recipes:
        if _data_of(one) not in corpora:
            corpora[_data_of(one)] = load_corpus(one)
    for folder, one in folders.items():
        if not (folder / FILE).exists():
            train(one, folder, resume=True, progress=progress, corpus=corpora[_data_of(one)])
    comparison = summarise(list(folders), tasks.of(corpora[_data_of(recipes[0])]))
    write_json(out / FILE, asdict(comparison))
    return comparison


def summarise(folders: Sequence[Path], task: AnyTask) -> Comparison:
    """Averages and differences with intervals, from finished run folders.

    With one seed the intervals come from a paired bootstrap over test examples, with several from Student's t over
    seeds (paired by seed for the differences).
    """
    runs = [RunResult.read(folder) for folder in folders]
    methods = tuple(dict.fromkeys(run.method for run in runs))
    baseline = "mtl" if "mtl" in methods else methods[0]
    several = len(runs) > len(methods)
    measured = _over_seeds(runs) if several else _over_examples(runs, folders, task)
    return Comparison(
        runs=runs,
        metric=task.metric,
        baseline=baseline,
        summary={method: {side: _interval(measured[method, side]) for side in SIDES} for method in methods},
        differences={
            method: {side: _interval(_less(measured[method, side], measured[baseline, side])) for side in SIDES}
            for method in methods
            if method != baseline
        },
        interval="Student's t over seeds" if several else "paired bootstrap over test examples",
    )


@dataclass(frozen=True)
class _Measured:
    """Averages of one method: one a seed, or one estimate with its bootstrap draws."""

    values: NDArray[np.float64]
    draws: NDArray[np.float64] | None


def _over_seeds(runs: Sequence[RunResult]) -> dict[tuple[str, str], _Measured | None]:
    values: dict[tuple[str, str], list[float | None]] = {}
    for run in runs:
        for side in SIDES:
            values.setdefault((run.method, side), []).append(run.average[side])
    return {
        key: None if any(value is None for value in found) else _Measured(np.array(found, dtype=np.float64), None)
        for key, found in values.items()
    }


def _over_examples(
    runs: Sequence[RunResult], folders: Sequence[Path], task: AnyTask
) -> dict[tuple[str, str], _Measured | None]:
    measured: dict[tuple[str, str], _Measured | None] = {}
    for run, folder in zip(runs, folders, strict=True):
        statistics = read_statistics(folder / "predictions.jsonl")
        for side, scores in (("seen", run.seen), ("unseen", run.unseen)):
            average = run.average[side]
            draws = None if average is None else intervals.bootstrap({k: statistics[k] for k in scores}, task)
            measured[run.method, side] = None if average is None else _Measured(np.array([average]), draws)
    return measured


def _less(of: _Measured | None, baseline: _Measured | None) -> _Measured | None:
    if of is None or baseline is None:
        return None
    draws = None if of.draws is None or baseline.draws is None else of.draws - baseline.draws
    return _Measured(of.values - baseline.values, draws)


def _interval(measured: _Measured | None) -> Interval | None:
    if measured is None:
        return None
    if measured.draws is None:
        return intervals.from_seeds(measured.values)
    return intervals.from_draws(float(measured.values[0]), measured.draws)


def _check_same(folder: Path, recipe: Recipe) -> None:
    file = folder / "recipe.yaml"
    if file.exists() and file.read_text(encoding="utf-8") != to_yaml(recipe):
        raise UserError(f"--out: {folder} holds a run of another recipe; name another folder, or remove that one")


def _data_of(recipe: Recipe) -> str:
    """What decides the corpus of a recipe."""
    keys = {"data", "path", "languages", "unseen", "train_limit", "dev_limit", "test_limit", "select"}
    return recipe.model_dump_json(include=keys)
