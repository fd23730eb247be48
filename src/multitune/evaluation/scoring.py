"""Predictions and scores of a split, language by language."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from signal import Signals
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from multitune.data.corpus import Corpus, Record
from multitune.data.records.digest import number_of
from multitune.data.records.rows import joined
from multitune.data.records.stored import Stored
from multitune.errors import DivergedError
from multitune.evaluation import tokenised
from multitune.methods.ranks import Ranks
from multitune.models.encoder import Encoder
from multitune.models.precision import autocast
from multitune.results.predictions import Prediction, prediction_line, read_predictions
from multitune.screen.stages import stage
from multitune.storage.interrupt import StopRequested
from multitune.tasks import HeadMap, Task
from multitune.tasks.task import ClassScores, Example

TOKENS = 4096
"""Tokens in a batch of an evaluation, padding included."""


@dataclass(frozen=True)
class Encoded:
    """A split ready for the model: language -> records, and their examples as the task encodes them."""

    records: Mapping[str, Sequence[Record]]
    examples: Mapping[str, Sequence[Example]]

    @staticmethod
    def of(records: Mapping[str, Sequence[Record]], heads: HeadMap, encoder: Encoder, max_length: int) -> "Encoded":
        """Tokenise a split, or find it tokenised."""
        examples: dict[str, Sequence[Example]] = {}
        with stage("tokenising", sum(map(len, records.values()))) as done:
            for language, rows in records.items():
                examples[language] = tokenised.examples(rows, heads.task(language), encoder, max_length)
                done(len(rows))
        return Encoded(records, examples)

    @property
    def tokens(self) -> list[int]:
        """The token ids that occur in it."""
        texts = [rows.values("input_ids") for rows in self.examples.values() if isinstance(rows, Stored)]
        tokens: list[int] = np.unique(np.concatenate([np.unique(ids) for ids in texts])).tolist()
        return tokens


@dataclass(frozen=True)
class Evaluation:
    """Predictions of a model on a split, and what they score.

    Attributes:
        predictions: language -> a prediction for each record.
        statistics: language -> [records, statistics], from which any resample can be scored.
        scores: language -> {metric: percent}.
    """

    predictions: dict[str, list[Any]]
    statistics: dict[str, NDArray[np.float64]]
    scores: dict[str, dict[str, float]]

    def average(self, metric: str) -> float:
        """The unweighted mean over languages."""
        return float(np.mean([score[metric] for score in self.scores.values()]))


def evaluate(
    encoder: Encoder,
    heads: HeadMap,
    split: Encoded,
    precision: str,
    check: Callable[[], None] = lambda: None,
    ranks: Ranks | None = None,
    names: Mapping[str, str] | None = None,
) -> Evaluation:
    """Predict and score a split with the weights that the model holds, as the shipped model would.

    Args:
        check: called before each batch and language; it may raise StopRequested to give up.
        ranks: that share the batches, which are the same on any number of them; all get the whole evaluation.
        names: labels that are taken for others where the model predicts them, as they are in the records.

    Raises:
        DivergedError: the model has diverged: a weight or an output of it is not finite.
        StopRequested: ``check`` did, on any rank while it predicted.
    """
    if (weight := encoder.non_finite_weight()) is not None:
        raise _diverged(f"the weights {weight} are")
    predictions: dict[str, list[Any]] = {}
    for number, languages in heads.groups(split.examples).items():
        predictions |= _predictions(encoder, heads.tasks[number], languages, split, precision, check, ranks)
    if names:
        predictions = {k: [heads.task(k).taken_for(each, names) for each in own] for k, own in predictions.items()}
    statistics: dict[str, NDArray[np.float64]] = {}
    for k, v in split.records.items():
        check()
        statistics[k] = heads.task(k).all_statistics(v, predictions[k])
    scores = {k: heads.scores_of(k, v) for k, v in statistics.items()}
    return Evaluation({k: predictions[k] for k in split.records}, statistics, scores)


def _predictions(
    encoder: Encoder,
    task: Task,
    languages: Sequence[str],
    split: Encoded,
    precision: str,
    check: Callable[[], None],
    ranks: Ranks | None,
) -> dict[str, list[Any]]:
    """A prediction for each record of languages that share a head."""
    parts = [split.examples[language] for language in languages]
    sizes = np.concatenate([task.sizes(part) for part in parts])
    model = encoder.head(languages[0])
    findings = iter(predict(encoder, task, model, joined(parts), sizes, precision, check, ranks=ranks))
    by_language = {language: list(islice(findings, len(split.examples[language]))) for language in languages}
    return {k: task.join(split.records[k], split.examples[k], v, encoder.tokenizer) for k, v in by_language.items()}


def predict(
    encoder: Encoder,
    task: Task,
    model: PreTrainedModel,
    examples: Sequence[Example],
    sizes: NDArray[np.int64],
    precision: str,
    check: Callable[[], None],
    decode: Callable[[Any, Sequence[Example]], Sequence[Any]] | None = None,
    ranks: Ranks | None = None,
) -> list[Any]:
    """What the model finds in each example, in order; batches hold examples of like size.

    Args:
        decode: reads a batch's output; by default as the task does.
        ranks: as of ``evaluate``.
    """
    decode, ranks = decode or task.decode, ranks or Ranks()
    findings: dict[int, Any] = {}
    predicting = stage("predicting", len(examples))
    with predicting as done, _stopping_together(ranks), encoder.evaluating(), autocast(encoder.device, precision):
        for place, rows in enumerate(token_batches(sizes)):
            if ranks.computes(place):
                check()
                chosen = [examples[row] for row in rows]
                inputs, _ = task.collate(chosen, encoder.pad_id)
                output = task.forward(model, encoder.on_device(inputs), chosen)
                if not _is_finite(output):
                    raise _diverged("its outputs are")
                findings |= zip(rows, decode(output, chosen), strict=True)
            done(len(rows))
    every = ranks.pooled(findings)
    return [every[row] for row in range(len(examples))]


@contextmanager
def _stopping_together(ranks: Ranks) -> Iterator[None]:
    """Inside, what stops one rank stops all of them, at the end."""
    ranks.wanted = 0
    try:
        yield
    except StopRequested as stop:
        if ranks.size == 1:
            raise
        ranks.wanted = stop.signal
    ranks.meet()
    if ranks.agreed:
        raise StopRequested(Signals(ranks.agreed))


@dataclass(frozen=True)
class Sample:
    """The test records of a language as a bootstrap draws them.

    Attributes:
        statistics: [records, statistics], from which any resample can be scored.
        clusters: int64 [records]: the number of each record's cluster, from 0 in the order in which they are met;
            records of one cluster depend on each other (``Kind.origin``), so that they are drawn together.
    """

    statistics: NDArray[np.float64]
    clusters: NDArray[np.int64]


def by_class(
    corpus: Corpus, heads: HeadMap, statistics: Mapping[str, NDArray[np.float64]]
) -> dict[str, dict[str, ClassScores]]:
    """The scores of each label on all seen and on all unseen languages; empty for kinds of task without labels.

    Tasks with heads of their own do not share labels: each stands under its own name.

    Args:
        statistics: language -> [records, statistics].
    """
    groups: dict[str, list[str]] = {}
    for language in statistics:
        side = "seen" if language in corpus.train else "unseen"
        groups.setdefault(language if language in heads.own else side, []).append(language)
    rows = {group: np.concatenate([statistics[code] for code in codes]) for group, codes in groups.items()}
    tables = {group: heads.task(groups[group][0]).by_class(own) for group, own in rows.items()}
    return {group: scores for group, scores in tables.items() if scores}


def _is_finite(output: Any) -> bool:
    """Whether all fractions in a model's output are: those of its logits, or none where it is token ids."""
    parts = output.values() if isinstance(output, Mapping) else [output]
    return all(bool(part.isfinite().all()) for part in parts if isinstance(part, Tensor) and part.is_floating_point())


