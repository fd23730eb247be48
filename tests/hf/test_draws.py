"""Draws that are made ahead of the optimizer are those that it would ask for."""

import pytest
import torch
from torch.optim import SGD

from multitune.hf.draws import InnerLoops, Turns
from multitune.hf.metrics import with_means
from multitune.methods import Linear, Reptile, SequentialReptile
from multitune.methods.schedule import Schedule

STEPS = 40


@pytest.mark.parametrize("inner_steps", [1, 3, Linear(5, 1), Linear(1, 6, until=0.5)])
@pytest.mark.parametrize("tasks", [1, 3])
def test_inner_loops_begin_where_the_optimizers_do(inner_steps: int | Schedule, tasks: int) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    reptile = Reptile(SGD([weight], lr=0.1), inner_steps, 0.5, num_tasks=tasks)
    loop = SequentialReptile(SGD([weight], lr=0.1), inner_steps, 0.5)
    turns, loops = Turns(tasks, InnerLoops(inner_steps, STEPS)), InnerLoops(inner_steps, STEPS)
    for step in range(STEPS):
        reptile.progress = loop.progress = step / STEPS
        assert turns(step) == [reptile.task]
        assert loops.begins(step) == (loop.inner_step == 0)
        weight.grad = torch.ones(2)
        reptile.step()
        weight.grad = torch.ones(2)
        loop.step()


def test_means_are_of_metrics_that_all_data_sets_have() -> None:
    """Also of those that a trainer logs without the data set's name."""
    found, means = with_means(
        {
            "en": {"eval_en_loss": 1.0, "eval_en_runtime": 3.0, "eval_entropy": 4.0, "epoch": 2.0},
            "en_x": {
                "eval_en_x_loss": 2.0,
                "eval_en_x_runtime": 5.0,
                "eval_entropy": 6.0,
                "eval_en_x_f1": 0.5,
                "epoch": 2.0,
            },
        },
        "eval",
    )
    assert means == {"eval_loss": 1.5, "eval_entropy": 5.0}
    assert (found["eval_en_entropy"], found["eval_en_x_entropy"]) == (4.0, 6.0)
    assert (found["eval_en_loss"], found["eval_en_x_f1"], found["epoch"]) == (1.0, 0.5, 2.0)
