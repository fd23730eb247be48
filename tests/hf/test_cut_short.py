"""What callbacks, an interrupt and a gradient scaler cut short in a Trainer: epochs, a training, and steps."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from transformers import TrainerCallback

from multitune.errors import UserError
from multitune.hf import MultitaskTrainer
from tiny import SIZES, Interrupt, arguments, classifier, rows, same, trainer, weights

pytestmark = pytest.mark.check


class CutEpochs(TrainerCallback):
    """Ends epochs early."""

    def __init__(self, *steps: int) -> None:
        self._steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        control.should_epoch_stop = state.global_step in self._steps


def test_an_epoch_that_ends_early_closes_the_loop_where_it_is_the_last(tmp_path: Path) -> None:
    one = trainer(tmp_path, options={"inner_steps": 6, "outer_lr": 0.5}, num_train_epochs=1, max_steps=-1)
    one.add_callback(CutEpochs(8))
    one.train()
    assert one.two_loop is not None
    assert (one.two_loop.inner_step, one.two_loop.outer_steps) == (0, 2)
    with one.two_loop.slow_weights():
        slow = weights(one.model)
    assert same(weights(one.model), slow)


class Languages(MultitaskTrainer):
    """Keeps each micro-batch's language, and that of the row which it becomes."""

    pairs: ClassVar[list[tuple[str, str]]] = []

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        assert self._rows is not None
        of = {tuple(row["input_ids"]): row["language"] for row in rows()}
        self.pairs.append((of[tuple(inputs["input_ids"][0].tolist())], sorted(SIZES)[self._rows._tasks[0]]))
        return super().training_step(model, inputs, num_items_in_batch)


def test_rows_are_of_their_tasks_after_epochs_that_end_early(tmp_path: Path) -> None:
    given = arguments(tmp_path, num_train_epochs=3, max_steps=-1, gradient_accumulation_steps=2)
    one = Languages(classifier(), given, train_dataset=rows(), task_column="language", method="mtl")
    one.add_callback(CutEpochs(3, 6))
    one.train()
    assert len(one.pairs) == 2 * one.state.global_step > 2 * 8
    assert all(came == told for came, told in one.pairs)


class Loops(MultitaskTrainer):
    """Keeps the languages of each inner loop; ``spoilt`` steps have a gradient that is infinite."""

    def __init__(self, *args: Any, spoilt: tuple[int, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loops: list[list[str]] = []
        self._spoilt = spoilt
        if spoilt:
            self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        assert self.two_loop is not None
        if self.two_loop.inner_step == 0:
            self.loops.append([])
        of = {tuple(row["input_ids"]): row["language"] for row in rows()}
        self.loops[-1].append(of[tuple(inputs["input_ids"][0].tolist())])
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.state.global_step in self._spoilt:
            next(weight.grad for weight in model.parameters()).fill_(torch.inf)
        return loss


ORDERS: dict[str, tuple[dict[str, Any], list[list[str]]]] = {
    "fish": ({}, [["de", "fi", "sw"]]),
    "sequential_reptile": ({"order": "permuted", "inner_steps": 6}, [["de", "de", "fi", "fi", "sw", "sw"]]),
    "reptile": ({"inner_steps": 2}, [["de", "de"], ["fi", "fi"], ["sw", "sw"]]),
}
"""A method's options, and the languages of its inner loops."""


@pytest.mark.parametrize("what", ["epochs", "training", "steps"])
@pytest.mark.parametrize("method", ORDERS)
def test_inner_loops_have_their_languages_whatever_is_cut_short(tmp_path: Path, method: str, what: str) -> None:
    options, expected = ORDERS[method]
    one = Loops(
        classifier(),
        arguments(tmp_path, max_steps=24),
        train_dataset=rows(),
        task_column="language",
        sampling="uniform",
        method=method,
        options=options,
        spoilt=(0, 4, 5, 13) if what == "steps" else (),
    )
    if what == "epochs":
        one.add_callback(CutEpochs(4, 9))
    if what == "training":
        one.add_callback(Interrupt(5))
        with pytest.raises(KeyboardInterrupt):
            one.train()
        one.loops.clear()
    one.train()
    assert sum(map(len, one.loops)) == one.state.global_step >= 20
    whole = one.loops[:-1]  # the last one may be cut by the end
    assert [sorted(loop) for loop in whole] == (expected * 24)[: len(whole)]


@pytest.mark.parametrize(
    ("method", "options", "first", "then", "message"),
    [
        ("fish", {}, {"save_only_model": True}, {}, "step 4: an inner loop begins there either"),
        (
            "reptile",
            {"inner_steps": 3},
            {"save_only_model": True},
            {},
            "reptile: step 4 has a batch of task 1, and the ",
        ),
        (
            "sequential_reptile",
            {"order": "permuted", "inner_steps_end": 1},
            {},
            {"max_steps": 90},
            "step [4-9]: an inner",
        ),
    ],
)
def test_batches_of_other_inner_loops_are_refused(
    tmp_path: Path, method: str, options: dict[str, Any], first: dict[str, Any], then: dict[str, Any], message: str
) -> None:
    """Else each inner loop would go on with parts of two orders of the languages."""
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 4, "max_steps": 24}
    trainer(tmp_path, method, options, **(settings | first)).train()
    again = trainer(tmp_path / "again", method, options, **(settings | then))
    with pytest.raises(UserError, match=message):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


class BreakOff(TrainerCallback):
    """As Ctrl-C in a notebook, once, between two micro-batches of a step."""

    def __init__(self) -> None:
        self._left = 1

    def on_substep_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == 6 and self._left:
            self._left -= 1
            raise KeyboardInterrupt


def test_a_trainer_that_was_interrupted_within_a_step_resumes_to_the_same_bits(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"gradient_accumulation_steps": 3, "save_strategy": "steps", "save_steps": 5}
    whole = trainer(tmp_path / "whole", "gradvac", **settings)
    whole.train()
    one = trainer(tmp_path / "one", "gradvac", **settings)
    one.add_callback(BreakOff())
    with pytest.raises(KeyboardInterrupt):
        one.train()
    one.train(resume_from_checkpoint=True)
    assert same(weights(whole.model), weights(one.model))
