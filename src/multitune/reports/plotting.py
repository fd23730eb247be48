"""The one file that imports matplotlib: its parts that figures are made of, and the style that all of them share."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, cast

from multitune.errors import UserError

try:
    from matplotlib import rc_context
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure as Figure
    from matplotlib.lines import Line2D as Line2D
except ModuleNotFoundError as error:
    raise UserError(
        "figures need matplotlib: pip install 'multitune[figures]', or do without them (report: leave out --figures; "
        "synthetic: --no-figures)"
    ) from error


def styled(size: float, more: Mapping[str, object] | None = None) -> AbstractContextManager[None]:
    """Inside, text is of that size in points, thin lines frame the axes and PDF files hold their fonts.

    Args:
        size: of titles and labels.
        more: settings of matplotlib besides.
    """
    style = {
        "font.size": size,
        "axes.titlesize": size,
        "axes.labelsize": size,
        "xtick.labelsize": size - 1,
        "ytick.labelsize": size - 1,
        "legend.fontsize": 7,
        "axes.linewidth": 0.5,
        "pdf.fonttype": 42,
    }
    return rc_context(cast(Any, style | dict(more or {})))
