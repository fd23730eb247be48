"""The runs of a comparison, as they are tried: what fails is noted, and the others go on."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from multitune import tasks
from multitune.data.corpus import Corpus
from multitune.errors import Interrupted, RunError, UserError, as_line
from multitune.recipe import Recipe
from multitune.results.comparison import FailedRun, Point
from multitune.results.run import FILE
from multitune.training.loading import load_encoder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Planned:
    """A run of a comparison: where it goes, at which point of the grid."""

    folder: str
    point: Point
    recipe: Recipe


class Failures:
    """What ended runs of a comparison, while the others go on.

    Args:
        out: the folder of the comparison.
        runs: all that are planned.
    """

    def __init__(self, out: Path, runs: Sequence[Planned]) -> None:
        self.failed: list[FailedRun] = []
        self._out, self._runs = out, runs
        self._mistakes = 0

    def noted(self, run: Planned, corpus: Corpus) -> "_Noting":
        """A block that may fail, with this run inside."""
        return _Noting(self, run, corpus)

    def add(self, run: Planned, error: Exception) -> None:
        """Note a run that failed; a fault of the program itself keeps its traceback."""
        told = isinstance(error, UserError | RunError)
        line = as_line(str(error) if told else f"{type(error).__name__}: {error}")
        log.error("%s failed: %s", self._out / run.folder, line, exc_info=None if told else error)
        self.failed.append(FailedRun(run.recipe.method, run.recipe.seed, run.folder, dict(run.point), line))
        self._mistakes += isinstance(error, UserError)

    def finished(self) -> list[Planned]:
        """The runs that did not fail.

        Raises:
            UserError: all failed, and by mistakes of the user's; RunError: all failed.
        """
        order = [run.folder for run in self._runs]
        self.failed.sort(key=lambda run: order.index(run.folder))  # runs at once end in any order
        gone = {run.folder for run in self.failed}
        if len(gone) < len(self._runs):
            return [run for run in self._runs if run.folder not in gone]
        first = self.failed[0]
        told = first.error if len(gone) == 1 else f"all {len(gone)} runs failed; {first.folder}: {first.error}"
        raise UserError(told) if self._mistakes == len(gone) else RunError(told)

    def concerns_all(self, error: Exception, run: Planned, corpus: Corpus) -> bool:
        """Whether the error is that the model cannot be had, all runs have that one, and none is finished."""
        finished = any((self._out / one.folder / FILE).exists() for one in self._runs)
        if finished or not isinstance(error, UserError) or len({one.recipe.model for one in self._runs}) > 1:
            return False
        try:
            load_encoder(run.recipe, tasks.of(corpus), corpus)
        except UserError:
            return True
        return False


class _Noting:
    """Inside, whatever makes a run fail is noted, but for signals, and for what makes all fail."""

    def __init__(self, failures: Failures, run: Planned, corpus: Corpus) -> None:
        self._failures, self._run, self._corpus = failures, run, corpus

    def __enter__(self) -> None:
        """Nothing is to be prepared."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception) or isinstance(error, Interrupted):
            return False
        if self._failures.concerns_all(error, self._run, self._corpus):
            return False
        self._failures.add(self._run, error)
        return True
