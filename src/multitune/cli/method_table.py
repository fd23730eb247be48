"""The methods as a table: apart from the other tables, whose imports take seconds."""

from collections.abc import Mapping

from multitune.cli.sheet import Column, Lines, Sheet
from multitune.plans import Plan


def methods(plans: Mapping[str, type[Plan]]) -> Sheet:
    """Name, one line, paper and options of each method."""
    columns = [
        Column("method", text=True),
        Column("about", "what it does, and its paper", text=True, folds=True),
        Column("options", "options=default", text=True, folds=True),
    ]
    sheet = Sheet("methods", columns)
    for name, plan in plans.items():
        options = " ".join(_option(key, field.default) for key, field in plan.model_fields.items())
        sheet.add(name, Lines([line for line in (plan.summary, plan.paper) if line]), options)
    return sheet


def _option(key: str, default: object) -> str:
    return f"{key}={'null' if default is None else default}"
