"""How often a step waits for the device, from the drawing of its tasks to the optimizer's step, of each method."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builders import RECORDS, corpus, prepared, recipe
from device_reads import DEVICE, DeviceReads
from multitune.data import sets
from multitune.plans import METHODS, find
from multitune.plans.combined import SeveralTasks
from multitune.plans.two_loop import TwoLoopPlan
from multitune.recipe import Recipe
from multitune.training.run import Run
from tiny_causal import commands, make

K = 2
"""Steps of an inner loop."""


def counted(run: Run) -> Iterator[DeviceReads]:
    """The waits of each step of an inner loop after the first, in which states are made."""
    device = DeviceReads([*run.encoder.model.parameters(), *run.encoder.model.buffers()])
    run.encoder.device = DEVICE
    for number in range(2 * K):
        with device.counting():
            run.update.advance(1e-3, 0.5)
            drawn = run.update.draw(4)
            run.update.step(drawn, [run.next_loss(task, []) for task in drawn])
        if number >= K:
            yield device


REPLAY: dict[str, Any] = {"replay": {"share": 0.4}, "average": "ema"}


@pytest.mark.parametrize(
    ("method", "keys"),
    [*((method, {}) for method in [*METHODS, "torchjd:UPGrad"]), ("sequential", REPLAY), ("gradnorm", REPLAY)],
)
def test_a_step_reads_once_what_one_batch_has_made_and_twice_what_several_have(
    method: str, keys: dict[str, Any], tiny_model: Path, tiny_panx: Path
) -> None:
    if method.startswith("torchjd"):
        pytest.importorskip("torchjd")
    two_loops, several = (issubclass(find(method), kind) for kind in (TwoLoopPlan, SeveralTasks))
    options = {"inner_steps": K} if two_loops else {}
    run = prepared(recipe(tiny_model, tiny_panx, method, options=options, **keys))
    for device in counted(run):
        outer = two_loops and run.update.ships_anew  # which looks whether the fast weights are finite
        assert device.reads.total() == 1 + several + outer, device.reads
        assert not device.uploads


MASKS = {"translation": 3}
"""Kinds whose models make masks of their own, each of which transformers reads."""


@pytest.mark.parametrize("kind", [*sorted(RECORDS), "causal_lm"])
def test_a_step_reads_once_of_any_kind_of_task(
    kind: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = commands() if kind == "causal_lm" else corpus(kind)
    monkeypatch.setitem(sets.DATASETS, kind, lambda wanted, bad: data)
    models = {"image_classification": "scratch:convnet", "translation": "scratch:transformer"}
    model = str(make(tmp_path / "llama")) if kind == "causal_lm" else models.get(kind, str(tiny_model))
    keys: dict[str, Any] = {"method": "sequential", "layers": 1, "batch_size": 4, "max_length": 64}
    for device in counted(prepared(Recipe(model=model, data=kind, **keys))):
        assert device.reads.total() <= 1 + MASKS.get(kind, 0), device.reads
        assert not device.uploads
