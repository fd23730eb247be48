"""Several methods, seeds and points of a grid: run what is missing, then summarise with intervals."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitune import pseudo_tasks, tasks
from multitune.commands import grid as grids
from multitune.commands import parallel
from multitune.commands.attempts import Failures, Planned
from multitune.commands.comparable import check_same_languages, check_tested_alike
from multitune.commands.grid import Grid
from multitune.commands.init import recipe_for
from multitune.commands.train import train
from multitune.data.corpus import Corpus
from multitune.errors import Interrupted, UserError
from multitune.evaluation import intervals
from multitune.evaluation.scoring import read_samples
from multitune.recipe import LARGEST_SEED, Recipe
from multitune.recipe_files import AnyRecipe, RecipeFile, is_saved_in, merge, other_keys
from multitune.reports import page, papers
from multitune.results import predictions
from multitune.results.comparison import ComparedRun, Comparison, Estimates, FailedRun, Interval, Point
from multitune.results.falling import is_falling, rank
from multitune.results.run import FILE, SIDES, RunResult, Side, Sides
from multitune.screen.places import wanted, watched
from multitune.screen.stages import stage
from multitune.storage.disk import disk_explained
from multitune.tasks import HeadMap
from multitune.training import launch, run_folder
from multitune.training.arithmetic import settled
from multitune.training.data_changes import check_unchanged, digests_of
from multitune.training.loading import LIMITS, READING, load_corpus, load_plan
from multitune.training.tracking import check_tracker

BASELINES = ("mixed", "mtl")
"""What every other method has to beat: ordinary fine-tuning, or the papers' joint training."""
COMPARED = ("recipe.yaml", predictions.FILE)
"""What intervals and report read of a finished run, beside its results."""


@dataclass(frozen=True)
class How:
    """How the runs of a comparison are made; as the arguments of ``compare``."""

    jobs: int | None = 1
    on: str | None = None
    progress: bool = False
    track: str | None = None


def compare(
    recipe: AnyRecipe,
    out: str | Path | None = None,
    *,
    methods: Sequence[str] = (),
    seeds: int = 1,
    grid: Grid | None = None,
    overrides: Mapping[str, Any] | None = None,
    jobs: int | None = 1,
    on: str | None = None,
    progress: bool | None = None,
    track: str | None = None,
    paper: str | None = None,
) -> Comparison:
    """Train each method with each seed, at each point of a grid, in a folder of its own, and compare them.

    Finished runs are not run again, unfinished ones are resumed. A run that fails is noted in the result's ``failed``
    and left out of all figures; the others go on.

    Args:
        recipe: a recipe, or the path of a file that holds one.
        out: the folder of the comparison, ``runs/<recipe>`` by default; its runs are in ``<method>-seed<seed>``,
            or with a grid in ``<method>-<key>=<value>-seed<seed>``.
        methods: names; by default those under the recipe's ``methods:``.
        seeds: how many; the first is the recipe's.
        grid: recipe keys with the values to try, all combinations; they win over everything else.
        overrides: recipe keys for all runs.
        jobs: how many runs at once, in processes of their own, as far as memory has room for them; 1 makes them in
            this process, None as many as there are cards or, on the CPU, cores for their threads. Where nothing sets
            ``threads``, the runs share the cores out. The results are those of one run after the other at the same
            ``threads``.
        on: "ray", or "ray:" and the address of a cluster, whose nodes share the folders with this machine.
        progress: show progress, on stderr or in the notebook's cell; None does in a notebook alone.
        track: also show each run's curves live: "tensorboard", "wandb", "trackio" or "mlflow".
        paper: a table of the Sequential Reptile paper to set beside the figures, e.g. "table2".

    Raises:
        UserError: anything wrong with a recipe, before anything is run; or a run folder that holds another recipe, or a
            run on other data; or all runs failed by mistakes of the user's, such as a model that cannot be had.
        RunError: all runs failed, for other reasons.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP; the same call goes on from there.
    """
    file = recipe_for(recipe, overrides)
    out = Path("runs") / file.name if out is None else Path(out)
    planned = plan_comparison(file, methods, seeds, grid or {}, overrides or {})
    return compare_planned(planned, out, How(jobs, on, wanted(progress), track), paper)


