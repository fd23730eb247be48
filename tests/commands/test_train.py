"""Runs of a tiny encoder on a tiny PAN-X: the run folder's contract, resume, every method by name, user mistakes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForTokenClassification, AutoTokenizer

import multitune as mt
from builders import lines, recipe, stop_after
from multitune.errors import Interrupted, UserError
from multitune.evaluation.scoring import read_statistics
from multitune.plans import METHODS
from multitune.recipe import Recipe
from multitune.results.metrics import event_line, read_events
from multitune.results.predictions import prediction_line, read_predictions
from multitune.results.run import RunResult


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_panx: Path) -> tuple[Path, RunResult]:
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, mt.train(recipe(tiny_model, tiny_panx, "sequential_reptile", budget=400), out)


def test_run_folder_keeps_its_contract(finished: tuple[Path, RunResult]) -> None:
    out, result = finished
    assert {path.name for path in out.iterdir()} == {
        "checkpoints",
        "metrics.jsonl",
        "model",
        "predictions.jsonl",
        "recipe.yaml",
        "report.html",
        "results.json",
    }
    saved = json.loads((out / "results.json").read_text())
    contract = {"method", "seed", "budget", "seen", "unseen", "average", "drift", "seconds", "versions"}
    assert contract | {"peak_memory_bytes"} <= set(saved)
    assert list(saved["seen"]) == ["aa", "bb"]
    assert list(saved["unseen"]) == ["cc"]
    assert saved["average"]["seen"] == pytest.approx(sum(saved["seen"][k]["f1"] for k in ("aa", "bb")) / 2)
    assert RunResult.read(out) == result
    assert "".join(map(event_line, read_events(out))) == (out / "metrics.jsonl").read_text()
    assert "".join(map(prediction_line, read_predictions(out))) == (out / "predictions.jsonl").read_text()
    assert all({"gradients", "event"} <= set(line) for line in lines(out))
    assert lines(out)[-1]["gradients"] == 400


def test_it_learns(finished: tuple[Path, RunResult]) -> None:
    _, result = finished
    assert result.average["seen"] is not None
    assert result.average["seen"] > 90
    assert (result.drift or 0) > 0.1


def test_model_is_an_ordinary_one_with_the_same_predictions(finished: tuple[Path, RunResult], tiny_model: Path) -> None:
    out, result = finished
    model = AutoModelForTokenClassification.from_pretrained(out / "model")
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    assert model.config.id2label == dict(enumerate(("B-LOC", "B-PER", "I-LOC", "I-PER", "O")))
    with torch.no_grad():
        logits = model(**tokenizer("ana bela sees roma", return_tensors="pt")).logits
    named = [model.config.id2label[n] for n in logits.argmax(-1)[0].tolist()]
    assert named[1:-1] == ["B-PER", "I-PER", "O", "B-LOC"]
    assert mt.evaluate(out) == {**result.seen, **result.unseen}
    untouched = AutoModelForTokenClassification.from_pretrained(tiny_model, num_labels=5)
    unused = tokenizer.convert_tokens_to_ids(["never0", "never19", "kyoto"])
    name = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(model.state_dict()[name][unused], untouched.state_dict()[name][unused])


def test_predictions_give_the_scores(finished: tuple[Path, RunResult]) -> None:
    out, result = finished
    sums = {language: rows.sum(0) for language, rows in read_statistics(out).items()}
    for language, scores in {**result.seen, **result.unseen}.items():
        right, found, true = sums[language]
        assert scores["f1"] == pytest.approx(200 * right / (found + true))


QUICK = ("mtl", "gradvac", "sequential_reptile", "stl")
"""Of each way of training one: these in every run of the tests, the others in make check."""


def quick(name: str) -> pytest.MarkDecorator | tuple[()]:
    return () if name in QUICK else pytest.mark.check


@pytest.mark.parametrize("method", [pytest.param(method, marks=quick(method)) for method in METHODS])
def test_every_method_spends_the_budget_and_repeats_itself(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, method: str
) -> None:
    one = recipe(tiny_model, tiny_panx, method, budget=13, validate_every=5)
    first, second = (mt.train(one, tmp_path / name) for name in ("first", "second"))
    assert first.budget == 13
    assert (first.seen, first.unseen, first.drift) == (second.seen, second.unseen, second.drift)
    other = mt.train(one, tmp_path / "other", overrides={"seed": 1})
    assert other.drift != first.drift
    if method != "stl":
        assert lines(tmp_path / "first")[-1]["gradients"] == (12 if method == "swep" else 13)


RESUMED: dict[str, dict[str, Any]] = {
    **{method: {"method": method} for method in METHODS if method != "stl"},
    "torchjd:NashMTL": {"method": "torchjd:NashMTL", "options": {"groups": "enc_dec"}},
    "torchjd:Random": {"method": "torchjd:Random", "budget": 25},
    "sequential_reptile, permuted": {
        "method": "sequential_reptile",
        "options": {"inner_steps": 5, "inner_steps_end": 8, "order": "permuted", "outer_lr": 0.5, "outer_lr_end": 1},
    },
    "mixed, epochs, replay": {"method": "mixed", "sampling": "epochs", "replay": {"share": 0.4}},
    "sequential, epochs": {"method": "sequential", "sampling": "epochs"},
    "mtl, replay": {"replay": {"share": 0.4}},
    "mtl, trimmed": {"trim_vocabulary": True},
    "mtl, bf16": {"precision": "bf16", "trim_vocabulary": True, "checkpoint_every": 4},
    "mtl, ema": {"average": "ema", "average_horizon": 0.3, "sampling": "uniform"},
    "swep, snapshots": {"method": "swep", "average": "snapshots", "average_last": 2},
    "sequential_reptile, ema": {"method": "sequential_reptile", "average": "ema", "sampling": "unimax"},
    "reptile, snapshots": {"method": "reptile", "average": "snapshots"},
}


@pytest.mark.parametrize("keys", [pytest.param(keys, id=name, marks=quick(name)) for name, keys in RESUMED.items()])
def test_an_interrupted_run_resumes_to_the_same_bits(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any]
) -> None:
    if keys.get("method", "").startswith("torchjd"):
        pytest.importorskip("cvxpy")
    given = {"budget": 24, "validate_every": 6, "dropout": 0.1, "trim_vocabulary": False}
    one = recipe(tiny_model, tiny_panx, **(given | keys))
    whole = mt.train(one, tmp_path / "whole")
    for at in (3, 14):
        stop_after(at, monkeypatch)
        with pytest.raises(Interrupted, match="--resume goes on"):
            mt.train(one, tmp_path / "parts", resume=at > 3)
        assert (tmp_path / "parts" / "model" / "model.safetensors").exists()
    with pytest.raises(UserError, match="add --resume"):
        mt.train(one, tmp_path / "parts")
    resumed = mt.train(one, tmp_path / "parts", resume=True)
    assert (resumed.seen, resumed.unseen, resumed.drift) == (whole.seen, whole.unseen, whole.drift)
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]
    timeless = [
        [{k: v for k, v in line.items() if k != "seconds"} for line in lines(tmp_path / name)]
        for name in ("whole", "parts")
    ]
    assert timeless[0] == timeless[1]


def shipped(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def test_snapshots_ship_the_mean_of_the_weights_at_the_validations(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path
) -> None:
    keys: dict[str, Any] = {"schedule": "constant", "warmup": 0, "validate_every": 4}
    averaged = recipe(tiny_model, tiny_panx, budget=12, average="snapshots", average_last=2, **keys)
    mt.train(averaged, tmp_path / "averaged")
    points = []
    for budget in (8, 12):
        mt.train(recipe(tiny_model, tiny_panx, budget=budget, **keys), tmp_path / str(budget))
        points.append(shipped(tmp_path / str(budget)))
    for name, weight in shipped(tmp_path / "averaged").items():
        torch.testing.assert_close(weight, (points[0][name] + points[1][name]) / 2)


@pytest.mark.parametrize("method", ["mtl", "sequential_reptile"])
def test_the_last_validation_scores_the_weights_that_ship(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, method: str
) -> None:
    one = recipe(tiny_model, tiny_panx, method, budget=60, average="ema", unseen=[], dev_limit=None)
    result = mt.train(one, tmp_path / "run")
    assert {k: pytest.approx(v) for k, v in lines(tmp_path / "run")[-1]["dev"].items()} == result.seen  # test is dev


def test_stl_without_models_has_its_report(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    mt.train(recipe(tiny_model, tiny_panx, "stl", budget=4, dev_limit=1, save_model=False), tmp_path)
    assert (tmp_path / "report.html").exists()
    assert not (tmp_path / "model").exists()


def test_stl_has_a_model_for_each_language(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    one = recipe(tiny_model, tiny_panx, "stl", budget=41)
    result = mt.train(one, tmp_path / "run")
    assert result.average["unseen"] is None
    assert sorted(path.name for path in (tmp_path / "run" / "model").iterdir()) == ["README.md", "aa", "bb"]
    shares = [RunResult.read(tmp_path / "run" / "languages" / language).budget for language in ("aa", "bb")]
    assert sum(shares) == 41
    assert shares[0] / shares[1] == pytest.approx((60 / 20) ** 0.2, rel=0.1)
    assert mt.evaluate(tmp_path / "run") == result.seen


def test_best_on_dev_is_refused_where_dev_is_what_is_reported(tiny_model: Path, tiny_panx: Path) -> None:
    with pytest.raises(UserError, match="select: best"):
        mt.train(recipe(tiny_model, tiny_panx, select="best"), "never-made")


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown method": ({"method": "sequental"}, "method: unknown method 'sequental' .did you mean 'sequential'"),
    "unknown torchjd method": ({"method": "torchjd:upgrad"}, "torchjd method 'upgrad' .did you mean 'UPGrad'"),
    "torchjd's options": ({"method": "torchjd:CAGrad", "options": {}}, "torchjd:CAGrad: .*'c'"),
    "unknown option": ({"options": {"inner_step": 3}}, "unknown key 'inner_step'.*tasks_per_step"),
    "bad option": ({"options": {"tasks_per_step": 0}}, "options of mtl: tasks_per_step: must be at least 1, not 0"),
    "unknown data": ({"data": "panks"}, "data: unknown data set 'panks'.*'panx'"),
    "unknown language": ({"languages": ["zz"]}, "languages: no data for 'zz'.*aa, bb"),
    "untrained language": ({"languages": ["cc"]}, "languages: no data for 'cc'.*aa, bb"),
    "no such model": ({"model": "/nowhere/model"}, "model: cannot load '/nowhere/model'"),
    "too many layers": ({"layers": 3}, "layers: .* has only 2 layers, not 3"),
    "unknown offline model": ({"model": "offline:e6"}, "unknown offline model 'offline:e6'"),
}


@pytest.mark.parametrize(("keys", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_leave_no_folder(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, keys: dict[str, Any], said: str
) -> None:
    given = recipe(tiny_model, tiny_panx).model_dump() | keys
    with pytest.raises(UserError, match=said) as error:
        mt.train(Recipe(**given), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_folders_that_hold_something_else(
    tmp_path: Path, finished: tuple[Path, RunResult], tiny_model: Path, tiny_panx: Path
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("buy milk")
    one = recipe(tiny_model, tiny_panx)
    for folder, said in [(finished[0], "finished run"), (tmp_path / "notes", "is not the folder of a run")]:
        before = sorted(folder.rglob("*"))
        for resume in (False, True):
            with pytest.raises(UserError, match=said):
                mt.train(one, folder, resume=resume)
        assert sorted(folder.rglob("*")) == before


def test_resume_wants_the_same_recipe(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(3, monkeypatch)
    with pytest.raises(Interrupted):
        mt.train(recipe(tiny_model, tiny_panx), tmp_path / "run")
    with pytest.raises(UserError, match=r"is another recipe \(in batch_size\)"):
        mt.train(recipe(tiny_model, tiny_panx, batch_size=4), tmp_path / "run", resume=True)
