"""The texts of any data set without their labels, for masked language modelling."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from multitune.data.records.corpus import Corpus, Record
from multitune.data.records.rows import View
from multitune.errors import UserError

TEXTS: dict[str, Callable[[Record], str]] = {
    "classification": lambda record: " ".join(filter(None, (record["text"], record.get("text_pair")))),
    "regression": lambda record: " ".join(filter(None, (record["text"], record.get("text_pair")))),
    "tagging": lambda record: " ".join(record["tokens"]),
    "pos_tagging": lambda record: " ".join(record["tokens"]),
    "masked_language_modelling": lambda record: record["text"],
    "question_answering": lambda record: record["context"],
    "translation": lambda record: record["source"],
}
"""Kind of task -> the text of a record."""


def unlabelled(corpus: Corpus) -> Corpus:
    """A corpus of masked language modelling with the texts of another.

    Raises:
        UserError: a corpus of images.
    """
    tasks = {language: corpus.heads[language].task if corpus.heads else corpus.task for language in corpus.test}
    for task in tasks.values():
        if task not in TEXTS:
            raise UserError(f"task: masked_language_modelling wants texts, and this data set is of {task}")

    def texts(split: Mapping[str, Sequence[Record]]) -> dict[str, Sequence[Record]]:
        return {language: _texts(records, TEXTS[tasks[language]]) for language, records in split.items()}

    return replace(
        corpus,
        task="masked_language_modelling",
        labels=(),
        train=texts(corpus.train),
        dev=texts(corpus.dev),
        test=texts(corpus.test),
        heads={},
    )


def _texts(records: Sequence[Record], text: Callable[[Record], str]) -> View:
    return View(len(records), lambda number: {"text": text(records[number])})
