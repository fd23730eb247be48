"""Schedules against values worked by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from multitune.methods.schedule import Linear, value_at


@pytest.mark.parametrize(
    ("schedule", "progress", "value"),
    [
        (0.3, None, 0.3),
        (Linear(1.0, 0.0), 0.0, 1.0),
        (Linear(1.0, 0.0), 0.25, 0.75),
        (Linear(0.1, 1.0), 1.0, 1.0),
        (Linear(0.0, 4.0, until=0.5), 0.25, 2.0),
        (Linear(0.0, 4.0, until=0.5), 0.75, 4.0),
    ],
)
def test_value_of_a_schedule(schedule: Any, progress: float | None, value: float) -> None:
    assert value_at(schedule, progress) == value


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: value_at(Linear(2.0, 4.0), None), "set .progress"),
        (lambda: value_at(Linear(2.0, 4.0), 1.5), "progress=1.5"),
        (lambda: value_at(Linear(2.0, 4.0), -0.1), "progress=-0.1"),
        (lambda: Linear(0.0, 1.0, until=0.0), "until=0.0"),
    ],
)
def test_mistakes_are_explained(mistake: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mistake()
