"""report.html: the answer, and what it rests on, in one file that needs no network."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from multitune.probes import typology
from multitune.reports import by_language, causes, outcomes, papers, repeat, sureness, training_curves, verdict
from multitune.reports.charts import SHAPES, plot_chart, rows_chart
from multitune.reports.classes import class_lines
from multitune.reports.colours import look
from multitune.reports.digits import alike
from multitune.reports.evidence import Evidence, FinishedRun, load
from multitune.reports.examples import examples
from multitune.reports.method_names import anchor, entries, full, linked
from multitune.reports.pictures import HeatMap, described
from multitune.reports.sureness import Sureness
from multitune.reports.verdict import Lead
from multitune.results.clusters import Clusters
from multitune.results.comparison import Estimates, Interval
from multitune.results.decimals import decimals
from multitune.results.falling import is_falling, unit
from multitune.results.run import SIDES, Sides, mean, milliseconds_a_gradient
from multitune.screen.stages import stage
from multitune.storage.atomic import write_text

FILE = "report.html"
NO_GAINS: Estimates = Sides(seen=None, unseen=None)


def write(folder: Path) -> Path:
    """Write the report of a run or of a comparison into its folder.

    Raises:
        UserError: the folder holds neither, or a file in it is damaged.
    """
    with stage("writing the report"):
        write_text(folder / FILE, render(load(folder)))
    return folder / FILE


def render(evidence: Evidence) -> str:
    """The page."""
    script = _own("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("report.html")
        .render(_contents(evidence), style=Markup(_own("report.css")), script=Markup(script), script_digest=digest)
    )


@cache
def _environment() -> Environment:
    """What templates name beside the page's contents; kept, as it compiles each template once."""
    environment = Environment(
        loader=PackageLoader("multitune.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"shapes": SHAPES, "look": look, "described": described, "sides": SIDES}
    environment.globals |= {"plot_chart": plot_chart, "rows_chart": rows_chart, "alike": alike}
    environment.globals |= {"name": full, "anchor": anchor}
    environment.filters |= {"interval": _interval, "signed": _signed, "number": _number, "name": full, "sense": _sense}
    environment.filters |= {"tag": _tag, "bounds": _bounds}
    environment.filters |= {"linked": linked}
    return environment


@dataclass(frozen=True)
class MethodLine:
    """A method in the table of the answer, at its chosen point of a grid: means over its runs, the largest memory.

    Attributes:
        steps: of the optimizer.
        milliseconds: a gradient computation.
    """

    method: str
    point: str
    sides: Sides[Interval | float | None]
    gains: Estimates
    drift: float | None
    steps: float | None
    milliseconds: float | None
    minutes: float
    gibibytes: float


def _contents(evidence: Evidence) -> dict[str, Any]:
    """What the template names."""
    leads = verdict.leads(evidence.comparison) if evidence.comparison else []
    leader = leads[0].leader if leads else evidence.methods[0]
    told, agreements = examples(_ordered(causes.first_runs(evidence), leader))
    maps = causes.heat_maps(evidence)
    alone = sureness.of_run(evidence.runs[0]) if evidence.comparison is None else None
    return {
        "evidence": evidence,
        "alone": alone,
        "digits": decimals(evidence.metric),
        "is_falling": is_falling(evidence.metric),
        "unit": unit(evidence.metric),
        "headline": _headline(evidence, leads) + verdict.chance(evidence),
        "leads": leads,
        "caveats": verdict.caveats(evidence),
        "leader": leader,
        "baseline": evidence.comparison.baseline if evidence.comparison else leader,
        "methods": [_method_line(evidence, method, alone) for method in evidence.methods if evidence.of(method)],
        "groups": by_language.groups(evidence, leader),
        "nearest": by_language.nearest(evidence, leader),
        "typology": typology.source(),
        "entries": entries(evidence.methods),
        "classes": class_lines(evidence),
        "averages": outcomes.averages(evidence),
        "plane": outcomes.plane(evidence),
        "sweeps": outcomes.sweeps(evidence),
        "paper": evidence.comparison.paper if evidence.comparison else [],
        "paper_baseline": papers.BASELINE,
        "curves": training_curves.curves(evidence),
        "cosine_against_loss": training_curves.cosine_against_loss(evidence),
        "maps": maps,
        "largest": _largest(maps),
        "by_layer": causes.by_layer(evidence),
        "proximity": causes.proximity(evidence),
        "retention": [*causes.retention(evidence), *causes.divergence(evidence)],
        "answers": causes.answers(evidence),
        "notes": causes.notes(evidence),
        "divisions": _divisions(evidence),
        "examples": told,
        "agreements": agreements,
        "recipe": repeat.recipe(evidence),
        "command": repeat.command(evidence),
    }


def _headline(evidence: Evidence, leads: list[Lead]) -> str:
    """The answer in a sentence."""
    if len(evidence.methods) == 1:
        return verdict.of_one(evidence)
    return verdict.headline(leads, one_seed=verdict.is_of_one_seed(evidence))


def _method_line(evidence: Evidence, method: str, alone: Sureness | None) -> MethodLine:
    results = [run.result for run in evidence.of(method)]
    comparison = evidence.comparison
    averages = results[0].average if alone is None else alone.sides
    return MethodLine(
        method=method,
        point=", ".join(f"{key}={value}" for key, value in evidence.of(method)[0].grid.items()),
        sides=comparison.summary[method] if comparison else averages,
        gains=comparison.differences.get(method, NO_GAINS) if comparison else NO_GAINS,
        drift=mean(result.drift for result in results),
        steps=mean(result.steps for result in results),
        milliseconds=milliseconds_a_gradient(results),
        minutes=sum(result.seconds for result in results) / len(results) / 60,
        gibibytes=max(result.peak_memory_bytes for result in results) / 2**30,
    )


def _divisions(evidence: Evidence) -> list[Clusters]:
    """What pseudo-tasks the shown runs had: the same ones in all of them, unless a grid is over their number."""
    divisions: list[Clusters] = []
    for run in evidence.shown:
        if run.division is not None and run.division not in divisions:
            divisions.append(run.division)
    return divisions


def _ordered(runs: Sequence[FinishedRun], leader: str) -> list[FinishedRun]:
    """The leader's run first."""
    return sorted(runs, key=lambda run: run.method != leader)


def _largest(maps: Sequence[HeatMap]) -> float:
    """The colour scale of all heat maps ends at their largest cosine of two languages."""
    pairs = (abs(v) for one in maps for row, values in enumerate(one.values) for v in values[:row])
    return max(pairs, default=1.0) or 1.0


def _own(name: str) -> str:
    return files("multitune.reports").joinpath("templates", name).read_text(encoding="utf-8")


def _number(value: float | None, digits: int = 1, sign: str = "") -> str:
    """A dash where there is none; the typographer's minus."""
    return "–" if value is None else f"{value:{sign}z.{digits}f}".replace("-", "−")


def _tag(language: str) -> str:
    """A language as HTML and browsers know it (BCP 47): ``xquad:de`` is ``de``, ``deu_Latn`` ``deu-Latn``."""
    return language.rpartition(":")[2].replace("_", "-")


def _sense(gain: float | None, digits: int) -> str:
    """The class of a gain: better, worse, or empty."""
    shown = 0.0 if gain is None else round(gain, digits)
    return "" if not shown else "better" if shown > 0 else "worse"


def _interval(estimate: Interval | float | None, digits: int) -> str:
    if isinstance(estimate, Interval):
        return f"{_number(estimate.mean, digits)} {_bounds(estimate, digits)}"
    return _number(estimate, digits)


def _bounds(interval: Interval, digits: int) -> str:
    return f"[{_number(interval.low, digits)}, {_number(interval.high, digits)}]"


def _signed(interval: Interval | None, digits: int) -> str:
    if interval is None:
        return ""
    middle, low, high = (_number(value, digits, sign="+") for value in (interval.mean, interval.low, interval.high))
    return f"{middle} [{low}, {high}]"
