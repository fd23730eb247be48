"""Data of a user's own: tables with a file for each language, and images with a file or folder for each task."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from operator import itemgetter
from pathlib import Path

from multitune.data import images, tabular
from multitune.data.bad import BadRecords
from multitune.data.corpus import Corpus, Placed, Wanted
from multitune.data.fields import Fields
from multitune.data.sets.folders import Layout, Part, divided, load, load_tasks
from multitune.errors import UserError

SPLIT = re.compile(r"(^|[-_.])(train|dev|valid|test)", re.IGNORECASE)
"""In the name of a language: it is a split under another name, and must not be trained on as a whole."""


def load_tables(wanted: Wanted, bad: BadRecords) -> Corpus:
    """Read ``train-xx``, ``dev-xx`` and ``test-xx``, or one file ``xx`` a language, in JSONL, CSV or TSV.

    Without test files dev is reported. A single file of a language is divided 8 : 1 : 1, by a hash of each text; all
    of it is reported where the language is unseen.

    Raises:
        UserError: as ``folders.load`` does; or columns of no kind of task.
    """
    columns = tabular.COLUMNS if wanted.columns is None else wanted.columns
    task, fields = _fitting(columns, wanted)

    def read(paths: Sequence[Path], code: str, bad: BadRecords) -> Iterator[Placed]:
        return tabular.placed(paths[0], bad, fields=fields, columns=columns)

    train, dev, test = Part(("train-{}",)), Part(("dev-{}",)), Part(("test-{}",))
    splits: list[tuple[Part, Part, Part | None]] = [(train, dev, test), (train, dev, None)]
    splits.append(divided("{}", wanted.kinds[task].content))
    layouts = [Layout("folder", task, read, a, b, c, suffixes=tabular.suffixes()) for a, b, c in splits]
    corpus = load(layouts, wanted, bad)
    for language in corpus.test:
        if SPLIT.search(language):
            raise UserError(
                f"path: {wanted.path} has a file {language!r}, which is not a language; splits are called "
                "train-xx, dev-xx and test-xx"
            )
    return corpus


def _fitting(columns: Mapping[str, str], wanted: Wanted) -> tuple[str, Fields]:
    """The kind of task whose records have just these fields: the recipe's where it is one of several, else the first.

    Raises:
        UserError: there is none.
    """
    kinds = {task: kind.fields for task, kind in wanted.kinds.items() if kind.fields is not None}
    fitting = {task: fields for task, fields in kinds.items() if fields.fit(columns)}
    if not fitting:
        allowed = [f"{', '.join(fields.required)} ({task})" for task, fields in kinds.items()]
        raise UserError(tabular.no_such_fields(columns, allowed))
    task = wanted.task if wanted.task in fitting else next(iter(fitting))
    return task, fitting[task]


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
