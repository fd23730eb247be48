"""Runs that are finished, wherever they are, compared with each other."""

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from multitune.commands.comparable import check_same_languages
from multitune.commands.compare import summarised
from multitune.errors import UserError
from multitune.models.shipped import shipped
from multitune.recipe_files import read
from multitune.results.comparison import ComparedRun, Comparison
from multitune.results.run import FILE, RunResult, Sides
from multitune.storage.disk import check_readable
from multitune.tasks import HeadMap, Task, name_of

log = logging.getLogger(__name__)

RECIPE = "recipe.yaml"
SETTLED = {"seed", "path", "precision", "threads", "deterministic", "device", "compile"}
"""Keys of a recipe in which runs of one method and setting may differ."""


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a finished run."""
    return (folder / RECIPE).exists() and (folder / FILE).exists()


@dataclass(frozen=True)
class _Finished:
    """A finished run.

    Attributes:
        setting: all of its recipe that makes another method of it.
        models: as ``shipped`` has them.
    """

    folder: Path
    result: RunResult
    setting: str
    models: dict[str, Task]


def compare_finished(runs: Sequence[str | Path]) -> Comparison:
    """Compare finished runs with intervals, as ``compare`` does its own. Nothing is trained, and nothing written.

    Runs of a method are its seeds where their recipes agree in all else. Where a method was run in several settings,
    each goes by its run's folder instead of the method's name.

    Args:
        runs: two run folders or more.

    Raises:
        UserError: fewer; a folder without a finished run and its model; runs of other kinds of task, labels or
            languages, or that were tested on other records.
    """
    folders = list(dict.fromkeys(Path(run) for run in runs))
    if len(folders) < 2:
        raise UserError("compare: name two finished runs or more, or a recipe")
    finished = [_read(folder) for folder in folders]
    _check_alike(finished)
    names = _names(finished)
    _warn_of_single_seeds(names.values())
    compared = [
        ComparedRun(**vars(replace(run.result, method=names[run.folder])), folder=str(run.folder), grid={})
        for run in finished
    ]
    models = finished[0].models
    heads = HeadMap.of_each(models) if compared[0].metric == "score" else HeadMap.of_all(next(iter(models.values())))
    return summarised(Path(), compared, heads)


def _read(folder: Path) -> _Finished:
    check_readable(folder)
    if not is_run(folder):
        raise UserError(f"{folder}: holds no finished run; compare needs its {RECIPE}, {FILE} and model/")
    recipe = read(folder / RECIPE).resolve()
    setting = recipe.model_dump_json(exclude=SETTLED)
    return _Finished(folder, RunResult.read(folder), setting, shipped(folder / "model"))


def _check_alike(finished: Sequence[_Finished]) -> None:
    """Raise UserError where averages of two runs are not of the same; warn where their costs are not equal."""
    first, *others = finished
    for other in others:
        for own, theirs, what in zip(_measured(first), _measured(other), ("score", "labels"), strict=True):
            if own != theirs:
                raise UserError(f"compare: {first.folder} and {other.folder} have other {what}: {own}; {theirs}")
        if other.result.spent != first.result.spent:
            log.warning(
                "costs are not equal: %s had %d gradient computations, %s %d",
                *(first.folder, first.result.spent, other.folder, other.result.spent),
            )
    check_same_languages({str(run.folder): Sides(list(run.result.seen), list(run.result.unseen)) for run in finished})


def _measured(run: _Finished) -> tuple[str, str]:
    """What a run's averages are of, in words: the score and its labels."""
    tasks = {f"{name_of(task)} of {', '.join(task.labels)}" for task in run.models.values()}
    return run.result.metric, "; ".join(sorted(tasks))


def _warn_of_single_seeds(names: Collection[str]) -> None:
    """Say which methods stand in the table without a score, since there is no interval over seeds of one seed."""
    seeds = Counter(names)
    single = [name for name, count in seeds.items() if count == 1]
    if single and max(seeds.values()) > 1:
        log.warning(
            "one seed alone of %s: the table has no score of it, as intervals are over seeds; name as many seeds of "
            "each method",
            ", ".join(single),
        )


def _names(finished: Sequence[_Finished]) -> dict[Path, str]:
    """Folder -> what the method of the run in it is called: its name, if it has one setting, else a folder of it."""
    groups: dict[tuple[str, str, int], list[_Finished]] = {}
    seeds: Counter[tuple[str, int]] = Counter()
    for run in finished:
        repeated = seeds[run.setting, run.result.seed]
        seeds[run.setting, run.result.seed] += 1
        groups.setdefault((run.result.method, run.setting, repeated), []).append(run)
    settings = Counter(method for method, *_ in groups)
    return {
        run.folder: method if settings[method] == 1 else str(own[0].folder)
        for (method, *_), own in groups.items()
        for run in own
    }
