"""What a comparison reports: results.json in the folder of its runs' folders."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from multitune.results import html_tables
from multitune.results.json_files import JsonFile, read_object, typed
from multitune.results.run import FILE, Language, RunResult, Score, Sides

Method = Annotated[str, "method"]
Point = dict[Annotated[str, "key"], bool | int | float | str]
"""One value for each recipe key of a grid; empty without a grid."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval.

    Attributes:
        mean: the estimate.
        low: the lower end.
        high: the upper end.
    """

    mean: float
    low: float
    high: float


Estimates = Sides[Interval | None]
"""For seen and for unseen languages an estimate; None without such languages, or where a score is not finite."""


@dataclass(frozen=True)
class Pair:
    """A figure of ours and the paper's, in percent.

    Attributes:
        ours: measured here, the mean over seeds; null where a score is not finite.
        paper: printed there.
    """

    ours: Score
    paper: float


Row = dict[Method, Pair]


@dataclass(frozen=True)
class Beside:
    """Our figures and a paper's, in the methods and languages (or tasks) that both have; in percent.

    Attributes:
        table: its name, for instance ``table2``.
        title: what it shows.
        metric: the score.
        languages: the figures of each language (or task), as the runs call it.
        mean: over these languages.
        gains: what the means gain over joint training's; empty where that is not in both.
    """

    table: str
    title: str
    metric: str
    languages: dict[Language, Row]
    mean: Row
    gains: Row


@dataclass(frozen=True, kw_only=True)
class ComparedRun(RunResult):
    """A run of a comparison.

    Attributes:
        folder: the run's, inside the comparison's.
        grid: its point of the grid; empty without one.
    """

    folder: str
    grid: Point


@dataclass(frozen=True)
class FailedRun:
    """A run of a comparison that failed: no other figure of the comparison is of it.

    Attributes:
        method: its name.
        seed: of all that the run draws at random.
        folder: the run's, inside the comparison's.
        grid: its point of the grid; empty without one.
        error: what ended it, in a line.
    """

    method: str
    seed: int
    folder: str
    grid: Point
    error: str


@dataclass(frozen=True)
class Comparison(JsonFile):
    """What a comparison measured; scores in percent. An estimate is null where a method has no such languages.

    Attributes:
        runs: every finished run.
        chosen: the point of the grid that the summary shows of each method: of those with its largest budget, and all
            seeds finished where there is such a one, the best on dev; empty without a grid.
        metric: the score that is averaged over languages.
        baseline: the method that differences are from: mixed where it is among the methods, else mtl, else the first.
        summary: the average of each method over seen and over unseen languages; null also where all but one of its
            seeds failed.
        differences: what each other method gains over the baseline; of a metric that falls, how much lower it is.
        pairwise: what each method gains over each other one.
        interval: how low and high were computed.
        paper: the summarised runs beside a table of the paper, once a metric; empty where none was asked for.
        failed: the runs that failed; the same call of ``compare`` tries them again.
    """

    NAME: ClassVar[str] = FILE
    SCHEMA: ClassVar[int] = 1

    runs: list[ComparedRun]
    chosen: dict[Method, Point]
    metric: str
    baseline: str
    summary: dict[Method, Estimates]
    differences: dict[Method, Estimates]
    pairwise: dict[Method, dict[Method, Estimates]]
    interval: str
    paper: list[Beside] = field(default_factory=list)
    failed: list[FailedRun] = field(default_factory=list)

    @property
    def chosen_runs(self) -> list[ComparedRun]:
        """The runs that the summary is of: without a grid all."""
        return [run for run in self.runs if run.grid == self.chosen[run.method]]

    def _repr_html_(self) -> str:
        """The table of averages, which notebooks show."""
        return html_tables.of_comparison(self)

    def to_records(self) -> list[dict[str, Any]]:
        """The records of all runs, as ``RunResult.to_records`` has them, each with its point of the grid."""
        return [record | run.grid for run in self.runs for record in run.to_records()]


def read_results(folder: str | Path) -> RunResult | Comparison:
    """The results.json of a run or of a comparison.

    Raises:
        UserError: as ``JsonFile.read`` does.
    """
    path = Path(folder) / FILE
    content = read_object(path)
    if "runs" in content:
        return typed(content, Comparison, Comparison.SCHEMA, str(path))
    return typed(content, RunResult, RunResult.SCHEMA, str(path))