def _diverged(what: str) -> DivergedError:
    advice = "train anew with a lower learning_rate, or other data"
    return DivergedError(f"the model has diverged: {what} not finite; {advice}")


def token_batches(sizes: NDArray[np.int64], tokens: int = TOKENS) -> Iterable[list[int]]:
    """Rows sorted by size, cut where a batch would pass so many tokens with its padding."""
    batch: list[int] = []
    for row in np.argsort(sizes, kind="stable").tolist():
        if batch and (len(batch) + 1) * sizes[row] > tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def write_predictions(path: Path, heads: HeadMap, split: Encoded, evaluation: Evaluation) -> None:
    """One JSON object a line: language, record (without its image), prediction, statistics, how a report shows it."""
    with path.open("w", encoding="utf-8") as file:
        for language, own in evaluation.predictions.items():
            rows = zip(split.records[language], own, evaluation.statistics[language].tolist(), strict=True)
            for record, prediction, statistics in rows:
                plain = {key: value for key, value in record.items() if not isinstance(value, np.ndarray)}
                shown = heads.task(language).shown(record, prediction).cut()
                file.write(prediction_line(Prediction(language, plain, prediction, statistics, shown)))


def read_statistics(folder: Path) -> dict[str, NDArray[np.float64]]:
    """Language -> [records, statistics] of a run folder's predictions; NaN for what is not finite.

    Raises:
        UserError: as ``read_predictions`` does.
    """
    rows: dict[str, list[list[float | None]]] = {}
    for row in read_predictions(folder):
        rows.setdefault(row.language, []).append(row.statistics)
    return {language: np.array(statistics, dtype=np.float64) for language, statistics in rows.items()}


def read_samples(folder: Path, heads: HeadMap) -> dict[str, Sample]:
    """Language -> its test records in a run folder's predictions, as a bootstrap draws them.

    Raises:
        UserError: as ``read_predictions`` does.
    """
    rows: dict[str, list[list[float | None]]] = {}
    origins: dict[str, list[int]] = {}
    for number, row in enumerate(read_predictions(folder), 1):
        origin = heads.task(row.language).origin(row.record)
        rows.setdefault(row.language, []).append(row.statistics)
        origins.setdefault(row.language, []).append(-number if origin is None else number_of(origin))
    return {
        language: Sample(np.array(statistics, dtype=np.float64), _numbered(origins[language]))
        for language, statistics in rows.items()
    }


def _numbered(origins: Sequence[int]) -> NDArray[np.int64]:
    """A number for each, equal ones alike, from 0 in the order in which they are met."""
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(origin, len(numbers)) for origin in origins], dtype=np.int64)