def plan_comparison(
    file: RecipeFile, methods: Sequence[str], seeds: int, grid: Grid, overrides: Mapping[str, Any]
) -> list[Planned]:
    """The runs of a comparison, as ``compare`` makes them.

    Raises:
        UserError: no method is named, or the wrong way; or anything wrong with a recipe.
    """
    names = list(dict.fromkeys(methods or file.methods))
    if not names:
        raise UserError("compare: no method is named; list methods under methods: in the recipe, or with --methods")
    if "method" in overrides:
        raise UserError("method: compare takes its methods from --methods, or from methods: in the recipe")
    return plan_runs(file, names, seeds, grids.points(grid), overrides)


def compare_planned(planned: Sequence[Planned], out: Path, how: How, paper: str | None = None) -> Comparison:
    """Make runs in folders inside ``out`` and compare them, as ``compare`` does; raises what it raises."""
    if launch.launched():
        raise UserError(
            "several runs are made by one process: start it without torchrun, which is for one run (mt.train)"
        )
    with watched(how.progress):
        return _compared(planned, out, how, paper)


def _compared(planned: Sequence[Planned], out: Path, how: How, paper: str | None) -> Comparison:
    check_tracker(how.track)
    run_folder.check_for_several(out)
    single = _settled(planned, out, 1)
    count = parallel.fitting([one.recipe for one in single], how.jobs)
    runs = single if how.on is not None else _settled(planned, out, parallel.threads_each(count))
    ray = None if how.on is None else parallel.ray_workers([one.recipe for one in runs], how.on, how.jobs)
    for one in runs:
        load_plan(one.recipe)
        with disk_explained(out):
            _check_same(out / one.folder, one.recipe)
    corpora = _loaded(runs)
    _check_data(out, runs, corpora)
    data, heads = runs[0].recipe.data, tasks.of(corpora[0])
    if paper is not None:
        papers.columns(paper, data, heads.metric, [*{one.recipe.method: 1 for one in runs}], corpora[0].test)
    failures = Failures(out, runs)
    missing = [each for each in zip(runs, corpora, strict=True) if not _is_whole(out / each[0].folder)]
    if count > 1 or ray is not None:
        parallel.check_known(missing)
    if count == 1 and ray is None:
        try:
            _one_after_the_other(missing, out, failures, how)
        except Interrupted as stop:
            whole = sum((out / one.folder / FILE).exists() for one in runs)
            raise Interrupted.among(whole, len(runs), stop.signal) from stop
    else:
        workers = ray or parallel.local_workers([one.recipe for one in runs], count)
        parallel.run_at_once(missing, out, failures, workers, progress=how.progress, track=how.track)
    finished = failures.finished()
    comparison = summarise(out, {one.folder: one.point for one in finished}, heads, failures.failed)
    if paper is not None and not papers.find(paper).scores.keys().isdisjoint(comparison.chosen):
        comparison = replace(comparison, paper=papers.beside(paper, data, comparison.chosen_runs))
    with disk_explained(out):
        comparison.write(out)
        page.write(out)
    return comparison


def _one_after_the_other(missing: parallel.Missing, out: Path, failures: Failures, how: How) -> None:
    """Make runs in this process; what fails is noted."""
    with stage("all runs", len(missing)) as done:
        for one, corpus in missing:
            with failures.noted(one, corpus):
                at = out / one.folder
                train(one.recipe, at, resume=True, progress=how.progress, track=how.track, corpus=corpus)
            done(1)


def plan_runs(
    file: RecipeFile, names: Sequence[str], seeds: int, at: Sequence[Point], common: Mapping[str, Any]
) -> list[Planned]:
    """The runs of all methods and points, then those of the next seed."""
    first = file.resolve(names[0], common).seed
    if first + seeds - 1 > LARGEST_SEED:
        raise UserError(f"--seeds: {seeds} from seed {first} on go beyond the largest seed, {LARGEST_SEED}")
    runs = []
    for seed, point, name in product(range(first, first + seeds), at, names):
        recipe = file.resolve(name, merge(common, grids.overrides(point)) | {"seed": seed})
        if recipe.patience is not None:
            raise UserError(
                "patience: cannot stand in a comparison or sweep, whose runs all spend their budget; leave it out, or "
                "set patience=null"
            )
        runs.append(Planned(f"{recipe.method}{grids.suffix(point)}-seed{seed}", point, recipe))
    return runs


