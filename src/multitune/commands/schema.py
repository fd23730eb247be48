"""The JSON schema of recipe files, from which an editor completes, explains and checks their keys."""

from typing import Any

from multitune import plugins
from multitune.data.sets import DATASETS
from multitune.data.sets.hub import PREFIX
from multitune.plans import METHODS, TORCHJD
from multitune.plans.combined import TorchJDPlan
from multitune.recipe import Recipe

_OF_METHODS = "The methods of a comparison, each with the keys that it wants different from those above."


def schema() -> dict[str, Any]:
    """JSON schema of a recipe file: its keys, and under ``methods:`` those of single methods.

    It keeps to draft 7, which every editor knows.

    Raises:
        UserError: a plugin is broken.
    """
    plugins.load()
    made = Recipe.model_json_schema()
    keys, definitions = made["properties"], made["$defs"]
    keys["data"] |= {"anyOf": [{"enum": sorted(DATASETS)}, {"pattern": f"^{PREFIX}"}]}
    keys["method"] |= {"anyOf": [{"enum": list(METHODS)}, {"pattern": f"^{TORCHJD}"}]}
    definitions |= {name: plan.model_json_schema() for name, plan in (METHODS | {TORCHJD: TorchJDPlan}).items()}
    methods = {
        "description": _OF_METHODS,
        "type": "object",
        "properties": {name: _keys_of(name, keys) for name in METHODS},
        "patternProperties": {f"^{TORCHJD}": _keys_of(TORCHJD, keys)},
        "additionalProperties": False,
    }
    whole = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "multitune recipe",
        "description": Recipe.__doc__,
        "type": "object",
        "properties": keys | {"methods": methods},
        "additionalProperties": False,
        "allOf": [
            *(_options_of(name, {"const": name}) for name in METHODS),
            _options_of(TORCHJD, {"pattern": f"^{TORCHJD}"}),
        ],
        "$defs": definitions,
    }
    readable: dict[str, Any] = _readable(whole)
    return readable


def _keys_of(method: str, keys: dict[str, Any]) -> dict[str, Any]:
    """A method's entry under ``methods:``: any key of a recipe, and its own options."""
    same = {key: {"$ref": f"#/properties/{key}"} for key in keys if key != "method"}
    return {
        "type": "object",
        "properties": same | {"options": {"$ref": f"#/$defs/{method}"}},
        "additionalProperties": False,
    }


def _options_of(method: str, value: dict[str, Any]) -> dict[str, Any]:
    """What a recipe's ``options`` are where ``method`` has a value."""
    return {
        "if": {"properties": {"method": value}, "required": ["method"]},
        "then": {"properties": {"options": {"$ref": f"#/$defs/{method}"}}},
    }


def _readable(part: Any) -> Any:
    """Descriptions in one line and in Markdown, as editors show them."""
    if isinstance(part, list):
        return [_readable(each) for each in part]
    if not isinstance(part, dict):
        return part
    return {
        key: " ".join(value.split()).replace("``", "`")
        if key == "description" and isinstance(value, str)
        else _readable(value)
        for key, value in part.items()
    }
