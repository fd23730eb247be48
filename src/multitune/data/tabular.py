"""A user's own tables: JSONL, CSV, TSV, CoNLL, Parquet or Arrow by their ending, with columns that the user names."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from multitune.data import arrow, conll, conllu, jsonl, parquet, separated
from multitune.data.bad import BadRecords, parsed, records
from multitune.data.chat import COMPLETION, MESSAGES
from multitune.data.corpus import Place, Placed, Record
from multitune.data.fields import ALL, Fields
from multitune.errors import UserError

COLUMNS = {"text": "text", "label": "label"}

Rows = Callable[[Path, Mapping[str, str], BadRecords | None], Iterator[tuple[Place, Mapping[str, Any]]]]
"""Reads a file's rows, each with its place, as values by field; takes field -> column, and what takes bad rows."""

READERS: dict[str, Rows] = {
    ".jsonl": jsonl.rows,
    ".csv": separated.rows,
    ".tsv": separated.rows,
    ".conll": conll.rows,
    ".conllu": conllu.rows,
    ".parquet": parquet.rows,
    **dict.fromkeys(arrow.SUFFIXES, arrow.rows),
}
"""The ending of a file's name -> its reader, which is also given files that end in ``.gz`` beside that; not where it is
one of ``PACKED``."""

OBJECTS: dict[str, Callable[[Path, BadRecords | None], Iterator[Mapping[str, Any]]]] = {
    ".jsonl": jsonl.objects,
    ".csv": separated.objects,
    ".tsv": separated.objects,
    ".parquet": parquet.objects,
    **dict.fromkeys(arrow.SUFFIXES, arrow.objects),
}
"""The same of files that name their columns -> what reads their rows with all of these."""


PACKED = (".parquet", *arrow.SUFFIXES)
"""Files that are not read from front to back, and so not gzipped."""


def read(
    path: str | Path,
    bad: BadRecords | None = None,
    *,
    columns: Mapping[str, str] = COLUMNS,
    fields: Fields | None = None,
) -> Iterator[Record]:
    """Yield the records of a file.

    ``text``, ``label`` (and ``text_pair``): classification; ``text``, ``labels`` (and ``text_pair``): several labels,
    with ``|`` between them in CSV and TSV; ``text``, ``score`` (and ``text_pair``): regression; ``text``, ``positive``:
    ranking;
    ``tokens``, ``tags`` (IOB2): tagging; ``tokens``, ``pos``: part of speech; ``source``, ``target`` (and
    ``target_language``, ``source_language``): translation; ``context``, ``question``, ``answers`` (and ``id``):
    question answering; ``messages`` (lists of ``{"role", "content"}``, so JSONL alone), or ``prompt`` and
    ``completion``: chat; ``text``: texts alone. Tokens and tags are lists in JSONL, and have single spaces between in
    CSV and TSV; in CoNLL they are columns called ``token`` and ``tag``, in CoNLL-U ``form``, ``upos`` and others.
    Answers are ``{"text": [...], "answer_start": [...]}``, so JSONL alone.

    Args:
        path: a UTF-8 file, plain or gzipped, or a Parquet or Arrow file, whose name ends in one of ``suffixes()``.
        bad: takes the bad records; None raises at the first.
        columns: field -> column (CSV and TSV have a header) or key.
        fields: of the records; None takes those of ``multitune.data.fields`` that ``columns`` names.

    Raises:
        UserError: fields of no kind of record, another ending; or naming file and line: a missing column, a bad value.
    """
    known = (*ALL, MESSAGES, COMPLETION)
    fields = fields or next((each for each in known if each.fit(columns)), None)
    if fields is None:
        raise UserError(no_such_fields(columns, [", ".join(each.required) for each in known]))
    return records(placed(path, bad, fields=fields, columns=columns))


def placed(
    path: str | Path, bad: BadRecords | None = None, *, fields: Fields, columns: Mapping[str, str]
) -> Iterator[Placed]:
    """Yield what ``read`` does, each with its place."""
    return parsed(rows(Path(path), columns, bad), fields.record, bad)


def rows(path: Path, columns: Mapping[str, str], bad: BadRecords | None) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """The rows of a file as values by field, each with its place, not yet checked.

    Raises:
        UserError: as ``read`` does, but for values.
    """
    suffix = suffix_of(path)
    if suffix not in READERS:
        raise UserError(f"{path}: the name of a table ends in one of {', '.join(suffixes())}")
    return READERS[suffix](path, columns, bad)


def suffix_of(path: Path) -> str:
    """The ending of a file's name in small letters, without that of gzip."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def stem_of(path: Path) -> str:
    """The name of a file without what says its format."""
    return Path(path.name.removesuffix(".gz")).stem


def suffixes() -> tuple[str, ...]:
    """The endings of the names of files that can be read."""
    return (*READERS, *(f"{suffix}.gz" for suffix in READERS if suffix not in PACKED))


def no_such_fields(columns: Mapping[str, str], allowed: list[str]) -> str:
    """What to say of columns that no kind of record has."""
    given = ", ".join(columns) or "(none)"
    return f"columns: no kind of task has the fields {given}; allowed: {'; '.join(allowed)}"
