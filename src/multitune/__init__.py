"""multitune: fine-tune one multilingual model on many languages at once."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multitune import methods
    from multitune.commands.compare import compare
    from multitune.commands.train import train
    from multitune.errors import RunError, UserError
    from multitune.methods import SequentialReptile
    from multitune.methods.combiner import Combiner
    from multitune.recipe import Recipe
    from multitune.results.comparison import Comparison
    from multitune.results.run import RunResult

_HOMES = {
    "Combiner": "multitune.methods.combiner",
    "Comparison": "multitune.results.comparison",
    "Recipe": "multitune.recipe",
    "RunError": "multitune.errors",
    "RunResult": "multitune.results.run",
    "SequentialReptile": "multitune.methods",
    "UserError": "multitune.errors",
    "compare": "multitune.commands.compare",
    "train": "multitune.commands.train",
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
