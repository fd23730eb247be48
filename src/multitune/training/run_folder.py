"""The folder of a run: whether it may be written, and who has it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from multitune.errors import UserError
from multitune.recipe import Recipe, is_saved_in, to_yaml
from multitune.results import merged
from multitune.results.run import FILE
from multitune.storage import lock
from multitune.storage.atomic import remove_parts, write_text
from multitune.storage.disk import disk_explained
from multitune.training import checkpoint

CHECKPOINTS = "checkpoints"


def is_finished(out: Path, recipe: Recipe) -> bool:
    """Whether the folder holds this very run, finished; then it takes nothing but its report to end it.

    Raises:
        UserError: another process has the folder, or its recipe cannot be read.
    """
    with disk_explained(out):
        if not (out / FILE).exists() or not is_saved_in(out / "recipe.yaml", recipe):
            return False
        lock.check_free(out)
        return True


def tidy(out: Path, recipe: Recipe) -> None:
    """Remove the checkpoints of a finished run, unless its recipe keeps them."""
    if not recipe.keep_checkpoints:
        for folder in (out / CHECKPOINTS, *out.glob(f"languages/*/{CHECKPOINTS}")):
            checkpoint.clear(folder)


def check(out: Path, recipe: Recipe, *, resume: bool) -> None:
    """A run never writes over another: the folder is new, empty, or (resuming) holds this very recipe, unfinished.

    Raises:
        UserError: it is none of these, or another process has it.
    """
    with disk_explained(out):
        if out.is_symlink() and not out.exists():
            raise UserError(f"--out: {out} is a link to nothing; name a folder")
        if not out.exists():
            return
        if not out.is_dir():
            raise UserError(f"--out: {out} is a file; name a folder")
        lock.check_free(out)
        _check_content(out, recipe, resume=resume)


@contextmanager
def opened(out: Path, recipe: Recipe, *, resume: bool) -> Iterator[str | None]:
    """Make the folder and keep others out of it; yields the owner that was killed in it, in words, if any.

    Raises:
        UserError: as ``check`` does; OSError: it cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    with lock.held(out) as last_owner:
        _check_content(out, recipe, resume=resume)
        begin(out, recipe)
        yield last_owner


def begin(out: Path, recipe: Recipe) -> None:
    """Write the recipe, and remove what a killed run was still writing."""
    out.mkdir(parents=True, exist_ok=True)
    remove_parts(out)
    write_text(out / "recipe.yaml", to_yaml(recipe))


def _check_content(out: Path, recipe: Recipe, *, resume: bool) -> None:
    if all(path.name == lock.FILE or path.match(".*.part") for path in out.iterdir()):
        return
    if not (out / "recipe.yaml").exists():
        raise UserError(f"--out: {out} is not empty, and it is not the folder of a run; name a new folder")
    if (out / FILE).exists():
        raise UserError(f"--out: {out} already holds a finished run; name another folder, or remove it")
    if (out / merged.FILE).exists():
        raise UserError(f"--out: {out} already holds a merged model; name another folder, or remove it")
    if not resume:
        raise UserError(f"--out: {out} already holds an unfinished run; add --resume to go on, or name another folder")
    if not is_saved_in(out / "recipe.yaml", recipe):
        raise UserError(
            f"--resume: {out / 'recipe.yaml'} is another recipe; resume with the one that the run began with"
        )
