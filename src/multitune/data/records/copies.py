"""Records that stand in the training data word for word: a score on them says little about new ones."""

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitune.data.records.digest import number_of
from multitune.data.records.rows import Row


class Copies:
    """Counts the records of a language whose content its training data have, too.

    Contents are compared by hashes of 64 bits: 8 bytes for each training record, and for each of the records that are
    being read.

    Attributes:
        found: split -> language -> how many of how many records are copies; where none is, there is nothing.
    """

    def __init__(self, content: Callable[[Row], Any]) -> None:
        self._content = content
        self._trained: dict[str, NDArray[np.uint64]] = {}
        self.found: dict[str, dict[str, tuple[int, int]]] = {}

    def trained(self, records: Iterable[Row], language: str) -> Iterator[Row]:
        """The records as they are, those of a language that is trained on."""
        hashes = array("Q")
        yield from self._noted(records, hashes)
        self._trained[language] = np.unique(_numbers(hashes))

    def compared(self, records: Iterable[Row], language: str, split: str) -> Iterator[Row]:
        """The records as they are, those of another split, which is read after train."""
        hashes = array("Q")
        yield from self._noted(records, hashes)
        known = self._trained.get(language, _numbers(array("Q")))
        if copies := int(np.isin(_numbers(hashes), known).sum()):
            self.found.setdefault(split, {})[language] = copies, len(hashes)

    def _noted(self, records: Iterable[Row], hashes: "array[int]") -> Iterator[Row]:
        for record in records:
            hashes.append(number_of(self._content(record)))
            yield record


def _numbers(hashes: "array[int]") -> NDArray[np.uint64]:
    return np.asarray(hashes, np.uint64)
