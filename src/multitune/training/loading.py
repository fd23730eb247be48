"""What a run needs before its first step, from the recipe: data, method, model."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from pydantic import ValidationError

from multitune import pseudo_tasks, tasks
from multitune.data import sets
from multitune.data.bad import BadRecords
from multitune.data.corpus import Corpus, Head, Record
from multitune.data.label_spelling import LabelSpelling
from multitune.data.records import labels, texts
from multitune.data.records.limits import limited
from multitune.data.records.rows import joined
from multitune.data.sets import DATASETS
from multitune.errors import RunError, UserError, unknown
from multitune.mistakes import describe
from multitune.models import compiling, scratch
from multitune.models import encoder as encoders
from multitune.models.encoder import Encoder
from multitune.plans import Plan, find
from multitune.pseudo_tasks import Division
from multitune.recipe import Recipe
from multitune.screen.stages import reading, stage
from multitune.tasks import TASKS, HeadMap, Task

log = logging.getLogger(__name__)

READING = ("data", "task", "path", "columns", "labels", "scheme", "strip_labels", "label_names", "skip_bad")
"""Recipe keys that decide which records a language has, and with which labels."""
LIMITS = ("train_limit", "dev_limit", "test_limit")
"""Recipe keys that decide how many of them are used."""


def load_corpus(recipe: Recipe) -> Corpus:
    """The recipe's data, cut to its limits; bad records stop it, or with ``skip_bad`` are left out and counted.

    Warnings say which labels of dev and test training lacks, and where it has one alone.

    Raises:
        UserError: an unknown data set, bad records, or whatever is wrong with its files or languages.
    """
    bad = BadRecords()
    corpus = _good(recipe, read_corpus(recipe, bad), bad)
    warn_of_labels(corpus)
    return corpus


def load_with_labels(recipe: Recipe, shipped: Mapping[str, Task]) -> Corpus:
    """The recipe's data as ``load_corpus`` reads them, for models that are there: the labels are the models'.

    Warnings say which labels of each split they lack.

    Args:
        shipped: as of ``load_test``; a model of its own for every language, or one of all.

    Raises:
        UserError: as ``load_corpus`` does; or the data are of another kind of task than the model.
    """
    bad = BadRecords()
    corpus = _of_model(recipe, _of_kind(recipe, _from_set(recipe, bad)), shipped)
    corpus = _good(recipe, _relabelled(recipe, corpus), bad)
    _warn_of_unknown(corpus, "the model")
    labels.warn_of_unanswered(corpus, TASKS)
    return corpus


def load_test(recipe: Recipe, shipped: Mapping[str, Task], trained: Collection[str]) -> Corpus:
    """The test records that the recipe asks for, with the labels of models that are there; no training file is read.

    Args:
        shipped: language -> the task of its own model, or "" -> that of the model of all (``models.shipped``).
        trained: languages that the models were trained on.

    Raises:
        UserError: as ``load_corpus`` does; or the data are of another kind of task than the model.
    """
    bad = BadRecords()
    corpus = _of_kind(recipe, _from_set(recipe, bad, test_only=True, trained=trained))
    if "" not in shipped:
        corpus = _with_models(recipe, corpus, shipped)
    corpus = _good(recipe, _relabelled(recipe, _of_model(recipe, corpus, shipped)), bad)
    _warn_of_unknown(corpus, "the model")
    labels.warn_of_unanswered(corpus, TASKS)
    return corpus


def _of_model(recipe: Recipe, corpus: Corpus, shipped: Mapping[str, Task]) -> Corpus:
    """The corpus with the labels of models that are there.

    Raises:
        UserError: it is of another kind of task, or has no test records.
    """
    if not corpus.test:
        raise UserError("languages: none is named that could be scored")
    own = {language: shipped.get("") or shipped[language] for language in corpus.test}
    for language, task in own.items():
        is_of, wanted = corpus.head(language).task, tasks.name_of(task)
        if is_of != wanted:
            raise UserError(f"data: {recipe.data} is of kind {is_of}, the model of kind {wanted}")
    heads = {language: Head(tasks.name_of(task), task.labels) for language, task in own.items()}
    first = next(iter(heads.values()))
    return replace(corpus, labels=first.labels, heads=heads if corpus.heads and "" not in shipped else {})


def _with_models(recipe: Recipe, corpus: Corpus, models: Collection[str]) -> Corpus:
    """The test records of languages that have models of their own.

    Raises:
        UserError: one that the recipe asks for has none, or none has.
    """
    test = {language: records for language, records in corpus.test.items() if language in models}
    lacking = [language for language in corpus.test if language not in models]
    named = lacking if recipe.unseen or not test else [each for each in lacking if each in (recipe.languages or ())]
    if named:
        raise UserError(f"languages: there is no model of {named[0]!r}; there are models of {', '.join(models)}")
    return replace(corpus, test=test)


def warn_of_labels(corpus: Corpus) -> None:
    """Say what is amiss with the labels of a corpus to train on.

    Two look alike, training has one alone, dev or test has others, or a split has no answers.
    """
    labels.warn_of_lookalikes(corpus)
    labels.warn_of_one_label(corpus, TASKS)
    labels.warn_of_unanswered(corpus, TASKS)
    _warn_of_unknown(replace(corpus, train={}), "training")


def _warn_of_unknown(corpus: Corpus, who: str) -> None:
    """Say which labels of each split ``who`` lacks, "training" or "the model"."""
    dev = {} if corpus.test_is_dev else corpus.dev
    for name, split in (("training", corpus.train), ("dev", dev), ("test", corpus.test)):
        labels.warn_of_unknown(corpus, split, TASKS, name, who)


def _good(recipe: Recipe, corpus: Corpus, bad: BadRecords) -> Corpus:
    """What was read, cut to the recipe's limits, where bad records do not stop it.

    Raises:
        UserError: bad records.
    """
    emptied = _emptied(corpus)
    lost, way_out = _lost(corpus, emptied), _without(corpus, emptied)
    if not recipe.skip_bad:
        bad.refuse(lost, way_out)
    if lost:
        raise UserError(f"skip_bad: leaves {lost} (multitune data lists the bad ones{way_out and f', {way_out}'})")
    if corpus.skipped:
        counts = ", ".join(f"{language} {count}" for language, count in corpus.skipped.items())
        log.warning("skip_bad: %d bad records are left out: %s", len(bad), counts)
    return cut(recipe, corpus)


def _emptied(corpus: Corpus) -> dict[str, list[str]]:
    """Language -> its splits that hold bad records alone."""
    splits = {"train": corpus.train, "dev": corpus.dev, "test": corpus.test}
    emptied = {
        language: [split for split, records in splits.items() if language in records and not records[language]]
        for language in corpus.skipped
    }
    return {language: own for language, own in emptied.items() if own}


def _lost(corpus: Corpus, emptied: Mapping[str, Sequence[str]]) -> str:
    """What is lost where bad records are left out: whole languages, and splits of others."""
    splits = {"train": corpus.train, "dev": corpus.dev, "test": corpus.test}
    by_loss: dict[str, list[str]] = {}
    for language, own in emptied.items():
        has_more = any(records.get(language) for records in splits.values())
        for what in [f"{split} record" for split in own] if has_more else ["good record"]:
            by_loss.setdefault(what, []).append(language)
    return "; ".join(f"no {what} of {', '.join(codes)}" for what, codes in by_loss.items())


def _without(corpus: Corpus, emptied: Collection[str]) -> str:
    """The keys of a recipe that leave languages out; empty where there is none, or none would be left to train on."""
    keys = [
        f"{key}: [{', '.join(code for code in own if code not in emptied)}]"
        for key, own in (("languages", list(corpus.train)), ("unseen", corpus.unseen))
        if any(code in emptied for code in own)
    ]
    if not keys or all(code in emptied for code in corpus.train):
        return ""
    return f"{' and '.join(keys)} {'leaves' if len(keys) == 1 else 'leave'} {', '.join(emptied)} out"


def cut(recipe: Recipe, corpus: Corpus) -> Corpus:
    """The corpus with as many records of each language as the recipe allows."""
    return limited(corpus, train=recipe.train_limit, dev=recipe.dev_limit, test=recipe.test_limit)


def read_corpus(recipe: Recipe, bad: BadRecords) -> Corpus:
    """The recipe's data, not cut to its limits, without its bad records, which ``bad`` takes.

    Raises:
        UserError: an unknown data set, or whatever is wrong with its files or languages.
        RunError: there is not enough memory.
    """
    corpus = _from_set(recipe, bad)
    if recipe.select == "best" and corpus.test_is_dev:
        raise UserError(
            "select: best would choose on the very sentences that are reported: this data has no test split"
        )
    return labels.completed(_relabelled(recipe, _of_kind(recipe, corpus)), TASKS)


def _from_set(recipe: Recipe, bad: BadRecords, *, test_only: bool = False, trained: Collection[str] = ()) -> Corpus:
    """What the recipe's data set has; see ``sets.load``."""
    if not sets.is_known(recipe.data):
        raise UserError(f"data: {unknown('data set', recipe.data, [*DATASETS, 'hub:OWNER/NAME'])}")
    try:
        with reading(f"reading {recipe.data}"):
            return sets.load(
                recipe.data,
                bad,
                TASKS,
                task=recipe.task,
                path=recipe.path,
                languages=recipe.languages,
                unseen=recipe.unseen,
                columns=recipe.columns,
                renamed=recipe.labels or (),
                test_only=test_only,
                trained=trained,
                spelling=LabelSpelling(recipe.strip_labels, recipe.label_names or (), recipe.scheme),
            )
    except PermissionError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise RunError(
            f"data: not enough memory to read {recipe.data}; fewer languages or smaller files would help"
        ) from error


