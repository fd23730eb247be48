"""Tables in which a column says the language of each row."""

import logging
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from multitune.data import fields, tabular
from multitune.data.bad import BadRecord, BadRecords, first_of
from multitune.data.corpus import Corpus, Place, Placed, Record, Wanted
from multitune.data.fields import Fields
from multitune.data.label_spelling import lookalikes
from multitune.data.records.rows import chosen
from multitune.data.records.spool import Spool
from multitune.data.sets.folders import Layout, Part, load, parts_of, say_a_tenth_validates
from multitune.errors import UserError
from multitune.screen.stages import expect

log = logging.getLogger(__name__)

LANGUAGE = "language"
"""What ``columns:`` calls the column."""
SPELT = {"train": ("train",), "dev": ("dev", "validation", "valid", "val"), "test": ("test",)}
"""Split -> what its file is called where a column says the language."""
USUAL_NAMES = tuple(
    spelt
    for name in ("lang", "language", "locale", "lang_code", "language_code")
    for spelt in (name, name.capitalize(), name.upper())
)
"""What such a column is called."""
FEW = 8
"""Languages that a warning names."""


class LanguageColumn:
    """The records of tables by language. Each file is read once; its records are kept on disk.

    Attributes:
        skipped: language -> its bad rows; those whose language cannot be told count under the name of their file.
    """

    def __init__(self, fields: Fields, columns: Mapping[str, str], language: str, bad: BadRecords) -> None:
        self.skipped: Counter[str] = Counter()
        self._fields, self._columns, self._bad = fields, {**columns, LANGUAGE: language}, bad
        self._spool = Spool()
        self._read: dict[Path, dict[str, Sequence[Record]]] = {}

    def languages(self, paths: Sequence[Path]) -> list[str]:
        """The languages of files with a good row, sorted."""
        return sorted({code for path in paths for code in self._by_language(path)})

    def records(self, paths: Sequence[Path], code: str) -> Iterator[Placed]:
        """The records of a language in files."""
        rows = (row for path in paths for row in self._by_language(path).get(code, ()))
        return ((Place(*row["place"]), row["record"]) for row in rows)

    def _by_language(self, path: Path) -> dict[str, Sequence[Record]]:
        if path not in self._read:
            numbers: defaultdict[str, array[int]] = defaultdict(lambda: array("q"))
            kept = self._spool.keep(self._noted(path, numbers))
            self._read[path] = {code: chosen(kept, own) for code, own in numbers.items()}
        return self._read[path]

    def _noted(self, path: Path, numbers: Mapping[str, "array[int]"]) -> Iterator[Record]:
        """The good records of a file with their places; ``numbers`` takes which of them are of which language."""
        count, before = 0, len(self._bad)
        for place, row in tabular.rows(path, self._columns, self._bad):
            code = path.name
            try:
                values = dict(row)
                code = _code(values.pop(LANGUAGE))
                record = self._fields.record(values)
            except BadRecord as problem:
                self._bad.add(place.of(problem.label), str(problem))
                self.skipped[code] += 1
                before += 1
            else:
                numbers[code].append(count)
                count += 1
                yield {"place": place, "record": record}
        self.skipped[path.name] += len(self._bad) - before


def _code(value: Any) -> str:
    return fields.text(value, LANGUAGE).strip()


def load_by_column(
    column: LanguageColumn,
    layout: Callable[..., Layout],
    content: Callable[[Record], Any],
    wanted: Wanted,
    bad: BadRecords,
) -> Corpus:
    """Read tables whose column says the language of each row: ``train``, ``dev`` and ``test``, or one file for all.

    Without ``dev`` a tenth of ``train`` validates, by hash; without ``test`` dev is reported.
    Languages with a training row are trained on, others are unseen, where ``wanted`` does not choose.

    Args:
        column: reads the tables.
        layout: makes a layout of a reader, parts and languages (``codes``).
        content: what a single file is divided by.
        wanted: as for ``folders.load``.
        bad: takes the bad records.

    Raises:
        UserError: as ``folders.load`` does; a language without rows, or no good row at all.
    """
    files = _split_files(wanted.path)
    if len(files) > 1 and "dev" not in files:
        say_a_tenth_validates(wanted)
    parts = parts_of({split: file.name for split, file in files.items()}, content)
    apart = replace(wanted, path=str(next(iter(files.values())).parent))
    return load_splits(column, layout, parts, [[file] for file in files.values()], apart, bad)


