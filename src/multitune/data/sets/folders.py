"""Data sets that are folders with a file for each language and split: finding the files, reading them into a Corpus."""

import glob
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from multitune.data.bad import BadRecords, first_of
from multitune.data.corpus import Corpus, Head, Place, Placed, Record, Wanted
from multitune.data.kind import Kind
from multitune.data.label_spelling import LabelSpelling
from multitune.data.records.digest import number_of
from multitune.data.sets.reading import FEW, Reading
from multitune.errors import UserError, is_utf8
from multitune.screen.stages import expect
from multitune.storage.disk import check_listed

log = logging.getLogger(__name__)

Reader = Callable[[Sequence[Path], str, BadRecords], Iterator[Placed]]
"""The records of one language (its code) and split from their files, mostly one file."""

Load = Callable[[Wanted, BadRecords], Corpus]
"""Reads what is wanted of one data set; adds bad records to what takes them, and raises ``UserError`` for all else."""

Files = dict[str, tuple[Path, ...]]
"""Language -> its files, those of one split."""

NUMBERED = re.compile(r"(?P<split>.+)-(?P<number>\d+)-of-(?P<count>\d+)(?:-[0-9a-f]+)?\.\w+")
"""The name of a shard, as the Hub's are called: its number, from 0, and how many there are."""


@dataclass(frozen=True)
class Part:
    """The files of a split.

    Attributes:
        names: of a language's files, ``{}`` standing for the language and ``*`` for the number of a shard; a file
            without ``{}`` in its name holds all languages.
        keep: which records of the files belong to the split, in languages that are trained on; None: all.
        of_unseen: ``keep`` chooses in other languages, too.
    """

    names: tuple[str, ...]
    keep: Callable[[Place, Record], bool] | None = None
    of_unseen: bool = False


@dataclass(frozen=True)
class Layout:
    """How a data set's files are called and read.

    Attributes:
        name: of the data set, for messages.
        task: the kind of task.
        read: reads the files of a language and split.
        train: None where the set is for evaluation alone.
        dev: None where ``test`` is all there is.
        test: None where dev is what is reported.
        read_unseen: reads languages that are not trained on, where something is allowed there that training forbids.
        read_any_tags: reads entity tags of any scheme, which are checked afterwards.
        labels: all labels, where the set fixes them; () takes those that training shows.
        codes: how file names spell a language -> the language; nothing else is one. Empty: file names have it as it is.
        by_name: languages that are read only where a recipe names them.
        trained: the languages trained on where a recipe names none; () takes all that have a training file.
        suffixes: one of these ends each name.
        own: the files are a user's own, so that nobody has looked yet whether what is tested is trained on, too.
    """

    name: str
    task: str
    read: Reader
    train: Part | None = None
    dev: Part | None = None
    test: Part | None = None
    read_unseen: Reader | None = None
    read_any_tags: Reader | None = None
    labels: tuple[str, ...] = ()
    codes: Mapping[str, str] = field(default_factory=dict)
    by_name: Collection[str] = ()
    trained: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ("",)
    own: bool = False

    @property
    def reported(self) -> Part:
        """The part whose scores are reported."""
        part = self.test or self.dev
        assert part is not None
        return part


