"""Data that a program gives to ``train``: written for a run, which keeps them, and described by its recipe."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from multitune.commands.init import init, is_data
from multitune.data import in_memory
from multitune.data.sets.by_language import LANGUAGE
from multitune.errors import UserError
from multitune.recipe import Recipe
from multitune.recipe_files import AnyRecipe, RecipeFile, as_file, merge, read
from multitune.storage.atomic import replaced
from multitune.storage.disk import disk_explained

FOLDER = "data"
"""In the folder of a run."""


@contextmanager
def written(data: Any) -> Iterator[Path]:
    """A temporary folder with the data as JSON Lines.

    Raises:
        UserError: as ``in_memory.write`` does.
        RunError: the disk is full.
    """
    with tempfile.TemporaryDirectory(prefix="multitune-") as folder:
        with disk_explained(Path(folder)):
            in_memory.write(data, Path(folder))
        yield Path(folder)


def keep(folder: Path, out: Path) -> None:
    """Copy the data into the folder of their run."""
    with replaced(out / FOLDER) as beside:
        shutil.copytree(folder, beside)


def recipe_for(recipe: AnyRecipe | None, folder: Path, overrides: Mapping[str, Any] | None) -> RecipeFile:
    """The recipe for data in a folder: a given one with their columns, or the one that ``init`` makes.

    Raises:
        UserError: the recipe has other data, or the columns cannot be told.
    """
    if recipe is None:
        file = replace(init(folder, overrides), source="data")
    elif isinstance(recipe, str | Path) and is_data(recipe):
        raise UserError(f"data: {recipe} is data, too; name a recipe, or leave one of the two out")
    else:
        file = _completed(as_file(recipe), folder, overrides or {})
    if LANGUAGE not in file.run["columns"]:
        _name_language(folder)
    return file


def recipe_of(run: Path) -> RecipeFile:
    """The recipe of a run; data that the run keeps itself are read where it lies now.

    Raises:
        UserError: as ``recipe_files.read`` does.
    """
    file, kept = read(run / "recipe.yaml"), run / FOLDER
    path = file.run.get("path")
    if isinstance(path, str) and Path(path).name == FOLDER and kept.is_dir():
        return replace(file, run=file.run | {"path": str(kept)})
    return file


def where_kept(recipe: Recipe, file: Path) -> Recipe:
    """The recipe of a run whose data are no longer where it says, with those that the run keeps, if it does.

    Args:
        recipe: of a file.
        file: ``recipe.yaml`` of a run folder that was moved, or any other, whose recipe stays as it is.
    """
    kept = file.parent / FOLDER
    moved = isinstance(recipe.path, str) and Path(recipe.path).name == FOLDER and not Path(recipe.path).exists()
    return recipe.model_copy(update={"path": str(kept)}) if moved and kept.is_dir() else recipe


def _completed(file: RecipeFile, folder: Path, overrides: Mapping[str, Any]) -> RecipeFile:
    keys = merge(file.run, overrides)
    if keys.get("data", "folder") != "folder" or keys.get("path") is not None:
        raise UserError(f"{file.source}: data: and path: name other data than those given; leave them out")
    columns = init(folder, {"columns": keys.get("columns") or {}}).run["columns"]
    return replace(file, run=file.run | {"data": "folder", "path": str(folder), "columns": columns})


def _name_language(folder: Path) -> None:
    """Call the splits of rows without a language as those of one."""
    for file in folder.glob("*.jsonl"):
        if file.stem != in_memory.WHOLE:
            file.rename(folder / f"{file.stem}-{in_memory.WHOLE}.jsonl")
