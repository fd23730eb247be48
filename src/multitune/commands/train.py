"""One run from its recipe to its results: one model for all languages, or a model for each."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multitune.commands import given_data
from multitune.commands.fitting import How, fit
from multitune.commands.init import recipe_for
from multitune.commands.single_language import train_each
from multitune.data.corpus import Corpus
from multitune.errors import UserError
from multitune.methods.ranks import Ranks
from multitune.models import lora
from multitune.models.device import chosen
from multitune.plans import Plan
from multitune.recipe import Recipe
from multitune.recipe_files import AnyRecipe, RecipeFile, read
from multitune.reports import page
from multitune.results.json_files import as_line, parsed, plain, typed
from multitune.results.run import FILE, RunResult
from multitune.screen.places import wanted, watched
from multitune.storage.disk import disk_explained
from multitune.storage.interrupt import StopSignal
from multitune.training import launch, run_folder
from multitune.training.arithmetic import computing_as
from multitune.training.data_changes import check_unchanged
from multitune.training.loading import load_corpus, load_plan
from multitune.training.memory import memory_explained, reset_peak_memory
from multitune.training.progress import Shows, Silent
from multitune.training.run import prepare
from multitune.training.tracking import check_tracker
from multitune.training.trainer import Trainer


def train(
    recipe: AnyRecipe | None = None,
    out: str | Path | None = None,
    *,
    data: Any = None,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | Shows | None = None,
    track: str | None = None,
    corpus: Corpus | None = None,
) -> RunResult:
    """Train, evaluate and ship one run.

    Args:
        recipe: what to do: a recipe, the path of a file that holds one, or of data, for which one is made; None where
            ``data`` is all there is.
        out: the run folder; ``runs/<recipe>-<method>-seed<seed>`` by default, with a number where that is taken.
            Nothing is written before recipe, data and model have been found good.
        data: rows in memory, which the run folder keeps: a dict of lists, a list of dicts, a pandas or polars frame, a
            ``datasets.Dataset``, or a dict of these by split, such as a ``DatasetDict``. The recipe then has no path.
        overrides: recipe keys to set, e.g. ``{"budget": 400}``.
        resume: continue the unfinished run in ``out`` from its newest checkpoint, or begin where there is none; of a
            finished run, write the report again.
        overwrite: remove the run that is in ``out``, whichever it is, and begin anew.
        progress: show bars, on stderr or in the notebook's cell; None does in a notebook alone. Or what makes another
            display.
        track: also show its curves live: "tensorboard", "wandb", "trackio" or "mlflow".
        corpus: the recipe's data, where the caller has it already.

    Where torchrun or ``accelerate launch`` has started several processes, they share the run: rank 0 alone writes.

    Raises:
        UserError: anything wrong with the recipe, the data, the model or the folder, which another run may have.
        RunError: the disk is full, memory is short, or losses stay not finite; the newest checkpoint stays.
            Or another of the processes that share the run has ended.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP; the newest checkpoint holds what was learnt, and so does ``model/``
            where the recipe writes one.
    """
    how = How(resume, overwrite, progress, track)
    with launch.joined() as ranks, watched(not callable(progress) and ranks.rank == 0 and wanted(progress)):
        if data is not None:
            if ranks.size > 1:
                raise UserError(
                    "data: rows in memory are one process's; on several ranks train by a recipe with a path"
                )
            with given_data.written(data) as given:
                own = given_data.recipe_for(recipe, given, overrides)
                return _train(own, out, overrides, how, corpus, ranks, given=given)
        if recipe is None:
            raise UserError("recipe: is missing; name one, or give data")
        return _train(recipe_for(recipe, overrides), out, overrides, how, corpus, ranks)


def _train(
    file: RecipeFile,
    out: str | Path | None,
    overrides: Mapping[str, Any] | None,
    how: How,
    corpus: Corpus | None,
    ranks: Ranks,
    *,
    given: Path | None = None,
) -> RunResult:
    """Train by a recipe file; ``given`` has the data, where the run is to keep them."""
    one = given_data.where_kept(file.resolve(overrides=overrides), Path(file.source))
    if how.resume and how.overwrite:
        raise UserError("--resume: cannot stand beside --overwrite, which begins anew")
    folder = default_folder(file, one, resume=how.resume, overwrite=how.overwrite) if out is None else Path(out)
    plan = load_plan(one)
    check_tracker(how.track)
    lora.check(one.lora)
    if how.overwrite:
        run_folder.check_not_read(folder, one)
    if ranks.size > 1:
        split, key = one.split_batch or one.shard, "shard" if one.shard else "split_batch"
        launch.check_method(one.method, plan, ranks.size, split_batch=split, key=key)
        if one.shard:
            launch.check_shard(one, plan)
        folder = Path(ranks.tell(str(folder)))  # rank 0 may have found the default folder taken, or made it
        return _train_shared(one, plan, corpus, folder, how, ranks)
    if given is not None:
        corpus = load_corpus(one)
        one = one.model_copy(update={"path": str(folder / given_data.FOLDER)})
    if how.resume and _is_finished(folder, one, corpus):
        return _reported(folder, one)
    how.check(folder, one)
    one = how.settled(one, folder)
    corpus = load_corpus(one) if corpus is None else corpus
    how.check_unchanged(folder, one, corpus)
    run = train_each if plan.one_model_per_task else _train_one
    with memory_explained(one), computing_as(one):
        result = run(one, plan, corpus, folder, how, given)
    _report(folder)
    return result


def _train_shared(recipe: Recipe, plan: Plan, corpus: Corpus | None, out: Path, how: How, ranks: Ranks) -> RunResult:
    """A run that several ranks share; all of them return rank 0's result."""
    leads = ranks.rank == 0
    finished = leads and how.resume and _is_finished(out, recipe, corpus)
    if json.loads(ranks.tell(json.dumps(finished))):
        return _result_of_all(_reported(out, recipe) if leads else None, ranks)
    one = recipe
    if leads:
        how.check(out, recipe)
        one = how.settled(recipe, out)
    settings = json.loads(ranks.tell(json.dumps({"precision": one.precision, "threads": one.threads})))
    one = recipe.model_copy(update=settings)
    with memory_explained(one), computing_as(one):
        with launch.first_alone(ranks):
            corpus = load_corpus(one) if corpus is None else corpus
            if leads:
                how.check_unchanged(out, one, corpus)
            reset_peak_memory(chosen(one.device))
            run = None if one.shard else prepare(one, corpus, plan, ranks)
        run = prepare(one, corpus, plan, ranks) if run is None else run  # ranks shard a model together
        if not leads:
            with StopSignal() as stop:
                trainer = Trainer(run, out, Silent(), stop, ranks)
                trainer.begin(resume=how.resume)
                trainer.fit()
                trainer.ship(corpus)
            return _result_of_all(None, ranks)
        with disk_explained(out), how.opened(out, one) as last_owner:
            result = fit(run, corpus, out, how, last_owner, ranks)
    _report(out)
    return _result_of_all(result, ranks)


