"""How often each task comes in a run, and in which order."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from multitune.errors import UserError
from multitune.methods.sampling import (
    CategoricalSampler,
    EpochSampler,
    TaskSampler,
    proportional,
    task_probabilities,
)
from multitune.recipe import Recipe


def probabilities(recipe: Recipe, sizes: Sequence[int]) -> Tensor:
    """The share of each task, from the training examples of the languages; float64 [languages (+ replay)].

    Raises:
        UserError: the smallest language would have none.
    """
    if recipe.replay is None:
        return _of_languages(recipe, sizes, recipe.budget)
    share = recipe.replay.share
    languages = _of_languages(recipe, sizes, recipe.budget * (1 - share))
    return torch.cat([languages * (1 - share), torch.tensor([share])])


def task_sampler(recipe: Recipe, sizes: Sequence[int], batch_size: int, generator: torch.Generator) -> TaskSampler:
    """Draws tasks one at a time for batches of so many examples of one: independently, or by epochs of all the data."""
    if recipe.sampling != "epochs":
        return CategoricalSampler(probabilities(recipe, sizes), generator=generator)
    times = [math.ceil(size / batch_size) for size in sizes]
    if recipe.replay is not None:
        share = recipe.replay.share
        times.append(max(1, round(sum(times) * share / (1 - share))))
    return EpochSampler(len(times), generator=generator, times=times)


def _of_languages(recipe: Recipe, sizes: Sequence[int], budget: float) -> Tensor:
    if recipe.sampling == "epochs":
        return proportional(sizes, 1.0)
    shares = task_probabilities(
        recipe.sampling,
        sizes,
        exponent=recipe.sampling_exponent,
        budget=budget * recipe.batch_size,
        max_epochs=recipe.sampling_epochs,
    )
    if not bool(shares.all()):
        raise UserError(
            f"sampling_exponent: {recipe.sampling_exponent:g} leaves no share at all for a language with "
            f"{min(sizes)} of up to {max(sizes)} training examples; 1 is in proportion to size, and 0 alike for all"
        )
    return shares
