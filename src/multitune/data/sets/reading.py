"""Reading the files of one corpus: parts, labels as wanted, what is bad, what is left out because others are bad."""

import logging
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from multitune.data.bad import BadRecord, BadRecords, counted
from multitune.data.corpus import Place, Placed, Record
from multitune.data.kind import Kind
from multitune.data.label_spelling import LabelSpelling, lookalikes, looks, stripped
from multitune.data.records.rows import chosen
from multitune.data.records.spool import Spool
from multitune.errors import UserError

if TYPE_CHECKING:
    from multitune.data.sets.folders import Layout, Part

log = logging.getLogger(__name__)

FEW = 20
"""Labels that a message names."""


class Reading:
    """Reads the files of one corpus; counts the bad records of each language in ``skipped``."""

    def __init__(
        self,
        layout: "Layout",
        kind: type[Kind],
        trained: Collection[str],
        bad: BadRecords,
        labels: tuple[str, ...],
        spelling: LabelSpelling,
    ) -> None:
        self.labels = labels
        self.skipped: Counter[str] = Counter()
        self._layout, self._kind, self._trained, self._bad = layout, kind, trained, bad
        self._spelling, self._converted = spelling, Counter[str]()
        self._consequences = BadRecords()
        self._fixed, self._after_bad = labels == layout.labels, bool(bad)
        self._keep: Callable[[Iterable[Record]], Sequence[Record]] = Spool().keep if kind.tokenised else list
        self._divided: dict[tuple[tuple[Path, ...], str], dict[Part, Sequence[Record]]] = {}
        self._shown: set[str] = set()

    def records(self, part: "Part | None", paths: tuple[Path, ...], code: str) -> Sequence[Record]:
        """The records of a language and split; those whose label is not allowed are bad."""
        assert part is not None
        before = len(self._bad) + len(self._consequences)
        placed = self._checked(self._placed(part, paths, code))
        kept = self._keep(record for _, record in placed)
        self.skipped[code] += len(self._bad) + len(self._consequences) - before
        if not kept and not self.skipped[code]:
            divided = "too few records to divide into train, dev and test; give each a file of its own"
            raise UserError(f"{paths[0]}: {divided if part.keep else 'holds no record'}")
        return kept

    def settle_labels(self) -> None:
        """Where neither the set nor another one fixes the labels, take those of the records that were read so far."""
        if self.labels:
            return
        self.labels, self._fixed, self._after_bad = tuple(sorted(self._shown)), False, bool(self._bad)
        for group in lookalikes(self.labels):
            log.warning(
                "labels that differ by blanks, capitals or invisible characters alone are labels of their own: %s; "
                "strip_labels: true takes off blanks at their edges",
                ", ".join(map(repr, group)),
            )

    def say_what_was_done(self) -> None:
        """Warn of tags that were converted, and of records that were left out and are not listed as bad."""
        for file, count in (+self._converted).items():
            log.warning("%s: %d tags are converted from %s to IOB2", file, count, self._spelling.scheme)
        if self._consequences:
            place, problem = next(iter(self._consequences))
            left_out = counted(len(self._consequences), "more record")
            why = "a label that no good training record has"
            log.warning("%s left out for %s: %s: %s; mend the bad ones first", left_out, why, place, problem)
        self._bad.consequences += len(self._consequences)

    def _placed(self, part: "Part", paths: tuple[Path, ...], code: str) -> Iterator[Placed]:
        read = self._layout.read
        if code not in self._trained:
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
        allowed = dict.fromkeys(self.labels)
        for place, record in placed:
            try:
                spelt = self._respelt(place, record, field)
            except BadRecord as problem:
                self._bad.add(place.of(problem.label), str(problem))
                continue
            unknown = self._unknown(spelt, allowed)
            if unknown is None:
                if not self.labels:
                    self._shown.update(self._kind.labels_of(spelt))
                yield place, spelt
            elif self._after_bad and not self._fixed:
                self._consequences.add(place.of(unknown[0]), unknown[1])
            else:
                self._bad.add(place.of(unknown[0]), unknown[1])

    def _respelt(self, place: Place, record: Record, field: str) -> Record:
        if field not in record:
            raise BadRecord(f"has no {field}: neither a column of its own nor a file of labels")
        if not self._spelling.keys:
            return record
        entities = self._layout.read is self._layout.read_any_tags
        spelt, converted = self._spelling.respelt(record, field, entities=entities)
        self._converted[place.file] += converted
        return spelt

    def _unknown(self, record: Record, allowed: Collection[str]) -> tuple[int, str] | None:
        """The number of a label that is not allowed, and what to say of it; without ``allowed`` every label is."""
        assert self._kind.label_field is not None
        for number, label in enumerate(self._kind.labels_of(record)):
            if allowed and label not in allowed:
                what = f"{self._kind.label_field.removesuffix('s')} {label!r}"
                of_set = f"is none of data: {self._layout.name}, which has"
                lacks = of_set if self._fixed else "is never seen in training, which has"
                return number, f"{what} {lacks} {first_of(allowed)}{self._likely(label)}"
        return None

    def _likely(self, label: str) -> str:
        """A hint where a label is a known one with blanks around it or other capitals."""
        meant = self._by_looks.get(looks(label))
        if meant is None:
            return ""
        way_out = "; strip_labels: true takes off blanks at its edges" if stripped(label) == meant else ""
        return f"; it differs from {meant!r} by blanks or capitals alone{way_out}"

    @cached_property
    def _by_looks(self) -> dict[str, str]:
        """What a reader sees of each label -> the label, once all are settled."""
        return {looks(label): label for label in self.labels}


def first_of(labels: Collection[str]) -> str:
    """Enough labels to recognise a set by: a column of texts that was taken for labels has very many."""
    more = f" and {len(labels) - FEW} more" if len(labels) > FEW else ""
    return ", ".join(islice(labels, FEW)) + more
