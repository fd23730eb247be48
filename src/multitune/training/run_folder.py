"""The folder of a run: whether it may be written, and who has it."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from multitune.errors import UserError, is_utf8
from multitune.recipe import Recipe
from multitune.recipe_files import is_saved_in, other_keys, to_yaml
from multitune.results import clusters, merged, metrics, predictions, probes
from multitune.results.run import FILE
from multitune.storage import lock
from multitune.storage.atomic import remove, remove_parts, write_text
from multitune.storage.disk import disk_explained
from multitune.training import checkpoint

CHECKPOINTS = "checkpoints"
RUNS = Path("runs")
"""Where runs go when nobody says."""
NUMBER = re.compile(r"[2-9]|[1-9][0-9]{1,2}")
"""What follows the name of a second run; longer ones, such as dates, are a user's own."""
BEGUN = (metrics.FILE, FILE, merged.FILE)
"""Files of which a run that has begun, or a merge, has one."""
WRITTEN = (
    *(
        "recipe.yaml",
        "data",
        "model",
        "adapter",
        "languages",
        "report.html",
        "figures",
        "tensorboard",
        "mlflow",
        CHECKPOINTS,
        *BEGUN,
    ),
    *(predictions.FILE, clusters.FILE, probes.FILE, "front.png", "front.svg", "front.pdf"),
)
"""All that a run and the commands about it write into its folder: what ``overwrite`` removes."""
OWN = (metrics.FILE, predictions.FILE, merged.FILE, "languages")
"""What only the folder of a run or of a merge has beside its recipe, and that of several runs has not."""


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


def default(name: str, *, resume: bool, overwrite: bool) -> Path:
    """The folder in ``runs/`` of a run that nobody has named one for: new, with a number where the name is taken.

    Where it resumes, the newest of them; where it overwrites, the one without a number. The numbers of those that were
    removed are not given again while a later one is there: the highest is the newest.
    """
    if overwrite:
        return RUNS / name
    ends = (path.name.removeprefix(f"{name}-") for path in RUNS.glob("*") if path.name.startswith(f"{name}-"))
    numbers = [1, *(int(end) for end in ends if NUMBER.fullmatch(end))]
    newest = max((number for number in numbers if _is_taken(_numbered(name, number))), default=0)
    if resume and newest:
        return _numbered(name, newest)
    return next(out for number in count(newest + 1) if not _is_taken(out := _numbered(name, number)))


def _numbered(name: str, number: int) -> Path:
    return RUNS / (name if number == 1 else f"{name}-{number}")


def _is_taken(out: Path) -> bool:
    return os.path.lexists(out) and not (out.is_dir() and _is_empty(out))


def check(out: Path, recipe: Recipe, *, resume: bool, overwrite: bool = False) -> None:
    """A run never writes over another: the folder is new, empty, or (resuming) holds this very recipe, unfinished.

    Where it overwrites, the folder may hold any run.

    Raises:
        UserError: it is none of these, or another process has it.
    """
    check_name(out)
    with disk_explained(out):
        if out.is_symlink() and not out.exists():
            raise UserError(f"--out: {out} is a link to nothing; name a folder")
        if not out.exists():
            return
        if not out.is_dir():
            raise UserError(f"--out: {out} is a file; name a folder")
        check_free(out)
        _check_content(out, recipe, resume=resume, overwrite=overwrite)


def check_free(out: Path) -> None:
    """Raise UserError where another process has a run's folder, or that of a language with a model of its own."""
    for folder in (out, *out.glob("languages/*")):
        lock.check_free(folder)


def check_not_read(out: Path, recipe: Recipe) -> None:
    """Refuse to overwrite a folder that holds what the new run begins with: it would be gone before the first step.

    Raises:
        UserError: the recipe's data or model lie in it.
    """
    of_replay = None if recipe.replay is None else recipe.replay.path
    for key, given in (("path", recipe.path), ("replay.path", of_replay), ("model", recipe.model)):
        for place in given.values() if isinstance(given, dict) else filter(None, [given]):
            if Path(place).exists() and Path(place).resolve().is_relative_to(out.resolve()):
                raise UserError(
                    f"--overwrite: {out} holds what the new run reads ({key}: {place}); name another folder with --out"
                )


def check_name(out: Path) -> None:
    """Raise ``UserError`` where a folder's name is not UTF-8: the libraries that write models take no other."""
    if not is_utf8(str(out)):
        raise UserError(f"--out: {out} is no name in UTF-8, and no model can be written there; name another folder")


