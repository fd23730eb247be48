"""Predictions and scores of a split, language by language."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitune.data.corpus import Record
from multitune.models.encoder import Encoder
from multitune.precision import autocast
from multitune.tasks import Task
from multitune.tasks.task import Example, as_floats

TOKENS = 4096
"""Tokens in a batch of an evaluation, padding included."""


@dataclass(frozen=True)
class Encoded:
    """A split ready for the model: language -> records, and their examples in the same order."""

    records: Mapping[str, Sequence[Record]]
    examples: Mapping[str, Sequence[Example]]

    @staticmethod
    def of(records: Mapping[str, Sequence[Record]], task: Task, encoder: Encoder, max_length: int) -> "Encoded":
        """Tokenise a split."""
        return Encoded(records, {k: task.encode(v, encoder.tokenizer, max_length) for k, v in records.items()})


@dataclass(frozen=True)
class Evaluation:
    """Predictions of a model on a split, and what they score.

    Attributes:
        predictions: language -> a prediction for each record.
        statistics: language -> [examples, statistics], from which any resample can be scored.
        scores: language -> {metric: percent}.
    """

    predictions: dict[str, list[Any]]
    statistics: dict[str, NDArray[np.float64]]
    scores: dict[str, dict[str, float]]

    def average(self, metric: str) -> float:
        """The unweighted mean over languages."""
        return float(np.mean([score[metric] for score in self.scores.values()]))


def evaluate(
    encoder: Encoder, task: Task, split: Encoded, precision: str, check: Callable[[], None] = lambda: None
) -> Evaluation:
    """Predict and score a split with the weights that the model holds, as the shipped model would.

    ``check`` is called before each batch, and may raise to give up.
    """
    flat = [(language, row) for language, examples in split.examples.items() for row in range(len(examples))]
    examples = [split.examples[language][row] for language, row in flat]
    found = predict(encoder, task, examples, precision, check)
    predictions: dict[str, list[Any]] = {language: [] for language in split.examples}
    for (language, _), prediction in zip(flat, found, strict=True):
        predictions[language].append(prediction)
    statistics = {k: task.all_statistics(split.records[k], v) for k, v in predictions.items()}
    scores = {k: as_floats(task.scores(v.sum(0))) for k, v in statistics.items()}
    return Evaluation(predictions, statistics, scores)


def predict(
    encoder: Encoder, task: Task, examples: Sequence[Example], precision: str, check: Callable[[], None]
) -> list[Any]:
    """A prediction for each example, in order; batches hold examples of like length."""
    predictions: list[Any] = [None] * len(examples)
    with encoder.evaluating(), autocast(encoder.device, precision):
        for rows in _batches([len(example["input_ids"]) for example in examples]):
            check()
            chosen = [examples[row] for row in rows]
            logits = encoder.logits(task.collate(chosen, encoder.pad_id)).float()
            for row, prediction in zip(rows, task.decode(logits, chosen), strict=True):
                predictions[row] = prediction
    return predictions


def _batches(lengths: Sequence[int]) -> Iterable[list[int]]:
    """Rows sorted by length, cut where a batch would pass ``TOKENS`` with its padding."""
    batch: list[int] = []
    for row in np.argsort(lengths, kind="stable").tolist():
        if batch and (len(batch) + 1) * lengths[row] > TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def write_predictions(path: Path, split: Encoded, evaluation: Evaluation) -> None:
    """One JSON object a line: language, the record, its prediction and its statistics."""
    with path.open("w", encoding="utf-8") as file:
        for language, predictions in evaluation.predictions.items():
            rows = zip(split.records[language], predictions, evaluation.statistics[language].tolist(), strict=True)
            for record, prediction, statistics in rows:
                line = {"language": language, "record": record, "prediction": prediction, "statistics": statistics}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def read_statistics(path: Path) -> dict[str, NDArray[np.float64]]:
    """Language -> [examples, statistics] of a file that ``write_predictions`` wrote."""
    rows: dict[str, list[list[float]]] = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            rows.setdefault(row["language"], []).append(row["statistics"])
    return {language: np.array(statistics) for language, statistics in rows.items()}
