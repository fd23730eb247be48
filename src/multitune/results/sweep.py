"""What a sweep found: sweep.json in its folder."""

from dataclasses import dataclass
from typing import ClassVar

from multitune.results.comparison import Point
from multitune.results.json_files import JsonFile


@dataclass(frozen=True)
class SweptPoint:
    """A point of the grid in one rung.

    Attributes:
        grid: the values of its keys.
        dev: the dev average over seeds, in percent; null where a seed failed or a score is not finite.
        kept: whether it goes on to the next rung; in the last one, whether it wins.
    """

    grid: Point
    dev: float | None
    kept: bool


@dataclass(frozen=True)
class Rung:
    """Runs of one budget, each with its whole schedule.

    Attributes:
        folder: the comparison of its runs, inside the sweep's.
        budget: gradient computations of each run.
        points: the best first.
    """

    folder: str
    budget: int
    points: list[SweptPoint]


@dataclass(frozen=True)
class Sweep(JsonFile):
    """Successive halving over a grid (Jamieson and Talwalkar, 2016), on dev.

    Attributes:
        method: what was swept.
        metric: the score.
        seeds: runs of each point.
        rungs: the smallest budget first.
        winner: the point that is best in the last rung.
        gradients: computed by all runs.
        full_grid: what all points at the whole budget would compute.
    """

    NAME: ClassVar[str] = "sweep.json"
    SCHEMA: ClassVar[int] = 1

    method: str
    metric: str
    seeds: int
    rungs: list[Rung]
    winner: Point
    gradients: int
    full_grid: int
