"""A small run of every kind of task, from the recipe to the shipped model and the comparison."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import multitune as mt
from builders import RECORDS, assert_resumes, corpus, quick, run_card
from multitune.data import sets
from multitune.errors import UserError
from multitune.evaluation.scoring import read_statistics
from multitune.recipe import Recipe
from multitune.results.predictions import read_predictions
from multitune.tasks import TASKS, Ranking, Task

KEYS: dict[str, dict[str, Any]] = {
    "image_classification": {"model": "scratch:convnet", "layers": 1, "learning_rate": 2e-3},
    "translation": {"model": "scratch:transformer", "layers": 1, "learning_rate": 2e-3},
}
SLOW = ("translation", "image_classification")
"""Kinds whose tiny models take seconds: make check has these."""
KINDS = [pytest.param(kind, marks=pytest.mark.check if kind in SLOW else ()) for kind in RECORDS]
"""Of each kind a tiny run."""
CORPORA = {kind: corpus(kind) for kind in RECORDS}
AT_LEAST = {
    "classification": 95,
    "image_classification": 95,
    "masked_language_modelling": 40,
    "multi_label": 95,
    "pos_tagging": 95,
    "question_answering": 95,
    "ranking": 80,
    "regression": 95,
    "translation": 25,
}


@pytest.fixture
def tiny_recipe(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Recipe:
    """A run of seconds, its data under the name of its kind."""
    kind = request.param
    monkeypatch.setitem(sets.DATASETS, kind, lambda wanted, bad: CORPORA[kind])
    given: dict[str, Any] = {"model": str(tiny_model), "data": kind, "budget": 160, "learning_rate": 1e-2}
    method = {"method": "sequential_reptile", "options": {"inner_steps": 20, "outer_lr": 1.0}}
    return Recipe(**(given | method | {"batch_size": 8, "max_length": 24, "precision": "fp32"} | KEYS.get(kind, {})))


@pytest.mark.parametrize("tiny_recipe", KINDS, indirect=True)
def test_every_kind_learns_ships_and_scores_alike_afterwards(
    tmp_path: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = tiny_recipe.data
    result = mt.train(tiny_recipe, tmp_path / "run")
    assert (list(result.seen), list(result.unseen)) == (["aa", "bb"], ["cc"])
    assert result.average["seen"] is not None
    assert result.average["seen"] > AT_LEAST[kind]
    scores = result.seen | result.unseen
    assert mt.evaluate(tmp_path / "run") == {code: pytest.approx(score) for code, score in scores.items()}
    rows = read_statistics(tmp_path / "run")
    task = TASKS[kind](())
    assert {code: task.score_rows(row) for code, row in rows.items()} == scores
    TASKS[kind].auto_processor.from_pretrained(tmp_path / "run" / "model")
    model = TASKS[kind].auto_model.from_pretrained(tmp_path / "run" / "model")
    assert not any(torch.isnan(weight).any() for weight in model.parameters())
    run_card(tmp_path / "run", monkeypatch)
    assert_predicts_what_the_run_did(tmp_path / "run", TASKS[kind])


def assert_predicts_what_the_run_did(run: Path, kind: type[Task]) -> None:
    """New texts that happen to be the test set get the predictions of the test set."""
    if not kind.predicted or kind.fields is None:
        with pytest.raises(UserError, match="says nothing of new texts"):
            mt.predict(run, [])
        return
    known = list(read_predictions(run))
    fields = {*kind.fields.checks, "target_language"} - {*kind.predicted}
    given = [{k: v for k, v in each.record.items() if k in fields} for each in known]
    found = list(mt.predict(run, given))
    if kind is Ranking:
        assert_embeddings_rank(run, [each["prediction"] for each in found])
        return
    for own, each, text in zip(found, known, given, strict=True):
        assert text.items() <= own.items()
        assert own["prediction"] == (
            pytest.approx(each.prediction, abs=1e-4) if isinstance(each.prediction, float) else each.prediction
        )
        if kind.label_field == "label" and isinstance(own["prediction"], str):
            assert next(iter(own["scores"])) == own["prediction"]
            assert sum(own["scores"].values()) == pytest.approx(1)
        elif kind.label_field == "labels":
            assert {label for label, score in own["scores"].items() if score > 0.5} == {*own["prediction"]}
        elif kind.label_field == "tags":
            assert all(0 < score <= 1 for score in own["scores"])


def assert_embeddings_rank(run: Path, texts: list[list[float]]) -> None:
    """What predict says of the test set's texts and positives finds what the run has found."""
    known = [each for each in read_predictions(run) if each.language == "aa"]
    positives = sorted({each.record["positive"] for each in known})
    states = torch.tensor([each["prediction"] for each in mt.predict(run, positives)])
    assert states.norm(dim=-1).tolist() == pytest.approx([1.0] * len(positives), abs=1e-5)
    for each, text in zip(known, texts, strict=False):
        if each.prediction["rank"] == 1:
            assert positives[int((states @ torch.tensor(text)).argmax())] == each.record["positive"]


@pytest.mark.parametrize("tiny_recipe", quick(RECORDS, "tagging", "question_answering"), indirect=True)
def test_every_kind_resumes_to_the_same_bits(
    tmp_path: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an inner loop, with dropout; the first run tokenises, the others find it in the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    one = tiny_recipe.model_copy(update={"budget": 24, "validate_every": 8, "dropout": 0.1})
    assert_resumes(one, tmp_path, 11, monkeypatch)


@pytest.mark.parametrize("tiny_recipe", quick(RECORDS, "regression", "question_answering"), indirect=True)
def test_every_kind_is_compared_with_an_interval(tmp_path: Path, tiny_recipe: Recipe) -> None:
    plain = tiny_recipe.model_copy(update={"options": {}, "budget": 8})
    found = mt.compare(plain, tmp_path, methods=["mtl", "gradvac"])
    assert found.metric == TASKS[tiny_recipe.data].metric
    summary = json.loads((tmp_path / "results.json").read_text())["summary"]
    for side in ("seen", "unseen"):
        interval: dict[str, Any] = summary["gradvac"][side]
        assert interval["low"] <= interval["mean"] <= interval["high"]


@pytest.mark.parametrize("tiny_recipe", ["image_classification", "translation"], indirect=True)
def test_noise_on_word_embeddings_needs_an_encoder_of_text(tmp_path: Path, tiny_recipe: Recipe) -> None:
    swep = tiny_recipe.model_copy(update={"method": "swep", "options": {}})
    with pytest.raises(UserError, match="swep needs an encoder of text"):
        mt.train(swep, tmp_path / "run")