def load(layouts: Sequence[Layout], wanted: Wanted, bad: BadRecords) -> Corpus:
    """Read a folder by the first of the layouts that it has files for.

    By default every language with a training file is trained on, and the others are unseen. Where test records alone
    are wanted, the languages are the same, but training files need not be there, and nothing of them is read.

    Args:
        layouts: of one data set.
        wanted: the folder and languages.
        bad: takes the bad records; ``skipped`` of the corpus counts them by language.

    Raises:
        UserError: no folder, no file of the layouts, a language without its file, an empty file.
    """
    folder = _folder(wanted.path, layouts)
    spelling = wanted.spelling or LabelSpelling()
    layout = _layout(layouts, folder, wanted, spelling)
    train = _files(folder, layout, layout.train) if wanted.trains else {}
    dev, reported = _files(folder, layout, layout.dev), _files(folder, layout, layout.reported)
    by_default = layout.trained or tuple(train)
    languages = wanted.trained_on(by_default)
    others = (code for code in reported if not (wanted.trains and code in by_default) and code not in layout.by_name)
    unseen = tuple(others) if wanted.unseen is None else tuple(wanted.unseen)
    for key, codes, part, files in (
        ("languages", languages, layout.train, train),
        ("languages", languages, layout.dev, dev),
        ("languages", languages, layout.reported, reported),
        ("unseen", unseen, layout.reported, reported),
    ):
        if part is not None and (files is reported or not wanted.test_only):
            _require(key, codes, files, folder, part, layout)
    for code in (*languages, *unseen):
        if not is_utf8(code):
            raise UserError(f"languages: {code!r} is not UTF-8, so that results cannot name it; rename its file")
    splits = [files for files in (train, dev) if not wanted.test_only]
    expect(file for files in splits for code in languages for file in files.get(code, ()))
    expect(file for code in (*languages, *unseen) for file in reported[code])
    reading = Reading(layout, wanted.kinds[layout.task], spelling, bad, {*languages, *wanted.trained}, wanted.renamed)
    trained = () if wanted.test_only else languages
    records = {code: reading.records(layout.train, train[code], code) for code in trained}
    labels = layout.labels or reading.shown
    tested = dict.fromkeys((*languages, *unseen))
    test = {code: reading.records(layout.reported, reported[code], code) for code in tested}
    dev_records = {
        code: test[code] if layout.test is None else reading.records(layout.dev, dev[code], code) for code in trained
    }
    reading.refuse_too_few()
    reading.say_what_was_done()
    reading.warn_of_few(test)
    return Corpus(
        task=layout.task,
        labels=labels,
        train=records,
        dev=dev_records,
        test=test,
        test_is_dev=layout.test is None,
        skipped=dict(+reading.skipped),
    )


def _layout(layouts: Sequence[Layout], folder: Path, wanted: Wanted, spelling: LabelSpelling) -> Layout:
    """The layout that the folder has files for; it reads tags of any scheme where they are still to be respelt."""
    layout = _fitting(layouts, folder, wanted.trains, test_only=wanted.test_only)
    if wanted.trains:
        _check_spelling(spelling, layout, wanted.kinds[layout.task])
    if spelling.keys and layout.read_any_tags is not None:
        return replace(layout, read=layout.read_any_tags, read_unseen=None)
    return layout


def _check_spelling(spelling: LabelSpelling, layout: Layout, kind: type[Kind]) -> None:
    """Raise ``UserError`` where a recipe asks something for labels that the set does not have."""
    if spelling.scheme is not None and layout.read_any_tags is None:
        raise UserError(f"scheme: data: {layout.name} has no entity tags; its records are of {layout.task}")
    if spelling.keys and kind.label_field is None:
        raise UserError(f"{spelling.keys[0]}: data: {layout.name} has no labels; its records are of {layout.task}")
    if spelling.names and layout.labels:
        raise UserError(f"label_names: data: {layout.name} has labels of its own: {first_of(layout.labels, FEW)}")


def load_tasks(name: str, tasks: Mapping[str, Load], wanted: Wanted, bad: BadRecords) -> Corpus:
    """Read tasks of one data set that have heads of their own; ``languages`` are the tasks.

    Raises:
        UserError: as the tasks do; no such task, or an unseen one.
    """
    if (wanted.unseen or wanted.languages == ()) and not wanted.test_only:
        raise UserError(f"unseen: each task of data: {name} has a head of its own, so that none can be unseen")
    named = (*(wanted.languages or ()), *(wanted.unseen or ()))
    chosen = list(tasks) if not named else list(named)
    for task in chosen:
        if task not in tasks:
            raise UserError(f"languages: data: {name} has no task {task!r}; it has {', '.join(tasks)}")
    parts = {task: tasks[task](replace(wanted, languages=(task,), unseen=()), bad) for task in chosen}
    first = parts[chosen[0]]
    return Corpus(
        task=first.task,
        labels=first.labels,
        train={} if wanted.test_only else {task: part.train[task] for task, part in parts.items()},
        dev={} if wanted.test_only else {task: part.dev[task] for task, part in parts.items()},
        test={task: part.test[task] for task, part in parts.items()},
        test_is_dev=any(part.test_is_dev for part in parts.values()),
        skipped={task: count for part in parts.values() for task, count in part.skipped.items()},
        heads={task: Head(part.task, part.labels) for task, part in parts.items()} if len(parts) > 1 else {},
    )


