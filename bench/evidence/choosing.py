"""Which rows a stage wants, and what finished stages have chosen: choices.json in the store."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from contrasts import Contrast, combined, contrast, in_knob_half, languages_of, reported
from inference import nominal, obrien_fleming, seeds_needed
from multitune.storage.atomic import write_json
from plan import NEXT, OURS, Plan, Row, Stage, grid_of
from store import Stored, read
from verdicts import DECIDED, verdict

CHOICES = "choices.json"
FEWEST = 2
"""Seeds that an interval needs."""


class Waiting(Exception):
    """A stage cannot begin before another one has chosen; the message says which."""


def choices_of(store: Path) -> dict[str, Any]:
    """What has been chosen so far: ``rates`` (stage -> contender -> step), ``ours``, ``next``, ``pilot``."""
    path = store / CHOICES
    empty: dict[str, Any] = {"rates": {}}
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else empty


def named(plan: Plan, stage: Stage, choices: Mapping[str, Any]) -> list[str]:
    """The stage's contenders by their own names, each once.

    Raises:
        Waiting: one is what no stage has chosen yet.
    """
    if lacking := [name for name in stage.contenders if name in (OURS, NEXT) and name not in choices]:
        raise Waiting(f"the knobs' stage has not chosen {lacking[0]} yet")
    return list(dict.fromkeys(choices[name] if name in (OURS, NEXT) else name for name in stage.contenders))


def tested(plan: Plan, stage: Stage, choices: Mapping[str, Any]) -> list[str]:
    """The contenders of a confirming stage that the plan tests: all but the baseline and the runner-up."""
    names = [name for name in stage.contenders if name != NEXT]
    return [name for name in named(plan, replace(stage, contenders=tuple(names)), choices) if name != plan.baseline]


def wanted(plan: Plan, store: Path, name: str) -> list[Row]:
    """The rows that a stage is made of, as far as the store lets one know: seed by seed, contenders side by side.

    Raises:
        Waiting: another stage has to choose first.
    """
    stage, choices = plan.stages[name], choices_of(store)
    contenders = named(plan, stage, choices)
    seeds = seeds_of(plan, stage, choices)
    steps = _steps(plan, store, stage, contenders, seeds, choices)
    if stage.kind == "confirm" and all(
        _ends_at_half(plan, store, stage, {one: steps[one][0], plan.baseline: steps[plan.baseline][0]}, seeds)
        for one in tested(plan, stage, choices)
    ):
        seeds = seeds[: half(seeds)]
    return [
        Row(stage.setting, contender, step, seed)
        for seed in seeds
        for place in range(max(len(own) for own in steps.values()))
        for contender in contenders
        for step in steps[contender][place : place + 1]
    ]


def seeds_of(plan: Plan, stage: Stage, choices: Mapping[str, Any]) -> list[int]:
    """The stage's seeds; where the pilot decides, as many as its SD asks for.

    Raises:
        Waiting: the pilot is not finished.
    """
    seeds = stage.seeds
    count = seeds.count
    if not count:
        if "pilot" not in choices:
            raise Waiting("the pilot has not measured the SD yet")
        pilot = choices["pilot"]
        spread, test, power = pilot["sd"], pilot["test_variance"], plan.power
        count = seeds_needed(spread, test, power["of"], power["wanted"], seeds.least, seeds.most)
    return list(range(seeds.first, seeds.first + count))


def half(seeds: Sequence[int]) -> int:
    """How many seeds the first look has."""
    return math.ceil(len(seeds) / 2)


def level(seen: int, planned: Sequence[int]) -> float | None:
    """The alpha of a look after so many of the planned seeds; None where no look is due."""
    looks = [count for count in sorted({half(planned), len(planned)}) if count >= FEWEST]
    return nominal(obrien_fleming(looks)[looks.index(seen)]) if seen in looks else None


def pairs(
    plan: Plan, store: Path, setting: str, one: tuple[str, int], other: tuple[str, int], seeds: Sequence[int]
) -> dict[int, tuple[Stored, Stored]]:
    """Seed -> the rows of two contenders at their steps, where both are stored."""
    found = {seed: tuple(read(store, plan, Row(setting, *each, seed)) for each in (one, other)) for seed in seeds}
    return {seed: (ours, theirs) for seed, (ours, theirs) in found.items() if ours is not None and theirs is not None}


def comparable(paired: Mapping[int, tuple[Stored, Stored]]) -> bool:
    """Whether there are pairs enough for an interval, and a run that has not diverged."""
    return len(paired) >= FEWEST and any(not row.failed for two in paired.values() for row in two)


def difference(
    plan: Plan,
    store: Path,
    setting: str,
    paired: Mapping[int, tuple[Stored, Stored]],
    side: str,
    alpha: float = 0.05,
) -> Contrast:
    """Of the reported languages of a side ("seen", "unseen"), the first of each pair minus the second."""
    languages = languages_of((row for two in paired.values() for row in two), side)
    languages = reported(plan, setting, languages) if side == "unseen" else languages
    seeds = [((1.0, ours), (-1.0, theirs)) for ours, theirs in paired.values()]
    return contrast(plan, store, setting, seeds, languages, alpha)


def freeze(plan: Plan, store: Path, name: str) -> bool:
    """Write down what a finished stage chooses, where nothing has been; whether something was written."""
    choices, stage = choices_of(store), plan.stages[name]
    rows = wanted(plan, store, name)
    stored = {row: found for row in rows if (found := read(store, plan, row)) is not None}
    if len(stored) < len(rows):
        return False
    before = json.dumps(choices)
    if stage.kind == "rates":
        choices["rates"].setdefault(name, _best(stored))
    if stage.kind == "pilot" and "pilot" not in choices:
        choices["pilot"] = _pilot(plan, store, stage)
    if stage.kind == "knobs" and OURS not in choices:
        choices |= ours_and_next(plan, stored)
    if json.dumps(choices) != before:
        write_json(store / CHOICES, choices)
        return True
    return False


def dev_scores(rows: Mapping[Row, Stored]) -> dict[str, dict[int, float]]:
    """Contender -> step -> mean score on dev over seeds."""
    values: dict[str, dict[int, list[float]]] = {}
    for row, found in rows.items():
        values.setdefault(row.contender, {}).setdefault(row.step, []).append(found.dev)
    return {name: {step: float(np.mean(dev)) for step, dev in own.items()} for name, own in values.items()}


def _best(rows: Mapping[Row, Stored]) -> dict[str, int]:
    """The step of each contender that is best on dev; the lower of equals."""
    return {name: max(sorted(own), key=lambda step: own[step]) for name, own in dev_scores(rows).items()}


def _pilot(plan: Plan, store: Path, stage: Stage) -> dict[str, float]:
    """SD of the paired difference of the stage's second contender from the baseline, and the variance of test rows."""
    assert isinstance(stage.rates, Mapping)
    ours = stage.contenders[1]
    two = (ours, stage.rates[ours]), (plan.baseline, stage.rates[plan.baseline])
    found = difference(
        plan, store, stage.setting, pairs(plan, store, stage.setting, *two, seeds_of(plan, stage, {})), "unseen"
    )
    return {"sd": found.sd, "test_variance": found.test[0]}


