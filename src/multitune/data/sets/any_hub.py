"""Any data set of the Hugging Face Hub: its parquet files, with columns that the user names."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import RevisionNotFoundError

from multitune.data import parquet, tabular
from multitune.data.bad import BadRecords, first_of
from multitune.data.corpus import Corpus, Placed, Record, Wanted
from multitune.data.languages import is_language
from multitune.data.sets import hub, own
from multitune.data.sets.by_language import LANGUAGE, Tables, load_by_split, load_splits
from multitune.data.sets.folders import Layout, Part, parts_of
from multitune.data.sets.hub import HubSet, parsed_name
from multitune.data.sets.splits import SPLIT
from multitune.errors import UserError
from multitune.storage.hub import FAILURES, hub_address, hub_reachable

log = logging.getLogger(__name__)

REVISIONS = ("refs/convert/parquet", "main")
"""Branches that may have parquet files: the one that the Hub makes of every public data set comes first."""
SPLITS = {"train": "train", "validation": "dev", "valid": "dev", "dev": "dev", "test": "test"}
"""What a split is called -> which it is."""
FILE = re.compile(rf"(?:(?P<config>.+)/)?(?P<split>{'|'.join(SPLITS)})(?P<rest>|[-_./][^/]*)\.parquet")
SHARD = re.compile(r"[-_.]?[0-9].*")
"""What comes behind the name of a split in that of its file."""
WITHOUT = "default"
"""The configuration of files that stand in none."""
SHOWN = 10
"""Configurations that a message names."""

Splits = Mapping[str, str]
"""train, dev, test -> the names of its files, with ``*``."""


def load(name: str, wanted: Wanted, bad: BadRecords) -> Corpus:
    """Read ``hub:owner/name`` or ``hub:owner/name:config``, from the Hub or a folder with the repository's files.

    The language is said by a column, or each configuration is a language. Splits are those of the repository, or said
    by a column of one configuration; where there is train alone, they are divided by hash, and without dev a tenth of
    train is.

    Raises:
        UserError: as ``hub.load`` does; no parquet file there, or no such configuration.
    """
    columns = dict(tabular.COLUMNS if wanted.columns is None else wanted.columns)
    said = {field: columns.pop(field) for field in (LANGUAGE, SPLIT) if field in columns}
    task, fields = own.fitting(columns, wanted)
    revision, configs = _found(name, wanted.path)
    layout, content = partial(own.layout, task, fields), wanted.kinds[task].content
    if said:
        code = next(iter(configs))
        tables = Tables(fields, columns | said, bad, lambda path: code)
        return _load_by_column(name, tables, layout, content, wanted)

    def read(paths: Sequence[Path], code: str, bad: BadRecords) -> Iterator[Placed]:
        _warn_of_several(name, paths)
        return parquet.placed(paths, columns, fields.record, bad)

    by_default = _by_default(name, configs)
    languages = wanted.trained_on(by_default)
    others = () if languages else by_default  # where nothing is trained on, all are evaluated
    unseen = others if wanted.unseen is None else tuple(wanted.unseen)
    first = next((code for code in (*languages, *unseen) if code in configs), by_default[0])
    parts = _parts(name, configs[first], content)
    codes = {code: code for code in configs} if "{}" in parts[0].names[0] else {"": WITHOUT}
    one = replace(layout(read, *parts), name=name, codes=codes)
    hub_set = HubSet(parsed_name(name)[0], one, by_default, revision)
    return hub.load([], hub_set, replace(wanted, languages=languages, unseen=unseen), bad)


def _load_by_column(
    name: str,
    tables: Tables,
    layout: Callable[..., Layout],
    content: Callable[[Record], Any],
    wanted: Wanted,
) -> Corpus:
    """Read one configuration, in which a column says the language or the split of each row."""
    folder, splits = files(name, wanted.path)
    if tables.say_splits:
        found = sorted({path for each in splits.values() for path in folder.glob(each)})
        return load_by_split(tables, layout, content, found, list(splits.values()), replace(wanted, path=str(folder)))
    parts = _parts(name, splits, content)
    ends = [parts[0], parts[2] or parts[1]]
    paths = [sorted(path for each in part.names for path in folder.glob(each)) for part in dict.fromkeys(ends)]
    for each in paths:
        _warn_of_several(name, each)
    distinct = paths[:1] if paths[0] == paths[-1] else paths
    sides = [(each, None) for each in distinct]
    return load_splits(tables, layout, parts, sides, replace(wanted, path=str(folder)))


def files(name: str, path: str | None = None) -> tuple[Path, Splits]:
    """The folder with the files of the one configuration that a name means, and its splits.

    Raises:
        UserError: as ``load`` does; or there are several configurations.
    """
    revision, configs = _found(name, path)
    chosen = parsed_name(name)[1] or (next(iter(configs)) if len(configs) == 1 else None)
    if chosen not in configs:
        raise UserError(f"data: {name}: name one of its configurations, as in hub:owner/name:config; {_has(configs)}")
    splits = {split: names.replace("{}", chosen) for split, names in configs[chosen].items()}
    if path is not None:
        return Path(path), splits
    return hub.fetched(parsed_name(name)[0], revision, name, list(splits.values())), splits


def training_files(name: str, languages: Sequence[str] | None) -> tuple[list[Path], bool, bool]:
    """The files with training rows; whether there are other splits; and whether each configuration is a language.

    Args:
        languages: configurations to look at; None takes the set's own choice.

    Raises:
        UserError: as ``load`` does.
    """
    _, configs = _found(name, None)
    chosen = _by_default(name, configs) if languages is None else languages
    repository, config = parsed_name(name)
    if config is not None or len(configs) == 1:
        folder, splits = files(name)
        first = splits.get("train") or next(iter(splits.values()))
        return sorted(folder.glob(first)), len(splits) > 1, False
    found = [files(f"hub:{repository}:{code}") for code in chosen]
    firsts = [sorted(folder.glob(splits.get("train") or next(iter(splits.values())))) for folder, splits in found]
    return [path for paths in firsts for path in paths], len(found[0][1]) > 1, True


def _found(name: str, path: str | None) -> tuple[str, dict[str, dict[str, str]]]:
    """The branch, and configuration -> split -> names of files, with ``{}`` for the configuration."""
    repository, config = parsed_name(name)
    for revision, names in _listings(name, repository, path):
        configs = _configs(names)
        if config is not None and config in configs:
            return revision, {config: configs[config]}
        if configs:
            if config is not None:
                raise UserError(f"data: {name}: no configuration {config!r}; {_has(configs)}")
            return revision, configs
    where = f"path: {path}" if path is not None else f"data: {name}: {repository}"
    raise UserError(f"{where} has no parquet files that are called after splits (train, validation, test)")


def _listings(name: str, repository: str, path: str | None) -> Iterator[tuple[str, list[str]]]:
    """The files of each branch: in a folder, on the Hub, or without a network in its cache."""
    if path is not None:
        yield "", _inside(Path(path))
        return
    online = hub_reachable()
    for revision in REVISIONS:
        try:
            if online:
                api = HfApi(endpoint=hub_address())
                yield revision, api.list_repo_files(repository, repo_type="dataset", revision=revision)
            else:
                folder = snapshot_download(repository, repo_type="dataset", revision=revision, local_files_only=True)
                yield revision, _inside(Path(folder))
        except RevisionNotFoundError:
            continue
        except FAILURES as error:
            if online:
                raise UserError(f"data: {name}: {str(error).strip().splitlines()[0]}") from error
    if not online:
        raise UserError(
            f"data: {name}: no network, and not in the local cache; path: may name a folder with its parquet files"
        )


def _inside(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet"))


def _configs(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Configuration -> split -> the names of its files."""
    configs: dict[str, dict[str, str]] = {}
    for match in filter(None, map(FILE.fullmatch, sorted(names))):
        folder, split, rest = match["config"], match["split"], match["rest"]
        config = WITHOUT if folder in (None, "data") else folder
        before = "" if folder is None else "data/" if folder == "data" else "{}/"
        shards = f"{rest[0]}*.parquet" if rest else ".parquet"
        configs.setdefault(config, {}).setdefault(SPLITS[split], f"{before}{split}{shards}")
    return configs


