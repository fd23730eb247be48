"""What runs would take, without making them: ``--dry-run``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from multitune.commands.attempts import Planned
from multitune.commands.compare import plan_comparison
from multitune.commands.grid import Grid
from multitune.commands.init import recipe_for
from multitune.commands.single_language import language_recipes
from multitune.data.corpus import Corpus
from multitune.models import lora
from multitune.models.device import chosen
from multitune.recipe import Recipe
from multitune.recipe_files import AnyRecipe
from multitune.training.arithmetic import computing_as, settled
from multitune.training.estimate import Estimate, tried
from multitune.training.loading import load_corpus, load_plan
from multitune.training.memory import memory_explained, reset_peak_memory
from multitune.training.run import prepare


@dataclass(frozen=True)
class EstimatedRuns:
    """Runs of one method at one budget, and what each of them is expected to take."""

    method: str
    count: int
    each: Estimate


def estimate_run(recipe: AnyRecipe, overrides: Mapping[str, Any] | None = None) -> EstimatedRuns:
    """Load data and model, compute a few gradients, and tell what the run would take; no run folder is written.

    Raises:
        UserError, RunError: as ``train`` does.
    """
    one = recipe_for(recipe, overrides).resolve(overrides=overrides)
    return EstimatedRuns(one.method, 1, _estimated(one, load_corpus(one)))


def estimate_comparison(
    recipe: AnyRecipe,
    *,
    methods: Sequence[str] = (),
    seeds: int = 1,
    grid: Grid | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> list[EstimatedRuns]:
    """The same for the runs of a comparison; those that differ in seed and rates alone take the same.

    Args:
        recipe, methods, seeds, grid, overrides: as of ``compare``.

    Raises:
        UserError, RunError: as ``compare`` does.
    """
    planned = plan_comparison(recipe_for(recipe, overrides), methods, seeds, grid or {}, overrides or {})
    alike: dict[str, list[Planned]] = {}
    for one in planned:
        alike.setdefault(_what_takes_time(one.recipe), []).append(one)
    return [_of_method([one.recipe for one in runs]) for runs in alike.values()]


def _what_takes_time(recipe: Recipe) -> str:
    return recipe.model_dump_json(exclude={"seed", "learning_rate", "warmup", "schedule", "weight_decay", "clip"})


def _of_method(recipes: Sequence[Recipe]) -> EstimatedRuns:
    first = recipes[0]
    return EstimatedRuns(first.method, len(recipes), _estimated(first, load_corpus(first)))


def _estimated(recipe: Recipe, corpus: Corpus) -> Estimate:
    """What one run takes; of a method with a model for each language, from that of the first one."""
    plan, one = load_plan(recipe), settled(recipe, [])
    lora.check(one.lora)
    if plan.one_model_per_task:
        own, only = language_recipes(one, corpus)[0]
        found = _tried(own, only)
        return replace(found, seconds=found.seconds * recipe.budget / own.budget, gradients=recipe.budget)
    return _tried(one, corpus)


def _tried(recipe: Recipe, corpus: Corpus) -> Estimate:
    with memory_explained(recipe), computing_as(recipe):
        reset_peak_memory(chosen(recipe.device))
        return tried(prepare(recipe, corpus, load_plan(recipe)))
