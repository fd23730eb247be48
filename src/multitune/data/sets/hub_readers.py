"""How the rows of the Hub's data sets become records: the same records that the readers of files make."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from multitune.data import conll, fields, images, parquet, squad
from multitune.data.bad import BadRecords
from multitune.data.corpus import Placed, Record
from multitune.data.fields import Fields
from multitune.data.sets.folders import Reader
from multitune.data.sets.sources import TYDIQA_LANGUAGES, with_mlqa_language

log = logging.getLogger(__name__)

ENTITY_COLUMNS = {"tokens": "tokens", "tags": "ner_tags"}
QUESTION_COLUMNS = {name: name for name in ("id", "context", "question", "answers")}

HALF = 100
"""Classes of each half of Tiny ImageNet."""


def table(fields: Fields, columns: Mapping[str, str], *, numbered: bool = False) -> Reader:
    """Rows whose columns hold the fields of a record; ``numbered``: classes are called by their numbers."""
    return lambda paths, code, bad: parquet.placed(paths, columns, fields.record, bad, numbered=numbered)


entities = table(fields.ENTITIES, ENTITY_COLUMNS)


any_tags = table(replace(fields.ENTITIES, check=fields.check_tags), ENTITY_COLUMNS)


def entities_unseen(paths: Sequence[Path], code: str, bad: BadRecords) -> Iterator[Placed]:
    """Entities of languages that are not trained on: I- tags may open one, which a warning counts."""
    scheme = conll.OneScheme()

    def check(record: Record) -> None:
        fields.check_tags(record)
        scheme.check(record["tags"])

    return conll.lenient(parquet.placed(paths, ENTITY_COLUMNS, replace(fields.ENTITIES, check=check).record, bad))


def questions(
    paths: Sequence[Path],
    code: str,
    bad: BadRecords,
    *,
    where: Callable[[Mapping[str, Any]], bool] = lambda values: True,
) -> Iterator[Placed]:
    """Questions; a warning counts those whose answers are moved to where the context has them."""
    unchecked, moved = replace(fields.QUESTION, check=lambda record: None), 0

    def parse(values: Mapping[str, Any]) -> Record:
        nonlocal moved
        as_published = unchecked.record(values)
        record = squad.realigned(as_published)
        fields.check_spans(record)
        moved += record is not as_published
        return record

    yield from parquet.placed(paths, QUESTION_COLUMNS, parse, bad, where=where)
    if moved:
        log.warning("%s: answers of %d questions of %s moved to where they are", parquet.shown(paths[0]), moved, code)


def tydiqa(paths: Sequence[Path], code: str, bad: BadRecords) -> Iterator[Placed]:
    """One file holds all languages; a question's id begins with its language's name."""
    (name,) = (name for name, known in TYDIQA_LANGUAGES.items() if known == code)
    return questions(paths, code, bad, where=lambda values: str(values["id"]).startswith(f"{name}-"))


def mlqa(paths: Sequence[Path], code: str, bad: BadRecords) -> Iterator[Placed]:
    return with_mlqa_language(questions(paths, code, bad), code)


def from_english(paths: Sequence[Path], code: str, bad: BadRecords) -> Iterator[Placed]:
    """OPUS-100's pairs: one model translates into several languages, so each record says which."""
    columns = {"source": "translation.en", "target": f"translation.{code}"}
    placed = parquet.placed(paths, columns, fields.TRANSLATION.record, bad)
    return ((place, record | {"target_language": code}) for place, record in placed)


def lines(paths: Sequence[Path], code: str, bad: BadRecords) -> Iterator[Placed]:
    """CC-100's lines; blank ones stand between documents and are no texts."""

    def has_text(values: Mapping[str, Any]) -> bool:
        return str(values["text"]).strip() != ""

    return parquet.placed(paths, {"text": "text"}, fields.TEXT.record, bad, where=has_text)


def pictures(image: str = "image", label: str = "label", half: int | None = None) -> Reader:
    """Images by the names of their columns; ``half`` (0, 1) takes that half of Tiny ImageNet's classes."""

    def wanted(values: Mapping[str, Any]) -> bool:
        return half is None or not isinstance(values["label"], int) or values["label"] // HALF == half

    columns = {"image": f"{image}.bytes", "label": label}
    return lambda paths, code, bad: parquet.placed(paths, columns, images.labelled, bad, where=wanted)
