"""The texts of any data set without their labels, for masked language modelling."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from multitune.data.corpus import Corpus, Record
from multitune.data.kind import Kind
from multitune.data.records.rows import View
from multitune.errors import UserError


def unlabelled(corpus: Corpus, kinds: Mapping[str, type[Kind]], task: str) -> Corpus:
    """A corpus with the texts of another.

    Args:
        task: the kind of task that it is for, whose records are ``{"text": str}``.

    Raises:
        UserError: as ``of_split`` does.
    """
    train, dev, test = (of_split(split, corpus, kinds) for split in (corpus.train, corpus.dev, corpus.test))
    return replace(corpus, task=task, labels=(), train=train, dev=dev, test=test, heads={})


def of_split(
    split: Mapping[str, Sequence[Record]], corpus: Corpus, kinds: Mapping[str, type[Kind]]
) -> dict[str, Sequence[Record]]:
    """The texts of a split of a corpus: language -> ``{"text": str}`` for each record.

    Raises:
        UserError: records that are not of text, such as images.
    """
    tasks = {language: corpus.head(language).task for language in split}
    for task in tasks.values():
        if not kinds[task].tokenised:
            raise UserError(f"data: masked language modelling wants texts, and this data set is of {task}")
    return {language: _texts(records, kinds[tasks[language]]) for language, records in split.items()}


def _texts(records: Sequence[Record], kind: type[Kind]) -> View:
    return View(len(records), lambda number: {"text": kind.plain_text(records[number])})