def _settled(runs: Sequence[Planned], out: Path, threads: int | None) -> list[Planned]:
    """The runs with one precision and number of threads for all, where recipes and earlier runs leave these open."""
    folders = [out / one.folder for one in runs]
    return [replace(one, recipe=settled(one.recipe, [out / one.folder, *folders], threads)) for one in runs]


def _is_whole(folder: Path) -> bool:
    """Whether a run has all its files."""
    return all((folder / file).exists() for file in (FILE, page.FILE))


def _loaded(runs: Sequence[Planned]) -> list[Corpus]:
    """The corpus of each run; runs with the same data share it."""
    corpora: dict[str, Corpus] = {}
    for one in runs:
        data = _data_of(one.recipe)
        corpora[data] = corpora[data] if data in corpora else load_corpus(one.recipe)
        pseudo_tasks.check(one.recipe, corpora[data])
    return [corpora[_data_of(one.recipe)] for one in runs]


def _check_data(out: Path, runs: Sequence[Planned], corpora: Sequence[Corpus]) -> None:
    """Refuse runs that were made with other data than these, or tested on different records or in other languages."""
    for one, corpus in zip(runs, corpora, strict=True):
        check_unchanged(out / one.folder, one.recipe, corpus, option="--out")
    check_tested_alike({one.folder: digests_of(corpus, None) for one, corpus in zip(runs, corpora, strict=True)})
    check_same_languages({one.folder: _scored(one, corpus) for one, corpus in zip(runs, corpora, strict=True)})


def _scored(one: Planned, corpus: Corpus) -> Sides[Collection[str]]:
    """The languages that a run will be scored in; no language is unseen by a model of its own."""
    return Sides(seen=list(corpus.train), unseen=[] if load_plan(one.recipe).one_model_per_task else corpus.unseen)


def summarise(out: Path, folders: Mapping[str, Point], heads: HeadMap, failed: Sequence[FailedRun] = ()) -> Comparison:
    """Averages and differences with intervals, from finished run folders inside ``out`` and their points of a grid.

    Each method is summarised at the point whose dev average is best; one with a failed seed is chosen only where
    there is no other. The intervals of several seeds are Student's t over seeds (paired by seed for the differences)
    widened by a paired bootstrap over test examples; those of one seed are the latter alone.

    Raises:
        UserError: runs that were tested on different records of a language; or what ``RunResult.read`` raises.
    """
    runs = [
        ComparedRun(**vars(RunResult.read(out / folder)), folder=folder, grid=point)
        for folder, point in folders.items()
    ]
    return summarised(out, runs, heads, failed)


def summarised(out: Path, runs: Sequence[ComparedRun], heads: HeadMap, failed: Sequence[FailedRun] = ()) -> Comparison:
    """What ``summarise`` makes of runs that were read from folders inside ``out``.

    Raises:
        UserError: as ``summarise`` does.
    """
    check_tested_alike({run.folder: run.digests for run in runs})
    chosen = _chosen(runs, failed)
    shown = [run for run in runs if run.grid == chosen[run.method]]
    methods = tuple(chosen)
    baseline = next((method for method in BASELINES if method in methods), methods[0])
    several = len(shown) > len(methods)
    measured = _measure(out, shown, heads, several=several)
    interval = _over_both if several else _over_examples

    def gain(method: str, other: str) -> Estimates:
        return _sides(lambda side: interval(_gain(measured[method, side], measured[other, side], heads.metric)))

    def own(method: str) -> Estimates:
        return _sides(lambda side: interval(measured[method, side]))

    return Comparison(
        runs=list(runs),
        chosen=chosen,
        metric=heads.metric,
        baseline=baseline,
        summary={method: own(method) for method in methods},
        differences={method: gain(method, baseline) for method in methods if method != baseline},
        pairwise={method: {other: gain(method, other) for other in methods if other != method} for method in methods},
        interval=("Student's t over seeds and " if several else "") + "paired bootstrap over test examples",
        failed=list(failed),
    )