def tenth(content: Any) -> int:
    """A number from 0 to 9 for a text, a list of words or an array: the same wherever it stands."""
    return number_of(content) % 10


DEV, TEST = 8, 9
"""Numbers of two of the ten parts that a file is divided into where it holds all splits, from 0; the rest trains."""


def divided(name: str, content: Callable[[Record], Any]) -> tuple[Part, Part, Part]:
    """The splits of one file that holds them all, 8 : 1 : 1 by a hash of each record's content.

    Records alike in content, a text, a list of words or an array, are never in two splits.
    """

    def split(record: Record) -> int:
        """Which of ten parts it belongs to; where it says itself whether it is for the test, that decides."""
        if "test" not in record:
            return tenth(content(record))
        return TEST if record["test"] else min(tenth(content(record)), DEV)

    return (
        Part((name,), keep=lambda place, record: split(record) < DEV),
        Part((name,), keep=lambda place, record: split(record) == DEV),
        Part((name,), keep=lambda place, record: split(record) == TEST),
    )


def parts_of(parts: Mapping[str, Part], content: Callable[[Record], Any]) -> tuple[Part, Part, Part | None]:
    """Train, dev and test of the splits that there are.

    One alone is divided. Without dev a tenth of train validates, by the same hash: records alike are in one split.
    """
    if len(parts) == 1:
        (only,) = parts.values()
        train, dev, test = divided("", content)
        return replace(train, names=only.names), replace(dev, names=only.names), replace(test, names=only.names)
    train = parts["train"]
    if "dev" in parts:
        return train, parts["dev"], parts.get("test")

    def validates(place: Place, record: Record) -> bool:
        return tenth(content(record)) == DEV

    return _narrowed(train, lambda *row: not validates(*row)), _narrowed(train, validates), parts.get("test")


def _narrowed(part: Part, keep: Callable[[Place, Record], bool]) -> Part:
    """The part without the records that another condition leaves out."""
    before = part.keep
    return replace(part, keep=keep if before is None else lambda *row: before(*row) and keep(*row))


def say_a_tenth_validates(wanted: Wanted) -> None:
    """Say that own files have no dev split, where a run would validate with one."""
    if wanted.trains and not wanted.test_only:
        log.warning("%s: has no dev split: a tenth of train, chosen by hash, validates", wanted.path)


def _folder(path: str | None, layouts: Sequence[Layout]) -> Path:
    needs = f"data: {layouts[0].name} needs the folder with {described(layouts[:1])}"
    if path is None:
        raise UserError(f"path: is missing; {needs}")
    if not Path(path).is_dir():
        raise UserError(f"path: {path} is not a folder; {needs}")
    check_listed(Path(path))
    return Path(path)


def _fitting(layouts: Sequence[Layout], folder: Path, training: bool, *, test_only: bool) -> Layout:
    """The first layout of whose training and reported files the folder has some.

    Where test records alone are wanted, reported files do, if there are no training files of their own.
    """
    check_training(layouts, training and not test_only)
    for layout in layouts:
        if test_only and training and layout.train is not None and layout.train.keep is not None:
            continue
        parts = (layout.train, layout.test) if training else (layout.reported,)
        if all(_files(folder, layout, part) for part in parts if part is not None):
            return layout
    if test_only and training:
        return _fitting(layouts, folder, training=False, test_only=True)
    raise UserError(f"path: {folder} has no {described(layouts)}")


def check_training(layouts: Sequence[Layout], training: bool) -> None:
    """Raise ``UserError`` where a set is to be trained on that is for evaluation alone."""
    if training and all(layout.train is None for layout in layouts):
        raise UserError(f"data: {layouts[0].name} has no training data; name it under unseen: of a set that has")


def fits(layouts: Sequence[Layout], path: str, *, test_only: bool) -> bool:
    """Whether a folder has training files of one of the layouts, or those that are reported."""
    return any(_files(Path(path), layout, layout.reported if test_only else layout.train) for layout in layouts)


