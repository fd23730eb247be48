"""A user's own tables: JSONL, CSV, TSV or CoNLL-U by the file's ending, with the columns that the user names."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from multitune.data import conllu, fields, jsonl, separated
from multitune.data.bad import BadRecords, records, sifted
from multitune.data.records.corpus import Place, Placed, Record
from multitune.errors import UserError

PLAIN = (".jsonl", ".csv", ".tsv", ".conllu")
SUFFIXES = (*PLAIN, *(f"{suffix}.gz" for suffix in PLAIN))
COLUMNS = {"text": "text", "label": "label"}


def read(path: str | Path, bad: BadRecords | None = None, *, columns: Mapping[str, str] = COLUMNS) -> Iterator[Record]:
    """Yield the records of a file; the fields named in ``columns`` tell their kind.

    ``text``, ``label`` (and ``text_pair``): classification; ``text``, ``score`` (and ``text_pair``): regression;
    ``tokens``, ``tags`` (IOB2): tagging; ``tokens``, ``pos``: part of speech; ``source``, ``target``: translation;
    ``context``, ``question``, ``answers`` (and ``id``): question answering. Tokens and tags are lists in JSONL, and
    have single spaces between in CSV and TSV; in CoNLL-U they are columns such as ``form`` and ``upos``. Answers are
    ``{"text": [...], "answer_start": [...]}``, so JSONL alone.

    Args:
        path: a UTF-8 file, plain or gzipped, whose name ends in one of ``SUFFIXES``.
        bad: takes the bad records; None raises at the first.
        columns: field -> column (CSV and TSV have a header) or key.

    Raises:
        UserError: fields of no kind of task; or naming file and line: a missing column, a bad value.
    """
    return records(placed(path, bad, kind=kind(columns), columns=columns))


def placed(
    path: str | Path, bad: BadRecords | None = None, *, kind: fields.Kind, columns: Mapping[str, str]
) -> Iterator[Placed]:
    """As ``read``, each with its place."""
    suffixes = Path(path).suffixes
    rows: Iterator[tuple[Place, Mapping[str, Any]]]
    if ".jsonl" in suffixes:
        rows = jsonl.rows(path, columns, bad)
    elif ".conllu" in suffixes:
        rows = conllu.rows(path, columns, bad)
    else:
        rows = separated.rows(path, columns, bad)
    return sifted(rows, kind.record, bad)


def kind(columns: Mapping[str, str]) -> fields.Kind:
    """The kind of task that has these fields.

    Raises:
        UserError: there is none.
    """
    found = fields.kind_of(list(columns))
    if found is None:
        allowed = "; ".join(f"{', '.join(kind.required)} ({kind.task})" for kind in fields.KINDS)
        raise UserError(f"columns: no kind of task has the fields {', '.join(columns) or '(none)'}; allowed: {allowed}")
    return found
