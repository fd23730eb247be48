"""Data sets from the Hugging Face Hub: what is wanted is downloaded once, then read as a folder is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from huggingface_hub import snapshot_download

from multitune.data.bad import BadRecords, first_of
from multitune.data.corpus import Corpus, Wanted
from multitune.data.sets import folders
from multitune.data.sets.folders import Layout, Part
from multitune.errors import UserError
from multitune.storage.hub import FAILURES, hub_reachable, is_repository

PREFIX = "hub:"
"""Begins what a recipe calls any data set of the Hub."""
SHOWN = 3
"""Names of files that a message lists."""


@dataclass(frozen=True)
class HubSet:
    """Where the Hub has a data set.

    Attributes:
        repository: owner/name.
        layout: how its parquet files are called and read.
        languages: the choice where a recipe makes none, to train on and to evaluate: the papers'. (): it must make one.
        revision: the branch with the parquet files.
    """

    repository: str
    layout: Layout
    languages: tuple[str, ...]
    revision: str = "main"


def is_name(name: str) -> bool:
    """Whether this names any data set of the Hub: ``hub:owner/name`` or ``hub:owner/name:config``."""
    return name.startswith(PREFIX)


def parsed_name(name: str) -> tuple[str, str | None]:
    """The repository and perhaps the configuration that ``hub:owner/name:config`` names.

    Raises:
        UserError: no repository can have the name.
    """
    repository, _, config = name.removeprefix(PREFIX).partition(":")
    if not is_repository(repository):
        raise UserError(f"data: {name!r} names no data set of the Hub; write hub:owner/name or hub:owner/name:config")
    return repository, config or None


def load(layouts: Sequence[Layout], hub_set: HubSet, wanted: Wanted, bad: BadRecords) -> Corpus:
    """Read a folder in one of the layouts or in the Hub's own; without a folder, the Hub's files.

    Raises:
        UserError: as ``folders.load`` does; or the Hub does not give the files.
    """
    if wanted.path is None:
        otherwise = f", or with {folders.described(layouts[:1])}" if layouts else ""
        return folders.load([hub_set.layout], _downloaded(hub_set, wanted, otherwise), bad)
    return folders.load([*layouts, hub_set.layout], wanted, bad)


def load_tasks(
    name: str, tasks: Mapping[str, tuple[Sequence[Layout], HubSet]], wanted: Wanted, bad: BadRecords
) -> Corpus:
    """Read tasks with heads of their own, each as ``load`` does; of a folder, by default those that it holds.

    Raises:
        UserError: as ``load`` and ``folders.load_tasks`` do.
    """
    if wanted.path is not None and not (wanted.languages or wanted.unseen):
        layouts_of = {task: [*layouts, hub_set.layout] for task, (layouts, hub_set) in tasks.items()}
        fit = partial(folders.fits, path=wanted.path, test_only=wanted.test_only)
        there = [task for task, layouts in layouts_of.items() if fit(layouts)]
        wanted = replace(wanted, languages=there or None)
    loads = {task: partial(load, layouts, hub_set) for task, (layouts, hub_set) in tasks.items()}
    return folders.load_tasks(name, loads, wanted, bad)


def _downloaded(hub_set: HubSet, wanted: Wanted, otherwise: str) -> Wanted:
    """What is wanted, with the folder that it lies in now and the languages chosen.

    ``otherwise`` says what other files would do, for messages.
    """
    layout, training = hub_set.layout, wanted.trains
    folders.check_training([layout], training and not wanted.test_only)
    if not hub_set.languages and wanted.languages is None:
        raise UserError(f"languages: data: {layout.name} has no default languages; name some, such as [de, fi]")
    by_default = layout.trained or hub_set.languages
    languages = wanted.trained_on(by_default)
    others = tuple(code for code in hub_set.languages if not (training and code in by_default))
    unseen = others if wanted.unseen is None else tuple(wanted.unseen)
    parts = (layout.reported,) if wanted.test_only else (layout.train, layout.dev, layout.reported)
    names = [name for code in languages for part in parts for name in _names(hub_set, part, code, "languages")]
    names += [name for code in unseen for name in _names(hub_set, layout.reported, code, "unseen")]
    folder = fetched(hub_set.repository, hub_set.revision, layout.name, list(dict.fromkeys(names)), otherwise)
    return replace(wanted, path=str(folder), languages=languages, unseen=unseen)


def _names(hub_set: HubSet, part: Part | None, language: str, key: str) -> list[str]:
    """The names of a language's files, ``*`` for the numbers of shards."""
    codes = {known: code for code, known in hub_set.layout.codes.items()}
    if codes and language not in codes:
        raise UserError(f"{key}: {hub_set.repository} has no {language!r}; it has {', '.join(codes)}")
    return [name.replace("{}", codes.get(language, language)) for name in part.names] if part is not None else []


def fetched(source: str, revision: str, name: str, names: Sequence[str], otherwise: str = "") -> Path:
    """The folder in the Hub's cache with the files; what it has already is not asked for again.

    Args:
        source: the repository.
        revision: its branch.
        name: of the data set, for messages.
        names: of files, with ``*``.
        otherwise: what other files would do, for messages.

    Raises:
        UserError: the Hub does not give them.
    """
    download = partial(snapshot_download, source, repo_type="dataset", revision=revision, allow_patterns=list(names))

    def not_found(names: Sequence[str], why: str) -> UserError:
        return UserError(
            f"data: {name}: {why}; looked for {first_of(names, SHOWN)} in {source} ({revision}) "
            f"of the Hugging Face Hub; path: may name a folder with these files{otherwise}"
        )

    folder = _cached(download)
    if _absent(folder, names):
        if not hub_reachable():
            raise not_found(_absent(folder, names), "no network, and not in the local cache")
        try:
            folder = Path(download())
        except FAILURES as error:
            raise not_found(names, str(error).strip().splitlines()[0]) from error
    if folder is None or _absent(folder, names):
        raise not_found(_absent(folder, names), "the repository has no such file")
    return folder


def _cached(download: Callable[..., str]) -> Path | None:
    try:
        return Path(download(local_files_only=True))
    except OSError:
        return None


def _absent(folder: Path | None, names: Sequence[str]) -> list[str]:
    """The names of which the folder has no file, or not all shards: a download may have broken off."""
    return [name for name in names if folder is None or not _is_whole(list(folder.glob(name)))]


def _is_whole(paths: Sequence[Path]) -> bool:
    return bool(paths) and not folders.lacking_shards(paths)