def described(layouts: Sequence[Layout]) -> str:
    """The names of files for a reader: train-xx.tsv, dev-xx.tsv; where names may have several endings, these behind."""
    endings = layouts[0].suffixes
    ending = endings[0] if len(endings) == 1 else ""
    of_each = (
        ", ".join(dict.fromkeys(name.replace("{}", "xx") + ending for part in _parts(layout) for name in part.names))
        for layout in layouts
    )
    files = " or ".join(dict.fromkeys(of_each))
    return files if len(endings) == 1 else f"{files}; their names end in {', '.join(endings)}"


def _parts(layout: Layout) -> list[Part]:
    """Train, dev and test, as far as there are any."""
    return [part for part in (layout.train, layout.dev, layout.test) if part is not None]


def _files(folder: Path, layout: Layout, part: Part | None) -> Files:
    """The languages with all files of a part, sorted by their names in files."""
    if part is None:
        return {}
    files: Files = {}
    for suffix in layout.suffixes:
        for code in _codes(folder, layout, part, suffix):
            shards = [_shards(folder, name, code, suffix) for name in part.names]
            language = layout.codes.get(code, code)
            if all(shards) and language in files:
                raise UserError(f"{shards[0][0]}: a second file for {language!r} beside {files[language][0].name}")
            if all(shards):
                files[language] = tuple(chain.from_iterable(shards))
    return files


def _codes(folder: Path, layout: Layout, part: Part, suffix: str) -> list[str]:
    """The languages as the names of files spell them; what systems hide is none (a Mac leaves ``._de.jsonl``)."""
    telling = next((name for name in part.names if "{}" in name), None)
    if telling is None:
        return list(layout.codes)
    for within in folder.iterdir() if "/" in telling else ():
        if within.is_dir():
            check_listed(within)
    spelt = re.escape(telling).replace(re.escape("{}"), "(.+)").replace(re.escape("*"), "[^/]*")
    pattern = re.compile(spelt + re.escape(suffix))
    found = (path.relative_to(folder) for path in folder.glob(telling.replace("{}", "*") + suffix))
    paths = sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))
    codes = dict.fromkeys(match[1] for match in map(pattern.fullmatch, paths) if match is not None)
    return [code for code in codes if code in layout.codes or not layout.codes]


def _shards(folder: Path, name: str, code: str, suffix: str) -> list[Path]:
    """The files of a name, in the order of their numbers; none where there is no such file, nor a link to one."""
    if "*" in name:
        return sorted(folder.glob(name.replace("{}", glob.escape(code)) + suffix))
    path = folder / (name.replace("{}", code) + suffix)
    return [path] if path.exists() or path.is_symlink() else []


def lacking_shards(paths: Iterable[Path]) -> list[str]:
    """The shards that names of files speak of and that are not among them, as where a download broke off."""
    there: dict[tuple[str, str], set[int]] = {}
    for match in (NUMBERED.fullmatch(path.name) for path in paths):
        if match is not None:
            there.setdefault((match["split"], match["count"]), set()).add(int(match["number"]))
    return [
        f"{split}-{number:0{len(count)}}-of-{count}"
        for (split, count), numbers in there.items()
        for number in range(int(count))
        if number not in numbers
    ]


def _require(key: str, languages: Sequence[str], files: Files, folder: Path, part: Part, layout: Layout) -> None:
    """Raise ``UserError`` where a language has no file, or not all of its shards."""
    lacking = [language for language in languages if language not in files]
    if lacking:
        code = next((code for code, known in layout.codes.items() if known == lacking[0]), lacking[0])
        paths = [path for own in files.values() for path in own]
        ending = next((end for end in layout.suffixes if any(path.name.endswith(end) for path in paths)), "")
        missing = ", ".join(str(folder / name.replace("{}", code)) + ending for name in part.names)
        has = ", ".join(files) or "no language"
        named = ", ".join(map(repr, lacking))
        raise UserError(f"{key}: no data for {named} ({missing}); there is some for: {has}")
    for language in languages:
        if shards := lacking_shards(files[language]):
            raise UserError(
                f"{files[language][0].parent}: only some of the files of {language!r} are there; missing: "
                f"{first_of(shards, FEW)}; download them again"
            )
