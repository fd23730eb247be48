"""Which task next: distributions over tasks as pure functions, and checkpointable samplers that draw from them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor


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
        self._generator.set_state(state["generator"])


@final
class CategoricalSampler(TaskSampler):
    """t ~ Cat(p) (Sequential Reptile, Eq. 5), or, without replacement, distinct tasks within each draw.

    Args:
        probabilities: [tasks], from :func:`proportional`, :func:`uniform` or :func:`unimax`, or any weights that sum
            to 1; a task of probability 0 is never drawn.
        generator: a CPU generator, advanced by every draw.
        replacement: False draws the tasks of one ``draw`` one after the other from those left, as the combining
            methods do for their eight tasks a step.

    Raises:
        ValueError: probabilities that are negative, not finite or do not sum to 1.
    """

    def __init__(self, probabilities: Tensor, *, generator: torch.Generator, replacement: bool = True) -> None:
        super().__init__(probabilities, generator)
        total = float(self.probabilities.sum())
        if self.probabilities.ndim != 1 or not abs(total - 1.0) < 1e-6 or bool((self.probabilities < 0).any()):
            raise ValueError(f"probabilities sum to {total}: a vector of non-negative numbers that sum to 1 is needed")
        self._replacement = replacement

    def draw(self, n: int) -> list[int]:
        available = int(torch.count_nonzero(self.probabilities))
        if n < 1 or (n > available and not self._replacement):
            raise ValueError(f"cannot draw {n} distinct tasks of {available}: draw fewer, or set replacement=True")
        drawn = torch.multinomial(self.probabilities, n, self._replacement, generator=self._generator)
        return [int(task) for task in drawn]


@final
class EpochSampler(TaskSampler):
    """Every task once in random order, then every task once in another order, and so on (the inner loops of Fish).

    Each run of T tasks that starts at a multiple of T is a permutation, however the draws are cut.

    Args:
        num_tasks: T.
        generator: a CPU generator, advanced once per epoch.

    Raises:
        ValueError: fewer than one task.
    """

    def __init__(self, num_tasks: int, *, generator: torch.Generator) -> None:
        super().__init__(uniform(num_tasks), generator)
        self._left: list[int] = []

    def draw(self, n: int) -> list[int]:
        if n < 1:
            raise ValueError(f"cannot draw {n} tasks: draw at least one")
        while len(self._left) < n:
            order = torch.randperm(len(self.probabilities), generator=self._generator)
            self._left += [int(task) for task in order]
        drawn, self._left = self._left[:n], self._left[n:]
        return drawn

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"left": list(self._left)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._left = [int(task) for task in state["left"]]


def _counts(sizes: Sequence[int]) -> Tensor:
    if not len(sizes):
        raise ValueError("no tasks: give the number of training examples of at least one task")
    for task, size in enumerate(sizes):
        if size <= 0:
            raise ValueError(f"task {task} has {size} training examples: leave it out, or give it some")
    return torch.tensor(sizes, dtype=torch.float64)


def _normalised(weights: Tensor) -> Tensor:
    return weights / weights.sum()