def _chosen(runs: Sequence[ComparedRun], failed: Sequence[FailedRun]) -> dict[str, Point]:
    """Method -> the point that is summarised."""
    by_method: dict[str, list[ComparedRun]] = {}
    for run in runs:
        by_method.setdefault(run.method, []).append(run)
    return {k: _best(own, [run.grid for run in failed if run.method == k]) for k, own in by_method.items()}


def _best(runs: Sequence[ComparedRun], failed: Sequence[Point]) -> Point:
    """The point with the best dev average over seeds, at the largest budget: costs stay equal.

    A mean over the seeds that did not fail would flatter: points where one did come last.
    """
    largest = max(run.budget for run in runs)
    points = [run.grid for run in runs if run.budget == largest]
    whole = [point for point in points if point not in failed]
    return max(
        whole or points,
        key=lambda point: np.mean([rank(run.metric, run.shipped.dev) for run in runs if run.grid == point]),
    )


@dataclass(frozen=True)
class _Measured:
    """Averages of one method by seed, and the bootstrap draws of each."""

    values: Mapping[int, float]
    draws: Mapping[int, NDArray[np.float64]]


def _measure(
    out: Path, runs: Sequence[ComparedRun], heads: HeadMap, *, several: bool
) -> dict[tuple[str, Side], _Measured | None]:
    """What each method has on each side; None where a score is not finite. One seed goes by 0, whichever it is."""
    samples = [read_samples(out / run.folder, heads) for run in runs]
    measured: dict[tuple[str, Side], _Measured | None] = {}
    for side in SIDES:
        finite = [number for number, run in enumerate(runs) if run.average[side] is not None]
        tested = [{k: samples[number][k] for k in runs[number].scores[side]} for number in finite]
        draws = dict(zip(finite, intervals.bootstraps(tested, heads), strict=True))
        for method in dict.fromkeys(run.method for run in runs):
            own = {run.seed if several else 0: number for number, run in enumerate(runs) if run.method == method}
            known = {seed: value for seed, number in own.items() if (value := runs[number].average[side]) is not None}
            whole = len(known) == len(own)
            drawn = {seed: draws[own[seed]] for seed in known}
            measured[method, side] = _Measured(known, drawn) if whole else None
    return measured


def _gain(of: _Measured | None, baseline: _Measured | None, metric: str) -> _Measured | None:
    """The difference, over the seeds that both have; positive where ``of`` is better."""
    if of is None or baseline is None:
        return None
    more, less = (baseline, of) if is_falling(metric) else (of, baseline)
    seeds = [seed for seed in more.values if seed in less.values]
    return _Measured(
        {seed: more.values[seed] - less.values[seed] for seed in seeds},
        {seed: more.draws[seed] - less.draws[seed] for seed in seeds},
    )


def _sides(estimate: Callable[[Side], Interval | None]) -> Estimates:
    return Sides(seen=estimate("seen"), unseen=estimate("unseen"))


def _over_examples(measured: _Measured | None) -> Interval | None:
    return None if measured is None else intervals.from_draws(measured.values[0], measured.draws[0])


def _over_both(measured: _Measured | None) -> Interval | None:
    """None where fewer than two seeds are left."""
    if measured is None or len(measured.values) < 2:
        return None
    return intervals.from_both(np.array([*measured.values.values()]), np.mean([*measured.draws.values()], axis=0))


def _check_same(folder: Path, recipe: Recipe) -> None:
    """Refuse the folder of another run, of one that another process has, or of which a part was removed."""
    file = folder / "recipe.yaml"
    if file.exists() and not is_saved_in(file, recipe):
        raise UserError(
            f"--out: {folder} holds a run of another recipe (in {other_keys(file, recipe)}); name another folder, or "
            f"remove that one"
        )
    run_folder.check_free(folder)
    lacking = [name for name in COMPARED if not (folder / name).exists()] if (folder / FILE).exists() else []
    if lacking:
        raise UserError(f"--out: {folder} lacks its {lacking[0]}; remove this folder, and the run is made again")


def _data_of(recipe: Recipe) -> str:
    """What decides the corpus of a recipe."""
    keys = {*READING, *LIMITS, "languages", "unseen", "select"}
    return recipe.model_dump_json(include=keys)
