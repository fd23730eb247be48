"""What the columns of a table are taken for: by name, by content, and where neither can tell."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from multitune.data.sets.recognised import Columns, Table, columns_of
from multitune.errors import UserError
from multitune.recipe_files import parse_overrides

CODES = ("de", "fr", "sw", "zh-Hans", "pt_BR")


def rows(*names: str, count: int = 60) -> list[dict[str, Any]]:
    """Rows with the columns ``names``; what stands in one follows from the word before a colon in its name."""
    return [{name.rpartition(":")[2]: value(name.partition(":")[0], n) for name in names} for n in range(count)]


def value(kind: str, n: int) -> Any:
    values: dict[str, Any] = {
        "few": ("good", "bad", "fair")[n % 3],
        "number": n % 5,
        "share": n / 7,
        "all": n,
        "code": CODES[n % 5],
        "one": CODES[0],
        "short": f"title {n}",
        "key": f"0d0bd1c4-921a-3d1c-5408-ebd5e17425e7-ebd5e17425e7-{n:08}",
        "address": f"https://example.org/reviews/2023/a-name-as-long-as-a-text/{n}",
        "time": f"2023-01-01 12:00:00.000000000000000000000000000000 +{n:02}",
        "chinese": "这是一个评论" * 5,
        "part": ("train", "Validation", "test")[n % 3],
        "some": ("train", "Validation", "")[n % 3],
        "answer": ("no", "si")[n % 2],
        "list": [each for k, each in enumerate(("war", "art", "sport")) if n >> k & 1],
        "parts": "|".join(each for k, each in enumerate(("war", "art", "sport")) if n >> k & 1),
    }
    return values.get(kind, f"a long text, which has {n} words, or nearly as many")


FOUND: dict[str, tuple[Sequence[str], Columns]] = {
    "as fields are called": (("text", "few:label"), {"text": "text", "label": "label"}),
    "as columns are often called": (
        ("all:id", "few:lang", "Review", "number:Stars"),
        {"language": "lang", "text": "Review", "label": "Stars"},
    ),
    "by content alone": (("code:a", "long:b", "few:c"), {"language": "a", "text": "b", "label": "c"}),
    "whole numbers": (("long:b", "number:c", "all:d"), {"text": "b", "label": "c"}),
    "the longest text": (("short:headline", "long:story", "few:kind"), {"text": "story", "label": "kind"}),
    "keys, addresses and times are no texts": (
        ("key:a", "address:b", "time:c", "long:d", "few:e"),
        {"text": "d", "label": "e"},
    ),
    "texts without blanks": (("key:a", "chinese:b", "few:c"), {"text": "b", "label": "c"}),
    "words alone": (("key:a", "few:b"), {"text": "a", "label": "b"}),
    "a name before content": (("long:a", "few:b", "few:label"), {"text": "a", "label": "label"}),
    "the field's own name first": (("text", "review", "few:label"), {"text": "text", "label": "label"}),
    "two texts": (
        ("premise", "hypothesis", "few:label"),
        {"text": "premise", "text_pair": "hypothesis", "label": "label"},
    ),
    "a score": (
        ("sentence1", "sentence2", "share:score"),
        {"text": "sentence1", "text_pair": "sentence2", "score": "score"},
    ),
    "two texts by letters": (
        ("sentence_A", "sentence_B", "share:similarity", "few:origin"),
        {"text": "sentence_A", "text_pair": "sentence_B", "score": "similarity"},
    ),
    "entities": (("tokens", "few:ner_tags", "all:id"), {"tokens": "tokens", "tags": "ner_tags"}),
    "parts of speech": (("words", "upos"), {"tokens": "words", "pos": "upos"}),
    "translation": (
        ("source", "target", "code:target_lang"),
        {"source": "source", "target": "target", "target_language": "target_lang"},
    ),
    "questions": (
        ("all:id", "context", "question", "answers"),
        {"context": "context", "question": "question", "answers": "answers", "id": "id"},
    ),
    "a text to find": (("query", "positive"), {"text": "query", "positive": "positive"}),
    "lists of labels": (("text", "list:labels"), {"text": "text", "labels": "labels"}),
    "labels with a separator": (("text", "parts:topic"), {"text": "text", "labels": "topic"}),
    "lists by content": (("text", "list:x", "all:id"), {"text": "text", "labels": "x"}),
    "labels with a separator by content": (("text", "parts:x"), {"text": "text", "labels": "x"}),
    "one label under a name of several": (("text", "few:labels"), {"text": "text", "label": "labels"}),
    "texts alone": (("code:lang", "text"), {"language": "lang", "text": "text"}),
    "splits are no labels": (("text", "few:split", "few:kind"), {"text": "text", "label": "kind"}),
    "splits by content": (("text", "part:phase", "few:kind"), {"text": "text", "label": "kind"}),
    "splits by name and content": (
        ("part:Subset", "text", "code:lang", "few:kind"),
        {"language": "lang", "text": "text", "label": "kind", "split": "Subset"},
    ),
    "splits of texts alone": (("text", "part:set"), {"text": "text", "split": "set"}),
    "splits in two columns": (("text", "part:set", "part:split", "few:kind"), {"text": "text", "label": "kind"}),
    "a split that is missing": (("text", "some:split", "few:kind"), {"text": "text", "label": "kind"}),
    "splits under a label's name": (("text", "part:label"), {"text": "text", "label": "label"}),
    "the index of pandas": (("number:__index_level_0__", "text", "few:kind"), {"text": "text", "label": "kind"}),
    "yes and no in Spanish": (("long:a", "answer:b"), {"text": "a", "label": "b"}),
    "one language alone needs no column": (("one:a", "text", "few:kind"), {"text": "text", "label": "kind"}),
}


@pytest.mark.parametrize(("names", "columns"), FOUND.values(), ids=FOUND)
def test_columns_are_recognised(names: Sequence[str], columns: Columns) -> None:
    assert columns_of(Table("t.csv", rows(*names)), {}) == columns


def test_a_file_of_one_language_needs_no_column_for_it() -> None:
    table = Table("de.csv", rows("code:lang", "text", "few:label"), by_file=True)
    assert columns_of(table, {}) == {"text": "text", "label": "label"}


def test_files_of_splits_need_no_column_for_them() -> None:
    table = Table("train.csv", rows("text", "few:label", "part:split"), by_split=True)
    assert columns_of(table, {}) == {"text": "text", "label": "label"}


def test_a_row_without_a_key_changes_no_column() -> None:
    made = rows("text", "few:label", "number:source")
    del made[7]["label"]
    assert columns_of(Table("t.jsonl", made), {}) == {"text": "text", "label": "label"}


TIES: dict[str, tuple[Sequence[str], tuple[str, ...]]] = {
    "two labels": (("text", "few:mood", "number:year"), ("{text: text, label: mood}", "{text: text, label: year}")),
    "two texts": (("long:a", "long:b", "few:label"), ("{text: a, label: label}", "{text: b, label: label}")),
    "two names": (("review", "comment", "few:label"), ("{text: review, label: label}", "{text: comment, ")),
    "two languages": (("code:a", "code:b", "text", "few:label"), ("{language: a, ", "{language: b, ")),
    "codes that may be labels": (("long:a", "code:b"), ("{language: b, text: a}", "{text: a, label: b}")),
    "splits are nothing to learn": (("text", "part:phase"), ("columns: text, phase", "label: phase")),
    "two kinds": (("source", "target", "text", "few:label"), ("{source: source, target: target}", "{text: text, ")),
    "three labels": (("text", "few:x", "few:y", "few:z"), ("label: x", "label: y", "or 1 more")),
    "nothing to learn": (("all:id", "text"), ("columns: id, text", "label: text")),
}


@pytest.mark.parametrize(("names", "said"), TIES.values(), ids=TIES)
def test_what_cannot_be_told_is_shown_both_ways(names: Sequence[str], said: Sequence[str]) -> None:
    with pytest.raises(UserError, match=r"t\.csv") as error:
        columns_of(Table("t.csv", rows(*names)), {})
    assert all(each in str(error.value) for each in said), str(error.value)


SAID: dict[str, tuple[Sequence[str], Mapping[str, str], Columns]] = {
    "one of two labels": (("text", "few:mood", "number:year"), {"label": "year"}, {"text": "text", "label": "year"}),
    "one of two texts": (("long:a", "long:b", "few:label"), {"text": "b"}, {"text": "b", "label": "label"}),
    "all": (
        ("code:lang", "long:a", "few:b", "few:c"),
        {"language": "lang", "text": "a", "label": "c"},
        {"language": "lang", "text": "a", "label": "c"},
    ),
    "the split": (
        ("text", "part:phase", "part:set", "few:label"),
        {"split": "phase"},
        {"text": "text", "label": "label", "split": "phase"},
    ),
    "a label of splits": (("text", "part:set"), {"label": "set"}, {"text": "text", "label": "set"}),
    "another kind": (("source", "target", "text", "few:label"), {"text": "text"}, {"text": "text", "label": "label"}),
}


LACKING: dict[str, tuple[Sequence[str], str]] = {
    "answers": (
        ("context", "question", "long:answer", "all:start"),
        'has context and question, but no answers, which are {"text": [...], "answer_start": [...]}; if a column holds '
        "them, say 'columns={context: context, question: question, answers: COLUMN}'",
    ),
    "the tags of tokens": (("words", "all:id"), "has words, but no tags, which are one a token"),
    "translations": (("src", "all:id"), "has src, but no target; if"),
}


@pytest.mark.parametrize(("names", "said"), LACKING.values(), ids=LACKING)
def test_what_lacks_of_a_kind_is_told(names: Sequence[str], said: str) -> None:
    with pytest.raises(UserError) as error:
        columns_of(Table("t.jsonl", rows(*names)), {})
    assert said in str(error.value)


@pytest.mark.parametrize(("names", "given", "columns"), SAID.values(), ids=SAID)
def test_what_the_user_says_is_so(names: Sequence[str], given: Mapping[str, str], columns: Columns) -> None:
    assert columns_of(Table("t.csv", rows(*names)), given) == columns


def test_what_an_error_tells_to_add_settles_it() -> None:
    table = Table("t.csv", rows("text", "few:a, b", "few:c"))
    with pytest.raises(UserError) as error:
        columns_of(table, {})
    word, *_ = shlex.split(str(error.value).partition("; add ")[2])
    assert columns_of(table, parse_overrides([word])["columns"]) == {"text": "text", "label": "a, b"}
