"""Kinds of task, methods, data sets and readers of other packages: modules that enter themselves in multitune's dicts.

A package names such a module in the entry-point group ``multitune.plugins`` (docs/plugins.md).
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from multitune.errors import UserError

GROUP = "multitune.plugins"
BREAKS = (AttributeError, ImportError, LookupError, NameError, RuntimeError, SyntaxError, TypeError, ValueError)
"""What a module raises that was written for another version, or has a slip in it: a name that is gone from a dict, an
argument that no class takes any more, a field that pydantic refuses."""


@cache
def load() -> None:
    """Import the modules that installed packages name, by name in order; a second call does nothing.

    Raises:
        UserError: one of them cannot be imported.
    """
    for plugin in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        try:
            plugin.load()
        except BREAKS as error:
            raise UserError(
                f"{_package(plugin)}: its plugin {plugin.value} cannot be imported ({type(error).__name__}: {error}); "
                f"update the package, or uninstall it"
            ) from error


def _package(plugin: EntryPoint) -> str:
    return f"package {plugin.dist.name} {plugin.dist.version}" if plugin.dist else "a package without a name"
