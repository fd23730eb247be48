"""A run's optimizer and its learning rate."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer

from multitune.errors import UserError
from multitune.methods.anchor import anchor
from multitune.plans.update import RATE_SHARE, NamedParameters
from multitune.recipe import Recipe

BETA2 = 0.999
"""AdamW's default: how much of the mean of past squared gradients a step keeps."""


def check_keeping(
    recipe: Recipe, names: Collection[str], shares: Mapping[str, float], pretrained: Collection[str]
) -> None:
    """Refuse keys that would change nothing.

    Args:
        recipe: of the run.
        names: of the weights that train.
        shares: as of ``make_optimizer``.
        pretrained: as of ``make_optimizer``.

    Raises:
        UserError: an anchor without weights that it could pull, or rates by layer where no layer trains.
    """
    if recipe.anchor and not pretrained:
        raise UserError("anchor: no weight that pretraining left trains, so that there is nothing to pull; set it to 0")
    if recipe.layer_decay < 1.0 and all(shares.get(name, 1.0) == 1.0 for name in names):
        raise UserError("layer_decay: no layer and no embedding trains, so that all rates are alike; set it to 1")


def make_optimizer(
    parameters: NamedParameters,
    recipe: Recipe,
    shares: Mapping[str, float],
    pretrained: Collection[str],
    embeddings: Collection[str] = (),
) -> Optimizer:
    """AdamW, fused; weight decay on matrices that are not embeddings.

    Args:
        parameters: by name.
        recipe: of the run.
        shares: name -> the share of the learning rate that a weight has; those that it lacks have all of it.
        pretrained: the names of the weights that pretraining left, which ``anchor`` pulls back.
        embeddings: the names of embeddings' weights that do not say so themselves, such as ``embed_tokens``.

    Raises:
        UserError: the anchor is too strong for the learning rate.
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, weight in parameters:
        is_bias = name.rpartition(".")[2].endswith("bias")  # XLNet's have a row for each head
        decayed = weight.ndim > 1 and not is_bias and "embedding" not in name and name not in embeddings
        groups.setdefault((decayed, shares.get(name, 1.0)), []).append(weight)
    made = [_group(recipe, *key, groups[key]) for key in sorted(groups, reverse=True)]
    optimizer = AdamW(made, lr=recipe.learning_rate, betas=(recipe.adam_beta1, BETA2), fused=True)
    if recipe.anchor:
        try:
            anchor(optimizer, [weight for name, weight in parameters if name in pretrained], recipe.anchor)
        except ValueError as error:
            raise UserError(f"anchor: {error}") from error
    return optimizer


def _group(recipe: Recipe, decayed: bool, share: float, weights: Sequence[nn.Parameter]) -> dict[str, Any]:
    """A group of AdamW's."""
    own = {} if share == 1.0 else {"lr": share * recipe.learning_rate, RATE_SHARE: share}
    return {"params": weights, "weight_decay": recipe.weight_decay if decayed else 0.0} | own


def learning_rate(recipe: Recipe, gradients: int) -> float:
    """The rate of a step that begins after ``gradients`` computations: linear warm-up, then constant or to zero."""
    rising = recipe.warmup * recipe.budget
    if gradients < rising:
        return recipe.learning_rate * (gradients + 1) / (rising + 1)
    if recipe.schedule == "constant":
        return recipe.learning_rate
    return recipe.learning_rate * (recipe.budget - gradients) / (recipe.budget - rising)