def _relabelled(recipe: Recipe, corpus: Corpus) -> Corpus:
    return labels.relabelled(corpus, TASKS, recipe.labels) if recipe.labels else corpus


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
        UserError: an unknown method or option, or a value that is not allowed, there or beside another key.
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
    compiling.check(recipe)
    if recipe.lora is not None and recipe.model.startswith(scratch.PREFIX):
        raise UserError(f"lora: {recipe.model} has no pretrained weights to adapt")
    if plan.pulls_back and recipe.model.startswith(scratch.PREFIX):
        raise UserError(f"method: {recipe.model} has no pretrained weights that {recipe.method} could pull back to")
    if recipe.anchor and plan.pulls_back:
        raise UserError(f"anchor: {recipe.method} pulls back to the pretrained weights itself; set options.gamma")
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
                f"replay: cannot stand beside {task} (data: {recipe.data}), only beside tasks of text encoders and "
                "causal language models"
            )
    source = corpus
    if replay.data is not None:
        keys = {"data": replay.data, "path": replay.path, "languages": replay.languages, "unseen": (), "columns": None}
        own = {"task": None, "labels": None, "scheme": None, "strip_labels": False, "label_names": None}
        other = recipe.model_copy(update=keys | own | {"select": "last"})
        bad = BadRecords()
        try:
            source = _good(other, read_corpus(other, bad), bad)
        except UserError as error:  # its path and languages are not the recipe's own
            raise UserError(f"replay: {error}") from error
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
        if recipe.anchor:
            raise UserError(f"anchor: {recipe.model} has no pretrained weights to decay toward")
        with stage(f"making {recipe.model}"):
            return scratch.build(
                recipe.model,
                heads,
                corpus,
                layers=recipe.layers,
                dropout=recipe.dropout,
                seed=recipe.seed,
                device=recipe.device,
            )
    with stage(f"loading {recipe.model}"):
        return encoders.load(
            recipe.model, heads, layers=recipe.layers, dropout=recipe.dropout, seed=recipe.seed, device=recipe.device
        )
