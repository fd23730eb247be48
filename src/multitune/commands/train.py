"""One run from its recipe to its results: one model for all languages, or a model for each."""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from multitune import pseudo_tasks, tasks
from multitune.commands import given_data
from multitune.commands.init import recipe_for
from multitune.data.corpus import Corpus
from multitune.errors import Interrupted, UserError
from multitune.evaluation.scoring import by_class, read_statistics
from multitune.methods.ranks import Ranks
from multitune.models import lora
from multitune.models.device import chosen
from multitune.plans import Plan
from multitune.recipe import Recipe
from multitune.recipe_files import AnyRecipe, RecipeFile
from multitune.reports import page
from multitune.results import predictions
from multitune.results.digests import Digests
from multitune.results.json_files import as_line, parsed, plain, typed
from multitune.results.run import FILE, RunResult, Shipped, Sides, average, mean, total
from multitune.screen.places import wanted, watched
from multitune.storage import lock
from multitune.storage.atomic import replaced
from multitune.storage.disk import disk_explained
from multitune.storage.interrupt import StopSignal
from multitune.training import launch, model_card, run_folder
from multitune.training.arithmetic import computing_as, settled
from multitune.training.data_changes import check_unchanged, digests_of
from multitune.training.loading import load_corpus, load_plan
from multitune.training.memory import memory_explained, reset_peak_memory
from multitune.training.model_card import Training
from multitune.training.progress import Display, OnScreen, Shows, Silent
from multitune.training.run import Run, prepare
from multitune.training.sampling import probabilities
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
    how = _How(resume, overwrite, progress, track)
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


@dataclass(frozen=True)
class _How:
    """How a run is to be made, beside its recipe; as the arguments of ``train``."""

    resume: bool
    overwrite: bool
    progress: bool | Shows | None
    track: str | None

    def opened(self, out: Path, recipe: Recipe) -> AbstractContextManager[str | None]:
        """The run's folder, made and kept from others; gives the owner that was killed in it, in words, if any."""
        return run_folder.opened(out, recipe, resume=self.resume, overwrite=self.overwrite)

    def display(self, title: str, budget: int) -> Display:
        """What a person sees of the run."""
        if callable(self.progress):
            return self.progress(title, budget)
        return OnScreen(title, budget) if wanted(self.progress) else Silent()

    def check(self, out: Path, recipe: Recipe) -> None:
        """Raise UserError where the folder cannot be the run's."""
        run_folder.check(out, recipe, resume=self.resume, overwrite=self.overwrite)


def _train(
    file: RecipeFile,
    out: str | Path | None,
    overrides: Mapping[str, Any] | None,
    how: _How,
    corpus: Corpus | None,
    ranks: Ranks,
    *,
    given: Path | None = None,
) -> RunResult:
    """Train by a recipe file; ``given`` has the data, where the run is to keep them."""
    one = file.resolve(overrides=overrides)
    if how.resume and how.overwrite:
        raise UserError("--resume: cannot stand beside --overwrite, which begins anew")
    folder = default_folder(file, one, resume=how.resume, overwrite=how.overwrite) if out is None else Path(out)
    plan = load_plan(one)
    check_tracker(how.track)
    lora.check(one.lora)
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
    if how.resume and run_folder.is_finished(folder, one):
        return _reported(folder, one)
    how.check(folder, one)
    one = settled(one, [folder])
    corpus = load_corpus(one) if corpus is None else corpus
    check_unchanged(folder, one, corpus, option="--resume")
    run = _train_each if plan.one_model_per_task else _train_one
    with memory_explained(one), computing_as(one):
        result = run(one, plan, corpus, folder, how, given)
    _report(folder)
    return result


def _train_shared(recipe: Recipe, plan: Plan, corpus: Corpus | None, out: Path, how: _How, ranks: Ranks) -> RunResult:
    """A run that several ranks share; all of them return rank 0's result."""
    leads = ranks.rank == 0
    finished = leads and how.resume and run_folder.is_finished(out, recipe)
    if json.loads(ranks.tell(json.dumps(finished))):
        return _result_of_all(_reported(out, recipe) if leads else None, ranks)
    one = recipe
    if leads:
        how.check(out, recipe)
        one = settled(recipe, [out])
    settings = json.loads(ranks.tell(json.dumps({"precision": one.precision, "threads": one.threads})))
    one = recipe.model_copy(update=settings)
    with memory_explained(one), computing_as(one):
        with launch.first_alone(ranks):
            corpus = load_corpus(one) if corpus is None else corpus
            if leads:
                check_unchanged(out, one, corpus, option="--resume")
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
            result = _fit(run, corpus, out, how, last_owner, ranks)
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


