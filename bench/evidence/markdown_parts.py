"""Parts of a page in Markdown, a line at a time."""

from collections.abc import Iterator, Sequence
from textwrap import wrap

WIDTH = 120
"""Columns of a line."""


def paragraph(*sentences: str) -> Iterator[str]:
    """Sentences in lines of ``WIDTH`` columns."""
    yield from wrap(" ".join(sentences), WIDTH, break_long_words=False, break_on_hyphens=False)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
