"""Drift: how far fine-tuning moved the pretrained weights, layer by layer (Sequential Reptile, Figure 5c)."""

import math
from collections.abc import Mapping

from multitune.gradients import GROUPS


def by_layer(distances: Mapping[str, float]) -> dict[str, float]:
    """Parameter name -> L2 distance, to layer -> L2 distance: the root of the sum of squares."""
    layers: dict[str, list[float]] = {}
    for name, distance in distances.items():
        layers.setdefault(GROUPS["all_layer"](name), []).append(distance)
    return {layer: math.hypot(*moved) for layer, moved in layers.items()}
