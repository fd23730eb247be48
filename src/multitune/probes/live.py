"""Probes of a run that trains: how often, and what one says."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from multitune.probes import drift, genealogy
from multitune.probes.gradient_similarity import Similarity, cosines, mean_cosine
from multitune.recipe import Recipe
from multitune.results.json_files import finite
from multitune.results.metrics import Probe, When

SHARE = 1 / 32
"""Of a run's gradient computations, the most that ``probe_every: auto`` adds: one for each language and probe, or as
many as a probe has batches of it. One in a probe takes up to half again as long as one in training: less than 5 % of
the time in all."""
DIGITS = 5
FEWEST = 2
"""Languages of which a probe compares the gradients, at least."""


def interval(recipe: Recipe, languages: int) -> int | None:
    """Gradient computations between two probes; None where there are to be none.

    A single language has no pairs, and a short run of many languages no time to spare for ``auto``.
    """
    if languages < FEWEST:
        return None
    if recipe.probe_every != "auto":
        return recipe.probe_every
    probes = int(SHARE * recipe.budget / languages / max(1, recipe.probe_batch / recipe.batch_size))
    return -(-recipe.budget // probes) if probes else None


def why_none(languages: int) -> str:
    """Why a run that was to have probes has none, in words."""
    if languages < FEWEST:
        return "there is a single language, whose gradients have no others to be compared with"
    return "one would take more than 5 % of so short a run"


def event(
    when: When, similarity: Similarity, moved: Mapping[str, float], *, probe_seconds: float, share: float
) -> Probe:
    """A probe as an event of its run.

    Args:
        when: it was.
        similarity: of the languages' gradients.
        moved: the L2 distance of each weight from where it began, by name.
        probe_seconds, share: as ``Probe`` has them.
    """
    return Probe(
        **when,
        **summary(similarity),
        layers={layer: round(mean_cosine(gram), DIGITS) for layer, gram in similarity.grams.items()},
        drift=finite(drift.total(moved)),
        drift_by_layer={layer: finite(distance) for layer, distance in drift.by_layer(moved).items()},
        probe_seconds=probe_seconds,
        share=share,
    )


def summary(similarity: Similarity) -> dict[str, Any]:
    """The attributes of ``GradientSimilarity``, which a probe in training and one of a finished run share."""
    return {
        "languages": list(similarity.tasks),
        "families": [genealogy.family(language) for language in similarity.tasks],
        "cosine": round(mean_cosine(similarity.gram), DIGITS),
        "cosines": rounded(cosines(similarity.gram)),
        "norms": similarity.norms.tolist(),
        "losses": similarity.losses.tolist(),
    }


def rounded(values: Tensor) -> list[Any]:
    """Plain numbers with ``DIGITS`` digits after the point, lists of lists for a matrix."""
    numbers: list[Any] = values.double().mul(10**DIGITS).round().div(10**DIGITS).tolist()
    return numbers
