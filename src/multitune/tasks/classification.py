"""Text classification: one label a text, scored by accuracy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from multitune.data.corpus import Record
from multitune.tasks.task import Example, Task, ratio, rows_of, sums


class Classification(Task):
    """Records ``{"text": str, "label": str}``; a prediction is a label."""

    auto_model = AutoModelForSequenceClassification
    metric = "accuracy"

    def encode(self, records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Example]:
        encoded = tokenizer([record["text"] for record in records], truncation=True, max_length=max_length)
        return [
            example | {"label": self.number(record["label"])}
            for example, record in zip(rows_of(encoded), records, strict=True)
        ]

    def targets(self, examples: Sequence[Example]) -> Tensor:
        return torch.tensor([example["label"] for example in examples])

    def decode(self, output: Any, examples: Sequence[Example]) -> list[str]:
        return [self.labels[number] for number in output.logits.argmax(-1).tolist()]

    def statistics(self, record: Record, prediction: Any) -> tuple[float, ...]:
        return (float(prediction == record["label"]), 1.0)

    def scores(self, rows: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return {"accuracy": ratio(*sums(rows, counts))}
