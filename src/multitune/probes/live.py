"""Probes of a run that trains: how often, and what a line of metrics.jsonl says (docs/probes.md)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from multitune.probes import drift, genealogy
from multitune.probes.gradient_similarity import Similarity, cosines, mean_cosine
from multitune.recipe import Recipe

SHARE = 1 / 32
"""Of a run's gradient computations, the most that ``probe_every: auto`` adds, one for each language and probe. One in a
probe takes up to half again as long as one in training: less than 5 % of the time in all."""
DIGITS = 5


def interval(recipe: Recipe, languages: int) -> int | None:
    """Gradient computations between two probes; None where there are to be none.

    A single language has no pairs, and a short run of many languages no time to spare for ``auto``.
    """
    if languages < 2:
        return None
    if recipe.probe_every != "auto":
        return recipe.probe_every
    probes = int(SHARE * recipe.budget / languages)
    return -(-recipe.budget // probes) if probes else None


def line(found: Similarity, moved: Mapping[str, float]) -> dict[str, Any]:
    """What a probe's line says: ``found`` of the languages, and the L2 distance of each weight from where it began."""
    return summary(found) | {
        "layers": {layer: round(mean_cosine(gram), DIGITS) for layer, gram in found.grams.items()},
        "drift": drift.total(moved),
        "drift_by_layer": drift.by_layer(moved),
    }


def summary(found: Similarity) -> dict[str, Any]:
    """The keys that a line of metrics.jsonl and probes.json have in common."""
    return {
        "languages": list(found.tasks),
        "families": [genealogy.family(language) for language in found.tasks],
        "cosine": round(mean_cosine(found.gram), DIGITS),
        "cosines": rounded(cosines(found.gram)),
        "norms": found.norms.tolist(),
        "losses": found.losses.tolist(),
    }


def rounded(values: Tensor) -> list[Any]:
    """Plain numbers with ``DIGITS`` digits after the point, lists of lists for a matrix."""
    numbers: list[Any] = values.double().mul(10**DIGITS).round().div(10**DIGITS).tolist()
    return numbers
