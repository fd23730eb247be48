"""What the last bits depend on where the recipe leaves it open, settled once a run: precision, number of threads."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from multitune.errors import UserError
from multitune.models.device import chosen
from multitune.models.precision import resolve
from multitune.recipe import Recipe
from multitune.recipe_files import read
from multitune.storage.cores import usable_cores

LACKING = "does not have a deterministic implementation"
"""Torch's words."""
WORKSPACE = ":4096:8"
"""Buffers of cuBLAS with which its products are the same each time; it reads the setting when it is first used."""


def settled(recipe: Recipe, folders: Iterable[Path], threads: int | None = None) -> Recipe:
    """The recipe with its precision and number of threads, where it leaves these open.

    They are those of the first of ``folders`` that holds a run, so that all sessions of a run and all runs of a
    comparison have the same; else ``threads``, or as many as this process may use cores.

    Raises:
        UserError: a folder's recipe cannot be read, or this machine does not have the recipe's device.
    """
    device = chosen(recipe.device)
    if recipe.precision != "auto" and recipe.threads is not None:
        return recipe
    saved = next((path for folder in folders if (path := folder / "recipe.yaml").exists()), None)
    before = recipe if saved is None else read(saved).resolve()
    precision = before.precision if recipe.precision == "auto" else recipe.precision
    settled_threads = recipe.threads or before.threads or threads or usable_cores()
    return recipe.model_copy(update={"precision": resolve(precision, device), "threads": settled_threads})


@contextmanager
def computing_as(recipe: Recipe) -> Iterator[None]:
    """Inside, torch computes with the recipe's threads of the CPU, and with its choice of algorithms on a card.

    Raises:
        UserError: deterministic algorithms are asked for where torch has none.
    """
    threads, algorithms = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(recipe.threads or threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", WORKSPACE)  # in every run: a later one may be deterministic
    if recipe.deterministic:
        torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if recipe.deterministic and LACKING in str(error):
            what = str(error).partition(LACKING)[0].strip()
            raise UserError(f"deterministic: torch has no deterministic {what}; set it to false") from error
        raise
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(algorithms)
