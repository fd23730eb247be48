"""Regression on a text or a pair of texts: one number, scored by Pearson and Spearman correlation (STS-B)."""

from collections.abc import Iterator, Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedTokenizerBase

from multitune.data.corpus import Record
from multitune.data.fields import SCORED_TEXT
from multitune.data.kind import readable
from multitune.results.shown import Shown
from multitune.tasks.task import Example, Task, encode_texts, ratio

ROUNDING = 1e-9
"""A spread below so many times the mean is rounding error: there is nothing to correlate."""


@final
class Regression(Task):
    """Records as in classification, but ``"label"`` is a float; so is a prediction. The loss is the squared error."""

    fields = SCORED_TEXT
    auto_model = AutoModelForSequenceClassification
    pipeline_tag = "text-classification"
    metric = "pearson"
    predicted = ("score",)

    def stand_in(self, record: Record) -> Record:
        return record | {"label": 0.0}

    def configure(self, config: PretrainedConfig) -> None:
        config.num_labels = 1
        config.problem_type = "regression"

    @classmethod
    def labels_in(cls, config: PretrainedConfig) -> tuple[str, ...]:
        return ()

    def encode(
        self, records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Iterator[Example]:
        for record, example in encode_texts(records, tokenizer, max_length):
            yield example | {"label": record["label"]}

    def targets(self, examples: Sequence[Example]) -> Tensor:
        return torch.tensor([example["label"] for example in examples], dtype=torch.float32)

    def labels_in_loss(self, targets: Tensor) -> int:
        return len(targets)  # a score may be any number

    def loss(self, output: Any, targets: Tensor) -> Tensor:
        return torch.nn.functional.mse_loss(output.logits[:, 0].float(), targets)

    def decode(self, output: Any, examples: Sequence[Example]) -> list[float]:
        scores: list[float] = output.logits[:, 0].tolist()
        return scores

    def shown(self, record: Record, prediction: Any) -> Shown:
        return Shown(readable(self.texts(record)), f"{record['label']:.2f}", f"{prediction:.2f}", right=None)

    def statistics(self, record: Record, prediction: Any) -> tuple[float, ...]:
        return (float(record["label"]), float(prediction))

    def scores(self, rows: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        true, predicted = rows.T
        return {
            "pearson": pearson(true, predicted, counts),
            "spearman": pearson(ranks(true, counts), ranks(predicted, counts), counts),
        }


def pearson(x: NDArray[np.float64], y: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation in percent of x and y, each [..., records], in resamples; 0 where either is constant.

    Args:
        counts: how often each record is in each resample, [..., records].
    """
    (x, x_variance), (y, y_variance) = _centred(x, counts), _centred(y, counts)
    return ratio((counts * x * y).sum(-1), np.sqrt(x_variance * y_variance))


def ranks(values: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rank of each value, [records], within each resample, [..., records]; equal values share their mean rank."""
    order = np.argsort(values, kind="stable")
    _, first = np.unique(values[order], return_index=True)
    _, group = np.unique(values, return_inverse=True)
    equal = np.add.reduceat(counts[..., order], first, axis=-1)
    mean_rank = equal.cumsum(-1) - (equal - 1) / 2
    return mean_rank[..., group]


def _centred(x: NDArray[np.float64], counts: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x less its mean in each resample, and its summed squares there."""
    total = counts.sum(-1, keepdims=True)
    mean = (counts * x).sum(-1, keepdims=True) / total
    squares = (counts * (x - mean) ** 2).sum(-1)
    return x - mean, np.where(squares > (total * (ROUNDING * mean) ** 2)[..., 0], squares, 0.0)
