"""Data sets that are folders with a file for each language and split: finding the files, reading them into a Corpus."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from multitune.data.bad import BadRecords
from multitune.data.corpus import LABELS, Corpus, Head, Place, Placed, Record, Wanted, labels_of
from multitune.errors import UserError

Reader = Callable[[Sequence[Path], BadRecords], Iterator[Placed]]
"""The records of one language and split from their files, mostly one file."""

FEW = 20
"""Labels that a message names."""

Files = dict[str, tuple[Path, ...]]
"""Language -> its files, those of one split."""


@dataclass(frozen=True)
class Part:
    """The files of a split.

    Attributes:
        names: of a language's files, ``{}`` standing for the language.
        keep: which records of the files belong to the split, in languages that are trained on; None: all.
    """

    names: tuple[str, ...]
    keep: Callable[[Place, Record], bool] | None = None


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
        labels: all labels, where the set fixes them; () takes those that training shows.
        codes: how file names spell a language -> the language; nothing else is one. Empty: file names have it as it is.
        by_name: languages that are read only where a recipe names them.
        trained: the languages trained on where a recipe names none; () takes all that have a training file.
        suffixes: one of these ends each name.
    """

    name: str
    task: str
    read: Reader
    train: Part | None = None
    dev: Part | None = None
    test: Part | None = None
    read_unseen: Reader | None = None
    labels: tuple[str, ...] = ()
    codes: Mapping[str, str] = field(default_factory=dict)
    by_name: Collection[str] = ()
    trained: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ("",)

    @property
    def reported(self) -> Part:
        """The part whose scores are reported."""
        part = self.test or self.dev
        assert part is not None
        return part


def load(layouts: Sequence[Layout], wanted: Wanted, bad: BadRecords) -> Corpus:
    """Read a folder by the first of the layouts that it has files for.

    By default every language with a training file is trained on, and the others are unseen.

    Args:
        layouts: of one data set.
        wanted: the folder, languages, and labels that another set has settled.
        bad: takes the bad records; ``skipped`` of the corpus counts them by language.

    Raises:
        UserError: no folder, no file of the layouts, a language without its file, an empty file.
    """
    folder = _folder(wanted.path, layouts)
    training = wanted.languages is None or bool(wanted.languages)
    layout = _fitting(layouts, folder, training)
    train = _files(folder, layout, layout.train) if training else {}
    dev, reported = _files(folder, layout, layout.dev), _files(folder, layout, layout.reported)
    by_default = layout.trained or tuple(train)
    languages = by_default if wanted.languages is None else tuple(wanted.languages)
    others = (code for code in reported if not (training and code in by_default) and code not in layout.by_name)
    unseen = tuple(others) if wanted.unseen is None else tuple(wanted.unseen)
    for key, codes, part, files in (
        ("languages", languages, layout.train, train),
        ("languages", languages, layout.dev, dev),
        ("languages", languages, layout.reported, reported),
        ("unseen", unseen, layout.reported, reported),
    ):
        if part is not None:
            _require(key, codes, files, folder, part, layout)
    reading = _Reading(layout, languages, bad, tuple(wanted.labels or layout.labels))
    records = {code: reading.records(layout.train, train[code], code) for code in languages}
    reading.settle_labels(records)
    test = {
        code: reading.records(layout.reported, reported[code], code) for code in dict.fromkeys((*languages, *unseen))
    }
    return Corpus(
        task=layout.task,
        labels=reading.labels,
        train=records,
        dev={
            code: test[code] if layout.test is None else reading.records(layout.dev, dev[code], code)
            for code in languages
        },
        test=test,
        test_is_dev=layout.test is None,
        skipped=dict(+reading.skipped),
    )


def load_tasks(tasks: Mapping[str, Sequence[Layout]], wanted: Wanted, bad: BadRecords) -> Corpus:
    """Read tasks of one data set that have heads of their own, each by its layouts; ``languages`` are the tasks.

    Raises:
        UserError: as ``load`` does; no such task, or an unseen one.
    """
    name = next(iter(tasks.values()))[0].name
    if wanted.unseen or wanted.languages == ():
        raise UserError(f"unseen: each task of data: {name} has a head of its own, so that none can be unseen")
    chosen = list(tasks) if wanted.languages is None else list(wanted.languages)
    for task in chosen:
        if task not in tasks:
            raise UserError(f"languages: data: {name} has no task {task!r}; it has {', '.join(tasks)}")
    parts = {task: load(tasks[task], replace(wanted, languages=(task,), unseen=()), bad) for task in chosen}
    first = parts[chosen[0]]
    return Corpus(
        task=first.task,
        labels=first.labels,
        train={task: part.train[task] for task, part in parts.items()},
        dev={task: part.dev[task] for task, part in parts.items()},
        test={task: part.test[task] for task, part in parts.items()},
        test_is_dev=any(part.test_is_dev for part in parts.values()),
        skipped={task: count for part in parts.values() for task, count in part.skipped.items()},
        heads={task: Head(part.task, part.labels) for task, part in parts.items()} if len(parts) > 1 else {},
    )


def tenth(place: Place, record: Record) -> int:
    """A number from 0 to 9 for the record's input: the same wherever the file lies and whatever else it holds.

    Records alike in text (in context, for questions) or image get one number, so that no split shares them.
    """
    content = next(record[name] for name in ("context", "source", "tokens", "text", "image") if name in record)
    data = repr(content).encode() if isinstance(content, str | list) else content.tobytes()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest()) % 10