def check_new(out: Path) -> None:
    """Refuse a folder that has something in it.

    Raises:
        UserError: it has, it is a file, or it has a name that no model's folder may have.
    """
    check_name(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out: {out} is not empty; name a new folder")


def check_for_several(out: Path) -> None:
    """A folder for several runs is none of a run, whose results and report theirs would replace.

    Raises:
        UserError: it is, or it has a name that no run's may have.
    """
    check_name(out)
    with disk_explained(out):
        if (out / "recipe.yaml").exists() and any((out / name).exists() for name in OWN):
            raise UserError(f"--out: {out} is the folder of a run, and several need one of their own; name another")


def of_language(out: Path, language: str) -> Path:
    """Where a run with a model for each language has that of one."""
    return out / "languages" / language


@contextmanager
def opened(out: Path, recipe: Recipe, *, resume: bool, overwrite: bool = False) -> Iterator[str | None]:
    """Make the folder and keep others out of it; yields the owner that was killed in it, in words, if any.

    Where it overwrites, the run that is there goes first.

    Raises:
        UserError: as ``check`` does; OSError: it cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    with lock.held(out) as last_owner:
        _check_content(out, recipe, resume=resume, overwrite=overwrite)
        if overwrite:
            _clear(out)
        begin(out, recipe)
        if overwrite:
            remove(out / metrics.FILE)
        yield last_owner


def begin(out: Path, recipe: Recipe) -> None:
    """Write the recipe, and remove what a killed run was still writing; git is to see nothing in ``runs/``."""
    out.mkdir(parents=True, exist_ok=True)
    if RUNS in out.parents:
        with suppress(FileExistsError), (RUNS / ".gitignore").open("x", encoding="utf-8") as file:  # others begin, too
            file.write("*\n")
    remove_parts(out)
    write_text(out / "recipe.yaml", to_yaml(recipe))


def _clear(out: Path) -> None:
    """Remove a run but for its recipe and its log.

    Killed in the midst of it, this leaves what is not finished, and what can be overwritten again.
    """
    (out / metrics.FILE).touch()
    remove(out / FILE)
    for path in _content(out):
        if path.name not in ("recipe.yaml", metrics.FILE):
            remove(path)


def _content(out: Path) -> list[Path]:
    """What is in a folder, but for the files of a lock."""
    return [path for path in out.iterdir() if path.name not in lock.FILES]


def _is_empty(out: Path) -> bool:
    return all(path.match(".*.part") for path in _content(out))


def _check_content(out: Path, recipe: Recipe, *, resume: bool, overwrite: bool) -> None:
    if _is_empty(out):
        return
    if not (out / "recipe.yaml").exists():
        raise UserError(f"--out: {out} is not empty, and it is not the folder of a run; name a new folder")
    if overwrite:
        _check_only_a_run(out)
        return
    if (out / FILE).exists():
        raise UserError(f"--out: {out} already holds a finished run; name another folder, or add --overwrite")
    if (out / merged.FILE).exists():
        raise UserError(f"--out: {out} already holds a merged model; name another folder, or add --overwrite")
    if not resume:
        add = "--resume or --overwrite" if _has_begun(out) else "--resume"
        raise UserError(f"--out: {out} already holds an unfinished run; add {add}, or name another folder")
    if not is_saved_in(out / "recipe.yaml", recipe):
        raise UserError(
            f"--resume: {out / 'recipe.yaml'} is another recipe (in {other_keys(out / 'recipe.yaml', recipe)}); resume "
            f"with the one that the run began with"
        )


def _has_begun(out: Path) -> bool:
    """Whether a run in a folder, or of a method with a model for each language one of these, has begun to train."""
    return any((out / name).exists() for name in BEGUN) or any(out.glob(f"languages/*/{metrics.FILE}"))


def _check_only_a_run(out: Path) -> None:
    """Make sure that whoever overwrites a run loses nothing else: a recipe of one's own may lie among one's files."""
    if not _has_begun(out):
        raise UserError(f"--overwrite: {out} holds no run that has begun; name a new folder, or resume it")
    others = [path.name for path in _content(out) if path.name not in WRITTEN and not path.match(".*.part")]
    if others:
        raise UserError(
            f"--overwrite: {out} holds {others[0]!r}, which no run has written; move it away, or name another folder"
        )
