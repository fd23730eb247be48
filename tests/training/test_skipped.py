"""Runs that did not train what they claim: steps skipped, all of them or a language's, weights that diverge."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import multitune as mt
from builders import lines, regression, stop_after
from multitune.cli import tables
from multitune.commands.evaluate import evaluate
from multitune.errors import Interrupted, RunError, UserError
from multitune.recipe import Recipe
from multitune.results.run import RunResult

OUTLIER = 1e30
"""A finite score whose squared error is none."""


def scored(folder: Path, outliers: dict[str, range]) -> Path:
    """Texts with scores in aa and bb; in training, those of the given numbers are outliers."""
    folder.mkdir()
    for language in ("aa", "bb"):
        for split, count in (("train", 32), ("dev", 8), ("test", 8)):
            records = [regression(language, n) for n in range(count)]
            rows = [{"text": record["text"], "score": record["label"]} for record in records]
            for number in outliers.get(language, range(0)) if split == "train" else ():
                rows[number]["score"] = OUTLIER
            (folder / f"{split}-{language}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def recipe(model: Path, data: Path, method: str = "sequential", **keys: Any) -> Recipe:
    columns = {"text": "text", "score": "score"}
    given: dict[str, Any] = {"model": str(model), "data": "folder", "path": str(data), "columns": columns}
    return Recipe(**(given | {"method": method, "budget": 24, "batch_size": 8, "sampling": "uniform"} | keys))


def test_skipped_steps_stand_in_results_table_and_report(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = recipe(tiny_model, scored(tmp_path / "data", {"bb": range(1)}))
    result = mt.train(one, tmp_path / "run")
    skipped = [line for line in lines(tmp_path / "run") if line["event"] == "skip"]
    assert 0 < len(skipped) == result.skipped_steps == RunResult.read(tmp_path / "run").skipped_steps
    assert result.steps == sum(result.trained.values()) == 24 - len(skipped)
    assert list(result.trained) == ["aa", "bb"]
    said = f"{len(skipped)} of 24"
    assert said in str(tables.runs([result]).notes)
    assert f"Single-task steps {said}" in (tmp_path / "run" / "report.html").read_text()
    stop_after(12, monkeypatch)
    with pytest.raises(Interrupted):
        mt.train(one, tmp_path / "parts")
    resumed = mt.train(one, tmp_path / "parts", resume=True)
    assert (resumed.seen, resumed.drift) == (result.seen, result.drift)
    assert (resumed.steps, resumed.skipped_steps, resumed.trained) == (24 - len(skipped), len(skipped), result.trained)


def test_each_skipped_step_of_trajectories_is_counted_and_named(tmp_path: Path, tiny_model: Path) -> None:
    """Eight of them are made together, and each language may have several at fault."""
    data, options = scored(tmp_path / "data", {"bb": range(32)}), {"trajectories": 2}
    result = mt.train(recipe(tiny_model, data, "sequential_reptile", options=options), tmp_path / "run")
    skipped = [line["batches"] for line in lines(tmp_path / "run") if line["event"] == "skip"]
    assert result.trained == {"aa": result.steps, "bb": 0}
    assert (result.steps + len(skipped), len(skipped)) == (24, result.skipped_steps)
    assert all(list(batches) == ["bb"] for batches in skipped)
    assert len({(batches["bb"]["epoch"], batches["bb"]["position"]) for batches in skipped}) == len(skipped)


def test_a_language_without_a_step_is_named(tmp_path: Path, tiny_model: Path) -> None:
    data = scored(tmp_path / "data", {"bb": range(32)})
    result = mt.train(recipe(tiny_model, data, non_finite_steps=24), tmp_path / "run")
    assert result.trained["bb"] == 0 < result.trained["aa"]
    assert "never trained on bb" in str(tables.runs([result]).notes)
    assert "not one step was taken: Single-task steps on bb" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize("method", ["sequential", "mtl", "sequential_reptile", "stl"])
def test_a_run_without_a_step_fails(tmp_path: Path, tiny_model: Path, method: str) -> None:
    data = scored(tmp_path / "data", {"aa": range(32), "bb": range(32)})
    with pytest.raises(RunError, match=r"no step was taken: a loss or gradient of all \d was not finite"):
        mt.train(recipe(tiny_model, data, method, budget=8), tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()


TOO_SMALL: dict[str, tuple[dict[str, Any], str]] = {
    "stl": ({"method": "stl", "budget": 1}, r"budget: 1 is too small for stl, .* (aa|bb) gets no gradient computation"),
    "swep": ({"method": "swep", "budget": 1}, "budget: 1 is too small for a step of swep, which computes 2 gradients"),
}


@pytest.mark.parametrize(("keys", "said"), TOO_SMALL.values(), ids=TOO_SMALL)
def test_a_budget_without_a_step_is_refused(tmp_path: Path, tiny_model: Path, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        mt.train(recipe(tiny_model, scored(tmp_path / "data", {}), **keys), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    model, data = tmp_path / "model", scored(tmp_path / "data", {})
    shutil.copytree(tiny_model, model)
    weights = load_file(model / "model.safetensors")
    weights["encoder.layer.1.output.dense.bias"][3] = torch.nan
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"model: .* its weights bert.encoder.layer.1.output.dense.bias are not finite"):
        mt.train(recipe(model, data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("rate", "what"), [(1e30, "its outputs are"), (3e38, "are not finite")])
def test_a_model_that_diverges_is_not_shipped(tmp_path: Path, tiny_model: Path, rate: float, what: str) -> None:
    one = recipe(tiny_model, scored(tmp_path / "data", {}), learning_rate=rate, validate_every=4, warmup=0, clip=None)
    with pytest.raises(RunError, match=f"the model has diverged: .*{what}"):
        mt.train(one, tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_model_that_has_diverged_is_not_scored_again(tmp_path: Path, tiny_model: Path) -> None:
    mt.train(recipe(tiny_model, scored(tmp_path / "data", {}), budget=4), tmp_path / "run")
    file = tmp_path / "run" / "model" / "model.safetensors"
    weights = load_file(file)
    weights["classifier.weight"][:] = torch.inf
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(RunError, match=r"the model has diverged: the weights classifier.weight are not finite"):
        evaluate(tmp_path / "run")
