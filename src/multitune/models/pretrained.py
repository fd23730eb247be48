"""What a model's folder or its name on the Hub gives: its configuration and its weights, with the head of a task."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from multitune.errors import UserError
from multitune.models.dropout import set_dropout
from multitune.models.fetching import fetched
from multitune.models.old_heads import check_body, check_own_head, purpose, purpose_of_task, renewed_head
from multitune.models.poolers import pass_through
from multitune.seeds import global_draws
from multitune.tasks import Task


def load_model(
    name: str, task: Task, layers: int | None, dropout: float | None, seed: int
) -> tuple[PreTrainedModel, list[str]]:
    """A model with the task's head, and the names of its new weights, which ``seed`` decides."""
    before, config = purpose(fetched(name, AutoConfig.from_pretrained)), configuration(name, task, layers)
    if dropout is not None:
        set_dropout(config, dropout)
    now = purpose_of_task(config, task.auto_model)
    other_head = now is not None and now != before
    with global_draws(seed):
        model, info = fetched(
            name,
            task.auto_model.from_pretrained,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=other_head,
        )
        check_body(name, model, info["mismatched_keys"])
        if task.auto_model is AutoModelForCausalLM:
            check_own_head(name, before, model)
        new = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
        if other_head:
            new |= renewed_head(name, model, info["missing_keys"])
    pass_through(model, new)
    for module in task.idle(model):
        module.requires_grad_(False)
    return model, sorted(new)


def configuration(name: str, task: Task, layers: int | None) -> Any:
    """The configuration of a model with a head for the task.

    Raises:
        UserError: it reads more than the task's texts, or has fewer layers than are to be kept, or no number of them.
    """
    config = fetched(name, AutoConfig.from_pretrained)
    if task.auto_processor is AutoTokenizer and getattr(config, "text_config", None) is not None:
        raise UserError(
            f"model: {name!r} reads images or sound beside text (it is a {config.model_type}); choose one of text alone"
        )
    task.configure(config)
    if layers is not None:
        there = getattr(config, "num_hidden_layers", None)
        if there is None:
            raise UserError(f"layers: {name} (a {config.model_type}) has no one row of layers to cut; leave it out")
        if layers > there:
            raise UserError(f"layers: {name} has only {there} layers, not {layers}")
        keep_layers(config, layers)
    return config


def keep_layers(config: Any, layers: int) -> None:
    """Make a configuration one of the model's first layers: also its lists with an entry a layer, ``layer_types``."""
    there, config.num_hidden_layers = config.num_hidden_layers, layers
    for name, value in list(vars(config).items()):
        if "layer" in name and isinstance(value, list) and len(value) == there:
            setattr(config, name, value[:layers])
