"""What makes a comparison fair: common random numbers, one arithmetic, costs counted, what hardly trained is said."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import multitune as mt
from builders import comparison_file, prepared, recipe
from multitune.cli import tables
from multitune.cli.layout import fitted
from multitune.cli.sheet import Sheet
from multitune.plans import METHODS
from multitune.training.arithmetic import computing_as
from multitune.training.batching import Batches
from multitune.training.run import Run

MIXED = [name for name, plan in METHODS.items() if plan.mixes_tasks]
SINGLE = [name for name in METHODS if name not in {*MIXED, "swep"}]
"""SWEP's loss has noise of its own."""


def with_dropout(tiny_model: Path, tiny_panx: Path, method: str, **keys: Any) -> Run:
    return prepared(recipe(tiny_model, tiny_panx, method, dropout=0.3, **keys))


def first_of(run: Run) -> Batches:
    """The first stream of a run's mini-batches."""
    return next(iter(run.batches.values()))


@pytest.fixture(scope="module")
def first(tiny_model: Path, tiny_panx: Path) -> Run:
    return with_dropout(tiny_model, tiny_panx, "sequential")


@pytest.mark.parametrize("method", METHODS)
def test_methods_begin_with_the_same_weights(method: str, first: Run, tiny_model: Path, tiny_panx: Path) -> None:
    run = with_dropout(tiny_model, tiny_panx, method)
    for (name, weight), (_, expected) in zip(run.encoder.parameters(), first.encoder.parameters(), strict=True):
        assert torch.equal(weight, expected), name


@pytest.mark.parametrize("method", SINGLE)
def test_methods_meet_the_batches_of_a_task_in_one_order_with_the_same_dropout(
    method: str, tiny_model: Path, tiny_panx: Path
) -> None:
    """Whatever they draw between: what is random in a task's k-th mini-batch depends on seed, task and k alone."""
    one, other = with_dropout(tiny_model, tiny_panx, "sequential"), with_dropout(tiny_model, tiny_panx, method)
    other.loss(1)
    for k in range(12):
        expected = one.loss(0)
        if k % 3 == 0:
            other.loss(1)
        assert float(other.loss(0).detach()) == float(expected.detach())
        assert first_of(other).newest() == first_of(one).newest()


@pytest.mark.parametrize("method", MIXED)
def test_methods_with_mixed_batches_share_them(method: str, tiny_model: Path, tiny_panx: Path) -> None:
    one, other = with_dropout(tiny_model, tiny_panx, "mixed"), with_dropout(tiny_model, tiny_panx, method)
    losses = [(float(one.loss(0).detach()), float(other.loss(0).detach())) for _ in range(40)]
    assert all(expected == found for expected, found in losses)
    assert len({expected for expected, _ in losses}) == 40, "dropout differs from batch to batch"


def test_seeds_differ_in_all_of_it(tiny_model: Path, tiny_panx: Path) -> None:
    one, other = (with_dropout(tiny_model, tiny_panx, "sequential", seed=seed) for seed in (0, 1))
    head = "classifier.weight"
    assert not torch.equal(dict(one.encoder.parameters())[head], dict(other.encoder.parameters())[head])
    one.loss(0)
    other.loss(0)
    assert first_of(one).newest() != first_of(other).newest()


def test_runs_of_a_comparison_have_one_precision_and_number_of_threads(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path
) -> None:
    keys = {"budget": 2, "dev_limit": 1, "precision": "auto"}
    found = mt.compare(comparison_file(tiny_model, tiny_panx), tmp_path, methods=["mtl"], overrides=keys)
    before = found.runs[0].threads
    assert before is not None
    with computing_as(mt.Recipe(data="panx", threads=before + 1)):  # as if on another machine
        again = mt.compare(comparison_file(tiny_model, tiny_panx), tmp_path, methods=["mtl", "mixed"], overrides=keys)
    assert {(run.precision, run.threads) for run in again.runs} == {(found.runs[0].precision, before)}
    texts = [(tmp_path / f"{method}-seed0" / "recipe.yaml").read_text() for method in ("mtl", "mixed")]
    assert all(f"threads: {before}\n" in text and "precision: auto" not in text for text in texts)
    assert found.runs[0] == again.runs[0], "it is not run again"


def test_threads_are_the_recipes_and_are_recorded(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    before = torch.get_num_threads()
    result = mt.train(recipe(tiny_model, tiny_panx, budget=2, threads=2, dev_limit=1), tmp_path / "run")
    assert (result.threads, result.precision) == (2, "fp32")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("method", "steps"), [("mtl", 20), ("sequential", 40), ("mixed", 40), ("stl", 40), ("swep", 10)]
)
def test_steps_are_counted(tmp_path: Path, tiny_model: Path, tiny_panx: Path, method: str, steps: int) -> None:
    result = mt.train(recipe(tiny_model, tiny_panx, method, dev_limit=1), tmp_path / "run")
    assert result.steps == steps
    assert result.step_seconds is not None
    assert 0 < result.step_seconds < result.seconds
    assert "ms/grad" in (shown := printed(tables.runs([result])))
    assert f" {steps} " in shown


def test_a_run_that_hardly_moves_says_so_wherever_its_scores_stand(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"inner_steps": 1000, "outer_lr": 0.1}
    one = recipe(tiny_model, tiny_panx, "sequential_reptile", options=options, dev_limit=1)
    result = mt.train(one, tmp_path / "run", progress=True)
    note = "the shipped weights go 10% of the way that plain steps go (outer steps: 1)"
    assert note in capsys.readouterr().err
    assert note in json.loads((tmp_path / "run" / "results.json").read_text())["notes"][0]
    assert note in printed(tables.runs([result]))
    assert note in (tmp_path / "run" / "report.html").read_text()


def printed(sheet: Sheet) -> str:
    return fitted(sheet, None).plain
