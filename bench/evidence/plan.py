"""The study as plan.yaml has it: settings, contenders, stages; and which rows a stage is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from multitune.recipe import Recipe
from multitune.recipe_files import merge, validated

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PLAN = HERE / "plan.yaml"
STORE = HERE / "store"

GRID = "grid"
"""In place of a stage's rates: those that it takes to find the best."""
OURS, NEXT = "ours", "next"
"""Among a stage's contenders: the one that the knobs' stage chose, and its runner-up."""


@dataclass(frozen=True)
class Setting:
    """A data set, a model and a budget.

    Attributes:
        seconds: an estimate for one single-threaded run beside another one.
        cluster: what test rows are resampled by (``store.clusters``).
        recipe: its keys.
        published: folder of the data, below that of all published data; "" where they come from a package.
        prepared: folder that ``tuning_data.prepare`` makes; "" without one.
    """

    seconds: float
    cluster: str
    recipe: Mapping[str, Any]
    published: str = ""
    prepared: str = ""


@dataclass(frozen=True)
class Contender:
    """A method with its options, or a point between another contender's runs (``of``) and the pretrained weights.

    Attributes:
        keys: of the recipe.
        of: the contender whose runs are moved back; "" where it is trained.
        weight: share of the way from the pretrained weights to the run.
    """

    keys: Mapping[str, Any] = field(default_factory=dict)
    of: str = ""
    weight: float = 1.0


@dataclass(frozen=True)
class Seeds:
    """The first of a stage's seeds and how many; between ``least`` and ``most`` where the pilot decides."""

    first: int
    count: int = 0
    least: int = 0
    most: int = 0


@dataclass(frozen=True)
class Stage:
    """Runs that belong together.

    Attributes:
        kind: pilot, rates, knobs, confirm, cause, why, robust or others.
        rates: contender -> step of the grid; the steps at which each contender is run; "grid", which grows; or the
            stages that have chosen them.
    """

    setting: str
    kind: str
    contenders: tuple[str, ...]
    rates: str | tuple[str, ...] | tuple[int, ...] | Mapping[str, int]
    seeds: Seeds

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps of the grid at which each contender is run; () where they are not alike for all."""
        return tuple(each for each in self.rates if isinstance(each, int)) if isinstance(self.rates, tuple) else ()

    @property
    def sources(self) -> tuple[str, ...]:
        """The stages that have chosen the rates; () where the plan has them."""
        return tuple(each for each in self.rates if isinstance(each, str)) if isinstance(self.rates, tuple) else ()


@dataclass(frozen=True)
class Rates:
    """A grid of learning rates ``middle * factor ** step``: the first steps, and how many there may be at most."""

    middle: float
    factor: float
    first: tuple[int, ...]
    most: int

    def at(self, step: int) -> float:
        """The rate of a step, to three digits."""
        return float(f"{self.middle * self.factor**step:.3g}")


@dataclass(frozen=True, order=True)
class Row:
    """What is stored as one: a contender's result in a setting at a step of the grid of rates, with a seed."""

    setting: str
    contender: str
    step: int
    seed: int


@dataclass(frozen=True)
class Plan:
    """All of plan.yaml.

    Attributes:
        margins: ``level``, in which two methods count as equal on unseen languages, and ``seen``, of non-inferiority.
        power: ``wanted`` to find a difference ``of`` so many points.
    """

    common: Mapping[str, Any]
    settings: Mapping[str, Setting]
    contenders: Mapping[str, Contender]
    baseline: str
    rate: Rates
    margins: Mapping[str, float]
    power: Mapping[str, float]
    stages: Mapping[str, Stage]

    def base(self, contender: str) -> str:
        """The contender whose run is trained for this one."""
        return self.contenders[contender].of or contender

    def recipe(self, row: Row, path: Path | None) -> Recipe:
        """The recipe of the run that is trained for a row, on data in a folder.

        Raises:
            UserError: a key or a value that no recipe has.
        """
        setting, own = self.settings[row.setting], self.contenders[self.base(row.contender)].keys
        keys = merge(merge(self.common, setting.recipe), own)
        place = {} if path is None else {"path": str(path)}
        return validated(keys | place | {"learning_rate": self.rate.at(row.step), "seed": row.seed}, "plan")

    def stem(self, row: Row) -> Path:
        """Where a row is stored below the store, without an ending (and without a dot)."""
        return Path(row.setting, row.contender, f"{1e6 * self.rate.at(row.step):.0f}e-6-seed{row.seed}")


def read(path: Path = PLAN) -> Plan:
    """The plan in a file; a key that nothing reads, or a name that is not there, stops it."""
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    plan = Plan(
        **raw
        | {
            "settings": {name: Setting(**keys) for name, keys in raw["settings"].items()},
            "contenders": {name: _contender(keys) for name, keys in raw["contenders"].items()},
            "rate": Rates(**raw["rate"] | {"first": tuple(raw["rate"]["first"])}),
            "stages": {name: _stage(keys) for name, keys in raw["stages"].items()},
        }
    )
    _check(plan)
    return plan


def _contender(keys: Mapping[str, Any]) -> Contender:
    return Contender(**keys) if "of" in keys else Contender(keys)


def _stage(keys: Mapping[str, Any]) -> Stage:
    rates = keys["rates"]
    if isinstance(rates, list) or (isinstance(rates, str) and rates != GRID):
        rates = tuple([rates] if isinstance(rates, str) else rates)
    own = {"contenders": tuple(keys["contenders"]), "rates": rates, "seeds": Seeds(**keys["seeds"])}
    return Stage(**{**keys, **own})


def _check(plan: Plan) -> None:
    names = {*plan.contenders, OURS, NEXT}
    for name, stage in plan.stages.items():
        lacking = [each for each in stage.contenders if each not in names]
        if stage.setting not in plan.settings or lacking:
            raise SystemExit(f"plan: stage {name} names what is not there: {[stage.setting, *lacking]}")
        for other in stage.sources:
            if other not in plan.stages:
                raise SystemExit(f"plan: stage {name} takes rates from {other}, which is no stage")


def grid_of(plan: Plan, dev: Mapping[str, Mapping[int, float]], contenders: Sequence[str]) -> dict[str, list[int]]:
    """The steps of the grid that each contender is tried at: as many for each, until every best lies inside.

    Where a best is the lowest or highest of its steps, that contender gets the next one beyond, every other one the
    next at the edge nearer to its best (at the lower one of two equally near).

    Args:
        dev: contender -> step -> mean score on dev; steps that were not run are missing, and stop the growth.
    """
    steps = {name: sorted(plan.rate.first) for name in contenders}
    while all(step in dev.get(name, {}) for name in contenders for step in steps[name]):
        best = {name: max(steps[name], key=lambda step: dev[name][step]) for name in contenders}
        inside = all(steps[name][0] < best[name] < steps[name][-1] for name in contenders)
        if inside or len(plan.rate.first) >= plan.rate.most or len(steps[contenders[0]]) >= plan.rate.most:
            break
        steps = {name: _grown(steps[name], best[name]) for name in contenders}
    return steps


def _grown(steps: Sequence[int], best: int) -> list[int]:
    low, high = steps[0], steps[-1]
    return [low - 1, *steps] if best - low <= high - best else [*steps, high + 1]
