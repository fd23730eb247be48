"""Values that change while training: a plain number, or a pure function of the progress.

Progress is the share of the budget that is spent, from 0 to 1: gradient computations done over gradient computations
allowed. It is the one convention for every schedule (inner learning rate, outer learning rate, inner steps), so a
training loop that knows its budget can drive all of them, and a resumed run needs no schedule state.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

Schedule = Callable[[float], float]


@dataclass(frozen=True)
class Linear:
    """From ``start`` at progress 0 to ``end`` at progress ``until``, constant afterwards.

    An outer learning rate ``Linear(0.1, 1.0)`` rises to 1 while the inner learning rate decays by ``Linear(1.0, 0.0)``;
    Reptile's original runs use ``Linear(1.0, 0.0)`` outside.

    Raises:
        ValueError: ``until`` outside (0, 1].
    """

    start: float
    end: float
    until: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.until <= 1.0:
            raise ValueError(f"until={self.until}: a share of the training in (0, 1] is needed")

    def __call__(self, progress: float) -> float:
        """The value at ``progress`` in [0, 1]."""
        done = min(progress / self.until, 1.0)
        return (1.0 - done) * self.start + done * self.end


def value_at(value: float | Schedule, progress: float | None) -> float:
    """The value of a number (always itself) or of a schedule at ``progress``.

    Raises:
        ValueError: a schedule without progress, or progress outside [0, 1].
    """
    if not callable(value):
        return value
    if progress is None:
        raise ValueError("a schedule needs to know how far training is: set .progress = done / total before step()")
    if not 0.0 <= progress <= 1.0:
        raise ValueError(f"progress={progress}: a share of the training in [0, 1] is needed")
    return value(progress)


def inner_steps_at(value: float | Schedule, progress: float | None) -> int:
    """K, the steps of an inner loop that begins at ``progress``; what a schedule gives is rounded.

    Raises:
        ValueError: not a whole number, or below 1; and as ``value_at``.
    """
    steps = value_at(value, progress)
    if callable(value) and math.isfinite(steps):
        steps = round(steps)
    if not (float(steps).is_integer() and steps >= 1):
        raise ValueError(f"inner_steps={steps}: at least one inner step is needed, and a whole number of them")
    return int(steps)


def outer_lr_at(value: float | Schedule, progress: float | None) -> float:
    """eta, the outer learning rate at ``progress``; a schedule may reach 0.

    Raises:
        ValueError: above 1, below 0, or the number 0; and as ``value_at``.
    """
    eta = value_at(value, progress)
    if not 0.0 <= eta <= 1.0 or (eta == 0.0 and not callable(value)):
        raise ValueError(f"outer_lr={eta}: choose above 0 and up to 1 (the paper: 0.1)")
    return eta
