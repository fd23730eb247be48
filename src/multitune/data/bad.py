"""Bad records of a data set: each named with its file and line, all of them counted, none left out in silence."""

from collections.abc import Iterator

from multitune.errors import UserError


class BadRecords:
    """The bad records that readers meet, in the order they meet them.

    A reader that is given one adds to it and goes on with the next record; ``read`` functions without one raise at the
    first bad record.
    """

    def __init__(self) -> None:
        self._found: list[tuple[str, str]] = []

    def add(self, place: str, problem: str) -> None:
        """Note a bad record: ``place`` is file:line, ``problem`` says what is wrong and what is allowed."""
        self._found.append((place, problem))

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._found)

    def refuse(self) -> None:
        """Stop where there are any.

        Raises:
            UserError: one line with the first bad record and how many more there are.
        """
        if not self._found:
            return
        place, problem = self._found[0]
        more = len(self._found) - 1
        rest = f" ({more} more bad records; multitune data lists them, skip_bad: true leaves them out)" if more else ""
        raise UserError(f"{place}: {problem}{rest}")


def report(bad: BadRecords | None, place: str, problem: str) -> None:
    """Note a bad record, or raise where nobody notes them.

    Raises:
        UserError: ``bad`` is None.
    """
    if bad is None:
        raise UserError(f"{place}: {problem}")
    bad.add(place, problem)
