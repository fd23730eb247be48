"""Sentences of files that have a line a token and a blank line between sentences."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from multitune.data import lines
from multitune.data.bad import BadRecords, report
from multitune.data.corpus import Place

Line = tuple[int, str]

NO_TOKEN = re.compile(r"#|\d+[-.]\d+\t")
"""In CoNLL-U a comment, a multiword token (1-2) or an empty node (1.1)."""
MARK = re.compile(r"-DOCSTART-(\s|$)|# id \S")
"""What begins a document in CoNLL-2002 and 2003, as a sentence or as the first token of one; and a sentence in
MultiCoNER, whose comments have as many columns as its tokens."""


def sentences(path: Path, bad: BadRecords | None) -> Iterator[tuple[Place, list[str]]]:
    """The lines of each sentence; one with a line that is not UTF-8 is left out, as that line is reported already."""
    no_token = NO_TOKEN if ".conllu" in path.suffixes else MARK
    rows: list[Line] = []
    size, known = 0, len(bad or ())
    for number, line in chain(lines.numbered(path, bad), [(0, "")]):
        if no_token.match(line):
            continue
        if line.strip(" \t"):
            size += len(line) + 1
            rows += [(number, line)] if size <= lines.LONGEST else []
            continue
        if size > lines.LONGEST:
            problem = f"a sentence of more than {lines.LONGEST} characters; a blank line ends each"
            report(bad, f"{path}:{rows[0][0]}", problem)
        elif rows and len(bad or ()) == known:
            tokens = _without_comments(rows)
            yield Place(str(path), [number for number, _ in tokens]), [line for _, line in tokens]
        rows, size, known = [], 0, len(bad or ())


def splitter(rows: Sequence[str]) -> Callable[[str], list[str]]:
    """Splits a line at tabs, where one of ``rows`` has any, else at spaces."""
    if any("\t" in row for row in rows):
        return lambda row: row.split("\t")
    return lambda row: [column for column in row.split(" ") if column]


def _without_comments(rows: Sequence[Line]) -> Sequence[Line]:
    """The lines of a sentence without those at its beginning that open with # and have other columns than the last."""
    split = splitter([row for _, row in rows])
    width = len(split(rows[-1][1]))
    first = (n for n, (_, row) in enumerate(rows) if not row.startswith("#") or len(split(row)) == width)
    return rows[next(first) :]
