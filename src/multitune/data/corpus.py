"""What every data source hands over: labelled records by split and language."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

Record = dict[str, Any]


class Head(NamedTuple):
    """A kind of task with its labels."""

    task: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """Records of one task in several languages, some to train on, others met only at the end.

    A source may add keys of its own to records. The order of languages is the order they were asked for.

    Attributes:
        task: the kind of task, a name in ``multitune.tasks.TASKS``; docs/tasks.md has the records of each.
        labels: every label or tag of the training split, sorted; nothing else occurs in dev or test.
        train: training language -> records.
        dev: training language -> records, for choosing the best weights.
        test: language -> records; the training languages come first, then the unseen ones.
        dropped: language -> how many dev and test records were left out because training never shows their label.
        test_is_dev: the source has no test split of its own, and ``test`` is the whole of dev.
        heads: where the "languages" are tasks with heads of their own (GLUE): each one's kind and labels; ``task`` and
            ``labels`` are then those of the first.
    """

    task: str
    labels: tuple[str, ...]
    train: dict[str, list[Record]]
    dev: dict[str, list[Record]]
    test: dict[str, list[Record]]
    dropped: dict[str, int] = field(default_factory=dict)
    test_is_dev: bool = False
    heads: dict[str, Head] = field(default_factory=dict)