def _train_one(recipe: Recipe, plan: Plan, corpus: Corpus, out: Path, how: _How, given: Path | None) -> RunResult:
    reset_peak_memory(chosen(recipe.device))
    run = prepare(recipe, corpus, plan)
    with disk_explained(out), how.opened(out, recipe) as last_owner:
        if given is not None:
            given_data.keep(given, out)
        return _fit(run, corpus, out, how, last_owner)


def _train_each(recipe: Recipe, plan: Plan, corpus: Corpus, out: Path, how: _How, given: Path | None) -> RunResult:
    """A model for each language, on its share of the budget; ``model/`` has a folder for each.

    No language is unseen by a single-language model, so there are no unseen scores.
    """
    parts, shares, digests = [], _shares(recipe, corpus), digests_of(corpus, None)
    with disk_explained(out), how.opened(out, recipe) as last_owner:
        if given is not None:
            given_data.keep(given, out)
        (out / "model").mkdir(exist_ok=True)
        for language, budget in shares.items():
            folder, only = run_folder.of_language(out, language), _only(corpus, language)
            if not (folder / FILE).exists():
                _train_language(recipe, plan, only, digests, budget, folder, how, last_owner)
            for kind in ("model", "adapter"):
                shipped = folder / kind / tasks.of(only).folder(language)
                if shipped.exists():
                    (out / kind).mkdir(exist_ok=True)
                    shipped.rename(out / kind / language)
            parts.append(RunResult.read(folder))
        _join_predictions(out)
        classes = by_class(corpus, tasks.of(corpus), read_statistics(out))
        result = replace(_joined(recipe, parts), by_class=classes)
        if recipe.save_model:
            model_card.write_index(out / "model", _training(recipe, corpus, result))
        result.write(out)
        run_folder.tidy(out, recipe)
    return result


def train_language(
    recipe: Recipe, out: Path, language: str, corpus: Corpus, *, progress: bool | Shows, track: str | None
) -> None:
    """Train the model of one language, of a method with a model for each; ``train`` joins what all of them leave.

    Args:
        recipe: of the whole run, with precision and threads settled; ``out`` is its folder, which holds it.
        out: that folder.
        language: one that it trains on.
        corpus: all data of the run.
        progress, track: as of ``train``.

    Raises:
        UserError, RunError, Interrupted: as ``train`` does.
    """
    how = _How(resume=True, overwrite=False, progress=progress, track=track)
    folder, budget = run_folder.of_language(out, language), _shares(recipe, corpus)[language]
    with disk_explained(out), memory_explained(recipe), computing_as(recipe):
        folder.mkdir(parents=True, exist_ok=True)
        with lock.held(folder) as last_owner:
            if not (folder / FILE).exists():
                only, digests = _only(corpus, language), digests_of(corpus, None)
                _train_language(recipe, load_plan(recipe), only, digests, budget, folder, how, last_owner)


def _train_language(
    recipe: Recipe,
    plan: Plan,
    only: Corpus,
    digests: Digests,
    budget: int,
    folder: Path,
    how: _How,
    last_owner: str | None,
) -> None:
    """Train the model of the one language that ``only`` has; ``digests`` are of all data of the run."""
    one = _of_language(recipe, only, budget)
    reset_peak_memory(chosen(recipe.device))
    run = replace(prepare(one, only, plan), digests=digests)
    run_folder.begin(folder, one)
    _fit(run, only, folder, how, last_owner)


def language_recipes(recipe: Recipe, corpus: Corpus) -> list[tuple[Recipe, Corpus]]:
    """The recipe and the data of each language's model, of a method with a model for each.

    Raises:
        UserError: a language gets no gradient computation.
    """
    shares = _shares(recipe, corpus).items()
    return [(_of_language(recipe, only := _only(corpus, k), budget), only) for k, budget in shares]


