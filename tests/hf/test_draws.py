"""Draws that are made ahead of the optimizer are those that it would ask for."""

import pytest
import torch
from torch.optim import SGD

from multitune.hf.draws import InnerLoops, Turns
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
