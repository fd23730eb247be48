"""A saved model is scored by its own labels, on test records alone, whatever lies beside them."""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

import multitune as mt
from builders import RECORDS, quick, words
from multitune.commands.evaluate import evaluate
from multitune.data.corpus import Record
from multitune.data.records.labels import unknown_labels
from multitune.errors import UserError
from multitune.models.shipped import shipped
from multitune.results.predictions import read_predictions
from multitune.tasks import TASKS
from multitune.training.loading import load_corpus, load_with_labels

COLUMNS = {
    "classification": {"text": "text", "text_pair": "text_pair", "label": "label"},
    "regression": {"text": "text", "score": "label"},
    "question_answering": {name: name for name in ("id", "context", "question", "answers")},
    "pos_tagging": {"tokens": "tokens", "pos": "tags"},
    "tagging": {"tokens": "tokens", "tags": "tags"},
    "translation": {"source": "source", "target": "target"},
    "masked_language_modelling": {"text": "text"},
}


def tagging(language: str, n: int) -> Record:
    return {"tokens": words(language, n), "tags": ["B-PER", "O", "B-LOC", "O", "B-PER"]}


def written(folder: Path, files: Mapping[str, Sequence[Record]]) -> Path:
    """Files of JSON lines, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def recipe(model: Path, path: Path, kind: str = "classification", **keys: Any) -> mt.Recipe:
    given: dict[str, Any] = {
        "model": str(model),
        "data": "folder",
        "path": str(path),
        "columns": COLUMNS[kind],
        "task": kind,
    }
    defaults: dict[str, Any] = {
        "budget": 12,
        "batch_size": 8,
        "learning_rate": 1e-2,
        "method": "sequential",
        "precision": "fp32",
    }
    return mt.Recipe(**(given | defaults | keys))


def rows(language: str, numbers: range, kind: str = "classification") -> list[Record]:
    return [(RECORDS | {"tagging": tagging})[kind](language, n) for n in numbers]


def files(kind: str) -> dict[str, list[Record]]:
    """Two languages to train on and a third one, each split with other records."""
    trained = {
        f"{split}-{language}": rows(language, range(first, last), kind)
        for language in ("aa", "bb")
        for split, first, last in (("train", 0, 24), ("dev", 24, 32), ("test", 32, 44))
    }
    return trained | {"test-cc": rows("cc", range(12), kind)}


@pytest.mark.parametrize(
    "kind", quick([kind for kind in COLUMNS if kind != "translation"], "classification", "question_answering")
)
def test_test_records_alone_give_the_run_s_own_scores(tmp_path: Path, tiny_lm: Path, kind: str) -> None:
    """Also where the files lie elsewhere now, in a folder without any for training."""
    data = written(tmp_path / "data", files(kind))
    result = mt.train(recipe(tiny_lm, data, kind), tmp_path / "run")
    expected = {k: pytest.approx(v) for k, v in (result.seen | result.unseen).items()}
    for file in [*data.glob("train-*"), *data.glob("dev-*")]:
        file.unlink()
    assert evaluate(tmp_path / "run") == expected
    shutil.move(data, tmp_path / "moved")
    assert evaluate(tmp_path / "run", {"path": str(tmp_path / "moved")}) == expected
    assert AutoConfig.from_pretrained(tmp_path / "run" / "model").multitune_task == kind


def distinct(language: str, count: int) -> list[Record]:
    """Records of which no two have one text, so that a file of them is divided."""
    return [row | {"text": f"{row['text']} x{n}"} for n, row in enumerate(rows(language, range(count)))]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, mt.RunResult]:
    """A run on files that hold all splits, which has learnt its labels, even and odd."""
    folder = tmp_path_factory.mktemp("trained")
    path = written(folder / "data", {language: distinct(language, 120) for language in ("aa", "bb")})
    return folder / "run", mt.train(recipe(tiny_model, path, budget=120), folder / "run")


def named(records: Sequence[Record], names: Mapping[str, str]) -> list[Record]:
    return [record | {"label": names.get(record["label"], record["label"])} for record in records]


def test_other_labels_in_the_training_data_change_nothing(
    tmp_path: Path, trained: tuple[Path, mt.RunResult], caplog: pytest.LogCaptureFixture
) -> None:
    """Those of the files would be a, even and odd: every prediction would be read as its neighbour."""
    run, result = trained
    assert result.average.seen == 100
    new = {f"train-{code}": named(rows(code, range(9)), {"odd": "a"}) for code in ("aa", "cc")}
    tests = {f"{split}-{code}": rows(code, range(40, 60)) for code in ("aa", "cc") for split in ("dev", "test")}
    path = written(tmp_path / "new", new | tests)
    scores = evaluate(run, {"path": str(path), "languages": ["aa"], "unseen": []})
    assert scores["aa"]["accuracy"] == 100
    assert (scores.unknown_labels, caplog.messages) == ({}, [])


def test_labels_that_the_model_lacks_count_as_wrong_and_are_told(
    tmp_path: Path, trained: tuple[Path, mt.RunResult], caplog: pytest.LogCaptureFixture
) -> None:
    test = [*rows("cc", range(6)), *named(rows("cc", range(6, 8)), {"even": "both", "odd": "neither"})]
    path = written(tmp_path / "new", {"test-cc": test})
    with caplog.at_level(logging.WARNING):
        scores = evaluate(trained[0], {"path": str(path)})
    assert scores.unknown_labels == {"cc": {"both": 1, "neither": 1}}
    assert set(scores) == {"cc"}
    whole = scores["cc"]["accuracy"]
    (said,) = caplog.messages
    assert said.startswith("test labels that the model lacks count as wrong")
    assert said.endswith("cc: 'both' (1), 'neither' (1)")
    alike = evaluate(trained[0], {"path": str(path), "labels": {"both": "even", "neither": "odd"}})
    fewer = evaluate(trained[0], {"path": str(path), "labels": {"both": "ignore", "neither": "ignore"}})
    assert alike.unknown_labels == fewer.unknown_labels == {}
    assert whole is not None
    assert fewer["cc"]["accuracy"] == pytest.approx(whole * 8 / 6)


def test_a_label_of_the_model_that_is_taken_for_another_is_so_where_it_is_predicted(
    tmp_path: Path, trained: tuple[Path, mt.RunResult]
) -> None:
    """Three classes are scored as two, without training anew."""
    path = written(tmp_path / "new", {"test-cc": rows("cc", range(8))})
    scores = evaluate(trained[0], {"path": str(path), "labels": {"odd": "even"}})
    assert scores["cc"]["accuracy"] == 100


def test_records_that_were_trained_on_are_never_scored(tmp_path: Path, trained: tuple[Path, mt.RunResult]) -> None:
    """A file with all splits is divided as the run divided it, wherever it lies; of another language all is scored."""
    run, result = trained
    path = written(tmp_path / "new", {"aa": distinct("aa", 120), "cc": distinct("cc", 20)})
    limits = {"path": str(path)}
    tested = {row.record["text"] for row in read_predictions(run) if row.language == "aa"}
    assert 0 < len(tested) < 40
    assert evaluate(run, limits)["aa"] == result.seen["aa"]
    assert set(evaluate(run, limits)) == {"aa", "cc"}
    assert set(evaluate(run, limits | {"unseen": ["cc"]})) == {"cc"}
    assert set(evaluate(run, {"languages": ["bb"]})) == {"bb"}
    assert evaluate(run, {"unseen": ["aa"]}) == result.seen


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another kind of task": ({"task": "regression"}, "task: the model is of kind classification, not regression"),
    "a language that is not there": ({"unseen": ["zz"]}, "unseen: no data for 'zz'"),
    "no language": ({"languages": ["aa"], "unseen": [], "path": "nowhere"}, "nowhere is not a folder"),
}


@pytest.mark.parametrize(("overrides", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_scored(trained: tuple[Path, mt.RunResult], overrides: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        evaluate(trained[0], overrides)


def test_data_of_another_kind(trained: tuple[Path, mt.RunResult], tiny_panx: Path) -> None:
    with pytest.raises(UserError, match="task: data: panx has no records of classification"):
        evaluate(trained[0], {"data": "panx", "path": str(tiny_panx)})


def test_a_model_that_does_not_say_its_kind(tmp_path: Path, trained: tuple[Path, mt.RunResult]) -> None:
    shutil.copytree(trained[0], tmp_path / "run")
    config = tmp_path / "run" / "model" / "config.json"
    config.write_text(config.read_text().replace('"multitune_task": "classification"', '"multitune_task": "cooking"'))
    with pytest.raises(UserError, match=r"config\.json: multitune_task is 'cooking'; it must name a kind of task"):
        evaluate(tmp_path / "run")


@pytest.mark.parametrize("labels", [[1, None], ["same", "same"]], ids=["no text", "one text twice"])
def test_a_model_whose_labels_are_none(tmp_path: Path, trained: tuple[Path, mt.RunResult], labels: list[Any]) -> None:
    shutil.copytree(trained[0], tmp_path / "run")
    file = tmp_path / "run" / "model" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"id2label": dict(enumerate(labels))}))
    with pytest.raises(UserError, match=r"config\.json: id2label must give each number a text of its own"):
        evaluate(tmp_path / "run")


def test_a_model_for_each_language_is_scored_on_new_files(tmp_path: Path, tiny_model: Path) -> None:
    run = tmp_path / "run"
    mt.train(recipe(tiny_model, written(tmp_path / "data", files("classification")), method="stl"), run)
    path = written(tmp_path / "new", {f"test-{code}": rows(code, range(9)) for code in ("aa", "cc")})
    assert set(evaluate(run, {"path": str(path)})) == {"aa"}
    assert set(evaluate(run, {"path": str(path), "languages": ["aa"]})) == {"aa"}
    with pytest.raises(UserError, match="there is no model of 'cc'; there are models of aa, bb"):
        evaluate(run, {"path": str(path), "unseen": ["cc"]})


def test_a_probe_reads_the_labels_of_the_model(
    trained: tuple[Path, mt.RunResult], caplog: pytest.LogCaptureFixture
) -> None:
    run, _ = trained
    task = shipped(run / "model")[""]
    path = run.parent / "other"
    written(path, {"aa": named(distinct("aa", 120), {"even": "a"}), "bb": distinct("bb", 120)})
    one = recipe(run / "model", path)
    assert load_corpus(one).labels == ("a", "even", "odd")
    caplog.clear()
    corpus = load_with_labels(one, {"": task})
    assert corpus.labels == task.labels == ("even", "odd")
    assert set(unknown_labels(corpus, corpus.train, TASKS)) == {"aa"}
    assert [message.split()[0] for message in caplog.messages] == ["training", "dev", "test"]


def test_a_run_notes_the_labels_that_its_training_lacks(tmp_path: Path, tiny_model: Path) -> None:
    """Entity types of an unseen language: all of its sentences are scored, in table, results and report."""
    new = [{"tokens": words("cc", n), "tags": ["B-PER", "O", "B-DATE", "I-DATE", "O"]} for n in range(5)]
    path = written(tmp_path / "data", files("tagging") | {"test-cc": new})
    result = mt.train(recipe(tiny_model, path, "tagging", budget=4), tmp_path / "run")
    assert result.unknown_labels == {"cc": {"B-DATE": 5, "I-DATE": 5}}
    assert mt.RunResult.read(tmp_path / "run") == result
    assert sum(row.language == "cc" for row in read_predictions(tmp_path / "run")) == 5
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Test labels that training never shows count as wrong: cc 10." in report
    ignored = recipe(tiny_model, path, "tagging", budget=4, labels={"DATE": "ignore"})
    again = mt.train(ignored, tmp_path / "again")
    assert (again.unknown_labels, again.dropped) == ({}, {})
    assert sum(row.language == "cc" for row in read_predictions(tmp_path / "again")) == 5