def _warn_of_several(name: str, paths: Sequence[Path]) -> None:
    """Say where the files of a split are those of several, such as validation_matched and validation_mismatched."""
    found = sorted({SHARD.sub("", path.stem) for path in paths})
    if len(found) > 1:
        log.warning(
            "data: %s: %s are read as one split; path: may name a folder with the files of one",
            name,
            " and ".join(found),
        )


def _by_default(name: str, configs: Mapping[str, Splits]) -> tuple[str, ...]:
    """The languages where a recipe names none: the one configuration, or all that are called by a language's code."""
    if len(configs) == 1:
        return tuple(configs)
    codes = tuple(filter(is_language, configs))
    if not codes:
        raise UserError(f"data: {name}: name one of its configurations, as in hub:owner/name:config; {_has(configs)}")
    return codes


def _has(configs: Mapping[str, Splits]) -> str:
    return f"it has {first_of(list(configs), SHOWN)}"


def _parts(name: str, splits: Splits, content: Callable[[Record], Any]) -> tuple[Part, Part, Part | None]:
    """Train, dev and test of the splits that there are."""
    if "train" not in splits and len(splits) > 1:
        raise UserError(f"data: {name}: has no split called train, only {' and '.join(splits)}")
    return parts_of({split: Part((names,)) for split, names in splits.items()}, content)
