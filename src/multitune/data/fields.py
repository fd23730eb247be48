"""The fields of a record, checked: what is missing, blank, of another type or no Unicode text is a bad record."""

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any

from multitune.data import tag_schemes
from multitune.data.bad import BadRecord
from multitune.data.corpus import Record
from multitune.errors import kind_of_value

SEPARATOR = "|"
"""Stands between the labels of a record in files that have no lists."""
NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


PRINTED = re.compile(r"""\[(['"]).*\1\]""", re.DOTALL)
"""A list of texts as Python prints it, which is what pandas writes into a CSV file."""


def text(value: Any, name: str) -> str:
    """A text that is not blank and can be written as UTF-8 (JSON may hold half a surrogate pair)."""
    if not isinstance(value, str):
        raise BadRecord(f"{name} is {_type(value)}; it must be text")
    if not value.strip():
        raise BadRecord(f"{name} is blank")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRecord(f"{name} holds half of a surrogate pair at {error.start}, which is no character") from error
    return value


def label(value: Any, name: str) -> str:
    """A label: text, or a whole number or truth value as text."""
    if isinstance(value, float):
        whole = f", such as {value:.0f} (programs write {value} where a value is missing)" if value.is_integer() else ""
        raise BadRecord(f"{name} is {value}; it must be text or a whole number{whole}")
    _check_no_printed_list(value, name)
    return str(value) if isinstance(value, int) else text(value, name)


def labels(value: Any, name: str) -> list[str]:
    """A list of different labels, or one text with ``SEPARATOR`` between them; an empty one is a record without any."""
    _check_no_printed_list(value, name)
    split = [part.strip() for part in value.split(SEPARATOR)] if isinstance(value, str) and value.strip() else value
    split = [] if isinstance(split, str) else split
    if not isinstance(split, list):
        raise BadRecord(f"{name} is {_type(value)}; it must be a list of labels, or a text with {SEPARATOR} between")
    good = [label(each, f"{name}[{index}]") for index, each in enumerate(split)]
    if len(set(good)) < len(good):
        twice = next(each for index, each in enumerate(good) if each in good[:index])
        raise BadRecord(f"{name} has {twice!r} twice; each label stands once")
    return good


def _check_no_printed_list(value: Any, name: str) -> None:
    """Raise ``BadRecord`` for a list that a program has printed into a file without lists."""
    if isinstance(value, str) and PRINTED.fullmatch(value.strip()) is not None:
        raise BadRecord(f"{name} is a list as Python prints it, {_short(value)}; JSON Lines and Parquet have lists")


def score(value: Any, name: str) -> float:
    """A finite number, or text that is one."""
    try:
        number = float(value) if _is_number(value) else math.nan
    except OverflowError:
        number = math.nan
    if not math.isfinite(number):
        raise BadRecord(f"{name} is {value!r}; it must be a finite number")
    return number


def _is_number(value: Any) -> bool:
    """Whether a value is a number, or text that every program reads as one (Python's float takes 1_000 and ٣ too)."""
    if isinstance(value, str):
        return NUMBER.fullmatch(value.strip()) is not None
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def words(value: Any, name: str) -> list[str]:
    """A list of texts, or one text with spaces between them."""
    _check_no_printed_list(value, name)
    split = value.split(" ") if isinstance(value, str) else value
    if not isinstance(split, list):
        raise BadRecord(f"{name} is {_type(value)}; it must be a list of texts, or a text with single spaces between")
    if not split:
        raise BadRecord(f"{name} is empty; a sentence has at least one token")
    return [_word(word, f"{name}[{index}]") for index, word in enumerate(split)]


def tags(value: Any, name: str) -> list[str]:
    """A list of tags, or one text with spaces between them; whole numbers are taken as text."""
    if isinstance(value, list):
        value = [str(tag) if isinstance(tag, int) and not isinstance(tag, bool) else tag for tag in value]
    return words(value, name)


def _word(value: Any, name: str) -> str:
    """A token or tag: more than spaces and tabs, though it may look blank, as a no-break space does."""
    return value if isinstance(value, str) and value.isspace() and value.strip(" \t\r\n") else text(value, name)


def answers(value: Any, name: str) -> dict[str, list[Any]]:
    """``{"text": [...], "answer_start": [...]}``, both of one length; empty where there is no answer."""
    texts, starts = (value.get("text"), value.get("answer_start")) if isinstance(value, dict) else (None, None)
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        raise BadRecord(f"{name} must be {{'text': [...], 'answer_start': [...]}} with lists of one length")
    for start in starts:
        if not isinstance(start, int) or isinstance(start, bool) or start < 0:
            raise BadRecord(f"answer_start is {start!r}; it must count the characters before the answer")
    return {"text": [text(answer, "an answer's text") for answer in texts], "answer_start": starts}


