"""Token tagging: one tag a token, scored by the F1 of whole entities, as seqeval (and so the papers) count them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from seqeval.metrics.sequence_labeling import get_entities
from torch import Tensor
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerBase

from multitune.data.corpus import Record
from multitune.tasks.task import IGNORED, Example, Task, ratio


class Tagging(Task):
    """Records ``{"tokens": [str], "tags": [str]}``; a prediction is the list of tags.

    The first subword of a token carries its tag. A token without one (cut off at the end, or of characters that the
    tokenizer drops) is predicted as O.
    """

    auto_model = AutoModelForTokenClassification
    metric = "f1"

    def encode(self, records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Example]:
        encoded = tokenizer(
            [record["tokens"] for record in records],
            is_split_into_words=True,
            truncation=True,
            max_length=max_length,
        )
        return [
            self._example(ids, encoded.word_ids(row), record)
            for row, (ids, record) in enumerate(zip(encoded["input_ids"], records, strict=True))
        ]

    def _example(self, ids: list[int], words: Sequence[int | None], record: Record) -> Example:
        labels, firsts = [IGNORED] * len(ids), [-1] * len(record["tokens"])
        for position, word in enumerate(words):
            if word is not None and firsts[word] < 0:
                firsts[word] = position
                labels[position] = self.number(record["tags"][word])
        return {"input_ids": ids, "labels": labels, "firsts": firsts}

    def labels_of(self, examples: Sequence[Example], length: int) -> Tensor:
        labels = torch.full((len(examples), length), IGNORED)
        for row, example in enumerate(examples):
            labels[row, : len(example["labels"])] = torch.as_tensor(example["labels"])
        return labels

    def decode(self, logits: Tensor, examples: Sequence[Example]) -> list[list[str]]:
        best = logits.argmax(-1).tolist()
        return [
            [self.labels[numbers[first]] if first >= 0 else "O" for first in example["firsts"]]
            for numbers, example in zip(best, examples, strict=True)
        ]

    def statistics(self, record: Record, prediction: Any) -> tuple[float, ...]:
        true, found = set(get_entities(record["tags"])), set(get_entities(prediction))
        return (float(len(true & found)), float(len(found)), float(len(true)))

    def scores(self, sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        right, found, true = sums[..., 0], sums[..., 1], sums[..., 2]
        return {"f1": ratio(2 * right, found + true), "precision": ratio(right, found), "recall": ratio(right, true)}
