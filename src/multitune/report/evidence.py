"""What a run folder or the folder of a comparison holds, read for its report."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multitune.errors import UserError
from multitune.recipe import Recipe, read
from multitune.results.run import FILE, RunResult

SIDES = ("seen", "unseen")
Estimate = Mapping[str, float]
"""``mean``, and with an interval ``low`` and ``high``."""
Sides = Mapping[str, Estimate | None]
"""For ``seen`` and ``unseen`` an estimate; None where a method has no such languages."""
Event = dict[str, Any]
"""A line of metrics.jsonl: ``gradients``, ``event``, ``seconds`` and what was measured."""


@dataclass(frozen=True)
class FinishedRun:
    """A finished run as its folder tells it.

    Attributes:
        grid: the values of its point of the comparison's grid; empty without one.
        events: the lines of metrics.jsonl; none where a run has a model for each language.
        probes: probes.json, where ``multitune probe`` wrote one.
        division: clusters.json, where the run's tasks were pseudo-tasks.
    """

    folder: Path
    recipe: Recipe
    result: RunResult
    grid: Mapping[str, Any]
    events: tuple[Event, ...]
    probes: Mapping[str, Any] | None
    division: Mapping[str, Any] | None

    @property
    def method(self) -> str:
        """The method's name."""
        return self.result.method

    def measured(self, event: str) -> list[Event]:
        """The lines of metrics.jsonl of one kind: ``train``, ``validate`` or ``probe``."""
        return [line for line in self.events if line["event"] == event]

    def predictions(self) -> Iterator[dict[str, Any]]:
        """The lines of predictions.jsonl."""
        yield from json_lines(self.folder / "predictions.jsonl")


@dataclass(frozen=True)
class Comparison:
    """The parts of a comparison's results.json that are about methods, not runs."""

    baseline: str
    interval: str
    summary: Mapping[str, Sides]
    differences: Mapping[str, Sides]
    pairwise: Mapping[str, Mapping[str, Sides]]
    paper: Sequence[Mapping[str, Any]]
    """As ``experiments.papers.Beside``, once a metric."""


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
        """In the order in which they ran."""
        return list(dict.fromkeys(run.method for run in self.runs))

    @property
    def seeds(self) -> int:
        """Runs of each method."""
        return len({run.result.seed for run in self.runs})

    def of(self, method: str) -> list[FinishedRun]:
        """The shown runs of a method, one a seed."""
        return [run for run in self.shown if run.method == method]

    def languages(self, side: str) -> list[str]:
        """The languages that any method was tested on, seen or unseen."""
        return list(dict.fromkeys(language for run in self.runs for language in getattr(run.result, side)))

    def label(self, run: FinishedRun) -> str:
        """What tells a run from the others: its method, and its point and seed where there are several."""
        grid = [f"{key}={value}" for key, value in run.grid.items()]
        seed = [f"seed {run.result.seed}"] if self.seeds > 1 else []
        return " ".join([run.method, *grid, *seed])


def load(folder: Path) -> Evidence:
    """Read a run folder or the folder of a comparison.

    Raises:
        UserError: neither of them, or a file in it that is damaged.
    """
    file = folder / FILE
    if not file.exists():
        raise UserError(f"{folder}: holds no finished run or comparison: there is no {FILE}")
    results = _json(file)
    if "runs" not in results:
        run = _finished(folder, {})
        return Evidence(folder, (run,), (run,), None)
    runs = tuple(_finished(folder / run["folder"], run["grid"]) for run in results["runs"])
    chosen = results["chosen"]
    return Evidence(
        folder,
        runs,
        tuple(run for run in runs if run.grid == chosen[run.method]),
        Comparison(
            **{key: results[key] for key in ("baseline", "interval", "summary", "differences", "pairwise")},
            paper=results.get("paper", []),
        ),
    )


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file with one a line.

    Raises:
        UserError: no such file, or a line that is none; the message has its number.
    """
    if not path.exists():
        raise UserError(f"{path}: is missing; the report is made from it")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            yield _object(line, f"{path}:{number}")


def _finished(folder: Path, grid: Mapping[str, Any]) -> FinishedRun:
    if not (folder / FILE).exists() or not (folder / "recipe.yaml").exists():
        raise UserError(f"{folder}: holds no finished run; the report needs its recipe.yaml and {FILE}")
    metrics, probes, clusters = (folder / name for name in ("metrics.jsonl", "probes.json", "clusters.json"))
    return FinishedRun(
        folder=folder,
        recipe=read(folder / "recipe.yaml").resolve(),
        result=RunResult.read(folder),
        grid=grid,
        events=tuple(json_lines(metrics)) if metrics.exists() else (),
        probes=_json(probes) if probes.exists() else None,
        division=_json(clusters) if clusters.exists() else None,
    )


def _json(path: Path) -> dict[str, Any]:
    return _object(path.read_text(encoding="utf-8"), str(path))


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON: {error.msg}") from error
    if not isinstance(found, dict):
        raise UserError(f"{where}: an object of JSON belongs here, not {text.strip()[:40]!r}")
    return found
