"""Score the model of a finished run again, on its own test languages or on others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multitune import tasks
from multitune.data.records.corpus import Corpus
from multitune.errors import UserError
from multitune.evaluation.scoring import Encoded, evaluate
from multitune.models import encoder as encoders
from multitune.recipe import Recipe, read
from multitune.results.run import Scores
from multitune.tasks import HeadMap
from multitune.training.loading import load_corpus, load_plan


def rescore(run: Path, overrides: Mapping[str, Any]) -> Scores:
    """Scores in percent of ``run``'s ``model/`` on the test split of its recipe, changed by ``overrides``.

    Raises:
        UserError: not a run folder with a model, or bad overrides.
    """
    if not (run / "recipe.yaml").exists() or not (run / "model").exists():
        raise UserError(f"{run}: holds no finished run; evaluate needs its recipe.yaml and model/")
    recipe = read(run / "recipe.yaml").resolve(overrides=overrides)
    corpus = load_corpus(recipe)
    heads = tasks.of(corpus)
    if load_plan(recipe).one_model_per_task:
        folders = {run / "model" / language: [language] for language in corpus.train}
    else:
        folders = {run / "model" / heads.folder(group[0]): group for group in heads.groups(corpus.test).values()}
    parts = (_scores(folder, recipe, corpus, heads, languages) for folder, languages in folders.items())
    return {language: scores for part in parts for language, scores in part.items()}


def _scores(folder: Path, recipe: Recipe, corpus: Corpus, heads: HeadMap, languages: list[str]) -> Scores:
    """The scores of languages that share the model in a folder."""
    one = HeadMap.of_all(heads.task(languages[0]))
    encoder = encoders.load(str(folder), one, layers=None, dropout=None, seed=recipe.seed)
    test = {language: corpus.test[language] for language in languages}
    return evaluate(encoder, heads, Encoded.of(test, heads, encoder, recipe.max_length), recipe.precision).scores
