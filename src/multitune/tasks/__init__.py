"""Kinds of task, one file each."""

from multitune.data.corpus import Corpus
from multitune.tasks.causal_lm import CausalLM
from multitune.tasks.classification import Classification, OneLabel
from multitune.tasks.heads import HeadMap
from multitune.tasks.image_classification import ImageClassification
from multitune.tasks.masked_language_modelling import MaskedLanguageModelling
from multitune.tasks.multi_label import MultiLabel
from multitune.tasks.question_answering import QuestionAnswering
from multitune.tasks.ranking import Ranking
from multitune.tasks.regression import Regression
from multitune.tasks.tagging import PosTagging, Tagging, TokenTask
from multitune.tasks.task import Task
from multitune.tasks.translation import Translation

TASKS: dict[str, type[Task]] = {
    "causal_lm": CausalLM,
    "classification": Classification,
    "image_classification": ImageClassification,
    "masked_language_modelling": MaskedLanguageModelling,
    "multi_label": MultiLabel,
    "pos_tagging": PosTagging,
    "question_answering": QuestionAnswering,
    "ranking": Ranking,
    "regression": Regression,
    "tagging": Tagging,
    "translation": Translation,
}


def of(corpus: Corpus) -> HeadMap:
    """The tasks of a corpus's languages, with their labels."""
    if corpus.heads:
        return HeadMap.of_each({name: TASKS[head.task](head.labels) for name, head in corpus.heads.items()})
    return HeadMap.of_all(TASKS[corpus.task](corpus.labels))


def name_of(task: Task) -> str:
    """The name of a task's kind."""
    return next(name for name, kind in TASKS.items() if kind is type(task))


__all__ = [
    "TASKS",
    "CausalLM",
    "Classification",
    "HeadMap",
    "ImageClassification",
    "MaskedLanguageModelling",
    "MultiLabel",
    "OneLabel",
    "PosTagging",
    "QuestionAnswering",
    "Ranking",
    "Regression",
    "Tagging",
    "Task",
    "TokenTask",
    "Translation",
    "name_of",
    "of",
]
