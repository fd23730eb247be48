"""The versions that decide a run's numbers."""

import platform
from importlib import metadata


def versions() -> dict[str, str]:
    """The versions of Python and the packages that decide a run's numbers."""
    packages = ("multitune", "torch", "transformers", "tokenizers", "numpy")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}
