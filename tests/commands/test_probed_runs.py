"""Probes of real runs of a tiny encoder: while they train, and on the model that they leave."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import multitune as mt
from builders import lines, recipe, stop_after
from multitune.cli import probe_tables
from multitune.cli.layout import fitted
from multitune.commands.probe import probe
from multitune.errors import Interrupted, RunError, UserError
from multitune.plans import METHODS
from multitune.probes import live
from multitune.results.metrics import read_events
from multitune.results.probes import Findings
from multitune.training.progress import Silent


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


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self, said: list[str]) -> None:
        self._said = said

    def say(self, text: str) -> None:
        self._said.append(text)


def test_probes_of_a_single_language_are_said_to_be_none(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    one, said = recipe(tiny_model, tiny_panx, languages=["aa"], unseen=[], budget=2, probe_every=1), list[str]()
    mt.train(one, tmp_path / "run", progress=lambda title, budget: Heard(said))
    assert "no probes: there is a single language, whose gradients have no others to be compared with" in said
    assert not probes(tmp_path / "run")


def test_larger_probes_come_more_seldom(tiny_model: Path, tiny_panx: Path) -> None:
    keys: dict[str, Any] = {"budget": 4800, "probe_every": "auto", "batch_size": 16}
    intervals = [live.interval(recipe(tiny_model, tiny_panx, **keys, probe_examples=n), 12) for n in (None, 8, 64)]
    assert intervals == [400, 400, 1600]


KINDS_OF_UPDATE = ("mixed", "sequential_reptile", "pcgrad", "swep")
"""A method of each kind; all others are make check's."""


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(method, marks=() if method in KINDS_OF_UPDATE else pytest.mark.check)
        for method in METHODS
        if method != "stl"
    ],
)
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


def test_a_run_that_diverges_ends_without_a_probe(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    keys: dict[str, Any] = {"budget": 8, "learning_rate": 1e38, "warmup": 0, "clip": None, "validate_every": 8}
    with pytest.raises(RunError, match="the model has diverged"):
        mt.train(recipe(tiny_model, tiny_panx, "sequential", probe_every=4, **keys), tmp_path)
    assert probes(tmp_path) == []
    assert read_events(tmp_path), "strict JSON, whatever the weights are"


@pytest.fixture(scope="module")
def relatives(tmp_path_factory: pytest.TempPathFactory, tiny_panx: Path) -> Path:
    """The tiny PAN-X under the names of real languages, of four families."""
    folder = tmp_path_factory.mktemp("relatives")
    for name, source in {"de": "aa", "nl": "bb", "fi": "aa", "tr": "bb"}.items():
        for split in ("train", "dev"):
            shutil.copy(tiny_panx / f"{split}-{source}.tsv", folder / f"{split}-{name}.tsv")
    shutil.copy(tiny_panx / "dev-cc.tsv", folder / "dev-es.tsv")
    return folder


def test_a_finished_run(tmp_path: Path, tiny_model: Path, relatives: Path) -> None:
    result = mt.train(recipe(tiny_model, relatives, budget=40, probe_every=40), tmp_path)
    said: list[str] = []
    findings = probe(tmp_path, say=said.append)
    saved = json.loads((tmp_path / "probes.json").read_text())
    assert Findings.read(tmp_path) == findings
    assert len(said) == 4
    assert saved["seen"] == ["de", "fi", "nl", "tr"]
    assert saved["unseen"] == ["es"]
    (live_probe,) = probes(tmp_path)
    found = saved["gradient_similarity"]
    assert found["languages"] == live_probe["languages"] == ["de", "nl", "tr", "fi"]
    assert found["families"] == ["Indo-European", "Indo-European", "Turkic", "Uralic"]
    for key in ("cosine", "norms", "losses"):
        assert found[key] == pytest.approx(live_probe[key], rel=1e-4)
    assert {layer: each["cosine"] for layer, each in found["layers"].items()} == pytest.approx(
        live_probe["layers"], abs=1e-4
    )
    assert found["cosines"][0][2] < found["cosines"][0][3] > 0.5, "de and fi have the same sentences"
    assert saved["proximity"]["pairs"][0]["cosine"] == pytest.approx(found["cosines"][0][1], abs=1e-4)
    assert saved["drift"]["total"] == pytest.approx(result.drift, rel=1e-5)
    assert saved["drift"]["layers"] == pytest.approx(live_probe["drift_by_layer"], rel=1e-4)
    assert saved["masked_lm"] is None
    assert set(saved["retrieval"]["tuned"]) == {"de", "fi", "nl", "tr", "es"}
    assert saved["retrieval"]["average"]["unseen"]["tuned"] == saved["retrieval"]["tuned"]["es"]
    assert set(saved["seconds"]) == {"gradient_similarity", "masked_lm", "retrieval", "drift"}
    assert any("no head" in note for note in saved["notes"])


def test_a_run_that_learnt_nothing_forgot_nothing(tmp_path: Path, tiny_lm: Path, relatives: Path) -> None:
    mt.train(recipe(tiny_lm, relatives, budget=4, learning_rate=1e-30), tmp_path)
    found = probe(tmp_path)
    assert found.masked_lm is not None
    assert found.retrieval is not None
    assert found.masked_lm.tuned == found.masked_lm.pretrained
    assert set(found.masked_lm.tuned) == {"de", "fi", "nl", "tr", "es"}
    assert found.retrieval.tuned == found.retrieval.pretrained
    assert found.drift.total == 0


def test_the_tables_show_what_was_found(tmp_path: Path, tiny_lm: Path, relatives: Path) -> None:
    mt.train(recipe(tiny_lm, relatives, budget=4, languages=["de"], unseen=["es"]), tmp_path)
    found = probe(tmp_path)
    assert found.gradient_similarity is None
    assert found.proximity is None
    text = "".join(fitted(sheet, 80).plain for sheet in (*probe_tables.probes(found), probe_tables.retention(found)))
    assert found.masked_lm is not None
    for word in ("at least two languages are needed", "es", "layer.1", f"{found.masked_lm.tuned['es']:.2f}"):
        assert word in text


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"save_model": False}, "has no model/; probe needs a run with save_model: true"),
    "a model a language": ({"method": "stl", "options": {}}, "stl trains one model per language"),
}


@pytest.mark.parametrize(("keys", "said"), MISTAKES.values(), ids=MISTAKES)
def test_runs_that_cannot_be_probed(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, keys: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match="holds no finished run"):
        probe(tmp_path)
    mt.train(recipe(tiny_model, tiny_panx, **({"budget": 4} | keys)), tmp_path)
    with pytest.raises(UserError, match=said):
        probe(tmp_path)
    assert not (tmp_path / "probes.json").exists()
