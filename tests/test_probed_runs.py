"""Probes of real runs of a tiny encoder: while they train, and on the model that they leave."""

from pathlib import Path
from typing import Any

import pytest

import multitune as mt
from multitune.interrupt import Interrupted
from multitune.methods import METHODS
from multitune.probes import live
from test_training import lines, recipe, stop_after


def probes(run: Path) -> list[dict[str, Any]]:
    return [line for line in lines(run) if line["event"] == "probe"]


@pytest.mark.parametrize(
    ("budget", "languages", "every", "expected"),
    [
        (2400, 12, "auto", 400),
        (1000, 12, "auto", 500),
        (1000, 12, None, None),
        (1000, 12, 10, 10),
        (60, 12, "auto", None),
        (1000, 1, "auto", None),
        (1000, 1, 10, None),
    ],
)
def test_intervals(
    tiny_model: Path, tiny_panx: Path, budget: int, languages: int, every: Any, expected: int | None
) -> None:
    assert live.interval(recipe(tiny_model, tiny_panx, budget=budget, probe_every=every), languages) == expected


@pytest.mark.parametrize("method", [method for method in METHODS if method != "stl"])
def test_probes_change_nothing(tmp_path: Path, tiny_model: Path, tiny_panx: Path, method: str) -> None:
    given: dict[str, Any] = {"budget": 13, "validate_every": 5, "dropout": 0.1}
    for name, every in (("plain", None), ("probed", 3)):
        mt.train(recipe(tiny_model, tiny_panx, method, probe_every=every, **given), tmp_path / name)
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("plain", "probed")]
    assert weights[0] == weights[1]
    found = probes(tmp_path / "probed")
    assert len(found) >= 2
    assert found[-1]["drift"] == pytest.approx(lines(tmp_path / "probed")[-1]["drift"], rel=1e-5)


@pytest.mark.parametrize("trim", [True, False])
def test_a_line_of_metrics(tmp_path: Path, tiny_model: Path, tiny_panx: Path, trim: bool) -> None:
    mt.train(recipe(tiny_model, tiny_panx, budget=8, probe_every=4, trim_vocabulary=trim), tmp_path / "run")
    first, last = probes(tmp_path / "run")
    assert (first["gradients"], last["gradients"]) == (4, 8)
    assert last["languages"] == ["aa", "bb"]
    assert last["families"] == [None, None]
    assert last["cosines"][0][0] == 1
    assert last["cosines"][0][1] == last["cosine"]
    layers = ["bert.embeddings", "bert.encoder.layer.0", "bert.encoder.layer.1", "classifier"]
    assert list(last["layers"]) == layers
    assert list(last["drift_by_layer"]) == layers[:-1], "the head is new"
    assert sum(moved**2 for moved in last["drift_by_layer"].values()) == pytest.approx(last["drift"] ** 2)
    assert last["share"] == pytest.approx(last["probe_seconds"] / last["seconds"])
    assert first["probe_seconds"] < last["probe_seconds"] < last["seconds"]


def test_a_trimmed_vocabulary_has_the_gradients_of_the_whole_one(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path
) -> None:
    for trim in (True, False):
        given = recipe(tiny_model, tiny_panx, budget=4, probe_every=4, trim_vocabulary=trim)
        mt.train(given, tmp_path / str(trim))
    trimmed, whole = (probes(tmp_path / str(trim))[-1] for trim in (True, False))
    for key in ("norms", "losses", "cosine", "drift"):
        assert trimmed[key] == pytest.approx(whole[key], rel=1e-4)


def test_resumed_probes_are_the_same(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = recipe(tiny_model, tiny_panx, "sequential_reptile", budget=24, probe_every=5)
    mt.train(one, tmp_path / "whole")
    stop_after(14, monkeypatch)
    with pytest.raises(Interrupted):
        mt.train(one, tmp_path / "parts")
    mt.train(one, tmp_path / "parts", resume=True)
    clocks = ("seconds", "probe_seconds", "share")
    whole, parts = (
        [{key: value for key, value in line.items() if key not in clocks} for line in probes(tmp_path / name)]
        for name in ("whole", "parts")
    )
    assert whole == parts
    seconds = [line["probe_seconds"] for line in probes(tmp_path / "parts")]
    assert seconds == sorted(seconds)