class _Reading:
    """Reads the files of one corpus; counts the bad records of each language in ``skipped``."""

    def __init__(self, layout: Layout, trained: Collection[str], bad: BadRecords, labels: tuple[str, ...]) -> None:
        self.labels = labels
        self.skipped: Counter[str] = Counter()
        self._layout, self._trained, self._bad = layout, trained, bad
        self._divided: dict[tuple[Path, ...], list[Placed]] = {}

    def records(self, part: Part | None, paths: tuple[Path, ...], code: str) -> list[Record]:
        """The records of a language and split; those whose label is not allowed are bad."""
        assert part is not None
        before = len(self._bad)
        placed = self._checked(self._placed(part, paths, code))
        found = [record for _, record in placed]
        self.skipped[code] += len(self._bad) - before
        if not found and not self.skipped[code]:
            divided = "too few records to divide into train, dev and test; give each a file of its own"
            raise UserError(f"{paths[0]}: {divided if part.keep else 'holds no record'}")
        return found

    def settle_labels(self, train: Mapping[str, Sequence[Record]]) -> None:
        """Where neither the set nor another one fixes the labels, take those of the training records."""
        if self._layout.task in LABELS and not self.labels:
            rows = (record for records in train.values() for record in records)
            self.labels = tuple(sorted({label for record in rows for label in labels_of(self._layout.task, record)}))

    def _placed(self, part: Part, paths: tuple[Path, ...], code: str) -> Iterator[Placed]:
        read = self._layout.read
        if code not in self._trained:
            return (self._layout.read_unseen or read)(paths, self._bad)
        if part.keep is None:
            return read(paths, self._bad)
        if paths not in self._divided:
            self._divided[paths] = list(read(paths, self._bad))
        return ((place, record) for place, record in self._divided[paths] if part.keep(place, record))

    def _checked(self, placed: Iterator[Placed]) -> Iterator[Placed]:
        """What is left when records with labels that are not allowed are reported."""
        if self._layout.task not in LABELS:
            yield from placed
            return
        allowed = dict.fromkeys(self.labels)
        for place, record in placed:
            problem = _label_problem(record, self._layout.task, allowed)
            if problem is None:
                yield place, record
            else:
                self._bad.add(place.of(problem[0]), problem[1])


def _label_problem(record: Record, task: str, allowed: Collection[str]) -> tuple[int, str] | None:
    """The number of a label that is not allowed, and what to say of it; without ``allowed`` every label is."""
    if LABELS[task] not in record:
        return 0, "has no label: neither a column of its own nor a file of labels"
    for number, label in enumerate(labels_of(task, record)):
        if allowed and label not in allowed:
            what = f"{'tag' if LABELS[task] == 'tags' else 'label'} {label!r}"
            return number, f"{what} is never seen in training, which has {_first_of(allowed)}"
    return None


def _first_of(labels: Collection[str]) -> str:
    """Enough labels to recognise a set by: a column of texts that was taken for labels has very many."""
    more = f" and {len(labels) - FEW} more" if len(labels) > FEW else ""
    return ", ".join(islice(labels, FEW)) + more


def _folder(path: str | None, layouts: Sequence[Layout]) -> Path:
    needs = f"data: {layouts[0].name} needs the folder with {_described(layouts[0])}"
    if path is None:
        raise UserError(f"path: is missing; {needs}")
    if not Path(path).is_dir():
        raise UserError(f"path: {path} is not a folder; {needs}")
    return Path(path)


def _fitting(layouts: Sequence[Layout], folder: Path, training: bool) -> Layout:
    """The first layout of whose training and reported files the folder has some."""
    if training and all(layout.train is None for layout in layouts):
        raise UserError(f"data: {layouts[0].name} has no training data; name it under unseen: of a set that has")
    for layout in layouts:
        parts = (layout.train, layout.test) if training else (layout.reported,)
        if all(_files(folder, layout, part) for part in parts if part is not None):
            return layout
    raise UserError(f"path: {folder} has no {' or '.join(dict.fromkeys(map(_described, layouts)))}")


def _described(layout: Layout) -> str:
    """The names of a layout's files for a reader: train-xx.tsv, dev-xx.tsv."""
    names = (name for part in (layout.train, layout.dev, layout.test) if part is not None for name in part.names)
    return ", ".join(dict.fromkeys(name.replace("{}", "xx") + "/".join(layout.suffixes) for name in names))


def _files(folder: Path, layout: Layout, part: Part | None) -> Files:
    """The languages with all files of a part, sorted by their names in files."""
    if part is None:
        return {}
    telling = next((name for name in part.names if "{}" in name), part.names[0])
    pattern = re.compile(re.escape(telling).replace(re.escape("{}"), "(.+)"))
    found: Files = {}
    for suffix in layout.suffixes:
        wild = folder.glob(telling.replace("{}", "*") + suffix) if "{}" in telling else [folder / (telling + suffix)]
        for path in sorted(wild):
            match = pattern.fullmatch(path.relative_to(folder).as_posix().removesuffix(suffix))
            assert match is not None
            code = "".join(match.groups())
            paths = tuple(folder / (name.replace("{}", code) + suffix) for name in part.names)
            if (code in layout.codes or not layout.codes) and all(file.exists() for file in paths):
                language = layout.codes.get(code, code)
                if language in found:
                    raise UserError(f"{paths[0]}: a second file for {language!r} beside {found[language][0].name}")
                found[language] = paths
    return found


def _require(key: str, languages: Sequence[str], found: Files, folder: Path, part: Part, layout: Layout) -> None:
    for language in languages:
        if language not in found:
            code = next((code for code, known in layout.codes.items() if known == language), language)
            missing = ", ".join(str(folder / name.replace("{}", code)) + layout.suffixes[0] for name in part.names)
            has = ", ".join(found) or "no language"
            raise UserError(f"{key}: no data for {language!r} ({missing}); there is some for: {has}")
