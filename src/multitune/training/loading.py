"""What a run needs before its first step, from the recipe: data, method, model."""

import logging
from collections.abc import Sequence

from pydantic import ValidationError

from multitune import pseudo_tasks, tasks
from multitune.data import sets
from multitune.data.bad import BadRecords
from multitune.data.corpus import Corpus, Record
from multitune.data.records import texts
from multitune.data.records.limits import limited
from multitune.data.records.rows import joined
from multitune.data.sets import DATASETS
from multitune.errors import RunError, UserError, unknown
from multitune.mistakes import describe
from multitune.models import encoder as encoders
from multitune.models import scratch
from multitune.models.encoder import Encoder
from multitune.plans import Plan, find
from multitune.pseudo_tasks import Division
from multitune.recipe import Recipe
from multitune.tasks import TASKS, HeadMap

log = logging.getLogger(__name__)


def load_corpus(recipe: Recipe) -> Corpus:
    """The recipe's data, cut to its limits; bad records stop it, or with ``skip_bad`` are left out and counted.

    Raises:
        UserError: an unknown data set, bad records, or whatever is wrong with its files or languages.
    """
    bad = BadRecords()
    corpus = read_corpus(recipe, bad)
    if not recipe.skip_bad:
        bad.refuse()
    for split, records in (("train", corpus.train), ("dev", corpus.dev), ("test", corpus.test)):
        for language, rows in records.items():
            if not rows and language in corpus.skipped:
                raise UserError(
                    f"skip_bad: leaves no {split} record of {language!r}; multitune data lists the bad ones"
                )
    if corpus.skipped:
        counts = ", ".join(f"{language} {count}" for language, count in corpus.skipped.items())
        log.warning("skip_bad: %d bad records are left out: %s", len(bad), counts)
    return cut(recipe, corpus)


def cut(recipe: Recipe, corpus: Corpus) -> Corpus:
    """The corpus with as many records of each language as the recipe allows."""
    return limited(corpus, train=recipe.train_limit, dev=recipe.dev_limit, test=recipe.test_limit)


def read_corpus(recipe: Recipe, bad: BadRecords) -> Corpus:
    """The recipe's data, not cut to its limits, without its bad records, which ``bad`` takes.

    Raises:
        UserError: an unknown data set, or whatever is wrong with its files or languages.
        RunError: there is not enough memory.
    """
    if recipe.data not in DATASETS:
        raise UserError(f"data: {unknown('data set', recipe.data, DATASETS)}")
    try:
        corpus = sets.load(
            recipe.data,
            bad,
            TASKS,
            task=recipe.task,
            path=recipe.path,
            languages=recipe.languages,
            unseen=recipe.unseen,
            columns=recipe.columns,
        )
    except MemoryError as error:
        raise RunError(
            f"data: not enough memory to read {recipe.data}; fewer languages or smaller files would help"
        ) from error
    if recipe.select == "best" and corpus.test_is_dev:
        raise UserError(
            "select: best would choose on the very sentences that are reported: this data has no test split"
        )
    return _of_kind(recipe, corpus)


def _of_kind(recipe: Recipe, corpus: Corpus) -> Corpus:
    """The corpus as one of the kind of task that the recipe names, if it names one.

    Raises:
        UserError: no such kind, or one that wants other records.
    """
    for each in (corpus.task, *(head.task for head in corpus.heads.values())):
        if each not in TASKS:
            raise UserError(f"data: {recipe.data} is of an {unknown('kind of task', each, TASKS)}")
    if recipe.task is None or (recipe.task == corpus.task and not corpus.heads):
        return corpus
    if recipe.task not in TASKS or not TASKS[recipe.task].unlabelled:
        allowed = [*([] if corpus.heads else [corpus.task]), *(name for name, kind in TASKS.items() if kind.unlabelled)]
        raise UserError(f"task: data: {recipe.data} has no records of {recipe.task}; allowed: {', '.join(allowed)}")
    return texts.unlabelled(corpus, TASKS, recipe.task)


def load_plan(recipe: Recipe) -> Plan:
    """The recipe's method with its options.

    Raises:
        UserError: an unknown method or option, or a value that is not allowed.
    """
    kind = find(recipe.method)
    for key in recipe.options:
        if key in Recipe.model_fields and key not in kind.model_fields:
            raise UserError(f"options of {recipe.method}: {key} is a key of the recipe itself; write it beside options")
    try:
        plan = kind.model_validate(recipe.options)
    except ValidationError as error:
        raise UserError(f"options of {recipe.method}: {describe(error, kind)}") from error
    plan.check()
    one_each = f"{recipe.method}: {recipe.method} trains one model per language"
    if recipe.pseudo_tasks is not None and plan.one_model_per_task:
        raise UserError(f"pseudo_tasks cannot be used with {one_each}, and clusters are not languages")
    if recipe.replay is not None and plan.one_model_per_task:
        raise UserError(f"replay cannot be used with {one_each}, and would train one on the replay alone")
    return plan


def replayed(recipe: Recipe, corpus: Corpus) -> Sequence[Record]:
    """The texts that the recipe replays: those of a data set of its own, or of the corpus; none without a replay.

    Raises:
        UserError: data without texts, or whatever is wrong with the data set.
    """
    replay = recipe.replay
    if replay is None:
        return []
    for task in dict.fromkeys(corpus.head(language).task for language in corpus.train):
        if not TASKS[task].can_replay:
            raise UserError(
                f"replay: cannot stand beside {task} (data: {recipe.data}), only beside tasks of text encoders"
            )
    source = corpus
    if replay.data is not None:
        keys = {"data": replay.data, "path": replay.path, "languages": replay.languages, "unseen": (), "columns": None}
        source = load_corpus(recipe.model_copy(update=keys | {"task": None, "select": "last"}))
    return joined(list(texts.of_split(source.train, source, TASKS).values()))


def divided(recipe: Recipe, corpus: Corpus) -> Division | None:
    """The pseudo-tasks of a recipe with this data, not yet cut to its limits; None where it has none.

    Raises:
        UserError: the model cannot be had, or the data cannot be divided.
    """
    if recipe.pseudo_tasks is None:
        return None
    corpus = cut(recipe, corpus)
    return pseudo_tasks.divide(recipe, corpus, load_encoder(recipe, tasks.of(corpus), corpus))


def load_encoder(recipe: Recipe, heads: HeadMap, corpus: Corpus) -> Encoder:
    """The recipe's model with these heads: pretrained, or new and made for the corpus.

    Raises:
        UserError: the model cannot be had.
    """
    if recipe.model.startswith(scratch.PREFIX):
        return scratch.build(
            recipe.model,
            heads,
            corpus,
            layers=recipe.layers,
            dropout=recipe.dropout,
            seed=recipe.seed,
            device=recipe.device,
        )
    return encoders.load(
        recipe.model, heads, layers=recipe.layers, dropout=recipe.dropout, seed=recipe.seed, device=recipe.device
    )
