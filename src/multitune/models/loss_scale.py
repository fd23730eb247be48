"""A loss scale: without one, most gradients of an fp16 pass are below its smallest number.

Micikevicius et al., Mixed Precision Training, ICLR 2018 (arXiv 1710.03740), section 3.2.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

FIRST, PATIENCE = 2.0**16, 2000
"""The scale of the first step, and the good steps in a row after which it doubles: torch's GradScaler's."""


class LossScale:
    """Gradients are ``value`` times as large between the loss and the weights, and as ever outside of the graph.

    Whoever takes gradients, by ``backward`` or by ``torch.autograd.grad``, gets those of the loss as it is. What became
    infinite on the way stays so: such a step is to be left out, and ``following`` says the next scale. Scales are
    powers of two, so that they change no bit of what fp16 can hold.

    Args:
        weights: the leaves of the graph that need gradients.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self.value, self._on = FIRST, False
        for weight in weights:
            weight.register_hook(lambda gradient: gradient / self.value if self._on else gradient)

    def scaled(self, loss: Tensor) -> Tensor:
        """The same value, with a gradient ``value`` times as large."""
        self._on = True
        scaled: Tensor = _Scaled.apply(loss, self.value)  # type: ignore[no-untyped-call]
        return scaled

    @contextmanager
    def off(self) -> Iterator[None]:
        """Inside, gradients of losses that are not ``scaled`` can be taken."""
        before, self._on = self._on, False
        try:
            yield
        finally:
            self._on = before


def following(value: float, good: int, *, overflowed: bool) -> tuple[float, int]:
    """The next scale and the number of good steps at it, after one step more.

    Args:
        good: steps at this scale so far.
        overflowed: whether the step's gradient was infinite or NaN.
    """
    if overflowed:
        return max(1.0, value / 2), 0
    return (value, good + 1) if good + 1 < PATIENCE else (2 * value, 0)


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, value: float) -> Tensor:
        ctx.value = value
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.value, None
