"""What a model's folder or its name on the Hub gives: its configuration and its weights, with the head of a task."""

import re
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import GENERATION_CONFIG_NAME

from multitune.errors import UserError
from multitune.models.dropout import set_dropout, set_dropout_of_modules
from multitune.models.fetching import fetched
from multitune.models.old_heads import check_body, check_own_head, purpose, purpose_of_task, renewed_head
from multitune.models.poolers import pass_through
from multitune.seeds import global_draws
from multitune.storage.hub import is_known
from multitune.tasks import Task

STAGES = ("depths", "block_sizes")
"""Keys of configurations whose layers stand in stages, each of another size (Swin, ConvNeXt, Funnel)."""
OF_EACH_LAYER = re.compile(r".*layer.*|.*_types|attention_window|intermediate_size|activation_sparsity_pattern")
"""Keys of configurations that may have a list with a value for each layer."""


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
            lambda loaded: not loaded[0].can_generate() or is_known(name, GENERATION_CONFIG_NAME),
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=other_head,
        )
        if getattr(model, "is_quantized", False):
            raise UserError(f"model: {name!r} is quantized, so that it cannot be trained; choose what it was made from")
        check_body(name, model, info["mismatched_keys"])
        if task.auto_model is AutoModelForCausalLM:
            check_own_head(name, before, model)
        new = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
        _check_place_of_summary(name, model)
        if other_head and not before.is_pretraining:
            new |= renewed_head(name, model, info["missing_keys"])
    if dropout is not None:
        set_dropout_of_modules(model, dropout)
    pass_through(model, new)
    for module in task.idle(model):
        module.requires_grad_(False)
    return model, sorted(new)


def _check_place_of_summary(name: str, model: PreTrainedModel) -> None:
    """Refuse a head that reads the last place of a row (XLNet's): of a short text that is padding."""
    if hasattr(model, "sequence_summary") and getattr(model.config, "summary_type", None) == "last":
        raise UserError(
            f"model: {name!r} has a {type(model).__name__}, which reads the end of a row, where short texts are filled "
            "up; choose another model"
        )


def configuration(name: str, task: Task, layers: int | None) -> Any:
    """The configuration of a model with a head for the task.

    Raises:
        UserError: it reads more than the task's texts, there is no such head for it, or it has fewer layers than are to
            be kept, no number of them, or is no model without the others.
    """
    config = fetched(name, AutoConfig.from_pretrained)
    if task.auto_processor is AutoTokenizer and getattr(config, "text_config", None) is not None:
        raise UserError(
            f"model: {name!r} reads images or sound beside text (it is a {config.model_type}); choose one of text alone"
        )
    if type(config) not in task.auto_model._model_mapping:
        head = task.auto_model.__name__.removeprefix("Auto")
        raise UserError(
            f"model: {name!r} is a {config.model_type}, which has no {head} in transformers; choose another model for "
            "this kind of task"
        )
    task.configure(config)
    if layers is not None:
        keep_layers(name, config, layers)
        _check_cut(name, config, task, layers)
    return config


def _check_cut(name: str, config: Any, task: Task, layers: int) -> None:
    """Refuse a configuration of which no model can be made once it was saved: it says more of the layers left out."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            fetched(name, lambda *_, **__: task.auto_model.from_config(type(config).from_dict(config.to_dict())))
    except UserError as error:
        why = str(error.__cause__).strip().splitlines()[-1]
        raise UserError(f"layers: {name} (a {config.model_type}) cannot be cut to {layers}: {why}") from error


def keep_layers(name: str, config: Any, layers: int) -> None:
    """Let a configuration be that of a model's first layers.

    Raises:
        UserError: there are fewer, or they stand in no one row.
    """
    there = getattr(config, "num_hidden_layers", None)
    in_stages = any(hasattr(config, of_stages) for of_stages in STAGES)
    if there is None or in_stages or config.model_type == "prophetnet":  # whose two numbers cannot be set as one
        raise UserError(f"layers: {name} (a {config.model_type}) has no one row of layers to cut; leave it out")
    if layers > there:
        raise UserError(f"layers: {name} has only {there} layers, not {layers}")
    config.num_hidden_layers = layers
    for key, value in vars(config).items():
        if OF_EACH_LAYER.fullmatch(key) and isinstance(value, list | tuple) and len(value) == there:
            setattr(config, key, value[:layers])
    if config.model_type == "gpt_neo":  # it says the same once more, as patterns with how often each comes
        config.attention_types = [[list(config.attention_layers), 1]]
