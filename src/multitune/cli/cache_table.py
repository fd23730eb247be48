"""The cache as a table."""

from collections.abc import Sequence

from multitune.cli.sheet import Column, Number, Sheet
from multitune.commands.cache import Usage


def cache(uses: Sequence[Usage]) -> Sheet:
    """One line a use: entries, size, last use."""
    sheet = Sheet(
        "cache", [Column("use", text=True), Column("entries"), Column("mb", "MB"), Column("last", "last used")]
    )
    for use in uses:
        sheet.add(use.use, use.entries, megabytes(use.size), f"{use.last:%Y-%m-%d}")
    sheet.rule()
    sheet.add("all", sum(use.entries for use in uses), megabytes(sum(use.size for use in uses)), "")
    return sheet


def megabytes(size: int) -> Number:
    """Bytes in units of a million."""
    return Number(size / 1e6, 1)
