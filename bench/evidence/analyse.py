"""What the store says of the plan's questions; ``python bench/evidence/analyse.py`` prints it as JSON.

Nothing is trained here, and nothing but the store is read.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np

from choosing import (
    FEWEST,
    Waiting,
    choices_of,
    comparable,
    dev_scores,
    difference,
    half,
    level,
    named,
    pairs,
    seeds_of,
    tested,
    wanted,
)
from contrasts import Combination, Contrast, contrast, languages_of, reported
from inference import holm
from plan import PLAN, STORE, Plan, Row, Stage, read
from store import Stored
from store import read as stored
from verdicts import DECIDED, verdict

Said = TypeVar("Said")
ALPHA = 0.05
LOSSES = (1.0, 0.7, 0.5)
"""At which probed runs are compared, in nats an example."""


@dataclass(frozen=True)
class Progress:
    """How far a stage is.

    Attributes:
        done, of: rows; ``of`` is None where another stage has to choose first.
        waiting: why.
    """

    done: int
    of: int | None
    waiting: str


@dataclass(frozen=True)
class Compared:
    """A contender against the baseline.

    Attributes:
        seeds: paired ones that are stored, and planned ones.
        alpha: one minus the level of the intervals: that of the look; 0.05 where no look is due.
        look: "half", "end" or "between looks".
        verdict: the plan's word; empty where no look is due.
        corrected: p of ``unseen`` by Holm's method over all that confirming stages test; None of the runner-up.
    """

    setting: str
    contender: str
    seeds: tuple[int, int]
    alpha: float
    look: str
    unseen: Contrast
    seen: Contrast
    verdict: str
    corrected: float | None = None


def progress(plan: Plan, store: Path) -> dict[str, Progress]:
    """Stage -> how many of its rows are stored."""
    found = {}
    for name in plan.stages:
        try:
            rows = wanted(plan, store, name)
            found[name] = Progress(sum(stored(store, plan, row) is not None for row in rows), len(rows), "")
        except Waiting as reason:
            found[name] = Progress(0, None, str(reason))
    return found


def rows_of(plan: Plan, store: Path, name: str) -> dict[Row, Stored]:
    """The stored rows of a stage; none where it cannot begin."""
    try:
        rows = wanted(plan, store, name)
    except Waiting:
        return {}
    return {row: found for row in rows if (found := stored(store, plan, row)) is not None}


def paired(plan: Plan, store: Path, name: str, baseline: str = "") -> list[Compared]:
    """The stage's contenders against one of them (the plan's baseline), each with at least two pairs of seeds."""
    stage, rows = plan.stages[name], rows_of(plan, store, name)
    steps, baseline = {row.contender: row.step for row in rows}, baseline or plan.baseline
    if baseline not in steps:
        return []
    seeds = seeds_of(plan, stage, choices_of(store))
    found = []
    for contender in named(plan, stage, choices_of(store)):
        if contender in steps and contender != baseline:
            two = (contender, steps[contender]), (baseline, steps[baseline])
            both = pairs(plan, store, stage.setting, *two, seeds)
            if comparable(both):
                found.append(_compared(plan, store, stage, contender, both, seeds))
    return found


def of_kind(plan: Plan, kind: str, said: Callable[[str], Said]) -> dict[str, Said]:
    """Stage -> what is said of it, of those of a kind of which something is."""
    stages = (name for name, stage in plan.stages.items() if stage.kind == kind)
    return {name: found for name in stages if (found := said(name))}


def confirmed(plan: Plan, store: Path) -> list[Compared]:
    """All confirming comparisons, the verdicts of what the plan tests corrected over all of these."""
    stages, choices = of_kind(plan, "confirm", partial(paired, plan, store)), choices_of(store)
    found = [(name, each) for name, own in stages.items() for each in own]
    p_values = {
        (name, each.contender): min(1.0, each.unseen.these.p * ALPHA / each.alpha)
        for name, each in found
        if each.contender in tested(plan, plan.stages[name], choices)
    }
    corrected = holm(p_values)
    return [
        _corrected(plan, each, corrected[name, each.contender]) if (name, each.contender) in corrected else each
        for name, each in found
    ]


def robustness(plan: Plan, store: Path, name: str) -> dict[str, Contrast]:
    """Contender -> its mean unseen score over the rates (area over log rate, by width) minus the baseline's.

    A rate at which a run diverged counts with a score of 0: it is what robustness is about.
    """
    stage, rows = plan.stages[name], rows_of(plan, store, name)
    shares = area_shares([math.log(plan.rate.at(step)) for step in stage.steps])
    weights = dict(zip(stage.steps, shares, strict=True))
    curves: dict[str, dict[int, list[tuple[float, Stored]]]] = {}
    for row, found in rows.items():
        curves.setdefault(row.contender, {}).setdefault(row.seed, []).append((weights[row.step], found))
    whole = {
        contender: {seed: own for seed, own in seeds.items() if len(own) == len(weights)}
        for contender, seeds in curves.items()
    }
    base = whole.pop(plan.baseline, {})
    return {
        contender: _area_contrast(plan, store, stage.setting, seeds, base)
        for contender, seeds in whole.items()
        if len(seeds.keys() & base.keys()) >= FEWEST and any(map(_has_scores, (seeds, base)))
    }


def _has_scores(seeds: Mapping[int, Combination]) -> bool:
    """Whether a run has not diverged."""
    return any(not row.failed for own in seeds.values() for _, row in own)


def area_shares(places: Sequence[float]) -> list[float]:
    """What each of some points counts in the area under straight lines between them, divided by the width."""
    gaps = np.diff(places)
    shares: list[float] = ((np.append(gaps, 0) + np.append(0, gaps)) / 2 / gaps.sum()).tolist()
    return shares


@dataclass(frozen=True)
class Probed:
    """What a contender's probed runs say, a value a run.

    Attributes:
        cosines, drifts: loss -> where the mean loss was that.
        skills: probe -> side -> value.
    """

    cosines: Mapping[float, list[float]]
    drifts: Mapping[float, list[float]]
    skills: Mapping[str, Mapping[str, list[float]]]


def probed(plan: Plan, store: Path, name: str) -> dict[str, Probed]:
    """Contender -> what the probes of its runs say at ``LOSSES``; runs that do not get there are left out."""
    runs: dict[str, list[Stored]] = {}
    for row, each in rows_of(plan, store, name).items():
        if not each.failed:
            runs.setdefault(row.contender, []).append(each)
    return {contender: _probed(own) for contender, own in runs.items()}


def _probed(runs: Sequence[Stored]) -> Probed:
    cosines, drifts = (
        {loss: [value for run in runs if (value := at_loss(run.probes, loss, key)) is not None] for loss in LOSSES}
        for key in ("cosine", "drift")
    )
    skills = {
        probe: {side: [value for run in runs if (value := run.skills[probe][side]) is not None] for side in sides}
        for probe, sides in runs[0].skills.items()
    }
    return Probed(cosines, drifts, skills)


def at_loss(probes: Sequence[Mapping[str, float]], loss: float, key: str) -> float | None:
    """A value where the loss first falls to ``loss``, linear in its logarithm between probes; None if it never does."""
    for before, after in pairwise(probes):
        if before["loss"] > loss >= after["loss"]:
            share = math.log(before["loss"] / loss) / math.log(before["loss"] / after["loss"])
            return before[key] + share * (after[key] - before[key])
    return None


def rate_table(plan: Plan, store: Path, name: str) -> dict[str, dict[int, float]]:
    """Contender -> step -> mean score on dev, of a stage that chooses rates."""
    return dev_scores(rows_of(plan, store, name))


@dataclass(frozen=True)
class AtRate:
    """Means over the seeds of one contender at one rate; the averages over languages in percent, 0 where all diverged.

    Attributes:
        unseen: of the reported languages.
        drift: distance from the pretrained weights; None where a run diverged.
    """

    seen: float
    unseen: float
    drift: float | None


def score_table(plan: Plan, store: Path, name: str) -> dict[str, dict[int, AtRate]]:
    """Contender -> step -> scores on test rows and drift, of a stage that chooses rates."""
    runs: dict[tuple[str, int], list[Stored]] = {}
    for row, found in rows_of(plan, store, name).items():
        runs.setdefault((row.contender, row.step), []).append(found)
    table: dict[str, dict[int, AtRate]] = {}
    for (contender, step), own in runs.items():
        table.setdefault(contender, {})[step] = _at_rate(plan, plan.stages[name].setting, own)
    return table


def _at_rate(plan: Plan, setting: str, runs: Sequence[Stored]) -> AtRate:
    seen, unseen = (languages_of(runs, side) for side in ("seen", "unseen"))
    drifts = [None if run.failed else run.results["drift"] for run in runs]
    known = [drift for drift in drifts if drift is not None]
    return AtRate(
        seen=_average(runs, "seen", seen),
        unseen=_average(runs, "unseen", reported(plan, setting, unseen)),
        drift=float(np.mean(known)) if len(known) == len(drifts) else None,
    )


def _average(runs: Sequence[Stored], side: str, languages: Sequence[str]) -> float:
    """The mean score over runs and languages, 0 where there is none."""
    scores = [run.scores(side).get(language, 0.0) for run in runs for language in languages]
    return float(np.mean(scores)) if scores else 0.0


def _compared(
    plan: Plan,
    store: Path,
    stage: Stage,
    contender: str,
    both: Mapping[int, tuple[Stored, Stored]],
    seeds: Sequence[int],
) -> Compared:
    """Of all seeds that are stored; of the first half of them, where the stage ended there."""
    due = level(len(both), seeds) if stage.kind == "confirm" else None
    alpha = ALPHA if due is None else due
    sides = (difference(plan, store, stage.setting, both, side, alpha) for side in ("unseen", "seen"))
    unseen, seen = sides
    look = "end" if len(both) == len(seeds) else "half" if len(both) == half(seeds) else "between looks"
    word = "" if due is None else verdict(plan, unseen, seen, unseen.these.p, alpha)
    word = "" if look == "half" and word not in DECIDED else word
    return Compared(stage.setting, contender, (len(both), len(seeds)), alpha, look, unseen, seen, word)


def _corrected(plan: Plan, each: Compared, p: float) -> Compared:
    word = verdict(plan, each.unseen, each.seen, p, ALPHA) if each.verdict else ""
    return Compared(**{**vars(each), "verdict": word, "corrected": p})


def _area_contrast(
    plan: Plan,
    store: Path,
    setting: str,
    ours: Mapping[int, Combination],
    base: Mapping[int, Combination],
) -> Contrast:
    seeds = sorted(ours.keys() & base.keys())
    parts = [[*ours[seed], *((-weight, row) for weight, row in base[seed])] for seed in seeds]
    languages = reported(plan, setting, languages_of((row for own in parts for _, row in own), "unseen"))
    return contrast(plan, store, setting, parts, languages, ALPHA)


def main() -> None:
    plan = read(PLAN)
    said = {
        "choices": choices_of(STORE),
        "progress": {name: asdict(each) for name, each in progress(plan, STORE).items()},
        "paired": {name: [asdict(each) for each in paired(plan, STORE, name)] for name in plan.stages},
        "confirmed": [asdict(each) for each in confirmed(plan, STORE)],
    }
    print(json.dumps(said, indent=2))


if __name__ == "__main__":
    main()
