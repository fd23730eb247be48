"""What every data source hands over: labelled records by split and language."""

from dataclasses import dataclass, field
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True)
class Corpus:
    """Records of one task in several languages, some to train on, others met only at the end.

    A record of classification is ``{"text": str, "label": str}``, one of tagging ``{"tokens": list[str], "tags":
    list[str]}`` (IOB2); a source may add keys of its own. The order of languages is the order they were asked for.

    Attributes:
        task: ``"classification"`` or ``"tagging"``.
        labels: every label or tag of the training split, sorted; nothing else occurs in dev or test.
        train: training language -> records.
        dev: training language -> records, for choosing the best weights.
        test: language -> records; the training languages come first, then the unseen ones.
        dropped: language -> how many dev and test records were left out because training never shows their label.
        test_is_dev: the source has no test split of its own, and ``test`` is the whole of dev.
    """

    task: str
    labels: tuple[str, ...]
    train: dict[str, list[Record]]
    dev: dict[str, list[Record]]
    test: dict[str, list[Record]]
    dropped: dict[str, int] = field(default_factory=dict)
    test_is_dev: bool = False
