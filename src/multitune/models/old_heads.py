"""Models that come with a head for something else: whether it can be used, and a new one where it cannot."""

import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_PRETRAINING_MAPPING_NAMES,
)

from multitune.errors import UserError

log = logging.getLogger(__name__)

LABELLED = (AutoModelForImageClassification, AutoModelForSequenceClassification, AutoModelForTokenClassification)
"""Auto classes whose heads have an output for each label; those of the others serve any data."""
OF_PRETRAINING = frozenset(
    architecture
    for names in (
        MODEL_FOR_PRETRAINING_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    )
    for each in names.values()
    for architecture in ([each] if isinstance(each, str) else each)
)
"""Architectures whose heads know no labels: what a new head has of them (ModernBERT's dense layer) is pretrained."""


class Purpose(NamedTuple):
    """What a head is for: the architecture that has it, its labels by number, and whether it tells classes or a number.

    A head is used again only for the same purpose: that two heads have as many outputs says nothing.
    """

    architecture: str | None
    labels: Mapping[Any, str] | None
    problem: str | None

    @property
    def is_pretraining(self) -> bool:
        """Whether such a head was pretrained, without labels."""
        return self.architecture in OF_PRETRAINING


def purpose(config: PretrainedConfig) -> Purpose:
    """The purpose that a model's configuration tells."""
    return Purpose(next(iter(config.architectures or ()), None), config.id2label, config.problem_type)


def purpose_of_task(config: PretrainedConfig, auto_model: Any) -> Purpose | None:
    """The purpose that a configuration tells once a task has written its labels there; None without labels."""
    if auto_model not in LABELLED or type(config) not in auto_model._model_mapping:
        return None
    architecture = auto_model._model_mapping[type(config)]
    return Purpose(architecture.__name__, config.id2label, config.problem_type)


def check_body(name: str, model: PreTrainedModel, mismatched: Iterable[tuple[str, Any, Any]]) -> None:
    """Refuse weights of other sizes than the configuration says, but for the head's.

    Raises:
        UserError: the model's folder is damaged.
    """
    head = _head_of(model)
    for key, stored, wanted in mismatched:
        if key not in head:
            raise UserError(
                f"model: cannot load {name!r}: its weights have other sizes than its config.json says: {key} has "
                f"{list(stored)}, not {list(wanted)}"
            )


def check_own_head(name: str, before: Purpose, model: PreTrainedModel) -> None:
    """Refuse a model that was not pretrained as the causal language model that it is loaded as.

    An encoder's tokens see those that follow them, so that it would seem to guess them.

    Raises:
        UserError: it is another kind of model.
    """
    if before.architecture != type(model).__name__:
        raise UserError(
            f"model: {name!r} is a {before.architecture}; task: causal_lm needs a causal language model with its own "
            f"head, here a {type(model).__name__}"
        )


@torch.no_grad()
def renewed_head(name: str, model: PreTrainedModel, missing: Collection[str]) -> set[str]:
    """Give a model whose head is for something else new weights there; returns their names.

    Nothing is done where all of the head was ``missing``, and so is new already.
    """
    head = _head_of(model)
    if head.keys() <= set(missing):
        return set()
    log.warning("model: %s has a head for other labels or another kind of task; it gets a new one", name)
    fresh = type(model)(model.config).state_dict()
    for key, weight in head.items():
        weight.copy_(fresh[key])
    return set(head)


def _head_of(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights outside the body that all architectures of a kind of model share."""
    body = f"{model.base_model_prefix}."
    return {name: weight for name, weight in model.state_dict().items() if not name.startswith(body)}
