"""The runs in a folder, finished or not, those of comparisons and sweeps among them."""

import logging
from dataclasses import dataclass
from pathlib import Path

from multitune.errors import UserError
from multitune.results import merged
from multitune.results.run import FILE, RunResult

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listed:
    """A run.

    Attributes:
        folder: the run's, seen from where the list begins.
        result: what it reports; None of a run that is not finished, or whose results.json is damaged.
    """

    folder: str
    result: RunResult | None


def runs(folder: str | Path = "runs") -> list[Listed]:
    """The runs in a folder and in the comparisons and sweeps in it, by name.

    A warning names each whose results.json is damaged.

    Raises:
        UserError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"{folder}: is no folder; multitune runs lists what is in runs/, or in the folder that it is given"
        )
    patterns = ("recipe.yaml", "*/recipe.yaml", "*/*/recipe.yaml", "*/rung*/*/recipe.yaml")
    folders = sorted(path.parent for pattern in patterns for path in folder.glob(pattern))
    own = [run for run in folders if not (run / merged.FILE).exists()]  # a merge is no run that could be resumed
    return [Listed(str(run.relative_to(folder)), _result(run)) for run in own]


def _result(run: Path) -> RunResult | None:
    if not (run / FILE).exists():
        return None
    try:
        return RunResult.read(run)
    except UserError as error:
        log.warning("%s; the run is listed as not finished", error)
        return None
