"""Classification of a text or a pair of texts: one label, scored by accuracy and Matthews correlation."""

from collections.abc import Iterator, Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from multitune.data.corpus import Record
from multitune.data.fields import LABELLED_TEXT
from multitune.tasks.task import Example, Task, encode_texts, ratio


class OneLabel(Task):
    """Records with one ``"label"`` each; a prediction is a label."""

    label_field = "label"

    def targets(self, examples: Sequence[Example]) -> Tensor:
        return torch.tensor([example["label"] for example in examples])

    def decode(self, output: Any, examples: Sequence[Example]) -> list[str]:
        return [self.labels[number] for number in output.logits.argmax(-1).tolist()]

    def statistics(self, record: Record, prediction: Any) -> tuple[float, ...]:
        return (float(self.number(record["label"])), float(self.number(prediction)))


@final
class Classification(OneLabel):
    """Records ``{"text": str, "label": str}``, with ``"text_pair": str`` where two are compared; predictions labels.

    Of a pair that is too long, the end of the longer text is cut off.
    """

    fields = LABELLED_TEXT
    auto_model = AutoModelForSequenceClassification
    metric = "accuracy"

    def encode(
        self, records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Iterator[Example]:
        for record, example in encode_texts(records, tokenizer, max_length):
            yield example | {"label": self.number(record["label"])}

    def scores(self, rows: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return label_scores(rows, counts)


def label_scores(rows: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Accuracy and Matthews correlation in percent; the correlation is 0 where either side names one label alone.

    For more than two labels it is R_K of Gorodkin (2004), "Comparing two K-category assignments by a K-category
    correlation coefficient", as in scikit-learn: with c right of s, and label k true t_k times and predicted p_k times,
    (c s - sum p_k t_k) / sqrt((s^2 - sum p_k^2) (s^2 - sum t_k^2)).

    Args:
        rows: true and predicted label as numbers, [records, 2].
        counts: as in ``Task.scores``.
    """
    numbers = rows.astype(np.int64)
    which = np.eye(numbers.max() + 1)
    t, p = counts @ which[numbers[:, 0]], counts @ which[numbers[:, 1]]
    c, s = counts @ (numbers[:, 0] == numbers[:, 1]), counts.sum(-1)
    spread = np.sqrt((s**2 - (p**2).sum(-1)) * (s**2 - (t**2).sum(-1)))
    return {"accuracy": ratio(c, s), "matthews": ratio(c * s - (p * t).sum(-1), spread)}
