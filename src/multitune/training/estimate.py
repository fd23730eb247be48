"""What a run will take: time and memory, from a few of its gradient computations."""

import time
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from multitune.evaluation.scoring import Encoded
from multitune.methods.base import NonFiniteError
from multitune.recipe_files import to_yaml
from multitune.screen.words import duration, size
from multitune.tasks import HeadMap
from multitune.training import run_state
from multitune.training.checkpoint import KEPT, Progress, flatten
from multitune.training.memory import peak_memory
from multitune.training.optimizer import learning_rate
from multitune.training.run import Run, Taken

FORWARD = 1 / 3
"""What a forward pass takes of a gradient computation, whose backward pass is about two of them."""
FIRST = 3
"""Gradient computations after which a run says what the rest of it will take."""
TRIED = 4
"""Gradient computations that are timed, at least; the step before them warms up."""


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to take.

    Attributes:
        seconds: of training and evaluations, but not of loading.
        memory_bytes: the most that the process, or the accelerator, has in use.
        gradients: computations, its budget.
        checkpoint_bytes: of one checkpoint.
        checkpoints: that are on disk at a time, with the one that is being written.
    """

    seconds: float
    memory_bytes: int
    gradients: int
    checkpoint_bytes: int
    checkpoints: int


def of_the_rest(run: Run, now: Progress) -> str:
    """What is left of a run that has taken its first steps, and the memory that it has had so far, in words."""
    seconds = expected_seconds(run, now.step_seconds / now.gradients, now.gradients)
    return f"about {duration(seconds)}, {size(peak_memory(run.encoder.device))}"


def expected_seconds(run: Run, seconds_a_gradient: float, done: int = 0) -> float:
    """Seconds that a run's gradient computations and evaluations take from the ``done``-th computation on."""
    return seconds_a_gradient * (run.recipe.budget - done + evaluations(run, done))


def evaluations(run: Run, done: int = 0) -> float:
    """What a run's evaluations after ``done`` gradient computations cost, in such, by the tokens that they read.

    Where a kind of task writes text, they take longer than that.
    """
    recipe, interval = run.recipe, run.recipe.validation_interval
    lengths = [run.heads.task(language).sizes(rows) for language, rows in run.examples.items()]
    read = recipe.batch_size * float(np.concatenate(lengths).mean())
    validations = -(-recipe.budget // interval) - done // interval
    tokens = validations * _size(run.heads, run.dev) + _size(run.heads, run.test)
    return FORWARD * tokens / read


def _size(heads: HeadMap, split: Encoded) -> float:
    return float(sum(heads.task(language).sizes(rows).sum() for language, rows in split.examples.items()))


def tried(run: Run) -> Estimate:
    """Take a few steps with a run, which is worth nothing afterwards, and tell what all of it will take.

    A checkpoint is copied in memory before it is written, so that its size is part of the memory.
    """
    recipe = run.recipe
    if run.loss_scale is not None:
        run.loss_scale.value = 1.0  # a step that overflows would leave the optimizer without its state
    began, done = time.monotonic(), _step(run, 0)
    if recipe.budget - done >= run.update.smallest_step:  # the first one made the optimizer's state: it does not count
        warm, began = done, time.monotonic()
        while done - warm < TRIED and recipe.budget - done >= run.update.smallest_step:
            done += _step(run, done)
        done -= warm
    a_gradient = (time.monotonic() - began) / done
    weights, update = dict(run.encoder.parameters()), run.update.state_dict()
    checkpoint = flatten(run_state.taken(run, Progress(), to_yaml(recipe), "", weights, update)).bytes
    return Estimate(
        seconds=expected_seconds(run, a_gradient),
        memory_bytes=peak_memory(run.encoder.device) + checkpoint,
        gradients=recipe.budget,
        checkpoint_bytes=checkpoint,
        checkpoints=KEPT + (recipe.select == "best") + 1,  # what a new one replaces goes when that is whole
    )


def _step(run: Run, begins: int) -> int:
    """Take one step; a loss that is not finite is timed like any other. Returns its gradient computations."""
    update, taken = run.update, list[Taken]()
    update.advance(learning_rate(run.recipe, begins), begins / run.recipe.budget)
    drawn = update.draw((run.recipe.budget - begins) // update.cost)
    with suppress(NonFiniteError):
        update.step(drawn, (run.next_loss(number, taken) for number in drawn))
    return update.cost * len(drawn)
