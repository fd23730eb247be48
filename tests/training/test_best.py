"""``select: best``: the best weights on dev ship, from the one checkpoint that holds them; nothing is kept twice."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import multitune as mt
from builders import OPTIONS, SIZES, lines, pos_tagging, stop_after
from multitune.errors import Interrupted, RunError, UserError
from multitune.recipe import Recipe
from multitune.training import trainer
from multitune.training.checkpoint import TENSORS

METHODS: dict[str, dict[str, Any]] = {
    "mtl": {},
    "mtl, ema": {"average": "ema", "average_horizon": 0.1},
    "sequential_reptile": {},
    "reptile, snapshots": {"average": "snapshots", "average_last": 2},
}


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences of two languages, with a test split."""
    folder = tmp_path_factory.mktemp("tagged")
    for language in SIZES:
        for split, first, count in (("train", 0, 40), ("dev", 40, 16), ("test", 60, 8)):
            records = (pos_tagging(language, first + n) for n in range(count))
            rows = (json.dumps({"tokens": record["tokens"], "pos": record["tags"]}) for record in records)
            (folder / f"{split}-{language}.jsonl").write_text("".join(f"{row}\n" for row in rows))
    return folder


def recipe(model: Path, tagged: Path, name: str, **keys: Any) -> Recipe:
    """A run that has learnt all there is before its budget ends."""
    method = name.partition(",")[0]
    given: dict[str, Any] = {
        "model": str(model),
        "data": "folder",
        "path": str(tagged),
        "columns": {"tokens": "tokens", "pos": "pos"},
    }
    rate: dict[str, Any] = {
        "schedule": "constant",
        "warmup": 0,
        "learning_rate": 0.03,
        "batch_size": 4,
        "precision": "fp32",
    }
    one: dict[str, Any] = {
        "method": method,
        "options": OPTIONS.get(method, {}),
        "budget": 44,
        "validate_every": 4,
        "select": "best",
    }
    return Recipe(**(given | rate | one | METHODS[name] | keys))


