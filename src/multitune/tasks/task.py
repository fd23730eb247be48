"""What every kind of task tells the loop and the evaluation: its head, encoding, loss, predictions and scores."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from multitune.data.corpus import Record

Example = dict[str, Any]
"""An encoded record: ``input_ids`` (list of int) and what the kind of task needs beside."""

IGNORED = -100
"""The label of a position that has none; cross-entropy leaves it out."""


class Task(ABC):
    """A kind of task with its labels. Its head is the Hugging Face architecture's own.

    Scores come from sums over examples of ``statistics``, so that a bootstrap over examples is one matrix product.
    """

    auto_model: ClassVar[Any]
    """The transformers Auto class whose architecture has the head."""
    metric: ClassVar[str]
    """The name of the score that averages, comparisons and the choice of the best weights use."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self._number = {label: number for number, label in enumerate(self.labels)}

    def number(self, label: str) -> int:
        """The index of a label in the head's output."""
        return self._number[label]

    @abstractmethod
    def encode(self, records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Example]:
        """Records to token ids and labels, cut to ``max_length`` tokens, not padded."""

    @abstractmethod
    def labels_of(self, examples: Sequence[Example], length: int) -> Tensor:
        """The label tensor of a batch padded to ``length``; ``IGNORED`` where there is none."""

    @abstractmethod
    def decode(self, logits: Tensor, examples: Sequence[Example]) -> list[Any]:
        """A prediction for each example from the logits of its batch, [examples, ...]; plain JSON values."""

    @abstractmethod
    def statistics(self, record: Record, prediction: Any) -> tuple[float, ...]:
        """What one example adds to the sums that ``scores`` is computed from."""

    @abstractmethod
    def scores(self, sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Scores in percent from sums of statistics, [..., statistics] -> {metric: [...]}."""

    def collate(self, examples: Sequence[Example], pad_id: int) -> dict[str, Tensor]:
        """A padded batch: ``input_ids``, ``attention_mask`` and ``labels``, each [examples, length, ...]."""
        length = max(len(example["input_ids"]) for example in examples)
        input_ids = torch.full((len(examples), length), pad_id)
        mask = torch.zeros((len(examples), length), dtype=torch.long)
        for row, example in enumerate(examples):
            ids = example["input_ids"]
            input_ids[row, : len(ids)] = torch.as_tensor(ids)
            mask[row, : len(ids)] = 1
        return {"input_ids": input_ids, "attention_mask": mask, "labels": self.labels_of(examples, length)}

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy over the positions that have a label; logits [..., labels], labels [...]."""
        return torch.nn.functional.cross_entropy(
            logits.float().flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="mean"
        )

    def score(self, records: Sequence[Record], predictions: Sequence[Any]) -> dict[str, float]:
        """Scores in percent of predictions for records of one language."""
        return as_floats(self.scores(self.all_statistics(records, predictions).sum(0)))

    def all_statistics(self, records: Sequence[Record], predictions: Sequence[Any]) -> NDArray[np.float64]:
        """The statistics of each example, [examples, statistics]."""
        pairs = zip(records, predictions, strict=True)
        return np.array([self.statistics(record, prediction) for record, prediction in pairs], dtype=np.float64)


def as_floats(scores: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Scalar arrays to plain numbers."""
    return {metric: float(value) for metric, value in scores.items()}


def ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """100 * part / whole, and 0 where whole is 0."""
    return np.divide(100.0 * part, whole, out=np.zeros_like(part, dtype=np.float64), where=whole > 0)
