"""A recipe's method at work on an encoder's weights: its update, and the streams of mini-batches that it draws from."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from multitune.errors import UserError
from multitune.methods import ExponentialAverage, SnapshotAverage
from multitune.methods.ranks import Ranks
from multitune.methods.sampling import EpochSampler, TaskSampler
from multitune.models.encoder import Encoder
from multitune.models.parts import Parts
from multitune.plans import Plan
from multitune.plans.averaged import AveragedUpdate
from multitune.plans.update import Setup, Update, WordEmbedding
from multitune.recipe import Recipe
from multitune.seeds import seeded
from multitune.training.batching import Batches, MixedBatches, TaskBatches
from multitune.training.optimizer import check_keeping, make_optimizer
from multitune.training.sampling import probabilities, task_sampler


def update_of(
    recipe: Recipe, plan: Plan, encoder: Encoder, parts: Parts, sizes: Sequence[int], ranks: Ranks, split: Ranks
) -> Update:
    """The method at work on the encoder's weights.

    Args:
        parts: of the encoder, frozen ones too.
        sizes: the training records of each task.
        ranks: those that share the tasks or trajectories.
        split: those that share each batch.

    Raises:
        UserError: an option that does not fit the run, or a budget too small for a step.
    """
    pretrained = frozenset(name for name, _ in encoder.pretrained_parameters())
    shares = parts.rate_shares(recipe.layer_decay)
    shares |= {name: shares[weight] for name, weight in encoder.adapted.items()}
    embeddings = _embeddings(encoder)
    check_keeping(recipe, [name for name, _ in encoder.parameters()], shares, pretrained)
    setup = Setup(
        parameters=encoder.parameters(),
        pretrained=pretrained,
        task_heads=frozenset(encoder.own_heads),
        embedding=word_embedding(encoder),
        probabilities=probabilities(recipe, sizes),
        task_weights=recipe.task_weights,
        make_sampler=partial(_stream_sampler, recipe, plan, sizes),
        budget=recipe.budget,
        make_optimizer=lambda parameters: make_optimizer(parameters, recipe, shares, pretrained, embeddings),
        clip=recipe.clip,
        seed=recipe.seed,
        ranks=ranks,
        split=split,
    )
    update = _averaged(plan.build(setup), setup, recipe)
    if recipe.budget < update.smallest_step:
        raise UserError(
            f"budget: {recipe.budget} is too small for a step of {recipe.method}, which computes "
            f"{update.smallest_step} gradients"
        )
    return update


def _embeddings(encoder: Encoder) -> frozenset[str]:
    """The names of the weights of embeddings, of tokens and of all else, that train."""
    tables = {id(module.weight) for module in encoder.model.modules() if isinstance(module, nn.Embedding)}
    return frozenset(name for name, weight in encoder.parameters() if id(weight) in tables)


def streams(
    recipe: Recipe, plan: Plan, sizes: Sequence[int], lengths: Mapping[str, NDArray[np.int64]]
) -> dict[str, Batches]:
    """The streams of mini-batches that the method draws from."""
    if plan.mixes_tasks:
        sampler = task_sampler(recipe, sizes, 1, seeded(recipe.seed, "mixed"))
        return {"mixed": MixedBatches(lengths, sampler, recipe.batch_size, recipe.seed)}
    return {k: TaskBatches(k, v, recipe.batch_size, recipe.seed) for k, v in lengths.items()}


def _stream_sampler(recipe: Recipe, plan: Plan, sizes: Sequence[int], generator: torch.Generator) -> TaskSampler:
    """Says whose batch comes next; where each mixes the tasks, there is one stream of them."""
    if plan.mixes_tasks:
        return EpochSampler(1, generator=generator)
    return task_sampler(recipe, sizes, recipe.batch_size, generator)


def word_embedding(encoder: Encoder) -> WordEmbedding | None:
    """The sizes of an encoder of text; None of models that see, or that read with one half and write with the other."""
    config = encoder.model.config
    if config.is_encoder_decoder or not isinstance(encoder.tokenizer, PreTrainedTokenizerBase):
        return None
    weight = encoder.model.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    return WordEmbedding(hidden_size=config.hidden_size, embedding_size=weight.shape[1])


def _averaged(update: Update, setup: Setup, recipe: Recipe) -> Update:
    """The method, with the recipe's weight averaging around it."""
    weights = [weight for _, weight in setup.parameters]
    if recipe.average == "ema":
        average = ExponentialAverage(weights, decay=math.exp(-1 / (recipe.average_horizon * recipe.budget)))
        return AveragedUpdate(setup, update, average, interval=None)
    if recipe.average == "snapshots":
        return AveragedUpdate(setup, update, SnapshotAverage(weights, recipe.average_last), recipe.validation_interval)
    return update
