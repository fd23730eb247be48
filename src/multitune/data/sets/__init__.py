"""Data sources by name: each hands over a ``Corpus`` of labelled records by split and language."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from multitune.data.bad import BadRecords
from multitune.data.corpus import Corpus, Wanted
from multitune.data.kind import Kind
from multitune.data.label_spelling import LabelSpelling
from multitune.data.sets import any_hub, assistant, calls, folders, hub, hub_sets, own
from multitune.data.sets.folders import Load
from multitune.data.sets.handed_over import checked
from multitune.data.sets.sources import FOLDERS, GLUE
from multitune.errors import UserError

LONGEST_NAME = 255
"""Bytes of the name of a folder."""


def _assistant(wanted: Wanted, bad: BadRecords) -> Corpus:
    if wanted.path is not None:
        raise UserError(
            f"path: data: assistant comes with an installed package and reads no folder, not {wanted.path!r}"
        )
    if wanted.spelling is not None and wanted.spelling.keys:
        raise UserError(f"{wanted.spelling.keys[0]}: the labels of data: assistant are spelt as they should be")
    languages = wanted.trained_on(assistant.DEFAULT_LANGUAGES)
    if wanted.test_only:
        corpus = assistant.load_test(languages, wanted.unseen, wanted.trained)
    else:
        corpus = assistant.load(languages, wanted.unseen)
    return calls.as_calls(corpus) if wanted.task == calls.TASK else corpus


def _images(wanted: Wanted, bad: BadRecords) -> Corpus:
    if wanted.path is None:
        return hub.load_tasks("images", {name: ((), hub_set) for name, hub_set in hub_sets.IMAGES.items()}, wanted, bad)
    return own.load_images(wanted, bad)


DATASETS: dict[str, Load] = {
    "assistant": _assistant,
    **{name: partial(folders.load, layouts) for name, layouts in FOLDERS.items()},
    **{name: partial(hub.load, FOLDERS.get(name, ()), hub_set) for name, hub_set in hub_sets.SETS.items()},
    "glue": partial(hub.load_tasks, "glue", {task: (GLUE[task], hub_set) for task, hub_set in hub_sets.GLUE.items()}),
    "folder": own.load_tables,
    "images": _images,
}
"""Name -> ``load(wanted, bad)``, which adds bad records to ``bad`` and raises ``UserError`` for all else."""


def is_known(name: str) -> bool:
    """Whether a recipe's ``data`` may be this: a name in ``DATASETS``, or any data set of the Hub."""
    return name in DATASETS or hub.is_name(name)


def _loaded(name: str, wanted: Wanted, bad: BadRecords) -> Corpus:
    load: Load = DATASETS[name] if name in DATASETS else partial(any_hub.load, name)
    return checked(name, load(wanted, bad), wanted.kinds)


def load(
    name: str,
    bad: BadRecords,
    kinds: Mapping[str, type[Kind]],
    *,
    task: str | None = None,
    path: str | Mapping[str, str] | None = None,
    languages: Sequence[str] | None = None,
    unseen: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
    renamed: Collection[str] = (),
    test_only: bool = False,
    trained: Collection[str] = (),
    spelling: LabelSpelling | None = None,
) -> Corpus:
    """A data set's corpus; ``unseen`` may also name other sets of its kind, which are evaluated and no more.

    Args:
        name: one that ``is_known``.
        bad: takes the bad records.
        kinds: the kinds of task by name (``multitune.tasks.TASKS``).
        task: the kind, where the columns of ``folder`` are the fields of several.
        path: the folder of the set, or set -> folder where there are several sets.
        languages: to train on; None takes the set's own choice.
        unseen: languages of the set (``fi``; where one is called like another set, ``folder:mlqa``), other sets
            (``mlqa``) and languages of those (``xquad:de``), which the corpus calls ``set:language``; None takes the
            set's own choice.
        columns: field -> column, for ``folder``.
        renamed, test_only, trained, spelling: as in ``Wanted``.

    Raises:
        UserError: a name twice, a set of another kind, no folder for a set, columns for a set that has its own; and
            whatever a source raises.
    """
    paths = path if isinstance(path, Mapping) else {name: path}
    _check_names(name, paths, languages or (), unseen or ())
    others = _of_other_sets(name, unseen or ())
    inside = None if unseen is None else _inside(name, unseen, others)
    if columns is not None and "folder" not in (name, *others) and not hub.is_name(name):
        raise UserError(
            f"columns: only the tables of data: folder and data: hub:owner/name have columns of their own, not data: "
            f"{name}"
        )
    wanted = Wanted(
        kinds,
        path=paths.get(name),
        languages=languages,
        unseen=inside,
        columns=columns,
        task=task,
        renamed=renamed,
        test_only=test_only,
        trained=trained,
        spelling=spelling,
    )
    nothing = others and languages is not None and not (languages or inside)
    corpus = Corpus(str(task), (), {}, {}, {}) if nothing else _loaded(name, wanted, bad)
    _check_folders(corpus.train)
    for other, codes in others.items():
        of_other = replace(wanted, path=paths.get(other), languages=(), unseen=codes, task=corpus.task, trained=())
        corpus = _with_unseen(corpus, name, other, _loaded(other, of_other, bad))
    return corpus


def _of_other_sets(name: str, unseen: Sequence[str]) -> dict[str, list[str] | None]:
    """Other set -> the languages that ``unseen`` names of it, None for the set's own choice."""
    others: dict[str, list[str] | None] = {}
    for each in unseen:
        other, colon, code = each.partition(":")
        if other in DATASETS and other != name:
            codes = others.get(other, [])
            others[other] = [*codes, code] if colon and codes is not None else None
    return others


def _inside(name: str, unseen: Sequence[str], others: Collection[str]) -> list[str]:
    """The languages of the set itself that ``unseen`` names."""
    return [each.removeprefix(f"{name}:") for each in unseen if each.partition(":")[0] not in others]


def _check_names(name: str, paths: Mapping[str, str | None], languages: Sequence[str], unseen: Sequence[str]) -> None:
    for each, times in Counter((*languages, *unseen)).items():
        if times > 1:
            raise UserError(f"languages: {each!r} is named {times} times; name it once, in languages or in unseen")
    used = [name, *_of_other_sets(name, unseen)]
    for each in paths:
        if each not in used:
            raise UserError(f"path: {each!r} is a folder for no data set that is used; used: {', '.join(used)}")


def _check_folders(languages: Collection[str]) -> None:
    """Raise ``UserError`` where a language to train on cannot be the name of a folder."""
    for language in languages:
        too_long = len(language.encode(errors="surrogateescape")) > LONGEST_NAME
        if too_long or language in (".", "..", "README.md") or "/" in language or "\0" in language:
            raise UserError(f"languages: {language!r} cannot be the name of a folder, which models of a language have")


def _with_unseen(corpus: Corpus, name: str, other: str, unseen: Corpus) -> Corpus:
    """The corpus with the test records of another set beside its own."""
    if corpus.heads or unseen.task != corpus.task:
        raise UserError(f"unseen: {other} is of kind {unseen.task}, the model of data: {name} of kind {corpus.task}")
    test = {f"{other}:{code}": records for code, records in unseen.test.items()}
    twice = sorted(test.keys() & corpus.test.keys())
    if twice:
        raise UserError(f"unseen: data: {name} has a language {twice[0]!r} of its own, and {other} one of that name")
    skipped = {f"{other}:{code}": count for code, count in unseen.skipped.items()}
    return replace(corpus, test={**corpus.test, **test}, skipped=corpus.skipped | skipped)


__all__ = ["DATASETS", "is_known", "load"]
