"""Which task next: distributions over tasks as pure functions, and checkpointable samplers that draw from them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

ROUNDING = 1e-12
"""A task as likely as this to be left out of a draw is always in it."""


def proportional(sizes: Sequence[int], exponent: float = 0.2) -> Tensor:
    """p_t proportional to N_t^q (temperature sampling with temperature 1/q; the papers take q = 1/5).

    Args:
        sizes: training examples of each task.
        exponent: q; 0 is uniform, 1 proportional to size.

    Returns:
        Probabilities, float64 [tasks].

    Raises:
        ValueError: no tasks, a task without examples, or a negative exponent.
    """
    if exponent < 0:
        raise ValueError(f"exponent={exponent}: choose 0 (uniform) or more")
    # Relative to the largest, so that no power of a corpus size overflows.
    counts = _counts(sizes)
    return _normalised((counts / counts.max()) ** exponent)


def uniform(num_tasks: int) -> Tensor:
    """p_t = 1 / T, float64 [tasks].

    Raises:
        ValueError: fewer than one task.
    """
    if num_tasks < 1:
        raise ValueError(f"num_tasks={num_tasks}: at least one task is needed")
    return torch.full((num_tasks,), 1.0 / num_tasks, dtype=torch.float64)


def unimax(sizes: Sequence[int], budget: float, max_epochs: float) -> Tensor:
    """UniMax: as uniform as the small tasks allow, none repeated more than ``max_epochs`` times.

    Algorithm 1 of "UniMax: Fairer and more Effective Language Sampling for Large-Scale Multilingual Pretraining",
    arXiv 2304.09151: from the smallest task to the largest, each gets an equal share of what is left of the budget,
    but at most ``max_epochs`` times its size.

    Args:
        sizes: training examples of each task (the paper counts characters).
        budget: examples that the whole training will draw, in the unit of ``sizes``.
        max_epochs: the most often that a task's data may be repeated.

    Returns:
        Probabilities, float64 [tasks].

    Raises:
        ValueError: no tasks, a task without examples, or a budget or epochs that are not positive.
    """
    if budget <= 0 or max_epochs <= 0:
        raise ValueError(f"budget={budget}, max_epochs={max_epochs}: both must be positive")
    counts = _counts(sizes)
    shares = torch.zeros_like(counts)
    left = float(budget)
    for done, task in enumerate(counts.argsort(stable=True).tolist()):
        shares[task] = min(left / (len(counts) - done), float(counts[task]) * max_epochs)
        left -= float(shares[task])
    return _normalised(shares)


def task_probabilities(
    sampling: str, sizes: Sequence[int], *, exponent: float, budget: float, max_epochs: float
) -> Tensor:
    """p by the name that recipes have for it, float64 [tasks].

    Args:
        sampling: "uniform", "unimax" or "proportional".
        sizes: examples of each task.
        exponent: q of "proportional", p_t ~ N_t^q.
        budget: examples that training draws, of all tasks together; "unimax" counts with it.
        max_epochs: the most often that "unimax" repeats a task's examples.
    """
    if sampling == "uniform":
        return uniform(len(sizes))
    if sampling == "unimax":
        return unimax(sizes, budget, max_epochs)
    assert sampling == "proportional"
    return proportional(sizes, exponent)


class TaskSampler(ABC):
    """Draws tasks from its own generator; its state is that generator's (and whatever a subclass adds)."""

    def __init__(self, probabilities: Tensor, generator: torch.Generator) -> None:
        self._probabilities = probabilities.to("cpu", torch.float64)
        self._generator = generator

    @property
    def probabilities(self) -> Tensor:
        """How often each task comes in the long run when drawn one at a time, float64 [tasks]."""
        return self._probabilities

    @abstractmethod
    def draw(self, n: int) -> list[int]:
        """The next ``n`` tasks.

        Raises:
            ValueError: n is below 1 or more than this sampler can give at once.
        """

    def state_dict(self) -> dict[str, Any]:
        """All that a resume needs: tensors and lists of numbers."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state`` was taken."""
        self._generator.set_state(state["generator"].cpu())  # torch.load(map_location=...) may have moved it


