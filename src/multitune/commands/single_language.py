"""Runs of a method with a model for each language: one after the other, or one alone, and their results as one."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from multitune import tasks
from multitune.commands import given_data
from multitune.commands.fitting import How, fit
from multitune.data.corpus import Corpus
from multitune.errors import UserError
from multitune.evaluation.scoring import by_class, read_statistics
from multitune.models.device import chosen
from multitune.plans import Plan
from multitune.recipe import Recipe
from multitune.results import predictions
from multitune.results.digests import Digests, named
from multitune.results.run import FILE, RunResult, Shipped, Sides, average, mean, total
from multitune.storage import lock
from multitune.storage.atomic import replaced
from multitune.storage.disk import disk_explained
from multitune.training import model_card, run_folder
from multitune.training.arithmetic import computing_as
from multitune.training.data_changes import digests_of
from multitune.training.loading import load_plan
from multitune.training.memory import memory_explained, reset_peak_memory
from multitune.training.model_card import Training
from multitune.training.progress import Shows
from multitune.training.run import prepare
from multitune.training.sampling import probabilities


def train_each(recipe: Recipe, plan: Plan, corpus: Corpus, out: Path, how: How, given: Path | None) -> RunResult:
    """A model for each language, on its share of the budget; ``model/`` has a folder for each.

    No language is unseen by a single-language model, so there are no unseen scores.
    """
    parts, shares, digests = [], _shares(recipe, corpus), digests_of(corpus, None)
    with disk_explained(out), how.opened(out, recipe) as last_owner:
        if given is not None:
            given_data.keep(given, out)
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
    how = How(resume=True, overwrite=False, progress=progress, track=track)
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
    how: How,
    last_owner: str | None,
) -> None:
    """Train the model of the one language that ``only`` has; ``digests`` are of all data of the run."""
    one = _of_language(recipe, only, budget)
    reset_peak_memory(chosen(recipe.device))
    run = replace(prepare(one, only, plan), digests=digests)
    run_folder.begin(folder, one)
    fit(run, only, folder, how, last_owner)


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
        notes=_notes(parts),
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


def _notes(parts: Sequence[RunResult]) -> list[str]:
    """What has to be said of the models, each sentence with the languages of whose models it is."""
    by_note: dict[str, list[str]] = {}
    for part in parts:
        for note in part.notes:
            by_note.setdefault(note, []).extend(part.seen)
    return [f"{named(languages)}: {note}" for note, languages in by_note.items()]


def _join_predictions(out: Path) -> None:
    with replaced(out / predictions.FILE) as beside, beside.open("w", encoding="utf-8") as joined:
        for file in sorted((out / "languages").glob(f"*/{predictions.FILE}")):
            joined.write(file.read_text(encoding="utf-8"))