def shipped(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


Weights = dict[str, torch.Tensor]


def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[int, Weights]:
    """The weights of each validation of the runs that follow, by gradient computations."""
    found: dict[int, Weights] = {}
    validate = trainer.Trainer._validate

    def wrapped(self: trainer.Trainer) -> None:
        with self._run.update.shipped_weights():
            found[self._now.gradients] = {name: w.detach().clone() for name, w in self._run.encoder.parameters()}
        validate(self)

    monkeypatch.setattr(trainer.Trainer, "_validate", wrapped)
    return found


@pytest.mark.parametrize("name", METHODS)
def test_the_best_weights_ship(
    tmp_path: Path, tiny_model: Path, tagged: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    weights = recorded(monkeypatch)
    result = mt.train(recipe(tiny_model, tagged, name, trim_vocabulary=False), tmp_path / "run")
    scores = {line["gradients"]: line["average"] for line in lines(tmp_path / "run") if line["event"] == "validate"}
    best = max(scores, key=lambda gradients: scores[gradients])
    assert (result.shipped.gradients, result.shipped.dev) == (best, scores[best])
    model = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert all(torch.equal(weight, weights[best][name]) for name, weight in model.items())
    assert not all(torch.equal(weight, weights[44][name]) for name, weight in model.items()), "the last are the best"


def test_a_resumed_run_ships_the_same(
    tmp_path: Path, tiny_model: Path, tagged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = recipe(tiny_model, tagged, "sequential_reptile")
    whole = mt.train(one, tmp_path / "whole")
    for at in (30, 42):
        stop_after(at, monkeypatch)
        with pytest.raises(Interrupted):
            mt.train(one, tmp_path / "parts", resume=True)
    assert mt.train(one, tmp_path / "parts", resume=True).shipped == whole.shipped
    assert shipped(tmp_path / "parts") == shipped(tmp_path / "whole")


@pytest.mark.parametrize("select", ["last", "best"])
def test_a_run_stops_where_dev_has_not_risen(
    tmp_path: Path, tiny_model: Path, tagged: Path, monkeypatch: pytest.MonkeyPatch, select: str
) -> None:
    one = recipe(tiny_model, tagged, "sequential_reptile", select=select, patience=2, budget=100)
    whole = mt.train(one, tmp_path / "whole")
    scores = [(line["gradients"], line["average"]) for line in lines(tmp_path / "whole") if line["event"] == "validate"]
    peak = max(score for _, score in scores)
    first = next(place for place, (_, score) in enumerate(scores) if score == peak)
    assert len(scores) == first + 3, "it stops at the second validation after the highest"
    assert whole.stopped == whole.spent == scores[-1][0] < 100
    assert whole.shipped.gradients == scores[first if select == "best" else -1][0]
    assert f"stopped after {whole.stopped} of 100 gradients" in whole.notes[-1]
    stop_after(whole.stopped - 3, monkeypatch)
    with pytest.raises(Interrupted):
        mt.train(one, tmp_path / "parts", resume=True)
    assert mt.train(one, tmp_path / "parts", resume=True).shipped == whole.shipped
    assert shipped(tmp_path / "parts") == shipped(tmp_path / "whole")


def test_patience_leaves_the_learning_rate_as_it_is(tmp_path: Path, tiny_model: Path, tagged: Path) -> None:
    keys: dict[str, Any] = {"schedule": "linear", "select": "last"}
    mt.train(recipe(tiny_model, tagged, "mtl", **keys), tmp_path / "whole")
    mt.train(recipe(tiny_model, tagged, "mtl", **keys, patience=1), tmp_path / "stopped")
    rates = [
        [line["learning_rate"] for line in lines(tmp_path / run) if line["event"] == "train"]
        for run in ("whole", "stopped")
    ]
    assert rates[1] == rates[0][: len(rates[1])]
    assert len(rates[1]) < len(rates[0])


@pytest.mark.parametrize("command", ["compare", "sweep"])
def test_comparisons_refuse_patience(tmp_path: Path, tiny_model: Path, tagged: Path, command: str) -> None:
    one = recipe(tiny_model, tagged, "mtl", patience=2)
    how: dict[str, Any] = (
        {"methods": ["mtl"]} if command == "compare" else {"grid": {"learning_rate": [0.1, 0.2]}, "rungs": 1}
    )
    with pytest.raises(UserError, match="patience: cannot stand in a comparison or sweep"):
        getattr(mt, command)(one, tmp_path / "out", **how)
    assert not (tmp_path / "out").exists()


def test_the_last_are_all_that_is_kept_where_they_ship(tmp_path: Path, tiny_model: Path, tagged: Path) -> None:
    """No checkpoint of the best validation stays beside the newest two."""
    kept: list[set[str]] = []
    with pytest.MonkeyPatch.context() as patch:
        save = trainer.Trainer._save_state

        def wrapped(self: trainer.Trainer, *, early: bool = False) -> None:
            save(self, early=early)
            self._writer.wait()
            kept.append({path.name.lstrip("0") for path in self._checkpoints.iterdir()})

        patch.setattr(trainer.Trainer, "_save_state", wrapped)
        mt.train(recipe(tiny_model, tagged, "mtl", select="last"), tmp_path / "run")
    assert kept[1:] == [{str(end - 4), str(end)} for end in range(8, 45, 4)]
    assert list((tmp_path / "run").rglob("*.safetensors")) == [tmp_path / "run" / "model" / "model.safetensors"]


def test_a_damaged_checkpoint_of_the_best_is_told(
    tmp_path: Path, tiny_model: Path, tagged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship = trainer.Trainer.ship

    def wrapped(self: trainer.Trainer, *given: Any) -> Any:
        (self._checkpoints / f"{int(self._now.best['gradients']):09d}" / TENSORS).write_bytes(b"")
        return ship(self, *given)

    monkeypatch.setattr(trainer.Trainer, "ship", wrapped)
    with pytest.raises(
        RunError, match=r"select: best: the best weights, those after \d+ gradients, are lost: .*differs"
    ):
        mt.train(recipe(tiny_model, tagged, "mtl"), tmp_path / "run")


def test_the_best_adapters_ship(tmp_path: Path, tiny_model: Path, tagged: Path) -> None:
    result = mt.train(recipe(tiny_model, tagged, "sequential_reptile", lora={"rank": 2}), tmp_path / "run")
    validations = [line for line in lines(tmp_path / "run") if line["event"] == "validate"]
    best = max(validations, key=lambda line: float(line["average"]))
    assert (result.shipped.gradients, result.shipped.dev) == (best["gradients"], best["average"])
    assert result.drift == best["drift"]
    assert best["drift"] != validations[-1]["drift"], "the last weights are others"
