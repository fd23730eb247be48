"""Score the model of a finished run again, on its own test languages or on others."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multitune import tasks
from multitune.data.records.corpus import Corpus
from multitune.errors import UserError
from multitune.evaluation.scoring import Encoded, evaluate
from multitune.models import encoder as encoders
from multitune.recipe import Recipe, read
from multitune.results.run import FILE, Scores
from multitune.training.checkpoint import newest_gradients
from multitune.training.loading import load_corpus, load_plan
from multitune.training.run_folder import CHECKPOINTS

log = logging.getLogger(__name__)


def rescore(run: Path, overrides: Mapping[str, Any]) -> Scores:
    """Scores in percent of ``run``'s ``model/`` on the test split of its recipe, changed by ``overrides``.

    A warning says where the run was stopped, and its model is half-trained.

    Raises:
        UserError: not a run folder with a model, or bad overrides.
        RunError: the model has diverged.
    """
    if not (run / "recipe.yaml").exists() or not (run / "model").exists():
        raise UserError(f"{run}: holds no finished run; evaluate needs its recipe.yaml and model/")
    saved = read(run / "recipe.yaml")
    recipe = saved.resolve(overrides=overrides)
    corpus = load_corpus(recipe)
    if not (run / FILE).exists():
        _warn_of_half_trained(run, saved.resolve().budget)
    if not (load_plan(recipe).one_model_per_task or corpus.heads):
        return _scores(run / "model", recipe, corpus, list(corpus.test))
    for code in corpus.train:
        if not (run / "model" / code).exists():
            raise UserError(f"{run}: has no model of {code!r}; evaluate needs a finished run with save_model: true")
    return {k: v for code in corpus.train for k, v in _scores(run / "model" / code, recipe, corpus, [code]).items()}


def _warn_of_half_trained(run: Path, budget: int) -> None:
    gradients = newest_gradients(run / CHECKPOINTS)
    after = "" if gradients is None else f" after {gradients} of {budget} gradients"
    log.warning("%s: was stopped%s: its model is half-trained; multitune train --resume goes on", run, after)


def _scores(folder: Path, recipe: Recipe, corpus: Corpus, languages: list[str]) -> Scores:
    task = tasks.of(corpus)
    encoder = encoders.load(str(folder), task.of(languages[0]), layers=None, dropout=None, seed=recipe.seed)
    test = {language: corpus.test[language] for language in languages}
    return evaluate(encoder, task, Encoded.of(test, task, encoder, recipe.max_length), recipe.precision).scores
