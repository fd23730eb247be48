"""Data of a user's own: tables with a file for each language or a column that says it, and images by task."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

from multitune.data import images, tabular
from multitune.data.bad import BadRecords
from multitune.data.corpus import Corpus, Placed, Record, Wanted
from multitune.data.fields import ENTITIES, Fields, check_tags
from multitune.data.label_types import LabelTypes
from multitune.data.languages import direction
from multitune.data.sets.by_language import (
    LANGUAGE,
    Tables,
    has_column,
    has_split_files,
    load_by_column,
    load_by_split,
    tables_of,
    warn_of_unused,
)
from multitune.data.sets.folders import (
    Layout,
    Part,
    Reader,
    divided,
    fits,
    load,
    load_tasks,
    parts_of,
    say_a_tenth_validates,
)
from multitune.data.sets.splits import SPELT, SPLIT
from multitune.errors import UserError

OF_SPLIT = re.compile(r"(^|[-_.])(train|dev|valid|test)", re.IGNORECASE)
"""In the name of a language: it is a split under another name, and must not be trained on as a whole."""


def load_tables(wanted: Wanted, bad: BadRecords) -> Corpus:
    """Read ``train-xx``, ``dev-xx`` and ``test-xx``, or one file ``xx`` a language, in JSONL, CSV, TSV or CoNLL-U.

    Where ``columns`` names one for the language, there is one file for all, or ``train``, ``dev`` and ``test``; where
    it names one for the split, the names of files say no split. Files ``train``, ``dev`` and ``test`` without a column
    for the language are of one language, which is called as their folder. The path may also be one file, which is of
    one language where no column says it. Without test files dev is reported, and without dev files a tenth of train
    validates, by hash. A single file is divided 8 : 1 : 1, by a hash of each text; all of a language in it is reported
    where the language is unseen.

    Raises:
        UserError: as ``folders.load`` does; or columns of no kind of task.
    """
    columns = dict(tabular.COLUMNS if wanted.columns is None else wanted.columns)
    said = {field: columns.pop(field) for field in (LANGUAGE, SPLIT) if field in columns}
    if wanted.test_only and SPLIT in said and not any(has_column(file, said[SPLIT]) for file in tables_of(wanted.path)):
        del said[SPLIT]  # new test data for a model need not say of each row that it is for the test
    task, fields = fitting(columns, wanted)
    made, content = partial(layout, task, fields), wanted.kinds[task].content
    if said or _is_of_one_language(wanted.path):
        code_of = tabular.stem_of if SPLIT in said else _folder_of
        return _load_said(Tables(fields, columns | said, bad, code_of), made, content, wanted)
    warned: set[str] = set()

    def read(paths: Sequence[Path], code: str, bad: BadRecords) -> Iterator[Placed]:
        if not warned:
            warned.add(code)
            warn_of_unused(paths[0], columns, code)
        return tabular.placed(paths[0], bad, fields=fields, columns=columns)

    file = None if wanted.path is None else Path(wanted.path)
    if file is not None and file.is_file():
        only = made(read, *divided(file.name, content), codes=[tabular.stem_of(file)])
        return load([only], replace(wanted, path=str(file.parent)), bad)
    made = partial(made, _unless_split(read, wanted.path), suffixes=tabular.suffixes())
    return load([*_of_splits(made, content, wanted), made(*divided("{}", content))], wanted, bad)


def _unless_split(read: Reader, path: str | None) -> Reader:
    """The same, but no files of a split for those of a language; raises ``UserError``."""

    def checked(paths: Sequence[Path], code: str, bad: BadRecords) -> Iterator[Placed]:
        if OF_SPLIT.search(code):
            raise UserError(
                f"path: {path} has a file {code!r}, which is not a language; splits are called train-xx, dev-xx and "
                "test-xx, or train, dev and test where columns: {language: ...} names a column"
            )
        return read(paths, code, bad)

    return checked


def _is_of_one_language(path: str | None) -> bool:
    """Whether a folder has files that are called after splits, and none after a split and a language."""
    return has_split_files(path) and not any(file.name.startswith("train-") for file in tables_of(path))


def _folder_of(path: Path) -> str:
    """The language of the files of splits where no column says it."""
    return path.resolve().parent.name


def _load_said(tables: Tables, made: Callable[..., Layout], content: Callable[[Record], Any], wanted: Wanted) -> Corpus:
    """Read tables in which columns say the language or the split of each row, or names of files the split."""
    paths = tables_of(wanted.path)
    if paths:
        tables.warn_of_unused(paths[0])
    if not tables.say_splits:
        return load_by_column(tables, made, content, wanted)
    if not paths:
        raise UserError(f"path: {wanted.path} has no table with a column for {SPLIT}")
    names = [path.name for path in paths]
    return load_by_split(tables, made, content, paths, names, replace(wanted, path=str(paths[0].parent)))


def _of_splits(
    made: Callable[[Part, Part, Part | None], Layout], content: Callable[[Record], Any], wanted: Wanted
) -> list[Layout]:
    """The ways in which a folder may have a file for each language and split.

    Raises:
        UserError: files for dev under two names.
    """
    names = {split: [f"{name}-{{}}" for name in spelt] for split, spelt in SPELT.items()}
    there = {split: [name for name in each if _has(made, name, wanted)] for split, each in names.items()}
    if len(there["dev"]) > 1:
        both = " and ".join(name.format("xx") for name in there["dev"])
        raise UserError(f"path: {wanted.path} has files {both}, both for dev; rename or remove some")
    if there["train"] and there["test"] and not there["dev"]:
        say_a_tenth_validates(wanted)
        return [made(*parts_of({split: Part((names[split][0],)) for split in ("train", "test")}, content))]
    train, dev, test = (Part(((there[split] or names[split])[0],)) for split in names)
    return [made(train, dev, test), made(train, dev, None)]


def _has(made: Callable[[Part, Part, Part | None], Layout], name: str, wanted: Wanted) -> bool:
    """Whether the folder has files of that name."""
    part = Part((name,))
    return wanted.path is not None and fits([made(part, part, None)], wanted.path, test_only=False)


def layout(
    task: str,
    fields: Fields,
    read: Reader,
    train: Part,
    dev: Part,
    test: Part | None,
    *,
    suffixes: Sequence[str] = ("",),
    codes: Sequence[str] = (),
) -> Layout:
    """How files of a user's own are read; the arguments are those of ``Layout``."""
    reader = _with_direction(read) if "target_language" in fields.checks else read
    return Layout(
        "folder",
        task,
        reader,
        train,
        dev,
        test,
        read_any_tags=reader if "tags" in fields.checks else None,
        codes={code: code for code in codes},
        suffixes=tuple(suffixes),
        own=True,
    )


