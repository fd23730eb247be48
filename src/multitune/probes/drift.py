"""Drift: how far fine-tuning moved the pretrained weights, layer by layer (Sequential Reptile, Figure 5c)."""

import math
from collections.abc import Mapping

import torch

from multitune.methods.groups import GROUPS
from multitune.models.encoder import Encoder


@torch.no_grad()
def between(pretrained: Encoder, tuned: Encoder) -> dict[str, float]:
    """Name -> L2 distance of each weight that pretraining left (new heads and poolers excluded) to the tuned one."""
    own = dict(tuned.parameters())
    return {name: float((own[name] - weight).norm()) for name, weight in pretrained.pretrained_parameters()}


def total(distances: Mapping[str, float]) -> float:
    """L2 distance of all weights together, from each weight's."""
    return math.hypot(*distances.values())


def by_layer(distances: Mapping[str, float]) -> dict[str, float]:
    """Layer -> L2 distance of its weights together, from each weight's by name."""
    layers: dict[str, dict[str, float]] = {}
    for name, distance in distances.items():
        layers.setdefault(GROUPS["all_layer"](name), {})[name] = distance
    return {layer: total(within) for layer, within in layers.items()}
