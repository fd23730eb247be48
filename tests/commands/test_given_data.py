"""Data in memory given to train: the run folder keeps them, and everything that follows a run works on it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import multitune as mt
from builders import stop_after, words
from multitune.errors import Interrupted, UserError
from multitune.recipe import Recipe
from multitune.recipe_files import read
from multitune.training.loading import load_corpus

ROWS: list[dict[str, Any]] = [
    {"lang": code, "review": " ".join(words(kind, n)), "stars": n % 2, "id": n}
    for code, kind in (("de", "aa"), ("zh", "bb"))
    for n in range(60)
]
COLUMNS = {"language": "lang", "text": "review", "label": "stars"}


def frame(rows: list[dict[str, Any]]) -> Any:
    return pytest.importorskip("pandas").DataFrame(rows)


def dataset(rows: list[dict[str, Any]]) -> Any:
    return pytest.importorskip("datasets").Dataset.from_list(rows)


TABLES: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "a list of dicts": lambda rows: rows,
    "a dict of lists": lambda rows: {name: [row[name] for row in rows] for name in rows[0]},
    "a frame": frame,
    "a Dataset": dataset,
}


@pytest.fixture
def quick(tiny_model: Path) -> dict[str, Any]:
    return {"model": str(tiny_model), "budget": 12, "learning_rate": 1e-2, "precision": "fp32"}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_run_keeps_what_it_is_given(
    tmp_path: Path, quick: dict[str, Any], table: Callable[[list[dict[str, Any]]], Any]
) -> None:
    result = mt.train(None, tmp_path / "run", data=table(ROWS), overrides=quick)
    assert list(result.seen) == ["de", "zh"]
    saved = read(tmp_path / "run" / "recipe.yaml").resolve()
    assert (saved.path, saved.columns) == (str(tmp_path / "run" / "data"), COLUMNS)
    assert [path.name for path in Path(str(saved.path)).iterdir()] == ["data.jsonl"]
    assert mt.evaluate(tmp_path / "run") == result.seen
    again = mt.train(tmp_path / "run" / "recipe.yaml", tmp_path / "again")
    assert (again.seen, again.drift) == (result.seen, result.drift)
    mt.report(tmp_path / "run")


def test_a_run_that_was_moved_has_its_data_with_it(
    tmp_path: Path, quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = mt.train(None, "run", data=ROWS, overrides=quick)
    (tmp_path / "run").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path.parent)
    assert mt.evaluate(tmp_path / "moved") == result.seen
    assert mt.probe(tmp_path / "moved").seen == ["de", "zh"]
    merged = mt.merge(tmp_path / "moved", tmp_path / "merged", toward_pretrained=True, weights=[1.0], figures=False)
    assert merged.points[0].seen == result.seen
    with pytest.raises(UserError, match=r"merge: .*moved is named twice"):
        mt.merge([tmp_path / "moved", tmp_path / "merged" / ".." / "moved"], tmp_path / "another")


def test_a_run_does_not_overwrite_what_it_reads(
    tmp_path: Path, quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mt.train(None, "run", data=ROWS, overrides=quick)
    with pytest.raises(UserError, match=r"^--overwrite: run holds what the new run reads \(path: run/data\)"):
        mt.train("run/recipe.yaml", "run", overwrite=True)
    with pytest.raises(UserError, match=r"holds what the new run reads \(model: .*/run/model\)"):
        mt.train(None, "run", data=ROWS, overrides=quick | {"model": str(tmp_path / "run/model")}, overwrite=True)
    kept = Path("run/data/data.jsonl").read_bytes()
    mt.train(None, "run", data=ROWS, overrides=quick, overwrite=True)
    assert Path("run/data/data.jsonl").read_bytes() == kept


def test_splits_of_one_language(tmp_path: Path, quick: dict[str, Any]) -> None:
    rows = [{"text": row["review"], "label": row["stars"]} for row in ROWS]
    result = mt.train(out=tmp_path / "run", data={"train": rows, "test": rows[:20]}, overrides=quick)
    assert list(result.seen) == ["data"]
    assert {path.name for path in (tmp_path / "run/data").iterdir()} == {"train-data.jsonl", "test-data.jsonl"}


def test_a_column_of_splits(tmp_path: Path, quick: dict[str, Any]) -> None:
    rows = [row | {"split": ("train", "train", "validation", "test")[n % 4]} for n, row in enumerate(ROWS)]
    result = mt.train(out=tmp_path / "run", data=rows, overrides=quick)
    recipe = read(tmp_path / "run" / "recipe.yaml").resolve()
    assert recipe.columns == COLUMNS | {"split": "split"}
    corpus = load_corpus(recipe)
    assert [sum(map(len, split.values())) for split in (corpus.train, corpus.dev, corpus.test)] == [60, 30, 30]
    assert mt.evaluate(tmp_path / "run") == result.seen
    again = mt.evaluate(tmp_path / "run", {"languages": ["zh"], "unseen": []})
    assert again == {"zh": result.seen["zh"]}


def test_an_interrupted_run_goes_on_with_and_without_the_data(
    tmp_path: Path, quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = mt.train(out=tmp_path / "whole", data=ROWS, overrides=quick)
    ways: dict[str, dict[str, Any]] = {"with": {"data": ROWS, "overrides": quick}, "without": {}}
    for name, again in ways.items():
        out = tmp_path / name
        stop_after(5, monkeypatch)
        with pytest.raises(Interrupted):
            mt.train(out=out, data=ROWS, overrides=quick)
        resumed = mt.train(None if again else out / "recipe.yaml", out, resume=True, **again)
        assert (resumed.seen, resumed.drift) == (whole.seen, whole.drift)


def test_a_run_that_was_moved_goes_on_with_the_data_and_with_those_that_it_keeps(
    tmp_path: Path, quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = mt.train(out="whole", data=ROWS, overrides=quick)
    stop_after(5, monkeypatch)
    with pytest.raises(Interrupted):
        mt.train(out="run", data=ROWS, overrides=quick)
    for name in ("one", "two"):
        shutil.copytree("run", name)
    shutil.rmtree("run")
    resumed = mt.train(out=tmp_path / "one", data=ROWS, overrides=quick, resume=True)
    from_kept = mt.train("two/recipe.yaml", "two", resume=True)
    assert (resumed.seen, resumed.drift) == (from_kept.seen, from_kept.drift) == (whole.seen, whole.drift)
    assert mt.train(out="one", data=ROWS, overrides=quick, resume=True) == resumed
    with pytest.raises(UserError, match=r"^--resume: the data changed: the train records of de"):
        mt.train(out="one", data=[*ROWS[:2], *ROWS[4:]], overrides=quick, resume=True)


def test_a_recipe_gets_the_data_and_what_it_does_not_say_of_columns(tmp_path: Path, quick: dict[str, Any]) -> None:
    rows = [row | {"length": len(row["review"]) % 3} for row in ROWS]
    recipe = Recipe(data="folder", columns={"label": "length"}, method="mixed", unseen=("zh",), **quick)
    result = mt.train(recipe, tmp_path / "run", data=rows)
    assert (list(result.seen), list(result.unseen)) == (["de"], ["zh"])
    saved = read(tmp_path / "run" / "recipe.yaml").resolve()
    assert (saved.columns, saved.budget, saved.method) == (COLUMNS | {"label": "length"}, 12, "mixed")


def test_mistakes_leave_no_run(tmp_path: Path, quick: dict[str, Any]) -> None:
    other = Recipe(data="panx", **quick)
    for recipe, data, said in (
        (None, None, "recipe: is missing; name one, or give data"),
        (other, ROWS, "name other data than those given"),
        ("reviews.csv", ROWS, "reviews.csv is data, too"),
        (None, [{"x": "one", "y": "two"}], "which columns are text and label is not to be told"),
        (None, [], "holds no row"),
    ):
        with pytest.raises(UserError, match=said):
            mt.train(recipe, tmp_path / "run", data=data)
    assert not (tmp_path / "run").exists()