@final
class CategoricalSampler(TaskSampler):
    """t ~ Cat(p), each draw independent of the others (Sequential Reptile, Eq. 5).

    Args:
        probabilities: [tasks], from :func:`proportional`, :func:`uniform` or :func:`unimax`, or any weights that sum
            to 1; a task of probability 0 is never drawn.
        generator: a CPU generator, advanced by every draw.

    Raises:
        ValueError: probabilities that are negative, not finite or do not sum to 1.
    """

    def __init__(self, probabilities: Tensor, *, generator: torch.Generator) -> None:
        super().__init__(probabilities, generator)
        _check(self.probabilities)

    def draw(self, n: int) -> list[int]:
        if n < 1:
            raise ValueError(f"cannot draw {n} tasks: draw at least one")
        drawn = torch.multinomial(self.probabilities, n, replacement=True, generator=self._generator)
        return [int(task) for task in drawn]


@final
class SystematicSampler(TaskSampler):
    """Distinct tasks, each as often as p asks for, with the weights that make up for what distinctness costs.

    Systematic sampling (Madow, 1949) on the tasks in random order. Task t is among the n of a draw with probability
    pi_t = min(1, c p_t), c such that sum_t pi_t = n; weighted by :meth:`weights`, p_t / pi_t, its expected share of
    their sum is p_t. The weights of a draw sum to 1. Where n is the number of tasks, all are drawn, with weights p.

    Args:
        probabilities: as of :class:`CategoricalSampler`.
        generator: a CPU generator, advanced by every draw.

    Raises:
        ValueError: as :class:`CategoricalSampler` does.
    """

    def __init__(self, probabilities: Tensor, *, generator: torch.Generator) -> None:
        super().__init__(probabilities, generator)
        _check(self.probabilities)

    def draw(self, n: int) -> list[int]:
        pi = inclusion(self.probabilities, n)
        order = torch.randperm(len(pi), generator=self._generator)
        certain, others = order[pi[order] == 1.0], order[pi[order] < 1.0]
        drawn = torch.cat([certain, others[systematic(pi[others], self._generator)]])
        return [int(task) for task in drawn[torch.randperm(n, generator=self._generator)]]

    def weights(self, tasks: Sequence[int]) -> Tensor:
        """p_t / pi_t of the tasks of a draw, float64 [n]; they sum to 1."""
        drawn = torch.tensor(tasks)
        return _normalised((self.probabilities / inclusion(self.probabilities, len(tasks)))[drawn])


def inclusion(probabilities: Tensor, n: int) -> Tensor:
    """How likely each task is among n distinct ones: min(1, c p_t), c such that they sum to n; float64 [tasks].

    Raises:
        ValueError: n is below 1 or above the number of tasks that are ever drawn.
    """
    available = int(torch.count_nonzero(probabilities))
    if not 1 <= n <= available:
        raise ValueError(f"cannot draw {n} distinct tasks of {available}: draw from 1 to {available}")
    pi = n * probabilities
    while (certain := pi > 1.0 - ROUNDING).any() and not bool((pi[certain] == 1.0).all()):
        rest = probabilities.masked_fill(certain, 0.0)
        scale = (n - int(certain.sum())) / (float(rest.sum()) or 1.0)
        pi = torch.where(certain, 1.0, scale * rest)
    return pi


def systematic(expected: Tensor, generator: torch.Generator) -> Tensor:
    """Indices drawn so that i comes ``expected[i]`` times on average, and never more than one time off that.

    Args:
        expected: float64 [n]; their sum, a whole number, is how many indices are drawn.

    Returns:
        Indices in ascending order, int64.
    """
    start = torch.rand((), dtype=torch.float64, generator=generator)
    points = start + torch.arange(round(float(expected.sum())), dtype=torch.float64)
    return torch.searchsorted(expected.cumsum(0), points, right=True).clamp(max=len(expected) - 1)


