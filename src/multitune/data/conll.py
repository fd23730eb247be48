"""Token-tag files: one ``token TAB tag`` a line, a blank line between sentences (WikiANN's and XTREME's format)."""

from collections.abc import Iterator
from pathlib import Path

from multitune.data import lines
from multitune.data.corpus import Record
from multitune.errors import UserError


def read(path: str | Path, *, strict: bool = False) -> Iterator[Record]:
    """Yield ``{"tokens": [...], "tags": [...]}`` a sentence, in the file's order.

    Quotes are text. A token may look empty (U+200E does); it may not be empty.

    Args:
        path: a UTF-8 file, with or without a byte-order mark.
        strict: refuse tag sequences that are not IOB2 (O, B-TYPE, or I-TYPE after a tag of the same TYPE). Published
            sets hold some; without ``strict`` they come as they stand, and scorers read such an I-TYPE as a B-TYPE.

    Raises:
        UserError: naming file and line: not two columns, an empty token or tag, not UTF-8, or (strict) not IOB2.
    """
    for _, record in numbered(path, strict=strict):
        yield record


def numbered(path: str | Path, *, strict: bool = False) -> Iterator[tuple[int, Record]]:
    """As ``read``, with the number of each sentence's first line (from 1)."""
    tokens: list[str] = []
    tags: list[str] = []
    start = 0
    for number, line in lines.numbered(path):
        if not line.strip(" \t"):
            if tokens:
                yield start, {"tokens": tokens, "tags": tags}
            tokens, tags = [], []
            continue
        token, tag = _columns(line, f"{path}:{number}")
        if strict:
            _check_iob2(tag, tags[-1] if tags else "O", f"{path}:{number}")
        start = start if tokens else number
        tokens.append(token)
        tags.append(tag)
    if tokens:
        yield start, {"tokens": tokens, "tags": tags}


def _columns(line: str, place: str) -> tuple[str, str]:
    columns = line.split("\t")
    if len(columns) != 2:
        raise UserError(f"{place}: {len(columns)} columns; a line is token TAB tag, or blank between sentences")
    token, tag = columns[0], columns[1].strip()
    if not token or not tag:
        raise UserError(f"{place}: the {'tag' if token else 'token'} is empty; a line is token TAB tag")
    return token, tag


def _check_iob2(tag: str, previous: str, place: str) -> None:
    kind, _, entity = tag.partition("-")
    if tag != "O" and (kind not in ("B", "I") or not entity):
        raise UserError(f"{place}: tag {tag!r} is not IOB2: O, B-TYPE or I-TYPE is allowed")
    if kind == "I" and previous not in (f"B-{entity}", tag):
        raise UserError(f"{place}: {tag!r} after {previous!r} is not IOB2: an entity begins with B-{entity}")
