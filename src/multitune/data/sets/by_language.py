"""Tables in which a column says the language of each row, or its split, or both."""

import logging
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from multitune.data import fields, tabular
from multitune.data.bad import BadRecord, BadRecords, first_of
from multitune.data.corpus import Corpus, Place, Placed, Record, Wanted
from multitune.data.fields import Fields
from multitune.data.label_spelling import lookalikes, told_apart
from multitune.data.records.rows import chosen
from multitune.data.records.spool import Spool
from multitune.data.sets.folders import Layout, Part, load, parts_of, say_a_tenth_validates
from multitune.data.sets.splits import SPELT, SPLIT, parts_by_column, split_of
from multitune.errors import UserError
from multitune.screen.stages import expect
from multitune.storage.disk import check_listed

log = logging.getLogger(__name__)

LANGUAGE = "language"
"""What ``columns:`` calls the column."""
USUAL_NAMES = tuple(
    spelt
    for name in ("lang", "language", "locale", "lang_code", "language_code")
    for spelt in (name, name.capitalize(), name.upper())
)
"""What such a column is called."""
FEW = 8
"""Languages that a warning names."""


class Tables:
    """The records of tables by language and split. Each file is read once; its records are kept on disk.

    Attributes:
        bad: takes the bad rows.
        skipped: language -> its bad rows; those whose language cannot be told count under the name of their file.
    """

    def __init__(
        self, fields: Fields, columns: Mapping[str, str], bad: BadRecords, language: Callable[[Path], str]
    ) -> None:
        """Take what reads a row; ``language`` is that of a file without a column for it."""
        self.bad = bad
        self.skipped: Counter[str] = Counter()
        self._fields, self._columns, self._language = fields, columns, language
        self._spool = Spool()
        self._read: dict[Path, dict[str, Sequence[Record]]] = {}
        self._splits: dict[Path, set[tuple[str, str | None]]] = {}

    @property
    def say_splits(self) -> bool:
        """Whether a column says the split of each row, which is then a key of its record."""
        return SPLIT in self._columns

    def languages(self, paths: Sequence[Path], split: str | None = None) -> list[str]:
        """The languages of files with a good row, perhaps of a split that rows say, sorted."""
        return sorted({code for code, said in self._found(paths) if split in (None, said)})

    def splits(self, paths: Sequence[Path]) -> list[str]:
        """The splits that good rows of the files say."""
        said = {split for _, split in self._found(paths)}
        return [split for split in SPELT if split in said]

    def records(self, paths: Sequence[Path], code: str) -> Iterator[Placed]:
        """The records of a language in files."""
        rows = (row for path in paths for row in self._by_language(path).get(code, ()))
        return ((Place(*row["place"]), row["record"]) for row in rows)

    def warn_of_unused(self, path: Path) -> None:
        """Warn where a table has a column of languages, but no column says the language."""
        if LANGUAGE not in self._columns:
            warn_of_unused(path, self._columns, self._language(path))

    def _found(self, paths: Sequence[Path]) -> set[tuple[str, str | None]]:
        """The languages and splits of the good rows of files."""
        for path in paths:
            self._by_language(path)
        return {each for path in paths for each in self._splits[path]}

    def _by_language(self, path: Path) -> dict[str, Sequence[Record]]:
        if path not in self._read:
            numbers: defaultdict[str, array[int]] = defaultdict(lambda: array("q"))
            self._splits[path] = set()
            kept = self._spool.keep(self._noted(path, numbers))
            self._read[path] = {code: chosen(kept, own) for code, own in numbers.items()}
        return self._read[path]

    def _noted(self, path: Path, numbers: Mapping[str, "array[int]"]) -> Iterator[Record]:
        """The good records of a file with their places; ``numbers`` takes which of them are of which language."""
        count, before = 0, len(self.bad)
        for place, row in tabular.rows(path, self._columns, self.bad):
            code = path.name
            try:
                values = dict(row)
                code = _code(values.pop(LANGUAGE)) if LANGUAGE in values else self._language(path)
                said = {SPLIT: split_of(values.pop(SPLIT))} if SPLIT in values else {}
                record = self._fields.record(values) | said
            except BadRecord as problem:
                self.bad.add(place.of(problem.label), str(problem))
                self.skipped[code] += 1
                before += 1
            else:
                numbers[code].append(count)
                self._splits[path].add((code, said.get(SPLIT)))
                count += 1
                yield {"place": place, "record": record}
        self.skipped[path.name] += len(self.bad) - before


def _code(value: Any) -> str:
    return fields.text(value, LANGUAGE).strip()


def load_by_column(
    tables: Tables,
    layout: Callable[..., Layout],
    content: Callable[[Record], Any],
    wanted: Wanted,
) -> Corpus:
    """Read tables of all languages or of one: ``train``, ``dev`` and ``test``, or one file for all.

    Without ``dev`` a tenth of ``train`` validates, by hash; without ``test`` dev is reported.
    Languages with a training row are trained on, others are unseen, where ``wanted`` does not choose.

    Args:
        tables: reads them.
        layout: makes a layout of a reader, parts and languages (``codes``).
        content: what a single file is divided by.
        wanted: as for ``folders.load``.

    Raises:
        UserError: as ``folders.load`` does; a language without rows, or no good row at all.
    """
    files = _split_files(wanted.path)
    if len(files) > 1 and "dev" not in files:
        say_a_tenth_validates(wanted)
    parts = parts_of({split: Part((file.name,)) for split, file in files.items()}, content)
    apart = replace(wanted, path=str(next(iter(files.values())).parent))
    return load_splits(tables, layout, parts, [([file], None) for file in files.values()], apart)


