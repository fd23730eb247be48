"""Classification of a text or a pair of texts: one label, scored by accuracy, macro-F1 and Matthews correlation."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from multitune.data.corpus import Record
from multitune.data.fields import LABELLED_TEXT
from multitune.tasks.task import IGNORED, ClassScores, Example, Task, encode_texts, ratio


class OneLabel(Task):
    """Records with one ``"label"`` each; a prediction is a label."""

    label_field = "label"
    predicted = ("label",)

    def stand_in(self, record: Record) -> Record:
        return record | {"label": self.labels[0]}

    def confidence(self, output: Any, examples: Sequence[Example]) -> list[dict[str, float]]:
        """The probability of each label, the most probable first."""
        rows = output.logits.float().softmax(-1).tolist()
        named = (zip(self.labels, row, strict=True) for row in rows)
        return [dict(sorted(row, key=lambda each: -each[1])) for row in named]

    def targets(self, examples: Sequence[Example]) -> Tensor:
        return torch.tensor([example["label"] for example in examples])

    def decode(self, output: Any, examples: Sequence[Example]) -> list[str]:
        return [self.labels[number] for number in output.logits.argmax(-1).tolist()]

    def statistics(self, record: Record, prediction: Any) -> tuple[float, ...]:
        """The numbers of the true and the predicted label; all labels that the model lacks count as one more."""
        true = self.number(record["label"])
        return (float(len(self.labels) if true == IGNORED else true), float(self.number(prediction)))


@final
class Classification(OneLabel):
    """Records ``{"text": str, "label": str}``, with ``"text_pair": str`` where two are compared; predictions labels.

    Of a pair that is too long, the end of the longer text is cut off.
    """

    fields = LABELLED_TEXT
    auto_model = AutoModelForSequenceClassification
    pipeline_tag = "text-classification"
    metric = "accuracy"

    def encode(
        self, records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Iterator[Example]:
        for record, example in encode_texts(records, tokenizer, max_length):
            yield example | {"label": self.number(record["label"])}

    def scores(self, rows: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return label_scores(rows, counts)

    def by_class(self, rows: NDArray[np.float64]) -> dict[str, ClassScores]:
        return scores_by_label(rows, self.labels)


def label_scores(rows: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Accuracy, macro-F1 and Matthews correlation in percent, each as in scikit-learn.

    Macro-F1 is the mean over the labels that are true or predicted at least once of 2 h_k / (t_k + p_k), with label k
    true t_k times, predicted p_k times and both h_k times. For more than two labels the correlation is R_K of Gorodkin
    (2004), "Comparing two K-category assignments by a K-category correlation coefficient": with c right of s,
    (c s - sum p_k t_k) / sqrt((s^2 - sum p_k^2) (s^2 - sum t_k^2)); it is 0 where either side names one label alone.

    Args:
        rows: true and predicted label as numbers, [records, 2].
        counts: as in ``Task.scores``.
    """
    t, p, hits = label_counts(rows, counts)
    c, s = hits.sum(-1), counts.sum(-1)
    spread = np.sqrt((s**2 - (p**2).sum(-1)) * (s**2 - (t**2).sum(-1)))
    return {
        "accuracy": ratio(c, s),
        "macro_f1": ratio(2 * hits, t + p).sum(-1) / (t + p > 0).sum(-1),
        "matthews": ratio(c * s - (p * t).sum(-1), spread),
    }


def scores_by_label(rows: NDArray[np.float64], labels: Sequence[str]) -> dict[str, ClassScores]:
    """The scores of each label that is true or predicted at least once; ``rows`` are ``label_scores``'s.

    Those that the model lacks have no line.
    """
    t, p, hits = label_counts(rows, np.ones(len(rows)))
    scores = zip(ratio(hits, p), ratio(hits, t), ratio(2 * hits, t + p), strict=True)
    return {
        labels[number]: {"examples": int(t[number]), "precision": precision, "recall": recall, "f1": f1}
        for number, (precision, recall, f1) in enumerate(islice(scores, len(labels)))
        if t[number] + p[number] > 0
    }


def label_counts(
    rows: NDArray[np.float64], counts: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """How often each label is true, predicted, and both, [..., labels]; the arguments are ``label_scores``'s."""
    true, predicted = rows.astype(np.int64).T
    which = np.eye(max(true.max(), predicted.max()) + 1)
    return counts @ which[true], counts @ which[predicted], (counts * (true == predicted)) @ which[true]
