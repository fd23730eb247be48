"""What is wrong with a recipe's keys and values, in one line: the key, what it must be, what was meant."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from multitune.errors import UserError, unknown

NAMES_ELSEWHERE: dict[str, tuple[str, ...]] = {
    "model": ("model_name", "model_name_or_path", "pretrained_model", "base_model", "encoder", "checkpoint"),
    "layers": ("num_layers", "n_layers", "num_hidden_layers"),
    "data": ("dataset", "dataset_name", "corpus"),
    "path": ("data_dir", "data_path", "dataset_path", "dir", "folder", "train_file"),
    "languages": ("lang", "langs", "language", "locale", "train_languages", "source_languages"),
    "unseen": ("test_languages", "eval_languages", "target_languages", "unseen_languages", "zero_shot"),
    "columns": ("fields", "text_column", "label_column"),
    "scheme": ("tag_scheme", "tagging_scheme", "label_scheme", "tag_format"),
    "strip_labels": ("strip",),
    "label_names": ("class_names", "classes", "label_list", "id2label"),
    "max_length": ("max_len", "maxlen", "max_seq_len", "max_seq_length", "max_tokens", "seq_len", "seq_length"),
    "train_limit": ("max_train_samples", "max_train_examples", "train_size"),
    "dev_limit": ("max_eval_samples", "max_dev_samples"),
    "test_limit": ("max_test_samples", "max_predict_samples"),
    "method": ("methods", "algorithm", "algo", "aggregator"),
    "batch_size": ("bs", "batch", "train_batch_size", "per_device_train_batch_size", "per_gpu_train_batch_size"),
    "micro_batch_size": ("micro_batch", "microbatch_size", "per_device_micro_batch_size"),
    "packing": ("packed", "pack", "sample_packing", "padding_free"),
    "gradient_checkpointing": ("activation_checkpointing", "use_gradient_checkpointing", "checkpoint_activations"),
    "compile": ("torch_compile", "use_compile", "compile_model"),
    "split_batch": ("split_batches",),
    "learning_rate": ("lr", "rate", "max_lr", "peak_lr", "inner_lr", "learningrate"),
    "schedule": ("scheduler", "lr_scheduler", "lr_scheduler_type", "lr_schedule"),
    "warmup": ("warmup_ratio", "warm_up"),
    "weight_decay": ("wd",),
    "clip": ("grad_clip", "gradient_clip", "gradient_clipping", "clip_grad_norm", "max_grad_norm", "max_norm"),
    "precision": ("dtype", "torch_dtype", "amp", "fp16", "bf16", "mixed_precision"),
    "seed": ("random_seed", "random_state", "manual_seed"),
    "sampling": ("sampler",),
    "sampling_exponent": ("alpha",),
    "validate_every": ("eval_every", "eval_steps", "val_every", "validation_interval"),
    "checkpoint_every": ("save_every", "save_steps", "checkpoint_interval"),
    "select": ("load_best_model_at_end",),
    "patience": ("early_stopping", "early_stopping_patience"),
    "average": ("ema", "swa"),
    "average_horizon": ("ema_decay",),
    "freeze": ("freeze_encoder", "freeze_backbone", "freeze_layers", "linear_probe"),
    "adam_beta1": ("beta1", "betas", "adam_betas", "momentum"),
    "layer_decay": ("layerwise_lr_decay", "layer_wise_lr_decay", "llrd"),
    "anchor": ("l2_sp", "l2sp"),
    "lora": ("peft", "peft_config", "lora_config", "adapter", "adapters"),
    "lora.rank": ("lora_r", "lora_rank"),
    "lora.alpha": ("lora_alpha",),
    "lora.targets": ("target_modules", "lora_target_modules", "lora_targets"),
    "lora.dropout": ("lora_dropout",),
    "trim_vocabulary": ("trim_vocab",),
    "options.inner_steps": ("inner_steps", "k", "inner_loop_steps"),
    "options.outer_lr": ("outer_lr", "eta", "outer_learning_rate", "meta_lr", "outer_step_size"),
    "options.trajectories": ("trajectories", "walks", "num_trajectories"),
    "options.tasks_per_step": ("tasks_per_step", "tasks_per_batch"),
}
"""Recipe key -> what other tools call it, or what is left of it without ``options.``."""

_BUDGET = "a run is as long as its budget, in gradient computations; an epoch takes examples / batch_size of them"
_DEVICE = "device: cpu keeps a run on the CPU, and device: cuda:N names a card"
_OUT = "it is an option: --out FOLDER"
ADVICE: dict[str, str] = {
    **dict.fromkeys(("epoch", "epochs", "n_epochs", "num_epochs", "max_epochs", "num_train_epochs"), _BUDGET),
    **dict.fromkeys(("steps", "max_steps", "num_steps", "total_steps", "train_steps", "iterations"), _BUDGET),
    **dict.fromkeys(("devices", "gpu", "gpus", "cuda", "cpu", "no_cuda", "use_cpu", "num_gpus"), _DEVICE),
    **dict.fromkeys(("out", "output", "out_dir", "output_dir", "save_dir", "run_dir"), _OUT),
    "resume": "it is an option: --resume",
    "resume_from_checkpoint": "it is an option: --resume",
    "track": "it is an option: --track TRACKER",
    "report_to": "it is an option: --track TRACKER",
    "grid": "it is an option of multitune compare: --grid KEY=VALUE,VALUE",
    "seeds": "it is an option of multitune compare: --seeds N",
    "num_seeds": "it is an option of multitune compare: --seeds N",
    "optimizer": "every run takes AdamW, with learning_rate and weight_decay",
    "optim": "every run takes AdamW, with learning_rate and weight_decay",
    "gradient_accumulation_steps": "micro_batch_size says how many of a batch's examples are computed at a time",
    "num_labels": "labels are those of the training data",
    "temperature": "sampling_exponent is 1 / temperature",
    **dict.fromkeys(("warmup_steps", "num_warmup_steps"), "warmup is a share of the budget, such as 0.1"),
}
"""What other tools let a user choose -> where that is decided here."""

ALIKE = 0.8
"""Share of letters in common, from which on a name is taken for another one that is spelt wrongly."""
_OPTIONS = [key for key in NAMES_ELSEWHERE if "." in key]
_MEANT = {other: key for key, others in NAMES_ELSEWHERE.items() for other in others}


def plain(name: str) -> str:
    """A key as recipes spell it: ``Learning-Rate`` -> ``learning_rate``."""
    return name.lower().replace("-", "_")


def key_of(name: str, keys: Collection[str], others: Iterable[str] = ()) -> str | None:
    """The key that a name stands for: itself, what other tools call it, or one that is spelt much like it.

    Args:
        name: as it was written.
        keys: all that there are.
        others: names that are no keys; None is returned where the name is most like one of these.
    """
    if plain(name) in keys or plain(name) in _MEANT:
        return _MEANT.get(plain(name), plain(name))
    near = difflib.get_close_matches(plain(name), [*keys, *others], n=1, cutoff=ALIKE)
    return near[0] if near and near[0] in keys else None


def unknown_key(name: str, allowed: Sequence[str]) -> str:
    """``unknown key 'lr' (did you mean 'learning_rate'?)`` in one line."""
    if (advice := ADVICE.get(plain(name))) and name not in allowed:
        return f"unknown key {name!r}: {advice}"
    key = _MEANT.get(plain(name), "")
    place, _, last = key.rpartition(".")
    is_known = key in allowed or (key in _OPTIONS and (place in allowed or last in allowed))  # some methods lack it
    return unknown("key", name, allowed, meant=key if is_known else None)


def check_used(command: str, overrides: Iterable[str], used: Sequence[str], model: type[BaseModel]) -> None:
    """Refuse recipe keys that a command would take and not use; unknown ones are found when the recipe is read.

    Raises:
        UserError: a key of ``model`` that is not among ``used``.
    """
    for key in overrides:
        if key in model.model_fields and key not in used:
            raise UserError(f"{key}: multitune {command} does not use it; it takes {', '.join(used)}")


_MUST_BE = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "string_unicode": "text that UTF-8 can hold",
    "literal_error": "{expected}",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "tuple_type": "a list",
    "too_short": "a list of at least {min_length}",
    "dict_type": "a mapping such as {{key: value}}",
    "model_type": "a mapping of keys ({keys}) to values",
    "invalid-json-value": "a number, text, true, false, null, or a list or mapping of these",
}
"""Pydantic's kinds of error -> what a value must be."""


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a validation error in one line: the key, what is wrong, what is allowed."""
    first, *others = error.errors()
    key = _key(first["loc"])
    if first["type"] in ("extra_forbidden", "invalid_key"):
        *place, name = _parts(first["loc"])
        problem = unknown_key(name, _keys(model, place))
        return f"{'.'.join(place)}: {problem}" if place else problem
    if first["type"] == "missing":
        return f"{key}: is missing"
    if first["type"] not in _MUST_BE:
        return f"{key}: {first['msg'].removeprefix('Value error, ')}"
    # Where a value may be of several kinds, there is an error for each.
    same = [one for one in (first, *others) if one["type"] in _MUST_BE and _key(one["loc"]) == key]
    said = dict.fromkeys(_must_be(one, model) for one in same)
    return f"{key}: must be {' or '.join(said)}, not {_shown(first['input'])}"


def _must_be(error: Mapping[str, Any], model: type[BaseModel]) -> str:
    value, kind = error["input"], error["type"]
    if kind == "tuple_type" and isinstance(value, str):
        return f"a list such as [{value.strip() or 'en'}]"
    context = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in error.get("ctx", {}).items()}
    if kind == "model_type":
        context["keys"] = ", ".join(_keys(model, _parts(error["loc"])))
    return _MUST_BE[kind].format(**context)


def _shown(value: Any) -> str:
    """A value as recipes have it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(list(value) if isinstance(value, tuple) else value)


def _keys(model: type[BaseModel], place: Sequence[str]) -> list[str]:
    """The keys at a place of a recipe: its own, or those of a key that has keys itself."""
    for key in place:
        annotation = model.model_fields[key].annotation
        (model,) = (kind for kind in get_args(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel))
    return list(model.model_fields)


_KIND = re.compile(r"function-|constrained-|literal\[|dict\[|tuple\[|\[key\]|(?:str|int|float|bool|list|dict)$")
"""What pydantic puts beside the keys of a place: the kinds of value that it tried."""


def _key(place: Sequence[int | str]) -> str:
    """The recipe key of one of pydantic's errors."""
    return ".".join(_parts(place))


def _parts(place: Sequence[int | str]) -> list[str]:
    return [str(part) for n, part in enumerate(place) if n == 0 or not _KIND.match(str(part))]
