"""The runs in a folder, finished or not, those of comparisons among them."""

from dataclasses import dataclass
from pathlib import Path

from multitune.errors import UserError
from multitune.results.run import FILE, RunResult


@dataclass(frozen=True)
class Listed:
    """A run.

    Attributes:
        folder: the run's, seen from where the list begins.
        result: what it reports; None of a run that is not finished.
    """

    folder: str
    result: RunResult | None


def runs(folder: str | Path = "runs") -> list[Listed]:
    """The runs in a folder and in the comparisons in it, by name.

    Raises:
        UserError: there is no such folder, or a results.json in it is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"{folder}: is no folder; multitune runs lists what is in runs/, or in the folder that it is given"
        )
    folders = sorted(
        path.parent for pattern in ("recipe.yaml", "*/recipe.yaml", "*/*/recipe.yaml") for path in folder.glob(pattern)
    )
    return [
        Listed(str(run.relative_to(folder)), RunResult.read(run) if (run / FILE).exists() else None) for run in folders
    ]
