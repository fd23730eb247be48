"""How a recipe wants labels spelt: without blanks around them, by name instead of number, entity tags as IOB2."""

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from multitune.data.bad import BadRecord
from multitune.data.corpus import Record
from multitune.data.tag_schemes import SCHEMES, from_iob2

INVISIBLE = ("Cc", "Cf", "Zs")
"""Unicode categories of controls, of marks without width such as U+200B, and of blanks."""

WHOLE = re.compile(r"(-?[0-9]+)\.0+")
"""A whole number as programs write it where a column holds other numbers, or none in a row."""

LONGEST_NUMBER = 9
"""Digits of the number of a label: more than any list of names has, fewer than Python refuses to read."""


@dataclass(frozen=True)
class LabelSpelling:
    """What is done to every label of a data set before it is checked; by default nothing.

    Attributes:
        strip: take off blanks and invisible characters at the edges.
        names: the labels that whole numbers stand for, from 0.
        scheme: of entity tags, in ``SCHEMES``; they become IOB2.
    """

    strip: bool = False
    names: tuple[str, ...] = ()
    scheme: str | None = None

    @property
    def keys(self) -> list[str]:
        """The recipe keys that ask for something."""
        asked = {"scheme": self.scheme, "strip_labels": self.strip, "label_names": self.names}
        return [key for key, value in asked.items() if value]

    def respelt(self, record: Record, field: str, *, entities: bool) -> tuple[Record, int]:
        """A record with its labels as wanted, and how many of its tags another scheme spells otherwise.

        Args:
            record: with or without labels.
            field: what holds its label, or the list of its labels.
            entities: the labels are entity tags that nobody has checked yet.

        Raises:
            BadRecord: its labels cannot be what is said of them.
        """
        value = record.get(field)
        if isinstance(value, str):
            return record | {field: self._label(value, 0)}, 0
        if not isinstance(value, list):
            return record, 0
        labels = [self._label(label, number) for number, label in enumerate(value)]
        tags = SCHEMES.get(self.scheme or "", from_iob2)(labels) if entities else labels
        return record | {field: tags}, sum(tag != label for tag, label in zip(tags, labels, strict=True))

    def _label(self, label: str, number: int) -> str:
        """One label; ``number`` says which of the record's, for messages."""
        label = stripped(label) if self.strip else label
        if not label:
            raise BadRecord("the label is blank", number)
        if not self.names or label in self.names:
            return label
        if label.isdecimal() and len(label) <= LONGEST_NUMBER and int(label) < len(self.names):
            return self.names[int(label)]
        allowed = f"0 to {len(self.names) - 1} and their names"
        raise BadRecord(f"label {label!r} is none of label_names, which has {allowed}", number)


def stripped(label: str) -> str:
    """The label without blanks and invisible characters at its edges."""
    seen = [number for number, character in enumerate(label) if unicodedata.category(character) not in INVISIBLE]
    return label[seen[0] : seen[-1] + 1] if seen else ""


def looks(label: str) -> str:
    """What a reader sees of a label.

    Alike where two differ by blanks, capitals, composed accents, invisible characters or .0 alone.
    """
    composed = unicodedata.normalize("NFC", label).casefold()
    seen = "".join(character for character in composed if unicodedata.category(character) not in INVISIBLE)
    whole = WHOLE.fullmatch(seen)
    return whole[1] if whole is not None else seen


def lookalikes(labels: Collection[str]) -> list[list[str]]:
    """Groups of labels that a reader cannot tell apart."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(looks(label), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def told_apart(labels: Collection[str]) -> list[str]:
    """Labels as messages quote them: with code points where the composition of accents alone makes the difference."""
    composed = [unicodedata.normalize("NFC", label) for label in labels]
    return [
        ascii(label) if composed.count(own) > 1 else repr(label) for label, own in zip(labels, composed, strict=True)
    ]


def likely(label: str, known: Collection[str]) -> str:
    """A hint, to be added to a sentence, where a label looks like a known one; empty elsewhere."""
    by_looks = _by_looks(tuple(known))
    meant = by_looks.get(looks(label))
    if meant is None:
        return ""
    way_out = "; strip_labels: true takes off blanks at its edges" if stripped(label) == meant else ""
    one, other = told_apart([label, meant])
    return f"; {one} differs from {other} by blanks, capitals, composed accents or .0 alone{way_out}"


@lru_cache(maxsize=8)
def _by_looks(labels: tuple[str, ...]) -> dict[str, str]:
    """What a reader sees of each label -> the label."""
    return {looks(label): label for label in labels}
