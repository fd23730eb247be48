"""A pooler that pretraining did not leave: what it is before it has been trained."""

from collections.abc import Collection

import torch
from torch import nn

GAIN = 3.0
"""Factor of a new pooler: brings a token's state, whose entries are well below 1, into the range where tanh bends."""


@torch.no_grad()
def pass_through(model: nn.Module, new: Collection[str]) -> None:
    """Make new square layers (a missing pooler) ``GAIN`` times the identity: the head sees what pretraining left.

    The first token of an encoder that was pretrained without a pooler tells little at first, and a random layer between
    it and the head hides even that; docs/pooler.md has the measurements.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and f"{name}.weight" in new and module.in_features == module.out_features:
            nn.init.eye_(module.weight).mul_(GAIN)
            if module.bias is not None:  # ModernBERT's has none
                nn.init.zeros_(module.bias)