def ours_and_next(plan: Plan, rows: Mapping[Row, Stored]) -> dict[str, Any]:
    """The best and the second contender on the knobs' half, those that lose little enough on seen languages first."""
    values: dict[str, list[tuple[float, ...]]] = {}
    base = {row.seed: found for row, found in rows.items() if row.contender == plan.baseline}
    seen, unseen = (languages_of(rows.values(), side) for side in ("seen", "unseen"))
    knob = [language for language in unseen if in_knob_half(language)]
    for row, found in rows.items():
        if row.contender != plan.baseline:
            gains_of = (_gain(found, base[row.seed], languages) for languages in (seen, knob))
            values.setdefault(row.contender, []).append(tuple(gains_of))
    gains = {name: np.mean(own, axis=0).tolist() for name, own in values.items()}
    allowed = [name for name, (seen, _) in gains.items() if seen >= -plan.margins["seen"]]
    order = sorted(gains, key=lambda name: (name not in allowed, -gains[name][1]))
    table = {name: {"seen": seen, "knob_half": unseen} for name, (seen, unseen) in gains.items()}
    return {OURS: order[0], NEXT: order[1], "knobs": table}


def _gain(ours: Stored, base: Stored, languages: Sequence[str]) -> float:
    """What is gained on languages, in points."""
    return float(np.mean([combined(((1.0, ours), (-1.0, base)), language) for language in languages]))


def _steps(
    plan: Plan,
    store: Path,
    stage: Stage,
    contenders: Sequence[str],
    seeds: Sequence[int],
    choices: Mapping[str, Any],
) -> dict[str, list[int]]:
    """Contender -> the steps of the grid that the stage runs it at."""
    if isinstance(stage.rates, Mapping):
        return {name: [stage.rates[name]] for name in contenders}
    if stage.steps:
        return {name: list(stage.steps) for name in contenders}
    if stage.sources:
        if lacking := [other for other in stage.sources if other not in choices["rates"]]:
            raise Waiting(f"{lacking[0]} has not chosen the rates yet")
        chosen = {name: step for other in stage.sources for name, step in choices["rates"][other].items()}
        return {name: [chosen[name]] for name in contenders}
    lowest, highest = min(plan.rate.first) - plan.rate.most, max(plan.rate.first) + plan.rate.most
    every = [
        Row(stage.setting, name, step, seed)
        for name in contenders
        for step in range(lowest, highest + 1)
        for seed in seeds
    ]
    stored = {row: found for row in every if (found := read(store, plan, row)) is not None}
    whole = {
        (name, step)
        for name in contenders
        for step in range(lowest, highest + 1)
        if all(Row(stage.setting, name, step, seed) in stored for seed in seeds)
    }
    return grid_of(
        plan, dev_scores({row: v for row, v in stored.items() if (row.contender, row.step) in whole}), contenders
    )


def _ends_at_half(plan: Plan, store: Path, stage: Stage, two: Mapping[str, int], seeds: Sequence[int]) -> bool:
    """Whether the first look at a contender and the baseline, each at its step, is due, and decides."""
    first = seeds[: half(seeds)]
    alpha = level(len(first), seeds)
    ours, base = two.items()
    paired = pairs(plan, store, stage.setting, ours, base, first)
    if alpha is None or len(first) == len(seeds) or len(paired) < len(first) or not comparable(paired):
        return False
    sides = (difference(plan, store, stage.setting, paired, side, alpha) for side in ("unseen", "seen"))
    unseen, seen = sides
    return verdict(plan, unseen, seen, unseen.these.p, alpha) in DECIDED
