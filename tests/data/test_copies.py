"""Copies of training records: what is counted, against a count by sets of the contents themselves."""

from operator import itemgetter

from multitune.data.records.copies import Copies
from multitune.data.records.rows import Row


def rows(*texts: str | list[str]) -> list[Row]:
    return [{"text": text} for text in texts]


def test_counts_are_those_of_sets() -> None:
    train = rows("a", "b", ["a"], "a", "a b")
    splits = {"dev": rows("a", "c", "A", "a "), "test": rows(["a"], "b", "b", "a b", ["a", "b"])}
    copies = Copies(itemgetter("text"))
    assert list(copies.trained(train, "de")) == train
    for split, records in splits.items():
        assert list(copies.compared(records, "de", split)) == records
        assert list(copies.compared(records, "fi", split)) == records
    expected = {split: (sum(row in train for row in records), len(records)) for split, records in splits.items()}
    assert copies.found == {split: {"de": counts} for split, counts in expected.items()}


def test_nothing_is_a_copy_of_nothing() -> None:
    copies = Copies(itemgetter("text"))
    assert not list(copies.trained([], "de"))
    for records in ([], rows("a")):
        assert list(copies.compared(records, "de", "test")) == records
    assert copies.found == {}
