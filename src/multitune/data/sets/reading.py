"""Reading the files of one corpus: parts, labels as wanted, what is bad."""

import logging
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from multitune.data.bad import BadRecord, BadRecords, first_of
from multitune.data.corpus import Place, Placed, Record
from multitune.data.kind import Kind
from multitune.data.label_spelling import LabelSpelling, likely
from multitune.data.records.copies import Copies
from multitune.data.records.rows import chosen
from multitune.data.records.spool import Spool
from multitune.errors import UserError

if TYPE_CHECKING:
    from multitune.data.sets.folders import Layout, Part

log = logging.getLogger(__name__)

FEW_TESTED = 5
"""Test records of a language that are pointed out as few, or fewer: each moves its score by 20 points or more."""
MANY = 20
"""So many times as many of another language."""
FEW = 20
"""Labels or languages that a message names: enough to recognise a set by."""


class Reading:
    """Reads the files of one corpus; counts the bad records of each language in ``skipped``."""

    def __init__(
        self,
        layout: "Layout",
        kind: type[Kind],
        spelling: LabelSpelling,
        bad: BadRecords,
        trained: Collection[str],
        renamed: Collection[str],
    ) -> None:
        self.skipped: Counter[str] = Counter()
        self._layout, self._kind, self._trained, self._bad = layout, kind, trained, bad
        self._allowed = dict.fromkeys((*layout.labels, *renamed) if layout.labels else ())
        self._spelling, self._converted = spelling, Counter[str]()
        self._is_respelt, self._any_tags = bool(spelling.keys), layout.read is layout.read_any_tags
        self._copies = Copies(kind.content)
        self._keep: Callable[[Iterable[Record]], Sequence[Record]] = Spool().keep if kind.tokenised else list
        self._divided: dict[tuple[tuple[Path, ...], str], dict[Part, Sequence[Record]]] = {}
        self._too_few: dict[str, tuple[Path, ...]] = {}
        self._shown: set[str] = set()

    def records(self, part: "Part | None", paths: tuple[Path, ...], code: str) -> Sequence[Record]:
        """The records of a language and split; where the set fixes its labels, those with another one are bad.

        Files without a record raise ``UserError``; a split that is left empty by dividing waits for ``refuse_too_few``.
        """
        assert part is not None
        before = len(self._bad)
        placed = self._checked(self._placed(part, paths, code))
        kept = self._keep(self._compared((record for _, record in placed), part, code))
        self.skipped[code] += len(self._bad) - before
        if not kept and not self.skipped[code]:
            if not any(self._divided.get((paths, code), {}).values()):
                raise UserError(f"{paths[0]}: holds no record")
            self._too_few[code] = paths
        return kept

    def refuse_too_few(self) -> None:
        """Stop where languages have too few records for each of the splits that their files are divided into.

        Raises:
            UserError: one line with all of these languages and how many records each has.
        """
        if not self._too_few:
            return
        files = {path for paths in self._too_few.values() for path in paths}
        where = files.pop() if len(files) == 1 else files.pop().parent
        sizes = {
            each: sum(map(len, self._divided[paths, each].values())) for each, paths in sorted(self._too_few.items())
        }
        few = first_of([f"{code} ({size})" for code, size in sizes.items()], FEW)
        raise UserError(
            f"{where}: too few records to divide into train, dev and test: {few}; to test on these languages alone, "
            f"take them out of languages: and name them under unseen: [{', '.join(sizes)}]; to train on them, give "
            "each split a file of its own"
        )

    @property
    def shown(self) -> tuple[str, ...]:
        """The labels of the records that were read so far, sorted."""
        return tuple(sorted(self._shown))

    def say_what_was_done(self) -> None:
        """Warn of tags that were converted, and of what is trained on as well as scored."""
        for file, count in (+self._converted).items():
            log.warning("%s: %d tags are converted from %s to IOB2", file, count, self._spelling.scheme)
        if found := self._copies.found:
            counts = "; ".join(f"{split}: {_counted(languages)}" for split, languages in found.items())
            log.warning("texts that stand in train word for word, so that scores on them say little: %s", counts)

    def warn_of_few(self, test: Mapping[str, Sequence[Record]]) -> None:
        """Warn of languages of a user's own files that have a few test records where another one has many."""
        sizes = {code: len(records) for code, records in test.items()}
        most = max(sizes, key=lambda code: sizes[code], default="")
        least = min(FEW_TESTED, sizes.get(most, 0) // MANY)
        few = [f"{code} {size}" for code, size in sizes.items() if 0 < size <= least]
        if few and self._layout.own:
            alike = f"which averages over languages count like the {sizes[most]} of {most}"
            log.warning("few test records, %s: %s", alike, first_of(few, FEW))

    def _compared(self, records: Iterable[Record], part: "Part", code: str) -> Iterable[Record]:
        """The records as they are; in a user's own files those that train has, too, are counted."""
        if not self._layout.own:
            return records
        if part is self._layout.train:
            return self._copies.trained(records, code)
        return self._copies.compared(records, code, "dev" if part is self._layout.dev else "test")

    def _placed(self, part: "Part", paths: tuple[Path, ...], code: str) -> Iterator[Placed]:
        read = self._layout.read
        if code not in self._trained and not part.of_unseen:
            return (self._layout.read_unseen or read)(paths, code, self._bad)
        if part.keep is None:
            return read(paths, code, self._bad)
        if (paths, code) not in self._divided:
            self._divided[paths, code] = self._divide(read(paths, code, self._bad))
        return ((Place(*row["place"]), row["record"]) for row in self._divided[paths, code][part])

    def _divide(self, placed: Iterator[Placed]) -> "dict[Part, Sequence[Record]]":
        """Part -> its share of files that hold several, each record with its place."""
        all_parts = (self._layout.train, self._layout.dev, self._layout.test)
        keeps = {part: part.keep for part in all_parts if part is not None and part.keep is not None}
        rows = {part: array("q") for part in keeps}

        def noted() -> Iterator[Record]:
            for number, (place, record) in enumerate(placed):
                for part, keep in keeps.items():
                    if keep(place, record):
                        rows[part].append(number)
                        break
                yield {"place": place, "record": record}

        kept = self._keep(noted())
        return {part: chosen(kept, numbers) for part, numbers in rows.items()}

    def _checked(self, placed: Iterator[Placed]) -> Iterator[Placed]:
        """The records with their labels as wanted; those with labels that are not allowed are reported."""
        field = self._kind.label_field
        if field is None:
            yield from placed
            return
        for place, record in placed:
            try:
                spelt = self._respelt(place, record, field)
                self._check_allowed(spelt, field)
            except BadRecord as problem:
                self._bad.add(place.of(problem.label), str(problem))
            else:
                self._shown.update(self._kind.labels_of(spelt))
                yield place, spelt

    def _respelt(self, place: Place, record: Record, field: str) -> Record:
        if field not in record:
            raise BadRecord(f"has no {field}: neither a column of its own nor a file of labels")
        if not self._is_respelt:
            return record
        spelt, converted = self._spelling.respelt(record, field, entities=self._any_tags)
        self._converted[place.file] += converted
        return spelt

    def _check_allowed(self, record: Record, field: str) -> None:
        """Raise ``BadRecord`` where the set fixes its labels, and the record has another one."""
        for number, label in enumerate(self._kind.labels_of(record) if self._allowed else ()):
            if label not in self._allowed:
                what = f"{field.removesuffix('s')} {label!r}"
                of_set = f"is none of data: {self._layout.name}, which has {first_of(self._allowed, FEW)}"
                raise BadRecord(f"{what} {of_set}{likely(label, self._allowed)}", number)


def _counted(languages: Mapping[str, tuple[int, int]]) -> str:
    return first_of([f"{code} {copies} of {count}" for code, (copies, count) in languages.items()], FEW)
