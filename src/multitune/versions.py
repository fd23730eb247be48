"""The versions that decide a run's numbers."""

import platform
from functools import cache
from importlib import metadata


def versions() -> dict[str, str]:
    """The versions of Python and the packages that decide a run's numbers."""
    packages = ("multitune", "torch", "transformers", "tokenizers", "numpy")
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


@cache
def _version(package: str) -> str:
    """As its metadata says, which is read from disk."""
    return metadata.version(package)
