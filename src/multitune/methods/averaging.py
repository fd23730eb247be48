"""Weight averaging: the control that any method can be given, evaluated and shipped in place of the last weights."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor


class WeightAverage(ABC):
    """An average of the values that parameters had at each :meth:`update`.

    Which values, and how often, is the caller's choice: after every step, at each validation, or of a two-loop method's
    slow weights by an update within ``slow_weights()``.

    Args:
        parameters: the weights to average; nothing writes to them except :meth:`weights`.

    Raises:
        ValueError: no parameters.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._parameters = list(parameters)
        if not self._parameters:
            raise ValueError("no parameters to average: give model.parameters()")
        self._kept: list[list[Tensor]] = []

    @abstractmethod
    def update(self) -> None:
        """Take the parameters' present values into the average."""

    @contextmanager
    def weights(self) -> Iterator[None]:
        """Within this context the parameters have the averaged values.

        Their own come back bitwise, also after an exception; meanwhile they are held in one more copy.

        Raises:
            ValueError: before the first :meth:`update`.
        """
        if not self._kept:
            raise ValueError("nothing to average yet: call update() first")
        own = self._snapshot()
        try:
            self._write(self._average())
            yield
        finally:
            self._write(own)

    def state_dict(self) -> dict[str, Any]:
        """All that a resume needs: lists of tensors, which are the live ones."""
        return {"kept": [list(weights) for weights in self._kept]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state`` was taken.

        Raises:
            ValueError: the state belongs to other parameters.
        """
        for weights in state["kept"]:
            if [w.shape for w in weights] != [p.shape for p in self._parameters]:
                raise ValueError("this state belongs to other parameters: average those of the model that it came from")
        self._kept = [
            [w.to(p.device, copy=True) for w, p in zip(weights, self._parameters, strict=True)]
            for weights in state["kept"]
        ]

    @abstractmethod
    def _average(self) -> list[Tensor]:
        """The averaged weights, shaped as the parameters."""

    def _snapshot(self) -> list[Tensor]:
        return [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def _write(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(self._parameters, values)


@final
class ExponentialAverage(WeightAverage):
    """EMA: a <- decay a + (1 - decay) theta at each update, a = theta at the first; one more copy of the weights.

    Args:
        parameters: the weights to average.
        decay: in [0, 1); the average reaches back some 1 / (1 - decay) updates.

    Raises:
        ValueError: decay outside [0, 1), or no parameters.
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float = 0.999) -> None:
        super().__init__(parameters)
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay={decay}: choose at least 0 and below 1, e.g. 0.999")
        self._decay = decay

    @torch.no_grad()
    def update(self) -> None:
        if self._kept:
            torch._foreach_lerp_(self._kept[0], self._parameters, 1.0 - self._decay)
        else:
            self._kept = [self._snapshot()]

    def _average(self) -> list[Tensor]:
        return self._kept[0]


@final
class SnapshotAverage(WeightAverage):
    """The plain mean of the last ``n`` snapshots, one taken at each update; n more copies of the weights.

    Averaging the checkpoints of one run helps cross-lingual transfer by itself (Schmidt et al., arXiv 2305.16834).

    Args:
        parameters: the weights to average.
        n: snapshots to keep; the oldest is dropped.

    Raises:
        ValueError: n below 1, or no parameters.
    """

    def __init__(self, parameters: Iterable[Tensor], n: int = 5) -> None:
        super().__init__(parameters)
        if n < 1:
            raise ValueError(f"n={n}: at least one snapshot is needed")
        self._n = n

    def update(self) -> None:
        self._kept = [*self._kept, self._snapshot()][-self._n :]

    def _average(self) -> list[Tensor]:
        mean = [w.clone() for w in self._kept[0]]
        for taken, weights in enumerate(self._kept[1:], start=2):
            torch._foreach_lerp_(mean, weights, 1.0 / taken)
        return mean
