"""The report of a finished run or comparison, written anew."""

from pathlib import Path

from multitune.reports import page
from multitune.storage.disk import check_readable

FIGURES = "figures"


def report(folder: str | Path, *, figures: bool = False) -> list[Path]:
    """Write ``report.html`` into the folder of a run or of a comparison.

    Args:
        folder: a run's or a comparison's.
        figures: also draw ``figures/``: PDF, SVG and PNG.

    Returns:
        The page, and the PNG files of the figures.

    Raises:
        UserError: the folder holds neither, a file in it is damaged, or the figures need matplotlib, which is missing.
    """
    folder = Path(folder)
    check_readable(folder)
    if not figures:
        return [page.write(folder)]
    from multitune.reports import figures as drawn  # says at once where matplotlib is missing

    return [page.write(folder), *drawn.write(folder, folder / FIGURES)]
