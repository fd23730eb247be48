"""multitune: fine-tune one multilingual model on many languages at once."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multitune import methods
    from multitune.comparison import Comparison, compare
    from multitune.errors import RunError, UserError
    from multitune.gradients import Combiner
    from multitune.methods import SequentialReptile
    from multitune.recipe import Recipe
    from multitune.results import RunResult
    from multitune.training import train

_HOMES = {
    "Combiner": "multitune.gradients",
    "Comparison": "multitune.comparison",
    "Recipe": "multitune.recipe",
    "RunError": "multitune.errors",
    "RunResult": "multitune.results",
    "SequentialReptile": "multitune.methods",
    "UserError": "multitune.errors",
    "compare": "multitune.comparison",
    "train": "multitune.training",
}

__all__ = [
    "Combiner",
    "Comparison",
    "Recipe",
    "RunError",
    "RunResult",
    "SequentialReptile",
    "UserError",
    "compare",
    "methods",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: transformers takes seconds, and the command line wants none of it."""
    if name == "methods":
        return import_module("multitune.methods")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'multitune' has no attribute {name!r}")
