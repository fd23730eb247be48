"""The JSON schema of recipes: it describes every key, takes every recipe of ours, and refuses what recipes refuse."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from multitune.commands.schema import schema
from multitune.data.sets import DATASETS
from multitune.plans import METHODS
from multitune.recipe import Recipe
from multitune.recipe_files import parse, read

RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))
SCHEMA = schema()


def problems(text: str) -> list[str]:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    return [error.message for error in jsonschema.Draft7Validator(SCHEMA).iter_errors(parse(text, "recipe"))]


def described(part: Any, place: str = "") -> Iterator[tuple[str, str | None]]:
    """Each property of a schema at any depth, with what is said of it; a reference says it elsewhere."""
    if isinstance(part, dict):
        for key, value in part.get("properties", {}).items():
            if "$ref" not in value and "/if" not in place and "/then" not in place:
                yield f"{place}.{key}", value.get("description")
    for key, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        yield from described(value, f"{place}/{key}")


def test_every_key_and_option_has_a_description() -> None:
    found = dict(described(SCHEMA))
    keys = {name for name in found if name.startswith(".")}
    assert keys == {f".{key}" for key in (*Recipe.model_fields, "methods")}
    options = {f"/$defs/{name}.{option}" for name, plan in METHODS.items() for option in plan.model_fields}
    assert options <= found.keys()
    assert {"/$defs/PseudoTasks.clusters", "/$defs/Replay.share"} <= found.keys()
    assert all("``" not in (text or "") and "\n" not in (text or "") for text in found.values())
    # Entries under methods: hold references alone.
    assert [name for name, text in found.items() if not text and not name.startswith("/properties/methods")] == []


def test_a_recipe_is_described_in_python_too() -> None:
    assert all(value["description"] for value in Recipe.model_json_schema()["properties"].values())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(path.parents[1])))
def test_every_recipe_of_ours_fits(path: Path) -> None:
    assert read(path)
    assert problems(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_is_known(name: str) -> None:
    assert problems(f"data: {name}") == []


@pytest.mark.parametrize(
    "text",
    [
        "buget: 3",
        "budget: many",
        "languages: en",
        "data: panks",
        "method: mlt",
        "method: mtl\noptions: {inner_steps: 3}",
        "method: torchjd:UPGrad\noptions: {groups: nonsense}",
        "methods: {mlt: {}}",
        "methods: {mtl: {learning_rate: many}}",
        "methods: {mtl: {options: {inner_steps: 3}}}",
        "methods: {mtl: {method: stl}}",
        "pseudo_tasks: {cluster: 3}",
        "replay: {share: 2}",
    ],
)
def test_what_a_recipe_refuses_the_schema_refuses(text: str) -> None:
    assert problems(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "learning_rate: 1e-4",
        "method: torchjd:UPGrad\noptions: {norm_eps: 0.1}",
        "methods: {sequential_reptile: {options: {inner_steps: 3}}, torchjd:UPGrad: {budget: 3}}",
        "pseudo_tasks: {clusters: 3}\nreplay: {languages: [en]}",
    ],
)
def test_what_a_recipe_takes_the_schema_takes(text: str) -> None:
    assert problems(text or "{}") == []
