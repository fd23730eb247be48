"""Kinds of task, one file each."""

from multitune.data.records.corpus import Corpus
from multitune.tasks.classification import Classification
from multitune.tasks.image_classification import ImageClassification
from multitune.tasks.masked_language_modelling import MaskedLanguageModelling
from multitune.tasks.own_heads import OwnHeads
from multitune.tasks.question_answering import QuestionAnswering
from multitune.tasks.regression import Regression
from multitune.tasks.replayed import REPLAY, Replayed
from multitune.tasks.tagging import PosTagging, Tagging
from multitune.tasks.task import Task
from multitune.tasks.translation import Translation

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "image_classification": ImageClassification,
    "masked_language_modelling": MaskedLanguageModelling,
    "pos_tagging": PosTagging,
    "question_answering": QuestionAnswering,
    "regression": Regression,
    "tagging": Tagging,
    "translation": Translation,
}

AnyTask = Task | OwnHeads | Replayed
"""One task for all languages, or one for each, or either with a replay."""


def of(corpus: Corpus) -> Task | OwnHeads:
    """The task of a corpus, with its labels."""
    if corpus.heads:
        return OwnHeads({name: TASKS[head.task](head.labels) for name, head in corpus.heads.items()})
    return TASKS[corpus.task](corpus.labels)


__all__ = [
    "REPLAY",
    "TASKS",
    "AnyTask",
    "Classification",
    "ImageClassification",
    "MaskedLanguageModelling",
    "OwnHeads",
    "PosTagging",
    "QuestionAnswering",
    "Regression",
    "Replayed",
    "Tagging",
    "Task",
    "Translation",
    "of",
]