def load_by_split(
    tables: Tables,
    layout: Callable[..., Layout],
    content: Callable[[Record], Any],
    paths: Sequence[Path],
    names: Sequence[str],
    wanted: Wanted,
) -> Corpus:
    """Read tables whose column says the split of each row, by whatever names the files have.

    Where all rows are of train they are divided by hash, without dev a tenth of train validates, and without test dev
    is reported.

    Args:
        tables, layout, content: as for ``load_by_column``.
        paths: the files.
        names: these within the folder ``wanted.path``, perhaps with ``*``.
        wanted: as for ``folders.load``.

    Raises:
        UserError: as ``load_by_column`` does; no row of train where a language is to be trained on.
    """
    splits = tables.splits(paths)
    if wanted.trains and not wanted.test_only:
        if "train" not in splits:
            tables.bad.refuse()
            has = " and ".join(splits) or "none"
            raise UserError(f"{paths[0]}: no row says train in the column for {SPLIT}, which has {has}")
        if splits == ["train", "test"]:
            say_a_tenth_validates(wanted)
    sides = [(paths, split) for split in splits] if set(splits) - {"train"} else [(paths, None)]
    return load_splits(tables, layout, parts_by_column(names, splits, content), sides, wanted)


def load_splits(
    tables: Tables,
    layout: Callable[..., Layout],
    parts: Sequence[Part | None],
    sides: Sequence[tuple[Sequence[Path], str | None]],
    wanted: Wanted,
) -> Corpus:
    """Read tables whose splits are known, as ``load_by_column`` does.

    Args:
        parts: train, dev and test, if there is one.
        sides: the files of each, and what their rows say where a column says the split; those that hold several splits
            in another way once. The first has what is trained on, the last what is reported.
    """

    def read(paths: Sequence[Path], code: str, bad: BadRecords) -> Iterator[Placed]:
        return tables.records(paths, code)

    expect(dict.fromkeys(file for files, _ in sides for file in files))
    by_split = [tables.languages(*side) for side in sides]
    if not any(by_split):
        tables.bad.refuse()
    _warn_of_lookalikes({code for codes in by_split for code in codes})
    shown, reported = by_split[0], by_split[-1]
    languages = wanted.trained_on(shown)
    unseen = [code for code in reported if code not in languages] if wanted.unseen is None else wanted.unseen
    for key, codes, numbers in (("languages", languages, range(len(sides))), ("unseen", unseen, (len(sides) - 1,))):
        for split in numbers:
            if lacking := [code for code in codes if code not in by_split[split]]:
                if not by_split[split]:
                    tables.bad.refuse()
                has = ", ".join(by_split[split]) or "no language"
                (file, *_), said = sides[split]
                row = "row" if said is None else f"{said} row"
                named = ", ".join(map(repr, lacking))
                raise UserError(f"{key}: {file} has no {row} of {named}; there are some of: {has}")
    one = layout(read, *parts, codes=sorted({code for codes in by_split for code in codes}))
    corpus = load([one], replace(wanted, languages=languages if wanted.trains else (), unseen=unseen), tables.bad)
    skipped = Counter(corpus.skipped) + tables.skipped
    return replace(corpus, skipped=dict(skipped))


def _warn_of_lookalikes(languages: Collection[str]) -> None:
    """Say which languages a reader cannot tell apart."""
    for group in lookalikes([code.replace("_", "-") for code in sorted(languages)]):
        spelt = [code for code in sorted(languages) if code.replace("_", "-") in group]
        log.warning(
            "languages that differ by blanks, capitals, - and _ alone are languages of their own: %s",
            first_of(told_apart(spelt), FEW),
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
    if has_split_files(path):
        splits = {split: [each for each in tables_of(path) if _is_of(each, split)] for split in SPELT}
        for split, (first, *others) in ((split, files) for split, files in splits.items() if files):
            if others:
                raise UserError(f"path: {others[0]} stands beside another {split!r}, {first.name}; remove one")
        return {split: files[0] for split, files in splits.items() if files}
    tables = tables_of(path)
    if len(tables) == 1:
        return {"train": tables[0]}
    has = ", ".join(file.name for file in tables) or "no table"
    raise UserError(f"path: {path} has {has}; it needs {needs}")


def has_split_files(path: str | None) -> bool:
    """Whether a path is a folder with a file ``train`` and one for dev or test, each of all languages or of one."""
    splits = {split for file in tables_of(path) for split in SPELT if _is_of(file, split)}
    return "train" in splits and len(splits) > 1


def _is_of(file: Path, split: str) -> bool:
    """Whether a file is called after a split."""
    return tabular.stem_of(file) in SPELT[split]


def tables_of(path: str | None) -> list[Path]:
    """The table that a path is, or all tables of the folder that it is, sorted."""
    if path is None or Path(path).is_file():
        return [] if path is None else [Path(path)]
    if Path(path).is_dir():
        check_listed(Path(path))
    return sorted({file for suffix in tabular.suffixes() for file in Path(path).glob(f"[!.]*{suffix}")})


def has_column(path: Path, name: str) -> bool:
    """Whether the first good row of a table has a column of that name."""
    return name in _first_row(path)


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
