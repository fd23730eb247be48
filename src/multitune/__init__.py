"""multitune: fine-tune one multilingual model on many languages at once."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multitune import methods
    from multitune.commands.compare import compare
    from multitune.commands.compare_finished import compare_finished
    from multitune.commands.evaluate import evaluate
    from multitune.commands.merge import merge
    from multitune.commands.predict import predict
    from multitune.commands.probe import probe
    from multitune.commands.push import push
    from multitune.commands.report import report
    from multitune.commands.sweep import sweep
    from multitune.commands.train import train
    from multitune.errors import DivergedError, Interrupted, RunError, UserError
    from multitune.methods import SequentialReptile
    from multitune.methods.combiner import Combiner
    from multitune.recipe import Recipe
    from multitune.results.comparison import Comparison
    from multitune.results.merged import Merged
    from multitune.results.probes import Findings
    from multitune.results.run import RunResult
    from multitune.results.sweep import Sweep

    __version__: str

__all__ = [
    "Combiner",
    "Comparison",
    "DivergedError",
    "Findings",
    "Interrupted",
    "Merged",
    "Recipe",
    "RunError",
    "RunResult",
    "SequentialReptile",
    "Sweep",
    "UserError",
    "compare",
    "compare_finished",
    "evaluate",
    "merge",
    "methods",
    "predict",
    "probe",
    "push",
    "report",
    "sweep",
    "train",
]

_HOMES = {
    "Combiner": "methods.combiner",
    "Comparison": "results.comparison",
    "DivergedError": "errors",
    "Findings": "results.probes",
    "Interrupted": "errors",
    "Merged": "results.merged",
    "Recipe": "recipe",
    "RunError": "errors",
    "RunResult": "results.run",
    "SequentialReptile": "methods",
    "Sweep": "results.sweep",
    "UserError": "errors",
    "compare": "commands.compare",
    "compare_finished": "commands.compare_finished",
    "evaluate": "commands.evaluate",
    "merge": "commands.merge",
    "predict": "commands.predict",
    "probe": "commands.probe",
    "push": "commands.push",
    "report": "commands.report",
    "sweep": "commands.sweep",
    "train": "commands.train",
}
"""Public name -> the module that has it."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: transformers takes seconds, and the command line wants none of it."""
    from importlib import import_module, metadata

    if name == "__version__":
        return metadata.version("multitune")
    if name == "methods":
        return import_module("multitune.methods")
    if name in _HOMES:
        return getattr(import_module(f"multitune.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'multitune' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, which ``__getattr__`` imports when they are first used."""
    return [*__all__, "__version__"]
