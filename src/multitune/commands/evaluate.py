"""Score the model of a run again, on its own test languages or on other data."""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from multitune.commands.given_data import recipe_of
from multitune.data.corpus import Corpus
from multitune.data.records.labels import unknown_labels
from multitune.errors import UserError
from multitune.evaluation import scoring
from multitune.evaluation.scoring import Encoded
from multitune.mistakes import check_used
from multitune.models import encoder as encoders
from multitune.models.device import chosen
from multitune.models.shipped import shipped
from multitune.recipe import Recipe
from multitune.results import merged
from multitune.results.merged import Merged
from multitune.results.run import FILE, Language, Metric, RunResult, Score, Scores, finite_scores
from multitune.storage.disk import check_readable
from multitune.tasks import TASKS, HeadMap, Task, name_of
from multitune.training.checkpoint import newest_gradients
from multitune.training.data_changes import changes_since
from multitune.training.loading import READING, load_test
from multitune.training.run_folder import CHECKPOINTS

log = logging.getLogger(__name__)

USED = (*READING, "languages", "unseen", "max_length", "test_limit", "precision", "device")
"""Recipe keys that decide a score when the model is given."""


@final
class Evaluated(dict[Language, dict[Metric, Score]]):
    """Language -> metric -> score in percent.

    Attributes:
        unknown_labels: language -> label -> how often its test records have it although the model lacks it, so that it
            counts as wrong.
    """

    def __init__(self, scores: Scores, unknown_labels: dict[str, dict[str, int]]) -> None:
        super().__init__(scores)
        self.unknown_labels = unknown_labels


def evaluate(run: str | Path, overrides: Mapping[str, Any] | None = None) -> Evaluated:
    """Score the ``model/`` of a run, or of a merge, on the test split of its recipe, changed by ``overrides``.

    Kind of task, labels and heads are the model's own; nothing but test records is read. Without ``languages`` and
    ``unseen``, other data (``data``, ``path``) are scored in all languages that they have.

    Args:
        run: the folder of a run or of a merge.
        overrides: recipe keys to set, e.g. ``{"unseen": ["ja", "th"]}``; those of the data, ``max_length``,
            ``test_limit``, ``precision`` and ``device`` (``auto`` unless given: the run may be another
            machine's).

    Warnings say where the run was stopped, and its model is half-trained, which labels the model lacks, and where test
    records changed.

    Raises:
        UserError: not a run folder with a model, or overrides that are bad or that a score does not depend on.
        RunError: the model has diverged.
    """
    run, overrides = Path(run), overrides or {}
    check_readable(run)
    if not (run / "recipe.yaml").exists() or not (run / "model").exists():
        raise UserError(f"{run}: holds no finished run; evaluate needs its recipe.yaml and model/")
    check_used("evaluate", overrides, USED, Recipe)
    file = recipe_of(run)
    saved, recipe = (file.resolve(overrides=given) for given in ({}, {"device": "auto", **overrides}))
    chosen(recipe.device)
    models = shipped(run / "model")
    trained = _trained(run, saved)
    corpus = load_test(_asked(saved, recipe, overrides, models, trained), models, trained or ())
    if changes := changes_since(run, corpus, overrides, ["test"]):
        log.warning("the data changed: %s are not those that %s was made with", changes, run)
    unknown = unknown_labels(corpus, corpus.test, TASKS)
    return Evaluated(_all_scores(run / "model", recipe, corpus, models), unknown)


def _asked(
    saved: Recipe,
    recipe: Recipe,
    given: Collection[str],
    models: Mapping[str, Task],
    trained: tuple[str, ...] | None,
) -> Recipe:
    """The recipe with the languages to score, and the model's kind of task.

    Args:
        saved: the run's recipe.
        recipe: the same with the keys that were ``given``.
        trained: the languages that the run trained on; None where nobody knows: the data set's own choice.

    Raises:
        UserError: another kind of task than the model's.
    """
    keys: dict[str, Any] = {"select": "last"}
    if "" in models:
        keys["task"] = name_of(models[""])
        if "task" in given and recipe.task not in (None, keys["task"]):
            raise UserError(f"task: the model is of kind {keys['task']}, not {recipe.task}")
    elsewhere = (recipe.data, _own_path(recipe)) != (saved.data, _own_path(saved))
    if recipe.data != saved.data:  # the folder and the columns of the old set are not those of the new one
        keys |= {key: None for key in ("path", "columns") if key not in given}
    if "languages" not in given:
        own = trained and tuple(language for language in trained if language not in (recipe.unseen or ()))
        keys["languages"] = () if elsewhere and trained is not None else own
    if "unseen" not in given and (elsewhere or "" not in models):
        keys["unseen"] = None if elsewhere else ()
    return recipe.model_copy(update=keys)


def _own_path(recipe: Recipe) -> str | None:
    """The folder of the recipe's own data set."""
    return recipe.path.get(recipe.data) if isinstance(recipe.path, dict) else recipe.path


def _trained(run: Path, saved: Recipe) -> tuple[str, ...] | None:
    """The languages that the model was trained on; None where nobody knows. A warning tells of a half-trained one."""
    if (run / merged.FILE).exists():
        return tuple(Merged.read(run).best.seen)
    if (run / FILE).exists():
        return tuple(RunResult.read(run).seen)
    _warn_of_half_trained(run, saved.budget)
    return saved.languages


def _warn_of_half_trained(run: Path, budget: int) -> None:
    gradients = newest_gradients(run / CHECKPOINTS)
    after = "" if gradients is None else f" after {gradients} of {budget} gradients"
    log.warning("%s was stopped%s, so its model is half-trained; multitune train --resume goes on", run, after)


def _all_scores(model: Path, recipe: Recipe, corpus: Corpus, models: Mapping[str, Task]) -> Scores:
    """The scores of all languages, those that share a model together."""
    own = {language: models[language] for language in corpus.test if language in models}
    heads = HeadMap.of_each(own) if corpus.heads else HeadMap.of_all(next(iter(models.values())))
    groups = {"": list(corpus.test)} if "" in models else {language: [language] for language in corpus.test}
    parts = (_scores(model / name, models[name], recipe, corpus, heads, group) for name, group in groups.items())
    return {language: scores for part in parts for language, scores in part.items()}


def _scores(
    folder: Path, task: Task, recipe: Recipe, corpus: Corpus, heads: HeadMap, languages: Sequence[str]
) -> Scores:
    """The scores of languages that share the model in a folder."""
    one = HeadMap.of_all(task)
    encoder = encoders.load(str(folder), one, layers=None, dropout=None, seed=recipe.seed, device=recipe.device)
    test = {language: corpus.test[language] for language in languages}
    encoded = Encoded.of(test, heads, encoder, recipe.max_length)
    return finite_scores(scoring.evaluate(encoder, heads, encoded, recipe.precision, names=recipe.labels).scores)