def _result_of_all(result: RunResult | None, ranks: Ranks) -> RunResult:
    """Rank 0's result, on all ranks."""
    told = ranks.tell("" if result is None else as_line(plain(result)))
    return typed(parsed(told.encode(), FILE), RunResult, RunResult.SCHEMA, FILE)


def default_folder(file: RecipeFile, recipe: Recipe, *, resume: bool, overwrite: bool) -> Path:
    """Where a run goes when nobody says."""
    name = f"{file.name}-{recipe.method}-seed{recipe.seed}"
    return run_folder.default(name, resume=resume, overwrite=overwrite)


def _is_finished(out: Path, recipe: Recipe, corpus: Corpus | None) -> bool:
    """Whether the folder holds this very run, finished.

    Raises:
        UserError: it does, but the recipe's data lie elsewhere now, and are other ones.
    """
    if not run_folder.is_finished(out, recipe):
        return False
    if read(out / "recipe.yaml").resolve().path != recipe.path:
        check_unchanged(out, recipe, load_corpus(recipe) if corpus is None else corpus, option="--resume")
    return True


def _reported(out: Path, recipe: Recipe) -> RunResult:
    """The results of a finished run, which may have been killed before its report was written."""
    with disk_explained(out):
        run_folder.tidy(out, recipe)
    _report(out)
    return RunResult.read(out)


def _report(out: Path) -> None:
    """Write the report of a finished run."""
    with disk_explained(out):
        page.write(out)


def _train_one(recipe: Recipe, plan: Plan, corpus: Corpus, out: Path, how: How, given: Path | None) -> RunResult:
    reset_peak_memory(chosen(recipe.device))
    run = prepare(recipe, corpus, plan)
    with disk_explained(out), how.opened(out, recipe) as last_owner:
        if given is not None:
            given_data.keep(given, out)
        return fit(run, corpus, out, how, last_owner)
