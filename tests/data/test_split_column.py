"""A column that says the split of each row: alone, beside one for the language, in files of a language each."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from corpora import sizes
from multitune.data import sets
from multitune.data.bad import BadRecords
from multitune.data.corpus import Corpus
from multitune.errors import UserError
from multitune.recipe import Recipe
from multitune.tasks import TASKS
from multitune.training.loading import load_corpus

COLUMNS = {"text": "text", "label": "label", "split": "part"}
BY_LANGUAGE = COLUMNS | {"language": "lang"}
A_TENTH = "has no dev split: a tenth of train, chosen by hash, validates"


def table(**counts: Mapping[str, int]) -> str:
    """Rows by language (``counts``) and what they say of their split, each with a text of its own."""
    said = [(code, split, number) for code, of in counts.items() for split in of for number in range(of[split])]
    texts = (f"{code},{split},{code} {split} {number},{'ab'[number % 2]}\n" for code, split, number in said)
    return "lang,part,text,label\n" + "".join(texts)


def load(folder: Path, files: Mapping[str, str], bad: BadRecords | None = None, **options: Any) -> Corpus:
    for name, text in files.items():
        (folder / name).write_text(text)
    options = {"path": str(folder), "columns": COLUMNS} | options
    return sets.load("folder", BadRecords() if bad is None else bad, TASKS, **options)


def texts(records: Sequence[Mapping[str, Any]]) -> set[str]:
    return {record["text"] for record in records}


ALL = {"train": 30, "dev": 5, "test": 7}
FOUND: dict[str, tuple[dict[str, str], dict[str, Any], dict[str, list[int]], bool]] = {
    # files, options, sizes by language, whether test is dev
    "one file": ({"de.csv": table(de=ALL)}, {}, {"de": [30, 5, 7]}, False),
    "other names": (
        {"de.csv": table(de={"Training": 9, "train": 3, "VAL": 2, "valid": 1, " Validation ": 4, "Test": 6})},
        {},
        {"de": [12, 7, 6]},
        False,
    ),
    "without test": ({"de.csv": table(de={"train": 30, "dev": 5})}, {}, {"de": [30, 5, 5]}, True),
    "a language a file": (
        {"de.csv": table(de=ALL), "fi.csv": table(fi={"train": 9, "val": 3, "test": 2})},
        {},
        {"de": [30, 5, 7], "fi": [9, 3, 2]},
        False,
    ),
    "a language without rows of train": (
        {"de.csv": table(de=ALL), "fi.csv": table(fi={"dev": 3, "test": 2})},
        {},
        {"de": [30, 5, 7], "fi": [0, 0, 2]},
        False,
    ),
    "a column for the language": (
        {"a.csv": table(de=ALL, fi={"test": 2}, sw=ALL)},
        {"columns": BY_LANGUAGE},
        {"de": [30, 5, 7], "sw": [30, 5, 7], "fi": [0, 0, 2]},
        False,
    ),
    "an unseen language": (
        {"a.csv": table(de=ALL, sw=ALL)},
        {"columns": BY_LANGUAGE, "unseen": ["sw"]},
        {"de": [30, 5, 7], "sw": [0, 0, 7]},
        False,
    ),
    "nothing to train on": (
        {"a.csv": table(de={"test": 4}, sw=ALL)},
        {"columns": BY_LANGUAGE, "languages": ()},
        {"de": [0, 0, 4], "sw": [0, 0, 7]},
        False,
    ),
    "files that are called after splits": (
        {"train.csv": table(de={"train": 30, "test": 4}), "test.csv": table(de={"test": 3, "dev": 5})},
        {"columns": BY_LANGUAGE},
        {"de": [30, 5, 7]},
        False,
    ),
    "a score of a model": (
        {"a.csv": table(de={"test": 4, "train": 3})},
        {"columns": BY_LANGUAGE, "languages": ["de"], "test_only": True},
        {"de": [0, 0, 4]},
        False,
    ),
    "a score on files without the column": (
        {"test-de.csv": "text,label\nx,a\ny,b\n"},
        {"languages": ["de"], "test_only": True},
        {"de": [0, 0, 2]},
        False,
    ),
}


@pytest.mark.parametrize(("files", "options", "found", "test_is_dev"), FOUND.values(), ids=FOUND)
def test_rows_are_of_the_split_that_they_say(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    files: dict[str, str],
    options: dict[str, Any],
    found: dict[str, list[int]],
    test_is_dev: bool,
) -> None:
    bad = BadRecords()
    corpus = load(tmp_path, files, bad, **options)
    assert (sizes(corpus), corpus.test_is_dev, len(bad)) == (found, test_is_dev, 0)
    assert not caplog.messages


@pytest.mark.parametrize("columns", [COLUMNS, BY_LANGUAGE], ids=["no language", "a language"])
def test_without_rows_of_dev_a_tenth_of_train_validates(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, columns: dict[str, str]
) -> None:
    corpus = load(tmp_path, {"de.csv": table(de={"train": 200, "test": 9})}, columns=columns)
    train, dev, test = (texts(split["de"]) for split in (corpus.train, corpus.dev, corpus.test))
    assert test == {f"de test {number}" for number in range(9)}
    assert train | dev == {f"de train {number}" for number in range(200)}
    assert not train & dev
    assert 10 < len(dev) < 30
    assert caplog.text.count(A_TENTH) == 1


def test_rows_of_train_alone_are_divided_as_without_the_column(tmp_path: Path) -> None:
    files = {"de.csv": table(de={"train": 200})}
    said = load(tmp_path, files)
    plain = load(tmp_path, files, columns={"text": "text", "label": "label"})
    assert sizes(said) == sizes(plain)
    assert [texts(said.dev["de"]), texts(said.test["de"])] == [texts(plain.dev["de"]), texts(plain.test["de"])]


def test_what_says_no_split_is_a_bad_row(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": f"t{n}", "label": "ab"[n % 2], "part": ("train", "dev", "test")[n % 3]} for n in range(30)
    ]
    rows += [{"text": "x", "label": "a", "part": said} for said in ("holdout", "", None, 3)]
    (tmp_path / "de.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = Recipe(data="folder", path=str(tmp_path), columns=COLUMNS)
    allowed = "train, dev, validation, valid, val, test, training"
    with pytest.raises(UserError, match=rf"de\.jsonl:31: split is 'holdout'; it must be one of {allowed} \(3 more bad"):
        load_corpus(recipe)
    bad = BadRecords()
    load(tmp_path, {}, bad)
    assert [(place.rpartition(":")[2], problem) for place, problem in bad][1:] == [
        ("32", "split is blank"),
        ("33", "split is missing; it must be text"),
        ("34", "split is a whole number; it must be text"),
    ]
    assert load_corpus(recipe.model_copy(update={"skip_bad": True})).skipped == {"de": 4}


def test_a_column_of_languages_that_is_not_used_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(tmp_path, {"a.csv": table(de=ALL)})
    (told,) = caplog.messages
    assert told.endswith(
        "the column 'lang' is not used; columns: {language: lang} makes a language of each of its values"
    )


def test_copies_of_training_texts_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(tmp_path, {"de.csv": table(de=ALL) + "de,test,de train 3,a\nde,dev,de test 1,a\n"})
    (told,) = caplog.messages
    assert told.endswith("scores on them say little: test: de 1 of 8")


MISTAKES: dict[str, tuple[dict[str, str], dict[str, Any], str]] = {
    "no such column": ({"a.csv": "text,label\nx,a\n"}, {}, "a.csv:1: no column 'part' for split: the header has"),
    "no rows of train": (
        {"a.csv": table(de={"dev": 3, "test": 4})}, {}, "a.csv: no row says train .*which has dev and test"),
    "no rows of test in a language": (
        {"a.csv": table(de=ALL, fi={"train": 9, "dev": 2})},
        {"columns": BY_LANGUAGE},
        "languages: .*a.csv has no test row of 'fi'; there are some of: de",
    ),
    "an unseen language without rows of test": (
        {"a.csv": table(de=ALL, fi={"train": 9})},
        {"columns": BY_LANGUAGE, "languages": ["de"], "unseen": ["fi"]},
        "unseen: .*a.csv has no test row of 'fi'",
    ),
    "no table": ({"a.txt": ""}, {}, "has no table with a column for split"),
    "no folder": ({}, {"path": "nowhere"}, "path: nowhere has no table"),
    "an empty table": ({"a.csv": ""}, {}, "a.csv: no row says train .* has none"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "options", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(tmp_path: Path, files: dict[str, str], options: dict[str, Any], said: str) -> None:
    bad = BadRecords()
    with pytest.raises(UserError, match=said):
        load(tmp_path, files, bad, **options)
