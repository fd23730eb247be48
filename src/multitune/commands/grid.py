"""Grids of recipe keys: every combination of some values, each a point with a run folder of its own."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

from multitune.errors import UserError
from multitune.recipe_files import merge, nested, parse
from multitune.results.comparison import Point

Grid = Mapping[str, Sequence[Any]]
"""Recipe key (``options.inner_steps`` for a method's option) -> the values to try."""

ELSEWHERE = {"method": "--methods", "methods": "--methods", "seed": "--seeds"}


def read(words: Iterable[str]) -> dict[str, list[Any]]:
    """``["learning_rate=1e-5,3e-5", "options.inner_steps=50,100"]`` as a grid.

    Raises:
        UserError: a word that is not key=value,value, or values that are not plain.
    """
    grid: dict[str, list[Any]] = {}
    for word in words:
        key, separator, values = word.partition("=")
        if not separator or not key or not values:
            raise UserError(f"--grid {word}: write key=value,value, e.g. --grid learning_rate=1e-5,3e-5")
        if key in grid:
            raise UserError(f"--grid {key} is given twice; name all its values at once")
        grid[key] = parse(f"[{values}]", f"--grid {key}")
    return grid


def points(grid: Grid) -> list[Point]:
    """Every combination of the values, the last key's changing fastest; one empty point without keys.

    Raises:
        UserError: a key that a comparison sets by itself, no value, one that is no number or word, or one given twice.
    """
    for key, values in grid.items():
        if key in ELSEWHERE:
            raise UserError(f"--grid {key}: a grid cannot vary it; use {ELSEWHERE[key]}")
        if not values or not all(isinstance(value, bool | int | float | str) for value in values):
            raise UserError(f"--grid {key}: its values must be numbers, words, true or false, with commas between")
        if len({suffix({key: value}) for value in values}) < len(values):
            raise UserError(f"--grid {key}: a value is given twice")
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def overrides(point: Point) -> dict[str, Any]:
    """The point as recipe keys, nested where a key has dots."""
    options: dict[str, Any] = {}
    for key, value in point.items():
        options = merge(options, nested(key, value))
    return options


def suffix(point: Point) -> str:
    """The point as part of a folder's name, e.g. ``-learning_rate=1e-05``; empty without keys."""
    return "".join("-" + re.sub(r"[^\w.=+-]+", "_", f"{key}={value}") for key, value in point.items())
