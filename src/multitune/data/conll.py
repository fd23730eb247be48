"""Token-tag files: a token, perhaps other columns, and its tag a line; a blank line between sentences.

WikiANN (PAN-X) and XTREME's part-of-speech files have two columns with a tab between; MasakhaNER, CoNLL-2002 and
CoNLL-2003 have two to four with spaces between, or five, of which the first is the word's number. A ``.conllu`` file
has the ten columns of CoNLL-U (then FORM and UPOS are read), or three: number, token, tag, as one export of WikiANN
has.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from multitune.data.bad import BadRecord, BadRecords, parsed, records, report
from multitune.data.corpus import Placed, Record
from multitune.data.sentences import sentences, splitter
from multitune.data.tag_schemes import check_iob2

log = logging.getLogger(__name__)

Check = Callable[[Sequence[str]], None]

COLUMNS = ("token", "tag")
"""What a recipe calls the first column of a line, and the last."""

SCHEMES = {"IOB2": "BI", "IOBES": "BIES", "BILOU": "BILU", "plain tags": "."}
"""The prefixes of each scheme; ``.`` stands for a tag without one."""

NUMBERED = 5
"""Columns of CoNLL-2003 with the number of the word before it, as some taggers want it."""
WIDTHS = {"\t": (2, 4), " ": (2, 3, 4, NUMBERED)}
"""Columns of a token-tag file by what separates them: the token, perhaps its part of speech and chunk, and the tag."""


def read(path: str | Path, bad: BadRecords | None = None, *, strict: bool = False) -> Iterator[Record]:
    """Yield ``{"tokens": [...], "tags": [...]}`` a sentence, in the file's order.

    Quotes are text. A token may look empty (U+200E does); it may not be empty. A sentence with a bad line is bad.

    Args:
        path: a UTF-8 file, plain or gzipped, with or without a byte-order mark. Tabs separate its columns, or spaces
            where the first line has no tab. Marks of documents and comments are no tokens.
        bad: takes the bad sentences; None raises at the first.
        strict: refuse tag sequences that are not IOB2 (O, B-TYPE, or I-TYPE after a tag of the same TYPE). Published
            sets hold some; without ``strict`` they come as they stand, and scorers read such an I-TYPE as a B-TYPE.

    Raises:
        UserError: naming file and line: the wrong columns, an empty token or tag, not UTF-8, tags of several schemes
            in one file (IOB2 and IOBES, entities and parts of speech), or (strict) not IOB2.
    """
    return records(placed(path, bad, strict=strict))


def placed(path: str | Path, bad: BadRecords | None = None, *, strict: bool = False) -> Iterator[Placed]:
    """Yield what ``read`` does, each with its place: the line of every token."""
    return _placed(Path(path), bad, check_iob2 if strict else OneScheme().check)


def unchecked(path: str | Path, bad: BadRecords | None = None) -> Iterator[Placed]:
    """Yield what ``placed`` does, with tags of any scheme or none."""
    return _placed(Path(path), bad, lambda tags: None)


def rows(path: str | Path, columns: Mapping[str, str], bad: BadRecords | None = None) -> Iterator[Placed]:
    """Yield ``{field: [value of each word]}`` a sentence, each with its place, as tables of a user's own are read.

    Args:
        path: as of ``read``.
        columns: field -> ``token``, the first column of the file, or ``tag``, the last.
        bad: takes the bad sentences; None raises at the first.

    Raises:
        UserError: no such column; or as ``read`` does, but for tags.
    """
    for field, column in columns.items():
        if column not in COLUMNS:
            report(bad, str(path), f"no column {column!r} for {field}; {' and '.join(COLUMNS)} are the first and last")
            return
    at = {field: COLUMNS.index(column) for field, column in columns.items()}
    pairs = _Columns()

    def by_field(lines: Sequence[str]) -> Record:
        words = pairs.of(lines)
        return {field: [word[index] for word in words] for field, index in at.items()}

    yield from parsed(sentences(Path(path), bad), by_field, bad)


def _placed(path: Path, bad: BadRecords | None, check: Check) -> Iterator[Placed]:
    columns = _of_conllu if ".conllu" in path.suffixes else _Columns().of
    return parsed(sentences(path, bad), lambda rows: _parse(rows, columns, check), bad)


def lenient(records: Iterable[Placed]) -> Iterator[Placed]:
    """The same, with a warning that counts the I- tags that open an entity, which IOB2 does not allow."""
    loose: Counter[str] = Counter()
    for place, record in records:
        pairs = zip(["O", *record["tags"]], record["tags"], strict=False)
        loose[place.file] += sum(tag.startswith("I-") and previous[2:] != tag[2:] for previous, tag in pairs)
        yield place, record
    for file, count in (+loose).items():
        log.warning("%s: %d I- tags open an entity, which IOB2 does not allow; they are scored as B- tags", file, count)


def unprefixed(records: Iterable[Placed], code: str) -> Iterator[Placed]:
    """The same, with tokens that begin with their language (``de:Anna``, as WikiANN was first published) without it."""
    prefix = f"{code}:"
    cut: Counter[str] = Counter()
    for place, record in records:
        tokens = record["tokens"]
        if all(token.startswith(prefix) and token != prefix for token in tokens):
            cut[place.file] += 1
            record = record | {"tokens": [token.removeprefix(prefix) for token in tokens]}
        yield place, record
    for file, count in cut.items():
        log.warning("%s: the prefix %s is taken off all tokens of %d sentences", file, prefix, count)


class OneScheme:
    """The tag schemes that the sentences of a file have left possible."""

    def __init__(self) -> None:
        self._possible = dict(SCHEMES)
        self._fitting: set[str] = set()

    def check(self, tags: Sequence[str]) -> None:
        """Raise ``BadRecord`` for a sentence whose tags fit none of the schemes that all earlier ones fit."""
        if self._fitting.issuperset(tags):
            return
        possible = self._possible
        for label, tag in enumerate(tags):
            prefix = tag[0] if tag[1:2] == "-" and tag[0] in "BIESLU" else "."
            fitting = {name: known for name, known in possible.items() if tag == "O" or prefix in known}
            if not fitting:
                raise BadRecord(f"tag {tag!r} mixes schemes: the tags before it are {' or '.join(possible)}", label)
            possible = fitting
        self._possible = possible
        self._fitting.update(tags)


def _parse(rows: Sequence[str], columns: Callable[[Sequence[str]], list[tuple[str, str]]], check: Check) -> Record:
    pairs = columns(rows)
    tags = [tag for _, tag in pairs]
    check(tags)
    return {"tokens": [token for token, _ in pairs], "tags": tags}


class _Columns:
    """Tokens and tags of a file's sentences, once its first one has shown what separates columns, and how many."""

    def __init__(self) -> None:
        self._split: Callable[[str], list[str]] | None = None
        self._width = 0

    def of(self, rows: Sequence[str]) -> list[tuple[str, str]]:
        """The first and last column of each line; raises ``BadRecord``."""
        if self._split is None:
            self._split, allowed = splitter(rows), WIDTHS["\t" if "\t" in rows[0] else " "]
            width = len(self._split(rows[-1]))
            self._width = width if width in allowed else allowed[0]
        pairs = [self._of_line(self._split(row), label) for label, row in enumerate(rows)]
        if len(pairs) > 1 and [token for token, _ in pairs] == [str(number + 1) for number in range(len(pairs))]:
            raise BadRecord("the first column counts the words; a line is token TAB tag")
        return pairs

    def _of_line(self, columns: Sequence[str], label: int) -> tuple[str, str]:
        if len(columns) != self._width:
            usual = "token TAB tag" if self._width == 2 else f"{self._width} columns, as in the first sentence"
            raise BadRecord(f"{len(columns)} columns; a line is {usual}, or blank between sentences", label)
        if self._width == NUMBERED:
            number, *columns = columns
            if number != str(label + 1):
                raise BadRecord(f"begins with {number!r}; the first of {NUMBERED} columns is the word's number", label)
        return _filled(columns[0], columns[-1].strip(), label)


def _filled(token: str, tag: str, label: int) -> tuple[str, str]:
    """The token and tag of a line; ``label`` counts the lines of the sentence."""
    for name, value in (("token", token), ("tag", tag)):
        if not value.strip(" \t"):
            raise BadRecord(f"the {name} is empty; a line is token TAB tag", label)
    return token, tag


def _of_conllu(rows: Sequence[str]) -> list[tuple[str, str]]:
    words = []
    for label, row in enumerate(rows):
        columns = row.split("\t")
        if len(columns) not in (3, 10):
            raise BadRecord(f"{len(columns)} columns; CoNLL-U has 10, or number, token and tag", label)
        words.append(_filled(columns[1], columns[3 if len(columns) == 10 else 2].strip(), label))
    return words