def _of_language(recipe: Recipe, only: Corpus, budget: int) -> Recipe:
    return recipe.model_copy(update={"languages": tuple(only.train), "unseen": (), "budget": budget})


def _training(recipe: Recipe, corpus: Corpus, result: RunResult) -> Training:
    """What the card of the single-language models speaks of."""
    return Training(
        recipe=recipe,
        heads=tasks.of(corpus),
        languages=list(corpus.train),
        examples={language: len(corpus.test[language]) for language in corpus.train},
        gradients=result.shipped.gradients,
        result=result,
        split="dev" if corpus.test_is_dev else "test",
    )


def _fit(
    run: Run, corpus: Corpus, out: Path, how: _How, last_owner: str | None, ranks: Ranks | None = None
) -> RunResult:
    """Train and ship a run whose folder is ready; ``last_owner`` was killed in it, in words."""
    if run.division is not None:
        pseudo_tasks.write(out, run.division)
    with StopSignal() as stop, how.display(run.title, run.recipe.budget) as display:
        if last_owner:
            display.say(f"{out}: {last_owner} died without releasing its lock; this run takes the folder over")
        trainer = Trainer(run, out, display, stop, ranks)
        trainer.begin(resume=how.resume)
        for note in run.update.notes:
            display.say(f"{run.title}: {note}")
        trainer.fit(how.track)
        result = trainer.ship(corpus)
        if stop.requested:
            raise Interrupted(f"stopped; {out} was finished already", stop.requested)
        return result


def _shares(recipe: Recipe, corpus: Corpus) -> dict[str, int]:
    """The budget by language, as often as other methods draw it; the roundings add up to the budget.

    Raises:
        UserError: a language gets no gradient computation.
    """
    probability = probabilities(recipe, [len(rows) for rows in corpus.train.values()])
    ends = (probability.cumsum(0) * recipe.budget).round().int().tolist()
    shares = {k: end - begin for k, begin, end in zip(corpus.train, [0, *ends], ends, strict=False)}
    for language, share in shares.items():
        if share == 0:
            raise UserError(
                f"budget: {recipe.budget} is too small for {recipe.method}, which shares it out: {language} gets no "
                f"gradient computation"
            )
    return shares


def _only(corpus: Corpus, language: str) -> Corpus:
    train, dev, test = ({language: split[language]} for split in (corpus.train, corpus.dev, corpus.test))
    heads = {language: corpus.heads[language]} if corpus.heads else {}
    return replace(corpus, train=train, dev=dev, test=test, heads=heads)


def _joined(recipe: Recipe, parts: Sequence[RunResult]) -> RunResult:
    """The results of single-language models as one: scores side by side, costs summed, mean drift."""
    seen = {language: scores for part in parts for language, scores in part.seen.items()}
    return replace(
        parts[0],
        budget=recipe.budget,
        seen=seen,
        average=Sides(seen=average(seen, parts[0].metric), unseen=None),
        drift=mean(part.drift for part in parts),
        seconds=sum(part.seconds for part in parts),
        step_seconds=total(part.step_seconds for part in parts),
        peak_memory_bytes=max(part.peak_memory_bytes for part in parts),
        stopped=sum(part.spent for part in parts) if any(part.stopped is not None for part in parts) else None,
        notes=list(dict.fromkeys(note for part in parts for note in part.notes)),
        steps=sum(part.steps for part in parts),
        skipped_steps=sum(part.skipped_steps for part in parts),
        unknown_labels={language: labels for part in parts for language, labels in part.unknown_labels.items()},
        trained={task: gradients for part in parts for task, gradients in part.trained.items()},
        shipped=Shipped(
            select=recipe.select,
            gradients=sum(part.shipped.gradients for part in parts),
            dev=mean(part.shipped.dev for part in parts),
            languages={language: part.shipped for part in parts for language in part.seen},
        ),
    )


def _join_predictions(out: Path) -> None:
    with replaced(out / predictions.FILE) as beside, beside.open("w", encoding="utf-8") as joined:
        for file in sorted((out / "languages").glob(f"*/{predictions.FILE}")):
            joined.write(file.read_text(encoding="utf-8"))