def load_splits(
    column: LanguageColumn,
    layout: Callable[..., Layout],
    parts: Sequence[Part | None],
    splits: Sequence[Sequence[Path]],
    wanted: Wanted,
    bad: BadRecords,
) -> Corpus:
    """Read tables whose splits are known, as ``load_by_column`` does.

    Args:
        parts: train, dev and test, if there is one.
        splits: the files of each, those that hold several splits once; the first has what is trained on, the last what
            is reported.
    """

    def read(paths: Sequence[Path], code: str, bad: BadRecords) -> Iterator[Placed]:
        return column.records(paths, code)

    expect(file for files in splits for file in files)
    by_split = [column.languages(files) for files in splits]
    if not any(by_split):
        bad.refuse()
    _warn_of_lookalikes({code for codes in by_split for code in codes})
    shown, reported = by_split[0], by_split[-1]
    apart = wanted.unseen or ()
    languages = [code for code in shown if code not in apart] if wanted.languages is None else wanted.languages
    unseen = [code for code in reported if code not in languages] if wanted.unseen is None else wanted.unseen
    for key, codes, numbers in (("languages", languages, range(len(splits))), ("unseen", unseen, (len(splits) - 1,))):
        for code, split in product(codes, numbers):
            if code not in by_split[split]:
                if not by_split[split]:
                    bad.refuse()
                has = ", ".join(by_split[split]) or "no language"
                raise UserError(f"{key}: {splits[split][0]} has no row of {code!r}; there are some of: {has}")
    one = layout(read, *parts, codes=sorted({code for codes in by_split for code in codes}))
    corpus = load([one], replace(wanted, languages=languages if wanted.trains else (), unseen=unseen), bad)
    skipped = Counter(corpus.skipped) + column.skipped
    return replace(corpus, skipped=dict(skipped))


def _warn_of_lookalikes(languages: Collection[str]) -> None:
    """Say which languages a reader cannot tell apart."""
    for group in lookalikes([code.replace("_", "-") for code in sorted(languages)]):
        spelt = [code for code in sorted(languages) if code.replace("_", "-") in group]
        log.warning(
            "languages that differ by blanks, capitals, - and _ alone are languages of their own: %s",
            first_of(list(map(repr, spelt)), FEW),
        )


def _split_files(path: str | None) -> dict[str, Path]:
    """Split -> its file: ``train`` and ``dev``, ``test`` or both in a folder; a file alone is ``train``.

    Raises:
        UserError: no folder, or other files.
    """
    if path is not None and Path(path).is_file():
        return {"train": Path(path)}
    needs = "train, dev and test, or one file, as columns: {language: ...} names a column"
    if path is None or not Path(path).is_dir():
        raise UserError(f"path: {'is missing' if path is None else f'{path} is not a folder'}; it needs {needs}")
    tables: dict[str, Path] = {}
    for suffix in tabular.suffixes():
        for file in sorted(Path(path).glob(f"[!.]*{suffix}")):
            name = file.name.removesuffix(suffix)
            if name in tables:
                raise UserError(f"path: {file} stands beside another {name!r}, {tables[name].name}; remove one")
            tables[name] = file
    splits = {split: [tables[name] for name in names if name in tables] for split, names in SPELT.items()}
    if splits["train"] and (splits["dev"] or splits["test"]):
        for split, (first, *others) in ((split, files) for split, files in splits.items() if files):
            if others:
                raise UserError(f"path: {others[0]} stands beside another {split!r}, {first.name}; remove one")
        return {split: files[0] for split, files in splits.items() if files}
    if len(tables) == 1:
        return {"train": next(iter(tables.values()))}
    has = ", ".join(file.name for file in tables.values()) or "no table"
    raise UserError(f"path: {path} has {has}; it needs {needs}")


def warn_of_unused(path: Path, columns: Mapping[str, str], code: str) -> None:
    """Warn where a table has a column of languages that ``columns`` does not name, and that says more than ``code``."""
    row = _first_row(path)
    for name in USUAL_NAMES:
        if name not in columns.values() and row.get(name) not in (None, code):
            log.warning(
                "%s: the column %r is not used; columns: {language: %s} makes a language of each of its values",
                path,
                name,
                name,
            )
            return


def _first_row(path: Path) -> Mapping[str, Any]:
    """The first good row of a table with all of its columns; empty where it has none, or no names for them."""
    objects = tabular.OBJECTS.get(tabular.suffix_of(path))
    return {} if objects is None else next(iter(objects(path, BadRecords())), {})
