"""How a run is to be made, and its training from a folder that is ready to its results."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from multitune import pseudo_tasks
from multitune.data.corpus import Corpus
from multitune.errors import Interrupted
from multitune.methods.ranks import Ranks
from multitune.recipe import Recipe
from multitune.results.run import RunResult
from multitune.screen.places import wanted
from multitune.storage.interrupt import StopSignal
from multitune.training import run_folder
from multitune.training.arithmetic import settled
from multitune.training.data_changes import check_unchanged
from multitune.training.progress import Display, OnScreen, Shows, Silent
from multitune.training.run import Run
from multitune.training.trainer import Trainer


@dataclass(frozen=True)
class How:
    """How a run is to be made, beside its recipe; as the arguments of ``train``."""

    resume: bool
    overwrite: bool
    progress: bool | Shows | None
    track: str | None

    def opened(self, out: Path, recipe: Recipe) -> AbstractContextManager[str | None]:
        """The run's folder, made and kept from others; gives the owner that was killed in it, in words, if any."""
        return run_folder.opened(out, recipe, resume=self.resume, overwrite=self.overwrite)

    def display(self, title: str, budget: int) -> Display:
        """What a person sees of the run."""
        if callable(self.progress):
            return self.progress(title, budget)
        return OnScreen(title, budget) if wanted(self.progress) else Silent()

    def settled(self, recipe: Recipe, out: Path) -> Recipe:
        """The recipe with precision and threads: those of the run in its folder, unless that is overwritten."""
        return settled(recipe, [] if self.overwrite else [out])

    def check_unchanged(self, out: Path, recipe: Recipe, corpus: Corpus) -> None:
        """Raise UserError where the run in the folder has seen other data, unless that is overwritten."""
        if not self.overwrite:
            check_unchanged(out, recipe, corpus, option="--resume")

    def check(self, out: Path, recipe: Recipe) -> None:
        """Raise UserError where the folder cannot be the run's."""
        run_folder.check(out, recipe, resume=self.resume, overwrite=self.overwrite)


def fit(run: Run, corpus: Corpus, out: Path, how: How, last_owner: str | None, ranks: Ranks | None = None) -> RunResult:
    """Train and ship a run whose folder is ready; ``last_owner`` was killed in it, in words."""
    if run.division is not None:
        pseudo_tasks.write(out, run.division)
    with StopSignal() as stop, how.display(run.title, run.recipe.budget) as display:
        if last_owner:
            display.say(f"{out}: {last_owner} died without releasing its lock; this run takes the folder over")
        trainer = Trainer(run, out, display, stop, ranks)
        trainer.begin(resume=how.resume)
        for note in run.update.notes:
            display.say(f"{run.title}: {note}")
        trainer.fit(how.track)
        result = trainer.ship(corpus)
        if stop.requested:
            raise Interrupted(f"stopped; {out} was finished already", stop.requested)
        return result
