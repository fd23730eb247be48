"""A column that says the language of each row: one file of all languages, or train, dev and test; and one not used."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from multitune.data import sets
from multitune.data.bad import BadRecords
from multitune.data.corpus import Corpus
from multitune.errors import UserError
from multitune.recipe import Recipe
from multitune.tasks import TASKS
from multitune.training.loading import load_corpus

COLUMNS = {"text": "review", "label": "sentiment", "language": "lang"}


def table(**counts: int) -> str:
    rows = [f"{code},{code} review {number},{'ab'[number % 2]}\n" for number in range(200) for code in counts]
    kept = [row for row in rows if int(row.split(",")[1].split()[-1]) < counts[row.split(",")[0]]]
    return "lang,review,sentiment\n" + "".join(kept)


def load(folder: Path, files: Mapping[str, str], bad: BadRecords | None = None, **options: Any) -> Corpus:
    for name, text in files.items():
        (folder / name).write_text(text)
    return sets.load("folder", bad or BadRecords(), TASKS, path=str(folder), **({"columns": COLUMNS} | options))


def sizes(corpus: Corpus) -> list[dict[str, int]]:
    return [{code: len(rows) for code, rows in split.items()} for split in (corpus.train, corpus.dev, corpus.test)]


def test_one_file_is_divided_within_each_language(tmp_path: Path) -> None:
    corpus = load(tmp_path, {"reviews.csv": table(fr=100, de=200)})
    assert list(corpus.train) == list(corpus.test) == ["de", "fr"]
    for code, count in (("de", 200), ("fr", 100)):
        parts = [{record["text"] for record in split[code]} for split in (corpus.train, corpus.dev, corpus.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == count
        assert all(text.startswith(code) for part in parts for text in part)
    assert set(corpus.train["de"][0]) == {"text", "label"}
    assert corpus.labels == ("a", "b")


def test_a_language_of_one_file_may_be_unseen(tmp_path: Path) -> None:
    (_, _, test) = sizes(load(tmp_path, {"reviews.csv": table(fr=100, de=200)}, unseen=["fr"]))
    assert list(test) == ["de", "fr"]
    assert test["fr"] == 100


def test_files_of_splits(tmp_path: Path) -> None:
    files = {"train.csv": table(de=20), "dev.csv": table(de=5, fr=3), "test.csv": table(de=7, fr=9)}
    corpus = load(tmp_path, files)
    assert sizes(corpus) == [{"de": 20}, {"de": 5}, {"de": 7, "fr": 9}]
    assert not corpus.test_is_dev
    (tmp_path / "test.csv").unlink()
    corpus = load(tmp_path, {})
    assert sizes(corpus) == [{"de": 20}, {"de": 5}, {"de": 5, "fr": 3}]
    assert corpus.test_is_dev


def test_without_a_file_for_dev_a_tenth_of_train_validates(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    corpus = load(tmp_path, {"train.csv": table(de=100), "test.csv": table(de=7, fr=9)})
    (train, dev, test) = sizes(corpus)
    assert (dev, test) == ({"de": 100 - train["de"]}, {"de": 7, "fr": 9})
    assert 5 < dev["de"] < 20
    assert not {row["text"] for row in corpus.train["de"]} & {row["text"] for row in corpus.dev["de"]}
    assert not corpus.test_is_dev
    assert caplog.text.count("has no dev split: a tenth of train, chosen by hash, validates") == 1


@pytest.mark.parametrize("name", ["validation", "valid", "val"])
def test_the_file_for_dev_may_be_called_as_the_hub_does(tmp_path: Path, name: str) -> None:
    files = {"train.csv": table(de=20), f"{name}.csv": table(de=5), "test.csv": table(de=7)}
    assert sizes(load(tmp_path, files)) == [{"de": 20}, {"de": 5}, {"de": 7}]


def test_languages_that_look_alike_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    codes = ("en", "EN", "de", "pt-BR", "pt_br", "pt")
    corpus = load(tmp_path, {"a.csv": table(**dict.fromkeys(codes, 90))})
    assert set(corpus.train) == set(codes)
    assert "alone are languages of their own: 'EN', 'en'" in caplog.text
    assert "alone are languages of their own: 'pt-BR', 'pt_br'" in caplog.text
    assert caplog.text.count("of their own") == 2


def test_another_format_and_the_same_names_as_users_write(tmp_path: Path) -> None:
    records = [
        {"review": f"r{n}", "sentiment": "ab"[n % 2], "lang": code} for n in range(60) for code in ("pt_BR", "no ")
    ]
    corpus = load(tmp_path, {"all.jsonl": "".join(json.dumps(record) + "\n" for record in records)})
    assert list(corpus.train) == ["no", "pt_BR"]


MISTAKES = {
    # files, options, what is said
    "no such language": ({"a.csv": table(de=50)}, {"languages": ["fr"]}, "has no row of 'fr'; there are some of: de"),
    "no such unseen": ({"a.csv": table(de=50)}, {"unseen": ["fr"]}, "unseen: .*a.csv has no row of 'fr'"),
    "no dev rows": ({"train.csv": table(de=5, fr=5), "dev.csv": table(de=5)}, {}, "dev.csv has no row of 'fr'"),
    "several tables": ({"a.csv": "", "b.csv": ""}, {}, "has a.csv, b.csv; it needs train, dev and test, or one file"),
    "one split twice": ({"train.csv": "", "train.jsonl": "", "dev.csv": ""}, {}, "stands beside another 'train'"),
    "every row of a split bad": (
        {"train.csv": table(de=5), "dev.csv": "lang,review,sentiment\nde,x,\n"}, {}, "dev.csv:2: label is blank"),
    "too few rows": (
        {"a.csv": table(de=99, fr=2, fi=99, it=1, sw=3)}, {},
        r"too few .*: fr \(2\), it \(1\), sw \(3\); .* unseen: \[fr, it, sw\]",
    ),
    "no dev rows of two": (
        {"train.csv": table(de=5, fr=5, it=5), "dev.csv": table(de=5)}, {}, "dev.csv has no row of 'fr', 'it'; there"
    ),
    "nothing left to train on": (
        {"a.csv": table(de=50, fr=50)}, {"unseen": ["fr", "de"]}, "unseen: names all languages .* to train on: de, fr"
    ),
    "two for dev": ({"train.csv": "", "dev.csv": "", "val.csv": ""}, {}, "val.csv stands beside another 'dev', dev"),
    "no table": ({"a.txt": ""}, {}, "has no table; it needs train, dev and test, or one file"),
    "no folder": ({}, {"path": "nowhere"}, "path: nowhere is not a folder; it needs train"),
    "no such column": ({"a.jsonl": '{"review": "x", "sentiment": "a"}\n' * 50}, {}, "a.jsonl:1: no key 'lang'"),
    "a name too long for a folder": ({"a.csv": table(**{"a" * 256: 50})}, {}, "cannot be the name of a folder"),
    "a zero byte": ({"a.jsonl": "".join(
        json.dumps({"review": f"r{n}", "sentiment": "ab"[n % 2], "lang": "a\0b"}) + "\n" for n in range(60)
    )}, {}, r"'a\\x00b' cannot be the name of a folder"),
    "a folder's name": ({"a.csv": table(**{"a/b": 50})}, {}, "'a/b' cannot be the name of a folder"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "options", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(tmp_path: Path, files: dict[str, str], options: dict[str, Any], said: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        sets.load("folder", BadRecords(), TASKS, **({"path": str(tmp_path), "columns": COLUMNS} | options))


def test_bad_rows_count_for_their_language_or_their_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "reviews.csv").write_text(table(de=60, fr=60) + "de,,a\n ,x,a\nfr,x\n")
    recipe = Recipe(data="folder", path=str(tmp_path), columns=COLUMNS)
    with pytest.raises(UserError, match=r"reviews\.csv:122: text is blank \(2 more bad records"):
        load_corpus(recipe)
    corpus = load_corpus(recipe.model_copy(update={"skip_bad": True}))
    assert corpus.skipped == {"de": 1, "reviews.csv": 2}
    assert "3 bad records are left out: de 1, reviews.csv 2" in caplog.text


def test_the_column_is_the_target_of_translations(tmp_path: Path) -> None:
    rows = "".join(f"{code}\tsource {number}\ttarget {number}\n" for number in range(60) for code in ("de", "en-fr"))
    columns = {"source": "s", "target": "t", "language": "into"}
    corpus = load(tmp_path, {"all.tsv": "into\ts\tt\n" + rows}, columns=columns)
    languages = {
        code: {(r.get("source_language"), r["target_language"]) for r in corpus.train[code]} for code in corpus.train
    }
    assert languages == {"de": {(None, "de")}, "en-fr": {("en", "fr")}}


TRANSLATED = '{"s": "a", "t": "b", "lang": "gsw"}\n'


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"source": "s", "target": "t"}, {"source": "a", "target": "b", "target_language": "de"}),
        (
            {"source": "s", "target": "t", "target_language": "lang"},
            {"source": "a", "target": "b", "target_language": "gsw"},
        ),
        (
            {"source": "s", "target": "t", "source_language": "lang"},
            {"source": "a", "target": "b", "source_language": "gsw", "target_language": "de"},
        ),
    ],
)
def test_translations_are_into_what_the_file_or_a_column_says(
    tmp_path: Path, columns: dict[str, str], expected: dict[str, str]
) -> None:
    corpus = load(tmp_path, {"train-de.jsonl": TRANSLATED, "dev-de.jsonl": TRANSLATED}, columns=columns)
    assert list(corpus.train["de"]) == list(corpus.test["de"]) == [expected]


UNUSED = {
    "csv": ("reviews.csv", "lang,text,label\nde,a,b\n", True),
    "capitals": ("reviews.tsv", "Language\ttext\tlabel\nde\ta\tb\n", True),
    "jsonl": ("reviews.jsonl", '{"text": "a", "label": "b", "locale": "de"}\n', True),
    "the name of the file": ("de.csv", "lang,text,label\nde,a,b\n", False),
    "another column": ("reviews.csv", "slang,text,label\nde,a,b\n", False),
}


@pytest.mark.parametrize(("name", "text", "told"), UNUSED.values(), ids=UNUSED)
def test_a_column_of_languages_that_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, text: str, told: bool
) -> None:
    head, row = text.split("\n", 1) if not name.endswith("jsonl") else ("", text)
    rows = "".join(row.replace('"a"', f'"a{n}"') if head == "" else row.replace("a", f"a{n}", 1) for n in range(60))
    load(tmp_path, {name: f"{head}\n{rows}"}, columns={"text": "text", "label": "label"})
    assert ("is not used; columns: {language: " in caplog.text) == told
    assert caplog.text.count("is not used") == told


def test_a_column_of_languages_that_is_not_used_beside_files_of_splits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    columns = {"text": "review", "label": "sentiment"}
    corpus = load(tmp_path, {"train.csv": table(de=20), "dev.csv": table(fi=5)}, columns=columns)
    assert sizes(corpus) == [{tmp_path.name: 20}, {tmp_path.name: 5}, {tmp_path.name: 5}]
    (told,) = caplog.messages
    assert "the column 'lang' is not used; columns: {language: lang} makes" in told
    files = {f"{split}-sw.csv": table(sw=9).replace("sw review", split) for split in ("train", "dev")}
    assert sizes(load(tmp_path, files, columns=columns)) == [{"sw": 9}] * 3
