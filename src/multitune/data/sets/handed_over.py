"""What a data set's function has handed over: whether a run can read it. Functions of other packages may err."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

from multitune.data.corpus import Corpus, Record
from multitune.data.kind import Kind
from multitune.errors import UserError


def checked(name: str, corpus: Any, kinds: Mapping[str, type[Kind]]) -> Corpus:
    """The corpus, if it is one.

    Args:
        name: of the data set.
        corpus: what its function has returned.
        kinds: the kinds of task by name.

    Raises:
        UserError: it is none, lacks a split of a language, or has labels or records of other types.
    """
    if (wrong := _fault(corpus, kinds)) is not None:
        raise UserError(f"data: the function of {name!r} has returned {wrong} (docs/plugins.md)")
    assert isinstance(corpus, Corpus)
    return corpus


def _fault(corpus: Any, kinds: Mapping[str, type[Kind]]) -> str | None:
    if not isinstance(corpus, Corpus):
        return f"an object of type {type(corpus).__name__}; it must return a Corpus"
    for split in ("dev", "test"):
        if lacking := [language for language in corpus.train if language not in getattr(corpus, split)]:
            return f"no {split} records of {lacking[0]!r}, which it has for training"
    for split in ("train", "dev", "test"):
        for language, records in getattr(corpus, split).items():
            if not (hasattr(records, "__len__") and hasattr(records, "__getitem__")):
                return f"{split} records of {language!r} of type {type(records).__name__}; a list is needed"
    return _fault_of_labels(corpus, kinds)


def _fault_of_labels(corpus: Corpus, kinds: Mapping[str, type[Kind]]) -> str | None:
    """What is wrong with the labels, by the first record of each language."""
    for language in chain(corpus.train, corpus.test):
        if corpus.heads and language not in corpus.heads:
            return f"heads without {language!r}"
        head = corpus.head(language)
        kind = kinds.get(head.task)
        if any(not isinstance(label, str) for label in head.labels):
            return f"labels that are no text: {tuple(head.labels)[:3]}"
        if kind is None or kind.label_field is None:
            continue
        for records in (corpus.train.get(language, ()), corpus.test.get(language, ())):
            if len(records) and (said := _of_another_type(records[0], kind)) is not None:
                return f"a record of {language!r} {said}"
        trained = corpus.train.get(language, ())
        if not head.labels and len(trained) and kind.labels_of(trained[0]):
            return f"no labels, but a record of {language!r} that has one: Corpus(task, labels, ...) names all"
    return None


def _of_another_type(record: Record, kind: type[Kind]) -> str | None:
    if not isinstance(record, Mapping):
        return f"of type {type(record).__name__}; a dict is needed"
    if kind.label_field not in record:
        return f"without {kind.label_field!r}"
    wrong = [label for label in kind.labels_of(record) if not isinstance(label, str)]
    return f"whose {kind.label_field!r} is {wrong[0]!r}, which is no text" if wrong else None
