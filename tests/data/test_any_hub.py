"""Any data set of the Hub: its files found, splits and languages told, read from a folder, a server and the cache."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from huggingface_hub import metadata_load
from pyarrow import parquet

import multitune as mt
from corpora import load, sizes
from multitune.commands.init import init
from multitune.data.label_spelling import LabelSpelling
from multitune.errors import UserError
from small_hub import at_the_hubs_place
from test_hub import STRING, SmallHub, classes, datasets

REVIEW = {"lang": STRING, "review": STRING, "stars": classes("bad", "good")}
COLUMNS = {"text": "review", "label": "stars"}
BY_COLUMN = COLUMNS | {"language": "lang"}
LARGE = 60


def rows(count: int, *languages: str) -> list[dict[str, Any]]:
    codes = languages or ("de", "fi")
    return [{"lang": codes[n % len(codes)], "review": f"text {n} {codes}", "stars": n // 2 % 2} for n in range(count)]


def write(folder: Path, files: dict[str, list[dict[str, Any]]]) -> Path:
    for name, own in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        table = datasets.Dataset.from_list(own, features=datasets.Features(REVIEW))
        table.to_parquet(folder / name)
    return folder


CONVERTED = {
    f"default/{split}/0000.parquet": rows(count) for split, count in (("train", 8), ("validation", 4), ("test", 6))
}
OF_CONFIGS = {
    f"{code}/{split}-00000-of-00001.parquet": rows(count, code)
    for code in ("de", "fi", "all")
    for split, count in (("train", 5), ("test", 3), ("validation", 2))
}
FOLDERS: dict[str, tuple[dict[str, list[dict[str, Any]]], str, dict[str, Any], dict[str, list[int]]]] = {
    # files, name, keys, sizes
    "a column": (CONVERTED, "hub:a/b", {"columns": BY_COLUMN}, {"de": [4, 2, 3], "fi": [4, 2, 3]}),
    "a column, one unseen": (
        CONVERTED,
        "hub:a/b:default",
        {"columns": BY_COLUMN, "unseen": ["fi"]},
        {"de": [4, 2, 3], "fi": [0, 0, 3]},
    ),
    "no column": (CONVERTED, "hub:a/b", {"columns": COLUMNS}, {"default": [8, 4, 6]}),
    "a language a configuration": (OF_CONFIGS, "hub:a/b", {"columns": COLUMNS}, {"de": [5, 2, 3], "fi": [5, 2, 3]}),
    "chosen ones": (
        OF_CONFIGS,
        "hub:a/b",
        {"columns": COLUMNS, "languages": ["fi"], "unseen": ["de"]},
        {"fi": [5, 2, 3], "de": [0, 0, 3]},
    ),
    "one configuration unseen": (
        OF_CONFIGS,
        "hub:a/b",
        {"columns": COLUMNS, "unseen": ["de"]},
        {"fi": [5, 2, 3], "de": [0, 0, 3]},
    ),
    "one of several": (OF_CONFIGS, "hub:a/b:all", {"columns": COLUMNS}, {"all": [5, 2, 3]}),
    "shards": (
        {f"data/train-0000{n}-of-00002.parquet": rows(4) for n in range(2)} | {"data/validation.parquet": rows(4)},
        "hub:a/b",
        {"columns": BY_COLUMN},
        {"de": [4, 2, 2], "fi": [4, 2, 2]},
    ),
}


@pytest.mark.parametrize(("files", "name", "keys", "found"), FOLDERS.values(), ids=FOLDERS)
def test_splits_and_languages_are_found(
    tmp_path: Path, files: dict[str, Any], name: str, keys: dict[str, Any], found: dict[str, list[int]]
) -> None:
    corpus = load(name, write(tmp_path, files), **keys)
    assert sizes(corpus) == found
    assert corpus.labels == ("bad", "good")


@pytest.mark.parametrize("columns", [COLUMNS, BY_COLUMN], ids=["no column", "a column"])
def test_several_splits_that_are_read_as_one_are_told(
    tmp_path: Path, columns: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    kinds = ("train-00000-of-00002", "train-00001-of-00002", "test_new-00000-of-00001", "test_old-00000-of-00001")
    corpus = load("hub:a/b", write(tmp_path, {f"data/{kind}.parquet": rows(40) for kind in kinds}), columns=columns)
    assert sum(map(len, corpus.test.values())) == 80
    assert [said for said in caplog.messages if "as one split" in said] == [
        "data: hub:a/b: test_new and test_old are read as one split; path: may name a folder with the files of one"
    ]


@pytest.mark.parametrize("columns", [COLUMNS, BY_COLUMN], ids=["no column", "a column"])
@pytest.mark.parametrize("splits", [("train",), ("train", "test")])
def test_missing_splits_are_divided_by_hash(tmp_path: Path, splits: tuple[str, ...], columns: dict[str, str]) -> None:
    files = {f"{split}.parquet": rows(200 if split == "train" else 10) for split in splits}
    corpus = load("hub:a/b", write(tmp_path, files), columns=columns)
    dev = sum(len(records) for records in corpus.dev.values())
    assert 5 < dev < 40
    tested = sum(len(records) for records in corpus.test.values())
    assert sum(map(len, corpus.train.values())) == (200 - dev if "test" in splits else 200 - dev - tested)
    texts = [
        [record["text"] for records in split.values() for record in records] for split in (corpus.train, corpus.dev)
    ]
    assert not {*texts[0]} & {*texts[1]}


@pytest.mark.parametrize("columns", [COLUMNS, BY_COLUMN], ids=["no column", "a column"])
def test_a_column_may_say_the_split(tmp_path: Path, columns: dict[str, str]) -> None:
    said = ("train", "test", "train", "validation")
    table = pa.Table.from_pylist(
        [row | {"part": said[n % 8 // 2], "stars": str(row["stars"])} for n, row in enumerate(rows(80))]
    )
    (tmp_path / "data").mkdir()
    parquet.write_table(table, tmp_path / "data/train-0.parquet")
    corpus = load("hub:a/b", tmp_path, columns=columns | {"split": "part"})
    whole = [40, 20, 20]
    expected = {code: [n // 2 for n in whole] for code in ("de", "fi")} if "language" in columns else {"default": whole}
    assert sizes(corpus) == expected


def test_names_for_numbers(tmp_path: Path) -> None:
    (tmp_path / "default").mkdir()
    for split in ("train", "validation"):
        table = pa.table({"text": ["a", "b"], "label": [0, 1]})
        parquet.write_table(table, tmp_path / f"default/{split}.parquet")
    corpus = load("hub:a/b", tmp_path, spelling=LabelSpelling(names=("no", "yes")))
    assert corpus.labels == ("no", "yes")


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no such configuration": (OF_CONFIGS, "hub:a/b:sw", r"no configuration 'sw'; it has all, de, fi"),
    "which configuration": (
        {name.replace("de/", "x/").replace("fi/", "y/"): own for name, own in OF_CONFIGS.items()},
        "hub:a/b",
        "name one of its configurations, as in hub:owner/name:config; it has all, x, y",
    ),
    "no parquet file": ({}, "hub:a/b", "has no parquet files that are called after splits"),
    "no train": (
        {f"{split}.parquet": rows(4) for split in ("validation", "test")},
        "hub:a/b",
        "has no split called train, only test and dev",
    ),
    "no name": ({}, "hub:a/b/c", "names no data set of the Hub; write hub:owner/name"),
}


@pytest.mark.parametrize(("files", "name", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_found_is_said(tmp_path: Path, files: dict[str, Any], name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(name, write(tmp_path, files), columns=COLUMNS)


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A small Hub with reviews, and an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    large = {name: rows(LARGE) for name in CONVERTED}
    handler = type("Handler", (SmallHub,), {"folder": write(tmp_path / "hub", large)})
    with at_the_hubs_place(handler, monkeypatch) as address:
        files = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)
        yield address


def test_downloads_once_and_then_needs_no_network(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    online = load("hub:some/reviews", columns=BY_COLUMN)
    assert sizes(online) == {code: [LARGE // 2] * 3 for code in ("de", "fi")}
    file = init("hub:some/reviews")
    assert file.run["data"] == "hub:some/reviews"
    assert file.run["columns"] == {"language": "lang", "text": "review", "label": "stars"}
    assert (file.run["budget"], file.name) == (round(3 * LARGE / 16), "reviews")
    assert "path" not in file.run
    monkeypatch.setattr("multitune.storage.hub.HF_HUB_OFFLINE", True)
    assert sizes(load("hub:some/reviews:default", columns=BY_COLUMN)) == sizes(online)
    with pytest.raises(UserError, match="hub:some/others: no network, and not in the local cache; path: may name"):
        load("hub:some/others", columns=BY_COLUMN)


def test_trains_without_a_recipe_and_scores_again_without_a_network(
    address: str, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"model": str(tiny_model), "budget": 4, "method": "mtl", "precision": "fp32"}
    result = mt.train("hub:some/reviews", tmp_path / "run", overrides=keys)
    assert set(result.seen) == {"de", "fi"}
    card = metadata_load(tmp_path / "run" / "model" / "README.md") or {}
    assert card["datasets"] == ["some/reviews"]
    monkeypatch.setattr("multitune.storage.hub.HF_HUB_OFFLINE", True)
    assert mt.evaluate(tmp_path / "run") == {code: pytest.approx(own) for code, own in result.seen.items()}
