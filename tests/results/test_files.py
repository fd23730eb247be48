"""The run folder's files: strict JSON, one line about what is damaged, version 0.1.0's without a schema, records."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import run_result
from multitune.errors import UserError
from multitune.evaluation.scoring import read_statistics
from multitune.results import metrics, predictions
from multitune.results.comparison import ComparedRun, Comparison, Interval, read_results
from multitune.results.json_files import finite
from multitune.results.metrics import Train, event_line, read_events
from multitune.results.predictions import Prediction, prediction_line, read_predictions
from multitune.results.run import RunResult, Scores, Sides, average, finite_scores
from multitune.storage.atomic import write_json

SCORES: Scores = {"de": {"f1": 70.0, "recall": 60.0}, "fr": {"f1": 50.0, "recall": None}}
RUN = run_result(SCORES, unseen={"ja": {"f1": 20.0}}, versions={"python": "3.11"})
NOTHING: Sides[Interval | None] = Sides(seen=None, unseen=None)


def comparison() -> Comparison:
    runs = [
        ComparedRun(**vars(RUN) | {"seed": seed}, folder=f"mtl-seed{seed}", grid={"learning_rate": 0.1})
        for seed in (0, 1)
    ]
    return Comparison(
        runs=runs,
        chosen={"mtl": {"learning_rate": 0.1}},
        metric="f1",
        baseline="mtl",
        summary={"mtl": NOTHING},
        differences={},
        pairwise={"mtl": {}},
        interval="by hand",
    )


def test_each_file_and_line_says_its_schema(tmp_path: Path) -> None:
    RUN.write(tmp_path)
    assert next(iter(json.loads((tmp_path / "results.json").read_text()).items())) == ("schema", 1)
    event = event_line(Train(gradients=3, seconds=1.5, loss=0.5, learning_rate=0.1))
    assert json.loads(event) == {
        "schema": 1,
        "gradients": 3,
        "event": "train",
        "seconds": 1.5,
        "loss": 0.5,
        "learning_rate": 0.1,
    }
    assert json.loads(prediction_line(Prediction("de", {}, None, [])))["schema"] == 1


def test_files_of_version_0_1_0_have_no_schema(tmp_path: Path) -> None:
    for written in (RUN, comparison()):
        written.write(tmp_path)
        old = json.loads((tmp_path / "results.json").read_text())
        del old["schema"]
        (tmp_path / "results.json").write_text(json.dumps(old | {"of a later version": 1}))
        assert read_results(tmp_path) == written
    (tmp_path / metrics.FILE).write_text(
        '{"gradients": 1, "event": "train", "seconds": 1, "loss": 1, "learning_rate": 1}'
    )
    assert list(read_events(tmp_path)) == [Train(gradients=1, seconds=1.0, loss=1.0, learning_rate=1.0)]


def changed(path: str, value: object) -> dict[str, Any]:
    """The run's file with one value exchanged, or left out."""
    content: dict[str, Any] = json.loads(json.dumps({"schema": 1} | vars(RUN), default=vars))
    *way, last = path.split(".")
    inner = content
    for key in way:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return content


DAMAGE: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "not valid JSON: Input data was truncated"),
    "cut": (json.dumps(changed("seed", 1))[:40], "not valid JSON: Input data was truncated"),
    "NaN": ('{"drift": NaN}', "not valid JSON: JSON is malformed"),
    "not UTF-8": (b'{"method": "\xff"}', "not valid JSON: 'utf-8' codec"),
    "deep": ("[" * 100_000, "not valid JSON: maximum recursion depth"),
    "an array": ("[1]", r"an object of JSON belongs here, not '\[1\]'"),
    "a later schema": (json.dumps(changed("schema", 2)), "has schema 2; this version of multitune reads schema 1"),
    "no schema number": (json.dumps(changed("schema", "one")), "has schema 'one'; this version of"),
    "a key missing": (json.dumps(changed("budget", None)), "is damaged .*: Object missing required field budget"),
    "another type": (json.dumps(changed("seed", "0")), "is damaged .*: seed: Expected int, got str"),
    "within": (json.dumps(changed("average.seen", "x")), r"average.seen: Expected float \| null, got str"),
}


@pytest.mark.parametrize(("content", "said"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, content: str | bytes, said: str) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for read in (RunResult.read, read_results):
        with pytest.raises(UserError, match=said) as error:
            read(tmp_path)
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    for read in (RunResult.read, Comparison.read, lambda folder: list(read_events(folder))):
        with pytest.raises(UserError, match=r"\.jsonl?: cannot be read: No such file or directory"):
            read(tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"event": "trian", "gradients": 1}', "unknown event 'trian' .did you mean 'train'"),
        ('{"event": ["train"]}', "unknown event"),
        ('{"gradients": 3, "ev', "not valid JSON"),
        ("", "not valid JSON"),
        ('{"event": "train", "schema": 7}', "has schema 7"),
    ],
)
def test_a_damaged_line_is_named_with_its_number(tmp_path: Path, line: str, said: str) -> None:
    good = event_line(Train(gradients=1, seconds=1.0, loss=1.0, learning_rate=1.0))
    (tmp_path / metrics.FILE).write_text(f"{good}{line}\n")
    with pytest.raises(UserError, match=f"metrics.jsonl:2: {said}"):
        list(read_events(tmp_path))


def test_a_run_and_a_comparison_are_told_apart(tmp_path: Path) -> None:
    RUN.write(tmp_path)
    with pytest.raises(UserError, match="missing required field runs"):
        Comparison.read(tmp_path)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_no_file_has_a_number_that_is_not_finite(tmp_path: Path, number: float) -> None:
    assert finite(number) is None
    assert finite_scores({"de": {"loss": number, "f1": 1.0}}) == {"de": {"loss": None, "f1": 1.0}}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "any.json", {"drift": number})
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(RUN, drift=number).write(tmp_path)
    assert list(tmp_path.iterdir()) == []
    row = prediction_line(Prediction("de", {"label": 1.0}, {"loss": [number]}, [number, np.float64(2.0)]))
    (tmp_path / predictions.FILE).write_text(row)
    (found,) = read_predictions(tmp_path)
    assert found == Prediction("de", {"label": 1.0}, {"loss": [None]}, [None, 2.0])
    np.testing.assert_array_equal(read_statistics(tmp_path)["de"], [[np.nan, 2.0]])


def test_averages_of_what_is_not_known_are_not_known() -> None:
    assert average(SCORES, "f1") == 60.0
    assert average(SCORES, "recall") is None
    assert average({}, "f1") is None


def test_records_are_flat_and_complete() -> None:
    common = {"method": "mtl", "seed": 0}
    assert RUN.to_records() == [
        common | {"language": "de", "side": "seen", "metric": "f1", "score": 70.0},
        common | {"language": "de", "side": "seen", "metric": "recall", "score": 60.0},
        common | {"language": "fr", "side": "seen", "metric": "f1", "score": 50.0},
        common | {"language": "fr", "side": "seen", "metric": "recall", "score": None},
        common | {"language": "ja", "side": "unseen", "metric": "f1", "score": 20.0},
    ]
    records = comparison().to_records()
    assert [record["seed"] for record in records] == [0] * 5 + [1] * 5
    assert all(record["learning_rate"] == 0.1 for record in records)
