"""Which example comes when: a step's tasks are drawn, and each gives the next of its own examples."""

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import final

import torch
from torch.utils.data import Sampler

from multitune.seeds import seeded

Draw = Callable[[int], Sequence[int]]
"""The tasks of a step, by its number. It is asked for steps 0, 1, 2, ... in order, each once."""


@final
class ExampleOrder(Sampler[int]):
    """Indices of examples, step by step, over any number of epochs.

    All follows from the seed and the draws, so a place in the order is a number. A task's examples are shuffled anew
    whenever all of them have come; its last ones and the first ones of the next pass share a batch.

    Args:
        examples: each task's indices into the data set.
        draw: the tasks of a step.
        tasks_per_step: how many these are.
        examples_per_task: how many examples each of them gives to a step.
        seed: of the order of examples.

    Attributes:
        step_size: examples of a step.
        steps_per_epoch: the fewest steps that have as many examples as the data set.
        epoch: the one that is to come, or is under way.
        left_out: steps of the epochs before it that did not take place, which come next.
    """

    def __init__(
        self,
        examples: Sequence[Sequence[int]],
        draw: Draw,
        *,
        tasks_per_step: int,
        examples_per_task: int,
        seed: int,
    ) -> None:
        self._examples, self._draw, self._seed = [list(indices) for indices in examples], draw, seed
        self._per_step, self._per_task = tasks_per_step, examples_per_task
        self.step_size = tasks_per_step * examples_per_task
        self.steps_per_epoch = math.ceil(sum(map(len, self._examples)) / self.step_size)
        self.epoch, self._skip, self._given, self.left_out = 0, 0, 0, 0
        self._drawn = array("L")
        self._shuffled: dict[int, tuple[int, list[int]]] = {}

    def __len__(self) -> int:
        """Examples of an epoch."""
        return self.steps_per_epoch * self.step_size

    @property
    def place(self) -> int:
        """Examples given since the very first."""
        return self.epoch * len(self) + self._given

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration be that of an epoch; where it is the present one already, nothing changes."""
        if epoch != self.epoch:
            self.epoch, self._skip, self._given = epoch, 0, 0

    def go_to(self, place: int) -> None:
        """Let the next iteration begin after so many examples, and end with their epoch."""
        self.epoch, self._skip = divmod(place, len(self))
        self._given = self._skip

    def tasks(self, step: int) -> list[int]:
        """The tasks of a step, in order."""
        while len(self._drawn) <= step * self._per_step:
            self._drawn.extend(self._draw(len(self._drawn) // self._per_step))
        return self._drawn[step * self._per_step : (step + 1) * self._per_step].tolist()

    def __iter__(self) -> Iterator[int]:
        self._given, self._skip = self._skip, 0
        for index in islice(self._epoch(), self._given, None):
            self._given += 1
            yield index
        self.set_epoch(self.epoch + 1)

    def _epoch(self) -> Iterator[int]:
        first = self.epoch * self.steps_per_epoch - self.left_out
        turns = Counter(task for step in range(first) for task in self.tasks(step))
        for step in range(first, first + self.steps_per_epoch):
            for task in self.tasks(step):
                yield from self._next(task, turns[task])
                turns[task] += 1

    def _next(self, task: int, turn: int) -> Iterator[int]:
        """Give a task's examples at its turn, counted from 0."""
        for number in range(turn * self._per_task, (turn + 1) * self._per_task):
            passed, place = divmod(number, len(self._examples[task]))
            yield self._pass(task, passed)[place]

    def _pass(self, task: int, number: int) -> list[int]:
        """A task's examples in the order of their ``number``-th pass."""
        if self._shuffled.get(task, (-1,))[0] != number:
            indices = self._examples[task]
            order = torch.randperm(len(indices), generator=seeded(self._seed, "examples", task, number)).tolist()
            self._shuffled[task] = number, [indices[place] for place in order]
        return self._shuffled[task][1]
