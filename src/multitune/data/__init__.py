"""Readers of files, which need no model; the ``records`` that they hand over, and data ``sets`` by name."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from multitune.data.bad import BadRecords

if TYPE_CHECKING:
    from multitune.data.sets import DATASETS

__all__ = ["DATASETS", "BadRecords"]


def __getattr__(name: str) -> Any:
    """Import the data sets when they are first asked for: a reader alone needs none of them."""
    if name == "DATASETS":
        return import_module("multitune.data.sets").DATASETS
    raise AttributeError(f"module 'multitune.data' has no attribute {name!r}")
