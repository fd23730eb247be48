"""Activation checkpointing: a layer keeps its input alone, and computes the rest anew in the backward pass.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174.
"""

from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from multitune.errors import UserError
from multitune.models.heads import Heads


def checkpoint_layers(model: PreTrainedModel | Heads) -> None:
    """Let the layers of a model's body keep their inputs alone while it trains; gradients and dropout stay the same.

    Raises:
        UserError: transformers cannot do it with this architecture.
    """
    body: nn.Module = model.base_model
    assert isinstance(body, PreTrainedModel)
    if not body.supports_gradient_checkpointing:
        raise UserError(f"gradient_checkpointing: {type(body).__name__} has no layers that can; set it to false")
    enable = getattr(body, "activation_checkpointing_enable", None) or body.gradient_checkpointing_enable
    # The other kind, reentrant, wants inputs with a gradient: under adapters on frozen embeddings there are none.
    enable({"use_reentrant": False})
    _leave_attention_as_it_is(body)


def _leave_attention_as_it_is(body: nn.Module) -> None:
    """Take back what T5 and its kin do for the reentrant kind alone: a bias of zeros gets a gradient.

    Attention would take another kernel for it, which rounds otherwise in bf16.
    """
    every: Iterator[Any] = body.modules()
    for module in every:
        if hasattr(module, "compute_bias") and hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = False
