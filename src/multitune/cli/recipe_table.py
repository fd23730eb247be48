"""The recipes that come with multitune, as a table."""

from collections.abc import Mapping

from multitune.cli.sheet import Column, Sheet


def recipes(summaries: Mapping[str, str]) -> Sheet:
    """Name and purpose of each recipe."""
    columns = [Column("recipe", text=True), Column("about", "what it is for", text=True, folds=True)]
    sheet = Sheet("recipes", columns)
    for name, summary in summaries.items():
        sheet.add(name, summary)
    return sheet
