"""Score the model of a finished run again, on its own test languages or on others."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multitune import tasks
from multitune.data.corpus import Corpus
from multitune.errors import UserError
from multitune.evaluation import scoring
from multitune.evaluation.scoring import Encoded
from multitune.mistakes import check_used
from multitune.models import encoder as encoders
from multitune.models.device import chosen
from multitune.recipe import Recipe, read
from multitune.results.run import FILE, Scores, finite_scores
from multitune.storage.disk import check_readable
from multitune.tasks import HeadMap
from multitune.training.checkpoint import newest_gradients
from multitune.training.loading import load_corpus, load_plan
from multitune.training.run_folder import CHECKPOINTS

log = logging.getLogger(__name__)

USED = (
    *("data", "task", "path", "columns", "languages", "unseen", "skip_bad", "max_length", "test_limit"),
    *("precision", "device"),
)
"""Recipe keys that decide a score when the model is given."""


def evaluate(run: str | Path, overrides: Mapping[str, Any] | None = None) -> Scores:
    """Score a run's ``model/`` on the test split of its recipe, changed by ``overrides``.

    Args:
        run: a run folder.
        overrides: recipe keys to set, e.g. ``{"unseen": ["ja", "th"]}``; those of the data, ``max_length``,
            ``test_limit``, ``precision`` and ``device`` (``auto`` unless given: the run may be another
            machine's).

    Returns:
        Language -> metric -> score in percent.

    A warning says where the run was stopped, and its model is half-trained.

    Raises:
        UserError: not a run folder with a model, or overrides that are bad or that a score does not depend on.
        RunError: the model has diverged.
    """
    run, overrides = Path(run), overrides or {}
    check_readable(run)
    if not (run / "recipe.yaml").exists() or not (run / "model").exists():
        raise UserError(f"{run}: holds no finished run; evaluate needs its recipe.yaml and model/")
    check_used("evaluate", overrides, USED, Recipe)
    saved = read(run / "recipe.yaml")
    recipe = saved.resolve(overrides={"device": "auto", **overrides})
    chosen(recipe.device)
    corpus = load_corpus(recipe)
    heads = tasks.of(corpus)
    if not (run / FILE).exists():
        _warn_of_half_trained(run, saved.resolve().budget)
    if load_plan(recipe).one_model_per_task:
        folders = {run / "model" / language: [language] for language in corpus.train}
    else:
        folders = {run / "model" / heads.folder(group[0]): group for group in heads.groups(corpus.test).values()}
    for folder, languages in folders.items():
        if not folder.exists():
            raise UserError(
                f"{run}: has no model of {languages[0]!r}; evaluate needs a finished run with save_model: true"
            )
    parts = (_scores(folder, recipe, corpus, heads, languages) for folder, languages in folders.items())
    return {language: scores for part in parts for language, scores in part.items()}


def _warn_of_half_trained(run: Path, budget: int) -> None:
    gradients = newest_gradients(run / CHECKPOINTS)
    after = "" if gradients is None else f" after {gradients} of {budget} gradients"
    log.warning("%s was stopped%s, so its model is half-trained; multitune train --resume goes on", run, after)


def _scores(folder: Path, recipe: Recipe, corpus: Corpus, heads: HeadMap, languages: list[str]) -> Scores:
    """The scores of languages that share the model in a folder."""
    one = HeadMap.of_all(heads.task(languages[0]))
    encoder = encoders.load(str(folder), one, layers=None, dropout=None, seed=recipe.seed, device=recipe.device)
    test = {language: corpus.test[language] for language in languages}
    encoded = Encoded.of(test, heads, encoder, recipe.max_length)
    return finite_scores(scoring.evaluate(encoder, heads, encoded, recipe.precision).scores)
