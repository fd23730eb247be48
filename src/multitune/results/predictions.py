"""What a run's model says of each test record: predictions.jsonl."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multitune.results.json_files import as_line, plain, read_lines, typed
from multitune.results.shown import Shown

FILE = "predictions.jsonl"
SCHEMA = 1


@dataclass(frozen=True)
class Prediction:
    """A test record and what the shipped model says of it; a number that is not finite is null.

    Attributes:
        language: of the record.
        record: as the reader of the data gave it, without its image.
        prediction: what the kind of task predicts: a label, tags, an answer, a number, ...
        statistics: what the scores are computed from; those of any resample of records, too.
        shown: how the report shows the record and its prediction; runs of version 0.1 have not written it.
    """

    language: str
    record: dict[str, Any]
    prediction: Any
    statistics: list[float | None]
    shown: Shown | None = None


def prediction_line(prediction: Prediction) -> str:
    """A prediction as a line of the file."""
    return as_line({"schema": SCHEMA} | plain(prediction))


def read_predictions(folder: Path) -> Iterator[Prediction]:
    """The predictions of a run folder's file, language by language, in the order of the test records.

    Raises:
        UserError: there is none, or a line of it is damaged or of another schema.
    """
    for where, content in read_lines(folder / FILE):
        yield typed(content, Prediction, SCHEMA, where)
