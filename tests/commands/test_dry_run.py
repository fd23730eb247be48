"""``--dry-run``: what runs would take, with nothing written; every method has an estimate."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import multitune as mt
from builders import OPTIONS, recipe
from multitune.cli.app import app
from multitune.commands.estimate import estimate_comparison, estimate_run
from multitune.errors import UserError
from multitune.plans import METHODS
from multitune.recipe_files import to_yaml
from multitune.storage.atomic import remove
from multitune.training import checkpoint
from multitune.training.checkpoint_writer import Written
from multitune.training.progress import Silent


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_an_estimate(tiny_model: Path, tiny_panx: Path, method: str) -> None:
    one = recipe(tiny_model, tiny_panx, method, options=OPTIONS.get(method, {}))
    found = estimate_run(one)
    assert (found.method, found.count, found.each.gradients) == (method, 1, one.budget)
    assert found.each.seconds > 0
    assert found.each.memory_bytes > found.each.checkpoint_bytes > 0


class Sizes(Silent):
    """Keeps the sizes of checkpoints."""

    def __init__(self, found: list[int]) -> None:
        self._found = found

    def saved(self, checkpoint: Written) -> None:
        self._found.append(checkpoint.bytes)


def test_a_checkpoint_has_the_size_that_was_estimated(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    one = recipe(tiny_model, tiny_panx, "sequential_reptile")
    sizes: list[int] = []
    mt.train(one, tmp_path / "run", progress=lambda title, budget: Sizes(sizes))
    assert estimate_run(one).each.checkpoint_bytes == pytest.approx(sizes[-1], rel=0.01)


def test_as_many_checkpoints_are_on_disk_as_were_estimated(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The most are there just before the oldest one goes."""
    one = recipe(tiny_model, tiny_panx, budget=24, validate_every=4)
    counts = list[int]()

    def removed(path: Path) -> None:
        counts.append(len(list(path.parent.iterdir())))
        remove(path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "remove", removed)
        mt.train(one, tmp_path / "run")
    assert estimate_run(one).each.checkpoints == max(counts)


def test_an_estimate_in_fp16_has_the_optimizers_state(tiny_model: Path, tiny_panx: Path) -> None:
    """At the scales of its first steps swep's gradients overflow."""
    half, full = (estimate_run(recipe(tiny_model, tiny_panx, "swep", precision=own)) for own in ("fp16", "fp32"))
    assert half.each.checkpoint_bytes == full.each.checkpoint_bytes


def test_runs_that_differ_in_seed_and_rate_are_estimated_once(tiny_model: Path, tiny_panx: Path) -> None:
    one = recipe(tiny_model, tiny_panx, "mtl", options={})
    grid: dict[str, list[Any]] = {"learning_rate": [0.1, 0.2], "batch_size": [2, 4]}
    found = estimate_comparison(one, methods=["mtl"], seeds=3, grid=grid)
    assert [own.count for own in found] == [6, 6]


def test_a_comparison_that_would_be_refused_is_refused(tiny_model: Path, tiny_panx: Path) -> None:
    one = recipe(tiny_model, tiny_panx, "mtl", options={}, patience=1)
    with pytest.raises(UserError, match="patience"):
        estimate_comparison(one, methods=["mtl"])


@pytest.mark.parametrize("command", ["train", "compare"])
def test_nothing_is_written(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(to_yaml(recipe(tiny_model, tiny_panx, "mtl", options={})))
    monkeypatch.chdir(tmp_path)
    words = [command, "tiny.yaml", "--dry-run", "--json", *(["--methods", "mtl"] if command == "compare" else [])]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)["estimate"]
    assert told["rows"][0]["method"] == "mtl"
    assert told["notes"][0].startswith("about ")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]