def _with_direction(read: Reader) -> Reader:
    """The same records, each with the language that it is translated into: the file's, where it does not say it."""

    def marked(paths: Sequence[Path], code: str, bad: BadRecords) -> Iterator[Placed]:
        source, target = direction(code)
        by_name = {"target_language": target} | ({} if source is None else {"source_language": source})
        return ((place, by_name | record) for place, record in read(paths, code, bad))

    return marked


def fitting(columns: Mapping[str, str], wanted: Wanted) -> tuple[str, Fields]:
    """The kind of task whose records have just these fields: the recipe's where it is one of several.

    Else it is the one whose records may have the fewest others.

    Raises:
        UserError: there is none.
    """
    kinds = {task: kind.fields for task, kind in wanted.kinds.items() if kind.fields is not None}
    fitting = {task: fields for task, fields in kinds.items() if fields.fit(columns)}
    if not fitting:
        allowed = [f"{', '.join(names)} ({task})" for task, fields in kinds.items() for names in fields.lists()]
        raise UserError(tabular.no_such_fields(columns, allowed))
    task = wanted.task if wanted.task in fitting else min(fitting, key=lambda name: len(fitting[name].lists()))
    return task, _with_checks(fitting[task], wanted.kinds[task].label_field, wanted)


def _with_checks(fields: Fields, label_field: str | None, wanted: Wanted) -> Fields:
    """The fields with labels of one type; entity tags that are still to be respelt are checked afterwards."""
    if fields is ENTITIES and wanted.spelling is not None and wanted.spelling.keys:
        fields = replace(fields, check=check_tags)
    return LabelTypes().checked(fields, label_field)


def load_images(wanted: Wanted, bad: BadRecords) -> Corpus:
    """Read each zip, npz and folder in the folder as a task of its own, divided 8 : 1 : 1 where it has no test flags.

    Raises:
        UserError: as ``folders.load_tasks`` does; there is none, or two have one name.
    """
    if wanted.path is None or not Path(wanted.path).is_dir():
        raise UserError(
            f"path: {wanted.path} is not a folder; data: images needs one with zip or npz files, or folders"
        )
    visible = (file for file in sorted(Path(wanted.path).iterdir()) if not file.name.startswith("."))
    files = [file for file in visible if file.suffix in (".npz", ".zip") or file.is_dir()]
    if not files:
        raise UserError(f"path: {wanted.path} has no zip or npz file of images, and no folder")
    tasks = {file.stem: partial(load, [_of_images(file)]) for file in files}
    for file, other in pairwise(sorted(files, key=lambda file: file.stem)):
        if file.stem == other.stem:
            raise UserError(f"path: {file} and {other.name} are both the task {file.stem!r}; rename one")
    return load_tasks("images", tasks, wanted, bad)


def _of_images(file: Path) -> Layout:
    def read(paths: Sequence[Path], code: str, bad: BadRecords) -> Iterator[Placed]:
        return images.placed(paths[0], bad)

    splits = divided(file.name, itemgetter("image"))
    return Layout("images", "image_classification", read, *splits, codes={"": file.stem})
