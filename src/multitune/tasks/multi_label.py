"""Classification of a text or a pair of texts by any number of labels, scored by micro-F1, macro-F1 and exact match."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedTokenizerBase

from multitune.data.corpus import Record
from multitune.data.fields import MULTI_LABELLED_TEXT
from multitune.data.kind import IGNORE, readable
from multitune.errors import UserError
from multitune.results.shown import Shown
from multitune.tasks.task import IGNORED, ClassScores, Example, Task, encode_texts, ratio

TRUE, PREDICTED = 1, 2
"""What a record's statistic of a label is the sum of."""


@final
class MultiLabel(Task):
    """Records ``{"text": str, "labels": [str, ...]}``, perhaps none, and ``"text_pair"`` as in classification.

    Labels that the recipe ignores stand in each record as ``"ignored": [str, ...]``: no score depends on them.

    A prediction is the list of the labels whose probability, the sigmoid of their logit, is above 1/2. The loss is the
    binary cross-entropy of each label, averaged over records and labels, as that of transformers'
    ``multi_label_classification``.
    """

    fields = MULTI_LABELLED_TEXT
    label_field = "labels"
    auto_model = AutoModelForSequenceClassification
    pipeline_tag = "text-classification"
    metric = "micro_f1"
    predicted = ("labels",)

    @classmethod
    def relabelled(cls, record: Record, names: Mapping[str, str]) -> Record:
        """The record with some labels taken for others, each once, and a note of those that are ignored."""
        own = super().relabelled(record, names)
        ignored = sorted(label for label, new in names.items() if new == IGNORE)
        return own | {"labels": list(dict.fromkeys(own["labels"]))} | ({"ignored": ignored} if ignored else {})

    def configure(self, config: PretrainedConfig) -> None:
        """Say in the model's configuration what the head's outputs are.

        Raises:
            UserError: there is no label.
        """
        if not self.labels:
            raise UserError("data: no training record has a label in its list, so that there is nothing to learn")
        super().configure(config)
        config.problem_type = "multi_label_classification"

    def stand_in(self, record: Record) -> Record:
        return record | {"labels": []}

    def encode(
        self, records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Iterator[Example]:
        for record, example in encode_texts(records, tokenizer, max_length):
            yield example | {"labels": sorted(self._known(record["labels"]))}

    def targets(self, examples: Sequence[Example]) -> Tensor:
        """1 where an example has a label, else 0: float, [examples, labels]."""
        targets = torch.zeros(len(examples), len(self.labels))
        for row, example in enumerate(examples):
            targets[row, np.asarray(example["labels"], dtype=np.int64)] = 1.0
        return targets

    def loss(self, output: Any, targets: Tensor) -> Tensor:
        return torch.nn.functional.binary_cross_entropy_with_logits(output.logits.float(), targets)

    def labels_in_loss(self, targets: Tensor) -> int:
        return targets.numel()

    def decode(self, output: Any, examples: Sequence[Example]) -> list[list[str]]:
        return [
            [label for label, is_said in zip(self.labels, row, strict=True) if is_said]
            for row in (output.logits > 0).tolist()
        ]

    def confidence(self, output: Any, examples: Sequence[Example]) -> list[dict[str, float]]:
        """The probability of each label, the most probable first; they do not sum to 1."""
        rows = output.logits.float().sigmoid().tolist()
        named = (zip(self.labels, row, strict=True) for row in rows)
        return [dict(sorted(row, key=lambda each: -each[1])) for row in named]

    def shown(self, record: Record, prediction: Any) -> Shown:
        true, scored = self.labels_of(record), _scored(record, prediction)
        said = ", ".join(scored) or "no label"
        return Shown(readable(self.texts(record)), ", ".join(true) or "no label", said, set(true) == set(scored))

    def statistics(self, record: Record, prediction: Any) -> tuple[float, ...]:
        """For each label 0, or the sum of 1 where it is true and 2 where it is predicted.

        Then how many labels the record has that the model lacks.
        """
        row = np.zeros(len(self.labels) + 1)
        true = self.labels_of(record)
        row[list(self._known(true))] += TRUE
        row[list(self._known(_scored(record, prediction)))] += PREDICTED
        row[-1] = sum(self.number(label) == IGNORED for label in set(true))
        return tuple(row.tolist())

    def scores(self, rows: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Micro-F1, macro-F1 and exact match in percent, as in scikit-learn with ``zero_division=nan`` for macro-F1.

        Micro-F1 is 2 h / (t + p), with labels true t times in all, predicted p times, and both h times. Macro-F1 is the
        mean of the same of each label, over those that are true or predicted at least once; those that the model lacks
        count as one more. An exact match has all of a record's labels and no other.
        """
        t, p, hits = _counts(rows, counts)
        right = np.isin(rows[:, :-1], (0, TRUE + PREDICTED)).all(-1) & (rows[:, -1] == 0)
        met = (t + p > 0).sum(-1)
        return {
            "micro_f1": ratio(2 * hits.sum(-1), t.sum(-1) + p.sum(-1)),
            "macro_f1": ratio(ratio(2 * hits, t + p).sum(-1) / 100, met),
            "exact_match": ratio(counts @ right, counts.sum(-1)),
        }

    def by_class(self, rows: NDArray[np.float64]) -> dict[str, ClassScores]:
        t, p, hits = _counts(rows, np.ones(len(rows)))
        scores = zip(self.labels, ratio(hits, p), ratio(hits, t), ratio(2 * hits, t + p), strict=False)
        return {
            label: {"examples": int(t[number]), "precision": precision, "recall": recall, "f1": f1}
            for number, (label, precision, recall, f1) in enumerate(scores)
            if t[number] + p[number] > 0
        }

    def _known(self, labels: Sequence[str | None]) -> set[int]:
        """The numbers of those labels that the model has and the recipe does not ignore."""
        return {self.number(label) for label in labels} - {IGNORED}


def _scored(record: Record, prediction: Sequence[str]) -> list[str]:
    """The predicted labels that the recipe does not ignore."""
    return [label for label in prediction if label not in record.get("ignored", ())]


def _counts(
    rows: NDArray[np.float64], counts: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """How often each label is true, predicted, and both, [..., labels + 1]; the last stands for unknown ones."""
    codes = rows[:, :-1].astype(np.int64)
    nothing = np.zeros((len(rows), 1))
    true = np.concatenate([codes & TRUE > 0, rows[:, -1:]], axis=-1)
    predicted = np.concatenate([codes & PREDICTED > 0, nothing], axis=-1)
    both = np.concatenate([codes == TRUE + PREDICTED, nothing], axis=-1)
    return counts @ true, counts @ predicted, counts @ both