def check_spans(record: Record) -> None:
    """Raise ``BadRecord`` where an answer is not in the context at its offset (in characters, not bytes)."""
    context = record["context"]
    for answer, start in zip(*record["answers"].values(), strict=True):
        there = context[start : start + len(answer)]
        if there != answer:
            raise BadRecord(
                f"answer {_short(answer)} is not at its offset {start}, where the context has {_short(there)}"
                f"{_counted_otherwise(context, answer, start)}"
            )


def _counted_otherwise(context: str, answer: str, start: int) -> str:
    """A hint where an offset counts what texts consist of in other programming languages; empty elsewhere."""
    for units, encoding, size in (("bytes of UTF-8", "utf-8", 1), ("units of UTF-16", "utf-16-le", 2)):
        if context.encode(encoding)[size * start :].startswith(answer.encode(encoding)):
            return f"; it is there in {units}, and offsets count characters"
    return ""


def check_tags(record: Record) -> None:
    """Raise ``BadRecord`` where tokens and tags differ in number."""
    if len(record["tokens"]) != len(record["tags"]):
        raise BadRecord(f"{len(record['tokens'])} tokens, but {len(record['tags'])} tags")


def _check_entities(record: Record) -> None:
    check_tags(record)
    tag_schemes.check_iob2(record["tags"])


def _accept(record: Record) -> None:
    """What the fields' own checks pass is good."""


Check = Callable[[Any, str], Any]
"""Turns a value into that of a field, or raises ``BadRecord``, whose message begins with its second argument."""


@dataclass(frozen=True)
class Fields:
    """The fields of a record.

    Attributes:
        required: field -> its check.
        optional: the same of fields that a record may lack.
        check: looks at the record as a whole, and raises ``BadRecord``.
        renamed: field -> what it is called in the record.
        shapes: where a record has one of several sets of fields, these; all of them are then optional.
    """

    required: Mapping[str, Check]
    optional: Mapping[str, Check] = field(default_factory=dict)
    check: Callable[[Record], None] = _accept
    renamed: Mapping[str, str] = field(default_factory=dict)
    shapes: tuple[tuple[str, ...], ...] = ()

    @cached_property
    def checks(self) -> Mapping[str, Check]:
        """The check of every field."""
        return {**self.required, **self.optional}

    def fit(self, names: Collection[str]) -> bool:
        """Whether a record may have just these fields."""
        if self.shapes:
            return set(names) in map(set, self.shapes)
        return self.required.keys() <= set(names) <= self.checks.keys()

    def lists(self, without: Collection[str] = ()) -> list[tuple[str, ...]]:
        """The lists of fields, one of which a record has, each without some."""
        return [
            tuple(name for name in names if name not in without) for names in self.shapes or (tuple(self.required),)
        ]

    def record(self, values: Mapping[str, Any]) -> Record:
        """A record from a line's values by field.

        Raises:
            BadRecord: a value or the record is not as it should be.
        """
        record = {self.renamed.get(name, name): self.checks[name](value, name) for name, value in values.items()}
        self.check(record)
        return record


PAIR = {"text_pair": text}
TEXT = Fields({"text": text})
LABELLED_TEXT = Fields({"text": text, "label": label}, PAIR)
MULTI_LABELLED_TEXT = Fields({"text": text, "labels": labels}, PAIR)
RANKED_TEXT = Fields({"text": text, "positive": text})
SCORED_TEXT = Fields({"text": text, "score": score}, PAIR, renamed={"score": "label"})
ENTITIES = Fields({"tokens": words, "tags": tags}, check=_check_entities)
PARTS_OF_SPEECH = Fields({"tokens": words, "pos": tags}, check=check_tags, renamed={"pos": "tags"})
TRANSLATION = Fields({"source": text, "target": text}, {"target_language": text, "source_language": text})
QUESTION = Fields({"context": text, "question": text, "answers": answers}, {"id": label}, check_spans)

ALL = (
    *(LABELLED_TEXT, MULTI_LABELLED_TEXT, SCORED_TEXT, RANKED_TEXT),
    *(ENTITIES, PARTS_OF_SPEECH, TRANSLATION, QUESTION, TEXT),
)
"""The fields of the records that readers yield."""


def _type(value: Any) -> str:
    return "missing" if value is None else kind_of_value(value)


def _short(value: str) -> str:
    return repr(value if len(value) <= 40 else f"{value[:40]}…")
