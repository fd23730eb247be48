"""Weight averaging: the control that any method can be given, evaluated and shipped in place of the last weights."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor

from multitune.methods.sharded import divided_as, shards
from multitune.methods.slow_weights import precise


class WeightAverage(ABC):
    """An average of the values that parameters had at each :meth:`update`.

    Which values, and how often, is the caller's choice: after every step, at each validation, or once an outer step,
    by an update within a two-loop method's ``slow_weights()``. The average of bf16 and fp16 weights is kept in fp32,
    since they cannot hold what one more value changes.

    Args:
        parameters: the weights to average, which need not include frozen ones; nothing writes to them except
            :meth:`weights`.

    Raises:
        ValueError: no parameters.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._parameters = list(parameters)
        if not self._parameters:
            raise ValueError("no parameters to average: give model.parameters()")
        self._kept: list[list[Tensor]] = []

    @abstractmethod
    def update(self, elapsed: float = 1.0) -> None:
        """Take the parameters' present values into the average, ``elapsed`` (in any unit of time) after the last ones.

        Raises:
            ValueError: elapsed is not positive.
        """

    @contextmanager
    def weights(self) -> Iterator[None]:
        """Within this context the parameters have the averaged values.

        Their own come back bitwise, also after an exception; meanwhile they are held in one more copy.

        Raises:
            ValueError: before the first :meth:`update`.
        """
        if not self._kept:
            raise ValueError("nothing to average yet: call update() first")
        own = [p.detach().clone() for p in self._parameters]
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
            [divided_as(p, w.to(p.device, copy=True)) for w, p in zip(weights, self._parameters, strict=True)]
            for weights in state["kept"]
        ]

    @abstractmethod
    def _average(self) -> list[Tensor]:
        """The averaged weights, shaped as the parameters."""

    def _snapshot(self) -> list[Tensor]:
        return [p.detach().to(precise(p.dtype), copy=True) for p in self._parameters]

    @torch.no_grad()
    def _write(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(shards(self._parameters), shards(values))


@final
class ExponentialAverage(WeightAverage):
    """EMA: a <- a + w (theta - a), w = max(1 - decay, 1 / s) at update s; one more copy of the weights.

    So the first 1 / (1 - decay) values have equal weights, and the average is never biased towards the first of them.
    Where updates are not one unit of time apart, w = max(1 - decay^e, e / t), e the time since the last one and t that
    since the start.

    Args:
        parameters: the weights to average.
        decay: in [0, 1), for one unit of time; the average reaches back some 1 / (1 - decay) of them.

    Raises:
        ValueError: decay outside [0, 1), or no parameters.
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float = 0.999) -> None:
        super().__init__(parameters)
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay={decay}: choose at least 0 and below 1, e.g. 0.999")
        self._decay, self._time = decay, 0.0

    @torch.no_grad()
    def update(self, elapsed: float = 1.0) -> None:
        _check_time(elapsed)
        self._time += elapsed
        if not self._kept:
            self._kept = [self._snapshot()]
            return
        weight = max(1.0 - self._decay**elapsed, elapsed / self._time)
        values = [p.detach().to(kept.dtype) for p, kept in zip(self._parameters, self._kept[0], strict=True)]
        torch._foreach_lerp_(shards(self._kept[0]), shards(values), weight)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"time": self._time}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._time = state["time"]

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

    def update(self, elapsed: float = 1.0) -> None:
        """Keep one more snapshot; all have the same weight, whenever they were taken."""
        _check_time(elapsed)
        self._kept = [*self._kept, self._snapshot()][-self._n :]

    def _average(self) -> list[Tensor]:
        return mean_weights(self._kept)


@torch.no_grad()
def mean_weights(models: Iterable[Sequence[Tensor]]) -> list[Tensor]:
    """The plain mean of several models' weights, as new tensors; the mean of bf16 or fp16 weights is fp32.

    The mean of fine-tuned models that began at the same weights is the uniform model soup: Wortsman et al., "Model
    soups", ICML 2022, arXiv 2203.05482.

    Args:
        models: the weights of each, in one order; with a generator one model and the mean live at a time.

    Raises:
        ValueError: no models, or weights of other shapes.
    """
    mean: list[Tensor] = []
    for taken, weights in enumerate(models, start=1):
        if taken == 1:
            mean = [w.detach().to(precise(w.dtype), copy=True) for w in weights]
            continue
        _check_shapes(mean, weights)
        values = [w.detach().to(kept.dtype) for w, kept in zip(weights, mean, strict=True)]
        torch._foreach_lerp_(shards(mean), shards(values), 1.0 / taken)
    if not mean:
        raise ValueError("no models to average")
    return mean


@torch.no_grad()
def interpolated(start: Sequence[Tensor], end: Sequence[Tensor], weight: float) -> list[Tensor]:
    """start + weight (end - start), as new tensors; bitwise ``start`` at 0 and ``end`` at 1.

    Between pretrained and fine-tuned weights this is WiSE-FT: Wortsman et al., "Robust fine-tuning of zero-shot
    models", CVPR 2022, arXiv 2109.01903, Eq. 1, weight-space ensembling with alpha = weight.

    Raises:
        ValueError: weight outside [0, 1], or weights of other shapes.
    """
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"weight={weight}: choose 0 to 1")
    _check_shapes(start, end)
    return [torch.lerp(a, b, weight) for a, b in zip(start, end, strict=True)]


def _check_shapes(one: Sequence[Tensor], other: Sequence[Tensor]) -> None:
    if [w.shape for w in one] != [w.shape for w in other]:
        raise ValueError("the weights have other shapes: only models of one architecture have a mean")


def _check_time(elapsed: float) -> None:
    if not 0.0 < elapsed < math.inf:
        raise ValueError(f"elapsed={elapsed}: a positive time since the last update is needed")
