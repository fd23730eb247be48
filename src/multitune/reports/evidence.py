"""What a run folder or the folder of a comparison holds, read for its report."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from multitune.errors import UserError
from multitune.recipe import Recipe
from multitune.recipe_files import read
from multitune.reports.method_names import full
from multitune.results import clusters, metrics, probes
from multitune.results.clusters import Clusters
from multitune.results.comparison import Comparison, FailedRun, Point, read_results
from multitune.results.metrics import Event, read_events
from multitune.results.predictions import Prediction, read_predictions
from multitune.results.probes import Findings
from multitune.results.run import FILE, RunResult, Side

Kind = TypeVar("Kind", bound=Event)


@dataclass(frozen=True)
class FinishedRun:
    """A finished run as its folder tells it.

    Attributes:
        grid: the values of its point of the comparison's grid; empty without one.
        events: those of metrics.jsonl; none where a run has a model for each language.
        probes: probes.json, where ``multitune probe`` wrote one.
        division: clusters.json, where the run's tasks were pseudo-tasks.
    """

    folder: Path
    recipe: Recipe
    result: RunResult
    grid: Point
    events: tuple[Event, ...]
    probes: Findings | None
    division: Clusters | None

    @property
    def method(self) -> str:
        """The method's name."""
        return self.result.method

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.result.seed

    def measured(self, event: type[Kind]) -> list[Kind]:
        """The events of one kind."""
        return [each for each in self.events if isinstance(each, event)]

    def predictions(self) -> Iterator[Prediction]:
        """What the model says of each test record."""
        return read_predictions(self.folder)


@dataclass(frozen=True)
class Evidence:
    """All that a report is made from.

    Attributes:
        runs: every run, those of all points of a grid.
        shown: the runs that summaries and curves are of: without a grid all, with one those of each method's chosen
            point.
        comparison: None for a single run.
    """

    folder: Path
    runs: tuple[FinishedRun, ...]
    shown: tuple[FinishedRun, ...]
    comparison: Comparison | None

    @property
    def metric(self) -> str:
        """The score that averages are of."""
        return self.runs[0].result.metric

    @property
    def methods(self) -> list[str]:
        """The methods, in the order in which they ran."""
        return list(dict.fromkeys(run.method for run in self.runs))

    @property
    def seeds(self) -> int:
        """Runs of each method, failed ones among them."""
        return len({run.seed for run in self.runs} | {run.seed for run in self.failed})

    @property
    def averaged(self) -> str:
        """What scores are the means over, in words; empty of a single seed."""
        if self.seeds == 1:
            return ""
        return "mean over the seeds that finished" if self.failed else f"mean over {self.seeds} seeds"

    @property
    def failed(self) -> list[FailedRun]:
        """The runs of the comparison that failed."""
        return self.comparison.failed if self.comparison else []

    def of(self, method: str) -> list[FinishedRun]:
        """The shown runs of a method, one a seed."""
        return [run for run in self.shown if run.method == method]

    def languages(self, side: Side) -> list[str]:
        """The languages that any method was tested on, seen or unseen."""
        return list(dict.fromkeys(language for run in self.runs for language in run.result.scores[side]))

    def label(self, run: FinishedRun | FailedRun) -> str:
        """What tells a run from the others: its method, and its point and seed where there are several."""
        grid = [f"{key}={value}" for key, value in run.grid.items()]
        seed = [f"seed {run.seed}"] if self.seeds > 1 else []
        return " ".join([full(run.method), *grid, *seed])


def load(folder: Path) -> Evidence:
    """Read a run folder or the folder of a comparison.

    Raises:
        UserError: neither of them, or a file in it that is damaged.
    """
    if not (folder / FILE).exists():
        raise UserError(f"{folder}: holds no finished run or comparison: there is no {FILE}")
    results = read_results(folder)
    if isinstance(results, RunResult):
        run = _finished(folder, {})
        return Evidence(folder, (run,), (run,), None)
    runs = tuple(_finished(folder / run.folder, run.grid) for run in results.runs)
    shown = tuple(run for run in runs if run.grid == results.chosen[run.method])
    return Evidence(folder, runs, shown, results)


def _finished(folder: Path, grid: Point) -> FinishedRun:
    if not (folder / FILE).exists() or not (folder / "recipe.yaml").exists():
        raise UserError(f"{folder}: holds no finished run; the report needs its recipe.yaml and {FILE}")
    return FinishedRun(
        folder=folder,
        recipe=read(folder / "recipe.yaml").resolve(),
        result=RunResult.read(folder),
        grid=grid,
        events=tuple(read_events(folder)) if (folder / metrics.FILE).exists() else (),
        probes=Findings.read(folder) if (folder / probes.FILE).exists() else None,
        division=Clusters.read(folder) if (folder / clusters.FILE).exists() else None,
    )