@final
class EpochSampler(TaskSampler):
    """Every task so many times in random order, then again in another order, and so on.

    Each run of draws of an epoch's length that starts at a multiple of it is one epoch, however the draws are cut.

    Args:
        num_tasks: T.
        generator: a CPU generator, advanced once per epoch.
        times: how often each task comes in an epoch; default: once, as in the inner loops of Fish.

    Raises:
        ValueError: fewer than one task, or times that are not T positive numbers.
    """

    def __init__(self, num_tasks: int, *, generator: torch.Generator, times: Sequence[int] | None = None) -> None:
        counts = num_tasks * uniform(num_tasks) if times is None else _counts(times)
        if len(counts) != num_tasks:
            raise ValueError(f"times has {len(counts)} numbers for num_tasks={num_tasks}: give one a task")
        super().__init__(_normalised(counts), generator)
        self._epoch = torch.arange(num_tasks).repeat_interleave(counts.round().long())
        self._order: Tensor | None = None
        self._before, self._drawn = generator.get_state(), 0

    def begin(self, inner_steps: int) -> None:
        """Begin an inner loop with the next draw: one that is as long as whole epochs begins with an epoch.

        What is left of the last one, as after a step that was left out, is then dropped.
        """
        if self._order is not None and inner_steps % len(self._order) == 0:
            self._drawn = len(self._order)

    def draw(self, n: int) -> list[int]:
        if n < 1:
            raise ValueError(f"cannot draw {n} tasks: draw at least one")
        drawn: list[int] = []
        while len(drawn) < n:
            if self._order is None or self._drawn == len(self._order):
                self._order, self._drawn = self._shuffled(), 0
            part = self._order[self._drawn : self._drawn + n - len(drawn)].tolist()
            self._drawn += len(part)
            drawn += part
        return drawn

    def state_dict(self) -> dict[str, Any]:
        """The generator before it shuffled this epoch, and how many tasks of it are drawn."""
        return {"generator": self._before, "drawn": self._drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._before, self._order, self._drawn = self._generator.get_state(), None, 0
        if state["drawn"]:  # else the first draw begins the epoch, as it would have
            self._order, self._drawn = self._shuffled(), state["drawn"]

    def _shuffled(self) -> Tensor:
        self._before = self._generator.get_state()
        return self._epoch[torch.randperm(len(self._epoch), generator=self._generator)]


@final
class PermutedSampler(TaskSampler):
    """Inner loops of K steps that meet each task K p_t times, rounded up or down, in random order.

    A task's expected count is K p_t exactly (:func:`systematic`). With K = T and uniform p every task comes once, as in
    the inner loops of Fish.

    Args:
        probabilities: [tasks], as :class:`CategoricalSampler` takes them.
        inner_steps: K of the inner loops; one begins where the last one ends, or where :meth:`begin` is called.
        generator: a CPU generator, advanced once per inner loop.

    Raises:
        ValueError: inner_steps below 1, or probabilities as of :class:`CategoricalSampler`.
    """

    def __init__(self, probabilities: Tensor, inner_steps: int, *, generator: torch.Generator) -> None:
        super().__init__(probabilities, generator)
        _check(self.probabilities)
        self._left: list[int] = []
        self.begin(inner_steps)

    def begin(self, inner_steps: int) -> None:
        """Begin an inner loop of ``inner_steps`` steps with the next draw; what is left of the last one is dropped.

        Raises:
            ValueError: inner_steps below 1.
        """
        if inner_steps < 1:
            raise ValueError(f"inner_steps={inner_steps}: at least one inner step is needed")
        self._inner_steps, self._left = inner_steps, []

    def draw(self, n: int) -> list[int]:
        if n < 1:
            raise ValueError(f"cannot draw {n} tasks: draw at least one")
        while len(self._left) < n:
            self._left += self._inner_loop()
        drawn, self._left = self._left[:n], self._left[n:]
        return drawn

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"inner_steps": self._inner_steps, "left": list(self._left)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._inner_steps, self._left = state["inner_steps"], [int(task) for task in state["left"]]

    def _inner_loop(self) -> list[int]:
        """Tasks in random order, as often as a systematic draw on the shuffled tasks says, shuffled again."""
        tasks = self.probabilities.nonzero().squeeze(1)
        tasks = tasks[torch.randperm(len(tasks), generator=self._generator)]
        drawn = tasks[systematic(self._inner_steps * self.probabilities[tasks], self._generator)]
        return [int(task) for task in drawn[torch.randperm(len(drawn), generator=self._generator)]]


def _check(probabilities: Tensor) -> None:
    total = float(probabilities.sum())
    if probabilities.ndim != 1 or not abs(total - 1.0) < 1e-6 or bool((probabilities < 0).any()):
        raise ValueError(f"probabilities sum to {total}: a vector of non-negative numbers that sum to 1 is needed")


def _counts(sizes: Sequence[int]) -> Tensor:
    if not len(sizes):
        raise ValueError("no tasks: give the number of training examples of at least one task")
    for task, size in enumerate(sizes):
        if size <= 0:
            raise ValueError(f"task {task} has {size} training examples: leave it out, or give it some")
    return torch.tensor(sizes, dtype=torch.float64)


def _normalised(weights: Tensor) -> Tensor:
    return weights / weights.sum()
