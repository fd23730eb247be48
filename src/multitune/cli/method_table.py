"""The methods as a table: apart from the other tables, whose imports take seconds."""

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from multitune.plans import Plan


def methods(plans: Mapping[str, type[Plan]]) -> Table:
    """Name, one line, paper and options of each method."""
    table = Table(box=SIMPLE_HEAD)
    for column in ("method", "what it does, and its paper", "options=default"):
        table.add_column(column, overflow="fold", no_wrap=column == "method")
    for name, plan in plans.items():
        about = Text.assemble(plan.summary, "\n", (plan.paper, "dim"))
        table.add_row(name, about, " ".join(_option(key, field.default) for key, field in plan.model_fields.items()))
    return table


def _option(key: str, default: object) -> str:
    return f"{key}={'null' if default is None else default}"
