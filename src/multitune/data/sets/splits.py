"""What splits are called, in the names of files and in a column of a table, and the parts that such a column makes."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from multitune.data import fields
from multitune.data.bad import BadRecord
from multitune.data.corpus import Place, Record
from multitune.data.sets.folders import Part, parts_of

SPLIT = "split"
"""What ``columns:`` calls the column, and the key of records that holds its value."""
SPELT = {"train": ("train",), "dev": ("dev", "validation", "valid", "val"), "test": ("test",)}
"""Split -> what its file is called."""
VALUES = {spelt: split for split, names in SPELT.items() for spelt in names} | {"training": "train"}
"""What a row's column says, in any case -> the split."""
USUAL_NAMES = ("split", "set", "subset", "partition")
"""What a column of these values alone is called, if it is to be used without being named."""


def split_of(value: Any) -> str:
    """The split that a row says it belongs to.

    Raises:
        BadRecord: it says none, or what is no split.
    """
    split = said_by(fields.text(value, SPLIT))
    if split is None:
        raise BadRecord(f"{SPLIT} is {value!r}; it must be one of {', '.join(VALUES)}")
    return split


def said_by(value: Any) -> str | None:
    """The split that a value says; None where it says none."""
    return VALUES.get(value.strip().lower()) if isinstance(value, str) else None


def parts_by_column(
    names: Sequence[str], splits: Collection[str], content: Callable[[Record], Any]
) -> tuple[Part, Part, Part | None]:
    """Train, dev and test of files whose rows say their split (key ``SPLIT`` of a record).

    Where all say train, they are divided by hash as a single file is; without dev a tenth of train validates.

    Args:
        names: of the files.
        splits: what their rows say.
        content: what they are divided by.
    """
    if set(splits) <= {"train"}:
        return parts_of({"train": Part(tuple(names))}, content)
    there = [split for split in SPELT if split == "train" or split in splits]
    return parts_of({split: Part(tuple(names), keep=_says(split), of_unseen=True) for split in there}, content)


def _says(split: str) -> Callable[[Place, Record], bool]:
    return lambda place, record: record[SPLIT] == split
