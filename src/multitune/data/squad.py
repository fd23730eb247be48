"""SQuAD's JSON: articles, their paragraphs, the questions on each. SQuAD 1 and 2, TyDiQA-GoldP, XQuAD, MLQA."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from multitune.data import fields, lines
from multitune.data.bad import BadRecord, BadRecords, parsed, records, report
from multitune.data.corpus import Place, Placed, Record
from multitune.data.jsonl import keyed_once
from multitune.errors import kind_of_value

MOST_BLANKS = 16
"""That were cut off before a context: those of TyDiQA have up to 9."""

Raw = tuple[Any, dict[str, Any]]
"""A paragraph's context, and one of its questions."""


def read(path: str | Path, bad: BadRecords | None = None) -> Iterator[Record]:
    """Yield ``{"id", "context", "question", "answers": {"text": [...], "answer_start": [...]}}`` a question.

    Offsets count characters (code points). SQuAD 2's impossible questions have empty answers.

    Args:
        path: a UTF-8 file, plain or gzipped.
        bad: takes the bad questions; None raises at the first.

    Raises:
        UserError: naming file, line and question: no JSON, a key is missing, an answer is not at its offset.
    """
    return records(placed(path, bad))


def placed(path: str | Path, bad: BadRecords | None = None) -> Iterator[Placed]:
    """Yield what ``read`` does, each with its place: the line of its id."""
    return parsed(_questions(str(path), bad), _parse, bad)


def _questions(file: str, bad: BadRecords | None) -> Iterator[tuple[Place, Raw]]:
    source = lines.whole(file, bad)
    if source is None:
        return
    finder = _LineFinder(source)
    for n, article in enumerate(_members(_loaded(source, file, bad), "data", file, bad)):
        for m, paragraph in enumerate(_members(article, "paragraphs", f"{file}: data[{n}]", bad)):
            place = f"{file}: data[{n}].paragraphs[{m}]"
            for k, question in enumerate(_members(paragraph, "qas", place, bad)):
                if isinstance(question, dict):
                    yield Place(file, [finder.line(question.get("id"))]), (paragraph.get("context"), question)
                else:
                    report(bad, f"{place}.qas[{k}]", f"is {kind_of_value(question)}; it must be an object")


def _loaded(source: str, file: str, bad: BadRecords | None) -> Any:
    try:
        return json.loads(source, object_pairs_hook=keyed_once)
    except json.JSONDecodeError as error:
        report(bad, f"{file}:{error.lineno}", f"not JSON: {error.msg} (column {error.colno})")
    except RecursionError:
        report(bad, f"{file}:1", "JSON too deeply nested for SQuAD's format")
    except BadRecord as problem:  # a key twice
        report(bad, file, f"not JSON: {problem}")
    except ValueError as error:  # a number of more digits than Python converts
        report(bad, f"{file}:1", f"not JSON: {error}")
    return {"data": []}


def _members(node: Any, key: str, place: str, bad: BadRecords | None) -> list[Any]:
    members = node.get(key) if isinstance(node, dict) else None
    if isinstance(members, list):
        return members
    report(bad, place, f"has no list {key!r}; SQuAD's JSON is data[].paragraphs[].qas[]")
    return []


def _parse(raw: Raw) -> Record:
    context, question = raw
    try:
        record = {
            "id": fields.label(question.get("id"), "id"),
            "context": fields.text(context, "context"),
            "question": fields.text(question.get("question"), "question"),
            "answers": {"text": [], "answer_start": []}
            if question.get("is_impossible") is True
            else _answers(question),
        }
        fields.check_spans(record)
    except BadRecord as problem:
        raise BadRecord(f"question {question.get('id')!r}: {problem}") from problem
    return record


def realigned(record: Record) -> Record:
    """The record with its answers at their offsets, where blanks before its context or an answer were cut off.

    So they were in the Hub's copies of TyDiQA, XQuAD and MLQA, whose offsets count the blanks all the same. The record
    itself where nothing is to be done, or nothing helps.
    """
    context, (texts, starts) = record["context"], record["answers"].values()
    if all(map(context.startswith, texts, starts)):
        return record
    for cut in range(min(MOST_BLANKS, *starts) + 1):
        begins = [_first_ink(context, start - cut) for start in starts]
        if all(map(context.startswith, texts, begins)):
            return record | {"answers": {"text": texts, "answer_start": begins}}
    return record


def _first_ink(text: str, start: int) -> int:
    return start + len(text[start:]) - len(text[start:].lstrip())


def _answers(question: dict[str, Any]) -> dict[str, list[Any]]:
    answers = question.get("answers")
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        raise BadRecord("answers is missing, or is not a list of objects")
    columns = {key: [answer.get(key) for answer in answers] for key in ("text", "answer_start")}
    return fields.answers(columns, "answers")


class _LineFinder:
    """The lines of a JSON file's questions, which come in the order of the file: one pass over it in all."""

    def __init__(self, source: str) -> None:
        self._source, self._position, self._line = source, 0, 1
        self._spellings: list[Callable[[Any], str]] = [partial(json.dumps, ensure_ascii=False), json.dumps]

    def line(self, name: Any) -> int:
        """The line of the next occurrence of a string or number; the last line found where there is none.

        A spelling that a file does not keep to is given up: looking for each question to the file's end takes forever.
        """
        while self._spellings and isinstance(name, str | int):
            at = self._source.find(self._spellings[0](name), self._position)
            if at >= 0:
                self._line += self._source.count("\n", self._position, at)
                self._position = at
                break
            del self._spellings[0]
        return self._line
