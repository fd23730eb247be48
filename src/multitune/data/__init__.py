"""Readers of files, which need no model; the ``records`` that they hand over, and data ``sets`` by name."""

from multitune.data.bad import BadRecords

__all__ = ["BadRecords"]
