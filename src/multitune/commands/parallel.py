"""The runs of a comparison at once: how many, with how many threads, and as which jobs."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import torch

from multitune.commands.attempts import Failures, Planned
from multitune.data import DATASETS
from multitune.data.corpus import Corpus
from multitune.errors import UserError
from multitune.jobs.display import Board, Lines, Quiet
from multitune.jobs.job import Job
from multitune.jobs.processes import Processes
from multitune.jobs.schedule import Schedule, Workers
from multitune.models.device import chosen
from multitune.plans import METHODS
from multitune.recipe import Recipe
from multitune.results.run import FILE
from multitune.storage.cores import usable_cores
from multitune.tasks import TASKS
from multitune.training import run_folder
from multitune.training.loading import load_plan

Missing = Sequence[tuple[Planned, Corpus]]
"""The runs that are to be made, and their data."""


def fitting(recipes: Sequence[Recipe], asked: int | None) -> int:
    """How many runs there are at once, at most: as many as are asked for, else as cards or cores allow.

    Args:
        recipes: of all runs; their threads are settled, with 1 where nothing says how many.
        asked: for; None leaves it to the machine.
    """
    if asked is not None and asked < 1:
        raise UserError(f"--jobs: {asked} is too few; name 1 or more")
    most = asked or min(_most(recipe) for recipe in recipes)
    divided = any(load_plan(recipe).one_model_per_task for recipe in recipes)
    return most if divided else min(most, len(recipes))


def threads_each(count: int) -> int | None:
    """The threads of each of so many runs, where nothing says how many; None for one run leaves it all cores."""
    return None if count == 1 else max(1, usable_cores() // count)


def _most(recipe: Recipe) -> int:
    """The runs of a recipe that a machine has room for, memory apart."""
    device = chosen(recipe.device)
    if device.type == "cpu":
        return max(1, usable_cores() // (recipe.threads or 1))
    return torch.cuda.device_count() if device.type == "cuda" and device.index is None else 1


def local_workers(recipes: Sequence[Recipe], count: int) -> Processes:
    """Processes of this machine; runs that name no card have each one of its cards for itself, as far as these go."""
    devices = [chosen(recipe.device) for recipe in recipes]
    if not all(device.type == "cuda" and device.index is None for device in devices):
        return Processes(count)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    return Processes(count, visible.split(","))


def ray_workers(recipes: Sequence[Recipe], on: str, jobs: int | None) -> Workers:
    """The nodes of a Ray cluster.

    Args:
        recipes: of all runs, settled.
        on: "ray", or "ray:" and the cluster's address.
        jobs: the most at once, if that is said.

    Raises:
        UserError: anything else than "ray", or Ray cannot be had.
    """
    where, _, address = on.partition(":")
    if where != "ray":
        raise UserError(f"--on: {on!r} is no place for runs; write ray, or ray:ADDRESS")
    from multitune.jobs.on_ray import OnRay

    threads = max(recipe.threads or 1 for recipe in recipes)
    return OnRay(address, jobs, threads, on_cards=any(recipe.device != "cpu" for recipe in recipes))


def check_known(planned: Missing) -> None:
    """Make sure that other processes, which run no script, know what runs name.

    Raises:
        UserError: a method, data set or kind of task that is defined in the script or notebook itself.
    """
    for one, corpus in planned:
        names: tuple[tuple[str, str, Mapping[str, object]], ...] = (
            ("method", one.recipe.method, METHODS),
            ("data", one.recipe.data, DATASETS),
            *(("task", task, TASKS) for task in {corpus.task, *(head.task for head in corpus.heads.values())}),
        )
        for key, name, known in names:
            if getattr(known.get(name), "__module__", None) == "__main__":
                raise UserError(
                    f"{key}: {name!r} is defined in this script or notebook, which other processes do not run; make "
                    f"one run at a time (jobs=1), or put it into an installed package (docs/plugins.md)"
                )


def run_at_once(
    missing: Missing, out: Path, failures: Failures, workers: Workers, *, progress: bool, track: str | None
) -> None:
    """Make runs as jobs; what fails is noted.

    Args:
        missing: what is to be run.
        out: the folder of the comparison.
        failures: notes what fails.
        workers: who do the jobs.
        progress: show how all of them go on stderr.
        track: a tracker for each, if any.

    Raises:
        Interrupted: Ctrl-C, SIGTERM or SIGHUP; or what ends all runs, as the model that cannot be had.
    """
    of_run = {one.folder: list(_jobs(one, corpus, out, track)) for one, corpus in missing}
    runs = {job.name: (one, corpus) for one, corpus in missing for job in of_run[one.folder]}
    jobs = [job for each in of_run.values() for job in each]
    failed: set[str] = set()
    board: Board = Lines(len(jobs)) if progress else Quiet()
    with closing(Schedule(jobs, workers, board).run()) as endings:
        for ended in endings:
            one, corpus = runs[ended.job.name]
            if ended.error is not None and one.folder not in failed:
                failed.add(one.folder)
                with failures.noted(one, corpus):
                    raise ended.error


def _jobs(one: Planned, corpus: Corpus, out: Path, track: str | None) -> Iterator[Job]:
    """The jobs of a run: itself; before that, of a method with a model for each language, these models."""
    folder, parts = out / one.folder, []
    if load_plan(one.recipe).one_model_per_task and not (folder / FILE).exists():
        languages = [each for each in corpus.train if not (folder / "languages" / each / FILE).exists()]
        parts = [Job(f"{one.folder}/{each}", one.recipe, folder, track, language=each) for each in languages]
        with run_folder.opened(folder, one.recipe, resume=True):
            """Its recipe is written once, before several processes work in it."""
    yield from parts
    yield Job(one.folder, one.recipe, folder, track, after=tuple(part.name for part in parts))
